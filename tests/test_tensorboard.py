"""What is written for TensorBoard, read without it and, where it is installed, by it."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.models import SHAPE, small_vae
from tests.test_conditional import conditional
from tests.test_latent_diagnostics import events
from tfp_vae import callbacks, recipes, training

NAMES = ("nought", "one\tof two\n", "three")


@pytest.fixture
def x(rng):
    return rng.random((7, *SHAPE)).astype("float32")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


# ---------------------------------------------------------------------- pictures


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_pngs_after_their_size(channels, tmp_path, rng):
    pictures = rng.integers(0, 256, (2, 4, 5, channels), dtype=np.uint8)
    writer = callbacks.EventWriter(tmp_path)
    writer.images("a", pictures, 3)
    writer.images("a", pictures / 255 + (pictures == 255), 4)  # what is above 1 is cut
    writer.flush()
    found = events(tmp_path)
    assert [(tag, step, plugin) for tag, step, plugin, _ in found] == [
        ("a", 3, "images"), ("a", 4, "images"),
    ]  # fmt: skip
    for *_, value in found:
        assert [*value[:2]] == [b"5", b"4"]
        read = [tf.io.decode_png(png).numpy() for png in value[2:]]
        np.testing.assert_array_equal(read, pictures)


def test_the_recorder_logs_what_it_keeps(tmp_path, x):
    vae = small_vae()
    vae.compile("adam")
    recorder = callbacks.ImageRecorder(np.zeros((3, 2), "float32"), log_dir=tmp_path)
    vae.fit(x, epochs=2, verbose=0, callbacks=[recorder])
    found = events(tmp_path / "pictures")
    assert [step for _, step, *_ in found] == [0, 1, 2]
    for frame, (*_, value) in zip(recorder.frames, found, strict=True):
        read = np.array([tf.io.decode_png(png) for png in value[2:]])
        np.testing.assert_allclose(read, frame * 255, atol=0.51)


# ---------------------------------------------------------------------- projector


def test_the_projector_has_means_labels_and_images(tmp_path, x):
    vae, labels = small_vae(), np.array([0, 1, 2, 0, 1, 2, 0])
    config = callbacks.write_projector(tmp_path, vae, x, labels, class_names=NAMES)
    assert config == tmp_path / "projector_config.pbtxt"
    folder = tmp_path / "projector"
    table = np.array(rows_of(folder / "tensors.tsv"), "float32")
    np.testing.assert_allclose(table, vae.encode(x).mean(), rtol=1e-5)
    names = ["nought", "one of two", "three"]
    assert rows_of(folder / "metadata.tsv") == [
        ["image", "label"], *([str(i), names[y]] for i, y in enumerate(labels)),
    ]  # fmt: skip
    sprite = tf.io.decode_png((folder / "sprite.png").read_bytes()).numpy()
    height, width, _ = SHAPE
    assert sprite.shape == (3 * height, 3 * width, 1)
    for i in range(9):  # row by row
        top, left = i // 3 * height, i % 3 * width
        expected = x[i] * 255 if i < len(x) else np.zeros(SHAPE)
        part = sprite[top : top + height, left : left + width]
        np.testing.assert_allclose(part, expected, atol=0.51)


def test_without_labels_there_is_no_heading(tmp_path, x):
    """TensorBoard takes the only column of a table for data from its first line on."""
    callbacks.write_projector(tmp_path, small_vae(), x)
    assert rows_of(tmp_path / "projector" / "metadata.tsv") == [[str(i)] for i in range(7)]


def test_a_conditional_model_is_encoded_with_its_labels(tmp_path, rng):
    vae, y = conditional(), np.array([0, 1, 2, 2])
    x = rng.random((4, *vae.image_shape)).astype("float32")
    callbacks.write_projector(tmp_path, vae, (x, y))
    table = np.array(rows_of(tmp_path / "projector" / "tensors.tsv"), "float32")
    np.testing.assert_allclose(table, vae.encode((x, y)).mean(), rtol=1e-5)
    assert [row[1] for row in rows_of(tmp_path / "projector" / "metadata.tsv")[1:]] == list("0122")


BAD = [
    pytest.param((7, 6, 5, 2), None, "1 or 3 channels, got 2", id="channels"),
    pytest.param((7, *SHAPE), [1, 2], r"each of the 7 images, got the shape \(2,\)", id="labels"),
    pytest.param((0, *SHAPE), None, "1 to 1863225 images of 6×5, got 0", id="none"),
    pytest.param((5, 4096, 1, 1), None, "1 to 4 images of 4096×1, got 5", id="too many"),
]


@pytest.mark.parametrize(("shape", "labels", "message"), BAD)
def test_bad_input_writes_nothing(shape, labels, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        callbacks.write_projector(tmp_path / "a", small_vae(), np.zeros(shape, "f4"), labels)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_labels_without_a_name_write_nothing(labels, tmp_path, rng):
    x = rng.uniform(size=(2, *SHAPE)).astype("float32")
    with pytest.raises(ValueError, match=r"labels: expected classes from 0 to 1, .* some from"):
        callbacks.write_projector(tmp_path / "a", small_vae(), x, labels, class_names=["a", "b"])
    assert not (tmp_path / "a").exists()


# ---------------------------------------------------------------------- a run, by TensorBoard


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = recipes.get("mlp-fashion-2d").replace(
        dataset="digits", epochs=2, pictures=[], **{"encoder.units": [9], "decoder.units": [9]}
    )
    return training.train(
        recipe, tmp_path_factory.mktemp("runs") / "run", verbose=0, tensorboard=True
    )


def test_a_run_logs_its_history_and_its_pictures(run):
    found = {(tag, step): value for tag, step, _, value in events(run.folder / "logs")}
    for name, values in run.history().items():
        logged = [found[name, step] for step in range(2)]
        np.testing.assert_allclose(logged, values, rtol=1e-6, equal_nan=True)
    for epoch in range(3):
        expected = tf.io.decode_png(run.picture(epoch).read_bytes())
        np.testing.assert_array_equal(tf.io.decode_png(found["pictures", epoch][2]), expected)
    table = rows_of(run.folder / "logs" / "projector" / "tensors.tsv")
    assert np.shape(table) == (299, 2)


@pytest.mark.extra
def test_tensorboard_reads_the_run(run):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard, which reads the logs, is not installed",
    )
    logs = run.folder / "logs"
    accumulator = reading.EventAccumulator(str(logs))
    accumulator.Reload()
    history = run.history()
    assert set(accumulator.Tags()["tensors"]) == {*history, "pictures"}
    found = [tf.make_ndarray(e.tensor_proto) for e in accumulator.Tensors("test_elbo")]
    np.testing.assert_allclose(found, history["test_elbo"], rtol=1e-6)
    assert accumulator.SummaryMetadata("pictures").plugin_data.plugin_name == "images"


@pytest.mark.extra
def test_the_projector_plugin_serves_the_latent_space(run):
    pytest.importorskip("tensorboard", reason="tensorboard, which reads it, is not installed")
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client

    logs = str(run.folder / "logs")
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(logs)
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, logs)
    context = base_plugin.TBContext(logdir=logs, data_provider=provider)
    apps = ProjectorPlugin(context).get_plugin_apps()

    def get(route, **arguments):
        response = Client(apps[route]).get(route, query_string={"run": ".", **arguments})
        assert response.status_code == 200, response.get_data()
        return response

    (embedding,) = json.loads(get("/info").get_data())["embeddings"]
    assert embedding["tensorShape"] == [299, 2]
    assert embedding["sprite"]["singleImageDim"] == [28, 28]
    tensor = np.frombuffer(get("/tensor", name="latent").get_data(), "float32").reshape(299, 2)
    opened = training.open_model(run.folder)
    np.testing.assert_allclose(tensor, opened.vae.encode(opened.test).mean(), rtol=1e-5, atol=1e-6)
    assert get("/metadata", name="latent").get_data().startswith(b"image\tlabel\n0\t")
    assert get("/sprite_image", name="latent").get_data()[1:4] == b"PNG"
