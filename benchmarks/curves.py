"""Draws the learning curves of finished trainings: `python benchmarks/curves.py runs/train/* --out docs/curves.png`.

Beside the picture it writes the numbers, as JSONL, so that they outlive the training's folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from planner.cards import curves


@dataclass(frozen=True)
class Options:
    """Which runs to draw, and where to."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that `jepa-mpc train` wrote."""
    out: Path = Path("docs/curves.png")
    """The picture."""
    numbers: Path = Path("benchmarks/results/curves.jsonl")
    """The numbers: one line a run and step."""


def main(options: Options) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (errors, probes) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    lines = []
    for run in options.runs:
        checks = curves(run)
        task = json.loads((run / "train.json").read_text())["task"]
        steps = sorted(checks)
        lines += [json.dumps({"task": task, "step": step} | checks[step]) for step in steps]
        (line,) = errors.plot(steps, [checks[step]["val/error_1"] for step in steps], label=task)
        names = [key for key in checks[steps[-1]] if key.startswith("probe/") and not key.endswith("_speed")]
        worst = min(names, key=lambda name: checks[steps[-1]][name])
        values = [checks[step][worst] for step in steps]
        label = f"{task}: {worst.removeprefix('probe/')}"
        probes.plot(steps, values, label=label, color=line.get_color())
    errors.set(title="error one model step ahead, relative to no change", xlabel="updates", ylim=(0, None))
    probes.set(title="the quantity read worst by a linear probe, R2", xlabel="updates", ylim=(-0.5, 1.02))
    for axes in (errors, probes):
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=110)
    options.numbers.write_text("\n".join(lines) + "\n")
    print(options.out, options.numbers)


if __name__ == "__main__":
    main(tyro.cli(Options))
