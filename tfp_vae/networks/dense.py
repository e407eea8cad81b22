"""Dense encoders and decoders."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from tfp_vae import _support
from tfp_vae.networks import biased, heads


def dense_encoder(
    image_shape: Sequence[int],
    latent_dim: int,
    *,
    units: Sequence[int] = (256,),
    activation: str = "relu",
    prior: Any = None,
    use_exact_kl: bool = True,
    kl_weight: float = 1.0,
    posterior: heads.Spec = "diagonal",
    name: str = "encoder",
) -> keras.Sequential:
    """A dense ``q(z|x)``: the flattened image, a dense layer for each entry of `units`, the head.

    Mean and log-variance heads are one dense layer of twice the size, which has the same weights
    as two. Arguments and errors as in `conv_encoder`.
    """
    image_shape = heads.image_shape(image_shape)
    head = heads.posterior_head(latent_dim, posterior, prior, use_exact_kl, kl_weight)
    return keras.Sequential(
        [
            keras.Input(image_shape),
            heads.flatten(),
            *heads.dense(units, activation),
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
    likelihood: heads.Spec = "bernoulli",
    name: str = "decoder",
) -> keras.Sequential:
    """A dense ``p(x|z)``: a dense layer for each entry of `units`, then all pixels' parameters.

    Arguments and errors as in `conv_decoder`; any image size will do.
    """
    image_shape = heads.image_shape(image_shape)
    layer, per_pixel = heads.likelihood_head(likelihood, image_shape)
    return keras.Sequential(
        [
            keras.Input((_support.check_positive_int("latent_dim", latent_dim),)),
            *heads.dense(units, activation),
            biased.Dense(math.prod(image_shape) * per_pixel, name="parameters"),
            layer,
        ],
        name=name,
    )
