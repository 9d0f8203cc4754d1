"""What the camera sees is what it saw when the weights were trained: frames kept as files, one strip a task.

A simulator or a scene that draws otherwise takes goals from every checkpoint without failing anywhere else, since all
renderers of one machine would change alike. `python tests/test_frames.py` draws the strips anew, where a scene was
changed on purpose; look at them before they are committed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import envs

FRAMES = Path(__file__).parent / "frames"
STATES: dict[str, list[list[float]]] = json.loads((FRAMES / "states.json").read_text())
"""Four states of every task, written down so that no random number decides what is drawn."""


def strip(task: str, backend: str | None, paint: float = 1.0, away: float = 1.0) -> np.ndarray:
    """The task's states side by side, `[64, 256, 3]`; colours `paint` times as bright, the camera `away` times
    as far from the origin as they are."""
    with envs.TASKS[task](backend=backend) as env:
        env.model.geom_rgba[:, :3] *= paint
        env.model.cam_pos *= away
        return np.concatenate([env.picture(np.array(state)) for state in STATES[task]], axis=1)


def off(task: str, seen: np.ndarray) -> float:
    """Share of pixels that differ from what is kept by more than the renderers do among each other (8 of 255)."""
    kept = np.asarray(Image.open(FRAMES / f"{task}.png")).astype(int)
    return float((np.abs(seen.astype(int) - kept).max(-1) > 8).mean())


@pytest.mark.parametrize("backend", [None, "rays"], ids=["own", "rays"])
@pytest.mark.parametrize("task", envs.TASKS)
def test_the_camera_sees_what_it_saw(task: str, backend: str | None) -> None:
    assert off(task, strip(task, backend)) < 0.005, f"{task} looks different; see the top of this file"


@pytest.mark.parametrize("fault", [{"paint": 0.95}, {"away": 1.02}], ids=["paint", "away"])
@pytest.mark.parametrize("task", envs.TASKS)
def test_a_small_change_would_be_told(task: str, fault: dict[str, float]) -> None:
    assert off(task, strip(task, "rays", **fault)) > 0.005


if __name__ == "__main__":
    for name in envs.TASKS:
        Image.fromarray(strip(name, "rays")).save(FRAMES / f"{name}.png")
