"""Evaluations against closed forms: a linear Gaussian VAE is factor analysis."""

import json
import re

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tests.conftest import PEAK
from tests.models import SHAPE, FactorAnalysis, inverse_softplus, small_vae
from tfp_vae import VAE, evaluation, layers, networks, priors
from tfp_vae.evaluation.pareto import pareto_k, reliable_below, tail_length
from tfp_vae.objectives.marginals import exact_moments, moments
from tfp_vae.vae import chunks

tfd = tfp.distributions


def linear_vae(model, gain, offset, stddev, prior=None):
    """The decoder of `model` with ``q(z|x) = N(gain x + offset, diag(stddev^2))``."""
    d, dim = np.shape(gain)
    head = layers.MultivariateNormalDiag(d)
    encoder = keras.Sequential([keras.Input((dim,)), keras.layers.Dense(2 * d), head])
    likelihood = layers.IndependentNormal(dim)
    decoder = keras.Sequential([keras.Input((d,)), keras.layers.Dense(2 * dim), likelihood])
    kernel = np.concatenate([np.transpose(gain), np.zeros((dim, d))], axis=1)
    spread = 2 * np.log(np.broadcast_to(stddev, d))
    encoder.layers[0].set_weights([kernel, np.concatenate([np.broadcast_to(offset, d), spread])])
    kernel = np.concatenate([model.W.T, np.zeros((d, dim))], axis=1)
    raw = np.full(dim, inverse_softplus(model.sigma))
    decoder.layers[0].set_weights([kernel, np.concatenate([model.mu, raw])])
    return VAE(encoder, decoder, prior or priors.StandardNormal(d), seed=0)


# --------------------------------------------------------------------- importance sampling


def test_importance_sampling_is_log_likelihood_with_calibrated_errors(rng):
    model = FactorAnalysis(rng)
    x, scale = model.sample(rng, 12), 1.4
    vae, many = model.vae(scale), np.tile(x, (40, 1))
    result = evaluation.importance_sampling(vae, many, 400, seed=0, verbose=0)
    same = vae.log_likelihood(many, num_samples=400, seed=0, verbose=0)
    np.testing.assert_allclose(result.log_likelihood, same, rtol=1e-5)
    # 480 z-scores: mean 0 up to 1/sqrt(480), variance 1 up to sqrt(2/480) and heavier tails.
    z = (result.log_likelihood - model.log_likelihood(many)) / result.standard_error
    assert abs(z.mean()) < 0.25
    assert 0.85 < z.std() < 1.15
    # Two dimensions of E_q[(p / q)^2] = s^2 / sqrt(2 s^2 - 1), q = N(0, s^2), p = N(0, 1).
    share = (np.sqrt(2 * scale**2 - 1) / scale**2) ** 2
    assert result.effective_sample_size.mean() / 400 == pytest.approx(share, rel=0.02)
    error = np.sqrt(np.mean(result.standard_error**2) / 480)
    assert result.monte_carlo_error == pytest.approx(error)
    spread = model.log_likelihood(many).std() / np.sqrt(480)
    assert result.mean_log_likelihood.standard_error == pytest.approx(spread, rel=0.05)


def test_importance_sampling_with_the_exact_posterior(rng):
    """Every weight is p(x): no error, all samples count, the tail is flat."""
    model = FactorAnalysis(rng)
    x = model.sample(rng, 7)
    result = evaluation.importance_sampling(model.vae(), x, 500, seed=1)
    expected = model.log_likelihood(x)
    np.testing.assert_allclose(result.log_likelihood, expected, rtol=1e-4, atol=1e-3)
    assert result.standard_error.max() < 1e-3
    assert result.effective_sample_size.min() > 499
    assert np.all(result.pareto_k == -np.inf)
    assert result.reliable == 1
    bits = -expected / (5 * np.log(2))
    np.testing.assert_allclose(result.bits_per_dimension, bits, rtol=1e-3)
    mean = result.mean_bits_per_dimension
    assert mean.mean == pytest.approx(bits.mean(), rel=1e-3)
    assert mean.standard_error == pytest.approx(bits.std(ddof=1) / np.sqrt(7), rel=1e-3)


def test_bits_count_every_channel(rng):
    prior = priors.StandardNormal(2)
    encoder = networks.dense_encoder((4, 6, 3), 2, units=(5,), prior=prior)
    decoder = networks.dense_decoder((4, 6, 3), 2, units=(5,), likelihood="quantized_logistic")
    x = (rng.integers(0, 256, (5, 4, 6, 3)) / 255).astype("float32")
    got = evaluation.importance_sampling(VAE(encoder, decoder), x, 3, seed=0)
    expected = -got.log_likelihood / (72 * np.log(2))
    np.testing.assert_allclose(got.bits_per_dimension, expected, rtol=1e-6)


@pytest.mark.parametrize("figures", [
    pytest.param(lambda v, x: v.elbo(x, 1, seed=0), id="elbo"),
    pytest.param(lambda v, x: v.log_likelihood(x, 1, seed=0, verbose=0), id="log likelihood"),
    pytest.param(lambda v, x: evaluation.annealed_importance_sampling(
        v, x, 1, 1, seed=0, verbose=0).log_likelihood, id="annealing"),
    pytest.param(lambda v, x: evaluation.amortization_gap(
        v, x, 1, 1, seed=0, verbose=0).elbo, id="amortization gap"),
    pytest.param(lambda v, x: v.impute(
        x, np.zeros(5, bool), num_steps=1, seed=0, verbose=0).z[0, :, 0], id="impute"),
])  # fmt: skip
def test_no_piece_repeats_the_noise_of_another(figures, rng, monkeypatch):
    """Of one image six times."""
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 20)  # one vector in a step
    model = FactorAnalysis(rng)
    x = np.repeat(model.sample(rng, 1), 6, 0)
    assert len(np.unique(figures(model.vae(1.4), x))) == 6


def test_a_likelihood_within_a_graph_is_worked_off_in_pieces_too(rng, monkeypatch):
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 7), model.vae(1.4)
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 10 * 7 * 30)  # of 4,001 draws 9
    inside = tf.function(lambda x: vae.log_likelihood(x, 4001, seed=0))(tf.constant(x))
    np.testing.assert_allclose(inside, model.log_likelihood(x), atol=0.05)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.8, 2.0], ids=str)
