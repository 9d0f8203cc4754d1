"""An evaluation: fields, floors, budget, files; and records that add up to what is reported."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict
from toys import PLANNER, SIZE, SPEC, flip_byte, toy_checkpoint

from envs.point_maze import way_left
from planner import checkpoint
from planner.actions import ActionSpec
from planner.checkpoint import Checkpoint
from planner.errors import BadInput
from planner.evaluate import run
from planner.evaluate.own_goal import film, read_picture, write_picture
from planner.evaluate.protocol import STANDARD, STRICT, Judge, NoopPolicy, RandomPolicy, held_out_pairs, play_pairs
from planner.evaluate.run import Outcome, Protocol, card_figures, evaluate, write_results
from planner.evaluate.statistics import wilson
from planner.evaluate.video import Clip, _tile
from planner.pictures import decode
from planner.tasks import load_envs

PAIRS, DISTANCE = 4, 20


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A JEPA that knows nothing: what is measured here is the measuring."""
    return checkpoint.load(toy_checkpoint(tmp_path_factory.mktemp("checkpoint")))


def measure(loaded: Checkpoint, **changes: Any) -> Outcome:
    protocol = Protocol(**{"episodes": PAIRS, "distance": DISTANCE, "seed": 3, "oracle": False} | changes)
    return evaluate(load_envs(), "TwoRoom", loaded, PLANNER, protocol)


@pytest.fixture(scope="module")
def outcome(loaded: Checkpoint) -> Outcome:
    """With the oracle beside it."""
    return measure(loaded, oracle=True)


def records(outcome: Outcome, policy: str) -> list[dict[str, Any]]:
    return [record for record in outcome.records if record["policy"] == policy]


def test_the_commit_is_asked_before_the_first_pair_is_played(loaded: Checkpoint, monkeypatch: Any) -> None:
    """It is kept from then on (`versions.commit`): a result names what ran, and not what lay there at the end."""
    seen: list[str] = []
    monkeypatch.setattr("planner.evaluate.run.commit", lambda: seen.append("asked") or "c0ffee")
    play = play_pairs
    monkeypatch.setattr(
        "planner.evaluate.run.play_pairs", lambda *given, **more: seen.append("played") or play(*given, **more)
    )
    assert measure(loaded, episodes=1).result["commit"] == "c0ffee"
    assert seen[0] == "asked" and "played" in seen


@pytest.mark.parametrize("show", [(), (1, 3)])
def test_only_films_that_can_be_shown_are_kept(show: tuple[int, ...], monkeypatch: Any) -> None:
    """All were kept till the end: 200 long episodes were two gigabytes of pictures, of which eight are shown."""
    monkeypatch.setattr(run, "MAX_CLIPS", 2)
    room, protocol = load_envs().make("TwoRoom", SIZE), Protocol(episodes=6, distance=5, oracle=False)
    pairs = held_out_pairs(room, 6, 5, 3)
    judged = iter([True, False, True, True, False, False])
    monkeypatch.setattr(run, "STANDARD", Judged(judged))
    rest = NoopPolicy(np.array(SPEC.low), np.array(SPEC.high))
    episodes = run._play("planner", rest, [room], pairs, protocol, lambda *_: None, show)
    outcomes = [episode.success for episode in episodes]
    assert outcomes == [True, False, True, True, False, False]
    kept = [k for k, episode in enumerate(episodes) if episode.frames and episode.states]
    assert kept == (list(show) or [0, 1, 2, 4]), "the first of either kind"
    assert show or set(run.choose(outcomes, 2)) <= set(kept)
    room.close()


class Judged:
    """Says of an episode's last step what it is told to, and of those before that they are not there yet."""

    def __init__(self, says: Any) -> None:
        self.says = says

    def reached(self, distances: list[float]) -> bool:
        return len(distances) == 10 and next(self.says)


# Results -----------------------------------------------------------------------------------------------------------


