"""The networks of SYSTEMS' rows: shapes, parameter counts, and what they refuse."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tests.models import small_vae
from tfp_vae import VAE, layers, networks, priors, recipes, training
from tfp_vae.networks import conv, heads

tfd = tfp.distributions


def shapes(model):
    return [tuple(layer.output.shape[1:]) for layer in model.layers]


def test_conv_networks_are_the_cvae():
    encoder = networks.conv_encoder((28, 28, 1), latent_dim=2)
    decoder = networks.conv_decoder((28, 28, 1), latent_dim=2)
    assert shapes(encoder) == [(13, 13, 32), (6, 6, 64), (2304,), (4,), (2,)]
    assert shapes(decoder) == [
        (1568,), (7, 7, 32), (14, 14, 64), (28, 28, 32), (28, 28, 1), (784,), (28, 28, 1)
    ]  # fmt: skip
    # weights and biases, layer by layer
    assert encoder.count_params() == (9 * 32 + 32) + (9 * 32 * 64 + 64) + (2304 * 4 + 4)
    assert decoder.count_params() == (
        (2 * 1568 + 1568) + (9 * 32 * 64 + 64) + (9 * 64 * 32 + 32) + (9 * 32 + 1)
    )


def test_dense_networks():
    encoder = networks.dense_encoder((28, 28, 1), latent_dim=2, units=(500, 200))
    decoder = networks.dense_decoder((28, 28, 1), latent_dim=2, units=(200, 500))
    assert encoder.count_params() == (784 * 500 + 500) + (500 * 200 + 200) + (200 * 4 + 4)
    assert decoder.count_params() == (2 * 200 + 200) + (200 * 500 + 500) + (500 * 784 + 784)


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "normal"])
@pytest.mark.parametrize(
    ("shape", "family"),
    [
        pytest.param((28, 28, 1), "conv", id="conv 28x28"),
        pytest.param((32, 32, 3), "conv", id="conv 32x32x3"),
        pytest.param((12, 20, 2), "conv", id="conv 12x20x2"),
        pytest.param((7, 13, 3), "dense", id="dense 7x13x3"),
        pytest.param((1, 1, 1), "dense", id="dense one pixel"),
    ],
)
def test_any_image_shape_that_they_can_serve(shape, family, likelihood, rng):
    prior = priors.StandardNormal(3)
    make_encoder = getattr(networks, f"{family}_encoder")
    make_decoder = getattr(networks, f"{family}_decoder")
    vae = VAE(make_encoder(shape, 3, prior=prior), make_decoder(shape, 3, likelihood=likelihood))
    x = rng.uniform(0.1, 0.9, size=(2, *shape)).astype("float32")
    p = vae(x)
    assert isinstance(vae.encode(x), tfd.MultivariateNormalDiag)
    assert p.event_shape == shape
    assert p.log_prob(x).shape == (2,)


def test_normal_likelihood_of_the_conv_decoder_keeps_pixels_and_kinds_apart():
    """Of the last feature map, the first channels are means, the others scales, pixel by pixel."""
    decoder = networks.conv_decoder((4, 8, 3), 2, filters=(4, 4), likelihood="normal")
    features = keras.Model(decoder.inputs[0], decoder.get_layer("parameters").output)
    z = tf.random.stateless_normal([2, 2], [0, 1])
    maps, p = np.asarray(features(z)), decoder(z)
    assert maps.shape == (2, 4, 8, 6)
    np.testing.assert_allclose(p.mean(), maps[..., :3], rtol=1e-5)
    np.testing.assert_allclose(p.stddev(), np.logaddexp(0, maps[..., 3:]), rtol=1e-4)


@pytest.mark.parametrize("likelihood", heads.LIKELIHOODS)
def test_layered_decoder_takes_an_image_or_a_vector_of_parameters(likelihood):
    count = heads.LIKELIHOODS[likelihood].params_size((4, 6, 3)) // 72
    as_vector = [{"layer": "Dense", "units": 72 * count}]
    as_image = [*as_vector, {"layer": "Reshape", "target_shape": [4, 6, 3 * count]}]
    for body in (as_vector, as_image):
        decoder = networks.layered_decoder((4, 6, 3), 2, body=body, likelihood=likelihood)
        p = decoder(np.zeros((5, 2), "float32"))
        assert (p.batch_shape, p.event_shape) == ((5,), (4, 6, 3))
    # Of an image the first channels are the first kind of parameter.
    kernel = np.zeros((2, 72 * count))
    bias = np.tile(np.repeat(np.arange(count), 3) * 50.0, 24)
    decoder.layers[0].set_weights([kernel, bias])
    if likelihood == "normal":
        assert (decoder(np.zeros((1, 2), "float32")).mean().numpy() == 0).all()


def test_a_likelihood_with_arguments_is_plain_data(rng):
    """Through JSON, as in a recipe, to the layer that has them."""
    mixture = {"name": "quantized_logistic_mixture", "num_components": 10}
    recipe = recipes.get("cvae-cifar10").replace(**{"decoder.likelihood": mixture})
    recipe = recipes.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    layer = training.build(recipe, (8, 8, 3)).decoder.layers[-1]
    assert isinstance(layer, layers.IndependentQuantizedLogisticMixture)
    assert (layer.num_components, layer.event_shape) == (10, (8, 8, 3))
    for make in (networks.dense_decoder, networks.conv_decoder, networks.residual_decoder):
        decoder = make((4, 8, 3), 2, likelihood=mixture)
        p = decoder(rng.normal(size=(2, 2)).astype("float32"))
        assert p.distribution.components_distribution.batch_shape == (2, 4, 8, 3, 10)
        fixed = make((4, 8, 3), 2, likelihood={"name": "normal_fixed_scale", "scale": 0.1})
        np.testing.assert_allclose(fixed(np.zeros((1, 2), "float32")).stddev(), 0.1, rtol=1e-6)


def test_mixture_of_the_conv_decoder_keeps_pixels_kinds_and_components_apart():
    """Of the last feature map, 3 channels each: logits of both components, locations, scales."""
    likelihood = {"name": "quantized_logistic_mixture", "num_components": 2}
    decoder = networks.conv_decoder((4, 8, 3), 2, filters=(4, 4), likelihood=likelihood)
    features = keras.Model(decoder.inputs[0], decoder.get_layer("parameters").output)
    z = 5 * tf.random.stateless_normal([2, 2], [0, 1])
    maps, pixels = np.asarray(features(z)), decoder(z).distribution
    assert maps.shape == (2, 4, 8, 18)
    for k in range(2):
        logits = pixels.mixture_distribution.logits[..., k]
        np.testing.assert_allclose(logits, maps[..., 3 * k : 3 * k + 3], rtol=1e-6)
        loc = pixels.components_distribution.loc[..., k] - (0.25, 0.75)[k]
        np.testing.assert_allclose(loc, maps[..., 6 + 3 * k : 9 + 3 * k], atol=1e-6)
        scale = 5 * pixels.components_distribution.scale[..., k]
        np.testing.assert_allclose(np.log(scale), maps[..., 12 + 3 * k : 15 + 3 * k], atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, (3, 5)], ids=str)
@pytest.mark.parametrize("activation", [None, "relu"])
def test_last_layer_is_keras_own_layer(kernel_size, activation, rng):
    """Same outputs and same gradients as `keras.layers.Conv2DTranspose`."""
    options = {"padding": "same", "activation": activation, "bias_initializer": "ones"}
    pair = [
        kind(1, kernel_size, **options)
        for kind in (conv._LastConv2DTranspose, keras.layers.Conv2DTranspose)
    ]
    x = tf.constant(rng.normal(size=(4, 7, 9, 6)).astype("float32"))
    weights = tf.constant(rng.normal(size=(4, 7, 9, 1)).astype("float32"))
    results = []
    for layer in pair:
        layer.build(x.shape)
        layer.set_weights(pair[0].get_weights())
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(y * weights)
        variables = [variable.value for variable in layer.trainable_variables]
        results.append([y, *tape.gradient(total, [x, *variables])])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_parameters_keep_their_places_where_keras_has_channels_first(rng):
    z = rng.normal(size=(2, 2)).astype("float32")
    decoders = []
    for layout in ("channels_last", "channels_first"):
        keras.config.set_image_data_format(layout)
        try:
            decoders.append(networks.conv_decoder((28, 20, 1), 2, likelihood="normal"))
        finally:
            keras.config.set_image_data_format("channels_last")
    decoders[1].set_weights(decoders[0].get_weights())
    for name in ("loc", "scale"):
        one, other = (getattr(decoder(z).distribution, name) for decoder in decoders)
        np.testing.assert_array_equal(one, other)


BIASED = [
    pytest.param("Dense", {"units": 3, "activation": "elu"}, (400, 5), id="dense"),
    pytest.param("Dense", {"units": 3, "use_bias": False}, (6, 7, 5), id="dense, no bias"),
    pytest.param(
        "Conv2D",
        {"filters": 4, "kernel_size": (3, 2), "strides": 2, "groups": 2, "activation": "relu"},
        (30, 9, 8, 2),
        id="convolution",
    ),
    pytest.param(
        "Conv2D",
        {"filters": 3, "kernel_size": 3, "dilation_rate": 2, "padding": "same"},
        (30, 9, 8, 2),
        id="dilated convolution",
    ),
    pytest.param(
        "Conv2DTranspose",
        {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 0},
        (30, 4, 5, 2),
        id="transposed convolution",
    ),
]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("name", "options", "shape"), BIASED)
def test_biased_layers_compute_what_keras_own_do(name, options, shape, policy, rng):
    ours = getattr(networks, name)(dtype=policy, **options)
    keras_own = getattr(keras.layers, name)(dtype=policy, **options)
    x = rng.normal(size=shape).astype("float32")
    ours.build(shape)
    keras_own.build(shape)
    values = [rng.normal(size=weight.shape) for weight in ours.weights]
    ours.set_weights(values)
    keras_own.set_weights(values)
    found, expected = ours(x), keras_own(x)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(np.float32(found), np.float32(expected))
    assert type(ours).from_config(ours.get_config()).get_config() == ours.get_config()


def test_dense_layers_can_be_quantized(rng):
    layer = networks.Dense(4)
    x = rng.normal(size=(3, 5)).astype("float32")
    exact = layer(x)
    layer.quantize("int8")
    assert layer.kernel.dtype == "int8"
    np.testing.assert_allclose(layer(x), exact, atol=0.05)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_a_model_is_quantized_by_its_parts(rng):
    """What was compiled of the whole model would go on with the weights of before."""
    vae = small_vae()
    x = rng.integers(0, 2, (20, *vae.image_shape)).astype("float32")
    before = vae.log_likelihood(x, 100, seed=0)
    with pytest.raises(NotImplementedError, match="expected a part of the model"):
        vae.quantize("int8")
    for part in (vae.encoder, vae.decoder):
        part.quantize("int8")
    after = VAE(vae.encoder, vae.decoder, vae.prior).log_likelihood(x, 100, seed=0)
    assert np.any(before != after)
    np.testing.assert_allclose(before, after, atol=1)


SUMS = [
    ("Dense", {"units": 2}, (5000, 3)),
    ("Dense", {"units": 2}, (50, 100, 3)),
    ("Conv2D", {"filters": 2, "kernel_size": 3}, (100, 28, 28, 2)),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 3}, (100, 28, 28, 2)),
]


@pytest.mark.parametrize("gpu", [[], ["GPU:0"]], ids=["CPU", "GPU"])
@pytest.mark.parametrize(("name", "options", "shape"), SUMS)
def test_gradients_of_biased_layers_are_those_of_keras_own(
    name, options, shape, gpu, rng, monkeypatch
):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: gpu)
    x = rng.normal(size=shape).astype("float32")
    slopes, found = None, []
    for api in (networks, keras.layers):
        start = keras.initializers.GlorotUniform(0)
        layer = getattr(api, name)(**options, activation="tanh", kernel_initializer=start)
        with tf.GradientTape() as tape:
            outputs = layer(x)
            slopes = rng.normal(size=outputs.shape).astype("float32") if slopes is None else slopes
            total = tf.reduce_sum(outputs * slopes)
        found.append(tape.gradient(total, [layer.kernel.value, layer.bias.value]))
    for ours, keras_own in zip(*found, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("name", "options", "shape"), SUMS)
def test_a_bias_gets_the_whole_sum_in_bfloat16(name, options, shape):
    """TensorFlow's own kernel gives 256 for the 5,000 ones, 512 for the 67,600 and the 90,000."""
    layer = getattr(networks, name)(dtype="mixed_bfloat16", **options)
    with tf.GradientTape() as tape:
        outputs = layer(np.ones(shape, "float32"))
        total = tf.reduce_sum(tf.cast(outputs, tf.float32))
    found = tape.gradient(total, layer.bias.value)
    np.testing.assert_allclose(found, np.prod(outputs.shape[:-1]), rtol=2**-8)


