"""LeWM's recipe beside ours: trained once, played once, on the same pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import lewm
from planner import checkpoint
from planner.collect import Pursuit, collect
from planner.data import EpisodeStore
from planner.errors import BadInput

pytestmark = pytest.mark.skipif(
    not (checkpoint.SHIPPED / "tworoom" / "config.json").exists(), reason="needs the shipped TwoRoom checkpoint"
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> lewm.Options:
    """The recipe at toy size, and a little play to train it on."""
    monkeypatch.setattr(lewm, "SHAPE", replace(lewm.SHAPE, width=8, latent_dim=8, hidden=16, depth=1, heads=1))
    monkeypatch.setattr(
        lewm, "TRAINING", replace(lewm.TRAINING, batch=4, sigreg_directions=4, held_out=0.5, save_every=1)
    )
    monkeypatch.setattr(lewm, "PLANNER", replace(lewm.PLANNER, samples=4, iterations=1))
    facts = {"episodes": 4, "steps": 30, "size": 64, "seed": 0, "workers": 1, "checkpoint": None}
    collect("TwoRoom", tmp_path / "data", pursuit=Pursuit(), progress=lambda *_: None, **facts)
    places = {"data": tmp_path / "data", "folder": tmp_path / "runs", "out": tmp_path / "lewm.jsonl"}
    return lewm.Options("TwoRoom", updates=2, episodes=2, **places)


def test_both_sides_play_the_same_pairs_and_nothing_is_done_twice(
    small: lewm.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    lewm.main(small)
    first = json.loads(small.out.read_text())
    shipped = json.loads((checkpoint.SHIPPED / "tworoom/config.json").read_text())
    assert first["ours"]["checkpoint_sha256"] == shipped["sha256"] != first["lewm"]["checkpoint_sha256"]
    assert first["ours"]["planner"] == shipped["planner"]
    assert first["lewm"]["planner"]["execute"] == 5 and first["lewm"]["planner"]["over"] == "last"
    assert first["n"] == 2
    for side in ("ours", "lewm"):  # pair by pair, to be tested against other weights when these are gone
        assert len(first[side]["reached"]) == 2 and sum(first[side]["reached"]) == first[side]["successes"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("done twice")

    monkeypatch.setattr(lewm.training.JEPATraining, "training_step", never)
    monkeypatch.setattr(lewm, "watched", never)
    lewm.main(small)
    assert [json.loads(line) for line in small.out.read_text().splitlines()] == [first]
    with pytest.raises(AssertionError, match="done twice"):  # more pairs are another measurement
        lewm.main(replace(small, episodes=3))
    with pytest.raises(BadInput, match="a run of another configuration.*training.steps"):
        lewm.main(replace(small, updates=3))
    with pytest.raises(BadInput, match="is of another task"):
        lewm.main(replace(small, task="PushT"))


def test_what_ships_now_is_set_beside_what_the_recipe_was_recorded_to_reach(
    small: lewm.Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table had `weights of then` for as long as nobody trained the recipe again."""
    again = replace(small, recorded=True)
    with pytest.raises(BadInput, match="no record of LeWM's recipe on TwoRoom; expected a row of 2 pairs.*got none"):
        lewm.main(again)
    lewm.main(small)
    first = json.loads(small.out.read_text())
    then = first | {"date": "then", "commit": "of then", "ours": first["ours"] | {"checkpoint_sha256": "0" * 64}}
    then["lewm"] |= {"reached": [False, True], "successes": 1}
    small.out.write_text(f"{json.dumps(then)}\n")
    monkeypatch.setattr(lewm, "trained", lambda *_: pytest.fail("trained"))
    play, other = lewm.play, {"task": "PushT"}

    def meanwhile(*words: object) -> None:
        play(*words)  # type: ignore[arg-type]
        with small.out.open("a") as file:
            file.write(f"{json.dumps(other)}\n")

    monkeypatch.setattr(lewm, "play", meanwhile)
    lewm.main(again)
    assert [json.loads(line) for line in small.out.read_text().splitlines()][:2] == [then, other]
    monkeypatch.setattr(lewm, "play", play)
    now = json.loads(small.out.read_text().splitlines()[-1])
    assert now["ours"] == first["ours"] and now["date"] == first["date"] and now["pairs"] == "TwoRoom-v1"
    when = {"date": "then", "commit": "of then", "hardware": first["hardware"], "versions": first["versions"]}
    assert now["lewm"] == then["lewm"] | {"played": when} and now["times_faster"] is None
    assert now["only_second"] == (not first["ours"]["reached"][1])
    assert now["only_first"] == first["ours"]["reached"][0]
    with pytest.raises(BadInput, match="got rows of 2 pairs; say --episodes"):
        lewm.main(replace(again, episodes=3))
    small.out.write_text(f"{json.dumps(then | {'pairs': 'TwoRoom-v0'})}\n")
    with pytest.raises(BadInput, match="not the same pairs; expected pairs TwoRoom-v0"):
        lewm.main(again)


def test_its_first_candidates_are_as_wide_as_play(small: lewm.Options) -> None:
    """Its planner counts in standard deviations of play's actions; by the bounds it began 1.8 times as wide."""
    lewm.main(small)
    row = json.loads(small.out.read_text())
    store = EpisodeStore.open(small.data)
    low, high = store.info.action_low, store.info.action_high
    coded = 2 * (store.data["actions"].numpy() - np.array(low)) / (np.array(high) - np.array(low)) - 1
    wide = float(np.sqrt(coded.reshape(-1, 2).var(0).mean()))
    assert row["lewm"]["planner"]["std"] == pytest.approx(wide, rel=0.01) and 0.1 < wide < 0.9
    assert row["lewm"]["planner"]["precision"] == small.precision
    assert row["training"]["sigreg_apart"] and row["training"]["batch"] == 4
