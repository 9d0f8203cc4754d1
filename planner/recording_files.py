"""What lies in files of recordings, `.npz` and HDF5: pictures, which are read one by one, and what goes with them.

Arrays are called what they are called elsewhere:

- `pixels` or `observations`, uint8 `[N, h, w, 3]` or `[N, 3, h, w]`: what the camera saw, at equal intervals, red
  first; pictures of another name, or of one of several cameras, are named.
- `actions` or `action`, `[N, a]`, or `[N - 1, a]` where it is one episode: what was then done, in the robot's own
  units. The action at an episode's last frame leads to nothing that was seen, and is not read.
- where episodes end, if there are several, one after the other: `terminals` or `timeouts`, `[N]`, true at the last
  frame of each; or the number of the episode at each frame, `episode_idx` or `episode_index`, `[N]`; or how many frames
  each has, `ep_len`, `[episodes]`.
- `state` or `states`, `[N, n]`: physical quantities, for probes alone; may be left out.

So OGBench's visual datasets (`.npz`) are read as they are. An HDF5 file has these arrays at its root, as those of
stable-worldmodel, or in a group for each episode, as those of robomimic, with the cameras anywhere below it.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import BadInput

PICTURES = ("pixels", "observations")
ACTIONS = ("actions", "action")
STATE = ("state", "states")
ENDS = ("terminals", "timeouts")
NUMBERS = ("episode_idx", "episode_index")
LENGTHS, FIRSTS = "ep_len", "ep_offset"
OTHER_ENDS = (
    *("dones", "done", "terminated", "terminations", "truncated", "truncations", "truncateds"),
    *("is_first", "is_last", "is_terminal", "episode_starts", "episode_ends"),
)
"""What says elsewhere where episodes begin or end: what of that `ENDS` do not say would make two of them one."""
READ = {*ACTIONS, *ENDS, *NUMBERS, LENGTHS, FIRSTS, *OTHER_ENDS}
"""Arrays that are read whole, beside the state."""
ARRAYS = "an .npz or HDF5 file with pixels and actions"
DAMAGED = (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and h5py let through of a file that is empty, torn, or packed or locked in a way that they do not know."""
HDF5 = b"\x89HDF\r\n\x1a\n"
AT_ONCE, MOST_AT_ONCE = 32, 2048
"""Pictures of an HDF5 file that are read together, and most of them where they are packed so."""
LOOKED_AT = 16
"""Pictures of an HDF5 file that its sum is of: it has no checksum of its own."""


@dataclass(frozen=True)
class Recorded:
    """One recording: a file, or an episode's group in it.

    Attributes:
        path: of the file.
        name: of its pictures there.
        shape: how many, height and width.
        sum: checksum of these; of an HDF5 file's of some of them.
        found: what goes with them, those of `READ` that there are and the state that was asked for.
    """

    path: Path
    name: str
    shape: tuple[int, int, int]
    sum: int
    found: Mapping[str, np.ndarray]

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"{self.path}, {self.name}" if "/" in self.name else str(self.path)

    def actions(self, lasts: Sequence[int]) -> np.ndarray:
        """What was done at each frame, `[N, a]` or `[N - 1, a]`, float32; 0 at `lasts`, whatever is there."""
        frames = self.shape[0]
        several = {*ENDS, *NUMBERS, LENGTHS} & set(self.found)
        return _numbers(self, ACTIONS, (frames,) if several else (frames, frames - 1), unread=lasts)

    def state(self) -> np.ndarray:
        """The state at each frame, `[N, n]`, float32."""
        return _numbers(self, STATE, (self.shape[0],))

    def lasts(self) -> list[int]:
        """Numbers of the last frame of every episode; the file's last frame ends one, whatever it says."""
        last = np.arange(self.shape[0]) == self.shape[0] - 1
        ended = np.logical_or.reduce([last, *_flagged(self), *_numbered(self), *_counted(self)])
        if not ({*NUMBERS, LENGTHS} & set(self.found)):
            _check_other_ends(self, ended)
        return np.flatnonzero(ended).tolist()


