"""Violation of expectation: measures against cases done by hand; edits change what they say and nothing before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

import envs
from benchmarks.claims import belief, expectation, forks
from benchmarks.claims.detection import (
    auroc,
    auroc_interval,
    average_precision,
    chance_at,
    error_by_chance,
    expected_calibration_error,
    monotone,
    reliability,
)
from benchmarks.claims.expectation import (
    InLatents,
    InPictures,
    Judged,
    Scored,
    goals,
    look_ahead,
    physical_row,
    settle,
    settled,
)
from benchmarks.claims.impossible import LOOKS, SCENES, STEPS, Film, Studio, changed_pixels, kinds_of
from benchmarks.claims.report import write
from benchmarks.claims.rows import Rows
from planner import checkpoint
from planner.actions import ActionSpec
from planner.errors import BadInput
from planner.evaluate.protocol import held_out_pairs
from planner.testing import LinearModel
from planner.types import Context

# Measures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positives", "negatives", "area", "precision"),
    [
        ([3, 4], [1, 2], 1.0, 1.0),
        ([1, 2], [3, 4], 0.0, (1 / 3 + 2 / 4) / 2),
        ([1, 3], [2, 0], 0.75, (1 + 2 / 3) / 2),
        ([1, 1], [1, 1], 0.5, 0.5),  # all at once: half of them are right
        ([2, 1], [1, 0], (1 + 1 + 0.5 + 1) / 4, (1 + 2 / 3) / 2),  # a tie counts half, and its group at once
        ([5], [1, 5, 9], 0.5, 1 / 3),
    ],
)
def test_areas_and_precisions_by_hand(positives: Any, negatives: Any, area: float, precision: float) -> None:
    high, low = np.array(positives, float), np.array(negatives, float)
    assert auroc(high, low) == pytest.approx(area)
    assert average_precision(high, low) == pytest.approx(precision)


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    high, low = rng.integers(3, 9, 40).astype(float), rng.integers(0, 7, 60).astype(float)
    pairs = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    assert auroc(high, low) == pytest.approx(pairs)


def test_intervals_of_areas_cover() -> None:
    """Two normals a known distance apart; and a perfect score is not certain."""
    rng, draws, truth = np.random.default_rng(0), 800, 0.8556  # Phi(1.5 / sqrt 2)
    covered = 0
    for _ in range(draws):
        found = auroc(rng.normal(1.5, 1, 30), rng.normal(0, 1, 30))
        low, high = auroc_interval(found, 30, 30)
        covered += low <= truth <= high
        assert 0 <= low < found <= high <= 1
    assert 0.92 <= covered / draws <= 0.99
    assert auroc_interval(1.0, 30, 30)[1] == 1 and 0.85 < auroc_interval(1.0, 30, 30)[0] < 0.97
    assert auroc_interval(0.0, 30, 30)[0] == 0


def test_pooled_adjacent_violators_by_hand() -> None:
    """Chances fall with the score; 0, 1 next to each other in the wrong order share their mean."""
    levels, chances = monotone(np.array([1.0, 2, 3, 4]), np.array([1.0, 0, 1, 0]))
    np.testing.assert_allclose(levels, [1, 2, 3, 4])
    np.testing.assert_allclose(chances, [1, 0.5, 0.5, 0])
    levels, chances = monotone(np.array([2.0, 1, 1, 3]), np.array([1.0, 0, 1, 1]))  # rising: all are pooled
    np.testing.assert_allclose(levels, [1, 2, 3])
    np.testing.assert_allclose(chances, [0.75] * 3)
    np.testing.assert_allclose(chance_at(np.array([1.0, 3]), np.array([1.0, 0]), np.array([0.0, 1.5, 9])), [1, 0.75, 0])


def test_it_is_the_isotonic_regression() -> None:
    from scipy.optimize import isotonic_regression

    rng = np.random.default_rng(3)
    scores = rng.permutation(200).astype(float)
    outcomes = (rng.random(200) < 1 / (1 + np.exp(scores / 40 - 2))).astype(float)
    expected = isotonic_regression(outcomes[np.argsort(scores)], increasing=False).x
    np.testing.assert_allclose(monotone(scores, outcomes)[1], expected)


def test_calibration_errors_by_hand() -> None:
    chances, outcomes = np.array([0.1, 0.1, 0.9, 0.9, 1.0]), np.array([0.0, 0, 1, 0, 1])
    # Two in the first bin, 0.1 off; three in the last, 14/15 said and 2/3 seen.
    assert expected_calibration_error(chances, outcomes) == pytest.approx((2 * 0.1 + 3 * (2.8 / 3 - 2 / 3)) / 5)
    assert [row["n"] for row in reliability(chances, outcomes)] == [2, 3]
    assert expected_calibration_error(np.array([0.0, 1]), np.array([0.0, 1])) == 0
    assert error_by_chance(np.zeros(50)) == 0 < error_by_chance(np.full(50, 0.5)) < 0.15


# Clips -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studios() -> Iterator[dict[str, Studio]]:
    made = {task: Studio(envs, task, 64) for task in SCENES}
    yield made
    for studio in made.values():
        studio.close()


EDITS = [(task, kind) for task in SCENES for kind in kinds_of(task) if kind != "wall"]


def edited(studio: Studio, kind: str) -> tuple[Film, Film]:
    for k in range(20):
        plain = studio.plain(k)
        if (film := studio.impossible(plain, kind, k)) is not None:
            return plain, film
    raise AssertionError(f"{kind} shows in none of 20 clips")


@pytest.mark.parametrize(("task", "kind"), EDITS)
def test_an_edit_changes_what_it_says_and_nothing_before(studios: dict[str, Studio], task: str, kind: str) -> None:
    plain, film = edited(studios[task], kind)
    t, length = plain.event, len(film.actions)
    assert 20 <= t < 41 and film.kind == kind and len(film.pixels) == length + 1 == len(film.states)
    assert (film.pixels[:t] == plain.pixels[:t]).all() and (film.actions[: t - 1] == plain.actions[: t - 1]).all()
    if kind == "swapped":
        assert (film.pixels == plain.pixels).all() and np.abs(
            film.actions[t - 1 :] - plain.actions[t - 1 :]
        ).max() > 0.05
    elif kind == "reversed":
        for i in range(1, length - t + 2):  # back to where it came from, each action beside the move that it made
            assert (film.pixels[t - 1 + i] == plain.pixels[t - 1 - i]).all()
            assert (film.actions[t - 2 + i] == plain.actions[t - 1 - i]).all()
    else:
        assert (film.actions == plain.actions).all()
        assert changed_pixels(film.pixels, plain.pixels) >= 12
    if kind == "frozen":
        assert (film.pixels[t:] == plain.pixels[t - 1]).all()
    if kind == "teleport":
        assert changed_pixels(film.pixels[t : t + 1], plain.pixels[t : t + 1]) >= 12
        still = {"PushT": slice(0, 2), "Cube": slice(0, 6)}.get(task, slice(0, 0))
        np.testing.assert_array_equal(film.states[t, still], plain.states[t, still])
    if kind == "vanished":
        assert (film.states == plain.states).all()
    if kind == "mass":
        np.testing.assert_allclose(film.states[:t], plain.states[:t])


@pytest.mark.parametrize("task", ["TwoRoom", "PointMaze"])
def test_walls_are_passed_only_where_they_are_passed(studios: dict[str, Studio], task: str) -> None:
    studio = studios[task]
    for k in range(3):
        blocked, through = studio.through_wall(k)
        t = through.event
        assert (blocked.actions == through.actions).all() and (blocked.pixels[:t] == through.pixels[:t]).all()
        assert not any(studio.scene.inside(state[:2]) for state in blocked.states)
        assert any(studio.scene.inside(state[:2]) for state in through.states[t:])
        steps = np.linalg.norm(np.diff(through.states[:, :2], axis=0), axis=-1)
        assert steps.max() < 0.1  # it walks, it does not jump


def test_nothing_of_an_edit_stays_behind(studios: dict[str, Studio]) -> None:
    """The same clip comes out after walls, visibility and mass were changed, and from another studio."""
    for task in ("PointMaze", "PushT"):
        studio = studios[task]
        before = studio.plain(1)
        for kind in kinds_of(task):
            if kind == "wall":
                studio.through_wall(0)
            else:
                studio.impossible(before, kind, 1)
        again = studio.plain(1)
        assert (again.pixels == before.pixels).all() and (again.states == before.states).all()
    other = Studio(envs, "PushT", 64)
    first, second = (one.impossible(one.plain(1), "teleport", 1) for one in (studios["PushT"], other))
    other.close()
    assert first is not None and second is not None and (first.pixels == second.pixels).all()


def test_other_looks_are_other_looks_of_the_same(studios: dict[str, Studio]) -> None:
    plain = studios["TwoRoom"].plain(0)
    for name in LOOKS:
        always, switched = studios["TwoRoom"].looking(plain, name)
        t = plain.event
        assert (switched.pixels[:t] == plain.pixels[:t]).all() and (switched.pixels[t:] == always.pixels[t:]).all()
        assert (always.actions == plain.actions).all() and (always.pixels[0] != plain.pixels[0]).any()
    disc = studios["TwoRoom"].looking(plain, "distractor")[0].pixels
    still = (plain.pixels[1] == plain.pixels[2]).all(-1)
    assert (disc[1] != disc[2])[still].any()  # the disc before the camera moves, where nothing else does


def test_what_would_not_show_is_left_out(studios: dict[str, Studio]) -> None:
    studio = studios["TwoRoom"]
    still = studio.plain(0)
    pixels = np.repeat(still.pixels[:1], STEPS + 1, 0)
    assert studio.impossible(replace(still, pixels=pixels), "frozen", 0) is None


def test_a_task_without_a_scene() -> None:
    with pytest.raises(BadInput, match="no impossible clips of this task; .*; got 'Fly'"):
        Studio(envs, "Fly", 64)


# Rows --------------------------------------------------------------------------------------------------------------


def scored(kind: str, *peaks: float, ahead: int = 1) -> list[Scored]:
    """Clips of 30 steps whose energy is `peak` from step 12 on and 0 before; the event is at step 10."""
    rows = []
    for k, peak in enumerate(peaks):
        energy = np.where(np.arange(30) < 12, 0.0, peak)
        rows.append(Scored(kind, 10, k, {n: energy if n == ahead else np.zeros(30) for n in expectation.AHEAD}))
    return rows


def test_rows_by_hand() -> None:
    found = [*scored("teleport", 3, 4, 1), *scored("plain", 2, 0.5), *scored("lighting always", 5)]
    row = physical_row(found, "teleport", Judged(1, {0.01: 2.5, 0.05: 0.9}, 99, {}))
    assert (row["n"], row["negatives"], row["negatives_with_looks"]) == (3, 2, 3)
    assert row["auroc"] == pytest.approx(5 / 6) and row["auroc_with_looks"] == pytest.approx(5 / 9)
    assert (row["at_0.01"]["flagged"], row["at_0.05"]["flagged"]) == (2, 3)
    assert row["at_0.05"]["delay_median_p90"] == [2.0, 2.0]
    assert (
        expectation.possible_row(found, "plain", Judged(1, {0.01: 1.5, 0.05: 0.1}, 99, {}))["at_0.01"]["flagged"] == 1
    )


def test_the_look_ahead_and_the_thresholds_come_from_calibration() -> None:
    """Three steps ahead tells the kinds apart, one and two do not."""
    chosen = [*scored("teleport", 3, 4, ahead=3), *scored("plain", 1, 2, ahead=3)]
    judged = settle(look_ahead(chosen, ("teleport",)), scored("plain", *range(1, 100), ahead=3))
    assert settled({1: 0.5, 2: 0.9, 3: 0.9}) == 2
    assert (
        judged.ahead == 3 and judged.thresholds == {0.01: 99.0, 0.05: 95.0} and judged.tried == {1: 0.5, 2: 0.5, 3: 1}
    )


def test_missed_goals_are_missed() -> None:
    looks = {"at_0.01": {"flagged": 6, "of": 100}}
    found = goals({"teleport": {"auroc": 0.979}, "mean": {"auroc": 0.95}, "looks": looks})
    assert {name: one["met"] for name, one in found.items()} == {"teleport": False, "mean": True, "looks": False}


# Scorers -----------------------------------------------------------------------------------------------------------


class Still:
    """A rival that draws: its latent is half the picture, it foresees no change, and it draws the latent's double."""

    action, history = ActionSpec((-1.0,), (1.0,), ("m/s",), 5), 2

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, obs: TensorDict) -> TensorDict:
        self.encoded += obs["pixels"].shape[1]
        latents = (obs["pixels"].float() / 127.5 - 1).flatten(2) / 2
        return TensorDict({"latent": latents}, batch_size=obs.batch_size)

    def rollout(self, context: Context, actions: torch.Tensor) -> TensorDict:
        last = context.latent["latent"][:, None, -1:].expand(-1, *actions.shape[1:3], -1)
        return TensorDict({"latent": last}, batch_size=actions.shape[:3])

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return 2 * latents.unflatten(-1, (4, 4, 3))


