"""Hide pixels of test images and let a trained model find them: a table, and a picture of each.

python examples/imputation.py runs/cvae-mnist-2d
python examples/imputation.py model.keras --dataset mnist --binarization threshold

Half of each image is hidden, then 80% of the pixels at random places. Five ways to fill them in are
compared by the squared error of the mean and, where images are binary, by the logarithm of the
probability that each hidden pixel's true value was given, in nats:

    metropolis                chains whose law is the model's p(hidden | seen)
    metropolis-within-gibbs   the same law, by the encoder's proposals alone
    pseudo-gibbs              encoding and decoding in turn, refusing nothing
    nearest neighbours        the mean of the 10 training images nearest by what is seen
    training mean             the mean of all training images

A run folder knows its data. The first test images are taken.
"""

import argparse
import json
import pathlib
import sys

METHODS = ("metropolis", "metropolis-within-gibbs", "pseudo-gibbs")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="example: python examples/imputation.py runs/cvae-mnist-2d --images 50",
    )
    parser.add_argument("model", type=pathlib.Path, help="a run folder, or a .keras file")
    parser.add_argument("--dataset", help="default: the run's; mnist for a .keras file")
    parser.add_argument("--binarization", help="default: the run's; threshold for a .keras file")
    parser.add_argument("--data-dir", help="folder to look for the data set in first")
    parser.add_argument("--hidden", nargs="+", default=["bottom", "random:0.8"],
                        help="left, right, top, bottom, or random:FRACTION")  # fmt: skip
    parser.add_argument("--images", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--samples", type=int, default=8, help="chains for each (default: 8)")
    parser.add_argument("--steps", type=int, default=200, help="of each chain (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/imputation"))
    args = parser.parse_args()

    from tfp_vae import evaluation, training

    if args.images < 1:
        raise ValueError(f"--images: expected an integer of at least 1, got {args.images}.")
    opened = training.open_model(
        args.model, dataset=args.dataset, binarization=args.binarization, data_dir=args.data_dir,
        seed=args.seed,
    )  # fmt: skip
    vae, x_train, x = opened.vae, opened.train, opened.test[: args.images]
    print(f"data: {opened.data.name}: {opened.data.source}; binarization: {opened.binarization}")
    args.out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    rows = []
    for hidden in args.hidden:
        print(f"\n=== hidden: {hidden}", flush=True)
        mask = evaluation.observed_mask(hidden, x.shape, args.seed)
        errors = evaluation.imputation_errors(
            vae, x, mask, x_train, methods=METHODS, num_samples=args.samples,
            num_steps=args.steps, seed=args.seed,
        )  # fmt: skip
        rows += [row(hidden, name, error) for name, error in errors.items()]
        draw(vae, x_train, x[:10], mask[:10], hidden, args)
    (args.out / "imputation.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\n{len(x)} test images, {args.samples} chains of {args.steps} steps for each")
    print(f"{'hidden':12}{'imputed by':26}{'squared error':>20}{'log score, nats':>20}")
    for one in rows:
        cells = "".join(f"{text(one[key]):>20}" for key in ("squared error", "log score"))
        print(f"{one['hidden']:12}{one['imputed by']:26}{cells}")
    print(f"written to {args.out.resolve()}: imputation.json and a picture for each mask")


def row(hidden: str, name: str, error) -> dict:
    """Means over the images, each with its standard error."""
    found = {"hidden": hidden, "imputed by": name, "images": len(error.squared_error)}
    means = {"squared error": error.mean_squared_error, "log score": error.mean_log_score}
    return found | {key: mean and mean.to_dict() for key, mean in means.items()}


def text(cell: dict | None) -> str:
    if cell is None:
        return "-"
    error = cell["standard_error"]
    return f"{cell['mean']:.4f}" + ("" if error is None else f" ± {error:.4f}")


def draw(vae, x_train, x, mask, hidden: str, args: argparse.Namespace) -> None:
    from tfp_vae import evaluation, plotting

    found = vae.impute(x, mask, 4, num_steps=args.steps, seed=args.seed, verbose=0)
    others = {
        "neighbours": evaluation.fill_with_neighbours(x, mask, x_train),
        "training mean": evaluation.fill_with_mean(x, mask, x_train),
    }
    title = f"Hidden pixels ({hidden}) drawn given the others"
    figure = plotting.imputations(x, mask, found, others=others, title=title)
    plotting.save(figure, args.out / f"{hidden.replace(':', '-')}.png")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
