"""Several workers: real processes on 127.0.0.1 that end with the figures of one."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests import cluster

CASES = ["elbo", "iwae with a flow", "conditional"]
DRAWN = ("val_loss", "val_elbo", "val_reconstruction")


@pytest.fixture(scope="module")
def alone():
    return cluster.figures(tf.distribute.get_strategy())


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
    for name in DRAWN:
        found = together[0][case]["history"][name]
        np.testing.assert_allclose(found, alone[case]["history"][name], 0.01)


def test_both_workers_report_the_same(together):
    assert together[0] == together[1]


def test_two_replicas_in_one_process_end_with_the_weights_and_logs_of_one(tmp_path, alone):
    (found,) = found_by(1, "mirrored", tmp_path)
    assert_same_training(found["elbo"], alone["elbo"], but=DRAWN)
