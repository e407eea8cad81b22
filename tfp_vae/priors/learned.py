"""Priors with weights, which are trained with the model."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.layers import FlowDistribution, normals
from tfp_vae.layers.autoregressive import alternating_networks, masked_flow
from tfp_vae.layers.base import call_apart
from tfp_vae.layers.distributions import positive_scale
from tfp_vae.priors.base import Prior


@_support.register
class GaussianMixture(Prior):
    """``p(z) = sum_k w_k N(z; mu_k, diag(s_k^2))`` with learned weights, means and scales.

    There is no closed form for the KL to it: use ``use_exact_kl=False``.

    Args:
        latent_dim: number of latent dimensions.
        num_components: number of Gaussians.
        seed: integer seed of the initial means, drawn from ``N(0, I)``.

    Raises:
        ValueError: a size below 1.

    Source: the mixture prior of Tomczak & Welling 2018, arXiv:1705.07120, section 2.
    """

    def __init__(
        self, latent_dim: int, num_components: int, *, seed: int | None = None, **kwargs: Any
    ) -> None:
        self.latent_dim = _support.check_positive_int("latent_dim", latent_dim)
        self.num_components = _support.check_positive_int("num_components", num_components)
        super().__init__(**kwargs)
        self.seed = seed
        shape = (self.num_components, self.latent_dim)
        # autocast=False: a density keeps float32 under a mixed precision policy.
        self.logits = self.add_weight(
            shape=(self.num_components,), initializer="zeros", name="logits", autocast=False
        )
        self.loc = self.add_weight(
            shape=shape,
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=seed),
            name="loc",
            autocast=False,
        )
        # softplus of it is 1: every component starts as wide as the standard normal.
        self.raw_scale = self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(math.log(math.e - 1)),
            name="raw_scale",
            autocast=False,
        )
        self.build()

    def distribution(self) -> tfd.MixtureSameFamily:
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=tf.convert_to_tensor(self.logits)),
            normals.MultivariateNormalDiag(
                tf.convert_to_tensor(self.loc),
                positive_scale(tf.convert_to_tensor(self.raw_scale)),
            ),
            name="z",
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_components": self.num_components,
            "seed": self.seed,
        }


@_support.register
class AutoregressiveFlow(Prior):
    """``p(z)`` as a masked autoregressive flow of a standard normal, with learned weights.

    ``z = f_1(... f_T(u))``, ``u ~ N(0, I)``, each step ``y_i = x_i exp(s_i(y)) + m_i(y)`` with
    shift ``m`` and log-scale ``s`` of an `layers.AutoregressiveNetwork`, in alternating order:

    ``log p(z) = log N(u; 0, I) - sum_t sum_i s_{t,i}``  (nats)

    The density of any point takes one pass of each network, which training needs; a draw takes
    ``latent_dim`` of them, one after the other (Papamakarios et al. 2017, arXiv:1705.07057). It
    begins near the standard normal. There is no closed form for the KL to it: use
    ``use_exact_kl=False``.

    Args:
        latent_dim: number of latent dimensions.
        num_flows: steps.
        units: hidden units of each step's network, layer by layer.
        seed: integer seed of the initial weights.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self,
        latent_dim: int,
        num_flows: int = 4,
        units: Sequence[int] = (128,),
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.latent_dim = _support.check_positive_int("latent_dim", latent_dim)
        super().__init__(**kwargs)
        self.num_flows = num_flows
        self.units = _support.check_sizes("units", units)
        self.seed = seed
        self.networks = alternating_networks(
            latent_dim, num_flows, units, seed=seed, dtype=self.dtype_policy
        )
        self.build()

    def distribution(self) -> FlowDistribution:
        return FlowDistribution(
            normals.MultivariateNormalDiag(tf.zeros(self.latent_dim, self.variable_dtype)),
            tfb.Chain([masked_flow(network) for network in self.networks]),
            name="z",
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "num_flows": self.num_flows,
            "units": list(self.units),
            "seed": self.seed,
        }


