"""Episodes that somebody recorded, of a robot or in a simulator of theirs, as a dataset to train on.

What files may hold is told by `recording_files`. Their pictures are read one by one, so that a file may be larger than
memory.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .actions import ActionSpec
from .data import CAMERA, DatasetInfo, EpisodeStore
from .errors import BadInput
from .pictures import fit
from .recording_files import frames, recorded
from .versions import versions

LEAST, MOST = 6, 20
"""Model steps of a row, where nothing else is said: what training and `rehearse` look at once, and what is plenty."""


@dataclass(frozen=True)
class Take:
    """Frames of one episode, and what was done between them.

    Attributes:
        path: the file that they lie in.
        first: number of the first frame there.
        actions: `[L, a]`, float32, L >= 1.
        state: `[L + 1, n]`, float32; n is 0 where none was read.
        shape: height and width of its pictures, pixels.
        sum: checksum of the pictures of its recording.
        name: of these pictures in the file.
    """

    path: Path
    first: int
    actions: np.ndarray
    state: np.ndarray
    shape: tuple[int, int]
    sum: int
    name: str = "pixels"

    def pieces(self, steps: int) -> list[Take]:
        """As few of `steps` actions as leave out at most a tenth of a piece, at equal distances; none of fewer.

        Neighbours share steps where they have to, others never.
        """
        spare = len(self.actions) - steps
        if spare < 0:
            return []
        count = int(_pieces(np.array(len(self.actions)), steps))
        return [
            replace(
                self,
                first=self.first + at,
                actions=self.actions[at : at + steps],
                state=self.state[at : at + steps + 1],
            )
            for at in (k * spare // max(1, count - 1) for k in range(count))
        ]

    def pictures(self) -> Iterator[np.ndarray]:
        """Its frames, one after the other, uint8 `[h, w, 3]`."""
        return islice(frames(self.path, self.name), self.first, self.first + len(self.actions) + 1)


def takes(path: Path, state: bool = False, camera: str | None = None) -> list[Take]:
    """The episodes of a file that have an action; its pictures are not read yet, nor is its state unless asked for.

    Args:
        path: of the file.
        state: read that, too.
        camera: whose pictures, where a file has several cameras'.

    Raises:
        BadInput: where the file is missing or damaged, or its arrays are not as `recording_files` says.
    """
    found = recorded(path, state, camera)
    moving = []
    for one in found:
        (count, *size), lasts = one.shape, one.lasts()
        actions = one.actions(lasts)
        known = one.state() if state else np.empty((count, 0), np.float32)
        moving += [
            Take(path, first, actions[first:last], known[first : last + 1], (size[0], size[1]), one.sum, one.name)
            for first, last in zip([0, *(last + 1 for last in lasts)], lasts, strict=False)
            if last > first
        ]
    if not moving:
        got = f"{sum(one.shape[0] for one in found)} frames"
        raise BadInput(f"{path}: nothing was done", expected="two frames of an episode at least", got=got)
    return moving


def bounds(found: Sequence[Take]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The least and the greatest of each action that was recorded, each by itself, in the fewest digits that say it.

    Raises:
        BadInput: where files differ in how many actions they have, or one is the same throughout.
    """
    _check_alike(found)
    low, high = (
        tuple(float(str(value)) for value in pick([pick(take.actions, 0) for take in found], 0))
        for pick in (np.min, np.max)
    )
    if still := [str(i) for i in range(len(low)) if low[i] == high[i]]:
        do = "leave it out of the files, or give --low and --high"
        raise BadInput(f"import: action {still[0]} never changes", got=f"{low[int(still[0])]:g} throughout", do=do)
    return low, high


def best_length(found: Sequence[Take], block: int) -> int:
    """Of `LEAST` to `MOST` model steps the environment steps whose rows have most windows of `LEAST` in them, each
    counted once; of equal ones those that take the fewest frames.

    Long rows leave out the episodes that are shorter; short ones have few windows: one as long as a window has one.

    Raises:
        BadInput: where no episode is as long as that.
    """
    _check_alike(found)
    lengths = np.array([len(take.actions) for take in found])
    if (least := LEAST * block) > (longest := int(lengths.max())):
        do = "give a smaller --block, or --steps and train with a smaller --training.horizon"
        expected, got = f"{least} steps, {LEAST} blocks of {block}", f"at most {longest}"
        raise BadInput("import: episodes are too short", expected=expected, got=got, do=do)

    def worth(steps: int) -> tuple[float, float]:
        kept = lengths[lengths >= steps]
        more = _pieces(kept, steps) - 1  # rows after an episode's first, each so many steps after the one before
        apart = np.minimum((kept - steps) / np.maximum(more, 1), steps - least + 1)
        return float((more * apart).sum()) + len(kept) * (steps - least + 1), -float((more + 1).sum()) * (steps + 1)

    return max(range(least, min(MOST * block, longest) + 1), key=worth)


