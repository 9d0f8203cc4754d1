"""The yardsticks of bench-speed: what is counted, what is least, what is equal, and that every loop runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.speed import growth, measure, shapes
from benchmarks.speed.limits import Products, count_flops, gemm_rate, least_flops
from benchmarks.speed.measure import Case, equality, in_turn
from benchmarks.speed.restated import RESTATED
from benchmarks.speed.shapes import Budget, Shape, make_model, make_problem, rehearse
from planner.models.jepa import JEPAConfig
from planner.models.packed import Packed

TOYS = {
    "mlp": Shape(JEPAConfig(latent_dim=12, history=2, hidden=20, depth=2, width=4, image_size=16), frames=2),
    "long mlp": Shape(JEPAConfig(latent_dim=12, history=3, hidden=20, depth=3, width=4, image_size=16), frames=3),
    "transformer": Shape(
        JEPAConfig("conv", "transformer", 16, width=4, latent_dim=12, history=3, hidden=20, depth=2, heads=1), frames=1
    ),
}
each_toy = pytest.mark.parametrize("shape", TOYS.values(), ids=TOYS)
BUDGET = Budget(samples=20, iterations=1, horizon=5)


@each_toy
@pytest.mark.parametrize("envs", [1, 3])
def test_our_rollout_takes_hardly_more_than_the_least_flops(shape: Shape, envs: int) -> None:
    """The formula by which every planner is judged, against a count of what is really multiplied."""
    problem = make_problem(make_model(shape), shape.frames, BUDGET, envs)
    plans = torch.rand(envs, BUDGET.samples, BUDGET.horizon, problem.model.action.dim)
    rows = [part.repeat_interleave(BUDGET.samples, 0) for part in (problem.latents, problem.past)]
    with torch.no_grad():
        ours = count_flops(lambda: problem.model.rollout(problem.context, plans))
        packed = count_flops(lambda: Packed(problem.model).rollout(problem.context, plans))
        naive = count_flops(lambda: rehearse(problem.model, *rows, plans.flatten(0, 1)))
    least = least_flops(problem)
    if problem.model.config.predictor == "mlp":
        # What was done before is multiplied for each candidate: it lies among what is a candidate's own.
        repeated = sum(range(problem.model.history)) * problem.model.action.dim * problem.model.config.hidden
        assert ours == packed == least + 2 * envs * (BUDGET.samples - 1) * repeated < 1.1 * least
    else:  # attention is written out key by key, in products that the counter does not know
        assert 0.99 * least < ours == packed <= least
    assert naive > 1.05 * ours


def test_flops_and_products_by_hand() -> None:
    left, right = torch.rand(3, 4), torch.rand(4, 5)
    with Products() as products:
        left @ right
        torch.nn.functional.linear(left, right.t(), torch.zeros(5))
    assert products.shapes == {(3, 4, 5): 2}
    assert count_flops(lambda: left @ right) == 2 * 3 * 4 * 5
    assert gemm_rate(products.shapes, least_s=1e-3) > 0


@pytest.mark.filterwarnings("ignore:this processor does not multiply bfloat16")
@each_toy
def test_a_rollout_that_is_not_the_naive_one_is_noticed(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shapes.SHAPES, "toy", shape)
    row = equality("toy", candidates=20, horizon=5)
    assert row["error"] <= row["bound"] < row["spread_of_candidates"]
    assert row["error"] < row["error_in_bfloat16"] < 0.1
    naive = measure.rehearse
    monkeypatch.setattr(measure, "rehearse", lambda *given: naive(*given) * 1.01)
    assert (row := equality("toy", candidates=20, horizon=5))["error"] > row["bound"]


@pytest.mark.filterwarnings("ignore:this processor does not multiply bfloat16")
def test_a_case_has_a_row_for_everybody_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not installed is missing by name; what is measured in part is scaled up."""
    monkeypatch.setitem(shapes.SHAPES, "toy", TOYS["mlp"])
    case = Case("toy", Budget(20, 6, 3), envs=2, iterations=2, envs_measured=1, repeats=1)
    rows = list(measure.measure(case, threads=(1,)))
    measured = {(row["planner"], row["optimizer"]): row for row in rows if row["kind"] == "plan"}
    missing = {(row["planner"], row["optimizer"]): row["reason"] for row in rows if row["kind"] == "missing"}
    asked = {(one.peer, one.optimizer) for one in case.contenders()}
    assert measured.keys() | missing.keys() == asked and not measured.keys() & missing.keys()
    assert {("ours", "CEM"), ("ours", "iCEM"), ("ours", "MPPI"), ("TD-MPC2's loop", "MPPI")} <= measured.keys()
    absent = ("No module", "no package", "No package", "does not multiply bfloat16")
    assert all(any(words in reason for words in absent) for reason in missing.values())
    row = measured["ours", "CEM"]
    assert row["extrapolated"] and row["measured"] == {"envs": 1, "samples": 20, "iterations": 2}
    assert row["ms"] > 0 and row["times_limit"] > 0 and row["gflop"] >= 0.9 * row["least_gflop"]


