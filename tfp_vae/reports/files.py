"""The files of a report."""

import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from tfp_vae import _files, evaluation
from tfp_vae._version import __version__
from tfp_vae.reports.page import page
from tfp_vae.vae import VAE


def write_report(
    folder: str | os.PathLike[str],
    vae: VAE,
    x: Any,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: Any = None,
    *,
    title: str = "model",
    about: Mapping[str, Any] | None = None,
    verbose: Any = "auto",
) -> evaluation.Report:
    """Evaluate a model and write ``report.json`` and ``report.html`` into a folder.

    The page holds its pictures and needs no other file, no network and no script. Both files
    replace those of an earlier report; whatever else is in the folder stays as it is.

    Args:
        folder: is made where there is none.
        vae: the model.
        x: images, shape (B, height, width, channels).
        settings: as in `evaluation.full_report`, and so are `seed` and `verbose`.
        seed: of all draws.
        title: what the report is of.
        about: plain data on model and images that the report is to repeat, such as the name of
            the data set and the binarization.
        verbose: 0 for silence, 1 or "auto" for progress bars.

    Returns:
        What `evaluation.full_report` returned.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images or settings, or likelihoods that are not finite.
        OSError: the folder cannot be written to, which is tried first.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from tfp_vae import VAE, networks, priors, reports
        >>> prior = priors.StandardNormal(2)
        >>> encoder = networks.dense_encoder((4, 4, 1), 2, units=(8,), prior=prior)
        >>> vae = VAE(encoder, networks.dense_decoder((4, 4, 1), 2, units=(8,)), prior)
        >>> x = np.random.default_rng(0).integers(0, 2, (8, 4, 4, 1)).astype("float32")
        >>> quick = {"annealed_importance_sampling": {"num_steps": 2}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = reports.write_report(folder, vae, x, quick, seed=0, verbose=0)
        ...     sorted(path.name for path in pathlib.Path(folder).iterdir())
        ['report.html', 'report.json']
    """
    folder = pathlib.Path(folder)
    _check_writable(folder)
    report = evaluation.full_report(vae, x, settings, seed, verbose=verbose)
    about = {"title": title, **(about or {}), "tfp_vae": __version__}
    text = page(report, vae, x, about)
    for name, content in (
        ("report.json", _files.json_text({"about": about, **report.to_dict()}) + "\n"),
        ("report.html", text),
    ):
        with _files.whole_file(folder / name) as path:
            path.write_text(content, encoding="utf-8")
    return report


def _check_writable(folder: pathlib.Path) -> None:
    """Before minutes of work for nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{folder}: cannot be written: {error}") from error
