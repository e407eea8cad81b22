"""Disks that are full or may not be written to: a clear error, and the run as it was."""

import ctypes
import errno
import os
import resource
import shutil
import subprocess

import pytest

from tests.runs import ROOT, assert_same_run, command, contents, recipe
from tfp_vae import _files, training

# The writes of one more epoch at which the disk is full, each in a run of its own; with
# TFP_VAE_KILLS all of them.
FULL_AT = [
    pytest.param(writes, marks=[] if writes == 4 else [pytest.mark.long])
    for writes in (range(14) if os.environ.get("TFP_VAE_KILLS") else (0, 4, 9))
]


def test_full_disk_leaves_the_run_as_it_was(copied):
    """A limit on the size of files fails a write as a full disk does."""
    before = contents(copied)
    limit = (copied / "state.npz").stat().st_size // 3
    done = subprocess.run(
        command("train", "--resume", copied, "--epochs", "4", "--quiet"),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "tfp-vae" in line]
    assert "cannot be written" in line
    assert contents(copied) == before
    assert training.resume(copied, epochs=4, verbose=0).epochs_done == 4


NO_ROOM = """
import pathlib, resource, sys
from tfp_vae.training.locks import locked
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
with locked(pathlib.Path(sys.argv[1])):
    pass
try:
    with locked(pathlib.Path(sys.argv[1])):
        raise KeyError("of the training")
except KeyError:
    print("passed on")
"""


def test_a_lock_that_has_no_room_hides_no_other_error(tmp_path, fresh_process):
    assert fresh_process(NO_ROOM, tmp_path) == "passed on\n"


def call(*arguments, **options):
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


@pytest.mark.parametrize("writes", FULL_AT)
def test_disk_that_is_full_at_each_write_in_turn(finished, begun, tmp_path, monkeypatch, writes):
    out, left = shutil.copytree(begun.folder, tmp_path / "run"), [writes]
    flush = _files._flush_to_disk

    def full(path):
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        left[0] -= 1
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "_flush_to_disk", full)
        with pytest.raises(OSError, match="No space left on device"):
            training.resume(out, epochs=2, verbose=0)
    assert not list(out.rglob(".*.part*"))
    run = training.Run(out)
    assert run.epochs_done in (1, 2)
    run.load_model("last")
    training.resume(out, epochs=3, verbose=0)
    assert_same_run(finished.folder, out)


def _without_root_rights():
    """Root may write to what is read-only; without this capability the new process may not."""
    drop, dac_override = 24, 1  # PR_CAPBSET_DROP and CAP_DAC_OVERRIDE of Linux
    ctypes.CDLL(None).prctl(drop, dac_override, 0, 0, 0)


def test_read_only_folder_is_refused_and_stays_as_it_was(copied, tmp_path):
    before = contents(copied)
    (copied / ".lock").chmod(0o444)
    copied.chmod(0o555)
    probe = subprocess.run(["touch", copied / "x"], preexec_fn=_without_root_rights, check=False)
    if probe.returncode == 0:
        copied.chmod(0o755)
        pytest.skip("this process may write to read-only folders and cannot give that right up")
    try:
        done = call("train", "--resume", copied, "--epochs", "4", "--quiet",
                    preexec_fn=_without_root_rights)  # fmt: skip
        new = call("train", "mlp-mnist", "--dataset", "digits", "--out", copied / "new",
                   "--quiet", preexec_fn=_without_root_rights)  # fmt: skip
    finally:
        copied.chmod(0o755)
    for process in (done, new):
        assert process.returncode == 1, process.stderr
        assert "expected a folder that can be written" in process.stderr
        assert "Traceback" not in process.stderr
    assert contents(copied) == before


def test_a_folder_under_a_file_is_no_place_for_a_run(tmp_path, images):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="expected a folder that can be written"):
        training.train(recipe(images), tmp_path / "file" / "run", verbose=0)
