"""The one loop: ask an optimizer for plans, rehearse them in a world model, tell it how good they were."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .actions import ActionSpec
from .energies.base import held
from .errors import BadInput
from .optimizers.noise import best_candidate
from .optimizers.wrapping import admitted, slope_of, sloped
from .types import Context, EnergyLike, Optimizer, WorldModel


@dataclass(frozen=True)
class Plan:
    """What planning found.

    Attributes:
        actions: the best plan of each environment, `[E, T, A]`, in [-1, 1].
        energy: its energy, `[E]`; +inf where no candidate had a finite one.
        trace: the lowest energy found so far, after each iteration, `[iterations, E]`; shorter where time ran out.
        complete: whether every iteration was done before the deadline.
    """

    actions: Tensor
    energy: Tensor
    trace: Tensor
    complete: bool = True


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
    max_bytes: int | None = None,
    deadline_ms: float | None = None,
) -> Plan:
    """Finds the actions of least energy. Never worse than the best proposal that was judged; no failed candidate wins.

    Args:
        model: rehearses candidates.
        context: what is known now, E environments.
        goal: encoded goal, batch `[E]`.
        energy: what is minimised. NaN and infinities of either sign, of it or of what was rehearsed, are failures and
            count as +inf.
        optimizer: knobs and functions of the search. Whatever it asks for or stands for is put into [-1, 1].
        iterations: rounds of ask and tell, >= 1.
        horizon: T, model steps to look ahead, >= 1.
        generator: the only source of noise, on the device of the context; the same state gives the same plan.
        proposals: plans to start from, `[E, P, T, A]`, P >= 1, put into [-1, 1] and, where the optimizer has `admit`,
            to the nearest that it admits; zeros when None. All of them are extra candidates of the first iteration; the
            optimizer starts around the first, which is also the plan returned where every candidate fails (with energy
            +inf).
        chunk: most candidates an environment in one rollout, >= 1; all at once when None. Of energies that come from
            several rollouts there are first derivatives alone.
        max_bytes: most memory that rehearsing and judging may take at once, the candidates themselves not counted; as
            many candidates, and then as many environments, go into one rollout as fit. Changes no result. The model
            needs a method `bytes_per_plan(horizon)`. A rollout that is differentiated is reckoned at `REMEMBERED +
            horizon` times that, and once more for each further term and goal of the energy; it is differentiated before
            the next one begins.
        deadline_ms: wall time from the call after which no further rollout is begun; the best plan so far is returned.
            The first one is always done: a plan may be late by one rollout, which `chunk` and `max_bytes` keep short,
            and by what the optimizer makes of it. Environments that no rollout got to keep their first proposal, with
            energy +inf.

    Raises:
        BadInput: a number is out of range, a shape does not fit, or not even one plan fits into `max_bytes`.
    """
    began = time.perf_counter()
    proposals = admitted(optimizer, checked_proposals(model, context, iterations, horizon, proposals))
    scorer = _Scorer(model, context, goal, energy, horizon, chunk, max_bytes)
    scorer.ends = began + checked_deadline(deadline_ms) / 1000
    best = proposals[:, 0]  # [E, T, A]
    least = best.new_full((best.shape[0],), torch.inf)  # [E]
    state = optimizer.init(best)
    trace: list[Tensor] = []
    for iteration in range(iterations):
        with torch.enable_grad():  # an optimizer that wants gradients asks with a tensor that requires them
            actions = ActionSpec.project(optimizer.ask(state, generator))  # [E, S, T, A]
            if iteration == 0:
                actions = torch.cat([proposals, actions], dim=1)  # [E, P + S, T, A]
        cost = scorer(actions)  # [E, P + S], then [E, S]
        best, least = _better(best, least, actions.detach(), cost.detach())
        trace.append(least)
        last = iteration + 1 == iterations
        if not scorer.complete or scorer.late():  # telling may take as long as a rollout, where it differentiates
            return Plan(best, least, torch.stack(trace), complete=last and scorer.complete)
        state = optimizer.tell(state, actions, cost)
        if not last and scorer.late():
            return Plan(best, least, torch.stack(trace), complete=False)
    # The mean of good plans is often better than any of them, and sometimes, between two modes, worse: so it is tried.
    final = ActionSpec.project(optimizer.best(state)).unsqueeze(1)  # [E, 1, T, A]
    if not scorer.late():
        best, least = _better(best, least, final, scorer(final))
    return Plan(best, least, torch.stack(trace))


class _Scorer:
    """Energies of candidates, a part at a time: the one place where failures become +inf and where time runs out.

    Attributes:
        ends: when time runs out, on the clock of `time.perf_counter`.
        complete: whether all were judged; what was not for want of time has energy +inf.
    """

    def __init__(
        self,
        model: WorldModel,
        context: Context,
        goal: TensorDict,
        energy: EnergyLike,
        horizon: int,
        chunk: int | None,
        max_bytes: int | None,
    ) -> None:
        self.model, self.context, self.goal, self.energy = model, context, goal, energy
        self.limits = (horizon, chunk, max_bytes)
        self.ends, self.complete, self.begun = math.inf, True, False

    def late(self) -> bool:
        """Whether time has run out."""
        return time.perf_counter() >= self.ends

    def __call__(self, actions: Tensor) -> Tensor:
        """Candidates `[E, S, T, A]` to energies `[E, S]`."""
        _, _, most = self.limits
        followed = held(self.energy, self.goal) if actions.requires_grad and most is not None else 0
        width, rows = rollout_size(self.model, len(actions), *self.limits, followed=followed)
        with torch.set_grad_enabled(actions.requires_grad):
            if width >= actions.shape[1] and rows >= len(actions):
                return self._judge(actions, self.context, self.goal)
            return torch.cat([self._in_turn(part, rows) for part in actions.split(width, dim=1)], dim=1)

    def _in_turn(self, part: Tensor, rows: int) -> Tensor:
        """Energies of `part`, as many environments at once as `rows` says; each rollout is forgotten after it."""
        costs: list[Tensor] = []
        for first in range(0, len(part), rows):
            some = slice(first, first + rows)
            if self.begun and self.late():
                self.complete = False
                costs.append(part.new_full(part[some].shape[:2], torch.inf))
                continue
            context = Context(self.context.latent[some], self.context.actions[some])
            judge = self._sloped if part.requires_grad else self._judge
            costs.append(judge(part[some], context, self.goal[some]))
        return torch.cat(costs)

    def _sloped(self, part: Tensor, context: Context, goal: TensorDict) -> Tensor:
        """As `_judge`, with the same derivative by `part` and nothing else remembered of the rollout."""
        inner = part.detach().requires_grad_()
        cost = self._judge(inner, context, goal)
        if not cost.requires_grad:
            return cost
        return sloped(cost, slope_of(cost, inner, keep=False), part)

    def _judge(self, part: Tensor, context: Context, goal: TensorDict) -> Tensor:
        """Energies `[E, S]` of `part` `[E, S, T, A]`, in one rollout."""
        self.begun = True
        futures = self.model.rollout(context, part)
        cost = self.energy(futures, goal, part)
        if cost.shape != part.shape[:2]:
            expected = str(tuple(part.shape[:2]))
            raise BadInput("energy has a wrong shape", expected=expected, got=str(tuple(cost.shape)))
        # An energy of the last step alone, or of the least one, does not see what is wrong with the others.
        return torch.where(cost.isfinite() & finite(futures, 2), cost, torch.inf)


def finite(data: TensorDict, dims: int) -> Tensor:
    """Whether all floats of it are finite, for each index of its first `dims` dimensions.

    By their sums, which no NaN or infinity leaves finite: to ask number by number takes a tenth of a rehearsal.
    """
    floats = [one.detach() for one in data.values(True, True) if torch.is_tensor(one) and one.is_floating_point()]
    if not floats:
        return torch.ones(data.batch_size[:dims], dtype=torch.bool, device=data.device)
    sums = [one.flatten(dims).sum(-1, dtype=torch.promote_types(one.dtype, torch.float32)) for one in floats]
    return torch.stack([one.isfinite() for one in sums]).all(0)


def _better(best: Tensor, least: Tensor, actions: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """Keeps, an environment, the better of what was best and the best of the candidates."""
    winner, lowest = best_candidate(actions, cost)
    improved = lowest < least
    return torch.where(improved[:, None, None], winner, best), torch.where(improved, lowest, least)


REMEMBERED = 4
"""Times the bytes of a rehearsal that one takes which is differentiated, and once more for each of its steps: heads and
energies hold their layers with the derivatives of these, and a predictor what every step of it held."""


def rollout_size(
    model: WorldModel,
    environments: int,
    horizon: int,
    chunk: int | None,
    max_bytes: int | None,
    *,
    followed: int = 0,
) -> tuple[int, int]:
    """Most candidates an environment, and most environments, in one rollout; `BadInput` where there is no such.

    Where so many terms and goals are `followed`, for derivatives, fewer fit.
    """
    width = chunk if chunk is not None else 2**31
    if width < 1:
        raise BadInput("plan: chunk is off", expected="at least 1", got=str(chunk))
    if max_bytes is None:
        return width, environments
    if not hasattr(model, "bytes_per_plan"):
        raise BadInput(
            "plan: max_bytes cannot be kept",
            expected="a world model with `bytes_per_plan(horizon)`",
            got=type(model).__name__,
            do="add that method, or cap candidates with `chunk`",
        )
    each = model.bytes_per_plan(horizon) * (REMEMBERED + horizon + followed - 1 if followed else 1)
    fit = int(max_bytes // each)
    if fit < 1:
        expected = f"at least {each}, for one plan of {horizon} steps" + ", differentiated" * bool(followed)
        raise BadInput("plan: max_bytes is too small", expected=expected, got=str(max_bytes))
    return min(width, max(1, fit // max(1, environments))), min(environments, fit)


def checked_deadline(deadline_ms: float | None) -> float:
    """Milliseconds, infinity for None; `BadInput` for what is no time."""
    if deadline_ms is None:
        return math.inf
    if not 0 < deadline_ms < math.inf:
        raise BadInput("plan: deadline_ms is off", expected="a number above 0", got=str(deadline_ms))
    return deadline_ms


def checked_proposals(
    model: WorldModel, context: Context, iterations: int, horizon: int, proposals: Tensor | None
) -> Tensor:
    """Proposals `[E, P, T, A]` in [-1, 1], where the context is and in its precision; zeros where there are none.

    Raises:
        BadInput: a number is out of range, or a shape does not fit.
    """
    for name, value in (("iterations", iterations), ("horizon", horizon)):
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
    # Double ones, as numpy makes them, are none for a world in single precision; where it is double either may be.
    known = {value.dtype for value in context.latent.values(True, True)} | {context.actions.dtype}
    dtype = proposals.dtype if proposals.dtype in known else context.actions.dtype
    return ActionSpec.project(proposals.to(context.actions.device, dtype))
