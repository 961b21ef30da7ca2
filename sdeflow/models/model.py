"""What every generative model has: a loss, a flow from the base to the data, and what follows from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sdeflow.errors import ArgumentError, choose
from sdeflow.likelihood import Flow
from sdeflow.models.base_law import check_base, moved
from sdeflow.models.evaluation import evaluating
from sdeflow.models.ode import Conditional, ModelODE
from sdeflow.paths import Coupling, Draws, Given, Independent
from sdeflow.paths.change import start_scale
from sdeflow.processes.affine import Asked, combined
from sdeflow.processes.boundary import as_time, check_field, check_interval, state_time, times_for
from sdeflow.processes.conversions import QUANTITIES, coefficients
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, doubles_of, fields_at, together
from sdeflow.solvers import solve
from sdeflow.types import Field, Time, Times

__all__ = ["GenerativeModel", "squared_error"]

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": Tensor.mean,
    "sum": Tensor.sum,
    "none": lambda losses: losses,
}
DATA_ENDS = ("start", "end")
CUT = 1e-3  # of the interval, at a data end where the score is infinite


class GenerativeModel(nn.Module, ABC):
    r"""A base law, a process that carries it to the data, and a loss by which the process is learned.

    A new model is a subclass with :meth:`losses`, and :meth:`velocity` where the network is not the velocity itself. It
    then samples, transports, has likelihoods, and, given a schedule, a score and SDEs.

    Conditions (labels, contexts) are keyword arguments everywhere and go to the network as they are: one row per sample, or
    one for all. Options of the solver travel in ``solver={…}``.

    Arguments:
        net: A function of (t, x) and the conditions, with the shape of x. ``sf.adapt`` fits networks of other forms.
        base: The law at the end that is not the data's; its events are the states. Samples have its dtype and device.
        data_at: ``"end"`` where the data are at t1 (the generative clock), ``"start"`` where they are at t0 (the noising
            clock). Processes of a model run from the base to the data.
        interval: (t0, t1).
        predicts: What the network stands for: ``"velocity"``, ``"score"``, ``"data"`` or ``"noise"``.
        schedule: a(t) and s(t) on this clock where the state is a·data + s·noise with independent normal noise; it makes the
            four quantities one. Otherwise a sentence that says why there is none.

    Raises:
        ArgumentError: The base is no distribution of events, or a word is unknown.

    Example:
        >>> class Straight(sf.models.GenerativeModel):
        ...     def losses(self, x, x0, draws, **condition):
        ...         x0, t = self.base_points(x, x0, draws), draws.times(x)
        ...         error = self.prediction(t, torch.lerp(x0, x, t.to(x)), **condition) - (x - x0)
        ...         return error.square().flatten(1).sum(1)
        >>> base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> model = Straight(sf.networks.MLP(2), base)
        >>> model.loss(torch.randn(64, 2)).backward()
        >>> x = model.sample(5, seed=0, solver={"steps": 10})
        >>> model.log_prob(x).shape
        torch.Size([5])
    """

    data_at: str
    predicts: str
    schedule: Schedule | None
    coupling: Coupling = Independent()

    def __init__(
        self,
        net: Any,
        base: Distribution,
        *,
        data_at: str = "end",
        interval: tuple[float, float] = (0.0, 1.0),
        predicts: str = "velocity",
        schedule: Schedule | str = "it has no schedule",
    ) -> None:
        super().__init__()
        if not callable(net):
            raise ArgumentError(f"the network is {type(net).__name__}; give a function of (t, x), such as a Module.")
        check_base(base)
        self.net = net
        self.base = base
        self.data_at = choose("data_at", data_at, DATA_ENDS)
        self.interval = check_interval(interval)
        self.predicts = choose("predicts", predicts, QUANTITIES)
        self.schedule = schedule if isinstance(schedule, Schedule) else None
        self.no_schedule = schedule if isinstance(schedule, str) else ""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """The base goes where the model goes, ``.to(device)`` or ``.double()``, as a buffer would."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.base = moved(self.base, fn)
        return self

    # --- learning ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def losses(self, x: Tensor, x0: Tensor | None, draws: Draws, **condition: Any) -> Tensor:
        """The loss of each row of the data x ``(B, *event)``: shape ``(B,)``, or a number where rows have none of their own.

        Arguments:
            x: The data.
            x0: Base points that the caller paired with them, or None; see :meth:`base_points`.
            draws: All that is random in it.
            condition: What the network is given besides.
        """

    def loss(
        self, x: Tensor, *, x0: Tensor | None = None, seed: int | None = None, reduction: str = "mean", **condition: Any
    ) -> Tensor:
        """The training loss on a batch.

        Arguments:
            x: Data, with shape ``(B, *event)``.
            x0: Base points to use, with the shape of x; drawn from the base by default.
            seed: With it the loss is a pure function of its arguments, and the global generators are neither read nor changed.
            reduction: ``"mean"``, ``"sum"``, or ``"none"`` for the loss of each row, ``(B,)``.
            condition: What the network is given besides, one row per row of x or one for all.

        Raises:
            ArgumentError: A shape does not fit.
        """
        reduce = REDUCTIONS[choose("reduction", reduction, REDUCTIONS)]
        self.check_events("x", x)
        if x0 is not None:
            self.check_events("x0", x0)
            if x0.shape != x.shape:
                raise ArgumentError(f"x0 has shape {tuple(x0.shape)} and x {tuple(x.shape)}; give one x0 for each x.")
        check_condition(condition, len(x))
        reduced: Tensor = reduce(self.losses(x, x0, Draws(seed), **condition))
        return reduced

    def base_points(self, x: Tensor, x0: Tensor | None, draws: Draws) -> Tensor:
        """x0 where it is given, else draws of the base, like x.

        Raises:
            ArgumentError: The coupling is that of given pairs, and there are none.
        """
        if x0 is None and isinstance(self.coupling, Given):
            raise ArgumentError("coupling='given' learns from pairs: give x0=, the base point of each row of x.")
        return (draws.samples(self.base, len(x)) if x0 is None else x0).to(x)

    # --- what the network knows ----------------------------------------------------------------------------------------

    def _predictions(self, times: Times, like: Tensor, **condition: Any) -> Sequence[At]:
        def checked(field: At) -> At:
            return lambda x: check_field("network", field(x), x)

        fields = fields_at(self.net, times_for(times, like, self.interval), like, **condition)
        said = tuple((name, id(value)) for name, value in condition.items())
        return Asked(map(checked, fields), (id(self), times.tobytes(), *said))

    @together(_predictions)
    def prediction(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """The network at (t, x), with the shape of x: the quantity that it predicts."""
        return check_field("network", self.net(state_time(t, x, self.interval), x, **condition), x)

    def _quantities(self, wanted: str, times: Times, like: Tensor, **condition: Any) -> Sequence[At]:
        predictions = fields_at(self.prediction, times, like, **condition)
        if wanted == self.predicts:
            return predictions
        self.check_schedule(wanted)
        return combined(*self.coefficients(wanted, doubles_of(times, like)), predictions, like)

    @together(_quantities)
    def quantity(self, wanted: str, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """One of ``"velocity"``, ``"score"``, ``"data"`` and ``"noise"`` at (t, x), by conversion where it is not predicted.

        Raises:
            ArgumentError: The conversion does not hold for this model.
        """
        if wanted == self.predicts:
            return self.prediction(t, x, **condition)
        self.check_schedule(wanted)
        of_x, of_value = self.coefficients(wanted, as_time(t, x))
        return torch.addcmul(of_x.to(x.dtype) * x, of_value.to(x.dtype), self.prediction(t, x, **condition))

    def check_schedule(self, wanted: str) -> None:
        """Refuse a conversion that does not hold."""
        if self.schedule is None:
            raise ArgumentError(
                f"{type(self).__name__} predicts the {self.predicts}, and the {wanted} does not follow from it: "
                f"{self.no_schedule}. Conversions need noise ~ N(0, I) that is independent of the data."
            )

    def coefficients(self, wanted: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """p and q of a quantity p x + q · prediction, float64, at float64 times of any shape."""
        assert self.schedule is not None
        return coefficients(self.schedule, t, self.predicts, wanted)

    def _velocities(self, times: Times, like: Tensor, **condition: Any) -> Sequence[At]:
        return fields_at(self.quantity, times, like, "velocity", **condition)

    @together(_velocities)
    def velocity(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """The velocity of the flow, with the shape of x, per unit of t."""
        return self.quantity("velocity", t, x, **condition)

    def _scores(self, times: Times, like: Tensor, **condition: Any) -> Sequence[At]:
        return fields_at(self.quantity, times, like, "score", **condition)

    @together(_scores)
    def score(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """∇log p_t(x) on the model's clock, with the shape of x.

        Raises:
            ArgumentError: It does not follow from what the model has learned.
        """
        return self.quantity("score", t, x, **condition)

    def _denoisers(self, times: Times, like: Tensor, **condition: Any) -> Sequence[At]:
        return fields_at(self.quantity, times, like, "data", **condition)

    @together(_denoisers)
    def denoiser(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        """E[x_data | x_t = x], with the shape of x; errors as :meth:`score`."""
        return self.quantity("data", t, x, **condition)

    # --- processes -----------------------------------------------------------------------------------------------------

    def ode(self, **condition: Any) -> ODE:
        """The flow as a process that runs from the base to the data; semi-linear where the model has a schedule.

        Its interval stops a thousandth short of an end where the velocity does not follow from what is predicted: the
        data end for data, where s = 0, and the base end for noise and scores, where a = 0.
        """
        return ModelODE(self, condition, self.interval_of("velocity"))

    def flow(self, *, solver: dict[str, Any] | None = None, **condition: Any) -> Flow:
        """The law of the flow's end, a ``torch.distributions.Distribution``; above 64 dimensions choose a divergence.

        Arguments:
            solver: Options of :class:`sdeflow.Flow`: tolerances or steps, ``divergence``, ``probes``, ….
            condition: What the network is given besides.
        """
        return Flow(self.ode(**condition), self.base, "start" if self.data_at == "end" else "end", **(solver or {}))

    def sde(self, epsilon: Time | Field, **condition: Any) -> SDE:
        r"""The SDE with the flow's marginals and noise √(2ε), from the base to the data; it needs a score.

        Where the score is infinite at the data, its interval stops a thousandth short of them.

        Arguments:
            epsilon: ε ≥ 0, a number or a function of t. Methods that walk by the noise level (``ancestral``,
                ``sde-dpmpp-2m``, ``exponential-heun``) integrate ∫ε/s² dt, infinite for a constant ε where s = 0 at the data,
                and converge slowly there: give them one that falls as s², as ``lambda t: (1 - t) ** 2`` on the straight line.
            condition: What the network is given besides.

        Raises:
            ArgumentError: The model has no score.
        """
        ode = ModelODE(self, condition, self.interval_of("velocity", "score"))
        return ode.marginal_preserving(Conditional(self, "score", condition), epsilon)

    def interval_of(self, *wanted: str) -> tuple[float, float]:
        """The interval, cut by a thousandth at an end where one of the quantities wanted is infinite.

        Raises:
            ArgumentError: The model has no schedule, and a quantity is wanted that it does not predict.
        """
        if set(wanted) <= {self.predicts}:
            return self.interval
        self.check_schedule(wanted[-1])
        start, end = self.interval
        inward = CUT * (end - start)

        def finite(t: float) -> bool:
            time = torch.tensor(t, dtype=torch.float64)
            return all(bool(v.isfinite()) for name in wanted for v in self.coefficients(name, time))

        return (start if finite(start) else start + inward, end if finite(end) else end - inward)

    # --- use -----------------------------------------------------------------------------------------------------------

    def carrier(self, **condition: Any) -> Process:
        """What carries samples from the base where no process is named: the flow, or what a model without one has."""
        return self.ode(**condition)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int | None = None,
        process: Process | None = None,
        solver: dict[str, Any] | None = None,
        **condition: Any,
    ) -> Tensor:
        """n samples, ``(n, *event)``, in the dtype of the base, by the networks in evaluation mode.

        Arguments:
            n: How many.
            seed: For the base and the noise; with it the global generators are neither read nor changed.
            process: What carries them, :meth:`carrier` by default; such as ``model.sde(0.5)``, or that given more conditions.
            solver: Options of :func:`sdeflow.solve`: ``method``, ``steps``, ``rtol``, ….
            condition: What the network is given besides, one row per sample or one for all.

        Raises:
            ArgumentError: An option does not fit.
            SolveError: Some samples did not come to the end.
        """
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise ArgumentError(f"n={n!r} is not a whole number ≥ 1.")
        check_condition(condition, n)
        if process is not None and condition:
            raise ArgumentError(
                f"process= has conditions of its own, so {', '.join(condition)} would be ignored; "
                f"give them to what makes the process, as in model.sde(epsilon, {next(iter(condition))}=…)."
            )
        chosen = self.carrier(**condition) if process is None else process
        for part in chosen.modules():
            if isinstance(part, (Conditional, ModelODE)):
                check_condition(part.condition, n)
        options = {"seed": seed, **(solver or {})} if chosen.noise != "none" else (solver or {})
        with evaluating(chosen):
            x0 = start_scale(chosen, self.schedule) * Draws(seed).samples(self.base, n)
            return solve(chosen, x0, **options).final

    def transport(self, x0: Tensor, *, solver: dict[str, Any] | None = None, **condition: Any) -> Tensor:
        """The data points that the flow carries base points to, with the shape of x0; differentiable."""
        self.check_events("x0", x0)
        check_condition(condition, len(x0))
        return solve(self.ode(**condition), x0, **(solver or {})).final

    def log_prob(self, x: Tensor, *, solver: dict[str, Any] | None = None, **condition: Any) -> Tensor:
        """log p(x) of the flow, ``(*sample, *event)`` to ``(*sample)``; differentiable.

        Arguments:
            x: Points, as many samples as their leading axes have in all.
            solver: Options of :class:`sdeflow.Flow`.
            condition: What the network is given besides, one row per sample, ``x.reshape(-1, *event)``, or one for all.

        Raises:
            ArgumentError: A shape does not fit.
            SolveError: Some trajectory could not be followed to the base.
        """
        if isinstance(x, Tensor):
            check_condition(condition, x.numel() // self.base.event_shape.numel())
        return self.flow(solver=solver, **condition).log_prob(x)

    def check_events(self, name: str, x: Any) -> None:
        """A batch of floating-point events of the base, or an ArgumentError that says what it is instead."""
        event = tuple(self.base.event_shape)
        if not isinstance(x, Tensor) or not x.is_floating_point() or tuple(x.shape[1:]) != event or not x.numel():
            given = f"a tensor {x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ArgumentError(
                f"{name} is {given}; give floating-point data of shape (B, {', '.join(map(str, event))})."
            )


def squared_error(weight: Tensor | float, error: Tensor) -> Tensor:
    """Σ weight·error² over the event of each row, ``(B,)``, in the dtype of the error."""
    squares = error.square()
    if isinstance(weight, Tensor) or weight != 1.0:  # on a small network a product more is a hundredth of a step
        squares = weight * squares
    return squares.flatten(1).sum(1).to(error.dtype)


def check_condition(condition: dict[str, Any], rows: int) -> None:
    """One row per sample, or one for all."""
    for name, value in condition.items():
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) not in (1, rows):
            raise ArgumentError(
                f"{name} has {len(value)} rows for {rows} samples; give one row per sample, or one for all."
            )
