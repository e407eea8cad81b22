"""Distribution layers and the KL regularizer against closed forms in NumPy and SciPy."""

import json

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import layers, priors

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tests")
def unit_normal(params):
    return tfd.Independent(tfd.Normal(params, 1.0), 1)


@keras.saving.register_keras_serializable(package="tests")
def two_standard_normals():
    return tfd.MultivariateNormalDiag([0.0, 0.0])


LAYERS = [
    pytest.param(lambda **k: layers.DistributionLambda(unit_normal, **k), 3, (3,), id="lambda"),
    pytest.param(lambda **k: layers.MultivariateNormalDiag(3, **k), 6, (3,), id="diag"),
    pytest.param(lambda **k: layers.MultivariateNormalTriL(3, **k), 9, (3,), id="tril"),
    pytest.param(
        lambda **k: layers.InverseAutoregressiveFlow(
            3, num_flows=2, units=[5], context_size=2, seed=1, **k
        ),
        8,
        (3,),
        id="iaf",
    ),
    pytest.param(lambda **k: layers.IndependentBernoulli((2, 3, 1), **k), 6, (2, 3, 1), id="bern"),
    pytest.param(
        lambda **k: layers.AutoregressiveBernoulli((2, 3, 1), units=4, radius=1, seed=1, **k),
        24,
        (2, 3, 1),
        id="autoregressive",
    ),
    pytest.param(
        lambda **k: layers.IndependentContinuousBernoulli((2, 3, 1), **k), 6, (2, 3, 1), id="cb"
    ),
    pytest.param(lambda **k: layers.IndependentNormal((2, 3, 1), **k), 12, (2, 3, 1), id="normal"),
    pytest.param(
        lambda **k: layers.IndependentNormalFixedScale((2, 3, 1), scale=0.3, **k),
        6,
        (2, 3, 1),
        id="fixed",
    ),
    pytest.param(
        lambda **k: layers.IndependentQuantizedLogistic((2, 3, 1), **k), 12, (2, 3, 1), id="8-bit"
    ),
    pytest.param(
        lambda **k: layers.IndependentQuantizedLogisticMixture((2, 3, 1), 2, **k),
        36,
        (2, 3, 1),
        id="8-bit mixture",
    ),
]


class Subclassed(keras.Model):
    def __init__(self, dense, layer):
        super().__init__()
        self.dense, self.layer = dense, layer

    def call(self, x):
        return self.layer(self.dense(x))


def model_of(kind, make_layer, size):
    dense = keras.layers.Dense(size)
    if kind == "sequential":
        return keras.Sequential([keras.Input((4,)), dense, make_layer()])
    if kind == "functional":
        inputs = keras.Input((4,))
        return keras.Model(inputs, make_layer()(dense(inputs)))
    return Subclassed(dense, make_layer())


