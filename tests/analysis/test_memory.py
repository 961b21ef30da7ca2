"""Peak memory counts what is alive, once."""

import torch

from sdeflow.analysis.memory import peak_bytes

CPU = torch.device("cpu")


def test_what_is_let_go_is_not_counted():
    def in_turn():
        for _ in range(10):
            torch.zeros(1000).add_(1)

    def together():
        return [torch.zeros(1000) for _ in range(10)]

    assert peak_bytes(together, CPU) == 40_000
    assert peak_bytes(in_turn, CPU) <= 8_000


def test_views_and_what_was_there_before_count_nothing():
    there = torch.ones(1000)
    assert peak_bytes(lambda: (there.view(10, 100), there[5:], there.mul_(2)), CPU) == 0
    assert peak_bytes(lambda: torch.zeros(1000).view(10, 100).t(), CPU) == 4_000
