"""The model against closed forms: a linear Gaussian VAE is factor analysis."""

import errno
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tests.conftest import PEAK
from tests.models import SHAPE, FactorAnalysis, small_vae
from tfp_vae import VAE, evaluation, layers, networks, objectives, priors
from tfp_vae.vae import chunks, parts

tfd = tfp.distributions


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, size=(20, *SHAPE)).astype("float32")


# --------------------------------------------------------------------- factor analysis


@pytest.mark.parametrize("use_exact_kl", [True, False], ids=["exact", "monte-carlo"])
def test_elbo_is_the_closed_form(use_exact_kl, rng):
    model = FactorAnalysis(rng)
    x, scale = model.sample(rng, 12), 1.4
    vae = model.vae(scale, use_exact_kl)
    draws = np.stack([vae.elbo(x, num_samples=500, seed=s) for s in range(20)])
    error = draws.std(0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - model.elbo(x, scale)) < 5 * error + 1e-3)
    assert np.all(model.log_likelihood(x) - draws.mean(0) > 0.2)  # the gap is there to be seen


def test_with_the_exact_posterior_every_draw_gives_the_likelihood(rng):
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 12), model.vae(use_exact_kl=False)
    expected = model.log_likelihood(x)
    np.testing.assert_allclose(vae.elbo(x, seed=1), expected, rtol=1e-4, atol=1e-3)
    for samples in (1, 7):
        got = vae.log_likelihood(x, num_samples=samples, seed=2)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


def test_many_draws_of_an_image_of_thousands_of_nats(monkeypatch):
    """What each draw adds is less than half a step of float32 there, when added one by one."""
    monkeypatch.setattr(chunks, "NUMBERS_AT_ONCE", 60)  # as few at once as of very large images
    vae = small_vae(likelihood={"name": "normal_fixed_scale", "scale": 0.04})
    vae.set_weights([0 * weight for weight in vae.get_weights()])
    x = np.ones((1, *SHAPE), "float32")
    for method in (vae.log_likelihood, vae.elbo):
        one, many = method(x, 1, seed=0), method(x, 5000, seed=0)
        assert one < -9000
        np.testing.assert_allclose(many, one, atol=2e-3)  # all draws weigh the same
    found = evaluation.importance_sampling(vae, x, 5000, seed=0, verbose=0)
    np.testing.assert_allclose(found.effective_sample_size, 5000, rtol=1e-4)


def test_a_model_compiled_without_an_optimizer_is_evaluated_and_saved(x, tmp_path):
    vae = small_vae()
    vae.compile(optimizer=None)
    vae.evaluate(x, verbose=0)
    vae.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=0), vae.elbo(x, seed=0))


def test_a_data_set_is_no_batch(x):
    with pytest.raises(ValueError, match=r"images: expected an array or a tensor, got a tf\.data"):
        small_vae().elbo(tf.data.Dataset.from_tensor_slices(x).batch(2))


def test_no_images_in_a_graph(x):
    graph = tf.function(lambda images: small.log_likelihood(images, 3, seed=0))
    small = small_vae()
    assert graph(x[:0]).shape == (0,)


def test_log_likelihood_converges_to_the_closed_form(rng):
    """With a posterior that is too wide the bound is loose at 1 sample and tight at 20,000."""
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 12), model.vae(1.4)
    expected = model.log_likelihood(x)
    assert np.mean(expected - vae.log_likelihood(x, num_samples=1, seed=0)) > 0.1
    runs = np.stack([vae.log_likelihood(x, num_samples=20_000, seed=s) for s in range(4)])
    np.testing.assert_allclose(runs.mean(0), expected, atol=0.02)


def test_pieces_do_not_change_the_law(rng, monkeypatch):
    """Worked off in pieces of any size, uneven ones too, the estimate stays on the closed form."""
    model = FactorAnalysis(rng)
    x, vae = model.sample(rng, 13), model.vae(1.4)
    for numbers in (5, 70, 2000):  # vectors of ten numbers in a step: 1, 3, 64
        monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", numbers)
        assert vae.log_likelihood(x, num_samples=3, seed=0, verbose=0).shape == (13,)
        mean = np.mean([vae.elbo(x, num_samples=10, seed=s) for s in range(20)], 0)
        np.testing.assert_allclose(mean, model.elbo(x, 1.4), atol=0.6)
    got = vae.log_likelihood(x, num_samples=4001, seed=0, verbose=0)
    np.testing.assert_allclose(got, model.log_likelihood(x), atol=0.05)


def test_samples_have_the_models_covariance(rng):
    model = FactorAnalysis(rng)
    draws = np.asarray(model.vae().sample(200_000, seed=1))
    np.testing.assert_allclose(draws.mean(0), model.mu, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), model.cov, atol=0.05)
    means = np.asarray(model.vae().sample(200_000, seed=1, mean=True))
    np.testing.assert_allclose(np.cov(means.T), model.W @ model.W.T, atol=0.05)


def test_tfps_hmc_on_the_joint_distribution_finds_the_posterior(rng):
    model = FactorAnalysis(rng)
    x = model.sample(rng, 1)[0]
    joint = model.vae().joint_distribution()
    kernel = tfp.mcmc.HamiltonianMonteCarlo(
        lambda z: joint.log_prob(z, tf.constant(x)), step_size=0.35, num_leapfrog_steps=4
    )

    @tf.function(autograph=False)
    def chains():
        return tfp.mcmc.sample_chain(
            num_results=800,
            num_burnin_steps=200,
            current_state=tf.zeros([64, 2]),
            kernel=kernel,
            trace_fn=lambda _, results: results.is_accepted,
            seed=[1, 2],
        )

    states, accepted = chains()
    assert np.mean(accepted) > 0.5
    draws = np.reshape(states, [-1, 2])
    np.testing.assert_allclose(draws.mean(0), model.gain @ (x - model.mu), atol=0.02)
    np.testing.assert_allclose(np.cov(draws.T), model.posterior_cov, atol=0.02)


def test_joint_distribution_is_prior_times_likelihood(x):
    vae = small_vae()
    joint = vae.joint_distribution()
    z, images = joint.sample(4, seed=[0, 1])
    assert z.shape == (4, 2)
    assert images.shape == (4, *SHAPE)
    expected = vae.prior().log_prob(z) + vae.decode(z).log_prob(images)
    np.testing.assert_allclose(joint.log_prob(z, images), expected, rtol=1e-5)
    np.testing.assert_allclose(joint.log_prob(z=z, x=images), expected, rtol=1e-5)
    pinned = joint.experimental_pin(x=images)
    np.testing.assert_allclose(pinned.unnormalized_log_prob(z), expected, rtol=1e-5)


# --------------------------------------------------------------------- the loss and the logs


def numpy_kl(vae, x):
    mean, log_variance = np.split(np.asarray(vae.encoder.layers[-2](body(vae, x))), 2, axis=1)
    return 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)


