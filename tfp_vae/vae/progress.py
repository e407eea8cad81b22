"""Keras' progress bar, told the truth about the last batches of an epoch."""

from typing import Any

import keras


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' own bar, with the count held at the number of batches.

    With several steps for each return to Python, Keras counts whole executions: 940 of 938.
    """

    def _within(self, batch: int) -> int:
        return batch if self.target is None else min(batch, self.target - 1)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(self._within(batch), logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_test_batch_end(self._within(batch), logs)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_predict_batch_end(self._within(batch), logs)


def with_progress_bar(options: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `fit`, `evaluate` or `predict`, with the bar among the callbacks.

    It comes first, so that what other callbacks print at the end of an epoch begins a line; only
    leading ones that say ``adds_to_logs`` come before it, so that it shows what they add.
    """
    callbacks = options.get("callbacks")
    if options.get("verbose", "auto") == 0 or isinstance(callbacks, keras.callbacks.CallbackList):
        return options
    listed = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    present = [callback for callback in listed if callback is not None]
    if not any(isinstance(callback, keras.callbacks.ProgbarLogger) for callback in present):
        adding = [getattr(callback, "adds_to_logs", False) for callback in present]
        present.insert([*adding, False].index(False), ProgressBar())
    return {**options, "callbacks": present}
