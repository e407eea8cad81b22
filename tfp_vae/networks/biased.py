"""Keras' layers with a bias, whose gradient is right in 16 bits and fast in 32.

The gradient of a bias is a sum over images and positions. TensorFlow's kernel for it on a processor
(``BiasAddGrad``, 2.21) adds up bfloat16 in bfloat16: of 67,600 ones it makes 512, and the CVAE
trained with it was 2.4 nats behind float32 after five epochs. Here it is added up in float32 and
rounded once. In float32 it is a product with ones, whose kernel is the faster one: the whole step
of the CVAE takes 1.01, 1.02 and 1.05 times as long with ``BiasAddGrad`` (batches of 32, 100, 500).
"""

from typing import Any

import keras
import tensorflow as tf

from tfp_vae import _support


@tf.custom_gradient
def _with_bias(values: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """``values + bias`` along the last axis."""

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.reshape(upstream, [-1, bias.shape[0]])
        if rows.dtype == tf.bfloat16:
            return upstream, tf.reduce_sum(rows, 0)  # which TensorFlow makes in float32
        return upstream, tf.linalg.matmul(tf.ones([1, tf.shape(rows)[0]], rows.dtype), rows)[0]

    return tf.nn.bias_add(values, bias), gradients


class _Biased:
    """What the three below share; each says what the bias is added to."""

    def call(self: Any, inputs: tf.Tensor) -> tf.Tensor:
        channels_last = getattr(self, "data_format", "channels_last") == "channels_last"
        # TensorFlow's kernel is right in float16; a GPU's is fast in float32, in which its products
        # may round to ten bits (TF32).
        ours = {"bfloat16": True, "float16": False}.get(self.compute_dtype, not _support.sees_gpu())
        if not (self.use_bias and channels_last and ours):
            return super().call(inputs)  # type: ignore[misc]
        values = _with_bias(self._unbiased(inputs), tf.convert_to_tensor(self.bias))
        return values if self.activation is None else self.activation(values)


@_support.register
class Dense(_Biased, keras.layers.Dense):
    """`keras.layers.Dense`, for training under ``mixed_bfloat16`` too.

    The same equation ``f(x W + b)``, arguments, shapes and errors; on a processor the gradient of
    ``b`` is not rounded at each of its summands.

    Example:
        >>> import numpy as np
        >>> from tfp_vae import networks
        >>> networks.Dense(3, dtype="mixed_bfloat16")(np.ones((2, 4), "float32")).dtype
        tf.bfloat16
    """

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        # Keras refuses classes that derive from its own, whose `call` may be another.
        super().quantize(mode, type_check=False, config=config)

    def _unbiased(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.ops.matmul(inputs, self.kernel)


@_support.register
class Conv2D(_Biased, keras.layers.Conv2D):
    """`keras.layers.Conv2D`, for training under ``mixed_bfloat16`` too; as `Dense`."""

    def _unbiased(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.convolution_op(inputs, self.kernel)


@_support.register
class Conv2DTranspose(_Biased, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose`, for training under ``mixed_bfloat16`` too; as `Dense`."""

    def _unbiased(self, inputs: tf.Tensor) -> tf.Tensor:
        return keras.ops.conv_transpose(
            inputs,
            self.kernel,
            strides=tuple(self.strides),
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )


#: By the names of Keras' own.
LAYERS: dict[str, type[keras.layers.Layer]] = {
    cls.__name__: cls for cls in (Dense, Conv2D, Conv2DTranspose)
}
