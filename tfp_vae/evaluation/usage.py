"""Which latent dimensions a model uses."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.evaluation import common
from tfp_vae.objectives import marginals
from tfp_vae.vae import VAE, chunks, parts

_THRESHOLD = 0.01  # of Burda et al., in squared latent units


@dataclasses.dataclass(frozen=True)
class LatentUsage(common.Result):
    """Results of `latent_usage`; ``d`` latent dimensions.

    Attributes:
        variance_of_means: ``Var_x(E_q[z_j])``, shape (d,).
        threshold: a dimension is active if its variance is above this.
        active: whether each dimension is active, shape (d,), bool.
        num_active: how many are active.
        kl: ``E_x KL(q(z_j|x) || p(z_j))`` in nats, shape (d,).
        kl_standard_error: over the images, shape (d,).
        kl_method: "closed form", "monte carlo", or "unavailable" if the marginals of the posterior
            or of the prior are not known; then `kl` is NaN.
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
    ``E_x KL(q(z_j|x) || p(z_j))``. Their sum is the KL of the ELBO if posterior and prior are
    products; with a full-covariance posterior and such a prior the sum is smaller, because of the
    correlation within ``q(z|x)``.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels), at least two.
        threshold: of the variance, in squared latent units.
        num_samples: draws for each image, if TFP has no closed form for the mean of the posterior
            (`variance_of_means` is then corrected for their number) or for the KL.
        seed: integer or stateless seed of these draws; by default the model's own stream.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, fewer than two, a negative `threshold`, `num_samples` below 2,
            or values that are not finite.
    """
    return usage_meter(vae, x, threshold, num_samples)(seed, verbose)


def usage_meter(
    vae: VAE, x: Any, threshold: float = _THRESHOLD, num_samples: int = 100
) -> Callable[[Any, Any], LatentUsage]:
    """`latent_usage` for a model that is still training: checked and compiled once.

    Arguments and errors are those of `latent_usage`.

    Returns:
        A function of `seed` and `verbose` that measures the model in its current state.
    """
    x, _ = common.arguments(vae, x, 0, num_samples=num_samples)
    count = _support.count(x)
    if count < 2 or num_samples < 2:
        # Too few images are for a report no mistake, but a figure that cannot be had.
        error = common.NotAvailableError if count < 2 else ValueError
        raise error(
            "latent_usage: expected at least 2 images and 2 samples, got "
            f"{count} and {num_samples}."
        )
    _support.check_number("threshold", threshold)

    # Of a mixture's marginals all components at all draws, of a flow its hidden units.
    width = max(
        parts.width_of_density(vae.prior, vae.encoder), parts.width_of_posterior(vae.encoder)
    )
    at_once = chunks.at_once(vae, x, num_samples * width)

    @tf.function(autograph=False, input_signature=[common.image_spec(x), common.SEED])
    def moments(x: Any, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """``E_q[z]``, the variance of its estimate, the KLs, shapes (B, d), and their method."""
        posterior, prior = vae.encode(x), vae.prior()
        method = _kl_method(posterior, prior)
        mean, variance, exact = marginals.moments(posterior, num_samples, seed)
        noise = tf.zeros_like(mean) if exact else variance / num_samples
        q, p = marginals.marginals(posterior), marginals.marginals(prior)
        if method == "unavailable":
            kl = tf.zeros_like(mean)
        elif method == "closed form":
            kl = tfd.kl_divergence(q, p)
        else:
            z = posterior.sample(num_samples, seed=seed)
            kl = tf.reduce_mean(q.log_prob(z) - p.log_prob(z), 0)
        return mean, noise, kl, tf.constant(method)

    def measure(seed: Any, verbose: Any) -> LatentUsage:
        seed = _support.stateless_seed(seed, vae.seed_generator)
        found = []
        for start, piece in chunks.pieces(x, at_once, verbose):
            *rows, method = map(np.asarray, moments(piece, tf.random.fold_in(seed, start)))
            terms = {"E_q[z]": np.isfinite(rows[0]).all(1), "KL": np.isfinite(rows[2]).all(1)}
            common.check_finite(start, **terms)
            found.append(rows)
        mean, noise, kl = (
            np.concatenate(rows).astype(np.float64) for rows in zip(*found, strict=True)
        )
        kl_method = method.item().decode()
        variance = mean.var(0, ddof=1) - noise.mean(0)
        if kl_method == "unavailable":
            kl[:] = np.nan
        return LatentUsage(
            variance_of_means=variance,
            threshold=float(threshold),
            active=variance > threshold,
            num_active=int(np.sum(variance > threshold)),
            kl=kl.mean(0),
            kl_standard_error=kl.std(0, ddof=1) / math.sqrt(len(kl)),
            kl_method=kl_method,
        )

    return measure


def _kl_method(posterior: tfd.Distribution, prior: tfd.Distribution) -> str:
    q, p = marginals.marginals(posterior), marginals.marginals(prior)
    if q is None or p is None:
        return "unavailable"
    try:
        tfd.kl_divergence(q, p)
    except NotImplementedError:
        return "monte carlo"
    return "closed form"
