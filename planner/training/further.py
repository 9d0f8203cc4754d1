"""What a finished model is taught further: its predictor, an action prior, slow features, steps left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
from torch import Tensor

from ..data import EpisodeStore, Mixture
from ..errors import BadInput
from ..models.jepa import JEPA, JEPAConfig
from ..models.prior import ActionPrior
from ..models.slow import SlowFeatures
from ..models.temporal import TemporalDistance
from ..settings import TrainConfig
from ..symmetry import Symmetry
from .batches import draws_of, episodes_of, fitting, views_of
from .jepa import PredictorTraining, check_growing, check_heads
from .prior import Hindsight, PriorTraining
from .run import run_stage, same_run
from .slow import Neighbours, SlowTraining
from .temporal import DistanceTraining, Ways


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
    check_haste(shape, config)
    views = views_of(config, symmetries)
    run = fitting(stores, model, weights, views)
    if len(lengths := sorted({store.info.steps for store in stores})) > 1:
        got = " and ".join(map(str, lengths))
        raise BadInput(f"{part}: episodes of different lengths", expected="as many steps in every dataset", got=got)
    same_run(out, run | {"model": asdict(shape), "training": asdict(config)}, part)
    lightning.seed_everything(config.seed, verbose=False)
    grown = model.renewed(part, shape).train().requires_grad_(False)
    learner, train_it = grown.get_submodule(part).requires_grad_(True), TRAINERS[part]
    return grown.eval() if train_it(grown, learner, stores, config, views, out, tensorboard) else None


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
        fit, check = episodes_of(model, stores, views, config.held_out)
        return drawn(*fit), drawn(*check)

    return run_stage(PriorTraining(prior, settings, model.action), settings, out / "prior", tensorboard, draws)


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
        fit, check = episodes_of(model, stores, views, config.held_out)
        return drawn(fit[0]), drawn(check[0])

    return run_stage(training, config, out / part, tensorboard, draws)


def check_haste(shape: JEPAConfig, config: TrainConfig) -> None:
    """Refuses, with `BadInput`, a prior that is to hurry in a model that does not know how many steps are left."""
    if config.prior_haste and shape.prior and not shape.temporal:
        expected = "a model that knows how many steps are left (model.temporal above 0, or `jepa-mpc temporal`)"
        raise BadInput("training: prior_haste asks for steps left", expected=expected, do="set prior_haste to 0")


TRAINERS: dict[str, Callable[..., bool]] = {"prior": train_prior, "slow": _train_slow, "temporal": _train_temporal}


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
        config: `steps`, `batch`, `horizon`, `decay`, `lengths`, `head_weight`, `learning_rate`, `weight_decay`,
            `cold_starts`, `growing`, `moving`, `symmetric`, `held_out`, `seed` and `save_every` are read.
        out: folder for the state to resume from and the logs.
        encoder: SHA-256 of the weights started from, so that a run is not resumed on others.
        tensorboard: also log for TensorBoard.
        symmetries: the task's, seen where `config.symmetric` says so.

    Returns:
        The model, or None if it was interrupted (run again to go on).

    Raises:
        BadInput: if `out` holds another run, datasets and model do not fit, two datasets share episodes or one has too
            few, symmetries are asked for and there are none, windows are to grow for a predictor that sees whole
            histories alone, heads are to count and there are none, or the loss is no longer finite.
    """
    check_growing(model, config)
    check_heads(model, config)
    views = views_of(config, symmetries)
    run = fitting(stores, model, encoder, views)
    same_run(out, run | {"model": asdict(model.config), "training": asdict(config)})
    lightning.seed_everything(config.seed, verbose=False)

    def draws() -> tuple[Mixture, Mixture]:
        parts = [draws_of(model, store, config, views, cached=True, share=len(stores)) for store in stores]
        fits = [windows for fit, _ in parts for windows in fit.parts]
        return Mixture(fits), Mixture([check for _, check in parts])

    model.train().requires_grad_(False).predictor.requires_grad_(True)
    done = run_stage(PredictorTraining(model, config, stores[0].info), config, out, tensorboard, draws)
    return model.eval() if done else None
