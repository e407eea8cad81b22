"""What a variational autoencoder maximizes, as pure functions of distributions and tensors.

`ELBO` and `IWAE` put the functions together for ``VAE.compile(objective=...)``.

Shapes: ``S`` draws of the posterior, ``B`` images, ``d`` latent dimensions. Units: nats.
"""

from tfp_vae.objectives.choices import ELBO, IWAE, Draws, Objective, Terms
from tfp_vae.objectives.functions import (
    GradientScale,
    doubly_reparameterized_bound,
    elbo,
    free_bits,
    importance_weighted_bound,
    kl_divergence,
    kl_per_dimension,
    log_weights,
    path_log_prob,
)
from tfp_vae.objectives.schedules import CyclicalWarmUp, LinearWarmUp, WarmUp

__all__ = [
    "ELBO",
    "IWAE",
    "CyclicalWarmUp",
    "Draws",
    "GradientScale",
    "LinearWarmUp",
    "Objective",
    "Terms",
    "WarmUp",
    "doubly_reparameterized_bound",
    "elbo",
    "free_bits",
    "importance_weighted_bound",
    "kl_divergence",
    "kl_per_dimension",
    "log_weights",
    "path_log_prob",
]
