"""Log-densities of flows, exact and by probes, and steps of maximum likelihood, beside zuko, flow_matching and torchdiffeq.

    python benchmarks/likelihood.py [PART…] [--quick] [--out benchmarks/results]

One thread, float32, calls take turns and medians are compared. "exact": networks fitted to a mixture by flow matching; 256
points, one of them at 5 standard deviations. "probes": Hutchinson's estimate for 784 dimensions, with the same probes for
all, of a fresh network, whose velocity hardly changes, and of one with weights three times as large, which carries the points
so far out that log p ≈ −25,000. "training": the gradient of the mean log p of 256 points of the two moons.

Every solver runs at the loosest of its tolerances, in thirds of a decade, at which log p is right at *every* point, to 1e-4
where it is exact, with probes to 1e-3 of −1,000 and to 0.25 of −25,000 (where no solver in float32 comes nearer than 0.02,
however small its tolerance, and small ones take for ever), beside a solve by torchdiffeq in float64.
It is found by bisection, which takes the errors to fall with the tolerance. They do not quite, so the record has the error at
the tolerance that was chosen, which is small enough, and at the next looser one, which is not; one looser still may be by luck.
``ratio`` is the time of the fastest peer over ours. The record is written after each part; all take about five minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import harness
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torchdiffeq import odeint, odeint_adjoint

import sdeflow as sf
from sdeflow.likelihood.augmented import draw_probes

TOLERANCES = [10 ** (-k / 3) for k in range(3, 22)]
SEED = 7  # of the probes
Solver = Callable[[nn.Module, Tensor, float], Tensor]  # to log p


class Net(nn.Module):
    """(t, x) → the shape of x, for times of any shape that broadcasts."""

    def __init__(self, dims: int, width: int = 64) -> None:
        super().__init__()
        sizes = [dims + 1, width, width, width]
        hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, dims))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.layers(torch.cat([x, t.to(x).expand(len(x), 1)], 1))  # type: ignore[no-any-return]


class ByName(nn.Module):
    """The same for callers who name their arguments and give the state first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(t, x)  # type: ignore[no-any-return]


def normal(x: Tensor) -> Independent:
    return Independent(Normal(torch.zeros_like(x[0]), torch.ones_like(x[0])), 1)


def ours(**options: Any) -> Solver:
    def log_prob(net: nn.Module, x: Tensor, rtol: float) -> Tensor:
        return sf.Flow(sf.ODE(net), normal(x), rtol=rtol, seed=SEED, **options).log_prob(x)

    return log_prob


