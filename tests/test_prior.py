"""The action prior: what it is taught, that it keeps forks apart, and that a planner starts from what it proposes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from toys import PLANNER, SHAPE, SIZE, SPEC, TRAINING, dot_store, toy_checkpoint, toy_model

from planner import cards, checkpoint
from planner.actions import ActionSpec
from planner.cli import main
from planner.data import EpisodeStore
from planner.energies import Goals, LatentDistance
from planner.errors import BadInput
from planner.models.jepa import JEPAConfig
from planner.models.prior import ActionPrior
from planner.mpc import MPC
from planner.optimizers import CEM
from planner.proposals import proposer
from planner.recipes import RECIPES, known_metric, planner_for, recipe_for
from planner.settings import PlannerConfig, TrainConfig
from planner.training import add_part, train
from planner.training.batches import episodes_of
from planner.training.prior import Hindsight, PriorTraining
from planner.training.run import run_stage
from planner.types import Context

LINE = ActionSpec((-1.0,), (1.0,), ("m/s",), 2)
RESTED = torch.zeros(1, 1, 1)
"""What was done before now, where it was nothing."""


def walks(episodes: int, length: int) -> tuple[Tensor, Tensor]:
    """A point on a line whose action is its speed for a step: places `[N, L + 1, 1]` and actions `[N, L, 1]`."""
    generator = torch.Generator().manual_seed(0)
    actions = (
        torch.rand(episodes, -(-length // 10), 1, generator=generator).repeat_interleave(10, 1)[:, :length] * 2 - 1
    )
    return torch.cat([torch.zeros(episodes, 1, 1), 0.1 * actions.cumsum(1)], 1), actions


def fewest_steps(place: Tensor, goal: Tensor) -> Tensor:
    """Model steps that the point needs at full speed."""
    return (goal - place).abs()[..., 0] / 0.2


def hindsight(
    batch: int = 4096, *, horizon: int = 3, reach: int = 4, history: int = 2, haste: float = 0.0
) -> Hindsight:
    places, actions = walks(40, 40)
    shape = {"history": history, "horizon": horizon, "reach": reach}
    return Hindsight(places, actions, LINE, batch=batch, seed=0, haste=haste, left=fewest_steps, **shape)


def test_batches_are_what_they_say() -> None:
    """Of a point that goes as fast as its action says, the mean actions of a plan tell where it came by."""
    draws = hindsight()
    batch = draws[3]
    assert batch["latents"].shape == (4096, 2, 1) and batch["plan"].shape == (4096, 3)
    # Steps of two at a tenth of the action: the first block of the plan leads to the goal that is one block ahead.
    ahead = batch["goal"][:, 0] - batch["latents"][:, -1, 0]
    assert ahead.abs().max() <= 0.8 + 1e-6  # 8 steps
    one = (ahead - 0.2 * batch["plan"][:, 0]).abs() < 1e-6
    assert one.float().mean() > 0.1  # an eighth of the goals, and those of whoever stands still
    assert torch.equal(draws[3]["plan"], batch["plan"]) and not torch.equal(draws[4]["plan"], batch["plan"])
    before = batch["latents"][:, 1] - batch["latents"][:, 0]
    assert before.abs().max() <= 0.2 + 1e-6  # a block earlier, and not one step
    assert torch.allclose(before, 0.2 * batch["done"][:, 0], atol=1e-5)
    assert hindsight(history=1)[0]["done"].shape == (4096, 0, 1)
    longer = hindsight(history=4)[0]  # oldest first: each between two latents
    moved = longer["latents"].diff(dim=1)
    assert torch.allclose(moved, 0.2 * longer["done"], atol=1e-5) and not torch.allclose(moved, moved.flip(1))


def test_goals_never_leave_the_episode_and_short_episodes_are_refused() -> None:
    assert hindsight(horizon=19, history=1)[0]["plan"].shape == (4096, 19)
    with pytest.raises(BadInput, match="too short for the action prior; expected at least 42 steps; got 40"):
        hindsight(horizon=20, history=2)


def learned(draws: Hindsight, out: Path, steps: int = 250, past: int = 0) -> ActionPrior:
    torch.manual_seed(0)
    prior = ActionPrior(1, draws.past.numel(), 1, draws.ahead.numel() // LINE.block, 64, past)
    config = TrainConfig(steps=steps, learning_rate=3e-3, save_every=10_000)
    assert run_stage(PriorTraining(prior, config, LINE), config, out, False, lambda: (draws, hindsight(64)))
    return prior.eval()


def test_it_learns_which_way_the_goal_lies(tmp_path: Path) -> None:
    prior = learned(hindsight(256), tmp_path, 700)
    here, noise = torch.zeros(1, 2, 1), torch.randn(1, 200, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right, left = (prior.propose(here, torch.tensor([[x]]), RESTED, noise)[0, :, 0, 0] for x in (0.15, -0.15))
    assert right.mean() > 0.25 and left.mean() < -0.25


def test_in_haste_detours_count_less() -> None:
    """A point that turns back, or dawdles, loses steps; one that goes straight to where it came out loses none."""
    plain, hurried = hindsight()[0], hindsight(haste=0.5)[0]
    assert torch.equal(plain["weight"], torch.ones(4096)) and torch.equal(plain["plan"], hurried["plan"])
    weight, way = hurried["weight"], (plain["goal"] - plain["latents"][:, -1])[:, 0]
    straight = ((plain["plan"] * way.sign()[:, None]) > 0.95).all(1) & (way.abs() >= 0.57)
    assert straight.sum() > 10 and weight[straight].min() > 0.9  # at most a twentieth of three steps is lost
    turned = plain["plan"][:, 0] * way < -0.05
    assert turned.sum() > 10 and weight[turned].mean() < 0.6
    assert weight.max() <= 1 + 1e-5  # nothing is faster than the fewest steps


def test_a_hurried_prior_proposes_faster_plans(tmp_path: Path) -> None:
    noise = torch.randn(1, 400, 3, generator=torch.Generator().manual_seed(0))
    speeds = []
    for haste in (0.0, 2.0):
        prior = learned(hindsight(256, haste=haste), tmp_path / str(haste), steps=300)
        with torch.no_grad():
            plans = prior.propose(torch.zeros(1, 2, 1), torch.tensor([[0.3]]), RESTED, noise)[0, :, 0, 0]
        speeds.append(plans.mean().item())
    assert speeds[1] > speeds[0] + 0.1


def test_haste_needs_to_know_the_steps_left(tmp_path: Path) -> None:
    hurried = replace(TRAINING, prior_haste=0.5)
    with pytest.raises(BadInput, match="prior_haste asks for steps left; expected a model that knows how many steps"):
        train(dot_store(tmp_path / "data"), replace(SHAPE, prior=8), hurried, tmp_path / "run", tensorboard=False)
    assert not (tmp_path / "run").exists()  # before anything was trained
    with pytest.raises(BadInput, match="haste asks for the steps left; expected a function of latents and goals"):
        Hindsight(*walks(4, 40), LINE, history=2, horizon=3, reach=4, batch=8, seed=0, haste=0.5)


class Grip(Hindsight):
    """Fingers are kept as they were told to be, which no picture shows."""

    def __getitem__(self, index: int) -> TensorDict:
        batch = super().__getitem__(index)
        told = torch.randint(2, (self.batch, 1), generator=torch.Generator().manual_seed(index)) * 1.6 - 0.8
        hidden = {name: torch.zeros_like(batch[name]) for name in ("latents", "goal")}
        return TensorDict(
            batch.to_dict() | hidden | {"done": told[:, None], "plan": told.expand(-1, 3)}, batch_size=[self.batch]
        )


def test_what_no_picture_shows_it_knows_from_what_was_done(tmp_path: Path) -> None:
    """From pictures alone it proposed to let go of a cube as often as to hold it."""
    grip = Grip(*walks(40, 40), LINE, history=2, horizon=3, reach=4, batch=256, seed=0)
    noise = torch.randn(1, 400, 3, generator=torch.Generator().manual_seed(0))
    shares = {}
    for past in (0, 1):
        prior = learned(grip, tmp_path / str(past), past=past)
        looks = {"latent": torch.zeros(2, 2, 1)}
        context = Context(TensorDict(looks, batch_size=[2, 2]), torch.tensor([0.8, -0.8]).view(2, 1, 1).expand(2, 1, 2))
        propose = proposer(prior, 400, 3, LINE)
        plans = propose(context, TensorDict({"latent": torch.zeros(2, 1)}, batch_size=[2]), torch.Generator())
        shares[past] = (plans[..., 0, 0] > 0).float().mean(1)
        with torch.no_grad():  # as an episode starts, when nothing was done yet, either may be
            rested = prior.propose(torch.zeros(1, 2, 1), torch.zeros(1, 1), RESTED, noise)[0, :, 0, 0]
        assert 0.25 < (rested > 0).float().mean() < 0.75
    assert ((shares[0] > 0.3) & (shares[0] < 0.7)).all()
    assert shares[1][0] > 0.95 and shares[1][1] < 0.05


def test_as_an_episode_starts_what_was_done_is_standing_still() -> None:
    """Which is not 0 in the prior's units where an action's bounds lie to one side."""
    spec = ActionSpec((0.0,), (1.0,), ("N",), 2)
    places, actions = walks(40, 40)
    batch = Hindsight(places, actions.abs(), spec, history=2, horizon=3, reach=4, batch=64, seed=0)[0]
    prior, losses = ActionPrior(1, 2, 1, 3, 16, 1), []
    cold = batch.clone()
    cold["latents"], cold["done"] = batch["latents"][:, -1:].expand(-1, 2, -1), torch.full_like(batch["done"], -1)
    for drawn, share in ((batch, 1.0), (cold, 0.0), (batch, 0.0)):
        torch.manual_seed(0)
        config = replace(TRAINING, cold_starts=share)
        losses.append(PriorTraining(prior, config, spec).loss(drawn).item())
    assert losses[0] == losses[1] != losses[2]


def test_no_past_to_see_is_refused() -> None:
    with pytest.raises(BadInput, match="prior_past has nothing to see; expected a history of 2.*got 1; set prior_past"):
        replace(SHAPE, prior=8, prior_past=True, history=1)
    replace(SHAPE, prior=0, prior_past=True, history=1)  # a recipe's, whose prior is left out


class Fork(Hindsight):
    """At a fork play goes left or right, never straight on; the goal does not tell."""

    def __getitem__(self, index: int) -> TensorDict:
        batch = super().__getitem__(index)
        generator = torch.Generator().manual_seed(index)
        side = torch.randint(2, (self.batch, 1), generator=generator) * 2.0 - 1
        return TensorDict(
            batch.to_dict()
            | {"latents": 0 * batch["latents"], "goal": 0 * batch["goal"], "plan": (0.7 * side).expand(-1, 3)},
            batch_size=[self.batch],
        )


def test_the_flow_is_followed_by_midpoints() -> None:
    """Where it shrinks everything at its own size, to 0.391 in four looks; the exact 0.368, and 0.316 by Euler's steps.

    Steps of Euler's damped every plan: Cube's had a standard deviation of 0.46 where its flow has 0.49.
    """
    prior, looks = ActionPrior(4, 2, 1, 3, 8), []
    prior.forward = lambda point, time, condition: looks.append(float(time.flatten()[0])) or -point  # type: ignore
    noise = torch.linspace(-1, 1, 6).reshape(1, 2, 3)
    plans = prior.propose(torch.zeros(1, 2, 4), torch.zeros(1, 4), torch.zeros(1, 1, 1), noise)
    assert torch.allclose(plans[..., 0], noise * (1 - 1 / 2 + 1 / 8) ** 2)
    assert looks == [0, 0.25, 0.5, 0.75]


def test_a_fork_stays_a_fork(tmp_path: Path) -> None:
    """A regression would answer with the mean, straight into what both ways go around."""
    places, actions = walks(40, 40)
    fork = Fork(places, actions, LINE, history=2, horizon=3, reach=4, batch=256, seed=0)
    prior = learned(fork, tmp_path)
    with torch.no_grad():
        noise = torch.randn(1, 400, 3, generator=torch.Generator().manual_seed(0))
        first = prior.propose(torch.zeros(1, 2, 1), torch.zeros(1, 1), RESTED, noise)[0, :, 0, 0]
    assert 0.3 < (first > 0).float().mean() < 0.7
    assert (first.abs() > 0.35).float().mean() > 0.9


def test_proposals_are_held_and_fit_the_planner() -> None:
    torch.manual_seed(0)
    prior = ActionPrior(8, 2, SPEC.env_dim, horizon=3, hidden=16)
    context = Context(TensorDict({"latent": torch.randn(4, 2, 8)}, batch_size=[4, 2]), torch.zeros(4, 1, SPEC.dim))
    goal = TensorDict({"latent": torch.randn(4, 8)}, batch_size=[4])

    def draw(horizon: int, seed: int = 0) -> Tensor:
        return proposer(prior, 5, horizon, SPEC)(context, goal, torch.Generator().manual_seed(seed))

    plans = draw(3).unflatten(-1, (SPEC.block, SPEC.env_dim))
    assert plans.shape == (4, 5, 3, SPEC.block, SPEC.env_dim) and plans.abs().max() <= 1
    assert torch.equal(plans, plans[..., :1, :].expand_as(plans))
    assert torch.equal(draw(2), draw(3)[:, :, :2])
    assert torch.equal(draw(5)[:, :, 3:], draw(3)[:, :, 2:].expand(-1, -1, 2, -1))
    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(3, seed=1))


def test_a_search_starts_from_what_is_proposed() -> None:
    """Where only the proposal is any good, it is what comes out: also one of the user's own."""
    model, wanted = toy_model(), 0.37

    def energy(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return ((actions - wanted).abs().amax((-1, -2)) > 1e-6).float()

    def mine(context: Context, goal: TensorDict, generator: torch.Generator) -> Tensor:
        return torch.full((len(goal), 1, 2, SPEC.dim), wanted)

    for prior, least in ((None, 1.0), (mine, 0.0)):
        mpc = MPC(model, energy, CEM(samples=8, elites=2), horizon=2, iterations=2, prior=prior)
        looks = TensorDict({"pixels": torch.zeros(3, 32, 32, 3, dtype=torch.uint8)}, batch_size=[3])
        mpc.reset(looks, looks)
        mpc.act(looks)
        assert mpc.last_plan is not None and torch.equal(mpc.last_plan.energy, torch.full((3,), least))


def test_plans_learned_by_heart_are_told(tmp_path: Path) -> None:
    """Trained for 9,000 updates on 360 episodes, a prior was worse than after 1,500, and nothing said so."""
    assert cards.by_heart(tmp_path) == ""  # curves that are gone say nothing
    (tmp_path / "prior/logs/version_0").mkdir(parents=True)
    curve = tmp_path / "prior/logs/version_0/metrics.csv"
    for last, told in ((0.57, ""), (0.725, "held-out error 0.725, after 0.563 at update 1500")):
        curve.write_text(f"step,val/prior\n499,0.627\n1499,0.563\n8999,{last}\n")
        assert cards.by_heart(tmp_path) == told


def test_proposals_need_a_prior() -> None:
    with pytest.raises(BadInput, match="proposals are of an action prior; expected a model with an action prior"):
        PlannerConfig(proposals=4).build(toy_model(), 0)
    with pytest.raises(BadInput, match="proposals is off; expected 0 or more; got -1"):
        PlannerConfig(proposals=-1)
    grown = toy_model(shape=replace(SHAPE, prior=16))
    assert PlannerConfig(proposals=4).build(grown, 0).prior is not None
    assert PlannerConfig().build(grown, 0).prior is None


def test_train_ends_with_the_prior(tmp_path: Path) -> None:
    store = dot_store(tmp_path / "data")
    shape = replace(SHAPE, prior=16, prior_horizon=2, prior_past=True)
    config = replace(TRAINING, steps=4, prior_steps=5)
    first, second = (train(store, shape, config, tmp_path / name, tensorboard=False) for name in "ab")
    assert first is not None and second is not None and first.prior is not None and second.prior is not None
    for one, other in zip(first.prior.parameters(), second.prior.parameters(), strict=True):
        assert torch.equal(one, other)
    begun = train(store, shape, replace(config, prior_steps=1), tmp_path / "c", tensorboard=False)
    assert begun is not None and begun.prior is not None
    moved = zip(first.prior.parameters(), begun.prior.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in moved), "two that nobody trained are equal, too"


@pytest.mark.parametrize("mode", ["any", "all", "sequence"])
def test_several_goals_share_what_a_prior_proposes(mode: Any) -> None:
    """The first action of a planner with a prior and several goals ended in torch's own words."""
    model = toy_model(shape=replace(SHAPE, prior=16, prior_horizon=2))
    assert model.prior is not None
    settings = replace(PLANNER, proposals=5, horizon=2, execute=1)
    planner = settings.build(model, 0, energy=Goals(mode, near=None if mode == "any" else 0.1))
    looks = torch.randint(256, (2, 3, SIZE, SIZE, 3), dtype=torch.uint8)
    planner.reset(TensorDict({"pixels": looks[:, 0]}, batch_size=[2]), TensorDict({"pixels": looks}, batch_size=[2]))
    assert planner.act(TensorDict({"pixels": looks[:, 0]}, batch_size=[2])).shape == (2, SPEC.env_dim)
    latents, goals = torch.randn(2, 2, SHAPE.latent_dim), torch.randn(2, 2, SHAPE.latent_dim)
    context = Context(TensorDict({"latent": latents}, batch_size=[2, 2]), torch.zeros(2, 1, SPEC.dim))

    def proposed(goal: Tensor, count: int) -> Tensor:
        ask = proposer(model.prior, count, 2, SPEC)
        return ask(context, TensorDict({"latent": goal}, batch_size=[2]), torch.Generator().manual_seed(0))

    both, alone = proposed(goals, 5), proposed(goals[:, 0], 5)
    assert both.shape == alone.shape and torch.equal(proposed(goals[:, :1], 5), alone)
    torch.testing.assert_close(both[:, :3], alone[:, :3])  # the first three are towards the first goal, two not
    assert (both[:, 3:] - alone[:, 3:]).abs().amax() > 1e-3


def test_a_finished_checkpoint_is_given_a_prior(tmp_path: Path) -> None:
    """Everything else stays as it was, to the bit; the planner then asks for proposals."""
    dot_store(tmp_path / "data")
    start = toy_checkpoint(tmp_path / "start")
    words = ["prior", "TwoRoom", "--data", str(tmp_path / "data"), "--checkpoint", str(start), "--width", "16"]
    words += ["--horizon", "2", "--proposals", "3", "--out", str(tmp_path / "out")]
    words += ["--training.prior-steps", "3", "--training.held-out", "0.25"]
    main(words)
    before, after = checkpoint.load(start), checkpoint.load(tmp_path / "out/checkpoint")
    assert after.planner == replace(before.planner, proposals=3)
    kept = after.model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in before.model.state_dict().items())
    assert any(name.startswith("prior.") for name in kept)
    assert "3 updates on 6 episodes of play" in (tmp_path / "out/checkpoint/card.md").read_text()
    assert isinstance(after.planner.energy(after.model), LatentDistance)


