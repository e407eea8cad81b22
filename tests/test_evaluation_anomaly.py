"""p-values against their law, and anomalies of a model whose density is known."""

import numpy as np
import pytest
import scipy.stats

from tests.models import FactorAnalysis, small_vae
from tfp_vae import evaluation


def test_p_values_are_uniform_on_the_grid_of_their_calibration(rng):
    """Over calibration sets: each of ``1/(n+1), ..., 1`` is as likely."""
    n, trials = 19, 4000
    p = [evaluation.conformal_p_values(rng.normal(size=1), rng.normal(size=n))[0]
         for _ in range(trials)]  # fmt: skip
    ranks = np.rint(np.array(p) * (n + 1)).astype(int)
    np.testing.assert_allclose(p, ranks / (n + 1))
    assert scipy.stats.chisquare(np.bincount(ranks, minlength=n + 2)[1:]).pvalue > 1e-3


def test_p_values_count_ties_as_at_least_as_strange():
    got = evaluation.conformal_p_values([0.0, 1.0, 2.5, 4.0], [1.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(got, [1 / 5, 3 / 5, 4 / 5, 1])


def test_fresh_normal_images_have_uniform_p_values_and_others_low_ones(rng):
    model = FactorAnalysis(rng)
    vae, n = model.vae(1.2), 2000
    x, calibration = model.sample(rng, 500), model.sample(rng, n)
    got = evaluation.anomaly_scores(vae, x, calibration, num_samples=50, seed=0, verbose=0)
    assert scipy.stats.kstest(got.p_value, "uniform").pvalue > 1e-3
    # The order of the exact densities, from a sample of them.
    exact = model.log_likelihood(x)
    expected = (1 + (model.log_likelihood(calibration) <= exact[:, None]).sum(1)) / (n + 1)
    assert np.mean(np.abs(got.p_value - expected)) < 0.02
    np.testing.assert_allclose(got.log_likelihood.mean(), exact.mean(), atol=0.05)
    far = evaluation.anomaly_scores(vae, x + 6, calibration, num_samples=50, seed=0, verbose=0)
    np.testing.assert_allclose(far.p_value, 1 / (n + 1))


def test_too_likely_images_are_strange_on_two_sides_only(rng):
    """The mean of all images has the highest density, which no image of the model comes near."""
    model = FactorAnalysis(rng, dim=20)
    vae, x, calibration = model.vae(), model.sample(rng, 500), model.sample(rng, 999)
    x[0] = model.mu
    got = evaluation.anomaly_scores(vae, x, calibration, num_samples=2, seed=0, verbose=0)
    assert got.p_value[0] == 1
    assert got.two_sided_p_value[0] == pytest.approx(2 / 1000)
    assert scipy.stats.kstest(got.two_sided_p_value[1:], "uniform").pvalue > 1e-3


def test_an_error_says_which_images_are_for_calibration_where_it_names_one(rng):
    model = FactorAnalysis(rng)
    vae, x = model.vae(), model.sample(rng, 4)
    far = x.copy()
    far[1] = 1e25
    message = "at image 5. From image 4 on they are calibration_images"
    with pytest.raises(ValueError, match=message):
        evaluation.anomaly_scores(vae, x, far, num_samples=3, seed=0, verbose=0)
    vae.decoder.weights[0].assign(vae.decoder.weights[0] * np.nan)
    with pytest.raises(ValueError, match=r"^weights: ") as error:
        evaluation.anomaly_scores(vae, x, x, num_samples=3, seed=0, verbose=0)
    assert "calibration" not in str(error.value)


def test_a_seed_repeats(rng):
    vae, x = small_vae(), rng.integers(0, 2, (6, 6, 5, 1)).astype("float32")
    first, again, other = (
        evaluation.anomaly_scores(vae, x[:2], x[2:], num_samples=3, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.log_likelihood, again.log_likelihood)
    assert np.any(first.log_likelihood != other.log_likelihood)


X = np.zeros((3, 6, 5, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: evaluation.anomaly_scores(small_vae(), X, X[:, :5]),
                     r"images: expected the shape \(batch, 6, 5, 1\), got \(3, 5, 5, 1\)",
                     id="two shapes"),
        pytest.param(lambda: evaluation.anomaly_scores(small_vae(), X[:, :5], X),
                     r"images: expected the shape \(batch, 6, 5, 1\), got \(3, 5, 5, 1\)",
                     id="the other way round"),
        pytest.param(lambda: evaluation.anomaly_scores(small_vae(), X, X[:0]),
                     "calibration_images: expected at least one", id="none to calibrate with"),
        pytest.param(lambda: evaluation.anomaly_scores(small_vae(), X, X + 2), r"in \[0, 1\]",
                     id="range"),
        pytest.param(lambda: evaluation.anomaly_scores(small_vae(), X, X, num_samples=0),
                     "num_samples: .* got 0", id="no samples"),
        pytest.param(lambda: evaluation.anomaly_scores(small_vae(), X.astype("uint8"), X),
                     "floating-point", id="integers beside floats"),
        pytest.param(lambda: evaluation.conformal_p_values([1.0], []), "at least one", id="empty"),
        pytest.param(lambda: evaluation.conformal_p_values([[1.0]], [1.0]), r"scores: .* \(1, 1\)",
                     id="matrix"),
        pytest.param(lambda: evaluation.conformal_p_values([1.0], [np.nan]),
                     "calibration_scores: .* NaN", id="NaN"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