def by_hand(solver: Any, e: Tensor | None = None, **options: Any) -> Solver:
    """What one writes with torchdiffeq: the state and its log-determinant, one product with the Jacobian a dimension."""

    def log_prob(net: nn.Module, x: Tensor, rtol: float) -> Tensor:
        graph = torch.is_grad_enabled()

        class Augmented(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
                with torch.enable_grad():
                    y = state[0].requires_grad_() if state[0].is_leaf else state[0]
                    v = self.net(t, y)
                    if e is not None:
                        trace = (torch.autograd.grad(v, y, e.to(v), create_graph=graph)[0] * e).sum(1)
                    else:
                        trace = torch.zeros_like(v[:, 0])
                        for i in range(y.shape[1]):
                            (row,) = torch.autograd.grad(v[:, i].sum(), y, create_graph=graph, retain_graph=True)
                            trace = trace + row[:, i]
                return (v, trace) if graph else (v.detach(), trace.detach())

        state, span = (x, torch.zeros_like(x[:, 0])), x.new_tensor([1.0, 0.0])
        z, log_det = solver(Augmented(), state, span, rtol=rtol, atol=rtol, **options)
        return normal(x).log_prob(z[-1]) + log_det[-1]

    return log_prob


def peers(e: Tensor | None, not_run: dict[str, str]) -> dict[str, Solver]:
    """The peers that are installed; both draw their probes by randn_like, which is made to say e."""
    found = {"torchdiffeq dopri5": by_hand(odeint, e)}
    try:
        from zuko.transforms import FreeFormJacobianTransform

        def zuko(net: nn.Module, x: Tensor, rtol: float) -> Tensor:
            phi = tuple(net.parameters()) if torch.is_grad_enabled() else ()
            ends = x.new_tensor(1.0), x.new_tensor(0.0)
            transform = FreeFormJacobianTransform(net, *ends, phi, rtol, rtol, exact=e is None)
            with patch("torch.randn_like", return_value=e):
                z, log_det = transform.call_and_ladj(x)
            return normal(x).log_prob(z) + log_det

        found["zuko"] = zuko
    except ImportError as error:
        not_run["zuko"] = str(error)
    try:
        from flow_matching.solver import ODESolver

        def flow_matching(net: nn.Module, x: Tensor, rtol: float) -> Tensor:
            options = {"step_size": None, "method": "dopri5", "rtol": rtol, "atol": rtol}
            options |= {"exact_divergence": e is None, "enable_grad": False}
            solver = ODESolver(velocity_model=ByName(net))
            with patch(
                "torch.randn_like", return_value=None if e is None else -e
            ):  # it takes the sign of the draw, turned
                log_prob: Tensor = solver.compute_likelihood(x.detach().clone(), normal(x).log_prob, **options)[1]
            return log_prob

        found["flow_matching"] = flow_matching
    except ImportError as error:
        not_run["flow_matching"] = str(error)
    return found


def fitted(dims: int, steps: int) -> tuple[Net, Tensor]:
    """A network and 256 points, the first at 5 standard deviations from its component."""
    torch.manual_seed(0)
    law = sf.laws.GaussianMixture([0.3, 0.3, 0.4], 1.5 * torch.randn(3, dims), [0.2, 0.3, 0.25])
    net = Net(dims)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(steps):
        x, z, t = law.sample((512,)).float(), torch.randn(512, dims), torch.rand(512, 1)
        loss = (net(t, (1 - t) * z + t * x) - (x - z)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = law.sample((256,)).float()
    away = torch.zeros(dims)
    away[0] = 5 * 0.2**0.5 * (1 if law.means[0, 0] > 0 else -1)
    x[0] = law.means[0].float() + away
    return net, x


def at_equal_error(
    solvers: dict[str, Solver], net: nn.Module, x: Tensor, allowed: float, e: Tensor | None, not_run: dict[str, str]
) -> list[dict[str, Any]]:
    """The loosest tolerance of each solver at which log p is right everywhere, and how wrong it is at the next looser one."""
    rows = []
    with torch.no_grad():
        truth = by_hand(odeint, e, method="dopri8")(deepcopy(net).double(), x.double(), min(1e-4 * allowed, 1e-7))
        for name, solver in solvers.items():
            errors: dict[int, float] = {}
            first, last = 0, len(TOLERANCES)
            while first < last:
                middle = (first + last) // 2
                errors[middle] = (solver(net, x, TOLERANCES[middle]).double() - truth).abs().max().item()
                first, last = (first, middle) if errors[middle] <= allowed else (middle + 1, last)
            if last == len(TOLERANCES):
                not_run[name] = f"no tolerance down to {TOLERANCES[-1]:.0e} reaches {allowed:g} on {tuple(x.shape)}"
                continue
            row = {"what": name, "rtol": TOLERANCES[last], "worst error": errors[last]}
            rows.append(row if last == 0 else {**row, "at the next looser": errors[last - 1]})
    return rows


def density(net: nn.Module, x: Tensor) -> Callable[[Solver, float], None]:
    def call(solver: Solver, rtol: float) -> None:
        with torch.no_grad():
            solver(net, x, rtol)

    return call


def exact(dims: int, quick: bool, not_run: dict[str, str]) -> list[dict[str, Any]]:
    net, x = fitted(dims, 400)
    solvers = {
        "sdeflow": ours(),
        "sdeflow shared": ours(stepping="shared"),
        "sdeflow dopri8": ours(method="dopri8"),
        "sdeflow dopri8 shared": ours(method="dopri8", stepping="shared"),
        **peers(None, not_run),
    }
    rows = at_equal_error(solvers, net, x, 1e-4, None, not_run)
    return timed(solvers, rows, density(net, x), 5 if quick else 21)


def probed(scale: float, allowed: float, quick: bool, not_run: dict[str, str]) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    net, x = Net(784, 512), torch.randn(64, 784)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    e = draw_probes("rademacher", 1, x, SEED)[0]
    options = {"divergence": "hutchinson"}
    solvers = {
        "sdeflow": ours(**options),
        "sdeflow shared": ours(stepping="shared", **options),
        "sdeflow bosh3": ours(method="bosh3", **options),
        "sdeflow bosh3 shared": ours(method="bosh3", stepping="shared", **options),
        **peers(e, not_run),
    }
    rows = at_equal_error(solvers, net, x, allowed, e, not_run)
    return timed(solvers, rows, density(net, x), 3 if quick else 11)


def training(quick: bool, not_run: dict[str, str]) -> list[dict[str, Any]]:
    net, x = fitted(2, 100)[0], sf.data.moons(256, seed=0).float()
    solvers = {
        "sdeflow backprop": ours(),
        "sdeflow backprop shared": ours(stepping="shared"),
        "sdeflow checkpoint shared": ours(stepping="shared", gradient="checkpoint"),
        "sdeflow adjoint": ours(gradient="adjoint"),
        **peers(None, not_run),
        "torchdiffeq dopri5 adjoint": by_hand(odeint_adjoint),
    }
    if solvers.pop("flow_matching", None):
        not_run["flow_matching, training"] = "its log-density has no graph"
    rows = at_equal_error(solvers, net, x, 1e-4, None, not_run)

    def step(solver: Solver, rtol: float) -> None:
        net.zero_grad()
        (-solver(net, x, rtol).mean()).backward()  # type: ignore[no-untyped-call]

    return timed(solvers, rows, step, 3 if quick else 11)


def timed(
    solvers: dict[str, Solver], rows: list[dict[str, Any]], use: Callable[[Solver, float], None], repeats: int
) -> list[dict[str, Any]]:
    calls = {row["what"]: lambda row=row: use(solvers[row["what"]], row["rtol"]) for row in rows}
    ms = harness.side_by_side(calls, repeats)
    best = min((v for name, v in ms.items() if not name.startswith("sdeflow")), default=float("nan"))
    return [{**row, "ms": ms[row["what"]], "ratio": best / ms[row["what"]]} for row in rows]


SUITES: dict[str, tuple[str, Callable[[bool, dict[str, str]], list[dict[str, Any]]]]] = {
    "exact-2d": ("exact, 2-D", lambda quick, not_run: exact(2, quick, not_run)),
    "exact-8d": ("exact, 8-D", lambda quick, not_run: exact(8, quick, not_run)),
    "training": ("training", training),
    "calm": ("probes, calm", lambda quick, not_run: probed(1.0, 1e-3, quick, not_run)),
    "restless": ("probes, restless", lambda quick, not_run: probed(3.0, 0.25, quick, not_run)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *SUITES], help="these parts; all of them if none")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, about a minute and a half")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"not run": {}}
    for part in options.parts or SUITES:
        name, suite = SUITES[part]
        results[name] = suite(options.quick, results["not run"])
        harness.show({name: results[name]})
        sys.stdout.flush()
        # Some parts have a record of their own, so that one record is one run.
        harness.write("_".join(["likelihood", *options.parts]), results, options.out)
    harness.show({"not run": results["not run"]})


if __name__ == "__main__":
    main()
