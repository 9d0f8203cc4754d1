"""The one loop: ask an optimizer for plans, rehearse them in a world model, tell it how good they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .actions import ActionSpec
from .errors import BadInput
from .types import Context, EnergyLike, Optimizer, WorldModel


@dataclass(frozen=True)
class Plan:
    """What planning found.

    Attributes:
        actions: the best plan of each environment, `[E, T, A]`, in [-1, 1].
        energy: its energy, `[E]`; +inf where no candidate had a finite one.
        trace: the lowest energy found so far, after each iteration, `[iterations, E]`.
    """

    actions: Tensor
    energy: Tensor
    trace: Tensor


@torch.no_grad()
def plan(
    model: WorldModel,
    context: Context,
    goal: TensorDict,
    energy: EnergyLike,
    optimizer: Optimizer[Any],
    *,
    iterations: int,
    horizon: int,
    generator: torch.Generator,
    proposals: Tensor | None = None,
    chunk: int | None = None,
) -> Plan:
    """Finds the actions of least energy. Never worse than the best proposal; a failed candidate never wins.

    Args:
        model: rehearses candidates.
        context: what is known now, E environments.
        goal: encoded goal, batch `[E]`.
        energy: what is minimised. NaN and infinities of either sign are failures and count as +inf.
        optimizer: knobs and functions of the search.
        iterations: rounds of ask and tell, >= 1.
        horizon: T, model steps to look ahead, >= 1.
        generator: the only source of noise, on the device of the context; the same state gives the same plan.
        proposals: plans to start from, `[E, P, T, A]`, P >= 1, put into [-1, 1]; zeros when None. All of them are extra
            candidates of the first iteration; the optimizer starts around the first, which is also the plan returned
            where every candidate fails (with energy +inf).
        chunk: most candidates an environment in one rollout, >= 1, to cap memory; all at once when None.

    Raises:
        BadInput: a number is out of range or a shape does not fit.
    """
    proposals = _checked_proposals(model, context, iterations, horizon, proposals, chunk)
    best = proposals[:, 0]  # [E, T, A]
    least = best.new_full((best.shape[0],), torch.inf)  # [E]
    state = optimizer.init(best)
    trace = []
    for iteration in range(iterations):
        actions = optimizer.ask(state, generator)  # [E, S, T, A]
        if iteration == 0:
            actions = torch.cat([proposals, actions], dim=1)  # [E, P + S, T, A]
        cost = _score(model, context, goal, energy, actions, chunk)  # [E, P + S]
        state = optimizer.tell(state, actions, cost)
        best, least = _better(best, least, actions, cost)
        trace.append(least)
    # The mean of good plans is often better than any of them, and sometimes, between two modes, worse: so it is tried.
    final = optimizer.best(state).unsqueeze(1)  # [E, 1, T, A]
    best, least = _better(best, least, final, _score(model, context, goal, energy, final, chunk))
    return Plan(best, least, torch.stack(trace))


def _score(
    model: WorldModel, context: Context, goal: TensorDict, energy: EnergyLike, actions: Tensor, chunk: int | None
) -> Tensor:
    """Energies `[E, S]` of candidates `[E, S, T, A]`, +inf for every failure: the one place where that is decided."""
    parts = torch.split(actions, chunk or actions.shape[1], dim=1)
    cost = torch.cat([energy(model.rollout(context, part), goal, part) for part in parts], dim=1)
    if cost.shape != actions.shape[:2]:
        raise BadInput("energy has a wrong shape", expected=str(tuple(actions.shape[:2])), got=str(tuple(cost.shape)))
    return torch.where(cost.isfinite(), cost, torch.inf)


def _better(best: Tensor, least: Tensor, actions: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """Keeps, an environment, the better of what was best and the best of the candidates."""
    lowest, index = cost.min(dim=1)  # [E]
    winner = actions.take_along_dim(index[:, None, None, None], dim=1).squeeze(1)  # [E, T, A]
    improved = lowest < least
    return torch.where(improved[:, None, None], winner, best), torch.where(improved, lowest, least)


def _checked_proposals(
    model: WorldModel, context: Context, iterations: int, horizon: int, proposals: Tensor | None, chunk: int | None
) -> Tensor:
    for name, value in (("iterations", iterations), ("horizon", horizon), ("chunk", 1 if chunk is None else chunk)):
        if value < 1:
            raise BadInput(f"plan: {name} is off", expected="at least 1", got=str(value))
    size = (context.actions.shape[0], horizon, model.action.dim)  # E, T, A
    if proposals is None:
        return context.actions.new_zeros(size).unsqueeze(1)
    if proposals.ndim != 4 or (proposals.shape[0], *proposals.shape[2:]) != size or proposals.shape[1] < 1:
        raise BadInput(
            "plan: proposals have a wrong shape",
            expected=f"[{size[0]}, P, {size[1]}, {size[2]}]",
            got=str(tuple(proposals.shape)),
        )
    return ActionSpec.project(proposals)
