"""One task, one checkpoint: the planner, the floors and the oracle on the same held-out pairs."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ..checkpoint import Checkpoint, check_fits
from ..data import write_atomically
from ..errors import BadInput, check_seed
from ..guard import Guard, Limits
from ..mpc import MPC
from ..settings import PlannerConfig
from ..surprise import Monitor, Thresholds
from ..types import Policy
from ..versions import commit, versions
from .frozen import Frozen, kept_pairs, read
from .imagination import Imagined, Recorder, bank_of_play, imagine
from .protocol import STANDARD, STRICT, Episode, NoopPolicy, Pairs, RandomPolicy, held_out_pairs, play_pairs
from .statistics import hard_score, latency, smallest_difference, summary
from .video import MAX_CLIPS, Clip

ORACLE = PlannerConfig(samples=64, iterations=4, horizon=5)
"""Planner on the simulator: small, because a simulated future costs a thousand times a latent one."""

Progress = Callable[[str, int, int, int], None]
"""Called with policy, episodes done, episodes in all, successes so far."""


@dataclass(frozen=True)
class Protocol:
    """What is evaluated.

    Attributes:
        episodes: pairs, >= 1.
        distance: D, environment steps between start and goal, >= 1; the budget is 2 D.
        goals: "play", from held-out play D steps after the start; "any", random states, and starts too, whatever D;
            "own", the benchmark's own goals in turn, whatever D, within its own limit of steps.
        strict: half the tolerance, kept for five steps.
        appearance: also play the same pairs under every change of appearance that the task's package knows.
        seed: of the list of pairs, >= 0.
        num_envs: environments played at once, >= 1; 1 gives the honest time a plan.
        oracle: also plan on the simulator itself (slow).
        deadline_ms: wall time after which the planner's searches stop, as in `plan.plan`; None lets them finish.
        noise: seed of the planner's noise, the oracle's and random actions, >= 0; None: that of the pairs. The same
            pairs with other noise tell how much of a rate is luck.
    """

    episodes: int = 100
    distance: int = 25
    seed: int = 0
    num_envs: int = 1
    oracle: bool = True
    deadline_ms: float | None = None
    goals: str = "play"
    strict: bool = False
    appearance: bool = False
    noise: int | None = None

    def __post_init__(self) -> None:
        check_seed("evaluate", self.seed)
        check_seed("evaluate: the noise", self.noise_seed)
        for name, least in {"episodes": 1, "distance": 1, "num_envs": 1}.items():
            if (value := getattr(self, name)) < least:
                raise BadInput(f"evaluate: {name} is off", expected=f"at least {least}", got=str(value))
        if self.goals not in ("play", "any", "own"):
            raise BadInput("evaluate: goals is off", expected="play, any or own", got=repr(self.goals))
        if self.deadline_ms is not None and not 0 < self.deadline_ms < float("inf"):
            raise BadInput("evaluate: deadline_ms is off", expected="a number above 0", got=str(self.deadline_ms))

    @property
    def noise_seed(self) -> int:
        """Of all noise, whether it was given or not."""
        return self.seed if self.noise is None else self.noise

    def budget(self, env: Any) -> int:
        """Environment steps that an episode of `env` may take."""
        steps: int = env.own_budget if self.goals == "own" else 2 * self.distance
        return steps


@dataclass(frozen=True)
class Outcome:
    """What an evaluation leaves behind.

    Attributes:
        result: the content of `results.json`.
        records: one an episode and policy, the lines of `episodes.jsonl`.
        clips: some episodes of the planner, failures among them if there are any.
        imagined: what it imagined in these, at its first plan and at the one half way.
    """

    result: dict[str, Any]
    records: list[dict[str, Any]]
    clips: list[Clip]
    imagined: list[Imagined] = field(default_factory=list)


def evaluate(
    envs: ModuleType,
    task: str,
    checkpoint: Checkpoint,
    settings: PlannerConfig,
    protocol: Protocol,
    progress: Progress = lambda *_: None,
    *,
    imagination: bool = False,
    watch: Thresholds | None = None,
    on_impossible: str = "warn",
    show: Sequence[int] = (),
) -> Outcome:
    """Plays the planner, the floors and, if asked for, the oracle, which is `ORACLE` on the task's simulator.

    Args:
        envs: the package of tasks.
        task: its name there.
        checkpoint: whose model plans.
        settings: of the planner.
        protocol: which pairs are played, and how.
        progress: told of every episode that is over.
        imagination: rehearse the plans of the episodes that are shown once more, for the report.
        watch: thresholds of a monitor of surprise, whose alarms are counted; None: nobody looks.
        on_impossible: what the guard does where the monitor calls something impossible, as in `Limits`.
        show: episodes to film, from 0, at most `MAX_CLIPS`; none: some that reached their goal and some that did not.

    Raises:
        BadInput: where the checkpoint does not fit the task, the episodes to show are none of those that are played, or
            a monitor is to watch several environments at once, or something is to be done about what it calls
            impossible where nobody watches.
    """
    commit()  # asked now: results name the commit that the work began on
    _check_options(protocol, watch, on_impossible, show)
    rooms = [envs.make(task, checkpoint.model.config.image_size) for _ in range(protocol.num_envs)]
    check_fits(rooms[0], checkpoint)
    pairs = _pairs(envs, task, rooms[0], protocol)
    planner, guard = _guarded(checkpoint, settings, protocol, watch, on_impossible)
    recorder = Recorder(guard, planner)
    policies = {"planner": recorder} | _beside(envs, rooms[0], protocol)
    played = {name: _play(name, policy, rooms, pairs, protocol, progress, show) for name, policy in policies.items()}
    looks, changed = _disguised(envs, task, rooms, checkpoint, settings, pairs, protocol, progress)
    shown = sorted(set(show)) or choose([episode.success for episode in played["planner"]], MAX_CLIPS)
    imagined = _imagined(task, rooms[0], played["planner"], shown, recorder, protocol) if imagination else []
    for room in rooms:
        room.close()
    result = _result(envs, rooms[0], task, checkpoint, settings, protocol, pairs, played, planner, guard)
    if watch:
        steps = {"steps": sum(episode.steps for episode in played["planner"]), "judged": guard.judged}
        result["alarms"] = dict(guard.alarms) | steps | {"length": watch.length}
        result["on_impossible"] = on_impossible
    result["appearance"] = {name: _look(one, changed[name], result["success_rate"]) for name, one in looks.items()}
    played |= {f"planner, {name}": episodes for name, episodes in looks.items()}
    return Outcome(result, _records(task, played), _clips(task, played["planner"], shown), imagined)


def _check_options(protocol: Protocol, watch: Thresholds | None, on_impossible: str, show: Sequence[int]) -> None:
    """Raises `BadInput` for what does not go together, before anything is played."""
    if watch and protocol.num_envs > 1:
        # An environment whose episode is over stands still while the others go on, which would alarm.
        raise BadInput(
            "evaluate: surprise is counted in one environment", expected="num_envs 1", got=str(protocol.num_envs)
        )
    if len(show) > MAX_CLIPS or not all(0 <= k < protocol.episodes for k in show):
        expected = f"up to {MAX_CLIPS} of 0 to {protocol.episodes - 1}"
        raise BadInput("evaluate: no such episodes to show", expected=expected, got=str(list(show)))
    if on_impossible != "warn" and watch is None:
        raise BadInput("evaluate: on_impossible without a monitor", got=on_impossible, do="add --surprise")
    if on_impossible != "warn" and protocol.appearance:
        do = "leave out one of them: under changes of appearance nobody watches"
        raise BadInput("evaluate: on_impossible and changes of appearance", got=on_impossible, do=do)


def _beside(envs: ModuleType, env: Any, protocol: Protocol) -> dict[str, Policy]:
    """Who plays beside the planner, by name: the floors, and the oracle where it is asked for and there is one."""
    low, high = env.action_space.low, env.action_space.high
    policies: dict[str, Policy] = {
        "random": RandomPolicy(low, high, protocol.noise_seed),
        "noop": NoopPolicy(low, high),
    }
    if protocol.oracle and env.simulates:
        model, energy = envs.oracle(env)
        policies["oracle"] = ORACLE.fitting(env.block).build(model, protocol.noise_seed, energy, apart=True)
    return policies


def _look(episodes: Sequence[Episode], changed: float, plain: float) -> dict[str, Any]:
    """A change of appearance's summary: how far its rate is below that of `plain` pictures, and the share of pixels
    that it changes, all 0 to 1."""
    arm = summary(sum(episode.success for episode in episodes), len(episodes))
    return arm | {"drop": plain - arm["success_rate"], "changed_pixels": changed}


def _pairs(envs: ModuleType, task: str, env: Any, protocol: Protocol) -> Pairs:
    """Those that the task's frozen protocol keeps; where it keeps none, those that the seed gives."""
    if (frozen := _frozen(envs, task)) and (kept := kept_pairs(frozen, protocol, envs.PROTOCOLS)):
        return kept
    distance = protocol.distance if protocol.goals == "play" else None
    return held_out_pairs(env, protocol.episodes, distance, protocol.seed, own=protocol.goals == "own")


