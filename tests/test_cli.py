"""The command in processes of its own, as people call it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ROOT
from tfp_vae import VAE, cli, datasets, evaluation, networks, priors, training


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.keras"
    prior = priors.StandardNormal(2)
    encoder = networks.conv_encoder((28, 28, 1), 2, filters=(4, 4), prior=prior)
    VAE(encoder, networks.conv_decoder((28, 28, 1), 2, filters=(4, 4)), prior).save(path)
    return path


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tfp_vae", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_evaluate_in_a_process_of_its_own_prints_json_alone(model):
    done = run("evaluate", model, "--dataset", "digits", "--images", 20, "--samples", 5, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dataset"] == "digits"
    assert result["images"] == 20
    assert result["binarization"] == "threshold"
    # 784 pixels of an untrained decoder: about one half each.
    assert -700 < result["elbo"] <= result["log_likelihood"] < -400
    assert "data: digits" in done.stderr


THREADS = """
import json, sys
import tensorflow as tf
from tfp_vae import cli
code = cli.main(sys.argv[1:])
print(code, tf.config.threading.get_intra_op_parallelism_threads())
code = cli.main(sys.argv[1:-1] + ["2"])
print(code)
"""


def test_threads_of_an_operation(fresh_process, tmp_path):
    """What TensorFlow is told, in time; and not when it is too late."""
    arguments = ["train", "mlp-mnist", "--dataset", "digits", "--epochs", 1, "--quiet",
                 "--set", "encoder.units=[4]", "--set", "decoder.units=[4]",
                 "--set", "pictures=[]", "--out", tmp_path / "run", "--threads", 1]  # fmt: skip
    *_, first, second = fresh_process(THREADS, *arguments).splitlines()
    assert first == "0 1"
    assert second == "2"


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "tfp_vae", "recipes", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.close()
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 1


def test_numbers_that_json_lacks_are_null(capsys):
    cli.commands.show({"a": float("nan"), "b": [float("-inf"), 1.5], "c": None}, as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": None, "b": [None, 1.5], "c": None,
    }  # fmt: skip


def test_evaluate_is_repeatable_and_follows_its_seed(model, capsys):
    def result(*more):
        options = ["--dataset", "digits", "--images", "10", "--samples", "3", "--json", *more]
        assert cli.main(["evaluate", str(model), *options]) == 0
        return json.loads(capsys.readouterr().out)

    assert result() == result()
    assert result("--seed", "1")["elbo"] != result()["elbo"]


@pytest.mark.parametrize("picture", ["manifold", "scatter", "reconstructions", "samples"])
def test_plot_writes_a_picture(picture, model, tmp_path, capsys):
    out = tmp_path / f"{picture}.png"
    images = ["--dataset", "digits"] if picture in ("scatter", "reconstructions") else []
    options = [*images, "--out", str(out), "--json"]
    assert cli.main(["plot", picture, str(model), *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": str(out)}
    import imageio.v3 as iio

    assert np.ptp(iio.imread(out)) > 100


def test_datasets_says_where_each_would_come_from(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("TFP_VAE_DATA_DIR", raising=False)
    assert cli.main(["datasets"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {"mnist", "fashion_mnist", "cifar10", "digits"}
    assert lines["digits"] == "scikit-learn"
    assert "not here" in lines["cifar10"]


# --------------------------------------------------------------------- a run, from end to end


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The fixed spellings, in a process of their own."""
    out = tmp_path_factory.mktemp("runs") / "run"
    done = run(
        "train", "mlp-fashion-2d", "--dataset", "digits", "--epochs", 1, "--batch-size", 50,
        "--seed", 3, "--out", out, "--set", "encoder.units=[9]", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done


def test_train_prints_the_figures_alone_and_the_rest_aside(trained):
    out, done = trained
    metrics = json.loads(done.stdout)
    assert metrics["run"] == str(out)
    assert {key: metrics[key] for key in metrics if key != "run"} == training.Run(out).metrics()
    assert (metrics["dataset"], metrics["epochs"]) == ("digits", 1)
    assert "epoch 1/1: test ELBO" in done.stderr
    assert "images/s" in done.stderr
    recipe = json.loads((out / "run.json").read_text())["recipe"]
    assert (recipe["seed"], recipe["batch_size"], recipe["encoder"]["units"]) == (3, 50, [9])


def test_recipes_are_listed(capsys):
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert cli.main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == list(listed)
    assert listed["cvae-mnist-2d"]["batch_size"] == 32


def result_of(capsys, *arguments):
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_sample_follows_its_seed(trained, tmp_path, capsys):
    out = tmp_path / "a.npy"
    assert result_of(capsys, "sample", trained[0], "-n", 5, "--seed", 1, "--out", out) == {
        "written": str(out), "images": 5,
    }  # fmt: skip
    first = np.load(out)
    assert first.shape == (5, 28, 28, 1)
    result_of(capsys, "sample", trained[0], "-n", 5, "--seed", 1, "--out", out)
    np.testing.assert_array_equal(np.load(out), first)
    result_of(capsys, "sample", trained[0], "-n", 5, "--seed", 2, "--out", out)
    assert not np.array_equal(np.load(out), first)
    result_of(capsys, "sample", trained[0], "-n", 5, "--draw", "--out", out)
    assert set(np.unique(np.load(out))) == {0, 1}


def test_what_is_written_is_what_the_model_says(trained, tmp_path, capsys):
    """The run's own images, grey as it was trained on."""
    vae = training.Run(trained[0]).load_model()
    x = datasets.load("digits").x_test
    paths = [tmp_path / name for name in ("r.npy", "i.npy", "e.csv", "e.npz")]
    result_of(capsys, "reconstruct", trained[0], "--images", 7, "--out", paths[0])
    np.testing.assert_allclose(np.load(paths[0]), vae.reconstruct(x[:7]), rtol=1e-5)
    result_of(capsys, "interpolate", trained[0], "--from", 3, "--to", 5, "--steps", 4,
              "--out", paths[1])  # fmt: skip
    np.testing.assert_allclose(np.load(paths[1]), vae.interpolate(x[3], x[5], 4), rtol=1e-5)
    q = vae.encode(x)
    for path in paths[2:]:
        assert result_of(capsys, "encode", trained[0], "--out", path)["images"] == 299
    table = np.genfromtxt(paths[2], delimiter=",", names=True)
    assert table.dtype.names == ("label", "mean_0", "mean_1", "stddev_0", "stddev_1")
    np.testing.assert_allclose(table["mean_1"], q.mean()[:, 1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(table["stddev_0"], q.stddev()[:, 0], rtol=1e-4)
    with np.load(paths[3]) as arrays:
        np.testing.assert_array_equal(arrays["label"], datasets.load("digits").y_test)
        np.testing.assert_allclose(arrays["mean"], q.mean(), rtol=1e-4, atol=1e-6)


OF_A_PLAIN_RUN = [name for name in cli.arguments.PICTURES if name != "classes"]


@pytest.mark.parametrize("picture", OF_A_PLAIN_RUN)
def test_plot_of_a_run(picture, trained, tmp_path, capsys):
    import imageio.v3 as iio

    out = tmp_path / f"x.{'gif' if picture == 'gif' else 'png'}"
    more = ["--epoch", 1] if picture == "epoch" else []
    result_of(capsys, "plot", picture, trained[0], "--out", out, *more)
    assert np.ptp(iio.imread(out)) > 20


def test_impute_says_the_errors_of_model_and_baselines(trained, tmp_path, capsys):
    options = ["--mask", "left", "--images", 12, "--steps", 4, "--samples", 2, "--seed", 5]
    out = tmp_path / "imputed.png"
    result = result_of(capsys, "impute", trained[0], *options, "--out", out)
    opened = training.open_model(trained[0])
    x = datasets.load("digits").x_test[:12]
    mask = evaluation.observed_mask("left", x.shape)
    errors = evaluation.imputation_errors(
        opened.vae, x, mask, opened.train, num_samples=2, num_steps=4, seed=5
    )
    assert result["training_images"] == len(opened.train)
    for name, error in errors.items():
        key = f"{name.replace(' ', '_')}_squared_error"
        assert result[key] == pytest.approx(error.mean_squared_error.mean, rel=1e-5)
        spread = error.mean_squared_error.standard_error
        assert result[f"{key}_standard_error"] == pytest.approx(spread, rel=1e-4)
    assert list(errors) == ["metropolis", "training mean", "nearest neighbours"]
    assert result["metropolis_log_score"] < 0
    import imageio.v3 as iio

    assert np.ptp(iio.imread(out)) > 50
    out = tmp_path / "imputed.npy"
    more = ["--method", "pseudo-gibbs", "--out", out]
    assert "pseudo_gibbs_squared_error" in result_of(capsys, "impute", trained[0], *options, *more)
    drawn = np.load(out)
    np.testing.assert_array_equal(drawn[mask], x[mask])
    assert (drawn[~mask] != x[~mask]).any()


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_anomaly_scores_by_the_images_that_the_run_held_out(kind, trained, tmp_path, capsys):
    out = tmp_path / f"scores.{kind}"
    options = ["--images", 20, "--samples", 3, "--seed", 5, "--out", out]
    result = result_of(capsys, "anomaly", trained[0], *options)
    opened = training.open_model(trained[0])
    data = datasets.load("digits")
    expected = evaluation.anomaly_scores(
        opened.vae, data.x_test[:20], opened.held_out, num_samples=3, seed=5, verbose=0
    )
    assert result["calibration_images"] == len(opened.held_out) == 149
    assert result["share_with_p_value_up_to_0.05"] == np.mean(expected.p_value <= 0.05)
    assert result["log_likelihood"] == pytest.approx(expected.log_likelihood.mean(), rel=1e-5)
    if kind == "csv":
        table = np.genfromtxt(out, delimiter=",", names=True)
        names = table.dtype.names
    else:
        with np.load(out) as file:
            table = dict(file)
        names = tuple(table)
    assert names == ("image", "log_likelihood", "p_value", "two_sided_p_value", "label")
    for name, values in vars(expected).items():
        np.testing.assert_allclose(table[name], values, rtol=1e-5)
    np.testing.assert_array_equal(table["label"], data.y_test[:20])
    import imageio.v3 as iio

    assert np.ptp(iio.imread(out.with_suffix(".png"))) > 50


def test_the_first_so_many_images_are_encoded(trained, tmp_path, capsys):
    path = tmp_path / "few.csv"
    assert result_of(capsys, "encode", trained[0], "--images", 5, "--out", path)["images"] == 5
    whole = tmp_path / "all.csv"
    result_of(capsys, "encode", trained[0], "--out", whole)
    assert path.read_text().splitlines() == whole.read_text().splitlines()[:6]


def test_fewer_images_than_are_shown_by_default(trained, tmp_path, capsys):
    x = datasets.load("digits").x_test[:3]
    np.savez(tmp_path / "few.npz", x_train=x, x_test=x)
    options = ["--dataset", tmp_path / "few.npz", "--out", tmp_path / "r.png"]
    assert result_of(capsys, "reconstruct", trained[0], *options)["images"] == 3


def test_anomaly_of_other_images(trained, tmp_path, capsys):
    """Of digits and their inverse in one file: the second half is the strange one."""
    x = datasets.load("digits").x_test[:15]
    np.savez(tmp_path / "both.npz", x_train=x, x_test=np.concatenate([x, 1 - x]))
    out = tmp_path / "scores.npz"
    options = ["--dataset", tmp_path / "both.npz", "--samples", 3, "--out", out]
    assert result_of(capsys, "anomaly", trained[0], *options)["images"] == 30
    with np.load(out) as scores:
        assert "label" not in scores
        np.testing.assert_allclose(scores["p_value"][15:], 1 / 150)
        assert scores["log_likelihood"][:15].mean() > scores["log_likelihood"][15:].mean() + 100


def test_anomaly_of_a_file_of_images_scores_all_in_their_order(trained, tmp_path, capsys):
    x = np.resize(datasets.load("digits").x_test, (510, 28, 28, 1))
    x[507] = 1 - x[507]
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "scores.npz"
    options = ["--dataset", tmp_path / "x.npy", "--samples", 3, "--out", out]
    assert result_of(capsys, "anomaly", trained[0], *options)["images"] == 510
    with np.load(out) as scores:
        assert np.argmin(scores["log_likelihood"]) == scores["image"][507] == 507
    own = ["--dataset", "digits", "--samples", 3, "--out", out]  # its test images, as without it
    assert result_of(capsys, "anomaly", trained[0], *own)["images"] == 299


def test_evaluate_a_run_uses_its_own_treatment(trained, capsys):
    result = result_of(capsys, "evaluate", trained[0], "--images", 20, "--samples", 5)
    assert (result["dataset"], result["binarization"]) == ("digits", "none")


def test_resume_asks_for_more_epochs(trained, tmp_path, capsys):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    result = result_of(capsys, "train", "--resume", folder, "--epochs", 2, "--quiet",
                       "--tensorboard")  # fmt: skip
    assert result["epochs"] == 2
    assert list((folder / "logs" / "latent").iterdir())
    same = ["--dataset", "DIGITS", "--set", "encoder.units=[9]", "--seed", 3]
    result = result_of(capsys, "train", "--resume", folder, "--set", "epochs=3", "--quiet", *same)
    assert result["epochs"] == 3


def test_images_that_moved_are_taken_if_they_are_the_same(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.random((40, 6, 5), np.float32))
    small = ["--set", "encoder.units=[4]", "--set", "decoder.units=[4]", "--quiet"]
    out = tmp_path / "run"
    result_of(capsys, "train", "mlp-mnist", "--dataset", tmp_path / "a.npy", "--epochs", 1,
              "--out", out, *small)  # fmt: skip
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    again = ["train", "--resume", str(out), "--epochs", "2", "--quiet", "--dataset"]
    assert result_of(capsys, *again, tmp_path / "b.npy")["epochs"] == 2
    # From here on it knows.
    assert result_of(capsys, "evaluate", out, "--images", 4, "--samples", 2)["images"] == 4
    assert result_of(capsys, "train", "--resume", out, "--quiet")["epochs"] == 2
    np.save(tmp_path / "c.npy", rng.random((40, 6, 5), np.float32))
    assert cli.main([*again, str(tmp_path / "c.npy")]) == 1
    assert "got others" in capsys.readouterr().err


def test_a_run_goes_on_from_any_folder(tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 6, 5), np.float32))
    small = ["--set", "encoder.units=[4]", "--set", "decoder.units=[4]", "--quiet"]
    monkeypatch.chdir(tmp_path)
    result_of(capsys, "train", "mlp-mnist", "--dataset", "./a.npy", "--epochs", 1, "--out", "run",
              *small)  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = ["train", "--resume", tmp_path / "run", "--quiet", "--epochs"]
    assert result_of(capsys, *again, 2)["epochs"] == 2
    same = ["--dataset", tmp_path / "a.npy"]
    assert result_of(capsys, *again, 2, *same)["epochs"] == 2


@pytest.mark.parametrize("hidden", [0.05, 0.9])
def test_few_and_most_pixels_may_be_hidden(trained, tmp_path, capsys, hidden):
    few = ["--images", 2, "--steps", 2, "--samples", 1, "--out", tmp_path / "x.png"]
    result = result_of(capsys, "impute", trained[0], "--mask", f"random:{hidden}", *few)
    assert result["mask"] == f"random:{hidden}"


def test_what_a_download_prints_is_no_result(model, capsys, monkeypatch):
    """Keras writes its bar to standard output."""
    load = datasets.load

    def downloading(name, *arguments, **options):
        print("Downloading data from http://example.org/mnist.npz")
        return load("digits", *arguments, **options)

    monkeypatch.setattr(datasets, "load", downloading)
    few = ["--images", 3, "--samples", 2]
    assert result_of(capsys, "evaluate", model, *few)["images"] == 3


@pytest.mark.parametrize("error", [
    pytest.param(MemoryError("Unable to allocate 190. GiB"), id="NumPy's"),
    pytest.param(tf.errors.ResourceExhaustedError(None, None, "OOM\nmore"), id="TensorFlow's"),
])  # fmt: skip
def test_too_little_memory_is_one_line(model, tmp_path, capsys, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(VAE, "sample", fail)
    assert cli.main(["sample", str(model), "--out", str(tmp_path / "x.npy")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("tfp-vae: error: not enough memory: ")


def test_dynamic_draws_follow_the_seed(model, tmp_path, capsys):
    written = []
    for seed in (3, 3, 4):
        out = tmp_path / "encoded.csv"
        result_of(capsys, "encode", model, "--dataset", "digits", "--images", 9, "--binarization",
                  "dynamic", "--seed", seed, "--out", out)  # fmt: skip
        written.append(out.read_bytes())
    assert written[0] == written[1] != written[2]


BAD = [
    pytest.param(["train", "mlp-mnist", "--dataset", "digits", "--set", "encoder.units=7"],
                 "units: expected a list of sizes, got 7", id="no list"),
    pytest.param(["impute", "{model}", "--dataset", "digits", "--out", "/proc/no/x.png",
                  "--images", "2", "--steps", "1", "--samples", "1"], "/proc/no", id="impute out"),
    pytest.param(["evaluate", "absent.keras"], "absent.keras: there is no such file", id="absent"),
    pytest.param(["evaluate", "{model}", "--dataset", "minst"], "mnist", id="misspelt data set"),
    pytest.param(["evaluate", "{other}", "--dataset", "digits"], "got a Sequential", id="no vae"),
    pytest.param(["evaluate", "{damaged}"], "got a damaged or other one", id="damaged"),
    pytest.param(["evaluate", "{model}", "--dataset", "digits", "--images", "300"],
                 "expected at most the 299 there are, got 300", id="more images than there are"),
    pytest.param(["plot", "samples", "{model}", "--out", "/proc/no/x.png"], "/proc/no", id="out"),
    pytest.param(["impute", "{model}", "--dataset", "digits", "--images", "300"],
                 "expected at most the 299 there are, got 300", id="impute more than there are"),
    pytest.param(["impute", "absent"], "absent: there is no such file", id="impute absent"),
    pytest.param(["anomaly", "{model}"], "expected the folder of a run, whose validation images",
                 id="nothing to calibrate with"),
    pytest.param(["interpolate", "{model}", "--dataset", "digits", "--label", "3"],
                 "--label: expected no class of this model, got 3", id="label without classes"),
    pytest.param(["interpolate", "{model}", "--dataset", "digits", "--to", "299"],
                 "--to: expected an image below 299, got 299", id="no such image"),
    pytest.param(["plot", "latent", "{model}"], "latent needs the folder of a run", id="latent"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_goes_wrong_is_one_line_and_exit_code_1(arguments, message, model, tmp_path, capsys):
    import keras

    other, damaged = tmp_path / "other.keras", tmp_path / "damaged.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(other)
    damaged.write_bytes(model.read_bytes()[:2000])
    filled = [a.format(model=model, other=other, damaged=damaged) for a in arguments]
    assert cli.main(filled) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("data: ")]
    assert len(lines) == 1
    assert lines[0].startswith("tfp-vae: error: ")
    assert message in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no command"),
        pytest.param(["paint"], id="unknown command"),
        pytest.param(["plot", "portrait", "m.keras"], id="unknown picture"),
        pytest.param(["evaluate", "m.keras", "--samples", "many"], id="no number"),
        pytest.param(["evaluate", "m.keras", "--seed", "-1"], id="negative seed"),
        pytest.param(["train", "ae-mnist", "--epochs", "0"], id="no epochs"),
        pytest.param(["impute", "m.keras", "--images", "0"], id="impute no images"),
        pytest.param(["impute", "m.keras", "--steps", "0"], id="no steps"),
        pytest.param(["impute", "m.keras", "--method", "gibbs"], id="unknown method"),
        pytest.param(["anomaly", "runs/a", "--images", "0"], id="no images to score"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: tfp-vae" in capsys.readouterr().err


NAMES = [
    (["encode", "m", "--out", "e.png"], "--out: expected a name in .csv or .npz, got 'e.png'"),
    (["anomaly", "m", "--out", "a.png"], "--out: expected a name in .csv or .npz, got 'a.png'"),
    (["impute", "m", "--out", "a.foo"], ".svg or .npy, got 'a.foo'"),
    (["sample", "m", "--out", "a.NPY"], ".svg or .npy, got 'a.NPY'"),
    (["reconstruct", "m", "--out", "a"], ".svg or .npy, got 'a'"),
    (["plot", "gif", "m", "--out", "a.npy"], ".svg or .gif, got 'a.npy'"),
]


@pytest.mark.parametrize(("arguments", "message"), [pytest.param(*n, id=n[0][0]) for n in NAMES])
def test_the_name_of_what_is_written_is_looked_at_first(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


USAGE = [
    (["train"], "expected either a recipe or --resume"),
    (["train", "cvae-mnist2d"], "Did you mean 'cvae-mnist-2d'"),
    (["train", "ae-mnist", "--set", "epoch=3"], "Did you mean 'epochs'"),
    (["train", "ae-mnist", "--set", "epochs"], "expected NAME=VALUE, got 'epochs'"),
    (["train", "ae-mnist", "--dataset", "digits", "--set", "encoder.unit=[3]"], "mean 'units'"),
    (["train", "--resume", "{run}", "--seed", "5"], "was trained with seed = 3, got 5"),
    (["train", "--resume", "{run}", "--dataset", "mnist"], "with dataset = digits, got mnist"),
    (["train", "--resume", "{run}", "--set", "epoch=4"], "Did you mean 'epochs'"),
    (["train", "--resume", "{run}", "--set", "encoder.units=[4]"], "'units': [9]}, got"),
    (["train", "--resume", "{run}", "--out", "x"], "stays in its folder"),
    (["plot", "epoch", "{run}"], "--epoch N goes with the picture epoch"),
    (["plot", "gif", "{run}", "--out", "g.png"], "expected a name in .gif for gif, got .png"),
    (["plot", "epoch", "{run}", "--epoch", "0", "--out", "e.jpg"], "in .png for epoch, got .jpg"),
    (["plot", "history", "{run}", "--out", "h.gif"], "a picture that stands still for history"),
    (["plot", "history", "{run}", "--dataset", "x"], "--dataset: expected none for history"),
    (["plot", "samples", "{run}", "--binarization", "dynamic"], "--binarization: expected none"),
    (["plot", "samples", "{run}", "--data-dir", "x"], "--data-dir: expected none for"),
    (["impute", "{run}", "--mask", "middle"], "--mask: hidden: expected one of left, right, top"),
    (["impute", "{run}", "--mask", "random:1.5"], "or a fraction between 0 and 1"),
]


@pytest.mark.parametrize(("arguments", "message"), [pytest.param(*u, id=u[1]) for u in USAGE])
def test_what_makes_no_sense_is_one_line_and_exit_code_2(arguments, message, trained, capsys):
    before = sorted(trained[0].rglob("*"))
    assert cli.main([a.format(run=trained[0]) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert message in line
    assert sorted(trained[0].rglob("*")) == before
