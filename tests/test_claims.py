"""The rivals and the claims: they keep our interface, they learn, nuisance leaves physics alone, rows are kept."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toys
import tyro
from tensordict import TensorDict

import envs
from benchmarks.claims import contenders, cost, ensemble, everyone, expectation, judge, noise, parts, quality, report
from benchmarks.claims.clips import Probe, disturbed, place, play_clips, readable, variance_share
from benchmarks.claims.cost import Renderer, in_turn
from benchmarks.claims.impossible import SCENES, Film
from benchmarks.claims.nuisance import KINDS, Stream, disturb
from benchmarks.claims.rival import TRAININGS, Options, train, training_config
from benchmarks.claims.rows import Rows, read
from benchmarks.claims.weights import RIVALS, load, plain_recipe, save, shape_for
from benchmarks.claims.worlds import InPixels, RecurrentConfig, Rival, scaled, shown
from planner import checkpoint, cli, surprise, versions
from planner.cards import curves
from planner.checkpoint import Checkpoint
from planner.energies import LatentDistance
from planner.errors import BadInput
from planner.models.encoders import ENCODERS
from planner.models.ensemble import Ensemble
from planner.models.jepa import JEPAConfig
from planner.testing import check_world_model
from planner.training.batches import draws_of
from planner.types import Context

SHAPES: dict[str, Any] = {
    "next_frame": JEPAConfig(image_size=toys.SIZE, width=8, latent_dim=8, hidden=16, depth=1),
    "recurrent": RecurrentConfig(image_size=toys.SIZE, width=8, latent_dim=8, memory=16, hidden=16),
}
SEES = {"conv": SHAPES, "keypoints": {kind: replace(shape, encoder="keypoints") for kind, shape in SHAPES.items()}}
each_rival = pytest.mark.parametrize("kind", RIVALS)


def toy_rival(kind: str, encoder: str = "conv") -> Rival:
    torch.manual_seed(0)
    model = RIVALS[kind][0](SEES[encoder][kind], toys.SPEC)
    for _ in range(20):
        model.embed(torch.randint(256, (16, toys.SIZE, toys.SIZE, 3), dtype=torch.uint8))
    return model.eval().requires_grad_(False)


def observations(*batch: int) -> TensorDict:
    pixels = torch.randint(256, (*batch, toys.SIZE, toys.SIZE, 3), dtype=torch.uint8)
    return TensorDict({"pixels": pixels}, batch_size=batch)


@each_rival
@pytest.mark.parametrize("encoder", SEES)
@pytest.mark.parametrize("drawn", [False, True])
def test_rivals_keep_what_a_world_model_promises(kind: str, encoder: str, drawn: bool) -> None:
    model = toy_rival(kind, encoder)
    assert type(model.encoder) is type(ENCODERS[encoder](toys.SIZE, 8, 8))
    check_world_model(InPixels(model) if drawn else model, observations(3, model.history))


@each_rival
def test_a_rival_plans_in_latents_and_in_pixels(kind: str) -> None:
    model = toy_rival(kind)
    for energy in ("latent", "pixels"):
        checkpoint = Checkpoint(model, "TwoRoom", "none", toys.PLANNER, "")
        planner = contenders.Contender(kind, 0.0, energy, checkpoint).planner(seed=0)
        planner.reset(observations(2), observations(2))
        actions = planner.act(observations(2))
        assert actions.shape == (2, 2) and np.isfinite(actions).all() and planner.fallbacks == 0


def test_the_energy_in_pixels_is_the_mean_squared_difference_of_pictures() -> None:
    model = InPixels(toy_rival("recurrent"))
    context, goal = Context(model.encode(observations(1, 2)), torch.zeros(1, 1, 10)), model.encode(observations(1, 1))
    futures = model.rollout(context, torch.zeros(1, 1, 3, 10))
    found = LatentDistance(over="last", key="pixels")(futures, goal[:, 0], torch.zeros(1, 1, 3, 10))
    want = (futures["pixels"][0, 0, -1] - goal["pixels"][0, 0]).square().mean()
    torch.testing.assert_close(found[0, 0], want)


@each_rival
@pytest.mark.parametrize("augment", [0.0, 0.8])
def test_training_lowers_the_error_of_what_is_drawn(kind: str, augment: float, tmp_path: Path) -> None:
    store = toys.dot_store(tmp_path, steps=60)
    config = replace(training_config(Options("TwoRoom", kind=kind, augment=augment)), batch=8, horizon=3)
    torch.manual_seed(0)
    model = RIVALS[kind][0](SHAPES[kind], toys.SPEC)
    training = TRAININGS[kind](model, config, store.info)
    batch = draws_of(model, store, config)[0][0]
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        terms = training.losses(batch)
        optimizer.zero_grad()
        sum(weight * terms[name] for name, weight in training.weights().items()).backward()
        optimizer.step()
        losses.append({name: float(terms[name].detach()) for name in training.weights()})
    drawn = [name for name in losses[0] if name in ("prediction", "reconstruction")]
    assert drawn and all(losses[-1][name] < 0.8 * losses[0][name] for name in drawn), (losses[0], losses[-1])


@each_rival
def test_training_resumes_and_minds_its_configuration(kind: str, tmp_path: Path) -> None:
    store = toys.dot_store(tmp_path / "data", steps=60)
    config = replace(training_config(Options("TwoRoom", kind=kind, steps=8)), batch=8, held_out=0.25, horizon=3)
    config = replace(config, save_every=4)
    model = train(store, kind, config, tmp_path / "run", SHAPES[kind])
    again = train(store, kind, config, tmp_path / "run", SHAPES[kind])  # finished: nothing is trained any more
    assert model is not None and again is not None and {"val/psnr_0", "val/psnr_3"} <= set(curves(tmp_path / "run")[8])
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(BadInput, match="another configuration"):
        train(store, kind, replace(config, augment=0.8), tmp_path / "run", SHAPES[kind])


@each_rival
def test_a_rival_that_is_told_no_action_draws_what_any_may_lead_to(kind: str, tmp_path: Path) -> None:
    store = toys.dot_store(tmp_path, steps=60)
    config = replace(training_config(Options("TwoRoom", kind=kind)), batch=8, horizon=3, cold_starts=0.0)
    training = TRAININGS[kind](toy_rival(kind), config, store.info)
    batch = draws_of(training.model, store, config)[0][0]
    torch.testing.assert_close(training.draw(batch)[2], batch["actions"])
    training.blind = True
    assert (training.draw(batch)[2] == training.still).all() and len(training.draw(batch)[2]) == 8


@each_rival
def test_a_rival_goes_on_from_weights_that_it_is_given(kind: str, tmp_path: Path) -> None:
    store, start = toys.dot_store(tmp_path / "data", steps=60), toy_rival(kind)
    config = replace(training_config(Options("TwoRoom", kind=kind, steps=2)), batch=8, held_out=0.25, horizon=3)
    config = replace(config, learning_rate=1e-9, weight_decay=0, save_every=1)
    given = Checkpoint(start, "TwoRoom", "none", toys.PLANNER, "abc")
    model = train(store, kind, config, tmp_path / "run", SHAPES[kind], start=given)
    assert model is not None
    with pytest.raises(BadInput, match="another configuration"):
        train(store, kind, config, tmp_path / "run", SHAPES[kind])
    for (name, value), wanted in zip(model.named_parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-6, rtol=0, msg=name)


def test_weights_that_ship_nowhere_are_judged_as_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before they replace any; what is measured is not measured again, and says how they were trained."""
    room = checkpoint.load(checkpoint.find("TwoRoom", None)).model.action
    model = RIVALS["recurrent"][0](RecurrentConfig(width=8, latent_dim=8, memory=16, hidden=16), room)
    notes = {"training": {"augment": 0.0, "pull": 0.1, "steps": 7, "seed": 0}}
    save(tmp_path / "w", model, task="TwoRoom", renderer="none", planner=toys.PLANNER, notes=notes)
    old = {"training": {"augment": 0.0, "steps": 7, "seed": 0}}
    save(tmp_path / "old", model, task="TwoRoom", renderer="none", planner=toys.PLANNER, notes=old)
    judge.main(judge.Options(tmp_path / "old", severities=(), episodes=1, out=tmp_path / "old.jsonl"))
    assert read(tmp_path / "old.jsonl")[0]["note"] == "pull 0.5, 7 updates, seed 0"
    for _ in range(2):
        judge.main(judge.Options(tmp_path / "w", severities=(), episodes=1, out=tmp_path / "rows.jsonl"))
        assert "none, severity 0: " in capsys.readouterr().out
    (row,) = read(tmp_path / "rows.jsonl")
    assert row["note"] == "pull 0.1, 7 updates, seed 0" and row["model"] == "recurrent" and row["n"] == 1


