"""The run folder: its files, how they are written and how they are read again."""

import contextlib
import csv
import hashlib
import io
import json
import pathlib
import platform
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import _files, datasets
from tfp_vae._version import __version__
from tfp_vae.datasets import files
from tfp_vae.recipes import Recipe, RecipeError
from tfp_vae.vae import VAE

FORMAT = 1


class RunError(ValueError):
    """A run folder that cannot be used as it was asked. Says what was expected and got."""


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
            raise RunError(f"{self.folder}: expected the folder of a run, got none with run.json.")
        try:
            about = json.loads(path.read_text())
            found, data = about["format"], about.get("data", {})
            whole = found != FORMAT or {"dataset", "source", "fingerprint"} <= set(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: expected JSON of a run, got a damaged file.") from error
        if found != FORMAT:
            raise RunError(
                f"{path}: expected format {FORMAT}, which tfp_vae {__version__} writes, got "
                f"{found!r} of tfp_vae {about.get('versions', {}).get('tfp_vae', 'unknown')}."
            )
        if not whole:
            raise RunError(f"{path}: expected an entry on the images, got none.")
        self.about: dict[str, Any] = about
        try:
            self.recipe = Recipe.from_dict(about["recipe"])
        except (RecipeError, KeyError) as error:
            raise RunError(f"{path}: expected the settings of a recipe, got: {error}") from error

    @classmethod
    def create(cls, folder: pathlib.Path, about: dict[str, Any]) -> "Run":
        """A new run: its folder and ``run.json``."""
        with _files.whole_file(folder / "run.json") as path:
            path.write_text(_files.json_text(about, 2) + "\n")
        return cls(folder)

    @property
    def epochs_done(self) -> int:
        """The number of epochs whose results are kept."""
        return len(self.history().get("elbo", []))

    def history(self) -> dict[str, list[float]]:
        """The columns of ``history.csv`` by name; empty before the end of the first epoch."""
        return self._read_table("history.csv")

    def latent(self) -> dict[str, list[float]]:
        """The columns of ``latent.csv``: ``epoch``, ``kl_0``, ..., ``variance_0``, ...

        Without those of the KL where `evaluation.latent_usage` cannot tell it; empty for a run
        that was trained before the file was kept.
        """
        return self._read_table("latent.csv")

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
                if metrics["epochs"] == self.recipe.epochs:  # others are of before it was extended
                    return metrics
            except (ValueError, KeyError, TypeError) as error:
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
        return sorted((self.folder / "pictures").glob("epoch-*.png"))

    def load_model(self, name: str = "model") -> VAE:
        """The best model (``"model"``) or that of the last epoch (``"last"``).

        Raises:
            RunError: it is not there or damaged.
        """
        path = self.folder / f"{name}.keras"
        if not path.is_file() and not (self.folder / "history.csv").is_file():
            raise RunError(f"{self.folder}: no epoch is finished yet. Go on with train --resume.")
        return load_model(path)

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
        return self.checked(datasets.load(about["dataset"], data_dir))

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
        return data

    # ------------------------------------------------------------------ for training

    def change_epochs(self, epochs: int) -> None:
        """Ask for another number of epochs in all."""
        self.recipe = self.recipe.replace(epochs=epochs)
        self.about["recipe"] = self.recipe.to_dict()
        self.write_json("run.json", self.about)

    def check_best(self, epoch: int) -> None:
        """Refuse to go on where the best-so-far, which the state does not hold, is lost.

        Raises:
            RunError: a file of the best epoch is missing.
        """
        for name in ("model", "encoder", "decoder"):
            path = self.folder / f"{name}.keras"
            if not path.is_file():
                raise RunError(f"{path}: expected the model of epoch {epoch}, got no such file.")

    def tidy(self, epoch: int) -> None:
        """Take away what a process left that was killed while writing, and later pictures."""
        for folder in (self.folder, self.folder / "pictures"):
            _files.take_away_halves(folder)
        for path in self.pictures()[epoch + 1 :]:
            path.unlink()

    def save_model(self, name: str, model: keras.Model) -> None:
        path = self.folder / f"{name}.keras"
        if isinstance(model, VAE):
            model.save(path)  # whole or not at all, by itself
        else:
            with _files.whole_file(path) as temporary:
                model.save(temporary)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        with _files.whole_file(self.folder / name) as path:
            path.write_text(_files.json_text(content, 2) + "\n")

    def write_table(self, name: str, columns: dict[str, list[float]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        with _files.whole_file(self.folder / name) as path:
            path.write_text(text.getvalue())

    def write_latent(self, rows: list[dict[str, Any]]) -> None:
        """``latent.csv`` from the rows of `callbacks.LatentDiagnostics`."""
        columns: dict[str, list[float]] = {"epoch": [row["epoch"] for row in rows]}
        for name in ("kl", "variance"):
            if rows[0][name] is not None:
                for j, values in enumerate(zip(*(row[name] for row in rows), strict=True)):
                    columns[f"{name}_{j}"] = list(values)
        self.write_table("latent.csv", columns)

    def save_state(self, vae: VAE, progress: dict[str, Any]) -> None:
        """Everything that the next epoch depends on, in one file: it stands for the whole epoch."""
        arrays = {f"variable_{i}": v.numpy() for i, v in enumerate(_variables(vae))}
        about = {"variables": len(arrays), "progress": progress}
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        with _files.whole_file(self.folder / "state.npz") as path:
            np.savez(path, about=text, **arrays)

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
        variables = _variables(vae)
        names = [f"variable_{i}" for i in range(len(variables))]
        try:
            arrays = files.read_npz(path, ["about", *names])  # refuses a wrong checksum
            about = json.loads(arrays["about"].tobytes())
            count, progress = about["variables"], about["progress"]
        except (ValueError, KeyError) as error:
            raise RunError(f"{path}: expected the state of a run, got a damaged file.") from error
        values = [arrays[name] for name in names]
        shapes = [value.shape for value in values]
        if count != len(variables) or shapes != [tuple(variable.shape) for variable in variables]:
            raise RunError(
                f"{path}: expected the {len(variables)} variables of the recipe "
                f"{self.recipe.name!r}, got {count} or other shapes."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return progress


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it when the process ends.

    Raises:
        RunError: another process holds it.
    """
    with (folder / ".lock").open("a") as file:
        try:
            _lock(file)
        except OSError as error:
            raise RunError(
                f"{folder}: another process is training into this folder. Wait for it, or give "
                "another folder."
            ) from error
        yield


def describe(recipe: Recipe, data: datasets.ImageData, data_dir: Any) -> dict[str, Any]:
    """The content of ``run.json``."""
    dataset = datasets.locate(recipe.dataset)  # a path is found again from any folder
    return {
        "format": FORMAT,
        "recipe": recipe.to_dict(),
        "data": {
            "dataset": data.name if dataset == "auto" else dataset,
            "data_dir": None if data_dir is None else str(pathlib.Path(data_dir).resolve()),
            "name": data.name,
            "source": data.source,
            "image_shape": list(data.image_shape),
            "fingerprint": fingerprint(data),
        },
        "versions": {
            "tfp_vae": __version__,
            "tensorflow": tf.__version__,
            "tensorflow_probability": tfp.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def fingerprint(data: datasets.ImageData) -> str:
    """SHA-256 of the training and test pixels."""
    digest = hashlib.sha256()
    for images in (data.x_train, data.x_test):
        digest.update(str(images.shape).encode())
        digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def load_model(path: pathlib.Path) -> VAE:
    """A saved `VAE`.

    Raises:
        RunError: no such file, a damaged one, or another model.
    """
    if not path.is_file():
        raise RunError(f"{path}: there is no such file.")
    damaged = RunError(f"{path}: expected a .keras file, got a damaged or other one.")
    # Keras would say that there is no such file.
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise damaged
    try:
        model = keras.saving.load_model(path)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise damaged from error
    if not isinstance(model, VAE):
        raise RunError(f"{path}: expected a tfp_vae.VAE, got a {type(model).__name__}.")
    return model


def _variables(vae: VAE) -> list[Any]:
    """The model's and the optimizer's variables, seeds included, metrics not."""
    metrics = {id(variable) for metric in vae.metrics for variable in metric.variables}
    own = [variable for variable in vae.variables if id(variable) not in metrics]
    optimizer = [v for v in vae.optimizer.variables if all(v is not other for other in own)]
    return [*own, *optimizer]


def _lock(file: Any) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
