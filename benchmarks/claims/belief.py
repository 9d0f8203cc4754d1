"""What the energy is worth as a belief: does it foretell success, and does it keep several futures open at once?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.progress import track
from tensordict import TensorDict
from torch import Tensor

from envs.point_maze import FREE, MAZE, MIDDLES
from planner import checkpoint
from planner.checkpoint import Checkpoint
from planner.evaluate.protocol import Pair, held_out_pairs
from planner.tasks import load_envs
from planner.types import Context

from .detection import auroc, chance_at, error_by_chance, expected_calibration_error, monotone, reliability

Row = dict[str, Any]

CALIBRATION, EVALUATION = 7000, 8000
"""Seeds of the pairs that chances are fitted to and judged on; neither was ever used to choose anything."""
EPISODES = 640
"""As many to learn chances from and to judge them on: with 160 a perfect forecast showed up to 0.06 on Cube."""
TOGETHER = 10
GOAL = 0.05

# Success -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def outcomes(loaded: Checkpoint, n: int, seed: int, budget: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Final energies of n episodes of the planner, and whether they ended at the goal, `[n]` each.

    An episode ends after 1 to `budget` steps, drawn at random, goal or not: its energy, the planner's own distance from
    the last picture to the goal picture, is all that is known then. Plans are made every model step on all tasks.
    Episodes that end about the same time are played together, so that none waits long for the others.
    """
    rooms = [load_envs().make(loaded.task, loaded.model.config.image_size) for _ in range(TOGETHER)]
    pairs = held_out_pairs(rooms[0], n, 25, seed).pairs
    ends = np.random.default_rng([seed, n]).integers(1, budget + 1, n)
    settings = replace(loaded.planner, replan=0)
    policy, energy = settings.build(loaded.model, seed), settings.energy(loaded.model)
    found, reached, order = np.zeros(n), np.zeros(n), np.argsort(ends, kind="stable")
    for rows in track(np.split(order, range(TOGETHER, n, TOGETHER)), f"{loaded.task}, seed {seed}"):
        looks, states, goals = _play(rooms[: len(rows)], policy, [pairs[k] for k in rows], ends[rows])
        latents, aims = (loaded.model.encode(_seen(one)) for one in (looks, goals))
        futures = TensorDict({"latent": latents["latent"][:, None]}, batch_size=[len(rows), 1, 1])
        nothing = torch.zeros(len(rows), 1, 1, loaded.model.action.dim)
        found[rows] = energy(futures, aims[:, 0], nothing)[:, 0].double()
        ended = zip(states, rows, strict=True)
        reached[rows] = [rooms[0].goal_distance(state, pairs[k].goal) <= 1 for state, k in ended]
    for room in rooms:
        room.close()
    return found, reached


def _seen(pictures: list[np.ndarray]) -> TensorDict:
    return TensorDict({"pixels": torch.from_numpy(np.stack(pictures))[:, None]}, batch_size=[len(pictures), 1])


def _play(rooms: list[Any], policy: Any, pairs: list[Pair], ends: np.ndarray) -> tuple[list[Any], list[Any], list[Any]]:
    """Last pictures, last states and goal pictures of episodes that end after `ends` steps."""
    starts = [room.reset(options={"start": p.start, "goal": p.goal}) for room, p in zip(rooms, pairs, strict=True)]
    looks, goals = [obs["pixels"] for obs, _ in starts], [obs["goal"] for obs, _ in starts]
    states = [info["state"] for _, info in starts]
    policy.reset(_seen(looks)[:, 0], _seen(goals)[:, 0])
    for step in range(int(ends.max())):
        actions = policy.act(_seen(looks)[:, 0])
        for i, room in enumerate(rooms):
            if step < ends[i]:
                obs, *_, info = room.step(actions[i])
                looks[i], states[i] = obs["pixels"], info["state"]
    return looks, states, goals


def success_row(loaded: Checkpoint, n: int) -> Row:
    """Success foretold from the final energy: isotonic regression on n episodes, judged on n others."""
    energy, reached = outcomes(loaded, n, CALIBRATION)
    levels, chances = monotone(energy, reached)
    energy, reached = outcomes(loaded, n, EVALUATION)
    said = chance_at(levels, chances, energy)
    error, both = expected_calibration_error(said, reached), 0 < reached.sum() < n
    row: Row = {"group": "success", "n": n, "calibration_episodes": n, "successes": int(reached.sum())}
    # No interval: resampling adds to an error that is too large by chance already, and would not hold the true one.
    row |= {"ece": error, "ece_if_perfect": error_by_chance(said)}
    row |= {"goal": GOAL, "met": error <= GOAL, "brier": float(np.square(said - reached).mean())}
    row |= {"auroc": auroc(-energy[reached == 1], -energy[reached == 0]) if both else None}
    return row | {"bins": reliability(said, reached)}


# Forks -------------------------------------------------------------------------------------------------------------

SPEEDS = np.linspace(-1.2, 1.2, 13)
WAYS = {"east": (0, 1), "west": (0, -1), "north": (-1, 0), "south": (1, 0)}


