"""The command `jepa-mpc`, made from dataclasses. Bad input is one line and exit code 2."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from errno import EACCES, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import tyro
from rich.console import Console

from .errors import BadInput, check_seed
from .models.encoders import FeatureEncoder, JoinedEncoder
from .models.jepa import JEPAConfig
from .recipes import LOOKS, POLISH, PRETRAIN, RECIPES, known_metric, planner_for, recipe_for
from .settings import PlannerConfig, TrainConfig
from .tasks import folder_name, load_envs

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .collect import Pursuit
    from .data import EpisodeStore
    from .evaluate.run import Outcome, Progress
    from .models.jepa import JEPA
    from .symmetry import Symmetry

console = Console()
UNUSABLE = {EACCES, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS}
"""What is wrong with a path that somebody gave, and not with us."""
_TASKS = "TwoRoom, PointMaze, Reacher, PushT, Cube; another's, as ogbench/cube-single; or your own, as module:Class."
Task = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=_TASKS)]


def _check_task(task: str) -> None:
    load_envs().check_task(task)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Check:
    """Hold a task to what collecting, planning and evaluating rely on: the first command for one of your own."""

    task: Task
    size: int = 64
    """Height and width of the pictures, pixels."""
    seed: int = 0
    """Of the states and actions that are tried."""
    out: Path = Path("runs/check")
    """Folder for play.png: some frames of play, and the picture of a goal."""

    def run(self) -> None:
        check_seed("check", self.seed)
        envs = load_envs()
        with envs.make(self.task, self.size) as env:
            try:
                envs.check_goal_env(env, self.seed)
            except (AssertionError, BadInput) as error:
                raise BadInput(f"task {self.task} breaks the contract of envs.GoalEnv: {error}") from None
            _film_play(self.out / "play.png", env, self.seed)
            spec, state = env.action_spec(), zip(env.state_names, env.state_units, strict=True)
        bounds = zip(spec.low, spec.high, spec.units, strict=True)
        console.print(f"{self.task} keeps the contract, drawn by {envs.choose_backend()}", highlight=False)
        told = {"state": ", ".join(f"{name} ({unit})" for name, unit in state)}
        told["action"] = ", ".join(f"{low:g} to {high:g} {unit}" for low, high, unit in bounds)
        for name, words in (told | {"picture": str(self.out / "play.png")}).items():
            console.print(f"{name:8}{words}", highlight=False, soft_wrap=True)


def _film_play(path: Path, env: Any, seed: int, steps: int = 48) -> None:
    """Writes a strip of what data of the task will look like."""
    import numpy as np

    from .collect import play_episode
    from .evaluate.video import Clip, film_strip

    rng = np.random.default_rng(seed)
    states, _ = play_episode(env, steps, rng)
    frames = np.stack([env.picture(state) for state in states])
    path.parent.mkdir(parents=True, exist_ok=True)
    film_strip(path, Clip(frames, env.picture(env.sample_state(rng)), "play", None), every=8)


@dataclass(frozen=True)
class Collect:
    """Record play episodes of a task; run it again to finish what was interrupted."""

    task: Task
    out: Path | None = None
    """Folder of the dataset; data/TASK by default."""
    episodes: int | None = None
    """Episodes; by default as many as the task's recipe has."""
    steps: int | None = None
    """Environment steps an episode; by default as many as the task's recipe has."""
    size: int = 64
    """Height and width of the pictures, pixels."""
    seed: int = 0
    """Episode k is made from (seed, k)."""
    checkpoint: Path | None = None
    """Let this checkpoint's planner act, and not play; needs --out."""
    goal_distance: tuple[int, int] = (15, 30)
    """Steps of play that lie between such a planner and each of its goals, at least and at most."""
    goal_time: int = 50
    """Environment steps that it has for each."""
    replan: int = 0
    """Environment steps of each of its plans that it does before the next; 0 leaves it to the checkpoint's settings."""
    relief: int = 0
    """Last steps of --goal-time in which the task's own policy goes on in its place (`GoalEnv.relieve`), and shows the
    way out of where it is stuck; that policy then sets the goals, too."""
    workers: int = field(default_factory=_cores)
    """Processes; one a core by default."""

    def run(self) -> None:
        _check_task(self.task)
        for name in ("episodes", "steps", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BadInput(f"collect: {name} is off", expected="at least 1", got=str(value))
        check_seed("collect", self.seed)
        if self.checkpoint and not self.out:
            raise BadInput("collect: a planner's episodes need a folder of their own", do="give --out")
        if not self.checkpoint and self.pursuit() != Collect(self.task).pursuit():
            do = "give --checkpoint, or none of --goal-distance, --goal-time, --replan and --relief"
            raise BadInput("collect: play pursues no goals", do=do)
        store = _collect(self)
        store.verify()
        frames = store.info.episodes * (store.info.steps + 1)
        console.print(f"{store.path}: {store.info.episodes} episodes, {frames} frames, renderer {store.info.renderer}")

    def pursuit(self) -> Pursuit:
        """What a planner that acts is asked for."""
        from .collect import Pursuit

        return Pursuit(*self.goal_distance, self.goal_time, self.replan, self.relief)


def _collect(options: Collect) -> EpisodeStore:
    from .collect import collect

    path = options.out or Path("data") / folder_name(options.task)
    recipe = recipe_for(options.task)
    with _bar(f"collecting {options.task}") as advance:
        return collect(
            options.task,
            path,
            episodes=options.episodes or recipe.episodes,
            steps=options.steps or recipe.steps,
            size=options.size,
            seed=options.seed,
            workers=options.workers,
            checkpoint=options.checkpoint,
            pursuit=options.pursuit(),
            progress=advance,
        )


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
    threads: int = field(default_factory=_cores)
    """CPU threads; one a core by default."""
    model: JEPAConfig = field(default_factory=JEPAConfig)
    """Shape of the JEPA."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""
    probe: int = 20
    """Held-out goals that the planner tries at every check; 0 leaves that out."""

    def run(self) -> None:
        import torch

        from . import cards, checkpoint, pretrained, training
        from .evaluate.probe import success_probe

        _check_task(self.task)
        for name, least in (("threads", 1), ("probe", 0)):
            if (value := getattr(self, name)) < least:
                raise BadInput(f"train: {name} is off", expected=f"at least {least}", got=str(value))
        torch.set_num_threads(self.threads)
        start = pretrained.load(self.encoder) if self.encoder else None
        training.check_start(self.model, self.training, start)  # before minutes of collecting
        training.views_of(self.training, _symmetries(self.task))
        store = _play(self.task, self.data)
        out = self.out or Path("runs/train") / folder_name(self.task)
        planner, success = planner_for(self.task, self.model, store.info.block), None
        if self.probe:
            success = success_probe(load_envs(), self.task, store.info.size, planner, self.probe)
        model = training.train(
            store,
            self.model,
            self.training,
            out,
            tensorboard=self.tensorboard,
            success=success,
            start=start,
            symmetries=_symmetries(self.task),
        )
        if model is None:
            _stopped(out / "last.ckpt")
        folder = self.checkpoint or out / "checkpoint"
        card = cards.card(store, self.model, self.training, out, _typed(), start)
        _warn_by_heart(out)
        checkpoint.save(folder, model, task=self.task, renderer=store.info.renderer, planner=planner, card=card)
        console.print(f"{folder}: trained; try `jepa-mpc evaluate {self.task} --checkpoint {folder}`")


def _play(task: str, given: Path | None) -> EpisodeStore:
    """The dataset to train on; the task's own is collected if it is not there."""
    from .data import EpisodeStore

    data = given or Path("data") / folder_name(task)
    # A dataset that was named has to be there: a mistyped path shall not fill a disk.
    missing = given is None and not (data / "dataset.json").exists()
    store = _collect(Collect(task)) if missing else EpisodeStore.open(data)
    store.verify(task)
    if (spec := load_envs().task_class(task).action_spec()) != store.info.action_spec:
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
    threads: int = field(default_factory=_cores)
    """CPU threads; one a core by default."""
    model: JEPAConfig = field(default_factory=JEPAConfig)
    """Shape of the JEPA that the encoder is for; what is not the encoder's is not read."""
    training: TrainConfig = field(default_factory=lambda: PRETRAIN)
    """How it is trained; what only the other parts need is not read."""

    def run(self) -> None:
        import torch

        from . import cards, pretrained, training

        _check_task(self.task)
        if self.threads < 1:
            raise BadInput("pretrain: threads is off", expected="at least 1", got=str(self.threads))
        torch.set_num_threads(self.threads)
        store, out = _play(self.task, self.data), self.out or Path("runs/pretrain") / folder_name(self.task)
        encoder = training.pretrain(store, self.model, self.training, out, tensorboard=self.tensorboard)
        if encoder is None:
            _stopped(out / "last.ckpt")
        folder, story = self.save or out / "encoder", cards.pretrained_story(store, self.training)
        card = cards.pretrained_card(store, self.model, story, out, _typed())
        pretrained.save(folder, encoder, self.model, story=story, card=card)
        console.print(f"{folder}: pretrained; try `jepa-mpc train {self.task} --encoder {folder} --training.freeze`")


def _symmetries(task: str) -> tuple[Symmetry, ...]:
    """Those that the task lists."""
    symmetries: tuple[Symmetry, ...] = load_envs().task_class(task).symmetries
    return symmetries


def _typed() -> str:
    """The command as it was typed, for cards."""
    return f"jepa-mpc {shlex.join(sys.argv[1:])}"


def _stopped(state: Path) -> NoReturn:
    """Ends the command after an interruption."""
    console.print(f"stopped after a whole step; the same command goes on from {state}")
    raise SystemExit(130)


def _keep(folder: Path, options: Polish | _Part | Looks | Join, loaded: Checkpoint, model: JEPA, told: str) -> None:
    """Writes a checkpoint that was trained further; its card says `told` after what it said before."""
    from . import checkpoint

    card = f"{checkpoint.card_of(checkpoint.find(options.task, options.checkpoint))}\n\n{told}"
    checkpoint.save(folder, model, task=options.task, renderer=loaded.renderer, planner=loaded.planner, card=card)


@dataclass(frozen=True)
class Polish:
    """Train the predictor of a checkpoint further, or a new one, on one or more datasets; the encoder stays."""

    task: Task
    data: tuple[Path, ...] = ()
    """Datasets, in equal shares; data/TASK by default."""
    checkpoint: Path | None = None
    """Checkpoint to start from; checkpoints/TASK by default."""
    save: Path | None = None
    """Folder of the finished checkpoint; OUT/checkpoint by default. May be the one started from."""
    out: Path | None = None
    """Folder for logs and the state to resume from; runs/polish/TASK by default."""
    predictor: str = ""
    """A new predictor of this kind in place of the checkpoint's: mlp, gated or transformer."""
    hidden: int = 0
    """Width of the new predictor; as wide as the checkpoint's by default."""
    depth: int = 0
    """Hidden layers or blocks of the new predictor; as many as the checkpoint's by default."""
    heads: int = 0
    """Attention heads of a new transformer."""
    tensorboard: bool = False
    """Also write logs for TensorBoard."""
    threads: int = field(default_factory=_cores)
    """CPU threads; one a core by default."""
    training: TrainConfig = field(default_factory=lambda: POLISH)
    """How it is trained; what only the encoder needs is not read."""

    def run(self) -> None:
        from . import cards, training

        loaded, stores, out = _ready(self)
        start, model = loaded.sha256, self._model(loaded.model)
        done = training.polish(
            model,
            stores,
            self.training,
            out,
            encoder=start,
            tensorboard=self.tensorboard,
            symmetries=_symmetries(self.task),
        )
        if done is None:
            _stopped(out / "last.ckpt")
        folder = self.save or out / "checkpoint"
        new = done.config if self.predictor else None
        _keep(folder, self, loaded, done, cards.polish_card(stores, self.training, out, start, _typed(), new))
        console.print(f"{folder}: polished; try `jepa-mpc evaluate {self.task} --checkpoint {folder}`")

    def _model(self, model: JEPA) -> JEPA:
        """The checkpoint's model, with the new predictor that was asked for."""
        import torch

        if self.predictor:
            torch.manual_seed(self.training.seed)
            hidden, depth = self.hidden or model.config.hidden, self.depth or model.config.depth
            shape = replace(model.config, predictor=self.predictor, hidden=hidden, depth=depth, heads=self.heads)
            return model.renewed("predictor", shape)
        if given := [f"--{name}" for name in ("hidden", "depth", "heads") if getattr(self, name)]:
            raise BadInput(
                f"polish: {' and '.join(given)} without a new predictor",
                expected="--predictor mlp, gated or transformer",
                got="the checkpoint's own",
                do="name the kind of the new predictor, or leave the size out",
            )
        return model


def _ready(options: Polish | _Part | Looks | Join, *sizes: str) -> tuple[Checkpoint, list[EpisodeStore], Path]:
    """What a command that trains a part of a checkpoint starts from, its datasets, and its folder to resume in.

    Its threads, and the options named by `sizes`, have to be at least 1.
    """
    import torch

    from .data import EpisodeStore

    _check_task(options.task)
    command = type(options).__name__.lower()
    for name in ("threads", *sizes):
        if (value := getattr(options, name)) < 1:
            raise BadInput(f"{command}: {name} is off", expected="at least 1", got=str(value))
    torch.set_num_threads(options.threads)
    loaded = _load(options.task, options.checkpoint)
    given = (options.data,) if isinstance(options.data, Path) else options.data
    stores = [EpisodeStore.open(path) for path in given or (Path("data") / folder_name(options.task),)]
    for store in stores:
        store.verify(options.task)
    return loaded, stores, getattr(options, "out", None) or Path("runs") / command / folder_name(options.task)


def _check_renderer(command: str, store: EpisodeStore, loaded: Checkpoint) -> None:
    """Raises `BadInput` if a dataset's pictures are not of the kind that a checkpoint's encoder has seen."""
    if store.info.renderer != loaded.renderer:
        do = f"collect it again with JEPA_MPC_RENDERER={loaded.renderer}"
        what = f"{command}: the pictures are another renderer's"
        raise BadInput(what, expected=loaded.renderer, got=store.info.renderer, do=do)


def _warn_by_heart(out: Path) -> None:
    """Says so where the action prior trained in `out` learned plans by heart."""
    from . import cards

    if found := cards.by_heart(out):
        do = "give fewer --training.prior-steps, or more episodes"
        console.print(f"warning: the action prior learned plans by heart: {found}; {do}", highlight=False)


@dataclass(frozen=True)
class _Part:
    """What the commands share that give a finished checkpoint another part; all else of it stays as it is."""

    task: Task
    data: tuple[Path, ...] = ()
    """Datasets, of which every episode counts alike; data/TASK by default."""
    checkpoint: Path | None = None
    """Checkpoint to start from; checkpoints/TASK by default."""
    save: Path | None = None
    """Folder of the finished checkpoint; OUT/checkpoint by default. May be the one started from."""
    out: Path | None = None
    """Folder for logs and the state to resume from; runs/COMMAND/TASK by default."""
    tensorboard: bool = False
    """Also write logs for TensorBoard."""
    threads: int = field(default_factory=_cores)
    """CPU threads; one a core by default."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained; what only the other parts need is not read."""

    def _learn(self, loaded: Checkpoint, shape: JEPAConfig, stores: list[EpisodeStore], out: Path) -> JEPA:
        """The checkpoint's model with the part that the command is named after, of this shape."""
        from . import training

        part = type(self).__name__.lower()
        done = training.add_part(
            loaded.model,
            part,  # type: ignore[arg-type]  # a subclass has the name of its part
            shape,
            stores,
            self.training,
            out,
            weights=loaded.sha256,
            tensorboard=self.tensorboard,
            symmetries=_symmetries(self.task),
        )
        return done if done is not None else _stopped(out / part / "last.ckpt")

    def _save(self, loaded: Checkpoint, planner: PlannerConfig, model: JEPA, out: Path, card: str, does: str) -> None:
        """Writes the checkpoint, planned with as `planner` says, and says what it `does` now."""
        folder = self.save or out / "checkpoint"
        _keep(folder, self, replace(loaded, planner=planner), model, card)
        console.print(f"{folder}: {does}; try `jepa-mpc evaluate {self.task} --checkpoint {folder}`")


@dataclass(frozen=True)
class Prior(_Part):
    """Give a checkpoint an action prior: plans as play would do them, for the planner's search to start from."""

    width: int = 384
    """Width of its layers."""
    horizon: int = 6
    """Model steps of the plans that it proposes."""
    past: bool = False
    """Whether it sees what was done between the frames of its history, too."""
    proposals: int = 32
    """Plans that it adds to the planner's first candidates."""

    def run(self) -> None:
        from . import cards

        loaded, stores, out = _ready(self, "width", "horizon", "proposals")
        was = loaded.model.config
        shape = replace(was, prior=self.width, prior_horizon=self.horizon, prior_past=self.past)
        if was.prior and was.prior_past and not self.past:
            console.print("warning: the prior before saw what was done, too; give --past", highlight=False)
        done = self._learn(loaded, shape, stores, out)
        card = cards.prior_card(stores, shape, self.training, out, _typed())
        _warn_by_heart(out)
        planner = replace(loaded.planner, proposals=self.proposals)
        self._save(loaded, planner, done, out, card, "knows what play would do")


@dataclass(frozen=True)
class Temporal(_Part):
    """Teach a checkpoint how many steps lie between two latents; its planner then goes by steps left."""

    features: int = 64
    """Features of the head."""

    def run(self) -> None:
        from . import cards

        loaded, stores, out = _ready(self, "features")
        shape = replace(loaded.model.config, temporal=self.features)
        done = self._learn(loaded, shape, stores, out)
        card = cards.temporal_card(stores, shape, self.training, out, _typed())
        # A metric that goes by steps stays, else the recipe's does; neither reads body.
        settings = (loaded.planner, recipe_for(self.task).planner)
        known = [known_metric(planner, shape) for planner in settings if planner.by_steps]
        planner = replace(loaded.planner, metric=known[0] if known else "temporal", body=1.0)
        self._save(loaded, planner, done, out, card, "plans by steps left")


@dataclass(frozen=True)
class Slow(_Part):
    """Teach a checkpoint what the robot does not move by itself; where the robot ends then counts in steps alone."""

    features: int = 8
    """Features of the head; more than there is to know of what lies still are the robot's."""

    def run(self) -> None:
        from . import cards

        loaded, stores, out = _ready(self, "features")
        if loaded.model.temporal is None:
            got, do = "a checkpoint without one", "give it one with `jepa-mpc temporal`, and start from what that saves"
            raise BadInput("slow: its planner goes by steps left too", expected="a temporal distance", got=got, do=do)
        shape = replace(loaded.model.config, slow=self.features)
        done = self._learn(loaded, shape, stores, out)
        card = cards.slow_card(stores, shape, self.training, out, _typed())
        if not cards.lies_still(out):
            console.print("warning: nothing lies still for long, so that these features are the robot's own")
        planner = replace(loaded.planner, metric="temporal+slow", body=1.0)
        self._save(loaded, planner, done, out, card, "goes by what the robot moves")


@dataclass(frozen=True)
class Looks:
    """Teach a checkpoint's encoder to see through changes of appearance; its latents keep their meaning."""

    task: Task
    data: Path | None = None
    """Dataset; data/TASK by default."""
    checkpoint: Path | None = None
    """Checkpoint to start from; checkpoints/TASK by default."""
    teacher: Path | None = None
    """Checkpoint whose latents are taught; the one to start from by default. For one that goes on being taught, give
    what it was taught first: by itself it would be off by a little more each time."""
    save: Path | None = None
    """Folder of the finished checkpoint; OUT/checkpoint by default. May be the one started from."""
    out: Path | None = None
    """Folder for logs and the state to resume from; runs/looks/TASK by default."""
    retina: bool = True
    """Put a retina before the encoder, which adapts to the colours of each picture; one that is there is trained on.
    Of a joined encoder (`jepa-mpc join`) the taught half learns on, from the exact one."""
    gaze: bool = False
    """And behind it a gaze, which moves pictures back that lie about a pixel aside; with --training.shift."""
    surround: bool = False
    """And tell its early layers what is around each place, so that they know things of other colours from a disc."""
    tensorboard: bool = False
    """Also write logs for TensorBoard."""
    threads: int = field(default_factory=_cores)
    """CPU threads; one a core by default."""
    training: TrainConfig = field(default_factory=lambda: LOOKS)
    """How it is trained; what only the other parts need is not read."""

    def run(self) -> None:
        import torch

        from . import cards, training

        if self.surround and not self.retina:
            raise BadInput("looks: a surround stands behind a retina", expected="a retina", do="leave --no-retina out")
        if self.gaze and not (self.retina and self.training.shift):
            do = "add --training.shift, and leave --no-retina out"
            raise BadInput("looks: nothing to learn a gaze from", expected="a retina, and shifted pictures", do=do)
        loaded, (store,), out = _ready(self)
        other = _load(self.task, self.teacher) if self.teacher else None
        for one in (loaded, other):
            if one:
                _check_renderer("looks", store, one)
        torch.manual_seed(self.training.seed)  # of the retina's first weights
        wanted = self.retina and not isinstance(loaded.model.encoder, FeatureEncoder)  # which is refused below
        start, model = loaded.sha256, loaded.model
        model = model.adapted(gaze=self.gaze, surround=self.surround) if wanted else model
        done = training.learn_looks(
            model,
            store,
            self.training,
            out,
            weights=start,
            tensorboard=self.tensorboard,
            teacher=(other.model, other.sha256) if other else None,
        )
        if done is None:
            _stopped(out / "last.ckpt")
        folder = self.save or out / "checkpoint"
        apart = float(done.encoder.apart) if isinstance(done.encoder, JoinedEncoder) else None
        whose = other.sha256 if other else None
        told = cards.looks_card(store, done.config, self.training, out, start, _typed(), apart, whose)
        _keep(folder, self, loaded, done, told)
        console.print(
            f"{folder}: sees through looks; try `jepa-mpc evaluate {self.task} --checkpoint {folder} --appearance`"
        )


@dataclass(frozen=True)
class Join:
    """Let an encoder see pictures as it does, and those with another look as one that was taught looks does."""

    task: Task
    taught: Path
    """Checkpoint that `jepa-mpc looks` made of the one to start from; only its encoder is read."""
    data: Path | None = None
    """Dataset, of which held-out pictures say how far apart the two encoders may be; data/TASK by default."""
    checkpoint: Path | None = None
    """Checkpoint to start from, before it was taught looks; checkpoints/TASK by default."""
    save: Path | None = None
    """Folder of the joined checkpoint; runs/join/TASK/checkpoint by default. May be one of the two."""
    threads: int = field(default_factory=_cores)
    """CPU threads; one a core by default."""

    def run(self) -> None:
        from . import cards, training
        from . import checkpoint as checkpoints

        loaded, (store,), out = _ready(self)
        taught = _load(self.task, self.taught)
        for one in (loaded, taught):
            _check_renderer("join", store, one)
        done, found = training.join(loaded.model, taught.model, store, LOOKS)
        folder = self.save or out / "checkpoint"
        told = cards.join_card(store, found, checkpoints.card_of(self.taught), taught.sha256, _typed())
        _keep(folder, self, loaded, done, told)
        console.print(
            f"{folder}: sees through looks; try `jepa-mpc evaluate {self.task} --checkpoint {folder} --appearance`"
        )


def _try_to_write(folder: Path) -> None:
    """Makes the folder, and raises `OSError` where nothing can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


@dataclass(frozen=True)
class Evaluate:
    """Measure how often the planner reaches held-out image goals, beside the floors and the oracle."""

    task: Task
    checkpoint: Path | None = None
    """Checkpoint folder; the shipped one by default."""
    optimizer: str | None = None
    """cem, icem, mppi, sampling, gradient, chain, mixture or categorical; the checkpoint's own by default."""
    samples: int | None = None
    """Candidates an iteration; the checkpoint's own by default."""
    iterations: int | None = None
    """Rounds of the optimizer; the checkpoint's own by default."""
    horizon: int | None = None
    """Model steps to look ahead; the checkpoint's own by default."""
    execute: int | None = None
    """Model steps done of each plan before the next; the checkpoint's own by default."""
    over: str | None = None
    """Imagined steps that count: last, all or min; the checkpoint's own by default."""
    replan: int | None = None
    """Environment steps from one plan to the next; the checkpoint's own by default."""
    hold: int | None = None
    """Environment steps that each action of a plan is held; the checkpoint's own by default."""
    std: float | None = None
    """Standard deviation of the first candidates; the checkpoint's own by default."""
    metric: str | None = None
    """Of the latent distance: l2, l1, huber, cosine, temporal, temporal+l2 or temporal+slow; the checkpoint's own by
    default."""
    body: float | None = None
    """Factor in the distance on where the robot itself is, 0 to 1; the checkpoint's own by default."""
    proposals: int | None = None
    """Plans of the action prior among the first candidates; the checkpoint's own by default."""
    precision: str | None = None
    """Of rehearsals: float32 or bfloat16; the checkpoint's own by default."""
    deadline_ms: float | None = None
    """Stop each search after so many milliseconds with the best plan so far; figures then depend on the machine."""
    distance: int = 25
    """Environment steps between start and goal; the budget is twice that."""
    goals: str = "play"
    """play: as far along held-out play as --distance says; any: random states, and then it sets the budget only; own:
    the benchmark's own goals in turn, within its own limit of steps."""
    strict: bool = False
    """Count a goal as reached at half the tolerance, kept for five steps."""
    appearance: bool = False
    """Also play the same pairs under seven changes of appearance."""
    episodes: int = 100
    """Start-goal pairs."""
    seed: int = 0
    """Of the list of pairs and of all noise."""
    num_envs: int = 1
    """Environments played at once; 1 gives the honest time a plan."""
    oracle: bool = True
    """Also plan on the simulator itself (slow)."""
    imagine: bool = True
    """Show in the report what the planner imagined, and the energy around what it chose (some seconds)."""
    out: Path | None = None
    """Folder of the results; runs/evaluate/TASK by default."""
    record: bool = False
    """Write the figures into the checkpoint's card."""
    surprise: bool = False
    """Count the alarms of the checkpoint's monitor of surprise, which needs a surprise.json."""

    def run(self) -> None:
        from . import checkpoint as checkpoints
        from . import surprise
        from .evaluate.run import Protocol, card_figures, evaluate, write_results

        names = [one.name for one in fields(Protocol)]
        protocol = Protocol(**{name: getattr(self, name) for name in names})
        loaded = _load(self.task, self.checkpoint)
        settings = _override(loaded.planner, self)
        folder = checkpoints.find(self.task, self.checkpoint)
        watch = surprise.load(folder, loaded.sha256) if self.surprise else None
        out = self.out or Path("runs/evaluate") / folder_name(self.task)
        for place in (out, folder) if self.record else (out,):
            _try_to_write(place)  # before hours of playing
        with _table() as progress:
            outcome = evaluate(
                load_envs(), self.task, loaded, settings, protocol, progress, imagination=self.imagine, watch=watch
            )
        paths = write_results(out, [outcome])
        if self.record:
            checkpoints.record(folder, card_figures(outcome.result))
        _conclude([outcome], paths)


@dataclass(frozen=True)
class Compare:
    """Set two evaluations of the same pairs side by side, with a paired test."""

    first: Annotated[Path, tyro.conf.Positional]
    """Folder that `jepa-mpc evaluate` wrote."""
    second: Annotated[Path, tyro.conf.Positional]
    """Another one, of the same task, distance, episodes and seed."""

    def run(self) -> None:
        from rich.table import Table

        from .evaluate.compare import compare, read_side

        sides = read_side(self.first), read_side(self.second)
        found = compare(*sides)
        table = Table("evaluation", "reached", "95 %", "alone", "ms/plan")
        for side, alone in zip(sides, (found["only_first"], found["only_second"]), strict=True):
            low, high = side.result["interval"]
            reached, plan_ms = f"{side.result['successes']}/{side.result['n']}", side.result["plan_ms"]["median"]
            table.add_row(str(side.path), f"[bold]{reached}[/]", f"{low:.0%}-{high:.0%}", str(alone), f"{plan_ms:.3g}")
        console.print(table)
        least = found["smallest_shown"]
        shown = f"with as many differing pairs, a difference of at least {least:.1%} would show"
        if math.isnan(least):
            shown = "too few pairs differ to show any difference"
        console.print(f"McNemar's exact test: p = {found['p']:.3g} ({shown})", highlight=False)
        if (times := found["times_faster"]) is None:
            console.print("times a plan: measured in different ways, not compared")
        else:
            console.print(f"the first plans {times:.3g} times as fast", highlight=False)


@dataclass(frozen=True)
class Plan:
    """Move a robot to a goal picture of your own and film it."""

    task: Task
    goal: Path
    """The goal: an image file as large as the checkpoint's pictures (a film frame, say, or one from --save-goal)."""
    checkpoint: Path | None = None
    """Checkpoint folder; the shipped one by default."""
    steps: int = 50
    """Environment steps."""
    seed: int = 0
    """Of the random start and of the planner's noise."""
    out: Path = Path("runs/plan")
    """Folder for plan.mp4 and plan.png."""
    save_goal: bool = False
    """Do not plan: draw a random state and write its picture to GOAL."""

    def run(self) -> None:
        from .evaluate.own_goal import film, read_picture, write_picture
        from .evaluate.run import check_fits

        check_seed("plan", self.seed)
        if self.steps < 1:
            raise BadInput("plan: steps is off", expected="at least 1", got=str(self.steps))
        loaded = _load(self.task, self.checkpoint)
        env = load_envs().make(self.task, loaded.model.config.image_size)
        if self.save_goal:
            write_picture(self.goal, env, self.seed)
            console.print(f"goal: {self.goal}")
            return
        check_fits(env, loaded)
        picture = read_picture(self.goal, env.size)
        policy = loaded.planner.build(loaded.model, self.seed)
        with _bar(f"planning {self.task}") as advance:
            video, strip, distance = film(env, policy, picture, self.steps, self.seed, self.out, advance)
        console.print(f"latent distance to the goal: {distance[0]:.3f} at the start, {distance[1]:.3f} at the end")
        console.print(f"video   {video}\npicture {strip}", highlight=False)


@dataclass(frozen=True)
class Serve:
    """Plan for a robot that sends its pictures over HTTP and gets actions back; with a page that shows it live."""

    task: Task
    checkpoint: Path | None = None
    """Checkpoint folder; the shipped one by default."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is any. There is no password: whoever reaches the port moves the robot."""
    port: int = 8790
    """0 for any that is free."""
    rate: float | None = None
    """Most that each dimension of an action changes in one control step, in its units; no limit by default."""
    acceleration: float | None = None
    """Most that this change changes; no limit by default."""
    max_age: float | None = None
    """Oldest picture that is acted on, seconds, by the age that comes with it; not asked by default."""
    deadline_ms: float | None = None
    """Stop each search after so many milliseconds with the best plan so far."""
    on_impossible: str = "warn"
    """Where what is seen cannot be: warn, replan, or stop until the next goal; a checkpoint's surprise.json knows."""
    seed: int = 0
    """Of the planner's noise."""
    threads: int = field(default_factory=_cores)
    """CPU threads; one a core by default."""

    def run(self) -> None:
        import torch

        from . import checkpoint as checkpoints
        from . import surprise
        from .adapters.server import listen
        from .adapters.session import Session
        from .guard import Limits

        check_seed("serve", self.seed)
        if self.threads < 1:
            raise BadInput("serve: threads is off", expected="at least 1", got=str(self.threads))
        torch.set_num_threads(self.threads)
        given = ("rate", "acceleration", "max_age", "on_impossible")
        limits = Limits(**{name: getattr(self, name) for name in given})
        loaded, folder = _load(self.task, self.checkpoint), checkpoints.find(self.task, self.checkpoint)
        watched = self.on_impossible != "warn" or (folder / surprise.FILE).is_file()
        known = surprise.load(folder, loaded.sha256) if watched else None
        session = Session(loaded, limits, thresholds=known, seed=self.seed, deadline_ms=self.deadline_ms)
        with listen(session, self.host, self.port) as server:
            port = server.server_address[1]
            watch = "" if known else ", nobody watches for the impossible (jepa-mpc surprise TASK --fit)"
            console.print(f"http://{self.host}:{port} plans for {self.task}{watch}; Ctrl-C ends it", highlight=False)
            try:
                server.serve_forever()
            finally:
                status = session.status()
                console.print(f"alarms {status['alarms']}, guard {status['interventions']}", highlight=False)


@dataclass(frozen=True)
class Surprise:
    """Tell which steps of a recorded episode a checkpoint finds impossible; or, with --fit, learn what is ordinary."""

    clip: Annotated[str, tyro.conf.Positional]
    """A dataset's folder, or an .npz file with pixels and actions; with --fit the name of a task."""
    episode: int = 0
    """Row of the dataset."""
    task: str | None = None
    """Of an .npz file, which does not say."""
    checkpoint: Path | None = None
    """Checkpoint folder; the shipped one by default."""
    fit: bool = False
    """Play held-out episodes and write the checkpoint's thresholds, surprise.json."""
    episodes: int = 400
    """Episodes to fit on; at least 99."""
    length: int = 100
    """Environment steps of each."""
    steps: int = 2
    """Model steps that predictions look ahead."""
    seed: int = 0
    """Of the episodes to fit on."""
    out: Path = Path("runs/surprise")
    """Folder for energy.png and energy.json."""

    def run(self) -> None:
        from . import surprise

        for name in ("episodes", "length", "steps"):
            if (value := getattr(self, name)) < 1:
                raise BadInput(f"surprise: {name} is off", expected="at least 1", got=str(value))
        check_seed("surprise", self.seed)
        if not self.fit:
            self._score()
            return
        from . import checkpoint as checkpoints

        loaded, folder = _load(self.clip, self.checkpoint), checkpoints.find(self.clip, self.checkpoint)
        env = load_envs().make(self.clip, loaded.model.config.image_size)
        options = {name: getattr(self, name) for name in ("episodes", "length", "steps", "seed")}
        with _bar(f"playing {self.clip}") as advance:
            found = surprise.fit(loaded, env, **options, progress=advance)
        surprise.save(folder, found)
        console.print(f"{folder / surprise.FILE}: unusual above {found.unusual:.3g}, impossible {found.impossible:.3g}")

    def _score(self) -> None:
        from . import checkpoint as checkpoints
        from . import surprise
        from .evaluate.energy import draw_energy, read_recording, write_energy

        recording = read_recording(Path(self.clip), self.episode)
        if (task := recording.task or self.task) is None:
            raise BadInput(f"surprise: {self.clip} does not say what task it is of", do="give --task")
        loaded = _load(task, self.checkpoint)
        thresholds = surprise.load(checkpoints.find(task, self.checkpoint), loaded.sha256)
        if recording.spec not in (None, loaded.model.action):
            expected, got = str(loaded.model.action), str(recording.spec)
            raise BadInput("recording and checkpoint differ in their actions", expected=expected, got=got)
        energy = surprise.film_energies(loaded.model, recording.pixels, recording.actions, thresholds.steps)
        self.out.mkdir(parents=True, exist_ok=True)
        picture, numbers = self.out / "energy.png", self.out / "energy.json"
        draw_energy(picture, recording, energy, thresholds)
        counts, first = write_energy(numbers, energy, thresholds)
        where = "" if first is None else f"; the first impossible step is {first}"
        said = ", ".join(f"{counts[name]} {name}" for name in surprise.STATES)
        console.print(f"{recording.title}: {said}{where}", highlight=False)
        console.print(f"picture {picture}\nnumbers {numbers}", highlight=False)


@dataclass(frozen=True)
class Demo:
    """Plan with the shipped checkpoints on TwoRoom and PushT, and leave a video and a report."""

    episodes: int = 20
    """Start-goal pairs a task."""
    seed: int = 0
    """Of the pairs and of all noise."""
    out: Path = Path("runs/demo")
    """Folder of plan.mp4, report.html and results.json."""

    def run(self) -> None:
        from .evaluate.run import Protocol, evaluate, write_results

        outcomes = []
        for task in ("TwoRoom", "PushT"):
            loaded = _load(task, None)
            with _table() as progress:
                protocol = Protocol(self.episodes, seed=self.seed, oracle=False)
                outcomes.append(
                    evaluate(load_envs(), task, loaded, loaded.planner, protocol, progress, imagination=True)
                )
        _conclude(outcomes, write_results(self.out, outcomes))


def _load(task: str, path: Path | None) -> Checkpoint:
    """The checkpoint for `task`; says which renderer draws, and refuses nothing silently."""
    from . import checkpoint

    _check_task(task)
    loaded = checkpoint.load(checkpoint.find(task, path), task=task)
    renderer = load_envs().choose_backend()
    note = "" if renderer == loaded.renderer else f" [yellow](the checkpoint saw pictures of {loaded.renderer})[/]"
    console.print(f"{task}: checkpoint {loaded.sha256[:12]}, renderer {renderer}{note}", highlight=False)
    return loaded


def _override(settings: PlannerConfig, options: Evaluate) -> PlannerConfig:
    """The checkpoint's settings, but for those given on the command line."""
    names = [one.name for one in fields(PlannerConfig)]
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return replace(settings, **given)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar to call with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        line = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(line, completed=done, total=total)


@contextmanager
def _table() -> Iterator[Progress]:
    """One live line a policy, with the successes so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    names = {"planner": "planner", "random": "random floor", "noop": "do-nothing floor", "oracle": "oracle planner"}
    columns = TextColumn("  {task.description:18}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TextColumn("{task.fields[reached]} reached"), TimeElapsedColumn(), console=console) as bars:
        lines: dict[str, Any] = {}

        def update(policy: str, done: int, total: int, successes: int) -> None:
            if policy not in lines:
                lines[policy] = bars.add_task(names.get(policy, f"other {policy}"), total=total, reached=0)
            bars.update(lines[policy], completed=done, reached=successes)

        yield update


def _conclude(outcomes: list[Outcome], paths: tuple[Path, Path, Path]) -> None:
    """The table and the paths that an evaluation ends with."""
    from rich.table import Column, Table

    from .evaluate.report import share_of_pixels

    names = ("reached", "95 %", "random", "nothing", "hard", "oracle", "ms/plan", "rate")
    figures = (Column(name, no_wrap=True) for name in names)  # whole in 80 columns: a name may be folded, no figure
    table = Table(Column("task", overflow="fold"), *figures, padding=(0, 1, 0, 0))
    for result in (outcome.result for outcome in outcomes):
        random, noop, oracle = (_rate(result["floors"][name]) for name in ("random", "noop", "oracle"))
        hard = "" if result["hard_score"] is None else f"{100 * result['hard_score']:.0f} %"
        if not result["simulates"]:
            oracle = "none"  # the simulator cannot rehearse this task
        low, high = result["interval"]
        plan_ms = result["plan_ms"]["median"]
        table.add_row(
            result["task"],
            f"[bold]{result['successes']}/{result['n']}[/]",
            f"{low:.0%}-{high:.0%}",
            *(random, noop, hard, oracle),
            f"{plan_ms:.0f}",
            f"{result['control_hz']:.0f} Hz",
        )
    console.print(table)
    for result in (outcome.result for outcome in outcomes if outcome.result["protocol"]):
        console.print(_protocol(result["task"], result["protocol"]), highlight=False)
    for result in (outcome.result for outcome in outcomes if outcome.result["appearance"]):
        looks = Table("appearance", "pixels changed", "reached", "95 %", "drop, points")
        for name, arm in result["appearance"].items():
            low, high = arm["interval"]
            drop = 100 * (result["success_rate"] - arm["success_rate"])
            reached = f"{arm['successes']}/{arm['n']}"
            looks.add_row(name, share_of_pixels(arm), reached, f"{low:.0%}-{high:.0%}", f"{drop:.0f}")
        console.print(looks)
    for name, path in zip(("video", "report", "numbers"), paths, strict=True):
        console.print(f"{name:8}{path}", highlight=False, soft_wrap=True)


def _protocol(task: str, found: dict[str, Any]) -> str:
    """Whether the task's frozen protocol was kept, and otherwise what is not as it says."""
    if found["departs"]:
        words = f"{task}: outside protocol {found['name']}: {', '.join(found['departs'])}"
        do = "these figures do not compare with others of it; restore its file of pairs in envs/protocols"
        return words if found["same_pairs"] is not False else f"[yellow]{words}; {do}[/]"
    part = "" if found["n"] == found["of"] else f", the first {found['n']} of its {found['of']} pairs"
    return f"{task}: protocol {found['name']}, column {found['column']}{part}"


def _rate(arm: dict[str, Any] | None) -> str:
    return "not run" if arm is None else f"{arm['successes']}/{arm['n']}"


COMMANDS: dict[str, type[Any]] = {
    "check": Check,
    "collect": Collect,
    "pretrain": Pretrain,
    "train": Train,
    "polish": Polish,
    "prior": Prior,
    "temporal": Temporal,
    "slow": Slow,
    "looks": Looks,
    "join": Join,
    "evaluate": Evaluate,
    "compare": Compare,
    "plan": Plan,
    "serve": Serve,
    "surprise": Surprise,
    "demo": Demo,
}


def _parse(words: list[str]) -> Any:
    """The options as a dataclass; defaults of training are those of the task's recipe, so that --help shows them."""
    if not words or words[0] not in COMMANDS:
        if words and words[0] not in ("-h", "--help"):
            raise BadInput("unknown command", expected=" or ".join(COMMANDS), got=repr(words[0]))
        console.print("[bold]jepa-mpc[/] COMMAND --help\n")
        for name, command in COMMANDS.items():
            console.print(f"  {name:10}{(command.__doc__ or '').splitlines()[0]}", highlight=False)
        raise SystemExit(0)
    command, prog, options = COMMANDS[words[0]], f"jepa-mpc {words[0]}", words[1:]
    if command not in (Train, Pretrain):
        return tyro.cli(command, prog=prog, args=options)
    # Which recipe gives the defaults is known once the task is: a first look finds it. Help has to do with a guess.
    if {"-h", "--help"} & set(options):
        task = next((word for word in options if word in RECIPES), "")
    else:
        task = tyro.cli(command, prog=prog, args=options).task
    recipe = recipe_for(task)
    training = recipe.training
    if command is Pretrain:
        given = {name: getattr(training, name) for name in ("augment", "shift", "repaint", "backdrop")}
        training = replace(PRETRAIN, **given)
    return tyro.cli(command, prog=prog, args=options, default=command(task, model=recipe.model, training=training))


def main(words: list[str] | None = None) -> None:
    """Runs the command line; exits with 2 and one line on bad input, 130 on Ctrl-C, 141 where nobody reads on."""
    try:
        try:
            _parse(sys.argv[1:] if words is None else words).run()
        finally:
            sys.stdout.flush()  # at exit, where Python does it, nobody could catch that its reader is gone
    except BadInput as error:
        print(f"jepa-mpc: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # as of `jepa-mpc train --help | head`: what is left to write goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        place = error.filename or "a file"
        print(f"jepa-mpc: cannot write or read {place}: {error.strerror}; name another path", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("jepa-mpc: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
