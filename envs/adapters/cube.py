"""OGBench's `cube-single` from pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from ..base import GoalEnv, Play, wander
from .foreign import coarsen, global_noise, plain, require

ARM = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
"""The joints of the UR5e."""
WRONG, BESIDE = 0.9, 0.05
"""Share of clumsy plans that are told a wrong place of the cube, and its standard deviation along x and y, m."""
NOISE = 0.1
"""Standard deviation of OGBench's noise on its scripted actions."""
SLIPS, ANEW = 1 / 40, 1 / 60
"""Chances, an environment step, that something else is done for a moment, and that a clumsy plan is given up."""
SHUT = 0.45
"""Opening of the fingers (1 is shut, 0 open) above which they hold the cube if it is there; then it is 0.56."""
MISSED, LOW = 0.8, 0.06
"""Opening of the fingers above which nothing is between them, and height of the hand at which that is a missed cube, m.
Clumsy play sees it then: it goes on with the policy that looks anew, and so begins with what went wrong."""


class CubeSingle(GoalEnv):
    """Pick up a cube of 4 cm and put it where the picture shows it; OGBench's UR5e, controller, physics and goals.

    State: the arm's six angles (rad), the gripper's eight (rad), the cube's place (m) and quaternion, and all speeds.
    Action, -1 to 1 each, for 0.05 s: shift of the hand from where it is (in 0.05 m along x, y, z), its turn (in 0.3
    rad), and change of the gripper's opening (in all of it). Success: the cube within 0.04 m of the goal's, as
    OGBench judges. Own goals: its five, with its random arm, cube's yaw and 1 cm of place, 200 steps. The picture is
    that of its visual tasks: their camera `front_pixels`, a violet gripper and an arm that is nearly transparent; no
    shadows, no details below 4 mm, no target.
    """

    name = "ogbench/cube-single"
    spec_low, spec_high = (-1.0,) * 5, (1.0,) * 5
    spec_units = ("0.05 m", "0.05 m", "0.05 m", "0.3 rad", "opening")
    substeps = 25
    simulates = False  # a controller stands between action and control
    measures = (
        *(f"ur5e/{joint}_joint" for joint in ARM),
        "ur5e/robotiq/right_driver_joint",  # OGBench's gauge of the opening
    )
    view = "front_pixels"
    own_goals, own_budget = 5, 200
    packages = ("ogbench",)
    play_name = "play 4"  # its first form aimed well and was done with every plan (decisions 75 to 77)
    tolerance = 0.04
    pair_rule = "the cube moves: a pair in which it stays within tolerance is solved at the start, and out"

    def prepare(self) -> None:
        self.theirs._data = self.data
        self._scratch = mujoco.MjData(self.model)
        self._place = int(self.model.joint("object_joint_0").qposadr[0])

    def load(self) -> mujoco.MjModel:
        require(self.name, "ogbench", "ogbench")
        self.theirs = _their_env()
        self.theirs.reset(seed=0)  # compiles
        model = plain(self.theirs._model)
        return model if self.backend == "rays" else coarsen(model, cell=0.004)  # a tenth of the time

    def advance(self, action: np.ndarray) -> None:
        self.theirs.set_control(np.clip(action, self.spec_low, self.spec_high))
        mujoco.mj_step(self.model, self.data, self.substeps)
        # Their controller reads the hand's place from the last substep but one, unless a picture was drawn between.
        # Here it is always that of the state, or play without pictures would differ from planning with them.
        mujoco.mj_forward(self.model, self.data)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        theirs = self.theirs
        with self._elsewhere() as data:
            data.qpos[theirs._arm_joint_ids] = theirs._home_qpos
            mujoco.mj_forward(self.model, data)
            theirs.np_random = rng
            theirs.initialize_arm()
            yaw = rng.uniform(0, 2 * np.pi)
            place = [*rng.uniform(*theirs._object_sampling_bounds), 0.02, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
            data.qpos[self._place : self._place + 7] = place
            return np.concatenate([data.qpos, data.qvel])

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        cube = slice(self._place, self._place + 3)
        return np.linalg.norm(state[..., cube] - goal[..., cube], axis=-1, keepdims=True) / self.tolerance

    def own_pair(self, goal: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        with self._elsewhere() as data:
            self.theirs.action_space.seed(int(rng.integers(2**31)))
            _, info = self.theirs.reset(seed=int(rng.integers(2**31)), options={"task_id": goal + 1})
            return np.concatenate([data.qpos, data.qvel]), info["goal"]

    def play(self, rng: np.random.Generator) -> Play:
        if rng.random() < 0.1:
            return wander(rng, np.array(self.spec_low), np.array(self.spec_high))
        return PickAndPlace(self, rng, clumsy=rng.random() < 0.7)

    def relieve(self, rng: np.random.Generator) -> Play:
        return PickAndPlace(self, rng, clumsy=False, looks_anew=True)

    def look(self, state: np.ndarray) -> dict[str, Any]:
        """What OGBench's scripted policies are told of `state`."""
        with self._elsewhere() as data:
            data.qpos[:], data.qvel[:] = np.split(state, [self.model.nq])
            mujoco.mj_kinematics(self.model, data)
            told: dict[str, Any] = self.theirs.compute_ob_info()
        return told

    @contextmanager
    def _elsewhere(self) -> Iterator[mujoco.MjData]:
        """Inside, OGBench's env works on a fresh simulation and leaves the present one alone."""
        mujoco.mj_resetData(self.model, self._scratch)
        self.theirs._data = self._scratch
        try:
            yield self._scratch
        finally:
            self.theirs._data = self.data


def _their_env() -> Any:
    """OGBench's env in its visual looks, which draws nothing itself: its observation is the state."""
    from ogbench.manipspace.envs.cube_env import CubeEnv

    class Quiet(CubeEnv):  # type: ignore[misc]
        # Theirs is made anew at each look and draws from the operating system.
        action_space = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)  # type: ignore[assignment]

        def compute_observation(self) -> np.ndarray:
            return np.concatenate([self._data.qpos, self._data.qvel])

    theirs = Quiet("single", ob_type="pixels", visualize_info=False, width=64, height=64)
    theirs._prev_qpos = theirs._prev_qvel = np.zeros(0)
    return theirs


class PickAndPlace:
    """OGBench's scripted policies for its cube, one after the other, each to a random place, with noise.

    Its play data's plans are followed whatever becomes of the cube, so that some grasps fail. The policy of its noisy
    data looks anew at every step: a hand that is shut beside the cube opens, and goes there. The fingers are told to
    open or to shut as that one tells them.

    Args:
        env: the task.
        rng: of all that is random.
        clumsy: most plans are told a wrong place of the cube, and now and then the robot does something else for a
            moment, or begins anew; when the fingers have shut on nothing, it is the other policy that goes on. Without,
            there are plans alone: hardly ever are closed fingers seen beside a cube that they do not hold, and a model
            takes the two for the same; nor is it seen what to do then.
        looks_anew: that one does all of it, from wherever the hand and the cube are.
    """

    def __init__(self, env: CubeSingle, rng: np.random.Generator, *, clumsy: bool, looks_anew: bool = False) -> None:
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
        from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle

        self.env, self.rng, self.clumsy, self.steps = env, rng, clumsy, 0
        self.plans = CubePlanOracle(env=env.theirs, noise=NOISE, noise_smoothing=0.5)
        self.heals = CubeMarkovOracle(env=env.theirs, min_norm=0.1)
        self.looks_anew = looks_anew
        self.follows: Any = None
        self.target: dict[str, Any] = {}
        self.slip, self.left = np.zeros(5), 0

    def __call__(self, state: np.ndarray) -> np.ndarray:
        told = self.env.look(state) | {"time": np.array([0.05 * self.steps])}
        opening = told["proprio/gripper_opening"][0]
        # In place of the force on a finger, which depends on more than the state.
        told["proprio/gripper_contact"] = np.array([float(opening > SHUT)])
        planned = self.clumsy and self.follows is self.plans
        missed = planned and opening > MISSED and told["proprio/effector_pos"][2] < LOW
        if self.follows is None or self.follows.done or missed or (planned and self.rng.random() < ANEW):
            self._begin(told, heal=missed or self.looks_anew)
        self.steps += 1
        action = self.follows.select_action(None, told | self.target)
        if self.follows is self.heals:
            action[:4] += self.rng.normal(0, NOISE, 4)
        # Told all along to open or to shut, and not to stay as they are: whoever cannot see well how far they are open
        # then does what is right in either case.
        action[4] = np.copysign(1.0, action[4] + opening - 0.5)
        action = np.clip(action, -1, 1)
        return self._slipped(action) if self.clumsy else action

    def _begin(self, told: dict[str, Any], *, heal: bool) -> None:
        bounds = self.env.theirs._target_sampling_bounds
        self.target = {
            "privileged/target_block": 0,
            "privileged/target_block_pos": np.array([*self.rng.uniform(*bounds), 0.02]),
            "privileged/target_block_yaw": self.rng.uniform(0, 2 * np.pi, 1),
        }
        self.follows = self.heals if heal else self.plans
        place = told["privileged/block_0_pos"]
        if self.clumsy and not heal and self.rng.random() < WRONG:
            place = place + np.append(self.rng.normal(0, BESIDE, 2), 0)
        with global_noise(self.rng):
            self.follows.reset(None, told | self.target | {"privileged/block_0_pos": place})

    def _slipped(self, action: np.ndarray) -> np.ndarray:
        """What is done in place of `action`: now and then the fingers move by themselves, or everything does."""
        if self.left == 0 and self.rng.random() < SLIPS:
            self.left, whole = int(self.rng.integers(4, 17)), self.rng.random() < 0.5
            hand = self.rng.uniform(-0.6, 0.6, 5) if whole else np.full(5, np.nan)  # NaN: as planned
            self.slip = np.append(hand[:4], self.rng.choice([-1.0, 1.0, 1.0]))
        if self.left == 0:
            return action
        self.left -= 1
        return np.where(np.isnan(self.slip), action, self.slip)
