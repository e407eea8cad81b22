"""Priors: densities, quantiles, and the way to plain data and back."""

import json

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import priors

tfd = tfp.distributions


def test_standard_normal(rng):
    z = rng.normal(size=(5, 3)).astype("float32")
    expected = scipy.stats.norm.logpdf(z).sum(1)
    prior = priors.StandardNormal(3)
    assert isinstance(prior(), tfd.MultivariateNormalDiag)
    assert prior().event_shape == prior.event_shape == (3,)
    np.testing.assert_allclose(prior().log_prob(z), expected, rtol=1e-5)


def test_gaussian_mixture(rng):
    prior = priors.GaussianMixture(2, 3, seed=1)
    weights = np.array([0.2, 0.3, 0.5])
    loc, scale = rng.normal(size=(3, 2)), rng.uniform(0.3, 2, size=(3, 2))
    prior.logits.assign(np.log(weights))
    prior.loc.assign(loc)
    prior.raw_scale.assign(np.log(np.expm1(scale)))
    z = rng.normal(size=(7, 2))
    density = (weights * scipy.stats.norm.pdf(z[:, None], loc, scale).prod(2)).sum(1)
    np.testing.assert_allclose(prior().log_prob(z.astype("float32")), np.log(density), rtol=1e-4)
    assert len(prior.trainable_variables) == 3


def test_gaussian_mixture_starts_with_unit_scales():
    scale = priors.GaussianMixture(2, 3, seed=1)().components_distribution.stddev()
    np.testing.assert_allclose(scale, 1.0, rtol=1e-5)


ALL = [
    pytest.param(lambda: priors.StandardNormal(2), id="standard"),
    pytest.param(lambda: priors.GaussianMixture(2, 3, seed=1), id="mixture"),
    pytest.param(
        lambda: priors.FixedPrior(tfd.Independent(tfd.Normal([0.0, 1.0], 2.0), 1)), id="independent"
    ),
    pytest.param(
        lambda: priors.FixedPrior(
            tfd.MixtureSameFamily(
                tfd.Categorical(probs=np.array([0.25, 0.75], "float32")),
                tfd.MultivariateNormalDiag(np.array([[0.0, 1.0], [1.0, 0.0]], "float32")),
            )
        ),
        id="nested",
    ),
    pytest.param(
        lambda: priors.FixedPrior(tfd.Sample(tfd.Normal(tf.constant(0.5), 1.0), [2])), id="sample"
    ),
]


@pytest.mark.parametrize("make", ALL)
def test_round_trip_through_json(make):
    prior = make()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(prior)))
    again = keras.saving.deserialize_keras_object(config)
    again.set_weights(prior.get_weights())
    z = np.array([[0.3, -1.0]], prior().dtype.as_numpy_dtype)
    np.testing.assert_array_equal(again().log_prob(z), prior().log_prob(z))
    assert type(again()) is type(prior())


@pytest.mark.parametrize(
    ("distribution", "expected", "tolerance"),
    [
        pytest.param(tfd.MultivariateNormalDiag([0.0, 1.0], [1.0, 3.0]),
                     lambda p: np.stack([scipy.stats.norm.ppf(p),
                                         scipy.stats.norm.ppf(p, 1, 3)], 1),
                     1e-5, id="diagonal"),
        pytest.param(tfd.MultivariateNormalTriL([0.0, 0.0], [[2.0, 0.0], [1.0, 1.0]]),
                     lambda p: np.stack([scipy.stats.norm.ppf(p, 0, 2),
                                         scipy.stats.norm.ppf(p, 0, np.sqrt(2))], 1),
                     1e-5, id="correlated"),
        pytest.param(tfd.Independent(tfd.Logistic([0.0, 1.0], 2.0), 1),
                     lambda p: np.stack([scipy.stats.logistic.ppf(p, 0, 2),
                                         scipy.stats.logistic.ppf(p, 1, 2)], 1),
                     1e-4, id="independent"),
        # Of draws: the standard error of the 5% quantile of 100,000 is about 0.007 here.
        pytest.param(tfd.MixtureSameFamily(tfd.Categorical(logits=[0.0]),
                                           tfd.MultivariateNormalDiag([[0.0, 0.0]])),
                     lambda p: np.stack([scipy.stats.norm.ppf(p)] * 2, 1), 0.035, id="by draws"),
    ],
)  # fmt: skip
def test_marginal_quantiles(distribution, expected, tolerance):
    p = np.linspace(0.05, 0.95, 7)
    got = priors.marginal_quantiles(distribution, p)
    assert got.shape == (7, 2)
    np.testing.assert_allclose(got, expected(p), atol=tolerance)


def test_loading_makes_nothing_but_distributions():
    """A file that names another class of TFP, or anything else, is refused."""
    from tfp_vae import _support

    for name in ("Distribution.__init__", "os.system", "kl_divergence", "__loader__"):
        with pytest.raises(ValueError, match="not a class"):
            _support.distribution_from_config({"distribution": name, "parameters": {}})


BAD = [
    pytest.param(lambda: priors.StandardNormal(0), ValueError, "at least 1, got 0", id="zero"),
    pytest.param(lambda: priors.StandardNormal(True), ValueError, "got True", id="boolean"),
    pytest.param(lambda: priors.GaussianMixture(2, 0), ValueError, "num_components.*got 0",
                 id="components"),
    pytest.param(lambda: priors.FixedPrior("normal"), TypeError, "got str", id="text"),
    pytest.param(lambda: priors.FixedPrior(tfd.Normal([0.0, 0.0], 1.0)), ValueError,
                 r"got batch shape \(2,\) and event shape \(\)", id="batch"),
    pytest.param(lambda: priors.FixedPrior(tfd.MultivariateNormalDiag(np.zeros(2))), ValueError,
                 "expected a distribution of float32, got one of float64", id="float64"),
    pytest.param(lambda: priors.get(3), TypeError, "got int", id="number"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
