"""Finds images unlike those that a model was trained on."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.evaluation import common
from tfp_vae.vae import VAE


@dataclasses.dataclass(frozen=True)
class AnomalyScores(common.Result):
    """What `anomaly_scores` returns, for ``B`` images.

    Attributes:
        log_likelihood: ``log p(x)``, shape (B,), in nats; the lower, the stranger.
        p_value: low if few calibration images have a ``log p(x)`` as low, shape (B,).
        two_sided_p_value: low if few have one as low *or as high*, shape (B,).
    """

    log_likelihood: np.ndarray
    p_value: np.ndarray
    two_sided_p_value: np.ndarray


def anomaly_scores(
    vae: VAE,
    x: Any,
    calibration_images: Any,
    *,
    num_samples: int = 100,
    seed: Any = None,
    verbose: Any = "auto",
) -> AnomalyScores:
    """``log p(x)`` of each image, and how rare a value as low is among normal images.

    An image from the same distribution as the calibration images gets a p-value of at most
    ``alpha`` with probability at most ``alpha``, whatever the model: see `conformal_p_values`. So
    if you call images strange whose p-value is at most 0.01, you do so for 1 in 100 normal images.

    A low p-value means strange, but a high one does not mean normal: a model can find images of
    another kind more likely than its own (Nalisnick et al. 2019, arXiv:1810.09136), especially
    simpler ones, such as ones or blank images among digits. The two-sided p-value,
    ``min(1, 2 min(p, p'))`` where ``p'`` is the p-value of ``-log p(x)``, has the same bound on
    false alarms and finds those too, but detects less likely images somewhat less well (the idea of
    typicality, Nalisnick et al. 2019, arXiv:1906.02994). ``examples/anomaly.py`` shows both.

    Args:
        vae: a `VAE`.
        x: images, shape (B, height, width, channels), or a pair of them and labels.
        calibration_images: normal images that the model was *not* trained on, prepared like `x`,
            shape (n, height, width, channels); with labels if `x` has them.
        num_samples: importance samples for each image, as in `VAE.log_likelihood`.
        seed: integer or stateless seed; by default the model's own stream.
        verbose: as in `VAE.log_likelihood`.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: as `VAE.log_likelihood`; images of two shapes, labels for only one of the sets,
            or no calibration images.
    """
    common.check_model(vae)
    if vae.num_classes is not None:  # Keras takes lists of two as well
        x, calibration_images = (
            tuple(pair) if isinstance(pair, list) else pair for pair in (x, calibration_images)
        )
    shapes = [np.shape(_support.split_labels(images)[0]) for images in (x, calibration_images)]
    if shapes[1][:1] == (0,):
        raise ValueError("calibration_images: expected at least one, got none.")
    # Each by itself, lest one's type hide the other's.
    x, seed = common.arguments(vae, x, seed, num_samples=num_samples)
    calibration_images, _ = common.arguments(vae, calibration_images, seed)
    if shapes[0][1:] != shapes[1][1:]:  # of a model that takes several
        raise ValueError(
            f"calibration_images: expected images of the shape {shapes[0][1:]} of those in x, got "
            f"the shape {shapes[1]}."
        )
    # In one call, so that no draw of one set is a draw of the other.
    both = tf.nest.map_structure(lambda *sets: tf.concat(sets, 0), x, calibration_images)
    try:
        log_likelihood = np.asarray(vae.log_likelihood(both, num_samples, seed, verbose=verbose))
    except _support.NotFiniteError as error:
        count = _support.count(x)
        message = f"{error} From image {count} on they are calibration_images."
        raise _support.NotFiniteError(message) from error
    scores, calibration = np.split(log_likelihood, [_support.count(x)])
    low = conformal_p_values(scores, calibration)
    high = conformal_p_values(-scores, -calibration)
    return AnomalyScores(scores, low, np.minimum(1, 2 * np.minimum(low, high)))


def conformal_p_values(scores: Any, calibration_scores: Any) -> np.ndarray:
    """``p = (1 + #{i: c_i <= s}) / (n + 1)`` of each score ``s``, ``c`` the calibration scores.

    If ``s`` and all ``c_i`` are exchangeable, ``P(p <= alpha) <= alpha`` for every ``alpha``; if no
    two are equal, the probability is exactly ``floor(alpha (n + 1)) / (n + 1)``. This holds on
    average over calibration sets; the p-values of many images share one set (Bates et al. 2023,
    arXiv:2104.08279).

    Args:
        scores: low means strange, shape (B,).
        calibration_scores: of normal images, shape (n,).

    Raises:
        ValueError: another number of dimensions, no calibration scores, or NaN.

    Example:
        >>> conformal_p_values([0.5, 9.0], [1.0, 2.0, 3.0])
        array([0.25, 1.  ])
    """
    scores, calibration = np.asarray(scores, float), np.asarray(calibration_scores, float)
    for name, values in (("scores", scores), ("calibration_scores", calibration)):
        if values.ndim != 1:
            raise ValueError(f"{name}: expected the shape (N,), got {values.shape}.")
        if np.isnan(values).any():
            raise ValueError(f"{name}: expected numbers, got NaN among them.")
    if not len(calibration):
        raise ValueError("calibration_scores: expected at least one, got none.")
    lower = np.searchsorted(np.sort(calibration), scores, side="right")
    return (1 + lower) / (len(calibration) + 1)
