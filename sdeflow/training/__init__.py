"""Training: from a model and data to a model that fits them, interrupted or not."""

from sdeflow.training.checkpoint import Checkpoint
from sdeflow.training.fit import fit
from sdeflow.training.load import load
from sdeflow.training.recipes import build, completed
from sdeflow.training.run import Run

__all__ = ["Checkpoint", "Run", "build", "completed", "fit", "load"]
