"""A trained model, from a run or a file, with the images that go with it."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from tfp_vae import datasets
from tfp_vae.training.folder import Run
from tfp_vae.training.models import RunError, load_model
from tfp_vae.training.parts import split
from tfp_vae.vae import VAE


@dataclasses.dataclass(frozen=True)
class Opened:
    """What `open_model` returns; images as the model takes them, (N, height, width, channels).

    Attributes:
        vae: the model.
        data: where the images come from, grey and with labels.
        binarization: how they were treated.
        train: images that a run trained on, or those of a data set for it.
        held_out: training images that a run did *not* train on: its validation images, by which it
            chose its best epoch. `None` of another model or other images.
        test: test images.
    """

    vae: VAE
    data: datasets.ImageData
    binarization: str
    train: np.ndarray
    held_out: np.ndarray | None
    test: np.ndarray


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
        RunError: neither of the two, or a damaged one; images that are not those of the run.
        DatasetError: no images, or an unknown binarization.
    """
    path = pathlib.Path(path)
    run = Run(path) if path.is_dir() else None
    vae = load_model(path) if run is None else run.load_model()
    held_out = None
    if run is not None and dataset is None:
        data = run.load_data(data_dir)
        parts = split(data, run.recipe)
        train, held_out = parts.train, parts.validation
    else:
        data = datasets.load(dataset or "mnist", data_dir)
        train = data.x_train
    if run is not None:
        seed = run.recipe.seed
    method = binarization or ("threshold" if run is None else run.recipe.binarization)

    def treated(images: np.ndarray, number: int) -> np.ndarray:
        # One seed would give all of them the same noise; the test images have that of the run.
        return datasets.binarize(images, method, seed=seed + number)

    if not len(data.x_test):
        raise RunError(f"{data.name}: expected test images, got none.")
    return Opened(
        vae,
        data,
        method,
        treated(train, 1),
        None if held_out is None else treated(held_out, 2),
        treated(data.x_test, 0),
    )
