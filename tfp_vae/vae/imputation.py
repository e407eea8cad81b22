"""Draws of hidden pixels given the seen ones, by Markov chains on ``(z, hidden pixels)``."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support, objectives
from tfp_vae.vae import chunks, hidden, images
from tfp_vae.vae.parts import Shape

METHODS = ("metropolis", "metropolis-within-gibbs", "pseudo-gibbs")

# Widths of a local move, of which each chain draws one at each step, in standard deviations of the
# prior: posteriors of images are narrower than the prior by a factor that differs by dimension.
_NARROWEST, _WIDEST = 0.02, 1.0

#: (images, observed, number of steps, burn-in, seed) -> what `chain` returns
Piece = Callable[..., tuple[tf.Tensor, ...]]


class Imputation(NamedTuple):
    """What `VAE.impute` returns: ``S`` draws for each of ``B`` images, ``d`` latent dimensions.

    Attributes:
        samples: the images with their hidden pixels drawn, shape (S, B, height, width, channels);
            observed pixels are the given ones, bit for bit.
        mean: the images with their hidden pixels at the mean of ``p(x|z)`` over all steps after
            the burn-in and all chains, shape (B, height, width, channels): less noisy than the
            mean of the draws, and the same in expectation.
        z: the latent vectors that the draws were decoded from, shape (S, B, d).
        acceptance_rate: of the encoder's proposals after the burn-in, shape (B,); 1 for
            "pseudo-gibbs".
    """

    samples: tf.Tensor
    mean: tf.Tensor
    z: tf.Tensor
    acceptance_rate: tf.Tensor


def check_steps(num_steps: Any, burn_in: Any) -> tuple[int, int]:
    """Both as integers; half of the steps are the burn-in where it is `None`.

    Raises:
        ValueError: ``num_steps < 1``, or not ``0 <= burn_in < num_steps``.
    """
    num_steps = _support.check_positive_int("num_steps", num_steps)
    if burn_in is None:
        return num_steps, num_steps // 2
    whole = isinstance(burn_in, (int, np.integer)) and not isinstance(burn_in, bool)
    if not whole or not 0 <= burn_in < num_steps:
        raise ValueError(
            f"burn_in: expected an integer from 0 to num_steps - 1 = {num_steps - 1}, got "
            f"{burn_in!r}."
        )
    return num_steps, int(burn_in)


def check_observed(x: Any, mask: Any, image_shape: Shape | None) -> tuple[np.ndarray, np.ndarray]:
    """Images with zeros where nothing is seen, and the mask in their shape, `True` where it is.

    Args:
        x: images, shape (B, *image).
        mask: of the shape of `x`, of one image, or (height, width).
        image_shape: of one image; `None` where it is not known.

    Raises:
        TypeError: a masked array, whose own mask means the opposite.
        ValueError: another shape or type of either, or observed pixels that are not finite.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            "x: expected a plain array, got a numpy.ma.MaskedArray, whose mask is True where a "
            "value is missing. Give x.filled(0) and mask=~numpy.ma.getmaskarray(x)."
        )
    x = np.asarray(x)
    images.check_batch(x, image_shape)
    mask = _support.check_mask(mask, x.shape)
    filled = np.where(mask, x, np.zeros([], x.dtype))
    if not np.isfinite(filled).all():
        raise ValueError(
            "x: expected finite pixels where mask is True, which means observed, got NaN or "
            "infinity there. Of a mask that is True where pixels are missing, give ~mask."
        )
    return filled, mask


def over_chains(
    piece: Piece,
    at_once: int,
    x: tf.Tensor,
    mask: np.ndarray,
    num_samples: int,
    num_steps: int,
    burn_in: int,
    seed: tf.Tensor,
    verbose: Any,
) -> Imputation:
    """`num_samples` chains for each image, so many at a time that memory stays bounded.

    Args:
        piece: runs the chains of a few images.
        at_once: how many.
        x: images, shape (B, *image).
        mask: `True` where a pixel is observed, shape (B, *image).
        num_samples: chains for each image.
        num_steps: of each chain.
        burn_in: how many of them the mean and the rate leave out.
        seed: stateless seed, shape (2,).
        verbose: 0, 1 or "auto", which shows a progress bar for more than one piece.
    """
    of_image = np.repeat(np.arange(len(x)), num_samples)
    steps = tf.constant(num_steps), tf.constant(burn_in)
    results = []
    for start, chosen in chunks.pieces(of_image, at_once, verbose):
        here = tf.gather(x, chosen), tf.constant(mask[chosen])
        results.append(piece(*here, *steps, tf.random.fold_in(seed, start)))
    samples, mean, z, rate = (
        tf.reshape(tf.concat(parts, 0), [len(x), num_samples, *parts[0].shape[1:]])
        for parts in zip(*results, strict=True)
    )
    # Last of all: the mean of many equal numbers need not be that number.
    mean = tf.where(mask, x, tf.reduce_mean(mean, 1))
    return Imputation(_samples_first(samples), mean, _samples_first(z), tf.reduce_mean(rate, 1))


