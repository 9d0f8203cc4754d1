"""Several goals, weights, smoothness, disagreement, learned distances and constraints, against answers by hand."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from tensordict import TensorDict
from torch import Tensor
from toys import toy_model

from planner.actions import ActionSpec
from planner.constrained import plan_constrained
from planner.energies import (
    ActionEffort,
    ActionRate,
    ActionSmoothness,
    AugmentedLagrangian,
    Disagreement,
    Goals,
    LatentDistance,
    LearnedDistance,
    ObjectDistance,
    Penalty,
)
from planner.errors import BadInput
from planner.models.ensemble import Ensemble
from planner.mpc import MPC
from planner.optimizers import CEM, MPPI
from planner.plan import plan
from planner.testing import LinearModel, check_world_model
from planner.types import Context


def futures(steps: list[list[float]]) -> TensorDict:
    return TensorDict({"latent": torch.tensor([[steps]])}, batch_size=(1, 1, len(steps)))


def goals(*values: list[float]) -> TensorDict:
    return TensorDict({"latent": torch.tensor([values])}, batch_size=(1,))


NOTHING = torch.zeros(1, 1, 3, 2)
WALK = futures([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("energy", "target", "expected"),
    [
        (LatentDistance("huber"), [1.0, 2.5], 0.5 * 0.25 / 2),
        (LatentDistance("huber"), [4.0, 2.0], (3 - 0.5) / 2),
        (LatentDistance(weights=(1.0, 0.0)), [3.0, 99.0], 4.0),
        (LatentDistance(weights=(1.0, 3.0)), [3.0, 3.0], (4 + 3 * 1) / 4),
        (LatentDistance("l1", over="min", weights=(1.0, 1.0)), [1.0, 1.0], 0.5),
        (LatentDistance("cosine", weights=(0.0, 2.0)), [5.0, 1.0], 0.0),
    ],
)
def test_metrics_and_weights_by_hand(energy: LatentDistance, target: list[float], expected: float) -> None:
    goal = TensorDict({"latent": torch.tensor([target])}, batch_size=(1,))
    torch.testing.assert_close(energy(WALK, goal, NOTHING), torch.tensor([[expected]]))


@pytest.mark.parametrize(
    ("mode", "targets", "expected"),
    [
        ("any", ([1.0, 0.0], [9.0, 9.0]), 0.0),
        ("any", ([5.0, 2.0], [1.0, 3.0]), 0.5),
        ("all", ([1.0, 0.0], [1.0, 4.0]), (0 + 2.0) / 2),
        ("sequence", ([1.0, 0.0], [1.0, 2.0]), 0.0),
        # In the other order the second goal has to wait for the first: both are judged at the last step.
        ("sequence", ([1.0, 2.0], [1.0, 0.0]), (0 + 2.0) / 2),
        ("sequence", ([0.0, 0.0], [0.0, 0.0], [1.0, 2.0]), 0.0),
    ],
)
def test_several_goals_by_hand(mode: str, targets: tuple[list[float], ...], expected: float) -> None:
    torch.testing.assert_close(Goals(mode)(WALK, goals(*targets), NOTHING), torch.tensor([[expected]]))


def test_a_sequence_is_the_best_of_all_ordered_moments() -> None:
    generator = torch.Generator().manual_seed(0)
    latent, targets = torch.randn(2, 3, 5, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)
    apart = (latent[:, :, :, None] - targets[:, None, None]).square().mean(-1)  # [E, S, T, G]
    best = torch.full((2, 3), torch.inf)
    for a in range(5):
        for b in range(a, 5):
            for c in range(b, 5):
                best = torch.minimum(best, (apart[..., a, 0] + apart[..., b, 1] + apart[..., c, 2]) / 3)
    here = TensorDict({"latent": latent}, batch_size=(2, 3, 5))
    there = TensorDict({"latent": targets}, batch_size=(2,))
    torch.testing.assert_close(Goals("sequence")(here, there, torch.zeros(2, 3, 5, 1)), best)


@pytest.mark.parametrize("mode", ["any", "all", "sequence"])
def test_a_broken_step_cannot_hide_among_goals(mode: str) -> None:
    broken = futures([[1.0, 2.0], [float("nan"), 0.0], [1.0, 2.0]])
    assert Goals(mode)(broken, goals([1.0, 2.0], [1.0, 2.0]), NOTHING).isnan().all()


def test_a_robot_is_given_two_goal_pictures() -> None:
    """From pictures to actions: the goal of each environment is a stack of pictures."""
    from planner.mpc import MPC

    model = toy_model()
    size = model.config.image_size
    look = torch.randint(256, (2, size, size, 3), dtype=torch.uint8)
    pictures = torch.randint(256, (2, 3, size, size, 3), dtype=torch.uint8)
    planner = MPC(model, Goals("any"), CEM(samples=16, elites=4), horizon=2, iterations=2)
    obs = TensorDict({"pixels": look}, batch_size=[2])
    planner.reset(obs, TensorDict({"pixels": pictures}, batch_size=[2]))
    assert np.isfinite(planner.act(obs)).all() and planner.last_plan is not None
    assert planner.last_plan.energy.isfinite().all()


SLOW = LinearModel(torch.eye(2), 0.2 * torch.eye(2), ActionSpec((-1.0, -1.0), (1.0, 1.0), ("m", "m"), 1))
CORNERS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [-1.0, 0.0]]])  # [E, G, D]


def driven(energy: Any, steps: int, restart: int | None = None, anew: int | None = None) -> Tensor:
    """Where two robots that can go 0.2 a step go, from the origin, `[steps + 1, E, D]`.

    The first begins a new episode at `restart`, and plans anew in the same one at `anew`.
    """
    policy = MPC(SLOW, energy, CEM(samples=128, elites=16), horizon=8, iterations=4)
    at = torch.zeros(2, 2)
    look = partial(TensorDict, batch_size=[2])
    policy.reset(look({"state": at}), look({"state": CORNERS}))
    way = [at]
    for step in range(steps):
        if step == restart:
            at = torch.where(torch.tensor([[True], [False]]), 0.0, at)
            policy.reset(look({"state": at}), look({"state": CORNERS}), np.array([True, False]))
        if step == anew:
            policy.anew(np.array([True, False]))
        at = at + 0.2 * torch.from_numpy(policy.act(look({"state": at})))
        way.append(at)
    return torch.stack(way)


def first_met(way: Tensor) -> list[list[int]]:
    """The step at which each robot is first within 0.15 of each of its goals, -1 for never."""
    near = (way[:, :, None] - CORNERS).norm(dim=-1) < 0.15  # [steps + 1, E, G]
    return [[int(goal.int().argmax()) if goal.any() else -1 for goal in robot.T] for robot in near.movedim(1, 0)]


@pytest.mark.parametrize(
    "distance", [LatentDistance(over="min"), LearnedDistance(lambda z, g: (z - g).square().mean(-1))]
)
@pytest.mark.parametrize("around", [lambda energy: energy, lambda energy: 2 * energy + 1e-4 * ActionEffort()])
def test_a_sequence_is_driven_to_its_end(distance: Any, around: Any) -> None:
    """Every plan asked for the first goal again, and the robot stayed there."""
    way = driven(around(Goals("sequence", distance, near=0.01)), 30)
    assert all(0 < first < second for first, second in first_met(way))
    assert ((way[-1] - CORNERS[:, 1]).norm(dim=-1) < 0.1).all(), "the last one stays"


def test_a_robot_that_begins_anew_has_visited_nothing() -> None:
    way = driven(Goals("sequence", near=0.01), 40, restart=20)
    assert ((way[20] - CORNERS[:, 1]).norm(dim=-1) < 0.1).all()
    again, other = first_met(way[21:])
    assert 0 < again[0] < again[1], "both once more"
    assert other[0] == -1, "the other robot is not disturbed"


def test_who_plans_anew_goes_on_to_the_next_goal() -> None:
    """After a false alarm of the monitor a robot that was told to plan anew went back to its first goal."""
    way = driven(Goals("sequence", near=0.01), 40, anew=20)
    assert ((way[20:] - CORNERS[:, 1]).norm(dim=-1) < 0.5).all(), "1.4 apart"


def test_all_goals_are_visited_in_any_order_and_without_near_none_is() -> None:
    visited = first_met(driven(Goals("all", near=0.01), 40))
    assert all(min(robot) > 0 for robot in visited)
    assert any(min(robot) == -1 for robot in first_met(driven(Goals("all"), 40))), "else nothing is shown"


def test_several_goals_in_one_sum_are_visited_each_in_its_own_way() -> None:
    """The coarse term marked what the fine one had yet to reach."""
    way = driven(Goals("sequence", near=0.002) + 0.01 * Goals("all", near=0.3) + 0.01 * Goals("any"), 40)
    assert all(0 < first < second for first, second in first_met(way))


def test_goals_that_are_one_are_told() -> None:
    """It ended in an IndexError."""
    energy, goal = Goals("sequence", near=0.1), TensorDict({"latent": torch.zeros(2, 3)}, batch_size=[2])
    with pytest.raises(BadInput, match=r"no axis of their own; expected latent \[E, G, ...\]; got \[2, 3\]"):
        energy.looked(energy.begun(goal), TensorDict({"latent": torch.zeros(2, 3)}, batch_size=[2]))


def test_goals_that_mask_different_features_keep_their_own_marks() -> None:
    """What one had visited the other had not, and both read the same mark."""
    first, second = (
        Goals("all", LatentDistance(over="min", weights=mask), near=0.1) for mask in ((1.0, 0.0), (0.0, 1.0))
    )
    energy, goal = first + second, TensorDict({"latent": torch.tensor([[[1.0, 5.0], [9.0, 9.0]]])}, batch_size=[1])
    known = energy.looked(energy.begun(goal), TensorDict({"latent": torch.tensor([[1.0, 0.0]])}, batch_size=[1]))
    assert known[first.visited].tolist() == [[True, False]] and known[second.visited].tolist() == [[False, False]]
    assert first.visited == replace(first).visited and pickle.loads(pickle.dumps(first)).visited == first.visited


class Along(torch.nn.Module):
    """A head without weights: how far apart along one axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, latent: Tensor, goal: Tensor) -> Tensor:
        return (latent - goal)[..., self.axis].abs()


