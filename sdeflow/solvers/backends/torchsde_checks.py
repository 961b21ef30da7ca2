r"""What torchsde's derivatives take for granted about a diffusion, looked at before it goes wrong.

Milstein's method adds :math:`\tfrac12 (\partial\sigma)\sigma\,(W^2 - h)`. torchsde computes the product from the left,
:math:`\sigma^\top\partial\sigma`, which is the same only if the Jacobian is symmetric; otherwise the order falls to 1/2
in Itô form, and in Stratonovich form, where W² has a mean, the limit is another process. Its Itô adjoint takes noise on
the diagonal to be elementwise in the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.errors import MethodError
from sdeflow.processes.sde import SDE
from sdeflow.solvers.job import Job
from sdeflow.solvers.methods import Method

__all__ = ["check_jacobian"]


def check_jacobian(job: Job, method: str, gradient_free: bool) -> None:
    """Refuse a diffusion whose Jacobian, at the first state, is not what the method takes it to be.

    Raises:
        MethodError: With the reason, and the methods that do better.
    """
    process = job.process
    assert isinstance(process, SDE)
    if process.additive or process.noise == "general" or job.x0[0].numel() == 1:
        return
    milstein = method == "milstein" and not gradient_free
    adjoint = job.gradient == "adjoint" and process.calculus == "ito"
    if process.noise == "scalar" and milstein:
        reason = "torchsde takes the Jacobian of a scalar noise to be symmetric, and that of this diffusion is not"
    elif process.noise == "diagonal" and (adjoint or (milstein and process.calculus == "stratonovich")):
        reason = (
            "torchsde takes coordinate i of a diffusion on the diagonal to depend on coordinate i of the state only, "
            "and here it depends on others"
        )
    else:
        return
    J = _Jacobian(process, job.times[0], job.x0)
    if J.is_symmetric() if process.noise == "scalar" else J.is_diagonal():
        return
    gradient = "backprop" if process.noise == "diagonal" else job.gradient
    from sdeflow.solvers.registry import methods  # the registry stands above the engines; this is for its error only

    table = methods()
    fitting = table.fitting(process, adaptive=job.grid is None, gradient=gradient)
    raise MethodError(
        f"method={job.method.name!r} cannot solve this: {reason}. Methods that can with gradient={gradient!r}: "
        f"{', '.join(name for name in fitting if not _shares_it(table[name], process))}."
    )


def _shares_it(method: Method, process: SDE) -> bool:
    if method.engine == "native":  # see check_commuting
        return process.noise == "diagonal" and "general" not in method.strong_order
    """Whether a method would fail on this diffusion too: for the same reason, or since its order is for elementwise noise."""
    if method.engine == "native":
        return process.noise == "diagonal" and "general" not in method.strong_order
    if method.engine != "torchsde" or method.options["method"] != "milstein" or "options" in method.options:
        return False
    return process.noise == "scalar" or process.calculus == "stratonovich"


class _Jacobian:
    """Products with the Jacobian of a diffusion, row by row, by a vector that has no two equal entries."""

    def __init__(self, process: SDE, t: float, x: Tensor) -> None:
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            self.g = process.diffusion(t, self.x).expand_as(self.x)
        self.r = torch.linspace(1, 2, x[0].numel(), dtype=x.dtype, device=x.device).reshape(x[0].shape).expand_as(x)

    def _left(self, v: Tensor, graph: bool = False) -> Tensor:
        """vᵀJ."""
        if not self.g.requires_grad:
            return torch.zeros_like(self.x)
        (row,) = torch.autograd.grad(self.g, self.x, v, retain_graph=True, create_graph=graph, allow_unused=True)
        return torch.zeros_like(self.x) if row is None else row

    def _right(self, v: Tensor) -> Tensor:
        """Jv, as the derivative of uᵀJ by u."""
        with torch.enable_grad():
            u = torch.ones_like(self.x).requires_grad_()
            row = self._left(u, graph=True)
            if not row.requires_grad:
                return torch.zeros_like(self.x)
            (column,) = torch.autograd.grad(row, u, v, allow_unused=True)
        return torch.zeros_like(self.x) if column is None else column

    def is_symmetric(self) -> bool:
        return _agree(self._left(self.r), self._right(self.r))

    def is_diagonal(self) -> bool:
        return _agree(self._left(self.r), self.r * self._left(torch.ones_like(self.r)))


def _agree(a: Tensor, b: Tensor) -> bool:
    """Whether they are equal up to rounding; what is not finite shows nothing."""
    rounding = 1e3 * torch.finfo(a.dtype).eps * a.abs().amax()
    return not bool(((a - b).abs() > rounding).any())
