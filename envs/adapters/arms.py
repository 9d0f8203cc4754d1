"""Gymnasium's `Reacher-v5` and `Pusher-v5` from pixels, with a goal picture in place of their goal coordinates."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import mujoco
import numpy as np

from ..base import GoalEnv, Play, wander
from .foreign import plain


class ReacherV5(GoalEnv):
    """Bring the fingertip of a two-link arm to where the picture shows it; Gymnasium's arm and physics.

    State: the two angles (rad) and their speeds (rad/s). Action: torques, -1 to 1 each, in 200 N m, for 0.02 s. The
    reward of Gymnasium's knows no success; here it is a fingertip (1 cm in radius) within 0.02 m, as if it touched
    the target (0.9 cm). Own goals: the arm's start and the target as its reset draws them, 50 steps; the goal picture
    shows the fingertip on the target, with the elbow on either side (targets closer to the shoulder than 2 cm, which
    the arm cannot touch, are drawn anew). The picture is taken from straight above, 0.48 m wide; the target is not
    drawn, for the goal is given by its picture.
    """

    name = "gymnasium/Reacher-v5"
    spec_low, spec_high = (-1.0, -1.0), (1.0, 1.0)
    spec_units = ("200 N m", "200 N m")
    substeps = 2
    own_goals, own_budget = 1, 50
    tolerance = 0.02

    def load(self) -> mujoco.MjModel:
        self.theirs = cast(Any, gym.make("Reacher-v5").unwrapped)
        spec = mujoco.MjSpec.from_file(self.theirs.fullpath)
        spec.delete(spec.body("target"))
        spec.worldbody.add_camera(name=self.view, pos=[0, 0, 0.58], fovy=45)
        return plain(spec.compile())

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        return np.array([rng.uniform(-np.pi, np.pi), rng.uniform(-2.8, 2.8), 0, 0])

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(fingertip(state) - fingertip(goal), axis=-1, keepdims=True) / self.tolerance

    def guide(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return 0.3 * np.square(state[..., 2:]).sum(-1)  # a search over hard torques overshoots otherwise

    def own_pair(self, goal: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        while True:
            self.theirs.reset(seed=int(rng.integers(2**31)))
            if np.linalg.norm(self.theirs.goal) > self.tolerance:
                break
        angles = reach(self.theirs.goal, elbow=rng.choice([-1, 1]))
        start = np.concatenate([self.theirs.data.qpos[:2], self.theirs.data.qvel[:2]])
        return start, np.concatenate([angles, np.zeros(2)])

    def play(self, rng: np.random.Generator) -> Play:
        low, high = np.array(self.spec_low), np.array(self.spec_high)
        noise, strength = wander(rng, low, high), np.exp(rng.uniform(np.log(0.02), np.log(0.4)))
        if rng.random() < 0.3:
            return lambda state: strength * noise(state)
        target, patience = self.sample_state(rng), 0

        def act(state: np.ndarray) -> np.ndarray:
            nonlocal target, patience
            patience += 1
            if patience > 30:
                target, patience = self.sample_state(rng), 0
            pull = 0.25 * (target[:2] - state[:2]) - 0.04 * state[2:]
            return np.clip(pull + 0.3 * strength * noise(state), low, high)

        return act


UPPER, FORE = 0.1, 0.11
"""Lengths of `Reacher-v5`'s links, metres, the second to the fingertip."""


def fingertip(state: np.ndarray) -> np.ndarray:
    """Where the fingertip is, metres, states `[..., 4]` to `[..., 2]`."""
    inner, outer = state[..., 0], state[..., 0] + state[..., 1]
    return np.stack(
        [UPPER * np.cos(inner) + FORE * np.cos(outer), UPPER * np.sin(inner) + FORE * np.sin(outer)], axis=-1
    )


def reach(place: np.ndarray, elbow: int) -> np.ndarray:
    """The angles `[2]` that bring the fingertip to `place` `[2]`, the elbow bent to the side of the sign of `elbow`."""
    bend = elbow * np.arccos((place @ place - UPPER**2 - FORE**2) / (2 * UPPER * FORE))
    inner = np.arctan2(place[1], place[0]) - np.arctan2(FORE * np.sin(bend), UPPER + FORE * np.cos(bend))
    return np.array([inner, bend])