def _frozen(envs: ModuleType, task: str) -> Frozen | None:
    """The task's protocol; somebody's own tasks may have none."""
    return read(task, envs.PROTOCOLS) if hasattr(envs, "PROTOCOLS") else None


def _disguised(
    envs: ModuleType,
    task: str,
    rooms: Sequence[Any],
    checkpoint: Checkpoint,
    settings: PlannerConfig,
    pairs: Pairs,
    protocol: Protocol,
    progress: Progress,
) -> tuple[dict[str, list[Episode]], dict[str, float]]:
    """The planner's episodes on the same pairs under every change of appearance, and the share of pixels that it
    changes, both by its name: a task may show nothing of what one of them touches. None unless it is asked for."""
    if not protocol.appearance:
        return {}, {}
    played, changed, plain = {}, {}, _starts(rooms[0], pairs)
    for name in envs.APPEARANCES:
        others = [envs.disguise(envs.make(task, room.size), name) for room in rooms]
        changed[name] = float((_starts(others[0], pairs) != plain).any(-1).mean())
        played[name] = _play(name, _guarded(checkpoint, settings, protocol)[1], others, pairs, protocol, progress)
        for room in others:
            room.close()
    return played, changed


def _starts(room: Any, pairs: Pairs) -> np.ndarray:
    """What the camera sees at the first starts, `[n, size, size, 3]`."""
    return np.stack([room.reset(options={"start": p.start, "goal": p.goal})[0]["pixels"] for p in pairs.pairs[:8]])


