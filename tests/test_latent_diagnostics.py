"""The watch over latent dimensions: its figures, its warning, its files for TensorBoard."""

import csv
import itertools
import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import SHAPE, small_vae
from tfp_vae import callbacks, evaluation, objectives, priors


@pytest.fixture
def bars(rng):
    """Images of one bright row among six: a decoder needs the latents to tell which."""
    x = np.zeros((200, *SHAPE), "float32")
    x[np.arange(200), rng.integers(0, SHAPE[0], 200)] = 1
    return x


def fitted(vae, x, *, objective=None, epochs=1, rate=1e-2, more=(), **options):
    """The watch, and what Keras kept of the logs."""
    vae.compile(keras.optimizers.Adam(rate), objective)
    watch = callbacks.LatentDiagnostics(x[:50], **options)
    history = vae.fit(x, batch_size=20, epochs=epochs, verbose=0, callbacks=[watch, *more])
    return watch, history.history


# --------------------------------------------------------------------- figures


def test_each_row_is_what_latent_usage_says_of_the_model_of_that_epoch(bars):
    found = []

    class Again(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append((evaluation.latent_usage(self.model, bars[:50]), dict(logs)))

    watch, history = fitted(small_vae(), bars, epochs=3, more=[Again()])
    assert [row["epoch"] for row in watch.rows] == [1, 2, 3]
    for i, (usage, logs) in enumerate(found):
        row = watch.rows[i]
        np.testing.assert_allclose(row["variance"], usage.variance_of_means, rtol=1e-5)
        np.testing.assert_allclose(watch.kl_per_dimension[i], usage.kl, rtol=1e-5)
        units = [row["active_units"], history["active_units"][i], logs["active_units"]]
        assert units == [usage.num_active] * 3
    assert watch.kl_per_dimension.shape == (3, 2)
    assert len(set(watch.kl_per_dimension[:, 0])) == 3  # measured anew, not once
    json.dumps(watch.rows)


def test_the_model_trains_as_without_it(bars):
    watched = small_vae()
    fitted(watched, bars, epochs=2)
    keras.utils.set_random_seed(0)  # as before the first one
    plain = small_vae()
    plain.compile(keras.optimizers.Adam(1e-2))
    plain.fit(bars, batch_size=20, epochs=2, verbose=0)
    for a, b in zip(watched.variables, plain.variables, strict=True):  # seeds among them
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def test_the_graph_is_made_once(bars, monkeypatch):
    traced = []
    kind = evaluation.usage._kl_method
    monkeypatch.setattr(
        evaluation.usage, "_kl_method", lambda *both: traced.append(1) or kind(*both)
    )
    fitted(small_vae(), bars, epochs=3)
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("prior", "options"),
    [
        pytest.param(None, {"posterior": "iaf"}, id="posterior of flows"),
        pytest.param(
            lambda: priors.AutoregressiveFlow(2, num_flows=1, units=(4,)), {}, id="prior of flows"
        ),
    ],
)
def test_where_no_dimension_has_a_density_there_are_active_units_alone(
    bars, tmp_path, prior, options
):
    vae = small_vae(prior and prior(), use_exact_kl=False, **options)
    vae.compile("adam")
    watch, logs = callbacks.LatentDiagnostics(bars, log_dir=tmp_path), {"kl": 1.0}
    watch.set_model(vae)
    watch.on_train_begin()
    watch.on_epoch_end(0, logs)
    usage = evaluation.latent_usage(vae, bars, num_samples=10, seed=0)
    assert logs["active_units"] == usage.num_active
    (row,) = watch.rows
    assert row["kl"] is None
    np.testing.assert_allclose(row["variance"], usage.variance_of_means, rtol=1e-4)
    assert watch.kl_per_dimension.shape == (1, 2)
    assert np.isnan(watch.kl_per_dimension).all()
    assert {tag for tag, *_ in events(tmp_path / "latent")} == {
        "active_units", "collapsed", "variance_of_means",
    }  # fmt: skip


