"""What `page` is put together from: Bokeh's models with the project's looks, pixels and text."""

import html
from collections.abc import Callable
from typing import Any

import numpy as np
from bokeh import plotting
from bokeh.models import ColumnDataSource, Div, Range1d
from bokeh.palettes import Category10, Category20, Turbo256

from tfp_vae.explorer.explored import Look

_SHOWN = 8  # latent dimensions in the table


def source(data: dict[str, Any]) -> ColumnDataSource:
    return ColumnDataSource(data, syncable=False)  # the browser does not send it back


def listen(model: Any, name: str, callback: Callable[[], None]) -> None:
    """Call back when the browser, which then may, sets a property."""
    model.tags = [name]
    model.on_change(name, lambda attr, old, new: callback())


def figure(side: int, x_range: Any, y_range: Any, *, wide: int = 1) -> Any:
    """An empty plot without tools and axes, `side` pixels high."""
    plot = plotting.figure(
        x_range=x_range, y_range=y_range, frame_width=side * wide, frame_height=side,
        toolbar_location=None, tools="", min_border=0,
    )  # fmt: skip
    plot.grid.visible = False
    plot.axis.visible = False
    plot.outline_line_color = "#888"
    return plot


def picture(
    side: int, image_shape: tuple[int, int, int], source: ColumnDataSource, name: str | None = None
) -> Any:
    height, width, _ = image_shape
    plot = figure(side, Range1d(0, width), Range1d(0, height))
    plot.name = name
    plot.image_rgba("image", 0, 0, width, height, source=source)
    return plot


def rgba(image: np.ndarray) -> np.ndarray:
    """Means in [0, 1], shape (height, width, 1 or 3), as Bokeh's pixels: rows run upwards."""
    pixels = np.full((*image.shape[:2], 4), 255, np.uint8)
    pixels[..., :3] = (np.clip(image[::-1], 0, 1) * 255).round()
    return pixels.view(np.uint32)[..., 0]


def colours(count: int) -> list[str]:
    if count > 20:
        return [Turbo256[int(i)] for i in np.linspace(0, 255, count)]
    return list(Category10[10] if count <= 10 else Category20[20])


def heading(text: str) -> Div:
    return Div(text=f"<b>{html.escape(text)}</b>")


def note(text: str) -> Div:
    return Div(text=html.escape(text))


def table(look: Look, order: np.ndarray, conditional: bool) -> str:
    """The figures of one image, in nats, and the posterior of the most active dimensions."""
    given = "|y" if conditional else ""
    lines = [
        f"log p(x{given}) = {_number(look.log_likelihood.mean)}"
        f" ± {look.log_likelihood.standard_error:.2f} nats",
        f"ELBO = {_number(look.elbo.mean)} ± {look.elbo.standard_error:.2f},"
        f" KL = {_number(look.kl)} nats",
        f"({look.num_samples} samples, ± standard error)",
    ]
    means = (f"z[{d}] {_number(look.mean[d])} ± {look.stddev[d]:.2f}" for d in order[:_SHOWN])
    lines.append(f"q(z|x{given}), ± standard deviation: " + ", ".join(means))
    return "<br>".join(lines)


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