def test_pictures_and_latents_are_scored_by_what_was_foreseen() -> None:
    """A picture stands still but for one step; every energy is known, and each different picture is encoded once."""
    pixels = np.zeros((41, 4, 4, 3), np.uint8)
    pixels[30] = 255
    film = Film("plain", pixels, np.zeros((40, 1)), np.zeros((41, 1)), 30)
    for kind, jump in ((InPictures, 4.0), (InLatents, 1.0)):
        judge = kind("still", Still(), "0")
        energies = judge.energies(film)
        for ahead, energy in energies.items():
            expected = np.where(np.isin(np.arange(41), (30, 30 + 5 * ahead)), jump, 0.0)
            expected[: 5 * (1 + ahead)] = np.nan
            np.testing.assert_allclose(energy, expected, atol=1e-6)
        judge.energies(film)
        assert judge.model.encoded == 2
        judge.forget()
        judge.energies(film)
        assert judge.model.encoded == 4


class Blind(Still):
    """Draws what it is shown without its light: the look of a picture is its mean, which its drawing leaves out."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        drawn = super().decode(latents)
        return drawn - drawn.mean((-3, -2, -1), keepdim=True)


def test_a_rival_that_leaves_looks_out_is_not_blamed_for_them() -> None:
    """It was compared with the picture as it is: 403 of 480 other looks were called impossible, and drawn 10 of 480."""
    shade = np.linspace(20, 60, 48).reshape(4, 4, 3).round()
    light = np.where(np.arange(41) < 20, 0, 180)[:, None, None, None]
    film = Film("lighting switched", (shade + light).astype(np.uint8), np.zeros((40, 1)), np.zeros((41, 1)), 20)
    raw, drawn = (InPictures("", Blind(), "0", told=told).energies(film)[1] for told in (False, True))
    assert np.nanmin(raw[20:]) > 0.1 and np.nanmax(drawn) < 1e-6
    moved = film.pixels.copy()
    moved[25:] = moved[25:, ::-1]  # and what happens in the picture it is blamed for all the same
    assert InPictures("", Blind(), "0", told=True).energies(replace(film, pixels=moved))[1][25] > 0.01


@pytest.mark.parametrize(("task", "told"), [("TwoRoom", 2), ("Reacher", 2), ("PushT", 1), ("Cube", 0)])
def test_everybody_with_weights_is_judged_and_who_leaves_looks_out_by_its_drawings_too(task: str, told: int) -> None:
    names = {judge.name: judge for judge in expectation.scorers(task, rivals=True)}
    drawings = {name for name, judge in names.items() if isinstance(judge, InPictures) and judge.told}
    assert len(drawings) == told and all(name.endswith("-0.8, drawings") for name in drawings)
    assert all(name.replace("drawings", "pixels") in names for name in drawings)


def test_a_look_does_not_count_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick run into the same file passed for the whole: 10 clips for 80."""
    monkeypatch.setattr(expectation, "scorers", lambda *_: iter([InLatents("jepa", None, "abc")]))
    done: list[int] = []

    def measure(task: str, size: expectation.Size, report: Rows, rivals: bool) -> None:
        done.append(size.clips)
        row = {"part": "energy", "kind": "traces", "task": task, "scorer": "jepa", "checkpoint_sha256": "abc"}
        report(row | {"calibration_clips": size.plain})

    monkeypatch.setattr(expectation, "measure", measure)
    for quick in (True, True, False, False):
        expectation.run("TwoRoom", quick, Rows(tmp_path / "rows.jsonl"), rivals=False)
    assert done == [expectation.QUICK.clips, expectation.FULL.clips]