def test_pareto_k_of_a_posterior_of_the_wrong_width(scale, rng):
    """In two dimensions the weights of N(0, s^2 I) for N(0, I) are Pareto: k = 1 - s^2, s < 1."""
    model = FactorAnalysis(rng)
    x = model.sample(rng, 60)
    result = evaluation.importance_sampling(model.vae(scale), x, 2000, seed=3, verbose=0)
    tail = tail_length(2000)
    assert tail == 135
    k = result.pareto_k
    if scale > 1:
        assert k.max() < 0.2  # the weights are bounded
        assert result.reliable == 1
        return
    expected = (tail * (1 - scale**2) + 5) / (tail + 10)
    assert abs(k.mean() - expected) < 5 * k.std() / np.sqrt(60)
    assert k.std() < 2 * (2 - scale**2) / np.sqrt(tail)
    assert result.pareto_k_limit == pytest.approx(1 - 1 / np.log10(2000))
    assert result.reliable == np.mean(k <= result.pareto_k_limit)


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.7, 1.3], ids=str)
def test_generalized_pareto_fit_agrees_with_maximum_likelihood(k, rng):
    y = scipy.stats.genpareto.rvs(k, scale=2.0, size=(30, 400), random_state=rng)
    log_w = -np.sort(-np.log(7 + y), axis=1)
    log_w = np.concatenate([log_w, np.full((30, 1), np.log(7))], axis=1)
    got = (pareto_k(log_w - 1000) * 410 - 5) / 400  # without the pull to 0.5
    np.testing.assert_allclose(got, (pareto_k(log_w) * 410 - 5) / 400, rtol=1e-6)  # scale-free
    fitted = np.array([scipy.stats.genpareto.fit(row, floc=0)[0] for row in y])
    assert np.abs(got - fitted).max() < 0.06
    assert abs(got.mean() - k) < 5 * got.std() / np.sqrt(30) + 0.02


@pytest.mark.parametrize(("samples", "limit"), [(10, 0.0), (100, 0.5), (2154, 0.7), (10**6, 0.7)])
def test_fewer_samples_need_a_lighter_tail(samples, limit):
    assert reliable_below(samples) == pytest.approx(limit, abs=1e-4)


def test_log_weights_that_differ_by_their_rounding_alone_are_flat(rng):
    log_w = np.float32(-20_000 + 1e-3 * rng.normal(size=(8, 213)))  # one step there is 0.002
    assert np.all(pareto_k(-np.sort(-log_w, 1)) == -np.inf)
    assert np.all(np.isfinite(pareto_k(-np.sort(-log_w.astype(np.float64), 1))))


def test_moments_of_a_flow_are_of_as_many_draws_as_asked_for():
    prior = priors.AutoregressiveFlow(3, num_flows=2, units=(8,), seed=1)
    for weight in prior.trainable_variables:  # far from the identity
        weight.assign(5 * weight + 0.1)
    z = prior().sample(200_000, seed=[1, 2]).numpy()
    mean, variance, exact = moments(prior(), 100_000, tf.constant([3, 4]))
    assert not exact
    np.testing.assert_allclose(mean, z.mean(0), atol=0.02 * z.std(0).max())
    np.testing.assert_allclose(variance, z.var(0), rtol=0.05)
    assert np.abs(prior().variance() / z.var(0) - 1).max() > 0.05  # which its own few are not


def test_moments_of_a_mixture_of_flows_are_not_taken_for_exact():
    prior = priors.VampPrior(2, SHAPE, 3)
    iaf = {"name": "iaf", "num_flows": 1, "units": [8], "context_size": 2}
    small_vae(prior, posterior=iaf, use_exact_kl=False)
    assert np.isfinite(prior().mean()).all()  # TFP makes them of the 128 draws of each flow
    assert exact_moments(prior()) is None
    normal = tfd.MixtureSameFamily(
        tfd.Categorical(logits=[0.0, 0.0]),
        tfd.MultivariateNormalDiag([[1.0], [3.0]], [[2.0], [2.0]]),
    )
    mean, variance = exact_moments(normal)
    np.testing.assert_allclose([mean[0], variance[0]], [2, 5], rtol=1e-6)


def fit_one_by_one(y):
    """The estimator of Zhang & Stephens 2009, and the pull of ten values to 0.5."""
    y, n = np.sort(y), len(y)
    points = 30 + int(n**0.5)
    first_quartile = y[int(n / 4 + 0.5) - 1]
    theta, profile = [], []
    for j in range(1, points + 1):
        theta.append(1 / y[-1] + (1 - (points / (j - 0.5)) ** 0.5) / (3 * first_quartile))
        k = np.mean(np.log(1 - theta[-1] * y))
        profile.append(n * (np.log(-theta[-1] / k) - k - 1))
    weights = [1 / sum(np.exp(other - own) for other in profile) for own in profile]
    k = np.mean(np.log(1 - np.dot(weights, theta) * y))
    return (n * k + 10 * 0.5) / (n + 10)


@pytest.mark.parametrize("length", [5, 20, 213], ids=str)
def test_pareto_k_row_by_row(length, rng):
    y = scipy.stats.genpareto.rvs(
        np.linspace(-0.4, 1.4, 10)[:, None], size=(10, length), random_state=rng
    )
    log_w = np.concatenate([-np.sort(-np.log(1 + y), axis=1), np.zeros((10, 1))], axis=1)
    np.testing.assert_allclose(pareto_k(log_w), [fit_one_by_one(row) for row in y], rtol=1e-6)


def test_pareto_k_of_extreme_tails():
    falling = np.linspace(0, -3, 11)
    rows = np.stack([falling, np.zeros(11), np.array([0.0] + [-2000.0] * 10)])
    k = pareto_k(rows)
    assert np.isfinite(k[0])
    assert list(k[1:]) == [-np.inf, np.inf]
    assert np.isnan(pareto_k(rows[:, :5])).all()
    assert tail_length(20) == 0
    assert tail_length(21) == 5
    assert tail_length(5000) == 213


