"""Files made to do harm: refused, nothing carried out, and memory bounded."""

import gzip
import io
import json
import pathlib
import pickle
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import PEAK
from tests.models import SHAPE, small_vae
from tfp_vae import _allowed, datasets, networks, plotting, training
from tfp_vae.datasets import DatasetError
from tfp_vae.training import RunError

MB = 1 << 20


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    vae = small_vae()
    vae.compile("adam")
    vae.save(path)
    return path


@pytest.fixture
def canary(tmp_path):
    """A file that appears if a hostile one has its way."""
    path = tmp_path / "harmed"
    yield path
    assert not path.exists()


def rewritten(saved, path, config=None, weights=None, extra=None, compression=0):
    """A model's file with other members, and no seal: as a stranger would make it."""
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if config is not None:
        found = json.loads(members["config.json"])
        members["config.json"] = json.dumps(config(found) or found).encode()
    if weights is not None:
        members["model.weights.h5"] = weights(members["model.weights.h5"])
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {**members, **(extra or {})}.items():
            archive.writestr(name, content)
    return path


def peak(call, *arguments):
    """Bytes of Python's and NumPy's memory at most, while the call is refused."""
    tracemalloc.start()
    try:
        with pytest.raises((RunError, DatasetError)) as caught:
            call(*arguments)
        assert "\n" not in str(caught.value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --------------------------------------------------------------------- models


def put(entry):
    """A change of the configuration: another layer in place of the encoder's first."""

    def change(config):
        config["config"]["encoder"]["config"]["layers"][1] = entry

    return change


def harm(canary):
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def lambda_layer(canary):
    # Keras refuses to make one in safe mode; a file needs no Keras to be made.
    code = compile(f"lambda x: ({harm(canary)}, x)[1]", "x", "eval").co_consts[0]
    import base64
    import marshal

    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": text, "defaults": None,
                                                      "closure": None}}  # fmt: skip
    return {"module": "keras.layers", "class_name": "Lambda", "registered_name": None,
            "config": {"name": "l", "function": function, "arguments": {}}}  # fmt: skip


def layer(module, name, registered=None, **config):
    return lambda canary: {"module": module, "class_name": name, "registered_name": registered,
                           "config": config}  # fmt: skip


def function(module, name):
    return lambda canary: {
        "module": "keras.layers", "class_name": "Activation", "registered_name": None,
        "config": {"activation": {"module": module, "class_name": "function", "config": name,
                                  "registered_name": "function"}},
    }  # fmt: skip


STRANGE = [
    pytest.param(lambda_layer, "got Lambda of keras.layers", id="Lambda"),
    pytest.param(layer("os", "system", "system", command="touch x"), "system of os", id="os"),
    pytest.param(layer("mine", "Layer", "mine>Layer"), "Layer of mine", id="unknown class"),
    pytest.param(layer("keras.layers", "TFSMLayer", filepath="/x"), "TFSMLayer", id="SavedModel"),
    pytest.param(layer("keras.layers", "TorchModuleWrapper"), "Torch", id="torch"),
    pytest.param(layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"), "StringLookup",
                 id="a file that it reads"),
    pytest.param(function("keras.utils", "get_file"), "get_file of keras.utils", id="a download"),
    pytest.param(function("keras.config", "enable_unsafe_deserialization"), "enable_unsafe",
                 id="safe mode off"),
    pytest.param(layer(["os"], "Dense"), r"Dense of \['os'\]", id="a module that is no name"),
    pytest.param(function("builtins", "eval"), "expected a saved model, got what Keras ref",
                 id="eval"),
    pytest.param(layer("keras", "layers.StringLookup", vocabulary="/etc/passwd"),
                 "got layers.StringLookup of keras", id="a dotted class"),
    pytest.param(function("keras", "utils.get_file"), "got utils.get_file of keras",
                 id="a dotted function"),
    pytest.param(layer("keras.layers", "TFSMLayer", "tfp_vae>VAE", filepath="/x"),
                 "got TFSMLayer of keras.layers", id="under a registered name"),
    pytest.param(lambda canary: {"class_name": "StringLookup", "registered_name": "tfp_vae>VAE",
                                 "config": {"vocabulary": "/etc/passwd"}},
                 "got StringLookup of None", id="without a module"),
    pytest.param(lambda canary: {"class_name": "Dense", "registered_name": "tfp_vae>VAE",
                                 "config": {"units": 3}}, "got Dense of None", id="legacy"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "message"), STRANGE)
