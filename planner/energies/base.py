"""What "good" means: how far imagined futures are from the goal. Lower is better.

Energies are frozen dataclasses of knobs, pure, and compose like numbers:

    energy = LatentDistance("l2", over="all") + 0.01 * ActionEffort()
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor

from ..errors import BadInput
from ..types import EnergyLike


class Energy(ABC):
    """Base of the energies here: a pure callable that can be added and weighted. Any callable may be a term."""

    @abstractmethod
    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        """Futures, batch `[E, S, T]`, a goal, batch `[E]`, and actions `[E, S, T, A]` to energies `[E, S]`."""

    def begun(self, goal: TensorDict) -> TensorDict:
        """The goal, batch `[E]`, as an episode begins: with what this energy is going to remember in it, if anything.

        A planner that looks again and again (`MPC`) asks for it once an episode and, where that put anything beside the
        goal, for `looked` at every look.
        """
        return goal

    def looked(self, goal: TensorDict, latent: TensorDict) -> TensorDict:
        """The goal after a look at `latent`, batch `[E]` both."""
        return goal

    def held(self, goal: TensorDict) -> int:
        """How many terms and goals hold what they were made of at once, until they are differentiated; >= 1.

        Asked where a rollout is differentiated and `max_bytes` is to be kept (`plan.rollout_size`).

        Args:
            goal: batch `[E]`.
        """
        return 1

    def __add__(self, other: EnergyLike) -> Sum:
        return Sum((self, other))

    def __radd__(self, other: EnergyLike | int) -> Energy:
        return self if other == 0 else Sum((other, self))  # type: ignore[arg-type] # `sum(energies)` starts with 0

    def __mul__(self, weight: float) -> Scaled:
        return Scaled(self, weight)

    def __rmul__(self, weight: float) -> Scaled:
        return Scaled(self, weight)


def begun(energy: EnergyLike, goal: TensorDict) -> TensorDict:
    """The goal, batch `[E]`, as an episode begins; a plain function as an energy remembers nothing."""
    return energy.begun(goal) if isinstance(energy, Energy) else goal


def looked(energy: EnergyLike, goal: TensorDict, latent: TensorDict) -> TensorDict:
    """The goal after a look at `latent`, batch `[E]` both."""
    return energy.looked(goal, latent) if isinstance(energy, Energy) else goal


def held(energy: EnergyLike, goal: TensorDict) -> int:
    """As `Energy.held`, for a goal of batch `[E]`; a plain function as an energy is one term."""
    return energy.held(goal) if isinstance(energy, Energy) else 1


@dataclass(frozen=True)
class Sum(Energy):
    """The sum of several energies.

    Attributes:
        terms: the energies to add, at least one.
    """

    terms: tuple[EnergyLike, ...]

    def __post_init__(self) -> None:
        if not self.terms or not all(callable(term) for term in self.terms):
            raise BadInput("Sum: terms are off", expected="at least one energy", got=repr(self.terms))

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return torch.stack([term(futures, goal, actions) for term in self.terms]).sum(0)

    def begun(self, goal: TensorDict) -> TensorDict:
        for term in self.terms:
            goal = begun(term, goal)
        return goal

    def looked(self, goal: TensorDict, latent: TensorDict) -> TensorDict:
        for term in self.terms:
            goal = looked(term, goal, latent)
        return goal

    def held(self, goal: TensorDict) -> int:
        return sum(held(term, goal) for term in self.terms)


@dataclass(frozen=True)
class Scaled(Energy):
    """An energy times a constant.

    Attributes:
        term: the energy to weigh.
        weight: its factor, finite; a negative one rewards what the energy punishes.
    """

    term: EnergyLike
    weight: float

    def __post_init__(self) -> None:
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not math.isfinite(self.weight):
            raise BadInput("Scaled: weight is off", expected="a finite number", got=repr(self.weight))

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return self.weight * self.term(futures, goal, actions)

    def begun(self, goal: TensorDict) -> TensorDict:
        return begun(self.term, goal)

    def looked(self, goal: TensorDict, latent: TensorDict) -> TensorDict:
        return looked(self.term, goal, latent)

    def held(self, goal: TensorDict) -> int:
        return held(self.term, goal)