def test_pareto_k_of_steep_tails_is_a_number_or_infinite(rng):
    """Weights of which one is all but everything, to where exponentials of float64 end."""
    for gap in (600, 680, 700, 715, 730, 745, 2000):
        k = pareto_k(-np.sort(np.linspace(0, gap, 214))[None] * 4)
        assert k[0] > 1, gap  # NaN is not


def test_pareto_k_of_weights_that_rounding_made_equal(rng):
    log_w = -9000 + 0.006 * rng.standard_normal((50, 5000))
    exact, rounded = (
        pareto_k(-np.sort(-log_w.astype(kind), 1)[:, :214]) for kind in ("float64", "float32")
    )
    assert np.sum(np.diff(-np.sort(-np.float32(log_w), 1)[:, 150:214]) == 0) > 50
    assert np.all(np.abs(rounded - exact) < 0.6)


def test_importance_sampling_in_pieces_of_any_size(rng, monkeypatch):
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 13), model.vae(1.4)
    traces, decode = [], vae._decode
    vae._decode = lambda *a, **k: traces.append(1) or decode(*a, **k)
    for numbers in (5, 70, 2000):  # vectors of ten numbers in a step: 1, 3, 64
        monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", numbers)
        traces.clear()
        few = evaluation.importance_sampling(vae, x, 3, seed=0, verbose=0)
        assert len(traces) == 1
        assert few.log_likelihood.shape == few.pareto_k.shape == (13,)
        assert np.isnan(few.pareto_k).all()
        assert np.isnan(few.reliable)
    result = evaluation.importance_sampling(vae, x, 4001, seed=0, verbose=0)
    z = (result.log_likelihood - model.log_likelihood(x)) / result.standard_error
    assert np.abs(z).max() < 4
    one = evaluation.importance_sampling(vae, x[:1], 1, seed=0)
    assert np.isnan(one.standard_error).all()
    assert json.dumps(one.to_dict(), allow_nan=False)
    assert one.to_dict()["mean_log_likelihood"]["standard_error"] is None


def broken(model, term):
    """A model with one term that is not finite, for the images that begin with a 1."""
    gain = np.zeros((2, 5))
    vae = linear_vae(model, gain, 0.0, 1.0)
    kernel, bias = vae.encoder.layers[0].get_weights()
    if term == "log q(z|x)":
        kernel[0, 2] = -1e4  # a scale of 0
    else:
        kernel[0, 0] = 1e25
    vae.encoder.layers[0].set_weights([kernel, bias])
    if term != "log p(x|z)":
        decoder = vae.decoder.layers[0]
        decoder.set_weights([0 * decoder.get_weights()[0], decoder.get_weights()[1]])
    return vae


@pytest.mark.parametrize("term", ["log p(x|z)", "log p(z)", "log q(z|x)"])
@pytest.mark.parametrize(
    "evaluate",
    [
        pytest.param(evaluation.importance_sampling, id="importance_sampling"),
        pytest.param(VAE.log_likelihood, id="log_likelihood"),
        pytest.param(lambda vae, x, *args, verbose, **k: vae.elbo(x, *args, **k), id="elbo"),
    ],
)
def test_values_that_are_not_finite_are_named(evaluate, term, rng, monkeypatch):
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 200)
    x = np.zeros((30, 5), "float32")
    x[[21, 22], 0] = 1
    # A posterior of one's own may have a scale of 0, of ours none has.
    monkeypatch.setattr("tfp_vae._support.limited", lambda value, *limits: value)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        evaluate(broken(FactorAnalysis(rng), term), x, 10, seed=0, verbose=0)
    assert str(caught.value).startswith(f"{term}: expected finite values, got NaN or infinity at")
    assert "image 21 and 1 of" in str(caught.value)


MEMORY = f"""{PEAK}
import numpy as np
from tfp_vae import VAE, evaluation, networks, priors
prior = priors.StandardNormal(1)
encoder = networks.dense_encoder((2, 2, 1), 1, units=(4,), prior=prior)
vae = VAE(encoder, networks.dense_decoder((2, 2, 1), 1, units=(4,)), prior)
x = np.random.default_rng(0).integers(0, 2, (10_000, 2, 2, 1)).astype("float32")
evaluation.importance_sampling(vae, x[:200], 100, seed=0, verbose=0)
before = peak()
assert evaluation.importance_sampling(vae, x, seed=0, verbose=0).pareto_k.shape == (10_000,)
print((peak() - before) >> 20)
"""


def test_importance_sampling_of_ten_thousand_images_holds_its_memory(fresh_process):
    """5,000 samples each: 200 MB for one number of each draw, if all were held at once."""
    assert int(fresh_process(MEMORY)) < 150  # MiB beyond what 200 images and 100 samples took


# --------------------------------------------------------------------- annealing


@pytest.mark.parametrize("start", ["prior", "posterior"])
def test_annealing_and_importance_sampling_agree_with_the_closed_form(start, rng):
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 6), model.vae(1.4)
    expected = model.log_likelihood(x)
    got = evaluation.annealed_importance_sampling(vae, x, 200, 32, seed=0, start=start)
    assert got.standard_error.max() < 0.1
    assert np.all(np.abs(got.log_likelihood - expected) < 4 * got.standard_error)
    assert np.all(got.mean_log_weight < got.log_likelihood)
    assert got.acceptance_rate.min() > 0.7
    other = evaluation.importance_sampling(vae, x, 4000, seed=0, verbose=0)
    error = np.hypot(got.standard_error, other.standard_error)
    assert np.all(np.abs(got.log_likelihood - other.log_likelihood) < 4 * error)
    assert json.dumps(got.to_dict(), allow_nan=False)


