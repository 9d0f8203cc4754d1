"""Model predictive path integral control: an average of all candidates, weighted by how good they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .noise import normal


class MPPIState(NamedTuple):
    """`mean`, `[E, T, A]`, and the scale `std` of the noise around it, `[E, 1, 1]`."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class MPPI:
    """Model predictive path integral control (Williams et al., 2017, arXiv 1707.02342), without its control cost term:
    effort is an energy here.

    Candidates weigh `exp(-(energy - best) / (temperature * spread))`. The paper's temperature is in units of energy,
    and has to be found again for every model and metric. Here it is a share of `spread`, the gap between the best and
    the median candidate of an environment: scaling or shifting an energy changes nothing, and one enormous energy does
    not flatten the weights as it would through a standard deviation. An environment in which every candidate failed
    (energy +inf) keeps its distribution; where some failed, they weigh nothing.

    Attributes:
        samples: S, candidates an iteration, >= 2.
        temperature: share of `spread` at which a weight has dropped to 1/e, > 0; towards 0 the best takes all.
        std: standard deviation of the first iteration's noise, in normalised action units (bounds at -1 and 1), > 0.
        decay: factor on the noise after each iteration, in (0, 1]; 1 is the paper's constant noise.
        shared_noise: the same noise in every environment; what is planned for one of many is then what is planned for
            it alone.
    """

    samples: int = 256
    temperature: float = 0.1
    std: float = 0.5
    decay: float = 0.9
    shared_noise: bool = False

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise BadInput("MPPI: samples is off", expected="at least 2", got=str(self.samples))
        if not 0 < self.temperature < math.inf:
            raise BadInput("MPPI: temperature is off", expected="a number above 0", got=str(self.temperature))
        if not 0 < self.std < math.inf:
            raise BadInput("MPPI: std is off", expected="a number above 0", got=str(self.std))
        if not 0 < self.decay <= 1:
            raise BadInput("MPPI: decay is off", expected="in (0, 1]", got=str(self.decay))

    def init(self, plan: Tensor) -> MPPIState:
        """Noise around `plan`, `[E, T, A]`."""
        return MPPIState(plan.clamp(-1, 1), plan.new_full((plan.shape[0], 1, 1), self.std))

    def ask(self, state: MPPIState, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`; the first is the mean itself."""
        noise = normal(state.mean, self.samples - 1, generator, self.shared_noise)
        mean, std = (part.unsqueeze(1) for part in state)  # [E, 1, T, A], [E, 1, 1, 1]
        return torch.cat([mean, mean + std * noise], dim=1).clamp(-1, 1)

    def tell(self, state: MPPIState, actions: Tensor, energy: Tensor) -> MPPIState:
        """Moves the mean to the weighted average of the candidates, and calms the noise."""
        ordered = energy.sort(dim=1).values  # failures, +inf, come last
        alive = energy.isfinite().sum(1, keepdim=True)  # [E, 1]
        lowest, median = ordered[:, :1], ordered.gather(1, (alive - 1).clamp(min=0) // 2)
        # The limits keep 0 / 0 and inf / inf, which are NaN, out of the weights.
        limits = torch.finfo(energy.dtype)
        scale = (self.temperature * (median - lowest)).clamp(limits.tiny, limits.max)
        weights = torch.softmax((lowest - energy) / scale, dim=1).to(actions.dtype)  # [E, S']
        mean = (weights[..., None, None] * actions).sum(1).clamp(-1, 1)  # [E, T, A]
        moved = (alive > 0).unsqueeze(-1)  # elsewhere the weights are NaN, and not used
        return MPPIState(torch.where(moved, mean, state.mean), torch.where(moved, self.decay * state.std, state.std))

    def best(self, state: MPPIState) -> Tensor:
        """The mean, `[E, T, A]`."""
        return state.mean
