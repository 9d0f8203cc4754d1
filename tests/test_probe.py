"""Success while training: measured on the same pairs each time, and training goes on as if nobody had asked."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from test_temporal import TRAINING
from toys import SHAPE, dot_store, toy_model

import envs
from planner import checkpoint
from planner.cards import curves
from planner.evaluate import probe
from planner.models.jepa import JEPA, JEPAConfig
from planner.recipes import planner_for, recipe_for
from planner.settings import PlannerConfig
from planner.training import train


def test_a_good_model_scores_and_a_random_one_does_not() -> None:
    shipped = checkpoint.load(checkpoint.SHIPPED / "tworoom")
    size = shipped.model.config.image_size
    ask = probe.success_probe(envs, "TwoRoom", size, shipped.planner, episodes=4)
    assert ask(shipped.model) >= 0.75 and ask(shipped.model) == ask(shipped.model)
    random = JEPA(shipped.model.config, shipped.model.action)
    assert ask(random) <= 0.25
    assert random.training  # and it goes on as it was


def test_what_is_trained_last_is_not_asked_for(monkeypatch: Any) -> None:
    asked: list[PlannerConfig] = []

    def build(settings: PlannerConfig, model: JEPA, seed: int) -> Any:
        asked.append(settings)
        raise InterruptedError

    monkeypatch.setattr(PlannerConfig, "build", build)
    for settings in (PlannerConfig(metric="temporal+l2", proposals=8), PlannerConfig(metric="cosine", body=0.3)):
        ask = probe.success_probe(envs, "TwoRoom", 32, settings, episodes=1)
        with contextlib.suppress(InterruptedError):
            ask(toy_model())
    assert [(one.metric, one.body, one.proposals) for one in asked] == [("l2", 1.0, 0), ("cosine", 1.0, 0)]


@pytest.mark.parametrize("task", ["Cube", "ogbench/cube-single"])
def test_without_its_prior_a_planner_searches_for_itself(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cube-single's was asked for two random plans, whatever its model had learned: they stand beside 64 proposals."""
    planner, asked = recipe_for(task).planner, []
    monkeypatch.setattr(PlannerConfig, "build", lambda settings, *_, **__: asked.append(settings))
    ask = probe.success_probe(envs, "TwoRoom", 32, planner, episodes=1)
    with contextlib.suppress(AttributeError):
        ask(toy_model())
    wanted = planner_for(task, JEPAConfig(), planner.hold)
    assert (asked[0].samples, asked[0].iterations, asked[0].proposals) == (wanted.samples, wanted.iterations, 0)
    assert asked[0].samples * asked[0].iterations >= 128


def test_training_logs_it_and_is_not_disturbed(tmp_path: Path) -> None:
    store, calls = dot_store(tmp_path / "data"), []

    def success(model: JEPA) -> float:
        calls.append(model.training)
        torch.randn(7)  # a planner draws noise
        return 0.25 * len(calls)

    asked = train(store, SHAPE, TRAINING, tmp_path / "a", tensorboard=False, success=success)
    plain = train(store, SHAPE, TRAINING, tmp_path / "b", tensorboard=False)
    assert asked is not None and plain is not None and calls
    for one, other in zip(asked.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    logged = [figures["val/success"] for _, figures in sorted(curves(tmp_path / "a").items())]
    assert logged == [0.25 * (k + 1) for k in range(len(calls))]
