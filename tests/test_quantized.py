"""8-bit pixels: the quantized logistic and its mixtures against SciPy in double precision."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tfp_vae import layers

LEVELS = np.arange(256) / 255


def bin_masses(loc, scale):
    """Of each level, shape (256, *loc.shape): differences of cdf or survival function."""
    edges = (np.arange(257) - 0.5) / 255
    edges[0], edges[-1] = -np.inf, np.inf
    edges = edges.reshape(-1, *[1] * np.ndim(loc))
    logistic = scipy.stats.logistic(loc, scale)
    # Whichever tail does not subtract two numbers near 1.
    return np.where(
        edges[:-1] < loc, np.diff(logistic.cdf(edges), axis=0), -np.diff(logistic.sf(edges), axis=0)
    )


def at_every_level(pixels, shape):
    """Log-probabilities of the 256 levels at each pixel, shape (256, ...)."""
    return pixels.log_prob(tf.reshape(tf.constant(LEVELS, tf.float32), [-1, *[1] * len(shape)]))


def test_quantized_logistic_is_the_mass_of_each_bin():
    """Against SciPy in double precision, over all 256 levels."""
    params = np.array([[0.3, -0.2, -1.0, 0.5], [0.1, 0.6, -4.0, 1.0]], "float32")
    pixels = layers.IndependentQuantizedLogistic(2)(tf.constant(params)).distribution
    levels = np.arange(256) / 255
    logistic = scipy.stats.logistic(params[:, :2] + 0.5, np.exp(params[:, 2:].astype(float)) / 5)
    edges = (np.arange(257) - 0.5) / 255
    edges[0], edges[-1] = -np.inf, np.inf
    mass = np.diff(logistic.cdf(edges[:, None, None]), axis=0)
    got = np.exp(pixels.log_prob(levels[:, None, None].astype("float32")))
    np.testing.assert_allclose(got, mass, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(got.sum(0), 1, atol=1e-5)
    mean = (levels[:, None, None] * mass).sum(0)
    np.testing.assert_allclose(pixels.mean(), mean, atol=1e-5)
    draws = pixels.sample(20_000, seed=0).numpy()
    np.testing.assert_allclose(draws * 255, np.round(draws * 255), atol=1e-4)
    error = np.sqrt(((levels[:, None, None] - mean) ** 2 * mass).sum(0) / 20_000)
    assert (np.abs(draws.mean(0) - mean) < 5 * error).all()
    assert (np.abs(pixels.mode() - levels[mass.argmax(0)]) < 1e-6).all()


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_quantized_logistic_stays_finite(value):
    """Far locations, scales of nearly nothing and of very much."""
    params = tf.constant([[value, -1e4], [value, 0.0], [value, 20.0]])
    x = tf.constant([[0.0], [128 / 255], [1.0]])
    with tf.GradientTape() as tape:
        tape.watch(params)
        log_prob = layers.IndependentQuantizedLogistic(1)(params).log_prob(x)
    assert np.isfinite(log_prob).all()
    assert np.isfinite(tape.gradient(log_prob, params)).all()


def mixture_masses(params, event_shape, components):
    """(256, batch, *event): the documented layout, in NumPy."""
    kinds = params.astype(np.float64).reshape(-1, 3, components, *event_shape)
    weights = scipy.special.softmax(kinds[:, 0], axis=1)
    middle = (np.arange(components) + 0.5) / components
    loc = kinds[:, 1] + middle.reshape(-1, *[1] * len(event_shape))
    return (weights * bin_masses(loc, np.exp(kinds[:, 2]) / 5)).sum(2)


@pytest.mark.parametrize("components", [1, 2, 5])
@pytest.mark.parametrize("event_shape", [(3,), (2, 1, 3)], ids=str)
def test_mixture_is_the_weighted_mass_of_each_bin(event_shape, components, rng):
    """All 256 levels, narrow and wide components: probability, sum, mean, deviation, draws."""
    size = layers.IndependentQuantizedLogisticMixture.params_size(event_shape, components)
    assert size == 3 * components * np.prod(event_shape)
    params = rng.normal(size=(2, size)).astype("float32")
    params[:, -size // 3 :] = rng.uniform(-4, 3, size=(2, size // 3))  # logarithms of the scales
    p = layers.IndependentQuantizedLogisticMixture.new(tf.constant(params), event_shape, components)
    mass = mixture_masses(params, event_shape, components)
    got = np.asarray(at_every_level(p.distribution, mass.shape[1:]))
    np.testing.assert_allclose(got, np.log(mass), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.exp(got.astype(np.float64)).sum(0), 1, atol=2e-5)
    image = LEVELS[rng.integers(0, 256, size=(2, *event_shape))]
    at = np.take_along_axis(mass, np.round(image * 255).astype(int)[None], 0)[0]
    axes = tuple(range(1, at.ndim))
    np.testing.assert_allclose(p.log_prob(image.astype("float32")), np.log(at).sum(axes), rtol=1e-3)

    levels = LEVELS.reshape(-1, *[1] * at.ndim)
    mean = (levels * mass).sum(0)
    variance = ((levels - mean) ** 2 * mass).sum(0)
    np.testing.assert_allclose(p.mean(), mean, atol=1e-5)
    np.testing.assert_allclose(p.stddev(), np.sqrt(variance), atol=4e-4)
    draws = p.sample(10_000, seed=1).numpy()
    np.testing.assert_allclose(draws * 255, np.round(draws * 255), atol=1e-4)
    assert (np.abs(draws.mean(0) - mean) < 5 * np.sqrt(variance / 10_000)).all()
    # The law itself: as many draws below each level as there should be.
    below = (draws[..., None] <= LEVELS + 1e-4).mean(0)
    expected = np.moveaxis(mass.cumsum(0), 0, -1)
    error = np.sqrt(np.clip(expected * (1 - expected), 1e-4, None) / 10_000)
    assert (np.abs(below - expected) < 5.5 * error).all()


def test_mixture_of_one_is_the_quantized_logistic(rng):
    params = rng.normal(size=(4, 18)).astype("float32")
    x = LEVELS[rng.integers(0, 256, size=(4, 6))].astype("float32")
    mixture = layers.IndependentQuantizedLogisticMixture(6, 1)(tf.constant(params))
    one = layers.IndependentQuantizedLogistic(6)(tf.constant(params[:, 6:]))
    np.testing.assert_allclose(mixture.log_prob(x), one.log_prob(x), rtol=1e-6)


def test_at_zero_the_components_share_out_the_range_of_pixels():
    p = layers.IndependentQuantizedLogisticMixture(1, 4)(tf.zeros([1, 12])).distribution
    np.testing.assert_allclose(
        p.components_distribution.loc[0, 0], [0.125, 0.375, 0.625, 0.875], rtol=1e-6
    )
    assert float(p.mean()[0, 0]) == pytest.approx(0.5, abs=1e-6)


def test_mixture_of_extreme_parameters_is_finite_and_sums_to_one():
    cases = [
        [*logits, *loc, *log_scale]
        for logits in ([0.0, 0.0], [1e4, -1e4])
        for loc in ([0.0, 0.0], [-1e4, 1e4], [0.3, 1e4])
        for log_scale in ([-1e4, -1e4], [20.0, 1e4], [-1e4, 1e4])
    ]
    params = tf.constant(cases)
    with tf.GradientTape() as tape:
        tape.watch(params)
        pixels = layers.IndependentQuantizedLogisticMixture(1, 2)(params).distribution
        log_prob = at_every_level(pixels, (1, 1))
    assert np.isfinite(log_prob).all()
    sums = np.exp(np.asarray(log_prob, np.float64)).sum(0)
    np.testing.assert_allclose(sums, 1, atol=1e-3)
    assert np.isfinite(tape.gradient(log_prob, params)).all()
    assert np.isfinite(pixels.mean()).all()
    assert np.isfinite(pixels.stddev()).all()
