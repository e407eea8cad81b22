"""Parameters of any size that float32 holds: densities, draws and gradients stay finite."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tensorflow_probability import distributions as tfd

from tests.models import SHAPE, small_vae
from tfp_vae import layers, objectives, priors

# What is no layer of parameters, or only a part of one that is here.
OTHERS = {"DistributionLambda", "FlowDistribution", "AutoregressivePixels", "CausalNetwork"}


def test_every_layer_is_here():
    """By its name: those that are added later too."""
    text = pathlib.Path(__file__).read_text()
    missing = [name for name in layers.__all__ if f"layers.{name}(" not in text]
    assert set(missing) <= OTHERS


REPEATABLE = settings(deadline=None, derandomize=True)  # TensorFlow's first calls are slow
PIXELS = np.array([0, 1 / 255, 0.25, 0.5, 1], "float32")
BINARY = np.array([0, 1, 0, 1, 1], "float32")
D = 3
TINY = float(np.float32(1e-8))  # which float32 holds: older hypothesis asks for that

# What networks can be led to by one bad step, and the edges of softplus, exp and float32's digits.
NUMBERS = st.one_of(
    st.floats(-1e4, 1e4, width=32),
    st.sampled_from([-1e4, -200, -104, -88, -40, -18.5, -TINY, 0, TINY, 18.5, 40, 88, 104, 1e4]),
)


def parameters(layer):
    """Batches of two, since an image must not change another's."""
    return arrays("float32", (2, layer.input_size), elements=NUMBERS, fill=NUMBERS)


def gradient(function, at):
    at = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(at)
        value = function(at)
    return value.numpy(), tape.gradient(value, at).numpy()


LIKELIHOODS = [
    pytest.param(layers.IndependentBernoulli(5), BINARY, id="bernoulli"),
    pytest.param(
        layers.AutoregressiveBernoulli((5, 1, 1), units=4, seed=0),
        BINARY.reshape(5, 1, 1),
        id="autoregressive",
    ),
    pytest.param(layers.IndependentContinuousBernoulli(5), PIXELS, id="continuous_bernoulli"),
    pytest.param(layers.IndependentNormal(5), PIXELS, id="normal"),
    pytest.param(layers.IndependentNormalFixedScale(5, scale=1e-8), PIXELS, id="fixed_scale"),
    pytest.param(layers.IndependentQuantizedLogistic(5), PIXELS, id="quantized_logistic"),
    pytest.param(layers.IndependentQuantizedLogisticMixture(5, 2), PIXELS, id="mixture"),
]


@pytest.mark.parametrize(("layer", "x"), LIKELIHOODS)
def test_likelihoods(layer, x):
    @settings(REPEATABLE, max_examples=20)
    @given(parameters(layer))
    def hold(params):
        value, slope = gradient(lambda p: layer(p).log_prob(x), params)
        assert np.isfinite(value).all()
        assert np.isfinite(slope).all()
        likelihood = layer(params)
        for moment in (likelihood.mean(), likelihood.sample(seed=1)):
            assert np.isfinite(moment).all()
        alone = layer(params[:1]).log_prob(x)
        np.testing.assert_allclose(value[:1], alone, rtol=1e-5)

    hold()


@settings(REPEATABLE, max_examples=20)
@given(arrays("float32", (5,), elements=st.floats(-1e8, 1e8, width=32)))
def test_a_scale_of_any_size(scales):
    """From 1e-8 to 1e8, against the formula in float64."""
    layer = layers.IndependentNormal(5)
    params = np.concatenate([np.full(5, 0.25, "float32"), scales])[np.newaxis]
    value, slope = gradient(lambda p: layer(p).log_prob(PIXELS), params)
    scale = np.maximum(np.logaddexp(0, scales.astype(float)), 1e-8)
    expected = -(((PIXELS - 0.25) / scale) ** 2) / 2 - np.log(scale) - np.log(2 * np.pi) / 2
    np.testing.assert_allclose(value[0], expected.sum(), rtol=1e-4, atol=1e-4)
    assert np.isfinite(slope).all()


POSTERIORS = [
    pytest.param(layers.MultivariateNormalDiag(D), True, id="diagonal"),
    pytest.param(layers.MultivariateNormalTriL(D), True, id="full"),
    pytest.param(
        layers.InverseAutoregressiveFlow(D, num_flows=2, units=[8], context_size=2, seed=0),
        False,
        id="flow",
    ),
]
PRIORS = [
    pytest.param(lambda: priors.StandardNormal(D), id="standard normal"),
    pytest.param(lambda: priors.GaussianMixture(D, 2, seed=0), id="mixture"),
    pytest.param(lambda: priors.AutoregressiveFlow(D, 2, (8,), seed=0), id="flow"),
    pytest.param(lambda: priors.FixedPrior(tfd.Sample(tfd.Normal(0.0, 1.0), D)), id="fixed"),
    pytest.param(lambda: vamp(D).prior, id="vamp"),
]


