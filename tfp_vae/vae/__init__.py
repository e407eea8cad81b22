"""`VAE(keras.Model)`: joins encoder, decoder and prior."""

from tfp_vae.vae.model import VAE

__all__ = ["VAE"]
