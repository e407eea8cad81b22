"""Masks, the errors of imputation and its baselines, against closed forms and scikit-learn."""

import numpy as np
import pytest
import scipy.stats
from sklearn.impute import KNNImputer

from tests.models import small_vae
from tests.test_imputation import SEEN, Imperfect
from tfp_vae import evaluation
from tfp_vae.vae import parts

SHAPE = (5, 4, 1)

# --------------------------------------------------------------------- masks


@pytest.mark.parametrize("hidden", ["left", "right", "top", "bottom"])
def test_a_half_is_hidden_in_all_channels_of_all_images(hidden):
    mask = evaluation.observed_mask(hidden, (2, 5, 4, 3))
    expected = np.ones((5, 4), bool)
    place = {"left": np.s_[:, :2], "right": np.s_[:, 2:], "top": np.s_[:2], "bottom": np.s_[3:]}
    expected[place[hidden]] = False
    np.testing.assert_array_equal(mask, np.broadcast_to(expected[..., None], mask.shape))
    np.testing.assert_array_equal(evaluation.observed_mask(hidden, (5, 4, 3)), mask[0])


def test_random_places_are_as_many_as_said_and_even():
    mask = evaluation.observed_mask("random:0.8", (2000, 5, 4, 3), seed=3)
    assert np.all(mask == mask[..., :1])
    np.testing.assert_array_equal((~mask[..., 0]).sum((1, 2)), 16)
    rate = mask[..., 0].mean(0)
    assert np.all(np.abs(rate - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 2000))
    again = evaluation.observed_mask("random:0.8", mask.shape, seed=3)
    np.testing.assert_array_equal(mask, again)
    assert np.any(mask != evaluation.observed_mask("random:0.8", mask.shape, seed=4))


# --------------------------------------------------------------------- errors


def test_errors_are_those_of_the_exact_conditional(rng):
    """The squared error from the conditional mean, and the log density of each normal marginal."""
    model = Imperfect(rng)
    x = model.sample(rng, 30)
    got = evaluation.imputation_error(
        model.vae(), x, SEEN, num_samples=400, num_steps=60, seed=0, verbose=0
    )
    conditionals = [model.conditional(image)[0] for image in x]
    mean = np.stack([mean for mean, _ in conditionals])
    scale = np.sqrt(np.diag(conditionals[0][1]))
    log_score = scipy.stats.norm.logpdf(x[:, ~SEEN], mean, scale)
    np.testing.assert_allclose(
        got.squared_error, ((x[:, ~SEEN] - mean) ** 2).mean(1), rtol=0.2, atol=0.03
    )
    np.testing.assert_allclose(got.log_score, log_score.mean(1), atol=0.25)
    assert abs((got.log_score - log_score.mean(1)).mean()) < 0.02


def test_pieces_give_the_same_errors(rng, monkeypatch):
    vae = small_vae(likelihood="quantized_logistic")
    x = rng.integers(0, 2, (7, 6, 5, 1)).astype("float32")
    mask = evaluation.observed_mask("random:0.5", x.shape)
    options = {"num_samples": 3, "num_steps": 4, "seed": 0}
    found = vae.impute(x, mask, **options)
    monkeypatch.setattr(type(vae), "impute", lambda *_, **__: found)
    whole = evaluation.imputation_error(vae, x, mask, num_samples=3)
    three = 3 * parts.widest(vae.encoder, vae.decoder, vae.prior)
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", three)
    pieces = evaluation.imputation_error(vae, x, mask, num_samples=3)
    np.testing.assert_allclose(whole.log_score, pieces.log_score, rtol=1e-5)
    np.testing.assert_array_equal(whole.squared_error, pieces.squared_error)
    assert whole.mean_log_score.mean == pytest.approx(whole.log_score.mean())


# --------------------------------------------------------------------- baselines


@pytest.fixture
def train(rng):
    return rng.random((40, *SHAPE)).astype("float32")


@pytest.mark.parametrize("at_once", [40, 4_000_000], ids=["one by one", "at once"])
def test_neighbours_are_those_of_scikit_learn(rng, train, monkeypatch, at_once):
    monkeypatch.setattr("tfp_vae.evaluation.imputation._NUMBERS_AT_ONCE", at_once)
    x = rng.random((6, *SHAPE)).astype("float32")
    mask = evaluation.observed_mask("random:0.6", x.shape, seed=1)
    holes = np.where(mask, x, np.float32("nan"))
    expected = KNNImputer(n_neighbors=3).fit(train.reshape(40, -1)).transform(holes.reshape(6, -1))
    got = evaluation.fill_with_neighbours(holes, mask, train, 3)
    np.testing.assert_allclose(got.reshape(6, -1), expected, rtol=1e-5)
    np.testing.assert_array_equal(got[mask], x[mask])


def test_an_image_of_which_nothing_is_seen_gets_the_mean(rng, train):
    x = rng.random((2, *SHAPE)).astype("float32")
    mask = np.zeros(x.shape, bool)
    mask[1] = True
    mask[1, 0] = False
    holes = np.where(mask, x, np.float32("nan")).reshape(2, -1)
    got = evaluation.fill_with_neighbours(x, mask, train, 3)
    np.testing.assert_allclose(
        got.reshape(2, -1), KNNImputer(n_neighbors=3).fit(train.reshape(40, -1)).transform(holes),
        rtol=1e-5,
    )  # fmt: skip
    np.testing.assert_allclose(got[0], train.mean(0), rtol=1e-5)


