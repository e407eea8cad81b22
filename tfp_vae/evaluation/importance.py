"""``log p(x)`` by importance sampling, and whether to believe it."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae.evaluation import common, pareto
from tfp_vae.vae import VAE, chunks, folds


@dataclasses.dataclass(frozen=True)
class ImportanceSampling(common.Result):
    """Held-out likelihoods of `importance_sampling`; ``B`` images, ``S`` samples, nats.

    Attributes:
        num_samples: ``S``.
        log_likelihood: the importance weighted bound of each image, shape (B,).
        standard_error: of each image's value, by the delta method, shape (B,).
        effective_sample_size: ``(sum w)^2 / sum w^2``, between 1 and S, shape (B,).
        pareto_k: shape parameter of the weights' tail, shape (B,): below 0.5 their variance is
            finite; above `pareto_k_limit`, trust neither the value nor its standard error.
        pareto_k_limit: ``min(1 - 1 / log10(S), 0.7)``.
        bits_per_dimension: ``-log p(x) / (log 2 * number of pixel values)``, shape (B,). For a
            density of 8-bit pixels scaled to [0, 1], which then lie 1/255 apart, add ``log2(255)``
            = 7.99.
        mean_log_likelihood: over the images; its error comes from the choice of images.
        mean_bits_per_dimension: over the images.
        monte_carlo_error: the part of `mean_log_likelihood`'s error that more samples would
            remove, ``sqrt(sum standard_error^2) / B``.
        reliable: the share of images with `pareto_k` at most `pareto_k_limit`; NaN below 21
            samples.
    """

    num_samples: int
    log_likelihood: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray
    pareto_k: np.ndarray
    pareto_k_limit: float
    bits_per_dimension: np.ndarray
    mean_log_likelihood: common.Estimate
    mean_bits_per_dimension: common.Estimate
    monte_carlo_error: float
    reliable: float


def importance_sampling(
    vae: VAE, x: Any, num_samples: int = 5000, seed: Any = None, *, verbose: Any = "auto"
) -> ImportanceSampling:
    """``log p(x)`` of each image by importance sampling, and diagnostics of its reliability.

    With ``S`` weights ``w_s = p(x|z_s) p(z_s) / q(z_s|x)``, ``z_s ~ q(z|x)``, it gives

    - the value ``log (1/S) sum_s w_s``, as `VAE.log_likelihood` does (Burda et al. 2016,
      arXiv:1509.00519, eq. 8): in expectation a lower bound;
    - its standard error ``sqrt((S / ESS - 1) / (S - 1))``, the delta method's
      ``std(w) / (mean(w) sqrt(S))``, with ``ESS = (sum w)^2 / sum w^2``;
    - the shape ``k`` of a generalized Pareto distribution fitted to the largest weights
      (Vehtari et al. 2024, arXiv:1507.02646). If the posterior misses the region where ``p(z|x)``
      lies, the standard error is small all the same; a large ``k`` usually reveals this.

    Images and samples are processed in pieces; for each image, memory grows by the weights of the
    tail, ``3 sqrt(S)`` numbers. Within the ``scope()`` of a
    `tf.distribute.MultiWorkerMirroredStrategy` all workers call it with the same arguments and a
    seed and share the images; each gets the same figures as a single worker would.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels).
        num_samples: samples for each image.
        seed: integer or stateless seed, with which `VAE.log_likelihood` draws the same samples;
            by default the model's own stream.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, `num_samples` below 1, or a density that is not finite; the image
            and the term are named.

    Example:
        >>> import numpy as np
        >>> from tfp_vae import VAE, evaluation, networks, priors
        >>> prior = priors.StandardNormal(2)
        >>> encoder = networks.dense_encoder((4, 4, 1), 2, units=(8,), prior=prior)
        >>> vae = VAE(encoder, networks.dense_decoder((4, 4, 1), 2, units=(8,)), prior)
        >>> result = evaluation.importance_sampling(vae, np.ones([3, 4, 4, 1], "float32"), 100)
        >>> result.log_likelihood.shape, sorted(result.to_dict()["mean_log_likelihood"])
        ((3,), ['mean', 'standard_error'])
    """
    x, seed = common.arguments(vae, x, seed, num_samples=num_samples)
    tail = pareto.tail_length(num_samples)

    fold = tf.function(
        functools.partial(folds.importance_weights, vae, num_largest=tail + 1),
        autograph=False,
        input_signature=[common.image_spec(x), common.COUNT, common.COUNT, common.SEED],
    )
    weights = chunks.over_images(fold, vae, x, num_samples, seed, verbose)
    # After all: if one of several workers stopped at its own images, the others would wait.
    finite = weights.finite.numpy()
    terms = {"log p(x|z)": finite[:, 0], "log p(z)": finite[:, 1], "log q(z|x)": finite[:, 2]}
    common.check_finite(0, **terms)
    log_likelihood, error, ess = common.of_weights(
        np.asarray(weights.log_sum), np.asarray(weights.log_squares), num_samples
    )
    bits = -log_likelihood / (math.log(2) * math.prod(vae.given(x)[0].shape[1:]))
    k, limit = pareto.pareto_k(weights.largest.numpy()), pareto.reliable_below(num_samples)
    return ImportanceSampling(
        num_samples=int(num_samples),
        log_likelihood=log_likelihood,
        standard_error=error,
        effective_sample_size=ess,
        pareto_k=k,
        pareto_k_limit=limit,
        bits_per_dimension=bits,
        mean_log_likelihood=common.Estimate.of(log_likelihood),
        mean_bits_per_dimension=common.Estimate.of(bits),
        monte_carlo_error=common.joint_error(error),
        reliable=float(np.mean(k <= limit)) if tail else math.nan,
    )