# Belief and page ---------------------------------------------------------------------------------------------------


def test_forks_are_where_there_are_two_ways_or_more() -> None:
    """Every way leads into a free cell and every shut direction into a block or off the maze."""
    from envs.point_maze import CELL, MIDDLES

    found = forks.places()
    assert len(found) > 10
    for middle, ways, shut in found:
        assert len(ways) >= 2 and len(shut) >= 1 and len(ways) + len(shut) == 4
        for direction, free in [*((way, True) for way in ways), *((way, False) for way in shut)]:
            near = np.abs(MIDDLES - (middle + CELL * direction)).max(-1).min()
            assert (near < 1e-9) == free


class Places(LinearModel):
    """A world that is known exactly: the latent is the place, and a picture shows it in its first two values."""

    history = 1

    def __init__(self) -> None:
        super().__init__(torch.eye(2), torch.eye(2, 10), ActionSpec((-1.0, -1.0), (1.0, 1.0), ("m/s", "m/s"), 5))

    def encode(self, obs: TensorDict) -> TensorDict:
        place = obs["pixels"].flatten(2)[..., :2].float() / 127.5 - 1
        return TensorDict({"latent": place}, batch_size=obs.batch_size)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[..., None, :1].expand(*latents.shape[:-1], 1, 1).unsqueeze(-1)


