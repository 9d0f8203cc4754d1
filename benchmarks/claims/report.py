"""The page of the claims: one HTML file with every curve, and the pictures for the README."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from planner.checkpoint import SHIPPED
from planner.data import write_atomically

from . import expectation
from .contenders import LONGER, SEEN, WEIGHTS
from .nuisance import KINDS, SEVERITIES
from .rows import Row

COLOURS = {"jepa": "#0b6e4f", "recurrent": "#c1292e", "next_frame": "#d98324", "simulator": "#5b6470"}
TITLES = {"jepa": "JEPA", "recurrent": "recurrent", "next_frame": "next frame", "simulator": "simulator + renderer"}
STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --dim: #626c77; --line: #e2e6ea }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1.25rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin-top: 2.5rem } p, li { max-width: 75ch }
svg, img { max-width: 100%; height: auto } img { image-rendering: pixelated; margin: .3rem 1rem .3rem 0 }
table { border-collapse: collapse; font-size: .875rem; margin-bottom: 1.25rem }
th, td { padding: .25rem .8rem .25rem 0; text-align: left;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums } .dim { color: var(--dim) }
"""


def write(rows: Sequence[Row], page: Path, frames: Path, pictures: Path | None = None) -> None:
    """Writes the page, and, into `pictures`, the PNGs of the README; what was not measured is left out.

    Args:
        rows: as in `claims.jsonl`; of two that measured the same, the later counts.
        page: the HTML file.
        frames: folder of the sample frames.
        pictures: folder for `claims.png` and `claims-cost.png`.
    """
    rows = latest(present(rows))
    parts = [part(rows, frames) for part in (_quality, _noise, _cost, _energy)]
    run = max((row["date"] for row in rows), default="")[:10]
    head = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>jepa-mpc: claims</title><style>{STYLE}</style>"
    title = f"<h1>A JEPA beside models that predict pictures</h1><p class='dim'>make bench-claims, {run}</p>"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, f"{head}{title}{''.join(parts)}</html>\n")
    for name, draw in {"claims": draw_success, "claims-cost": draw_cost}.items() if pictures else ():
        if figure := draw(rows):
            figure.savefig(Path(pictures or ".") / f"{name}.png", dpi=110)


MEASURED = {"successes", "success_rate", "interval", "closest", "cpu_seconds", "plan_ms", "state_r2", "nuisance_r2"}
MEASURED |= {"nuisance_share", "ms", "cpu_s", "flops", "peak_bytes", "plans", "cpu_s_per_success", "error_m", "seen_m"}
MEASURED |= {"still_m", "redrawn_m", "latent_error", "date", "hardware", "load", "commit", "n", "sha256", "planner"}
MEASURED |= {"goal"}  # how a picture was planned to follows from who plans


def present(rows: Sequence[Row]) -> list[Row]:
    """Rows but for those of weights that are not here any more, as who was trained anew or is compared no longer."""
    files = [file for root in (SHIPPED, WEIGHTS) for file in root.glob("*/config.json")]
    here = {json.loads(file.read_text())["sha256"] for file in files}

    def gone(row: Row) -> bool:
        sha256 = row.get("sha256", row.get("checkpoint_sha256", ""))
        return len(sha256) == 64 and sha256 not in here  # others are of no weights, or of untrained ones

    return [row for row in rows if not gone(row)]


def latest(rows: Sequence[Row]) -> list[Row]:
    """Rows of which no later one measured the same; other numbers of pairs, and other weights, are later ones too."""
    ours = {"quality", "noise", "cost"}
    kept: dict[str, Row] = {}
    for i, row in enumerate(rows):
        name = {key: value for key, value in row.items() if key not in MEASURED and not key.startswith("psnr")}
        kept[repr(sorted(name.items())) if row.get("part") in ours else str(i)] = row
    return list(kept.values())


