"""What the settings that a user has do to the speed of training, as ratios.

python benchmarks/settings.py                  # about ten minutes on two cores

Each network is trained as it comes, and with one thing changed: one batch again and again, which
leaves of the work on data only the look at each batch; ten times as many steps for each return to
Python; one thread for each operation, or kernels without oneDNN and its memory layouts (which
TensorFlow takes from its environment, so those rounds are another process's); XLA; Keras' own Adam.
All take turns, and the best rounds are compared. Random binary pixels in the shape of MNIST, on
which no speed depends.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import contestants
import keras
import numpy as np
import speed
import tensorflow as tf

from tfp_vae import objectives, optimizers

SYSTEMS = {  # network, batch, draws, images of a round: of a hundred steps at least
    "CVAE, batch 100": ("CVAE", 100, 1, 10_000),
    "dense, batch 32": ("dense", 32, 1, 10_000),
    "dense, batch 100": ("dense", 100, 1, 20_000),
    "dense, batch 500": ("dense", 500, 1, 50_000),
    "dense, batch 100, IWAE of 50 draws": ("dense", 100, 50, 10_000),
}
MORE_STEPS = {"steps_per_execution": 100}
ONE_THREAD, PLAIN_KERNELS = "TF_NUM_INTRAOP_THREADS=1", "TF_ENABLE_ONEDNN_OPTS=0"
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {  # environment, arguments of `rounds`
    "as it comes": ("", {}),
    "one batch again and again": ("", {"one_batch": True}),
    "100 steps in one execution": ("", MORE_STEPS),
    "one thread for each operation": (ONE_THREAD, {}),
    "both": (ONE_THREAD, MORE_STEPS),
    "kernels without oneDNN": (PLAIN_KERNELS, {}),
    "XLA": ("", {"jit_compile": True}),
    "keras.optimizers.Adam": ("", {"optimizer": "Adam"}),
}


def rounds(
    system: str, optimizer: str = "FusedAdam", *, one_batch: bool = False, **options: Any
) -> Callable[[], float]:
    network, batch_size, draws, count = SYSTEMS[system]
    x = np.random.default_rng(0).integers(0, 2, (count, *contestants.IMAGE_SHAPE)).astype("float32")
    vae = contestants.ours(network)
    rule = {"FusedAdam": optimizers.FusedAdam, "Adam": keras.optimizers.Adam}[optimizer]
    objective = objectives.ELBO() if draws == 1 else objectives.IWAE(draws, gradient="dreg")
    vae.compile(rule(contestants.RATE), objective, **options)
    if one_batch:
        batches = tf.data.Dataset.from_tensors(x[:batch_size]).repeat(count // batch_size)
        return contestants.epoch_of(functools.partial(vae.fit, batches, verbose=0))
    fit = functools.partial(vae.fit, x, batch_size=batch_size, verbose=0)
    return contestants.epoch_of(fit)


def serve() -> None:
    """Carry out an epoch for each line of standard input, and say its seconds."""
    known: dict[str, Callable[[], float]] = {}
    for line in sys.stdin:
        if line not in known:
            system, options = json.loads(line)
            known[line] = rounds(system, **options)
        print(known[line](), flush=True)


class Process:
    """One that trains, with a variable of its own in the environment: ``NAME=VALUE`` or none."""

    def __init__(self, variable: str) -> None:
        name, _, value = variable.partition("=")
        environment = {**os.environ, **({name: value} if name else {})}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def epoch(self, system: str, options: dict[str, Any]) -> float:
        """Its seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([system, options]), file=self.process.stdin, flush=True)
        said = self.process.stdout.readline()
        if not said:
            raise RuntimeError(f"the process ended with exit code {self.process.wait()}.")
        return float(said)

    def close(self) -> None:
        self.process.communicate()  # its input ends, and so it does


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    processes = {variable: Process(variable) for variable, _ in SETTINGS.values()}
    rows = [("system", "images/s", *(f"with {name}, times" for name in list(SETTINGS)[1:]))]
    for system, (*_, count) in SYSTEMS.items():
        clocks = {
            name: functools.partial(processes[variable].epoch, system, chosen)
            for name, (variable, chosen) in SETTINGS.items()
        }
        best = list(speed.best_of(clocks, options.repetitions).values())
        rows.append((system, f"{count / best[0]:,.0f}", *(f"{best[0] / s:.2f}" for s in best[1:])))
    for process in processes.values():
        process.close()
    speed.table(f"Training with other settings, best of {options.repetitions}", rows)


if __name__ == "__main__":
    main()
