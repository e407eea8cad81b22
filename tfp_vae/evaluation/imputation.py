"""How well hidden pixels are imputed, compared with mean filling and nearest neighbours."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.evaluation import common
from tfp_vae.layers import AutoregressivePixels
from tfp_vae.vae import VAE, chunks, images, labels

_NUMBERS_AT_ONCE = 4_000_000  # distances to training images, or pixels of neighbours


@dataclasses.dataclass(frozen=True)
class ImputationError(common.Result):
    """Errors at the hidden pixels of each of ``B`` images; a colour pixel counts as three numbers.

    Attributes:
        squared_error: mean over the image's hidden numbers of ``(E[x_i] - x_i)^2``, shape (B,).
        log_score: mean over the same of ``log p(x_i | x_observed)``, the logarithm of the
            predictive probability (or density) of the true value, in nats per hidden number,
            shape (B,): a proper score of each pixel by itself, which says nothing about how pixels
            depend on each other. `None` if there is no such predictive.
        mean_squared_error: over the images.
        mean_log_score: over the images; `None` like `log_score`.
    """

    squared_error: np.ndarray
    log_score: np.ndarray | None
    mean_squared_error: common.Estimate
    mean_log_score: common.Estimate | None

    @classmethod
    def of(cls, mean: Any, log_score: Any, x: np.ndarray, mask: np.ndarray) -> "ImputationError":
        """From the predicted mean and the log score of every number, both in the shape of `x`."""
        error = _over_hidden((np.asarray(mean) - x) ** 2, mask)
        if log_score is None:
            return cls(error, None, common.Estimate.of(error), None)
        score = _over_hidden(log_score, mask)
        return cls(error, score, common.Estimate.of(error), common.Estimate.of(score))


def imputation_error(
    vae: VAE, x: Any, mask: Any, *, num_samples: int = 16, **options: Any
) -> ImputationError:
    """Hide the pixels where `mask` is False, impute them, and compare with the truth.

    ``E[x_i]`` is the mean of `VAE.impute`. The predictive is the mixture over the chains' ends,
    ``p(x_i | x_observed) = (1/S) sum_s p(x_i | z_s)``, ``S = num_samples``. With few chains the
    log score gets worse in expectation, never better.

    Autoregressive pixels have no predictive given ``z`` alone: that of a 1 is taken to be
    ``(S m_i + 1/2) / (S + 1)``, ``m_i`` the mean of the imputed pixel over all steps that count.

    Args:
        vae: a `VAE` whose likelihood is a `tfd.Independent`, or autoregressive.
        x: whole images, shape (B, height, width, channels).
        mask: True where a pixel is observed, as in `VAE.impute`; must hide part of each image.
        num_samples: chains for each image.
        **options: other arguments of `VAE.impute`.

    Raises:
        TypeError: `vae` is no `VAE`, or its likelihood neither of the two.
        ValueError: as `VAE.impute`; images that are not finite; nothing hidden in one of them.
    """
    common.check_model(vae)
    labels.refuse("imputation_error", vae.num_classes)
    x, mask = _check_truth(x, mask)
    images.check_batch(x, vae.image_shape)
    likelihood = vae.decode(tf.zeros([1, vae.latent_dim]))
    if isinstance(likelihood, AutoregressivePixels):
        # Without a predictive of each pixel given z: by how often it was 1.
        found = vae.impute(x, mask, num_samples, **options)
        return ImputationError.of(found.mean, _log_score(found.mean, num_samples, x), x, mask)
    # Before the chains, not after them: whether the pixels have a predictive each.
    _support.pixel_log_prob(likelihood, x[:1])
    found = vae.impute(x, mask, num_samples, **options)
    total, at_once = np.full(x.shape, -np.inf), chunks.at_once(vae, x)
    for z in found.z:  # (B, d), the ends of one chain of each image
        for start, piece in chunks.pieces(x, at_once, 0):
            here = slice(start, start + len(piece))
            log_prob = _support.pixel_log_prob(vae.decode(z[here]), piece)
            total[here] = np.logaddexp(total[here], log_prob)
    return ImputationError.of(found.mean, total - np.log(num_samples), x, mask)


def imputation_errors(
    vae: VAE,
    x: Any,
    mask: Any,
    x_train: Any,
    *,
    methods: Sequence[str] = ("metropolis",),
    num_neighbours: int = 10,
    **options: Any,
) -> dict[str, ImputationError]:
    """`imputation_error` for each method by its name, and the two of `baseline_error`.

    Arguments and errors are those of both; `methods` are those of `VAE.impute`, `options` all other
    arguments of `imputation_error`.
    """
    common.check_model(vae)
    labels.refuse("imputation_errors", vae.num_classes)
    # Before the chains: it refuses images of two shapes.
    baselines = baseline_error(x, mask, x_train, num_neighbours=num_neighbours)
    return {
        method: imputation_error(vae, x, mask, method=method, **options) for method in methods
    } | baselines


def baseline_error(
    x: Any, mask: Any, x_train: Any, *, num_neighbours: int = 10
) -> dict[str, ImputationError]:
    """The same errors without a model: "training mean" and "nearest neighbours".

    If all images are binary, the log score uses ``(s + 1/2) / (n + 1)`` as the probability of a 1,
    where ``s`` of ``n`` training images or neighbours have a 1 (Jeffreys' prior).

    Args:
        x: whole images, shape (B, height, width, channels).
        mask: True where a pixel is observed, as in `VAE.impute`.
        x_train: images to learn from, shape (N, height, width, channels).
        num_neighbours: as in `fill_with_neighbours`.

    Raises:
        ValueError: as `imputation_error` and `fill_with_neighbours`.
    """
    x, mask = _check_truth(x, mask)
    anything_seen = mask.any(tuple(range(1, x.ndim)), keepdims=True)
    filled: dict[str, tuple[np.ndarray, Any]] = {
        "training mean": (fill_with_mean(x, mask, x_train), len(x_train)),
        "nearest neighbours": (
            fill_with_neighbours(x, mask, x_train, num_neighbours),
            np.where(anything_seen, num_neighbours, len(x_train)),
        ),
    }
    binary = bool(np.isin(x_train, (0, 1)).all())
    errors = {}
    for name, (mean, count) in filled.items():
        score = _log_score(mean, count, x) if binary else None
        errors[name] = ImputationError.of(mean, score, x, mask)
    return errors


def fill_with_mean(x: Any, mask: Any, x_train: Any) -> np.ndarray:
    """`x` with each hidden pixel set to its mean over the training images.

    Arguments and errors are those of `fill_with_neighbours`.
    """
    x, mask, x_train = _check(x, mask, x_train)
    return np.where(mask, x, x_train.mean(0, dtype=np.float64).astype(x.dtype))


def fill_with_neighbours(x: Any, mask: Any, x_train: Any, num_neighbours: int = 10) -> np.ndarray:
    """`x` with each hidden pixel set to its mean over the nearest training images.

    Nearest by the squared distance over the observed pixels; if nothing of an image is observed,
    the mean over all training images. It gives the same as scikit-learn's `KNNImputer`, which would
    compute the distance again for each hidden pixel.

    Args:
        x: images, shape (B, height, width, channels); hidden pixels are ignored.
        mask: True where a pixel is observed, as in `VAE.impute`.
        x_train: whole images, shape (N, height, width, channels).
        num_neighbours: number of neighbours, at most N.

    Raises:
        ValueError: integer pixels, images of two shapes, observed pixels that are not finite, a
            wrong mask, or more neighbours than images.
    """
    x, mask, x_train = _check(x, mask, x_train)
    if _support.check_positive_int("num_neighbours", num_neighbours) > len(x_train):
        raise ValueError(
            f"num_neighbours: expected at most the {len(x_train)} training images, got "
            f"{num_neighbours}."
        )
    train = x_train.reshape(len(x_train), -1)
    means = np.empty((len(x), train.shape[1]), x.dtype)
    size = max(1, _NUMBERS_AT_ONCE // max(len(train), num_neighbours * train.shape[1]))
    for i in range(0, len(x), size):
        seen = mask[i : i + size].reshape(-1, train.shape[1])
        pixels = np.where(seen, x[i : i + size].reshape(seen.shape), 0)
        # sum over the seen of (x - t)^2, less the sum of x^2, which is the same for all t.
        distances = seen.astype(x.dtype) @ (train**2).T - 2 * pixels @ train.T
        nearest = np.argpartition(distances, num_neighbours - 1, 1)[:, :num_neighbours]
        means[i : i + size] = train[nearest].mean(1)
        means[i : i + size][~seen.any(1)] = train.mean(0)
    return np.where(mask, x, means.reshape(x.shape))


def _log_score(mean: Any, count: Any, x: np.ndarray) -> np.ndarray | None:
    """The log-probability of binary pixels by the mean of `count`; `None` of others."""
    if not np.isin(x, (0, 1)).all():
        return None
    p = (count * np.asarray(mean, np.float64) + 0.5) / (count + 1)
    return np.log(np.where(x == 1, p, 1 - p))


def _over_hidden(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, values.ndim))
    return values.mean(axes, where=~mask, dtype=np.float64)


def _check_truth(x: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    x = _floating("x", x)
    mask = _support.check_mask(mask, x.shape)
    if not np.isfinite(x).all():
        raise ValueError("x: expected whole images to compare with, got NaN or infinity.")
    if mask.all(tuple(range(1, x.ndim))).any():
        raise ValueError("mask: expected at least one hidden pixel in each image, got none.")
    return x, mask


def _check(x: Any, mask: Any, x_train: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, x_train = _floating("x", x), _floating("x_train", x_train)
    if not len(x_train) or x.shape[1:] != x_train.shape[1:]:
        raise ValueError(
            f"x_train: expected images of the shape {x.shape[1:]} of those in x, got the shape "
            f"{x_train.shape}."
        )
    mask = _support.check_mask(mask, x.shape)
    if not (np.isfinite(x[mask]).all() and np.isfinite(x_train).all()):
        raise ValueError(
            "x, x_train: expected finite pixels where they are observed, got NaN or infinity."
        )
    return x, mask, x_train


def _floating(name: str, images: Any) -> np.ndarray:
    """Sums and means of 8-bit integers would overflow and be cut off, of 16-bit floats rounded."""
    images = np.asarray(images)
    if images.dtype.kind != "f":
        raise ValueError(f"{name}: expected floating-point pixels, got {images.dtype}.")
    return images.astype(np.promote_types(images.dtype, np.float32), copy=False)
