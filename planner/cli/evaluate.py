"""`jepa-mpc evaluate`, `compare` and `demo`: how often goals are reached, as tables, reports and films."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import BadInput, check_seed
from ..settings import PlannerConfig, TrainConfig
from ..tasks import folder_name, load_envs
from .shared import Task, check_share, console, cores, load, warn_of_learned, warn_of_renderer

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..data import EpisodeStore, Windows
    from ..evaluate.run import Outcome, Progress

SPEED_PERIOD = 3600.0
"""Seconds of playing that the time left is estimated from."""


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
    """Of the list of pairs."""
    noise: int | None = None
    """Seed of the planner's noise; that of the pairs by default. The same pairs with other noise show what is luck."""
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
    on_impossible: str = "warn"
    """What follows an alarm of something impossible: warn (it is counted), replan, or stop until the next goal; needs
    --surprise."""
    show: tuple[int, ...] = ()
    """Episodes to film and to show as imagined, up to eight, from 0; by default some reached and some not."""

    def run(self) -> None:
        from .. import checkpoint as checkpoints
        from .. import surprise
        from ..evaluate.run import Protocol, card_figures, evaluate, write_results

        names = [one.name for one in fields(Protocol)]
        protocol = Protocol(**{name: getattr(self, name) for name in names})
        load_envs().check_task(self.task)  # one that can be simulated
        loaded = load(self.task, self.checkpoint)
        settings = _override(loaded.planner, self)
        folder = checkpoints.find(self.task, self.checkpoint)
        watch = surprise.load(folder, loaded.sha256) if self.surprise else None
        if self.record:
            do = "leave out --record: a card tells what the checkpoint's own planner reaches by itself"
            if self.on_impossible != "warn":
                raise BadInput("evaluate: on_impossible and record", got=self.on_impossible, do=do)
            if self.noise is not None:
                raise BadInput("evaluate: noise and record", got=str(self.noise), do="leave one of them out")
            if settings != loaded.planner or self.deadline_ms is not None:
                raise BadInput("evaluate: settings of another planner and record", do=do)
        out = self.out or Path("runs/evaluate") / folder_name(self.task)
        for place in (out, folder) if self.record else (out,):
            _try_to_write(place)  # before hours of playing
        with _table() as progress:
            outcome = evaluate(
                load_envs(),
                self.task,
                loaded,
                settings,
                protocol,
                progress,
                imagination=self.imagine,
                watch=watch,
                on_impossible=self.on_impossible,
                show=self.show,
            )
        paths = write_results(out, [outcome])
        if self.record:
            checkpoints.record(folder, card_figures(outcome.result))
        conclude([outcome], paths)


