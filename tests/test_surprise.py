"""The monitor of surprise: thresholds keep their promise, energies are right, a teleport is noticed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict
from toys import SPEC, dot_store, toy_checkpoint, toy_model

import envs
from planner import checkpoint, surprise
from planner.actions import ActionSpec
from planner.cli import main
from planner.collect import CALIBRATE_STREAM, COLLECT_STREAM, LULLS_STREAM, PLANNED_STREAM, play_episode
from planner.errors import BadInput
from planner.evaluate.imagination import BANK_STREAM
from planner.evaluate.protocol import EVALUATE_STREAM
from planner.evaluate.run import Protocol, evaluate
from planner.guard import Guard, Limits
from planner.surprise import Monitor, Thresholds, conformal, energies, film_energies, first_step
from planner.testing import LinearModel

GOOD: dict[str, Any] = {
    "sha256": "0" * 64,
    "task": "TwoRoom",
    "renderer": "none",
    "policy": "play",
    "seed": 0,
    "episodes": 99,
    "length": 30,
    "steps": 2,
    "unusual": 0.5,
    "impossible": 1.5,
}


# Thresholds --------------------------------------------------------------------------------------------------------


def test_known_thresholds() -> None:
    """k = ceil((n + 1)(1 - alpha)) of n = 99 scores: the 95th and the 99th."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))
    assert conformal(scores, 0.05) == 95
    assert conformal(scores, 0.01) == 99
    assert conformal([3.0], 0.5) == 3
    assert conformal(np.arange(1.0, 10.0), 0.1) == 9