def test_a_class_that_is_not_allowed(saved, tmp_path, canary, entry, message):
    path = rewritten(saved, tmp_path / "bad.keras", put(entry(canary)))
    with pytest.raises(RunError, match=message):
        training.load_model(path)
    code = keras.layers.serialize(keras.layers.Lambda(lambda x: x))
    with pytest.raises(ValueError, match="lambda"):  # safe mode is still on
        keras.layers.deserialize(code)


@pytest.mark.parametrize("kind", sorted(_allowed.REFUSED & set(dir(keras.layers))))
def test_settings_of_a_recipe_name_no_layer_with_code_or_files(kind):
    """A stranger's run.json may ask for a SavedModel, whose graph can write files."""
    for body in ({"layer": kind, "filepath": "x", "vocabulary": "x"},
                 {"layer": "TimeDistributed", "layer_": {"class_name": kind, "config": {},
                                                         "module": "keras.layers"}}):  # fmt: skip
        with pytest.raises(ValueError, match=kind):
            networks.layered_encoder((4, 4, 1), 2, body=[body])


def test_the_stranger_of_these_tests_is_loaded_where_he_means_well(saved, tmp_path):
    path = rewritten(saved, tmp_path / "good.keras", compression=zipfile.ZIP_DEFLATED)
    x = np.zeros((2, *SHAPE), "float32")
    vae, same = training.load_model(saved), training.load_model(path)
    np.testing.assert_array_equal(vae.reconstruct(x), same.reconstruct(x))


def test_registered_classes_of_ones_own_are_allowed(tmp_path):
    @keras.saving.register_keras_serializable(package="faults")
    class Own(keras.layers.Dense):
        pass

    vae = small_vae()
    vae.decoder = keras.Sequential([*vae.decoder.layers[:1], Own(8), *vae.decoder.layers[1:]])
    vae.decoder.build((None, 2))
    vae.save(tmp_path / "own.keras")
    assert any(
        type(each) is Own for each in training.load_model(tmp_path / "own.keras").decoder.layers
    )


def h5(write):
    def content(_):
        file = io.BytesIO()
        with h5py.File(file, "w") as store:
            write(store)
        return file.getvalue()

    return content


def _loop(store):
    store["group"] = store


def _named_type(store):
    store["t"] = np.dtype("f4")


def _time(store):
    kind = h5py.h5t.UNIX_D32LE
    h5py.h5d.create(store.id, b"x", kind, h5py.h5s.create_simple((3,)))


HOSTILE_ARCHIVES = [
    pytest.param({"extra": {"../../harmed": b"x"}}, "leaves the file", id="../"),
    pytest.param({"extra": {"/tmp/harmed": b"x"}}, "leaves the file", id="absolute"),
    pytest.param({"extra": {"assets/x": bytes(80 * MB)}, "compression": zipfile.ZIP_DEFLATED},
                 "packed into", id="zip bomb"),
    pytest.param({"config": lambda c: {**c, "x": "0" * 40 * MB},
                  "compression": zipfile.ZIP_DEFLATED}, "packed into", id="configuration bomb"),
    pytest.param({"weights": h5(lambda f: f.create_dataset("x", (1 << 40,), "f4"))},
                 "whose values are not in the file", id="array of terabytes"),
    pytest.param({"weights": h5(lambda f: f.__setitem__("x", h5py.ExternalLink("/x.h5", "/")))},
                 "a link named x", id="link to a file"),
    pytest.param({"weights": h5(lambda f: f.create_dataset(
        "x", (3,), "u1", external=[("/etc/passwd", 0, 3)]))}, "not in the file", id="external"),
    pytest.param({"weights": h5(_loop)}, "twice", id="group in itself"),
    pytest.param({"weights": h5(_named_type)}, "t, which is no array", id="a type"),
    pytest.param({"weights": h5(_time)}, "damaged or other", id="a type that h5py lacks"),
    pytest.param({"weights": lambda _: b"\x89HDF\r\n\x1a\n" + bytes(99)}, "damaged", id="no HDF5"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), HOSTILE_ARCHIVES)
