"""Priors: densities, quantiles, and the way to plain data and back."""

import json

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import VAE, networks, priors

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
    pytest.param(lambda: priors.AutoregressiveFlow(2, 2, [5], seed=1), id="flow"),
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
        # Of which TFP knows no quantile function; scale of the exponential and deviation are 1.
        pytest.param(tfd.Independent(tfd.ExponentiallyModifiedGaussian([0.0, 1.0], 1.0, 1.0), 1),
                     lambda p: np.stack([scipy.stats.exponnorm.ppf(p, 1, 0),
                                         scipy.stats.exponnorm.ppf(p, 1, 1)], 1),
                     0.05, id="without a quantile function"),
    ],
)  # fmt: skip
def test_marginal_quantiles(distribution, expected, tolerance):
    p = np.linspace(0.05, 0.95, 7)
    got = priors.marginal_quantiles(distribution, p)
    assert got.shape == (7, 2)
    np.testing.assert_allclose(got, expected(p), atol=tolerance)


# --------------------------------------------------------------------- VampPrior

SHAPE = (6, 5, 1)


class Costly(keras.layers.Dense):
    """Adds a loss for each image, in the type that it computes in."""

    def call(self, x):
        outputs = super().call(x)
        self.add_loss(0.1 * tf.reduce_mean(outputs**2, -1))
        return outputs


def test_losses_of_layers_count_in_any_shape_and_type(rng):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    body = [keras.layers.Flatten(), Costly(8), keras.layers.Dense(8, activity_regularizer="l2")]
    encoder = networks.layered_encoder(SHAPE, 2, body=body)
    vae = VAE(encoder, networks.dense_decoder(SHAPE, 2, units=(4,)), priors.StandardNormal(2))
    vae.compile("sgd")
    x = rng.integers(0, 2, (6, *SHAPE)).astype("float32")
    vae.fit(x, batch_size=3, verbose=0)
    found = vae.evaluate(x, verbose=0, return_dict=True)
    assert found["loss"] > -found["elbo"]


