"""Held actions: fewer numbers to search, the same promises, and the optimum of the held problem."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from planner.actions import ActionSpec
from planner.energies import ActionEffort, LatentDistance
from planner.errors import BadInput
from planner.optimizers import CEM, MPPI, Hold
from planner.plan import plan
from planner.testing import LinearModel, check_optimizer
from planner.types import Context

INNER = [CEM(samples=256, elites=32, init_std=0.7), MPPI(samples=512, std=0.7, decay=0.8)]


class HeldEyes:
    """Shows the checker one action of each held pair, and hands on what it says for both.

    Its quadratic has another target for every number of a plan, and a plan that holds cannot follow that.
    """

    def __init__(self, hold: Hold) -> None:
        self.hold = hold

    def init(self, plan: Tensor) -> Any:
        return self.hold.init(self._twice(plan))

    def ask(self, state: Any, generator: torch.Generator) -> Tensor:
        actions = self.hold.ask(state, generator)
        assert torch.equal(actions, self._twice(self._once(actions))), "the actions are not held"
        return self._once(actions)

    def tell(self, state: Any, actions: Tensor, energy: Tensor) -> Any:
        return self.hold.tell(state, self._twice(actions), energy)

    def best(self, state: Any) -> Tensor:
        return self._once(self.hold.best(state))

    @staticmethod
    def _once(plan: Tensor) -> Tensor:
        return plan[..., : plan.shape[-1] // 2]

    @staticmethod
    def _twice(plan: Tensor) -> Tensor:
        return torch.cat([plan, plan], dim=-1)


@pytest.mark.parametrize("inner", INNER, ids=str)
@pytest.mark.parametrize("block", [1, 2])
def test_holding_nothing_keeps_all_promises(inner: Any, block: int) -> None:
    check_optimizer(Hold(inner, block, repeat=1))


@pytest.mark.parametrize("inner", INNER, ids=str)
def test_holding_keeps_all_promises(inner: Any) -> None:
    check_optimizer(HeldEyes(Hold(inner, block=2, repeat=2)))


@pytest.mark.parametrize("inner", INNER, ids=str)
def test_what_is_held_cannot_follow_every_target(inner: Any) -> None:
    """The check itself notices a plan that is held, so that the wrapper above is needed and the hold is real."""
    with pytest.raises(AssertionError, match="quadratic"):
        check_optimizer(Hold(inner, block=2, repeat=2))


@pytest.mark.parametrize("inner", INNER, ids=str)
@pytest.mark.parametrize(("block", "repeat"), [(6, 1), (6, 2), (6, 3), (6, 6), (1, 1)])
def test_actions_are_held(inner: Any, block: int, repeat: int) -> None:
    """In time order: `repeat` environment steps do the same, and the next ones something else."""
    env_dim, hold = 2, Hold(inner, block, repeat)
    state = hold.init(torch.zeros(3, 4, block * env_dim))
    candidates = hold.ask(state, torch.Generator().manual_seed(0))
    assert candidates.shape == (3, inner.samples, 4, block * env_dim)
    steps = candidates[:, 1:].unflatten(-1, (block, env_dim))
    for t in range(1, block):
        changes = (steps[..., t, :] != steps[..., t - 1, :]).float().mean()
        assert (changes == 0) if t % repeat else (changes > 0.6)  # at the bounds two draws may be equal


def test_starting_plan_and_proposals_count_as_their_mean() -> None:
    hold = Hold(CEM(samples=4, elites=2, momentum=0.0, min_std=0.0), block=4, repeat=2)
    plan = torch.tensor([0.0, 0.4, -1.0, 1.0]).reshape(1, 1, 4)
    torch.testing.assert_close(hold.best(hold.init(plan)), torch.tensor([[[0.2, 0.2, 0.0, 0.0]]]))
    told = hold.tell(hold.init(plan * 0), plan.unsqueeze(1).expand(1, 4, 1, 4), torch.zeros(1, 4))
    torch.testing.assert_close(hold.best(told), torch.tensor([[[0.2, 0.2, 0.0, 0.0]]]))


def test_dimensions_of_an_action_are_not_mixed() -> None:
    hold = Hold(CEM(), block=2, repeat=2)
    plan = torch.tensor([0.1, -0.5, 0.3, -0.7]).reshape(1, 1, 4)  # (0.1, -0.5) then (0.3, -0.7)
    torch.testing.assert_close(hold.best(hold.init(plan)), torch.tensor([[[0.2, -0.6, 0.2, -0.6]]]))


@pytest.mark.parametrize(("block", "repeat"), [(5, 2), (5, 0), (5, -5), (5, 6), (0, 1)])
def test_a_hold_that_does_not_fit(block: int, repeat: int) -> None:
    with pytest.raises(BadInput, match=rf"repeat is off; expected a divisor of the block \({block}\); got {repeat}"):
        Hold(CEM(), block, repeat)


BLOCK, HORIZON, EFFORT = 4, 3, 0.05


def world() -> LinearModel:
    """A damped point, pushed along two axes, four environment steps a model step."""
    generator = torch.Generator().manual_seed(7)
    step = torch.eye(4, dtype=torch.float64) + 0.1 * torch.diag(torch.ones(2, dtype=torch.float64), 2)
    push = 0.3 * torch.randn(4, 2, generator=generator, dtype=torch.float64)
    control = torch.cat([torch.linalg.matrix_power(step, BLOCK - 1 - k) @ push for k in range(BLOCK)], dim=1)
    spec = ActionSpec((-1.0, -1.0), (1.0, 1.0), ("m/s", "m/s"), BLOCK)
    return LinearModel(torch.linalg.matrix_power(step, BLOCK), control, spec)


def held_optimum(model: LinearModel, start: Tensor, goal: Tensor, repeat: int) -> tuple[Tensor, Tensor]:
    """Least energy `[E]` over held plans, in closed form, and the plans `[E, T, A]`: least squares in the knots."""
    matrix, target = model.least_squares(start, goal, HORIZON, EFFORT)
    one = torch.kron(torch.eye(BLOCK // repeat), torch.ones(repeat, 1))  # knots of a model step to its block
    spread = torch.kron(torch.eye(HORIZON), torch.kron(one, torch.eye(2))).double()
    knots = torch.linalg.lstsq(matrix @ spread, target.T).solution
    plans = (spread @ knots).T
    return (plans @ matrix.T - target).square().sum(1), plans.unflatten(1, (HORIZON, -1))


@pytest.mark.parametrize("repeat", [1, 2, 4])
@pytest.mark.parametrize("inner", [CEM(512, 32, 0.7, 0.02), MPPI(512, 0.05, 0.5, 0.85)], ids=["cem", "mppi"])
def test_the_optimum_of_the_held_problem(inner: Any, repeat: int) -> None:
    model, generator = world(), torch.Generator().manual_seed(0)
    start = torch.zeros(2, 4, dtype=torch.float64)
    goal = torch.tensor([[0.3, -0.2, 0.1, 0.0], [-0.2, 0.2, 0.0, 0.1]], dtype=torch.float64)
    least, plans = held_optimum(model, start, goal, repeat)
    assert plans.abs().max() < 0.9, "the bounds are not to bind, or this is not the optimum"
    latent, target = model.encode(obs(start.unsqueeze(1))), model.encode(obs(goal))
    energy = LatentDistance(over="all") + EFFORT * ActionEffort()
    knobs = {"iterations": 200, "horizon": HORIZON, "generator": generator}
    context = Context(latent, torch.zeros(2, 0, 2 * BLOCK, dtype=torch.float64))
    found = plan(model, context, target, energy, Hold(inner, BLOCK, repeat), **knobs)
    torch.testing.assert_close(found.energy, least, rtol=0.01, atol=1e-5)
    assert (found.energy >= least - 1e-9).all(), "better than the optimum: it was not held"
    assert (found.actions - plans).abs().max() < 0.15


def test_holding_costs_something_here() -> None:
    """Otherwise the test above could not tell a plan that is held from one that is not."""
    model, start = world(), torch.zeros(1, 4, dtype=torch.float64)
    goal = torch.tensor([[0.3, -0.2, 0.1, 0.0]], dtype=torch.float64)
    free, half, whole = (float(held_optimum(model, start, goal, repeat)[0]) for repeat in (1, 2, 4))
    assert free < 0.98 * half < 0.96 * whole


def obs(state: Tensor) -> TensorDict:
    return TensorDict({"state": state}, batch_size=state.shape[:-1])
