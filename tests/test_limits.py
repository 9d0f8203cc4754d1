"""The simulator in the predictor's place: what it foresees is what the encoder sees when that is done."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from toys import PLANNER, SHAPE, SIZE, toy_checkpoint, toy_model

from benchmarks import limits
from planner import checkpoint
from planner.errors import BadInput
from planner.evaluate.protocol import held_out_pairs, play_pairs
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
    assert set(row["reached_again"]) <= set(row["missed"])
    assert row["simulated"] == row["planner"] | {"samples": 4, "replan": 0}
    for wrong in ({"samples": 0}, {"episodes": 0}, {"distance": 0}):
        with pytest.raises(BadInput, match="episodes, distance or samples is off"):
            limits.measure(replace(limits.Options("TwoRoom", tmp_path / "toy"), **wrong))


def test_what_is_missed_is_tried_by_the_right_planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins that reach even pairs, all that are left, and none: each list is that of its own planner."""
    toy_checkpoint(tmp_path / "toy")
    honest = limits.planners

    def play(envs: Any, planner: Any, pairs: Any, budget: int, *, privileged: bool, progress: Any) -> Any:
        asked.append((privileged, planner.seed, len(pairs)))
        return [SimpleNamespace(success=k % 2 == 0 if planner is known[0] else privileged) for k in range(len(pairs))]

    def planners(*given: Any) -> Any:
        known[:] = honest(*given)
        return tuple(known)

    asked: list[Any] = []
    known: list[Any] = []
    monkeypatch.setattr("benchmarks.limits.play_pairs", play)
    monkeypatch.setattr("benchmarks.limits.planners", planners)
    row = limits.measure(limits.Options("TwoRoom", tmp_path / "toy", episodes=5))
    assert (row["missed"], row["reached_simulated"], row["reached_again"]) == ([1, 3], [1, 3], [])
    assert asked == [(False, 0, 5), (True, 0, 2), (False, limits.OTHER_SEED, 2)]


def test_the_simulated_planner_has_the_prior_of_the_other(tmp_path: Path) -> None:
    """Without its proposals it would search for itself, and what it misses would be the search's."""
    shape = replace(SHAPE, prior=8, prior_horizon=2)
    checkpoint.save(
        tmp_path / "toy",
        toy_model(shape=shape),
        task="TwoRoom",
        renderer="none",
        planner=replace(PLANNER, proposals=3),
        card="# TwoRoom\n",
    )
    loaded = checkpoint.load(tmp_path / "toy")
    with load_envs().make("TwoRoom", size=SIZE) as env, load_envs().make("TwoRoom", size=SIZE) as canvas:
        known, exact, alike = limits.planners(loaded, env, canvas, None)
        assert exact.prior is known.prior is not None and alike.proposals == 3
        (pair,) = held_out_pairs(env, 1, 5, 0).pairs
        assert len(play_pairs([env], exact, [pair], 10, privileged=True)) == 1


def test_a_stranger_s_simulator_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_checkpoint(tmp_path / "toy")
    monkeypatch.setattr("envs.two_room.TwoRoom.simulates", False)
    with pytest.raises(BadInput, match="its simulator cannot rehearse"):
        limits.measure(limits.Options("TwoRoom", tmp_path / "toy"))
