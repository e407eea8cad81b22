"""How the weight of the KL rises while training."""

import abc
from typing import Any

import tensorflow as tf

from tfp_vae import _support


class WarmUp(abc.ABC):
    """A weight of the KL that depends on the number of optimizer steps done.

    It is computed from the optimizer's own counter, so a run that is resumed goes on with it.

    Args:
        steps: of one rise from 0 to `final`.
        final: the weight at the end, which evaluation uses throughout.

    Raises:
        ValueError: `steps` below 1, or a weight that is negative or not finite.
    """

    def __init__(self, steps: int, final: float = 1.0) -> None:
        self.steps = _support.check_positive_int("steps", steps)
        self.final = _support.check_number("final", final)

    @abc.abstractmethod
    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The weight after `step` optimizer steps."""

    def get_config(self) -> dict[str, Any]:
        return {"steps": self.steps, "final": self.final}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        return cls(**config)


@_support.register
class LinearWarmUp(WarmUp):
    """``final * min(1, step / steps)``.

    Source: Bowman et al. 2016, arXiv:1511.06349, section 3.1; Sønderby et al. 2016,
    arXiv:1602.02282, section 2.3.

    Example:
        >>> from tfp_vae import objectives
        >>> warm_up = objectives.LinearWarmUp(1000)
        >>> [float(warm_up(step)) for step in (0, 250, 5000)]
        [0.0, 0.25, 1.0]
    """

    def __call__(self, step: Any) -> tf.Tensor:
        return self.final * tf.minimum(tf.cast(step, tf.float32) / self.steps, 1)


@_support.register
class CyclicalWarmUp(WarmUp):
    """`cycles` times from 0 to `final`; each rises for a part of its steps and then holds.

    With ``tau = (step mod steps) / steps`` the weight is ``final * min(1, tau / rising)``, and
    `final` after the last cycle.

    Args:
        steps: of one cycle.
        final: the weight at the end of each cycle, and after the last.
        cycles: how many.
        rising: the part of a cycle in which the weight rises, in (0, 1].

    Raises:
        ValueError: a number below 1, a weight below 0, or `rising` out of its range.

    Source: Fu et al. 2019, arXiv:1903.10145, eq. 6 and 7.
    """

    def __init__(
        self, steps: int, final: float = 1.0, cycles: int = 4, rising: float = 0.5
    ) -> None:
        super().__init__(steps, final)
        self.cycles = _support.check_positive_int("cycles", cycles)
        if not 0 < rising <= 1:
            raise ValueError(f"rising: expected a number in (0, 1], got {rising!r}.")
        self.rising = float(rising)

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step, tf.int64)
        within = tf.cast(step % self.steps, tf.float32) / (self.rising * self.steps)
        weight = tf.where(step < self.cycles * self.steps, tf.minimum(within, 1), 1)
        return self.final * weight

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cycles": self.cycles, "rising": self.rising}
