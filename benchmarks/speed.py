"""Speed as ratios, side by side in one run.

python benchmarks/speed.py                     # all, about half an hour on two cores
python benchmarks/speed.py epoch manifold      # a choice of: epoch, kernels, likelihood, manifold,
                                               # sampling, scaling, diagnostics, start, recipe

On a shared machine a second is no unit: the contestants take turns, and the best of several
repetitions of each are compared. MNIST is taken from TFP_VAE_DATA_DIR; without it, random pixels
serve for all but `recipe`. PyTorch takes part where it is installed.
"""

import argparse
import functools
import importlib.util
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import contestants
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import callbacks, datasets, plotting, recipes, training

EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "train_mnist.py"
BATCH_SIZES = (32, 100, 500)
# Of an epoch, which takes a second or more.
IMAGES = {"CVAE": 20_000, "dense": 60_000}
DIAGNOSED = 1000  # images: as many as a run looks at
TORCH = importlib.util.find_spec("torch") is not None
OURS = "tfp_vae, VAE.fit"
TRAINING: dict[str, Callable[..., Callable[[], float]]] = {
    "plain TensorFlow loop": contestants.plain_loop,
    "stock Keras 3, jit_compile='auto'": contestants.stock_keras,
    "tfp.layers on tf_keras": contestants.legacy_layers,
    "PyTorch, eager, channels last": contestants.torch_eager,
}


def images() -> tuple[np.ndarray, np.ndarray, str]:
    """Training and test images, binarized at 0.5, and what they are."""
    try:
        data = datasets.load("mnist", download=False)
    except datasets.DatasetError:
        pixels = np.random.default_rng(0).integers(0, 2, (70_000, 28, 28, 1)).astype("float32")
        return pixels[:60_000], pixels[60_000:], "random pixels"
    x_train, x_test = (datasets.binarize(x, "threshold") for x in (data.x_train, data.x_test))
    return x_train, x_test, "MNIST"


