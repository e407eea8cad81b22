"""``tfp-vae explore``: a model on a page of this machine."""

import argparse
import importlib.util
import sys
import webbrowser

from tfp_vae.cli import commands


def explore(options: argparse.Namespace) -> None:
    if importlib.util.find_spec("bokeh") is None:
        raise ImportError(
            'explore: expected Bokeh to be installed, got none: pip install "tfp-vae[explore]".'
        )
    from tfp_vae import explorer
    from tfp_vae.explorer import server

    vae, run = commands._open(options)
    options.seed = run.recipe.seed if run else 0
    data, x = commands._test_images(options, run, vae)
    explored = explorer.Explored(
        vae,
        x[0] if vae.num_classes is not None else x,
        data.y_test,
        class_names=data.class_names,
        binarization=options.binarization,
        seed=options.seed,
        title=f"{run.recipe.name if run else options.model.name}, {data.name}",
        centred=data.name in ("mnist", "digits"),
    )

    def ready(url: str) -> None:
        commands.show({"url": url}, options.json)
        sys.stdout.flush()
        if not server.is_loopback(options.host):
            print("tfp-vae: note: other machines can reach this page.", file=sys.stderr)
        print("tfp-vae: Ctrl-C stops it.", file=sys.stderr)
        if not options.no_browser:
            webbrowser.open(url)

    server.serve(explored, options.host, options.port, ready)
