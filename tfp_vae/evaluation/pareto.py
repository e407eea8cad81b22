"""How heavy the tail of importance weights is."""

import math

import numpy as np

_FEWEST = 5
#: Of log-weights that differ by less only the rounding could be fitted.
_FLAT = 1e-3
#: Of log-weights that differ by more one is nothing beside the other, and its inverse infinite.
_STEEP = 690.0
#: Numbers in the grid of `_fit` at once: 20 MB.
_NUMBERS_AT_ONCE = 2_400_000


def reliable_below(num_samples: int) -> float:
    """``min(1 - 1 / log10(S), 0.7)``: up to this ``k`` an estimate of S samples can be relied on.

    Source: Vehtari et al. 2024, arXiv:1507.02646, section 3.2.4.
    """
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else -math.inf


def tail_length(num_samples: int) -> int:
    """``M = ceil(min(S / 5, 3 sqrt(S)))`` largest weights are the tail; 0 where that is below 5.

    Source: Vehtari et al. 2024, arXiv:1507.02646, section 3.
    """
    length = math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))
    return length if length >= _FEWEST else 0


def pareto_k(largest: np.ndarray) -> np.ndarray:
    """The shape ``k`` of the generalized Pareto distribution of each row's tail, shape (B,).

    Weights ``w`` above a threshold ``u`` are taken to follow
    ``P(w - u > y) = (1 + k y / sigma)^(-1 / k)``: their moments up to ``1 / k`` are finite.

    Args:
        largest: the ``M + 1`` largest log-weights of each image in falling order, shape
            (B, M + 1); the last is the threshold.

    Returns:
        ``(M k + 5) / (M + 10)``, the fit drawn to 0.5 by the weight of ten values, as
        Vehtari et al. do. NaN where there is no tail (M below 5), ``-inf`` where it is flat and
        ``inf`` where a quarter of it is nothing beside its largest weight.

    Source: Zhang & Stephens 2009, Technometrics 51:316, for the fit; Vehtari et al. 2024,
    arXiv:1507.02646, for its use.
    """
    largest = np.asarray(largest)
    count = largest.shape[1] - 1
    if count < _FEWEST:
        return np.full(len(largest), np.nan)
    # Log-densities of many pixels are large numbers, and so is their rounding.
    flat = np.maximum(_FLAT, 8 * np.spacing(np.abs(largest[:, 0]))).astype(np.float64)
    # A threshold that rounding has made equal to weights above it lies half a unit lower.
    unit = np.spacing(np.abs(largest[:, -1])).astype(np.float64)
    largest = largest.astype(np.float64)
    largest[:, -1] -= unit / 2
    size = max(1, _NUMBERS_AT_ONCE // (count * _points(count)))
    starts = range(0, len(largest), size)
    return np.concatenate([_fit(largest[i : i + size], flat[i : i + size]) for i in starts])


def _points(count: int) -> int:
    return 30 + math.floor(math.sqrt(count))


def _fit(largest: np.ndarray, flat_below: np.ndarray) -> np.ndarray:
    log_w, threshold = largest[:, -2::-1], largest[:, -1:]  # rising
    # Relative to the largest weight, without the difference of two nearly equal exponentials.
    x = np.exp(log_w - log_w[:, -1:]) * -np.expm1(threshold - log_w)
    count = x.shape[1]
    at = math.floor(count / 4 + 0.5) - 1
    quartile = x[:, at]
    flat = log_w[:, -1] - threshold[:, 0] < flat_below
    steep = ~flat & (log_w[:, -1] - log_w[:, at] > _STEEP)
    x = x[~(flat | steep)]
    points = _points(count)
    steps = 1 - np.sqrt(points / (np.arange(points) + 0.5))
    b = 1 / x[:, -1:] + steps / (3 * quartile[~(flat | steep), None])  # (B, points)
    k = np.mean(np.log1p(-b[..., None] * x[:, None]), -1)
    profile = count * (np.log(-b / k) - k - 1)  # log-likelihood with the best scale
    weights = np.exp(profile - profile.max(1, keepdims=True))
    mean_b = np.sum(weights * b, 1) / weights.sum(1)
    fitted = np.mean(np.log1p(-mean_b[:, None] * x), 1)
    result = np.where(flat, -np.inf, np.inf)
    result[~(flat | steep)] = (count * fitted + 5) / (count + 10)
    return result
