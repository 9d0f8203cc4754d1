"""Whether recordings are copies of each other, in whole or in part: one would be held out and the other trained on.

Where rows begin is no matter. What is the same is a run of steps, of what was seen, done and then seen, bit for bit:
single steps come twice in a world without noise, and the first steps of a robot that always begins alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .data import EpisodeStore

RUN = 10
"""Environment steps of a run; as many as a recording has where that is fewer."""
COPIED = 0.3
"""Share of a recording's runs that makes it a copy."""

Numbers = NDArray[np.uint64]


def moves(store: EpisodeStore) -> Numbers:
    """A number for each step in which the picture changes, 0 where it does not, `[episodes, L]`."""
    found = np.zeros((store.info.episodes, store.info.steps), np.uint64)
    pixels, actions = (store.data[key].numpy() for key in ("pixels", "actions"))
    for row in range(len(found)):
        seen = np.array([zlib.crc32(picture.data) for picture in pixels[row]], np.uint64)
        done = np.array([zlib.crc32(action.data) for action in actions[row]], np.uint64)
        number = _mixed(_mixed(seen[:-1]) + seen[1:]) + done
        found[row] = np.where(seen[1:] == seen[:-1], 0, number)
    return found


def runs_of(steps: Numbers, recordings: Sequence[int]) -> list[Numbers]:
    """Of each recording the numbers of its runs, each once; those that hardly move are none.

    Args:
        steps: of `moves`.
        recordings: rows of each, as `DatasetInfo` has them; where there are none each row is one.
    """
    rows = np.split(steps, np.cumsum(recordings)[:-1]) if len(recordings) else steps[:, None]
    return [_runs(_joined(some)) for some in rows]


def _joined(rows: Numbers) -> Numbers:
    """The steps of one recording, `[N]`, of rows `[n, L]` that may begin with what the one before ends with."""
    found = [rows[0]]
    for before, row in zip(rows, rows[1:], strict=False):
        shared = next((k for k in range(len(row) - 1, 0, -1) if np.array_equal(before[-k:], row[:k])), 0)
        found.append(row[shared:])
    return np.concatenate(found)


def _runs(steps: Numbers) -> Numbers:
    length = min(RUN, len(steps))
    windows = np.lib.stride_tricks.sliding_window_view(steps, length)
    found = np.zeros(len(windows), np.uint64)
    for step in windows.T:
        found = _mixed(found) + step
    return np.unique(found[2 * (windows > 0).sum(1) >= length])


def copies(recordings: Sequence[Numbers], others: Sequence[Numbers] | None = None) -> int:
    """How many recordings are copies of what others have, those of another dataset or of the same one."""
    runs = np.concatenate([*recordings, np.zeros(0, np.uint64)])
    if others is None:
        numbers, owners = np.unique(runs, return_counts=True)
        known = numbers[owners > 1]
    else:
        known = np.concatenate([*others, np.zeros(0, np.uint64)])
    sizes = np.array([len(own) for own in recordings], np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    twice = np.bincount(owner, np.isin(runs, known), minlength=len(sizes))
    return int(((sizes > 0) & (twice >= COPIED * sizes)).sum())


def _mixed(numbers: Numbers) -> Numbers:
    """Other numbers, so that those added next in another order come to another sum."""
    return numbers * np.uint64(0x9E3779B97F4A7C15) ^ numbers >> np.uint64(29)
