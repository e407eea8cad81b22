"""A run: a folder with all that a training depends on and all that it gave.

``train(recipe, folder)`` makes one, ``resume(folder)`` goes on with it after any stop,
``Run(folder)`` opens it, and ``open_model(folder)`` its model with the images that go with it.
``package(run, folder)`` makes a folder to share of it. ``load_model(path)`` is for a saved model
alone, and looks at the file before Keras does.
"""

from tfp_vae.training.folder import Run
from tfp_vae.training.hub import package
from tfp_vae.training.loop import resume, train
from tfp_vae.training.models import RunError, load_model
from tfp_vae.training.networks import build
from tfp_vae.training.opened import Opened, open_model

__all__ = [
    "Opened",
    "Run",
    "RunError",
    "build",
    "load_model",
    "open_model",
    "package",
    "resume",
    "train",
]
