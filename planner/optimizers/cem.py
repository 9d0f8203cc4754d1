"""The cross-entropy method: fit a Gaussian to the best candidates, sample again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .noise import lowest_of, normal


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
        check_gaussian(self, self.samples, "samples")

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
        elites, lowest = lowest_of(actions, energy, self.elites)
        return CEMState(*follow(state.mean, state.std, elites, lowest.isfinite(), self.momentum, self.min_std))

    def best(self, state: CEMState) -> Tensor:
        """The mean, `[E, T, A]`."""
        return state.mean


def check_gaussian(search: Any, most: int, bound: str) -> None:
    """Judges the knobs that searches with Gaussians share; at most `most` (called `bound`) elites."""
    name = type(search).__name__
    if search.samples < 2:
        raise BadInput(f"{name}: samples is off", expected="at least 2", got=str(search.samples))
    if not 2 <= search.elites <= most:
        raise BadInput(f"{name}: elites is off", expected=f"2 to {bound} ({most})", got=str(search.elites))
    if not 0 < search.init_std < math.inf:
        raise BadInput(f"{name}: init_std is off", expected="a number above 0", got=str(search.init_std))
    if not 0 <= search.min_std <= search.init_std:
        expected = f"0 to init_std ({search.init_std})"
        raise BadInput(f"{name}: min_std is off", expected=expected, got=str(search.min_std))
    if not 0 <= search.momentum < 1:
        raise BadInput(f"{name}: momentum is off", expected="in [0, 1)", got=str(search.momentum))


def follow(
    mean: Tensor, std: Tensor, elites: Tensor, alive: Tensor, momentum: float | Tensor, min_std: float
) -> tuple[Tensor, Tensor]:
    """Moves Gaussians `mean` and `std`, `[..., T, A]`, to the mean and spread of their elites.

    Args:
        mean: of each Gaussian.
        std: of each Gaussian.
        elites: `[..., K, T, A]`.
        alive: bool `[..., K]`, which of them count; a Gaussian that has none stays.
        momentum: share of the old that stays, one number or one a Gaussian (`[..., 1, 1]`).
        min_std: floor of the new standard deviation.

    Returns:
        The new mean and standard deviation, `[..., T, A]` each.
    """
    weight = alive[..., None, None].to(elites.dtype)  # [..., K, 1, 1]
    count = weight.sum(-3)
    centre = (weight * elites).sum(-3) / count.clamp(min=1)
    variance = (weight * (elites - centre.unsqueeze(-3)).square()).sum(-3) / count.clamp(min=1)
    stays = torch.where(count > 0, momentum, 1.0).to(elites.dtype)
    return torch.lerp(centre, mean, stays), torch.lerp(variance.sqrt().clamp(min=min_std), std, stays)