def recorded(path: Path, state: bool = False, camera: str | None = None) -> list[Recorded]:
    """The recordings in a file; pictures are not read yet, nor is a state unless it is asked for.

    Args:
        path: of the file.
        state: read that, too.
        camera: name of the pictures in the file, of HDF5 the last part of it is enough; by default one of `PICTURES`,
            or in HDF5 the only ones.

    Raises:
        BadInput: the file is missing or damaged, or has no pictures or several.
    """
    wanted = READ | (set(STATE) if state else set())
    with _reading(path):
        return _in_hdf5(path, wanted, camera) if _is_hdf5(path) else [_in_npz(path, wanted, camera)]


def frames(path: Path, name: str) -> Iterator[np.ndarray]:
    """The pictures called `name` in a file, one after the other, uint8 `[h, w, 3]`."""
    with _reading(path):
        for picture in (_hdf5_pictures if _is_hdf5(path) else _npz_pictures)(path, name):
            yield picture if picture.shape[-1] == 3 else picture.transpose(1, 2, 0)


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Makes what a bad file raises a `BadInput`."""
    if not path.is_file():
        raise BadInput(f"no recording at {path}", expected=ARRAYS)
    try:
        yield
    except BadInput:
        raise
    except (KeyError, OSError, ValueError, TypeError, AttributeError, *DAMAGED) as error:
        do = "pip install hdf5plugin, if it was packed by a filter of that" if "plugin" in str(error) else ""
        raise BadInput(f"{path} is no recording", expected=ARRAYS, got=str(error), do=do) from None


def _seen(where: str, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, int, int]:
    """How many pictures of an array there are, height and width; `BadInput` if it holds none."""
    if dtype == np.uint8 and len(shape) == 4 and min(shape) >= 1 and 3 in (shape[-1], shape[1]):
        return (shape[0], *(shape[1:3] if shape[-1] == 3 else shape[2:]))  # type: ignore[return-value]
    do, got = "save them as bytes, height before width before red, green and blue", f"{dtype} {list(shape)}"
    raise BadInput(f"{where}: pictures are off", expected="uint8 [N, h, w, 3]", got=got, do=do)


# .npz --------------------------------------------------------------------------------------------------------------


def _in_npz(path: Path, wanted: set[str], camera: str | None) -> Recorded:
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        asked = PICTURES if camera is None else (camera,)
        if (name := next((name for name in asked if name in names), None)) is None:
            raise BadInput(f"{path} has no pictures", expected=" or ".join(asked), got=", ".join(names) or "nothing")
        with archive.open(f"{name}.npy") as file:
            (shape, dtype), checksum = _header(file), archive.getinfo(f"{name}.npy").CRC
    with np.load(path, allow_pickle=False) as arrays:
        found = {key: arrays[key] for key in set(arrays) & wanted}
    return Recorded(path, name, _seen(str(path), shape, dtype), checksum, found)


def _npz_pictures(path: Path, name: str) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        (count, *shape), _ = _header(file)
        for _ in range(count):
            data = file.read(math.prod(shape))
            if len(data) < math.prod(shape):
                raise EOFError("it ends within a picture")
            yield np.frombuffer(data, np.uint8).reshape(shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and kind of the array that begins here; `file` then stands at its numbers."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, turned, dtype = read(file)
    if turned:
        raise ValueError("pictures in Fortran's order; save np.ascontiguousarray of them")
    return shape, dtype


# HDF5 --------------------------------------------------------------------------------------------------------------


def _h5py() -> Any:
    """The library that reads HDF5, with the filters of hdf5plugin where that is installed."""
    try:
        import h5py
    except ImportError:
        do = "pip install 'jepa-mpc[hdf5]'"
        raise BadInput("HDF5 files are read by h5py, which is not installed", do=do) from None
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401
    return h5py


def _in_hdf5(path: Path, wanted: set[str], camera: str | None) -> list[Recorded]:
    """Of the file's root where that has actions, else of each group that has, in the order of the numbers in names."""
    h5py, found = _h5py(), []
    with h5py.File(path) as file:
        if not (groups := _episodes(h5py, file)):
            raise BadInput(f"{path} has no actions", expected=ARRAYS, got=", ".join(file) or "nothing")
        for group in sorted(groups, key=lambda group: _numbers_in(group.name)):
            pictures = _camera(h5py, path, group, camera)
            shape = _seen(f"{path}, {pictures.name[1:]}", pictures.shape, pictures.dtype)
            read = wanted if group is file else wanted & {*ACTIONS, *STATE}  # a group is one episode, whatever it says
            arrays = {key: group[key][()] for key in read & set(group)}
            found.append(Recorded(path, pictures.name[1:], shape, _sum(pictures), arrays))
    return found


