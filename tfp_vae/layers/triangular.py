"""The normal distribution of a triangular factor."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd


class MultivariateNormalTriL(tfd.MultivariateNormalTriL):
    """`tfd.MultivariateNormalTriL` whose variances are the squared lengths of the rows of ``L``.

    TFP multiplies ``L L^T`` out and takes its diagonal, which is ``d`` times the work and an
    operation that LiteRT has not.
    """

    def _variance(self) -> tf.Tensor:
        return tf.reduce_sum(self.scale.to_dense() ** 2, -1) + tf.zeros_like(self.loc)

    def _stddev(self) -> tf.Tensor:
        return tf.sqrt(self._variance())
