"""Images as TFRecord files, written piece by piece."""

import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _files, _support
from tfp_vae.datasets.common import (
    DatasetError,
    expanded,
    refuse_binary_bytes,
    to_labels,
    to_unit_images,
)

INDEX = "records.json"
_FORMAT = 1
_SPLITS = ("train", "test")


def write_records(
    folder: Any,
    pieces: Iterable[Any],
    split: str = "train",
    *,
    images_per_file: int = 10_000,
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

    Returns:
        The folder.

    Raises:
        DatasetError: no images, some of another shape, type or range, labels of some pieces only,
            another split, or one that is there already.
        ValueError: `images_per_file` below 1.
        OSError: the folder cannot be written.
    """
    folder = expanded("folder", folder)
    if split not in _SPLITS:
        raise DatasetError(f"split: expected one of {', '.join(_SPLITS)}, got {split!r}.")
    _support.check_positive_int("images_per_file", images_per_file)
    index: dict[str, Any] = {"format": _FORMAT, "splits": {}}
    if (folder / INDEX).exists():
        index = read_index(folder)
    if split in index["splits"]:
        raise DatasetError(f"{folder}: holds {split} images already. Give another folder.")
    facts: dict[str, Any] = {
        key: index[key] for key in ("image_shape", "dtype", "labels") if key in index
    }
    examples = _examples(pieces, facts)
    files = []
    try:
        for number in itertools.count():
            in_file = itertools.islice(examples, images_per_file)
            first = next(in_file, None)
            if first is None:
                break
            name = f"{split}-{number:05d}.tfrecord"
            count = _write_file(folder / name, itertools.chain([first], in_file))
            files.append([name, count])
    except _OfTheCaller as passed:
        raise passed.__cause__ from None  # type: ignore[misc]
    if not files:
        raise DatasetError("pieces: expected at least one image, got none.")
    if (folder / INDEX).exists():
        # Another split may have been written meanwhile, and one description is of all.
        index = read_index(folder)
        theirs = {key: index[key] for key in facts if key in index}
        if theirs != facts or split in index["splits"]:
            raise DatasetError(
                f"{folder}: expected the other split, of such images, {facts}, to be all that is "
                f"written meanwhile, got {', '.join(index['splits'])} of {theirs}."
            )
    index |= facts
    index["splits"][split] = files
    # Last, so that a folder whose writing was stopped holds no such split.
    with _files.whole_file(folder / INDEX) as path:
        path.write_text(json.dumps(index, indent=1) + "\n")
    return folder


def _write_file(path: pathlib.Path, examples: Iterator[bytes]) -> int:
    """Write one file; gives the number of its records."""
    count = 0
    with _files.whole_file(path) as part:
        try:
            with tf.io.TFRecordWriter(str(part)) as writer:
                for example in examples:
                    writer.write(example)
                    count += 1
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
    return count


class _OfTheCaller(Exception):
    """Carries an error of the caller's `pieces` past those who would take it for one of writing."""


def _drawn(pieces: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from pieces
    except Exception as error:
        raise _OfTheCaller from error


def _examples(pieces: Iterable[Any], facts: dict[str, Any]) -> Iterator[bytes]:
    """Serialized examples; the first piece fills `facts`, the others must agree with them."""
    features = tf.train.Feature
    highest = 0
    for number, piece in enumerate(_drawn(pieces)):
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
        if as_bytes and images.size:
            highest = max(highest, int(images.max()))
        if labels is not None:
            labels = to_labels(where, np.asarray(labels), len(images))
        for i in range(len(images)):
            image = (images if as_bytes else shown)[i].tobytes()
            feature = {"image": features(bytes_list=tf.train.BytesList(value=[image]))}
            if labels is not None:
                feature["label"] = features(int64_list=tf.train.Int64List(value=[labels[i]]))
            yield tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    refuse_binary_bytes("pieces", highest)  # of all together: one of them may be black


def read_index(folder: pathlib.Path) -> dict[str, Any]:
    """The content of ``records.json``, looked through.

    Raises:
        DatasetError: there is none, or another one.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text())
        files = [file for files in index["splits"].values() for file in files]
        whole = (
            index["format"] == _FORMAT
            and all(index["splits"].values())
            and len(index["image_shape"]) == 3
            and index["dtype"] in ("uint8", "float32")
            and isinstance(index["labels"], bool)
            # Names, not paths: a foreign index shall not make us read elsewhere.
            and all(pathlib.PurePath(name).name == name for name, _ in files)
            and all(isinstance(count, int) and count > 0 for _, count in files)
            and all(isinstance(n, int) and n > 0 for n in index["image_shape"])
        )
    except FileNotFoundError:
        raise DatasetError(
            f"{path}: there is no such file. Expected a folder of write_records."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise DatasetError(
            f"{path}: expected what write_records writes, format {_FORMAT}, got a damaged or "
            "other file."
        )
    return index


def is_whole(path: str, count: int) -> bool:
    """Whether a TFRecord file is `count` records, as far as their lengths tell.

    Each is its length in 8 bytes (little-endian), 4 of checksum, its bytes, and 4 more.
    """
    with open(path, "rb") as file:
        end, place = file.seek(0, os.SEEK_END), 0
        while place < end and count >= 0:
            file.seek(place)
            place += 16 + int.from_bytes(file.read(8), "little")
            count -= 1
    return place == end and count == 0
