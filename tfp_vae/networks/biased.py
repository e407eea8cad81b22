"""Keras' layers with a bias, whose gradient is right in 16 bits too.

The gradient of a bias is a sum over images and positions. TensorFlow's kernel for it
(``BiasAddGrad``, 2.21) adds up bfloat16 in bfloat16 on a processor: of 67,600 ones it makes 512,
and the CVAE trained with it was 2.4 nats behind float32 after five epochs. The gradient of a
broadcast sum is added up in float32 and rounded once.
"""

from typing import Any

import keras
import tensorflow as tf

from tfp_vae import _support


class _Biased:
    """What the three below share; each says what the bias is added to."""

    def call(self: Any, inputs: tf.Tensor) -> tf.Tensor:
        narrow = self.compute_dtype in ("bfloat16", "float16")
        channels_last = getattr(self, "data_format", "channels_last") == "channels_last"
        if not (narrow and self.use_bias and channels_last):
            return super().call(inputs)  # type: ignore[misc]
        return self.activation(self._unbiased(inputs) + tf.convert_to_tensor(self.bias))


@_support.register
class Dense(_Biased, keras.layers.Dense):
    """`keras.layers.Dense`, for training under ``mixed_bfloat16`` too.

    The same equation ``f(x W + b)``, arguments, shapes and errors. In float32 it computes by Keras'
    own code; in 16 bits the gradient of ``b`` is not rounded at each of its summands.

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
