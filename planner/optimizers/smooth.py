"""Plans whose actions change slowly, by construction, around any optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..types import Optimizer
from .wrapping import admitted, through


@dataclass(frozen=True)
class Smooth:
    """An optimizer that searches the changes of the actions instead of the actions.

    The inner optimizer's plan holds the first action and then changes in units of `limit`; what leaves here is their
    running sum, clipped to the bounds at every step, so that within a plan no action differs from the one before by
    more than `limit`. What was done before a plan is not known here: from one plan to the next the guard keeps rates
    (`guard.Limits.rate`). Around `MPPI` this is smooth MPPI (Kim et al., 2021, arXiv 2112.09988), whose noise is an
    action rate.

    Attributes:
        inner: the optimizer, which sees changes `[E, T, A]` in [-1, 1].
        limit: most that a normalised action changes from one model step to the next, above 0 to 2.
    """

    inner: Optimizer[Any]
    limit: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.limit <= 2 or not math.isfinite(self.limit):
            raise BadInput("Smooth: limit is off", expected="above 0 to 2", got=str(self.limit))

    def init(self, plan: Tensor) -> Any:
        """Starts around the changes of `[E, T, A]`, those beyond the limit cut off."""
        return self.inner.init(self._changes(plan))

    def ask(self, state: Any, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]`."""
        return self._sums(self.inner.ask(state, generator))

    def tell(self, state: Any, actions: Tensor, energy: Tensor) -> Any:
        """Hands the changes on."""
        return self.inner.tell(state, *through(self._changes, self._sums, actions, energy))

    def best(self, state: Any) -> Tensor:
        """The inner optimizer's plan, `[E, T, A]`."""
        return self._sums(self.inner.best(state))

    def admit(self, plans: Tensor) -> Tensor:
        """Plans `[..., T, A]` whose changes keep the limit, each following the given one as closely as that lets it.

        An inner optimizer with `admit` is asked for the first 1, 2, ... T steps in turn.
        """
        changes, here = plans[..., :0, :], plans[..., :1, :]
        for t in range(plans.shape[-2]):
            # From where the admitted sums stand: what the inner optimizer rounds is caught up with in the next step.
            change = plans[..., t : t + 1, :] if t == 0 else self._change(plans[..., t : t + 1, :], here)
            changes = admitted(self.inner, torch.cat([changes, change], dim=-2))
            here = self._sums(changes)[..., -1:, :]
        return self._sums(changes)

    def _change(self, to: Tensor, here: Tensor) -> Tensor:
        return ((to - here) / self.limit).clamp(-1, 1)

    def _changes(self, plan: Tensor) -> Tensor:
        changes = [plan[..., :1, :]]
        here = plan[..., 0, :]
        for t in range(1, plan.shape[-2]):
            # From where the sums will stand, not from where the plan stood: what was cut off is caught up later.
            change = self._change(plan[..., t, :], here)
            here = (here + self.limit * change).clamp(-1, 1)
            changes.append(change.unsqueeze(-2))
        return torch.cat(changes, dim=-2)

    def _sums(self, changes: Tensor) -> Tensor:
        plan = [changes[..., 0, :]]
        for change in changes.unbind(-2)[1:]:
            plan.append((plan[-1] + self.limit * change).clamp(-1, 1))
        return torch.stack(plan, dim=-2)