def test_every_field_is_there(outcome: Outcome, loaded: Checkpoint) -> None:
    result = outcome.result
    kinds = {"task": str, "n": int, "successes": int, "success_rate": float, "interval": list, "floors": dict}
    kinds |= {"removed_pairs": int, "ruled_out_pairs": int, "plan_ms": dict, "seed": int, "backend": str}
    kinds |= {"versions": dict, "checkpoint_sha256": str, "distance": int, "budget": int, "num_envs": int}
    kinds |= {
        "optimizer": str,
        "planner": dict,
        "control_hz": float,
        "fallbacks": int,
        "interventions": dict,
        "incomplete_plans": int,
        "commit": str,
        "date": str,
        "hard_score": float,
        "protocol": dict,
    }
    assert {key: type(result[key]) for key in kinds} == kinds
    assert (result["task"], result["n"], result["seed"]) == ("TwoRoom", PAIRS, 3)
    assert result["checkpoint_sha256"] == loaded.sha256
    assert result["planner"] == dataclasses.asdict(PLANNER)
    assert result["backend"] == load_envs().choose_backend() and result["checkpoint_backend"] == "none"
    assert {"torch", "mujoco", "numpy"} <= set(result["versions"])


def test_rates_and_intervals_belong_to_the_counts(outcome: Outcome) -> None:
    arms = {"planner": outcome.result, **outcome.result["floors"]}
    assert list(arms) == ["planner", "random", "noop", "oracle"]
    for name, arm in arms.items():
        reached = sum(record["success"] for record in records(outcome, name))
        assert (arm["n"], arm["successes"]) == (PAIRS, reached), name
        assert arm["success_rate"] == reached / PAIRS
        assert arm["interval"] == list(wilson(reached, PAIRS))


def test_the_hard_score_counts_from_the_better_floor(outcome: Outcome) -> None:
    rate, floors = outcome.result["success_rate"], outcome.result["floors"]
    floor = max(floors["random"]["success_rate"], floors["noop"]["success_rate"])
    assert outcome.result["hard_score"] == pytest.approx((rate - floor) / (1 - floor))
    assert outcome.result["smallest_difference"] is None, "four pairs show nothing"


def test_the_protocol_is_named(outcome: Outcome, loaded: Checkpoint) -> None:
    departs = outcome.result["protocol"]["departs"]
    assert len(departs) == 2 and "no column with distance 20" in departs[0] and "seed 3" in departs[1]
    kept = measure(loaded, distance=25, seed=0, episodes=1).result["protocol"]
    assert (kept["column"], kept["departs"], kept["n"], kept["of"]) == ("25", [], 1, 200)


def test_the_same_pairs_are_played_with_other_noise(outcome: Outcome, loaded: Checkpoint, tmp_path: Path) -> None:
    """The one seed was of pairs and noise, so that nobody could tell how much of a rate is luck."""
    same, other = (measure(loaded, noise=noise) for noise in (3, 4))
    assert [found.result["noise"] for found in (outcome, same, other)] == [3, 3, 4]
    far = [[(r["initial_distance"], r["goal_distance"]) for r in records(f, "planner")] for f in (outcome, same, other)]
    assert far[0] == far[1] != far[2], "without a number it is that of the pairs"
    assert [start for start, _ in far[1]] == [start for start, _ in far[2]]
    moved = [[r["goal_distance"] for r in records(found, "random")] for found in (same, other)]
    assert moved[0] != moved[1], "random actions are noise, too"
    kept = measure(loaded, distance=25, seed=0, episodes=1, noise=7).result
    assert (kept["protocol"]["departs"], kept["seed"], kept["noise"]) == ([], 0, 7), "a protocol is of pairs"
    with pytest.raises(BadInput, match="the noise: seed is off"):
        Protocol(noise=-1)


def test_pairs_of_a_protocol_are_played_whatever_the_simulator_makes_of_their_seeds(
    loaded: Checkpoint, monkeypatch: Any
) -> None:
    """Another processor made other pairs of Cube's seeds, and figures were of other goals than the table said."""
    frozen = measure(loaded, distance=25, seed=0, episodes=2).result["protocol"]
    kind = type(load_envs().make("TwoRoom", SIZE))
    play = kind.play
    monkeypatch.setattr(kind, "play", lambda self, rng: lambda state: 0.99 * play(self, rng)(state))
    moved = measure(loaded, distance=25, seed=0, episodes=2).result["protocol"]
    assert moved == frozen and moved["same_pairs"] is True
    elsewhere = measure(loaded, episodes=2).result["protocol"]["digest"]
    monkeypatch.setattr(kind, "play", play)
    assert measure(loaded, episodes=2).result["protocol"]["digest"] != elsewhere, "seed 3 is of no protocol"


