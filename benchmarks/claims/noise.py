"""Claim 1, noise is abstracted away: success under growing nuisance, and what latents know of state and nuisance."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

import envs
from planner.evaluate.protocol import held_out_pairs, play_pairs
from planner.evaluate.statistics import latency, summary
from planner.guard import Guard, Limits

from .clips import disturbed, place, play_clips, readable, variance_share
from .contenders import CLOUDS, TASKS, Contender, contenders
from .nuisance import KINDS, disturb
from .rows import Row, Rows

DISTANCE, SEED = 25, 0
PROBE_SEVERITY = 2
LOOKS = 8
"""Looks at each state for the share of variance."""


def run(task: str, quick: bool, report: Rows) -> None:
    """Reports a row a contender, nuisance and severity, of success and of probes, on a task of `TASKS`."""
    ships, *others = contenders(task)
    judged = [ships, *(one for one in others if not (quick and one.note))]  # a look leaves variants out
    for kind, severity in settings((2,) if quick else (4, 2, 3, 1) if task == TASKS[0] else (4, 2)):
        for contender in judged:
            play(contender, kind, severity, 6 if quick else 40, report)
    for contender in judged:
        for kind in ("noise",) if quick else KINDS:
            look(contender, kind, 8 if quick else 24, report)
    in_pictures = () if quick else contenders(task, "pixels")
    for contender in (one for one in in_pictures if one.note != CLOUDS):  # these are judged by their latents alone
        for kind, severity in settings((2,) if task == TASKS[0] else ()):  # fewer: a plan takes tens of times as long
            play(contender, kind, severity, 10, report)


def settings(severities: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """Nuisances and severities, the telling ones first; 0, the same for all, once."""
    yield "none", 0
    for severity in severities:
        for kind in KINDS:
            yield kind, severity


def play(contender: Contender, kind: str, severity: int, n: int, report: Rows) -> None:
    """Success of a contender on `n` held-out pairs under a nuisance, ten environments at once."""
    together, task = min(10, n), contender.checkpoint.task
    row: Row = {"part": "noise", "kind": "success", "task": task, **contender.planned, "nuisance": kind}
    row |= {"severity": severity, "n": n, "distance": DISTANCE, "seed": SEED, "num_envs": together}
    if report.has(row):
        return
    rooms = [envs.make(task) for _ in range(together)]
    pairs = held_out_pairs(rooms[0], n, DISTANCE, SEED)
    for i, room in enumerate(rooms if severity else ()):
        disturb(room, kind, severity, [SEED, i])
    planner = contender.planner(SEED)
    guard = Guard(planner, contender.checkpoint.model.action, Limits(survive_errors=False))
    began = time.process_time()
    episodes = play_pairs(rooms, guard, pairs.pairs, 2 * DISTANCE)
    found: dict[str, Any] = summary(sum(episode.success for episode in episodes), n)
    found |= {"closest": [round(min(episode.goal_distance), 3) for episode in episodes]}
    report(row | found | {"cpu_seconds": time.process_time() - began, "plan_ms": latency(planner.plan_seconds)})
    for room in rooms:
        room.close()


def look(contender: Contender, kind: str, n: int, report: Rows) -> None:
    """What a linear map reads off the latents of `n` held-out episodes, and how much of them is nuisance."""
    task = contender.checkpoint.task
    row: Row = {"part": "noise", "kind": "probe", "task": task, **contender.key, "nuisance": kind}
    row |= {"severity": PROBE_SEVERITY, "n": n}
    if report.has(row):
        return
    env, model = envs.make(task), contender.checkpoint.model
    clips = play_clips(env, n, 20)
    pixels, behind = disturbed(clips.pixels, kind, PROBE_SEVERITY)
    position = place(task, clips.state)
    with torch.no_grad():
        latents = model.embed(pixels)
        states = clips.pixels[:, ::5].flatten(0, 1)
        # A stream each: looks that follow each other in one are alike, and much of the nuisance would count as state.
        looks, _ = disturbed(states.repeat_interleave(LOOKS, 0)[:, None], kind, PROBE_SEVERITY, seed=1)
        share = variance_share(model.embed(looks).unflatten(0, (-1, LOOKS))[:, :, 0])
    found = {"state_r2": readable(latents, position), "nuisance_r2": readable(latents, behind), "nuisance_share": share}
    report(row | found)
    env.close()
