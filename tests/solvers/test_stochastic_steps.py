"""What all native methods share: counts, steps of one's own, error estimates, promises about noise, gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stochastic_problems import DIFFUSIONS, D, additive, claims, commuting, drift, general, noise_for, sharp, start

import sdeflow as sf
from sdeflow.solvers.job import Counter
from sdeflow.solvers.native_methods import STEPPERS
from sdeflow.solvers.terms import Terms

CLAIMS = claims(engines=["native"])
EXPLICIT = [entry for entry in CLAIMS if not entry[0].name.startswith("implicit")]
CARRYING = {"sea", "shark", "sra1", "sosra"}  # those that hand g at the end of a step to the next one


def named(entry):
    return getattr(entry, "name", str(entry))


class Counted(sf.SDE):
    """A pinned problem whose coefficients count themselves."""

    def __init__(self, kind, calculus):
        self_diffusion, noise = DIFFUSIONS[kind]
        super().__init__(noise=noise, additive=kind == "additive", commutative=kind == "commutative", calculus=calculus)
        self.calls = {"f": 0, "g": 0}
        self.g = self_diffusion

    def drift(self, t, x):
        self.calls["f"] += 1
        return drift(t, x)

    def diffusion(self, t, x):
        self.calls["g"] += 1
        return self.g(t, x)


@pytest.mark.parametrize(("method", "kind", "calculus"), CLAIMS, ids=named)
def test_a_step_evaluates_what_the_registry_says(method, kind, calculus):
    """By a counter in the coefficients, over 5 steps more; and once more in all, for those that carry g from step to step."""
    calls, stats = [], []
    for steps in (3, 8):
        process = Counted(kind, calculus)
        sol = sf.solve(process, start(2), steps=steps, method=method.name, seed=0)
        calls.append(process.calls)
        stats.append(sol.stats)
    f, g = (calls[1][key] - calls[0][key] for key in ("f", "g"))
    assert (f, g) == tuple(stats[1][key] - stats[0][key] for key in ("nfe_drift", "nfe_diffusion"))
    assert g == 5 * method.diffusion_evaluations
    assert stats[0]["nfe_diffusion"] == 3 * method.diffusion_evaluations + (method.name in CARRYING)
    if method.drift_evaluations is None:
        assert f > 5
    else:
        assert f == 5 * method.drift_evaluations and stats[0]["nfe_drift"] == 3 * method.drift_evaluations


def step(process, method, h, W, H, x, error=False):
    """One step of a method by hand, from time .25, h a number or one for each row."""
    stepper = STEPPERS[method.name]
    terms = Terms(process, Counter())
    terms.h, terms.W, terms.H = h, W, H
    times = [torch.as_tensor(0.25 + c * h, dtype=x.dtype) for c in stepper.places]
    before = terms.counter.drift, terms.counter.diffusion
    assert before == (0, 0)
    return stepper.step(terms, times, x, error=error), terms.counter


def noise(kind, h, rows=3):
    generator = torch.Generator().manual_seed(5)
    W, H = torch.randn(2, rows, 1 if kind == "scalar" else 2, generator=generator, dtype=D)
    root = h.reshape(rows, 1).sqrt() if isinstance(h, torch.Tensor) else math.sqrt(h)
    return W * root, H * root / math.sqrt(12)


@pytest.mark.parametrize(("method", "kind", "calculus"), CLAIMS, ids=named)
def test_every_sample_may_have_a_step_of_its_own(method, kind, calculus):
    process, x = sharp(kind, calculus), start(3) + torch.tensor([[0.0], [0.3], [-0.7]], dtype=D)
    h = torch.tensor([[0.1], [0.02], [0.05]], dtype=D)
    W, H = noise(kind, h)
    ask = STEPPERS[method.name].error_order is not None
    together, _ = step(process, method, h, W, H, x, ask)
    for row in range(3):
        one = slice(row, row + 1)
        alone, _ = step(process, method, h[row].item(), W[one], H[one], x[one], ask)
        assert torch.allclose(together.x[one], alone.x, rtol=1e-12, atol=1e-13)
        if ask:
            assert torch.allclose(together.error[one], alone.error, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("method", "kind", "calculus"), CLAIMS, ids=named)
def test_an_error_estimate_costs_nothing_and_has_the_order_it_says(method, kind, calculus):
    """Its root mean square falls as the power of h that is named, at least, and no evaluation is made for it."""
    order = STEPPERS[method.name].error_order
    process, rows = sharp(kind, calculus), 2000
    x, sizes = start(rows), []
    if order is None:
        W, H = noise(kind, 0.1)
        assert step(process, method, 0.1, W, H, start(3), error=True)[0].error is None
        return
    for h in (2.0**-6, 2.0**-10):
        W, H = noise(kind, h, rows)
        plain, count = step(process, method, h, W, H, x)
        asked, same = step(process, method, h, W, H, x, error=True)
        assert plain.error is None and torch.equal(plain.x, asked.x) and vars(count) == vars(same)
        sizes.append(asked.error.square().mean().sqrt().item())
    assert sizes[1] > 0
    assert math.log2(sizes[0] / sizes[1]) / 4 >= min(order, 1.0) - 0.1


@pytest.mark.parametrize(("method", "kind", "calculus"), EXPLICIT, ids=named)
def test_gradients_are_those_of_finite_differences(method, kind, calculus):
    """Through two steps, with respect to the start and to a parameter that is in both coefficients, in either kind of step."""
    f, (g, shape) = drift, DIFFUSIONS[kind]
    path = noise_for(kind, 3, 0.2, 2)

    def final(x0, theta):
        process = sf.SDE(
            lambda t, x: theta * f(t, x),
            lambda t, x: theta * g(t, x),
            noise=shape,
            additive=kind == "additive",
            commutative=kind == "commutative",
            calculus=calculus,
        )
        return sf.solve(process, x0, (0.0, 0.2), steps=2, method=method.name, brownian=path).final

    inputs = start(3).requires_grad_(), torch.tensor(0.7, dtype=D, requires_grad=True)
    assert torch.autograd.gradcheck(final, inputs, fast_mode=True)


@pytest.mark.parametrize("method", ["heun", "milstein", "sriw1", "slowrk"])
def test_sensitivities_of_geometric_brownian_motion(method):
    """∂x_1/∂σ = x_1 (W − σ) and ∂x_1/∂μ = x_1 in Itô form, ∂x_1/∂x_0 = x_1/x_0, pathwise."""
    mu, sigma = (torch.tensor(v, dtype=D, requires_grad=True) for v in (0.3, 0.5))
    x0 = torch.full((200, 1), 0.8, dtype=D, requires_grad=True)
    process = sf.processes.GeometricBrownianMotion(torch.nn.Parameter(mu), torch.nn.Parameter(sigma))
    form = process.to_stratonovich() if sf.methods()[method].calculus == "stratonovich" else process
    path = sf.BrownianPath((200, 1), 0.0, 1.0, seed=3, cells=256, levy="space-time", dtype=D)
    final = sf.solve(form, x0, steps=256, method=method, brownian=path).final
    found = torch.autograd.grad(final.sum(), [x0, process.mu, process.sigma])
    W = path(0.0, 1.0)
    exact = x0.detach() * torch.exp(0.3 - 0.125 + 0.5 * W)
    wanted = exact / 0.8, exact.sum(), (exact * (W - 0.5)).sum()
    bound = {"heun": 2e-2, "milstein": 2e-2}.get(method, 2e-3)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).norm() < bound * exact.norm() * len(exact) ** 0.5


ANY_ADDITIVE = [
    m for m in sf.methods() if m.engine == "native" and "additive" in m.strong_order and "score" not in m.needs
]


@pytest.mark.parametrize("method", ANY_ADDITIVE, ids=lambda method: method.name)
def test_a_constant_diffusion_may_be_given_in_any_form(method):
    """A number, one tensor for all calls, and a new tensor in each: sums over the stages are taken together, or not."""
    x0, one = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2), torch.tensor(0.7, dtype=torch.float64)
    calculus = method.calculus if method.calculus != "any" else "ito"
    finals = [
        sf.solve(
            sf.SDE(lambda t, x: -(x**3), diffusion, additive=True, calculus=calculus),
            x0,
            method=method.name,
            steps=4,
            seed=0,
        ).final
        for diffusion in (
            lambda t, x: 0.7,
            lambda t, x: one,
            lambda t, x: one.clone(),
            lambda t, x: torch.full_like(x, 0.7),
        )
    ]
    for final in finals[1:]:
        assert torch.allclose(final, finals[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise_shape", ["diagonal", "scalar"])
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 5), (4, 1, 3, 3)])
def test_any_event_shape_in_either_dtype(noise_shape, shape):
    for method, kind, calculus in CLAIMS:
        if kind not in (noise_shape, "additive"):
            continue
        process = sf.SDE(
            lambda t, x: torch.sin(x) - x,
            (lambda t, x: 0.3 + 0.1 * t) if kind == "additive" else (lambda t, x: 0.3 * torch.cos(x)),
            noise=noise_shape,
            additive=kind == "additive",
            calculus=calculus,
        )
        x0 = torch.linspace(-1, 1, math.prod(shape), dtype=D).reshape(shape)
        options = {"steps": 8, "seed": 1, "method": method.name}
        precise = sf.solve(process, x0, [0.0, 0.5, 1.0], **options)
        assert precise.x.shape == (3, *shape) and precise.x.dtype is D
        assert torch.equal(sf.solve(process, x0, [0.0, 0.5, 1.0], **options).x, precise.x)
        flat = sf.solve(process, x0.flatten(1), [0.0, 0.5, 1.0], **options)
        assert torch.allclose(precise.x.flatten(2), flat.x, rtol=1e-12, atol=1e-14), method.name
        single = sf.solve(process, x0.float(), [0.0, 0.5, 1.0], **options)
        assert single.x.dtype is torch.float32
        assert torch.allclose(single.x.double(), precise.x, atol=2e-5), method.name


def test_additive_noise_on_the_diagonal_takes_the_additive_methods():
    process = sf.SDE(lambda t, x: -x, lambda t, x: 0.5, additive=True)
    assert sf.solve(process, torch.ones(2, 3), steps=4, seed=0).stats["method"] == "shark"
    assert {"sea", "shark", "sra1", "sosra"} <= set(sf.methods().fitting(process, adaptive=False))


@pytest.mark.parametrize(
    ("kind", "calculus", "method"),
    [
        ("additive", "ito", "shark"),
        ("additive", "stratonovich", "shark"),
        ("diagonal", "ito", "euler-maruyama"),
        ("general", "ito", "euler-maruyama"),
        ("diagonal", "stratonovich", "heun"),
        ("general", "stratonovich", "heun"),
        ("scalar", "stratonovich", "slowrk"),
        ("commutative", "stratonovich", "slowrk"),
    ],
)
def test_the_default(kind, calculus, method):
    assert sf.solve(sharp(kind, calculus), start(2), steps=2, seed=0).stats["method"] == method


def test_a_diffusion_that_jumps_is_not_carried_over_the_jump():
    """With g = 1 before ½ and 3 after, additive methods are exact on both sides; one step with the wrong g would show."""
    process = sf.SDE(lambda t, x: torch.zeros_like(x), lambda t, x: torch.where(t < 0.5, 1.0, 3.0).to(x), additive=True)
    path = sf.BrownianPath((50, 1), 0.0, 1.0, seed=2, cells=4, levy="space-time", dtype=D)
    exact = path(0.0, 0.5) + 3 * path(0.5, 1.0)
    for method in sorted(CARRYING):
        sol = sf.solve(process, torch.zeros(50, 1, dtype=D), steps=4, method=method, brownian=path, breakpoints=[0.5])
        assert torch.allclose(sol.final, exact, atol=1e-12), method


def test_no_stage_leaves_the_interval():
    """SOSRI has stages at −.04 and 3.75 of its steps."""
    seen = []

    def watched(t, x):
        seen.append(t.item())
        return -x

    process = sf.SDE(watched, lambda t, x: 0.1 * x, interval=(0.0, 2.0))
    sf.solve(process, start(1), (0.0, 2.0), steps=4, method="sosri", seed=0)
    assert min(seen) == 0.0 and max(seen) == 2.0
    seen.clear()
    sf.solve(process, start(1), (0.5, 1.5), steps=4, method="sosri", seed=0, breakpoints=[1.0])
    assert len([t for t in seen if t > 1.0]) == 8  # no step on one side of a jump looks at the other


# --- noise that does not commute -----------------------------------------------------------------------------------------


def test_order_one_for_general_noise_is_refused_with_the_reason():
    for method, calculus in (("milstein", "ito"), ("slowrk", "stratonovich")):
        process = sharp("general", calculus)
        with pytest.raises(sf.MethodError, match=r"Lévy areas.*commutative=True"):
            sf.solve(process, start(2), steps=4, method=method, seed=0)


def test_columns_that_do_not_commute_are_noticed():
    process = sf.SDE(drift, general, noise="general", commutative=True)
    with pytest.raises(sf.ArgumentError, match="columns do not commute"):
        sf.solve(process, start(2), steps=4, seed=0)
    with pytest.raises(sf.ArgumentError, match="noise='general'"):
        sf.SDE(drift, additive, commutative=True)
    for derived in (
        sf.SDE(drift, commuting, noise="general", commutative=True).to_stratonovich(),
        sf.SDE(drift, commuting, noise="general", commutative=True).reverse(lambda t, x: -x),
    ):
        assert derived.commutative


@settings(derandomize=True, deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_fields_that_commute_pass_and_others_do_not(seed):
    """Columns p_k(M)(x + c) for polynomials p_k of one matrix commute; with one entry changed they do not."""
    generator = torch.Generator().manual_seed(seed)
    A, c = torch.randn(3, 3, generator=generator, dtype=D), torch.randn(3, generator=generator, dtype=D)
    B = torch.stack([A, A @ A - 0.5 * torch.eye(3, dtype=D)])

    def process(B):
        columns = lambda t, x: torch.einsum("kij,bj->bik", B, x + c)  # noqa: E731
        return sf.SDE(lambda t, x: -x, columns, noise="general", commutative=True)

    x0 = torch.randn(4, 3, generator=generator, dtype=D)
    sf.solve(process(B), x0, steps=1, method="milstein", seed=0)
    B[1, 0, 2] += 1e-3
    with pytest.raises(sf.ArgumentError, match="do not commute"):
        sf.solve(process(B), x0, steps=1, method="milstein", seed=0)


def test_diagonal_noise_that_mixes_coordinates_is_refused_where_the_order_needs_more():
    turned = sf.SDE(lambda t, x: -x, lambda t, x: 0.5 * x.flip(1))
    for method in ("milstein", "milstein-derivative-free", "sriw1", "sosri"):
        with pytest.raises(sf.MethodError, match=r"other coordinates.*euler-maruyama") as refused:
            sf.solve(turned, start(2), steps=4, method=method, seed=0)
        offered = str(refused.value).rsplit(": ", 1)[1].rstrip(".").split(", ")
        sf.solve(turned, start(2), steps=4, method=offered[0], seed=0)
    sf.solve(turned, start(2), steps=4, seed=0)
    one = sf.SDE(
        lambda t, x: -x, lambda t, x: 0.5 * x.flip(1), noise="scalar"
    )  # one Brownian motion commutes with itself
    sf.solve(one, start(2), steps=4, method="sriw1", seed=0)


def test_milstein_takes_columns_that_commute_as_they_are():
    """One step of dX = B₁X dW₁ + B₂X dW₂ is x + BW x + ½ (BW)²x − ½ h ΣB²x, BW = B₁W₁ + B₂W₂."""
    process = sf.SDE(lambda t, x: 0 * x, commuting, noise="general", commutative=True)
    W, H = noise("general", 0.1)
    at = torch.tensor(0.25, dtype=D)
    x = start(3)
    fields = commuting(at, torch.eye(2, dtype=D)).permute(2, 1, 0)  # B_k, times the factor of time
    BW = torch.einsum("bk,kij->bij", W, fields)
    wanted = x + torch.einsum("bij,bj->bi", BW + 0.5 * BW @ BW - 0.05 * (fields @ fields).sum(0), x)
    found, _ = step(process, sf.methods()["milstein"], 0.1, W, H, x)
    assert torch.allclose(found.x, wanted, atol=1e-14)