def test_plan_times_are_quantiles(outcome: Outcome) -> None:
    times = outcome.result["plan_ms"]
    assert 0 < times["median"] <= times["p95"] <= times["p99"] < 60_000
    assert outcome.result["control_hz"] == pytest.approx(1000 / times["median"])


def test_the_oracle_shows_that_the_task_can_be_done(outcome: Outcome) -> None:
    assert outcome.result["floors"]["oracle"]["successes"] >= PAIRS - 1
    assert outcome.result["floors"]["noop"]["successes"] == 0


def test_an_oracle_that_was_not_asked_for(loaded: Checkpoint) -> None:
    floors = measure(loaded, episodes=1).result["floors"]
    assert floors["oracle"] is None and floors["noop"]["n"] == 1


def test_the_budget_is_twice_the_distance(outcome: Outcome) -> None:
    assert outcome.result["budget"] == 2 * DISTANCE
    for record in outcome.records:
        assert 1 <= record["steps"] <= 2 * DISTANCE
        assert record["success"] or record["steps"] == 2 * DISTANCE
        assert len(record["goal_distance"]) == record["steps"]


def test_success_is_the_first_time_within_tolerance(outcome: Outcome) -> None:
    """And never at the start: such pairs are removed."""
    for record in outcome.records:
        assert record["initial_distance"] > 1
        assert record["success"] == (record["goal_distance"][-1] <= 1)
        assert all(distance > 1 for distance in record["goal_distance"][:-1])


def test_every_policy_plays_the_same_pairs(outcome: Outcome) -> None:
    starts = {
        tuple(record["initial_distance"] for record in records(outcome, name))
        for name in ("planner", "random", "noop", "oracle")
    }
    assert len(starts) == 1 and len(set(starts.pop())) == PAIRS


def test_the_same_call_gives_the_same_records(outcome: Outcome, loaded: Checkpoint) -> None:
    again = measure(loaded)
    for name in ("planner", "random", "noop"):
        assert records(again, name) == records(outcome, name)
    assert records(measure(loaded, seed=4), "noop") != records(outcome, "noop")


@pytest.mark.parametrize("num_envs", [3, 16])
def test_environments_at_once_change_nothing(outcome: Outcome, loaded: Checkpoint, num_envs: int) -> None:
    """Also where the last group is smaller than the others, and where there are more rooms than pairs."""
    several = measure(loaded, num_envs=num_envs)
    assert several.result["num_envs"] == num_envs
    assert records(several, "noop") == records(outcome, "noop")
    assert records(several, "random") == records(outcome, "random")
    assert records(several, "planner") == records(outcome, "planner"), "to the last bit"


def test_the_oracle_s_records_are_the_same_with_any_number_of_environments(
    outcome: Outcome, loaded: Checkpoint
) -> None:
    assert records(measure(loaded, num_envs=3, oracle=True), "oracle") == records(outcome, "oracle")


def test_progress_is_told(loaded: Checkpoint) -> None:
    told: list[tuple[str, int, int, int]] = []
    protocol = Protocol(episodes=2, distance=DISTANCE, oracle=False)
    evaluate(load_envs(), "TwoRoom", loaded, PLANNER, protocol, lambda *step: told.append(step))
    assert [step[:3] for step in told if step[0] == "noop"] == [("noop", done, 2) for done in range(3)]
    assert {step[0] for step in told} == {"planner", "random", "noop"}


def test_a_checkpoint_for_another_robot_is_refused(loaded: Checkpoint) -> None:
    """Tampering with the bounds in `config.json` leaves the weights' hash as it was; the task notices."""
    model = type(loaded.model)(loaded.model.config, ActionSpec((-9.0, -9.0), (9.0, 9.0), SPEC.units, SPEC.block))
    with pytest.raises(BadInput, match="differ in their actions; expected .*1.2.*got .*9.0"):
        measure(dataclasses.replace(loaded, model=model))


@pytest.mark.parametrize("field", ["episodes", "distance", "num_envs", "seed"])
def test_a_protocol_that_is_off(field: str) -> None:
    with pytest.raises(BadInput, match=rf"evaluate: {field} is off; expected (at least 1|0 to \d+); got -1"):
        Protocol(**{field: -1})