@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed"])
@pytest.mark.parametrize(("make_layer", "size", "event_shape"), LAYERS)
def test_every_layer_in_every_kind_of_model(make_layer, size, event_shape, kind, rng):
    """Of the right shape; eagerly, in a graph and under XLA the same densities.

    The density is the layer's, whatever kind of model it is in: one layer stands for all in two.
    """
    model = model_of(kind, make_layer, size)
    x = rng.normal(size=(5, 4)).astype("float32")
    value = rng.uniform(0.1, 0.9, size=(5, *event_shape)).astype("float32")
    distribution = model(x)
    assert isinstance(distribution, tfd.Distribution)
    assert distribution.batch_shape == (5,)
    assert distribution.event_shape == event_shape
    assert distribution.dtype == tf.float32
    if kind != "subclassed":
        assert model.output_shape == (None, *event_shape)
    eager = distribution.log_prob(value)
    if kind != "sequential" and make_layer is not LAYERS[0].values[0]:
        return
    graph = tf.function(lambda x, v: model(x).log_prob(v))(x, value)
    xla = tf.function(lambda x, v: model(x).log_prob(v), jit_compile=True)(x, value)
    np.testing.assert_allclose(graph, eager, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(xla, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize(("make_layer", "size", "event_shape"), LAYERS)
def test_any_number_of_leading_dimensions(make_layer, size, event_shape, lead, rng):
    params = rng.normal(size=(*lead, size)).astype("float32")
    distribution = make_layer()(tf.constant(params))
    assert distribution.batch_shape == lead
    # Each one of the batch is the distribution of its own parameters.
    value = distribution.sample(seed=1)
    flat = make_layer()(tf.constant(params.reshape(-1, size)))
    np.testing.assert_allclose(
        np.ravel(distribution.log_prob(value)),
        flat.log_prob(tf.reshape(value, [-1, *event_shape])),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(("make_layer", "size", "event_shape"), LAYERS)
def test_mixed_bfloat16_reaches_the_distribution_as_float32(make_layer, size, event_shape, rng):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = model_of("sequential", make_layer, size)
    assert model.layers[0].compute_dtype == "bfloat16"
    distribution = model(rng.normal(size=(5, 4)).astype("float32"))
    assert distribution.dtype == tf.float32
    assert distribution.log_prob(distribution.sample(seed=0)).dtype == tf.float32
    # Parameters that come as float32 must not be rounded on the way in.
    exact = tf.constant(rng.normal(size=(1, size)).astype("float32"))
    value = make_layer()(exact).sample(seed=0)
    keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_array_equal(
        make_layer(dtype="mixed_bfloat16")(exact).log_prob(value),
        make_layer()(exact).log_prob(value),
    )


REGISTER = """
import tensorflow_probability as tfp
@keras.saving.register_keras_serializable(package="tests")
def unit_normal(params):
    return tfp.distributions.Independent(tfp.distributions.Normal(params, 1.0), 1)
"""


def test_every_layer_loads_in_a_fresh_process(tmp_path, fresh_process, rng):
    """One process for all: only the import of the package precedes `load_model`."""
    code, expected = "import sys, os, numpy as np, keras, tfp_vae\n" + REGISTER, {}
    for parameters in LAYERS:
        make_layer, size, event_shape = parameters.values
        model = model_of("functional", make_layer, size)
        x = rng.normal(size=(3, 4)).astype("float32")
        value = rng.uniform(0.1, 0.9, size=(3, *event_shape)).astype("float32")
        expected[parameters.id] = np.asarray(model(x).log_prob(value))
        model.save(tmp_path / f"{parameters.id}.keras")
        np.savez(tmp_path / f"{parameters.id}.npz", x=x, value=value)
        code += f"""
model = keras.saving.load_model("{parameters.id}.keras", safe_mode=True)
data = np.load("{parameters.id}.npz")
np.save("{parameters.id}.npy", model(data["x"]).log_prob(data["value"]))
"""
    fresh_process(code)
    for name, log_prob in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), log_prob, rtol=1e-6)


# --------------------------------------------------------------------- closed forms


def test_diagonal_normal_is_mean_and_log_variance(rng):
    params, value = rng.normal(size=(4, 6)), rng.normal(size=(4, 3))
    q = layers.MultivariateNormalDiag.new(tf.constant(params, tf.float32), 3)
    expected = scipy.stats.norm.logpdf(value, params[:, :3], np.exp(0.5 * params[:, 3:])).sum(1)
    np.testing.assert_allclose(q.log_prob(value.astype("float32")), expected, rtol=1e-5)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("draws", [(), 5, (5,), (2, 3), (0,)])
@pytest.mark.parametrize("known", [True, False], ids=["known shapes", "unknown shapes"])
def test_diagonal_normal_draws_and_densities_are_those_of_tfp(lead, draws, known, rng):
    """The same draws of a seed to the last bit, so that no figure hangs on whose they are."""
    params = rng.normal(size=(*lead, 6)).astype("float32") * 2
    seed = tf.constant([3, 4])

    def ours(params, draws):
        q = layers.MultivariateNormalDiag.new(tf.ensure_shape(params, [None] * len(lead) + [6]), 3)
        z = q.sample(draws, seed=seed)
        return z, q.log_prob(z), q.log_prob(z + 0.5), priors.StandardNormal(3)().log_prob(z)

    arguments = tf.constant(params), tf.constant(draws, tf.int32)
    if not known:
        unknown = [tf.TensorSpec([None] * params.ndim), tf.TensorSpec(arguments[1].shape, tf.int32)]
        ours = tf.function(ours, input_signature=unknown)
    found = ours(*arguments)
    loc, log_variance = np.split(params, 2, -1)
    tfps = tfp.distributions.MultivariateNormalDiag(loc, tf.exp(0.5 * tf.constant(log_variance)))
    z = tfps.sample(draws, seed=seed)
    assert found[0].shape == z.shape
    assert np.array_equal(found[0], z)
    standard = tfp.distributions.MultivariateNormalDiag(tf.zeros(3))
    for log_p, expected in zip(
        found[1:], (tfps.log_prob(z), tfps.log_prob(z + 0.5), standard.log_prob(z)), strict=True
    ):
        np.testing.assert_allclose(log_p, expected, rtol=2e-6, atol=2e-6)


def test_full_normal_fills_a_lower_triangle_with_a_positive_diagonal(rng):
    params, value = rng.normal(size=9), rng.normal(size=3)
    q = layers.MultivariateNormalTriL.new(tf.constant(params[None], tf.float32), 3)
    scale = np.asarray(q.scale.to_dense())[0]
    assert np.array_equal(scale, np.tril(scale))
    # TFP fills a triangle in a spiral; the softplus of the diagonal entries is what is fixed.
    filled = np.asarray(tfp.math.fill_triangular(params[3:]))
    np.testing.assert_allclose(np.diag(scale), np.logaddexp(0, np.diag(filled)) + 1e-5, rtol=1e-5)
    np.testing.assert_allclose(np.tril(scale, -1), np.tril(filled, -1), rtol=1e-6)
    covariance = scale @ scale.T
    np.testing.assert_allclose(q.covariance()[0], covariance, rtol=1e-5)
    np.testing.assert_allclose(q.variance()[0], np.diag(covariance), rtol=1e-5)
    np.testing.assert_allclose(q.stddev()[0], np.sqrt(np.diag(covariance)), rtol=1e-5)
    expected = scipy.stats.multivariate_normal.logpdf(value, params[:3], covariance)
    np.testing.assert_allclose(q.log_prob(value.astype("float32"))[0], expected, rtol=1e-4)


def test_bernoulli_is_minus_binary_cross_entropy(rng):
    logits, x = rng.normal(size=(4, 6)) * 3, rng.integers(0, 2, size=(4, 2, 3, 1))
    p = layers.IndependentBernoulli.new(tf.constant(logits, tf.float32), (2, 3, 1))
    pi = scipy.special.expit(logits).reshape(x.shape)
    expected = scipy.stats.bernoulli.logpmf(x, pi).sum((1, 2, 3))
    np.testing.assert_allclose(p.log_prob(x.astype("float32")), expected, rtol=1e-5)
    np.testing.assert_allclose(p.mean(), pi, rtol=1e-5)
    assert set(np.unique(p.sample(20, seed=1))) == {0.0, 1.0}


def test_continuous_bernoulli_is_a_density_and_bernoulli_is_not():
    """On grey pixels one integrates to 1, the other does not: DESIGN's sixth trap."""
    grid = np.linspace(0, 1, 20_001, dtype="float32").reshape(-1, 1)
    for logit in (-4.0, 0.3, 2.0):
        params = tf.constant([[logit]])
        density = np.exp(layers.IndependentContinuousBernoulli.new(params, 1).log_prob(grid))
        assert scipy.integrate.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-4)
        probability = np.exp(layers.IndependentBernoulli.new(params, 1).log_prob(grid))
        assert abs(scipy.integrate.trapezoid(probability, grid[:, 0]) - 1) > 0.1
    lam = scipy.special.expit(2.0)
    mean = lam / (2 * lam - 1) + 1 / (2 * np.arctanh(1 - 2 * lam))
    got = layers.IndependentContinuousBernoulli.new(tf.constant([[2.0]]), 1).mean()
    assert float(got[0, 0]) == pytest.approx(mean, rel=1e-4)


