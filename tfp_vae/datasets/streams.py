"""Data larger than memory: images read from disk as they are needed."""

import abc
import itertools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.datasets import own, records, tfds
from tfp_vae.datasets.common import (
    DatasetError,
    check_image_size,
    check_seed,
    check_test_fraction,
    expanded,
    refuse_binary_bytes,
    refuse_image_options,
)
from tfp_vae.datasets.pipelines import binary_batch, check_method

_DAMAGED = "!"  # before the name of a file; no record begins with it
_LOOKED_AT = 20  # images, before those of 0 and 1 would be taken for all but black ones
_READ_AT_ONCE = 8  # files whose records are mixed before the shuffle buffer mixes them further


class _Source(abc.ABC):
    """Stored images: in pieces whose order an epoch chooses.

    Attributes:
        count: images.
        pieces: how many pieces there are.
        labelled: whether there are labels.
        mixed: whether the order of the pieces is that of the images.
    """

    count: int
    pieces: int
    labelled: bool
    mixed: bool

    @abc.abstractmethod
    def read(
        self, order: tf.Tensor, first: tf.Tensor, count: int, training: bool
    ) -> tf.data.Dataset:
        """`count` stored images from the one of number `first`, piece by piece in that order.

        Pieces with none of them are not read.
        """

    @abc.abstractmethod
    def decode(self, batch: Any) -> tuple[tf.Tensor, Any]:
        """Pixels, float32 in [0, 1], and labels of a batch of what `read` gives."""


