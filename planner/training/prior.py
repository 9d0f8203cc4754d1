"""Training of an action prior on cached latents: every later place in play is a goal that was reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor

from ..actions import ActionSpec
from ..errors import BadInput
from ..models.prior import ActionPrior
from ..settings import TrainConfig
from .stages import check_finite, one_cycle, reseed

MOST_HASTE = 3.0
"""Weight of a plan at most, or a few would be all that a batch teaches."""


class Hindsight:
    """Places in play, what was done there, and a later place that this turned out to lead to.

    Batch `i` is a pure function of `(seed, i)`. (Every later place is a goal that was reached: Andrychowicz et al.,
    arXiv 1707.01495.)

    Args:
        latents: of episodes, at every environment step, `[N, L + 1, D]`.
        actions: between them, physical, `[N, L, env_dim]`.
        spec: of the actions.
        history: H, latents a block apart that the prior sees.
        horizon: T, model steps of a plan.
        reach: most model steps from start to goal, >= 1.
        batch: plans a batch.
        seed: any integer >= 0.
        haste: h, how much more a plan counts that takes a model step less than others would, >= 0.
        left: latents and goals `[..., D]` to the model steps between them, `[...]`; read where `haste` is above 0.

    Raises:
        BadInput: if the episodes are too short, or plans are to hurry and nothing says how many steps are left.
    """

    def __init__(
        self,
        latents: Tensor,
        actions: Tensor,
        spec: ActionSpec,
        *,
        history: int,
        horizon: int,
        reach: int,
        batch: int,
        seed: int,
        haste: float = 0.0,
        left: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.latents, self.actions, self.spec, self.batch, self.seed = latents, actions, spec, batch, seed
        if haste and left is None:
            raise BadInput("haste asks for the steps left", expected="a function of latents and goals", got="None")
        self.haste, self.left = haste, left
        self.past = (history - 1) * spec.block - torch.arange(history) * spec.block  # oldest first, environment steps
        self.before = int(self.past[0]) - torch.arange(int(self.past[0]))  # steps between the latents, ago
        self.ahead, self.reach, steps = torch.arange(horizon * spec.block), reach * spec.block, actions.shape[1]
        self.first, self.starts = int(self.past[0]), steps - int(self.past[0]) - horizon * spec.block + 1
        if self.starts < 1:
            got, expected = str(steps), f"at least {steps - self.starts + 1} steps"
            do = "give plans of fewer model steps: --horizon, in training --model.prior-horizon"
            raise BadInput("episodes are too short for the action prior", expected=expected, got=got, do=do)

    def __len__(self) -> int:
        """Enough batches to draw every frame about once; more may be asked for."""
        return -(-self.latents.shape[0] * self.latents.shape[1] // self.batch)

    def __getitem__(self, index: int) -> TensorDict:
        """Batch `index`: `latents` `[B, H, D]`, `goal` `[B, D]`, `plan` `[B, T * env_dim]` in [-1, 1], block means,
        `done` `[B, H - 1, env_dim]` of the blocks between the latents, and `weight` `[B]`."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        row = torch.randint(len(self.latents), (self.batch, 1), generator=generator)
        start = self.first + torch.randint(self.starts, (self.batch, 1), generator=generator)
        gap = 1 + torch.randint(self.reach, (self.batch, 1), generator=generator)
        goal = (start + gap).clamp(max=self.latents.shape[1] - 1)
        plan, done = self._means(row, start + self.ahead).flatten(1), self._means(row, start - self.before)
        looks = {"latents": self.latents[row, start - self.past], "goal": self.latents[row, goal][:, 0]}
        looks |= {"plan": plan, "done": done}
        looks["weight"] = self._weight(row[:, 0], start[:, 0], goal[:, 0])
        return TensorDict(looks, batch_size=[self.batch])

    def _means(self, row: Tensor, steps: Tensor) -> Tensor:
        """Mean actions of the blocks that `steps` `[B, n * block]` make up, `[B, n, env_dim]` in [-1, 1]."""
        blocks = (steps.shape[-1] // self.spec.block, self.spec.block)
        return self.spec.means(self.spec.encode(self.actions[row, steps].unflatten(1, blocks)))

    @torch.no_grad()
    def _weight(self, row: Tensor, start: Tensor, goal: Tensor) -> Tensor:
        """exp(h (d(z, g) - n - d(z', g))), at most `MOST_HASTE`: z' is n steps after z, where the plan ends or at g.

        (Advantages as weights: Wang et al., arXiv 2006.15134; of a goal's distance: HIQL, arXiv 2307.11949.)
        """
        if not self.haste:
            return torch.ones(self.batch)
        assert self.left is not None
        end = torch.minimum(start + len(self.ahead), goal)
        here, there, aim = (self.latents[row, at] for at in (start, end, goal))
        gained = self.left(here, aim) - (end - start) / self.spec.block - self.left(there, aim)
        return (self.haste * gained).exp().clamp(max=MOST_HASTE)


class PriorTraining(lightning.LightningModule):
    """Regression of the velocity from noise to plan, at a random place on the straight way between them.

    Args:
        prior: what is trained.
        config: `steps`, `learning_rate`, `weight_decay`, `cold_starts` and `seed` are read.
        spec: of the actions.
    """

    still: Tensor

    def __init__(self, prior: ActionPrior, config: TrainConfig, spec: ActionSpec) -> None:
        super().__init__()
        self.prior, self.config = prior, config
        self.register_buffer("still", spec.means(spec.encode(spec.still())), persistent=False)

    def loss(self, batch: TensorDict) -> Tensor:
        """Mean square error of the velocity, each plan with its weight."""
        plan, latents = batch["plan"], batch["latents"]
        cold = torch.rand(len(plan), 1, 1, device=plan.device) < self.config.cold_starts  # as an episode starts
        latents = torch.where(cold, latents[:, -1:], latents)
        done = torch.where(cold, self.still, batch["done"])
        noise, time = torch.randn_like(plan), torch.rand(len(plan), device=plan.device)
        point = torch.lerp(noise, plan, time[:, None])
        found = self.prior(point, time, self.prior.condition(latents, batch["goal"], done))
        error = (found - (plan - noise)).square().mean(-1)
        return (batch["weight"] * error).sum() / batch["weight"].sum()

    def training_step(self, batch: TensorDict, _: int) -> Tensor:
        reseed(self.global_step, self.config.seed)
        loss = self.loss(batch)
        check_finite(loss, "training of the action prior", self.global_step)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TensorDict, index: int) -> None:
        reseed(index)
        self.log("val/prior", self.loss(batch), prog_bar=True)

    def configure_optimizers(self) -> Any:
        return one_cycle(self.prior, self.config)