@pytest.mark.parametrize(
    ("scores", "alpha", "says"),
    [
        (np.arange(98.0), 0.01, "too few episodes; expected at least 99 .*got 98"),
        ([], 0.5, "too few episodes"),
        ([1.0, np.nan], 0.5, "finite"),
        ([1.0], 0.0, "alpha is off"),
        ([1.0], 1.0, "alpha is off"),
    ],
)
def test_no_threshold_from_too_little(scores: Any, alpha: float, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        conformal(scores, alpha)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
def test_false_alarms_are_as_promised(alpha: float) -> None:
    """Episodes of dependent steps and odd shape, exchangeable with each other: exactly alpha where (n + 1) alpha is
    whole, over draws of calibration and of the further episode."""
    rng, draws, n, length = np.random.default_rng(1), 4000, 39, 20
    level = rng.gamma(0.5, size=(draws, n + 1, 1))  # an episode's own, so that its steps depend on each other
    greatest = (level * rng.exponential(size=(draws, n + 1, length))).max(-1)
    alarms = np.mean([row[-1] > conformal(row[:-1], alpha) for row in greatest])
    assert abs(alarms - alpha) < 4 * np.sqrt(alpha * (1 - alpha) / draws)


def test_no_stream_of_seeds_is_used_twice() -> None:
    from benchmarks.claims.impossible import CLIP_STREAM

    streams = {CALIBRATE_STREAM, COLLECT_STREAM, PLANNED_STREAM, EVALUATE_STREAM, BANK_STREAM, CLIP_STREAM}
    assert len(streams | {LULLS_STREAM}) == 7


def test_states() -> None:
    states = Thresholds(**GOOD).judge(np.array([np.nan, 0.0, 0.5, 0.6, 1.5, 1.6, np.inf]))
    assert [surprise.STATES[state] for state in states] == 3 * ["normal"] + 2 * ["unusual"] + 2 * ["impossible"]


@pytest.mark.parametrize(
    "change",
    [
        {"unusual": 2.0},
        {"unusual": -1.0},
        {"impossible": float("nan")},
        {"impossible": "high"},
        {"steps": 0},
        {"steps": 1.5},
        {"episodes": True},
        {"task": 3},
        {"impossible_rate": 0.2},
        {"unusual_rate": 1.0},
        {"format": 2},
    ],
    ids=str,
)
def test_thresholds_that_are_off(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"surprise: .*({next(iter(change)).removesuffix('_rate')}|a rate).* is off"):
        Thresholds(**GOOD | change)


# Energy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2])
def test_what_obeys_the_model_is_no_surprise_and_what_does_not_is(history: int, steps: int) -> None:
    """Latents that follow the linear world at every environment step; then one jumps, and its energies are known."""
    block, length, dim = SPEC.block, 40, 3
    generator = torch.Generator().manual_seed(0)
    control = torch.randn(dim, SPEC.dim, generator=generator)
    model = LinearModel(0.9 * torch.eye(dim), control, SPEC, history)
    actions = np.random.default_rng(0).uniform(SPEC.low, SPEC.high, (length, 2))
    latents = torch.randn(length + 1, dim, generator=generator)
    for t in range(block, length + 1):
        done = SPEC.encode(torch.as_tensor(actions[t - block : t], dtype=torch.float32))
        latents[t] = 0.9 * latents[t - block] + control @ done
    first = first_step(model, steps)
    energy = energies(model, latents, actions, steps)
    assert energy[:first].isnan().all() and first == (history - 1 + steps) * block
    torch.testing.assert_close(energy[first:], torch.zeros(length + 1 - first), atol=1e-10, rtol=0)
    latents[30] += torch.tensor([3.0, 0, 0])
    energy = energies(model, latents, actions, steps)
    assert energy[30].item() == pytest.approx(9 / dim)
    later = 30 + steps * block
    if later <= length:
        assert energy[later].item() == pytest.approx(0.9 ** (2 * steps) * 9 / dim, rel=1e-4)
    others = [t for t in range(first, length + 1) if t not in (30, later)]
    assert energy[others].max() < 1e-10


def test_short_episodes_and_wrong_actions() -> None:
    model, latents = toy_model(), torch.zeros(11, 8)
    assert energies(model, latents, np.zeros((10, 2)), steps=2).isnan().all()
    for wrong in (np.zeros((11, 2)), np.zeros((10, 3)), np.zeros(10)):
        with pytest.raises(BadInput, match="actions do not fit the frames"):
            energies(model, latents, wrong)


def test_the_monitor_says_while_running_what_is_said_afterwards(tmp_path: Path) -> None:
    """Two environments, of which the second starts anew in the middle."""
    store, model = dot_store(tmp_path / "dots"), toy_model()
    pixels, actions = (store.data[key].numpy() for key in ("pixels", "actions"))
    monitor, size = Monitor(model, Thresholds(**GOOD)), 2
    monitor.reset(size)
    seen = []
    for t in range(31):
        if t == 10:
            monitor.reset(size, np.array([False, True]))
        rows = (0, t) if t < 10 else (0, t), (1, t) if t < 10 else (2, t - 10)
        monitor.observe(
            TensorDict({"pixels": torch.from_numpy(np.stack([pixels[row] for row in rows]))}, batch_size=[2])
        )
        seen.append(monitor.energy)
        if t < 30:
            monitor.applied(np.stack([actions[row] for row in rows]))
    seen = np.array(seen)
    np.testing.assert_allclose(seen[:, 0], film_energies(model, pixels[0], actions[0], 2), rtol=1e-4)
    np.testing.assert_allclose(seen[10:, 1], film_energies(model, pixels[2], actions[2], 2)[:21], rtol=1e-4)
    assert np.isfinite(seen[15:, 0]).all() and np.isnan(seen[:25, 1]).all() and np.isfinite(seen[25:, 1]).all()


def test_nothing_is_judged_from_frames_and_actions_that_are_not_a_step_apart(tmp_path: Path) -> None:
    """Two pictures of a wrong size, and ordinary motion after them was called impossible."""
    store, model = dot_store(tmp_path / "dots"), toy_model()
    pixels, actions = (store.data[key].numpy() for key in ("pixels", "actions"))
    monitor = Monitor(model, Thresholds(**GOOD))
    monitor.reset(1)
    seen = []
    for t in range(30):
        picture = pixels[:1, t]
        if t in (12, 13):
            with pytest.raises(BadInput):
                monitor.observe(TensorDict({"pixels": torch.from_numpy(picture[:, :5])}, batch_size=[1]))
        else:
            monitor.observe(TensorDict({"pixels": torch.from_numpy(picture)}, batch_size=[1]))
            seen.append((t, monitor.energy[0]))
        monitor.applied(actions[:1, t])
    whole, energy = film_energies(model, pixels[0], actions[0], 2), dict(seen)
    span = first_step(model, 2)
    assert all(np.isnan(energy[t]) for t in range(14, 14 + span))
    for t in (*range(span, 12), *range(14 + span, 30)):
        np.testing.assert_allclose(energy[t], whole[t], rtol=1e-4)


def test_a_picture_that_came_late_is_not_judged_nor_foreseen_from(tmp_path: Path) -> None:
    """It was taken for a present one and called impossible: a robot whose camera stuttered once had stopped for good.

    What is seen beside it is judged as ever.
    """
    store, model = dot_store(tmp_path / "dots"), toy_model()
    pixels, actions = (torch.from_numpy(store.data[key].numpy()[:2]) for key in ("pixels", "actions"))
    monitor, late, span, energy = Monitor(model, Thresholds(**GOOD)), 17, first_step(model, 2), []
    monitor.reset(2)
    for t in range(30):
        shown = pixels[:, t].clone()
        shown[0] = pixels[0, t - 5 * (t == late)]
        states = monitor.observe(TensorDict({"pixels": shown}, batch_size=[2]), np.array([t != late, True]))
        assert (states[np.isnan(monitor.energy)] == 0).all()
        energy.append(monitor.energy)
        monitor.applied(actions[:, t].numpy())
    for row, judged in enumerate(([*range(span, late), *range(late + span + 1, 30)], range(span, 30))):
        whole = film_energies(model, pixels[row].numpy(), actions[row].numpy(), 2)
        assert np.flatnonzero(np.isfinite(np.array(energy)[:, row])).tolist() == list(judged)
        np.testing.assert_allclose(np.array(energy)[list(judged), row], whole[list(judged)], rtol=1e-4)


def test_a_monitor_wants_its_batch() -> None:
    with pytest.raises(BadInput, match="batch is off; expected 0 environments; got 1; call reset first"):
        Monitor(toy_model(), Thresholds(**GOOD)).observe(TensorDict(batch_size=[1]))


# Beside a checkpoint -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_checkpoint(tmp_path / "toy")


def fitted(folder: Path) -> Thresholds:
    return Thresholds(**GOOD | {"sha256": checkpoint.load(folder).sha256})


def test_they_travel_with_the_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a shipped one's are in the manifest."""
    monkeypatch.setattr(checkpoint, "SHIPPED", folder.parent.resolve())
    surprise.save(folder, fitted(folder))
    assert surprise.load(folder, checkpoint.load(folder).sha256) == fitted(folder)
    assert "toy/surprise.json" in (folder.parent / "SHA256SUMS").read_text()


def test_a_checkpoint_without_them_is_as_good_as_ever(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    with pytest.raises(BadInput, match=r"has no monitor of surprise; .*surprise.json; fit one with `jepa-mpc surprise"):
        surprise.load(folder, loaded.sha256)


def test_those_of_other_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    surprise.save(folder, fitted(folder))
    checkpoint.save(
        folder,
        toy_model(seed=1),
        task="TwoRoom",
        renderer="none",
        planner=checkpoint.load(folder).planner,
        card="# new",
    )
    loaded = checkpoint.load(folder)
    with pytest.raises(BadInput, match="fitted for other weights; .*fit it again"):
        surprise.load(folder, loaded.sha256)
    with pytest.raises(BadInput, match="fitted for other weights"):
        surprise.save(folder, Thresholds(**GOOD))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: "{", "is damaged"),
        (lambda raw: "[]", "is damaged; .*got list"),
        (lambda raw: json.dumps(raw | {"code": "rm"}), "is damaged; expected the keys .*code"),
        (lambda raw: json.dumps({key: raw[key] for key in list(raw)[1:]}), "is damaged; expected the keys"),
        (lambda raw: json.dumps(raw | {"unusual": None}), "surprise.json: surprise: unusual is off"),
        (lambda raw: json.dumps(raw | {"format": 7}), "format is off; expected 1; got 7"),
    ],
)
def test_damage_is_told(folder: Path, damage: Callable[[Any], str], says: str) -> None:
    surprise.save(folder, fitted(folder))
    file = folder / surprise.FILE
    file.write_text(damage(json.loads(file.read_text())))
    with pytest.raises(BadInput, match=says):
        surprise.load(folder, checkpoint.load(folder).sha256)


