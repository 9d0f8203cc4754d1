"""`jepa-mpc polish`, `prior`, `temporal`, `slow`, `looks` and `join`: what a checkpoint is taught further."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadInput
from ..models.encoders import FeatureEncoder, JoinedEncoder
from ..models.jepa import JEPAConfig
from ..recipes import LOOKS, POLISH, known_metric, recipe_for
from ..settings import PlannerConfig, TrainConfig
from ..tasks import folder_name
from .shared import Task, check_task, console, cores, finished, load, stopped, symmetries_of, typed, warn_of_renderer
from .train import warn_by_heart

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..data import EpisodeStore
    from ..models.jepa import JEPA


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
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""
    training: TrainConfig = field(default_factory=lambda: POLISH)
    """How it is trained; what only the encoder needs is not read."""

    def run(self) -> None:
        from .. import cards, training

        loaded, stores, out = _ready(self)
        start, model = loaded.sha256, self._model(loaded.model)
        done = training.polish(
            model,
            stores,
            self.training,
            out,
            encoder=start,
            tensorboard=self.tensorboard,
            symmetries=symmetries_of(self.task),
        )
        if done is None:
            stopped(out / "last.ckpt")
        folder = self.save or out / "checkpoint"
        new = done.config if self.predictor else None
        _keep(folder, self, loaded, done, cards.polish_card(stores, self.training, out, start, typed(), new))
        finished("polished", self.task, folder)

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
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained; what only the other parts need is not read."""

    def _learn(self, loaded: Checkpoint, shape: JEPAConfig, stores: list[EpisodeStore], out: Path) -> JEPA:
        """The checkpoint's model with the part that the command is named after, of this shape."""
        from .. import training

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
            symmetries=symmetries_of(self.task),
        )
        return done if done is not None else stopped(out / part / "last.ckpt")

    def _save(self, loaded: Checkpoint, planner: PlannerConfig, model: JEPA, out: Path, card: str, does: str) -> None:
        """Writes the checkpoint, planned with as `planner` says, and says what it `does` now."""
        folder = self.save or out / "checkpoint"
        _keep(folder, self, replace(loaded, planner=planner), model, card)
        finished(does, self.task, folder)


@dataclass(frozen=True)
class Prior(_Part):
    """Give a checkpoint an action prior: plans as play would do them, for the planner's search to start from."""

    width: int | None = None
    """Width of its layers; 384 by default, or that of the prior before."""
    horizon: int | None = None
    """Model steps of the plans that it proposes; 6 by default, or as many as the prior before."""
    past: bool = False
    """Whether it sees what was done between the frames of its history, too."""
    proposals: int | None = None
    """Plans that it adds to the planner's first candidates; 32 by default, or as many as the planner has."""

    def run(self) -> None:
        from .. import cards

        loaded, stores, out = _ready(self, "width", "horizon", "proposals")
        was = loaded.model.config
        width, horizon = self.width or was.prior or 384, self.horizon or was.prior_horizon
        shape = replace(was, prior=width, prior_horizon=horizon, prior_past=self.past)
        if was.prior and was.prior_past and not self.past:
            console.print("warning: the prior before saw what was done, too; give --past", highlight=False)
        done = self._learn(loaded, shape, stores, out)
        card = cards.prior_card(stores, shape, self.training, out, typed())
        warn_by_heart(out)
        planner = replace(loaded.planner, proposals=self.proposals or loaded.planner.proposals or 32)
        self._save(loaded, planner, done, out, card, "knows what play would do")


