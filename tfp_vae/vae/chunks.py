"""Sums over many images and many posterior draws within a fixed memory."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

# Numbers in one image, times images decoded at once: 510 of MNIST. Larger pieces were no faster
# on two cores. A convolutional decoder whose widest layer has F filters at the size of the image
# holds some 8 F bytes for each of these numbers: 100 MB for the CVAE's 32.
NUMBERS_AT_ONCE = 400_000

#: (images, number of samples, samples at once, seed) -> one number for each image
Reduction = Callable[[tf.Tensor, Any, Any, tf.Tensor], tf.Tensor]


def over_images(
    reduce: Reduction, x: tf.Tensor, num_samples: int, seed: tf.Tensor, verbose: Any
) -> tf.Tensor:
    """``reduce`` applied to pieces of `x`, so that memory grows with neither images nor samples.

    Args:
        reduce: works off the samples of a few images.
        x: images, shape (B, height, width, channels).
        num_samples: samples for each image.
        seed: stateless seed, shape (2,).
        verbose: 0, 1 or "auto", which shows a progress bar for more than one piece.

    Returns:
        Shape (B,).
    """
    decoded_at_once = max(1, NUMBERS_AT_ONCE // max(1, int(np.prod(x.shape[1:]))))
    if not tf.executing_eagerly():
        # How many images there are is not known while a graph is traced: all in one piece.
        chunk = tf.maximum(1, decoded_at_once // tf.shape(x)[0])
        return reduce(x, tf.constant(num_samples), chunk, tf.random.fold_in(seed, 0))
    chunk = min(num_samples, decoded_at_once)
    images_at_once = decoded_at_once // chunk
    starts = range(0, len(x), images_at_once)
    show = len(starts) > 1 if verbose == "auto" else bool(verbose)
    progress = keras.utils.Progbar(len(starts), unit_name="piece", verbose=int(show))
    results = []
    # Tensors, not Python numbers: each new number would be a new trace.
    sizes = tf.constant(num_samples), tf.constant(chunk)
    for step, start in enumerate(starts):
        piece = x[start : start + images_at_once]
        results.append(reduce(piece, *sizes, tf.random.fold_in(seed, start)))
        if show:
            progress.update(step + 1)
    return tf.concat(results, 0)


def over_samples(
    posterior: tfd.Distribution,
    num_samples: tf.Tensor,
    chunk: tf.Tensor,
    seed: tf.Tensor,
    initial: tf.Tensor,
    step: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Fold ``total = step(total, z)`` over `num_samples` draws of `posterior`, `chunk` at a time.

    Args:
        posterior: ``q(z|x)``, batch shape (B,).
        num_samples: scalar.
        chunk: scalar, draws in one step.
        seed: stateless seed, shape (2,).
        initial: the first total, shape (B,).
        step: from total, shape (B,), and draws ``z``, shape (chunk, B, d), to the next total.

    Returns:
        Shape (B,).
    """

    def body(done: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.minimum(chunk, num_samples - done)
        z = posterior.sample(count, seed=tf.random.fold_in(seed, done))
        return done + count, step(total, z)

    return tf.while_loop(
        lambda done, total: done < num_samples,
        body,
        (tf.constant(0), initial),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])),
        parallel_iterations=1,  # two iterations at a time would hold twice the memory
    )[1]
