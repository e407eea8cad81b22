"""Keras' optimizers where TensorFlow has a faster kernel for the same step."""

import contextvars
from typing import Any

import keras
import tensorflow as tf

from tfp_vae import _support

__all__ = ["FusedAdam"]


# The number of the step, read once for all variables: a read is an operation of its own for each,
# and so is what follows from it. A variable of the context, which what TensorFlow runs elsewhere
# for several replicas does not see.
_number_of_step: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar(
    "tfp_vae_number_of_step", default=None
)


@_support.register
class FusedAdam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`, whose update of a variable is one kernel instead of a dozen.

    The same equations, so the same weights up to rounding::

        m <- m + (1 - beta_1) (g - m)
        v <- v + (1 - beta_2) (g^2 - v)
        w <- w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)

    It pays where the weights are many and the images' work is small: dense networks. Where
    convolutions take the time, it makes no difference (``benchmarks/RESULTS.md``, the table of
    settings, has both).

    Everything else (clipping, weight decay, averaging, accumulation of gradients, schedules,
    saving) is Keras' own. With `amsgrad` and for sparse gradients the update is Keras' too.

    Args:
        **kwargs: of `keras.optimizers.Adam`.

    Source: Kingma & Ba 2015, arXiv:1412.6980, the form before section 2.1; TensorFlow's
    ``ResourceApplyAdam``.

    Example:
        >>> from tfp_vae import optimizers
        >>> optimizers.FusedAdam(1e-3, global_clipnorm=100.0).get_config()["global_clipnorm"]
        100.0
    """

    def _backend_update_step(self, *arguments: Any) -> None:
        token = _number_of_step.set(tf.convert_to_tensor(self.iterations) + 1)
        try:
            super()._backend_update_step(*arguments)
        finally:
            _number_of_step.reset(token)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        beta_1, beta_2 = (_support.number(beta, dtype) for beta in (self.beta_1, self.beta_2))
        number = _number_of_step.get()
        step = tf.cast(self.iterations + 1 if number is None else number, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=_handle(variable),
            m=_handle(self._momentums[index]),
            v=_handle(self._velocities[index]),
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=_support.number(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


def _handle(variable: Any) -> tf.Tensor:
    # Keras hands its own variables over, and TensorFlow's inside a strategy's update.
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
