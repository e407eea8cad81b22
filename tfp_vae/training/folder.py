"""The run folder: its files, how they are written and how they are read again."""

import csv
import io
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfp_vae import _files, datasets
from tfp_vae._version import __version__
from tfp_vae.datasets import files
from tfp_vae.recipes import Recipe, RecipeError
from tfp_vae.training.contents import (
    ENTRIES,
    FORMAT,
    SUM,
    content_sum,
    fingerprint,
    label_sum,
    summed,
)
from tfp_vae.training.models import RunError, check_file, open_sealed
from tfp_vae.vae import VAE


class Run:
    """A training's folder, opened.

    ============================= ==============================================================
    ``run.json``                  the whole recipe, versions, data and its fingerprint
    ``history.csv``               a row for each epoch: seconds, the logs in nats, active units
    ``latent.csv``                the same of each latent dimension: its KL in nats, and the
                                  variance of the posterior means
    ``model.keras``               the model of the epoch with the lowest loss of validation images
    ``encoder.keras``             one of its two parts
    ``decoder.keras``             the other
    ``last.keras``                the model of the last epoch
    ``state.npz``                 what `resume` needs: all variables, the optimizer's and seeds'
    ``pictures/epoch-0001.png``   a picture of each epoch, 0 being the untrained model
    ``training.gif``, ``*.png``   made at the end
    ``metrics.json``              the figures, made at the end
    ``logs/``                     for TensorBoard, if they were asked for
    ============================= ==============================================================

    Each of these files but the pictures and the logs is compared with a SHA-256 when it is read:
    JSON has that of its own content, models and state one at their end, beside the run and the
    epoch that they belong to; tables are compared with the state.

    Args:
        folder: of a run, made by `train`.

    Attributes:
        folder: its path.
        recipe: the `Recipe` that it follows.
        about: all of ``run.json``.

    Raises:
        RunError: no run, one of another format, or one whose ``run.json`` is damaged.
    """

    def __init__(self, folder: Any) -> None:
        self.folder = pathlib.Path(folder)
        path = self.folder / "run.json"
        if not path.is_file():
            model = self.folder / "model.keras"
            hint = f" Its {model.name} can be opened: {model}." if model.is_file() else ""
            raise RunError(
                f"{self.folder}: expected the folder of a run, got none with run.json.{hint}"
            )
        try:
            about = json.loads(path.read_text())
            self._sum = about.pop(SUM, None)  # which runs of before there were sums lack
            found, data = about["format"], about.get("data", {})
            whole = found != FORMAT or {"dataset", "source", "fingerprint"} <= set(data)
            if found == FORMAT and not about.keys() <= ENTRIES:
                raise ValueError(f"unknown entries: {about.keys() - ENTRIES}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{path}: expected JSON of a run, got a damaged file.") from error
        if found != FORMAT:
            versions = about.get("versions")
            by = versions.get("tfp_vae") if isinstance(versions, dict) else None
            raise RunError(
                f"{path}: expected format {FORMAT}, which tfp_vae {__version__} writes, got "
                f"{found!r} of tfp_vae {by or 'unknown'}."
            )
        if not whole:
            raise RunError(f"{path}: expected an entry on the images, got none.")
        self.about: dict[str, Any] = about
        try:
            self.recipe = Recipe.from_dict(about["recipe"])
        except (RecipeError, KeyError) as error:
            raise RunError(f"{path}: expected the settings of a recipe, got: {error}") from error
        if self._sum not in (None, content_sum(about)):
            raise RunError(f"{path}: expected what the run wrote, got other settings.")

    @classmethod
    def create(cls, folder: pathlib.Path, about: dict[str, Any]) -> "Run":
        """A new run: its folder and ``run.json``."""
        with _files.whole_file(folder / "run.json") as path:
            path.write_text(summed(about))
        return cls(folder)

    @property
    def identity(self) -> str:
        """The same of two runs whose epochs are the same: of their settings and images."""
        settings = {**self.about["recipe"], "epochs": None}  # more of them can be asked for
        data = self.about["data"]["fingerprint"]
        return _files.content_sum({"recipe": settings, "data": data})

    @property
    def class_names(self) -> list[str] | None:
        """Of the classes 0, 1, ... of its images; `None` where none are kept."""
        return self.about["data"].get("class_names")

    @property
    def epochs_done(self) -> int:
        """The number of epochs whose results are kept."""
        return len(self.history().get("elbo", []))

    @property
    def best_epoch(self) -> int:
        """The epoch that ``model.keras`` is of: that of the lowest validation loss; 0 for none."""
        return _lowest(self.history().get("val_loss", []))

    def history(self) -> dict[str, list[float]]:
        """The columns of ``history.csv`` by name; empty before the end of the first epoch.

        Raises:
            RunError: it is damaged, or says other than the state of the run.
        """
        table = self._read_table("history.csv")
        if table and self._sum:
            kept = self._progress()["history"]
            self._compare("history.csv", table, kept)
        return table

    def latent(self) -> dict[str, list[float]]:
        """The columns of ``latent.csv``: ``epoch``, ``kl_0``, ..., ``variance_0``, ...

        Without those of the KL where `evaluation.latent_usage` cannot tell it; empty for a run
        that was trained before the file was kept.

        Raises:
            RunError: as `history`.
        """
        table = self._read_table("latent.csv")
        if table and self._sum:
            self._compare("latent.csv", table, _latent_columns(self._progress()["latent"]))
        return table

    def _compare(
        self, name: str, table: dict[str, list[float]], kept: dict[str, list[float]]
    ) -> None:
        """A table and what the state holds, which may be ahead of it by the epoch of just now."""
        rows = len(table["epoch"]) if "epoch" in table else -1
        behind = len(kept.get("epoch", ())) - rows
        cut = {column: values[:rows] for column, values in kept.items()}
        same = table.keys() == cut.keys() and all(
            np.array_equal(table[column], cut[column], equal_nan=True) for column in cut
        )
        if behind not in (0, 1) or not same:
            raise RunError(
                f"{self.folder / name}: expected the figures that state.npz holds, got others. "
                "train --resume writes it again."
            )

    def _read_table(self, name: str) -> dict[str, list[float]]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            with path.open(newline="") as file:
                rows = list(csv.reader(file))
            columns = zip(*([float(value) for value in row] for row in rows[1:]), strict=True)
            return dict(zip(rows[0], map(list, columns), strict=True))
        except (ValueError, IndexError, csv.Error) as error:
            raise RunError(f"{path}: expected numbers below a heading, got: {error}") from error

    def metrics(self) -> dict[str, Any]:
        """``metrics.json``.

        Raises:
            RunError: the run is not finished.
        """
        path = self.folder / "metrics.json"
        if path.is_file():
            try:
                metrics = json.loads(path.read_text())
                if metrics.pop(SUM, None) != (self._sum and content_sum(metrics, self.identity)):
                    raise ValueError
                if metrics["epochs"] == self.recipe.epochs:  # others are of before it was extended
                    return metrics
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise RunError(f"{path}: expected JSON of figures, got a damaged file.") from error
        raise RunError(f"{self.folder}: the run is not finished. Go on with train --resume.")

    def picture(self, epoch: int) -> pathlib.Path:
        """The picture of an epoch, 0 being the untrained model.

        Raises:
            RunError: there is none of that epoch; says which there are.
        """
        path = self.folder / "pictures" / f"epoch-{epoch:04d}.png"
        if not path.is_file():
            last = len(self.pictures()) - 1
            there = f"one from 0 to {last}" if last >= 0 else "a run that has begun"
            raise RunError(f"epoch: expected {there} in {path.parent}, got {epoch}.")
        return path

    def pictures(self) -> list[pathlib.Path]:
        """All pictures of epochs, in order."""
        found = (self.folder / "pictures").glob("epoch-*.png")
        return sorted(found, key=lambda path: (len(path.name), path.name))  # 10000 after 9999

    def load_model(self, name: str = "model") -> VAE:
        """The best model (``"model"``) or that of the last epoch (``"last"``).

        Raises:
            RunError: it is not there, damaged, or of another epoch or run.
        """
        path = self.folder / f"{name}.keras"
        if not path.is_file() and not (self.folder / "history.csv").is_file():
            raise RunError(f"{self.folder}: no epoch is finished yet. Go on with train --resume.")
        # Before the model: while a run goes on, its table is written after it.
        losses = self.history().get("val_loss", []) if self._sum else []
        model, note = open_sealed(path)
        if self._sum:
            epoch = self._check_note(path, note)
            wanted = _lowest(losses) if name == "model" else len(losses)
            if epoch != wanted and epoch <= len(losses):
                raise RunError(f"{path}: expected the model of epoch {wanted}, got {epoch}'s.")
        return model

    def _check_note(self, path: pathlib.Path, note: dict[str, Any] | None) -> int:
        """The epoch that a file is of, if it is one that this run wrote by this name."""
        got = note if isinstance(note, dict) else {}
        if (got.get("run"), got.get("file")) != (self.identity, path.stem) or not isinstance(
            got.get("epoch"), int
        ):
            raise RunError(
                f"{path}: expected the file that this run wrote, got "
                f"{'one of another run or name' if got else 'one without its seal'}."
            )
        return got["epoch"]

    def _note(self, name: str, epoch: int) -> dict[str, Any]:
        return {"run": self.identity, "file": name, "epoch": epoch}

    def load_data(self, data_dir: Any = None) -> datasets.ImageData:
        """The images that the run was trained on and tested with.

        Raises:
            DatasetError: they cannot be had.
            RunError: they are others than they were.
        """
        about = self.about["data"]
        before = about.get("data_dir")
        if data_dir is None and before and pathlib.Path(before).is_dir():
            data_dir = before
        # Who opens a stranger's run asks for no set of TensorFlow Datasets, whichever it names.
        download = not about["dataset"].startswith("tfds:")
        return self.checked(datasets.load(about["dataset"], data_dir, download=download))

    def checked(self, data: datasets.ImageData) -> datasets.ImageData:
        """`data`, if it is what the run was trained on.

        Raises:
            RunError: it is not.
        """
        got = fingerprint(data)
        if got != self.about["data"]["fingerprint"]:
            raise RunError(
                f"{self.folder}: expected the images of {self.about['data']['source']}, got others "
                f"from {data.source}."
            )
        labels = self.about["data"].get("labels")
        if labels is not None and labels != label_sum(data):
            raise RunError(
                f"{self.folder}: expected the labels that it was trained with, got others from "
                f"{data.source}."
            )
        return data

    # ------------------------------------------------------------------ for training

    def change_epochs(self, epochs: int) -> None:
        """Ask for another number of epochs in all."""
        self.recipe = self.recipe.replace(epochs=epochs)
        # Of the rest not a word: by what is written there the run's files know it.
        self._change("recipe", epochs=epochs)

    def change_dataset(self, dataset: str) -> None:
        """Keep where the images lie now."""
        self._change("data", dataset=dataset)

    def _change(self, entry: str, **settings: Any) -> None:
        self.about[entry] = {**self.about[entry], **settings}
        with _files.whole_file(self.folder / "run.json") as path:
            text = _files.json_text(self.about, 2) + "\n"
            path.write_text(summed(self.about) if self._sum else text)

    def check_best(self, epoch: int) -> None:
        """Refuse to go on where the best-so-far, which the state does not hold, is lost.

        Raises:
            RunError: a file of the best epoch is missing, damaged or another.
        """
        for name in ("model", "encoder", "decoder"):
            path = self.folder / f"{name}.keras"
            wanted = f"{path}: expected the model of epoch {epoch}, got"
            if not path.is_file():
                raise RunError(f"{wanted} no such file.")
            note = check_file(path)
            if self._sum and (found := self._check_note(path, note)) != epoch:
                raise RunError(f"{wanted} that of {found}.")

    def tidy(self, epoch: int) -> None:
        """Take away what a process left that was killed while writing, and later pictures."""
        for folder in (self.folder, self.folder / "pictures"):
            _files.take_away_halves(folder)
        for path in self.pictures()[epoch + 1 :]:
            path.unlink()

    def save_model(self, name: str, model: keras.Model, epoch: int) -> None:
        with _files.whole_file(self.folder / f"{name}.keras") as path:
            keras.Model.save(model, path)  # which writes no seal of its own
            _files.seal(path, self._note(name, epoch))

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        with _files.whole_file(self.folder / "metrics.json") as path:
            text = _files.json_text(metrics, 2) + "\n"
            path.write_text(summed(metrics, self.identity) if self._sum else text)

    def write_table(self, name: str, columns: dict[str, list[float]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        with _files.whole_file(self.folder / name) as path:
            path.write_text(text.getvalue())

    def write_latent(self, rows: list[dict[str, Any]]) -> None:
        """``latent.csv`` from the rows of `callbacks.LatentDiagnostics`."""
        self.write_table("latent.csv", _latent_columns(rows))

    def save_state(self, vae: VAE, progress: dict[str, Any]) -> None:
        """Everything that the next epoch depends on, in one file: it stands for the whole epoch."""
        arrays = {f"variable_{i}": v.numpy() for i, v in enumerate(variables(vae))}
        about = {"variables": len(arrays), "progress": progress}
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        with _files.whole_file(self.folder / "state.npz") as path:
            np.savez(path, about=text, **arrays)
            _files.seal(path, self._note("state", progress["epoch"]))

    def _progress(self) -> dict[str, Any]:
        """What `save_state` was given, without reading the variables."""
        return self._read_state()[0]["progress"]

    def _read_state(self, names: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
        """What ``state.npz`` says of itself, and the arrays of these names."""
        path = self.folder / "state.npz"
        try:
            note = _files.read_seal(path)
            arrays = files.read_npz(path, ["about", *names])  # refuses a wrong CRC-32
            about = json.loads(arrays["about"].tobytes())
            about = {name: about[name] for name in ("variables", "progress")}
            if not isinstance(about["progress"].get("history"), dict):
                raise ValueError
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            zipfile.BadZipFile,
        ) as error:  # fmt: skip
            raise RunError(f"{path}: expected the state of a run, got a damaged file.") from error
        if self._sum:
            self._check_note(path, note)
        return about, arrays

    def load_state(self, vae: VAE) -> dict[str, Any] | None:
        """Put the state into a model of the same recipe, and give what `save_state` was given.

        `None` where there is none, because the run was stopped before it was first written.

        Raises:
            RunError: a missing, damaged or foreign file.
        """
        path = self.folder / "state.npz"
        if not path.is_file():
            if (self.folder / "last.keras").exists():
                raise RunError(f"{path}: expected the state of the run, got no such file.")
            return None
        own = variables(vae)
        names = [f"variable_{i}" for i in range(len(own))]
        about, arrays = self._read_state(names)
        values = [arrays[name] for name in names]
        shapes = [value.shape for value in values]
        if about["variables"] != len(own) or shapes != [tuple(variable.shape) for variable in own]:
            raise RunError(
                f"{path}: expected the {len(own)} variables of the recipe "
                f"{self.recipe.name!r}, got {about['variables']} or other shapes."
            )
        for variable, value in zip(own, values, strict=True):
            variable.assign(value)
        return about["progress"]


def _lowest(losses: list[float]) -> int:
    """The epoch of the lowest loss, counted from 1; 0 for none."""
    return int(np.argmin(losses)) + 1 if losses else 0


def _latent_columns(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {"epoch": [row["epoch"] for row in rows]}
    for name in ("kl", "variance"):
        if rows and rows[0][name] is not None:
            for j, values in enumerate(zip(*(row[name] for row in rows), strict=True)):
                columns[f"{name}_{j}"] = list(values)
    return columns


def variables(vae: VAE) -> list[Any]:
    """The model's and the optimizer's variables, seeds included, metrics not."""
    metrics = {id(variable) for metric in vae.metrics for variable in metric.variables}
    own = [variable for variable in vae.variables if id(variable) not in metrics]
    optimizer = [v for v in vae.optimizer.variables if all(v is not other for other in own)]
    return [*own, *optimizer]
