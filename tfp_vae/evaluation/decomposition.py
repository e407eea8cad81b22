"""Splits the KL of the ELBO into its parts."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.evaluation import common
from tfp_vae.objectives import marginals
from tfp_vae.vae import VAE, chunks, parts

# Densities of single dimensions held at once: 16 MB for each of the handful of copies TFP makes.
_DENSITIES_AT_ONCE = 4_000_000
_IMAGES_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class KLDecomposition(common.Result):
    """The parts of `kl_decomposition`, in nats; `None` if a part is not available.

    Attributes:
        num_images: ``N``; the mutual information cannot exceed ``log N``.
        num_samples: draws for each image.
        kl: ``E_x KL(q(z|x) || p(z))``, the Monte Carlo mean over the draws.
        mutual_information: ``I_q(x; z) = E[log q(z|x) - log q(z)]``.
        marginal_kl: ``KL(q(z) || p(z))``; with `mutual_information` it sums to `kl`.
        total_correlation: ``KL(q(z) || prod_j q(z_j))``.
        dimensionwise_kl: ``sum_j KL(q(z_j) || p(z_j))``; with `total_correlation` it sums to
            `marginal_kl`.
        kl_of_dimensions: its terms, shape (d,).
        unavailable: which parts are `None`, and why, in words; empty if none is.
    """

    num_images: int
    num_samples: int
    kl: common.Estimate
    mutual_information: common.Estimate
    marginal_kl: common.Estimate
    total_correlation: common.Estimate | None
    dimensionwise_kl: common.Estimate | None
    kl_of_dimensions: np.ndarray | None
    unavailable: str


def kl_decomposition(
    vae: VAE, x: Any, num_samples: int = 1, seed: Any = None, *, verbose: Any = "auto"
) -> KLDecomposition:
    """``E_x KL(q(z|x) || p(z))`` as mutual information, total correlation and dimension-wise KL.

    ``E_x KL(q(z|x) || p(z)) = I_q(x; z) + KL(q(z) || prod_j q(z_j)) + sum_j KL(q(z_j) || p(z_j))``

    with ``q(z) = 1/N sum_n q(z|x_n)`` over the images given: the exact density of that mixture at
    every draw, not an estimate from minibatches. The last two terms add up to ``KL(q(z) || p(z))``.
    All are means over the same draws ``z ~ q(z|x_n)``, so the sum is exact. Their standard errors
    are over the images; the error from the draws alone, for fixed images, is smaller. Time grows
    with ``N^2 * num_samples * d``, memory with ``N * num_samples * d``.

    All parts except the mutual information and the marginal KL need the marginals ``q(z_j|x)``,
    which are known for normal and for independent posteriors. The dimension-wise KLs also need a
    prior that is the product of its dimensions.

    Args:
        vae: the model.
        x: images, shape (N, height, width, channels).
        num_samples: draws for each image.
        seed: integer or stateless seed; by default the model's own stream.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, `num_samples` below 1, or a density that is not finite.

    Source: Hoffman & Johnson 2016, "ELBO surgery", for the mutual information; Chen et al. 2018,
    arXiv:1802.04942, eq. 2, for the other two.
    """
    x, seed = common.arguments(vae, x, seed, num_samples=num_samples)
    count = _support.count(x)
    posterior, prior = vae.encode(_support.take(x, slice(1))), vae.prior()
    known = marginals.marginals(posterior) is not None
    product = known and marginals.is_product(prior)
    z, log_q_given_x, log_p, log_p_dims = _draw(vae, x, num_samples, seed, product)
    log_q, log_q_dims = _aggregate(vae, x, z, known, verbose)

    def over_images(values: np.ndarray) -> common.Estimate:
        return common.Estimate.of(values.reshape(count, num_samples).mean(1))

    unavailable = ""
    if not known:
        unavailable = (
            "total_correlation, dimensionwise_kl: the marginals of a "
            f"{type(posterior).__name__} are not known"
        )
    elif not product:
        unavailable = (
            f"dimensionwise_kl: the prior, a {type(prior).__name__}, is no product of dimensions"
        )
    of_dimensions = log_q_dims - log_p_dims if product else None
    return KLDecomposition(
        num_images=count,
        num_samples=int(num_samples),
        kl=over_images(log_q_given_x - log_p),
        mutual_information=over_images(log_q_given_x - log_q),
        marginal_kl=over_images(log_q - log_p),
        total_correlation=over_images(log_q - log_q_dims.sum(1)) if known else None,
        dimensionwise_kl=None if of_dimensions is None else over_images(of_dimensions.sum(1)),
        kl_of_dimensions=None if of_dimensions is None else of_dimensions.mean(0),
        unavailable=unavailable,
    )


def _draw(vae: VAE, x: Any, num_samples: int, seed: tf.Tensor, product: bool) -> list[np.ndarray]:
    """Draws of each image's posterior, image by image, with their densities.

    Returns:
        ``z``, shape (N * num_samples, d); ``log q(z|x)`` and ``log p(z)``, shape
        (N * num_samples,); ``log p(z_j)``, shape (N * num_samples, d), zeros unless `product`.
    """

    @tf.function(autograph=False, input_signature=[common.image_spec(x), common.SEED])
    def draw(x: Any, seed: tf.Tensor) -> list[tf.Tensor]:
        posterior, prior = vae.encode(x), vae.prior()
        z = posterior.sample(num_samples, seed=seed)
        of_dims = marginals.marginals(prior).log_prob(z) if product else tf.zeros_like(z)
        values = z, posterior.log_prob(z), prior.log_prob(z), of_dims
        return [tf.transpose(value, [1, 0, 2][: value.shape.rank]) for value in values]

    found = []
    width = parts.width_of_density(vae.prior, vae.encoder)
    at_once = chunks.at_once(vae, x, num_samples * width)
    for start, piece in chunks.pieces(x, min(_IMAGES_AT_ONCE, at_once), 0):
        rows = [np.asarray(part) for part in draw(piece, tf.random.fold_in(seed, start))]
        finite = {"log q(z|x)": rows[1], "log p(z)": rows[2]}
        common.check_finite(start, **{k: np.isfinite(v).all(1) for k, v in finite.items()})
        found.append(rows)
    joined = [np.concatenate(rows) for rows in zip(*found, strict=True)]
    return [part.reshape(-1, *part.shape[2:]) for part in joined]


def _aggregate(
    vae: VAE, x: Any, z: np.ndarray, known: bool, verbose: Any
) -> tuple[np.ndarray, np.ndarray]:
    """``log q(z)``, shape (draws,), and ``log q(z_j)``, shape (draws, d), of the mixture over `x`.

    If the marginals are not known, the second is meaningless.
    """
    count, d = z.shape
    images_at_once = min(_IMAGES_AT_ONCE, chunks.at_once(vae, x), _support.count(x))
    # A triangular solve spreads the matrix of each image over all draws; a flow's networks have
    # their hidden units for each of both.
    product = marginals.is_product(vae.encode(_support.take(x, slice(1))))
    units = getattr(parts.posterior_layer(vae.encoder), "units", [])
    numbers = images_at_once * (d if product else max(d * d, *units, 1))
    draws_at_once = max(1, min(count, _DENSITIES_AT_ONCE // numbers))
    padding = -count % draws_at_once
    blocks = tf.reshape(np.pad(z, [(0, padding), (0, 0)], "edge"), [-1, draws_at_once, d])

    @tf.function(autograph=False, input_signature=[common.image_spec(x)])
    def log_sums(x: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-sums over some of the mixture's components, at all draws."""
        posterior = vae.encode(x)
        of_dims = marginals.marginals(posterior)

        def at(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            z = z[:, tf.newaxis]  # (draws, 1, d) against the images
            if not known:
                return tf.reduce_logsumexp(posterior.log_prob(z), 1), tf.zeros_like(z[:, 0])
            dims = of_dims.log_prob(z)
            one = marginals.is_product(posterior)
            joint = tf.reduce_sum(dims, -1) if one else posterior.log_prob(z)
            return tf.reduce_logsumexp(joint, 1), tf.reduce_logsumexp(dims, 1)

        signature = (
            tf.TensorSpec([draws_at_once], blocks.dtype),
            tf.TensorSpec([draws_at_once, d], blocks.dtype),
        )
        return tf.map_fn(at, blocks, fn_output_signature=signature, parallel_iterations=1)

    joint, dims = np.full(count, -np.inf), np.full((count, d), -np.inf)
    for _, piece in chunks.pieces(x, images_at_once, verbose):
        of_piece, dims_of_piece = (np.asarray(part) for part in log_sums(piece))
        joint = np.logaddexp(joint, of_piece.reshape(-1)[:count])
        dims = np.logaddexp(dims, dims_of_piece.reshape(-1, d)[:count])
    log_images = math.log(_support.count(x))
    return joint - log_images, dims - log_images