def test_errors_of_both_take_the_number_of_neighbours(rng):
    x = rng.integers(0, 2, (9, 6, 5, 1)).astype("float32")
    mask = evaluation.observed_mask("top", x.shape)
    options = {"num_samples": 2, "num_steps": 2, "seed": 0, "num_neighbours": 1}
    errors = evaluation.imputation_errors(small_vae(), x[:2], mask[:2], x, **options)
    assert list(errors) == ["metropolis", "training mean", "nearest neighbours"]
    alone = evaluation.baseline_error(x[:2], mask[:2], x, num_neighbours=1)
    for name, found in alone.items():
        np.testing.assert_array_equal(errors[name].squared_error, found.squared_error)


def test_mean_filling(rng, train):
    x = np.full((2, *SHAPE), np.nan, "float32")
    mask = np.zeros(SHAPE[:2], bool)
    got = evaluation.fill_with_mean(x, mask, train)
    np.testing.assert_allclose(got, np.broadcast_to(train.mean(0), got.shape), rtol=1e-5)


def test_of_an_image_of_which_nothing_is_seen_both_baselines_say_the_same(rng):
    """The mean over all images, of which a pixel that was never 1 is nearly sure to be 0."""
    train = np.zeros((300, 2, 2, 1), "float32")
    train[::2, 0] = 1
    x, mask = train[:3], np.zeros((3, 2, 2, 1), bool)
    mask[1, 0] = True
    errors = evaluation.baseline_error(x, mask, train, num_neighbours=10)
    mean, near = errors["training mean"].log_score, errors["nearest neighbours"].log_score
    np.testing.assert_allclose(near[[0, 2]], mean[[0, 2]])
    assert near[1] == pytest.approx(np.log(1 - 0.5 / 11))


def test_baseline_errors_of_binary_images(rng):
    train = rng.integers(0, 2, (30, 2, 2, 1)).astype("float32")
    x = train[:1]
    mask = np.array([[True, True], [True, False]])
    errors = evaluation.baseline_error(x, mask, train, num_neighbours=1)
    assert list(errors) == ["training mean", "nearest neighbours"]
    truth, ones = x[0, 1, 1, 0], train[:, 1, 1, 0].sum()
    expected = (ones + 0.5) / 31
    score = np.log(expected if truth else 1 - expected)
    np.testing.assert_allclose(errors["training mean"].log_score, [score], rtol=1e-5)
    np.testing.assert_allclose(
        errors["training mean"].squared_error, [(ones / 30 - truth) ** 2], rtol=1e-5
    )
    # One neighbour with s = 0 or 1: the probability of what it has is 3/4.
    neighbour = errors["nearest neighbours"]
    right = neighbour.squared_error[0] == 0
    np.testing.assert_allclose(neighbour.log_score, [np.log(0.75 if right else 0.25)])


def test_grey_images_have_no_such_log_score(rng, train):
    errors = evaluation.baseline_error(train[:3], np.eye(5, 4, dtype=bool), train)
    assert all(error.log_score is None for error in errors.values())
    assert all(error.squared_error.shape == (3,) for error in errors.values())


X = np.zeros((3, *SHAPE), np.float32)
HALF = evaluation.observed_mask("left", SHAPE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: evaluation.observed_mask("middle", SHAPE), "hidden: .* got 'middle'",
                     id="place"),
        pytest.param(lambda: evaluation.observed_mask("random:x", SHAPE), "'random:x'", id="text"),
        pytest.param(lambda: evaluation.observed_mask("random:0.01", SHAPE), "hides some of",
                     id="hides nothing"),
        pytest.param(lambda: evaluation.observed_mask("random:1.5", SHAPE), "between 0 and 1",
                     id="fraction"),
        pytest.param(lambda: evaluation.observed_mask("left", (28, 28)), "shape: expected",
                     id="plane"),
        pytest.param(lambda: evaluation.observed_mask("random:0.5", SHAPE, -1), "seed: .* got -1",
                     id="seed"),
        pytest.param(lambda: evaluation.imputation_error(small_vae(), X + np.nan, HALF),
                     "whole images", id="NaN"),
        pytest.param(lambda: evaluation.imputation_error(small_vae(), X, HALF | True),
                     "at least one hidden pixel", id="nothing hidden"),
        pytest.param(lambda: evaluation.baseline_error(X, HALF.astype(float), X), "got float",
                     id="mask"),
        pytest.param(lambda: evaluation.fill_with_mean(X, HALF, X[:, :4]), "x_train: expected",
                     id="two shapes"),
        pytest.param(lambda: evaluation.fill_with_mean(X, HALF, X[:0]), "x_train: expected",
                     id="no training images"),
        pytest.param(lambda: evaluation.fill_with_neighbours(X, HALF, X, 4), "at most the 3",
                     id="neighbours"),
        pytest.param(lambda: evaluation.fill_with_neighbours(X.astype("uint8"), HALF, X, 1),
                     "x: expected floating-point pixels, got uint8", id="integers"),
        pytest.param(lambda: evaluation.fill_with_mean(X, HALF, X.astype("uint8")),
                     "x_train: expected floating-point", id="integers to learn from"),
        pytest.param(lambda: evaluation.fill_with_mean(X + np.nan, HALF, X), "expected finite",
                     id="observed NaN"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
