"""What every floor may use: the backend check, seeds, shape helpers, registration.

Imports nothing else from the package.
"""

import math
import numbers
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar


def _refuse_backend(backend: str) -> None:
    if backend != "tensorflow":
        raise ImportError(
            "tfp_vae needs the TensorFlow backend of Keras. Expected 'tensorflow', got "
            f"{backend!r}. Set the environment variable KERAS_BACKEND=tensorflow (or edit "
            "keras.json in the .keras folder of your home directory) and start Python again."
        )


# Asked before Keras is imported: with another backend that is not installed, Keras'
# own import fails first and names neither the setting nor this package.
_refuse_backend(os.environ.get("KERAS_BACKEND") or "tensorflow")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_probability as tfp  # noqa: E402

_refuse_backend(keras.config.backend())

_Registered = TypeVar("_Registered", bound=type)

PACKAGE = "tfp_vae"


def register(cls: _Registered) -> _Registered:
    """Register `cls` with Keras as ``tfp_vae>Name``, so saved models load without help."""
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


def limited(value: tf.Tensor, lowest: float, highest: float) -> tf.Tensor:
    """`value` within limits, with the gradient that it has without them.

    So what was led beyond by one bad step finds the way back. Not TFP's
    ``clip_by_value_preserve_gradient``, whose ``value + (limit - value)`` is rounded far outside.
    """
    within = tf.clip_by_value(value, lowest, highest)
    return tf.stop_gradient(within) + (value - tf.stop_gradient(value))


def sees_gpu() -> bool:
    """Whether TensorFlow may use one in this process."""
    return bool(tf.config.get_visible_devices("GPU"))


def replicas() -> int:
    """How many replicas of a `tf.distribute` strategy work on one step, here and now."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def worker(strategy: Any = None) -> tuple[int, int]:
    """Which of the processes of a `tf.distribute` strategy this is, from 0, and how many there are.

    Args:
        strategy: by default that whose scope this is.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict()
    if not cluster:  # made without TF_CONFIG
        return 0, 1
    chiefs = len(cluster.get("chief", ()))  # where there is none, the first worker is it
    before = 0 if resolver.task_type == "chief" else chiefs
    return before + resolver.task_id, chiefs + len(cluster.get("worker", ()))


def stateless_seed(
    seed: Any, generator: "keras.random.SeedGenerator", *, of_replica: bool = True
) -> tf.Tensor:
    """A stateless seed, shape (2,), int32.

    Args:
        seed: `None` takes the next one of `generator`; an integer always gives the same;
            a tensor of shape (2,) is used as it is.
        generator: the owner's own stream of seeds.
        of_replica: whether replicas of a `tf.distribute` strategy get different ones.

    Raises:
        TypeError: `seed` is neither of those.
    """
    if seed is None:
        own = tf.bitcast(tf.cast(generator.next(), tf.uint32), tf.int32)
        if not of_replica or replicas() == 1:
            return own
        # All replicas hold the same generator: without this they would draw the same noise.
        replica = tf.distribute.get_replica_context()
        return tf.random.fold_in(own, replica.replica_id_in_sync_group)
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"seed: expected an integer of at most 64 bits, got {seed}.")
        low, high = int(seed) & 0xFFFFFFFF, (int(seed) >> 32) & 0xFFFFFFFF
        return tf.constant(np.array([high, low], np.uint32).view(np.int32))
    if tf.is_tensor(seed) and seed.shape == (2,) and seed.dtype.is_integer:
        return tf.cast(seed, tf.int32)
    raise TypeError(
        f"seed: expected None, an integer or an integer tensor of shape (2,), got {seed!r}."
    )


def spoiled_weights(model: "keras.Model") -> list[str]:
    """The paths of the weights that hold NaN or infinity.

    A model need not show them: TensorFlow's rectifier makes 0 of NaN.
    """
    return [
        weight.path
        for weight in model.weights
        if not np.isfinite(np.asarray(weight, np.float32)).all()
    ]


def check_positive_int(name: str, value: Any) -> int:
    """`value` as an `int` of at least 1, or a `ValueError` that names it."""
    return check_int(name, value, 1)


def check_int(name: str, value: Any, at_least: int) -> int:
    """`value` as an `int` of at least that, or a `ValueError` that names it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise ValueError(f"{name}: expected an integer of at least {at_least}, got {value!r}.")
    return int(value)


def check_sizes(name: str, sizes: Any, at_least: int = 1) -> list[int]:
    """`sizes` as a list of such `int`, or a `ValueError` that names it."""
    if isinstance(sizes, (str, Mapping)) or not hasattr(sizes, "__len__"):
        raise ValueError(f"{name}: expected a list of sizes, got {sizes!r}.")
    return [check_int(name, size, at_least) for size in sizes]


def check_number(name: str, value: Any, *, positive: bool = False) -> float:
    """`value` as a finite `float` of at least 0, or above it, or a `ValueError` that names it."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and (value > 0 if positive else value >= 0)):
        bound = "above 0" if positive else "of at least 0"
        raise ValueError(f"{name}: expected a finite number {bound}, got {value!r}.")
    return float(value)


