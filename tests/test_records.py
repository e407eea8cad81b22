"""TFRecord folders: what is read is what was written, in a law of its own for each epoch."""

import json
import pathlib
import shutil
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.models import SHAPE, small_vae
from tfp_vae import datasets
from tfp_vae.datasets import DatasetError


@pytest.fixture(scope="module")
def arrays():
    """103 images whose label is their number."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (103, *SHAPE), dtype=np.uint8), np.arange(103)


@pytest.fixture(scope="module")
def folder(arrays, tmp_path_factory):
    x, y = arrays
    path = tmp_path_factory.mktemp("records") / "set"
    pieces = ((x[i : i + 20], y[i : i + 20]) for i in range(0, 103, 20))
    datasets.write_records(path, pieces, images_per_file=16)
    return datasets.write_records(path, [(x[:9], y[:9])], "test")


def read(*args, **kwargs):
    """All images and labels of one pass."""
    parts = [(x.numpy(), y.numpy()) for x, y in datasets.stream(*args, **kwargs)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def test_without_training_it_is_what_was_written_in_its_order(folder, arrays):
    x, y = read(folder, batch_size=10, training=False)
    np.testing.assert_array_equal(y, arrays[1])
    np.testing.assert_array_equal(x, np.divide(arrays[0], 255, dtype=np.float32))
    assert len(read(folder, "test", training=False)[0]) == 9
    assert len(list(folder.glob("train-*.tfrecord"))) == 7  # ceil(103 / 16)


def test_floats_without_labels_come_back_as_they_were(tmp_path, rng):
    x = rng.random((7, 4, 4)).astype("float32")
    datasets.write_records(tmp_path, [x[:3], x[3:]])
    data = datasets.stream(tmp_path, batch_size=4, training=False)
    assert data.element_spec.shape == (None, 4, 4, 1)
    np.testing.assert_array_equal(np.concatenate(list(data))[..., 0], x)


def test_each_epoch_has_every_image_once_in_an_order_of_its_own(folder):
    data = datasets.stream(folder, batch_size=10, seed=3, shuffle_buffer=30)
    assert len(data) == 11
    passes = [np.concatenate([y.numpy() for _, y in data]) for _ in range(3)]
    for order in passes:
        np.testing.assert_array_equal(np.sort(order), np.arange(103))
        assert np.mean(np.diff(order) == 1) < 0.2  # mixed, not only cut into pieces
    assert not np.array_equal(passes[0], passes[1])
    resumed = read(folder, batch_size=10, seed=3, shuffle_buffer=30, initial_epoch=2)[1]
    np.testing.assert_array_equal(resumed, passes[2])
    other = read(folder, batch_size=10, seed=4, shuffle_buffer=30)[1]
    assert not np.array_equal(other, passes[0])


@pytest.mark.parametrize("training", [True, False])
def test_parts_of_workers_are_apart_and_of_one_size(folder, training):
    parts = [read(folder, batch_size=8, training=training, shard=(i, 4))[1] for i in range(4)]
    assert {len(part) for part in parts} == {25}  # 103 // 4
    assert len(np.unique(np.concatenate(parts))) == 100


@pytest.mark.parametrize("training", [True, False])
def test_a_worker_reads_the_files_of_its_own_part(folder, monkeypatch, training):
    """25 images: two or three files of 16, of seven."""
    known, read_files = datasets.records.is_whole, []
    monkeypatch.setattr(
        datasets.records, "is_whole", lambda path, n: read_files.append(path) or known(path, n)
    )
    for part in range(4):
        read_files.clear()
        assert len(read(folder, batch_size=8, training=training, shard=(part, 4))[1]) == 25
        assert len(set(read_files)) == len(read_files) in (2, 3)


def test_parts_of_workers_draw_apart(tmp_path):
    """Of grey images, all the same, which differ in nothing but their draws."""
    datasets.write_records(tmp_path / "grey", [np.full((64, 4, 4, 1), 128, "uint8")])
    parts = [
        np.concatenate(
            list(
                datasets.stream(
                    tmp_path / "grey", batch_size=8, binarization="dynamic", shard=(i, 2)
                ).as_numpy_iterator()
            )
        )
        for i in range(2)
    ]
    same = np.mean(parts[0][:, None] == parts[1][None], (2, 3, 4))  # 32 by 32 pairs of 16 pixels
    assert same.max() < 1
    assert abs(same.mean() - 0.5) < 4 * 0.5 / np.sqrt(32 * 16)


def test_zeros_and_ones_of_all_pieces_together_are_no_bytes(tmp_path):
    black, binary = np.zeros((2, 4, 4, 1), "uint8"), np.ones((2, 4, 4, 1), "uint8")
    with pytest.raises(DatasetError, match=r"expected uint8 pixels .* got none above 1"):
        datasets.write_records(tmp_path / "a", [black, binary])
    datasets.write_records(tmp_path / "b", [black, 255 * binary, binary])
    with pytest.raises(DatasetError, match="expected images"):
        datasets.stream(tmp_path / "a")


def test_an_index_of_another_shape_is_no_fewer_images(tmp_path):
    datasets.write_records(tmp_path, [np.full((8, 4, 4, 1), 9, "uint8")])
    index = tmp_path / "records.json"
    text = "".join(index.read_text().split())
    index.write_text(text.replace('"image_shape":[4,4,1]', '"image_shape":[4,4,2]'))
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(datasets.stream(tmp_path, batch_size=4))


def test_errors_of_the_callers_pieces_are_theirs(tmp_path):
    def pieces():
        yield np.full((4, 4, 4, 1), 9, "uint8")
        (tmp_path / "photo7.png").read_bytes()

    with pytest.raises(FileNotFoundError) as seen:
        datasets.write_records(tmp_path / "records", pieces())
    assert str(seen.value).endswith("photo7.png'")
    assert not list((tmp_path / "records").iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path, monkeypatch):
    class Full:
        def __init__(self, path):
            pathlib.Path(path).touch()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, record):
            raise tf.errors.ResourceExhaustedError(None, None, "no space left on device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", Full)
    message = r"train-00000\.tfrecord: cannot be written: no space left on device"
    with pytest.raises(OSError, match=message):
        datasets.write_records(tmp_path, [np.full((4, 4, 4, 1), 9, "uint8")])
    assert not list(tmp_path.iterdir())


def test_labels_stay_with_their_images(folder, arrays):
    x, y = read(folder, batch_size=10)
    np.testing.assert_array_equal(x, np.divide(arrays[0][y], 255, dtype=np.float32))


def test_threshold_and_dynamic_binarization(folder, arrays):
    grey = arrays[0] / 255
    x, y = read(folder, binarization="threshold", training=False)
    np.testing.assert_array_equal(x, grey >= 0.5)
    data = datasets.stream(folder, binarization="dynamic", batch_size=103, seed=5)
    draws = []
    for _ in range(60):
        ((x, y),) = data
        draws.append(x.numpy()[np.argsort(y)])
    assert set(np.unique(draws)) == {0, 1}
    error = np.sqrt(grey * (1 - grey) / 60)
    assert np.mean(np.abs(np.mean(draws, 0) - grey) <= 3 * error + 1e-9) > 0.99
    same = {"binarization": "dynamic", "training": False, "seed": 5}
    np.testing.assert_array_equal(read(folder, **same)[0], read(folder, **same)[0])


def test_draws_are_fixed_for_validation_and_new_in_training(tmp_path):
    """Of grey images, all the same, which differ in nothing but their draws."""
    datasets.write_records(tmp_path, [np.full((64, 4, 4, 1), 128, "uint8")])

    def passes(**options):
        data = datasets.stream(tmp_path, batch_size=8, binarization="dynamic", **options)
        return [np.concatenate(list(data.as_numpy_iterator())) for _ in range(2)]

    fixed = passes(training=False)
    np.testing.assert_array_equal(*fixed)
    # No two batches of a pass, and in training no two passes, have the same noise.
    for drawn in (fixed[0], np.concatenate(passes())):
        assert len(np.unique(drawn.reshape(len(drawn), -1), axis=0)) > len(drawn) - 8


@pytest.mark.parametrize("kind", ["records", "one file", "tfds"])
def test_another_rest_is_left_out_in_each_epoch(kind, folder, arrays, tmp_path, monkeypatch):
    source = {"records": folder, "one file": tmp_path, "tfds": "tfds:blobs"}[kind]
    if kind == "tfds":
        with_stub(monkeypatch, Stub(arrays))
    if kind == "one file":
        datasets.write_records(tmp_path, [arrays])
    parts = [datasets.stream(source, batch_size=8, shard=(i, 4)) for i in range(4)]
    missed = []
    for _ in range(8):
        seen = [int(n) for part in parts for _, y in part for n in y]
        assert len(set(seen)) == len(seen) == 100
        missed.append(set(range(103)) - set(seen))
    assert len(set.union(*missed)) > 3


def test_a_model_trains_on_it(folder):
    vae = small_vae()
    vae.compile(keras.optimizers.Adam(1e-2))
    train = datasets.stream(folder, batch_size=10, binarization="threshold")
    test = datasets.stream(folder, "test", binarization="threshold", training=False)
    history = vae.fit(train, validation_data=test, epochs=2, verbose=0).history
    assert history["elbo"][1] > history["elbo"][0]
    assert len(history["val_elbo"]) == 2


def pixels(dtype="uint8", shape=(3, 4, 4, 1)):
    return np.zeros(shape, dtype)


BAD_INDEX = [
    pytest.param(lambda p: (p / "records.json").unlink(), "there is no such file", id="none"),
    pytest.param(lambda p: (p / "records.json").write_text("{"), "damaged or other", id="cut"),
    pytest.param(lambda p: (p / "records.json").write_text("[]"), "damaged or other", id="list"),
    pytest.param(
        lambda p: (p / "records.json").write_text(
            json.dumps({**json.loads((p / "records.json").read_text()), "splits": {"train": []}})
        ),
        "damaged or other",
        id="no files",
    ),
    pytest.param(
        lambda p: (p / "records.json").write_text(
            (p / "records.json").read_text().replace('"train-00000', '"../train-00000')
        ),
        "damaged or other",
        id="path out of the folder",
    ),
    pytest.param(lambda p: (p / "train-00003.tfrecord").unlink(),
                 r"train-00003\.tfrecord: there is no such file", id="file"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD_INDEX)
def test_spoiled_folders_are_refused_by_name(folder, tmp_path, spoil, message):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path)
    with pytest.raises(DatasetError, match=message):
        datasets.stream(tmp_path)


def test_a_damaged_file_is_found_when_it_is_read(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "train-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"whole records, got .*train-.*\.tfr"):
        read(tmp_path, training=False)


BAD_CALLS = [
    pytest.param({"split": "valid"}, "expected 'valid' among its splits, got train, test",
                 id="split"),
    pytest.param({"batch_size": 0}, "batch_size", id="batch of none"),
    pytest.param({"batch_size": 200, "drop_remainder": True}, "at most the 103", id="batch"),
    pytest.param({"binarization": "half"}, "binarization", id="binarization"),
    pytest.param({"shuffle_buffer": 0}, "shuffle_buffer", id="buffer"),
    pytest.param({"shard": (2, 2)}, "shard: expected an index and a count above", id="shard"),
    pytest.param({"shard": 3}, "shard: expected an index and a count above it, got 3", id="part"),
    pytest.param({"image_size": (4, 4)}, "expected a folder of images to use", id="resized"),
    pytest.param({"grayscale": True}, "expected a folder of images to use", id="grey"),
    pytest.param({"image_size": 4}, r"image_size: expected \(height, width\), got 4", id="size"),
    pytest.param({"image_size": (0, 4)}, "image_size: expected an integer of at", id="no height"),
    pytest.param({"seed": -1}, "seed", id="seed"),
    pytest.param({"initial_epoch": -1}, "initial_epoch", id="epoch"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD_CALLS)
def test_wrong_arguments(folder, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.stream(folder, **options)


BAD_PIECES = [
    pytest.param([], {}, "at least one image, got none", id="none"),
    pytest.param([pixels(), pixels(shape=(3, 4, 5, 1))], {}, "piece 1: expected image_shape",
                 id="shape"),
    pytest.param([pixels(), pixels("float32")], {}, "piece 1: expected dtype uint8", id="dtype"),
    pytest.param([pixels(), (pixels(), [1, 2, 3])], {}, "piece 1: expected labels False",
                 id="labels of some"),
    pytest.param([(pixels(), [1, 2])], {}, "one label for each", id="fewer labels"),
    pytest.param([pixels("float32") + 2], {}, r"pixels in \[0, 1\]", id="range"),
    pytest.param([pixels()], {"split": "valid"}, "split: expected one of", id="split"),
    pytest.param([pixels()], {"images_per_file": 0}, "images_per_file", id="files of none"),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "options", "message"), BAD_PIECES)
def test_what_cannot_be_written(tmp_path, pieces, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.write_records(tmp_path, pieces, **options)
    assert not (tmp_path / "records.json").exists()  # nothing that could be taken for a set


def test_a_split_is_written_once_and_the_second_must_fit(folder):
    with pytest.raises(DatasetError, match="holds train images already"):
        datasets.write_records(folder, [pixels(shape=(2, *SHAPE))])


def test_a_second_split_of_other_images_is_refused(tmp_path):
    datasets.write_records(tmp_path, [pixels()])
    with pytest.raises(DatasetError, match="piece 0: expected image_shape"):
        datasets.write_records(tmp_path, [pixels(shape=(2, *SHAPE))], "test")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_two_that_write_at_once_agree_or_the_second_is_refused(tmp_path, rng, dtype):
    """One index says of both splits how their bytes are read."""
    x = rng.random((5, 4, 4)).astype("float32")

    def pieces():
        datasets.write_records(tmp_path, [x], "train")
        yield x if dtype == "float32" else np.uint8(255 * x)

    if dtype == "float32":
        datasets.write_records(tmp_path, pieces(), "test")
    else:
        with pytest.raises(DatasetError, match="written meanwhile, got train of"):
            datasets.write_records(tmp_path, pieces(), "test")
    found = np.concatenate(list(datasets.stream(tmp_path, batch_size=4, training=False)))
    np.testing.assert_array_equal(found[..., 0], x)


def test_memory_holds_one_piece(tmp_path):
    asked = []

    def pieces():
        for i in range(4):
            asked.append(len(list(tmp_path.glob("train-*.tfrecord"))))
            yield pixels(shape=(4, 4, 4, 1)) + np.uint8(i)

    datasets.write_records(tmp_path, pieces(), images_per_file=2)
    assert asked == [0, 2, 4, 6]  # a piece is asked for when those before it are written


# --------------------------------------------------------------------- TensorFlow Datasets


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    for call in (datasets.load, datasets.stream):
        with pytest.raises(DatasetError, match=r"tfds:mnist: .* pip install tensorflow-datasets"):
            call("tfds:mnist")


class Features:
    """No dictionary, as theirs is none."""

    def __init__(self, **features):
        self.features = features

    def __contains__(self, name):
        return name in self.features

    def __iter__(self):
        return iter(self.features)

    def __getitem__(self, name):
        return self.features[name]


class Stub:
    """What `datasets` uses of a builder of TensorFlow Datasets, made of arrays."""

    def __init__(self, arrays, shape=(*SHAPE,)):
        x, y = arrays
        feature = types.SimpleNamespace
        self.name, self.data_dir, self.arrays = "blobs", "/prepared", {"image": x, "label": y}
        splits = {name: feature(num_examples=len(x)) for name in ("train", "test")}
        image = feature(shape=shape, np_dtype=np.uint8)
        label = feature(names=[str(n) for n in y])
        self.info = feature(features=Features(image=image, label=label), splits=splits)

        self.prepared = False

    def download_and_prepare(self):
        self.prepared = True

    def as_dataset(self, split, shuffle_files):
        data = tf.data.Dataset.from_tensor_slices(self.arrays)
        return data.map(lambda example: {**example, "id": tf.constant("an unused feature")})


def with_stub(monkeypatch, builder):
    def make(name, data_dir):
        if name != "blobs":
            raise ValueError(f"Dataset {name} not found.")
        return builder

    def prepared(name, data_dir):  # without asking the network
        if not make(name, data_dir).prepared:
            raise FileNotFoundError("no files of it")
        return builder

    reader = types.SimpleNamespace(builder_from_files=prepared)
    core = types.SimpleNamespace(read_only_builder=reader)
    module = types.SimpleNamespace(builder=make, core=core)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)


def test_a_set_that_is_not_to_be_downloaded_is_not(arrays, monkeypatch):
    stub = Stub(arrays)
    with_stub(monkeypatch, stub)
    with pytest.raises(DatasetError, match="could not give it without a download: no files"):
        datasets.load("tfds:blobs", download=False)
    datasets.load("tfds:blobs")
    assert datasets.load("tfds:blobs", download=False).num_classes == 103


def test_its_sets_are_loaded_and_streamed(arrays, monkeypatch):
    with_stub(monkeypatch, Stub(arrays))
    data = datasets.load("tfds:blobs")
    expected = np.divide(arrays[0], 255, dtype=np.float32)
    np.testing.assert_array_equal(data.x_train, expected)
    np.testing.assert_array_equal(data.y_test, arrays[1])
    assert data.num_classes == 103
    x, y = read("tfds:blobs", batch_size=10, seed=2, shuffle_buffer=50)
    assert not np.array_equal(y, arrays[1])
    np.testing.assert_array_equal(x, expected[y])
    assert datasets.locate("tfds:blobs") == "tfds:blobs"


def test_zeros_and_ones_in_eight_bits_are_refused(arrays, monkeypatch, tmp_path):
    """Divided by 255 they would be all but black, in silence."""
    with_stub(monkeypatch, Stub((arrays[0] // 128, arrays[1])))
    Image.fromarray(arrays[0][0, ..., 0] // 128).save(tmp_path / "mask.png")
    Image.fromarray(arrays[0][1, ..., 0] // 128).save(tmp_path / "other.png")
    for source in ("tfds:blobs", tmp_path):
        for call in (datasets.load, datasets.stream):
            with pytest.raises(DatasetError, match=r"expected uint8 pixels in 0..255"):
                call(source)


@pytest.mark.parametrize(("shape", "name", "message"), [
    pytest.param(SHAPE, "blob", "could not give it: Dataset blob not found", id="unknown"),
    pytest.param((None, None, 3), "blobs", "of one shape in 8 bits", id="shapes"),
])  # fmt: skip
def test_what_it_cannot_give_is_said(arrays, monkeypatch, shape, name, message):
    with_stub(monkeypatch, Stub(arrays, shape))
    with pytest.raises(DatasetError, match=message):
        datasets.load(f"tfds:{name}")


# --------------------------------------------------------------------- folders of images


@pytest.fixture(scope="module")
def pictures(arrays, tmp_path_factory):
    """The images as png files in two subfolders, even and odd."""
    import imageio.v3 as iio

    folder = tmp_path_factory.mktemp("pictures")
    for image, number in zip(*arrays, strict=True):
        sub = folder / ("even", "odd")[number % 2]
        sub.mkdir(exist_ok=True)
        iio.imwrite(sub / f"{number:03d}.png", image[..., 0])
    return folder


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_of_images_gives_what_load_gives(pictures, split):
    data = datasets.load(pictures)
    x, y = read(pictures, split, batch_size=7, training=False)
    np.testing.assert_array_equal(x, getattr(data, f"x_{split}"))
    np.testing.assert_array_equal(y, getattr(data, f"y_{split}"))


def test_images_of_a_folder_come_once_in_each_epoch_in_an_order_of_its_own(pictures):
    data = datasets.stream(pictures, batch_size=10, seed=1)
    passes = [np.concatenate([x.numpy().reshape(len(x), -1) for x, _ in data]) for _ in range(2)]
    assert not np.array_equal(*passes)
    rows = [np.array(sorted(map(tuple, each))) for each in passes]
    np.testing.assert_array_equal(*rows)
    assert len(rows[0]) == 93
    again = datasets.stream(pictures, batch_size=10, seed=1, initial_epoch=1)
    found = np.concatenate([x.numpy().reshape(len(x), -1) for x, _ in again])
    np.testing.assert_array_equal(found, passes[1])
    parts = [read(pictures, shard=(i, 2), training=False)[0] for i in (0, 1)]
    assert [len(part) for part in parts] == [46, 46]


def test_images_of_a_folder_are_resized_and_coloured(pictures):
    data = datasets.stream(pictures, image_size=(8, 4), grayscale=False)
    assert data.element_spec[0].shape == (None, 8, 4, 3)
    x, _ = next(iter(data))
    assert 0 <= float(x.numpy().min()) < float(x.numpy().max()) <= 1


@pytest.mark.parametrize("grayscale", [None, True, False])
@pytest.mark.parametrize("colours", [False, True], ids=["grey", "coloured"])
def test_bitmaps_of_a_folder_are_what_load_gives(tmp_path, rng, colours, grayscale):
    """TensorFlow reads grey ones in no way, and coloured ones as colours only."""
    import imageio.v3 as iio

    shape = (9, 7, 3) if colours else (9, 7)
    for number in range(4):
        image = rng.integers(0, 256, shape, "uint8")
        iio.imwrite(tmp_path / f"{number}.bmp", image)
    options = {"grayscale": grayscale, "test_fraction": 0}
    x = np.concatenate(list(datasets.stream(tmp_path, training=False, **options)))
    np.testing.assert_array_equal(x, datasets.load(tmp_path, **options).x_train)


def test_images_are_as_they_are_stored_whatever_their_tag(tmp_path, rng):
    """A photograph taken with the camera turned: first of a folder whose size all others have."""
    for number in range(4):
        photograph = Image.fromarray(rng.integers(0, 256, (9, 7, 3), "uint8"))
        tags = photograph.getexif()
        tags[0x0112] = 6  # Orientation
        photograph.save(tmp_path / f"{number}.jpg", exif=tags)
    (batch,) = datasets.stream(tmp_path, training=False, test_fraction=0)
    assert batch.shape == (4, 9, 7, 3)
    assert datasets.load(tmp_path, test_fraction=0).x_train.shape == (4, 7, 9, 3)


def test_an_image_of_another_size_is_named(pictures, tmp_path):
    import imageio.v3 as iio

    shutil.copytree(pictures, tmp_path / "p")
    iio.imwrite(tmp_path / "p" / "odd" / "001.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"odd/001\.png"):
        read(tmp_path / "p", test_fraction=0)


@pytest.mark.parametrize(("options", "message"), [
    pytest.param({"split": "valid"}, "split: expected train or test", id="split"),
    pytest.param({"test_fraction": 0, "split": "test"}, "got 0 images and 1 parts", id="no test"),
    pytest.param({"shard": (0, 10_000)}, "images and 10,000 parts", id="too many parts"),
    pytest.param({"test_fraction": -0.1}, r"test_fraction: expected a number in \[0, 1\)",
                 id="negative fraction"),
])  # fmt: skip
def test_wrong_arguments_for_a_folder(pictures, options, message):
    with pytest.raises(DatasetError, match=message):
        datasets.stream(pictures, **options)


def test_a_home_folder_is_found(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(pictures.parent))
    assert len(datasets.stream(f"~/{pictures.name}")) == len(datasets.stream(pictures))
    monkeypatch.setenv("HOME", str(tmp_path))
    datasets.write_records("~/mine", [pixels()])
    assert (tmp_path / "mine" / "records.json").exists()


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="expected images"):
        datasets.stream(tmp_path)
    with pytest.raises(DatasetError, match="there is no such file"):
        datasets.stream(tmp_path / "nowhere")
