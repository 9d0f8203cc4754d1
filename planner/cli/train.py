"""`jepa-mpc train` and `pretrain`: from play to a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput, TooFewPairs
from ..models.jepa import JEPAConfig
from ..recipes import PRETRAIN, planner_for, recipe_for
from ..settings import TrainConfig
from ..tasks import folder_name, is_recorded, load_envs
from .data import Collect, collect_for
from .shared import (
    Task,
    actions_of,
    check_task,
    console,
    cores,
    finished,
    stopped,
    symmetries_of,
    typed,
    warn_of_renderer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..data import EpisodeStore
    from ..models.jepa import JEPA
    from ..settings import PlannerConfig


@dataclass(frozen=True)
class Train:
    """Train a JEPA on a task's play episodes (collected first if need be); run it again to go on where it stopped."""

    task: Task
    data: Path | None = None
    """Dataset; data/TASK by default."""
    out: Path | None = None
    """Folder for logs and the state to resume from; runs/train/TASK by default."""
    checkpoint: Path | None = None
    """Folder of the finished checkpoint; OUT/checkpoint by default."""
    encoder: Path | None = None
    """Encoder to start from: a folder that `pretrain` wrote, or a checkpoint; --training.freeze leaves it as it is."""
    tensorboard: bool = False
    """Also write logs for TensorBoard."""
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""
    model: JEPAConfig = field(default_factory=JEPAConfig)
    """Shape of the JEPA."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""
    probe: int = 20
    """Held-out goals that the planner tries at every check; 0 leaves that out."""

    def run(self) -> None:
        import torch

        from .. import cards, checkpoint, pretrained, training
        from ..evaluate import learning_curves

        check_task(self.task)
        for name, least in (("threads", 1), ("probe", 0)):
            if (value := getattr(self, name)) < least:
                raise BadInput(f"train: {name} is off", expected=f"at least {least}", got=str(value))
        torch.set_num_threads(self.threads)
        start = pretrained.load(self.encoder) if self.encoder else None
        training.check_start(self.model, self.training, start)  # before minutes of collecting
        training.views_of(self.training, symmetries_of(self.task))
        out = self.out or Path("runs/train") / folder_name(self.task)
        self._check_checkpoint(out)
        there = self.data is not None or (_own_data(self.task) / "dataset.json").exists()
        if not there and (spec := actions_of(self.task)):
            training.check_shape(self.model, self.training, spec, recipe_for(self.task).steps)
        store = _play(self.task, self.data, self.model.image_size)
        if start and self.training.freeze:
            warn_of_renderer(store.info.renderer, start.renderer)
        planner = planner_for(self.task, self.model, store.info.block)
        success = _probe(self.task, store.info.size, planner, self.probe) if self.probe else None
        model = training.train(
            store,
            self.model,
            self.training,
            out,
            tensorboard=self.tensorboard,
            success=success,
            start=start,
            symmetries=symmetries_of(self.task),
        )
        if drawn := learning_curves.draw(out):
            console.print(f"{drawn}: how it went")
        if model is None:
            stopped(out / "last.ckpt")
        folder = self.checkpoint or out / "checkpoint"
        card = cards.card(store, self.model, self.training, out, typed(), start)
        if model.config.prior:
            warn_by_heart(out)
        checkpoint.save(folder, model, task=self.task, renderer=store.info.renderer, planner=planner, card=card)
        finished("trained", self.task, folder)

    def _check_checkpoint(self, out: Path) -> None:
        """Raises `BadInput` where what is to become the finished checkpoint is one that another run wrote."""
        if self.checkpoint and (self.checkpoint / "config.json").exists() and not (out / "train.json").exists():
            do = "name another folder; what goes on from a checkpoint is `polish`, `looks` and others"
            raise BadInput(f"train: --checkpoint {self.checkpoint} would be overwritten", do=do)


def _probe(task: str, size: int, planner: PlannerConfig, goals: int) -> Callable[[JEPA], float] | None:
    """Success while training, None where nothing can be tried; `BadInput` where the task's play gets nowhere within the
    steps that goals lie ahead."""
    from ..evaluate.probe import success_probe

    if is_recorded(task):
        console.print(f"{task} has no simulator: no goals are tried at the checks")
        return None
    try:
        return success_probe(load_envs(), task, size, planner, goals)
    except TooFewPairs as error:  # whose advice is a --distance, which `train` has not
        found, do = str(error).partition("; ")[0], "give --probe 0, and evaluate with a larger --distance"
        raise BadInput("train: no goals to try at every check", got=found, do=do) from error


def _own_data(task: str) -> Path:
    """Where the task's own dataset is, or is collected to."""
    return Path("data") / folder_name(task)


