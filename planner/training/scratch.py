"""From play to a model: the JEPA, its predictor alone, and the parts that its shape names; or an encoder by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from ..actions import ActionSpec
from ..checkpoint import weights_of
from ..data import EpisodeStore
from ..errors import BadInput
from ..models.encoders import BUILT_IN, EncoderName, FeatureEncoder
from ..models.jepa import JEPA, JEPAConfig, channels_last
from ..pretrained import Pretrained, settle
from ..settings import TrainConfig
from ..symmetry import Symmetry
from .batches import check_size, data_of, draws_of, named, pictures_of, some_pictures, views_of
from .body import check_body, find_body
from .further import TRAINERS, check_haste
from .jepa import JEPATraining, PredictorTraining, check_growing
from .masked import MaskedTraining
from .run import begin_anew, modes_are_meant, run_stage, same_run


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
            picture lies aside, windows are to grow for a predictor that sees whole histories alone, `config.symmetric`
            asks for symmetries and there are none, or the loss is no longer finite.
    """
    check_size(store, shape)
    check_start(shape, config, start)
    _check_ahead(shape, config, store.info.action_spec, store.info.steps)
    views = views_of(config, symmetries)
    lightning.seed_everything(config.seed, verbose=False)
    model = channels_last(JEPA(shape, store.info.action_spec))
    check_growing(model, config)
    if start:
        start.put_into(model.encoder)
    given = hashlib.sha256(weights_of(model.encoder)).hexdigest() if config.freeze or start else None
    run = {"task": store.info.task, "data": data_of(store), "encoder": given, "symmetries": named(views)}
    _claim(out, run | {"model": asdict(shape), "training": asdict(config)}, shape)
    if config.freeze:
        _freeze(model.encoder, store, config, pretrained=start is not None)
    learns = PredictorTraining if config.freeze else JEPATraining
    drawn = partial(draws_of, model, store, config, views, cached=config.freeze)
    with modes_are_meant() if config.freeze else nullcontext():
        if not run_stage(learns(model, config, store.info, success), config, out, tensorboard, drawn):
            return None
        if not _polished(model, store, config, views, out, tensorboard):
            return None
    if model.body is not None:
        model.body.copy_(find_body(model.eval(), store, config.held_out))
    with modes_are_meant():  # what knows a body is in evaluation mode by now
        for part in ("temporal", "prior", "slow"):
            learner, train_it = getattr(model, part), TRAINERS[part]
            # They see episodes as they are: to encode every view of each takes minutes a head (decision 121).
            if learner is not None and not train_it(model, learner, [store], config, (), out, tensorboard):
                return None
    return model.eval()


