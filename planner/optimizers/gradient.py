"""Gradient descent on the actions, through the world model, from several places at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from .noise import best_candidate, normal
from .wrapping import slope_of

METHODS = ("adam", "sgd")


class GradientState(NamedTuple):
    """Where the restarts stand, and the best plan that any of them met.

    `plans` and the running `first` and `second` moments of their gradients, `[E, S, T, A]`; `stride` `[E, S, 1, 1]`,
    the share of a full step that each makes; `fresh` `[E]`, whether the restarts of an environment are still to be
    scattered; `best` `[E, T, A]` and its `energy` `[E]`; the `round`.
    """

    plans: Tensor
    first: Tensor
    second: Tensor
    stride: Tensor
    fresh: Tensor
    best: Tensor
    energy: Tensor
    round: int


@dataclass(frozen=True)
class Gradient:
    """Projected gradient descent, with Adam (Kingma & Ba, 2014, arXiv 1412.6980) or with momentum.

    `ask` returns a tensor that requires grad; `tell` differentiates the energies that it is told. Energies and world
    model have to be differentiable in the actions. A candidate that failed has no gradient: it moves halfway to the
    best plan of its environment and from then on makes steps of half the length. Gradients that are not finite are 0.

    Attributes:
        samples: S, restarts, >= 1; the first starts at the plan itself, the others around it.
        method: "adam", whose steps do not depend on the scale of the energy (while slopes have squares in float32,
            1e-19 to 1e19), or "sgd", whose steps do.
        rate: length of a step: with "adam" about the most that a normalised action changes in one iteration; > 0.
        momentum: share of the running gradient kept, in [0, 1).
        std: standard deviation of the restarts around the plan, in normalised action units, > 0.
        shared_noise: the same restarts in every environment.
    """

    samples: int = 16
    method: str = "adam"
    rate: float = 0.1
    momentum: float = 0.5
    std: float = 0.5
    shared_noise: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BadInput("Gradient: unknown method", expected=" or ".join(METHODS), got=repr(self.method))
        if self.samples < 1:
            raise BadInput("Gradient: samples is off", expected="at least 1", got=str(self.samples))
        for name in ("rate", "std"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"Gradient: {name} is off", expected="a number above 0", got=str(getattr(self, name)))
        if not 0 <= self.momentum < 1:
            raise BadInput("Gradient: momentum is off", expected="in [0, 1)", got=str(self.momentum))

    def init(self, plan: Tensor) -> GradientState:
        """All restarts at `plan`, `[E, T, A]`; the first `ask` scatters them."""
        plan = plan.clamp(-1, 1)
        plans = plan.unsqueeze(1).expand(-1, self.samples, -1, -1)
        still, size = torch.zeros_like(plans), plan.shape[0]
        fresh = torch.ones(size, dtype=torch.bool, device=plan.device)
        stride = plan.new_ones(size, self.samples, 1, 1)
        return GradientState(plans, still, still, stride, fresh, plan, plan.new_full((size,), torch.inf), 0)

    def ask(self, state: GradientState, generator: torch.Generator) -> Tensor:
        """The restarts, `[E, S, T, A]`, requiring grad."""
        noise = normal(state.best, self.samples, generator, self.shared_noise)
        scattered = (state.plans + self.std * noise).clamp(-1, 1)
        scattered = torch.cat([state.plans[:, :1], scattered[:, 1:]], dim=1)
        return torch.where(state.fresh[:, None, None, None], scattered, state.plans).requires_grad_()

    def tell(self, state: GradientState, actions: Tensor, energy: Tensor) -> GradientState:
        """One step down from each restart, and back into the bounds."""
        slope = self._slope(actions, energy)[:, -self.samples :]
        actions, energy = actions.detach(), energy.detach()
        winner, least = best_candidate(actions, energy)
        better = least < state.energy
        best = torch.where(better[:, None, None], winner, state.best)
        plans, alive = actions[:, -self.samples :], energy[:, -self.samples :].isfinite()[..., None, None]
        first, second, step = self._step(state, slope)
        moved = torch.where(alive, plans - self.rate * state.stride * step, (plans + best.unsqueeze(1)) / 2).clamp(
            -1, 1
        )
        learned = energy.isfinite().any(1)
        row = learned[:, None, None, None]
        return GradientState(
            torch.where(row, moved, state.plans),
            torch.where(row & alive, first, state.first * (~row)),  # a restart that failed forgets its momentum
            torch.where(row, second, state.second),
            torch.where(row & ~alive, state.stride / 2, state.stride),
            state.fresh & ~learned,
            best,
            torch.where(better, least, state.energy.to(least)),
            state.round + 1,
        )

    def best(self, state: GradientState) -> Tensor:
        """The best plan met so far, `[E, T, A]`."""
        return state.best

    def _step(self, state: GradientState, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Running moments with this gradient in them, and the direction to go against."""
        first = torch.lerp(slope, state.first, self.momentum)
        if self.method == "sgd":
            return first, state.second, first
        keep = 0.9
        second = torch.lerp(slope.square(), state.second, keep)
        count = state.round + 1
        mean, square = first / (1 - self.momentum**count), second / (1 - keep**count)
        # No constant beside the root, as Adam has it: it would bring the scale of the energy back.
        return first, second, mean / square.sqrt().clamp(min=torch.finfo(slope.dtype).tiny)

    @staticmethod
    def _slope(actions: Tensor, energy: Tensor) -> Tensor:
        """Derivative of each energy by its own actions, `[E, S', T, A]`; 0 where it is not finite."""
        if not (actions.requires_grad and energy.requires_grad):
            if torch.is_inference_mode_enabled():
                do = "use torch.no_grad() there, or nothing: planning switches derivatives on where it needs them"
                raise BadInput("Gradient: torch.inference_mode() forbids derivatives", do=do)
            raise BadInput(
                "Gradient: the energies cannot be differentiated",
                expected="a world model and an energy of torch operations on the actions",
                do="use a sampling optimizer with this world model",
            )
        return slope_of(energy, actions)