# Files -------------------------------------------------------------------------------------------------------------


def test_an_outcome_that_nobody_knows_is_not_called_one() -> None:
    """The film of one's own goal said "reached", in green, as soon as the latent distance had shrunk at all."""
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    tiles = [_tile(Clip(frames, frames[0], "own goal", success), 1).tobytes() for success in (True, False, None)]
    assert len(set(tiles)) == 3


def test_the_files(outcome: Outcome, tmp_path: Path) -> None:
    video, report, numbers = write_results(tmp_path / "out", [outcome])
    assert json.loads(numbers.read_text()) == outcome.result
    lines = (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == outcome.records
    assert video.stat().st_size > 1000 and b"ftyp" in video.read_bytes()[:32]
    page = report.read_text()
    assert f"{outcome.result['successes']}/{PAIRS}" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("plan.mp4", "plan.png", "report.html", "results.json", "episodes.jsonl")
    }


def test_the_video_begins_at_the_start_and_ends_where_the_episode_did(outcome: Outcome) -> None:
    assert outcome.clips
    for clip in outcome.clips:
        record = records(outcome, "planner")[int(clip.title.split()[-1])]
        assert clip.success == record["success"]
        assert len(clip.frames) == record["steps"] + 1
        assert clip.frames.shape[1:] == clip.goal.shape == (SIZE, SIZE, 3)


def test_the_card_s_figures(outcome: Outcome) -> None:
    text = card_figures(outcome.result)
    assert f"Goals reached: **{outcome.result['successes']}/{PAIRS}**" in text
    assert f"noop 0/{PAIRS}" in text and "20 steps apart, budget 40 steps, seed 3" in text


# Pairs and floors --------------------------------------------------------------------------------------------------


def test_pairs_are_unsolved_across_the_wall_and_reachable() -> None:
    env = load_envs().make("TwoRoom", size=SIZE)
    found = held_out_pairs(env, 12, 25, seed=0)
    for pair in found.pairs:
        assert env.goal_distance(pair.start, pair.goal) > 1
        assert pair.start[0] * pair.goal[0] < 0
    assert len(found.pairs) == 12 and found.ruled_out > 0
    again = held_out_pairs(env, 5, 25, seed=0)
    assert all(np.array_equal(a.goal, b.goal) for a, b in zip(again.pairs, found.pairs, strict=False))
    other = held_out_pairs(env, 5, 25, seed=1)
    assert not any(np.array_equal(a.goal, b.goal) for a, b in zip(again.pairs, other.pairs, strict=True))
    env.close()


class Still:
    """A task that never moves, so that every pair is solved at its start."""

    action_space = gym.spaces.Box(-1, 1, (1,))

    def action_spec(self) -> ActionSpec:
        return ActionSpec((-1.0,), (1.0,), ("m",), 1)

    def set_state(self, state: np.ndarray) -> None:
        self.state = np.zeros(1)

    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        return np.zeros(1)

    def play(self, rng: np.random.Generator) -> Any:
        return lambda state: np.zeros(1)

    def advance(self, action: np.ndarray) -> None:
        pass

    def goal_distance(self, state: np.ndarray, goal: np.ndarray) -> float:
        return 0.0


def test_a_search_for_pairs_ends() -> None:
    with pytest.raises(BadInput, match="only 0 pairs of 2 found at distance 5; got .*; choose a larger --distance"):
        held_out_pairs(Still(), 2, 5, seed=0)
    with pytest.raises(BadInput, match="found among random states; got 200 solved at the start and 0 ruled out$"):
        held_out_pairs(Still(), 2, None, seed=0)  # no distance chooses them


def test_pairs_of_random_states_lie_anywhere() -> None:
    """Far beyond what 25 steps of play go, and a longer list begins with the shorter."""
    env = load_envs().make("PointMaze", size=SIZE)
    found, near = held_out_pairs(env, 20, None, seed=0), held_out_pairs(env, 20, 25, seed=0)
    ways = [[way_left(pair.start[:2], pair.goal[:2]) for pair in each.pairs] for each in (found, near)]
    assert np.mean(ways[0]) > 1.5 * np.mean(ways[1]) and max(ways[0]) > 3
    again = held_out_pairs(env, 5, None, seed=0)
    assert all(np.array_equal(a.goal, b.goal) for a, b in zip(again.pairs, found.pairs, strict=False))
    env.close()