@each_rival
def test_weights_come_back_as_they_were_saved_and_altered_ones_do_not(kind: str, tmp_path: Path) -> None:
    model, obs = toy_rival(kind), observations(1, 2)
    digest = save(tmp_path, model, task="TwoRoom", renderer="none", planner=toys.PLANNER, notes={})
    loaded = load(tmp_path)
    assert loaded.sha256 == digest and loaded.planner == toys.PLANNER
    assert torch.equal(loaded.model.encode(obs)["latent"], model.encode(obs)["latent"])
    toys.flip_byte(tmp_path / "model.safetensors", -1)
    with pytest.raises(BadInput, match="altered"):
        load(tmp_path)


def test_an_ensemble_keeps_its_predictors_for_one_encoder_alone(tmp_path: Path) -> None:
    """Trained by its command; what comes back foresees as the members do, and not on another encoder."""
    toys.dot_store(tmp_path / "data", steps=60)
    start = tmp_path / "start"
    toys.toy_checkpoint(start)
    words = {"data": tmp_path / "data", "out": tmp_path / "out", "save": tmp_path / "kept", "checkpoint": start}
    ensemble.main(ensemble.Options(members=2, steps=2, **words))
    loaded = checkpoint.load(start)
    found, digest = ensemble.load(tmp_path / "kept", loaded)
    again = ensemble.load(tmp_path / "kept", loaded)[0]
    assert len(digest) == 64 and len(found.members) == 2
    context, actions = Context(found.encode(observations(1, 2)), torch.zeros(1, 1, 10)), torch.rand(1, 3, 2, 10)
    views = found.rollout(context, actions)["members"]
    assert torch.equal(views, again.rollout(context, actions)["members"])
    assert not torch.allclose(views[:, :, :, 0], views[:, :, :, 1])  # seeds of their own
    for name, value in loaded.model.state_dict().items():
        assert name.startswith("predictor.") or torch.equal(value, found.members[1].state_dict()[name])
    with pytest.raises(BadInput, match="is for another encoder"):
        ensemble.load(tmp_path / "kept", replace(loaded, sha256="0" * 64))


