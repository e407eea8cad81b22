"""The regularizer that adds the KL to the loss, once."""

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support


@_support.register
class KLDivergenceRegularizer(keras.regularizers.Regularizer):
    """Adds ``weight * KL(q(z|x) || p(z))``, averaged over the batch, to the loss: once.

    Goes in as ``activity_regularizer=`` of the posterior's layer. With ``B`` images,

    ``loss += weight / B * sum_b KL(q(z|x_b) || p(z))``  (nats)

    where the KL is TFP's closed form, or the mean of ``log q(z|x) - log p(z)`` over
    ``num_samples`` draws of ``z ~ q(z|x)`` (Kingma & Welling 2014, arXiv:1312.6114, eq. 3 and
    appendix B). Inside a `tfp_vae.VAE` the model takes the prior, the kind and the weight from here
    and adds the term itself, so that it counts once there too; its Monte Carlo KL is that of the
    draws that are decoded, whatever `num_samples`.

    Args:
        distribution_b: the prior: a layer of `tfp_vae.priors`, a `tfd.Distribution`, or a
            function without arguments that returns one.
        use_exact_kl: the closed form, if `True`; else the Monte Carlo estimate.
        weight: factor of the KL; 1 gives the ELBO, another value the beta-VAE
            (Higgins et al. 2017).
        num_samples: draws for the Monte Carlo estimate.
        seed: integer seed of the Monte Carlo draws.

    Raises:
        ValueError: a negative or non-finite weight, or `num_samples` below 1; on a call, a
            posterior of another event shape than the prior's.
        TypeError: `distribution_b` is neither a distribution nor callable.

    Example:
        >>> import tensorflow as tf
        >>> from tfp_vae import layers, priors
        >>> layer = layers.MultivariateNormalDiag(
        ...     2, activity_regularizer=layers.KLDivergenceRegularizer(priors.StandardNormal(2)))
        >>> q = layer(tf.constant([[1.0, 0.0, 0.0, 0.0]]))
        >>> float(layer.losses[0])  # 0.5 * (1**2 + 0**2), unit variances
        0.5
    """

    def __init__(
        self,
        distribution_b: Any,
        use_exact_kl: bool = True,
        weight: float = 1.0,
        *,
        num_samples: int = 1,
        seed: int | None = None,
    ) -> None:
        if not (isinstance(distribution_b, tfd.Distribution) or callable(distribution_b)):
            raise TypeError(
                "distribution_b: expected a tfp_vae.priors layer, a tfd.Distribution or a "
                f"function that returns one, got {type(distribution_b).__name__}."
            )
        if isinstance(distribution_b, tfd.Distribution):
            _support.check_constant(distribution_b)
        self.distribution_b = distribution_b
        self.use_exact_kl = bool(use_exact_kl)
        self.weight = _support.check_number("weight", weight)
        self.num_samples = _support.check_positive_int("num_samples", num_samples)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def prior(self) -> tfd.Distribution:
        """The distribution ``p(z)`` that the posterior is compared with."""
        if isinstance(self.distribution_b, tfd.Distribution):
            return self.distribution_b
        return self.distribution_b()

    def divergence(self, posterior: tfd.Distribution) -> tf.Tensor:
        """``KL(posterior || prior)`` for each image, in nats: shape `posterior.batch_shape`."""
        prior = self.prior()
        if not posterior.event_shape.is_compatible_with(prior.event_shape):
            raise ValueError(  # sizes of 1 and 2 would be broadcast in silence
                f"KLDivergenceRegularizer: expected a posterior of the prior's event shape "
                f"{tuple(prior.event_shape)}, got {tuple(posterior.event_shape)}."
            )
        if self.use_exact_kl:
            return _support.closed_form_kl(posterior, prior)
        seed = _support.stateless_seed(None, self.seed_generator)
        z = posterior.sample(self.num_samples, seed=seed)
        return tf.reduce_mean(_support.monte_carlo_kl(posterior, prior, z), 0)

    def __call__(self, posterior: tfd.Distribution) -> tf.Tensor:
        """The scalar that goes into the loss: ``weight * mean over the batch of KL``."""
        return self.weight * tf.reduce_mean(self.divergence(posterior))

    def get_config(self) -> dict[str, Any]:
        prior = self.distribution_b
        if isinstance(prior, tfd.Distribution):
            config = _support.distribution_to_config(prior)
        elif isinstance(prior, keras.layers.Layer):
            config = keras.saving.serialize_keras_object(prior)
        else:
            config = {"function": _support.named_callable_to_config("distribution_b", prior)}
        return {
            "distribution_b": config,
            "use_exact_kl": self.use_exact_kl,
            "weight": self.weight,
            "num_samples": self.num_samples,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "KLDivergenceRegularizer":
        config = dict(config)
        prior = config["distribution_b"]
        if isinstance(prior, dict):
            if "function" in prior:
                prior = _support.named_callable_from_config("distribution_b", prior["function"])
            elif "distribution" in prior:
                prior = _support.distribution_from_config(prior)
            else:
                prior = keras.saving.deserialize_keras_object(prior)
        return cls(**{**config, "distribution_b": prior})
