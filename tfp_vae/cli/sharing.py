"""The commands that make of a run what others take."""

import argparse

from tfp_vae.cli.commands import model_of, show


def export(options: argparse.Namespace) -> None:
    vae, _ = model_of(options)
    folder = vae.export(options.folder, options.format)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    show({"written": str(folder), "format": options.format, "files": files}, options.json)


def package(options: argparse.Namespace) -> None:
    from tfp_vae import training

    folder = training.package(
        options.model, options.folder, license=options.license, report=options.report
    )
    show({"written": str(folder)}, options.json)
