"""What the page shows, as functions of arrays: nothing here knows of a browser."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support, datasets, priors
from tfp_vae.evaluation import Estimate, common
from tfp_vae.vae import VAE, chunks

_WIDEST = (0.001, 0.999)  # probabilities between which the prior's part of a latent axis lies
_ENCODED_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class Look:
    """What a model makes of one image; ``d`` latent dimensions, nats.

    Attributes:
        mean: of ``q(z|x)``, shape (d,).
        stddev: shape (d,).
        covariance: shape (d, d); of the draws where TFP knows no closed form.
        reconstruction: mean of ``p(x|z)`` at the posterior's mean, shape (height, width, channels).
        elbo: with its Monte Carlo error.
        kl: ``E_q[log q(z|x) - log p(z)]``, of the same draws.
        log_likelihood: importance weighted, with the error of the delta method.
        num_samples: draws of ``q(z|x)`` behind them.
    """

    mean: np.ndarray
    stddev: np.ndarray
    covariance: np.ndarray
    reconstruction: np.ndarray
    elbo: Estimate
    kl: float
    log_likelihood: Estimate
    num_samples: int


class Explored:
    """A trained model and the test images behind its latent plane.

    All that is asked while a person waits is compiled once, here: the first answer is as quick as
    the others.

    Args:
        vae: the model.
        images: test images as the model takes them, shape (N, height, width, channels).
        labels: their classes, shape (N,), which a conditional model needs; or `None`.
        class_names: of the classes 0, 1, ...; by default their numbers.
        binarization: how the images were treated; others will be as well.
        seed: of a "dynamic" treatment.
        title: what the page is headed with.
        centred: whether what a person draws or drops is to be brought into place as MNIST's digits
            were: what the page begins with.

    Attributes:
        means: of ``q(z|x)`` of the test images, shape (N, d).
        order: the latent dimensions, the most active first: by ``Var_x(E_q[z_j])`` (Burda et al.
            2016, arXiv:1509.00519, section 5.2).
        low, high: of each latent axis, shape (d,): wide enough for the prior and for `means`.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: one latent dimension, no images, or labels that are not one for each of them,
            which a conditional model needs.
    """

    def __init__(
        self,
        vae: VAE,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        class_names: Sequence[str] | None = None,
        binarization: str = "threshold",
        seed: int = 0,
        title: str = "",
        centred: bool = True,
    ) -> None:
        if not isinstance(vae, VAE):
            raise TypeError(f"vae: expected a tfp_vae.VAE, got {type(vae).__name__}.")
        if vae.latent_dim is None or vae.latent_dim < 2:
            raise ValueError(
                f"vae: expected a model with 2 latent dimensions or more, got {vae.latent_dim}."
            )
        if not len(images):
            raise ValueError("images: expected at least one, got none.")
        if images.ndim == 4 and images.shape[-1] not in (1, 3):
            raise ValueError(
                "images: expected grey or colour ones, of the shape (images, height, width, 1 or "
                f"3), got {images.shape}."
            )
        vae._refuse_spoiled_weights()
        if labels is not None and len(labels) != len(images):
            raise ValueError(
                f"labels: expected one for each of the {len(images)} images, got {len(labels)}."
            )
        if labels is None and vae.num_classes is not None:
            raise ValueError("labels: expected some, which a conditional model needs, got none.")
        self.vae, self.images, self.labels = vae, images, labels
        self.binarization, self.seed = binarization, seed
        self.title, self.centred = title, centred
        count = vae.num_classes or (0 if labels is None else int(np.max(labels)) + 1)
        self.class_names = tuple(class_names or map(str, range(count)))
        self.image_shape: tuple[int, int, int] = images.shape[1:]
        self._samples_at_once = min(100, chunks.at_once(vae, images))
        self._compile()
        self.means = self._encoded_images()
        self.order = np.argsort(-self.means.var(0), kind="stable")
        quantiles = priors.marginal_quantiles(vae.prior(), _WIDEST)
        self.low = np.minimum(quantiles[0], self.means.min(0)).astype(np.float64)
        self.high = np.maximum(quantiles[1], self.means.max(0)).astype(np.float64)
        self.look(images[0], self._label(0), num_samples=1)  # the last of what is compiled
        self.decode(self.means[:1], self._label(0))

    @property
    def latent_dim(self) -> int:
        return self.means.shape[1]

    def decode(self, z: Any, label: int | None = None) -> np.ndarray:
        """Means of ``p(x|z)``: shape (B, height, width, channels) for latents of shape (B, d)."""
        z = np.asarray(z, np.float32)
        return self._decoded(z, self._vectors(label, len(z))).numpy()

    def plane(
        self, z: Any, dims: tuple[int, int], n: int = 20, label: int | None = None
    ) -> np.ndarray:
        """The decoder's means over a plane through `z`, shape (n * height, n * width, channels).

        A tile shows the latent vector of its own middle: the first of `dims` grows from left to
        right, the second from bottom to top, over the whole of their axes.
        """
        steps = (np.arange(n) + 0.5) / n
        across, up = (self.low[d] + steps * (self.high[d] - self.low[d]) for d in dims)
        grid = np.tile(np.asarray(z, np.float32), (n * n, 1))
        grid[:, dims[0]] = np.tile(across, n)
        grid[:, dims[1]] = np.repeat(up[::-1], n)  # the first row is the uppermost
        size = chunks.at_once(self.vae, self.images)
        tiles = [self.decode(grid[start : start + size], label) for start in range(0, n * n, size)]
        height, width, channels = self.image_shape
        rows = np.concatenate(tiles).reshape(n, n, height, width, channels).swapaxes(1, 2)
        return rows.reshape(n * height, n * width, channels)

    def look(
        self, image: np.ndarray, label: int | None = None, num_samples: int = 500, seed: int = 0
    ) -> Look:
        """Posterior, reconstruction, ELBO and ``log p(x)`` of one image that `treated` gave.

        With ``w_s = p(x|z_s) p(z_s) / q(z_s|x)``, ``z_s ~ q(z|x)``: the ELBO is the mean of
        ``log w_s``, and ``log p(x)`` the logarithm of the mean of ``w_s`` (`VAE.log_likelihood`).

        Raises:
            ValueError: a density that is not finite.
        """
        num_samples = _support.check_positive_int("num_samples", num_samples)
        x, y = np.asarray(image, np.float32)[np.newaxis], self._vectors(label, 1)
        key = _support.stateless_seed(seed, self.vae.seed_generator)
        parts = [
            self._drawn(x, y, tf.random.fold_in(key, start))
            for start in range(0, num_samples, self._samples_at_once)
        ]
        z, log_p, log_w = (
            np.concatenate(part)[:num_samples].astype(np.float64)
            for part in zip(*parts, strict=True)
        )
        if not np.isfinite(log_w).all():
            raise ValueError("log p(x, z) - log q(z|x): expected a finite value, got others.")
        mean, stddev, covariance = (value.numpy()[0] for value in self._posterior(x, y))
        if not covariance.size:
            covariance = np.atleast_2d(np.cov(z.T)) if num_samples > 1 else np.diag(stddev**2)
        value, error, _ = common.of_log_weights(log_w[:, np.newaxis])
        return Look(
            mean=mean,
            stddev=stddev,
            covariance=covariance,
            reconstruction=self.decode(mean[np.newaxis], label)[0],
            elbo=Estimate.of(log_w),
            kl=float(np.mean(log_p - log_w)),
            log_likelihood=Estimate(float(value[0]), float(error[0])),
            num_samples=num_samples,
        )

    def between(self, a: Any, b: Any, steps: int = 10, label: int | None = None) -> np.ndarray:
        """The decoder's means on the straight line from `a` to `b`, latents of shape (d,)."""
        t = np.linspace(0, 1, steps)[:, np.newaxis]
        return self.decode((1 - t) * np.asarray(a) + t * np.asarray(b), label)

    def treated(self, image: np.ndarray) -> np.ndarray:
        """A grey image, floats in [0, 1], as the run's own were treated."""
        return datasets.binarize(image[np.newaxis], self.binarization, seed=self.seed)[0]

    def _label(self, index: int) -> int | None:
        """Of a test image, for a conditional model."""
        return None if self.vae.num_classes is None else int(self.labels[index])  # type: ignore[index]

    def _vectors(self, labels: Any, count: int) -> np.ndarray:
        """Of one class or of `count`, vectors; without entries for a model without classes."""
        classes = self.vae.num_classes
        if classes is None:
            return np.zeros([count, 0], np.float32)
        if labels is None or np.min(labels) < 0 or np.max(labels) >= classes:
            raise ValueError(f"label: expected a class from 0 to {classes - 1}, got {labels}.")
        return np.eye(classes, dtype=np.float32)[np.broadcast_to(labels, count)]

    def _encoded_images(self) -> np.ndarray:
        found = []
        for start in range(0, len(self.images), _ENCODED_AT_ONCE):
            part = slice(start, start + _ENCODED_AT_ONCE)
            x = self.images[part].astype(np.float32, copy=False)
            labels = None if self.labels is None else self.labels[part]
            found.append(self._mean(x, self._vectors(labels, len(x))))
        return np.concatenate(found)

    def _compile(self) -> None:
        vae, draws = self.vae, self._samples_at_once
        x_spec = tf.TensorSpec([None, *self.image_shape], tf.float32)
        y_spec = tf.TensorSpec([None, vae.num_classes or 0], tf.float32)
        z_spec = tf.TensorSpec([None, vae.latent_dim], tf.float32)
        seed_spec = tf.TensorSpec([2], tf.int32)

        def paired(inputs: tf.Tensor, y: tf.Tensor) -> Any:
            return inputs if vae.num_classes is None else (inputs, y)

        @tf.function(input_signature=[z_spec, y_spec], autograph=False)
        def decoded(z: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            return vae.decode(paired(z, y)).mean()

        @tf.function(input_signature=[x_spec, y_spec], autograph=False)
        def mean(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            return vae.encode(paired(x, y)).mean()

        @tf.function(input_signature=[x_spec, y_spec], autograph=False)
        def posterior(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, ...]:
            found = vae.encode(paired(x, y))
            try:
                covariance = found.covariance()
            except NotImplementedError:
                covariance = tf.zeros([tf.shape(x)[0], 0, 0])
            return found.mean(), found.stddev(), covariance

        @tf.function(input_signature=[x_spec, y_spec, seed_spec], autograph=False)
        def drawn(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
            """Of one image: draws of z, log p(x|z), log w."""
            found, prior = vae.encode(paired(x, y)), vae.prior()
            x, decode = vae.given(paired(x, y))
            z = found.sample(draws, seed=seed)
            log_p = decode(z).log_prob(x)
            return z[:, 0], log_p[:, 0], (log_p + prior.log_prob(z) - found.log_prob(z))[:, 0]

        self._decoded, self._mean, self._posterior, self._drawn = decoded, mean, posterior, drawn