def _guarded(
    checkpoint: Checkpoint,
    settings: PlannerConfig,
    protocol: Protocol,
    watch: Thresholds | None = None,
    on_impossible: str = "warn",
) -> tuple[MPC, Guard]:
    """A fresh planner, and the guard that its actions leave through."""
    planner = settings.build(checkpoint.model, protocol.noise_seed, deadline_ms=protocol.deadline_ms, apart=True)
    monitor = Monitor(checkpoint.model, watch) if watch else None
    limits = Limits(survive_errors=False, on_impossible=on_impossible)
    return planner, Guard(planner, checkpoint.model.action, limits, monitor=monitor)


def _play(
    name: str,
    policy: Policy,
    rooms: Sequence[Any],
    pairs: Pairs,
    protocol: Protocol,
    progress: Progress,
    show: Sequence[int] = (),
) -> list[Episode]:
    done = successes = 0

    def count(episode: Episode) -> None:
        nonlocal done, successes
        done, successes = done + 1, successes + episode.success
        alike = successes if episode.success else done - successes
        filmed = done - 1 in show if show else alike <= MAX_CLIPS  # `choose` takes the first ones of either kind
        if not filmed:
            episode.forget()  # 12 kB a step
        progress(name, done, len(pairs.pairs), successes)

    progress(name, 0, len(pairs.pairs), 0)
    return play_pairs(
        rooms,
        policy,
        pairs.pairs,
        protocol.budget(rooms[0]),
        judge=STRICT if protocol.strict else STANDARD,
        privileged=name == "oracle",
        film=lambda k: name == "planner",
        progress=count,
    )


