"""What the energy is worth as a belief: does it foretell success? (And forks: `forks.py`.)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.progress import track
from tensordict import TensorDict

from planner import checkpoint
from planner.checkpoint import Checkpoint
from planner.evaluate.protocol import Pair, held_out_pairs
from planner.settings import PlannerConfig
from planner.tasks import load_envs

from . import forks
from .detection import auroc, chance_at, error_by_chance, expected_calibration_error, monotone, reliability
from .rows import digest

Row = dict[str, Any]

CALIBRATION, EVALUATION = 7000, 8000
"""Seeds of the pairs that chances are fitted to and judged on; neither was ever used to choose anything."""
EPISODES = 640
"""As many to learn chances from and to judge them on: with 160 a perfect forecast showed up to 0.06 on Cube."""
TOGETHER = 10
GOAL = 0.05


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
    settings = _settings(loaded)
    policy, energy = settings.build(loaded.model, seed), settings.energy(loaded.model)
    found, reached, order = np.zeros(n), np.zeros(n), np.argsort(ends, kind="stable")
    for rows in track(np.split(order, range(TOGETHER, n, TOGETHER)), f"{loaded.task}, seed {seed}"):
        looks, states, goals = _play(rooms[: len(rows)], policy, [pairs[k] for k in rows], ends[rows], rows)
        latents, aims = (loaded.model.encode(_seen(one)) for one in (looks, goals))
        futures = TensorDict({"latent": latents["latent"][:, None]}, batch_size=[len(rows), 1, 1])
        nothing = torch.zeros(len(rows), 1, 1, loaded.model.action.dim)
        found[rows] = energy(futures, aims[:, 0], nothing)[:, 0].double()
        ended = zip(states, rows, strict=True)
        reached[rows] = [rooms[0].goal_distance(state, pairs[k].goal) <= 1 for state, k in ended]
    for room in rooms:
        room.close()
    return found, reached


def _settings(loaded: Checkpoint) -> PlannerConfig:
    """As it ships, but for a plan every model step."""
    return replace(loaded.planner, replan=0)


def _seen(pictures: list[np.ndarray]) -> TensorDict:
    return TensorDict({"pixels": torch.from_numpy(np.stack(pictures))[:, None]}, batch_size=[len(pictures), 1])


def _play(
    rooms: list[Any], policy: Any, pairs: list[Pair], ends: np.ndarray, numbers: np.ndarray
) -> tuple[list[Any], list[Any], list[Any]]:
    """Last pictures, last states and goal pictures of episodes that end after `ends` steps.

    By their `numbers` each has noise of its own, however they are grouped: with the same for all, 640 episodes would be
    as alike as their pairs are, and a draw of noise that is bad luck would be so in each.
    """
    starts = [room.reset(options={"start": p.start, "goal": p.goal}) for room, p in zip(rooms, pairs, strict=True)]
    looks, goals = [obs["pixels"] for obs, _ in starts], [obs["goal"] for obs, _ in starts]
    states = [info["state"] for _, info in starts]
    policy.reset(_seen(looks)[:, 0].set("episode", torch.from_numpy(numbers)), _seen(goals)[:, 0])
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


def measure(task: str, n: int, report: Callable[[Row], None]) -> None:
    """Success of any task; forks where there are some. What `report` has rows of is left out, as `Rows` tells.

    The rows say "energy", as all of claim 3 do.
    """
    loaded = checkpoint.load(checkpoint.find(task, None), task=task)
    if task == forks.TASK:
        forks.measure(loaded, report)
    facts = {"part": "energy", "task": task, "scorer": "jepa", "checkpoint_sha256": loaded.sha256, "kind": "success"}
    facts |= {"planner": digest(_settings(loaded)), "noise": "of each episode"}
    if not getattr(report, "has", lambda row: False)(facts | {"n": n}):
        report(facts | success_row(loaded, n))


def run(task: str, quick: bool, report: Callable[[Row], None]) -> None:
    """Measures what ships of a task, rivals of none, and hands over rows; `quick`: few episodes."""
    measure(task, 20 if quick else EPISODES, report)
