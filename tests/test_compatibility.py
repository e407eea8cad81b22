"""Files of released versions are read by this one: tests/golden/run-VERSION, made by make.py."""

import shutil

import keras
import numpy as np
import pytest

from tests.conftest import ROOT
from tfp_vae import training

RUNS = sorted((ROOT / "tests" / "golden").glob("run-*"))


def test_there_is_one_of_the_first_release():
    assert "run-0.1.0" in [path.name for path in RUNS]


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_model_says_what_it_said(folder):
    expected = np.load(folder / "expected.npz")
    x = np.unpackbits(expected["x"]).astype("float32").reshape(-1, 28, 28, 1)
    close = {"rtol": 1e-4, "atol": 1e-5}  # another machine adds in another order
    vae = training.Run(folder).load_model()
    posterior = vae.encode(x)
    np.testing.assert_allclose(posterior.mean(), expected["mean"], **close)
    np.testing.assert_allclose(posterior.stddev(), expected["stddev"], **close)
    reconstruction = vae.predict(x, verbose=0)[:, ::4, ::4]
    np.testing.assert_allclose(reconstruction, expected["reconstruction"], **close)
    np.testing.assert_allclose(vae.elbo(x, seed=0), expected["elbo"], **close)
    found = vae.log_likelihood(x, 7, seed=0, verbose=0)
    np.testing.assert_allclose(found, expected["log_likelihood"], **close)
    # The file alone, by our door and by Keras' own.
    for load in (training.load_model, keras.saving.load_model):
        other = load(folder / "model.keras")
        np.testing.assert_array_equal(other.encode(x).mean(), posterior.mean())
        np.testing.assert_array_equal(other.elbo(x, seed=0), vae.elbo(x, seed=0))


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_run_goes_on(folder, tmp_path):
    before = training.Run(folder)
    epochs = before.recipe.epochs
    assert before.metrics()["epochs"] == epochs
    copy = shutil.copytree(folder, tmp_path / "run")
    run = training.resume(copy, epochs=epochs + 1, verbose=0)
    history = run.history()
    assert history["epoch"] == list(range(1, epochs + 2))
    for name, values in before.history().items():
        assert history[name][:epochs] == values
    # From its weights, not from new ones.
    assert history["val_elbo"][-1] > history["val_elbo"][0]
