"""What moves: SDEs and ODEs, the named diffusions, schedules, reversal, probability flow, conditioning."""

from sdeflow.processes.churn import Churn
from sdeflow.processes.conversions import convert
from sdeflow.processes.diffusions import (
    CosineVariancePreserving,
    ScheduledDiffusion,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from sdeflow.processes.geometric import GeometricBrownianMotion
from sdeflow.processes.langevin import Langevin, UnderdampedLangevin
from sdeflow.processes.linear import BrownianBridge, BrownianMotion, OrnsteinUhlenbeck
from sdeflow.processes.nelson import nelson_score
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.residuals import continuity_residual, fokker_planck_residual
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.schedules import CustomSchedule, LinearSchedule
from sdeflow.processes.sde import SDE

__all__ = [
    "ODE",
    "SDE",
    "BrownianBridge",
    "BrownianMotion",
    "Churn",
    "CosineVariancePreserving",
    "CustomSchedule",
    "GeometricBrownianMotion",
    "Langevin",
    "LinearSchedule",
    "OrnsteinUhlenbeck",
    "Process",
    "Schedule",
    "ScheduledDiffusion",
    "SubVariancePreserving",
    "UnderdampedLangevin",
    "VarianceExploding",
    "VariancePreserving",
    "continuity_residual",
    "convert",
    "fokker_planck_residual",
    "nelson_score",
]
