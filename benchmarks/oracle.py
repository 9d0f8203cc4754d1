"""What can be reached at all: the planner on the simulator itself, on the frozen pairs of every column; a row each.

It knows the true state and sees no picture. A goal that it misses is for the search, its settings or the task, and a
learned model may still reach it. Rows are appended as they are measured; those that are there are not measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from planner.errors import BadInput
from planner.evaluate.frozen import COLUMNS, Frozen, kept_pairs, read
from planner.evaluate.protocol import STANDARD, STRICT, Episode, Pair, play_pairs
from planner.evaluate.run import ORACLE, Protocol
from planner.evaluate.statistics import summary
from planner.tasks import load_envs
from planner.versions import versions

from .bars import bars_of
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
    """Measures what is missing, and prints the table."""
    console, report = Console(), Rows(options.out)
    ours = tuple(load_envs().TASKS)
    if strange := [task for task in options.tasks if task not in ours]:
        raise BadInput("no task of ours", expected=" or ".join(ours), got=", ".join(strange))
    wanted = product(options.tasks or ours, options.columns)
    rows = [measure(task, column, options.episodes, report, console) for task, column in wanted]
    console.print(table(rows), highlight=False, soft_wrap=True)


def measure(task: str, column: str, episodes: int, report: Rows, console: Console) -> Row:
    """The row of a column: the one that is known, or one that is played now and reported.

    Raises:
        BadInput: the protocol keeps no such pairs, or the task has become another since it was frozen.
    """
    envs, protocol = load_envs(), Protocol(episodes, **COLUMNS[column])
    frozen = read(task, envs.PROTOCOLS)
    pairs = kept_pairs(frozen, protocol, envs.PROTOCOLS) if frozen else None
    if frozen is None or pairs is None:
        expected = f"up to {frozen.episodes}" if frozen else "a protocol in envs/protocols"
        raise BadInput(f"no such pairs are frozen of {task}, {column}", expected=expected, got=str(episodes))
    row: Row = {"task": task, "column": column, "protocol": COLUMNS[column], "frozen": frozen.name, "n": episodes}
    row |= {"seed": protocol.seed, "planner": asdict(ORACLE)}
    if (known := report.last(row)) is not None:
        return known
    found = play(task, column, protocol, frozen, pairs.pairs, console)
    report(row | found)
    console.print(f"{task} {column}: {found['successes']} of {episodes}", highlight=False)
    return report.known[-1]


def play(task: str, column: str, protocol: Protocol, frozen: Frozen, pairs: Sequence[Pair], console: Console) -> Row:
    """Who was reached, and in how many steps each episode ended, under a bar."""
    envs = load_envs()
    with envs.make(task) as room:
        if departs := frozen.check(protocol, pairs, room)["departs"]:
            raise BadInput(f"outside protocol {frozen.name}", expected="what was frozen", got=", ".join(departs))
        model, energy = envs.oracle(room)
        policy = ORACLE.fitting(room.block).build(model, protocol.noise_seed, energy, apart=True)
        judge, budget = STRICT if protocol.strict else STANDARD, protocol.budget(room)
        with bars_of(console) as bars:
            bar = bars.add_task(f"{task} {column}", total=len(pairs))

            def advance(_: Episode) -> None:
                bars.advance(bar)

            played = play_pairs([room], policy, pairs, budget, judge=judge, privileged=True, progress=advance)
        used = versions(*room.packages)
    reached = [episode.success for episode in played]
    told = {"reached": "".join(str(int(one)) for one in reached), "steps": [episode.steps for episode in played]}
    return summary(sum(reached), len(played)) | {"budget": budget, **told, "versions": used}


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
