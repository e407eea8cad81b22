"""The pictures of a run: a quick one after each epoch, the careful ones at the end."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfp_vae import _files, _support, datasets, plotting, priors
from tfp_vae.recipes import PICTURES
from tfp_vae.training.folder import Run
from tfp_vae.vae import VAE

_ROWS = 4
_ENLARGED = 3  # each pixel of a small image is so many pixels of the picture


class EpochPictures:
    """4×4 decoder means of the same latent vectors, or of the same test images, in every epoch.

    Of a learned prior they are the vectors that it makes of the same noise.

    Written as pixels, without axes: a figure of matplotlib would cost more than an epoch of a
    small network.

    Args:
        run: whose recipe says which of the two.
        images: 16 test images or fewer, shape (n, height, width, channels), or a pair with labels.

    Attributes:
        seconds: spent so far.
    """

    def __init__(self, run: Run, images: Any) -> None:
        self.run, self.images = run, images
        generator = np.random.default_rng(run.recipe.seed)
        self.latents = generator.normal(size=(_ROWS**2, run.recipe.latent_dim)).astype("float32")
        self.seconds = 0.0

    def write(self, vae: VAE, epoch: int) -> None:
        start = time.perf_counter()
        if self.run.recipe.epoch_picture == "samples":
            z: Any = self._latents_of(vae)
            if vae.num_classes is not None:
                z = z, np.arange(len(z)) % vae.num_classes
            means = vae.decode(z).mean()
        else:
            means = vae.reconstruct(self.images, seed=self.run.recipe.seed, sample=True)
        path = self.run.folder / "pictures" / f"epoch-{epoch:04d}.png"
        with _files.whole_file(path) as temporary:
            plotting.write_image(_mosaic(np.asarray(means)), temporary)
        self.seconds += time.perf_counter() - start

    def _latents_of(self, vae: VAE) -> Any:
        if isinstance(vae.prior, priors.StandardNormal):
            return self.latents
        # The same noise through a learned prior: vectors fixed before it had learnt anything would
        # lie where it has no mass, and show what the model never draws.
        seed = _support.stateless_seed(self.run.recipe.seed, vae.seed_generator)
        return vae.prior().sample(len(self.latents), seed=seed)


def _mosaic(images: np.ndarray) -> np.ndarray:
    """(n, height, width, channels) in [0, 1] to one 8-bit picture with grey lines between."""
    images = np.clip(images, 0, 1)
    blank = np.ones((_ROWS**2 - len(images), *images.shape[1:]), images.dtype)
    images = (np.concatenate([images, blank]) * 255).round().astype(np.uint8)
    scale = _ENLARGED if images.shape[1] < 100 else 1
    images = images.repeat(scale, 1).repeat(scale, 2)
    framed = np.pad(images, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=204)
    _, height, width, channels = framed.shape
    grid = framed.reshape(_ROWS, _ROWS, height, width, channels).swapaxes(1, 2)
    return grid.reshape(_ROWS * height, _ROWS * width, channels)[:-1, :-1]


def write_final(
    run: Run,
    vae: VAE,
    data: datasets.ImageData,
    x_test: Any,
    history: dict[str, list[float]],
    latent: dict[str, list[float]],
    say: Any,
) -> list[str]:
    """The history, the GIF and the recipe's pictures; gives the names of the files."""
    title = f"{run.recipe.name}, {data.name}"
    figures: dict[str, Any] = {"history": plotting.history(history, title=title)}
    if "kl_0" in latent:
        figures["latent"] = draw_latent(latent, title)
    for name in run.recipe.pictures:
        problem = can_draw(name, vae, data)
        if problem:
            say(f"not drawn: {problem}")
        else:
            figures[name] = draw(
                name,
                vae,
                data,
                x_test,
                title=title,
                cells=run.recipe.manifold_cells,
                seed=run.recipe.seed,
            )
    for name, figure in figures.items():
        plotting.save(figure, run.folder / f"{name}.png")
    plotting.training_gif(run.pictures(), run.folder / "training.gif")
    return [*(f"{name}.png" for name in figures), "training.gif", "pictures/"]


