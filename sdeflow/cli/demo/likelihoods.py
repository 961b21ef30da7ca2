"""Log-likelihoods of held-out digits by the probability flow, against the closed form."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdeflow import plotting
from sdeflow.cli.demo.section import Picture, Section, Table, number
from sdeflow.cli.demo.setting import Setting
from sdeflow.likelihood import Flow, LogProb, bits_per_dim

__all__ = ["Likelihood", "bin_log_prob", "describe", "estimate"]

METHOD = "bosh3"
TOLERANCES = {"closed form": 1e-3, "Hutchinson": 1e-2, "autodiff": 1e-2}  # loose where an evaluation is dear


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p of some held-out digits, by one way of computing the divergence.

    Attributes:
        divergence: ``"closed form"``, ``"Hutchinson"`` or ``"autodiff"``.
        exact: log p in closed form, ``(N,)``.
        found: log p from the flow, with its error bars.
        seconds: Both solves.
    """

    divergence: str
    exact: Tensor
    found: LogProb
    seconds: float

    @property
    def error(self) -> Tensor:
        """Found − exact, ``(N,)``."""
        return self.found.value.double() - self.exact

    @property
    def half_width(self) -> Tensor:
        """1.96 standard errors of the probes and the claimed solver error, ``(N,)``."""
        return (1.96 * self.found.stderr + self.found.solver_error).double()

    @property
    def covered(self) -> int:
        """How many errors lie within their bars."""
        return int((self.error.abs() <= self.half_width).sum())


def estimate(setting: Setting, divergence: str) -> Likelihood:
    """Solve the flow from the held-out digits to t = 1. The base is the law there: only solver and probes err."""
    truth, process = setting.truth, setting.process
    count = setting.sizes.exact if divergence == "autodiff" else len(setting.held_out)
    ways: dict[str, dict[str, Any]] = {
        "closed form": {"divergence": truth.divergence},
        "Hutchinson": {"divergence": "hutchinson", "probes": setting.sizes.probes, "seed": setting.seed + 3},
        "autodiff": {"divergence": "exact"},
    }
    flow = Flow(
        process.probability_flow(truth.score),
        truth.at(process.interval[1]),
        base_at="end",
        method=METHOD,
        rtol=TOLERANCES[divergence],
        **ways[divergence],
    )
    began = time.perf_counter()
    found = flow.log_prob_with_error(setting.held_out.images[:count])
    return Likelihood(divergence, setting.exact_log_prob[:count], found, time.perf_counter() - began)


def bin_log_prob(setting: Setting, images: Tensor) -> Tensor:
    r"""The exact log-probability that a draw of the law falls into the pixels' bins, ``(N,)``.

    A component is a product over pixels d, so its probability is
    :math:`\prod_d [\Phi((x_d + w/2 - m_d)/h) - \Phi((x_d - w/2 - m_d)/h)]`. x and m are levels, so there are only
    2·levels − 1 different factors: a table.
    """
    levels, width = setting.train.levels, setting.train.bin_width
    steps = torch.arange(1 - levels, levels, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), setting.bandwidth)
    upper = normal.cdf(
        -(steps.abs() - 0.5) * width
    )  # far from the centre, differences of small numbers keep their digits
    lower = normal.cdf(-(steps.abs() + 0.5) * width)
    table = (upper - lower).log()

    def level(x: Tensor) -> Tensor:
        return ((x.flatten(1).double() + 1) / width).round().long()

    x, m = level(images), level(setting.train.images)
    total = torch.zeros(len(x), len(m), dtype=torch.float64)
    for d in range(x.shape[1]):
        total += table[x[:, d, None] - m[None, :, d] + levels - 1]
    return total.logsumexp(1) - math.log(len(m))


def _bits(setting: Setting, log_prob: Tensor) -> float:
    """Mean bits per pixel."""
    images = setting.held_out
    return float(bits_per_dim(log_prob, images.images[0].numel(), images.levels, images.data_range).mean())


def _prior_shift(setting: Setting, closed: Likelihood) -> dict[str, float]:
    """What changes where N(0, I) stands in for the law at t = 1, and how far apart the two are."""
    base, prior = setting.truth.at(1.0), setting.process.prior(setting.law.event_shape)
    shift = prior.log_prob(closed.found.latent) - base.log_prob(closed.found.latent)
    draws = setting.truth.sample(1.0, 10_000, seed=setting.seed + 4)
    gap = base.log_prob(draws) - prior.log_prob(draws)
    return {
        "mean": float(shift.mean()),
        "max": float(shift.abs().max()),
        "kl": float(gap.mean()),
        "kl_stderr": float(gap.std() / len(draws) ** 0.5),
    }


def _figures(one: Likelihood) -> dict[str, Any]:
    error, found = one.error.abs(), one.found
    return {
        "divergence": one.divergence,
        "method": METHOD,
        "count": len(error),
        "rtol": TOLERANCES[one.divergence],
        "error_max": float(error.max()),
        "error_median": float(error.median()),
        "solver_error_max": float(found.solver_error.max()),
        "solver_error_median": float(found.solver_error.median()),
        "stderr_mean": float(found.stderr.mean()),
        "covered": one.covered,
        "evaluations": float(found.stats["nfe_drift"].double().mean()),  # each digit has its own
        "seconds": one.seconds,
    }