def test_goals_of_other_heads_and_bodies_keep_their_own_marks() -> None:
    """Networks of one shape are printed alike, and so are large tensors that differ in a number."""
    first, second = (Goals("all", LearnedDistance(Along(axis)), near=0.1) for axis in (0, 1))
    energy, goal = first + second, goals([0.0, 5.0], [3.0, 3.0])
    known = energy.looked(energy.begun(goal), TensorDict({"latent": torch.zeros(1, 2)}, batch_size=[1]))
    assert known[first.visited].tolist() == [[True, False]] and known[second.visited].tolist() == [[False, False]]
    body = torch.zeros(64, 20)
    other = body.clone()
    other[30, 10] = 1
    one, another = (Goals("all", ObjectDistance(over="min", body=each), near=0.5) for each in (body, other))
    assert one.visited != another.visited
    assert Goals("all", ObjectDistance(over="min", body=body.bfloat16()), near=0.5).visited != one.visited
    assert (
        one.distance != another.distance and one.distance == one.distance and len({one.distance, another.distance}) == 2
    )


def test_what_is_visited_by_hand() -> None:
    goal = TensorDict({"latent": torch.tensor([[[0.0], [1.0], [2.0]]])}, batch_size=[1])

    def after(energy: Goals, *seen: float) -> list[bool]:
        known = energy.begun(goal)
        for value in seen:
            known = energy.looked(known, TensorDict({"latent": torch.tensor([[value]])}, batch_size=[1]))
        assert set(goal.keys()) == {"latent"}
        return known[energy.visited][0].tolist()

    sequence, every = Goals("sequence", near=0.1), Goals("all", near=0.1)
    assert after(sequence, 1.0) == [False, False, False] and after(every, 1.0) == [False, True, False]
    assert after(sequence, 0.1, 2.0, 1.2) == [True, True, False] and after(every, 1.2, 0.0) == [True, True, False]
    assert after(sequence, 0.0, 1.0, 2.0) == after(every, 0.0, 1.0, 2.0) == [True, True, False], "the last one stays"
    assert after(every, 2.0, 1.0, 0.0) == [False, True, True]