def _play(task: str, given: Path | None, size: int) -> EpisodeStore:
    """The dataset to train on; the task's own is collected if it is not there, with pictures of `size` pixels."""
    from ..data import EpisodeStore

    data = given or _own_data(task)
    # A dataset that was named has to be there: a mistyped path shall not fill a disk.
    own = given is None and not is_recorded(task)
    if own and not (data / "dataset.json").exists():
        store = collect_for(Collect(task, size=size))
    else:
        store = EpisodeStore.open(data)
        if own and store.missing():  # it was interrupted, by whatever began it
            info = store.info
            store = collect_for(Collect(task, episodes=info.episodes, steps=info.steps, size=info.size, seed=info.seed))
    store.verify(task)
    if (spec := actions_of(task)) not in (None, store.info.action_spec):
        got, do = str(store.info.action_spec), "collect it anew, elsewhere or after removing this one"
        raise BadInput(f"dataset {data} and task differ in their actions", expected=str(spec), got=got, do=do)
    return store


@dataclass(frozen=True)
class Pretrain:
    """Train an encoder on a task's pictures alone, from masked ones to whole ones, for `train --encoder`."""

    task: Task
    data: Path | None = None
    """Dataset; data/TASK by default."""
    out: Path | None = None
    """Folder for logs and the state to resume from; runs/pretrain/TASK by default."""
    save: Path | None = None
    """Folder of the finished encoder; OUT/encoder by default."""
    tensorboard: bool = False
    """Also write logs for TensorBoard."""
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""
    model: JEPAConfig = field(default_factory=JEPAConfig)
    """Shape of the JEPA that the encoder is for; what is not the encoder's is not read."""
    training: TrainConfig = field(default_factory=lambda: PRETRAIN)
    """How it is trained; what only the other parts need is not read."""

    def run(self) -> None:
        import torch

        from .. import cards, pretrained, training

        check_task(self.task)
        if self.threads < 1:
            raise BadInput("pretrain: threads is off", expected="at least 1", got=str(self.threads))
        torch.set_num_threads(self.threads)
        out = self.out or Path("runs/pretrain") / folder_name(self.task)
        if spec := actions_of(self.task):
            training.check_pretrain(self.model, self.training, spec)  # before minutes of collecting
        store = _play(self.task, self.data, self.model.image_size)
        encoder = training.pretrain(store, self.model, self.training, out, tensorboard=self.tensorboard)
        if encoder is None:
            stopped(out / "last.ckpt")
        folder, story = self.save or out / "encoder", cards.pretrained_story(store, self.training)
        card = cards.pretrained_card(store, self.model, story, out, typed())
        pretrained.save(folder, encoder, self.model, story=story, card=card, renderer=store.info.renderer)
        console.print(f"{folder}: pretrained; try `jepa-mpc train {self.task} --encoder {folder} --training.freeze`")


def warn_by_heart(out: Path) -> None:
    """Says so where the action prior trained in `out` learned plans by heart."""
    from .. import cards

    if found := cards.by_heart(out):
        do = "give fewer --training.prior-steps, or more episodes"
        console.print(f"warning: the action prior learned plans by heart: {found}; {do}", highlight=False)
