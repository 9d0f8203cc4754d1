"""Training of a temporal distance: from play to the number of steps that a good policy would need."""

from __future__ import annotations

from copy import deepcopy

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import huber_loss

from ..models.temporal import TemporalDistance
from ..settings import TrainConfig
from .stages import check_finite

ELSEWHERE = 0.3
"""Share of goals from other episodes, for ways that no episode went from end to end."""


class Ways:
    """Random starts and goals among cached latents; batch `i` is a pure function of `(seed, i)`.

    Args:
        latents: of episodes, at every environment step, `[N, L + 1, D]`.
        block: environment steps of a model step.
        reach: n, model steps within one episode up to which the number of steps is read off, and not estimated.
        batch: pairs a batch.
        seed: any integer >= 0.
    """

    def __init__(self, latents: Tensor, block: int, reach: int, batch: int, seed: int) -> None:
        self.latents, self.block, self.batch, self.seed = latents, block, batch, seed
        self.reach = min(reach * block, latents.shape[1] - 1)  # environment steps

    def __len__(self) -> int:
        """Enough batches to draw every frame about once; more may be asked for."""
        return -(-self.latents.shape[0] * self.latents.shape[1] // self.batch)

    def __getitem__(self, index: int) -> TensorDict:
        """Batch `index`: `start`, `goal`, and `ahead`, n steps after the start, `[B, D]` each; `gap` `[B]`, model steps
        from start to goal in one episode, +inf where the goal is from another or lies before."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        episodes, frames, _ = self.latents.shape

        def draw(high: int) -> Tensor:
            return torch.randint(high, (self.batch,), generator=generator)

        row, start, goal_row = draw(episodes), draw(frames - self.reach), draw(episodes)
        elsewhere = torch.rand(self.batch, generator=generator) < ELSEWHERE
        # In the same episode: near ones, which are learned first, as often as far ones.
        far = start + (torch.rand(self.batch, generator=generator) * (frames - start)).long()
        near = start + draw(self.reach + 1)
        goal = torch.where(torch.rand(self.batch, generator=generator) < 0.5, near, far)
        goal_row, goal = torch.where(elsewhere, goal_row, row), torch.where(elsewhere, draw(frames), goal)
        gap = ((goal - start) / self.block).masked_fill((goal_row != row) | (goal < start), torch.inf)
        looks = {
            "start": self.latents[row, start],
            "ahead": self.latents[row, start + self.reach],
            "goal": self.latents[goal_row, goal],
        }
        return TensorDict(looks | {"gap": gap}, batch_size=[self.batch])


class DistanceTraining(lightning.LightningModule):
    """d(z, g) is the gap where it is at most n steps, and else n + d(z', g) with z' n steps later.

    Play dawdles and turns back, so that every gap is an upper bound of the least number of steps: what is learned lies
    low among the targets. Errors weigh as those of an expectile do (Kostrikov et al., arXiv 2110.06169, with the sign
    of costs), but count as squares up to one step alone and beyond that as they are (Huber's loss), so that where play
    varies by more than a step it is nearly the quantile of that level, lower than the expectile. Estimates are read off
    a slow copy.

    Args:
        head: what is trained.
        config: how.
        reach: n, model steps, as in `Ways`.
    """

    def __init__(self, head: TemporalDistance, config: TrainConfig, reach: float) -> None:
        super().__init__()
        self.head, self.slow, self.config, self.reach = head, deepcopy(head).requires_grad_(False), config, reach

    def targets(self, batch: TensorDict) -> Tensor:
        """What d(start, goal) should be, model steps, `[B]`."""
        onward = self.reach + self.slow(batch["ahead"], batch["goal"])
        return torch.where(batch["gap"] <= self.reach, batch["gap"], onward)

    def training_step(self, batch: TensorDict, _: int) -> Tensor:
        # Here, and not after the update: what is saved after one has to go on as if it had not been.
        for slow, fast in zip(self.slow.parameters(), self.head.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.02)
        found = self.head(batch["start"], batch["goal"])
        with torch.no_grad():
            target = self.targets(batch)
            share = self.config.temporal_expectile
            weight = torch.where(target < found, 1 - share, share)
        loss = (weight * huber_loss(found, target, reduction="none")).mean()
        check_finite(loss, "training of the temporal distance", self.global_step)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TensorDict, _: int) -> None:
        near = batch["gap"] <= self.reach
        found = self.head(batch["start"], batch["goal"])
        self.log("val/temporal_near", (found - batch["gap"])[near].abs().mean())
        self.log("val/temporal_elsewhere", found[~near].mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # A constant rate: its targets move as long as estimates spread.
        config = self.config
        return torch.optim.AdamW(self.head.parameters(), config.learning_rate, weight_decay=config.weight_decay)
