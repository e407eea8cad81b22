"""Speed as ratios, side by side in one run.

python benchmarks/speed.py                     # all, about 15 minutes on two cores
python benchmarks/speed.py epoch manifold      # a choice of: epoch, manifold, recipe

On a shared machine a second is no unit: the contestants take turns, and the best of several
repetitions of each are compared. MNIST is taken from TFP_VAE_DATA_DIR; without it, random pixels
serve for `epoch` and `manifold`, which do not depend on them.
"""

import argparse
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

import contestants
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import datasets, plotting

EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "train_mnist.py"


def images() -> tuple[np.ndarray, np.ndarray, str]:
    """Training and test images, binarized at 0.5, and what they are."""
    try:
        data = datasets.load("mnist", download=False)
    except datasets.DatasetError:
        pixels = np.random.default_rng(0).integers(0, 2, (70_000, 28, 28, 1)).astype("float32")
        return pixels[:60_000], pixels[60_000:], "random pixels"
    x_train, x_test = (datasets.binarize(x, "threshold") for x in (data.x_train, data.x_test))
    return x_train, x_test, "MNIST"


def take_turns(functions: dict, repetitions: int) -> dict[str, float]:
    """The best seconds of each function, over rounds in which each is called once."""
    for function in functions.values():
        function()  # traced, compiled, memory at hand
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repetitions):
        for name, function in functions.items():
            best[name] = min(best[name], contestants.seconds(function))
    return best


def table(title: str, rows: list[tuple[str, ...]]) -> None:
    print(f"\n{title}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def epoch(repetitions: int) -> None:
    """One epoch of `VAE.fit` on the CVAE at batch 100, against a plain loop and stock Keras 3."""
    x, _, what = images()
    loop, vae = contestants.PlainLoop(x, 100), contestants.cvae()
    ours = "tfp_vae, VAE.fit"
    best = take_turns(
        {
            "plain TensorFlow loop": loop.epoch,
            "stock Keras 3, jit_compile='auto'": contestants.stock_keras(x, 100),
            ours: lambda: vae.fit(x, batch_size=100, verbose=0),
        },
        repetitions,
    )
    rows = [("contestant", "seconds", "images/s", "tfp_vae is faster by")]
    rows += [
        (name, f"{s:.2f}", f"{len(x) / s:.0f}", f"{s / best[ours]:.2f}") for name, s in best.items()
    ]
    table(f"one epoch, CVAE, batch 100, {len(x)} images of {what}, best of {repetitions}", rows)


def manifold(repetitions: int) -> None:
    """The 20×20 latent grid in one batch, against a decoder call for each cell."""
    vae = contestants.cvae()
    quantiles = tfp.distributions.Normal(0.0, 1.0).quantile(np.linspace(0.05, 0.95, 20))
    cells = [tf.reshape(tf.stack([a, b]), [1, 2]) for b in quantiles for a in quantiles]
    best = take_turns(
        {
            "cell by cell": lambda: [vae.decoder(z).mean().numpy() for z in cells],
            "tfp_vae": lambda: plotting.latent_manifold_array(vae, 20),
        },
        repetitions,
    )
    rows = [("way", "milliseconds", "tfp_vae is faster by")]
    rows += [(k, f"{1000 * s:.1f}", f"{s / best['tfp_vae']:.1f}") for k, s in best.items()]
    table(f"latent manifold, 20×20 cells, best of {repetitions}", rows)


def recipe(_: int) -> None:
    """Seconds until the test ELBO that the loop of TensorFlow's tutorial has after 10 epochs.

    Once: it takes about four minutes.
    """
    x_train, x_test, what = images()
    if what != "MNIST":
        sys.exit("recipe: needs MNIST; set TFP_VAE_DATA_DIR to a folder with mnist.npz.")
    # The example runs whole, in the middle of the loop, so that neighbours slow down both alike.
    loop = contestants.PlainLoop(x_train, 32)
    ours = Example()
    loop_seconds, target = 0.0, 0.0
    for number in range(10):
        loop_seconds += contestants.seconds(loop.epoch)
        target = loop.elbo(x_test)
        print(f"loop, epoch {number + 1}: {loop_seconds:.1f} s, test ELBO {target:.2f}", flush=True)
        if number == 4:
            ours.run()
    reached = ours.seconds_to(target)
    if reached is None:
        print(f"examples/train_mnist.py did not reach a test ELBO of {target:.2f}.")
        return
    rows = [
        ("program", "seconds of training", "test ELBO", "ratio"),
        ("tutorial's loop, its own 10 epochs", f"{loop_seconds:.1f}", f"{target:.2f}", "1"),
        (
            f"examples/train_mnist.py, epoch {reached[0]}",
            f"{reached[1]:.1f}",
            f"{reached[2]:.2f}",
            f"1/{loop_seconds / reached[1]:.1f}",
        ),
    ]
    table("time to the ELBO of the tutorial's loop (MNIST, threshold 0.5, 2 latents)", rows)


class Example:
    """`examples/train_mnist.py` in a process of its own, as people run it."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, float, float]] = []

    def run(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(EXAMPLE), "--dataset", "mnist", "--out", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        pattern = r"epoch (\d+)/\d+: test ELBO (\S+) nats .*?, (\S+) s of training"
        total = 0.0
        for number, elbo, seconds in re.findall(pattern, done.stdout):
            total += float(seconds)
            self.epochs.append((int(number), total, float(elbo)))
            print(f"example, epoch {number}: {total:.1f} s, test ELBO {elbo}", flush=True)

    def seconds_to(self, target: float) -> tuple[int, float, float] | None:
        """Epoch, seconds and ELBO of the first epoch no worse than `target`."""
        return next((row for row in self.epochs if row[2] >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benchmarks = {"epoch": epoch, "manifold": manifold, "recipe": recipe}
    parser.add_argument("benchmarks", nargs="*", choices=[*benchmarks, []], default=[])
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {len(tf.config.list_physical_devices('GPU'))} GPUs, Python "
        f"{platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"TFP {tfp.__version__}"
    )
    for name in arguments.benchmarks or benchmarks:
        benchmarks[name](arguments.repetitions)


if __name__ == "__main__":
    main()
