"""Predictive sampling: try some plans near the present one, and take the best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .noise import best_candidate, normal


class SamplingState(NamedTuple):
    """The best plan so far, `[E, T, A]`, and its energy, `[E]` (+inf before the first round)."""

    plan: Tensor
    energy: Tensor


@dataclass(frozen=True)
class PredictiveSampling:
    """The simplest planner that works (Howell et al., 2022, arXiv 2212.00541): the best of S noisy copies.

    Attributes:
        samples: S, candidates an iteration, >= 2.
        std: standard deviation of the noise, in normalised action units, > 0.
        shared_noise: the same noise in every environment.
    """

    samples: int = 256
    std: float = 0.3
    shared_noise: bool = False

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise BadInput("PredictiveSampling: samples is off", expected="at least 2", got=str(self.samples))
        if not 0 < self.std < math.inf:
            raise BadInput("PredictiveSampling: std is off", expected="a number above 0", got=str(self.std))

    def init(self, plan: Tensor) -> SamplingState:
        """Starts at `plan`, `[E, T, A]`."""
        return SamplingState(plan.clamp(-1, 1), plan.new_full((plan.shape[0],), torch.inf))

    def ask(self, state: SamplingState, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`; the first is the best plan so far."""
        noise = normal(state.plan, self.samples - 1, generator, self.shared_noise)
        plan = state.plan.unsqueeze(1)
        return torch.cat([plan, plan + self.std * noise], dim=1).clamp(-1, 1)

    def tell(self, state: SamplingState, actions: Tensor, energy: Tensor) -> SamplingState:
        """Takes the best candidate, where it is better."""
        winner, least = best_candidate(actions, energy)
        better = least < state.energy
        return SamplingState(
            torch.where(better[:, None, None], winner, state.plan), torch.where(better, least, state.energy.to(least))
        )

    def best(self, state: SamplingState) -> Tensor:
        """The best plan so far, `[E, T, A]`."""
        return state.plan
