"""Hidden pixels: draws against closed-form conditionals, and the measures and masks around them."""

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from tests.models import SHAPE, FactorAnalysis, small_vae
from tfp_vae import VAE, layers, networks, priors
from tfp_vae.vae import parts

SEEN = np.array([True, False, True, True, False])


class Imperfect(FactorAnalysis):
    """Factor analysis whose encoder is shifted, and 1.3 times too wide."""

    shift = np.array([0.6, -0.4])

    def vae(self, posterior_scale=1.3, shift=1.0):
        vae = super().vae(posterior_scale)
        kernel, bias = vae.encoder.layers[0].get_weights()
        bias[: self.latent_dim] += shift * self.shift
        vae.encoder.layers[0].set_weights([kernel, bias])
        return vae

    def conditional(self, x, seen=SEEN):
        """Mean and covariance of the hidden elements, and of ``z``, given the seen ones."""
        gain = self.cov[~seen][:, seen] @ np.linalg.inv(self.cov[seen][:, seen])
        hidden = (
            self.mu[~seen] + gain @ (x - self.mu)[seen],
            self.cov[~seen][:, ~seen] - gain @ self.cov[seen][:, ~seen],
        )
        W = self.W[seen]
        cov = np.linalg.inv(np.eye(self.latent_dim) + W.T @ W / self.sigma**2)
        return hidden, (cov @ W.T @ (x - self.mu)[seen] / self.sigma**2, cov)

    def pseudo_gibbs(self, x, scale=1.3, seen=SEEN):
        """Where encoding and decoding in turn settles: a vector autoregression of order one."""
        W, G = self.W[~seen], self.gain
        slope = W @ G[:, ~seen]
        fixed = W @ (self.shift + G[:, seen] @ (x - self.mu)[seen])
        mean = self.mu[~seen] + np.linalg.solve(np.eye(len(W)) - slope, fixed)
        noise = scale**2 * W @ self.posterior_cov @ W.T + self.sigma**2 * np.eye(len(W))
        return mean, scipy.linalg.solve_discrete_lyapunov(slope, noise)


def assert_normal(draws, mean, cov, errors=5.0):
    """The draws' mean and covariance are those of the normal, within standard errors."""
    draws, n = np.asarray(draws, np.float64), len(draws)
    assert np.all(np.abs(draws.mean(0) - mean) < errors * np.sqrt(np.diag(cov) / n))
    spread = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / n)
    assert np.all(np.abs(np.cov(draws.T) - cov) < errors * spread)


@pytest.fixture
def model(rng):
    return Imperfect(rng)


@pytest.fixture(scope="module")
def shared_vae():
    return small_vae()


# --------------------------------------------------------------------- laws


@pytest.mark.parametrize("method", ["metropolis", "metropolis-within-gibbs"])
def test_metropolis_draws_the_exact_conditional_though_the_encoder_is_wrong(model, rng, method):
    x = model.sample(rng, 1)
    hidden, latent = model.conditional(x[0])
    got = model.vae().impute(x, SEEN, 4000, method=method, num_steps=80, seed=1)
    assert_normal(np.asarray(got.samples)[:, 0, ~SEEN], *hidden)
    assert_normal(got.z[:, 0], *latent)
    assert 0.1 < got.acceptance_rate[0] < 0.9


def test_pseudo_gibbs_settles_where_the_wrong_encoder_leads_it(model, rng):
    x = model.sample(rng, 1)
    (mean, cov), _ = model.conditional(x[0])
    got = model.vae().impute(x, SEEN, 4000, method="pseudo-gibbs", num_steps=60, seed=1)
    draws = np.asarray(got.samples)[:, 0, ~SEEN]
    assert_normal(draws, *model.pseudo_gibbs(x[0]))
    off = np.abs(np.mean(draws, 0) - mean) / np.sqrt(np.diag(cov) / len(draws))
    assert np.all(off > 10)  # and that is not the conditional
    np.testing.assert_array_equal(got.acceptance_rate, 1)


