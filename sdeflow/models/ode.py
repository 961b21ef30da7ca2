"""The processes of a model: its fields with the conditions filled in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.together import At, fields_at, together
from sdeflow.types import Field, Time, Times

if TYPE_CHECKING:
    from sdeflow.models.model import GenerativeModel

__all__ = ["Conditional", "ModelODE"]


class Conditional(nn.Module):
    """One of a model's fields as a function of (t, x), its conditions filled in; its parameters are those of the model."""

    def __init__(self, model: GenerativeModel, name: str, condition: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.name, self.condition = model, name, condition

    def forward(self, t: Time, x: Tensor) -> Tensor:
        value: Tensor = getattr(self.model, self.name)(t, x, **self.condition)
        return value

    @property
    def expected_data(self) -> Field | None:
        """E[x_data | x_t] where this is the score of a model with a schedule, from which it would follow by a detour."""
        if self.name != "score" or self.model.schedule is None:
            return None
        return Conditional(self.model, "denoiser", self.condition)

    def at_times(self, times: Times, like: Tensor) -> Sequence[At]:
        """See :func:`~sdeflow.processes.together.fields_at`."""
        return fields_at(getattr(self.model, self.name), times, like, **self.condition)


class ModelODE(ODE, precise_time=True):
    """dx/dt = the velocity of a model under conditions, from the base to the data."""

    plain_name = "the flow of the model"

    def __init__(self, model: GenerativeModel, condition: dict[str, Any], interval: tuple[float, float]) -> None:
        super().__init__(interval=interval)
        self.model = model
        self.condition = condition
        self.direction = 1 if model.data_at == "end" else -1
        if model.schedule is not None:
            self.schedule = model.schedule
            self.score = Conditional(model, "score", condition)

    def _velocities(self, times: Times, like: Tensor) -> Sequence[At]:
        return fields_at(self.model.velocity, times, like, **self.condition)

    @together(_velocities)
    def velocity(self, t: Time, x: Tensor) -> Tensor:
        return self.model.velocity(t, x, **self.condition)

    def _denoisers(self, times: Times, like: Tensor) -> Sequence[At]:
        return fields_at(self.model.denoiser, times, like, **self.condition)

    @together(_denoisers)
    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        return self.model.denoiser(t, x, **self.condition)

    def rows(self, keep: Tensor) -> Process:
        own = {
            name
            for name, value in self.condition.items()
            if isinstance(value, Tensor) and value.ndim and len(value) > 1
        }
        if not own:
            return self
        narrow = {name: value[keep] if name in own else value for name, value in self.condition.items()}
        return ModelODE(self.model, narrow, self.interval)
