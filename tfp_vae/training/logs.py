"""What TensorBoard is shown of a run."""

from typing import Any

import tensorflow as tf

from tfp_vae import _support, callbacks, datasets
from tfp_vae.callbacks import projector
from tfp_vae.training.folder import Run
from tfp_vae.vae import VAE

_LATENT_IMAGES = 1000


class Logs:
    """The figures and the picture of each epoch, at the end the latent space.

    Args:
        run: in whose ``logs`` they are.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.folder = run.folder / "logs"
        self._events = callbacks.EventWriter(self.folder)

    def figures(self, row: dict[str, float]) -> None:
        """A row of ``history.csv``; steps begin at 0, as in Keras' own logs."""
        for name, value in row.items():
            self._events.scalar(name, value, int(row["epoch"]) - 1)
        self._events.flush()

    def picture(self, epoch: int) -> None:
        """The picture of an epoch; its step is the number in the file's name, 0 the untrained."""
        pixels = tf.io.decode_png(self.run.picture(epoch).read_bytes())
        self._events.images("pictures", pixels[tf.newaxis], epoch)
        self._events.flush()

    def latent_space(self, vae: VAE, data: datasets.ImageData, x_test: Any) -> None:
        """The first test images, as many as fit, for the projector."""
        first = slice(min(_LATENT_IMAGES, projector.most_images(data.image_shape)))
        labels = None if data.y_test is None else data.y_test[first]
        callbacks.write_projector(
            self.folder,
            vae,
            _support.take(x_test, first),
            labels,
            class_names=data.class_names,
        )