def test_a_bias_gets_the_whole_sum_in_float16():
    layer = networks.Dense(2, dtype="mixed_float16")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.cast(layer(np.ones((50_000, 3), "float32")), tf.float32))
    np.testing.assert_allclose(tape.gradient(total, layer.bias.value), 50_000, rtol=2**-10)


def parts_of_all_networks():
    shape = (28, 28, 1)
    for family in ("conv", "dense", "residual"):
        yield getattr(networks, f"{family}_encoder")(shape, 2, units=(4,))
        yield getattr(networks, f"{family}_decoder")(shape, 2, units=(4,))
    yield networks.conditional_encoder(networks.dense_encoder, shape, 2, 10)
    yield networks.conditional_decoder(networks.dense_decoder, shape, 2, 10)
    layered = training.build(recipes.get("conv-fashion-2d"), shape)
    yield from (layered.encoder, layered.decoder)


def test_all_networks_have_such_biases():
    plain = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    ours = (networks.Dense, networks.Conv2D, networks.Conv2DTranspose)
    seen = set()
    for part in parts_of_all_networks():
        for layer in part._flatten_layers():
            if isinstance(layer, plain) and layer.use_bias:
                assert isinstance(layer, ours), layer.path
                seen.add(layer.path)
    assert len(seen) > 40