def test_with_the_exact_encoder_nothing_is_refused(model, rng):
    x = model.sample(rng, 5)
    got = model.vae(1.0, shift=0).impute(x, SEEN, 200, num_steps=20, seed=0)
    np.testing.assert_allclose(got.acceptance_rate, 1, atol=2e-3)


def test_the_mean_is_the_conditional_mean_and_less_noisy_than_the_draws(model, rng):
    x = np.repeat(model.sample(rng, 1), 40, axis=0)
    got = model.vae().impute(x, SEEN, 50, num_steps=100, burn_in=40, seed=2)
    means = np.asarray(got.mean)[:, ~SEEN]
    (expected, cov), _ = model.conditional(x[0])
    error = means.std(0, ddof=1) / np.sqrt(len(means))
    assert np.all(np.abs(means.mean(0) - expected) < 5 * error)
    assert np.all(error < 0.8 * np.sqrt(np.diag(cov) / (40 * 50)))


def test_nothing_seen_is_a_draw_of_the_model_from_the_first_step_on(model):
    x = np.full((1, 5), np.nan, "float32")
    for steps in (1, 4):
        got = model.vae().impute(x, np.zeros(5, bool), 20_000, num_steps=steps, seed=steps)
        assert_normal(got.samples[:, 0], model.mu, model.cov)
        assert_normal(got.z[:, 0], np.zeros(2), np.eye(2))


def test_nothing_hidden_is_the_image_itself_and_z_has_the_exact_posterior(model, rng):
    x = model.sample(rng, 1)
    got = model.vae().impute(x, np.ones((1, 5), bool), 4000, num_steps=80, seed=3)
    assert np.all(np.asarray(got.samples) == x)
    np.testing.assert_array_equal(got.mean, x)
    assert_normal(got.z[:, 0], model.gain @ (x[0] - model.mu), model.posterior_cov)


def test_pieces_do_not_change_the_law(model, rng, monkeypatch):
    x = model.sample(rng, 3)
    for chains in (90, 400):  # at once
        monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 10 * chains)
        got = model.vae().impute(x, SEEN, 200, num_steps=30, seed=4, verbose=0)
        for i, image in enumerate(x):
            assert_normal(np.asarray(got.samples)[:, i, ~SEEN], *model.conditional(image)[0])


def binary_vae():
    """One latent dimension, four binary pixels, decoder slopes that matter, any encoder."""
    shape, prior = (2, 2, 1), priors.StandardNormal(1)
    encoder = networks.dense_encoder(shape, 1, units=(4,), prior=prior)
    decoder = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(4), layers.IndependentBernoulli(shape)]
    )
    slope, bias = np.array([[2.0, -1.5, 1.0, 3.0]]), np.array([0.5, -0.3, 0.0, -1.0])
    decoder.layers[0].set_weights([slope, bias])
    return VAE(encoder, decoder, prior)


def autoregressive_vae():
    """As `binary_vae`, pixels that depend on their neighbours by weights that matter."""
    shape, prior = (2, 2, 1), priors.StandardNormal(1)
    layer = layers.AutoregressiveBernoulli(shape, units=3, radius=1)
    decoder = keras.Sequential([keras.Input((1,)), keras.layers.Dense(layer.input_size), layer])
    rng = np.random.default_rng(10)
    for weight in decoder.weights:
        weight.assign(rng.normal(size=weight.shape, scale=1.2))
    encoder = networks.dense_encoder(shape, 1, units=(4,), prior=prior)
    return VAE(encoder, decoder, prior)


