"""`DistributionLambda`: what every distribution layer does, whatever its distribution."""

import contextlib
import contextvars
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.layers.regularizers import KLDivergenceRegularizer

_leading_shape: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar(
    "tfp_vae_leading_shape", default=None
)


@contextlib.contextmanager
def restored_leading_shape(shape: tf.Tensor | None) -> Iterator[None]:
    """Distributions made inside have their first batch dimension unfolded to `shape`.

    Most Keras models take one leading dimension only, so a caller with more of them folds them
    into one. Unfolding the *parameters*, here, keeps the distribution's own type and its
    broadcasting rules, which wrapping it in a `tfd.BatchReshape` afterwards would not.
    """
    token = _leading_shape.set(shape)
    try:
        yield
    finally:
        _leading_shape.reset(token)


_alone: contextvars.ContextVar[bool] = contextvars.ContextVar("tfp_vae_alone", default=False)


@contextlib.contextmanager
def without_kl() -> Iterator[None]:
    """Distributions made inside add no KL to the losses."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@contextlib.contextmanager
def call_apart() -> Iterator[None]:
    """A Keras model called inside knows nothing of a call around it, and adds nothing to the loss.

    For a prior that asks the encoder about images of its own: it may itself be asked by the
    regularizer in the midst of the encoder's call, whose leading shape is not that of these images
    and whose regularizer would ask the prior again.
    """
    # The losses of layers called in a scope of Keras that is given none to collect are dropped.
    with without_kl(), restored_leading_shape(None), keras.StatelessScope():
        yield


def _unfold(parameters: tf.Tensor) -> tf.Tensor:
    shape = _leading_shape.get()
    if shape is None:
        return parameters
    static = tf.get_static_value(shape)
    if static is not None:
        return tf.reshape(parameters, [*static, *parameters.shape[1:]])
    return tf.reshape(parameters, tf.concat([shape, parameters.shape[1:]], 0))


def _at_least_float32(tensor: tf.Tensor) -> tf.Tensor:
    # bfloat16 has 8 bits of precision: a log-density summed over 784 pixels would keep two digits.
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor


_METHODS = ("sample", "mean", "mode", "stddev", "variance", "logits", "probs")


def _as_method_name(convert: Any) -> str | Callable[[tfd.Distribution], tf.Tensor]:
    """`convert` as the name of a method where it is one of TFP's, which can be saved as text."""
    if isinstance(convert, str):
        if convert not in _METHODS:
            raise ValueError(
                f"convert_to_tensor_fn: expected one of {', '.join(_METHODS)} or a function of "
                f"the distribution, got {convert!r}."
            )
        return convert
    # tfd.Distribution.mean is a function, tfd.Bernoulli.logits a property.
    function = convert.fget if isinstance(convert, property) else convert
    if not callable(function):
        raise TypeError(
            "convert_to_tensor_fn: expected the name of a method or a function of the "
            f"distribution, got {type(convert).__name__}."
        )
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", None) or ""
    if name in _METHODS and module.startswith("tensorflow_probability."):
        return name
    return function


_TO_TENSOR = "_tfp_vae_to_tensor"