@_support.register
class VampPrior(Prior):
    """``p(z) = 1/K sum_k q(z|u_k)``: a mixture of posteriors of learned images ``u_k``.

    The pseudo-inputs ``u_k = sigmoid(v_k)`` lie in (0, 1), as pixels do. The encoder that makes
    ``q`` is the model's own: a `VAE` binds the prior to it when it is made, and owns it. The
    encoder works on the pseudo-inputs as on test images: batch normalization uses its moving
    averages, dropout is off. There is no closed form for the KL: use ``use_exact_kl=False``.

    With an inverse autoregressive posterior the density takes ``latent_dim`` passes of each
    network over all components.

    Args:
        latent_dim: number of latent dimensions, as of the encoder.
        image_shape: (height, width, channels).
        num_components: ``K``.
        initial_images: what the pseudo-inputs start from, in [0, 1]: K of them, shape
            (K, height, width, channels), or one for all, such as the mean of the training images;
            by default medium grey. Noise of standard deviation 0.1 goes on top of their logits,
            since components that are equal would stay equal. Not saved with the configuration:
            the trained pseudo-inputs are weights.
        seed: integer seed of that noise.

    Raises:
        ValueError: a size below 1, initial images of another shape or outside [0, 1]; on `bind`,
            an encoder of images of another shape, or a second encoder; on a call, no encoder.

    Source: Tomczak & Welling 2018, arXiv:1705.07120.
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        num_components: int = 500,
        *,
        initial_images: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.latent_dim = _support.check_positive_int("latent_dim", latent_dim)
        self.image_shape = tuple(_support.check_positive_int("image_shape", n) for n in image_shape)
        self.num_components = _support.check_positive_int("num_components", num_components)
        shape = (self.num_components, *self.image_shape)
        images = np.asarray(0.5 if initial_images is None else initial_images, "float64")
        one = initial_images is None or images.shape == self.image_shape
        if not one and images.shape != shape:
            raise ValueError(
                f"initial_images: expected the shape {shape} or {self.image_shape}, got "
                f"{images.shape}."
            )
        if not ((images >= 0) & (images <= 1)).all():
            raise ValueError(
                "initial_images: expected pixels in [0, 1], got values from "
                f"{images.min():g} to {images.max():g}."
            )
        # autocast=False, for the layer and its weight: see GaussianMixture.
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        # Black and white have infinite logits; those of 1% from them still have a gradient.
        images = np.clip(images, 0.01, 0.99)
        logits = np.broadcast_to(np.log(images / (1 - images)), shape)
        noise = keras.initializers.RandomNormal(stddev=0.1, seed=seed)
        self.pseudo_logits = self.add_weight(
            shape=shape,
            initializer=lambda shape, dtype: noise(shape, dtype) + tf.constant(logits, dtype),
            name="pseudo_logits",
            autocast=False,
        )
        self._posterior: functools.partial[tfd.Distribution] | None = None
        self.build()

    @property
    def bound(self) -> bool:
        return self._posterior is not None

    def bind(self, encoder: keras.Model) -> None:
        shape = getattr(encoder, "input_shape", None)
        if isinstance(shape, list):
            raise ValueError(
                "VampPrior: expected an encoder of images alone, got one of images and labels, "
                "which its pseudo-inputs do not have."
            )
        if isinstance(shape, tuple) and tuple(shape[1:]) != self.image_shape:
            raise ValueError(
                f"VampPrior: expected an encoder of images of shape {self.image_shape}, got one of "
                f"{tuple(shape[1:])}."
            )
        if self._posterior is not None and self._posterior.func is not encoder:
            raise ValueError(
                "VampPrior: expected one encoder, got a second. Each model needs its own prior."
            )
        # Inside a function, where Keras does not look: as an attribute the encoder would be saved
        # with the prior, which an encoder with a regularizer saves with itself.
        self._posterior = functools.partial(encoder, training=False)

    @property
    def pseudo_inputs(self) -> tf.Tensor:
        """The images ``u_k``, shape (num_components, height, width, channels)."""
        return tf.sigmoid(tf.convert_to_tensor(self.pseudo_logits))

    def distribution(self) -> tfd.MixtureSameFamily:
        if self._posterior is None:
            raise ValueError(
                "VampPrior: expected to be bound to an encoder, whose posteriors it is made of. "
                "VAE(encoder, decoder, prior) binds it."
            )
        # As a call of this layer: one of the encoder alone would clear the losses that it has
        # collected on the training images.
        posteriors = keras.layers.Layer.__call__(self, self.pseudo_inputs)
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=tf.zeros(self.num_components, posteriors.dtype)),
            posteriors,
            name="z",
        )

    def call(self, images: tf.Tensor) -> tfd.Distribution:
        assert self._posterior is not None
        with call_apart():
            return self._posterior(images)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "image_shape": list(self.image_shape),
            "num_components": self.num_components,
            "seed": self.seed,
        }
        config.pop("autocast", None)
        return config
