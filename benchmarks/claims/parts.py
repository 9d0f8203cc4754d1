"""The parts of what is measured, and which of them go side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Literal

import torch

from . import belief, cost, expectation, noise, quality
from .rows import Rows

Part = Literal["quality", "noise", "cost", "energy", "belief"]
PARTS: dict[Part, Callable[[bool, Rows, Sequence[str]], None]] = {
    "quality": quality.run,
    "noise": noise.run,
    "cost": cost.run,
    "energy": expectation.run,
    "belief": belief.run,
}

LANES: tuple[tuple[Part, ...], ...] = (("noise",), ("quality", "energy", "belief"))
"""Parts that are measured side by side, a process each. Cost is not among them: its times want a machine to itself."""


def measure(parts: tuple[Part, ...], tasks: Sequence[str], quick: bool, out: Path, fresh: bool) -> None:
    """Measures some parts, with rivals on some tasks, in turn and on one thread: another process may measure too."""
    torch.set_num_threads(1)
    rows = Rows(out, fresh)
    for part in parts:
        PARTS[part](quick, rows, tasks)


def end_with_parent() -> None:
    """Has this process end as soon as the one that started it does, however that ended; else it would measure on."""
    if (parent := parent_process()) is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
