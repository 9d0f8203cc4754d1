"""The three claims as numbers: `python -m benchmarks.claims`, or one part of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from . import belief, cost, expectation, noise, quality
from .rows import Rows

Part = Literal["quality", "noise", "cost", "energy", "belief"]
PARTS: dict[Part, Callable[[bool, Rows], None]] = {
    "quality": quality.run,
    "noise": noise.run,
    "cost": cost.run,
    "energy": expectation.run,
    "belief": belief.run,
}


@dataclass(frozen=True)
class Options:
    """Measure the claims.

    Attributes:
        parts: quality, noise, cost, energy, belief; all of them by default.
        quick: a look, in under three minutes.
        out: rows; those that are there are not measured again.
        fresh: measure them again all the same (as FRESH=1 does).
        page: the report.
    """

    parts: tuple[Part, ...] = tuple(PARTS)
    quick: bool = False
    out: Path | None = None
    fresh: bool = False
    page: Path = Path("runs/claims/report.html")


def main(options: Options) -> None:
    """Measures what is missing, and writes the report."""
    from .report import write

    out = options.out or Path("runs/claims" if options.quick else "benchmarks/results") / "claims.jsonl"
    rows = Rows(out, options.fresh or bool(os.environ.get("FRESH")))
    for part in options.parts:
        PARTS[part](options.quick, rows)
    write(rows.known, options.page, frames=out.parent, pictures=None if options.quick else Path("docs"))
    print(f"{out}: {len(rows.known)} rows; {options.page}")


if __name__ == "__main__":
    main(tyro.cli(Options))
