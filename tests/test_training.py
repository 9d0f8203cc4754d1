"""Training at toy size: the loss falls, an interruption costs nothing, and what goes wrong is said."""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict
from torch import Tensor, nn
from toys import MIRROR, PLANNER, SHAPE, TRAINING, dot_store, flip_byte, info, toy_model

from planner import checkpoint
from planner.cards import card, curves, polish_card, prior_card, temporal_card
from planner.cli import main
from planner.data import EpisodeStore, Windows
from planner.energies import ObjectDistance
from planner.errors import BadInput
from planner.evaluate import learning_curves
from planner.models.jepa import JEPA
from planner.settings import TrainConfig
from planner.training import (
    JEPATraining,
    add_part,
    body_directions,
    cache_latents,
    further,
    learn_looks,
    polish,
    probe,
    train,
)
from planner.training.batches import draws_of, episodes_of
from planner.training.jepa import Ahead, PredictorTraining


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return dot_store(tmp_path_factory.mktemp("data"), episodes=12)


@pytest.fixture(scope="module")
def straight(store: EpisodeStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[JEPA, Path]:
    """A training that was never interrupted, and its folder."""
    out = tmp_path_factory.mktemp("straight")
    model = train(store, SHAPE, TRAINING, out, tensorboard=False)
    assert model is not None
    return model, out


def but(**changes: Any) -> TrainConfig:
    return dataclasses.replace(TRAINING, **changes)


def same_weights(one: JEPA, other: JEPA) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def column(out: Path, name: str) -> list[float]:
    """What was logged under `name`, in order."""
    with next((out / "logs").glob("**/metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], Any]) -> None:
    """Has `act` called in the middle of update `step`, once."""
    honest, done = JEPATraining.training_step, []

    def training_step(self: JEPATraining, batch: TensorDict, index: int) -> Tensor:
        if self.global_step == step and not done:
            done.append(step)
            act()
        return honest(self, batch, index)

    monkeypatch.setattr(JEPATraining, "training_step", training_step)


# It learns ---------------------------------------------------------------------------------------------------------


def test_the_loss_goes_down(tmp_path: Path) -> None:
    """Prediction is judged relative to "no change", which a collapse does not make small."""
    store, shape = dot_store(tmp_path / "data", episodes=60), dataclasses.replace(SHAPE, hidden=64)
    train(store, shape, but(steps=120, learning_rate=3e-3), tmp_path, tensorboard=False)
    loss, checks = column(tmp_path, "loss"), curves(tmp_path)
    assert loss[-1] < 0.8 * loss[0]
    assert sorted(checks) == [30, 60, 90, 120]
    assert checks[120]["val/error_1"] < 0.9 * checks[30]["val/error_1"]
    assert min(checks[120]["probe/x"], checks[120]["probe/y"]) > 0.8 > checks[120]["probe/heading"]


def test_the_same_seed_gives_the_same_weights(store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path) -> None:
    torch.manual_seed(123)
    again = train(store, SHAPE, TRAINING, tmp_path / "again", tensorboard=False)
    other = train(store, SHAPE, but(seed=1), tmp_path / "other", tensorboard=False)
    assert again is not None and other is not None
    assert same_weights(again, straight[0]) and not same_weights(other, straight[0])


def test_the_model_comes_back_ready_to_plan(straight: tuple[JEPA, Path]) -> None:
    assert not straight[0].training
    assert straight[0].action.units == ("m/s", "m/s")


def test_every_update_draws_the_batch_of_its_step(store: EpisodeStore, tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[int] = []
    honest = Windows.__getitem__
    monkeypatch.setattr(Windows, "__getitem__", lambda self, i: (asked.append(i), honest(self, i))[1])
    train(store, SHAPE, but(steps=3), tmp_path, tensorboard=False)
    fits = [i for k, i in enumerate(asked) if i not in asked[:k]]
    assert fits[:3] == [0, 1, 2]


def test_polishing_moves_the_predictor_and_nothing_else(
    store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path
) -> None:
    """The second stage looks further ahead on cached latents; resumed from the first stage or run at once, the same."""
    config = but(polish_steps=30, polish_horizon=4, polish_batch=16)
    model = train(store, SHAPE, config, tmp_path, tensorboard=False)
    assert model is not None
    first, second = straight[0].state_dict(), model.state_dict()
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert changed == {"predictor"}
    checks = curves(tmp_path / "polish")
    before = curves(tmp_path)
    assert checks[max(checks)]["val/error_1"] < before[max(before)]["val/error_1"]
    assert "val/error_4" in checks[max(checks)] and "val/error_3" not in before[max(before)]
    again = train(store, SHAPE, config, tmp_path, tensorboard=False)
    assert again is not None and same_weights(again, model)


def test_what_heads_read_counts_where_it_is_told_to(store: EpisodeStore) -> None:
    """A block that stands still is a thousandth of a latent, and what a planner goes by: its heads say what matters."""
    torch.manual_seed(0)
    model = JEPA(dataclasses.replace(SHAPE, slow=3, temporal=4), store.info.action_spec)
    latents = torch.randn(5, model.history + 2, SHAPE.latent_dim)
    predicted = [torch.randn(5, 2, SHAPE.latent_dim), torch.randn(5, 1, SHAPE.latent_dim)]
    assert model.slow is not None and model.temporal is not None
    for lengths in (False, True):
        training = PredictorTraining(model, but(lengths=lengths, head_weight=0.5), store.info)
        training.ahead = lambda *_: [Ahead(predicted, latents, model.history)]  # type: ignore[method-assign]
        terms = training.losses(TensorDict({"latents": latents, "actions": latents}, batch_size=[5]))
        read = dict.fromkeys(terms, 0.0)
        for name, head in (("prediction", nn.Identity()), ("heads", model.slow.net), ("heads", model.temporal.net)):
            off = [head(step) - head(latents[:, model.history + k :]) for k, step in enumerate(predicted)]
            squares = [one.square().mean(-1) for one in off]
            means = [((one + 1e-4).sqrt() if lengths else one).mean() for one in squares]
            read[name] += (means[0] + 0.8 * means[1]) / 1.8
        for name, term in terms.items():
            torch.testing.assert_close(term, read[name])
        assert training.weights() == {"prediction": 1.0, "heads": 0.5}
    assert PredictorTraining(model, but(), store.info).weights() == {"prediction": 1.0}


def test_windows_that_grow_are_held_to_by_the_same_measure(store: EpisodeStore) -> None:
    """Those of few frames went on by squares, beside which lengths of whole windows were all that counted."""
    shape = dataclasses.replace(SHAPE, predictor="transformer", history=2, hidden=8, heads=2)
    model = JEPA(shape, store.info.action_spec).eval()
    latents, actions = torch.randn(5, 4, shape.latent_dim), torch.randn(5, 3, model.action.dim)
    config = but(growing=True, lengths=True, horizon=1)
    training = PredictorTraining(model, config, store.info).eval()
    few = model.predictor(latents[:, :1], actions[:, :1])
    whole = torch.stack([model.predictor(latents[:, k : k + 2], actions[:, k : k + 2]) for k in (0, 1)], 1)
    lengths = [
        ((seen - came).square().mean(-1) + 1e-4).sqrt().mean()
        for seen, came in ((few, latents[:, 1]), (whole, latents[:, 2:]))
    ]
    torch.testing.assert_close(training.off(training.ahead(latents, actions)), torch.stack(lengths).mean())


def test_heads_that_are_not_there_cannot_count(
    store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="head_weight, and the model has no heads; expected .*`jepa-mpc temporal`"):
        polish(straight[0], [store], but(head_weight=1.0), tmp_path, encoder="", tensorboard=False)
    with pytest.raises(BadInput, match="head_weight is not read by a training from scratch; expected heads that"):
        train(store, SHAPE, but(head_weight=1.0), tmp_path, tensorboard=False)
    assert not any(tmp_path.iterdir())


def test_a_predictor_polished_by_lengths_and_heads_is_another(store: EpisodeStore, tmp_path: Path) -> None:
    """And nothing else of the model moves, its heads least of all."""
    torch.manual_seed(0)
    model = JEPA(dataclasses.replace(SHAPE, slow=3, temporal=4), store.info.action_spec)
    before, polished = model.state_dict(), []
    for k, config in enumerate((but(), but(lengths=True), but(lengths=True, head_weight=1.0))):
        done = polish(copy.deepcopy(model), [store], config, tmp_path / str(k), encoder="", tensorboard=False)
        assert done is not None
        after = done.state_dict()
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"predictor"}
        polished.append(done)
    assert not same_weights(polished[0], polished[1]) and not same_weights(polished[1], polished[2])


def test_cached_latents_are_what_the_encoder_says(store: EpisodeStore, straight: tuple[JEPA, Path]) -> None:
    cached = cache_latents(straight[0], store)
    looks, remembers = (Windows(store, torch.arange(4), 3, 8, 0, latents=kept)[5] for kept in (None, cached))
    torch.testing.assert_close(straight[0].embed(looks["pixels"]), remembers["latents"])
    assert torch.equal(looks["actions"], remembers["actions"]) and "pixels" not in remembers


# Every episode is several -------------------------------------------------------------------------------------------


def test_latents_in_a_mirror_are_what_the_encoder_says(store: EpisodeStore, straight: tuple[JEPA, Path]) -> None:
    """Of every frame for the heads, of every fifth for the predictor, whose windows then fit those of pictures."""
    model, block = straight[0], store.info.block
    every = cache_latents(model, store, MIRROR)
    few = cache_latents(model, store, MIRROR, every=block)
    n, length = store.info.episodes, store.info.steps
    assert torch.equal(few.view(n, -1, few.shape[1]), every.view(n, length + 1, -1)[:, ::block])
    torch.testing.assert_close(every[:31], model.embed(store.data["pixels"][0].flip(-2)))
    batch = Windows(store, torch.arange(4), 3, 8, 0, latents=cache_latents(model, store)).under(MIRROR, 1, few)[5]
    for window in batch:
        row = int(window["episode"][0])
        start = int((store.data["state"][row][:, 2] - window["state"][0, 2]).abs().argmin())
        torch.testing.assert_close(window["latents"], every.view(n, length + 1, -1)[row, start : start + 11 : block])


def test_what_was_seen_to_the_right_is_known_to_the_left(tmp_path: Path) -> None:
    """All episodes show a dot that goes right. Its predictor errs about one that goes left, unless it has a mirror."""

    def going(way: float, path: Path) -> EpisodeStore:
        made = EpisodeStore.create(path, info(episodes=24, steps=30))
        for row in range(24):
            rng = np.random.default_rng(row)
            actions = np.column_stack([way * rng.uniform(0.1, 1.2, 30), rng.uniform(-1.2, 1.2, 30)])
            begin = [0.1 if way > 0 else 0.9, rng.uniform(0.3, 0.7)]
            walk = np.vstack([begin, 0.025 * actions]).cumsum(0).clip(0.05, 0.95)
            states = np.column_stack([walk, np.linspace(0, 3, 31)])
            pixels = np.zeros((31, 32, 32, 3), np.uint8)
            for picture, (x, y) in zip(pixels, (states[:, :2] * 24).astype(int), strict=True):
                picture[y : y + 8, x : x + 8] = 255
            made.write(row, pixels, actions, states)
        return made

    right, left = going(1.0, tmp_path / "right"), going(-1.0, tmp_path / "left")
    errors = {}
    for symmetric in (False, True):
        config = but(steps=250, batch=64, learning_rate=3e-3, cold_starts=0.0, symmetric=symmetric)
        out = tmp_path / f"out{symmetric}"
        polished = polish(toy_model(), [right], config, out, encoder="0", tensorboard=False, symmetries=[MIRROR])
        assert polished is not None
        batch = Windows(left, torch.arange(24), 3, 256, 0)[0]
        latents = polished.embed(batch["pixels"])
        ahead = polished.predictor(latents[:, None, :2], batch["actions"][:, None, :2])[:, 0]
        still = (latents[:, 2] - latents[:, 1]).square().mean()
        errors[symmetric] = ((ahead - latents[:, 2]).square().mean() / still).item()
    assert errors[True] < 0.6 * errors[False], errors


def test_symmetries_that_a_task_has_not_are_refused(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="symmetric, and the task has no symmetries"):
        train(store, SHAPE, but(symmetric=True), tmp_path / "a", tensorboard=False)
    with pytest.raises(BadInput, match="has no symmetries"):
        polish(toy_model(), [store], but(symmetric=True), tmp_path / "b", encoder="0", tensorboard=False)
    with pytest.raises(BadInput, match="has no symmetries"):
        add_part(
            toy_model(), "prior", SHAPE, [store], but(symmetric=True), tmp_path / "c", weights="0", tensorboard=False
        )


def test_a_training_sees_pictures_in_the_mirror_too(store: EpisodeStore, tmp_path: Path) -> None:
    """Half of each batch, from the first stage on; a folder of one kind is not resumed as the other."""
    config = but(symmetric=True)
    mixture, check = draws_of(toy_model(), store, config, [MIRROR])
    assert [part.symmetry for part in mixture.parts] == [None, MIRROR] and check.symmetry is None
    assert [part.batch for part in mixture.parts] == [config.batch // 2] * 2
    model = train(store, SHAPE, config, tmp_path, tensorboard=False, symmetries=[MIRROR])
    plain = train(store, SHAPE, but(), tmp_path / "plain", tensorboard=False, symmetries=[MIRROR])
    assert model is not None and plain is not None and not same_weights(model, plain)
    with pytest.raises(BadInput, match=r"training\.symmetric"):
        train(store, SHAPE, but(), tmp_path, tensorboard=False)
    turned = replace(MIRROR, actions=-MIRROR.actions)
    with pytest.raises(BadInput, match="another configuration; got other symmetries"):
        train(store, SHAPE, config, tmp_path, tensorboard=False, symmetries=[turned])


def test_heads_that_a_training_ends_with_see_episodes_as_they_are(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each head PushT's eight views were encoded, which takes minutes."""
    asked: list[Any] = []

    def watched(model: JEPA, stores: Any, views: Any, held_out: float) -> Any:
        asked.append(views)
        return episodes_of(model, stores, views, held_out)

    monkeypatch.setattr(further, "episodes_of", watched)
    shape, config = replace(SHAPE, temporal=4, slow=2, body=1), but(symmetric=True, temporal_steps=2, slow_steps=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(?s).*in eval mode")  # as they are, once a body was found
        assert train(store, shape, config, tmp_path, tensorboard=False, symmetries=[MIRROR]) is not None
    assert asked == [(), ()]


def test_a_run_noted_before_symmetries_had_names_goes_on(store: EpisodeStore, tmp_path: Path) -> None:
    config = but(symmetric=True)
    done = train(store, SHAPE, config, tmp_path, tensorboard=False, symmetries=[MIRROR])
    noted = json.loads((tmp_path / "train.json").read_text())
    assert noted.pop("symmetries") == [MIRROR.digest] != [replace(MIRROR, turns=1).digest]
    assert replace(MIRROR, states=np.where(MIRROR.states == 0, -0.0, MIRROR.states)).digest == MIRROR.digest
    (tmp_path / "train.json").write_text(json.dumps(noted))
    again = train(store, SHAPE, config, tmp_path, tensorboard=False, symmetries=[MIRROR])
    assert done is not None and again is not None and same_weights(done, again)


def test_a_card_tells_of_symmetries(store: EpisodeStore, tmp_path: Path) -> None:
    told = "each also as the task's symmetries show it"
    for config, says in ((but(), False), (but(symmetric=True), True)):
        cards = (
            card(store, SHAPE, config, tmp_path, "train", None),
            polish_card([store], config, tmp_path, "0" * 64, "polish", None),
            prior_card([store], SHAPE, config, tmp_path, "prior"),
            temporal_card([store], SHAPE, config, tmp_path, "temporal"),
        )
        assert [told in text for text in cards] == [says] * 4


def test_heads_learn_from_episodes_in_the_mirror_too(store: EpisodeStore) -> None:
    """Those that they are fitted on; what they are checked on stays as it was."""
    (fit, fit_actions), (check, _) = episodes_of(toy_model(), [store], [MIRROR], 0.25)
    n = store.info.episodes
    held = max(1, round(n / 4))
    assert len(fit) == len(fit_actions) == 2 * (n - held) and len(check) == held
    assert torch.equal(fit_actions[n - held :], MIRROR.action(fit_actions[: n - held]))
    seen = MIRROR.picture(
        store.data["pixels"][: n - held].flatten(0, 1)
    )  # and what is seen is mirrored as what is done
    torch.testing.assert_close(fit[n - held :].flatten(0, 1), toy_model().embed(seen), rtol=1e-4, atol=1e-4)


# It can be interrupted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 11, 12])
def test_a_stopped_training_goes_on_bit_for_bit(
    store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path, monkeypatch: Any, number: int, step: int
) -> None:
    """Ctrl-C finishes the update in hand and saves; at the first, before and after a validation, all the same."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt(monkeypatch, step, lambda: os.kill(os.getpid(), number))
    assert train(store, SHAPE, TRAINING, tmp_path, tensorboard=False) is None
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert saved["global_step"] == step + 1
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    resumed = train(store, SHAPE, TRAINING, tmp_path, tensorboard=False)
    assert resumed is not None and same_weights(resumed, straight[0])


@pytest.mark.parametrize("when", ["the last update", "the last check"])
@pytest.mark.parametrize("save_every", [10, 24])
def test_a_stop_at_the_end_of_a_stage_is_one(
    store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path, monkeypatch: Any, when: str, save_every: int
) -> None:
    """The first stage was over, so that nothing seemed interrupted, and hours of polishing began."""
    config, updates = but(polish_steps=6, polish_horizon=3, save_every=save_every), []
    if when == "the last update":
        interrupt(monkeypatch, config.steps - 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    honest, learned = JEPATraining.on_validation_epoch_end, JEPATraining.training_step

    def checked(self: JEPATraining) -> None:
        if when == "the last check" and self.global_step == config.steps and type(self) is JEPATraining:
            os.kill(os.getpid(), signal.SIGINT)
        honest(self)

    def counted(self: JEPATraining, *given: Any) -> Tensor:
        updates.append(type(self))
        return learned(self, *given)

    monkeypatch.setattr(JEPATraining, "on_validation_epoch_end", checked)
    monkeypatch.setattr(JEPATraining, "training_step", counted)
    assert train(store, SHAPE, config, tmp_path, tensorboard=False) is None
    assert updates == [JEPATraining] * config.steps and not (tmp_path / "polish/last.ckpt").exists()
    resumed = train(store, SHAPE, config, tmp_path, tensorboard=False)
    assert updates[config.steps :] == [PredictorTraining] * 6, "the first stage is not trained again"
    assert resumed is not None
    first, kept = straight[0].state_dict(), resumed.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in first.items() if not name.startswith("predictor."))


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C interrupts, as in a terminal: who is started in the background of a shell is deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_does_not_wait_is_told_of_an_interruption(
    store: EpisodeStore, tmp_path: Path, monkeypatch: Any, number: int, capsys: Any
) -> None:
    """The second Ctrl-C left from deep inside Lightning, with code 1 and no word; a second SIGTERM even with 0."""
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def impatient() -> None:
        for _ in range(2):  # each heard at once: two that are sent to a process before it listens are one
            signal.raise_signal(number)

    interrupt(monkeypatch, 11, impatient)
    with pytest.raises(KeyboardInterrupt):
        train(store, SHAPE, TRAINING, tmp_path, tensorboard=False)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    interrupt(monkeypatch, 12, impatient)
    words = ["train", "TwoRoom", "--data", str(store.path), "--out", str(tmp_path / "typed"), "--probe", "0"]
    words += ["--threads", "1", "--training.steps", "24", "--training.batch", "8", "--model.image-size", "32"]
    with pytest.raises(SystemExit, match="130"):
        main(words)
    assert "jepa-mpc: interrupted" in capsys.readouterr().err


def test_a_training_that_died_goes_on_from_what_it_saved(
    store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path, monkeypatch: Any
) -> None:
    """A power cut at update 17 costs the updates since `save_every`, not one bit of the result."""

    def power_cut() -> None:
        raise RuntimeError("power cut")

    interrupt(monkeypatch, 17, power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(store, SHAPE, TRAINING, tmp_path, tensorboard=False)
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["global_step"] == 10
    resumed = train(store, SHAPE, TRAINING, tmp_path, tensorboard=False)
    assert resumed is not None and same_weights(resumed, straight[0])
    assert sorted(curves(tmp_path)) == [6, 12, 18, 24]


def test_a_finished_training_is_not_trained_further(
    store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path
) -> None:
    first = train(store, SHAPE, but(steps=10), tmp_path, tensorboard=False)
    again = train(store, SHAPE, but(steps=10), tmp_path, tensorboard=False)
    assert first is not None and again is not None and same_weights(first, again)


def test_a_short_training_that_finished_guards_its_folder(store: EpisodeStore, tmp_path: Path) -> None:
    """Shorter than `save_every` it left no state, and another configuration took the folder without a word."""
    assert train(store, SHAPE, but(steps=3), tmp_path, tensorboard=False) is not None
    with pytest.raises(BadInput, match="another configuration; got training.seed"):
        train(store, SHAPE, but(steps=3, seed=7), tmp_path, tensorboard=False)


def test_training_stays_on_the_processor(store: EpisodeStore, tmp_path: Path, monkeypatch: Any) -> None:
    """With a GPU in sight Lightning took it, and the first check met latents there and pictures here."""
    seen: list[Any] = []

    class Trainer(lightning.Trainer):
        def __init__(self, **options: Any) -> None:
            seen.append(options["accelerator"])
            super().__init__(**options)

    monkeypatch.setattr(lightning, "Trainer", Trainer)
    assert train(store, SHAPE, but(steps=3), tmp_path, tensorboard=False) is not None
    assert seen == ["cpu"]


@pytest.mark.slow
def test_the_command_killed_goes_on(store: EpisodeStore, tmp_path: Path) -> None:
    """`kill -9` of the real command, then Ctrl-C (exit code 130), then to the end: the straight run's weights."""
    script = "import sys; from planner.cli import main; main(sys.argv[1:])"
    options = [
        "--training.steps=60",
        "--training.batch=8",
        "--training.save-every=5",
        "--training.sigreg-directions=16",
        "--training.temporal-steps=10",  # of the recipe 5,000, which is no part of this
    ]
    shape = ["--model.image-size=32", "--model.width=8", "--model.latent-dim=8", "--model.hidden=16"]
    command = [sys.executable, "-c", script, "train", "TwoRoom", "--data", str(store.path), "--threads=1"]
    command += [*options, *shape, "--out"]
    plain, torn = tmp_path / "plain", tmp_path / "torn"
    subprocess.run([*command, str(plain)], check=True, capture_output=True, timeout=100)
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        before = (torn / "last.ckpt").stat().st_mtime if number == signal.SIGINT else 0.0
        process = subprocess.Popen([*command, str(torn)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for_newer(torn / "last.ckpt", before, process)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == code
    subprocess.run([*command, str(torn)], check=True, capture_output=True, timeout=100)
    weights = [(out / "checkpoint" / "model.safetensors").read_bytes() for out in (plain, torn)]
    assert weights[0] == weights[1]


def wait_for_newer(file: Path, before: float, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists() and file.stat().st_mtime > before:
            return
        time.sleep(0.005)
    raise AssertionError("nothing was saved in time")


# It says what is wrong ---------------------------------------------------------------------------------------------


def test_another_configuration_in_the_folder_is_refused(store: EpisodeStore, straight: tuple[JEPA, Path]) -> None:
    before = (straight[1] / "train.json").read_text()
    with pytest.raises(BadInput, match=r"another configuration; got training.batch; .*another --out") as caught:
        train(store, SHAPE, but(batch=4), straight[1], tensorboard=False)
    assert str(straight[1]) in str(caught.value)
    with pytest.raises(BadInput, match=r"another configuration; got model.hidden"):
        train(store, dataclasses.replace(SHAPE, hidden=32), TRAINING, straight[1], tensorboard=False)
    assert (straight[1] / "train.json").read_text() == before


def test_shorter_episodes_are_other_data(
    store: EpisodeStore, straight: tuple[JEPA, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run was taken for one on episodes that were collected anew, and its card told of these."""
    monkeypatch.setattr(store, "info", dataclasses.replace(store.info, steps=store.info.steps - 5))
    with pytest.raises(BadInput, match="another configuration; got data .*'steps': 30"):
        train(store, SHAPE, TRAINING, straight[1], tensorboard=False)


def test_a_run_noted_before_an_option_was_there_goes_on(
    store: EpisodeStore, straight: tuple[JEPA, Path], tmp_path: Path
) -> None:
    """Its training was what the option's default says; a new version's users finish what an older one began."""
    out = tmp_path / "run"
    shutil.copytree(straight[1], out)
    noted = json.loads((out / "train.json").read_text())
    del noted["training"]["repaint"], noted["model"]["prior_horizon"], noted["data"]["renderer"]
    (out / "train.json").write_text(json.dumps(noted))
    again = train(store, SHAPE, TRAINING, out, tensorboard=False)
    assert again is not None
    assert same_weights(again, straight[0])
    del noted["training"]["shift"]
    (out / "train.json").write_text(json.dumps(noted))
    with pytest.raises(BadInput, match=r"another configuration; got training.shift;"):
        train(store, SHAPE, but(shift=False), out, tensorboard=False)


def test_another_task_in_the_folder_is_refused(straight: tuple[JEPA, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"another configuration; got task TwoRoom"):
        train(dot_store(tmp_path, task="Reacher"), SHAPE, TRAINING, straight[1], tensorboard=False)


def test_pictures_of_another_size_are_refused(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"image sizes differ; expected 32 \(the dataset's\); got 64"):
        train(store, dataclasses.replace(SHAPE, image_size=64), TRAINING, tmp_path, tensorboard=False)


@pytest.mark.parametrize(
    ("shape", "training", "name"),
    [
        ({}, {"horizon": 6}, "training.horizon"),
        ({}, {"polish_steps": 5, "polish_horizon": 6}, "training.polish_horizon"),
        ({"prior": 8, "prior_horizon": 6}, {}, "model.prior_horizon"),
    ],
)
def test_a_stage_that_looks_too_far_is_refused_before_the_first_trains(
    store: EpisodeStore, tmp_path: Path, shape: dict[str, Any], training: dict[str, Any], name: str
) -> None:
    """Short episodes used to be found out when polishing began, after an hour of training."""
    longest = store.info.steps // store.info.action_spec.block - SHAPE.history + 1
    assert longest == 5
    with pytest.raises(BadInput, match=f"further than the episodes go; expected {name} at most 5 in .*; got 6"):
        train(store, replace(SHAPE, **shape), replace(TRAINING, **training), tmp_path / "run", tensorboard=False)
    assert not (tmp_path / "run").exists()


def test_episodes_too_short_for_anything_are_told_how_long_to_be(store: EpisodeStore, tmp_path: Path) -> None:
    """It asked for a horizon of at most 0."""
    with pytest.raises(BadInput, match=r"expected at least \d+ steps for training.horizon 1; got 30"):
        train(store, replace(SHAPE, history=16), but(horizon=1), tmp_path / "run", tensorboard=False)


@pytest.mark.parametrize("steps", [4, 200])
def test_a_training_that_diverges_stops(store: EpisodeStore, tmp_path: Path, steps: int) -> None:
    """Where a validation came before the next update, its eigenvalues failed with a traceback instead."""
    with pytest.raises(BadInput, match=r"training diverged at step \d+; got .*(nan|inf|NaN).*lower learning_rate"):
        train(store, SHAPE, but(steps=steps, learning_rate=1e25), tmp_path, tensorboard=False)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"7", b"{}", b'{"model": 7, "training": {}}']
)
def test_a_note_cut_short_is_refused(store: EpisodeStore, tmp_path: Path, content: bytes) -> None:
    """It ended in a traceback of JSON's, or of a key that was missing."""
    train(store, SHAPE, but(steps=2), tmp_path, tensorboard=False)
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"train.json is damaged; .*remove it and .*last.ckpt to start again") as caught:
        train(store, SHAPE, but(steps=2), tmp_path, tensorboard=False)
    assert len(str(caught.value)) < 600
    (tmp_path / "last.ckpt").unlink()
    assert train(store, SHAPE, but(steps=2), tmp_path, tensorboard=False) is not None, "nothing is known by it"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
def test_a_saved_training_cut_short_is_refused(store: EpisodeStore, tmp_path: Path, content: bytes) -> None:
    """It ended in a traceback from deep inside torch."""
    train(store, SHAPE, but(steps=10), tmp_path, tensorboard=False)
    whole = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content or whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"last.ckpt is damaged; .*remove it"):
        train(store, SHAPE, but(steps=10), tmp_path, tensorboard=False)


def test_a_collapse_is_said(store: EpisodeStore, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """An encoder that sees nothing: the warning names the rank and what to do; a sound run gives none."""
    weak = dataclasses.replace(SHAPE, latent_dim=16)
    honest = JEPA.embed
    monkeypatch.setattr(
        JEPA, "embed", lambda self, pixels: honest(self, pixels)[..., :1].expand(*pixels.shape[:-3], 16)
    )
    train(store, weak, but(steps=2, held_out=0.5), tmp_path, tensorboard=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: the latents collapse: effective rank 1.0 of 16; raise sigreg_weight" in said


def test_a_sound_run_gives_no_warning(store: EpisodeStore, tmp_path: Path, capsys: Any) -> None:
    train(store, SHAPE, but(steps=4), tmp_path, tensorboard=False)
    assert "collapse" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"batch": 1},
        {"horizon": 0},
        {"seed": -1},
        {"save_every": 0},
        {"sigreg_directions": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"sigreg_weight": float("inf")},
        {"decay": 0.0},
        {"decay": 1.5},
        {"cold_starts": -0.1},
        {"held_out": 0.0},
        {"held_out": 1.0},
    ],
)
def test_settings_that_are_off(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="training: .*off; expected"):
        but(**changes)


# What it reports ---------------------------------------------------------------------------------------------------


def test_the_probe_reads_what_is_there() -> None:
    """A linear quantity, an angle that only its sine and cosine give away, and noise."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2000, 8, generator=generator)
    angle = torch.atan2(latents[:, 2], latents[:, 3]) + 20 * torch.pi
    circle = torch.stack([angle.sin(), angle.cos()], 1)
    linear, noise = latents @ torch.arange(8.0) + 3, torch.randn(2000, generator=generator)
    seen = torch.cat([latents, circle], 1)
    states = torch.stack([linear, angle, noise, angle], 1)
    scores = probe(
        seen, states, torch.arange(2000) % 2 == 0, ("linear", "angle", "noise", "turns"), ("m", "rad", "m", "m")
    )
    assert list(scores) == ["linear", "angle", "noise", "turns"]
    assert scores["linear"] > 0.999 and scores["angle"] > 0.999
    assert -0.1 < scores["noise"] < 0.05
    assert scores["turns"] < 0.9, "as metres the wrapped angle is not linear in its sine and cosine"


def test_the_probe_is_judged_on_other_rows_than_it_was_fitted_on() -> None:
    """With as many features as rows a fit is perfect, and worth nothing."""
    latents = torch.randn(80, 40, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(80, 1, generator=torch.Generator().manual_seed(1))
    assert probe(latents, noise, torch.arange(80) < 40, ("noise",), ("m",))["noise"] < 0


def test_a_quantity_that_never_changes_is_finite() -> None:
    scores = probe(torch.randn(100, 4), torch.zeros(100, 1), torch.arange(100) < 50, ("still",), ("m",))
    assert abs(scores["still"]) < 10


def test_the_commit_is_asked_before_anything_is_learned(store: EpisodeStore, tmp_path: Path, monkeypatch: Any) -> None:
    """The card is written at the end of hours, and names what ran: `versions.commit` keeps its first answer."""
    seen: list[str] = []
    step = JEPATraining.training_step
    monkeypatch.setattr("planner.training.run.commit", lambda: seen.append("asked"))
    monkeypatch.setattr(JEPATraining, "training_step", lambda *given: (seen.append("learned"), step(*given))[1])
    train(store, SHAPE, but(steps=2), tmp_path, tensorboard=False)
    assert seen == ["asked", "learned", "learned"]


def test_the_card_says_where_it_comes_from(store: EpisodeStore, straight: tuple[JEPA, Path]) -> None:
    text = card(store, SHAPE, TRAINING, straight[1], "jepa-mpc train TwoRoom", None)
    for name in ("success", "temporal_near", "prior", "slow_median"):
        assert (f"| {name} |" in text) == (f"`{name}`:" in text), "explained where there is one, and only there"
    assert "`success`:" not in text  # no probe of success ran
    for fact in (
        "12 episodes of 30 steps",
        "seed 0",
        "`jepa-mpc train TwoRoom`",
        "24 updates of 8 windows",
        "| error_1 |",
    ):
        assert fact in text
    assert "the last one at step 24" in text and "probe/heading" in text


def test_the_error_is_relative_to_no_change(store: EpisodeStore) -> None:
    """A predictor that says "nothing moves" scores exactly 1, one step ahead and two."""
    training = JEPATraining(JEPA(SHAPE, store.info.action_spec), TRAINING, info()).eval()
    training.model.predictor.forward = lambda latents, actions: latents[..., -1, :]  # type: ignore[method-assign]
    logged: dict[str, float] = {}
    training.log = lambda name, value, **_: logged.update({name: float(value)})  # type: ignore[method-assign,assignment]
    training.on_validation_epoch_start()
    with torch.no_grad():
        training.validation_step(Windows(store, torch.arange(12), 4, 8, 0)[0], 0)
    assert logged["val/error_1"] == pytest.approx(1, rel=1e-4)
    assert logged["val/error_2"] == pytest.approx(1, rel=1e-4)


def test_flip_byte_changes_exactly_one(tmp_path: Path) -> None:
    """The tool that other tests tamper with."""
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    flip_byte(file, 1)
    assert file.read_bytes() == b"acc"


# The robot's own body ----------------------------------------------------------------------------------------------


def pushed(count: int) -> Tensor:
    """Directions found in a world of 6 features: actions move the first two at once, an object (the next two) is moved
    along by them in a tenth of the steps, and the last two drift by themselves."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(60, 40, 2, generator=generator) * 2 - 1
    contact = (torch.rand(60, 40, 1, generator=generator) < 0.1).float()
    drift = 0.5 * torch.randn(60, 40, 2, generator=generator)
    moves = torch.cat([actions * torch.tensor([1.0, 0.8]), contact * actions, drift], -1)
    latents = torch.cat([torch.zeros(60, 1, 6), moves.cumsum(1)], 1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    return turn.T @ body_directions(latents @ turn.T, actions, 5, count)


def test_the_body_is_what_actions_move_at_once() -> None:
    found = pushed(2)
    torch.testing.assert_close(found.T @ found, torch.eye(2), rtol=1e-5, atol=1e-5)
    assert found[:2].square().sum() > 0.97 * 2  # in the robot's plane, up to the tenth that the object goes along
    assert pushed(1)[0].square() > 0.95  # the larger response first


def test_more_body_than_actions() -> None:
    with pytest.raises(BadInput, match="too many directions; expected at most 2, one an action; got 3"):
        pushed(3)


def test_a_run_that_begins_anew_forgets_its_later_stages(store: EpisodeStore, tmp_path: Path) -> None:
    """Polishing and heads of a run whose first stage was removed were loaded over the new one, without a word."""
    shape = replace(SHAPE, temporal=4)
    old = replace(TRAINING, steps=4, temporal_steps=4, polish_steps=4, polish_horizon=2, polish_batch=8, save_every=2)
    new = replace(old, seed=7, steps=6)
    train(store, shape, old, tmp_path / "run", tensorboard=False)
    (tmp_path / "run" / "last.ckpt").unlink()
    found = [train(store, shape, new, tmp_path / out, tensorboard=False) for out in ("run", "fresh")]
    assert found[0] is not None and found[1] is not None
    for name, value in found[1].state_dict().items():
        assert torch.equal(found[0].state_dict()[name], value), name
    assert list(curves(tmp_path / "run")) == list(curves(tmp_path / "fresh"))
    kept = tmp_path / "run/logs/version_0"
    assert not (kept / "metrics.csv").exists() and (kept / "metrics-before.csv").exists(), "nothing is lost"


def test_a_run_that_begins_anew_shows_nothing_of_the_one_before(store: EpisodeStore, tmp_path: Path) -> None:
    """A new card said "polishing | 0 updates" and told how well a predictor foresaw that was polished before."""
    shape = replace(SHAPE, temporal=4, prior=8, prior_horizon=2)
    old = replace(TRAINING, steps=4, temporal_steps=4, prior_steps=4, polish_steps=4, polish_horizon=2, save_every=2)
    train(store, shape, old, tmp_path, tensorboard=False)
    figures = ("error_1, polished", "temporal_near", "prior")
    told = card(store, shape, old, tmp_path, "train", None)
    assert all(f"| {name} |" in told for name in figures)
    (tmp_path / "last.ckpt").unlink()
    new = replace(old, polish_steps=0)
    train(store, SHAPE, new, tmp_path, tensorboard=False)
    told = card(store, SHAPE, new, tmp_path, "train", None)
    assert "| polishing | 0 updates" in told and not any(f"| {name} |" in told for name in figures)
    for stage in ("polish", "temporal", "prior"):
        assert not curves(tmp_path / stage) and not (tmp_path / stage / "last.ckpt").exists()
        assert len(list((tmp_path / stage).glob("logs/*/metrics-before.csv"))) == 1, "nothing is lost"


def test_a_card_shows_no_stage_that_a_run_has_not(tmp_path: Path, store: EpisodeStore) -> None:
    """Whatever else learned in its folder since, as `jepa-mpc prior --out` does, is no part of the checkpoint."""
    figures = {"polish": "val/error_1", "temporal": "val/temporal_near", "prior": "val/prior", "slow": "val/slow_mean"}
    for stage, figure in figures.items():
        log = tmp_path / stage / "logs/version_0/metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text(f"step,{figure}\n9,0.123\n")
    whole = replace(SHAPE, temporal=4, prior=8, slow=4), but(polish_steps=4)
    assert card(store, *whole, tmp_path, "train", None).count("0.123") == 4
    assert "0.123" not in card(store, SHAPE, but(), tmp_path, "train", None)


def test_a_card_reads_the_last_run_of_a_folder(tmp_path: Path) -> None:
    """Of a longer run before, later checks were told as the last; of one that went on, all of them count."""
    for version, steps in enumerate(([9, 19, 29], [14, 19], [24])):
        log = tmp_path / f"logs/version_{version}/metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text("step,val/loss\n" + "".join(f"{step},{version}.0\n" for step in steps))
        os.utime(log, (version, version))
    assert {step: figures["val/loss"] for step, figures in curves(tmp_path).items()} == {10: 0, 15: 1, 20: 1, 25: 2}


def test_a_step_that_is_logged_twice_keeps_both(tmp_path: Path) -> None:
    """A check's row came after training's of the same step, and took its place."""
    log = tmp_path / "logs/version_0/metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,train/prediction,val/loss\n19,0.5,\n19,,2.0\n")
    assert curves(tmp_path, ("train/", "val/")) == {20: {"train/prediction": 0.5, "val/loss": 2.0}}


@pytest.mark.parametrize("part", ["temporal", "polish", "looks"])
def test_more_episodes_under_the_same_name_are_another_run(part: str, tmp_path: Path) -> None:
    """`collect` says to remove a dataset that is too small; then the weights taught on that one came at once."""

    def learn(store: EpisodeStore) -> Any:
        config, out = replace(TRAINING, steps=4, temporal_steps=4, augment=0.5, save_every=2), tmp_path / "run"
        if part == "looks":
            return learn_looks(toy_model(), store, config, out, weights="w", tensorboard=False)
        if part == "polish":
            return polish(toy_model(), [store], config, out, encoder="w", tensorboard=False)
        shape = replace(SHAPE, temporal=4)
        return add_part(toy_model(), part, shape, [store], config, out, weights="w", tensorboard=False)

    assert learn(dot_store(tmp_path / "data")) is not None
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(BadInput, match="another configuration; got data .*'episodes': 6"):
        learn(dot_store(tmp_path / "data", episodes=20))


def test_episodes_that_two_datasets_share_are_refused(tmp_path: Path) -> None:
    """Those that one holds out the other would train on: episode k is the same in a longer collection."""
    stores = [dot_store(tmp_path / "short"), dot_store(tmp_path / "long", episodes=20)]
    with pytest.raises(BadInput, match="long is no other; expected episodes of its own; got 6 that .*short has too"):
        polish(toy_model(), stores, TRAINING, tmp_path / "run", encoder="w", tensorboard=False)


def test_episodes_that_have_one_checksum_by_chance_are_others(tmp_path: Path) -> None:
    """Of 8,000 and 4,000 episodes two have the same 32 bits once in 140 times, and were refused as the same."""
    stores = [dot_store(tmp_path / name, seed=seed) for name, seed in (("one", 0), ("other", 1), ("again", 1))]
    for one in stores:
        one.data["checksum"][:] = 7
    config = but(steps=2)
    assert polish(toy_model(), stores[:2], config, tmp_path / "run", encoder="w", tensorboard=False) is not None
    with pytest.raises(BadInput, match="again is no other; expected episodes of its own; got 6 that .*other has too"):
        polish(toy_model(), stores, config, tmp_path / "run", encoder="w", tensorboard=False)


@pytest.mark.parametrize(
    ("recordings", "fit", "tested"),
    [((), {7, 9, 11}, {6, 8, 10}), ((12,), {6, 7}, {9, 10, 11}), ((10, 2), {6, 7, 8, 9}, {10, 11})],
)
def test_probes_are_tested_on_no_frame_that_they_were_fitted_on(
    tmp_path: Path, recordings: tuple[int, ...], fit: set[int], tested: set[int]
) -> None:
    """Every second row would be: neighbouring rows of one recording share frames."""
    store = dot_store(tmp_path, episodes=12, recordings=recordings)
    rows = torch.arange(6, 12).repeat(2)
    halves = JEPATraining(toy_model(), TRAINING, store.info)._halves(rows)
    assert [set(rows[half].tolist()) for half in halves] == [fit, tested]


def test_a_head_wants_an_episode_to_fit_and_one_to_check(tmp_path: Path) -> None:
    store, shape = dot_store(tmp_path / "data", episodes=1), replace(SHAPE, temporal=4)
    with pytest.raises(BadInput, match="too few episodes; expected at least 2; got 1; make more"):
        add_part(toy_model(), "temporal", shape, [store], TRAINING, tmp_path / "run", weights="w", tensorboard=False)


def test_more_body_than_actions_is_told_before_training(tmp_path: Path) -> None:
    """It was told afterwards, and then the run was one of another configuration."""
    with pytest.raises(BadInput, match="too many directions; expected at most 2, one an action; got 3"):
        train(dot_store(tmp_path / "data"), replace(SHAPE, body=3), TRAINING, tmp_path / "run", tensorboard=False)
    assert not (tmp_path / "run").exists()


def test_a_trained_model_knows_its_body(tmp_path: Path) -> None:
    shape = replace(SHAPE, body=2)
    model = train(dot_store(tmp_path / "data"), shape, replace(TRAINING, steps=2), tmp_path / "run", tensorboard=False)
    assert model is not None and model.body is not None
    torch.testing.assert_close(model.body.T @ model.body, torch.eye(2), rtol=1e-5, atol=1e-5)
    checkpoint.save(tmp_path / "toy", model, task="TwoRoom", renderer="none", planner=PLANNER, card="")
    loaded = checkpoint.load(tmp_path / "toy")
    assert torch.equal(loaded.model.body, model.body)
    energy = replace(PLANNER, body=0.25).build(loaded.model, 0).energy
    assert isinstance(energy, ObjectDistance) and energy.keep == 0.25 and torch.equal(energy.body, model.body)


def test_a_model_that_knows_no_body() -> None:
    with pytest.raises(BadInput, match="planner: body is below 1; expected a model that knows"):
        replace(PLANNER, body=0.3).build(toy_model(), 0)
    with pytest.raises(BadInput, match="planner: body is off; expected 0 to 1; got 1.5"):
        replace(PLANNER, body=1.5)


def test_a_picture_shows_all_that_was_logged(straight: tuple[JEPA, Path], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert learning_curves.draw(tmp_path) is None, "nothing was logged yet"
    logged: set[str] = set().union(*curves(straight[1], ("train/", "val/", "probe/")).values())
    assert {"train/prediction", "train/sigreg", "val/error_1", "val/effective_rank"} <= logged
    shutil.copytree(straight[1] / "logs", tmp_path / "logs", dirs_exist_ok=True)
    drawn = learning_curves.draw(tmp_path)
    assert drawn == tmp_path / "curves.png"
    picture = np.asarray(Image.open(drawn).convert("L"))
    assert picture.shape[1] > 4 * 400 and (picture < 200).any(0).mean() > 0.5, "four panels, lines across them"
