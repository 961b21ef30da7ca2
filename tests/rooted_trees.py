"""Rooted trees, one for each order condition of a Runge–Kutta method."""

import math


def trees(order):
    """Rooted trees with that many vertices, each the sorted tuple of its branches."""
    if order == 1:
        return {()}

    def forests(total, largest):
        if total == 0:
            yield ()
            return
        for size in range(min(total, largest), 0, -1):
            for tree in sorted(trees(size)):
                for rest in forests(total - size, size):
                    yield tuple(sorted((tree, *rest)))

    return set(forests(order - 1, order - 1))


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * math.prod(map(density, tree))
