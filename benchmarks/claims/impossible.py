"""Clips of play, the same clips made impossible, and the same clips looking otherwise, which is possible.

Everything is a function of a seed. An impossible clip is the possible one up to its event: pictures before step `event`
and actions before step `event` - 1 (the one that leads to that picture) are the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from envs.appearance import disguise
from planner.collect import play_episode
from planner.errors import BadInput

STEPS = 60
"""Environment steps of a clip."""
EVENTS = (20, 41)
"""An event happens in this range of steps: late enough for a model's history, early enough to be noticed."""
CLIP_STREAM = 6
"""First number of the seeds of clips that are evaluated; no training, calibration or start-goal pair has it."""
VISIBLE = 12
"""Pixels that have to change by 30 grey levels or more, in one picture at least, for an edit to count: an arm that is
frozen while it rests is not impossible."""
ATTEMPTS = 400
"""Draws of an episode, or of an edit, before the lack of one is an error."""
LOOKS = ("background", "objects", "lighting", "camera", "noise", "distractor")
"""The changes of appearance that are possible clips. Not whatever `envs` knows: rows of different dates compare."""
POSSIBLE = ("plain", "blocked", *(f"{name} {when}" for name in LOOKS for when in ("always", "switched")))
"""Kinds of clips in which nothing impossible happens."""

Simulate = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Film:
    """What a camera saw and what was done.

    Attributes:
        kind: what was done to it; one of `POSSIBLE`, or a physical kind.
        pixels: uint8 `[L + 1, size, size, 3]`.
        actions: `[L, a]`, physical units.
        states: `[L + 1, n]`, for tests and never for a scorer; of an edited clip those that were drawn.
        event: first step whose picture is, or may be, other than in the clip that it was made from.
    """

    kind: str
    pixels: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    event: int


@dataclass(frozen=True)
class Scene:
    """What impossible things can happen in a task.

    Attributes:
        moving: body that vanishes and that changes its mass.
        teleport: a state with the object elsewhere, from environment, state and noise.
        heavier: factor on its mass; 0 where the task has no such kind.
        walls: geoms that can be passed, by the start of their names; none where the task has none.
        inside: whether a position `[2]` is within one of these walls.
    """

    moving: tuple[str, ...]
    teleport: Callable[[Any, np.ndarray, np.random.Generator], np.ndarray]
    heavier: float = 0.0
    walls: tuple[str, ...] = ()
    inside: Callable[[np.ndarray], bool] = lambda position: False


