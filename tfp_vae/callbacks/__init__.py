"""Keras callbacks that show how a model is training."""

from tfp_vae.callbacks.epochs import EpochReport, EpochTimer, ImageRecorder
from tfp_vae.callbacks.events import EventWriter
from tfp_vae.callbacks.finite import NonFiniteError, StopAtNonFinite
from tfp_vae.callbacks.latent import LatentDiagnostics
from tfp_vae.callbacks.projector import write_projector

__all__ = [
    "EpochReport",
    "EpochTimer",
    "EventWriter",
    "ImageRecorder",
    "LatentDiagnostics",
    "NonFiniteError",
    "StopAtNonFinite",
    "write_projector",
]
