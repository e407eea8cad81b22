"""The autoregressive likelihood: against NumPy, and against all images that there are."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_vae import VAE, evaluation, layers, networks, priors

SHAPES = [
    pytest.param((2, 3, 1), 1, id="2x3x1"),
    pytest.param((3, 2, 1), 2, id="3x2x1"),
    pytest.param((2, 2, 2), 1, id="2x2x2"),
    pytest.param((1, 6, 1), 2, id="one row"),
    pytest.param((6, 1, 1), 2, id="one column"),
]


def distribution(event_shape, radius=1, batch=(2,), units=4, scale=1.5):
    layer = layers.AutoregressiveBernoulli(event_shape, units=units, radius=radius, seed=1)
    rng = np.random.default_rng(0)
    for weight in layer.network.weights:  # its biases too, which start at zero
        weight.assign(rng.normal(size=weight.shape, scale=scale / np.sqrt(weight.shape[-1])))
    params = rng.normal(size=(*batch, layer.input_size)).astype("float32")
    return layer, layer(tf.constant(params)), params


def all_images(event_shape):
    """(2^n, 1, *event_shape)"""
    size = int(np.prod(event_shape))
    return np.array(list(itertools.product([0, 1], repeat=size)), "float32").reshape(
        -1, 1, *event_shape
    )


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def log_prob_in_numpy(layer, params, x):
    """Pixel after pixel, neighbour after neighbour: the formula of the docstring."""
    height, width, _ = layer.event_shape
    weights = {w.name: w.numpy().astype(np.float64) for w in layer.network.weights}
    radius = layer.network.radius
    features = params.astype(np.float64).reshape(height, width, -1)
    total = 0.0
    for i, j in itertools.product(range(height), range(width)):
        a = features[i, j].copy()
        for k, m in itertools.product(range(height), range(width)):
            near = i - k <= radius and abs(m - j) <= radius
            if k * width + m < i * width + j and near:
                a += x[k, m] @ weights["neighbours"][radius + k - i, radius + m - j]
        h = elu(a) @ weights["hidden_kernel"] + weights["hidden_bias"]
        logits = elu(h) @ weights["last_kernel"] + weights["last_bias"]
        total += (x[i, j] * logits - np.logaddexp(0, logits)).sum()
    return total


@pytest.mark.parametrize(("event_shape", "radius"), [*SHAPES, pytest.param((4, 5, 2), 3, id="4x5")])
def test_density_is_the_documented_one(event_shape, radius, rng):
    layer, p, params = distribution(event_shape, radius)
    x = rng.integers(0, 2, (2, *event_shape)).astype("float32")
    expected = [log_prob_in_numpy(layer, params[b], x[b]) for b in range(2)]
    np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-4)


@pytest.mark.parametrize(("event_shape", "radius"), SHAPES)
def test_all_images_together_have_probability_one_and_are_drawn_as_often(event_shape, radius):
    _, p, _ = distribution(event_shape, radius)
    images, count = all_images(event_shape), 20_000
    mass = np.exp(p.log_prob(images).numpy().astype(np.float64))
    np.testing.assert_allclose(mass.sum(0), 1, rtol=1e-4)
    powers = 2 ** np.arange(np.prod(event_shape))[::-1]
    drawn = (p.sample(count, seed=2).numpy().reshape(count, 2, -1) @ powers).astype(int)
    for b in range(2):
        frequency = np.bincount(drawn[:, b], minlength=len(mass)) / count
        error = np.sqrt(np.maximum(mass[:, b], 1e-4) / count)
        assert (np.abs(frequency - mass[:, b]) < 5 * error).all()


def test_mean_is_that_of_all_images():
    """`mean` itself has 16 draws; what it averages, over many of them, is exact."""
    layer, p, params = distribution((2, 3, 1), scale=0.7)  # no chance so near 0 that none is drawn
    images = all_images((2, 3, 1))
    mass = np.exp(p.log_prob(images).numpy().astype(np.float64)).reshape(-1, 2, 1, 1, 1)
    mean = (mass * images).sum(0)
    features = tf.reshape(params, [2, 2, 3, -1])
    noise = tf.random.stateless_uniform([20_000, 2, 2, 3, 1], [0, 1])
    drawn, chances = layer.network.draw(features, noise)
    # What a pixel was drawn with is the density's own answer about the finished image.
    np.testing.assert_allclose(chances, p.conditional_probs(drawn), atol=1e-5)
    chances = chances.numpy().astype(np.float64)
    spread = chances.std(0)
    assert (np.abs(chances.mean(0) - mean) < 5 * spread / np.sqrt(20_000) + 1e-5).all()
    assert (np.abs(p.mean() - mean) < 5 * spread / 4 + 1e-5).all()
    np.testing.assert_allclose(p.variance(), p.mean() * (1 - p.mean()), rtol=1e-6)
    alone = layer(params[1:])  # whatever else is in the batch
    np.testing.assert_allclose(alone.mean()[0], p.mean()[1], atol=1e-6)


@pytest.mark.parametrize("radius", [1, 2])
def test_a_pixel_sees_the_neighbours_before_it_and_nothing_else(radius, rng):
    _, p, _ = distribution((5, 6, 1), radius, batch=(), scale=0.7)
    x = rng.integers(0, 2, (5, 6, 1)).astype("float32")
    before = p.conditional_probs(x).numpy()[..., 0]
    for i, j in itertools.product(range(5), range(6)):
        other = x.copy()
        other[i, j] = 1 - other[i, j]
        changed = p.conditional_probs(other).numpy()[..., 0] != before
        for k, m in itertools.product(range(5), range(6)):
            later = (k, m) > (i, j)
            near = k - i <= radius and abs(m - j) <= radius
            assert changed[k, m] == (later and near), (i, j, k, m)


def test_radius_zero_leaves_the_pixels_independent(rng):
    layer, p, params = distribution((2, 3, 1), 0)
    x = rng.integers(0, 2, (2, 2, 3, 1)).astype("float32")
    np.testing.assert_array_equal(p.conditional_probs(x[0]), p.conditional_probs(x[1]))
    expected = [log_prob_in_numpy(layer, params[b], x[0]) for b in range(2)]
    np.testing.assert_allclose(p.log_prob(x[0]), expected, rtol=1e-4)
    assert p.sample(seed=0).shape == (2, 2, 3, 1)


def test_draws_repeat_with_their_seed_in_a_graph_too():
    _, p, _ = distribution((3, 4, 1), batch=(2, 5))
    draw = p.sample(7, seed=(0, 3))
    assert draw.shape == (7, 2, 5, 3, 4, 1)
    np.testing.assert_array_equal(draw, p.sample(7, seed=(0, 3)))
    assert (draw.numpy() != p.sample(7, seed=(0, 4)).numpy()).any()
    np.testing.assert_array_equal(tf.function(lambda: p.sample(7, seed=(0, 3)))(), draw)


def test_draws_under_xla_follow_their_chances():
    """XLA has random numbers of its own."""
    layer, p, params = distribution((3, 4, 1), scale=0.7)
    features = tf.reshape(params, [2, 3, 4, -1])
    noise = tf.random.stateless_uniform([5000, 2, 3, 4, 1], [0, 1])
    compiled = tf.function(lambda: layer.network.draw(features, noise), jit_compile=True)
    drawn, chances = compiled()
    np.testing.assert_allclose(chances, p.conditional_probs(drawn), atol=1e-5)
    error = np.sqrt((chances.numpy() * (1 - chances.numpy())).sum(0)) / 5000
    assert (np.abs((drawn - chances).numpy().mean(0)) < 5 * error).all()
    sample = tf.function(lambda: p.sample(3, seed=1), jit_compile=True)
    assert sample().shape == (3, 2, 3, 4, 1)
    np.testing.assert_allclose(tf.function(p.mean, jit_compile=True)(), p.mean(), atol=1e-5)


def test_learns_what_no_latent_vector_tells():
    """Rows of one colour each: 6 log 2 = 4.16 nats, of which one latent number holds little."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.integers(0, 2, (3000, 6, 1, 1)), 6, axis=2).astype("float32")
    prior = priors.StandardNormal(1)
    vae = VAE(
        networks.dense_encoder((6, 6, 1), 1, units=(16,), prior=prior),
        networks.dense_decoder(
            (6, 6, 1), 1, units=(16,),
            likelihood={"name": "autoregressive_bernoulli", "units": 8, "radius": 1},
        ),
        seed=0,
    )  # fmt: skip
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(x[:2000], epochs=10, batch_size=50, verbose=0)
    elbo, entropy = float(np.mean(vae.elbo(x[2000:], seed=1))), 6 * np.log(2)
    assert -entropy - 0.4 < elbo < -entropy + 0.1
    # Draws of the model are such images: what is drawn, not only what is told, follows the law.
    draws = vae.sample(500, seed=2).numpy()
    assert (draws == draws[:, :, :1]).all((1, 2, 3)).mean() > 0.9