def pictured(*places: tuple[float, float]) -> np.ndarray:
    return np.array([[[[round((x + 1) * 127.5)], [round((y + 1) * 127.5)]]] for x, y in places], np.uint8)


def test_a_sought_action_keeps_both_ways_open_and_a_mean_does_not() -> None:
    """One to the right or one to the left, of which nobody says which; up there is a wall."""
    futures = pictured((1, 0), (-1, 0), (0, 1), (0, 0))
    ways = [np.array([1.0, 0]), np.array([-1.0, 0])]
    fork = forks.Fork(ways, pictured((0, 0))[0], futures, ["mode", "mode", "wall", "ghost"])
    judged = {name: judge(fork) for name, judge in forks.judges(Places()).items()}
    np.testing.assert_allclose(judged["jepa, latents averaged"], [0.5, 0.5, 0.5, 0], atol=0.01)
    assert judged["jepa, action sought"][:2].max() < 0.05, "both ways"
    np.testing.assert_allclose(judged["pixels averaged"], [0.5, 0.5, 0.5, 0], atol=0.01)
    row = forks.row([(fork.kinds, judged["jepa, latents averaged"])])
    assert row["auroc_ghost"] == 0 and row["counts"] == {"mode": 2, "wall": 1, "ghost": 1}


def test_who_draws_is_asked_for_the_likeliest_picture_and_who_is_blind_has_one() -> None:
    futures = pictured((1, 1), (-1, -1), (0, 0))
    ways = [np.array([1.0, 0]), np.array([-1.0, 0])]
    fork = forks.Fork(ways, pictured((0, 0))[0], futures, ["mode", "mode", "ghost"])
    np.testing.assert_allclose(forks.in_pixels(Places(), blind=True)(fork), [1, 1, 0], atol=0.01)
    assert forks.in_pixels(Places(), blind=False)(fork).max() < 0.05


