"""The film of all planners: it moves, it ends where the episode ended, and it hides no failure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gallery import HOLD, Options, Take, main, side_by_side, tile
from planner.errors import BadInput
from planner.evaluate.video import FAILURE, SUCCESS

SHOT = np.zeros((160, 160, 3), np.uint8)
TAKE = Take("TwoRoom", [SHOT, SHOT + 100, SHOT + 200], SHOT, success=False)


def has(picture: Image.Image, colour: str) -> bool:
    wanted = tuple(bytes.fromhex(colour[1:]))
    return bool((np.asarray(picture) == wanted).all(-1).any())


def test_a_tile_tells_how_the_episode_ended_once_it_is_over() -> None:
    for success, colour, other in ((False, FAILURE, SUCCESS), (True, SUCCESS, FAILURE)):
        take = replace(TAKE, success=success)
        shown = [(has(tile(take, step), colour), has(tile(take, step), other)) for step in (0, 1, 2, 9)]
        assert shown == [(False, False), (False, False), (True, False), (True, False)]


def test_a_round_lasts_as_long_as_its_longest_episode_and_then_stands_still() -> None:
    shots = side_by_side([TAKE, replace(TAKE, frames=[SHOT] * 5)])
    assert len(shots) == 5 + HOLD and np.array_equal(shots[4], shots[-1])
    assert not np.array_equal(shots[3], shots[4]), "the second task's frame turns red"


def test_the_film_moves(tmp_path: Path) -> None:
    """From the real planners."""
    options = Options(tasks=("TwoRoom", "Reacher"), episodes=1, distance=5, every=1, out=tmp_path / "films/film.gif")
    main(options)
    with Image.open(options.out) as gif:
        assert gif.n_frames > 2
        first = np.asarray(gif.convert("RGB"))
        gif.seek(gif.n_frames - 1)
        assert (np.asarray(gif.convert("RGB")) != first).any()
    for bad in (replace(options, episodes=0), replace(options, tasks=())):
        with pytest.raises(BadInput, match="gallery: options are off"):
            main(bad)
