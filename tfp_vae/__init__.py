"""Variational autoencoders whose parts are TensorFlow Probability distributions, on Keras 3.

The encoder returns ``q(z|x)``, the decoder ``p(x|z)`` and the prior ``p(z)``, each a
``tfp.distributions.Distribution``. See ``tfp_vae.VAE`` for the model that joins them.
"""

import importlib
import pathlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from tfp_vae._version import __version__

__all__ = [
    "VAE",
    "__version__",
    "callbacks",
    "datasets",
    "evaluation",
    "layers",
    "networks",
    "objectives",
    "optimizers",
    "plotting",
    "priors",
]


def _started_as_command() -> bool:
    """Whether this process is the ``tfp-vae`` command, which must answer ``--help`` at once."""
    program = pathlib.PurePath(sys.argv[0] if sys.argv else "").name
    if program != "-m":
        return program in ("tfp-vae", "tfp-vae.exe")
    # While `python -m tfp_vae` imports the package, argv[0] is still "-m"; the module, which may
    # be glued to its flag, is what stands before the other arguments.
    flag = sys.orig_argv[-len(sys.argv)]
    return any(flag in (name, f"-m{name}") for name in ("tfp_vae", "tfp_vae.cli"))


# Keras finds a class in a saved file only after the class was registered, so a plain
# `import tfp_vae` followed by `keras.saving.load_model` must find all of them in place.
if TYPE_CHECKING or not _started_as_command():
    # The first of all, since it refuses another backend before anything imports Keras.
    from tfp_vae import _support as _support

    # isort: split
    from tfp_vae import (
        callbacks,
        datasets,
        evaluation,
        layers,
        networks,
        objectives,
        optimizers,
        plotting,
        priors,
    )
    from tfp_vae.vae import VAE


# The modules that a model does not need are imported when they are asked for.
if TYPE_CHECKING:
    from tfp_vae import explorer as explorer
    from tfp_vae import recipes as recipes
    from tfp_vae import reports as reports
    from tfp_vae import training as training
else:

    def __getattr__(name: str) -> ModuleType:
        if name in ("explorer", "recipes", "reports", "training"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