def forks() -> list[tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    """Middles of cells of PointMaze with more than one way out: the place, the ways, and the directions into walls."""
    found = []
    for (row, column), middle in zip(FREE, MIDDLES, strict=True):
        open_ways, shut = [], []
        for down, right in WAYS.values():
            inside = 0 <= row + down < 6 and 0 <= column + right < 6
            free = inside and MAZE[row + down][column + right] == "."
            (open_ways if free else shut).append(np.array([right, -down], float))
        if len(open_ways) > 1 and shut:
            found.append((middle, open_ways, shut))
    return found


@torch.no_grad()
def fork_rows(loaded: Checkpoint) -> dict[str, Row]:
    """Where a disc at rest may leave a cell by two ways or more, and nobody says by which.

    The futures one model step later: each way ("mode"), into a wall ("wall"), and the mean of the pictures of all modes
    ("ghost"), which is what the best regression of pixels draws. Judged by

    - "action sought": the JEPA's energy, least over a grid of actions: what it is not told is a variable to minimise
      over (LeCun, A path towards autonomous machine intelligence, 2022);
    - "latents averaged": the distance to the mean of its predictions over the modes' actions, which is the best that a
      deterministic predictor of latents could say if it were not told the action;
    - "pixels averaged": the mean square in pixels to the ghost, the best of a deterministic predictor of pixels.
    """
    env, model = load_envs().make("PointMaze", loaded.model.config.image_size), loaded.model
    found: dict[str, dict[str, list[float]]] = {
        name: {"mode": [], "wall": [], "ghost": []} for name in ("action sought", "latents averaged", "pixels averaged")
    }
    here = forks()
    for middle, ways, shut in here:
        modes = [_after(env, middle, way, through=False) for way in ways]
        walls = [_after(env, middle, way, through=True) for way in shut]
        ghost = np.mean(modes, axis=0)
        pictures = [*modes, *walls, ghost.round().astype(np.uint8)]
        kinds = ["mode"] * len(modes) + ["wall"] * len(walls) + ["ghost"]
        start = model.encode(_seen([_at(env, middle)]))["latent"]  # [1, 1, D]
        seen = model.encode(_seen(pictures))["latent"][:, 0]
        grid = np.array([[x, y] for x in SPEEDS for y in SPEEDS])
        sought = _energy(_foreseen(model, start, grid), seen).min(0).values
        mean = _foreseen(model, start, 1.2 * np.array(ways)).mean(0, keepdim=True)
        pixels = [float(np.square((picture - ghost) / 127.5).mean()) for picture in [*modes, *walls, ghost]]
        judged = {"action sought": sought, "latents averaged": _energy(mean, seen)[0], "pixels averaged": pixels}
        for name, energies in judged.items():
            for kind, value in zip(kinds, energies, strict=True):
                found[name][kind].append(float(value))
    env.close()
    return {name: _fork_row(one, len(here)) for name, one in found.items()}


def _fork_row(found: dict[str, list[float]], places: int) -> Row:
    arrays = {kind: np.array(values) for kind, values in found.items()}
    spread = {kind: np.quantile(values, (0.1, 0.5, 0.9)).tolist() for kind, values in arrays.items()}
    row: Row = {"group": "fork", "n": places, "energies": spread}
    for kind in ("wall", "ghost"):
        row[f"auroc_{kind}"] = auroc(arrays[kind], arrays["mode"])
    return row | {"counts": {kind: len(values) for kind, values in arrays.items()}}


def _at(env: Any, position: np.ndarray) -> np.ndarray:
    picture: np.ndarray = env.picture(np.append(position, [0, 0]))
    return picture


def _after(env: Any, middle: np.ndarray, way: np.ndarray, through: bool) -> np.ndarray:
    """The picture after one block at full speed; `through` walls that do not collide for once."""
    kept = env.model.geom_contype.copy(), env.model.geom_conaffinity.copy()
    if through:
        env.model.geom_contype[:] = env.model.geom_conaffinity[:] = 0
    env.set_state(np.append(middle, [0, 0]))
    for _ in range(env.block):
        env.advance(1.2 * way)
    env.model.geom_contype[:], env.model.geom_conaffinity[:] = kept
    picture: np.ndarray = env.picture()
    return picture


def _foreseen(model: Any, start: Tensor, speeds: np.ndarray) -> Tensor:
    """Latents `[N, D]` a model step after `start`, `[1, 1, D]`, where the disc rested, at constant speeds `[N, 2]`."""
    block, rest = model.action.block, torch.zeros(1, model.history - 1, model.action.block, 2)
    actions = model.action.encode(torch.as_tensor(speeds, dtype=torch.float32)[:, None].expand(-1, block, -1))
    past = TensorDict({"latent": start.expand(-1, model.history, -1)}, batch_size=[1, model.history])
    return model.rollout(Context(past, model.action.encode(rest)), actions[None, :, None])["latent"][0, :, 0]


def _energy(foreseen: Tensor, seen: Tensor) -> Tensor:
    """Mean squares between `[N, D]` and `[M, D]`, `[N, M]`."""
    return (foreseen[:, None] - seen).square().mean(-1)


def measure(task: str, n: int, report: Callable[[Row], None]) -> None:
    """Success of any task; forks where there are some. Tasks whose rows `report` has are left out, as `Rows` tells.

    The rows say "energy", as all of claim 3 do.
    """
    loaded = checkpoint.load(checkpoint.find(task, None), task=task)
    facts = {"part": "energy", "task": task, "scorer": "jepa", "checkpoint_sha256": loaded.sha256}
    wanted = facts | {"kind": "success", "n": n}
    if getattr(report, "has", lambda row: False)(wanted):
        return
    if task == "PointMaze":
        for name, row in fork_rows(loaded).items():
            report(facts | {"kind": "fork", "scorer": f"jepa, {name}" if "pixels" not in name else name} | row)
    report(facts | {"kind": "success"} | success_row(loaded, n))


def run(task: str, quick: bool, report: Callable[[Row], None]) -> None:
    """Measures what ships of a task, rivals of none, and hands over rows; `quick`: few episodes."""
    measure(task, 20 if quick else EPISODES, report)
