"""Turns arrays or a model into matplotlib figures and GIFs.

Every function that draws makes its own `matplotlib.figure.Figure` without pyplot, so there is no
global state, no display is needed and nothing has to be closed. `save` writes a figure to a file.
matplotlib and imageio are imported when a picture is drawn, not with the package.
"""

from tfp_vae.plotting.evaluation import (
    aggregate_posterior,
    annealing_check,
    importance_diagnostics,
    latent_usage,
    log_likelihood_histogram,
    rate_distortion,
)
from tfp_vae.plotting.files import figure_to_array, save, write_image
from tfp_vae.plotting.grids import (
    binarization,
    classes,
    image_grid,
    imputations,
    interpolation,
    reconstructions,
    samples,
)
from tfp_vae.plotting.latent import latent_manifold, latent_manifold_array, latent_scatter
from tfp_vae.plotting.training import history, kl_per_dimension, training_gif

__all__ = [
    "aggregate_posterior",
    "annealing_check",
    "binarization",
    "classes",
    "figure_to_array",
    "history",
    "image_grid",
    "importance_diagnostics",
    "imputations",
    "interpolation",
    "kl_per_dimension",
    "latent_manifold",
    "latent_manifold_array",
    "latent_scatter",
    "latent_usage",
    "log_likelihood_histogram",
    "rate_distortion",
    "reconstructions",
    "samples",
    "save",
    "training_gif",
    "write_image",
]
