"""The parts of what is measured, and which of them go side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from . import belief, cost, expectation, noise, quality
from .impossible import SCENES
from .rows import Rows

Part = Literal["quality", "noise", "cost", "energy", "belief"]
PARTS: dict[Part, Callable[..., None]] = {
    "quality": quality.run,
    "noise": noise.run,
    "cost": cost.run,
    "energy": expectation.run,
    "belief": belief.run,
}
"""What measures a part on one task, given its name, whether it is a look, and the rows."""

TOGETHER: tuple[Part, ...] = ("noise", "belief", "energy", "quality")
"""Parts that are measured side by side, the longest first. Cost is not among them: its times want the machine."""
RIVALRY: tuple[Part, ...] = ("noise", "quality")
"""Those of them that are about rivals: measured, as cost is, only on tasks where these are asked for."""


def jobs(parts: Sequence[Part], rivals: Sequence[str], quick: bool) -> list[tuple[Part, str]]:
    """Parts and tasks to be measured side by side, each by whoever is free first; long ones come first."""
    judged = tuple(SCENES)[:1] if quick else tuple(SCENES)[::-1]  # the last ones' planners take longest
    return [(part, task) for part in TOGETHER if part in parts for task in (rivals if part in RIVALRY else judged)]


def measure(part: Part, task: str, rivals: Sequence[str], quick: bool, out: Path, fresh: bool) -> None:
    """Measures a part on a task, with rivals if it is among theirs, on one thread: another process may measure too."""
    torch.set_num_threads(1)
    asked = {"rivals": task in rivals} if part == "energy" else {}  # other parts are about rivals alone, or about none
    PARTS[part](task, quick, Rows(out, fresh), **asked)
