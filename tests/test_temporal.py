"""The temporal distance: a quasimetric whatever its weights, and on known ground the number of steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from toys import SHAPE, TRAINING, dot_store, toy_model

from planner.data import EpisodeStore
from planner.energies import LearnedDistance
from planner.errors import BadInput
from planner.models.temporal import TemporalDistance
from planner.settings import NEARNESS, PlannerConfig, TrainConfig
from planner.training import train
from planner.training.run import run_stage
from planner.training.temporal import DistanceTraining, Ways

BLOCK = 2


def head(seed: int = 0) -> TemporalDistance:
    torch.manual_seed(seed)
    return TemporalDistance(latent_dim=6, embed=8, hidden=32).double()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_quasimetric_before_any_training(seed: int) -> None:
    d, (a, b, c) = head(seed), torch.randn(3, 200, 6, dtype=torch.float64)
    assert (d(a, b) > 0).all() and torch.equal(d(a, a), torch.zeros(200, dtype=torch.float64))
    assert (d(a, c) <= d(a, b) + d(b, c) + 1e-12).all()
    assert (d(a, b) - d(b, a)).abs().max() > 1e-3  # the way back may be longer


def test_goals_broadcast_as_energies_want_them() -> None:
    futures, goal = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    steps = head()(futures, goal[:, None, None])
    assert steps.shape == (2, 3, 4)
    torch.testing.assert_close(steps[1, 2, 3], head()(futures[1, 2, 3], goal[1]))


def horseshoe(position: torch.Tensor) -> torch.Tensor:
    """A bent corridor whose ends are a tenth of its length apart: places 0..1 along it to latents `[..., 2]`."""
    angle = (position - 0.5) * 5.6
    return torch.stack([angle.cos(), angle.sin()], -1)


def strolls(episodes: int, length: int) -> torch.Tensor:
    """Play in the corridor, 0.02 of it a step, turning back now and then; none goes from end to end: `[N, L + 1]`."""
    generator = torch.Generator().manual_seed(0)
    turns = torch.where(torch.rand(episodes, length, generator=generator) < 0.05, -1.0, 1.0).cumprod(1)
    walk = torch.cat([torch.rand(episodes, 1, generator=generator), 0.02 * turns], 1).cumsum(1)
    return 1 - (walk % 2 - 1).abs()  # reflected at both ends


def test_batches_are_what_they_say() -> None:
    places = strolls(20, 30)
    ways = Ways(
        torch.stack([places, torch.arange(31.0).expand(20, -1), torch.arange(20.0)[:, None].expand(-1, 31)], -1),
        BLOCK,
        3,
        4096,
        0,
    )
    batch = ways[5]
    start, goal, ahead, gap = (batch[key] for key in ("start", "goal", "ahead", "gap"))
    same, later = start[:, 2] == goal[:, 2], goal[:, 1] >= start[:, 1]
    assert torch.equal(gap.isfinite(), same & later)
    torch.testing.assert_close(gap[gap.isfinite()], ((goal - start)[:, 1] / BLOCK)[gap.isfinite()])
    assert torch.equal(ahead[:, 1], start[:, 1] + 3 * BLOCK) and torch.equal(ahead[:, 2], start[:, 2])
    assert 0.6 < same.float().mean() < 0.85 and (gap <= 3).float().mean() > 0.3
    assert torch.equal(ways[5]["goal"], batch["goal"]) and not torch.equal(ways[6]["goal"], batch["goal"])


def test_it_learns_the_way_around_from_pieces_of_it(tmp_path: Path) -> None:
    """The ends of the horseshoe are 25 model steps apart, and no episode is that long; the straight line says 0.4 of
    the way to the middle."""
    latents, config = horseshoe(strolls(400, 30)), TrainConfig(steps=1200, learning_rate=2e-3, save_every=10_000)
    torch.manual_seed(0)
    learned = TemporalDistance(2, 16, hidden=64)
    fit, check = (Ways(part, BLOCK, 4, 512, 0) for part in (latents[:380], latents[380:]))
    assert run_stage(DistanceTraining(learned, config, 4), config, tmp_path, False, lambda: (fit, check))
    with torch.no_grad():
        ends = learned(horseshoe(torch.tensor(0.0)), horseshoe(torch.tensor(1.0))).item()
        middle = learned(horseshoe(torch.tensor(0.0)), horseshoe(torch.tensor(0.5))).item()
        near = learned(horseshoe(torch.tensor(0.3)), horseshoe(torch.tensor(0.34))).item()
    assert 17 < ends < 33 and 9 < middle < 16 and 0.5 < near < 1.7
    assert ends > 1.5 * middle


@pytest.mark.parametrize(("level", "lowest", "highest"), [(0.05, 1.0, 3.3), (0.5, 9.0, 11.0)])
def test_of_steps_that_vary_it_learns_the_low_ones(level: float, lowest: float, highest: float, tmp_path: Path) -> None:
    """Gaps of 10, give or take 5: their mean at 0.5; at 0.05 Huber's loss has its minimum at 2.25, squares at 4.27."""
    config = TrainConfig(steps=1500, learning_rate=3e-3, temporal_expectile=level, save_every=10_000)

    class Dawdling:
        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> TensorDict:
            gap = 10 + 5 * torch.randn(512, generator=torch.Generator().manual_seed(index))
            places = {
                name: torch.full((512, 2), value) for name, value in (("start", 0.0), ("ahead", 0.5), ("goal", 1.0))
            }
            return TensorDict(places | {"gap": gap}, batch_size=[512])

    torch.manual_seed(0)
    head, ways = TemporalDistance(2, 16, hidden=64), Dawdling()
    assert run_stage(DistanceTraining(head, config, 1000), config, tmp_path, False, lambda: (ways, ways))
    with torch.no_grad():
        assert lowest < head(torch.zeros(2), torch.ones(2)).item() < highest


