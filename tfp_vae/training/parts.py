"""The images of a run: what it trains on, validates with and is tested with."""

import dataclasses
from typing import Any

import numpy as np

from tfp_vae import _support, datasets
from tfp_vae.recipes import Recipe
from tfp_vae.training.models import RunError


@dataclasses.dataclass(frozen=True)
class Parts:
    """The images of a run: in [0, 1], and not yet binarized.

    Of a conditional recipe each part is a pair of images and labels.
    """

    recipe: Recipe
    train: Any
    validation: Any
    test: Any

    def training_batches(self, epoch: int, drop_remainder: bool) -> Any:
        """Those of an epoch, counted from 0, and in the passes after it those that follow."""
        return datasets.pipeline(
            *_support.split_labels(self.train),
            batch_size=self.recipe.batch_size,
            binarization=self.recipe.binarization,
            seed=self.recipe.seed,
            drop_remainder=drop_remainder,
            initial_epoch=epoch * self.recipe.passes,
        ).repeat(self.recipe.passes)

    def batches(self, part: Any, draws: int) -> Any:
        """For evaluation: in order, with one draw of pixels that never changes if the recipe draws.

        `draws` of z are decoded at once for each image: the more, the fewer images.
        """
        return datasets.pipeline(
            *_support.split_labels(part),
            batch_size=max(1, 500 // draws),
            binarization=self.recipe.binarization,
            training=False,
            seed=self.recipe.seed,
        )

    def binarized(self, part: Any) -> Any:
        """As `batches` has them, in one array or a pair with labels."""
        images, labels = _support.split_labels(part)
        images = datasets.binarize(images, self.recipe.binarization, seed=self.recipe.seed)
        return images if labels is None else (images, labels)


def split(data: datasets.ImageData, recipe: Recipe) -> Parts:
    """Hold out validation images, chosen by the recipe's seed, from the training images."""
    count = len(data.x_train)
    held_out = min(recipe.validation_images, count // 10)
    if held_out < 1:
        raise RunError(
            f"validation_images: expected at least 1 and at least 10 training images, got "
            f"{recipe.validation_images} and {count}."
        )
    if not len(data.x_test):
        raise RunError(f"{data.name}: expected test images, got none.")
    order = np.random.default_rng(recipe.seed).permutation(count)
    train: Any = data.x_train
    test: Any = data.x_test
    if recipe.conditional:
        for name, labels in (("training", data.y_train), ("test", data.y_test)):
            if labels is None:
                raise RunError(f"{data.name}: expected {name} images with labels, got none.")
        train, test = (train, data.y_train), (test, data.y_test)
    return Parts(
        recipe,
        _support.take(train, np.sort(order[held_out:])),
        _support.take(train, np.sort(order[:held_out])),
        test,
    )
