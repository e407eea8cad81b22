"""A training run: its logs, the use of its latent dimensions, and a GIF of its pictures."""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_vae._files import whole_file
from tfp_vae.plotting.common import decimals
from tfp_vae.plotting.files import figure_to_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = {
    "elbo": "ELBO",
    "reconstruction": "Reconstruction, E[log p(x|z)]",
    "kl": "KL(q(z|x) || p(z))",
}


def history(history: Any, *, title: str | None = None) -> "Figure":
    """The logs of `VAE.fit` in nats for each image, one panel for each of elbo, reconstruction, kl.

    Args:
        history: what `fit` returned, or a dictionary of its lists: ``elbo``, ``val_elbo``, ...
            Missing ones are left out. NaN stands for an epoch without a value.
        title: above the panels.

    Raises:
        TypeError: it is neither of these.
        ValueError: it has none of the known names, or two lists differ in length.
    """
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise TypeError(
            "history: expected what fit returned or a dictionary of lists, got "
            f"{type(history).__name__}."
        )
    panels = [name for name in _PANELS if logs.get(name) or logs.get(f"val_{name}")]
    if not panels:
        raise ValueError(
            f"history: expected at least one of {', '.join(_PANELS)}, got "
            f"{', '.join(map(str, logs)) or 'nothing'}."
        )
    curves = {
        (panel, split): np.asarray(logs[key], float)
        for panel in panels
        for split, key in (("training", panel), ("validation", f"val_{panel}"))
        if logs.get(key)
    }
    lengths = sorted({len(values) for values in curves.values()})
    if len(lengths) > 1:
        raise ValueError(
            f"history: expected lists of one length, got {' and '.join(map(str, lengths))} epochs. "
            "Put NaN where an epoch has no value, as with validation_freq."
        )
    epochs = np.arange(1, lengths[0] + 1)
    if len(getattr(history, "epoch", ())) == lengths[0]:
        epochs = np.asarray(history.epoch) + 1  # a resumed fit does not start at 1

    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for split, colour in (("training", "tab:blue"), ("validation", "tab:orange")):
            if (panel, split) not in curves:
                continue
            values = curves[panel, split]
            there = ~np.isnan(values)  # a line would break at each NaN
            last = f" (last {decimals(values[there][-1], 1)})" if there.any() else ""
            axes.plot(
                epochs[there],
                values[there],
                color=colour,
                marker="o" if len(epochs) <= 30 else None,
                markersize=4,
                label=split + last,
            )
        axes.set_title(_PANELS[panel])
        axes.set_xlabel("epoch")
        axes.set_ylabel("nats for each image")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def kl_per_dimension(kl: Any, epochs: Any = None, *, title: str | None = None) -> "Figure":
    """The KL of each latent dimension over the epochs, one row each, highest final KL on top.

    Rows that end dark are dimensions that the model does not use.

    Args:
        kl: ``E_x KL(q(z_j|x) || p(z_j))`` in nats, shape (epochs, d), as kept by
            `callbacks.LatentDiagnostics`.
        epochs: the numbers of the epochs, rising; by default from 1.
        title: by default none.

    Raises:
        ValueError: a wrong shape, no numbers, numbers that are not finite, or a wrong number of
            epochs.
    """
    kl = np.asarray(kl, float)
    if kl.ndim != 2 or not kl.size or not np.isfinite(kl).all():
        raise ValueError(
            f"kl: expected finite numbers of the shape (epochs, d), got the shape {kl.shape}"
            + (", with NaN or infinity." if kl.size and not np.isfinite(kl).all() else ".")
        )
    numbers = np.arange(1, len(kl) + 1) if epochs is None else np.asarray(epochs)
    if numbers.shape != kl.shape[:1] or (np.diff(numbers) <= 0).any():
        raise ValueError(f"epochs: expected {len(kl)} rising numbers, got {epochs!r}.")

    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = kl[:, np.argsort(-kl[-1], kind="stable")].T
    figure = Figure(figsize=(6.4, 1.7 + min(4.0, 0.3 * len(rows))), layout="constrained")
    axes = figure.subplots()
    # Each epoch's cells end at its number, so that epochs left out widen the next ones.
    edges = np.concatenate([[numbers[0] - 1], numbers]) + 0.5
    mesh = axes.pcolormesh(edges, np.arange(len(rows) + 1) + 0.5, rows, vmin=0)
    axes.invert_yaxis()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("dimension, by its KL")
    figure.colorbar(mesh, label="KL in nats")
    if title:
        figure.suptitle(title)
    return figure


