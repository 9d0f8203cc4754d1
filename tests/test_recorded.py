"""A robot without a simulator, tried in one: at toy size, from files of a wide camera to a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from benchmarks import recorded
from planner import checkpoint
from planner.data import EpisodeStore
from planner.pictures import fit
from planner.recordings import takes


def test_from_files_to_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "LENGTHS", (35, 62))
    options = recorded.Options(files=2, episodes=2, steps=1, pairs=2, folder=tmp_path, out=tmp_path / "rows.jsonl")
    recorded.main(options)
    (row,) = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row[who]["n"] for who in ("random", "noop", "planner")] == [2, 2, 2]
    assert row["noop"]["successes"] == 0 and row["episodes"] == 4
    loaded = checkpoint.load(tmp_path / "tworoom/checkpoint", task="recorded/tworoom")
    assert loaded.sha256 == row["checkpoint_sha256"]
    store = EpisodeStore.open(tmp_path / "tworoom/data")
    with np.load(tmp_path / "tworoom/log000.npz") as file:
        assert file["observations"].shape[1:] == (*recorded.WIDE, 3) and file["terminals"].sum() == 2
        first = next(take.first for take in takes(tmp_path / "tworoom/log000.npz") if take.pieces(store.info.steps))
        assert np.array_equal(store.data["pixels"][0, 7].numpy(), fit(file["observations"][first + 7], 64))


def test_a_planner_sees_through_the_camera_what_its_dataset_has() -> None:
    """The borders are cut off again, and the rest is halved."""

    class Kept:
        def reset(self, obs: TensorDict, goal: TensorDict, mask: object = None) -> None:
            self.seen = obs["pixels"]

        def act(self, obs: TensorDict) -> np.ndarray:
            self.seen = obs["pixels"]
            return np.zeros((1, 2))

    policy = Kept()
    picture = torch.full((1, recorded.WIDE[0], recorded.WIDE[0], 3), 7, dtype=torch.uint8)
    picture[:, ::2] = 9
    recorded.Seeing(policy, 64).act(TensorDict({"pixels": picture}, batch_size=[1]))
    assert policy.seen.shape == (1, 64, 64, 3) and (policy.seen == 8).all()
