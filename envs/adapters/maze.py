"""OGBench's `pointmaze-medium` from pixels."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from ..base import GoalEnv, Play, wander
from .foreign import global_noise, plain, require


class PointMazeMedium(GoalEnv):
    """Roll a ball of 0.7 m radius through a maze of 6 x 6 cells of 4 m; OGBench's env, physics and goals.

    State: x, y (m, -2 to 22), their speeds (m/s, without effect). Action: -1 to 1 an axis, in 0.2 m, for 0.1 s.
    Success: within 1 m of the goal, as OGBench judges. Own goals: its five, start and goal up to 1 m off the middle
    of their cells, 1000 steps. OGBench has no pixels for this robot: the picture is of the whole maze in the colours
    of its visual mazes (the floor's tells the place), with the frame of its default view but from four times as high,
    so that no wall hides the ball.
    """

    name = "ogbench/pointmaze-medium"
    spec_low, spec_high = (-1.0, -1.0), (1.0, 1.0)
    spec_units = ("0.2 m", "0.2 m")
    block = 10  # half a cell: one model step of 5 would move the ball by two pixels
    substeps = 5
    simulates = False  # a step begins with a jump
    own_goals, own_budget = 5, 1000
    packages = ("ogbench",)
    tolerance = 1.0

    def prepare(self) -> None:
        self.theirs.model, self.theirs.data = self.model, self.data
        self.free = np.argwhere(self.theirs.maze_map == 0)

    def load(self) -> mujoco.MjModel:
        require(self.name, "ogbench", "ogbench")
        from ogbench.locomaze.maze import make_maze_env

        self.theirs = make_maze_env("point", "maze", maze_type="medium")
        scene = Path(self.theirs.fullpath)  # a temporary file
        spec = mujoco.MjSpec.from_file(str(scene))
        scene.unlink()
        spec.geom("target").rgba = [0, 0, 0, 0]  # the goal is given by its picture alone
        spec.material("wall").rgba = [0.6, 0.6, 0.6, 1]
        spec.material("grid").texuniform = False
        spec.light("global").ambient = [0, 0, 0]
        spec.delete(spec.light("torso_light"))
        spec.worldbody.add_camera(name=self.view, pos=[10, 10, 120], fovy=11.8)
        model = spec.compile()
        floor = model.tex("grid")
        height, width, start = int(floor.height[0]), int(floor.width[0]), int(floor.adr[0])
        down, across = np.mgrid[:height, :width] * 192 // np.array([[[height]], [[width]]])
        colours = np.stack([down, across, np.full_like(down, 128)], -1)
        model.tex_data[start : start + colours.size] = colours.reshape(-1)
        return plain(model)

    def advance(self, action: np.ndarray) -> None:
        self.theirs.step(np.clip(action, self.spec_low, self.spec_high))

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        cell = self.free[rng.integers(len(self.free))]
        return np.concatenate([self.theirs.ij_to_xy(cell) + rng.uniform(-1, 1, 2), np.zeros(2)])

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.linalg.norm(state[..., :2] - goal[..., :2], axis=-1, keepdims=True) / self.tolerance

    def own_pair(self, goal: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        present = self.state
        self.theirs.action_space.seed(int(rng.integers(2**31)))
        with global_noise(rng):
            self.theirs.reset(seed=int(rng.integers(2**31)), options={"task_id": goal + 1})
        start = np.array([*self.theirs.get_xy(), 0, 0])
        self.set_state(present)
        return start, np.array([*self.theirs.cur_goal_xy, 0, 0], np.float64)

    def play(self, rng: np.random.Generator) -> Play:
        low, high = np.array(self.spec_low), np.array(self.spec_high)
        if rng.random() < 0.15:
            return wander(rng, low, high, persistence=0.97)
        return _Navigate(self, rng)


class _Navigate:
    """As OGBench's navigation data is made: the shortest way to one random cell after the other, with noise."""

    def __init__(self, env: PointMazeMedium, rng: np.random.Generator) -> None:
        self.env, self.rng = env, rng
        self.noise = rng.uniform(0.2, 0.8)
        self.target = env.sample_state(rng)[:2]

    def __call__(self, state: np.ndarray) -> np.ndarray:
        place = state[:2]
        if np.linalg.norm(self.target - place) <= self.env.tolerance:
            self.target = self.env.sample_state(self.rng)[:2]
        way = self.env.theirs.get_oracle_subgoal(place, self.target)[0] - place
        if self.env.theirs.xy_to_ij(place) == self.env.theirs.xy_to_ij(self.target):
            way = self.target - place
        heading = way / max(float(np.linalg.norm(way)), 1e-6)
        return np.clip(heading + self.rng.normal(scale=self.noise, size=2), -1, 1)
