"""8-bit pixels: the logistic distribution in 256 levels of the unit interval, and its mixtures."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.layers.distributions import (
    _event_shape,
    _independent,
    _LocScaleDistribution,
    _NamedDistribution,
    _reshape_event,
)

_LEVELS = 256
_HALF_BIN = 0.5 / (_LEVELS - 1)


class QuantizedLogistic(tfd.Distribution):
    """See `tfp_vae.layers.IndependentQuantizedLogistic`, whose pixels have this distribution.

    `tfd.QuantizedDistribution` has bins of width 1, and scaled to [0, 1] it would count a Jacobian
    that a discrete distribution does not have.
    """

    def __init__(
        self,
        loc: tf.Tensor,
        scale: tf.Tensor,
        validate_args: bool = False,
        allow_nan_stats: bool = True,
        name: str = "QuantizedLogistic",
    ) -> None:
        parameters = dict(locals())
        self.loc, self.scale = tf.convert_to_tensor(loc), tf.convert_to_tensor(scale)
        super().__init__(
            dtype=self.loc.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        properties = tfp.util.ParameterProperties
        return {
            "loc": properties(),
            "scale": properties(default_constraining_bijector_fn=tfp.bijectors.Softplus),
        }

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([], tf.int32)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        above = (x + _HALF_BIN - self.loc) / self.scale
        below = (x - _HALF_BIN - self.loc) / self.scale
        # F(b) - F(a) = F(b) F(-a) (1 - exp(a - b)), which never subtracts two nearly equal numbers.
        log_above, log_below = tf.math.log_sigmoid(above), tf.math.log_sigmoid(-below)
        inside = log_above + log_below + tfp.math.log1mexp(2 * _HALF_BIN / self.scale)
        first, last = x < _HALF_BIN, x > 1 - _HALF_BIN
        return tf.where(first, log_above, tf.where(last, log_below, inside))

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        value = tfd.Logistic(self.loc, self.scale).sample(n, seed=seed)
        levels = tf.cast(_LEVELS - 1, value.dtype)
        return tf.round(tf.clip_by_value(value, 0, 1) * levels) / levels

    def _mean(self) -> tf.Tensor:
        return self._sum_of_tails(lambda k: tf.ones_like(k) / (_LEVELS - 1))

    def _variance(self) -> tf.Tensor:
        square = self._sum_of_tails(lambda k: (2 * k - 1) / (_LEVELS - 1) ** 2)
        # A difference in float32: of a deviation below a tenth of a level little is left.
        return tf.maximum(square - self._mean() ** 2, 0)

    def _sum_of_tails(self, weight: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """``sum_k weight(k) P(x >= k / 255)``: the mean of x for 1 / 255, and so on."""
        level = tf.range(1, _LEVELS, dtype=self.dtype)
        edges = (level - 0.5) / (_LEVELS - 1)
        nothing = tf.zeros(self.batch_shape_tensor(), self.dtype)
        return tf.foldl(  # one level at a time: all at once would be 255 images for each
            lambda sum_, at: sum_ + at[1] * tf.sigmoid((self.loc - at[0]) / self.scale),
            (edges, weight(level)),
            nothing,
        )

    def _mode(self) -> tf.Tensor:
        levels = tf.cast(_LEVELS - 1, self.dtype)
        inside = tf.round(tf.clip_by_value(self.loc, 0, 1) * levels) / levels
        # Of a wide distribution the open bins at the ends may hold more than the one in its middle.
        candidates = tf.stack([inside, tf.zeros_like(inside), tf.ones_like(inside)])
        best = tf.argmax(self.log_prob(candidates), 0)
        return tf.where(best == 0, inside, tf.cast(best - 1, self.dtype))


def _pixels(
    loc: tf.Tensor, log_scale: tf.Tensor, middle: Any, validate_args: bool
) -> QuantizedLogistic:
    return QuantizedLogistic(
        loc=loc + middle,
        # From a 400th of a bin to thousands of times the range of pixels: beyond, all that
        # changes is the risk of an overflow.
        scale=tf.exp(_support.limited(log_scale, -10, 10)) / 5,
        validate_args=validate_args,
    )


@_support.register
class IndependentQuantizedLogistic(_LocScaleDistribution):
    """``params (..., 2 prod(event_shape)) -> independent 8-bit pixels`` ``0, 1/255, ..., 1``.

    A logistic distribution of location ``m`` and scale ``s``, of which each of the 256 levels gets
    the mass of its bin:
    ``P(x_i) = F((x_i + 1/510 - m_i) / s_i) - F((x_i - 1/510 - m_i) / s_i)``, ``F`` the logistic
    function, the first and the last bin open to the outside (Kingma et al. 2016,
    arXiv:1606.04934). A probability of 8-bit pixels in nats; divided by
    ``log(2) * prod(event_shape)`` and negated it is bits per dimension.

    The first half of the parameters are the locations, shifted by 1/2 so that zero is a grey
    image; the other half the logarithms of ``5 s``.

    Args:
        event_shape: shape of one image, (height, width, channels).
        convert_to_tensor_fn: see `DistributionLambda`.
        validate_args: let TFP check the parameters at run time.
        **kwargs: of `DistributionLambda`.

    Raises:
        ValueError: a size below 1, or an input of another size.
    """

    unit_interval = True

    @staticmethod
    def new(
        params: tf.Tensor,
        event_shape: Any = (),
        validate_args: bool = False,
        name: str | None = None,
    ) -> tfd.Independent:
        """The distribution of `params`, shape ``(..., 2 * prod(event_shape))``."""
        loc, log_scale = (
            _reshape_event(kind, event_shape) for kind in tf.split(params, 2, axis=-1)
        )
        pixels = _pixels(loc, log_scale, 0.5, validate_args)
        return _independent(pixels, event_shape, name=name or "IndependentQuantizedLogistic")


@_support.register
class IndependentQuantizedLogisticMixture(_NamedDistribution):
    """``params (..., 3 K prod(event_shape)) -> independent 8-bit pixels``, each a mixture.

    ``P(x_i) = sum_k pi_ik Q(x_i; m_ik, s_ik)``, ``Q`` the quantized logistic of
    `IndependentQuantizedLogistic`, which is the case ``K = 1``; ``pi_i = softmax(logits_i)``
    (Salimans et al. 2017, arXiv:1701.05517, section 2.1, there with one choice of ``k`` for the
    three colours of a pixel; here each number of the image has its own). In nats.

    The first third of the parameters are the logits, then come the locations and the logarithms
    of ``5 s``; each third is ``K`` images, one for each component. The locations are shifted by
    ``(k + 1/2) / K``, ``k = 0 .. K - 1``, so that at zero the components share the range of pixels
    out between them.

    It has a mean and a variance, but no mode: TFP raises a `NotImplementedError`.

    Args:
        event_shape: shape of one image, (height, width, channels).
        num_components: ``K``.
        convert_to_tensor_fn: see `DistributionLambda`.
        validate_args: let TFP check the parameters at run time.
        **kwargs: of `DistributionLambda`.

    Raises:
        ValueError: a size or a number below 1, or an input of another size.

    Example:
        >>> import tensorflow as tf
        >>> from tfp_vae import layers
        >>> layer = layers.IndependentQuantizedLogisticMixture((4, 4, 3), num_components=10)
        >>> p = layer(tf.zeros([8, 3 * 10 * 4 * 4 * 3]))
        >>> p.batch_shape, p.event_shape
        (TensorShape([8]), TensorShape([4, 4, 3]))
    """

    unit_interval = True

    def __init__(
        self,
        event_shape: int | Sequence[int] = (),
        num_components: int = 5,
        convert_to_tensor_fn: str | Callable[[tfd.Distribution], tf.Tensor] = "sample",
        validate_args: bool = False,
        **kwargs: Any,
    ) -> None:
        event_shape = _event_shape(event_shape)
        num_components = _support.check_positive_int("num_components", num_components)
        super().__init__(event_shape, convert_to_tensor_fn, validate_args, kwargs)
        self.event_shape, self.num_components = event_shape, num_components

    @staticmethod
    def params_size(event_shape: Any = (), num_components: int = 5, name: str | None = None) -> int:
        """The number of parameters of one image: ``3 num_components`` for each number in it."""
        num_components = _support.check_positive_int("num_components", num_components)
        return 3 * num_components * math.prod(_event_shape(event_shape))

    @property
    def input_size(self) -> int:
        """The number of parameters that the layer expects for one distribution."""
        return self.params_size(self.event_shape, self.num_components)

    @staticmethod
    def new(
        params: tf.Tensor,
        event_shape: Any = (),
        num_components: int = 5,
        validate_args: bool = False,
        name: str | None = None,
    ) -> tfd.Independent:
        """The distribution of `params`, shape ``(..., 3 * num_components * prod(event_shape))``."""
        event_shape = _event_shape(event_shape)
        kinds = _reshape_event(params, (3, num_components, *event_shape))
        # TFP mixes along the last dimension.
        lead, rank = params.shape.rank - 1, kinds.shape.rank
        order = [lead, *range(lead), *range(lead + 2, rank), lead + 1]
        logits, loc, log_scale = tf.unstack(tf.transpose(kinds, order))
        middle = (tf.range(num_components, dtype=params.dtype) + 0.5) / num_components
        pixels = tfd.MixtureSameFamily(
            tfd.Categorical(logits=logits, validate_args=validate_args),
            _pixels(loc, log_scale, middle, validate_args),
            validate_args=validate_args,
        )
        return _independent(pixels, event_shape, name=name or "IndependentQuantizedLogisticMixture")

    def _distribution(self, params: tf.Tensor) -> tfd.Distribution:
        return self.new(params, self.event_shape, self.num_components, self.validate_args)

    def _function_config(self) -> dict[str, Any]:
        return {**super()._function_config(), "num_components": self.num_components}
