"""Milliseconds a plan of our planner and of others on the same models: `python -m benchmarks.speed`."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from .growth import grow
from .measure import CASES, QUICK, equality, header, in_turn, measure
from .shapes import SHAPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look, in under a minute: fewer cases, shorter runs")
    parser.add_argument("--out", type=Path, required=True, help="JSONL: the run, then one row a measurement")
    options = parser.parse_args()
    began = time.perf_counter()
    torch.set_num_threads(1)
    rows = [header()]
    rows += [equality(name) for name in SHAPES]
    for case in QUICK if options.quick else CASES:
        rows += measure(case, threads=(1, 2))
        print(f"{time.perf_counter() - began:4.0f} s  {case.model}, {case.budget}, E = {case.envs}", flush=True)
    rows += in_turn(rows)
    rows += grow(options.quick)
    rows[0]["seconds"] = round(time.perf_counter() - began)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if unequal := [row for row in rows if row["kind"] == "equal" and not row["error"] <= row["bound"]]:
        raise SystemExit(f"our rollout is not the naive one: {unequal}")


if __name__ == "__main__":
    main()