def file_names() -> list[str]:
    """What a run writes, besides ``run.json`` and its lock."""
    models = [f"{name}.keras" for name in ("model", "last", "encoder", "decoder")]
    figures = [f"{name}.png" for name in (*PICTURES, "history", "latent")]
    tables = ["history.csv", "latent.csv", "metrics.json"]
    others = [*tables, "state.npz", "training.gif", "pictures", "logs"]
    return [*models, *figures, *others]


def draw_latent(latent: dict[str, list[float]], title: str) -> Any:
    """The columns of ``latent.csv`` as a figure.

    Raises:
        ValueError: there are none of the KL.
    """
    if "kl_0" not in latent:
        raise ValueError(
            "latent: expected the KL of each dimension in latent.csv, got none. The posterior's "
            "dimensions have no known density, or the file is missing: train --resume writes it "
            "again."
        )
    kl = np.column_stack([values for name, values in latent.items() if name[:3] == "kl_"])
    return plotting.kl_per_dimension(kl, latent["epoch"], title=title)


#: Of `recipes.PICTURES`, those of test images.
OF_IMAGES = tuple(name for name in PICTURES if name not in ("manifold", "samples", "classes"))


def can_draw(name: str, vae: VAE, data: datasets.ImageData | None) -> str | None:
    """Why one of `recipes.PICTURES` cannot be drawn; `None` where it can."""
    conditional = vae.num_classes is not None
    if name == "classes" and not conditional:
        return "classes: expected a conditional model, got one without labels."
    if name in ("manifold", "interpolation", "binarization") and conditional:
        return f"{name}: expected a model without labels, got a conditional one; see VAE.for_label."
    if name == "manifold" and vae.latent_dim != 2:
        return f"manifold: expected a model of 2 latent dimensions, got {vae.latent_dim}."
    if name == "interpolation" and data is not None and len(data.x_test) < 2:
        return f"interpolation: expected two test images, got {len(data.x_test)} in {data.name}."
    if name == "scatter" and vae.latent_dim < 2:
        return "scatter: expected a model of at least 2 latent dimensions, got 1."
    if name == "scatter" and data is not None and data.y_test is None:
        return f"scatter: expected images with labels, got none in {data.name}."
    return None


def draw(
    name: str,
    vae: VAE,
    data: datasets.ImageData | None = None,
    x_test: Any = None,
    *,
    title: str = "",
    cells: int = 20,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> Any:
    """One of `recipes.PICTURES` as a figure.

    Args:
        name: which.
        vae: the model.
        data: whose grey test images and labels are shown; "manifold", "samples" and "classes" need
            none.
        x_test: the test images as the model takes them, with labels if it is conditional.
        title: what the titles begin with.
        cells: on each side of the manifold.
        seed: of the samples.
        class_names: of the classes, where they are not those of `data`.

    Raises:
        ValueError: what `can_draw` says.
    """
    problem = can_draw(name, vae, data)
    if problem:
        raise ValueError(problem)

    def titled(text: str) -> str:
        return f"{title}: {text}" if title else text

    if name == "manifold":
        text = titled("decoder means at the prior's 5% to 95% quantiles")
        return plotting.latent_manifold(vae, cells, title=text)
    if name == "classes":
        text = titled("each row one draw of z, each column a class")
        names = data.class_names if data else class_names
        return plotting.classes(vae, seed=seed, class_names=names, title=text)
    if name == "samples":
        return plotting.samples(vae, seed=seed, title=titled("decoded draws of the prior"))
    if data is None or x_test is None:
        raise ValueError(f"{name}: expected test images, got none.")
    if name == "scatter":
        text = titled("posterior means of the test images")
        return plotting.latent_scatter(
            vae, x_test, data.y_test, class_names=data.class_names, title=text
        )
    if name == "reconstructions":
        return plotting.reconstructions(vae, x_test, title=titled("test images"))
    if name == "interpolation":
        pairs = min(5, len(x_test) // 2)
        a, b = x_test[:pairs], x_test[pairs : 2 * pairs]
        return plotting.interpolation(vae, a, b, title=titled("from test image to test image"))
    return plotting.binarization(vae, data.x_test[0], x_test[0], title=titled("a test image"))
