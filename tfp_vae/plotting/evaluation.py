"""Figures of `tfp_vae.evaluation`: likelihoods, their diagnostics, the latent space."""

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfp_vae import _support
from tfp_vae.plotting.common import check_model, decimals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "tab:blue", "tab:orange", "0.75"
_BINS = 50
_NAMED = 32  # bars of so many dimensions have room for a number below each
_RANGES = (0.05, 0.25, 0.5, 0.75, 0.95)


def log_likelihood_histogram(log_likelihood: Any, *, title: str | None = None) -> "Figure":
    """A histogram of ``log p(x)`` over the images, with its mean.

    Args:
        log_likelihood: ``log p(x)`` of each image in nats, shape (B,).
        title: by default one with the number of images.

    Raises:
        ValueError: a wrong number of dimensions, no images, or values that are not finite.
    """
    values = _vector("log_likelihood", log_likelihood)
    figure, (axes,) = _panels(1)
    _histogram(axes, values, _bins(values))
    axes.axvline(
        values.mean(), color=_ORANGE, linewidth=2, label=f"mean {decimals(values.mean(), 1)}"
    )
    axes.set_xlabel("log p(x), nats")
    axes.legend(frameon=False, loc="upper right")
    figure.suptitle(title or f"log p(x) of {len(values):,} images")
    return figure


def importance_diagnostics(result: Any, *, title: str | None = None) -> "Figure":
    """Pareto ``k`` and effective sample size of each image, from `evaluation.importance_sampling`.

    Left of the line an image's ``log p(x)`` can be trusted. Values of ``k`` that are not finite
    (a flat tail, or a tail of a single weight) are counted in the legend.

    Args:
        result: what `evaluation.importance_sampling` returned.
        title: by default none.

    Raises:
        TypeError: `result` is something else.
    """
    _check_is("result", result, "importance_sampling", "pareto_k", "effective_sample_size")
    k, ess = np.asarray(result.pareto_k), np.asarray(result.effective_sample_size)
    figure, (left, right) = _panels(2)
    there = k[np.isfinite(k)]
    if len(there):
        _histogram(left, there, _bins(there))
        limit = result.pareto_k_limit
        text = f"limit for {result.num_samples:,} samples: {decimals(limit, 2)}"
        left.axvline(limit, color=_ORANGE, linewidth=2, label=text)
        for value, name in ((-np.inf, "flat tail"), (np.inf, "one weight alone")):
            if np.any(k == value):
                left.plot([], [], " ", label=f"and {np.sum(k == value):,} images: {name}")
        left.legend(frameon=False, loc="upper right")
    else:
        text = f"no tail of {result.num_samples:,} samples could be fitted"
        left.text(0.5, 0.5, text, ha="center", va="center", transform=left.transAxes)
        left.set_yticks([])
    left.set_xlabel("Pareto k of the weights' tail")
    # Of one sample, and of equal weights, all are the same number.
    _histogram(right, ess, np.geomspace(1, max(result.num_samples, 2), _BINS + 1))
    right.set_xscale("log")
    middle = float(np.median(ess))
    right.axvline(middle, color=_ORANGE, linewidth=2, label=f"median {decimals(middle, 1)}")
    right.set_xlabel(f"effective sample size, of {result.num_samples:,}")
    right.legend(frameon=False, loc="upper right")
    if title:
        figure.suptitle(title)
    return figure


def annealing_check(annealed: Any, importance: Any, *, title: str | None = None) -> "Figure":
    """``log p(x)`` of the same images by annealing and by importance sampling.

    On the left one is plotted against the other; on the right their difference with two combined
    standard errors. Well above 0, importance sampling is too low; well below 0, annealing is.

    Args:
        annealed: what `evaluation.annealed_importance_sampling` returned.
        importance: what `evaluation.importance_sampling` returned, or at least its
            ``log_likelihood`` and ``standard_error``; its first images are those of `annealed`.
        title: by default none.

    Raises:
        TypeError: one of them is something else.
        ValueError: more images in `annealed` than in `importance`.
    """
    _check_is("annealed", annealed, "annealed_importance_sampling", "acceptance_rate")
    _check_is("importance", importance, "importance_sampling", "log_likelihood", "standard_error")
    a, count = annealed, len(annealed.log_likelihood)
    if len(importance.log_likelihood) < count:
        raise ValueError(
            f"importance: expected the {count} images of `annealed` at least, got "
            f"{len(importance.log_likelihood)}."
        )
    x, x_error = importance.log_likelihood[:count], importance.standard_error[:count]
    figure, (left, right) = _panels(2)
    ends = [min(x.min(), a.log_likelihood.min()), max(x.max(), a.log_likelihood.max())]
    left.plot(ends, ends, color=_ORANGE, linewidth=1.5, label="equal")
    left.plot(x, a.log_likelihood, "o", color=_BLUE, markersize=5, alpha=0.8)
    left.set_xlabel("importance sampling: log p(x), nats")
    left.set_ylabel("annealing: log p(x), nats")
    left.legend(frameon=False)
    right.axhline(0, color=_ORANGE, linewidth=1.5)
    # One chain or one sample has no error.
    error = 2 * np.sqrt(np.nan_to_num(x_error) ** 2 + np.nan_to_num(a.standard_error) ** 2)
    right.errorbar(x, a.log_likelihood - x, error, fmt="o", color=_BLUE, markersize=5, alpha=0.8)
    right.set_xlabel("importance sampling: log p(x), nats")
    right.set_ylabel("annealing − importance sampling, nats")
    if title:
        figure.suptitle(title)
    return figure


