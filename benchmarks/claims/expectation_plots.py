"""The rows of claim 3 as a piece of HTML that needs nothing else."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]

INK, DIM = "#20242a", "#7d8792"
GOOD, BAD, OTHER = "#2c7a55", "#c8354a", "#c98a1b"
COLOURS = ("#2f6fb3", "#c98a1b", "#7a4fa3", "#2c7a55", "#c8354a", "#55606e")
STYLE = """<style>
.expectation table { border-collapse: collapse; font-size: .85em; margin: .5em 0 1em }
.expectation td, .expectation th { padding: .2em .6em; text-align: right; border-bottom: 1px solid #8884 }
.expectation td:first-child, .expectation th:first-child { text-align: left }
.expectation .missed { color: #c8354a; font-weight: 600 } .expectation .met { color: #2c7a55 }
.expectation svg { max-width: 100%; height: auto }
</style>"""


def plot(rows: Sequence[Row]) -> str:
    """Inline HTML and SVG of the rows that `expectation.run` reported; of rows measured twice the last counts."""
    latest = {(row["task"], row["scorer"], row["kind"]): row for row in rows if row.get("part") == "energy"}
    if not latest:
        return "<p>Nothing was measured yet.</p>"
    mine = list(latest.values())
    shown = (_areas, _goals, _alarms, _caught, _traces, _success, _forks)
    return f'<section class="expectation">{STYLE}{"".join(part(mine) for part in shown)}</section>'


def _group(rows: Sequence[Row], group: str) -> list[Row]:
    return [row for row in rows if row["group"] == group]


def _unique(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in body)
    return f"<table><tr>{top}</tr>{lines}</table>"


def _areas(rows: Sequence[Row]) -> str:
    """AUROC by kind, against plain clips, and the mean, with other looks among the negatives too."""
    physical, means = _group(rows, "physical"), _group(rows, "mean")
    if not means:
        return ""
    kinds, body = _unique(physical, "kind"), []
    found = {(row["task"], row["scorer"], row["kind"]): row for row in physical}
    for mean in means:
        line = [html.escape(f"{mean['task']}, {mean['scorer']}")]
        for kind in kinds:
            row = found.get((mean["task"], mean["scorer"], kind))
            title = "" if row is None else f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f}, n = {row['n']}"
            line.append("–" if row is None else f'<span title="{title}">{row["auroc"]:.3f}</span>')
        body.append([*line, f"<b>{mean['auroc']:.3f}</b>", f"{mean['auroc_with_looks']:.3f}"])
    told = "Chance that an impossible clip has more energy than a possible one (AUROC; hover for 95 % intervals)."
    return f"<p>{told}</p>" + _table(["", *kinds, "mean", "mean, other looks among the possible"], body)


def _caught(rows: Sequence[Row]) -> str:
    """All that is measured of every kind: how well it is told, how often it is caught, and how late."""
    physical = _group(rows, "physical")
    if not physical:
        return ""
    body = []
    for row in physical:
        low, high = row["at_0.01"], row["at_0.05"]
        # At 5 % more is caught, and late ones too: the delay goes with that rate.
        delay = "–" if (late := high["delay_median_p90"]) is None else f"{late[0]:.0f} ({late[1]:.0f})"
        named = [html.escape(f"{row['task']}, {row['scorer']}"), html.escape(row["kind"])]
        shares = [f"{100 * one['flagged'] / one['of']:.0f} %" for one in (low, high)]
        body.append([*named, f"{row['auroc']:.3f}", f"{row['ap']:.3f}", f"{row['ap_with_looks']:.3f}", *shares, delay])
    head = ["", "kind", "AUROC", "average precision", "other looks among the possible", "caught at 1 %", "at 5 %"]
    table = _table([*head, "steps until then: median (90 %)"], body)
    told = "Every kind: average precision, how many are caught at 1 and 5 % false alarms, and how late"
    return f"<details><summary>{told}</summary>{table}</details>"


def _goals(rows: Sequence[Row]) -> str:
    """Every goal of every task, met or missed."""
    body, found = [], _group(rows, "goals")
    if not found:
        return ""
    for row in found:
        cells = []
        for name in ("teleport", "wall", "mean", "looks"):
            if (one := row["goals"].get(name)) is None:
                cells.append("–")
                continue
            word = "met" if one["met"] else "missed"
            shown = f"{one['found']:.1%}" if name == "looks" else f"{one['found']:.3f}"
            cells.append(f'<span class="{word}">{shown} {word}</span>')
        body.append([html.escape(f"{row['task']}, {row['scorer']}"), *cells])
    head = ["goals", "teleport ≥ 0.98", "wall ≥ 0.98", "mean ≥ 0.95", "other looks called impossible ≤ 5 %"]
    return _table(head, body)


def _alarms(rows: Sequence[Row]) -> str:
    """Share of clips flagged at 1 % false alarms: of what is impossible, and of what only looks otherwise."""
    from matplotlib.figure import Figure

    chosen = [row for row in rows if row["group"] in ("physical", "possible") and row["kind"] != "looks"]
    if not chosen:
        return ""
    tasks, kinds = _unique(chosen, "task"), _unique(chosen, "kind")
    physical = [kind for kind in kinds if any(r["kind"] == kind and r["group"] == "physical" for r in chosen)]
    kinds = physical + [kind for kind in kinds if kind not in physical]
    scorers = _unique(chosen, "scorer")
    figure = Figure(figsize=(2.2 + 2.1 * len(tasks), 0.9 + 0.24 * len(kinds)), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        panel.axhspan(-0.5, len(physical) - 0.5, color=GOOD, alpha=0.08, linewidth=0)
        for row in (row for row in chosen if row["task"] == task):
            rate, place = row["at_0.01"], kinds.index(row["kind"])
            colour, step = scorers.index(row["scorer"]), min(0.16, 0.9 / len(scorers))  # rows are one apart
            shift = step * (colour - (len(scorers) - 1) / 2)
            low, high = (100 * end for end in rate["interval"])
            panel.plot([low, high], [place + shift] * 2, color=COLOURS[colour % 6], linewidth=1)
            share = 100 * rate["flagged"] / max(rate["of"], 1)
            panel.plot(share, place + shift, "o", color=COLOURS[colour % 6], markersize=3.5, label=row["scorer"])
        panel.set(title=task, xlim=(-3, 103), xlabel="flagged, %")
    panels[0].set_yticks(range(len(kinds)), kinds)
    panels[0].set_ylim(len(kinds) - 0.5, -0.5)
    handles = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if len(scorers) > 1:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    told = "Clips flagged where 1 % of plain clips may be: above (shaded) impossible ones, below possible ones."
    return f"<p>{told}</p>" + _svg(figure, "share of clips flagged, by kind and task")


def _traces(rows: Sequence[Row]) -> str:
    """Energy over time of one clip of each kind."""
    from matplotlib.figure import Figure

    chosen = [row for row in _group(rows, "traces") if row["scorer"] == "jepa"]
    if not chosen:
        return ""
    kinds = list(dict.fromkeys(kind for row in chosen for kind in row["traces"]))
    figure = Figure(figsize=(1.6 * len(kinds), 0.6 + 1.15 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), len(kinds), squeeze=False, sharex=True, sharey="row")
    for line, row in zip(panels, chosen, strict=True):
        for panel, kind in zip(line, kinds, strict=True):
            if kind not in row["traces"]:
                panel.set_axis_off()
                continue
            one = row["traces"][kind]
            panel.plot(np.array(one["energy"], float), color=COLOURS[0], linewidth=1)
            panel.axhline(row["thresholds"]["0.01"], color=BAD, linewidth=0.8, linestyle=(0, (4, 3)))
            if kind != "plain":
                panel.axvline(one["event"], color=DIM, linewidth=0.8)
            panel.set_yscale("log")
            panel.tick_params(labelsize=7)
        line[0].set_ylabel(row["task"])
    for panel, kind in zip(panels[0], kinds, strict=True):
        panel.set_title(kind, fontsize=8)
    told = "Prediction energy over the steps of a clip; upright the event, dashed the threshold (1 % of plain clips)."
    return f"<p>{told}</p>" + _svg(figure, "energy over time of one clip of each kind")


def _success(rows: Sequence[Row]) -> str:
    """Reliability of success as foretold from the final energy."""
    from matplotlib.figure import Figure

    chosen = _group(rows, "success")
    if not chosen:
        return ""
    figure = Figure(figsize=(2.1 * len(chosen) + 0.6, 2.5), layout="constrained")
    panels = figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0]
    for panel, row in zip(panels, chosen, strict=True):
        panel.plot([0, 1], [0, 1], color=DIM, linewidth=0.8)
        for one in row["bins"]:
            size = 3 + 9 * (one["n"] / row["n"]) ** 0.5
            panel.plot(one["predicted"], one["observed"], "o", color=COLOURS[0], markersize=size, alpha=0.8)
        panel.set_title(f"{row['task']}: {row['ece']:.3f} {'met' if row['met'] else 'missed'}", fontsize=8)
        panel.set(xlabel="said", xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), aspect="equal")
    panels[0].set_ylabel("seen")
    perfect = ", ".join(f"{row['task']} {row['ece_if_perfect']:.3f}" for row in chosen)
    told = (
        "Chance of success read off the final energy (isotonic, fitted on other episodes) against what happened; above"
        " each the expected calibration error, goal 0.05, which chance alone makes larger: perfect forecasts would"
        f" show, with as few episodes, {perfect} in the mean."
    )
    return f"<p>{html.escape(told)}</p>" + _svg(figure, "reliability of foretold success")


def _forks(rows: Sequence[Row]) -> str:
    """Energies of the futures at a fork."""
    from matplotlib.figure import Figure

    chosen = _group(rows, "fork")
    if not chosen:
        return ""
    figure = Figure(figsize=(2.6 * len(chosen), 2.1), layout="constrained")
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    for panel, row in zip(panels, chosen, strict=True):
        for place, (kind, colour) in enumerate({"mode": GOOD, "wall": BAD, "ghost": OTHER}.items()):
            low, middle, high = row["energies"][kind]
            panel.plot([low, high], [place, place], color=colour, linewidth=2)
            panel.plot(middle, place, "o", color=colour, markersize=6)
        panel.set_yticks(range(3), ["either way", "into the wall", "mean picture"] if panel is panels[0] else [""] * 3)
        panel.set(ylim=(2.5, -0.5), xlabel="energy", xlim=(0, None))
        told = f"{row['scorer']}\nwall {row['auroc_wall']:.2f}, mean picture {row['auroc_ghost']:.2f}"
        panel.set_title(told, fontsize=8)
    told = (
        f"{chosen[0]['n']} places of PointMaze with more than one way out, and nobody says which is taken: energy of"
        " each way, of walking into a wall, and of the mean of the pictures, which nobody will ever see (median, 10 to"
        " 90 %). Above each the chance that the wall, and that the mean picture, has more energy than a way (AUROC)."
    )
    return f"<p>{html.escape(told)}</p>" + _svg(figure, "energies at forks")


def _svg(figure: Any, label: str) -> str:
    """A figure as inline SVG, in the colour of the text around it."""
    import matplotlib

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(DIM)
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace("#000000", "currentColor")
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" fill="currentColor" ', 1)
