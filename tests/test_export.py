"""Exported models: in programs without this package they compute what the model does."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tests.models import SHAPE, small_vae
from tests.test_conditional import conditional
from tfp_vae import VAE, cli, layers, networks, priors
from tfp_vae.vae import exporting, onnx_operations

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
    pytest.param(
        lambda: small_vae(likelihood={"name": "autoregressive_bernoulli", "units": 4, "radius": 1}),
        id="autoregressive",
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


# ---------------------------------------------------------------------- ONNX and LiteRT

IMAGE = (8, 8, 1)


def of_networks(kind, likelihood="bernoulli", **options):
    """Encoder and decoder of a family, all weights away from where they start."""
    encoder, decoder = getattr(networks, f"{kind}_encoder"), getattr(networks, f"{kind}_decoder")
    size = {"units": (8,)} if kind == "dense" else {"filters": (4, 4)}
    vae = VAE(
        encoder(IMAGE, 2, prior=priors.StandardNormal(2), **size, **options),
        decoder(IMAGE, 2, likelihood=likelihood, **size),
    )
    rng = np.random.default_rng(1)
    for weight in vae.trainable_variables:
        weight.assign_add(rng.normal(scale=0.2, size=weight.shape))
    return vae


def iaf():
    posterior = {"name": "iaf", "num_flows": 2, "units": [6], "context_size": 2}
    return of_networks("dense", "continuous_bernoulli", posterior=posterior, use_exact_kl=False)


ALL_KINDS = [
    pytest.param(
        lambda: of_networks(
            "dense", {"name": "quantized_logistic_mixture", "num_components": 2}, posterior="full"
        ),
        id="full posterior, mixture",
    ),
    pytest.param(iaf, id="iaf, continuous Bernoulli"),
    pytest.param(lambda: of_networks("conv", "normal"), id="conv, normal"),
    pytest.param(lambda: of_networks("residual", "quantized_logistic"), id="residual, quantized"),
    pytest.param(conditional, id="conditional"),
]


def by_onnx(folder, part, given):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime runs what is tested here")
    session = runtime.InferenceSession(folder / f"{part}.onnx", providers=["CPUExecutionProvider"])
    for value in (*session.get_inputs(), *session.get_outputs()):
        assert value.shape[0] == "batch"
        assert all(isinstance(size, int) for size in value.shape[1:])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


def by_litert(folder, part, given):
    litert = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="ai-edge-litert runs what is tested here"
    )
    interpreter = litert.Interpreter(str(folder / f"{part}.tflite"))
    return interpreter.get_signature_runner({"encoder": "encode", "decoder": "decode"}[part])(
        **given
    )


RUNTIMES = {"onnx": by_onnx, "litert": by_litert}
TOOLS = {"onnx": "tf2onnx", "litert": "ai_edge_litert"}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.extra) for name in sorted(TOOLS)])
def tool(request):
    pytest.importorskip(TOOLS[request.param], reason=f"needs pip install '.[{request.param}]'")
    return request.param


@pytest.mark.parametrize("make", ALL_KINDS)
def test_encoder_and_decoder_in_other_formats_compute_what_the_model_does(
    make, tool, tmp_path, rng
):
    """Any number of images, to 1e-5 of the largest number: 24 bits are 6e-8 of it, and sums of
    hundreds of products in another order lose a few dozen times as much."""
    vae = make()
    folder = vae.export(tmp_path / "exported", format=tool)
    suffix = {"onnx": "onnx", "litert": "tflite"}[tool]
    assert {p.name for p in folder.iterdir()} == {f"encoder.{suffix}", f"decoder.{suffix}"}
    labels = np.eye(3, dtype="float32")
    for count in (1, 5):
        x = rng.random((count, *vae.image_shape)).astype("float32")
        z = 2 * rng.normal(size=(count, vae.latent_dim)).astype("float32")
        y = {"labels": labels[rng.integers(0, 3, count)]} if vae.num_classes else {}
        posterior = vae.encode((x, *y.values()) if y else x)
        likelihood = vae.decode((z, *y.values()) if y else z)
        encoded = {"mean": posterior.mean(), "stddev": posterior.stddev()}
        for part, given, expected in (
            ("encoder", {"x": x}, encoded),
            ("decoder", {"z": z}, {"mean": likelihood.mean()}),
        ):
            found = RUNTIMES[tool](folder, part, {**given, **y})
            assert set(found) == set(expected)
            for key, value in expected.items():
                atol = 1e-5 * np.abs(value).max()
                np.testing.assert_allclose(found[key], value, rtol=0, atol=atol, err_msg=part)


def autoregressive():
    return small_vae(
        likelihood={"name": "autoregressive_bernoulli", "units": 4, "radius": 1}, latent_dim=3
    )


@pytest.mark.extra
def test_pixel_by_pixel_in_onnx(tmp_path, rng):
    """A loop over the pixels, in the file."""
    pytest.importorskip("tf2onnx", reason="needs pip install '.[onnx]'")
    vae = autoregressive()
    folder = vae.export(tmp_path / "exported", format="onnx")
    z = rng.normal(size=(4, 3)).astype("float32")
    found = by_onnx(folder, "decoder", {"z": z})
    np.testing.assert_allclose(found["mean"], vae.decode(z).mean(), atol=1e-5)


def with_igamma():
    layer = layers.DistributionLambda(
        lambda k: tfd.Independent(tfd.Normal(tf.math.igamma(1 + k, k), 1.0), 3)
    )
    body = [keras.layers.Dense(30, activation="softplus"), keras.layers.Reshape(SHAPE)]
    return VAE(small_vae().encoder, keras.Sequential([keras.Input((2,)), *body, layer]))


def of_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    return of_networks("conv")


@pytest.mark.parametrize(
    ("make", "part", "why"),
    [
        pytest.param(with_igamma, "decoder", "", id="operation"),
        pytest.param(of_mixed_precision, "encoder", "expected float32, got bfloat16", id="mixed"),
    ],
)
def test_what_a_format_cannot_hold_is_one_clear_error(make, part, why, tool, tmp_path):
    said = f"export: {tool} cannot hold this {part}: {why}"
    with pytest.raises(NotImplementedError, match=said):
        make().export(tmp_path / "a", format=tool)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.extra
def test_litert_has_no_loop_over_the_pixels(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="needs pip install '.[litert]'")
    with pytest.raises(NotImplementedError, match="litert cannot hold this decoder"):
        autoregressive().export(tmp_path / "a", format="litert")
    assert list(tmp_path.iterdir()) == []


def test_an_exported_encoder_has_no_state():
    """The regularizer's draws are no part of it."""
    function, signature = exporting.endpoints(iaf())["encode"]
    graph = tf.function(function, signature).get_concrete_function().graph
    assert not {op.type for op in graph.get_operations() if op.type.startswith("Assign")}


