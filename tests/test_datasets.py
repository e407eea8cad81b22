"""Tests of tfp_vae.datasets. No test leaves this computer or touches the real Keras cache."""

import gzip
import hashlib
import http.server
import inspect
import io
import os
import pathlib
import pickle
import re
import socket
import struct
import tarfile
import threading
import time
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_digits

from tfp_vae import datasets
from tfp_vae.datasets import DatasetError, files, places

PUBLISHED = places.DOWNLOADS  # before the fixture below replaces it
REAL_DATA_DIR = os.environ.get("TFP_VAE_DATA_DIR", "")
IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@pytest.fixture(autouse=True)
def no_place_but_tmp(tmp_path, monkeypatch):
    """An empty Keras cache, no data directory, and downloads that go to a port that refuses."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("TFP_VAE_DATA_DIR", raising=False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    _serve_from(monkeypatch, f"http://127.0.0.1:{port}/", {})


def _serve_from(monkeypatch, base, checksums):
    """Downloads with the true file names and folders, from `base`, with these checksums."""
    moved = {}
    for name, (folder, items) in places.DOWNLOADS.items():
        moved[name] = (
            folder,
            tuple(
                places.Download(base + item.file, checksums.get(item.file, "0" * 32))
                for item in items
            ),
        )
    monkeypatch.setattr(places, "DOWNLOADS", moved)


# ---------------------------------------------------------------------- making files


def arrays(shape=(28, 28), train=7, test=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (train, *shape), np.uint8),
        "y_train": rng.integers(0, 10, train).astype(np.uint8),
        "x_test": rng.integers(0, 256, (test, *shape), np.uint8),
        "y_test": rng.integers(0, 10, test).astype(np.uint8),
    }


def idx_bytes(array):
    return (
        bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def write_idx(folder, content, gz=False, dotted=False):
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in IDX_NAMES.items():
        name = name.replace("-idx", ".idx") if dotted else name
        data = idx_bytes(content[key])
        (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(data) if gz else data)


def write_npz(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **content)
    return path


def cifar_batches(content):
    """CIFAR-10's binary records: the training images spread over five files."""

    def records(images, labels):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return np.concatenate([labels[:, np.newaxis], planes], 1).tobytes()

    parts = zip(
        np.array_split(content["x_train"], 5), np.array_split(content["y_train"], 5), strict=True
    )
    named = {f"data_batch_{i}.bin": records(*part) for i, part in enumerate(parts, 1)}
    return {**named, "test_batch.bin": records(content["x_test"], content["y_test"])}


def cifar_archive(batches):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ["readme.html", *reversed(batches)]:  # the order in the archive must not count
            data = batches.get(name, b"<html>")
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def write_cifar_folder(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in cifar_batches(content).items():
        (folder / name).write_bytes(data)


def write_png(path, shape=(5, 4, 3), value=None, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels).save(path)
    return pixels


def assert_holds(data, content, channels=1):
    for part in ("train", "test"):
        images = getattr(data, f"x_{part}")
        expected = content[f"x_{part}"].astype(np.float64) / 255
        assert images.dtype == np.float32
        assert images.shape == (*expected.shape[:3], channels)
        np.testing.assert_allclose(images.reshape(expected.shape), expected, atol=1e-7)
        labels = getattr(data, f"y_{part}")
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(labels, content[f"y_{part}"].ravel())


# ---------------------------------------------------------------------- files of the named sets


@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param("mnist", lambda d, c: write_npz(d / "mnist.npz", c), id="mnist-npz"),
        pytest.param("mnist", lambda d, c: write_npz(d / "mnist/mnist.npz", c), id="npz-below"),
        pytest.param("mnist", lambda d, c: write_idx(d, c), id="idx-plain"),
        pytest.param("mnist", lambda d, c: write_idx(d, c, gz=True), id="idx-gz"),
        pytest.param("mnist", lambda d, c: write_idx(d, c, dotted=True), id="idx-dotted"),
        pytest.param("mnist", lambda d, c: write_idx(d, c, True, True), id="idx-dotted-gz"),
        pytest.param("mnist", lambda d, c: write_idx(d / "mnist", c), id="idx-below"),
        pytest.param("mnist", lambda d, c: write_idx(d / "MNIST" / "raw", c), id="idx-torchvision"),
        pytest.param(
            "fashion_mnist", lambda d, c: write_npz(d / "fashion_mnist.npz", c), id="f-npz"
        ),
        pytest.param("fashion-mnist", lambda d, c: write_idx(d, c), id="f-idx"),
        pytest.param(
            "fashion_mnist", lambda d, c: write_idx(d / "fashion-mnist", c, True), id="f-gz"
        ),
        pytest.param("FashionMNIST", lambda d, c: write_idx(d / "FashionMNIST/raw", c), id="f-raw"),
    ],
)
def test_grey_sets_are_read_from_every_layout(tmp_path, name, write):
    content = arrays()
    write(tmp_path / "data", content)
    data = datasets.load(name, tmp_path / "data", download=False)
    assert_holds(data, content)
    assert data.name == ("mnist" if name == "mnist" else "fashion_mnist")
    assert data.class_names[9] == ("9" if name == "mnist" else "Ankle boot")
    assert data.image_shape == (28, 28, 1)
    assert str(tmp_path / "data") in data.source
    assert "7 training and 3 test images (not the whole set of 60,000 and 10,000)" in data.source


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda d, c: write_npz(d / "cifar10.npz", c), id="npz"),
        pytest.param(
            lambda d, c: write_npz(d / "cifar10.npz", {k: v[:, None] if k[0] == "y" else v
                                                       for k, v in c.items()}),
            id="npz-label-column",
        ),
        pytest.param(lambda d, c: write_cifar_folder(d / "cifar-10-batches-bin", c), id="binary"),
        pytest.param(lambda d, c: write_cifar_folder(d, c), id="binary-direct"),
        pytest.param(
            lambda d, c: write_cifar_folder(d / "cifar10" / "cifar-10-batches-bin", c), id="below"
        ),
        pytest.param(
            lambda d, c: (d / "cifar-10-binary.tar.gz").write_bytes(
                cifar_archive(cifar_batches(c))
            ),
            id="archive",
        ),
    ],
)  # fmt: skip
def test_cifar_is_read_from_every_layout(tmp_path, write):
    content = arrays((32, 32, 3), train=11, test=4)
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, content)
    data = datasets.load("cifar10", folder, download=False)
    assert_holds(data, content, channels=3)
    assert data.class_names[0] == "airplane"
    assert not list(folder.parent.rglob("*.html")), "the archive was extracted"


