"""Fewer numbers to search: every action is held for several environment steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..types import Optimizer
from .wrapping import admitted, through


@dataclass(frozen=True)
class Hold:
    """An optimizer over plans in which each environment action is repeated, around any other optimizer.

    A model step of 5 environment steps of 2 dimensions has 10 numbers, and noise that is independent in each mostly
    cancels itself: candidates stay near where they are. Held for 5 steps there are 2, and candidates go somewhere.

    Attributes:
        inner: the optimizer, which then sees plans `[E, T, A / repeat]`.
        block: environment steps in a model step, >= 1.
        repeat: environment steps that each action is held; divides `block`.
    """

    inner: Optimizer[Any]
    block: int
    repeat: int

    def __post_init__(self) -> None:
        if self.block < 1 or self.repeat < 1 or self.block % self.repeat:
            raise BadInput(
                "Hold: repeat is off", expected=f"a divisor of the block ({self.block})", got=str(self.repeat)
            )

    def init(self, plan: Tensor) -> Any:
        """Starts around the mean of what would be held, from `[E, T, A]`."""
        return self.inner.init(self._shrink(plan))

    def ask(self, state: Any, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`."""
        return self._stretch(self.inner.ask(state, generator))

    def tell(self, state: Any, actions: Tensor, energy: Tensor) -> Any:
        """Hands the held actions on; a proposal that holds nothing counts as its mean."""
        return self.inner.tell(state, *through(self._shrink, self._stretch, actions, energy))

    def best(self, state: Any) -> Tensor:
        """The inner optimizer's plan, `[E, T, A]`."""
        return self._stretch(self.inner.best(state))

    def admit(self, plans: Tensor) -> Tensor:
        """Plans `[..., T, A]` as they are, held or not, or what the inner optimizer makes of them."""
        shrunk = self._shrink(plans)
        inner = admitted(self.inner, shrunk)
        return plans if inner is shrunk else self._stretch(inner)

    def _shrink(self, plan: Tensor) -> Tensor:
        dim = plan.shape[-1] // self.block
        return plan.unflatten(-1, (self.block // self.repeat, self.repeat, dim)).mean(-2).flatten(-2)

    def _stretch(self, plan: Tensor) -> Tensor:
        knots = self.block // self.repeat
        return plan.unflatten(-1, (knots, -1)).repeat_interleave(self.repeat, -2).flatten(-2)