def test_independent_normal_is_mean_and_softplus(rng):
    params, x = rng.normal(size=(4, 12)), rng.normal(size=(4, 2, 3, 1))
    p = layers.IndependentNormal.new(tf.constant(params, tf.float32), (2, 3, 1))
    loc, scale = params[:, :6].reshape(x.shape), np.logaddexp(0, params[:, 6:]).reshape(x.shape)
    expected = scipy.stats.norm.logpdf(x, loc, scale).sum((1, 2, 3))
    np.testing.assert_allclose(p.log_prob(x.astype("float32")), expected, rtol=1e-4)


def test_fixed_scale_is_the_squared_error(rng):
    loc, x = rng.normal(size=(2, 4, 5)).astype("float32")
    distribution = layers.IndependentNormalFixedScale(5, scale=0.3)(tf.constant(loc))
    expected = scipy.stats.norm(loc, 0.3).logpdf(x).sum(-1)
    np.testing.assert_allclose(distribution.log_prob(x), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="scale: expected a finite number above 0, got 0"):
        layers.IndependentNormalFixedScale(5, scale=0)


# --------------------------------------------------------------------- the KL, once


def normal_kl(params, prior_mean=0.0, prior_scale=1.0):
    """``KL(N(m, s^2) || N(prior))`` summed over dimensions, in NumPy."""
    mean, log_variance = np.split(np.asarray(params, np.float64), 2, axis=-1)
    ratio = np.exp(log_variance) / prior_scale**2
    shift = (mean - prior_mean) ** 2 / prior_scale**2
    return 0.5 * (ratio + shift - 1 - np.log(ratio)).sum(-1)


