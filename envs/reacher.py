"""A two-link arm that torques drive into the posture of a picture."""

from __future__ import annotations

import numpy as np

from .base import GoalEnv, Play, wander

LINK = 0.4
"""Length of each link, metres."""


class Reacher(GoalEnv):
    """Bring the fingertip to where the picture shows it, in the picture's posture.

    State: shoulder and elbow angle (rad; the elbow within +-2.6), their speeds (rad/s). Action: torques of shoulder
    and elbow, +-3 and +-1.2 N m, for 0.05 s. Success: fingertip within 0.05 m, elbow within 0.2 rad of the goal's.
    """

    name = "Reacher"
    xml = "reacher.xml"
    spec_low, spec_high, spec_units = (-3.0, -1.2), (3.0, 1.2), ("N m", "N m")
    substeps = 5
    tip_tolerance, elbow_tolerance = 0.05, 0.2

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        return np.array([rng.uniform(-np.pi, np.pi), rng.uniform(-2.4, 2.4), 0.0, 0.0])

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        apart = np.linalg.norm(tip(state) - tip(goal), axis=-1)
        elbow = np.abs(state[..., 1] - goal[..., 1])
        return np.stack(np.broadcast_arrays(apart / self.tip_tolerance, elbow / self.elbow_tolerance), -1)

    def play(self, rng: np.random.Generator) -> Play:
        low, high = np.array(self.spec_low), np.array(self.spec_high)
        noise = wander(rng, low, high)
        if rng.random() < 0.4:
            return noise
        target, swing = self.sample_state(rng)[:2], rng.uniform(0.1, 0.7)
        stiffness = rng.uniform(2, 6) * np.array([1.0, 0.4])

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal target
            if np.abs(target - state[:2]).max() < 0.15 or rng.random() < 0.02:
                target = state[:2] + rng.uniform(-2, 2, 2)
                target[1] = np.clip(target[1], -2.4, 2.4)
            return np.clip(stiffness * (target - state[:2]) + swing * noise(state), low, high)

        return act


def tip(state: np.ndarray) -> np.ndarray:
    """Fingertip, metres, `[..., 4]` to `[..., 2]`."""
    upper, fore = state[..., 0], state[..., 0] + state[..., 1]
    return LINK * np.stack([np.cos(upper) + np.cos(fore), np.sin(upper) + np.sin(fore)], -1)
