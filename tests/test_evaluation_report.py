"""The report of a model: its figures, its page, its files and the command."""

import base64
import contextlib
import dataclasses
import html.parser
import io
import json
import os
import re
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ROOT
from tests.models import SHAPE, FactorAnalysis, small_vae
from tfp_vae import VAE, cli, evaluation, priors, reports
from tfp_vae.evaluation import common

#: Every part, in as little work as shows what it does.
TINY = {
    "elbo_terms": {"num_samples": 3},
    "importance_sampling": {"num_samples": 30},
    "kl_decomposition": {"num_images": 9},
    "aggregate_posterior": {"num_images": 8, "num_draws": 5, "num_repeats": 3},
    "annealed_importance_sampling": {"num_images": 3, "num_steps": 2, "num_chains": 2},
    "amortization_gap": {"num_images": 4, "num_steps": 2, "num_samples": 3},
    "rate_distortion": {"num_images": 2, "betas": (2.0, 0.5), "num_steps": 2, "num_samples": 3},
}


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Without the compilation of graphs, which takes longer than these small computations."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def iaf_vae():
    posterior = {"name": "iaf", "num_flows": 2, "units": [6], "context_size": 3}
    prior = priors.StandardNormal(2)
    return small_vae(prior, posterior=posterior, use_exact_kl=False)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 2, (24, *SHAPE)).astype("float32")


