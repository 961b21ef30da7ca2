"""The stiff method: its order conditions, two classical problems, Jacobians, and how explicit methods say that they fail."""

import numpy as np
import pytest
import torch
from rooted_trees import density, trees

import sdeflow as sf
from sdeflow.solvers.rosenbrock import RODAS5P
from sdeflow.solvers.tableaus import TSIT5

DOUBLE = torch.float64
STEPPINGS = ["shared", "per-sample"]


def robertson(t, x):
    a, b, c = x.unbind(1)
    first, second, third = 0.04 * a, 3e7 * b * b, 1e4 * b * c
    return torch.stack([third - first, first - second - third, second], 1)


def robertson_jacobian(t, x):
    _, b, c = x.unbind(1)
    zero = torch.zeros_like(b)
    first, second, third = zero + 0.04, 6e7 * b, 1e4 * torch.stack([c, b])
    rows = [[-first, third[0], third[1]], [first, -second - third[0], -third[1]], [zero, second, zero]]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def van_der_pol(t, x):
    y, dy = x.unbind(1)
    return torch.stack([dy, 1000 * (1 - y * y) * dy - y], 1)


# Radau IIA of order 5 by scipy 1.17, with the exact Jacobian: at rtol = 1e-13 and atol = 1e-17 (Robertson, where rtol = 1e-12
# gives the same to 1e-11), and at rtol = 1e-12 and atol = 1e-13 (Van der Pol).
ROBERTSON = {
    (1.0, 0.0, 0.0): (0.017865921142114702, 7.27475146844262e-08, 0.9821340061103684),
    (0.3, 0.0, 0.7): (0.017652666503296794, 7.186376511888471e-08, 0.982347261632941),
}
VAN_DER_POL = (1.7061677321711544, -0.0008928097010240751)


# --- the method ------------------------------------------------------------------------------------------------------


def matrices():
    """α, Γ and b of the textbook's form from a, C and γ: Γ⁻¹ = 1/γ − C, α = aΓ, b = mΓ."""
    n = len(RODAS5P.c)
    a, C = np.zeros((n, n)), np.zeros((n, n))
    for i, (row, other) in enumerate(zip(RODAS5P.a, RODAS5P.C, strict=True), start=1):
        a[i, : len(row)], C[i, : len(other)] = row, other
    Gamma = np.linalg.inv(np.eye(n) / RODAS5P.gamma - C)
    m = np.append(a[-1, :-1], 1.0)
    return a @ Gamma, Gamma, m @ Gamma, np.eye(n)[-1] @ Gamma


def weights(tree, alpha, beta):
    """Φ_i of a Rosenbrock method with the exact Jacobian: β = α + Γ where there is one branch, α where there are several."""
    phi = np.ones(len(alpha))
    for branch in tree:
        phi = phi * ((beta if len(tree) == 1 else alpha) @ weights(branch, alpha, beta))
    return phi


def test_order_conditions_of_rodas5p():
    alpha, Gamma, b, e = matrices()
    assert np.allclose(alpha.sum(1), RODAS5P.c, atol=1e-12) and np.allclose(Gamma.sum(1), RODAS5P.d, atol=1e-10)
    assert np.allclose(np.diag(Gamma), RODAS5P.gamma)
    for order in range(1, 6):
        for tree in trees(order):
            value = weights(tree, alpha, alpha + Gamma)
            assert b @ value == pytest.approx(1 / density(tree), abs=1e-10), (order, tree)
            if order < 5:  # the error estimate vanishes with the embedded method's order, and only there
                assert e @ value == pytest.approx(0, abs=1e-10)
    assert any(abs(e @ weights(t, alpha, alpha + Gamma)) > 1e-6 for t in trees(5))
    assert any(abs(b @ weights(t, alpha, alpha + Gamma) - 1 / density(t)) > 1e-6 for t in trees(6))


def test_dense_output_of_rodas5p_is_of_order_four():
    alpha, Gamma, b, _ = matrices()
    K = np.array(RODAS5P.dense) @ Gamma
    for theta in (0.2, 0.55, 0.9):
        at = theta * (b + (1 - theta) * (K[0] + theta * (K[1] + theta * K[2])))
        for order in range(1, 5):
            for tree in trees(order):
                assert at @ weights(tree, alpha, alpha + Gamma) == pytest.approx(theta**order / density(tree), abs=1e-9)