def test_a_prior_taught_anew_is_as_large_as_the_one_before(tmp_path: Path) -> None:
    """Cube's planner starts from 96 plans, and had 32 of them left after `jepa-mpc prior` without a word of it."""
    dot_store(tmp_path / "data")
    start = toy_checkpoint(tmp_path / "start")
    words = ["prior", "TwoRoom", "--data", str(tmp_path / "data"), "--training.prior-steps", "3"]
    words += ["--training.held-out", "0.25", "--checkpoint"]
    first = ["--width", "16", "--horizon", "2", "--proposals", "3"]
    main([*words, str(start), *first, "--out", str(tmp_path / "first")])
    main([*words, str(tmp_path / "first/checkpoint"), "--out", str(tmp_path / "again")])
    before, after = (checkpoint.load(tmp_path / name / "checkpoint") for name in ("first", "again"))
    assert after.planner == before.planner and after.planner.proposals == 3
    assert after.model.config == before.model.config and after.model.config.prior == 16


def test_a_checkpoint_s_prior_sees_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dot_store(tmp_path / "data")
    start = toy_checkpoint(tmp_path / "start")
    words = ["prior", "TwoRoom", "--data", str(tmp_path / "data"), "--checkpoint", str(start), "--width", "16"]
    words += ["--horizon", "2", "--past", "--out", str(tmp_path / "out")]
    main([*words, "--training.prior-steps", "3", "--training.held-out", "0.25"])
    after, card = checkpoint.load(tmp_path / "out/checkpoint"), checkpoint.card_of(tmp_path / "out/checkpoint")
    assert after.model.config.prior_past and "and what was done before" in card
    assert after.model.prior is not None and after.model.prior.past is not None
    # Taught anew without it, it loses that; there was no word of it.
    words[words.index(str(start))] = str(tmp_path / "out/checkpoint")
    for name, option, told in (("same", "--past", False), ("less", "--no-past", True)):
        capsys.readouterr()
        again = [option if word == "--past" else word for word in words]
        main([*again, "--out", str(tmp_path / name), "--training.prior-steps", "3", "--training.held-out", "0.25"])
        assert ("the prior before saw what was done" in capsys.readouterr().out) == told


