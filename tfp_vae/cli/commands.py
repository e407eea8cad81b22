"""What each command does: call the package, print. Heavy imports wait until they are needed."""

import argparse
import contextlib
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable
from typing import Any

from tfp_vae import _files
from tfp_vae.cli import interrupts


class UsageError(Exception):
    """A command line that makes no sense."""


def messages() -> contextlib.AbstractContextManager[Any]:
    """What is printed meanwhile, progress bars above all, is no result of the command."""
    return contextlib.redirect_stdout(sys.stderr)


def show(result: dict[str, Any], as_json: bool) -> None:
    """The result of a command on standard output."""
    if as_json:
        print(_files.json_text(result))
    else:
        width = max(map(len, result))
        print("\n".join(f"{key:<{width}}  {value}" for key, value in result.items()))


# ---------------------------------------------------------------------- data, recipes, training


def datasets(options: argparse.Namespace) -> None:
    from tfp_vae import datasets

    places = datasets.available(options.data_dir)
    show({k: v or "not here: would be downloaded" for k, v in places.items()}, options.json)


def recipes(options: argparse.Namespace) -> None:
    from tfp_vae.recipes import RECIPES

    if options.json:
        print(json.dumps({name: recipe.to_dict() for name, recipe in RECIPES.items()}))
    else:
        show({name: recipe.summary for name, recipe in RECIPES.items()}, False)


def train(options: argparse.Namespace) -> None:
    from tfp_vae import training
    from tfp_vae.recipes import RecipeError, get
    from tfp_vae.training import workers

    if (options.recipe is None) == (options.resume is None):
        raise UsageError("train: expected either a recipe or --resume RUN. See tfp-vae recipes.")
    shared: dict[str, Any] = {
        "data_dir": options.data_dir,
        "verbose": 0 if options.quiet else 1,
        "tensorboard": options.tensorboard,
    }
    _use_threads(options.threads)
    shared["strategy"] = _strategy(options)
    try:
        changes = _changes(options)
        with messages(), _kept(options):
            if options.resume is not None:
                moved = _check_agrees(training.Run(options.resume), changes, options)
                epochs = changes.get("epochs")
                run = training.resume(options.resume, epochs=epochs, dataset=moved, **shared)
            else:
                recipe = get(options.recipe).replace(**changes)
                options.out = options.out or pathlib.Path("runs") / recipe.name
                run = training.train(recipe, options.out, **shared)
    except RecipeError as error:
        raise UsageError(str(error)) from error
    if workers.Team(shared["strategy"]).chief:
        show({"run": str(run.folder), **run.metrics()}, options.json)


def _use_threads(number: int | None) -> None:
    """So many for each operation, which TensorFlow must be told before it has computed anything."""
    import tensorflow as tf

    if number is not None:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(number)
        except RuntimeError as error:
            raise UsageError(f"--threads {number}: TensorFlow is at work already.") from error


