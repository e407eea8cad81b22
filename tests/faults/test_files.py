"""Damaged, cut and exchanged files: each is what was written, or refused by name."""

import collections
import json
import os
import random
import shutil
import zipfile

import numpy as np
import pytest

from tests.models import small_vae
from tests.runs import contents, recipe
from tfp_vae import _files, training
from tfp_vae.training import RunError

# So many mutations of a file and as many of a folder: TFP_VAE_MUTATIONS=1000 is the long form.
MUTATIONS = int(os.environ.get("TFP_VAE_MUTATIONS", "30"))


def _damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _change(path, **content):
    path.write_text(json.dumps({**json.loads(path.read_text()), **content}))


def _with_about(folder, about):
    """Its arrays as they were, and something else about them."""
    with np.load(folder / "state.npz") as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(folder / "state.npz", **{**arrays, "about": np.frombuffer(about, "u1")})


BAD_RUNS = [
    pytest.param(lambda f: (f / "run.json").unlink(), "got none with run.json", id="no run"),
    pytest.param(lambda f: _damage(f / "run.json"), "run.json: .* damaged", id="run.json"),
    pytest.param(lambda f: _change(f / "run.json", format=99), "expected format 1.*got 99",
                 id="format"),
    pytest.param(lambda f: _change(f / "run.json", recipe={"name": "x"}), "expected the settings",
                 id="recipe"),
    pytest.param(lambda f: _change(f / "run.json", recipe=None), "run.json: .* got NoneType",
                 id="no recipe"),
    pytest.param(lambda f: _change(f / "run.json", format=99, versions=None), "of tfp_vae unknown",
                 id="no versions"),
    pytest.param(lambda f: (f / "state.npz").unlink(), "state.npz: expected the state", id="state"),
    pytest.param(lambda f: _damage(f / "state.npz"), "state.npz: .* damaged", id="half a state"),
    pytest.param(lambda f: _with_about(f, b"[" * 100_000), "state.npz: .* damaged", id="brackets"),
    pytest.param(lambda f: _with_about(f, b'{"variables": 1, "progress": []}'),
                 "state.npz: .* damaged", id="no progress"),
    pytest.param(lambda f: _change(f / "run.json", data={}), "expected an entry on", id="no data"),
    pytest.param(lambda f: np.savez(f / "state.npz", about=np.frombuffer(b"{}", "u1")),
                 "state.npz: .* damaged", id="foreign state"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD_RUNS)
def test_spoiled_folder_is_refused_by_name(copied, spoil, message):
    spoil(copied)
    before = contents(copied)
    with pytest.raises(RunError, match=message):
        training.resume(copied, epochs=4, verbose=0)
    assert contents(copied) == before


def test_one_flipped_byte_in_the_state_is_found(copied):
    path = copied / "state.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"state\.npz: .* damaged"):
        training.resume(copied, epochs=4, verbose=0)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BAD_MODELS = [
    pytest.param(lambda p: p.unlink(), "there is no such file", id="missing"),
    pytest.param(_damage, "got a damaged or other one", id="half"),
    pytest.param(_flip, "got a damaged or other one", id="flipped"),
    pytest.param(lambda p: np.savez(p.open("wb"), x=1), "got a damaged or other one", id="foreign"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_MODELS)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_spoiled_model_is_refused_by_name(copied, spoil, message):
    spoil(copied / "model.keras")
    with pytest.raises(RunError, match=f"model.keras: .*{message}"):
        training.Run(copied).load_model()


def test_best_model_that_is_lost_stops_the_run(copied):
    """It is not of the last epoch, so that the state cannot give it back."""
    run = training.Run(copied)
    vae = training.build(run.recipe, (8, 8, 1))
    vae.optimizer.build(vae.trainable_variables)
    progress = run.load_state(vae)
    run.save_state(vae, {**progress, "best_epoch": 2})
    (copied / "model.keras").unlink()
    before = contents(copied)
    with pytest.raises(RunError, match=r"model\.keras: expected the model of epoch 2"):
        training.resume(copied, epochs=4, verbose=0)
    assert contents(copied) == before


# --------------------------------------------------------------------- any mutation


def mutated(content, dice):
    """The content of a file, damaged in one of many ways, and the name of the way."""
    at, size = dice.randrange(len(content)), 1 + dice.randrange(min(len(content), 512))
    bit = dice.randrange(8)
    ways = {
        "bit": lambda: content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :],
        "byte": lambda: content[:at] + dice.randbytes(1) + content[at + 1 :],
        "end": lambda: content[: -1 - dice.randrange(100)] + dice.randbytes(1),
        "cut": lambda: content[:at],
        "longer": lambda: content + dice.randbytes(size),
        "zeros": lambda: content[:at] + bytes(size) + content[at + size :],
        "lost": lambda: content[:at] + content[at + size :],
        "twice": lambda: content[: at + size] + content[at:],
        "moved": lambda: content[at:] + content[:at],
    }  # fmt: skip
    way = dice.choice(sorted(ways))
    return way, ways[way]()


def judged(read, expected):
    """ "equal" or "refused"; a wrong result, another error or more than a line fails the test."""
    try:
        found = read()
    except RunError as error:
        return "refused" if "\n" not in str(error) else f"more than one line: {error}"
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    return "equal"


def check(seen):
    verdicts = collections.Counter()
    for (_, verdict), count in seen.items():
        verdicts[verdict] += count
    assert verdicts.keys() <= {"equal", "refused"}, seen
    assert verdicts["refused"] > MUTATIONS / 2


def weights(model):
    return {"config": json.dumps(model.get_config(), default=str)} | {
        f"{i}: {weight.path}": np.asarray(weight) for i, weight in enumerate(model.weights)
    }


def test_a_mutated_model_is_equal_or_refused(tmp_path):
    vae, path = small_vae(), tmp_path / "model.keras"
    vae.compile("adam")
    vae.save(path)
    content, dice, seen = path.read_bytes(), random.Random(0), collections.Counter()
    expected = weights(training.load_model(path))
    for _ in range(MUTATIONS):
        way, spoiled = mutated(content, dice)
        path.write_bytes(spoiled)
        verdict = judged(lambda: weights(training.load_model(path)), expected)
        seen[way, verdict] += 1
    print(f"{MUTATIONS} mutations of a model:", dict(sorted(seen.items())))
    check(seen)


def _state(run):
    vae = training.build(run.recipe, (8, 8, 1))
    vae.optimizer.build(vae.trainable_variables)
    progress = run.load_state(vae)
    values = {str(i): v.numpy() for i, v in enumerate(training.folder.variables(vae))}
    # An older state of the run is one to go on from, to the same end; its tables are ahead of it.
    return {**run.history(), "progress": json.dumps(progress), **values}


def _as_it_was(run, name):
    run.check_best(run.metrics()["best_epoch"])
    return {"bytes": (run.folder / name).read_bytes()}


# What a file is read for, and what comes of it.
READERS = {
    "run.json": lambda run: {**run.metrics(), "about": json.dumps(run.about),
                             **weights(run.load_model())},
    "history.csv": lambda run: run.history(),
    "latent.csv": lambda run: run.latent(),
    "metrics.json": lambda run: run.metrics(),
    "model.keras": lambda run: weights(run.load_model()),
    "last.keras": lambda run: weights(run.load_model("last")),
    # Parts are read by Keras; the run says whether they are what it wrote, to the last byte.
    "encoder.keras": lambda run: _as_it_was(run, "encoder.keras"),
    "decoder.keras": lambda run: _as_it_was(run, "decoder.keras"),
    "state.npz": _state,
}  # fmt: skip


def test_a_mutated_run_is_equal_or_refused(finished, begun, images, tmp_path):
    """Damage, and exchange with the files of another run, another epoch, or one another."""
    foreign = training.train(recipe(images, seed=5), tmp_path / "foreign", verbose=0)
    out = shutil.copytree(finished.folder, tmp_path / "run")
    expected = {name: read(finished) for name, read in READERS.items()}
    dice, seen = random.Random(1), collections.Counter()
    for number in range(MUTATIONS):
        name = sorted(READERS)[number % len(READERS)]
        content = (out / name).read_bytes()
        alike = [p for p in finished.folder.iterdir() if p.suffix == (out / name).suffix]
        others = {
            "another run": foreign.folder / name,
            "another epoch": begun.folder / name,
            "another file": dice.choice(sorted(p for p in alike if p.name != name) or alike),
        }
        way = dice.choice([*others, "damage", "damage", "damage"])
        if way == "damage":
            way, spoiled = mutated(content, dice)
        else:
            spoiled = others[way].read_bytes()
        (out / name).write_bytes(spoiled)
        seen[way, judged(lambda: READERS[name](training.Run(out)), expected[name])] += 1  # noqa: B023
        (out / name).write_bytes(content)
    print(f"{MUTATIONS} mutations of a run:", dict(sorted(seen.items())))
    check(seen)


def test_a_model_made_of_two_is_refused_in_a_run(copied, begun):
    """Each member with its own right CRC-32: only the seal, which such a file lacks, tells."""
    path = copied / "model.keras"
    with zipfile.ZipFile(begun.folder / "model.keras") as other:
        strange = other.read("model.weights.h5")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "model.weights.h5": strange}.items():
            archive.writestr(name, content)
    with pytest.raises(RunError, match="one without its seal"):
        training.Run(copied).load_model()


