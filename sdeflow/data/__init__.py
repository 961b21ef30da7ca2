"""Real data that come inside packages, so that nothing is downloaded."""

from sdeflow.data.digits import digits
from sdeflow.data.levels import LevelImages

__all__ = ["LevelImages", "digits"]
