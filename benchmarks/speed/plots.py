"""Pictures and a table of what was measured: `python -m benchmarks.speed.plots benchmarks/results/speed.jsonl`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Row = dict[str, Any]
TITLES = {"lewm": "LeWM's shape", "small": "small model"}
COLUMNS = (("lewm", 300, 1), ("lewm", 64, 1), ("small", 300, 1), ("small", 64, 1), ("lewm", 64, 50), ("small", 64, 50))
"""Models, candidates (which tell the two budgets apart) and environments of the table; the first four have panels."""
MINE = ("ours", "ours in bfloat16")
OURS, THEIRS, LIMIT = "#0b6e4f", "#b8bdc4", "#c1292e"
AXES = {"S": "S, candidates", "T": "T, model steps", "E": "E, environments", "D": "D, features"}


def pick(rows: list[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def name(row: Row) -> str:
    return f"{row['planner']} {row['optimizer']}"


def span(ms: float) -> str:
    """Milliseconds as people say them."""
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def about(row: Row) -> str:
    """A mark on what was measured in part."""
    return "~" if row["extrapolated"] else ""


def limit(row: Row) -> float:
    """Milliseconds that the least FLOPs take at the rate of matrix products measured beside."""
    return 1000 * row["least_gflop"] / row["gemm_gflop_per_s"]


def draw_speed(rows: list[Row], out: Path) -> None:
    """Bars of one environment on one thread, a panel a model and budget."""
    plans = pick(rows, kind="plan", envs=1, threads=1)
    columns = [pick(plans, model=model, samples=samples) for model, samples, envs in COLUMNS if envs == 1]
    columns = [column for column in columns if column]
    slowest = {name(row): max(other["ms"] for other in plans if name(other) == name(row)) for row in plans}
    order = sorted(slowest, key=lambda who: -slowest[who])
    figure, panels = plt.subplots(1, len(columns), figsize=(3.1 * len(columns) + 1.4, 0.3 * len(order) + 1.3))
    for panel, column in zip(panels, columns, strict=True):
        _bars(panel, column, order)
        panel.tick_params(axis="y", length=0, labelleft=panel is panels[0])
    figure.suptitle(
        "time a plan, one environment, one thread (~: measured in part); "
        "dashed: the least FLOPs at the rate of matrix products"
    )
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def _bars(panel: Any, rows: list[Row], order: list[str]) -> None:
    for row in rows:
        place, mine = order.index(name(row)), row["planner"].startswith("ours")
        panel.barh(place, row["ms"], height=0.72, color=OURS if mine else THEIRS)
        weight = "bold" if mine else None
        panel.text(row["ms"] * 1.08, place, about(row) + span(row["ms"]), va="center", fontsize=8, weight=weight)
    panel.axvline(limit(rows[0]), color=LIMIT, linestyle="--", linewidth=1)
    least, most = min(limit(rows[0]), *(row["ms"] for row in rows)), max(row["ms"] for row in rows)
    panel.set(xscale="log", xlim=(least / 2.5, most * 5), yticks=range(len(order)), ylim=(-0.7, len(order) - 0.3))
    panel.set_yticklabels(order)
    for label in panel.get_yticklabels():
        label.set(color=OURS if label.get_text().startswith("ours") else "black")
    row = rows[0]
    panel.set_title(f"{TITLES[row['model']]}, {row['samples']} x {row['iterations']} x {row['horizon']}", fontsize=10)
    panel.set_xlabel("ms")
    panel.spines[["top", "right", "left"]].set_visible(False)


def draw_growth(rows: list[Row], out: Path) -> None:
    """Time and memory over S, T, E and D, with the slopes fitted to the upper half of the points."""
    figure, panels = plt.subplots(2, len(AXES), figsize=(11, 5), sharey="row", layout="constrained")
    for line, (of, label) in zip(panels, (("ms", "time a plan, ms"), ("peak_mb", "peak memory, MB")), strict=True):
        for panel, axis in zip(line, AXES, strict=True):
            points = pick(rows, kind="growth", axis=axis)
            panel.loglog([p["value"] for p in points], [p[of] for p in points], "o-", color=OURS, markersize=4)
            (fit,) = pick(rows, kind="slope", axis=axis, of=of)
            ends = [fit["from"], fit["to"]]
            panel.loglog(ends, [fit["factor"] * x ** fit["slope"] for x in ends], "--", color=LIMIT, linewidth=1.5)
            panel.text(0.06, 0.88, f"slope {fit['slope']:.2f}", transform=panel.transAxes, color=LIMIT)
            panel.set_xlabel(AXES[axis] if of == "peak_mb" else "")
            panel.spines[["top", "right"]].set_visible(False)
        line[0].set_ylabel(label)
    base = ", ".join(f"{axis} = {value}" for axis, value in pick(rows, kind="growth")[0]["base"].items())
    figure.suptitle(f"our plan, small model, one thread; {base} where not varied")
    figure.savefig(out, dpi=110)


def table(rows: list[Row], threads: int) -> str:
    """Markdown: what every planner takes for one plan, and how many plans of 50 environments it makes in a second."""
    plans = pick(rows, kind="plan", threads=threads)
    columns = [pick(plans, model=model, samples=samples, envs=envs) for model, samples, envs in COLUMNS]
    columns = [column for column in columns if column]
    if not columns:
        return "none of the cases in this table"
    names = dict.fromkeys(name(row) for column in [*columns, pick(rows, kind="missing")] for row in column)
    lines = [[""] + [_heading(column[0]) for column in columns], ["---"] * (len(columns) + 1)]
    lines += [[who] + [_cell(rows, column, who) for column in columns] for who in names]
    lines += [["least FLOPs at the rate of products"] + [_bound(column[0]) for column in columns]]
    measured = [mine for mine in MINE if pick(plans, planner=mine)]
    lines += [[f"fastest other / {mine}"] + [_ahead(column, mine) for column in columns] for mine in measured]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _heading(row: Row) -> str:
    text = f"{TITLES[row['model']]}, {row['samples']} x {row['iterations']} x {row['horizon']}"
    return text if row["envs"] == 1 else f"{text}, {row['envs']} envs, plans/s"


def _cell(rows: list[Row], column: list[Row], who: str) -> str:
    for row in column:
        if name(row) == who:
            value = (
                f"{span(row['ms'])}, {row['times_limit']:.2f} x" if row["envs"] == 1 else f"{row['plans_per_s']:.3g}"
            )
            return about(row) + value
    failed = [row for row in pick(rows, kind="missing", model=column[0]["model"]) if name(row) == who]
    return f"not run: {failed[0]['reason']}" if failed else ""


def _bound(row: Row) -> str:
    return span(limit(row)) if row["envs"] == 1 else f"{1000 * row['envs'] / limit(row):.3g}"


def _ahead(column: list[Row], mine: str) -> str:
    fastest = min((row["ms"] for row in column if row["planner"] not in MINE), default=float("nan"))
    best = min((row["ms"] for row in column if row["planner"] == mine), default=float("nan"))
    return f"{fastest / best:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="what `python -m benchmarks.speed` wrote")
    parser.add_argument("--pictures", type=Path, required=True, help="folder for speed.png and speed-growth.png")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    draw_speed(rows, options.pictures / "speed.png")
    draw_growth(rows, options.pictures / "speed-growth.png")
    run = rows[0]
    print(f"{run['date']}, {run['cores']} cores of {run['cpu']}, torch {run['torch']}, commit {run['commit']}")
    print("~: a part was measured and scaled; x: how many times the limit, the least FLOPs at the rate of products")
    for row in pick(rows, kind="equal"):
        print(f"{TITLES[row['model']]}: ours is off the naive rollout by {row['error']:.1e} at most, relative")
    for reason in dict.fromkeys(f"{row['threads']} threads: {row['reason']}" for row in pick(rows, kind="skipped")):
        print("not measured with", reason)
    for threads in sorted({row["threads"] for row in pick(rows, kind="plan")}):
        print(f"\n{threads} thread{'s' * (threads > 1)}\n\n{table(rows, threads)}")


if __name__ == "__main__":
    main()
