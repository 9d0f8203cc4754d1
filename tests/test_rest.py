"""What is foreseen of a robot at rest, beside what comes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from toys import SHAPE, toy_checkpoint, toy_model

import envs
from benchmarks import rest
from planner.collect import play_episode
from planner.errors import BadInput
from planner.evaluate.protocol import EVALUATE_STREAM
from planner.types import Context


def test_a_drift_is_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world that stands still, of which a tenth more is foreseen to move with every step, in every feature."""
    model = toy_model(shape=replace(SHAPE, slow=2, temporal=4)).eval()
    size, history = model.config.image_size, model.history

    def drifts(context: Context, actions: Tensor) -> TensorDict:
        torch.testing.assert_close(actions, torch.zeros_like(actions))  # rest, in the middle of its bounds
        steps = 0.1 * torch.arange(1, actions.shape[2] + 1)
        latent = context.latent["latent"][:, -1, None, None] + steps[:, None]
        return TensorDict({"latent": latent}, batch_size=latent.shape[:3])

    monkeypatch.setattr(model, "rollout", drifts)
    still = torch.randint(256, (4, 1, size, size, 3), dtype=torch.uint8).expand(4, history + 3, size, size, 3)
    nothing = torch.zeros(4, 2)
    found = rest.drift(model, still, nothing)
    torch.testing.assert_close(found["off"], torch.tensor([0.01, 0.04, 0.09]).expand(4, 3), rtol=1e-3, atol=1e-6)
    for name in ("moved", "slow_moved"):
        torch.testing.assert_close(found[name], torch.zeros(4, 3), rtol=0, atol=1e-6)
    assert (found["slow"] > 0).all() and (found["slow"].diff(dim=1) > 0).all() and (found["steps"] > 0).all()
    assert set(rest.drift(toy_model(), still, nothing)) == {"off", "moved"}, "a model without heads has latents alone"


def test_a_world_that_moves_counts_as_moved() -> None:
    model = toy_model()
    films = torch.randint(256, (2, model.history + 2, *[model.config.image_size] * 2, 3), dtype=torch.uint8)
    latents = model.embed(films)
    moved = (latents[:, model.history :] - latents[:, model.history - 1 : model.history]).square().mean(-1)
    torch.testing.assert_close(rest.drift(model, films, torch.zeros(2, 2))["moved"], moved)


@pytest.mark.parametrize("task", ["Reacher", "Cube"])
def test_it_rests_where_play_left_off(task: str) -> None:
    """An arm swings on without torques; fingers stay as far apart as they were told to be, and do not shut."""
    model = toy_model()
    options = rest.Options(task, episodes=2, horizon=2, seed=5)
    spec = envs.task_class(task).action_spec()
    model.action = spec
    films, done = rest.rests(options, model)
    assert films.shape[:2] == (2, model.history + 2)
    with envs.make(task, model.config.image_size) as env:
        for k, (film, still) in enumerate(zip(films.numpy(), done.numpy(), strict=True)):
            rng = np.random.default_rng([EVALUATE_STREAM, 5, k])
            states, actions = play_episode(env, rest.PLAYED, rng)
            wanted = np.array([0, 0, 0, actions[-1][3]]) if task == "Cube" else np.zeros(2)
            np.testing.assert_allclose(still, wanted, atol=1e-6)
            env.set_state(states[-1])
            for look in film:
                np.testing.assert_array_equal(look, env.picture())
                for _ in range(spec.block):
                    env.advance(wanted)
    assert (films[0] != films[1]).any() and (task == "Cube" or (films[0, 0] != films[0, 1]).any())


def test_a_disc_at_rest_stays_and_the_row_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_checkpoint(tmp_path / "toy")
    out = tmp_path / "rows.jsonl"
    rest.main(rest.Options("TwoRoom", tmp_path / "toy", episodes=2, horizon=2, out=out))
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row["moved"] == pytest.approx([0, 0], abs=1e-3) and len(row["off"]) == 2
    assert row["task"] == "TwoRoom" and row["n"] == 2 and len(row["checkpoint_sha256"]) == 64
    assert row["weights"].endswith("toy") and row["standard_errors"].keys() == {"off", "moved"}
    assert "off" in capsys.readouterr().out
    with pytest.raises(BadInput, match="rest: episodes or horizon is off"):
        rest.main(rest.Options("TwoRoom", tmp_path / "toy", episodes=0, out=out))
    with pytest.raises(BadInput, match="rest: seed"):
        rest.main(rest.Options("TwoRoom", tmp_path / "toy", seed=-1, out=out))
