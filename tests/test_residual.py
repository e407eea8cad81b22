"""Residual networks: shapes and counts by hand, the block, saving, training in all modes."""

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from tfp_vae import VAE, networks, priors

SMALL = {"blocks": (1, 1), "units": (16,)}


def small_vae(shape, likelihood="bernoulli", latent_dim=4):
    prior = priors.StandardNormal(latent_dim)
    encoder = networks.residual_encoder(shape, latent_dim, prior=prior, filters=(4, 8), **SMALL)
    decoder = networks.residual_decoder(
        shape, latent_dim, filters=(8, 4), likelihood=likelihood, **SMALL
    )
    return VAE(encoder, decoder, prior, seed=0)


def squares(shape):
    """Eight times a white square: what a few steps can learn."""
    images = np.zeros((8, *shape), "float32")
    images[:, 8:20, 8:20] = 1
    return images


def conv(size, inputs, outputs):
    return size * size * inputs * outputs + outputs


def dense(inputs, outputs):
    return inputs * outputs + outputs


def outputs(model):
    return [tuple(layer.output.shape[1:]) for layer in model.layers]


def test_shapes_and_parameters_of_the_defaults():
    encoder = networks.residual_encoder((28, 28, 1), 32)
    decoder = networks.residual_decoder((28, 28, 1), 32)
    at_14, at_7 = (14, 14, 32), (7, 7, 64)
    assert outputs(encoder) == [*[at_14] * 4, *[at_7] * 4, (3136,), (256,), (64,), (32,)]
    assert outputs(decoder) == [
        (256,), (3136,), *[at_7] * 4, *[at_14] * 4, (28, 28, 1), (784,), (28, 28, 1)
    ]  # fmt: skip
    blocks = 4 * conv(3, 32, 32) + 4 * conv(3, 64, 64)
    assert encoder.count_params() == (
        conv(4, 1, 32) + conv(4, 32, 64) + blocks + dense(3136, 256) + dense(256, 64)
    )
    assert decoder.count_params() == (
        dense(32, 256) + dense(256, 3136) + conv(4, 64, 32) + conv(4, 32, 1) + blocks
    )


@pytest.mark.parametrize(
    ("shape", "filters", "blocks", "small"),
    [
        pytest.param((32, 32, 3), (4, 8, 6), (1, 0, 2), (4, 4, 6), id="32x32x3, three stages"),
        pytest.param((12, 20, 2), (4, 8), (0, 0), (3, 5, 8), id="12x20x2, no block"),
        pytest.param((2, 2, 1), (4,), (1,), (1, 1, 4), id="2x2x1"),
    ],
)
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal", "quantized_logistic_mixture"])
def test_any_image_that_the_strides_can_serve(shape, filters, blocks, small, likelihood, rng):
    encoder = networks.residual_encoder(shape, 3, filters=filters, blocks=blocks, units=())
    decoder = networks.residual_decoder(
        shape, 3, filters=filters[::-1], blocks=blocks[::-1], units=(), likelihood=likelihood
    )
    assert small in outputs(encoder)
    assert small in outputs(decoder)
    assert outputs(encoder).index((np.prod(small),)) == len(encoder.layers) - 3
    x = rng.uniform(0.1, 0.9, size=(2, *shape)).astype("float32")
    p = decoder(encoder(x).sample(seed=0))
    assert p.event_shape == shape
    assert p.log_prob(x).shape == (2,)


def test_block_is_its_equation(rng):
    """The identity at the start; with other weights ``x + conv(f(conv(f(x))))`` by SciPy."""
    x = rng.normal(size=(2, 5, 6, 3)).astype("float32")
    block = networks.ResidualBlock("elu")
    np.testing.assert_array_equal(block(x), x)
    assert len(block.trainable_weights) == 4
    block.set_weights([rng.normal(size=weight.shape) for weight in block.get_weights()])

    def elu(h):
        return np.where(h > 0, h, np.expm1(np.minimum(h, 0)))

    def same(h, kernel, bias):
        maps = [
            [scipy.signal.correlate2d(image[..., i], kernel[..., i, o], "same") for i in range(3)]
            for image in h
            for o in range(3)
        ]
        summed = np.sum(maps, axis=1).reshape(len(h), 3, *h.shape[1:3])
        return np.moveaxis(summed, 1, -1) + bias

    inner, inner_bias, last, last_bias = (w.astype(np.float64) for w in block.get_weights())
    expected = x + same(elu(same(elu(x), inner, inner_bias)), last, last_bias)
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-4)


def test_depth_does_not_change_the_start():
    """Twelve blocks more, and the network starts as the same function."""
    z = tf.random.stateless_normal([3, 4], [0, 1])
    shallow, deep = (
        networks.residual_decoder((8, 8, 1), 4, filters=(8, 4), blocks=blocks, units=())
        for blocks in ((0, 0), (6, 6))
    )
    for layer in shallow.layers:
        if layer.get_weights():
            deep.get_layer(layer.name).set_weights(layer.get_weights())
    np.testing.assert_array_equal(deep(z).mean(), shallow(z).mean())


