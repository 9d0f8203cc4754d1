"""How every stage runs: on a stream of batches, with checks, logs and a state to resume from, and the same run only."""

from __future__ import annotations

import importlib.util
import json
import logging
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tensordict import TensorDict
from torch.utils.data import DataLoader, IterableDataset

from ..data import write_atomically
from ..errors import BadInput
from ..models.jepa import JEPAConfig
from ..settings import TrainConfig
from ..versions import commit


def run_stage(
    training: lightning.LightningModule,
    config: TrainConfig,
    out: Path,
    tensorboard: bool,
    draws: Callable[[], tuple[Any, Any]],
) -> bool:
    """One stage, on the batches of `draws`; resumes from `out/last.ckpt`. False if it was interrupted.

    Also where that came after the last update: what is finished is saved, and not trained again.

    Raises:
        BadInput: if `out/last.ckpt` is damaged.
        KeyboardInterrupt: if whoever had asked to stop did not wait for the update in hand.
    """
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
    if not last.exists():
        begin_anew(out)
    with _interruptions_are_told():
        trainer.fit(
            training, _loader(_Stream(windows, training)), _loader(checks), ckpt_path=last if last.exists() else None
        )
    if trainer.global_step >= config.steps and config.steps % config.save_every:
        # What was saved on the way leaves the last updates out, or all of a short run.
        trainer.save_checkpoint(last)
    return not stop.asked


def begin_anew(out: Path) -> None:
    """Leaves a stage in `out` nothing to resume from; what was logged there has another name since."""
    (out / "last.ckpt").unlink(missing_ok=True)
    for log in (out / "logs").glob("**/metrics.csv"):  # of a run that is gone: its checks would count as this one's
        log.replace(log.with_name("metrics-before.csv"))


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


@contextmanager
def _interruptions_are_told() -> Iterator[None]:
    """Lightning leaves the process where it is interrupted, with code 1 or, at SIGTERM, as if all had gone well."""
    try:
        yield
    except SystemExit as left:
        if isinstance(left, SIGTERMException) or isinstance(left.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _trainer(out: Path, config: TrainConfig, stop: Callback, tensorboard: bool) -> lightning.Trainer:
    """Lightning's loop without its advertisements; one epoch is the whole run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message="(?s).*(Checkpoint directory|LeafSpec|num_workers|logging interval|resum)"
    )
    between = config.steps // 4 if config.steps >= 20 else config.steps  # a run of few steps is checked once
    return lightning.Trainer(
        max_steps=config.steps,
        limit_train_batches=config.steps,
        accelerator="cpu",  # whatever else is there: the checks' pictures, probes and planner are on the processor
        devices=1,
        logger=_loggers(out, tensorboard),
        callbacks=[_saver(out, config), stop, RichProgressBar(leave=True)],
        val_check_interval=min(500, between),
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


@contextmanager
def modes_are_meant() -> Iterator[None]:
    """Without Lightning's warning of modules in evaluation mode."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*in eval mode")
        yield


def same_run(out: Path, run: dict[str, Any], part: str = "") -> None:
    """Notes the run's configuration in `train.json`, or refuses to go on with another one's weights.

    A part of a model has a note of its own, beside its weights in `out/part`. One that was begun when all that was
    learned in `out` had a single note is known by that.

    Raises:
        BadInput: if there are weights of another configuration, or the note of them is damaged.
    """
    folder = out / part
    folder.mkdir(parents=True, exist_ok=True)
    file, state = folder / "train.json", folder / "last.ckpt"
    note = file if file.exists() else out / "train.json"
    if note.exists() and state.exists() and (found := _noted(note, state, run)) != run:
        differs = [
            f"{kind}.{key}"
            for kind in ("model", "training")
            for key in run[kind]
            if found[kind].get(key) != run[kind][key]
        ]
        others = [key for key in found | run if found.get(key) != run.get(key)]
        told = {"symmetries": "other symmetries of the task than it lists now"}
        raise BadInput(
            f"{folder} holds a run of another configuration",
            got=", ".join(differs or [told.get(key, f"{key} {found.get(key)}") for key in others]),
            do="give the same options, another --out, or remove it",
        )
    write_atomically(file, json.dumps(run, indent=1))


def _noted(note: Path, state: Path, run: dict[str, Any]) -> dict[str, Any]:
    """What a note says of the weights in `state`, with the defaults of what it does not say."""
    try:
        return _completed(json.loads(note.read_text()), run)
    except (ValueError, KeyError, TypeError) as error:
        do = f"remove it and {state} to start again"  # weights alone would be taken for those of any run
        raise BadInput(f"{note} is damaged", expected="a run's configuration", do=do) from error


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
