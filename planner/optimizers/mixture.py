"""CEM with several Gaussians, for futures that fork: left of the obstacle or right of it, never through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .cem import check_gaussian, follow
from .noise import lowest_of, normal


class MixtureState(NamedTuple):
    """M Gaussians, `mean` and `std` `[E, M, T, A]`; the least `energy` that each has met, `[E, M]`; whether the
    Gaussians of an environment have been told apart, `split` `[E]`."""

    mean: Tensor
    std: Tensor
    energy: Tensor
    split: Tensor


@dataclass(frozen=True)
class MixtureCEM:
    """Cross-entropy method with a mixture of Gaussians, whose components search on their own.

    The mean of good plans that go left and good plans that go right is a bad plan. The elites of the first round seed
    the components, each as far from the others as they lie; after that a candidate belongs to the component whose
    mean is nearest, and each component follows the best of its own.

    Attributes:
        samples: S, candidates an iteration, >= 2 * `components`.
        components: M, Gaussians, >= 1.
        elites: how many of the best of each component shape it, >= 2, at most `samples / components`.
        init_std: standard deviation of the first iteration, in normalised action units, > 0.
        min_std: floor of the standard deviation, 0 to `init_std`.
        momentum: share of the old mean and standard deviation that stays at each update, in [0, 1).
        shared_noise: the same noise in every environment.
    """

    samples: int = 256
    components: int = 4
    elites: int = 8
    init_std: float = 0.5
    min_std: float = 0.02
    momentum: float = 0.1
    shared_noise: bool = False

    def __post_init__(self) -> None:
        if self.components < 1:
            raise BadInput("MixtureCEM: components is off", expected="at least 1", got=str(self.components))
        check_gaussian(self, self.samples // self.components, "samples / components")

    def init(self, plan: Tensor) -> MixtureState:
        """All components at `plan`, `[E, T, A]`."""
        mean = plan.clamp(-1, 1).unsqueeze(1).expand(-1, self.components, -1, -1)
        size = plan.shape[0]
        energy = plan.new_full((size, self.components), torch.inf)
        return MixtureState(
            mean, torch.full_like(mean, self.init_std), energy, torch.zeros(size, dtype=torch.bool, device=plan.device)
        )

    def ask(self, state: MixtureState, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`, as many of each component as of the others, or one more; the means come first."""
        rest = self.samples - self.components
        drawn = normal(state.mean[:, 0], rest, generator, self.shared_noise)
        owner = torch.arange(rest, device=drawn.device) * self.components // rest
        return torch.cat([state.mean, state.mean[:, owner] + state.std[:, owner] * drawn], dim=1).clamp(-1, 1)

    def tell(self, state: MixtureState, actions: Tensor, energy: Tensor) -> MixtureState:
        """Every component moves towards the best of the candidates that are nearest to it."""
        seeds = self._seeds(actions, energy)  # [E, M, T, A]
        centres = torch.where(state.split[:, None, None, None], state.mean, seeds)
        owner = torch.cdist(actions.flatten(2), centres.flatten(2)).argmin(-1)  # [E, S']
        own = owner.unsqueeze(1) == torch.arange(self.components, device=owner.device)[:, None]  # [E, M, S']
        cost = torch.where(own, energy.unsqueeze(1), torch.inf)
        lowest, index = cost.topk(min(self.elites, cost.shape[-1]), dim=-1, largest=False)  # [E, M, K]
        elites = actions.unsqueeze(1).take_along_dim(index[..., None, None], dim=2)  # [E, M, K, T, A]
        # Where the components are told apart there is no old place worth keeping.
        momentum = torch.where(state.split, self.momentum, 0.0)[:, None, None, None]
        mean, std = follow(state.mean, state.std, elites, lowest.isfinite(), momentum, self.min_std)
        least = torch.minimum(state.energy, lowest[..., 0])
        return MixtureState(mean, std, least, state.split | energy.isfinite().any(1))

    def best(self, state: MixtureState) -> Tensor:
        """The mean of the component that met the least energy, `[E, T, A]`."""
        index = state.energy.argmin(1)[:, None, None, None]
        return state.mean.take_along_dim(index, dim=1).squeeze(1)

    def _seeds(self, actions: Tensor, energy: Tensor) -> Tensor:
        """`[E, M, T, A]`: of the better candidates the best, and then each time the one furthest from those chosen."""
        pool, lowest = lowest_of(actions, energy, self.components * self.elites)  # [E, K, T, A], the best first
        chosen = pool[:, :1]
        for _ in range(self.components - 1):
            gap = torch.cdist(pool.flatten(2), chosen.flatten(2)).amin(-1).masked_fill(~lowest.isfinite(), -1)  # [E, K]
            furthest = gap.argmax(1)[:, None, None, None]
            chosen = torch.cat([chosen, pool.take_along_dim(furthest, dim=1)], dim=1)
        return chosen
