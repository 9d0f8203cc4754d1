"""CEM over choices: every model step picks one of a few actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .noise import drawn, lowest_of


class CategoricalState(NamedTuple):
    """Probabilities of the choices, `[E, T, A, C]` (`[E, T, 1, C]` with a codebook); the `plan` it started from,
    `[E, T, A]`, which it stands for until something was `told`, bool `[E]`."""

    probabilities: Tensor
    plan: Tensor
    told: Tensor


@dataclass(frozen=True)
class CategoricalCEM:
    """Cross-entropy method over categorical distributions (Rubinstein & Kroese, 2004, section 2.4).

    For robots whose commands come in steps, or whose actions are one of a list. Proposals count as the nearest choices
    (`admit`); so does rest, and a list without it keeps the robot moving. The starting plan leans the first round
    towards itself.

    Attributes:
        samples: S, candidates an iteration, >= 2.
        elites: how many of the best shape the next distribution, 1 to `samples`.
        levels: values that each number of an action can take, evenly spaced from -1 to 1, >= 2; not read where there is
            a codebook.
        codebook: whole actions of one model step, of A numbers in [-1, 1] each, of which a step picks one.
        momentum: share of the old probabilities that stays at each update, in [0, 1).
        floor: least probability of a choice, >= 0, at most 1 / choices; keeps the search from freezing early.
        shared_noise: the same draws in every environment.
    """

    samples: int = 256
    elites: int = 24
    levels: int = 9
    codebook: tuple[tuple[float, ...], ...] = ()
    momentum: float = 0.1
    floor: float = 0.005
    shared_noise: bool = False

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise BadInput("CategoricalCEM: samples is off", expected="at least 2", got=str(self.samples))
        if not 1 <= self.elites <= self.samples:
            expected = f"1 to samples ({self.samples})"
            raise BadInput("CategoricalCEM: elites is off", expected=expected, got=str(self.elites))
        if self.levels < 2:
            raise BadInput("CategoricalCEM: levels is off", expected="at least 2", got=str(self.levels))
        widths, values = {len(action) for action in self.codebook}, [x for action in self.codebook for x in action]
        if self.codebook and (len(self.codebook) < 2 or len(widths) > 1 or not all(-1 <= x <= 1 for x in values)):
            expected = "at least 2 actions of one length, in [-1, 1]"
            raise BadInput("CategoricalCEM: codebook is off", expected=expected, got=str(self.codebook))
        if not 0 <= self.momentum < 1:
            raise BadInput("CategoricalCEM: momentum is off", expected="in [0, 1)", got=str(self.momentum))
        choices = len(self.codebook) or self.levels
        if not 0 <= self.floor <= 1 / choices:
            raise BadInput("CategoricalCEM: floor is off", expected=f"0 to 1 / {choices}", got=str(self.floor))

    def init(self, plan: Tensor) -> CategoricalState:
        """Even probabilities, with the choices nearest to `plan` `[E, T, A]` twice as likely."""
        plan = plan.clamp(-1, 1)
        nearest = self._nearest(plan)  # [E, T, A or 1]
        choices = len(self.codebook) or self.levels
        weight = torch.ones(*nearest.shape, choices, dtype=plan.dtype, device=plan.device)
        weight = weight + torch.nn.functional.one_hot(nearest, choices).to(weight)
        told = torch.zeros(plan.shape[0], dtype=torch.bool, device=plan.device)
        return CategoricalState(weight / weight.sum(-1, keepdim=True), plan, told)

    def ask(self, state: CategoricalState, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`; the first has the likeliest choice everywhere."""
        probabilities = state.probabilities  # [E, T, G, C]
        shape = (probabilities.shape[0], self.samples - 1, *probabilities.shape[1:-1], 1)
        draw = drawn(torch.rand, shape, probabilities, generator, self.shared_noise)
        edges = probabilities.cumsum(-1)[:, None, ..., :-1]  # the last edge is 1, whatever rounding says
        picked = (draw > edges).sum(-1)  # [E, S - 1, T, G]
        likeliest = probabilities.argmax(-1).unsqueeze(1)
        return self._values(torch.cat([likeliest, picked], dim=1), probabilities)

    def tell(self, state: CategoricalState, actions: Tensor, energy: Tensor) -> CategoricalState:
        """Moves towards how often the elites chose what; a plan between the choices counts as the nearest ones."""
        elites, lowest = lowest_of(actions, energy, self.elites)
        choices = state.probabilities.shape[-1]
        chosen = torch.nn.functional.one_hot(self._nearest(elites), choices).to(actions.dtype)  # [E, K, T, G, C]
        alive = lowest.isfinite()[..., None, None, None].to(actions.dtype)
        count = alive.sum(1)  # [E, 1, 1, 1]
        often = (alive * chosen).sum(1) / count.clamp(min=1)
        often = self.floor + (1 - choices * self.floor) * often
        stays = torch.where(count > 0, self.momentum, 1.0).to(actions.dtype)
        told = state.told | lowest.isfinite().any(1)
        return CategoricalState(torch.lerp(often, state.probabilities, stays), state.plan, told)

    def best(self, state: CategoricalState) -> Tensor:
        """The likeliest choices, `[E, T, A]`."""
        likeliest = self._values(state.probabilities.argmax(-1), state.probabilities)
        return torch.where(state.told[:, None, None], likeliest, state.plan)

    def admit(self, plans: Tensor) -> Tensor:
        """The choices nearest to `plans` `[..., T, A]`, of the same shape."""
        return self._values(self._nearest(plans), plans)

    def _table(self, like: Tensor) -> Tensor:
        """The codebook `[C, A]`, or the levels `[C]`."""
        if self.codebook:
            return torch.tensor(self.codebook, dtype=like.dtype, device=like.device)
        return torch.linspace(-1, 1, self.levels, dtype=like.dtype, device=like.device)

    def _values(self, picked: Tensor, like: Tensor) -> Tensor:
        """Choices `[..., T, G]` to actions `[..., T, A]`."""
        return self._table(like)[picked.squeeze(-1) if self.codebook else picked]

    def _nearest(self, actions: Tensor) -> Tensor:
        """Actions `[..., T, A]` to the nearest choices `[..., T, G]`; `BadInput` where the codebook's are longer or
        shorter."""
        table = self._table(actions)
        if not self.codebook:
            return (actions.unsqueeze(-1) - table).abs().argmin(-1)
        if (width := table.shape[-1]) != actions.shape[-1]:
            expected = f"actions of {actions.shape[-1]}"
            raise BadInput("CategoricalCEM: codebook does not fit", expected=expected, got=str(width))
        return (actions.unsqueeze(-2) - table).square().sum(-1).argmin(-1, keepdim=True)
