"""Folders to share: what a reader of the card is told is what the run measured."""

import json
import re

import numpy as np
import pytest

from tfp_vae import cli, recipes, training
from tfp_vae.recipes import Recipe
from tfp_vae.training import RunError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of the user's own images, in a file whose place is nobody's business."""
    folder = tmp_path_factory.mktemp("secret")
    rng = np.random.default_rng(0)
    names = ("x_train", "x_test")
    images = {name: rng.random((40, 6, 5), np.float32) for name in names}
    labels = {name.replace("x", "y"): rng.integers(0, 3, 40) for name in names}
    np.savez(folder / "blobs.npz", **images, **labels)
    recipe = recipes.get("cvae-mnist-conditional").replace(
        dataset=str(folder / "blobs.npz"), epochs=2, pictures=["reconstructions"], latent_dim=2,
        encoder={"network": "dense_encoder", "units": [4]},
        decoder={"network": "dense_decoder", "units": [4]},
    )  # fmt: skip
    return training.train(recipe, folder / "run", verbose=0)


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    """As `tfp-vae evaluate --report` writes it, of 10 images only."""
    folder = tmp_path_factory.mktemp("reports")
    options = ["--images", "10", "--samples", "3", "--quick", "--report", str(folder)]
    assert cli.main(["evaluate", str(run.folder), *options]) == 0
    return folder


def front_matter(folder):
    """Each value is JSON, which is YAML too."""
    _, text, _ = (folder / "README.md").read_text().split("---\n", 2)
    return {key: json.loads(value) for key, value in (x.split(": ", 1) for x in text.splitlines())}


def figures(folder):
    (model,) = front_matter(folder)["model-index"]
    (result,) = model["results"]
    return result["metrics"]


def test_the_folder_has_what_the_hub_shows(run, tmp_path):
    folder = training.package(run.folder, tmp_path / "shared", license="apache-2.0")
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "model.keras", "recipe.json", "metrics.json", "history.csv", "latent.csv",
        "history.png", "latent.png", "reconstructions.png", "training.gif",
    }  # fmt: skip
    found = front_matter(folder)
    assert (found["library_name"], found["license"]) == ("keras", "apache-2.0")
    assert "datasets" not in found  # the user's own images are no data set of the Hub
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"type": "blobs", "name": "blobs", "split": "test"}
    assert (folder / "model.keras").read_bytes() == (run.folder / "model.keras").read_bytes()
    settings = json.loads((folder / "recipe.json").read_text())
    assert Recipe.from_dict(settings) == run.recipe.replace(dataset="blobs")
    card = (folder / "README.md").read_text()
    for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", card):
        assert (folder / name).is_file()
    assert "license" not in front_matter(training.package(run, tmp_path / "other"))


def test_the_figures_are_those_of_the_run(run, tmp_path):
    metrics = run.metrics()
    found = {each["type"]: each for each in figures(training.package(run, tmp_path / "a"))}
    assert set(found) == {"elbo", "reconstruction", "kl", "log_likelihood"}
    for name in ("elbo", "reconstruction", "kl"):
        assert found[name]["value"] == metrics[f"test_{name}"]
        assert "40 test images binarized at 0.5, one draw" in found[name]["name"]
    assert found["log_likelihood"]["value"] == metrics["log_likelihood"]
    error = metrics["log_likelihood_standard_error"]
    assert found["log_likelihood"]["name"] == (
        "log p(x|y), nats: 40 test images binarized at 0.5, 100 importance samples each, standard "
        f"error {error:.2f}"
    )
    row = f"| log p(x\\|y), nats | {metrics['log_likelihood']:.2f} | {error:.2f} | 40 |"
    assert row in (tmp_path / "a" / "README.md").read_text()


def test_the_card_says_how_many_draws_the_objective_took(run, tmp_path, monkeypatch):
    assert run.metrics()["test_draws"] == 1
    metrics = {**run.metrics(), "test_draws": 3}
    monkeypatch.setattr(training.Run, "metrics", lambda _: metrics)
    elbo, *_ = figures(training.package(run, tmp_path / "a"))
    assert "40 test images binarized at 0.5, 3 draws of z for each" in elbo["name"]


def test_the_figures_of_a_report_are_added(run, report, tmp_path):
    parts = json.loads((report / "report.json").read_text())["parts"]
    *_, elbo, likelihood = figures(training.package(run, tmp_path / "a", report=report))
    for figure, part, name in (
        (elbo, "elbo_terms", "mean_elbo"),
        (likelihood, "importance_sampling", "mean_log_likelihood"),
    ):
        expected = parts[part]["result"][name]
        assert figure["value"] == expected["mean"]
        assert "10 test images" in figure["name"]
        assert f"standard error {expected['standard_error']:.2f}" in figure["name"]
    assert "3 importance samples each, in the report" in likelihood["name"]


def test_no_path_of_this_machine_is_shared(run, report, tmp_path):
    folder = training.package(run, tmp_path / "a", report=report)
    assert "secret" in str(run.folder)
    for path in folder.rglob("*"):
        assert b"secret" not in path.read_bytes(), path


def test_the_code_of_the_card_runs_in_a_fresh_process(run, tmp_path, fresh_process):
    """In the folder itself, as `snapshot_download` leaves it."""
    folder = training.package(run, tmp_path / "a")
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S).group(1)
    assert fresh_process(f"import os; os.chdir({str(folder)!r})\n{code}print(images.shape)") == (
        "(16, 6, 5, 1)\n"
    )


@pytest.mark.extra
def test_the_hubs_own_library_reads_the_card(run, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    card = hub.ModelCard.load(training.package(run, tmp_path / "a", license="mit") / "README.md")
    assert card.data.model_name == run.recipe.name
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["elbo"] == run.metrics()["test_elbo"]
    assert card.data.library_name == "keras"


def test_bad_input_leaves_nothing(run, report, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    other = tmp_path / "full" / "report.json"
    content = json.loads((report / "report.json").read_text())
    earlier = tmp_path / "full" / "earlier"
    earlier.mkdir()
    about = content["about"]
    (earlier / "report.json").write_text(
        json.dumps({**content, "about": {**about, "epoch": about["epoch"] + 1}})
    )
    about["dataset"], about["run"] = "mnist", "0"
    cases = [
        (tmp_path, "a", {}, RunError, "expected the folder of a run"),
        (run, "full", {}, FileExistsError, "new or an empty folder"),
        (run, "a", {"report": tmp_path}, RunError, "expected the JSON of a report"),
        (
            run,
            "a",
            {"report": other.parent},
            RunError,
            "on blobs, threshold, got one of epoch 1 of another run, on mnist, threshold",
        ),
        (run, "a", {"report": earlier}, RunError, "of epoch 1 of this run.*of epoch 2 of this run"),
    ]
    other.write_text(json.dumps(content))
    for source, name, options, error, message in cases:
        with pytest.raises(error, match=message):
            training.package(source, tmp_path / name, **options)
    (run.folder / "metrics.json").rename(run.folder / "away")
    try:
        with pytest.raises(RunError, match="the run is not finished"):
            training.package(run, tmp_path / "a")
    finally:
        (run.folder / "away").rename(run.folder / "metrics.json")
    monkeypatch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        training.package(run, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_the_command(run, report, tmp_path, capsys):
    out = tmp_path / "shared"
    options = ["--license", "mit", "--report", str(report), "--json"]
    assert cli.main(["package", str(run.folder), str(out), *options]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": str(out)}
    assert front_matter(out)["license"] == "mit"
    assert len(figures(out)) == 6
    assert cli.main(["package", str(run.folder), str(out)]) == 1
    assert "new or an empty folder" in capsys.readouterr().err
