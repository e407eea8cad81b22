"""What a variational autoencoder maximizes, as pure functions of distributions and tensors.

Shapes: ``S`` importance samples, ``B`` images. Units: nats.
"""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support

__all__ = ["elbo", "importance_weighted_bound", "kl_divergence", "log_weights"]


def kl_divergence(
    posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor | None = None
) -> tf.Tensor:
    """``KL(q(z|x) || p(z)) = E_q[log q(z|x) - log p(z)]``, in nats.

    Args:
        posterior: ``q(z|x)``, batch shape (B,).
        prior: ``p(z)``, batch shape ().
        z: draws of the posterior, shape (..., B, d), for the Monte Carlo value
            ``log q(z|x) - log p(z)`` of each; without them TFP's closed form.

    Returns:
        Shape (B,) for the closed form, (..., B) with draws.

    Raises:
        NotImplementedError: TFP knows no closed form for this pair; give `z`.
    """
    if z is None:
        return _support.closed_form_kl(posterior, prior)
    return _support.monte_carlo_kl(posterior, prior, z)


def elbo(reconstruction: tf.Tensor, kl: tf.Tensor, kl_weight: float | tf.Tensor = 1.0) -> tf.Tensor:
    """``ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z))``, in nats.

    With `kl_weight` (beta) other than 1 it is the beta-VAE's objective and no bound any more.

    Args:
        reconstruction: ``log p(x|z)``, shape (..., B).
        kl: the KL, or its Monte Carlo values, shape (B,) or (..., B).
        kl_weight: factor of the KL.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3; Higgins et al. 2017.
    """
    return reconstruction - kl_weight * kl


def log_weights(
    likelihood: tfd.Distribution,
    posterior: tfd.Distribution,
    prior: tfd.Distribution,
    x: tf.Tensor,
    z: tf.Tensor,
) -> tf.Tensor:
    """``log w = log p(x|z) + log p(z) - log q(z|x)`` of each draw, shape (S, B), in nats.

    Args:
        likelihood: ``p(x|z)`` at `z`, batch shape (S, B).
        posterior: ``q(z|x)``, batch shape (B,).
        prior: ``p(z)``.
        x: images, shape (B, height, width, channels).
        z: draws of the posterior, shape (S, B, d).
    """
    return likelihood.log_prob(x) - kl_divergence(posterior, prior, z)


def importance_weighted_bound(log_w: tf.Tensor) -> tf.Tensor:
    """``log (1/S) sum_s w_s``, a lower bound of ``log p(x)`` in expectation, in nats.

    It rises to ``log p(x)`` with the number of samples; with one it is the ELBO.

    Args:
        log_w: shape (S, B), of `log_weights`.

    Returns:
        Shape (B,).

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
    """
    samples = log_w.shape[0] or tf.cast(tf.shape(log_w)[0], log_w.dtype)
    count = math.log(samples) if isinstance(samples, int) else tf.math.log(samples)
    return tf.reduce_logsumexp(log_w, 0) - count
