"""Bounds of ``log p(x)``, their terms, and estimators of their gradients.

Shapes: ``S`` draws of the posterior, ``B`` images, ``d`` latent dimensions. Units: nats.
"""

import math
from collections.abc import Callable

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.objectives import marginals


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


def kl_per_dimension(
    posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor | None = None
) -> tf.Tensor:
    """``KL_j = KL(q(z_j|x) || p(z_j))`` of each dimension, whose sum over ``j`` is the KL.

    Both must be products over the dimensions: diagonal normals or `tfd.Independent`.

    Args:
        posterior: ``q(z|x)``, batch shape (B,), event shape (d,).
        prior: ``p(z)``, event shape (d,).
        z: draws of the posterior, shape (..., B, d), for the Monte Carlo values
            ``log q(z_j|x) - log p(z_j)``; without them TFP's closed form.

    Returns:
        Shape (B, d) for the closed form, (..., B, d) with draws.

    Raises:
        NotImplementedError: one of them is no product over the dimensions, or TFP knows no closed
            form for a pair of dimensions.
    """
    factors = _factors("posterior", posterior), _factors("prior", prior)
    if z is None:
        return _support.closed_form_kl(*factors)
    return _support.monte_carlo_kl(*factors, z)


def _factors(name: str, distribution: tfd.Distribution) -> tfd.Distribution:
    """The distributions of the dimensions, as one of batch shape (..., d) and event shape ()."""
    if marginals.is_product(distribution):
        return marginals.marginals(distribution)
    raise NotImplementedError(
        f"{name}: expected a product over the latent dimensions, a MultivariateNormalDiag or a "
        f"tfd.Independent, got {type(distribution).__name__}: its KL has no parts by dimension."
    )


def elbo(reconstruction: tf.Tensor, kl: tf.Tensor, kl_weight: float | tf.Tensor = 1.0) -> tf.Tensor:
    """``ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z))``, in nats.

    With `kl_weight` (beta) other than 1 it is the beta-VAE's objective: above 1 a looser bound of
    ``log p(x)``, below 1 none.

    Args:
        reconstruction: ``log p(x|z)``, shape (..., B).
        kl: the KL, or its Monte Carlo values, shape (B,) or (..., B).
        kl_weight: factor of the KL.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3; Higgins et al. 2017.
    """
    return reconstruction - _support.number(kl_weight, kl.dtype) * kl


def free_bits(kl: tf.Tensor, minimum: float) -> tf.Tensor:
    """The KL with at least `minimum` nats for each dimension, shape (..., B).

    ``sum_j max(minimum, mean_b KL_bj)`` is its mean over the images: a dimension whose mean over
    the batch is below the minimum costs the minimum and has no gradient, so it pays to use it.
    The batch is that of all replicas of a `tf.distribute` strategy together.

    Args:
        kl: of each dimension, shape (..., B, d), of `kl_per_dimension`.
        minimum: nats for each dimension, at least 0; with 0 it is the KL.

    Raises:
        ValueError: `minimum` is negative or not finite.

    Source: Kingma et al. 2016, arXiv:1606.04934, appendix C.8, with one dimension in each group.
    """
    minimum = _support.check_number("free_bits", minimum)
    leading = list(range(kl.shape.rank - 1))
    total = tf.reduce_sum(tf.stop_gradient(kl), leading, keepdims=True)
    count = tf.cast(tf.size(kl) // tf.shape(kl)[-1], kl.dtype)
    if _support.replicas() > 1:
        context = tf.distribute.get_replica_context()
        total, count = context.all_reduce(tf.distribute.ReduceOp.SUM, [total, count])
    used = total > minimum * count
    return tf.reduce_sum(tf.where(used, kl, _support.number(minimum, kl.dtype)), -1)


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


# ---------------------------------------------------------------------- gradient estimators


def path_log_prob(distribution: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
    """``log q(z)`` whose gradient reaches the parameters of ``q`` through ``z`` alone.

    The other part of the gradient, the score ``d log q(z; phi) / d phi`` at fixed ``z``, is 0 in
    expectation. Left out of the ELBO's Monte Carlo KL ("sticking the landing"), what remains is 0
    for every draw where ``q(z|x) = p(z|x)``.

    A posterior that is an inverse autoregressive flow is inverted for it, dimension by dimension.

    Args:
        distribution: ``q(z|x)``, batch shape (B,).
        z: its reparameterized draws, shape (..., B, d).

    Returns:
        Shape (..., B).

    Source: Roeder, Wu & Duvenaud 2017, arXiv:1703.09194, section 3.
    """
    fixed = tf.stop_gradient(z)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(fixed)
        log_q = distribution.log_prob(fixed)
    slope = tf.stop_gradient(tape.gradient(log_q, fixed))
    return tf.stop_gradient(log_q) + tf.reduce_sum(slope * (z - fixed), -1)


class GradientScale:
    """The identity function whose gradient is multiplied by `factor`, which may be set later.

    Later, because the importance weights that scale the gradient of a draw are known only after
    it was decoded; backward passes begin after that.

    Attributes:
        factor: shape of the argument or one that broadcasts to it; `None` for 1.
    """

    def __init__(self) -> None:
        self.factor: tf.Tensor | None = None

    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def identity(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def gradient(dz: tf.Tensor) -> tf.Tensor:
                return dz if self.factor is None else self.factor * dz

            return tf.identity(z), gradient

        return identity(z)


def doubly_reparameterized_bound(
    log_w: tf.Tensor, scale: GradientScale | None, kl_weight: float | tf.Tensor = 1.0
) -> tf.Tensor:
    """`importance_weighted_bound` with a gradient of less variance, shape (B,).

    The value is that of the bound ``log (1/S) sum_s w_s``. With ``v_s = w_s / sum_r w_r`` the
    gradient is

    - for the likelihood and the prior ``sum_s v_s d log w_s``, that of the bound itself;
    - for the posterior ``sum_s v_s^2 (d log w_s / d z_s) (d z_s / d phi)`` (DReG), unbiased for the
      bound; without `scale` ``v_s`` takes the place of ``v_s^2`` (STL), which is biased for
      more than one sample and has the least variance near the true posterior.

    Where the KL in ``log w`` has another weight ``b``, the score that DReG replaces has it too, and
    ``v_s^2`` becomes ``(1 - b) v_s + b v_s^2``: with 0 there is no score to replace.

    Args:
        log_w: log-weights, shape (S, B), whose ``log q`` is that of `path_log_prob`. For DReG
            they are computed from ``scale(z)``, where ``z`` are the draws, shape (S, B, d).
        scale: the one that the draws went through; its factor is set here.
        kl_weight: ``b``, the factor of the KL in ``log_w``.

    Source: Tucker et al. 2019, arXiv:1810.04152, where ``b`` is 1; Roeder et al. 2017,
    arXiv:1703.09194.
    """
    weights = tf.stop_gradient(tf.nn.softmax(log_w, axis=0))
    if scale is not None:
        b = _support.number(kl_weight, weights.dtype)
        scale.factor = (1 - b + b * weights)[..., tf.newaxis]
    surrogate = tf.reduce_sum(weights * log_w, 0)
    return tf.stop_gradient(importance_weighted_bound(log_w) - surrogate) + surrogate