@pytest.mark.parametrize("method", ["metropolis", "metropolis-within-gibbs"])
@pytest.mark.parametrize("make", [binary_vae, autoregressive_vae])
def test_binary_pixels_come_with_the_frequencies_of_the_conditional(make, method):
    """Against the sum over all states of the hidden pixels, integrated over z by quadrature.

    Seen pixels lie before and behind the hidden ones, which autoregressive ones see but before.
    """
    vae = make()
    seen = np.array([[False, True], [False, True]])
    x = np.array([0.0, 1.0, 0.0, 0.0], "float32").reshape(1, 2, 2, 1)
    got = vae.impute(x, seen, 8000, method=method, num_steps=60, seed=0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    states = [(a, b) for a in (0, 1) for b in (0, 1)]
    images = np.array([[a, 1, b, 0] for a, b in states], "float32").reshape(-1, 1, 2, 2, 1)
    joint = np.exp(vae.decode(nodes[:, None].astype("float32")).log_prob(images)) @ weights
    expected = joint / joint.sum()
    draws = np.asarray(got.samples)[:, 0, :, 0, 0]
    seen_states = np.array([np.mean((draws == s).all(1)) for s in states])
    error = np.sqrt(expected * (1 - expected) / len(draws))
    assert np.all(np.abs(seen_states - expected) < 5 * error)
    assert np.ptp(expected) > 0.2  # independent pixels of 1/2 would not pass
    mean = expected @ np.array(states)
    assert np.all(np.abs(got.mean[0, :, 0, 0] - mean) < 5 * np.sqrt(mean * (1 - mean) / 8000))


def test_dependent_pixels_with_nothing_seen_keep_the_models_law():
    """From the first step on, for images of which pixels lie within and without the rows."""
    vae, x = autoregressive_vae(), np.zeros((1, 2, 2, 1), "float32")
    images = np.array([[a, b, c, d] for a in (0, 1) for b in (0, 1) for c in (0, 1)
                       for d in (0, 1)], "float32").reshape(-1, 1, 2, 2, 1)  # fmt: skip
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    mass = np.exp(vae.decode(nodes[:, None].astype("float32")).log_prob(images)) @ weights
    mass /= mass.sum()
    for steps in (1, 5):
        draws = vae.impute(x, np.zeros((2, 2), bool), 8000, num_steps=steps, seed=steps).samples
        code = (np.asarray(draws).reshape(-1, 4) @ [8, 4, 2, 1]).astype(int)
        frequency = np.bincount(code, minlength=16) / len(code)
        assert np.all(np.abs(frequency - mass) < 5 * np.sqrt(np.maximum(mass, 1e-3) / len(code)))


def test_local_moves_reach_what_an_encoder_never_proposes(model, rng):
    """An encoder that is narrow and far off: refused for ever, and the walk does without it."""
    x = model.sample(rng, 1)
    vae = model.vae(0.05, shift=4)
    got = vae.impute(x, SEEN, 2000, num_steps=150, seed=5)
    assert got.acceptance_rate[0] < 0.02
    assert_normal(np.asarray(got.samples)[:, 0, ~SEEN], *model.conditional(x[0])[0])


# --------------------------------------------------------------------- shapes, seeds, pixels


def test_local_moves_ask_for_independent_pixels(rng):
    prior = priors.StandardNormal(2)
    encoder = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4), layers.MultivariateNormalDiag(2)]
    )
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(10), layers.MultivariateNormalDiag(5)]
    )
    vae, x = VAE(encoder, decoder, prior), rng.normal(size=(2, 5)).astype("float32")
    # The hidden pixels are drawn from p(x_hidden|z), which must not depend on the seen ones.
    for method in ("metropolis", "metropolis-within-gibbs"):
        with pytest.raises(TypeError, match="likelihood: expected one of independent pixels"):
            vae.impute(x, SEEN, method=method, num_steps=2)
    got = vae.impute(x, SEEN, method="pseudo-gibbs", num_steps=2)
    assert np.isfinite(got.samples).all()


