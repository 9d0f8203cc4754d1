"""Success at every distance: goals 25, 50 and 100 steps away, anywhere, and strictly; a row a task and column.

Rows are appended as they are measured, and a run that was interrupted goes on with the next one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from planner import checkpoint
from planner.errors import BadInput
from planner.evaluate.frozen import COLUMNS, read
from planner.evaluate.run import Protocol
from planner.tasks import load_envs

from .bars import watched
from .claims.rows import read as rows_of

Row = dict[str, Any]

KEPT = ("n", "successes", "interval", "floors", "budget", "removed_pairs", "ruled_out_pairs", "seed", "num_envs")
KEPT += ("noise", "planner", "checkpoint_sha256", "plan_ms", "fallbacks", "commit", "date", "hardware", "hard_score")
KEPT += ("versions",)


@dataclass(frozen=True)
class Options:
    """Measure success at every distance.

    Attributes:
        tasks: those with a shipped checkpoint by default.
        columns: 25, 50, 100, any, strict; all of them by default.
        episodes: pairs a column.
        num_envs: environments played at once.
        noise: seed of the planner's noise; rows with other noise than 0 tell how far a rate is off by luck.
        checkpoint: weights of one task, named in `tasks`; those that ship by default.
        out: rows, one a task and column; those that are there are not measured again.
    """

    tasks: tuple[str, ...] = ()
    columns: tuple[Literal["25", "50", "100", "any", "strict"], ...] = ("25", "50", "100", "any", "strict")
    episodes: int = 200
    num_envs: int = 1
    noise: int = 0
    checkpoint: Path | None = None
    out: Path = Path("benchmarks/results/distances.jsonl")


def key(row: Row) -> str:
    """What makes two rows the same measurement."""
    parts = "task", "column", "protocol", "frozen", "n", "num_envs", "seed", "checkpoint_sha256", "planner"
    return json.dumps([row[part] for part in parts] + [row.get("noise", 0)], sort_keys=True)  # which rows of old lack


def main(options: Options) -> None:
    """Measures what is missing, and prints the table."""
    if options.checkpoint and len(options.tasks) != 1:
        got, do = f"{len(options.tasks)} tasks", "say --tasks PointMaze, or whatever the weights are of"
        raise BadInput("a checkpoint is of one task", expected="one task", got=got, do=do)
    console, rows = Console(), []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    known = rows_of(options.out)
    ours = [task for task in load_envs().TASKS if task in checkpoint.shipped()]
    for task in options.tasks or ours:
        loaded = checkpoint.load(checkpoint.find(task, options.checkpoint), task=task)
        # The version of the pairs: the same weights on other pairs are another figure.
        frozen = frozen_name(task, options.episodes)
        for column in options.columns:
            wanted = {"frozen": frozen, "protocol": COLUMNS[column], "seed": Protocol().seed}
            wanted |= {"task": task, "column": column}
            wanted |= {"n": options.episodes, "num_envs": options.num_envs, "noise": options.noise}
            wanted |= {"checkpoint_sha256": loaded.sha256, "planner": asdict(loaded.planner)}
            row = next((one for one in reversed(known) if key(one) == key(wanted)), None)
            if row is None:
                row = measure(task, column, loaded, options, console)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
            console.print(f"{task} {column}: {row['successes']}/{row['n']}", highlight=False)
    console.print(table(rows), highlight=False, soft_wrap=True)


def measure(task: str, column: str, loaded: checkpoint.Checkpoint, options: Options, console: Console) -> Row:
    """One row, with a bar while it is played."""
    protocol = Protocol(
        options.episodes, num_envs=options.num_envs, noise=options.noise, oracle=False, **COLUMNS[column]
    )
    outcome = watched(task, loaded, loaded.planner, protocol, f"{task} {column}", console)
    held = outcome.result["protocol"]
    # Other pairs, or another judge, are another figure: such a row is of no protocol.
    frozen = held["name"] if held and held["same_pairs"] and not held["departs"] else None
    what = {"task": task, "column": column, "protocol": COLUMNS[column], "frozen": frozen}
    return what | {name: outcome.result[name] for name in KEPT} | {"reached": reached(outcome.records)}


def reached(records: list[dict[str, Any]]) -> str:
    """Which of the pairs the planner reached, in order: "1" or "0" each, so that rows can be compared pair by pair."""
    return "".join(str(int(record["success"])) for record in records if record["policy"] == "planner")


def frozen_name(task: str, episodes: int) -> str | None:
    """Such as "Cube-v2": the newest protocol of a task; None where it has none, or not as many pairs."""
    frozen = read(task, load_envs().PROTOCOLS)
    return frozen.name if frozen and episodes <= frozen.episodes else None


def table(rows: list[Row]) -> str:
    """Success in % with the ends of its 95 % interval, in Markdown; beside it the random floor."""
    lines = ["| task | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = {row["column"]: cell(row) for row in rows if row["task"] == task}
        lines.append(f"| `{task}` | " + " | ".join(cells.get(column, "") for column in COLUMNS) + " |")
    return "\n".join(lines)


def cell(row: Row) -> str:
    """One cell: successes in %, the interval, and what random actions reach."""
    low, high = row["interval"]
    floor = row["floors"]["random"]
    return (
        f"**{100 * row['successes'] / row['n']:.0f}** ({100 * low:.0f} to {100 * high:.0f};"
        f" random {100 * floor['successes'] / floor['n']:.0f})"
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"distances: {error}") from None
