"""What can be told of a checkpoint without a simulator, on a toy whose future is known (as in test_foresight)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_foresight import Sum, brightness
from toys import dot_store, toy_checkpoint

from planner.cli import main
from planner.data import EpisodeStore
from planner.evaluate import rehearsal
from planner.settings import PlannerConfig

__all__ = ["brightness"]

SETTINGS = PlannerConfig(samples=64, iterations=6, horizon=4, hold=2, metric="temporal", over="min", proposals=3)


def test_a_model_that_heeds_actions_is_off_with_those_of_other_windows(brightness: EpisodeStore) -> None:
    windows = rehearsal.held_out_windows(brightness, 2 + 2, 0.34, batch=20)
    assert rehearsal.errors(Sum(1.0), windows, 40) == pytest.approx([0.0] * 2)
    assert min(rehearsal.errors(Sum(1.0), windows, 40, swapped=True)) > 0.1
    for swapped in (False, True):
        assert rehearsal.errors(Sum(0.0), windows, 40, swapped=swapped) == pytest.approx([1.0] * 2)


def test_a_search_finds_what_was_done_where_the_model_is_right(brightness: EpisodeStore) -> None:
    """And where the model foresees no change whatever is done, chance says what is found."""
    windows = rehearsal.held_out_windows(brightness, 2 + 1, 0.34, batch=20)
    settings = rehearsal.to_the_next_frame(SETTINGS)
    found = [
        rehearsal.recovered(settings.build(Sum(share), 0), windows, 40)  # type: ignore[arg-type]
        for share in (1.0, 0.0)
    ]
    assert found[0][0] > 0.99 and found[1][0] < 0.1


def test_of_an_action_that_is_always_the_same_nothing_is_told(brightness: EpisodeStore) -> None:
    """It was -Infinity, which is no JSON."""
    brightness.data["actions"][:] = 0.5
    windows = rehearsal.held_out_windows(brightness, 2 + 1, 0.34, batch=20)
    settings = rehearsal.to_the_next_frame(SETTINGS)
    assert np.isnan(rehearsal.recovered(settings.build(Sum(1.0), 0), windows, 20)).all()  # type: ignore[arg-type]


def test_a_search_to_the_next_frame_is_one_step_long_and_by_distance_alone() -> None:
    short = rehearsal.to_the_next_frame(SETTINGS)
    assert (short.horizon, short.over, short.metric, short.proposals) == (1, "last", "l2", 0)
    assert (short.samples, short.iterations, short.hold) == (128, 4, 2), (
        "one that lives on proposals searches too little"
    )
    own = replace(SETTINGS, proposals=0)
    assert rehearsal.to_the_next_frame(own).samples == own.samples


def test_what_is_foreseen_is_shown_as_real_frames_beside_what_was_seen(brightness: EpisodeStore) -> None:
    windows = rehearsal.held_out_windows(brightness, 2 + 3, 0.34, batch=20)
    model: Any = Sum(1.0)
    bank = rehearsal.bank_of(brightness, model, 0.34)
    shown = rehearsal.rehearse(model, windows, bank, count=2)
    assert len(shown) == 2 and shown[0].seen.shape == (4, 4, 4, 3)
    for one in shown:
        assert one.off == pytest.approx(np.zeros(3), abs=1e-9)
        apart = np.abs(one.nearest[:, 0, 0, 0].astype(float) - one.seen[1:, 0, 0, 0])  # of brightness, which is latent
        assert one.distance * bank.unit == pytest.approx(apart)
        assert one.distance.max() <= 1


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    toy_checkpoint(tmp_path / "toy", task="recorded/arm")
    dot_store(tmp_path / "data/recorded-arm", task="recorded/arm", renderer="camera")
    words = "rehearse recorded/arm --checkpoint toy --steps 3 --windows 50 --held-out 0.34 --threads 1"
    main(words.split())
    out = " ".join(capsys.readouterr().out.split())
    assert "2 rows of data/recorded-arm are held out; windows may begin at 22 frames" in out
    assert "error; 1: as if nothing moved" in out and "runs/rehearse/recorded-arm/rehearsal.png" in out
    found = json.loads((tmp_path / "runs/rehearse/recorded-arm/rehearsal.json").read_text())
    assert len(found["errors"]) == len(found["swapped"]) == 3 and found["windows"] == 100 and found["rows"] == 2
    assert torch.tensor(found["errors"] + found["recovered_r2"]).isfinite().all()
    assert np.asarray(Image.open(tmp_path / "runs/rehearse/recorded-arm/rehearsal.png")).std() > 10


def test_bad_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    toy_checkpoint(tmp_path / "toy")
    dot_store(tmp_path / "data/tworoom")
    for words, said in {
        "--steps 6": "steps is off; expected 1 to 5, in episodes of 30 steps; got 6",
        "--windows 0": "windows is off",
        "--held-out 1": "held_out is off",
        "--steps 5": "too few windows are held out; expected at least 10; got 1; hold out more rows",
        "--seed -1": "seed is off",
        "--data none": "no dataset at none",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            main(["rehearse", "TwoRoom", "--checkpoint", "toy", *words.split()])
        assert said in capsys.readouterr().err
