"""A trained `VAE` as functions of tensors, for programs without Keras and this package."""

import importlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfp_vae import _files
from tfp_vae.vae import onnx_operations

if TYPE_CHECKING:
    from tfp_vae.vae.model import VAE

Endpoint = tuple[Callable[..., Any], list[tf.TensorSpec]]


def export(vae: "VAE", path: Any, format: str) -> pathlib.Path:
    """See `VAE.export`."""
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}.")
    if None in (vae.image_shape or (None,)):
        raise ValueError(f"export: expected a model of images of one shape, got {vae.image_shape}.")
    path = pathlib.Path(path)
    with _files.whole_folder(path) as folder:
        FORMATS[format](vae, folder)
    return path


def endpoints(vae: "VAE") -> dict[str, Endpoint]:
    """Functions of tensors with their signatures, by name."""
    image_shape = vae.image_shape
    assert image_shape is not None
    x = tf.TensorSpec([None, *image_shape], tf.float32, "x")
    z = tf.TensorSpec([None, vae.latent_dim], tf.float32, "z")
    seed = tf.TensorSpec([2], tf.int32, "seed")
    count = tf.TensorSpec([], tf.int32, "num_samples")
    classes = vae.num_classes
    labels = [] if classes is None else [tf.TensorSpec([None, classes], tf.float32, "labels")]

    def paired(tensor: tf.Tensor, labels: tuple[tf.Tensor, ...]) -> Any:
        return (tensor, labels[0]) if labels else tensor

    def encode(x: tf.Tensor, *labels: tf.Tensor) -> dict[str, tf.Tensor]:
        posterior = vae.encode(paired(x, labels))
        return {"mean": posterior.mean(), "stddev": posterior.stddev()}

    def decode(z: tf.Tensor, *labels: tf.Tensor) -> dict[str, tf.Tensor]:
        mean = vae.decode(paired(z, labels)).mean()
        mean.set_shape([None, *image_shape])  # which of a mixture TFP does not know
        return {"mean": mean}

    def reconstruct(x: tf.Tensor, *labels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mean": vae.reconstruct(paired(x, labels))}

    def sample(num_samples: tf.Tensor, seed: tf.Tensor, *labels: tf.Tensor) -> dict[str, tf.Tensor]:
        likelihood, pixel_seed = vae._of_prior_draws(num_samples, seed, *labels)
        return {"mean": likelihood.mean(), "sample": likelihood.sample(seed=pixel_seed)}

    def elbo(x: tf.Tensor, seed: tf.Tensor, *labels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"elbo": vae.elbo(paired(x, labels), seed=seed)}

    return {
        "encode": (encode, [x, *labels]),
        "decode": (decode, [z, *labels]),
        "reconstruct": (reconstruct, [x, *labels]),
        "sample": (sample, [count, seed, *labels]),
        "elbo": (elbo, [x, seed, *labels]),
    }


# ---------------------------------------------------------------------- formats


def _saved_model(vae: "VAE", folder: pathlib.Path) -> None:
    _save(vae, folder, endpoints(vae))


def _save(vae: "VAE", folder: pathlib.Path, functions: dict[str, Endpoint]) -> None:
    # Not by Keras' archive, which would also save how layers are called: they return
    # distributions, whose classes a program that loads the model need not have.
    module = tf.Module()
    module.weights = [variable.value for variable in vae.variables]
    signatures = {}
    for name, (function, signature) in functions.items():
        compiled = tf.function(function, signature, autograph=False)
        setattr(module, name, compiled)
        signatures[name] = compiled.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures)


def _networks(vae: "VAE", format: str) -> dict[str, tuple[str, Endpoint]]:
    """The two functions that have no state and no draws, by the name of their file."""
    for name in ("encoder", "decoder"):
        kinds = set(_compute_dtypes(getattr(vae, name))) - {"float32"}
        if kinds:
            raise _cannot(format, name, f"expected float32, got {', '.join(sorted(kinds))}")
    known = endpoints(vae)
    return {"encoder": ("encode", known["encode"]), "decoder": ("decode", known["decode"])}


def _compute_dtypes(layer: keras.layers.Layer) -> Iterator[str]:
    children = getattr(layer, "layers", ())
    if not children:
        yield layer.compute_dtype
    for child in children:
        yield from _compute_dtypes(child)


def _onnx(vae: "VAE", folder: pathlib.Path) -> None:
    tf2onnx, onnx = _tool("tf2onnx"), _tool("onnx")
    for name, (_, (function, signature)) in _networks(vae, "onnx").items():
        compiled = tf.function(function, signature, autograph=False)
        try:
            model, _ = tf2onnx.convert.from_function(
                compiled, signature, custom_op_handlers=onnx_operations.HANDLERS
            )
        except Exception as error:  # tf2onnx raises nearly anything
            raise _cannot("onnx", name, error) from error
        shapes = {spec.name: spec.shape for spec in signature}
        for key, value in compiled.get_concrete_function().structured_outputs.items():
            shapes[key] = value.shape
        for value in (*model.graph.input, *model.graph.output):
            # By name, since tf2onnx gives each unknown size one of its own.
            for size, dim in zip(shapes[value.name], value.type.tensor_type.shape.dim, strict=True):
                if size is None:
                    dim.dim_param = "batch"
                else:
                    dim.dim_value = size
        try:
            # What tf2onnx cannot convert it only writes a line about, and leaves in the graph.
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise _cannot("onnx", name, error) from error
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())


def _litert(vae: "VAE", folder: pathlib.Path) -> None:
    for name, (key, endpoint) in _networks(vae, "litert").items():
        # By way of a SavedModel: of a function itself the converter of TensorFlow 2.21 leaves the
        # weights of Keras out, and says nothing.
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            saved = pathlib.Path(temporary) / "saved"
            _save(vae, saved, {key: endpoint})
            converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[key])
            try:
                content = converter.convert()
            except Exception as error:  # of a class that TensorFlow does not name in public
                raise _cannot("litert", name, error) from error
        (folder / f"{name}.tflite").write_bytes(content)


FORMATS = {"tf_saved_model": _saved_model, "onnx": _onnx, "litert": _litert}


def _cannot(format: str, name: str, why: Any) -> NotImplementedError:
    said = str(why).strip().partition("\n")[0]
    return NotImplementedError(f"export: {format} cannot hold this {name}: {said[:300]}")


def _tool(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"export: format='onnx' needs the package {module}, got: {error}. "
            "Try: pip install tf2onnx onnxruntime"
        ) from error
