"""Training of a JEPA, by Lightning: resumable to the step, with curves, probes and an eye on collapse."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensordict import TensorDict
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .checkpoint import weights_of
from .data import DatasetInfo, EpisodeStore, Mixture, Windows, split_rows, write_atomically
from .errors import BadInput
from .looks import LooksTraining, Pictures, varied
from .masked import MaskedTraining
from .models.encoders import BUILT_IN, GAZE, JOINED, AdaptedEncoder, FeatureEncoder, JoinedEncoder
from .models.jepa import JEPA, JEPAConfig
from .models.losses import covariance, rollout_loss, sigreg
from .models.prior import ActionPrior
from .models.slow import SlowFeatures
from .models.temporal import TemporalDistance
from .pretrained import Pretrained, settle
from .prior import Hindsight, PriorTraining
from .settings import TrainConfig
from .slow import Neighbours, SlowTraining
from .stages import watch_rank
from .symmetry import Symmetry
from .temporal import DistanceTraining, Ways
from .versions import commit


class JEPATraining(lightning.LightningModule):
    """One update: encode every frame of a window, predict from every start, compare, keep the latents apart."""

    still: Tensor

    def __init__(
        self, model: JEPA, config: TrainConfig, info: DatasetInfo, success: Callable[[JEPA], float] | None = None
    ) -> None:
        super().__init__()
        self.model, self.config, self.info, self.success = model, config, info, success
        # Fixed "zero" action: what a robot at rest is said to have done before its episode started.
        self.register_buffer("still", model.action.encode(model.action.still()), persistent=False)

    def losses(self, batch: TensorDict) -> dict[str, Tensor]:
        """The terms of the loss, and the latents of the batch under `latents`."""
        config, model = self.config, self.model
        latents = self.look(batch)  # [B, F, D]
        predicted = self._predict(latents, batch["actions"])
        moved = torch.cat([latents[:, :-1], latents[:, 1:] - latents[:, :-1]], -1)
        return {
            "prediction": rollout_loss(predicted, latents, model.history, config.decay),
            "sigreg": sigreg(latents.flatten(0, 1), config.sigreg_directions),
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
        # Noise that depends on the step alone: a resumed run draws what the uninterrupted one would have drawn.
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step)
        terms = self.losses(batch)
        weights = self.weights()
        loss = torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()
        if not torch.isfinite(loss):
            raise BadInput(
                f"training diverged at step {self.global_step}", got=f"loss {loss}", do="lower learning_rate"
            )
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
        tested = torch.cat(self._episodes) % 2 == 0
        if tested.any() and not tested.all():  # a single held-out episode cannot be split
            for name, r2 in probe(latents, states, tested, self.info.state_names, self.info.state_units).items():
                self.log(f"probe/{name}", r2)

    def configure_optimizers(self) -> Any:
        config = self.config
        optimizer = torch.optim.AdamW(self.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        warm = max(1, config.steps // 50)

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


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
        return {"prediction": 1.0}

    def losses(self, batch: TensorDict) -> dict[str, Tensor]:
        latents = self.look(batch)
        predicted = self._predict(latents, batch["actions"])
        return {"prediction": rollout_loss(predicted, latents, self.model.history, self.config.decay)}


@torch.no_grad()
def cache_latents(model: JEPA, store: EpisodeStore, symmetry: Symmetry | None = None, every: int = 1) -> Tensor:
    """Latents of a dataset's frames from the encoder as it is when planning, `[episodes x (L // every + 1), D]`.

    Of all frames as they are; with `symmetry` as it shows them, with `every` of that many frames one.
    """
    pixels, training = store.data["pixels"], model.training
    seen = symmetry.picture if symmetry else (lambda picture: picture)
    model.eval()
    latents = torch.cat([model.embed(seen(pixels[row][::every])) for row in range(len(pixels))])
    model.train(training)
    return latents


class _Stream(IterableDataset[TensorDict]):
    """Batches from the step that the trainer stands at, so that a resumed run goes on with the next one."""

    def __init__(self, windows: Any, training: lightning.LightningModule) -> None:
        self.windows, self.training = windows, training

    def __iter__(self) -> Iterator[TensorDict]:
        step = self.training.global_step
        while True:
            yield self.windows[step]
            step += 1


class _GracefulStop(Callback):
    """Ctrl-C or SIGTERM finishes the step in hand, saves, and stops; a second one stops at once."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, False

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        def ask(number: int, frame: Any) -> None:
            self.asked = True
            for one, handler in previous.items():
                signal.signal(one, handler)

        previous = {one: signal.signal(one, ask) for one in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self.asked and not trainer.should_stop:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def train(
    store: EpisodeStore,
    shape: JEPAConfig,
    config: TrainConfig,
    out: Path,
    *,
    tensorboard: bool,
    success: Callable[[JEPA], float] | None = None,
    start: Pretrained | None = None,
    symmetries: Sequence[Symmetry] = (),
) -> JEPA | None:
    """Trains a JEPA on `store`, resuming from `out/last.ckpt` if there is one.

    Args:
        store: the dataset, already verified.
        shape: the model; its `image_size` must be the dataset's.
        config: how to train.
        out: folder for `last.ckpt`, `train.json` and the logs (`metrics.csv`).
        tensorboard: also log for TensorBoard (the `tensorboard` extra).
        success: asked at every check how often the model as it is then reaches goals, 0 to 1; logged as `val/success`.
        start: an encoder to start from, or to leave as it is where `config.freeze` says so.
        symmetries: the task's, seen where `config.symmetric` says so.

    Returns:
        The trained model, or None if it was interrupted (run again to go on).

    Raises:
        BadInput: if `out` holds a run of another configuration, a stage looks further than the episodes go, `start`
            does not fit `shape`, an encoder is to stand still that nobody has trained, a gaze is to learn where no
            picture lies aside, `config.symmetric` asks for symmetries and there are none, or the loss is no longer
            finite.
    """
    _check_size(store, shape)
    check_start(shape, config, start)
    _check_length(store, shape, config)
    _check_body(shape.body, store.info.action_spec.env_dim)
    views = views_of(config, symmetries)
    lightning.seed_everything(config.seed, verbose=False)
    model = JEPA(shape, store.info.action_spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start:
        start.put_into(model.encoder)
    given = hashlib.sha256(weights_of(model.encoder)).hexdigest() if config.freeze or start else None
    run = {"task": store.info.task, "data": _data(store), "encoder": given, "symmetries": _named(views)}
    _same_run(out, run | {"model": asdict(shape), "training": asdict(config)})
    if not (out / "last.ckpt").exists():
        for stage in ("polish", *TRAINERS):  # of a run whose first stage is gone: they know other latents
            (out / stage / "last.ckpt").unlink(missing_ok=True)
    first: JEPATraining
    if config.freeze:
        _freeze(model.encoder, store, config, pretrained=start is not None)
        first = PredictorTraining(model, config, store.info, success)
    else:
        first = JEPATraining(model, config, store.info, success)
    drawn = partial(_draws, model, store, config, views, cached=config.freeze)
    with _modes_are_meant() if config.freeze else nullcontext():
        if not _run(first, config, out, tensorboard, drawn):
            return None
        if not _polished(model, store, config, views, out, tensorboard):
            return None
    if model.body is not None:
        model.body.copy_(find_body(model.eval(), store, config.held_out))
    for part in ("temporal", "prior", "slow"):
        learner, train_it = getattr(model, part), TRAINERS[part]
        if learner is not None and not train_it(model, learner, [store], config, views, out, tensorboard):
            return None
    return model.eval()


def views_of(config: TrainConfig, symmetries: Sequence[Symmetry]) -> Sequence[Symmetry]:
    """The symmetries that episodes are to be seen under: the task's where `config.symmetric` says so, else none.

    Raises:
        BadInput: if some are wanted and the task has none.
    """
    if config.symmetric and not symmetries:
        expected, do = "a task that lists its symmetries (GoalEnv.symmetries)", "leave the option out"
        raise BadInput("training: symmetric, and the task has no symmetries", expected=expected, do=do)
    return symmetries if config.symmetric else ()


def _polished(
    model: JEPA, store: EpisodeStore, config: TrainConfig, views: Sequence[Symmetry], out: Path, tensorboard: bool
) -> bool:
    """The stage of the predictor alone, where there is to be one; False if it was interrupted."""
    if not config.polish_steps:
        return True
    second = replace(config, steps=config.polish_steps, horizon=config.polish_horizon, batch=config.polish_batch)
    drawn = partial(_draws, model, store, second, views, cached=True)
    return _run(PredictorTraining(model, second, store.info), second, out / "polish", tensorboard, drawn)


def _data(store: EpisodeStore) -> dict[str, Any]:
    """What a training on a dataset of its own knows it by, wherever it lies."""
    return {name: getattr(store.info, name) for name in ("episodes", "steps", "seed", "policy", "renderer")}


def _check_size(store: EpisodeStore, shape: JEPAConfig) -> None:
    if shape.image_size != store.info.size:
        raise BadInput("image sizes differ", expected=f"{store.info.size} (the dataset's)", got=str(shape.image_size))


def _check_length(store: EpisodeStore, shape: JEPAConfig, config: TrainConfig) -> None:
    """Raises `BadInput` if any stage, and not the first alone, would find the episodes too short."""
    ahead = {
        "training.horizon": config.horizon,
        "training.polish_horizon": config.polish_horizon if config.polish_steps else 0,
        "model.prior_horizon": shape.prior_horizon if shape.prior else 0,
    }
    name, horizon = max(ahead.items(), key=lambda one: one[1])
    block, steps = store.info.action_spec.block, store.info.steps
    if (needed := (shape.history - 1 + horizon) * block) > steps:
        most = steps // block - shape.history + 1
        expected, got = f"{name} at most {most} in episodes of {steps} steps", str(horizon)
        if most < 1:  # whatever it is set to
            expected, got = f"at least {needed} steps for {name} {horizon}", str(steps)
        raise BadInput("training looks further than the episodes go", expected=expected, got=got)


def _check_body(count: int, actions: int) -> None:
    if count > actions:
        raise BadInput("body: too many directions", expected=f"at most {actions}, one an action", got=str(count))


def _check_haste(shape: JEPAConfig, config: TrainConfig) -> None:
    if config.prior_haste and shape.prior and not shape.temporal:
        expected = "a model that knows how many steps are left (model.temporal above 0, or `jepa-mpc temporal`)"
        raise BadInput("training: prior_haste asks for steps left", expected=expected, do="set prior_haste to 0")


def check_start(shape: JEPAConfig, config: TrainConfig, start: Pretrained | None) -> None:
    """Raises `BadInput` if `start` does not fit `shape`, an encoder is to stand still that nobody has trained, a gaze
    is to learn where no picture lies aside, or a prior is to hurry where nothing says how many steps are left."""
    _check_haste(shape, config)
    if start:
        start.check(shape)
    elif config.freeze and shape.encoder in BUILT_IN:
        do = "give --encoder, from `jepa-mpc pretrain` or a checkpoint"
        raise BadInput("training: freeze would leave the encoder untrained", expected="a pretrained one", do=do)
    if JOINED in shape.encoder and not config.freeze:
        do = "give --encoder and --training.freeze, or train a bare encoder, teach it looks and join the two"
        raise BadInput("training: a joined encoder stands still", expected="freeze", got=shape.encoder, do=do)
    if GAZE in shape.encoder and not config.freeze and not (config.augment and config.shift):
        got = f"augment {config.augment:g}" + (", shift" if config.shift else ", no shift")
        do = "give --training.augment and --training.shift, or an encoder without a gaze"
        raise BadInput("training: nothing to learn a gaze from", expected="shifted pictures", got=got, do=do)


def _freeze(encoder: nn.Module, store: EpisodeStore, config: TrainConfig, *, pretrained: bool) -> None:
    """Makes an encoder stand still; somebody else's features get the statistics of their normalisation first."""
    if not pretrained:
        if not isinstance(encoder, FeatureEncoder):
            got = type(encoder).__name__
            raise BadInput("training: freeze wants latents of variance 1", expected="a FeatureEncoder", got=got)
        settle(encoder, _some_pictures(store, config))
    encoder.requires_grad_(False)


@contextmanager
def _modes_are_meant() -> Iterator[None]:
    """Without Lightning's warning of modules in evaluation mode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*in eval mode")
        yield


def _some_pictures(store: EpisodeStore, config: TrainConfig) -> Iterator[Tensor]:
    """Batches of random training pictures, enough for the statistics of a normalisation."""
    pictures = Pictures(store, split_rows(store.info.episodes, config.held_out)[0], 256, config.seed)
    return (pictures[i]["pixels"] for i in range(16))


def pretrain(
    store: EpisodeStore, shape: JEPAConfig, config: TrainConfig, out: Path, *, tensorboard: bool
) -> nn.Module | None:
    """Trains an encoder on single pictures of `store` (`masked.MaskedTraining`); resumes from `out/last.ckpt`.

    Args:
        store: the dataset, already verified; its actions are not read.
        shape: its `encoder`, `image_size` (the dataset's), `width` and `latent_dim` are read.
        config: what `MaskedTraining` reads, `batch` (pictures), `held_out` and `save_every`.
        out: folder for the state to resume from and the logs.
        tensorboard: also log for TensorBoard.

    Returns:
        The encoder, or None if it was interrupted (run again to go on).

    Raises:
        BadInput: if `out` holds another run, the encoder is a joined one, or the loss is no longer finite.
    """
    _check_size(store, shape)
    if JOINED in shape.encoder:
        do = "pretrain one of the two"
        raise BadInput("pretrain: a joined encoder stands still", expected="one encoder", got=shape.encoder, do=do)
    run = {"task": store.info.task, "data": _data(store)}
    _same_run(out, run | {"model": asdict(shape), "training": asdict(config)})
    lightning.seed_everything(config.seed, verbose=False)
    encoder = JEPA(shape, store.info.action_spec).encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = MaskedTraining(encoder, shape.latent_dim, config)
    if not _run(training, config, out, tensorboard, partial(_pictures, store, config)):
        return None
    settle(encoder, _some_pictures(store, config))  # training saw pictures with holes too
    return encoder.eval()


def _episodes(
    model: JEPA, stores: Sequence[EpisodeStore], views: Sequence[Symmetry], held_out: float
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Latents `[N, L + 1, D]` and actions `[N, L, a]` of all datasets' episodes to fit, and of those to check.

    Those to fit are there again as each of the `views` shows them.
    """
    fit: list[tuple[Tensor, Tensor]] = []
    check: list[tuple[Tensor, Tensor]] = []
    for store in stores:
        fit_rows, check_rows = split_rows(store.info.episodes, held_out)
        if not len(fit_rows):
            got = f"{store.info.episodes}, all of them held out"
            raise BadInput(f"dataset {store.path} has too few episodes", expected="some to fit", got=got)
        actions = store.data["actions"][:]
        for view in (None, *views):
            latents = cache_latents(model, store, view).unflatten(0, (store.info.episodes, -1))
            fit.append((latents[fit_rows], view.action(actions[fit_rows]) if view else actions[fit_rows]))
            if view is None:
                check.append((latents[check_rows], actions[check_rows]))
    (fits, fit_actions), (checks, check_actions) = (map(torch.cat, zip(*part, strict=True)) for part in (fit, check))
    return (fits, fit_actions), (checks, check_actions)


def _train_temporal(
    model: JEPA, head: TemporalDistance, stores: Sequence[EpisodeStore], config: TrainConfig, *rest: Any
) -> bool:
    """The steps left, on cached latents, in `out/temporal`, where it resumes; False if it was interrupted."""
    settings, block, n = replace(config, steps=config.temporal_steps), model.action.block, config.temporal_reach
    training = DistanceTraining(head, settings, min(n, stores[0].info.steps / block))
    drawn = partial(Ways, block=block, reach=n, batch=1024, seed=config.seed)
    return _train_on_latents(training, drawn, "temporal", model, stores, settings, *rest)


def _train_slow(
    model: JEPA, head: SlowFeatures, stores: Sequence[EpisodeStore], config: TrainConfig, *rest: Any
) -> bool:
    """The slow features, on cached latents, in `out/slow`, where it resumes; False if it was interrupted."""
    settings = replace(config, steps=config.slow_steps)
    drawn = partial(Neighbours, block=model.action.block, batch=2048, seed=config.seed)
    return _train_on_latents(SlowTraining(head, settings), drawn, "slow", model, stores, settings, *rest)


def _train_on_latents(
    training: lightning.LightningModule,
    drawn: Callable[[Tensor], Any],
    part: str,
    model: JEPA,
    stores: Sequence[EpisodeStore],
    config: TrainConfig,
    views: Sequence[Symmetry],
    out: Path,
    tensorboard: bool,
) -> bool:
    """Trains a head on batches `drawn` from cached latents of episodes `[N, L + 1, D]`; False if it was interrupted."""

    def draws() -> tuple[Any, Any]:
        fit, check = _episodes(model, stores, views, config.held_out)
        return drawn(fit[0]), drawn(check[0])

    return _run(training, config, out / part, tensorboard, draws)


def train_prior(
    model: JEPA,
    prior: ActionPrior,
    stores: Sequence[EpisodeStore],
    config: TrainConfig,
    views: Sequence[Symmetry],
    out: Path,
    tensorboard: bool,
) -> bool:
    """Trains the action prior on cached latents, in `out/prior`, where it resumes; False if it was interrupted."""
    settings = replace(config, steps=config.prior_steps)

    def drawn(latents: Tensor, actions: Tensor) -> Hindsight:
        return Hindsight(
            latents,
            actions,
            model.action,
            history=model.history,
            horizon=prior.horizon,
            reach=config.prior_reach,
            batch=512,
            seed=config.seed,
            haste=config.prior_haste,
            left=model.temporal,
        )

    def draws() -> tuple[Hindsight, Hindsight]:
        fit, check = _episodes(model, stores, views, config.held_out)
        return drawn(*fit), drawn(*check)

    return _run(PriorTraining(prior, settings, model.action), settings, out / "prior", tensorboard, draws)


def add_part(
    model: JEPA,
    part: Literal["prior", "slow", "temporal"],
    shape: JEPAConfig,
    stores: Sequence[EpisodeStore],
    config: TrainConfig,
    out: Path,
    *,
    weights: str,
    tensorboard: bool,
    symmetries: Sequence[Symmetry] = (),
) -> JEPA | None:
    """Gives a finished model an action prior, slow features or a temporal distance, or new ones; all else stays.

    Args:
        model: what the part is to be added to.
        part: which; it is trained, and resumes, in the folder of that name in `out`.
        shape: the model's, with the part's sizes.
        stores: datasets of the same task, of episodes as long, already verified; every episode counts alike.
        config: `learning_rate`, `weight_decay`, `symmetric`, `held_out`, `seed` and `save_every` are read, of a prior
            also `prior_steps`, `prior_reach`, `prior_haste` and `cold_starts`, of slow features also `slow_steps`, of a
            temporal distance also `temporal_steps`, `temporal_reach` and `temporal_expectile`.
        out: folder for the state to resume from and the logs.
        weights: SHA-256 of the weights started from, so that a run is not resumed on others.
        tensorboard: also log for TensorBoard.
        symmetries: the task's, seen where `config.symmetric` says so.

    Returns:
        The model with its part, or None if it was interrupted (run again to go on).

    Raises:
        BadInput: if `out` holds another run, datasets and model do not fit, two datasets share episodes or one has too
            few, symmetries are asked for and there are none, a prior is to hurry and the model has no temporal
            distance, or the loss is no longer finite.
    """
    _check_haste(shape, config)
    views = views_of(config, symmetries)
    run = _fitting(stores, model, weights, views)
    if len(lengths := sorted({store.info.steps for store in stores})) > 1:
        got = " and ".join(map(str, lengths))
        raise BadInput(f"{part}: episodes of different lengths", expected="as many steps in every dataset", got=got)
    _same_run(out, run | {"model": asdict(shape), "training": asdict(config)}, state=out / part / "last.ckpt")
    lightning.seed_everything(config.seed, verbose=False)
    grown = model.renewed(part, shape).train().requires_grad_(False)
    learner, train_it = grown.get_submodule(part).requires_grad_(True), TRAINERS[part]
    return grown.eval() if train_it(grown, learner, stores, config, views, out, tensorboard) else None


TRAINERS: dict[str, Callable[..., bool]] = {"prior": train_prior, "slow": _train_slow, "temporal": _train_temporal}


def learn_looks(
    model: JEPA,
    store: EpisodeStore,
    config: TrainConfig,
    out: Path,
    *,
    weights: str,
    tensorboard: bool,
    teacher: tuple[JEPA, str] | None = None,
) -> JEPA | None:
    """Teaches a finished model's encoder to see through looks, latents as they were; resumes from `out/last.ckpt`.

    Of a joined encoder the taught half learns on, from the exact one, and then how far apart the two may be is found
    anew (`join`).

    Args:
        model: encoder to start from; changed in place. All else stays as it is.
        store: pictures of the same task, already verified.
        config: `steps`, `batch` (pictures), `augment`, `shift`, `repaint`, `backdrop`, `learning_rate`,
            `weight_decay`, `held_out`, `seed` and `save_every` are read.
        out: folder for the state to resume from and the logs.
        weights: SHA-256 of the weights started from, so that a run is not resumed on others.
        tensorboard: also log for TensorBoard.
        teacher: a model whose latents are taught, and the SHA-256 of its weights; the encoder as it comes by default.
            One that is taught again and again by itself is off by a little more each time.

    Returns:
        The model, or None if it was interrupted (run again to go on).

    Raises:
        BadInput: if `augment` is 0, `out` holds another run, dataset, teacher and model do not fit, the loss is no
            longer finite, or the halves of a joined encoder came to mean different things.
    """
    if not config.augment:
        raise BadInput("looks: augment is off", expected="more than 0, at most 1", got="0")
    if isinstance(model.encoder, FeatureEncoder):
        do = "teach the backbone where it comes from"
        raise BadInput("looks: somebody else's encoder stands still", expected=" or ".join(BUILT_IN), do=do)
    _check_pictures(store, model)
    joined = model.encoder if isinstance(model.encoder, JoinedEncoder) else None
    if teacher:
        _check_teacher(model, teacher[0], store, config)
    run = {"task": store.info.task, "encoder": weights, "data": {"path": str(store.path)} | _data(store)}
    run |= {"teacher": teacher[1]} if teacher else {}  # runs before there were any are gone on with
    _same_run(out, run | {"model": asdict(model.config), "training": asdict(config)})
    lightning.seed_everything(config.seed, verbose=False)

    learns = joined.taught if joined else model.encoder
    model.requires_grad_(False)
    learns.requires_grad_(True)
    if not config.shift and isinstance(learns, AdaptedEncoder) and learns.gaze:
        learns.gaze.requires_grad_(False)  # where nothing lies aside it would unlearn to move anything
    lesson = LooksTraining(learns, config, teacher[0].encoder if teacher else joined and joined.plain)
    with _modes_are_meant():
        if not _run(lesson, config, out, tensorboard, partial(_pictures, store, config)):
            return None
    if joined:
        joined.apart.fill_(agreement(joined.plain, learns, store, config)["apart"])
    return model.eval()


@torch.no_grad()
def _check_teacher(model: JEPA, teacher: JEPA, store: EpisodeStore, config: TrainConfig) -> None:
    """Raises `BadInput` where a teacher's latents of plain pictures are none of the model's, or it has a teacher."""
    if isinstance(model.encoder, JoinedEncoder):
        raise BadInput("looks: the taught half of a joined encoder learns from the exact one", do="leave it out")
    do = "give the weights that these were taught looks from"
    for name in ("image_size", "latent_dim"):
        if (got := getattr(teacher.config, name)) != (want := getattr(model.config, name)):
            raise BadInput(f"looks: the teacher does not fit: {name}", expected=str(want), got=str(got), do=do)
    pixels = Pictures(store, split_rows(store.info.episodes, config.held_out)[1], 128, config.seed)[0]["pixels"]
    if (apart := (model.embed(pixels) - teacher.embed(pixels)).square().mean().item()) > ONE_SPACE:
        expected = f"latents a mean square distance of {ONE_SPACE} apart at most on plain pictures"
        raise BadInput("looks: the teacher's latents differ in meaning", expected=expected, got=f"{apart:.2f}", do=do)


def _check_pictures(store: EpisodeStore, model: JEPA) -> None:
    """Raises `BadInput` where pictures are of another size than the model's; actions may be any."""
    if (got := store.info.size) != (want := model.config.image_size):
        raise BadInput(f"dataset {store.path} does not fit the model: size", expected=str(want), got=str(got))


AGREE_ON = 4000
"""Held-out pictures, in whole batches: half of them say how far apart two encoders are, half, of other episodes, how
often they agree."""

AGREE = 0.95
"""Share of held-out plain pictures on which two joined encoders are to agree. With more, a picture under noise, or with
the camera aside, of which the exact encoder is wrong by little, would pass for plain (decision 91)."""

ONE_SPACE = 0.5
"""Mean square distance up to which latents of a picture can mean the same; that of two pictures' is about 2."""


@torch.no_grad()
def join(model: JEPA, taught: JEPA, store: EpisodeStore, config: TrainConfig) -> tuple[JEPA, dict[str, float]]:
    """Joins a finished model's encoder with one that was taught its latents (`encoders.JoinedEncoder`).

    How far apart the two may be on a picture for the model's own to be believed comes of held-out pictures.

    Args:
        model: whose latents, predictor and heads these are.
        taught: a model whose encoder came of `learn_looks`, from `model`'s; the rest of it is not read.
        store: pictures of the same task, already verified.
        config: `batch` (pictures), `augment`, `shift`, `repaint`, `backdrop`, `held_out` and `seed` are read; how
            pictures are varied counts for the figures alone.

    Returns:
        The joined model, and what to tell of it: `apart`, the distance up to which they agree, mean square; `plain` and
        `varied`, shares of such held-out pictures on which they do, others than those that gave the distance.

    Raises:
        BadInput: if the two do not fit, their latents mean different things, dataset and model do not fit, or fewer
            than two episodes are held out.
    """
    _check_pictures(store, model)
    joined = model.joined(taught, 0.0)
    found = agreement(model.encoder, taught.encoder, store, config)
    joined.encoder.get_buffer("apart").fill_(found["apart"])
    return joined, found


@torch.no_grad()
def agreement(plain: nn.Module, taught: nn.Module, store: EpisodeStore, config: TrainConfig) -> dict[str, float]:
    """How far apart two encoders may be on a picture for the `plain` one to be believed; returns what `join` does.

    Raises:
        BadInput: if their latents mean different things, or fewer than two episodes are held out.
    """
    torch.manual_seed(config.seed)
    rows = split_rows(store.info.episodes, config.held_out)[1]
    if len(rows) < 2:
        raise BadInput(
            f"dataset {store.path} has too few episodes", expected="two held out at least", got=str(len(rows))
        )
    several, half = max(1, AGREE_ON // 2 // config.batch), (len(rows) + 1) // 2
    # Of other episodes: pictures of one are alike, and would agree as those do that gave the distance.
    setting, judging = (Pictures(store, part, config.batch, config.seed + 1) for part in (rows[:half], rows[half:]))

    def distances(looks: Iterable[Tensor]) -> Tensor:
        return torch.cat([(plain(pixels) - taught(pixels)).square().mean(1) for pixels in looks])

    apart = distances(setting[i]["pixels"] for i in range(several)).quantile(AGREE).item()
    if apart > ONE_SPACE:
        expected = f"a mean square distance of {ONE_SPACE} at most on plain pictures"
        do = "give weights that `jepa-mpc looks` taught these latents"
        raise BadInput("join: the encoders' latents differ in meaning", expected=expected, got=f"{apart:.2f}", do=do)
    plainly = [judging[i]["pixels"] for i in range(several)]
    looks = {"plain": plainly, "varied": [varied(pixels, config) for pixels in plainly]}
    return {"apart": apart} | {name: (distances(looks[name]) <= apart).double().mean().item() for name in looks}


def find_body(model: JEPA, store: EpisodeStore, held_out: float) -> Tensor:
    """The model's `body` directions, from up to 200 training episodes; `[D, config.body]`."""
    rows = split_rows(store.info.episodes, held_out)[0][:200]
    with torch.no_grad():
        latents = torch.stack([model.embed(store.data["pixels"][row]) for row in rows])
    return body_directions(latents, store.data["actions"][rows], model.action.block, model.config.body)


def body_directions(latents: Tensor, actions: Tensor, block: int, count: int) -> Tensor:
    """Latent directions that actions move at once, whatever else is the case: those of the robot's own body.

    A linear map from the mean action of a block to how the latent changes over it, by least squares. What an action
    moves only now and then, such as an object in contact, leaves little in it.

    Args:
        latents: of episodes, `[N, L + 1, D]`.
        actions: between them, `[N, L, env_dim]`.
        block: environment steps of a model step; L is at least that.
        count: directions wanted, 1 to env_dim.

    Returns:
        `[D, count]`, orthonormal, of the largest response first.
    """
    _check_body(count, actions.shape[-1])
    steps = actions.shape[1] // block
    mean = actions[:, : steps * block].unflatten(1, (steps, block)).mean(2).flatten(0, 1).double()
    marks = latents[:, : steps * block + 1 : block].double()
    change = (marks[:, 1:] - marks[:, :-1]).flatten(0, 1)
    inputs = torch.cat([mean, torch.ones_like(mean[:, :1])], 1)
    response = torch.linalg.lstsq(inputs, change, driver="gelsd").solution[:-1]  # [env_dim, D], less the constant
    spread = mean.std(0, correction=0)[:, None]  # how far each action moves the latent as it is used
    return torch.linalg.svd(spread * response, full_matrices=False).Vh[:count].T.to(latents.dtype)


def polish(
    model: JEPA,
    stores: Sequence[EpisodeStore],
    config: TrainConfig,
    out: Path,
    *,
    encoder: str,
    tensorboard: bool,
    symmetries: Sequence[Symmetry] = (),
) -> JEPA | None:
    """Trains the predictor of a finished model further, its encoder standing still; resumes from `out/last.ckpt`.

    Args:
        model: encoder and predictor to start from; changed in place.
        stores: datasets of one task, already verified; every batch holds as many windows of each.
        config: `steps`, `batch`, `horizon`, `decay`, `learning_rate`, `weight_decay`, `cold_starts`, `moving`,
            `symmetric`, `held_out`, `seed` and `save_every` are read.
        out: folder for the state to resume from and the logs.
        encoder: SHA-256 of the weights started from, so that a run is not resumed on others.
        tensorboard: also log for TensorBoard.
        symmetries: the task's, seen where `config.symmetric` says so.

    Returns:
        The model, or None if it was interrupted (run again to go on).

    Raises:
        BadInput: if `out` holds another run, datasets and model do not fit, two datasets share episodes or one has too
            few, symmetries are asked for and there are none, or the loss is no longer finite.
    """
    views = views_of(config, symmetries)
    run = _fitting(stores, model, encoder, views)
    _same_run(out, run | {"model": asdict(model.config), "training": asdict(config)})
    lightning.seed_everything(config.seed, verbose=False)

    def draws() -> tuple[Mixture, Mixture]:
        parts = [_draws(model, store, config, views, cached=True, share=len(stores)) for store in stores]
        fits = [windows for fit, _ in parts for windows in fit.parts]
        return Mixture(fits), Mixture([check for _, check in parts])

    model.train().requires_grad_(False).predictor.requires_grad_(True)
    done = _run(PredictorTraining(model, config, stores[0].info), config, out, tensorboard, draws)
    return model.eval() if done else None


def check_datasets(stores: Sequence[EpisodeStore], model: JEPA) -> None:
    """Raises `BadInput` where a dataset's size of pictures or actions (bounds, units, block) are not the model's."""
    for store in stores:
        if (got := (store.info.size, store.info.action_spec)) != (want := (model.config.image_size, model.action)):
            raise BadInput(f"dataset {store.path} does not fit the model", expected=str(want), got=str(got))


def _fitting(stores: Sequence[EpisodeStore], model: JEPA, weights: str, views: Sequence[Symmetry]) -> dict[str, Any]:
    """What a run of a finished model on datasets is known by; `BadInput` where one does not fit the model."""
    check_datasets(stores, model)
    _check_apart(stores)
    data = [{"path": str(store.path)} | _data(store) for store in stores]
    return {"task": stores[0].info.task, "encoder": weights, "data": data, "symmetries": _named(views)}


def _check_apart(stores: Sequence[EpisodeStore]) -> None:
    """Raises `BadInput` where two datasets share episodes: one's held-out ones would be trained on with the other."""
    seen: dict[int, EpisodeStore] = {}
    for store in stores:
        found = set(store.data["checksum"].tolist())
        if twice := found & seen.keys():
            where, count = seen[min(twice)].path, len(twice)
            do = "name each once, and collect with another --seed"
            expected, got = "episodes of its own", f"{count} that {where} has too"
            raise BadInput(f"dataset {store.path} is no other", expected=expected, got=got, do=do)
        seen |= dict.fromkeys(found, store)


def _named(views: Sequence[Symmetry]) -> list[str] | None:
    """What a run says of the symmetries that it sees episodes under: another task's matrices make it another run."""
    return [view.digest for view in views] or None


def _draws(
    model: JEPA,
    store: EpisodeStore,
    config: TrainConfig,
    views: Sequence[Symmetry] = (),
    *,
    cached: bool = False,
    share: int = 1,
) -> tuple[Mixture, Windows]:
    """Windows to fit and to validate on, one in `share` of a batch each.

    Those to fit on are in equal shares as they are and as each of the `views` shows them. `cached` is for latents that
    do not change any more.
    """
    fit_rows, held_out = split_rows(store.info.episodes, config.held_out)
    frames, batch = model.history + config.horizon, max(1, config.batch // share)
    latents = cache_latents(model, store) if cached else None
    fit = Windows(store, fit_rows, frames, max(1, batch // (1 + len(views))), config.seed, config.moving, latents)
    check = Windows(store, held_out, frames, batch, config.seed + 1, latents=latents)
    block = store.info.block
    shown = [
        fit.under(view, config.seed + 1 + k, cache_latents(model, store, view, block) if cached else None)
        for k, view in enumerate(views, start=1)
    ]
    return Mixture([fit, *shown]), check


def _pictures(store: EpisodeStore, config: TrainConfig) -> tuple[Pictures, Pictures]:
    """Single pictures to fit and to validate on."""
    fit, check = split_rows(store.info.episodes, config.held_out)
    return Pictures(store, fit, config.batch, config.seed), Pictures(store, check, config.batch, config.seed + 1)


def _run(
    training: lightning.LightningModule,
    config: TrainConfig,
    out: Path,
    tensorboard: bool,
    draws: Callable[[], tuple[Any, Any]],
) -> bool:
    """One stage, on the batches of `draws`; resumes from `out/last.ckpt`. False if it was interrupted."""
    out.mkdir(exist_ok=True)
    last = out / "last.ckpt"
    if last.exists() and not zipfile.is_zipfile(last):
        raise BadInput(f"{last} is damaged", expected="a saved training", do="remove it to start again")
    if (
        last.exists()
        and (saved := torch.load(last, map_location="cpu", weights_only=True))["global_step"] >= config.steps
    ):
        training.load_state_dict(saved["state_dict"])
        return True
    commit()  # asked now: results name the commit that the work began on
    windows, checks = draws()
    stop = _GracefulStop(last)
    trainer = _trainer(out, config, stop, tensorboard)
    trainer.fit(
        training, _loader(_Stream(windows, training)), _loader(checks), ckpt_path=last if last.exists() else None
    )
    return not stop.asked or trainer.global_step >= config.steps


def _trainer(out: Path, config: TrainConfig, stop: Callback, tensorboard: bool) -> lightning.Trainer:
    """Lightning's loop without its advertisements; one epoch is the whole run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message="(?s).*(Checkpoint directory|LeafSpec|num_workers|logging interval|resum)"
    )
    return lightning.Trainer(
        max_steps=config.steps,
        limit_train_batches=config.steps,
        accelerator="auto",
        devices=1,
        logger=_loggers(out, tensorboard),
        callbacks=[_saver(out, config), stop, RichProgressBar(leave=True)],
        val_check_interval=max(1, min(500, config.steps // 4)),
        check_val_every_n_epoch=None,
        limit_val_batches=16,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        log_every_n_steps=20,
        enable_model_summary=False,
        default_root_dir=out,
    )


def _loader(batches: Any) -> DataLoader[TensorDict]:
    """Hands over whole batches as they are."""
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def _saver(out: Path, config: TrainConfig) -> ModelCheckpoint:
    """Keeps `last.ckpt` up to date; Lightning writes it to a temporary file first."""
    return ModelCheckpoint(out, filename="last", every_n_train_steps=config.save_every, enable_version_counter=False)


def _loggers(out: Path, tensorboard: bool) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(out, name="logs", flush_logs_every_n_steps=20)]
    if tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise BadInput("TensorBoard is not installed", do="pip install 'jepa-mpc[tensorboard]', or leave it out")
        loggers.append(TensorBoardLogger(out, name="tensorboard"))
    return loggers


def _same_run(out: Path, run: dict[str, Any], state: Path | None = None) -> None:
    """Notes the run's configuration in `train.json`, or refuses to go on with another one's weights (in `state`)."""
    out.mkdir(parents=True, exist_ok=True)
    file, state = out / "train.json", state or out / "last.ckpt"
    if file.exists() and state.exists() and (found := _completed(json.loads(file.read_text()), run)) != run:
        differs = [
            f"{part}.{key}"
            for part in ("model", "training")
            for key in run[part]
            if found[part].get(key) != run[part][key]
        ]
        others = [key for key in found | run if found.get(key) != run.get(key)]
        told = {"symmetries": "other symmetries of the task than it lists now"}
        raise BadInput(
            f"{out} holds a run of another configuration",
            got=", ".join(differs or [told.get(key, f"{key} {found.get(key)}") for key in others]),
            do="give the same options, another --out, or remove it",
        )
    write_atomically(file, json.dumps(run, indent=1))


def _completed(noted: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """A noted configuration, with the defaults of the options of `run` that there were not yet when it was noted.

    One that was noted before symmetries had names is taken to have seen those of `run`; and where less was noted of
    its data, the rest is taken to be that of `run`.
    """
    defaults = {"model": asdict(JEPAConfig()), "training": asdict(TrainConfig())}
    filled = {
        part: {key: value for key, value in known.items() if key in run[part]} | noted[part]
        for part, known in defaults.items()
    }
    if "data" in run:
        filled["data"] = _completed_data(noted.get("data", {}), run["data"])
    return {key: run[key] if key == "symmetries" else None for key in run} | noted | filled


def _completed_data(noted: Any, now: Any) -> Any:
    """What was noted of one dataset or of several, and what is known of those of now beside it."""
    if isinstance(noted, list) and isinstance(now, list) and len(noted) == len(now):
        return [_completed_data(*both) for both in zip(noted, now, strict=True)]
    return now | noted if isinstance(noted, dict) and isinstance(now, dict) else noted
