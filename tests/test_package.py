"""The house: floors, imports, backend, command."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import tfp_vae

PACKAGE = pathlib.Path(tfp_vae.__file__).parent

# A room imports only from lower floors; "side" rooms stand on the ground and nothing of floors 0
# to 2 leans on them.
FLOORS = {
    "_version": -2,
    "_files": -2,
    "_support": -1,
    "_allowed": -1,
    "layers": 0,
    "objectives": 0,
    "optimizers": 0,
    "networks": 1,
    "priors": 1,
    "vae": 2,
    "evaluation": 2.5,  # functions of a trained VAE, for training and the command
    "recipes": 2,
    "reports": 3,
    "training": 3,
    "explorer": 3,
    "cli": 4,
}
SIDE = {
    "callbacks": {"_files", "_support", "evaluation", "objectives"},
    "datasets": {"_files", "_support"},
    "plotting": {"_files", "_support", "priors"},
}


def imports(path):
    """The rooms of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tfp_vae":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfp_vae."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: relative import")
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("tfp_vae.")
            )


ROOMS = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_imports_only_from_lower_floors(path):
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if room in ("__init__", "__main__"):
        return
    for other in imports(path):
        if other == room:  # within a folder
            continue
        if room in SIDE:
            assert other in SIDE[room], f"{path.name} imports {other}"
        elif FLOORS[room] >= 3:  # what stands above all others may also use the side rooms
            assert other in SIDE or FLOORS.get(other, 0) < FLOORS[room] or other == "VAE"
        else:
            assert FLOORS[other] < FLOORS[room], f"{path.name} imports {other}"


def test_what_a_model_does_not_need_is_there_when_it_is_asked_for(fresh_process):
    fresh_process(
        "import sys, tfp_vae; assert 'tfp_vae.training' not in sys.modules; "
        "tfp_vae.training.load_model; tfp_vae.recipes.get; tfp_vae.reports.write_report"
    )
    assert not hasattr(tfp_vae, "trainer")


def test_every_room_has_a_floor():
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in ROOMS}
    assert rooms - {"__init__", "__main__"} == set(FLOORS) | set(SIDE)


def test_the_package_imports_no_legacy_keras_and_no_pickle():
    for path in ROOMS:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            for name in [*names, getattr(node, "module", "") or ""]:
                assert name.split(".")[0] not in FORBIDDEN, path


FORBIDDEN = {
    "tf_keras", "pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "subprocess",
    "yaml",
}  # fmt: skip
# What would carry out, or trust, the content of a file.
CARRIES_OUT = {
    "eval", "exec", "compile", "__import__", "system", "popen", "enable_unsafe_deserialization",
    "extractall", "unsafe_load",
}  # fmt: skip
TRUSTS = {"allow_pickle": True, "safe_mode": False, "shell": True}


def test_the_package_carries_out_no_file():
    """``compile`` as a method is Keras'; a plain call of it would be Python's."""
    for path in ROOMS:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            plain = isinstance(node.func, ast.Name)
            name = node.func.id if plain else getattr(node.func, "attr", "")
            where = f"{path}, line {node.lineno}: {name}"
            assert name not in CARRIES_OUT or (name == "compile" and not plain), where
            for option in node.keywords:
                if option.arg in TRUSTS:
                    assert getattr(option.value, "value", None) is not TRUSTS[option.arg], where


LIGHT = """
import sys
import tensorflow, tensorflow_probability
before = set(sys.modules)
import tfp_vae
new = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = new & {"matplotlib", "imageio", "PIL", "sklearn", "scipy", "pandas"}
assert not heavy, heavy
assert tfp_vae.VAE and tfp_vae.__version__
"""


def test_import_brings_in_nothing_heavy(fresh_process):
    fresh_process(LIGHT)


COMMANDS = [
    pytest.param(["-m", "tfp_vae", "--help"], id="module"),
    pytest.param(["-m", "tfp_vae.cli", "--help"], id="cli"),
    pytest.param(["-m", "tfp_vae", "--version"], id="version"),
    pytest.param(["-m", "tfp_vae", "plot", "--help"], id="subcommand"),
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_help_needs_neither_tensorflow_nor_tfp(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not imported & {"tensorflow", "tensorflow_probability", "keras", "numpy"}


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_one_clear_error(backend):
    done = subprocess.run(
        [sys.executable, "-c", "import tfp_vae"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tfp_vae needs the TensorFlow backend")
    assert f"got '{backend}'" in last
    assert done.stderr.count("Traceback") == 1


STARTS = [
    pytest.param(["-um", "tfp_vae", "--version"], id="-um"),
    pytest.param(["-mtfp_vae", "--version"], id="-mtfp_vae"),
    pytest.param(["-u", "-X", "dev", "-m", "tfp_vae.cli", "--version"], id="options"),
]


@pytest.mark.parametrize("arguments", STARTS)
def test_any_way_to_start_the_module(arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"tfp-vae {tfp_vae.__version__}\n"


def test_the_installed_package_is_whole():
    import importlib.metadata

    try:
        distribution = importlib.metadata.distribution("tfp-vae")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here: run from a checkout")
    if distribution.read_text("RECORD") is None:
        pytest.skip("found what a build left in the checkout, not an installed package")
    installed = {str(file) for file in distribution.files}
    if not any(name.startswith("tfp_vae/") for name in installed):
        pytest.skip("installed in editable mode: the checkout itself is the package")
    files = [*ROOMS, PACKAGE / "py.typed", *PACKAGE.glob("explorer/*.html")]
    files += PACKAGE.glob("explorer/*.mjs")
    assert {str(path.relative_to(PACKAGE.parent)) for path in files} <= installed


def test_version_is_the_installed_one():
    import importlib.metadata

    try:
        installed = importlib.metadata.version("tfp-vae")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here: run from a checkout")
    assert installed == tfp_vae.__version__