def test_a_model_of_an_older_epoch_is_named(copied, begun):
    shutil.copy(begun.folder / "last.keras", copied / "last.keras")
    with pytest.raises(RunError, match=r"last\.keras: expected the model of epoch 3, got 1's"):
        training.Run(copied).load_model("last")


def test_a_model_read_while_the_run_writes_is_no_error(begun, tmp_path, monkeypatch):
    """The table follows the models: between the two a reader finds a model that is ahead of it."""
    out = shutil.copytree(begun.folder, tmp_path / "run")
    write, read = training.Run.write_table, []

    def reading(run, name, columns):
        read.append((run.epochs_done, int(run.load_model("last").optimizer.iterations)))
        run.load_model()
        write(run, name, columns)

    monkeypatch.setattr(training.Run, "write_table", reading)
    training.resume(out, epochs=2, verbose=0)
    assert (1, 14) in read  # a table of one epoch beside the model of the second


def test_a_run_of_before_the_sums_goes_on(begun, finished, tmp_path):
    """Its files have no seals, and its settings no sum."""
    out = shutil.copytree(begun.folder, tmp_path / "run")
    about = json.loads((out / "run.json").read_text())
    del about["sha256"]
    (out / "run.json").write_text(json.dumps(about))
    for path in [*out.glob("*.keras"), out / "state.npz"]:
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b""
    run = training.resume(out, epochs=3, verbose=0)
    assert run.history()["elbo"] == finished.history()["elbo"]
    assert run.metrics()["epochs"] == 3


def test_a_seal_is_of_every_byte(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(3))
    assert _files.read_seal(path) is None
    _files.seal(path, {"epoch": 3})
    assert _files.read_seal(path) == {"epoch": 3}
    np.testing.assert_array_equal(np.load(path)["a"], np.arange(3))
    content = path.read_bytes()
    for i in range(len(content) - 72):
        path.write_bytes(content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :])
        with pytest.raises(ValueError, match="SHA-256"):
            _files.read_seal(path)