def check_mask(mask: Any, shape: Sequence[int]) -> np.ndarray:
    """`mask`, True where a pixel is observed, in the shape of the images.

    Args:
        mask: booleans of the shape of all images, of one, or (height, width).
        shape: of the images, (B, *image).

    Raises:
        ValueError: no booleans, or another shape.
    """
    mask, shape = np.asarray(mask), tuple(shape)
    if mask.dtype != bool:
        raise ValueError(
            f"mask: expected booleans, True where a pixel is observed, got {mask.dtype.name}."
        )
    allowed = [shape, shape[1:], *([shape[1:3]] if len(shape) == 4 else [])]
    if mask.shape not in allowed:
        raise ValueError(
            f"mask: expected the shape {' or '.join(map(str, allowed))}, got {mask.shape}."
        )
    plane = len(shape) == 4 and mask.ndim == 2
    return np.broadcast_to(mask[..., np.newaxis] if plane else mask, shape)


def outside_unit_interval(low: float, high: float, of_bytes: str) -> str:
    """What was got in place of pixels in [0, 1], and the remedy: `of_bytes` of 8-bit ones."""
    return f"got values from {low:.9g} to {high:.9g}. {into_unit_interval(low, high, of_bytes)}"


def into_unit_interval(low: float, high: float, of_bytes: str) -> str:
    """What to do with pixels of this range; `of_bytes`, if they look like 8-bit ones."""
    if high > 2:
        return of_bytes
    if -1 <= low < -0.5 and high <= 1:
        return "Of pixels in [-1, 1] take (x + 1) / 2."
    return "Bring them there, as by numpy.clip(x, 0, 1)."


def split_labels(x: Any) -> tuple[Any, Any]:
    """(images or latent vectors, labels); the labels are `None` where `x` is no pair."""
    return x if isinstance(x, tuple) else (x, None)


def count(x: Any) -> int:
    """How many images there are in `x`, whether they have labels or not."""
    return len(split_labels(x)[0])


def take(x: Any, which: Any) -> Any:
    """Those images of `x`, with their labels if they have any: a slice, or indices."""

    def of(part: Any) -> Any:
        indices = tf.is_tensor(part) and not isinstance(which, slice)
        return tf.gather(part, which) if indices else part[which]

    return tf.nest.map_structure(of, x)


def pieces(x: Any, size: int) -> Iterator[tuple[int, Any]]:
    """`x` in pieces of at most `size` images, each with the index of its first."""
    for start in range(0, count(x), size):
        yield start, take(x, slice(start, start + size))


def flatten_leading(tensor: tf.Tensor, event_ndims: int) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Fold all dimensions before the last `event_ndims` into one.

    Returns:
        The tensor of shape (N, *event) and the leading shape to restore, `None` where
        there was exactly one leading dimension and nothing was done.
    """
    if tensor.shape.rank == event_ndims + 1:
        return tensor, None
    lead, event = tensor.shape[:-event_ndims], tensor.shape[-event_ndims:]
    flat = tf.reshape(tensor, [-1, *event])
    # A static shape where there is one: TFP reports a static batch_shape from it.
    if lead.is_fully_defined():
        return flat, tf.constant(lead.as_list(), tf.int32)
    return flat, tf.shape(tensor)[:-event_ndims]


def check_constant(distribution: "tfp.distributions.Distribution") -> None:
    """Refuse a distribution with variables, which Keras would neither train nor save.

    Raises:
        ValueError: it holds some.
    """
    if distribution.variables:
        raise ValueError(
            f"prior: expected a {type(distribution).__name__} of constants, got one that holds "
            "tf.Variables, which Keras would neither train nor save. Write a subclass of "
            "tfp_vae.priors.Prior that owns them."
        )


def closed_form_kl(
    a: "tfp.distributions.Distribution", b: "tfp.distributions.Distribution"
) -> tf.Tensor:
    """``KL(a || b)`` by TFP's closed form, in nats: shape `a.batch_shape`.

    Independent normals count as the multivariate normal that they are: TFP has no form for a
    `tfd.Independent` and a multivariate normal, the pair of its own VAE tutorial.

    Raises:
        NotImplementedError: there is none for this pair; it is named, with the remedy.
    """
    try:
        return tfp.distributions.kl_divergence(_multivariate(a), _multivariate(b))
    except NotImplementedError as error:
        raise NotImplementedError(
            f"TFP knows no closed form for the KL of {type(a).__name__} from {type(b).__name__}: "
            "give use_exact_kl=False for the Monte Carlo KL."
        ) from error


def monte_carlo_kl(
    a: "tfp.distributions.Distribution", b: "tfp.distributions.Distribution", z: tf.Tensor
) -> tf.Tensor:
    """``log a(z) - log b(z)``, whose mean over ``z ~ a`` is ``KL(a || b)``, in nats."""
    return a.log_prob(z) - b.log_prob(z)


def number(value: Any, dtype: Any) -> tf.Tensor:
    """A number or a tensor in this type; `tf.cast` would take Python's floats through float32."""
    return tf.cast(value if tf.is_tensor(value) else np.float64(value), dtype)


