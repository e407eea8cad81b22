"""Models that are told the class: closed forms, labels of every kind, bad input."""

import dataclasses
import functools
import json
import shutil

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image

from tests.models import CLASSES, SHAPE, FactorAnalysis, conditional, small_vae
from tfp_vae import (
    VAE,
    _support,
    cli,
    datasets,
    evaluation,
    layers,
    networks,
    plotting,
    priors,
    recipes,
    training,
)
from tfp_vae.recipes import RecipeError


@functools.cache
def shared():
    """One for all tests that only look at it."""
    vae = conditional()
    vae.compile("adam")
    return vae


@functools.cache
def of_class(label):
    return shared().for_label(label)


@pytest.fixture
def pair(rng):
    """12 binary images and their labels."""
    return rng.integers(0, 2, (12, *SHAPE)).astype("float32"), rng.integers(0, CLASSES, 12)


class OffsetAnalysis(FactorAnalysis):
    """Factor analysis whose mean depends on the class: ``x = W z + mu + V y + sigma e``."""

    def __init__(self, rng):
        super().__init__(rng)
        self.V = 2 * rng.normal(size=(CLASSES, self.dim))

    def conditional_vae(self, posterior_scale=1.0):
        plain = self.vae(posterior_scale)
        d, prior = self.latent_dim, priors.StandardNormal(self.latent_dim)
        head = layers.MultivariateNormalTriL(
            d, activity_regularizer=layers.KLDivergenceRegularizer(prior)
        )
        size = head.params_size(d)
        image, latent = keras.Input((self.dim,)), keras.Input((d,))
        label = keras.Input((CLASSES,))
        join = keras.layers.Concatenate
        dense = keras.layers.Dense(size)
        encoder = keras.Model([image, label], head(dense(join()([image, label]))))
        kernel, bias = plain.encoder.layers[0].get_weights()
        of_label = np.zeros((CLASSES, size))
        of_label[:, :d] = -self.V @ self.gain.T
        dense.set_weights([np.concatenate([kernel, of_label]), bias])
        dense = keras.layers.Dense(2 * self.dim)
        pixels = layers.IndependentNormal(self.dim)(dense(join()([latent, label])))
        decoder = keras.Model([latent, label], pixels)
        kernel, bias = plain.decoder.layers[0].get_weights()
        of_label = np.concatenate([self.V, np.zeros_like(self.V)], 1)
        dense.set_weights([np.concatenate([kernel, of_label]), bias])
        return VAE(encoder, decoder, prior, seed=0)

    def draw(self, rng, n):
        y = rng.integers(0, CLASSES, n)
        return (self.sample(rng, n) + self.V[y]).astype("float32"), y

    def log_likelihood(self, x, y):
        return scipy.stats.multivariate_normal.logpdf(x - self.V[y], self.mu, self.cov)


def test_log_likelihood_and_elbo_are_those_of_the_class(rng):
    model = OffsetAnalysis(rng)
    vae, (x, y) = model.conditional_vae(), model.draw(rng, 30)
    expected = model.log_likelihood(x, y)
    # With the exact posterior every importance weight is p(x|y).
    np.testing.assert_allclose(vae.log_likelihood((x, y), 3, seed=0), expected, rtol=1e-4)
    found = evaluation.importance_sampling(vae, (x, y), 3, seed=0)
    np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-4)
    np.testing.assert_allclose(vae.elbo((x, y), 20_000, seed=0), expected, atol=0.1)
    other = vae.log_likelihood((x, (y + 1) % CLASSES), 3, seed=0)
    assert np.mean(other) < np.mean(expected) - 5


def test_draws_of_a_class_have_its_mean(rng):
    model = OffsetAnalysis(rng)
    vae = model.conditional_vae()
    x = np.asarray(vae.sample(4000, seed=1, labels=2))
    error = x.std(0, ddof=1) / np.sqrt(len(x))
    assert (np.abs(x.mean(0) - model.mu - model.V[2]) < 4 * error).all()