AUTOREGRESSIVE = {"name": "autoregressive_bernoulli", "units": 3}
LIKELIHOODS = ["bernoulli", "continuous_bernoulli", "normal", "quantized_logistic"]


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_each_likelihood_leaves_what_is_seen_bit_for_bit(likelihood, rng):
    vae = small_vae(likelihood=likelihood)
    x = (rng.integers(0, 256, (3, *SHAPE)) / 255).astype("float32")
    mask = rng.random(x.shape) < 0.5
    holes = np.where(mask, x, np.float32("nan"))
    got = vae.impute(holes, mask, 2, num_steps=6, seed=0)
    assert got.samples.shape == (2, 3, *SHAPE)
    assert got.mean.shape == x.shape
    assert got.z.shape == (2, 3, 2)
    assert got.acceptance_rate.shape == (3,)
    for images in (*got.samples, got.mean):
        images = np.asarray(images)
        assert images.dtype == np.float32
        assert np.isfinite(images).all()
        np.testing.assert_array_equal(images[mask], x[mask])
    drawn = np.asarray(got.samples)[:, ~mask]
    if likelihood == "bernoulli":
        assert set(np.unique(drawn)) == {0, 1}
    else:
        assert len(np.unique(drawn)) > 10
    if likelihood != "normal":
        assert drawn.min() >= 0
        assert drawn.max() <= 1
    again = vae.impute(np.where(mask, x, 0), mask, 2, num_steps=6, seed=0)
    np.testing.assert_array_equal(again.samples, got.samples)  # what hides is not looked at


def test_masks_of_one_image_and_of_a_plane_are_those_of_all(shared_vae, rng):
    vae, x = shared_vae, rng.integers(0, 2, (4, *SHAPE)).astype("float32")
    plane = rng.random(SHAPE[:2]) < 0.5
    first, *others = (
        vae.impute(x, mask, num_steps=4, seed=1).samples
        for mask in (plane, plane[..., None], np.broadcast_to(plane[..., None], x.shape))
    )
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_a_seed_repeats_and_without_one_the_models_stream_goes_on(shared_vae, rng):
    vae, x = shared_vae, rng.integers(0, 2, (4, *SHAPE)).astype("float32")
    mask = np.zeros(SHAPE, bool)

    def draw(seed):
        return np.asarray(vae.impute(x, mask, num_steps=3, seed=seed).samples)

    np.testing.assert_array_equal(draw(5), draw(5))
    assert np.any(draw(5) != draw(6))
    assert np.any(draw(None) != draw(None))
    assert len({image.tobytes() for image in draw(5)[0]}) == 4  # not one noise for all images


def test_bfloat16_networks_draw_in_float32(rng):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    vae, x = small_vae(), rng.integers(0, 2, (4, *SHAPE)).astype("float32")
    got = vae.impute(x, np.ones(SHAPE[:2], bool) & (np.arange(5) < 3), 2, num_steps=5, seed=0)
    assert all(part.dtype == tf.float32 for part in got)
    assert np.isfinite(got.mean).all()


@pytest.mark.parametrize(
    "likelihood",
    [*LIKELIHOODS, "normal_fixed_scale", "quantized_logistic_mixture", AUTOREGRESSIVE],
    ids=str,
)
def test_other_numbers_are_not_other_traces(rng, likelihood):
    vae = small_vae(likelihood=likelihood)
    x = rng.integers(0, 2, (9, *SHAPE)).astype("float32")
    for count, samples, steps, burn_in in (
        (9, 1, 4, 0),
        (5, 2, 7, 3),
        (3, 3, 5, None),
        (2, 1, 3, 1),
    ):
        vae.impute(x[:count], np.zeros(SHAPE, bool), samples, num_steps=steps, burn_in=burn_in)
    assert vae._impute_piece.experimental_get_tracing_count() <= 2


def test_a_decoder_with_nan_is_refused_though_relu_would_hide_it(rng):
    vae = small_vae()
    weight = vae.decoder.weights[0]
    weight.assign(np.full(weight.shape, np.nan))
    x = rng.integers(0, 2, (2, *vae.image_shape)).astype("float32")
    with pytest.raises(ValueError, match="weights: expected finite ones"):
        vae.impute(x, x < 2, 1, num_steps=2)


