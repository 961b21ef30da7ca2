"""Pictures: functions from data to a matplotlib ``Figure``, drawn with its object API.

Nothing here reads or changes matplotlib's global state, and no display is needed: ``figure.savefig("name.png")``
writes the picture, and a notebook shows the figure that a cell returns. Needs ``pip install "sdeflow[plot]"``.

Example:
    >>> from sdeflow import plotting
    >>> t = torch.linspace(0.0, 1.0, 11)
    >>> figure = plotting.trajectories({"straight lines": (t, t[:, None] * torch.randn(5))})
    >>> len(figure.axes)
    1
"""

from sdeflow.extras import require

require("matplotlib", extra="plot", purpose="sdeflow.plotting")

from sdeflow.plotting.calibration import calibration  # noqa: E402 (not before the sentence above)
from sdeflow.plotting.convergence import convergence  # noqa: E402
from sdeflow.plotting.heat_map import DensityPanel, heat_map  # noqa: E402
from sdeflow.plotting.image_grid import image_grid  # noqa: E402
from sdeflow.plotting.points import points  # noqa: E402
from sdeflow.plotting.stability_region import stability_region  # noqa: E402
from sdeflow.plotting.training_curve import training_curve  # noqa: E402
from sdeflow.plotting.trajectories import trajectories  # noqa: E402
from sdeflow.plotting.work_precision import WorkPoint, work_precision  # noqa: E402

__all__ = [
    "DensityPanel",
    "WorkPoint",
    "calibration",
    "convergence",
    "heat_map",
    "image_grid",
    "points",
    "stability_region",
    "training_curve",
    "trajectories",
    "work_precision",
]
