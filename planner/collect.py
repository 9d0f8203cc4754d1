"""Episodes of play, or of a planner, from several processes at once into one crash-safe dataset."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from . import checkpoint as checkpoints
from .data import DatasetInfo, EpisodeStore
from .errors import BadInput
from .mpc import MPC
from .settings import PlannerConfig
from .tasks import load_envs
from .versions import versions

COLLECT_STREAM = 1
"""First number of every training episode's seed; evaluation uses another, so that no episode is ever in both."""

PLANNED_STREAM = 4
"""First number of the seeds of episodes in which a planner acts."""
CALIBRATE_STREAM = 5
"""First number of the seeds of episodes that thresholds are fitted on; neither training nor evaluation uses them."""
LULLS_STREAM = 10
"""First number of the seeds of episodes of play with lulls, which would else begin as those without do."""


@dataclass(frozen=True)
class Pursuit:
    """What a collecting planner is asked for, in environment steps.

    Attributes:
        nearest: of play that lie between it and a goal, at least.
        farthest: of play that lie between it and a goal, at most.
        time: that it has for each goal.
        replan: of each plan that it does before the next; 0 leaves it to the checkpoint's settings. A plan done to its
            end shows where the model believed too much of it, of which one that is soon given up shows little.
        relief: of `time`, the last ones, in which the task's `relieve` goes on in the planner's place, and makes its
            goals. Where a planner gets stuck play seldom comes by itself, so that nothing shows the way out; 0 leaves
            all to the planner.
    """

    nearest: int = 15
    farthest: int = 30
    time: int = 50
    replan: int = 0
    relief: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.nearest <= self.farthest or not 0 <= self.replan <= self.time or self.time < 1:
            expected = "1 <= nearest <= farthest, time from 1, and replan from 0 to time"
            raise BadInput("collect: the goals of a planner's episodes are off", expected=expected, got=str(self))
        most = self.time - max(self.replan, 1)  # a planner that is relieved before its first plan is done shows nothing
        if self.relief and not 0 < self.relief <= most:
            expected = f"0 to {most}, of the {self.time} steps that it has for a goal, after one plan"
            do = "give it more --goal-time"
            raise BadInput("collect: a planner's relief is off", expected=expected, got=str(self.relief), do=do)

    def __str__(self) -> str:
        done = f", {self.replan} steps of each plan" if self.replan else ""
        relief = f", the last {self.relief} of them its relief's, which sets the goals" if self.relief else ""
        return f"{self.nearest} to {self.farthest} steps away, {self.time} each{relief}{done}"

    def check_episodes(self, steps: int) -> None:
        """Raises `BadInput` where episodes of `steps` end before the first relief."""
        if self.relief and steps <= (alone := self.time - self.relief):
            expected = f"episodes of more than the {alone} steps that come before it"
            raise BadInput("collect: relief never comes", expected=expected, got=str(steps), do="give more --steps")

    def planner(self, loaded: checkpoints.Checkpoint, seed: int) -> MPC:
        """The checkpoint's planner, looking as seldom as `replan` says; `BadInput` where its plans are shorter."""
        return self.settings(loaded).build(loaded.model, seed)

    def settings(self, loaded: checkpoints.Checkpoint) -> PlannerConfig:
        """The checkpoint's, but for `replan`."""
        return replace(loaded.planner, replan=self.replan) if self.replan else loaded.planner

    def policy(self, loaded: checkpoints.Checkpoint, play_name: str) -> str:
        """What a dataset says of who acted: weights, a digest of the planner's settings, goals, and whose they are."""
        settings = hashlib.sha256(repr(sorted(asdict(self.settings(loaded)).items())).encode()).hexdigest()
        play = "" if play_name == "play" else f", beside {play_name}"
        return f"planner {loaded.sha256[:12]} (settings {settings[:8]}), goals {self}{play}"


Act = Callable[[np.ndarray], np.ndarray]
"""A state, or what was done last, to an action."""