PRIORS = [
    pytest.param(lambda: priors.StandardNormal(2), 0.0, 1.0, id="layer"),
    pytest.param(
        lambda: tfd.MultivariateNormalDiag([1.0, -2.0], [0.5, 2.0]),
        np.array([1.0, -2.0]),
        np.array([0.5, 2.0]),
        id="distribution",
    ),
    pytest.param(lambda: tfd.Independent(tfd.Normal([0.0, 0.0], 1.0), 1), 0.0, 1.0, id="tutorial"),
    pytest.param(lambda: two_standard_normals, 0.0, 1.0, id="function"),
]


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
@pytest.mark.parametrize(("make_prior", "mean", "scale"), PRIORS)
def test_exact_kl_is_in_the_loss_once(make_prior, mean, scale, weight, rng):
    regularizer = layers.KLDivergenceRegularizer(make_prior(), weight=weight)
    encoder = model_of(
        "sequential",
        lambda: layers.MultivariateNormalDiag(2, activity_regularizer=regularizer),
        4,
    )
    x = rng.normal(size=(7, 4)).astype("float32")
    params = encoder.layers[0](x)
    encoder(x)
    assert len(encoder.losses) == 1
    expected = weight * normal_kl(params, mean, scale).mean()
    assert float(encoder.losses[0]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    encoder(x)  # a second call replaces the first one's loss
    assert float(tf.add_n(encoder.losses)) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@keras.saving.register_keras_serializable(package="tests")
def independent_pair(params):
    loc, log_variance = tf.split(params, 2, axis=-1)
    return tfd.Independent(tfd.Normal(loc, tf.exp(0.5 * log_variance)), 1)


@pytest.mark.parametrize("lead", [(6,), (2, 3)], ids=str)
def test_kl_is_averaged_over_all_leading_dimensions(lead, rng):
    regularizer = layers.KLDivergenceRegularizer(priors.StandardNormal(2))
    layer = layers.MultivariateNormalDiag(2, activity_regularizer=regularizer)
    params = rng.normal(size=(*lead, 4)).astype("float32")
    layer(tf.constant(params))
    assert float(layer.losses[0]) == pytest.approx(normal_kl(params).mean(), rel=1e-5)


def test_monte_carlo_kl_is_unbiased(rng):
    """One distribution 20,000 times over: the loss is the mean of as many estimates."""
    regularizer = layers.KLDivergenceRegularizer(
        tfd.MultivariateNormalDiag([0.5, 0.0]), use_exact_kl=False, num_samples=2, seed=3
    )
    layer = layers.MultivariateNormalDiag(2, activity_regularizer=regularizer)
    params = rng.normal(size=(1, 4)).astype("float32")
    posterior = layer(tf.repeat(tf.constant(params), 20_000, axis=0))
    assert len(layer.losses) == 1
    error = np.std(regularizer.divergence(posterior)) / np.sqrt(20_000)
    assert 0 < error < 0.05
    assert abs(float(layer.losses[0]) - normal_kl(params, np.array([0.5, 0.0]))[0]) < 5 * error


def test_keras_fit_trains_on_the_kl_once(rng):
    """A bare encoder compiled without a loss: what `fit` minimizes is the mean KL itself."""
    regularizer = layers.KLDivergenceRegularizer(priors.StandardNormal(2))
    encoder = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4),
            layers.MultivariateNormalDiag(2, activity_regularizer=regularizer),
        ]
    )
    x = rng.normal(size=(8, 4)).astype("float32")
    expected = normal_kl(encoder.layers[0](x)).mean()
    encoder.compile(keras.optimizers.SGD(0.0))
    loss = encoder.fit(x, batch_size=8, verbose=0).history["loss"][0]
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "monte-carlo"])
def test_regularizer_refuses_a_prior_of_another_size(exact):
    """TFP would broadcast a prior of one dimension over any posterior."""
    kl = layers.KLDivergenceRegularizer(priors.StandardNormal(1), use_exact_kl=exact)
    layer = layers.MultivariateNormalDiag(3, activity_regularizer=kl)
    with pytest.raises(ValueError, match=r"event shape \(1,\), got \(3,\)"):
        layer(np.zeros((2, 6), "float32"))


