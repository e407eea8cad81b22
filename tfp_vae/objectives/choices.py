"""The objectives that `VAE.compile` takes: they combine this folder's functions."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.objectives import functions
from tfp_vae.objectives.replicas import posterior_sample
from tfp_vae.objectives.schedules import WarmUp


@dataclasses.dataclass
class Draws:
    """Reparameterized draws of a posterior, as an objective requested them.

    Attributes:
        z: shape (B, d) for one draw, else (S, B, d).
        scale: what they were passed through, if the objective scales their gradient.
    """

    z: tf.Tensor
    scale: functions.GradientScale | None = None


@dataclasses.dataclass
class Terms:
    """The inputs of an objective.

    Attributes:
        log_likelihood: ``log p(x|z)``, shape (B,) for one draw, else (S, B).
        posterior: ``q(z|x)``, batch shape (B,).
        prior: ``p(z)``.
        draws: draws of the posterior.
        use_exact_kl: whether the KL is TFP's closed form.
        kl_weight: the factor of the KL.
        training: whether a gradient step follows. If not, what is only for training, free bits and
            path gradients, is left out.
    """

    log_likelihood: tf.Tensor
    posterior: tfd.Distribution
    prior: tfd.Distribution
    draws: Draws
    use_exact_kl: bool
    kl_weight: float | tf.Tensor = 1.0
    training: bool = True

    @functools.cached_property
    def kl(self) -> tf.Tensor:
        """The true KL, shape (B,) or, for several draws, (S, B)."""
        z = None if self.use_exact_kl else self.draws.z
        return functions.kl_divergence(self.posterior, self.prior, z)

    def path_kl(self) -> tf.Tensor:
        """The Monte Carlo KL, with the gradient of `path_log_prob`."""
        z = self.draws.z
        return functions.path_log_prob(self.posterior, z) - self.prior.log_prob(z)


class Objective(abc.ABC):
    """The value to maximize for each image, in nats.

    Args:
        num_samples: draws of the posterior for each image.
        kl_weight: the factor of the KL: a number or a `WarmUp`. By default the weight of the
            encoder's regularizer, or 1 without one.
        gradient: the estimator of the posterior's gradient.

    Raises:
        ValueError: a number below 1, a weight below 0, or an unknown gradient.
    """

    GRADIENTS: tuple[str, ...] = ("standard",)

    def __init__(
        self,
        num_samples: int = 1,
        kl_weight: "float | WarmUp | None" = None,
        gradient: str = "standard",
    ) -> None:
        self.num_samples = _support.check_positive_int("num_samples", num_samples)
        if kl_weight is not None and not isinstance(kl_weight, WarmUp):
            kl_weight = _support.check_number("kl_weight", kl_weight)
        self.kl_weight = kl_weight
        if gradient not in self.GRADIENTS:
            raise ValueError(
                f"gradient: expected one of {', '.join(self.GRADIENTS)}, got {gradient!r}."
            )
        self.gradient = gradient

    @abc.abstractmethod
    def __call__(self, terms: Terms) -> tf.Tensor:
        """The value for each image, shape (B,)."""

    def check(
        self, posterior: Any, prior: Callable[[], tfd.Distribution], use_exact_kl: bool
    ) -> None:
        """Refuse a model for which the objective cannot be computed.

        Args:
            posterior: one ``q(z|x)`` of the model; `None` if it is not known before images come.
            prior: a function that returns ``p(z)``, which may be expensive to make.
            use_exact_kl: as in `Terms`.
        """
        del posterior, prior, use_exact_kl  # any model will do

    def draw(self, posterior: tfd.Distribution, seed: Any) -> Draws:
        """Reparameterized draws, as many as the objective needs."""
        count = None if self.num_samples == 1 else self.num_samples
        return Draws(posterior_sample(posterior, count, seed))

    @property
    def final_weight(self) -> float | None:
        """The factor of the KL at the end of training; evaluation reports the loss with it.

        `None` for the factor of the encoder's regularizer.
        """
        return self.kl_weight.final if isinstance(self.kl_weight, WarmUp) else self.kl_weight

    def get_config(self) -> dict[str, Any]:
        weight = self.kl_weight
        if isinstance(weight, WarmUp):
            weight = keras.saving.serialize_keras_object(weight)
        return {"num_samples": self.num_samples, "kl_weight": weight, "gradient": self.gradient}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        config = dict(config)
        if isinstance(config["kl_weight"], dict):
            config["kl_weight"] = keras.saving.deserialize_keras_object(config["kl_weight"])
        return cls(**config)


@_support.register
class ELBO(Objective):
    """The mean over the draws of ``log p(x|z_s) - kl_weight * KL(q(z|x) || p(z))``.

    Args:
        num_samples: draws of the posterior for each image.
        kl_weight: the factor of the KL (beta): a number, `LinearWarmUp` or `CyclicalWarmUp`. By
            default the weight of the encoder's regularizer, or 1 without one.
        free_bits: every dimension costs at least this many nats of KL; see `objectives.free_bits`.
            Only used in training: evaluation reports the loss without them.
        gradient: "standard", or "stl" for the path gradient of `objectives.path_log_prob`, which
            needs the Monte Carlo KL.

    Raises:
        ValueError: a number below 1, a weight or free bits below 0, an unknown gradient; when a
            model is compiled with it, "stl" or free bits that the model's KL does not allow.
        NotImplementedError: free bits for a posterior or prior that is not a product over the
            dimensions.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3; beta: Higgins et al. 2017.
    """

    GRADIENTS = ("standard", "stl")

    def __init__(
        self,
        num_samples: int = 1,
        kl_weight: "float | WarmUp | None" = None,
        *,
        free_bits: float = 0.0,
        gradient: str = "standard",
    ) -> None:
        super().__init__(num_samples, kl_weight, gradient)
        self.free_bits = _support.check_number("free_bits", free_bits)
        if self.free_bits and gradient == "stl":
            raise ValueError("free_bits: expected 0 with gradient='stl', got both.")

    def check(
        self, posterior: Any, prior: Callable[[], tfd.Distribution], use_exact_kl: bool
    ) -> None:
        if self.gradient == "stl" and use_exact_kl:
            raise ValueError(
                "gradient: expected 'standard' with the exact KL, got 'stl', which replaces the "
                "gradient of the Monte Carlo KL. Give the model use_exact_kl=False."
            )
        if self.free_bits and posterior is not None:
            z = None if use_exact_kl else posterior.mean()
            functions.kl_per_dimension(posterior, prior(), z)

    def __call__(self, terms: Terms) -> tf.Tensor:
        kl = terms.kl
        if terms.training and self.gradient == "stl":
            kl = terms.path_kl()
        elif terms.training and self.free_bits:
            z = None if terms.use_exact_kl else terms.draws.z
            parts = functions.kl_per_dimension(terms.posterior, terms.prior, z)
            kl = functions.free_bits(parts, self.free_bits)
        value = functions.elbo(terms.log_likelihood, kl, terms.kl_weight)
        return value if value.shape.rank == 1 else tf.reduce_mean(value, 0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "free_bits": self.free_bits}


@_support.register
class IWAE(Objective):
    """``log (1/S) sum_s p(x|z_s) (p(z_s) / q(z_s|x)) ** kl_weight``: the IWAE bound for weight 1.

    Args:
        num_samples: ``S``, draws of the posterior for each image.
        kl_weight: a number or a warm-up; for a weight other than 1 the value is not a bound.
        gradient: "standard", "dreg" (doubly reparameterized: unbiased, with less variance for the
            posterior), or "stl" (biased for more than one sample); see
            `objectives.doubly_reparameterized_bound`.

    Raises:
        ValueError: a number below 1, a weight below 0, or an unknown gradient.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8; Tucker et al. 2019, arXiv:1810.04152.
    """

    GRADIENTS = ("standard", "dreg", "stl")

    def __init__(
        self,
        num_samples: int = 50,
        kl_weight: "float | WarmUp | None" = None,
        *,
        gradient: str = "standard",
    ) -> None:
        super().__init__(num_samples, kl_weight, gradient)

    def draw(self, posterior: tfd.Distribution, seed: Any) -> Draws:
        # With one sample too there is a leading axis to sum over.
        z = posterior_sample(posterior, self.num_samples, seed)
        if self.gradient != "dreg":
            return Draws(z)
        scale = functions.GradientScale()
        return Draws(scale(z), scale)

    def __call__(self, terms: Terms) -> tf.Tensor:
        standard = not terms.training or self.gradient == "standard"
        if standard:
            kl = functions.kl_divergence(terms.posterior, terms.prior, terms.draws.z)
        else:
            kl = terms.path_kl()
        log_w = functions.elbo(terms.log_likelihood, kl, terms.kl_weight)
        if log_w.shape.rank == 1:  # one draw of a model that was not called for training
            log_w = log_w[tf.newaxis]
        if standard:
            return functions.importance_weighted_bound(log_w)
        return functions.doubly_reparameterized_bound(log_w, terms.draws.scale, terms.kl_weight)