def test_changes_of_actions_by_hand() -> None:
    jumps = torch.tensor([[[[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]]]])
    torch.testing.assert_close(ActionRate()(WALK, goals(), jumps), torch.tensor([[1.0]]))
    torch.testing.assert_close(ActionSmoothness()(WALK, goals(), jumps), torch.tensor([[1.0]]))
    ramp = torch.tensor([[[[-0.5, 0.0], [0.0, 0.5], [0.5, 1.0]]]])
    torch.testing.assert_close(ActionRate()(WALK, goals(), ramp), torch.tensor([[0.0625]]))
    torch.testing.assert_close(ActionSmoothness()(WALK, goals(), ramp), torch.tensor([[0.0]]))
    # Read as one action after the other, with one number each: -0.5 0 0 0.5 0.5 1.
    torch.testing.assert_close(ActionRate(env_dim=1)(WALK, goals(), ramp), torch.tensor([[3 * 0.0625 / 5]]))
    single = torch.ones(1, 1, 1, 2)
    assert ActionRate()(WALK, goals(), single) == 0 and ActionSmoothness()(WALK, goals(), single) == 0
    with pytest.raises(BadInput, match="divisor of 2"):
        ActionRate(env_dim=3)(WALK, goals(), ramp)


def linear(seed: int, bias: float = 0.0) -> LinearModel:
    generator = torch.Generator().manual_seed(seed)
    control = torch.randn(2, 2, generator=generator) * 0.2 + torch.eye(2) + bias
    return LinearModel(torch.eye(2), control, ActionSpec((-1.0, -1.0), (1.0, 1.0), ("m", "m"), 1))