def pick(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """Rows that agree with all that is wanted."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _who(row: Row) -> str:
    """A contender in words."""
    title = TITLES[row["model"]]
    if row["model"] == "simulator":
        return title
    looks = "varied looks" if row.get("augment") else "plain"
    note = f", {row['note']}" if row.get("note") else ""
    return f"{title}, {looks}{', in pixels' if row['energy'] == 'pixels' else ''}{note}"


def _quality(rows: Sequence[Row], frames: Path) -> str:
    head = ["model", "drawn again", "1 step ahead", "5 steps", "10 steps", "what moves, drawn again", "10 steps"]
    tables = ""
    for task, found in _by_task(pick(rows, part="quality")).items():
        lines = [[_who(row), *_decibels(row["psnr"], row["psnr_moving"])] for row in found]
        lines.append(["the mean picture", *_decibels(found[0]["psnr_of_mean"], found[0]["psnr_of_mean_moving"])])
        tables += f"<h3>{html.escape(task)}</h3>{_table([head, *lines])}"
    if not tables:
        return ""
    samples = "".join(_image(file) for file in sorted(frames.glob("frames-*.png")))
    note = "PSNR on held-out play, dB, open loop. Samples: true over predicted, 0, 1, 2, 3, 5, 7 and 10 steps ahead."
    shown = f"<details><summary>Sample frames</summary>{samples}</details>" if samples else ""
    return f"<h2>The rivals draw</h2><p>{note}</p>{tables}{shown}"


def _decibels(psnr: list[float], moving: list[float]) -> list[str]:
    """The columns of the table above, from PSNR 0 to 10 steps ahead."""
    return [f"{x:.1f}" for x in (psnr[0], psnr[1], psnr[5], psnr[-1], moving[0], moving[-1])]


def _noise(rows: Sequence[Row], frames: Path) -> str:
    figure = draw_success(rows)
    if figure is None:
        return ""
    body = f"<p>Goals reached over the severity of five nuisances.</p>{_svg(figure)}"
    for task, found in _by_task(pick(rows, part="noise", kind="success", severity=0)).items():
        plain = [[_who(row), f"{row['successes']} of {row['n']}", _interval(row)] for row in found]
        body += f"<h3>{html.escape(task)}</h3>{_table([['model', 'reached, undisturbed', '95 %'], *plain])}"
    body += "<h3>What latents know</h3><p>State and nuisance as a linear map reads them off the latents of held-out"
    body += " episodes (R2), and the share of the latents' variance that is nuisance, at severity 2: state / nuisance /"
    body += " share.</p>"
    for task, found in _by_task(pick(rows, part="noise", kind="probe")).items():
        lines = [[task, *KINDS]]
        for who, mine in _by_contender(found).items():
            cells = {row["nuisance"]: row for row in mine}
            lines.append([who, *(_probe_cell(cells.get(kind)) for kind in KINDS)])
        body += _table(lines)
    return f"<h2>1. Noise is abstracted away?</h2>{body}"


def _interval(row: Row) -> str:
    low, high = row["interval"]
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _probe_cell(row: Row | None) -> str:
    return f"{row['state_r2']:.2f} / {row['nuisance_r2']:.2f} / {row['nuisance_share']:.2f}" if row else ""


def _by_contender(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_who(row), []).append(row)
    return groups


def _by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["task"], []).append(row)
    return groups


def draw_success(rows: Sequence[Row]) -> Figure | None:
    """Success over severity with Wilson intervals, a row a task, a panel a nuisance; solid with varied looks."""
    tasks = _by_task(pick(rows, part="noise", kind="success"))
    if not tasks:
        return None
    figure = Figure(figsize=(13, 0.6 + 2.8 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), len(KINDS), sharex=True, sharey=True, squeeze=False)
    for (task, found), panels in zip(tasks.items(), grid, strict=True):
        for panel, kind in zip(panels, KINDS, strict=True):
            for shift, (who, mine) in enumerate(_by_contender(found).items()):
                points = sorted((r for r in mine if r["nuisance"] in (kind, "none")), key=lambda r: r["severity"])
                if points:  # a run that goes on later may have left some out
                    _curve(panel, points, who, 0.04 * (shift - 3))
            panel.set(xticks=list(SEVERITIES), ylim=(-3, 103))
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel(f"{task}: goals reached, %")
    for kind, top, bottom in zip(KINDS, grid[0], grid[-1], strict=True):
        top.set_title(kind)
        bottom.set_xlabel("severity")
    _legend_beneath(figure, [panels[0] for panels in grid], 9)
    return figure


def _legend_beneath(figure: Figure | SubFigure, panels: Iterable[Axes], size: int) -> None:
    """One legend of all panels, each label once."""
    named = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=size)


def _curve(panel: Axes, points: list[Row], who: str, shift: float) -> None:
    first = points[0]
    style: dict[str, Any] = {"color": COLOURS[first["model"]], "linewidth": 1.6, "markersize": 4, "marker": "o"}
    style |= {"linestyle": ":" if first["energy"] == "pixels" else "-" if first["augment"] else "--"}
    if first["note"]:
        style |= {"markersize": 8, "marker": "*", "alpha": 0.55 if first["note"] == SEEN else 1.0}
    if first["note"] == LONGER:
        style |= {"markersize": 6, "marker": "D"}
    low, high = ([100 * abs(p["interval"][end] - p["success_rate"]) for p in points] for end in (0, 1))
    severity = [p["severity"] + shift for p in points]
    rates = [100 * p["success_rate"] for p in points]
    panel.errorbar(severity, rates, yerr=[low, high], label=who, elinewidth=0.7, **style)


def _cost(rows: Sequence[Row], frames: Path) -> str:
    figure = draw_cost(rows)
    if figure is None:
        return ""
    note = "64 candidates, 5 steps, judged; divided by 320. FLOPs are those of products and convolutions, of which the"
    note += " simulator has none. Bytes: most that tensors hold at once."
    body = f"{_svg(figure)}<p>{note}</p>"
    for task, found in _by_task(pick(rows, part="cost")).items():
        body += f"<h3>{html.escape(task)}</h3>{_table(_steps(found))}{_table(_plans(found))}"
    return f"<h2>2. Rehearsal costs a fraction?</h2>{body}"


def _steps(rows: Sequence[Row]) -> list[list[str]]:
    """What one imagined step of one plan costs, on one task."""
    lines = [["what rehearses", "CPU ms a step of one plan", "FLOPs", "bytes", "CPU time, times ours"]]
    steps = pick(rows, kind="step", S=64, T=5)
    ours = next((row["cpu_s"] for row in steps if (row["model"], row["energy"]) == ("jepa", "latent")), None)
    for row in steps:
        each = 1e3 * row["cpu_s"] / 320
        ratio = f"{row['cpu_s'] / ours:.3g}" if ours else ""
        lines.append([_arm(row), f"{each:.3g}", f"{row['flops'] / 320:.3g}", f"{row['peak_bytes'] / 320:.3g}", ratio])
    return lines


def _plans(rows: Sequence[Row]) -> list[list[str]]:
    """What a plan, and an episode that reaches its goal, cost on one task."""
    lines = [["planner on", "ms a plan", "reached", "CPU s a success"]]
    for row in pick(rows, kind="episode"):
        spent = "none reached" if row["cpu_s_per_success"] is None else f"{row['cpu_s_per_success']:.3g}"
        lines.append([_who(row), f"{row['plan_ms']:.3g}", f"{row['successes']} of {row['n']}", spent])
    return lines


def _arm(row: Row) -> str:
    return TITLES[row["model"]] + (", drawn" if row["energy"] == "pixels" and row["model"] != "simulator" else "")


def draw_cost(rows: Sequence[Row]) -> Figure | None:
    """CPU time over horizon and candidates on the task that was looked at most closely; below, each one's errors."""
    steps = pick(rows, part="cost", kind="step")
    if not steps:
        return None
    steps, ahead = pick(steps, task=steps[0]["task"]), _by_task(pick(rows, part="cost", kind="foresight"))
    figure = Figure(figsize=(12.5, 8.0 if ahead else 3.8), layout="constrained")
    above, *below = figure.subfigures(2 if ahead else 1, 1, squeeze=False)[:, 0]
    over_t, over_s = above.subplots(1, 2, sharey=True)
    _draw_times(over_t, steps, "T", {"S": 64}, "horizon, model steps (64 candidates)")
    _draw_times(over_s, steps, "S", {"T": 5}, "candidates (5 steps ahead)")
    over_s.set_ylabel("")
    errors = below[0].subplots(1, len(ahead), sharey=True, squeeze=False)[0] if below else []
    for panel, (task, found) in zip(errors, ahead.items(), strict=True):
        _draw_errors(panel, task, found)
    for panel in (over_t, over_s, *errors):
        panel.spines[["top", "right"]].set_visible(False)
    over_t.legend(frameon=False, fontsize=8)
    if below:  # beneath them: on one panel or another it lies on a curve
        _legend_beneath(below[0], errors, 8)
    for panel in errors[1:]:
        panel.set_ylabel("")
    return figure


def _draw_times(panel: Axes, steps: Sequence[Row], axis: str, fixed: dict[str, int], label: str) -> None:
    for name in dict.fromkeys((row["model"], row["energy"]) for row in steps):
        points = sorted(pick(steps, model=name[0], energy=name[1], **fixed), key=lambda row: row[axis])
        style = ":" if name[1] == "pixels" else "-"
        times = [1e3 * row["cpu_s"] for row in points]
        panel.loglog([r[axis] for r in points], times, "o" + style, color=COLOURS[name[0]], label=_arm(points[0]))
    panel.set(xlabel=label, ylabel="CPU ms a rehearsal", title=steps[0]["task"])


def _draw_errors(panel: Axes, task: str, rows: Sequence[Row]) -> None:
    """Errors of the foreseen place of what goals are about (`clips.place`), metres, over the horizon."""
    for row in rows:
        style = {"color": COLOURS[row["model"]], "linestyle": "-" if row["augment"] else "--"}
        if row["note"] in ("", LONGER):
            best = row.get("redrawn_m") or row["error_m"]
            label = f"{_who(row)}{', drawn and seen again' if 'redrawn_m' in row else ''}"
            panel.plot(range(1, len(best) + 1), [math.nan if x is None else x for x in best], label=label, **style)
    panel.plot(range(1, len(rows[0]["still_m"]) + 1), rows[0]["still_m"], color="#b8bdc4", label="predict no change")
    panel.set(xscale="log", yscale="log", ylim=(0.004, 1.3), title=task)
    panel.set(xlabel="model steps ahead, open loop", ylabel="error of the position, m")


def _energy(rows: Sequence[Row], _: Path) -> str:
    """Claim 3 draws its own plots."""
    found = pick(rows, part="energy")
    return f"<h2>3. Energy tells compatible from impossible?</h2>{expectation.plot(found)}" if found else ""


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :]


def _image(file: Path) -> str:
    name = html.escape(file.stem.removeprefix("frames-"))
    data = base64.b64encode(file.read_bytes()).decode()
    return f"<figure><figcaption>{name}</figcaption><img alt='{name}' src='data:image/png;base64,{data}'></figure>"


def _table(lines: list[list[str]]) -> str:
    head, *body = [[html.escape(cell) for cell in line] for line in lines]
    top = "".join(f"<th>{cell}</th>" for cell in head)
    rest = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in body)
    return f"<table><tr>{top}</tr>{rest}</table>"
