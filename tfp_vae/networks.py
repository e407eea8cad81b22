"""Encoders and decoders: Keras models that end in a distribution layer.

Shapes are (height, width, channels). Every function returns a built `keras.Sequential`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from tfp_vae import _support, layers

__all__ = [
    "conv_decoder",
    "conv_encoder",
    "dense_decoder",
    "dense_encoder",
    "layered_decoder",
    "layered_encoder",
]

#: A Keras layer, or its class and its arguments as plain data: ``{"layer": "Dense", "units": 5}``.
LayerSpec: TypeAlias = "keras.layers.Layer | Mapping[str, Any]"

_POSTERIORS: dict[str, Any] = {
    "diagonal": layers.MultivariateNormalDiag,
    "full": layers.MultivariateNormalTriL,
}
_LIKELIHOODS: dict[str, Any] = {
    "bernoulli": layers.IndependentBernoulli,
    "continuous_bernoulli": layers.IndependentContinuousBernoulli,
    "normal": layers.IndependentNormal,
    "normal_fixed_scale": layers.IndependentNormalFixedScale,
    "quantized_logistic": layers.IndependentQuantizedLogistic,
}


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
    posterior: str = "diagonal",
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
        posterior: "diagonal" (mean and log-variance) or "full" (mean and Cholesky factor).
        name: of the model.

    Raises:
        ValueError: a size below 1, an unknown `posterior`, or images too small for the strides.
    """
    image_shape = _image_shape(image_shape)
    _check_conv("conv_encoder", image_shape, filters, kernel_size, padding)
    body: list[keras.layers.Layer] = [
        keras.layers.Conv2D(
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
    body += [keras.layers.Flatten(), *_dense(units, activation)]
    head = _posterior_head(latent_dim, posterior, prior, use_exact_kl, kl_weight)
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
    likelihood: str = "bernoulli",
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
        likelihood: "bernoulli" (binary pixels), "continuous_bernoulli" (grey pixels in [0, 1]),
            "normal" (learned mean and scale), "normal_fixed_scale" (scale 1: squared error) or
            "quantized_logistic" (8-bit pixels).
        name: of the model.

    Raises:
        ValueError: a size below 1, an unknown likelihood, or a height or width that the strides
            cannot reach.
    """
    image_shape = _image_shape(image_shape)
    height, width, channels = image_shape
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
    layer, per_pixel = _likelihood(likelihood, image_shape)
    upward: list[keras.layers.Layer] = [
        keras.layers.Conv2DTranspose(
            _support.check_positive_int("filters", count),
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
            *_dense(units, activation),
            keras.layers.Dense(math.prod(small), activation=activation, name="small_image"),
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
            *_flat_parameters(image_shape, per_pixel),
            layer,
        ],
        name=name,
    )


def dense_encoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    units: Sequence[int] = (256,),
    activation: str = "relu",
    prior: Any = None,
    use_exact_kl: bool = True,
    kl_weight: float = 1.0,
    posterior: str = "diagonal",
    name: str = "encoder",
) -> keras.Sequential:
    """A dense ``q(z|x)``: the flattened image, a dense layer for each entry of `units`, the head.

    Mean and log-variance heads are one dense layer of twice the size, which has the same weights
    as two. Arguments and errors as in `conv_encoder`.
    """
    image_shape = _image_shape(image_shape)
    head = _posterior_head(latent_dim, posterior, prior, use_exact_kl, kl_weight)
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Flatten(),
            *_dense(units, activation),
            *head,
        ],
        name=name,
    )


def dense_decoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    units: Sequence[int] = (256,),
    activation: str = "relu",
    likelihood: str = "bernoulli",
    name: str = "decoder",
) -> keras.Sequential:
    """A dense ``p(x|z)``: a dense layer for each entry of `units`, then all pixels' parameters.

    Arguments and errors as in `conv_decoder`; any image size will do.
    """
    image_shape = _image_shape(image_shape)
    layer, per_pixel = _likelihood(likelihood, image_shape)
    return keras.Sequential(
        [
            keras.Input((_support.check_positive_int("latent_dim", latent_dim),)),
            *_dense(units, activation),
            keras.layers.Dense(math.prod(image_shape) * per_pixel, name="parameters"),
            layer,
        ],
        name=name,
    )


def layered_encoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    body: Sequence[LayerSpec],
    prior: Any = None,
    use_exact_kl: bool = True,
    kl_weight: float = 1.0,
    posterior: str = "diagonal",
    name: str = "encoder",
) -> keras.Sequential:
    """A ``q(z|x)`` of layers of your own: `body`, flattened, then the posterior's head.

    Args:
        image_shape: (height, width, channels).
        latent_dim: number of latent dimensions.
        body: Keras layers, or plain data such as
            ``{"layer": "Conv2D", "filters": 32, "kernel_size": 5, "activation": "leaky_relu"}``.
        prior: as in `conv_encoder`, and so are the other arguments.
        use_exact_kl: see `layers.KLDivergenceRegularizer`.
        kl_weight: its `weight`.
        posterior: "diagonal" or "full".
        name: of the model.

    Raises:
        ValueError: a size below 1, an unknown `posterior` or layer, or arguments that it refuses.
    """
    head = _posterior_head(latent_dim, posterior, prior, use_exact_kl, kl_weight)
    inputs = keras.Input(_image_shape(image_shape))
    flat = keras.layers.Flatten()
    return keras.Sequential([inputs, *map(_layer, body), flat, *head], name=name)


def layered_decoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    body: Sequence[LayerSpec],
    likelihood: str = "bernoulli",
    name: str = "decoder",
) -> keras.Sequential:
    """A ``p(x|z)`` of layers of your own: `body`, then the likelihood.

    The last layer of `body` gives the parameters: an image of ``k * channels`` channels, or a
    vector of ``k * height * width * channels`` numbers, with ``k`` parameters for each pixel
    (1 for "bernoulli", "continuous_bernoulli" and "normal_fixed_scale", 2 for the others).

    Arguments and errors as in `layered_encoder` and `conv_decoder`.

    Raises:
        ValueError: also for a `body` whose output has another size.
    """
    image_shape = _image_shape(image_shape)
    latent_dim = _support.check_positive_int("latent_dim", latent_dim)
    distribution, per_pixel = _likelihood(likelihood, image_shape)
    model = keras.Sequential([keras.Input((latent_dim,)), *map(_layer, body)], name=name)
    height, width, channels = image_shape
    as_image = (height, width, per_pixel * channels)
    got = tuple(model.output_shape[1:])
    if got not in (as_image, (math.prod(as_image),)):
        raise ValueError(
            f"layered_decoder: expected a body that ends in the shape {as_image}, the parameters "
            f"of {likelihood!r}, got {got}."
        )
    for layer in _flat_parameters(image_shape, per_pixel) if got == as_image else ():
        model.add(layer)
    model.add(distribution)
    return model


def _layer(spec: LayerSpec) -> keras.layers.Layer:
    if isinstance(spec, keras.layers.Layer):
        return spec
    arguments: dict[str, Any] = dict(spec)
    name = arguments.pop("layer", None)
    cls = getattr(keras.layers, str(name), None)
    if not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer)) or name == "Lambda":
        raise ValueError(f"layer: expected the name of a class in keras.layers, got {name!r}.")
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


@_support.register
class _LastConv2DTranspose(keras.layers.Conv2DTranspose):
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
        products[:, a, b, rows - 1 - a :, columns - 1 - b :][:, :height, :width]
        for a in range(rows)
        for b in range(columns)
    ]

    def gradient(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        dx = tf.nn.conv2d(dy, kernel, 1, "SAME")
        dkernel = tf.compat.v1.nn.conv2d_backprop_filter(dy, kernel.shape, x, [1, 1, 1, 1], "SAME")
        return dx, dkernel

    return tf.add_n(shifted)[..., tf.newaxis], gradient


def _image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if not isinstance(image_shape, (tuple, list)) or len(image_shape) != 3:
        raise ValueError(f"image_shape: expected (height, width, channels), got {image_shape!r}.")
    height, width, channels = (
        _support.check_positive_int("image_shape", size) for size in image_shape
    )
    return height, width, channels


def _dense(units: Sequence[int], activation: str) -> list[keras.layers.Layer]:
    return [
        keras.layers.Dense(
            _support.check_positive_int("units", size), activation=activation, name=f"dense_{i}"
        )
        for i, size in enumerate(units)
    ]


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
    for i, count in enumerate(filters):
        _support.check_positive_int("filters", count)
        if padding == "valid" and min(height, width) < kernel_size:
            raise ValueError(
                f"{name}: images of {image_shape[0]}×{image_shape[1]} are too small for "
                f"{len(filters)} convolutions of stride 2: number {i + 1} expected at least "
                f"{kernel_size}×{kernel_size}, got {height}×{width}. Take padding='same', fewer "
                "filters, or dense_encoder."
            )
        if padding == "valid":
            height, width = ((size - kernel_size) // 2 + 1 for size in (height, width))


def _posterior_head(
    latent_dim: int, posterior: str, prior: Any, use_exact_kl: bool, kl_weight: float
) -> list[keras.layers.Layer]:
    _support.check_positive_int("latent_dim", latent_dim)
    if posterior not in _POSTERIORS:
        raise ValueError(f"posterior: expected one of {', '.join(_POSTERIORS)}, got {posterior!r}.")
    regularizer = None
    if prior is not None:
        regularizer = layers.KLDivergenceRegularizer(prior, use_exact_kl, kl_weight)
    layer = _POSTERIORS[posterior]
    return [
        keras.layers.Dense(layer.params_size(latent_dim), name="parameters"),
        layer(latent_dim, activity_regularizer=regularizer, name="posterior"),
    ]


def _likelihood(
    likelihood: str, image_shape: tuple[int, int, int]
) -> tuple[layers.DistributionLambda, int]:
    """The likelihood's layer, and how many parameters it takes for each number in the image."""
    if likelihood not in _LIKELIHOODS:
        raise ValueError(
            f"likelihood: expected one of {', '.join(_LIKELIHOODS)}, got {likelihood!r}."
        )
    layer = _LIKELIHOODS[likelihood]
    per_pixel = layer.params_size(image_shape) // math.prod(image_shape)
    return layer(image_shape, name="likelihood"), per_pixel


def _flat_parameters(image_shape: tuple[int, int, int], per_pixel: int) -> list[keras.layers.Layer]:
    """From (height, width, per_pixel * channels) to one vector, kind of parameter by kind."""
    if per_pixel == 1:
        return [keras.layers.Flatten()]
    height, width, channels = image_shape
    return [
        keras.layers.Reshape((height, width, per_pixel, channels)),
        # The layer splits its input into as many equal parts as there are kinds.
        keras.layers.Permute((3, 1, 2, 4)),
        keras.layers.Flatten(),
    ]
