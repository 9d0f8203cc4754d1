"""What "good" means: how far imagined futures are from the goal, and what they cost. Lower is better.

Energies are frozen dataclasses of knobs, pure, and compose like numbers:

    energy = LatentDistance("l2", over="all") + 0.01 * ActionEffort()

Any callable of futures, goal and actions is one, and may be a term.
"""

from .base import Energy, Scaled, Sum
from .constraints import AugmentedLagrangian, Constraint, Penalty
from .distance import METRICS, OVER, Goals, LatentDistance, LearnedDistance, ObjectDistance
from .motion import ActionEffort, ActionRate, ActionSmoothness, Disagreement

__all__ = [
    "METRICS",
    "OVER",
    "ActionEffort",
    "ActionRate",
    "ActionSmoothness",
    "AugmentedLagrangian",
    "Constraint",
    "Disagreement",
    "Energy",
    "Goals",
    "LatentDistance",
    "LearnedDistance",
    "ObjectDistance",
    "Penalty",
    "Scaled",
    "Sum",
]