def body(vae, x):
    for layer in vae.encoder.layers[:-2]:
        x = layer(x)
    return x


@pytest.mark.parametrize(
    ("weight", "with_regularizer"),
    [
        pytest.param(1.0, True, id="weight 1"),
        pytest.param(0.25, True, id="weight 0.25"),
        pytest.param(1.0, False, id="no regularizer"),
    ],
)
def test_kl_counts_once_in_the_loss_of_a_whole_vae(weight, with_regularizer, x):
    if with_regularizer:
        vae = small_vae(kl_weight=weight)
    else:
        encoder = networks.dense_encoder(SHAPE, 2, units=(8,))
        vae = VAE(encoder, networks.dense_decoder(SHAPE, 2, units=(8,)), priors.StandardNormal(2))
    vae.compile(keras.optimizers.SGD(0.0))
    kl = numpy_kl(vae, x).mean()
    assert kl > 0.01
    trained = {k: v[0] for k, v in vae.fit(x, batch_size=20, verbose=0).history.items()}
    for logs in (trained, vae.evaluate(x, batch_size=20, return_dict=True, verbose=0)):
        assert set(logs) == {"loss", "elbo", "reconstruction", "kl"}
        assert logs["kl"] == pytest.approx(kl, rel=1e-4)
        assert logs["elbo"] == pytest.approx(logs["reconstruction"] - logs["kl"], rel=1e-5)
        # The loss weighs the KL; the logged ELBO never does.
        expected = -logs["reconstruction"] + weight * kl
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_kl_is_once_in_the_losses_of_a_call(x):
    """For people who write their own loop around `vae(x)` and `vae.losses`, as in TFP."""
    vae = small_vae(kl_weight=0.5)
    p = vae(x)
    assert float(tf.add_n(vae.losses)) == pytest.approx(0.5 * numpy_kl(vae, x).mean(), rel=1e-5)
    assert p.posterior.event_shape == (2,)
    assert p.z.shape == (20, 2)
    np.testing.assert_allclose(p.log_prob(x), vae.decode(p.z).log_prob(x), rtol=1e-5)


def test_monte_carlo_logs_estimate_the_same_kl(x):
    vae = small_vae(use_exact_kl=False)
    vae.compile(keras.optimizers.SGD(0.0))
    many = np.repeat(x, 400, axis=0)
    logs = vae.evaluate(many, batch_size=2000, return_dict=True, verbose=0)
    posterior = vae.encode(many)
    z = posterior.sample(seed=1)
    spread = np.std(posterior.log_prob(z) - vae.prior().log_prob(z)) / np.sqrt(len(many))
    assert spread > 0
    assert abs(logs["kl"] - numpy_kl(vae, x).mean()) < 5 * spread


def test_other_losses_of_the_networks_stay_in(x):
    prior = priors.StandardNormal(2)
    encoder = networks.dense_encoder(SHAPE, 2, units=(8,), prior=prior)
    decoder = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(30, kernel_regularizer=keras.regularizers.L2(0.1)),
            layers.IndependentBernoulli(SHAPE),
        ]
    )
    vae = VAE(encoder, decoder, prior)
    vae.compile(keras.optimizers.SGD(0.0))
    logs = vae.evaluate(x, return_dict=True, verbose=0)
    penalty = 0.1 * np.sum(decoder.layers[0].kernel.numpy() ** 2)
    assert logs["loss"] == pytest.approx(-logs["elbo"] + penalty, rel=1e-5)


def test_sample_weights_weigh_whole_images(x):
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    weights = np.zeros(20, "float32")
    weights[:5] = 1
    column = weights[:, None]
    ways = [
        ((x,), {"sample_weight": weights}),
        ((x, x), {"sample_weight": weights}),
        ((x,), {"sample_weight": column}),
        (((x, x, weights),), {}),
        ((tf.data.Dataset.from_tensors((x, x, weights)),), {}),
        ((tf.data.Dataset.from_tensors((x, x, column)),), {}),
    ]
    for data, options in ways:
        logs = vae.evaluate(*data, **options, batch_size=20, return_dict=True, verbose=0)
        assert logs["kl"] == pytest.approx(numpy_kl(vae, x[:5]).mean(), rel=1e-5)
        assert logs["loss"] == pytest.approx(-logs["elbo"] * 5 / 20, rel=1e-4)
    before = vae.get_weights()
    vae.compile(keras.optimizers.SGD(1.0))
    vae.fit(x, sample_weight=0 * weights, verbose=0)
    for a, b in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"one for each image, got the shape \(20, 4\)"):
        vae.fit(x, sample_weight=np.ones((20, 4), "float32"), verbose=0)
    with pytest.raises(ValueError, match="one for each image"):
        vae.fit(tf.data.Dataset.from_tensors((x, x, np.ones((20, 4), "float32"))), verbose=0)
    with pytest.raises(ValueError, match="in one place"):
        vae.fit((x, x, weights), sample_weight=weights, verbose=0)


def test_a_training_step_follows_the_gradient_of_the_mean_elbo(x):
    """The output bias moves by mean(x - sigmoid(logits)); an encoder weight as its slope says."""
    vae = small_vae()
    weights, state = vae.get_weights(), vae.seed_generator.state.numpy()
    kernel = vae.encoder.layers[1].kernel
    start, bias = kernel.numpy(), vae.decoder.layers[-2].bias.numpy()

    def at_the_draw_of_the_step(shift, place):
        vae.set_weights(weights)
        changed = start.copy()
        changed[place] += shift
        kernel.assign(changed)
        vae.seed_generator.state.assign(state)
        p = vae(x)
        kl = tfd.kl_divergence(p.posterior, vae.prior())
        return float(tf.reduce_mean(p.log_prob(x) - kl)), np.mean(x - p.mean(), axis=0).ravel()

    _, expected = at_the_draw_of_the_step(0.0, (0, 0))
    vae.seed_generator.state.assign(state)
    vae.compile(keras.optimizers.SGD(1.0))
    vae.fit(x, batch_size=20, shuffle=False, verbose=0)
    np.testing.assert_allclose(vae.decoder.layers[-2].bias - bias, expected, atol=1e-5)
    moved = kernel.numpy() - start
    steepest = np.unravel_index(np.abs(moved).argmax(), moved.shape)
    above, below = (at_the_draw_of_the_step(shift, steepest)[0] for shift in (1e-2, -1e-2))
    assert abs(moved[steepest]) > 0.02
    # float32 sums of some 20 nats carry about 1e-5, over a distance of 2e-2.
    assert moved[steepest] == pytest.approx((above - below) / 2e-2, rel=0.03, abs=1e-3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda x, y: (x,), id="x"),
        pytest.param(lambda x, y: (x, x), id="x and x"),
        pytest.param(lambda x, y: (x, y), id="x and labels"),
        pytest.param(lambda x, y: ((x, x),), id="pair"),
        pytest.param(lambda x, y: ((x, y),), id="pair with labels"),
        pytest.param(lambda x, y: (tf.data.Dataset.from_tensor_slices(x).batch(5),), id="dataset"),
        pytest.param(
            lambda x, y: (tf.data.Dataset.from_tensor_slices((x, x)).batch(5),), id="dataset pairs"
        ),
        pytest.param(
            lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(5),), id="with labels"
        ),
    ],
)
def test_fit_takes_images_with_whatever_comes_along(data, x):
    vae = small_vae()
    vae.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)  # what is tested is no matter of it
    arguments = data(x, np.arange(20))
    history = vae.fit(*arguments, validation_data=x, epochs=2, verbose=0).history
    assert len(history["elbo"]) == len(history["val_elbo"]) == 2
    assert np.isfinite(history["val_loss"]).all()


