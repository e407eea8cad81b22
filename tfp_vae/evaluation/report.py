"""All evaluations of one model on one set of images."""

import dataclasses
import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tensorflow_probability import distributions as tfd

from tfp_vae import _support
from tfp_vae.evaluation import common
from tfp_vae.evaluation.aggregate import aggregate_posterior
from tfp_vae.evaluation.annealing import annealed_importance_sampling, check_start
from tfp_vae.evaluation.decomposition import kl_decomposition
from tfp_vae.evaluation.elbo import elbo_terms
from tfp_vae.evaluation.importance import importance_sampling
from tfp_vae.evaluation.refinement import amortization_gap, check_betas, rate_distortion
from tfp_vae.evaluation.usage import latent_usage
from tfp_vae.layers import AutoregressivePixels, quantized
from tfp_vae.vae import VAE

_PARTS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        elbo_terms,
        importance_sampling,
        latent_usage,
        kl_decomposition,
        aggregate_posterior,
        annealed_importance_sampling,
        amortization_gap,
        rate_distortion,
    )
}
_LEAST = {("latent_usage", "num_samples"): 2, ("aggregate_posterior", "num_draws"): 2}
_REQUIRED = ("elbo_terms", "importance_sampling")  # a report without them would say nothing

#: Arguments of each part of `full_report`; without `num_images` a part takes all of them.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "elbo_terms": {"num_samples": 10},
    "importance_sampling": {"num_samples": 100},
    "latent_usage": {},
    "kl_decomposition": {"num_images": 2000, "num_samples": 1},
    "aggregate_posterior": {"num_images": 2000, "num_draws": 1000, "num_repeats": 100},
    "annealed_importance_sampling": {"num_images": 12, "num_steps": 400, "num_chains": 4},
    "amortization_gap": {"num_images": 50, "num_steps": 200, "num_samples": 50},
    "rate_distortion": {
        "num_images": 20,
        "betas": (0.1, 0.3, 1.0, 3.0, 10.0),
        "num_steps": 200,
        "num_samples": 50,
    },
}
#: Settings of `full_report` for a first look.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "kl_decomposition": {"num_images": 500},
    "aggregate_posterior": {"num_images": 500, "num_draws": 300},
    "annealed_importance_sampling": {"num_images": 5, "num_steps": 200},
    "amortization_gap": {"num_images": 10, "num_steps": 100},
    "rate_distortion": {"num_images": 5, "betas": (0.3, 1.0, 3.0), "num_steps": 100},
}


@dataclasses.dataclass(frozen=True)
class Part(common.Result):
    """One evaluation of a `Report`.

    Attributes:
        num_images: how many images it used, from the first on.
        settings: the other arguments.
        seconds: how long it took.
        result: what the function of that name returned; `None` if the model or the images do not
            allow it.
        unavailable: in that case the reason, in words; otherwise empty.
    """

    num_images: int
    settings: dict[str, Any]
    seconds: float
    result: Any
    unavailable: str


@dataclasses.dataclass(frozen=True)
class Report(common.Result):
    """Results of `full_report`.

    Attributes:
        num_images: how many there were.
        image_shape: (height, width, channels).
        latent_dim: the number of latent dimensions.
        posterior: the class of ``q(z|x)``, and likewise
        likelihood: of ``p(x|z)``,
        prior: of ``p(z)``.
        seed: an integer; with it, each function alone gives the figures of its part.
        remarks: what a reader must know about the figures, in words.
        parts: a `Part` for each function, by its name.
    """

    num_images: int
    image_shape: tuple[int, ...]
    latent_dim: int
    posterior: str
    likelihood: str
    prior: str
    seed: int
    remarks: tuple[str, ...]
    parts: dict[str, Part]