@dataclass(frozen=True)
class Compare:
    """Set two evaluations of the same pairs side by side, with a paired test."""

    first: Annotated[Path, tyro.conf.Positional]
    """Folder that `jepa-mpc evaluate` wrote."""
    second: Annotated[Path, tyro.conf.Positional]
    """Another one, of the same task, distance, episodes and seed."""

    def run(self) -> None:
        from rich.table import Table

        from ..evaluate.compare import compare, read_side

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
class Rehearse:
    """Tell how well a checkpoint foresees held-out episodes, and finds what was done in them; without a simulator."""

    task: Task
    checkpoint: Path | None = None
    """Checkpoint folder; the shipped one by default."""
    data: Path | None = None
    """Dataset; data/TASK by default."""
    steps: int = 5
    """Model steps to foresee."""
    windows: int = 500
    """Of held-out episodes, drawn where the picture changes; rounded up to hundreds."""
    held_out: float = TrainConfig.held_out
    """Share of the dataset's last rows: no more than training held out, or it saw them."""
    seed: int = 0
    """Of the planner's noise."""
    threads: int = field(default_factory=cores)
    """CPU threads; one a core by default."""
    out: Path | None = None
    """Folder for rehearsal.png and rehearsal.json; runs/rehearse/TASK by default."""

    def run(self) -> None:
        import torch

        from .. import checkpoint
        from ..evaluate import rehearsal

        check_seed("rehearse", self.seed)
        for name in ("windows", "threads"):
            if (value := getattr(self, name)) < 1:
                raise BadInput(f"rehearse: {name} is off", expected="at least 1", got=str(value))
        check_share("rehearse", self.held_out)
        torch.set_num_threads(self.threads)
        loaded = load(self.task, self.checkpoint)
        store, windows = self._held_out(loaded)
        warn_of_learned(store, len(windows.rows), checkpoint.find(self.task, self.checkpoint))
        out = self.out or Path("runs/rehearse") / folder_name(self.task)
        out.mkdir(parents=True, exist_ok=True)
        ahead = rehearsal.errors(loaded.model, windows, self.windows)
        others = rehearsal.errors(loaded.model, windows, self.windows, swapped=True)
        planner = rehearsal.to_the_next_frame(loaded.planner).build(loaded.model, self.seed)
        found = rehearsal.recovered(planner, windows, self.windows, self.seed)
        self._tell(ahead, others, found)
        shown = rehearsal.rehearse(loaded.model, windows, rehearsal.bank_of(store, loaded.model, self.held_out))
        title = f"{self.task}, held-out windows of {store.path}; distances in model steps"
        rehearsal.draw(out / "rehearsal.png", shown, store.info.block, title)
        facts: dict[str, Any] = {"rows": len(windows.rows), "errors": ahead, "swapped": others}
        facts |= {"recovered_r2": [None if math.isnan(r2) else r2 for r2 in found]}
        self._write(out / "rehearsal.json", loaded, store, facts)
        console.print(f"picture {out / 'rehearsal.png'}\nnumbers {out / 'rehearsal.json'}", highlight=False)

    def _held_out(self, loaded: Checkpoint) -> tuple[EpisodeStore, Windows]:
        """The dataset, checked, and its windows; says how many there are."""
        from ..data import EpisodeStore
        from ..evaluate import rehearsal

        model, store = loaded.model, EpisodeStore.open(self.data or Path("data") / folder_name(self.task))
        store.verify(self.task)
        store.check_fits(model.config.image_size, model.action)
        rehearsal.check_length(store, model, self.steps)
        windows = rehearsal.held_out_windows(store, model.history + self.steps, self.held_out)
        rehearsal.check_windows(windows)
        warn_of_renderer(store.info.renderer, loaded.renderer)
        rows = len(windows.rows)
        told = f"{rows} rows of {store.path} are held out; windows may begin at {rows * windows.starts} frames of them"
        console.print(told, highlight=False, soft_wrap=True)
        return store, windows

    def _write(self, path: Path, loaded: Checkpoint, store: EpisodeStore, found: dict[str, Any]) -> None:
        """Writes what was found, of what and with what."""
        from ..data import write_atomically
        from ..evaluate.rehearsal import BATCH
        from ..versions import commit, versions

        facts: dict[str, Any] = {"task": self.task, "checkpoint_sha256": loaded.sha256, "data": str(store.path)}
        facts |= {"policy": store.info.policy, "renderers": [store.info.renderer, loaded.renderer]}
        facts |= {"held_out": self.held_out, "windows": -(-self.windows // BATCH) * BATCH, "seed": self.seed}
        facts |= found | {"versions": versions(), "commit": commit()}
        write_atomically(path, json.dumps(facts, indent=1) + "\n")

    def _tell(self, ahead: list[float], others: list[float], found: list[float]) -> None:
        """Prints what was found."""
        from rich.table import Table

        table = Table("model steps ahead", *(str(k + 1) for k in range(self.steps)))
        table.add_row("error; 1: as if nothing moved", *(f"{error:.3f}" for error in ahead))
        table.add_row("with what was done elsewhere", *(f"{error:.3f}" for error in others))
        console.print(table)
        each = ", ".join("the same throughout" if math.isnan(r2) else f"{r2:.3f}" for r2 in found)
        told = f"each action, found by a search towards the next frame: R2 {each}; 1: exactly, 0: as its mean"
        console.print(told, highlight=False, soft_wrap=True)


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
        from ..evaluate.run import Protocol, evaluate, write_results

        outcomes = []
        for task in ("TwoRoom", "PushT"):
            loaded = load(task, None)
            with _table() as progress:
                protocol = Protocol(self.episodes, seed=self.seed, oracle=False)
                outcomes.append(
                    evaluate(load_envs(), task, loaded, loaded.planner, protocol, progress, imagination=True)
                )
        conclude(outcomes, write_results(self.out, outcomes))


def _try_to_write(folder: Path) -> None:
    """Makes the folder, and raises `OSError` where nothing can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


def _override(settings: PlannerConfig, options: Evaluate) -> PlannerConfig:
    """The checkpoint's settings, but for those given on the command line."""
    names = [one.name for one in fields(PlannerConfig)]
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    made = replace(settings, **given)
    if "execute" in given and made.replan:
        got, do = f"replan {made.replan}, which is in its place", "add --replan 0"
        raise BadInput("evaluate: execute is not read", expected="a planner without replan", got=got, do=do)
    return made


@contextmanager
def _table() -> Iterator[Progress]:
    """One live line a policy, with the successes so far, the time that it has taken and that it will still take."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    names = {"planner": "planner", "random": "random floor", "noop": "do-nothing floor", "oracle": "oracle planner"}
    columns: tuple[ProgressColumn, ...] = TextColumn("  {task.description:18}"), BarColumn(), MofNCompleteColumn()
    columns += (
        TextColumn("{task.fields[reached]} reached"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # An oracle's episode may take longer than the seconds that the time left is estimated from otherwise.
    with Progress(*columns, console=console, speed_estimate_period=SPEED_PERIOD) as bars:
        lines: dict[str, Any] = {}

        def update(policy: str, done: int, total: int, successes: int) -> None:
            if policy not in lines:
                lines[policy] = bars.add_task(names.get(policy, f"other {policy}"), total=total, reached=0)
            bars.update(lines[policy], completed=done, reached=successes)

        yield update


def conclude(outcomes: list[Outcome], paths: tuple[Path, Path, Path]) -> None:
    """The table and the paths that an evaluation ends with."""
    from rich.table import Column, Table

    from ..evaluate.report import alarms_told, share_of_pixels

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
    for result in (outcome.result for outcome in outcomes if outcome.result["num_envs"] > 1):
        at_once = result["num_envs"]
        console.print(f"{result['task']}: times of a plan are of {at_once} environments at once", highlight=False)
    for result in (outcome.result for outcome in outcomes if outcome.result["appearance"]):
        looks = Table("appearance", "pixels changed", "reached", "95 %", "drop, points")
        for name, arm in result["appearance"].items():
            low, high = arm["interval"]
            reached = f"{arm['successes']}/{arm['n']}"
            looks.add_row(name, share_of_pixels(arm), reached, f"{low:.0%}-{high:.0%}", f"{100 * arm['drop']:.0f}")
        console.print(looks)
    for result in (outcome.result for outcome in outcomes):
        if told := alarms_told(result):
            console.print(f"{result['task']}: {told}", highlight=False)
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
