"""Episodes on disk: one memory-mapped TensorDict a dataset, written a whole episode at a time, each with a checksum.

A row counts only once its checksum is there, and the checksum is written last: a process killed in the middle of an
episode loses that episode and nothing else, and collection goes on with the rows that are missing.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import zlib
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tensordict import MemoryMappedTensor, TensorDict
from torch import Tensor

from .actions import ActionSpec
from .errors import BadInput
from .symmetry import Symmetry
from .tasks import is_recorded

FORMAT = 1
KEYS = ("pixels", "actions", "state")
CAMERA = "camera"
"""What stands in place of a rendering backend where pictures were brought along."""
CAMERA_NOISE = 16
"""Levels of 255 that a camera's pictures may differ by with nothing changed."""


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset is, kept beside it in `dataset.json`.

    Attributes:
        task: name of the task.
        episodes: rows.
        steps: L, environment steps an episode; there are L + 1 frames.
        size: height and width of the pictures, pixels.
        state_names: the numbers in the physical state (for probes; never an input of the model).
        state_units: their units.
        seed: episode k was made with the seed sequence (seed, k).
        renderer: rendering backend of every picture.
        versions: versions of the packages that made it.
        action_low, action_high, action_units, block: the `ActionSpec`.
        policy: what acted: a task's `play_name`, "with lulls" if it had these, or "planner", the start of its
            checkpoint's SHA-256 and of its settings', its goals, steps a plan, and how long it was relieved.
        format: version of this layout.
        recordings: rows of each recording, one after the other; none where each has but one.
    """

    task: str
    episodes: int
    steps: int
    size: int
    state_names: tuple[str, ...]
    state_units: tuple[str, ...]
    seed: int
    renderer: str
    versions: dict[str, str]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_units: tuple[str, ...]
    block: int
    policy: str = "play"
    format: int = FORMAT
    recordings: tuple[int, ...] = ()

    @property
    def action_spec(self) -> ActionSpec:
        """Bounds, units and block of the actions."""
        return ActionSpec(self.action_low, self.action_high, self.action_units, self.block)

    def continues(self, row: int) -> bool:
        """Whether a row is of the same recording as the one before, and may share steps with it."""
        return bool(self.recordings) and row not in (0, *accumulate(self.recordings))


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the whole new one, also after a power cut."""
    write_together({Path(path): content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """As `write_atomically`, several files: none gets its name, in this order, before all of them are on the disk."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, content in contents.items():
            with temporary[path].open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for path, whole in temporary.items():
            os.replace(whole, path)
    except BaseException:
        for part in temporary.values():
            part.unlink(missing_ok=True)  # half of it would take up what is left of a disk that is full
        raise


class TooFewRows(BadInput):
    """Nothing is left to train on, or to look at, once some rows are held out."""

    def __init__(self, store: EpisodeStore) -> None:
        pieces, rows = bool(store.info.recordings), store.info.episodes
        if rows >= (3 if pieces else 2):
            super().__init__(f"dataset {store.path}: all of it is held out", got=f"{rows} rows", do="hold out less")
            return
        expected = "three rows, as one beside those held out is left out" if pieces else "at least 2"
        do = "record more, or import it with fewer --steps" if pieces else "make more"
        super().__init__(f"dataset {store.path} has too few episodes", expected=expected, got=str(rows), do=do)


class EpisodeStore:
    """A dataset directory: `dataset.json` and a TensorDict of memory maps, batch `[episodes]`.

    `pixels` uint8 `[episodes, L + 1, size, size, 3]`, `actions` float32 `[episodes, L, a]` (physical units), `state`
    float32 `[episodes, L + 1, n]`, `checksum` int64 `[episodes]` (0 where the episode is not there yet).
    """

    def __init__(self, path: Path | str, info: DatasetInfo, data: TensorDict) -> None:
        self.path, self.info, self.data = Path(path), info, data

    @classmethod
    def create(cls, path: Path | str, info: DatasetInfo) -> EpisodeStore:
        """Lays out an empty dataset at `path` (sparse until episodes come)."""
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        n, frames, size = info.episodes, info.steps + 1, info.size
        layout = TensorDict(
            {
                "pixels": torch.zeros((), dtype=torch.uint8).expand(n, frames, size, size, 3),
                "actions": torch.zeros(()).expand(n, info.steps, len(info.action_low)),
                "state": torch.zeros(()).expand(n, frames, len(info.state_names)),
                "checksum": torch.zeros((), dtype=torch.int64).expand(n),
            },
            batch_size=[n],
        )
        # Rows of an earlier dataset, whose `dataset.json` is gone, would pass for finished ones.
        for key in (*KEYS, "checksum"):
            (path / "episodes" / f"{key}.memmap").unlink(missing_ok=True)
        layout.memmap_like(path / "episodes")
        write_atomically(path / "dataset.json", json.dumps(asdict(info), indent=1))
        return cls.open(path)

    @classmethod
    def claim(cls, path: Path | str, info: DatasetInfo) -> EpisodeStore:
        """The dataset at `path`, which is made if there is none; `BadInput` if there is another."""
        if not (Path(path) / "dataset.json").exists():
            return cls.create(path, info)
        store = cls.open(path)
        _check_same(store.info, info, store.path)
        return store

    @classmethod
    def open(cls, path: Path | str) -> EpisodeStore:
        """Opens a dataset; `BadInput` where it is missing, of another format, or its files were cut short."""
        path = Path(path)
        info = _read_info(path)
        frames = info.episodes, info.steps + 1
        layout: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "pixels": ((*frames, info.size, info.size, 3), torch.uint8),
            "actions": ((info.episodes, info.steps, len(info.action_low)), torch.float32),
            "state": ((*frames, len(info.state_names)), torch.float32),
            "checksum": ((info.episodes,), torch.int64),
        }
        data = {}
        for key, (shape, dtype) in layout.items():
            file, size = path / "episodes" / f"{key}.memmap", math.prod(shape) * dtype.itemsize
            found = file.stat().st_size if file.exists() else 0
            if found != size:
                raise BadInput(
                    f"dataset {path} is damaged: {file.name}",
                    expected=f"{size} bytes",
                    got=str(found),
                    do="remove it, and make it again",
                )
            # `dataset.json` says all there is to know; TensorDict's own meta.json, which may be damaged, is not read.
            data[key] = MemoryMappedTensor.from_filename(file, dtype, torch.Size(shape))
        return cls(path, info, TensorDict(data, batch_size=[info.episodes]))

    def write(self, row: int, pixels: np.ndarray, actions: np.ndarray, state: np.ndarray) -> None:
        """Stores one whole episode; the checksum goes in last, after the rest reached the disk's cache."""
        episode = {"pixels": pixels, "actions": actions.astype(np.float32), "state": state.astype(np.float32)}
        for key, value in episode.items():
            self.data[key][row] = torch.from_numpy(value)
        self.data["checksum"][row] = _checksum(*episode.values())

    def forget(self, rows: Sequence[int]) -> None:
        """Takes episodes for ones that are not there yet."""
        self.data["checksum"][torch.tensor(rows)] = 0

    def missing(self) -> list[int]:
        """Rows that no finished episode fills yet."""
        return torch.nonzero(self.data["checksum"] == 0).flatten().tolist()

    def verify(self, task: str | None = None) -> None:
        """Reads every episode and compares its checksum; `BadInput` names the first row that is missing or altered.

        A dataset of another task than `task`, if that is given, is `BadInput` too.
        """
        if rows := self.missing():
            raise BadInput(
                f"dataset {self.path} is not complete",
                expected=f"{self.info.episodes} episodes",
                got=str(self.info.episodes - len(rows)),
                do="run the same command that began it again: it goes on where it stopped",
            )
        arrays = {key: self.data[key].numpy() for key in KEYS}
        checksums = self.data["checksum"].tolist()
        for row in range(self.info.episodes):
            if _checksum(*(arrays[key][row] for key in KEYS)) != checksums[row]:
                raise BadInput(f"dataset {self.path}: episode {row} was altered", do="remove it, and make it again")
        if task not in (None, self.info.task):
            raise BadInput(f"dataset {self.path} is of another task", expected=str(task), got=self.info.task)

    def check_fits(self, size: int, action: ActionSpec) -> None:
        """Raises `BadInput` where a model of pictures of `size` pixels and of `action` was meant for other episodes."""
        wanted, found = {"size": size} | asdict(action), {"size": self.info.size} | asdict(self.info.action_spec)
        if differ := [name for name in wanted if wanted[name] != found[name]]:
            # Where there is a task its actions are the task's, and only the size can be asked for.
            names = list(wanted) if is_recorded(self.info.task) else [name for name in differ if name == "size"]
            values = (wanted[name] if isinstance(wanted[name], tuple) else (wanted[name],) for name in names)
            options = " ".join(f"--{name} {shlex.join(map(str, own))}" for name, own in zip(names, values, strict=True))
            do = f"import it with {options}" if self.info.renderer == CAMERA and names else ""
            expected, got = (f"{differ[0]} {said[differ[0]]}" for said in (wanted, found))
            raise BadInput(f"dataset {self.path} does not fit the model", expected=expected, got=got, do=do)


def _check_same(found: DatasetInfo, wanted: DatasetInfo, path: Path) -> None:
    keys = ("task", "episodes", "steps", "size", "seed", "renderer", "versions", "block", "policy", "recordings")
    for key in (*keys, "action_low", "action_high", "action_units", "state_names", "state_units"):
        if (was := getattr(found, key)) != (want := getattr(wanted, key)):
            raise BadInput(
                f"dataset {path} was made with another {key}",
                expected=str(want)[:200],
                got=str(was)[:200],
                do="choose another --out, or remove it",
            )


def _read_info(path: Path) -> DatasetInfo:
    file = path / "dataset.json"
    if not file.is_file():
        raise BadInput(
            f"no dataset at {path}",
            expected=str(file),
            do="make one: `jepa-mpc collect`, or `import` where others recorded it",
        )
    try:
        raw = json.loads(file.read_text())
        known = {field.name for field in fields(DatasetInfo)}
        if raw.get("format") != FORMAT:
            raise BadInput("format is off", expected=str(FORMAT), got=str(raw.get("format")))
        if unknown := set(raw) - known:
            raise BadInput("unknown keys in dataset.json", got=", ".join(sorted(unknown)))
        for key in ("episodes", "steps", "size", "seed", "block"):
            if type(raw.get(key)) is not int or raw[key] < (key != "seed"):
                raise BadInput(f"{key} is off in dataset.json", expected="a whole number", got=repr(raw.get(key)))
        for key in ("state_names", "state_units", "action_low", "action_high", "action_units"):
            raw[key] = tuple(raw.get(key))  # type: ignore[arg-type]  # None is a TypeError, as wanted
        raw["recordings"] = tuple(raw.get("recordings", ()))
        if (pieces := raw["recordings"]) and (sum(pieces) != raw["episodes"] or min(pieces) < 1):
            raise BadInput("recordings are off in dataset.json", expected=f"{raw['episodes']} rows", got=str(pieces))
        info = DatasetInfo(**raw)
        info.action_spec  # noqa: B018  # judges the bounds
        return info
    except BadInput as error:
        raise BadInput(f"dataset {path}: {error}") from error
    except (json.JSONDecodeError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is damaged", got=str(error), do="make the dataset again") from error


def _checksum(*arrays: np.ndarray) -> int:
    """CRC-32 of the arrays' bytes, plus one so that 0 can mean "not there"."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc + 1


def split_rows(info: DatasetInfo, held_out: float) -> tuple[Tensor, Tensor]:
    """Rows for training and for validation, without a step in common; the last `held_out` share validates.

    Of rows that are pieces of recordings it is the last recordings, as near to that share as they come, where these are
    half of it at least, and not both more than twice as much and more than a fifth of all. Else it is that share, and
    the row before it may be in neither.
    """
    n, share = info.episodes, max(1, round(info.episodes * held_out))
    return parted(info, torch.arange(n), n - share, (n - max(2 * share, n / 5), n - share / 2))


def parted(info: DatasetInfo, rows: Tensor, wanted: int, between: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Consecutive rows in two parts without a step in common, the first of them `wanted` long.

    Of pieces of recordings they part where a recording ends, of such places `between` two the nearest. Where there is
    none a recording is parted, and as neighbours share steps, its row before that place is in neither.
    """
    firsts = [first - int(rows[0]) for first in accumulate(info.recordings[:-1])]
    places = [first for first in firsts if 0 < first < len(rows) and between[0] <= first <= between[1]]
    cut = min(places, key=lambda place: (abs(place - wanted), -place), default=wanted)
    end = cut - 1 if cut < len(rows) and info.continues(int(rows[cut])) else cut
    return rows[: max(0, end)], rows[cut:]


def halves(info: DatasetInfo, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Consecutive rows in two parts about as long, `parted` in their middle half where recordings end there."""
    n = len(rows)
    return parted(info, rows, (n + 1) // 2, (n / 4, 3 * n / 4))


class Windows:
    """Random sub-sequences at model-step spacing, drawn in a few flat gathers.

    Batch `i` is a pure function of `(seed, i)`: training that was interrupted sees the batches it would have seen.

    Args:
        store: the dataset.
        rows: episodes to draw from, `[n]`.
        frames: F, frames of a window, `block` environment steps apart.
        batch: windows a batch.
        seed: any integer >= 0.
        moving: share of windows drawn in proportion to how much of the picture changes in them, 0 to 1. Where little
            happens most of the time, as before a pusher reaches its block, uniform windows mostly teach stillness.
        latents: of every frame of the dataset, `[episodes x (L + 1), D]`; batches then hold `latents` `[B, F, D]` in
            place of `pixels`.

    `under` gives the same windows as a symmetry of the task shows them.
    """

    def __init__(
        self,
        store: EpisodeStore,
        rows: Tensor,
        frames: int,
        batch: int,
        seed: int,
        moving: float = 0.0,
        latents: Tensor | None = None,
    ) -> None:
        self.info, self.rows, self.frames, self.batch, self.seed = store.info, rows, frames, batch, seed
        self.spec = store.info.action_spec
        span = (frames - 1) * self.spec.block
        if span > store.info.steps:
            raise BadInput(
                "windows are longer than the episodes", expected=f"at most {store.info.steps} steps", got=str(span)
            )
        if not len(rows):
            raise TooFewRows(store)
        self.starts = store.info.steps - span + 1
        # Flat views: gathering rows of a flat memory map is twenty times faster than indexing it in four dimensions.
        self.looks = store.data["pixels"].flatten(0, 1) if latents is None else latents
        self.key = "pixels" if latents is None else "latents"
        self.actions = store.data["actions"].flatten(0, 1)
        self.state = store.data["state"].flatten(0, 1)
        self.moving, self.stride = moving, 1
        self.symmetry: Symmetry | None = None
        self._cumulated = self._changes(store).cumsum(0) if moving else torch.zeros(0)

    def under(self, symmetry: Symmetry, seed: int, latents: Tensor | None = None) -> Windows:
        """Other windows of the same episodes, as `symmetry` shows them.

        Args:
            symmetry: of the task.
            seed: draws them.
            latents: where these windows are of latents: those of every `block`-th frame as `symmetry` shows it, from
                the first of each episode on, `[episodes x (L // block + 1), D]`. Windows then start at these frames
                alone, which encodes a `block`-th of the pictures and shows almost as much.

        Raises:
            BadInput: for latents where these windows are of pictures, or none where they are of latents, or another
                number of them.
        """
        expected = self.info.episodes * (self.info.steps // self.spec.block + 1) if self.key == "latents" else 0
        if (got := 0 if latents is None else len(latents)) != expected:
            do = "encode turned pictures, of every block-th frame, where windows are of latents, and give these"
            what = f"windows under a symmetry: these are of {self.key}"
            raise BadInput(what, expected=f"{expected} latents", got=str(got), do=do)
        turned = copy(self)
        turned.symmetry, turned.seed = symmetry, seed
        if latents is not None:
            turned.looks, turned.stride = latents, self.spec.block
            turned.starts = (self.starts - 1) // self.spec.block + 1
            if self.moving:
                changes = self._cumulated.diff(prepend=self._cumulated.new_zeros(1)).unflatten(0, (-1, self.starts))
                turned._cumulated = changes[:, :: turned.stride].flatten().cumsum(0)
        return turned

    def __len__(self) -> int:
        """Enough batches to draw every episode about eight times; more may be asked for."""
        return -(-8 * len(self.rows) // self.batch)

    def __getitem__(self, index: int) -> TensorDict:
        """Batch `index`: `pixels` `[B, F, size, size, 3]`, `actions` `[B, F-1, A]` in [-1, 1], `state` `[B, F, n]`,
        `episode` `[B, F]`, the row that a frame is of."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        row, start = self._draw(generator)
        length, block, shape = self.info.steps, self.spec.block, (self.batch, self.frames)
        first = start * self.stride
        marks = first + torch.arange(self.frames) * block  # [B, F], environment steps
        step = (row * length + first + torch.arange((self.frames - 1) * block)).flatten()
        seen = (row * (length // self.stride + 1) + marks // self.stride).flatten()
        state = self.state.index_select(0, (row * (length + 1) + marks).flatten()).view(*shape, -1)
        looks = self.looks.index_select(0, seen).view(*shape, *self.looks.shape[1:])
        physical = self.actions.index_select(0, step).view(self.batch, self.frames - 1, block, -1)
        if self.symmetry is not None:
            # Of recordings that somebody brought along nobody knows the state.
            state = self.symmetry.state(state) if state.shape[-1] else state
            physical = self.symmetry.action(physical)
            looks = self.symmetry.picture(looks) if self.key == "pixels" else looks  # latents are of turned pictures
        return TensorDict(
            {
                self.key: looks,
                "actions": self.spec.encode(physical),
                "state": state,
                "episode": row.expand(-1, self.frames),
            },
            batch_size=[self.batch],
        )

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Episodes and first steps of a batch of windows, `[B, 1]` each."""
        row = self.rows[torch.randint(len(self.rows), (self.batch, 1), generator=generator)]
        start = torch.randint(self.starts, (self.batch, 1), generator=generator)
        if not self.moving or not self._cumulated[-1]:
            return row, start
        chosen = torch.rand(self.batch, 1, generator=generator) < self.moving
        level = torch.rand(self.batch, 1, generator=generator, dtype=torch.float64) * self._cumulated[-1]
        window = torch.searchsorted(self._cumulated, level).clamp(max=len(self._cumulated) - 1)
        row = torch.where(chosen, self.rows[window // self.starts], row)
        return row, torch.where(chosen, window % self.starts, start)

    def _changes(self, store: EpisodeStore) -> Tensor:
        """Share of pixels that differ between the first and the last frame of every window, `[rows x starts]`.

        Of a camera's pictures, which are never twice the same, those count that differ by more than `CAMERA_NOISE`.
        """
        pixels, last = store.data["pixels"], self.info.steps + 1 - self.starts
        changes = torch.empty(len(self.rows), self.starts, dtype=torch.float64)
        for i, row in enumerate(self.rows.tolist()):
            episode = pixels[row]
            before, after = episode[: self.starts], episode[last:]
            noise = CAMERA_NOISE if self.info.renderer == CAMERA else 0
            differs = (torch.maximum(before, after) - torch.minimum(before, after) > noise).flatten(1)
            changes[i] = differs.double().mean(1)
        return changes.flatten()


class Mixture:
    """Batches from several datasets of one task, or several views of one, drawn from each and laid one after the other.

    Args:
        parts: windows of each, with the same number of frames.
    """

    def __init__(self, parts: Sequence[Windows]) -> None:
        self.parts = tuple(parts)

    def __len__(self) -> int:
        """Enough batches for every part."""
        return max(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> TensorDict:
        """Batch `index` of every part, concatenated; `episode` counts on from part to part."""
        batches, first = [], 0
        for part in self.parts:
            batch = part[index]
            batch["episode"] = batch["episode"] + first
            batches.append(batch)
            first += part.info.episodes
        return cast(TensorDict, torch.cat(batches))  # type: ignore[arg-type]