@pytest.mark.parametrize("contender", RESTATED, ids=lambda one: one.peer)
def test_restated_loops_plan_towards_the_goal(contender: measure.Contender) -> None:
    """A loop that does not search is fast."""
    shape = TOYS["mlp"]
    problem = make_problem(make_model(shape), shape.frames, Budget(200, 6, 1), envs=2)
    torch.manual_seed(0)
    action = contender.build(problem)().reshape(2, -1)[:, : problem.model.action.dim]

    def left(actions: torch.Tensor) -> torch.Tensor:
        return shapes.distance(
            rehearse(problem.model, problem.latents, problem.past, actions[:, None])[:, -1], problem.goal
        )

    with torch.no_grad():
        random = torch.stack([left(torch.rand_like(action) * 2 - 1) for _ in range(50)])
        assert (left(action) < random.mean(0)).all()


def test_plans_in_turn_take_as_long_as_there_are_environments() -> None:
    shared = {"kind": "plan", "model": "toy", "samples": 20, "threads": 1, "gflop": 1.0, "least_gflop": 0.5}
    times = {"ms": 10.0, "ms_least": 9.0, "ms_most": 12.0}
    rows = [shared | times | {"planner": "ours", "optimizer": "CEM", "envs": envs} for envs in (1, 8)]
    rows += [shared | times | {"planner": "DINO-WM's loop", "optimizer": "CEM", "envs": 1}]
    (made,) = in_turn(rows)
    assert made["planner"] == "DINO-WM's loop" and made["envs"] == 8 and made["extrapolated"]
    assert (made["ms"], made["ms_most"], made["gflop"]) == (80.0, 96.0, 8.0)


def test_slopes_are_those_of_power_laws() -> None:
    points = [{"value": value, "ms": 3 * value**1.5} for value in (1, 2, 4, 8, 16, 32)]
    slope = growth._slope("S", "ms", points)
    np.testing.assert_allclose([slope["slope"], slope["factor"]], [1.5, 3], rtol=1e-3)
    assert (slope["from"], slope["to"]) == (8, 32)


def test_memory_grows_with_what_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "REPEATS", 1)
    monkeypatch.setattr(growth, "BASE", {"S": 16, "T": 2, "E": 1, "D": 8})
    small, large = growth._measure("S", (64, 256))
    assert 2 < large["peak_mb"] / small["peak_mb"] < 5 and large["ms"] > 0


def test_budgets_scale_the_least() -> None:
    shape = TOYS["mlp"]
    problem = make_problem(make_model(shape), shape.frames, BUDGET, 1)
    thrice = replace(problem, budget=replace(BUDGET, iterations=3))
    assert least_flops(thrice) == 3 * least_flops(problem)