def test_futures_at_a_fork_of_the_maze_differ_and_are_cut_out_around_it() -> None:
    found = forks.forks(32)
    assert len(found) == len(forks.places()) and found[0].futures.dtype == np.uint8
    moved = [np.abs(picture.astype(int) - found[0].here).max() for picture in found[0].futures]
    assert min(moved) > 30 and found[0].kinds[-1] == "ghost", "every future is another picture"
    around = forks._around(found[0], found[0].here, reach=6)
    assert around.shape == (12, 12, 3)


def test_forks_are_drawn_and_those_that_were_measured_are_not_rendered_again(tmp_path: Path, monkeypatch: Any) -> None:
    loaded, blind = (
        checkpoint.load(checkpoint.find("PointMaze", None)),
        forks.load(forks.RIVALS[forks.BLIND]),
    )
    found = forks.forks(loaded.model.config.image_size)[:2]
    panels = forks.draw(loaded.model, blind.model, found).axes
    assert len(panels) == 2 * 6 and [len(panel.images) for panel in panels] == [1] * 12
    assert [panel.get_title() for panel in panels[6:]] == [""] * 6 != [panel.get_title() for panel in panels[:6]]
    assert all(panel.get_xlabel().startswith("ours ") for panel in panels[1:5])
    rows = Rows(tmp_path / "claims.jsonl")
    monkeypatch.setattr(forks, "forks", lambda size: found)
    forks.measure(loaded, rows)
    assert len(rows.known) == 3 + len(forks.RIVALS) and all(row["n"] == len(forks.places()) for row in rows.known)
    monkeypatch.setattr(forks, "forks", lambda size: pytest.fail("rendered"))
    forks.measure(loaded, rows)