def vamp_vae(posterior="diagonal", with_regularizer=True, **options):
    prior = priors.VampPrior(2, SHAPE, 3, seed=1, **options)
    encoder = networks.layered_encoder(
        SHAPE,
        2,
        body=[
            keras.layers.Flatten(),
            keras.layers.Dense(8, activity_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
        ],
        prior=prior if with_regularizer else None,
        use_exact_kl=not with_regularizer,
        posterior=posterior,
    )
    decoder = networks.dense_decoder(SHAPE, 2, units=(4,))
    return VAE(encoder, decoder, prior, use_exact_kl=False, seed=0)


def test_an_encoder_alone_answers_without_its_vamp_prior(rng, tmp_path):
    """Its regularizer asks the prior, which waits for a model; that the KL is missing is said."""
    vae, x = vamp_vae(), rng.integers(0, 2, (4, *SHAPE)).astype("float32")
    vae.encoder.save(tmp_path / "encoder.keras")
    encoder = keras.saving.load_model(tmp_path / "encoder.keras")
    with pytest.warns(UserWarning, match="the KL is not in the losses of this call, .* VampPrior"):
        posterior = encoder(x)
    np.testing.assert_array_equal(posterior.mean(), vae.encode(x).mean())
    again = VAE(encoder, networks.dense_decoder(SHAPE, 2, units=(4,)))
    encoder(x)
    assert any(float(loss) != 0 for loss in again.encoder.losses)


def test_encoding_does_not_ask_a_prior_for_its_kl(rng, monkeypatch):
    vae, x = vamp_vae(), rng.integers(0, 2, (4, *SHAPE)).astype("float32")
    asked, call = [], priors.VampPrior.call
    monkeypatch.setattr(
        priors.VampPrior, "call", lambda self, images: asked.append(1) or call(self, images)
    )
    vae.encode(x)
    vae.reconstruct(x)
    assert not asked
    vae.encoder(x)
    assert asked


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_vamp_prior_is_the_mean_of_the_posteriors_of_its_images(posterior, rng):
    vae = vamp_vae(posterior)
    vae.prior.pseudo_logits.assign(3 * rng.normal(size=(3, *SHAPE)))
    images = 1 / (1 + np.exp(-vae.prior.pseudo_logits.numpy()))
    np.testing.assert_allclose(vae.prior.pseudo_inputs, images, rtol=1e-5)
    q = vae.encode(images)
    loc, covariance = q.mean().numpy(), q.covariance().numpy()
    z = rng.normal(size=(7, 2))
    density = [
        scipy.stats.multivariate_normal.pdf(z, *one) for one in zip(loc, covariance, strict=True)
    ]
    expected = np.log(np.mean(density, 0))
    np.testing.assert_allclose(vae.prior().log_prob(z.astype("float32")), expected, rtol=1e-4)


@pytest.mark.parametrize("with_regularizer", [False, True])
def test_vamp_prior_leaves_the_encoder_as_it_is(with_regularizer, rng):
    """One set of weights, no losses and no moving averages of the pseudo-inputs."""
    vae = vamp_vae(with_regularizer=with_regularizer)
    x = rng.uniform(size=(4, *SHAPE)).astype("float32")
    ids = [id(variable) for variable in vae.variables]
    assert len(ids) == len(set(ids))
    of_networks = [*vae.encoder.trainable_variables, *vae.decoder.trainable_variables]
    of_networks = {id(variable) for variable in of_networks} | {id(vae.prior.pseudo_logits)}
    assert {id(variable) for variable in vae.trainable_variables} == of_networks

    dense, norm = vae.encoder.layers[1:3]
    alone = keras.Sequential(
        [keras.Input((x[0].size,)), keras.layers.Dense(8, activity_regularizer="l2")]
    )
    alone.set_weights(dense.get_weights())
    alone(x.reshape(4, -1))
    p = vae(x, training=True)
    loss = vae.compute_loss(x, y_pred=p)
    # What Keras asks for the activities of these four images, and not of the prior's three.
    expected = -np.mean(p.log_prob(x)) + float(alone.losses[0])
    expected += np.mean(p.posterior.log_prob(p.z) - vae.prior().log_prob(p.z))
    assert float(loss) == pytest.approx(expected, rel=1e-4)

    moving = norm.moving_mean.numpy()
    losses = [float(value) for value in vae.losses]
    vae.prior().sample(2)
    np.testing.assert_array_equal(norm.moving_mean, moving)
    assert [float(value) for value in vae.losses] == losses


def test_images_of_a_vamp_prior_keep_their_shape_within_a_call_of_another(rng):
    vae = vamp_vae()
    x = rng.uniform(size=(2, 3, *SHAPE)).astype("float32")
    assert vae.encode(x).batch_shape == (2, 3)
    assert vae.prior().components_distribution.batch_shape == (3,)


def test_vamp_prior_encodes_its_images_once_in_a_graph(rng, monkeypatch):
    vae = vamp_vae(with_regularizer=False)
    calls, call = [], priors.VampPrior.call
    monkeypatch.setattr(
        priors.VampPrior, "call", lambda self, images: calls.append(1) or call(self, images)
    )
    x = rng.uniform(size=(4, *SHAPE)).astype("float32")
    tf.function(lambda x: vae.compute_loss(x, y_pred=vae(x, training=True)))(x)
    assert len(calls) == 1
    vae.elbo(x, num_samples=3)
    assert len(calls) == 2


def test_images_that_a_vamp_prior_starts_from(rng):
    one = rng.uniform(0.1, 0.9, size=SHAPE)
    start = priors.VampPrior(2, SHAPE, 3, initial_images=one, seed=1).pseudo_inputs.numpy()
    assert start.shape == (3, *SHAPE)
    assert 0 < np.abs(start - one).max() < 0.15
    assert np.abs(start[0] - start[1]).max() > 1e-3
    many = rng.integers(0, 2, size=(3, *SHAPE)).astype("uint8")
    start = priors.VampPrior(2, SHAPE, 3, initial_images=many, seed=1).pseudo_inputs.numpy()
    np.testing.assert_allclose(start, many, atol=0.02)
    assert priors.VampPrior(2, SHAPE, seed=1).pseudo_inputs.shape == (500, *SHAPE)


def test_quantiles_of_a_vamp_prior(rng):
    vae = vamp_vae()
    vae.prior.pseudo_logits.assign(9 * rng.normal(size=(3, *SHAPE)))
    parts = vae.prior().components_distribution
    loc, scale = parts.mean().numpy(), parts.stddev().numpy()
    quantiles = priors.marginal_quantiles(vae.prior(), [0.1, 0.5, 0.9])
    for i, probability in enumerate([0.1, 0.5, 0.9]):
        # The distribution function at a quantile of 100,000 draws: standard error below 0.0016.
        below = scipy.stats.norm.cdf(quantiles[i], loc, scale).mean(0)
        np.testing.assert_allclose(below, probability, atol=0.008)


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
    pytest.param(lambda: priors.VampPrior(2, SHAPE, 3)(), ValueError,
                 r"bound to an encoder.*VAE\(encoder", id="unbound"),
    pytest.param(lambda: vamp_vae().prior.bind(networks.dense_encoder(SHAPE, 2)), ValueError,
                 "got a second", id="second encoder"),
    pytest.param(lambda: priors.VampPrior(2, (4, 4, 1)).bind(networks.dense_encoder(SHAPE, 2)),
                 ValueError, r"of shape \(4, 4, 1\), got one of \(6, 5, 1\)", id="other images"),
    pytest.param(lambda: priors.VampPrior(3, SHAPE, 0), ValueError, "num_components.*got 0",
                 id="no images"),
    pytest.param(lambda: priors.VampPrior(2, SHAPE, 3, initial_images=np.zeros((2, *SHAPE))),
                 ValueError, r"expected the shape \(3, 6, 5, 1\) or \(6, 5, 1\), got \(2, 6",
                 id="number of images"),
    pytest.param(lambda: priors.VampPrior(2, SHAPE, 3, initial_images=np.full(SHAPE, 255)),
                 ValueError, "pixels in.*from 255 to 255", id="8-bit images"),
    pytest.param(lambda: VAE(networks.dense_encoder(SHAPE, 2), networks.dense_decoder(SHAPE, 2),
                             priors.VampPrior(2, SHAPE, 3)),
                 NotImplementedError, "use_exact_kl=False", id="exact KL"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_fixed_prior_has_the_type_of_its_layer():
    wide = tfd.MultivariateNormalDiag(np.zeros(2), np.ones(2))
    prior = priors.FixedPrior(wide, dtype="float64")
    again = priors.FixedPrior.from_config(prior.get_config())
    assert again().dtype == tf.float64
    with pytest.raises(ValueError, match="expected a distribution of float32, got one of float64"):
        priors.FixedPrior(wide)


def test_a_function_that_reads_a_variable_is_no_prior():
    loc = keras.Variable(np.zeros(2, "float32"), name="centre")
    with pytest.raises(ValueError, match="expected a function of constants, got one that reads"):
        priors.get(lambda: tfd.MultivariateNormalDiag(tf.convert_to_tensor(loc), tf.ones(2)))
    assert priors.get(lambda: tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))).event_shape == (
        2,
    )
