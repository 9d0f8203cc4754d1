"""A point mass in two rooms that one door connects."""

from __future__ import annotations

import numpy as np

from .base import Play, wander
from .disc import Disc

DOOR = np.array([0.0, 0.3])
"""Centre of the door, metres."""


class TwoRoom(Disc):
    """Move a disc of 8 cm radius to where the picture shows it, through the door if need be.

    State: x, y (m, within +-0.92), their speeds (m/s). Action: wanted speed, +-1.2 m/s an axis, for 0.05 s.
    Success: within 0.10 m of the goal.
    """

    name = "TwoRoom"
    xml = "two_room.xml"
    pair_rule = "start and goal in different rooms, both at least 0.1 m from the wall's middle"

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        while True:
            position = rng.uniform(-0.92, 0.92, 2)
            if abs(position[0]) > 0.13:
                return np.concatenate([position, np.zeros(2)])

    def counts(self, start: np.ndarray, goal: np.ndarray) -> bool:
        return bool(start[0] * goal[0] < 0 and min(abs(start[0]), abs(goal[0])) > 0.1)

    def play(self, rng: np.random.Generator) -> Play:
        low, high = np.array(self.spec_low), np.array(self.spec_high)
        noise = wander(rng, low, high)
        if rng.random() < 0.3:
            return noise
        target, swing, speed = self.sample_state(rng)[:2], rng.uniform(0.1, 0.6), rng.uniform(0.6, 1.2)

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal target
            position = state[:2]
            if np.linalg.norm(target - position) < 0.1 or rng.random() < 0.01:
                # Mostly the other room: crossings are what is rare, and what the task asks for.
                target = self.sample_state(rng)[:2]
                if rng.random() < 0.7:
                    target[0] = -np.sign(position[0]) * abs(target[0])
            way = _next_waypoint(position, target) - position
            return np.clip(way / max(float(np.linalg.norm(way)), 1e-6) * speed + swing * noise(state), low, high)

        return act


def _next_waypoint(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where to head for now, `[2]`: the target, or first the door's near mouth, then its far mouth."""
    in_doorway, crossing = abs(position[0]) < 0.12, position[0] * target[0] < 0
    if not crossing and not in_doorway:
        return target
    before_door = abs(position[0]) < 0.3 and abs(position[1] - DOOR[1]) < 0.12
    side = np.sign(target[0]) if before_door or not crossing else np.sign(position[0])
    return DOOR + np.array([0.25 * side, 0.0])