PACES = (0.0, 0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
"""How much of what play would do is done in a lull, drawn anew for each."""


def at_rest(env: Any, action: np.ndarray) -> np.ndarray:
    """What a robot does next that stays as `action` left it, both `[a]` in physical units: nothing, but that it holds
    what the action says the place of (`GoalEnv.places`). "Nothing" is nearest to 0: of torques, motors that are off."""
    rest: np.ndarray = env.action_spec().still()[0].numpy().astype(np.float64)
    held = list(env.places)
    rest[held] = np.asarray(action)[held]
    return rest


def with_lulls(play: Act, resting: Act, rng: np.random.Generator) -> Act:
    """Play that for 3 to 24 steps at a time does a share of what it would do (`PACES`), or nothing at all.

    Play is always on its way. Whoever learned from it alone does not know that what nobody touches stays where it is,
    and how little a slow push does. Play that counts its steps goes on counting where it is slowed down, and not where
    it rests.

    Args:
        play: state `[n]` to action `[a]`.
        resting: the action of a robot that rests after one, `[a]` to `[a]`.
        rng: of when and how much.
    """
    left, pace = 0, 1.0
    last: np.ndarray | None = None

    def act(state: np.ndarray) -> np.ndarray:
        nonlocal left, pace, last
        if not left:
            left, pace = int(rng.integers(3, 25)), float(rng.choice(PACES))
        left -= 1
        if last is not None and not pace:
            last = resting(last)
        else:
            wanted = play(state)
            rest = resting(wanted)
            last = rest + pace * (wanted - rest)
        return last

    return act


def play_episode(env: Any, steps: int, rng: np.random.Generator, lulls: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Plays without rendering, `with_lulls` or as the task has it: states `[L + 1, n]` and the physical actions between
    them `[L, a]`."""
    env.set_state(env.sample_state(rng))
    play = _checked(env, env.play(rng))
    if lulls:
        play = with_lulls(play, partial(at_rest, env), rng)
    states, actions = [env.state], []
    for _ in range(steps):
        actions.append(play(states[-1]))
        env.advance(actions[-1])
        states.append(env.state)
    return np.array(states), np.array(actions)


def _checked(env: Any, play: Act) -> Act:
    """The same play; `BadInput` where what it does is no action of the task."""
    wanted, spec = env.action_space.shape, env.action_spec()

    def act(state: np.ndarray) -> np.ndarray:
        action = play(state)
        if np.shape(action) != wanted:
            raise BadInput(f"{env.name}: play is off", expected=f"actions {wanted}", got=str(np.shape(action)))
        if not spec.admits(action):  # nor is NaN; what the robot did would be another action than the one that is kept
            expected, got = f"{list(spec.low)} to {list(spec.high)}", str(np.asarray(action).tolist())
            raise BadInput(f"{env.name}: play is out of bounds", expected=expected, got=got)
        return action

    return act


def record_episode(
    env: Any, steps: int, rng: np.random.Generator, lulls: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plays an episode and draws it: pixels `[L + 1, size, size, 3]`, actions `[L, a]`, states `[L + 1, n]`."""
    states, actions = play_episode(env, steps, rng, lulls)
    pixels = np.empty((steps + 1, env.size, env.size, 3), np.uint8)
    for picture, state in zip(pixels, states, strict=True):
        env.set_state(state)
        seen = env.picture()
        if seen.dtype != np.uint8 or seen.shape != picture.shape:
            expected, got = f"uint8 {list(picture.shape)}", f"{seen.dtype} {list(seen.shape)}"
            raise BadInput(f"{env.name}: picture is off", expected=expected, got=got)
        picture[:] = seen
    return pixels, actions, states


def record_planned(
    env: Any, planner: MPC, steps: int, rng: np.random.Generator, pursuit: Pursuit = Pursuit()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An episode of a planner that pursues one goal after the other; arrays as `record_episode`.

    It starts where play left off, and every goal is where play would get to from there. Where the planner is to be
    relieved, what relieves it makes the goals, and goes on from where it got to until the next one.
    """
    make = env.relieve if pursuit.relief else env.play
    size = (env.size, env.size, 3)
    pixels, actions, states = np.empty((steps + 1, *size), np.uint8), [], [play_on(env, None, rng, 0, 76)]
    relief: Any = None
    for step in range(steps + 1):
        env.set_state(states[-1])
        pixels[step] = env.picture()
        if step == steps:
            break
        look = _look(pixels[step])
        if step % pursuit.time == 0:
            goal = env.picture(play_on(env, states[-1], rng, pursuit.nearest, pursuit.farthest + 1, make))
            env.set_state(states[-1])
            planner.seed = int(rng.integers(2**31))
            planner.reset(look, _look(goal))
            relief = make(rng) if pursuit.relief else None
        relieved = step % pursuit.time >= pursuit.time - pursuit.relief
        actions.append(relief(states[-1]) if relieved else planner.act(look)[0])
        env.advance(actions[-1])
        states.append(env.state)
    return pixels, np.array(actions), np.array(states)


def play_on(
    env: Any,
    state: np.ndarray | None,
    rng: np.random.Generator,
    least: int,
    most: int,
    make: Callable[[np.random.Generator], Callable[[np.ndarray], np.ndarray]] | None = None,
) -> np.ndarray:
    """The state after `least` to `most` - 1 steps of play from `state` (from a random one when None).

    `make` makes what plays; `env.play` where it is None.
    """
    env.set_state(env.sample_state(rng) if state is None else state)
    play = (make or env.play)(rng)
    for _ in range(int(rng.integers(least, most))):
        env.advance(play(env.state))
    reached: np.ndarray = env.state
    return reached


def _look(picture: np.ndarray) -> TensorDict:
    return TensorDict({"pixels": torch.from_numpy(picture.copy())[None]}, batch_size=[1])


def collect(
    task: str,
    path: Path | str,
    *,
    episodes: int,
    steps: int,
    size: int,
    seed: int,
    workers: int,
    checkpoint: Path | str | None = None,
    pursuit: Pursuit = Pursuit(),
    lulls: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EpisodeStore:
    """Collects `episodes` of `task` at `path`, or what is missing of them; `progress(done, total)` after each.

    With a `checkpoint` its planner acts, and not play: what a planner does, and where its model is wrong about it, play
    seldom shows. With `lulls` play slows down and stands still now and then (`with_lulls`). Workers import the main
    module anew, so a script calls this under `if __name__ == "__main__":`.

    Raises:
        BadInput: if `path` holds a dataset that was made differently, the checkpoint cannot be used or is of other
            actions than the task, or a worker died.
    """
    path = Path(path)
    planned = checkpoints.load(checkpoint, task=task) if checkpoint else None
    if planned and lulls:
        raise BadInput("collect: a planner has no lulls", expected="play", do="leave out --checkpoint or --lulls")
    if planned:
        _check_planned(planned, pursuit, steps, size, seed)
    store = EpisodeStore.claim(path, _described(task, episodes, steps, size, seed, planned, pursuit, lulls))
    missing = store.missing()
    done = episodes - len(missing)
    progress(done, episodes)
    setup = Setup(task, path, Path(checkpoint) if checkpoint else None, pursuit, lulls)
    with closing(_work(setup, missing, min(workers, max(1, len(missing))))) as finished:
        for _ in finished:
            done += 1
            progress(done, episodes)
    return store


def _check_planned(planned: checkpoints.Checkpoint, pursuit: Pursuit, steps: int, size: int, seed: int) -> None:
    """Raises `BadInput` for what is wrong with a planner's episodes: here, once, and not in every worker."""
    pursuit.planner(planned, seed)
    pursuit.check_episodes(steps)
    if (wanted := planned.model.config.image_size) != size:
        expected = f"pictures of {wanted} pixels"
        raise BadInput("collect: the checkpoint sees another size", expected=expected, got=str(size), do="give --size")


def _described(
    task: str,
    episodes: int,
    steps: int,
    size: int,
    seed: int,
    planned: checkpoints.Checkpoint | None,
    pursuit: Pursuit,
    lulls: bool,
) -> DatasetInfo:
    """What the dataset says of itself; `BadInput` where the checkpoint's actions are not the task's."""
    envs = load_envs()
    with envs.make(task, size=size) as env:
        if planned:
            checkpoints.check_fits(env, planned)  # its actions would be stored under the task's bounds
        spec = env.action_spec()
        played = f"{env.play_name} with lulls" if lulls else env.play_name
        return DatasetInfo(
            task=task,
            episodes=episodes,
            steps=steps,
            size=size,
            state_names=env.state_names,
            state_units=env.state_units,
            seed=seed,
            renderer=envs.choose_backend(),
            versions=versions(*env.packages),
            action_low=spec.low,
            action_high=spec.high,
            action_units=spec.units,
            block=spec.block,
            policy=pursuit.policy(planned, env.play_name) if planned else played,
        )


@dataclass(frozen=True)
class Setup:
    """What every worker is told once: the task, the dataset that it fills, who acts, what a planner pursues, and
    whether play has lulls."""

    task: str
    path: Path
    checkpoint: Path | None
    pursuit: Pursuit
    lulls: bool = False


def _work(setup: Setup, rows: list[int], workers: int) -> Generator[None, None, None]:
    """Yields once for every episode that some worker finished; stops the workers at once when abandoned."""
    if not rows:
        return
    # Fresh interpreters: a GL context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (theirs, setup))
    try:
        ahead = iter(rows)
        running = {pool.submit(_record_row, row) for row in islice(ahead, 2 * workers)}  # the next one lies ready
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for finished in done:
                finished.result()
                running |= {pool.submit(_record_row, row) for row in islice(ahead, 1)}
                yield
        pool.shutdown()
    except BrokenProcessPool as error:
        do = "give fewer --workers if memory ran out; a script calls `collect` under `if __name__ == '__main__':`; "
        do += "episodes that are done are kept, and the same command goes on"
        raise BadInput("collect: a worker died before its episode was done", do=do) from error
    finally:
        ours.close()  # ends the workers, which an abandoned pool would first wait for
        pool.shutdown(cancel_futures=True)
        theirs.close()


_env: Any = None
_store: EpisodeStore
_planner: MPC | None = None
_pursuit: Pursuit
_lulls: bool
_failure: Exception | None = None


def _begin(parent: Connection, setup: Setup) -> None:
    """Starts a worker, which ends when the other end of `parent` is closed, be it by the death of who holds it."""
    global _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to see, which then ends the workers
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        _start_worker(setup)
    except Exception as error:  # noqa: BLE001  # the first episode raises it where it is seen: in the parent
        _failure = error


def _end_with(parent: Connection) -> None:
    with suppress(EOFError, OSError):
        parent.recv()  # nothing is ever sent
    os._exit(1)  # an episode that is half written counts as missing


def _start_worker(setup: Setup) -> None:
    global _env, _store, _planner, _pursuit, _lulls
    os.environ["LP_NUM_THREADS"] = "0"  # a software GL that spawns threads in every worker slows all of them
    _store, _pursuit, _lulls = EpisodeStore.open(setup.path), setup.pursuit, setup.lulls
    _env = load_envs().make(setup.task, size=_store.info.size)
    if setup.checkpoint:
        torch.set_num_threads(1)
        loaded = checkpoints.load(setup.checkpoint, task=setup.task)
        _planner = setup.pursuit.planner(loaded, _store.info.seed)


def _record_row(row: int) -> int:
    if _failure:
        raise _failure
    stream = PLANNED_STREAM if _planner else LULLS_STREAM if _lulls else COLLECT_STREAM
    rng = np.random.default_rng([stream, _store.info.seed, row])
    if _planner:
        _store.write(row, *record_planned(_env, _planner, _store.info.steps, rng, _pursuit))
    else:
        _store.write(row, *record_episode(_env, _store.info.steps, rng, _lulls))
    return row