def _samples_first(tensor: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])


def chain(
    encode: Callable[[tf.Tensor], tfd.Distribution],
    decode: Callable[[tf.Tensor], tfd.Distribution],
    prior: tfd.Distribution,
    spread: tf.Tensor | None,
    x: tf.Tensor,
    observed: tf.Tensor,
    num_steps: tf.Tensor,
    burn_in: tf.Tensor,
    seed: tf.Tensor,
    method: str,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """One Markov chain for each of ``N`` images.

    Args:
        encode: from images to ``q(z|x)``.
        decode: from latent vectors to ``p(x|z)``.
        prior: ``p(z)``.
        spread: its standard deviation, shape (d,), about, which "metropolis" alone asks for.
        x: shape (N, *image), finite in all pixels.
        observed: boolean, shape (N, *image).
        num_steps: scalar.
        burn_in: scalar, steps that count neither for the mean nor for the rate.
        seed: stateless seed, shape (2,).
        method: one of `METHODS`.

    Returns:
        The last images (N, *image), the mean of ``p(x|z)`` over the steps (N, *image), the last
        latent vectors (N, d), and the rate of acceptance (N,).
    """

    def nearby(z: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        width_seed, z_seed = tf.unstack(tf.random.split(seed))
        log_width = tf.random.stateless_uniform(
            [tf.shape(z)[0], 1], width_seed, math.log(_NARROWEST), math.log(_WIDEST), z.dtype
        )
        noise = tf.random.stateless_normal(tf.shape(z), z_seed, dtype=z.dtype)
        return z + tf.exp(log_width) * spread * noise

    def step(
        t: tf.Tensor, z: tf.Tensor, fit: tf.Tensor, now: tf.Tensor, mean: tf.Tensor, rate: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        seeds = tf.unstack(tf.random.split(tf.random.fold_in(seed, t), 5))
        posterior, counts = encode(now), t >= burn_in
        proposal = tf.ensure_shape(posterior.sample(seed=seeds[0]), z.shape)
        likelihood, accepted = decode(proposal), tf.ones_like(rate, tf.bool)
        if method != "pseudo-gibbs":
            gain = likelihood.log_prob(now) - fit
            gain += objectives.kl_divergence(posterior, prior, z)
            gain -= objectives.kl_divergence(posterior, prior, proposal)
            accepted = hidden.taken(gain, seeds[1]) | ((t < burn_in // 2) & anything_seen)
            proposal = tf.where(accepted[:, tf.newaxis], proposal, z)
            likelihood = decode(proposal)
        if method == "metropolis":
            # On z alone, the hidden pixels summed out where they can be: they are drawn anew
            # afterwards.
            near = nearby(proposal, seeds[2])
            gain = pixels.log_prob(decode(near), now) - pixels.log_prob(likelihood, now)
            gain += prior.log_prob(near) - prior.log_prob(proposal)
            proposal = tf.where(hidden.taken(gain, seeds[3])[:, tf.newaxis], near, proposal)
            likelihood = decode(proposal)
        now = pixels.step(likelihood, now, seeds[4])
        mean += tf.cond(counts, lambda: pixels.mean(likelihood, now), lambda: tf.zeros_like(mean))
        rate += tf.cast(accepted & counts, rate.dtype)
        return t + 1, proposal, likelihood.log_prob(now), now, mean, rate

    # An image of which nothing is seen starts in its stationary law, the model's own, which steps
    # that refuse nothing would leave.
    anything_seen = tf.reduce_any(observed, list(range(1, x.shape.rank)))
    z_seed, x_seed = tf.unstack(tf.random.split(tf.random.fold_in(seed, -1)))
    z = prior.sample(tf.shape(x)[0], seed=z_seed)
    likelihood = decode(z)
    pixels = hidden.of(likelihood, x, observed)
    now = pixels.begin(likelihood, x_seed)
    fit = likelihood.log_prob(now)
    _, z, _, now, mean, rate = tf.while_loop(
        lambda t, *_: t < num_steps,
        step,
        (tf.constant(0), z, fit, now, tf.zeros_like(x), tf.zeros_like(fit)),
        parallel_iterations=1,  # two iterations at a time would hold twice the memory
    )
    kept = tf.cast(num_steps - burn_in, x.dtype)
    return now, mean / kept, z, rate / kept
