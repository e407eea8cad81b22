"""Several workers on one run, by `tf.distribute`: who writes, and what is said when one is lost."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfp_vae import _support
from tfp_vae.training.models import RunError

STRATEGIES = ("mirrored", "multiworker")

# What TensorFlow raises where another worker has gone, by what it was doing just then. Its own
# mistakes are among them too, so that its sentence is passed on.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


_WHERE = ("Graph execution error", "Detected at", "File ")


class ClusterError(ValueError):
    """A ``TF_CONFIG`` that describes no cluster of workers."""


def named(name: str) -> tf.distribute.Strategy:
    """The strategy of that name; to be made before TensorFlow has computed anything.

    Args:
        name: "mirrored", all GPUs that this process sees; or "multiworker", all processes that the
            environment variable ``TF_CONFIG`` lists, of which this is one.

    Raises:
        ClusterError: no ``TF_CONFIG`` for "multiworker", or a wrong one.
        ValueError: another name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {name!r}.")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    _check_environment()
    return tf.distribute.MultiWorkerMirroredStrategy()


def _check_environment() -> None:
    """Refuse a ``TF_CONFIG`` with which TensorFlow would wait for ever, or train alone."""
    text = os.environ.get("TF_CONFIG", "")
    example = (
        '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        hosts = {name: list(addresses) for name, addresses in cluster.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ClusterError(f"TF_CONFIG: expected JSON as {example}, got {text!r}.") from error
    if not hosts or not set(hosts) <= {"chief", "worker"}:
        raise ClusterError(f"TF_CONFIG: expected a cluster of worker, got {sorted(hosts)}.")
    if kind not in hosts or not 0 <= index < len(hosts[kind]):
        count = {name: len(addresses) for name, addresses in hosts.items()}
        raise ClusterError(
            f"TF_CONFIG: expected a task of the cluster {count}, got {kind!r} number {index}."
        )


class Team:
    """The workers of a run, seen from one of them; a run without a strategy is a team of one.

    Args:
        strategy: of `tf.distribute`, or `None`.

    Attributes:
        replicas: how many share a batch.
        count: how many processes there are.
        chief: whether this is the one that writes.

    Raises:
        ValueError: within the scope of a strategy.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None) -> None:
        if tf.distribute.has_strategy():
            raise ValueError(
                "strategy: expected it as an argument, got a call within its scope(), where what "
                "the chief does alone would wait for the others."
            )
        self.strategy = strategy
        self.replicas = 1 if strategy is None else int(strategy.num_replicas_in_sync)
        index, self.count = _support.worker(strategy)
        self.chief = index == 0

    def scope(self) -> Any:
        """In which the variables of a model are made."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def wait(self) -> None:
        """Until all workers are here."""
        if self.strategy is not None and self.count > 1:
            tf.function(lambda: self.strategy.reduce("SUM", tf.ones([]), axis=None))()

    def shared(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches of which every replica gets its part; all workers hold the same ones."""
        options = tf.data.Options()
        policy = tf.data.experimental.AutoShardPolicy.DATA
        options.experimental_distribute.auto_shard_policy = policy
        return batches.with_options(options)

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse a global batch that the replicas cannot share in equal parts.

        Raises:
            RunError: it is none.
        """
        if batch_size % self.replicas:
            raise RunError(
                f"batch_size: expected a multiple of the {self.replicas} replicas that share the "
                f"batch, got {batch_size}."
            )

    @contextlib.contextmanager
    def watched(self, name: Any, remedy: str) -> Iterator[None]:
        """One sentence where another worker was lost.

        Args:
            name: what the workers are at.
            remedy: what to do then.

        Raises:
            RunError: instead of TensorFlow's error.
        """
        try:
            yield
        except _LOST as error:
            if self.count == 1:
                raise
            raise RunError(
                f"{name}: another of the {self.count} workers was lost. {remedy} "
                f"TensorFlow said: {_gist(error)}"
            ) from error


def _gist(error: tf.errors.OpError) -> str:
    """The line of TensorFlow's account that names the reason, among those of where it was."""
    lines = [line.strip() for line in str(error.message).splitlines()]
    told = [line for line in lines if line and not line.startswith(_WHERE)] or ["no more."]
    said = re.sub(r"^{{.*?}} ", "", told[0])
    return " ".join([said, *told[1:2]]) if said.endswith(":") else said
