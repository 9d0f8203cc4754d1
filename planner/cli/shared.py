"""What the commands share: the console, how tasks and checkpoints are named, progress."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro
from rich.console import Console

from ..errors import BadInput
from ..tasks import is_recorded, load_envs

if TYPE_CHECKING:
    from ..actions import ActionSpec
    from ..checkpoint import Checkpoint
    from ..data import EpisodeStore
    from ..symmetry import Symmetry

console = Console()
_TASKS = (
    "TwoRoom, PointMaze, Reacher, PushT, Cube; another's, as ogbench/cube-single; your own, as module:Class; or"
    " recorded/NAME, of `import`."
)
Task = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=_TASKS)]


def check_task(task: str) -> None:
    """Raises `BadInput` if there is no such task, be it one that there are but recordings of."""
    if not is_recorded(task):
        load_envs().check_task(task)


def check_share(command: str, held_out: float) -> None:
    """Raises `BadInput` unless it is a share of rows that leaves some on either side."""
    if not 0 < held_out < 1:
        raise BadInput(f"{command}: held_out is off", expected="above 0 and below 1", got=str(held_out))


def cores() -> int:
    """Processor cores that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load(task: str, path: Path | None) -> Checkpoint:
    """The checkpoint for `task`; says which renderer draws, and refuses nothing silently."""
    from .. import checkpoint

    check_task(task)
    loaded = checkpoint.load(checkpoint.find(task, path), task=task)
    if is_recorded(task):
        console.print(f"{task}: checkpoint {loaded.sha256[:12]}", highlight=False)
        return loaded
    renderer = load_envs().choose_backend()
    note = "" if renderer == loaded.renderer else f" [yellow](the checkpoint saw pictures of {loaded.renderer})[/]"
    console.print(f"{task}: checkpoint {loaded.sha256[:12]}, renderer {renderer}{note}", highlight=False)
    return loaded


def warn_of_renderer(pictures: str, encoder: str) -> None:
    """Says so where an encoder that stands still has seen other pictures than those given; "" is not known.

    It is no mistake: where it plans on such a machine it will see such pictures, too.
    """
    if encoder not in ("", pictures):
        told = f"warning: the pictures are of {pictures}; the encoder, which stands still, was trained on {encoder}'s"
        console.print(told, highlight=False)


def warn_of_learned(store: EpisodeStore, rows: int, checkpoint: Path) -> None:
    """Says so where `rows` that are held out of recordings may be ones that a checkpoint learned, by its card.

    Of other recordings nobody knows whether some were in both.
    """
    from ..checkpoint import card_of

    if not is_recorded(store.info.task):
        return
    card = card_of(checkpoint)
    held = re.search(r"\| (\d+) episodes of \d+ steps, (\d+) of them held out", card)
    told = ""
    if store.info.policy not in card:
        told = "the checkpoint's card does not name these recordings: what it knows of them it may have learned"
    elif f"trained on episodes of {store.info.policy}." in card and held and rows > int(held[2]):
        told = f"warning: {rows} rows are held out here, and training held out {held[2]}"
    if told:
        console.print(told, highlight=False, soft_wrap=True)


def actions_of(task: str) -> ActionSpec | None:
    """The task's actions; None where there are but recordings, whose dataset says."""
    if is_recorded(task):
        return None
    spec: ActionSpec = load_envs().task_class(task).action_spec()
    return spec


def symmetries_of(task: str) -> tuple[Symmetry, ...]:
    """Those that the task lists; none of what there are but recordings of."""
    if is_recorded(task):
        return ()
    symmetries: tuple[Symmetry, ...] = load_envs().task_class(task).symmetries
    return symmetries


def typed() -> str:
    """The command as it was typed, for cards."""
    return f"jepa-mpc {shlex.join(sys.argv[1:])}"


def finished(told: str, task: str, folder: Path, more: str = "") -> None:
    """Says where a checkpoint lies, what became of it, and how to see what it is worth."""
    use = f"serve {task}" if is_recorded(task) else f"evaluate {task}"
    console.print(f"{folder}: {told}; try `jepa-mpc {use} --checkpoint {folder}{'' if is_recorded(task) else more}`")


def stopped(state: Path) -> NoReturn:
    """Ends the command after an interruption."""
    console.print(f"stopped after a whole step; the same command goes on from {state}")
    raise SystemExit(130)


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar to call with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        line = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(line, completed=done, total=total)
