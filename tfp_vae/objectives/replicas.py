"""Draws that do not depend on how many replicas share a batch."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support


def posterior_sample(
    posterior: tfd.Distribution, num_samples: int | None, seed: tf.Tensor
) -> tf.Tensor:
    """Reparameterized draws ``z``, shape (B, d), or (S, B, d) for `num_samples` S.

    In a step that N replicas of a `tf.distribute` strategy share in equal parts, an image's draw is
    that which one replica would make for it, with the same seed and the same global batch: each
    replica makes the standard normal noise of all ``N B`` images and takes its part. So it is for
    multivariate normals and flows of them; of another posterior the replicas draw independently.

    Args:
        posterior: ``q(z|x)``, batch shape (B,).
        num_samples: `None` for one draw without a leading axis.
        seed: stateless seed, the same on all replicas.
    """
    shape = [] if num_samples is None else [num_samples]
    count = _support.replicas()
    if count == 1:
        return posterior.sample(shape, seed=seed)
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    normal, flow = posterior, None
    if isinstance(posterior, tfd.TransformedDistribution.__base__) and isinstance(
        posterior.distribution, tfd.MultivariateNormalLinearOperator
    ):
        normal, flow = posterior.distribution, posterior.bijector
    if not isinstance(normal, tfd.MultivariateNormalLinearOperator):
        return posterior.sample(shape, seed=tf.random.fold_in(seed, replica))
    batch, size = tf.unstack(tf.shape(normal.loc))
    # Of the same class, whose way of filling a sample from a stream is that of the posterior.
    # One at least, of which nothing is taken: TFP divides by the number where it is 0.
    unit = tf.ones([tf.maximum(1, count * batch), size], normal.dtype)
    noise = tfd.MultivariateNormalDiag(tf.zeros_like(unit), unit).sample(shape, seed=seed)
    noise = noise[..., replica * batch : (replica + 1) * batch, :]
    z = normal.loc + normal.scale.matvec(noise)
    z = tf.ensure_shape(z, [*shape, *normal.loc.shape])
    return z if flow is None else flow.forward(z)
