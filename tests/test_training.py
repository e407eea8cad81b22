"""Runs: what a folder holds, and that any stop is as if it had never been."""

import dataclasses
import io
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
import zipfile

import h5py
import keras
import numpy as np
import pytest

from tests.test_latent_diagnostics import events
from tfp_vae import datasets, evaluation, recipes, training
from tfp_vae.recipes import RecipeError
from tfp_vae.training import RunError

ROOT = pathlib.Path(__file__).resolve().parents[1]
# With TFP_VAE_KILLS=20 this many are made: the long form of the test, on demand.
KILLS = int(os.environ.get("TFP_VAE_KILLS", "3"))
SETTINGS = {
    "binarization": "dynamic",
    "latent_dim": 2,
    "use_exact_kl": False,
    "batch_size": 16,
    "validation_images": 8,
    "pictures": [],  # they take longer than these trainings
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    return training.train(recipe(images), tmp_path_factory.mktemp("runs") / "a", verbose=0)


@pytest.fixture(scope="module")
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


# --------------------------------------------------------------------- what a run holds


def test_folder_holds_what_it_promises(images, tmp_path):
    pictures = ["manifold", "scatter", "reconstructions", "samples", "interpolation"]
    finished = training.train(recipe(images, pictures=pictures), tmp_path / "run", verbose=0)
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {
        "run.json", "history.csv", "model.keras", "last.keras", "encoder.keras", "decoder.keras",
        "state.npz", "metrics.json", "training.gif", "history.png", "manifold.png", "scatter.png",
        "reconstructions.png", "samples.png", "interpolation.png", "pictures", ".lock",
        "latent.csv", "latent.png",
    }  # fmt: skip
    about = json.loads((finished.folder / "run.json").read_text())
    assert recipes.Recipe.from_dict(about["recipe"]) == finished.recipe
    assert about["versions"]["keras"] == keras.__version__
    assert [path.name for path in finished.pictures()] == [f"epoch-000{i}.png" for i in range(4)]
    assert finished.picture(2).name == "epoch-0002.png"
    history = finished.history()
    assert history["epoch"] == [1, 2, 3]
    for part in ("", "val_", "test_"):
        elbo = np.array(history[f"{part}reconstruction"]) - history[f"{part}kl"]
        np.testing.assert_allclose(history[f"{part}elbo"], elbo, rtol=1e-4)


def test_best_model_is_that_of_the_best_validation_epoch(images, tmp_path):
    """With a learning rate that spoils the last epoch, best and last are different models."""
    spoiled = {"schedule": "PiecewiseConstantDecay", "boundaries": [14], "values": [1e-2, 0.3]}
    run = training.train(
        recipe(images, **{"optimizer.learning_rate": spoiled}), tmp_path / "run", verbose=0
    )
    history = run.history()
    best = int(np.argmin(history["val_loss"])) + 1
    assert best < 3
    metrics = run.metrics()
    assert (metrics["best_epoch"], metrics["test_elbo"]) == (best, history["test_elbo"][best - 1])
    early = training.train(
        recipe(images, epochs=best, **{"optimizer.learning_rate": spoiled}),
        tmp_path / "early",
        verbose=0,
    )
    model = run.load_model()
    for v, w in zip(model.weights, early.load_model("last").weights, strict=True):
        np.testing.assert_array_equal(v, w)
    encoder = keras.saving.load_model(run.folder / "encoder.keras")
    for v, w in zip(model.encoder.weights, encoder.weights, strict=True):
        np.testing.assert_array_equal(v, w)


def test_test_images_choose_nothing(images, tmp_path):
    """Of inverted test images the ELBO is best before the model knows the others."""
    data = datasets.load(images)
    data = dataclasses.replace(data, x_test=1 - data.x_test)
    run = training.train(recipe(images), tmp_path / "run", data=data, verbose=0)
    history = run.history()
    assert np.argmax(history["test_elbo"]) != np.argmin(history["val_loss"])
    assert run.metrics()["best_epoch"] == np.argmin(history["val_loss"]) + 1


def test_test_images_are_not_split_and_validation_images_train_nothing(images):
    data = datasets.load(images)
    parts = training.parts.split(data, recipe(images))
    assert (len(parts.train), len(parts.validation)) == (102, 8)
    together = np.concatenate([parts.train, parts.validation]).reshape(110, -1)
    assert sorted(map(tuple, together)) == sorted(map(tuple, data.x_train.reshape(110, -1)))
    assert parts.test is data.x_test


def test_likelihood_in_the_metrics_is_that_of_the_best_model(finished, images):
    x = datasets.binarize(datasets.load(images).x_test, "dynamic", seed=0)
    got = np.mean(finished.load_model().log_likelihood(x, 20_000, seed=5))
    metrics = finished.metrics()
    assert metrics["log_likelihood"] == pytest.approx(got, abs=0.1)
    assert metrics["log_likelihood_importance_samples"] == 100


def test_no_picture_is_counted_as_training(images, tmp_path, monkeypatch):
    """By a clock that goes on by a millisecond at each look, and by an hour in each picture."""
    now = [0.0]

    def look():
        now[0] += 1e-3
        return now[0]

    write = training.pictures.EpochPictures.write

    def slow(self, vae, epoch):
        now[0] += 3600
        write(self, vae, epoch)

    monkeypatch.setattr("tfp_vae.callbacks.epochs.time", types.SimpleNamespace(perf_counter=look))
    monkeypatch.setattr(training.pictures.EpochPictures, "write", slow)
    run = training.train(recipe(images, epochs=2), tmp_path / "run", verbose=0)
    assert 0 < max(run.history()["seconds"]) < 1
    assert run.metrics()["seconds_of_training"] == sum(run.history()["seconds"])


def test_open_model_keeps_what_was_held_out_apart(finished, images):
    data, opened = datasets.load(images), training.open_model(finished.folder)
    assert opened.binarization == "dynamic"
    parts = training.parts.split(data, finished.recipe)
    for got, grey in zip(
        (opened.train, opened.held_out, opened.test),
        (parts.train, parts.validation, data.x_test),
        strict=True,
    ):
        assert got.shape == grey.shape
        assert set(np.unique(got)) == {0, 1}
        # A draw of each pixel of these very images.
        z = (got - grey).sum() / np.sqrt((grey * (1 - grey)).sum())
        assert abs(z) < 4
        assert np.mean((got - grey) ** 2) < 0.7 * np.mean((got[::-1] - grey) ** 2)
    np.testing.assert_array_equal(opened.test, parts.binarized(data.x_test))  # as the run has them


def test_open_model_of_a_file_or_of_other_images_held_nothing_out(finished, images):
    of_file = training.open_model(finished.folder / "last.keras", dataset=str(images))
    assert of_file.held_out is None
    assert (of_file.binarization, len(of_file.train), len(of_file.test)) == ("threshold", 110, 20)
    other = training.open_model(finished.folder, dataset=str(images), binarization="none")
    assert other.held_out is None
    np.testing.assert_array_equal(other.test, datasets.load(images).x_test)


# --------------------------------------------------------------------- the latent dimensions


def test_latent_table_is_the_usage_of_each_epoch_on_validation_images(finished, images):
    table, history = finished.latent(), finished.history()
    assert list(table) == ["epoch", "kl_0", "kl_1", "variance_0", "variance_1"]
    assert table["epoch"] == [1, 2, 3]
    validation = training.parts.split(datasets.load(images), finished.recipe).validation
    x = datasets.binarize(validation, "dynamic", seed=0)
    usage = evaluation.latent_usage(finished.load_model("last"), x)
    for j in (0, 1):
        assert table[f"kl_{j}"][-1] == pytest.approx(usage.kl[j], rel=1e-4)
        assert table[f"variance_{j}"][-1] == pytest.approx(usage.variance_of_means[j], rel=1e-4)
    assert history["active_units"][-1] == usage.num_active
    best = finished.metrics()["best_epoch"] - 1
    assert finished.metrics()["active_units"] == history["active_units"][best]


def test_a_run_of_before_the_latent_table_goes_on(begun, finished, tmp_path):
    out = shutil.copytree(begun.folder, tmp_path / "run")
    run = training.Run(out)
    vae = training.build(run.recipe, (8, 8, 1))
    vae.optimizer.build(vae.trainable_variables)
    progress = run.load_state(vae)
    del progress["latent"], progress["history"]["active_units"]
    run.save_state(vae, progress)
    for name in ("latent.csv", "latent.png", "history.csv"):
        (out / name).unlink()
    resumed = training.resume(out, epochs=3, verbose=0)
    assert resumed.latent()["epoch"] == [2, 3]
    units = resumed.history()["active_units"]
    assert np.isnan(units[0])
    assert units[1:] == finished.history()["active_units"][1:]
    assert resumed.history()["elbo"] == finished.history()["elbo"]


def test_logs_for_tensorboard_go_on_where_the_run_does(images, tmp_path):
    out = tmp_path / "run"
    run = training.train(recipe(images, epochs=1), out, verbose=0, tensorboard=True)
    training.resume(out, epochs=2, verbose=0)  # not asked again
    found = {(tag, step): value for tag, step, _, value in events(out / "logs")}
    history = run.history()
    assert set(found) == {(name, step) for name in history for step in (0, 1)}
    for (name, step), value in found.items():
        assert value == pytest.approx(history[name][step], rel=1e-6)
    assert {step for tag, step, *_ in events(out / "logs" / "latent")} == {0, 1}


def test_collapse_is_warned_of_though_the_run_was_stopped(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (220, 8, 8)).astype("float32")
    np.save(tmp_path / "noise.npy", noise)
    objective = {"name": "ELBO", "kl_weight": 100.0}
    body = {"encoder": {"network": "dense_encoder", "units": [4]}, "validation_images": 20}
    settings = recipe(tmp_path / "noise.npy", epochs=2, batch_size=4, objective=objective, **body)
    run = training.train(settings, tmp_path / "run", verbose=0)
    with pytest.warns(UserWarning, match=r"posterior collapse: .* \(epoch 3\)"):
        training.resume(run.folder, epochs=3, verbose=0)
    assert run.history()["active_units"] == [0, 0, 0]


# --------------------------------------------------------------------- stops


def test_resumed_is_never_stopped(finished, begun, tmp_path):
    out = shutil.copytree(begun.folder, tmp_path / "run")
    training.resume(out, epochs=2, verbose=0)
    resumed = training.resume(out, epochs=3, verbose=0)
    assert resumed.recipe == finished.recipe
    assert_same_run(finished.folder, out)


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
                arguments, env=environment, stdout=subprocess.DEVNULL, stderr=said
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None, "the command ended before its time"
        time.sleep(0.005)


@pytest.mark.long
def test_killed_at_random_moments_is_never_stopped(images, tmp_path, start):
    epochs = 10 * KILLS
    whole = training.train(recipe(images, epochs=epochs), tmp_path / "whole", verbose=0)
    out = tmp_path / "killed"
    moments = random.Random(0)
    arguments = train_command(images, out, epochs)
    for kill in range(KILLS):
        process = start(arguments)
        done = len(list(out.glob("pictures/epoch-*")))
        # Importing TensorFlow is no part of a run: count from its first sign of life.
        wait_for(process, lambda: len(list(out.glob("pictures/epoch-*"))) > done)  # noqa: B023
        time.sleep(moments.uniform(0, 0.5))  # some epochs, each of them mostly writing
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"it was done before kill {kill + 1}"
        arguments = command("train", "--resume", out, "--quiet")
    process = start(arguments)
    assert process.wait() == 0, (tmp_path / "said").read_text()
    assert_same_run(whole.folder, out)


def test_interrupt_keeps_the_epochs_and_exits_130(images, tmp_path, start):
    out = tmp_path / "run"
    process = start(train_command(images, out, 2000))
    wait_for(process, (out / "history.csv").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = (tmp_path / "said").read_text()
    assert f"Go on with: tfp-vae train --resume {out}" in said
    assert "Traceback" not in said
    done = training.Run(out).epochs_done
    assert done >= 1
    resumed = training.resume(out, epochs=done + 1, verbose=0)
    assert resumed.epochs_done == done + 1


def test_an_epoch_of_two_passes_goes_on_with_the_third(images, tmp_path, monkeypatch):
    run = training.train(recipe(images, epochs=1, passes=2), tmp_path / "run", verbose=0)
    assert int(run.load_model("last").optimizer.iterations) == 2 * 7  # 102 images in batches of 16

    class SeenError(Exception):
        """With the batches in it."""

    def fit(self, batches, **options):
        assert (options["initial_epoch"], options["epochs"]) == (1, 2)
        raise SeenError(np.concatenate(list(batches)))

    monkeypatch.setattr("tfp_vae.VAE.fit", fit)
    with pytest.raises(SeenError) as seen:
        training.resume(run.folder, epochs=2, verbose=0)
    parts = training.parts.split(run.load_data(), run.recipe)
    expected = [
        batch
        for number in (2, 3)
        for batch in datasets.pipeline(
            parts.train, batch_size=16, binarization="dynamic", seed=0, initial_epoch=number
        ).take(7)
    ]
    np.testing.assert_array_equal(seen.value.args[0], np.concatenate(expected))


# --------------------------------------------------------------------- what goes wrong


def test_two_processes_into_one_folder(copied, images):
    with (
        training.locks.locked(copied),
        pytest.raises(RunError, match="another process is training into"),
    ):
        training.resume(copied, epochs=4, verbose=0)
    with pytest.raises(RunError, match="holds a run already"):
        training.train(recipe(images), copied, verbose=0)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_slower_of_two_processes_is_refused(images, tmp_path, monkeypatch):
    """Both found an empty folder; one was quicker to begin."""
    build = training.loop.build

    def overtaken(*arguments):
        monkeypatch.setattr(training.loop, "build", build)
        training.train(recipe(images, epochs=1), tmp_path / "run", verbose=0)
        return build(*arguments)

    monkeypatch.setattr(training.loop, "build", overtaken)
    with pytest.raises(RunError, match="holds a run already"):
        training.train(recipe(images, seed=9), tmp_path / "run", verbose=0)
    assert training.Run(tmp_path / "run").metrics()["epochs"] == 1
    assert training.Run(tmp_path / "run").recipe.seed == 0


# Every write after an epoch, in turn: the process dies just before it.
WRITES = [("save_state", 3), ("save_model", 2), ("save_model", 3), ("write_table", 2),
          ("write_latent", 3), ("write_json", 3)]  # fmt: skip


@pytest.mark.parametrize(("write", "resumed_to"), WRITES)
def test_stopped_before_each_write(finished, begun, tmp_path, monkeypatch, write, resumed_to):
    """In the second epoch; then ended there, or taken to the third."""
    out = shutil.copytree(begun.folder, tmp_path / "run")
    with monkeypatch.context() as patch:

        def die(*arguments, **options):
            raise KeyboardInterrupt

        patch.setattr(training.Run, write, die)
        with pytest.raises(KeyboardInterrupt):
            training.resume(out, epochs=2, verbose=0)
    run = training.resume(out, epochs=resumed_to, verbose=0)
    if resumed_to == 3:
        assert_same_run(finished.folder, out)
        return
    assert len(run.pictures()) == 3
    assert run.metrics()["epochs"] == 2
    assert run.history()["elbo"] == finished.history()["elbo"][:2]


def test_leftovers_of_a_killed_process_are_taken_away(begun, tmp_path):
    out = shutil.copytree(begun.folder, tmp_path / "run")
    (out / "pictures" / "epoch-0002.png").write_bytes(b"of an epoch that has no state")
    (out / ".last-01234567.part.keras").write_bytes(b"half a file")
    run = training.resume(out, verbose=0)
    assert len(run.pictures()) == 2
    assert not list(out.glob(".*.part*"))


def test_files_that_can_be_made_again_are(copied):
    before = contents(copied)
    for name in ("history.csv", "latent.csv", "last.keras", "metrics.json", "training.gif"):
        (copied / name).unlink()
    run = training.resume(copied, verbose=0)
    assert set(contents(copied)) == set(before)
    assert run.epochs_done == 3


def test_metrics_of_before_an_extension_are_not_those_of_the_run(copied, monkeypatch):
    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.pictures, "write_final", die)
        with pytest.raises(KeyboardInterrupt):
            training.resume(copied, epochs=4, verbose=0)
    with pytest.raises(RunError, match="not finished"):
        training.Run(copied).metrics()
    assert not (copied / "metrics.json").exists()
    assert training.resume(copied, verbose=0).metrics()["epochs"] == 4


def test_a_folder_named_like_a_data_set_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    settings = recipe("digits", epochs=1).replace(**{"encoder": {"network": "dense_encoder",
                                                                "units": [3]}})  # fmt: skip
    run = training.train(settings, "run", verbose=0)
    assert run.about["data"]["dataset"] == "digits"
    assert len(run.load_data().x_test) == 299


def test_full_disk_leaves_the_run_as_it_was(copied):
    """A limit on the size of files fails a write as a full disk does."""
    before = contents(copied)
    limit = (copied / "state.npz").stat().st_size // 3
    done = subprocess.run(
        command("train", "--resume", copied, "--epochs", "4", "--quiet"),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "tfp-vae" in line]
    assert "cannot be written" in line
    assert contents(copied) == before
    assert training.resume(copied, epochs=4, verbose=0).epochs_done == 4


def _damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _change(path, **content):
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))


