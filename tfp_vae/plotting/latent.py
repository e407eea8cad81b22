"""The latent space: images decoded from it, and where the encoder puts images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_vae import _support, priors
from tfp_vae.plotting.common import WIDE, check_model, decimals, image_figure, tile, with_channels

if TYPE_CHECKING:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure


def latent_manifold_array(
    vae: Any, n: int = 20, *, low: float = 0.05, high: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The image of `latent_manifold` and the latent values of its cells.

    The cell in row ``r`` (from the top) and column ``c`` is the mean of ``p(x|z)`` at
    ``z = (quantiles[c, 0], quantiles[n - 1 - r, 1])``. All cells are decoded in one batch.

    Args:
        vae: a `VAE` with 2 latent dimensions.
        n: cells on each side.
        low: probability of the first cell's quantile.
        high: probability of the last cell's quantile.

    Returns:
        The tiled means, shape (n * height, n * width, channels), and the quantiles of each latent
        dimension at ``linspace(low, high, n)``, shape (n, 2), increasing.

    Raises:
        ValueError: not 2 latent dimensions, ``n < 2``, or not ``0 < low < high < 1``.
    """
    check_model(vae)
    if _support.check_positive_int("n", n) < 2:
        raise ValueError(f"n: expected an integer of at least 2, got {n}.")
    if not 0 < low < high < 1:
        raise ValueError(f"low, high: expected 0 < low < high < 1, got low={low}, high={high}.")
    if vae.latent_dim != 2:
        raise ValueError(
            f"latent_manifold: expected a model with 2 latent dimensions, got {vae.latent_dim}."
        )
    quantiles = priors.marginal_quantiles(vae.prior(), np.linspace(low, high, n))
    # Rows run downwards and z[1] upwards: the first row has its largest value.
    z0, z1 = np.meshgrid(quantiles[:, 0], quantiles[::-1, 1])
    means = np.asarray(vae.decode(np.stack([z0, z1], -1).reshape(n * n, 2)).mean())
    return tile(with_channels(means), n, n), quantiles


def latent_manifold(
    vae: Any, n: int = 20, *, low: float = 0.05, high: float = 0.95, title: str | None = None
) -> "Figure":
    """Images decoded from a grid over a 2-D latent space, at the quantiles of the prior.

    ``z[0]`` grows from left to right, ``z[1]`` from bottom to top. The cells are equally spaced in
    probability, so each stands for an equal share of what the prior draws; the ticks show the
    latent values.

    Args:
        vae: a `VAE` with 2 latent dimensions.
        n: cells on each side.
        low: probability of the first cell's quantile.
        high: probability of the last cell's quantile.
        title: by default one that names the quantiles.

    Raises:
        ValueError: as `latent_manifold_array`.
    """
    image, quantiles = latent_manifold_array(vae, n, low=low, high=high)
    figure, axes = image_figure(image, n, n, side=WIDE, margin=(0.9, 0.9))
    ticks = np.unique(np.linspace(0, n - 1, min(n, 7)).round().astype(int))
    axes.set_xticks(ticks + 0.5, [decimals(value, 2) for value in quantiles[ticks, 0]])
    axes.set_yticks(ticks + 0.5, [decimals(value, 2) for value in quantiles[ticks, 1]])
    axes.set_xlabel("z[0]")
    axes.set_ylabel("z[1]")
    span = f"{100 * low:.4g}% to {100 * high:.4g}%"
    axes.set_title(title or f"Decoder means at the prior's quantiles, {span}")
    return figure


def latent_scatter(
    vae: Any,
    x: Any,
    labels: Any,
    *,
    class_names: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    batch_size: int = 1000,
    title: str | None = None,
) -> "Figure":
    """The posterior means of images in two latent dimensions, coloured by class.

    Args:
        vae: a `VAE`.
        x: images, shape (B, height, width, channels), or a pair of images and labels for the model.
        labels: the class of each image, shape (B,): integers, or names if no `class_names` are
            given.
        class_names: names of the classes 0, 1, ...; by default the labels themselves.
        dims: the latent dimensions on the x and the y axis.
        batch_size: images encoded at once.
        title: by default one that says what is shown.

    Raises:
        ValueError: no images, a number of labels that is not that of the images, labels that are
            neither integers nor names, fewer class names than classes, or latent dimensions that
            the model does not have.
    """
    check_model(vae)
    batch_size = _support.check_positive_int("batch_size", batch_size)
    labels = np.asarray(labels)
    count = _support.count(x)
    if not count:
        raise ValueError("x: expected at least one image, got none.")
    if labels.shape != (count,):
        raise ValueError(
            f"labels: expected one for each of the {count} images, got the shape {labels.shape}."
        )
    if len(dims) != 2 or not all(0 <= dim < vae.latent_dim for dim in dims):
        raise ValueError(
            f"dims: expected two of the {vae.latent_dim} latent dimensions, "
            f"0 to {vae.latent_dim - 1}, got {tuple(dims)}."
        )
    index, names = _classes(labels, class_names)
    means = np.concatenate([vae.encode(some).mean() for _, some in _support.pieces(x, batch_size)])

    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

    count = len(names)
    # A colour's band lies around its whole number, so that the ticks stand in the middle.
    colours: Any = {
        "cmap": _discrete_colours(count),
        "norm": BoundaryNorm(np.arange(count + 1) - 0.5, count),
    }
    figure = Figure(figsize=(7.4, 6.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(
        means[:, dims[0]],
        means[:, dims[1]],
        c=index,
        s=float(np.clip(6e4 / len(means), 4, 30)),
        alpha=0.7,
        linewidths=0,
        rasterized=True,  # ten thousand circles make a PDF that no viewer scrolls
        **colours,
    )
    # Not of the circles themselves, whose colours are see-through.
    bar = figure.colorbar(
        ScalarMappable(**colours), ax=axes, ticks=range(count), shrink=0.8, aspect=25
    )
    bar.ax.set_yticklabels(names)
    bar.ax.tick_params(length=0)
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"z[{dims[0]}]")
    axes.set_ylabel(f"z[{dims[1]}]")
    axes.set_title(title or f"Posterior means of {len(means):,} images")
    return figure


def _classes(
    labels: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, Sequence[str]]:
    """The colour number of each label, shape (B,), and the name of each colour."""
    if labels.dtype.kind not in ("iu" if class_names is not None else "iuUS"):
        raise ValueError(
            "labels: expected integers"
            f"{' that count the class_names' if class_names is not None else ' or names'}, got "
            f"{labels.dtype.name}."
        )
    if class_names is None:
        found, index = np.unique(labels, return_inverse=True)
        return index, [str(name) for name in found.tolist()]
    if labels.min() < 0:
        raise ValueError(f"labels: expected classes from 0 on, got {labels.min()}.")
    needed = int(labels.max()) + 1
    if len(class_names) < needed:
        raise ValueError(
            f"class_names: expected a name for each of {needed} classes, got {len(class_names)}."
        )
    return labels, list(class_names)


def _discrete_colours(count: int) -> "ListedColormap":
    """`count` colours, distinguishable up to 20."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    if count > 20:
        return ListedColormap(matplotlib.colormaps["turbo"](np.linspace(0, 1, count)))
    colours = matplotlib.colormaps["tab10" if count <= 10 else "tab20"]
    return ListedColormap(colours(range(count)))
