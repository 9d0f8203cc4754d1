"""Two evaluations side by side, pair by pair."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from .statistics import paired

SAME = ("task", "goals", "distance", "budget", "seed", "n", "pair_rule", "strict")
"""What two evaluations have to share, so that pair k is the same in both; `distance` where the goals are of play."""


@dataclass(frozen=True)
class Side:
    """One evaluation.

    Attributes:
        path: its folder.
        result: the content of its `results.json`.
        successes: of the planner, pair by pair.
        starts: how far from the goal each pair starts, in tolerances.
    """

    path: Path
    result: dict[str, Any]
    successes: list[bool]
    starts: list[float]


def read_side(path: Path) -> Side:
    """The evaluation in the folder `path`; `BadInput` if it is none, is of several tasks, or is cut off."""
    try:
        result = json.loads((path / "results.json").read_text())
        n = result["n"] if isinstance(result, dict) else 0
        lines = (path / "episodes.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        mine = [record for record in records if record["policy"] == "planner"]
        played = sorted((r["episode"], r["success"], r["initial_distance"]) for r in mine)
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = "a folder with results.json and episodes.jsonl, as `jepa-mpc evaluate` writes them"
        got = f"{type(error).__name__}: {error}"
        raise BadInput(f"compare: {path} is no evaluation", expected=expected, got=got) from None
    if not isinstance(result, dict):
        raise BadInput(f"compare: {path} is off", expected="an evaluation of one task", got="one of several")
    if missing := [name for name in ("successes", "interval", "plan_ms") if name not in result]:
        raise BadInput(f"compare: {path} is off", expected=f"results with {missing[0]}", got=str(sorted(result)))
    if [episode for episode, _, _ in played] != list(range(n)):
        raise BadInput(f"compare: {path} is off", expected=f"{n} episodes", got=str(len(played)))
    return Side(path, result, [success for _, success, _ in played], [start for _, _, start in played])


def compare(first: Side, second: Side) -> dict[str, Any]:
    """What `statistics.paired` says of the two, and `times_faster`, the second's median time a plan over the first's.

    `times_faster` is None where the times mean different things: on other hardware or threads, or of plans for another
    number of environments at once.

    Raises:
        BadInput: if they are not of the same pairs.
    """
    for key in SAME:
        if key == "distance" and first.result.get("goals", "play") != "play":
            continue  # nothing read it; of random states the budget follows from it, and that is compared
        if (a := first.result.get(key)) != (b := second.result.get(key)):
            expected = f"{key} {a}, as in {first.path}"
            raise BadInput("compare: not the same pairs", expected=expected, got=f"{b} in {second.path}")
    if not np.allclose(first.starts, second.starts, rtol=1e-6):
        raise BadInput("compare: not the same pairs", got="other starts or goals", do="evaluate both again")
    mine, other = (side.result["plan_ms"]["median"] for side in (first, second))
    alike = all(first.result.get(key) == second.result.get(key) for key in ("num_envs", "hardware"))
    return paired(first.successes, second.successes) | {"times_faster": other / mine if alike else None}
