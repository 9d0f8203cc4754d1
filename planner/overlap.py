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
"""Environment steps of a run; as many as a row has where that is fewer."""
COPIED = 0.3
"""Share of a recording's runs that makes it a copy. Rows that are cut otherwise do not have all runs in common."""

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
    length = min(RUN, steps.shape[1])
    starts = steps.shape[1] - length + 1
    found, moving = np.zeros((2, len(steps), starts), np.uint64)
    for k in range(length):
        found = _mixed(found) + steps[:, k : k + starts]
        moving += (steps[:, k : k + starts] > 0).astype(np.uint64)
    found[2 * moving < length] = 0
    parts = np.split(found, np.cumsum(recordings)[:-1]) if len(recordings) else list(found)
    return [np.unique(part[part > 0]) for part in parts]


def copies(recordings: Sequence[Numbers], others: Sequence[Numbers] | None = None) -> int:
    """How many recordings are copies of what others have, those of another dataset or of the same one."""
    if not len(recordings):
        return 0
    if others is None:
        numbers, owners = np.unique(np.concatenate(recordings), return_counts=True)
        known = numbers[owners > 1]
    else:
        known = np.concatenate(others)
    return sum(bool(len(runs)) and bool(np.isin(runs, known).mean() >= COPIED) for runs in recordings)


def _mixed(numbers: Numbers) -> Numbers:
    """Other numbers, so that those added next in another order come to another sum."""
    return numbers * np.uint64(0x9E3779B97F4A7C15) ^ numbers >> np.uint64(29)
