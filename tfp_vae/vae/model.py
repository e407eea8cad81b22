"""`VAE`: joins encoder, decoder and prior into one Keras model."""

import pathlib
from collections.abc import Generator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _files, _support, objectives, priors
from tfp_vae.vae import chunks, images, parts, progress

__all__ = ["VAE"]


# Python's part of a step of the CVAE at batch 100 is some 0.5 ms of 17 on two cores; ten steps for
# each return to Python leave a tenth of it, and a progress bar that still moves often.
_STEPS_PER_EXECUTION = 10


@_support.register
class VAE(keras.Model):
    """A variational autoencoder ``x -> q(z|x) -> z -> p(x|z)``, prior ``p(z)``.

    ``fit`` maximizes ``ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z))`` (Kingma & Welling 2014,
    arXiv:1312.6114, eq. 3) with one draw of ``z`` for each image. The logs are means over the
    images, in nats: ``loss``, what is minimized; ``elbo``, always the true one;
    ``reconstruction``, the term ``E_q[log p(x|z)]``; ``kl``. So ``elbo = reconstruction - kl``, and
    ``loss = -elbo`` where the KL's weight is 1 and nothing else is added.

    Shapes: ``B`` images of shape (height, width, channels), ``d`` latent dimensions.

    Args:
        encoder: a Keras model from images to `tfd.Distribution`, batch (B,), event (d,). If its
            posterior layer has a `layers.KLDivergenceRegularizer`, the model takes the prior, the
            kind and the weight of the KL from there, and the KL counts once.
        decoder: a Keras model from latent vectors (B, d) to a `tfd.Distribution` over images,
            ending in a layer of `tfp_vae.layers`.
        prior: a layer of `tfp_vae.priors` or a `tfd.Distribution`; by default the encoder's. If
            the encoder has one, it must be the same object.
        use_exact_kl: TFP's closed form, if `True`; if `False`, ``log q(z|x) - log p(z)`` at the
            draw that is decoded. By default what the encoder's regularizer says, else `True`.
        seed: integer seed of the model's own stream, which every random method draws from
            when it is called without a seed.

    Raises:
        TypeError: the encoder or decoder is no Keras model, or returns no distribution.
        ValueError: no prior, two different ones, one that is 0 where a normal posterior is not, or
            shapes that do not fit together.
        NotImplementedError: TFP knows no closed form for the KL; give ``use_exact_kl=False``.

    Example:
        >>> import keras, numpy as np
        >>> from tfp_vae import VAE, networks, priors
        >>> prior = priors.StandardNormal(2)
        >>> encoder = networks.dense_encoder((28, 28, 1), latent_dim=2, prior=prior)
        >>> decoder = networks.dense_decoder((28, 28, 1), latent_dim=2)
        >>> vae = VAE(encoder, decoder, prior)
        >>> images = np.zeros([5, 28, 28, 1], "float32")
        >>> vae.encode(images).event_shape, vae.decode(np.zeros([7, 5, 2], "float32")).batch_shape
        (TensorShape([2]), TensorShape([7, 5]))
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        prior: "priors.Prior | tfd.Distribution | None" = None,
        *,
        use_exact_kl: bool | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(part, keras.Model):
                raise TypeError(f"{name}: expected a keras.Model, got {type(part).__name__}.")
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.prior = parts.one_prior(prior, encoder)
        self._use_exact_kl = use_exact_kl
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.elbo_tracker = keras.metrics.Mean(name="elbo")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction")
        self.kl_tracker = keras.metrics.Mean(name="kl")
        self._pixels_in_unit_interval = any(
            layer.unit_interval for layer in parts.distribution_layers(decoder)
        )
        parts.check_declared_shapes(encoder, decoder, self.prior)
        parts.check_prior(encoder, self.prior, self.use_exact_kl)
        self.built = True

    # ------------------------------------------------------------------ distributions

    def encode(self, x: Any) -> tfd.Distribution:
        """``q(z|x)``: batch shape ``x.shape[:-3]``, event shape (d,).

        Args:
            x: images, shape (..., height, width, channels), floating, in [0, 1].

        Raises:
            ValueError: images of another shape or type, or values that the likelihood excludes.
        """
        return self._encode(self._images(x), training=False)

    def decode(self, z: Any) -> tfd.Distribution:
        """``p(x|z)``: batch shape ``z.shape[:-1]``, event shape (height, width, channels).

        Args:
            z: latent vectors, shape (..., d): any leading dimensions, none included.

        Raises:
            ValueError: latent vectors of another size, or that are not finite.
        """
        z = tf.convert_to_tensor(z, self.variable_dtype)
        if z.shape.rank is None or z.shape.rank < 1 or z.shape[-1] != self.latent_dim:
            raise ValueError(
                f"decode: expected latent vectors of shape (..., {self.latent_dim}), got "
                f"{tuple(z.shape)}."
            )
        if tf.executing_eagerly() and not np.isfinite(z).all():
            raise ValueError("decode: expected finite latent vectors, got NaN or infinity.")
        return self._decode(z, training=False)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tfd.Distribution:
        """``p(x|z)`` with one ``z ~ q(z|x)``.

        The result carries where it came from: ``.posterior`` is ``q(z|x)``, ``.z`` the draw.
        """
        images.check_specification(x, self.image_shape)
        posterior = self._encode(x, training)
        z = posterior.sample(seed=_support.stateless_seed(None, self.seed_generator))
        likelihood = self._decode(z, training)
        # As attributes of the result, so that `compute_loss`, which Keras hands nothing but this
        # result, need not encode again.
        likelihood.posterior, likelihood.z = posterior, z
        return likelihood

    def joint_distribution(self) -> tfd.JointDistribution:
        """``p(z, x) = p(z) p(x|z)``, a `tfd.JointDistribution` with the parts ``z`` and ``x``.

        TFP's samplers and variational inference run on it as they are: the unnormalized posterior
        of an image is ``lambda z: joint.log_prob(z, image)``.
        """

        def model() -> Generator[Any, Any, None]:
            # Named by copies: TFP takes the names of the parts from the distributions.
            z = yield tfd.JointDistributionCoroutine.Root(self.prior().copy(name="z"))
            yield self._decode(z, training=False).copy(name="x")

        return tfd.JointDistributionCoroutine(model, sample_dtype=_Joint(None, None))

    # ------------------------------------------------------------------ numbers

    def elbo(self, x: Any, num_samples: int = 1, seed: Any = None) -> tf.Tensor:
        """``ELBO(x)`` of each image, shape (B,), in nats; the KL's weight is 1, always.

        The mean over `num_samples` draws of ``log p(x|z)``, less the KL: the closed form, or its
        Monte Carlo value at the same draws where `use_exact_kl` is off.

        Args:
            x: images, shape (B, height, width, channels).
            num_samples: draws for each image.
            seed: integer or stateless seed; by default the model's own stream.

        Raises:
            ValueError: wrong images, or `num_samples` below 1.
        """
        return self._over_images(self._elbo_of_piece, x, num_samples, seed, verbose=0)

    def log_likelihood(
        self, x: Any, num_samples: int = 5000, seed: Any = None, *, verbose: Any = "auto"
    ) -> tf.Tensor:
        """``log p(x)`` of each image, shape (B,), in nats, by importance sampling.

        ``log (1/S) sum_s p(x|z_s) p(z_s) / q(z_s|x)``, ``z_s ~ q(z|x)``, ``S = num_samples``
        (Burda et al. 2016, arXiv:1509.00519, eq. 8): in expectation a lower bound, which rises to
        ``log p(x)`` with ``S``. Memory does not grow with ``B`` or ``S``: images and samples are
        worked off in pieces. Inside a `tf.function` samples are, images are not.

        Args:
            x: images, shape (B, height, width, channels).
            num_samples: importance samples for each image.
            seed: integer or stateless seed; by default the model's own stream.
            verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several
                pieces.

        Raises:
            ValueError: wrong images, or `num_samples` below 1.
        """
        return self._over_images(self._log_likelihood_of_piece, x, num_samples, seed, verbose)

    # ------------------------------------------------------------------ images

    def sample(self, num_samples: int = 1, seed: Any = None, *, mean: bool = False) -> tf.Tensor:
        """Draws from the model, ``z ~ p(z)``, ``x ~ p(x|z)``: shape (num_samples, *image).

        Args:
            num_samples: how many.
            seed: integer or stateless seed; by default the model's own stream.
            mean: give the mean of ``p(x|z)`` instead of a draw of it: the smooth pictures that
                are usually shown.

        Raises:
            ValueError: `num_samples` below 1.
        """
        num_samples = _support.check_positive_int("num_samples", num_samples)
        seed = _support.stateless_seed(seed, self.seed_generator)
        prior_seed, pixel_seed = tf.unstack(tf.random.split(seed))
        likelihood = self.decode(self.prior().sample(num_samples, seed=prior_seed))
        return likelihood.mean() if mean else likelihood.sample(seed=pixel_seed)

    def reconstruct(self, x: Any, seed: Any = None, *, sample: bool = False) -> tf.Tensor:
        """The mean of ``p(x|z)``, shape (B, *image), at the posterior's mean.

        Args:
            x: images, shape (B, height, width, channels).
            seed: integer or stateless seed of the draw; by default the model's own stream.
            sample: take one draw ``z ~ q(z|x)`` instead of the posterior's mean.
        """
        posterior = self.encode(x)
        if not sample:
            return self.decode(posterior.mean()).mean()
        seed = _support.stateless_seed(seed, self.seed_generator)
        return self.decode(posterior.sample(seed=seed)).mean()

    def interpolate(self, a: Any, b: Any, steps: int = 10) -> tf.Tensor:
        """Images along the straight line between the posterior means of `a` and `b`.

        Args:
            a: one image, or B of them.
            b: as `a`.
            steps: number of images, both ends included; at least 2.

        Returns:
            Shape (steps, *image) for one pair, (B, steps, *image) for B pairs.
        """
        if _support.check_positive_int("steps", steps) < 2:
            raise ValueError(f"steps: expected an integer of at least 2, got {steps}.")
        # One image has no batch dimension, which `encode` asks for.
        one = np.ndim(a) == len(self.image_shape or (0, 0, 0))
        start, end = (self.encode(x[tf.newaxis] if one else x).mean() for x in (a, b))
        if start.shape != end.shape:
            raise ValueError(
                "interpolate: expected as many images in `a` as in `b`, got the shapes "
                f"{np.shape(a)} and {np.shape(b)}."
            )
        t = tf.cast(tf.linspace(0.0, 1.0, steps), start.dtype)[:, tf.newaxis]
        start, end = start[..., tf.newaxis, :], end[..., tf.newaxis, :]
        between = self.decode(start + t * (end - start)).mean()
        return between[0] if one else between

    # ------------------------------------------------------------------ Keras

    def compile(
        self,
        optimizer: Any = "adam",
        *,
        jit_compile: bool | str = "auto",
        steps_per_execution: int | None = None,
        run_eagerly: bool = False,
        **kwargs: Any,
    ) -> None:
        """Choose the optimizer. The loss is the model's own.

        Args:
            optimizer: as in `keras.Model.compile`.
            jit_compile: "auto" turns XLA on where TensorFlow sees a GPU and off on a CPU, where
                it made the convolutional networks here slower; `True` and `False` say so.
            steps_per_execution: batches worked off between two returns to Python, and so between
                two calls of a callback's ``on_train_batch_end``. By default 10; and 1 where Keras
                would miscount with more (a given number of steps), under a `tf.distribute`
                strategy, and where `run_eagerly` is on.
            run_eagerly: as in `keras.Model.compile`.
            **kwargs: of `keras.Model.compile`, without `loss` and `metrics`.

        Raises:
            ValueError: `loss` or `metrics` were given.
        """
        for name in ("loss", "metrics", "weighted_metrics", "loss_weights"):
            if kwargs.pop(name, None):
                raise ValueError(
                    f"compile: expected no {name!r}, since the VAE computes its loss and its logs "
                    "itself; leave it out."
                )
        chosen = jit_compile
        if jit_compile == "auto":
            chosen = bool(tf.config.list_physical_devices("GPU"))
        super().compile(
            optimizer=optimizer,
            jit_compile=chosen,
            steps_per_execution=steps_per_execution or 1,
            run_eagerly=run_eagerly,
            **kwargs,
        )
        # What was asked for, not what this machine chose: another may load the model.
        self._compile_options = {
            "jit_compile": jit_compile,
            "steps_per_execution": steps_per_execution,
            "run_eagerly": run_eagerly,
            **kwargs,
        }

    def _choose_steps_per_execution(self, options: dict[str, Any]) -> None:
        """Set it for one call of `fit` or `evaluate`, unless `compile` was told a number."""
        if not self.compiled or self._compile_options["steps_per_execution"] is not None:
            return
        counted = any(
            options.get(name) is not None
            for name in ("steps_per_epoch", "validation_steps", "steps")
        )
        # The model's strategy is that of its making, which the default one of here is not.
        distributed = (
            tf.distribute.has_strategy()
            or self.distribute_strategy is not tf.distribute.get_strategy()
        )
        plain = not (counted or distributed or self.run_eagerly)
        chosen = _STEPS_PER_EXECUTION if plain else 1
        if self.steps_per_execution != chosen:
            self.steps_per_execution: int = chosen
            # Keras builds these with the number in them, and builds them anew if there are none.
            self.train_function = self.test_function = None

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        config = {
            "optimizer": self.optimizer,
            "optimizer_built": bool(self.optimizer.built),
            **self._compile_options,
        }
        return keras.saving.serialize_keras_object(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        built = config.pop("optimizer_built", True)
        self.compile(**config)
        if built:  # the file holds its slots only if there was a step
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """``mean over the batch of -(log p(x|z) - weight * KL)``, plus the networks' own losses.

        Keras calls it with ``y_pred = self(x)``; labels in `y` are not used.
        """
        posterior, z = y_pred.posterior, y_pred.z
        reconstruction = y_pred.log_prob(x)
        kl = self._kl(posterior, z)
        self.reconstruction_tracker.update_state(reconstruction, sample_weight)
        self.kl_tracker.update_state(kl, sample_weight)
        self.elbo_tracker.update_state(objectives.elbo(reconstruction, kl), sample_weight)
        loss = -objectives.elbo(reconstruction, kl, self.kl_weight)
        if sample_weight is not None:
            loss *= tf.cast(sample_weight, loss.dtype)
        loss = tf.add_n([tf.reduce_mean(loss), *self._losses_but_the_kl()])
        # Keras' steps expect it divided by the replicas, whose gradients they then sum.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`, with `x` alone, ``(x, x)`` or ``(x, labels)``.

        Arrays are looked through before the first step; a data set's type and shape are, and its
        values batch by batch as they come, before the step that would have used them.

        Args:
            x: images, shape (N, height, width, channels), or a `tf.data.Dataset` of batches of
                them; or a tuple of images and anything else.
            y: not used.
            batch_size: images in a batch, of arrays; 32 by default.
            epochs: number of passes.
            **kwargs: of `keras.Model.fit`.

        Raises:
            ValueError: no images, images of another shape or type, NaN, or pixels that the
                likelihood excludes.
        """
        if isinstance(x, tf.data.Dataset):
            # Keras warns of its own default, which a data set cannot follow.
            kwargs.setdefault("shuffle", False)
        if kwargs.get("validation_data") is not None:
            kwargs["validation_data"] = self._checked("validation_data", kwargs["validation_data"])
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                "class_weight: expected none, since labels are not used; give sample_weight."
            )
        x, y = self._images_and_targets(x, y, kwargs)
        kwargs.update(batch_size=batch_size, epochs=epochs)
        self._choose_steps_per_execution(kwargs)
        with images.plain_errors():
            return super().fit(x, y, **progress.with_progress_bar(kwargs))

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, **kwargs: Any
    ) -> Any:
        """As `keras.Model.evaluate`; with ``return_dict=True`` the logs by name, in nats.

        Arguments and errors as in `fit`.
        """
        x, y = self._images_and_targets(x, y, kwargs)
        kwargs.update(batch_size=batch_size)
        if not kwargs.get("_use_cached_eval_dataset"):  # else `fit` has chosen already
            self._choose_steps_per_execution(kwargs)
        with images.plain_errors():
            return super().evaluate(x, y, **progress.with_progress_bar(kwargs))

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> np.ndarray:
        """The reconstructions of `reconstruct` as an array, shape (N, height, width, channels).

        Arguments and errors as in `fit`.
        """
        x, _ = self._images_and_targets(x, None, {})
        with images.plain_errors():
            return super().predict(x, batch_size, **progress.with_progress_bar(kwargs))

    def predict_step(self, data: Any) -> tf.Tensor:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        images.check_specification(x, self.image_shape)
        return self._decode(self._encode(x, training=False).mean(), training=False).mean()

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Write the whole model, prior and optimizer included, to a ``.keras`` file.

        The file appears whole or not at all: one that was there before is not lost when this
        process is stopped or the disk is full.

        Args:
            filepath: ends in ``.keras``.
            overwrite: whether a file of that name may be replaced.
            **kwargs: of `keras.Model.save`.

        Raises:
            ValueError: another ending; or an activation, prior or layer that cannot be saved
                without its code.
            FileExistsError: the file is there and `overwrite` is `False`.
            OSError: it cannot be written.
        """
        path = pathlib.Path(filepath)
        if path.suffix != ".keras":
            raise ValueError(f"filepath: expected a name that ends in .keras, got {path.name!r}.")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path}: is there already, and overwrite is False.")
        with _files.whole_file(path) as temporary:
            super().save(temporary, **kwargs)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.summary`, with the layers of encoder, decoder and prior."""
        super().summary(*args, **{"expand_nested": True, **kwargs})

    def get_config(self) -> dict[str, Any]:
        # The encoder's own prior is saved with the encoder: written twice, it would come back as
        # two priors, one trained and one compared with.
        shared = parts.regularizer(self.encoder) is not None
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "prior": None if shared else keras.saving.serialize_keras_object(self.prior),
            "use_exact_kl": self._use_exact_kl,
            "seed": self.seed,
        }

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        # Keras leaves the state of seeds out; with it a loaded model draws what this one would.
        store["seed_state"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store: Any) -> None:
        # A store is read like a dictionary, but it cannot be iterated over.
        names = set(store.keys())
        super().load_own_variables({name: store[name] for name in names - {"seed_state"}})
        if "seed_state" in names:
            self.seed_generator.state.assign(np.asarray(store["seed_state"]))

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "VAE":
        config = dict(config)
        for name in ("encoder", "decoder", "prior"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)

    # ------------------------------------------------------------------ shapes and data

    @property
    def kl_weight(self) -> float:
        """The factor of the KL in the loss: that of the encoder's regularizer, else 1."""
        regularizer = parts.regularizer(self.encoder)
        return 1.0 if regularizer is None else regularizer.weight

    @property
    def use_exact_kl(self) -> bool:
        """Whether the KL is TFP's closed form or the Monte Carlo value at the decoded draw."""
        regularizer = parts.regularizer(self.encoder)
        default = True if regularizer is None else regularizer.use_exact_kl
        return default if self._use_exact_kl is None else bool(self._use_exact_kl)

    @property
    def latent_dim(self) -> int:
        """The number ``d`` of latent dimensions."""
        return self.prior.event_shape[0]

    @property
    def image_shape(self) -> parts.Shape | None:
        """(height, width, channels) of one image; `None` where neither part declares it."""
        return parts.image_shape(self.encoder, self.decoder)

    def _checked(self, name: str, data: Any) -> Any:
        images.check_data(name, data, self.image_shape, self._pixels_in_unit_interval)
        return images.guarded(data, self._pixels_in_unit_interval)

    def _images_and_targets(self, x: Any, y: Any, options: dict[str, Any]) -> tuple[Any, Any]:
        """What `fit`, `evaluate` and `predict` hand to Keras of their `x` and `y`."""
        x = self._checked("x", x)
        if isinstance(x, tuple):
            x, y = x[0], None
        if options.get("sample_weight") is not None and y is None:
            y = x  # without targets Keras drops the weights
        return x, y

    def _images(self, x: Any) -> tf.Tensor:
        """`x` as a tensor, looked through where its values are at hand."""
        x = x if tf.is_tensor(x) else np.asarray(x)
        images.check_specification(x, self.image_shape)
        if tf.executing_eagerly():
            images.check_values(x, self._pixels_in_unit_interval)
        return tf.cast(x, self.variable_dtype)

    # ------------------------------------------------------------------ mathematics

    def _encode(self, x: tf.Tensor, training: bool | None) -> tfd.Distribution:
        ndims = len(self.image_shape) if self.image_shape else x.shape.rank - 1
        return parts.call("encoder", self.encoder, x, ndims, (self.latent_dim,), training)

    def _decode(self, z: tf.Tensor, training: bool | None) -> tfd.Distribution:
        return parts.call("decoder", self.decoder, z, 1, self.image_shape, training)

    def _kl(self, posterior: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
        return objectives.kl_divergence(posterior, self.prior(), None if self.use_exact_kl else z)

    def _losses_but_the_kl(self) -> list[tf.Tensor]:
        """What `add_loss` and weight regularizers ask for, without the encoder's KL term.

        The model adds the KL itself, image by image, so that sample weights and the logs can use
        it and an objective of another form need not receive it.
        """
        if parts.regularizer(self.encoder) is None:
            return self.losses
        of_posterior = getattr(parts.posterior_layer(self.encoder), "losses", [])
        # By identity, with both lists alive; what weight regularizers ask for is made anew by
        # each look at `losses`, and so is never among them.
        return [loss for loss in self.losses if all(loss is not kl for kl in of_posterior)]

    def _over_images(
        self, reduce: chunks.Reduction, x: Any, num_samples: int, seed: Any, verbose: Any
    ) -> tf.Tensor:
        num_samples = _support.check_positive_int("num_samples", num_samples)
        seed = _support.stateless_seed(seed, self.seed_generator)
        x = self._images(x)
        if self.image_shape and x.shape.rank != len(self.image_shape) + 1:
            raise ValueError(
                f"images: expected the shape (batch, {', '.join(map(str, self.image_shape))}), got "
                f"{tuple(x.shape)}."
            )
        return chunks.over_images(reduce, x, num_samples, seed, verbose)

    @tf.function(reduce_retracing=True)
    def _elbo_of_piece(
        self, x: tf.Tensor, num_samples: tf.Tensor, chunk: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        posterior = self._encode(x, training=False)

        def add(total: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
            reconstruction = self._decode(z, training=False).log_prob(x)
            return total + tf.reduce_sum(objectives.elbo(reconstruction, self._kl(posterior, z)), 0)

        zeros = tf.zeros(tf.shape(x)[:1], x.dtype)
        total = chunks.over_samples(posterior, num_samples, chunk, seed, zeros, add)
        return total / tf.cast(num_samples, total.dtype)

    @tf.function(reduce_retracing=True)
    def _log_likelihood_of_piece(
        self, x: tf.Tensor, num_samples: tf.Tensor, chunk: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        posterior, prior = self._encode(x, training=False), self.prior()

        def add(total: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
            likelihood = self._decode(z, training=False)
            log_w = objectives.log_weights(likelihood, posterior, prior, x, z)
            return tf.reduce_logsumexp(tf.concat([total[tf.newaxis], log_w], 0), 0)

        nothing = tf.fill(tf.shape(x)[:1], tf.constant(-np.inf, x.dtype))
        total = chunks.over_samples(posterior, num_samples, chunk, seed, nothing, add)
        return total - tf.math.log(tf.cast(num_samples, total.dtype))


class _Joint(NamedTuple):
    """One draw of `VAE.joint_distribution`."""

    z: Any
    x: Any
