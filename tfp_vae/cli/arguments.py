"""What the command line may hold."""

import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tfp_vae import recipes
from tfp_vae._version import __version__
from tfp_vae.cli import commands, explore, sharing, studies

PICTURES = (*recipes.PICTURES, "history", "latent", "gif", "epoch")
FORMATS = ("tf_saved_model", "onnx", "litert")  # those of `VAE.export`
_DRAWN = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".pdf", ".svg")
_TABLES = (".csv", ".npz")


def parser() -> argparse.ArgumentParser:
    """That of ``tfp-vae``; what it gives has `run`, the function of the command."""
    whole = argparse.ArgumentParser(
        prog="tfp-vae",
        description="Variational autoencoders whose parts are TensorFlow Probability "
        "distributions, on Keras 3.",
        epilog="example: tfp-vae train cvae-mnist-2d --epochs 3 --out runs/first",
    )
    whole.add_argument("--version", action="version", version=f"tfp-vae {__version__}")
    group = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_setup(group)
    _add_use(group)
    _add_studies(group)
    _add_explore(group)
    _add_plot(group)
    _add_sharing(group)
    return whole


def _add_setup(group: Any) -> None:
    command = _command(
        group, "datasets", commands.datasets,
        "list the data sets and where each would be loaded from",
        "tfp-vae datasets --data-dir ~/data",
    )  # fmt: skip
    command.add_argument("--data-dir", help="folder to look in first")

    _command(group, "recipes", commands.recipes, "list the recipes", "tfp-vae recipes --json")

    command = _command(
        group, "train", commands.train, "train a recipe into a new folder, or continue a run",
        "tfp-vae train cvae-mnist-2d --epochs 3 --set optimizer.learning_rate=1e-3 --out runs/a; "
        "tfp-vae train --resume runs/a --epochs 10",
    )  # fmt: skip
    command.add_argument("recipe", nargs="?", help="see tfp-vae recipes")
    command.add_argument("--resume", type=pathlib.Path, metavar="RUN", help="continue this run")
    command.add_argument(
        "--dataset",
        help="mnist, fashion_mnist, cifar10, digits, auto, tfds:NAME, or a path to .npz, .npy or a "
        "folder of images (default: the recipe's)",
    )
    command.add_argument("--data-dir", help="folder to look for the data set in first")
    command.add_argument(
        "--epochs",
        type=_positive,
        help="epochs in total, each of the recipe's `passes` over the images (default: the "
        "recipe's)",
    )
    command.add_argument(
        "--batch-size", type=_positive, help="for all workers together (default: the recipe's)"
    )
    command.add_argument("--seed", type=_seed, help="default: the recipe's")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, its value as JSON: latent_dim=5, encoder.units=[200], "
        "decoder.likelihood=normal. Can be repeated",
    )
    command.add_argument("--out", type=pathlib.Path, help="new folder (default: runs/RECIPE)")
    command.add_argument(
        "--quiet",
        action="store_true",
        help="no progress bar, no lines except notes and the result",
    )
    command.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard logs to logs/ of the run"
    )
    command.add_argument(
        "--threads", type=_positive,
        help="threads of each operation: 1 is faster for small dense networks (default: all cores)",
    )  # fmt: skip
    _add_strategy(command)


