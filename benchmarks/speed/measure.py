"""Paired timings: every planner on the same problem, in turn, again and again."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tensordict
import torch

from planner.models.packed import Packed

from .limits import Products, count_flops, gemm_rate, least_flops, speed_up
from .peers import CONTENDERS, Contender, Run
from .restated import RESTATED
from .shapes import BUDGETS, SHAPES, Budget, Problem, make_model, make_problem, rehearse

EVERY = (*CONTENDERS, *RESTATED)
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What is planned, and how much of it is measured; the rest follows in proportion.

    Attributes:
        model: name in `SHAPES`.
        budget: of a plan.
        envs: E.
        iterations: measured.
        envs_measured: measured, of planners that take environments in one batch; the others are measured on one.
        repeats: rounds of all planners in turn.
        one_each: only the first optimizer of each planner.
        pictures: candidates measured of planners that encode pictures for each; 0 for all.
    """

    model: str
    budget: Budget
    envs: int
    iterations: int
    envs_measured: int
    repeats: int = 3
    one_each: bool = False
    pictures: int = 0

    def contenders(self) -> list[Contender]:
        """Those to measure; planners without batches were measured on one environment already."""
        chosen = [c for c in EVERY if (self.envs == 1 or c.batched) and c.model in ("", self.model)]
        if self.one_each:
            chosen = list({c.peer: c for c in reversed(chosen) if not c.model}.values())[::-1]
        return chosen


FULL, BRIEF = BUDGETS
CASES = (
    Case("small", FULL, 1, 30, 1, repeats=5, pictures=60),
    Case("small", FULL, 8, 4, 8),
    Case("small", FULL, 50, 1, 50),
    Case("small", BRIEF, 1, 5, 1, repeats=7),
    Case("small", BRIEF, 8, 5, 8),
    Case("small", BRIEF, 50, 2, 50),
    # One iteration of one environment is 75 and 28 GFLOP here; beyond a thousand rows, rows cost the same.
    Case("lewm", FULL, 1, 2, 1, pictures=10),
    Case("lewm", FULL, 8, 1, 2, repeats=2, one_each=True),
    Case("lewm", FULL, 50, 1, 3, repeats=2, one_each=True),
    Case("lewm", BRIEF, 1, 2, 1, pictures=10),
    Case("lewm", BRIEF, 8, 1, 8, repeats=2, one_each=True),
    Case("lewm", BRIEF, 50, 1, 10, repeats=2, one_each=True),
)
QUICK = (
    Case("small", FULL, 1, 2, 1),
    Case("small", BRIEF, 1, 5, 1),
    Case("small", BRIEF, 8, 2, 8, repeats=1),
    Case("lewm", BRIEF, 1, 1, 1, repeats=1, pictures=2),
)


@dataclass
class Entry:
    """A planner in a case: what to call, and what came of it."""

    contender: Contender
    problem: Problem
    run: Run
    flops: int
    seconds: list[float] = field(default_factory=list)
    error: Exception | None = None


def header() -> Row:
    """When, where and with what this was measured."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()

    cpus = [line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    changed = bool(git("status", "--porcelain", "--", "planner", "benchmarks/speed"))
    return {
        "kind": "run",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpus[0] if cpus else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "commit": git("rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tensordict": tensordict.__version__,
    }


def equality(name: str, candidates: int = 64, horizon: int = 8) -> Row:
    """How far our rollout is from the naive one on the same candidates, relative to the latents' largest value."""
    model = make_model(SHAPES[name])
    problem = make_problem(model, SHAPES[name].frames, Budget(candidates, 1, horizon), envs=2)
    plans = torch.rand(2, candidates, horizon, model.action.dim) * 2 - 1
    with torch.no_grad():
        ours = (Packed(model, dtype) for dtype in (torch.float32, torch.bfloat16))
        fast, rounded = (one.rollout(problem.context, plans)["latent"] for one in ours)
        start = [part.repeat_interleave(candidates, 0) for part in (problem.latents, problem.past)]
        naive = rehearse(model, *start, plans.flatten(0, 1)).unflatten(0, plans.shape[:2])
    error, rounding = (((found - naive).abs().max() / naive.abs().max()).item() for found in (fast, rounded))
    moved = (naive - naive[:, :1]).abs().max().item()  # candidates that all come to the same would prove nothing
    return {"kind": "equal", "model": name, "error": error, "bound": 1e-4} | {
        "error_in_bfloat16": rounding,
        "spread_of_candidates": moved,
    }


