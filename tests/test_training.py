"""Runs: what a folder holds, and that any stop is as if it had never been."""

import dataclasses
import json
import shutil
import types

import keras
import numpy as np
import pytest
from PIL import Image

from tests.models import conditional, small_vae
from tests.runs import SETTINGS, assert_same_run, contents, recipe
from tests.test_latent_diagnostics import events
from tfp_vae import datasets, evaluation, recipes, training
from tfp_vae.recipes import RecipeError
from tfp_vae.training import RunError


def test_folder_holds_what_it_promises(images, tmp_path):
    pictures = ["manifold", "scatter", "reconstructions", "samples", "interpolation"]
    finished = training.train(recipe(images, pictures=pictures), tmp_path / "run", verbose=0)
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {
        "run.json", "history.csv", "model.keras", "last.keras", "encoder.keras", "decoder.keras",
        "state.npz", "metrics.json", "training.gif", "history.png", "manifold.png", "scatter.png",
        "reconstructions.png", "samples.png", "interpolation.png", "pictures", ".lock",
        "latent.csv", "latent.png",
    }  # fmt: skip
    about = json.loads((finished.folder / "run.json").read_text())
    assert recipes.Recipe.from_dict(about["recipe"]) == finished.recipe
    assert about["versions"]["keras"] == keras.__version__
    assert [path.name for path in finished.pictures()] == [f"epoch-000{i}.png" for i in range(4)]
    assert finished.picture(2).name == "epoch-0002.png"
    history = finished.history()
    assert history["epoch"] == [1, 2, 3]
    for part in ("", "val_", "test_"):
        elbo = np.array(history[f"{part}reconstruction"]) - history[f"{part}kl"]
        np.testing.assert_allclose(history[f"{part}elbo"], elbo, rtol=1e-4)


def test_more_epochs_leave_the_run_what_it_was(begun, tmp_path):
    """Its files know it by its settings as they were written, in whatever spelling."""
    run = training.Run(shutil.copytree(begun.folder, tmp_path / "run"))
    before = run.identity
    run.about["recipe"].pop("dtype_policy")  # as if written before there was such a setting
    without = run.identity
    run.change_epochs(9)
    run.change_dataset("elsewhere.npz")
    again = training.Run(run.folder)
    assert (again.identity, again.recipe.epochs) == (without, 9)
    assert before != without
    assert again.about["data"]["dataset"] == "elsewhere.npz"


def test_images_are_given_or_said_to_lie_elsewhere(begun, images):
    with pytest.raises(ValueError, match="data, dataset: expected only one of them"):
        training.resume(begun.folder, data=datasets.load(images), dataset=images)


def test_best_model_is_that_of_the_best_validation_epoch(images, tmp_path):
    """With a learning rate that spoils the last epoch, best and last are different models."""
    spoiled = {"schedule": "PiecewiseConstantDecay", "boundaries": [14], "values": [1e-2, 0.3]}
    run = training.train(
        recipe(images, **{"optimizer.learning_rate": spoiled}), tmp_path / "run", verbose=0
    )
    history = run.history()
    best = int(np.argmin(history["val_loss"])) + 1
    assert best < 3
    metrics = run.metrics()
    assert (metrics["best_epoch"], metrics["test_elbo"]) == (best, history["test_elbo"][best - 1])
    early = training.train(
        recipe(images, epochs=best, **{"optimizer.learning_rate": spoiled}),
        tmp_path / "early",
        verbose=0,
    )
    model = run.load_model()
    for v, w in zip(model.weights, early.load_model("last").weights, strict=True):
        np.testing.assert_array_equal(v, w)
    x = datasets.binarize(datasets.load(images).x_test, "dynamic", seed=0)
    of_best, of_last = (
        evaluation.importance_sampling(run.load_model(name), x, 100, 0, verbose=0)
        for name in ("model", "last")
    )
    found = of_best.mean_log_likelihood.mean
    assert metrics["log_likelihood"] == pytest.approx(found, rel=1e-5)
    assert abs(of_last.mean_log_likelihood.mean - found) > 0.1
    encoder = keras.saving.load_model(run.folder / "encoder.keras")
    for v, w in zip(model.encoder.weights, encoder.weights, strict=True):
        np.testing.assert_array_equal(v, w)


