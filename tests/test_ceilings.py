"""What the planner on the simulator reaches, column by column: the same as an evaluation's oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toys import toy_checkpoint

import envs
from benchmarks import oracle
from benchmarks.oracle import Options, main, table
from planner import checkpoint
from planner.errors import BadInput
from planner.evaluate.run import Protocol, evaluate


def test_it_plays_what_an_evaluation_s_oracle_plays_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(tasks=("TwoRoom",), columns=("strict",), episodes=2, out=tmp_path / "rows.jsonl")
    main(options)
    row = json.loads(options.out.read_text())
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    outcome = evaluate(envs, "TwoRoom", loaded, loaded.planner, Protocol(2, 50, strict=True))
    played = [one for one in outcome.records if one["policy"] == "oracle"]
    assert row["reached"] == "".join(str(int(one["success"])) for one in played)
    assert row["steps"] == [one["steps"] for one in played], "with another judge, or other noise, these are others"
    assert {name: row[name] for name in ("n", "successes", "interval")} == {
        name: outcome.result["floors"]["oracle"][name] for name in ("n", "successes", "interval")
    }
    assert row["frozen"] == outcome.result["protocol"]["name"] and row["budget"] == 100
    monkeypatch.setattr(oracle, "play_pairs", lambda *_, **__: pytest.fail("played twice"))
    main(options)
    assert json.loads(options.out.read_text()) == row
    assert "| `TwoRoom` | - | - | - | - | 2/2 |" in capsys.readouterr().out


def test_pairs_that_are_not_frozen_are_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such pairs are frozen of TwoRoom, 25; expected up to 200; got 100000"):
        main(Options(tasks=("TwoRoom",), columns=("25",), episodes=100_000, out=tmp_path / "rows.jsonl"))
    for strange in ("Pusht", "ogbench/cube-single"):
        with pytest.raises(BadInput, match=f"no task of ours; expected TwoRoom or .*; got {strange}"):
            main(Options(tasks=(strange,), out=tmp_path / "rows.jsonl"))


def test_a_task_that_was_changed_since_is_not_played_as_the_one_that_was_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oracle, "STRICT", oracle.STANDARD)
    monkeypatch.setattr("planner.evaluate.frozen.STRICT", oracle.STANDARD)
    with pytest.raises(BadInput, match="outside protocol TwoRoom-v.*what counts as reached is judged otherwise"):
        main(Options(tasks=("TwoRoom",), columns=("strict",), episodes=2, out=tmp_path / "rows.jsonl"))


def test_the_last_row_of_a_column_counts() -> None:
    rows = [{"task": "Cube", "column": "strict", "successes": k, "n": 60} for k in (40, 50)]
    assert table(rows).splitlines()[-1] == "| `Cube` | - | - | - | - | 50/60 |"
