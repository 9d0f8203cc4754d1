"""One HTML file that shows what was measured: no other file, no network, light and dark."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .imagination import Imagined

Record = Mapping[str, Any]

SUCCESS, FAILURE, PLANNER, FLOOR = "#2a9d6f", "#d64b63", "#3f7fd6", "#98a2ad"
INK, DIM = "#010203", "#040506"  # stand for the page's own colours inside a chart, and are replaced by them
POLICIES = {"planner": "planner", "oracle": "oracle model", "random": "random", "noop": "do nothing"}


def write_report(
    path: Path,
    results: Sequence[Record],
    episodes: Sequence[Record],
    video: Path | None,
    imagined: Sequence[Imagined] = (),
) -> None:
    """Writes the evaluation as one self-contained HTML file.

    Args:
        path: the file to write; it is replaced only once it is whole.
        results: one a task, as in `results.json`: `task, n, successes, success_rate, interval`, `floors` (`random`,
            `noop`, `oracle`, each such a summary or None), `plan_ms` (`median, p95, p99`), `control_hz`, and the
            settings.
        episodes: one an episode: `task, policy, success, goal_distance` (one a step, in success tolerances: below 1
            is success) and `initial_distance`, in the same unit.
        video: an mp4 to embed, or None.
        imagined: plans to show as film strips, each with the energy around its first action.
    """
    from jinja2 import Environment, StrictUndefined

    from ..data import write_atomically

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        tasks=[
            _task(
                result,
                [episode for episode in episodes if episode["task"] == result["task"]],
                [one for one in imagined if one.task == result["task"]],
            )
            for result in results
        ],
        date=max((str(result.get("date", "")) for result in results), default=""),
        video=base64.b64encode(video.read_bytes()).decode() if video else None,
        success=SUCCESS,
        failure=FAILURE,
        accent=PLANNER,
    )
    write_atomically(path, page)


def _task(result: Record, episodes: Sequence[Record], imagined: Sequence[Imagined]) -> dict[str, Any]:
    """What the template shows of one task, in words and charts."""
    from markupsafe import Markup

    from .scenes import episodes_imagined

    runs = [episode for episode in episodes if episode["policy"] == "planner" and len(episode["goal_distance"])]
    low, high = result["interval"]
    backends = result.get("backend"), result.get("checkpoint_backend")
    return {
        "name": result["task"],
        "successes": result["successes"],
        "n": result["n"],
        "rate": f"{100 * result['success_rate']:.1f}\u00a0%",
        "interval": f"{100 * low:.1f} to {100 * high:.1f}\u00a0%",
        "plan_ms": _number(result["plan_ms"]["median"]),
        "tail_ms": f"{_number(result['plan_ms']['p95'])} / {_number(result['plan_ms']['p99'])}",
        "control_hz": _number(result["control_hz"]),
        "hard": _percent(result.get("hard_score")),
        "floor": _percent(_floor(result)),
        "protocol": result.get("protocol"),
        "smallest": _number(100 * least) if (least := result.get("smallest_difference")) else None,
        "looks": _looks(result, episodes),
        "alarms": alarms_told(result),
        "bars": Markup(_bars(result)),
        "curves": Markup(_curves(runs)) if runs else None,
        "mixed": backends if None not in backends and backends[0] != backends[1] else None,
        "settings": _settings(result),
        "imagined": episodes_imagined(imagined),
        "bank": f"{imagined[0].bank:,}" if imagined else None,
        "block": imagined[0].block if imagined else None,
        "model_step": f"{imagined[0].model_step:.2f}" if imagined else None,
    }


def _floor(result: Record) -> float | None:
    """The better of random actions and doing nothing."""
    rates = [arm["success_rate"] for name in ("random", "noop") if (arm := result.get("floors", {}).get(name))]
    return max(rates, default=None)


def share_of_pixels(arm: Record) -> str:
    """How many pixels a change of appearance changes, in words; results from before it was counted do not say."""
    share = arm.get("changed_pixels")
    if share is None:
        return "–"
    return "<0.1\u00a0%" if 0 < share < 0.0005 else f"{100 * share:.1f}\u00a0%"


def alarms_told(result: Record) -> str | None:
    """What the monitor of surprise said during the planner's episodes, in words; None where nobody watched."""
    if (alarms := result.get("alarms")) is None:
        return None
    counts = " and ".join(f"{alarms.get(name, 0):,} {name}" for name in ("unusual", "impossible"))
    then = {"replan": ", and planned anew", "stop": ", and stopped"}.get(result.get("on_impossible", ""), "")
    steps = f"{alarms['steps']:,} steps"
    if "judged" in alarms:  # results of before it was counted do not say
        steps = f"{alarms['judged']:,} steps that can be judged ({alarms['steps']:,} in all)"
    told = f"of {steps} the monitor of surprise called {counts}{then}"
    if (length := alarms.get("length", math.inf)) < (budget := result.get("budget", 0)):
        told += f"; episodes may last {budget} steps, and its rates hold for up to {length}"
    return told