@pytest.mark.parametrize(
    ("judge", "distances", "reached"),
    [
        (STANDARD, [3.0, 1.0], True),
        (STANDARD, [0.9, 1.01], False),  # only the present counts: an episode ends where it first succeeds
        (STANDARD, [math.nan], False),
        (STRICT, [0.5] * 5, True),
        (STRICT, [0.1] * 4, False),  # not yet long enough
        (STRICT, [0.4, 0.4, 0.51, 0.4, 0.4, 0.4, 0.4], False),
        (STRICT, [0.4, 0.4, math.nan, 0.4, 0.4], False),
    ],
)
def test_when_a_goal_is_reached(judge: Judge, distances: list[float], reached: bool) -> None:
    assert judge.reached(distances) == reached


def test_strict_success_is_five_steps_within_half_the_tolerance(loaded: Checkpoint) -> None:
    """By the oracle, which gets there and stays; the records show that success came no sooner and no later."""
    outcome = measure(loaded, oracle=True, strict=True)
    assert outcome.result["strict"] and outcome.result["goals"] == "play"
    oracle = records(outcome, "oracle")
    assert any(record["success"] for record in oracle)
    for record in oracle:
        held = [max(record["goal_distance"][k : k + 5]) <= 0.5 for k in range(record["steps"] - 4)]
        assert held.count(True) == record["success"] and (not record["success"] or held[-1])


def test_every_appearance_is_played_on_the_same_pairs(loaded: Checkpoint) -> None:
    outcome = measure(loaded, episodes=2, appearance=True)
    assert set(outcome.result["appearance"]) == set(load_envs().APPEARANCES)
    plain = [record["initial_distance"] for record in records(outcome, "planner")]
    for name, arm in outcome.result["appearance"].items():
        played = records(outcome, f"planner, {name}")
        assert [record["initial_distance"] for record in played] == plain
        assert arm["n"] == 2 and arm["successes"] == sum(record["success"] for record in played)
        assert 0 < arm["changed_pixels"] <= 1
    assert measure(loaded, episodes=1).result["appearance"] == {}