def test_a_bar_is_shown_for_several_pieces(shared_vae, rng, capsys, monkeypatch):
    vae, x = shared_vae, rng.integers(0, 2, (4, *SHAPE)).astype("float32")
    vae.impute(x, np.zeros(SHAPE, bool), num_steps=2)
    assert capsys.readouterr().out == ""
    two = 2 * parts.widest(vae.encoder, vae.decoder, vae.prior)
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", two)
    vae.impute(x, np.zeros(SHAPE, bool), num_steps=2)
    assert "2/2" in capsys.readouterr().out
    vae.impute(x, np.zeros(SHAPE, bool), num_steps=2, verbose=0)
    assert capsys.readouterr().out == ""


X = np.zeros((3, *SHAPE), np.float32)
MASK = np.zeros(SHAPE, bool)


@pytest.mark.parametrize("likelihood", ["normal", "quantized_logistic"])
def test_images_of_twice_the_precision_are_filled_in_too(likelihood):
    vae, mask = small_vae(likelihood=likelihood), np.arange(30).reshape(SHAPE) < 10
    found = vae.impute(X.astype("float64"), mask, num_steps=2, seed=0)
    np.testing.assert_array_equal(found.samples, vae.impute(X, mask, num_steps=2, seed=0).samples)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        pytest.param((X, MASK.astype(int)), {}, ValueError, "mask: expected booleans",
                     id="int mask"),
        pytest.param((X, MASK[:5]), {}, ValueError, r"mask: expected the shape .* or \(6, 5\), got "
                     r"\(5, 5, 1\)", id="mask shape"),
        pytest.param((X, np.zeros((2, *SHAPE), bool)), {}, ValueError, "mask: expected the shape",
                     id="masks of two"),
        pytest.param((X, True), {}, ValueError, r"got \(\)", id="one boolean"),
        pytest.param((X[0], MASK), {}, ValueError, r"images: expected the shape \(batch, 6, 5, 1\)",
                     id="one image"),
        pytest.param((X[None], MASK), {}, ValueError, "images: expected the shape", id="rank 5"),
        pytest.param((X[:0], MASK), {}, ValueError, "images: expected at least one", id="none"),
        pytest.param((X.astype("uint8"), MASK), {}, ValueError, "floating-point", id="uint8"),
        pytest.param((X + np.float32("nan"), ~MASK), {}, ValueError, "give ~mask", id="seen NaN"),
        pytest.param((X + 2, ~MASK), {}, ValueError, r"pixels in \[0, 1\]", id="seen 2"),
        pytest.param((np.ma.array(X, mask=X == 0), MASK), {}, TypeError, "MaskedArray", id="ma"),
        pytest.param((X, MASK, 0), {}, ValueError, "num_samples: .* got 0", id="no samples"),
        pytest.param((X, MASK), {"num_steps": 0}, ValueError, "num_steps: .* got 0", id="no steps"),
        pytest.param((X, MASK), {"num_steps": 5, "burn_in": 5}, ValueError,
                     "burn_in: expected an integer from 0 to num_steps - 1 = 4, got 5", id="burn"),
        pytest.param((X, MASK), {"burn_in": -1}, ValueError, "burn_in", id="burn below 0"),
        pytest.param((X, MASK), {"burn_in": 0.5}, ValueError, "burn_in", id="burn fraction"),
        pytest.param((X, MASK), {"method": "gibbs"}, ValueError, "method: .* got 'gibbs'",
                     id="method"),
        pytest.param((X, MASK), {"seed": "a"}, TypeError, "seed: expected", id="seed"),
    ],
)  # fmt: skip
def test_impute_refuses(shared_vae, arguments, options, error, message):
    with pytest.raises(error, match=message):
        shared_vae.impute(*arguments, **options)