def vamp(latent_dim):
    """A model whose prior is a mixture of its own posteriors."""
    return small_vae(
        priors.VampPrior(latent_dim, SHAPE, 3, seed=0), latent_dim=latent_dim, use_exact_kl=False
    )


@pytest.mark.parametrize(("layer", "closed_form"), POSTERIORS)
@pytest.mark.parametrize("make_prior", PRIORS)
def test_posteriors(layer, closed_form, make_prior):
    prior = make_prior()

    def monte_carlo(params):
        posterior = layer(params)
        return objectives.kl_divergence(posterior, prior(), posterior.sample(seed=1))

    def exact(params):
        return objectives.kl_divergence(layer(params), prior())

    known = [monte_carlo]
    if closed_form and isinstance(prior, priors.StandardNormal):
        known.append(exact)

    @settings(REPEATABLE, max_examples=10)
    @given(parameters(layer))
    def hold(params):
        for kl in known:
            value, slope = gradient(kl, params)
            assert np.isfinite(value).all()
            assert np.isfinite(slope).all()
            assert kl is monte_carlo or (value >= -1e-5).all()

    hold()


@pytest.mark.parametrize("right_to_left", [False, True])
def test_an_autoregressive_network(right_to_left):
    """Finite and within its limit for any input; what comes later is not looked at."""
    network = layers.AutoregressiveNetwork(D, [8], 2, right_to_left=right_to_left, seed=0)
    for weight in network.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))

    @settings(REPEATABLE, max_examples=20)
    @given(
        arrays("float32", (D,), elements=NUMBERS),
        arrays("float32", (2,), elements=NUMBERS),
        st.integers(0, D - 1),
        NUMBERS,
    )
    def hold(y, context, changed, value):
        shift, log_scale = network(y, context=context)
        assert np.isfinite(shift).all()
        assert (np.abs(log_scale) <= 2).all()
        other = y.copy()
        other[changed] = value
        before = slice(changed, None) if right_to_left else slice(None, changed + 1)
        for old, new in zip((shift, log_scale), network(other, context=context), strict=True):
            np.testing.assert_array_equal(old[before], new[before])

    hold()


@pytest.mark.parametrize("use_exact_kl", [True, False])
def test_a_regularizer(use_exact_kl):
    """Its KL is the mean over the batch, times the weight, with a gradient; never below 0."""
    layer, prior = layers.MultivariateNormalDiag(D), priors.StandardNormal(D)

    @settings(REPEATABLE, max_examples=15)
    @given(parameters(layer), st.floats(0, 10))
    def hold(params, weight):
        regularizer = layers.KLDivergenceRegularizer(prior, use_exact_kl, weight)
        value, slope = gradient(lambda p: regularizer(layer(p)), params)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()
        if use_exact_kl:
            mean, log_variance = np.split(params.astype(float), 2, 1)
            log_variance = np.clip(log_variance, -40, 40)
            kl = (np.exp(log_variance) + mean**2 - 1 - log_variance).sum(1) / 2
            np.testing.assert_allclose(value, weight * kl.mean(), rtol=1e-4, atol=1e-5)

    hold()


@settings(REPEATABLE, max_examples=15)
@given(arrays("float32", (2, D), elements=NUMBERS), st.sampled_from(["float32", "bfloat16"]))
def test_a_lambda_is_given_float32(params, dtype):
    """The numbers as they are: what bfloat16 held is not rounded again."""
    seen = []

    def make(parameters):
        seen.append(parameters)
        return tfd.Independent(tfd.Normal(parameters, 1.0), 1)

    given_params = tf.cast(params, dtype)
    q = layers.DistributionLambda(make)(given_params)
    assert seen[-1].dtype == q.dtype == tf.float32
    np.testing.assert_array_equal(seen[-1], tf.cast(given_params, tf.float32))
    assert np.isfinite(q.sample(seed=1)).all()


@settings(REPEATABLE, max_examples=20)
@given(arrays("float32", (1, 2), elements=st.floats(-(2.0**60), 2.0**60, width=32)))
def test_no_variance_is_zero_or_infinite(log_variances):
    params = np.concatenate([np.zeros((1, 2), "float32"), log_variances], 1)
    scale = layers.MultivariateNormalDiag(2)(params).stddev().numpy()
    expected = np.exp(np.clip(log_variances.astype(float), -40, 40) / 2)
    np.testing.assert_allclose(scale, expected, rtol=1e-4)