def describe(setting: Setting, ways: list[Likelihood], out: Path) -> Section:
    """The picture and the tables of the likelihoods; the closed form first, Hutchinson second."""
    closed, hutchinson = ways[0], ways[1]
    plotting.calibration(
        hutchinson.found.value,
        hutchinson.exact,
        hutchinson.half_width,
        label="1.96 standard errors + solver error",
    ).savefig(out / "likelihood.png")
    figures = [_figures(one) for one in ways]
    rows = [
        [
            f["divergence"],
            f"{f['count']}",
            number(f["error_median"], 2),
            number(f["error_max"], 2),
            number(f["solver_error_max"], 2),
            "0" if f["stderr_mean"] == 0 else number(f["stderr_mean"], 2),
            f"{f['covered']}/{f['count']}",
            f"{f['seconds']:.1f}",
        ]
        for f in figures
    ]
    expected = _student_coverage(setting.sizes.probes - 1, 1.96)
    shift = _prior_shift(setting, closed)
    table = Table(
        "log p of held-out digits by the probability flow",
        (
            "divergence",
            "digits",
            "median |error|",
            "max",
            "claimed",
            "probes",
            "covered",
            "seconds",
        ),
        rows,
        "Errors in nats against the closed form; claimed: the largest solver error that is claimed; probes: their "
        "mean standard error. Covered: |error| ≤ 1.96 standard errors + claimed solver error. A standard error from "
        f"{setting.sizes.probes} probes is itself uncertain, so {100 * expected:.0f} % is what 1.96 of them should "
        "cover (Student's t), not 95 %. "
        f"The base is the exact law at t = 1. N(0, I) in its place would shift log p by {number(shift['mean'], 2)} "
        "nats on average and "
        f"{number(shift['max'], 2)} at most; KL(p₁ ‖ N(0, I)) = {number(shift['kl'], 2)} ± "
        f"{number(shift['kl_stderr'], 1)} nats.",
    )
    bits = {
        "density × bin, closed form": _bits(setting, setting.exact_log_prob),
        "density × bin, probability flow": _bits(setting, closed.found.value.double()),
        "dequantised digits, closed form": _bits(
            setting, setting.law.log_prob(setting.held_out.dequantised(seed=setting.seed + 5).images.double())
        ),
    }
    size = setting.held_out.images[0].numel()
    bits["exact probability of the bins"] = float(
        -bin_log_prob(setting, setting.held_out.images).mean() / (size * math.log(2))
    )
    code = Table(
        "Bits per pixel of the held-out digits",
        ("what", "bits per pixel"),
        [[name, f"{value:.4f}"] for name, value in bits.items()],
        f"The law is a density, a digit is {size} integers from 0 to 16. Only the exact probability of the bins is "
        "the length of a lossless code. "
        f"A density times the volume of a bin (bits_per_dim) comes close where the density hardly bends across a bin "
        f"({setting.train.bin_width:g}, against a bandwidth of {setting.bandwidth:.3f}); on dequantised digits it is "
        "an upper bound, in the mean. "
        f"A uniform code takes {math.log2(17):.2f}.",
    )
    return Section(
        "likelihood",
        "Likelihoods with error bars",
        "The probability flow carries each held-out digit to noise, and the integral of its divergence gives log p. "
        "The law's own "
        "density is the truth. The divergence is computed in three ways: in closed form, passed as a function; by "
        "Hutchinson's random probes, "
        "whose spread gives a standard error; and exactly, by automatic differentiation. Each is solved twice, and "
        "the difference is the "
        "claimed solver error.",
        [table, code],
        [
            Picture(
                "likelihood.png",
                f"Hutchinson's estimates with {setting.sizes.probes} probes for each of {len(hutchinson.exact)} "
                "held-out digits, with error "
                f"bars. Left: they follow the diagonal. Right: the bars should cover 0 in about {100 * expected:.0f} "
                "% of the digits, "
                "at likely and unlikely digits alike; they do in "
                f"{100 * hutchinson.covered / len(hutchinson.exact):.0f} %.",
                "Two panels: estimated against exact log-likelihood, and the errors with error bars, sorted by exact "
                "log-likelihood.",
            )
        ],
        {"ways": figures, "expected_coverage": expected, "prior_shift": shift, "bits_per_dim": bits},
    )


def _student_coverage(degrees: int, width: float) -> float:
    """P(|T| ≤ width) of Student's t, by Simpson's rule."""
    u = torch.linspace(-width, width, 2001, dtype=torch.float64)
    density = torch.distributions.StudentT(float(degrees)).log_prob(u).exp()
    weights = torch.ones_like(u)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float((weights * density).sum() * (u[1] - u[0]) / 3)
