"""Convolutional encoders and decoders, straight from convolution to convolution."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.networks import biased, heads


def conv_encoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    filters: Sequence[int] = (32, 64),
    kernel_size: int = 3,
    padding: str = "valid",
    units: Sequence[int] = (),
    activation: str = "relu",
    prior: Any = None,
    use_exact_kl: bool = True,
    kl_weight: float = 1.0,
    posterior: heads.Spec = "diagonal",
    name: str = "encoder",
) -> keras.Sequential:
    """A convolutional ``q(z|x)``.

    One convolution of stride 2 for each entry of `filters`, flattened, a dense layer for each
    entry of `units`, then a dense layer without activation for the posterior's parameters. The
    defaults are the encoder of TensorFlow's CVAE tutorial: two 3×3 convolutions of 32 and 64
    filters without padding, then straight to mean and log-variance.

    Args:
        image_shape: (height, width, channels).
        latent_dim: number of latent dimensions.
        filters: filters of each convolution.
        kernel_size: height and width of the kernels.
        padding: "valid" or "same".
        units: sizes of the dense layers between the convolutions and the parameters.
        activation: of all layers but the last.
        prior: ``p(z)``; with it the posterior's layer carries a `KLDivergenceRegularizer`.
        use_exact_kl: see `layers.KLDivergenceRegularizer`.
        kl_weight: its `weight`.
        posterior: "diagonal" (mean and log-variance), "full" (mean and Cholesky factor) or "iaf"
            (`layers.InverseAutoregressiveFlow`, which needs ``use_exact_kl=False``); or its name
            and arguments of its layer as plain data, such as
            ``{"name": "iaf", "num_flows": 4, "units": [320], "context_size": 32}``.
        name: of the model.

    Raises:
        ValueError: a size below 1, an unknown `posterior`, or images too small for the strides.
    """
    image_shape = heads.image_shape(image_shape)
    filters = _support.check_sizes("filters", filters)
    _check_conv("conv_encoder", image_shape, filters, kernel_size, padding)
    body: list[keras.layers.Layer] = [
        biased.Conv2D(
            width,
            kernel_size,
            strides=2,
            padding=padding,
            data_format="channels_last",
            activation=activation,
            name=f"conv_{i}",
        )
        for i, width in enumerate(filters)
    ]
    body += [heads.flatten(), *heads.dense(units, activation)]
    head = heads.posterior_head(latent_dim, posterior, prior, use_exact_kl, kl_weight)
    return keras.Sequential([keras.Input(image_shape), *body, *head], name=name)


def conv_decoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    units: Sequence[int] = (),
    base_filters: int = 32,
    filters: Sequence[int] = (64, 32),
    kernel_size: int = 3,
    final_strides: int = 1,
    activation: str = "relu",
    likelihood: heads.Spec = "bernoulli",
    name: str = "decoder",
) -> keras.Sequential:
    """A convolutional ``p(x|z)``.

    A dense layer for each entry of `units`, one to a small image of `base_filters` channels, a
    transposed convolution of stride 2 for each entry of `filters`, and a last one to the
    likelihood's parameters. The defaults are the decoder of TensorFlow's CVAE tutorial.

    Args:
        image_shape: (height, width, channels); height and width must be multiples of
            ``2 ** len(filters) * final_strides``.
        latent_dim: number of latent dimensions.
        units: sizes of the dense layers before the small image.
        base_filters: channels of the small image.
        filters: filters of the transposed convolutions.
        kernel_size: height and width of the kernels.
        final_strides: stride of the last transposed convolution.
        activation: of all layers but the last.
        likelihood: "bernoulli" (binary pixels), "autoregressive_bernoulli" (binary pixels that
            see those before them), "continuous_bernoulli" (grey pixels in [0, 1]),
            "normal" (learned mean and scale), "normal_fixed_scale" (scale 1: squared error),
            "quantized_logistic" or "quantized_logistic_mixture" (8-bit pixels, 5 components); or
            a dictionary with arguments of its layer, ``{"name": "normal_fixed_scale", "scale":
            0.1}``, ``{"name": "quantized_logistic_mixture", "num_components": 10}``.
        name: of the model.

    Raises:
        ValueError: a size below 1, an unknown likelihood or argument of one, or a height or width
            that the strides cannot reach.
    """
    image_shape = heads.image_shape(image_shape)
    height, width, channels = image_shape
    filters = _support.check_sizes("filters", filters)
    factor = 2 ** len(filters) * _support.check_positive_int("final_strides", final_strides)
    if height % factor or width % factor:
        raise ValueError(
            f"conv_decoder: expected a height and width that are multiples of {factor} (two for "
            f"each of {len(filters)} strides, times final_strides = {final_strides}), got "
            f"{height}×{width}. Pad the images, or take dense_decoder."
        )
    small = (
        height // factor,
        width // factor,
        _support.check_positive_int("base_filters", base_filters),
    )
    layer, per_pixel = heads.likelihood_head(likelihood, image_shape)
    upward: list[keras.layers.Layer] = [
        biased.Conv2DTranspose(
            count,
            kernel_size,
            strides=2,
            padding="same",
            data_format="channels_last",
            activation=activation,
            name=f"conv_transpose_{i}",
        )
        for i, count in enumerate(filters)
    ]
    return keras.Sequential(
        [
            keras.Input((_support.check_positive_int("latent_dim", latent_dim),)),
            *heads.dense(units, activation),
            biased.Dense(math.prod(small), activation=activation, name="small_image"),
            keras.layers.Reshape(small),
            *upward,
            _LastConv2DTranspose(
                channels * per_pixel,
                kernel_size,
                strides=final_strides,
                padding="same",
                data_format="channels_last",
                name="parameters",
            ),
            *heads.flat_parameters(image_shape, layer),
            layer,
        ],
        name=name,
    )


@_support.register
class _LastConv2DTranspose(biased.Conv2DTranspose):
    """Keras' layer with a faster forward pass for one filter, odd kernel and stride 1.

    With a single output channel TensorFlow's kernel leaves most of the processor idle: as one
    matrix product and shifted sums, the 28×28×32 to 28×28×1 layer of the CVAE took 1.1 ms instead
    of 2.3 at batch 100 on two cores, of a training step of 17. The gradients are TensorFlow's own.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        thin = self.filters == 1 and tuple(self.strides) == (1, 1) and self.padding == "same"
        odd = all(size % 2 for size in self.kernel_size)
        static = all(inputs.shape[1:3])
        if not (thin and odd and static and tuple(self.dilation_rate) == (1, 1)):
            return super().call(inputs)
        outputs = _thin_conv_transpose(inputs, tf.convert_to_tensor(self.kernel))
        outputs = outputs + tf.convert_to_tensor(self.bias) if self.use_bias else outputs
        return self.activation(outputs)