def _add_use(group: Any) -> None:
    command = _command(
        group, "evaluate", commands.evaluate, "compute ELBO and log-likelihood of test images",
        "tfp-vae evaluate runs/a --images 500 --samples 500 --json",
    )  # fmt: skip
    _add_model(command)
    _add_data(command)
    _add_images(command, "number of test images, from the first on (default: all)")
    _add_samples(command)
    _add_seed(command)
    command.add_argument(
        "--report",
        type=pathlib.Path,
        metavar="FOLDER",
        help="also write the other evaluations with pictures: FOLDER/report.html and report.json. "
        "For cvae-mnist-2d this took 4 minutes of CPU time",
    )
    command.add_argument(
        "--strategy",
        choices=("multiworker",),
        help="divide the images between the processes listed in the environment variable TF_CONFIG",
    )
    command.add_argument(
        "--quick", action="store_true", help="with --report: use fewer images in the slow parts"
    )

    command = _command(
        group, "sample", commands.sample, "draw new images from the prior",
        "tfp-vae sample runs/a -n 64 --seed 1 --out samples.png",
    )  # fmt: skip
    _add_model(command)
    command.add_argument("-n", type=_positive, default=16, help="number of images (default: 16)")
    _add_seed(command)
    command.add_argument(
        "--label", type=_seed, help="class, for a conditional model (default: all in turn)"
    )
    command.add_argument(
        "--draw",
        action="store_true",
        help="draws of p(x|z) instead of its means, which are smoother",
    )
    _add_out(command, "samples.png")

    command = _command(
        group, "reconstruct", commands.reconstruct, "encode and decode test images",
        "tfp-vae reconstruct runs/a --images 20 --out reconstructions.png",
    )  # fmt: skip
    _add_model(command)
    _add_data(command)
    _add_images(command, "number of test images, from the first on (default: 10)")
    _add_seed(command, "seed of dynamic binarization; a run has its own")
    _add_out(command, "reconstructions.png")

    command = _command(
        group, "encode", commands.encode, "write mean and scale of q(z|x) for test images",
        "tfp-vae encode runs/a --out encoded.csv",
    )  # fmt: skip
    _add_model(command)
    _add_data(command)
    _add_images(command, "number of test images, from the first on (default: all)")
    _add_seed(command, "seed of dynamic binarization; a run has its own")
    _add_out(command, "encoded.csv", ".csv or .npz", _TABLES)

    command = _command(
        group, "interpolate", commands.interpolate, "interpolate between two test images",
        "tfp-vae interpolate runs/a --from 0 --to 7 --steps 12 --out between.png",
    )  # fmt: skip
    _add_model(command)
    _add_data(command)
    command.add_argument(
        "--from", type=_seed, default=0, dest="start", help="number of the image (default: 0)"
    )
    command.add_argument(
        "--to", type=_seed, default=1, dest="end", help="number of the image (default: 1)"
    )
    command.add_argument(
        "--steps", type=_positive, default=10, help="number of images (default: 10)"
    )
    _add_seed(command, "seed of dynamic binarization; a run has its own")
    _add_label(command, "class of both images, which are numbered among those of this class")
    _add_out(command, "interpolation.png")


def _add_studies(group: Any) -> None:
    command = _command(
        group, "impute", studies.impute, "hide pixels of test images and let the model impute them",
        "tfp-vae impute runs/a --mask random:0.8 --images 20 --out imputed.png",
    )  # fmt: skip
    _add_model(command)
    _add_data(command)
    command.add_argument(
        "--mask",
        default="bottom",
        help="what to hide: left, right, top, bottom, or random:FRACTION (default: %(default)s)",
    )
    _add_images(command, "number of test images, from the first on (default: 50)")
    command.add_argument(
        "--samples",
        type=_positive,
        default=8,
        help="chains for each image (default: 8); the picture shows four others",
    )
    command.add_argument(
        "--steps", type=_positive, default=200, help="steps of each chain (default: 200)"
    )
    command.add_argument(
        "--method",
        choices=("metropolis", "metropolis-within-gibbs", "pseudo-gibbs"),
        default="metropolis",
        help="see help(tfp_vae.VAE.impute) (default: metropolis)",
    )
    _add_label(command, "of the test images, those of this class")
    _add_seed(command)
    _add_out(command, "imputed.png", "a picture, or .npy for one draw of each image as an array")

    command = _command(
        group, "anomaly", studies.anomaly,
        "compute log p(x) of test images, with p-values from the images that a run held out",
        "tfp-vae anomaly runs/a --dataset other.npz --out anomaly.csv",
    )  # fmt: skip
    _add_model(command, "folder of a run")
    _add_data(command, files=False)
    _add_images(command, "number of images, from the first on (default: all of a file "
                "without test images, else 500)")  # fmt: skip
    _add_samples(command)
    _add_seed(command)
    text = ".csv or .npz; a picture of the least likely images is written next to it"
    _add_out(command, "anomaly.csv", text, _TABLES)


def _add_explore(group: Any) -> None:
    command = _command(
        group, "explore", explore.explore,
        "explore the latent space, and your own images, on a page of this machine",
        "tfp-vae explore runs/a --port 8000",
    )  # fmt: skip
    _add_model(command)
    _add_data(command)
    command.add_argument(
        "--port", type=_port, default=5006, help="0 for any free port (default: %(default)s)"
    )
    command.add_argument(
        "--host",
        type=_host,
        default="127.0.0.1",
        help="address to listen on; any address but this machine's loopback lets other machines "
        "in, and 0.0.0.0 listens on all addresses (default: %(default)s)",
    )
    _add_seed(command, "seed of dynamic binarization; a run has its own")
    command.add_argument("--no-browser", action="store_true", help="only print the address")