def full_report(
    vae: VAE,
    x: Any,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seed: Any = None,
    *,
    verbose: Any = "auto",
) -> Report:
    """`elbo_terms`, `importance_sampling` and what else needs images alone, in one object.

    The cheap evaluations use all images; the expensive ones use only the first few, as given in
    `SETTINGS` and in the report. What a model does not allow, such as marginals of an
    autoregressive posterior, is reported with the reason.

    Args:
        vae: the model.
        x: images, shape (B, height, width, channels).
        settings: other arguments for some parts, by the name of the function, as in `SETTINGS`:
            ``{"importance_sampling": {"num_samples": 5000}}``. `QUICK` is an example.
        seed: integer or stateless seed, the same for every part; by default the model's own
            stream.
        verbose: 0 for silence. Otherwise the name of each part is printed, with a progress bar: 1
            for one always, "auto" for one when the part takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images or settings, or an ELBO or importance weights that are not finite.
    """
    chosen = _chosen(settings or {})
    x, own = common.arguments(vae, x, seed)
    number = _as_integer(own)
    parts = {}
    for i, (name, function) in enumerate(_PARTS.items()):
        arguments = dict(chosen[name])
        images = _support.take(x, slice(arguments.pop("num_images", None)))
        count = _support.count(images)
        if verbose:
            words = name.replace("_", " ")
            print(f"{i + 1}/{len(_PARTS)} {words}: {count:,} images", flush=True)
        result, unavailable, start = None, "", time.perf_counter()
        try:
            result = function(vae, images, **arguments, seed=number, verbose=verbose)
        except (common.NotAvailableError, NotImplementedError) as error:
            if name in _REQUIRED:
                raise
            unavailable = str(error)
        seconds = time.perf_counter() - start
        parts[name] = Part(count, arguments, seconds, result, unavailable)
    one = _support.take(x, slice(1))
    posterior, prior = vae.encode(one), vae.prior()
    likelihood = vae.given(one)[1](prior.sample(1, seed=own))
    pixels, _ = _support.split_labels(x)
    return Report(
        num_images=len(pixels),
        image_shape=tuple(pixels.shape[1:]),
        latent_dim=vae.latent_dim,
        posterior=_class(posterior),
        likelihood=_class(likelihood),
        prior=_class(prior),
        seed=number,
        remarks=_remarks(likelihood, np.asarray(pixels), vae.num_classes is not None),
        parts=parts,
    )


def _chosen(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`SETTINGS` with changes, checked before anything is computed."""
    for name, changes in settings.items():
        if name not in _PARTS:
            raise ValueError(f"settings: expected parts among {', '.join(_PARTS)}, got {name!r}.")
        known = list(inspect.signature(_PARTS[name]).parameters)[2:]
        if name not in _REQUIRED:  # which others are compared with, image by image
            known = ["num_images", *known]
        known = [argument for argument in known if argument not in ("seed", "verbose")]
        for argument, value in changes.items():
            label = f"settings: {name}: {argument}"
            if argument not in known:
                raise ValueError(f"{label}: expected one of {', '.join(known)}.")
            if argument.startswith("num_"):
                _support.check_int(label, value, _LEAST.get((name, argument), 1))
            if argument == "betas":
                check_betas(value)
            if argument == "start":
                check_start(label, value)
            if argument in ("step_size", "learning_rate"):
                _support.check_number(label, value, positive=True)
            if argument == "threshold":
                _support.check_number(label, value)
    return {name: {**SETTINGS[name], **settings.get(name, {})} for name in _PARTS}


def _as_integer(seed: Any) -> int:
    """The integer from which `_support.stateless_seed` makes this seed of two halves."""
    high, low = (int(half) & 0xFFFFFFFF for half in np.asarray(seed))
    return high << 32 | low


def _class(distribution: tfd.Distribution) -> str:
    """The name of its class, and of the one within a `tfd.Independent`."""
    name = type(distribution).__name__.lstrip("_")
    if name == "Independent":
        return f"Independent({_class(distribution.distribution)})"
    return name


def _remarks(likelihood: tfd.Distribution, x: np.ndarray, conditional: bool) -> tuple[str, ...]:
    said = _of_likelihood(likelihood, x)
    if not conditional:
        return said
    return (
        "The model was told the class y of each image: what is called p(x), q(z|x) and p(x|z) here "
        "is p(x|y), q(z|x, y) and p(x|z, y), not to be compared with models without labels.",
        *said,
    )


def _of_likelihood(likelihood: tfd.Distribution, x: np.ndarray) -> tuple[str, ...]:
    base = getattr(likelihood, "distribution", likelihood)
    binary = isinstance(base, (tfd.Bernoulli, AutoregressivePixels))
    if binary and not np.isin(x, (0, 1)).all():
        return (
            "The images are grey and the likelihood is a Bernoulli, which is no density of grey "
            "pixels: log p(x), the ELBO and the bits are values of the training objective, not to "
            "be compared with the likelihoods of other models.",
        )
    if isinstance(base, (tfd.Normal, tfd.ContinuousBernoulli)):
        return (
            "p(x) is a density of pixels in [0, 1]: of 8-bit pixels, which lie 1/255 apart, the "
            "bits per dimension are log2(255) = 7.99 more.",
        )
    base = getattr(base, "components_distribution", base)
    if (
        isinstance(base, quantized.QuantizedLogistic)
        and np.abs(255 * x - np.rint(255 * x)).max() > 0.01
    ):
        return (
            "The likelihood is a probability of 8-bit pixels, 0/255 to 255/255, and the images "
            "have values between: log p(x), the ELBO and the bits are those of no probability.",
        )
    return ()
