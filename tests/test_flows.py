"""Autoregressive networks and flows against NumPy: densities, laws, calls of the networks."""

import gc
import itertools
import json
import weakref

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import VAE, layers, networks, objectives, priors

tfd, tfb = tfp.distributions, tfp.bijectors
SHAPE = (6, 5, 1)


def randomize(layer, rng, scale=0.7):
    """Weights large enough that a wrong one shows, the masked ones among them."""
    layer.set_weights([scale * rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def numpy_network(network, y, context=None):
    """Shift and log-scale of one point, unit by unit from the definition of MADE."""
    weights = {v.name: np.asarray(v, np.float64) for v in network.weights}
    d, depth = network.event_size, len(network.units)
    place = [d - i if network.right_to_left else i + 1 for i in range(d)]
    lowest = 0 if network.context_size or d == 1 else 1
    below, values = place, list(y)
    for i in range(depth + 1):
        last, size = i == depth, 2 * d if i == depth else network.units[i]
        above = place * 2 if last else [lowest + j * (d - lowest) // size for j in range(size)]
        new = []
        for j in range(size):
            total = weights[f"bias_{i}"][j]
            for k, value in enumerate(values):
                if below[k] < above[j] or (below[k] == above[j] and not last):
                    total += value * weights[f"kernel_{i}"][k, j]
            if i == 0 and context is not None:
                total += sum(context * weights["context_kernel"][:, j])
            new.append(total if last or total > 0 else np.expm1(total))
        below, values = above, new
    return np.array(values[:d]), 2 * np.tanh(np.array(values[d:]) / 2)


def log_det_jacobian(function, at, step=1e-5):
    columns = [(function(at + e) - function(at - e)) / (2 * step) for e in step * np.eye(len(at))]
    return np.linalg.slogdet(np.stack(columns, 1))[1]


def grid(low, high, n, d):
    axis = np.linspace(low, high, n)
    points = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    return points.astype("float32"), (axis[1] - axis[0]) ** d


# --------------------------------------------------------------------- the network

NETWORKS = [
    pytest.param(3, (), 0, False, id="linear"),
    pytest.param(4, (9,), 0, False, id="one layer"),
    pytest.param(4, (9, 6), 2, True, id="two layers, context, right to left"),
    pytest.param(5, (3,), 1, False, id="fewer units than inputs"),
    pytest.param(1, (4,), 0, False, id="one number"),
    pytest.param(1, (4,), 2, True, id="one number, context"),
]


@pytest.mark.parametrize(("d", "units", "context_size", "right_to_left"), NETWORKS)
def test_network_is_made_unit_by_unit(d, units, context_size, right_to_left, rng):
    network = layers.AutoregressiveNetwork(d, units, context_size, right_to_left=right_to_left)
    randomize(network, rng)
    y = rng.normal(size=(2, 3, d)).astype("float32")
    context = rng.normal(size=(3, context_size)).astype("float32") if context_size else None
    shift, log_scale = network(y, context=context)
    for s, b in np.ndindex(2, 3):
        expected = numpy_network(network, y[s, b], None if context is None else context[b])
        np.testing.assert_allclose(shift[s, b], expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(log_scale[s, b], expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("right_to_left", [False, True])
def test_each_output_sees_all_inputs_before_it_and_the_context_and_nothing_else(right_to_left, rng):
    network = layers.AutoregressiveNetwork(4, (24, 24), 2, right_to_left=right_to_left)
    randomize(network, rng)
    y, context = tf.constant(rng.normal(size=4)), tf.constant(rng.normal(size=2))
    y, context = tf.cast(y, tf.float32), tf.cast(context, tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([y, context])
        outputs = network(y, context=context)
    before = np.tri(4, k=-1, dtype=bool)
    before = before.T if right_to_left else before
    for output in outputs:
        jacobian = tape.jacobian(output, y).numpy()
        assert (jacobian[~before] == 0).all()
        assert (jacobian[before] != 0).all()
        assert (tape.jacobian(output, context).numpy() != 0).all()


def test_log_scale_is_bounded_and_the_start_near_the_identity(rng):
    network = layers.AutoregressiveNetwork(8, (64,), 4, seed=1)
    y, context = rng.normal(size=(50, 8)), rng.normal(size=(50, 4))
    for output in network(tf.constant(y, tf.float32), context=tf.constant(context, tf.float32)):
        assert 0 < np.abs(output).max() < 0.1
    _, log_scale = randomize(network, rng, 100.0)(
        tf.constant(y, tf.float32), context=tf.constant(context, tf.float32)
    )
    assert np.abs(log_scale).max() == pytest.approx(2)


def test_path_gradient_of_a_flow_is_the_total_less_the_score(rng):
    """Of log q(z) at draws z of q, the part that goes by way of z (Roeder et al. 2017, eq. 5)."""
    layer, params, _ = iaf(rng, 3, lead=(2,))
    params = tf.Variable(params)
    at = [params, *[variable.value for variable in layer.trainable_variables]]

    def gradient(value):
        with tf.GradientTape() as tape:
            q = layer(tf.convert_to_tensor(params))
            total = tf.reduce_sum(value(q, q.sample(4, seed=[1, 2])))
        return tape.gradient(total, at, unconnected_gradients="zero")

    path = gradient(objectives.path_log_prob)
    whole = gradient(lambda q, z: q.log_prob(z))
    score = gradient(lambda q, z: q.log_prob(tf.stop_gradient(z)))
    for by_path, total, of_score in zip(path, whole, score, strict=True):
        np.testing.assert_allclose(by_path, total - of_score, rtol=1e-3, atol=1e-3)
    assert max(float(tf.reduce_max(tf.abs(each))) for each in score) > 0.1


# --------------------------------------------------------------------- densities


def iaf(rng, d, c=2, lead=(), scale=0.7, num_flows=2, **options):
    """A layer with random weights, and the distribution of random parameters."""
    layer = layers.InverseAutoregressiveFlow(
        d, num_flows=num_flows, units=[7], context_size=c, **options
    )
    for network in layer.networks:
        randomize(network, rng, scale)
    params = rng.normal(size=(*lead, 2 * d + c)).astype("float32")
    params[..., d : 2 * d] *= 0.3
    return layer, params, layer(tf.constant(params))


@pytest.mark.parametrize(("d", "c"), [(1, 2), (3, 2), (3, 0)])
def test_inverse_flow_is_the_change_of_variables(d, c, rng):
    layer, params, q = iaf(rng, d, c, lead=(2,))
    noise = rng.normal(size=(2, d))
    loc, scale = params[:, :d], np.exp(0.5 * params[:, d : 2 * d])
    drawn = q.bijector.forward(tf.constant(loc + scale * noise, tf.float32))
    for b in range(2):
        context = params[b, 2 * d :] if c else None

        def through(z, context=context):
            for network in layer.networks:
                shift, log_scale = numpy_network(network, z, context)
                z = (z - shift) * np.exp(-log_scale)
            return z

        start = loc[b] + scale[b] * noise[b]
        np.testing.assert_allclose(drawn[b], through(start), rtol=1e-4, atol=1e-5)
        density = scipy.stats.norm.logpdf(start, loc[b], scale[b]).sum()
        expected = density - log_det_jacobian(through, start)
        assert float(q.log_prob(drawn)[b]) == pytest.approx(expected, rel=1e-4, abs=1e-4)
        # The same point as a tensor that the flow has not seen: coordinate by coordinate.
        assert float(q.log_prob(drawn + 0)[b]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def flow_prior(rng, d, scale=0.7):
    prior = priors.AutoregressiveFlow(d, num_flows=2, units=[7])
    for network in prior.networks:
        randomize(network, rng, scale)
    return prior


@pytest.mark.parametrize("d", [1, 3])
def test_flow_prior_is_the_change_of_variables(d, rng):
    prior = flow_prior(rng, d)

    def back(z):
        for network in prior.networks:
            shift, log_scale = numpy_network(network, z)
            z = (z - shift) * np.exp(-log_scale)
        return z

    z = rng.normal(size=(4, d))
    expected = [scipy.stats.norm.logpdf(back(v)).sum() + log_det_jacobian(back, v) for v in z]
    np.testing.assert_allclose(prior().log_prob(z.astype("float32")), expected, rtol=1e-4)
    # A draw comes from where its inverse is, and keeps the same density.
    draws = prior().sample(4, seed=1)
    z = draws.numpy().astype("float64")
    expected = [scipy.stats.norm.logpdf(back(v)).sum() + log_det_jacobian(back, v) for v in z]
    np.testing.assert_allclose(prior().log_prob(draws), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("kind", ["posterior", "prior"])
def test_density_integrates_to_one_and_is_that_of_the_samples(kind, d, rng):
    """Moments by quadrature of `log_prob` are those of the draws, within five standard errors."""
    p = iaf(rng, d, scale=0.4)[2] if kind == "posterior" else flow_prior(rng, d, 0.4)()
    points, cell = grid(-14, 14, 4001 if d == 1 else 301, d)
    mass = np.exp(p.log_prob(points).numpy().astype("float64")) * cell
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    draws = p.sample(20_000, seed=1).numpy().astype("float64")
    for f in (lambda z: z, lambda z: z**2, lambda z: np.cos(z.sum(1, keepdims=True))):
        error = f(draws).std(0) / np.sqrt(len(draws))
        assert error.max() < 0.2
        expected = (f(points.astype("float64")) * mass[:, None]).sum(0)
        np.testing.assert_array_less(np.abs(f(draws).mean(0) - expected), 5 * error + 2e-3)


def test_monte_carlo_kl_of_a_flow_that_does_nothing_is_the_gaussians(rng):
    layer, params, _ = iaf(rng, 3, lead=(4,))
    layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    q, gaussian = layer(params), layers.MultivariateNormalDiag.new(params[:, :6], 3)
    prior = priors.StandardNormal(3)()
    z = q.sample(5000, seed=1)
    values = objectives.kl_divergence(q, prior, z).numpy()
    error = values.std(0) / np.sqrt(5000)
    np.testing.assert_array_less(
        np.abs(values.mean(0) - objectives.kl_divergence(gaussian, prior)), 5 * error
    )
    np.testing.assert_allclose(q.mean(), gaussian.mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(q.stddev(), gaussian.stddev(), rtol=1e-4)


def test_moments_are_repeatable_near_the_true_ones_and_differentiable(rng):
    layer, params, q = iaf(rng, 3, lead=(2, 4))
    np.testing.assert_array_equal(q.mean(), layer(params).mean())
    draws = q.sample(20_000, seed=1).numpy()
    assert q.mean().shape == q.stddev().shape == (2, 4, 3)
    away = np.abs(q.mean() - draws.mean(0)) / draws.std(0)
    assert away.max() < 0.35  # the standard error of 128 draws is 0.09
    np.testing.assert_allclose(q.stddev(), draws.std(0), rtol=0.35)
    with tf.GradientTape() as tape:
        mean = tf.reduce_sum(layer(params).mean() ** 2)
    for gradient in tape.gradient(mean, layer.trainable_variables):
        assert np.abs(gradient).max() > 0
    with pytest.raises(NotImplementedError, match="mode"):
        q.mode()


@pytest.mark.parametrize("shape", [(3,), (1, 3), (5, 1, 3), (5, 4, 3), (6, 5, 1, 3)], ids=str)
def test_points_of_any_shape_that_broadcasts(shape, rng):
    layer, params, q = iaf(rng, 3, lead=(4,))
    z = rng.normal(size=shape).astype("float32")
    full = np.broadcast_to(z, np.broadcast_shapes(shape, (4, 3))).copy()
    expected = q.log_prob(full)
    np.testing.assert_allclose(q.log_prob(z), expected, rtol=1e-5, atol=1e-5)
    graph = tf.function(
        lambda params, z: layer(params).log_prob(z), input_signature=[tf.TensorSpec([None, 8]),
                                                                      tf.TensorSpec(shape)]
    )  # fmt: skip
    np.testing.assert_allclose(graph(params, z), expected, rtol=1e-4, atol=1e-4)


def test_new_weights_are_seen_by_the_next_distribution(rng):
    """TFP's cache is one for all bijectors: an equal one must not give the answer of an older."""
    prior, z = flow_prior(rng, 2), tf.zeros([3, 2])
    before = prior().log_prob(z).numpy()
    for network in prior.networks:
        randomize(network, rng)
    assert np.abs(prior().log_prob(z) - before).min() > 1e-3


def test_nothing_is_kept_of_draws_that_are_gone(rng):
    _, _, q = iaf(rng, 2)
    p = flow_prior(rng, 2)()
    for distribution in (p, q):
        for draw in (True, False):
            z = distribution.sample(3, seed=1) if draw else tf.ones([3, 2])
            distribution.log_prob(z)
            distribution.log_prob(z)
            gone = weakref.ref(z)
            del z
            gc.collect()
            assert gone() is None


# --------------------------------------------------------------------- in a model

POSTERIORS = {
    "diagonal": "diagonal",
    "full": {"name": "full"},
    "iaf": {"name": "iaf", "num_flows": 2, "units": [6], "context_size": 3},
}
PRIORS = {
    "mixture": lambda: priors.GaussianMixture(2, 3, seed=1),
    "flow": lambda: priors.AutoregressiveFlow(2, 2, [6], seed=1),
    "vamp": lambda: priors.VampPrior(2, SHAPE, 3, seed=1),
}


def small_vae(posterior, prior=None, with_regularizer=True):
    prior = PRIORS[prior]() if prior else priors.StandardNormal(2)
    encoder = networks.dense_encoder(
        SHAPE, 2, units=(8,), activation="elu", posterior=POSTERIORS[posterior],
        prior=prior if with_regularizer else None, use_exact_kl=not with_regularizer,
    )  # fmt: skip
    decoder = networks.dense_decoder(SHAPE, 2, units=(8,), activation="elu")
    return VAE(encoder, decoder, prior, use_exact_kl=False, seed=7)


@pytest.fixture
def x(rng):
    return rng.integers(0, 2, size=(20, *SHAPE)).astype("float32")


@pytest.fixture
def counted(monkeypatch):
    """The calls of autoregressive networks, as a list; and no inversion of an inverse flow."""
    calls, call = [], layers.AutoregressiveNetwork.call

    def counting(self, *args, **kwargs):
        calls.append(self)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(layers.AutoregressiveNetwork, "call", counting)
    return calls


def refuse(*args, **kwargs):
    raise AssertionError("a draw was inverted")


@pytest.mark.parametrize("samples", [(), (5,), (2, 5)], ids=str)
@pytest.mark.parametrize("lead", [(), (4,), (3, 4)], ids=str)
def test_density_of_a_draw_takes_one_pass_of_each_network(lead, samples, rng, counted):
    _, _, q = iaf(rng, 3, lead=lead)
    counted.clear()
    z = q.sample(samples, seed=1)
    own = q.log_prob(z)
    assert own.shape == (*samples, *lead)
    assert len(counted) == 2
    other = q.log_prob(z + 0)
    assert len(counted) > 2 * 3
    np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-3)


def test_model_never_inverts_its_posterior(x, counted, monkeypatch):
    """While they are traced, the model's functions call each network once."""
    vae = small_vae("iaf", with_regularizer=False)
    monkeypatch.setattr(tfb.MaskedAutoregressiveFlow, "_forward", refuse)
    step = tf.function(lambda x: vae.compute_loss(x, y_pred=vae(x, training=True)))
    for function in (
        lambda: step(x),
        lambda: vae.elbo(x, num_samples=3),
        lambda: vae.log_likelihood(x, num_samples=3),
        lambda: vae.compute_loss(x, y_pred=vae(x)),
    ):
        counted.clear()
        function()
        assert len(counted) == 2


def test_fit_under_xla_never_inverts(x, monkeypatch):
    vae = small_vae("iaf", "flow")
    vae.compile(keras.optimizers.SGD(0.1), jit_compile=True, steps_per_execution=1)
    monkeypatch.setattr(tfb.MaskedAutoregressiveFlow, "_forward", refuse)
    before = vae.get_weights()
    logs = vae.fit(x, batch_size=20, epochs=2, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert all((a != b).any() for a, b in zip(vae.get_weights(), before, strict=True) if a.ndim)


def loss_and_gradients(vae, x):
    with tf.GradientTape() as tape:
        loss = vae.compute_loss(x, y_pred=vae(x, training=True))
    return loss, tape.gradient(loss, [variable.value for variable in vae.trainable_variables])


@pytest.mark.parametrize(("posterior", "prior"), list(itertools.product(POSTERIORS, PRIORS)))
def test_gradient_reaches_every_weight(posterior, prior, x):
    vae = small_vae(posterior, prior)
    ids = [id(variable) for variable in vae.trainable_variables]
    assert len(ids) == len(set(ids))
    loss, gradients = loss_and_gradients(vae, x)
    assert np.isfinite(loss)
    for variable, gradient in zip(vae.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).max() > 0, variable.path


@pytest.mark.parametrize(
    ("posterior", "prior"), [("diagonal", "flow"), ("full", "vamp"), ("iaf", "mixture")]
)
def test_a_graph_has_the_same_gradients(posterior, prior, x):
    vae = small_vae(posterior, prior)
    start = vae.seed_generator.state.numpy()
    loss, gradients = loss_and_gradients(vae, x)
    vae.seed_generator.state.assign(start)
    again, in_graph = tf.function(lambda x: loss_and_gradients(vae, x))(x)
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    for a, b in zip(gradients, in_graph, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_training_learns_under_mixed_precision(x):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    vae = small_vae("iaf", "vamp")
    assert vae.encode(x).dtype == vae.prior().dtype == tf.float32
    assert {v.dtype for v in vae.trainable_variables} == {"float32"}
    vae.compile(keras.optimizers.Adam(1e-2))
    logs = vae.fit(np.repeat(x[:2], 50, 0), batch_size=20, epochs=8, verbose=0).history
    assert logs["elbo"][-1] > logs["elbo"][0] + 2


def test_means_are_used_everywhere(x):
    vae = small_vae("iaf")
    means = vae.encode(x).mean()
    np.testing.assert_allclose(vae.reconstruct(x), vae.decode(means).mean(), rtol=1e-5)
    np.testing.assert_allclose(vae.predict(x, verbose=0), vae.reconstruct(x), rtol=1e-4)


LOAD = """
import numpy as np, keras, tfp_vae
x = np.load("x.npy")
for name in ("a", "b"):
    vae = keras.saving.load_model(name + ".keras", safe_mode=True)
    q = vae.encode(x)
    np.savez(name + ".npz", q=q.log_prob(q.sample(seed=np.array([0, 3], "int32"))), mean=q.mean(),
             prior=vae.prior().log_prob(np.ones([4, 2], "float32")), count=len(vae.variables))
"""


def test_models_load_in_a_fresh_process(x, tmp_path, fresh_process, rng):
    models = {"a": small_vae("iaf", "vamp"), "b": small_vae("iaf", "flow", with_regularizer=False)}
    np.save(tmp_path / "x.npy", x)
    for name, vae in models.items():
        for layer in (vae.encoder, vae.prior):
            randomize(layer, rng, 0.3)
        config = json.loads(json.dumps(vae.get_config()))
        assert json.loads(json.dumps(VAE.from_config(config).get_config())) == config
        vae.save(tmp_path / f"{name}.keras")
    fresh_process(LOAD)
    for name, vae in models.items():
        with np.load(tmp_path / f"{name}.npz") as out:
            q = vae.encode(x)
            z = q.sample(seed=np.array([0, 3], "int32"))
            np.testing.assert_allclose(out["q"], q.log_prob(z), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(out["mean"], q.mean(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(out["prior"], vae.prior().log_prob(tf.ones([4, 2])), 1e-4)
            assert out["count"] == len(vae.variables)


def test_posterior_of_plain_data_is_its_layer():
    spec = {"name": "iaf", "num_flows": 3, "units": [5, 4], "context_size": 0}
    head = networks.dense_encoder(SHAPE, 2, posterior=json.loads(json.dumps(spec))).layers[-1]
    assert isinstance(head, layers.InverseAutoregressiveFlow)
    assert (head.num_flows, head.units, head.context_size, head.input_size) == (3, [5, 4], 0, 4)
    assert [network.right_to_left for network in head.networks] == [False, True, False]
    assert networks.conv_encoder((28, 28, 1), 2, posterior="iaf").layers[-1].input_size == 36


BAD = [
    pytest.param(lambda: layers.AutoregressiveNetwork(0), ValueError, "event_size.*got 0", id="0"),
    pytest.param(lambda: layers.AutoregressiveNetwork(2, [0]), ValueError, "units.*got 0",
                 id="units"),
    pytest.param(lambda: layers.AutoregressiveNetwork(2, context_size=-1), ValueError,
                 "context_size: expected an integer of at least 0, got -1", id="context size"),
    pytest.param(lambda: layers.AutoregressiveNetwork(2, [3], 1)(tf.zeros([4, 2])), ValueError,
                 "2 numbers and a context of 1, got 2 and 0", id="no context"),
    pytest.param(lambda: layers.InverseAutoregressiveFlow(2, num_flows=0), ValueError,
                 "num_flows.*got 0", id="no steps"),
    pytest.param(lambda: layers.InverseAutoregressiveFlow(2, context_size=3)(tf.zeros([4, 4])),
                 ValueError, "params_size = 7, got the shape .*4, 4", id="size of the input"),
    pytest.param(lambda: priors.AutoregressiveFlow(2, 0), ValueError, "num_flows.*got 0",
                 id="prior without steps"),
    pytest.param(lambda: VAE(networks.dense_encoder(SHAPE, 2, posterior="iaf"),
                             networks.dense_decoder(SHAPE, 2), priors.StandardNormal(2)),
                 NotImplementedError, "use_exact_kl=False", id="exact KL of the posterior"),
    pytest.param(lambda: VAE(networks.dense_encoder(SHAPE, 2), networks.dense_decoder(SHAPE, 2),
                             priors.AutoregressiveFlow(2)),
                 NotImplementedError, "use_exact_kl=False", id="exact KL to the prior"),
    pytest.param(lambda: networks.dense_encoder(SHAPE, 2, posterior={"num_flows": 2}), ValueError,
                 "posterior: expected one of diagonal, full, iaf, got None", id="no name"),
    pytest.param(lambda: networks.dense_encoder(SHAPE, 2, posterior={"name": "iaf", "flows": 2}),
                 ValueError, "posterior: expected arguments of 'iaf' among", id="unknown argument"),
    pytest.param(lambda: networks.dense_encoder(SHAPE, 2, posterior={"name": "full", "units": 2}),
                 ValueError, "posterior: expected arguments of 'full'", id="argument of another"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