def _pieces(length: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """Pieces of `steps` that episodes of so many give: as they hold whole, and one for more than a tenth beyond."""
    return np.maximum(1, -(-(10 * length - steps) // (10 * steps)))


def gather(
    task: str,
    found: Sequence[Take],
    path: Path,
    spec: ActionSpec,
    *,
    steps: int,
    size: int = 64,
    state: Sequence[tuple[str, str]] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EpisodeStore:
    """Makes a dataset at `path`, or what is missing of it: a row a piece of `steps`; what is shorter is left out.

    Args:
        task: that they are of.
        found: in this order; training holds out the last of them.
        path: folder of the dataset.
        spec: bounds, units and block of the actions.
        steps: L, environment steps of every row.
        size: height and width of its pictures, pixels, made by `pictures.fit`.
        state: names and units of what `Take.state` has.
        progress: called with rows done and in all.

    Raises:
        BadInput: where actions are beyond their bounds, nothing is long enough, pictures are smaller than `size`, a
            file is damaged or was given twice, or `path` holds another dataset.
    """
    _check_alike(found)
    for take in found:
        _check_fits(take, spec, size)
    cut = [pieces for take in found if (pieces := take.pieces(steps))]
    if not cut:
        got = f"at most {max(len(take.actions) for take in found)} steps"
        raise BadInput("import: episodes are too short", expected=f"{steps} steps", got=got, do="give fewer --steps")
    store = EpisodeStore.claim(path, _described(task, cut, spec, size, tuple(state)))
    _fill(store, [piece for pieces in cut for piece in pieces], size, progress)
    return store


def _fill(store: EpisodeStore, pieces: Sequence[Take], size: int, progress: Callable[[int, int], None]) -> None:
    """Writes the rows that are missing, recording by recording; those of one that proves damaged are missing again."""
    rows = store.missing()
    done = len(pieces) - len(rows)
    progress(done, len(pieces))
    for film, group in groupby(rows, key=lambda row: (pieces[row].path, pieces[row].name)):
        missing = list(group)
        try:
            for row, pixels in zip(missing, _filmed([pieces[row] for row in missing], size), strict=True):
                store.write(row, pixels, pieces[row].actions, pieces[row].state)
                done += 1
                progress(done, len(pieces))
        except BadInput:  # what was read before the damage was noticed may be damaged, too
            store.forget([row for row, piece in enumerate(pieces) if (piece.path, piece.name) == film])
            raise


def _described(
    task: str, cut: Sequence[Sequence[Take]], spec: ActionSpec, size: int, state: tuple[tuple[str, str], ...]
) -> DatasetInfo:
    pieces = [piece for some in cut for piece in some]
    if len(state) != (width := pieces[0].state.shape[1]):
        expected, got = f"{len(state)} quantities, as there are names", str(width)
        raise BadInput(f"{pieces[0].path}: state is off", expected=expected, got=got)
    digest = hashlib.sha256()
    for piece in pieces:  # whatever of it is another, training has to begin anew
        digest.update(repr((piece.sum, piece.first)).encode())
        digest.update(np.ascontiguousarray(piece.actions).tobytes() + np.ascontiguousarray(piece.state).tobytes())
    return DatasetInfo(
        task=task,
        episodes=len(pieces),
        steps=len(pieces[0].actions),
        size=size,
        state_names=tuple(name for name, _ in state),
        state_units=tuple(unit for _, unit in state),
        seed=0,
        renderer=CAMERA,
        versions=versions(),
        action_low=spec.low,
        action_high=spec.high,
        action_units=spec.units,
        block=spec.block,
        policy=f"recordings {digest.hexdigest()[:12]}",
        recordings=tuple(len(some) for some in cut) if len(pieces) > len(cut) else (),
    )


def _filmed(pieces: Sequence[Take], size: int) -> Iterator[np.ndarray]:
    """Pictures of each piece of one recording, uint8 `[L + 1, size, size, 3]`, which is read once, from front to back.

    Before the last of them comes, all of the file was read: its checksum is only looked at there.
    """
    film, read = frames(pieces[0].path, pieces[0].name), 0
    before = np.empty((0, size, size, 3), np.uint8)
    for piece in pieces:
        pixels = np.empty((len(piece.actions) + 1, size, size, 3), np.uint8)
        shared, last = max(0, read - piece.first), piece.first + len(pixels)
        pixels[:shared] = before[len(before) - shared :]
        for picture, frame in zip(pixels[shared:], islice(film, max(0, piece.first - read), last - read), strict=True):
            picture[:] = fit(frame, size)
        before, read = pixels, last
        if piece is pieces[-1]:
            deque(film, 0)
        yield pixels


def _check_alike(found: Sequence[Take]) -> None:
    """Raises `BadInput` where there are none, one is there twice, or they differ in how many actions they have."""
    if not found:
        raise BadInput("import: no files", expected="one file at least", do="name them before the options")
    seen: dict[tuple[int, int, bytes], Path] = {}
    for take in found:
        before = seen.setdefault((take.sum, take.first, take.actions.tobytes()), take.path)
        if before is not take.path:
            raise BadInput(f"import: {take.path} is there twice", got=f"{before} with the same in it", do="name one")
    shapes = {(take.actions.shape[1], take.state.shape[1]): take.path for take in found}
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        expected, got = (f"{a} actions and {n} of state in {path}" for (a, n), path in ((one, first), (other, second)))
        raise BadInput("import: files differ", expected=expected, got=got)


def _check_fits(take: Take, spec: ActionSpec, size: int) -> None:
    """Raises `BadInput` for actions that are others than `spec` says, or beyond its bounds, and for small pictures."""
    if (got := take.actions.shape[1]) != spec.env_dim:
        expected = f"{spec.env_dim}, as there are bounds"
        raise BadInput(f"{take.path}: number of actions is off", expected=expected, got=str(got))
    if not spec.admits(take.actions):
        ends = (str([round(float(v), 4) for v in pick(take.actions, 0)]) for pick in (np.min, np.max))
        expected = f"{list(spec.low)} to {list(spec.high)}"
        raise BadInput(f"{take.path}: actions are out of bounds", expected=expected, got=" to ".join(ends))
    if (side := min(take.shape)) < size:
        expected, do = f"{size} pixels a side", f"give --size {side // 16 * 16}" if side >= 16 else ""
        raise BadInput(f"{take.path}: pictures are too small", expected=expected, got=str(side), do=do)