@tf.custom_gradient
def _thin_conv_transpose(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """``y[i + a, j + b] += x[i, j] . kernel[a, b]``, cropped to the size of `x`.

    Args:
        x: shape (batch, height, width, channels).
        kernel: shape (rows, columns, 1, channels), rows and columns odd.
    """
    _, height, width, channels = x.shape
    rows, columns = kernel.shape[:2]
    products = tf.matmul(
        tf.reshape(kernel, [rows * columns, channels]),
        tf.reshape(x, [-1, height * width, channels]),
        transpose_b=True,
    )
    products = tf.reshape(products, [-1, rows, columns, height, width])
    margins = [[0, 0], [0, 0], [0, 0], [rows // 2] * 2, [columns // 2] * 2]
    products = tf.pad(products, margins)
    shifted = [
        products[:, a, b, above : above + height, left : left + width]
        for a, above in enumerate(reversed(range(rows)))
        for b, left in enumerate(reversed(range(columns)))
    ]

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dx = tf.nn.conv2d(dy, kernel, 1, "SAME")
        dkernel = tf.compat.v1.nn.conv2d_backprop_filter(dy, kernel.shape, x, [1, 1, 1, 1], "SAME")
        return dx, dkernel

    return tf.add_n(shifted)[..., tf.newaxis], gradient


def _check_conv(
    name: str,
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    kernel_size: int,
    padding: str,
) -> None:
    if padding not in ("valid", "same"):
        raise ValueError(f"padding: expected 'valid' or 'same', got {padding!r}.")
    _support.check_positive_int("kernel_size", kernel_size)
    height, width = image_shape[:2]
    for i in range(len(filters)):
        if padding == "valid" and min(height, width) < kernel_size:
            raise ValueError(
                f"{name}: images of {image_shape[0]}×{image_shape[1]} are too small for "
                f"{len(filters)} convolutions of stride 2: number {i + 1} expected at least "
                f"{kernel_size}×{kernel_size}, got {height}×{width}. Take padding='same', fewer "
                "filters, or dense_encoder."
            )
        if padding == "valid":
            height, width = ((size - kernel_size) // 2 + 1 for size in (height, width))
