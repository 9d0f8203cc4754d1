"""What must not happen: soft constraints on futures and actions.

Hard bounds need none of this: every plan keeps them. Rates are kept by the guard, and within a plan by
`optimizers.Smooth`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from tensordict import TensorDict
from torch import Tensor

from ..errors import BadInput
from ..types import EnergyLike
from .base import Energy, held


class Constraint(Protocol):
    """What has to stay at or below 0, `[E, S, ...]`: above it is how much the constraint is broken. Pure."""

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor: ...


def _listed(limited: Tensor) -> Tensor:
    """`[E, S, ...]`, and `[E, S]` too, to `[E, S, K]`; what is only said to be broken or not is broken by 1 or 0."""
    limited = limited if limited.is_floating_point() else limited.float()
    return limited.unsqueeze(-1).flatten(2)


@dataclass(frozen=True)
class Penalty(Energy):
    """The square of what a constraint is broken by, summed over all that it limits.

    Attributes:
        constraint: what has to stay at or below 0.
        weight: factor, > 0. Some breach always remains; `planner.constrained.plan_constrained` ends nearer to none.
    """

    constraint: Constraint
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise BadInput("Penalty: weight is off", expected="a number above 0", got=str(self.weight))

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return self.weight * _listed(self.constraint(futures, goal, actions)).relu().square().sum(-1)


MULTIPLIERS = "multipliers"
"""Where the goal carries the multipliers, `[E, K]`: they belong to an environment as its goal does."""
PENALTIES = "penalties"
"""Where it may carry the penalty of each environment, `[E]`."""


@dataclass(frozen=True)
class AugmentedLagrangian(Energy):
    """An energy under constraints, for multipliers that the goal carries (Nocedal & Wright, 2006, eq. 17.65).

    Adds `sum_k (max(0, lambda_k + rho c_k)^2 - lambda_k^2) / (2 rho)` for the K numbers c that the constraints limit.

    Attributes:
        energy: what is minimised.
        constraints: what has to stay at or below 0, each `[E, S, ...]`.
        penalty: rho, > 0, where the goal carries none of each environment's own.
    """

    energy: EnergyLike
    constraints: tuple[Constraint, ...]
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not self.constraints:
            raise BadInput("AugmentedLagrangian: no constraints", expected="at least one")
        if not 0 < self.penalty < math.inf:
            raise BadInput("AugmentedLagrangian: penalty is off", expected="above 0", got=str(self.penalty))

    def held(self, goal: TensorDict) -> int:
        return held(self.energy, goal) + len(self.constraints)

    def limited(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        """All that is limited, `[E, S, K]`."""
        return torch.cat([_listed(c(futures, goal, actions)) for c in self.constraints], dim=-1)

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        if (given := goal.get(MULTIPLIERS, None)) is None:
            raise BadInput(
                "AugmentedLagrangian: the goal carries no multipliers",
                expected=f"`{MULTIPLIERS}` [E, K] beside it",
                do="plan with planner.constrained.plan_constrained, or give an MPC energy + Penalty(constraint)",
            )
        multipliers, own = given.unsqueeze(1), goal.get(PENALTIES, None)  # [E, 1, K], [E]
        penalty = multipliers.new_tensor(self.penalty) if own is None else own[:, None, None]
        pressed = (multipliers + penalty * self.limited(futures, goal, actions)).relu()
        extra = ((pressed.square() - multipliers.square()) / (2 * penalty)).sum(-1)
        return self.energy(futures, goal, actions) + extra
