"""A run as a folder to share: the model, what it was made by and a card that says how good it is.

As the Hugging Face Hub shows it: ``README.md`` is the model card, whose front matter has the
figures in the form ``model-index`` (huggingface.co/docs/hub/model-cards). Nothing is uploaded.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

from tfp_vae import _files
from tfp_vae.training.folder import Run
from tfp_vae.training.models import RunError
from tfp_vae.training.pictures import file_names

_HUB_NAMES = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}
_PIXELS = {
    "threshold": "binarized at 0.5",
    "dynamic": "binarized by one Bernoulli draw of each pixel, fixed by a seed",
    "none": "grey in [0, 1]",
}


@dataclasses.dataclass(frozen=True)
class _Figure:
    """A figure with all without which it says nothing."""

    type: str
    name: str
    value: float
    error: float | None
    images: int
    how: str

    def row(self) -> str:
        error = "–" if self.error is None else f"{self.error:.2f}"
        name = self.name.replace("|", r"\|")  # which would end the cell
        return f"| {name} | {self.value:.2f} | {error} | {self.images:,} | {self.how} |"

    def text(self, pixels: str) -> str:
        error = "" if self.error is None else f", standard error {self.error:.2f}"
        return f"{self.name}: {self.images:,} test images {pixels}, {self.how}{error}"


def package(
    run: Run | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    license: str | None = None,
    report: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
    """A finished run as a folder for the Hugging Face Hub.

    ``model.keras`` (the best epoch), ``README.md`` (the model card), ``recipe.json``,
    ``metrics.json``, ``history.csv``, ``latent.csv`` and the run's last pictures. The figures are
    those that the run has, each with its images, their binarization, the number of draws and, where
    it is known, the standard error. Paths of this machine are left out.

    Args:
        run: a `Run`, or its folder.
        folder: to write; it appears whole or not at all.
        license: under which the model is shared, as the Hub names it, such as "apache-2.0". Left
            out by default: choose one before you upload.
        report: the folder of a report of this model, made by ``tfp-vae evaluate --report``: its
            figures are added.

    Returns:
        The folder.

    Raises:
        RunError: the run is not finished, its model is damaged, or a report that is none, or of
            another run, an earlier epoch or other data.
        FileExistsError: the folder is there and holds something.
        OSError: it cannot be written.
    """
    run = run if isinstance(run, Run) else Run(run)
    metrics = run.metrics()
    figures = _of_run(metrics, run.recipe.conditional)
    remarks = run.recipe.remarks()
    if report is not None:
        more, said = _of_report(run, pathlib.Path(report), run.recipe.conditional)
        figures, remarks = [*figures, *more], [*remarks, *said]
    run.load_model()  # what cannot be loaded is not to be shared
    folder = pathlib.Path(folder)
    with _files.whole_folder(folder) as whole:
        names = [name for name in file_names() if name.endswith((".png", ".gif", ".csv"))]
        for name in ("model.keras", *names):
            if (run.folder / name).is_file():
                shutil.copyfile(run.folder / name, whole / name)
        # Both can name a folder of the one who trained.
        recipe = {**run.recipe.to_dict(), "dataset": run.about["data"]["name"]}
        public = {name: value for name, value in metrics.items() if name != "source"}
        for name, content in (("recipe.json", recipe), ("metrics.json", public)):
            (whole / name).write_text(_files.json_text(content, 2) + "\n", encoding="utf-8")
        pictures = sorted(path.name for path in whole.iterdir() if path.suffix in (".png", ".gif"))
        card = _front_matter(run, figures, license) + _body(
            run, metrics, figures, remarks, pictures
        )
        (whole / "README.md").write_text(card, encoding="utf-8")
    return folder


# ---------------------------------------------------------------------- figures


def _of_run(metrics: dict[str, Any], conditional: bool) -> list[_Figure]:
    count, draws = metrics["test_images"], metrics.get("test_draws", 1)
    one = f"{'one draw' if draws == 1 else f'{draws} draws'} of z for each"
    figures = [
        _Figure(name, words, metrics[f"test_{name}"], None, count, one)
        for name, words in (
            ("elbo", "ELBO, nats"),
            ("reconstruction", "reconstruction, nats"),
            ("kl", "KL, nats"),
        )
    ]
    likelihood = _Figure(
        "log_likelihood",
        _likelihood(conditional),
        metrics["log_likelihood"],
        metrics["log_likelihood_standard_error"],
        metrics["log_likelihood_images"],
        f"{metrics['log_likelihood_importance_samples']} importance samples each",
    )
    return [*figures, likelihood]


def _of_report(run: Run, folder: pathlib.Path, conditional: bool) -> tuple[list[_Figure], Any]:
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        about, parts = report["about"], report["parts"]
        of = tuple(about.get(name) for name in ("run", "epoch", "dataset", "binarization"))
        elbo, weighted = (parts[name] for name in ("elbo_terms", "importance_sampling"))
        figures = [
            _Figure(
                "elbo", "ELBO, nats", *_estimate(elbo["result"]["mean_elbo"]), elbo["num_images"],
                f"{elbo['result']['num_samples']} draws of z for each, in the report",
            ),
            _Figure(
                "log_likelihood", _likelihood(conditional),
                *_estimate(weighted["result"]["mean_log_likelihood"]), weighted["num_images"],
                f"{weighted['result']['num_samples']} importance samples each, in the report",
            ),
        ]  # fmt: skip
        remarks = report["remarks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: expected the JSON of a report, got: {error!r}") from error
    expected = run.identity, run.best_epoch, run.about["data"]["name"], run.recipe.binarization
    if of != expected:
        _, epoch, *images = of
        whose = "this run" if of[0] == run.identity else "another run"
        raise RunError(
            f"{path}: expected a report of epoch {expected[1]} of this run, on {expected[2]}, "
            f"{expected[3]}, got one of epoch {epoch} of {whose}, on "
            f"{', '.join(map(str, images))}. Make it again: tfp-vae evaluate --report."
        )
    return figures, remarks


def _estimate(found: dict[str, Any]) -> tuple[float, float | None]:
    return float(found["mean"]), found["standard_error"]


def _likelihood(conditional: bool) -> str:
    return f"log p({'x|y' if conditional else 'x'}), nats"


# ---------------------------------------------------------------------- the card


def _front_matter(run: Run, figures: list[_Figure], license: str | None) -> str:
    """YAML of JSON values, which are YAML as well, so that nothing has to be escaped by hand."""
    name = run.about["data"]["name"]
    pixels = _PIXELS[run.recipe.binarization]
    result = {
        "task": {"type": "unconditional-image-generation"},
        "dataset": {"type": _HUB_NAMES.get(name, name), "name": name, "split": "test"},
        "metrics": [
            {"type": figure.type, "name": figure.text(pixels), "value": figure.value}
            for figure in figures
        ],
    }
    content: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["variational-autoencoder", "tensorflow-probability", "tfp_vae"],
        "model-index": [{"name": run.recipe.name, "results": [result]}],
    }
    if name in _HUB_NAMES:
        content["datasets"] = [_HUB_NAMES[name]]
    if license is not None:
        content["license"] = license
    lines = [f"{key}: {_files.json_text(value)}" for key, value in content.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _body(
    run: Run,
    metrics: dict[str, Any],
    figures: list[_Figure],
    remarks: list[str],
    pictures: list[str],
) -> str:
    recipe, data, versions = run.recipe, run.about["data"], run.about["versions"]
    shape = "×".join(map(str, data["image_shape"]))
    drawn = "vae.sample(16, seed=0, mean=True" + (", labels=0)" if recipe.conditional else ")")
    settings = {
        "data": f"{data['name']}, images of {shape}, {_PIXELS[recipe.binarization]}",
        "training images": f"{metrics['training_images']:,}, and "
        f"{metrics['validation_images']:,} held out to choose the epoch",
        "epochs": f"{metrics['epochs']}, the model is of number {metrics['best_epoch']}",
        "batch": recipe.batch_size,
        "optimizer": _files.json_text(dict(recipe.optimizer)),
        "objective": _files.json_text(dict(recipe.objective)),
        "seed": recipe.seed,
        "latent dimensions": recipe.latent_dim,
        "parameters": f"{metrics['parameters']:,}",
        "seconds of training": f"{metrics['seconds_of_training']:,.0f}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.summary.rstrip('.')}. A variational autoencoder whose encoder, decoder and prior "
        "are TensorFlow Probability distributions, on Keras 3.",
        "",
        "```python",
        "from tfp_vae import training",
        "",
        'vae = training.load_model("model.keras")  # inspects the file, which holds no code',
        f"images = {drawn}",
        "```",
        "",
        "## Figures",
        "",
        f"Of test images of {data['name']}, {_PIXELS[recipe.binarization]}, which nothing was "
        "chosen by. Figures of another treatment are not to be compared with these.",
        "",
        "| figure | value | standard error | images | how |",
        "|---|---|---|---|---|",
        *(figure.row() for figure in figures),
        "",
        *(line for remark in remarks for line in (remark, "")),
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()),
        "",
        "All settings are in `recipe.json`, the figures of each epoch in `history.csv`.",
        "",
        "## Limits",
        "",
        f"It knows {data['name']} alone: images of other kinds it encodes and scores without a "
        "warning, and what it generates is as one-sided as its training images.",
        "",
    ]
    for name in pictures:
        lines += [f"![{name.partition('.')[0].replace('_', ' ')}]({name})", ""]
    return "\n".join(lines)
