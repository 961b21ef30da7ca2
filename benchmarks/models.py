"""What the generative models learn, against laws and data whose truth is known or held out.

    python benchmarks/models.py [PART …] [--quick] [--out benchmarks/results]

Each part trains with fixed seeds on one thread, and writes models_<part>.json with its figures, their error bars and the
bounds that they are held to. "two-moons": test likelihood against the exact density. "blur": blurred digits to sharp ones,
paired and unpaired. "mnist": class-conditional digits of 28 × 28, bits per dimension and what a classifier makes of the
samples. "reversal": SDEs with state-dependent noise run backwards, from paths alone. couplings.py and sampling.py have the
couplings of flow matching and what samplers cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, show, write  # first, since it sets the number of threads
from torch import Tensor, nn

import sdeflow as sf

Rows = list[dict[str, Any]]

TRAINING: dict[str, Any] = {"learning_rate": 2e-3, "schedule": "cosine", "ema": 0.995, "seed": 0, "progress": False}


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
        seconds = sf.fit(model, data, steps, batch_size=size, **TRAINING).seconds
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


def base_points(base: Any, count: int, seed: int) -> Tensor:
    return sf.paths.Draws(seed).samples(base, count)


# --- blurred digits to sharp ones -------------------------------------------------------------------------------------------


def blurred(images: Tensor) -> Tensor:
    """Twice the mean of 3 × 3 neighbours, paper outside."""
    for _ in range(2):
        padded = nn.functional.pad(images[:, None], (1, 1, 1, 1), value=-1.0)
        images = nn.functional.avg_pool2d(padded, 3, 1)[:, 0]
    return images


REPEATS = 20  # of the digits, so that torn pairs are other pairs each time


def blur(quick: bool) -> Rows:
    """Held-out MSE of the flow from blurred digits to their originals, learned from pairs and from pairs torn apart."""
    train_set, test = sf.data.digits().split(297, seed=0)
    sharp = train_set.images.repeat(REPEATS, 1, 1)
    soft = blurred(sharp)
    torn = soft[torch.randperm(len(soft), generator=torch.Generator().manual_seed(0))]
    rows: Rows = [{"from": "identity", "MSE": (blurred(test.images) - test.images).square().mean().item()}]
    for name, start in (("pairs", soft), ("independent", torn)):
        torch.manual_seed(0)
        net = sf.networks.UNet((8, 8), width=16)
        model = sf.models.FlowMatching(
            net, sf.paths.LinearPath().base((8, 8)), path=sf.paths.PairPath(), coupling="given"
        )
        steps = 20 if quick else 1500
        seconds = sf.fit(model, (sharp, start), steps, names=("x", "x0"), batch_size=128, **TRAINING).seconds
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
    steps = 4 if quick else 2500
    seconds = sf.fit(model, train_set, steps, names=("x", "label"), batch_size=64, **TRAINING).seconds
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
        seconds = sf.fit(model, data, 20 if quick else 1500, batch_size=2048, **TRAINING).seconds
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


PARTS: dict[str, Callable[[bool], Rows]] = {
    "two-moons": two_moons,
    "blur": blur,
    "mnist": mnist,
    "reversal": reversal,
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