@pytest.mark.parametrize("evaluate", [
    pytest.param(lambda m, x: m.elbo(x, 2, seed=0), id="elbo"),
    pytest.param(lambda m, x: m.log_likelihood(x, 5, seed=0), id="log likelihood"),
    pytest.param(lambda m, x: m.reconstruct(x), id="reconstruct"),
    pytest.param(lambda m, x: evaluation.importance_sampling(m, x, 5, seed=0).log_likelihood,
                 id="importance sampling"),
    pytest.param(lambda m, x: evaluation.latent_usage(m, x, seed=0).kl, id="latent usage"),
    pytest.param(lambda m, x: evaluation.kl_decomposition(m, x, seed=0).kl.mean, id="kl"),
    pytest.param(lambda m, x: evaluation.annealed_importance_sampling(
        m, x, num_steps=3, seed=0).log_likelihood, id="annealing"),
    pytest.param(lambda m, x: evaluation.rate_distortion(
        m, x, betas=[1.0], num_steps=2, num_samples=4, seed=0).rate, id="rate distortion"),
    pytest.param(lambda m, x: evaluation.aggregate_posterior(
        m, x, num_draws=5, seed=0).stddev, id="aggregate"),
    pytest.param(lambda m, x: evaluation.anomaly_scores(
        m, x, x, num_samples=5, seed=0).log_likelihood, id="anomaly"),
])  # fmt: skip
def test_the_model_of_one_class_is_the_conditional_one_at_that_label(evaluate, pair):
    x, vae = pair[0], shared()
    np.testing.assert_array_equal(evaluate(vae, (x, np.full(len(x), 1))), evaluate(of_class(1), x))


@pytest.mark.parametrize("numbers", [3_200_000, 300], ids=["one piece", "several"])
@pytest.mark.parametrize("evaluate", [
    pytest.param(lambda m, x: m.elbo(x, 2, seed=0), id="elbo"),
    pytest.param(lambda m, x: m.log_likelihood(x, 5, seed=0, verbose=0), id="log likelihood"),
    pytest.param(lambda m, x: evaluation.annealed_importance_sampling(
        m, x, num_steps=3, seed=0, verbose=0).log_likelihood, id="annealing"),
    pytest.param(lambda m, x: evaluation.amortization_gap(
        m, x, num_steps=3, num_samples=4, seed=0, verbose=0).refined_elbo, id="gap"),
    pytest.param(lambda m, x: evaluation.anomaly_scores(
        m, x, x, num_samples=5, seed=0, verbose=0).log_likelihood, id="anomaly"),
])  # fmt: skip
def test_each_image_is_measured_with_its_own_label(evaluate, numbers, pair, monkeypatch):
    monkeypatch.setattr("tfp_vae.vae.chunks.NUMBERS_AT_ONCE", numbers)
    x, y = pair
    found = np.asarray(evaluate(shared(), (x, y)))
    for label in range(CLASSES):
        alone = np.asarray(evaluate(of_class(label), x))
        assert (y == label).any()
        np.testing.assert_allclose(found[y == label], alone[y == label], rtol=1e-4)


