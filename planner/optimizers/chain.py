"""One optimizer after another: far first, then fine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput
from ..types import Optimizer
from .cem import CEM
from .gradient import Gradient
from .wrapping import admitted


class ChainState(NamedTuple):
    """The state of the optimizer at work, and the `round`."""

    inner: Any
    round: int


@dataclass(frozen=True)
class Chain:
    """`first` for `switch` iterations, then `second`, which starts at the plan that the first one stands for.

    What the second may not stand for, the first does not ask for either: whatever leaves here keeps what the second
    promises. A second that may stand for any plan lifts what the first promised.

    Attributes:
        first: the optimizer that finds the valley, by default CEM; where the second's plans are choices, which have no
            slope, none that differentiates (`BadInput` from its `tell`).
        second: the optimizer that goes down in it, by default gradient descent.
        switch: iterations of the first, >= 1.
    """

    first: Optimizer[Any] = field(default_factory=CEM)
    second: Optimizer[Any] = field(default_factory=lambda: Gradient(samples=8, rate=0.05, std=0.05))
    switch: int = 3

    def __post_init__(self) -> None:
        if self.switch < 1:
            raise BadInput("Chain: switch is off", expected="at least 1", got=str(self.switch))

    def init(self, plan: Tensor) -> ChainState:
        """Starts the first at `plan`, `[E, T, A]`."""
        return ChainState(self.first.init(plan), 0)

    def ask(self, state: ChainState, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]` of the one at work, as the second admits them."""
        return self._kept(self._at_work(state.round).ask(state.inner, generator), state.round)

    def tell(self, state: ChainState, actions: Tensor, energy: Tensor) -> ChainState:
        """Hands the result on, and then, when it is time, the plan."""
        inner = self._at_work(state.round).tell(state.inner, actions, energy)
        if state.round + 1 == self.switch:
            inner = self.second.init(admitted(self.second, self.first.best(inner)))
        return ChainState(inner, state.round + 1)

    def best(self, state: ChainState) -> Tensor:
        """The plan of the one at work, `[E, T, A]`, as the second admits it."""
        return self._kept(self._at_work(state.round).best(state.inner), state.round)

    def admit(self, plans: Tensor) -> Tensor:
        """Plans `[..., T, A]` that the second may stand for, nearest to those that the first may."""
        return admitted(self.second, admitted(self.first, plans))

    def _kept(self, plans: Tensor, done: int) -> Tensor:
        return admitted(self.second, plans) if done < self.switch else plans

    def _at_work(self, done: int) -> Optimizer[Any]:
        return self.first if done < self.switch else self.second
