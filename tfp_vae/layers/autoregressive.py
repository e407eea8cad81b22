"""Autoregressive networks, and the flows that TFP makes of them."""

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_vae import _support

# No step scales a coordinate by more than e^2 or less than e^-2, so that neither one bad step of
# the optimizer nor a point far from the data overflows, and every step can be inverted in float32.
# Steps multiply, so four of them still span a factor of e^16.
_LOG_SCALE_LIMIT = 2.0


@_support.register
class AutoregressiveNetwork(keras.layers.Layer):
    """``y (..., d) -> shift (..., d), log_scale (..., d)``, the i-th from ``y_1 .. y_{i-1}`` alone.

    A dense network whose weights are masked (MADE, Germain et al. 2015, arXiv:1502.03509): every
    hidden unit has a degree ``m``, sees no inputs beyond the ``m``-th and is seen by the outputs
    beyond the ``m``-th alone. So the Jacobian of both outputs is strictly triangular. A context
    enters the first layer without a mask, and all outputs see it.

    ``log_scale = 2 tanh(s / 2)`` of the last layer's ``s``: as good as ``s`` where it is small, and
    never beyond ±2. The last layer starts with small weights: shift and log-scale begin within
    some hundredths of 0, the flow near the identity.

    Args:
        event_size: ``d``.
        units: units of each hidden layer, of ELU activation; none for a linear network.
        context_size: numbers in the context vector; 0 for none.
        right_to_left: the i-th outputs depend on ``y_{i+1} .. y_d`` instead: flows of several
            steps alternate.
        seed: integer seed of the initial weights.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: a size below 1; on a call, a context that does not fit.

    Example:
        >>> import tensorflow as tf
        >>> from tfp_vae import layers
        >>> shift, log_scale = layers.AutoregressiveNetwork(3, [16])(tf.zeros([8, 3]))
        >>> shift.shape, log_scale.shape
        (TensorShape([8, 3]), TensorShape([8, 3]))
    """

    def __init__(
        self,
        event_size: int,
        units: Sequence[int] = (64,),
        context_size: int = 0,
        *,
        right_to_left: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # autocast=False, here and below: a density keeps float32 under a mixed precision policy.
        super().__init__(autocast=False, **kwargs)
        self.event_size = _support.check_positive_int("event_size", event_size)
        self.units = _support.check_sizes("units", units)
        self.context_size = _support.check_int("context_size", context_size, 0)
        self.right_to_left = bool(right_to_left)
        self.seed = seed
        inputs = np.arange(1, self.event_size + 1)
        inputs = inputs[::-1] if right_to_left else inputs
        # Units of degree 0 see the context alone, which the first output needs.
        lowest = 0 if self.context_size or self.event_size == 1 else 1
        hidden = [lowest + np.arange(n) * (self.event_size - lowest) // n for n in self.units]
        degrees = [inputs, *hidden, np.tile(inputs, 2)]
        seeds = keras.random.SeedGenerator(seed)
        self._masks, self._kernels, self._biases = [], [], []
        for i, (below, above) in enumerate(itertools.pairwise(degrees)):
            last = i == len(hidden)
            below = below[:, np.newaxis]
            self._masks.append((below < above if last else below <= above).astype("float32"))
            # The variance of the last layer's outputs is 1e-4 times the square of its inputs.
            initializer = (
                keras.initializers.VarianceScaling(1e-4, seed=seeds)
                if last
                else keras.initializers.GlorotUniform(seeds)
            )
            if i == 0 and self.context_size:
                self._context_kernel = self.add_weight(
                    shape=(self.context_size, len(above)),
                    initializer=initializer,
                    name="context_kernel",
                    autocast=False,
                )
            self._kernels.append(
                self.add_weight(
                    shape=self._masks[-1].shape,
                    initializer=initializer,
                    name=f"kernel_{i}",
                    autocast=False,
                )
            )
            self._biases.append(
                self.add_weight(
                    shape=(len(above),), initializer="zeros", name=f"bias_{i}", autocast=False
                )
            )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def call(self, y: tf.Tensor, context: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Shift and log-scale of `y`, shape (..., d), given `context`, shape (..., c)."""
        got = 0 if context is None else context.shape[-1]
        if (y.shape[-1], got) != (self.event_size, self.context_size):
            raise ValueError(
                f"{type(self).__name__}: expected {self.event_size} numbers and a context of "
                f"{self.context_size}, got {y.shape[-1]} and {got}."
            )
        values = y
        for i, (kernel, bias) in enumerate(zip(self._kernels, self._biases, strict=True)):
            kernel = tf.convert_to_tensor(kernel)
            mask = tf.cast(self._masks[i], kernel.dtype)
            values = tf.nn.elu(values) if i else values
            values = tf.tensordot(values, kernel * mask, 1) + tf.convert_to_tensor(bias)
            if i == 0 and context is not None:
                # A product of its own, for the context has no sample dimensions to repeat it over.
                values += tf.tensordot(context, tf.convert_to_tensor(self._context_kernel), 1)
        shift, log_scale = tf.split(values, 2, axis=-1)
        return shift, _LOG_SCALE_LIMIT * tf.tanh(log_scale / _LOG_SCALE_LIMIT)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "event_size": self.event_size,
            "units": list(self.units),
            "context_size": self.context_size,
            "right_to_left": self.right_to_left,
            "seed": self.seed,
        }
        config.pop("autocast", None)
        return config


def alternating_networks(
    event_size: int,
    num_flows: int,
    units: Sequence[int],
    context_size: int = 0,
    *,
    seed: int | None,
    dtype: Any,
) -> list[AutoregressiveNetwork]:
    """The networks of a flow of `num_flows` steps, every other one from right to left.

    A step from left to right leaves its first coordinate all but alone: the next begins with the
    last one. Turning the order of a network around costs nothing, unlike permuting the coordinates
    between the steps.
    """
    num_flows = _support.check_positive_int("num_flows", num_flows)
    # Spawned, not counted up: else the second network of one flow would begin like the first one
    # of a flow with the next seed.
    seeds: list[int | None] = [None] * num_flows
    if seed is not None:
        seeds = [int(each) for each in np.random.SeedSequence(seed).generate_state(num_flows)]
    return [
        AutoregressiveNetwork(
            event_size,
            units,
            context_size,
            right_to_left=i % 2 == 1,
            seed=seeds[i],
            dtype=dtype,
        )
        for i in range(num_flows)
    ]


def masked_flow(
    network: AutoregressiveNetwork, context: tf.Tensor | None = None
) -> tfb.MaskedAutoregressiveFlow:
    """``x -> y``, ``y_i = x_i exp(log_scale_i(y)) + shift_i(y)``; its inverse is one parallel pass.

    TFP asks the network twice about the same ``y``, for the value and for the Jacobian, which
    would double the cost of a training step: the answer to the last question is kept.
    """
    # Of `y` a weak reference: TFP's cache holds the bijector for as long as `y` lives.
    last: list[Any] = [lambda: None, None]

    def shift_and_log_scale(y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if last[0]() is not y:
            # By name: Keras wants positional arguments to be tensors.
            last[:] = weakref.ref(y), network(y, context=context)
        return last[1]

    return tfb.MaskedAutoregressiveFlow(shift_and_log_scale)
