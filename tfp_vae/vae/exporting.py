"""A trained `VAE` as functions of tensors, for programs that know only TensorFlow."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from tfp_vae.vae.model import VAE

FORMATS = ("tf_saved_model",)


def export(vae: "VAE", path: Any, format: str) -> pathlib.Path:
    """See `VAE.export`."""
    if format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}.")
    if None in (vae.image_shape or (None,)):
        raise ValueError(f"export: expected a model of images of one shape, got {vae.image_shape}.")
    path = pathlib.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path}: expected a new or an empty folder, got one with content.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, then renamed: what is there is whole.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
        whole = pathlib.Path(temporary) / "whole"
        _saved_model(vae, whole)
        if path.exists():
            path.rmdir()
        os.replace(whole, path)
    return path


def endpoints(vae: "VAE") -> dict[str, tuple[Callable[..., Any], list[tf.TensorSpec]]]:
    """Functions of tensors with their signatures, by name."""
    assert vae.image_shape is not None
    x = tf.TensorSpec([None, *vae.image_shape], tf.float32, "x")
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
        return {"mean": vae.decode(paired(z, labels)).mean()}

    def reconstruct(x: tf.Tensor, *labels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"mean": vae.reconstruct(paired(x, labels))}

    def sample(num_samples: tf.Tensor, seed: tf.Tensor, *labels: tf.Tensor) -> dict[str, tf.Tensor]:
        prior_seed, pixel_seed = tf.unstack(tf.random.split(seed))
        draws = vae.prior().sample(num_samples, seed=prior_seed)
        likelihood = vae.decode(paired(draws, labels))
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


def _saved_model(vae: "VAE", folder: pathlib.Path) -> None:
    # Not by Keras' archive, which would also save how layers are called: they return
    # distributions, whose classes a program that loads the model need not have.
    module = tf.Module()
    module.weights = [variable.value for variable in vae.variables]
    signatures = {}
    for name, (function, signature) in endpoints(vae).items():
        compiled = tf.function(function, signature, autograph=False)
        setattr(module, name, compiled)
        signatures[name] = compiled.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures)