@settings(REPEATABLE, max_examples=20)
@given(arrays("float32", (1, 9), elements=st.floats(-(2.0**60), 2.0**60, width=32)))
def test_no_variance_of_a_full_covariance_is_zero_or_infinite(params):
    q = layers.MultivariateNormalTriL(D)(params)
    stddev = q.stddev().numpy()
    assert (stddev >= 1e-5).all()
    assert (stddev < 1e9).all()
    assert np.isfinite(q.covariance()).all()
    assert np.isfinite(q.sample(seed=1)).all()


@pytest.mark.parametrize("log_variance", [-1e3, 1e3])
def test_a_variance_beyond_the_limit_comes_back(log_variance):
    """The gradient of the KL points the way, as if there were no limit."""
    layer, prior = layers.MultivariateNormalDiag(1), priors.StandardNormal(1)
    _, slope = gradient(
        lambda p: objectives.kl_divergence(layer(p), prior()), [[0.0, log_variance]]
    )
    assert np.sign(slope[0, 1]) == np.sign(log_variance)


@pytest.mark.parametrize("log_scale", [-50.0, 50.0])
def test_a_scale_of_pixels_beyond_the_limit_comes_back(log_scale):
    layer = layers.IndependentQuantizedLogistic(1)
    likely = 0.5 if log_scale > 0 else 0.9  # wide of a pixel in the middle, narrow of one away
    _, slope = gradient(lambda p: layer(p).log_prob([likely]), [[0.0, log_scale]])
    assert np.sign(slope[0, 1]) == -np.sign(log_scale)


HEADS = [(-1e4, -1e4), (-1e4, 1e4), (1e4, -1e4), (1e4, 1e4), (0.0, -104.0), (0.0, 104.0)]


MODELS = [
    pytest.param(lambda: small_vae(use_exact_kl=True), id="exact"),
    pytest.param(lambda: small_vae(use_exact_kl=False), id="monte carlo"),
    pytest.param(lambda: vamp(2), id="vamp"),
]


def assert_finite(vae, rng):
    """The ELBO of four images, and its gradient by every weight."""
    x = rng.integers(0, 2, (4, *SHAPE)).astype("float32")
    with tf.GradientTape() as tape:
        elbo = vae.elbo(x, seed=0)
    assert np.isfinite(elbo).all()
    for slope in tape.gradient(elbo, [v.value for v in vae.trainable_variables]):
        assert np.isfinite(slope).all()


@pytest.mark.parametrize(("encoder", "decoder"), HEADS)
@pytest.mark.parametrize("make", MODELS)
def test_the_elbo_of_a_model(encoder, decoder, make, rng):
    """Biases of the last layers, which are mean and log-variance, and logits."""
    vae = make()
    for network, bias in ((vae.encoder, encoder), (vae.decoder, decoder)):
        last = [layer for layer in network.layers if getattr(layer, "bias", None) is not None][-1]
        last.bias.assign(tf.fill(last.bias.shape, bias))
    assert_finite(vae, rng)


@pytest.mark.parametrize("factor", [3, 30])
def test_flows_whose_weights_are_far_too_large(factor, rng):
    """Posterior and prior: the log-scales would be in the thousands, were they not limited.

    Of weights around 100 in all these layers the true density is beyond what float32 holds.
    """
    vae = small_vae(
        priors.AutoregressiveFlow(2, 2, (8,), seed=0),
        posterior={"name": "iaf", "num_flows": 2, "units": [8], "context_size": 2},
        use_exact_kl=False,
    )
    flows = [*vae.encoder.layers[-1].weights, *vae.prior.weights]
    assert len({id(v) for v in flows}) > 8
    for variable in {id(v): v for v in flows}.values():
        variable.assign(rng.normal(size=variable.shape) * factor)
    assert_finite(vae, rng)


@pytest.mark.parametrize(("posterior", "rate"), [("diagonal", 10.0), ("full", 10.0), ("iaf", 0.1)])
def test_a_learning_rate_that_is_far_too_high(posterior, rate, rng):
    """The weights may be worth nothing afterwards; they, and the figures, are numbers.

    From 1 on the shifts of a flow grow beyond float32, which a run then says.
    """
    vae = small_vae(posterior=posterior, use_exact_kl=posterior != "iaf")
    vae.compile(keras.optimizers.Adam(rate))
    x = rng.integers(0, 2, (64, *SHAPE)).astype("float32")
    history = vae.fit(x, batch_size=8, epochs=3, verbose=0).history
    assert np.isfinite(history["elbo"]).all()
    scale = vae.encode(x).stddev().numpy()
    assert (scale > 1e-9).all()
    assert (scale < 1e9).all()
    assert all(np.isfinite(v).all() for v in vae.get_weights())