class Says:
    """A world model that foresees the same number whatever happens."""

    def __init__(self, number: float) -> None:
        self.number, model = number, toys.toy_model()
        self.action, self.history, self.encode = model.action, model.history, model.encode

    def rollout(self, context: Context, actions: torch.Tensor) -> TensorDict:
        batch = actions.shape[:3]
        return TensorDict({"latent": torch.full((*batch, 8), self.number)}, batch_size=batch)


def test_doubt_is_the_variance_of_what_members_foresee() -> None:
    """Whatever then comes; nothing is foreseen of the first frames."""
    pixels = np.random.default_rng(0).integers(256, size=(31, toys.SIZE, toys.SIZE, 3), dtype=np.uint8)
    film = Film("plain", pixels, np.zeros((30, 2)), np.zeros((31, 2)), 0)
    for numbers, variance in (((2.0, 2.0), 0.0), ((1.0, 3.0), 1.0), ((0.0, 0.0, 3.0), 2.0)):
        judge = expectation.InDoubt("", Ensemble([Says(number) for number in numbers]), "")
        for ahead, energy in judge.energies(film, (1, 3)).items():
            first = surprise.first_step(judge.model, ahead)
            assert np.isnan(energy[:first]).all() and np.allclose(energy[first:], variance)


def test_a_rival_that_draws_without_looks_plans_to_the_goal_as_it_draws_it() -> None:
    """It planned to the goal as it looked: under other light no future that it could draw came near it."""
    model, obs = toy_rival("next_frame"), observations(1, 2)
    seen = InPixels(model, told=True).encode(obs)
    torch.testing.assert_close(seen["pixels"], model.decode(seen["latent"]))
    assert torch.equal(InPixels(model).encode(obs)["pixels"], scaled(obs["pixels"]))
    told = {}
    for task in ("TwoRoom", "PushT"):
        for one in (*contenders.contenders(task), *contenders.contenders(task, "pixels")):
            varied = one.energy == "pixels" and one.augment > 0
            assert ("goal" in one.planned) == one.told == varied
            told[one.energy, one.model, one.augment] = one.planner(0).model
    assert told["pixels", "next_frame", 0.8].told and not told["pixels", "next_frame", 0.0].told


