"""Objectives against NumPy and SciPy."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import objectives

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
