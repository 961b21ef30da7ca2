"""ODEs: dx/dt = v(t, x)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.process import Process, already_guarded
from sdeflow.types import Field, Time

if TYPE_CHECKING:
    from sdeflow.processes.marginal_preserving import MarginalPreserving

__all__ = ["ODE"]


class ODE(Process):
    r"""An ordinary differential equation, or a flow: :math:`dx/dt = v(t, x)`.

    Give the velocity, or subclass and override :meth:`velocity` (or :meth:`drift`: they are two names of one method).

    Arguments:
        velocity: v(t, x) with x of shape ``(B, *event)`` and t broadcasting against it; it returns the shape of x.
        interval: (t0, t1), in the units of t.

    Raises:
        ArgumentError: The velocity is not a function, or the interval is empty.

    Example:
        >>> ode = sf.ODE(lambda t, x: -x, interval=(0.0, 2.0))
        >>> sf.solve(ode, torch.ones(1, 1)).final
        tensor([[0.1353]])
    """

    error_mask: Tensor | None = None
    """Which coordinates a tolerance speaks about, broadcasting against one row of the state; None for all of them."""

    def __init_subclass__(cls, precise_time: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(precise_time=precise_time, **kwargs)
        own = cls.__dict__
        if "velocity" in own and "drift" not in own:
            cls.drift = own["velocity"]  # type: ignore[method-assign]
        elif "drift" in own and "velocity" not in own:
            cls.velocity = own["drift"]  # type: ignore[method-assign]

    def __init__(self, velocity: Field | None = None, *, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(interval)
        if velocity is not None and not callable(velocity):
            raise ArgumentError(f"the velocity is {velocity!r}; give a function of (t, x).")
        self.velocity_function = velocity

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        """v(t, x), with the shape of x."""
        if self.velocity_function is None:
            return super().drift(t, x)
        return self.velocity_function(t, x)

    @already_guarded
    def drift(self, t: Time, x: Tensor) -> Tensor:
        """The velocity: an ODE is an SDE without noise."""
        # Where a subclass has made the two one, this is its super().drift, and calling it back would not end.
        return ODE.velocity(self, t, x) if type(self).velocity is type(self).drift else self.velocity(t, x)

    def reverse(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: an ODE has no noise, so it is its own reversal; solve it with decreasing times."""
        raise ArgumentError(
            "an ODE has no noise, so it needs no score to run the other way: solve it with decreasing times, "
            "sf.solve(ode, x, (1.0, 0.0)), or take ode.flip()."
        )

    def marginal_preserving(self, score: Field, epsilon: Time | Field) -> MarginalPreserving:
        r"""The SDE :math:`dx = (v + \varepsilon\,\nabla\log p_t)\,dt + \sqrt{2\varepsilon}\,dW` with the flow's marginals.

        Arguments:
            score: ∇log p_t on this process's clock.
            epsilon: A number ≥ 0, or a function of t.

        References:
            Stochastic Interpolants: A Unifying Framework for Flows and Diffusions (Albergo et al., 2023),
            https://arxiv.org/abs/2303.08797
        """
        from sdeflow.processes.marginal_preserving import MarginalPreserving

        return MarginalPreserving(self, score, epsilon)
