"""The loop against problems whose answer is known, and against models and energies that fail."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from tensordict import TensorDict
from torch import Tensor

from planner.actions import ActionSpec
from planner.energies import ActionEffort, LatentDistance
from planner.errors import BadInput
from planner.mpc import MPC
from planner.optimizers import CEM, ICEM, MPPI, Chain, Gradient, Hold, MixtureCEM, PredictiveSampling
from planner.plan import Plan, plan
from planner.testing import LinearModel, check_world_model
from planner.types import Context, EnergyLike, WorldModel

E, T, D, A = 3, 4, 4, 2
EFFORT = 0.05
ENERGY = LatentDistance("l2", over="all") + EFFORT * ActionEffort()
SEARCH: dict[str, tuple[Any, int]] = {
    "cem": (CEM(samples=256, elites=32, min_std=0.001), 30),
    "mppi": (MPPI(samples=256, temperature=0.05, decay=0.88), 40),
    "icem": (ICEM(samples=256, elites=32, min_std=0.001, colour=0.5, shrink=1.0), 40),
    "sampling": (PredictiveSampling(samples=4096, std=0.015), 250),
    "adam": (Gradient(samples=4, rate=0.02), 120),
    "sgd": (Gradient(samples=4, method="sgd", rate=0.15, momentum=0.9), 300),
    "chain": (Chain(CEM(samples=128, elites=16), Gradient(samples=4, rate=0.01, std=0.02), switch=5), 60),
    "mixture": (MixtureCEM(samples=512, components=2, elites=24, min_std=0.001), 40),
}
searches = pytest.mark.parametrize(("optimizer", "iterations"), SEARCH.values(), ids=SEARCH.keys())


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SPEC = ActionSpec(low=(-1.0,) * A, high=(1.0,) * A, units=("m",) * A, block=1)
MODEL = LinearModel(torch.eye(D, dtype=torch.float64) + 0.1 * random(D, D, seed=0), random(D, A, seed=1), SPEC)
START, GOAL = 0.2 * random(E, D, seed=2), 0.5 * random(E, D, seed=3)


def solve(
    optimizer: Any = SEARCH["cem"][0],
    iterations: int = 5,
    *,
    model: WorldModel = MODEL,
    energy: EnergyLike = ENERGY,
    rows: slice = slice(None),
    goal: Tensor = GOAL,
    seed: int = 0,
    **knobs: Any,
) -> Plan:
    latent = TensorDict({"latent": START[rows, None]}, batch_size=(len(START[rows]), 1))
    context = Context(latent, torch.zeros(len(latent), 0, A, dtype=torch.float64))
    target = TensorDict({"latent": goal[rows]}, batch_size=len(latent))
    generator = torch.Generator().manual_seed(seed)
    return plan(
        model, context, target, energy, optimizer, iterations=iterations, horizon=T, generator=generator, **knobs
    )


def value(actions: Tensor, goal: Tensor = GOAL) -> Tensor:
    """Energies `[E]` of plans `[E, T, A]`, from the least-squares form and not from model and energy."""
    matrix, target = MODEL.least_squares(START, goal, T, EFFORT)
    return (actions.flatten(1) @ matrix.T - target).square().sum(1)


def optimum(goal: Tensor = GOAL) -> Tensor:
    """The best plans within the bounds, `[E, T, A]`."""
    matrix, target = MODEL.least_squares(START, goal, T, EFFORT)
    found = [lsq_linear(matrix.numpy(), row.numpy(), bounds=(-1, 1), tol=1e-12).x for row in target]
    return torch.from_numpy(np.stack(found)).reshape(E, T, A)


def test_the_known_answer_is_one() -> None:
    """Model and energy agree with the least-squares form, whose normal equations scipy solves too."""
    actions = random(E, 5, T, A, seed=4).clamp(-1, 1)
    context = Context(TensorDict({"latent": START[:, None]}, batch_size=(E, 1)), torch.zeros(E, 0, A))
    cost = ENERGY(MODEL.rollout(context, actions), TensorDict({"latent": GOAL}, batch_size=E), actions)
    torch.testing.assert_close(cost, torch.stack([value(actions[:, s]) for s in range(5)], dim=1))
    matrix, target = MODEL.least_squares(START, GOAL, T, EFFORT)
    normal = torch.linalg.solve(matrix.T @ matrix, matrix.T @ target.T).T.reshape(E, T, A)
    assert normal.abs().max() < 0.95, "the bounds must not matter here"
    torch.testing.assert_close(normal, optimum(), atol=1e-6, rtol=0)


@searches
def test_reaches_the_optimum_of_every_environment(optimizer: Any, iterations: int) -> None:
    found = solve(optimizer, iterations)
    # One optimum for all, or those of the neighbours, would not do: they are further apart than the tolerance.
    apart = (optimum()[:, None] - optimum()[None]).abs().amax((-2, -1)) + torch.eye(E)
    assert apart.min() > 0.15
    torch.testing.assert_close(found.actions, optimum(), atol=0.03, rtol=0)
    gap = (found.energy - value(optimum())) / (value(torch.zeros(E, T, A).double()) - value(optimum()))
    assert (gap >= -1e-9).all() and (gap < 1e-3).all()


@searches
def test_reaches_an_optimum_at_the_bounds(optimizer: Any, iterations: int) -> None:
    far = 8 * GOAL
    best = optimum(far)
    assert ((best.abs() > 1 - 1e-6).sum((1, 2)) >= 1).all(), "the bounds have to matter here"
    found = solve(optimizer, iterations, goal=far)
    assert (found.actions.abs() <= 1).all()
    gap = (found.energy - value(best, far)) / (value(torch.zeros(E, T, A).double(), far) - value(best, far))
    assert (gap >= -1e-9).all() and (gap < 5e-3).all()


@searches
def test_the_energy_is_that_of_the_plan(optimizer: Any, iterations: int) -> None:
    found = solve(optimizer, 3)
    torch.testing.assert_close(found.energy, value(found.actions))


@searches
def test_seed_and_nothing_else_decides(optimizer: Any, iterations: int) -> None:
    first = solve(optimizer, 3)
    torch.rand(7)
    again, other = solve(optimizer, 3), solve(optimizer, 3, seed=1)
    assert torch.equal(first.actions, again.actions) and torch.equal(first.trace, again.trace)
    # The first restart of a gradient search starts at the plan itself, and often wins.
    assert isinstance(optimizer, Gradient) or not torch.equal(first.actions, other.actions)


@searches
def test_another_goal_of_a_neighbour_changes_nothing(optimizer: Any, iterations: int) -> None:
    moved = torch.cat([GOAL[:1], -GOAL[1:]])
    first, second = solve(optimizer, 4), solve(optimizer, 4, goal=moved)
    torch.testing.assert_close(first.actions[0], second.actions[0])
    assert not torch.allclose(first.actions[1:], second.actions[1:], atol=0.1)


def test_shapes_and_trace() -> None:
    found = solve(iterations=6)
    assert found.actions.shape == (E, T, A) and found.energy.shape == (E,) and found.trace.shape == (6, E)
    assert (found.trace.diff(dim=0) <= 0).all() and (found.trace[-1] < found.trace[0]).all()
    assert (found.energy <= found.trace[-1]).all()
    assert not found.actions.requires_grad


@pytest.mark.parametrize("place", [0, 1, 2])
def test_never_worse_than_the_best_proposal(place: int) -> None:
    proposals = random(E, 3, T, A, seed=5).clamp(-1, 1)
    proposals[:, place] = optimum()
    found = solve(CEM(samples=2, elites=2), 1, proposals=proposals)
    torch.testing.assert_close(found.energy, value(optimum()))
    torch.testing.assert_close(found.trace[0], value(optimum()))
    assert (solve(CEM(samples=2, elites=2), 1).energy > found.energy + 1e-3).all(), "two samples alone must not do it"


def test_the_first_proposal_is_where_the_search_starts() -> None:
    near, narrow = optimum() + 0.05, CEM(samples=64, elites=8, init_std=0.02, min_std=0.001)
    warm = solve(narrow, 5, proposals=near.unsqueeze(1))
    cold = solve(narrow, 5)
    assert (warm.energy < value(near)).all() and (warm.energy < cold.energy).all()


def test_proposals_are_put_into_the_bounds() -> None:
    wild = torch.full((E, 2, T, A), float("nan"), dtype=torch.float64)
    wild[:, 1] = 50.0
    found = solve(iterations=2, proposals=wild)
    assert found.energy.isfinite().all() and (found.actions.abs() <= 1).all()


class Fixed:
    """An optimizer that asks for one plan and stands for another."""

    def __init__(self, asked: Tensor, stands_for: Tensor) -> None:
        self.asked, self.stands_for = asked, stands_for

    def init(self, plan: Tensor) -> None:
        return None

    def ask(self, state: None, generator: torch.Generator) -> Tensor:
        return self.asked.unsqueeze(1)

    def tell(self, state: None, actions: Tensor, energy: Tensor) -> None:
        return None

    def best(self, state: None) -> Tensor:
        return self.stands_for


def test_the_final_mean_is_tried_and_only_taken_when_better() -> None:
    poor = torch.full((E, T, A), 0.9, dtype=torch.float64)
    torch.testing.assert_close(solve(Fixed(poor, optimum()), 1).energy, value(optimum()))
    torch.testing.assert_close(solve(Fixed(optimum(), poor), 1).energy, value(optimum()))


@searches
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_a_failure_never_wins_and_never_spreads(optimizer: Any, iterations: int, poison: float) -> None:
    def forbidden(actions: Tensor) -> Tensor:
        return actions[..., 0, 0] > 0.1

    def energy(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return ENERGY(futures, goal, actions).masked_fill(forbidden(actions), poison)

    # A goal that draws every environment into what is forbidden.
    wish = torch.full((E, T, A), 0.8, dtype=torch.float64)
    latent = TensorDict({"latent": START[:, None]}, batch_size=(E, 1))
    goal = MODEL.rollout(Context(latent, torch.zeros(E, 0, A)), wish[:, None])["latent"][:, 0, -1]
    free, found = solve(optimizer, 15, goal=goal), solve(optimizer, 15, goal=goal, energy=energy)
    assert forbidden(free.actions).any(), "without the failures it would go there"
    assert not forbidden(found.actions).any() and found.energy.isfinite().all() and found.actions.isfinite().all()
    assert (found.energy < found.trace[0]).all(), "it has to go on learning among failures"
    again = solve(optimizer, 3, goal=goal, energy=energy, proposals=found.actions.unsqueeze(1))
    assert (again.energy <= found.energy).all() and again.actions.isfinite().all()


class Bursting(LinearModel):
    """A world that is not finite in the midst of some futures, and finite again at their ends."""

    poison = torch.nan

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        futures = super().rollout(context, actions)
        futures["latent"][:, :, 1] = futures["latent"][:, :, 1].masked_fill(actions[..., :1, 0] > 0.1, self.poison)
        return futures


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("over", ["last", "min", "all"])
def test_a_rollout_that_is_not_finite_does_not_win_by_what_is_finite_of_it(over: Any, poison: float) -> None:
    """The energy of the last step does not see the others, and the least of all passes infinities over."""
    model = Bursting(MODEL.transition, MODEL.control, SPEC)
    model.poison = poison
    latent = TensorDict({"latent": START[:, None]}, batch_size=(E, 1))
    goal = MODEL.rollout(Context(latent, torch.zeros(E, 0, A)), torch.full((E, 1, T, A), 0.8).double())
    how = {"energy": LatentDistance(over=over), "goal": goal["latent"][:, 0, -1]}
    assert (solve(iterations=10, **how).actions[:, 0, 0] > 0.1).any(), "without the failures it would go there"
    found = solve(iterations=10, model=model, **how)
    assert (found.actions[:, 0, 0] <= 0.1).all() and found.energy.isfinite().all()


@searches
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_where_everything_fails_the_first_proposal_comes_back(optimizer: Any, iterations: int, poison: float) -> None:
    def energy(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return ENERGY(futures, goal, actions).index_fill(0, torch.tensor([1]), poison)

    proposals = random(E, 2, T, A, seed=6).clamp(-1, 1)
    found = solve(optimizer, 4, energy=energy, proposals=proposals)
    assert torch.equal(found.actions[1], proposals[1, 0]) and found.energy[1] == torch.inf
    assert (found.trace[:, 1] == torch.inf).all()
    untouched = solve(optimizer, 4, proposals=proposals)
    assert torch.equal(found.actions[[0, 2]], untouched.actions[[0, 2]])
    assert (solve(optimizer, 2, energy=energy).actions[1] == 0).all()


def test_where_everything_fails_no_candidate_comes_back() -> None:
    def energy(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return torch.full(actions.shape[:2], float("nan"))

    found = solve(Fixed(torch.full((E, T, A), 0.7).double(), torch.full((E, T, A), 0.9).double()), 3, energy=energy)
    assert (found.actions == 0).all() and (found.energy == torch.inf).all()


def test_chunks_cap_the_rollout_and_change_nothing() -> None:
    widths = []

    class Watched(LinearModel):
        def rollout(self, context: Context, actions: Tensor) -> TensorDict:
            widths.append(actions.shape[1])
            return super().rollout(context, actions)

    whole = solve(iterations=3)
    parts = solve(iterations=3, model=Watched(MODEL.transition, MODEL.control, SPEC), chunk=100)
    torch.testing.assert_close(whole.actions, parts.actions)
    assert max(widths) == 100 and sum(widths) == 3 * 256 + 1 + 1


@pytest.mark.parametrize(
    ("max_bytes", "environments", "candidates"),
    [(10**9, E, 257), (E * 30 * 8 * T * D, E, 30), (2 * 8 * T * D, 2, 1), (8 * T * D, 1, 1)],
)
def test_memory_is_capped_for_candidates_and_environments(max_bytes: int, environments: int, candidates: int) -> None:
    sizes = []

    class Weighed(LinearModel):
        def bytes_per_plan(self, horizon: int) -> int:
            return 8 * horizon * D

        def rollout(self, context: Context, actions: Tensor) -> TensorDict:
            sizes.append(actions.shape[:2])
            return super().rollout(context, actions)

    whole = solve(iterations=2)
    parts = solve(iterations=2, model=Weighed(MODEL.transition, MODEL.control, SPEC), max_bytes=max_bytes)
    torch.testing.assert_close(whole.actions, parts.actions)
    assert max(e for e, _ in sizes) == environments and max(s for _, s in sizes) == candidates
    assert all(8 * T * D * e * s <= max_bytes for e, s in sizes)


@searches
def test_shared_noise_plans_for_one_of_many_what_it_plans_for_it_alone(optimizer: Any, iterations: int) -> None:
    if isinstance(optimizer, Chain):
        shared: Any = replace(
            optimizer,
            first=replace(optimizer.first, shared_noise=True),  # type: ignore[type-var]
            second=replace(optimizer.second, shared_noise=True),  # type: ignore[type-var]
        )
    else:
        shared = replace(optimizer, shared_noise=True)
    together = solve(shared, 6)
    for i in range(E):
        alone = solve(shared, 6, rows=slice(i, i + 1))
        torch.testing.assert_close(together.actions[i], alone.actions[0])
        torch.testing.assert_close(together.energy[i], alone.energy[0])


class Slow(LinearModel):
    """Every rollout takes `seconds` more on a clock of its own."""

    now, seconds = 0.0, 1.0

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        self.now += self.seconds
        return super().rollout(context, actions)


@pytest.mark.parametrize("deadline", [0.5, 2.5, 7.5, 1e6])
@searches
def test_at_the_deadline_the_best_so_far_comes_back(
    optimizer: Any, iterations: int, deadline: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Slow(MODEL.transition, MODEL.control, SPEC)
    monkeypatch.setattr("planner.plan.time.perf_counter", lambda: model.now)
    proposals = random(E, 2, T, A, seed=5).clamp(-1, 1)
    found = solve(optimizer, 5, model=model, chunk=3, deadline_ms=1000 * deadline, proposals=proposals)
    assert model.now <= max(1.0, deadline + model.seconds), "late by one rollout at most"
    known = torch.stack([value(proposals[:, p]) for p in range(2)]).min(0).values
    assert (found.energy <= known + 1e-9).all(), "even the shortest deadline sees the proposals"
    torch.testing.assert_close(found.energy, value(found.actions))
    assert found.complete == (deadline == 1e6) and 1 <= len(found.trace) <= 5


def test_at_the_deadline_environments_that_nobody_got_to_keep_their_first_proposal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where memory lets one environment be rehearsed at a time, fifty of them took fifty rollouts beyond a deadline."""

    class Small(Slow):
        def bytes_per_plan(self, horizon: int) -> int:
            return 100

    model = Small(MODEL.transition, MODEL.control, SPEC)
    monkeypatch.setattr("planner.plan.time.perf_counter", lambda: model.now)
    proposals = random(E, 1, T, A, seed=5).clamp(-1, 1)
    found = solve(CEM(samples=8, elites=2), 5, model=model, max_bytes=100, deadline_ms=500, proposals=proposals)
    assert model.now == 1 and not found.complete
    torch.testing.assert_close(found.actions, proposals[:, 0])
    torch.testing.assert_close(found.energy[0], value(proposals[:, 0])[0])
    assert (found.energy[1:] == torch.inf).all()


