"""Trains everybody who is compared on a task, one after the other: `python -m benchmarks.claims.everyone PushT`.

The same encoder, data and number of updates for all. Whoever is trained already is left as is; what was interrupted
goes on where it stopped. What ships is not among them, which was taught clouds on Reacher and PushT, nor Reacher's JEPA
with varied looks, which shipped before.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from planner.errors import BadInput
from planner.recipes import recipe_for
from planner.tasks import folder_name

from . import forks
from .contenders import TASKS, WEIGHTS
from .weights import plain_recipe

PROGRAMS = {"jepa-mpc": [str(Path(sys.executable).with_name("jepa-mpc"))], "python": [sys.executable]}
KINDS = "recurrent", "next_frame"
BRIEF = ["--steps", "2500"]
"""Updates of those with clouds, after those of the recipe."""


@dataclass(frozen=True)
class Options:
    """Train everybody who is compared on a task.

    Attributes:
        task: TwoRoom, Reacher or PushT; or PointMaze, whose rivals are asked about forks alone.
        dry_run: print the commands that are left, and leave it at that.
    """

    task: tyro.conf.Positional[str]
    dry_run: bool = False


def commands(task: str) -> Iterator[tuple[Path, list[str]]]:
    """What is to be there, and the command that makes it, in an order in which each finds what it starts from."""
    data, own = Path("data") / folder_name(task), Path(os.path.relpath(WEIGHTS)) / task.lower()

    def weights(name: str) -> Path:
        return own.with_name(f"{own.name}-{name}")

    def rival(name: str, start: str | None, *more: str) -> tuple[Path, list[str]]:
        kind = name.split("-")[0]
        given = [*more, *(["--start", str(weights(start))] if start else [])]
        return weights(name), [
            "python",
            "-m",
            "benchmarks.claims.rival",
            task,
            "--kind",
            kind,
            *given,
            "--save",
            str(weights(name)),
        ]

    yield data / "dataset.json", ["jepa-mpc", "collect", task]
    if task == forks.TASK:  # where a future forks, pictures alone are asked for
        yield rival("next_frame-blind", None, "--blind")
        yield rival("next_frame-0", None)
        return
    for kind in KINDS:
        yield rival(f"{kind}-0", None)
    yield weights("jepa-0"), ["jepa-mpc", "train", task, "--threads", "1", *_plain(task, weights("jepa-0"))]
    # On PushT the next-frame one reaches as good as nothing by the distance of its latents, whatever it is taught.
    taught = KINDS[:1] if task == "PushT" else KINDS
    for kind in taught:
        yield rival(f"{kind}-0.8", f"{kind}-0", "--augment", "0.8")
    for kind in taught:
        yield rival(f"{kind}-0.8-clouds", f"{kind}-0.8", "--augment", "0.8", "--clouds", *BRIEF)
    if task == "TwoRoom":
        more = ["--training.backdrop", "--training.shift", "--training.steps", "2500", "--threads", "1"]
        clouds = weights("jepa-0.8-clouds")
        run = ["--out", f"runs/rivals/{clouds.name}", "--save", str(clouds)]
        yield clouds, ["jepa-mpc", "looks", task, *more, *run]
        yield weights("ensemble"), ["python", "-m", "benchmarks.claims.ensemble", task]


def _plain(task: str, folder: Path) -> list[str]:
    """Options of a JEPA that sees plain pictures, and has no head that the others lack."""
    if task == "PushT":
        less = ["--training.polish-steps", "0", "--probe", "0", *as_then(task)]
    else:
        less = ["--training.augment", "0", "--model.temporal", "0"]
    return [*less, "--out", f"runs/rivals/{folder.name}", "--checkpoint", str(folder)]


def as_then(task: str) -> list[str]:
    """Options of `jepa-mpc train` that make of a task's recipe the one that those who are compared were trained by."""
    words = []
    for part in ("model", "training"):
        now, then = (asdict(getattr(recipe, part)) for recipe in (recipe_for(task), plain_recipe(task)))
        for name, value in then.items():
            if value != now[name]:
                flag = name.replace("_", "-")
                said = [f"--{part}.{flag}", str(value)]
                words += [f"--{part}.{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else said
    return words


def main(options: Options) -> None:
    """Trains, or says what would be."""
    if options.task not in (known := (*TASKS, forks.TASK)):
        raise BadInput("claims: nobody is compared there", expected=" or ".join(known), got=options.task)
    for made, words in commands(options.task):
        if made.exists():
            print(f"{made}: there already", flush=True)
            continue
        print(shlex.join(words), flush=True)
        command = [*PROGRAMS[words[0]], *words[1:]]
        if not options.dry_run and (code := subprocess.run(command).returncode):
            raise SystemExit(code)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"claims: {error}") from None
