"""Small things that several tests share: a world of one dot, a dataset of it, a JEPA and a checkpoint of no weight."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from planner import checkpoint
from planner.actions import ActionSpec
from planner.data import DatasetInfo, EpisodeStore
from planner.models.encoders import ENCODERS
from planner.models.jepa import JEPA, JEPAConfig
from planner.settings import PlannerConfig, TrainConfig
from planner.symmetry import Symmetry

SIZE = 32
MIRROR = Symmetry(0, True, np.diag([-1.0, 1]), states=np.diag([-1.0, 1, 1]), shift=np.array([1.0, 0, 0]))
"""Left and right of the dot's world change places."""
SPEC = ActionSpec((-1.2, -1.2), (1.2, 1.2), ("m/s", "m/s"), 5)
"""TwoRoom's, so that a toy checkpoint is one of TwoRoom."""

SHAPE = JEPAConfig(image_size=SIZE, width=8, latent_dim=8, history=2, hidden=16, depth=1)
TRAINING = TrainConfig(steps=24, batch=8, horizon=2, sigreg_directions=16, held_out=0.25, save_every=10)
PLANNER = PlannerConfig(samples=8, iterations=1, horizon=2)


def info(**changes: Any) -> DatasetInfo:
    """What the dataset of `dot_store` says of itself, but for `changes`."""
    facts: dict[str, Any] = {
        "task": "TwoRoom",
        "episodes": 6,
        "steps": 30,
        "size": SIZE,
        "state_names": ("x", "y", "heading"),
        "state_units": ("m", "m", "rad"),
        "seed": 0,
        "renderer": "none",
        "versions": {},
        "action_low": SPEC.low,
        "action_high": SPEC.high,
        "action_units": SPEC.units,
        "block": SPEC.block,
    }
    return DatasetInfo(**facts | changes)


def dot_episode(facts: DatasetInfo, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright square that moves as the actions say, in the unit square: pixels, actions, states."""
    rng = np.random.default_rng([facts.seed, row])
    actions = rng.uniform(facts.action_low, facts.action_high, (facts.steps, len(facts.action_low)))
    walk = np.vstack([rng.uniform(0.2, 0.8, 2), 0.05 * actions]).cumsum(0)
    states = np.column_stack([np.abs((walk + 1) % 2 - 1), np.linspace(0, 3, facts.steps + 1)])
    pixels = np.zeros((facts.steps + 1, facts.size, facts.size, 3), np.uint8)
    for picture, (x, y) in zip(pixels, (states[:, :2] * (facts.size - 8)).astype(int), strict=True):
        picture[y : y + 8, x : x + 8] = 255
    return pixels, actions, states


def dot_store(path: Path, **changes: Any) -> EpisodeStore:
    """A finished dataset of the dot."""
    store = EpisodeStore.create(path, info(**changes))
    for row in range(store.info.episodes):
        store.write(row, *dot_episode(store.info, row))
    return store


def toy_model(seed: int = 0, shape: JEPAConfig = SHAPE) -> JEPA:
    """A JEPA with random weights and settled statistics, in evaluation mode."""
    model, generator = _settled(seed, shape, ENCODERS[shape.encoder])
    torch.set_rng_state(generator)
    return copy.deepcopy(model)


@functools.cache
def _settled(seed: int, shape: JEPAConfig, encoder: Any) -> tuple[JEPA, Tensor]:
    """The model, which nobody may change, and where chance stands after it: to settle a transformer takes seconds.

    `encoder` is what the shape's name stands for, which tests change.
    """
    torch.manual_seed(seed)
    model = JEPA(shape, SPEC)
    size = shape.image_size
    with torch.no_grad():
        for _ in range(20):
            model.embed(torch.randint(256, (16, size, size, 3), dtype=torch.uint8))
    return model.eval().requires_grad_(False), torch.get_rng_state()


def toy_checkpoint(path: Path, task: str = "TwoRoom", shape: JEPAConfig = SHAPE) -> Path:
    """A checkpoint folder with random weights."""
    checkpoint.save(path, toy_model(shape=shape), task=task, renderer="none", planner=PLANNER, card=f"# {task}\n")
    return path


def flip_byte(file: Path, position: int) -> None:
    """Changes one byte of a file."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def cut_and_resumed(monkeypatch: Any, kind: Any, learn: Callable[[], Any]) -> tuple[list[int], Any]:
    """Cuts the power at update 8 of a training of that `kind`, and learns again: the updates then done, and what came.

    Args:
        monkeypatch: pytest's.
        kind: the Lightning module whose `training_step` is cut.
        learn: trains, and resumes where it stopped.
    """
    honest = kind.training_step

    def cut(self: Any, *given: Any) -> Any:
        if self.global_step == 8:
            raise RuntimeError("power cut")
        return honest(self, *given)

    monkeypatch.setattr(kind, "training_step", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        learn()
    steps: list[int] = []

    def noted(self: Any, *given: Any) -> Any:
        steps.append(self.global_step)
        return honest(self, *given)

    monkeypatch.setattr(kind, "training_step", noted)
    return steps, learn()