@pytest.mark.parametrize("path", sorted(checkpoint.SHIPPED.glob("*/config.json")), ids=lambda path: path.parent.name)
def test_shipped_ones_are_of_the_shipped_weights(path: Path) -> None:
    """One that was removed with its weights, and not fitted to the new ones, was missed by nobody."""
    assert surprise.load(path.parent, checkpoint.load(path.parent).sha256).episodes >= 99


# On real weights ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (checkpoint.SHIPPED / "tworoom").is_dir(), reason="no checkpoints are shipped here")
def test_a_teleport_is_noticed_and_ordinary_play_is_not() -> None:
    loaded = checkpoint.load(checkpoint.SHIPPED / "tworoom")
    with envs.make("TwoRoom") as env:
        found = surprise.fit(loaded, env, episodes=99, length=20)
        states, actions = play_episode(env, 20, np.random.default_rng([EVALUATE_STREAM, 77, 0]))
        moved = states.copy()
        moved[18:, 0] *= -1  # through the wall in no time
        ordinary, jumping = (np.stack([env.picture(state) for state in one]) for one in (states, moved))
    assert 0 < found.unusual <= found.impossible < 2
    assert (found.judge(film_energies(loaded.model, ordinary, actions, found.steps)) == 0).all()
    judged = found.judge(film_energies(loaded.model, jumping, actions, found.steps))
    assert (judged[:18] == 0).all() and (judged[18:] == 2).all()


