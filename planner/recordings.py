"""Episodes that somebody recorded, of a robot or in a simulator of theirs, as a dataset to train on.

An `.npz` file holds one episode, or several, one after the other:

- `pixels` or `observations`, uint8 `[N, h, w, 3]`: what the camera saw, at equal intervals.
- `actions`, `[N, a]`, or `[N - 1, a]` where it is one episode: what was then done, in the robot's own units. The action
  at an episode's last frame leads to nothing that was seen, and is not read.
- `terminals`, `[N]`, true at the last frame of each episode; without it the file is one. So D4RL's and OGBench's files
  are read as they are.
- `state`, `[N, n]`: physical quantities, for probes alone; may be left out.

Pictures are read one by one, so that a file may be larger than memory.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np

from .actions import ActionSpec
from .data import DatasetInfo, EpisodeStore
from .errors import BadInput
from .pictures import fit
from .versions import versions

CAMERA = "camera"
"""What stands in place of a rendering backend where pictures were brought along."""
PICTURES = ("pixels", "observations")
DAMAGED = (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy lets through of a file that is empty, torn, or packed or locked in a way that it does not know."""


@dataclass(frozen=True)
class Take:
    """Frames of one episode, and what was done between them.

    Attributes:
        path: the file that they lie in.
        first: number of the first frame there.
        actions: `[L, a]`, float32.
        state: `[L + 1, n]`, float32; n is 0 where none was recorded.
    """

    path: Path
    first: int
    actions: np.ndarray
    state: np.ndarray

    def pieces(self, steps: int) -> list[Take]:
        """As many of `steps` actions as fit, one after the other; neighbours share a frame."""
        return [
            Take(self.path, self.first + at, self.actions[at : at + steps], self.state[at : at + steps + 1])
            for at in range(0, len(self.actions) - steps + 1, steps)
        ]


def takes(path: Path) -> list[Take]:
    """The episodes of a file; its pictures are not read yet.

    Raises:
        BadInput: where the file is missing or damaged, or its arrays are not as the module says.
    """
    with _reading(path):
        with zipfile.ZipFile(path) as archive, _pictures(archive) as file:
            shape, dtype = _header(file)
        with np.load(path, allow_pickle=False) as arrays:
            actions, state, ends = (arrays.get(key) for key in ("actions", "state", "terminals"))
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or min(shape) < 1:
        raise BadInput(f"{path}: pictures are off", expected="uint8 [N, h, w, 3]", got=f"{dtype} {list(shape)}")
    frames = shape[0]
    lasts = [frames - 1] if ends is None else _lasts(path, ends, frames)
    actions = _numbers(path, "actions", actions, (frames, frames - 1) if ends is None else (frames,))
    state = np.empty((frames, 0), np.float32) if state is None else _numbers(path, "state", state, (frames,))
    firsts = [0, *(last + 1 for last in lasts)]
    return [
        Take(path, first, actions[first:last], state[first : last + 1])
        for first, last in zip(firsts, lasts, strict=False)
    ]


def bounds(found: Sequence[Take]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The least and the greatest of each action that was recorded: a planner within them does what was done before.

    Raises:
        BadInput: where files differ in how many actions they have, or one is the same throughout.
    """
    _check_alike(found)
    low, high = (
        tuple(float(value) for value in pick([pick(take.actions, 0) for take in found if len(take.actions)], 0))
        for pick in (np.min, np.max)
    )
    if still := [str(i) for i in range(len(low)) if low[i] == high[i]]:
        do = "leave it out of the files, or give bounds"
        raise BadInput(f"import: action {still[0]} never changes", got=f"{low[int(still[0])]:g} throughout", do=do)
    return low, high


def best_length(found: Sequence[Take]) -> int:
    """Of 40 to 100 steps, or up to those of the longest episode, the length that keeps most; of equal ones the longest.

    Training asks for some 30 steps a window, and draws them anywhere in a row.
    """
    _check_alike(found)
    lengths = np.array([len(take.actions) for take in found])
    longest = max(int(lengths.max()), 1)
    tried = range(min(40, longest), min(100, longest) + 1)
    return max(tried, key=lambda steps: (int((lengths // steps * steps).sum()), steps))


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
        found: in this order; training holds out the last rows.
        path: folder of the dataset.
        spec: bounds, units and block of the actions.
        steps: L, environment steps of every row.
        size: height and width of its pictures, pixels, made by `pictures.fit`.
        state: names and units of what `Take.state` has.
        progress: called with rows done and in all.

    Raises:
        BadInput: where actions are beyond their bounds, nothing is long enough, pictures are smaller than `size`, a
            file is damaged, or `path` holds another dataset.
    """
    _check_alike(found)
    for take in found:
        if take.actions.shape[1] != spec.env_dim or not spec.admits(take.actions):
            got = " and ".join(str([round(float(v), 4) for v in pick(take.actions, 0)]) for pick in (np.min, np.max))
            raise BadInput(f"{take.path}: actions are out of bounds", expected=f"{spec.low} and {spec.high}", got=got)
    pieces = [piece for take in found for piece in take.pieces(steps)]
    if not pieces:
        got = f"at most {max(len(take.actions) for take in found)} steps"
        raise BadInput("import: episodes are too short", expected=f"{steps} steps", got=got, do="give fewer --steps")
    store = EpisodeStore.claim(path, _described(task, pieces, spec, size, tuple(state)))
    rows = store.missing()
    progress(len(pieces) - len(rows), len(pieces))
    wanted = [pieces[row] for row in rows]
    for done, (row, piece, pixels) in enumerate(zip(rows, wanted, _filmed(wanted, size), strict=True), 1):
        store.write(row, pixels, piece.actions, piece.state)
        progress(len(pieces) - len(rows) + done, len(pieces))
    return store


def _described(
    task: str, pieces: Sequence[Take], spec: ActionSpec, size: int, state: tuple[tuple[str, str], ...]
) -> DatasetInfo:
    if len(state) != (width := pieces[0].state.shape[1]):
        expected, got = f"{len(state)} quantities, as there are names", str(width)
        raise BadInput(f"{pieces[0].path}: state is off", expected=expected, got=got)
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece.actions).tobytes())
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
    )


