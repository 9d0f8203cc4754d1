"""A point mass in two rooms that one door connects."""

from __future__ import annotations

import numpy as np

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
    slowest, restless = 0.6, 0.01
    pair_rule = "start and goal in different rooms, both at least 0.1 m from the wall's middle"

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        while True:
            position = rng.uniform(-0.92, 0.92, 2)
            if abs(position[0]) > 0.13:
                return np.concatenate([position, np.zeros(2)])

    def counts(self, start: np.ndarray, goal: np.ndarray) -> bool:
        return bool(start[0] * goal[0] < 0 and min(abs(start[0]), abs(goal[0])) > 0.1)

    def next_target(self, rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
        # Mostly the other room: crossings are what is rare, and what the task asks for.
        target = self.sample_state(rng)[:2]
        if rng.random() < 0.7:
            target[0] = -np.sign(position[0]) * abs(target[0])
        return target

    def waypoint(self, position: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The target, or first the door's near mouth, then its far mouth."""
        in_doorway, crossing = abs(position[0]) < 0.12, position[0] * target[0] < 0
        if not crossing and not in_doorway:
            return target
        before_door = abs(position[0]) < 0.3 and abs(position[1] - DOOR[1]) < 0.12
        side = np.sign(target[0]) if before_door or not crossing else np.sign(position[0])
        return DOOR + np.array([0.25 * side, 0.0])