def test_training_learns():
    """Two images, one bit: the ELBO must come close to log(1/2), and cannot pass it."""
    vae = small_vae(latent_dim=1)
    vae.compile(keras.optimizers.Adam(2e-2))
    two = np.stack([np.zeros(SHAPE, "float32"), np.ones(SHAPE, "float32")])
    history = vae.fit(np.tile(two, (100, 1, 1, 1)), epochs=40, batch_size=50, verbose=0).history
    assert history["elbo"][0] < -5
    elbo = float(tf.reduce_mean(vae.elbo(two, num_samples=2000, seed=0)))
    assert -2 < elbo < np.log(0.5)


def test_steps_are_counted_as_asked(x):
    """The default of ten steps in one execution must not run over a given number of steps."""
    vae = small_vae()
    vae.compile(keras.optimizers.Adam(1e-2))
    endless = tf.data.Dataset.from_tensor_slices(x).batch(2).repeat()
    vae.fit(endless, steps_per_epoch=3, epochs=2, verbose=0)
    assert vae.optimizer.iterations.numpy() == 6
    at_once = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: at.append(vae.steps_per_execution)
    )
    at = []
    vae.fit(x, batch_size=2, verbose=0, callbacks=[at_once])
    assert at == [10]
    assert vae.optimizer.iterations.numpy() == 16
    vae.evaluate(endless, steps=3, verbose=0)
    assert vae.kl_tracker.count.numpy() == 6


def test_what_goes_by_single_steps_does_so_after_fit_too(x):
    """Ten batches that come together would leave `predict` with the first of them."""
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    expected = vae.reconstruct(x).numpy()
    for other in (vae.predict, vae.fit, vae.evaluate):
        other(x, batch_size=3, verbose=0)
        np.testing.assert_allclose(vae.predict(x, 3, verbose=0), expected, rtol=1e-5)
    endless = tf.data.Dataset.from_tensor_slices(x).batch(3).repeat()
    assert len(vae.predict(endless, steps=2, verbose=0)) == 6
    done = int(vae.optimizer.iterations)
    vae.train_on_batch(x[:3])
    assert int(vae.optimizer.iterations) == done + 1


@pytest.mark.parametrize("counted", ["fit", "evaluate"])
def test_a_callback_may_evaluate(x, counted):
    """With another number of steps in one execution than `fit` has."""
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    endless = tf.data.Dataset.from_tensor_slices(x).batch(4).repeat()
    options = {"fit": {"steps_per_epoch": 5}, "evaluate": {"steps": 5}}[counted]
    found = []

    def evaluate(epoch, logs):
        given = (endless, options) if counted == "evaluate" else (x, {"batch_size": 4})
        vae.evaluate(given[0], **given[1], verbose=0)
        found.append(float(vae.kl_tracker.count))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=evaluate)
    if counted == "fit":
        vae.fit(endless, epochs=3, verbose=0, callbacks=[callback], **options)
    else:
        vae.fit(x, batch_size=4, epochs=3, verbose=0, callbacks=[callback])
    assert int(vae.optimizer.iterations) == 15
    assert found == [20.0] * 3


def test_validation_images_are_looked_through_once(x, monkeypatch):
    vae, looked = small_vae(), []
    vae.compile(keras.optimizers.SGD(0.0))
    monkeypatch.setattr("tfp_vae.vae.images.check_values", lambda x, *_: looked.append(len(x)))
    vae.fit(x, validation_data=x[:7], epochs=3, verbose=0)
    assert looked == [7, 20]


def test_replicas_are_not_compiled_where_there_is_a_gpu(monkeypatch):
    """XLA cannot reach the variables of another device."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        vae = small_vae()
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [kind])
        vae.compile()
    assert not vae.jit_compile


def test_eager_steps_are_not_compiled_where_there_is_a_gpu(monkeypatch):
    """Both at once Keras warns of."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [kind])
    vae = small_vae()
    vae.compile(run_eagerly=True)
    assert not vae.jit_compile
    vae.compile()
    assert vae.jit_compile


def test_weights_of_validation_images_count(x):
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    weights = np.where(np.arange(20) < 5, 1.0, 0.0).astype("float32")
    chosen = x.copy()
    chosen[5:] = 1 - chosen[5:]  # images of weight 0 may be any
    found = [
        vae.fit(x, validation_data=(each, None, weights), verbose=0).history["val_loss"][0]
        for each in (x, chosen)
    ]
    alone = np.mean([float(-tf.reduce_sum(vae.elbo(x[:5], 500, seed=0))) / 20])
    assert found[0] == pytest.approx(alone, abs=0.5)
    assert found[1] == pytest.approx(alone, abs=0.5)
    unweighted = vae.fit(x, validation_data=(x, None, None), verbose=0).history["val_loss"][0]
    assert unweighted > 2 * alone


def test_batch_normalization_is_updated_once_in_a_step(x):
    prior = priors.StandardNormal(2)
    norm = keras.layers.BatchNormalization(momentum=0.9)
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            norm,
            keras.layers.Dense(4),
            layers.MultivariateNormalDiag(
                2, activity_regularizer=layers.KLDivergenceRegularizer(prior)
            ),
        ]
    )
    vae = VAE(encoder, networks.dense_decoder(SHAPE, 2), prior)
    vae.compile(keras.optimizers.SGD(0.0))
    vae.fit(x, batch_size=20, verbose=0)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * x.reshape(20, -1).mean(0), rtol=1e-4)
    vae.evaluate(x, verbose=0)
    np.testing.assert_allclose(norm.moving_mean, 0.1 * x.reshape(20, -1).mean(0), rtol=1e-4)


class Encoder(keras.Model):
    def __init__(self, prior):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(4)
        regularizer = layers.KLDivergenceRegularizer(prior)
        self.head = layers.MultivariateNormalDiag(2, activity_regularizer=regularizer)

    def call(self, x):
        return self.head(self.dense(self.flatten(x)))


class Head(keras.layers.Layer):
    """A layer, no model, with a posterior in it."""

    def __init__(self, prior):
        super().__init__()
        self.dense = keras.layers.Dense(4)
        regularizer = layers.KLDivergenceRegularizer(prior, weight=0.5)
        self.posterior = layers.MultivariateNormalDiag(2, activity_regularizer=regularizer)

    def call(self, x):
        return self.posterior(self.dense(x))


