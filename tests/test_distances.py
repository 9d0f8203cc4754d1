"""The table of success at every distance: measured once, told as it was measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from benchmarks import distances
from benchmarks.distances import Options, key, main, table
from planner import checkpoint
from planner.errors import BadInput
from planner.settings import PlannerConfig


def row(task: str, column: str, successes: int, n: int = 200) -> dict[str, Any]:
    floor = {"random": {"successes": n // 10, "n": n}}
    return {"task": task, "column": column, "n": n, "successes": successes, "interval": [0.5, 0.75], "floors": floor}


def test_the_table_has_a_row_a_task_and_gaps_where_nothing_was_measured() -> None:
    lines = table([row("TwoRoom", "25", 199), row("TwoRoom", "any", 100), row("Cube", "100", 1)]).splitlines()
    assert lines[0] == "| task | 25 | 50 | 100 | any | strict |"
    assert lines[2] == "| `TwoRoom` | **100** (50 to 75; random 10) |  |  | **50** (50 to 75; random 10) |  |"
    assert lines[3].startswith("| `Cube` |  |  | **0** (50 to 75; random 10) |")


def test_what_was_measured_is_not_measured_again_unless_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[str, str]] = []

    def measure(task: str, column: str, loaded: Any, options: Options, console: Any) -> dict[str, Any]:
        measured.append((task, column))
        own = {"checkpoint_sha256": loaded.sha256, "planner": asdict(loaded.planner)}
        own |= {
            "frozen": distances.frozen_name(task, options.episodes),
            "protocol": distances.COLUMNS[column],
            "seed": 0,
            "num_envs": options.num_envs,
        }
        return row(task, column, 5, options.episodes) | own

    monkeypatch.setattr(distances, "measure", measure)
    out = tmp_path / "rows.jsonl"
    main(Options(tasks=("TwoRoom",), episodes=10, out=out))
    assert measured == [("TwoRoom", column) for column in distances.COLUMNS]
    main(Options(tasks=("TwoRoom",), episodes=10, out=out))
    assert len(measured) == 5
    lines = out.read_text().splitlines()
    old = json.loads(lines[1]) | {"checkpoint_sha256": "other weights"}
    out.write_text("\n".join([lines[0], json.dumps(old), *lines[2:]]) + "\n")
    main(Options(tasks=("TwoRoom",), episodes=10, out=out))
    assert measured[5:] == [("TwoRoom", "50")]
    main(Options(tasks=("TwoRoom",), episodes=10, num_envs=10, out=out))
    assert len(measured) == 11, "times of ten environments at once are not those of one"
    monkeypatch.setitem(distances.COLUMNS, "strict", {"distance": 25, "strict": True})
    main(Options(tasks=("TwoRoom",), episodes=10, out=out))
    assert measured[11:] == [("TwoRoom", "strict")]
    main(Options(tasks=("TwoRoom",), columns=("any",), episodes=7, out=out))
    assert measured[12:] == [("TwoRoom", "any")]
    assert key(json.loads(lines[0])) != key(json.loads(lines[1]))
    monkeypatch.setattr(distances, "frozen_name", lambda task, episodes: "TwoRoom-v99")
    main(Options(tasks=("TwoRoom",), columns=("any",), episodes=7, out=out))
    assert len(measured) == 14, "other pairs are another measurement"
    main(Options(tasks=("TwoRoom",), columns=("any",), episodes=7, noise=1, out=out))
    assert len(measured) == 15, "and so is other noise on the same pairs"


def test_a_row_of_other_pairs_names_no_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows named the newest protocol whatever was played: on another processor Cube's pairs were not its pairs."""
    loaded: Any = SimpleNamespace(planner=PlannerConfig())
    kept = dict.fromkeys(distances.KEPT)
    for same, departs, name in ((True, [], "Cube-v3"), (False, ["pairs"], None), (True, ["another judge"], None)):
        held = {"name": "Cube-v3", "same_pairs": same, "departs": departs}
        played = [{"policy": "planner", "success": True}, {"policy": "planner", "success": False}]
        found = SimpleNamespace(
            result=kept | {"protocol": held}, records=[*played, {"policy": "random", "success": True}]
        )
        monkeypatch.setattr(distances, "watched", lambda *_, found=found: found)
        found_row = distances.measure("Cube", "25", loaded, Options(), Console())
        assert (found_row["frozen"], found_row["reached"]) == (name, "10")


def test_a_row_of_no_protocol_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(task: str, column: str, loaded: Any, options: Options, console: Any) -> dict[str, Any]:
        measured.append(column)
        own = {"checkpoint_sha256": loaded.sha256, "planner": asdict(loaded.planner), "frozen": None, "seed": 0}
        own |= {"protocol": distances.COLUMNS[column], "num_envs": options.num_envs}
        return row(task, column, 5, options.episodes) | own

    monkeypatch.setattr(distances, "measure", measure)
    for _ in range(2):
        main(Options(tasks=("TwoRoom",), columns=("any",), episodes=400, out=tmp_path / "rows.jsonl"))
    assert measured == ["any"]
    main(Options(tasks=("TwoRoom",), columns=("any",), episodes=10, out=tmp_path / "rows.jsonl"))
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["frozen"] is None and measured == ["any"] * 2
    main(Options(tasks=("TwoRoom",), columns=("any",), episodes=10, out=tmp_path / "rows.jsonl"))
    assert measured == ["any"] * 3, "pairs that are not the protocol's once passed for these"


def test_weights_that_do_not_ship_are_of_one_task_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure(task: str, column: str, loaded: Any, options: Options, console: Any) -> dict[str, Any]:
        measured.append(loaded.sha256)
        return row(task, column, 5, options.episodes)

    monkeypatch.setattr(distances, "measure", measure)
    weights, out = checkpoint.SHIPPED / "pointmaze", tmp_path / "rows.jsonl"
    main(Options(tasks=("PointMaze",), columns=("25",), checkpoint=weights, out=out))
    assert measured == [checkpoint.load(weights, task="PointMaze").sha256]
    with pytest.raises(BadInput, match="one task"):
        main(Options(tasks=("PointMaze", "Cube"), checkpoint=weights, out=out))
    with pytest.raises(BadInput, match="PointMaze"):
        main(Options(tasks=("TwoRoom",), checkpoint=weights, out=out))
