"""Training of a finished encoder to see through looks: a varied picture gets the latent of the plain one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from .augment import vary
from .data import EpisodeStore
from .errors import BadInput
from .settings import TrainConfig

PLAIN = 0.25
"""Share of pictures that keep their look, so that what is plain stays as exact as it was."""


class Pictures:
    """Random pictures of a dataset; batch `i` is a pure function of `(seed, i)`.

    Args:
        store: the dataset.
        rows: episodes to draw from, `[n]`.
        batch: pictures a batch.
        seed: any integer >= 0.
    """

    def __init__(self, store: EpisodeStore, rows: Tensor, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed, self.frames = rows, batch, seed, store.info.steps + 1
        self.pixels = store.data["pixels"].flatten(0, 1)  # a gather from a flat memory map is the fastest

    def __len__(self) -> int:
        """Enough batches to draw every eighth picture about once; more may be asked for."""
        return -(-len(self.rows) * self.frames // (8 * self.batch))

    def __getitem__(self, index: int) -> TensorDict:
        """Batch `index`: `pixels` `[B, size, size, 3]`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        row = self.rows[torch.randint(len(self.rows), (self.batch,), generator=generator)]
        frame = torch.randint(self.frames, (self.batch,), generator=generator)
        return TensorDict({"pixels": self.pixels[row * self.frames + frame]}, batch_size=[self.batch])


class LooksTraining(lightning.LightningModule):
    """Regression of the latent that the encoder had for the plain picture, from the same picture with another look.

    Latents keep their meaning, and so does whatever was trained on them: predictor, temporal distance, action prior,
    planner settings. (Training a JEPA with `training.augment` from the start, decision 32, has no such latents yet.)

    Args:
        encoder: what is trained; it starts as the teacher that it is compared with.
        config: `steps`, `augment`, `learning_rate`, `weight_decay` and `seed` are read.
    """

    def __init__(self, encoder: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.teacher, self.encoder, self.config = deepcopy(encoder).requires_grad_(False), encoder, config
        # Statistics of normalisation stand still in both: the student is a function of one picture, as when planning.
        self.train(False)

    def errors(self, pixels: Tensor) -> Tensor:
        """Mean square error of the latent of each picture, `[B, size, size, 3]` to `[B]`; a feature has variance 1."""
        varied = vary(pixels[:, None], self.config.augment)[:, 0]
        plain = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < PLAIN
        with torch.no_grad():
            want = self.teacher(pixels)
        return (self.encoder(torch.where(plain, pixels, varied)) - want).square().mean(-1)

    def train(self, mode: bool = True) -> LooksTraining:
        """Stays in evaluation mode, whatever the trainer asks for."""
        return super().train(False)

    def training_step(self, batch: TensorDict, _: int) -> Tensor:
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step)  # a resumed run draws the same
        loss = self.errors(batch["pixels"]).mean()
        if not torch.isfinite(loss):
            where = f"training to see through looks diverged at step {self.global_step}"
            raise BadInput(where, got=f"loss {loss}", do="lower learning_rate")
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TensorDict, index: int) -> None:
        torch.manual_seed(index)
        pixels = batch["pixels"]
        want = self.teacher(pixels)
        for name, look in (("plain", pixels), ("varied", vary(pixels[:, None], self.config.augment)[:, 0])):
            self.log(f"val/{name}", (self.encoder(look) - want).square().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(self.encoder.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=config.steps + 1, pct_start=0.05
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
