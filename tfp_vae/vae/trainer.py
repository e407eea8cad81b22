"""The Keras side of a `VAE`: `compile`, `fit`, `evaluate`, `predict` and their steps."""

import abc
import contextlib
import contextvars
import types
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support, objectives, priors
from tfp_vae.vae import images, labels, parts, progress

# Python's part of a step of the CVAE at batch 100 is some 0.5 ms of 17 on two cores; ten steps for
# each return to Python leave a tenth of it, and a progress bar that still moves often.
_STEPS_PER_EXECUTION = 10

_ONE_DRAW = objectives.ELBO()

# A variable of the context, not of the model: replicas trace their steps in threads of their own.
_in_test_step_of: contextvars.ContextVar[Any] = contextvars.ContextVar(
    "tfp_vae_in_test_step_of", default=None
)


class Trainer(keras.Model, abc.ABC):
    """What `VAE` does as a Keras model; a subclass has the parts and the distributions."""

    encoder: keras.Model
    prior: priors.Prior
    elbo_tracker: keras.metrics.Metric
    reconstruction_tracker: keras.metrics.Metric
    kl_tracker: keras.metrics.Metric
    # Before `compile` too: loops of one's own may call `compute_loss`.
    objective: objectives.Objective = _ONE_DRAW
    _pixels_in_unit_interval: bool

    @property
    @abc.abstractmethod
    def use_exact_kl(self) -> bool: ...

    @property
    @abc.abstractmethod
    def image_shape(self) -> parts.Shape | None: ...

    @property
    @abc.abstractmethod
    def num_classes(self) -> int | None: ...

    @abc.abstractmethod
    def reconstruct(self, x: Any) -> tf.Tensor: ...

    def compile(
        self,
        optimizer: Any = "adam",
        objective: objectives.Objective | None = None,
        *,
        jit_compile: bool | str = "auto",
        steps_per_execution: int | None = None,
        run_eagerly: bool = False,
        **kwargs: Any,
    ) -> None:
        """Choose the optimizer and what is maximized.

        Args:
            optimizer: as in `keras.Model.compile`.
            objective: `objectives.ELBO` or `objectives.IWAE`, with its number of draws, weight of
                the KL, free bits and gradient. By default the ELBO at one draw.
            jit_compile: "auto" turns XLA on where TensorFlow sees a GPU and off on a CPU, where
                it made the convolutional networks here slower, and under a `tf.distribute`
                strategy, whose variables it cannot reach on other devices; `True` or `False`
                decides it.
            steps_per_execution: batches worked off between two returns to Python, and so between
                two calls of a callback's ``on_train_batch_end``. By default 10; and 1 where Keras
                would miscount with more (a given number of steps), under a `tf.distribute`
                strategy, and where `run_eagerly` is on.
            run_eagerly: as in `keras.Model.compile`.
            **kwargs: of `keras.Model.compile`, without `loss` and `metrics`.

        Raises:
            ValueError: `loss` or `metrics` were given; an objective that the model's KL does not
                allow, or a weight of the KL both there and in the encoder's regularizer.
            TypeError: `objective` is none.
        """
        if objective is None:
            objective = objectives.ELBO()
        if not isinstance(objective, objectives.Objective):
            raise TypeError(
                "objective: expected one of tfp_vae.objectives, such as objectives.IWAE(50), got "
                f"{objective!r}."
            )
        weight = parts.regularizer_weight(self.encoder)
        if objective.kl_weight is not None and weight != 1:
            raise ValueError(
                f"kl_weight: expected it in one place, got {objective.kl_weight!r} in the "
                f"objective and {weight} in the encoder's KLDivergenceRegularizer."
            )
        objective.check(parts.example_posterior(self.encoder), self.prior, self.use_exact_kl)
        for name in ("loss", "metrics", "weighted_metrics", "loss_weights"):
            if kwargs.pop(name, None):
                raise ValueError(
                    f"compile: expected no {name!r}, since the VAE computes its loss and its logs "
                    "itself; give an objective, or leave it out."
                )
        chosen = jit_compile
        if jit_compile == "auto":
            plain = not (run_eagerly or self._is_distributed())
            chosen = plain and _support.sees_gpu()
        super().compile(
            optimizer=optimizer,
            jit_compile=chosen,
            steps_per_execution=steps_per_execution or 1,
            run_eagerly=run_eagerly,
            **kwargs,
        )
        self.objective = objective
        # Not as a dictionary, which Keras would take for a part of the model.
        self._built_functions = types.SimpleNamespace(of_steps={})
        # What was asked for, not what this machine chose: another may load the model.
        self._compile_options = {
            "objective": objective,
            "jit_compile": jit_compile,
            "steps_per_execution": steps_per_execution,
            "run_eagerly": run_eagerly,
            **kwargs,
        }

    @contextlib.contextmanager
    def _chosen_steps_per_execution(self, options: dict[str, Any]) -> Iterator[None]:
        """Set for one call of `fit` or `evaluate`, unless `compile` was told a number.

        Afterwards all is as before: a callback may evaluate while `fit` is at work, and what else
        Keras does, such as `predict` and `train_on_batch`, goes by single steps.
        """
        if not self.compiled or self._compile_options["steps_per_execution"] is not None:
            yield
            return
        counted = any(
            options.get(name) is not None
            for name in ("steps_per_epoch", "validation_steps", "steps")
        )
        plain = not (counted or self._is_distributed() or self.run_eagerly)
        before = self.steps_per_execution
        self._take_steps_per_execution(_STEPS_PER_EXECUTION if plain else 1)
        try:
            yield
        finally:
            self._take_steps_per_execution(before)

    def _is_distributed(self) -> bool:
        # The model's strategy is that of its making, which the default one of here is not.
        return (
            tf.distribute.has_strategy()
            or self.distribute_strategy is not tf.distribute.get_strategy()
        )

    def _take_steps_per_execution(self, number: int) -> None:
        """With the functions that Keras built for so many, the number in them, or none as yet."""
        if number == self.steps_per_execution:
            return
        names = ("train_function", "test_function", "predict_function")
        built = self._built_functions.of_steps
        built[self.steps_per_execution] = [getattr(self, name) for name in names]
        for name, function in zip(names, built.get(number, [None] * len(names)), strict=True):
            setattr(self, name, function)
        self.steps_per_execution: int = number

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        config = {
            "optimizer": self.optimizer,
            "optimizer_built": bool(self.optimizer and self.optimizer.built),
            **self._compile_options,
        }
        return keras.saving.serialize_keras_object(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = keras.saving.deserialize_keras_object(config)
        built = config.pop("optimizer_built", True)
        self.compile(**config)
        if built and self.optimizer:  # the file holds its slots only if there was a step
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """``mean over the batch of -objective``, plus the networks' own losses.

        Keras calls it with ``y_pred = self(x)``; `y` is not used. The logs are those of the true
        ELBO, at the same draws.
        """
        x, _ = labels.pair("x", x, self.num_classes)
        x = tf.cast(x, self.variable_dtype)  # as `call` is given it by Keras
        if sample_weight is not None:
            sample_weight = images.one_weight_each(sample_weight)
        terms = objectives.Terms(
            log_likelihood=y_pred.log_prob(x),
            posterior=y_pred.posterior,
            prior=self.prior(),
            draws=y_pred.draws,
            use_exact_kl=self.use_exact_kl,
            kl_weight=self._kl_weight_at_this_step() if training else self.kl_weight,
            training=training,
        )
        reconstruction, kl = (
            value if value.shape.rank == 1 else tf.reduce_mean(value, 0)
            for value in (terms.log_likelihood, terms.kl)
        )
        self.reconstruction_tracker.update_state(reconstruction, sample_weight)
        self.kl_tracker.update_state(kl, sample_weight)
        self.elbo_tracker.update_state(objectives.elbo(reconstruction, kl), sample_weight)
        loss = -self.objective(terms)
        if sample_weight is not None:
            loss *= tf.cast(sample_weight, loss.dtype)
        mean = tf.reduce_mean(loss)
        # A replica's part of a last, smaller batch may have no images, of which a mean is NaN.
        if _support.replicas() > 1:
            mean = tf.math.divide_no_nan(tf.reduce_sum(loss), tf.cast(tf.size(loss), loss.dtype))
        # Of any shape and type, as Keras takes them.
        others = [tf.reduce_sum(tf.cast(one, mean.dtype)) for one in self._losses_but_the_kl()]
        loss = tf.add_n([mean, *others])
        # Keras' steps expect it divided by the replicas, whose gradients they then sum.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    @property
    def kl_weight(self) -> float:
        """The factor of the KL in the loss, at the end of a warm-up.

        That of the objective, else of the encoder's regularizer, else 1.
        """
        weight = self.objective.final_weight
        return parts.regularizer_weight(self.encoder) if weight is None else weight

    def _kl_weight_at_this_step(self) -> float | tf.Tensor:
        weight = self.objective.kl_weight
        if isinstance(weight, objectives.WarmUp):
            return weight(self.optimizer.iterations)
        return self.kl_weight

    def _draws(
        self, posterior: tfd.Distribution, seed: tf.Tensor, training: bool | None
    ) -> objectives.Draws:
        """What `call` decodes: the objective's draws for training and in `evaluate`, else one."""
        if training and posterior.reparameterization_type is not tfd.FULLY_REPARAMETERIZED:
            raise ValueError(
                "posterior: expected a reparameterized one to train, since the gradient of "
                f"E_q[log p(x|z)] goes through its draws, got {type(posterior).__name__}. A "
                "tfd.MixtureSameFamily of independent dimensions is with reparameterize=True."
            )
        chosen = bool(training) or _in_test_step_of.get() is self
        return (self.objective if chosen else _ONE_DRAW).draw(posterior, seed)

    def get_metrics_result(self) -> dict[str, Any]:
        results = super().get_metrics_result()
        strategy = tf.distribute.get_strategy()
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return results
        if tf.distribute.in_cross_replica_context():
            return results
        # Keras averages what the workers' steps return along a first axis, which scalars lack.
        return {name: tf.reshape(value, [1]) for name, value in results.items()}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Under a strategy Keras takes a batch to build the model by, which this one is already.

        That look would be a pass over a `datasets.pipeline`, so that the first epoch would have
        the order of the second; and of a batch of several parts Keras 3 cannot make the mean.
        """
        if self._distribute_strategy is None or not all(e.built for e in self._flatten_layers()):
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
        elif self.compiled and self.optimizer and not self.optimizer.built:
            with self._distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refused: quantize the parts and join them anew.

        Raises:
            NotImplementedError: always.
        """
        # What was compiled of the model, here and by Keras, would go on with the old weights.
        raise NotImplementedError(
            "quantize: expected a part of the model. Quantize vae.encoder and vae.decoder, and "
            "make a new one of them: VAE(vae.encoder, vae.decoder, vae.prior)."
        )

    def test_step(self, data: Any) -> Any:
        token = _in_test_step_of.set(self)
        try:
            return super().test_step(data)
        finally:
            _in_test_step_of.reset(token)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`, with `x` alone, ``(x, x)`` or ``(x, labels)``.

        Labels are used by a conditional model, which needs them, and by no other.

        Arrays are looked through before the first step; a data set's type and shape are, and its
        values batch by batch as they come, before the step that would have used them.

        Args:
            x: images, shape (N, height, width, channels), or a `tf.data.Dataset` of batches of
                them; or a tuple of images and anything else, and of `sample_weight` after that.
            y: the labels of a conditional model, if they are not in `x`; else not used.
            batch_size: images in a batch, of arrays; 32 by default.
            epochs: number of passes.
            verbose: as in `keras.Model.fit`.
            **kwargs: of `keras.Model.fit`.

        Raises:
            ValueError: no images, images of another shape or type, NaN, or pixels that the
                likelihood excludes; weights that are not one for each image; for a conditional
                model, no labels, or unknown classes; a posterior that is not reparameterized.
        """
        if isinstance(x, tf.data.Dataset):
            # Keras warns of its own default, which a data set cannot follow.
            kwargs.setdefault("shuffle", False)
        if kwargs.get("validation_data") is not None:
            kwargs["validation_data"] = self._validation_data(kwargs["validation_data"])
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                "class_weight: expected none, since labels are no targets; give sample_weight."
            )
        x, y = self._images_and_targets(x, y, kwargs)
        kwargs.update(batch_size=batch_size, epochs=epochs, verbose=verbose)
        first = kwargs.get("initial_epoch", 0) + 1
        of_epoch = images.plain_errors(
            lambda: first + len(self.history.epoch), kwargs.get("steps_per_epoch")
        )
        with self._chosen_steps_per_execution(kwargs), of_epoch:
            return super().fit(x, y, **progress.with_progress_bar(kwargs))

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """As `keras.Model.evaluate`; with ``return_dict=True`` the logs by name, in nats.

        Arguments and errors as in `fit`.
        """
        kwargs.update(batch_size=batch_size, verbose=verbose)
        if kwargs.get("_use_cached_eval_dataset"):  # by `fit`, which has looked and chosen
            return super().evaluate(x, y, **progress.with_progress_bar(kwargs))
        x, y = self._images_and_targets(x, y, kwargs)
        self._refuse_spoiled_weights()
        with self._chosen_steps_per_execution(kwargs), images.plain_errors():
            return super().evaluate(x, y, **progress.with_progress_bar(kwargs))

    def predict(
        self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any
    ) -> np.ndarray:
        """The reconstructions of `reconstruct` as an array, shape (N, height, width, channels).

        Arguments and errors as in `fit`.
        """
        x, _ = self._images_and_targets(x, None, {})
        with images.plain_errors():
            kwargs.update(batch_size=batch_size, verbose=verbose)
            return super().predict(x, **progress.with_progress_bar(kwargs))

    def predict_step(self, data: Any) -> tf.Tensor:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.reconstruct(x)

    def _checked(self, name: str, data: Any) -> Any:
        images.check_data(name, data, self.image_shape, self._pixels_in_unit_interval)
        data = images.guarded(name, data, self._pixels_in_unit_interval)
        if self.num_classes is None:
            return data
        return labels.paired(name, data, self.num_classes)

    def _validation_data(self, data: Any) -> Any:
        if self.num_classes is None or isinstance(data, tf.data.Dataset):
            data = self._checked("validation_data", data)
            if isinstance(data, (tuple, list)) and len(data) == 3 and data[2] is not None:
                # As in `fit`: without targets Keras drops the weights.
                return data[0], data[0], images.one_weight_each(data[2])
            return data
        if not isinstance(data, (tuple, list)):
            return self._checked("validation_data", data)  # which says that labels are missing
        *inputs, weights = data if len(data) == 3 else (*data, None)
        x = self._checked("validation_data", tuple(inputs))
        return x, x[0], None if weights is None else images.one_weight_each(weights)

    def _images_and_targets(self, x: Any, y: Any, options: dict[str, Any]) -> tuple[Any, Any]:
        """What `fit`, `evaluate` and `predict` hand to Keras of their `x` and `y`."""
        if isinstance(x, list):
            if self.num_classes is None:
                raise ValueError(
                    "x: expected images, or a tuple that begins with them, got a list."
                )
            x = tuple(x)
        if isinstance(x, tuple) and len(x) == 3:
            if options.get("sample_weight") is not None:
                raise ValueError("sample_weight: expected it in one place, got it in x as well.")
            x, options["sample_weight"] = x[:2], x[2]
        if self.num_classes is not None and not isinstance(x, (tuple, tf.data.Dataset)):
            x, y = (x, y), None
        x = self._checked("x", x)
        if isinstance(x, tuple) and self.num_classes is None:
            x, y = x[0], None
        if options.get("sample_weight") is not None:
            options["sample_weight"] = images.one_weight_each(options["sample_weight"])
            if y is None and not isinstance(x, tf.data.Dataset):  # whose batches hold them
                y = _support.split_labels(x)[0]  # without targets Keras drops the weights
        return x, y

    def _refuse_spoiled_weights(self) -> None:
        """Before figures are made of them, which may be finite nevertheless."""
        paths = _support.spoiled_weights(self)
        if paths:
            raise ValueError(
                f"weights: expected finite ones, got NaN or infinity in {len(paths)} of "
                f"{len(self.weights)} arrays, the first of them {paths[0]}."
            )

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
