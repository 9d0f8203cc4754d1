"""A point mass in a maze whose ends are far apart."""

from __future__ import annotations

from collections import deque

import numpy as np

from .disc import Disc

MAZE = (
    "..#...",
    "#.#.#.",
    "....#.",
    "#####.",
    "...#..",
    ".#...#",
)
"""Cells from north to south, each row from west to east; `#` is a block. `point_maze.xml` has the same blocks."""
CELL = 1 / 3
"""Side of a cell, metres; the maze's middle is the origin."""


class PointMaze(Disc):
    """Move a disc of 6 cm radius through a maze to where the picture shows it.

    From end to end the way is 21 cells, more than 100 environment steps, and often leads away from the goal.

    State: x, y (m, within +-0.94), their speeds (m/s). Action: wanted speed, +-1.2 m/s an axis, for 0.05 s.
    Success: within 0.10 m of the goal.
    """

    name = "PointMaze"
    xml = "point_maze.xml"
    slowest, restless = 0.7, 0.005

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([MIDDLES[rng.integers(len(FREE))] + rng.uniform(-0.1, 0.1, 2), np.zeros(2)])

    def guide(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        # As the crow flies every wall is a trap; where nothing is in between, the way adds nothing.
        straight = np.linalg.norm(state[..., :2] - goal[..., :2], axis=-1)
        detour = np.square(way_left(state[..., :2], goal[..., :2])) - np.square(straight)
        return 10 * detour.clip(0) / self.tolerance**2

    def next_target(self, rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
        return self.sample_state(rng)[:2]

    def waypoint(self, position: np.ndarray, target: np.ndarray) -> np.ndarray:
        return next_waypoint(position, target)


FREE = [(row, column) for row in range(6) for column in range(6) if MAZE[row][column] == "."]
"""The cells that are no blocks, F of them."""
MIDDLES = np.array([((column - 2.5) * CELL, (2.5 - row) * CELL) for row, column in FREE])
"""Their middles, metres, `[F, 2]`."""


def _shortest_ways() -> tuple[np.ndarray, np.ndarray]:
    """Cells to go and the next cell, both `[F, F]`: from the cell of the row to that of the column, breadth first."""
    cells, following = np.zeros((2, len(FREE), len(FREE)), dtype=np.int64)
    for goal in range(len(FREE)):
        following[goal, goal], queue, seen = goal, deque([goal]), {goal}
        while queue:
            here = queue.popleft()
            for near in map(int, np.flatnonzero(np.abs(MIDDLES - MIDDLES[here]).sum(1) < 1.01 * CELL)):
                if near not in seen:
                    seen.add(near)
                    queue.append(near)
                    cells[near, goal], following[near, goal] = cells[here, goal] + 1, here
    return cells, following


CELLS_LEFT, NEXT = _shortest_ways()


def cell_of(position: np.ndarray) -> np.ndarray:
    """Index in `FREE` of the nearest free cell, positions `[..., 2]` to `[...]`."""
    return np.abs(position[..., None, :] - MIDDLES).max(-1).argmin(-1)


def next_waypoint(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where to head for now, `[..., 2]`: the target, or the middle of the next cell on the shortest way there."""
    here, there = cell_of(position), cell_of(target)
    return np.where((here == there)[..., None], target, MIDDLES[NEXT[here, there]])


def way_left(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Length of the shortest way from middle to middle, metres, `[..., 2]` and `[..., 2]` to `[...]`."""
    here, there = cell_of(position), cell_of(target)
    through = CELL * CELLS_LEFT[NEXT[here, there], there] + np.linalg.norm(MIDDLES[there] - target, axis=-1)
    ahead = np.linalg.norm(next_waypoint(position, target) - position, axis=-1)
    return ahead + np.where(here == there, 0, through)
