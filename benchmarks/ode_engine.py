"""The adaptive ODE engine beside torchdiffeq: Van der Pol, a network, a stiffer sample, and a stiff system.

    python benchmarks/ode_engine.py [--quick] [--out benchmarks/results]

One thread, float32, no gradients; calls take turns. ``ratio`` is torchdiffeq's time over ours, the median of the rounds, at the
same tolerance (``rtol = atol``) unless a row says otherwise; ``worst error`` is that of the worst sample, against a solve at
1e-12.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import harness
import torch
import torchdiffeq
from torch import Tensor

import sdeflow as sf

STEPPINGS = ("shared", "per-sample")
Velocity = Callable[[Tensor, Tensor], Tensor]


def van_der_pol(t: Tensor, x: Tensor) -> Tensor:
    y, dy = x.unbind(-1)
    return torch.stack([dy, 2 * (1 - y * y) * dy - y], -1)


def calls_of(velocity: Velocity) -> tuple[Velocity, list[int]]:
    """A velocity that counts how often it is called."""
    calls: list[int] = []

    def counted(t: Tensor, x: Tensor) -> Tensor:
        calls.append(1)
        return velocity(t, x)

    return counted, calls


def compare(
    velocity: Velocity, x: Tensor, end: float, tolerance: float, ours: dict[str, dict[str, Any]], repeats: int
) -> list[dict[str, Any]]:
    """torchdiffeq's dopri5, torchode's where it is, ours in several ways, and the bare evaluations that each of them needs."""
    exact = torchdiffeq.odeint(velocity, x.double(), torch.tensor([0.0, end]), rtol=1e-12, atol=1e-12, method="dopri8")[
        -1
    ]

    peers: dict[str, Callable[[Velocity], Tensor]] = {
        "torchdiffeq dopri5": lambda f: torchdiffeq.odeint(
            f, x, torch.tensor([0.0, end]), rtol=tolerance, atol=tolerance, method="dopri5"
        )[-1]
    }
    if importlib.util.find_spec("torchode"):
        peers["torchode dopri5"] = lambda f: torchode(f, x, end, tolerance)

    def solver(options: dict[str, Any]) -> Callable[[], sf.Solution]:
        process, chosen = sf.ODE(velocity, interval=(0.0, end)), {"rtol": tolerance, **options}
        return lambda: sf.solve(process, x, **chosen)

    solvers = {name: solver(options) for name, options in ours.items()}
    first = {name: solve() for name, solve in solvers.items()}  # what is compiled is compiled here
    finals = {name: solution.final for name, solution in first.items()}
    counts = {name: sol.stats.get("calls", sol.stats["nfe_drift"]) for name, sol in first.items()}
    for name, peer in peers.items():
        counted, counts_theirs = calls_of(velocity)
        finals[name], counts[name] = peer(counted), len(counts_theirs)
    t = torch.tensor(0.1)
    calls: dict[str, Callable[[], Any]] = {name: lambda peer=peer: peer(velocity) for name, peer in peers.items()}
    calls |= solvers
    calls["the velocity, bare, 100 times"] = lambda: [velocity(t, x) for _ in range(100)]
    times = harness.side_by_side(calls, repeats)
    bare = times.pop("the velocity, bare, 100 times") / 100
    return [
        {
            "shape": list(x.shape),
            "what": name,
            "ms": ms,
            "ratio": times.ratio("torchdiffeq dopri5", name),
            "evaluations": counts[name],
            "over bare evaluations": ms / (counts[name] * bare),
            "worst error": (finals[name].double() - exact).abs().max().item(),
            **({"compile seconds": first[name].stats["compile_seconds"]} if "compiled" in name else {}),
        }
        for name, ms in times.items()
    ]


def torchode(velocity: Velocity, x: Tensor, end: float, tolerance: float) -> Tensor:
    """Its dopri5, in which every row has steps of its own, as its documentation writes it."""
    library = importlib.import_module("torchode")
    term = library.ODETerm(lambda t, x: velocity(t[:, None], x))
    controller = library.IntegralController(atol=tolerance, rtol=tolerance, term=term)
    solver = library.AutoDiffAdjoint(library.Dopri5(term=term), controller)
    starts, ends = x.new_zeros(len(x)), x.new_full((len(x),), end)
    problem = library.InitialValueProblem(y0=x, t_start=starts, t_end=ends)
    final: Tensor = solver.solve(problem).ys[:, -1]
    return final


def non_stiff(repeats: int) -> list[dict[str, Any]]:
    """Van der Pol, batch 256, at one tolerance, plain and compiled; looser for ours, to an error no larger than theirs."""
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    ours = {f"{method} {s}": {"method": method, "stepping": s} for method in ("tsit5", "dopri8") for s in STEPPINGS}
    looser = {f"{name}, rtol=1e-5": {**options, "rtol": 1e-5} for name, options in ours.items() if "shared" in name}
    compiled = {f"{name}, compiled": {**options, "compile": True} for name, options in ours.items()}
    rows = compare(van_der_pol, x, 10.0, 1e-6, {**ours, **looser, **compiled}, repeats)
    for method in ("Tsit5", "Dopri8"):
        peer = harness.in_jax(
            "diffrax_ode.py", states=x.tolist(), end=10.0, tolerance=1e-6, method=method, repeats=repeats
        )
        if "not run" in peer:
            return [*rows, {"what": f"diffrax {method}, compiled", **peer}]
        exact = sf.solve(sf.ODE(van_der_pol), x.double(), (0.0, 10.0), method="dopri8", rtol=1e-12).final
        rows += [
            {
                "shape": list(x.shape),
                "what": f"diffrax {method} {stepping}, compiled",
                "ms": peer[stepping]["ms"],
                "ratio": rows[0]["ms"] / peer[stepping]["ms"],
                "worst error": (torch.tensor(peer[stepping]["final"]).double() - exact).abs().max().item(),
            }
            for stepping in STEPPINGS
        ]
    return rows


def network(repeats: int) -> list[dict[str, Any]]:
    """A network of width 256 on 256 × 64 states: next to nothing should be spent outside of it."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.SiLU(), torch.nn.Linear(256, 256), torch.nn.SiLU(), torch.nn.Linear(256, 64)
    )
    nets = {torch.float32: net, torch.float64: deepcopy(net).double()}
    x = torch.randn(256, 64)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        return 3 * torch.cos(2 * t) * nets[x.dtype](x)

    ours = {f"tsit5 {s}": {"method": "tsit5", "stepping": s} for s in STEPPINGS}
    return compare(velocity, x, 3.0, 1e-6, ours, repeats)