def full_labels(balanced):
    """60,000 labels: 6,000 of each class, as Fashion-MNIST has, or classes of other sizes."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), 6_000)
    if not balanced:
        labels[:1] = 1
    return labels


@pytest.mark.parametrize(
    ("name", "balanced", "found"),
    [
        pytest.param("mnist", True, False, id="fashion-is-not-mnist"),
        pytest.param("mnist", False, True, id="mnist"),
        pytest.param("fashion_mnist", False, False, id="mnist-is-not-fashion"),
        pytest.param("fashion_mnist", True, True, id="fashion"),
    ],
)
def test_idx_files_of_the_other_set_are_not_taken(tmp_path, name, balanced, found):
    content = arrays()
    content["y_train"] = full_labels(balanced)
    write_idx(tmp_path / "data", content)
    assert bool(datasets.available(tmp_path / "data")[name]) == found
    if not found:
        with pytest.raises(DatasetError, match=r"holds IDX files of (Fashion-)?MNIST or a"):
            datasets.load(name, tmp_path / "data", download=False)
    # In a folder of the set's name, the name is believed.
    write_idx(tmp_path / "data" / name, content)
    assert datasets.available(tmp_path / "data")[name] == str(tmp_path / "data" / name)


def test_own_subfolder_comes_before_files_that_could_be_either(tmp_path):
    direct, below = arrays(seed=1), arrays(seed=2)
    write_idx(tmp_path / "data", direct)
    write_idx(tmp_path / "data" / "fashion-mnist", below)
    assert_holds(datasets.load("fashion_mnist", tmp_path / "data"), below)
    assert_holds(datasets.load("mnist", tmp_path / "data"), direct)


def test_small_idx_files_without_a_name_are_said_to_be_believed(tmp_path):
    for folder in ("data", "fashion-mnist"):
        write_idx(tmp_path / folder, GOOD)
    believed = datasets.load("mnist", tmp_path / "data")
    assert "(believed to be MNIST)" in believed.source
    named = datasets.load("fashion_mnist", tmp_path / "fashion-mnist")
    assert "believed" not in named.source
    with pytest.raises(DatasetError, match="holds IDX files of Fashion-MNIST"):
        datasets.load("mnist", tmp_path / "fashion-mnist", download=False)


def test_place_that_is_passed_over_is_said(tmp_path, monkeypatch):
    write_npz(tmp_path / "keras" / "datasets" / "mnist.npz", GOOD)
    write_idx(tmp_path / "half", GOOD)
    (tmp_path / "half" / IDX_NAMES["y_test"]).unlink()
    (tmp_path / "half" / IDX_NAMES["x_test"]).write_bytes(b"damaged")
    monkeypatch.setenv("TFP_VAE_DATA_DIR", str(tmp_path / "absent"))
    with pytest.warns(UserWarning, match="MNIST is taken from .*mnist.npz, not from ") as caught:
        assert_holds(datasets.load("mnist", tmp_path / "half"), GOOD)
    (warning,) = caught
    for part in ("half holds t10k-images", "but not t10k-labels", "absent (no such folder)"):
        assert part in str(warning.message)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("TFP_VAE_DATA_DIR", str(tmp_path / "empty"))
    datasets.load("mnist")  # a folder of other things is no one's mistake: no warning


def test_order_of_places(tmp_path, monkeypatch):
    made = {}
    for seed, place in enumerate(("argument", "variable", "keras/datasets")):
        made[place] = arrays(seed=seed)
        write_npz(tmp_path / place / "mnist.npz", made[place])
    monkeypatch.setenv("TFP_VAE_DATA_DIR", str(tmp_path / "variable"))
    for place in made:
        assert datasets.available(tmp_path / "argument")["mnist"].startswith(str(tmp_path / place))
        assert_holds(datasets.load("mnist", tmp_path / "argument", download=False), made[place])
        (tmp_path / place / "mnist.npz").unlink()
    assert datasets.available(tmp_path / "argument") == {
        "mnist": "",
        "fashion_mnist": "",
        "cifar10": "",
        "digits": "scikit-learn",
    }


def test_damaged_file_is_not_passed_over_for_a_good_one(tmp_path):
    write_npz(tmp_path / "keras" / "datasets" / "mnist.npz", arrays())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mnist.npz").write_bytes(b"")
    for name in ("mnist", "auto"):
        with pytest.raises(DatasetError, match=re.escape(str(tmp_path / "data" / "mnist.npz"))):
            datasets.load(name, tmp_path / "data")


# ---------------------------------------------------------------------- damaged files


def _npz_bytes(**content):
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


def _npy_header(shape, descr="|u1"):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def _npz_of_raw(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _flipped(data, at):
    return data[:at] + bytes((data[at] ^ 0xFF,)) + data[at + 1 :]


class Explosive:
    """Unpickling this makes a file: proof that somebody unpickled."""

    def __reduce__(self):
        return (os.system, ("touch unpickled",))


GOOD = arrays()
GOOD_NPZ = _npz_bytes(**GOOD)
NPZ_FAILURES = [
    ("empty", b"", "expected a .npz file of NumPy, got BadZipFile"),
    ("truncated", GOOD_NPZ[:-200], "expected a .npz file of NumPy, got BadZipFile"),
    ("text", b"<html>Not found</html>", "expected a .npz file of NumPy"),
    ("flipped-byte", _flipped(GOOD_NPZ, 3000), "Bad CRC-32"),
    ("plain-pickle", pickle.dumps(Explosive()), "expected a .npz file of NumPy"),
    (
        "pickle-inside",
        _npz_bytes(**{**GOOD, "x_train": np.array([Explosive()] * 7)}),
        r"\[x_train\]: expected an array of numbers, got pickled Python objects",
    ),
    (
        "header-lies",
        _npz_of_raw({"x_train.npy": _npy_header((1 << 33, 28, 28)), "y_train.npy": b""}),
        r"\[x_train\]: expected 6,734,[\d,]+ bytes for uint8 of shape .*, got \d+ bytes",
    ),
    (
        "header-is-no-literal",
        _npz_of_raw({"x_train.npy": b"\x93NUMPY\x01\x00\x06\x00open()"}),
        "expected a .npz file of NumPy",
    ),
    (
        "missing-key",
        _npz_bytes(**{k: v for k, v in GOOD.items() if k != "y_test"}),
        "expected the arrays x_train, y_train, x_test, y_test .* got x_test, x_train, y_train",
    ),
    (
        "wrong-rank",
        _npz_bytes(**{**GOOD, "x_train": GOOD["x_train"].reshape(7, 784)}),
        r"\[x_train\]: expected shape \('N', 28, 28, 1\) of MNIST, got \(7, 784\)",
    ),
    (
        "other-size",
        _npz_bytes(**{**GOOD, "x_test": GOOD["x_test"][:, :14, :14]}),
        r"\[x_test\]: expected shape \('N', 28, 28, 1\) of MNIST, got \(3, 14, 14\)",
    ),
    (
        "wrong-dtype",
        _npz_bytes(**{**GOOD, "x_train": GOOD["x_train"].astype(np.int64)}),
        r"\[x_train\]: expected uint8 pixels of MNIST, got int64",
    ),
    (
        "float-labels",
        _npz_bytes(**{**GOOD, "y_train": GOOD["y_train"] / 2}),
        r"\[y_train\]: expected integer labels of shape \(N,\), got float64",
    ),
    (
        "one-label-too-few",
        _npz_bytes(**{**GOOD, "y_test": GOOD["y_test"][:2]}),
        r"\[y_test\]: expected one label for each of 3 images, got 2",
    ),
    (
        "eleventh-class",
        _npz_bytes(**{**GOOD, "y_test": np.array([0, 10, 1])}),
        r"\[y_test\]: expected labels of 0 to 9, got 10",
    ),
    (
        "negative-label",
        _npz_bytes(**{**GOOD, "y_test": np.array([0, -1, 1])}),
        r"\[y_test\]: expected classes from 0 to 99,999, got -1",
    ),
    (
        "label-beyond-int64",
        _npz_bytes(**{**GOOD, "y_test": np.array([0, 2**64 - 1, 1], np.uint64)}),
        r"\[y_test\]: expected classes from 0 to 99,999, got 18446744073709551615",
    ),
    (
        "numbers-that-are-no-classes",
        _npz_bytes(**{**GOOD, "y_test": np.array([0, 10**7, 1])}),
        r"\[y_test\]: expected classes from 0 to 99,999, got 10000000",
    ),
    (
        "no-images",
        _npz_bytes(**{**GOOD, "x_test": GOOD["x_test"][:0], "y_test": GOOD["y_test"][:0]}),
        r"\[x_test\]: expected at least one image, got shape \(0, 28, 28\)",
    ),
]


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(content, message, id=name) for name, content, message in NPZ_FAILURES],
)
def test_bad_npz_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load("mnist", tmp_path / "data")
    assert str(caught.value).startswith(str(path))
    assert not (tmp_path / "unpickled").exists()


GOOD_IDX = idx_bytes(GOOD["x_train"])
LYING_IDX = bytes((0, 0, 8, 3)) + struct.pack(">3I", 1 << 31, 1 << 10, 1 << 10)
IDX_FAILURES = [
    ("empty", b"", "begins with b''"),
    ("cut-in-header", GOOD_IDX[:9], "got error: unpack requires"),
    ("cut-in-values", GOOD_IDX[:-1], "expected 5,488 values .*, got 5,487"),
    ("one-byte-more", GOOD_IDX + b"\0", "expected 5,488 values .*, got 5,489"),
    ("header-lies", LYING_IDX + bytes(99), r"expected 2,251,799,813,685,248 values .*, got 99"),
    ("labels", idx_bytes(GOOD["y_train"]), r"images \(magic number 2051\), got a file that begins"),
    ("web-page", b"<!DOCTYPE html>", "begins with b'<!DO'"),
    ("gz-cut", gzip.compress(GOOD_IDX)[:-2000], "EOFError"),
    ("gz-flipped", _flipped(gzip.compress(GOOD_IDX), -5), "CRC check failed"),
    ("gz-short", gzip.compress(GOOD_IDX[:-1]), "expected 5,488 values .*, got 5,487"),
    ("gz-more", gzip.compress(GOOD_IDX + bytes(9)), "expected 5,488 values .*, got more"),
    ("gz-header-lies", gzip.compress(LYING_IDX + bytes(99)), "2,251,.* values .*, got at most"),
    ("gz-no-idx", gzip.compress(b"<!DOCTYPE html>"), "begins with b'<!DO'"),
]


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(content, message, id=name) for name, content, message in IDX_FAILURES],
)
def test_bad_idx_is_named(tmp_path, content, message):
    write_idx(tmp_path / "mnist", GOOD)
    path = tmp_path / "mnist" / IDX_NAMES["x_train"]
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load("mnist", tmp_path)
    assert str(caught.value).startswith(str(path))


def test_gzip_that_unfolds_without_end_is_not_read_to_its_end(tmp_path, monkeypatch):
    # 200 MB of zeros behind a header that promises 16: only 17 of them may be asked for.
    path = tmp_path / "bomb.gz"
    header = bytes((0, 0, 8, 1)) + struct.pack(">I", 16)
    path.write_bytes(gzip.compress(header + bytes(200 << 20), compresslevel=1))
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size)
    )
    with pytest.raises(DatasetError, match=r"expected 16 values .*, got more"):
        files.read_idx(path, 1)
    assert asked == [4, 4, 17]


def test_missing_idx_file_is_said(tmp_path):
    write_idx(tmp_path / "data", GOOD)
    (tmp_path / "data" / IDX_NAMES["y_test"]).unlink()
    with pytest.raises(DatasetError, match="but not t10k-labels-idx1-ubyte"):
        datasets.load("mnist", tmp_path / "data", download=False)


CIFAR = arrays((32, 32, 3), train=10, test=2)
CIFAR_BATCHES = cifar_batches(CIFAR)
CIFAR_FAILURES = [
    ("cut", cifar_archive(CIFAR_BATCHES)[:-9000], "expected a .tar.gz of CIFAR-10's binary"),
    ("web-page", b"<html>", "expected a .tar.gz of CIFAR-10's binary version, got BadGzipFile"),
    (
        "member-missing",
        cifar_archive({k: v for k, v in CIFAR_BATCHES.items() if "3" not in k}),
        "expected the members data_batch_3.bin",
    ),
    (
        "half-a-record",
        cifar_archive({**CIFAR_BATCHES, "test_batch.bin": bytes(5000)}),
        r"\[cifar-10-batches-bin/test_batch.bin\]: expected .* records of 3,073 bytes, got 5,000",
    ),
    (
        "eleventh-class",
        cifar_archive({**CIFAR_BATCHES, "test_batch.bin": b"\x0a" * 3073}),
        r"\[y_test\]: expected labels of 0 to 9, got 10",
    ),
]


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(content, message, id=name) for name, content, message in CIFAR_FAILURES],
)
def test_bad_cifar_archive_is_named(tmp_path, content, message):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load("cifar10", tmp_path)
    assert str(caught.value).startswith(str(path))


def test_bad_cifar_batch_is_named(tmp_path):
    write_cifar_folder(tmp_path / "data", CIFAR)
    path = tmp_path / "data" / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=re.escape(f"{path}: expected 1 to 20,000 records")):
        datasets.load("cifar10", tmp_path / "data")


# ---------------------------------------------------------------------- download


@pytest.fixture
def server():
    """An HTTP server on this computer: `files` by name, the names asked for in `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.lstrip("/")
            self.server.asked.append(name)
            content = self.server.files.get(name)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: self.server.most])

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.files, running.asked, running.most = {}, [], None
    running.base = f"http://127.0.0.1:{running.server_port}/"
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def served(name, content):
    """The files that the set is downloaded as."""
    if name == "mnist":
        return {"mnist.npz": _npz_bytes(**content)}
    if name == "cifar10":
        return {"cifar-10-binary.tar.gz": cifar_archive(cifar_batches(content))}
    return {f"{file}.gz": gzip.compress(idx_bytes(content[key])) for key, file in IDX_NAMES.items()}


def checksums(contents, algorithm="md5"):
    return {name: hashlib.new(algorithm, data).hexdigest() for name, data in contents.items()}


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_download_is_kept_and_not_repeated(server, tmp_path, monkeypatch, name, algorithm):
    content = CIFAR if name == "cifar10" else GOOD
    server.files = served(name, content)
    _serve_from(monkeypatch, server.base, checksums(server.files, algorithm))
    before = socket.getdefaulttimeout()
    (tmp_path / "empty").mkdir()
    data = datasets.load(name, tmp_path / "empty", timeout=5)
    assert_holds(data, content, channels=3 if name == "cifar10" else 1)
    assert "(downloaded)" in data.source
    assert sorted(server.asked) == sorted(server.files)
    assert socket.getdefaulttimeout() == before
    again = datasets.load(name, timeout=5)
    assert_holds(again, content, channels=3 if name == "cifar10" else 1)
    assert len(server.asked) == len(server.files)
    cached = {path.name for path in (tmp_path / "keras").rglob("*") if path.is_file()}
    assert cached == set(server.files)


def _leftovers(tmp_path):
    return [path for path in (tmp_path / "keras").rglob("*") if path.name != "datasets"]


def test_wrong_checksum_is_refused_and_leaves_nothing(server, tmp_path, monkeypatch):
    server.files = served("mnist", GOOD)
    _serve_from(monkeypatch, server.base, {"mnist.npz": "0" * 64})
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"mnist\.npz: the download failed: .*hash"):
            datasets.load("mnist", timeout=5)
        assert _leftovers(tmp_path) == []
    assert len(server.asked) == 2
    assert datasets.available()["mnist"] == ""


def test_download_cut_short_leaves_nothing_and_is_made_again(server, tmp_path, monkeypatch):
    server.files = served("mnist", GOOD)
    server.most = 3000
    _serve_from(monkeypatch, server.base, checksums(server.files))
    with pytest.raises(DatasetError, match=r"mnist\.npz: the download failed"):
        datasets.load("mnist", timeout=5)
    assert _leftovers(tmp_path) == []
    server.most = None
    assert_holds(datasets.load("mnist", timeout=5), GOOD)


def test_download_goes_on_where_it_stopped(server, tmp_path, monkeypatch):
    server.files = served("fashion_mnist", GOOD)
    _serve_from(monkeypatch, server.base, checksums(server.files))
    whole = dict(server.files)
    del server.files["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(DatasetError, match="404"):
        datasets.load("fashion_mnist", timeout=5)
    server.files, server.asked[:] = whole, []
    # A half file that some other program left in the cache is not believed.
    broken = tmp_path / "keras" / "datasets" / "fashion-mnist" / "train-labels-idx1-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:20])
    assert_holds(datasets.load("fashion_mnist", timeout=5), GOOD)
    assert server.asked == ["train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]


def test_absent_file_on_the_server(server, monkeypatch, tmp_path):
    _serve_from(monkeypatch, server.base, {})
    monkeypatch.setenv("TFP_VAE_DATA_DIR", str(tmp_path / "absent"))
    (tmp_path / "mine").mkdir()
    with pytest.raises(DatasetError, match="404") as caught:
        datasets.load("mnist", tmp_path / "mine", timeout=5)
    message = str(caught.value)
    for part in (
        f"data_dir {tmp_path / 'mine'}; ",
        f"$TFP_VAE_DATA_DIR {tmp_path / 'absent'} (no such folder)",
        f"Keras' cache {tmp_path / 'keras' / 'datasets'}",
        "Set TFP_VAE_DATA_DIR to a folder that holds mnist.npz or the IDX files",
        "'digits'",
    ):
        assert part in message


def test_refused_connection():
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1 port .* cannot be reached: .*refused"):
        datasets.load("cifar10", timeout=5)


def test_download_turned_off(server, monkeypatch):
    _serve_from(monkeypatch, server.base, {})
    with pytest.raises(DatasetError, match="Downloading was turned off"):
        datasets.load("mnist", download=False)
    assert server.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="never-answers"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 900000\r\n\r\nPK", id="stops-half-way"),
    ],
)
def test_silent_server_is_given_up(tmp_path, monkeypatch, answer):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held = []

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                held.append(connection)
                if answer:
                    connection.sendall(answer)

        threading.Thread(target=accept, daemon=True).start()
        _serve_from(monkeypatch, f"http://127.0.0.1:{listening.getsockname()[1]}/", {})
        started = time.monotonic()
        with pytest.raises(DatasetError, match=r"the download failed: .*timed out"):
            datasets.load("mnist", timeout=0.4)
        assert time.monotonic() - started < 30
        assert _leftovers(tmp_path) == []
        listening.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def test_look_up_of_a_name_that_hangs_is_given_up(monkeypatch):
    release = threading.Event()

    def hang(*_):
        release.wait(60)
        raise OSError("nobody waits for this any more")

    monkeypatch.setattr(socket, "create_connection", hang)
    started = time.monotonic()
    with pytest.raises(DatasetError, match=r"cannot be reached: no answer within 0\.2 s"):
        datasets.load("mnist", timeout=0.2)
    assert time.monotonic() - started < 30
    release.set()


def test_probe_asks_the_proxy_where_there_is_one(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "direct.example")
    assert places._first_hop("https://a.example/file") == ("proxy.example", 3128)
    assert places._first_hop("https://direct.example/file") == ("direct.example", 443)
    assert places._first_hop("http://a.example:81/file") == ("a.example", 81)


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=r"a folder that can be written, .* KERAS_HOME"):
        datasets.load("mnist")


def test_published_checksums_are_whole():
    items = {item.file: item for _, wanted in PUBLISHED.values() for item in wanted}
    assert len(items) == 6
    for item in items.values():
        assert item.url.startswith("https://")
        assert re.fullmatch("[0-9a-f]{32}|[0-9a-f]{64}", item.checksum)
    # Keras knows the same file by the same checksum.
    assert items["mnist.npz"].checksum in inspect.getsource(keras.datasets.mnist.load_data)


# ---------------------------------------------------------------------- auto, names, options


def test_auto_is_mnist_where_it_can_be_had(tmp_path):
    write_npz(tmp_path / "data" / "mnist.npz", GOOD)
    data = datasets.load("auto", tmp_path / "data")
    assert data.name == "mnist"
    assert_holds(data, GOOD)


def test_auto_says_that_it_is_digits(tmp_path):
    with pytest.warns(UserWarning, match="MNIST could not be had.*digits, not MNIST") as caught:
        data = datasets.load("auto", tmp_path, timeout=1)
    assert caught[0].filename == __file__
    assert data.name == "digits"
    assert data.source.startswith("digits: ")
    assert "MNIST could not be had: MNIST was not found in data_dir" in data.source
    assert "refused" in data.source


BAD_CALLS = [
    ("unknown", {"name": "mnst"}, "Did you mean 'mnist'?"),
    ("unknown-fashion", {"name": "fashion_mnits"}, "Did you mean 'fashion_mnist'?"),
    ("unlike-any", {"name": "zzz"}, "or of a folder of images, got 'zzz'.$"),
    ("empty-name", {"name": ""}, "expected the name of a data set or a path, got ''"),
    ("number", {"name": 5}, "expected the name of a data set or a path, got 5"),
    ("absent-path", {"name": "there/is.npz"}, "expected a file or folder, got nothing"),
    ("other-file", {"name": __file__}, "expected a .npz or .npy file .* ending in '.py'"),
    ("file-as-folder", {"data_dir": __file__}, "data_dir: expected a folder, got the file"),
    ("nobody's-folder", {"data_dir": "~nobody-of-that-name/x"}, "data_dir: expected the folder of"),
    ("nobody's-images", {"name": "~nobody-of-that-name/x"}, "name: expected the folder of a user"),
    ("absent-folder", {"data_dir": "not/there"}, "data_dir: expected a folder, got not/there"),
    ("timeout", {"timeout": 0}, "timeout: expected seconds above 0, got 0"),
    ("timeout-nan", {"timeout": float("nan")}, "timeout: expected seconds above 0, got nan"),
    ("fraction", {"test_fraction": 1}, r"test_fraction: expected a number in \[0, 1\), got 1"),
    ("seed", {"seed": -1}, "seed: expected an integer of at least 0, got -1"),
    ("grey-named", {"grayscale": True}, "expected a folder of images to use them on, got 'mnist'"),
    ("size-named", {"image_size": (8, 8)}, "expected a folder of images to use them on"),
]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [pytest.param(arguments, message, id=name) for name, arguments, message in BAD_CALLS],
)
def test_bad_call_of_load(arguments, message):
    with pytest.raises(DatasetError, match=message):
        datasets.load(**{"download": False, **arguments})


def test_data_dir_variable_that_is_a_file(monkeypatch):
    monkeypatch.setenv("TFP_VAE_DATA_DIR", __file__)
    with pytest.raises(DatasetError, match=r"\$TFP_VAE_DATA_DIR: expected a folder, got the file"):
        datasets.available()


# ---------------------------------------------------------------------- digits


def test_digits_are_enlarged_scans_in_a_black_frame():
    data = datasets.load("digits")
    scans = load_digits()
    test = np.arange(1797) % 6 == 5
    images = np.empty((1797, 28, 28, 1), np.float32)
    images[test], images[~test] = data.x_test, data.x_train
    labels = np.empty(1797, int)
    labels[test], labels[~test] = data.y_test, data.y_train

    assert (data.x_train.shape, data.x_test.shape) == ((1498, 28, 28, 1), (299, 28, 28, 1))
    assert data.x_train.dtype == np.float32
    np.testing.assert_array_equal(labels, scans.target)
    assert (images.min(), images.max()) == (0, 1)
    frame = images.copy()
    frame[:, 4:24, 4:24] = 0
    assert not frame.any()
    # Pillow's bicubic is another implementation of the same cubic.
    for index in (0, 5, 1000, 1796):
        scan = Image.fromarray((scans.images[index] / 16).astype(np.float32))
        large = np.asarray(scan.resize((20, 20), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(images[index, 4:24, 4:24, 0], np.clip(large, 0, 1), atol=1e-5)
    # Grey, not binary; and classes in proportion in both parts.
    assert np.mean((images > 0.1) & (images < 0.9)) > 0.05
    for part in (data.y_train, data.y_test):
        shares = np.bincount(part, minlength=10) / len(part)
        assert np.all(np.abs(shares - 0.1) < 0.03)
    assert data.class_names == tuple("0123456789")


def test_digits_are_the_same_every_time():
    first, second = datasets.load("digits"), datasets.load("digits", seed=5)
    np.testing.assert_array_equal(first.x_train, second.x_train)
    np.testing.assert_array_equal(first.y_test, second.y_test)


# ---------------------------------------------------------------------- own arrays


def test_own_npz_with_a_test_set_is_taken_as_it_is(tmp_path):
    content = arrays((6, 5, 2))
    data = datasets.load(write_npz(tmp_path / "mine.npz", content))
    assert_holds(data, content, channels=2)
    assert (data.name, data.class_names) == ("mine", None)
    assert data.source == f"{tmp_path / 'mine.npz'}: 7 training and 3 test images"


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3])
def test_own_images_are_split_by_seed(tmp_path, fraction):
    images = np.arange(50, dtype=np.uint8).repeat(6).reshape(50, 3, 2)
    path = write_npz(tmp_path / "mine.npz", {"x_train": images, "y_train": np.arange(50)})
    data = datasets.load(str(path), test_fraction=fraction, seed=3)
    held_out = {0.0: 0, 0.01: 1, 0.3: 15}[fraction]
    assert len(data.x_test) == len(data.y_test) == held_out
    assert sorted([*data.y_train, *data.y_test]) == list(range(50))
    np.testing.assert_allclose(data.x_train[:, 0, 0, 0] * 255, data.y_train, atol=1e-4)
    np.testing.assert_allclose(data.x_test[:, 2, 1, 0] * 255, data.y_test, atol=1e-4)
    said = f"split at random here (test_fraction={fraction:g}, seed=3)"
    assert (said in data.source) == (fraction > 0)
    again = datasets.load(str(path), test_fraction=fraction, seed=3)
    np.testing.assert_array_equal(again.x_test, data.x_test)
    if held_out > 1:
        other = datasets.load(str(path), test_fraction=fraction, seed=4)
        assert not np.array_equal(other.y_test, data.y_test)
        assert list(data.y_test) != list(range(50 - held_out, 50)), "a tail is no random part"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f4"])
def test_own_npy(tmp_path, dtype, order):
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5))
    images[0, 0, 0] = 255
    expected = images / 255
    stored = images.astype(dtype) if np.dtype(dtype).kind == "u" else expected.astype(dtype)
    np.save(tmp_path / "mine.npy", np.asarray(stored, order=order))
    data = datasets.load(tmp_path / "mine.npy", test_fraction=0)
    assert data.x_train.dtype == np.dtype("=f4")
    assert data.x_train.max() == 1
    atol = 1e-3 if dtype is np.float16 else 1e-6
    np.testing.assert_allclose(data.x_train[..., 0], expected, atol=atol)
    assert (data.y_train, data.y_test) == (None, None)
    assert data.x_test.shape == (0, 6, 5, 1)


ONES = np.ones((4, 3, 3), np.float32)
OWN_FAILURES = [
    ("above-one", {"x_train": ONES * 2}, r"expected pixels in \[0, 1\], got values from 2 to 2"),
    ("below-zero", {"x_train": ONES - 2}, r"expected pixels in \[0, 1\], got values from -1 to -1"),
    ("nan", {"x_train": np.where(np.eye(3), np.nan, ONES)}, r"in \[0, 1\], got 12 NaN\.$"),
    ("channels-first", {"x_train": np.ones((4, 1, 9, 9))}, "looks like .N, channels, height"),
    ("infinite", {"x_train": ONES * np.inf}, r"in \[0, 1\], got values from inf to inf"),
    ("integers", {"x_train": np.ones((4, 3, 3), int)}, "uint8 in 0..255 or floats .*, got int64"),
    ("binary-uint8", {"x_train": ONES.astype(np.uint8)}, "in 0..255, got none above 1"),
    ("flat", {"x_train": np.ones((4, 9))}, r"expected shape \(N, height, width\) .*\(4, 9\)"),
    ("empty", {"x_train": ONES[:0]}, r"at least one image, got shape \(0, 3, 3\)"),
    ("other-key", {"images": ONES}, "expected the arrays x_train as Keras names them, got images"),
    ("no-arrays", {}, "expected the arrays x_train as Keras names them, got none"),
    (
        "test-of-another-shape",
        {"x_train": ONES, "x_test": ONES[:, :2]},
        r"images of one shape, got \(3, 3, 1\) in x_train and \(2, 3, 1\) in x_test",
    ),
    ("labels-alone", {"x_train": ONES, "y_test": [1]}, "expected x_test beside y_test"),
    ("labels-short", {"x_train": ONES, "y_train": [1]}, "one label for each of 4 images, got 1"),
    ("one-image", {"x_train": ONES[:1]}, "expected at least 2 images to split"),
]


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(content, message, id=name) for name, content, message in OWN_FAILURES],
)
def test_bad_own_arrays(tmp_path, content, message):
    path = write_npz(tmp_path / "mine.npz", content)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "expected a .npy file of NumPy", id="empty"),
        pytest.param(pickle.dumps([1]), "expected a .npy file of NumPy", id="pickle"),
        pytest.param(_npy_header((1 << 40, 9, 9)) + b"1", "got .* bytes", id="header-lies"),
        pytest.param(_npy_header((-1, 9, 9)) + b"1", "got .* bytes", id="negative"),
        pytest.param(_npy_header((1,), "|O") + pickle.dumps([1]), "pickled", id="objects"),
    ],
)
def test_bad_npy(tmp_path, content, message):
    (tmp_path / "mine.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load(tmp_path / "mine.npy")
    assert str(caught.value).startswith(str(tmp_path / "mine.npy"))


# ---------------------------------------------------------------------- folders of images


def test_folder_of_classes(tmp_path):
    folder = tmp_path / "pets"
    expected = {}
    for label, name in enumerate(("ant", "bee", "cat")):
        for index in range(label + 2):
            pixels = write_png(folder / name / f"{index}.png", seed=10 * label + index)
            expected[pixels.tobytes()] = label
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("no image")
    (folder / ".hidden").mkdir()
    write_png(folder / ".hidden" / "a.png")
    data = datasets.load(folder, test_fraction=0.2)
    assert data.class_names == ("ant", "bee", "cat")
    assert data.name == "pets"
    assert (data.x_train.shape, data.x_test.shape) == ((7, 5, 4, 3), (2, 5, 4, 3))
    got = {}
    for part in ("train", "test"):
        images, labels = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        for image, label in zip(images, labels, strict=True):
            got[np.round(image * 255).astype(np.uint8).tobytes()] = label
    assert got == expected


def test_the_first_images_of_a_folders_parts_are_of_all_classes(tmp_path):
    """Many figures are of the first hundred test images, and a folder is read class by class."""
    for label, name in enumerate(("ant", "bee", "cat")):
        for index in range(40):
            pixels = np.full((5, 4), 10 + 80 * label + index, np.uint8)
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    data = datasets.load(tmp_path, test_fraction=0.5)
    for images, labels in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert set(labels[:15]) == {0, 1, 2}
        np.testing.assert_array_equal(np.round(images[:, 0, 0, 0] * 255 - 10) // 80, labels)
    whole = datasets.load(tmp_path, test_fraction=0)
    np.testing.assert_array_equal(whole.y_train, np.repeat([0, 1, 2], 40))


def test_flat_folder_of_several_formats(tmp_path):
    for index, suffix in enumerate(("png", "jpg", "JPEG", "bmp")):
        write_png(tmp_path / f"{index}.{suffix}", value=40 * index)
    (tmp_path / "notes.txt").write_text("no image")
    data = datasets.load(str(tmp_path), test_fraction=0)
    assert (data.y_train, data.class_names) == (None, None)
    np.testing.assert_allclose(data.x_train.mean((1, 2, 3)) * 255, [0, 40, 80, 120], atol=2)


def test_folder_read_as_grey(tmp_path):
    pixels = write_png(tmp_path / "a.png", seed=1)
    data = datasets.load(tmp_path, grayscale=True, test_fraction=0)
    luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, which Pillow documents
    np.testing.assert_allclose(data.x_train[0, ..., 0] * 255, luma, atol=1)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_folder_of_grey_images_is_grey(tmp_path, mode):
    for index in range(2):
        Image.new(mode, (4, 5), 1 if mode == "1" else 255).save(tmp_path / f"{index}.png")
    data = datasets.load(tmp_path, test_fraction=0)
    np.testing.assert_array_equal(data.x_train, np.ones((2, 5, 4, 1)))
    assert ("alpha channel left out of 2" in data.source) == (mode == "LA")
    assert datasets.load(tmp_path, grayscale=False, test_fraction=0).image_shape == (5, 4, 3)
    write_png(tmp_path / "colour.png")
    assert datasets.load(tmp_path, test_fraction=0).image_shape == (5, 4, 3)


def test_alpha_channel_that_is_left_out_is_said(tmp_path):
    write_png(tmp_path / "a.png")
    Image.new("RGBA", (4, 5), (255, 0, 0, 0)).save(tmp_path / "b.png")
    data = datasets.load(tmp_path, test_fraction=0)
    assert "alpha channel left out of 1" in data.source
    np.testing.assert_array_equal(data.x_train[1, 0, 0], [1, 0, 0])


def test_folder_resized_to_height_and_width(tmp_path):
    write_png(tmp_path / "a.png", (8, 6, 3), value=60)
    write_png(tmp_path / "b.png", (3, 9, 3), value=90)
    with pytest.raises(DatasetError) as caught:
        datasets.load(tmp_path)
    for part in (str(tmp_path / "a.png"), str(tmp_path / "b.png"), "8×6", "3×9", "image_size"):
        assert part in str(caught.value)
    data = datasets.load(tmp_path, image_size=(4, 7), test_fraction=0)
    assert data.x_train.shape == (2, 4, 7, 3)
    np.testing.assert_allclose(data.x_train.mean((1, 2, 3)) * 255, [60, 90], atol=1)


def test_photo_is_turned_as_its_tag_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90° to see it upright
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert datasets.load(tmp_path, test_fraction=0).x_train.shape == (1, 4, 5, 3)


def _bomb(folder):
    write_png(folder / "bomb.png", (200, 200, 3), value=0)


def _sixteen_bits(folder):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(folder / "deep.png")


def _cut_png(folder):
    write_png(folder / "cut.png", (40, 40, 3))
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:-900])


FOLDER_FAILURES = [
    ("empty", lambda f: None, "expected images .* got none among 0 entries"),
    ("only-text", lambda f: (f / "a.txt").write_text(""), "got none among 1 entries"),
    ("not-an-image", lambda f: (f / "a.png").write_bytes(b"x"), "a.png: expected a readable image"),
    ("cut", _cut_png, "cut.png: expected a readable image, got OSError"),
    ("bomb", _bomb, "bomb.png: expected a readable image, got DecompressionBomb"),
    ("sixteen-bits", _sixteen_bits, "deep.png: expected 8 bits for each channel, .*'I;16'"),
    (
        "flat-and-classes",
        lambda f: (write_png(f / "a.png"), write_png(f / "b" / "c.png")),
        "got both: a.png and b/",
    ),
    (
        "train-and-test",
        lambda f: (write_png(f / "Train" / "a.png"), write_png(f / "test" / "c.png")),
        "got Train, test, which look like a split",
    ),
]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("write", "message"),
    [pytest.param(write, message, id=name) for name, write, message in FOLDER_FAILURES],
)
def test_bad_folder(tmp_path, monkeypatch, write, message):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder)
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("size", [(4,), 4, (0, 4), "44"])
def test_bad_image_size(tmp_path, size):
    write_png(tmp_path / "a.png")
    with pytest.raises(ValueError, match="image_size: expected"):
        datasets.load(tmp_path, image_size=size)


# ---------------------------------------------------------------------- binarize


def test_threshold_counts_itself_as_one():
    images = np.array([[0.0, 0.3, 0.3001, 1.0]])
    np.testing.assert_array_equal(datasets.binarize(images, "threshold"), [[0, 0, 0, 1]])
    np.testing.assert_array_equal(
        datasets.binarize(images, "threshold", threshold=0.3), [[0, 1, 1, 1]]
    )
    assert datasets.binarize(images, "threshold").dtype == np.float32


def test_none_leaves_the_grey():
    images = np.array([[0.25, 0.5]])
    same = datasets.binarize(images, "none")
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same, images)


def test_dynamic_draws_have_the_grey_as_their_mean():
    grey = np.array([0.0, 0.01, 0.3, 0.5, 0.97, 1.0])
    draws = 40_000
    ones = datasets.binarize(np.tile(grey, (draws, 1)), "dynamic", seed=1)
    assert set(np.unique(ones)) == {0, 1}
    error = np.sqrt(grey * (1 - grey) / draws)  # 0 for black and white: those are exact
    assert np.all(np.abs(ones.mean(0, dtype=np.float64) - grey) <= 5 * error)
    # Independent: neighbours of grey 0.5 agree half of the time, along both axes.
    half = datasets.binarize(np.full((2_500, 40), 0.5), "dynamic", seed=2)
    for agree in (half[:, 1:] == half[:, :-1], half[1:] == half[:-1]):
        assert abs(agree.mean() - 0.5) < 5 * 0.5 / np.sqrt(agree.size)


def test_dynamic_is_repeatable_by_seed():
    images = np.full((1_500, 4), 0.5)
    first = datasets.binarize(images, "dynamic", seed=7)
    np.testing.assert_array_equal(first, datasets.binarize(images, "dynamic", seed=7))
    assert not np.array_equal(first, datasets.binarize(images, "dynamic", seed=8))
    assert not np.array_equal(first[:500], first[1_000:]), "the same draw for each block of images"


GREY = np.full((6, 2, 2, 1), 0.5, np.float32)
PIXEL_FAILURES = [
    ("integers", np.ones((6, 2), np.uint8), r"expected floats in \[0, 1\], got uint8"),
    ("bool", np.ones((6, 2), bool), r"expected floats in \[0, 1\], got bool"),
    ("empty", GREY[:0], r"at least one image, got shape \(0, 2, 2, 1\)"),
    ("scalar", np.float32(0.5), r"at least one image, got shape \(\)"),
    ("above-one", GREY * 3, r"expected pixels in \[0, 1\], got values from 1.5 to 1.5"),
    ("below-zero", GREY - 1, r"expected pixels in \[0, 1\], got values from -0.5 to -0.5"),
    ("nan", np.where(GREY > 0, np.nan, GREY), r"expected pixels in \[0, 1\], got 24 NaN"),
]
METHOD_FAILURES = [
    ("unknown", {"method": "static"}, "expected one of threshold, dynamic, none, got 'static'"),
    ("threshold", {"threshold": 1.5}, r"threshold: expected a number in \[0, 1\], got 1.5"),
    ("threshold-nan", {"threshold": float("nan")}, "threshold: expected a number"),
    ("no-seed", {"method": "dynamic"}, "seed: expected an integer of at least 0.* got None"),
    ("bad-seed", {"method": "dynamic", "seed": -3}, "seed: expected an integer .* got -3"),
]


@pytest.mark.parametrize(
    ("images", "message"),
    [pytest.param(images, message, id=name) for name, images, message in PIXEL_FAILURES],
)
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda images: datasets.binarize(images, "threshold"), id="binarize"),
        pytest.param(datasets.pipeline, id="pipeline"),
    ],
)
def test_bad_pixels(function, images, message):
    with pytest.raises(DatasetError, match=message):
        function(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [pytest.param(arguments, message, id=name) for name, arguments, message in METHOD_FAILURES],
)
def test_bad_call_of_binarize(arguments, message):
    with pytest.raises(DatasetError, match=message):
        datasets.binarize(GREY, **{"method": "threshold", **arguments})


# ---------------------------------------------------------------------- pipeline


def numbered(count):
    """Images that tell which they are: every pixel of image i is i / count."""
    return np.tile((np.arange(count) / count)[:, None, None, None], (1, 2, 2, 1)).astype(np.float32)


def epoch(dataset):
    """All of one pass, joined."""
    batches = [tf.nest.map_structure(np.asarray, batch) for batch in dataset]
    if isinstance(batches[0], tuple):
        return tuple(np.concatenate(part) for part in zip(*batches, strict=True))
    return np.concatenate(batches)


def order(dataset, count):
    return np.round(epoch(dataset)[:, 0, 0, 0] * count).astype(int).tolist()


def test_every_image_once_an_epoch_in_a_new_order():
    dataset = datasets.pipeline(numbered(230), batch_size=32, seed=4)
    orders = [order(dataset, 230) for _ in range(3)]
    for one in orders:
        assert sorted(one) == list(range(230))
        assert one != list(range(230))
    assert orders[0] != orders[1] != orders[2] != orders[0]
    # A shuffle of the whole, not of a window: images move half-way across on average a third.
    assert np.mean(np.abs(np.array(orders[0]) - np.arange(230))) > 230 / 4


@pytest.mark.parametrize("binarization", ["none", "threshold", "dynamic"])
def test_epochs_are_repeatable_by_seed_alone(binarization):
    def epochs(seed, number=3, **options):
        dataset = datasets.pipeline(
            numbered(150), batch_size=40, binarization=binarization, seed=seed, **options
        )
        return [epoch(dataset) for _ in range(number)]

    tf.random.set_seed(1)
    first = epochs(3)
    tf.random.set_seed(2)
    for one, other in zip(first, epochs(3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], epochs(4)[0])
    # A resumed training goes on with the epochs that it would have had.
    (resumed,) = epochs(3, 1, initial_epoch=2)
    np.testing.assert_array_equal(resumed, first[2])


def test_repeat_is_the_same_as_epoch_after_epoch():
    apart = datasets.pipeline(numbered(50), batch_size=20)
    joined = datasets.pipeline(numbered(50), batch_size=20).repeat(2)
    assert order(joined, 50) == order(apart, 50) + order(apart, 50)


def test_labels_stay_with_their_images():
    dataset = datasets.pipeline(numbered(90), np.arange(90), batch_size=20)
    for _ in range(2):
        images, labels = epoch(dataset)
        np.testing.assert_allclose(images[:, 1, 1, 0] * 90, labels, atol=1e-4)
        assert sorted(labels) == list(range(90))


def test_dynamic_is_drawn_anew_for_every_image_and_epoch():
    grey = np.full((120, 4, 4, 1), 0.5, np.float32)
    dataset = datasets.pipeline(grey, batch_size=30, binarization="dynamic")
    drawn = np.concatenate([epoch(dataset), epoch(dataset)])
    assert set(np.unique(drawn)) == {0, 1}
    # 240 draws of 16 fair bits: were batches or epochs alike, half of them would be repeated.
    assert len(np.unique(drawn.reshape(240, -1), axis=0)) > 230


def test_dynamic_pipeline_has_the_grey_as_its_mean():
    grey = np.array([0.0, 0.05, 0.4, 0.8, 1.0], np.float32)
    dataset = datasets.pipeline(np.tile(grey, (2_000, 1)), binarization="dynamic", seed=5)
    draws = np.concatenate([epoch(dataset) for _ in range(5)])
    error = np.sqrt(grey * (1 - grey) / len(draws))
    assert np.all(np.abs(draws.mean(0, dtype=np.float64) - grey) <= 5 * error + 1e-7)


def test_test_data_keeps_its_order_and_its_draw():
    images = numbered(70)
    grey = datasets.pipeline(images, batch_size=30, training=False)
    drawn = datasets.pipeline(images, batch_size=30, training=False, binarization="dynamic", seed=9)
    expected = datasets.binarize(images, "dynamic", seed=9)
    for _ in range(2):
        np.testing.assert_array_equal(epoch(grey), images)
        np.testing.assert_array_equal(epoch(drawn), expected)
    other = datasets.pipeline(images, training=False, binarization="dynamic", seed=10)
    assert not np.array_equal(epoch(other), expected)


def test_threshold_in_a_pipeline():
    images = numbered(40)
    dataset = datasets.pipeline(images, training=False, binarization="threshold", threshold=0.25)
    np.testing.assert_array_equal(epoch(dataset), images >= 0.25)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("drop", "sizes"), [(False, [8, 8, 4]), (True, [8, 8])])
@pytest.mark.parametrize("binarization", ["none", "dynamic"])
def test_batches_have_known_number_and_shape(training, drop, sizes, binarization):
    dataset = datasets.pipeline(
        numbered(20),
        np.arange(20, dtype=np.int64),
        batch_size=8,
        drop_remainder=drop,
        training=training,
        binarization=binarization,
    )
    assert int(dataset.cardinality()) == len(sizes)
    images, labels = dataset.element_spec
    assert images.shape.as_list() == [8 if drop else None, 2, 2, 1]
    assert (images.dtype, labels.dtype) == (tf.float32, tf.int64)
    assert [len(x) for x, _ in dataset] == sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"batch_size": 0}, "batch_size: expected .* at least 1, got 0", id="batch-0"),
        pytest.param({"batch_size": 2.5}, "batch_size: expected .* got 2.5", id="batch-float"),
        pytest.param(
            {"batch_size": 7, "drop_remainder": True},
            "batch_size: expected at most the 6 images .* got 7",
            id="nothing-left",
        ),
        pytest.param({"labels": np.arange(5)}, r"each of 6 images, got shape \(5,\)", id="labels"),
        pytest.param({"labels": 3}, r"each of 6 images, got shape \(\)", id="label-scalar"),
        pytest.param({"labels": list("abcdef")}, "labels: expected numbers", id="label-text"),
        pytest.param({"binarization": "gray"}, "expected one of .* got 'gray'", id="binarization"),
        pytest.param({"threshold": -1}, "threshold: expected a number", id="threshold"),
        pytest.param({"seed": None}, "seed: expected an integer .* got None", id="seed"),
        pytest.param({"initial_epoch": -1}, "initial_epoch: expected at least 0", id="epoch"),
        pytest.param({"initial_epoch": 1.0}, "initial_epoch: expected an integer", id="epoch-1.0"),
    ],
)
def test_bad_call_of_pipeline(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.pipeline(GREY, **arguments)


# ---------------------------------------------------------------------- the real thing


@pytest.mark.skipif(
    not (pathlib.Path(REAL_DATA_DIR) / "mnist.npz").is_file() or not REAL_DATA_DIR,
    reason="needs TFP_VAE_DATA_DIR to name a folder with mnist.npz",
)
def test_real_mnist(monkeypatch):
    monkeypatch.setenv("TFP_VAE_DATA_DIR", REAL_DATA_DIR)
    data = datasets.load("mnist", download=False)
    assert data.x_train.shape == (60_000, 28, 28, 1)
    assert data.x_test.shape == (10_000, 28, 28, 1)
    assert round(float(data.x_train.mean(dtype=np.float64)), 4) == 0.1307
    per_class = np.bincount(data.y_test)
    assert (per_class[0], per_class[1]) == (980, 1135)
    assert data.source.endswith(": 60,000 training and 10,000 test images")
    for part, md5 in (
        ("train", "6bbc9ace898e44ae57da46a324031adb"),
        ("test", "2646ac647ad5339dbf082846283269ea"),
    ):
        pixels = np.round(getattr(data, f"x_{part}")[..., 0] * 255).astype(np.uint8)
        assert hashlib.md5(idx_bytes(pixels)).hexdigest() == md5
    assert not (np.bincount(data.y_train) == 6_000).any()
