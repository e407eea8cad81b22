"""Named settings, one for each system that the project reproduces. Data, not code.

A recipe says everything that a training depends on; `tfp_vae.training` carries it out.
"""

import copy
import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["RECIPES", "Recipe", "RecipeError", "get"]


class RecipeError(ValueError):
    """An unknown recipe or setting, or a value of another kind. Says what was expected and got."""


def _named(name: str) -> Any:
    """The default of a field: ``{"name": name}``, a table of its own for each recipe."""
    return dataclasses.field(default_factory=lambda: {"name": name})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training depends on, as plain data that goes through JSON unchanged.

    Attributes:
        name: of the recipe.
        summary: one line.
        dataset: a name or a path, as for `datasets.load`.
        binarization: "threshold", "dynamic" or "none", as for `datasets.pipeline`.
        latent_dim: number of latent dimensions.
        encoder: ``{"network": NAME, ...}``: a function of `networks` and its arguments.
        decoder: likewise, the likelihood among the arguments.
        use_exact_kl: TFP's closed form of the KL, or its value at the draw that is decoded.
        kl_weight: the factor of the KL in the loss; the logged ELBO has 1.
        objective: ``{"name": NAME, ...}``: a class of `objectives` and its arguments. The
            `kl_weight` among them may be a warm-up, ``{"name": "LinearWarmUp", "steps": 3000}``.
        prior: ``{"name": NAME, ...}``: a class of `priors` and its arguments.
        conditional: whether encoder and decoder are told the class of each image, which the data
            must have.
        optimizer: ``{"name": NAME, ...}``: a class of `keras.optimizers`, or `FusedAdam` of
            `optimizers`, and its arguments. The learning rate may be a schedule,
            ``{"schedule": NAME, ...}``: a class of `keras.optimizers.schedules` and its arguments.
        dtype_policy: of Keras, of all layers: "float32" or "mixed_bfloat16". Densities are computed
            in float32 under both.
        batch_size: images in a step.
        epochs: how many times a look at the model follows: its figures, a picture, its files.
        passes: over the training images in each epoch. More than one for small networks, whose
            passes take less time than the look.
        seed: of weights, order, draws and the choice of validation images.
        validation_images: how many training images, at most a tenth of them, are held out to
            choose the best epoch, by their loss. Nothing is chosen by the test images.
        epoch_picture: what is drawn after each epoch: "samples", the decoder's means at 16 latent
            vectors fixed before training (of a learned prior: what it makes of fixed noise), or
            "reconstructions", those of 16 test images.
        pictures: what is drawn at the end, besides the history and the GIF.
        manifold_cells: on each side of the latent manifold.
        remark: what else a reader of the figures must know; see `remarks`.
    """

    name: str
    summary: str
    dataset: str
    binarization: str
    latent_dim: int
    encoder: Mapping[str, Any]
    decoder: Mapping[str, Any]
    use_exact_kl: bool
    kl_weight: float = 1.0
    objective: Mapping[str, Any] = _named("ELBO")
    prior: Mapping[str, Any] = _named("StandardNormal")
    conditional: bool = False
    optimizer: Mapping[str, Any]
    dtype_policy: str = "float32"
    batch_size: int
    epochs: int
    passes: int = 1
    seed: int = 0
    validation_images: int = 1000
    epoch_picture: str = "samples"
    pictures: tuple[str, ...] = ("reconstructions", "samples")
    manifold_cells: int = 20
    remark: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a dictionary for JSON: the inverse of `from_dict`."""
        return copy.deepcopy({**vars(self), "pictures": list(self.pictures)})

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Recipe":
        """The recipe of `to_dict`.

        Raises:
            RecipeError: a missing or unknown setting, or one of another kind.
        """
        if not isinstance(settings, Mapping):
            raise RecipeError(
                f"recipe: expected settings by their names, got {type(settings).__name__}."
            )
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in settings:
            check_known("setting", name, known)
        missing = [
            name
            for name, field in known.items()
            if field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            and name not in settings
        ]
        if missing:
            raise RecipeError(f"recipe: expected the settings {', '.join(missing)}, got none.")
        checked = {name: _checked(name, known[name].type, settings[name]) for name in settings}
        return cls(**checked)

    def replace(self, **settings: Any) -> "Recipe":
        """A recipe with other values.

        A part of a table is named with a dot, and a part of that with another one:
        ``recipe.replace(epochs=5, **{"optimizer.learning_rate.decay_steps": 9220})``.

        Raises:
            RecipeError: an unknown setting (the nearest name is suggested), or a value of another
                kind.
        """
        changed = self.to_dict()
        for name, value in settings.items():
            *wholes, part = name.split(".")
            check_known("setting", name.partition(".")[0], changed)
            table: Any = changed
            for whole in wholes:
                table = table.get(whole)
                if not isinstance(table, dict):
                    raise RecipeError(f"setting: {whole} has no parts, got {name!r}.")
            table[part] = value
        told = self.to_dict()
        other = {name for name in _DESCRIBED if changed[name] != told[name]}
        if other and changed["summary"] == self.summary:
            # Else the model's card would describe another one.
            summary, _, before = self.summary.partition(_BUT_FOR)
            known = {*other, *before.rstrip(")").split(", ")}
            names = [name for name in _DESCRIBED if name in known]
            changed["summary"] = f"{summary}{_BUT_FOR}{', '.join(names)})"
        return Recipe.from_dict(changed)

    def remarks(self) -> list[str]:
        """What a reader of the figures must know, by the settings that make it so."""
        likelihood = self.decoder.get("likelihood", "bernoulli")
        name = likelihood.get("name") if isinstance(likelihood, Mapping) else likelihood
        weights = self.kl_weight, self.objective.get("kl_weight")
        found = [self.remark] if self.remark else []
        if name in ("bernoulli", "autoregressive_bernoulli") and self.binarization == "none":
            found.append(_GREY)
        if name == "normal_fixed_scale":
            found.append("A density of pixels, of a fixed scale: compare it with no other scale's.")
        if str(name).startswith("quantized_logistic") and self.binarization == "none":
            found.append("A probability of 8-bit pixels.")
        if any(weight == 0 for weight in weights if not isinstance(weight, Mapping)):
            found.append("The KL is not in the loss: the ELBO is not what is trained.")
        return [text for i, text in enumerate(found) if not any(text in f for f in found[:i])]