def small_vae():
    likelihood = {"name": "autoregressive_bernoulli", "units": 4, "radius": 2}
    return VAE(
        networks.residual_encoder((8, 8, 1), 2, filters=(4, 4), blocks=(1, 0), units=(),
                                  prior=priors.StandardNormal(2)),
        networks.residual_decoder((8, 8, 1), 2, filters=(4, 4), blocks=(0, 1), units=(),
                                  likelihood=likelihood),
        seed=0,
    )  # fmt: skip


def test_features_of_a_convolution_reach_their_pixel():
    """The last convolution's channels at a pixel are that pixel's features."""
    decoder = small_vae().decoder
    images = keras.Model(decoder.inputs[0], decoder.get_layer("parameters").output)
    z = np.ones([1, 2], "float32")
    features = decoder(z)._features
    np.testing.assert_array_equal(features, images(z))


def test_a_model_of_it_does_what_others_do(rng, monkeypatch):
    vae = small_vae()
    x = rng.integers(0, 2, (5, 8, 8, 1)).astype("float32")
    mask = rng.random(x.shape) < 0.5
    found = evaluation.imputation_errors(
        vae, x, mask, x, methods=("metropolis", "pseudo-gibbs"), num_neighbours=2, num_samples=3,
        num_steps=4, seed=0,
    )  # fmt: skip
    assert all(np.isfinite(error.log_score).all() for error in found.values())
    assert np.isfinite(vae.log_likelihood(x, 20, seed=0)).all()
    mean = vae.predict(x, verbose=0)
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 64 * 4 * 2 // 16)  # two at a time
    np.testing.assert_allclose(vae.reconstruct(x), mean, atol=1e-6)
    draws = vae.sample(5, seed=0)
    assert len({image.numpy().tobytes() for image in draws}) == 5  # not two by one noise