def _disc_elsewhere(env: Any, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The disc at least 0.3 m away, as fast as before."""
    for _ in range(ATTEMPTS):
        position = env.sample_state(rng)[:2]
        if np.linalg.norm(position - state[:2]) >= 0.3:
            return np.concatenate([position, state[2:]])
    raise BadInput("no place to teleport to")


def _arm_elsewhere(env: Any, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Both joints of the arm at least half a radian away, as fast as before."""
    for _ in range(ATTEMPTS):
        angles = env.sample_state(rng)[:2]
        turn = np.abs((angles - state[:2] + np.pi) % (2 * np.pi) - np.pi)
        if turn.min() >= 0.5:
            return np.concatenate([angles, state[2:]])
    raise BadInput("no posture to teleport to")


def _block_elsewhere(env: Any, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The block at least 0.15 m away, where it touches nothing, at rest; the pusher stays."""
    for _ in range(ATTEMPTS):
        moved = state.copy()
        moved[2:5], moved[7:] = env.sample_state(rng)[2:5], 0
        if np.linalg.norm(moved[2:4] - state[2:4]) >= 0.15 and not _touched(env, moved, "block"):
            return moved
    raise BadInput("no place to teleport to")


def _touched(env: Any, state: np.ndarray, body: str) -> bool:
    """Whether anything overlaps `body`; leaves the simulation in `state`."""
    env.set_state(state)
    geoms = np.flatnonzero(env.model.geom_bodyid == env.model.body(body).id)
    return any(np.isin(contact.geom, geoms).any() and contact.dist < 0 for contact in env.data.contact[: env.data.ncon])


def _cube_elsewhere(env: Any, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The cube at least 0.1 m away on the table, not under the hand, at rest; the arm stays."""
    from envs.cube import hand_of

    for _ in range(ATTEMPTS):
        moved, drawn = state.copy(), env.sample_state(rng)
        moved[6:10], moved[16:] = drawn[6:10], 0
        far = np.linalg.norm(moved[6:8] - state[6:8]) >= 0.1
        if far and np.linalg.norm(moved[6:8] - hand_of(state)[:2]) >= 0.12:
            return moved
    raise BadInput("no place to teleport to")


def _in_wall(position: np.ndarray) -> bool:
    return bool(abs(position[0]) < 0.04 and not 0.08 < position[1] < 0.52)


def _in_block(position: np.ndarray) -> bool:
    from envs.point_maze import CELL, MIDDLES

    off = np.abs(position - MIDDLES).max(-1)
    return bool(off.min() > CELL / 2 + 0.02 and np.abs(position).max() < 1)


SCENES = {
    "TwoRoom": Scene(("agent",), _disc_elsewhere, walls=("below_door", "above_door"), inside=_in_wall),
    "PointMaze": Scene(("agent",), _disc_elsewhere, walls=("row",), inside=_in_block),
    "Reacher": Scene(("fore",), _arm_elsewhere, heavier=5),
    "PushT": Scene(("block",), _block_elsewhere, heavier=20),
    "Cube": Scene(("cube",), _cube_elsewhere, heavier=20),
}


def kinds_of(task: str) -> tuple[str, ...]:
    """The physical kinds that `task` has, of which every clip is made impossible."""
    scene = SCENES[task]
    walls, mass = ("wall",) if scene.walls else (), ("mass",) if scene.heavier else ()
    return ("teleport", *walls, "frozen", "reversed", "swapped", "vanished", *mass)


class Studio:
    """Makes the clips of one task.

    Args:
        envs: the package of the tasks, which are imported by name only there.
        task: name of a task in `SCENES`.
        size: height and width of the pictures, pixels.
        stream: first number of the seeds.
        seed: second one.
    """

    def __init__(self, envs: Any, task: str, size: int, stream: int = CLIP_STREAM, seed: int = 0) -> None:
        if task not in SCENES:
            raise BadInput("no impossible clips of this task", expected=" or ".join(SCENES), got=repr(task))
        self.task, self.scene, self.stream, self.seed = task, SCENES[task], stream, seed
        self.env, self._make = envs.make(task, size), lambda: envs.make(task, size)
        self._disguised: dict[str, Any] = {}
        self.seconds = self.env.model.opt.timestep * self.env.substeps

    def close(self) -> None:
        """Frees the renderers."""
        for env in (self.env, *self._disguised.values()):
            env.close()

    def _rng(self, k: int, what: int) -> np.random.Generator:
        return np.random.default_rng([self.stream, self.seed, k, what])

    def plain(self, k: int) -> Film:
        """Clip `k` of play, cut from an episode at a random step; its event is where its copies have theirs."""
        rng = self._rng(k, 0)
        skip = int(rng.integers(0, 40))
        states, actions = play_episode(self.env, skip + STEPS, rng)
        states, actions = states[skip:], actions[skip:]
        return Film("plain", self._draw(states), actions, states, int(rng.integers(*EVENTS)))

    def impossible(self, film: Film, kind: str, k: int) -> Film | None:
        """`film` made impossible in the way of `kind` ("wall" aside); None where nobody would see it."""
        edited = getattr(self, f"_{kind}")(film, self._rng(k, 1))
        return edited if self._shows(film, edited) else None

    def looking(self, film: Film, name: str) -> tuple[Film, Film]:
        """The same clip with another appearance: all along, and from its event on."""
        if name not in self._disguised:
            self._disguised[name] = disguise(self._make(), name)
        always = self._draw(film.states, self._disguised[name])
        switched = np.concatenate([film.pixels[: film.event], always[film.event :]])
        return (
            replace(film, kind=f"{name} always", pixels=always, event=0),
            replace(film, kind=f"{name} switched", pixels=switched),
        )

    def through_wall(self, k: int) -> tuple[Film, Film]:
        """Clip `k` in which the robot pushes against an inner wall, and the same in which it goes through.

        Play does so seldom, so that episodes are drawn until one does: walls that do not collide from some step on let
        the same actions lead into one. The event is the step at which both clips first differ by a centimetre.
        """
        rng = self._rng(k, 2)
        for _ in range(50 * ATTEMPTS):
            states, actions = play_episode(self.env, STEPS, rng)
            with self._changed(walls=True):
                passed = self._simulate(states[EVENTS[0] - 1], actions[EVENTS[0] - 1 :])
            passed = np.concatenate([states[: EVENTS[0]], passed[1:]])
            apart = np.linalg.norm((passed - states)[:, :2], axis=-1) > 0.01
            first = int(apart.argmax()) if apart.any() else STEPS
            crossing = [self.scene.inside(state[:2]) for state in passed[first : first + 20]]
            if EVENTS[0] <= first < EVENTS[1] and any(crossing):
                blocked = Film("blocked", self._draw(states), actions, states, first)
                pixels = np.concatenate([blocked.pixels[:first], self._draw(passed[first:])])
                return blocked, replace(blocked, kind="wall", pixels=pixels, states=passed)
        raise BadInput("no episode of play runs into a wall")

    # The edits: pictures from `event` on, actions from `event` - 1 on ----------------------------------------------

    def _teleport(self, film: Film, rng: np.random.Generator) -> Film:
        moved = self.scene.teleport(self.env, film.states[film.event], rng)
        return self._after(film, "teleport", self._simulate(moved, film.actions[film.event :]))

    def _frozen(self, film: Film, rng: np.random.Generator) -> Film:
        last = film.event - 1
        pixels, states = film.pixels.copy(), film.states.copy()
        pixels[last:], states[last:] = pixels[last], states[last]
        return replace(film, kind="frozen", pixels=pixels, states=states)

    def _reversed(self, film: Film, rng: np.random.Generator) -> Film:
        last = film.event - 1
        back = last - np.arange(min(last, STEPS - last) + 1)  # last, last - 1, ...
        frames = np.concatenate([np.arange(last), back])
        actions = np.concatenate([film.actions[:last], film.actions[back[1:]]])
        return replace(film, kind="reversed", pixels=film.pixels[frames], actions=actions, states=film.states[frames])

    def _swapped(self, film: Film, rng: np.random.Generator) -> Film:
        last = film.event - 1
        _, others = play_episode(self.env, STEPS, rng)
        actions = film.actions.copy()
        actions[last:] = others[last:]
        return replace(film, kind="swapped", actions=actions)

    def _vanished(self, film: Film, rng: np.random.Generator) -> Film:
        with self._changed(invisible=True):
            pixels = np.concatenate([film.pixels[: film.event], self._draw(film.states[film.event :])])
        return replace(film, kind="vanished", pixels=pixels)

    def _mass(self, film: Film, rng: np.random.Generator) -> Film:
        last = film.event - 1
        with self._changed(heavier=True):
            states = self._simulate(film.states[last], film.actions[last:])
        return self._after(film, "mass", states[1:])

    # Helpers -------------------------------------------------------------------------------------------------------

    def _after(self, film: Film, kind: str, states: np.ndarray) -> Film:
        """`film` with other states from its event on, drawn anew."""
        pixels = np.concatenate([film.pixels[: film.event], self._draw(states)])
        return replace(film, kind=kind, pixels=pixels, states=np.concatenate([film.states[: film.event], states]))

    def _shows(self, film: Film, edited: Film) -> bool:
        """Whether anybody could see the difference; swapped actions are played, to see whether they would matter."""
        pixels = edited.pixels
        if edited.kind == "swapped":
            last = film.event - 1
            pixels = self._draw(self._simulate(film.states[last], edited.actions[last:]))
            return changed_pixels(film.pixels[last:], pixels) >= VISIBLE
        return changed_pixels(film.pixels[: len(pixels)], pixels) >= VISIBLE

    def _simulate(self, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """States from `state` on, it included, under `actions`."""
        self.env.set_state(state)
        states = [self.env.state]
        for action in actions:
            self.env.advance(action)
            states.append(self.env.state)
        return np.array(states)

    def _draw(self, states: np.ndarray, env: Any = None) -> np.ndarray:
        """Pictures of the last `len(states)` steps of a clip."""
        env = env or self.env
        pixels = np.empty((len(states), env.size, env.size, 3), np.uint8)
        for i, state in enumerate(states):
            env.set_state(state)
            env.data.time = (STEPS + 1 - len(states) + i) * self.seconds  # what moves before the camera goes by it
            pixels[i] = env.picture()
        return pixels

    @contextmanager
    def _changed(self, walls: bool = False, invisible: bool = False, heavier: bool = False) -> Iterator[None]:
        """For a while walls do not collide, or the object is not drawn, or it is heavier."""
        import mujoco

        model = self.env.model
        kept = model.geom_contype.copy(), model.geom_conaffinity.copy(), model.geom_rgba.copy()
        masses = model.body_mass.copy(), model.body_inertia.copy()
        bodies = [model.body(name).id for name in self.scene.moving]
        named = [i for i in range(model.ngeom) if model.geom(i).name.startswith(self.scene.walls or ("\0",))]
        if walls:
            model.geom_contype[named] = model.geom_conaffinity[named] = 0
        if invisible:
            model.geom_rgba[np.isin(model.geom_bodyid, bodies), 3] = 0
        if heavier:
            model.body_mass[bodies] *= self.scene.heavier
            model.body_inertia[bodies] *= self.scene.heavier
            mujoco.mj_setConst(model, mujoco.MjData(model))
        yield
        model.geom_contype[:], model.geom_conaffinity[:], model.geom_rgba[:] = kept
        model.body_mass[:], model.body_inertia[:] = masses
        mujoco.mj_setConst(model, mujoco.MjData(model))


def changed_pixels(before: np.ndarray, after: np.ndarray) -> int:
    """Most pixels of one picture that differ by 30 grey levels or more, of two films `[T, h, w, 3]`."""
    off = np.abs(before.astype(np.int16) - after).max(-1) >= 30
    return int(off.sum((1, 2)).max())