def test_a_prior_hurries_by_the_checkpoint_s_own_steps_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dot_store(tmp_path / "data")
    knowing = toy_model(shape=replace(SHAPE, temporal=4))
    checkpoint.save(tmp_path / "start", knowing, task="TwoRoom", renderer="none", planner=PLANNER, card="")
    words = ["prior", "TwoRoom", "--data", str(tmp_path / "data"), "--width", "16", "--horizon", "2"]
    words += ["--training.prior-steps", "3", "--training.held-out", "0.25"]

    def taught(haste: str, start: Path = tmp_path / "start") -> Path:
        given = ["--checkpoint", str(start), "--out", str(tmp_path / haste), "--training.prior-haste", haste]
        main([*words, *given])
        return tmp_path / haste / "checkpoint"

    hurried, calm = taught("1.5"), taught("0")
    assert "plans of 2, haste 1.5" in (hurried / "card.md").read_text()
    assert "haste" not in (calm / "card.md").read_text().split("jepa-mpc prior")[0]
    one, other = (checkpoint.load(folder).model.prior for folder in (hurried, calm))
    assert one is not None and other is not None
    assert not torch.equal(one.out[1].weight, other.out[1].weight)
    with pytest.raises(SystemExit):
        taught("2.5", toy_checkpoint(tmp_path / "unknowing"))
    assert "prior_haste asks for steps left" in " ".join(capsys.readouterr().err.split())


