"""How heavy the tail of importance weights is."""

import math

import numpy as np

#: Above it an importance sampling estimate is not to be relied on (Vehtari et al. 2024).
RELIABLE = 0.7

_FEWEST = 5
#: Of log-weights that differ by less only the rounding could be fitted.
_FLAT = 1e-3
#: Fits at once, so that the grid of `_fit` takes some 20 MB.
_AT_ONCE = 256


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
        ``inf`` where three quarters of it are nothing beside its largest weight.

    Source: Zhang & Stephens 2009, Technometrics 51:316, for the fit; Vehtari et al. 2024,
    arXiv:1507.02646, for its use.
    """
    largest = np.asarray(largest, np.float64)
    if largest.shape[1] <= _FEWEST:
        return np.full(len(largest), np.nan)
    blocks = [largest[i : i + _AT_ONCE] for i in range(0, len(largest), _AT_ONCE)]
    return np.concatenate([_fit(block) for block in blocks])


def _fit(largest: np.ndarray) -> np.ndarray:
    log_w, threshold = largest[:, -2::-1], largest[:, -1:]  # rising
    # Relative to the largest weight, without the difference of two nearly equal exponentials.
    x = np.exp(log_w - log_w[:, -1:]) * -np.expm1(threshold - log_w)
    count = x.shape[1]
    quartile = x[:, math.floor(count / 4 + 0.5) - 1]
    flat = log_w[:, -1] - threshold[:, 0] < _FLAT
    steep = ~flat & (quartile <= 0)
    x = x[~(flat | steep)]
    points = 30 + math.floor(math.sqrt(count))
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