def trained(store: EpisodeStore, out: Path, steps: int) -> TemporalDistance:
    """The head of a toy model after so many updates."""
    config = replace(TRAINING, steps=4, temporal_steps=steps, save_every=3)
    model = train(store, replace(SHAPE, temporal=4), config, out, tensorboard=False)
    assert model is not None and model.temporal is not None
    energy = PlannerConfig(metric="temporal").energy(model)
    assert isinstance(energy, LearnedDistance) and energy.head is model.temporal
    return model.temporal


def test_training_trains_the_head_and_an_interruption_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow copy moved after the state was saved: every resumed run lost one of its steps."""
    store = dot_store(tmp_path / "data")
    whole, short = trained(store, tmp_path / "a", 9), trained(store, tmp_path / "b", 1)
    assert not torch.equal(whole.net[0].weight, short.net[0].weight)  # type: ignore[arg-type]

    seen, step = 0, DistanceTraining.training_step

    def stop_after_six(training: DistanceTraining, batch: Any, index: int) -> Any:
        nonlocal seen
        seen += 1
        if seen == 7:
            raise KeyError("the power fails")
        return step(training, batch, index)

    monkeypatch.setattr(DistanceTraining, "training_step", stop_after_six)
    with pytest.raises(KeyError):
        trained(store, tmp_path / "c", 9)
    monkeypatch.setattr(DistanceTraining, "training_step", step)
    resumed = trained(store, tmp_path / "c", 9)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_that_diverges_is_told() -> None:
    training = DistanceTraining(TemporalDistance(2, 4), TRAINING, 4)
    batch = Ways(torch.full((4, 31, 2), torch.nan), BLOCK, 4, 8, 0)[0]
    with pytest.raises(BadInput, match="temporal distance diverged at step 0; got loss nan"):
        training.training_step(batch, 0)


def test_a_temporal_metric_needs_a_model_with_a_head() -> None:
    with pytest.raises(BadInput, match="metric is temporal; expected a model that knows how many steps"):
        PlannerConfig(metric="temporal").build(toy_model(), 0)
    with pytest.raises(BadInput, match=r"metric is temporal\+l2; expected a model that knows how many steps"):
        PlannerConfig(metric="temporal+l2").build(toy_model(), 0)
    for metric in ("temporal", "temporal+l2"):
        with pytest.raises(BadInput, match="body is not read by the temporal metric"):
            PlannerConfig(metric=metric, body=0.3)
    with pytest.raises(
        BadInput, match=r"planner: unknown metric; expected l2 or .* or temporal\+slow; got 'temporal\+l1'"
    ):
        PlannerConfig(metric="temporal+l1")


@pytest.mark.parametrize("over", ["last", "all", "min"])
def test_steps_left_may_have_the_latent_distance_beside_them(over: str) -> None:
    """Far away, where the plain distance has other minima, steps decide; near the goal, where all are few, it does."""
    model = toy_model(shape=replace(SHAPE, temporal=4))
    futures = TensorDict({"latent": torch.randn(2, 5, 3, SHAPE.latent_dim)}, batch_size=[2, 5, 3])
    goal = TensorDict({"latent": torch.randn(2, SHAPE.latent_dim)}, batch_size=[2])
    asked = (futures, goal, torch.zeros(2, 5, 3, 2))
    both, left, near = (
        PlannerConfig(metric=metric, over=over).energy(model)(*asked) for metric in ("temporal+l2", "temporal", "l2")
    )
    torch.testing.assert_close(both, left + NEARNESS * near)
    assert PlannerConfig(metric="temporal+l2").without_head == "l2"
