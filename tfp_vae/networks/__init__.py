"""Encoders and decoders: Keras models that end in a distribution layer.

Shapes are (height, width, channels). Every function returns a built Keras model.
"""

from tfp_vae.networks.biased import Conv2D, Conv2DTranspose, Dense
from tfp_vae.networks.conditional import conditional_decoder, conditional_encoder
from tfp_vae.networks.conv import conv_decoder, conv_encoder
from tfp_vae.networks.dense import dense_decoder, dense_encoder
from tfp_vae.networks.layered import layered_decoder, layered_encoder
from tfp_vae.networks.residual import ResidualBlock, residual_decoder, residual_encoder

__all__ = [
    "Conv2D",
    "Conv2DTranspose",
    "Dense",
    "ResidualBlock",
    "conditional_decoder",
    "conditional_encoder",
    "conv_decoder",
    "conv_encoder",
    "dense_decoder",
    "dense_encoder",
    "layered_decoder",
    "layered_encoder",
    "residual_decoder",
    "residual_encoder",
]