def measure(case: Case, threads: tuple[int, ...]) -> Iterator[Row]:
    """Rows of a case, and of those that failed in it."""
    model = make_model(SHAPES[case.model])
    entries = []
    for contender in case.contenders():
        try:
            entries.append(_prepare(case, contender, model))
        except Exception as error:  # whatever it is, it belongs into the report
            yield missing(case, contender, error)
    for count in threads:
        if (gain := speed_up(count)) < 0.6 * count:
            reason = f"the machine was busy: products ran {gain:.2f} times as fast as on one thread"
            row = {"kind": "skipped", "model": case.model, "samples": case.budget.samples, "envs": case.envs}
            yield row | {"threads": count, "reason": reason}
            continue
        torch.set_num_threads(count)
        rates = _take_turns(case, entries)
        for entry in entries:
            if entry.error:
                yield missing(case, entry.contender, entry.error)
            else:
                yield _row(case, entry, count, statistics.median(rates))
    torch.set_num_threads(1)


def missing(case: Case, contender: Contender, error: Exception) -> Row:
    reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return {"kind": "missing", "planner": contender.peer, "optimizer": contender.optimizer} | {
        "model": case.model,
        "envs": case.envs,
        "reason": reason,
    }


def _prepare(case: Case, contender: Contender, model: Any) -> Entry:
    """Builds the planner's problem; warms up and counts FLOPs on one environment, to which all others are equal."""
    samples = case.pictures if contender.encodes and case.pictures else case.budget.samples
    budget = replace(case.budget, samples=samples, iterations=case.iterations)
    problem = make_problem(model, SHAPES[case.model].frames, budget, case.envs_measured)
    flops = case.envs_measured * count_flops(contender.build(problem.first(1)))
    return Entry(contender, problem, contender.build(problem), flops)


def _take_turns(case: Case, entries: list[Entry]) -> list[float]:
    """Times every planner in turn, `repeats` times over, and the rate of matrix products before each round, FLOP/s."""
    shapes = _products(case)
    rates = []
    for entry in entries:
        entry.seconds.clear()
    for _ in range(case.repeats):
        rates.append(gemm_rate(shapes))
        for entry in (entry for entry in entries if not entry.error):
            began = time.perf_counter()
            try:
                entry.run()
            except Exception as error:  # on several environments, where the warm-up had one
                entry.error = error
            entry.seconds.append(time.perf_counter() - began)
    return rates


def _products(case: Case) -> Any:
    """Shapes of the products in one rollout of ours with S candidates for each environment measured."""
    model = make_model(SHAPES[case.model])
    problem = make_problem(model, SHAPES[case.model].frames, case.budget, case.envs_measured)
    plans = torch.zeros(case.envs_measured, case.budget.samples, case.budget.horizon, model.action.dim)
    with torch.no_grad(), Products() as products:
        model.rollout(problem.context, plans)
    return products.shapes


def _row(case: Case, entry: Entry, threads: int, rate: float) -> Row:
    done, budget = entry.problem, case.budget
    scale = case.envs / done.envs * budget.samples / done.budget.samples * budget.iterations / done.budget.iterations
    seconds, flops = statistics.median(entry.seconds) * scale, entry.flops * scale
    least = least_flops(replace(done, budget=budget)) * case.envs / done.envs
    return {
        "kind": "plan",
        "planner": entry.contender.peer,
        "optimizer": entry.contender.optimizer,
        "version": entry.contender.version,
        "own_model": bool(entry.contender.model),
        "model": case.model,
        "samples": budget.samples,
        "iterations": budget.iterations,
        "horizon": budget.horizon,
        "envs": case.envs,
        "threads": threads,
        "ms": round(1000 * seconds, 3),
        "plans_per_s": round(case.envs / seconds, 4),
        "repeats": len(entry.seconds),
        "ms_least": round(1000 * min(entry.seconds) * scale, 3),
        "ms_most": round(1000 * max(entry.seconds) * scale, 3),
        "extrapolated": scale != 1,
        "measured": {"envs": done.envs, "samples": done.budget.samples, "iterations": done.budget.iterations},
        "gflop": round(flops / 1e9, 3),
        "gflop_per_s": round(flops / seconds / 1e9, 2),
        "gemm_gflop_per_s": round(rate / 1e9, 2),
        "least_gflop": round(least / 1e9, 3),
        "times_limit": round(seconds / (least / rate), 3),
    }


def in_turn(rows: list[Row]) -> list[Row]:
    """Rows of planners without batches for several environments, which are as many plans of one, in turn."""
    plans = [row for row in rows if row["kind"] == "plan"]
    measured = {tuple(row[key] for key in ("model", "samples", "threads", "envs")) for row in plans}
    unbatched = {contender.name for contender in EVERY if not contender.batched}
    return [
        row
        | {"envs": envs, "extrapolated": True}
        | {key: round(row[key] * envs, 3) for key in ("ms", "ms_least", "ms_most", "gflop", "least_gflop")}
        for row in plans
        for model, samples, threads, envs in sorted(measured)
        if f"{row['planner']} {row['optimizer']}" in unbatched
        and (row["model"], row["samples"], row["threads"]) == (model, samples, threads)
        and envs > row["envs"] == 1
    ]
