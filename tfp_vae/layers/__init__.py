"""Keras layers: a parameter tensor in, a `tfp.distributions.Distribution` out.

The names, arguments, ``params_size`` and ``new`` follow ``tfp.layers``, so code written for it
moves over by changing its imports. What differs: the layers are Keras 3, they save their
constructor arguments instead of pickled code, and the KL regularizer counts once.
"""

from tfp_vae.layers.autoregressive import AutoregressiveNetwork
from tfp_vae.layers.base import DistributionLambda
from tfp_vae.layers.causal import AutoregressiveBernoulli, AutoregressivePixels, CausalNetwork
from tfp_vae.layers.distributions import (
    IndependentBernoulli,
    IndependentContinuousBernoulli,
    IndependentNormal,
    IndependentNormalFixedScale,
    MultivariateNormalDiag,
    MultivariateNormalTriL,
)
from tfp_vae.layers.flows import FlowDistribution, InverseAutoregressiveFlow
from tfp_vae.layers.quantized import (
    IndependentQuantizedLogistic,
    IndependentQuantizedLogisticMixture,
)
from tfp_vae.layers.regularizers import KLDivergenceRegularizer

__all__ = [
    "AutoregressiveBernoulli",
    "AutoregressiveNetwork",
    "AutoregressivePixels",
    "CausalNetwork",
    "DistributionLambda",
    "FlowDistribution",
    "IndependentBernoulli",
    "IndependentContinuousBernoulli",
    "IndependentNormal",
    "IndependentNormalFixedScale",
    "IndependentQuantizedLogistic",
    "IndependentQuantizedLogisticMixture",
    "InverseAutoregressiveFlow",
    "KLDivergenceRegularizer",
    "MultivariateNormalDiag",
    "MultivariateNormalTriL",
]