def test_annealed_weights_are_unbiased_at_any_number_of_steps(rng, monkeypatch):
    """Only if every step leaves its own temperature's distribution as it was."""
    model = FactorAnalysis(rng, dim=3, sigma=1.0)
    # Two images at once, of chains that take twice the widest layer's six numbers: 2 + 2 + 1.
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 2 * 6 * 2 * 8000)
    x, vae = model.sample(rng, 5), model.vae()
    got = evaluation.annealed_importance_sampling(
        vae, x, 4, 8000, seed=0, step_size=1.0, num_leapfrog_steps=3, verbose=0
    )
    assert got.log_likelihood.shape == got.acceptance_rate.shape == (5,)
    assert got.standard_error.max() < 0.01
    z = (got.log_likelihood - model.log_likelihood(x)) / got.standard_error
    assert np.abs(z).max() < 4
    assert got.acceptance_rate.min() > 0.5
    wild = evaluation.annealed_importance_sampling(vae, x, 4, 50, seed=0, step_size=20.0, verbose=0)
    assert wild.acceptance_rate.max() < 0.2


# --------------------------------------------------------------------- latent dimensions


def normal_kl(loc, scale):
    return 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)


GAIN = np.array([[0.7, -0.4, 0.2, 0.0, 0.1], [0.0, 0.05, 0.0, 0.0, 0.0]])


def test_latent_usage_of_normal_posteriors(rng):
    model = FactorAnalysis(rng)
    x, stddev = model.sample(rng, 40), np.array([0.3, 0.9])
    means = x @ GAIN.T + 0.2
    variance = means.var(0, ddof=1)
    assert variance[0] > 0.01 > variance[1]
    kl = normal_kl(means, stddev)
    got = evaluation.latent_usage(linear_vae(model, GAIN, 0.2, stddev), x)
    np.testing.assert_allclose(got.variance_of_means, variance, rtol=1e-4)
    assert list(got.active) == [True, False]
    assert got.num_active == 1
    assert got.kl_method == "closed form"
    np.testing.assert_allclose(got.kl, kl.mean(0), rtol=1e-4)
    np.testing.assert_allclose(got.kl_standard_error, kl.std(0, ddof=1) / 40**0.5, rtol=1e-4)
    all_of_them = evaluation.latent_usage(linear_vae(model, GAIN, 0.2, stddev), x, threshold=0)
    assert json.loads(json.dumps(all_of_them.to_dict()))["active"] == [True, True]


def test_latent_usage_holds_no_more_of_a_mixture_than_it_should(rng, monkeypatch):
    """Its marginals take all components at all draws: 2 * 50 * 400 numbers for an image here."""
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 7 * 2 * 50 * 400)
    vae = small_vae(prior=priors.GaussianMixture(2, 400, seed=0), use_exact_kl=False)
    x = rng.integers(0, 2, (20, 6, 5, 1)).astype("float32")
    sizes = []
    monkeypatch.setattr(
        "tfp_vae.vae.chunks.pieces",
        lambda x, size, verbose, pieces=chunks.pieces: sizes.append(size) or pieces(x, size, 0),
    )
    found = evaluation.latent_usage(vae, x, num_samples=50, seed=0)
    assert found.kl_method == "monte carlo"
    assert sizes == [7]
    evaluation.kl_decomposition(vae, x, 50, seed=0)
    assert 7 in sizes[1:]


def test_latent_usage_under_a_mixture_prior(rng):
    """Its marginals are mixtures, against which the KL is an integral over one dimension."""
    model = FactorAnalysis(rng)
    x = model.sample(rng, 30)
    weight, loc = np.array([0.3, 0.7]), np.array([[-1.0, 2.0], [1.5, 0.0]])
    scale = np.array([[0.5, 1.0], [0.8, 2.0]])  # (component, dimension)
    prior = priors.GaussianMixture(2, 2)
    prior.logits.assign(np.log(weight))
    prior.loc.assign(loc)
    prior.raw_scale.assign(inverse_softplus(scale))
    of_prior = prior().components_distribution
    np.testing.assert_allclose(of_prior.stddev(), scale, rtol=1e-3)
    plain = linear_vae(model, GAIN, 0.2, 0.6)
    vae = VAE(plain.encoder, plain.decoder, prior, use_exact_kl=False)
    got = evaluation.latent_usage(vae, x, num_samples=4000, seed=0, verbose=0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    mean = (x @ GAIN.T + 0.2)[..., np.newaxis]  # (image, dimension, node)
    z, log_normal = mean + 0.6 * nodes, scipy.stats.norm.logpdf
    parts = log_normal(z[..., np.newaxis], loc.T[:, np.newaxis], scale.T[:, np.newaxis])
    log_p = scipy.special.logsumexp(np.log(weight) + parts, -1)
    kl = ((log_normal(z, mean, 0.6) - log_p) @ (weights / weights.sum())).mean(0)
    np.testing.assert_allclose(got.kl, kl, atol=5 / np.sqrt(30 * 4000))


def test_latent_usage_of_a_full_covariance_is_that_of_its_marginals(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 40)
    got = evaluation.latent_usage(model.vae(), x)
    kl = normal_kl((x - model.mu) @ model.gain.T, np.sqrt(np.diag(model.posterior_cov)))
    np.testing.assert_allclose(got.kl, kl.mean(0), rtol=1e-3)


@keras.saving.register_keras_serializable(package="test_evaluation")
def logistic(parameters):
    return tfd.Independent(tfd.Logistic(parameters[..., :2], tf.exp(parameters[..., 2:])), 1)


@keras.saving.register_keras_serializable(package="test_evaluation")
def softplus_normal(parameters):
    normal = tfd.MultivariateNormalDiag(parameters[..., :2], tf.exp(0.5 * parameters[..., 2:]))
    return tfd.TransformedDistribution(normal, tfp.bijectors.Softplus())


def with_posterior(vae, make):
    """The same networks, another family of posteriors."""
    encoder = keras.Sequential([*vae.encoder.layers[:-1], layers.DistributionLambda(make)])
    return VAE(encoder, vae.decoder, vae.prior, use_exact_kl=False, seed=0)


def test_latent_usage_without_closed_forms(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 30)
    means = x @ GAIN.T + 0.2
    vae = linear_vae(model, GAIN, 0.2, 0.5**0.5)  # log-variance log(0.5): logistic scale 0.5
    got = evaluation.latent_usage(with_posterior(vae, logistic), x, num_samples=4000, seed=0)
    assert got.kl_method == "monte carlo"
    np.testing.assert_allclose(got.variance_of_means, means.var(0, ddof=1), rtol=1e-4)
    # E[z^2] = m^2 + pi^2 s^2 / 3, entropy 2 + log s.
    second = means**2 + np.pi**2 * 0.25 / 3
    kl = 0.5 * second + 0.5 * np.log(2 * np.pi) - 2 - np.log(0.5)
    np.testing.assert_allclose(got.kl, kl.mean(0), atol=5 / np.sqrt(30 * 4000))

    unknown = with_posterior(vae, softplus_normal)
    few = evaluation.latent_usage(unknown, x, num_samples=5, seed=0)
    assert few.kl_method == "unavailable"
    assert np.isnan(few.kl).all()
    assert few.to_dict()["kl"] == [None, None]
    z = np.log1p(np.exp(means[..., None] + 0.5**0.5 * rng.normal(size=4000)))
    expected = z.mean(-1).var(0, ddof=1)
    # The noise of five draws is not taken for use of the second dimension.
    assert z.var(-1).mean(0)[1] / 5 > 10 * expected[1]
    many = np.stack(
        [
            evaluation.latent_usage(unknown, x, num_samples=n, seed=n).variance_of_means
            for n in (5, 5000)
        ]
    )
    np.testing.assert_allclose(many[1], expected, rtol=0.05, atol=1e-3)
    np.testing.assert_allclose(many[0], expected, atol=0.12)
    assert many[0, 1] < 0.03


# --------------------------------------------------------------------- the parts of the KL


def parts_on_a_grid(means, covariance):
    """Mutual information, total correlation and marginal KLs of a mixture of 2-D normals."""
    points, step = np.linspace(-7, 7, 561, retstep=True)
    z = np.stack(np.meshgrid(points, points, indexing="ij"), -1)
    densities = [scipy.stats.multivariate_normal.pdf(z, m, covariance) for m in means]
    q, area = np.mean(densities, 0), step**2
    entropy = -np.sum(scipy.special.xlogy(q, q)) * area
    of_one = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * covariance))
    sides = [q.sum(1 - j) * step for j in range(2)]
    entropies = [-np.sum(scipy.special.xlogy(side, side)) * step for side in sides]
    log_p = scipy.stats.norm.logpdf(points)
    kls = [-h - np.sum(side * log_p) * step for h, side in zip(entropies, sides, strict=True)]
    return entropy - of_one, sum(entropies) - entropy, np.array(kls)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full covariance"])
