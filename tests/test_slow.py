"""Slow features: on known ground they are what a robot does not move by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from toys import PLANNER, SHAPE, TRAINING, cut_and_resumed, dot_store, toy_checkpoint, toy_model

from planner import cards, checkpoint
from planner.cli import main
from planner.errors import BadInput
from planner.models.slow import HALF_WAY, SlowFeatures, slowness
from planner.settings import STILLNESS, PlannerConfig, TrainConfig
from planner.training import train
from planner.training.run import run_stage
from planner.training.slow import Neighbours, SlowTraining

BLOCK = 2


def test_goals_broadcast_as_energies_want_them() -> None:
    torch.manual_seed(0)
    head = SlowFeatures(6, 3, hidden=16).double()
    futures, goal = torch.randn(2, 3, 4, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    apart = head(futures, goal[:, None, None])
    assert apart.shape == (2, 3, 4) and (apart > 0).all() and torch.equal(head(goal, goal), torch.zeros(2).double())
    squares = (head.net(futures[1, 2, 3]) - head.net(goal[1])).square().sum()
    torch.testing.assert_close(apart[1, 2, 3], squares / (squares + HALF_WAY))
    assert head.float()(1e6 * futures.float(), goal[:, None, None].float()).max() <= 1  # then steps left decide


def test_slowness_has_its_optimum_where_it_should() -> None:
    """Features that never change and are worth something cost nothing; one that is always the same is worth nothing,
    and so is one that is there twice; a rare change costs less than a steady one of the same variance."""
    torch.manual_seed(0)
    some = torch.randn(200_000, 2)
    change, poor = slowness(some, some)
    assert change < 0.011 and poor < 1e-3
    assert slowness(0 * some, 0 * some)[1] == 2  # two variances of 0 for 1
    twice = some[:, :1].expand(-1, 2)
    assert slowness(twice, twice)[1] == pytest.approx(2, abs=0.03)  # two covariances of 1 for 0
    assert slowness(some + 1, some + 1)[1] == pytest.approx(2, abs=0.03)
    rare, steady = torch.zeros(100, 2), torch.full((100, 2), 0.1)
    rare[0] = 1.0
    assert rare.square().mean() == pytest.approx(steady.square().mean().item())
    assert slowness(rare, 0 * rare)[0] < 0.2 * slowness(steady, 0 * steady)[0]


def scene(episodes: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A robot that always moves and a thing that it rarely touches, each somewhere in 0..1, and what a camera makes of
    both: `[N, L + 1]` each, and latents `[N, L + 1, 6]`."""
    generator = torch.Generator().manual_seed(0)

    def walk(steps: torch.Tensor) -> torch.Tensor:
        path = torch.cat([torch.rand(episodes, 1, generator=generator) * 2, steps], 1).cumsum(1)
        return 1 - (path % 2 - 1).abs()  # reflected at both ends

    def pushes(size: float) -> torch.Tensor:
        return size * torch.randn(episodes, length, generator=generator)

    robot = walk(pushes(0.1))
    thing = walk(pushes(0.1) * (torch.rand(episodes, length, generator=generator) < 0.1))
    return robot, thing, seen(robot, thing)


def seen(robot: torch.Tensor, thing: torch.Tensor) -> torch.Tensor:
    """Places `[...]` to latents `[..., 6]` in which they are mixed and bent."""
    mixed = [robot + thing, robot - thing, (6 * robot).sin(), (5 * thing + robot).cos(), robot * thing]
    return torch.stack([*mixed, (4 * (thing - robot)).sin()], -1)


def test_they_are_what_the_robot_does_not_move_by_itself(tmp_path: Path) -> None:
    robot, thing, latents = scene(400, 40)
    config = TrainConfig(steps=600, learning_rate=3e-3, save_every=10_000)
    torch.manual_seed(0)
    head = SlowFeatures(6, 1, hidden=64)
    fit, check = (Neighbours(part, BLOCK, 512, 0) for part in (latents[:360], latents[360:]))
    assert run_stage(SlowTraining(head, config), config, tmp_path, False, lambda: (fit, check))
    with torch.no_grad():
        feature = head.net(latents[360:]).flatten()
    correlated = [torch.corrcoef(torch.stack([feature, place[360:].flatten()]))[0, 1].abs() for place in (thing, robot)]
    assert correlated[0] > 0.95 and correlated[1] < 0.2
    plain = torch.corrcoef(torch.stack([latents[..., 0].flatten(), robot.flatten()]))[0, 1].abs()
    assert plain > 0.5  # the latents themselves know the robot as well as the thing


def test_by_two_features_of_one_place_the_thing_counts_and_the_robot_hardly_does(tmp_path: Path) -> None:
    """One more than the place of the thing needs: the second is another function of the same place."""
    latents = scene(400, 40)[-1]
    config = TrainConfig(steps=600, learning_rate=3e-3, save_every=10_000)
    torch.manual_seed(0)
    head, pairs = SlowFeatures(6, 2, hidden=64), Neighbours(latents, BLOCK, 512, 0)
    assert run_stage(SlowTraining(head, config), config, tmp_path, False, lambda: (pairs, pairs))
    robot, thing = torch.rand(2, 500, generator=torch.Generator().manual_seed(1)) * 0.7
    with torch.no_grad():
        moved = [head(seen(robot, thing), seen(*place)) for place in ((robot, thing + 0.3), (robot + 0.3, thing))]
    assert moved[0].median() > 5 * moved[1].median()