def _claim(out: Path, run: dict[str, Any], shape: JEPAConfig) -> None:
    """Notes in `out` what runs there, stage by stage; `BadInput` where another run has it."""
    same_run(out, run)
    if not (out / "last.ckpt").exists():
        for stage in ("polish", *TRAINERS):  # of a run whose first stage is gone: they know other latents
            begin_anew(out / stage)
    for part in TRAINERS:
        if getattr(shape, part):  # which a finished model may have been given in this folder meanwhile
            same_run(out, run, part)


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
        BadInput: if `out` holds another run, the encoder is a joined one or somebody else's, which stand still, a gaze
            is to learn where no picture lies aside, or the loss is no longer finite.
    """
    check_size(store, shape)
    check_pretrain(shape, config, store.info.action_spec)
    run = {"task": store.info.task, "data": data_of(store)}
    same_run(out, run | {"model": asdict(shape), "training": asdict(config)})
    lightning.seed_everything(config.seed, verbose=False)
    encoder = channels_last(JEPA(shape, store.info.action_spec).encoder)
    training = MaskedTraining(encoder, shape.latent_dim, config)
    if not run_stage(training, config, out, tensorboard, partial(pictures_of, store, config)):
        return None
    settle(encoder, some_pictures(store, config))  # training saw pictures with holes too
    return encoder.eval()


def check_pretrain(shape: JEPAConfig, config: TrainConfig, spec: ActionSpec) -> None:
    """Raises `BadInput` for an encoder that stands still, or a gaze that is to learn where no picture lies aside."""
    name = EncoderName.parse(shape.encoder)
    if name.joined:
        do = "pretrain one of the two"
        raise BadInput("pretrain: a joined encoder stands still", expected="one encoder", got=shape.encoder, do=do)
    _check_gaze(name, config)
    if isinstance(JEPA(shape, spec).encoder, FeatureEncoder):
        do = "train on it as it is, with --training.freeze"
        raise BadInput("pretrain: somebody else's encoder stands still", got=shape.encoder, do=do)


def check_start(shape: JEPAConfig, config: TrainConfig, start: Pretrained | None) -> None:
    """Raises `BadInput` if `start` does not fit `shape`, an encoder is to stand still that nobody has trained, a gaze
    is to learn where no picture lies aside, a prior is to hurry where nothing says how many steps are left, or heads
    are to count that are trained last."""
    check_haste(shape, config)
    if config.head_weight:
        expected, do = "heads that are trained, and here they come last", "polish the finished checkpoint with it"
        raise BadInput("training: head_weight is not read by a training from scratch", expected=expected, do=do)
    name = EncoderName.parse(shape.encoder)
    if start:
        start.check(shape)
    elif config.freeze and shape.encoder in BUILT_IN:
        do = "give --encoder, from `jepa-mpc pretrain` or a checkpoint"
        raise BadInput("training: freeze would leave the encoder untrained", expected="a pretrained one", do=do)
    if name.joined and not config.freeze:
        do = "give --encoder and --training.freeze, or train a bare encoder, teach it looks and join the two"
        raise BadInput("training: a joined encoder stands still", expected="freeze", got=shape.encoder, do=do)
    if not config.freeze:
        _check_gaze(name, config)


def _check_gaze(name: EncoderName, config: TrainConfig) -> None:
    """Raises `BadInput` where an encoder has a gaze to learn and no picture lies aside."""
    if name.gaze and not (config.augment and config.shift):
        got = f"augment {config.augment:g}" + (", shift" if config.shift else ", no shift")
        do = "give --training.augment and --training.shift, or an encoder without a gaze"
        raise BadInput("training: nothing to learn a gaze from", expected="shifted pictures", got=got, do=do)


def _polished(
    model: JEPA, store: EpisodeStore, config: TrainConfig, views: Sequence[Symmetry], out: Path, tensorboard: bool
) -> bool:
    """The stage of the predictor alone, where there is to be one; False if it was interrupted."""
    if not config.polish_steps:
        return True
    second = replace(config, steps=config.polish_steps, horizon=config.polish_horizon, batch=config.polish_batch)
    drawn = partial(draws_of, model, store, second, views, cached=True)
    return run_stage(PredictorTraining(model, second, store.info), second, out / "polish", tensorboard, drawn)


def check_shape(shape: JEPAConfig, config: TrainConfig, spec: ActionSpec, steps: int) -> None:
    """Raises `BadInput` for what no episodes of `steps` environment steps with such actions could train.

    To be asked before minutes of collecting: that the parts of the model fit each other, that the robot can move as
    many directions as its body is to have, and that no stage looks further ahead than an episode goes.
    """
    check_growing(JEPA(shape, spec), config)
    _check_ahead(shape, config, spec, steps)


def _check_ahead(shape: JEPAConfig, config: TrainConfig, spec: ActionSpec, steps: int) -> None:
    """Raises `BadInput` for too large a body, or if any stage, and not the first alone, finds episodes too short."""
    check_body(shape.body, spec.env_dim)
    ahead = {
        "training.horizon": config.horizon,
        "training.polish_horizon": config.polish_horizon if config.polish_steps else 0,
        "model.prior_horizon": shape.prior_horizon if shape.prior else 0,
    }
    name, horizon = max(ahead.items(), key=lambda one: one[1])
    if (needed := (shape.history - 1 + horizon) * spec.block) > steps:
        most = steps // spec.block - shape.history + 1
        expected, got = f"{name} at most {most} in episodes of {steps} steps", str(horizon)
        if most < 1:  # whatever it is set to
            expected, got = f"at least {needed} steps for {name} {horizon}", str(steps)
        raise BadInput("training looks further than the episodes go", expected=expected, got=got)


def _freeze(encoder: nn.Module, store: EpisodeStore, config: TrainConfig, *, pretrained: bool) -> None:
    """Makes an encoder stand still; somebody else's features get the statistics of their normalisation first."""
    if not pretrained:
        if not isinstance(encoder, FeatureEncoder):
            got = type(encoder).__name__
            raise BadInput("training: freeze wants latents of variance 1", expected="a FeatureEncoder", got=got)
        settle(encoder, some_pictures(store, config))
    encoder.requires_grad_(False)
