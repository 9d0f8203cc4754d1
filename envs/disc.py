"""What the tasks share in which a disc is steered over a floor."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from .base import GoalEnv, Play, wander


class Disc(GoalEnv):
    """Move a disc to where the picture shows it.

    State: x, y (m), their speeds (m/s). Action: wanted speed, +-1.2 m/s an axis, for 0.05 s. Success: within 0.10 m of
    the goal.
    """

    spec_low, spec_high, spec_units = (-1.2, -1.2), (1.2, 1.2), ("m/s", "m/s")
    substeps = 5
    tolerance = 0.10
    slowest: ClassVar[float]
    """Play heads for its targets at this speed or up to 1.2 m/s."""
    restless: ClassVar[float]
    """How likely play is, at each step, to choose another target before it has arrived."""

    @abstractmethod
    def next_target(self, rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
        """Where play goes next from `position`, both metres, `[2]`."""

    @abstractmethod
    def waypoint(self, position: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Where to head for now on the way from `position` to `target`, all metres, `[2]`."""

    def play(self, rng: np.random.Generator) -> Play:
        low, high = np.array(self.spec_low), np.array(self.spec_high)
        noise = wander(rng, low, high)
        if rng.random() < 0.3:
            return noise
        target, swing, speed = self.sample_state(rng)[:2], rng.uniform(0.1, 0.6), rng.uniform(self.slowest, 1.2)

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal target
            if np.linalg.norm(target - state[:2]) < 0.1 or rng.random() < self.restless:
                target = self.next_target(rng, state[:2])
            way = self.waypoint(state[:2], target) - state[:2]
            return np.clip(way / max(float(np.linalg.norm(way)), 1e-6) * speed + swing * noise(state), low, high)

        return act

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state[..., :2] - goal[..., :2], axis=-1, keepdims=True) / self.tolerance
