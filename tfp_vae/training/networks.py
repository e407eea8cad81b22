"""From a recipe to a compiled model."""

import inspect
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfp_vae import networks, objectives, optimizers, priors
from tfp_vae.recipes import Recipe, RecipeError, check_known
from tfp_vae.vae import VAE


def build(recipe: Recipe, image_shape: Sequence[int], num_classes: int | None = None) -> VAE:
    """The model of a recipe for images of that shape, compiled.

    Weights are drawn from Keras' global stream: call ``keras.utils.set_random_seed`` before, as
    `train` does.

    Args:
        recipe: see `recipes.Recipe`.
        image_shape: (height, width, channels).
        num_classes: of the images' labels, for a conditional recipe.

    Raises:
        RecipeError: an unknown network or optimizer, arguments that it does not take, or a
            conditional recipe without classes.
        ValueError: an unknown posterior or likelihood, or networks that cannot serve this image
            shape.
    """
    if recipe.conditional and num_classes is None:
        raise RecipeError("conditional: expected images with labels, got none.")
    classes = num_classes if recipe.conditional else None
    # A recipe is all that a training depends on, so the policy that is set outside is not asked.
    outside = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.dtype_policy)
    try:
        return _vae(recipe, image_shape, classes)
    finally:
        keras.config.set_dtype_policy(outside)


def _vae(recipe: Recipe, image_shape: Sequence[int], classes: int | None) -> VAE:
    prior = _prior(recipe, image_shape)
    encoder = _network(
        "encoder",
        recipe.encoder,
        image_shape,
        recipe.latent_dim,
        classes,
        prior=prior,
        use_exact_kl=recipe.use_exact_kl,
        kl_weight=recipe.kl_weight,
    )
    decoder = _network("decoder", recipe.decoder, image_shape, recipe.latent_dim, classes)
    vae = VAE(encoder, decoder, prior, seed=recipe.seed)
    vae.compile(_optimizer(recipe.optimizer), _objective(recipe.objective))
    return vae


def _prior(recipe: Recipe, image_shape: Sequence[int]) -> priors.Prior:
    # What the recipe says elsewhere, or the data do.
    given = {"latent_dim": recipe.latent_dim, "image_shape": tuple(image_shape)}
    return _instance("prior", "name", recipe.prior, priors, priors.Prior, given)


def _objective(spec: Mapping[str, Any]) -> objectives.Objective:
    spec = dict(spec)
    if isinstance(spec.get("kl_weight"), Mapping):
        spec["kl_weight"] = _instance(
            "objective.kl_weight", "name", spec["kl_weight"], objectives, objectives.WarmUp
        )
    return _instance("objective", "name", spec, objectives, objectives.Objective)


def _network(
    part: str,
    spec: Mapping[str, Any],
    image_shape: Sequence[int],
    latent_dim: int,
    num_classes: int | None,
    **kwargs: Any,
) -> keras.Model:
    spec = dict(spec)
    name = spec.pop("network", None)
    conditional = getattr(networks, f"conditional_{part}")
    known = [
        network
        for network in networks.__all__
        if network.endswith(part) and getattr(networks, network) is not conditional
    ]
    check_known(f"{part}.network", str(name), known)
    make = getattr(networks, name)
    allowed = [key for key in inspect.signature(make).parameters if key not in ("name", *kwargs)]
    _check_arguments(part, spec, allowed[2:])
    if num_classes is None:
        return make(image_shape, latent_dim, **spec, **kwargs)
    return conditional(make, image_shape, latent_dim, num_classes, **spec, **kwargs)


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
    bases = ("Optimizer", "MultiOptimizer", "LossScaleOptimizer")  # which take others, or are none
    known = types.SimpleNamespace(
        **{name: cls for name, cls in vars(keras.optimizers).items() if name not in bases},
        FusedAdam=optimizers.FusedAdam,
    )
    optimizer = _instance("optimizer", "name", spec, known, keras.optimizers.Optimizer)
    if optimizer.use_ema and not optimizer.ema_overwrite_frequency:
        raise RecipeError(
            "optimizer.use_ema: expected ema_overwrite_frequency with it, got none. Keras takes "
            "the averages after the last epoch alone, when the best model is already kept."
        )
    return optimizer


def _instance(
    setting: str,
    key: str,
    spec: Mapping[str, Any],
    module: Any,
    base: type,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """An object of the class that ``spec[key]`` names in a module.

    Of the arguments in `given`, which a recipe does not repeat, it gets those that it takes.
    """
    arguments = dict(spec)
    name = arguments.pop(key, None)
    known = [
        n
        for n, c in vars(module).items()
        if isinstance(c, type) and issubclass(c, base) and not inspect.isabstract(c)
    ]
    check_known(f"{setting}.{key}", str(name), known)
    cls = getattr(module, str(name))
    takes, given = list(inspect.signature(cls).parameters), given or {}
    _check_arguments(setting, arguments, [each for each in takes if each not in given])
    try:
        return cls(**{each: given[each] for each in takes if each in given}, **arguments)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{setting}: {error}") from error


def _check_arguments(part: str, given: Mapping[str, Any], allowed: list[str]) -> None:
    for name in given:
        check_known(f"argument of {part}", name, allowed)
