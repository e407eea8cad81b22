"""What a trained `VAE` is worth, in figures with their standard errors. Units: nats.

Each function takes the model and images, and gives a small dataclass of NumPy arrays and numbers
with a method ``to_dict`` for JSON.
"""

from tfp_vae.evaluation.aggregate import AggregatePosterior, aggregate_posterior
from tfp_vae.evaluation.annealing import (
    AnnealedImportanceSampling,
    annealed_importance_sampling,
)
from tfp_vae.evaluation.common import Estimate
from tfp_vae.evaluation.decomposition import KLDecomposition, kl_decomposition
from tfp_vae.evaluation.importance import ImportanceSampling, importance_sampling
from tfp_vae.evaluation.refinement import (
    AmortizationGap,
    RateDistortion,
    amortization_gap,
    rate_distortion,
)
from tfp_vae.evaluation.usage import LatentUsage, latent_usage

__all__ = [
    "AggregatePosterior",
    "AmortizationGap",
    "AnnealedImportanceSampling",
    "Estimate",
    "ImportanceSampling",
    "KLDecomposition",
    "LatentUsage",
    "RateDistortion",
    "aggregate_posterior",
    "amortization_gap",
    "annealed_importance_sampling",
    "importance_sampling",
    "kl_decomposition",
    "latent_usage",
    "rate_distortion",
]
