r"""The Rosenbrock stepper, for stiff ODEs: linear systems with the Jacobian in place of short steps.

With J = ∂f/∂x and W = I/(hγ) − J, stage i solves

.. math::

    W u_i = f\Bigl(t + c_i h,\ x + \sum_{j<i} a_{ij} u_j\Bigr) + \frac1h \sum_{j<i} C_{ij} u_j
    + h d_i \frac{\partial f}{\partial t}

and all of them share one LU decomposition of the batch of W. There is no Newton iteration, so a step always costs the same. The
step ends at x + Σ m_i u_i, the error estimate is the last u, and the dense output is a polynomial of degree 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdeflow.calculus import jacobian as differentiate
from sdeflow.calculus import leaves
from sdeflow.errors import ArgumentError
from sdeflow.solvers.controller import Tolerance, first_step
from sdeflow.solvers.stepper import Attempt, Step
from sdeflow.solvers.tableaus import Row
from sdeflow.solvers.velocity import Velocity

__all__ = ["RODAS5P", "Rosenbrock", "RosenbrockTableau"]


@dataclass(frozen=True)
class RosenbrockTableau:
    """A Rosenbrock method in the form that needs no product with J.

    Attributes:
        name: The name in the registry.
        order: The order of the solution that is carried on; the error estimate has one less.
        gamma: γ.
        a: The rows of the stages from the second on; the last two add the stage before them, as stiff accuracy wants.
        C: Likewise.
        c: The stages' places in the step.
        d: The weights of ∂f/∂t.
        dense: Weights of the u_i in the three polynomials K of the dense output,
            (1 − θ) x + θ (x_1 + (1 − θ) (K_1 + θ (K_2 + θ K_3))).
        paper: Title, year, link.
    """

    name: str
    order: int
    gamma: float
    a: tuple[Row, ...]
    C: tuple[Row, ...]
    c: Row
    d: Row
    dense: tuple[Row, ...]
    paper: str


_A6 = (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946)

RODAS5P = RosenbrockTableau(
    "rodas5p",
    order=5,
    gamma=0.21193756319429014,
    a=(
        (3.0,),
        (2.849394379747939, 0.45842242204463923),
        (-6.954028509809101, 2.489845061869568, -10.358996098473584),
        (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
        _A6,
        (*_A6, 1.0),
        (*_A6, 1.0, 1.0),
    ),
    C=(
        (-14.155112264123755,),
        (-17.97296035885952, -2.859693295451294),
        (147.12150275711716, -1.41221402718213, 71.68940251302358),
        (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
        (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
        (
            30.91273214028599,
            -3.1208243349937974,
            77.79954646070892,
            34.28646028294783,
            -19.097331116725623,
            -28.087943162872662,
        ),
        (
            37.80277123390563,
            -3.2571969029072276,
            112.26918849496327,
            66.9347231244047,
            -40.06618937091002,
            -54.66780262877968,
            -9.48861652309627,
        ),
    ),
    c=(0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0),
    d=(
        0.21193756319429014,
        -0.42387512638858027,
        -0.3384627126235924,
        1.8046452872882734,
        2.325825639765069,
        0.0,
        0.0,
        0.0,
    ),
    dense=(
        (
            25.948786856663858,
            -2.5579724845846235,
            10.433815404888879,
            -2.3679251022685204,
            0.524948541321073,
            1.1241088310450404,
            0.4272876194431874,
            -0.17202221070155493,
        ),
        (
            -9.91568850695171,
            -0.9689944594115154,
            3.0438037242978453,
            -24.495224566215796,
            20.176138334709044,
            15.98066361424651,
            -6.789040303419874,
            -6.710236069923372,
        ),
        (
            11.419903575922262,
            2.8879645146136994,
            72.92137995996029,
            80.12511834622643,
            -52.072871366152654,
            -59.78993625266729,
            -0.15582684282751913,
            4.883087185713722,
        ),
    ),
    paper="Construction of Rosenbrock–Wanner method Rodas5P and numerical benchmarks within the Julia Differential Equations "
    "package (Steinebach, 2023), https://doi.org/10.1007/s10543-023-00967-x",
)

Jacobian = Callable[[Tensor, Tensor], Tensor]


class Rosenbrock:
    """The method of a :class:`RosenbrockTableau`.

    Arguments:
        tableau: The method.
        velocity: f.
        x: A state.
        jacobian: ∂f/∂x of the user's, a function of (t, x) with shape ``(B, D, D)``; None to differentiate f.
    """

    dense = True
    lookups = 0

    smallest = 0.0

    def __init__(self, tableau: RosenbrockTableau, velocity: Velocity, x: Tensor, jacobian: Jacobian | None) -> None:
        self.tableau, self.velocity, self.jacobian = tableau, velocity, jacobian
        self.error_order = float(tableau.order)
        self.evaluations = len(tableau.c)
        self.a, self.C = ([x.new_tensor(row) for row in rows] for rows in (tableau.a, tableau.C))
        self.K = x.new_tensor(tableau.dense)
        self.identity = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
        self.stale = True

    def start(self, low: float, high: float, t: float | Tensor, x: Tensor) -> int:
        self.velocity.within(low, high)
        self.linearise(t, x)
        return 1

    def end(self, t: float | Tensor, t1: float | Tensor) -> float | Tensor:
        return t1

    def first_step(self, tolerance: Tolerance, t: float | Tensor, x: Tensor, longest: float) -> Tensor:
        return first_step(self.velocity.at, tolerance, t, x, self.f, self.error_order, longest)

    def linearise(self, t: float | Tensor, x: Tensor) -> None:
        """f, ∂f/∂x and ∂f/∂t at the beginning of a step."""
        wanted = torch.is_grad_enabled()
        time = self.velocity.time(t, x).detach().requires_grad_()
        state = x if wanted and x.requires_grad else x.detach().requires_grad_()
        self.velocity.counter.drift += 1
        with torch.enable_grad():
            if self.jacobian is None:
                f, J = differentiate(lambda y: self.velocity.function(time, y), state)
            else:
                f, J = self.velocity.function(time, state), self._given(self.jacobian(time, state), x)
            kept = wanted and (
                x.requires_grad or any(leaf is not time and leaf is not state for y in (f, J) for leaf in leaves(y))
            )
            rate = _along(f, time, kept)
        if not kept:
            f, J, rate = f.detach(), J.detach(), rate.detach()
        self.f, self.J, self.rate = f, J, rate.flatten(1)
        self.stale = False

    def _given(self, J: Tensor, x: Tensor) -> Tensor:
        batch, size = len(x), x[0].numel()
        if not isinstance(J, Tensor) or J.shape != (batch, size, size) or J.dtype is not x.dtype:
            what = f"{J.dtype} of shape {tuple(J.shape)}" if isinstance(J, Tensor) else type(J).__name__
            raise ArgumentError(
                f"jacobian= returned {what} for a state of {x.dtype} and shape {tuple(x.shape)}; return J[b, i, j] = ∂f_i/∂x_j "
                f"of shape ({batch}, {size}, {size}), or leave it away: then the velocity is differentiated."
            )
        return J

    def attempt(self, step: Step, x: Tensor) -> Attempt:
        if self.stale:
            self.linearise(step.t, x)
        tableau, f = self.tableau, self.f.flatten(1)
        width = step.width
        h = torch.where(width > 0, width, 1.0).flatten(1) if isinstance(width, Tensor) else x.new_full((1, 1), width)
        W = self.identity / (h * tableau.gamma)[:, None] - self.J
        factors, pivots, _ = torch.linalg.lu_factor_ex(W)
        times = self.velocity.times(step.t, step.h, step.t1, tableau.c[1:])
        u: list[Tensor] = []
        y, flat = x, x.flatten(1)
        for i, d in enumerate(tableau.d):
            right = f if d == 0.0 else torch.addcmul(f, self.rate, h, value=d)
            if u:
                right = right + torch.tensordot(self.C[i - 1], torch.stack(u), 1) / h
            u.append(torch.linalg.lu_solve(factors, pivots, right[..., None])[..., 0])
            if i + 1 < len(tableau.c):
                y = (flat + torch.tensordot(self.a[i], torch.stack(u), 1)).reshape(x.shape)
                f = self.velocity.function(times[i], y).flatten(1)
        self.velocity.counter.drift += len(times)
        x1 = y + u[-1].reshape(x.shape)
        self.x, self.x1, self.u = x, x1, u
        error = u[-1].detach().reshape(1, *x.shape)
        # A sample that waits for the others has solved for a step of another length: it has made no error.
        return Attempt(x1, torch.where(width > 0, error, 0.0) if isinstance(width, Tensor) else error)

    def advance(self, accepted: Tensor | None) -> None:
        self.stale = True

    def polynomial(self) -> Tensor:
        K1, K2, K3 = torch.tensordot(self.K, torch.stack(self.u), 1).reshape(-1, *self.x.shape)
        return torch.stack([self.x, self.x1 - self.x + K1, K2 - K1, K3 - K2, -K3])

    def narrow(self, keep: Tensor, t: float | Tensor, x: Tensor) -> bool:
        assert isinstance(t, Tensor)
        if self.stale:
            self.linearise(t, x)
        narrow = self.velocity.narrow(keep, t[keep], x[keep], self.f[keep])
        if narrow is None or not self._knows(narrow, keep, t[keep], x[keep]):
            return False
        self.velocity, self.stale = narrow, True
        return True

    def _knows(self, velocity: Velocity, keep: Tensor, t: Tensor, x: Tensor) -> bool:
        """Whether a Jacobian of the user's is for some rows what it was among all."""
        if self.jacobian is None:
            return True
        try:
            with torch.no_grad():
                return torch.allclose(self.jacobian(velocity.time(t, x), x), self.J[keep], rtol=1e-3, atol=1e-6)
        except Exception:  # it has data of its own for each row
            return False

    def stiffness(self) -> Tensor | None:
        return None


def _along(f: Tensor, time: Tensor, graph: bool) -> Tensor:
    """∂f/∂t, by the derivative of a vector–Jacobian product with respect to its vector."""
    if not f.requires_grad:
        return torch.zeros_like(f)
    v = torch.zeros_like(f, requires_grad=True)
    (product,) = torch.autograd.grad(f, time, v, create_graph=True, allow_unused=True)
    if product is None or not product.requires_grad:
        return torch.zeros_like(f)
    (rate,) = torch.autograd.grad(product.sum(), v, create_graph=graph)
    return rate
