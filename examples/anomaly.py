"""Leave a class of digits out of training, and see whether a model finds it strange.

python examples/anomaly.py
python examples/anomaly.py --dataset mnist --classes 1 4 --epochs 5

For each class left out a small dense VAE is trained on binary images of the others. The score of a
test image is log p(x) by importance sampling (nats), low being strange. A table shows

    AUROC      how often an image of the class left out scores below one of the others
    two-sided  the same by the two-sided p-value, for which too high a log p(x) is strange as well
    found      the share of the class left out with a p-value of at most 0.05, and
    false      the same share of the others, which calibration holds at 0.05

The p-values come from test images of the other classes, half of which serve for calibration alone.
Images of another kind follow for the first of the models: inverted and shuffled digits, noise,
blank images, and any data set given by --others. Where the AUROC is below 0.5 the model finds them
MORE likely than digits (Nalisnick et al. 2019, arXiv:1810.09136): the score is blind to such ones.
"""

import argparse
import json
import pathlib
import sys

ALPHA = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="example: python examples/anomaly.py --classes 1 --epochs 1",
    )
    parser.add_argument("--dataset", default="mnist", help="with classes (default: mnist)")
    parser.add_argument("--data-dir", help="folder to look for the data sets in first")
    parser.add_argument("--classes", type=int, nargs="+", help="to leave out (default: each)")
    parser.add_argument("--others", help="a data set of the same shape, as images of another kind")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=500, help="scored of each kind, at most")
    parser.add_argument("--samples", type=int, default=50, help="importance samples (default: 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/anomaly"))
    args = parser.parse_args()

    import numpy as np

    from tfp_vae import datasets

    data = datasets.load(args.dataset, args.data_dir)
    print(f"data: {data.name}: {data.source}", flush=True)
    if data.y_train is None or data.y_test is None:
        raise ValueError(f"--dataset: expected images with classes, got {data.name} without.")
    classes = sorted(set(data.y_train.tolist()))
    if not set(args.classes or ()) <= set(classes):
        raise ValueError(f"--classes: expected some of {classes}, got {args.classes}.")
    args.out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    x_train, x_test = (datasets.binarize(x, "threshold") for x in (data.x_train, data.x_test))

    rows = []
    for left_out in args.classes or classes:
        print(f"\n=== without class {left_out}", flush=True)
        vae = trained(x_train[data.y_train != left_out], args)
        normal = x_test[data.y_test != left_out]
        normal = normal[np.random.default_rng(args.seed).permutation(len(normal))]
        normal = normal[: 2 * args.images]
        strange = {f"class {left_out}": x_test[data.y_test == left_out][: args.images]}
        if not rows:
            strange |= other_kinds(normal[: args.images], args)
        rows += compared(vae, normal, strange, left_out, args)
        (args.out / "anomaly.json").write_text(json.dumps(rows, indent=2) + "\n")
    heads = ("without", "strange", "images", "AUROC", "two-sided", "found", "false")
    print("\n" + "".join(f"{head:>21}" for head in heads))
    for row in rows:
        cells = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values())
        print("".join(f"{cell:>21}" for cell in cells))
    print(f"written to {(args.out / 'anomaly.json').resolve()}")


def trained(x, args: argparse.Namespace):
    """A small VAE of these images."""
    from tfp_vae import VAE, networks, priors

    # isort: split
    import keras

    keras.utils.set_random_seed(args.seed)
    prior, shape = priors.StandardNormal(16), x.shape[1:]
    encoder = networks.dense_encoder(shape, 16, units=(256,), prior=prior)
    decoder = networks.dense_decoder(shape, 16, units=(256,))
    vae = VAE(encoder, decoder, prior, seed=args.seed)
    vae.compile(keras.optimizers.Adam(2e-3))
    vae.fit(x, batch_size=200, epochs=args.epochs)
    return vae


def other_kinds(x, args: argparse.Namespace) -> dict:
    """Images that are no digits, made of digits `x` or of nothing."""
    import numpy as np

    from tfp_vae import datasets

    rng = np.random.default_rng(args.seed)
    places = rng.permutation(x[0].size)
    kinds = {
        "inverted": 1 - x,
        "shuffled": x.reshape(len(x), -1)[:, places].reshape(x.shape),
        "noise": rng.integers(0, 2, x.shape).astype("float32"),
        "blank": np.zeros_like(x),
    }
    if args.others:
        other = datasets.load(args.others, args.data_dir)
        if other.image_shape != x.shape[1:]:
            raise ValueError(f"--others: expected images {x.shape[1:]}, got {other.image_shape}.")
        kinds[other.name] = datasets.binarize(other.x_test[: args.images], "threshold")
    return kinds


def compared(vae, normal, strange: dict, left_out: int, args: argparse.Namespace) -> list[dict]:
    """A row for each kind of strange images. The first half of the normal ones calibrates."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from tfp_vae import evaluation

    calibration, fresh = np.array_split(normal, 2)
    everything = np.concatenate([fresh, *strange.values()])
    scores = evaluation.anomaly_scores(
        vae, everything, calibration, num_samples=args.samples, seed=args.seed
    )
    ends = np.cumsum([len(fresh), *map(len, strange.values())])[:-1]
    parts = (scores.log_likelihood, scores.p_value, scores.two_sided_p_value)
    (normal_log_p, *log_p), (normal_p, *p), (normal_both, *both) = (
        np.split(part, ends) for part in parts
    )
    rows = []
    for name, its_log_p, its_p, its_both in zip(strange, log_p, p, both, strict=True):
        labels = np.repeat([0, 1], [len(fresh), len(its_p)])

        def auroc(normal, its, labels=labels):
            return float(roc_auc_score(labels, -np.concatenate([normal, its])))

        rows.append(
            {
                "class left out": left_out,
                "strange": name,
                "images": len(its_p),
                "AUROC": auroc(normal_log_p, its_log_p),
                "AUROC, two-sided": auroc(normal_both, its_both),
                "found": float(np.mean(its_p <= ALPHA)),
                "false": float(np.mean(normal_p <= ALPHA)),
            }
        )
    return rows


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
