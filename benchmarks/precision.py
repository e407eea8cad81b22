"""bfloat16 against float32: what it costs in nats, and what it gains in time.

python benchmarks/precision.py                 # about six minutes on two cores
python benchmarks/precision.py --epochs 2 --seeds 0 1 2

A recipe is trained under both of Keras' policies from the same weights, and the test ELBO of each
is estimated with the same seeds. The float32 model's weights are also looked at in bfloat16, where
no other path of training blurs the difference; of several seeds the differences are averaged. Then
epochs of training take turns, and the best of each are compared. Needs MNIST (TFP_VAE_DATA_DIR).
"""

import argparse
import functools
import tempfile

import contestants
import numpy as np
import speed

from tfp_vae import VAE, datasets, recipes, training

POLICIES = ("float32", "mixed_bfloat16")


def trained(recipe: recipes.Recipe) -> VAE:
    with tempfile.TemporaryDirectory() as folder:
        training.train(recipe, folder, verbose=0)
        return training.Run(folder).load_model()


def mean_of(values: np.ndarray) -> str:
    return f"{values.mean():+.3f} ± {values.std(ddof=1) / len(values) ** 0.5:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="cvae-mnist-2d")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draws", type=int, default=10, help="of each test image")
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    data = datasets.load("mnist", download=False)
    x_test = datasets.binarize(data.x_test, "threshold")
    header = ("seed", *(f"trained in {policy}" for policy in POLICIES), "less that of float32",
              "the float32 weights in bfloat16, less that")  # fmt: skip
    rows, differences = [header], []
    for seed in options.seeds:
        changes = {"epochs": options.epochs, "passes": 1, "seed": seed}
        recipe = recipes.get(options.recipe).replace(**changes)
        models = {policy: trained(recipe.replace(dtype_policy=policy)) for policy in POLICIES}
        other = recipe.replace(dtype_policy=POLICIES[1])
        in_bfloat16 = training.build(other, contestants.IMAGE_SHAPE)
        in_bfloat16.set_weights(models["float32"].get_weights())
        exact, rough, rounded = (
            np.asarray(vae.elbo(x_test, num_samples=options.draws, seed=0))
            for vae in (*models.values(), in_bfloat16)
        )
        means = [f"{values.mean():.3f}" for values in (exact, rough)]
        rows.append((str(seed), *means, mean_of(rough - exact), mean_of(rounded - exact)))
        print(" | ".join(rows[-1]), flush=True)  # each takes minutes
        differences.append((rough - exact).mean())
    if len(differences) > 1:
        rows.append(("all", "", "", mean_of(np.array(differences)), ""))
    title = f"{options.recipe}, {options.epochs} epochs, threshold 0.5; test ELBO in nats, "
    speed.table(f"{title}{options.draws} draws for each of {len(x_test):,} test images", rows)

    x = datasets.binarize(data.x_train[: speed.IMAGES["CVAE"]], "threshold")
    rows = [("recipe", "float32, images/s", "mixed_bfloat16, images/s", "ratio")]
    for name in (options.recipe, "iwae-paper-vae"):
        clocks = {}
        for policy in POLICIES:
            recipe = recipes.get(name).replace(dtype_policy=policy)
            vae = training.build(recipe, contestants.IMAGE_SHAPE)
            fit = functools.partial(vae.fit, x, batch_size=100, verbose=0)
            clocks[policy] = contestants.epoch_of(fit)
        best = speed.best_of(clocks, options.repetitions)
        rates = [len(x) / best[policy] for policy in POLICIES]
        rows.append((name, *(f"{rate:,.0f}" for rate in rates), f"{rates[1] / rates[0]:.2f}"))
    speed.table(
        f"Training, epochs of {len(x):,} images, batches of 100, best of {options.repetitions}",
        rows,
    )


if __name__ == "__main__":
    main()
