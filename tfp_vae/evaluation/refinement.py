"""The best diagonal normal posterior of each image for a fixed decoder: what the encoder misses."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support, objectives
from tfp_vae.evaluation import common
from tfp_vae.objectives import marginals
from tfp_vae.vae import VAE, chunks, folds

# Each step draws pairs of opposite noise, in which whatever is linear in the noise cancels.
_PAIRS = 4
_MOMENT_SAMPLES = 100


@dataclasses.dataclass(frozen=True)
class AmortizationGap(common.Result):
    """Results of `amortization_gap`; ``B`` images, nats.

    Attributes:
        num_steps: steps of Adam.
        num_samples: new draws for each ELBO.
        elbo: of the encoder's posterior, shape (B,).
        refined_elbo: of the refined posterior, shape (B,).
        gap: ``refined_elbo - elbo``, shape (B,).
        mean_elbo: over the images.
        mean_refined_elbo: over the images.
        mean_gap: over the images; its error is that of the differences.
    """

    num_steps: int
    num_samples: int
    elbo: np.ndarray
    refined_elbo: np.ndarray
    gap: np.ndarray
    mean_elbo: common.Estimate
    mean_refined_elbo: common.Estimate
    mean_gap: common.Estimate


@dataclasses.dataclass(frozen=True)
class RateDistortion(common.Result):
    """The curve of `rate_distortion`: means over the images in nats, shape (len(betas),) each.

    Attributes:
        betas: as given.
        rate: ``KL(q(z|x) || p(z))``.
        rate_standard_error: over the images.
        distortion: ``-E_q[log p(x|z)]``.
        distortion_standard_error: over the images.
    """

    betas: np.ndarray
    rate: np.ndarray
    rate_standard_error: np.ndarray
    distortion: np.ndarray
    distortion_standard_error: np.ndarray


def amortization_gap(
    vae: VAE,
    x: Any,
    num_steps: int = 500,
    num_samples: int = 100,
    seed: Any = None,
    *,
    learning_rate: float = 0.1,
    verbose: Any = "auto",
) -> AmortizationGap:
    """How many nats each image loses because the encoder answers in one pass.

    ``gap = max_q* ELBO(x; q*) - ELBO(x; q(z|x))``

    where ``q*`` is a diagonal normal for each image, found by Adam on that image's ELBO, starting
    from the encoder's mean and standard deviation (Cremer et al. 2018, arXiv:1801.03558). Both
    ELBOs are then estimated with new draws, made from the same noise if both posteriors are
    diagonal normals. The remaining difference to ``log p(x)`` of `importance_sampling` is the
    approximation gap. For a posterior of another family the gap may be negative, since it can beat
    every diagonal normal.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels).
        num_steps: steps of Adam, each on 8 draws; the learning rate falls linearly to 0.
        num_samples: new draws for each ELBO.
        seed: integer or stateless seed; by default the model's own stream.
        learning_rate: the initial one, in units of the encoder's standard deviation for the mean,
            and of the logarithm for the scale.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, a count below 1, a `learning_rate` not above 0, or an ELBO that
            is not finite.
    """
    counts = {"num_steps": num_steps, "num_samples": num_samples}
    x, seed = common.arguments(vae, x, seed, **counts)
    _support.check_number("learning_rate", learning_rate, positive=True)

    @tf.function(autograph=False, input_signature=[common.image_spec(x), common.SEED])
    def both(x: Any, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps, report = tf.unstack(tf.random.split(seed))
        refined = _refined(vae, x, tf.ones([], vae.variable_dtype), num_steps, learning_rate, steps)
        elbos = []
        for posterior in (vae.encode(x), refined):
            distortion, rate = _measured(vae, posterior, x, num_samples, report)
            elbos.append(objectives.elbo(-distortion, rate))
        return elbos[0], elbos[1]

    found = []
    for start, piece in chunks.pieces(x, _images_at_once(vae, x), verbose):
        rows = [
            np.asarray(part, np.float64) for part in both(piece, tf.random.fold_in(seed, start))
        ]
        common.check_finite(start, **{"ELBO": rows[0], "refined ELBO": rows[1]})
        found.append(rows)
    elbo, refined = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return AmortizationGap(
        **counts,
        elbo=elbo,
        refined_elbo=refined,
        gap=refined - elbo,
        mean_elbo=common.Estimate.of(elbo),
        mean_refined_elbo=common.Estimate.of(refined),
        mean_gap=common.Estimate.of(refined - elbo),
    )


def rate_distortion(
    vae: VAE,
    x: Any,
    betas: Sequence[float],
    num_steps: int = 500,
    num_samples: int = 100,
    seed: Any = None,
    *,
    learning_rate: float = 0.1,
    verbose: Any = "auto",
) -> RateDistortion:
    """What the decoder can reach at other rates: the curve of rate against distortion.

    For each `beta` a diagonal normal posterior of each image is refined, as in
    `amortization_gap`, to minimize

    ``-E_q[log p(x|z)] + beta KL(q(z|x) || p(z))``,  distortion + beta rate,

    with decoder and prior fixed. At ``beta = 1`` this is the negative refined ELBO. The points lie
    above the model's best curve by what a diagonal normal cannot fit. As beta rises, the rate falls
    and the distortion rises; at ``beta = 0`` the rate is unbounded and grows with `num_steps`.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels).
        betas: numbers of at least 0.
        num_steps: as in `amortization_gap`, and so are the other arguments and errors.
        num_samples: new draws for each point.
        seed: integer or stateless seed; every beta uses the same draws.
        learning_rate: the initial one of Adam.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        ValueError: also for no betas, or one that is negative or not finite.

    Source: Alemi et al. 2018, arXiv:1711.00464, for the plane; Huang et al. 2020,
    arXiv:2008.06653, for curves of one trained model.
    """
    x, seed = common.arguments(vae, x, seed, num_steps=num_steps, num_samples=num_samples)
    _support.check_number("learning_rate", learning_rate, positive=True)
    values = check_betas(betas)

    @tf.function(
        autograph=False,
        input_signature=[common.image_spec(x), tf.TensorSpec([], vae.variable_dtype), common.SEED],
    )
    def point(x: Any, beta: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps, report = tf.unstack(tf.random.split(seed))
        posterior = _refined(vae, x, beta, num_steps, learning_rate, steps)
        return _measured(vae, posterior, x, num_samples, report)

    found = []
    for start, piece in chunks.pieces(x, _images_at_once(vae, x), verbose):
        piece_seed = tf.random.fold_in(seed, start)
        points = [point(piece, tf.constant(b, vae.variable_dtype), piece_seed) for b in values]
        rows = np.asarray(points, np.float64)  # (betas, 2, images)
        common.check_finite(
            start, distortion=np.isfinite(rows[:, 0]).all(0), rate=np.isfinite(rows[:, 1]).all(0)
        )
        found.append(rows)
    every = [[common.Estimate.of(of) for of in row] for row in np.concatenate(found, -1)]
    return RateDistortion(
        betas=values,
        rate=np.array([rate.mean for _, rate in every]),
        rate_standard_error=np.array([rate.standard_error for _, rate in every]),
        distortion=np.array([distortion.mean for distortion, _ in every]),
        distortion_standard_error=np.array([d.standard_error for d, _ in every]),
    )


def check_betas(betas: Any) -> np.ndarray:
    """`betas` as an array, or a `ValueError`."""
    values = np.asarray(betas, np.float64)
    if values.ndim != 1 or not values.size or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(f"betas: expected finite numbers of at least 0, got {betas!r}.")
    return values


def _images_at_once(vae: VAE, x: Any) -> int:
    return max(1, chunks.at_once(vae, x) // (2 * _PAIRS))


def _rate(posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
    """The KL, shape (B,): the closed form where there is one, else the mean over the draws `z`."""
    try:
        return _support.closed_form_kl(posterior, prior)
    except NotImplementedError:
        return tf.reduce_mean(_support.monte_carlo_kl(posterior, prior, z), 0)


def _refined(
    vae: VAE,
    x: Any,
    beta: tf.Tensor,
    num_steps: int,
    learning_rate: float,
    seed: tf.Tensor,
) -> tfd.MultivariateNormalDiag:
    """The diagonal normal of least distortion + `beta` rate, by Adam, batch shape (B,)."""
    first, noise = tf.unstack(tf.random.split(seed))
    loc, variance, _ = marginals.moments(vae.encode(x), _MOMENT_SAMPLES, first)
    stddev, prior = tf.sqrt(variance), vae.prior()
    x, decode = vae.given(x)

    def posterior(theta: tf.Tensor) -> tfd.MultivariateNormalDiag:
        shift, log_factor = tf.split(theta, 2, -1)
        return tfd.MultivariateNormalDiag(loc + stddev * shift, stddev * tf.exp(log_factor))

    def slope(theta: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[_PAIRS], tf.shape(loc)], 0)
        half = tf.random.stateless_normal(shape, tf.random.fold_in(noise, step), dtype=loc.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            q = posterior(theta)
            z = q.mean() + q.stddev() * tf.concat([half, -half], 0)
            distortion = -tf.reduce_mean(decode(z).log_prob(x), 0)
            loss = tf.reduce_sum(distortion + beta * _rate(q, prior, z))
        return tape.gradient(loss, theta)

    def adam(
        step: tf.Tensor, theta: tf.Tensor, mean: tf.Tensor, square: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Kingma & Ba 2015, algorithm 1, with its default constants."""
        gradient = slope(theta, step)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * tf.square(gradient)
        done = tf.cast(step, theta.dtype)
        rate = learning_rate * (1 - done / num_steps)
        corrected = mean / (1 - 0.9 ** (done + 1))
        scale = tf.sqrt(square / (1 - 0.999 ** (done + 1)))
        return step + 1, theta - rate * corrected / (scale + 1e-8), mean, square

    zeros = tf.zeros_like(tf.concat([loc, loc], -1))
    state = tf.while_loop(
        lambda step, *_: step < num_steps,
        adam,
        (tf.constant(0), zeros, zeros, zeros),
        parallel_iterations=1,
    )
    return posterior(state[1])


def _measured(
    vae: VAE, posterior: tfd.Distribution, x: Any, num_samples: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Distortion and rate of `posterior`, shapes (B,), at `num_samples` draws."""
    prior = vae.prior()

    def add(state: tuple[tf.Tensor, tf.Tensor], z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.cast(tf.shape(z)[0], z.dtype)
        log_p = tf.reduce_sum(tf.cast(decode(z).log_prob(x), folds.WIDE), 0)
        rate = count * _rate(posterior, prior, z)
        return state[0] - log_p, state[1] + tf.cast(rate, folds.WIDE)

    x, decode = vae.given(x)
    zeros = tf.zeros(tf.shape(x)[:1], folds.WIDE)
    chunk = tf.maximum(1, chunks.decoded_in_a_step(vae, x) // tf.shape(x)[0])
    count = tf.constant(int(num_samples))
    totals = chunks.over_samples(posterior, count, chunk, seed, (zeros, zeros), add)
    distortion, rate = (tf.cast(total / num_samples, x.dtype) for total in totals)
    return distortion, rate