def test_test_images_choose_nothing(images, tmp_path):
    """Of inverted test images the ELBO is best before the model knows the others."""
    data = datasets.load(images)
    data = dataclasses.replace(data, x_test=1 - data.x_test)
    run = training.train(recipe(images), tmp_path / "run", data=data, verbose=0)
    history = run.history()
    assert np.argmax(history["test_elbo"]) != np.argmin(history["val_loss"])
    assert run.metrics()["best_epoch"] == np.argmin(history["val_loss"]) + 1


def test_test_images_are_not_split_and_validation_images_train_nothing(images):
    data = datasets.load(images)
    parts = training.parts.split(data, recipe(images))
    assert (len(parts.train), len(parts.validation)) == (102, 8)
    together = np.concatenate([parts.train, parts.validation]).reshape(110, -1)
    assert sorted(map(tuple, together)) == sorted(map(tuple, data.x_train.reshape(110, -1)))
    assert parts.test is data.x_test


def test_likelihood_in_the_metrics_is_that_of_the_best_model(finished, images):
    x = datasets.binarize(datasets.load(images).x_test, "dynamic", seed=0)
    got = np.mean(finished.load_model().log_likelihood(x, 20_000, seed=5))
    metrics = finished.metrics()
    assert metrics["log_likelihood"] == pytest.approx(got, abs=0.1)
    assert metrics["log_likelihood_importance_samples"] == 100


def test_no_picture_is_counted_as_training(images, tmp_path, monkeypatch):
    """By a clock that goes on by a millisecond at each look, and by an hour in each picture."""
    now = [0.0]

    def look():
        now[0] += 1e-3
        return now[0]

    write = training.pictures.EpochPictures.write

    def slow(self, vae, epoch):
        now[0] += 3600
        write(self, vae, epoch)

    monkeypatch.setattr("tfp_vae.callbacks.epochs.time", types.SimpleNamespace(perf_counter=look))
    monkeypatch.setattr(training.pictures.EpochPictures, "write", slow)
    run = training.train(recipe(images, epochs=2), tmp_path / "run", verbose=0)
    assert 0 < max(run.history()["seconds"]) < 1
    assert run.metrics()["seconds_of_training"] == sum(run.history()["seconds"])


def test_open_model_keeps_what_was_held_out_apart(finished, images):
    data, opened = datasets.load(images), training.open_model(finished.folder)
    assert opened.binarization == "dynamic"
    parts = training.parts.split(data, finished.recipe)
    for got, grey in zip(
        (opened.train, opened.held_out, opened.test),
        (parts.train, parts.validation, data.x_test),
        strict=True,
    ):
        assert got.shape == grey.shape
        assert set(np.unique(got)) == {0, 1}
        # A draw of each pixel of these very images.
        z = (got - grey).sum() / np.sqrt((grey * (1 - grey)).sum())
        assert abs(z) < 4
        assert np.mean((got - grey) ** 2) < 0.7 * np.mean((got[::-1] - grey) ** 2)
    np.testing.assert_array_equal(opened.test, parts.binarized(data.x_test))  # as the run has them


def test_open_model_of_a_file_or_of_other_images_held_nothing_out(finished, images):
    of_file = training.open_model(finished.folder / "last.keras", dataset=str(images))
    assert of_file.held_out is None
    assert (of_file.binarization, len(of_file.train), len(of_file.test)) == ("threshold", 110, 20)
    other = training.open_model(finished.folder, dataset=str(images), binarization="none")
    assert other.held_out is None
    np.testing.assert_array_equal(other.test, datasets.load(images).x_test)


# --------------------------------------------------------------------- the latent dimensions


def test_latent_table_is_the_usage_of_each_epoch_on_validation_images(finished, images):
    table, history = finished.latent(), finished.history()
    assert list(table) == ["epoch", "kl_0", "kl_1", "variance_0", "variance_1"]
    assert table["epoch"] == [1, 2, 3]
    validation = training.parts.split(datasets.load(images), finished.recipe).validation
    x = datasets.binarize(validation, "dynamic", seed=0)
    usage = evaluation.latent_usage(finished.load_model("last"), x)
    for j in (0, 1):
        assert table[f"kl_{j}"][-1] == pytest.approx(usage.kl[j], rel=1e-4)
        assert table[f"variance_{j}"][-1] == pytest.approx(usage.variance_of_means[j], rel=1e-4)
    assert history["active_units"][-1] == usage.num_active
    best = finished.metrics()["best_epoch"] - 1
    assert finished.metrics()["active_units"] == history["active_units"][best]


