"""Errors of predictions on a toy whose future is known: the brightness of a picture is the sum of what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from toys import PLANNER, toy_checkpoint, toy_model

from benchmarks import foresight
from planner import checkpoint
from planner.actions import ActionSpec
from planner.collect import Pursuit, collect
from planner.data import DatasetInfo, EpisodeStore
from planner.errors import BadInput
from planner.types import Context

BLOCK = 2


class Sum:
    """Foresees `share` of every change of brightness."""

    history = 2
    action = ActionSpec((-1.0,), (1.0,), ("1",), BLOCK)

    def __init__(self, share: float) -> None:
        self.share = share

    def encode(self, obs: TensorDict) -> TensorDict:
        bright = obs["pixels"].double().mean((-1, -2, -3)).unsqueeze(-1)
        return TensorDict({"latent": bright}, batch_size=obs.batch_size)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        changes = actions.double().sum(-1, keepdim=True).cumsum(2)
        latent = context.latent["latent"][:, -1:, None] + self.share * changes
        return TensorDict({"latent": latent}, batch_size=latent.shape[:3])


@pytest.fixture
def brightness(tmp_path: Path) -> EpisodeStore:
    """Six episodes of 16 steps that go up or down by 1 in each, from 100."""
    facts = {"task": "Sum", "episodes": 6, "steps": 16, "size": 4, "state_names": ("x",), "state_units": ("1",)}
    bounds = {"action_low": (-1.0,), "action_high": (1.0,), "action_units": ("1",), "block": BLOCK}
    store = EpisodeStore.create(
        tmp_path,
        DatasetInfo(**facts, seed=0, renderer="none", versions={}, **bounds),  # type: ignore[arg-type]
    )
    rng = np.random.default_rng(0)
    for row in range(6):
        actions = rng.choice([-1.0, 1.0], size=(16, 1), p=[0.3, 0.7])
        state = 100 + np.concatenate([[0], actions[:, 0].cumsum()])
        pixels = np.broadcast_to(state[:, None, None, None], (17, 4, 4, 3)).astype(np.uint8)
        store.write(row, pixels, actions, state[:, None])
    return store


@pytest.mark.parametrize(("share", "error"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])
def test_errors_are_relative_to_no_change(brightness: EpisodeStore, share: float, error: float) -> None:
    assert foresight.errors(Sum(share), brightness, 3, 40, batch=20) == pytest.approx([error] * 3)


def test_a_row_a_checkpoint_and_dataset(tmp_path: Path) -> None:
    toy_checkpoint(tmp_path / "toy")
    size = json.loads((tmp_path / "toy/config.json").read_text())["model"]["image_size"]
    facts: dict[str, Any] = {"episodes": 2, "steps": 30, "size": size, "seed": 3, "workers": 1}
    collect("TwoRoom", tmp_path / "play", **facts)
    collect("TwoRoom", tmp_path / "own", **facts, checkpoint=tmp_path / "toy", pursuit=Pursuit(replan=10))
    checkpoint.save(tmp_path / "other", toy_model(5), task="TwoRoom", renderer="none", planner=PLANNER, card="")
    data, models = (tmp_path / "play", tmp_path / "own"), (tmp_path / "toy", tmp_path / "other")
    options = foresight.Options("TwoRoom", data, models, steps=2, windows=100, out=tmp_path / "rows.jsonl")
    foresight.main(options)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    assert [row["data"].split()[0] for row in rows] == ["play", "planner"] * 2
    shas = [checkpoint.load(model).sha256 for model in models]
    assert [row["checkpoint_sha256"] for row in rows] == [shas[0], shas[0], shas[1], shas[1]]
    assert rows[0]["errors"] != rows[2]["errors"]
    assert all(len(row["errors"]) == 2 and torch.tensor(row["errors"]).isfinite().all() for row in rows)
    assert [row["windows"] for row in rows] == [100] * 4
    with pytest.raises(BadInput, match="is of another task"):
        foresight.main(foresight.Options("PushT", data))
    facts = json.loads((tmp_path / "own/dataset.json").read_text())
    (tmp_path / "own/dataset.json").write_text(json.dumps(facts | {"block": 3}))
    with pytest.raises(BadInput, match="does not fit the model"):
        foresight.main(options)
    assert len(options.out.read_text().splitlines()) == 4  # not even the rows of what fits
