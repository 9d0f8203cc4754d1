"""A planner where a trained agent is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from toys import SIZE, dot_episode, info, toy_checkpoint

from planner import checkpoint
from planner.adapters.agent import Agent
from planner.errors import BadInput
from planner.guard import Guard, Limits
from planner.surprise import Thresholds, first_step


@pytest.fixture
def films() -> np.ndarray:
    """Pictures of two episodes of the dot, `[31, 2, SIZE, SIZE, 3]`."""
    return np.stack([dot_episode(info(), row)[0] for row in range(2)], axis=1)


def batch(pictures: np.ndarray) -> TensorDict:
    return TensorDict({"pixels": torch.from_numpy(pictures)}, batch_size=[len(pictures)])


def seen(pixels: np.ndarray, goal: np.ndarray) -> dict[str, np.ndarray]:
    return {"pixels": pixels, "goal": goal}


def test_actions_are_those_of_the_planner(tmp_path: Path, films: np.ndarray) -> None:
    """The second environment's episode ends after six steps, by the mask as by the goal that is another one then."""
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    told, noticed = Agent(loaded), Agent(loaded)
    policy = Guard(loaded.planner.build(loaded.model, 0), loaded.model.action, Limits())
    goals = np.stack([films[20, 0], films[20, 1]])
    policy.reset(batch(films[0]), batch(goals))
    for step, pictures in enumerate(films[:12]):
        starts = np.array([step == 0, step in (0, 6)])
        if step == 6:
            goals = np.stack([goals[0], films[9, 0]])
            policy.reset(batch(pictures), batch(goals), starts)
        want = policy.act(batch(pictures))
        assert np.array_equal(told.predict(seen(pictures, goals), episode_start=starts)[0], want), step
        assert np.array_equal(noticed.predict(seen(pictures, goals))[0], want), step


def test_it_stops_at_the_impossible_where_it_is_given_thresholds(tmp_path: Path, films: np.ndarray) -> None:
    """It took `on_impossible="stop"`, had nobody who looked, and never stopped."""
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    facts = {"renderer": "none", "policy": "play", "seed": 0, "episodes": 99, "length": 100, "steps": 1}
    known = Thresholds(sha256=loaded.sha256, task=loaded.task, unusual=1e-9, impossible=1e-9, **facts)
    agent = Agent(loaded, Limits(on_impossible="stop"), thresholds=known)
    actions = np.stack([agent.predict(seen(pictures, films[20]))[0] for pictures in films[:20]])
    first = first_step(loaded.model, 1)
    assert (actions[:first] != 0).any((1, 2)).all() and (actions[first:] == 0).all()
    assert agent.guard.alarms["impossible"] > 0
    with pytest.raises(BadInput, match="on_impossible without a monitor"):
        Agent(loaded, Limits(on_impossible="stop"))


def test_one_environment_alone_is_a_batch_of_one(tmp_path: Path, films: np.ndarray) -> None:
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    alone, one = Agent(loaded), Agent(loaded)
    for pictures in films[:8]:
        action, state = alone.predict(seen(pictures[0], films[20, 0]), state="mine")
        assert state == "mine" and action.shape == (2,) and action.dtype == np.float32
        assert np.array_equal(action, one.predict(seen(pictures[:1], films[20, :1]))[0][0])


def evaluated(model: Any, env: gymnasium.Env, episodes: int) -> list[bool]:
    """The loop of those who evaluate trained agents: ask, step, and tell where an episode began."""
    reached = []
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        state, start, over = None, np.ones(1, bool), False
        while not over:
            batched = {name: picture[None] for name, picture in obs.items()}
            actions, state = model.predict(batched, state=state, episode_start=start, deterministic=True)
            obs, _, terminated, truncated, told = env.step(actions[0])
            start, over = np.zeros(1, bool), terminated or truncated
        reached.append(bool(told["success"]))
    return reached


def test_it_arrives_in_an_environment_made_by_its_name() -> None:
    env = gymnasium.make("envs:JepaMPC/TwoRoom-v0")
    loaded = checkpoint.load(checkpoint.find("TwoRoom", None))
    assert sum(evaluated(Agent(loaded), env, 4)) >= 3  # random actions hardly ever do
    env.close()


def test_what_it_cannot_see_is_told(tmp_path: Path, films: np.ndarray) -> None:
    agent = Agent(checkpoint.load(toy_checkpoint(tmp_path / "toy")))
    good = seen(films[0], films[20])
    for observation, says in (
        ({"pixels": films[0]}, r"a dict with pixels and goal; got \['pixels'\]"),
        (films[0], "a dict with pixels and goal; got ndarray"),
        (good | {"goal": films[20] / 255}, rf"goal is off; expected uint8 .*got float64 \[2, {SIZE}"),
        (good | {"pixels": films[0, 0, 0]}, "pixels is off"),
    ):
        with pytest.raises(BadInput, match=says):
            agent.predict(observation)  # type: ignore[arg-type]
    agent.predict(good)
    with pytest.raises(BadInput, match=r"episode_start is off; expected bool \[2\]; got \(3,\)"):
        agent.predict(good, episode_start=np.zeros(3, bool))