@pytest.mark.parametrize(("make_prior"), [p.values[0] for p in PRIORS], ids=[p.id for p in PRIORS])
def test_regularizer_round_trips_through_json(make_prior):
    regularizer = layers.KLDivergenceRegularizer(
        make_prior(), use_exact_kl=False, weight=0.5, num_samples=3, seed=4
    )
    config = json.loads(json.dumps(keras.regularizers.serialize(regularizer)))
    again = keras.regularizers.deserialize(config)
    assert again.get_config() == regularizer.get_config()
    z = np.array([[0.3, -1.0]], "float32")
    np.testing.assert_array_equal(again.prior().log_prob(z), regularizer.prior().log_prob(z))


# --------------------------------------------------------------------- as tensors


def test_tfps_wiring_of_encoder_into_decoder_works(rng):
    """`keras.Model(encoder.inputs, decoder(encoder.outputs[0]))`, as in TFP's tutorial."""
    regularizer = layers.KLDivergenceRegularizer(priors.StandardNormal(2))
    encoder = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4),
            layers.MultivariateNormalDiag(2, activity_regularizer=regularizer),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(6),
            layers.IndependentBernoulli(6, tfd.Bernoulli.logits),
        ]
    )
    model = keras.Model(encoder.inputs[0], decoder(encoder.outputs[0]))
    x = rng.integers(0, 2, size=(5, 6)).astype("float32")
    p = model(x)
    assert isinstance(p, tfd.Independent)
    np.testing.assert_array_equal(tf.convert_to_tensor(p), p.distribution.logits)
    expected = normal_kl(encoder.layers[0](x)).mean()
    assert float(tf.add_n(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("convert", "expected"),
    [
        pytest.param("mean", lambda p: p.mean(), id="mean"),
        pytest.param(tfd.Distribution.mean, lambda p: p.mean(), id="method"),
        pytest.param("stddev", lambda p: p.stddev(), id="stddev"),
        pytest.param(lambda p: 2 * p.mean(), lambda p: 2 * p.mean(), id="function"),
    ],
)
def test_convert_to_tensor_fn(convert, expected, rng):
    layer = layers.IndependentNormal(3, convert)
    p = layer(tf.constant(rng.normal(size=(2, 6)).astype("float32")))
    np.testing.assert_array_equal(tf.convert_to_tensor(p), expected(p))


def test_as_numpy_array_and_no_cycle():
    import gc
    import weakref

    layer = layers.IndependentNormal(3, "mean")
    p = layer(tf.zeros([2, 6]))
    np.testing.assert_array_equal(np.array(p), np.zeros((2, 3)))
    gc.collect()
    gc.disable()
    try:
        seen = weakref.ref(p)
        del p
        assert seen() is None
    finally:
        gc.enable()


def test_sample_as_tensor_has_the_layers_seed():
    params = tf.zeros([1, 4])
    first = layers.MultivariateNormalDiag(2, seed=5)
    again = layers.MultivariateNormalDiag(2, seed=5)
    a, b = tf.convert_to_tensor(first(params)), tf.convert_to_tensor(first(params))
    np.testing.assert_array_equal(a, tf.convert_to_tensor(again(params)))
    assert not np.array_equal(a, b)


def test_other_distributions_are_no_tensors():
    with pytest.raises((TypeError, ValueError)):
        tf.convert_to_tensor(tfd.Normal(0.0, 1.0))


def test_learned_prior_is_trained_and_saved_with_a_bare_encoder(tmp_path, rng):
    prior = priors.GaussianMixture(2, 3, seed=0)
    regularizer = layers.KLDivergenceRegularizer(prior, use_exact_kl=False, seed=1)
    encoder = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4),
            layers.MultivariateNormalDiag(2, activity_regularizer=regularizer),
        ]
    )
    encoder.compile(keras.optimizers.SGD(0.1))
    before = prior.loc.numpy()
    encoder.fit(rng.normal(size=(8, 4)).astype("float32"), verbose=0)
    assert not np.array_equal(before, prior.loc.numpy())
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    again = loaded.layers[-1].activity_regularizer.distribution_b
    np.testing.assert_array_equal(again.loc.numpy(), prior.loc.numpy())
    assert any(again.loc is weight for weight in loaded.trainable_weights)