@pytest.mark.extra
@pytest.mark.parametrize("name", ["log1p", "expm1"])
def test_operations_that_tf2onnx_lacks_are_accurate(name):
    tf2onnx = pytest.importorskip("tf2onnx", reason="needs pip install '.[onnx]'")
    runtime = pytest.importorskip("onnxruntime", reason="needs pip install '.[onnx]'")
    x = np.logspace(-30, -0.001, 300)
    x = np.concatenate([x, -x, [0.0]])
    x = np.concatenate([x, np.logspace(0, 30, 50)] if name == "log1p" else [x, -80 * x, 80 * x])
    x = x.astype("float32")
    signature = [tf.TensorSpec([None], tf.float32, "x")]
    function = tf.function(lambda x: getattr(tf.math, name)(x), signature)
    model, _ = tf2onnx.convert.from_function(
        function, signature, custom_op_handlers=onnx_operations.HANDLERS
    )
    (found,) = runtime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    expected = getattr(np, name)(x.astype("float64"))
    np.testing.assert_allclose(found, expected, rtol=5e-7)


def test_a_missing_tool_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"the package tf2onnx.*pip install tf2onnx onnxruntime"):
        small_vae().export(tmp_path / "a", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_bad_input(tmp_path):
    vae = small_vae()
    with pytest.raises(ValueError, match="format: expected one of tf_saved_model, onnx, litert"):
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


def test_the_command(tmp_path, capsys):
    assert tuple(exporting.FORMATS) == cli.arguments.FORMATS
    vae = small_vae()
    vae.save(tmp_path / "model.keras")
    arguments = ["export", str(tmp_path / "model.keras"), str(tmp_path / "a"), "--json"]
    assert cli.main([*arguments, "--format", "litert"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "written": str(tmp_path / "a"),
        "format": "litert",
        "files": ["decoder.tflite", "encoder.tflite"],
    }
    assert cli.main(arguments) == 1
    assert "new or an empty folder" in capsys.readouterr().err
