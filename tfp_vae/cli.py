"""The ``tfp-vae`` command: parse, call, print.

TensorFlow is imported by the commands that need it, so that ``--help`` answers at once. Results go
to standard output, messages to standard error. Exit codes: 0, 1 for what went wrong while working,
2 for a command line that makes no sense.
"""

import argparse
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

from tfp_vae._version import __version__

__all__ = ["main"]

_PICTURES = ("manifold", "scatter", "reconstructions", "samples")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    # TensorFlow's remarks on the processor are for those who build it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        # Before anything imports Keras: it refuses another backend than TensorFlow.
        from tfp_vae import _support  # noqa: F401

        options.run(options)
    except (ImportError, OSError, TypeError, ValueError) as error:
        # Keras' messages go on over several lines; the first says what is wrong.
        said = str(error) or type(error).__name__
        print(f"tfp-vae: error: {said.splitlines()[0]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfp-vae",
        description="Variational autoencoders whose parts are TensorFlow Probability "
        "distributions, on Keras 3.",
        epilog="To train one: python examples/train_mnist.py",
    )
    parser.add_argument("--version", action="version", version=f"tfp-vae {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = _command(
        commands, "datasets", _datasets, "list the data sets and where they would be taken from",
        "tfp-vae datasets --data-dir ~/data",
    )  # fmt: skip
    command.add_argument("--data-dir", help="folder to look in first")

    command = _command(
        commands, "evaluate", _evaluate, "ELBO and log-likelihood of test images under a model",
        "tfp-vae evaluate model.keras --dataset mnist --images 500 --samples 500 --json",
    )  # fmt: skip
    _add_model(command)
    _add_data(command)
    command.add_argument(
        "--images", type=_positive, help="the first so many test images (default: all)"
    )
    command.add_argument(
        "--samples",
        type=_positive,
        default=100,
        help="importance samples for each image (default: 100)",
    )
    command.add_argument("--seed", type=_seed, default=0, help="of the draws (default: 0)")

    command = _command(
        commands, "plot", _plot, "draw a saved model",
        "tfp-vae plot manifold model.keras --out manifold.png",
    )  # fmt: skip
    command.add_argument("picture", choices=_PICTURES)
    _add_model(command)
    _add_data(command, "for scatter and reconstructions: ")
    command.add_argument("--out", type=pathlib.Path, help="file to write (default: PICTURE.png)")
    command.add_argument("--seed", type=_seed, default=0, help="of the samples (default: 0)")
    return parser


def _integer(text: str, lowest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if number < lowest:
        raise argparse.ArgumentTypeError(f"expected an integer of at least {lowest}, got {text}")
    return number


def _positive(text: str) -> int:
    return _integer(text, 1)


def _seed(text: str) -> int:
    return _integer(text, 0)


def _command(commands: Any, name: str, run: Any, text: str, example: str) -> Any:
    command = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example: {example}",
    )
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return command


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=pathlib.Path, help="file written by VAE.save, .keras")


def _add_data(command: argparse.ArgumentParser, what_for: str = "") -> None:
    command.add_argument(
        "--dataset",
        default="mnist",
        help=f"{what_for}mnist, fashion_mnist, cifar10, digits, or a path to .npz, .npy or a "
        "folder of images (default: mnist)",
    )
    command.add_argument("--data-dir", help="folder to look for the data set in first")
    command.add_argument(
        "--binarization",
        choices=("threshold", "dynamic", "none"),
        default="threshold",
        help="threshold at 0.5, one Bernoulli draw fixed by --seed, or grey as it is "
        "(default: threshold)",
    )


def _load_model(path: pathlib.Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if not zipfile.is_zipfile(path):  # Keras would say that there is no such file
        raise ValueError(f"{path}: expected a .keras file, got a damaged or other one.")
    import keras

    from tfp_vae import networks  # noqa: F401 - Keras finds the layers of a file by their import
    from tfp_vae.vae import VAE

    model = keras.saving.load_model(path)
    if not isinstance(model, VAE):
        raise TypeError(f"{path}: expected a tfp_vae.VAE, got a {type(model).__name__}.")
    return model


def _test_images(options: argparse.Namespace) -> tuple[Any, Any]:
    from tfp_vae import datasets

    data = datasets.load(options.dataset, options.data_dir)
    print(f"data: {data.name}: {data.source}", file=sys.stderr)
    return data, datasets.binarize(data.x_test, options.binarization, seed=options.seed)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        print("\n".join(f"{key:<{width}}  {value}" for key, value in result.items()))


def _datasets(options: argparse.Namespace) -> None:
    from tfp_vae import datasets

    places = datasets.available(options.data_dir)
    _print({k: v or "not here: would be downloaded" for k, v in places.items()}, options.json)


def _evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    vae = _load_model(options.model)
    data, x = _test_images(options)
    if options.images and options.images > len(x):
        raise ValueError(
            f"--images: expected at most the {len(x)} there are, got {options.images}."
        )
    x = x[: options.images]
    elbo = np.asarray(vae.elbo(x, seed=options.seed))
    log_likelihood = np.asarray(
        vae.log_likelihood(
            x, num_samples=options.samples, seed=options.seed, verbose=int(not options.json)
        )
    )
    result = {
        "dataset": data.name,
        "images": len(x),
        "binarization": options.binarization,
        "importance_samples": options.samples,
        "seed": options.seed,
    }
    for name, values in (("elbo", elbo), ("log_likelihood", log_likelihood)):
        result[name] = float(values.mean())
        several = len(values) > 1
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if several else None
        result[f"{name}_standard_error"] = error
    _print(result, options.json)


def _plot(options: argparse.Namespace) -> None:
    from tfp_vae import plotting

    vae = _load_model(options.model)
    if options.picture == "manifold":
        figure = plotting.latent_manifold(vae)
    elif options.picture == "samples":
        figure = plotting.samples(vae, seed=options.seed)
    else:
        data, x = _test_images(options)
        if options.picture == "reconstructions":
            figure = plotting.reconstructions(vae, x)
        elif data.y_test is None:
            raise ValueError(f"scatter: expected images with labels, got none in {data.name}.")
        else:
            figure = plotting.latent_scatter(vae, x, data.y_test, class_names=data.class_names)
    path = plotting.save(figure, options.out or pathlib.Path(f"{options.picture}.png"))
    _print({"written": str(path)}, options.json)


if __name__ == "__main__":
    sys.exit(main())
