"""A Brownian path that is given cell by cell, for tests that choose the noise or use it many times."""

import torch

import sdeflow as sf
from sdeflow.brownian import Driver


class GivenCells(Driver):
    """W and H over equal cells, each ``(cells, B, *event)``; it answers for its cells only."""

    def __init__(self, W, H, t0=0.0, t1=1.0):
        self.W, self.H, self.t0, self.t1 = W, H, t0, t1
        self.cells, self.shape, self.dtype, self.device = len(W), tuple(W.shape[1:]), W.dtype, W.device
        self.seed, self.has_levy = 0, True

    def edge(self, k):
        return self.t0 + (self.t1 - self.t0) * k / self.cells

    def cell_increments(self, first, count):
        return self.W[first : first + count]

    def cell_levies(self, first, count):
        return self.W[first : first + count], self.H[first : first + count]

    def _cell(self, interval):
        return round((interval.start - self.t0) / (self.t1 - self.t0) * self.cells)

    def _increment(self, interval):
        return self.W[self._cell(interval)]

    def _increment_and_levy(self, interval):
        k = self._cell(interval)
        return self.W[k], self.H[k]

    def _area_noise(self, interval):
        """Signs for what W and H leave open of the Lévy area: they have its mean and variance, and depend on the interval."""
        generator = torch.Generator().manual_seed(self._cell(interval))
        shape = (*self.shape, self.shape[-1])
        return (torch.randint(2, shape, generator=generator) * 2.0 - 1.0).to(self.W)

    def coarse(self, cells):
        """The same path in fewer cells, by Chen's relation."""
        W, H = self.W, self.H
        while len(W) > cells:
            W, H = W[::2] + W[1::2], (H[::2] + H[1::2]) / 2 + (W[::2] - W[1::2]) / 4
        return GivenCells(W, H, self.t0, self.t1)

    def _unavailable(self, *_):
        raise AssertionError("a path that is given by cells was asked for something else")

    _rows = reverse = _unavailable


def given_cells(shape, t1, cells, seed):
    """The cells of a Brownian path on [0, t1]."""
    path = sf.BrownianPath(shape, 0.0, t1, seed=seed, cells=cells, levy="space-time", dtype=torch.float64)
    return GivenCells(*path.cell_levies(0, cells), 0.0, t1)
