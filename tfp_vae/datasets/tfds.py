"""Sets of TensorFlow Datasets, where that package is installed."""

from typing import Any

import numpy as np

from tfp_vae.datasets.common import (
    DatasetError,
    ImageData,
    counts,
    set_to_unit_images,
    to_labels,
)

PREFIX = "tfds:"


def prepared(name: str, data_dir: Any, download: bool = True) -> Any:
    """The builder of "tfds:NAME"; with `download`, prepared if it was not.

    Raises:
        DatasetError: the package is missing, it knows no such set, the set cannot be had, or its
            examples are no images of one shape in 8 bits.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DatasetError(
            f"{name}: needs TensorFlow Datasets: pip install tensorflow-datasets ({error})."
        ) from error
    try:
        plain = name.removeprefix(PREFIX)
        if download:
            builder = tfds.builder(plain, data_dir=data_dir)
            builder.download_and_prepare()
        else:  # from files alone: `builder` asks the network, even where it downloads no images
            builder = tfds.core.read_only_builder.builder_from_files(plain, data_dir=data_dir)
    except Exception as error:  # the package raises its own and those of whatever it calls
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        how = "" if download else " without a download"
        raise DatasetError(f"{name}: TensorFlow Datasets could not give it{how}: {said}") from error
    features = _features(builder)
    image = features.get("image")
    shape = getattr(image, "shape", None)
    if image is None or shape is None or None in shape or image.np_dtype != np.uint8:
        raise DatasetError(
            f'{name}: expected a feature "image" of one shape in 8 bits, got '
            f"{shape if shape is not None else ', '.join(features)}."
        )
    return builder


def _features(builder: Any) -> dict[str, Any]:
    return {name: builder.info.features[name] for name in builder.info.features}


def split_info(builder: Any, split: str) -> Any:
    """What is known of a split.

    Raises:
        DatasetError: there is none of that name.
    """
    if split not in builder.info.splits:
        raise DatasetError(
            f"{builder.name}: expected {split!r} among its splits, got "
            f"{', '.join(builder.info.splits)}."
        )
    return builder.info.splits[split]


def examples(builder: Any, split: str) -> Any:
    """A `tf.data.Dataset` of dictionaries with ``image`` and, where there are any, ``label``."""
    wanted = [key for key in ("image", "label") if key in builder.info.features]
    return builder.as_dataset(split=split, shuffle_files=False).map(
        lambda example: {key: example[key] for key in wanted}
    )


def load(name: str, data_dir: Any, download: bool) -> ImageData:
    """The whole set in memory."""
    builder = prepared(name, data_dir, download)
    parts: dict[str, Any] = {}
    for split in ("train", "test"):
        count = split_info(builder, split).num_examples
        (batch,) = examples(builder, split).batch(count).as_numpy_iterator()
        where = f"{name} [{split}]"
        parts[f"x_{split}"] = set_to_unit_images(where, batch["image"])
        labels = batch.get("label")
        if labels is not None:
            labels = to_labels(where, np.asarray(labels), count)
        parts[f"y_{split}"] = labels
    names = getattr(_features(builder).get("label"), "names", None)
    return ImageData(
        name=name,
        class_names=None if names is None else tuple(names),
        source=(
            f"{name} of TensorFlow Datasets in {builder.data_dir}: "
            f"{counts(parts['x_train'], parts['x_test'])}"
        ),
        **parts,
    )