def _episodes(h5py: Any, file: Any) -> list[Any]:
    """The groups that have actions, the root if it is one. What lies below one is of it, as the action before among
    what was observed."""
    groups: list[Any] = []

    def keep(name: str, one: Any) -> None:
        below = bool(groups) and one.name.startswith(groups[-1].name.rstrip("/") + "/")  # parents come right before
        if isinstance(one, h5py.Group) and not below and any(isinstance(one.get(a), h5py.Dataset) for a in ACTIONS):
            groups.append(one)

    keep("", file)
    file.visititems(keep)
    return groups


def _sum(pictures: Any) -> int:
    """Checksum of `LOOKED_AT` of them, and of how many there are."""
    checksum = zlib.crc32(repr(pictures.shape).encode())
    for number in np.unique(np.linspace(0, len(pictures) - 1, LOOKED_AT).astype(int)):
        checksum = zlib.crc32(pictures[number].tobytes(), checksum)
    return checksum


def _numbers_in(name: str) -> list[tuple[int, str]]:
    """Sorts demo_2 before demo_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _camera(h5py: Any, path: Path, group: Any, camera: str | None) -> Any:
    """The pictures of an episode: those that `camera` names, or the only ones, or those that are called as ours are."""
    there: dict[str, Any] = {}

    def keep(name: str, one: Any) -> None:
        picture = isinstance(one, h5py.Dataset) and one.dtype == np.uint8 and one.ndim == 4
        if picture and not any(part.startswith("next_") for part in name.split("/")):  # what is seen a step later
            there[name] = one

    group.visititems(keep)
    where, names = f"{path}, {group.name[1:]}".removesuffix(", "), ", ".join(there)
    asked = [name for name in there if camera is None or camera in (name, name.rpartition("/")[2])]
    asked = [camera] if camera in there else asked
    if camera is not None and len(asked) != 1:
        told = "several cameras are called so" if asked else "no such camera"
        raise BadInput(f"{where}: {told}", expected=names or "uint8 [N, h, w, 3]", got=camera)
    if not there:
        raise BadInput(f"{where} has no pictures", expected="uint8 [N, h, w, 3]", got=", ".join(group) or "nothing")
    ours = asked if len(asked) == 1 else [name for name in PICTURES if name in there]
    if not ours:
        raise BadInput(f"{where} has several cameras", expected="one", got=names, do="choose one by --camera")
    return there[ours[0]]


def _hdf5_pictures(path: Path, name: str) -> Iterator[np.ndarray]:
    with _h5py().File(path) as file:
        pictures = file[name]
        # Of chunks as a whole, where these are not too large: what is packed is unpacked again for each part of it.
        packed = pictures.chunks[0] if pictures.chunks else 1
        at_once = packed if AT_ONCE < packed <= MOST_AT_ONCE else AT_ONCE
        for first in range(0, len(pictures), at_once):
            yield from pictures[first : first + at_once]


# Where episodes end, and numbers -----------------------------------------------------------------------------------


def _flagged(one: Recorded) -> Iterator[np.ndarray]:
    """By what is true at their last frames."""
    for name in (name for name in ENDS if name in one.found):
        found = one.found[name]
        if found.shape != one.shape[:1] or found.dtype.kind not in "bfiu":
            got = f"{found.dtype} {list(found.shape)}"
            raise BadInput(f"{one.where}: {name} are off", expected=f"[{one.shape[0]}], true or false", got=got)
        if not np.isin(found, (0, 1)).all():  # numbers of episodes had each of their frames end one
            got = f"{found[~np.isin(found, (0, 1))][0]:g}"
            raise BadInput(f"{one.where}: {name} are off", expected="true or false, 1 or 0", got=got)
        yield found.astype(bool)


def _numbered(one: Recorded) -> Iterator[np.ndarray]:
    """By the number of its episode that each frame has."""
    for name in (name for name in NUMBERS if name in one.found):
        found = one.found[name].reshape(-1)
        if found.shape != one.shape[:1] or found.dtype.kind not in "iuf":
            got = f"{found.dtype} {list(one.found[name].shape)}"
            raise BadInput(f"{one.where}: {name} is off", expected=f"[{one.shape[0]}], whole numbers", got=got)
        yield np.append(found[1:] != found[:-1], True)


def _counted(one: Recorded) -> Iterator[np.ndarray]:
    """By how many frames each has."""
    if (lengths := one.found.get(LENGTHS)) is None:
        if FIRSTS in one.found:
            raise BadInput(f"{one.where}: {FIRSTS} says where episodes begin", expected=LENGTHS, got=f"{FIRSTS} alone")
        return
    if lengths.dtype.kind not in "iu":
        got = str(lengths.dtype)
        raise BadInput(f"{one.where}: {LENGTHS} is off", expected="lengths of episodes, whole numbers", got=got)
    ends = np.cumsum(lengths.reshape(-1).astype(np.int64))
    if not len(ends) or ends[-1] != one.shape[0] or lengths.min() < 1:
        expected = f"lengths of episodes, {one.shape[0]} frames in all"
        got = f"{lengths.dtype}, {int(ends[-1]) if len(ends) else 0} in all"
        raise BadInput(f"{one.where}: {LENGTHS} is off", expected=expected, got=got)
    firsts = one.found.get(FIRSTS, ends - lengths.reshape(-1)).reshape(-1)
    if not np.array_equal(firsts, ends - lengths.reshape(-1)):
        expected = "episodes one after the other"
        raise BadInput(f"{one.where}: {FIRSTS} is off", expected=expected, got=f"{firsts[:4].tolist()} ...")
    ended = np.zeros(one.shape[0], bool)
    ended[ends - 1] = True
    yield ended


def _check_other_ends(one: Recorded, ended: np.ndarray) -> None:
    """Raises `BadInput` where an array that is not read says of another frame that it ends an episode."""
    for name in (name for name in OTHER_ENDS if name in one.found):
        marked = one.found[name]
        if marked.shape != ended.shape or marked.dtype.kind not in "bfiu" or (marked.astype(bool) & ~ended).any():
            do = "put true into terminals at the last frame of each episode, and leave it out"
            raise BadInput(f"{one.where}: {name} says where episodes end", expected=" or ".join(ENDS), got=name, do=do)


def _numbers(one: Recorded, names: Sequence[str], lengths: tuple[int, ...], unread: Sequence[int] = ()) -> np.ndarray:
    """An array as float32, a row a frame, 0 in those `unread`; `BadInput` if it is missing, or of another shape, or not
    finite."""
    name = next((name for name in names if name in one.found), names[0])
    if (found := one.found.get(name)) is None:
        raise BadInput(f"{one.where} has no {name}", expected=ARRAYS)
    if found.ndim != 2 or len(found) not in lengths or not found.shape[1]:
        expected, got = f"[{' or '.join(str(length) for length in lengths)}, at least 1]", str(list(found.shape))
        do = f"save {name}[:, None]" if found.ndim == 1 else ""
        raise BadInput(f"{one.where}: {name} are off", expected=expected, got=got, do=do)
    if found.dtype.kind not in "fiu":
        raise BadInput(f"{one.where}: {name} are off", expected="numbers", got=str(found.dtype))
    with np.errstate(over="ignore"):
        numbers = found.astype(np.float32)
    numbers[[row for row in unread if row < len(numbers)]] = 0
    if not np.isfinite(numbers).all():
        raise BadInput(f"{one.where}: {name} are off", expected="finite numbers", got="NaN or inf")
    return numbers
