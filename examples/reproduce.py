"""Train the recipes and write a table of their figures.

python examples/reproduce.py                                  # all that fit in an hour on two cores
python examples/reproduce.py cvae-mnist-2d ae-mnist --out runs/some

Each run is a folder below --out and is gone on with if it is there already, so this may be stopped
at any time. Recipes of Fashion-MNIST train on MNIST where Fashion-MNIST cannot be had, and the
table says so. Three things are written beside the runs: table.md and table.json; latent_probe.json,
how well classes can be told apart in the latent planes; autoencoder.png and autoencoder.json, a
plain autoencoder beside its VAE.
"""

import argparse
import json
import pathlib
import statistics
import sys

DEFAULT = (
    "cvae-mnist-2d",
    "mlp-fashion-2d",
    "ae-mnist",
    "vae-mnist",
    "mlp-mnist",
    "mlp-mnist-gaussian",
    "conv-fashion-2d",
    "cvae-mnist-50d",
    "cvae-mnist-2d-long",
)
# Left out: cvae-mnist-saved, which is cvae-mnist-50d to the last weight and differs in what is done
# with the model; cvae-mnist-512, hours on two cores; cvae-cifar10, for want of the data.


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="example: python examples/reproduce.py cvae-mnist-2d --out runs/reproduce",
    )
    parser.add_argument("recipes", nargs="*", default=DEFAULT, help=f"default: {' '.join(DEFAULT)}")
    parser.add_argument("--data-dir", help="folder to look for the data sets in first")
    parser.add_argument("--epochs", type=int, help="for a try: instead of each recipe's own")
    parser.add_argument("--dataset", help="for a try: instead of each recipe's own")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/reproduce"))
    args = parser.parse_args()

    from tfp_vae import datasets

    runs = {}
    for name in args.recipes:
        print(f"\n=== {name}", flush=True)
        runs[name] = trained(name, args)
        write_table(list(runs.values()), args.out)
    data = {run.about["data"]["dataset"]: None for run in runs.values()}
    for name in data:
        data[name] = datasets.load(name, args.data_dir)
    pair = [runs[name] for name in ("mlp-fashion-2d", "conv-fashion-2d") if name in runs]
    if len(pair) == 2:
        write_probe(pair, data, args.out)
    if "ae-mnist" in runs and "vae-mnist" in runs:
        compare_autoencoder(runs["ae-mnist"], runs["vae-mnist"], data, args.out)


def settings(name: str, args: argparse.Namespace):
    """The recipe, and its data where that can be had."""
    from tfp_vae import datasets, recipes

    if name == "vae-mnist":
        # The autoencoder's own VAE: the same network and epochs, with the KL in the loss.
        recipe = recipes.get("ae-mnist").replace(
            name="vae-mnist",
            summary="ae-mnist with KL weight 1",
            kl_weight=1.0,
            remark=recipes.get("mlp-mnist").remark,
        )
    else:
        recipe = recipes.get(name)
    changes = {"dataset": args.dataset} if args.dataset else {}
    if recipe.dataset == "fashion_mnist" and not args.dataset:
        try:
            datasets.load("fashion_mnist", args.data_dir)
        except datasets.DatasetError as error:
            print(f"NOTE: trained on MNIST instead. {error}", file=sys.stderr)
            changes["dataset"] = "mnist"
    if args.epochs:
        changes["epochs"] = args.epochs
    return recipe.replace(**changes)


def trained(name: str, args: argparse.Namespace):
    """The finished run: as it is found, gone on with, or new."""
    from tfp_vae import training

    folder, recipe = args.out / name, settings(name, args)
    if not (folder / "run.json").exists():
        return training.train(recipe, folder, data_dir=args.data_dir)
    run = training.Run(folder)
    if run.recipe.replace(epochs=recipe.epochs) != recipe:
        raise ValueError(f"{folder}: was trained with other settings. Give another --out.")
    try:
        if run.metrics()["epochs"] == recipe.epochs:
            return run
    except training.RunError:
        pass  # it was stopped
    return training.resume(folder, epochs=recipe.epochs, data_dir=args.data_dir)


# ---------------------------------------------------------------------- table