def _looks(result: Record, episodes: Sequence[Record]) -> list[dict[str, str]]:
    """A row a change of appearance: what was reached, and what was lost and won against plain pictures."""

    def reached(policy: str) -> set[int]:
        return {one["episode"] for one in episodes if one["policy"] == policy and one["success"]}

    rows, plain = [], reached("planner")
    for name, arm in result.get("appearance", {}).items():
        other = reached(f"planner, {name}")
        low, high = (100 * end for end in arm["interval"])
        drop = 100 * (result["success_rate"] - arm["success_rate"])
        rows.append(
            {
                "name": name,
                "changed": share_of_pixels(arm),
                "reached": f"{arm['successes']}/{arm['n']}",
                "interval": f"{low:.0f} to {high:.0f}\u00a0%",
                "drop": f"{drop + 0.0:.1f}",
                "lost": str(len(plain - other)),
                "won": str(len(other - plain)),
            }
        )
    return rows


def _settings(result: Record) -> list[tuple[str, str]]:
    """Everything needed to run the evaluation again."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result.get("versions", {}).items()))
    rows = {
        "distance": {"any": "any", "own": "the benchmark's own goals"}.get(result.get("goals", ""))
        or _unit(result.get("distance"), "environment steps"),
        "budget": _unit(result.get("budget"), "environment steps"),
        "reached means": "half the tolerance, for five steps" if result.get("strict") else "the task's tolerance, once",
        "pairs removed (solved at the start)": result.get("removed_pairs"),
        "pairs ruled out by the task": result.get("ruled_out_pairs"),
        "planner": _told(result.get("planner") or {"optimizer": result.get("optimizer")}),
        "deadline": _unit(result.get("deadline_ms"), "ms"),
        "seed": result.get("seed"),
        "seed of the noise": result.get("noise", result.get("seed")),
        "environments at once": result.get("num_envs"),
        "digest of the pairs (SHA-256)": (result.get("protocol") or {}).get("digest"),
        "rendered by": result.get("backend"),
        "trained on frames of": result.get("checkpoint_backend"),
        "checkpoint SHA-256": result.get("checkpoint_sha256"),
        "commit": result.get("commit"),
        "versions": versions,
        "date": result.get("date"),
    }
    return [(name, "–" if value in (None, "") else str(value)) for name, value in rows.items()]


def _told(planner: Record) -> str:
    """The planner's settings in words, those that say something: `samples 64, iterations 3, ...`."""
    return ", ".join(f"{name} {value}" for name, value in planner.items() if value not in (None, ""))


def _bars(result: Record) -> str:
    """Success of the planner and of what it is compared with, each with its 95 % interval, as SVG."""
    from matplotlib.figure import Figure

    arms = {"planner": result, **result.get("floors", {})}
    shown = [(label, arms[name]) for name, label in POLICIES.items() if arms.get(name)]
    figure = Figure(figsize=(5.4, 0.55 + 0.5 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for row, (label, arm) in enumerate(shown):
        rate, (low, high) = 100 * arm["success_rate"], (100 * end for end in arm["interval"])
        axes.barh(row, rate, height=0.55, color=PLANNER if label == "planner" else FLOOR)
        axes.plot([low, high], [row, row], color=INK, linewidth=1.3, marker="|", markersize=6)
        axes.text(104, row, f"{arm['successes']}/{arm['n']}", va="center", color=INK)
    axes.set(yticks=range(len(shown)), yticklabels=[label for label, _ in shown], xlim=(0, 100), xlabel="success, %")
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    return _svg(figure, "success and 95 % interval of each policy")


def _curves(runs: Sequence[Record]) -> str:
    """Distance to the goal over time, one line an episode of the planner, as SVG."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(5.4, 2.9), layout="constrained")
    axes = figure.subplots()
    alpha = max(0.25, min(0.9, 12 / len(runs)))
    for run in sorted(runs, key=lambda run: not run["success"]):  # failures last, so that nothing hides them
        distance = np.array([run.get("initial_distance", math.nan), *run["goal_distance"]], dtype=np.float64)
        distance = np.where(np.isfinite(distance), distance.clip(1e-2), np.nan)  # a logarithm has no zero
        colour, opacity = (SUCCESS, alpha) if run["success"] else (FAILURE, max(alpha, 0.6))
        axes.plot(distance, color=colour, alpha=opacity, linewidth=0.9)
        axes.plot(len(distance) - 1, distance[-1], "o" if run["success"] else "x", color=colour, markersize=3)
    axes.axhline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(yscale="log", xlabel="environment step", ylabel="distance / tolerance", xlim=(0, None))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return _svg(figure, "distance to the goal at each step, one line an episode")


def _svg(figure: Any, label: str) -> str:
    """A matplotlib figure as inline SVG, in the colour and font of the text around it."""
    import matplotlib

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(DIM)
        axes.tick_params(which="both", colors=DIM)
        axes.xaxis.label.set_color(DIM)
        axes.yaxis.label.set_color(DIM)
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "var(--ink)").replace(DIM, "var(--dim)")
    return drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _number(value: float | None) -> str:
    """Three figures, or a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}\u00a0%"


def _unit(value: Any, unit: str) -> str | None:
    return None if value is None else f"{value} {unit}"
