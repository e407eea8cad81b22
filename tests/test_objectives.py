"""Objectives against NumPy and SciPy."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tests.models import FactorAnalysis
from tfp_vae import VAE, networks, objectives, priors

tfd = tfp.distributions


def test_exact_kl_of_two_normals():
    q = tfd.MultivariateNormalDiag([[0.5, -1.0]], [[0.3, 2.0]])
    p = tfd.MultivariateNormalDiag([0.0, 1.0], [1.0, 0.5])
    expected = sum(
        np.log(sp / sq) + (sq**2 + (mq - mp) ** 2) / (2 * sp**2) - 0.5
        for mq, sq, mp, sp in ((0.5, 0.3, 0.0, 1.0), (-1.0, 2.0, 1.0, 0.5))
    )
    np.testing.assert_allclose(objectives.kl_divergence(q, p), [expected], rtol=1e-5)


def test_monte_carlo_kl_is_the_log_ratio_at_the_draw():
    q = tfd.MultivariateNormalDiag([[0.5], [1.0]], [[0.3], [1.0]])
    p = tfd.MultivariateNormalDiag([0.0])
    z = np.array([[[0.2], [0.7]], [[-1.0], [0.0]], [[3.0], [1.0]]], "float32")
    expected = scipy.stats.norm.logpdf(z, [[0.5], [1.0]], [[0.3], [1.0]]) - scipy.stats.norm.logpdf(
        z
    )
    np.testing.assert_allclose(objectives.kl_divergence(q, p, z), expected[..., 0], rtol=1e-4)


def test_a_pair_without_closed_form_is_an_error_that_names_it():
    q = tfd.MultivariateNormalDiag([[0.5]])
    p = tfd.MixtureSameFamily(
        tfd.Categorical(logits=[0.0, 0.0]), tfd.MultivariateNormalDiag([[0.0], [1.0]])
    )
    with pytest.raises(NotImplementedError, match=r"MultivariateNormalDiag.*MixtureSameFamily"):
        objectives.kl_divergence(q, p)


def test_elbo_weighs_the_kl():
    np.testing.assert_allclose(objectives.elbo(np.array([-3.0]), np.array([0.5]), 4.0), [-5.0])


def test_importance_weighted_bound(rng):
    log_w = rng.normal(size=(50, 3)) * 300  # far beyond what exp can hold
    expected = scipy.special.logsumexp(log_w, axis=0) - np.log(50)
    np.testing.assert_allclose(objectives.importance_weighted_bound(log_w), expected, rtol=1e-6)
    bound = tf.function(
        objectives.importance_weighted_bound, input_signature=[tf.TensorSpec([None, 3], tf.float64)]
    )
    np.testing.assert_allclose(bound(log_w), expected, rtol=1e-6)
    one = objectives.importance_weighted_bound(log_w[:1])
    np.testing.assert_allclose(one, log_w[0], rtol=1e-6)  # with one sample it is the ELBO


def test_log_weights(rng):
    posterior = tfd.MultivariateNormalDiag([[0.5], [1.0]], [[0.3], [1.0]])
    prior = tfd.MultivariateNormalDiag([0.0])
    x = rng.normal(size=(2, 4)).astype("float32")
    z = rng.normal(size=(3, 2, 1)).astype("float32")
    likelihood = tfd.Independent(tfd.Normal(z * np.ones(4, "float32"), 0.7), 1)
    expected = (
        scipy.stats.norm.logpdf(x, z, 0.7).sum(-1)
        + scipy.stats.norm.logpdf(z[..., 0])
        - scipy.stats.norm.logpdf(z[..., 0], [0.5, 1.0], [0.3, 1.0])
    )
    got = objectives.log_weights(likelihood, posterior, prior, x, z)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


# --------------------------------------------------------------------- parts of the KL


def test_kl_of_each_dimension_sums_to_the_kl(rng):
    loc, scale = rng.normal(size=(4, 3)), rng.uniform(0.2, 2, size=(4, 3))
    q = tfd.MultivariateNormalDiag(loc, scale)
    p = tfd.Independent(tfd.Normal(np.zeros(3), 1.5), 1)
    expected = np.log(1.5 / scale) + (scale**2 + loc**2) / (2 * 1.5**2) - 0.5
    np.testing.assert_allclose(objectives.kl_per_dimension(q, p), expected, rtol=1e-6)
    z = q.sample(5, seed=1)
    parts = objectives.kl_per_dimension(q, p, z)
    expected = scipy.stats.norm.logpdf(z, loc, scale) - scipy.stats.norm.logpdf(z, 0, 1.5)
    np.testing.assert_allclose(parts, expected, rtol=1e-6)
    total = objectives.kl_divergence(q, p, z)
    np.testing.assert_allclose(tf.reduce_sum(parts, -1), total, rtol=1e-6)


def test_kl_of_each_dimension_needs_products():
    q = tfd.MultivariateNormalTriL([[0.0, 0.0]], [[[1.0, 0.0], [0.5, 1.0]]])
    p = tfd.MultivariateNormalDiag([0.0, 0.0])
    with pytest.raises(NotImplementedError, match="posterior: expected a product over the latent"):
        objectives.kl_per_dimension(q, p)
    with pytest.raises(NotImplementedError, match="prior: expected a product over the latent"):
        objectives.kl_per_dimension(p, q)


def test_free_bits_take_the_mean_over_the_batch():
    # The first dimension is below half a nat in the mean, though not for each image.
    kl = tf.Variable([[0.9, 2.0], [0.0, 1.0], [0.3, 0.0]])
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(objectives.free_bits(kl, 0.5))
    assert float(value) == pytest.approx(0.5 + 1.0)
    np.testing.assert_allclose(tape.gradient(value, kl), [[0, 1 / 3]] * 3)
    np.testing.assert_allclose(objectives.free_bits(kl, 0.0), [2.9, 1.0, 0.3], rtol=1e-6)


@pytest.mark.parametrize("minimum", [-0.1, np.nan, np.inf])
def test_free_bits_refuse(minimum):
    with pytest.raises(ValueError, match="free_bits: expected a finite number of at least 0, got"):
        objectives.free_bits(tf.zeros([2, 3]), minimum)


# --------------------------------------------------------------------- warm-up


def test_linear_warm_up():
    warm_up = objectives.LinearWarmUp(4, final=2.0)
    assert [float(warm_up(step)) for step in range(7)] == [0, 0.5, 1, 1.5, 2, 2, 2]


def test_warm_up_takes_the_type_of_the_kl():
    weight = objectives.LinearWarmUp(4)(2)
    value = objectives.elbo(tf.constant([1.0], tf.float64), tf.constant([3.0], tf.float64), weight)
    np.testing.assert_allclose(value, [-0.5])


def test_cyclical_warm_up():
    warm_up = objectives.CyclicalWarmUp(4, final=0.5, cycles=2, rising=0.5)
    weights = [float(warm_up(tf.constant(step, tf.int64))) for step in range(10)]
    assert weights == [0, 0.25, 0.5, 0.5, 0, 0.25, 0.5, 0.5, 0.5, 0.5]


# --------------------------------------------------------------------- gradients, in one dimension


class Line:
    """``z ~ N(0, 1)``, ``x ~ N(a z, s^2)``, ``q(z|x) = N(m, t^2)``: gradients in closed form."""

    x, s = 0.7, 0.8

    def __init__(self, a=1.3, m=0.2, t=0.5):
        self.a, self.m, self.t = (tf.Variable(v, dtype=tf.float64) for v in (a, m, t))

    def value(self, objective, noise, training=True, **options):
        """`objective` at the draws ``z = m + t * noise``, shape (S, 1)."""
        posterior = tfd.MultivariateNormalDiag([[self.m]], [[self.t]])
        scale = objectives.GradientScale() if objective.gradient == "dreg" else None
        z = self.m + self.t * noise[:, None, None]
        z = z if scale is None else scale(z)
        terms = objectives.Terms(
            log_likelihood=tfd.Normal(self.a * z[..., 0], self.s).log_prob(self.x),
            posterior=posterior,
            prior=tfd.MultivariateNormalDiag(tf.zeros(1, tf.float64)),
            draws=objectives.Draws(z, scale),
            **{"use_exact_kl": False, "training": training, **options},
        )
        return objective(terms)[0]

    def gradient(self, objective, noise, **options):
        with tf.GradientTape() as tape:
            value = self.value(objective, noise, **options)
        return np.array(tape.gradient(value, [self.a, self.m, self.t]))

    def log_w(self, noise, a, m, t):
        z = m + t * noise
        normal = scipy.stats.norm.logpdf
        return normal(self.x, a * z, self.s) + normal(z) - normal(z, m, t)

    def by_hand(self, noise, power):
        """``sum_s v_s d log w_s`` for a; ``sum_s v_s^power (d log w_s/dz) (dz/dphi)`` for m and t.

        In the posterior's part ``log q`` depends on its parameters through ``z`` alone.
        """
        a, m, t = (float(v) for v in (self.a, self.m, self.t))
        z = m + t * noise
        v = scipy.special.softmax(self.log_w(noise, a, m, t))
        residual = (self.x - a * z) / self.s**2
        slope = a * residual - z + (z - m) / t**2
        return np.array(
            [(v * residual * z).sum(), (v**power * slope).sum(), (v**power * slope * noise).sum()]
        )


@pytest.mark.parametrize(
    ("objective", "of_log_w"),
    [
        pytest.param(
            objectives.IWAE(6), lambda w: scipy.special.logsumexp(w) - np.log(6), id="iwae"
        ),
        pytest.param(objectives.ELBO(6), np.mean, id="elbo"),
    ],
)
def test_standard_gradient_is_that_of_finite_differences(objective, of_log_w, rng):
    line, noise = Line(), rng.normal(size=6)
    at = np.array([1.3, 0.2, 0.5])

    def bound(parameters):
        return of_log_w(line.log_w(noise, *parameters))

    assert float(line.value(objective, noise)) == pytest.approx(bound(at), rel=1e-9)
    step = 1e-5 * np.eye(3)
    expected = [(bound(at + h) - bound(at - h)) / 2e-5 for h in step]
    np.testing.assert_allclose(line.gradient(objective, noise), expected, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "monte carlo"])
def test_elbo_of_any_weight_has_the_gradient_of_finite_differences(exact, beta, rng):
    line, noise = Line(), rng.normal(size=6)

    def bound(parameters):
        a, m, t = parameters
        z, normal = m + t * noise, scipy.stats.norm.logpdf
        closed = 0.5 * (m**2 + t**2 - 1) - np.log(t)
        kl = closed if exact else normal(z, m, t) - normal(z)
        return np.mean(normal(Line.x, a * z, Line.s) - beta * kl)

    at, options = np.array([1.3, 0.2, 0.5]), {"use_exact_kl": exact, "kl_weight": beta}
    objective = objectives.ELBO(6)
    assert float(line.value(objective, noise, **options)) == pytest.approx(bound(at), rel=1e-9)
    expected = [(bound(at + h) - bound(at - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
    np.testing.assert_allclose(line.gradient(objective, noise, **options), expected, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.5])
def test_path_gradient_of_the_elbo_by_hand(beta, rng):
    """``log q(z)`` depends on ``m`` and ``t`` through ``z`` alone, away from its optimum too."""
    line, noise = Line(), rng.normal(size=6)
    a, m, t = 1.3, 0.2, 0.5
    z = m + t * noise
    residual = (Line.x - a * z) / Line.s**2
    slope = a * residual + beta * ((z - m) / t**2 - z)
    expected = [np.mean(residual * z), np.mean(slope), np.mean(slope * noise)]
    found = line.gradient(objectives.ELBO(6, gradient="stl"), noise, kl_weight=beta)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    standard = line.gradient(objectives.ELBO(6), noise, kl_weight=beta)
    assert np.abs(standard - found).max() > 0.1


@pytest.mark.parametrize(
    ("objective", "power"),
    [
        pytest.param(objectives.IWAE(6, gradient="dreg"), 2, id="dreg"),
        pytest.param(objectives.IWAE(6, gradient="stl"), 1, id="stl"),
    ],
)
def test_path_gradients_of_the_iwae_bound(objective, power, rng):
    line, noise = Line(), rng.normal(size=6)
    standard = objectives.IWAE(6)
    assert float(line.value(objective, noise)) == pytest.approx(float(line.value(standard, noise)))
    np.testing.assert_allclose(
        line.gradient(objective, noise), line.by_hand(noise, power), rtol=1e-9
    )
    # Evaluation has no gradient to shape.
    assert float(line.value(objective, noise, training=False)) == pytest.approx(
        float(line.value(standard, noise))
    )


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0, 2.0])
def test_dreg_has_the_expectation_of_the_standard_gradient_and_less_variance(kl_weight, rng):
    """Of the mean ``m``, for 20,000 images of 4 draws each."""
    noise, t = rng.normal(size=(4, 20_000, 1)), tf.constant([[0.9]], tf.float64)
    found = {}
    for gradient in ("standard", "dreg"):
        m = tf.fill([20_000, 1], tf.constant(0.2, tf.float64))
        objective = objectives.IWAE(4, gradient=gradient)
        with tf.GradientTape() as tape:
            tape.watch(m)
            scale = objectives.GradientScale() if gradient == "dreg" else None
            z = m + t * noise
            z = z if scale is None else scale(z)
            terms = objectives.Terms(
                log_likelihood=tfd.Normal(1.3 * z[..., 0], Line.s).log_prob(Line.x),
                posterior=tfd.MultivariateNormalDiag(m, t),
                prior=tfd.MultivariateNormalDiag(tf.zeros(1, tf.float64)),
                draws=objectives.Draws(z, scale),
                use_exact_kl=False,
                kl_weight=kl_weight,
            )
            value = objective(terms)
        found[gradient] = tape.gradient(value, m).numpy()
    difference = found["standard"] - found["dreg"]
    assert abs(difference.mean()) <= 4 * difference.std() / np.sqrt(len(difference))
    if kl_weight == 0:  # no score to replace
        np.testing.assert_allclose(found["dreg"], found["standard"], rtol=1e-9)
    if kl_weight == 1:
        assert found["dreg"].std() < 0.8 * found["standard"].std()


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(objectives.ELBO(gradient="stl"), id="elbo-stl"),
        pytest.param(objectives.ELBO(5, gradient="stl"), id="elbo-5-stl"),
        pytest.param(objectives.IWAE(5, gradient="stl"), id="iwae-stl"),
        pytest.param(objectives.IWAE(5, gradient="dreg"), id="iwae-dreg"),
    ],
)
def test_path_gradients_vanish_at_the_true_posterior(objective, rng):
    a, s, x = 1.3, Line.s, Line.x
    variance = 1 / (1 + a**2 / s**2)
    line = Line(a, variance * a * x / s**2, np.sqrt(variance))
    noise = rng.normal(size=objective.num_samples)
    np.testing.assert_allclose(line.gradient(objective, noise)[1:], 0, atol=1e-12)
    assert np.abs(line.gradient(type(objective)(objective.num_samples), noise)[1:]).max() > 0.01


# --------------------------------------------------------------------- in a whole model


def linear(rng, posterior_scale=1.0):
    """A linear Gaussian VAE, its images and their ``log p(x)``."""
    model = FactorAnalysis(rng)
    x = model.sample(rng, 32)
    return model, model.vae(posterior_scale, use_exact_kl=False), x


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(objectives.ELBO(8), id="elbo"),
        pytest.param(
            objectives.ELBO(gradient="stl", kl_weight=objectives.LinearWarmUp(9)), id="stl"
        ),
        pytest.param(objectives.IWAE(8, gradient="dreg"), id="dreg"),
        pytest.param(objectives.IWAE(1), id="iwae-1"),
    ],
)
def test_at_the_true_posterior_every_loss_is_the_likelihood(objective, rng):
    model, vae, x = linear(rng)
    vae.compile("sgd", objective)
    logs = vae.evaluate(x, batch_size=16, return_dict=True, verbose=0)
    expected = model.log_likelihood(x).mean()
    assert logs["elbo"] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == pytest.approx(-expected, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_at_the_true_posterior_the_encoder_stays(gradient, jit_compile, rng):
    _, vae, x = linear(rng)
    vae.compile(keras.optimizers.SGD(1.0), objectives.IWAE(4, gradient=gradient),
                jit_compile=jit_compile)  # fmt: skip
    encoder, decoder = vae.encoder.get_weights(), vae.decoder.get_weights()
    vae.fit(x, batch_size=32, epochs=1, verbose=0)
    for before, after in zip(encoder, vae.encoder.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, atol=2e-3)
    moved = [np.abs(a - b).max() for a, b in zip(decoder, vae.decoder.get_weights(), strict=True)]
    assert max(moved) > 0.02


def test_iwae_bound_lies_between_elbo_and_likelihood(rng):
    model, vae, x = linear(rng, posterior_scale=1.5)
    vae.compile("sgd", objectives.IWAE(50))
    logs = vae.evaluate(x, batch_size=32, return_dict=True, verbose=0)
    expected = model.log_likelihood(x).mean()
    assert logs["elbo"] == pytest.approx(model.elbo(x, 1.5).mean(), abs=0.1)
    assert logs["elbo"] + 0.3 < -logs["loss"] < expected + 0.05
    assert vae(x).batch_shape == (32,)  # one draw outside the steps, as ever


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(objectives.ELBO(3, kl_weight=0.2), id="beta"),
        pytest.param(objectives.ELBO(free_bits=2.0), id="free bits"),
        pytest.param(
            objectives.IWAE(3, kl_weight=objectives.CyclicalWarmUp(5)), id="cyclical iwae"
        ),
    ],
)
def test_logged_elbo_is_the_true_one(objective, rng):
    x = rng.integers(0, 2, size=(40, 4, 4, 1)).astype("float32")
    prior = priors.StandardNormal(2)
    encoder = networks.dense_encoder((4, 4, 1), 2, units=(8,), prior=prior)
    vae = VAE(encoder, networks.dense_decoder((4, 4, 1), 2, units=(8,)), prior, seed=3)
    vae.compile(keras.optimizers.SGD(0.0), objective)
    draws = np.concatenate([vae.elbo(x, num_samples=50, seed=s) for s in range(4)])
    trained = vae.fit(np.repeat(x, 20, 0), batch_size=40, verbose=0).history
    evaluated = vae.evaluate(np.repeat(x, 20, 0), batch_size=40, return_dict=True, verbose=0)
    for logs in ({k: v[0] for k, v in trained.items()}, evaluated):
        assert logs["elbo"] == pytest.approx(draws.mean(), abs=0.15)
        assert logs["elbo"] == pytest.approx(logs["reconstruction"] - logs["kl"], abs=1e-4)
    if objective.free_bits if isinstance(objective, objectives.ELBO) else False:
        assert trained["loss"][0] > -trained["elbo"][0] + 2  # two dimensions at 2 nats each
        assert evaluated["loss"] == pytest.approx(-evaluated["elbo"], abs=1e-4)


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(objectives.ELBO(4), id="elbo"),
        pytest.param(objectives.IWAE(4), id="iwae"),
        pytest.param(objectives.IWAE(4, gradient="dreg"), id="dreg"),
    ],
)
def test_a_loop_of_ones_own_trains_the_same_objective(objective, rng):
    model, vae, x = linear(rng, posterior_scale=2.0)
    vae.compile(keras.optimizers.SGD(0.1), objective)
    state = vae.seed_generator.state.numpy()
    with tf.GradientTape() as tape:
        loss = vae.compute_loss(x, y_pred=vae(x, training=True))
    gradients = tape.gradient(loss, vae.trainable_variables)
    before = vae.get_weights()
    vae.seed_generator.state.assign(state)
    logs = vae.train_on_batch(x, return_dict=True)
    assert float(loss) == pytest.approx(logs["loss"], rel=1e-5)
    for variable, gradient in zip(vae.trainable_variables, gradients, strict=True):
        old = next(b for b, w in zip(before, vae.weights, strict=True) if w is variable)
        np.testing.assert_allclose(variable, old - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    # One draw of a model that was not called for training: the bound at that draw.
    value = vae.compute_loss(x, y_pred=vae(x), training=False)
    assert float(value) > -model.log_likelihood(x).mean() - 0.5


def test_weight_follows_the_optimizer_and_evaluation_takes_the_last(rng):
    _, vae, x = linear(rng, posterior_scale=1.4)
    vae.compile(keras.optimizers.SGD(0.0), objectives.ELBO(kl_weight=objectives.LinearWarmUp(4)))
    for weight in (0, 0.25, 0.5, 0.75, 1, 1):
        logs = vae.train_on_batch(x, return_dict=True)
        expected = -(logs["reconstruction"] - weight * logs["kl"])
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)
        vae.reset_metrics()
    vae.compile(keras.optimizers.SGD(0.0), objectives.ELBO(kl_weight=objectives.LinearWarmUp(4)))
    logs = vae.evaluate(x, return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(-logs["elbo"], rel=1e-5)
    assert vae.kl_weight == 1


@pytest.mark.parametrize(
    "objective",
    [
        objectives.ELBO(2, objectives.CyclicalWarmUp(7, 0.5, cycles=3, rising=0.4), free_bits=0.1),
        objectives.ELBO(gradient="stl"),
        objectives.IWAE(5, 0.5, gradient="dreg"),
    ],
    ids=["elbo", "stl", "iwae"],
)
def test_objective_is_saved_with_the_model(objective, rng, tmp_path):
    x = rng.integers(0, 2, size=(8, 4, 4, 1)).astype("float32")
    encoder = networks.dense_encoder((4, 4, 1), 2, units=(8,))
    decoder = networks.dense_decoder((4, 4, 1), 2, units=(8,))
    vae = VAE(encoder, decoder, priors.StandardNormal(2), use_exact_kl=False, seed=3)
    vae.compile("adam", objective)
    vae.fit(x, verbose=0)
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.objective) is type(objective)
    assert loaded.objective.get_config() == objective.get_config()
    for model in (vae, loaded):
        model.fit(x, verbose=0)
    for a, b in zip(vae.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_warm_up_needs_no_new_trace(rng, monkeypatch):
    traces, compute = [], objectives.IWAE.__call__

    def counted(self, terms):
        traces.append(terms)
        return compute(self, terms)

    monkeypatch.setattr(objectives.IWAE, "__call__", counted)
    _, vae, x = linear(rng)
    vae.compile("sgd", objectives.IWAE(3, objectives.LinearWarmUp(10), gradient="dreg"))
    vae.fit(x, batch_size=8, verbose=0)
    count = len(traces)
    vae.fit(x, batch_size=8, epochs=5, verbose=0)
    assert 0 < len(traces) == count


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda: objectives.ELBO(0), ValueError, "num_samples: exp", id="samples"),
        pytest.param(lambda: objectives.IWAE(2.5), ValueError, "num_samples: exp", id="fraction"),
        pytest.param(lambda: objectives.ELBO(kl_weight=-1), ValueError, "kl_weight: e", id="beta"),
        pytest.param(lambda: objectives.ELBO(free_bits=-1), ValueError, "free_bits: e", id="bits"),
        pytest.param(
            lambda: objectives.ELBO(free_bits=1, gradient="stl"), ValueError, "free_bits: exp",
            id="bits and stl",
        ),
        pytest.param(
            lambda: objectives.ELBO(gradient="dreg"), ValueError,
            "gradient: expected one of standard, stl, got 'dreg'", id="dreg of the elbo",
        ),
        pytest.param(lambda: objectives.LinearWarmUp(0), ValueError, "steps: expected", id="steps"),
        pytest.param(
            lambda: objectives.CyclicalWarmUp(5, rising=0), ValueError, "rising: expected",
            id="rising",
        ),
        pytest.param(
            lambda: of_two().compile("adam", "iwae"), TypeError, "objective: expected one of",
            id="name",
        ),
        pytest.param(
            lambda: of_two().compile("adam", objectives.ELBO(gradient="stl")), ValueError,
            "gradient: expected 'standard' with the exact KL", id="stl of the exact KL",
        ),
        pytest.param(
            lambda: of_two(kl_weight=0.5).compile("adam", objectives.ELBO(kl_weight=2)),
            ValueError, "kl_weight: expected it in one place", id="two weights",
        ),
        pytest.param(
            lambda: of_two(posterior="full").compile("adam", objectives.ELBO(free_bits=1)),
            NotImplementedError, "posterior: expected a product", id="bits of a full covariance",
        ),
    ],
)  # fmt: skip
def test_bad_objectives(call, error, message):
    with pytest.raises(error, match=message):
        call()


def of_two(**options):
    prior = priors.StandardNormal(2)
    encoder = networks.dense_encoder((4, 4, 1), 2, units=(8,), prior=prior, **options)
    return VAE(encoder, networks.dense_decoder((4, 4, 1), 2, units=(8,)), prior)
