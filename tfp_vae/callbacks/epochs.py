"""A report of each epoch: a line, the seconds, the pictures."""

import os
import pathlib
import time
from typing import Any

import keras
import numpy as np

from tfp_vae.callbacks.events import EventWriter

__all__ = ["EpochReport", "EpochTimer", "ImageRecorder"]


class EpochTimer(keras.callbacks.Callback):
    """Keeps the training time of each epoch in `seconds`.

    Only the training steps count, not the validation that follows them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._start = 0.0
        self._trained = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()
        self._trained = 0.0

    def on_test_begin(self, logs: Any = None) -> None:
        # Keras validates inside the epoch: what comes from here on is no training.
        self._trained = self._trained or time.perf_counter() - self._start

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.seconds.append(self._trained or time.perf_counter() - self._start)


class EpochReport(EpochTimer):
    """Prints one line after each epoch: the ELBO in nats and the seconds of training.

    The ELBO is that of the validation data if ``fit`` was given any.

    Args:
        total: number of epochs, for "epoch 2/10"; `None` leaves it out.
        validation_name: what to call these data: "test" if they are the test images.
    """

    def __init__(self, total: int | None = None, validation_name: str = "validation") -> None:
        super().__init__()
        self.total, self.validation_name = total, validation_name

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        logs = logs or {}
        number = f"{epoch + 1}/{self.total}" if self.total else f"{epoch + 1}"
        validated = "val_elbo" in logs
        name, prefix = (self.validation_name, "val_") if validated else ("training", "")
        elbo, kl = logs.get(f"{prefix}elbo", np.nan), logs.get(f"{prefix}kl", np.nan)
        print(
            f"epoch {number}: {name} ELBO {elbo:.2f} nats (KL {kl:.2f}), "
            f"{self.seconds[-1]:.1f} s of training",
            flush=True,
        )


class ImageRecorder(keras.callbacks.Callback):
    """Decodes the same latent vectors, or reconstructs the same images, before training and after
    each epoch.

    The pictures are kept in `frames`: arrays of shape (n, height, width, channels) that hold the
    means of ``p(x|z)``. The first one is of the untrained model.

    Args:
        latents: latent vectors, shape (n, d), to decode, or
        images: images, shape (n, height, width, channels), to encode, draw from the posterior once,
            and decode. For a conditional model either is a pair with labels.
        seed: integer seed of those posterior draws.
        log_dir: folder for TensorBoard; the pictures are also written to ``pictures`` in it, with
            the untrained model as step 0. `None` writes nothing.

    Raises:
        ValueError: both or neither were given.
    """

    def __init__(
        self,
        latents: Any = None,
        *,
        images: Any = None,
        seed: int = 0,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if (latents is None) == (images is None):
            raise ValueError(
                f"ImageRecorder: expected either latents or images, got "
                f"{'none' if latents is None else 'both'}."
            )
        self.latents = latents
        self.images = images
        self.seed = seed
        self.frames: list[np.ndarray] = []
        self._events = None if log_dir is None else EventWriter(pathlib.Path(log_dir) / "pictures")

    def _record(self) -> None:
        if self.images is not None:
            means = self.model.reconstruct(self.images, seed=self.seed, sample=True)
        else:
            means = self.model.decode(self.latents).mean()
        if self._events:
            self._events.images("pictures", means, len(self.frames))
            self._events.flush()
        self.frames.append(np.asarray(means))

    def on_train_begin(self, logs: Any = None) -> None:
        if not self.frames:
            self._record()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._record()
