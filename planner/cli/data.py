"""`jepa-mpc check`, `collect` and `import`: a task, its play, and what others recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import BadInput, check_seed
from ..recipes import recipe_for
from ..tasks import folder_name, is_recorded, load_envs
from .shared import Task, actions_of, bar, check_task, console, cores

if TYPE_CHECKING:
    from ..actions import ActionSpec
    from ..collect import Pursuit
    from ..data import EpisodeStore
    from ..recordings import Take


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
            measured = env.proprio_names
        bounds = zip(spec.low, spec.high, spec.units, strict=True)
        console.print(f"{self.task} keeps the contract, drawn by {envs.choose_backend()}", highlight=False)
        told = {"state": ", ".join(f"{name} ({unit})" for name, unit in state)}
        told["proprio"] = ", ".join(measured) or "nothing (see `measures` of envs.GoalEnv)"
        told["action"] = ", ".join(f"{low:g} to {high:g} {unit}" for low, high, unit in bounds)
        for name, words in (told | {"picture": str(self.out / "play.png")}).items():
            console.print(f"{name:8}{words}", highlight=False, soft_wrap=True)


def _film_play(path: Path, env: Any, seed: int, steps: int = 48) -> None:
    """Writes a strip of what data of the task will look like."""
    import numpy as np

    from ..collect import play_episode
    from ..evaluate.video import Clip, film_strip

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
    lulls: bool = False
    """Have play slow down and rest now and then (action 0), which it hardly does by itself; needs --out."""
    workers: int = field(default_factory=cores)
    """Processes; one a core by default."""

    def run(self) -> None:
        check_task(self.task)
        for name in ("episodes", "steps", "workers"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BadInput(f"collect: {name} is off", expected="at least 1", got=str(value))
        _check_size("collect", self.size)
        check_seed("collect", self.seed)
        if self.checkpoint and not self.out:
            raise BadInput("collect: a planner's episodes need a folder of their own", do="give --out")
        if self.lulls and not self.out:
            raise BadInput("collect: play with lulls needs a folder of its own", do="give --out")
        if not self.checkpoint and self.pursuit() != Collect(self.task).pursuit():
            do = "give --checkpoint, or none of --goal-distance, --goal-time, --replan and --relief"
            raise BadInput("collect: play pursues no goals", do=do)
        store = collect_for(self)
        store.verify()
        frames = store.info.episodes * (store.info.steps + 1)
        console.print(f"{store.path}: {store.info.episodes} episodes, {frames} frames, renderer {store.info.renderer}")

    def pursuit(self) -> Pursuit:
        """What a planner that acts is asked for."""
        from ..collect import Pursuit

        return Pursuit(*self.goal_distance, self.goal_time, self.replan, self.relief)


def _check_size(command: str, size: int) -> None:
    """Raises `BadInput` for pictures that no encoder of ours takes."""
    if size < 16 or size % 16:
        raise BadInput(f"{command}: size is off", expected="a multiple of 16", got=str(size))


def collect_for(options: Collect) -> EpisodeStore:
    """Collects what the options ask for, or what is missing of it, under a progress bar."""
    from ..collect import collect

    path = options.out or Path("data") / folder_name(options.task)
    recipe = recipe_for(options.task)
    with bar(f"collecting {options.task}") as advance:
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
            lulls=options.lulls,
            progress=advance,
        )


def _doubts(store: EpisodeStore) -> list[str]:
    """What is odd about recorded pictures: that they hardly change, or come twice."""
    from ..overlap import copies, moves, runs_of

    steps, said = moves(store), []
    if (moving := (steps > 0).mean()) < 0.01:
        said += [f"warning: the picture changes in {moving:.1%} of the steps; was the camera on?"]
    if twice := copies(runs_of(steps, store.info.recordings)):
        told = f"warning: {twice} recordings have much in common with others"
        said += [f"{told}: if one is held out, its copy is trained on; leave one out"]
    return said


@dataclass(frozen=True)
class Import:
    """Make a dataset of recorded episodes: of a robot without a simulator, or of a task from somewhere else."""

    task: Annotated[str, tyro.conf.Positional]
    """recorded/NAME, for what cannot be simulated here; or a task as elsewhere."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Files of arrays, .npz or HDF5: pixels (or observations), actions, and terminals (or timeouts, episode_idx,
    ep_len) where one holds several episodes; in HDF5 also a group of these for each, as robomimic has it. Other arrays
    are not read. Name the files before the options."""
    out: Path | None = None
    """Folder of the dataset; data/TASK by default."""
    steps: int | None = None
    """Environment steps of a row: longer episodes are cut up, shorter ones left out; by default what makes most
    windows to train on, of 6 to 20 blocks."""
    size: int = 64
    """Height and width of the dataset's pictures, pixels: the square in the middle of a picture, scaled down."""
    block: int | None = None
    """Environment steps that one step of the model takes; 5 by default, of a task its own."""
    low: tuple[float, ...] = ()
    """Least value of each action, in the robot's own units; the least that was recorded by default."""
    high: tuple[float, ...] = ()
    """Greatest value of each."""
    units: tuple[str, ...] = ()
    """Unit of each, as m/s."""
    state: tuple[str, ...] = ()
    """Names and units of the files' state, as x:m angle:rad, for probes; it is not read where there are none."""
    camera: str | None = None
    """Name of the pictures in the files, of HDF5 the last part of it is enough, as agentview_image; by default pixels
    or observations, or the only ones that there are."""

    def run(self) -> None:
        from ..recordings import best_length, gather, takes

        self._check()
        found = [take for file in self.files for take in takes(file, bool(self.state), self.camera)]
        spec, state = self._spec(found), [(name, unit) for name, _, unit in (one.partition(":") for one in self.state)]
        path, steps = self.out or Path("data") / folder_name(self.task), self.steps or best_length(found, spec.block)
        with bar(f"importing {self.task}") as advance:
            store = gather(self.task, found, path, spec, steps=steps, size=self.size, state=state, progress=advance)
        store.verify()
        self._tell(found, store)

    def _check(self) -> None:
        """Raises `BadInput` for options that are off by themselves."""
        check_task(self.task)
        for name in ("steps", "block"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BadInput(f"import: {name} is off", expected="at least 1", got=str(value))
        _check_size("import", self.size)
        if twice := [one for one in self.state if self.state.count(one) > 1]:
            raise BadInput(f"import: state {twice[0]} is there twice")

    def _tell(self, found: list[Take], store: EpisodeStore) -> None:
        """Says what came of the recordings, and what may not have been meant."""
        rows, steps, recorded = store.info.episodes, store.info.steps, sum(len(take.actions) for take in found)
        left = sum(max(0, len(take.actions) - steps * len(take.pieces(steps))) for take in found)
        said = [
            f"{store.path}: {rows} rows of {steps} steps from {len(found)} episodes, {left} of {recorded} steps left"
            f" out; try `jepa-mpc train {self.task}{f' --data {store.path}' if self.out else ''}`"
        ]
        if left > recorded / 3:
            do = "leave out --steps" if self.steps else "episodes are short, for which a smaller --block is better"
            said += [f"warning: {left / recorded:.0%} of the steps are left out; {do}"]
        limits = list(zip(store.info.action_low, store.info.action_high, strict=True))
        if any(low > 0 or high < 0 for low, high in limits):
            told = "warning: 0 is out of bounds of an action, and 0 is rest to a planner that has to stop"
            said += [f"{told}; record speeds, changes or torques, or give --low and --high"]
        if not self.low and is_recorded(self.task):
            low, high = (" ".join(map(str, ends)) for ends in (store.info.action_low, store.info.action_high))
            said += [f"actions are kept within what was recorded: --low {low} --high {high}"]
        said += _doubts(store)
        for line in said:
            console.print(line, highlight=False, soft_wrap=True)

    def _spec(self, found: list[Take]) -> ActionSpec:
        """The actions: of a task as it has them, else as said, within what was recorded."""
        from ..actions import ActionSpec
        from ..recordings import bounds

        if spec := actions_of(self.task):
            own = ("low", "high", "units", "block", "state")
            if given := [name for name in own if getattr(self, name) != getattr(Import, name)]:
                raise BadInput(f"import: {self.task} has actions and a state of its own", do=f"leave out --{given[0]}")
            return spec
        if bool(self.low) != bool(self.high):
            raise BadInput("import: half of the bounds are missing", expected="--low and --high, or neither")
        low, high = (self.low, self.high) if self.low else bounds(found)
        if (got := len(self.units)) not in (0, len(low)):
            do = "give one each, after the files"
            raise BadInput("import: units are off", expected=f"{len(low)}, as there are actions", got=str(got), do=do)
        return ActionSpec(low, high, self.units or ("",) * len(low), 5 if self.block is None else self.block)
