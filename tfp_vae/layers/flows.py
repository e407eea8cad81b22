"""Flows: a diagonal Gaussian, bent by invertible steps that networks control."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.layers.autoregressive import AutoregressiveNetwork, alternating_networks, masked_flow
from tfp_vae.layers.distributions import MultivariateNormalDiag, _VectorDistribution

# Draws for the mean of a flow, and how many of them are worked on at once: with 1,000 images and
# 320 units, 16 draws are 20 MB.
_DRAWS, _DRAWS_AT_ONCE = 128, 16

# What `tfd.TransformedDistribution` makes of bijectors with weights of their own. The subclass of
# it that TFP names in public is a CompositeTensor, which would carry such a bijector, and with it
# tensors of a graph, out of a `tf.function` without a word.
_TransformedDistribution: Any = tfd.TransformedDistribution.__base__


class FlowDistribution(_TransformedDistribution):
    """A `tfd.TransformedDistribution` of a diagonal Gaussian, with a mean.

    `sample` keeps what it drew from, by the cache of TFP's bijectors: `log_prob` of that same
    tensor inverts nothing. Of other points it works too.

    There is no closed form for the moments. `mean` and `stddev` are those of 128 fixed draws of
    the Gaussian, in pairs ``loc ± scale * e`` and of unit variance, sent through the flow: the
    same numbers at each call, differentiable, exact where the flow is a shift and a scale. In
    general they are off by about a tenth of the standard deviation.
    """

    def _log_prob(self, value: tf.Tensor, **kwargs: Any) -> tf.Tensor:
        batch = self.batch_shape
        got = value.shape[:-1]
        missing = batch.rank - got.rank
        # An inverse is worked out coordinate by coordinate in place, so `value` must have the
        # size of the result. Draws have it, and are left as the tensors that the cache knows.
        if missing > 0 or any(
            a == 1 and b != 1
            for a, b in zip(got[max(-missing, 0) :], batch[max(missing, 0) :], strict=True)
        ):
            shape = tf.concat([self.batch_shape_tensor(), self.event_shape_tensor()], 0)
            value = tf.broadcast_to(value, tf.broadcast_dynamic_shape(tf.shape(value), shape))
            value.set_shape(tf.broadcast_static_shape(got, batch) + self.event_shape)
        return super()._log_prob(value, **kwargs)

    #: Mean and standard deviation are of few draws: who needs better ones draws more.
    approximate_moments = True

    def _moments(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance, both of shape (*batch, d)."""
        size = self.event_shape[0]
        noise = np.random.default_rng(0).standard_normal((_DRAWS // 2, size))
        noise /= np.sqrt(np.mean(noise**2, 0))
        noise = np.concatenate([noise, -noise]).reshape(
            [-1, _DRAWS_AT_ONCE, *[1] * self.batch_shape.rank, size]
        )
        loc, scale = self.distribution.mean(), self.distribution.stddev()
        middle = self.bijector.forward(loc)  # to sum squares of small numbers

        def add(total: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
            away = self.bijector.forward(loc + scale * noise) - middle
            return total + tf.stack([tf.reduce_sum(away, 0), tf.reduce_sum(away**2, 0)])

        nothing = tf.zeros_like(tf.stack([middle, middle]))
        sums = tf.foldl(add, tf.constant(noise, self.dtype), nothing)
        mean, square = tf.unstack(sums / _DRAWS)
        return middle + mean, square - mean**2

    def _mean(self, **kwargs: Any) -> tf.Tensor:
        return self._moments()[0]

    def _stddev(self, **kwargs: Any) -> tf.Tensor:
        return tf.sqrt(self._moments()[1])


@_support.register
class InverseAutoregressiveFlow(_VectorDistribution):
    """``params (..., 2d + c) -> a Gaussian through inverse autoregressive steps``, event ``(d,)``.

    The parameters are mean and log-variance of a diagonal Gaussian, as of
    `MultivariateNormalDiag`, and a context ``h`` of ``c`` numbers. Then, for each of the
    `num_flows` steps and all coordinates at once,

    ``z_t = (z_{t-1} - m_t) exp(-s_t)``, ``(m_t, s_t) = network_t(z_{t-1}, h)``,

    ``log q(z_T|x) = log q(z_0|x) + sum_t sum_i s_{t,i}``  (nats)

    with an `AutoregressiveNetwork` in each step, in alternating order (Kingma et al. 2016,
    arXiv:1606.04934). A draw and its own `log_prob` take one pass of each network together; the
    `log_prob` of any other point takes ``d`` of them, one after the other.

    The distribution has no closed form for KL, mean or mode: use ``use_exact_kl=False``; for
    `mean` and `stddev` see `FlowDistribution`.

    Args:
        event_size: ``d``, the number of latent dimensions.
        convert_to_tensor_fn: see `DistributionLambda`.
        validate_args: let TFP check the parameters at run time.
        num_flows: steps.
        units: hidden units of each step's network, layer by layer.
        context_size: ``c``; 0 for networks that see ``z`` alone.
        **kwargs: of `DistributionLambda`, `activity_regularizer` among them. Its `seed` is also
            that of the initial weights.

    Raises:
        ValueError: a size below 1, or an input without ``2 d + c`` parameters.

    Example:
        >>> import tensorflow as tf
        >>> from tfp_vae import layers
        >>> layer = layers.InverseAutoregressiveFlow(3, num_flows=2, units=[16], context_size=4)
        >>> q = layer(tf.zeros([8, 10]))
        >>> q.batch_shape, q.event_shape, q.log_prob(q.sample(5)).shape
        (TensorShape([8]), TensorShape([3]), TensorShape([5, 8]))
    """

    def __init__(
        self,
        event_size: int,
        convert_to_tensor_fn: str | Callable[[tfd.Distribution], tf.Tensor] = "sample",
        validate_args: bool = False,
        *,
        num_flows: int = 4,
        units: Sequence[int] = (320,),
        context_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_size, convert_to_tensor_fn, validate_args, **kwargs)
        self.num_flows = num_flows
        self.units = _support.check_sizes("units", units)
        self.context_size = context_size
        self.networks = alternating_networks(
            self.event_size,
            num_flows,
            units,
            context_size,
            seed=self.seed,
            dtype=self.dtype_policy,
        )

    @staticmethod
    def params_size(event_size: int, context_size: int = 32, name: str | None = None) -> int:
        """The number of parameters of one distribution: ``2 * event_size + context_size``."""
        gaussian = MultivariateNormalDiag.params_size(event_size)
        return gaussian + _support.check_int("context_size", context_size, 0)

    @staticmethod
    def new(
        params: tf.Tensor,
        event_size: int,
        networks: Sequence[AutoregressiveNetwork],
        validate_args: bool = False,
        name: str | None = None,
    ) -> FlowDistribution:
        """The distribution of `params`, shape ``(..., 2 * event_size + context_size)``."""
        gaussian, context = params[..., : 2 * event_size], params[..., 2 * event_size :]
        steps = [
            tfb.Invert(masked_flow(network, context if network.context_size else None))
            for network in networks
        ]
        return FlowDistribution(
            MultivariateNormalDiag.new(gaussian, event_size, validate_args),
            tfb.Chain(steps[::-1]),  # which applies its last one first
            validate_args=validate_args,
            name=name or "InverseAutoregressiveFlow",
        )

    @property
    def input_size(self) -> int:
        return self.params_size(self.event_size, self.context_size)

    def _distribution(self, params: tf.Tensor) -> FlowDistribution:
        return self.new(params, self.event_size, self.networks, self.validate_args)

    def _function_config(self) -> dict[str, Any]:
        return {
            **super()._function_config(),
            "num_flows": self.num_flows,
            "units": list(self.units),
            "context_size": self.context_size,
        }