def test_differentiating_does_not_begin_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling gradient descent what its plans cost takes the derivative of all of them."""
    model = Slow(MODEL.transition, MODEL.control, SPEC)
    monkeypatch.setattr("planner.plan.time.perf_counter", lambda: model.now)

    @dataclass(frozen=True)
    class Heavy(Gradient):
        def tell(self, *told: Any) -> Any:
            model.now += 100
            return super().tell(*told)

    found = solve(Heavy(samples=4), 3, model=model, energy=LatentDistance(), deadline_ms=500)
    assert model.now == 1 and not found.complete and len(found.trace) == 1
    last = solve(Heavy(samples=4), 1, model=model, energy=LatentDistance(), deadline_ms=500)
    assert last.complete, "every iteration was done"


@pytest.mark.parametrize("optimizer", [Gradient(samples=40), Hold(Gradient(samples=40), 1, 1), Chain(switch=1)])
def test_differentiated_rollouts_are_forgotten_one_by_one_and_change_nothing(optimizer: Any) -> None:
    """All of them were kept until the optimizer was told, and no chunk saved anything."""
    rollouts: list[Any] = []

    class Remembered(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, actions: Tensor) -> Tensor:
            ctx.layers = {"of a rollout"}  # lives as long as the graph does
            rollouts.append(weakref.ref(ctx.layers))
            return actions.clone()

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
            return slope

    class Watched(LinearModel):
        def rollout(self, context: Context, actions: Tensor) -> TensorDict:
            assert not any(layers() for layers in rollouts), "a rollout before is still remembered"
            return super().rollout(context, Remembered.apply(actions) if actions.requires_grad else actions)

    whole = solve(optimizer, 3, energy=LatentDistance("l2", over="all"))
    parts = solve(
        optimizer,
        3,
        energy=LatentDistance("l2", over="all"),
        chunk=7,
        model=Watched(MODEL.transition, MODEL.control, SPEC),
    )
    assert len(rollouts) >= 4
    torch.testing.assert_close(whole.actions, parts.actions)
    torch.testing.assert_close(whole.energy, parts.energy)


def test_a_chunk_that_fails_leaves_the_slopes_of_others() -> None:
    """Whatever is not finite would spoil the energy, also where it is to count for nothing."""

    def broken(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        apart = LatentDistance()(futures, goal, actions)
        return torch.where(actions[..., 0, 0] > 0, apart, apart / (apart * 0))

    optimizer = Gradient(samples=12, rate=0.05)
    whole, parts = (solve(optimizer, 6, energy=broken, chunk=chunk) for chunk in (None, 3))
    assert whole.energy.isfinite().all()
    torch.testing.assert_close(whole.actions, parts.actions)


@pytest.mark.parametrize("world", [torch.float32, torch.float64])
@pytest.mark.parametrize("proposed", [torch.float32, torch.float64])
def test_proposals_may_be_of_any_precision(world: torch.dtype, proposed: torch.dtype) -> None:
    """Numpy's are double, which a world in single precision refused; a planner's are single, also for a simulator."""
    model = LinearModel(MODEL.transition.to(world), MODEL.control.to(world), SPEC)
    if world == torch.float64 and proposed == torch.float32:
        model.rollout = lambda context, actions: MODEL.rollout(context, actions.double())  # type: ignore[method-assign]
    context = Context(TensorDict({"latent": START[:, None].to(world)}, batch_size=(E, 1)), torch.zeros(E, 0, A))
    goal, generator = TensorDict({"latent": GOAL.to(world)}, batch_size=E), torch.Generator().manual_seed(0)
    given = torch.zeros(E, 2, T, A, dtype=proposed)
    found = plan(
        model, context, goal, LatentDistance(), CEM(), iterations=2, horizon=T, generator=generator, proposals=given
    )
    expected = torch.float32 if world == torch.float32 else proposed
    assert found.actions.dtype == expected and found.energy.isfinite().all()


def test_whatever_an_optimizer_asks_for_is_legal() -> None:
    """One that forgot the bounds was planned with beyond them; what the robot then did had never been judged."""

    class Unbounded(Fixed):
        def ask(self, state: Any, generator: torch.Generator) -> Tensor:
            return super().ask(state, generator) * 9

        def best(self, state: Any) -> Tensor:
            return super().best(state) * 9

    found = solve(Unbounded(torch.full((E, T, A), 0.7).double(), torch.full((E, T, A), 0.9).double()), 2)
    assert found.actions.abs().max() <= 1
    torch.testing.assert_close(found.energy, value(found.actions))


def test_a_model_that_cannot_be_differentiated_is_told_apart() -> None:
    class Detached(LinearModel):
        def rollout(self, context: Context, actions: Tensor) -> TensorDict:
            return super().rollout(context, actions.detach())

    with pytest.raises(BadInput, match="differentiated"):
        solve(Gradient(), 2, model=Detached(MODEL.transition, MODEL.control, SPEC), energy=LatentDistance())


@pytest.mark.parametrize(
    "call",
    [
        lambda: solve(iterations=0),
        lambda: solve(max_bytes=10**6),
        lambda: solve(deadline_ms=0.0),
        lambda: solve(deadline_ms=float("nan")),
        lambda: solve(chunk=0),
        lambda: solve(proposals=torch.zeros(E, T, A)),
        lambda: solve(proposals=torch.zeros(E, 0, T, A)),
        lambda: solve(proposals=torch.zeros(1, 1, T, A)),
        lambda: solve(proposals=torch.zeros(E, 1, T + 1, A)),
        lambda: solve(energy=lambda futures, goal, actions: futures["latent"].square().mean(-1)),
        lambda: solve(energy=lambda futures, goal, actions: actions.square().mean()[None, None]),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], Plan]) -> None:
    with pytest.raises(BadInput):
        call()


def test_the_linear_world_is_a_world_model() -> None:
    obs = TensorDict({"state": random(E, 3, D, seed=7).float()}, batch_size=(E, 3))
    check_world_model(LinearModel(MODEL.transition.float(), MODEL.control.float(), SPEC, history=3), obs)


class Noisy(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions + 0.1 * torch.randn(actions.shape))


class Clairvoyant(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions + actions[:, :, -1:])


class Crowded(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions - actions.mean(1, keepdim=True))


class Entangled(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions - actions.mean(0, keepdim=True))


class Careless(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions.mul_(0.5))


class Short(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions[:, :, 1:])


class Heedless(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, torch.zeros_like(actions))


class Late(LinearModel):
    """Gives the latent before each action."""

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        first = torch.zeros_like(actions[:, :, :1])
        return super().rollout(context, torch.cat([first, actions[:, :, :-1]], 2))


class Renamed(LinearModel):
    """An `MPC` ended in a KeyError on it."""

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions).rename_key_("latent", "z")


class Bare(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> Any:
        return super().rollout(context, actions)["latent"]


class Lost(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions).apply_(torch.log)


class OtherBlock(LinearModel):
    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        return super().rollout(context, actions[..., :-1])


class Changed(LinearModel):
    """Each has an `encode` that nobody looked at: in an `MPC` what was done in one environment hung on the others."""

    def change(self, obs: TensorDict, state: Tensor) -> Any:
        raise NotImplementedError

    def encode(self, obs: TensorDict) -> Any:
        changed = self.change(obs, obs["state"])
        return super().encode(obs.clone().set("state", changed)) if isinstance(changed, Tensor) else changed


class LooksAround(Changed):
    def change(self, obs: TensorDict, state: Tensor) -> Any:
        return state - state.mean(0, keepdim=True)


class LooksBack(Changed):
    def change(self, obs: TensorDict, state: Tensor) -> Any:
        return state.cumsum(1)


class DropsOut(Changed):
    def change(self, obs: TensorDict, state: Tensor) -> Any:
        return torch.nn.functional.dropout(state)


class Overwrites(Changed):
    def change(self, obs: TensorDict, state: Tensor) -> Any:
        return state.mul_(0.5)


class Untold(Changed):
    def change(self, obs: TensorDict, state: Tensor) -> Any:
        return {"latent": state}


class Blind(Changed):
    def change(self, obs: TensorDict, state: Tensor) -> Any:
        return state / 0


BREACHES: dict[type[LinearModel], str] = {
    Noisy: "rollout to be deterministic",
    Clairvoyant: "no future to precede its action",
    Crowded: "candidates to be rehearsed independently",
    Entangled: "environments to be rehearsed independently",
    Careless: "rollout to leave its inputs alone",
    Short: "futures of batch",
    Heedless: "the last future to follow from the last action",
    Late: "the last future to follow from the last action",
    Renamed: r"futures with a key of encode's, \['latent'\], not \['z'\]",
    Bare: "rollout to return a TensorDict, not a Tensor",
    Lost: "finite futures",
    OtherBlock: r"rollout to take candidates \[\d+, 3, 4, \d+\], .* not to raise RuntimeError",
    LooksAround: "environments to be encoded independently of each other; is the model in evaluation mode",
    LooksBack: "frames to be encoded independently",
    DropsOut: "encode to be deterministic; is the model in evaluation mode",
    Overwrites: "encode to leave its input alone",
    Untold: "encode to return a TensorDict, not a dict",
    Blind: "finite latents",
}


@pytest.mark.parametrize("kind", BREACHES, ids=lambda kind: kind.__name__)
def test_the_check_of_world_models_notices(kind: type[LinearModel]) -> None:
    obs = TensorDict({"state": random(E, 2, D, seed=7).float()}, batch_size=(E, 2))
    with pytest.raises(AssertionError, match=f"expected {BREACHES[kind]}"):
        check_world_model(kind(MODEL.transition.float(), MODEL.control.float(), SPEC, history=2), obs)


def test_the_linear_world_plans_in_double_precision() -> None:
    """A planner asks in single precision, whatever latents are of."""
    mpc = MPC(MODEL, LatentDistance(), CEM(samples=8, elites=2), horizon=T, iterations=1)
    obs = TensorDict({"state": START}, batch_size=E)
    mpc.reset(obs, TensorDict({"state": GOAL}, batch_size=E))
    assert mpc.act(obs).shape == (E, A) and mpc.fallbacks == 0
