"""Keras layers that own the prior ``p(z)``. Called without arguments they return it."""

from tfp_vae.priors.base import FixedPrior, Prior, StandardNormal, get
from tfp_vae.priors.learned import AutoregressiveFlow, GaussianMixture, VampPrior
from tfp_vae.priors.quantiles import marginal_quantiles

__all__ = [
    "AutoregressiveFlow",
    "FixedPrior",
    "GaussianMixture",
    "Prior",
    "StandardNormal",
    "VampPrior",
    "get",
    "marginal_quantiles",
]