def test_a_finished_checkpoint_is_given_a_temporal_distance(tmp_path: Path) -> None:
    """It had one: that one is replaced, everything else stays to the bit; the planner then goes by steps left.

    It had played the robot's body down, which steps left do not read: refused at the end, and the training was lost.
    """
    dot_store(tmp_path / "data")
    start, model = tmp_path / "start", toy_model(shape=replace(SHAPE, temporal=4, body=1))
    checkpoint.save(start, model, task="TwoRoom", renderer="none", planner=replace(PLANNER, body=0.3), card="")
    words = ["temporal", "TwoRoom", "--data", str(tmp_path / "data"), "--checkpoint", str(start), "--features", "4"]
    words += ["--out", str(tmp_path / "out"), "--training.temporal-steps", "3", "--training.held-out", "0.25"]
    main(words)
    before, after = checkpoint.load(start), checkpoint.load(tmp_path / "out/checkpoint")
    assert after.planner == replace(before.planner, metric="temporal", body=1.0) != before.planner
    assert after.model.config == before.model.config
    kept = after.model.state_dict()
    for name, value in before.model.state_dict().items():
        assert name.startswith("temporal.") or torch.equal(value, kept[name]), name
    assert not all(torch.equal(value, kept[name]) for name, value in before.model.state_dict().items())
    assert "3 updates of a head of 4 features on 6 episodes" in (tmp_path / "out/checkpoint/card.md").read_text()
    checkpoint.save(
        start, model, task="TwoRoom", renderer="none", planner=replace(PLANNER, metric="temporal+l2"), card=""
    )
    main([*words, "--out", str(tmp_path / "again")])
    assert checkpoint.load(tmp_path / "again/checkpoint").planner.metric == "temporal+l2"  # as it went by steps before
    with pytest.raises(SystemExit):
        main([*words, "--features", "0"])