def latent_usage(usage: Any, *, title: str | None = None) -> "Figure":
    """KL and variance of the means of each dimension, from `evaluation.latent_usage`.

    Dimensions are in falling order of their KL, active ones in blue; the dashed line is the
    variance above which a dimension is active. The KL is left out if it is not known.

    Args:
        usage: what `evaluation.latent_usage` returned.
        title: by default one with the number of active dimensions.

    Raises:
        TypeError: `usage` is something else.
    """
    _check_is("usage", usage, "latent_usage", "kl", "active", "variance_of_means")
    known = bool(np.isfinite(usage.kl).all())
    order = np.argsort(-(usage.kl if known else usage.variance_of_means), kind="stable")
    d = len(order)
    colours = [_BLUE if active else _GREY for active in np.asarray(usage.active)[order]]
    figure, panels = _panels(1 + known)
    for axes in panels:
        axes.set_xlabel("latent dimension")
        axes.set_xlim(-0.6, d - 0.4)
        if d <= _NAMED:
            size = "medium" if d <= 16 else "x-small"
            axes.set_xticks(range(d), [str(j) for j in order], fontsize=size)
        else:
            axes.set_xlabel("latent dimensions, in falling order")
    if known:
        errors = {"yerr": usage.kl_standard_error[order], "error_kw": {"elinewidth": 1}}
        panels[0].bar(range(d), usage.kl[order], color=colours, **errors)
        panels[0].set_ylabel("KL(q(z_j|x) || p(z_j)), nats")
    # An estimate from draws may fall below 0, where a logarithm has nothing to show.
    variance = np.maximum(usage.variance_of_means[order], 1e-8)
    panels[-1].bar(range(d), variance, color=colours)
    panels[-1].axhline(
        usage.threshold, color=_ORANGE, linestyle="--", label=f"active above {usage.threshold:g}"
    )
    panels[-1].set_yscale("log")
    # A bar begins at the bottom, which a threshold of 0 leaves to the bars; room for the legend.
    ends = np.append(variance, usage.threshold or variance.min())
    panels[-1].set_ylim(ends.min() / 2, 6 * ends.max())
    panels[-1].set_ylabel("variance of E[z_j|x] over images")
    panels[-1].legend(frameon=False, loc="upper right")
    figure.suptitle(title or f"{usage.num_active} of {d} latent dimensions are active")
    return figure


def aggregate_posterior(
    vae: Any, x: Any, *, seed: Any = 0, batch_size: int = 1000, title: str | None = None
) -> "Figure":
    """One draw of each image's posterior, compared with as many draws of the prior.

    With two latent dimensions they are shown as points, otherwise as ranges of each dimension: the
    median, half of the draws (thick), and those between 5% and 95% (thin).

    Args:
        vae: a `VAE`.
        x: images, shape (B, height, width, channels).
        seed: integer or stateless seed; `None` takes the model's own stream.
        batch_size: images encoded at once.
        title: by default one with the number of images.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: no images, wrong ones, or `batch_size` below 1.
    """
    check_model(vae)
    batch_size = _support.check_positive_int("batch_size", batch_size)
    count = _support.count(x)
    if not count:
        raise ValueError("x: expected at least one image, got none.")
    posterior_seed, prior_seed = tf.unstack(
        tf.random.split(_support.stateless_seed(seed, vae.seed_generator))
    )
    prior, of_prior, of_posterior = vae.prior(), [], []
    for start, some in _support.pieces(x, batch_size):
        of_prior.append(prior.sample(_support.count(some), tf.random.fold_in(prior_seed, start)))
        of_posterior.append(vae.encode(some).sample(seed=tf.random.fold_in(posterior_seed, start)))
    draws = {
        "prior p(z)": (_ORANGE, np.concatenate(of_prior)),
        "aggregate posterior q(z)": (_BLUE, np.concatenate(of_posterior)),
    }
    figure = _points(draws) if vae.latent_dim == 2 else _ranges(draws)
    figure.suptitle(title or f"A draw for each of {count:,} images, and as many of the prior")
    return figure


