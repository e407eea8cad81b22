"""What all networks share: their first and last layers, and the checks of their arguments."""

import contextlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras

from tfp_vae import _support, layers
from tfp_vae.networks import biased

#: A posterior or likelihood by its name, or with arguments of its layer as plain data:
#: ``{"name": "normal_fixed_scale", "scale": 0.1}``, ``{"name": "iaf", "num_flows": 4}``.
Spec: TypeAlias = "str | Mapping[str, Any]"

POSTERIORS: dict[str, Any] = {
    "diagonal": layers.MultivariateNormalDiag,
    "full": layers.MultivariateNormalTriL,
    "iaf": layers.InverseAutoregressiveFlow,
}
LIKELIHOODS: dict[str, Any] = {
    "bernoulli": layers.IndependentBernoulli,
    "autoregressive_bernoulli": layers.AutoregressiveBernoulli,
    "continuous_bernoulli": layers.IndependentContinuousBernoulli,
    "normal": layers.IndependentNormal,
    "normal_fixed_scale": layers.IndependentNormalFixedScale,
    "quantized_logistic": layers.IndependentQuantizedLogistic,
    "quantized_logistic_mixture": layers.IndependentQuantizedLogisticMixture,
}
# Of a layer's arguments: what the network itself gives, and what is Keras' own.
_GIVEN = ("event_shape", "event_size", "activity_regularizer", "kwargs")


def image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if not isinstance(image_shape, (tuple, list)) or len(image_shape) != 3:
        raise ValueError(f"image_shape: expected (height, width, channels), got {image_shape!r}.")
    height, width, channels = (
        _support.check_positive_int("image_shape", size) for size in image_shape
    )
    return height, width, channels


def flatten() -> keras.layers.Layer:
    """Row by row, as the convolutions here are, whatever the `image_data_format` of Keras is."""
    return keras.layers.Flatten(data_format="channels_last")


def dense(units: Sequence[int], activation: str) -> list[keras.layers.Layer]:
    return [
        biased.Dense(size, activation=activation, name=f"dense_{i}")
        for i, size in enumerate(_support.check_sizes("units", units))
    ]


def posterior_head(
    latent_dim: int, posterior: Spec, prior: Any, use_exact_kl: bool, kl_weight: float
) -> list[keras.layers.Layer]:
    _support.check_positive_int("latent_dim", latent_dim)
    regularizer = None
    if prior is not None:
        regularizer = layers.KLDivergenceRegularizer(prior, use_exact_kl, kl_weight)
    elif not use_exact_kl or kl_weight != 1:
        raise ValueError(
            "use_exact_kl and kl_weight: expected a prior, with which the posterior's layer gets a "
            f"KLDivergenceRegularizer that holds them, got use_exact_kl={use_exact_kl!r} and "
            f"kl_weight={kl_weight!r} without one. Give prior=..., or give the first to VAE and "
            "the other to an objective."
        )
    cls, arguments = _looked_up("posterior", POSTERIORS, posterior)
    of_size = inspect.signature(cls.params_size).parameters
    size_arguments = {key: value for key, value in arguments.items() if key in of_size}
    with _naming("posterior", posterior):
        # In their order: Keras hands out seeds to layers as they are made, and a model's first
        # weights shall not depend on which of its last two layers that is.
        dense = biased.Dense(cls.params_size(latent_dim, **size_arguments), name="parameters")
        layer = cls(latent_dim, name="posterior", activity_regularizer=regularizer, **arguments)
    return [dense, layer]


def likelihood_head(
    likelihood: Spec, image_shape: tuple[int, int, int]
) -> tuple[layers.DistributionLambda, int]:
    """The likelihood's layer, and how many parameters it takes for each number in the image."""
    cls, arguments = _looked_up("likelihood", LIKELIHOODS, likelihood)
    with _naming("likelihood", likelihood):
        layer = cls(image_shape, name="likelihood", **arguments)
    return layer, _per_pixel(layer, image_shape)


def _per_pixel(layer: layers.DistributionLambda, image_shape: tuple[int, int, int]) -> int:
    return layer.input_size // math.prod(image_shape)


def _looked_up(kind: str, known: Mapping[str, Any], spec: Spec) -> tuple[Any, dict[str, Any]]:
    """The class that `spec` names, and the arguments for it."""
    arguments = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = arguments.pop("name", None)
    if name not in list(known):  # a list: what cannot be hashed is no name either
        raise ValueError(f"{kind}: expected one of {', '.join(known)}, got {name!r}.")
    cls = known[name]
    allowed = [key for key in inspect.signature(cls).parameters if key not in _GIVEN]
    for argument in arguments:
        if argument not in allowed:
            raise ValueError(
                f"{kind}: expected arguments of {name!r} among {', '.join(allowed)}, got "
                f"{argument!r}."
            )
    return cls, arguments


@contextlib.contextmanager
def _naming(kind: str, spec: Spec) -> Iterator[None]:
    """Errors inside name the part that they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name = spec.get("name") if isinstance(spec, Mapping) else spec
        raise ValueError(f"{kind} {name!r}: {error}") from error


def flat_parameters(
    image_shape: tuple[int, int, int], layer: layers.DistributionLambda
) -> list[keras.layers.Layer]:
    """From (height, width, per_pixel * channels) to the vector that the likelihood's layer takes.

    Most layers split it into as many equal parts as there are kinds of parameters.
    """
    height, width, channels = image_shape
    per_pixel = _per_pixel(layer, image_shape)
    if per_pixel == 1 or layer.parameters_by_pixel:
        return [flatten()]
    return [
        keras.layers.Reshape((height, width, per_pixel, channels)),
        keras.layers.Permute((3, 1, 2, 4)),
        flatten(),
    ]
