"""Generative models: plug-ins that supply the learned part of a process."""

from sdeflow.models import times
from sdeflow.models.action_matching import ActionMatching
from sdeflow.models.annealed import AnnealedLangevin
from sdeflow.models.bridge_matching import BridgeMatching
from sdeflow.models.continuous_flow import ContinuousFlow
from sdeflow.models.denoising import DenoisingScoreMatching
from sdeflow.models.doob_transform import DoobTransform
from sdeflow.models.flow_matching import FlowMatching
from sdeflow.models.guidance import classifier_free, drop_conditions, guided
from sdeflow.models.learned_reversal import LearnedReversal
from sdeflow.models.model import GenerativeModel
from sdeflow.models.preconditioning import Preconditioned
from sdeflow.models.rectified_flow import RectifiedFlow
from sdeflow.models.schrodinger_bridge import SchrodingerBridge
from sdeflow.models.score_matching import ScoreMatching
from sdeflow.models.stochastic_interpolant import StochasticInterpolant

__all__ = [
    "ActionMatching",
    "AnnealedLangevin",
    "BridgeMatching",
    "ContinuousFlow",
    "DenoisingScoreMatching",
    "DoobTransform",
    "FlowMatching",
    "GenerativeModel",
    "LearnedReversal",
    "Preconditioned",
    "RectifiedFlow",
    "SchrodingerBridge",
    "ScoreMatching",
    "StochasticInterpolant",
    "classifier_free",
    "drop_conditions",
    "guided",
    "times",
]
