"""What the stages of training share that come after the JEPA itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import BadInput
from .settings import TrainConfig


def check_finite(loss: Tensor, stage: str, step: int) -> None:
    """Raises `BadInput` if the loss of `stage` at that step is NaN or infinite."""
    if not torch.isfinite(loss):
        raise BadInput(f"{stage} diverged at step {step}", got=f"loss {loss}", do="lower learning_rate")


def one_cycle(module: nn.Module, config: TrainConfig) -> dict[str, Any]:
    """AdamW on a module's parameters whose rate rises for a twentieth of the steps, and then falls to almost nothing.

    `steps`, `learning_rate` and `weight_decay` of `config` are read.
    """
    optimizer = torch.optim.AdamW(module.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    total = config.steps + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=total,
        pct_start=max(0.05, 2 / total),  # a rise of no step divides by zero
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
