"""How fast a run trains, while it does."""

import time
from typing import Any

from tfp_vae.vae.progress import ProgressBar


class SpeedBar(ProgressBar):
    """The progress bar with images per second."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        rate = (self._within(batch) + 1) * self.batch_size / (time.perf_counter() - self._start)
        super().on_train_batch_end(batch, {**(logs or {}), "images/s": rate})
