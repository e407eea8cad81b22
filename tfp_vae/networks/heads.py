"""What all networks share: their first and last layers, and the checks of their arguments."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras

from tfp_vae import _support, layers

#: The name of a likelihood, or its name and its arguments as plain data:
#: ``{"name": "normal_fixed_scale", "scale": 0.1}``.
Likelihood: TypeAlias = "str | Mapping[str, Any]"

POSTERIORS: dict[str, Any] = {
    "diagonal": layers.MultivariateNormalDiag,
    "full": layers.MultivariateNormalTriL,
}
LIKELIHOODS: dict[str, Any] = {
    "bernoulli": layers.IndependentBernoulli,
    "continuous_bernoulli": layers.IndependentContinuousBernoulli,
    "normal": layers.IndependentNormal,
    "normal_fixed_scale": layers.IndependentNormalFixedScale,
    "quantized_logistic": layers.IndependentQuantizedLogistic,
    "quantized_logistic_mixture": layers.IndependentQuantizedLogisticMixture,
}
# Of a likelihood's layer: what the network itself gives, and what is Keras' own.
_GIVEN = ("event_shape", "kwargs")


def image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if not isinstance(image_shape, (tuple, list)) or len(image_shape) != 3:
        raise ValueError(f"image_shape: expected (height, width, channels), got {image_shape!r}.")
    height, width, channels = (
        _support.check_positive_int("image_shape", size) for size in image_shape
    )
    return height, width, channels


def dense(units: Sequence[int], activation: str) -> list[keras.layers.Layer]:
    return [
        keras.layers.Dense(
            _support.check_positive_int("units", size), activation=activation, name=f"dense_{i}"
        )
        for i, size in enumerate(units)
    ]


def posterior_head(
    latent_dim: int, posterior: str, prior: Any, use_exact_kl: bool, kl_weight: float
) -> list[keras.layers.Layer]:
    _support.check_positive_int("latent_dim", latent_dim)
    if posterior not in POSTERIORS:
        raise ValueError(f"posterior: expected one of {', '.join(POSTERIORS)}, got {posterior!r}.")
    regularizer = None
    if prior is not None:
        regularizer = layers.KLDivergenceRegularizer(prior, use_exact_kl, kl_weight)
    layer = POSTERIORS[posterior]
    return [
        keras.layers.Dense(layer.params_size(latent_dim), name="parameters"),
        layer(latent_dim, activity_regularizer=regularizer, name="posterior"),
    ]


def likelihood_head(
    likelihood: Likelihood, image_shape: tuple[int, int, int]
) -> tuple[layers.DistributionLambda, int]:
    """The likelihood's layer, and how many parameters it takes for each number in the image."""
    arguments = dict(likelihood) if isinstance(likelihood, Mapping) else {"name": likelihood}
    name = arguments.pop("name", None)
    if name not in list(LIKELIHOODS):
        raise ValueError(f"likelihood: expected one of {', '.join(LIKELIHOODS)}, got {name!r}.")
    cls = LIKELIHOODS[name]
    allowed = [key for key in inspect.signature(cls).parameters if key not in _GIVEN]
    for argument in arguments:
        if argument not in allowed:
            raise ValueError(
                f"likelihood: expected arguments of {name!r} among {', '.join(allowed)}, got "
                f"{argument!r}."
            )
    try:
        layer = cls(image_shape, name="likelihood", **arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"likelihood {name!r}: {error}") from error
    return layer, layer.input_size // math.prod(image_shape)


def flat_parameters(image_shape: tuple[int, int, int], per_pixel: int) -> list[keras.layers.Layer]:
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
