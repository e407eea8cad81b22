"""The notebooks: their cells run, and the pictures that they are kept with are there."""

import json
import os

import numpy as np
import pytest

from tests.conftest import ROOT

# What the cell tagged "parameters" is replaced by: little data, few steps.
SMALL = {
    "cvae_mnist": 'DATASET, EPOCHS, LEARNING_RATE = "few.npz", 1, 1e-3',
    "fashion_pair": (
        'DATASET, FOLDER = "few.npz", "runs"\nEPOCHS = {"mlp-fashion-2d": 1, "conv-fashion-2d": 1}'
    ),
}
RUN = """
import json, os, sys, types
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
shown = []
display = types.ModuleType("IPython.display")  # IPython is no dependency of the tests
display.Image = lambda data=None, **options: data
display.display = lambda *things: shown.extend(things)
ipython = types.ModuleType("IPython")
ipython.version_info, ipython.get_ipython = (9, 0), lambda: None  # matplotlib asks
sys.modules["IPython"], sys.modules["IPython.display"] = ipython, display
space = {}
for source in json.load(open(sys.argv[1])):
    exec(source, space)
assert len(shown) == int(sys.argv[2]), shown
assert all(os.path.getsize(path) > 500 for path in shown)
"""


def cells(name):
    return json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())["cells"]


@pytest.mark.long
@pytest.mark.parametrize(("name", "pictures"), [("cvae_mnist", 7), ("fashion_pair", 6)])
def test_notebook_runs(name, pictures, tmp_path, fresh_process):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (132, 28, 28), dtype=np.uint8)
    labels = np.arange(132) % 10
    np.savez(tmp_path / "few.npz", x_train=pixels[:100], y_train=labels[:100],
             x_test=pixels[100:], y_test=labels[100:])  # fmt: skip
    sources = [
        SMALL[name] if "parameters" in cell["metadata"].get("tags", []) else "".join(cell["source"])
        for cell in cells(name)
        if cell["cell_type"] == "code"
    ]
    assert SMALL[name] in sources
    (tmp_path / "cells.json").write_text(json.dumps(sources))
    fresh_process(RUN, "cells.json", pictures)


@pytest.mark.parametrize(("name", "pictures"), [("cvae_mnist", 7), ("fashion_pair", 6)])
def test_notebook_is_kept_with_its_pictures_and_without_errors(name, pictures):
    outputs = [o for cell in cells(name) for o in cell.get("outputs", [])]
    images = [o for o in outputs if {"image/png", "image/gif"} & set(o.get("data", {}))]
    assert len(images) == pictures
    assert not [o for o in outputs if o["output_type"] == "error"]
    # No path of the machine that they were run on.
    assert os.path.expanduser("~") not in json.dumps(outputs)