@pytest.mark.parametrize("kind", KINDS)
def test_nuisance_changes_pictures_never_physics_and_does_not_repeat(kind: str) -> None:
    plain, same, changed = (envs.make("TwoRoom") for _ in range(3))
    disturb(same, kind, 0, 1)
    stream = disturb(changed, kind, 3, 1)
    looks = [env.reset(seed=5)[0] for env in (plain, same, changed)]
    behind = []
    for _ in range(3):
        action = np.array([1.0, -0.5])
        looks = [env.step(action)[0] for env in (plain, same, changed)]
        for name in ("pixels", "goal"):
            assert np.array_equal(looks[0][name], looks[1][name]), "severity 0 is the picture itself, bit for bit"
            assert not np.array_equal(looks[0][name], looks[2][name])
        assert np.array_equal(plain.state, changed.state) and np.array_equal(plain.state, same.state)
        behind.append(stream.variables)
    assert len({one.tobytes() for one in behind}) == 3
    for env in (plain, same, changed):
        env.close()


def test_streams_grow_with_severity_and_follow_their_seed() -> None:
    env = envs.make("TwoRoom")
    env.reset(seed=0)
    picture = env.picture()
    env.close()
    for kind in KINDS:
        off = [np.abs(np.subtract(Stream(kind, s, 2)(picture), picture, dtype=np.float64)).mean() for s in range(5)]
        assert off[0] == 0 and (np.diff(off) > 0).all(), (kind, off)
        assert np.array_equal(Stream(kind, 2, 7)(picture), Stream(kind, 2, 7)(picture))
    with pytest.raises(BadInput, match="severity"):
        Stream("noise", 5)
    with pytest.raises(BadInput, match="unknown nuisance"):
        Stream("fog", 1)


