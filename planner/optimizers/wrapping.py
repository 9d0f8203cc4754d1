"""What optimizers around other optimizers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Change = Callable[[Tensor], Tensor]


def admitted(optimizer: Any, plans: Tensor) -> Tensor:
    """The nearest plans to `plans` `[..., T, A]` that `optimizer` may stand for; `plans` itself where it may any."""
    admit: Change | None = getattr(optimizer, "admit", None)
    return plans if admit is None else admit(plans)


def through(inward: Change, outward: Change, actions: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """What a wrapper tells its inner optimizer: inner plans, and energies that can be differentiated by them.

    Args:
        inward: plans `[..., T, A]` to inner plans.
        outward: inner plans to plans `[..., T, A]`.
        actions: candidates that were scored, `[E, S, T, A]`.
        energy: their energies, `[E, S]`.

    Returns:
        inner candidates and energies. Where `energy` has a gradient, the energies returned have the same values and, by
        the chain rule, the gradient by the inner candidates.
    """
    inner = inward(actions.detach())
    if not (actions.requires_grad and energy.requires_grad):
        return inner, energy
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(energy, actions, torch.ones_like(energy), retain_graph=True)
        inner = inner.requires_grad_()
        moved = (slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) * outward(inner)).sum((-2, -1))
        return inner, energy.detach() + moved - moved.detach()
