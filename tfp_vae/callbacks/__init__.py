"""Keras callbacks: what a person wants to see while a model trains."""

from tfp_vae.callbacks.epochs import EpochReport, EpochTimer, ImageRecorder
from tfp_vae.callbacks.events import EventWriter
from tfp_vae.callbacks.finite import NonFiniteError, StopAtNonFinite
from tfp_vae.callbacks.latent import LatentDiagnostics

__all__ = [
    "EpochReport",
    "EpochTimer",
    "EventWriter",
    "ImageRecorder",
    "LatentDiagnostics",
    "NonFiniteError",
    "StopAtNonFinite",
]
