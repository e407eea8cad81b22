"""Pixels one after another: a likelihood that sees the neighbours that were drawn before."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.layers.distributions import Bernoulli, _event_shape, _NamedDistribution, _reshape_event

# Images drawn for a mean, each of which adds the probabilities that its own pixels were drawn with.
_DRAWS = 16


@_support.register
class CausalNetwork(keras.layers.Layer):
    """``features (..., h, w, u), x (..., h, w, c) -> logits (..., h, w, c)`` of pixels in order.

    The logits of a pixel see its own features, which come from ``z``, and of the image only
    the pixels that are drawn before it, row by row, within `radius` rows above and `radius`
    columns to either side:

    ``a_i = features_i + sum_{j before i, near i} K_{j-i} x_j``

    ``logits_i = W_2 elu(W_1 elu(a_i) + b_1) + b_2``

    a masked convolution (PixelCNN, van den Oord et al. 2016, arXiv:1601.06759, its mask "A") under
    two layers that look at one pixel each. The channels of a pixel do not see one another.

    Args:
        channels: ``c``.
        units: ``u / c``: features and hidden units for each channel.
        radius: how far a pixel sees; 0 for not at all, pixels that are independent given ``z``.
        seed: integer seed of the initial weights.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: `channels` or `units` below 1, or `radius` below 0.
    """

    def __init__(
        self,
        channels: int,
        units: int = 32,
        radius: int = 3,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # autocast=False, here and below: a density keeps float32 under a mixed precision policy.
        super().__init__(autocast=False, **kwargs)
        self.channels = _support.check_positive_int("channels", channels)
        self.units = _support.check_positive_int("units", units)
        self.radius = _support.check_int("radius", radius, 0)
        self.seed = seed
        hidden, breadth = self.units * self.channels, 2 * self.radius + 1
        self._mask = np.ones([self.radius + 1, breadth, 1, 1], "float32")
        self._mask[-1, self.radius :] = 0  # the pixel itself, and what comes after it in its row
        seeds = keras.random.SeedGenerator(seed)

        def weight(name: str, shape: Sequence[int], initializer: Any) -> Any:
            return self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False)

        glorot = functools.partial(keras.initializers.GlorotUniform, seeds)
        self._neighbours = weight("neighbours", (*self._mask.shape[:2], channels, hidden), glorot())
        self._hidden_kernel = weight("hidden_kernel", (hidden, hidden), glorot())
        self._hidden_bias = weight("hidden_bias", (hidden,), "zeros")
        self._last_kernel = weight("last_kernel", (hidden, channels), glorot())
        self._last_bias = weight("last_bias", (channels,), "zeros")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def call(self, features: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Logits of all pixels at once, given an image; leading dimensions broadcast."""
        return self._pixelwise(features + self._seen(x))

    def draw(
        self,
        features: tf.Tensor,
        noise: tf.Tensor,
        given: tf.Tensor | None = None,
        observed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Images drawn pixel by pixel, and the probabilities that each pixel was drawn with.

        Args:
            features: shape (B, h, w, u).
            noise: uniform in [0, 1), shape (n, B, h, w, c): a pixel is 1 where it is below the
                probability. Of shape (n, 1, h, w, c) it is the same for all B.
            given: images whose pixels stay as they are where `observed`, shape (B, h, w, c); those
                after them see them.
            observed: booleans, shape (B, h, w, c).

        Returns:
            Two tensors of shape (n, B, h, w, c).
        """
        return self._drawn(features, noise, given, observed)

    @functools.cached_property
    def _drawn(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        # Compiled: eagerly each of thousands of small operations would go through Python.
        return tf.function(self._draw, reduce_retracing=True, autograph=False)

    def _kernel(self) -> tf.Tensor:
        kernel = tf.convert_to_tensor(self._neighbours)
        return kernel * tf.cast(self._mask, kernel.dtype)

    def _seen(self, x: tf.Tensor) -> tf.Tensor:
        """``sum_j K_{j-i} x_j``, shape (..., h, w, u)."""
        r, lead = self.radius, tf.shape(x)[:-3]
        flat = tf.reshape(x, [-1, *x.shape[-3:]])
        padded = tf.pad(flat, [[0, 0], [r, 0], [r, r], [0, 0]])
        found = tf.nn.conv2d(padded, self._kernel(), 1, "VALID")
        shaped = tf.reshape(found, tf.concat([lead, found.shape[1:]], 0))
        return tf.ensure_shape(shaped, [*x.shape[:-3], *found.shape[1:]])

    def _pixelwise(self, values: tf.Tensor) -> tf.Tensor:
        for kernel, bias in (
            (self._hidden_kernel, self._hidden_bias),
            (self._last_kernel, self._last_bias),
        ):
            values = tf.tensordot(tf.nn.elu(values), tf.convert_to_tensor(kernel), 1)
            values += tf.convert_to_tensor(bias)
        return values

    def _draw(
        self,
        features: tf.Tensor,
        noise: tf.Tensor,
        given: tf.Tensor | None = None,
        observed: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        height, width, hidden = features.shape[1:]
        r, c, dtype = self.radius, self.channels, features.dtype
        num_samples, batch = tf.shape(noise)[0], tf.shape(features)[0]
        count = num_samples * batch
        kernel = self._kernel()
        # What is above is one convolution for each row, what is to the left changes from pixel to
        # pixel.
        above, left = kernel[:r], tf.reshape(kernel[r, :r], [r * c, hidden])

        def by_pixel(images: tf.Tensor) -> tf.Tensor:  # to (h, w, n B, c)
            images = tf.broadcast_to(images, [num_samples, batch, height, width, c])
            return tf.reshape(tf.transpose(images, [2, 3, 0, 1, 4]), [height, width, count, c])

        noise = by_pixel(noise)
        kept = None
        if given is not None and observed is not None:
            kept = by_pixel(given), by_pixel(observed)
        shape = [count, c]

        def row(i: tf.Tensor, rows: tf.Tensor, drawn: Any, chances: Any) -> tuple[Any, ...]:
            known = tf.tile(features[:, i], [num_samples, 1, 1])
            if r:
                known += tf.nn.conv2d(rows, above, 1, "VALID")[:, 0]

            def pixel(j: tf.Tensor, before: tf.Tensor, drawn: Any, chances: Any) -> tuple[Any, ...]:
                logits = self._pixelwise(known[:, j] + before @ left)
                chance = tf.sigmoid(logits)
                x = tf.cast(noise[i, j] < chance, dtype)
                if kept is not None:
                    x = tf.where(kept[1][i, j], kept[0][i, j], x)
                before = tf.concat([before, x], 1)[:, c:]
                return j + 1, before, drawn.write(j, x), chances.write(j, chance)

            _, _, x, chance = tf.while_loop(
                lambda j, *_: j < width,
                pixel,
                (0, tf.zeros([count, r * c], dtype), *_arrays(width, dtype, shape)),
                parallel_iterations=1,
                maximum_iterations=width,
            )
            x, chance = x.stack(), chance.stack()  # (w, n B, c)
            if r:
                last = tf.transpose(x, [1, 0, 2])[:, tf.newaxis]
                last = tf.pad(last, [[0, 0], [0, 0], [r, r], [0, 0]])
                rows = tf.concat([rows[:, 1:], last], 1)
            return i + 1, rows, drawn.write(i, x), chances.write(i, chance)

        _, _, drawn, chances = tf.while_loop(
            lambda i, *_: i < height,
            row,
            (
                0,
                tf.zeros([count, r, width + 2 * r, c], dtype),
                *_arrays(height, dtype, [width, *shape]),
            ),
            parallel_iterations=1,
            maximum_iterations=height,
        )

        def images(array: Any) -> tf.Tensor:  # from (h, w, n B, c)
            stacked = tf.transpose(array.stack(), [2, 0, 1, 3])
            return tf.reshape(stacked, [num_samples, batch, height, width, c])

        return images(drawn), images(chances)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "channels": self.channels,
            "units": self.units,
            "radius": self.radius,
            "seed": self.seed,
        }
        config.pop("autocast", None)
        return config


def _arrays(size: int, dtype: Any, shape: Sequence[Any]) -> list[tf.TensorArray]:
    static = [side if isinstance(side, int) else None for side in shape]
    return [tf.TensorArray(dtype, size, element_shape=static) for _ in range(2)]


class AutoregressivePixels(tfd.Distribution):
    """Binary images whose pixels are drawn one after another, by a `CausalNetwork`.

    There is no closed form for the moments: `mean` averages the probabilities with which the
    pixels of 16 images were drawn, with the same random numbers at each call and for each image of
    a batch. Its standard error is an eighth at most, less where neighbours tell little of a pixel.

    Args:
        features: shape ``(*batch, height, width, u)``.
        network: what turns them and an image into logits.
        validate_args: as of any `tfd.Distribution`.
        name: of the distribution.
    """

    #: The mean is of few draws: who needs a better one draws more.
    approximate_moments = True

    def __init__(
        self,
        features: tf.Tensor,
        network: CausalNetwork,
        validate_args: bool = False,
        name: str = "AutoregressivePixels",
    ) -> None:
        parameters = dict(locals())
        self._features, self._network = features, network
        super().__init__(
            dtype=features.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def conditional_probs(self, x: tf.Tensor) -> tf.Tensor:
        """``p(x_i = 1 | x_1 .. x_{i-1}, z)`` of each pixel of given images."""
        return tf.sigmoid(self._network(self._features, tf.cast(x, self.dtype)))

    def pixel_log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """``log p(x_i | x_1 .. x_{i-1}, z)``, shape ``(..., *event)``; its sum is `log_prob`."""
        x = tf.cast(x, self.dtype)
        return Bernoulli(logits=self._network(self._features, x)).log_prob(x)

    def complete(self, x: tf.Tensor, observed: tf.Tensor, seed: Any) -> tf.Tensor:
        """`x` with the pixels that are not `observed` drawn, each given those before it alone.

        Not a draw given all that is observed: of that the pixels behind would tell as well. The
        probability of what was drawn is the product of ``p(x_i | x_1 .. x_{i-1}, z)`` over those
        pixels.

        Args:
            x: shape ``(*batch, *event)``.
            observed: booleans of that shape.
            seed: as of `sample`.
        """
        noise = self._noise(1, seed)
        event = self.event_shape
        parts = (tf.reshape(part, [-1, *event]) for part in (tf.cast(x, self.dtype), observed))
        drawn, _ = self._network.draw(self._flat_features(), noise, *parts)
        return tf.reshape(drawn, tf.shape(x))

    def _batch_shape(self) -> tf.TensorShape:
        return self._features.shape[:-3]

    def _batch_shape_tensor(self, **kwargs: Any) -> tf.Tensor:
        return tf.shape(self._features)[:-3]

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([*self._features.shape[-3:-1], self._network.channels])

    def _event_shape_tensor(self, **kwargs: Any) -> tf.Tensor:
        return tf.constant(self._event_shape().as_list(), tf.int32)

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.pixel_log_prob(value), [-3, -2, -1])

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        drawn, _ = self._network.draw(self._flat_features(), self._noise(n, seed))
        shape = tf.concat([[n], self.batch_shape_tensor(), self.event_shape_tensor()], 0)
        return tf.reshape(drawn, shape)

    def _mean(self) -> tf.Tensor:
        flat, event = self._flat_features(), self.event_shape
        noise = np.random.default_rng(0).random((_DRAWS, 1, *event))
        _, chances = self._network.draw(flat, tf.constant(noise, self.dtype))
        shape = tf.concat([self.batch_shape_tensor(), self.event_shape_tensor()], 0)
        mean = tf.reshape(tf.reduce_mean(chances, 0), shape)
        return tf.ensure_shape(mean, [*self.batch_shape, *event])

    def _variance(self) -> tf.Tensor:
        mean = self._mean()
        return mean * (1 - mean)

    def _noise(self, n: Any, seed: Any) -> tf.Tensor:
        batch = tf.reduce_prod(self.batch_shape_tensor())
        shape = tf.concat([[n, batch], self.event_shape_tensor()], 0)
        seed = tfp.random.sanitize_seed(seed)
        return tf.random.stateless_uniform(shape, seed, dtype=self.dtype)

    def _flat_features(self) -> tf.Tensor:
        # What is drawn has no gradient.
        features = tf.stop_gradient(self._features)
        return tf.reshape(features, [-1, *features.shape[-3:]])


@_support.register
class AutoregressiveBernoulli(_NamedDistribution):
    """``params (..., units prod(event_shape)) -> binary pixels that see those drawn before``.

    ``log p(x|z) = sum_i log p(x_i | z, the neighbours of x_i above it and to its left)``  (nats)

    The parameters are `units` features for each number of the image, a row of pixels after the
    other; a `CausalNetwork` makes probabilities of them and of the neighbours. So the latent
    vector need not tell the stroke's every pixel, and says what neighbours cannot (the variational
    lossy autoencoder, Chen et al. 2017, arXiv:1611.02731). The density takes one pass, a draw
    ``height * width`` short steps, in order.

    The pixels are not independent given ``z``, and `mean` is of few draws; see
    `AutoregressivePixels`. As of `IndependentBernoulli`, it is a probability of *binary* pixels
    only.

    Args:
        event_shape: shape of one image, (height, width, channels).
        convert_to_tensor_fn: see `DistributionLambda`; "sample" or "mean", or a function.
        units: features of each number in the image, and hidden units of the network.
        radius: how many rows above, and columns to either side, a pixel sees.
        validate_args: let TFP check the parameters at run time.
        **kwargs: of `DistributionLambda`. Its `seed` is also that of the initial weights.

    Raises:
        ValueError: an `event_shape` that is no image's, a size below 1, a radius below 0, a
            `convert_to_tensor_fn` that there is none of, or an input without
            ``units * prod(event_shape)`` parameters.

    Example:
        >>> import tensorflow as tf
        >>> from tfp_vae import layers
        >>> layer = layers.AutoregressiveBernoulli((6, 6, 1), units=8)
        >>> p = layer(tf.zeros([5, 8 * 6 * 6]))
        >>> p.event_shape, p.log_prob(p.sample(3, seed=0)).shape
        (TensorShape([6, 6, 1]), TensorShape([3, 5]))
    """

    unit_interval = True
    parameters_by_pixel = True

    def __init__(
        self,
        event_shape: Sequence[int],
        convert_to_tensor_fn: str | Callable[[tfd.Distribution], tf.Tensor] = "sample",
        units: int = 32,
        radius: int = 3,
        validate_args: bool = False,
        **kwargs: Any,
    ) -> None:
        event_shape = _event_shape(event_shape)
        if len(event_shape) != 3:
            raise ValueError(f"event_shape: expected (height, width, channels), got {event_shape}.")
        self.units = _support.check_positive_int("units", units)
        super().__init__(event_shape, convert_to_tensor_fn, validate_args, kwargs)
        if self.convert_to_tensor_fn in ("logits", "probs", "mode"):
            raise ValueError(
                "convert_to_tensor_fn: expected 'sample', 'mean' or a function, since pixels that "
                f"see one another have no {self.convert_to_tensor_fn} of their own."
            )
        self.event_shape = event_shape
        self.network = CausalNetwork(
            event_shape[-1], units, radius, seed=self.seed, dtype=self.dtype_policy
        )

    @staticmethod
    def params_size(event_shape: Any, units: int = 32, name: str | None = None) -> int:
        """The number of parameters of one image: `units` for each number in it."""
        return _support.check_positive_int("units", units) * math.prod(_event_shape(event_shape))

    @staticmethod
    def new(
        params: tf.Tensor,
        event_shape: Sequence[int],
        network: CausalNetwork,
        validate_args: bool = False,
        name: str | None = None,
    ) -> AutoregressivePixels:
        """The distribution of `params`, shape ``(..., units * prod(event_shape))``."""
        height, width, channels = _event_shape(event_shape)
        features = _reshape_event(params, (height, width, network.units * channels))
        return AutoregressivePixels(
            features, network, validate_args, name or "AutoregressiveBernoulli"
        )

    @property
    def input_size(self) -> int:
        return self.params_size(self.event_shape, self.units)

    def _distribution(self, params: tf.Tensor) -> AutoregressivePixels:
        return self.new(params, self.event_shape, self.network, self.validate_args)

    def _function_config(self) -> dict[str, Any]:
        return {
            **super()._function_config(),
            "units": self.units,
            "radius": self.network.radius,
        }