def test_episodes_keep_their_pairs_though_they_are_played_in_order_of_their_ends(monkeypatch: Any) -> None:
    """Thirteen that do nothing: each energy is of its own last picture and its own goal, as one alone shows them.

    And each has the noise of its own number; all used to have that of one episode.
    """
    loaded = checkpoint.load(checkpoint.find("TwoRoom", None), task="TwoRoom")
    numbered: list[int] = []
    monkeypatch.setattr(belief, "_play", partial(_rest, belief._play, numbered))
    found, reached = belief.outcomes(loaded, 13, seed=5, budget=4)
    assert 0 < reached.sum() < 13
    room = envs.make("TwoRoom", 64)
    pairs, ends = held_out_pairs(room, 13, 25, 5).pairs, np.random.default_rng([5, 13]).integers(1, 5, 13)
    assert len(set(ends)) == 4 and numbered == np.argsort(ends, kind="stable").tolist()
    energy = loaded.planner.energy(loaded.model)
    for k, (pair, end) in enumerate(zip(pairs, ends, strict=True)):
        obs, info = room.reset(options={"start": pair.start, "goal": pair.goal})
        for _ in range(end):
            obs, *_, info = room.step(np.zeros(2, np.float32))
        look, goal = (loaded.model.encode(belief._seen([obs[key]])) for key in ("pixels", "goal"))
        expected = energy(look[:, None], goal[:, 0], torch.zeros(1, 1, 1, loaded.model.action.dim))
        assert found[k] == pytest.approx(float(expected), rel=1e-4)
        assert reached[k] == _put_there(pair)


def _put_there(pair: Any) -> bool:
    return bool(pair.goal[0] > pair.start[0])


def _rest(play: Any, numbered: list[int], rooms: Any, policy: Any, pairs: Any, ends: Any, numbers: Any) -> Any:
    """Plays with zeros in the place of what the policy says, and puts every other one at its goal when it is over."""

    class Rest:
        def reset(self, seen: TensorDict, goals: TensorDict) -> None:
            policy.reset(seen, goals)
            numbered.extend(seen["episode"].tolist())

        def act(self, seen: TensorDict) -> np.ndarray:
            return np.zeros((len(seen), 2), np.float32)

    looks, states, goals = play(rooms, Rest(), pairs, ends, numbers)
    return looks, [p.goal if _put_there(p) else s for p, s in zip(pairs, states, strict=True)], goals


