"""Processes that end at any moment, two at once, clocks that go back: nothing is lost."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.runs import (
    ROOT,
    assert_same_run,
    command,
    heeds_interrupts,
    recipe,
    train_command,
    wait_for,
)
from tfp_vae import training
from tfp_vae.cli import interrupts
from tfp_vae.training import RunError

# With TFP_VAE_KILLS=20 this many are made: the long form of the test, on demand.
KILLS = int(os.environ.get("TFP_VAE_KILLS", "1"))


@pytest.mark.long
def test_killed_at_random_moments_is_never_stopped(images, tmp_path, start):
    epochs = 10 * KILLS
    whole = training.train(recipe(images, epochs=epochs), tmp_path / "whole", verbose=0)
    out = tmp_path / "killed"
    moments = random.Random(0)
    arguments = train_command(images, out, epochs)
    for kill in range(KILLS):
        process = start(arguments)
        # Importing TensorFlow and tracing the first step are no part of it: count from its first
        # epoch on. The picture of the untrained model is none.
        done = max(1, len(list(out.glob("pictures/epoch-*"))))
        wait_for(process, lambda: len(list(out.glob("pictures/epoch-*"))) > done)  # noqa: B023
        time.sleep(moments.uniform(0, 0.5))  # some epochs, each of them mostly writing
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"it was done before kill {kill + 1}"
        arguments = command("train", "--resume", out, "--quiet")
    process = start(arguments)
    assert process.wait() == 0, (tmp_path / "said").read_text()
    assert_same_run(whole.folder, out)


def test_interrupt_keeps_the_epochs_and_exits_130(images, tmp_path, start):
    out = tmp_path / "run"
    process = start(train_command(images, out, 2000))
    wait_for(process, (out / "history.csv").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = (tmp_path / "said").read_text()
    assert f"Go on with: tfp-vae train --resume {out}" in said
    assert said.splitlines()[-1] == "tfp-vae: stopped."
    done = training.Run(out).epochs_done
    assert done >= 1
    resumed = training.resume(out, epochs=done + 1, verbose=0)
    assert resumed.epochs_done == done + 1


def test_two_processes_into_one_folder(copied, images):
    message = f"another process is training into this folder: number {os.getpid()} on "
    with training.locks.locked(copied), pytest.raises(RunError, match=message):
        training.resume(copied, epochs=4, verbose=0)
    with pytest.raises(RunError, match="holds a run already"):
        training.train(recipe(images), copied, verbose=0)


def test_the_slower_of_two_processes_is_refused(images, tmp_path, monkeypatch):
    """Both found an empty folder; one was quicker to begin."""
    build = training.loop.build

    def overtaken(*arguments):
        monkeypatch.setattr(training.loop, "build", build)
        training.train(recipe(images, epochs=1), tmp_path / "run", verbose=0)
        return build(*arguments)

    monkeypatch.setattr(training.loop, "build", overtaken)
    with pytest.raises(RunError, match="holds a run already"):
        training.train(recipe(images, seed=9), tmp_path / "run", verbose=0)
    assert training.Run(tmp_path / "run").metrics()["epochs"] == 1
    assert training.Run(tmp_path / "run").recipe.seed == 0


# Writes after an epoch: the process dies just before one. The models are the last, the encoder,
# the decoder and the best. With TFP_VAE_KILLS every write in turn.
WRITES = [("save_state", 1, 3), ("save_model", 4, 3), ("write_table", 1, 2),
          ("write_metrics", 1, 3)]  # fmt: skip
if os.environ.get("TFP_VAE_KILLS"):
    WRITES += [("save_model", 1, 2), ("save_model", 1, 3), ("save_model", 2, 3),
               ("save_model", 3, 3), ("write_latent", 1, 3)]  # fmt: skip


@pytest.mark.parametrize(("write", "number", "resumed_to"), WRITES)
def test_stopped_before_each_write(
    finished, begun, tmp_path, monkeypatch, write, number, resumed_to
):
    """In the second epoch; then ended there, or taken to the third."""
    out, calls = shutil.copytree(begun.folder, tmp_path / "run"), []
    with monkeypatch.context() as patch:
        writes = getattr(training.Run, write)

        def die(*arguments, **options):
            calls.append(arguments)
            if len(calls) == number:
                raise KeyboardInterrupt
            writes(*arguments, **options)

        patch.setattr(training.Run, write, die)
        with pytest.raises(KeyboardInterrupt):
            training.resume(out, epochs=2, verbose=0)
    assert len(calls) == number
    run = training.resume(out, epochs=resumed_to, verbose=0)
    if resumed_to == 3:
        assert_same_run(finished.folder, out)
        return
    assert len(run.pictures()) == 3
    assert run.metrics()["epochs"] == 2
    assert run.history()["elbo"] == finished.history()["elbo"][:2]


# Ends itself within a write: the file beside the run is half written, or has just taken its place.
WITHIN = """
import os, signal, sys
from tfp_vae import _files, training
folder, moment, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
flush, replace, seen = _files._flush_to_disk, os.replace, []
def reached():
    seen.append(1)
    return len(seen) == number
def flushed(path):
    if moment == "half" and reached():
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)
def replaced(source, target):
    replace(source, target)
    if moment == "whole" and reached():
        os.kill(os.getpid(), signal.SIGKILL)
