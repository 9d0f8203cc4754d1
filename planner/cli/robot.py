"""`jepa-mpc plan`, `serve` and `surprise`: one robot, one goal, one episode."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import BadInput, check_seed
from ..settings import TrainConfig
from ..tasks import folder_name, is_recorded, load_envs
from .shared import Task, bar, check_share, console, cores, load, warn_of_learned, warn_of_renderer

if TYPE_CHECKING:
    from ..actions import ActionSpec
    from ..evaluate.energy import Recording


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
        from ..checkpoint import check_fits
        from ..evaluate.own_goal import film, read_picture, write_picture

        check_seed("plan", self.seed)
        if self.steps < 1:
            raise BadInput("plan: steps is off", expected="at least 1", got=str(self.steps))
        load_envs().check_task(self.task)  # one that can be simulated
        loaded = load(self.task, self.checkpoint)
        env = load_envs().make(self.task, loaded.model.config.image_size)
        if self.save_goal:
            write_picture(self.goal, env, self.seed)
            console.print(f"goal: {self.goal}")
            return
        check_fits(env, loaded)
        picture = read_picture(self.goal, env.size)
        policy = loaded.planner.build(loaded.model, self.seed)
        with bar(f"planning {self.task}") as advance:
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
    """Oldest picture that is acted on, seconds; one that comes without an age is refused. Not asked by default."""
    deadline_ms: float | None = None
    """Stop each search after so many milliseconds with the best plan so far."""
    on_impossible: str = "warn"
    """Where what is seen cannot be: warn, replan, or stop until the next goal; a checkpoint's surprise.json knows. To
    stop is the action nearest to 0."""
    fit: bool = False
    """Pictures may be files of any larger size: the square in the middle counts, scaled down, as `import` does it."""
    seed: int = 0
    """Of the planner's noise."""
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""

    def run(self) -> None:
        import torch

        from .. import checkpoint as checkpoints
        from .. import surprise
        from ..adapters.server import listen
        from ..adapters.session import Session
        from ..guard import Limits

        check_seed("serve", self.seed)
        if self.threads < 1:
            raise BadInput("serve: threads is off", expected="at least 1", got=str(self.threads))
        torch.set_num_threads(self.threads)
        given = ("rate", "acceleration", "max_age", "on_impossible")
        limits = Limits(**{name: getattr(self, name) for name in given})
        loaded, folder = load(self.task, self.checkpoint), checkpoints.find(self.task, self.checkpoint)
        watched = self.on_impossible != "warn" or (folder / surprise.FILE).is_file()
        known = surprise.load(folder, loaded.sha256) if watched else None
        session = Session(
            loaded, limits, thresholds=known, seed=self.seed, deadline_ms=self.deadline_ms, larger=self.fit
        )
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
    """A dataset's folder, or a file with pixels and actions as `import` takes it; with --fit the name of a task."""
    episode: int = 0
    """Row of the dataset, or episode of the file, of those in which something was done."""
    task: str | None = None
    """Of a file, which does not say."""
    camera: str | None = None
    """Name of the pictures in the file, where it has several cameras'."""
    checkpoint: Path | None = None
    """Checkpoint folder; the shipped one by default."""
    fit: bool = False
    """Play held-out episodes, or look at held-out rows of what has no simulator, and write the checkpoint's thresholds,
    surprise.json."""
    episodes: int = 400
    """Episodes to fit on; at least 99."""
    length: int = 100
    """Environment steps of each."""
    steps: int = 2
    """Model steps that predictions look ahead."""
    seed: int = 0
    """Of the episodes to fit on."""
    data: Path | None = None
    """Dataset to fit on, of what has no simulator; data/TASK by default."""
    held_out: float = TrainConfig.held_out
    """Share of its last rows: no more than training held out, or it saw them."""
    out: Path = Path("runs/surprise")
    """Folder for energy.png and energy.json."""

    def run(self) -> None:
        for name in ("episodes", "length", "steps"):
            if (value := getattr(self, name)) < 1:
                raise BadInput(f"surprise: {name} is off", expected="at least 1", got=str(value))
        check_seed("surprise", self.seed)
        self._check_read()
        if self.fit:
            self._fit()
        else:
            self._score()

    def _check_read(self) -> None:
        """Raises `BadInput` for an option that is not read."""
        played, recorded = ("episodes", "length", "steps", "seed"), ("data", "held_out", "steps")
        read = (recorded if is_recorded(self.clip) else played) if self.fit else ("episode", "task", "camera", "out")
        optional = dict.fromkeys((*played, *recorded, "episode", "task", "camera", "out"))
        if given := [n for n in optional if n not in read and getattr(self, n) != getattr(type(self), n)]:
            where = "without --fit" if not self.fit else f"with --fit{' of recordings' if read is recorded else ''}"
            do = "leave it out" if self.fit else "leave it out, or add --fit TASK"
            raise BadInput(f"surprise: --{given[0].replace('_', '-')} is not read {where}", do=do)

    def _fit(self) -> None:
        from .. import checkpoint as checkpoints
        from .. import surprise
        from ..data import EpisodeStore, split_rows

        loaded, folder = load(self.clip, self.checkpoint), checkpoints.find(self.clip, self.checkpoint)
        if is_recorded(self.clip):
            check_share("surprise", self.held_out)
            store = EpisodeStore.open(self.data or Path("data") / folder_name(self.clip))
            store.verify(self.clip)
            warn_of_renderer(store.info.renderer, loaded.renderer)
            warn_of_learned(store, len(split_rows(store.info, self.held_out)[1]), folder)
            with bar(f"looking at {self.clip}") as advance:
                found = surprise.fit_rows(loaded, store, self.held_out, steps=self.steps, progress=advance)
        else:
            env = load_envs().make(self.clip, loaded.model.config.image_size)
            options = {name: getattr(self, name) for name in ("episodes", "length", "steps", "seed")}
            with bar(f"playing {self.clip}") as advance:
                found = surprise.fit(loaded, env, **options, progress=advance)
        surprise.save(folder, found)
        console.print(f"{folder / surprise.FILE}: unusual above {found.unusual:.3g}, impossible {found.impossible:.3g}")

    def _score(self) -> None:
        from .. import checkpoint as checkpoints
        from .. import surprise
        from ..evaluate.energy import draw_energy, write_energy

        recording, task = self._recording()
        loaded = load(task, self.checkpoint)
        thresholds = surprise.load(checkpoints.find(task, self.checkpoint), loaded.sha256)
        _check_actions(recording, loaded.model.action)
        surprise.check_length(loaded.model, thresholds.steps, len(recording.actions), f"{recording.title} is")
        if recording.renderer not in ("", thresholds.renderer):
            told = f"warning: its pictures are of {recording.renderer}; thresholds are of {thresholds.renderer}'s"
            console.print(told, highlight=False)
        if recording.shape != ((size := loaded.model.config.image_size), size):
            told = f"its pictures are scaled to {size} x {size}, of the square in the middle, as `import` does it"
            console.print(told, highlight=False)
        pixels = recording.pixels(size)
        energy = surprise.film_energies(loaded.model, pixels, recording.actions, thresholds.steps)
        self.out.mkdir(parents=True, exist_ok=True)
        picture, numbers = self.out / "energy.png", self.out / "energy.json"
        draw_energy(picture, recording.title, pixels, energy, thresholds)
        counts, first = write_energy(numbers, energy, thresholds)
        where = "" if first is None else f"; the first impossible step is {first}"
        said = ", ".join(f"{counts[name]} {name}" for name in surprise.STATES)
        console.print(f"{recording.title}: {said}{where}", highlight=False)
        if len(recording.actions) > thresholds.length:
            longer = f"it has {len(recording.actions)} steps, and rates of alarms hold for up to {thresholds.length}"
            console.print(longer, highlight=False)
        console.print(f"picture {picture}\nnumbers {numbers}", highlight=False)

    def _recording(self) -> tuple[Recording, str]:
        """What is to be scored, and the task that it is of."""
        from ..evaluate.energy import read_recording

        if is_recorded(self.clip) and not Path(self.clip).exists():
            do = "name a dataset's folder or a file of it, or add --fit"
            raise BadInput(f"surprise: {self.clip} is a task", do=do)
        if self.camera is not None and Path(self.clip).is_dir():
            raise BadInput("surprise: --camera is not read of a dataset", do="leave it out")
        recording = read_recording(Path(self.clip), self.episode, self.camera)
        if recording.task is not None and self.task not in (None, recording.task):
            expected, got, do = recording.task, str(self.task), "leave out --task"
            raise BadInput(f"surprise: {self.clip} is of another task", expected=expected, got=got, do=do)
        if (task := recording.task or self.task) is None:
            raise BadInput(f"surprise: {self.clip} does not say what task it is of", do="give --task")
        return recording, task


def _check_actions(recording: Recording, spec: ActionSpec) -> None:
    """Raises `BadInput` for actions that no robot of `spec` does."""
    if recording.spec not in (None, spec):
        expected, got = str(spec), str(recording.spec)
        raise BadInput("recording and checkpoint differ in their actions", expected=expected, got=got)
    if (width := recording.actions.shape[1]) != spec.env_dim:
        raise BadInput(f"{recording.title}: actions are off", expected=f"[L, {spec.env_dim}]", got=f"[L, {width}]")
    if not spec.admits(recording.actions):
        expected = f"{list(spec.low)} to {list(spec.high)}"
        got = f"{recording.actions.min(0).tolist()} to {recording.actions.max(0).tolist()}"
        raise BadInput(f"{recording.title}: actions are out of the task's bounds", expected=expected, got=got)