def test_an_ensemble_is_a_world_model_that_shows_what_it_doubts() -> None:
    one, other = linear(0), linear(0, bias=0.2)
    check_world_model(Ensemble([one, other]), TensorDict({"state": torch.randn(3, 1, 2)}, batch_size=(3, 1)))
    context = Context(TensorDict({"latent": torch.zeros(1, 1, 2)}, batch_size=(1, 1)), torch.zeros(1, 0, 2))
    actions = torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]])  # S = 2: rest, where they agree, and a move
    seen = Ensemble([one, other]).rollout(context, actions)
    doubt = Disagreement()(seen, goals(), actions)
    expected = ((other.control - one.control) @ torch.ones(2) / 2).square().mean()
    torch.testing.assert_close(doubt, torch.stack([torch.zeros(()), expected])[None])
    mean = (one.rollout(context, actions)["latent"] + other.rollout(context, actions)["latent"]) / 2
    torch.testing.assert_close(seen["latent"], mean)
    with pytest.raises(BadInput, match=r"ensemble\.Ensemble"):
        Disagreement()(one.rollout(context, actions), goals(), actions)
    with pytest.raises(BadInput, match="at least 2"):
        Ensemble([one])


def test_a_learned_distance_is_asked_with_goals_that_broadcast() -> None:
    def head(latent: Tensor, goal: Tensor) -> Tensor:
        assert goal.shape == (1, 1, 1, 2)
        return (latent - goal).norm(dim=-1)

    goal = TensorDict({"latent": torch.tensor([[1.0, 0.0]])}, batch_size=(1,))
    assert LearnedDistance(head)(WALK, goal, NOTHING) == 0
    torch.testing.assert_close(LearnedDistance(head, over="last")(WALK, goal, NOTHING), torch.tensor([[2.0]]))
    with pytest.raises(BadInput, match="wrong shape"):
        LearnedDistance(lambda latent, goal: latent)(WALK, goal, NOTHING)
    with pytest.raises(BadInput, match="goals do not fit the futures; expected 2, one an environment; got 1"):
        LearnedDistance(head)(torch.cat([WALK, WALK]), goal, NOTHING)  # once pursued by both


E, T = 2, 3
ROBOT = LinearModel(
    torch.eye(2, dtype=torch.float64),
    0.4 * torch.eye(2, dtype=torch.float64),
    ActionSpec((-1.0, -1.0), (1.0, 1.0), ("m", "m"), 1),
)
START = torch.tensor([[0.0, 0.0], [0.1, -0.2]], dtype=torch.float64)
GOAL = torch.tensor([[0.9, 0.4], [0.8, 0.6]], dtype=torch.float64)
ENERGY = LatentDistance(over="all") + 0.05 * ActionEffort()