PARTS: dict[Literal["temporal", "prior"], JEPAConfig] = {
    "temporal": replace(SHAPE, temporal=4),
    "prior": replace(SHAPE, prior=8, prior_horizon=2),
}


def given(part: Literal["temporal", "prior"], store: EpisodeStore, out: Path, **changes: Any) -> dict[str, Tensor]:
    """The weights that a toy has when it was given a part, in so many updates as nobody waits for."""
    config = replace(TRAINING, temporal_steps=4, prior_steps=4, **changes)
    done = add_part(toy_model(), part, PARTS[part], [store], config, out, weights="w", tensorboard=False)
    assert done is not None
    return done.state_dict()


def test_parts_in_one_folder_do_not_take_each_other_s_options_for_theirs(tmp_path: Path) -> None:
    """They noted theirs in one file: with the first part's own options it was refused then, and with those of the part
    after it, whoever asked for another first part got the old one without a word."""
    store, out = dot_store(tmp_path / "data"), tmp_path / "out"
    first = given("temporal", store, out)
    given("prior", store, out, learning_rate=0.01)
    again = given("temporal", store, out)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    with pytest.raises(BadInput, match="out/temporal holds a run of another configuration; got training.learning_rate"):
        given("temporal", store, out, learning_rate=0.01)
    assert not (out / "train.json").exists(), "that is of who trains or polishes here"


