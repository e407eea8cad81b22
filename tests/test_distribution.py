"""Several workers: real processes on 127.0.0.1 that end with the figures of one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import cluster
from tfp_vae import cli, datasets, recipes, training
from tfp_vae.training import RunError, workers

pytestmark = pytest.mark.long
CASES = ["elbo", "free bits", "iwae with a flow", "conditional", "streamed"]
DRAWN = ("val_loss", "val_elbo", "val_reconstruction")


@pytest.fixture(scope="module")
def alone():
    strategy = tf.distribute.get_strategy()
    return cluster.figures(strategy) | {"streamed": cluster.streamed(strategy)}


def found_by(count, kind, folder):
    paths = [folder / f"{i}.json" for i in range(count)]
    commands = [["-m", "tests.cluster", path, kind] for path in paths]
    with cluster.Workers(commands, folder) as workers:
        assert workers.wait() == [0] * count, workers.said(0)[-3000:]
    return [json.loads(path.read_text()) for path in paths]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two workers found, each for itself."""
    return found_by(2, "multiworker", tmp_path_factory.mktemp("workers"))


def assert_same_training(found, expected, but=()):
    """Up to the order in which float32 numbers are added.

    The two halves of a batch are summed apart, so that each number is off by some units in its last
    place, 1.2e-7 of its size, and a little more after each of the 8 steps: ten of them are allowed
    for a step. A gradient of another scale, other draws or another order of the images move the
    figures by 1e-3 and more.
    """
    for name, values in expected["history"].items():
        if name not in but:
            np.testing.assert_allclose(found["history"][name], values, 1e-5, err_msg=name)
    for one, other in zip(found["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(one, other, 1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_two_workers_end_with_the_weights_and_logs_of_one(case, together, alone):
    """With draws in the loss, labels, and a validation whose last batch only one has a part of."""
    # The draws of that batch are others; all else, its weight and its KL, is not.
    assert_same_training(together[0][case], alone[case], but=DRAWN if case == "elbo" else ())
    for name in () if case == "streamed" else DRAWN:  # which has no validation
        found = together[0][case]["history"][name]
        np.testing.assert_allclose(found, alone[case]["history"][name], 0.01)


def test_both_workers_report_the_same(together):
    shares = [found["evaluation"]["share"] for found in together]
    for one, other in zip(*(found.items() for found in together), strict=True):
        assert one[0] == other[0] == "evaluation" or one == other
    for name in ("many", "few", "tail", "values"):
        assert together[0]["evaluation"][name] == together[1]["evaluation"][name]
    # Whole pieces, of 12 images or of 6; of the three images the second has none, and does their
    # one piece in vain.
    assert shares == [[48, 3, 18, 24], [32, 3, 12, 6]]


def test_two_replicas_in_one_process_end_with_the_weights_and_logs_of_one(tmp_path, alone):
    (found,) = found_by(1, "mirrored", tmp_path)
    assert_same_training(found["elbo"], alone["elbo"], but=DRAWN)
    assert_same_training(found["free bits"], alone["free bits"])


def test_evaluation_of_shared_images_is_that_of_one_worker(together, alone):
    """Each image's draws and all that is told of them; `few` has no piece for the second worker."""
    values = together[0]["evaluation"]["values"]
    np.testing.assert_allclose(values, alone["evaluation"]["values"], 1e-4)
    for name in ("many", "few", "tail"):
        expected, found = alone["evaluation"][name], together[0]["evaluation"][name]
        assert list(found) == list(expected)
        for key, value in expected.items():
            if key in ("pareto_k", "reliable"):
                assert (found[key] is None) == (value is None)
                if name == "tail":  # of 7 samples there is none
                    np.testing.assert_allclose(found[key], value, atol=0.05, err_msg=key)
            else:
                one, other = (
                    list(each.values()) if isinstance(each, dict) else each
                    for each in (found[key], value)
                )
                # The weights, which 8 steps left a little apart, and the draws that follow them.
                np.testing.assert_allclose(one, other, 1e-4, atol=1e-6, err_msg=key)


# --------------------------------------------------------------------- runs

SETTINGS = {
    "binarization": "dynamic",
    "latent_dim": 2,
    "batch_size": 20,
    "validation_images": 10,
    "pictures": [],
    "optimizer": {"name": "SGD", "learning_rate": 1e-3},
    "encoder": {"network": "dense_encoder", "units": [9]},
    "decoder": {"network": "dense_decoder", "units": [9]},
}
OPTIONS = [
    option
    for name, value in SETTINGS.items()
    for option in ("--set", f"{name}={json.dumps(value)}")
]


def write_images(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (130, 8, 8)).astype(np.uint8)
    np.savez(folder / "images.npz", x_train=pixels[:110], x_test=pixels[110:])
    return str(folder / "images.npz")


def command(*more):
    return ["-m", "tfp_vae", "train", *more, "--strategy", "multiworker", "--json"]


# For a worker that is not the chief: whatever it writes ends it.
READER = """
import sys
from tfp_vae import _files
from tfp_vae.cli import main
def refuse(path):
    raise AssertionError(f"{path}: written by a worker that is not the chief")
_files.whole_file = _files.whole_folder = refuse
sys.exit(main())
"""


def only_reading(command):
    return ["-c", READER, *command[2:]]


def wait_for_an_epoch(pair, out):
    end = time.monotonic() + 300
    while not (out / "history.csv").exists():
        assert time.monotonic() < end, pair.said(0)[-2000:]
        assert pair.processes[0].poll() is None, pair.said(0)[-2000:]
        time.sleep(0.1)


def test_a_killed_worker_stops_the_others_and_the_run_goes_on(tmp_path, capsys):
    """With two workers again, or with one; both end as one worker that was never stopped."""
    images, out = write_images(tmp_path), tmp_path / "run"
    begin = ["mlp-mnist", "--dataset", images, "--out", out, *OPTIONS, "--epochs"]
    with cluster.Workers([command(*begin, "5000")] * 2, tmp_path) as pair:
        wait_for_an_epoch(pair, out)
        # The chief, which the other misses at once: of a worker the chief hears after 20 s.
        pair.processes[0].kill()
        assert pair.wait() == [-signal.SIGKILL, 1]
        last = pair.said(1).strip().splitlines()[-1]
    assert last.startswith(f"tfp-vae: error: {out}: another of the 2 workers was lost. Every")
    assert f"train --resume {out}" in last
    assert "Traceback" not in pair.said(1)

    epochs = training.Run(out).epochs_done + 2
    shutil.copytree(out, tmp_path / "copy")
    one = training.resume(tmp_path / "copy", epochs=epochs, verbose=0)
    again = command("--resume", out, "--epochs", str(epochs))
    # As where a worker started so early that it found no run to resume.
    begun = only_reading(command(*begin, str(epochs)))
    with cluster.Workers([again, begun], tmp_path) as pair:
        assert pair.wait() == [0, 0], pair.said(0)[-2000:]
    two = training.Run(out)
    assert json.loads(pair.said(0, "out"))["epochs"] == epochs
    assert pair.said(1, "out") == ""
    assert "epoch 1" not in pair.said(1)  # the chief speaks
    recipe = recipes.get("mlp-mnist").replace(dataset=images, epochs=epochs, **SETTINGS)
    never_stopped = training.train(recipe, tmp_path / "whole", verbose=0)
    assert sorted(p.name for p in out.rglob("*")) == sorted(
        p.name for p in never_stopped.folder.rglob("*")
    )
    expected = never_stopped.history()
    expected.pop("seconds")
    weights = never_stopped.load_model("last").get_weights()
    for run in (one, two):
        history = run.history()
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, 1e-4, atol=1e-5, err_msg=name)
        for a, b in zip(run.load_model("last").get_weights(), weights, strict=True):
            np.testing.assert_allclose(a, b, 1e-4, atol=1e-5)
        key = "log_likelihood"
        np.testing.assert_allclose(run.metrics()[key], never_stopped.metrics()[key], 1e-4)

    evaluate = ["evaluate", str(out), "--samples", "7", "--json"]
    with cluster.Workers(
        [["-m", "tfp_vae", *evaluate, "--strategy", "multiworker"]] * 2, tmp_path
    ) as pair:
        assert pair.wait() == [0, 0], pair.said(0)[-2000:]
    assert pair.said(1, "out") == ""
    capsys.readouterr()
    assert cli.main(evaluate) == 0
    assert_same_figures(json.loads(pair.said(0, "out")), json.loads(capsys.readouterr().out))


def assert_same_figures(found, expected):
    """Up to the order in which float32 numbers are added, as in a matrix product of other size."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same_figures(found[name], value)
        elif isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name
        else:
            assert found[name] == value, name


def test_a_worker_that_is_lost_stops_the_chief(tmp_path):
    """Which hears of it when the heartbeats have been missing for some 20 s."""
    images, out = write_images(tmp_path), tmp_path / "run"
    begin = ["mlp-mnist", "--dataset", images, "--out", out, *OPTIONS, "--epochs", "100000"]
    with cluster.Workers([command(*begin)] * 2, tmp_path) as pair:
        wait_for_an_epoch(pair, out)
        pair.processes[1].kill()
        assert pair.wait() == [1, -signal.SIGKILL]
        last = pair.said(0).strip().splitlines()[-1]
    assert last.startswith(f"tfp-vae: error: {out}: another of the 2 workers was lost. Every")
    assert training.Run(out).epochs_done >= 1


def test_mirrored_on_one_device_trains_as_without_a_strategy(tmp_path):
    images, out = write_images(tmp_path), tmp_path / "run"
    arguments = ["mlp-mnist", "--dataset", images, "--out", out, *OPTIONS, "--epochs", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-m", "tfp_vae", "train", *arguments, "--strategy", "mirrored", "--quiet"],
        env={**environment, "PYTHONPATH": str(cluster.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    recipe = recipes.get("mlp-mnist").replace(dataset=images, epochs=2, **SETTINGS)
    alone = training.train(recipe, tmp_path / "alone", verbose=0)
    found = training.Run(out)
    for name, values in alone.history().items():
        if name != "seconds":
            np.testing.assert_allclose(found.history()[name], values, 1e-5, err_msg=name)


# --------------------------------------------------------------------- what is refused

CLUSTER = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
WRONG = [
    pytest.param(None, "expected JSON as", id="none"),
    pytest.param("{", "expected JSON as", id="no JSON"),
    pytest.param("[]", "expected JSON as", id="a list"),
    pytest.param({"cluster": CLUSTER}, "expected JSON as", id="no task"),
    pytest.param(
        {"cluster": {**CLUSTER, "ps": ["a:1"]}, "task": {"type": "ps", "index": 0}},
        r"expected a cluster of worker, got \['ps', 'worker'\]",
        id="parameter server",
    ),
    pytest.param(
        {"cluster": CLUSTER, "task": {"type": "worker", "index": 2}},
        r"expected a task of the cluster {'worker': 2}, got 'worker' number 2",
        id="index",
    ),
    pytest.param(
        {"cluster": CLUSTER, "task": {"type": "chief", "index": 0}},
        "got 'chief' number 0",
        id="type",
    ),
]


@pytest.mark.parametrize(("config", "message"), WRONG)
def test_wrong_tf_config_is_refused_before_anything_waits(config, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(workers.ClusterError, match=message):
        workers.named("multiworker")


def test_the_command_without_tf_config_is_an_error_of_usage(monkeypatch, capsys):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cli.main(["train", "mlp-mnist", "--strategy", "multiworker"]) == 2
    assert "--strategy multiworker: TF_CONFIG: expected JSON" in capsys.readouterr().err
    arguments = ["evaluate", "x", "--strategy", "multiworker", "--report", "y"]
    assert cli.main(arguments) == 2
    assert "--strategy goes without --report" in capsys.readouterr().err


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="expected one of mirrored, multiworker, got 'both'"):
        workers.named("both")


def test_a_batch_that_cannot_be_shared_leaves_no_folder(tmp_path):
    class Three:
        num_replicas_in_sync = 3

        def scope(self):
            raise AssertionError("a model was made")

    data = datasets.load(write_images(tmp_path))
    recipe = recipes.get("mlp-mnist").replace(**SETTINGS)
    with pytest.raises(RunError, match="multiple of the 3 replicas that share the batch, got 20"):
        training.train(recipe, tmp_path / "run", data=data, strategy=Three(), verbose=0)
    assert not (tmp_path / "run").exists()


def test_training_within_a_scope_is_refused(tmp_path):
    recipe = recipes.get("mlp-mnist").replace(**SETTINGS)
    with (
        tf.distribute.OneDeviceStrategy("CPU:0").scope(),
        pytest.raises(ValueError, match="strategy: expected it as an argument"),
    ):
        training.train(recipe, tmp_path / "run", verbose=0)


SAID = [
    pytest.param(
        "Graph execution error:\n\nDetected at node A defined at (most recent call last):\n"
        '  File "a.py", line 1, in f\n\nCollective ops is aborted by: x\nThe error could be',
        "Collective ops is aborted by: x",
        id="graph",
    ),
    pytest.param(
        "{{function_node f}} The following tasks are unhealthy:\n/job:worker/task:1\nThe tasks",
        "The following tasks are unhealthy: /job:worker/task:1",
        id="eager",
    ),
    pytest.param("", "no more.", id="nothing"),
]


@pytest.mark.parametrize(("message", "gist"), SAID)
def test_a_lost_worker_is_one_line(message, gist, monkeypatch):
    team = workers.Team(None)
    error = tf.errors.UnavailableError(None, None, message)
    with pytest.raises(tf.errors.UnavailableError), team.watched("runs/a", "Go on."):
        raise error  # no other worker could be meant
    team.count = 2
    with pytest.raises(RunError) as found, team.watched("runs/a", "Go on."):
        raise error
    assert str(found.value) == (
        f"runs/a: another of the 2 workers was lost. Go on. TensorFlow said: {gist}"
    )