def test_kl_decomposition_is_that_of_numerical_integration(full, rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 6)
    if full:
        vae, covariance = model.vae(1.5), 2.25 * model.posterior_cov
        means = (x - model.mu) @ model.gain.T
    else:
        gain = np.array([[0.3, 0.3, 0.0, 0.0, 0.0], [0.3, 0.3, 0.1, 0.0, 0.0]])
        vae, covariance = linear_vae(model, gain, 0.2, [0.3, 0.4]), np.diag([0.09, 0.16])
        means = x @ gain.T + 0.2
    information, correlation, kls = parts_on_a_grid(means, covariance)
    assert information > 0.2
    assert correlation > 0.05
    got = evaluation.kl_decomposition(vae, x, 4000, seed=0)
    # The values of 24,000 draws vary by about one nat.
    close = {"abs": 5 / np.sqrt(24_000)}
    assert got.mutual_information.mean == pytest.approx(information, **close)
    assert got.total_correlation.mean == pytest.approx(correlation, **close)
    np.testing.assert_allclose(got.kl_of_dimensions, kls, atol=0.04)
    assert got.dimensionwise_kl.mean == pytest.approx(kls.sum(), abs=0.05)
    exact = tfd.kl_divergence(vae.encode(x), tfd.MultivariateNormalDiag(tf.zeros(2)))
    assert got.kl.mean == pytest.approx(float(tf.reduce_mean(exact)), abs=0.05)
    parts = got.mutual_information, got.total_correlation, got.dimensionwise_kl
    assert sum(part.mean for part in parts) == pytest.approx(got.kl.mean, abs=1e-4)
    assert sum(part.mean for part in parts[1:]) == pytest.approx(got.marginal_kl.mean, abs=1e-4)
    assert got.kl.standard_error > 0.01
    assert got.unavailable == ""


def test_kl_decomposition_of_images_told_apart_and_of_equal_ones(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 8)
    apart = linear_vae(model, 1000 * GAIN, 0.0, 0.1)
    got = evaluation.kl_decomposition(apart, x, seed=0)
    assert got.mutual_information.mean == pytest.approx(np.log(8), abs=1e-3)
    got = evaluation.kl_decomposition(linear_vae(model, 0 * GAIN, 0.5, 0.7), x, 3, seed=0)
    assert got.mutual_information.mean == pytest.approx(0, abs=1e-5)
    assert got.total_correlation.mean == pytest.approx(0, abs=1e-5)
    assert got.kl.mean == pytest.approx(got.dimensionwise_kl.mean, abs=1e-5)


