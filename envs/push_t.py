"""A round pusher brings a T-shaped block into the pose of a picture."""

from __future__ import annotations

import numpy as np

from planner.symmetry import Symmetry, in_the_plane

from .base import GoalEnv, Play, wander


def _turned(turns: int, mirrored: bool) -> Symmetry:
    """A square table and a T that is its own mirror image look and move alike from every side, and in the mirror."""
    plane, half = in_the_plane(turns, mirrored), np.zeros((5, 5))
    half[:2, :2] = half[2:4, 2:4] = plane
    half[4, 4] = -1 if mirrored else 1
    shift = np.zeros(10)
    shift[4] = turns * np.pi / 2
    return Symmetry(turns, mirrored, actions=plane, states=np.kron(np.eye(2), half), shift=shift)


class PushT(GoalEnv):
    """Push the T to where the picture shows it, turned as the picture shows it.

    State: pusher x, y, block x, y (m, of its centre of mass), block angle (rad), and their speeds. Action: wanted
    speed of the pusher, +-0.4 m/s an axis, for 0.1 s. Success: block within 0.04 m and pi/9 rad (20 degrees) of the
    goal's; where the pusher ends does not matter.
    """

    name = "PushT"
    xml = "push_t.xml"
    spec_low, spec_high, spec_units = (-0.4, -0.4), (0.4, 0.4), ("m/s", "m/s")
    substeps = 10
    tolerance, angle_tolerance = 0.04, np.pi / 9
    symmetries = tuple(_turned(turns, mirrored) for mirrored in (False, True) for turns in range(4))[1:]
    pair_rule = "the block moves: a pair in which it stays within tolerance is solved at the start, and out"

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        while True:
            pusher, block = rng.uniform(-0.45, 0.45, 2), rng.uniform(-0.3, 0.3, 2)
            state = np.concatenate([pusher, block, rng.uniform(-np.pi, np.pi, 1), np.zeros(5)])
            if np.linalg.norm(pusher - block) > 0.12 and not self._overlaps(state):
                return state

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        place = np.linalg.norm(state[..., 2:4] - goal[..., 2:4], axis=-1)
        turn = np.abs((state[..., 4] - goal[..., 4] + np.pi) % (2 * np.pi) - np.pi)
        return np.stack([place / self.tolerance, turn / self.angle_tolerance], -1)

    def guide(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        # A pusher that is far from the block sees no change of the block whatever it plans.
        return 0.05 * np.square((state[..., :2] - goal[..., :2]) / self.tolerance).sum(-1)

    def play(self, rng: np.random.Generator) -> Play:
        low, high = np.array(self.spec_low), np.array(self.spec_high)
        noise = wander(rng, low, high)
        if rng.random() < 0.2:
            return noise
        return _Pushes(rng, noise, low, high)

    def _overlaps(self, state: np.ndarray) -> bool:
        """Whether anything touches; leaves the simulation in `state`."""
        self.set_state(state)
        return any(contact.dist < 0 for contact in self.data.contact[: self.data.ncon])


class _Pushes:
    """Walks around the block to a random side, pushes through it for a while, and again."""

    def __init__(self, rng: np.random.Generator, noise: Play, low: np.ndarray, high: np.ndarray) -> None:
        self.rng, self.noise, self.low, self.high = rng, noise, low, high
        self.swing, self.speed = rng.uniform(0.05, 0.5), rng.uniform(0.2, 0.4)
        self.pushing, self.angle, self.aim = 0, 0.0, np.zeros(2)
        self._choose(np.zeros(10))

    def _choose(self, state: np.ndarray) -> None:
        """A side to push from, as an angle around the block; far from the middle mostly one that pushes it back."""
        block = state[2:4]
        outward = np.arctan2(block[1], block[0])
        spread = 1.0 if np.abs(block).max() > 0.2 else np.pi
        self.angle = outward + self.rng.uniform(-spread, spread)
        self.aim = self.rng.normal(scale=0.07, size=2)
        self.patience = 40

    def __call__(self, state: np.ndarray) -> np.ndarray:
        pusher, block = state[:2], state[2:4]
        self.patience -= 1
        if self.pushing > 0:
            self.pushing -= 1
            way = self.aim
            if self.pushing == 0:
                self._choose(state)
        else:
            way = self._approach(pusher, block)
            if np.linalg.norm(way) < 0.05 or self.patience < 0:
                way = block + self.aim - pusher
                self.aim, self.pushing = way, int(self.rng.integers(6, 20))
        heading = way / max(float(np.linalg.norm(way)), 1e-6) * self.speed
        return np.clip(heading + self.swing * self.noise(state), self.low, self.high)

    def _approach(self, pusher: np.ndarray, block: np.ndarray) -> np.ndarray:
        """The way `[2]` to the chosen side, along a circle around the block, so as not to bump into it early."""
        here = np.arctan2(*(pusher - block)[::-1])
        turn = (self.angle - here + np.pi) % (2 * np.pi) - np.pi
        on = here + np.clip(turn, -0.6, 0.6)
        radius = 0.24
        return np.clip(block + radius * np.array([np.cos(on), np.sin(on)]), -0.46, 0.46) - pusher
