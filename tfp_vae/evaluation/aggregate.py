"""Compares the posteriors of all images together with the prior."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.evaluation import common
from tfp_vae.objectives import marginals
from tfp_vae.priors import quantiles
from tfp_vae.vae import VAE, chunks, parts

_ROWS_AT_ONCE = 1000
_MOMENT_SAMPLES = 100


@dataclasses.dataclass(frozen=True)
class AggregatePosterior(common.Result):
    """How ``q(z)`` of `aggregate_posterior` differs from the prior; ``d`` latent dimensions.

    Attributes:
        mean: of each dimension under ``q(z)``, shape (d,).
        stddev: likewise.
        prior_mean: of each dimension under ``p(z)``, shape (d,).
        prior_stddev: likewise.
        num_draws: from each of ``q(z)`` and ``p(z)`` for the distance between them.
        energy_distance: between these draws, in latent units.
        null_band: the 5% and 95% quantiles of the distance between two sets of as many draws of
            the prior: the range to expect if there is no difference.
        p_value: how often such a distance is at least as large as `energy_distance`,
            ``(1 + count) / (1 + num_repeats)``.
    """

    mean: np.ndarray
    stddev: np.ndarray
    prior_mean: np.ndarray
    prior_stddev: np.ndarray
    num_draws: int
    energy_distance: float
    null_band: tuple[float, float]
    p_value: float


def aggregate_posterior(
    vae: VAE,
    x: Any,
    num_draws: int = 1000,
    num_repeats: int = 100,
    seed: Any = None,
    *,
    verbose: Any = "auto",
) -> AggregatePosterior:
    """How the aggregate posterior ``q(z) = 1/N sum_n q(z|x_n)`` differs from the prior.

    Where the two differ, draws from the prior land where the decoder was never trained.

    - Moments: ``E[z] = mean_n mu_n``, ``Var[z] = mean_n sigma_n^2 + var_n mu_n`` of each dimension,
      and the prior's.
    - The energy distance ``2 E|a - b| - E|a - a'| - E|b - b'|`` (Székely & Rizzo 2013, Journal of
      Statistical Planning and Inference 143:1249), ``a, a' ~ q(z)``, ``b, b' ~ p(z)``, Euclidean
      norm. It is 0 if the two are the same and positive otherwise, and needs no choice of a
      kernel. The estimate is unbiased, so it may be negative.

    ``KL(q(z) || p(z))`` in nats is the `marginal_kl` of `kl_decomposition`.

    Args:
        vae: the model.
        x: images, shape (N, height, width, channels).
        num_draws: for the energy distance, at least 2. Time grows with its square, memory in
            proportion to it.
        num_repeats: how often the distance between prior and prior is computed.
        seed: integer or stateless seed; by default the model's own stream.
        verbose: 0 for silence, 1 for a progress bar of the moments, "auto" for one when it takes
            several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, `num_draws` below 2, `num_repeats` below 1, or values that are not
            finite.

    Source: the mismatch of aggregate posterior and prior: Makhzani et al. 2016, arXiv:1511.05644;
    Hoffman & Johnson 2016.
    """
    x, seed = common.arguments(vae, x, seed, num_draws=num_draws, num_repeats=num_repeats)
    if num_draws < 2:
        raise ValueError(f"num_draws: expected an integer of at least 2, got {num_draws}.")
    choice, moments_seed, draws_seed, null_seed = tf.unstack(tf.random.split(seed, 4))

    @tf.function(autograph=False, input_signature=[common.image_spec(x), common.SEED])
    def of_piece(x: Any, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        posterior = vae.encode(x)
        mean, variance, _ = marginals.moments(posterior, _MOMENT_SAMPLES, seed)
        return mean, variance, posterior.sample(seed=seed)

    at_once = chunks.at_once(vae, x, _MOMENT_SAMPLES * parts.width_of_posterior(vae.encoder))

    def of_images(x: Any, seed: tf.Tensor, verbose: Any) -> list[np.ndarray]:
        found = []
        for start, piece in chunks.pieces(x, at_once, verbose):
            values = of_piece(piece, tf.random.fold_in(seed, start))
            found.append([np.asarray(value, np.float64) for value in values])
            common.check_finite(start, **{"q(z|x)": np.isfinite(found[-1]).all((0, 2))})
        return [np.concatenate(values) for values in zip(*found, strict=True)]

    prior = vae.prior()
    means, variances, _ = of_images(x, moments_seed, verbose)
    prior_mean, prior_variance = _prior_moments(prior, moments_seed)
    chosen = tf.random.stateless_uniform(
        [num_draws], choice, maxval=_support.count(x), dtype=tf.int32
    )
    draws = of_images(_support.take(x, chosen), draws_seed, 0)[2]
    return AggregatePosterior(
        mean=means.mean(0),
        stddev=np.sqrt(variances.mean(0) + means.var(0)),
        prior_mean=np.asarray(prior_mean),
        prior_stddev=np.sqrt(prior_variance),
        num_draws=int(num_draws),
        **_against_the_prior(draws, prior, num_repeats, null_seed),
    )


def _prior_moments(prior: tfd.Distribution, seed: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each dimension, shapes (d,)."""
    exact = marginals.exact_moments(prior)
    if exact is not None:
        return np.asarray(exact[0]), np.asarray(exact[1])
    draws = quantiles.many_draws(prior, seed)
    return draws.mean(0, dtype=np.float64), draws.var(0, ddof=1, dtype=np.float64)


def _against_the_prior(
    draws: np.ndarray, prior: tfd.Distribution, num_repeats: int, seed: tf.Tensor
) -> dict[str, Any]:
    """The distance of `draws` from the prior, and those of the prior from itself."""
    fresh = tf.function(lambda seed: prior.sample(len(draws), seed=seed), autograph=False)

    def of_prior(i: int) -> np.ndarray:
        return np.asarray(fresh(tf.random.fold_in(seed, i)), np.float64)

    distance = _energy_distance(draws, of_prior(0))
    null = [_energy_distance(of_prior(2 * i + 1), of_prior(2 * i + 2)) for i in range(num_repeats)]
    low, high = np.quantile(null, [0.05, 0.95])
    return {
        "energy_distance": distance,
        "null_band": (float(low), float(high)),
        "p_value": float((1 + np.sum(np.array(null) >= distance)) / (1 + num_repeats)),
    }


def _energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """``2 E|a - b| - E|a - a'| - E|b - b'|`` over pairs of different draws, shapes (n, d)."""
    n = len(a)
    between, within_a, within_b = (_distances(*pair) for pair in ((a, b), (a, a), (b, b)))
    return float(2 * between / n**2 - (within_a + within_b) / (n * (n - 1)))


def _distances(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of the Euclidean distances of all pairs."""
    total, squares = 0.0, np.sum(b**2, 1)
    for i in range(0, len(a), _ROWS_AT_ONCE):
        rows = a[i : i + _ROWS_AT_ONCE]
        squared = np.sum(rows**2, 1)[:, None] + squares - 2 * rows @ b.T
        total += np.sqrt(np.maximum(squared, 0)).sum()  # rounding may put it below 0
    return float(total)
