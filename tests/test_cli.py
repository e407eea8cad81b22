"""The command in processes of its own, as people call it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tfp_vae import VAE, cli, networks, priors


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.keras"
    prior = priors.StandardNormal(2)
    encoder = networks.conv_encoder((28, 28, 1), 2, filters=(4, 4), prior=prior)
    VAE(encoder, networks.conv_decoder((28, 28, 1), 2, filters=(4, 4)), prior).save(path)
    return path


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tfp_vae", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_evaluate_in_a_process_of_its_own_prints_json_alone(model):
    done = run("evaluate", model, "--dataset", "digits", "--images", 20, "--samples", 5, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dataset"] == "digits"
    assert result["images"] == 20
    assert result["binarization"] == "threshold"
    # 784 pixels of an untrained decoder: about one half each.
    assert -700 < result["elbo"] <= result["log_likelihood"] < -400
    assert "data: digits" in done.stderr


def test_evaluate_is_repeatable_and_follows_its_seed(model, capsys):
    def result(*more):
        options = ["--dataset", "digits", "--images", "10", "--samples", "3", "--json", *more]
        assert cli.main(["evaluate", str(model), *options]) == 0
        return json.loads(capsys.readouterr().out)

    assert result() == result()
    assert result("--seed", "1")["elbo"] != result()["elbo"]


@pytest.mark.parametrize("picture", ["manifold", "scatter", "reconstructions", "samples"])
def test_plot_writes_a_picture(picture, model, tmp_path, capsys):
    out = tmp_path / f"{picture}.png"
    options = ["--dataset", "digits", "--out", str(out), "--json"]
    assert cli.main(["plot", picture, str(model), *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": str(out)}
    import imageio.v3 as iio

    assert np.ptp(iio.imread(out)) > 100


def test_datasets_says_where_each_would_come_from(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("TFP_VAE_DATA_DIR", raising=False)
    assert cli.main(["datasets"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {"mnist", "fashion_mnist", "cifar10", "digits"}
    assert lines["digits"] == "scikit-learn"
    assert "not here" in lines["cifar10"]


BAD = [
    pytest.param(["evaluate", "absent.keras"], "absent.keras: there is no such file", id="absent"),
    pytest.param(["evaluate", "{model}", "--dataset", "minst"], "mnist", id="misspelt data set"),
    pytest.param(["evaluate", "{other}", "--dataset", "digits"], "got a Sequential", id="no vae"),
    pytest.param(["evaluate", "{damaged}"], "got a damaged or other one", id="damaged"),
    pytest.param(["evaluate", "{model}", "--dataset", "digits", "--images", "300"],
                 "expected at most the 299 there are, got 300", id="more images than there are"),
    pytest.param(["plot", "samples", "{model}", "--out", "/proc/no/x.png"], "/proc/no", id="out"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_goes_wrong_is_one_line_and_exit_code_1(arguments, message, model, tmp_path, capsys):
    import keras

    other, damaged = tmp_path / "other.keras", tmp_path / "damaged.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(other)
    damaged.write_bytes(model.read_bytes()[:2000])
    filled = [a.format(model=model, other=other, damaged=damaged) for a in arguments]
    assert cli.main(filled) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("data: ")]
    assert len(lines) == 1
    assert lines[0].startswith("tfp-vae: error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no command"),
        pytest.param(["paint"], id="unknown command"),
        pytest.param(["plot", "portrait", "m.keras"], id="unknown picture"),
        pytest.param(["evaluate", "m.keras", "--samples", "many"], id="no number"),
        pytest.param(["evaluate", "m.keras", "--seed", "-1"], id="negative seed"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: tfp-vae" in capsys.readouterr().err
