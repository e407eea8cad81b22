"""The ELBO and its two terms."""

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae.evaluation import common
from tfp_vae.vae import VAE, chunks, folds


@dataclasses.dataclass(frozen=True)
class ElboTerms(common.Result):
    """Results of `elbo_terms`; ``B`` images, nats.

    Attributes:
        num_samples: draws for each image.
        exact_kl: whether the KL is the closed form.
        elbo: ``reconstruction - kl``, shape (B,).
        reconstruction: ``E_q[log p(x|z)]``, shape (B,).
        kl: ``KL(q(z|x) || p(z))``, shape (B,).
        mean_elbo: over the images.
        mean_reconstruction: over the images.
        mean_kl: over the images.
    """

    num_samples: int
    exact_kl: bool
    elbo: np.ndarray
    reconstruction: np.ndarray
    kl: np.ndarray
    mean_elbo: common.Estimate
    mean_reconstruction: common.Estimate
    mean_kl: common.Estimate


def elbo_terms(
    vae: VAE, x: Any, num_samples: int = 1, seed: Any = None, *, verbose: Any = "auto"
) -> ElboTerms:
    """``ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z))`` of each image, and the two terms.

    Args:
        vae: the model; its `use_exact_kl` says which KL is used.
        x: images, shape (B, height, width, channels).
        num_samples: draws for each image.
        seed: integer or stateless seed, with which `VAE.elbo` draws the same samples; by default
            the model's own stream.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, `num_samples` below 1, or a term that is not finite.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3.
    """
    x, seed = common.arguments(vae, x, seed, num_samples=num_samples)
    fold = tf.function(
        functools.partial(folds.elbo_terms, vae),
        autograph=False,
        input_signature=[common.image_spec(x), common.COUNT, common.COUNT, common.SEED],
    )
    terms = chunks.over_images(fold, vae, x, num_samples, seed, verbose)
    reconstruction, kl = (np.asarray(term, np.float64) for term in terms)
    common.check_finite(0, **{"log p(x|z)": reconstruction, "KL": kl})
    elbo = reconstruction - kl
    return ElboTerms(
        num_samples=int(num_samples),
        exact_kl=vae.use_exact_kl,
        elbo=elbo,
        reconstruction=reconstruction,
        kl=kl,
        mean_elbo=common.Estimate.of(elbo),
        mean_reconstruction=common.Estimate.of(reconstruction),
        mean_kl=common.Estimate.of(kl),
    )