class NotFiniteError(ValueError):
    """Terms of some images are NaN or infinite; the message is that of `not_finite`."""


def not_finite(name: str, bad: Any, first: int = 0) -> str:
    """What a person is told of NaN or infinity in a term, by the images where it was met.

    Args:
        name: of the term, as printed.
        bad: their indices, rising.
        first: what to count them from.
    """
    others = f" and {len(bad) - 1} of the images after it." if len(bad) > 1 else "."
    return f"{name}: expected finite values, got NaN or infinity at image {first + bad[0]}{others}"


def pixel_log_prob(likelihood: "tfp.distributions.Distribution", x: tf.Tensor) -> tf.Tensor:
    """``log p(x_i|z)`` of each number of the images, not summed: shape (..., B, *image).

    Raises:
        TypeError: the likelihood's pixels are not independent ones.
    """
    # Not by the class: TFP makes a private one around parts that are no composite tensors.
    if not hasattr(likelihood, "reinterpreted_batch_ndims"):
        raise TypeError(
            "likelihood: expected one of independent pixels, a tfd.Independent, got "
            f"{type(likelihood).__name__}."
        )
    return likelihood.distribution.log_prob(x)


def _multivariate(distribution: "tfp.distributions.Distribution") -> Any:
    tfd = tfp.distributions
    if (
        isinstance(distribution, tfd.Independent)
        and isinstance(distribution.distribution, tfd.Normal)
        and distribution.event_shape.rank == 1
    ):
        normal = distribution.distribution
        scale = tf.broadcast_to(normal.scale, normal.batch_shape_tensor())
        return tfd.MultivariateNormalDiag(normal.loc, scale)
    return distribution


def distribution_to_config(distribution: "tfp.distributions.Distribution") -> dict[str, Any]:
    """Plain data from which `distribution_from_config` makes the same distribution.

    Raises:
        ValueError: a parameter (a function, a bijector, a variable) is not plain data.
    """
    # Those of this package are TFP's with less work, and load as TFP's.
    cls = next(c for c in type(distribution).__mro__ if not c.__module__.startswith("tfp_vae."))
    name = cls.__name__.lstrip("_")
    foreign = not cls.__module__.startswith("tensorflow_probability.")
    if foreign or not isinstance(getattr(tfp.distributions, name, None), type):
        raise ValueError(
            f"{cls.__name__} is not a class of tfp.distributions and cannot be saved. Write a "
            "subclass of tfp_vae.priors.Prior."
        )
    parameters = {
        key: _parameter_to_config(f"{name}({key}=...)", value)
        for key, value in distribution.parameters.items()
    }
    return {"distribution": name, "parameters": parameters}


def _parameter_to_config(label: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tfp.distributions.Distribution):
        return distribution_to_config(value)
    if isinstance(value, tf.DType) or (isinstance(value, type) and issubclass(value, np.generic)):
        return {"dtype": tf.as_dtype(value).name}
    if isinstance(value, (list, tuple, tf.TensorShape)):
        # Not as an array: TFP makes float32 of Python's numbers and keeps NumPy's float64.
        return [_parameter_to_config(label, item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)) or tf.is_tensor(value):
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return {"array": array.tolist(), "dtype": array.dtype.name}
    raise ValueError(
        f"{label}: expected plain numbers or another distribution, got {type(value).__name__}, "
        "which can only be saved by pickling code. Write a subclass of tfp_vae.priors.Prior."
    )


def distribution_from_config(config: dict[str, Any]) -> "tfp.distributions.Distribution":
    """The inverse of `distribution_to_config`. Only classes of tfp.distributions are made."""
    cls = getattr(tfp.distributions, str(config["distribution"]), None)
    if not (isinstance(cls, type) and issubclass(cls, tfp.distributions.Distribution)):
        raise ValueError(f"{config['distribution']!r} is not a class of tfp.distributions.")
    return cls(**{key: _parameter_from_config(v) for key, v in config["parameters"].items()})


def _parameter_from_config(value: Any) -> Any:
    if isinstance(value, list):
        return [_parameter_from_config(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "distribution" in value:
        return distribution_from_config(value)
    if "array" in value:
        return np.array(value["array"], value["dtype"])
    return tf.as_dtype(value["dtype"])


def named_callable_to_config(label: str, function: Callable[..., Any]) -> str:
    """The name under which Keras registered `function`.

    Raises:
        ValueError: it has none, so that only its code could be saved.
    """
    name = keras.saving.get_registered_name(function)
    if keras.saving.get_registered_object(name) is not function:
        raise ValueError(
            f"{label}: {function!r} has no name that a saved model could find again. Decorate it "
            "with @keras.saving.register_keras_serializable(package=...) to save the model."
        )
    return name


def named_callable_from_config(label: str, name: str) -> Callable[..., Any]:
    """The registered function of that name; the inverse of `named_callable_to_config`."""
    function = keras.saving.get_registered_object(name)
    if function is None:
        raise ValueError(
            f"{label}: no function is registered as {name!r}. Import the module that decorates it "
            "with @keras.saving.register_keras_serializable before loading."
        )
    return function
