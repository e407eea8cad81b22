"""Hidden pixels given ``z`` and the seen ones: where pixels are independent, and where not."""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.layers import AutoregressivePixels


def check(likelihood: tfd.Distribution, x: tf.Tensor) -> None:
    """Refuse a likelihood of which neither class here can draw the hidden pixels.

    Raises:
        TypeError: its pixels are neither independent given ``z`` nor autoregressive.
    """
    if not isinstance(likelihood, AutoregressivePixels):
        _support.pixel_log_prob(likelihood, x)


def of(likelihood: tfd.Distribution, x: tf.Tensor, observed: tf.Tensor) -> "HiddenPixels":
    """The class for pixels of this kind."""
    ordered = isinstance(likelihood, AutoregressivePixels)
    return (HiddenOrderedPixels if ordered else HiddenPixels)(x, observed)


def taken(gain: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Whether each Metropolis step is, with probability ``min(1, exp(gain))``."""
    u = tf.random.stateless_uniform(tf.shape(gain), seed, dtype=gain.dtype)
    return tf.math.log(u) < gain  # never where it is NaN


class HiddenPixels:
    """Pixels that are independent given ``z``: the hidden ones are drawn of ``p(x|z)`` itself.

    Args:
        x: images, shape (N, *image).
        observed: booleans of that shape.
    """

    def __init__(self, x: tf.Tensor, observed: tf.Tensor) -> None:
        self.x, self.observed = x, observed

    def begin(self, likelihood: tfd.Distribution, seed: tf.Tensor) -> tf.Tensor:
        """Images to start a chain from; a draw of the model where nothing is seen."""
        # In the shape of `x`, which a likelihood traced with unknown sizes does not know.
        draw = tf.ensure_shape(tf.cast(likelihood.sample(seed=seed), self.x.dtype), self.x.shape)
        return tf.where(self.observed, self.x, draw)

    def step(self, likelihood: tfd.Distribution, now: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images after a step whose stationary law is ``p(x_hidden | z, x_observed)``."""
        return self.begin(likelihood, seed)

    def log_prob(self, likelihood: tfd.Distribution, now: tf.Tensor) -> tf.Tensor:
        """Of what a step on ``z`` alone must heed: the seen pixels, the others summed out."""
        log_prob = _support.pixel_log_prob(likelihood, self.x)
        axes = list(range(1, self.x.shape.rank))
        return tf.reduce_sum(tf.where(self.observed, log_prob, 0), axes)

    def mean(self, likelihood: tfd.Distribution, now: tf.Tensor) -> tf.Tensor:
        """Images whose mean over a chain is that of the hidden pixels."""
        return tf.ensure_shape(likelihood.mean(), self.x.shape)


class HiddenOrderedPixels(HiddenPixels):
    """Pixels that see the ones before them: some rows at a time, by a Metropolis step."""

    def begin(self, likelihood: AutoregressivePixels, seed: tf.Tensor) -> tf.Tensor:
        return likelihood.complete(self.x, self.observed, seed)

    def step(self, likelihood: AutoregressivePixels, now: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The hidden pixels of some rows, of each chain its own, drawn given those before them.

        What stays comes out more or less likely after them, and that ratio is the chance to take
        them: all other factors of ``p(x|z)`` cancel against those of the proposal. Few rows are
        taken often, many go far: their number is any power of 2.
        """
        height, count = now.shape[1], tf.shape(now)[0]
        rows_seed, first_seed, draw_seed, taken_seed = tf.unstack(tf.random.split(seed, 4))
        powers = math.ceil(math.log2(height)) + 1
        rows = 2 ** tf.random.stateless_uniform([count], rows_seed, 0, powers, tf.int32)
        # From where some of the rows may lie above the image, so that each has the same chance.
        u = tf.random.stateless_uniform([count], first_seed, dtype=now.dtype)
        first = tf.cast(u * tf.cast(height + rows - 1, now.dtype), tf.int32) - rows + 1
        row = tf.range(height)
        chosen = (row >= first[:, tf.newaxis]) & (row < (first + rows)[:, tf.newaxis])
        kept = self.observed | ~chosen[:, :, tf.newaxis, tf.newaxis]
        drawn = tf.ensure_shape(likelihood.complete(now, kept, draw_seed), now.shape)
        gain = likelihood.pixel_log_prob(drawn) - likelihood.pixel_log_prob(now)
        accepted = taken(tf.reduce_sum(tf.where(kept, gain, 0), [1, 2, 3]), taken_seed)
        return tf.where(accepted[:, tf.newaxis, tf.newaxis, tf.newaxis], drawn, now)

    def log_prob(self, likelihood: AutoregressivePixels, now: tf.Tensor) -> tf.Tensor:
        return likelihood.log_prob(now)  # the hidden ones cannot be summed out: they stay

    def mean(self, likelihood: AutoregressivePixels, now: tf.Tensor) -> tf.Tensor:
        return now  # the mean of p(x|z) would not be the one given the seen pixels