# --------------------------------------------------------------------- bad input


class Normal(tfd.Normal):
    """Of the same name as TFP's, and something else: it must not come back as TFP's."""


BAD = [
    pytest.param(lambda: layers.MultivariateNormalDiag(0), ValueError, "at least 1, got 0",
                 id="latent size 0"),
    pytest.param(lambda: layers.MultivariateNormalTriL(2.5), ValueError, "got 2.5", id="half"),
    pytest.param(lambda: layers.IndependentBernoulli((28, 0, 1)), ValueError, "got 0",
                 id="no width"),
    pytest.param(lambda: layers.IndependentQuantizedLogisticMixture((4, 4, 3), 0), ValueError,
                 "num_components.*at least 1, got 0", id="no component"),
    pytest.param(lambda: layers.IndependentQuantizedLogisticMixture((4, 4, 0)), ValueError,
                 "event_shape.*got 0", id="mixture without channels"),
    pytest.param(lambda: layers.IndependentQuantizedLogisticMixture(2, 3)(tf.zeros([3, 30])),
                 ValueError, r"params_size = 18, got the shape \(3, 30\)", id="mixture parameters"),
    pytest.param(lambda: layers.MultivariateNormalDiag(2)(tf.zeros([3, 5])), ValueError,
                 r"params_size = 4, got the shape \(3, 5\)", id="parameters"),
    pytest.param(lambda: layers.DistributionLambda("no function"), TypeError, "got str", id="text"),
    pytest.param(lambda: layers.DistributionLambda(lambda t: t)(tf.zeros([3, 2])), TypeError,
                 "to return a tfd.Distribution, got", id="tensor"),
    pytest.param(lambda: layers.DistributionLambda(lambda t: tfd.Normal(t, 1.0)).get_config(),
                 ValueError, "register_keras_serializable", id="lambda saved"),
    pytest.param(lambda: layers.IndependentNormal(2, lambda p: p.mean()).get_config(),
                 ValueError, "register_keras_serializable", id="conversion saved"),
    pytest.param(lambda: layers.IndependentNormal(2, "median"), ValueError, "got 'median'",
                 id="conversion name"),
    pytest.param(lambda: layers.KLDivergenceRegularizer(3.0), TypeError, "got float", id="prior"),
    pytest.param(lambda: layers.KLDivergenceRegularizer(priors.StandardNormal(2), weight=-1),
                 ValueError, "at least 0, got -1", id="weight"),
    pytest.param(lambda: layers.KLDivergenceRegularizer(priors.StandardNormal(2), num_samples=0),
                 ValueError, "got 0", id="samples"),
    pytest.param(lambda: layers.KLDivergenceRegularizer(
        tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0]))), ValueError, "holds tf.Variables",
                 id="variables"),
    pytest.param(lambda: layers.KLDivergenceRegularizer(Normal(0.0, 1.0)).get_config(), ValueError,
                 "not a class of tfp.distributions", id="namesake saved"),
    pytest.param(lambda: layers.KLDivergenceRegularizer(
        tfd.TransformedDistribution(tfd.Normal(0.0, 1.0), tfp.bijectors.Exp())).get_config(),
                 ValueError, "pickling code", id="bijector saved"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bernoulli_log_prob_and_gradient_at_extreme_logits():
    logits = np.array([-1e4, -90, -3, 0, 0.5, 20, 1e4], "float32")
    for x in (0.0, 0.3, 1.0):
        with tf.GradientTape() as tape:
            parameters = tf.Variable(logits)
            value = layers.IndependentBernoulli.new(parameters, (7,)).log_prob(tf.fill([7], x))
        exact = logits.astype("float64")
        expected = x * exact - np.logaddexp(0, exact)
        np.testing.assert_allclose(value, expected.sum(), rtol=1e-6)
        slope = x - scipy.special.expit(exact)
        np.testing.assert_allclose(tape.gradient(value, parameters), slope, atol=1e-6)


def test_bernoulli_keeps_the_digits_of_almost_certain_pixels():
    """Whose log-probability is the tail of the other outcome, far below float32's step at 1."""
    logits = np.array([9, 20, 40, 80], "float32")
    for x, sign in ((1.0, 1), (0.0, -1)):
        pixels = layers.IndependentBernoulli.new(tf.constant(sign * logits), (4,)).distribution
        expected = -np.log1p(np.exp(-logits.astype("float64")))
        np.testing.assert_allclose(pixels.log_prob(tf.fill([4], x)), expected, rtol=1e-6)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize(
    ("of_logits", "of_event"),
    [((2, 3), (2, 3)), ((4, 2, 3), (2, 3)), ((2, 3), (4, 2, 3)), ((4, 1, 3), (2, 1))],
)
def test_bernoulli_gradients_of_shapes_that_broadcast(of_logits, of_event, known, rng):
    logits, event = rng.normal(0, 3, of_logits), rng.uniform(size=of_event)
    weight = rng.normal(size=np.broadcast_shapes(of_logits, of_event))
    signature = [tf.TensorSpec([n if known else None for n in a.shape], "float64")
                 for a in (logits, event)]  # fmt: skip

    @tf.function(input_signature=signature)
    def gradients(logits, event):
        with tf.GradientTape() as tape:
            tape.watch([logits, event])
            pixels = layers.IndependentBernoulli.new(logits[..., None], (1,)).distribution
            value = tf.reduce_sum(weight[..., None] * pixels.log_prob(event[..., None]))
        return tape.gradient(value, [logits, event])

    def summed(slopes, shape):
        axes = tuple(range(slopes.ndim - len(shape)))
        slopes = slopes.sum(axes)
        ones = tuple(i for i, n in enumerate(shape) if n == 1)
        return slopes.sum(ones, keepdims=True)

    found = gradients(tf.constant(logits), tf.constant(event))
    slope = weight * (event - scipy.special.expit(logits))
    np.testing.assert_allclose(found[0], summed(slope, of_logits), rtol=1e-12)
    np.testing.assert_allclose(found[1], summed(weight * logits, of_event), rtol=1e-12)


def test_bernoulli_second_derivatives(rng):
    logits = tf.constant(rng.normal(0, 2, [5]))
    with tf.GradientTape() as outer:
        outer.watch(logits)
        with tf.GradientTape() as inner:
            inner.watch(logits)
            value = layers.IndependentBernoulli.new(logits, (5,)).log_prob(tf.zeros([5], "float64"))
        slope = inner.gradient(value, logits)
    probability = scipy.special.expit(logits)
    np.testing.assert_allclose(
        outer.gradient(slope, logits), -probability * (1 - probability), rtol=1e-9
    )


def test_bernoulli_is_that_of_tfp():
    pixels = layers.IndependentBernoulli((3,))(np.zeros([2, 3], "float32")).distribution
    assert isinstance(pixels, tfd.Bernoulli)
    other = tfd.Bernoulli(logits=np.full([2, 3], 2.0, "float32"))
    np.testing.assert_allclose(
        tfd.kl_divergence(pixels, other),
        tfd.kl_divergence(tfd.Bernoulli(logits=np.zeros([2, 3], "float32")), other),
    )
    assert tf.function(lambda: pixels.copy(logits=pixels.logits + 1))().logits.shape == (2, 3)


@pytest.mark.parametrize(
    "cls",
    [
        layers.IndependentBernoulli,
        layers.IndependentContinuousBernoulli,
        layers.IndependentNormal,
        layers.IndependentNormalFixedScale,
    ],
)
def test_pixels_have_the_type_of_their_parameters(cls):
    params = tf.zeros([1, cls.params_size((2,))], tf.float64)
    pixels = cls((2,), dtype="float64")(params)
    assert pixels.dtype == pixels.sample(seed=0).dtype == tf.float64
