"""Claim 2, rehearsal costs a fraction: what a step, a plan, an episode take in latents, in pixels, in the simulator."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

import envs
from benchmarks.speed.growth import peak_bytes
from benchmarks.speed.limits import count_flops
from planner.energies import LatentDistance
from planner.evaluate.protocol import held_out_pairs, play_pairs
from planner.types import Context, WorldModel

from .clips import Clips, Probe, place, play_clips
from .contenders import TASKS, Contender, contenders
from .rows import Row, Rows, digest
from .weights import RIVALS, shape_for
from .worlds import scaled, shown

HORIZONS, CANDIDATES = (1, 3, 10, 30, 100), (1, 10, 100, 1000)
BASE = {"S": 64, "T": 5}
"""What is not varied: the planner's own, or nearly."""
SIZES = [BASE] + [BASE | {"T": t} for t in HORIZONS] + [BASE | {"S": s} for s in CANDIDATES]


class Renderer:
    """Implements `types.WorldModel`: the simulator steps and draws every imagined future, one after the other.

    Args:
        env: the task; it is played with, and given back in the state it was in.
    """

    history = 1

    def __init__(self, env: Any) -> None:
        self.env, self.action = env, env.action_spec()

    def encode(self, obs: TensorDict) -> TensorDict:
        """The true `state`, and `pixels` in [-1, 1]."""
        seen = {"state": obs["state"].double(), "pixels": scaled(obs["pixels"])}
        return TensorDict(seen, batch_size=obs.batch_size)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidates `[E, S, T, A]` to `pixels` `[E, S, T, size, size, 3]`."""
        kept, starts = self.env.state, context.latent["state"][:, -1].numpy()
        physical = self.action.decode(actions).double().numpy()  # [E, S, T, block, a]
        pixels = np.empty((*actions.shape[:3], self.env.size, self.env.size, 3), np.uint8)
        for e, s in np.ndindex(*actions.shape[:2]):
            self.env.set_state(starts[e])
            for t, block in enumerate(physical[e, s]):
                for action in block:
                    self.env.advance(action)
                pixels[e, s, t] = self.env.picture()
        self.env.set_state(kept)
        return TensorDict({"pixels": scaled(torch.from_numpy(pixels))}, batch_size=actions.shape[:3])


def run(task: str, quick: bool, report: Rows) -> None:
    """Reports rows of steps, plans, episodes and of the error over the horizon, on a task of `TASKS`."""
    steps(task, [BASE] if quick or task != TASKS[0] else SIZES, report)
    for contender in everyone(task):
        episodes(contender, 2 if quick else 10, report)
    env = envs.make(task)
    episodes_of_renderer(env, 1 if quick else 3, report)
    clips = play_clips(env, 8 if quick else 40, 20 if quick else 101)
    for contender in contenders(task):
        foresight(contender, clips, report)
    env.close()


def everyone(task: str) -> list[Contender]:
    """One of each kind and energy, by preference trained on plain pictures, as these are."""
    both = [one for energy in ("latent", "pixels") for one in contenders(task, energy) if not one.note]
    return list({(one.model, one.energy): one for one in sorted(both, key=lambda one: -one.augment)}.values())


def ours_and_untrained(task: str) -> list[Contender]:
    """Ours as it ships, and rivals of the shapes that are trained: what a step costs does not depend on weights."""
    ours = next(contenders(task))
    found, shape = [ours], ours.checkpoint.model.config
    for kind, (make, _) in RIVALS.items():
        model = make(shape_for(task, kind, shape.image_size, shape.width), ours.checkpoint.model.action)
        model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        checkpoint = replace(ours.checkpoint, model=model, sha256="untrained")
        found += [Contender(kind, 0.0, energy, checkpoint) for energy in ("latent", "pixels")]
    return found


def steps(task: str, sizes: list[dict[str, int]], report: Rows) -> None:
    """Milliseconds, CPU seconds, FLOPs and bytes of one rehearsal of each size, all in turn."""
    env = envs.make(task)
    env.reset(seed=0)
    for size in sizes:
        row: Row = {"part": "cost", "kind": "step", "task": task, **size}
        runs = {name: run for name, run in rehearsals(env, size).items() if not report.has(row | name_of(name))}
        if not runs:
            continue
        for name, found in in_turn(runs, 2).items():
            report(row | name_of(name) | found)
    env.close()


def name_of(name: tuple[str, str, str]) -> Row:
    return dict(zip(("model", "energy", "sha256"), name, strict=True))


def rehearsals(env: Any, size: dict[str, int]) -> dict[tuple[str, str, str], Callable[[], object]]:
    """What rehearses `S` candidates over `T` steps and judges them, by model, energy and weights."""
    picture = torch.from_numpy(env.picture())[None, None]
    obs = {"pixels": picture, "state": torch.from_numpy(env.state)[None, None]}
    plans = (
        torch.rand(1, size["S"], size["T"], env.action_spec().dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
    )
    runs: dict[tuple[str, str, str], Callable[[], object]] = {}
    for one in ours_and_untrained(env.name):
        planner = one.planner(0)
        runs[one.model, one.energy, one.checkpoint.sha256] = _rehearsal(planner.model, planner.energy, obs, plans)
    runs["simulator", "pixels", "-"] = _rehearsal(Renderer(env), LatentDistance(over="min", key="pixels"), obs, plans)
    return runs


@torch.no_grad()
def _rehearsal(model: WorldModel, energy: Any, obs: dict[str, Tensor], plans: Tensor) -> Callable[[], object]:
    frames = TensorDict(obs, batch_size=[1, 1]).expand(1, model.history)
    latent = model.encode(frames)
    context = Context(latent, torch.zeros(1, model.history - 1, plans.shape[-1]))

    def judge() -> Tensor:
        # Pictures of many futures do not fit into memory at once: they are judged a part at a time, as in planning.
        with torch.no_grad():
            parts = plans.split(max(1, 2000 // plans.shape[2]), dim=1)
            return torch.cat([energy(model.rollout(context, part), latent[:, 0], part) for part in parts], 1)

    return judge


def in_turn(runs: dict[Any, Callable[[], object]], repeats: int) -> dict[Any, Row]:
    """Medians of `repeats` rounds of all runs, so that a busy moment strikes them all; FLOPs and peak bytes once."""
    wall: dict[Any, list[float]] = {name: [] for name in runs}
    cpu: dict[Any, list[float]] = {name: [] for name in runs}
    counted = {}
    for name, run in runs.items():  # the first call of each warms up
        counted[name] = {"flops": count_flops(run), "peak_bytes": peak_bytes(run)}
    for _ in range(repeats):
        for name, run in runs.items():
            began, used = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    return {
        name: {"ms": 1e3 * statistics.median(wall[name]), "cpu_s": statistics.median(cpu[name])} | counted[name]
        for name in runs
    }


def episodes(contender: Contender, n: int, report: Rows) -> None:
    """Time of a plan and CPU seconds of planning a success, one environment at a time."""
    if contender.energy == "pixels":
        n = max(1, n // 3)
    row: Row = {"part": "cost", "kind": "episode", "task": contender.checkpoint.task, **contender.planned, "n": n}
    if not report.has(row):
        report(row | _play(envs.make(contender.checkpoint.task), contender.planner(0), n, privileged=False))


def episodes_of_renderer(env: Any, n: int, report: Rows) -> None:
    """The same with the simulator and its renderer in the model's place, and pictures compared."""
    settings = next(contenders(env.name)).settings
    row: Row = {"part": "cost", "kind": "episode", "task": env.name, "model": "simulator", "energy": "pixels", "n": n}
    row |= {"planner": digest(settings)}
    if report.has(row):
        return
    planner = settings.build(Renderer(envs.make(env.name)), 0, LatentDistance(over=settings.over, key="pixels"))
    report(row | _play(env, planner, n, privileged=True))