def test_a_part_begun_when_all_had_one_note_goes_on(tmp_path: Path) -> None:
    store, out = dot_store(tmp_path / "data"), tmp_path / "out"
    first = given("temporal", store, out)
    (out / "temporal/train.json").rename(out / "train.json")
    with pytest.raises(BadInput, match="another configuration; got training.seed"):
        given("temporal", store, out, seed=7)
    again = given("temporal", store, out)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    given("prior", store, out, seed=7)
    given("temporal", store, out)


def test_a_training_does_not_take_what_another_model_was_given(tmp_path: Path) -> None:
    """One that stopped in its first stage would have gone on to a head of other latents, and called it its own."""
    store, out = dot_store(tmp_path / "data"), tmp_path / "out"
    config = replace(TRAINING, steps=4, temporal_steps=4, prior_steps=4)
    assert train(store, PARTS["temporal"], config, out, tensorboard=False) is not None
    given("prior", store, out, steps=4)
    with pytest.raises(BadInput, match="out/temporal holds a run of another configuration; got encoder None"):
        given("temporal", store, out, steps=4)
    shutil.rmtree(out / "temporal")  # as if it had not come so far
    given("temporal", store, out, steps=4)
    with pytest.raises(BadInput, match="out/temporal holds a run of another configuration; got .*encoder w"):
        train(store, PARTS["temporal"], config, out, tensorboard=False)
    shutil.rmtree(out / "temporal")
    assert train(store, PARTS["temporal"], config, out, tensorboard=False) is not None