_files._flush_to_disk, os.replace = flushed, replaced
training.resume(folder, epochs=3, verbose=0)
"""


@pytest.mark.long
@pytest.mark.parametrize("moment", ["half", "whole"])
def test_killed_within_each_write(finished, begun, tmp_path, moment):
    """Of two epochs and the end; of one write, unless TFP_VAE_KILLS asks for all."""
    numbers, killed = range(1, 1000) if os.environ.get("TFP_VAE_KILLS") else [4], 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for number in numbers:
        out = shutil.copytree(begun.folder, tmp_path / f"{number}")
        done = subprocess.run(
            [sys.executable, "-c", WITHIN, out, moment, str(number)],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert_same_run(finished.folder, training.resume(out, epochs=3, verbose=0).folder)
        killed += 1
    print(f"killed within {killed} writes: {moment}")
    assert killed


def test_leftovers_of_a_killed_process_are_taken_away(begun, tmp_path):
    out = shutil.copytree(begun.folder, tmp_path / "run")
    (out / "pictures" / "epoch-0002.png").write_bytes(b"of an epoch that has no state")
    (out / ".last-01234567.part.keras").write_bytes(b"half a file")
    run = training.resume(out, verbose=0)
    assert len(run.pictures()) == 2
    assert not list(out.glob(".*.part*"))


HOLD = """
import pathlib, sys, time
from tfp_vae.training.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunError, match=f"number {process.pid} on"),
            training.locks.locked(tmp_path),
        ):
            pass
        process.kill()
    assert (tmp_path / ".lock").read_text()  # what it left is no lock
    with training.locks.locked(tmp_path):
        pass
    assert not (tmp_path / ".lock").read_text()


def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch):
    def none(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(training.locks, "_lock", none)
    with (
        pytest.raises(OSError, match=r"a file system that knows locks.*No locks available"),
        training.locks.locked(tmp_path),
    ):
        pass


def test_a_clock_that_goes_back_changes_nothing(finished, begun, tmp_path, monkeypatch):
    """The newest files are from long ago, the oldest from years ahead, and time runs backwards."""
    out = shutil.copytree(begun.folder, tmp_path / "run")
    newest_first = sorted(out.rglob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for number, path in enumerate(newest_first):
        os.utime(path, (1e9 + 1e7 * number,) * 2)
    now = [4e9]

    def back():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    training.resume(out, epochs=3, verbose=0)
    assert_same_run(finished.folder, out)


@pytest.mark.long
def test_interrupted_at_random_moments_says_so_and_goes_on(images, tmp_path, start):
    """Ctrl-C while Python starts, while TensorFlow is imported, in a step or in a write."""
    out, moments, stopped = tmp_path / "run", random.Random(3), 0
    arguments = train_command(images, out, 10 * KILLS)
    whole = training.train(recipe(images, epochs=10 * KILLS), tmp_path / "whole", verbose=0)
    for _ in range(KILLS):
        process = start(arguments)
        time.sleep(moments.uniform(0.5, 12))
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        said = (tmp_path / "said").read_text()
        assert code in (0, 130), said
        # TensorFlow prints a traceback of its own where Ctrl-C meets Python code below its C++;
        # the last word is ours.
        assert code == 0 or said.splitlines()[-1] == "tfp-vae: stopped.", said
        stopped += code == 130
        if (out / "run.json").exists():
            arguments = command("train", "--resume", out, "--quiet")
    assert stopped, "no interrupt met a running command"
    process = start(arguments)
    assert process.wait() == 0, (tmp_path / "said").read_text()
    assert_same_run(whole.folder, out)


SWALLOWS = """
import sys, time
from tfp_vae.cli import interrupts
try:
    with interrupts.insistent():
        try:
            print("begun", flush=True)
            time.sleep(60)
        except:  # as Keras and TensorFlow have some
            print("swallowed", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("heard", flush=True)
    time.sleep(4)  # in peace
    print("done", flush=True)
"""


def test_an_interrupt_that_a_library_swallows_comes_again():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", SWALLOWS], stdout=subprocess.PIPE, env=environment, text=True,
        preexec_fn=heeds_interrupts,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "swallowed\nheard\ndone\n"


@pytest.fixture
def own_signals():
    """Those of a plain process, whatever runs the tests has set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_then(error, heard=False):
    """As TensorFlow does: its C++ drops the interrupt and fails on what is then missing."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        if heard:
            interrupts.heard()
        raise error from None


def test_an_error_behind_an_interrupt_is_the_interrupt(own_signals):
    error = AttributeError("no _type_spec")
    with pytest.raises(KeyboardInterrupt) as raised, interrupts.insistent():
        interrupted_then(error)
    assert raised.value.__cause__ is error


def wait_after(call):
    call()
    time.sleep(30)


def test_an_interrupt_that_python_drops_is_not_printed(own_signals, monkeypatch):
    """As in a `__del__`, from which Python lets nothing out: the repeat is heard instead."""

    class Ends:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    class Fails:
        def __del__(self):
            raise OSError("of another kind")

    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: printed.append(lost.exc_type))
    ending = [Ends(), Fails()]
    with pytest.raises(KeyboardInterrupt), interrupts.insistent():
        wait_after(ending.clear)
    Fails()
    assert printed == [OSError, OSError]


def test_errors_without_an_interrupt_and_after_it_was_heard_are_their_own(own_signals):
    with pytest.raises(AttributeError), interrupts.insistent():
        raise AttributeError
    with pytest.raises(OSError, match="disk full"), interrupts.insistent():
        interrupted_then(OSError("disk full"), heard=True)
