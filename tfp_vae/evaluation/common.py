"""Shared by the evaluations: results, means with their errors, checks."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.vae import VAE


@dataclasses.dataclass(frozen=True)
class Result:
    """Named figures, as attributes."""

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data for JSON; `None` for a number that is not finite."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class Estimate(Result):
    """A mean and its standard error.

    Attributes:
        mean: of the values, one for each image.
        standard_error: their standard deviation over the square root of their number; NaN for
            a single value.
    """

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Any) -> "Estimate":
        """The estimate from one value for each image, shape (B,)."""
        values = np.asarray(values, np.float64)
        spread = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), float(spread))


class NotAvailableError(ValueError):
    """A figure that cannot be had for this model or these images; the message says why."""


def _plain(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def arguments(vae: VAE, x: Any, seed: Any, **counts: Any) -> tuple[Any, tf.Tensor]:
    """The images as one checked batch (a pair if there are labels), and the stateless seed.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels), or for a conditional model ``(x, labels)``.
        seed: integer or stateless seed; `None` takes the model's own stream.
        **counts: arguments that must be integers of at least 1.

    Raises:
        TypeError: `vae` is no `VAE`, or `seed` is no seed.
        ValueError: wrong images, a count below 1, or weights that are not finite.
    """
    check_model(vae)
    for name, value in counts.items():
        _support.check_positive_int(name, value)
    x = vae._batch(x)
    vae._refuse_spoiled_weights()
    return x, _support.stateless_seed(seed, vae.seed_generator)


def check_model(vae: Any) -> None:
    """Refuse anything but a `VAE`.

    Raises:
        TypeError: it is another object.
    """
    if not isinstance(vae, VAE):
        raise TypeError(f"vae: expected a tfp_vae.VAE, got {type(vae).__name__}.")


def check_finite(first: int, **terms: Any) -> None:
    """Refuse NaN and infinity; the error names the term and the image.

    Args:
        first: index of the first image in these arrays.
        **terms: shape (B,): numbers, or booleans that say whether all numbers were finite. The
            names are those printed.

    Raises:
        NotAvailableError: a `ValueError`, for the first such term.
    """
    for name, value in terms.items():
        value = np.asarray(value)
        bad = np.flatnonzero(~(value if value.dtype == bool else np.isfinite(value)))
        if bad.size:
            raise NotAvailableError(_support.not_finite(name, bad, first))


def of_weights(
    log_sum: np.ndarray, log_squares: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``log p(x)`` from importance weights, its error and the ESS: shape (B,) each.

    Args:
        log_sum: ``log sum w`` of each image, shape (B,).
        log_squares: ``log sum w^2``.
        count: ``S``, the number of weights of each image.

    Returns:
        ``log (1/S) sum w``; its standard error by the delta method, ``std(w) / (mean(w) sqrt(S))``
        ``= sqrt((S / ESS - 1) / (S - 1))``, NaN for one weight; ``ESS = (sum w)^2 / sum w^2``.
    """
    log_sum = np.asarray(log_sum, np.float64)
    # Rounding may put it a little above S, where all weights are equal.
    ess = np.minimum(np.exp(2 * log_sum - log_squares), count)
    error = np.sqrt((count / ess - 1) / (count - 1)) if count > 1 else np.full(len(ess), np.nan)
    return log_sum - math.log(count), error, ess


def of_log_weights(log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `of_weights`, from ``log w``, shape (S, B)."""
    top = log_w.max(0)
    log_sum, log_squares = (
        factor * top + np.log(np.sum(np.exp(factor * (log_w - top)), 0)) for factor in (1, 2)
    )
    return of_weights(log_sum, log_squares, len(log_w))


def joint_error(errors: np.ndarray) -> float:
    """The standard error of the mean of independent values, from the errors of each."""
    return float(np.sqrt(np.sum(errors**2)) / len(errors))


def image_spec(x: Any) -> Any:
    """The spec of a batch of any size, so that a smaller last batch is not traced again."""
    return tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), x)


SEED = tf.TensorSpec([2], tf.int32)
COUNT = tf.TensorSpec([], tf.int32)
