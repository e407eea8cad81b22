"""Grids of images: given images, draws of the prior, reconstructions, interpolations."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_vae import _support
from tfp_vae.plotting.common import (
    SAVED_DPI,
    WIDE,
    check_model,
    image_figure,
    tile,
    with_channels,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE = "0.8"  # grey of the lines between images: not that of an untrained decoder's 0.5
_HIDDEN = (0.93, 0.6, 0.2)  # orange: neither a pixel of a grey image nor near one
_LETTERS = 11  # of a title, in an inch
_MOST_COLUMNS = 20  # of what is shown in pairs of rows, and of labels below a row
_BLANK = 1.0  # cells of a grid without an image: the white of the page


def image_grid(
    images: Any,
    rows: int | None = None,
    columns: int | None = None,
    *,
    title: str | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
) -> "Figure":
    """Images row by row from the upper left, with thin lines between them.

    Args:
        images: shape (N, height, width, channels) or (N, height, width); 1 channel is shown in
            grey, 3 as RGB. Either 8-bit, or floats in [0, 1]; other floats are clipped.
        rows: by default as many as the images need.
        columns: by default as many as make the grid nearly square.
        title: above the grid.
        row_labels: one for each row, to the left of it.
        column_labels: one for each column, below it.

    Raises:
        ValueError: no images, more images than cells, or a wrong number of channels or labels.

    Example:
        >>> import numpy as np
        >>> figure = image_grid(np.zeros([12, 28, 28, 1]), columns=4, title="nothing")
        >>> figure.axes[0].get_images()[0].get_array().shape  # 3 * 28 and 4 * 28
        (84, 112)
    """
    images = _displayable(images)
    count = len(images)
    if not count:
        raise ValueError("images: expected at least one, got none.")
    for name, size in (("rows", rows), ("columns", columns)):
        if size is not None:
            _support.check_positive_int(name, size)
    if columns is None:
        columns = math.ceil(math.sqrt(count) if rows is None else count / rows)
    if rows is None:
        rows = math.ceil(count / columns)
    if count > rows * columns:
        raise ValueError(
            f"images: expected at most {rows * columns} for {rows} rows of {columns}, got {count}."
        )
    for name, labels, size in (
        ("row_labels", row_labels, rows),
        ("column_labels", column_labels, columns),
    ):
        if labels is not None and len(labels) != size:
            raise ValueError(f"{name}: expected {size}, got {len(labels)}.")

    blank = np.full((rows * columns - count, *images.shape[1:]), _BLANK, images.dtype)
    image = tile(np.concatenate([images, blank]), rows, columns)
    margin = (1.1 if row_labels else 0.15, (0.35 if title else 0.1) + (0.3 if column_labels else 0))
    # No cell wider than the 1.6 inches of a 4×4 grid, and none of fewer pixels than its image has.
    side = max(min(WIDE * 0.8, 1.6 * max(rows, columns)), max(image.shape[:2]) / SAVED_DPI)
    figure, axes = image_figure(image, rows, columns, side=side, margin=margin)
    axes.hlines(range(1, rows), 0, columns, colors=_LINE, linewidth=1)
    axes.vlines(range(1, columns), 0, rows, colors=_LINE, linewidth=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if row_labels is not None:
        axes.set_yticks(rows - 0.5 - np.arange(rows), row_labels)
    if column_labels is not None:
        axes.set_xticks(0.5 + np.arange(columns), column_labels)
    if title:
        axes.set_title(textwrap.fill(title, max(20, int(_LETTERS * figure.get_figwidth()))))
    return figure


def samples(
    vae: Any, rows: int = 4, columns: int = 4, *, seed: Any = 0, title: str | None = None
) -> "Figure":
    """Decoder means at draws from the prior: the mean of ``p(x|z)``, ``z ~ p(z)``.

    For a conditional model the classes are shown in turn.

    Args:
        vae: a `VAE`, or images to show as they are, shape (N, height, width, channels).
        rows: rows of the grid.
        columns: columns of the grid.
        seed: of the draws; `None` takes the model's own stream.
        title: by default none.

    Raises:
        ValueError: a size below 1, or more images than the grid has cells.
    """
    count = _support.check_positive_int("rows", rows) * _support.check_positive_int(
        "columns", columns
    )
    if hasattr(vae, "decode"):
        check_model(vae)
        classes = vae.num_classes
        labels = None if classes is None else np.arange(count) % classes
        vae = vae.sample(count, seed=seed, mean=True, labels=labels)
    return image_grid(vae, rows, columns, title=title)


def classes(
    vae: Any,
    styles: int = 10,
    *,
    seed: Any = 0,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
) -> "Figure":
    """Classes by styles: decoder means of a conditional model, one ``z ~ p(z)`` in each row.

    A row shows the mean of ``p(x|z, y)`` of every class ``y`` at the same ``z``: what the latent
    variables describe when the class is given (Kingma et al. 2014, arXiv:1406.5298, figure 1).

    Args:
        vae: a conditional `VAE`.
        styles: number of rows.
        seed: of the draws of ``z``.
        class_names: below the columns; by default the numbers of the classes.
        title: by default none.

    Raises:
        ValueError: `styles` below 1, a number of names that is not that of the classes, or a model
            without labels.
    """
    check_model(vae)
    count = vae.num_classes
    if count is None:
        raise ValueError("classes: expected a conditional model, got one without labels.")
    _support.check_positive_int("styles", styles)
    names = [str(name) for name in (range(count) if class_names is None else class_names)]
    seed = _support.stateless_seed(seed, vae.seed_generator)
    z = np.repeat(vae.prior().sample(styles, seed=seed)[:, np.newaxis], count, 1)
    means = np.asarray(vae.decode((z, np.arange(count))).mean())
    images = means.reshape(-1, *means.shape[2:])
    return image_grid(images, styles, count, title=title, column_labels=names)


def reconstructions(vae: Any, x: Any, n: int = 10, *, title: str | None = None) -> "Figure":
    """The first `n` images above, their reconstructions by `VAE.reconstruct` below.

    More than 20 are shown in several such pairs of rows.

    Args:
        vae: a `VAE`.
        x: images, shape (B, height, width, channels), or a pair of images and labels; all are used
            if there are fewer than `n`.
        n: number of images.
        title: by default none.

    Raises:
        ValueError: no images, images of another shape or type, or `n` below 1.
    """
    check_model(vae)
    x = _support.take(x, slice(_support.check_positive_int("n", n)))
    images, _ = _support.split_labels(x)
    pairs = [_displayable(images), _displayable(vae.reconstruct(x))]
    count, columns = len(pairs[0]), min(len(pairs[0]), _MOST_COLUMNS)
    blank = np.full((-count % columns, *pairs[0].shape[1:]), _BLANK, np.float32)
    rows = [
        np.concatenate([images, blank]).reshape(-1, columns, *blank.shape[1:]) for images in pairs
    ]
    both = np.stack(rows, 1).reshape(-1, *blank.shape[1:])
    labels = ["original", "reconstruction"] * len(rows[0])
    return image_grid(both, len(labels), columns, title=title, row_labels=labels)


def binarization(vae: Any, image: Any, binary: Any, *, title: str | None = None) -> "Figure":
    """One image in four states: above grey and binary, below the reconstruction of the binary one.

    The lower row shows the probabilities ``p(x = 1|z)`` at the posterior's mean, and the same
    thresholded at one half.

    Args:
        vae: a `VAE` with a likelihood of binary pixels.
        image: grey, shape (height, width, channels).
        binary: the binarized image, the same shape.
        title: by default none.

    Raises:
        ValueError: images of another shape or type.
    """
    check_model(vae)
    image, binary = np.asarray(image)[np.newaxis], np.asarray(binary)[np.newaxis]
    probabilities = np.asarray(vae.reconstruct(binary))
    four = np.concatenate([image, binary, probabilities, (probabilities >= 0.5).astype("float32")])
    return image_grid(
        four,
        2,
        2,
        title=title,
        row_labels=["test image", "reconstruction"],
        column_labels=["grey", "binary"],
    )


def imputations(
    x: Any,
    mask: Any,
    imputation: Any,
    n: int = 10,
    *,
    draws: int = 4,
    others: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> "Figure":
    """The results of `VAE.impute` for the first `n` images, one in each column.

    The rows are the originals, unless `x` holds NaN; the observed pixels, with the hidden ones in
    orange; draws; the mean; and `others`.

    Args:
        x: images, shape (B, height, width, channels); all are used if there are fewer than `n`.
        mask: True where a pixel was observed, as in `VAE.impute`.
        imputation: what `VAE.impute` returned.
        n: number of columns.
        draws: the largest number of rows with draws.
        others: further rows to compare with: names, each with images in the shape of `x`.
        title: by default none.

    Raises:
        TypeError: `imputation` is something else.
        ValueError: images of different shapes, a wrong mask, or a number below 1.
    """
    if not (hasattr(imputation, "samples") and hasattr(imputation, "mean")):
        raise TypeError(
            f"imputation: expected what VAE.impute returns, got {type(imputation).__name__}."
        )
    n, draws = _support.check_positive_int("n", n), _support.check_positive_int("draws", draws)
    x = np.asarray(x)
    mask = _support.check_mask(mask, x.shape)
    samples = np.asarray(imputation.samples)[:draws]
    rows = {"original": x} if np.isfinite(x).all() else {}
    rows["seen"] = np.where(mask, x, 0)
    rows |= {f"draw {i + 1}": sample for i, sample in enumerate(samples)}
    rows |= {"mean": np.asarray(imputation.mean), **(others or {})}
    for name, images in rows.items():
        if np.shape(images) != x.shape:
            raise ValueError(
                f"{name}: expected images of the shape {x.shape} of x, got {np.shape(images)}."
            )
    shown = {name: _in_colour(_displayable(images)[:n]) for name, images in rows.items()}
    hidden = ~with_channels(mask[:n]).all(-1)
    shown["seen"][hidden] = _HIDDEN
    labels = list(shown)
    return image_grid(
        np.concatenate(list(shown.values())), len(shown), title=title, row_labels=labels
    )


def interpolation(
    vae: Any, a: Any, b: Any, steps: int = 10, *, title: str | None = None
) -> "Figure":
    """The images of `VAE.interpolate`: from `a`, on the left, to `b`, on the right.

    Args:
        vae: a `VAE`.
        a: one image, or B images, one for each row.
        b: as `a`.
        steps: images in a row, both ends included.
        title: by default none.

    Raises:
        ValueError: different numbers of images in `a` and `b`, or `steps` below 2.
    """
    check_model(vae)
    images = np.asarray(vae.interpolate(a, b, steps))
    images = images.reshape(-1, *images.shape[-len(vae.image_shape) :])
    every = math.ceil(steps / _MOST_COLUMNS)  # of many, which would run into one another
    labels = [
        "" if i % every else f"{100 * t:.0f}%" for i, t in enumerate(np.linspace(0, 1, steps))
    ]
    return image_grid(images, columns=steps, title=title, column_labels=labels)


def _in_colour(images: np.ndarray) -> np.ndarray:
    """Shape (N, height, width, 3), from grey or colour images."""
    return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images


def _displayable(images: Any) -> np.ndarray:
    """Images of shape (N, height, width, channels), float32 in [0, 1]."""
    images = np.asarray(images)
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    return np.clip(with_channels(images).astype(np.float32) / scale, 0, 1)