def test_second_derivatives_of_the_last_layer(rng):
    """TFP's samplers may ask for them: checked against Keras' layer."""
    x = tf.constant(rng.normal(size=(2, 5, 5, 3)).astype("float32"))
    results = []
    for kind in (conv._LastConv2DTranspose, keras.layers.Conv2DTranspose):
        layer = kind(1, 3, padding="same", kernel_initializer=keras.initializers.GlorotNormal(0))
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                total = tf.reduce_sum(tf.sin(layer(x)))
            slope = inner.gradient(total, x)
        results.append(outer.gradient(slope, x))
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)


def conv_decoder(likelihood):
    return networks.conv_decoder((28, 28, 1), 2, likelihood=likelihood)


BAD = [
    pytest.param(lambda: networks.conv_encoder((28, 28), 2), r"got \(28, 28\)", id="no channels"),
    pytest.param(lambda: networks.conv_encoder((28, 28, 1), 0), "latent_dim.*got 0", id="latent 0"),
    pytest.param(lambda: networks.dense_decoder((28, 28, 1), 0), "latent_dim.*got 0",
                 id="decoder 0"),
    pytest.param(lambda: networks.conv_encoder((6, 6, 1), 2), r"6×6 are too small.*got 2×2",
                 id="too small"),
    pytest.param(lambda: networks.conv_decoder((30, 28, 1), 2), "multiples of 4.*got 30×28",
                 id="not a multiple"),
    pytest.param(lambda: networks.dense_encoder((28, -1, 1), 2), "got -1", id="negative"),
    pytest.param(lambda: networks.dense_encoder((28, 28, 1), 2, units=(8, 0)), "units.*got 0",
                 id="units"),
    pytest.param(lambda: networks.conv_decoder((28, 28, 1), 2, likelihood="mse"), "got 'mse'",
                 id="likelihood"),
    pytest.param(lambda: conv_decoder({"scale": 1}),
                 "likelihood: expected one of.*got None", id="likelihood without a name"),
    pytest.param(lambda: conv_decoder(["bernoulli"]),
                 r"got \['bernoulli'\]", id="likelihood as a list"),
    pytest.param(lambda: conv_decoder({"name": "normal_fixed_scale", "scal": 1}),
                 "'normal_fixed_scale' among .*scale.*got 'scal'", id="argument of the likelihood"),
    pytest.param(lambda: conv_decoder({"name": "bernoulli", "event_shape": (1,)}),
                 "got 'event_shape'", id="shape of the likelihood"),
    pytest.param(lambda: conv_decoder({"name": "normal_fixed_scale", "scale": -1}),
                 "normal_fixed_scale.*above 0, got -1", id="scale below 0"),
    pytest.param(lambda: conv_decoder({"name": "normal_fixed_scale", "scale": "wide"}),
                 "likelihood 'normal_fixed_scale'", id="scale as text"),
    pytest.param(lambda: conv_decoder({"name": "quantized_logistic_mixture", "num_components": 0}),
                 "num_components.*at least 1, got 0", id="no component"),
    pytest.param(lambda: networks.conv_encoder((28, 28, 1), 2, posterior="flow"), "got 'flow'",
                 id="posterior"),
    pytest.param(lambda: networks.conv_encoder((28, 28, 1), 2, padding="full"), "got 'full'",
                 id="padding"),
    pytest.param(lambda: networks.layered_encoder((4, 4, 1), 2, body=[{"layer": "Lambda"}]),
                 "class in keras.layers, got 'Lambda'", id="code as a layer"),
    pytest.param(lambda: networks.layered_encoder((4, 4, 1), 2, body=[{"layer": "deserialize"}]),
                 "got 'deserialize'", id="no layer"),
    pytest.param(lambda: networks.layered_encoder((4, 4, 1), 2, body=[{"layer": "Dense"}]),
                 "^Dense: .*units", id="layer without its argument"),
    pytest.param(lambda: networks.layered_decoder((4, 4, 1), 2, body=[keras.layers.Dense(15)]),
                 r"ends in the shape \(4, 4, 1\).*got \(15,\)", id="body of another size"),
    pytest.param(lambda: networks.layered_encoder((4, 4, 1), 2, body=["Dense"]),
                 "^body: expected layers, .*got 'Dense'", id="layer by its name alone"),
    pytest.param(lambda: networks.conv_encoder((28, 28, 1), 2, filters=32),
                 "filters: expected a list of sizes, got 32", id="filters of the encoder"),
    pytest.param(lambda: networks.conv_decoder((28, 28, 1), 2, filters=32),
                 "filters: expected a list of sizes, got 32", id="filters of the decoder"),
    pytest.param(lambda: networks.residual_encoder((28, 28, 1), 2, blocks=1),
                 "blocks: expected a list of sizes, got 1", id="blocks"),
    pytest.param(lambda: networks.dense_encoder((4, 4, 1), 2, posterior={"name": "iaf", "units": 8},
                                                prior=priors.StandardNormal(2)),
                 "^posterior 'iaf': units: expected a list of sizes, got 8", id="units of a flow"),
    pytest.param(lambda: networks.conv_encoder((28, 28, 1), 2, kl_weight=4.0),
                 "expected a prior, .*kl_weight=4.0 without one", id="weight of no KL"),
    pytest.param(lambda: networks.dense_encoder((4, 4, 1), 2, use_exact_kl=False),
                 "expected a prior, .*use_exact_kl=False", id="kind of no KL"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