def test_hidden_pixels_are_drawn_given_those_before_them(rng):
    _, p, _ = distribution((3, 4, 1), 1)
    x = rng.integers(0, 2, (2, 3, 4, 1)).astype("float32")
    observed = rng.random(x.shape) < 0.5
    drawn = np.stack([p.complete(x, observed, seed=(0, i)) for i in range(300)])
    np.testing.assert_array_equal(
        drawn[:, observed], np.broadcast_to(x[observed], (300, observed.sum()))
    )
    chances = p.conditional_probs(drawn).numpy()
    error = np.sqrt((chances * (1 - chances)).sum(0)) / 300
    assert (np.abs((drawn - chances).mean(0)) <= 5 * error)[~observed].all()
    np.testing.assert_allclose(p.pixel_log_prob(x).numpy().sum((1, 2, 3)), p.log_prob(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: layers.AutoregressiveBernoulli((4, 4)), "height, width", id="shape"),
        pytest.param(
            lambda: layers.AutoregressiveBernoulli((4, 4, 1), units=0), "units", id="size"
        ),
        pytest.param(
            lambda: layers.AutoregressiveBernoulli((4, 4, 1), radius=-1), "radius", id="radius"
        ),
        pytest.param(
            lambda: layers.AutoregressiveBernoulli((4, 4, 1), "logits"), "no logits", id="logits"
        ),
        pytest.param(
            lambda: layers.AutoregressiveBernoulli((2, 2, 1), units=4)(tf.zeros([3, 4])),
            "params_size = 16",
            id="too few parameters",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
