"""Exported models: in a process without this package they compute what the model does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.models import SHAPE, small_vae
from tests.test_conditional import conditional
from tfp_vae import priors

# Only TensorFlow: neither this package nor Keras' classes are at hand.
PROGRAM = """
import json, sys
import numpy as np, tensorflow as tf
model, given = tf.saved_model.load(sys.argv[1]), np.load(sys.argv[2])
given = {name: tf.constant(given[name]) for name in given.files}
labels = {"labels": given["labels"]} if "labels" in given else {}
found = {
    "encode": model.signatures["encode"](x=given["x"], **labels),
    "decode": model.signatures["decode"](z=given["z"], **labels),
    "reconstruct": model.signatures["reconstruct"](x=given["x"], **labels),
    "elbo": model.signatures["elbo"](x=given["x"], seed=given["seed"], **labels),
    "sample": model.signatures["sample"](
        num_samples=given["count"], seed=given["seed"], **labels),
}
again = model.encode(given["x"], *labels.values())
assert np.array_equal(again["mean"], found["encode"]["mean"])
assert "tfp_vae" not in sys.modules
print(json.dumps({a: {b: v.numpy().tolist() for b, v in c.items()} for a, c in found.items()}))
"""

MODELS = [
    pytest.param(small_vae, id="plain"),
    pytest.param(
        lambda: small_vae(
            priors.AutoregressiveFlow(2, 1, (4,), seed=0), posterior="iaf", use_exact_kl=False
        ),
        id="flows",
    ),
    pytest.param(conditional, id="conditional"),
]


@pytest.mark.parametrize("make", MODELS)
def test_a_saved_model_computes_what_the_model_does(make, tmp_path, rng):
    vae = make()
    x = rng.integers(0, 2, (5, *SHAPE)).astype("float32")
    given = {
        "x": x, "z": rng.normal(size=(5, 2)).astype("float32"), "count": np.int32(5),
        "seed": np.array([3, 4], np.int32),
    }  # fmt: skip
    y = ()
    if vae.num_classes:
        given["labels"] = np.eye(3, dtype="float32")[[0, 1, 2, 1, 0]]
        y = (given["labels"],)
    np.savez(tmp_path / "given.npz", **given)
    folder = vae.export(tmp_path / "exported")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "given.npz")],
        capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    def paired(tensor):
        return (tensor, *y) if y else tensor

    posterior = vae.encode(paired(x))
    seed = tf.constant(given["seed"])
    expected = {
        "encode": {"mean": posterior.mean(), "stddev": posterior.stddev()},
        "decode": {"mean": vae.decode(paired(given["z"])).mean()},
        "reconstruct": {"mean": vae.reconstruct(paired(x))},
        "elbo": {"elbo": vae.elbo(paired(x), seed=seed)},
        "sample": {"sample": vae.sample(5, seed=seed, **({"labels": y[0]} if y else {}))},
    }
    for name, values in expected.items():
        for key, value in values.items():
            got = np.array(found[name][key])
            np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-5, err_msg=f"{name} {key}")


def test_bad_input(tmp_path):
    vae = small_vae()
    with pytest.raises(ValueError, match="format: expected one of tf_saved_model, got 'pickle'"):
        vae.export(tmp_path / "a", format="pickle")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        vae.export(tmp_path / "b")
    with pytest.raises(OSError, match="/proc/no"):
        vae.export("/proc/no/export")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        small_vae().export(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
