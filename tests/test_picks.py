"""Plans that are carried out to tell how well they were picked, on the real task."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from toys import PLANNER, SHAPE, toy_model

from benchmarks.picks import Options, Picking, main, summary
from planner import checkpoint
from planner.errors import BadInput
from planner.evaluate.protocol import held_out_pairs, play_pairs
from planner.mpc import MPC
from planner.tasks import load_envs


def picking(task: str, others: int = 3) -> tuple[Any, Picking]:
    """An environment, and what plans in it and carries plans out in another."""
    envs = load_envs()
    loaded = checkpoint.load(checkpoint.find(task, None), task=task)
    return envs.make(task), Picking(loaded.planner.build(loaded.model, 0), envs.make(task), others, 1)


def test_the_summary_by_hand() -> None:
    """Two looks, the chosen plan first; in the second the others are all imagined alike."""
    imagined = np.array([[1.0, 2.0, 3.0], [0.0, 5.0, 5.0]])
    true = np.array([[4.0, 6.0, 7.0], [2.0, 8.0, 6.0]])
    assert summary(np.stack([imagined, true], 1)) == {
        "looks": 2,
        "chosen": 3.0,
        "mean": 6.75,
        "picked": 7.0,
        "best": 6.0,
        "optimism_chosen": 2.5,
        "optimism_mean": 3.0,
        "correlation": 0.5,
    }


def noting(planner: MPC, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What the planner is going to do, as it does it."""
    done: list[np.ndarray] = []
    act = planner.act

    def noted(obs: TensorDict) -> np.ndarray:
        done.append(act(obs))
        return done[-1]

    monkeypatch.setattr(planner, "act", noted)
    return done


def test_true_futures_are_those_that_acting_leads_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """And looking does not change what is done: the episode goes as it goes unwatched."""
    env, watched = picking("Cube")
    other, bare = picking("Cube")
    (pair,) = held_out_pairs(env, 1, 25, 1000).pairs
    before, plain = noting(watched.planner, monkeypatch), noting(bare.planner, monkeypatch)
    play_pairs([env], watched, [pair], 10, privileged=True)
    play_pairs([other], bare.planner, [pair], 10)
    assert np.array_equal(before, plain) and len(watched.looks) == 2
    plan = watched.planner.last_plan.actions  # [1, T, A]
    state = env.state
    future = watched.carried_out(state, plan)["latent"][0, 0]
    for action in watched.planner.model.action.decode(plan)[0, 0].numpy():
        env.step(action)
    look = torch.from_numpy(env.picture())[None, None]
    seen = watched.planner.model.encode(TensorDict({"pixels": look}, batch_size=[1, 1]))["latent"][0, 0]
    assert torch.allclose(future, seen, atol=1e-4)  # a batch of another size is rounded otherwise, by 2e-5 somewhere


def test_noise_is_each_pairs_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every pair was once played as episode 0, with the same noise in all."""
    numbers: list[int] = []
    reset = MPC.reset

    def noted(self: MPC, obs: TensorDict, *rest: Any) -> None:
        numbers.extend(obs["episode"].tolist())
        reset(self, obs, *rest)

    monkeypatch.setattr(MPC, "reset", noted)
    main(Options("Cube", distance=5, episodes=3, others=2, every=1, out=tmp_path / "rows.jsonl"))
    assert numbers == [0, 1, 2]


def test_a_model_that_foresees_everything_is_no_optimist() -> None:
    env, watched = picking("Cube")
    (pair,) = held_out_pairs(env, 1, 25, 1000).pairs
    play_pairs([env], watched, [pair], 6, privileged=True)
    state = env.state
    model: Any = watched.planner.model
    model.rollout = lambda context, plans: watched.carried_out(state, plans[0]).unsqueeze(0)
    found = summary(watched.judged(state)[None])
    assert found["optimism_chosen"] == found["optimism_mean"] == 0
    assert found["picked"] == found["best"] and found["correlation"] == pytest.approx(1)


def test_pictures_are_as_large_as_the_checkpoint_sees(tmp_path: Path) -> None:
    """They had 64 pixels whatever it had been trained on."""
    model, out = toy_model(shape=replace(SHAPE, prior=8, prior_horizon=2)), tmp_path / "rows.jsonl"
    facts: dict[str, Any] = {
        "task": "TwoRoom",
        "renderer": "none",
        "card": "",
        "planner": replace(PLANNER, proposals=4),
    }
    checkpoint.save(tmp_path / "toy", model, **facts)
    main(Options("TwoRoom", tmp_path / "toy", episodes=1, others=2, every=1, out=out))
    assert json.loads(out.read_text())["picks"]["looks"] >= 1


def test_a_row_says_what_was_measured_and_nothing_is_measured_without_proposals(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    main(Options("Cube", episodes=1, others=2, every=1, out=out))
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row["picks"]["looks"] >= 1 and row["picks"]["best"] <= row["picks"]["mean"]
    assert row["checkpoint_sha256"] == checkpoint.load(checkpoint.SHIPPED / "cube", task="Cube").sha256
    for options, says in (
        (Options("TwoRoom", out=out), "no proposals"),
        (Options("Cube", others=1, out=out), "others >= 2"),
        (Options("Cube", episodes=1, every=1000, out=out), "fewer than 1000 plans"),
    ):
        with pytest.raises(BadInput, match=says):
            main(options)
    assert len(out.read_text().splitlines()) == 1
