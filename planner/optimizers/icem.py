"""CEM that wastes less: coloured noise, elites that are kept, fewer candidates as the search narrows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .cem import check_gaussian, follow
from .noise import coloured, lowest_of, normal


class ICEMState(NamedTuple):
    """The Gaussian `mean` and `std`, `[E, T, A]`; `elites` `[E, K, T, A]` and their `energy` `[E, K]`; the `round`."""

    mean: Tensor
    std: Tensor
    elites: Tensor
    energy: Tensor
    round: int


@dataclass(frozen=True)
class ICEM:
    """Improved cross-entropy method (Pinneri et al., 2020, arXiv 2008.06389).

    Against `CEM`: noise is correlated in time, so that candidates go somewhere; a share of the elites competes again in
    the next round, with the energy it had; and each round draws fewer candidates. The paper also shifts the elites from
    one control step to the next: here the shifted plan enters as the first proposal.

    Attributes:
        samples: S, candidates of the first round, >= 2.
        elites: how many of the best shape the next distribution, 2 to `samples`.
        keep: share of the elites that compete again, 0 to 1.
        shrink: each round has `samples / shrink ** round` candidates, but at least `2 * elites`; >= 1.
        colour: exponent of the noise's spectrum along the horizon, >= 0: 0 is white, 2 to 4 as in the paper.
        init_std: standard deviation of the first round, in normalised action units, > 0.
        min_std: floor of the standard deviation, 0 to `init_std`.
        momentum: share of the old mean and standard deviation that stays at each update, in [0, 1).
        shared_noise: the same noise in every environment.
    """

    samples: int = 256
    elites: int = 24
    keep: float = 0.3
    shrink: float = 1.25
    colour: float = 2.0
    init_std: float = 0.5
    min_std: float = 0.02
    momentum: float = 0.1
    shared_noise: bool = False

    def __post_init__(self) -> None:
        check_gaussian(self, self.samples, "samples")
        if not 0 <= self.keep <= 1:
            raise BadInput("ICEM: keep is off", expected="0 to 1", got=str(self.keep))
        if not 1 <= self.shrink < math.inf:
            raise BadInput("ICEM: shrink is off", expected="1 or more", got=str(self.shrink))
        if not 0 <= self.colour < math.inf:
            raise BadInput("ICEM: colour is off", expected="0 or more", got=str(self.colour))

    @property
    def _longest(self) -> float:
        """Rounds after which no candidate would be left: a power of more may be too large for a float."""
        return math.inf if self.shrink == 1 else math.ceil(math.log(self.samples) / math.log(self.shrink)) + 1

    def init(self, plan: Tensor) -> ICEMState:
        """A wide distribution around `plan`, `[E, T, A]`, and no elites yet."""
        mean, kept = plan.clamp(-1, 1), round(self.keep * self.elites)
        elites = mean.unsqueeze(1).expand(-1, kept, -1, -1)
        unknown = mean.new_full(elites.shape[:2], torch.inf)
        return ICEMState(mean, torch.full_like(mean, self.init_std), elites, unknown, 0)

    def ask(self, state: ICEMState, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`, fewer each round; the first is the mean itself."""
        shrunk = self.samples / self.shrink ** min(state.round, self._longest)
        samples = max(min(self.samples, 2 * self.elites), int(shrunk))
        noise = coloured(normal(state.mean, samples - 1, generator, self.shared_noise), self.colour)
        mean = state.mean.unsqueeze(1)
        return torch.cat([mean, mean + state.std.unsqueeze(1) * noise], dim=1).clamp(-1, 1)

    def tell(self, state: ICEMState, actions: Tensor, energy: Tensor) -> ICEMState:
        """Moves towards the mean and spread of the elites, old and new."""
        actions = torch.cat([state.elites, actions], dim=1)
        energy = torch.cat([state.energy.to(energy.dtype), energy], dim=1)
        elites, lowest = lowest_of(actions, energy, self.elites)
        mean, std = follow(state.mean, state.std, elites, lowest.isfinite(), self.momentum, self.min_std)
        kept = state.elites.shape[1]
        return ICEMState(mean, std, elites[:, :kept], lowest[:, :kept], state.round + 1)

    def best(self, state: ICEMState) -> Tensor:
        """The mean, `[E, T, A]`."""
        return state.mean