def test_nothing_that_lies_still_is_told(tmp_path: Path) -> None:
    """A robot alone: its planner would go by the robot's own place, and the user thought otherwise."""
    assert cards.lies_still(tmp_path)  # curves that are gone say nothing
    (tmp_path / "slow/logs/version_0").mkdir(parents=True)
    curve = tmp_path / "slow/logs/version_0/metrics.csv"
    for median, still in ((0.005, True), (0.05, False)):
        curve.write_text(f"step,val/slow_median,val/slow_mean\n9,{median},0.056\n")
        assert cards.lies_still(tmp_path) == still


def test_batches_are_what_they_say() -> None:
    when, whose = torch.arange(31.0).expand(20, -1), torch.arange(20.0)[:, None].expand(-1, 31)
    pairs = Neighbours(torch.stack([when, whose], -1), 3, 4096, 0)
    batch = pairs[5]
    assert torch.equal(batch["after"] - batch["before"], torch.tensor([3.0, 0.0]).expand(4096, -1))
    frames, episodes = (set(numbers.tolist()) for numbers in batch["before"].unbind(-1))
    assert frames == set(range(28)) and episodes == set(range(20))
    assert torch.equal(pairs[5]["before"], batch["before"]) and not torch.equal(pairs[6]["before"], batch["before"])
    assert Neighbours(torch.zeros(2, 3, 1), 5, 8, 0)[0]["after"].shape == (8, 1)  # episodes shorter than a model step


def test_training_trains_the_head_and_an_interruption_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, shape = dot_store(tmp_path / "data"), replace(SHAPE, slow=2)

    def trained(out: str, steps: int = 10) -> SlowFeatures:
        config = replace(TRAINING, steps=4, slow_steps=steps, save_every=3)
        model = train(store, shape, config, tmp_path / out, tensorboard=False)
        assert model is not None and model.slow is not None
        return model.slow

    whole, short = trained("a"), trained("b", 1)
    assert not torch.equal(whole.net[0].weight, short.net[0].weight)  # type: ignore[arg-type]
    steps, resumed = cut_and_resumed(monkeypatch, SlowTraining, lambda: trained("c"))
    assert steps == list(range(6, 10))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_that_diverges_is_told() -> None:
    batch = Neighbours(torch.full((4, 31, 2), torch.nan), BLOCK, 8, 0)[0]
    with pytest.raises(BadInput, match="slow features diverged at step 0; got loss nan"):
        SlowTraining(SlowFeatures(2, 1), TRAINING).training_step(batch, 0)


@pytest.mark.parametrize("over", ["last", "all", "min"])
def test_steps_left_may_have_slow_features_beside_them(over: str) -> None:
    model = toy_model(shape=replace(SHAPE, temporal=4, slow=2))
    assert model.temporal is not None and model.slow is not None
    futures = TensorDict({"latent": torch.randn(2, 5, 3, SHAPE.latent_dim)}, batch_size=[2, 5, 3])
    goal = TensorDict({"latent": torch.randn(2, SHAPE.latent_dim)}, batch_size=[2])
    asked = (futures, goal, torch.zeros(2, 5, 3, 2))
    both, left = (PlannerConfig(metric=name, over=over).energy(model)(*asked) for name in ("temporal+slow", "temporal"))
    each = model.slow(futures["latent"], goal["latent"][:, None, None])
    slow = {"last": each[..., -1], "all": each.mean(-1), "min": each.amin(-1)}[over]
    torch.testing.assert_close(both, left + STILLNESS * slow)


def test_plans_by_slow_features_need_a_model_that_has_them() -> None:
    by_both = PlannerConfig(metric="temporal+slow")
    with pytest.raises(BadInput, match="expected a model that knows what the robot does not move by itself .*mpc slow"):
        by_both.build(toy_model(shape=replace(SHAPE, temporal=4)), 0)
    with pytest.raises(BadInput, match="expected a model that knows how many steps"):
        by_both.build(toy_model(shape=replace(SHAPE, slow=4)), 0)
    assert by_both.without_head == "l2"


def test_a_finished_checkpoint_is_given_slow_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dot_store(tmp_path / "data")
    start, model = tmp_path / "start", toy_model(shape=replace(SHAPE, temporal=4, body=1))
    planner = replace(PLANNER, metric="temporal+l2", body=1.0)
    checkpoint.save(start, model, task="TwoRoom", renderer="none", planner=planner, card="")
    words = ["slow", "TwoRoom", "--data", str(tmp_path / "data"), "--features", "3", "--out", str(tmp_path / "out")]
    words += ["--training.slow-steps", "3", "--training.held-out", "0.25", "--checkpoint"]
    main([*words, str(start)])
    after = checkpoint.load(tmp_path / "out/checkpoint")
    assert after.planner == replace(planner, metric="temporal+slow") and after.model.config.slow == 3
    kept = after.model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    card = (tmp_path / "out/checkpoint/card.md").read_text()
    assert "3 updates of a head of 3 features on 6 episodes" in card and "in the median step" in card
    with pytest.raises(SystemExit):
        main([*words, str(toy_checkpoint(tmp_path / "without"))])
    assert "slow: its planner goes by steps left too" in capsys.readouterr().err


def test_checkpoints_that_were_written_before_slow_features_load(tmp_path: Path) -> None:
    """And nothing else may be missing from them."""
    toy_checkpoint(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["model"]["slow"]
    file.write_text(json.dumps(config))
    assert checkpoint.load(tmp_path).model.slow is None
    del config["model"]["body"]
    file.write_text(json.dumps(config))
    with pytest.raises(BadInput, match="describes no JEPAConfig"):
        checkpoint.load(tmp_path)
