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
from .stages import check_finite, one_cycle

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
        if not len(rows):
            raise BadInput(f"dataset {store.path} has too few episodes", expected="at least 2", do="collect more")
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


def varied(pixels: Tensor, config: TrainConfig) -> Tensor:
    """Pictures `[..., size, size, 3]`, each with a look of its own, as the settings have them."""
    return vary(pixels, config.augment, shift=config.shift, repaint=config.repaint, backdrop=config.backdrop)


class LooksTraining(lightning.LightningModule):
    """Regression of the latent that the encoder had for the plain picture, from the same picture with another look.

    Latents keep their meaning, and so does whatever was trained on them: predictor, temporal distance, action prior,
    slow features, planner settings; only a monitor of surprise has to be fitted again, as to any new weights. (Training
    a JEPA with `training.augment` from the start, decision 32, has no such latents yet.)

    Args:
        encoder: what is trained.
        config: `steps`, `augment`, `shift`, `repaint`, `backdrop`, `learning_rate`, `weight_decay` and `seed` are read.
        teacher: whose latents these are; `encoder` as it comes by default.
    """

    def __init__(self, encoder: nn.Module, config: TrainConfig, teacher: nn.Module | None = None) -> None:
        super().__init__()
        self.teacher = deepcopy(encoder if teacher is None else teacher).requires_grad_(False)
        self.encoder, self.config = encoder, config
        self.eval()  # statistics of normalisation stand still: the student sees one picture at a time, as in planning

    def training_step(self, batch: TensorDict, _: int) -> Tensor:
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step)  # a resumed run draws the same
        pixels = batch["pixels"]
        plain = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < PLAIN
        with torch.no_grad():
            want = self.teacher(pixels)
        loss = (self.encoder(torch.where(plain, pixels, varied(pixels, self.config))) - want).square().mean()
        check_finite(loss, "training to see through looks", self.global_step)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TensorDict, index: int) -> None:
        torch.manual_seed(index)
        pixels = batch["pixels"]
        looks, want = varied(pixels, self.config), self.teacher(pixels)
        found = {"plain": self.encoder(pixels), "varied": self.encoder(looks), "untaught": self.teacher(looks)}
        for name, latents in found.items():
            self.log(f"val/{name}", (latents - want).square().mean(), prog_bar=name != "untaught")

    def configure_optimizers(self) -> Any:
        return one_cycle(self.encoder, self.config)