def _play(room: Any, planner: Any, n: int, *, privileged: bool) -> Row:
    pairs = held_out_pairs(room, n, 25, 0)
    act, spent = planner.act, []

    def timed(obs: TensorDict) -> np.ndarray:
        began = time.process_time()
        action = act(obs)
        spent.append(time.process_time() - began)
        return action

    planner.act = timed
    played = play_pairs([room], planner, pairs.pairs, 50, privileged=privileged)
    successes = sum(episode.success for episode in played)
    return {
        "successes": successes,
        "plan_ms": 1e3 * statistics.median(planner.plan_seconds),
        "plans": len(planner.plan_seconds),
        "cpu_s": sum(spent),
        "cpu_s_per_success": sum(spent) / successes if successes else None,
    }


@torch.no_grad()
def foresight(contender: Contender, clips: Clips, report: Rows) -> None:
    """Error of the position read from latents foreseen open loop, metres, over the horizon.

    The probe is fitted on encoded frames of the even episodes; the odd ones are foreseen from their first H frames.
    What a rival foresees is also drawn and looked at again (`redrawn_m`): nothing holds its foreseen latents to those
    of pictures, and `latent_error` says how far they are from these, beside predicting no change.
    """
    (n, length), task = clips.actions.shape[:2], contender.checkpoint.task
    row: Row = {"part": "cost", "kind": "foresight", "task": task, **contender.key, "n": n, "steps": length}
    if report.has(row):
        return
    model, position = contender.checkpoint.model, place(task, clips.state)
    history = model.history
    latents = torch.stack([model.embed(episode) for episode in clips.pixels])
    probe = Probe.fit(latents[::2].flatten(0, 1), position[::2].flatten(0, 1))
    odd, done, truth = latents[1::2], clips.actions[1::2], position[1::2].double()
    context = Context(TensorDict({"latent": odd[:, :history]}, batch_size=[len(odd), history]), done[:, : history - 1])
    futures = model.rollout(context, done[:, None, history - 1 :])["latent"][:, 0]
    ahead = truth[:, history:]

    def apart(found: Tensor) -> list[float | None]:
        """Mean distance, metres, a step; None where a rollout left the numbers."""
        errors = (found - ahead).norm(dim=-1).mean(0).tolist()
        return [round(x, 4) if math.isfinite(x) else None for x in errors]

    found = {"error_m": apart(probe(futures)), "seen_m": apart(probe(odd[:, history:]))}
    found["latent_error"] = beside_no_change(futures, odd[:, history:], odd[:, history - 1 : history])
    if hasattr(model, "decode"):
        drawn = (model.embed(shown(model.decode(episode).nan_to_num(0.0, 1.0, -1.0))) for episode in futures)
        found["redrawn_m"] = apart(probe(torch.stack(list(drawn))))
    report(row | found | {"still_m": apart(truth[:, history - 1 : history].expand_as(ahead))})


def beside_no_change(foreseen: Tensor, then: Tensor, now: Tensor) -> list[float]:
    """Mean square distance of latents `[n, T, D]` to those that then came, over that of the last before `[n, 1, D]`."""
    errors, moved = ((one - then).square().mean((0, 2)) for one in (foreseen, now))
    return [round(float(x), 3) for x in errors / moved]
