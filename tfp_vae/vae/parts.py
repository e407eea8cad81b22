"""What a `VAE` asks of its encoder, decoder and prior, and how it calls them."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_vae import _support, layers, priors
from tfp_vae.layers.base import restored_leading_shape

Shape = tuple[int | None, ...]

_POSTERIORS = (
    layers.InverseAutoregressiveFlow,
    layers.MultivariateNormalDiag,
    layers.MultivariateNormalTriL,
)


def declared_shape(part: keras.Model, name: str) -> Shape | None:
    """The event part of ``input_shape`` or ``output_shape``, `None` where Keras knows none.

    Of several inputs that of the first: the second one of a conditional model are the labels.
    """
    shape = getattr(part, name, None)
    if isinstance(shape, list) and shape:
        shape = shape[0]
    return tuple(shape[1:]) if isinstance(shape, tuple) else None


def distribution_layers(layer: keras.layers.Layer) -> list[layers.DistributionLambda]:
    """The distribution layers of a model, those within its models and layers included."""
    if isinstance(layer, layers.DistributionLambda):
        return [layer]
    # Only models have `layers`; what a layer is made of Keras keeps in `_layers`, and its losses
    # with those of the model.
    children: Any = getattr(layer, "layers", None)
    if children is None:
        children = getattr(layer, "_layers", ())
    found = [one for child in children for one in distribution_layers(child)]
    return list({id(one): one for one in found}.values())


def widest_layer(network: keras.layers.Layer) -> int | None:
    """How many numbers the widest of a network's layers makes of one input.

    `None` where Keras does not know their shapes, as in subclassed models: of one within another
    network it knows what it gives on, and no more.
    """
    children = getattr(network, "layers", None) or []
    widths = [widest_layer(child) for child in children]
    networks = [hasattr(child, "layers") for child in children]
    if (None, True) in zip(widths, networks, strict=True):
        return None
    if any(widths):
        return max(filter(None, widths))
    try:
        outputs = tf.nest.flatten(network.output)
    except AttributeError:  # Keras has not seen the layer in a graph
        return None
    shapes = [getattr(output, "shape", (None,))[1:] for output in outputs]
    return max((math.prod(shape) for shape in shapes if None not in shape), default=None)


def widest(encoder: keras.Model, decoder: keras.Model, prior: priors.Prior) -> int | None:
    """Numbers in the largest tensor that an image and one draw of its ``z`` take.

    `None` where a network does not tell.
    """
    of_encoder, of_decoder = widest_layer(encoder), widest_layer(decoder)
    if of_encoder is None or of_decoder is None:
        return None
    return max(of_encoder, of_decoder, width_of_density(prior, encoder))


def width_of_density(prior: priors.Prior, encoder: keras.Model) -> int:
    """Numbers that the density of one ``z`` takes: those of all components of a mixture."""
    of_one = math.prod(prior.event_shape)
    if isinstance(prior, priors.VampPrior):
        of_one = max(of_one, width_of_posterior(encoder))
    return getattr(prior, "num_components", 1) * of_one


def width_of_posterior(encoder: keras.Model) -> int:
    """Numbers that a draw of ``q(z|x)`` or its density take: hidden units of a flow's networks."""
    layer = posterior_layer(encoder)
    return max(getattr(layer, "event_size", 1), *getattr(layer, "units", ()), 1)


def posterior_layer(encoder: keras.Model) -> layers.DistributionLambda | None:
    """The layer of the encoder that makes ``q(z|x)``, `None` where it is not one of ours."""
    found = distribution_layers(encoder)
    return found[-1] if found else None


def regularizer(encoder: keras.Model) -> layers.KLDivergenceRegularizer | None:
    """The encoder's KL regularizer, if it has one."""
    found = getattr(posterior_layer(encoder), "activity_regularizer", None)
    return found if isinstance(found, layers.KLDivergenceRegularizer) else None


def regularizer_weight(encoder: keras.Model) -> float:
    """The weight of the KL in the encoder's regularizer, 1 where there is none."""
    found = regularizer(encoder)
    return 1.0 if found is None else found.weight


def example_posterior(encoder: keras.Model) -> tfd.Distribution | None:
    """A ``q(z|x)`` of the encoder's kind, batch shape (1,).

    `None` where the encoder does not end in one of the layers that fix their distribution: what
    another layer makes is not known before images come.
    """
    layer = posterior_layer(encoder)
    if not isinstance(layer, _POSTERIORS):
        return None
    return layer.make_distribution_fn(tf.zeros([1, layer.input_size], layer.variable_dtype))


def image_shape(encoder: keras.Model, decoder: keras.Model) -> Shape | None:
    """Of one image: the encoder's input, else the likelihood's event, where either is declared."""
    declared = declared_shape(encoder, "input_shape")
    if declared is None:
        # A subclassed model declares no shapes, but its likelihood layer knows its event.
        found = distribution_layers(decoder)
        declared = getattr(found[-1], "event_shape", None) if found else None
    return declared


def one_prior(prior: Any, encoder: keras.Model) -> priors.Prior:
    """The prior that encoder and model share.

    Raises:
        TypeError: it is no prior.
        ValueError: there is none, or there are two.
    """
    of_encoder = getattr(regularizer(encoder), "distribution_b", None)
    if prior is None and of_encoder is None:
        raise ValueError(
            "prior: expected one, got None, and the encoder's posterior layer has no "
            "KLDivergenceRegularizer to take it from."
        )
    if prior is not None and of_encoder is not None and prior is not of_encoder:
        raise ValueError(
            "prior: the encoder's KLDivergenceRegularizer holds another prior than the one given. "
            "Expected one object in both: VAE(encoder, decoder) takes the encoder's."
        )
    return priors.get(of_encoder if prior is None else prior)


