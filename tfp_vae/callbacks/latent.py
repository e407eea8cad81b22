"""Watches, while a model trains, whether the latent dimensions are used."""

import os
import pathlib
import warnings
from typing import Any

import keras
import numpy as np

from tfp_vae import objectives
from tfp_vae.callbacks.events import EventWriter
from tfp_vae.evaluation.usage import usage_meter

_COLLAPSED_KL = 0.01  # nats a dimension
_PATIENCE = 3  # epochs


class LatentDiagnostics(keras.callbacks.Callback):
    """Active units and the KL of each dimension after each epoch, and a warning of collapse.

    It adds ``active_units`` to each epoch's ``logs``: how many dimensions `evaluation.latent_usage`
    counts as active. Callbacks that come later see it, and Keras' ``History`` always does; if you
    put this one first, the progress bar and a ``CSVLogger`` show it as well.

    **Posterior collapse** means that no dimension is active
    (``Var_x(E_q[z_j]) <= threshold``, Burda et al. 2016, arXiv:1509.00519, section 5.2) *and* the
    KL of the posterior is below 0.01 nats for each dimension: ``q(z|x)`` is the prior whatever
    ``x`` is (Bowman et al. 2016, arXiv:1511.06349, section 3.1). Both are required, since a prior
    of small scale has small variances, and a posterior may differ from the prior in the same way
    for all images. A few inactive dimensions are not a collapse: if the data vary in fewer
    directions, the best model leaves some dimensions unused (shown for linear models by Lucas et
    al. 2019, arXiv:1911.02469). A warning that says what to do follows after the third such epoch
    in a row, since dimensions may become active later. Epochs in which the weight of the KL is 0 or
    still rising in a warm-up do not count.

    A model whose loss is not finite is not measured: its ``active_units`` are NaN.

    Args:
        images: images, shape (B, height, width, channels), as the model takes them: at least two,
            preferably validation images. For the CVAE of TensorFlow's tutorial a thousand take
            about 10 ms.
        threshold: a dimension is active above this variance, in squared latent units.
        num_samples: draws for each image if there is no closed form, as in `latent_usage`.
        seed: integer seed of these draws, which are the same after each epoch.
        log_dir: folder for TensorBoard; scalars and histograms go to ``latent`` in it, next to the
            ``train`` and ``validation`` of Keras' own callback. `None` writes nothing.

    Attributes:
        rows: a dictionary of plain data for each measured epoch: ``epoch`` (counted from 1),
            ``active_units``, ``variance`` (of the means) and ``kl`` (lists of ``d`` numbers; ``kl``
            is `None` if `latent_usage` cannot compute it), ``collapsed``.

    Raises:
        TypeError: the model in training is no `VAE`.
        ValueError: when training starts: as `latent_usage`.

    Example:
        >>> import numpy as np
        >>> from tfp_vae import VAE, callbacks, networks, priors
        >>> prior = priors.StandardNormal(2)
        >>> encoder = networks.dense_encoder((4, 4, 1), latent_dim=2, units=(4,), prior=prior)
        >>> vae = VAE(encoder, networks.dense_decoder((4, 4, 1), latent_dim=2, units=(4,)), prior)
        >>> vae.compile("adam")
        >>> x = np.eye(16, dtype="float32").reshape(16, 4, 4, 1)
        >>> watch = callbacks.LatentDiagnostics(x)
        >>> history = vae.fit(x, epochs=2, verbose=0, callbacks=[watch]).history
        >>> len(history["active_units"]), watch.kl_per_dimension.shape
        (2, (2, 2))
    """

    adds_to_logs = True  # so that the progress bar comes after it

    def __init__(
        self,
        images: Any,
        *,
        threshold: float = 0.01,
        num_samples: int = 10,
        seed: int = 0,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.images = images
        self.threshold = threshold
        self.num_samples = num_samples
        self.seed = seed
        self.rows: list[dict[str, Any]] = []
        self._events = None if log_dir is None else EventWriter(pathlib.Path(log_dir) / "latent")

    @property
    def kl_per_dimension(self) -> np.ndarray:
        """``E_x KL(q(z_j|x) || p(z_j))`` in nats, shape (epochs, d); NaN if it is not known."""
        return np.array([row["kl"] or [np.nan] * len(row["variance"]) for row in self.rows])

    def on_train_begin(self, logs: Any = None) -> None:
        self._measure = usage_meter(self.model, self.images, self.threshold, self.num_samples)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        if not np.isfinite(list(logs.values())).all():
            logs["active_units"] = np.nan
            return
        usage = self._measure(self.seed, 0)
        known = usage.kl_method != "unavailable"
        # The whole KL is known of any posterior, unlike that of each dimension.
        kl = float(logs.get("val_kl", logs["kl"])) / len(usage.kl)
        self.rows.append(
            {
                "epoch": epoch + 1,
                "active_units": usage.num_active,
                "variance": usage.variance_of_means.tolist(),
                "kl": usage.kl.tolist() if known else None,
                "collapsed": not usage.num_active and kl < _COLLAPSED_KL and self._at_full_weight(),
            }
        )
        logs["active_units"] = usage.num_active
        if self._events:
            self._events.scalar("active_units", usage.num_active, epoch)
            self._events.histogram("variance_of_means", usage.variance_of_means, epoch)
            self._events.scalar("collapsed", float(self.rows[-1]["collapsed"]), epoch)
            if known:
                self._events.histogram("kl_per_dimension", usage.kl, epoch)
                for j, kl_of_dimension in enumerate(usage.kl):
                    self._events.scalar(f"kl_per_dimension/{j}", kl_of_dimension, epoch)
            self._events.flush()
        # From the rows alone, so that a run that is resumed warns where it would have.
        before = [row["collapsed"] for row in self.rows[-_PATIENCE - 1 :]]
        if all(before[-_PATIENCE:]) and sum(before) == _PATIENCE:
            warnings.warn(
                f"posterior collapse: for {_PATIENCE} epochs none of the {len(usage.kl)} latent "
                f"dimensions has been active, and the KL is {kl:.1g} nats for each, so that the "
                f"decoder learns nothing of the image from them (epoch {epoch + 1}). Give compile "
                "another objective: objectives.ELBO(kl_weight=objectives.LinearWarmUp(steps)) for "
                "a KL warm-up over some epochs, objectives.ELBO(free_bits=0.1) for free bits in "
                "each dimension, or a kl_weight below 1; or make the decoder weaker.",
                stacklevel=2,
            )

    def _at_full_weight(self) -> bool:
        """Whether the KL has its final weight, and that weight is not 0."""
        weight = self.model.objective.kl_weight
        if isinstance(weight, objectives.WarmUp):
            now = float(weight(self.model.optimizer.iterations))  # of float32, as `final` is not
            return weight.final > 0 and now == float(np.float32(weight.final))
        return self.model.kl_weight > 0