def _add_plot(group: Any) -> None:
    command = _command(
        group, "plot", commands.plot, "draw a run or a saved model",
        "tfp-vae plot manifold runs/a --out manifold.png; "
        "tfp-vae plot epoch runs/a --epoch 3 --out third.png",
    )  # fmt: skip
    command.add_argument("picture", choices=PICTURES, help="the last four are for runs only")
    _add_model(command)
    _add_data(command)
    command.add_argument(
        "--epoch", type=_seed, help="for epoch: its number; 0 is the untrained model"
    )
    command.add_argument("--seed", type=_seed, default=0, help="seed of the samples (default: 0)")
    command.add_argument(
        "--out",
        type=_name_in(*_DRAWN, ".gif"),
        help="file to write (default: by the name of the picture)",
    )


def _add_sharing(group: Any) -> None:
    command = _command(
        group, "export", sharing.export,
        "export a model for programs that have neither this package nor Keras",
        "tfp-vae export runs/a exported --format onnx",
    )  # fmt: skip
    _add_model(command)
    _add_folder(command)
    command.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="a TensorFlow SavedModel, or encoder and decoder as ONNX or LiteRT files "
        "(default: %(default)s)",
    )

    command = _command(
        group, "package", sharing.package,
        "package a run as a folder to share on the Hugging Face Hub, with a model card",
        "tfp-vae package runs/a shared --license apache-2.0",
    )  # fmt: skip
    _add_model(command, "folder of a run")
    _add_folder(command)
    command.add_argument("--license", help="the license, as the Hub spells it (default: none)")
    command.add_argument(
        "--report",
        type=pathlib.Path,
        metavar="FOLDER",
        help="add the figures of a report of this run, written by tfp-vae evaluate --report",
    )


def _command(group: Any, name: str, run: Any, text: str, example: str) -> Any:
    command = group.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example: {example}",
    )
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return command


def _add_model(
    command: argparse.ArgumentParser, text: str = "folder of a run, or a .keras file"
) -> None:
    command.add_argument("model", type=pathlib.Path, metavar="RUN", help=text)


def _add_data(command: argparse.ArgumentParser, files: bool = True) -> None:
    """`files`: whether the command also takes a .keras file, which has no data of its own."""
    mnist, threshold = (
        f"; {default} for a .keras file" if files else "" for default in ("mnist", "threshold")
    )
    command.add_argument(
        "--dataset",
        help=f"a name, or a path to .npz, .npy or a folder of images (default: the run's{mnist})",
    )
    command.add_argument("--data-dir", help="folder to look for the data set in first")
    command.add_argument(
        "--binarization",
        choices=recipes.CHOICES["binarization"],
        help="threshold at 0.5, one Bernoulli draw fixed by the seed, or pixels as they are "
        f"(default: the run's{threshold})",
    )


def _add_strategy(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--strategy",
        choices=("mirrored", "multiworker"),
        help="divide each batch between all GPUs of this process, or between the processes listed "
        "in the environment variable TF_CONFIG: see docs/distributed.md",
    )


def _add_images(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--images", type=_positive, help=text)


def _add_label(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--label", type=_seed, help=f"for a conditional model: {what}")


def _add_samples(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--samples",
        type=_positive,
        default=100,
        help="importance samples for each image (default: 100)",
    )


def _add_seed(command: argparse.ArgumentParser, what: str = "seed of the draws") -> None:
    command.add_argument("--seed", type=_seed, default=0, help=f"{what} (default: 0)")


def _add_out(
    command: argparse.ArgumentParser,
    default: str,
    text: str = "a picture, or .npy for the pixels as an array",
    suffixes: Sequence[str] = (*_DRAWN, ".npy"),
) -> None:
    command.add_argument(
        "--out", type=_name_in(*suffixes), default=default, help=f"{text} (default: %(default)s)"
    )


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=pathlib.Path, metavar="DIR", help="new folder")


def _name_in(*suffixes: str) -> Callable[[str], pathlib.Path]:
    """The name of a file that can be written: asked before the work, not after it."""

    def name(text: str) -> pathlib.Path:
        path = pathlib.Path(text)
        if path.suffix not in suffixes:
            raise argparse.ArgumentTypeError(
                f"expected a name in {', '.join(suffixes[:-1])} or {suffixes[-1]}, got "
                f"{path.name!r}"
            )
        return path

    return name


def _host(text: str) -> str:
    if not text.strip():  # which sockets take for all addresses
        raise argparse.ArgumentTypeError("expected an address or a name, got an empty one")
    return text


def _port(text: str) -> int:
    number = _integer(text, 0)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"expected a port up to 65535, got {text}")
    return number


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
