"""The sums over posterior draws of which the ELBO and ``log p(x)`` are made, of a few images."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfp_vae import objectives
from tfp_vae.vae import chunks

# Of what is added up over all steps. Of 64×64 colour images log p(x) is some thousands of nats,
# where float32 has steps of 0.001: what one draw of 10,000 adds would be lost.
WIDE = tf.float64

if TYPE_CHECKING:
    from tfp_vae.vae.model import VAE


def elbo_terms(
    vae: "VAE", x: Any, num_samples: tf.Tensor, chunk: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """``E_q[log p(x|z)]`` and ``KL(q(z|x) || p(z))``, shape (B,) each; a `chunks.Reduction`."""
    # One prior for all draws: a learned one may be costly to make.
    posterior, prior = vae._encode(x, training=False), vae.prior()
    exact = vae.use_exact_kl
    x, decode = vae.given(x)

    def add(state: tuple[tf.Tensor, tf.Tensor], z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        log_p = decode(z).log_prob(x)
        kl = objectives.kl_divergence(posterior, prior, None if exact else z)
        kl = tf.broadcast_to(kl, tf.shape(log_p))  # the closed form is the same at all draws
        sums = (tf.reduce_sum(tf.cast(terms, WIDE), 0) for terms in (log_p, kl))
        return tuple(total + more for total, more in zip(state, sums, strict=True))

    zeros = tf.zeros(tf.shape(x)[:1], WIDE)
    sums = chunks.over_samples(posterior, num_samples, chunk, seed, (zeros, zeros), add)
    log_p, kl = (tf.cast(total / tf.cast(num_samples, WIDE), x.dtype) for total in sums)
    return log_p, kl


class Weights(NamedTuple):
    """What is kept of the importance weights of ``B`` images while their samples stream by."""

    log_sum: tf.Tensor  # (B,), log sum w, in float64
    log_squares: tf.Tensor  # (B,), log sum w^2, in float64
    largest: tf.Tensor  # (B, M), log w in falling order
    finite: tf.Tensor  # (B, 3), of log p(x|z), log p(z), log q(z|x)


def importance_weights(
    vae: "VAE",
    x: Any,
    num_samples: tf.Tensor,
    chunk: tf.Tensor,
    seed: tf.Tensor,
    num_largest: int = 0,
) -> Weights:
    """Of ``w = p(x|z) p(z) / q(z|x)``, ``z ~ q(z|x)``; a `chunks.Reduction`.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels), or a pair of them and labels.
        num_samples: scalar, draws for each image.
        chunk: scalar, draws at once.
        seed: stateless seed, shape (2,).
        num_largest: ``M``, how many of the largest are kept.
    """
    posterior, prior = vae._encode(x, training=False), vae.prior()
    x, decode = vae.given(x)

    def add(state: Weights, z: tf.Tensor) -> Weights:
        terms = decode(z).log_prob(x), prior.log_prob(z), posterior.log_prob(z)
        log_w = terms[0] + terms[1] - terms[2]
        finite = [tf.reduce_all(tf.math.is_finite(term), 0) for term in terms]
        largest = state.largest
        if num_largest:
            candidates = tf.concat([largest, tf.transpose(log_w)], 1)
            largest = tf.math.top_k(candidates, num_largest).values
        return Weights(
            _log_add(state.log_sum, log_w),
            _log_add(state.log_squares, 2 * log_w),
            largest,
            state.finite & tf.stack(finite, 1),
        )

    images = tf.shape(x)[0]
    nothing = tf.constant(-np.inf, x.dtype)
    initial = Weights(
        tf.fill([images], tf.cast(nothing, WIDE)),
        tf.fill([images], tf.cast(nothing, WIDE)),
        tf.fill([images, num_largest], nothing),
        tf.fill([images, 3], True),
    )
    return chunks.over_samples(posterior, num_samples, chunk, seed, initial, add)


def _log_add(total: tf.Tensor, terms: tf.Tensor) -> tf.Tensor:
    """``log(exp(total) + sum_s exp(terms_s))``, shapes (B,) and (S, B)."""
    terms = tf.cast(terms, total.dtype)
    return tf.reduce_logsumexp(tf.concat([total[tf.newaxis], terms], 0), 0)
