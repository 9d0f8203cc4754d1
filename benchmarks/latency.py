"""How long a plan takes, from the picture to the action: every shipped planner, for one robot and for fifty at once.

Held-out play is drawn beforehand and looked at step by step, so that nothing but the planner runs while it is timed;
what it wants done is not done. It wants a machine with nothing else to do: each row tells the greatest load that it was
timed under. All take turns, in several rounds, so that what a noisy minute costs is not one task's alone. Rows are
appended at the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from tensordict import TensorDict

from planner import checkpoint
from planner.checkpoint import Checkpoint
from planner.collect import record_episode
from planner.errors import BadInput
from planner.evaluate.protocol import EVALUATE_STREAM
from planner.evaluate.statistics import latency
from planner.mpc import MPC
from planner.tasks import load_envs

from .claims.rows import Row, Rows, digest

STEPS = 100
"""Of an episode that is looked at."""
WARM = 5
"""Plans before the first that counts: threads start and caches fill."""
GOAL = {"median": 10.0, "p99": 20.0}
"""Milliseconds that a plan for one robot was to take, on two cores."""
GOAL_PLANS = 300.0
"""A second, that were to be made for fifty robots together."""


@dataclass(frozen=True)
class Options:
    """Time the planners that ship.

    Attributes:
        tasks: those with a shipped checkpoint by default, other people's where they are installed.
        threads: CPU threads, one after the other.
        robots: how many are planned for at once, one after the other.
        rounds: in which all of these are timed in turn.
        plans: that are timed in each round for one robot; for several at once a twentieth of them.
        out: rows.
    """

    tasks: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1, 2)
    robots: tuple[int, ...] = (1, 50)
    rounds: int = 4
    plans: int = 100
    out: Path = Path("benchmarks/results/latency.jsonl")


def main(options: Options) -> None:
    """Measures, appends a row each, and prints the table."""
    _check(options)
    console, report = Console(), Rows(options.out, fresh=True)
    kinds = list(product(_subjects(options, console), options.threads, options.robots))
    seconds: list[list[float]] = [[] for _ in kinds]
    loads = [0.0 for _ in kinds]
    for round_ in range(options.rounds):
        for k, (one, threads, robots) in enumerate(kinds):
            torch.set_num_threads(threads)
            told = f"round {round_ + 1} of {options.rounds}: {one.checkpoint.task}, {robots} at once, {threads} threads"
            console.print(told, highlight=False)
            planner = one.checkpoint.planner.build(one.checkpoint.model, seed=0)
            seconds[k] += timed(planner, one.films[:robots], options.plans if robots == 1 else options.plans // 20)
            loads[k] = max(loads[k], round(os.getloadavg()[0], 1))
    for (one, threads, robots), found, load in zip(kinds, seconds, loads, strict=True):
        torch.set_num_threads(threads)  # which a row tells
        report(
            {"task": one.checkpoint.task, "threads": threads, "robots": robots}
            | {"rounds": options.rounds, "plans": len(found), "most_load": load}
            | {"checkpoint_sha256": one.checkpoint.sha256, "planner": digest(one.checkpoint.planner)}
            | {"plan_ms": latency(found), "plans_per_second": robots * len(found) / sum(found)}
        )
    console.print(table(report.known), highlight=False, soft_wrap=True)


def _check(options: Options) -> None:
    numbers = (options.rounds, *(min(some, default=0) for some in (options.threads, options.robots)))
    if options.plans < 20 or min(numbers) < 1:
        got = f"{options.plans} plans, {options.rounds} rounds"
        got += f", {list(options.threads)} threads, {list(options.robots)} robots"
        raise BadInput("latency: nothing to time", expected="20 plans, and 1 of the others, at least", got=got)


@dataclass(frozen=True)
class Subject:
    """Who is timed, and what it looks at, as `filmed` has it."""

    checkpoint: Checkpoint
    films: np.ndarray


def _subjects(options: Options, console: Console) -> Iterator[Subject]:
    """Those asked for; of all that ship those whose tasks are installed, and who is left out is told."""
    for task in options.tasks or shipped():
        loaded = checkpoint.load(checkpoint.find(task, None), task=task)
        try:
            films = filmed(task, max(options.robots), loaded.model.config.image_size)
        except BadInput as error:
            if options.tasks:
                raise
            console.print(f"{task} is left out: {error}", highlight=False)
        else:
            yield Subject(loaded, films)


def shipped() -> list[str]:
    """Tasks with a checkpoint: ours in their order, then other people's."""
    found = checkpoint.shipped()
    own = [task for task in load_envs().TASKS if task in found]
    return own + [task for task in found if task not in own]


def filmed(task: str, robots: int, size: int) -> np.ndarray:
    """An episode of held-out play a robot: pictures `[robots, STEPS + 1, size, size, 3]`."""
    with load_envs().make(task, size) as env:
        rngs = (np.random.default_rng([EVALUATE_STREAM, 0, k]) for k in range(robots))
        return np.stack([record_episode(env, STEPS, rng)[0] for rng in rngs])


def timed(planner: MPC, films: np.ndarray, plans: int) -> list[float]:
    """Seconds of `plans` plans, each for all robots together, which want to get to the ends of their films.

    No bar is drawn: it would have a thread of its own.
    """
    looks = looks_at(films)
    goal = TensorDict({"pixels": torch.from_numpy(films[:, -1])}, batch_size=[len(films)])
    planner.reset(next(looks), goal)
    # Encoding a look takes time between plans, too; what is timed is a step that plans, as in an evaluation.
    while len(planner.plan_seconds) < WARM + plans:
        planner.act(next(looks))
    return list(planner.plan_seconds)[WARM:]


def looks_at(films: np.ndarray) -> Iterator[TensorDict]:
    """What all robots see, step by step, over and over."""
    while True:
        for now in range(films.shape[1]):
            yield TensorDict({"pixels": torch.from_numpy(films[:, now])}, batch_size=[len(films)])


def table(rows: Sequence[Row]) -> str:
    """A line a task in Markdown: median and p99 of a plan by threads, and plans a second together; bold: a goal met."""
    kinds = sorted({(row["robots"], row["threads"]) for row in rows})
    lines = ["| task | " + " | ".join(_heading(*kind) for kind in kinds) + " |", "|---" * (1 + len(kinds)) + "|"]
    for task in dict.fromkeys(row["task"] for row in rows):
        of = {(row["robots"], row["threads"]): cell(row) for row in rows if row["task"] == task}
        lines.append(f"| `{task}` | " + " | ".join(of.get(kind, "") for kind in kinds) + " |")
    return "\n".join(lines)


def _heading(robots: int, threads: int) -> str:
    what = "ms a plan (p99)" if robots == 1 else f"plans/s, {robots} robots"
    return f"{what}, {threads} thread{'s' if threads > 1 else ''}"


def cell(row: Row) -> str:
    """What the table says of a row."""
    median, p99 = row["plan_ms"]["median"], row["plan_ms"]["p99"]
    told = f"{median:.1f} ({p99:.1f})" if row["robots"] == 1 else f"{row['plans_per_second']:.0f}"
    return f"**{told}**" if met(row) else told


def met(row: Row) -> bool:
    """Whether a row reaches what was asked for: of one robot's plans median and p99, of several robots' the rate."""
    if row["robots"] == 1:
        return all(row["plan_ms"][name] <= most for name, most in GOAL.items())
    return bool(row["plans_per_second"] >= GOAL_PLANS)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"latency: {error}") from None