MODES = [
    pytest.param({"run_eagerly": True}, id="eager"),
    pytest.param({"jit_compile": False}, id="graph"),
    pytest.param({"jit_compile": True}, id="xla"),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "likelihood"),
    [
        pytest.param((28, 28, 1), "bernoulli", id="28x28x1"),
        pytest.param((32, 32, 3), "quantized_logistic_mixture", id="32x32x3"),
    ],
)
def test_a_few_steps_of_training(shape, likelihood, mode):
    vae = small_vae(shape, likelihood)
    vae.compile(keras.optimizers.Adam(1e-2), **mode)
    images = squares(shape)
    history = vae.fit(images, batch_size=8, epochs=6, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < 0.95 * history[0]


def test_gradients_reach_every_weight_after_one_step(rng):
    vae = small_vae((28, 28, 1))
    vae.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    images = rng.integers(0, 2, size=(4, 28, 28, 1)).astype("float32")
    vae.fit(images, verbose=0)
    with tf.GradientTape() as tape:
        loss = vae.compute_loss(x=tf.constant(images), y_pred=vae(images, training=True))
    weights = vae.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    assert len(weights) == 2 * 16
    for weight, gradient in zip(weights, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path


def test_mixed_bfloat16_trains_with_densities_in_float32():
    alone = networks.ResidualBlock(dtype="mixed_bfloat16")
    assert alone(np.ones((1, 3, 3, 2), "float32")).dtype == tf.bfloat16
    assert alone.inner.compute_dtype == "bfloat16"
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    vae = small_vae((28, 28, 1))
    block = next(x for x in vae.encoder.layers if isinstance(x, networks.ResidualBlock))
    assert block.inner.compute_dtype == block.last.compute_dtype == "bfloat16"
    assert block.inner.kernel.dtype == "float32"
    images = squares((28, 28, 1))
    q, p = vae.encode(images), vae(images)
    assert q.dtype == p.dtype == p.log_prob(images).dtype == tf.float32
    vae.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    history = vae.fit(images, epochs=6, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    assert history[-1] < 0.95 * history[0]


def test_loads_in_a_fresh_process(tmp_path, fresh_process, rng):
    vae = small_vae((8, 12, 3), {"name": "quantized_logistic_mixture", "num_components": 3})
    vae.compile(keras.optimizers.Adam(3e-2), run_eagerly=True)
    images = (rng.integers(0, 256, size=(4, 8, 12, 3)) / 255).astype("float32")
    vae.fit(images, epochs=2, verbose=0)  # the blocks are no longer the identity
    vae.save(tmp_path / "vae.keras")
    np.save(tmp_path / "images.npy", images)
    fresh_process(
        "import numpy as np, keras, tfp_vae\n"
        "vae = keras.saving.load_model('vae.keras', safe_mode=True)\n"
        "np.save('elbo.npy', vae.elbo(np.load('images.npy'), seed=3))\n"
    )
    np.testing.assert_allclose(np.load(tmp_path / "elbo.npy"), vae.elbo(images, seed=3), rtol=1e-5)


def encoder(**arguments):
    return networks.residual_encoder((28, 28, 1), 2, **arguments)


def decoder(shape=(28, 28, 1), **arguments):
    return networks.residual_decoder(shape, 2, **arguments)


BAD = [
    pytest.param(lambda: encoder(filters=()), "at least one.*got filters = ()", id="no stage"),
    pytest.param(lambda: encoder(blocks=(2,)), r"each stage.*blocks = \[2\]", id="one short"),
    pytest.param(lambda: encoder(blocks=(2, -1)), "blocks.*got -1", id="blocks below 0"),
    pytest.param(lambda: decoder(blocks=(2, 1.5)), "blocks.*got 1.5", id="half a block"),
    pytest.param(lambda: encoder(filters=(8, 0)), "filters.*got 0", id="no filter"),
    pytest.param(lambda: encoder(units=(0,)), "units.*got 0", id="no unit"),
    pytest.param(lambda: encoder(activation="swirl"), "swirl", id="activation"),
    pytest.param(lambda: encoder(posterior="half"), "got 'half'", id="posterior"),
    pytest.param(lambda: decoder((30, 28, 1)), "multiples of 4.*2 stages.*got 30×28", id="30x28"),
    pytest.param(lambda: decoder((28, 28)), r"got \(28, 28\)", id="no channels"),
    pytest.param(lambda: decoder(likelihood="mse"), "got 'mse'", id="likelihood"),
    pytest.param(lambda: networks.residual_decoder((28, 28, 1), 0), "latent_dim.*got 0",
                 id="latent 0"),
    pytest.param(lambda: networks.ResidualBlock(kernel_size=0), "kernel_size.*got 0", id="kernel"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
