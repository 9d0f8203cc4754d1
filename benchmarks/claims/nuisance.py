"""What a camera sees beside the task, in five kinds and severities; drawn on pictures, so that physics never knows.

A stream gives every picture its own disturbance and tells the numbers behind it, for probes to look for. It runs on
from picture to picture and never repeats; a goal's picture has one of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from envs.appearance import floor
from planner.errors import BadInput

Picture = np.ndarray
"""`[size, size, 3]`, uint8 outside and float64 inside of a stream."""

SEVERITIES = range(5)
"""0 leaves pictures alone, bit for bit."""


class Stream:
    """Disturbs pictures one after the other.

    Args:
        kind: name in `KINDS`.
        severity: 0 to 4.
        seed: the same seed and pictures give the same stream.

    Attributes:
        variables: the numbers behind the last disturbance, `[v]`.
    """

    def __init__(self, kind: str, severity: int, seed: int | list[int] = 0) -> None:
        if kind not in KINDS:
            raise BadInput("unknown nuisance", expected=" or ".join(KINDS), got=repr(kind))
        if severity not in SEVERITIES:
            raise BadInput("nuisance: severity is off", expected="0 to 4", got=str(severity))
        self.kind, self.severity, self.rng = kind, severity, np.random.default_rng(seed)
        self.phase = self.rng.uniform(0, 2 * np.pi, (12, 8))  # of whatever moves
        self.speed = self.rng.uniform(0.05, 0.25, (12, 8)) * self.rng.choice([-1, 1], (12, 8))  # radians a picture
        self.variables = np.zeros(0)

    def __call__(self, picture: Picture) -> Picture:
        """The next picture of the stream; of severity 0 the one given."""
        if self.severity == 0:
            return picture
        self.phase += self.speed * self.rng.uniform(0.5, 1.5, self.phase.shape)  # so that no two periods agree
        changed, variables = KINDS[self.kind](self, picture.astype(np.float64))
        self.variables = np.asarray(variables)
        return np.clip(changed.round(), 0, 255).astype(np.uint8)


def disturb(env: Any, kind: str, severity: int, seed: int | list[int] = 0) -> Stream:
    """Passes every picture of `env` through a stream from now on, those of goals too; returns the stream."""
    stream, render = Stream(kind, severity, seed), env.camera.render
    env.camera.render = lambda data: stream(render(data))
    return stream


def _noise(stream: Stream, picture: Picture) -> tuple[Picture, Any]:
    """Sensor noise: normal, of 8, 16, 32 or 64 grey levels, give or take half."""
    deviation = 4 * 2**stream.severity * stream.rng.uniform(0.5, 1.5)
    return picture + stream.rng.normal(scale=deviation, size=picture.shape), [deviation]


def _video(stream: Stream, picture: Picture) -> tuple[Picture, Any]:
    """A film on the floor: coloured waves that drift and turn, mixed in by a fifth to four fifths."""
    rows, columns = _grid(len(picture) // 2)
    film = np.zeros((*rows.shape, 3))
    for wave in stream.phase[:6]:
        lengths = 2 * np.pi * 2 * np.cos(wave[:2])  # up to two waves a picture
        crest = np.cos(lengths[0] * columns + lengths[1] * rows + 3 * wave[2])
        film += crest[..., None] * np.cos(wave[3:6])
    film = (127.5 + 127.5 * np.tanh(film)).repeat(2, 0).repeat(2, 1)
    share = 0.2 * stream.severity * floor(picture)
    return picture + share * (film - picture), film[:: len(film) // 4, :: len(film) // 4].mean((0, 1))


def _distractors(stream: Stream, picture: Picture) -> tuple[Picture, Any]:
    """One, two, four or eight discs of changing colours that move before the camera, as large as a robot."""
    rows, columns = _grid(len(picture))
    picture, places = picture.copy(), 0.5 + 0.45 * np.cos(stream.phase[:8, :2])
    for (x, y), colour in zip(places[: 2 ** (stream.severity - 1)], stream.phase[:8, 2:5], strict=False):
        picture[(columns - x) ** 2 + (rows - y) ** 2 < 0.045**2] = 127.5 + 127.5 * np.cos(colour)
    return picture, places[0]


def _light(stream: Stream, picture: Picture) -> tuple[Picture, Any]:
    """Light and its colour come and go, by 15 to 60 per cent."""
    gain = 1 + 0.15 * stream.severity * np.cos(stream.phase[0, 0])
    tint = 1 + 0.05 * stream.severity * np.cos(stream.phase[0, 1:4])
    return picture * gain * tint, [gain]


def _television(stream: Stream, picture: Picture) -> tuple[Picture, Any]:
    """A screen in the floor, 12 to 36 pixels of 64 wide, that shows other coloured blocks in every picture."""
    size = len(picture)
    wide = size * (1 + 2 * stream.severity) // 16
    blocks = stream.rng.uniform(0, 255, (16, 16, 3))
    screen = blocks.repeat(-(-size // 16), 0).repeat(-(-size // 16), 1)[:wide, :wide]
    corner = np.s_[size // 16 : size // 16 + wide, size // 16 : size // 16 + wide]
    there = floor(picture)[corner]
    changed = picture.copy()
    changed[corner] += there * (screen - changed[corner])
    return changed, screen.mean((0, 1))


@cache
def _grid(size: int) -> np.ndarray:
    """Rows and columns of a picture, as shares of its size, `[2, size, size]`."""
    return np.mgrid[:size, :size] / size


KINDS: dict[str, Callable[[Stream, Picture], tuple[Picture, Any]]] = {
    "noise": _noise,
    "video": _video,
    "distractors": _distractors,
    "light": _light,
    "television": _television,
}