@pytest.fixture(scope="module")
def written(images, tmp_path_factory):
    """A model, its report, the folder, which had other files before, and what was printed."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "notes.txt").write_text("mine")
    (folder / "report.html").write_text("old")
    vae = small_vae(seed=3)
    hostile = {"dataset": "<script>alert('x')</script> & \"co\"", "binarization": "threshold"}
    title, printed = "</title><b>bold</b>", io.StringIO()
    with contextlib.redirect_stdout(printed):
        report = reports.write_report(
            folder, vae, images, TINY, seed=5, title=title, about=hostile, verbose=1
        )
    return vae, report, folder, printed.getvalue()


def loaded(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / "report.json").read_text(), parse_constant=refuse)


class Page(html.parser.HTMLParser):
    """Text, tags and pictures of a page whose tags must be closed in order."""

    def __init__(self, folder):
        super().__init__()
        self.open, self.tags, self.text, self.pictures = [], [], "", []
        self.feed((folder / "report.html").read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            kind, data = dict(attributes)["src"].split(",")
            assert kind == "data:image/png;base64"
            self.pictures.append(iio.imread(base64.b64decode(data, validate=True)))
            assert dict(attributes)["alt"]
        elif tag != "meta":
            self.open.append(tag)
        names = {name for name, _ in attributes}
        assert not {name for name in names if name.startswith("on")} | (names & {"href", "style"})

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


# --------------------------------------------------------------------- the ELBO's terms


@pytest.mark.parametrize("exact", [True, False], ids=["closed form", "monte carlo"])
def test_elbo_terms_are_the_closed_form(exact, rng):
    model, scale = FactorAnalysis(rng), 1.3
    x, vae = model.sample(rng, 20), model.vae(scale, use_exact_kl=exact)
    got = evaluation.elbo_terms(vae, x, 4000, seed=0, verbose=0)
    same = vae.elbo(x, 4000, seed=0).numpy()
    np.testing.assert_allclose(got.elbo, same, rtol=1e-5)
    np.testing.assert_array_equal(got.elbo, got.reconstruction - got.kl)
    # KL(N(m, C) || N(0, I)) of the posterior's mean and scaled covariance.
    mean, cov = (x - model.mu) @ model.gain.T, scale**2 * model.posterior_cov
    kl = 0.5 * (np.trace(cov) + (mean**2).sum(1) - 2 - np.log(np.linalg.det(cov)))
    # 4,000 draws of a value that varies by about a nat or two.
    np.testing.assert_allclose(got.kl, kl, **({"rtol": 1e-4} if exact else {"atol": 0.15}))
    np.testing.assert_allclose(got.elbo, model.elbo(x, scale), atol=0.25)
    assert got.exact_kl is exact
    assert got.mean_elbo.mean == pytest.approx(got.elbo.mean())
    assert got.mean_kl.standard_error == pytest.approx(got.kl.std(ddof=1) / 20**0.5)


def test_elbo_terms_that_are_not_finite_are_named(images):
    vae = small_vae()
    layer = vae.decoder.layers[-2]
    layer.set_weights([np.full_like(weights, 3e38) for weights in layer.get_weights()])
    with pytest.raises(ValueError, match=r"log p\(x\|z\): expected finite values"):
        evaluation.elbo_terms(vae, images, seed=0)


# --------------------------------------------------------------------- the figures


def test_each_part_is_what_its_function_gives_alone(written, images):
    vae, report, folder, _ = written
    content = loaded(folder)
    assert list(report.parts) == list(evaluation.SETTINGS)
    assert (report.seed, content["seed"], content["num_images"]) == (5, 5, 24)
    for name, part in report.parts.items():
        count = TINY.get(name, {}).get("num_images", 24)
        assert part.num_images == count
        alone = getattr(evaluation, name)(
            vae, images[:count], **part.settings, seed=report.seed, verbose=0
        ).to_dict()
        assert part.result.to_dict() == alone
        assert content["parts"][name]["result"] == alone
        assert content["parts"][name]["seconds"] > 0
        assert content["parts"][name]["unavailable"] == part.unavailable == ""


def test_a_seed_of_the_models_own_is_reported_as_an_integer(images, monkeypatch):
    vae, elbo = small_vae(seed=3), {"elbo_terms": evaluation.elbo_terms}
    monkeypatch.setattr(evaluation.report, "_PARTS", elbo)
    first, second = (evaluation.full_report(vae, images, verbose=0) for _ in range(2))
    again = evaluation.full_report(vae, images, seed=first.seed, verbose=0)
    assert again.seed == first.seed != second.seed
    a, b, c = (report.parts["elbo_terms"].result.to_dict() for report in (first, again, second))
    assert a == b != c
    negative = evaluation.full_report(vae, images, seed=-2, verbose=0)
    got = negative.parts["elbo_terms"].result.to_dict()
    assert negative.seed == 2**64 - 2
    assert got == evaluation.elbo_terms(vae, images, 10, seed=-2, verbose=0).to_dict()


def test_progress_says_which_part_it_is(written):
    out = written[3]
    heads = re.findall(r"^(\d)/8 ([a-z ]+): (\d+) images$", out, re.MULTILINE)
    assert [int(number) for number, *_ in heads] == list(range(1, 9))
    assert heads[5] == ("6", "annealed importance sampling", "3")
    bars = re.split(r"^\d/8 .*$", out, flags=re.MULTILINE)[1:]
    assert all("piece" in bar for bar in bars)


def test_what_a_model_does_not_allow_is_said_with_its_reason(images, tmp_path):
    report = reports.write_report(tmp_path, iaf_vae(), images, TINY, seed=0, verbose=0)
    split = report.parts["kl_decomposition"].result
    assert split.total_correlation is None
    text = Page(tmp_path).text
    assert split.unavailable in text
    assert "KL of each dimension: not available: the marginals of q(z|x), a" in text
    assert all(part.result is not None for part in report.parts.values())
    assert loaded(tmp_path)["parts"]["latent_usage"]["result"]["kl"] == [None, None]


def test_one_image_and_few_samples(images, tmp_path):
    settings = {**TINY, "importance_sampling": {"num_samples": 1}}
    report = reports.write_report(tmp_path, small_vae(), images[:1], settings, seed=0, verbose=0)
    usage = report.parts["latent_usage"]
    assert usage.result is None
    assert "at least 2 images" in usage.unavailable
    content, text = loaded(tmp_path), Page(tmp_path).text
    assert usage.unavailable in text
    assert content["parts"]["latent_usage"]["unavailable"] == usage.unavailable
    assert content["parts"]["importance_sampling"]["result"]["pareto_k"] == [None]
    assert "nan" not in text.lower()
    assert "not available nats" not in text


@pytest.mark.parametrize(
    ("name", "error", "caught"),
    [
        pytest.param("rate_distortion", NotImplementedError, True, id="not implemented"),
        pytest.param("rate_distortion", common.NotAvailableError, True, id="not available"),
        pytest.param("rate_distortion", ValueError, False, id="a mistake"),
        pytest.param("rate_distortion", RuntimeError, False, id="another error"),
        pytest.param("importance_sampling", common.NotAvailableError, False, id="required"),
    ],
)
def test_no_other_error_is_caught(name, error, caught, written, images, monkeypatch):
    def fails(*_, **__):
        raise error("because <it> is so")

    done = {
        part: lambda *_, part=part, **__: written[1].parts[part].result
        for part in ("elbo_terms", "importance_sampling", "rate_distortion")
    }
    monkeypatch.setattr(evaluation.report, "_PARTS", {**done, name: fails})
    if not caught:
        with pytest.raises(error, match="because"):
            evaluation.full_report(small_vae(), images, seed=0, verbose=0)
        return
    part = evaluation.full_report(small_vae(), images, seed=0, verbose=0).parts[name]
    assert (part.result, part.unavailable) == (None, "because <it> is so")


def test_every_part_that_is_not_there_is_said_so_on_the_page(written, images, tmp_path):
    vae, report, *_ = written
    gone = {
        name: part
        if name in ("elbo_terms", "importance_sampling")
        else evaluation.Part(3, {}, 0.1, None, f"no {name} <here>")
        for name, part in report.parts.items()
    }
    without = dataclasses.replace(report, parts=gone)
    text = reports.page.page(without, vae, images, {"title": "t"})
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    page = Page(tmp_path)
    for name in list(gone)[2:]:
        assert f"not available. no {name} <here>" in page.text
    assert len(page.pictures) == 4  # likelihoods, weights, two rows of images


def test_grey_images_under_a_bernoulli_are_remarked_on(images):
    def remarks(x, likelihood="bernoulli"):
        p = small_vae(likelihood=likelihood).decode(np.zeros((1, 2), "float32"))
        return evaluation.report._remarks(p, x, conditional=False)

    assert remarks(images) == ()
    (told,) = evaluation.report._remarks(
        small_vae().decode(np.zeros((1, 2), "float32")), images, conditional=True
    )
    assert "p(x|y)" in told
    (grey,) = remarks(0.5 * images)
    assert "no density of grey pixels" in grey
    (density,) = remarks(0.5 * images, "continuous_bernoulli")
    assert "7.99 more" in density
    for likelihood in ("quantized_logistic", "quantized_logistic_mixture"):
        assert remarks(images, likelihood) == ()
        assert remarks(images * 77 / np.float32(255), likelihood) == ()
        (between,) = remarks(0.5 * images, likelihood)
        assert "values between" in between


# --------------------------------------------------------------------- the page


def test_page_holds_what_it_shows_and_escapes_what_it_is_given(written):
    folder = written[2]
    page = Page(folder)
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert page.tags.count("title") == 1
    for text in ("<script>alert('x')</script> & \"co\"", "</title><b>bold</b>"):
        assert text in page.text
    assert len(page.pictures) == 8
    assert all(np.ptp(picture) > 100 for picture in page.pictures)
    raw = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in raw.replace("http-equiv", "")
    assert "url(" not in raw
    assert "@import" not in raw


def test_page_says_the_figures(written):
    _, report, folder, _ = written
    text = Page(folder).text
    found = report.parts["importance_sampling"].result
    mean = found.mean_log_likelihood
    shown = f"{mean.mean:.2f} ± {mean.standard_error:.2f} nats".replace("-", "−")
    assert shown in text
    assert text.index(shown) < text.index("Can these numbers be trusted?")
    assert f"{100 * np.mean(found.pareto_k > 0.7):.1f}%" in text
    annealed = report.parts["annealed_importance_sampling"].result
    gap = evaluation.Estimate.of(annealed.log_likelihood - found.log_likelihood[:3])
    both = annealed.standard_error**2 + found.standard_error[:3] ** 2
    far = (annealed.log_likelihood - found.log_likelihood[:3]) ** 2 > 4 * both
    assert f"On the first 3 images, of which {far.sum()} differ by more than two" in text
    assert f"{gap.mean:.2f} ± {gap.standard_error:.2f} nats".replace("-", "−") in text
    split = report.parts["kl_decomposition"].result.mutual_information
    assert f"{split.mean:.2f} ± {split.standard_error:.2f}".replace("-", "−") in text


def test_files_of_an_earlier_report_are_replaced_and_others_kept(written):
    folder = written[2]
    assert sorted(os.listdir(folder)) == ["notes.txt", "report.html", "report.json"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_fifty_latents(images, tmp_path):
    vae = small_vae(latent_dim=50)
    report = reports.write_report(tmp_path, vae, images, TINY, seed=0, verbose=0)
    assert len(loaded(tmp_path)["parts"]["latent_usage"]["result"]["kl"]) == 50
    page = Page(tmp_path)
    assert f"{report.parts['latent_usage'].result.num_active} of 50" in page.text
    assert len(page.pictures) == 8


@pytest.mark.parametrize(("below", "said"), [(0.05, True), (0.5, False)], ids=str)
def test_too_few_images_for_the_mutual_information_are_remarked_on(below, said, written):
    report = written[1]
    part = report.parts["kl_decomposition"]
    value = evaluation.Estimate(np.log(part.num_images) - below, 0.0)
    split = dataclasses.replace(part.result, mutual_information=value)
    parts = {**report.parts, "kl_decomposition": dataclasses.replace(part, result=split)}
    text = "".join(reports.page._latent_space(dataclasses.replace(report, parts=parts)))
    assert ("is at its bound" in text) is said


@pytest.mark.parametrize("stricter", [True, False])
def test_the_limit_on_k_is_said_once(written, stricter):
    """From 2,155 samples on it is the 0.7 of all."""
    report = written[1]
    part = report.parts["importance_sampling"]
    result = dataclasses.replace(part.result, pareto_k_limit=0.6 if stricter else 0.7)
    parts = {**report.parts, "importance_sampling": dataclasses.replace(part, result=result)}
    text = "".join(reports.page._trust(dataclasses.replace(report, parts=parts)))
    assert ("stricter limit" in text) is stricter


def test_vectors_are_no_pictures(written, images):
    flat = images.reshape(24, -1)
    assert "the shape (30,) is no picture" in reports.page._extremes(written[1], flat)[-1]


# --------------------------------------------------------------------- bad input

BAD = [
    pytest.param({"ais": {}}, "expected parts among elbo_terms, .*got 'ais'", id="part"),
    pytest.param({"elbo_terms": {"draws": 3}}, "elbo_terms: draws: expected one of num_samples",
                 id="argument"),
    pytest.param({"amortization_gap": {"draws": 3}}, "draws: expected one of num_images, num_steps",
                 id="argument of a dear part"),
    pytest.param({"importance_sampling": {"num_images": 5}}, "num_images: expected one of num_sam",
                 id="part of what others are compared with"),
    pytest.param({"elbo_terms": {"seed": 3}}, "elbo_terms: seed: expected", id="seed"),
    pytest.param({"importance_sampling": {"num_samples": 0}}, "num_samples: .*got 0", id="samples"),
    pytest.param({"amortization_gap": {"num_images": 2.5}}, "num_images: .*got 2.5", id="images"),
    pytest.param({"latent_usage": {"num_samples": 1}}, "at least 2, got 1", id="one sample"),
    pytest.param({"aggregate_posterior": {"num_draws": 1}}, "at least 2, got 1", id="one draw"),
    pytest.param({"rate_distortion": {"betas": [-1.0]}}, "betas: expected finite", id="beta"),
    pytest.param({"annealed_importance_sampling": {"start": "middle"}}, "start: .*got 'middle'",
                 id="start"),
    pytest.param({"annealed_importance_sampling": {"step_size": 0}}, "step_size: .*got 0",
                 id="step size"),
    pytest.param({"amortization_gap": {"learning_rate": -1}}, "learning_rate: .*got -1",
                 id="rate"),
    pytest.param({"latent_usage": {"threshold": -1}}, "threshold: .*got -1", id="threshold"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_before_anything_is_computed(settings, message, images, monkeypatch):
    vae = small_vae()
    monkeypatch.setattr(VAE, "encode", lambda *_: pytest.fail("something was computed"))
    with pytest.raises(ValueError, match=message):
        evaluation.full_report(vae, images, settings, seed=0, verbose=0)


@pytest.mark.parametrize("place", ["{tmp}/file/below", "{tmp}/file", "/proc/no"])
def test_a_folder_that_cannot_be_written_to_is_said_before_the_work(
    place, images, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    vae = small_vae()
    monkeypatch.setattr(VAE, "encode", lambda *_: pytest.fail("something was computed"))
    folder = place.format(tmp=tmp_path)
    with pytest.raises(OSError, match=f"^{re.escape(folder)}: cannot be written"):
        reports.write_report(folder, vae, images, TINY, seed=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(lambda v, x: (v.encoder, x), TypeError, "expected a tfp_vae.VAE", id="model"),
        pytest.param(lambda v, x: (v, x[:0]), ValueError, "at least one", id="no images"),
        pytest.param(lambda v, x: (v, x * np.nan), ValueError, "finite pixels", id="nan"),
    ],
)
def test_bad_models_and_images(change, error, message, images, tmp_path):
    with pytest.raises(error, match=message):
        reports.write_report(tmp_path, *change(small_vae(), images), TINY, seed=0, verbose=0)
    assert os.listdir(tmp_path) == []


# --------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model file, and images in a file with a hostile name."""
    folder = tmp_path_factory.mktemp("saved")
    small_vae().save(folder / "model.keras")
    x = np.random.default_rng(1).random((40, *SHAPE)).astype("float32")
    np.save(folder / "<script>x.npy", x)
    return folder