@dataclass(frozen=True)
class Temporal(_Part):
    """Teach a checkpoint how many steps lie between two latents; its planner then goes by steps left."""

    features: int = 64
    """Features of the head."""

    def run(self) -> None:
        from .. import cards

        loaded, stores, out = _ready(self, "features")
        shape = replace(loaded.model.config, temporal=self.features)
        done = self._learn(loaded, shape, stores, out)
        card = cards.temporal_card(stores, shape, self.training, out, typed())
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
        from .. import cards

        loaded, stores, out = _ready(self, "features")
        if loaded.model.temporal is None:
            got, do = "a checkpoint without one", "give it one with `jepa-mpc temporal`, and start from what that saves"
            raise BadInput("slow: its planner goes by steps left too", expected="a temporal distance", got=got, do=do)
        shape = replace(loaded.model.config, slow=self.features)
        done = self._learn(loaded, shape, stores, out)
        card = cards.slow_card(stores, shape, self.training, out, typed())
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
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""
    training: TrainConfig = field(default_factory=lambda: LOOKS)
    """How it is trained; what only the other parts need is not read."""

    def run(self) -> None:
        import torch

        from .. import cards, training

        if self.surround and not self.retina:
            raise BadInput("looks: a surround stands behind a retina", expected="a retina", do="leave --no-retina out")
        if self.gaze and not (self.retina and self.training.shift):
            do = "add --training.shift, and leave --no-retina out"
            raise BadInput("looks: nothing to learn a gaze from", expected="a retina, and shifted pictures", do=do)
        loaded, (store,), out = _ready(self)
        other = load(self.task, self.teacher) if self.teacher else None
        if other:
            _check_renderer("looks", store, other)
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
            stopped(out / "last.ckpt")
        folder = self.save or out / "checkpoint"
        apart = float(done.encoder.apart) if isinstance(done.encoder, JoinedEncoder) else None
        whose = other.sha256 if other else None
        told = cards.looks_card(store, done.config, self.training, out, start, typed(), apart, whose)
        _keep(folder, self, loaded, done, told)
        finished("sees through looks", self.task, folder, " --appearance")


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
    held_out: float = LOOKS.held_out
    """Share of its episodes held out, at most what `looks` held out: more would be pictures that it learned from."""
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""

    def run(self) -> None:
        from .. import cards, training
        from .. import checkpoint as checkpoints

        loaded, (store,), out = _ready(self)
        taught = load(self.task, self.taught)
        _check_renderer("join", store, taught)
        done, found = training.join(loaded.model, taught.model, store, replace(LOOKS, held_out=self.held_out))
        folder = self.save or out / "checkpoint"
        told = cards.join_card(store, found, checkpoints.card_of(self.taught), taught.sha256, typed())
        _keep(folder, self, loaded, done, told)
        finished("sees through looks", self.task, folder, " --appearance")


def _ready(options: Polish | _Part | Looks | Join, *sizes: str) -> tuple[Checkpoint, list[EpisodeStore], Path]:
    """What a command that trains a part of a checkpoint starts from, its datasets, and its folder to resume in.

    Its threads, and the options named by `sizes`, have to be at least 1.
    """
    import torch

    from ..data import EpisodeStore

    check_task(options.task)
    command = type(options).__name__.lower()
    for name in ("threads", *sizes):
        if (value := getattr(options, name)) is not None and value < 1:
            raise BadInput(f"{command}: {name} is off", expected="at least 1", got=str(value))
    torch.set_num_threads(options.threads)
    loaded = load(options.task, options.checkpoint)
    given = (options.data,) if isinstance(options.data, Path) else options.data
    stores = [EpisodeStore.open(path) for path in given or (Path("data") / folder_name(options.task),)]
    for store in stores:
        store.verify(options.task)
        if command in ("looks", "join"):
            _check_renderer(command, store, loaded)
        warn_of_renderer(store.info.renderer, loaded.renderer)
    return loaded, stores, getattr(options, "out", None) or Path("runs") / command / folder_name(options.task)


def _check_renderer(command: str, store: EpisodeStore, loaded: Checkpoint) -> None:
    """Raises `BadInput` if a dataset's pictures are not of the kind that a checkpoint's encoder has seen."""
    from ..data import CAMERA

    if store.info.renderer != loaded.renderer:
        do = f"collect it again with JEPA_MPC_RENDERER={loaded.renderer}"
        if CAMERA in (store.info.renderer, loaded.renderer):
            do = "give pictures of the kind that the checkpoint was trained on"
        what = f"{command}: the pictures are another renderer's"
        raise BadInput(what, expected=loaded.renderer, got=store.info.renderer, do=do)


def _keep(folder: Path, options: Polish | _Part | Looks | Join, loaded: Checkpoint, model: JEPA, told: str) -> None:
    """Writes a checkpoint that was trained further; its card says `told` after what it said before."""
    from .. import checkpoint

    card = f"{checkpoint.card_of(checkpoint.find(options.task, options.checkpoint))}\n\n{told}"
    checkpoint.save(folder, model, task=options.task, renderer=loaded.renderer, planner=loaded.planner, card=card)
