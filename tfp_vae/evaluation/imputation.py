"""How well hidden pixels are found: the model beside mean filling and nearest neighbours."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support

# Numbers held at once: of decoded images, and of distances to training images.
_NUMBERS_AT_ONCE = 4_000_000


class ImputationError(NamedTuple):
    """Errors at the hidden pixels of each of ``B`` images; a colour pixel counts as three numbers.

    Attributes:
        squared_error: mean over the image's hidden numbers of ``(E[x_i] - x_i)^2``, shape (B,).
        log_score: mean over the same of ``log p(x_i | x_observed)``, the logarithm of the
            predictive probability (or density) of the true value, in nats for each hidden number,
            shape (B,): a proper score of each pixel by itself, which says nothing of how pixels
            hang together. `None` where there is no such predictive.
    """

    squared_error: np.ndarray
    log_score: np.ndarray | None


def imputation_error(
    vae: Any, x: Any, mask: Any, *, num_samples: int = 16, **options: Any
) -> ImputationError:
    """Hide the pixels where `mask` is False, impute them, and compare with the truth.

    ``E[x_i]`` is the mean of `VAE.impute`. The predictive is the mixture over the chains' ends,
    ``p(x_i | x_observed) = (1/S) sum_s p(x_i | z_s)``, ``S = num_samples``: few of them make
    the log score worse in expectation, never better.

    Args:
        vae: a `VAE` whose likelihood is a `tfd.Independent`.
        x: whole images, shape (B, height, width, channels).
        mask: True where a pixel is observed, as in `VAE.impute`; hides some of each image.
        num_samples: chains for each image.
        **options: of `VAE.impute`.

    Raises:
        TypeError: the likelihood is no `tfd.Independent`.
        ValueError: as `VAE.impute`; images that are not finite; nothing hidden in one of them.
    """
    x, mask = _check_truth(x, mask)
    found = vae.impute(x, mask, num_samples, **options)
    size = max(1, _NUMBERS_AT_ONCE // (num_samples * x[0].size))
    log_score = [
        _log_predictive(vae.decode(found.z[:, i : i + size]), x[i : i + size])
        for i in range(0, len(x), size)
    ]
    mean = np.asarray(found.mean)
    return ImputationError(
        _over_hidden((mean - x) ** 2, mask), _over_hidden(np.concatenate(log_score), mask)
    )


def _log_predictive(likelihood: tfd.Distribution, x: np.ndarray) -> np.ndarray:
    """``log (1/S) sum_s p(x_i | z_s)`` of each number, shape of `x`."""
    log_prob = _support.pixel_log_prob(likelihood, x)
    return np.asarray(tf.reduce_logsumexp(log_prob, 0) - np.log(log_prob.shape[0]))


def baseline_error(
    x: Any, mask: Any, x_train: Any, *, num_neighbours: int = 10
) -> dict[str, ImputationError]:
    """The same errors without a model: "training mean" and "nearest neighbours".

    Where all images are binary the log score is that of ``(s + 1/2) / (n + 1)``, the probability
    of a 1 where ``s`` of ``n`` training images or neighbours have one (Jeffreys' prior).

    Args:
        x: whole images, shape (B, height, width, channels).
        mask: True where a pixel is observed, as in `VAE.impute`.
        x_train: images to learn from, shape (N, height, width, channels).
        num_neighbours: of `fill_with_neighbours`.

    Raises:
        ValueError: as `imputation_error` and `fill_with_neighbours`.
    """
    x, mask = _check_truth(x, mask)
    filled = {
        "training mean": (fill_with_mean(x, mask, x_train), len(x_train)),
        "nearest neighbours": (
            fill_with_neighbours(x, mask, x_train, num_neighbours),
            num_neighbours,
        ),
    }
    binary = bool(np.isin(x, (0, 1)).all() and np.isin(x_train, (0, 1)).all())
    errors = {}
    for name, (mean, count) in filled.items():
        p = (count * mean + 0.5) / (count + 1)
        score = np.log(np.where(x == 1, p, 1 - p)) if binary else None
        errors[name] = ImputationError(
            _over_hidden((mean - x) ** 2, mask),
            None if score is None else _over_hidden(score, mask),
        )
    return errors


def fill_with_mean(x: Any, mask: Any, x_train: Any) -> np.ndarray:
    """`x` with each hidden pixel at its mean over the training images.

    Arguments and errors as in `fill_with_neighbours`.
    """
    x, mask, x_train = _check(x, mask, x_train)
    return np.where(mask, x, x_train.mean(0, dtype=np.float64).astype(x.dtype))


def fill_with_neighbours(x: Any, mask: Any, x_train: Any, num_neighbours: int = 10) -> np.ndarray:
    """`x` with each hidden pixel at its mean over the nearest training images.

    Near by the squared distance over the observed pixels. The same as scikit-learn's
    `KNNImputer`, which would take the distance for each hidden pixel again.

    Args:
        x: images, shape (B, height, width, channels); hidden pixels are not looked at.
        mask: True where a pixel is observed, as in `VAE.impute`.
        x_train: whole images, shape (N, height, width, channels).
        num_neighbours: how many of them, at most N.

    Raises:
        ValueError: images of two shapes, a wrong mask, or more neighbours than images.
    """
    x, mask, x_train = _check(x, mask, x_train)
    if _support.check_positive_int("num_neighbours", num_neighbours) > len(x_train):
        raise ValueError(
            f"num_neighbours: expected at most the {len(x_train)} training images, got "
            f"{num_neighbours}."
        )
    train = x_train.reshape(len(x_train), -1)
    means = np.empty((len(x), train.shape[1]), x.dtype)
    size = max(1, _NUMBERS_AT_ONCE // len(train))
    for i in range(0, len(x), size):
        seen = mask[i : i + size].reshape(-1, train.shape[1])
        pixels = np.where(seen, x[i : i + size].reshape(seen.shape), 0)
        # sum over the seen of (x - t)^2, less the sum of x^2, which is the same for all t.
        distances = seen.astype(x.dtype) @ (train**2).T - 2 * pixels @ train.T
        nearest = np.argpartition(distances, num_neighbours - 1, 1)[:, :num_neighbours]
        means[i : i + size] = train[nearest].mean(1)
    return np.where(mask, x, means.reshape(x.shape))


def _over_hidden(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, values.ndim))
    return values.mean(axes, where=~mask, dtype=np.float64)


def _check_truth(x: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x)
    mask = _support.check_mask(mask, x.shape)
    if not np.isfinite(x).all():
        raise ValueError("x: expected whole images to compare with, got NaN or infinity.")
    if mask.all(tuple(range(1, x.ndim))).any():
        raise ValueError("mask: expected at least one hidden pixel in each image, got none.")
    return x, mask


def _check(x: Any, mask: Any, x_train: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, x_train = np.asarray(x), np.asarray(x_train)
    if not len(x_train) or x.shape[1:] != x_train.shape[1:]:
        raise ValueError(
            f"x_train: expected images of the shape {x.shape[1:]} of those in x, got the shape "
            f"{x_train.shape}."
        )
    return x, _support.check_mask(mask, x.shape), x_train