def test_kl_decomposition_in_blocks_of_any_size(rng, monkeypatch):
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 23), linear_vae(model, GAIN, 0.2, 0.5)
    whole = evaluation.kl_decomposition(vae, x, 3, seed=0).to_dict()
    monkeypatch.setattr("tfp_vae.evaluation.decomposition._DENSITIES_AT_ONCE", 23 * 2 * 5)
    blocks = evaluation.kl_decomposition(vae, x, 3, seed=0).to_dict()
    draw = evaluation.decomposition._draw(vae, x, 3, tf.constant([1, 2]), True)
    monkeypatch.setattr("tfp_vae.evaluation.decomposition._IMAGES_AT_ONCE", 7)
    for a, b in zip(
        evaluation.decomposition._aggregate(vae, tf.constant(x), draw[0], True, 0),
        mixture(x @ GAIN.T + 0.2, 0.5, draw[0]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    for name, value in whole.items():
        if isinstance(value, dict):
            assert blocks[name]["mean"] == pytest.approx(value["mean"], abs=1e-5)


def mixture(means, stddev, z):
    log_q = scipy.stats.norm.logpdf(z[:, None], means, stddev)
    mean = -np.log(len(means))
    joint = scipy.special.logsumexp(log_q.sum(-1), 1) + mean
    return joint, scipy.special.logsumexp(log_q, 1) + mean


def test_kl_decomposition_says_what_it_cannot_give(rng):
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 9), linear_vae(model, GAIN, 0.2, 0.5)
    got = evaluation.kl_decomposition(with_posterior(vae, softplus_normal), x, 5, seed=0)
    assert got.unavailable.startswith("total_correlation, dimensionwise_kl: the marginals of a Tr")
    assert got.total_correlation is got.dimensionwise_kl is got.kl_of_dimensions is None
    both = got.mutual_information.mean + got.marginal_kl.mean
    assert both == pytest.approx(got.kl.mean, abs=1e-4)
    assert 0 < got.mutual_information.mean < np.log(9)
    mixed = VAE(vae.encoder, vae.decoder, priors.GaussianMixture(2, 3, seed=0), use_exact_kl=False)
    got = evaluation.kl_decomposition(mixed, x, 5, seed=0)
    assert got.unavailable.startswith("dimensionwise_kl: the prior, a MixtureSameFamily")
    assert got.total_correlation is not None
    assert got.to_dict()["dimensionwise_kl"] is None


# --------------------------------------------------------------------- refined posteriors


def best_diagonal(model, x, beta=1.0):
    """Mean, scale, rate and distortion of the diagonal normal of least distortion + beta rate.

    With ``A = W^T W / sigma^2`` the objective is quadratic in the mean, and in each variance
    ``A_jj s^2 / 2 + beta (s^2 - log s^2) / 2``.
    """
    a = model.W.T @ model.W / model.sigma**2
    residual = x - model.mu
    mean = residual @ model.W @ np.linalg.inv(a + beta * np.eye(len(a))).T / model.sigma**2
    variance = beta / (np.diag(a) + beta)
    rate = normal_kl(mean, np.sqrt(variance)).sum(1)
    error = np.sum((residual - mean @ model.W.T) ** 2, 1) / model.sigma**2
    constant = model.dim * np.log(2 * np.pi * model.sigma**2)
    return rate, 0.5 * (error + np.diag(a) @ variance + constant)


def test_a_wrong_encoder_is_refined_to_the_best_diagonal_posterior(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 25)
    vae = linear_vae(model, 0.3 * model.gain, 0.5, [0.5, 1.0])
    got = evaluation.amortization_gap(vae, x, num_steps=400, num_samples=2000, seed=0)
    rate, distortion = best_diagonal(model, x)
    best = -distortion - rate
    assert np.all(best < model.log_likelihood(x))
    assert got.mean_gap.mean > 1
    # The reported ELBOs carry the noise of 2,000 draws.
    assert np.abs(got.refined_elbo - best).max() < 0.2
    assert got.mean_refined_elbo.mean == pytest.approx(best.mean(), abs=0.02)
    # Of the encoder's own: E log p(x|z) - KL in closed form.
    mean = x @ (0.3 * model.gain).T + 0.5
    w, s2 = model.W, np.array([0.25, 1.0])
    error = np.sum((x - model.mu - mean @ w.T) ** 2, 1) + np.sum(w**2 @ s2)
    own = -0.5 * (error / model.sigma**2 + 5 * np.log(2 * np.pi * model.sigma**2))
    own -= normal_kl(mean, np.sqrt(s2)).sum(1)
    np.testing.assert_allclose(got.elbo, own, rtol=0.05, atol=0.5)
    np.testing.assert_allclose(got.gap, got.refined_elbo - got.elbo)
    assert got.mean_gap.standard_error == pytest.approx(got.gap.std(ddof=1) / 5)
    assert json.dumps(got.to_dict(), allow_nan=False)


def test_the_best_diagonal_encoder_has_no_gap(rng):
    """The noise of the two ELBOs is the same, so the difference has almost none."""
    model = FactorAnalysis(rng)
    x = model.sample(rng, 10)
    a = model.W.T @ model.W / model.sigma**2
    offset = -model.gain @ model.mu
    vae = linear_vae(model, model.gain, offset, 1 / np.sqrt(1 + np.diag(a)))
    got = evaluation.amortization_gap(vae, x, num_steps=300, num_samples=50, seed=0)
    assert np.abs(got.gap).max() < 0.05
    assert got.elbo.std() > 0.1


def test_rate_and_distortion_are_the_closed_form(rng, monkeypatch):
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 8 * 10 * 7)  # pieces of 7 images
    model = FactorAnalysis(rng)
    x, betas = model.sample(rng, 20), [0.1, 1.0, 4.0, 50.0]
    vae = model.vae(1.3)
    got = evaluation.rate_distortion(vae, x, betas, 400, 5000, seed=0, verbose=0)
    for i, beta in enumerate(betas):
        rate, distortion = best_diagonal(model, x, beta)
        assert got.rate[i] == pytest.approx(rate.mean(), rel=0.02, abs=0.01)
        assert got.rate_standard_error[i] == pytest.approx(rate.std() / 19**0.5, rel=0.1, abs=0.01)
        # 100,000 draws of a value that varies by up to 13 nats.
        assert got.distortion[i] == pytest.approx(distortion.mean(), rel=0.01, abs=0.1)
        error = distortion.std() / 19**0.5
        assert got.distortion_standard_error[i] == pytest.approx(error, rel=0.2, abs=0.03)
    assert np.all(np.diff(got.rate) < 0)
    assert np.all(np.diff(got.distortion) > 0)
    assert json.loads(json.dumps(got.to_dict()))["betas"] == betas


def test_refinement_under_a_learned_prior_and_another_posterior(rng):
    """No closed forms for KL or mean: the ELBO still cannot pass the likelihood."""
    model = FactorAnalysis(rng)
    x = model.sample(rng, 6)
    vae = with_posterior(linear_vae(model, model.gain, 0.0, 0.4), softplus_normal)
    mixed = VAE(vae.encoder, vae.decoder, priors.GaussianMixture(2, 3, seed=0), use_exact_kl=False)
    # Unit scales and equal weights, as the prior starts: p(x) is a mixture of normals.
    means = mixed.prior.loc.numpy() @ model.W.T + model.mu
    log_p = mixture_of(means, model.cov, x)
    got = evaluation.amortization_gap(mixed, x, 300, 2000, seed=0, learning_rate=0.2)
    assert got.mean_gap.mean > 1
    # 0.255 to 0.269 by Gauss-Hermite quadrature and SciPy's optimizer from five starts.
    np.testing.assert_allclose(log_p - got.refined_elbo, 0.262, atol=0.08)


