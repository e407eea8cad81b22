"""Evaluate a trained `VAE`: figures with their standard errors. Units: nats.

The evaluations take the model and images and return small dataclasses of NumPy arrays and numbers,
whose method ``to_dict`` converts them for JSON.
"""

from tfp_vae.evaluation.aggregate import AggregatePosterior, aggregate_posterior
from tfp_vae.evaluation.annealing import (
    AnnealedImportanceSampling,
    annealed_importance_sampling,
)
from tfp_vae.evaluation.anomaly import AnomalyScores, anomaly_scores, conformal_p_values
from tfp_vae.evaluation.common import Estimate
from tfp_vae.evaluation.decomposition import KLDecomposition, kl_decomposition
from tfp_vae.evaluation.elbo import ElboTerms, elbo_terms
from tfp_vae.evaluation.importance import ImportanceSampling, importance_sampling
from tfp_vae.evaluation.imputation import (
    ImputationError,
    baseline_error,
    fill_with_mean,
    fill_with_neighbours,
    imputation_error,
    imputation_errors,
)
from tfp_vae.evaluation.masks import observed_mask
from tfp_vae.evaluation.refinement import (
    AmortizationGap,
    RateDistortion,
    amortization_gap,
    rate_distortion,
)
from tfp_vae.evaluation.report import QUICK, SETTINGS, Part, Report, full_report
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
    "AnomalyScores",
    "ImputationError",
    "anomaly_scores",
    "baseline_error",
    "conformal_p_values",
    "fill_with_mean",
    "fill_with_neighbours",
    "imputation_error",
    "imputation_errors",
    "observed_mask",
    "ElboTerms",
    "elbo_terms",
    "QUICK",
    "SETTINGS",
    "Part",
    "Report",
    "full_report",
]
