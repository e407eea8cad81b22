"""Encoders and decoders of layers of your own."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras

from tfp_vae import _allowed, _support
from tfp_vae.networks import biased, heads

#: A Keras layer, or its class and its arguments as plain data: ``{"layer": "Dense", "units": 5}``.
LayerSpec: TypeAlias = "keras.layers.Layer | Mapping[str, Any]"


def layered_encoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    body: Sequence[LayerSpec],
    prior: Any = None,
    use_exact_kl: bool = True,
    kl_weight: float = 1.0,
    posterior: heads.Spec = "diagonal",
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
        posterior: as in `conv_encoder`.
        name: of the model.

    Raises:
        ValueError: a size below 1, an unknown `posterior` or layer, or arguments that it refuses.
    """
    head = heads.posterior_head(latent_dim, posterior, prior, use_exact_kl, kl_weight)
    inputs = keras.Input(heads.image_shape(image_shape))
    flat = heads.flatten()
    return keras.Sequential([inputs, *map(_layer, body), flat, *head], name=name)


def layered_decoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    body: Sequence[LayerSpec],
    likelihood: heads.Spec = "bernoulli",
    name: str = "decoder",
) -> keras.Sequential:
    """A ``p(x|z)`` of layers of your own: `body`, then the likelihood.

    The last layer of `body` gives the parameters: an image of ``k * channels`` channels, or a
    vector of ``k * height * width * channels`` numbers, with ``k`` parameters for each pixel
    (1 for "bernoulli", "continuous_bernoulli" and "normal_fixed_scale", 3 for each component of
    "quantized_logistic_mixture", the `units` of "autoregressive_bernoulli", 2 for the others).

    Arguments and errors as in `layered_encoder` and `conv_decoder`.

    Raises:
        ValueError: also for a `body` whose output has another size.
    """
    image_shape = heads.image_shape(image_shape)
    latent_dim = _support.check_positive_int("latent_dim", latent_dim)
    distribution, per_pixel = heads.likelihood_head(likelihood, image_shape)
    model = keras.Sequential([keras.Input((latent_dim,)), *map(_layer, body)], name=name)
    height, width, channels = image_shape
    as_image = (height, width, per_pixel * channels)
    got = tuple(model.output_shape[1:])
    if got not in (as_image, (math.prod(as_image),)):
        raise ValueError(
            f"layered_decoder: expected a body that ends in the shape {as_image}, the parameters "
            f"of {likelihood!r}, got {got}."
        )
    for layer in heads.flat_parameters(image_shape, distribution) if got == as_image else ():
        model.add(layer)
    model.add(distribution)
    return model


def _layer(spec: LayerSpec) -> keras.layers.Layer:
    if isinstance(spec, keras.layers.Layer):
        return spec
    if not isinstance(spec, Mapping):
        raise ValueError(
            "body: expected layers, or dictionaries of them such as {'layer': 'Dense', 'units': "
            f"8}}, got {spec!r}."
        )
    arguments: dict[str, Any] = dict(spec)
    name = arguments.pop("layer", None)
    cls = biased.LAYERS.get(str(name)) or getattr(keras.layers, str(name), None)
    if (
        not (isinstance(cls, type) and issubclass(cls, keras.layers.Layer))
        or name in _allowed.REFUSED
    ):
        raise ValueError(f"layer: expected the name of a class in keras.layers, got {name!r}.")
    try:
        _allowed.check(arguments)
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