def one_stiffer_sample() -> list[dict[str, Any]]:
    """256 samples of which one is a hundred times stiffer: evaluations summed over the samples."""
    rate = torch.ones(256, 1, dtype=torch.float64)
    rate[5] = 100.0
    x = torch.cat([torch.ones_like(rate), rate], 1)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([-x[:, 1] * (x[:, 0] - torch.cos(t).flatten()), torch.zeros_like(x[:, 0])], 1)

    times = torch.tensor([0.0, 10.0], dtype=torch.float64)
    exact = torchdiffeq.odeint(velocity, x, times, rtol=1e-12, atol=1e-12, method="dopri8")[-1]
    counted, calls = calls_of(velocity)
    theirs = torchdiffeq.odeint(counted, x, times, rtol=1e-6, atol=1e-6)[-1]
    own = sf.solve(sf.ODE(velocity, interval=(0.0, 10.0)), x, rtol=4e-6, stepping="per-sample")
    counts = {"torchdiffeq dopri5, 1e-6": (len(calls) * len(x), theirs)}
    counts["tsit5 per-sample, 4e-6"] = (int(own.stats["nfe_drift"].sum()), own.final)
    return [
        {"what": name, "evaluations": n, "worst error": (final - exact).abs().max().item()}
        for name, (n, final) in counts.items()
    ]


def stiff(repeats: int) -> list[dict[str, Any]]:
    """Robertson to t = 1e5 at rtol = 1e-6, batch 64, and what an explicit method says about it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(64, 3, dtype=torch.float64)
    x[:, 0] = 0.5 + 0.5 * torch.rand(64, generator=generator, dtype=torch.float64)
    x[:, 2] = 1 - x[:, 0]

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        a, b, c = x.unbind(1)
        first, second, third = 0.04 * a, 3e7 * b * b, 1e4 * b * c
        return torch.stack([third - first, first - second - third, second], 1)

    process = sf.ODE(velocity, interval=(0.0, 1e5))

    def solve(stepping: str, rtol: float = 1e-6) -> sf.Solution:
        return sf.solve(process, x, method="rodas5p", rtol=rtol, atol=1e-4 * rtol, stepping=stepping)

    exact = solve("per-sample", 1e-10).final
    times = harness.side_by_side({s: lambda s=s: solve(s) for s in STEPPINGS}, repeats)
    rows = []
    for stepping, ms in times.items():
        solution = solve(stepping)
        error = ((solution.final - exact) / exact).abs().max().item()
        steps = int(torch.as_tensor(solution.stats["accepted"]).max())
        rows.append(
            {"what": f"rodas5p {stepping}", "shape": [64, 3], "ms": ms, "steps": steps, "worst relative error": error}
        )
    try:
        sf.solve(process, x, method="tsit5", rtol=1e-6, atol=1e-10, max_steps=2000)
    except sf.SolveError as error:
        rows.append({"what": "tsit5", "says": str(error)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, under a minute")
    parser.add_argument("--out", type=Path, default=harness.RESULTS)
    options = parser.parse_args()
    repeats = 5 if options.quick else 21
    with torch.no_grad():
        results: dict[str, Any] = {
            "van der pol": non_stiff(repeats),
            "network": network(repeats),
            "one stiffer sample": one_stiffer_sample(),
            "stiff": stiff(min(repeats, 5)),
            "not run": {
                name: "it is not installed here" for name in ("torchode",) if importlib.util.find_spec(name) is None
            },
        }
    harness.write("ode_engine", results, options.out)
    harness.show(results)


if __name__ == "__main__":
    main()