def test_a_run_of_before_the_latent_table_goes_on(begun, finished, tmp_path):
    out = shutil.copytree(begun.folder, tmp_path / "run")
    run = training.Run(out)
    vae = training.build(run.recipe, (8, 8, 1))
    vae.optimizer.build(vae.trainable_variables)
    progress = run.load_state(vae)
    del progress["latent"], progress["history"]["active_units"]
    run.save_state(vae, progress)
    for name in ("latent.csv", "latent.png", "history.csv"):
        (out / name).unlink()
    resumed = training.resume(out, epochs=3, verbose=0)
    assert resumed.latent()["epoch"] == [2, 3]
    units = resumed.history()["active_units"]
    assert np.isnan(units[0])
    assert units[1:] == finished.history()["active_units"][1:]
    assert resumed.history()["elbo"] == finished.history()["elbo"]


def test_logs_for_tensorboard_go_on_where_the_run_does(images, tmp_path):
    out = tmp_path / "run"
    run = training.train(recipe(images, epochs=1), out, verbose=0, tensorboard=True)
    training.resume(out, epochs=2, verbose=0)  # not asked again
    found = {(tag, step): value for tag, step, _, value in events(out / "logs")}
    history = run.history()
    assert {step for tag, step in found if tag == "pictures"} == {0, 1, 2}
    found = {key: value for key, value in found.items() if key[0] != "pictures"}
    assert set(found) == {(name, step) for name in history for step in (0, 1)}
    for (name, step), value in found.items():
        assert value == pytest.approx(history[name][step], rel=1e-6)
    assert {step for tag, step, *_ in events(out / "logs" / "latent")} == {0, 1}


def test_collapse_is_warned_of_though_the_run_was_stopped(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (220, 8, 8)).astype("float32")
    np.save(tmp_path / "noise.npy", noise)
    objective = {"name": "ELBO", "kl_weight": 100.0}
    body = {"encoder": {"network": "dense_encoder", "units": [4]}, "validation_images": 20}
    settings = recipe(tmp_path / "noise.npy", epochs=2, batch_size=4, objective=objective, **body)
    run = training.train(settings, tmp_path / "run", verbose=0)
    with pytest.warns(UserWarning, match=r"posterior collapse: .* \(epoch 3\)"):
        training.resume(run.folder, epochs=3, verbose=0)
    assert run.history()["active_units"] == [0, 0, 0]


# --------------------------------------------------------------------- stops


def test_resumed_is_never_stopped(finished, begun, tmp_path):
    out = shutil.copytree(begun.folder, tmp_path / "run")
    training.resume(out, epochs=2, verbose=0)
    resumed = training.resume(out, epochs=3, verbose=0)
    assert resumed.recipe == finished.recipe
    assert_same_run(finished.folder, out)


def test_an_epoch_of_two_passes_goes_on_with_the_third(images, tmp_path, monkeypatch):
    run = training.train(recipe(images, epochs=1, passes=2), tmp_path / "run", verbose=0)
    assert int(run.load_model("last").optimizer.iterations) == 2 * 7  # 102 images in batches of 16

    class SeenError(Exception):
        """With the batches in it."""

    def fit(self, batches, **options):
        assert (options["initial_epoch"], options["epochs"]) == (1, 2)
        raise SeenError(np.concatenate(list(batches)))

    monkeypatch.setattr("tfp_vae.VAE.fit", fit)
    with pytest.raises(SeenError) as seen:
        training.resume(run.folder, epochs=2, verbose=0)
    parts = training.parts.split(run.load_data(), run.recipe)
    expected = [
        batch
        for number in (2, 3)
        for batch in datasets.pipeline(
            parts.train, batch_size=16, binarization="dynamic", seed=0, initial_epoch=number
        ).take(7)
    ]
    np.testing.assert_array_equal(seen.value.args[0], np.concatenate(expected))


# --------------------------------------------------------------------- what goes wrong


def test_files_that_can_be_made_again_are(copied):
    before = contents(copied)
    for name in ("history.csv", "latent.csv", "last.keras", "metrics.json", "training.gif"):
        (copied / name).unlink()
    run = training.resume(copied, verbose=0)
    assert set(contents(copied)) == set(before)
    assert run.epochs_done == 3


def test_metrics_of_before_an_extension_are_not_those_of_the_run(copied, monkeypatch):
    def die(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.pictures, "write_final", die)
        with pytest.raises(KeyboardInterrupt):
            training.resume(copied, epochs=4, verbose=0)
    with pytest.raises(RunError, match="not finished"):
        training.Run(copied).metrics()
    assert not (copied / "metrics.json").exists()
    assert training.resume(copied, verbose=0).metrics()["epochs"] == 4