def fence(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
    """Stay left of x = 0.5, at every step: `[E, S, T]`."""
    return futures["latent"][..., 0] - 0.5


def budget(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
    """All first numbers of the actions together at most 0.6: `[E, S]`."""
    return actions[..., 0].sum(-1) - 0.6


def problem() -> dict[str, Any]:
    context = Context(TensorDict({"latent": START[:, None]}, batch_size=(E, 1)), torch.zeros(E, 0, 2).double())
    return {"context": context, "goal": TensorDict({"latent": GOAL}, batch_size=E), "energy": ENERGY}


def solved(limit: str) -> Tensor:
    """The constrained optimum, `[E, T, 2]`, by sequential quadratic programming on the closed form."""
    matrix, target = ROBOT.least_squares(START, GOAL, T, 0.05)
    first = torch.eye(2 * T, dtype=torch.float64)[::2]  # the x of each action
    found = []
    for start, row in zip(START, target, strict=True):
        if limit == "fence":
            rows, bound = 0.4 * torch.tril(torch.ones(T, T, dtype=torch.float64)) @ first, 0.5 - float(start[0])
        else:
            rows, bound = first.sum(0, keepdim=True), 0.6
        a, b = matrix.numpy(), row.numpy()
        answer = minimize(
            lambda u, a=a, b=b: ((a @ u - b) ** 2).sum(),
            np.zeros(2 * T),
            jac=lambda u, a=a, b=b: 2 * a.T @ (a @ u - b),
            bounds=[(-1, 1)] * (2 * T),
            constraints=LinearConstraint(rows.numpy(), -np.inf, bound),
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert answer.success
        found.append(answer.x)
    return torch.from_numpy(np.stack(found)).reshape(E, T, 2)


@pytest.mark.parametrize(("limit", "constraint"), [("fence", fence), ("budget", budget)])
def test_constraints_are_kept_at_the_known_optimum(limit: str, constraint: Any) -> None:
    how = {"iterations": 12, "horizon": T, "generator": torch.Generator().manual_seed(0)}
    cem = CEM(samples=256, elites=24, min_std=0.002)
    free = plan(ROBOT, optimizer=cem, **problem(), **how)
    futures = ROBOT.rollout(problem()["context"], free.actions[:, None])
    assert (constraint(futures, None, free.actions[:, None]) > 0.1).any(), "without it, it would be broken"
    found = plan_constrained(
        ROBOT, constraints=[constraint], optimizer=cem, rounds=8, tolerance=2e-3, **problem(), **how
    )
    assert (found.violation <= 2e-3).all()
    torch.testing.assert_close(found.plan.actions, solved(limit), atol=0.05, rtol=0)
    futures = ROBOT.rollout(problem()["context"], found.plan.actions[:, None])
    torch.testing.assert_close(found.plan.energy, ENERGY(futures, problem()["goal"], found.plan.actions[:, None])[:, 0])
    assert (found.multipliers >= 0).all() and found.multipliers.amax() > 0


def test_a_penalty_alone_leaves_a_breach() -> None:
    """Why there is the other: a finite weight always buys some of what is forbidden."""
    how = {"iterations": 12, "horizon": T, "generator": torch.Generator().manual_seed(0)}
    parts = problem() | {"energy": ENERGY + Penalty(fence, 1.0)}
    found = plan(ROBOT, optimizer=CEM(samples=256, elites=24, min_std=0.002), **parts, **how)
    breach = fence(ROBOT.rollout(parts["context"], found.actions[:, None]), parts["goal"], found.actions[:, None])
    assert 0.005 < breach.amax() < 0.2


def test_where_nothing_keeps_the_constraint_the_least_breach_comes_back() -> None:
    def impossible(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return 1 + actions[..., 0].square().sum(-1)

    found = plan_constrained(
        ROBOT,
        constraints=[impossible],
        optimizer=CEM(samples=128, elites=16, min_std=0.002),
        iterations=10,
        horizon=T,
        generator=torch.Generator().manual_seed(0),
        **problem(),
    )
    assert ((found.violation >= 1) & (found.violation < 1.05)).all() and found.plan.actions.isfinite().all()


COARSE: dict[str, Any] = {"optimizer": CEM(samples=24, elites=4), "iterations": 1, "horizon": T, "rounds": 8}


def constrained(seed: int = 0, **other: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return plan_constrained(ROBOT, **(problem() | {"constraints": [budget]} | COARSE | other), generator=generator)


@pytest.mark.parametrize("seed", range(4))
def test_a_round_that_fails_does_not_win(seed: int) -> None:
    """An energy of NaN was less than nothing, and stayed."""

    def flaky(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return torch.where((actions[..., 0, 0] - 0.3).abs() < 0.05, ENERGY(futures, goal, actions), torch.nan)

    found = constrained(seed, energy=flaky)
    assert found.plan.energy.isfinite().all() and found.violation.isfinite().all()
    assert ((found.plan.actions[:, 0, 0] - 0.3).abs() < 0.05).all()
    broken = constrained(seed, energy=lambda futures, goal, actions: torch.full(actions.shape[:2], torch.nan))
    assert (broken.plan.energy == torch.inf).all() and (broken.violation == torch.inf).all()


def test_a_constraint_that_fails_presses_on_nothing() -> None:
    """One failed round made multipliers infinite, and every later one failed with them."""

    def gate(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return torch.where((actions[..., 0, 0] - 0.6).abs() < 0.06, -1.0, torch.inf)

    found = constrained(constraints=[gate, budget], rounds=12)
    assert found.multipliers.isfinite().all() and (found.violation < torch.inf).all()

    def broken(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return torch.full(actions.shape[:2], torch.nan, dtype=actions.dtype)

    assert not constrained(energy=broken, rounds=4).multipliers.any()
    assert not constrained(constraints=[lambda f, g, a: 1 + a[..., 0, 0].square(), broken], rounds=4).multipliers.any()


def test_the_constraints_of_one_environment_do_not_press_on_another() -> None:
    """One that broke its constraint raised the penalty of all."""
    alone = {key: value[:1] for key, value in {"start": START, "goal": GOAL}.items()}
    context = Context(TensorDict({"latent": alone["start"][:, None]}, batch_size=(1, 1)), torch.zeros(1, 0, 2).double())
    shared = {"optimizer": CEM(samples=64, elites=8, shared_noise=True), "iterations": 3}
    tight = lambda futures, goal, actions: futures["latent"][..., 0] - goal["limit"][:, None, None]  # noqa: E731
    goal = TensorDict({"latent": GOAL, "limit": torch.tensor([0.89, 0.1]).double()}, batch_size=E)
    both = constrained(constraints=[tight], goal=goal, **shared)
    one = constrained(constraints=[tight], goal=goal[:1], context=context, **shared)
    torch.testing.assert_close(both.plan.actions[0], one.plan.actions[0])
    torch.testing.assert_close(both.multipliers[0], one.multipliers[0])


def test_the_next_plan_starts_from_the_multipliers_of_the_last() -> None:
    """In a loop each look would else begin with none, and break the constraint until they have grown."""
    how = {"optimizer": CEM(samples=256, elites=24, min_std=0.002), "iterations": 12}
    settled = constrained(rounds=8, **how)
    warm, cold = (constrained(1, rounds=1, multipliers=start, **how) for start in (settled.multipliers, None))
    assert (warm.violation < 0.5 * cold.violation).all()


@pytest.mark.parametrize("rounds", [1, 5])
@pytest.mark.parametrize("optimizer", [CEM(samples=64, elites=8), MPPI(samples=64)], ids=str)
def test_a_proposal_that_keeps_the_constraints_is_not_given_up_for_a_plan_that_breaks_them(
    optimizer: Any, rounds: int
) -> None:
    """A round is won by what is least pressed on, and what that breaks was all that was judged."""
    still, safe = torch.zeros(E, T, 2).double(), 0.3 * solved("budget")
    proposals, given = torch.stack([still, safe], 1), problem()
    futures = ROBOT.rollout(given["context"], proposals)
    assert (budget(futures, given["goal"], proposals) <= 0).all()
    least = ENERGY(futures, given["goal"], proposals).amin(1)
    for seed in range(6):
        found = constrained(seed, proposals=proposals, optimizer=optimizer, rounds=rounds)
        assert (found.violation <= 1e-3).all() and (found.plan.energy <= least + 1e-12).all()


def test_the_deadline_is_of_all_rounds_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rounds took five deadlines."""
    now = [0.0]

    class Slow(LinearModel):
        def rollout(self, context: Context, actions: Tensor) -> TensorDict:
            now[0] += 1
            return super().rollout(context, actions)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    model = Slow(ROBOT.transition, ROBOT.control, ROBOT.action)
    parts = problem() | {"constraints": [budget], "generator": torch.Generator().manual_seed(0)} | COARSE
    found = plan_constrained(model, **parts, deadline_ms=6500)
    assert now[0] <= 8 and not found.plan.complete and found.plan.energy.isfinite().all()
    now[0] = 0.0
    assert plan_constrained(model, **parts, deadline_ms=1e9).plan.complete


def test_memory_is_kept_and_proposals_do_not_grow_under_constraints() -> None:
    """What was to be checked was rehearsed for all environments at once, and each round had a proposal more."""
    sizes: list[tuple[int, int]] = []

    class Small(LinearModel):
        def bytes_per_plan(self, horizon: int) -> int:
            return 100

        def rollout(self, context: Context, actions: Tensor) -> TensorDict:
            sizes.append((len(actions), actions.shape[1]))
            return super().rollout(context, actions)

    given = problem()
    context, goal = given["context"], given["goal"]
    many = {"context": Context(context.latent[[0, 1] * 3], context.actions[[0, 1] * 3]), "goal": goal[[0, 1] * 3]}
    given |= many | {"model": Small(ROBOT.transition, ROBOT.control, ROBOT.action), "constraints": [fence]}
    given |= {"optimizer": CEM(samples=8, elites=2), "iterations": 1, "rounds": 3}
    given |= {"generator": torch.Generator().manual_seed(0), "proposals": torch.zeros(6, 2, T, 2).double()}
    plan_constrained(**given, horizon=T)
    assert [width for rows, width in sizes if rows == 6 and width > 1] == [2, 8 + 2, 8 + 3, 8 + 3]  # proposals first
    sizes.clear()
    plan_constrained(**given, horizon=T, max_bytes=250)
    assert all(rows * width <= 2 for rows, width in sizes) and max(rows for rows, _ in sizes) == 2
    with pytest.raises(BadInput, match="horizon is off; expected at least 1; got 0"):
        plan_constrained(**given, horizon=0)


def test_a_constraint_may_be_of_each_environment_s_own() -> None:
    """How many numbers are limited was asked of the first environment by itself."""
    room = torch.tensor([0.2, 0.4], dtype=torch.float64)
    limits = [lambda futures, goal, actions: actions[..., 0].sum(-1) - room[:, None], fence]
    given = problem() | {"model": ROBOT, "constraints": limits, "optimizer": CEM(samples=64, elites=8), "iterations": 5}
    found = plan_constrained(**given, horizon=T, generator=torch.Generator().manual_seed(0))
    assert (found.violation < 0.05).all() and found.multipliers.shape == (2, 1 + T)


def test_what_is_only_forbidden_or_not_can_be_a_constraint() -> None:
    keep = Penalty(lambda futures, goal, actions: actions[..., 0].sum(-1) > 0.6, weight=10.0)
    how = {"iterations": 12, "horizon": T, "generator": torch.Generator().manual_seed(0)}
    found = plan(ROBOT, optimizer=CEM(samples=256, elites=24), **(problem() | {"energy": ENERGY + keep}), **how)
    assert (found.actions[..., 0].sum(-1) <= 0.6).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: LatentDistance(weights=(0.0, 0.0)),
        lambda: LatentDistance(weights=(-1.0, 1.0)),
        lambda: LatentDistance(weights=(1.0,))(WALK, goals([1.0, 2.0])[0], NOTHING),
        lambda: Goals("some"),
        lambda: Goals("sequence", LatentDistance(over="last")),
        lambda: Goals()(WALK, goals([1.0, 2.0, 3.0]), NOTHING),
        lambda: Goals("any", near=0.1),
        lambda: Goals("all", near=0.0),
        lambda: Goals("all", ENERGY),  # type: ignore[arg-type]
        lambda: driven(ENERGY + Goals("sequence"), 1),
        lambda: AugmentedLagrangian(ENERGY, (fence,))(WALK, goals([1.0, 2.0])[0], NOTHING),
        *(
            lambda multipliers=multipliers: constrained(multipliers=multipliers)
            for multipliers in (torch.zeros(E), torch.full((E, 1), torch.nan), torch.full((E, 1), -1.0))
        ),
        lambda: LearnedDistance(lambda latent, goal: latent, over="first"),
        lambda: Penalty(fence, 0.0),
        lambda: AugmentedLagrangian(ENERGY, ()),
        lambda: AugmentedLagrangian(ENERGY, (fence,), penalty=-1.0),
        lambda: plan_constrained(
            ROBOT, constraints=[fence], optimizer=CEM(), rounds=0, iterations=1, horizon=1, generator=None, **problem()
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Any) -> None:
    with pytest.raises(BadInput):
        make()