def test_fitting_wants_enough() -> None:
    with envs.make("TwoRoom", size=32) as env, pytest.raises(BadInput, match="too short; expected at least 15 steps"):
        surprise.fit(toy_loaded(), env, episodes=99, length=14)
    with pytest.raises(BadInput, match="too few episodes; expected at least 99 for a rate of 0.01; got 98"):
        surprise.fit(toy_loaded(), None, episodes=98)


def toy_loaded() -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(toy_model(), "TwoRoom", "none", None, "0" * 64)  # type: ignore[arg-type]


# In the guard ------------------------------------------------------------------------------------------------------


class Says:
    """A monitor that says what it is told to, a row of states an `observe`, and remembers what it was told."""

    def __init__(self, *says: list[int] | Exception) -> None:
        self.says, self.resets, self.done, self.seen = list(says), [], [], []
        self.energy = np.zeros(2)

    def reset(self, size: int, mask: np.ndarray | None = None) -> None:
        self.resets.append(None if mask is None else mask.tolist())

    def observe(self, obs: TensorDict, seen: np.ndarray) -> np.ndarray:
        self.seen.append(seen.tolist())
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return np.array(said)

    def applied(self, actions: np.ndarray) -> None:
        self.done.append(actions.copy())


class Steady:
    """A policy that always wants the same, and remembers its resets."""

    def __init__(self) -> None:
        self.resets: list[Any] = []

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        self.resets.append((goal["is"].flatten().tolist(), None if mask is None else mask.tolist()))

    def act(self, obs: TensorDict) -> np.ndarray:
        return np.ones((obs.batch_size[0], 2))


def look(*values: float) -> TensorDict:
    return TensorDict({"is": torch.tensor(values)}, batch_size=[len(values)])


def watched(*says: list[int] | Exception, **limits: Any) -> tuple[Guard, Steady, Says]:
    policy, monitor = Steady(), Says(*says)
    guard = Guard(policy, SPEC, Limits(**limits), monitor=monitor)  # type: ignore[arg-type]
    guard.reset(look(0, 0), look(1, 2))
    return guard, policy, monitor


def test_a_warning_changes_nothing_but_counts() -> None:
    guard, policy, monitor = watched([0, 1], [2, 1], [0, 0])
    for _ in range(3):
        sent = guard.act(look(0, 0))
        assert (sent == 1).all() and (monitor.done[-1] == sent).all()
    assert guard.alarms == {"unusual": 2, "impossible": 1}
    assert len(policy.resets) == 1 and guard.report() == {}


def test_an_alarm_is_told_at_once_and_to_whom_it_concerns() -> None:
    told: list[list[int]] = []
    monitor = Says([0, 0], [0, 1], [2, 0])
    guard = Guard(Steady(), SPEC, monitor=monitor, on_alarm=lambda states: told.append(states.tolist()))  # type: ignore[arg-type]
    guard.reset(look(0, 0), look(1, 2))
    for _ in range(3):
        guard.act(look(0, 0))
    assert told == [[0, 1], [2, 0]]


