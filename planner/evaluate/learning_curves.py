"""How a training went, as a picture: `curves.png` beside its logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..cards import curves

LOSS, READ = "loss terms", "held out: R2 of probes, goals reached"
PANELS: dict[str, Callable[[str], bool]] = {
    LOSS: lambda name: name.startswith("train/"),
    "held out: error, relative to no change": lambda name: name.startswith("val/error"),
    READ: lambda name: name.startswith("probe/") or name == "val/success",
    "held out: all else": lambda name: name.startswith("val/"),
}
"""What is drawn together: a figure goes into the first panel that takes it, and panels without any are left out."""


def draw(out: Path) -> Path | None:
    """Draws all that a training logged in the folder `out` into `out/curves.png`, over its updates.

    Returns:
        The picture's path; None where nothing was logged yet.
    """
    from matplotlib.figure import Figure

    found = sorted(curves(out, ("train/", "val/", "probe/")).items())
    names = list(dict.fromkeys(name for _, figures in found for name in figures if not name.endswith("_speed")))
    panels: dict[str, list[str]] = {}
    for name in names:
        title = next(title for title, takes in PANELS.items() if takes(name))
        panels.setdefault(title, []).append(name)
    if not panels:
        return None
    shown = [title for title in PANELS if title in panels]
    figure = Figure(figsize=(5.2 * len(shown), 3.8), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for name in panels[title]:
            points = [(step, figures[name]) for step, figures in found if name in figures]
            label = name.partition("/")[2]
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1, marker="." if len(points) < 40 else "")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("updates")
        axes.spines[["top", "right"]].set_visible(False)
        if title == LOSS:
            axes.set_yscale("symlog", linthresh=1e-3)
        elif title == READ:
            axes.set_ylim(-0.5, 1.03)  # a probe that reads nothing may be far below 0
        many = len(panels[title]) > 9
        axes.legend(frameon=False, fontsize=5 if many else 7, ncols=1 + many)
    figure.savefig(out / "curves.png", dpi=110)
    return out / "curves.png"
