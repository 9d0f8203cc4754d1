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


def slope_of(energy: Tensor, actions: Tensor, *, keep: bool = True) -> Tensor:
    """Derivative of each energy `[E, S]` by its own actions, `[E, S, T, A]`; 0 where it is not finite.

    With `keep` what the energy remembers of its rollout stays, so that it can be differentiated again.
    """
    (slope,) = torch.autograd.grad(energy, actions, torch.ones_like(energy), retain_graph=keep)
    return slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def sloped(energy: Tensor, slope: Tensor, actions: Tensor) -> Tensor:
    """The same energies `[E, S]`, to the bit, with `slope` `[E, S, T, A]` as their derivative by `actions`."""
    return energy.detach() + (slope * (actions - actions.detach())).sum((-2, -1))


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
        slope, inner = slope_of(energy, actions), inner.requires_grad_()
        return inner, sloped(energy, slope, outward(inner))
