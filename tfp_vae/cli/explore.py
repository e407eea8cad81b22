"""``tfp-vae explore``: a model on a page of this machine."""

import argparse
import importlib.util
import sys
import threading
import webbrowser

from tfp_vae.cli import commands


def explore(options: argparse.Namespace) -> None:
    if importlib.util.find_spec("bokeh") is None:
        raise ImportError(
            'explore: expected Bokeh to be installed, got none: pip install "bokeh>=3.8.2".'
        )
    from tfp_vae import explorer
    from tfp_vae.explorer import server

    server.check_address(options.host, options.port)
    opened = commands.open_with_images(options)
    vae, run, data = opened.vae, opened.run, opened.data
    opened.test_inputs()  # refuses a conditional model whose images have no labels
    explored = explorer.Explored(
        vae,
        opened.test,
        data.y_test,
        class_names=data.class_names,
        binarization=opened.binarization,
        seed=opened.seed,
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
            # Some browsers return when they are closed: the page has to answer meanwhile.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    server.serve(explored, options.host, options.port, ready)