def write_table(runs: list, out: pathlib.Path) -> None:
    rows = []
    for run in runs:
        recipe, metrics = run.recipe, run.metrics()
        rows.append(
            {
                "recipe": recipe.name,
                "data": f"{metrics['dataset']}, {metrics['binarization']}",
                "latents": recipe.latent_dim,
                "batch": recipe.batch_size,
                "epochs": metrics["epochs"],
                "optimizer": " ".join(map(str, recipe.optimizer.values())),
                "test ELBO, last epoch": metrics["last_test_elbo"],
                "best epoch": metrics["best_epoch"],
                "test ELBO, best epoch": metrics["test_elbo"],
                "reconstruction": metrics["test_reconstruction"],
                "KL": metrics["test_kl"],
                "log p(x), 500 test images, 100 importance samples": metrics["log_likelihood"],
                "± standard error": metrics["log_likelihood_standard_error"],
                "seconds for an epoch (median)": statistics.median(run.history()["seconds"]),
                "parameters": metrics["parameters"],
            }
        )
    (out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        cells = [f"{v:,.2f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v
                 for v in row.values()]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


# ---------------------------------------------------------------------- comparisons


def posterior_means(vae, images):
    import numpy as np

    pieces = range(0, len(images), 1000)
    return np.concatenate([vae.encode(images[i : i + 1000]).mean().numpy() for i in pieces])


def write_probe(runs: list, data: dict, out: pathlib.Path) -> None:
    """Accuracy of two classifiers of the test images that see nothing but the posterior means."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    result = {}
    for run in runs:
        images = data[run.about["data"]["dataset"]]
        if images.y_test is None:
            continue
        vae = run.load_model()
        train, test = (posterior_means(vae, x) for x in (images.x_train, images.x_test))
        scores = {"data": images.name}
        for name, classifier in (
            ("5 nearest neighbours", KNeighborsClassifier(5)),
            ("logistic regression", LogisticRegression(max_iter=1000)),
        ):
            probe = make_pipeline(StandardScaler(), classifier).fit(train, images.y_train)
            scores[name] = float(probe.score(test, images.y_test))
        scores["standard error at most"] = 0.5 / len(test) ** 0.5
        result[run.recipe.name] = scores
        print(f"latent probe, {run.recipe.name}: {scores}", flush=True)
    (out / "latent_probe.json").write_text(json.dumps(result, indent=2) + "\n")


def compare_autoencoder(ae, vae, data: dict, out: pathlib.Path) -> None:
    """Both reconstruct; only the VAE's prior samples look like data."""
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    from tfp_vae import plotting

    images = data[ae.about["data"]["dataset"]]
    near = NearestNeighbors(n_neighbors=1).fit(flat(images.x_train[:10_000]))
    models = {"autoencoder": ae.load_model("last"), "VAE": vae.load_model("last")}
    result, rows, labels = {}, [images.x_test[:10]], ["test images"]
    for name, model in models.items():
        rebuilt = model.predict(images.x_test, 500, verbose=0)
        drawn = np.asarray(model.sample(1000, seed=0, mean=True))
        distances = near.kneighbors(flat(drawn))[0]
        result[name] = {
            "mean squared error of test reconstructions": float(
                np.mean((rebuilt - images.x_test) ** 2)
            ),
            "distance of prior samples to the nearest training image": float(distances.mean()),
            "its standard error": float(distances.std(ddof=1) / np.sqrt(len(distances))),
        }
        rows += [rebuilt[:10], drawn[:10]]
        labels += [f"{name}: reconstructions", f"{name}: prior samples"]
    distances = near.kneighbors(flat(images.x_test[:1000]))[0]
    result["test images"] = {
        "distance to the nearest training image": float(distances.mean()),
        "its standard error": float(distances.std(ddof=1) / np.sqrt(len(distances))),
    }
    (out / "autoencoder.json").write_text(json.dumps(result, indent=2) + "\n")
    figure = plotting.image_grid(np.concatenate(rows), len(rows), row_labels=labels)
    plotting.save(figure, out / "autoencoder.png")
    print(json.dumps(result, indent=2), flush=True)


def flat(images):
    return images.reshape(len(images), -1)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
