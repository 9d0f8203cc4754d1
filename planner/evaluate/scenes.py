"""Film strips of what was imagined, and energy landscapes, as pieces of a page: pictures inline, no script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..pictures import png

if TYPE_CHECKING:
    from .imagination import Imagined, Landscape

SIDE, LEFT, TOP, BAR = 200, 46, 8, 12  # px of a landscape: its side, the room for labels, and the bar of colours


def episodes_imagined(imagined: Iterable[Imagined]) -> list[dict[str, Any]]:
    """What the template shows: one entry an episode, with its plans in the order given."""
    found: dict[int, dict[str, Any]] = {}
    for one in imagined:
        outcome = "reached" if one.success else "not reached"
        entry = found.setdefault(
            one.episode, {"number": one.episode, "outcome": outcome, "success": one.success, "plans": []}
        )
        entry["plans"].append(_plan(one))
    return list(found.values())


def _plan(one: Imagined) -> dict[str, Any]:
    steps = range(1, len(one.nearest) + 1)
    cells = [_cell(frame, far) for frame, far in zip(one.nearest, one.distance, strict=True)]
    came = [_cell(frame, far) for frame, far in zip(one.happened, one.off, strict=True)]
    lowest = np.nanmin(one.landscape.energies, initial=np.inf)
    return {
        "step": one.step,
        "times": [f"+{one.block * step}" for step in steps],
        "now": picture(one.now),
        "goal": picture(one.goal),
        "imagined": cells,
        "happened": came + [None] * (len(cells) - len(came)),
        "landscape": landscape_svg(one.landscape),
        "held": one.landscape.held,
        "energy": f"{one.landscape.energy:.3g}",
        "lowest": f"{lowest:.3g}",
        "dims": one.landscape.dims,
        "axes": len(one.landscape.axes),
        "marks": len(one.landscape.candidates),
    }


def _cell(frame: NDArray[np.uint8], far: float) -> dict[str, str]:
    return {"picture": picture(frame), "far": f"{far:.2f}"}


def picture(pixels: NDArray[np.uint8]) -> str:
    """Pixels `[h, w, 3 or 4]` as the address of a picture that holds itself."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def landscape_svg(scene: Landscape) -> Any:
    """The energies as a map (a row of them where one dimension varies), low ones dark, as inline SVG."""
    from markupsafe import Markup

    flat = scene.energies.ndim == 1
    values = scene.energies[:, None] if flat else scene.energies
    low, high = np.nanquantile(values, [0, 1]) if np.isfinite(values).any() else (0.0, 1.0)
    shades = _shades((values - low) / ((high - low) or 1.0))
    width, height = LEFT + SIDE + 8, TOP + SIDE + 76
    inside = f'x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}"'
    parts = [
        f'<image {inside} preserveAspectRatio="none" href="{picture(shades.swapaxes(0, 1)[::-1])}"/>',
        *(_mark(scene, point, "candidate") for point in scene.candidates),
        _mark(scene, scene.chosen, "chosen"),
        *_labels(scene),
        f'<image x="{LEFT}" y="{TOP + SIDE + 44}" width="{SIDE}" height="{BAR}" preserveAspectRatio="none" '
        f'href="{picture(_shades(np.linspace(0, 1, 64)[None]))}"/>',
        _text(LEFT, TOP + SIDE + 72, f"{low:.3g}", "start"),
        _text(LEFT + SIDE / 2, TOP + SIDE + 72, "energy"),
        _text(LEFT + SIDE, TOP + SIDE + 72, f"{high:.3g}", "end"),
    ]
    label = "energy over the first action of the plan"
    head = f'<svg class="landscape" role="img" aria-label="{label}" viewBox="0 0 {width} {height}">'
    return Markup(head + "".join(parts) + "</svg>")


def _labels(scene: Landscape) -> list[str]:
    """Names, units and ends of the axes."""
    bottom = TOP + SIDE
    found = [
        _text(LEFT, bottom + 15, f"{scene.low[0]:g}", "start"),
        _text(LEFT + SIDE, bottom + 15, f"{scene.high[0]:g}", "end"),
        _text(LEFT + SIDE / 2, bottom + 30, f"action {scene.axes[0] + 1}, {scene.units[0]}"),
    ]
    if len(scene.axes) > 1:
        name = f"action {scene.axes[1] + 1}, {scene.units[1]}"
        turn = f'transform="rotate(-90 14 {TOP + SIDE / 2})"'
        found += [
            _text(LEFT - 5, bottom, f"{scene.low[1]:g}", "end"),
            _text(LEFT - 5, TOP + 10, f"{scene.high[1]:g}", "end"),
            _text(14, TOP + SIDE / 2, name, turn=turn),
        ]
    return found


def _text(x: float, y: float, words: str, anchor: str = "middle", turn: str = "") -> str:
    from markupsafe import escape

    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" {turn}>{escape(words)}</text>'


def _mark(scene: Landscape, point: Sequence[float], kind: str) -> str:
    ends = list(zip(point, scene.low, scene.high, strict=True))
    x, y = (*((value - low) / (high - low) for value, low, high in ends), 0.5)[:2]
    at = f'cx="{LEFT + SIDE * x:.1f}" cy="{TOP + SIDE * (1 - y):.1f}"'
    return f'<circle class="{kind}" {at} r="{2 if kind == "candidate" else 7}"/>'


def _shades(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Shares of the range `[h, w]` to colours `[h, w, 4]`; clear where there is none."""
    from matplotlib import colormaps

    return np.asarray(colormaps["viridis"](np.ma.masked_invalid(share), bytes=True)) * np.isfinite(share)[
        ..., None
    ].astype(np.uint8)
