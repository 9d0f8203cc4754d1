"""Two evaluations side by side: only of the same pairs, and only whole ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.cli import main
from planner.errors import BadInput
from planner.evaluate.compare import compare, read_side


def write(path: Path, successes: list[bool], starts: float = 2.0, **changes: Any) -> Path:
    """An evaluation as far as a comparison reads it; episodes in no order, with a floor's among them."""
    path.mkdir()
    result = {"task": "TwoRoom", "distance": 25, "budget": 50, "seed": 0, "n": len(successes), "pair_rule": "any"}
    result |= {"successes": sum(successes), "interval": [0.0, 1.0], "plan_ms": {"median": 10.0}}
    (path / "results.json").write_text(json.dumps(result | changes))
    records = [
        {"policy": policy, "episode": k, "success": success, "initial_distance": starts + k}
        for policy in ("planner", "random")
        for k, success in reversed(list(enumerate(successes)))
    ]
    (path / "episodes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_outcomes_are_matched_pair_by_pair(tmp_path: Path) -> None:
    first = read_side(write(tmp_path / "a", [True, True, False, True]))
    second = read_side(write(tmp_path / "b", [True, False, True, False], plan_ms={"median": 5000.0}))
    found = compare(first, second)
    assert (found["n"], found["only_first"], found["only_second"], found["p"]) == (4, 2, 1, 1.0)
    assert found["times_faster"] == 500


OTHER = [{"task": "PushT"}, {"distance": 50}, {"seed": 1}, {"budget": 60}, {"starts": 2.01}]
OTHER += [{"goals": "any"}, {"strict": True}, {"pair_rule": "some"}]


@pytest.mark.parametrize("changes", OTHER)
def test_other_pairs_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    sides = read_side(write(tmp_path / "a", [True, False])), read_side(write(tmp_path / "b", [True, False], **changes))
    with pytest.raises(BadInput, match="not the same pairs"):
        compare(*sides)


@pytest.mark.parametrize(("goals", "refused"), [("own", False), ("any", False), ("play", True)])
def test_a_distance_counts_where_goals_are_of_play(goals: str, refused: bool, tmp_path: Path) -> None:
    """Two results with goals of the task's own, which read no `--distance`, were refused as they named two of them."""
    sides = [read_side(write(tmp_path / str(d), [True, False], goals=goals, distance=d)) for d in (25, 50)]
    if refused:
        with pytest.raises(BadInput, match="not the same pairs; expected distance 25"):
            compare(*sides)
    else:
        assert compare(*sides)["n"] == 2


PLAYED = '{"policy": "planner", "episode": 0, "success": true, "initial_distance": 1}'


@pytest.mark.parametrize("missing", ["policy", "episode", "success", "initial_distance", None])
def test_records_of_something_else_are_refused(missing: str | None, tmp_path: Path) -> None:
    """One that says nothing of success, or is no record, ended in a traceback."""
    path = write(tmp_path / "a", [True])
    record = {key: value for key, value in json.loads(PLAYED).items() if key != missing}
    (path / "episodes.jsonl").write_text(json.dumps(record if missing else [record]))
    with pytest.raises(BadInput, match=f"is no evaluation.*got (KeyError: '{missing}'|TypeError)"):
        read_side(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", "[]", "expected an evaluation of one task"),
        ("results.json", "{", "is no evaluation"),
        ("results.json", "{}", "is no evaluation"),
        ("results.json", '{"n": 2}', "is off; expected results with successes; got"),
        ("episodes.jsonl", PLAYED, "2 episodes"),
        ("episodes.jsonl", '{"policy": ', "is no evaluation"),
    ],
)
def test_an_evaluation_that_was_cut_off_is_refused(file: str, content: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a", [True, False])
    (path / file).write_text(content)
    with pytest.raises(BadInput, match=message):
        read_side(path)


@pytest.mark.parametrize("changes", [{"num_envs": 10}, {"hardware": "another"}])
def test_times_that_mean_different_things_are_not_compared(
    changes: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    a, b = write(tmp_path / "a", [True, False]), write(tmp_path / "b", [True, True], **changes)
    assert compare(read_side(a), read_side(b))["times_faster"] is None
    main(["compare", str(a), str(b)])
    said = " ".join(capsys.readouterr().out.split())
    assert "not compared" in said and "too few pairs differ to show any difference" in said and "nan" not in said


def test_the_command_prints_the_test(tmp_path: Path, capsys: Any) -> None:
    a, b = write(tmp_path / "a", [True] * 8), write(tmp_path / "b", [False] * 8, plan_ms={"median": 20.0})
    main(["compare", str(a), str(b)])
    said = " ".join(capsys.readouterr().out.split())
    assert "8/8" in said and "0/8" in said
    assert "p = 0.00781" in said and "at least 100.0% would show" in said and "2 times as fast" in said
