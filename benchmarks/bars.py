"""A bar while something is played."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress

from planner.checkpoint import Checkpoint
from planner.cli.evaluate import SPEED_PERIOD
from planner.evaluate.run import Outcome, Protocol, evaluate
from planner.settings import PlannerConfig
from planner.tasks import load_envs


def bars_of(console: Console) -> Progress:
    """Bars that are gone when they are done. What is left is told from the last hour: episodes may take minutes."""
    return Progress(console=console, transient=True, speed_estimate_period=SPEED_PERIOD)


def watched(
    task: str, loaded: Checkpoint, settings: PlannerConfig, protocol: Protocol, label: str, console: Console
) -> Outcome:
    """`evaluate` under a bar on `console` that says `label`, who plays, and how many goals were reached so far."""
    with bars_of(console) as bars:
        line = bars.add_task("", total=protocol.episodes)

        def advance(policy: str, done: int, total: int, successes: int) -> None:
            bars.update(line, description=f"{label}, {policy}: {successes} reached", completed=done)

        return evaluate(load_envs(), task, loaded, settings, protocol, advance)