def test_the_model_of_one_class_takes_what_others_refuse(pair, tmp_path):
    x, one = pair[0], of_class(1)
    assert one.num_classes is None
    assert one.interpolate(x[0], x[1], 3).shape == (3, *SHAPE)
    assert one.impute(x, x > 0.5, num_steps=2, seed=0).mean.shape == x.shape
    assert one.joint_distribution().sample(seed=0).x.shape == SHAPE
    one.save(tmp_path / "one.keras")
    loaded = keras.saving.load_model(tmp_path / "one.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=0), one.elbo(x, seed=0))


def test_models_of_one_class_draw_from_one_stream():
    seven, three = (shared().for_label(2) for _ in range(2))
    draws = [np.asarray(vae.sample(3, mean=True)) for vae in (seven, seven, three)]
    assert len({each.tobytes() for each in draws}) == 3


def test_evaluations_without_labels_say_how_to_do_without(pair):
    x, mask = pair[0], np.zeros(SHAPE, bool)
    for evaluate in (evaluation.imputation_error, evaluation.imputation_errors):
        more = () if evaluate is evaluation.imputation_error else (x,)
        with pytest.raises(ValueError, match=r"conditional one of 3 classes. vae.for_label\(y\)"):
            evaluate(shared(), pair, mask, *more)
    with pytest.raises(ValueError, match=r"images: expected a pair \(images, labels\)"):
        evaluation.anomaly_scores(shared(), pair, x, num_samples=5)
    one = evaluation.anomaly_scores(shared(), (x, 2), pair, num_samples=5, seed=0)
    every = evaluation.anomaly_scores(
        shared(), (x, np.full(len(x), 2)), pair, num_samples=5, seed=0
    )
    np.testing.assert_array_equal(one.p_value, every.p_value)


def test_labels_may_be_integers_vectors_or_one_for_all(pair):
    (x, y), vae = pair, shared()
    one_hot = np.eye(CLASSES, dtype="float32")[y]
    expected = vae.elbo((x, y), seed=0)
    np.testing.assert_array_equal(vae.elbo((x, one_hot), seed=0), expected)
    np.testing.assert_array_equal(vae.elbo((x, tf.constant(y, tf.uint8)), seed=0), expected)
    np.testing.assert_array_equal(
        vae.encode((x, 2)).mean(), vae.encode((x, np.full(len(x), 2))).mean()
    )


def test_latent_vectors_have_any_leading_dimensions(pair, rng):
    vae, y = shared(), pair[1]
    z = rng.normal(size=(4, 12, 2)).astype("float32")
    many = vae.decode((z, y))
    assert many.batch_shape == (4, 12)
    np.testing.assert_allclose(many.mean()[2], vae.decode((z[2], y)).mean(), atol=1e-6)
    np.testing.assert_allclose(vae.decode((z[2, 3], y[3])).mean(), many.mean()[2, 3], atol=1e-6)


def as_given(kind, x, y):
    if kind == "tuple":
        return {"x": (x, y)}
    if kind == "two arguments":
        return {"x": x, "y": y}
    return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(5)}


def test_fit_and_evaluate_take_labels_in_every_form(pair):
    def history(kind):
        vae = conditional(seed=3)
        weights = np.random.default_rng(0)
        vae.set_weights([0.1 * weights.normal(size=w.shape) for w in vae.get_weights()])
        vae.compile(keras.optimizers.SGD(0.01))
        given = as_given(kind, *pair)
        of_arrays = {} if kind == "data set" else {"batch_size": 5}
        validation = given["x"] if kind == "data set" else pair
        found = vae.fit(
            **given, **of_arrays, shuffle=False, epochs=2, verbose=0, validation_data=validation
        ).history
        found["evaluated"] = vae.evaluate(**given, **of_arrays, verbose=0)
        return found

    expected = history("tuple")
    assert "val_elbo" in expected
    for kind in ("two arguments", "data set"):
        found = history(kind)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=f"{kind}: {name}")