class EncoderWithHead(keras.Model):
    def __init__(self, prior):
        super().__init__()
        self.flatten, self.head = keras.layers.Flatten(), Head(prior)

    def call(self, x):
        return self.head(self.flatten(x))


def test_a_posterior_within_a_layer_counts_the_kl_once(x):
    prior = priors.StandardNormal(2)
    vae = VAE(EncoderWithHead(prior), networks.dense_decoder(SHAPE, 2, units=(4,)))
    assert vae.prior is prior
    assert vae.kl_weight == 0.5
    vae.compile(keras.optimizers.SGD(0.0))
    logs = vae.evaluate(x, return_dict=True, verbose=0)
    assert logs["kl"] > 0.01
    assert logs["loss"] == pytest.approx(0.5 * logs["kl"] - logs["reconstruction"], rel=1e-5)


class Decoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(30)
        self.pixels = layers.IndependentBernoulli(SHAPE)

    def call(self, z):
        return self.pixels(self.dense(z))


def test_subclassed_parts(x, rng):
    prior = priors.StandardNormal(2)
    vae = VAE(Encoder(prior), Decoder(), seed=0)
    assert vae.prior is prior
    assert vae.image_shape == SHAPE
    vae.compile(keras.optimizers.Adam(1e-2))
    losses = vae.fit(x, batch_size=5, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert vae.decode(rng.normal(size=(3, 4, 2)).astype("float32")).batch_shape == (3, 4)
    assert vae.elbo(x, seed=0).shape == (20,)
    assert vae.interpolate(x[0], x[1], 4).shape == (4, *SHAPE)
    with pytest.raises(ValueError, match=r"6, 5, 1\), got \(20, 6, 5\)"):
        vae.fit(x[..., 0])


def test_another_activity_regularizer_stays_in_the_loss(x):
    encoder = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
            layers.MultivariateNormalDiag(2, activity_regularizer=lambda q: tf.constant(1000.0)),
        ]
    )
    vae = VAE(encoder, networks.dense_decoder(SHAPE, 2), priors.StandardNormal(2))
    vae.compile(keras.optimizers.SGD(0.0))
    logs = vae.evaluate(x, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(1000 - logs["elbo"], rel=1e-5)


def test_the_pair_of_tfps_tutorial_has_its_exact_kl(x):
    """Full-covariance posterior, prior of independent normals: checked against the same prior."""
    independent = tfd.Independent(tfd.Normal(loc=tf.zeros(2), scale=1.0), 1)
    vae = small_vae(independent, posterior="full")
    kl = objectives.kl_divergence(vae.encode(x), vae.prior())
    expected = tfd.kl_divergence(vae.encode(x), tfd.MultivariateNormalDiag(tf.zeros(2)))
    np.testing.assert_allclose(kl, expected, rtol=1e-5)


def test_float64(x, tmp_path):
    keras.config.set_floatx("float64")
    keras.mixed_precision.set_global_policy("float64")
    try:
        vae, images = small_vae(), x.astype("float64")
        vae.compile(keras.optimizers.Adam(1e-2))
        vae.fit(images, verbose=0)
        assert vae.elbo(images, seed=0).dtype == tf.float64
        assert vae.sample(2, seed=0).dtype == tf.float64
        assert vae.interpolate(images[0], images[1], 3).dtype == tf.float64
        vae.export(tmp_path / "exported")
        exported = tf.saved_model.load(tmp_path / "exported")
        z = np.zeros((1, vae.latent_dim), "float32")
        np.testing.assert_allclose(exported.decode(z)["mean"], vae.decode(z).mean(), rtol=1e-6)
        mask = evaluation.observed_mask("left", images.shape)
        error = evaluation.imputation_error(vae, images, mask, num_samples=2, num_steps=2, seed=0)
        assert np.isfinite(error.log_score).all()
    finally:
        keras.config.set_floatx("float32")


STRATEGY = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from tfp_vae import VAE, networks, priors
x = np.random.default_rng(0).integers(0, 2, (20, 6, 5, 1)).astype("float32")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    prior = priors.StandardNormal(2)
    vae = VAE(networks.dense_encoder((6, 5, 1), 2, prior=prior),
              networks.dense_decoder((6, 5, 1), 2), prior, seed=0)
    vae.compile(keras.optimizers.SGD(0.1))
bias = vae.decoder.layers[-2].bias
logs = vae.evaluate(x, batch_size=20, return_dict=True, verbose=0)
assert abs(logs["loss"] + logs["elbo"]) < 1e-3, logs
vae.fit(x, batch_size=20, verbose=0)
# The gradient of the mean over the *global* batch: at most 1 in absolute value, near 0.5 - mean.
print(np.abs(bias.numpy() - 0.1 * (x.mean(0).ravel() - 0.5)).max())
draws = strategy.run(lambda: tf.identity(vae(tf.zeros([1, 6, 5, 1])).z))
a, b = strategy.experimental_local_results(draws)
assert not np.array_equal(a, b), "both replicas drew the same noise"
"""


def test_two_replicas_train_on_the_mean_of_the_global_batch(fresh_process):
    """A loss that is not divided by the replicas would move the bias twice as far."""
    assert float(fresh_process(STRATEGY).splitlines()[-1]) < 0.012


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("jit_compile", ["auto", True], ids=["auto", "xla"])
def test_trains_under_xla_and_mixed_precision(jit_compile, policy, x):
    keras.mixed_precision.set_global_policy(policy)
    vae = small_vae()
    vae.compile(keras.optimizers.Adam(1e-2), jit_compile=jit_compile)
    losses = vae.fit(np.repeat(x, 5, 0), batch_size=25, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert vae.elbo(x, seed=0).dtype == tf.float32


def test_gradient_accumulation_is_keras_own(x):
    vae = small_vae()
    vae.compile(keras.optimizers.Adam(1e-2, gradient_accumulation_steps=2))
    before = vae.decoder.get_weights()[0]
    vae.fit(x, batch_size=20, epochs=1, verbose=0)
    np.testing.assert_array_equal(before, vae.decoder.get_weights()[0])
    vae.fit(x, batch_size=20, epochs=1, verbose=0)
    assert not np.array_equal(before, vae.decoder.get_weights()[0])


def test_xla_is_off_on_a_cpu_unless_asked_for():
    vae = small_vae()
    vae.compile()
    assert not tf.config.list_physical_devices("GPU")  # conftest hides them
    assert vae.jit_compile is False
    vae.compile(jit_compile=True)
    assert vae.jit_compile is True


def test_hot_functions_are_traced_once(x):
    vae = small_vae()
    traces = []
    decode = vae._decode
    vae._decode = lambda *a, **k: traces.append(1) or decode(*a, **k)
    vae.compile(keras.optimizers.Adam(1e-3))
    vae.fit(x[:15], batch_size=5, epochs=3, verbose=0)
    count = len(traces)
    vae.fit(x[:15], batch_size=5, epochs=3, verbose=0)
    assert len(traces) == count
    vae._decode = decode
    for samples, images in ((1, 20), (7, 20), (3, 11), (50, 2), (2, 3)):
        vae.elbo(x[:images], num_samples=samples, seed=0)
        vae.log_likelihood(x[:images], num_samples=samples, seed=0)
    assert vae._elbo_of_piece.experimental_get_tracing_count() <= 2
    assert vae._log_likelihood_of_piece.experimental_get_tracing_count() <= 2


# --------------------------------------------------------------------- distributions and images


@pytest.mark.parametrize("lead", [(), (4,), (3, 4), (2, 3, 4)], ids=str)
def test_decode_takes_any_leading_dimensions(lead, rng):
    vae = small_vae()
    z = rng.normal(size=(*lead, 2)).astype("float32")
    p = vae.decode(z)
    assert isinstance(p, tfd.Independent)
    assert p.batch_shape == lead
    assert p.event_shape == SHAPE
    flat = vae.decode(z.reshape(-1, 2)).mean()
    np.testing.assert_allclose(p.mean(), np.reshape(flat, (*lead, *SHAPE)), rtol=1e-5)
    # One image broadcasts against all of them, as TFP's distributions do.
    assert p.log_prob(np.zeros(SHAPE, "float32")).shape == lead


def test_decode_in_a_graph_with_unknown_dimensions(rng):
    vae = small_vae()
    z = rng.normal(size=(3, 4, 2)).astype("float32")
    signature = [tf.TensorSpec([None, None, 2])]
    means = tf.function(lambda z: vae.decode(z).mean(), input_signature=signature)(z)
    np.testing.assert_allclose(means, vae.decode(z).mean(), rtol=1e-5)


def test_encode_takes_any_leading_dimensions(x):
    vae = small_vae()
    q = vae.encode(x.reshape(4, 5, *SHAPE))
    assert isinstance(q, tfd.MultivariateNormalDiag)
    assert q.batch_shape == (4, 5)
    np.testing.assert_allclose(np.reshape(q.mean(), (20, 2)), vae.encode(x).mean(), rtol=1e-5)


def test_means(x):
    vae = small_vae()
    means = vae.decode(vae.encode(x).mean()).mean()
    np.testing.assert_allclose(vae.reconstruct(x), means, rtol=1e-5)
    predicted = vae.predict(x, verbose=0)
    assert isinstance(predicted, np.ndarray)
    np.testing.assert_allclose(predicted, means, rtol=1e-5)


def test_interpolation_is_straight_and_ends_at_the_reconstructions(x):
    vae = small_vae()
    line = vae.interpolate(x[0], x[1], steps=5)
    assert line.shape == (5, *SHAPE)
    np.testing.assert_allclose(line[0], vae.reconstruct(x[:1])[0], rtol=1e-5)
    np.testing.assert_allclose(line[-1], vae.reconstruct(x[1:2])[0], rtol=1e-5)
    z = vae.encode(x[:2]).mean()
    np.testing.assert_allclose(line[1], vae.decode(0.75 * z[0] + 0.25 * z[1]).mean(), rtol=1e-4)
    many = vae.interpolate(x[:3], x[3:6], steps=4)
    assert many.shape == (3, 4, *SHAPE)
    np.testing.assert_allclose(many[2, 0], vae.reconstruct(x[2:3])[0], rtol=1e-5)


RANDOM = [
    pytest.param(lambda v, x, s: v.elbo(x, seed=s), id="elbo"),
    pytest.param(lambda v, x, s: v.log_likelihood(x, num_samples=3, seed=s), id="log_likelihood"),
    pytest.param(lambda v, x, s: v.sample(4, seed=s), id="sample"),
    pytest.param(lambda v, x, s: v.sample(4, seed=s, mean=True), id="sample mean"),
    pytest.param(lambda v, x, s: v.reconstruct(x, seed=s, sample=True), id="reconstruct"),
]


@pytest.mark.parametrize("method", RANDOM)
def test_seeds(method, x):
    vae, twin = small_vae(), small_vae()
    twin.set_weights(vae.get_weights())
    a = method(vae, x, 3)
    np.testing.assert_array_equal(a, method(vae, x, 3))
    np.testing.assert_array_equal(a, method(twin, x, 3))
    assert not np.array_equal(a, method(vae, x, 4))
    assert not np.array_equal(a, method(vae, x, 3 + 2**32))  # all the bits of a seed count
    # Without a seed: the model's own stream, which the constructor's seed fixes.
    twin.seed_generator.state.assign(vae.seed_generator.state)
    first, second = method(vae, x, None), method(vae, x, None)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, method(twin, x, None))
    np.testing.assert_array_equal(second, method(twin, x, None))


def test_training_is_repeatable(x):
    def weights():
        keras.utils.set_random_seed(3)
        vae = small_vae()
        vae.compile(keras.optimizers.Adam(1e-2))
        vae.fit(x, batch_size=5, epochs=2, verbose=0)
        return vae.get_weights()

    for a, b in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --------------------------------------------------------------------- saving

LOAD = """
import os, sys, numpy as np, keras, tfp_vae
x = np.load("x.npy")
for folder in sys.argv[1:]:
    os.chdir(folder)
    vae = keras.saving.load_model("vae.keras")
    of_encoder = vae.encoder.layers[-1].activity_regularizer.distribution_b
    assert vae.prior is of_encoder or vae.prior.fixed is of_encoder
    np.savez("out.npz", elbo=vae.elbo(x, seed=3), sample=vae.sample(3, seed=4),
             prior=vae.prior().log_prob(np.ones([2], "float32")))
    assert vae.optimizer.iterations.numpy() == 4, vae.optimizer.iterations
    history = vae.fit(x, batch_size=5, verbose=0, shuffle=False)
    for part, inputs in ((vae.encoder, x), (vae.decoder, np.ones([1, 2], "float32"))):
        assert isinstance(part(inputs),
                          __import__("tensorflow_probability").distributions.Distribution)
    np.savez("trained.npz", *vae.get_weights())
    os.chdir("..")
"""

SAVED = {
    "standard_normal": lambda: small_vae(),
    "learned": lambda: small_vae(priors.GaussianMixture(2, 3), use_exact_kl=False),
    "raw_distribution": lambda: small_vae(
        tfd.MultivariateNormalDiag([0.5, 0.0], [1.0, 2.0]), posterior="full"
    ),
}


def test_a_fresh_process_goes_on_where_this_one_stopped(x, tmp_path, fresh_process):
    """Loaded with the defaults of Keras: the same numbers, and the same next epoch."""
    models = {name: make() for name, make in SAVED.items()}
    np.save(tmp_path / "x.npy", x)
    for name, vae in models.items():
        (tmp_path / name).mkdir()
        vae.compile(keras.optimizers.Adam(1e-2))
        vae.fit(x, batch_size=5, verbose=0, shuffle=False)
        vae.save(tmp_path / name / "vae.keras")
    fresh_process(LOAD, *models)
    for name, vae in models.items():
        with np.load(tmp_path / name / "out.npz") as out:
            np.testing.assert_allclose(out["elbo"], vae.elbo(x, seed=3), rtol=1e-5)
            np.testing.assert_array_equal(out["sample"], vae.sample(3, seed=4))
            np.testing.assert_allclose(out["prior"], vae.prior().log_prob([1.0, 1.0]), rtol=1e-6)
        vae.fit(x, batch_size=5, verbose=0, shuffle=False)
        with np.load(tmp_path / name / "trained.npz") as out:
            for key, weight in zip(out.files, vae.get_weights(), strict=True):
                np.testing.assert_allclose(out[key], weight, rtol=1e-5, atol=1e-6)


def test_learned_prior_has_one_set_of_weights_and_is_trained(x):
    prior = priors.GaussianMixture(2, 3, seed=0)
    vae = small_vae(prior, use_exact_kl=False)
    vae.compile(keras.optimizers.Adam(1e-2))
    ids = [id(v) for v in vae.trainable_variables]
    assert len(ids) == len(set(ids))
    assert sum(v is prior.loc for v in vae.trainable_variables) == 1
    before = prior.loc.numpy()
    vae.fit(x, batch_size=5, verbose=0)
    assert not np.array_equal(before, prior.loc.numpy())


def test_compiled_model_that_took_no_step_comes_back(tmp_path, x):
    vae = small_vae()
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.save(tmp_path / "new.keras")
    # Warnings are errors here: Keras warns of slots that a file lacks.
    again = keras.saving.load_model(tmp_path / "new.keras")
    again.fit(x, batch_size=5, verbose=0)


def test_saving_replaces_a_file_whole_or_not_at_all(tmp_path, x, monkeypatch):
    path = tmp_path / "new" / "model.keras"
    vae = small_vae()
    vae.save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite is False"):
        vae.save(path, overwrite=False)

    def full(self, filepath, **kwargs):
        pathlib.Path(filepath).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match=r"model\.keras: cannot be written: .*No space left") as full:
        vae.save(path)
    assert full.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["model.keras"]


def test_config_is_plain_json(x):
    vae = small_vae(priors.GaussianMixture(2, 3, seed=0), use_exact_kl=False)
    config = json.loads(json.dumps(vae.get_config()))
    again = VAE.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert again.prior is again.encoder.layers[-1].activity_regularizer.distribution_b


def test_summary_names_the_layers_of_all_three_parts(capsys):
    lines = []
    small_vae(priors.GaussianMixture(2, 3), use_exact_kl=False).summary(print_fn=lines.append)
    text = "\n".join(map(str, lines))
    for name in ("encoder", "decoder", "dense_0", "posterior", "likelihood", "gaussian_mixture"):
        assert name in text


# --------------------------------------------------------------------- memory

MEMORY = f"""{PEAK}
import numpy as np, keras, tfp_vae
from tfp_vae import VAE, networks, priors
prior = priors.StandardNormal(1)
encoder = networks.dense_encoder((2, 2, 1), 1, units=(4,), prior=prior)
vae = VAE(encoder, networks.dense_decoder((2, 2, 1), 1, units=(4,)), prior)
x = np.random.default_rng(0).integers(0, 2, (10_000, 2, 2, 1)).astype("float32")
vae.log_likelihood(x[:200], num_samples=100, seed=0, verbose=0)
before = peak()
assert vae.log_likelihood(x, num_samples=5000, seed=0, verbose=0).shape == (10_000,)
print((peak() - before) >> 20)
"""


def test_likelihood_of_ten_thousand_images_holds_its_memory(fresh_process):
    """5,000 samples each: 800 MB for the pixels of all draws alone, if they were held at once."""
    assert int(fresh_process(MEMORY)) < 100  # MiB beyond what 200 images and 100 samples took


# --------------------------------------------------------------------- bad input


def made(latent_encoder=2, latent_decoder=2, shape_decoder=SHAPE):
    prior = priors.StandardNormal(2)
    return (
        networks.dense_encoder(SHAPE, latent_encoder),
        networks.dense_decoder(shape_decoder, latent_decoder),
        prior,
    )


def plain_encoder():
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(2)])


IMAGES = np.full((4, *SHAPE), 0.5, "float32")


def batches(*arrays):
    """A data set of one batch for each array, with labels, as Keras takes it."""
    images = np.concatenate(arrays)
    return tf.data.Dataset.from_tensor_slices((images, np.arange(len(images)))).batch(4)


BAD = [
    pytest.param(lambda v: VAE(*made(latent_encoder=3)), r"got \(3,\)", id="prior and encoder"),
    pytest.param(lambda v: VAE(*made(latent_decoder=3)), r"got \(3,\)", id="prior and decoder"),
    pytest.param(lambda v: VAE(*made(shape_decoder=(6, 4, 1))), r"\(6, 5, 1\).*got \(6, 4, 1\)",
                 id="image shapes"),
    pytest.param(lambda v: VAE(*made()[:2]), "expected one, got None", id="no prior"),
    pytest.param(lambda v: VAE(v.encoder, v.decoder, priors.StandardNormal(2)),
                 "holds another prior", id="two priors"),
    pytest.param(lambda v: VAE(*made()[:2], tfd.Normal([0.0, 0.0], 1.0)), r"batch shape \(2,\)",
                 id="batch of priors"),
    pytest.param(lambda v: VAE(*made()[:2], tfd.Independent(tfd.Uniform([-1.0] * 2, 1.0), 1)),
                 r"log p\(z\) = -inf of Independent at z = -3", id="prior on a square"),
    pytest.param(lambda v: VAE(*made()[:2], tfd.Independent(tfd.LogNormal([0.0] * 2, 1.0), 1),
                               use_exact_kl=False),
                 "expected a density above 0 everywhere", id="prior on positive numbers"),
    pytest.param(lambda v: VAE(*made()[:2], priors.GaussianMixture(2, 3)),
                 "MixtureSameFamily: give use_exact_kl=False", id="no closed form"),
    pytest.param(lambda v: VAE(*made()[:2], tfd.JointDistributionSequential(
                     [tfd.Normal(0.0, 1.0), tfd.Normal(0.0, 1.0)])),
                 "got one over several parts", id="joint prior"),
    pytest.param(lambda v: v.decode([[0.0, np.nan]]), "finite latent vectors", id="latent nan"),
    pytest.param(lambda v: v.save("model.h5"), "ends in .keras, got 'model.h5'", id="h5"),
    pytest.param(lambda v: VAE(plain_encoder(), *made()[1:]), "distribution layer", id="tensors"),
    pytest.param(lambda v: VAE(*made()[:2], "normal"), "got str", id="prior by name"),
    pytest.param(lambda v: VAE(made()[0], lambda z: z, made()[2]), "got function", id="function"),
    pytest.param(lambda v: v.encode(IMAGES + 0.6), r"in \[0, 1\], got values from 1.1",
                 id="above 1"),
    pytest.param(lambda v: v.fit(IMAGES - 1), r"in \[0, 1\], got values from -0.5", id="below 0"),
    pytest.param(lambda v: v.encode(IMAGES - 1.4), r"from -0.[89]\d* to .*take \(x \+ 1\) / 2",
                 id="around 0"),
    pytest.param(lambda v: v.encode(IMAGES > 0.3), r"got bool.* x.astype\('float32'\), divided by "
                 "255 if they are 8-bit", id="booleans"),
    pytest.param(lambda v: v.elbo((IMAGES, np.zeros(4, int))), "images alone, since .* no labels",
                 id="labels"),
    pytest.param(lambda v: v.fit([IMAGES, IMAGES]), "x: expected images, .* got a list", id="list"),
    pytest.param(lambda v: v.fit(tf.data.Dataset.from_tensors({"image": IMAGES})),
                 "x: expected batches of images, .*got dict", id="dictionaries"),
    pytest.param(lambda v: v.encode(IMAGES * np.nan), "finite", id="nan"),
    pytest.param(lambda v: v.fit(np.where(IMAGES < 0, 0, np.inf).astype("float32")), "finite",
                 id="infinity"),
    pytest.param(lambda v: v.encode((IMAGES * 255).astype("uint8")), "got uint8", id="integers"),
    pytest.param(lambda v: v.fit(IMAGES.astype("int32")), "got int32", id="integers in fit"),
    pytest.param(lambda v: v.encode(IMAGES[..., 0]), r"6, 5, 1\), got \(4, 6, 5\)", id="rank"),
    pytest.param(lambda v: v.elbo(IMAGES[0]), r"6, 5, 1\), got \(6, 5, 1\)", id="one image"),
    pytest.param(lambda v: v.elbo(IMAGES[None]), r"got \(1, 4, 6, 5, 1\)", id="batch of batches"),
    pytest.param(lambda v: VAE(*made()[:2], tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0]))),
                 "tf.Variables, which Keras", id="variables"),
    pytest.param(lambda v: v.fit(IMAGES[:, :5]), r"6, 5, 1\), got \(4, 5, 5, 1\)", id="shape"),
    pytest.param(lambda v: v.evaluate(IMAGES[:, :5]), r"got \(4, 5, 5, 1\)", id="evaluate"),
    pytest.param(lambda v: v.predict(IMAGES[:, :5]), r"got \(4, 5, 5, 1\)", id="predict"),
    pytest.param(lambda v: v.fit(IMAGES, validation_data=(IMAGES[:, :5], None)),
                 r"got \(4, 5, 5, 1\)", id="validation"),
    pytest.param(lambda v: v.fit(IMAGES[:0]), "at least one", id="no images"),
    pytest.param(lambda v: v.fit(tf.data.Dataset.from_tensor_slices(IMAGES[:0]).batch(2)),
                 "empty data set", id="empty data set"),
    pytest.param(lambda v: v.fit(tf.data.Dataset.from_tensor_slices(IMAGES[:, :5]).batch(2)),
                 r"got \(None, 5, 5, 1\)", id="data set of another shape"),
    pytest.param(lambda v: v.decode(np.zeros((4, 3), "float32")), r"\(\.\.\., 2\), got \(4, 3\)",
                 id="latent"),
    pytest.param(lambda v: v.elbo(IMAGES, num_samples=0), "num_samples.*got 0", id="no samples"),
    pytest.param(lambda v: v.log_likelihood(IMAGES, num_samples=2.5), "got 2.5", id="2.5 samples"),
    pytest.param(lambda v: v.sample(0), "got 0", id="sample 0"),
    pytest.param(lambda v: v.sample(2, seed="a"), "seed: expected", id="seed"),
    pytest.param(lambda v: v.interpolate(IMAGES[0], IMAGES[1], 1), "at least 2, got 1", id="steps"),
    pytest.param(lambda v: v.compile(loss="mse"), "leave it out", id="loss"),
    pytest.param(lambda v: v.compile(metrics=["mse"]), "leave it out", id="metrics"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call, message):
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.1))
    before = vae.get_weights()
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=message):
        call(vae)
    for a, b in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


BAD_SETS = [
    pytest.param(lambda v: v.fit(batches(IMAGES, IMAGES * np.nan), verbose=0), "finite", id="nan"),
    pytest.param(
        lambda v: v.fit(batches(IMAGES, IMAGES * 3), verbose=0),
        r"in \[0, 1\], got values from 1.5 to 1.5",
        id="above 1",
    ),
    pytest.param(
        lambda v: v.fit(batches(IMAGES - 1.4), verbose=0),
        r"from -0.[89]\d* to .*1\. Of pixels in \[-1, 1\] take \(x \+ 1\) / 2",
        id="around 0",
    ),
    pytest.param(lambda v: v.evaluate(batches(IMAGES - 1), verbose=0), "-0.5", id="evaluate"),
    pytest.param(lambda v: v.predict(batches(IMAGES - 1), verbose=0), "-0.5", id="predict"),
    pytest.param(
        lambda v: v.fit(IMAGES, validation_data=batches(IMAGES - 1), verbose=0),
        "-0.5",
        id="validation",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD_SETS)
def test_bad_values_in_a_data_set_stop_at_their_batch(call, message):
    """They cannot be seen before; no weight may have taken them in."""
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=f"^images: expected .*{message}"):
        call(vae)
    assert all(np.isfinite(weight).all() for weight in vae.get_weights())


def test_arguments_in_the_places_that_keras_gives_them(x, capsys):
    vae = small_vae()
    vae.compile(keras.optimizers.SGD(0.1))
    assert len(vae.fit(x, None, 10, 2, 0).epoch) == 2
    assert np.isfinite(vae.evaluate(x, None, 10, 0)).all()
    assert vae.predict(x, 10, 0).shape == x.shape
    assert capsys.readouterr().out == ""


def test_pixels_outside_the_unit_interval_are_fine_for_a_normal_likelihood(x):
    vae = small_vae(likelihood="normal")
    assert np.isfinite(vae.elbo(3 * x - 1, seed=0)).all()


def test_a_posterior_whose_draws_have_no_gradient_is_refused_in_training(x):
    """The weights of a mixture would learn from the KL alone."""

    def vae(reparameterize):
        def mixture(params):
            loc, logits = tf.reshape(params[..., :4], [-1, 2, 2]), params[..., 4:]
            return tfd.MixtureSameFamily(
                tfd.Categorical(logits=logits),
                tfd.Independent(tfd.Normal(loc, 1.0), 1),
                reparameterize=reparameterize,
            )

        encoder = keras.Sequential(
            [
                keras.Input(SHAPE),
                keras.layers.Flatten(),
                keras.layers.Dense(6),
                layers.DistributionLambda(mixture),
            ]
        )
        decoder = networks.dense_decoder(SHAPE, 2, units=(8,))
        model = VAE(encoder, decoder, priors.StandardNormal(2), use_exact_kl=False, seed=0)
        model.compile("adam")
        return model

    refused = vae(False)
    assert np.isfinite(refused.elbo(x, seed=0)).all()
    with pytest.raises(ValueError, match="a reparameterized one to train"):
        refused.fit(x, verbose=0)
    vae(True).fit(x, verbose=0)


PRIORS = {
    "vamp": lambda: priors.VampPrior(2, SHAPE, 3, seed=0),
    "mixture": lambda: priors.GaussianMixture(2, 3, seed=0),
    "normal": lambda: priors.StandardNormal(2),
}


@pytest.mark.parametrize(
    ("prior", "likelihood", "posterior"),
    [
        ("vamp", "continuous_bernoulli", "full"),
        ("mixture", "quantized_logistic", "diagonal"),
        pytest.param("normal", "autoregressive_bernoulli", "diagonal", marks=pytest.mark.long),
        pytest.param("vamp", "bernoulli", "iaf", marks=pytest.mark.long),
        pytest.param("normal", "normal_fixed_scale", "full", marks=pytest.mark.long),
        pytest.param("mixture", "quantized_logistic_mixture", "iaf", marks=pytest.mark.long),
    ],
)
def test_training_under_xla(x, prior, likelihood, posterior):
    vae = small_vae(PRIORS[prior](), likelihood=likelihood, posterior=posterior, use_exact_kl=False)
    vae.compile(keras.optimizers.SGD(1e-3), jit_compile=True, steps_per_execution=1)
    before = vae.get_weights()
    found = vae.fit(x, batch_size=10, verbose=0).history
    assert np.isfinite(found["loss"]).all()
    moved = [(a != b).any() for a, b in zip(vae.get_weights(), before, strict=True) if a.ndim]
    assert all(moved)


@pytest.mark.parametrize(
    "likelihood", ["bernoulli", "normal", "quantized_logistic", "autoregressive_bernoulli"]
)
def test_a_data_set_of_float64_images(x, likelihood):
    vae = small_vae(likelihood=likelihood)
    vae.compile(keras.optimizers.SGD(0.0))
    data = tf.data.Dataset.from_tensor_slices(x.astype("float64")).batch(10)
    assert data.element_spec.dtype == tf.float64
    vae.fit(data, verbose=0)
    found = vae.evaluate(data, verbose=0, return_dict=True)
    assert np.isfinite(list(found.values())).all()


class Wide(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1500)

    def call(self, z):
        return self.dense(z)


def test_more_is_decoded_at_once_by_narrow_networks_than_by_wide_ones():
    shape, prior = (28, 28, 1), priors.StandardNormal(3)
    encoder = networks.dense_encoder(shape, 3, units=(10,))
    decoder = networks.dense_decoder(shape, 3, units=(900, 20))
    assert parts.widest(encoder, decoder, prior) == 900
    wide = networks.conv_encoder(shape, 3, filters=(40, 6))  # whose convolutions halve the sides
    assert parts.widest(wide, decoder, prior) == 13**2 * 40
    wide = networks.conv_decoder(shape, 3, filters=(4, 6))
    assert parts.widest(encoder, wide, prior) == 28**2 * 6
    mixture = priors.GaussianMixture(3, num_components=400)  # its density holds all components
    assert parts.widest(encoder, decoder, mixture) == 1200
    assert parts.widest(Encoder(prior), decoder, prior) is None
    assert parts.widest(encoder, Decoder(), prior) is None
    # Of a subclassed part of a network Keras knows what it gives on.
    body = [keras.Input((3,)), Wide(), keras.layers.Dense(28 * 28), *decoder.layers[-1:]]
    assert parts.widest(encoder, keras.Sequential(body), prior) == 1500
    x, narrow = np.zeros((5, *shape), "float32"), VAE(encoder, decoder, prior)
    assert chunks.at_once(narrow, x) == 3_200_000 // 900
    assert chunks.at_once(narrow, x, 1000) == 3_200_000 // 1000
    assert chunks.at_once(narrow, x, 10**9) == 1
    assert chunks.decoded_in_a_step(narrow, x) == 3_200_000 // 900 // 4
    wide = VAE(networks.conv_encoder(shape, 3, filters=(128,)), decoder, prior)
    assert chunks.decoded_in_a_step(wide, x) == 64
    widest = VAE(networks.conv_encoder(shape, 3, filters=(400,)), decoder, prior)
    assert chunks.decoded_in_a_step(widest, x) == 3_200_000 // (13**2 * 400) // 2
    two = priors.StandardNormal(2)
    unknown = VAE(Encoder(two), networks.dense_decoder(shape, 2), two)
    assert chunks.at_once(unknown, x) == 3_200_000 // (8 * 784)
    assert chunks.decoded_at_once(unknown) == 16 * 3_200_000 // (8 * 784)
    large = VAE(Encoder(two), networks.dense_decoder((64, 64, 3), 2), two)
    assert chunks.decoded_at_once(large) == 16 * 3_200_000 // (8 * 64 * 64 * 3)


def test_a_line_between_many_images_is_decoded_in_pieces(x, monkeypatch):
    vae = small_vae()
    whole = vae.interpolate(x[:5], x[5:10], 4)
    assert whole.shape == (5, 4, *SHAPE)
    sizes, decode = [], vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: sizes.append(len(z)) or decode(z))
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 30 * 7 // 16 + 1)  # seven at a time
    np.testing.assert_allclose(vae.interpolate(x[:5], x[5:10], 4), whole, atol=1e-6)
    assert sizes == [7, 7, 6]
    one = vae.interpolate(x[0], x[5], 4)
    np.testing.assert_allclose(one, whole[0], atol=1e-6)


def test_draws_of_a_mixture_are_made_in_pieces(monkeypatch):
    """TFP makes one of every component for each of them."""
    prior = priors.GaussianMixture(3, num_components=40)
    vae = small_vae(prior, latent_dim=3, use_exact_kl=False)
    seed = tf.constant([0, 1])
    whole = prior().sample(900, seed=seed)
    np.testing.assert_array_equal(chunks.prior_draws(vae, 900, seed), whole)
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", 40 * 3 * 100 // 16)  # 100 at a time
    pieces = np.asarray(chunks.prior_draws(vae, 950, seed))
    assert pieces.shape == (950, 3)
    assert len(np.unique(pieces, axis=0)) == 950
    np.testing.assert_allclose(pieces.mean(0), np.mean(whole, 0), atol=0.5)
    assert vae.sample(450, seed=0).shape[0] == 450
