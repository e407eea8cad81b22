"""The distributions of single dimensions, where they are known."""

import contextlib
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

_DIAGONAL = (
    tf.linalg.LinearOperatorDiag,
    tf.linalg.LinearOperatorIdentity,
    tf.linalg.LinearOperatorScaledIdentity,
)


def marginals(distribution: tfd.Distribution) -> Any:
    """Of a distribution over vectors, batch shape (...): batch shape (..., d), event shape ().

    Known of independent dimensions, of multivariate normals of any covariance, and of one mixture
    of normals; `None` for others.
    """
    if isinstance(distribution, tfd.Independent):
        base = distribution.distribution
        return base if base.event_shape.rank == 0 and distribution.event_shape.rank == 1 else None
    if isinstance(distribution, tfd.MultivariateNormalLinearOperator):
        return tfd.Normal(distribution.mean(), distribution.stddev())
    if isinstance(distribution, tfd.MixtureSameFamily) and distribution.batch_shape.rank == 0:
        parts = marginals(distribution.components_distribution)  # batch (K, d)
        if isinstance(parts, tfd.Normal):
            loc, scale = (tf.transpose(part) for part in (parts.mean(), parts.stddev()))
            return tfd.MixtureSameFamily(distribution.mixture_distribution, tfd.Normal(loc, scale))
    return None


def is_product(distribution: tfd.Distribution) -> bool:
    """Whether the density is known to be the product of its `marginals`."""
    if isinstance(distribution, tfd.MultivariateNormalLinearOperator):
        return isinstance(distribution.scale, _DIAGONAL)
    return isinstance(distribution, tfd.Independent) and marginals(distribution) is not None


def exact_moments(distribution: tfd.Distribution) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Mean and variance of each dimension, shapes (..., d), where TFP knows them.

    Of a mixture they are made of its components', and no better than those.
    """
    components = getattr(distribution, "components_distribution", None)
    if any(getattr(part, "approximate_moments", False) for part in (distribution, components)):
        return None
    with contextlib.suppress(NotImplementedError):
        return distribution.mean(), distribution.variance()
    return None


def moments(
    distribution: tfd.Distribution, num_samples: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, bool]:
    """Mean and variance of each dimension, shapes (..., d), and whether they are exact.

    Where there is no closed form they are those of `num_samples` draws, at least two.
    """
    exact = exact_moments(distribution)
    if exact is not None:
        return *exact, True
    z = distribution.sample(num_samples, seed=seed)
    unbiased = num_samples / (num_samples - 1)
    return tf.reduce_mean(z, 0), unbiased * tf.math.reduce_variance(z, 0), False
