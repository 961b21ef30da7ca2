r"""First derivatives of fields that act row by row on a batch.

A field maps x with shape ``(B, *event)`` to y with shape ``(B, *out)``, and row b of y depends on row b of x only. One
vector–Jacobian product with a vector per row therefore serves the whole batch, and the D products that a trace
needs are evaluated together, in chunks of bounded memory. Reverse mode is used throughout: every layer that can be
trained has it, and only the backward pass is batched, so the field itself runs once and as it was written.

All functions here may be called with gradients on or off, and in inference mode. With gradients on, the results carry a
graph, so they can be trained through; with gradients off, nothing of the graph survives the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sdeflow.calculus.inference import outside_inference_mode
from sdeflow.errors import ArgumentError

__all__ = ["along_itself", "diagonal", "divergence", "elementwise", "gradient", "hutchinson", "jacobian", "leaves"]

CHUNK_ELEMENTS = 2**22  # cotangent entries alive at once: 32 MB in float64
# Products are taken one by one where there are few of them, or where batching would only overflow a CPU's cache: perceptrons of
# three layers take 0.7–0.95 of the time so for one product or two, and 0.6–0.9 for 8 or 32 on batches of 1,000 rows.
FEW, LARGE = 2, 4096
# Nodes whose products torch gets wrong when they are batched and have a graph: other numbers, or an error about sizes.
NOT_TOGETHER = {"NativeGroupNormBackward0"}


def leaves(y: Tensor) -> Iterator[Tensor]:
    """The leaves that the graph of y leads to: parameters, and every other tensor that was made to require grad.

    Example:
        >>> theta = torch.tensor(2.0, requires_grad=True)
        >>> [leaf is theta for leaf in leaves(torch.ones(3) * theta.exp())]
        [True]
    """
    if y.grad_fn is None and y.requires_grad:
        yield y
    for node in _nodes(y):
        variable = getattr(node, "variable", None)
        if variable is not None:
            yield variable


def _nodes(y: Tensor) -> Iterator[Any]:
    """The nodes of the graph of y."""
    waiting, seen = [y.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(parent for parent, _ in node.next_functions)


def _depends_on_more_than(leaf: Tensor, y: Tensor) -> bool:
    """Whether the graph of y has another leaf, such as a parameter, besides the given one."""
    return any(other is not leaf for other in leaves(y))


def _evaluate(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, bool]:
    """(an x that autograd can differentiate by, field(x) with a graph, whether that graph leads anywhere for the caller)."""
    wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        if wanted and x.requires_grad:
            # view_as: inside an outer autograd pass x may require grad and yet be cut off from what is computed from it.
            x = x.view_as(x)
            return x, field(x), True
        x = x.detach().requires_grad_()
        y = field(x)
        if not y.requires_grad and not torch.equal(field(x.detach() + 1), y):
            raise ArgumentError(
                "a drift, diffusion or velocity changes with x, but autograd does not see how, so its derivative would be "
                "taken for zero. Is it under torch.no_grad(), or does it detach x?"
            )
    # Where only our own leaf requires grad the graph is dropped: a long solve would otherwise keep one per step.
    return x, y, wanted and _depends_on_more_than(x, y)


def _pull_back(y: Tensor, x: Tensor, cotangents: Tensor, graph: bool) -> Tensor:
    """Vector–Jacobian products: cotangents ``(K, *y.shape)`` to ``(K, *x.shape)``, zero where y ignores x."""
    if not y.requires_grad:
        return x.new_zeros(len(cotangents), *x.shape)
    if _one_by_one(y, len(cotangents), graph):
        return torch.stack([_product(y, x, cotangent, graph) for cotangent in cotangents])
    (rows,) = torch.autograd.grad(
        y, x, cotangents, is_grads_batched=True, retain_graph=True, create_graph=graph, allow_unused=True
    )
    return x.new_zeros(len(cotangents), *x.shape) if rows is None else rows


def _one_by_one(y: Tensor, count: int, graph: bool) -> bool:
    """Whether so many products are faster each by itself, or only right so."""
    if count <= FEW or (y.device.type == "cpu" and y.numel() >= LARGE):
        return True
    return graph and any(node.name() in NOT_TOGETHER for node in _nodes(y))


def _product(y: Tensor, x: Tensor, cotangent: Tensor, graph: bool) -> Tensor:
    (row,) = torch.autograd.grad(y, x, cotangent, retain_graph=True, create_graph=graph, allow_unused=True)
    return torch.zeros_like(x, requires_grad=False) if row is None else row


def _rows(y: Tensor, x: Tensor, graph: bool) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the Jacobian in chunks: (output indices, ``(chunk, B, D)``)."""
    size = y[0].numel()
    chunk = max(1, min(size, CHUNK_ELEMENTS // max(1, y.numel())))
    identity = torch.eye(size, dtype=y.dtype, device=y.device)
    for start in range(0, size, chunk):
        block = identity[start : start + chunk]
        cotangents = block[:, None].expand(-1, len(y), -1).reshape(len(block), *y.shape)
        rows = _pull_back(y, x, cotangents, graph)
        yield slice(start, start + len(block)), rows.reshape(len(block), len(x), -1)


def _slopes(y: Tensor, x: Tensor, graph: bool) -> Iterator[Tensor]:
    """∂y_i/∂x_i for some of the i after others, each ``(B, chunk)``."""
    size = y[0].numel()
    if not _one_by_one(y, size, graph):
        for where, rows in _rows(y, x, graph):
            yield rows[:, :, where].diagonal(dim1=0, dim2=2)
        return
    for i in range(size):
        cotangent = torch.zeros_like(y, requires_grad=False, memory_format=torch.contiguous_format)
        cotangent.view(len(y), -1)[:, i] = 1
        yield _product(y, x, cotangent, graph).flatten(1)[:, i : i + 1]


@outside_inference_mode
def jacobian(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The field and its Jacobian, row by row.

    Returns:
        ``field(x)`` with shape ``(B, *out)``, and J[b, i, j] = ∂y_i/∂x_j with shape ``(B, numel(out), numel(event))``.

    Example:
        >>> y, J = jacobian(lambda x: x**2, torch.tensor([[1.0, 2.0]]))
        >>> J
        tensor([[[2., 0.],
                 [0., 4.]]])
    """
    x, y, graph = _evaluate(field, x)
    if not y.requires_grad:  # a field that ignores x costs one evaluation
        return y, x.new_zeros(len(x), y[0].numel(), x[0].numel())
    rows = torch.cat([block for _, block in _rows(y, x, graph)]).movedim(0, 1)
    return (y, rows) if graph else (y.detach(), rows.detach())


@outside_inference_mode
def diagonal(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The field and the diagonal ∂y_i/∂x_i of its Jacobian, both with the shape of x, exactly.

    Example:
        >>> y, slope = diagonal(lambda x: x**3, torch.tensor([[1.0, 2.0]]))
        >>> slope
        tensor([[ 3., 12.]])
    """
    x, y, graph = _evaluate(field, x)
    if not y.requires_grad:
        return y, torch.zeros_like(x, requires_grad=False)
    slope = torch.cat(list(_slopes(y, x, graph)), dim=1).reshape(x.shape)
    return (y, slope) if graph else (y.detach(), slope.detach())


@outside_inference_mode
def elementwise(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A field whose coordinate i depends on x_i only, and its slopes dy_i/dx_i, both with the shape of x.

    Costs one vector–Jacobian product, whatever the size of x. For another field the slopes are the column sums of the Jacobian.

    Example:
        >>> y, slope = elementwise(lambda x: x**3, torch.tensor([[1.0, 2.0]]))
        >>> slope
        tensor([[ 3., 12.]])
    """
    x, y, graph = _evaluate(field, x)
    slope = _pull_back(y, x, torch.ones_like(y)[None], graph)[0]
    return (y, slope) if graph else (y.detach(), slope.detach())


@outside_inference_mode
def along_itself(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A field with the shape of x, and its derivative (∂y)y along itself.

    A Jacobian times a vector is the derivative, by u, of the product of u with it from the left: two backward passes.

    Example:
        >>> y, derivative = along_itself(lambda x: 3 * x.flip(1), torch.tensor([[1.0, 2.0]]))
        >>> derivative
        tensor([[ 9., 18.]])
    """
    x, y, graph = _evaluate(field, x)
    if not y.requires_grad:
        return y, torch.zeros_like(x, requires_grad=False)
    with torch.enable_grad():
        u = torch.ones_like(y, requires_grad=True)
        (row,) = torch.autograd.grad(y, x, u, create_graph=True, allow_unused=True)
        if row is None or not row.requires_grad:
            return (y if graph else y.detach()), torch.zeros_like(x, requires_grad=False)
        (derivative,) = torch.autograd.grad(row, u, y if graph else y.detach(), create_graph=graph)
    return (y, derivative) if graph else (y.detach(), derivative.detach())


@outside_inference_mode
def divergence(field: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The field and its exact divergence Σ_i ∂y_i/∂x_i, with shape ``(B,)``.

    Costs one evaluation of the field and D vector–Jacobian products.

    Example:
        >>> y, trace = divergence(lambda x: x * x.sum(1, keepdim=True), torch.tensor([[1.0, 2.0]]))
        >>> trace
        tensor([9.])
    """
    y, slope = diagonal(field, x)
    return y, slope.flatten(1).sum(1)


@outside_inference_mode
def hutchinson(field: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """The field and the estimates e·(∂y/∂x)e of its divergence, one for each probe.

    Each is unbiased when the entries of e are independent with mean 0 and variance 1.

    Arguments:
        field: The field.
        x: With shape ``(B, *event)``.
        probes: With shape ``(K, B, *event)``; drawn by the caller, once for a whole trajectory.

    Returns:
        ``field(x)``, and the estimates with shape ``(K, B)``.

    References:
        A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines
        (Hutchinson, 1989), https://doi.org/10.1080/03610918908812806

    Example:
        >>> e = torch.tensor([[[1.0, -1.0]]])
        >>> hutchinson(lambda x: 3 * x, torch.zeros(1, 2), e)[1]
        tensor([[6.]])
    """
    x, y, graph = _evaluate(field, x)
    chunk = max(1, CHUNK_ELEMENTS // max(1, y.numel()))
    parts = [(e * _pull_back(y, x, e, graph)).flatten(2).sum(2) for e in probes.split(chunk)]
    estimates = torch.cat(parts)
    return (y, estimates) if graph else (y.detach(), estimates.detach())


@outside_inference_mode
def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A scalar function of each row, with shape ``(B,)``, and its gradient, with the shape of x.

    Example:
        >>> value, slope = gradient(lambda x: x.square().sum(1), torch.tensor([[1.0, 2.0]]))
        >>> slope
        tensor([[2., 4.]])
    """
    x, y, graph = _evaluate(function, x)
    slope = _pull_back(y, x, torch.ones_like(y)[None], graph)[0]
    return (y, slope) if graph else (y.detach(), slope.detach())