def test_probes_find_what_is_there_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(10, 40, 6, generator=generator)
    there = latents @ torch.randn(6, 2, generator=generator) + 3
    assert readable(latents, there) > 0.99
    assert readable(latents, torch.randn(10, 40, 2, generator=generator)) < 0.05
    torch.testing.assert_close(
        Probe.fit(latents.flatten(0, 1), there.flatten(0, 1))(latents).float(), there, atol=0.1, rtol=0
    )


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_the_share_of_variance_is_the_one_that_was_put_in(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    state, looks = torch.randn(4000, 1, 5, generator=generator), torch.randn(4000, 8, 5, generator=generator)
    assert abs(variance_share((1 - share) ** 0.5 * state + share**0.5 * looks) - share) < 0.02


@pytest.mark.parametrize("kind", ["light", "video", "distractors"])
def test_what_only_a_nuisance_changes_is_all_nuisance(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks that followed each other in one stream were alike, and light was said to be a seventh of what it was."""
    grey = torch.full((8, 21, 64, 64, 3), 120, dtype=torch.uint8)
    monkeypatch.setattr(noise, "play_clips", lambda *_: SimpleNamespace(pixels=grey, state=torch.randn(8, 21, 4)))

    class Means:
        def embed(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.float().unflatten(-3, (4, 16)).unflatten(-2, (4, 16)).mean((-4, -2)).flatten(-3)

    loaded: Any = SimpleNamespace(task="TwoRoom", model=Means(), sha256="")
    report = Rows(tmp_path / "rows.jsonl")
    noise.look(contenders.Contender("jepa", 0.0, "latent", loaded), kind, 8, report)
    (row,) = read(report.path)
    assert row["nuisance_share"] > 0.9


def test_pictures_keep_their_numbers_there_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(shown(scaled(pixels)), pixels)


def test_psnr_counts_what_it_is_told_to() -> None:
    truth = torch.zeros(2, 3, 8, 8, 3)
    drawn, counts = truth.clone(), torch.zeros_like(truth, dtype=torch.bool)
    drawn[:, 1], counts[..., :4, :, :] = 0.2, True
    drawn[:, 2, 4:] = 1.0  # where it does not count
    found = quality.psnrs(drawn, truth, counts)
    assert found[0] == float("inf") and found[1] == pytest.approx(20.0) and found[2] == float("inf")


def test_disturbed_clips_are_streams_an_episode() -> None:
    pixels = torch.full((2, 3, 16, 16, 3), 100, dtype=torch.uint8)
    looks, behind = disturbed(pixels, "light", 2)
    assert looks.shape == pixels.shape and behind.shape == (2, 3, 1)
    assert not torch.equal(behind[0], behind[1])


def test_the_renderer_imagines_what_then_happens() -> None:
    env, model = envs.make("TwoRoom"), Renderer(envs.make("TwoRoom"))
    obs, info = env.reset(seed=0)
    seen = {"pixels": torch.from_numpy(obs["pixels"])[None, None], "state": torch.from_numpy(info["state"])[None, None]}
    context = Context(model.encode(TensorDict(seen, batch_size=[1, 1])), torch.zeros(1, 0, 10))
    plans = torch.rand(1, 2, 2, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
    futures = model.rollout(context, plans)["pixels"]
    for action in model.action.decode(plans[0, 1]).flatten(0, 1).numpy():
        obs, *_ = env.step(action)
    assert torch.equal(shown(futures[0, 1, -1]), torch.from_numpy(obs["pixels"]))
    env.close()


def test_an_error_in_latents_is_told_beside_that_of_no_change() -> None:
    now, then = torch.zeros(3, 1, 2), torch.tensor([1.0, 2.0]).view(1, 2, 1).expand(3, 2, 2)
    assert cost.beside_no_change(then, then, now) == [0, 0]
    assert cost.beside_no_change(now.expand_as(then), then, now) == [1, 1]
    assert cost.beside_no_change(torch.full((3, 2, 2), 3.0), then, now) == [4, 0.25]


def test_costs_are_counted() -> None:
    weight, inputs = torch.ones(64, 32), torch.ones(10, 32)
    (found,) = in_turn({"product": lambda: inputs @ weight.T}, repeats=2).values()
    assert found["flops"] == 2 * 10 * 32 * 64 and found["peak_bytes"] == 4 * 10 * 64 and found["ms"] > 0


def test_rows_that_are_there_are_not_measured_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(
        toys.toy_model(shape=replace(toys.SHAPE, image_size=64)), "TwoRoom", "none", toys.PLANNER, "abc"
    )
    contender, out = contenders.Contender("jepa", 0.0, "latent", checkpoint), tmp_path / "rows.jsonl"
    noise.play(contender, "light", 1, 2, Rows(out))
    noise.play(contender, "light", 1, 2, Rows(out))
    assert len(read(out)) == 1
    noise.play(contender, "light", 2, 2, Rows(out))
    other = replace(contender, checkpoint=replace(checkpoint, sha256="other weights"))
    noise.play(other, "light", 1, 2, Rows(out))
    noise.play(contender, "light", 1, 2, Rows(out, fresh=True))
    rows = read(out)
    assert [row["severity"] for row in rows] == [1, 2, 1, 1]
    hurried = replace(contender, checkpoint=replace(checkpoint, planner=replace(checkpoint.planner, samples=5)))
    noise.play(hurried, "light", 2, 2, Rows(out))
    assert len(read(out)) == 5, "another planner's figures were taken for its own, as weights alone told rows apart"
    untold = {key: value for key, value in rows[0].items() if key != "planner"}
    out.write_text(json.dumps(untold) + "\n")
    noise.play(contender, "light", 1, 2, Rows(out))
    assert len(read(out)) == 2, "a row that does not say by which settings passed for one of any settings"
    assert all({"date", "hardware", "commit", "interval"} <= set(row) for row in rows)
    assert len(report.latest(rows)) == 2, "of the same measurement the last counts"
    assert len(report.latest([rows[0], rows[0] | {"goal": "drawn"}])) == 1, "however its goal was given"


@pytest.mark.parametrize("task", contenders.TASKS)
def test_all_are_planned_alike_and_judged_by_where_it_is_that_counts(task: str) -> None:
    """Reacher's planner asks a head for the steps left, which no rival has; PushT's recipe plans with wider noise."""
    plans = set()
    for contender in contenders.contenders(task):
        planner = contender.planner(0)
        assert planner.energy == LatentDistance(metric="l2", over="min")
        plans.add((planner.optimizer, planner.horizon, planner.iterations, planner.replan))
    assert len(plans) == 1
    env = envs.make(task, size=16)
    clips = play_clips(env, 2, 3)
    found = place(task, clips.state)
    assert found.shape == (2, 4, 2) and (found[:, 1:] != found[:, :-1]).any() and found.abs().max() < 2
    env.close()


def test_what_counts_on_pusht_is_the_block() -> None:
    """A robot's own place is known to every latent; whether a push moves the block is what has to be foreseen."""
    names = envs.make("PushT", size=16).state_names
    state = torch.arange(len(names), dtype=torch.float32)
    assert [names[int(index)] for index in place("PushT", state)] == ["block_x", "block_y"]


@pytest.mark.parametrize("task", contenders.TASKS)
def test_weights_that_are_compared_are_what_their_commands_make(task: str) -> None:
    """One command a task trains everybody; what it says now is what the files say that was done."""
    made = dict(everyone.commands(task))
    missing = {folder for folder in made if folder.parent.name == "weights" and not folder.exists()}
    assert not missing
    for folder, words in made.items():
        if words[:2] == ["jepa-mpc", "train"]:  # one said an option that there is not
            asked, recipe = cli._parse(words[1:]), plain_recipe(task)
            assert isinstance(asked, cli.COMMANDS["train"])
            assert asked.model == replace(recipe.model, temporal=0) and asked.training.symmetric is False
        if folder.name in ("pusht-jepa-0", "reacher-jepa-0"):  # TwoRoom's was trained before there was one command
            (told,) = re.findall(r"command \| `(.*)`", (folder / "card.md").read_text())
            since = everyone.as_then(task)  # it was the recipe, and need not be said
            assert sorted([*shlex.split(told), *since]) == sorted(words)
        if words[2:3] != ["benchmarks.claims.rival"]:
            continue
        options, said = tyro.cli(Options, args=words[3:]), json.loads((folder / "config.json").read_text())
        done, asked = said["training"], asdict(training_config(options))
        asked |= {"pull": options.pull} if options.kind == "recurrent" else {}
        differ = {name for name in done.keys() & asked.keys() if done[name] != asked[name]}
        assert not differ, f"{folder}: {differ}"
        shape = asdict(shape_for(task, options.kind, said["model"]["image_size"], options.width))
        assert said["kind"] == options.kind and said["model"].items() <= shape.items()
        assert options.start is None or (
            options.start in made and list(made).index(options.start) < list(made).index(folder)
        )


def test_who_trains_everybody_leaves_whom_it_finds_and_stops_where_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.touch()
    steps = [(there, ["python", "-c", "print('never')"]), (tmp_path / "new", ["python", "-c", "print('made')"])]
    steps += [
        (tmp_path / "fails", ["python", "-c", "raise SystemExit(7)"]),
        (tmp_path / "after", ["python", "-c", "1"]),
    ]
    monkeypatch.setattr(everyone, "commands", lambda task: steps)
    everyone.main(everyone.Options("PushT", dry_run=True))
    assert "made\n" not in capfd.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        everyone.main(everyone.Options("PushT"))
    told = capfd.readouterr().out
    assert stopped.value.code == 7 and "\nmade\n" in told and "\nnever\n" not in told and "-c 1" not in told
    with pytest.raises(BadInput, match="nobody is compared"):
        everyone.main(everyone.Options("Cube"))


def test_every_part_is_measured_once_and_costs_alone() -> None:
    assert sorted(["cost", *parts.TOGETHER]) == sorted(parts.PARTS)
    wanted = parts.jobs(tuple(parts.PARTS), ("TwoRoom",), quick=False)
    assert len(set(wanted)) == len(wanted) == 2 * 1 + 2 * len(SCENES)
    assert wanted[0] == ("noise", "TwoRoom"), "the longest by far, which would else be waited for in the end"
    assert {task for part, task in wanted if part == "belief"} == set(SCENES)
    assert parts.jobs(("belief", "cost"), (), quick=True) == [("belief", "TwoRoom")]


def test_a_measuring_process_does_not_outlive_the_run_that_was_killed(tmp_path: Path) -> None:
    """It measured on for twenty minutes, and appended rows that nobody waited for."""
    (tmp_path / "run.py").write_text(
        "import os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from benchmarks.claims.processes import end_with_parent\n"
        "def measure():\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "    print('outlived', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1, get_context('spawn'), end_with_parent) as pool:\n"
        "        pool.submit(measure).result()\n"
    )
    command = [sys.executable, str(tmp_path / "run.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}) as run:
        assert run.stdout and int(run.stdout.readline()) > 0
        run.kill()
        # The pipe is closed when the last process that writes to it is gone.
        assert run.stdout.read() == ""


JOBS = """
import sys, time
from pathlib import Path
from benchmarks.claims.processes import side_by_side
def work(folder, number):
    (Path(folder) / str(number)).touch()
    if number == 0 and len(sys.argv) > 2:
        raise OSError("no such weights")
    time.sleep(float(Path(folder, "each").read_text()))
if __name__ == "__main__":
    side_by_side(work, [(sys.argv[1], number) for number in range(6)])
    print("over")
"""


@pytest.mark.parametrize("how", ["whole", "fails", "stopped"])
def test_parts_go_side_by_side_and_none_begins_after_one_failed(how: str, tmp_path: Path) -> None:
    """Ctrl-C ended two of twelve parts, and the others were measured on; so did what failed."""
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "each").write_text("60" if how == "stopped" else "0.5")
    command = [sys.executable, str(tmp_path / "jobs.py"), str(tmp_path), *(["fail"] if how == "fails" else [])]
    started: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started |= {"start_new_session": True, "env": os.environ | {"PYTHONPATH": "."}}
    # Where tests run in a shell's background Ctrl-C is ignored, by them and by whatever they start.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, preexec_fn=heeding, **started) as run:
        try:
            if how == "stopped":
                while not ((tmp_path / "0").exists() and (tmp_path / "1").exists()):
                    time.sleep(0.1)
                os.killpg(run.pid, signal.SIGINT)
            out, err = run.communicate(timeout=50)
        finally:
            run.kill()  # one that did not end would be waited for without end
    begun = sum((tmp_path / str(number)).exists() for number in range(6))
    assert (run.returncode == 0, out, begun) == ((True, "over\n", 6) if how == "whole" else (False, "", 2))
    assert how != "fails" or "failed, and ends when what is beside it does: OSError('no such weights')" in err


def test_a_row_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes append to the same file; a row in two writes could have another's row in its middle."""
    written: list[bytes] = []

    class File(io.BytesIO):
        def write(self, data: Any) -> int:
            written.append(bytes(data))
            return len(data)

    rows = Rows(tmp_path / "rows.jsonl")
    opened: list[Any] = []
    monkeypatch.setattr(Path, "open", lambda *words, **options: opened.append((words[1], options)) or File())
    rows({"trace": [0.5] * 10_000})
    (line,) = written
    assert opened == [("ab", {"buffering": 0})] and line.endswith(b"}\n") and len(json.loads(line)["trace"]) == 10_000


def test_the_page_stands_alone_and_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    report.write(rows.known, tmp_path / "empty.html", tmp_path)
    assert "Noise" not in (tmp_path / "empty.html").read_text()
    who = {
        "part": "noise",
        "kind": "success",
        "task": "TwoRoom",
        "model": "jepa",
        "augment": 0.0,
        "energy": "latent",
        "note": "",
    }
    for severity, kind in enumerate(("none", "light", "light")):
        found = {"severity": severity, "successes": 3, "n": 4, "success_rate": 0.75, "interval": [0.3, 0.95]}
        rows(who | found | {"nuisance": kind})
    report.write(rows.known, tmp_path / "page.html", tmp_path, tmp_path)
    page = (tmp_path / "page.html").read_text()
    assert "3 of 4" in page and "<svg" in page and 'src="http' not in page and (tmp_path / "claims.png").exists()


def test_rows_of_weights_that_are_gone_leave_the_page() -> None:
    """Rivals that were trained anew stood there twice, and one that is compared no longer stood there for ever."""
    (shipped, *_) = contenders.contenders("TwoRoom")
    for row in ({"sha256": shipped.checkpoint.sha256}, {"checkpoint_sha256": shipped.checkpoint.sha256}):
        gone = dict.fromkeys(row, "0" * 64)
        assert report.present([row, gone, {"sha256": "untrained"}, {}]) == [row, {"sha256": "untrained"}, {}]


def test_a_row_names_the_commit_that_the_work_began_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long evaluation was once recorded with the commit that its checkout had reached when it ended."""
    head = ["began"]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=head[0]))
    versions.commit.cache_clear()
    try:
        rows = Rows(tmp_path / "rows.jsonl")
        head[0] = "ended"
        rows({"part": "noise"})
        assert rows.known[0]["commit"] == "began"
    finally:
        versions.commit.cache_clear()
