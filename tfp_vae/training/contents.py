"""What a run's ``run.json`` says, and the sums by which its JSON files are known again."""

import hashlib
import pathlib
import platform
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import _files, datasets
from tfp_vae._version import __version__
from tfp_vae.recipes import Recipe

FORMAT = 1
ENTRIES = {"format", "recipe", "data", "versions"}
SUM = "sha256"  # the entry of a JSON file with the sum of the others; runs of before lack it


def describe(recipe: Recipe, data: datasets.ImageData, data_dir: Any) -> dict[str, Any]:
    """The content of ``run.json``."""
    # Paths are found again from any folder.
    dataset = datasets.locate(recipe.dataset)
    folder = None if data_dir is None else str(pathlib.Path(data_dir).expanduser().resolve())
    return {
        "format": FORMAT,
        "recipe": recipe.to_dict(),
        "data": {
            "dataset": data.name if dataset == "auto" else dataset,
            "data_dir": folder,
            "name": data.name,
            "source": data.source,
            "image_shape": list(data.image_shape),
            "class_names": data.class_names and list(data.class_names),
            "fingerprint": fingerprint(data),
            **({"labels": label_sum(data)} if recipe.conditional else {}),
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


def label_sum(data: datasets.ImageData) -> str:
    """SHA-256 of the training and test labels, which a conditional model is trained on too."""
    digest = hashlib.sha256()
    for labels in (data.y_train, data.y_test):
        digest.update(b"" if labels is None else np.asarray(labels, np.int64).tobytes())
    return digest.hexdigest()


def content_sum(content: dict[str, Any], run: str = "") -> str:
    """SHA-256 of a JSON file's content, and of the run that it belongs to."""
    return _files.content_sum({"run": run, "content": content})


def summed(content: dict[str, Any], run: str = "") -> str:
    """JSON with that sum in it."""
    return _files.json_text({**content, SUM: content_sum(content, run)}, 2) + "\n"