def test_command_in_a_process_of_its_own(saved, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tfp_vae", "evaluate", str(saved / "model.keras"), "--dataset",
         str(saved / "<script>x.npy"), "--samples", "30", "--seed", "4", "--json", "--quick",
         "--report", str(tmp_path / "new" / "folder")],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    folder = tmp_path / "new" / "folder"
    assert result["report"] == str(folder / "report.html")
    content, page = loaded(folder), Page(folder)
    parts = content["parts"]
    found = parts["importance_sampling"]["result"]
    assert result["log_likelihood"] == found["mean_log_likelihood"]["mean"]
    assert result["elbo"] == parts["elbo_terms"]["result"]["mean_elbo"]["mean"]
    assert (found["num_samples"], content["seed"]) == (30, 4)
    quick = evaluation.QUICK["annealed_importance_sampling"]
    assert parts["annealed_importance_sampling"]["settings"]["num_steps"] == quick["num_steps"]
    assert content["about"]["binarization"] == "threshold"
    assert "<script>x" in page.text
    assert "script" not in page.tags


def test_help_of_the_command_names_the_report(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    out = capsys.readouterr().out
    assert "--report FOLDER" in out
    assert "--quick" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        pytest.param(["{saved}/model.keras", "--quick"], 2, "--quick goes with --report",
                     id="quick alone"),
        pytest.param(["{tmp}/no-run", "--report", "{tmp}/r"], 1, "no such file", id="no run"),
        pytest.param(["{saved}/model.keras", "--dataset", "{saved}/<script>x.npy", "--report",
                      "/proc/no"], 1, "/proc/no: cannot be written", id="folder"),
    ],
)  # fmt: skip
def test_command_that_goes_wrong_is_one_line(arguments, code, message, saved, tmp_path, capsys):
    filled = [argument.format(saved=saved, tmp=tmp_path) for argument in arguments]
    assert cli.main(["evaluate", *filled]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("data: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert os.listdir(tmp_path) == []


def test_no_samples_make_no_sense(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", "m.keras", "--report", "r", "--samples", "0"])
    assert stopped.value.code == 2
    assert "expected an integer of at least 1, got 0" in capsys.readouterr().err
