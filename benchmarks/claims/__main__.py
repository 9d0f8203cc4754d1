"""The three claims as numbers: `python -m benchmarks.claims`, or one part of them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from planner.errors import BadInput

from .contenders import TASKS
from .parts import PARTS, Part, jobs, measure
from .processes import side_by_side
from .rows import Rows, read

RESULTS = Path("benchmarks/results/claims.jsonl")


@dataclass(frozen=True)
class Options:
    """Measure the claims, on two cores.

    Attributes:
        parts: quality, noise, cost, energy, belief; all of them by default.
        rivals: tasks on which rivals are measured beside ours: TwoRoom, Reacher, PushT.
        quick: a look, in some three minutes.
        out: rows; those that are there are not measured again.
        fresh: measure them again all the same (as FRESH=1 does).
        page: the report.
    """

    parts: tuple[Part, ...] = tuple(PARTS)
    rivals: tuple[str, ...] = TASKS[:1]
    quick: bool = False
    out: Path | None = None
    fresh: bool = False
    page: Path = Path("runs/claims/report.html")


def main(options: Options) -> None:
    """Measures what is missing, and writes the report; of all parts measured afresh the time is a row, too."""
    from .report import write

    if strange := [task for task in options.rivals if task not in TASKS]:
        raise BadInput("claims: no rivals were trained", expected=" or ".join(TASKS), got=", ".join(strange))
    began, fresh = time.monotonic(), options.fresh or bool(os.environ.get("FRESH"))
    out = options.out or (Path("runs/claims/claims.jsonl") if options.quick else RESULTS)
    if "cost" in options.parts:
        for task in options.rivals:
            measure("cost", task, options.rivals, options.quick, out, fresh)
    wanted = jobs(options.parts, options.rivals, options.quick)
    side_by_side(measure, [(part, task, options.rivals, options.quick, out, fresh) for part, task in wanted])
    if fresh and set(options.parts) == set(PARTS):
        row = {"part": "run", "quick": options.quick, "rivals": options.rivals}
        Rows(out)(row | {"wall_seconds": round(time.monotonic() - began)})
    known = read(out)  # all of them: a task that was not asked for keeps its place on the page
    write(known, options.page, frames=out.parent, pictures=Path("docs") if out == RESULTS else None)
    print(f"{out}: {len(known)} rows; {options.page}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"claims: {error}") from None
