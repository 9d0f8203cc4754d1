"""Times of plans: what is timed is a step that plans, on pictures that were drawn before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toys import toy_checkpoint

from benchmarks import latency
from benchmarks.latency import Options, main, met, table
from planner import checkpoint
from planner.errors import BadInput


def row(robots: int, threads: int, median: float, p99: float = 0.0) -> dict[str, object]:
    times = {"median": median, "p95": median, "p99": p99 or median}
    what = {"task": "TwoRoom", "robots": robots, "threads": threads}
    return what | {"plan_ms": times, "plans_per_second": 1e3 * robots / median}


def test_every_number_of_robots_and_threads_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latency, "STEPS", 8)
    out = tmp_path / "rows.jsonl"
    for _ in range(2):
        main(Options(tasks=("TwoRoom",), threads=(1,), robots=(1, 3), rounds=1, plans=20, out=out))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["robots"], one["plans"]) for one in rows] == [(1, 20), (3, 1)] * 2, "times are taken anew"
    weights = checkpoint.load(checkpoint.find("TwoRoom", None), task="TwoRoom")
    for one in rows:
        assert one["checkpoint_sha256"] == weights.sha256 and one["hardware"].endswith("1 threads")
        assert 0 < one["plan_ms"]["median"] <= one["plan_ms"]["p99"]
        assert one["plans_per_second"] >= 0.999e3 * one["robots"] / one["plan_ms"]["p99"]
        if one["plans"] == 1:
            assert one["plans_per_second"] == pytest.approx(1e3 * one["robots"] / one["plan_ms"]["median"])
    assert "ms a plan (p99), 1 thread |" in capsys.readouterr().out


def test_all_take_turns_and_rounds_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All plans of a task were made in one go, so that a minute in which the machine was slow was that task's alone."""
    spent = iter(range(1, 100))
    turns: list[int] = []

    def timed(planner: object, films: np.ndarray, plans: int) -> list[float]:
        turns.append(len(films))
        return [float(next(spent))] * plans

    loads = iter(range(1, 100))
    monkeypatch.setattr(latency, "timed", timed)
    monkeypatch.setattr(latency.os, "getloadavg", lambda: (next(loads), 0.0, 0.0))
    monkeypatch.setattr(latency, "STEPS", 8)
    options = Options(
        tasks=("TwoRoom",), threads=(1, 2), robots=(1, 2), rounds=3, plans=20, out=tmp_path / "rows.jsonl"
    )
    main(options)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    assert [one["most_load"] for one in rows] == [9, 10, 11, 12], "the greatest of three rounds, not of the run's end"
    assert turns == [1, 2, 1, 2] * 3 and [one["plans"] for one in rows] == [60, 3, 60, 3]
    assert [one["hardware"][-9:] for one in rows] == ["1 threads"] * 2 + ["2 threads"] * 2
    assert [one["plan_ms"]["median"] for one in rows] == [5e3, 6e3, 7e3, 8e3], "the second of three rounds"
    assert rows[3]["plans_per_second"] == pytest.approx(2 * 3 / (4 + 8 + 12))


def test_steps_that_do_not_plan_are_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    planner = loaded.planner.build(loaded.model, seed=0)
    assert planner.replan > 1, "some steps have to be left for this to tell anything"
    size = loaded.model.config.image_size
    films = np.random.default_rng(0).integers(0, 255, (2, 4, size, size, 3), np.uint8)
    steps = 0
    act = planner.act

    def counted(obs: object) -> np.ndarray:
        nonlocal steps
        assert (obs["pixels"].numpy() == films[:, (steps + 1) % 4]).all(), "the film goes on, and begins again"
        steps += 1
        return act(obs)

    monkeypatch.setattr(planner, "act", counted)
    assert latency.timed(planner, films, 3) == list(planner.plan_seconds)[-3:]
    assert len(planner.plan_seconds) == latency.WARM + 3
    assert steps == (latency.WARM + 3 - 1) * planner.replan + 1


def test_everybody_who_ships_is_timed_and_who_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It took our tasks for all that ship."""
    ships = {json.loads(file.read_text())["task"] for file in checkpoint.SHIPPED.glob("*/config.json")}
    assert set(latency.shipped()) == ships and latency.shipped()[0] == "TwoRoom"

    def filmed(task: str, robots: int, size: int) -> np.ndarray:
        raise BadInput(f"{task} is not installed")

    monkeypatch.setattr(latency, "filmed", filmed)
    main(Options(out=tmp_path / "rows.jsonl"))
    said = capsys.readouterr().out
    assert all(f"{task} is left out: {task} is not installed" in said for task in ships)
    with pytest.raises(BadInput, match="TwoRoom is not installed"):
        main(Options(tasks=("TwoRoom",), out=tmp_path / "rows.jsonl"))


def test_the_table_shows_goals_that_are_met() -> None:
    rows = [row(1, 1, 9.0, 19.0), row(1, 2, 9.0, 21.0), row(50, 2, 100.0), row(50, 1, 200.0)]
    assert [met(one) for one in rows] == [True, False, True, False]
    assert "| `TwoRoom` | **9.0 (19.0)** | 9.0 (21.0) | 250 | **500** |" in table(rows)


def test_nothing_to_time_is_said() -> None:
    for wrong in (
        Options(plans=19),
        Options(rounds=0),
        Options(robots=(0,)),
        Options(threads=(1, 0)),
        Options(robots=()),
    ):
        with pytest.raises(BadInput, match="nothing to time"):
            main(wrong)
