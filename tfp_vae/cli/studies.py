"""The commands that try what a model is for: hidden pixels, and images of another kind."""

import argparse
import dataclasses
from typing import Any

from tfp_vae import _files
from tfp_vae.cli.commands import (
    UsageError,
    at_most,
    messages,
    of_label,
    open_with_images,
    say,
    show,
)

_SHOWN = 10  # images in a picture


def impute(options: argparse.Namespace) -> None:
    from tfp_vae import evaluation, plotting

    try:  # of the largest images, before anything is opened
        evaluation.observed_mask(options.mask, (1, 1024, 1024, 1), options.seed)
    except ValueError as error:
        raise UsageError(f"--mask: {error}") from error
    opened = open_with_images(options)
    vae = of_label(opened.vae, options.label)
    test = opened.of_label(options.label)
    x = test[: at_most(options.images, test) or 50]
    mask = evaluation.observed_mask(options.mask, x.shape, options.seed)
    chains = {"num_steps": options.steps, "seed": options.seed}
    with messages():
        errors = evaluation.imputation_errors(
            vae,
            x,
            mask,
            opened.train,
            methods=[options.method],
            num_samples=options.samples,
            **chains,
        )
    chains["method"] = options.method
    if options.out.suffix == ".npy":
        _save(options.out, "save", vae.impute(x, mask, verbose=0, **chains).samples[0])
    else:
        shown, hidden = x[:_SHOWN], mask[:_SHOWN]
        draws = vae.impute(shown, hidden, 4, verbose=0, **chains)
        others = {
            "neighbours": evaluation.fill_with_neighbours(shown, hidden, opened.train),
            "training mean": evaluation.fill_with_mean(shown, hidden, opened.train),
        }
        title = f"{opened.data.name}: hidden pixels ({options.mask}) drawn given the others"
        figure = plotting.imputations(shown, hidden, draws, others=others, title=title)
        plotting.save(figure, options.out)
    result = {
        "dataset": opened.data.name,
        "images": len(x),
        "training_images": len(opened.train),
        "binarization": opened.binarization,
        "mask": options.mask,
        "chains": options.samples,
        "steps": options.steps,
        "seed": options.seed,
    }
    for name, found in errors.items():
        means = {"squared_error": found.mean_squared_error, "log_score": found.mean_log_score}
        for kind, mean in means.items():
            if mean is not None:
                key = f"{name.replace(' ', '_').replace('-', '_')}_{kind}"
                result |= {key: mean.mean, f"{key}_standard_error": mean.standard_error}
    show({**result, "written": str(options.out)}, options.json)


def anomaly(options: argparse.Namespace) -> None:
    import numpy as np

    from tfp_vae import datasets, evaluation, plotting

    if options.model.is_file():
        raise ValueError(
            f"{options.model}: expected the folder of a run, whose validation images say how "
            "likely normal images are, got a file."
        )
    other, options.dataset = options.dataset, None
    opened = open_with_images(options)
    assert opened.held_out is not None  # of a run
    data, x, most = opened.data, opened.test, 500
    if other is not None and datasets.locate(other) == opened.run.about["data"]["dataset"]:
        other = None  # of its own images those that it has never seen
    if other is not None:
        with messages():
            data = datasets.load(other, options.data_dir, test_fraction=0)
        if not len(data.x_test):  # a file or folder without a test set: all of it, in its order
            data = dataclasses.replace(data, x_test=data.x_train, y_test=data.y_train)
            most = len(data.x_test)
        x = datasets.binarize(data.x_test, opened.binarization, seed=options.seed)
        say(data)
    x = x[: at_most(options.images, x) or most]
    calibration = opened.held_out
    with messages():
        found = evaluation.anomaly_scores(
            opened.vae,
            opened.inputs(x, data),
            opened.held_out_inputs(),
            num_samples=options.samples,
            seed=options.seed,
        )
    columns = {"image": np.arange(len(x)), **vars(found)}
    if data.y_test is not None:
        columns["label"] = data.y_test[: len(x)]
    if options.out.suffix == ".npz":
        _save(options.out, "savez", **columns)
    else:
        table, header = np.column_stack(list(columns.values())), ",".join(columns)
        _save(options.out, "savetxt", table, "%.9g", ",", header=header, comments="")
    strangest = np.argsort(found.log_likelihood, kind="stable")[:_SHOWN]
    picture = options.out.with_suffix(".png")
    figure = plotting.image_grid(
        x[strangest],
        rows=1,
        title=f"{data.name}: the least likely of {len(x)} images, and their p-values",
        column_labels=[f"{p:.3f}" for p in found.p_value[strangest]],
    )
    plotting.save(figure, picture)
    mean = evaluation.Estimate.of(found.log_likelihood)
    result = {
        "dataset": data.name,
        "images": len(x),
        "binarization": opened.binarization,
        "calibrated_with": "validation images of the run, which it did not train on",
        "calibration_images": len(calibration),
        "importance_samples": options.samples,
        "seed": options.seed,
        "log_likelihood": mean.mean,
        "log_likelihood_standard_error": mean.standard_error,
        "share_with_p_value_up_to_0.05": float(np.mean(found.p_value <= 0.05)),
        "share_with_two_sided_p_value_up_to_0.05": float(np.mean(found.two_sided_p_value <= 0.05)),
        "written": f"{options.out}, {picture}",
    }
    show(result, options.json)


def _save(path: Any, how: str, *arguments: Any, **options: Any) -> None:
    """By one of NumPy's functions, whole or not at all."""
    import numpy as np

    with _files.whole_file(path) as temporary:
        getattr(np, how)(temporary, *arguments, **options)
