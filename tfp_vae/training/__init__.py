"""A run: a folder with all that a training depends on and all that it gave.

``train(recipe, folder)`` makes one, ``resume(folder)`` goes on with it after any stop, and
``Run(folder)`` opens it.
"""

from tfp_vae.training.folder import Run, RunError
from tfp_vae.training.loop import resume, train
from tfp_vae.training.networks import build

__all__ = ["Run", "RunError", "build", "resume", "train"]
