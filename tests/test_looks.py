"""An encoder that is taught to see through looks: plain and varied pictures then get the latent of the plain one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import SIZE, cut_and_resumed, dot_store, toy_checkpoint, toy_model

from planner import checkpoint
from planner.augment import vary
from planner.cards import curves
from planner.cli import main
from planner.data import EpisodeStore, split_rows
from planner.errors import BadInput
from planner.models.jepa import JEPA
from planner.settings import PlannerConfig, TrainConfig
from planner.training import join, learn_looks, looks, pretrain, train
from planner.training.batches import Pictures
from planner.training.looks import LooksTraining, varied
from planner.training.stages import one_cycle


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that say how far joined encoders agree: in batches of eight, 4,000 take most of a minute."""
    monkeypatch.setattr(looks, "AGREE_ON", 160)


CONFIG = TrainConfig(steps=12, batch=8, augment=0.8, held_out=0.25, save_every=5)


@torch.no_grad()
def seeing(pixels: Tensor, seed: int = 0) -> JEPA:
    """A JEPA of random weights to whose latents `pixels` give variance 1, as after training."""
    model, some = toy_model(seed).train(), pixels[:: max(1, len(pixels) // 200)]
    for _ in range(30):
        model.embed(some)
    return model.eval().to(memory_format=torch.channels_last)  # as a loaded checkpoint is


def scenes(path: Path, **facts: Any) -> EpisodeStore:
    """The dot on a grey floor: on a black one light would change nothing."""
    store = dot_store(path, **facts)
    store.data["pixels"].clamp_(80, 200)
    return store


def learn(
    path: Path, config: TrainConfig = CONFIG, *, retina: bool = False, more: dict[str, bool] | None = None, **facts: Any
) -> Any:
    store = scenes(path / "data", **facts)
    model = seeing(store.data["pixels"].flatten(0, 1))
    if retina:
        torch.manual_seed(0)
        model = model.adapted(**more or {})
    return learn_looks(model, store, config, path / "out", weights="abc", tensorboard=False)


def test_looks_that_do_not_move() -> None:
    """`training.shift` reaches what draws the looks: with the same draws for all else, edges stand still without."""
    floor = torch.full((64, SIZE, SIZE, 3), 120, dtype=torch.uint8)
    floor[:, :, SIZE // 2 :] = 40

    def smeared(shift: bool) -> float:
        """Share of pictures whose edge is not where it was."""
        torch.manual_seed(0)
        looks = varied(floor, replace(CONFIG, shift=shift)).float().mean((1, 3))
        step = looks[:, SIZE // 2 - 1] - looks[:, SIZE // 2]
        return float((step < 0.5 * (looks[:, 2] - looks[:, -3])).float().mean())

    assert smeared(False) == 0 and smeared(True) > 0.1


def test_varied_pictures_get_the_latents_of_plain_ones(tmp_path: Path) -> None:
    """On episodes that were held out, and against a teacher that stands still while its student learns."""
    config = replace(CONFIG, steps=240, batch=32, learning_rate=3e-3)
    taught = learn(tmp_path, config, episodes=60)
    pixels = scenes(tmp_path / "fresh", seed=5).data["pixels"].flatten(0, 1)
    torch.manual_seed(0)
    strange = vary(pixels[:, None], 0.8)[:, 0]
    start = seeing(scenes(tmp_path / "data", episodes=60).data["pixels"].flatten(0, 1))
    want = start.embed(pixels)
    looks = start.embed(strange), taught.embed(strange), taught.embed(pixels)
    before, after, plain = ((latents - want).square().mean() for latents in looks)
    assert after < 0.5 * before and plain < 0.15
    assert sorted(curves(tmp_path / "out")[240]) == ["val/plain", "val/untaught", "val/varied"]


@pytest.mark.parametrize("surround", [False, True])
@pytest.mark.parametrize(("gaze", "shift"), [(False, True), (True, True), (True, False)])
def test_a_retina_learns_with_the_encoder_behind_it(gaze: bool, shift: bool, surround: bool, tmp_path: Path) -> None:
    """And so do a surround, and a gaze, but where no picture lies aside: it would unlearn to move any."""
    store = scenes(tmp_path / "data")
    model = seeing(store.data["pixels"].flatten(0, 1)).adapted(gaze=gaze, surround=surround)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = replace(CONFIG, shift=shift)
    taught = learn_looks(model, store, config, tmp_path / "out", weights="abc", tensorboard=False)
    assert taught is not None
    changed = {name for name, value in taught.state_dict().items() if not torch.equal(value, before[name])}
    learns = {name for name, _ in taught.named_parameters() if name.startswith("encoder.")}
    assert changed == {name for name in learns if shift or ".gaze." not in name}


def test_only_the_encoders_weights_change_and_not_its_statistics(tmp_path: Path) -> None:
    taught, before = learn(tmp_path), seeing(scenes(tmp_path / "data").data["pixels"].flatten(0, 1)).state_dict()
    changed = {name for name, value in taught.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and changed <= {name for name, _ in taught.named_parameters() if name.startswith("encoder.")}
    assert not taught.training


@pytest.mark.parametrize("more", [None, {}, {"gaze": True, "surround": True}])
def test_a_power_cut_costs_no_bit(
    more: dict[str, bool] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retina = more is not None
    config = replace(CONFIG, repaint=retina)
    straight = learn(tmp_path / "straight", config, retina=retina, more=more)
    again = partial(learn, tmp_path / "cut", config, retina=retina, more=more)
    steps, resumed = cut_and_resumed(monkeypatch, LooksTraining, again)
    assert steps == list(range(5, 12))  # saved every five
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_pictures_come_from_the_rows_that_were_given(tmp_path: Path) -> None:
    store = dot_store(tmp_path)
    draws = Pictures(store, torch.tensor([1, 4]), 64, seed=0)
    known = {bytes(picture.numpy()) for row in (1, 4) for picture in store.data["pixels"][row]}
    assert all(bytes(picture.numpy()) in known for picture in draws[0]["pixels"])
    one, again, other = (draws[i]["pixels"] for i in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_the_command_keeps_the_planner_and_tells_the_card(tmp_path: Path) -> None:
    dot_store(tmp_path / "data")
    start = toy_checkpoint(tmp_path / "start")
    words = ["looks", "TwoRoom", "--data", str(tmp_path / "data"), "--checkpoint", str(start), "--out"]
    words += [str(tmp_path / "out"), "--training.steps", "4", "--training.batch", "8", "--training.held-out", "0.25"]
    main(words)
    before, after = checkpoint.load(start), checkpoint.load(tmp_path / "out/checkpoint")
    assert after.planner == before.planner and after.sha256 != before.sha256
    card = (tmp_path / "out/checkpoint/card.md").read_text()
    assert "4 updates of 8 pictures of 6 episodes of play (seed 0), looks varied by 0.8" in card
    assert before.sha256[:12] in card
    assert "| varied |" in card
    assert after.model.config == replace(before.model.config, encoder="conv+retina") and "(conv+retina)" in card


def test_a_retina_is_put_in_once_and_left_out_where_told_to(tmp_path: Path) -> None:
    dot_store(tmp_path / "data")
    start = toy_checkpoint(tmp_path / "start")
    for given, words, encoder in (
        (start, ["--no-retina"], "conv"),
        (start, [], "conv+retina"),
        (tmp_path / "conv+retina", [], "conv+retina"),
        (tmp_path / "conv+retina", ["--no-retina"], "conv+retina"),  # it is a part of that encoder
        (tmp_path / "conv+retina", ["--gaze", "--training.shift"], "conv+retina+gaze"),
        (tmp_path / "conv+retina+gaze", [], "conv+retina+gaze"),
        (tmp_path / "conv+retina+gaze", ["--surround"], "conv+retina+gaze+surround"),
    ):
        saved = tmp_path / encoder
        words = ["looks", "TwoRoom", "--data", str(tmp_path / "data"), "--checkpoint", str(given), *words]
        words += ["--save", str(saved), "--out", str(tmp_path / f"out{len(list(tmp_path.iterdir()))}")]
        main([*words, "--training.steps", "2", "--training.batch", "4", "--training.held-out", "0.25"])
        assert checkpoint.load(saved).model.config.encoder == encoder


@pytest.mark.parametrize("words", [["--gaze"], ["--gaze", "--training.shift", "--no-retina"]])
def test_a_gaze_needs_shifted_pictures_and_a_retina(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Other looks alone would make it move pictures that lie where they should."""
    with pytest.raises(SystemExit) as stop:
        main(["looks", "TwoRoom", *words])
    assert stop.value.code == 2
    assert "nothing to learn a gaze from" in capsys.readouterr().err


def test_a_surround_stands_behind_a_retina(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["looks", "TwoRoom", "--surround", "--no-retina"])
    assert "leave --no-retina out" in capsys.readouterr().err


def test_a_teacher_of_another_renderer_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the teacher whose latents of these pictures are taught."""
    dot_store(tmp_path / "data")
    teacher = tmp_path / "teacher"
    checkpoint.save(teacher, toy_model(), task="TwoRoom", renderer="rays", planner=PlannerConfig(), card="")
    words = ["looks", "TwoRoom", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--checkpoint", str(toy_checkpoint(tmp_path / "start")), "--teacher", str(teacher)])
    assert "the pictures are another renderer's" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["looks", "join"])
def test_pictures_of_another_renderer_are_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder that is to be imitated has never seen such pictures."""
    dot_store(tmp_path / "data", renderer="rays")
    start = str(toy_checkpoint(tmp_path / "start"))
    words = [command, "TwoRoom", "--data", str(tmp_path / "data")]
    words += ["--taught", start] if command == "join" else ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--checkpoint", start])
    said = capsys.readouterr()
    assert f"{command}: the pictures are another renderer's; expected none; got rays" in said.err
    assert "warning" not in said.out  # what is refused is not warned of before


@pytest.mark.parametrize("command", ["polish", "prior", "temporal"])
def test_of_pictures_of_another_renderer_who_teaches_further_is_warned(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The encoder has never seen such pictures; but where that machine plans it sees them, too."""
    dot_store(tmp_path / "data", renderer="rays")
    start, steps = str(toy_checkpoint(tmp_path / "start")), {"polish": "", "prior": "prior-", "temporal": "temporal-"}
    words = [command, "TwoRoom", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    words += ["--checkpoint", start]
    words += [f"--training.{steps[command]}steps", "2", "--training.held-out", "0.25"]
    words += {"polish": ["--training.horizon", "1"], "prior": ["--horizon", "1", "--width", "16"]}.get(command, [])
    main(words)
    said = " ".join(capsys.readouterr().out.split())
    assert "are of rays; the encoder, which stands still, was trained on none's" in said
    assert checkpoint.load(tmp_path / "out/checkpoint").renderer == "none"


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 40])
def test_a_rate_rises_and_falls_however_few_the_steps(steps: int) -> None:
    """Nineteen divided by zero."""
    made = one_cycle(nn.Linear(1, 1), replace(CONFIG, steps=steps))
    schedule = made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(steps):
        rates += schedule.get_last_lr()
        made["optimizer"].step()
        schedule.step()
    assert max(rates) <= CONFIG.learning_rate * (1 + 1e-9) and rates[0] < CONFIG.learning_rate
    assert steps < 3 or max(rates) > 0.9 * CONFIG.learning_rate


def test_what_cannot_be_taught_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="looks: augment is off; expected more than 0, at most 1; got 0"):
        learn(tmp_path / "a", replace(CONFIG, augment=0.0))
    with pytest.raises(BadInput, match="has too few episodes; expected at least 2"):
        learn(tmp_path / "c", episodes=1)
    store = dot_store(tmp_path / "b", size=48)
    with pytest.raises(BadInput, match=r"image sizes differ; expected 48 \(the dataset's\); got 32"):
        learn_looks(toy_model(), store, CONFIG, tmp_path / "out", weights="abc", tensorboard=False)


# Joining -----------------------------------------------------------------------------------------------------------


def joined(
    path: Path, wrong: float = 0.1, pictures: Callable[..., EpisodeStore] = scenes, **facts: Any
) -> tuple[JEPA, JEPA, EpisodeStore, dict[str, float]]:
    """A joined model, the one that it came of, their pictures, and what is told of it.

    A copy of the encoder stands for the taught one, each feature off by so many of its standard deviations.
    """
    store = pictures(path / "data", **facts)
    model = seeing(store.data["pixels"].flatten(0, 1))
    taught = model.adapted()
    normalise = taught.encoder.encoder.normalise
    normalise.running_mean += (
        wrong * normalise.running_var.sqrt() * torch.linspace(0.5, 1.5, len(normalise.running_mean))
    )
    found, told = join(model, taught, store, CONFIG)
    return found, model, store, told


def test_encoders_agree_on_held_out_plain_pictures(tmp_path: Path) -> None:
    """Where an error is the same for all pictures, so is the distance up to which they agree."""
    found, model, store, told = joined(tmp_path)
    assert told["apart"] == pytest.approx(0.01 * torch.linspace(0.5, 1.5, 8).square().mean().item(), rel=1e-3)
    assert told["plain"] > 0.9 and found.encoder.apart.item() == pytest.approx(told["apart"])
    pixels = store.data["pixels"].flatten(0, 1)
    agree = (found.embed(pixels) == model.embed(pixels)).all(1)
    assert agree.double().mean() > 0.5
    for name, value in model.state_dict().items():
        new = name.replace("encoder.", "encoder.plain.", 1) if name.startswith("encoder.") else name
        assert torch.equal(found.state_dict()[new], value), name


def test_pictures_with_another_look_are_told_by_what_the_encoders_make_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that sees through looks, beside one that does not, as training leaves them."""
    monkeypatch.setattr(looks, "AGREE_ON", 800)
    config = replace(CONFIG, steps=500, batch=32, shift=False)  # the toy's latents, of a dot, hang on its place
    store = scenes(tmp_path / "data", episodes=60)
    model = seeing(store.data["pixels"].flatten(0, 1))
    torch.manual_seed(0)  # of the retina: what other tests drew before decided on the outcome
    taught = learn_looks(model.adapted(), store, config, tmp_path / "out", weights="abc", tensorboard=False)
    assert taught is not None
    found, told = join(model, taught, store, config)
    assert 0.9 < told["plain"] < 0.985 and told["varied"] < 0.5, "95 in 100, give or take a few other episodes"
    pixels = scenes(tmp_path / "fresh", seed=5).data["pixels"].flatten(0, 1)
    dark = (pixels.float() * 0.4).to(torch.uint8)
    want = model.embed(pixels)
    wrong = {one: (one.embed(dark) - want).square().mean() for one in (model, taught, found)}
    assert wrong[found] <= wrong[taught] + told["apart"] < wrong[model]
    assert (found.embed(pixels) - want).square().mean() < 0.3 * (taught.embed(pixels) - want).square().mean()


def test_strangers_are_not_joined(tmp_path: Path) -> None:
    """Latents that mean other things would lead the planner anywhere as soon as a lamp is lit."""
    with pytest.raises(BadInput, match=r"latents differ in meaning; expected .* 0.5 at most .*; got 1.1\d; .*looks"):
        joined(tmp_path / "a", wrong=1.0)
    with pytest.raises(BadInput, match=r"image sizes differ; expected 48 \(the dataset's\); got 32"):
        join(toy_model(), toy_model().adapted(), dot_store(tmp_path / "c", size=48), CONFIG)


def test_a_joined_encoder_stands_still(tmp_path: Path) -> None:
    """Which of the two sees a picture is no part of any loss."""
    store, shape = dot_store(tmp_path / "data"), replace(toy_model().config, encoder="conv+joined")
    out = tmp_path / "out"
    with pytest.raises(BadInput, match="training: a joined encoder stands still; expected freeze"):
        train(store, shape, CONFIG, out, tensorboard=False)
    with pytest.raises(BadInput, match="pretrain: a joined encoder stands still"):
        pretrain(store, shape, CONFIG, out, tensorboard=False)


def test_a_gaze_is_not_trained_where_no_picture_lies_aside(tmp_path: Path) -> None:
    """It would learn to move nothing, and the camera's shift would be as bad as without it."""
    store, shape = dot_store(tmp_path / "data"), replace(toy_model().config, encoder="conv+retina+gaze")
    for config in (replace(CONFIG, augment=0.0), replace(CONFIG, augment=0.5, shift=False)):
        with pytest.raises(BadInput, match="nothing to learn a gaze from; expected shifted pictures; got augment 0"):
            train(store, shape, config, tmp_path / "out", tensorboard=False)
        with pytest.raises(BadInput, match="nothing to learn a gaze from; expected shifted pictures; got augment 0"):
            pretrain(store, shape, config, tmp_path / "encoder", tensorboard=False)


@pytest.mark.parametrize("words", [[], ["--gaze", "--training.shift"], ["--no-retina"]])
def test_of_a_joined_encoder_the_taught_half_learns_on(words: list[str], tmp_path: Path) -> None:
    """It had to be taken apart, for which the weights from before had to be at hand, and joined again."""
    model, _, store, _ = joined(tmp_path, pictures=dot_store)
    checkpoint.save(tmp_path / "start", model, task="TwoRoom", renderer="none", planner=PlannerConfig(), card="# It")
    given = ["--data", str(store.path), "--checkpoint", str(tmp_path / "start"), "--out", str(tmp_path / "out")]
    few = ["--training.steps", "4", "--training.batch", "8", "--training.held-out", "0.25"]
    main(["looks", "TwoRoom", *given, *few, *words, "--training.learning-rate", "1e-5"])
    after = checkpoint.load(tmp_path / "out/checkpoint").model
    assert after.config == replace(model.config, encoder="conv+joined" + "+gaze" * ("--gaze" in words))
    pixels = store.data["pixels"].flatten(0, 1)
    assert torch.equal(after.encoder.plain(pixels), model.encoder.plain(pixels))
    assert not torch.equal(after.encoder.taught(pixels), model.encoder.taught(pixels))
    assert after.encoder.apart > 0 and after.encoder.apart != model.encoder.apart
    card = (tmp_path / "out/checkpoint/card.md").read_text()
    assert f"agree up to a mean square distance of {after.encoder.apart:.3f} since" in card


def test_the_taught_half_learns_from_the_exact_one(tmp_path: Path) -> None:
    """Its own latents, off by half a standard deviation, were what it would have kept."""
    model, plain, store, told = joined(tmp_path, wrong=0.5, episodes=120)
    config = replace(CONFIG, steps=100, batch=32, learning_rate=3e-3, shift=False)
    taught = learn_looks(model, store, config, tmp_path / "out", weights="abc", tensorboard=False)
    assert taught is not None
    pixels = scenes(tmp_path / "fresh", seed=5).data["pixels"].flatten(0, 1)
    wrong = (taught.encoder.taught(pixels) - plain.embed(pixels)).square().mean()
    assert wrong < 0.3 * told["apart"]
    assert taught.encoder.apart < told["apart"]


def test_who_is_taught_again_learns_what_was_taught_first(tmp_path: Path) -> None:
    """By itself, off by half a standard deviation, it would keep that, and be off by more each time."""
    store = scenes(tmp_path / "data", episodes=60)
    first = seeing(store.data["pixels"].flatten(0, 1))
    config = replace(CONFIG, steps=100, batch=32, learning_rate=3e-3, shift=False)
    wrong = {}
    for name, teacher in {"itself": None, "first": (first, "abc")}.items():
        model = deepcopy(first)
        model.encoder.normalise.running_mean += 0.5 * model.encoder.normalise.running_var.sqrt()
        taught = learn_looks(model, store, config, tmp_path / name, weights="def", tensorboard=False, teacher=teacher)
        assert taught is not None
        pixels = scenes(tmp_path / "fresh", seed=5).data["pixels"].flatten(0, 1)
        wrong[name] = (taught.embed(pixels) - first.embed(pixels)).square().mean().item()
    assert wrong["first"] < 0.3 * wrong["itself"]


def test_a_teacher_fits(tmp_path: Path) -> None:
    again = partial(learn_looks, config=CONFIG, out=tmp_path / "out", weights="abc", tensorboard=False)
    store = dot_store(tmp_path / "data")
    pixels = store.data["pixels"].flatten(0, 1)
    model, stranger = seeing(pixels), seeing(pixels, seed=7)
    other = toy_model(shape=replace(model.config, latent_dim=10))
    with pytest.raises(BadInput, match="teacher does not fit: latent_dim; expected 8; got 10"):
        again(model, store, teacher=(other, "def"))
    with pytest.raises(BadInput, match="the taught half of a joined encoder learns from the exact one"):
        again(model.joined(model.adapted(), 0.1), store, teacher=(model, "def"))
    with pytest.raises(BadInput, match="the teacher's latents differ in meaning; .* 0.5 apart at most"):
        again(model, store, teacher=(stranger, "def"))
    again(seeing(pixels), store)
    with pytest.raises(BadInput, match="got teacher None"):
        again(seeing(pixels), store, teacher=(model, "def"))
    again(seeing(pixels), store, teacher=(model, "def"), out=tmp_path / "other")
    with pytest.raises(BadInput, match="got teacher def"):
        again(seeing(pixels), store, out=tmp_path / "other")


def test_the_command_names_the_teacher(tmp_path: Path) -> None:
    dot_store(tmp_path / "data", episodes=40)
    start, teacher = toy_checkpoint(tmp_path / "start"), tmp_path / "teacher"
    checkpoint.save(teacher, toy_model(), task="TwoRoom", renderer="none", planner=PlannerConfig(), card="")
    given = ["--data", str(tmp_path / "data"), "--checkpoint", str(start), "--teacher", str(teacher)]
    few = ["--training.steps", "4", "--training.batch", "8", "--training.held-out", "0.25"]
    main(["looks", "TwoRoom", *given, "--save", str(tmp_path / "taught"), "--out", str(tmp_path / "a"), *few])
    card, whose = (tmp_path / "taught/card.md").read_text(), checkpoint.load(teacher).sha256[:12]
    assert f"the latent that the weights {whose} had" in card and "| held-out pictures | these | after |" in card


def test_the_command_joins_and_tells_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dot_store(tmp_path / "data", episodes=40)
    start = toy_checkpoint(tmp_path / "start")
    given = ["--data", str(tmp_path / "data"), "--checkpoint", str(start)]
    few = ["--training.steps", "4", "--training.batch", "8", "--training.held-out", "0.25"]
    main(["looks", "TwoRoom", *given, "--save", str(tmp_path / "taught"), "--out", str(tmp_path / "a"), *few])
    polished = [
        "--data",
        str(tmp_path / "data"),
        "--checkpoint",
        str(tmp_path / "taught"),
        "--out",
        str(tmp_path / "b"),
    ]
    main(["polish", "TwoRoom", *polished, "--save", str(tmp_path / "taught"), *few, "--training.horizon", "2"])
    shares: list[float] = []
    monkeypatch.setattr(looks, "split_rows", lambda of, share: shares.append(share) or split_rows(of, share))
    join = ["join", "TwoRoom", *given, "--taught", str(tmp_path / "taught"), "--save", str(tmp_path / "joined")]
    main([*join, "--held-out", "0.25"])
    assert set(shares) == {0.25}  # as many as looks were not taught on
    before, after = checkpoint.load(start), checkpoint.load(tmp_path / "joined")
    assert after.planner == before.planner
    assert after.model.config == replace(before.model.config, encoder="conv+joined")
    card = (tmp_path / "joined/card.md").read_text()
    assert card.index("## Sees through looks") < card.index("## Joined")
    assert "Polished" not in card  # that was of another predictor
    taught = checkpoint.load(tmp_path / "taught").sha256[:12]
    assert f"the one of the weights {taught} agree" in card and "% of the plain ones and on" in card
