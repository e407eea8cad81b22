"""A trained model, from a run or a file, with the images that go with it."""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from tfp_vae import _support, datasets
from tfp_vae.training.folder import Run
from tfp_vae.training.models import RunError, load_model
from tfp_vae.training.parts import Parts, split
from tfp_vae.vae import VAE


@dataclasses.dataclass(frozen=True)
class Opened:
    """What `open_model` returns; images as the model takes them, (N, height, width, channels).

    Attributes:
        vae: the model.
        run: the run that it is of; `None` of a file.
        data: where the images come from, grey and with labels.
        binarization: how they are treated.
        seed: of "dynamic" binarization.
        own_images: whether they are those of the run.
    """

    vae: VAE
    run: Run | None
    data: datasets.ImageData
    binarization: str
    seed: int
    own_images: bool

    # Each when it is asked for: 60,000 images are 188 MB.

    @functools.cached_property
    def train(self) -> np.ndarray:
        """Images that a run trained on, or those of a data set for it."""
        parts = self._parts
        return self._treated(self.data.x_train if parts is None else parts.train, 1)

    @functools.cached_property
    def held_out(self) -> np.ndarray | None:
        """Training images that a run did *not* train on: by them it chose its best epoch.

        `None` of another model or other images.
        """
        parts = self._parts
        return None if parts is None else self._treated(parts.validation, 2)

    @functools.cached_property
    def test(self) -> np.ndarray:
        """Test images."""
        return self._treated(self.data.x_test, 0)

    def test_inputs(self, count: int | None = None) -> Any:
        """The first `count` test images, or all; with their labels for a conditional model.

        Raises:
            RunError: a conditional model, and images without labels.
        """
        return self.inputs(self.test[:count], self.data)

    def held_out_inputs(self) -> Any:
        """`held_out`, likewise."""
        if self._parts is None or self.vae.num_classes is None:
            return self.held_out
        return self.held_out, _support.split_labels(self._parts.validation)[1]

    def inputs(self, images: np.ndarray, data: datasets.ImageData) -> Any:
        """`images`; for a conditional model with the first labels of `data`, whose images they are.

        Raises:
            RunError: a conditional model, and images without labels or of classes that its run
                does not know.
        """
        if self.vae.num_classes is None:
            return images
        labels = _in_classes_of(self.run, self.vae, data).y_test
        if labels is None:
            raise RunError(
                f"{data.name}: expected labels, which a conditional model needs, got none."
            )
        return images, labels[: len(images)]

    def of_label(self, label: int | None) -> np.ndarray:
        """The test images of one class; all for `None`, or where their classes are not known.

        Raises:
            RunError: there are none of that class.
        """
        if label is None or self.data.y_test is None:
            return self.test
        found = self.test[self.data.y_test == label]
        if not len(found):
            raise RunError(f"label: expected a class of the test images, got {label}.")
        return found

    @functools.cached_property
    def _parts(self) -> Parts | None:
        if self.run is None or not self.own_images:
            return None
        return split(self.data, self.run.recipe)

    def _treated(self, part: Any, number: int) -> np.ndarray:
        images, _ = _support.split_labels(part)
        # One seed would give all of them the same noise; the test images have that of the run.
        return datasets.binarize(images, self.binarization, seed=self.seed + number)


def open_model(
    path: Any,
    *,
    dataset: str | None = None,
    binarization: str | None = None,
    data_dir: Any = None,
    seed: int = 0,
) -> Opened:
    """The model of a run's folder or of a ``.keras`` file, and images for it.

    Args:
        path: of the folder or the file.
        dataset: as for `datasets.load`; by default the run's, and MNIST for a file.
        binarization: by default the run's, and "threshold" for a file.
        data_dir: as for `datasets.load`.
        seed: of "dynamic" binarization, for a file; a run has its own.

    Raises:
        RunError: neither of the two, or a damaged one; images that are not those of the run, or,
            for a conditional run, of classes that it does not know.
        DatasetError: no images, or an unknown binarization.
    """
    path = pathlib.Path(path)
    run = Run(path) if path.is_dir() else None
    vae = load_model(path) if run is None else run.load_model()
    own_images = run is not None and dataset is None
    if run is not None and own_images:
        data = run.load_data(data_dir)
    else:
        data = _in_classes_of(run, vae, datasets.load(dataset or "mnist", data_dir))
    if not len(data.x_test):
        raise RunError(f"{data.name}: expected test images, got none.")
    method = binarization or ("threshold" if run is None else run.recipe.binarization)
    seed = seed if run is None else run.recipe.seed
    return Opened(vae, run, data, method, seed, own_images)


def _in_classes_of(run: Run | None, vae: VAE, data: datasets.ImageData) -> datasets.ImageData:
    """`data` with the class numbers that a conditional run was trained with, found by their names.

    Folders number their subfolders by themselves: without the first of them, all have others.

    Raises:
        RunError: a class whose name the run does not know.
    """
    names = None if run is None else run.class_names
    theirs = data.class_names
    if vae.num_classes is None or not names or theirs is None or list(theirs) == names:
        return data
    parts = data.y_train, data.y_test
    present = {theirs[i] for y in parts if y is not None for i in np.unique(y)}
    unknown = sorted(present - set(names))
    if unknown:
        raise RunError(
            f"{data.name}: expected images of the classes of the run, {', '.join(names)}, got "
            f"{', '.join(unknown)}."
        )
    numbers = np.array([names.index(name) if name in names else -1 for name in theirs])
    y_train, y_test = (None if y is None else numbers[y] for y in parts)
    return dataclasses.replace(data, y_train=y_train, y_test=y_test, class_names=tuple(names))
