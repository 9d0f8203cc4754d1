"""The cross-entropy method: fit a Gaussian to the best candidates, sample again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .noise import normal


class CEMState(NamedTuple):
    """A diagonal Gaussian over plans: `mean` and `std`, both `[E, T, A]`."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method (Rubinstein & Kroese, 2004) with a diagonal Gaussian a step and action dimension.

    All lengths are in normalised action units, where the bounds are -1 and 1. An environment in which every candidate
    failed (energy +inf) keeps its distribution; where some failed, they are never elites.

    Attributes:
        samples: S, candidates an iteration, >= 2.
        elites: how many of the best shape the next distribution, 2 to `samples`.
        init_std: standard deviation of the first iteration, > 0.
        min_std: floor of the standard deviation, 0 to `init_std`; keeps the search from freezing early.
        momentum: share of the old mean and standard deviation that stays at each update, in [0, 1).
        shared_noise: the same noise in every environment; what is planned for one of many is then what is planned for
            it alone.
    """

    samples: int = 256
    elites: int = 32
    init_std: float = 0.5
    min_std: float = 0.02
    momentum: float = 0.1
    shared_noise: bool = False

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise BadInput("CEM: samples is off", expected="at least 2", got=str(self.samples))
        if not 2 <= self.elites <= self.samples:
            raise BadInput("CEM: elites is off", expected=f"2 to samples ({self.samples})", got=str(self.elites))
        if not 0 < self.init_std < math.inf:
            raise BadInput("CEM: init_std is off", expected="a number above 0", got=str(self.init_std))
        if not 0 <= self.min_std <= self.init_std:
            raise BadInput("CEM: min_std is off", expected=f"0 to init_std ({self.init_std})", got=str(self.min_std))
        if not 0 <= self.momentum < 1:
            raise BadInput("CEM: momentum is off", expected="in [0, 1)", got=str(self.momentum))

    def init(self, plan: Tensor) -> CEMState:
        """A wide distribution around `plan`, `[E, T, A]`."""
        return CEMState(plan.clamp(-1, 1), torch.full_like(plan, self.init_std))

    def ask(self, state: CEMState, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`; the first is the mean itself, so that one bad draw cannot lose it."""
        noise = normal(state.mean, self.samples - 1, generator, self.shared_noise)
        mean, std = (part.unsqueeze(1) for part in state)  # [E, 1, T, A]
        return torch.cat([mean, mean + std * noise], dim=1).clamp(-1, 1)

    def tell(self, state: CEMState, actions: Tensor, energy: Tensor) -> CEMState:
        """Moves towards the mean and spread of the elites."""
        lowest, index = energy.topk(min(self.elites, energy.shape[1]), dim=1, largest=False)  # [E, K]
        elites = actions.take_along_dim(index[..., None, None], dim=1)  # [E, K, T, A]
        mean, std, count = spread(elites, lowest.isfinite())
        std = std.clamp(min=self.min_std)
        keep = torch.where(count > 0, self.momentum, 1.0).to(actions.dtype)
        return CEMState(torch.lerp(mean, state.mean, keep), torch.lerp(std, state.std, keep))

    def best(self, state: CEMState) -> Tensor:
        """The mean, `[E, T, A]`."""
        return state.mean


def spread(elites: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of those of `elites` `[..., K, T, A]` that are `alive`, bool `[..., K]`.

    Returns:
        mean and standard deviation, `[..., T, A]` each (0 where none is alive), and how many are, `[..., 1, 1]`.
    """
    weight = alive[..., None, None].to(elites.dtype)  # [..., K, 1, 1]
    count = weight.sum(-3)
    mean = (weight * elites).sum(-3) / count.clamp(min=1)
    variance = (weight * (elites - mean.unsqueeze(-3)).square()).sum(-3) / count.clamp(min=1)
    return mean, variance.sqrt(), count
