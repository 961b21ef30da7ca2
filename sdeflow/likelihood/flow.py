r"""A flow as a distribution: samples by solving an ODE, densities by the continuous change of variables.

Along dx/dt = v(t, x) the log-density changes as :math:`d\log p_t(x_t)/dt = -\nabla\cdot v`. With the base at time b and the
data at time d,

.. math:: \log p(x) = \log p_{base}(x_b) + \int_d^b \nabla\cdot v\,(t, x_t)\,dt .
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from sdeflow.brownian import fresh_seed
from sdeflow.errors import ArgumentError, choose, nearest
from sdeflow.likelihood.augmented import PROBE_LAWS, Augmented, ClosedForm, Divergence, Probing, draw_probes, exact
from sdeflow.likelihood.one_velocity import warn_unless_one_velocity
from sdeflow.likelihood.steps import own_clocks, tightened, turned
from sdeflow.likelihood.support import log_density
from sdeflow.processes.ode import ODE
from sdeflow.solvers import Solution, solve
from sdeflow.solvers.promises import check_additive
from sdeflow.solvers.registry import get_method
from sdeflow.types import Field

__all__ = ["Flow", "LogProb"]

EXACT_UP_TO = 64  # dimensions: beyond, the D products of an exact trace are a choice, not a default


@dataclass(frozen=True)
class LogProb:
    """log p(x) and how far it may be off.

    Attributes:
        value: log p(x), from a solve at a tenth of the tolerance.
        stderr: The standard error that the probes leave; 0 for an exact divergence, infinite for a single probe.
        solver_error: A bound-like estimate of the error of the solver: twice what the solve at the tolerance itself differs
            by, in log base and in the integral, and a floor for rounding.
        latent: The base point of each x, with the shape of x.
        stats: Those of the solve that gave the value.
    """

    value: Tensor
    stderr: Tensor
    solver_error: Tensor
    latent: Tensor
    stats: dict[str, Any]


class Flow(Distribution):
    r"""The law of the points that an ODE carries from a base law to the data.

    It is a ``torch.distributions.Distribution``: ``sample``, ``rsample``, ``log_prob``, ``expand``, ``event_shape``; and
    besides ``encode`` and ``decode``, the map itself, and ``log_prob_with_error``.

    Arguments:
        ode: The flow, on its interval (t0, t1).
        base: The law at one end; its events are the states of the ODE.
        base_at: ``"start"`` where the base is at t0 and the data at t1 (the generative clock), ``"end"`` where it is at t1
            (the noising clock: a probability flow with the prior at its end).
        divergence: ``"exact"`` (the default up to 64 dimensions), ``"hutchinson"``, or a function (t, x) → ``(B,)``
            where ∇·v is known, or (t, x) → (v, ∇·v) where both come at once, as of
            :meth:`sdeflow.laws.Along.velocity_and_divergence`.
        probes: K, the number of Hutchinson probes per sample, drawn once per trajectory and evaluated together.
        probe_law: ``"rademacher"`` (no variance where the Jacobian is diagonal) or ``"gaussian"`` (better in very few
            dimensions, where the signs have few values and a standard error from them is coarse).
        seed: For the probes; row b of a batch has the same probes whatever else is in the batch. None draws fresh ones in each
            call.
        **solve_options: What :func:`sdeflow.solve` takes besides: ``method``, ``dt``, ``steps``, ``rtol``, ``atol``,
            ``gradient``, …. By default tolerances of 1e-5, and every sample on its own clock where the method can, so that the
            likelihood of a sample does not depend on its batch-mates. The velocity is then given one time per row, with
            shape ``(B, 1, …, 1)``: code like ``if t < 0.5`` needs ``torch.where``, or ``stepping="shared"``. A grid in
            ``steps`` may run either way: it is turned to the direction of each solve.

    Raises:
        ArgumentError: An option is unknown, the base does not fit, or there are more than 64 dimensions and no divergence
            was chosen.
        MethodError: The method is not known.

    References:
        Neural Ordinary Differential Equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366;
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models (Grathwohl et al., 2019),
        https://arxiv.org/abs/1810.01367

    Example:
        >>> base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> flow = sf.Flow(sf.ODE(lambda t, x: x), base)  # the law of e·z
        >>> flow.log_prob(torch.zeros(1, 2))  # −ln 2π − 2
        tensor([-3.8379])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own name for it)

    def __init__(
        self,
        ode: ODE,
        base: Distribution,
        base_at: str = "start",
        *,
        divergence: str | Field | None = None,
        probes: int = 1,
        probe_law: str = "rademacher",
        seed: int | None = None,
        **solve_options: Any,
    ) -> None:
        if not isinstance(ode, ODE):
            raise ArgumentError(
                f"the flow's process is {type(ode).__name__}; give an sf.ODE. An SDE has one: sde.probability_flow(score)."
            )
        if not isinstance(base, Distribution):
            raise ArgumentError(f"the base is {type(base).__name__}; give a torch.distributions.Distribution.")
        if len(base.event_shape) == 0:
            raise ArgumentError(
                f"the base has batch_shape {tuple(base.batch_shape)} and event_shape (), so its coordinates are "
                f"separate laws. Make them one event: torch.distributions.Independent(base, {len(base.batch_shape) or 1})."
            )
        choose("base_at", base_at, ("start", "end"))
        choose("probe_law", probe_law, PROBE_LAWS)
        if isinstance(probes, bool) or not isinstance(probes, int) or probes < 1:
            raise ArgumentError(f"probes={probes!r} is not a whole number ≥ 1.")
        dims = base.event_shape.numel()
        if divergence is None:
            if dims > EXACT_UP_TO:
                raise ArgumentError(
                    f"the state has {dims} dimensions, and an exact divergence costs one product with the Jacobian "
                    f"for each. Choose: divergence='exact', divergence='hutchinson' with probes=…, or a function (t, x)."
                )
            divergence = "exact"
        if not callable(divergence):
            choose("divergence", divergence, ("exact", "hutchinson"))
        known = set(inspect.signature(solve).parameters) - {
            *("process", "x0", "t", "unknown", "seed", "brownian", "on_failure")
        }
        for name in solve_options:
            if name not in known:
                raise ArgumentError(f"Flow has no option {name!r}. {nearest(name, known)}")
        if solve_options.get("method") is not None:
            get_method(solve_options["method"])
        if seed is not None:
            fresh_seed(seed)
        self.ode = ode
        self.base = base
        self.base_at = base_at
        self.divergence = divergence
        self.probes = probes
        self.probe_law = probe_law
        self.seed = seed
        self.solve_options = solve_options
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def __repr__(self) -> str:
        options = {"base_at": self.base_at, "divergence": self.divergence, **self.solve_options}
        if self.divergence == "hutchinson":
            options |= {"probes": self.probes, "probe_law": self.probe_law, "seed": self.seed}
        settings = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"Flow({type(self.ode).__name__} on {self.ode.interval}, {self.base}, {settings})"

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether samples are differentiable: whether the base's are."""
        return bool(self.base.has_rsample)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """All real events."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Flow:
        """The same law with another batch shape."""
        return Flow(
            self.ode,
            self.base.expand(torch.Size(batch_shape)),
            self.base_at,
            divergence=self.divergence,
            probes=self.probes,
            probe_law=self.probe_law,
            seed=self.seed,
            **self.solve_options,
        )

    # --- the map -------------------------------------------------------------------------------------------------------

    @property
    def _from_base(self) -> tuple[float, float]:
        start, end = self.ode.interval
        return (start, end) if self.base_at == "start" else (end, start)

    def _solve(self, process: ODE, x: Tensor, times: tuple[float, float], tighten: float = 1.0) -> Solution:
        options = tightened(self.solve_options, tighten)
        options["steps"] = turned(options.get("steps"), times)
        if "stepping" not in options and own_clocks(options):
            options["stepping"] = "per-sample"
        try:
            return solve(process, x, times, **options)
        except RuntimeError as error:
            branches = "Boolean value of Tensor with more than one value" in str(error)
            if branches and options.get("stepping") == "per-sample":
                raise ArgumentError(
                    "the velocity decides by the value of t or x (as in 'if t < 0.5'), but it is given one time per row: "
                    "use torch.where, or make the flow with stepping='shared'."
                ) from error
            raise

    def _rows(self, x: Tensor) -> Tensor:
        """x ``(*sample, *batch, *event)`` as ``(B, *event)``."""
        if not isinstance(x, Tensor):
            raise ArgumentError(f"x is {type(x).__name__}; give a tensor (…, {', '.join(map(str, self.event_shape))}).")
        count = len(self.event_shape)
        if x.ndim < count or x.shape[x.ndim - count :] != self.event_shape:
            raise ArgumentError(
                f"x has shape {tuple(x.shape)}, but the base has event_shape {tuple(self.event_shape)}: "
                f"the last axes of x, and the states of the ODE, are events of the base."
            )
        return x.reshape(-1, *self.event_shape)

    def _carry(self, x: Tensor, times: tuple[float, float]) -> Tensor:
        rows = self._rows(x)
        return self._solve(self.ode, rows, times).final.reshape(x.shape) if len(rows) else x

    def decode(self, z: Tensor) -> Tensor:
        """The point that a base point is carried to; ``(…, *event)`` to the same shape."""
        return self._carry(z, self._from_base)

    def encode(self, x: Tensor) -> Tensor:
        """The base point that is carried to x: the inverse of :meth:`decode`, to the solver's error."""
        warn_unless_one_velocity(self.ode)
        return self._carry(x, self._from_base[::-1])

    def round_trip(self, x: Tensor) -> Tensor:
        """How far decode(encode(x)) is from x, in the coordinate where it is farthest: ``(…, *event)`` to ``(…)``.

        Two solves see no more of the map than their own steps, so this is a check and not a bound on the error of either: it
        finds a tolerance that is too loose, a flow that contracts so much that the way back amplifies rounding, and a
        velocity that is not the same both ways.

        Example:
            >>> base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
            >>> flow = sf.Flow(sf.ODE(lambda t, x: x), base)
            >>> bool(flow.round_trip(torch.ones(3, 2)).max() < 1e-4)
            True
        """
        with torch.no_grad():
            error = (self.decode(self.encode(x)) - x).abs()
            return error.flatten(x.ndim - len(self.event_shape)).amax(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples ``(*sample, *batch, *event)``, differentiable in the flow's parameters and, where it is, the base's."""
        if not self.has_rsample:
            raise ArgumentError(
                f"the base {self.base} has no rsample: its samples are not differentiable. "
                f"Use sample(), or decode() for gradients with respect to the flow alone."
            )
        return self.decode(self.base.rsample(torch.Size(sample_shape)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Samples ``(*sample, *batch, *event)`` without a graph."""
        with torch.no_grad():
            return self.decode(self.base.sample(torch.Size(sample_shape)))

    # --- the density ---------------------------------------------------------------------------------------------------

    def _estimator(self, x: Tensor, seed: int | None) -> tuple[Divergence, int]:
        if callable(self.divergence):
            return ClosedForm(self.divergence), 1
        if self.divergence == "exact":
            return exact, 1
        return Probing(draw_probes(self.probe_law, self.probes, x, fresh_seed(seed))), self.probes

    def _log_probs(self, x: Tensor, seed: int | None, tighten: float = 1.0) -> _Integrals:
        """The base's log-density at the latent of each row of x, and K integrals of the divergence."""
        rows = self._rows(x)
        if not len(rows):
            shape = torch.broadcast_shapes(x.shape[: x.ndim - len(self.event_shape)], self.batch_shape)
            return _Integrals(x, x.new_zeros(shape), x.new_zeros(*shape, self.probes), {})
        check_additive(self.ode, self.ode.interval[0], rows)
        estimate, count = self._estimator(rows, seed)
        controlled = self.divergence != "hutchinson"
        augmented = Augmented(self.ode, self.event_shape, estimate, count, controlled=controlled)
        solution = self._solve(augmented, augmented.join(rows), self._from_base[::-1], tighten)
        latent, integrals = augmented.part(solution.final)
        latent = latent.reshape(x.shape)
        shape = x.shape[: x.ndim - len(self.event_shape)]
        log_base = log_density(self.base, latent)
        return _Integrals(latent, log_base, integrals.reshape(*shape, count), solution.stats)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p, ``(*sample, *batch, *event)`` to ``(*sample, *batch)``; differentiable.

        With Hutchinson probes it is an unbiased estimate, up to the solver's error; :meth:`log_prob_with_error` says how
        far either may be off.

        Raises:
            ArgumentError: The last axes of x are not an event of the base.
            SolveError: Some trajectory could not be followed to the base.
        """
        warn_unless_one_velocity(self.ode)
        return self._log_probs(value, self.seed).value

    def log_prob_with_error(self, x: Tensor) -> LogProb:
        """log p with its error bars: the standard error of the probes, and the error of the solver.

        Two solves with the same probes: the value is from tolerances ten times smaller than asked for (for fixed steps, from
        half the step). The error of the solver is twice the change between them, that of the base's log-density and that of
        the integral added up, plus a floor for rounding. The change of their sum alone is now and then small by accident,
        and would then claim too little.

        Arguments:
            x: ``(*sample, *batch, *event)``.

        Returns:
            A :class:`LogProb`; ``value``, ``stderr`` and ``solver_error`` have shape ``(*sample, *batch)``.

        Example:
            >>> base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
            >>> flow = sf.Flow(sf.ODE(lambda t, x: x), base, rtol=1e-4)
            >>> estimate = flow.log_prob_with_error(torch.zeros(1, 2, dtype=torch.float64))
            >>> bool((estimate.value + 3.8378770664093453).abs() <= estimate.solver_error)
            True
        """
        warn_unless_one_velocity(self.ode)
        seed = fresh_seed(self.seed)
        fine, coarse = self._log_probs(x, seed, tighten=10.0), self._log_probs(x, seed)
        value = fine.value
        scale = fine.log_base.abs() + fine.integrals.abs().mean(-1) + self.event_shape.numel()
        rounding = 8 * torch.finfo(x.dtype).eps * scale
        change = (fine.log_base - coarse.log_base).abs() + (fine.integrals - coarse.integrals).mean(-1).abs()
        solver_error = (2 * change + rounding).detach()
        if self.divergence != "hutchinson":
            stderr = torch.zeros_like(solver_error)
        elif self.probes == 1 or not value.numel():
            stderr = torch.full_like(solver_error, float("inf"))
        else:
            stderr = fine.integrals.detach().std(-1) / self.probes**0.5
        return LogProb(value, stderr.expand(value.shape), solver_error, fine.latent, fine.stats)


@dataclass(frozen=True)
class _Integrals:
    """What one solve says about log p."""

    latent: Tensor
    log_base: Tensor
    integrals: Tensor
    stats: dict[str, Any]

    @property
    def value(self) -> Tensor:
        return self.log_base + self.integrals.mean(-1)
