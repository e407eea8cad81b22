"""Quantiles of the latent dimensions, for any prior."""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae.objectives import marginals


def marginal_quantiles(prior: tfd.Distribution, probabilities: Any, *, seed: int = 0) -> np.ndarray:
    """The quantiles of each latent dimension by itself, shape (len(probabilities), d).

    By TFP's quantile function where the marginals are known (independent or normal); for any
    other prior the quantiles of 100,000 of its draws.

    Args:
        prior: ``p(z)``, event shape (d,).
        probabilities: numbers in (0, 1).
        seed: integer seed of the draws.
    """
    probabilities = np.asarray(probabilities, tf.as_dtype(prior.dtype).as_numpy_dtype)
    known = marginals.marginals(prior)
    if known is not None and not isinstance(known, tfd.MixtureSameFamily):  # TFP has none of those
        return known.quantile(probabilities[:, None]).numpy()
    # In pieces: TFP draws from every component of a mixture, and takes one of them.
    seeds = tf.random.split(tf.constant([0, seed], tf.int32), 100)
    draws = np.concatenate([prior.sample(1000, seed=one) for one in seeds])
    return np.quantile(draws, probabilities, axis=0)
