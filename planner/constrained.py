"""Planning under inequality constraints: an augmented Lagrangian around the one loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .energies.constraints import MULTIPLIERS, PENALTIES, AugmentedLagrangian, Constraint
from .errors import BadInput
from .optimizers.wrapping import admitted
from .plan import Plan, checked_deadline, checked_proposals, finite, plan, rollout_size
from .types import Context, EnergyLike, Optimizer, WorldModel


@dataclass(frozen=True)
class ConstrainedPlan:
    """What planning under constraints found.

    Attributes:
        plan: the plan of least energy among those of all rounds, and the proposals that were given, that keep the
            constraints; where none does, the one that breaks them least. Its `energy` is that of the goal alone, +inf
            where every one of them failed.
        violation: most by which any constraint is broken, `[E]`, >= 0; +inf where all of them failed.
        multipliers: of the last round, `[E, K]`, >= 0: how hard each constraint pushes. The next plan in a loop may
            start from them.
    """

    plan: Plan
    violation: Tensor
    multipliers: Tensor


@torch.no_grad()
def plan_constrained(
    model: WorldModel,
    context: Context,
    goal: TensorDict,
    energy: EnergyLike,
    constraints: Sequence[Constraint],
    optimizer: Optimizer[Any],
    *,
    horizon: int,
    rounds: int = 5,
    penalty: float = 10.0,
    growth: float = 1.5,
    tolerance: float = 1e-3,
    multipliers: Tensor | None = None,
    deadline_ms: float | None = None,
    **how: Any,
) -> ConstrainedPlan:
    """Plans again and again, each time from the last plan and with constraints pressed on by what they were broken by.

    What is done for one environment does not depend on the others. Rounds whose plan fails (an energy or a constraint
    that is not finite) press on nothing, and count only where there is no other.

    Args:
        model: rehearses candidates.
        context: what is known now, E environments.
        goal: encoded goal, batch `[E]`.
        energy: what is minimised.
        constraints: what has to stay at or below 0: of the actions, of the futures, or of a probe of the futures.
        optimizer: knobs and functions of the search.
        horizon: model steps to look ahead, >= 1.
        rounds: plans to make, >= 1.
        penalty: of the first round, > 0; large against the energy's own slope.
        growth: factor on it after each round that broke a constraint, >= 1.
        tolerance: by how much a constraint may be broken and still count as kept, >= 0.
        multipliers: to start from, `[E, K]`, as those of the plan before; zeros when None.
        deadline_ms: as in `plan`, for all rounds together; what a round found is then checked, which may come late.
            Proposals, or rest, are rehearsed before the first, in any case.
        how: the other arguments of `plan`, `iterations` and `generator` among them.

    Raises:
        BadInput: a number is out of range.
    """
    if horizon < 1:
        raise BadInput("plan_constrained: horizon is off", expected="at least 1", got=str(horizon))
    if rounds < 1 or not growth >= 1 or not tolerance >= 0:
        got = f"{rounds}, {growth}, {tolerance}"
        raise BadInput("plan_constrained: rounds, growth or tolerance is off", expected=">= 1, >= 1, >= 0", got=got)
    ends = time.perf_counter() + checked_deadline(deadline_ms) / 1000
    lagrangian = AugmentedLagrangian(energy, tuple(constraints), penalty)
    given, room = how.pop("proposals", None), (horizon, how.get("chunk"), how.get("max_bytes"))
    # Of the first round; later ones start from the last plan.
    proposals = first = admitted(optimizer, checked_proposals(model, context, 1, horizon, given))
    costs, limits = _limited(model, context, goal, lagrangian, first, room)
    multipliers = _begun(multipliers, limits[:, 0])  # [E, K]
    penalties = multipliers.new_full((len(multipliers),), penalty)
    # A round is won by what is least pressed on, which may break a little what a proposal keeps. To rest is none that
    # anybody asked for: a search that is a hair off would never leave it.
    kept = None if given is None else _best_of(first, costs, limits, multipliers, tolerance)
    complete = True
    for number in range(rounds):
        left = 1000 * (ends - time.perf_counter())
        if number and left <= 0:
            complete = False
            break
        pressed = goal.clone(recurse=False)
        pressed[MULTIPLIERS], pressed[PENALTIES] = multipliers, penalties
        how["deadline_ms"] = None if deadline_ms is None else max(left, 1e-3)  # the first is begun in any case
        found = plan(model, context, pressed, lagrangian, optimizer, proposals=proposals, horizon=horizon, **how)
        complete &= found.complete
        costs, limits = _limited(model, context, goal, lagrangian, found.actions.unsqueeze(1), room)
        cost, limited = costs[:, 0], limits[:, 0]
        judged = _judged(found, cost, limited, multipliers)
        sound = judged.violation.isfinite()
        pressed_on = (multipliers + penalties[:, None] * limited).relu()
        multipliers = torch.where(sound[:, None], pressed_on, multipliers)
        kept = replace(_better(kept, judged, tolerance), multipliers=multipliers)
        # Where all is kept, a stiffer problem only makes the multipliers jump.
        penalties = torch.where(sound & (judged.violation > tolerance), growth * penalties, penalties)
        last = found.actions.unsqueeze(1)
        proposals = last if given is None else torch.cat([last, first], dim=1)
    assert kept is not None
    return replace(kept, plan=replace(kept.plan, complete=complete))


def _best_of(plans: Tensor, costs: Tensor, limits: Tensor, multipliers: Tensor, tolerance: float) -> ConstrainedPlan:
    """The best of plans `[E, P, T, A]`, of which energies `[E, P]` and what is limited, `[E, P, K]`, are known."""
    known = zip(plans.unbind(1), costs.unbind(1), limits.unbind(1), strict=True)
    judged = (
        _judged(Plan(actions, cost, cost.new_empty(0, len(cost))), cost, limited, multipliers)
        for actions, cost, limited in known
    )
    return reduce(lambda best, one: _better(best, one, tolerance), judged)


def _limited(
    model: WorldModel,
    context: Context,
    goal: TensorDict,
    lagrangian: AugmentedLagrangian,
    actions: Tensor,
    room: tuple[int, int | None, int | None],
) -> tuple[Tensor, Tensor]:
    """Of plans `[E, P, T, A]` the goal's energy, `[E, P]`, and what is limited, `[E, P, K]`; rehearsed as many at once
    as there is `room` for: horizon, chunk and bytes."""
    width, rows = rollout_size(model, len(actions), *room)
    costs, limits = [], []
    for part in (slice(first, first + rows) for first in range(0, len(actions), rows)):
        known, wanted, judged = Context(context.latent[part], context.actions[part]), goal[part], []
        for plans in actions[part].split(min(width, actions.shape[1]), dim=1):
            futures = model.rollout(known, plans)
            cost = lagrangian.energy(futures, wanted, plans)
            sound = torch.where(finite(futures, 2), cost, torch.inf)
            judged.append((sound, lagrangian.limited(futures, wanted, plans)))
        costs.append(torch.cat([cost for cost, _ in judged], dim=1))
        limits.append(torch.cat([limited for _, limited in judged], dim=1))
    return torch.cat(costs), torch.cat(limits)


def _begun(multipliers: Tensor | None, limited: Tensor) -> Tensor:
    """The multipliers to start from, `[E, K]` as `limited` is: zeros where there are none."""
    if multipliers is None:
        return torch.zeros_like(limited)
    if multipliers.shape != limited.shape or not (multipliers.isfinite() & (multipliers >= 0)).all():
        expected, got = f"{list(limited.shape)}, finite and >= 0", f"{list(multipliers.shape)}, {multipliers.tolist()}"
        raise BadInput("plan_constrained: multipliers are off", expected=expected, got=got)
    return multipliers.to(limited)


def _judged(found: Plan, energy: Tensor, limited: Tensor, multipliers: Tensor) -> ConstrainedPlan:
    """A round's plan by the goal's energy `[E]` alone, and what is limited, `[E, K]`: +inf both where it fails."""
    sound = energy.isfinite() & limited.isfinite().all(-1)
    violation = torch.where(sound, limited.amax(-1).relu(), torch.inf)
    return ConstrainedPlan(replace(found, energy=torch.where(sound, energy, torch.inf)), violation, multipliers)


def _better(old: ConstrainedPlan | None, new: ConstrainedPlan, tolerance: float) -> ConstrainedPlan:
    """An environment at a time: the plan that keeps the constraints, then the one of less energy (or less breach)."""
    if old is None:
        return new
    held, holds = old.violation <= tolerance, new.violation <= tolerance
    cheaper = torch.where(held & holds, new.plan.energy < old.plan.energy, new.violation < old.violation)
    take = torch.where(held == holds, cheaper, holds)
    found = replace(
        new.plan,
        actions=torch.where(take[:, None, None], new.plan.actions, old.plan.actions),
        energy=torch.where(take, new.plan.energy, old.plan.energy),
    )
    return ConstrainedPlan(found, torch.where(take, new.violation, old.violation), new.multipliers)