def take_turns(functions: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """The best seconds of each function, over rounds in which each is called once."""
    return best_of({k: functools.partial(contestants.seconds, f) for k, f in functions.items()},
                   repetitions)  # fmt: skip


def best_of(clocks: dict[str, Callable[[], float]], repetitions: int) -> dict[str, float]:
    """As `take_turns`, of functions that measure their own seconds."""
    for clock in clocks.values():
        clock()  # traced, compiled, memory at hand
    best = dict.fromkeys(clocks, float("inf"))
    for _ in range(repetitions):
        for name, clock in clocks.items():
            best[name] = min(best[name], clock())
    return best


def table(title: str, rows: list[tuple[str, ...]]) -> None:
    """Markdown, which a terminal shows well enough."""
    print(f"\n{title}\n")
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            print(f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    sys.stdout.flush()


def say_losses(found: dict[str, float]) -> None:
    """Where `tfp_vae` is the slower one: of the names, by which factor it is faster."""
    lost = [f"{name} ({ratio:.2f})" for name, ratio in found.items() if ratio < 1]
    print(f"\ntfp_vae is slower than: {'; '.join(lost) or 'none of them'}", flush=True)


def peak() -> float:
    """Multiply-adds a second of float32 matrix products, the best of some."""
    a = tf.random.normal([2048, 2048])
    product = tf.function(lambda: tf.linalg.matmul(a, a))
    product()
    return 2048**3 / min(contestants.seconds(lambda: product().numpy()) for _ in range(10))


def others() -> dict[str, Callable[..., Callable[[], float]]]:
    return {name: make for name, make in TRAINING.items() if TORCH or "PyTorch" not in name}


def contenders(x: np.ndarray, batch_size: int, network: str) -> dict[str, Callable[[], float]]:
    """The seconds of an epoch of each of them, and of ours."""
    clocks = {name: make(x, batch_size, network) for name, make in others().items()}
    fit = functools.partial(contestants.ours(network).fit, x, batch_size=batch_size, verbose=0)
    return {**clocks, OURS: contestants.epoch_of(fit)}


def epoch(repetitions: int) -> None:
    """Training, against what people use instead, at three batch sizes and on two networks."""
    whole, _, what = images()
    known = others()
    rows: list[tuple[Any, ...]] = [
        ("network", "batch", "images/s of tfp_vae", "share of the peak",
         *(f"faster than {name}" for name in known))
    ]  # fmt: skip
    highest, ratios_of = peak(), {}
    for network in contestants.NETWORKS:
        for batch_size in BATCH_SIZES:
            x = whole[: IMAGES[network]]
            best = best_of(contenders(x, batch_size, network), repetitions)
            highest = max(highest, peak())
            rate = len(x) / best[OURS]
            ratios = {name: best[name] / best[OURS] for name in known}
            ratios_of |= {f"{name}, {network} at {batch_size}": r for name, r in ratios.items()}
            done = contestants.multiply_adds(network) * rate
            cells = (f"{ratio:.2f}" for ratio in ratios.values())
            rows.append((network, str(batch_size), f"{rate:,.0f}", done, *cells))
    for i, row in enumerate(rows[1:], 1):
        rows[i] = (*row[:3], f"{100 * row[3] / highest:.0f}%", *row[4:])
    sizes = " and ".join(f"{count:,} ({name})" for name, count in IMAGES.items())
    title = f"Training, epochs of {sizes} images of {what}, best of {repetitions}; "
    table(title + f"peak of matrix products: {2 * highest / 1e9:.0f} GFLOPS", rows)
    say_losses(ratios_of)


def kernels(repetitions: int) -> None:
    """What bounds those ratios: our step without `fit`, and TensorFlow's kernels alone.

    The kernels are the matrix products and the convolutions.
    """
    whole, _, what = images()
    known, step, alone = others(), "the step alone", "the kernels alone"
    rows: list[tuple[str, ...]] = [
        ("network", "batch", "ms of a step", "outside fit", "of its kernels alone", "their share",
         *(f"at most faster than {name}" for name in known))
    ]  # fmt: skip
    for network in contestants.NETWORKS:
        for batch_size in BATCH_SIZES:
            x = whole[: IMAGES[network] // 2]
            clocks = contenders(x, batch_size, network)
            clocks[step] = contestants.step_alone(x, batch_size, network)
            clocks[alone] = contestants.kernels_alone(x, batch_size, network)
            best = best_of(clocks, repetitions)
            steps = -(-len(x) // batch_size)
            times = (f"{1000 * best[name] / steps:.2f}" for name in (OURS, step, alone))
            bounds = (f"{best[name] / best[alone]:.2f}" for name in known)
            share = f"{best[alone] / best[OURS]:.0%}"
            rows.append((network, str(batch_size), *times, share, *bounds))
    table(f"Training, if all but TensorFlow's kernels cost nothing; {what}, best of "
          f"{repetitions}", rows)  # fmt: skip


def likelihood(repetitions: int) -> None:
    """Importance-weighted likelihood: images times samples a second.

    Every way decodes each draw, so that at the peak of matrix products nothing could be faster
    than that peak over the decoder's work: the last column is what would then be the ratio.
    """
    _, x, what = images()
    many, few, samples = x[:500], x[:200], 100
    highest, ratios_of = peak(), {}
    rows = [
        ("network", "way", "images × samples a second", "share of the peak",
         "tfp_vae is faster by", "would be at the peak")
    ]  # fmt: skip
    for network in contestants.NETWORKS:
        vae, loop = contestants.ours(network), contestants.PlainLoop(x[:100], 100, network)
        functions = {
            "tfp_vae, VAE.log_likelihood": functools.partial(
                vae.log_likelihood, many, samples, verbose=0
            ),
            "plain TensorFlow loop over draws": functools.partial(
                contestants.plain_likelihood, loop, many, samples
            ),
        }
        counts = dict.fromkeys(functions, len(many) * samples)
        if TORCH:
            name = "image by image, the way of pythae (PyTorch)"
            parts = contestants.torch_networks(network)
            functions[name] = functools.partial(contestants.image_by_image, *parts, few, samples)
            counts[name] = len(few) * samples
        best = take_turns(functions, repetitions)
        rates = {name: counts[name] / s for name, s in best.items()}
        ours, most = (
            next(iter(rates.values())),
            highest / contestants.multiply_adds_of_a_draw(network),
        )
        ratios_of |= {f"{name}, {network}": ours / rate for name, rate in rates.items()}
        rows += [
            (network, name, f"{rate:,.0f}", f"{rate / most:.0%}", f"{ours / rate:.2f}",
             f"{most / rate:.1f}")
            for name, rate in rates.items()
        ]  # fmt: skip
    title = f"Likelihood, {samples} samples, {what}, best of {repetitions}; "
    table(title + f"peak of matrix products: {2 * highest / 1e9:.0f} GFLOPS", rows)
    say_losses(ratios_of)


def manifold(repetitions: int) -> None:
    """The 20×20 latent grid in one batch, against a compiled call of the decoder for each cell."""
    vae = contestants.ours()
    quantiles = tfp.distributions.Normal(0.0, 1.0).quantile(np.linspace(0.05, 0.95, 20))
    cells = [tf.reshape(tf.stack([a, b]), [1, 2]) for b in quantiles for a in quantiles]
    one = tf.function(lambda z: vae.decoder(z).mean())
    best = take_turns(
        {
            "cell by cell": lambda: [one(z).numpy() for z in cells],
            "tfp_vae": lambda: plotting.latent_manifold_array(vae, 20),
        },
        repetitions,
    )
    rows = [("way", "milliseconds", "tfp_vae is faster by")]
    rows += [(k, f"{1000 * s:.1f}", f"{s / best['tfp_vae']:.1f}") for k, s in best.items()]
    table(f"Latent manifold, 20×20 cells, best of {repetitions}", rows)


def sampling(repetitions: int) -> None:
    """10,000 draws from the prior and their decoder means."""
    vae, loop = contestants.ours(), contestants.PlainLoop(np.zeros((1, 28, 28, 1), "float32"), 1)
    probabilities = tf.function(lambda z: tf.sigmoid(loop.decoder(z)))
    best = take_turns(
        {
            "plain decoder, 20 batches of 500": lambda: [
                probabilities(tf.random.normal([500, 2])).numpy() for _ in range(20)
            ],
            "tfp_vae, VAE.sample(10_000)": lambda: vae.sample(10_000, mean=True).numpy(),
        },
        repetitions,
    )
    last = list(best)[-1]
    rows = [("way", "seconds", "tfp_vae is faster by")]
    rows += [(name, f"{s:.2f}", f"{s / best[last]:.2f}") for name, s in best.items()]
    table(f"Sampling 10,000 images, CVAE, best of {repetitions}", rows)


def scaling(repetitions: int) -> None:
    """Seconds of an epoch over the number of images, and of a step over the number of epochs."""
    whole, _, what = images()
    vae = contestants.ours("dense")
    counts = (10_000, 20_000, 40_000, 60_000)
    fits = {n: functools.partial(vae.fit, whole[:n], batch_size=100, verbose=0) for n in counts}
    best = best_of({str(n): contestants.epoch_of(fit) for n, fit in fits.items()}, repetitions)
    rows = [("images of an epoch", "seconds", "microseconds an image")]
    rows += [(f"{n:,}", f"{best[str(n)]:.3f}", f"{1e6 * best[str(n)] / n:.1f}") for n in counts]
    table(f"One epoch, dense network, batches of 100, {what}, best of {repetitions}", rows)

    watch, each = keras.callbacks.LambdaCallback(), []
    watch.on_epoch_begin = lambda number, logs=None: each.append(time.perf_counter())
    epochs = 60
    vae.fit(whole[:10_000], batch_size=100, epochs=epochs, callbacks=[watch], verbose=0)
    seconds = np.diff([*each, time.perf_counter()])
    rows = [("epochs of 10,000 images in one fit", "median seconds of an epoch")]
    for first in range(0, epochs, 10):
        middle = np.median(seconds[max(first, 1) : first + 10])  # the first one starts the data
        rows.append((f"{first + 1} to {first + 10}", f"{middle:.3f}"))
    table("A step's cost over the epochs, the same network", rows)


def diagnostics(repetitions: int) -> None:
    """What a run pays after each epoch for active units and the KL of each dimension."""
    whole, _, what = images()
    rows = [("recipe", "seconds of an epoch", "of its diagnostics", "share")]
    for name in ("cvae-mnist-2d", "mlp-mnist", "iwae-paper-vae", "residual-mnist"):
        settings = recipes.get(name)
        vae = training.build(settings, contestants.IMAGE_SHAPE)
        watch = callbacks.LatentDiagnostics(whole[:DIAGNOSED])
        watch.set_model(vae)
        watch.on_train_begin()
        some = IMAGES["CVAE"] // 4 if name == "residual-mnist" else IMAGES["CVAE"]
        fit = functools.partial(vae.fit, whole[:some], batch_size=settings.batch_size, verbose=0)
        measure = functools.partial(watch.on_epoch_end, 0, {"kl": 1.0})
        clocks = {
            "fit": contestants.epoch_of(fit),
            "measure": functools.partial(contestants.seconds, measure),
        }
        best = best_of(clocks, repetitions)
        seconds = best["fit"] / some * len(whole) * settings.passes
        share = best["measure"] / (seconds + best["measure"])
        rows.append((name, f"{seconds:.1f}", f"{best['measure']:.3f}", f"{share:.2%}"))
    table(f"Diagnostics of {DIAGNOSED:,} images, {what}, best of {repetitions}", rows)


def start(repetitions: int) -> None:
    """Seconds and resident memory of fresh processes: import alone, and one round of training."""
    programs = {
        "import tensorflow, tensorflow_probability": "import tensorflow, tensorflow_probability",
        "import tfp_vae": "import tfp_vae",
    }
    folder = repr(str(pathlib.Path(__file__).parent))
    path = f"import sys; sys.path.insert(0, {folder}); "
    programs["import all contestants but PyTorch"] = path + "import contestants"
    for name, call in (
        ("a round of VAE.fit", "c.ours().fit(x, batch_size=100, verbose=0)"),
        ("a round of the plain loop", "c.PlainLoop(x, 100).epoch()"),
        ("a round of stock Keras 3", "c.stock_keras(x, 100)()"),
        ("a round of tfp.layers", "c.legacy_layers(x, 100)()"),
        *([("a round of PyTorch", "c.torch_eager(x, 100)()")] if TORCH else []),
    ):
        programs[name] = (
            f"{path}import contestants as c, numpy as np; "
            f"x = np.zeros((6000, 28, 28, 1), 'float32'); {call}"
        )
    memory = f"; {path}import streaming; print(streaming.highest_resident())"
    best = dict.fromkeys(programs, float("inf"))
    resident: dict[str, float] = {}
    for _ in range(repetitions):
        for name, program in programs.items():

            def run(program: str = program) -> None:
                command = [sys.executable, "-c", program + memory]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                used = float(said.split()[-1])
                resident[name] = max(resident.get(name, 0.0), used)  # noqa: B023, called at once

            best[name] = min(best[name], contestants.seconds(run))
    rows = [("fresh process", "seconds", "highest resident memory, MB")]
    rows += [(name, f"{s:.2f}", f"{resident[name] / 1e6:.0f}") for name, s in best.items()]
    table("Fresh processes (all but the first two import all contestants)", rows)


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
    table("Time to the ELBO of the tutorial's loop (MNIST, threshold 0.5, 2 latents)", rows)


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
    benchmarks = {
        function.__name__: function
        for function in (
            epoch,
            kernels,
            likelihood,
            manifold,
            sampling,
            scaling,
            diagnostics,
            start,
            recipe,
        )
    }
    parser.add_argument("benchmarks", nargs="*", choices=[*benchmarks, []], default=[])
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    versions = [
        f"TensorFlow {tf.__version__}",
        f"Keras {keras.__version__}",
        f"TFP {tfp.__version__}",
    ]
    if TORCH:
        import torch

        versions.append(f"PyTorch {torch.__version__}")
    print(
        f"{platform.machine()}, {len(tf.config.list_physical_devices('GPU'))} GPUs, "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )
    for name in arguments.benchmarks or benchmarks:
        benchmarks[name](arguments.repetitions)


if __name__ == "__main__":
    main()