def mixture_of(means, covariance, x):
    logs = [scipy.stats.multivariate_normal.logpdf(x, mean, covariance) for mean in means]
    return scipy.special.logsumexp(logs, 0) - np.log(len(means))


# --------------------------------------------------------------------- aggregate posterior


def test_an_aggregate_posterior_that_is_the_prior_is_told_from_one_that_is_not(rng):
    """The exact posteriors of data from the model average to the prior."""
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 2000), model.vae()
    got = evaluation.aggregate_posterior(vae, x, 500, 60, seed=0, verbose=0)
    means = (x - model.mu) @ model.gain.T
    np.testing.assert_allclose(got.mean, means.mean(0), atol=1e-4)
    spread = np.sqrt(np.diag(model.posterior_cov) + means.var(0))
    np.testing.assert_allclose(got.stddev, spread, rtol=1e-4)
    np.testing.assert_allclose(got.stddev, got.prior_stddev, rtol=0.1)
    assert list(got.prior_mean) == [0, 0]
    assert got.p_value > 0.05
    assert got.null_band[0] < 0 < got.null_band[1]
    assert -0.01 < evaluation.kl_decomposition(vae, x, seed=0, verbose=0).marginal_kl.mean < 0.1

    shifted = linear_vae(model, model.gain, -model.gain @ model.mu + [0.4, 0.0], 0.3)
    other = evaluation.aggregate_posterior(shifted, x[:800], 500, 60, seed=0, verbose=0)
    assert other.p_value == pytest.approx(1 / 61)
    assert other.energy_distance > 3 * other.null_band[1]
    assert json.loads(json.dumps(other.to_dict()))["null_band"] == list(other.null_band)


def test_moments_of_the_prior_are_a_mean_and_a_standard_deviation(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 40)
    known = priors.FixedPrior(tfd.MultivariateNormalDiag([0.5, -1.0], [2.0, 0.5]))
    flow = priors.AutoregressiveFlow(2, num_flows=2, units=(8,), seed=1)
    for variable in flow.trainable_variables:  # far from the identity
        variable.assign(3 * variable + 0.1)
    plain = linear_vae(model, model.gain, 0.0, 0.5)
    draws = flow().sample(200_000, seed=[1, 2]).numpy()
    for prior, mean, stddev, close in (
        (known, [0.5, -1.0], [2.0, 0.5], 1e-6),
        (flow, draws.mean(0), draws.std(0), 0.05),
    ):
        vae = VAE(plain.encoder, plain.decoder, prior, use_exact_kl=False)
        got = evaluation.aggregate_posterior(vae, x, 20, 3, seed=0, verbose=0)
        np.testing.assert_allclose(got.prior_stddev, stddev, rtol=close)
        np.testing.assert_allclose(got.prior_mean, mean, atol=close * np.max(stddev))


def test_energy_distance_of_two_normals(rng, monkeypatch):
    """In one dimension E|N(m, v)| = sqrt(2 v / pi) exp(-m^2 / 2v) + m (1 - 2 Phi(-m / sqrt v))."""
    monkeypatch.setattr("tfp_vae.evaluation.aggregate._ROWS_AT_ONCE", 7)

    def folded(m, v):
        normal = scipy.stats.norm.cdf(-m / np.sqrt(v))
        return np.sqrt(2 * v / np.pi) * np.exp(-(m**2) / (2 * v)) + m * (1 - 2 * normal)

    expected = 2 * folded(0.8, 1.25) - folded(0, 2) - folded(0, 0.5)
    runs = [
        evaluation.aggregate._energy_distance(
            rng.normal(size=(100, 1)), 0.8 + 0.5 * rng.normal(size=(100, 1))
        )
        for _ in range(200)
    ]
    assert abs(np.mean(runs) - expected) < 4 * np.std(runs) / np.sqrt(200)


# --------------------------------------------------------------------- seeds and bad input


CALLS = {
    "importance_sampling": lambda v, x, s, **k: evaluation.importance_sampling(
        v, x, **{"num_samples": 30, **k}, seed=s
    ),
    "annealed_importance_sampling": lambda v, x, s, **k: evaluation.annealed_importance_sampling(
        v, x, **{"num_steps": 2, "num_chains": 2, "num_leapfrog_steps": 1, **k}, seed=s
    ),
    "kl_decomposition": lambda v, x, s, **k: evaluation.kl_decomposition(v, x, **k, seed=s),
    "amortization_gap": lambda v, x, s, **k: evaluation.amortization_gap(
        v, x, **{"num_steps": 2, "num_samples": 3, **k}, seed=s
    ),
    "rate_distortion": lambda v, x, s, **k: evaluation.rate_distortion(
        v, x, **{"betas": [1.0], "num_steps": 2, "num_samples": 3, **k}, seed=s
    ),
    "aggregate_posterior": lambda v, x, s, **k: evaluation.aggregate_posterior(
        v, x, **{"num_draws": 5, "num_repeats": 3, **k}, seed=s
    ),
    "latent_usage": lambda v, x, s, **k: evaluation.latent_usage(v, x, **k, seed=s),
}


