"""A run: a folder with all that a training depends on and all that it gave.

``train(recipe, folder)`` makes one, ``resume(folder)`` goes on with it after any stop,
``Run(folder)`` opens it, and ``open_model(folder)`` its model with the images that go with it.
``package(run, folder)`` makes a folder to share of it.
"""

from tfp_vae.training.folder import Run, RunError
from tfp_vae.training.hub import package
from tfp_vae.training.loop import resume, train
from tfp_vae.training.networks import build
from tfp_vae.training.opened import Opened, open_model

__all__ = ["Opened", "Run", "RunError", "build", "open_model", "package", "resume", "train"]
