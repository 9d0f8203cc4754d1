"""What the tasks share in which a disc is steered over a floor."""

from __future__ import annotations

import numpy as np

from .base import GoalEnv


class Disc(GoalEnv):
    """Move a disc to where the picture shows it.

    State: x, y (m), their speeds (m/s). Action: wanted speed, +-1.2 m/s an axis, for 0.05 s. Success: within 0.10 m of
    the goal.
    """

    spec_low, spec_high, spec_units = (-1.2, -1.2), (1.2, 1.2), ("m/s", "m/s")
    substeps = 5
    tolerance = 0.10

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state[..., :2] - goal[..., :2], axis=-1, keepdims=True) / self.tolerance