def test_an_alarm_that_nobody_can_hear_still_stops_the_robot() -> None:
    """What listened was called before the robot was stopped, and where it failed the robot drove on."""

    def broken(states: np.ndarray) -> None:
        raise OSError("no space left for the log")

    monitor = Says([0, 0], [2, 0], [2, 0])
    limits = Limits(on_impossible="stop")
    guard = Guard(Steady(), SPEC, limits, monitor=monitor, on_alarm=broken)  # type: ignore[arg-type]
    guard.reset(look(0, 0), look(1, 2))
    sent = [guard.act(look(0, 0)) for _ in range(3)]
    assert (np.array(sent)[1:, 0] == 0).all() and (np.array(sent)[:, 1] == 1).all()
    assert guard.report() == {"stopped": 2, "error": 4} and isinstance(guard.last_error, OSError)


def test_an_alarm_is_told_though_the_policy_cannot_begin_anew() -> None:
    """The alarm was counted, and the lamp stayed dark."""

    class Tired(Steady):
        def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
            if mask is not None:
                raise RuntimeError("no")

    told: list[list[int]] = []
    options: dict[str, Any] = {"monitor": Says([2, 0]), "on_alarm": lambda states: told.append(states.tolist())}
    guard = Guard(Tired(), SPEC, Limits(on_impossible="replan"), **options)
    guard.reset(look(0, 0), look(1, 2))
    guard.act(look(0, 0))
    assert told == [[2, 0]] and guard.alarms["impossible"] == 1 and guard.report() == {"error": 2}


def test_who_is_to_act_on_the_impossible_needs_somebody_who_sees_it() -> None:
    """A guard without a monitor took `on_impossible="stop"` and never stopped."""
    for response in ("stop", "replan"):
        with pytest.raises(BadInput, match=f"on_impossible without a monitor; got '{response}'; hand over a monitor"):
            Guard(Steady(), SPEC, Limits(on_impossible=response))


def test_what_is_stale_or_broken_is_not_judged() -> None:
    """One sensor's NaN left the monitor without a word about the others, where the encoder refuses it."""
    monitor = Says([0, 0], [0, 0], [0, 0])
    monitor.energy = np.array([0.1, np.nan])
    guard = Guard(Steady(), SPEC, Limits(max_age=1), clock=lambda: 10.0, monitor=monitor)  # type: ignore[arg-type]
    guard.reset(look(0, 0), look(1, 2))
    for is_, taken in (((0, 0), (10.0, 10.0)), ((0, 0), (3.0, 10.0)), ((0, math.nan), (10.0, 10.0))):
        obs = look(*is_)
        obs["time"] = torch.tensor(taken)
        guard.act(obs)
    assert monitor.seen == [[True, True], [False, True], [True, False]]
    assert guard.judged == 3


def test_an_episode_that_is_planned_anew_keeps_its_noise() -> None:
    """The policy was begun anew with what is seen, which has no number of its episode: all then had the same noise."""
    seen: list[Any] = []

    class Numbered(Steady):
        def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
            seen.append(obs["episode"].tolist())

    guard = Guard(Numbered(), SPEC, Limits(on_impossible="replan"), monitor=Says([0, 2], [2, 0]))  # type: ignore[arg-type]
    begun = look(0, 0)
    begun["episode"] = torch.tensor([4, 7])
    guard.reset(begun, look(1, 2))
    guard.act(look(0, 0))
    begun["episode"] = torch.tensor([9, 9])
    guard.reset(begun, look(1, 2), np.array([True, False]))
    guard.act(look(0, 0))
    assert seen == [[4, 7], [4, 7], [9, 9], [9, 7]]


def test_replanning_starts_the_policy_anew_with_the_same_goal() -> None:
    guard, policy, monitor = watched([0, 0], [0, 2], on_impossible="replan")
    guard.act(look(0, 0))
    guard.act(look(0, 0))
    assert policy.resets[1:] == [([1.0, 2.0], [False, True])]
    assert monitor.resets == [None, [False, True]]


def test_who_can_plan_anew_in_the_midst_of_an_episode_is_not_reset() -> None:
    """A reset forgets what was visited of several goals."""

    class Planner(Steady):
        def anew(self, mask: np.ndarray) -> None:
            told.append(mask.tolist())

    told: list[list[bool]] = []
    policy = Planner()
    guard = Guard(policy, SPEC, Limits(on_impossible="replan"), monitor=Says([0, 2]))  # type: ignore[arg-type]
    guard.reset(look(0, 0), look(1, 2))
    guard.act(look(0, 0))
    assert told == [[False, True]] and len(policy.resets) == 1


