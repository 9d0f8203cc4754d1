"""Training of a finished encoder to see through looks: a varied picture gets the latent of the plain one."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from ..augment import vary
from ..data import EpisodeStore, halves, split_rows
from ..errors import BadInput
from ..models.encoders import BUILT_IN, AdaptedEncoder, FeatureEncoder, JoinedEncoder
from ..models.jepa import JEPA
from ..settings import TrainConfig
from .batches import Pictures, check_size, data_of, pictures_of
from .run import modes_are_meant, run_stage, same_run
from .stages import check_finite, one_cycle, reseed

PLAIN = 0.25
"""Share of pictures that keep their look, so that what is plain stays as exact as it was."""

AGREE_ON = 4000
"""Held-out pictures, in whole batches: half of them say how far apart two encoders are, half, of other episodes, how
often they agree."""

AGREE = 0.95
"""Share of held-out plain pictures on which two joined encoders are to agree. With more, a picture under noise, or with
the camera aside, of which the exact encoder is wrong by little, would pass for plain (decision 91)."""

ONE_SPACE = 0.5
"""Mean square distance up to which latents of a picture can mean the same; that of two pictures' is about 2."""


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
        reseed(self.global_step, self.config.seed)
        pixels = batch["pixels"]
        plain = torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < PLAIN
        with torch.no_grad():
            want = self.teacher(pixels)
        loss = (self.encoder(torch.where(plain, pixels, varied(pixels, self.config))) - want).square().mean()
        check_finite(loss, "training to see through looks", self.global_step)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: TensorDict, index: int) -> None:
        reseed(index)
        pixels = batch["pixels"]
        looks, want = varied(pixels, self.config), self.teacher(pixels)
        found = {"plain": self.encoder(pixels), "varied": self.encoder(looks), "untaught": self.teacher(looks)}
        for name, latents in found.items():
            self.log(f"val/{name}", (latents - want).square().mean(), prog_bar=name != "untaught")

    def configure_optimizers(self) -> Any:
        return one_cycle(self.encoder, self.config)


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
    check_size(store, model.config)
    joined = model.encoder if isinstance(model.encoder, JoinedEncoder) else None
    if teacher:
        _check_teacher(model, teacher[0], store, config)
    run = {"task": store.info.task, "encoder": weights, "data": {"path": str(store.path)} | data_of(store)}
    run |= {"teacher": teacher[1]} if teacher else {}  # runs before there were any are gone on with
    same_run(out, run | {"model": asdict(model.config), "training": asdict(config)})
    lightning.seed_everything(config.seed, verbose=False)

    learns = joined.taught if joined else model.encoder
    model.requires_grad_(False)
    learns.requires_grad_(True)
    if not config.shift and isinstance(learns, AdaptedEncoder) and learns.gaze:
        learns.gaze.requires_grad_(False)  # where nothing lies aside it would unlearn to move anything
    lesson = LooksTraining(learns, config, teacher[0].encoder if teacher else joined and joined.plain)
    with modes_are_meant():
        if not run_stage(lesson, config, out, tensorboard, partial(pictures_of, store, config)):
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
    pixels = Pictures(store, split_rows(store.info, config.held_out)[1], 128, config.seed)[0]["pixels"]
    if (apart := (model.embed(pixels) - teacher.embed(pixels)).square().mean().item()) > ONE_SPACE:
        expected = f"latents a mean square distance of {ONE_SPACE} apart at most on plain pictures"
        raise BadInput("looks: the teacher's latents differ in meaning", expected=expected, got=f"{apart:.2f}", do=do)


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
    check_size(store, model.config)
    joined = model.joined(taught, 0.0)
    found = agreement(model.encoder, taught.encoder, store, config)
    joined.encoder.get_buffer("apart").fill_(found["apart"])
    return joined, found


@torch.no_grad()
def agreement(plain: nn.Module, taught: nn.Module, store: EpisodeStore, config: TrainConfig) -> dict[str, float]:
    """How far apart two encoders may be on a picture for the `plain` one to be believed; returns what `join` does.

    Raises:
        BadInput: if their latents mean different things, or fewer than two episodes are held out, of one recording
            three.
    """
    torch.manual_seed(config.seed)
    rows = split_rows(store.info, config.held_out)[1]
    several = max(1, AGREE_ON // 2 // config.batch)
    # Of other episodes: pictures of one are alike, and would agree as those do that gave the distance.
    parts = halves(store.info, rows)
    if not all(map(len, parts)):
        expected = "two held out at least, and three of one recording"
        raise BadInput(f"dataset {store.path} has too few episodes", expected=expected, got=str(len(rows)))
    setting, judging = (Pictures(store, part, config.batch, config.seed + 1) for part in parts)

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
