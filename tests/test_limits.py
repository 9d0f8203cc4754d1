"""The simulator in the predictor's place: what it foresees is what the encoder sees when that is done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from toys import SIZE, toy_checkpoint

from benchmarks import limits
from planner import checkpoint
from planner.errors import BadInput
from planner.tasks import load_envs
from planner.types import Context


def test_its_futures_are_what_the_encoder_sees_afterwards(tmp_path: Path) -> None:
    model = checkpoint.load(toy_checkpoint(tmp_path / "toy")).model
    env, canvas = (load_envs().make("TwoRoom", size=SIZE) for _ in range(2))
    world = limits.Simulated(env, canvas, model)
    start = env.sample_state(np.random.default_rng(0))
    states = torch.from_numpy(np.stack([start] * model.history))[None]
    seen = world.encode(TensorDict({"state": states}, batch_size=states.shape[:2]))
    plans = torch.rand(1, 3, 2, model.action.dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
    done = torch.zeros(1, model.history - 1, model.action.dim)
    with torch.no_grad():
        foreseen = world.rollout(Context(seen, done), plans)["latent"]
        for plan, latents in zip(plans[0], foreseen[0], strict=True):
            env.set_state(start)
            for block, latent in zip(model.action.decode(plan), latents, strict=True):
                for action in block.double().numpy():
                    env.advance(action)
                torch.testing.assert_close(model.embed(torch.from_numpy(env.picture().copy())[None])[0], latent)
    env.close()


def test_what_an_untrained_predictor_misses_is_tried_again(tmp_path: Path) -> None:
    """The toy knows nothing, so it misses; a row says which pairs, and the simulator gets its settings and no more."""
    toy_checkpoint(tmp_path / "toy")
    out = tmp_path / "rows.jsonl"
    limits.main(limits.Options("TwoRoom", tmp_path / "toy", episodes=3, samples=4, out=out))
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert set(row["reached_simulated"]) <= set(row["missed"]) <= {0, 1, 2} and row["missed"]
    assert row["simulated"] == row["planner"] | {"samples": 4, "replan": 0}


def test_a_stranger_s_simulator_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_checkpoint(tmp_path / "toy")
    monkeypatch.setattr("envs.two_room.TwoRoom.simulates", False)
    with pytest.raises(BadInput, match="its simulator cannot rehearse"):
        limits.measure(limits.Options("TwoRoom", tmp_path / "toy"))
