"""Synthetic errors of known order: what the estimator of orders is judged on.

Errors at K = 6 to 10 dyadic step sizes are 3 hᵖ times one of five bends, of which the Taylor expansions in h go on for ever or
not, with an amplitude of −0.7 to 2 at the coarsest step; among half powers there are two more, in √h. The order is one of .5,
1, 1.5, 2 (strong), 1, 2, 3 (weak) and 1, …, 5 (ode). At least five step sizes can be seen above the floor, in expectation;
those after it, if any, cannot.

- strong: 512 to 4096 paths with normal errors times a log-normal size of the path, correlated from one step size to the next
  by 0 to .9; a floor is added independently, and the estimator is told it wrong by up to a factor of two.
- weak: means of as many, whose noise falls with the step size as √h or as h, as coupled paths' does.
- ode: a scatter of 1e-4 to 2 % from point to point, and a rounding floor told within a factor of two.

Other bends, harder ones, show how the estimator does on what it was not made for: two powers of either sign, quotients, waves,
bends that level off within a few steps, and powers, each with a second coefficient; among half powers also in √h.
"""

import math

import torch

import sdeflow as sf

WHOLE = (
    lambda u, a: 1 + a * u,
    lambda u, a: 1 / (1 + a * u),
    lambda u, a: (1 + a * u * u).sqrt(),
    lambda u, a: (a * u).exp(),
    lambda u, a: 1 / (1 + a * u * u),
)
HALF = (lambda u, a: 1 + a * u.sqrt(), lambda u, a: 1 / (1 + a * u.sqrt()))
BENDS = {"whole": WHOLE, "half": WHOLE + HALF}
OTHER = (
    lambda u, a, b: (a * u + (4 * b - 2) * u * u).exp(),
    lambda u, a, b: (1 + a * u) / (1 + (2.7 * b - 0.7) * u),
    lambda u, a, b: (a * ((1 + 3 * b) * u).sin()).exp(),
    lambda u, a, b: 1 - a * torch.expm1(-(0.5 + 3.5 * b) * u),
    lambda u, a, b: (1 + 4 * b * u) ** a,
)
OTHER_HALF = tuple(lambda u, a, b, bend=bend: bend(u.sqrt(), a, b) for bend in OTHER)
OTHER_BENDS = {"whole": OTHER, "half": OTHER + OTHER_HALF}
ORDERS = {"strong": (0.5, 1.0, 1.5, 2.0), "weak": (1.0, 2.0, 3.0), "ode": (1.0, 2.0, 3.0, 4.0, 5.0)}


def draw(kind, generator, powers="whole", other=False):
    """(step sizes, errors, floor as it is told, true order)."""

    def uniform(low, high):
        return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()

    def whole(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    levels, order = whole(6, 10), ORDERS[kind][whole(0, len(ORDERS[kind]) - 1)]
    dts = 2.0 ** -(whole(1, 4) + torch.arange(levels, dtype=torch.float64))
    u = dts / dts[0]
    bends = (OTHER_BENDS if other else BENDS)[powers]
    bend = bends[whole(0, len(bends) - 1)]
    true = 3 * dts**order * bend(u, uniform(-0.7, 2.0), *([uniform(0, 1)] if other else []))
    last = whole(5, levels) - 1  # the finest step size that can be seen
    if kind == "ode":
        floor = true[last].item() / 10 * 10 ** uniform(-2, 0)
        errors = true * (10 ** uniform(-4, -1.7) * normal(levels)).exp() + floor * normal(levels)
        return dts, errors, floor * 2 ** uniform(-1, 1), order
    paths = int(2 ** uniform(9, 12))
    correlation = uniform(0, 0.9)
    z = normal(paths, levels)
    for k in range(1, levels):
        z[:, k] = correlation * z[:, k - 1] + math.sqrt(1 - correlation**2) * z[:, k]
    tail = uniform(0, 0.6)
    z = z * (tail * normal(paths, 1) - tail**2).exp()
    if kind == "strong":
        floor = true[last].item() / 10 * 10 ** uniform(-2, 0)
        return dts, true * z + floor * normal(paths, levels), floor * 2 ** uniform(-1, 1), order
    noise = u ** (0.5, 1.0)[whole(0, 1)]
    noise = noise * true[last] / noise[last] / 10 ** uniform(1.2, 2.2)  # standard errors of the mean
    return dts, (1, -1)[whole(0, 1)] * true + math.sqrt(paths) * noise * z, 0.0, order


def judge(kind, sets, seed, powers="whole", other=False):
    """What becomes of data sets: the share refused for too few visible points; of those fitted, the share with the true order
    in the interval; of all, the share within .1 of the estimate; the median width.
    """
    generator = torch.Generator().manual_seed(seed)
    covered, within, widths = 0, 0, []
    for _ in range(sets):
        dts, errors, floor, order = draw(kind, generator, powers, other)
        try:
            fit = sf.analysis.fit_order(dts, errors, kind=kind, floor=floor, powers=powers)
        except sf.errors.ArgumentError:
            continue
        covered += fit.low <= order <= fit.high
        within += abs(fit.slope - order) < 0.1
        widths.append(fit.high - fit.low)
    fitted = len(widths)
    return {
        "refused": 1 - fitted / sets,
        "covered": covered / fitted,
        "within": within / sets,
        "width": sorted(widths)[fitted // 2],
    }
