"""What several test files share: small models, closed forms, fresh processes."""

import gc
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest

from tests.runs import begun, copied, finished, images, start  # noqa: F401

# For a fresh process: the highest resident memory of its own so far, in bytes. The `ru_maxrss` of
# Linux counts that of the process which started it, a large one here.
PEAK = """
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        import resource, sys
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
"""

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_sessionfinish():
    # pytest collects garbage five times over at its end: minutes among what Keras' models left.
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _left_behind():
    """Garbage is looked for in what a file's tests left, not again in what all before them did.

    TensorFlow and Keras keep the graphs of models that are gone, millions of objects in the end.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    """Weights and draws without a seed of their own repeat, and leave nothing to the next test."""
    keras.utils.set_random_seed(0)
    policy = keras.mixed_precision.global_policy()
    yield
    keras.mixed_precision.set_global_policy(policy)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def fresh_process(tmp_path):
    """Run Python code in a new process and give its standard output."""

    def run(code: str, *arguments: object, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            # Where the package is not installed, the checkout serves.
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
