"""The JEPA's own stages: all of it on windows of play, and its predictor alone; what probes read from its latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor

from ..data import DatasetInfo, halves
from ..errors import BadInput
from ..models.jepa import JEPA
from ..models.losses import covariance, rollout_loss, sigreg
from ..models.predictors import ResidualPredictor
from ..settings import TrainConfig
from .looks import varied
from .stages import check_finite, reseed, watch_rank


class Ahead(NamedTuple):
    """What was foreseen in windows.

    Attributes:
        predicted: for k = 1, 2, ...: latents foreseen k steps ahead from every start, as `rollout_loss` takes them.
        latents: what came, `[B, F, D]`.
        seen: frames that a start has seen.
    """

    predicted: list[Tensor]
    latents: Tensor
    seen: int


class JEPATraining(lightning.LightningModule):
    """One update: encode every frame of a window, predict from every start, compare, keep the latents apart."""

    still: Tensor

    def __init__(
        self, model: JEPA, config: TrainConfig, info: DatasetInfo, success: Callable[[JEPA], float] | None = None
    ) -> None:
        super().__init__()
        check_growing(model, config)
        self.model, self.config, self.info, self.success = model, config, info, success
        # Fixed "zero" action: what a robot at rest is said to have done before its episode started.
        self.register_buffer("still", model.action.encode(model.action.still()), persistent=False)

    def losses(self, batch: TensorDict) -> dict[str, Tensor]:
        """The terms of the loss, and the latents of the batch under `latents`."""
        config, model = self.config, self.model
        latents = self.look(batch)  # [B, F, D]
        moved = torch.cat([latents[:, :-1], latents[:, 1:] - latents[:, :-1]], -1)
        return {
            "prediction": self.off(self.ahead(latents, batch["actions"])),
            "sigreg": sigreg(
                latents.transpose(0, 1) if config.sigreg_apart else latents.flatten(0, 1), config.sigreg_directions
            ),
            "covariance": covariance(latents.flatten(0, 1)),
            "inverse": (model.inverse(moved) - batch["actions"]).square().mean(),
            "latents": latents,
        }

    def look(self, batch: TensorDict) -> Tensor:
        """The latents `[B, F, D]` of a batch, in training each frame with a look of its own."""
        pixels = batch["pixels"]
        if self.training and self.config.augment:
            pixels = varied(pixels, self.config)
        return self.model.embed(pixels)

    def weights(self) -> dict[str, float]:
        """Weight of each term of the loss."""
        config = self.config
        return {
            "prediction": 1.0,
            "sigreg": config.sigreg_weight,
            "covariance": config.covariance_weight,
            "inverse": config.inverse_weight,
        }

    def ahead(self, latents: Tensor, actions: Tensor) -> list[Ahead]:
        """What is foreseen in windows `[B, F, D]` with `[B, F - 1, A]`: open loop from every start, and, where windows
        grow, one step ahead from fewer frames, too."""
        model = self.model
        whole = Ahead(self._predict(latents, actions), latents, model.history)
        if not self.config.growing:
            return [whole]
        few = [
            Ahead([model.predictor(latents[:, :n], actions[:, :n]).unsqueeze(1)], latents[:, : n + 1], n)
            for n in range(1, model.history)
        ]
        return [*few, whole]

    def off(self, ahead: list[Ahead], read: Callable[[Tensor], Tensor] = lambda latents: latents) -> Tensor:
        """How far that is from what came; both as `read` makes features of latents."""
        decay, lengths = self.config.decay, self.config.lengths
        errors = [
            rollout_loss([read(step) for step in one.predicted], read(one.latents), one.seen, decay, lengths)
            for one in ahead
        ]
        return torch.stack(errors).mean()

    def _predict(self, latents: Tensor, actions: Tensor) -> list[Tensor]:
        """Open-loop predictions from every start at once: for k = 1..K `[B, F - H + 1 - k, D]`."""
        model, history = self.model, self.model.history
        seen = latents.unfold(1, history, 1).movedim(-1, -2)  # [B, F - H + 1, H, D], one row a start
        done = actions.unfold(1, history, 1).movedim(-1, -2)  # [B, F - H, H, A]: the last is the action to come
        if history > 1 and self.training:
            cold = torch.rand(len(latents), 1, 1, 1, device=latents.device) < self.config.cold_starts
            seen = torch.where(cold, seen[:, :, -1:], seen)
            past = torch.where(cold, self.still, done[:, :, :-1])
            done = torch.cat([past, done[:, :, -1:]], 2)
        predicted = []
        for _ in range(min(self.config.horizon, done.shape[1])):
            ahead = model.predictor(seen[:, : done.shape[1]], done)
            predicted.append(ahead)
            # The next step starts one frame later; what happened meanwhile moves up in the history.
            seen = torch.cat([seen[:, : done.shape[1], 1:], ahead.unsqueeze(2)], 2)
            coming = actions[:, history - 1 + len(predicted) :].unsqueeze(2)
            done = torch.cat([done[:, : coming.shape[1], 1:], coming], 2)
        return predicted

    def training_step(self, batch: TensorDict, _: int) -> Tensor:
        reseed(self.global_step, self.config.seed)
        terms = self.losses(batch)
        weights = self.weights()
        loss = torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()
        check_finite(loss, "training", self.global_step)
        self.log("loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": terms[name] for name in weights})
        return loss

    def validation_step(self, batch: TensorDict, _: int) -> None:
        latents = self.look(batch)
        predicted = self._predict(latents, batch["actions"])
        for k, step in enumerate(predicted, start=1):
            truth = latents[:, self.model.history - 1 + k :]
            stay = latents[:, self.model.history - 1 : latents.shape[1] - k]
            # Relative to predicting no change: 1 is useless, 0 perfect, and collapse cannot make it small.
            self.log(f"val/error_{k}", (step - truth).square().mean() / (stay - truth).square().mean().clamp_min(1e-9))
        self._latents.append(latents.flatten(0, 1))
        self._states.append(batch["state"].flatten(0, 1))
        self._episodes.append(batch["episode"].flatten())

    def on_validation_epoch_start(self) -> None:
        self._latents: list[Tensor] = []
        self._states: list[Tensor] = []
        self._episodes: list[Tensor] = []

    def on_validation_epoch_end(self) -> None:
        latents, states = torch.cat(self._latents), torch.cat(self._states)
        rank = watch_rank(latents, "training", self.global_step, self.print)
        if self.success is not None:
            self.log("val/success", self.success(self.model), prog_bar=True)
        self.log("val/effective_rank", rank, prog_bar=True)
        fit, tested = self._halves(torch.cat(self._episodes))
        if tested.any() and fit.any():  # a single held-out episode cannot be split
            known = fit | tested
            named = self.info.state_names, self.info.state_units
            for name, r2 in probe(latents[known], states[known], tested[known], *named).items():
                self.log(f"probe/{name}", r2)

    def _halves(self, episodes: Tensor) -> tuple[Tensor, Tensor]:
        """Which frames, by the rows that they are of, a probe is fitted on, and which it is tested on; bool `[N]`.

        Every second row, but pieces of recordings share frames with their neighbours.
        """
        if not self.info.recordings:
            return episodes % 2 == 1, episodes % 2 == 0
        rows = torch.arange(int(episodes.min()), int(episodes.max()) + 1)
        fit, tested = halves(self.info, rows)
        return torch.isin(episodes, fit), torch.isin(episodes, tested)

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(self.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        warm = max(1, config.steps // 50)

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_growing(model: JEPA, config: TrainConfig) -> None:
    """Refuses, with `BadInput`, a window that is to grow for a predictor whose input is as long as its history."""
    if config.growing and isinstance(model.predictor, ResidualPredictor):
        expected, got = 'a predictor that may see fewer frames, such as "transformer"', repr(model.config.predictor)
        do = "leave training.growing out"
        raise BadInput("training: growing windows do not fit the predictor", expected=expected, got=got, do=do)


def probe(
    latents: Tensor, states: Tensor, tested: Tensor, names: tuple[str, ...], units: tuple[str, ...]
) -> dict[str, float]:
    """How well a linear map reads each physical quantity off the latents: R2 on the rows that are tested, at most 1.

    Args:
        latents: `[N, D]`.
        states: `[N, n]`; quantities in "rad" are probed as their sine and cosine, and the mean R2 of both is given.
        tested: bool `[N]`, rows that the R2 is of; the map is fitted on the others. Split by episode: neighbouring
            frames in both halves would flatter.
        names: of the n quantities.
        units: of the n quantities.
    """
    inputs = torch.cat([latents, torch.ones(len(latents), 1)], 1).double()
    fit, test = inputs[~tested], inputs[tested]
    ridge = 1e-3 * max(1, len(fit)) * torch.eye(inputs.shape[1], dtype=torch.float64)
    scores = {}
    for i, (name, unit) in enumerate(zip(names, units, strict=True)):
        value = states[:, i].double()
        targets = torch.stack([value.sin(), value.cos()], 1) if unit == "rad" else value[:, None]
        weights = torch.linalg.solve(fit.T @ fit + ridge, fit.T @ targets[~tested])
        missed = (test @ weights - targets[tested]).square().mean(0)
        scores[name] = float((1 - missed / targets[tested].var(0, correction=0).clamp_min(1e-12)).mean())
    return scores


class PredictorTraining(JEPATraining):
    """The second stage: the encoder stands still, its latents are cached, and the predictor learns to look further."""

    def look(self, batch: TensorDict) -> Tensor:
        return batch["latents"]

    def weights(self) -> dict[str, float]:
        heads = {"heads": self.config.head_weight} if self.config.head_weight else {}
        return {"prediction": 1.0} | heads

    def losses(self, batch: TensorDict) -> dict[str, Tensor]:
        ahead = self.ahead(self.look(batch), batch["actions"])
        found = {"prediction": self.off(ahead)}
        if self.config.head_weight:
            nets = [head.net for head in (self.model.slow, self.model.temporal) if head is not None]
            found["heads"] = torch.stack([self.off(ahead, net) for net in nets]).sum()
        return found


def check_heads(model: JEPA, config: TrainConfig) -> None:
    """Refuses, with `BadInput`, to weigh what heads read where a model has none."""
    if config.head_weight and model.slow is None and model.temporal is None:
        expected = "a model that knows steps left or slow features (`jepa-mpc temporal`, `slow`)"
        raise BadInput("training: head_weight, and the model has no heads", expected=expected, do="leave it out")
