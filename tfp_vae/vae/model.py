"""`VAE`: joins encoder, decoder and prior into one Keras model."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _files, _support, objectives, priors
from tfp_vae.layers.base import without_kl
from tfp_vae.vae import chunks, exporting, folds, hidden, images, imputation, labels, parts
from tfp_vae.vae.trainer import Trainer

__all__ = ["VAE"]


@_support.register
class VAE(Trainer):
    """A variational autoencoder ``x -> q(z|x) -> z -> p(x|z)``, prior ``p(z)``.

    ``fit`` maximizes ``ELBO(x) = E_q[log p(x|z)] - KL(q(z|x) || p(z))`` (Kingma & Welling 2014,
    arXiv:1312.6114, eq. 3) with one draw of ``z`` for each image, or what `compile` is told of
    `tfp_vae.objectives`. The logs are means over the images, in nats: ``loss``, what is minimized;
    ``elbo``, always the true one; ``reconstruction``, the term ``E_q[log p(x|z)]``; ``kl``. So
    ``elbo = reconstruction - kl``, and ``loss = -elbo`` where the objective is the ELBO, the KL's
    weight is 1, images have no weights of their own and nothing else is added.

    Shapes: ``B`` images of shape (height, width, channels), ``d`` latent dimensions.

    With networks that take labels as well (`networks.conditional_encoder`, Sohn et al. 2015) it is
    the conditional ``q(z|x, y)``, ``p(x|z, y)``, ``p(z)``, and all figures are of ``log p(x|y)``:
    wherever a method takes images or latent vectors, it then takes a pair of them and labels,
    ``vae.fit((x, y))``, ``vae.encode((x, y))``, ``vae.decode((z, y))``. Labels are integers from 0
    to K - 1, one for each image, or vectors of K floats. `for_label` gives the model of one class.

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
        self.prior.bind(encoder)
        self._use_exact_kl = use_exact_kl
        # Keras' generator refuses NumPy's integers.
        self.seed = seed = int(seed) if isinstance(seed, np.integer) else seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.elbo_tracker = keras.metrics.Mean(name="elbo")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction")
        self.kl_tracker = keras.metrics.Mean(name="kl")
        self._pixels_in_unit_interval = any(
            layer.unit_interval for layer in parts.distribution_layers(decoder)
        )
        self._num_classes = labels.num_classes(encoder, decoder)
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
        z, y = labels.pair("latent vectors", z, self.num_classes)
        z = z if tf.is_tensor(z) else tf.convert_to_tensor(z, self.variable_dtype)
        z = tf.cast(z, self.variable_dtype)
        if z.shape.rank is None or z.shape.rank < 1 or z.shape[-1] != self.latent_dim:
            raise ValueError(
                f"decode: expected latent vectors of shape (..., {self.latent_dim}), got "
                f"{tuple(z.shape)}."
            )
        if tf.executing_eagerly() and not np.isfinite(z).all():
            raise ValueError("decode: expected finite latent vectors, got NaN or infinity.")
        y = self._label_vectors(y, z.shape[:-1])
        return self._decode(z, training=False, labels=y)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tfd.Distribution:
        """``p(x|z)`` with one ``z ~ q(z|x)``; for training with all that the objective draws.

        The result carries where it came from: ``.posterior`` is ``q(z|x)``, ``.z`` the draw.
        """
        x, y = labels.pair("images", x, self.num_classes)
        images.check_specification(x, self.image_shape)
        y = self._label_vectors(y, x.shape[:1])
        posterior = self._encode(x if y is None else (x, y), training)
        seed = _support.stateless_seed(None, self.seed_generator, of_replica=False)
        draws = self._draws(posterior, seed, training)
        likelihood = self._decode(draws.z, training, y)
        # As attributes of the result, so that `compute_loss`, which Keras hands nothing but this
        # result, need not encode again.
        likelihood.posterior, likelihood.draws, likelihood.z = posterior, draws, draws.z
        return likelihood

    def given(self, x: Any) -> tuple[tf.Tensor, Callable[[tf.Tensor], tfd.Distribution]]:
        """The images of a batch, and the function ``z -> p(x|z)``.

        Of a conditional model the function is ``z -> p(x|z, y)`` with the batch's labels, so that
        what works on the pair works for both kinds of model.

        Args:
            x: images as tensors, shape (B, height, width, channels), or a pair of them and labels.
        """
        x, y = _support.split_labels(x)
        y = self._label_vectors(y, x.shape[:1])
        return x, functools.partial(self._decode, training=False, labels=y)

    def joint_distribution(self) -> tfd.JointDistribution:
        """``p(z, x) = p(z) p(x|z)``, a `tfd.JointDistribution` with the parts ``z`` and ``x``.

        TFP's samplers and variational inference run on it as they are: the unnormalized posterior
        of an image is ``lambda z: joint.log_prob(z, image)``.

        Raises:
            ValueError: the model is conditional: take that of `for_label`.
        """
        labels.refuse("joint_distribution", self.num_classes)

        def model() -> Generator[Any, Any, None]:
            # Named by copies: TFP takes the names of the parts from the distributions.
            z = yield tfd.JointDistributionCoroutine.Root(self.prior().copy(name="z"))
            yield self._decode(z, training=False).copy(name="x")

        return tfd.JointDistributionCoroutine(model, sample_dtype=_Joint(None, None))

    def for_label(self, label: Any) -> "VAE":
        """The model of one class, ``q(z|x, y)`` and ``p(x|z, y)`` at that ``y``, without labels.

        It shares the weights and the stream of seeds of this one, and all that takes a `VAE` takes
        it: `impute`, `plotting.latent_manifold`, `tfp_vae.evaluation`.

        Args:
            label: an integer from 0 to K - 1, or a vector of K floats.

        Raises:
            ValueError: the model is not conditional, or has no such class.
        """
        if self.num_classes is None:
            raise ValueError("for_label: expected a conditional model, got one without labels.")
        vector = labels.vectors(label, self.num_classes, self.variable_dtype)
        if vector.shape.rank != 1:
            raise ValueError(f"label: expected one, got the shape {tuple(np.shape(label))}.")
        encoder, decoder = (parts.at_label(p, vector) for p in (self.encoder, self.decoder))
        prior = None if parts.regularizer(encoder) else self.prior
        found = VAE(
            encoder, decoder, prior,
            use_exact_kl=self._use_exact_kl, seed=self.seed, dtype=self.dtype_policy,
        )  # fmt: skip
        found.seed_generator = self.seed_generator  # one stream: no two of them draw the same
        return found

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
            ValueError: wrong images, `num_samples` below 1, or, outside a `tf.function`, a value
                that is not finite; its image and the term are named.
        """
        return self._over_images(self._elbo_of_piece, x, num_samples, seed, verbose=0)

    def log_likelihood(
        self, x: Any, num_samples: int = 5000, seed: Any = None, *, verbose: Any = "auto"
    ) -> tf.Tensor:
        """``log p(x)`` of each image, shape (B,), in nats, by importance sampling.

        ``log (1/S) sum_s p(x|z_s) p(z_s) / q(z_s|x)``, ``z_s ~ q(z|x)``, ``S = num_samples``
        (Burda et al. 2016, arXiv:1509.00519, eq. 8): in expectation a lower bound, which rises to
        ``log p(x)`` with ``S``. Memory does not grow with ``B`` or ``S``: images and samples are
        worked off in pieces; inside a `tf.function` only the samples.

        Args:
            x: images, shape (B, height, width, channels).
            num_samples: importance samples for each image.
            seed: integer or stateless seed; by default the model's own stream.
            verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several
                pieces.

        Raises:
            ValueError: wrong images, `num_samples` below 1, or, outside a `tf.function`, a value
                that is not finite; its image and the term are named.
        """
        return self._over_images(self._log_likelihood_of_piece, x, num_samples, seed, verbose)

    # ------------------------------------------------------------------ images

    def sample(
        self, num_samples: int = 1, seed: Any = None, *, mean: bool = False, labels: Any = None
    ) -> tf.Tensor:
        """Draws from the model, ``z ~ p(z)``, ``x ~ p(x|z)``: shape ``(num_samples, *image)``.

        Args:
            num_samples: how many.
            seed: integer or stateless seed; by default the model's own stream.
            mean: give the mean of ``p(x|z)`` instead of a draw of it: the smooth pictures that
                are usually shown.
            labels: of a conditional model: one class, or one for each draw.

        Raises:
            ValueError: `num_samples` below 1; labels of a model without classes, none of one with
                them, an unknown class, or another number of them.
        """
        num_samples = _support.check_positive_int("num_samples", num_samples)
        if (labels is None) != (self.num_classes is None):
            raise ValueError(
                "labels: expected "
                + (f"some of the {self.num_classes} classes" if labels is None else "none")
                + f" of this model, got {labels!r}."
            )
        seed = _support.stateless_seed(seed, self.seed_generator)
        inputs, pixel_seed = self._prior_draws(num_samples, seed, labels)

        def decoded(start: int, inputs: Any) -> tf.Tensor:
            likelihood = self.decode(inputs)
            # That of the first piece is the one of a graph, which has no other.
            piece_seed = tf.random.fold_in(pixel_seed, start) if start else pixel_seed
            return likelihood.mean() if mean else likelihood.sample(seed=piece_seed)

        return self._in_pieces(decoded, inputs)

    def reconstruct(self, x: Any, seed: Any = None, *, sample: bool = False) -> tf.Tensor:
        """The mean of ``p(x|z)``, shape ``(B, *image)``, at the posterior's mean.

        Args:
            x: images, shape (B, height, width, channels).
            seed: integer or stateless seed of the draw, where `sample` asks for one; by default the
                model's own stream.
            sample: take one draw ``z ~ q(z|x)`` instead of the posterior's mean.
        """
        x = self._images(x)
        seed = _support.stateless_seed(seed, self.seed_generator) if sample else None

        def reconstructed(start: int, x: Any) -> tf.Tensor:
            posterior, (_, decode) = self._encode(x, training=False), self.given(x)
            if seed is None:
                return decode(posterior.mean()).mean()
            piece_seed = tf.random.fold_in(seed, start) if start else seed
            return decode(posterior.sample(seed=piece_seed)).mean()

        return self._in_pieces(reconstructed, x)

    def interpolate(self, a: Any, b: Any, steps: int = 10) -> tf.Tensor:
        """Images along the straight line between the posterior means of `a` and `b`.

        Args:
            a: one image, or B of them.
            b: as `a`.
            steps: number of images, both ends included; at least 2.

        Returns:
            Shape ``(steps, *image)`` for one pair, ``(B, steps, *image)`` for B pairs.

        Raises:
            ValueError: `steps` below 2, not as many images in `a` as in `b`, or a conditional
                model: take that of `for_label`.
        """
        labels.refuse("interpolate", self.num_classes)
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
        line = start + t * (end - start)
        flat = tf.reshape(line, [-1, self.latent_dim])
        between = self._in_pieces(lambda _, z: self.decode(z).mean(), flat)
        between = tf.reshape(between, tf.concat([tf.shape(line)[:-1], tf.shape(between)[1:]], 0))
        return between[0] if one else between

    def impute(
        self,
        x: Any,
        mask: Any,
        num_samples: int = 1,
        *,
        method: str = "metropolis",
        num_steps: int = 200,
        burn_in: int | None = None,
        seed: Any = None,
        verbose: Any = "auto",
    ) -> imputation.Imputation:
        """Hidden pixels drawn given the observed ones, ``x_hidden ~ p(x_hidden | x_observed)``.

        `mask` is **True where a pixel is OBSERVED**: the opposite of `numpy.ma` and of
        scikit-learn's indicators of missing values. What `x` holds at hidden pixels, NaN as well,
        is not looked at.

        Each draw is the end of its own chain of `num_steps` steps, which starts at a draw of the
        prior, ``z ~ p(z)``, ``x_hidden ~ p(x|z)``. One step encodes the completed image, draws
        ``z' ~ q(z|x)``, and draws the hidden pixels anew from ``p(x|z)``:

        - "pseudo-gibbs" takes every ``z'`` (Rezende et al. 2014, arXiv:1401.4082, appendix F).
          Right only as far as the encoder is.
        - "metropolis-within-gibbs" takes it with probability
          ``min(1, w(z') / w(z))``, ``w(z) = p(x|z) p(z) / q(z|x)``, else stays at ``z`` (Mattei &
          Frellsen 2018, arXiv:1802.04826, algorithm 1): the exact conditional of the model is its
          stationary law, however poor the encoder. The first half of the burn-in refuses
          nothing, since at a ``z`` that the encoder would never propose a chain would stay.
        - "metropolis" takes after that a step of a random walk, ``z' = z + s e``, with probability
          ``min(1, p(x_observed|z') p(z') / (p(x_observed|z) p(z)))``: the same law, and where the
          encoder's proposals are mostly refused a much shorter way to it.

        Pixels of `layers.AutoregressiveBernoulli` depend on one another: the hidden ones of some
        rows at a time are drawn given those before them, and taken by another Metropolis step,
        which makes up for those behind. The law stays the exact conditional.

        Where nothing is observed, both Metropolis methods draw from the model's own law from the
        first step on. Memory is bounded: chains are worked off in pieces.

        Args:
            x: images, shape (B, height, width, channels).
            mask: booleans, True where observed, of the shape of `x`, of one image or
                (height, width).
            num_samples: draws for each image, each from a chain of its own.
            method: one of the three.
            num_steps: steps of each chain.
            burn_in: how many of the first ones the mean and the acceptance rate leave out; by
                default half of them.
            seed: integer or stateless seed; by default the model's own stream.
            verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several
                pieces.

        Returns:
            The draws, the mean, the latent vectors and the rate of acceptance; observed pixels
            are unchanged.

        Raises:
            TypeError: `x` is a masked array; for both Metropolis methods, a likelihood that is
                neither a `tfd.Independent` nor autoregressive.
            ValueError: wrong images, observed pixels that are not finite, a mask of another shape
                or not of booleans, another method, wrong numbers, or a conditional model: take
                that of `for_label`.
        """
        labels.refuse("impute", self.num_classes)
        if method not in imputation.METHODS:
            raise ValueError(
                f"method: expected one of {', '.join(imputation.METHODS)}, got {method!r}."
            )
        num_samples = _support.check_positive_int("num_samples", num_samples)
        num_steps, burn_in = imputation.check_steps(num_steps, burn_in)
        x, mask = imputation.check_observed(x, mask, self.image_shape)
        if tf.executing_eagerly():
            self._refuse_spoiled_weights()
        x = self._images(x)
        seed = _support.stateless_seed(seed, self.seed_generator)
        if method != "pseudo-gibbs":
            z = tf.zeros([1, self.latent_dim], self.variable_dtype)
            hidden.check(self._decode(z, training=False), x[:1])
        spread = None
        if method == "metropolis":  # from draws, since not every prior knows its variance
            some = chunks.prior_draws(self, 1000, tf.random.fold_in(seed, -1))
            spread = tf.math.reduce_std(some, 0)
        piece = functools.partial(self._impute_piece, spread=spread, method=method)
        return imputation.over_chains(
            piece, chunks.at_once(self, x),
            x, mask, num_samples, num_steps, burn_in, seed, verbose,
        )  # fmt: skip

    # ------------------------------------------------------------------ saving

    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Write the whole model, prior and optimizer included, to a ``.keras`` file.

        The file appears whole or not at all: one that was there before is not lost when this
        process is stopped or the disk is full. It ends with a SHA-256 of itself, which
        `tfp_vae.training.load_model` compares, and Keras passes over.

        Args:
            filepath: ends in ``.keras``.
            overwrite: whether a file of that name may be replaced.
            **kwargs: of `keras.Model.save`.

        Raises:
            ValueError: another ending; or a prior or layer of this package that cannot be saved
                without its code. What Keras saves with its code, it refuses to load.
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
            _files.seal(temporary, {})

    def export(self, filepath: Any, format: str = "tf_saved_model") -> pathlib.Path:
        """Write the model for programs that know neither this package nor Keras.

        "tf_saved_model", for ``tf.saved_model.load(path).encode(x)`` and TensorFlow Serving, has
        these functions and signatures, of float32 tensors and for any number B of images:

        - ``encode(x)``: ``mean`` and ``stddev`` of ``q(z|x)``, shapes (B, d);
        - ``decode(z)``: ``mean`` of ``p(x|z)``, shape ``(B, *image)``;
        - ``reconstruct(x)``: ``mean`` of ``p(x|z)`` at the posterior's mean;
        - ``sample(num_samples, seed)``: draws ``z ~ p(z)``; ``mean`` and ``sample`` of ``p(x|z)``;
        - ``elbo(x, seed)``: ``elbo`` at one draw, shape (B,), nats.

        ``seed`` is an int32 vector of two; a conditional model's functions take a last argument
        ``labels``, vectors of K floats.

        "onnx" and "litert" hold the first two, ``encoder.onnx`` and ``decoder.onnx`` for ONNX
        Runtime, ``encoder.tflite`` and ``decoder.tflite`` for LiteRT, with inputs and outputs of
        the same names. Of a posterior of flows, which has no closed form, mean and standard
        deviation are in every format what its `mean` and `stddev` give, of 128 fixed draws: see
        `layers.InverseAutoregressiveFlow`.

        Args:
            filepath: a folder, which appears whole or not at all.
            format: "tf_saved_model", "onnx" or "litert".

        Returns:
            The folder.

        Raises:
            ValueError: another format, or a model whose image shape is not known.
            ImportError: "onnx" without the packages of the extra ``onnx``.
            NotImplementedError: an operation that the format has not, or, in "onnx" and "litert",
                a model of mixed precision.
            FileExistsError: the folder is there and holds something.
            OSError: it cannot be written.
        """
        return exporting.export(self, filepath, format)

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
    def use_exact_kl(self) -> bool:
        """Whether the KL is TFP's closed form or the Monte Carlo value at the decoded draws."""
        regularizer = parts.regularizer(self.encoder)
        default = True if regularizer is None else regularizer.use_exact_kl
        return default if self._use_exact_kl is None else bool(self._use_exact_kl)

    @property
    def latent_dim(self) -> int:
        """The number ``d`` of latent dimensions."""
        return self.prior.event_shape[0]

    @property
    def num_classes(self) -> int | None:
        """The number ``K`` of classes of a conditional model, `None` of one without labels."""
        return self._num_classes

    @property
    def image_shape(self) -> parts.Shape | None:
        """(height, width, channels) of one image; `None` where neither part declares it."""
        return parts.image_shape(self.encoder, self.decoder)

    def _images(self, x: Any) -> Any:
        """`x` as a tensor, or a pair of them, looked through where its values are at hand."""
        x, y = labels.pair("images", x, self.num_classes)
        if isinstance(x, tf.data.Dataset):
            raise ValueError(
                "images: expected an array or a tensor, got a tf.data.Dataset. Give its batches "
                "one by one."
            )
        x = x if tf.is_tensor(x) else np.asarray(x)
        images.check_specification(x, self.image_shape)
        if tf.executing_eagerly():
            images.check_values(x, self._pixels_in_unit_interval)
        x = tf.cast(x, self.variable_dtype)
        if self.num_classes is None:
            return x
        leading = x.shape[: x.shape.rank - len(self.image_shape or x.shape[1:])]
        y = self._label_vectors(y, leading)
        return x, tf.broadcast_to(y, tf.concat([tf.shape(x)[: len(leading)], y.shape[-1:]], 0))

    def _batch(self, x: Any) -> Any:
        """As `_images`, for what takes one batch dimension alone."""
        x = self._images(x)
        images.check_batch(_support.split_labels(x)[0], self.image_shape)
        return x

    def _label_vectors(self, y: Any, leading: tf.TensorShape) -> Any:
        """Labels as vectors that broadcast to these leading dimensions; `None` without classes."""
        if self.num_classes is None:
            return None
        y = labels.vectors(y, self.num_classes, self.variable_dtype, leading)
        try:
            fits = tf.broadcast_static_shape(y.shape[:-1], leading).is_compatible_with(leading)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"labels: expected one for all or one for each, of the shape {tuple(leading)}, got "
                f"the shape {tuple(y.shape[:-1])}."
            )
        return y

    # ------------------------------------------------------------------ mathematics

    def _encode(self, x: Any, training: bool | None) -> tfd.Distribution:
        x, y = _support.split_labels(x)
        ndims = len(self.image_shape) if self.image_shape else x.shape.rank - 1
        # The regularizer's KL is for training alone, and may be dear: a VampPrior's asks
        # the encoder about all of its images.
        quiet = without_kl() if training is False else contextlib.nullcontext()
        with quiet:
            return parts.call("encoder", self.encoder, x, ndims, (self.latent_dim,), training, y)

    def _decode(
        self, z: tf.Tensor, training: bool | None, labels: tf.Tensor | None = None
    ) -> tfd.Distribution:
        return parts.call("decoder", self.decoder, z, 1, self.image_shape, training, labels)

    def _of_prior_draws(
        self, num_samples: Any, seed: tf.Tensor, labels: Any = None
    ) -> tuple[tfd.Distribution, tf.Tensor]:
        """``p(x|z)`` at draws ``z ~ p(z)``, and the seed for pixels of it."""
        inputs, pixel_seed = self._prior_draws(num_samples, seed, labels)
        return self.decode(inputs), pixel_seed

    def _prior_draws(
        self, num_samples: Any, seed: tf.Tensor, labels: Any = None
    ) -> tuple[Any, tf.Tensor]:
        """``z ~ p(z)``, with a label for each in a conditional model, and the seed for pixels."""
        prior_seed, pixel_seed = tf.unstack(tf.random.split(seed))
        z = chunks.prior_draws(self, num_samples, prior_seed)
        if labels is None:
            return z, pixel_seed
        y = self._label_vectors(labels, z.shape[:1])
        return (z, tf.broadcast_to(y, [tf.shape(z)[0], y.shape[-1]])), pixel_seed

    def _in_pieces(self, function: Callable[[int, Any], tf.Tensor], x: Any) -> tf.Tensor:
        """``function`` of as many at a time as memory allows, joined; in a graph of all at once.

        Args:
            function: of the index of the first and of the piece.
            x: images or latent vectors, or a pair of them and labels.
        """
        if not tf.executing_eagerly():
            return function(0, x)
        size = chunks.decoded_at_once(self)
        parts_of_x = [function(start, piece) for start, piece in _support.pieces(x, size)]
        return parts_of_x[0] if len(parts_of_x) == 1 else tf.concat(parts_of_x, 0)

    def _over_images(
        self, reduce: chunks.Reduction, x: Any, num_samples: int, seed: Any, verbose: Any
    ) -> tf.Tensor:
        num_samples = _support.check_positive_int("num_samples", num_samples)
        seed = _support.stateless_seed(seed, self.seed_generator)
        x = self._batch(x)
        if tf.executing_eagerly():
            self._refuse_spoiled_weights()
        found = chunks.over_images(reduce, self, x, num_samples, seed, verbose)
        if tf.executing_eagerly():
            bad = np.flatnonzero(~np.isfinite(found))
            if bad.size:
                term = self._spoiled_term(x, bad[0])
                raise _support.NotFiniteError(_support.not_finite(term, bad))
        return found

    def _spoiled_term(self, x: Any, image: int) -> str:
        """The name of a term that is not finite at some draw of this image."""
        x = _support.take(x, slice(image, image + 1))
        posterior, (x, decode) = self._encode(x, training=False), self.given(x)
        z = posterior.sample(100, seed=[0, 0])
        terms = {
            "log p(x|z)": decode(z).log_prob(x),
            "log p(z)": self.prior().log_prob(z),
            "log q(z|x)": posterior.log_prob(z),
        }
        bad = [name for name, term in terms.items() if not np.isfinite(term).all()]
        return bad[0] if bad else "log p(x, z) - log q(z|x)"

    @tf.function(reduce_retracing=True, autograph=False)
    def _elbo_of_piece(
        self, x: Any, num_samples: tf.Tensor, chunk: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        return objectives.elbo(*folds.elbo_terms(self, x, num_samples, chunk, seed))

    @tf.function(reduce_retracing=True, autograph=False)
    def _log_likelihood_of_piece(
        self, x: Any, num_samples: tf.Tensor, chunk: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        weights = folds.importance_weights(self, x, num_samples, chunk, seed)
        count = tf.cast(num_samples, weights.log_sum.dtype)
        return tf.cast(weights.log_sum - tf.math.log(count), self.variable_dtype)

    @tf.function(reduce_retracing=True, autograph=False)
    def _impute_piece(
        self,
        x: tf.Tensor,
        observed: tf.Tensor,
        num_steps: tf.Tensor,
        burn_in: tf.Tensor,
        seed: tf.Tensor,
        spread: tf.Tensor | None,
        method: str,
    ) -> tuple[tf.Tensor, ...]:
        encode = functools.partial(self._encode, training=False)
        decode = functools.partial(self._decode, training=False)
        return imputation.chain(
            encode, decode, self.prior(), spread, x, observed, num_steps, burn_in, seed, method
        )


class _Joint(NamedTuple):
    """One draw of `VAE.joint_distribution`."""

    z: Any
    x: Any