def _filmed(pieces: Sequence[Take], size: int) -> Iterator[np.ndarray]:
    """Pictures of each piece, uint8 `[L + 1, size, size, 3]`; a file is read once, from front to back."""
    for path, group in groupby(pieces, key=lambda piece: piece.path):
        frames, read, frame = _frames(path), 0, np.empty(0)
        for piece in group:
            pixels = np.empty((len(piece.actions) + 1, size, size, 3), np.uint8)
            for number, picture in enumerate(pixels, piece.first):
                while read <= number:  # the frame that two pieces share was read before
                    frame, read = next(frames), read + 1
                picture[:] = fit(frame, size)
            yield pixels


def _frames(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a file, one after the other, uint8 `[h, w, 3]`."""
    with _reading(path), zipfile.ZipFile(path) as archive, _pictures(archive) as file:
        (frames, *shape), _ = _header(file)
        for _ in range(frames):
            data = file.read(math.prod(shape))
            if len(data) < math.prod(shape):
                raise EOFError("it ends within a picture")
            yield np.frombuffer(data, np.uint8).reshape(shape)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Makes what a bad file raises a `BadInput`."""
    if not path.is_file():
        raise BadInput(f"no recording at {path}", expected="an .npz file with pixels and actions")
    try:
        yield
    except BadInput:
        raise
    except (KeyError, OSError, ValueError, TypeError, AttributeError, *DAMAGED) as error:
        expected = "an .npz file with pixels and actions"
        raise BadInput(f"{path} is no recording", expected=expected, got=str(error)) from None


def _pictures(archive: zipfile.ZipFile) -> IO[bytes]:
    """The open member of a file that holds its pictures."""
    names = set(archive.namelist())
    name = next((name for name in PICTURES if f"{name}.npy" in names), PICTURES[0])
    return archive.open(f"{name}.npy")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and kind of the array that begins here; `file` then stands at its numbers."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, turned, dtype = read(file)
    if turned:
        raise ValueError("its pictures lie in Fortran's order")
    return shape, dtype


def _lasts(path: Path, ends: np.ndarray, frames: int) -> list[int]:
    """Numbers of the last frame of every episode; the file's last frame ends one, whatever it says."""
    if ends.shape != (frames,) or ends.dtype.kind not in "bfiu":
        got = f"{ends.dtype} {list(ends.shape)}"
        raise BadInput(f"{path}: terminals are off", expected=f"[{frames}], true or false", got=got)
    return sorted({*np.flatnonzero(ends).tolist(), frames - 1})


def _numbers(path: Path, name: str, found: np.ndarray | None, lengths: tuple[int, ...]) -> np.ndarray:
    """`found` as float32, a row a frame; `BadInput` if it is missing, or of another shape, or not finite."""
    if found is None:
        raise BadInput(f"{path} has no {name}", expected="pixels and actions")
    if found.ndim != 2 or len(found) not in lengths or not found.shape[1]:
        expected = f"[{' or '.join(str(length) for length in lengths)}, at least 1]"
        raise BadInput(f"{path}: {name} are off", expected=expected, got=str(list(found.shape)))
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise BadInput(f"{path}: {name} are off", expected="finite numbers", got=str(found.dtype))
    return found.astype(np.float32)


def _check_alike(found: Sequence[Take]) -> None:
    """Raises `BadInput` where there are none, or they differ in how many actions or quantities they have."""
    if not found:
        raise BadInput("import: no files", expected="one .npz file at least")
    shapes = {(take.actions.shape[1], take.state.shape[1]): take.path for take in found}
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        expected, got = (f"{a} actions and {n} of state in {path}" for (a, n), path in ((one, first), (other, second)))
        raise BadInput("import: files differ", expected=expected, got=got)