def test_a_folder_named_like_a_data_set_is_not_taken_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    settings = recipe("digits", epochs=1).replace(**{"encoder": {"network": "dense_encoder",
                                                                "units": [3]}})  # fmt: skip
    run = training.train(settings, "run", verbose=0)
    assert run.about["data"]["dataset"] == "digits"
    assert len(run.load_data().x_test) == 299


def test_other_images_are_refused(copied, images):
    data = datasets.load(images)
    data.x_test[0, 0, 0] = 1
    with pytest.raises(RunError, match=r"expected the images of .* got others"):
        training.resume(copied, epochs=4, data=data, verbose=0)


def test_fewer_epochs_than_done(copied):
    with pytest.raises(RunError, match="expected at least the 3 that are done, got 2"):
        training.resume(copied, epochs=2, verbose=0)


def test_files_of_somebody_are_not_replaced(images, tmp_path):
    (tmp_path / "samples.png").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"expected a new folder, got one with samples\.png"):
        training.train(recipe(images), tmp_path, verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


def test_channels_that_no_picture_can_show_are_refused_before_training(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((40, 8, 8, 4), "float32"))
    with pytest.raises(RunError, match=r"expected images of 1 or 3 channels, .* got 4"):
        training.train(recipe(tmp_path / "x.npy"), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", [200, 7], ids=["other", "the same"])
def test_a_schedule_of_another_number_of_steps_is_said(images, tmp_path, capsys, steps):
    rate = {**SETTINGS["optimizer"]["learning_rate"], "decay_steps": steps - 2, "warmup_steps": 2,
            "warmup_target": 1e-2}  # fmt: skip
    one = recipe(images, epochs=1, **{"optimizer.learning_rate": rate})
    training.train(one, tmp_path / "run")
    said = "learning rate: its schedule is of 200 steps, this training of 7; see"
    assert (said in capsys.readouterr().out) == (steps == 200)


def test_replicas_leave_a_last_smaller_batch_out_of_the_schedule(images):
    """102 images in batches of 16: six whole ones and one of six images."""
    rate = {**SETTINGS["optimizer"]["learning_rate"], "decay_steps": 6}
    one = recipe(images, epochs=1, **{"optimizer.learning_rate": rate})
    assert training.loop._of_schedule(one, 102, 1, whole=True) == ""
    assert "of 6 steps, this training of 7" in training.loop._of_schedule(one, 102, 1, whole=False)


def test_a_schedule_that_has_no_length_is_not_spoken_of(images, tmp_path, capsys):
    rate = {"schedule": "ExponentialDecay", "initial_learning_rate": 1e-2, "decay_steps": 50,
            "decay_rate": 0.9}  # fmt: skip
    training.train(recipe(images, epochs=1, **{"optimizer.learning_rate": rate}), tmp_path / "run")
    assert "learning rate:" not in capsys.readouterr().out


def test_pictures_of_a_learned_prior_are_of_what_it_draws(finished, images, tmp_path):
    """Here of one place far from the origin, which the same vectors in every epoch never reach."""
    prior = {"name": "GaussianMixture", "num_components": 1}
    settings = recipe(images, prior=prior, epoch_picture="samples")
    vae = training.build(settings, (8, 8, 1))
    vae.prior.loc.assign([[4.0, -4.0]])
    vae.prior.raw_scale.assign(np.full(vae.prior.raw_scale.shape, -12, "float32"))
    run = training.Run(shutil.copytree(finished.folder, tmp_path / "run"))
    drawn = types.SimpleNamespace(folder=run.folder, recipe=settings)
    training.pictures.EpochPictures(drawn, images).write(vae, 9)
    there = np.asarray(vae.decode(np.array([4.0, -4.0], "float32")).mean())[..., 0]
    with Image.open(run.folder / "pictures" / "epoch-0009.png") as picture:
        shown = np.asarray(picture.convert("L"))[: 8 * 3 : 3, : 8 * 3 : 3] / 255
    np.testing.assert_allclose(shown, there, atol=0.01)


def test_settings_that_cannot_train_leave_no_run_behind(images, tmp_path):
    out = tmp_path / "run"
    bad = recipe(images, epochs=1, **{"optimizer.clipnorm": "abc"})
    with pytest.raises((TypeError, ValueError)):
        training.train(bad, out, verbose=0, tensorboard=True)
    assert not out.exists()
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises((TypeError, ValueError)):
        training.train(bad, out, verbose=0)
    assert [path.name for path in out.iterdir()] == ["mine"]
    training.train(recipe(images, epochs=1), out, verbose=0)


def test_many_draws_are_decoded_for_fewer_images_at_once(images):
    parts = training.parts.split(datasets.load(images), recipe(images))
    sizes = {draws: len(next(iter(parts.batches(parts.train, draws)))) for draws in (1, 50, 1000)}
    assert sizes == {1: 102, 50: 10, 1000: 1}


@pytest.mark.parametrize(
    ("name", "make", "change", "message"),
    [
        ("classes", small_vae, {}, "expected a conditional model"),
        ("manifold", conditional, {}, "expected a model without labels"),
        ("interpolation", conditional, {}, "expected a model without labels"),
        ("manifold", lambda: small_vae(latent_dim=3), {}, "2 latent dimensions, got 3"),
        ("interpolation", small_vae, {"x_test": np.zeros((1, 8, 8, 1))}, "two test images, got 1"),
        ("scatter", lambda: small_vae(latent_dim=1), {}, "at least 2 latent dimensions, got 1"),
        ("scatter", small_vae, {"y_test": None}, "images with labels, got none"),
    ],
)
def test_pictures_that_cannot_be_drawn(images, name, make, change, message):
    vae, data = make(), dataclasses.replace(datasets.load(images), **change)
    assert message in training.pictures.can_draw(name, vae, data)
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        training.pictures.draw(name, vae, data, data.x_test)


def test_what_is_not_drawn_is_said(images, tmp_path, capsys):
    settings = recipe(images, epochs=1, latent_dim=3, pictures=["manifold"])
    training.train(settings, tmp_path / "run", verbose=1)
    said = capsys.readouterr().out
    assert "not drawn: manifold: expected a model of 2 latent dimensions, got 3." in said
    assert "validation: 8 of the training images are held out" in said


def test_one_test_image_ends_no_run_without_its_figures(images, tmp_path):
    """An interpolation is between two."""
    with np.load(images) as arrays:
        alone = {name: arrays[name] if "train" in name else arrays[name][:1] for name in arrays}
    np.savez(tmp_path / "alone.npz", **alone)
    settings = recipe(tmp_path / "alone.npz", epochs=1, pictures=["interpolation"])
    run = training.train(settings, tmp_path / "run", verbose=0)
    assert np.isfinite(run.metrics()["test_elbo"])


BAD_RECIPES = [
    ("network", {"encoder.network": "conv_decoder"}, "encoder.network: expected one of conv_enc"),
    ("argument", {"encoder": {"network": "dense_encoder", "unit": [3]}}, "Did you mean 'units'"),
    ("prior", {"encoder": {"network": "dense_encoder", "prior": 3}}, "argument of encoder"),
    ("optimizer", {"optimizer": {"name": "Adan"}}, "Did you mean 'Adam'"),
    ("rate", {"optimizer.learning_rat": 1.0}, "Did you mean 'learning_rate'"),
    ("averages", {"optimizer.use_ema": True}, "use_ema: expected ema_overwrite_frequency with it"),
    ("negative rate", {"optimizer.learning_rate": -1}, "expected a number above 0, got -1"),
    ("schedule", {"optimizer.learning_rate": {"schedule": "Cosine"}}, "Did you mean 'CosineDecay'"),
]


@pytest.mark.parametrize(
    ("settings", "message"), [pytest.param(s, m, id=name) for name, s, m in BAD_RECIPES]
)
def test_recipe_that_makes_no_model_leaves_no_folder(images, tmp_path, settings, message):
    with pytest.raises(RecipeError, match=message):
        training.train(recipe(images, **settings), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()


def test_images_of_no_known_name_leave_no_folder(images, tmp_path):
    own = datasets.load(images)
    with pytest.raises(datasets.DatasetError, match="my-set"):
        training.train(recipe("my-set"), tmp_path / "run", data=own, verbose=0)
    assert not (tmp_path / "run").exists()


def test_images_that_cannot_be_split_leave_no_folder(tmp_path):
    path = tmp_path / "few.npz"
    np.savez(path, x_train=np.ones((9, 8, 8), "float32"), x_test=np.ones((2, 8, 8), "float32"))
    with pytest.raises(RunError, match="at least 10 training images, got 1000 and 9"):
        training.train(recipe(path, validation_images=1000), tmp_path / "run", verbose=0)
    assert not (tmp_path / "run").exists()
