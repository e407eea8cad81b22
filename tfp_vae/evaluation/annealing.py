"""``log p(x)`` by annealed importance sampling: a check that does not depend on the encoder."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_vae import _support
from tfp_vae.evaluation import common
from tfp_vae.objectives import marginals
from tfp_vae.vae import VAE, chunks

_STARTS = ("prior", "posterior")
_MOMENT_SAMPLES = 100


def check_start(label: str, start: Any) -> None:
    """Refuse an unknown start, with its `label`.

    Raises:
        ValueError: it is none of those.
    """
    if start not in _STARTS:
        raise ValueError(f"{label}: expected one of {', '.join(_STARTS)}, got {start!r}.")


@dataclasses.dataclass(frozen=True)
class AnnealedImportanceSampling(common.Result):
    """Likelihoods of `annealed_importance_sampling`; ``B`` images, ``C`` chains, nats.

    Attributes:
        num_steps: temperatures between start and posterior.
        num_chains: ``C``.
        start: "prior" or "posterior".
        log_likelihood: ``log (1/C) sum_c w_c`` of each image, shape (B,).
        standard_error: of each image's value, by the delta method over the chains, shape (B,).
        effective_sample_size: ``(sum w)^2 / sum w^2``, between 1 and C, shape (B,). Near 1 the
            value depends on a single chain and is too low: take more steps.
        mean_log_weight: the mean of ``log w_c``, a lower bound in expectation, shape (B,).
        acceptance_rate: of the Hamiltonian steps of each image, shape (B,).
        mean_log_likelihood: over the images.
        monte_carlo_error: ``sqrt(sum standard_error^2) / B``.
    """

    num_steps: int
    num_chains: int
    start: str
    log_likelihood: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray
    mean_log_weight: np.ndarray
    acceptance_rate: np.ndarray
    mean_log_likelihood: common.Estimate
    monte_carlo_error: float


def annealed_importance_sampling(
    vae: VAE,
    x: Any,
    num_steps: int = 1000,
    num_chains: int = 16,
    seed: Any = None,
    *,
    start: str = "prior",
    step_size: float = 0.5,
    num_leapfrog_steps: int = 10,
    verbose: Any = "auto",
) -> AnnealedImportanceSampling:
    """``log p(x)`` of each image by chains that go from the prior to the posterior in small steps.

    A chain starts at ``z_0 ~ p_0`` and takes one Hamiltonian step, from ``z_{t-1}`` to ``z_t``, at
    each of ``log p_t(z) = (1 - t / T) log p_0(z) + (t / T) log p(z) p(x|z)``, ``t = 1 .. T``. Its
    weight is ``log w = (1/T) sum_t (log p(z_{t-1}) p(x|z_{t-1}) - log p_0(z_{t-1}))``, taken at the
    points before each step. ``E[w] = p(x)`` for any ``T``, and the variance of ``w`` falls as ``T``
    rises. With ``p_0 = p(z)`` the encoder only sets the step sizes, so the result can show that
    `importance_sampling` is too low.

    Args:
        vae: the model; the likelihood must be differentiable in ``z``.
        x: images, shape (B, height, width, channels).
        num_steps: ``T``.
        num_chains: chains for each image.
        seed: integer or stateless seed; by default the model's own stream.
        start: ``p_0``: "prior", or "posterior" for ``q(z|x)``, which is nearer.
        step_size: step of the leapfrog integrator, in standard deviations of ``q(z|x)`` for each
            image and dimension. With a good choice at least two of three steps are accepted.
        num_leapfrog_steps: leapfrog steps in one Hamiltonian step.
        verbose: 0 for silence, 1 for a progress bar, "auto" for one when it takes several pieces.

    Raises:
        TypeError: `vae` is no `VAE`.
        ValueError: wrong images, a count below 1, an unknown `start`, a `step_size` not above 0, or
            weights that are not finite.

    Source: Wu et al. 2017, arXiv:1611.04273, sections 2.2 and 3; Neal 2001, Statistics and
    Computing 11:125.
    """
    counts = {"num_steps": num_steps, "num_chains": num_chains}
    x, seed = common.arguments(vae, x, seed, **counts, num_leapfrog_steps=num_leapfrog_steps)
    check_start("start", start)
    _support.check_number("step_size", step_size, positive=True)

    # The gradient holds about twice the memory of the densities alone.
    size = min(_support.count(x), max(1, chunks.at_once(vae, x) // (2 * num_chains)))
    # TFP's loop takes no batch of unknown size: the last piece is filled up to that of the others.
    spec = tf.nest.map_structure(lambda p: tf.TensorSpec([size, *p.shape[1:]], p.dtype), x)

    @tf.function(autograph=False, input_signature=[spec, common.SEED])
    def anneal(x: Any, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Log-weights, shape (C, B), and acceptance rates, shape (B,)."""
        first, moments_seed, chain_seed = tf.unstack(tf.random.split(seed, 3))
        posterior, prior = vae.encode(x), vae.prior()
        x, decode = vae.given(x)
        _, variance, _ = marginals.moments(posterior, _MOMENT_SAMPLES, moments_seed)
        begin, shape = (prior, [num_chains, size]) if start == "prior" else (posterior, num_chains)
        _, log_w, results = tfp.mcmc.sample_annealed_importance_chain(
            num_steps,
            proposal_log_prob_fn=begin.log_prob,
            target_log_prob_fn=lambda z: prior.log_prob(z) + decode(z).log_prob(x),
            current_state=begin.sample(shape, seed=first),
            make_kernel_fn=lambda target: _Fresh(
                tfp.mcmc.HamiltonianMonteCarlo(
                    target, step_size * tf.sqrt(variance), num_leapfrog_steps
                )
            ),
            parallel_iterations=1,
            seed=chain_seed,
        )
        accepted = tf.reduce_mean(results.inner_results.accepted, 0) / num_steps
        return log_w, accepted

    found = []
    for first, piece in chunks.pieces(x, size, verbose):
        count = _support.count(piece)
        full = _support.take(piece, np.minimum(np.arange(size), count - 1))
        parts = [
            np.asarray(part, np.float64)[..., :count]
            for part in anneal(full, tf.random.fold_in(seed, first))
        ]
        common.check_finite(first, **{"log w": np.isfinite(parts[0]).all(0)})
        found.append(parts)
    log_w, accepted = (np.concatenate(parts, -1) for parts in zip(*found, strict=True))
    value, error, ess = common.of_log_weights(log_w)
    return AnnealedImportanceSampling(
        **counts,
        start=start,
        log_likelihood=value,
        standard_error=error,
        effective_sample_size=ess,
        mean_log_weight=log_w.mean(0),
        acceptance_rate=accepted,
        mean_log_likelihood=common.Estimate.of(value),
        monte_carlo_error=common.joint_error(error),
    )


class _FreshResults(NamedTuple):
    inner_results: Any
    accepted: tf.Tensor


class _Fresh(tfp.mcmc.TransitionKernel):
    """A kernel that looks at its target anew before each step, and counts accepted steps.

    TFP hands each temperature's kernel what the one before knew of the state: density and gradient
    at *its* temperature. The step would accept by the wrong ratio and leave no distribution as it
    was.
    """

    def __init__(self, inner: tfp.mcmc.TransitionKernel) -> None:
        self._inner = inner

    @property
    def is_calibrated(self) -> bool:
        return self._inner.is_calibrated

    def bootstrap_results(self, state: tf.Tensor) -> _FreshResults:
        results = self._inner.bootstrap_results(state)
        return _FreshResults(results, tf.zeros_like(results.log_accept_ratio))

    def one_step(
        self, state: tf.Tensor, results: _FreshResults, seed: Any = None
    ) -> tuple[tf.Tensor, _FreshResults]:
        fresh = self._inner.bootstrap_results(state)
        state, inner = self._inner.one_step(state, fresh, seed=seed)
        accepted = results.accepted + tf.cast(inner.is_accepted, results.accepted.dtype)
        return state, _FreshResults(inner, accepted)