def test_a_change_that_the_camera_does_not_see_is_told_from_one_that_costs_nothing(
    loaded: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A floor so brightly lit that a tint is clipped hardly shows it, and a drop of 0 there means nothing."""
    look = next(iter(load_envs().APPEARANCES))
    monkeypatch.setitem(load_envs().APPEARANCES, look, lambda env: None)
    arms = measure(loaded, episodes=1, appearance=True).result["appearance"]
    assert [name for name, arm in arms.items() if not arm["changed_pixels"]] == [look]


def test_floors_act_within_the_bounds() -> None:
    low, high = np.array([0.5, -1.0]), np.array([2.0, 1.0])
    obs = TensorDict({"pixels": torch.zeros(3, 1)}, batch_size=[3])
    assert np.array_equal(NoopPolicy(low, high).act(obs), [[0.5, 0.0]] * 3)
    random = RandomPolicy(low, high, seed=0)
    random.reset(obs, obs)
    actions = np.concatenate([random.act(obs) for _ in range(200)])
    assert (actions >= low).all() and (actions <= high).all()
    np.testing.assert_allclose(actions.mean(0), (low + high) / 2, atol=0.15)


class Nosy:
    """A policy that notes what it is shown."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        self.keys |= set(obs.keys()) | set(goal.keys())

    def act(self, obs: TensorDict) -> np.ndarray:
        self.keys |= set(obs.keys())
        return np.zeros((obs.batch_size[0], 2))


@pytest.mark.parametrize(
    ("privileged", "keys"), [(False, {"pixels", "episode"}), (True, {"pixels", "state", "episode"})]
)
def test_only_the_oracle_sees_the_state(privileged: bool, keys: set[str]) -> None:
    env, policy = load_envs().make("TwoRoom", size=SIZE), Nosy()
    pairs = held_out_pairs(env, 1, DISTANCE, seed=0).pairs
    play_pairs([env], policy, pairs, 2, privileged=privileged)
    env.close()
    assert policy.keys == keys


def test_policies_feel_the_joints_of_envs_that_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world model of your own may read `proprio`; a goal is a picture and has none."""
    env, policy, seen = load_envs().make("TwoRoom", size=SIZE, proprioception=True), Nosy(), []

    def act(obs: TensorDict) -> np.ndarray:
        seen.append(obs)
        return np.ones((1, 2))

    monkeypatch.setattr(policy, "reset", lambda obs, goal: seen.extend([obs, goal]))
    monkeypatch.setattr(policy, "act", act)
    pairs = held_out_pairs(env, 1, DISTANCE, seed=0).pairs
    episode = play_pairs([env], policy, pairs, 2, film=lambda k: True)[0]
    env.close()
    start, goal, *looks = seen
    assert set(start.keys()) == {"pixels", "proprio", "episode"} and set(goal.keys()) == {"pixels"}
    felt = np.concatenate([look["proprio"] for look in looks])
    np.testing.assert_array_equal(felt, np.stack(episode.states[: len(looks)]).astype(np.float32))


# A goal picture of one's own ---------------------------------------------------------------------------------------


def test_a_goal_picture_round_trips(tmp_path: Path) -> None:
    env, file = load_envs().make("TwoRoom", size=SIZE), tmp_path / "made" / "goal.png"
    write_picture(file, env, seed=0)
    goal = env.reset(seed=1)[0]["goal"]
    env.close()
    assert np.array_equal(read_picture(file, SIZE), goal)
    with pytest.raises(BadInput, match="has another size; expected 64 x 64 pixels; got 32 x 32"):
        read_picture(file, 64)


def test_pictures_of_other_modes_are_read_as_colours(tmp_path: Path) -> None:
    """Greys of 16 bits became white wherever they were more than 255 in 65535, and were planned towards."""
    colourful = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    grey = colourful.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    cases = [(colourful.convert("RGBA"), colourful), (colourful.quantize(), colourful.quantize()), (grey, grey)]
    cases += [(grey.convert("1"), grey.convert("1")), (grey.convert("LA"), grey), (deep, grey)]
    for picture, seen in cases:
        for ending in ("png", "tiff") if picture.mode != "P" else ("png",):
            file = tmp_path / f"goal.{ending}"
            picture.save(file)
            np.testing.assert_array_equal(read_picture(file, SIZE), np.asarray(seen.convert("RGB")), picture.mode)
            data = file.read_bytes()
            np.testing.assert_array_equal(decode(data, SIZE), np.asarray(seen.convert("RGB")), picture.mode)
    assert deep.mode == "I;16"
    Image.new("I;16", (SIZE, SIZE), 19661).save(tmp_path / "goal.png")  # 30 % of white
    assert (read_picture(tmp_path / "goal.png", SIZE) == 76).all()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_white_are_no_picture(tmp_path: Path, mode: str) -> None:
    """They were cut off at 255."""
    file = tmp_path / "goal.tiff"
    Image.new(mode, (SIZE, SIZE), 300).save(file)
    with pytest.raises(BadInput, match=f"nothing says which value is white; expected .*; got mode {mode}") as caught:
        read_picture(file, SIZE)
    assert str(file) in str(caught.value)
    with pytest.raises(BadInput, match="nothing says which value is white"):
        decode(file.read_bytes(), SIZE)


def test_a_transparent_picture_is_refused(tmp_path: Path) -> None:
    """The colour that lay hidden under nothing was what was planned towards."""
    hidden, half = (Image.new("RGBA", (SIZE, SIZE), (200, 30, 30, alpha)) for alpha in (0, 128))
    one = Image.new("RGBA", (SIZE, SIZE), (200, 30, 30, 255))
    one.putpixel((3, 4), (0, 0, 0, 254))
    keyed = [(Image.new("L", (SIZE, SIZE), 7), 7), (Image.new("P", (SIZE, SIZE), 0), 0)]
    keyed += [(Image.new("RGB", (SIZE, SIZE), (1, 2, 3)), (1, 2, 3)), (Image.new("I;16", (SIZE, SIZE), 900), 900)]
    for picture, key in [(hidden, None), (half, None), (one, None), (hidden.convert("LA"), None), *keyed]:
        file = tmp_path / "goal.png"
        picture.save(file, **{} if key is None else {"transparency": key})
        with pytest.raises(BadInput, match="goal.png is transparent; expected opaque pixels"):
            read_picture(file, SIZE)
        with pytest.raises(BadInput, match="the picture is transparent"):
            decode(file.read_bytes(), SIZE)
    Image.new("L", (SIZE, SIZE), 7).save(file, transparency=8)  # no pixel has the key's grey
    assert (read_picture(file, SIZE) == 7).all()


def test_no_picture_however_broken_gets_through_or_breaks_anything(tmp_path: Path) -> None:
    """Every cut and 300 flipped bytes of a PNG: a picture of the right size, or `BadInput` that names the file."""
    file, buffer, rng = tmp_path / "goal.png", io.BytesIO(), np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(buffer, "png")
    whole = buffer.getvalue()
    broken = [whole[:n] for n in (*range(60), *range(60, len(whole), 37))]
    for position in (*range(60), *rng.integers(0, len(whole), 240)):
        broken.append(whole[:position] + bytes([whole[position] ^ 1 << rng.integers(8)]) + whole[position + 1 :])
    refused = 0
    for content in broken:
        file.write_bytes(content)
        try:
            assert read_picture(file, SIZE).shape == (SIZE, SIZE, 3)
        except BadInput as error:
            refused += 1
            assert str(file) in str(error) and "\n" not in str(error)
    assert refused > 100


def test_a_picture_that_would_fill_the_memory(tmp_path: Path) -> None:
    """60000 x 60000 pixels in a few bytes: PIL's own exception for that came through as a traceback."""
    small = io.BytesIO()
    Image.new("RGB", (1, 1)).save(small, "bmp")
    content = bytearray(small.getvalue())
    content[18:26] = (60000).to_bytes(4, "little") * 2
    (tmp_path / "goal.bmp").write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read"):
        read_picture(tmp_path / "goal.bmp", SIZE)


def test_a_film_towards_one_s_own_goal(loaded: Checkpoint, tmp_path: Path) -> None:
    env = load_envs().make("TwoRoom", size=SIZE)
    goal, told = env.reset(seed=9)[0]["goal"], []
    policy = loaded.planner.build(loaded.model, 0)
    video, strip, distance = film(env, policy, goal, 6, 0, tmp_path, lambda *step: told.append(step))
    env.close()
    assert video.stat().st_size > 500 and Image.open(strip).size[0] > SIZE
    assert all(math.isfinite(d) and d >= 0 for d in distance)
    assert told == [(step, 6) for step in range(1, 7)]


# What the planner is shown -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["pixels", "depth"])
def test_nan_in_an_observation_is_refused(loaded: Checkpoint, key: str) -> None:
    policy = loaded.planner.build(loaded.model, 0)
    sound = TensorDict({"pixels": torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)}, batch_size=[2])
    policy.reset(sound, sound)
    broken = sound.clone()
    broken[key] = torch.zeros(2, SIZE, SIZE, 3)
    broken[key][1, 0, 0, 0] = float("nan")
    with pytest.raises(
        BadInput, match=f"observation '{key}' of environment 1; expected finite numbers; got NaN or inf"
    ):
        policy.act(broken)
    assert np.isfinite(policy.act(sound)).all()


def test_flipping_the_weights_changes_the_hash_in_the_result(tmp_path: Path) -> None:
    """What a result names is the file that was used, not what the folder says about itself."""
    folder = toy_checkpoint(tmp_path / "toy")
    flip_byte(folder / "model.safetensors", -1)
    with pytest.raises(BadInput, match="altered"):
        checkpoint.load(folder)


@pytest.mark.parametrize(("places", "got"), [([], "0 in 0 places"), ([0, 0], "1 in 2 places"), ([0, 1, 0], "2 in 3")])
def test_each_episode_has_a_simulator_of_its_own(places: list[int], got: str) -> None:
    """The same one twice played both episodes in one world, and said who had arrived all the same."""
    rooms = [object(), object()]
    with pytest.raises(BadInput, match=f"environments are off; expected one .*; got {got}"):
        play_pairs([rooms[k] for k in places], NoopPolicy(np.zeros(1), np.ones(1)), [], 5)
