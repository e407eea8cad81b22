"""Sums over many images and many posterior draws within a fixed memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.vae import parts

# Numbers in the widest layer of a network: images times what the layer makes of one. 13 MB in
# float32.
NUMBERS_AT_ONCE = 3_200_000

# Two steps of a loop over draws run at once, so that the products of one fill the cores while the
# other draws and sums. Together they decode half of what may be decoded at once, which the caches
# hold better than all of it; but where layers are wide, not so few that the products become slow.
_STEPS_AT_ONCE = 2
_FEW_VECTORS = 64
# Over so many steps a piece of many images spreads its draws: the first and the last of them run
# alone.
_STEPS_OF_A_PIECE = 20

# Where nothing is known of the layers: eight numbers for one of the image, as in a convolution of
# 32 filters that halves its sides.
_WIDTH_OF_IMAGE = 8

#: (images, number of samples, samples at once, seed) -> tensors whose first dimension is the images
Reduction = Callable[[Any, Any, Any, tf.Tensor], Any]


def pieces(x: Any, size: int, verbose: Any) -> Iterator[tuple[int, Any]]:
    """`_support.pieces` under a progress bar.

    Args:
        x: array or tensor, cut along its first dimension; or a tuple of them.
        size: of a piece.
        verbose: 0, 1 or "auto", which shows a progress bar for more than one piece.
    """
    number = -(-_support.count(x) // size)
    show = number > 1 if verbose == "auto" else bool(verbose)
    progress = keras.utils.Progbar(number, unit_name="piece", verbose=int(show))
    for step, piece in enumerate(_support.pieces(x, size)):
        yield piece
        if show:
            progress.update(step + 1)


def at_once(vae: Any, x: Any, least: int = 1) -> int:
    """How many images of the size of those in `x` may be worked off at once.

    Args:
        vae: the `VAE`, whose widest layer says how much memory one of them takes.
        x: images, shape (B, height, width, channels), or a pair of them and labels.
        least: numbers that one of them takes at least.
    """
    images, _ = _support.split_labels(x)
    return max(1, NUMBERS_AT_ONCE // max(least, _width(vae, images.shape[1:])))


def decoded_in_a_step(vae: Any, x: Any) -> int:
    """How many latent vectors a step of `over_samples` may decode, of images of the size of `x`."""
    most = at_once(vae, x) // _STEPS_AT_ONCE
    return max(1, most // 2, min(most, _FEW_VECTORS))


def decoded_at_once(vae: Any) -> int:
    """How many latent vectors may be decoded at once, of which a mean or draws are to be made.

    Sixteen times as many as importance samples, for which all that is made of them is kept.
    """
    shape = vae.image_shape or (None,)
    return _kept_little(_width(vae, (784,) if None in shape else shape))


def _width(vae: Any, image_shape: Any) -> int:
    width = parts.widest(vae.encoder, vae.decoder, vae.prior)
    return _WIDTH_OF_IMAGE * math.prod(image_shape) if width is None else width


def _kept_little(width: int) -> int:
    return max(1, 16 * NUMBERS_AT_ONCE // width)


def prior_draws(vae: Any, count: Any, seed: tf.Tensor) -> tf.Tensor:
    """``z ~ p(z)``, shape (count, d), in pieces: TFP draws from every component of a mixture.

    Args:
        vae: the `VAE`.
        count: how many; of a tensor's number all are drawn at once.
        seed: stateless seed, shape (2,).
    """
    prior = vae.prior()
    size = _kept_little(parts.width_of_density(vae.prior, vae.encoder))
    if tf.is_tensor(count) or count <= size:
        return prior.sample(count, seed=seed)
    return tf.concat(
        [
            prior.sample(min(size, count - start), seed=tf.random.fold_in(seed, start))
            for start in range(0, count, size)
        ],
        0,
    )


def over_images(
    reduce: Reduction,
    vae: Any,
    x: Any,
    num_samples: int,
    seed: tf.Tensor,
    verbose: Any,
) -> Any:
    """``reduce`` applied to pieces of `x`, so that memory grows with neither images nor samples.

    Args:
        reduce: works off the samples of a few images; one tensor or a structure of them.
        vae: the `VAE` whose samples they are, which says how many are worked off at once.
        x: images, shape (B, height, width, channels), or a pair of them and labels.
        num_samples: samples for each image.
        seed: stateless seed, shape (2,).
        verbose: see `pieces`.

    Within the scope of a `tf.distribute.MultiWorkerMirroredStrategy` each worker works off some of
    the pieces, and all get the whole; all must call, with the same arguments.

    Returns:
        The structure of `reduce`, its parts joined: shapes (B, ...).
    """
    num_samples = int(num_samples)  # NumPy's would make a tensor of 64 bits
    decoded = decoded_in_a_step(vae, x)
    if not tf.executing_eagerly():
        # How many images there are is not known while a graph is traced: all in one piece.
        images = tf.maximum(1, tf.shape(_support.split_labels(x)[0])[0])
        chunk = tf.maximum(1, decoded // images)
        return reduce(x, tf.constant(num_samples), chunk, tf.random.fold_in(seed, 0))
    few = decoded // max(1, _support.count(x))  # draws in a step that takes all images
    chunk = min(num_samples, decoded, max(few, -(-num_samples // _STEPS_OF_A_PIECE)))
    # Tensors, not Python numbers: each new number would be a new trace.
    sizes = tf.constant(num_samples), tf.constant(chunk)
    first, x, merge = _part_of_worker(x, decoded // chunk)
    results = [
        reduce(piece, *sizes, tf.random.fold_in(seed, first + start))
        for start, piece in pieces(x, decoded // chunk, verbose)
    ]
    return merge(tf.nest.map_structure(lambda *values: tf.concat(values, 0), *results))


def _part_of_worker(x: Any, size: int) -> tuple[int, Any, Callable[[Any], Any]]:
    """Whole pieces of `x` for this worker of the strategy whose scope this is.

    Gives the index of its first image, so that its pieces are those of one worker alone, its part,
    and a function that joins the results of all workers, in order. Without workers, all.
    """
    index, workers = _support.worker()
    count = _support.count(x)
    each = -(-count // (size * workers)) * size  # images
    start = min(index * each, count)
    part = _support.take(x, slice(start, start + each))
    if workers == 1:
        return 0, x, lambda results: results
    mine = _support.count(part)
    if not mine:  # one piece is done in vain, to know the shapes of the results
        start, part = 0, _support.take(x, slice(size))
    strategy = tf.distribute.get_strategy()
    own = strategy.num_replicas_in_sync // workers

    def of_replica(value: tf.Tensor) -> Any:
        sent = tf.cast(value, tf.int32) if value.dtype == tf.bool else value
        return strategy.experimental_distribute_values_from_function(
            lambda replica: sent[: 0 if replica.replica_id_in_sync_group % own else mine]
        )

    @tf.function(autograph=False)  # in one graph: eagerly TensorFlow would trace each of them
    def gather(values: Any) -> Any:
        return tf.nest.map_structure(lambda value: strategy.gather(value, axis=0), values)

    def merge(results: Any) -> Any:
        joined = gather(tf.nest.map_structure(of_replica, results))
        return tf.nest.map_structure(lambda a, b: tf.cast(a, b.dtype), joined, results)

    return start, part, merge


def over_samples(
    posterior: tfd.Distribution,
    num_samples: tf.Tensor,
    chunk: tf.Tensor,
    seed: tf.Tensor,
    initial: Any,
    step: Callable[[Any, tf.Tensor], Any],
) -> Any:
    """Fold ``state = step(state, z)`` over `num_samples` draws of `posterior`, `chunk` at a time.

    Args:
        posterior: ``q(z|x)``, batch shape (B,).
        num_samples: scalar.
        chunk: scalar, draws in one step.
        seed: stateless seed, shape (2,).
        initial: the first state: tensors of shape (B, ...), in any structure.
        step: from a state and draws ``z``, shape (chunk, B, d), to the next state.

    Returns:
        The last state.
    """

    def body(done: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        count = tf.minimum(chunk, num_samples - done)
        z = posterior.sample(count, seed=tf.random.fold_in(seed, done))
        return done + count, step(state, z)

    return tf.while_loop(
        lambda done, state: done < num_samples,
        body,
        (tf.constant(0), initial),
        shape_invariants=(
            tf.TensorShape([]),
            tf.nest.map_structure(lambda part: tf.TensorShape([None, *part.shape[1:]]), initial),
        ),
        parallel_iterations=_STEPS_AT_ONCE,
    )[1]
