"""Which latent dimensions a model uses."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae.evaluation import common, marginals
from tfp_vae.vae import VAE, chunks

_THRESHOLD = 0.01  # of Burda et al., in squared latent units


@dataclasses.dataclass(frozen=True)
class LatentUsage(common.Result):
    """What `latent_usage` found; ``d`` latent dimensions.

    Attributes:
        variance_of_means: ``Var_x(E_q[z_j])``, shape (d,).
        threshold: above it a dimension is active.
        active: shape (d,), bool.
        num_active: how many.
        kl: ``E_x KL(q(z_j|x) || p(z_j))`` in nats, shape (d,).
        kl_standard_error: over the images, shape (d,).
        kl_method: "closed form", "monte carlo", or "unavailable" where the marginals of the
            posterior or of the prior are not known; then `kl` is NaN.
    """

    variance_of_means: np.ndarray
    threshold: float
    active: np.ndarray
    num_active: int
    kl: np.ndarray
    kl_standard_error: np.ndarray
    kl_method: str


def latent_usage(
    vae: VAE,
    x: Any,
    threshold: float = _THRESHOLD,
    num_samples: int = 100,
    seed: Any = None,
    *,
    verbose: Any = "auto",
) -> LatentUsage:
    """Active dimensions, and the KL of each.

    A dimension is active if ``A_j = Var_x(E_q[z_j]) > 0.01`` (Burda et al. 2016,
    arXiv:1509.00519, section 5.2). The KL of a dimension is that of the marginals,
    ``E_x KL(q(z_j|x) || p(z_j))``. Their sum is the KL of the ELBO where posterior and prior are
    products; with a posterior of full covariance and such a prior it is smaller, by the
    correlation within ``q(z|x)``.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels), at least two.
        threshold: of the variance, in squared latent units.
        num_samples: draws for each image, where TFP knows no closed form for the mean of the
            posterior (then `variance_of_means` is corrected for their number) or for the KL.
        seed: integer or stateless seed of these draws; by default the model's own stream.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, fewer than two, a negative `threshold`, `num_samples` below 2,
            or values that are not finite.
    """
    x, seed = common.arguments(vae, x, seed, num_samples=num_samples)
    if len(x) < 2 or num_samples < 2:
        # Too few images are for a report no mistake, but a figure that cannot be had.
        error = common.NotAvailableError if len(x) < 2 else ValueError
        raise error(
            "latent_usage: expected at least 2 images and 2 samples, got "
            f"{len(x)} and {num_samples}."
        )
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold: expected a number of at least 0, got {threshold!r}.")
    method = _kl_method(vae.encode(x[:1]), vae.prior())

    @tf.function(autograph=False, input_signature=[common.image_spec(x), common.SEED])
    def moments(x: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """``E_q[z]``, the variance of its estimate, and the KLs: shapes (B, d)."""
        posterior = vae.encode(x)
        mean, variance, exact = marginals.moments(posterior, num_samples, seed)
        noise = tf.zeros_like(mean) if exact else variance / num_samples
        if method == "unavailable":
            return mean, noise, tf.zeros_like(mean)
        q, p = marginals.marginals(posterior), marginals.marginals(vae.prior())
        if method == "closed form":
            return mean, noise, tfd.kl_divergence(q, p)
        z = posterior.sample(num_samples, seed=seed)
        return mean, noise, tf.reduce_mean(q.log_prob(z) - p.log_prob(z), 0)

    found = []
    for start, piece in chunks.pieces(x, chunks.at_once(x), verbose):
        rows = [np.asarray(part) for part in moments(piece, tf.random.fold_in(seed, start))]
        terms = {"E_q[z]": np.isfinite(rows[0]).all(1), "KL": np.isfinite(rows[2]).all(1)}
        common.check_finite(start, **terms)
        found.append(rows)
    mean, noise, kl = (
        np.concatenate(parts).astype(np.float64) for parts in zip(*found, strict=True)
    )
    variance = mean.var(0, ddof=1) - noise.mean(0)
    if method == "unavailable":
        kl[:] = np.nan
    return LatentUsage(
        variance_of_means=variance,
        threshold=float(threshold),
        active=variance > threshold,
        num_active=int(np.sum(variance > threshold)),
        kl=kl.mean(0),
        kl_standard_error=kl.std(0, ddof=1) / math.sqrt(len(kl)),
        kl_method=method,
    )


def _kl_method(posterior: tfd.Distribution, prior: tfd.Distribution) -> str:
    q, p = marginals.marginals(posterior), marginals.marginals(prior)
    if q is None or p is None:
        return "unavailable"
    try:
        tfd.kl_divergence(q, p)
    except NotImplementedError:
        return "monte carlo"
    return "closed form"