def training_gif(
    frames: Iterable[Any],
    path: str | os.PathLike[str],
    *,
    fps: float = 4.0,
    hold: float = 2.0,
    thin: bool = True,
    dpi: float = 100,
) -> pathlib.Path:
    """Write a GIF that loops forever, made of one picture for each epoch.

    Early epochs change more than late ones, so the frames thin out with the square root of the
    epoch: frame ``i`` is kept if ``round(2 sqrt(i))`` is larger than at the previously kept frame,
    the rule of TensorFlow's CVAE tutorial. The first and the last are always kept.

    The file appears complete or not at all.

    Args:
        frames: one for each epoch: figures, paths of image files, or arrays of shape
            (height, width) or (height, width, channels) with 1, 3 or 4 channels, in 8 bits or
            floats in [0, 1]; other floats are clipped, a fourth channel is dropped.
        path: of the GIF; missing folders are created.
        fps: frames per second, at most 50. A GIF counts in hundredths of a second.
        hold: for how many seconds the last frame is held.
        thin: whether to drop frames as above; `False` keeps all.
        dpi: pixels per inch at which figures are drawn.

    Returns:
        The path.

    Raises:
        ValueError: no frames, frames of different sizes, an array that is no image, a path that
            does not end in ".gif", or times out of range.
        OSError: an image cannot be read or the file cannot be written; the path is named.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"path: expected one that ends in .gif, got {str(path)!r}.")
    if not 0 < fps <= 50:
        raise ValueError(f"fps: expected more than 0 and at most 50, got {fps}.")
    if not 0 < hold <= 600:
        raise ValueError(f"hold: expected more than 0 and at most 600 seconds, got {hold}.")
    frames = list(frames)
    if not frames:
        raise ValueError("frames: expected at least one, got none.")
    kept = _thinned(len(frames)) if thin else range(len(frames))
    pictures = [_frame(i, frames[i], dpi) for i in kept]
    for i, picture in zip(kept, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            (height, width), (h, w) = pictures[0].shape[:2], picture.shape[:2]
            raise ValueError(
                f"frames: expected all to have the size of the first, {height}×{width}, got "
                f"{h}×{w} at frame {i}."
            )
    stack = np.stack(pictures)

    import imageio.v3 as iio

    milliseconds: Any = [_hundredths(1 / fps)] * (len(pictures) - 1) + [_hundredths(hold)]
    if len(pictures) == 1:
        (milliseconds,) = milliseconds  # Pillow takes no list for one frame
    with whole_file(path) as temporary:
        iio.imwrite(temporary, stack, plugin="pillow", is_batch=True, duration=milliseconds, loop=0)
    return path


def _thinned(count: int) -> list[int]:
    """The frames out of `count` that `training_gif` keeps."""
    steps = [round(2 * math.sqrt(i)) for i in range(count)]
    kept = [i for i in range(count) if i == 0 or steps[i] > steps[i - 1]]
    return kept if kept[-1] == count - 1 else [*kept, count - 1]


def _hundredths(seconds: float) -> int:
    """Milliseconds: whole hundredths of a second, and at least two of them.

    Browsers stretch anything shorter to a tenth of a second.
    """
    return 10 * max(2, round(100 * seconds))


def _frame(i: int, frame: Any, dpi: float) -> np.ndarray:
    """A frame of `training_gif` as an 8-bit array of shape (height, width, 3)."""
    from matplotlib.figure import Figure

    if isinstance(frame, Figure):
        return figure_to_array(frame, dpi=dpi)
    if isinstance(frame, (str, os.PathLike)):
        return _read_image(pathlib.Path(frame))
    frame = np.asarray(frame)
    grey = frame[..., np.newaxis] if frame.ndim == 2 else frame
    if grey.ndim != 3 or grey.shape[-1] not in (1, 3, 4) or not grey.size:
        raise ValueError(
            f"frames: expected the shape (height, width), or (height, width, channels) with 1, 3 "
            f"or 4 channels, got {frame.shape} at frame {i}."
        )
    if frame.dtype.kind == "f" or frame.dtype == bool:
        if not np.isfinite(grey).all():
            raise ValueError(f"frames: expected finite values, got NaN or infinity at frame {i}.")
        grey = (np.clip(grey.astype(np.float32), 0, 1) * 255).round().astype(np.uint8)
    elif frame.dtype != np.uint8:
        raise ValueError(
            f"frames: expected 8-bit or floating-point values, got {frame.dtype.name} at frame {i}."
        )
    return np.broadcast_to(grey[..., :3], (*grey.shape[:2], 3))


def _read_image(path: pathlib.Path) -> np.ndarray:
    from PIL import Image

    try:
        # Not what else Pillow reads: for PostScript it starts a program.
        with Image.open(path, formats=("PNG", "JPEG")) as opened:
            return np.asarray(opened.convert("RGB"))
    except OSError as error:
        raise OSError(f"{path}: cannot be read as an image: {error}") from error
