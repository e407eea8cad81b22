"""The page: Bokeh's models, and what happens when a person moves them.

One `Page` for each browser that looks. What a person moves quickly (the point, a stroke) is drawn
in the browser by the ``.mjs`` files beside this one, and only its outcome is sent here. A model's
``tags`` are the properties, and the events, that the browser may send: `server` drops all others.
"""

import base64
import html
import pathlib
from collections.abc import Callable
from typing import Any

import jinja2
import numpy as np
from bokeh.document import Document
from bokeh.events import ButtonClick, DocumentReady, Pan, PanEnd, PanStart, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    Button,
    Checkbox,
    CheckboxGroup,
    ColumnDataSource,
    CustomJS,
    Div,
    Range1d,
    Select,
    Slider,
    Spinner,
)

from tfp_vae.explorer import parts, uploads
from tfp_vae.explorer.explored import Explored, Look

_HERE = pathlib.Path(__file__).parent
_TILES = 20  # of the manifold, on each side
_STEPS = 10  # of an interpolation
_SETTLED = 250  # ms of rest, after which the manifold follows the sliders
_POINT = "#e4002b"
# Pixels of the page, which fits into 1280×800.
_PLANE, _MIDDLE, _RIGHT, _PAPER, _SMALL, _STRIP, _SLIDERS = 540, 280, 340, 224, 160, 104, 190