def test_archive_made_to_do_harm(saved, tmp_path, changes, message):
    path = rewritten(saved, tmp_path / "bad.keras", **changes)
    with pytest.raises(RunError, match=message):
        training.load_model(path)
    assert peak(training.load_model, path) < 20 * MB
    assert not pathlib.Path("/tmp/harmed").exists()


def test_configuration_of_ten_thousand_brackets(saved, tmp_path):
    with zipfile.ZipFile(saved) as archive:
        weights = archive.read("model.weights.h5")
    path = tmp_path / "deep.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
        archive.writestr("model.weights.h5", weights)
    with pytest.raises(RunError, match="damaged or other"):
        training.load_model(path)


# --------------------------------------------------------------------- images


class Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def png(size):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(
            ">I", zlib.crc32(kind + content)
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def packed_npz(path, size):
    """Zeros, piece by piece: the file holds a thousandth of them."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (size // 784, 28, 28)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x_train.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(0, size // 784 * 784, 784 * 4096):
            member.write(bytes(784 * 4096))


def test_pickle_in_an_array(tmp_path, canary):
    array = np.empty(1, object)
    array[0] = Harm(canary)
    np.savez(tmp_path / "x.npz", x_train=array)
    np.save(tmp_path / "x.npy", array)
    (tmp_path / "raw.npy").write_bytes(pickle.dumps(Harm(canary)))
    for name in ("x.npz", "x.npy", "raw.npy"):
        with pytest.raises(DatasetError, match=name):
            datasets.load(tmp_path / name)


def test_zip_bomb_in_an_npz(tmp_path, monkeypatch):
    monkeypatch.setattr("tfp_vae.datasets.files._MAX_PACKED", 16 * MB)  # else it takes a gigabyte
    packed_npz(tmp_path / "x.npz", 784 * 4096 * 16)
    assert (tmp_path / "x.npz").stat().st_size < MB
    with pytest.raises(DatasetError, match="pack at most 100 to 1"):
        datasets.load(tmp_path / "x.npz")
    assert peak(datasets.load, tmp_path / "x.npz") < 5 * MB


def test_names_in_an_npz_write_nothing(tmp_path, canary):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("../harmed", b"x")
        archive.writestr(str(canary), b"x")
    with pytest.raises(DatasetError, match="expected the arrays x_train"):
        datasets.load(tmp_path / "x.npz")


def test_idx_header_whose_sides_multiply_to_nothing(tmp_path):
    header = struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 0, 2**32 - 1)
    (tmp_path / "x").write_bytes(header)
    with pytest.raises(DatasetError, match="x: expected an IDX file"):
        datasets.files.read_idx(tmp_path / "x", 3)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_header_that_promises_two_thousand_million_images(tmp_path, monkeypatch, pack):
    monkeypatch.delenv("TFP_VAE_DATA_DIR", raising=False)
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", 1 << 31, 28, 28)
    for name in ("train-images-idx3", "t10k-images-idx3", "train-labels-idx1", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(pack(header + bytes(1000)))
    assert peak(datasets.load, "mnist", tmp_path) < 5 * MB


def test_gzip_bomb_in_an_idx_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tfp_vae.datasets.files._MAX_PACKED", 16 * MB)
    shape = 784 * 64, 28, 28
    content = bytes((0, 0, 8, 3)) + struct.pack(">3I", *shape) + bytes(int(np.prod(shape)))
    (tmp_path / "x").write_bytes(gzip.compress(content))
    del content
    assert peak(datasets.files.read_idx, tmp_path / "x", 3) < 5 * MB


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("read", [datasets.load, datasets.stream], ids=["load", "stream"])
def test_postscript_under_the_name_of_an_image_starts_no_program(tmp_path, read, monkeypatch):
    """For it Pillow runs Ghostscript, where that is installed."""
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: started.append(1))
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(POSTSCRIPT)
    with pytest.raises(DatasetError, match=r"a\.png: expected a readable image"):
        read(tmp_path)
    with pytest.raises(OSError, match=r"a\.png: cannot be read as an image"):
        plotting.training_gif([tmp_path / "a.png"], tmp_path / "x.gif")
    assert not started


def tar_gz(path, kind, size, count=1):
    """An archive of `count` headers that each promise `size` bytes, and hold that many zeros."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    header = member.tobuf(tarfile.GNU_FORMAT)
    with gzip.open(path, "wb", 1) as file:
        for _ in range(count):
            file.write(header)
            for _ in range(0, size, MB):
                file.write(bytes(MB))


@pytest.mark.parametrize(("kind", "size", "count", "message"), [
    pytest.param(tarfile.XHDTYPE, 64 * MB, 1, "more than a true one", id="a header of zeros"),
    pytest.param(tarfile.GNUTYPE_LONGNAME, 64 * MB, 1, "more than a true one", id="a name"),
    pytest.param(tarfile.REGTYPE, 0, 200_000, "at most 100 members, got more", id="many members"),
])  # fmt: skip
def test_an_archive_that_unfolds_without_end(tmp_path, monkeypatch, kind, size, count, message):
    monkeypatch.setattr("tfp_vae.datasets.files._CIFAR_MEMBER_LIMIT", MB)
    path = tmp_path / "cifar-10-binary.tar.gz"
    tar_gz(path, kind, size, count)
    with pytest.raises(DatasetError, match=message):
        datasets.load("cifar10", tmp_path)
    assert peak(lambda: datasets.load("cifar10", tmp_path)) < 20 * MB


# Pillow's own limit is 13,378² (it warns beyond 9,459², which must count as an error).
@pytest.mark.parametrize("size", [11_000, 30_000, 2_000_000_000])
@pytest.mark.parametrize("read", [datasets.load, datasets.stream], ids=["load", "stream"])
@pytest.mark.parametrize("grayscale", [True, None])
def test_image_bomb_in_a_folder(tmp_path, read, size, grayscale):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest's own filters would stand in for ours
        with pytest.raises(DatasetError, match="DecompressionBomb"):
            read(tmp_path, grayscale=grayscale)


BOMB = f"""{PEAK}
import sys
from tfp_vae import datasets
before = peak()
try:
    datasets.load(sys.argv[1], grayscale=True)
except datasets.DatasetError as error:
    assert "DecompressionBomb" in str(error), error
    print(peak() - before)
"""


def test_an_image_bomb_takes_no_memory(tmp_path, fresh_process):
    """Of the process as a whole: what Pillow takes, Python does not count."""
    (tmp_path / "a.png").write_bytes(png(11_000))
    assert int(fresh_process(BOMB, tmp_path)) < 20 * MB


def test_a_folder_of_images_that_unfold_to_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr("tfp_vae.datasets.files._MAX_PACKED", 16 * MB)
    for name in "abcdef":
        keras.utils.save_img(tmp_path / f"{name}.png", np.zeros((2000, 2000, 1)), scale=False)
    with pytest.raises(DatasetError, match="pack at most 100 to 1, got 24,000,000 bytes"):
        datasets.load(tmp_path, grayscale=True)
    small = datasets.load(tmp_path, grayscale=True, image_size=(8, 8), test_fraction=0)
    assert small.x_train.shape == (6, 8, 8, 1)


def test_a_bomb_behind_a_good_image_is_found_before_training(tmp_path):
    keras.utils.save_img(tmp_path / "a.png", np.zeros((8, 8, 1)), scale=False)
    (tmp_path / "b.png").write_bytes(png(30_000))
    with pytest.raises(DatasetError, match=r"b\.png: expected a readable image"):
        datasets.stream(tmp_path, grayscale=True)


def test_an_image_damaged_in_its_pixels_is_named(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(datasets.streams, "_LOOKED_AT", 1)  # of a larger folder not all are
    for number in range(6):
        keras.utils.save_img(tmp_path / f"{number}.png", rng.random((8, 8, 1)) * 255, scale=False)
    content = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(content[:60])
    for name in ("4.png", "5.png"):  # in the middle, then as the last one
        data = datasets.stream(tmp_path, training=False, batch_size=2, test_fraction=0)
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"readable image, got.*{name}"):
            list(data)
        (tmp_path / "4.png").write_bytes(content)
        (tmp_path / "5.png").write_bytes(content[:60])


def crc32c(content):
    """Masked, as the TFRecord format has it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_record_that_promises_a_terabyte(tmp_path):
    """TensorFlow's own reader ends with a segmentation fault at this length: it must not see it."""
    datasets.write_records(tmp_path, [np.zeros((4, *SHAPE), "uint8")])
    path = tmp_path / "train-00000.tfrecord"
    assert datasets.records.is_whole(path, 4)
    length = struct.pack("<Q", 1 << 40)
    path.write_bytes(length + struct.pack("<I", crc32c(length)) + path.read_bytes()[12:])
    assert not datasets.records.is_whole(path, 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"whole records, got .*train-00000"):
        list(datasets.stream(tmp_path))


def test_fit_names_the_file_that_is_damaged(tmp_path):
    datasets.write_records(tmp_path, [np.full((40, *SHAPE), 9, "uint8")], images_per_file=10)
    path = tmp_path / "train-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    vae = small_vae()
    vae.compile("adam")
    with pytest.raises(ValueError, match=r"^images: expected whole records, .*train-00002\.tfrec"):
        vae.fit(datasets.stream(tmp_path, batch_size=5), verbose=0)


# --------------------------------------------------------------------- the network

OFFLINE = """
import socket, sys
import numpy as np
def refuse(*arguments, **options):
    raise AssertionError(f"a network call: {arguments}")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = refuse
import keras
from tfp_vae import VAE, datasets, networks, plotting, priors, recipes, training
recipe = recipes.get("mlp-mnist").replace(
    dataset="digits", epochs=1, pictures=["samples"],
    **{"encoder.units": [4], "decoder.units": [4]})
run = training.train(recipe, "run", verbose=0)
opened = training.open_model("run")
vae = opened.vae
vae.compile("adam")
vae.evaluate(opened.test[:50], verbose=0)
vae.sample(3, seed=0)
vae.log_likelihood(opened.test[:5], 10)
plotting.save(plotting.image_grid(vae.sample(4, seed=0)), "samples.png")
vae.save("model.keras")
keras.saving.load_model("model.keras")
training.load_model("model.keras")
assert "digits" in run.metrics()["dataset"]
from tfp_vae.cli import main
assert main(["evaluate", "run", "--images", "20", "--samples", "5", "--json"]) == 0
assert main(["datasets", "--json"]) == 0
assert main(["plot", "samples", "run", "--out", "plot.png"]) == 0
assert main(["encode", "run", "--images", "20", "--out", "encoded.csv"]) == 0
assert main(["impute", "run", "--images", "2", "--steps", "2", "--out", "imputed.png"]) == 0
assert main(["anomaly", "run", "--images", "5", "--samples", "2", "--out", "anomaly.csv"]) == 0
assert main(["package", "run", "shared"]) == 0
assert main(["export", "run", "exported"]) == 0
print("no network")
"""


def test_nothing_calls_the_network(fresh_process):
    assert fresh_process(OFFLINE).endswith("no network\n")