def test_labels_may_have_a_dimension_of_their_own(pair):
    """As Keras' CIFAR-10 has them, or as vectors of integers; in turn, on one model."""
    x, y = pair
    vae = conditional(seed=3)
    vae.compile(keras.optimizers.SGD(0.0))
    expected = vae.encode(pair).mean().numpy()
    forms = [
        y,
        y[:, np.newaxis],
        np.eye(CLASSES, dtype=int)[y],
        np.eye(CLASSES, dtype="float32")[y],
    ]
    for form in forms:
        np.testing.assert_array_equal(vae.encode((x, form)).mean(), expected)
        vae.fit(x, form, batch_size=5, verbose=0)
        vae.fit(tf.data.Dataset.from_tensor_slices((x, form)).batch(5), verbose=0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_label_vectors_that_are_not_finite_are_refused(pair, value):
    x, y = pair
    vectors = np.eye(CLASSES, dtype="float32")[y]
    vectors[3, 0] = value
    vae = conditional()
    vae.compile("adam")
    data = tf.data.Dataset.from_tensor_slices((x, vectors)).batch(5)
    for call in (
        lambda: vae.fit(x, vectors, verbose=0),
        lambda: vae.fit(data, verbose=0),
        lambda: vae.log_likelihood((x, vectors), 3),
        lambda: vae.sample(12, labels=vectors),
    ):
        with pytest.raises(ValueError, match="labels: expected finite vectors"):
            call()


def test_validation_without_labels_is_refused(pair):
    vae = conditional()
    vae.compile("adam")
    with pytest.raises(ValueError, match="validation_data: expected images and labels"):
        vae.fit(*pair, validation_data=pair[0], verbose=0)


def test_the_logs_are_the_elbo_given_the_labels(pair):
    vae = shared()
    # Of one batch, and of an exact KL, so that only the draw of z differs.
    logs = vae.evaluate(pair, batch_size=12, return_dict=True, verbose=0)
    kl = [vae.encode(pair).kl_divergence(vae.prior())]
    assert logs["kl"] == pytest.approx(float(np.mean(kl)), rel=1e-5)
    draws = np.stack([vae.elbo(pair, seed=seed) for seed in range(40)]).mean(1)
    assert abs(logs["elbo"] - draws.mean()) < 4 * draws.std(ddof=1)


def test_sample_weights_weigh_images_with_labels(pair):
    vae = shared()
    weights = np.r_[np.zeros(6), np.ones(6)].astype("float32")
    logs = vae.evaluate(pair, sample_weight=weights, batch_size=12, return_dict=True, verbose=0)
    kl = np.asarray(vae.encode(pair).kl_divergence(vae.prior()))
    assert logs["kl"] == pytest.approx(kl[6:].mean(), rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_what_the_class_says_is_learnt_by_the_decoder(jit_compile, rng):
    patterns = rng.integers(0, 2, (CLASSES, *SHAPE)).astype("float32")
    y = np.arange(300) % CLASSES
    vae = conditional()
    vae.compile(keras.optimizers.Adam(0.02), jit_compile=jit_compile)
    logs = vae.fit(patterns[y], y, batch_size=30, epochs=20, verbose=0).history
    for label in range(CLASSES):
        means = np.asarray(vae.sample(5, seed=0, mean=True, labels=label))
        assert np.abs(means - patterns[label]).max() < 0.2
    assert logs["kl"][-1] < 0.5  # nothing is left for z to say


def test_predict_gives_reconstructions(pair):
    vae = shared()
    np.testing.assert_allclose(vae.predict(pair, verbose=0), vae.reconstruct(pair), atol=1e-6)


@pytest.mark.parametrize("prior", [
    pytest.param(None, id="standard normal"),
    pytest.param(lambda: priors.AutoregressiveFlow(2, 1, (4,), seed=0), id="flow"),
])  # fmt: skip
def test_it_loads_as_it_was(prior, pair, tmp_path):
    options = {} if prior is None else {"prior": prior(), "use_exact_kl": False}
    vae = conditional(**options)
    vae.compile("adam")
    vae.fit(pair, verbose=0)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert loaded.num_classes == CLASSES
    np.testing.assert_array_equal(loaded.elbo(pair, seed=0), vae.elbo(pair, seed=0))
    loaded.fit(pair, verbose=0)


def test_pictures(pair):
    vae = shared()
    figure = plotting.classes(vae, 4, class_names=["a", "b", "c"])
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b", "c"]
    z = vae.prior().sample(4, seed=_support.stateless_seed(0, None))
    shown = figure.axes[0].get_images()[0].get_array()
    height, width, _ = SHAPE
    cell = shown[2 * height : 3 * height, width : 2 * width]  # third style, second class
    expected = vae.decode((z[2], 1)).mean()[..., 0]
    np.testing.assert_allclose(np.squeeze(cell), expected, atol=1e-6)
    plotting.samples(vae, 2, 2)
    plotting.reconstructions(vae, pair, 5)
    plotting.latent_scatter(vae, pair, pair[1])


def test_a_list_of_images_and_labels_is_a_pair(pair):
    vae = conditional()
    vae.compile("sgd")
    assert len(vae.fit(list(pair), verbose=0).history["loss"]) == 1
    found = [vae.evaluate(kind(pair), verbose=0, return_dict=True) for kind in (list, tuple)]
    assert found[0].keys() == found[1].keys()


@pytest.mark.parametrize(("call", "message"), [
    pytest.param(lambda v, x, y: v.encode(x), r"images: expected a pair \(images, labels\)",
                 id="no labels"),
    pytest.param(lambda v, x, y: v.encode((x, y[:3])), r"labels: .* shape \(12,\), got .* \(3,\)",
                 id="fewer labels"),
    pytest.param(lambda v, x, y: v.encode((x, y + 1)), "classes from 0 to 2, got 3", id="unknown"),
    pytest.param(lambda v, x, y: v.encode((x, y - 5)), "classes from 0 to 2, got -", id="negative"),
    pytest.param(lambda v, x, y: v.encode((x, y.astype("float32"))), "labels: expected integers",
                 id="floats"),
    pytest.param(lambda v, x, y: v.decode(np.zeros((3, 2))), "latent vectors: expected a pair",
                 id="latents alone"),
    pytest.param(lambda v, x, y: v.decode((np.zeros((3, 2)), [0, 1])), "labels: expected one",
                 id="labels for other latents"),
    pytest.param(lambda v, x, y: v.sample(1, labels=[0, 1, 2]), "labels: expected one",
                 id="labels for one draw"),
    pytest.param(lambda v, x, y: v.encode((x[:1], y[:2])), "labels: ", id="labels for one image"),
    pytest.param(lambda v, x, y: v.sample(2), "labels: expected some of the 3", id="sample"),
    pytest.param(lambda v, x, y: v.sample(2, labels=7), "classes from 0 to 2, got 7",
                 id="sample of no class"),
    pytest.param(lambda v, x, y: v.fit(x, verbose=0), "x: expected images and labels", id="fit"),
    pytest.param(lambda v, x, y: v.fit(x, y[:3], verbose=0), "one for each of the 12 images",
                 id="fit with fewer labels"),
    pytest.param(lambda v, x, y: v.fit(x, y + 1, verbose=0), "classes from 0 to 2, got 3",
                 id="fit of no class"),
    pytest.param(lambda v, x, y: v.fit(datasets.pipeline(x, y + 1), verbose=0),
                 "labels: expected classes from 0 to 2, got", id="batches of no class"),
    pytest.param(lambda v, x, y: v.fit(datasets.pipeline(x), verbose=0),
                 "got batches of images alone", id="batches without labels"),
    pytest.param(lambda v, x, y: v.impute(x, x > 0), "impute: .*for_label", id="impute"),
    pytest.param(lambda v, x, y: v.interpolate(x[0], x[1]), "interpolate: .*for_label",
                 id="interpolate"),
    pytest.param(lambda v, x, y: v.joint_distribution(), "joint_distribution: .*for_label",
                 id="joint"),
    pytest.param(lambda v, x, y: v.for_label([0, 1]), "label: expected one", id="two classes"),
    pytest.param(lambda v, x, y: v.for_label(0).for_label(0), "for_label: expected a conditional",
                 id="for_label twice"),
    pytest.param(lambda v, x, y: plotting.classes(v, 0), "styles", id="no styles"),
    pytest.param(lambda v, x, y: v.fit(x, y, class_weight={0: 2.0}), "give sample_weight",
                 id="class weights"),
    pytest.param(lambda v, x, y: v.fit((x[:3], np.array([0.0, 1.0, 2.0]))),
                 "expected integers, got 3 float64 of 3 images", id="floats of either meaning"),
    pytest.param(lambda v, x, y: v.fit(iter([(x, y)])), "x: expected arrays or a tf.data.Dataset",
                 id="generator"),
    pytest.param(lambda v, x, y: plotting.classes(v, class_names=["a"]), "column_labels",
                 id="fewer names"),
    pytest.param(lambda v, x, y: VAE(v.encoder, small_vae().decoder), "got 3 and none",
                 id="decoder without labels"),
    pytest.param(lambda v, x, y: conditional(
        prior=priors.VampPrior(2, SHAPE, 3), use_exact_kl=False), "VampPrior: .* images alone",
        id="vamp prior"),
    pytest.param(lambda v, x, y: networks.conditional_encoder(
        networks.dense_encoder, SHAPE, 2, 0), "num_classes", id="no classes"),
])  # fmt: skip
def test_bad_input(call, message, pair):
    with pytest.raises(ValueError, match=message):
        call(shared(), *pair)


@pytest.mark.parametrize(("call", "message"), [
    pytest.param(lambda v, x: v.sample(2, labels=1), "labels: expected none", id="sample"),
    pytest.param(lambda v, x: v.for_label(1), "expected a conditional model", id="for_label"),
    pytest.param(lambda v, x: plotting.classes(v), "classes: expected a cond", id="picture"),
])  # fmt: skip
def test_a_model_without_labels_says_so(call, message, pair):
    with pytest.raises(ValueError, match=message):
        call(small_vae(), pair[0])


def test_a_model_without_labels_drops_them(pair):
    vae = small_vae()
    vae.compile("adam")
    vae.fit(pair, verbose=0)
    assert vae.num_classes is None


# --------------------------------------------------------------------- runs and the command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = recipes.get("cvae-mnist-conditional").replace(
        dataset="digits", epochs=1, latent_dim=2, batch_size=50,
        encoder={"network": "dense_encoder", "units": [16]},
        decoder={"network": "dense_decoder", "units": [16]},
        pictures=["classes", "interpolation"],
    )  # fmt: skip
    return training.train(recipe, tmp_path_factory.mktemp("runs") / "a", verbose=0)


def test_a_run_on_labelled_images_is_resumed_as_if_never_stopped(run, tmp_path):
    whole = training.train(run.recipe.replace(epochs=2), tmp_path / "whole", verbose=0)
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    resumed = training.resume(folder, epochs=2, verbose=0)
    for one, other in zip(
        whole.load_model().get_weights(), resumed.load_model().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert whole.history()["test_elbo"] == resumed.history()["test_elbo"]
    assert (resumed.folder / "classes.png").exists()
    assert not (resumed.folder / "interpolation.png").exists()


def test_a_run_goes_on_with_its_own_labels_alone(run):
    data = run.load_data()
    other = dataclasses.replace(data, y_train=data.y_train[::-1])
    with pytest.raises(training.RunError, match="expected the labels that it was trained with"):
        training.resume(run.folder, epochs=2, data=other, verbose=0)


def test_the_figures_of_a_run_are_those_given_the_labels(run):
    data, metrics = datasets.load("digits"), run.metrics()
    x = datasets.binarize(data.x_test, "threshold")
    found = evaluation.importance_sampling(run.load_model(), (x, data.y_test), 100, seed=0)
    assert metrics["log_likelihood"] == pytest.approx(found.mean_log_likelihood.mean, abs=1e-4)
    assert metrics["validation_images"] == 149


def test_the_command_draws_a_chosen_class(run, tmp_path, capsys):
    out = tmp_path / "x.npy"
    assert cli.main(["sample", str(run.folder), "-n", "3", "--label", "4", "--out", str(out)]) == 0
    expected = run.load_model().sample(3, seed=0, mean=True, labels=4)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-6)
    for command in (["evaluate", "--images", "5", "--samples", "2"], ["reconstruct"], ["encode"]):
        out = ["--out", str(tmp_path / "y.npz")] if command == ["encode"] else []
        out = ["--out", str(tmp_path / "y.npy")] if command == ["reconstruct"] else out
        assert cli.main([command[0], str(run.folder), *command[1:], *out]) == 0
    capsys.readouterr()
    assert cli.main(["sample", str(run.folder), "--label", "10", "--out", "x.npy"]) == 1
    assert "labels: expected classes from 0 to 9, got 10" in capsys.readouterr().err


def test_the_command_takes_the_model_of_one_class_where_it_must(run, tmp_path, capsys):
    folder, out = str(run.folder), str(tmp_path / "x.npy")
    few = ["--images", "2", "--steps", "2", "--samples", "2"]
    for command in (["interpolate", folder, "--to", "5"], ["impute", folder, *few]):
        assert cli.main([*command, "--label", "3", "--out", out]) == 0
        assert np.load(out).shape[1:] == (28, 28, 1)
        assert cli.main([*command, "--out", out]) == 1
        said = capsys.readouterr().err
        assert "--label: expected one of 10 classes of this model, got none." in said


def test_interpolated_are_images_of_the_class_that_was_asked_for(run, tmp_path):
    out = tmp_path / "x.npy"
    assert cli.main(["interpolate", str(run.folder), "--label", "3", "--out", str(out)]) == 0
    opened = training.open_model(run.folder)
    ends = opened.test[opened.data.y_test == 3][:2]
    expected = opened.vae.for_label(3).interpolate(*ends, 10)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-6)


