"""What drives a process: W and space-time Lévy area H over any interval, from a seed."""

from sdeflow.brownian.driver import Driver, ReversedPath
from sdeflow.brownian.keyed import Stream, fresh_seed, normals, signs
from sdeflow.brownian.path import BrownianPath

__all__ = ["BrownianPath", "Driver", "ReversedPath", "Stream", "fresh_seed", "normals", "signs"]