# --- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("jacobian", [None, robertson_jacobian])
def test_robertson(stepping, jacobian):
    """Rates from 0.04 to 3e7 over 1e5 units of time; two samples of different rates of decay at a time."""
    x0 = torch.tensor(list(ROBERTSON), dtype=DOUBLE)
    sol = sf.solve(
        sf.ODE(robertson, interval=(0.0, 1e5)),
        x0,
        method="rodas5p",
        rtol=1e-7,
        atol=1e-11,
        stepping=stepping,
        jacobian=jacobian,
    )
    assert torch.allclose(sol.final, torch.tensor(list(ROBERTSON.values()), dtype=DOUBLE), rtol=1e-6, atol=0)
    assert torch.allclose(sol.final.sum(1), torch.ones(2, dtype=DOUBLE), atol=1e-9)  # mass is kept
    assert int(torch.as_tensor(sol.stats["accepted"]).max()) < 1000


def test_van_der_pol_relaxation():
    """μ = 1000 over a period and a half of jumps."""
    sol = sf.solve(
        sf.ODE(van_der_pol, interval=(0.0, 2000.0)),
        torch.tensor([[2.0, 0.0]], dtype=DOUBLE),
        method="rodas5p",
        rtol=1e-8,
    )
    assert torch.allclose(sol.final[0], torch.tensor(VAN_DER_POL, dtype=DOUBLE), rtol=1e-6, atol=0)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", ["tsit5", "dopri5", "dopri8"])
def test_explicit_methods_say_that_it_is_stiff(method, stepping):
    """Where steps are as long as stability allows; and not where they are short because the solution moves fast."""
    stiff = sf.ODE(lambda t, x: -1e6 * (x - torch.cos(t)), interval=(0.0, 10.0))
    x0 = torch.tensor([[1.0], [0.9]], dtype=DOUBLE)
    with pytest.raises(sf.SolveError, match=r"stiff.*stability.*method='rodas5p'"):
        sf.solve(stiff, x0, method=method, rtol=1e-4, stepping=stepping, max_steps=500)
    sol = sf.solve(stiff, x0, method="rodas5p", rtol=1e-4, stepping=stepping)
    assert int(torch.as_tensor(sol.stats["accepted"]).max()) < 100
    assert torch.allclose(sol.final, torch.cos(sol.t[-1]).expand(2, 1), atol=1e-4)
    fast = sf.ODE(lambda t, x: 1e4 * torch.cos(1e4 * t) + 0 * x, interval=(0.0, 10.0))
    with pytest.raises(sf.SolveError) as caught:
        sf.solve(fast, x0, method=method, rtol=1e-4, stepping=stepping, max_steps=500)
    assert "stability" not in str(caught.value)


def test_the_limit_of_stability_is_that_of_the_coefficients():
    """R(z) = 1 + z bᵀ(I − zA)⁻¹1 reaches 1 in size where the entry says, for each method that has one."""
    from sdeflow.solvers.adaptive import TABLEAUS

    for tableau in TABLEAUS.values():
        n = len(tableau.c)
        A = np.zeros((n, n))
        for i, row in enumerate(tableau.a, start=1):
            A[i, : len(row)] = row
        R = [
            abs(1 + z * np.array(tableau.b) @ np.linalg.solve(np.eye(n) - z * A, np.ones(n)))
            for z in (-tableau.stability + 0.02, -tableau.stability - 0.02)
        ]
        assert R[0] < 1 < R[1], tableau.name
    assert TSIT5.stability > 3


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_a_time_dependent_velocity_of_any_event_shape(stepping):
    """x' = A(t) x with ∂f/∂t of the order of f, decreasing times included; the order shows."""
    ode = sf.ODE(
        lambda t, x: torch.sin(5 * t) * x * torch.arange(1.0, 5.0, dtype=x.dtype).reshape(2, 2), interval=(0.0, 2.0)
    )
    x0 = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    rate = torch.arange(1.0, 5.0, dtype=DOUBLE).reshape(2, 2) / 5
    exact = x0 * torch.exp(rate * (1 - torch.cos(torch.tensor(10.0, dtype=DOUBLE))))
    steps, errors = [], []
    for tolerance in (1e-6, 1e-9):
        sol = sf.solve(ode, x0, method="rodas5p", rtol=tolerance, stepping=stepping)
        errors.append((sol.final - exact).abs().max().item())
        steps.append(float(torch.as_tensor(sol.stats["accepted"]).double().mean()))
    assert errors[1] < 1e-6
    assert np.log(steps[1] / steps[0]) / np.log(1e3) == pytest.approx(1 / 5, rel=0.25)
    back = sf.solve(ode, sol.final, (2.0, 0.0), method="rodas5p", rtol=1e-9, stepping=stepping)
    assert torch.allclose(back.final, x0, atol=1e-6)