def folder_of_classes(folder, images_of):
    for name, images in images_of.items():
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(np.uint8(255 * image[..., 0])).save(folder / name / f"{i}.png")
    return folder


def test_classes_of_other_images_are_found_by_their_names(run, tmp_path):
    """Their folder numbers 3 and 8 as 0 and 1."""
    data = run.load_data()
    images_of = {str(c): data.x_test[data.y_test == c][:4] for c in (3, 8)}
    folder = folder_of_classes(tmp_path / "new", images_of)
    opened = training.open_model(run.folder, dataset=str(folder))
    assert set(opened.data.y_test) <= {3, 8}
    assert opened.data.class_names == tuple("0123456789")
    other = datasets.load(folder, test_fraction=0.5)
    _, labels = opened.inputs(other.x_test, other)
    np.testing.assert_array_equal(labels, np.array([3, 8])[other.y_test])
    strange = folder_of_classes(tmp_path / "strange", {"x": images_of["3"], "8": images_of["8"]})
    with pytest.raises(training.RunError, match=r"classes of the run, 0, 1, .*, got x"):
        training.open_model(run.folder, dataset=str(strange))


def test_a_run_of_before_has_no_names_and_takes_numbers(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    about = json.loads((folder / "run.json").read_text())
    del about["data"]["class_names"], about["sha256"]
    (folder / "run.json").write_text(json.dumps(about))
    images = run.load_data().x_test[:4]
    other = folder_of_classes(tmp_path / "new", {"a": images, "b": images})
    assert set(training.open_model(folder, dataset=str(other)).data.y_test) <= {0, 1}


def test_imputed_are_images_of_the_class_that_was_asked_for(run, tmp_path):
    out = tmp_path / "x.npy"
    options = ["--label", "3", "--images", "4", "--steps", "2", "--samples", "2", "--out", str(out)]
    assert cli.main(["impute", str(run.folder), *options]) == 0
    opened = training.open_model(run.folder)
    threes = opened.test[opened.data.y_test == 3][:4]
    np.testing.assert_array_equal(np.load(out)[:, :14], threes[:, :14])  # what was not hidden


def test_pairs_may_be_lists(rng):
    vae = conditional()
    x, y = rng.integers(0, 2, (4, *SHAPE)).astype("float32"), np.arange(4) % CLASSES
    pair = [x, y]
    one, other = (
        evaluation.anomaly_scores(vae, given, given, num_samples=3, seed=0, verbose=0)
        for given in (pair, tuple(pair))
    )
    np.testing.assert_array_equal(one.log_likelihood, other.log_likelihood)
    vae.compile("adam")
    assert np.isfinite(vae.train_on_batch([x, np.eye(CLASSES, dtype="float32")[y]])).all()
    weights = [1.0, 2.0, 1.0, 1.0]
    vae.fit(x, y, validation_data=(x, y, weights), verbose=0)


def test_the_command_scores_images_given_their_labels(run, tmp_path):
    out = tmp_path / "scores.npz"
    options = ["--images", "5", "--samples", "3", "--seed", "1", "--out", str(out)]
    assert cli.main(["anomaly", str(run.folder), *options]) == 0
    opened = training.open_model(run.folder)
    (x, y), (normal, labels) = opened.test_inputs(5), opened.held_out_inputs()
    assert len(normal) == len(labels) == 149
    vae = opened.vae
    found = evaluation.anomaly_scores(
        vae, (x, y), (normal, labels), num_samples=3, seed=1, verbose=0
    )
    with np.load(out) as scores:
        np.testing.assert_allclose(scores["log_likelihood"], found.log_likelihood, rtol=1e-5)
        np.testing.assert_array_equal(scores["label"], y)


def test_images_without_labels_are_refused_before_a_folder_is_made(tmp_path):
    images = np.zeros((20, 8, 8), "uint8")
    np.savez(tmp_path / "x.npz", x_train=images, x_test=images)
    recipe = recipes.get("cvae-mnist-conditional").replace(
        dataset=str(tmp_path / "x.npz"), encoder={"network": "dense_encoder"},
        decoder={"network": "dense_decoder"},
    )  # fmt: skip
    with pytest.raises(RecipeError, match="conditional: expected images with labels"):
        training.train(recipe, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()
