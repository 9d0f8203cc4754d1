"""What can be reached at all: the planner on the simulator itself, on the frozen pairs of every column; a row each.

It knows the true state and is told of no picture, so a goal that it misses is for the search, its settings or the task,
and a learned model may still reach it. Rows are appended as they are measured; those that are there are not measured
again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import Progress

from planner.errors import BadInput
from planner.evaluate.frozen import COLUMNS, kept_pairs, read
from planner.evaluate.protocol import STANDARD, STRICT, Episode, play_pairs
from planner.evaluate.run import ORACLE, Protocol
from planner.evaluate.statistics import summary
from planner.tasks import load_envs

from .claims.rows import Row, Rows


@dataclass(frozen=True)
class Options:
    """Measure what the planner reaches on the simulator.

    Attributes:
        tasks: of ours, those that can be rehearsed; all five by default.
        columns: 25, 50, 100, any, strict; all of them by default.
        episodes: pairs a column, the first so many of those that are frozen.
        out: rows.
    """

    tasks: tuple[str, ...] = ()
    columns: tuple[Literal["25", "50", "100", "any", "strict"], ...] = ("25", "50", "100", "any", "strict")
    episodes: int = 200
    out: Path = Path("benchmarks/results/oracle.jsonl")


def main(options: Options) -> None:
    """Measures what is missing, and prints a line each."""
    console, report = Console(), Rows(options.out)
    for task in options.tasks or tuple(load_envs().TASKS):
        for column in options.columns:
            measure(task, column, options.episodes, report, console)
    console.print(table(report.known), highlight=False, soft_wrap=True)


def measure(task: str, column: str, episodes: int, report: Rows, console: Console) -> None:
    """Plays a column and reports its row, unless there is one.

    Raises:
        BadInput: the task keeps no pairs, or not as many.
    """
    envs, protocol = load_envs(), Protocol(episodes, **COLUMNS[column])
    frozen = read(task, envs.PROTOCOLS)
    pairs = kept_pairs(frozen, protocol, envs.PROTOCOLS) if frozen else None
    if frozen is None or pairs is None:
        got = f"{episodes} pairs of {task}"
        raise BadInput("oracle: no such pairs are frozen", expected="up to as many as the protocol keeps", got=got)
    row: Row = {"task": task, "column": column, "protocol": COLUMNS[column], "frozen": frozen.name, "n": episodes}
    row |= {"seed": protocol.seed, "planner": asdict(ORACLE)}
    if report.has(row):
        return
    with envs.make(task) as room, Progress(console=console, transient=True) as bars:
        line = bars.add_task(f"{task} {column}", total=episodes)
        model, energy = envs.oracle(room)
        policy = ORACLE.fitting(room.block).build(model, protocol.noise_seed, energy, apart=True)

        def advance(_: Episode) -> None:
            bars.advance(line)

        judge = STRICT if protocol.strict else STANDARD
        budget = protocol.budget(room)
        episodes_played = play_pairs(
            [room], policy, pairs.pairs, budget, judge=judge, privileged=True, progress=advance
        )
    reached = [episode.success for episode in episodes_played]
    found = {"budget": budget, "reached": "".join(str(int(one)) for one in reached)}
    report(row | summary(sum(reached), episodes) | found)
    console.print(f"{task} {column}: {sum(reached)} of {episodes}", highlight=False)


def table(rows: list[Row]) -> str:
    """Goals reached, of how many, in Markdown; the last row of a task and column counts."""
    lines = ["| task | " + " | ".join(COLUMNS) + " |", "|---" * (1 + len(COLUMNS)) + "|"]
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = {row["column"]: f"{row['successes']}/{row['n']}" for row in rows if row["task"] == task}
        lines.append(f"| `{task}` | " + " | ".join(cells.get(column, "-") for column in COLUMNS) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"oracle: {error}") from None
