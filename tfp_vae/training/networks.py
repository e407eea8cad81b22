"""From a recipe to a compiled model."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfp_vae import networks, priors
from tfp_vae.recipes import Recipe, RecipeError, check_known
from tfp_vae.vae import VAE


def build(recipe: Recipe, image_shape: Sequence[int]) -> VAE:
    """The model of a recipe for images of that shape, compiled.

    Weights are drawn from Keras' global stream: call ``keras.utils.set_random_seed`` before, as
    `train` does.

    Args:
        recipe: see `recipes.Recipe`.
        image_shape: (height, width, channels).

    Raises:
        RecipeError: an unknown network or optimizer, or arguments that it does not take.
        ValueError: networks that cannot serve this image shape.
    """
    prior = priors.StandardNormal(recipe.latent_dim)
    encoder = _network(
        "encoder",
        recipe.encoder,
        image_shape,
        recipe.latent_dim,
        prior=prior,
        use_exact_kl=recipe.use_exact_kl,
        kl_weight=recipe.kl_weight,
    )
    decoder = _network("decoder", recipe.decoder, image_shape, recipe.latent_dim)
    vae = VAE(encoder, decoder, prior, seed=recipe.seed)
    vae.compile(_optimizer(recipe.optimizer))
    return vae


def _network(part: str, spec: Mapping[str, Any], *args: Any, **kwargs: Any) -> keras.Model:
    spec = dict(spec)
    name = spec.pop("network", None)
    known = [network for network in networks.__all__ if network.endswith(part)]
    check_known(f"{part}.network", str(name), known)
    make = getattr(networks, name)
    allowed = [key for key in inspect.signature(make).parameters if key not in ("name", *kwargs)]
    _check_arguments(part, spec, allowed[2:])
    return make(*args, **spec, **kwargs)


def _optimizer(spec: Mapping[str, Any]) -> keras.optimizers.Optimizer:
    spec = dict(spec)
    rate = spec.get("learning_rate")
    if isinstance(rate, Mapping):
        schedules = keras.optimizers.schedules
        spec["learning_rate"] = _instance(
            "optimizer.learning_rate", "schedule", rate, schedules, schedules.LearningRateSchedule
        )
    elif isinstance(rate, (int, float)):
        if isinstance(rate, bool) or not 0 < rate < math.inf:
            raise RecipeError(f"optimizer.learning_rate: expected a number above 0, got {rate!r}.")
        spec["learning_rate"] = float(rate)
    return _instance("optimizer", "name", spec, keras.optimizers, keras.optimizers.Optimizer)


def _instance(setting: str, key: str, spec: Mapping[str, Any], module: Any, base: type) -> Any:
    """An object of the class that ``spec[key]`` names in a module of Keras."""
    arguments = dict(spec)
    name = arguments.pop(key, None)
    known = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base)]
    check_known(f"{setting}.{key}", str(name), known)
    cls = getattr(module, str(name))
    _check_arguments(setting, arguments, list(inspect.signature(cls).parameters))
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{setting}: {error}") from error


def _check_arguments(part: str, given: Mapping[str, Any], allowed: list[str]) -> None:
    for name in given:
        check_known(f"argument of {part}", name, allowed)
