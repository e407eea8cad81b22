"""Small runs that several test files share, and what two of them have in common."""

import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import pytest

from tfp_vae import recipes, training

ROOT = pathlib.Path(__file__).resolve().parents[1]
SETTINGS = {
    "binarization": "dynamic",
    "latent_dim": 2,
    "use_exact_kl": False,
    "batch_size": 16,
    "validation_images": 8,
    "pictures": [],  # they take longer than these trainings
    "epoch_picture": "reconstructions",
    "manifold_cells": 3,
    # Batch normalization, a schedule and Adam's slots: each has a state of its own.
    "encoder": {
        "network": "layered_encoder",
        "body": [{"layer": "Conv2D", "filters": 4, "kernel_size": 3, "strides": 2},
                 {"layer": "BatchNormalization"}],
    },
    "decoder": {"network": "dense_decoder", "units": [16]},
    "optimizer": {
        "name": "Adam",
        "learning_rate": {"schedule": "CosineDecay", "initial_learning_rate": 1e-2,
                          "decay_steps": 200},
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """110 + 20 blurred blobs of 8×8 in two classes, as a file in Keras' layout."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 130)
    centre = np.stack([rng.uniform(2, 5, 130), 2 + 3 * labels], 1)[:, :, None]
    grid = np.arange(8)
    near = np.exp(-((grid - centre) ** 2) / 3)
    pixels = (255 * near[:, 0, :, None] * near[:, 1, None, :]).astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "blobs.npz"
    np.savez(path, x_train=pixels[:110], y_train=labels[:110], x_test=pixels[110:],
             y_test=labels[110:])  # fmt: skip
    return path


def recipe(images, **settings):
    start = recipes.get("mlp-mnist").replace(dataset=str(images), epochs=3, **SETTINGS)
    return start.replace(**settings)


@pytest.fixture(scope="session")
def finished(images, tmp_path_factory):
    return training.train(recipe(images), tmp_path_factory.mktemp("runs") / "a", verbose=0)


@pytest.fixture(scope="session")
def begun(images, tmp_path_factory):
    """The same run after one epoch."""
    return training.train(
        recipe(images, epochs=1), tmp_path_factory.mktemp("runs") / "b", verbose=0
    )


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "copy")


def saved_arrays(path):
    """All arrays in a `.keras` file, without the seconds that building its model takes."""
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()]

    weights = zipfile.ZipFile(path).read("model.weights.h5")
    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(visit)
    return arrays


def assert_same_run(a, b):
    """Bit for bit, but for what a clock measured."""
    with np.load(a / "state.npz") as first, np.load(b / "state.npz") as second:
        assert first.files == second.files
        for name in set(first.files) - {"about"}:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        progress = [json.loads(file["about"].tobytes())["progress"] for file in (first, second)]
    for each in progress:
        each["history"].pop("seconds")
    assert progress[0] == progress[1]
    for name in ("model", "last", "encoder", "decoder"):
        one, other = (saved_arrays(run / f"{name}.keras") for run in (a, b))
        assert one, name
        assert list(one) == list(other), name
        for path in one:
            np.testing.assert_array_equal(one[path], other[path], err_msg=f"{name}.keras: {path}")
    metrics, histories, latents = (
        [getattr(training.Run(run), name)() for run in (a, b)]
        for name in ("metrics", "history", "latent")
    )
    for each in (*metrics, *histories):
        for name in [name for name in each if "seconds" in name]:
            each.pop(name)
    assert metrics[0] == metrics[1]
    assert histories[0] == histories[1]
    assert latents[0] == latents[1]
    for path in (a / "pictures").iterdir():
        assert path.read_bytes() == (b / "pictures" / path.name).read_bytes()
    assert sorted(p.name for p in a.rglob("*")) == sorted(p.name for p in b.rglob("*"))


def command(*arguments):
    return [sys.executable, "-m", "tfp_vae", *map(str, arguments)]


def train_command(images, out, epochs):
    settings = [f"--set={name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    return command("train", "mlp-mnist", "--dataset", images, "--epochs", epochs, "--quiet",
                   "--out", out, *settings)  # fmt: skip


@pytest.fixture
def start(tmp_path):
    """Start a command, whose standard error goes to the file `said`; it ends with the test."""
    started = []

    def start(arguments):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(
                arguments, env=environment, stdout=subprocess.DEVNULL, stderr=said,
                preexec_fn=heeds_interrupts,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def heeds_interrupts():
    """For a new process: also where the tests run in the background of a shell, which do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None, "the command ended before its time"
        time.sleep(0.005)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