def _strategy(options: argparse.Namespace) -> Any:
    """That of ``--strategy``, made before TensorFlow has computed anything; `None` without it."""
    from tfp_vae.training import workers

    if options.strategy is None:
        return None
    try:
        strategy = workers.named(options.strategy)
    except workers.ClusterError as error:
        raise UsageError(f"--strategy {options.strategy}: {error}") from error
    if not workers.Team(strategy).chief:
        print("tfp-vae: a worker of several: the chief writes and prints.", file=sys.stderr)
    return strategy


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    """The settings given on the command line."""
    changes: dict[str, Any] = {}
    for setting in options.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set: expected NAME=VALUE, got {setting!r}.")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value  # a word needs no quotes
    for name in ("dataset", "epochs", "batch_size", "seed"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    return changes


def _check_agrees(run: Any, changes: dict[str, Any], options: argparse.Namespace) -> Any:
    """Refuse settings that contradict a run; more epochs are no contradiction.

    Gives the file of the images, if they are said to lie in another one now; else `None`.
    """
    from tfp_vae import datasets

    if options.out is not None:
        raise UsageError("--out: a resumed run stays in its folder; leave it out.")
    wanted = run.recipe.replace(**changes).to_dict()  # refuses what is no setting
    has = run.recipe.to_dict()
    before = run.about["data"]["dataset"]
    # Where none is given it is that of the run, wherever this is called from.
    now = datasets.locate(wanted["dataset"]) if "dataset" in changes else before
    moved = "dataset" in changes and before != now and all(map(os.path.isabs, (before, now)))
    if before == now or moved:
        wanted["dataset"] = has["dataset"]  # the same, spelt in another way
    for name in has:
        if name not in ("epochs", "summary") and wanted[name] != has[name]:
            raise UsageError(
                f"--resume: {run.folder} was trained with {name} = {has[name]}, got "
                f"{wanted[name]}. Leave it out, or train into a new folder."
            )
    return now if moved else None


@contextlib.contextmanager
def _kept(options: argparse.Namespace) -> Any:
    """After Ctrl-C: say what is kept and how to go on."""
    try:
        with interrupts.blamed():
            yield
    except KeyboardInterrupt:
        interrupts.heard()
        folder = options.resume or options.out
        if folder is not None and (folder / "run.json").exists():
            print(
                f"\nEvery finished epoch is kept in {folder}; the one that had begun will be done "
                f"again. Go on with: tfp-vae train --resume {shlex.quote(str(folder))}",
                file=sys.stderr,
            )
        raise


# ---------------------------------------------------------------------- a trained model


def model_of(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model, and its run where a folder was given."""
    from tfp_vae import training

    if options.model.is_dir():
        run = training.Run(options.model)
        return run.load_model(), run
    return training.load_model(options.model), None


def open_with_images(options: argparse.Namespace) -> Any:
    """The model with its images, whose source is said."""
    from tfp_vae import training

    with messages():
        opened = training.open_model(
            options.model,
            dataset=options.dataset,
            binarization=options.binarization,
            data_dir=options.data_dir,
            seed=getattr(options, "seed", 0),
        )
    say(opened.data)
    return opened


def say(data: Any) -> None:
    print(f"data: {data.name}: {data.source}", file=sys.stderr)


def at_most(count: int | None, images: Any) -> int | None:
    """`count` of ``--images``, if there are so many."""
    if count is not None and count > len(images):
        raise ValueError(f"--images: expected at most the {len(images)} there are, got {count}.")
    return count


def of_label(vae: Any, label: int | None) -> Any:
    """The model of ``--label``, which a conditional one needs and no other has."""
    if (label is None) != (vae.num_classes is None):
        got = "none" if label is None else label
        expected = "no class" if vae.num_classes is None else f"one of {vae.num_classes} classes"
        raise ValueError(f"--label: expected {expected} of this model, got {got}.")
    return vae if label is None else vae.for_label(label)


def evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    from tfp_vae import evaluation, reports
    from tfp_vae.training import workers

    if options.quick and options.report is None:
        raise UsageError("evaluate: --quick goes with --report FOLDER.")
    if options.strategy is not None and options.report is not None:
        raise UsageError("evaluate: --strategy goes without --report, which one process writes.")
    strategy = _strategy(options)
    team = workers.Team(strategy)
    opened = open_with_images(options)
    vae, run, data = opened.vae, opened.run, opened.data
    x = opened.test_inputs(at_most(options.images, opened.test))
    verbose = int(not options.json and team.chief)
    settings = {
        **(evaluation.QUICK if options.quick else {}),
        "importance_sampling": {"num_samples": options.samples},
    }
    watched = team.watched(options.model, "Start all of them again.")
    with messages(), team.scope(), watched:
        if options.report is None:
            elbo = evaluation.elbo_terms(vae, x, seed=options.seed, verbose=0)
            found = evaluation.importance_sampling(
                vae, x, options.samples, options.seed, verbose=verbose
            )
        else:
            report = reports.write_report(
                options.report, vae, x, settings, options.seed,
                title=run.recipe.name if run else options.model.name,
                about={
                    "model": str(options.model),
                    **({"run": run.identity, "epoch": run.best_epoch} if run else {}),
                    "dataset": data.name,
                    "source": data.source,
                    "binarization": opened.binarization,
                },
                verbose=verbose,
            )  # fmt: skip
            elbo = report.parts["elbo_terms"].result
            found = report.parts["importance_sampling"].result
    result = {
        "dataset": data.name,
        "images": len(found.log_likelihood),
        "binarization": opened.binarization,
        "seed": options.seed,
        "elbo": elbo.mean_elbo.mean,
        "elbo_standard_error": elbo.mean_elbo.standard_error,
        "elbo_draws": elbo.num_samples,
        "log_likelihood": found.mean_log_likelihood.mean,
        "log_likelihood_standard_error": found.mean_log_likelihood.standard_error,
        "importance_samples": options.samples,
        "monte_carlo_error": found.monte_carlo_error,
        "median_effective_sample_size": float(np.median(found.effective_sample_size)),
        "share_of_images_with_reliable_pareto_k": found.reliable,
        "bits_per_dimension": found.mean_bits_per_dimension.mean,
    }
    if options.report is not None:
        result["report"] = str(options.report / "report.html")
    if team.chief:
        show(result, options.json)


def sample(options: argparse.Namespace) -> None:
    import numpy as np

    from tfp_vae import plotting

    vae, _ = model_of(options)
    labels = options.label
    if labels is None and vae.num_classes is not None:
        labels = np.arange(options.n) % vae.num_classes

    def images() -> Any:
        return vae.sample(options.n, seed=options.seed, mean=not options.draw, labels=labels)

    _write_images(options, options.n, images, lambda: plotting.image_grid(np.asarray(images())))


def reconstruct(options: argparse.Namespace) -> None:
    import numpy as np

    from tfp_vae import _support, plotting

    opened = open_with_images(options)
    vae, x = opened.vae, opened.test_inputs(at_most(options.images, opened.test) or 10)
    count = _support.count(x)

    def images() -> Any:
        return np.concatenate([vae.reconstruct(some) for _, some in _support.pieces(x, 1000)])

    _write_images(options, count, images, lambda: plotting.reconstructions(vae, x, count))


def interpolate(options: argparse.Namespace) -> None:
    from tfp_vae import plotting

    opened = open_with_images(options)
    vae, x = of_label(opened.vae, options.label), opened.of_label(options.label)
    for name, index in (("--from", options.start), ("--to", options.end)):
        if index >= len(x):
            raise ValueError(f"{name}: expected an image below {len(x)}, got {index}.")
    ends = x[options.start], x[options.end], options.steps
    _write_images(
        options,
        options.steps,
        lambda: vae.interpolate(*ends),
        lambda: plotting.interpolation(vae, *ends),
    )


def _write_images(
    options: argparse.Namespace, count: int, images: Callable[[], Any], figure: Callable[[], Any]
) -> None:
    """The images as an array, or the figure of them: what the name of the file asks for."""
    import numpy as np

    from tfp_vae import plotting

    if options.out.suffix == ".npy":
        with _files.whole_file(options.out) as path:
            np.save(path, np.asarray(images()))
    else:
        plotting.save(figure(), options.out)
    show({"written": str(options.out), "images": count}, options.json)


def encode(options: argparse.Namespace) -> None:
    import numpy as np

    from tfp_vae import _support

    opened = open_with_images(options)
    vae, data = opened.vae, opened.data
    x = opened.test_inputs(at_most(options.images, opened.test))
    count = _support.count(x)
    posteriors = [vae.encode(some) for _, some in _support.pieces(x, 1000)]
    mean = np.concatenate([posterior.mean() for posterior in posteriors])
    scale = np.concatenate([posterior.stddev() for posterior in posteriors])
    labels = None if data.y_test is None else data.y_test[:count]
    with _files.whole_file(options.out) as path:
        if path.suffix == ".npz":
            extra = {} if labels is None else {"label": labels}
            np.savez(path, mean=mean, stddev=scale, **extra)
        else:
            names = [f"{kind}_{i}" for kind in ("mean", "stddev") for i in range(mean.shape[1])]
            columns = np.concatenate([mean, scale], 1)
            if labels is not None:
                names, columns = ["label", *names], np.column_stack([labels, columns])
            header, formats = ",".join(names), ["%.9g"] * len(names)
            np.savetxt(path, columns, formats, ",", header=header, comments="")
    show({"written": str(options.out), "images": count, "latents": mean.shape[1]}, options.json)


def plot(options: argparse.Namespace) -> None:
    from tfp_vae import plotting, training
    from tfp_vae.training import pictures

    if (options.picture == "epoch") != (options.epoch is not None):
        raise UsageError("plot: --epoch N goes with the picture epoch, and the other way round.")
    for name in ("dataset", "data_dir", "binarization"):
        if getattr(options, name) is not None and options.picture not in pictures.OF_IMAGES:
            raise UsageError(
                f"--{name.replace('_', '-')}: expected none for {options.picture}, which is drawn "
                "without test images."
            )
    only = {"gif": ".gif", "epoch": ".png"}.get(options.picture)
    suffix = options.out and options.out.suffix
    if suffix and ((only and suffix != only) or (not only and suffix == ".gif")):
        wanted = f"a name in {only}" if only else "the name of a picture that stands still"
        raise UsageError(f"--out: expected {wanted} for {options.picture}, got {suffix}.")
    if options.picture in ("history", "latent", "gif", "epoch"):
        if not options.model.is_dir():
            raise ValueError(f"{options.model}: {options.picture} needs the folder of a run.")
        path = _plot_run(options, training.Run(options.model))
    else:
        path = plotting.save(_figure(options), options.out or f"{options.picture}.png")
    show({"written": str(path)}, options.json)


def _title(run: Any, data: Any) -> str:
    """As in the pictures that a run makes itself."""
    if run is None:
        return "" if data is None else data.name
    return f"{run.recipe.name}, {run.about['data']['name'] if data is None else data.name}"


def _plot_run(options: argparse.Namespace, run: Any) -> pathlib.Path:
    from tfp_vae import plotting
    from tfp_vae.training import pictures

    if options.picture == "history":
        figure = plotting.history(run.history(), title=_title(run, None))
        return plotting.save(figure, options.out or "history.png")
    if options.picture == "latent":
        figure = pictures.draw_latent(run.latent(), _title(run, None))
        return plotting.save(figure, options.out or "latent.png")
    if options.picture == "gif":
        if not run.pictures():
            raise ValueError(
                f"{run.folder / 'pictures'}: expected the pictures of the epochs, got none."
            )
        return plotting.training_gif(run.pictures(), options.out or "training.gif")
    out = options.out or pathlib.Path(f"epoch-{options.epoch:04d}.png")
    content = run.picture(options.epoch).read_bytes()
    with _files.whole_file(out) as path:
        path.write_bytes(content)
    return out


def _figure(options: argparse.Namespace) -> Any:
    from tfp_vae.training import pictures

    data = x = None
    if options.picture not in pictures.OF_IMAGES:
        vae, run = model_of(options)
    else:
        opened = open_with_images(options)
        vae, run, data, x = opened.vae, opened.run, opened.data, opened.test_inputs()
    return pictures.draw(
        options.picture,
        vae,
        data,
        x,
        title=_title(run, data),
        cells=run.recipe.manifold_cells if run else 20,
        class_names=run.class_names if run else None,
        seed=options.seed,
    )