class Page:
    """What one browser sees of a model, and does with it.

    Args:
        explored: the model.
    """

    def __init__(self, explored: Explored) -> None:
        self.explored = explored
        self.z = explored.means[0].astype(np.float64)
        self.dims = (int(explored.order[0]), int(explored.order[1]))
        self.label: int | None = None if explored.vae.num_classes is None else 0
        self.current: Look | None = None
        self.image: np.ndarray | None = None
        self.ends: list[np.ndarray] = []
        self._manifold_of = self.z
        self._waiting: Any = None
        self._answers = 0

    def fill(self, document: Document) -> None:
        """Put the page into Bokeh's document of a new session."""
        self.document = document
        explored = self.explored
        self.latent, self.drawn, self.upload = (ColumnDataSource() for _ in range(3))
        self.latent.data = {"z": self.z}
        self.picture, self.seen, self.rebuilt, self.strip = (parts.source({}) for _ in range(4))
        self.points, self.tiles, self.ellipses, self.path = (parts.source({}) for _ in range(4))
        self.axes = parts.source({"dim": list(self.dims)})
        self.message, self.figures = Div(width=_RIGHT), Div(width=_RIGHT)
        for name in ("latent", "picture", "drawn", "upload", "strip", "message", "figures"):
            getattr(self, name).name = name
        plane = self._plane()
        left = column(self._legend(), plane)
        columns = row(left, self._moving(plane), self._images(), spacing=20)
        document.add_root(column(columns, self._between(), spacing=4))
        document.title = f"{explored.title} · tfp-vae explore"
        document.template = jinja2.Template((_HERE / "page.html").read_text("utf-8"))
        self.ends = [explored.means[0], explored.means[min(1, len(explored.means) - 1)]]
        self._show_plane()
        self._choose(0)
        self._show_between()

    # ------------------------------------------------------------------ the latent plane

    def _plane(self) -> Any:
        explored = self.explored
        self.plane = plane = parts.figure(_PLANE, Range1d(), Range1d())
        plane.axis.visible = True
        plane.background_fill_color = "black"
        plane.name = "plane"
        manifold = plane.image_rgba(
            "image", "x", "y", "width", "height", source=self.tiles, global_alpha=0.6
        )
        scatter = plane.scatter(
            "x", "y", color="colour", size=4, alpha=0.75, line_width=0, source=self.points
        )
        plane.multi_line("x", "y", color="#111", line_width=4, source=self.ellipses)
        plane.multi_line("x", "y", color="white", line_width=1.6, source=self.ellipses)
        plane.line("x", "y", color="white", line_width=4, source=self.path)
        plane.line("x", "y", color="#111", line_width=2, line_dash="dashed", source=self.path)
        self.marker = parts.source({"x": [], "y": []})
        # On the upper canvas: ten thousand dots need not be drawn again when it moves.
        for size, colour, width in ((24, "white", 6), (24, _POINT, 3)):
            plane.scatter(
                "x", "y", marker="circle_cross", size=size, line_color=colour, line_width=width,
                fill_color=None, source=self.marker, level="overlay",
            )  # fmt: skip
        names = [f"{len(explored.images):,} test images", "manifold"]
        self.layers = shown = CheckboxGroup(labels=names, active=[0, 1], inline=True)
        shown.js_on_change(
            "active",
            CustomJS(
                args={"layers": [scatter, manifold]},
                code="layers.forEach((layer, i) => layer.visible = cb_obj.active.includes(i))",
            ),
        )
        return plane

    def _legend(self) -> Any:
        """What is shown, and the colour of each class."""
        names = self.explored.class_names
        colours = parts.colours(len(names)) if len(names) <= 20 else []
        dots = (
            f"<span style='color: {colour}; font-size: 150%'>●</span>&thinsp;{html.escape(name)}"
            for name, colour in zip(names, colours, strict=False)
        )
        title = f"<b>{html.escape(self.explored.title)}</b>"
        said = Div(text=f"{title}<br>{' &nbsp;'.join(dots)}", width=_PLANE - 190)
        return row(said, self.layers)

    def _show_plane(self) -> None:
        """Axes, scatter and manifold of the two dimensions that span the plane."""
        explored, (across, up) = self.explored, self.dims
        for axis, side, dim in (
            (self.plane.xaxis, self.plane.x_range, across),
            (self.plane.yaxis, self.plane.y_range, up),
        ):
            side.update(start=explored.low[dim], end=explored.high[dim])
            axis.axis_label = f"z[{dim}]"
        count = len(explored.means)
        labels = np.zeros(count, int) if explored.labels is None else explored.labels
        colours = np.array(parts.colours(len(explored.class_names)))
        self.points.data = {
            "x": explored.means[:, across],
            "y": explored.means[:, up],
            "colour": colours[labels % len(colours)],
        }
        self.axes.data = {"dim": [across, up]}
        self._show_manifold()
        self._show_ellipses()

    def _show_manifold(self) -> None:
        self._waiting = None
        self._manifold_of = self.z.copy()
        (across, up), explored = self.dims, self.explored
        image = explored.plane(self.z, self.dims, _TILES, self.label)
        low, high = explored.low, explored.high
        self.tiles.data = {
            "image": [parts.rgba(image)],
            "x": [low[across]],
            "y": [low[up]],
            "width": [high[across] - low[across]],
            "height": [high[up] - low[up]],
        }

    def _show_ellipses(self) -> None:
        """One and two standard deviations of ``q(z|x)`` in the plane."""
        if self.current is None:
            return
        dims = list(self.dims)
        centre, covariance = self.current.mean[dims], self.current.covariance[np.ix_(dims, dims)]
        values, vectors = np.linalg.eigh(covariance)
        angle = np.linspace(0, 2 * np.pi, 80)
        circle = np.stack([np.cos(angle), np.sin(angle)])
        edge = vectors @ (np.sqrt(np.maximum(values, 0))[:, np.newaxis] * circle)
        self.ellipses.data = {
            "x": [centre[0] + k * edge[0] for k in (1, 2)],
            "y": [centre[1] + k * edge[1] for k in (1, 2)],
        }

    # ------------------------------------------------------------------ the point

    def _moving(self, plane: Any) -> Any:
        explored = self.explored
        caption = Div(width=_MIDDLE, syncable=False)
        sliders = [
            Slider(
                start=float(explored.low[dim]), end=float(explored.high[dim]), step=0.01,
                value=float(self.z[dim]), title=f"z[{dim}]", width=_MIDDLE - 30, syncable=False,
            )
            for dim in (explored.order if explored.latent_dim > 2 else ())
        ]  # fmt: skip
        plane.js_on_event(Pan, moved := CustomJS.from_file(
            _HERE / "plane.mjs", latent=self.latent, picture=self.picture, plane=plane,
            marker=self.marker, caption=caption, sliders=sliders,
            order=[int(dim) for dim in explored.order], axes=self.axes,
        ))  # fmt: skip
        for event in (PanStart, Tap):
            plane.js_on_event(event, moved)
        for source in (self.latent, self.picture, self.axes):
            source.js_on_change("data", moved)
        for slider in sliders:
            slider.js_on_change("value", moved)
        self.document.js_on_event(DocumentReady, moved)
        parts.listen(self.latent, "data", self._moved)
        below: list[Any] = [
            parts.heading("mean of p(x|z) at the point: drag it"),
            parts.picture(_MIDDLE, explored.image_shape, self.picture, "decoded"),
            caption,
        ]
        if self.label is not None:
            names = [(str(i), name) for i, name in enumerate(explored.class_names)]
            self.classes = Select(title="class", value="0", options=names, width=_MIDDLE - 30)
            parts.listen(self.classes, "value", self._class_chosen)
            below.append(self.classes)
        if sliders:
            scrolled = column(
                *sliders, width=_MIDDLE, height=_SLIDERS, styles={"overflow-y": "auto"},
                name="sliders",
            )  # fmt: skip
            below += [self._axes_choice(), scrolled]
        return column(*below, width=_MIDDLE)

    def _axes_choice(self) -> Any:
        names = [(str(dim), f"z[{dim}]") for dim in self.explored.order]
        choices = [
            Select(title=title, value=str(dim), options=names, width=_MIDDLE // 2 - 20)
            for title, dim in zip(("across", "up"), self.dims, strict=True)
        ]

        def chosen() -> None:
            dims = int(choices[0].value), int(choices[1].value)
            if dims[0] == dims[1]:
                self._say("The plane needs two different dimensions.")
            elif dims != self.dims:
                self.dims = dims
                self._show_plane()
                self._show_between()

        for choice in choices:
            parts.listen(choice, "value", chosen)
        return row(*choices)

    def _moved(self) -> None:
        try:
            z = np.array(self.latent.data["z"], np.float64)
        except (KeyError, TypeError, ValueError):
            return
        if z.shape != self.z.shape or not np.isfinite(z).all():
            return
        self.z = z
        self._show_picture()
        others = np.delete(z - self._manifold_of, self.dims)
        if others.any():
            if self._waiting is not None:
                self.document.remove_timeout_callback(self._waiting)
            self._waiting = self.document.add_timeout_callback(self._show_manifold, _SETTLED)

    def _show_picture(self) -> None:
        self._answers += 1  # an answer even where the pixels are as they were
        image = self.explored.decode(self.z[np.newaxis], self.label)[0]
        self.picture.data = {"image": [parts.rgba(image)], "answer": [self._answers]}

    def _class_chosen(self) -> None:
        self.label = int(self.classes.value)
        self._show_picture()
        self._show_manifold()
        self._show_between()
        if self.image is not None:
            self._look()

    # ------------------------------------------------------------------ one image

    def _images(self) -> Any:
        explored = self.explored
        height, width, _ = explored.image_shape
        self.ink = parts.source({"image": [np.zeros((height, width), np.uint8)]})
        paper = parts.figure(_PAPER, Range1d(0, width), Range1d(0, height))
        paper.image("image", 0, 0, width, height, palette="Greys256", source=self.ink)
        paper.renderers[0].glyph.color_mapper.update(low=0, high=255)
        paper.name = "paper"
        draw = CustomJS.from_file(
            _HERE / "canvas.mjs", ink=self.ink, drawn=self.drawn, height=height, width=width
        )
        for event in (PanStart, Pan, PanEnd, Tap):
            paper.js_on_event(event, draw)
        clear = Button(label="clear", width=70)
        clear.js_on_event(ButtonClick, draw)
        upload = CustomJS.from_file(
            _HERE / "upload.mjs", upload=self.upload, limit=uploads.MAX_BYTES,
        )  # fmt: skip
        choose = Button(label="image file …", width=100)
        choose.js_on_event(ButtonClick, upload)
        self.document.js_on_event(DocumentReady, upload)
        self.centred = Checkbox(label="as MNIST", active=explored.centred, width=100)
        self.number = Spinner(
            title="test image", value=0, low=0, high=len(explored.images) - 1, width=100
        )
        parts.listen(self.drawn, "data", lambda: self._take(self._from_drawing))
        parts.listen(self.upload, "data", lambda: self._take(self._from_file))
        parts.listen(self.centred, "active", lambda: None)
        parts.listen(self.number, "value", self._number_chosen)
        pictures = [
            column(parts.picture(_SMALL, explored.image_shape, source), parts.note(text))
            for source, text in ((self.seen, "x"), (self.rebuilt, "reconstruction"))
        ]
        return column(
            parts.heading("draw, drop or choose an image"),
            row(paper, column(clear, choose, self.centred, self.number)),
            row(*pictures),
            self.figures,
            self.message,
            width=_RIGHT,
        )

    def _from_drawing(self) -> np.ndarray:
        ink = self.drawn.data.get("ink")
        return uploads.from_drawing(
            ink, self.explored.image_shape, centred=bool(self.centred.active)
        )

    def _from_file(self) -> np.ndarray:
        data = self.upload.data
        try:
            uploads.check_size(float(data.get("size", [0])[0]))
            content = base64.b64decode(data["content"][0], validate=True)
        except uploads.UploadError:
            raise
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise uploads.UploadError("image: expected a file, got none.") from error
        return uploads.from_file(
            content, self.explored.image_shape, centred=bool(self.centred.active)
        )

    def _take(self, read: Callable[[], np.ndarray]) -> None:
        try:
            self.image = self.explored.treated(read())
        except uploads.UploadError as error:
            self._say(str(error))
        else:
            self._look()

    def _number_chosen(self) -> None:
        if self.number.value is not None:
            self._choose(int(np.clip(self.number.value, 0, len(self.explored.images) - 1)))

    def _choose(self, index: int) -> None:
        """A test image, of a conditional model with its own class."""
        self.image = self.explored.images[index]
        if self.label is not None:
            label = int(self.explored.labels[index])  # type: ignore[index]
            if label != self.label:
                self.classes.value = str(label)  # which has the image looked at
                return
        self._look()

    def _look(self) -> None:
        """What the model makes of the image at hand; the point goes to its posterior's mean."""
        assert self.image is not None
        self._say("")
        look = self.current = self.explored.look(self.image, self.label)
        self.seen.data = {"image": [parts.rgba(self.image)]}
        self.rebuilt.data = {"image": [parts.rgba(look.reconstruction)]}
        self.figures.text = parts.table(look, self.explored.order, self.label is not None)
        self._show_ellipses()
        self.latent.data = {"z": look.mean.astype(np.float64)}

    def _say(self, text: str) -> None:
        self.message.text = f"<b style='color: #b00020'>{html.escape(text)}</b>" if text else ""

    # ------------------------------------------------------------------ between two images

    def _between(self) -> Any:
        height, width, _ = self.explored.image_shape
        strip = parts.figure(_STRIP, Range1d(0, _STEPS * width), Range1d(0, height), wide=_STEPS)
        strip.image_rgba("image", 0, 0, _STEPS * width, height, source=self.strip)
        buttons = []
        for end, text in enumerate(("from this image", "to this image")):
            button = Button(label=text, width=130, tags=["button_click"])
            button.on_event(ButtonClick, lambda _, end=end: self._end_here(end))
            buttons.append(button)
        return row(column(parts.heading("interpolation"), *buttons), strip, spacing=10)

    def _end_here(self, end: int) -> None:
        if self.current is not None:
            self.ends[end] = self.current.mean
            self._show_between()

    def _show_between(self) -> None:
        start, end = self.ends
        images = self.explored.between(start, end, _STEPS, self.label)
        self.strip.data = {"image": [parts.rgba(np.concatenate(images, 1))]}
        ends = np.array(self.ends)[:, self.dims]
        self.path.data = {"x": ends[:, 0], "y": ends[:, 1]}