class _Records(_Source):
    mixed = False

    def __init__(self, folder: pathlib.Path, split: str) -> None:
        index = records.read_index(folder)
        if split not in index["splits"]:
            raise DatasetError(
                f"{folder}: expected {split!r} among its splits, got {', '.join(index['splits'])}."
            )
        names, self.counts = zip(*index["splits"][split], strict=True)
        self.looked_at: dict[np.int64, bool] = {}  # whether each file is whole, once it was read
        self.paths = [str(folder / name) for name in names]
        for path in self.paths:
            if not pathlib.Path(path).is_file():
                raise DatasetError(
                    f"{path}: there is no such file, though {records.INDEX} names it."
                )
        self.count, self.pieces = sum(self.counts), len(names)
        self.labelled = index["labels"]
        self.shape, self.dtype = index["image_shape"], index["dtype"]

    def read(
        self, order: tf.Tensor, first: tf.Tensor, count: int, training: bool
    ) -> tf.data.Dataset:
        counts = tf.gather(tf.constant(self.counts, tf.int64), order)
        start = tf.cumsum(counts, exclusive=True)
        # Of each file, which records: from one, and how many.
        skipped = tf.clip_by_value(first - start, 0, counts)
        taken = tf.clip_by_value(first + count - start, 0, counts) - skipped
        files = tf.data.Dataset.from_tensor_slices((order, skipped, taken))
        return files.filter(lambda index, skipped, taken: taken > 0).interleave(
            self._records_of_file,
            cycle_length=_READ_AT_ONCE if training else 1,
            block_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def _records_of_file(
        self, index: tf.Tensor, skipped: tf.Tensor, taken: tf.Tensor
    ) -> tf.data.Dataset:
        """As many as the index promises; in place of what cannot be read, the file's name.

        TensorFlow's reader names no file, and takes the memory that a damaged length asks for.
        """
        path = tf.gather(self.paths, index)
        whole = tf.reshape(tf.numpy_function(self._is_whole, [index], tf.bool), [1])
        found = tf.data.TFRecordDataset(tf.boolean_mask(path[tf.newaxis], whole))
        name = tf.data.Dataset.from_tensors(_DAMAGED + path)
        return found.ignore_errors().concatenate(name.repeat()).take(skipped + taken).skip(skipped)

    def _is_whole(self, index: np.int64) -> np.bool_:
        if index not in self.looked_at:
            self.looked_at[index] = records.is_whole(self.paths[index], self.counts[index])
        return np.bool_(self.looked_at[index])

    def decode(self, batch: Any) -> tuple[tf.Tensor, Any]:
        described = {"image": tf.io.FixedLenFeature([], tf.string)}
        if self.labelled:
            described["label"] = tf.io.FixedLenFeature([], tf.int64)
        with tf.control_dependencies([_no_damage(batch)]):
            found = tf.io.parse_example(tf.identity(batch), described)
        pixels = tf.io.decode_raw(found["image"], self.dtype)
        # As many images as records: another shape in a damaged index is an error.
        pixels = tf.reshape(pixels, [tf.shape(batch)[0], *self.shape])
        if self.dtype == "uint8":
            pixels = tf.cast(pixels, tf.float32) / 255
        return pixels, found.get("label")


class _Tfds(_Source):
    pieces, mixed = 1, False

    def __init__(self, name: str, split: str, data_dir: Any) -> None:
        builder = tfds.prepared(name, data_dir)
        info = tfds.split_info(builder, split)
        self.count, self.labelled = info.num_examples, "label" in builder.info.features
        # In one order: images are shuffled buffer by buffer, by seeds of our own.
        self.examples = tfds.examples(builder, split)
        for first in self.examples.batch(_LOOKED_AT).take(1):
            where = f"{name} [{split}], its first {len(first['image']):,}"
            refuse_binary_bytes(where, first["image"].numpy().max(initial=0))

    def read(
        self, order: tf.Tensor, first: tf.Tensor, count: int, training: bool
    ) -> tf.data.Dataset:
        return self.examples.skip(first).take(count)

    def decode(self, batch: Any) -> tuple[tf.Tensor, Any]:
        return tf.cast(batch["image"], tf.float32) / 255, batch.get("label")


class _ImageFiles(_Source):
    mixed = True

    def __init__(
        self,
        folder: pathlib.Path,
        split: str,
        image_size: Sequence[int] | None,
        grayscale: bool | None,
        test_fraction: float,
        split_seed: int,
    ) -> None:
        paths, labels, _ = own.image_paths(folder)
        train, test = own.split_indices(str(folder), len(paths), test_fraction, split_seed)
        if split not in ("train", "test"):
            raise DatasetError(f"split: expected train or test, got {split!r}.")
        chosen = train if split == "train" else test
        # One tensor, which the graphs refer to: as a constant it would be in each of them.
        self.paths = tf.constant([str(paths[i]) for i in chosen])
        self.labels = None if labels is None else labels[chosen].astype(np.int64)
        self.count = self.pieces = len(chosen)
        self.labelled = labels is not None
        grey = [own.is_grey(path) for path in paths]  # also refuses what is no image, or too large
        grayscale = all(grey) if grayscale is None else grayscale
        self.channels = 1 if grayscale else 3
        looked_at = [own.read_image(path, None, grayscale) for path in paths[:_LOOKED_AT]]
        where = f"{folder}, its first {len(looked_at):,}"
        refuse_binary_bytes(where, max(image.max() for image in looked_at))
        self.size = tuple(image_size or own.stored_size(paths[0]))
        self.resize = image_size is not None

    def read(
        self, order: tf.Tensor, first: tf.Tensor, count: int, training: bool
    ) -> tf.data.Dataset:
        order = order[first : first + count]
        opened = tf.data.Dataset.from_tensor_slices(order).map(
            self._open, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        # TensorFlow names no file: one that cannot be read is left out here, and missed below.
        none = tf.zeros([], order.dtype) - 1, tf.zeros([*self.size, self.channels], tf.uint8)
        found = opened.ignore_errors().concatenate(tf.data.Dataset.from_tensors(none))

        def check(number: tf.Tensor, entry: Any) -> Any:
            (index, image), shape = entry, (*self.size, self.channels)
            wanted = tf.gather(order, number)
            path = tf.gather(self.paths, wanted)
            read = tf.debugging.Assert(
                tf.equal(index, wanted), ["images: expected a readable image, got", path]
            )
            same = tf.reduce_all(tf.equal(tf.shape(image), shape))
            said = ["images: expected the shape", shape, "of the first, got", tf.shape(image), path]
            with tf.control_dependencies([read]):  # before the other, which it would fail as well
                same = tf.identity(same)
            with tf.control_dependencies([tf.debugging.Assert(same, said)]):
                image = tf.ensure_shape(tf.identity(image), shape)
            return (image, tf.gather(self.labels, index)) if self.labelled else image

        return (
            found.enumerate()
            .take(count)
            .map(check, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        )

    def _open(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        path = tf.gather(self.paths, index)
        image = tf.cond(
            tf.strings.regex_full_match(path, r"(?i).*\.bmp"),
            lambda: tf.numpy_function(self._read_bmp, [path], tf.uint8),
            lambda: tf.io.decode_image(
                tf.io.read_file(path), channels=self.channels, expand_animations=False
            ),
        )
        image = tf.ensure_shape(image, [None, None, self.channels])
        if self.resize:
            image = tf.image.resize(
                tf.cast(image, tf.float32), self.size, "bicubic", antialias=True
            )
            image = tf.cast(tf.round(tf.clip_by_value(image, 0, 255)), tf.uint8)
        return index, image

    def _read_bmp(self, path: bytes) -> np.ndarray:
        """TensorFlow's decoder turns neither grey ones into colours nor colours into grey."""
        return own.read_image(pathlib.Path(os.fsdecode(path)), None, self.channels == 1)

    def decode(self, batch: Any) -> tuple[tf.Tensor, Any]:
        pixels, labels = _support.split_labels(batch)
        return tf.cast(pixels, tf.float32) / 255, labels


def stream(
    source: Any,
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
    image_size: Sequence[int] | None = None,
    grayscale: bool | None = None,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    data_dir: Any = None,
) -> tf.data.Dataset:
    """Batches of images from disk, read and decoded as they are needed.

    The counterpart of `pipeline` for images on disk: each pass is an epoch with its own order; the
    order and the draws of epoch e depend only on `seed` and e. Images are read and decoded in the
    background while the model trains.

    - A folder written by `write_records`: its files come in a new order, records of several files
      are mixed, and images are shuffled buffer by buffer. Memory holds three buffers of stored
      images and a few batches.
    - A folder of png, jpg or bmp images as for `load`, with the same split into train and test.
      Memory holds the paths and a few batches. Unlike `load`, this does not turn images as their
      EXIF tag says.
    - "tfds:NAME", a set of TensorFlow Datasets, if that package is installed (``pip install
      tensorflow-datasets``). It is shuffled buffer by buffer.

    Args:
        source: one of these.
        split: "train" or "test".
        batch_size: images in a batch; the last batch may be smaller.
        binarization: "threshold", "dynamic" or "none", as in `binarize`; with
            ``training=False`` a dynamic draw is the same in every pass.
        threshold: as in `binarize`.
        training: whether to shuffle and to make new draws in each epoch.
        seed: an integer of at least 0.
        shuffle_buffer: number of images in the buffer, for records and TensorFlow Datasets; the
            larger, the better they are mixed.
        shard: (index, count): which part of the images this reader takes, and the number of
            workers. A reader opens only the record files that hold its images. All parts have the
            same number of batches; left-over images are left out, in training different ones in
            each epoch. With `fit` under a `tf.distribute` strategy, the images are not divided
            again: `batch_size` is that of all workers together, and each step takes a worker's
            share of it from its part. Give `fit` the data set's ``repeat()`` and the steps of an
            epoch.
        drop_remainder: whether to leave out a smaller last batch.
        initial_epoch: as in `pipeline`.
        image_size: (height, width) to which an image folder's images are resized (bicubic).
        grayscale: as in `load`, for an image folder.
        test_fraction: as in `load`, for an image folder.
        split_seed: seed of that split: the `seed` of `load`.
        data_dir: where TensorFlow Datasets finds or prepares its sets.

    Returns:
        A `tf.data.Dataset`, of known length unless it is a shard: float32 images (B, height, width,
        channels), or with labels a pair of such images and int64 labels (B,).

    Raises:
        DatasetError: no such folder or split, a damaged index, a missing file, wrong arguments, or
            no batch left. A damaged image or record, or an image of another size, raises an error
            that names the file when its batch comes: a ValueError in `VAE.fit`, an error of
            TensorFlow elsewhere.
        ValueError: a number below its lowest.
    """
    check_method(binarization, threshold)
    batch_size = _support.check_positive_int("batch_size", batch_size)
    shuffle_buffer = _support.check_positive_int("shuffle_buffer", shuffle_buffer)
    seed, image_size = check_seed(seed), check_image_size(image_size)
    first_epoch = _support.check_int("initial_epoch", initial_epoch, 0)
    pair = isinstance(shard, (tuple, list)) and len(shard) == 2
    part, parts = shard if pair else (-1, 0)
    if not 0 <= part < parts:
        raise DatasetError(f"shard: expected an index and a count above it, got {shard!r}.")
    check_test_fraction(test_fraction)
    stored_images: _Source
    folder = expanded("source", source)
    has_records = any(folder.glob("*.tfrecord")) or (folder / records.INDEX).exists()
    if isinstance(source, str) and source.startswith(tfds.PREFIX):
        # Before it is prepared, which may take a download.
        refuse_image_options(source, image_size, grayscale)
        stored_images = _Tfds(source, split, data_dir)
    elif has_records or not folder.is_dir():
        stored_images = _Records(folder, split)
        refuse_image_options(str(source), image_size, grayscale)
    else:
        stored_images = _ImageFiles(folder, split, image_size, grayscale, test_fraction, split_seed)
    return _batches(
        stored_images, batch_size, binarization, threshold, training, seed, shuffle_buffer,
        (part, parts), drop_remainder, first_epoch,
    )  # fmt: skip


def _batches(
    source: _Source,
    batch_size: int,
    binarization: str,
    threshold: float,
    training: bool,
    seed: int,
    shuffle_buffer: int,
    shard: tuple[int, int],
    drop_remainder: bool,
    first_epoch: int,
) -> tf.data.Dataset:
    """See `stream`."""
    part, parts = shard
    count = source.count // parts
    batches = count // batch_size if drop_remainder else math.ceil(count / batch_size)
    if count == 0:
        raise DatasetError(
            f"split and shard: expected images for each part, got {source.count:,} images and "
            f"{parts:,} parts."
        )
    if batches == 0:
        raise DatasetError(
            f"batch_size: expected at most the {count:,} images of a part, got {batch_size:,}."
        )
    epochs = itertools.count(first_epoch)

    def begin_epoch() -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng((seed, next(epochs)) if training else seed)
        order = generator.permutation(source.pieces) if training else np.arange(source.pieces)
        keys = generator.integers(2**31, size=2)
        # What is left over lies before the parts or behind them; there may be one piece only.
        before = generator.integers(source.count % parts + 1) if training else 0
        return order.astype(np.int64), np.append(keys, before)

    def parse(stored: Any, key: tf.Tensor) -> Any:
        pixels, labels = source.decode(stored)
        x = binary_batch(pixels, key, binarization, threshold)
        return (x, labels) if source.labelled else x

    def epoch(_: tf.Tensor) -> tf.data.Dataset:
        order, keys = tf.numpy_function(begin_epoch, [], [tf.int64, tf.int64])
        order, keys = tf.ensure_shape(order, [source.pieces]), tf.ensure_shape(keys, [3])
        stored = source.read(order, part * count + keys[2], count, training)
        if training and not source.mixed:
            # Of its own seed, which TensorFlow's shuffle would mix with its global one.
            windows = stored.batch(shuffle_buffer).enumerate()
            batched = windows.map(lambda i, window: _mixed(window, tf.stack([keys[0], i])))
            batched = batched.prefetch(1).rebatch(batch_size, drop_remainder)
        else:
            batched = stored.batch(batch_size, drop_remainder)
        # No two parts draw from one stream: workers' pixels would have the same noise.
        return batched.enumerate().map(
            lambda i, batch: (batch, tf.stack([keys[1], i * parts + part]))
        )

    found = (
        tf.data.Dataset.from_tensors(0)
        .flat_map(epoch)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    )
    if parts > 1:
        # A strategy makes several steps of each batch of a part, so that its length, which Keras
        # would take for their number, is not told.
        chosen = tf.data.Options()
        chosen.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return found.with_options(chosen).prefetch(tf.data.AUTOTUNE)
    found = found.apply(tf.data.experimental.assert_cardinality(batches))
    return found.prefetch(tf.data.AUTOTUNE)


def _no_damage(batch: tf.Tensor) -> tf.Operation:
    """An assertion that no record is the name of a file that could not be read to its end."""
    names = tf.boolean_mask(batch, tf.strings.regex_full_match(batch, f"(?s){_DAMAGED}.*"))
    return tf.debugging.Assert(
        tf.equal(tf.size(names), 0),
        [
            "images: expected whole records, got a damaged file",
            tf.strings.reduce_join(tf.strings.substr(names[:1], 1, -1)),
        ],
    )


def _mixed(window: Any, seed: tf.Tensor) -> Any:
    """The images of a window in another order."""
    size = tf.shape(tf.nest.flatten(window)[0])[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(size), seed)
    return tf.nest.map_structure(lambda part: tf.gather(part, order), window)