def rate_distortion(
    curve: Any, encoder: tuple[float, float] | None = None, *, title: str | None = None
) -> "Figure":
    """The curve of `evaluation.rate_distortion`, a point for each beta.

    Args:
        curve: what `evaluation.rate_distortion` returned.
        encoder: rate and distortion of the model's own encoder on the same images, to mark its
            point.
        title: by default none.

    Raises:
        TypeError: `curve` is something else.
    """
    _check_is("curve", curve, "rate_distortion", "betas", "rate", "distortion")
    figure, (axes,) = _panels(1)
    order = np.argsort(curve.rate)
    # Without the standard errors: all points are of the same images and would move together.
    axes.plot(
        curve.rate[order], curve.distortion[order],
        "o-", color=_BLUE, label="posteriors refined for each image",
    )  # fmt: skip
    for beta, rate, distortion in zip(curve.betas, curve.rate, curve.distortion, strict=True):
        axes.annotate(
            f"β = {beta:g}",
            (rate, distortion),
            (6, 6),
            textcoords="offset points",
            fontsize="small",
        )
    if encoder is not None:
        axes.plot(*encoder, "D", color=_ORANGE, label="the encoder's")
    axes.set_xlabel("rate KL(q(z|x) || p(z)), nats")
    axes.set_ylabel("distortion −E[log p(x|z)], nats")
    axes.legend(frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def _points(draws: dict[str, tuple[str, np.ndarray]]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    axes = figure.subplots()
    for name, (colour, z) in draws.items():
        size = float(np.clip(2e4 / len(z), 4, 30))
        axes.scatter(
            z[:, 0],
            z[:, 1],
            color=colour,
            s=size,
            alpha=0.5,
            linewidths=0,
            label=name,
            rasterized=True,
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("z[0]")
    axes.set_ylabel("z[1]")
    _style(axes)
    axes.legend(loc="upper right", markerscale=2)
    return figure


def _ranges(draws: dict[str, tuple[str, np.ndarray]]) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = _panels(1, width=8.4)
    for shift, (name, (colour, z)) in zip((0.18, -0.18), draws.items(), strict=True):
        places = np.arange(z.shape[1]) + shift
        low, quarter, middle, three_quarters, high = np.quantile(z, _RANGES, 0)
        axes.vlines(places, low, high, color=colour, linewidth=1)
        axes.vlines(places, quarter, three_quarters, color=colour, linewidth=3, label=name)
        axes.plot(places, middle, "o", color="white", markeredgecolor=colour, markersize=4)
    axes.set_xlabel("latent dimension")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_ylabel("z_j: 5%, 25%, 50%, 75%, 95%")
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.15 * (top - bottom))  # room for the legend
    axes.legend(frameon=False, ncols=2, loc="upper center")
    return figure


def _panels(count: int, width: float | None = None) -> "tuple[Figure, list[Axes]]":
    """A figure with `count` axes side by side."""
    from matplotlib.figure import Figure

    size = (width or (5.4 if count == 1 else 4.6 * count), 3.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        _style(one)
    return figure, axes


def _style(axes: "Axes") -> None:
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _histogram(axes: "Axes", values: np.ndarray, edges: np.ndarray) -> None:
    counts, *_ = axes.hist(values, list(edges), color=_BLUE, alpha=0.8)
    axes.set_ylabel("images")
    axes.set_ylim(0, 1.3 * np.max(counts))  # room for the legend


def _bins(values: np.ndarray) -> np.ndarray:
    """Bin edges that contain all `values`, even if all are equal."""
    low, high = float(values.min()), float(values.max())
    margin = max(1e-3, 1e-3 * abs(low)) if high - low < 1e-6 * max(1, abs(low)) else 0
    return np.linspace(low - margin, high + margin, min(_BINS, max(8, len(values) // 4)) + 1)


def _vector(name: str, values: Any) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name}: expected one number for each image, got shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity.")
    return values


def _check_is(name: str, value: Any, source: str, *attributes: str) -> None:
    # By what it holds: `evaluation` lives on a floor that this file must not import.
    if not all(hasattr(value, attribute) for attribute in attributes):
        raise TypeError(
            f"{name}: expected what evaluation.{source} returns, got {type(value).__name__}."
        )
