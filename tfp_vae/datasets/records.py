"""Data larger than memory: images as TFRecord files, written piece by piece and streamed."""

import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _files, _support
from tfp_vae.datasets.common import DatasetError, check_seed, to_labels, to_unit_images
from tfp_vae.datasets.pipelines import binary_batch, check_method

_INDEX = "records.json"
_FORMAT = 1
_SPLITS = ("train", "test")
_READ_AT_ONCE = 8  # files whose records are mixed before the shuffle buffer mixes them further


def write_records(
    folder: Any,
    pieces: Iterable[Any],
    split: str = "train",
    *,
    images_per_file: int = 10_000,
    class_names: Sequence[str] | None = None,
) -> pathlib.Path:
    """Write images into a folder of TFRecord files, which `stream` reads.

    Memory holds one of the pieces at a time. Each record is a `tf.train.Example` with the features
    ``image``, the raw bytes of one image, and, where there are labels, ``label`` (int64);
    ``records.json`` beside them says shape, type and numbers. A second call adds the other split.

    Args:
        folder: made if need be.
        pieces: arrays of images, uint8 or float32 in [0, 1], shape (N, height, width, channels) or
            (N, height, width); or pairs of them and integer labels, shape (N,).
        split: "train" or "test".
        images_per_file: readers shuffle files, and images within a buffer.
        class_names: of the labels 0, 1, ...

    Returns:
        The folder.

    Raises:
        DatasetError: no images, some of another shape, type or range, labels of some pieces only,
            another split, or one that is there already.
        OSError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    if split not in _SPLITS:
        raise DatasetError(f"split: expected one of {', '.join(_SPLITS)}, got {split!r}.")
    _support.check_positive_int("images_per_file", images_per_file)
    index: dict[str, Any] = {"format": _FORMAT, "splits": {}}
    if (folder / _INDEX).exists():
        index = _read_index(folder)
    if split in index["splits"]:
        raise DatasetError(f"{folder}: holds {split} images already. Give another folder.")
    facts: dict[str, Any] = {
        key: index[key] for key in ("image_shape", "dtype", "labels") if key in index
    }
    examples = _examples(pieces, facts)
    files = []
    for number in itertools.count():
        in_file = itertools.islice(examples, images_per_file)
        first = next(in_file, None)
        if first is None:
            break
        name, count = f"{split}-{number:05d}.tfrecord", 0
        with _files.whole_file(folder / name) as path, tf.io.TFRecordWriter(str(path)) as writer:
            for example in itertools.chain([first], in_file):
                writer.write(example)
                count += 1
        files.append([name, count])
    if not files:
        raise DatasetError("pieces: expected at least one image, got none.")
    index |= facts
    index["splits"][split] = files
    if class_names is not None:
        index["class_names"] = [str(name) for name in class_names]
    # Last, so that a folder whose writing was stopped holds no such split.
    with _files.whole_file(folder / _INDEX) as path:
        path.write_text(json.dumps(index, indent=1) + "\n")
    return folder


def _examples(pieces: Iterable[Any], facts: dict[str, Any]) -> Iterator[bytes]:
    """Serialized examples; the first piece fills `facts`, the others must agree with them."""
    features = tf.train.Feature
    for number, piece in enumerate(pieces):
        where = f"piece {number}"
        images, labels = _support.split_labels(piece)
        images = np.asarray(images)
        as_bytes = images.dtype == np.uint8
        shown = to_unit_images(where, images)  # refuses what is no image
        found = {
            "image_shape": list(shown.shape[1:]),
            "dtype": "uint8" if as_bytes else "float32",
            "labels": labels is not None,
        }
        for key, value in found.items():
            if facts.setdefault(key, value) != value:
                raise DatasetError(f"{where}: expected {key} {facts[key]}, got {value}.")
        if labels is not None:
            labels = to_labels(where, np.asarray(labels), len(images))
        for i in range(len(images)):
            image = (images if as_bytes else shown)[i].tobytes()
            feature = {"image": features(bytes_list=tf.train.BytesList(value=[image]))}
            if labels is not None:
                feature["label"] = features(int64_list=tf.train.Int64List(value=[labels[i]]))
            yield tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _read_index(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text())
        files = [file for files in index["splits"].values() for file in files]
        whole = (
            index["format"] == _FORMAT
            and len(index["image_shape"]) == 3
            and index["dtype"] in ("uint8", "float32")
            and isinstance(index["labels"], bool)
            # Names, not paths: a foreign index shall not make us read elsewhere.
            and all(pathlib.PurePath(name).name == name and count > 0 for name, count in files)
        )
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: there is no such file. Expected a folder of write_records."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DatasetError(
            f"{path}: expected what write_records writes, format {_FORMAT}, got a damaged or "
            "other file."
        )
    return index


def stream(
    folder: Any,
    split: str = "train",
    *,
    batch_size: int = 100,
    binarization: str = "none",
    threshold: float = 0.5,
    training: bool = True,
    seed: int = 0,
    shuffle_buffer: int = 10_000,
    shard: tuple[int, int] = (0, 1),
    drop_remainder: bool = False,
    initial_epoch: int = 0,
) -> tf.data.Dataset:
    """Batches of images from a folder of `write_records`, read as they are needed.

    What `pipeline` is for arrays: each pass is an epoch, with files in a new order, records of
    some files mixed, and images shuffled buffer by buffer; order and draws of epoch e are a
    function of `seed` and e alone. Reading and decoding go on beside the training. Memory holds
    three buffers of stored images and a few batches, whatever the number of images.

    Args:
        folder: of `write_records`.
        split: "train" or "test".
        batch_size: images in a batch; the last batch may be smaller.
        binarization: "threshold", "dynamic" or "none", as in `binarize`; without `training` a
            dynamic draw is the same in every pass.
        threshold: as in `binarize`.
        training: whether to shuffle, and to draw anew in each epoch.
        seed: an integer of at least 0.
        shuffle_buffer: images; the larger, the better they are mixed.
        shard: (index, count): this reader's part of the images, of as many workers. All parts
            have the same number of batches: what is left over is left out, in training of each
            epoch another part.
        drop_remainder: whether to leave out a last batch that is smaller.
        initial_epoch: as in `pipeline`.

    Returns:
        A `tf.data.Dataset` of known length: float32 (B, height, width, channels), or with labels a
        pair of that and int64 (B,).

    Raises:
        DatasetError: no such folder or split, a damaged index, a file that is missing, wrong
            arguments, or no batch left.
    """
    folder = pathlib.Path(folder)
    index = _read_index(folder)
    if split not in index["splits"]:
        raise DatasetError(
            f"{folder}: expected {split!r} among its splits, got {', '.join(index['splits'])}."
        )
    check_method(binarization, threshold)
    batch_size = _support.check_positive_int("batch_size", batch_size)
    shuffle_buffer = _support.check_positive_int("shuffle_buffer", shuffle_buffer)
    seed = check_seed(seed)
    first_epoch = _support.check_int("initial_epoch", initial_epoch, 0)
    part, parts = shard
    if not 0 <= part < parts:
        raise DatasetError(f"shard: expected an index below the count, got {shard!r}.")
    names, counts = zip(*index["splits"][split], strict=True)
    paths = [str(folder / name) for name in names]
    for path in paths:
        if not pathlib.Path(path).is_file():
            raise DatasetError(f"{path}: there is no such file, though {_INDEX} names it.")
    count = sum(counts) // parts
    batches = count // batch_size if drop_remainder else math.ceil(count / batch_size)
    if batches == 0:
        raise DatasetError(
            f"batch_size: expected at most the {count:,} images of a part, got {batch_size:,}."
        )
    epochs = itertools.count(first_epoch)
    mixed = tf.random.experimental.stateless_shuffle

    def begin_epoch() -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng((seed, next(epochs)) if training else seed)
        order = generator.permutation(len(paths)) if training else np.arange(len(paths))
        return order.astype(np.int64), generator.integers(2**31, size=2)

    def parse(records: tf.Tensor, key: tf.Tensor) -> Any:
        described = {"image": tf.io.FixedLenFeature([], tf.string)}
        if index["labels"]:
            described["label"] = tf.io.FixedLenFeature([], tf.int64)
        found = tf.io.parse_example(records, described)
        pixels = tf.io.decode_raw(found["image"], index["dtype"])
        pixels = tf.reshape(pixels, [-1, *index["image_shape"]])
        if index["dtype"] == "uint8":
            pixels = tf.cast(pixels, tf.float32) / 255
        x = binary_batch(pixels, key, binarization, threshold)
        return (x, found["label"]) if index["labels"] else x

    def epoch(_: tf.Tensor) -> tf.data.Dataset:
        order, keys = tf.numpy_function(begin_epoch, [], [tf.int64, tf.int64])
        order, keys = tf.ensure_shape(order, [len(paths)]), tf.ensure_shape(keys, [2])
        records = tf.data.Dataset.from_tensor_slices(tf.gather(paths, order)).interleave(
            tf.data.TFRecordDataset,
            cycle_length=_READ_AT_ONCE if training else 1,
            block_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        if parts > 1:
            records = records.shard(parts, part)
        records = records.take(count)
        if training:
            # Of its own seed, which TensorFlow's shuffle would mix with its global one.
            windows = records.batch(shuffle_buffer).enumerate()
            batched = windows.map(lambda i, window: mixed(window, tf.stack([keys[0], i])))
            batched = batched.prefetch(1).rebatch(batch_size, drop_remainder)
        else:
            batched = records.batch(batch_size, drop_remainder)
        return batched.enumerate().map(lambda i, batch: (batch, tf.stack([keys[1], i])))

    return (
        tf.data.Dataset.from_tensors(0)
        .flat_map(epoch)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(batches))
        .prefetch(tf.data.AUTOTUNE)
    )
