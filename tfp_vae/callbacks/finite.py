"""Ends a training whose figures are no longer finite."""

from typing import Any

import keras
import numpy as np

from tfp_vae import _support

__all__ = ["NonFiniteError", "StopAtNonFinite"]


class NonFiniteError(ValueError):
    """The figures of a training are no longer finite.

    Attributes:
        epoch: number of the epoch, from 1.
        batches: numbers, from 1, of the first and the last batch between which it happened; `None`
            at the end of the epoch, in validation.
        what: the figure, such as "loss nan".
    """

    def __init__(
        self, epoch: int, batches: tuple[int, int] | None, what: str, more: str = ""
    ) -> None:
        self.epoch, self.batches, self.what = epoch, batches, what
        which = ""
        if batches is not None:
            first, last = batches
            which = f", batch {first}" if first == last else f", batches {first} to {last}"
        super().__init__(f"epoch {epoch}{which}: expected a finite {what}.{more}")


class StopAtNonFinite(keras.callbacks.Callback):
    """Stops ``fit`` with an error when the loss or another log is NaN or infinite.

    Unlike `keras.callbacks.TerminateOnNaN` it checks all logs, including those of validation, and
    after each epoch the weights, whose NaN need not show in the logs. It does not end silently: the
    error names the epoch, the batches and the layers whose weights are no longer finite. Of the
    batches it reads only what Keras brings to Python anyway, once for each execution
    (`VAE.compile`); with ``steps_per_execution=1`` it names the exact batch. A run of
    `tfp_vae.training` uses it and repeats those batches to find the batch and the layer where it
    began.

    Raises:
        NonFiniteError: in ``fit``.

    Example:
        >>> import numpy as np
        >>> from tfp_vae import VAE, callbacks, networks, priors
        >>> prior = priors.StandardNormal(2)
        >>> encoder = networks.dense_encoder((4, 4, 1), latent_dim=2, units=(4,), prior=prior)
        >>> vae = VAE(encoder, networks.dense_decoder((4, 4, 1), latent_dim=2, units=(4,)), prior)
        >>> vae.compile(keras.optimizers.SGD(1e30))
        >>> x = np.eye(16, dtype="float32").reshape(16, 4, 4, 1)
        >>> stop = callbacks.StopAtNonFinite()
        >>> vae.fit(x, batch_size=4, verbose=0, callbacks=[stop])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        tfp_vae.callbacks.finite.NonFiniteError: epoch 1, batches 1 to 4: expected a finite ...
    """

    async_safe = True  # Keras may call it beside the next steps: it keeps nothing between calls

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        for name, value in (logs or {}).items():
            if not np.isfinite(value).all():
                # `batch` is the last one of an execution, and counts whole executions, also where
                # the last one had fewer batches.
                together = self.model.steps_per_execution
                first = batch - batch % together
                last = min(first + together, self.params.get("steps") or first + together)
                raise NonFiniteError(
                    self._epoch,
                    (first + 1, last),
                    f"{name}, got {float(np.ravel(value)[0])}",
                    spoiled(self.model),
                )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # Those of the batches were looked at: what is left is of validation.
        for name, value in (logs or {}).items():
            if not np.isfinite(value).all():
                got = f"{name}, got {float(np.ravel(value)[0])}"
                raise NonFiniteError(self._epoch, None, got, spoiled(self.model))
        if _support.spoiled_weights(self.model):
            # TensorFlow's rectifier makes 0 of NaN, so that the logs need not show it.
            raise NonFiniteError(self._epoch, None, "weight, got others", spoiled(self.model))


def spoiled(model: keras.Model) -> str:
    """A sentence that names the layers whose weights are not finite, in the model's order."""
    paths = _support.spoiled_weights(model)
    if not paths:
        return " All weights are finite."
    return (
        f" Of {len(model.weights)} arrays of weights {len(paths)} are no longer finite, the first "
        f"of them {paths[0]}."
    )