def test_what_comes_after_it_shows_the_active_units(bars, tmp_path, capsys):
    vae = small_vae()
    vae.compile("adam")
    more = [keras.callbacks.CSVLogger(tmp_path / "log.csv"), callbacks.EpochReport()]
    vae.fit(bars, verbose=1, callbacks=[callbacks.LatentDiagnostics(bars), *more])
    bar, line = capsys.readouterr().out.strip().splitlines()[-2:]
    assert "active_units: " in bar
    assert line.startswith("epoch 1: ")
    with (tmp_path / "log.csv").open() as file:
        assert next(csv.DictReader(file))["active_units"] in "012"


def test_a_model_that_is_lost_is_not_measured(bars):
    watch, history = fitted(small_vae(), bars, rate=float("inf"))
    assert np.isnan(history["active_units"]).all()
    assert watch.rows == []


# --------------------------------------------------------------------- collapse


def caught(vae, x, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        watch, history = fitted(vae, x, **options)
    return watch, history, [str(w.message) for w in said if "collapse" in str(w.message)]


def noise(rng):
    """Pixels that know nothing of one another: no latent variable is worth its KL."""
    return rng.integers(0, 2, (200, *SHAPE)).astype("float32")


def test_a_model_of_noise_collapses_and_is_warned_of_once(rng):
    watch, history, said = caught(small_vae(), noise(rng), epochs=8, rate=3e-2)
    assert history["active_units"][-1] == 0
    first = [row["collapsed"] for row in watch.rows].index(True)
    assert [row["collapsed"] for row in watch.rows[first:]] == [True] * (8 - first)
    (message,) = said
    for part in (f"epoch {first + 3})", "none of the 2", "LinearWarmUp", "free_bits", "ELBO"):
        assert part in message


def test_remedies_of_the_warning_can_be_given_to_compile():
    small_vae().compile("adam", objectives.ELBO(kl_weight=objectives.LinearWarmUp(10)))
    small_vae().compile("adam", objectives.ELBO(free_bits=0.1))


HEALTHY = [
    pytest.param(None, id="ELBO"),
    pytest.param(objectives.ELBO(kl_weight=0.0), id="autoencoder"),
]


@pytest.mark.parametrize("objective", HEALTHY)
def test_a_model_that_uses_its_latents_does_not(bars, objective):
    watch, history, said = caught(small_vae(), bars, objective=objective, epochs=15, rate=2e-2)
    assert history["active_units"][-1] > 0
    assert not watch.rows[-1]["collapsed"]
    assert said == []


def watched(weight, kl, epochs, rows=()):
    """The watch over an encoder that says the same of all images, and when it warned.

    Each epoch has ten steps.
    """
    vae, x = small_vae(), noise(np.random.default_rng(0))
    vae.encoder.set_weights([np.zeros_like(w) for w in vae.encoder.get_weights()])
    vae.compile("adam", objectives.ELBO(kl_weight=weight))
    watch, when = callbacks.LatentDiagnostics(x), []
    watch.rows = list(rows)
    watch.set_model(vae)
    watch.on_train_begin()
    for epoch in epochs:
        vae.optimizer.iterations.assign(10 * epoch)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            watch.on_epoch_end(epoch - 1, {"kl": 9.0, "val_kl": kl})
        when += [epoch] * len(said)
    assert {row["active_units"] for row in watch.rows} == {0}
    return watch, when


WHEN = [
    pytest.param(1.0, 0.019, [3], id="below 0.01 nats for each of two dimensions"),
    pytest.param(1.0, 0.021, [], id="above: not the prior, though the same for all images"),
    pytest.param(0.0, 0.0, [], id="weight 0: the KL cannot be the cause"),
    pytest.param(objectives.LinearWarmUp(40), 0.0, [6], id="whole weight from epoch 4 on"),
    pytest.param(objectives.LinearWarmUp(40, final=0.1), 0.0, [6], id="to what is not binary"),
    pytest.param(objectives.LinearWarmUp(70), 0.0, [], id="warm-up that has not ended"),
    pytest.param(
        objectives.CyclicalWarmUp(20, cycles=2, rising=0.4),
        0.0,
        [5],
        id="cycles",
    ),
    pytest.param(objectives.LinearWarmUp(10, final=0.0), 0.0, [], id="warm-up to 0"),
]


@pytest.mark.parametrize(("weight", "kl", "expected"), WHEN)
def test_the_third_epoch_in_a_row_of_no_use_at_full_weight_is_warned_of(weight, kl, expected):
    assert watched(weight, kl, range(1, 7))[1] == expected


def test_a_fit_that_goes_on_warns_where_one_without_a_stop_would():
    first, _ = watched(1.0, 0.0, [1, 2])
    second, when = watched(1.0, 0.0, [3], first.rows)
    assert when == [3]
    assert watched(1.0, 0.0, [4], second.rows)[1] == []


# --------------------------------------------------------------------- TensorBoard


def events(folder):
    """(tag, step, plugin, value) of all event files in a folder, which TensorFlow reads itself."""
    paths = sorted(map(str, folder.glob("events.out.tfevents.*")))
    found = []
    for record in tf.data.TFRecordDataset(paths):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            plugin = value.metadata.plugin_data.plugin_name
            found.append((value.tag, event.step, plugin, tf.make_ndarray(value.tensor)))
    return found


def test_event_files_hold_the_units_and_histograms_of_the_dimensions(bars, tmp_path):
    vae = small_vae(latent_dim=7)
    watch, _ = fitted(vae, bars, epochs=2, log_dir=tmp_path)
    found = {(tag, step): rest for tag, step, *rest in events(tmp_path / "latent")}
    of_dimensions = [f"kl_per_dimension/{j}" for j in range(7)]
    tags = ["active_units", "collapsed", "variance_of_means", "kl_per_dimension", *of_dimensions]
    assert set(found) == set(itertools.product(tags, [0, 1]))
    for step, row in enumerate(watch.rows):
        for tag, value in zip(of_dimensions, row["kl"], strict=True):
            assert found[tag, step] == ["scalars", np.float32(value)]
        assert found["collapsed", step] == ["scalars", row["collapsed"]]
        plugin, value = found["active_units", step]
        assert (plugin, value) == ("scalars", row["active_units"])
        plugin, value = found["kl_per_dimension", step]
        assert plugin == "histograms"
        left, right, count = value.T
        kl = np.array(row["kl"])
        np.testing.assert_allclose([left[0], right[-1]], [kl.min(), kl.max()])
        np.testing.assert_array_equal(left[1:], right[:-1])
        inside = (kl >= left[:, None]) & (kl < right[:, None])
        inside[-1] |= kl == right[-1]
        np.testing.assert_array_equal(count, inside.sum(1))


# --------------------------------------------------------------------- bad input

BAD = [
    pytest.param(lambda x: x[:1], {}, "at least 2 images", id="one image"),
    pytest.param(lambda x: x[:, :3], {}, "images: expected the shape", id="shape"),
    pytest.param(lambda x: x * 255, {}, r"in \[0, 1\]", id="range"),
    pytest.param(lambda x: x, {"threshold": -1.0}, "threshold: .* -1.0", id="threshold"),
    pytest.param(lambda x: x, {"num_samples": 0}, "num_samples: .* 0", id="samples"),
]


@pytest.mark.parametrize(("change", "options", "message"), BAD)
def test_bad_input_is_refused_before_the_first_step(bars, change, options, message):
    vae = small_vae()
    vae.compile("adam")
    before = vae.get_weights()
    watch = callbacks.LatentDiagnostics(change(bars), **options)
    with pytest.raises(ValueError, match=message):
        vae.fit(bars, verbose=0, callbacks=[watch])
    for a, b in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_model_is_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    watch = callbacks.LatentDiagnostics(np.zeros((4, 2), "float32"))
    with pytest.raises(TypeError, match=r"expected a tfp_vae\.VAE, got Sequential"):
        model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=[watch])
