"""Pretraining of an encoder on single pictures: from what is left of one to the latent of the whole."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from ..models.losses import covariance, sigreg
from ..settings import TrainConfig
from .looks import varied
from .stages import check_finite, one_cycle, reseed, watch_rank

CELLS = 4
"""Cells along each side of a picture; a cell is hidden or shown as a whole."""
GREY = 128
"""What is seen where nothing is shown."""


def hide(pixels: Tensor, hidden: Tensor) -> Tensor:
    """Pictures with grey in place of some cells.

    Args:
        pixels: uint8 `[B, size, size, 3]`; the size is a multiple of `CELLS`.
        hidden: bool `[B, CELLS, CELLS]`, rows of cells from the top.
    """
    cell = pixels.shape[1] // CELLS
    covered = hidden.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    return pixels.masked_fill(covered[..., None], GREY)


def draw_hidden(count: int, share: float) -> Tensor:
    """Which cells to hide, bool `[count, CELLS, CELLS]`: a `share` of each picture's, at least one, never all."""
    number = min(max(1, round(share * CELLS**2)), CELLS**2 - 1)
    return (torch.rand(count, CELLS**2).argsort(1) < number).view(count, CELLS, CELLS)


class MaskedTraining(lightning.LightningModule):
    """The latent of a picture is predicted from that of what is left of it, and told which cells are missing.

    The image objective of I-JEPA (Assran et al., arXiv 2301.08243): a context, a place, the embedding of what is
    there; nothing is drawn. Our encoders have one latent a picture, so that the whole picture's is predicted in place
    of patches', and SIGReg (LeJEPA, arXiv 2511.08544) keeps it from collapsing, in place of a slow teacher.

    Args:
        encoder: what is trained; pictures `[B, size, size, 3]` to latents `[B, D]`.
        latent_dim: D.
        config: `steps`, `masked`, `augment`, `shift`, `repaint`, `backdrop`, `sigreg_weight`,
            `sigreg_directions`, `covariance_weight`, `learning_rate`, `weight_decay` and `seed` are read.
    """

    def __init__(self, encoder: nn.Module, latent_dim: int, config: TrainConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.guess = nn.Sequential(
            nn.Linear(latent_dim + CELLS**2, 512), nn.SiLU(inplace=True), nn.Linear(512, latent_dim)
        )

    def losses(self, pixels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, and the latents of the whole pictures under `latents`."""
        config = self.config
        if self.training and config.augment:
            pixels = varied(pixels, config)
        hidden = draw_hidden(len(pixels), config.masked).to(pixels.device)
        latents, left = self.encoder(torch.cat([pixels, hide(pixels, hidden)])).chunk(2)
        guessed = self.guess(torch.cat([left, hidden.flatten(1).to(left.dtype)], -1))
        return {
            "masked": (guessed - latents).square().mean(),
            "sigreg": sigreg(latents, config.sigreg_directions),
            "covariance": covariance(latents),
            "latents": latents,
        }

    def training_step(self, batch: TensorDict, _: int) -> Tensor:
        reseed(self.global_step, self.config.seed)
        terms, config = self.losses(batch["pixels"]), self.config
        loss = terms["masked"] + config.sigreg_weight * terms["sigreg"] + config.covariance_weight * terms["covariance"]
        check_finite(loss, "masked pretraining", self.global_step)
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._latents: list[Tensor] = []

    def validation_step(self, batch: TensorDict, index: int) -> None:
        reseed(index)
        terms = self.losses(batch["pixels"])
        self._latents.append(terms["latents"])
        # Relative to guessing the mean: 1 is useless, 0 perfect, and collapse cannot make it small.
        spread = terms["latents"].var(0, correction=0).mean().clamp_min(1e-9)
        self.log("val/masked", terms["masked"] / spread, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        rank = watch_rank(torch.cat(self._latents), "masked pretraining", self.global_step, self.print)
        self.log("val/effective_rank", rank, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return one_cycle(self, self.config)
