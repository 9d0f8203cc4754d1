"""How time and memory of our plan grow with S, T, E and D, each varied alone."""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from planner.models.jepa import JEPAConfig

from .peers import Run, ours
from .shapes import Budget, Shape, make_model, make_problem

BASE = {"S": 256, "T": 8, "E": 1, "D": 96}
ITERATIONS, REPEATS = 2, 5
VALUES = {
    "S": (64, 128, 256, 512, 1024, 2048, 4096, 8192),
    "T": (2, 4, 8, 16, 32, 64, 128),
    "E": (1, 2, 4, 8, 16, 32, 64),
    "D": (24, 48, 96, 192, 384, 768, 1536, 3072),
}


def grow(quick: bool) -> list[dict[str, Any]]:
    """Rows of a plan's milliseconds and peak megabytes, with our small model on one thread, and of their slopes."""
    torch.set_num_threads(1)
    rows = []
    for axis, values in VALUES.items():
        points = _measure(axis, values[:4] if quick else values)
        rows += points + [_slope(axis, of, points) for of in ("ms", "peak_mb")]
    return rows


def _measure(axis: str, values: tuple[int, ...]) -> list[dict[str, Any]]:
    runs = {value: _planner(BASE | {axis: value}) for value in values}
    seconds: dict[int, list[float]] = {value: [] for value in values}
    for _ in range(REPEATS):  # in turn, so that a busy moment does not bend the curve
        for value, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[value].append(time.perf_counter() - began)
    return [
        {"kind": "growth", "axis": axis, "value": value, "base": BASE, "iterations": ITERATIONS}
        | {"ms": round(1000 * statistics.median(seconds[value]), 3), "peak_mb": round(peak_bytes(run) / 1e6, 4)}
        for value, run in runs.items()
    ]


def _slope(axis: str, of: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    """A power law, `factor * value ** slope`, fitted to the upper half: below, what does not grow still counts."""
    upper = points[len(points) // 2 :]
    slope, offset = np.polyfit(np.log([point["value"] for point in upper]), np.log([point[of] for point in upper]), 1)
    fit = {"slope": round(float(slope), 3), "factor": float(np.exp(offset))}
    return {"kind": "slope", "axis": axis, "of": of, "from": upper[0]["value"], "to": upper[-1]["value"]} | fit


def _planner(sizes: dict[str, int]) -> Run:
    config = JEPAConfig(latent_dim=sizes["D"], history=2, hidden=512, depth=2)
    model = make_model(Shape(config, frames=2))
    return ours("CEM")(make_problem(model, 2, Budget(sizes["S"], ITERATIONS, sizes["T"]), sizes["E"]))


def peak_bytes(run: Run) -> int:
    """Most bytes of tensors that a call holds at once, beyond what was held before it."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler announces each of its stages
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
