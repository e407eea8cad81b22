"""Figures that are no longer numbers: the run stops, says where it began, and keeps what it had."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import SHAPE, small_vae
from tests.runs import recipe
from tfp_vae import callbacks, evaluation, training
from tfp_vae.training import RunError


def test_loss_that_explodes_stops_and_keeps_the_run(images, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(RunError, match=r"expected a finite .* after epoch 0"):
        training.train(
            recipe(images, **{"optimizer": {"name": "SGD", "learning_rate": 1e20}}),
            out, verbose=0,
        )  # fmt: skip
    assert training.Run(out).epochs_done == 0


def steps(boundary, values):
    return {
        "name": "SGD",
        "learning_rate": {
            "schedule": "PiecewiseConstantDecay", "boundaries": [boundary], "values": values,
        },
    }  # fmt: skip


def test_the_batch_and_the_layer_are_named(images, tmp_path):
    """102 images make 7 batches. The step after update 10 is the first of the high rate, batch 5
    of epoch 2; its weights are huge, and batch 6 is the first to see them."""
    out, optimizer = tmp_path / "run", steps(10, [1e-3, 1e25])
    with pytest.raises(RunError) as caught:
        training.train(recipe(images, optimizer=optimizer), out, verbose=0)
    said = str(caught.value)
    assert said.startswith("epoch 2, batch 6: expected a finite "), said
    assert "encoder/" in said
    assert "kept as it was after epoch 1" in said
    assert training.Run(out).epochs_done == 1
    before = (out / "state.npz").read_bytes()
    with pytest.raises(RunError, match="epoch 2, batch 6: expected a finite"):
        training.resume(out, verbose=0)
    assert (out / "state.npz").read_bytes() == before
    assert training.resume(out, epochs=1, verbose=0).metrics()["epochs"] == 1


def test_weights_that_an_update_spoiled_are_named(images, tmp_path):
    """Keras adds up the parts of a schedule: 0 times infinity makes the first update NaN."""
    optimizer = steps(5, [1e-3, float("inf")])
    with pytest.raises(RunError, match=r"epoch 1, batch 2: .* the weights encoder/\S+ are not fin"):
        training.train(recipe(images, optimizer=optimizer), tmp_path / "run", verbose=0)


def test_fit_names_the_batches_and_the_weights(rng):
    vae, x = small_vae(), rng.random((40, *SHAPE), "float32")
    vae.compile(keras.optimizers.SGD(1e30), steps_per_execution=1)
    with pytest.raises(
        callbacks.NonFiniteError, match=r"epoch 1, batch 2: .* no longer finite"
    ) as e:
        vae.fit(x, batch_size=10, verbose=0, callbacks=[callbacks.StopAtNonFinite()])
    assert (e.value.epoch, e.value.batches) == (1, (2, 2))


def test_a_sound_training_is_not_stopped(rng):
    vae, x = small_vae(), rng.random((40, *SHAPE), "float32")
    vae.compile("adam")
    history = vae.fit(x, epochs=3, verbose=0, callbacks=[callbacks.StopAtNonFinite()]).history
    assert len(history["loss"]) == 3


def test_validation_that_is_no_number_stops_too(rng):
    """Of a likelihood that takes any pixels, some are too far away for a float."""
    vae = small_vae(likelihood="normal")
    vae.compile(keras.optimizers.SGD(0.0))
    x = rng.random((8, *SHAPE), "float32")
    far = np.full((8, *SHAPE), 1e30, "float32")
    stop = callbacks.StopAtNonFinite()
    with pytest.raises(callbacks.NonFiniteError, match=r"epoch 1: expected a finite val_") as seen:
        vae.fit(x, validation_data=far, epochs=2, verbose=0, callbacks=[stop])
    assert seen.value.batches is None


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_weights_that_no_figure_shows_are_refused(part, rng):
    """TensorFlow's rectifier makes 0 of NaN: of such a network all figures are finite."""
    vae, x = small_vae(), rng.integers(0, 2, (8, *SHAPE)).astype("float32")
    vae.compile(keras.optimizers.SGD(0.0))
    kernel = getattr(vae, part).weights[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    message = f"weights: expected finite ones, .* in 1 of .*{part}.*kernel"
    for measure in (
        lambda: vae.evaluate(x, verbose=0),
        lambda: vae.elbo(x),
        lambda: vae.log_likelihood(x, 5),
        lambda: evaluation.importance_sampling(vae, x, 5),
        lambda: evaluation.latent_usage(vae, x),
    ):
        with pytest.raises(ValueError, match=message):
            measure()
    stop = callbacks.StopAtNonFinite()
    with pytest.raises(callbacks.NonFiniteError, match="are no longer finite, the first"):
        vae.fit(x, verbose=0, callbacks=[stop])


def test_a_batch_of_validation_and_of_a_long_pass_is_named_as_it_is_counted():
    vae = small_vae()
    vae.compile("adam")
    good = np.zeros((24, *SHAPE), "float32")
    bad = good.copy()
    bad[17] = np.nan  # in the fifth batch of four images
    batches = [tf.data.Dataset.from_tensor_slices(each).batch(4) for each in (good, bad)]
    with pytest.raises(ValueError, match=r"among them in batch 2 of epoch 2\.$"):
        vae.fit(batches[1].repeat(), steps_per_epoch=3, epochs=3, verbose=0)
    with pytest.raises(ValueError, match=r"among them in batch 5 of validation_data\.$"):
        vae.fit(batches[0], validation_data=batches[1], verbose=0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(np.nan, "NaN or infinity among them in batch 3 of epoch 2", id="NaN"),
        pytest.param(
            2.0, r"values from 0 to 2 in batch 3 of epoch 2\. Bring", id="a little above 1"
        ),
        pytest.param(3.0, r"values from 0 to 3 in batch 3 of epoch 2\. Divide", id="above 1"),
    ],
)
def test_images_that_go_bad_are_named_by_batch_and_epoch(value, message):
    """From the second pass on, in the third batch."""
    passes = []

    def batches():
        passes.append(None)
        for number in range(5):
            batch = np.zeros((4, *SHAPE), "float32")
            batch[1, 2, 3] = value if (len(passes), number) == (2, 2) else 0
            yield batch

    data = tf.data.Dataset.from_generator(
        batches, output_signature=tf.TensorSpec((4, *SHAPE), tf.float32)
    )
    data = data.apply(tf.data.experimental.assert_cardinality(5))
    vae = small_vae()
    vae.compile("adam")
    with pytest.raises(ValueError, match=message):
        vae.fit(data, epochs=3, verbose=0)
