"""Writes the run of this version that later versions must read: python tests/golden/make.py

Once for each format of a release. The files of a release are never made anew.
"""

import pathlib
import shutil

import numpy as np

from tfp_vae import __version__, recipes, training

HERE = pathlib.Path(__file__).parent

RECIPE = recipes.get("iwae-paper-vae").replace(
    dataset="digits",
    latent_dim=2,
    encoder={
        "network": "layered_encoder",
        "body": [
            {"layer": "Conv2D", "filters": 2, "kernel_size": 3, "strides": 4},
            {"layer": "BatchNormalization"},
        ],
    },
    decoder={"network": "dense_decoder", "units": [4]},
    prior={"name": "GaussianMixture", "num_components": 3},
    objective={"name": "IWAE", "num_samples": 2, "kl_weight": {"name": "LinearWarmUp", "steps": 9}},
    use_exact_kl=False,
    batch_size=100,
    epochs=2,
    passes=1,
    validation_images=100,
    pictures=[],
)


def main() -> None:
    folder = HERE / f"run-{__version__}"
    run = training.train(RECIPE, folder, verbose=0)
    for path in folder.rglob("*"):
        if path.suffix in (".png", ".gif", ".lock"):  # nothing reads them
            path.unlink()
    shutil.rmtree(folder / "pictures", ignore_errors=True)
    opened = training.open_model(folder)
    x = opened.test[:4]
    posterior = opened.vae.encode(x)
    np.savez(
        folder / "expected.npz",
        x=np.packbits(x.astype(bool)),
        mean=posterior.mean(),
        stddev=posterior.stddev(),
        reconstruction=opened.vae.predict(x, verbose=0)[:, ::4, ::4],
        elbo=opened.vae.elbo(x, seed=0),
        log_likelihood=opened.vae.log_likelihood(x, 7, seed=0, verbose=0),
    )
    print(run.metrics(), sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


if __name__ == "__main__":
    main()
