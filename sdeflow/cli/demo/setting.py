"""What the demo works on: real digits, a law around them whose score is known, and a process."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdeflow.data import LevelImages, digits
from sdeflow.laws import Along, GaussianMixture, kernel_density
from sdeflow.processes import VariancePreserving

__all__ = ["FULL", "QUICK", "Setting", "Sizes", "prepare"]


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        fitted: Digits that the kernel density is made of.
        held_out: Digits whose likelihood is computed.
        returned: Digits that are noised and brought back.
        steps: Steps of those solves.
        probes: Hutchinson probes for each digit.
        exact: Digits whose divergence is computed by automatic differentiation.
        racers: Digits in the race.
        ladder: Numbers of steps in the race.
        reference: Steps of the reference of the stochastic race.
        particles: Particles of each heat map.
        pace: How long it takes, compared with the full demo.
    """

    fitted: int = 1500
    held_out: int = 297
    returned: int = 192
    steps: int = 100
    probes: int = 8
    exact: int = 32
    racers: int = 16
    ladder: tuple[int, ...] = (8, 16, 32, 64, 128)
    reference: int = 384
    particles: int = 16_000
    pace: float = 1.0


FULL = Sizes()
QUICK = Sizes(
    fitted=250,
    held_out=64,
    returned=64,
    steps=50,
    exact=8,
    racers=8,
    ladder=(8, 16, 32),
    reference=128,
    particles=4_000,
    pace=0.2,
)


@dataclass(frozen=True, eq=False)
class Setting:
    """The common ground of all parts.

    Attributes:
        sizes: How much of everything.
        seed: Every draw of the demo is a function of it.
        train: The digits around which the law is.
        held_out: Digits that it has not seen.
        law: A normal distribution around each digit of ``train``, of a width chosen by leave-one-out likelihood.
        process: The noising process, data at 0, noise at 1.
        truth: The law along the process: density, score, velocity and divergence in closed form at every time.
    """

    sizes: Sizes
    seed: int
    train: LevelImages
    held_out: LevelImages
    law: GaussianMixture
    process: VariancePreserving
    truth: Along

    @property
    def bandwidth(self) -> float:
        """The standard deviation of the law's components, in units of a pixel's range [−1, 1]."""
        return float(self.law.covariances[0].sqrt())

    @property
    def exact_log_prob(self) -> Tensor:
        """log p of the held-out digits in closed form, float64, ``(N,)``."""
        return self.law.log_prob(self.held_out.images.double())


def prepare(sizes: Sizes, seed: int) -> Setting:
    """Split the digits, fit the law, make the process."""
    train, held_out = digits().split(sizes.held_out, seed=seed)
    train = train[: sizes.fitted]
    law = kernel_density(train.images)
    process = VariancePreserving()
    return Setting(sizes, seed, train, held_out, law, process, law.along(process))
