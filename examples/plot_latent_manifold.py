"""Draw the 2-D latent space of a saved model as a grid of decoded images.

python examples/plot_latent_manifold.py model.keras --n 20 --out manifold.png
"""

import argparse
import pathlib
import sys
import zipfile


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Draw the latent manifold of a saved VAE with 2 latent dimensions: the means "
        "of p(x|z) on a grid at the prior's quantiles.",
        epilog="example: python examples/plot_latent_manifold.py model.keras --n 15 --out grid.pdf",
    )
    parser.add_argument("model", type=pathlib.Path, help="a file written by VAE.save, .keras")
    parser.add_argument("--n", type=int, default=20, help="cells on each side (default: 20)")
    parser.add_argument(
        "--low", type=float, default=0.05, help="lowest quantile's probability (default: 0.05)"
    )
    parser.add_argument(
        "--high", type=float, default=0.95, help="highest quantile's probability (default: 0.95)"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("manifold.png"),
        help="picture to write; its ending says the format (default: manifold.png)",
    )
    arguments = parser.parse_args()
    try:
        if not arguments.model.is_file():
            raise FileNotFoundError(f"{arguments.model}: there is no such file.")
        if not zipfile.is_zipfile(arguments.model):
            raise ValueError(
                f"{arguments.model}: expected a .keras file, got a damaged or other one."
            )
        draw(arguments)
    except (OSError, TypeError, ValueError) as error:
        # Keras' messages go on over several lines; the first says what is wrong.
        sys.exit(f"error: {str(error).splitlines()[0]}")


def draw(arguments: argparse.Namespace) -> None:
    # TensorFlow takes seconds to import; --help and a wrong path are answered at once.
    import keras

    import tfp_vae
    from tfp_vae import plotting

    vae = keras.saving.load_model(arguments.model)
    if not isinstance(vae, tfp_vae.VAE):
        raise TypeError(
            f"{arguments.model}: expected a tfp_vae.VAE, got a model of the class "
            f"{type(vae).__name__}."
        )
    figure = plotting.latent_manifold(vae, arguments.n, low=arguments.low, high=arguments.high)
    print(f"Wrote {plotting.save(figure, arguments.out)}")


if __name__ == "__main__":
    main()