class PusherV5(GoalEnv):
    """Push a cylinder over a table to where the picture shows it, with a seven-joint arm; Gymnasium's arm and physics.

    State: the arm's seven angles (rad), the cylinder's offset along y and x from (0.45, -0.05) (m), and their speeds.
    Action: torques, -2 to 2 N m each, for 0.05 s. The reward of Gymnasium's knows no success; here it is the cylinder
    within 0.03 m of the goal's: on the red disc, it is wholly inside it. Own goals: the start as its reset draws it,
    the cylinder on the red disc, 100 steps; in the goal picture the hand hovers over the table behind the cylinder.
    The picture is taken from beyond the table, looking back and down at the arm; the red disc, which Gymnasium never
    moves, is part of the table here. Contacts with the cylinder, of 8 mg, are so soft that a hand which goes through
    it at full speed leaves it where it was; followed slowly, it makes 5 cm/s.
    """

    name = "gymnasium/Pusher-v5"
    spec_low, spec_high = (-2.0,) * 7, (2.0,) * 7
    spec_units = ("N m",) * 7
    substeps = 5
    own_goals, own_budget = 1, 100
    tolerance = 0.03
    pair_rule = "the cylinder moves: a pair in which it stays within tolerance is solved at the start, and out"

    def load(self) -> mujoco.MjModel:
        self.theirs = cast(Any, gym.make("Pusher-v5").unwrapped)
        spec = mujoco.MjSpec.from_file(self.theirs.fullpath)
        for joint in ("goal_slidey", "goal_slidex"):
            spec.delete(spec.joint(joint))
        # It looks at (0.45, -0.2, -0.3), 46 degrees down.
        spec.worldbody.add_camera(name=self.view, pos=[0.45, 0.8, 0.75], xyaxes=[-1, 0, 0, 0, -0.72, 0.69], fovy=45)
        model = spec.compile()
        self._scratch = mujoco.MjData(model)
        return plain(model)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        hand = rng.uniform([0.2, -0.4, HOVER], [0.75, 0.1, 0.0])
        cylinder = rng.uniform([-0.3, -0.2], [0, 0.2])
        return np.concatenate([self.posture(hand), cylinder, np.zeros(9)])

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state[..., 7:9] - goal[..., 7:9], axis=-1, keepdims=True) / self.tolerance

    def guide(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        away = np.linalg.norm(wrist_of(state) - cylinder_of(state), axis=-1)
        return 0.5 * np.square(away / self.tolerance)

    def own_pair(self, goal: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        self.theirs.reset(seed=int(rng.integers(2**31)))
        start = np.concatenate([self.theirs.data.qpos[:9], self.theirs.data.qvel[:9]])
        way = cylinder_of(np.zeros(18)) - cylinder_of(start)
        hand = cylinder_of(np.zeros(18)) - 0.1 * way / np.linalg.norm(way)
        return start, np.concatenate([self.posture(np.array([*hand[:2], HOVER])), np.zeros(11)])

    def play(self, rng: np.random.Generator) -> Play:
        noise = wander(rng, np.array(self.spec_low), np.array(self.spec_high))
        return noise if rng.random() < 0.15 else _Push(self, rng, noise)

    def posture(self, wrist: np.ndarray) -> np.ndarray:
        """Angles `[7]` that bring the wrist to `[3]`, metres, or near it, close to a middle posture."""
        model, data, jacobian = self.model, self._scratch, np.zeros((3, self.model.nv))
        body, low, high = model.body("tips_arm").id, model.jnt_range[:7, 0], model.jnt_range[:7, 1]
        angles = MIDDLE.copy()
        for _ in range(40):
            data.qpos[:7] = angles
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacBody(model, data, jacobian, None, body)
            turn = jacobian[:, :7]
            inverse = turn.T @ np.linalg.inv(turn @ turn.T + 1e-4 * np.eye(3))
            rest = 0.2 * (np.eye(7) - inverse @ turn) @ (MIDDLE - angles)
            angles = np.clip(angles + np.clip(inverse @ (wrist - data.body(body).xpos) + rest, -0.3, 0.3), low, high)
        return angles


HOVER, LOW = -0.19, -0.28
"""Heights of the wrist, metres: above the cylinder, and at its middle."""
MIDDLE = np.array([0.7, 0.8, 0.0, -1.0, 0.0, -0.3, 0.0])
"""A posture of the arm with the hand over the table, radians."""


def wrist_of(state: np.ndarray) -> np.ndarray:
    """Where the wrist is, metres, states `[..., 18]` to `[..., 3]`."""
    pan, lift, roll, elbow = np.moveaxis(state[..., :4], -1, 0)
    x, z = 0.4 + 0.321 * np.cos(elbow), -0.321 * np.sin(elbow)
    y, z = -np.sin(roll) * z, np.cos(roll) * z
    x, z = 0.1 + np.cos(lift) * x + np.sin(lift) * z, np.cos(lift) * z - np.sin(lift) * x
    return np.stack([np.cos(pan) * x - np.sin(pan) * y, np.sin(pan) * x + np.cos(pan) * y - 0.6, z], -1)


def cylinder_of(state: np.ndarray) -> np.ndarray:
    """Centre of the cylinder, metres, states `[..., 18]` to `[..., 3]`."""
    y, x = state[..., 7], state[..., 8]
    return np.stack([0.45 + x, -0.05 + y, np.full_like(x, -0.275)], -1)


class _Push:
    """Goes behind the cylinder, down, and follows it closely on its way to some place, again and again, with noise."""

    def __init__(self, env: PusherV5, rng: np.random.Generator, noise: Play) -> None:
        self.env, self.rng, self.noise = env, rng, noise
        self.swing, self.firm = rng.uniform(0.05, 0.5), rng.uniform(8, 16)
        self.stage, self.patience = 3, 0

    def __call__(self, state: np.ndarray) -> np.ndarray:
        self.patience -= 1
        cylinder, wrist = cylinder_of(state)[:2], wrist_of(state)
        if self.patience < 0 or (self.stage < 2 and np.linalg.norm(wrist - self.place) < 0.03):
            self._next(cylinder)
        if self.stage == 2:
            self._aim(cylinder - self.depth * self.way, LOW)
        torque = self.firm * (self.angles - state[:7]) - 0.8 * state[9:16]
        return np.clip(torque + self.swing * self.noise(state), -2, 2)

    def _next(self, cylinder: np.ndarray) -> None:
        """Over the place behind the cylinder, down to it, then through."""
        self.stage = self.stage + 1 if self.stage < 2 else 0
        self.patience = 60 if self.stage == 2 else 15
        if self.stage == 0:
            heading = self.rng.uniform([0.25, -0.35], [0.65, 0.05]) - cylinder
            self.way = heading / np.linalg.norm(heading)
            self.depth = self.rng.uniform(0.0, 0.06)
        self._aim(cylinder - 0.1 * self.way, HOVER + 0.04 if self.stage == 0 else LOW)

    def _aim(self, place: np.ndarray, height: float) -> None:
        self.place = np.array([*place, height])
        self.angles = self.env.posture(self.place)