def test_beliefs_that_were_measured_are_not_measured_again(tmp_path: Path, monkeypatch: Any) -> None:
    """But they are where fewer episodes are in the file than a full run asks for."""
    asked: list[int] = []

    def outcomes(loaded: Any, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append(n)
        energy = np.arange(n, dtype=float)
        return energy, (energy < n / 2).astype(float)

    monkeypatch.setattr(belief, "outcomes", outcomes)
    rows = Rows(tmp_path / "claims.jsonl")
    for n in (20, 20, 40):
        belief.measure("TwoRoom", n, rows)
    assert asked == [20, 20, 40, 40]
    assert [(row["n"], row["ece"], row["met"]) for row in rows.known] == [(20, 0, True), (40, 0, True)]


def test_a_page_of_beliefs_alone_has_a_plot_of_them(tmp_path: Path) -> None:
    """`--parts belief` into a new file used to measure everything and then fail to draw it."""
    row = {"part": "energy", "task": "TwoRoom", "scorer": "jepa", "kind": "success", "group": "success", "n": 4}
    row |= {"ece": 0.1, "met": False, "ece_if_perfect": 0.05, "date": "2026-11-27"}
    row |= {"bins": [{"predicted": 0.5, "observed": 0.6, "n": 4}]}
    assert expectation.plot([row]).count("<svg") == 1
    write([row], tmp_path / "page.html", frames=tmp_path, pictures=None)
    assert "0.100 missed" in (tmp_path / "page.html").read_text()


def test_the_page_shows_what_was_found_and_what_was_missed() -> None:
    found = [*scored("teleport", 3, 4, 1), *scored("plain", 2, 0.5), *scored("lighting switched", 5)]
    found += scored("distractor switched", 5)
    judged = Judged(1, {0.01: 2.5, 0.05: 0.9}, 99, {})
    facts = {"part": "energy", "task": "TwoRoom", "scorer": "<jepa>", "thresholds": {"0.01": 2.5}}
    physical = physical_row(found, "teleport", judged)
    rows = {"teleport": physical, "plain": expectation.possible_row(found, "plain", judged)}
    rows |= {"looks": expectation.looks_row(found, judged), "mean": expectation.mean_row([physical])}
    rows |= {"goals": {"group": "goals", "goals": goals(rows)}}
    traces = expectation.traces(found, ("teleport",), 1)
    rows |= {"traces": {"group": "traces", "traces": traces}}
    page = expectation.plot([facts | {"kind": kind} | row for kind, row in rows.items()])
    assert "0.833 missed" in page and "100.0% missed" in page and "<svg" in page
    assert "<td>0.917</td><td>0.444</td><td>67 %</td><td>100 %</td><td>2 (2)</td>" in page
    assert "&lt;jepa&gt;" in page and "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    assert "Nothing was measured yet" in expectation.plot([])
    jepa = [facts | {"kind": kind, "scorer": "jepa"} | row for kind, row in rows.items()]
    assert expectation.plot(jepa).count("<svg") == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_run_reports_every_kind() -> None:
    rows: list[dict[str, Any]] = []
    size = expectation.Size(clips=2, plain=99, chosen=2)
    expectation.measure("TwoRoom", size, rows.append, rivals=True)
    belief.measure("TwoRoom", 4, rows.append)
    assert {row["kind"] for row in rows} >= {
        *kinds_of("TwoRoom"),
        "plain",
        "blocked",
        "looks",
        "mean",
        "goals",
        "success",
    }
    assert all(row["part"] == "energy" and len(row["checkpoint_sha256"]) == 64 for row in rows)
    assert next(row for row in rows if row["kind"] == "teleport")["auroc"] == 1
    json.dumps(rows)
