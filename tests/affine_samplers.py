"""The law of a sampler without sampling: for Gaussian data a step is affine in the state and in its noise.

Solving from 0 without noise, from 1 without noise, and from 0 with a single unit increment, for each of them, gives all the
coefficients; the mean and the variance at the end are then sums. One row of a batch for each.
"""

import torch
from given_noise import GivenCells

import sdeflow as sf

D = torch.float64


class GivenOnGrid(GivenCells):
    """W and H over the cells of any grid."""

    def __init__(self, W, H, nodes):
        super().__init__(W, H, nodes[0], nodes[-1])
        self.nodes = nodes

    def edge(self, k):
        return self.nodes[k]

    def coarse(self, cells):
        """The same path in fewer cells, by Chen's relation: H is how far the path is above its chord, on average."""
        widths = torch.tensor(self.nodes, dtype=D).diff().reshape(-1, *[1] * (self.W.ndim - 1))
        W, H, h = (v.reshape(cells, -1, *v.shape[1:]) for v in (self.W, self.H, widths))
        mean = ((W.cumsum(1) - W / 2 + H) * h).sum(1) / h.sum(1)
        return GivenOnGrid(W.sum(1), mean - W.sum(1) / 2, self.nodes[:: self.cells // cells])


def path_on(nodes, shape, seed):
    """A Brownian path whose cells lie between the nodes."""
    h = torch.tensor(nodes, dtype=D).diff().reshape(-1, *[1] * len(shape))
    W, H = torch.randn(2, len(h), *shape, generator=torch.Generator().manual_seed(seed), dtype=D)
    return GivenOnGrid(W * h.sqrt(), H * (h / 12).sqrt(), nodes)


def forward_clock(process, nodes):
    """The nodes on the clock on which the solve runs forward, which is that of its noise."""
    return nodes if nodes[-1] > nodes[0] else [process.reflect(t) for t in nodes]


def moments_at_end(process, method, nodes, mean, variance):
    """Mean and variance at the end, for a method that takes W only, from a normal law at the beginning."""
    count = len(nodes) - 1
    widths = torch.tensor(forward_clock(process, nodes), dtype=D).diff()
    W = torch.zeros(count, count + 2, 1, dtype=D)
    W[torch.arange(count), 2 + torch.arange(count), 0] = widths.sqrt()
    x0 = torch.zeros(count + 2, 1, dtype=D)
    x0[1] = 1
    path = GivenOnGrid(W, torch.zeros_like(W), forward_clock(process, nodes))
    final = sf.solve(process, x0, (nodes[0], nodes[-1]), steps=nodes, method=method, brownian=path).final[:, 0]
    offset, slope, noise = final[0], final[1] - final[0], final[2:] - final[0]
    return (offset + slope * mean).item(), (slope**2 * variance + noise.square().sum()).item()
