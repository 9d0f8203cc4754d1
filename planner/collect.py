"""Play episodes from several processes at once into one crash-safe dataset."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .data import DatasetInfo, EpisodeStore
from .errors import BadInput
from .tasks import load_envs
from .versions import versions

COLLECT_STREAM = 1
"""First number of every training episode's seed; evaluation uses another, so that no episode is ever in both."""


def play_episode(env: Any, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Plays without rendering: states `[L + 1, n]` and the physical actions between them `[L, a]`."""
    env.set_state(env.sample_state(rng))
    play = env.play(rng)
    states, actions = [env.state], []
    for _ in range(steps):
        actions.append(play(states[-1]))
        env.advance(actions[-1])
        states.append(env.state)
    return np.array(states), np.array(actions)


def record_episode(env: Any, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plays an episode and draws it: pixels `[L + 1, size, size, 3]`, actions `[L, a]`, states `[L + 1, n]`."""
    states, actions = play_episode(env, steps, rng)
    pixels = np.empty((steps + 1, env.size, env.size, 3), np.uint8)
    for picture, state in zip(pixels, states, strict=True):
        env.set_state(state)
        picture[:] = env.picture()
    return pixels, actions, states


def collect(
    task: str,
    path: Path,
    *,
    episodes: int,
    steps: int,
    size: int,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EpisodeStore:
    """Collects `episodes` of `task` at `path`, or what is missing of them; `progress(done, total)` after each.

    Raises:
        BadInput: if `path` holds a dataset that was made differently.
    """
    envs = load_envs()
    env = envs.make(task, size=size)
    spec, names, units = env.action_spec(), env.state_names, env.state_units
    env.close()
    info = DatasetInfo(
        task=task,
        episodes=episodes,
        steps=steps,
        size=size,
        state_names=names,
        state_units=units,
        seed=seed,
        renderer=envs.choose_backend(),
        versions=versions(),
        action_low=spec.low,
        action_high=spec.high,
        action_units=spec.units,
        block=spec.block,
    )
    if (path / "dataset.json").exists():
        store = EpisodeStore.open(path)
        _check_same(store.info, info, path)
    else:
        store = EpisodeStore.create(path, info)
    missing = store.missing()
    done = episodes - len(missing)
    progress(done, episodes)
    for _ in _work(task, path, missing, min(workers, max(1, len(missing)))):
        done += 1
        progress(done, episodes)
    return store


def _check_same(found: DatasetInfo, wanted: DatasetInfo, path: Path) -> None:
    for key in ("task", "episodes", "steps", "size", "seed", "renderer", "versions", "block"):
        if (was := getattr(found, key)) != (want := getattr(wanted, key)):
            raise BadInput(
                f"dataset {path} was made with another {key}",
                expected=str(want),
                got=str(was),
                do="choose another --out, or remove it",
            )


def _work(task: str, path: Path, rows: list[int], workers: int) -> Any:
    """Yields once for every episode that some worker finished; stops the workers when abandoned."""
    if not rows:
        return
    # Fresh interpreters: a GL context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (task, str(path))) as pool:
        yield from pool.imap_unordered(_record_row, rows)


_env: Any = None
_store: EpisodeStore


def _start_worker(task: str, path: str) -> None:
    global _env, _store
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the pool from the parent, between episodes
    os.environ["LP_NUM_THREADS"] = "0"  # a software GL that spawns threads in every worker slows all of them
    _store = EpisodeStore.open(Path(path))
    _env = load_envs().make(task, size=_store.info.size)


def _record_row(row: int) -> int:
    rng = np.random.default_rng([COLLECT_STREAM, _store.info.seed, row])
    _store.write(row, *record_episode(_env, _store.info.steps, rng))
    return row
