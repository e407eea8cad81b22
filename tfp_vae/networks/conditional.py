"""Encoders and decoders that are told the class of an image."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfp_vae import _support
from tfp_vae.networks import heads


def conditional_encoder(
    make: Callable[..., keras.Model],
    image_shape: Sequence[int],
    latent_dim: int,
    num_classes: int,
    *,
    name: str = "encoder",
    **options: Any,
) -> keras.Model:
    """``q(z|x, y)`` from any encoder of this package.

    The class ``y`` comes in as one more channel of the image, a learned picture for each class, so
    that every layer sees it.

    Args:
        make: `conv_encoder` or another of this package's encoders.
        image_shape: (height, width, channels), without the additional channel.
        latent_dim: number of latent dimensions.
        num_classes: ``K``.
        name: of the model.
        **options: of `make`, the `prior` among them.

    Returns:
        A model of two inputs: images, shape (B, height, width, channels), and labels as vectors of
        zeros and a one, shape (B, K), which `VAE` makes of integers.

    Raises:
        ValueError: `num_classes` below 1, and as `make`.

    Source: the conditional VAE of Kingma et al. 2014, arXiv:1406.5298 (its M2), and of Sohn et al.
    2015.

    Example:
        >>> from tfp_vae import VAE, networks, priors
        >>> shape, prior = (28, 28, 1), priors.StandardNormal(2)
        >>> vae = VAE(
        ...     networks.conditional_encoder(networks.dense_encoder, shape, 2, 10, prior=prior),
        ...     networks.conditional_decoder(networks.dense_decoder, shape, 2, 10))
        >>> vae.sample(3, labels=[7, 8, 9], seed=0).shape
        TensorShape([3, 28, 28, 1])
    """
    height, width, channels = heads.image_shape(image_shape)
    images, labels = keras.Input((height, width, channels)), _labels(num_classes)
    plane = keras.layers.Dense(height * width, use_bias=False, name="label_plane")(labels)
    plane = keras.layers.Reshape((height, width, 1))(plane)
    joined = keras.layers.Concatenate(name="with_label")([images, plane])
    body = make((height, width, channels + 1), latent_dim, name=f"{name}_body", **options)
    return keras.Model([images, labels], body(joined), name=name)


def conditional_decoder(
    make: Callable[..., keras.Model],
    image_shape: Sequence[int],
    latent_dim: int,
    num_classes: int,
    *,
    name: str = "decoder",
    **options: Any,
) -> keras.Model:
    """``p(x|z, y)`` from any decoder of this package, whose first layer sees ``z`` and ``y``.

    Arguments, errors and source as in `conditional_encoder`; the inputs are latent vectors, shape
    (B, latent_dim), and labels, shape (B, K).
    """
    latent_dim = _support.check_positive_int("latent_dim", latent_dim)
    latents, labels = keras.Input((latent_dim,)), _labels(num_classes)
    joined = keras.layers.Concatenate(name="with_label")([latents, labels])
    body = make(image_shape, latent_dim + num_classes, name=f"{name}_body", **options)
    return keras.Model([latents, labels], body(joined), name=name)


def _labels(num_classes: int) -> keras.KerasTensor:
    return keras.Input((_support.check_positive_int("num_classes", num_classes),), name="labels")
