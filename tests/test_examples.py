"""The examples on little data: the first as people run it, the others within this process."""

import csv
import json
import os
import re
import runpy
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def run(script, *arguments, cwd, **environment):
    inherited = {k: v for k, v in os.environ.items() if k not in ("TFP_VAE_DATA_DIR", "KERAS_HOME")}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        # A home without data, and a proxy that refuses at once: no network in tests.
        env={
            **inherited,
            "PYTHONPATH": str(ROOT),
            "KERAS_HOME": str(cwd / "keras"),
            "https_proxy": "http://127.0.0.1:9",
            **environment,
        },
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`train_mnist.py` where there is no MNIST: one epoch on digits."""
    folder = tmp_path_factory.mktemp("run")
    done = run("train_mnist.py", "--epochs", 1, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.long
@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_starts_by_itself(script, tmp_path):
    done = run(script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {script}")


def test_train_mnist_says_that_it_trains_on_digits_and_why(trained):
    folder, done = trained
    assert "NOTE: " in done.stderr
    assert "MNIST" in done.stderr
    assert "data: digits" in done.stdout
    assert re.search(r"epoch 1/1: test ELBO -\d+\.\d\d nats .* s of training", done.stdout)
    assert f"written to {folder / 'runs' / 'digits'}" in done.stdout


def test_train_mnist_leaves_pictures_figures_and_a_model(trained):
    out = trained[0] / "runs" / "digits"
    names = {path.name for path in out.iterdir()}
    assert names == {
        "model.keras", "history.csv", "metrics.json", "history.png", "reconstructions.png",
        "samples.png", "latent_manifold.png", "latent_scatter.png", "training.gif",
    }  # fmt: skip
    for picture in out.glob("*.png"):
        assert np.ptp(iio.imread(picture)) > 50, picture
    assert len(iio.imread(out / "training.gif", index=None)) == 2  # untrained, and epoch 1
    with (out / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["dataset"] == "digits"
    assert metrics["binarization"] == "threshold 0.5"
    assert metrics["test_elbo"] == pytest.approx(float(row["val_elbo"]))
    assert metrics["test_elbo"] < metrics["log_likelihood"] < 0
    assert float(row["seconds"]) > 0


@pytest.fixture
def started(tmp_path, monkeypatch):
    """How an example ends that is run within this process: it has TensorFlow at hand."""
    monkeypatch.chdir(tmp_path)

    def start(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as ended:
            return ended.code
        return 0

    return start


def test_imputation_compares_the_saved_model_with_its_baselines(trained, tmp_path, started, capsys):
    model = trained[0] / "runs" / "digits" / "model.keras"
    arguments = ["--dataset", "digits", "--images", 12, "--samples", 2, "--steps", 4]
    assert started("imputation.py", model, *arguments, "--out", "out") == 0
    said = capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "imputation.json").read_text())
    assert [row["hidden"] for row in rows] == ["bottom"] * 5 + ["random:0.8"] * 5
    for row in rows:
        assert row["images"] == 12
        assert 0 < row["squared error"]["mean"] < 1
        assert row["log score"]["mean"] < 0
        assert row["imputed by"] in said
    for name in ("bottom.png", "random-0.8.png"):
        assert np.ptp(iio.imread(tmp_path / "out" / name)) > 50


BAD = [
    pytest.param(["--dataset", "minst"], "mnist", id="misspelt"),
    pytest.param(["--dataset", "digits", "--out", "/proc/no"], "/proc/no", id="out"),
]


def test_train_mnist_without_mnist_ends_in_one_message(tmp_path):
    done = run("train_mnist.py", "--dataset", "mnist", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Set TFP_VAE_DATA_DIR to a folder" in last
    assert "Traceback" not in done.stderr
    assert "epoch 1" not in done.stdout


@pytest.mark.parametrize("option", ["--epochs", "--batch-size", "--latent-dim"])
def test_train_mnist_refuses_sizes_of_zero(option, started, capsys):
    assert started("train_mnist.py", option, 0) == 2
    assert f"{option}: expected an integer of at least 1, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_train_mnist_fails_before_training_with_one_message(arguments, message, started, capsys):
    said = started("train_mnist.py", *arguments)
    assert said.startswith("error: ")  # which Python prints, with exit code 1
    assert message in said
    assert len(said.splitlines()) == 1
    assert "epoch 1" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """60 + 12 images of noise with labels: enough to run an example from end to end."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (72, 28, 28), dtype=np.uint8)
    labels = np.arange(72) % 3
    np.savez(path, x_train=pixels[:60], y_train=labels[:60], x_test=pixels[60:], y_test=labels[60:])
    return path


def test_tfp_tutorial_runs_on_our_layers(few, tmp_path, started):
    arguments = ["--dataset", few, "--epochs", 1, "--batch-size", 30, "--out", "out"]
    assert started("tfp_tutorial.py", *arguments) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["steps"] == 2
    twice = metrics["with the KL twice, as the tutorial's 119.5"]
    assert twice == pytest.approx(metrics["negative test ELBO"] + metrics["test KL"])


def test_anomaly_scores_a_class_left_out_and_images_of_other_kinds(few, tmp_path, started):
    arguments = ["--dataset", few, "--classes", 2, "--epochs", 1, "--samples", 2, "--out", "out"]
    assert started("anomaly.py", *arguments) == 0
    rows = json.loads((tmp_path / "out" / "anomaly.json").read_text())
    assert [row["strange"] for row in rows] == [
        "class 2", "inverted", "shuffled", "noise", "blank",
    ]  # fmt: skip
    assert [row["images"] for row in rows] == [4, 8, 8, 8, 8]
    assert all(0 <= row[key] <= 1 for row in rows for key in ("AUROC", "found", "false"))


def test_reproduce_writes_the_table_the_probe_and_the_comparison(few, tmp_path, started):
    names = ["mlp-fashion-2d", "conv-fashion-2d", "ae-mnist", "vae-mnist"]
    arguments = [*names, "--dataset", few, "--epochs", 1, "--out", "out"]
    assert started("reproduce.py", *arguments) == 0
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [row["recipe"] for row in rows] == names
    for row in rows:
        gap = row["reconstruction"] - row["KL"] - row["test ELBO, best epoch"]
        assert gap == pytest.approx(0, abs=1e-2)
    assert len((tmp_path / "out" / "table.md").read_text().splitlines()) == 6
    probe = json.loads((tmp_path / "out" / "latent_probe.json").read_text())
    assert set(probe) == set(names[:2])
    assert (tmp_path / "out" / "autoencoder.png").stat().st_size > 1000
    # A second call finds the runs and trains nothing.
    before = (tmp_path / "out" / "ae-mnist" / "state.npz").stat().st_mtime_ns
    again = ["ae-mnist", "--dataset", few, "--epochs", 1, "--out", "out"]
    assert started("reproduce.py", *again) == 0
    assert (tmp_path / "out" / "ae-mnist" / "state.npz").stat().st_mtime_ns == before
    said = started("reproduce.py", "ae-mnist", "--dataset", "digits", "--out", "out")
    assert "was trained with other settings" in said
