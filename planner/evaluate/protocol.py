"""Held-out start-goal pairs, episodes played on them, and what came out.

Pairs are cut from play episodes whose seeds no training episode has, or are of random states. Pairs that are solved at
the start are removed and counted, and so are those that the task's rule leaves out. Every policy plays the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from ..collect import play_episode
from ..errors import BadInput, TooFewPairs
from ..types import Policy

EVALUATE_STREAM = 2
"""First number of every evaluation seed; training episodes have another, so that no episode is ever in both."""


@dataclass(frozen=True)
class Pair:
    """Where an episode starts and where it is to end, as physical states `[n]`."""

    start: np.ndarray
    goal: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """A fixed list of pairs, and how many were left out of it.

    Attributes:
        pairs: the pairs, in order.
        solved: pairs removed because the start already counts as success.
        ruled_out: pairs left out by the task's rule.
        left_out: these two numbers on the way to each pair, the last of them being `solved` and `ruled_out`.
    """

    pairs: list[Pair]
    solved: int
    ruled_out: int
    left_out: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Judge:
    """When a goal counts as reached.

    Attributes:
        tolerances: most distance from the goal, in the task's tolerances, above 0.
        hold: environment steps in a row that it has to be kept, >= 1.
    """

    tolerances: float = 1.0
    hold: int = 1

    def reached(self, goal_distance: Sequence[float]) -> bool:
        """Whether the last steps, of which these are the distances, meet it."""
        last = goal_distance[-self.hold :]
        return len(last) == self.hold and all(distance <= self.tolerances for distance in last)


SEEN = ("pixels", "proprio")
"""What of an observation is handed to policies; the goal is told once, when an episode begins."""
STANDARD, STRICT = Judge(), Judge(tolerances=0.5, hold=5)


@dataclass
class Episode:
    """What happened on one pair.

    Attributes:
        success: whether the goal was reached within the budget.
        steps: environment steps taken.
        initial_distance: at the start, in tolerances (at most 1 is success).
        goal_distance: after each step, in tolerances.
        frames: what the camera saw, uint8 `[size, size, 3]` each, the start included; empty unless asked for.
        goal: the goal image, uint8 `[size, size, 3]`.
        states: the physical states `[n]` of the frames.
    """

    success: bool
    steps: int
    initial_distance: float
    goal_distance: list[float]
    frames: list[np.ndarray]
    goal: np.ndarray
    states: list[np.ndarray] = field(default_factory=list)

    def keep(self, look: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        """Adds a frame to the film."""
        self.frames.append(look["pixels"])
        self.states.append(info["state"])

    def forget(self) -> None:
        """Drops the film."""
        self.frames.clear()
        self.states.clear()


def held_out_pairs(env: Any, n: int, distance: int | None, seed: int, own: bool = False) -> Pairs:
    """`n` pairs that lie `distance` environment steps apart in held-out play, one an episode; or of random states.

    Args:
        env: the task.
        n: pairs wanted, >= 1.
        distance: D, environment steps between start and goal, >= 1; None for random states, however far apart.
        seed: of the list; pair k depends on `(seed, distance)` and nothing else.
        own: the benchmark's own goals in turn, in place of play: pair k has its goal k modulo their number.

    Raises:
        BadInput: if the task has no goals of its own, or a hundred episodes a pair do not give enough pairs (of play:
            `TooFewPairs`).
    """
    if own and not env.own_goals:
        raise BadInput(f"{env.name} has no goals of its own", expected="a benchmark's task", do="choose play or any")
    pairs: list[Pair] = []
    left_out: list[tuple[int, int]] = []
    solved = ruled_out = 0
    for k in range(100 * n):
        rng = np.random.default_rng([EVALUATE_STREAM, seed, k])
        if own:
            start, goal = env.own_pair(len(pairs) % env.own_goals, rng)
        else:
            start, goal = _anywhere(env, rng) if distance is None else _from_play(env, distance, rng)
        if env.goal_distance(start, goal) <= 1:
            solved += 1
        elif not env.counts(start, goal):
            ruled_out += 1
        else:
            pairs.append(Pair(start, goal))
            left_out.append((solved, ruled_out))
        if len(pairs) == n:
            return Pairs(pairs, solved, ruled_out, left_out)
    found, got = f"only {len(pairs)} pairs of {n} found", f"{solved} solved at the start and {ruled_out} ruled out"
    if own or distance is None:  # which no distance chooses
        raise BadInput(f"{found} among {'its own goals' if own else 'random states'}", got=got)
    raise TooFewPairs(f"{found} at distance {distance}", got=got, do="choose a larger --distance")


def _from_play(env: Any, distance: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    offset = int(rng.integers(0, 76))
    states, _ = play_episode(env, offset + distance, rng)
    return states[offset], states[offset + distance]


def _anywhere(env: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return env.sample_state(rng), env.sample_state(rng)


def play_pairs(
    envs: Sequence[Any],
    policy: Policy,
    pairs: Sequence[Pair],
    budget: int,
    *,
    judge: Judge = STANDARD,
    privileged: bool = False,
    film: Callable[[int], bool] = lambda k: False,
    progress: Callable[[Episode], None] = lambda episode: None,
) -> list[Episode]:
    """Plays every pair, `len(envs)` at a time in lockstep, `budget` environment steps at most.

    Args:
        envs: environments of one task, E of them.
        policy: what acts; it is reset for every group of E pairs, with their numbers as `episode` `[E]` beside the
            first observations: what is random in episode k may then follow from k, whatever E is.
        pairs: start-goal pairs, played in order.
        budget: environment steps an episode, >= 1.
        judge: says when a goal is reached, which ends the episode.
        privileged: hand the policy the true `state` too (for the oracle).
        film: whether to keep the frames of pair k.
        progress: called with each episode once its group is over.
    """
    if (apart := len({id(env) for env in envs})) < max(1, len(envs)):
        expected, got = "one environment or more, each a simulator of its own", f"{apart} in {len(envs)} places"
        raise BadInput("play_pairs: environments are off", expected=expected, got=got)
    episodes: list[Episode] = []
    for first in range(0, len(pairs), len(envs)):
        group = pairs[first : first + len(envs)]
        filmed = [film(first + i) for i in range(len(group))]
        for episode in _play_group(envs[: len(group)], policy, group, first, budget, judge, privileged, filmed):
            episodes.append(episode)
            progress(episode)
    return episodes


def _play_group(
    envs: Sequence[Any],
    policy: Policy,
    pairs: Sequence[Pair],
    first: int,
    budget: int,
    judge: Judge,
    privileged: bool,
    filmed: list[bool],
) -> Iterator[Episode]:
    resets = [env.reset(options={"start": p.start, "goal": p.goal}) for env, p in zip(envs, pairs, strict=True)]
    looks, infos = [obs for obs, _ in resets], [info for _, info in resets]
    episodes = [Episode(False, 0, info["goal_distance"], [], [], look["goal"]) for look, info in resets]
    goal = _batch([{"pixels": look["goal"]} for look in looks], [info["goal_state"] for info in infos], privileged)
    start = _observe(looks, infos, privileged)
    start["episode"] = torch.arange(first, first + len(pairs))
    policy.reset(start, goal)
    for i, episode in enumerate(episodes):
        if filmed[i]:
            episode.keep(looks[i], infos[i])
    for _ in range(budget):
        actions = policy.act(_observe(looks, infos, privileged))
        for i, (env, episode) in enumerate(zip(envs, episodes, strict=True)):
            if episode.success:
                continue  # it stands still; the others go on
            looks[i], _, _, _, infos[i] = env.step(actions[i])
            episode.steps += 1
            episode.goal_distance.append(infos[i]["goal_distance"])
            episode.success = judge.reached(episode.goal_distance)
            if filmed[i]:
                episode.keep(looks[i], infos[i])
        if all(episode.success for episode in episodes):
            break
    yield from episodes


def _observe(looks: list[dict[str, np.ndarray]], infos: list[dict[str, Any]], privileged: bool) -> TensorDict:
    seen = [{key: value for key, value in look.items() if key in SEEN} for look in looks]
    return _batch(seen, [info["state"] for info in infos], privileged)


def _batch(seen: list[dict[str, np.ndarray]], states: list[np.ndarray], privileged: bool) -> TensorDict:
    """A batch `[E]` of what a policy may see: pictures, and `proprio` where the envs give it."""
    batch = {key: torch.from_numpy(np.stack([one[key] for one in seen])) for key in seen[0]}
    if privileged:
        batch["state"] = torch.from_numpy(np.stack(states))
    return TensorDict(batch, batch_size=[len(seen)])


class RandomPolicy:
    """The floor: uniform actions, drawn anew at every environment step.

    Args:
        low: smallest action `[a]`.
        high: largest action `[a]`.
        seed: of the draws; those of episode k follow from it and k alone.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, seed: int) -> None:
        self.low, self.high, self.seed = low, high, seed

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        """Begins the draws of each `episode` (0 to E - 1 where none are named); of all rows, `mask` is not read."""
        numbers = obs["episode"].tolist() if "episode" in obs else range(obs.batch_size[0])
        self._each = [np.random.default_rng([3, self.seed, number]) for number in numbers]

    def act(self, obs: TensorDict) -> np.ndarray:
        """Uniform actions `[E, a]`."""
        return np.stack([rng.uniform(self.low, self.high) for rng in self._each])


class NoopPolicy:
    """The other floor: the action nearest to zero, always."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.action = np.clip(np.zeros_like(low), low, high)

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        """Nothing to forget."""

    def act(self, obs: TensorDict) -> np.ndarray:
        """The same action for every environment, `[E, a]`."""
        return np.tile(self.action, (obs.batch_size[0], 1))