def get(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        RecipeError: there is none; the nearest name is suggested.

    Example:
        >>> from tfp_vae import recipes
        >>> recipes.get("cvae-mnist-2d").replace(epochs=3).epochs
        3
    """
    check_known("recipe", name, RECIPES)
    return Recipe.from_dict(RECIPES[name].to_dict())  # a copy: the tables inside can be written to


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not among `known`.

    Raises:
        RecipeError: with `what` it should be; the nearest name is suggested.
    """
    known = list(known)
    if name in known:
        return
    nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise RecipeError(f"{what}: expected one of {', '.join(known)}, got {name!r}.{hint}")


def _checked(name: str, kind: Any, value: Any) -> Any:
    """`value` if it is of the field's kind, whole numbers serving as floats."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if name == "pictures" and isinstance(value, (list, tuple)):
        value = tuple(value)
        for picture in value:
            check_known("pictures", picture, PICTURES)
        return value
    expected = {Mapping[str, Any]: Mapping, tuple[str, ...]: tuple}.get(kind, kind)
    if not isinstance(value, expected) or (kind is int and isinstance(value, bool)):
        label = _KINDS[expected]
        raise RecipeError(f"{name}: expected {label}, got {value!r}.")
    if name == "seed" and isinstance(value, int) and value >= 2**32:
        raise RecipeError(f"seed: expected an integer below 2**32, got {value!r}.")
    lowest = _LOWEST.get(name, 0)
    if kind in (int, float) and not lowest <= value < float("inf"):
        raise RecipeError(f"{name}: expected at least {lowest}, got {value!r}.")
    if name in CHOICES:
        check_known(name, value, CHOICES[name])
    return dict(value) if isinstance(value, Mapping) else value


_BUT_FOR = " (but for "
# What a summary speaks of.
_DESCRIBED = (
    "dataset", "binarization", "latent_dim", "encoder", "decoder", "kl_weight", "objective",
    "prior", "conditional",
)  # fmt: skip
_LOWEST = dict.fromkeys(
    ("latent_dim", "batch_size", "epochs", "passes", "manifold_cells", "validation_images"), 1
)
_KINDS: dict[Any, str] = {
    Mapping: "a table",
    tuple: "a list",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
}
CHOICES = {
    "binarization": ("threshold", "dynamic", "none"),
    "dtype_policy": ("float32", "mixed_bfloat16"),
    "epoch_picture": ("samples", "reconstructions"),
}
PICTURES = (
    "manifold",
    "scatter",
    "reconstructions",
    "samples",
    "interpolation",
    "binarization",
    "classes",
)

_FLAT = ("manifold", "scatter", "reconstructions", "samples")  # of a latent plane

# TensorFlow's CVAE tutorial and what was made of it: the defaults of `networks`.
_CVAE: dict[str, Any] = {
    "dataset": "mnist",
    "binarization": "threshold",
    "encoder": {"network": "conv_encoder"},
    "decoder": {"network": "conv_decoder"},
    "use_exact_kl": False,
    "optimizer": {"name": "Adam", "learning_rate": 1e-4},
    "batch_size": 100,
    "epochs": 100,
}
_DENSE: dict[str, Any] = {
    "dataset": "mnist",
    "binarization": "none",
    "latent_dim": 10,
    "encoder": {"network": "dense_encoder", "units": [500, 200]},
    "decoder": {"network": "dense_decoder", "units": [200, 500]},
    "use_exact_kl": True,
    "optimizer": {"name": "Adam", "learning_rate": 1e-3},
    "batch_size": 100,
    "epochs": 50,
}


def _falling_rate(learning_rate: float, passes: int) -> dict[str, Any]:
    """Adam for dense networks, its rate falling to 0 as a cosine over so many passes."""
    schedule = {
        "schedule": "CosineDecay",
        "initial_learning_rate": learning_rate,
        "decay_steps": 590 * passes,  # batches of 100 of the 59,000 that are not for validation
    }
    return {"optimizer": {"name": "FusedAdam", "learning_rate": schedule}}


# Burda et al. 2016, arXiv:1509.00519, one stochastic layer.
_IWAE_PAPER: dict[str, Any] = {
    "dataset": "mnist",
    "binarization": "dynamic",
    "latent_dim": 50,
    "encoder": {"network": "dense_encoder", "units": [200, 200], "activation": "tanh"},
    "decoder": {"network": "dense_decoder", "units": [200, 200], "activation": "tanh"},
    "use_exact_kl": True,
    **_falling_rate(1e-3, 2000),
    "batch_size": 100,
    "epochs": 100,
    "passes": 20,
}
_GREY = (
    "The Bernoulli formula of grey pixels is a cross-entropy and no density: compare its figures "
    "with none of binary pixels."
)


def _conv(layer: str, filters: int, strides: int, padding: str) -> dict[str, Any]:
    return {
        "layer": layer,
        "filters": filters,
        "kernel_size": 3,
        "strides": strides,
        "padding": padding,
        "activation": "relu",
    }


_NORMALIZED: dict[str, Any] = {"layer": "BatchNormalization"}


def _dense(units: int) -> dict[str, Any]:
    return {"layer": "Dense", "units": units, "activation": "relu"}


#: By name, in the order of the table in the documentation. Read-only.
RECIPES: Mapping[str, Recipe] = types.MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="cvae-mnist-50d",
                summary="convolutional, 50 latents, binary MNIST: samples of 16 fixed vectors",
                latent_dim=50,
                **_CVAE,
            ),
            Recipe(
                name="cvae-mnist-2d",
                summary="convolutional, 2 latents, binary MNIST: the latent manifold",
                latent_dim=2,
                epoch_picture="reconstructions",
                pictures=_FLAT,
                **{**_CVAE, "batch_size": 32, "epochs": 10},
            ),
            Recipe(
                name="cvae-mnist-2d-long",
                summary="convolutional, 2 latents, binary MNIST, 100 epochs: digit to digit",
                latent_dim=2,
                epoch_picture="reconstructions",
                pictures=(*_FLAT, "interpolation"),
                **_CVAE,
            ),
            Recipe(
                name="cvae-mnist-conditional",
                summary="convolutional, told the class, 8 latents, binary MNIST",
                latent_dim=8,
                conditional=True,
                pictures=("classes", "reconstructions"),
                **{
                    **_CVAE,
                    "optimizer": {"name": "Adam", "learning_rate": 1e-3},
                    "epochs": 10,
                },
            ),
            Recipe(
                name="cvae-mnist-saved",
                summary="convolutional, 50 latents: best encoder and decoder kept and used again",
                latent_dim=50,
                pictures=("reconstructions", "samples", "binarization"),
                **_CVAE,
            ),
            Recipe(
                name="mlp-fashion-2d",
                summary="dense 256, 2 latents, grey Fashion-MNIST, exact KL",
                pictures=_FLAT,
                manifold_cells=15,
                **{
                    **_DENSE,
                    "dataset": "fashion_mnist",
                    "latent_dim": 2,
                    "encoder": {"network": "dense_encoder", "units": [256]},
                    "decoder": {"network": "dense_decoder", "units": [256]},
                },
            ),
            Recipe(
                name="conv-fashion-2d",
                summary="convolutional with batch normalization, 2 latents, grey Fashion-MNIST",
                pictures=_FLAT,
                manifold_cells=15,
                **{
                    **_DENSE,
                    "dataset": "fashion_mnist",
                    "latent_dim": 2,
                    "epochs": 15,
                    "encoder": {
                        "network": "layered_encoder",
                        "body": [
                            _conv("Conv2D", 32, 2, "same"),
                            _NORMALIZED,
                            _conv("Conv2D", 32, 2, "same"),
                            _NORMALIZED,
                            {"layer": "Flatten"},
                            _dense(128),
                        ],
                    },
                    "decoder": {
                        "network": "layered_decoder",
                        "body": [
                            _dense(128),
                            _dense(32 * 7 * 7),
                            {"layer": "Reshape", "target_shape": [7, 7, 32]},
                            _conv("Conv2DTranspose", 32, 2, "same"),
                            _NORMALIZED,
                            _conv("Conv2DTranspose", 32, 1, "same"),
                            _NORMALIZED,
                            _conv("Conv2DTranspose", 32, 2, "valid"),
                            _NORMALIZED,
                            {"layer": "Conv2D", "filters": 1, "kernel_size": 2},
                        ],
                    },
                },
            ),
            Recipe(
                name="mlp-mnist",
                summary="dense 500-200, 10 latents, grey MNIST, Bernoulli likelihood",
                **_DENSE,
            ),
            Recipe(
                name="mlp-mnist-gaussian",
                summary="dense 500-200, 10 latents, grey MNIST, Gaussian likelihood of scale 1",
                **{
                    **_DENSE,
                    "decoder": {**_DENSE["decoder"], "likelihood": "normal_fixed_scale"},
                },
            ),
            Recipe(
                name="ae-mnist",
                summary="dense 500-200, 2 latents, grey MNIST, KL weight 0: a plain autoencoder",
                kl_weight=0.0,
                pictures=_FLAT,
                **{**_DENSE, "latent_dim": 2, "epochs": 10},
            ),
            Recipe(
                name="cvae-mnist-512",
                summary="cvae-mnist-2d with 512 filters in each convolution; hours on two cores",
                latent_dim=2,
                epoch_picture="reconstructions",
                pictures=_FLAT,
                **{
                    **_CVAE,
                    "encoder": {"network": "conv_encoder", "filters": [512, 512]},
                    "decoder": {"network": "conv_decoder", "filters": [512, 512]},
                    "batch_size": 32,
                    "epochs": 10,
                },
            ),
            Recipe(
                name="cvae-cifar10",
                summary="convolutional, 128 latents, colour CIFAR-10, quantized logistic pixels",
                latent_dim=128,
                **{
                    **_CVAE,
                    "dataset": "cifar10",
                    "binarization": "none",
                    "decoder": {"network": "conv_decoder", "likelihood": "quantized_logistic"},
                    "epochs": 50,
                },
            ),
            Recipe(
                name="iwae-paper-vae",
                summary="the IWAE paper's dense network, 50 latents, dynamic MNIST, its VAE",
                **_IWAE_PAPER,
            ),
            Recipe(
                name="iwae-paper-iwae-50",
                summary="the IWAE paper's dense network, dynamic MNIST, the bound of 50 samples",
                objective={"name": "IWAE", "num_samples": 50, "gradient": "dreg"},
                **{**_IWAE_PAPER, **_falling_rate(2e-3, 300), "epochs": 30, "passes": 10},
            ),
            Recipe(
                name="residual-mnist",
                summary="residual networks, IAF posterior, flow prior, 32 latents, dynamic MNIST",
                dataset="mnist",
                binarization="dynamic",
                latent_dim=32,
                encoder={
                    "network": "residual_encoder",
                    "posterior": {
                        "name": "iaf",
                        "num_flows": 4,
                        "units": [960],
                        "context_size": 64,
                    },
                },
                decoder={"network": "residual_decoder"},
                prior={"name": "AutoregressiveFlow", "num_flows": 4, "units": [256]},
                use_exact_kl=False,
                objective={"name": "ELBO", "kl_weight": {"name": "LinearWarmUp", "steps": 5000}},
                optimizer={
                    "name": "Adam",
                    "learning_rate": {
                        "schedule": "CosineDecay",
                        "initial_learning_rate": 1e-5,
                        "warmup_target": 1.5e-3,
                        "warmup_steps": 2000,
                        "decay_steps": 461 * 128 - 2000,  # 461 batches in each of 128 passes
                    },
                    "global_clipnorm": 100.0,
                },
                batch_size=128,
                epochs=32,
                passes=4,
            ),
            Recipe(
                name="autoregressive-mnist",
                summary="residual networks, IAF, flow prior, pixels that see the ones before them",
                dataset="mnist",
                binarization="dynamic",
                latent_dim=32,
                encoder={
                    "network": "residual_encoder",
                    "blocks": [1, 1],
                    "posterior": {
                        "name": "iaf",
                        "num_flows": 4,
                        "units": [480],
                        "context_size": 64,
                    },
                },
                decoder={
                    "network": "residual_decoder",
                    "likelihood": {"name": "autoregressive_bernoulli", "units": 32, "radius": 4},
                },
                prior={"name": "AutoregressiveFlow", "num_flows": 4, "units": [256]},
                use_exact_kl=False,
                objective={"name": "ELBO", "kl_weight": {"name": "LinearWarmUp", "steps": 3000}},
                optimizer={
                    "name": "FusedAdam",
                    "learning_rate": {
                        "schedule": "CosineDecay",
                        "initial_learning_rate": 1e-5,
                        "warmup_target": 1.5e-3,
                        "warmup_steps": 1000,
                        "decay_steps": 461 * 64 - 1000,  # 461 batches in each of 64 passes
                    },
                    "global_clipnorm": 100.0,
                },
                batch_size=128,
                epochs=32,
                passes=2,
            ),
        )
    }
)