def test_a_jacobian_that_is_given_is_on_the_callers_clock():
    """With decreasing times: x' = −t x³, whose Jacobian −3 t x² would be wrong at t0 + t1 − t or with the other sign."""
    seen = []

    def jacobian(t, x):
        seen.append(t)
        return (-3 * t * x**2)[:, :, None]

    ode = sf.ODE(lambda t, x: -t * x**3, interval=(0.0, 2.0))
    x0 = torch.tensor([[0.4]], dtype=DOUBLE)
    given = sf.solve(ode, x0, (2.0, 0.5), method="rodas5p", rtol=1e-8, jacobian=jacobian)
    found = sf.solve(ode, x0, (2.0, 0.5), method="rodas5p", rtol=1e-8)
    assert torch.allclose(given.final, found.final, rtol=1e-13)
    assert all(0.5 <= float(t.max()) <= 2.0 for t in seen) and float(seen[0].max()) == 2.0
    assert given.stats["nfe_drift"] == found.stats["nfe_drift"]


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_gradients_of_a_stiff_solve(stepping):
    """gradcheck in the state and in a rate, through the linear systems and the derivatives in them.

    The tolerance is so loose that every step grows as far as it may: steps that depend on the state are not differentiated.
    """
    ode_x0 = torch.tensor([[0.5, 0.2], [1.0, -0.3]], dtype=DOUBLE, requires_grad=True)
    rate = torch.tensor(40.0, dtype=DOUBLE, requires_grad=True)

    def final(x0, rate):
        ode = sf.ODE(lambda t, x: torch.stack([-rate * (x[:, 0] - torch.cos(t).flatten()), x[:, 0] * x[:, 1]], 1))
        return sf.solve(ode, x0, [0.0, 0.3, 0.5], method="rodas5p", rtol=1e6, first_step=0.1, stepping=stepping).x

    assert torch.autograd.gradcheck(final, (ode_x0, rate))
    assert not final(ode_x0.detach(), rate.detach()).requires_grad


def test_refusals():
    ode, x = sf.ODE(lambda t, x: -x), torch.ones(3, 2)
    with pytest.raises(sf.ArgumentError, match=r"\(3, 2\).*shape \(3, 2, 2\)"):
        sf.solve(ode, x, method="rodas5p", rtol=1e-3, jacobian=lambda t, x: -torch.ones(3, 2))
    with pytest.raises(sf.MethodError, match="stiff"):
        sf.solve(ode, x, method="tsit5", rtol=1e-3, jacobian=lambda t, x: -torch.eye(2).expand(3, 2, 2))
    with pytest.raises(sf.ArgumentError, match="no function"):
        sf.solve(ode, x, method="rodas5p", rtol=1e-3, jacobian=torch.eye(2))


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)])
def test_who_waits_at_a_jump_for_the_others_keeps_his_step(times):
    """Samples arrive at the breakpoint at different attempts, and the velocity there is no longer that of the segment."""
    x = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    process = sf.ODE(lambda t, x: torch.where(t < 0.5, torch.sin(20 * t) * x, 5.0 - t * x))
    options = {"t": times, "rtol": 1e-6, "breakpoints": [0.5], "stepping": "per-sample"}
    stiff, plain = (sf.solve(process, x, method=method, **options).final for method in ("rodas5p", "tsit5"))
    torch.testing.assert_close(stiff, plain, rtol=1e-4, atol=1e-4)
