"""What the generative models learn, against laws and data whose truth is known or held out.

    python benchmarks/models.py [PART …] [--quick] [--out benchmarks/results]

Each part trains with fixed seeds on one thread, and writes models_<part>.json with its figures, their error bars and the
bounds that they are held to. "two-moons": test likelihood against the exact density. "eight-gaussians": W₂ and path energy
of four couplings. "blur": blurred digits to sharp ones, paired and unpaired. "mnist": class-conditional digits of 28 × 28,
bits per dimension and what a classifier makes of the samples. "reversal": SDEs with state-dependent noise run backwards, from
paths alone. "cost": what a sampler takes beside its network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, show, side_by_side, write  # first, since it sets the number of threads
from torch import Tensor, nn

import sdeflow as sf

Rows = list[dict[str, Any]]
Batch = Callable[[int], dict[str, Tensor]]


def train(model: nn.Module, batch: Batch, steps: int, rate: float = 2e-3, decay: float = 0.995) -> float:
    """Adam with a cosine schedule, and the running mean of the weights in the end; the seconds that it took."""
    began = time.perf_counter()
    optimiser = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    mean = [p.detach().clone() for p in model.parameters()]
    for step in range(steps):
        given = batch(step)
        optimiser.zero_grad()
        model.loss(given.pop("x"), seed=step, **given).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        torch._foreach_lerp_(mean, [p.detach() for p in model.parameters()], 1 - min(decay, step / (step + 10)))
    with torch.no_grad():
        for p, value in zip(model.parameters(), mean, strict=True):
            p.copy_(value)
    return time.perf_counter() - began


def picked(rows: int, size: int, step: int) -> Tensor:
    return torch.randint(rows, (size,), generator=torch.Generator().manual_seed(step))


# --- two moons -----------------------------------------------------------------------------------------------------------


def moons_law(noise: float = 0.1, arcs: int = 500) -> sf.laws.GaussianMixture:
    """The density of make_moons: normal noise around points that are uniform in angle on two half-circles."""
    angle = (torch.arange(arcs, dtype=torch.float64) + 0.5) * torch.pi / arcs
    outer = torch.stack([angle.cos(), angle.sin()], 1)
    means = torch.cat([outer, torch.tensor([1.0, 0.5], dtype=torch.float64) - outer])
    count = len(means)
    return sf.laws.GaussianMixture(torch.ones(count), means, torch.full((count,), noise**2, dtype=torch.float64))


def two_moons(quick: bool) -> Rows:
    """Excess of the test NLL over that of the exact density, on the same points."""
    law, base = moons_law(), sf.paths.LinearPath().base((2,))
    data, test = sf.data.moons(100_000, noise=0.1, seed=0), sf.data.moons(4_000, noise=0.1, seed=1)
    truth = law.log_prob(test.double())
    net = lambda: sf.networks.MLP(2, width=128, depth=4, time_features=3)  # noqa: E731
    models = {
        "flow matching": (lambda: sf.models.FlowMatching(net(), base), 6000, 512, 0.08),
        "VP score": (
            lambda: sf.models.DenoisingScoreMatching(net(), sf.processes.VariancePreserving(), (2,), predicts="v"),
            8000,
            512,
            0.12,
        ),
        "maximum likelihood": (
            lambda: sf.models.ContinuousFlow(
                sf.networks.MLP(2, width=64), base, kinetic=0.01, solver={"steps": 8, "method": "rk4"}
            ),
            1200,
            256,
            0.15,
        ),
    }
    rows = []
    for name, (make, steps, size, bound) in models.items():
        torch.manual_seed(0)
        model = make()
        steps = steps // 40 if quick else steps
        seconds = train(model, lambda step, size=size: {"x": data[picked(len(data), size, step)]}, steps)
        with torch.no_grad():
            estimate = model.flow().log_prob_with_error(test)
        excess = (truth - estimate.value).double()
        rows.append(
            {
                "model": name,
                "steps": steps,
                "seconds": seconds,
                "NLL": -estimate.value.mean().item(),
                "of the exact density": -truth.mean().item(),
                "excess": excess.mean().item(),
                "standard error": (excess.std() / len(test) ** 0.5).item(),
                "solver error, worst": estimate.solver_error.max().item(),
                "bound": bound,
                "met": bool(excess.mean() <= bound),
            }
        )
    return rows


# --- eight Gaussians -------------------------------------------------------------------------------------------------------


def wasserstein(x: Tensor, y: Tensor) -> float:
    """W₂ of two samples of one size."""
    nearest, _ = sf.paths.OptimalTransport()(x, y)
    return float((nearest - y).square().sum(1).mean().sqrt())


def eight_gaussians(quick: bool) -> Rows:
    """W₂ to the data and path energy, over seeds."""
    law, base = sf.data.eight_gaussians(5.0, 1.0), sf.paths.LinearPath().base((2,))
    steps, size, count = (60, 128, 256) if quick else (3000, 256, 2000)
    flat = sf.models.RectifiedFlow
    seeds = range(2 if quick else 3)
    found: dict[str, list[tuple[float, ...]]] = {}
    solver = {"rtol": 1e-4}
    for seed in seeds:
        data = law.draw(50_000, seed=seed)
        x0, x1 = base_points(base, count, 100 + seed), law.draw(count, seed=1000 + seed)

        def fresh(step: int, data: Tensor = data, seed: int = seed) -> dict[str, Tensor]:
            return {"x": data[picked(len(data), size, 100_000 * seed + step)]}

        nets = {}
        for name in ("independent", "optimal transport", "Schrödinger bridge", "rectified"):
            torch.manual_seed(seed)
            net = sf.networks.MLP(2, width=64, time_features=1)
            if name == "Schrödinger bridge":
                model: Any = sf.models.SchrodingerBridge(net, sf.networks.MLP(2, time_features=1), base, sigma=1.0)
                train(model, fresh, steps)
            elif name == "rectified":
                first = flat(nets["independent"], base)
                z0, z1 = first.pairs(20_000, seed=seed, solver=solver)
                model = first.reflow()

                def again(step: int, z0: Tensor = z0, z1: Tensor = z1, seed: int = seed) -> dict[str, Tensor]:
                    rows = picked(len(z0), size, 100_000 * seed + step)
                    return {"x": z1[rows], "x0": z0[rows]}

                train(model, again, steps)
            else:
                model = flat(net, base, coupling=name.replace(" ", "-"))
                train(model, fresh, steps)
            nets[name] = model.net
            judged = flat(model.net, base)  # the same velocity
            with torch.no_grad():
                ends = judged.transport(x0, solver=solver)
                # Against W₂ to its own ends no flow comes below 0, whatever the sample; against other data it is noise.
                own, other = (float(judged.path_energy(x0, y, solver=solver)) for y in (ends, x1))
            found.setdefault(name, []).append((wasserstein(ends, x1), own, other))
        nothing = float("nan")
        found.setdefault("(data)", []).append((wasserstein(law.draw(count, seed=2000 + seed), x1), nothing, nothing))
    rows = []
    for name, pairs in found.items():
        values = torch.tensor(pairs, dtype=torch.float64)
        mean, error = values.mean(0).tolist(), (values.std(0) / len(values) ** 0.5).tolist()
        names = ("W2", "path energy", "path energy to other data")
        row = {"coupling": name}
        for k, quantity in enumerate(names):
            row |= {quantity: mean[k], f"{quantity} ±": error[k]}
        rows.append(row)
    energies = {row["coupling"]: row["path energy"] for row in rows if row["coupling"] != "(data)"}
    order = sorted(energies, key=energies.__getitem__)
    rows.append({"order by path energy": order, "met": order[0] == "optimal transport" and order[-1] == "independent"})
    return rows


def base_points(base: Any, count: int, seed: int) -> Tensor:
    return sf.paths.Draws(seed).samples(base, count)


# --- blurred digits to sharp ones -------------------------------------------------------------------------------------------


def blurred(images: Tensor) -> Tensor:
    """Twice the mean of 3 × 3 neighbours, paper outside."""
    for _ in range(2):
        padded = nn.functional.pad(images[:, None], (1, 1, 1, 1), value=-1.0)
        images = nn.functional.avg_pool2d(padded, 3, 1)[:, 0]
    return images


def blur(quick: bool) -> Rows:
    """Held-out MSE of the flow from blurred digits to their originals, learned from pairs and from pairs torn apart."""
    train_set, test = sf.data.digits().split(297, seed=0)
    sharp, soft = train_set.images, blurred(train_set.images)
    rows: Rows = [{"from": "identity", "MSE": (blurred(test.images) - test.images).square().mean().item()}]
    for name in ("pairs", "independent"):
        torch.manual_seed(0)
        net = sf.networks.UNet((8, 8), width=16)
        model = sf.models.FlowMatching(
            net, sf.paths.LinearPath().base((8, 8)), path=sf.paths.PairPath(), coupling="given"
        )

        def batch(step: int, torn: bool = name == "independent") -> dict[str, Tensor]:
            rows = picked(len(sharp), 128, step)
            return {"x": sharp[rows], "x0": soft[picked(len(sharp), 128, 10**6 + step) if torn else rows]}

        seconds = train(model, batch, 20 if quick else 1500)
        with torch.no_grad():
            ends = model.transport(blurred(test.images), solver={"steps": 20, "method": "heun"})
        errors = (ends - test.images).square().flatten(1).mean(1)
        error = (errors.std() / len(errors) ** 0.5).item()
        rows.append({"from": name, "MSE": errors.mean().item(), "standard error": error, "seconds": seconds})
    identity, pairs, independent = (row["MSE"] for row in rows)
    best = min(identity, independent) / pairs
    rows.append({"gain over the better of the others": best, "bound": 2.0, "met": best >= 2})
    return rows


# --- MNIST -----------------------------------------------------------------------------------------------------------------


def mnist(quick: bool) -> Rows:
    """A class-conditional flow on dequantised digits: code length, and how many samples show what was asked for."""
    from sklearn.svm import SVC

    train_set, test = sf.data.mnist_5k().split(500, seed=0)
    torch.manual_seed(0)
    net = sf.networks.UNet((28, 28), width=16, levels=3, classes=10)
    model = sf.models.FlowMatching(net, sf.paths.LinearPath().base((28, 28)), time="logit-normal")

    def batch(step: int) -> dict[str, Tensor]:
        rows = train_set[picked(len(train_set), 64, step)].dequantised(seed=step)
        return {"x": rows.images, "label": rows.labels}

    seconds = train(model, batch, steps := 4 if quick else 2500)
    some = test[: 4 if quick else 100].dequantised(seed=0)
    solver: dict[str, Any] = {"divergence": "hutchinson", "probes": 1, "seed": 0, "rtol": 1e-2 if quick else 1e-3}
    with torch.no_grad():
        estimate = model.flow(solver=solver, label=some.labels).log_prob_with_error(some.images)
    bits = sf.bits_per_dim(estimate.value, 784, some.levels, some.data_range)
    count = 20 if quick else 500
    labels = torch.arange(count) % 10
    images = model.sample(count, seed=0, solver={"steps": 4 if quick else 40, "method": "heun"}, label=labels)
    judge = SVC(C=10.0).fit(train_set.images.flatten(1).numpy(), train_set.labels.numpy())
    said = torch.as_tensor(judge.predict(images.detach().flatten(1).numpy()))
    agreed = (said == labels).double()
    on_test = judge.score(test.images.flatten(1).numpy(), test.labels.numpy())
    share = agreed.mean().item()
    return [
        {"steps": steps, "seconds": seconds, "parameters": sum(p.numel() for p in net.parameters())},
        {
            "bits per dimension": bits.mean().item(),
            "standard error over images": (bits.std() / len(bits) ** 0.5).item(),
            "solver error, worst": estimate.solver_error.max().item() / (784 * 0.6931),
            "images": len(bits),
        },
        {
            "agreement": share,
            "standard error": (share * (1 - share) / count) ** 0.5,
            "of each class": [agreed[labels == k].mean().item() for k in range(10)],
            "the classifier on held-out digits": float(on_test),
            "bound": 0.8,
            "met": share >= 0.8,
        },
        {"grid": [bytes(image.tolist()).hex() for image in grey(images[:30])]},
    ]


def grey(images: Tensor) -> Tensor:
    """The levels of pixels, ``(n, 784)``."""
    return ((images.detach().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).flatten(1)


# --- reversal from paths -----------------------------------------------------------------------------------------------------


def reversal(quick: bool) -> Rows:
    """W₁ between the marginals of a learned reversal and those of the process, over their spread, at five times."""
    log_normal = torch.distributions.LogNormal(0.1, 0.3)
    starts = {
        "geometric Brownian motion": (
            sf.processes.GeometricBrownianMotion(0.3, 0.6),
            lambda n, seed: log_normal.icdf(
                sf.paths.Draws(seed).uniforms(sf.paths.Purpose.BASE, (n, 1), "cpu").float()
            ),
        ),
        "double well, noise of x": (
            sf.SDE(lambda t, x: x - x**3, lambda t, x: 0.5 + 0.25 * torch.sin(2 * x), interval=(0.0, 2.0)),
            lambda n, seed: 0.3 + 0.4 * base_points(sf.paths.LinearPath().base((1,)), n, seed),
        ),
    }
    rows = []
    for name, (process, start) in starts.items():
        torch.manual_seed(0)
        net = NearEquilibrium(process, sf.networks.MLP(1, width=64, time_features=3))
        model = sf.models.LearnedReversal(net, process, sf.paths.LinearPath().base((1,)), steps=100)
        data = start(50_000, 0)
        seconds = train(
            model, lambda step, data=data: {"x": data[picked(len(data), 2048, step)]}, 20 if quick else 1500
        )
        (t0, t1), count = process.interval, 2_000 if quick else 20_000
        times = [t1 - k * (t1 - t0) / 5 for k in range(6)]
        grid = [t0 + k * (t1 - t0) / 200 for k in range(201)]
        forward = sf.solve(process, start(count, 1), times[::-1], steps=grid, seed=2).x.flip(0)
        again = sf.solve(process, start(count, 3), times[::-1], steps=grid, seed=4).x.flip(0)
        with torch.no_grad():
            back = sf.solve(model.sde(), again[0], times, steps=grid[::-1], seed=5).x
        for t, x, y, z in zip(times[1:], forward[1:], back[1:], again[1:], strict=True):
            ratio, chance = (w1(x, other) / float(x.std()) for other in (y, z))
            rows.append(
                {
                    "process": name,
                    "t": t,
                    "W1 / spread": ratio,
                    "of two forward samples": chance,
                    "bound": 0.05,
                    "met": ratio <= 0.05,
                    "training seconds": seconds,
                }
            )
    return rows


class NearEquilibrium(nn.Module):
    """c = 2f + network: at first the reversal is the process itself on a forward clock, as in equilibrium, which is stable."""

    def __init__(self, process: sf.SDE, net: nn.Module) -> None:
        super().__init__()
        self.process, self.net = process, net

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return 2 * self.process.drift(t, x) + self.net(t, x)  # type: ignore[no-any-return]


def w1(x: Tensor, y: Tensor) -> float:
    """W₁ of two samples of one size on the line."""
    return float((x.flatten().sort().values - y.flatten().sort().values).abs().mean())


# --- what a sampler costs ----------------------------------------------------------------------------------------------------


STEPS = 20


def cost(quick: bool) -> Rows:
    """The time of a solve over that of its evaluations of the network, called as the solver calls it."""
    rows = []
    for name, net, shape, size in (
        ("U-Net, 64 × (8, 8)", sf.networks.UNet((8, 8), width=16), (8, 8), 64),
        ("MLP, 256 × 2", sf.networks.MLP(2, width=128), (2,), 256),
    ):
        model = sf.models.DenoisingScoreMatching(net, sf.processes.VariancePreserving(), shape, predicts="data")
        x = base_points(model.base, size, 0)
        t = torch.tensor(0.5)
        calls: dict[str, Callable[[], Any]] = {"network": lambda x=x, net=net, t=t: [net(t, x) for _ in range(STEPS)]}
        for method in [m for m in sf.methods() if "schedule" in m.needs]:
            process = model.ode() if method.ode_order is not None else model.sde()
            calls[method.name] = lambda p=process, m=method, x=x: sf.solve(p, x, steps=STEPS, method=m.name, seed=0)
        with torch.no_grad():
            ms = side_by_side(calls, 3 if quick else 15)
        for method_name in list(calls)[1:]:
            evaluations = sf.methods()[method_name].drift_evaluations
            assert evaluations is not None
            ratio = ms[method_name] / (ms["network"] * evaluations)
            row = {"network": name, "method": method_name, "over evaluations × network": ratio}
            rows.append({**row, "bound": 1.1, "met": ratio <= 1.1})
    return rows


PARTS: dict[str, Callable[[bool], Rows]] = {
    "two-moons": two_moons,
    "eight-gaussians": eight_gaussians,
    "blur": blur,
    "mnist": mnist,
    "reversal": reversal,
    "cost": cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)}; all but mnist by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := set(options.part) - PARTS.keys():
        parser.error(f"unknown parts {sorted(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    for part in options.part or [name for name in PARTS if name != "mnist"]:
        rows = PARTS[part](options.quick)
        show({part: [row for row in rows if "grid" not in row]})
        write(f"models_{part.replace('-', '_')}", {"rows": rows}, options.out)


if __name__ == "__main__":
    main()
