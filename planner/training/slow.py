"""Training of slow features: from play to what the robot does not move by itself."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor

from ..models.slow import SlowFeatures, slowness
from ..settings import TrainConfig
from .stages import check_finite, one_cycle


class Neighbours:
    """Looks a model step apart among cached latents; batch `i` is a pure function of `(seed, i)`.

    Args:
        latents: of episodes, at every environment step, `[N, L + 1, D]`.
        block: environment steps of a model step.
        batch: pairs a batch.
        seed: any integer >= 0.
    """

    def __init__(self, latents: Tensor, block: int, batch: int, seed: int) -> None:
        self.latents, self.batch, self.seed = latents, batch, seed
        self.apart = min(block, latents.shape[1] - 1)  # environment steps

    def __len__(self) -> int:
        """Enough batches to draw every frame about once; more may be asked for."""
        return -(-self.latents.shape[0] * self.latents.shape[1] // self.batch)

    def __getitem__(self, index: int) -> TensorDict:
        """Batch `index`: latents `before` and `after`, a model step apart, `[B, D]` each."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        episodes, frames, _ = self.latents.shape
        row = torch.randint(episodes, (self.batch,), generator=generator)
        start = torch.randint(frames - self.apart, (self.batch,), generator=generator)
        looks = {"before": self.latents[row, start], "after": self.latents[row, start + self.apart]}
        return TensorDict(looks, batch_size=[self.batch])


class SlowTraining(lightning.LightningModule):
    """Trains the features of a head to change little and to be worth something (`models.slow.slowness`).

    Args:
        head: what is trained.
        config: how.
    """

    def __init__(self, head: SlowFeatures, config: TrainConfig) -> None:
        super().__init__()
        self.head, self.config = head, config

    def training_step(self, batch: TensorDict, _: int) -> Tensor:
        change, poor = slowness(self.head.net(batch["before"]), self.head.net(batch["after"]))
        check_finite(loss := change + poor, "training of the slow features", self.global_step)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TensorDict, _: int) -> None:
        before, after = self.head.net(batch["before"]), self.head.net(batch["after"])
        self.log("val/slow_median", (after - before).square().mean(-1).median())
        self.log("val/slow_mean", (after - before).square().mean())

    def configure_optimizers(self) -> Any:
        return one_cycle(self.head, self.config)