def test_a_safe_stop_lasts_until_the_reset() -> None:
    guard, _, monitor = watched([0, 0], [0, 2], [0, 0], [0, 0], on_impossible="stop", rate=0.75)
    sent = [guard.act(look(0, 0)) for _ in range(3)]
    assert np.allclose(np.array(sent)[:, 0, 0], [0.75, 1, 1])
    assert np.allclose(np.array(sent)[:, 1, 0], [0.75, 0, 0])  # within the rate: it brakes as fast as it may
    assert guard.report()["stopped"] == 2 and (monitor.done[-1] == sent[-1]).all()
    guard.reset(look(0, 0), look(3, 4), np.array([False, True]))
    assert np.allclose(guard.act(look(0, 0))[:, 0], [1, 0.75])
    assert monitor.resets[-1] == [False, True]


def test_new_goals_are_those_of_the_rows_that_were_reset() -> None:
    guard, policy, _ = watched([2, 2], on_impossible="replan")
    guard.reset(look(0, 0), look(3, 4), np.array([False, True]))
    guard.act(look(0, 0))
    assert policy.resets[-1] == ([1.0, 4.0], [True, True])


def test_a_monitor_that_fails_does_not_stop_the_robot() -> None:
    guard, _, _ = watched(RuntimeError("blind"), [0, 0])
    assert (guard.act(look(0, 0)) == 1).all()
    assert guard.report() == {"error": 2} and str(guard.last_error) == "blind"
    guard, _, _ = watched(RuntimeError("blind"), survive_errors=False)
    with pytest.raises(RuntimeError, match="blind"):
        guard.act(look(0, 0))


def test_an_unknown_response_is_refused() -> None:
    with pytest.raises(BadInput, match="on_impossible is off; expected warn or replan or stop; got 'pray'"):
        Limits(on_impossible="pray")


# Evaluation and command line ---------------------------------------------------------------------------------------


