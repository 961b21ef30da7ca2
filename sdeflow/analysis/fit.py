r"""The slope of errors against step sizes, with an interval that covers the true order as often as it says.

Errors of a method of order p have an expansion :math:`E(h) = C h^p (1 + c_1 h + c_2 h^2 + \dots)`,
some in powers of :math:`\sqrt h`, so

.. math:: \log E(h) = \log C + p \log h + f(h), \qquad
    f(h) = \sum_{j \ge 1} a_j r^j, \qquad r = \frac{h}{h_*} \ \text{ or } \ r = \frac{h}{h + h_*} .

A straight line through all points takes the bend f for slope; a line through the finest points wastes the others, and
its interval knows nothing of the bend that is left. Here f is a random function with :math:`a_j \sim N(0, 1)`: a series
in :math:`h / h_*`, or in :math:`h / (h + h_*)`, which has the same powers as h → 0 and stays bounded where the first one
diverges (as bends like 1/(1 + h/h*) do). Which of the two it is, and :math:`h_*`, are weighed by how likely they make
the data, and p is what is left over when f is integrated out: a generalised least squares fit whose covariance is the
sum of

- the sampling covariance of the log errors, from a bootstrap over paths (a path is drawn with its errors at all step
  sizes, since these are of the same noise);
- the covariance of the bend, :math:`\sum_j (r r')^j`;
- a scatter from point to point: for an ODE of a size that is weighed too, for sampled errors next to nothing.

With the first series alone, a bend that levels off at coarse steps, with powers of √h above all, is fitted by one that is
too small, and what is left is taken for slope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError, choose

__all__ = ["KINDS", "OrderFit", "fit_order"]

KINDS = ("strong", "weak", "ode")

POWERS = {"whole": (1.0, 3), "half": (0.5, 4)}  # of h in the bend: the first, and how many multiples of it
MOST_BEND = 1.0  # the fitted |f| at the coarsest step of the range
ABOVE_FLOOR = {"strong": 8.0, "weak": 5.0, "ode": 8.0}  # an error that is fitted is at least so many floors
FEWEST = 3  # points that make a fit

# h* in units of the coarsest step of the range, and the scatter of log E: what is weighed against the data. The bounded series
# has h* ≥ 1 only: with smaller ones it is all but constant at coarse steps, and any slope fits few points.
BEND_SCALES = tuple(2.0**k for k in range(-2, 4))
SCATTER = {"strong": (0.001,), "weak": (0.001,), "ode": tuple(10.0 ** (-k / 2) for k in range(2, 9))}


@dataclass(frozen=True)
class OrderFit:
    """A slope, its interval, and the points that it was fitted to.

    Attributes:
        slope: The order, the median of its posterior law.
        low: The lower end of the interval.
        high: The upper end.
        level: The probability of the interval.
        dts: The step sizes, decreasing.
        errors: The error at each: root-mean-square (strong), mean with its sign (weak), or as given (ode).
        stderr: The bootstrap standard error of each; 0 for an ODE.
        floor: What each error cannot be seen below: what was told, or the standard error (weak).
        used: (first, stop), the range of the points of the fit: those before are pre-asymptotic, those after at the floor.
        bent: Whether the range, with no points to spare, begins with a pre-asymptotic one: smaller steps are needed, and the
            interval is not to be trusted.
    """

    slope: float
    low: float
    high: float
    level: float
    dts: tuple[float, ...]
    errors: tuple[float, ...]
    stderr: tuple[float, ...]
    floor: tuple[float, ...]
    used: tuple[int, int]
    bent: bool = False

    def __str__(self) -> str:
        first, stop = self.used
        return (
            f"order {self.slope:.2f} ({100 * self.level:g} % interval {self.low:.2f} to {self.high:.2f}), fitted to "
            f"{stop - first} of {len(self.dts)} step sizes, {self.dts[first]:.3g} to {self.dts[stop - 1]:.3g}"
            f"{'; these are not yet asymptotic: take smaller steps' if self.bent else ''}"
        )


def fit_order(
    dts: Sequence[float] | Tensor,
    errors: Tensor,
    *,
    kind: str = "strong",
    floor: float = 0.0,
    powers: str = "whole",
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> OrderFit:
    """The order that errors at several step sizes show, with an interval.

    The range of the fit is chosen by two rules. *Floor*: from the first error, coarse to fine, that is below 8 floors (weak:
    5 of its standard errors), points are left out. *Pre-asymptotic*: while the fitted bend at the coarsest step is more than
    1 in log E, a factor of e, that step is left out and the rest fitted again, as long as there are at least as many points
    left as the bend has powers, and one more: 4, with half powers 5.

    The interval is from a bootstrap over the paths and from the law of the bend (see the module's text). On the synthetic
    data of ``benchmarks/order_estimator.py`` it covers the true slope as often as its level says; of harder bends, waves and
    such as level off within a few steps, which stand there too, less often.

    Arguments:
        dts: K step sizes, each once.
        errors: For ``"strong"``, the distance to the truth of each path at each step size, with shape ``(N, K)``; for
            ``"weak"``, what is averaged, such as φ(x) − φ(truth) on one path, with its sign, ``(N, K)``; for ``"ode"``, the
            error at each step size, ``(K,)``.
        kind: What is fitted: the root-mean-square over paths, the modulus of the mean, or the errors as they are.
        floor: An error that was made besides (rounding, the error of a reference), independent of the step size, known to
            within a factor of two; for weak errors the standard error is one already.
        powers: The bend is a series in powers of h (``"whole"``), as for ODEs, mean squares and expectations of smooth
            problems; or in powers of √h (``"half"``), as for methods with √h in their stages. With half powers, intervals are
            about twice as wide; with whole powers where half ones are needed, they cover less often than they say.
        level: The probability of the interval.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ArgumentError: A shape or a value is wrong, or fewer than 3 errors are above the floor.

    References:
        A bend that is a random function: Bayesian calibration of computer models (Kennedy & O'Hagan, 2001),
        https://doi.org/10.1111/1467-9868.00294

    Example:
        >>> h = 2.0 ** -torch.arange(2, 9).double()
        >>> fit = sf.analysis.fit_order(h, 3 * h**1.5 * (1 + h), kind="ode")
        >>> print(f"{fit.slope:.2f}")
        1.50
        >>> fit.low < 1.5 < fit.high
        True
    """
    choose("kind", kind, KINDS)
    choose("powers", powers, POWERS)
    steps, values = _checked(dts, errors, kind, floor, level, resamples)
    order = steps.argsort(descending=True)
    steps, values = steps[order], values[..., order]
    means, replicates = _statistics(values, kind, resamples, seed)
    stderr = torch.zeros_like(means) if replicates is None else replicates.std(0)
    floors = torch.maximum(stderr, torch.full_like(stderr, floor)) if kind == "weak" else torch.full_like(means, floor)
    visible = (means.abs() > ABOVE_FLOOR[kind] * floors) & (means != 0)
    stop = int(visible.long().cumprod(0).sum())
    if stop < FEWEST:
        raise ArgumentError(
            f"{stop} of {len(steps)} errors, from the coarsest step on, are more than {ABOVE_FLOOR[kind]:g} times their floor, "
            f"and a slope needs {FEWEST}; give larger dts{', or more paths' if kind != 'ode' else ''}."
        )
    log = _log_errors(means, floor, kind)[:stop]
    if replicates is not None:
        sampling = torch.cov(_log_errors(replicates, floor, kind)[:, :stop].mT)
    else:  # a floor has either sign
        sampling = (floor / means[:stop]).square().diag()
    first, least = 0, 1 + POWERS[powers][1]
    while True:
        used = slice(first, stop)
        posterior = _posterior(steps[used], log[used], sampling[used, used], kind, powers)
        bent = abs(posterior.bend) > MOST_BEND
        if not bent or stop - first <= least:
            break
        first += 1
    tail = (1 - level) / 2
    return OrderFit(
        posterior.quantile(0.5),
        posterior.quantile(tail),
        posterior.quantile(1 - tail),
        level,
        tuple(steps.tolist()),
        tuple(means.tolist()),
        tuple(stderr.tolist()),
        tuple(floors.tolist()),
        (first, stop),
        bent,
    )


def _checked(
    dts: Sequence[float] | Tensor, errors: Tensor, kind: str, floor: float, level: float, resamples: int
) -> tuple[Tensor, Tensor]:
    values = torch.as_tensor(errors, dtype=torch.float64).detach()
    steps = torch.as_tensor(dts, dtype=torch.float64, device=values.device).flatten()
    wanted = "(K,)" if kind == "ode" else "(N, K) with N ≥ 20"
    axes = 1 if kind == "ode" else 2
    if values.ndim != axes or values.shape[-1] != len(steps) or (axes == 2 and len(values) < 20):
        raise ArgumentError(
            f"the errors have shape {tuple(values.shape)} and there are {len(steps)} dts; kind={kind!r} takes {wanted}."
        )
    if not bool((steps > 0).all()) or len(steps.unique()) < len(steps):
        raise ArgumentError(f"dts={steps.tolist()} are not positive numbers that differ.")
    if not bool(values.isfinite().all()):
        raise ArgumentError("some errors are infinite or NaN; leave out the step sizes at which the solve fails.")
    if not (math.isfinite(floor) and floor >= 0):
        raise ArgumentError(f"floor={floor!r} is not a number ≥ 0.")
    if not 0 < level < 1:
        raise ArgumentError(f"level={level!r} is not between 0 and 1.")
    if resamples < 100:
        raise ArgumentError(f"resamples={resamples!r} are too few for an interval; give at least 100.")
    return steps, values


def _statistics(values: Tensor, kind: str, resamples: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """The error at each step size, and the same of bootstrap resamples of the paths."""
    if kind == "ode":
        return values.abs(), None
    summands = values.square() if kind == "strong" else values
    generator = torch.Generator(device=values.device).manual_seed(seed)
    n = len(values)
    drawn = torch.randint(n, (resamples, n), generator=generator, device=values.device)
    drawn += n * torch.arange(resamples, device=values.device)[:, None]
    counts = torch.bincount(drawn.flatten(), minlength=resamples * n).reshape(resamples, n)
    means, replicates = summands.mean(0), counts.to(values.dtype) @ summands / n
    return (means.sqrt(), replicates.sqrt()) if kind == "strong" else (means, replicates)


def _log_errors(errors: Tensor, floor: float, kind: str) -> Tensor:
    """log of the errors, without the floor, which adds to them in quadrature; half of an error always remains."""
    size = errors.abs().clamp_min(torch.finfo(torch.float64).tiny)
    if kind != "strong":
        return size.log()
    return 0.5 * torch.maximum(size.square() - floor**2, size.square() / 4).log()


@dataclass(frozen=True)
class _Posterior:
    """The law of the slope: a mixture of normals, one for each bend and scatter. And the bend at the coarsest step."""

    weights: Tensor
    means: Tensor
    deviations: Tensor
    bend: float

    def quantile(self, q: float) -> float:
        low = float((self.means - 40 * self.deviations).min())
        high = float((self.means + 40 * self.deviations).max())
        while high - low > 1e-9 * (1 + abs(low)):
            middle = (low + high) / 2
            below = float(self.weights @ torch.special.ndtr((middle - self.means) / self.deviations))
            low, high = (middle, high) if below < q else (low, middle)
        return (low + high) / 2


def _posterior(steps: Tensor, log: Tensor, sampling: Tensor, kind: str, powers: str) -> _Posterior:
    """Generalised least squares for (log C, p) with each bend and scatter, weighed by the marginal likelihood."""
    device = steps.device
    scales = steps[0] * torch.tensor(BEND_SCALES, dtype=torch.float64, device=device)
    scatter = torch.tensor(SCATTER[kind], dtype=torch.float64, device=device)
    lowest, count = POWERS[powers]
    ratio = (steps[:, None] / scales[:, None, None]) ** lowest
    ratio = torch.cat([ratio, (ratio / (1 + ratio))[scales >= steps[0]]])
    bends = ratio ** torch.arange(1, count + 1, dtype=torch.float64, device=device)
    bends, scatter = bends.repeat_interleave(len(scatter), 0), scatter.repeat(len(bends))
    identity = torch.eye(len(steps), dtype=torch.float64, device=device)
    covariance = sampling + bends @ bends.mT + scatter.square()[:, None, None] * identity
    x = steps.log()
    design = torch.stack([torch.ones_like(x), x - x.mean()], 1)
    root = torch.linalg.cholesky(covariance)
    whitened = torch.linalg.solve_triangular(root, design.expand(len(root), -1, -1), upper=False)
    target = torch.linalg.solve_triangular(root, log[:, None].expand(len(root), -1, -1), upper=False)
    information = whitened.mT @ whitened
    estimate = torch.linalg.solve(information, whitened.mT @ target)
    residual = target - whitened @ estimate
    evidence = (
        -0.5 * residual.square().sum((1, 2))
        - root.diagonal(dim1=1, dim2=2).log().sum(1)
        - 0.5 * torch.logdet(information)
    )
    weights = evidence.softmax(0)
    coefficients = bends.mT @ torch.linalg.solve_triangular(root.mT, residual, upper=True)
    bend = (bends[:, :1] @ coefficients).flatten()
    deviations = torch.linalg.inv(information)[:, 1, 1].sqrt()
    return _Posterior(weights, estimate[:, 1, 0], deviations, float(weights @ bend))
