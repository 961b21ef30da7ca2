"""Local weak errors without sampling: polynomial SDEs, quadrature over the noise of one step, and the generator's series.

For polynomial coefficients and a polynomial φ, E φ(x_h) = Σ_k h^k L^k φ(t, x) / k! with L the generator: polynomials again,
exactly. What a method makes of E φ is an integral over (W, H) of its one step, by Gauss–Hermite quadrature. Their difference
is of the order h^(p+1) for a method of weak order p, with no sampling error.
"""

import itertools
import math
from functools import cached_property

import numpy as np
import torch
from given_noise import GivenCells

import sdeflow as sf

TERMS = 4  # of the series: its own error is of the order h^4
ZERO = torch.tensor(0.0, dtype=torch.float64)
START = torch.tensor([[0.4, -0.3]], dtype=torch.float64)


class Polynomial(dict):
    """Coefficients by exponents of (t, x_1, …, x_D)."""

    def __add__(self, other):
        return Polynomial({k: self.get(k, 0.0) + other.get(k, 0.0) for k in self.keys() | other.keys()})

    def __mul__(self, other):
        if not isinstance(other, Polynomial):
            return Polynomial({k: v * other for k, v in self.items()})
        product = {}
        for (a, v), (b, w) in itertools.product(self.items(), other.items()):
            key = tuple(i + j for i, j in zip(a, b, strict=True))
            product[key] = product.get(key, 0.0) + v * w
        return Polynomial(product)

    def d(self, axis):
        """The derivative by variable `axis`, t being the first."""
        return Polynomial(
            {(*k[:axis], k[axis] - 1, *k[axis + 1 :]): v * k[axis] for k, v in self.items() if k[axis] > 0}
        )

    def __call__(self, t, x):
        total = torch.zeros_like(x[:, 0])
        for (power, *rest), v in self.items():
            term = v * t**power
            for i, n in enumerate(rest):
                term = term * x[:, i] ** n
            total = total + term
        return total


MONOMIALS = [Polynomial({(0, i, j): 1.0}) for i in range(4) for j in range(4) if 0 < i + j <= 3]


def polynomial(rng, size, variables, degree, scale):
    """A random polynomial in t and some of the x_i, with all monomials of t-degree ≤ 1 and total degree ≤ `degree`."""
    terms = {}
    for powers in itertools.product(range(2), *[range(degree + 1) if i in variables else (0,) for i in range(size)]):
        if sum(powers) <= degree:
            terms[powers] = scale * rng.normal()
    return Polynomial(terms)


def square(i):
    """x_i²/4: what makes a field nonlinear."""
    return Polynomial({(0, 2, 0) if i == 0 else (0, 0, 2): 0.25})


class PolynomialSDE:
    """An SDE with polynomial coefficients in x ∈ R², of a class of noise.

    Attributes:
        process: The process.
        f: The drift, in the calculus of the process.
        columns: σ, by column and coordinate.
    """

    def __init__(self, kind, calculus, seed):
        rng = np.random.default_rng(seed)
        both, zero = (0, 1), Polynomial()
        self.f = [polynomial(rng, 2, both, 2, 0.5) for _ in range(2)]
        noise = {"additive": "diagonal", "commutative": "general"}.get(kind, kind)
        if kind == "additive":
            g = [polynomial(rng, 2, (), 1, 0.5) for _ in range(2)]
        elif kind == "diagonal":
            g = [polynomial(rng, 2, (i,), 2, 0.5) for i in range(2)]
        else:
            g = [polynomial(rng, 2, both, 1, 0.5) + square(i) for i in range(2)]
        if noise == "diagonal":
            self.columns = [[g[0], zero], [zero, g[1]]]
        elif kind == "scalar":
            self.columns = [g]
        elif kind == "commutative":  # columns r(t) e, with constants: σ_k = c_k(t) v(x) commute
            factors = [polynomial(rng, 2, (), 1, 1.0) for _ in range(2)]
            self.columns = [[factor * g[i] for i in range(2)] for factor in factors]
        else:
            self.columns = [g, [polynomial(rng, 2, both, 1, 0.5) + square(i) for i in range(2)]]
        columns = self.columns

        def diffusion(t, x):
            value = torch.stack([torch.stack([p(t, x) for p in column], 1) for column in columns], 2)
            if noise == "diagonal":
                return value.diagonal(dim1=1, dim2=2)
            return value[:, :, 0] if noise == "scalar" else value

        self.process = sf.SDE(
            lambda t, x: torch.stack([p(t, x) for p in self.f], 1),
            diffusion if kind != "additive" else lambda t, x: diffusion(t, x[:1]),
            noise=noise,
            additive=kind == "additive",
            commutative=kind == "commutative",
            calculus=calculus,
            interval=(-1.0, 1.0),  # a stage may be outside its step
        )

    @cached_property
    def coefficients(self):
        """The generator: the drift in Itô form, and half of σσᵀ on and above its diagonal, twice what is above."""
        drift, halves = list(self.f), {}
        for column, i in itertools.product(self.columns, range(2)):
            if self.process.calculus == "stratonovich":
                for j in range(2):
                    drift[i] = drift[i] + column[j] * column[i].d(1 + j) * 0.5
            for j in range(i, 2):
                weight = 0.5 if i == j else 1.0
                halves[i, j] = halves.get((i, j), Polynomial()) + column[i] * column[j] * weight
        return drift, halves

    def generator(self, phi):
        drift, halves = self.coefficients
        value = phi.d(0) + drift[0] * phi.d(1) + drift[1] * phi.d(2)
        for (i, j), half in halves.items():
            value = value + half * phi.d(1 + i).d(1 + j)
        return value

    @cached_property
    def series(self):
        """The coefficients of the series of E φ(x_h) in h, for each monomial φ."""
        return [self._coefficients(phi) for phi in MONOMIALS]

    def _coefficients(self, phi):
        coefficients = [phi(ZERO, START).item()]
        for k in range(1, TERMS):
            phi = self.generator(phi)
            coefficients.append(phi(ZERO, START).item() / math.factorial(k))
        return coefficients


def hermite(columns, count):
    """Nodes of standard normal variables ``(count^(2M), 2, M)`` and their weights."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    nodes = np.stack(np.meshgrid(*[x] * (2 * columns), indexing="ij"), -1).reshape(-1, 2, columns)
    weights = np.stack(np.meshgrid(*[w / w.sum()] * (2 * columns), indexing="ij"), -1).reshape(-1, 2 * columns).prod(1)
    return torch.as_tensor(nodes), torch.as_tensor(weights)


def local_errors(problem, method, steps, count):
    """|E φ(x_1) − E φ(x_h)| of one step, its norm over the monomials φ up to degree 3, for each step size."""
    columns = {"scalar": 1}.get(problem.process.noise, 2)
    nodes, weights = hermite(columns, count)
    x0, errors = START.expand(len(nodes), 2), []
    for h in steps:
        path = GivenCells(nodes[None, :, 0] * h**0.5, nodes[None, :, 1] * (h / 12) ** 0.5, 0.0, h)
        final = sf.solve(problem.process, x0, (0.0, h), steps=1, method=method, brownian=path).final
        found = [(weights * phi(ZERO, final)).sum().item() for phi in MONOMIALS]
        exact = [sum(c * h**k for k, c in enumerate(coefficients)) for coefficients in problem.series]
        errors.append(np.linalg.norm(np.subtract(found, exact)))
    return errors