def test_an_evaluation_counts_alarms_if_asked(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    protocol = Protocol(episodes=2, distance=10, oracle=False)
    sharp = Thresholds(**GOOD | {"unusual": 0.0, "impossible": 1e9})
    result = evaluate(envs, "TwoRoom", loaded, loaded.planner, protocol, watch=sharp).result
    assert result["alarms"]["steps"] <= 40
    judged = max(0, result["alarms"]["steps"] - 2 * first_step(loaded.model, 2))  # the first ones cannot be
    assert result["alarms"]["unusual"] == result["alarms"]["judged"] == judged
    assert result["alarms"]["impossible"] == 0
    assert "alarms" not in evaluate(envs, "TwoRoom", loaded, loaded.planner, protocol).result
    sharp = Thresholds(**GOOD | {"unusual": 0.0, "impossible": 1e-9})
    options = {"watch": sharp, "on_impossible": "stop"}
    stopped = evaluate(envs, "TwoRoom", loaded, loaded.planner, protocol, **options).result
    assert stopped["interventions"]["stopped"] == stopped["alarms"]["steps"] - 2 * first_step(loaded.model, 2)
    with pytest.raises(BadInput, match="on_impossible and changes of appearance"):
        evaluate(envs, "TwoRoom", loaded, loaded.planner, Protocol(2, 10, oracle=False, appearance=True), **options)
    with pytest.raises(BadInput, match="surprise is counted in one environment; expected num_envs 1; got 2"):
        evaluate(envs, "TwoRoom", loaded, loaded.planner, Protocol(num_envs=2), watch=sharp)


def say(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


def test_bad_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    toy_checkpoint(tmp_path / "toy")
    dot_store(tmp_path / "dots")
    dot_store(tmp_path / "reacher", task="Reacher")
    np.savez(tmp_path / "odd.npz", pixels=np.zeros((3, 32, 32, 3)), actions=np.zeros((2, 2)))
    np.savez(tmp_path / "few.npz", pixels=np.zeros((3, 32, 32, 3), np.uint8))
    np.savez(tmp_path / "evil.npz", pixels=np.array([{}], dtype=object), actions=np.zeros((2, 2)))
    np.savez(tmp_path / "ok.npz", pixels=np.zeros((31, 32, 32, 3), np.uint8), actions=np.zeros((30, 2)))
    (tmp_path / "words.npz").write_text("no zip")
    (tmp_path / "empty.npz").touch()
    np.savez_compressed(tmp_path / "torn.npz", pixels=np.zeros((31, 32, 32, 3), np.uint8), actions=np.zeros((30, 2)))
    whole = (tmp_path / "torn.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[:60] + b"\xff" * 20 + whole[80:])
    (tmp_path / "locked.npz").write_bytes(
        (tmp_path / "ok.npz").read_bytes().replace(b"PK\1\2\x2d\3\x2d\0\0", b"PK\1\2\x2d\3\x2d\0\1")
    )
    with_toy = " --checkpoint toy"
    assert "no recording at nothing" in say("surprise nothing" + with_toy, capsys)
    assert "no such episode; expected 0 to 5; got 6" in say("surprise dots --episode 6" + with_toy, capsys)
    assert "has no monitor of surprise" in say("surprise dots" + with_toy, capsys)
    assert "is for another task; expected Reacher" in say("surprise reacher" + with_toy, capsys)
    assert "uint8 [N, h, w, 3]" in say("surprise odd.npz --task TwoRoom" + with_toy, capsys)
    assert "with pixels and actions" in say("surprise few.npz --task TwoRoom" + with_toy, capsys)
    assert "got object [1]" in say("surprise evil.npz --task TwoRoom" + with_toy, capsys)
    for damaged in ("words", "empty", "torn", "locked"):
        assert "is no recording" in say(f"surprise {damaged}.npz --task TwoRoom" + with_toy, capsys)
    assert "does not say what task it is of; give --task" in say("surprise ok.npz" + with_toy, capsys)
    assert "ok.npz has no such episode; expected 0: it is one episode" in say(
        "surprise ok.npz --task TwoRoom --episode 9" + with_toy, capsys
    )
    wrong = "dots is of another task; expected TwoRoom; got Reacher; leave out --task"
    assert wrong in say("surprise dots --task Reacher" + with_toy, capsys)
    assert "has no monitor of surprise" in say("surprise dots --task TwoRoom" + with_toy, capsys)
    assert "unknown task" in say("surprise Fly --fit", capsys)
    assert "episodes is off" in say("surprise TwoRoom --fit --episodes 0", capsys)
    assert "--steps is not read without --fit; leave it out" in say("surprise dots --steps 7" + with_toy, capsys)
    assert "--episode is not read with --fit; leave it out" in say("surprise TwoRoom --fit --episode 3", capsys)
    assert "has no monitor of surprise" in say("evaluate TwoRoom --surprise" + with_toy, capsys)


def test_a_clip_too_short_to_judge_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was scored as 0 normal, 0 unusual and 0 impossible steps, which looks like a good clip."""
    monkeypatch.chdir(tmp_path)
    surprise.save(toy_checkpoint(tmp_path / "toy"), fitted(tmp_path / "toy"))
    words = "surprise clip.npz --task TwoRoom --checkpoint toy --out seen"
    for length in (14, 15):  # history of 2, 2 steps ahead, blocks of 5: (2 - 1 + 2) * 5
        pixels, actions = np.zeros((length + 1, 32, 32, 3), np.uint8), np.zeros((length, 2))
        np.savez(tmp_path / "clip.npz", pixels=pixels, actions=actions)
        if length == 14:
            assert "clip.npz is too short; expected at least 15 steps; got 14" in say(words, capsys)
            assert not Path("seen").exists()
        else:
            main(words.split())
            assert "1 normal" in capsys.readouterr().out


def test_actions_that_no_robot_does_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a recording in other units nothing could be foreseen: 0 steps of any kind were told, as a success."""
    monkeypatch.chdir(tmp_path)
    surprise.save(toy_checkpoint(tmp_path / "toy"), fitted(tmp_path / "toy"))
    pixels, actions = np.zeros((31, 32, 32, 3), np.uint8), np.full((30, 2), SPEC.high[0])
    words = "surprise clip.npz --task TwoRoom --checkpoint toy --out seen"
    np.savez(tmp_path / "clip.npz", pixels=pixels, actions=actions.astype(np.float32))
    main(words.split())
    np.savez(tmp_path / "clip.npz", pixels=pixels, actions=np.where(np.arange(60).reshape(30, 2) == 7, 1e30, actions))
    assert "clip.npz: actions are out of the task's bounds; expected " in say(words, capsys)
    np.savez(tmp_path / "clip.npz", pixels=pixels, actions=np.zeros((30, 3)))
    assert "clip.npz: actions are off; expected [L, 2]; got [L, 3]" in say(words, capsys)


def test_a_longer_clip_is_told_to_be_beyond_the_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of ordinary episodes six times as long as those that thresholds are from a quarter has an unusual step."""
    monkeypatch.chdir(tmp_path)
    surprise.save(toy_checkpoint(tmp_path / "toy"), fitted(tmp_path / "toy"))
    for length in (30, 31):
        pixels, actions = np.zeros((length + 1, 32, 32, 3), np.uint8), np.zeros((length, 2))
        np.savez(tmp_path / "clip.npz", pixels=pixels, actions=actions)
        main(["surprise", "clip.npz", "--task", "TwoRoom", "--checkpoint", "toy", "--out", "seen"])
        assert ("rates of alarms hold for up to 30" in capsys.readouterr().out) == (length == 31)


def test_fit_then_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    toy_checkpoint(tmp_path / "toy")
    store = dot_store(tmp_path / "dots")
    main(["surprise", "TwoRoom", "--fit", "--checkpoint", "toy", "--episodes", "99", "--length", "15", "--steps", "2"])
    found = surprise.load(tmp_path / "toy", checkpoint.load(tmp_path / "toy").sha256)
    assert (found.episodes, found.length, found.renderer) == (99, 15, envs.choose_backend())
    main(["surprise", "dots", "--episode", "3", "--checkpoint", "toy", "--out", "seen"])
    pixels, actions = (store.data[key][3].numpy() for key in ("pixels", "actions"))
    np.savez(tmp_path / "clip.npz", pixels=pixels, actions=actions)
    main(["surprise", "clip.npz", "--task", "TwoRoom", "--checkpoint", "toy", "--out", "again"])
    out = capsys.readouterr().out
    assert "episode 3 of dots: " in out and "seen/energy.png" in out
    assert out.count(f"its pictures are of none; thresholds are of {envs.choose_backend()}'s") == 1  # the .npz has none
    numbers = [json.loads((tmp_path / name / "energy.json").read_text()) for name in ("seen", "again")]
    assert numbers[0] == numbers[1] and len(numbers[0]["energy"]) == 31 and numbers[0]["energy"][14] is None
    assert np.asarray(Image.open(tmp_path / "seen" / "energy.png")).std() > 10


def test_an_evaluation_shows_alarms_and_the_episodes_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    surprise.save(toy_checkpoint(tmp_path / "toy"), fitted(tmp_path / "toy"))
    words = "evaluate TwoRoom --checkpoint toy --episodes 3 --distance 5 --no-oracle --out seen"
    main([*words.split(), "--surprise", "--show", "2"])
    alarms, page = json.loads(Path("seen/results.json").read_text())["alarms"], Path("seen/report.html").read_text()
    steps = f"{alarms['judged']} steps that can be judged ({alarms['steps']} in all)"
    told = f"of {steps} the monitor of surprise called {alarms['unusual']} unusual"
    assert f"TwoRoom: {told}" in " ".join(capsys.readouterr().out.split()) and f"Alarms: {told}" in page
    assert "Episode 2," in page and "Episode 0," not in page
    assert "no such episodes to show; expected up to 8 of 0 to 2; got [3]" in say(words + " --show 3", capsys)
    assert "on_impossible without a monitor" in say(words + " --on-impossible stop", capsys)
    assert "on_impossible and record" in say(words + " --surprise --on-impossible stop --record", capsys)


def test_no_thresholds_of_another_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play far beyond the bounds that the model knows gave thresholds without a word."""
    monkeypatch.setattr(surprise, "record_episode", lambda *_: pytest.fail("an episode was played"))
    with envs.make("TwoRoom", size=32) as env:
        monkeypatch.setattr(env, "action_spec", lambda: ActionSpec((-9.0, -9.0), (9.0, 9.0), SPEC.units, SPEC.block))
        with pytest.raises(BadInput, match="checkpoint and task differ in their actions; expected .*9.0.*got .*1.2"):
            surprise.fit(toy_loaded(), env)
