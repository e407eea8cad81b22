"""Fuzzed files: a loader gives images, or its own error that names the file; nothing else."""

import collections
import gzip
import io
import json
import os
import pathlib
import tarfile
import tempfile
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfp_vae import datasets
from tfp_vae.datasets import DatasetError, files, records

hypothesis = pytest.importorskip("hypothesis", reason="pip install '.[test]' brings hypothesis")
st = hypothesis.strategies

# Inputs for each of fourteen loaders: TFP_VAE_FUZZ=1000 is the long form.
INPUTS = int(os.environ.get("TFP_VAE_FUZZ", "15"))
GREY = np.random.default_rng(0).integers(0, 256, (5, 6, 7), np.uint8)


def written(save, *arguments, **options):
    file = io.BytesIO()
    save(file, *arguments, **options)
    return file.getvalue()


def lzma_npz(array):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x_train.npy", written(np.save, array))
    return file.getvalue()


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def cifar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name in (*files.CIFAR_TRAIN, files.CIFAR_TEST):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = 3073
            archive.addfile(member, io.BytesIO(bytes(3073)))
    return file.getvalue()


def image(format, **options):
    return written(Image.fromarray(np.tile(GREY[0], (2, 2))).save, format=format, **options)


INDEX = {
    "format": 1, "image_shape": [6, 7, 1], "dtype": "uint8", "labels": False,
    "splits": {"train": [["train-00000.tfrecord", 5]]},
}  # fmt: skip


def load(path):
    found = datasets.load(path, test_fraction=0)
    assert found.x_train.min() >= 0
    assert found.x_train.max() <= 1


def load_folder(path):
    load(path.parent)


def read_index(path):
    index = records.read_index(path.parent)
    assert all((path.parent / name).parent == path.parent for name, _ in index["splits"]["train"])


def tfrecord():
    with tempfile.TemporaryDirectory() as folder:
        datasets.write_records(folder, [GREY[..., None]])
        return pathlib.Path(folder, "train-00000.tfrecord").read_bytes()


def stream(path):
    """An error of a batch is TensorFlow's own, with the name of the file in it."""
    try:
        for batch in datasets.stream(path.parent, batch_size=1, test_fraction=0):
            assert float(tf.reduce_min(batch)) >= 0
            assert float(tf.reduce_max(batch)) <= 1
    except tf.errors.InvalidArgumentError as error:
        raise DatasetError(str(error)) from error


def stream_records(path):
    (path.parent / "records.json").write_text(json.dumps(INDEX))
    stream(path)


# The file's name, what it should hold, and the reader.
LOADERS = [
    pytest.param("x.npy", written(np.save, GREY), load, id="npy"),
    pytest.param("x.npz", written(np.savez, x_train=GREY, y_train=np.arange(5)), load, id="npz"),
    pytest.param("x.npz", written(np.savez_compressed, x_train=GREY / 255), load, id="npz packed"),
    pytest.param("x.npz", lzma_npz(GREY), load, id="npz by LZMA"),
    pytest.param("x-idx3-ubyte", idx(GREY), lambda p: files.read_idx(p, 3), id="idx"),
    pytest.param("x-idx1-ubyte", idx(GREY[0, 0]), lambda p: files.read_idx(p, 1), id="labels"),
    pytest.param("x.gz", gzip.compress(idx(GREY)), lambda p: files.read_idx(p, 3), id="idx.gz"),
    pytest.param("x.tar.gz", cifar(), files.read_cifar_archive, id="cifar"),
    pytest.param("x.png", image("png"), load_folder, id="png"),
    pytest.param("x.jpg", image("jpeg"), load_folder, id="jpg"),
    pytest.param("x.bmp", image("bmp"), load_folder, id="bmp"),
    pytest.param("records.json", json.dumps(INDEX).encode(), read_index, id="records.json"),
    pytest.param("train-00000.tfrecord", tfrecord, stream_records, id="stream of records"),
    pytest.param("x.png", image("png"), stream, id="stream of png"),
]


@st.composite
def spoiled(draw, content):
    """Bytes of any kind behind a true beginning, or true bytes after some edits."""
    if draw(st.integers(0, 3)) == 0:
        return content[: draw(st.integers(0, min(64, len(content))))] + draw(
            st.binary(max_size=300)
        )
    for _ in range(draw(st.integers(1, 4))):
        # Where the headers are, and anywhere.
        limit = draw(st.sampled_from([32, 160, len(content)]))
        at = draw(st.integers(0, max(0, min(limit, len(content)) - 1)))
        new, old = draw(st.binary(max_size=8)), draw(st.integers(0, 8))
        special = draw(st.sampled_from([new, b"\xff" * old, b"\0" * old, content[at : at + 64]]))
        content = content[:at] + special + content[at + old :]
    return content


@pytest.mark.filterwarnings("ignore::UserWarning")  # NumPy's of Python 2, Pillow's of palettes
@pytest.mark.parametrize(("name", "content", "read"), LOADERS)
def test_a_loader_reads_it_or_says_what_is_wrong(tmp_path, name, content, read):
    path, seen = tmp_path / name, collections.Counter()
    content = content() if callable(content) else content
    path.write_bytes(content)
    read(path)

    @hypothesis.settings(
        max_examples=INPUTS, deadline=None, database=None, derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(spoiled(content))
    def fuzz(fuzzed):
        path.write_bytes(fuzzed)
        try:
            read(path)
        except DatasetError as error:
            seen["refused" if str(path) in str(error) else f"unnamed: {error}"] += 1
        else:
            seen["read"] += 1

    fuzz()
    print(f"{name}: {dict(seen)} of {INPUTS} fuzzed inputs")
    assert seen.keys() <= {"read", "refused"}
    assert seen["refused"] > INPUTS / 4
