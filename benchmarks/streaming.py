"""Training on data larger than memory: speed beside arrays in memory, and resident growth.

    python benchmarks/streaming.py --gigabytes 2

Writes random images of MNIST's size and grey levels into TFRecord files in a temporary folder
(`datasets.write_records`), trains the CVAE of TensorFlow's tutorial on `datasets.stream`, and in
turns on `datasets.pipeline` of as many images in memory as a round takes. The speed is the best
round of each. The growth is that of the highest resident memory of another process, while a small
dense network sees every image once.
"""

import argparse
import contextlib
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import keras
import numpy as np

from tfp_vae import VAE, datasets, networks, priors

_SHAPE = (28, 28, 1)
_PIECE = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of pixels (default: 2)")
    parser.add_argument("--steps", type=int, default=300, help="of a round (default: 300)")
    parser.add_argument("--rounds", type=int, default=7, help="of each (default: 7)")
    parser.add_argument("--batch-size", type=int, default=100, help="default: 100")
    parser.add_argument("--whole-pass", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.whole_pass:
        print(json.dumps(whole_pass(args.whole_pass)))
        return
    count = int(args.gigabytes * 1e9 / np.prod(_SHAPE))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        datasets.write_records(folder, pieces(count))
        written = time.perf_counter() - start
        size = sum(path.stat().st_size for path in pathlib.Path(folder).iterdir())
        print(f"{count:,} images, {size / 1e9:.2f} GB, written in {written:.0f} s", file=sys.stderr)
        # A process that has neither written the records nor trained on arrays.
        command = [sys.executable, __file__, "--whole-pass", folder]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = compare(folder, args) | json.loads(said)
    result |= {"images": count, "gigabytes_on_disk": size / 1e9, "seconds_of_writing": written}
    print(json.dumps(result, indent=2))


def pieces(count: int) -> Iterator[np.ndarray]:
    """Random images, a fifth of whose pixels are not black."""
    generator = np.random.default_rng(0)
    for start in range(0, count, _PIECE):
        shape = (min(_PIECE, count - start), *_SHAPE)
        grey = generator.integers(0, 256, shape, dtype=np.uint8)
        yield np.where(generator.integers(0, 5, shape, dtype=np.uint8) == 0, grey, np.uint8(0))


def model() -> VAE:
    prior = priors.StandardNormal(2)
    vae = VAE(networks.conv_encoder(_SHAPE, 2, prior=prior), networks.conv_decoder(_SHAPE, 2))
    vae.compile(keras.optimizers.Adam(1e-4))
    return vae


def whole_pass(folder: str) -> dict[str, float]:
    """The growth of the resident memory over all images, which a small dense network sees once.

    From before there is any data: buffers count.
    """
    prior = priors.StandardNormal(2)
    vae = VAE(
        networks.dense_encoder(_SHAPE, 2, units=(20,), prior=prior),
        networks.dense_decoder(_SHAPE, 2, units=(20,)),
    )
    vae.compile(keras.optimizers.Adam(1e-4))
    few = np.zeros((500, *_SHAPE), "float32")
    vae.fit(datasets.pipeline(few, batch_size=500, binarization="threshold"), verbose=0)
    before = highest_resident()
    data = datasets.stream(folder, batch_size=500, binarization="threshold")
    spent = seconds(vae, data)
    return {
        "whole_pass_seconds": spent,
        "whole_pass_resident_growth_gigabytes": (highest_resident() - before) / 1e9,
    }


def compare(folder: str, args: argparse.Namespace) -> dict[str, float]:
    options = {"batch_size": args.batch_size, "binarization": "threshold"}
    streamed = datasets.stream(folder, **options).take(args.steps)
    vae = model()
    vae.fit(streamed.take(20), verbose=0)  # traces the step
    rounds: dict[str, list[float]] = {"stream": [], "memory": []}
    few = np.concatenate(list(pieces(args.steps * args.batch_size)))
    in_memory = datasets.pipeline(np.divide(few, 255, dtype=np.float32), **options)
    for i in range(args.rounds):
        rounds["memory"].append(seconds(vae, in_memory))
        rounds["stream"].append(seconds(vae, streamed))
        print(
            f"round {i + 1}/{args.rounds}", {k: v[-1] for k, v in rounds.items()}, file=sys.stderr
        )
    best = {name: min(values) for name, values in rounds.items()}
    images = args.steps * args.batch_size
    return {
        "images_per_second_streamed": images / best["stream"],
        "images_per_second_in_memory": images / best["memory"],
        "speed_of_stream_to_memory": best["memory"] / best["stream"],
    }


def seconds(vae: VAE, data: object) -> float:
    start = time.perf_counter()
    vae.fit(data, verbose=0)
    return time.perf_counter() - start


def highest_resident() -> int:
    """Bytes, since the process began.

    Not by Linux's `ru_maxrss`, which counts that of the process which started this one.
    """
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


if __name__ == "__main__":
    main()
