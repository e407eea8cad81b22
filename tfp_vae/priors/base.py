"""What every prior is, and those without weights."""

import abc
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.layers import normals


class Prior(keras.layers.Layer, abc.ABC):
    """A layer that owns ``p(z)``: ``prior()`` is the distribution, its weights are the layer's.

    Subclasses set `latent_dim` or define `event_shape`, define `distribution` and `get_config`, and
    carry ``@keras.saving.register_keras_serializable(package=...)``.
    """

    latent_dim: int

    @abc.abstractmethod
    def distribution(self) -> tfd.Distribution:
        """``p(z)``, batch shape ()."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one latent vector."""
        return (self.latent_dim,)

    @property
    def bound(self) -> bool:
        """Whether `distribution` can be had: not of a prior that waits for `bind`."""
        return True

    def bind(self, encoder: keras.Model) -> None:
        """What a `VAE` tells its prior when it is made; of use to one that needs the encoder.

        Args:
            encoder: the encoder, which belongs to the model and not to the prior.
        """

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def __call__(self) -> tfd.Distribution:
        # Keras' own `__call__` wants an input, and a prior has none.
        return self.distribution()


@_support.register
class StandardNormal(Prior):
    """``p(z) = N(0, I)``, a `tfd.MultivariateNormalDiag` of event shape ``(latent_dim,)``.

    Args:
        latent_dim: number of latent dimensions.

    Raises:
        ValueError: `latent_dim` below 1.

    Example:
        >>> from tfp_vae import priors
        >>> float(priors.StandardNormal(2)().log_prob([0.0, 0.0]))  # -log(2 pi)
        -1.8378770351409912
    """

    def __init__(self, latent_dim: int, **kwargs: Any) -> None:
        self.latent_dim = _support.check_positive_int("latent_dim", latent_dim)
        super().__init__(**kwargs)
        self.build()

    def distribution(self) -> tfd.MultivariateNormalDiag:
        zeros = tf.zeros(self.latent_dim, self.variable_dtype)
        return normals.MultivariateNormalDiag(zeros, name="z")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "latent_dim": self.latent_dim}


@_support.register
class FixedPrior(Prior):
    """Any `tfd.Distribution` of constant parameters as the prior.

    Args:
        fixed: the distribution, batch shape (), one event dimension.

    Raises:
        TypeError: not a distribution, or a joint one of several parts.
        ValueError: a batch of distributions, an event that is no vector, variables among the
            parameters, float64 where Keras computes in float32; on saving, parameters that are
            not plain numbers.
    """

    def __init__(self, fixed: tfd.Distribution, **kwargs: Any) -> None:
        if not isinstance(fixed, tfd.Distribution):
            raise TypeError(f"prior: expected a tfd.Distribution, got {type(fixed).__name__}.")
        if not isinstance(fixed.event_shape, tf.TensorShape):
            raise TypeError(
                "prior: expected a distribution over vectors, got one over several parts, "
                f"{type(fixed).__name__}."
            )
        if fixed.batch_shape.rank != 0 or fixed.event_shape.rank != 1:
            raise ValueError(
                "prior: expected one distribution over vectors, batch shape () and event shape "
                f"(d,), got batch shape {tuple(fixed.batch_shape)} and event shape "
                f"{tuple(fixed.event_shape)}. tfd.Independent turns batch into event dimensions."
            )
        super().__init__(**kwargs)
        if fixed.dtype != self.variable_dtype:
            raise ValueError(
                f"prior: expected a distribution of {self.variable_dtype}, got one of "
                f"{tf.as_dtype(fixed.dtype).name}, which NumPy's numbers are by default."
            )
        _support.check_constant(fixed)
        self.fixed = fixed
        self.build()

    def distribution(self) -> tfd.Distribution:
        return self.fixed

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.fixed.event_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "fixed": _support.distribution_to_config(self.fixed)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FixedPrior":
        return cls(**{**config, "fixed": _support.distribution_from_config(config["fixed"])})


def get(prior: "Prior | tfd.Distribution") -> Prior:
    """`prior` itself, or a `FixedPrior` around a `tfd.Distribution` or what a function returns.

    Raises:
        TypeError: neither.
        ValueError: a function that reads variables, and as `FixedPrior`.
    """
    if isinstance(prior, Prior):
        return prior
    if callable(prior):
        with tf.GradientTape() as tape:
            prior = prior()
        if tape.watched_variables():
            raise ValueError(
                "prior: expected a function of constants, got one that reads the variable "
                f"{tape.watched_variables()[0].name!r}, of which only the present value would be "
                "kept. Make it a layer that derives from tfp_vae.priors.Prior."
            )
    if isinstance(prior, tfd.Distribution):
        return FixedPrior(prior)
    raise TypeError(
        "prior: expected a layer of tfp_vae.priors or a tfd.Distribution, got "
        f"{type(prior).__name__}."
    )