@pytest.fixture
def images(rng):
    return rng.integers(0, 2, size=(5, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return small_vae(seed=3)


@pytest.fixture
def eager():
    """Without the compilation of graphs, which takes longer than these small computations."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"latent_usage"}))
def test_seeds(name, images, model, eager):
    call = CALLS[name]
    first = call(model, images, 1).to_dict()
    assert call(model, images, 1).to_dict() == first
    assert call(model, images, 2).to_dict() != first
    assert call(model, images, None).to_dict() != call(model, images, None).to_dict()


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("importance_sampling", {"num_samples": 7}),
        ("amortization_gap", {"num_steps": 2, "num_samples": 3}),
        ("rate_distortion", {"num_steps": 2, "num_samples": 3}),
        ("annealed_importance_sampling", {"num_steps": 2, "num_chains": 2}),
        ("aggregate_posterior", {"num_draws": 5, "num_repeats": 3}),
        ("kl_decomposition", {}),
    ],
)
def test_numpys_integers_are_counts(name, counts, images, model, eager):
    """As one gets them of `numpy.arange` and `numpy.logspace`."""
    of_numpy = {key: np.int64(value) for key, value in counts.items()}
    got = CALLS[name](model, images, 1, **of_numpy).to_dict()
    assert got == CALLS[name](model, images, 1, **counts).to_dict()


def test_a_mixed_precision_model_is_measured_in_float32(images, eager):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    vae = small_vae(seed=3)
    got = CALLS["importance_sampling"](vae, images, 0)
    same = vae.log_likelihood(images, num_samples=30, seed=0)
    np.testing.assert_allclose(got.log_likelihood, same, rtol=1e-5)
    gap = CALLS["amortization_gap"](vae, images, 0, num_steps=30, num_samples=200)
    assert np.isfinite(gap.gap).all()
    assert np.isfinite(CALLS["annealed_importance_sampling"](vae, images, 0).log_likelihood).all()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda v, x: (v, x[:0]), "expected at least one", id="no images"),
        pytest.param(lambda v, x: (v, x[:, :4]), r"6, 5, 1\), got \(5, 4, 5, 1\)", id="shape"),
        pytest.param(lambda v, x: (v, x[0]), r"got \(6, 5, 1\)", id="one image"),
        pytest.param(lambda v, x: (v, x[None]), r"got \(1, 5, 6, 5, 1\)", id="batch of batches"),
        pytest.param(lambda v, x: (v, x * np.nan), "finite pixels", id="nan"),
        pytest.param(lambda v, x: (v.encoder, x), "vae: expected a tfp_vae.VAE", id="no VAE"),
    ],
)
def test_bad_models_and_images(name, change, message, images, model):
    with pytest.raises((ValueError, TypeError), match=message):
        CALLS[name](*change(model, images), 0)


COUNTS = [
    pytest.param("importance_sampling", "num_samples", id="importance_sampling"),
    pytest.param("annealed_importance_sampling", "num_steps", id="steps of annealing"),
    pytest.param("annealed_importance_sampling", "num_chains", id="chains"),
    pytest.param("annealed_importance_sampling", "num_leapfrog_steps", id="leapfrog steps"),
    pytest.param("kl_decomposition", "num_samples", id="kl_decomposition"),
    pytest.param("amortization_gap", "num_steps", id="steps of refinement"),
    pytest.param("amortization_gap", "num_samples", id="amortization_gap"),
    pytest.param("rate_distortion", "num_steps", id="rate_distortion"),
    pytest.param("aggregate_posterior", "num_draws", id="draws"),
    pytest.param("aggregate_posterior", "num_repeats", id="repeats"),
    pytest.param("latent_usage", "num_samples", id="latent_usage"),
]


@pytest.mark.parametrize("value", [0, 2.5], ids=str)
@pytest.mark.parametrize(("name", "argument"), COUNTS)
def test_bad_counts(name, argument, value, images, model):
    with pytest.raises(ValueError, match=f"^{argument}: expected an integer.*got {value}"):
        CALLS[name](model, images, 0, **{argument: value})


BAD = [
    pytest.param("rate_distortion", {"betas": [1.0, -0.1]}, "betas: expected finite", id="beta"),
    pytest.param("rate_distortion", {"betas": [np.nan]}, "betas: expected finite", id="nan"),
    pytest.param("rate_distortion", {"betas": []}, r"betas: .*got \[\]", id="no betas"),
    pytest.param("rate_distortion", {"betas": 1.0}, "betas: .*got 1.0", id="one beta"),
    pytest.param("amortization_gap", {"learning_rate": 0.0}, "rate: .*got 0.0", id="rate"),
    pytest.param("annealed_importance_sampling", {"start": "q"}, "start: .*got 'q'", id="start"),
    pytest.param(
        "annealed_importance_sampling", {"step_size": -1.0}, "step_size: .*got -1.0", id="step"
    ),
    pytest.param("latent_usage", {"threshold": -1.0}, "threshold: .*got -1.0", id="threshold"),
    pytest.param("aggregate_posterior", {"num_draws": 1}, "at least 2, got 1", id="one draw"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), BAD)
def test_bad_arguments(name, arguments, message, images, model):
    with pytest.raises(ValueError, match=message):
        CALLS[name](model, images, 0, **arguments)


def test_one_image_has_no_variance(images, model):
    with pytest.raises(ValueError, match="at least 2 images and 2 samples, got 1 and 100"):
        evaluation.latent_usage(model, images[:1])


INFINITE = [
    pytest.param("annealed_importance_sampling", "log w", id="annealing"),
    pytest.param("amortization_gap", "ELBO", id="amortization_gap"),
    pytest.param("rate_distortion", "distortion", id="rate_distortion"),
    pytest.param("kl_decomposition", "log p(z)", id="kl_decomposition"),
    pytest.param("latent_usage", "KL", id="latent_usage"),
    pytest.param("aggregate_posterior", "q(z|x)", id="aggregate_posterior"),
]


@pytest.mark.parametrize(("name", "term"), INFINITE)
def test_what_is_not_finite_is_named_with_its_image(name, term, rng):
    vae = broken(FactorAnalysis(rng), "log p(x|z)")
    x = np.full((5, 5), 0.25, "float32")
    x[:, 0] = [0, 0, 0, 1, 0]
    if name == "annealed_importance_sampling":
        x[3] = 1e25  # the chains never see the encoder's mean
    if name == "aggregate_posterior":
        x[3, 0] = 1e20  # the mean itself overflows
    message = f"^{re.escape(term)}: expected finite values, got NaN or infinity at image 3"
    with pytest.raises(ValueError, match=message):
        CALLS[name](vae, x, 0)