def _records(task: str, played: dict[str, list[Episode]]) -> list[dict[str, Any]]:
    """A record an episode, policy by policy."""
    return [
        {
            "task": task,
            "policy": name,
            "episode": k,
            "success": episode.success,
            "steps": episode.steps,
            "initial_distance": episode.initial_distance,
            "goal_distance": [round(distance, 4) for distance in episode.goal_distance],
        }
        for name, episodes in played.items()
        for k, episode in enumerate(episodes)
    ]


def _result(
    envs: ModuleType,
    env: Any,
    task: str,
    checkpoint: Checkpoint,
    settings: PlannerConfig,
    protocol: Protocol,
    pairs: Pairs,
    played: dict[str, list[Episode]],
    planner: MPC,
    guard: Guard,
) -> dict[str, Any]:
    arms = {name: summary(sum(e.success for e in episodes), len(episodes)) for name, episodes in played.items()}
    times = latency(planner.plan_seconds)
    floor = max(arms[name]["success_rate"] for name in ("random", "noop"))
    frozen = _frozen(envs, task)
    return {
        "task": task,
        **arms["planner"],
        "hard_score": _or_none(hard_score(arms["planner"]["success_rate"], floor)),
        "smallest_difference": _or_none(smallest_difference(len(pairs.pairs))),
        "protocol": frozen.check(protocol, pairs.pairs, env) if frozen else None,
        "floors": {name: arms.get(name) for name in ("random", "noop", "oracle")},
        "removed_pairs": pairs.solved,
        "ruled_out_pairs": pairs.ruled_out,
        "pair_rule": env.pair_rule,
        "simulates": env.simulates,
        "plan_ms": times,
        "control_hz": 1000 / times["median"],
        "fallbacks": planner.fallbacks,
        "interventions": guard.report(),
        "deadline_ms": protocol.deadline_ms,
        "incomplete_plans": planner.incomplete,
        "distance": protocol.distance,
        "budget": protocol.budget(env),
        "goals": protocol.goals,
        "by_goal": _by_goal(played["planner"], env.own_goals) if protocol.goals == "own" else None,
        "strict": protocol.strict,
        "seed": protocol.seed,
        "noise": protocol.noise_seed,
        "num_envs": protocol.num_envs,
        "optimizer": settings.optimizer,
        "planner": asdict(settings),
        "backend": envs.choose_backend(),
        "checkpoint_backend": checkpoint.renderer,
        "checkpoint_sha256": checkpoint.sha256,
        "versions": versions(*env.packages),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _or_none(number: float) -> float | None:
    """JSON has no NaN."""
    return number if math.isfinite(number) else None


def choose(successes: Sequence[bool], most: int) -> list[int]:
    """Up to `most` episodes, in order, at least a quarter of them failures if there are as many."""
    failed = [k for k, success in enumerate(successes) if not success]
    reached = [k for k, success in enumerate(successes) if success]
    failed = failed[: max(-(-most // 4), most - len(reached))]
    return sorted(failed + reached[: most - len(failed)])


def _clips(task: str, episodes: list[Episode], shown: Sequence[int]) -> list[Clip]:
    return [Clip(np.stack(episodes[k].frames), episodes[k].goal, f"{task} {k}", episodes[k].success) for k in shown]


def _imagined(
    task: str, room: Any, episodes: list[Episode], shown: Sequence[int], recorder: Recorder, protocol: Protocol
) -> list[Imagined]:
    """What the planner imagined in the episodes `shown`: at the first plan, and half way if that is another one."""
    bank = bank_of_play(room, recorder.planner.model, protocol.seed)
    found = []
    for k in shown:
        moments = recorder.moments(k, episodes[k].steps)
        chosen = sorted({0, len(moments) // 2})
        found += [imagine(task, k, episodes[k], moments[i], recorder.planner, bank) for i in chosen]
    return found


def _by_goal(episodes: list[Episode], goals: int) -> list[dict[str, Any]]:
    """The summary of each of the benchmark's own goals, which are played in turn."""
    return [summary(sum(e.success for e in one), len(one)) for k in range(goals) if (one := episodes[k::goals])]


def write_results(out: Path, outcomes: Sequence[Outcome]) -> tuple[Path, Path, Path]:
    """Writes `results.json`, `episodes.jsonl`, `plan.mp4`, `plan.png` and `report.html` into `out`.

    Returns:
        The paths of `plan.mp4`, `report.html` and `results.json`. With one outcome `results.json` holds its result,
        with several a list of them.
    """
    from .report import write_report
    from .video import film_strip, write_video

    out.mkdir(parents=True, exist_ok=True)
    results = [outcome.result for outcome in outcomes]
    records = [record for outcome in outcomes for record in outcome.records]
    clips = [clip for outcome in outcomes for clip in _some(outcome.clips, MAX_CLIPS // len(outcomes))]
    imagined = [one for outcome in outcomes for one in outcome.imagined]
    video, report, numbers = out / "plan.mp4", out / "report.html", out / "results.json"
    write_atomically(numbers, json.dumps(results[0] if len(results) == 1 else results, indent=1) + "\n")
    write_atomically(out / "episodes.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    write_video(video, clips)
    shown = max(clips, key=lambda clip: (bool(clip.success), len(clip.frames)))
    film_strip(out / "plan.png", shown, every=max(1, len(shown.frames) // 6))
    write_report(report, results, records, video, imagined)
    return video, report, numbers


def _some(clips: Sequence[Clip], most: int) -> list[Clip]:
    return [clips[i] for i in choose([bool(clip.success) for clip in clips], most)]


def _apart(result: dict[str, Any]) -> str:
    apart = {"any": "of random states", "own": "of the benchmark's own goals"}.get(result["goals"])
    apart = apart or f"{result['distance']} steps apart"
    return f"{apart}, half the tolerance kept for five steps" if result["strict"] else apart


def card_figures(result: dict[str, Any]) -> str:
    """The measured success of a checkpoint, in Markdown, for its card."""
    floors = {name: arm for name, arm in result["floors"].items() if arm}
    low, high = result["interval"]
    beside = ", ".join(f"{name} {arm['successes']}/{arm['n']}" for name, arm in floors.items())
    return "\n".join(
        [
            f"Goals reached: **{result['successes']}/{result['n']}**"
            f" (95 % interval {low:.1%} to {high:.1%}); {beside}.",
            "",
            f"Held-out pairs {_apart(result)}, budget {result['budget']} steps, seed {result['seed']};"
            f" {result['pair_rule']}. {result['removed_pairs']} pairs that were solved at the start were removed,"
            f" {result['ruled_out_pairs']} ruled out. A plan took {result['plan_ms']['median']:.0f} ms (median,"
            f" {result['num_envs']} env, p95 {result['plan_ms']['p95']:.0f} ms); renderer {result['backend']};"
            f" commit {result['commit']}; {result['date'][:10]}.",
            "",
        ]
    )