BAD_RUNS = [
    pytest.param(lambda f: (f / "run.json").unlink(), "got none with run.json", id="no run"),
    pytest.param(lambda f: _damage(f / "run.json"), "run.json: .* damaged", id="run.json"),
    pytest.param(lambda f: _change(f / "run.json", format=99), "expected format 1.*got 99",
                 id="format"),
    pytest.param(lambda f: _change(f / "run.json", recipe={"name": "x"}), "expected the settings",
                 id="recipe"),
    pytest.param(lambda f: (f / "state.npz").unlink(), "state.npz: expected the state", id="state"),
    pytest.param(lambda f: _damage(f / "state.npz"), "state.npz: .* damaged", id="half a state"),
    pytest.param(lambda f: _change(f / "run.json", data={}), "expected an entry on", id="no data"),
    pytest.param(lambda f: np.savez(f / "state.npz", about=np.frombuffer(b"{}", "u1")),
                 "state.npz: .* damaged", id="foreign state"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD_RUNS)
def test_spoiled_folder_is_refused_by_name(copied, spoil, message):
    spoil(copied)
    before = contents(copied)
    with pytest.raises(RunError, match=message):
        training.resume(copied, epochs=4, verbose=0)
    assert contents(copied) == before


def test_one_flipped_byte_in_the_state_is_found(copied):
    path = copied / "state.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"state\.npz: .* damaged"):
        training.resume(copied, epochs=4, verbose=0)


def test_other_images_are_refused(copied, images):
    data = datasets.load(images)
    data.x_test[0, 0, 0] = 1
    with pytest.raises(RunError, match=r"expected the images of .* got others"):
        training.resume(copied, epochs=4, data=data, verbose=0)


def test_fewer_epochs_than_done(copied):
    with pytest.raises(RunError, match="expected at least the 3 that are done, got 2"):
        training.resume(copied, epochs=2, verbose=0)


def test_loss_that_explodes_stops_and_keeps_the_run(images, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(RunError, match=r"expected a finite .* after epoch 0"):
        training.train(
            recipe(images, **{"optimizer": {"name": "SGD", "learning_rate": 1e20}}),
            out, verbose=0,
        )  # fmt: skip
    assert training.Run(out).epochs_done == 0


def test_files_of_somebody_are_not_replaced(images, tmp_path):
    (tmp_path / "samples.png").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"expected a new folder, got one with samples\.png"):
        training.train(recipe(images), tmp_path, verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


def test_channels_that_no_picture_can_show_are_refused_before_training(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((40, 8, 8, 4), "float32"))
    with pytest.raises(RunError, match=r"expected images of 1 or 3 channels, .* got 4"):
        training.train(recipe(tmp_path / "x.npy"), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_what_is_not_drawn_is_said(images, tmp_path, capsys):
    settings = recipe(images, epochs=1, latent_dim=3, pictures=["manifold"])
    training.train(settings, tmp_path / "run", verbose=1)
    said = capsys.readouterr().out
    assert "not drawn: manifold: expected a model of 2 latent dimensions, got 3." in said
    assert "validation: 8 of the training images are held out" in said


BAD_RECIPES = [
    ("network", {"encoder.network": "conv_decoder"}, "encoder.network: expected one of conv_enc"),
    ("argument", {"encoder": {"network": "dense_encoder", "unit": [3]}}, "Did you mean 'units'"),
    ("prior", {"encoder": {"network": "dense_encoder", "prior": 3}}, "argument of encoder"),
    ("optimizer", {"optimizer": {"name": "Adan"}}, "Did you mean 'Adam'"),
    ("rate", {"optimizer.learning_rat": 1.0}, "Did you mean 'learning_rate'"),
    ("negative rate", {"optimizer.learning_rate": -1}, "expected a number above 0, got -1"),
    ("schedule", {"optimizer.learning_rate": {"schedule": "Cosine"}}, "Did you mean 'CosineDecay'"),
]


@pytest.mark.parametrize(
    ("settings", "message"), [pytest.param(s, m, id=name) for name, s, m in BAD_RECIPES]
)
def test_recipe_that_makes_no_model_leaves_no_folder(images, tmp_path, settings, message):
    with pytest.raises(RecipeError, match=message):
        training.train(recipe(images, **settings), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BAD_MODELS = [
    pytest.param(lambda p: p.unlink(), "there is no such file", id="missing"),
    pytest.param(_damage, "got a damaged or other one", id="half"),
    pytest.param(_flip, "got a damaged or other one", id="flipped"),
    pytest.param(lambda p: np.savez(p.open("wb"), x=1), "got a damaged or other one", id="foreign"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_MODELS)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_spoiled_model_is_refused_by_name(copied, spoil, message):
    spoil(copied / "model.keras")
    with pytest.raises(RunError, match=f"model.keras: .*{message}"):
        training.Run(copied).load_model()


def test_best_model_that_is_lost_stops_the_run(copied):
    """It is not of the last epoch, so that the state cannot give it back."""
    run = training.Run(copied)
    vae = training.build(run.recipe, (8, 8, 1))
    vae.optimizer.build(vae.trainable_variables)
    progress = run.load_state(vae)
    run.save_state(vae, {**progress, "best_epoch": 2})
    (copied / "model.keras").unlink()
    before = contents(copied)
    with pytest.raises(RunError, match=r"model\.keras: expected the model of epoch 2"):
        training.resume(copied, epochs=4, verbose=0)
    assert contents(copied) == before


def test_images_that_cannot_be_split_leave_no_folder(tmp_path):
    path = tmp_path / "few.npz"
    np.savez(path, x_train=np.ones((9, 8, 8), "float32"), x_test=np.ones((2, 8, 8), "float32"))
    with pytest.raises(RunError, match="at least 10 training images, got 1000 and 9"):
        training.train(recipe(path, validation_images=1000), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()
