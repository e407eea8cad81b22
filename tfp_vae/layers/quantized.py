"""A distribution that TFP does not have: logistic, in 256 levels of the unit interval."""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

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
        """``E[x] = sum_k P(x >= k / 255) / 255``."""
        edges = (tf.range(1, _LEVELS, dtype=self.dtype) - 0.5) / (_LEVELS - 1)
        nothing = tf.zeros(self.batch_shape_tensor(), self.dtype)
        total = tf.foldl(  # one level at a time: all at once would be 255 images for each
            lambda sum_, edge: sum_ + tf.sigmoid((self.loc - edge) / self.scale), edges, nothing
        )
        return total / (_LEVELS - 1)

    def _mode(self) -> tf.Tensor:
        levels = tf.cast(_LEVELS - 1, self.dtype)
        inside = tf.round(tf.clip_by_value(self.loc, 0, 1) * levels) / levels
        # Of a wide distribution the open bins at the ends may hold more than the one in its middle.
        candidates = tf.stack([inside, tf.zeros_like(inside), tf.ones_like(inside)])
        best = tf.argmax(self.log_prob(candidates), 0)
        return tf.where(best == 0, inside, tf.cast(best - 1, self.dtype))