def check_declared_shapes(encoder: keras.Model, decoder: keras.Model, prior: priors.Prior) -> None:
    """Refuse parts that cannot fit together, as far as their declared shapes tell.

    Raises:
        TypeError: a part whose layers are known ends in no distribution layer.
        ValueError: two shapes that differ; both are named.
    """
    for name, part in (("encoder", encoder), ("decoder", decoder)):
        if declared_shape(part, "output_shape") is not None and not distribution_layers(part):
            raise TypeError(
                f"{name}: expected a model that returns a tfd.Distribution, got one without a "
                "distribution layer. End it in a layer of tfp_vae.layers."
            )
    images, latent = declared_shape(encoder, "input_shape"), prior.event_shape
    facts = (
        ("the encoder's distribution", declared_shape(encoder, "output_shape"), "prior", latent),
        ("the decoder's input", declared_shape(decoder, "input_shape"), "prior", latent),
        ("the decoder's distribution", declared_shape(decoder, "output_shape"), "images", images),
    )
    for what, shape, whose, expected in facts:
        if shape and expected and not tf.TensorShape(shape).is_compatible_with(expected):
            raise ValueError(
                f"VAE: expected {what} to have the event shape {tuple(expected)} of the {whose}, "
                f"got {shape}."
            )


def check_prior(encoder: keras.Model, prior: priors.Prior, use_exact_kl: bool) -> None:
    """Refuse a prior that no posterior of the encoder has a finite, computable KL to.

    Only where `example_posterior` knows one: all of those have a density everywhere.

    Raises:
        NotImplementedError: the closed form is asked for, and TFP knows none.
        ValueError: the prior's density is not finite where every posterior has mass.
    """
    posterior = example_posterior(encoder)
    if posterior is None:
        return
    distribution = prior()
    for value in (-3.0, -0.3, 0.3, 3.0):
        z = tf.fill(posterior.event_shape, tf.cast(value, distribution.dtype))
        density = float(distribution.log_prob(z))
        if not math.isfinite(density):
            raise ValueError(
                "prior: expected a density above 0 everywhere, as every normal posterior has one, "
                f"got log p(z) = {density} of {type(distribution).__name__} at z = {value} in all "
                "dimensions: the KL would be infinite."
            )
    if use_exact_kl:
        _support.closed_form_kl(posterior, distribution)


@_support.register
class FixedLabel(keras.layers.Layer):
    """The same label for each input of a batch: from (B, ...) to (B, K).

    Args:
        label: K floats.
    """

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label = [float(value) for value in label]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.tile(tf.constant([self.label], self.compute_dtype), [tf.shape(inputs)[0], 1])

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return (input_shape[0], len(self.label))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label": self.label}


def at_label(part: keras.Model, label: Any) -> keras.Model:
    """An encoder or decoder with its second input fixed."""
    inputs = keras.Input(part.inputs[0].shape[1:])
    outputs = part([inputs, FixedLabel(np.asarray(label), name="label")(inputs)])
    return keras.Model(inputs, outputs, name=part.name)


def call(
    name: str,
    part: keras.Model,
    inputs: tf.Tensor,
    event_ndims: int,
    event_shape: Shape | None,
    training: bool | None,
    labels: tf.Tensor | None = None,
) -> tfd.Distribution:
    """``part(inputs)`` for inputs with any number of leading dimensions.

    Args:
        name: of the part, for messages.
        part: encoder or decoder.
        inputs: shape (..., *event).
        event_ndims: how many of the last dimensions are one input.
        event_shape: expected of the distribution; `None` for any.
        training: as in Keras.
        labels: of a conditional model, shape (..., K), broadcast to the leading dimensions.

    Raises:
        TypeError: the part returned no distribution.
        ValueError: a distribution of another batch or event shape.
    """
    flat, lead = _support.flatten_leading(inputs, event_ndims)
    if labels is not None:
        leading = tf.shape(inputs)[: inputs.shape.rank - event_ndims]
        labels = tf.broadcast_to(labels, tf.concat([leading, labels.shape[-1:]], 0))
        flat = [flat, tf.reshape(labels, [-1, labels.shape[-1]])]
    with restored_leading_shape(lead):
        distribution = part(flat, training=training)
    if not isinstance(distribution, tfd.Distribution):
        raise TypeError(
            f"{name}: expected it to return a tfd.Distribution, got "
            f"{type(distribution).__name__}. End it in a layer of tfp_vae.layers."
        )
    if event_shape and not distribution.event_shape.is_compatible_with(event_shape):
        raise ValueError(
            f"{name}: expected a distribution of event shape {event_shape}, got "
            f"{tuple(distribution.event_shape)}."
        )
    batch_shape = inputs.shape[: inputs.shape.rank - event_ndims]
    if not distribution.batch_shape.is_compatible_with(batch_shape):
        raise ValueError(
            f"{name}: expected a distribution of batch shape {tuple(batch_shape)}, got "
            f"{tuple(distribution.batch_shape)}. Inputs with more than one leading dimension "
            "need a model that ends in a layer of tfp_vae.layers."
        )
    return distribution
