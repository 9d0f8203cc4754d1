"""What the stages of training share that come after the JEPA itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..models.losses import effective_rank
from ..settings import TrainConfig


def check_finite(loss: Tensor, stage: str, step: int) -> None:
    """Raises `BadInput` if the loss of `stage` at that step is NaN or infinite."""
    if not torch.isfinite(loss):
        raise BadInput(f"{stage} diverged at step {step}", got=f"loss {loss}", do="lower learning_rate")


def watch_rank(latents: Tensor, stage: str, step: int, say: Callable[[str], None]) -> Tensor:
    """Effective rank of the latents `[N, D]`; says if they collapse, raises `BadInput` if they are not finite."""
    if not latents.isfinite().all():
        raise BadInput(f"{stage} diverged at step {step}", got="latents NaN", do="lower learning_rate")
    rank = effective_rank(latents)
    if rank < 0.1 * latents.shape[1]:
        say(f"warning: the latents collapse: effective rank {rank:.1f} of {latents.shape[1]}; raise sigreg_weight")
    return rank


def one_cycle(module: nn.Module, config: TrainConfig) -> dict[str, Any]:
    """AdamW on a module's parameters whose rate rises for a twentieth of the steps, and then falls to almost nothing.

    Its first momentum goes the other way, from 0.95 to 0.85 and back, as `OneCycleLR` has it. `steps`, `learning_rate`
    and `weight_decay` of `config` are read.
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


def reseed(step: int, seed: int = 0) -> None:
    """Has the processor's noise follow from both alone, so that a resumed run draws what the uninterrupted one would.

    `torch.manual_seed` tells every accelerator, too, and where there is none it writes the whole stack down for later:
    a millisecond an update.
    """
    torch.default_generator.manual_seed(seed * 1_000_003 + step)