def test_parts_learn_from_every_dataset_and_check_on_held_out_episodes_of_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Play never shows what a planner does when it fails, and steps left have to know; every episode counts alike."""
    stores = [dot_store(tmp_path / name, episodes=n, seed=seed) for name, n, seed in (("play", 8, 0), ("own", 4, 1))]
    (fit, fit_actions), (check, check_actions) = episodes_of(toy_model(), stores, (), 0.25)
    assert len(fit) == len(fit_actions) == 6 + 3 and len(check) == len(check_actions) == 2 + 1
    for half, rows in ((fit_actions, slice(0, -2)), (check_actions, slice(-2, None))):
        assert all(any(torch.equal(own, one) for one in half) for own in stores[0].data["actions"][rows])
    words = ["temporal", "TwoRoom", "--checkpoint", str(toy_checkpoint(tmp_path / "start")), "--features", "4"]
    words += ["--training.temporal-steps", "3", "--training.held-out", "0.25", "--out", str(tmp_path / "out")]
    main([*words, "--data", str(tmp_path / "play"), str(tmp_path / "own")])
    card = (tmp_path / "out/checkpoint/card.md").read_text()
    assert "on 8 episodes of play (seed 0) and 4 episodes of play (seed 1), gaps" in card
    dot_store(tmp_path / "short", steps=20)
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tmp_path / "other"), "--data", str(tmp_path / "play"), str(tmp_path / "short")])
    assert "temporal: episodes of different lengths" in capsys.readouterr().err


def test_a_model_without_what_its_recipe_plans_with_searches_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, bare = recipe_for("Cube").model, replace(recipe_for("Cube").model, prior=0, temporal=0)
    assert planner_for("Cube", ours, 5) == recipe_for("Cube").planner and planner_for("Cube", ours, 5).proposals
    plain = planner_for("Cube", bare, 5)
    slow = replace(recipe_for("Cube").planner, metric="temporal+slow")
    shapes = replace(ours, slow=8), ours, bare
    assert [known_metric(slow, shape) for shape in shapes] == ["temporal+slow", "temporal+l2", "l2"]
    assert plain.proposals == 0 and plain.metric == "l2" and plain.samples > recipe_for("Cube").planner.samples
    pusher = recipe_for("PushT").model
    without = [planner_for("PushT", replace(pusher, **less), 5).metric for less in ({}, {"slow": 0}, {"temporal": 0})]
    assert without == ["temporal+slow", "temporal+l2", "l2"]
    monkeypatch.setitem(RECIPES, "PushT", replace(RECIPES["PushT"], planner=PlannerConfig(body=0.3)))
    assert [planner_for("PushT", replace(pusher, body=size), 5).body for size in (2, 0)] == [0.3, 1]