def _make_convertible(
    distribution: tfd.Distribution, to_tensor: Callable[[tfd.Distribution], tf.Tensor]
) -> None:
    """Let TensorFlow and Keras turn this one object into a tensor."""
    itself = weakref.ref(distribution)  # no cycle, which only the garbage collector would free

    def as_array(dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(to_tensor(itself()), dtype)

    # Keras tries the conversion on anything that has `__array__`.
    distribution.__array__ = as_array
    setattr(distribution, _TO_TENSOR, to_tensor)


def _convert(
    distribution: tfd.Distribution, dtype: Any = None, name: Any = None, as_ref: bool = False
) -> Any:
    del name, as_ref
    to_tensor = getattr(distribution, _TO_TENSOR, None)
    if to_tensor is None:
        return NotImplemented
    value = to_tensor(distribution)
    return value if dtype is None else tf.cast(value, dtype)


tf.register_tensor_conversion_function(tfd.Distribution, _convert)


@_support.register
class DistributionLambda(keras.layers.Layer):
    """The layer ``parameters -> make_distribution_fn(parameters)``.

    The parameters reach the function as float32 or wider, whatever the precision policy: under
    ``mixed_bfloat16`` the layers before it compute in bfloat16, the density does not.

    Where a tensor is needed (``tf.convert_to_tensor(q)``, or the distribution handed to another
    Keras layer), `convert_to_tensor_fn` makes it.

    Args:
        make_distribution_fn: takes the output of the layer before, returns a
            `tfd.Distribution`. To be saved it must be registered with
            ``keras.saving.register_keras_serializable``: code is never pickled.
        convert_to_tensor_fn: the name of a method of the distribution (``"sample"``,
            ``"mean"``, ``"logits"``), such a method itself (``tfd.Distribution.mean``), or a
            registered function of the distribution.
        activity_regularizer: a function of the distribution that returns a scalar, added to the
            loss once for each call; see `KLDivergenceRegularizer`.
        seed: integer seed of the draws of ``convert_to_tensor_fn="sample"``.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        TypeError: what `make_distribution_fn` returned is no distribution.
        ValueError: on saving, a function that has no registered name.

    Source: the layer of the same name in TensorFlow Probability.
    """

    def __init__(
        self,
        make_distribution_fn: Callable[[tf.Tensor], tfd.Distribution],
        convert_to_tensor_fn: str | Callable[[tfd.Distribution], tf.Tensor] = "sample",
        *,
        activity_regularizer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # autocast=False: under a mixed policy Keras would round float32 parameters to bfloat16.
        super().__init__(activity_regularizer=activity_regularizer, autocast=False, **kwargs)
        if not callable(make_distribution_fn):
            raise TypeError(
                "make_distribution_fn: expected a function from a tensor to a tfd.Distribution, "
                f"got {type(make_distribution_fn).__name__}."
            )
        self.make_distribution_fn = make_distribution_fn
        self.convert_to_tensor_fn = _as_method_name(convert_to_tensor_fn)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.regularizer_prior: keras.layers.Layer | None = None
        if isinstance(self.activity_regularizer, KLDivergenceRegularizer):
            # As attributes, so that Keras trains and saves a learned prior with the encoder.
            self.regularizer_seed_generator = self.activity_regularizer.seed_generator
            if isinstance(self.activity_regularizer.distribution_b, keras.layers.Layer):
                self.regularizer_prior = self.activity_regularizer.distribution_b

    #: Whether the draws are pixels in [0, 1], so that others are refused as data.
    unit_interval = False

    #: Whether the parameters of a pixel stand beside one another, not those of a kind.
    parameters_by_pixel = False

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, inputs: Any) -> tfd.Distribution:
        distribution = self._make(tf.nest.map_structure(_unfold, inputs))
        is_kl = isinstance(self.activity_regularizer, KLDivergenceRegularizer)
        if self.activity_regularizer is not None and not (is_kl and _alone.get()):
            # Keras itself applies an activity regularizer to tensors only, and divides it by the
            # batch size: for a distribution it does neither, so this is the one place.
            if getattr(self.regularizer_prior, "bound", True):
                self.add_loss(self.activity_regularizer(distribution))
            else:
                prior = type(self.regularizer_prior).__name__
                warnings.warn(
                    f"{self.name}: the KL is not in the losses of this call, since its prior, a "
                    f"{prior}, is bound to no encoder. VAE(encoder, decoder) binds it.",
                    stacklevel=2,
                )
        return distribution

    def _make(self, inputs: Any) -> tfd.Distribution:
        parameters = tf.nest.map_structure(_at_least_float32, inputs)
        distribution = self.make_distribution_fn(parameters)
        if not isinstance(distribution, tfd.Distribution):
            raise TypeError(
                "make_distribution_fn: expected it to return a tfd.Distribution, got "
                f"{type(distribution).__name__}."
            )
        _make_convertible(distribution, self._to_tensor)
        return distribution

    def _to_tensor(self, distribution: tfd.Distribution) -> tf.Tensor:
        convert = self.convert_to_tensor_fn
        if convert == "sample":
            seed = _support.stateless_seed(None, self.seed_generator)
            return distribution.sample(seed=seed)
        if convert in ("logits", "probs"):
            base = getattr(distribution, "distribution", distribution)
            return getattr(base, f"{convert}_parameter")()
        if isinstance(convert, str):
            return getattr(distribution, convert)()
        return tf.convert_to_tensor(convert(distribution))

    def compute_output_spec(self, inputs: Any, **kwargs: Any) -> keras.KerasTensor:
        """The symbolic value of the layer: the tensor that the distribution converts to."""
        specs = []

        def probe(parameters: Any) -> tf.Tensor:
            value = tf.convert_to_tensor(self._make(parameters))
            specs.append((value.shape, value.dtype.name))
            return value

        tf.function(probe).get_concrete_function(
            tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), inputs)
        )
        shape, dtype = specs[-1]
        return keras.KerasTensor(tuple(shape), dtype=dtype)

    def _function_config(self) -> dict[str, Any]:
        """The arguments from which `make_distribution_fn` comes back."""
        name = _support.named_callable_to_config("make_distribution_fn", self.make_distribution_fn)
        return {"make_distribution_fn": name}

    def get_config(self) -> dict[str, Any]:
        convert: Any = self.convert_to_tensor_fn
        if not isinstance(convert, str):
            name = _support.named_callable_to_config("convert_to_tensor_fn", convert)
            convert = {"function": name}
        regularizer = self.activity_regularizer
        config = {
            **super().get_config(),
            **self._function_config(),
            "convert_to_tensor_fn": convert,
            "activity_regularizer": regularizer and keras.regularizers.serialize(regularizer),
            "seed": self.seed,
        }
        config.pop("autocast", None)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DistributionLambda":
        config = dict(config)
        if isinstance(config.get("make_distribution_fn"), str):
            config["make_distribution_fn"] = _support.named_callable_from_config(
                "make_distribution_fn", config["make_distribution_fn"]
            )
        convert = config.get("convert_to_tensor_fn")
        if isinstance(convert, dict):
            config["convert_to_tensor_fn"] = _support.named_callable_from_config(
                "convert_to_tensor_fn", convert["function"]
            )
        return cls(**config)
