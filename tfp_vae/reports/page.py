"""What stands in ``report.html``, section by section."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfp_vae import _support, evaluation, plotting
from tfp_vae.reports.markup import (
    escaped,
    missing,
    number,
    percent,
    picture,
    table,
    whole,
    with_error,
)
from tfp_vae.vae import VAE

_EXTREMES = 10  # images of the lowest, and of the highest log p(x)
_NEAR = 0.1  # nats below its bound the mutual information says nothing but the bound
_BAD_K = 0.7  # of Vehtari et al.: above it no number of samples of this kind is enough


def page(report: evaluation.Report, vae: VAE, x: Any, about: Mapping[str, Any]) -> str:
    """The whole of ``report.html``."""
    body = [
        f"<h1>{escaped(about['title'])}</h1>",
        *_figures_first(report, about),
        *_trust(report),
        *_latent_space(report),
        *_amortization(report),
        *_aggregate(report, vae, x),
        *_rate_distortion(report),
        *_extremes(report, np.asarray(_support.split_labels(x)[0])),
        *_how(report, about),
    ]
    return whole(f"Report: {about['title']}", body)


def _figures_first(report: evaluation.Report, about: Mapping[str, Any]) -> list[str]:
    found = report.parts["importance_sampling"].result
    terms = report.parts["elbo_terms"].result
    given = ", ".join(
        f"{key} {about[key]}" for key in ("dataset", "binarization") if about.get(key)
    )
    pixels = math.prod(report.image_shape)
    return [
        f'<p class="faint">{escaped(given + ", " if given else "")}{report.num_images:,} images; '
        "± is one standard error over the images.</p>",
        *(f'<p class="note">{escaped(remark)}</p>' for remark in report.remarks),
        table(
            ("log p(x)", f"{with_error(found.mean_log_likelihood)} nats",
             f"Importance sampling, {found.num_samples:,} samples for each image: in expectation "
             "a lower bound, which rises to log p(x) with the samples. Burda et al. 2016, "
             "arXiv:1509.00519."),
            ("bits per dimension", with_error(found.mean_bits_per_dimension, 4),
             f"−log2 p(x) for each of the {pixels:,} numbers of an image."),
            ("ELBO", f"{with_error(terms.mean_elbo)} nats",
             "Reconstruction less KL, with weight 1 whatever the training used: a lower bound of "
             "log p(x). Kingma & Welling 2014, arXiv:1312.6114."),
            ("reconstruction", f"{with_error(terms.mean_reconstruction)} nats",
             f"E[log p(x|z)] under q(z|x), {terms.num_samples} draws for each image."),
            ("KL", f"{with_error(terms.mean_kl)} nats",
             "KL(q(z|x) || p(z)), " + ("in closed form." if terms.exact_kl else "at these draws.")),
        ),
        picture(
            plotting.log_likelihood_histogram(found.log_likelihood), "log p(x) image by image."
        ),
    ]  # fmt: skip


def _trust(report: evaluation.Report) -> list[str]:
    found = report.parts["importance_sampling"].result
    k, ess = found.pareto_k, found.effective_sample_size
    # Below 21 samples there is no tail to fit.
    bad, above = (
        (percent(np.mean(k > _BAD_K)), percent(np.mean(k > found.pareto_k_limit)))
        if math.isfinite(found.reliable)
        else ("not available", "not available")
    )
    low, middle, high = (number(value, 1) for value in np.quantile(ess, [0.05, 0.5, 0.95]))
    part = report.parts["annealed_importance_sampling"]
    lines = [
        ("images with Pareto k > 0.7", bad,
         "The weights' tail is so heavy that the image's log p(x) is too low by an unknown amount, "
         "its error included. Vehtari et al. 2024, arXiv:1507.02646. Needs 21 samples."),
        *([(f"images with k > {number(found.pareto_k_limit)}", above,
            f"The stricter limit for {found.num_samples:,} samples, of the same paper.")]
          if found.pareto_k_limit < _BAD_K else []),
        ("effective sample size", f"{low}, {middle}, {high}",
         f"5%, 50% and 95% of the images, of {found.num_samples:,} samples: how many equal weights "
         "would be worth as much. Near 1, the value rests on one draw."),
        ("Monte Carlo error", number(found.monte_carlo_error, 3, " nats"),
         "The part of the error of the mean log p(x) that more samples would mend. It knows "
         "nothing of what all samples missed."),
    ]  # fmt: skip
    if part.result is not None:
        annealed, count = part.result, part.num_images
        gap = annealed.log_likelihood - found.log_likelihood[:count]
        error = np.hypot(annealed.standard_error, found.standard_error[:count])
        apart = int(np.sum(np.abs(gap) > 2 * error))
        lines += [
            ("annealing − importance sampling", f"{with_error(evaluation.Estimate.of(gap))} nats",
             f"On the first {count:,} images, of which {apart:,} differ by more than two standard "
             f"errors; by {annealed.num_chains} chains of "
             f"{annealed.num_steps:,} steps from the {annealed.start}, which take no more of "
             "the encoder than step sizes. Clearly above 0, importance sampling is too "
             "low; clearly below, annealing is. Wu et al. 2017, arXiv:1611.04273."),
            ("state of the chains",
             f"{percent(annealed.acceptance_rate.mean())}, "
             f"{number(np.median(annealed.effective_sample_size), 1)} of {annealed.num_chains}",
             "Steps accepted, best above 65%; and the median effective sample size: near 1, "
             "annealing itself is too low and needs more steps."),
        ]  # fmt: skip
    body = ["<h2>Can these numbers be trusted?</h2>"]
    if math.isfinite(found.reliable):
        body.append(
            f"<p>Of {percent(found.reliable)} of the images log p(x) can be relied on. Of the "
            "others it is a lower bound: take more samples, and see below how low it may be.</p>"
        )
    body.append(table(*lines))
    caption = "Left of the line, an image's log p(x) can be relied on."
    body.append(picture(plotting.importance_diagnostics(found), caption))
    if part.result is None:
        return [*body, missing("Annealed importance sampling", part)]
    caption = "The same images by annealing and by importance sampling, with two standard errors."
    return [*body, picture(plotting.annealing_check(part.result, found), caption)]


def _latent_space(report: evaluation.Report) -> list[str]:
    body = ["<h2>Latent space</h2>"]
    part = report.parts["latent_usage"]
    if part.result is None:
        body.append(missing("Active units", part))
    else:
        usage = part.result
        body.append(
            table(("active units", f"{usage.num_active} of {report.latent_dim}",
                    f"Dimensions whose posterior mean varies over {part.num_images:,} images by "
                    f"more than {usage.threshold:g}. Burda et al. 2016, section 5.2."))
        )  # fmt: skip
        if usage.kl_method == "unavailable":
            reason = f"not available: the marginals of q(z|x), a {report.posterior}, or of p(z), a "
            body.append(
                f"<p>KL of each dimension: {escaped(reason + report.prior)}, are not known.</p>"
            )
        caption = "Active dimensions in blue, in falling order."
        body.append(picture(plotting.latent_usage(usage), caption))
    part = report.parts["kl_decomposition"]
    if part.result is None:
        return [*body, missing("The parts of the KL", part)]
    split = part.result
    lines = [
        ("KL", split.kl, "What the next three sum to; Monte Carlo."),
        ("mutual information", split.mutual_information,
         "What z tells of the image: at most log of the number of images, "
         f"{number(math.log(split.num_images))}. Hoffman & Johnson 2016."),
        ("total correlation", split.total_correlation,
         "How far the dimensions of q(z) depend on one another. Chen et al. 2018, "
         "arXiv:1802.04942."),
        ("dimension-wise KL", split.dimensionwise_kl,
         "How far the single dimensions of q(z) are from the prior's."),
        ("KL(q(z) || p(z))", split.marginal_kl, "The last two together: q(z) against p(z)."),
    ]  # fmt: skip
    body.append(f"<p>The KL, split; of the first {part.num_images:,} images, in nats.</p>")
    body.append(table(*((name, with_error(value), meaning) for name, value, meaning in lines)))
    if split.mutual_information.mean > math.log(split.num_images) - _NEAR:
        body.append(
            '<p class="note">The mutual information is at its bound: these images are too few to '
            "fill q(z). With more of them it would rise, and total correlation and "
            "KL(q(z) || p(z)) fall by as much.</p>"
        )
    if split.unavailable:
        body.append(f"<p>Not available: {escaped(split.unavailable)}.</p>")
    return body


def _amortization(report: evaluation.Report) -> list[str]:
    body = ["<h2>What the encoder misses</h2>"]
    part = report.parts["amortization_gap"]
    if part.result is None:
        return [*body, missing("The amortization gap", part)]
    found = part.result
    likelihood = report.parts["importance_sampling"].result.log_likelihood[: part.num_images]
    rest = evaluation.Estimate.of(likelihood - found.refined_elbo)
    return [
        *body,
        f"<p>Of the first {part.num_images:,} images.</p>",
        table(
            ("ELBO", f"{with_error(found.mean_elbo)} nats", "Of the encoder's q(z|x)."),
            ("refined ELBO", f"{with_error(found.mean_refined_elbo)} nats",
             f"Of a diagonal normal fitted to each image, by {found.num_steps:,} steps of Adam."),
            ("amortization gap", f"{with_error(found.mean_gap)} nats",
             "The difference: what the encoder loses by answering at once. Cremer et al. 2018, "
             "arXiv:1801.03558."),
            ("approximation gap", f"{with_error(rest)} nats",
             "log p(x) by importance sampling less the refined ELBO: what no diagonal normal can "
             "reach. Below 0, that log p(x) is too low by so much at least."),
        ),
    ]  # fmt: skip


def _aggregate(report: evaluation.Report, vae: VAE, x: Any) -> list[str]:
    body = ["<h2>Aggregate posterior and prior</h2>"]
    part = report.parts["aggregate_posterior"]
    if part.result is None:
        return [*body, missing("The comparison", part)]
    found = part.result
    low, high = (number(value, 4) for value in found.null_band)
    shown = plotting.aggregate_posterior(
        vae, _support.take(x, slice(part.num_images)), seed=report.seed
    )
    return [
        *body,
        f"<p>q(z), the posteriors of the first {part.num_images:,} images together. Where it "
        "differs from p(z), draws of the model land where the decoder was never trained. "
        "Makhzani et al. 2016, arXiv:1511.05644.</p>",
        table(
            ("energy distance", number(found.energy_distance, 4),
             f"Of {found.num_draws:,} draws of each; of the prior from itself it lies between "
             f"{low} and {high} in 90 of 100 cases. Székely & Rizzo 2013."),
            ("p-value", number(found.p_value, 3),
             "How often the prior is as far from itself."),
        ),
        picture(shown, "A draw of each posterior, beside as many of the prior."),
    ]  # fmt: skip


def _rate_distortion(report: evaluation.Report) -> list[str]:
    body = ["<h2>Rate and distortion</h2>"]
    part = report.parts["rate_distortion"]
    if part.result is None:
        return [*body, missing("The curve", part)]
    curve, terms = part.result, report.parts["elbo_terms"].result
    own = (
        float(terms.kl[: part.num_images].mean()),
        float(-terms.reconstruction[: part.num_images].mean()),
    )
    rows = zip(
        curve.betas, curve.rate, curve.rate_standard_error,
        curve.distortion, curve.distortion_standard_error, strict=True,
    )  # fmt: skip
    lines = [
        (f"β = {beta:g}", with_error(evaluation.Estimate(rate, rate_error)),
         with_error(evaluation.Estimate(distortion, distortion_error)))
        for beta, rate, rate_error, distortion, distortion_error in rows
    ]  # fmt: skip
    return [
        *body,
        f"<p>What the decoder could do at other rates: diagonal normals fitted to each of the "
        f"first {part.num_images:,} images for distortion + β rate. Alemi et al. 2018, "
        "arXiv:1711.00464; Huang et al. 2020, arXiv:2008.06653.</p>",
        table(*lines, ("the encoder's", number(own[0]), number(own[1])),
               heads=("", "rate, nats", "distortion, nats")),
        picture(plotting.rate_distortion(curve, own), "Means over these images."),
    ]  # fmt: skip


def _extremes(report: evaluation.Report, x: np.ndarray) -> list[str]:
    body = ["<h2>Hardest and easiest images</h2>"]
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        return [*body, f"<p>Not available: the shape {escaped(x.shape[1:])} is no picture.</p>"]
    values = report.parts["importance_sampling"].result.log_likelihood
    order = np.argsort(values, kind="stable")
    for name, chosen in (("lowest", order[:_EXTREMES]), ("highest", order[::-1][:_EXTREMES])):
        labels = [f"#{i}\n{number(values[i], 1)}" for i in chosen]
        figure = plotting.image_grid(x[chosen], rows=1, column_labels=labels)
        caption = f"The {name} log p(x): number of the image, counted from 0, and nats."
        body.append(picture(figure, caption))
    return body


def _how(report: evaluation.Report, about: Mapping[str, Any]) -> list[str]:
    lines = [
        (name.replace("_", " "), f"{part.num_images:,} images, {part.seconds:.1f} s",
         ", ".join(f"{key} {value}" for key, value in part.settings.items()))
        for name, part in report.parts.items()
    ]  # fmt: skip
    model = {
        "posterior": report.posterior,
        "likelihood": report.likelihood,
        "prior": report.prior,
        "latent dimensions": report.latent_dim,
        "image shape": report.image_shape,
        "seed": report.seed,
    }
    return [
        "<h2>How this was made</h2>",
        table(*((key, str(value)) for key, value in {**about, **model}.items())),
        "<p>A part takes the first so many images. Each is the function of that name in "
        "tfp_vae.evaluation, with this seed; all figures, image by image, are in report.json.</p>",
        table(*lines, heads=("part", "took", "settings")),
    ]
