"""The command `jepa-mpc`, made from dataclasses. Bad input is one line and exit code 2."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from errno import EACCES, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS
from typing import Any

import tyro
from rich.table import Table

from ..errors import BadInput
from ..models.jepa import JEPAConfig
from ..recipes import PRETRAIN, RECIPES, recipe_for
from ..settings import TrainConfig
from ..tasks import load_envs
from .data import Check, Collect, Import
from .evaluate import Compare, Demo, Evaluate, Rehearse
from .further import Join, Looks, Polish, Prior, Slow, Temporal
from .robot import Plan, Serve, Surprise
from .shared import console
from .train import Pretrain, Train

UNUSABLE = {EACCES, EEXIST, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EPERM, EROFS}
"""What is wrong with a path that somebody gave, and not with us."""

COMMANDS: dict[str, type[Any]] = {
    "check": Check,
    "collect": Collect,
    "import": Import,
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
    "rehearse": Rehearse,
    "plan": Plan,
    "serve": Serve,
    "surprise": Surprise,
    "demo": Demo,
}


class _AnyModel(JEPAConfig):
    """As it was typed, not judged: whether it is sound depends on defaults that are not known yet."""

    def __post_init__(self) -> None: ...


class _AnyTraining(TrainConfig):
    """As `_AnyModel`."""

    def __post_init__(self) -> None: ...


def _parse(words: list[str]) -> Any:
    """The options as a dataclass; defaults of training are those of the task's recipe, so that --help shows them."""
    if not words or words[0] not in COMMANDS:
        if words and words[0] not in ("-h", "--help"):
            raise BadInput("unknown command", expected=" or ".join(COMMANDS), got=repr(words[0]))
        console.print("[bold]jepa-mpc[/] COMMAND --help\n")
        told = Table.grid(padding=(0, 2), pad_edge=True)
        for name, command in COMMANDS.items():
            told.add_row(name, (command.__doc__ or "").splitlines()[0])
        console.print(told, highlight=False)
        raise SystemExit(0)
    command, prog, options = COMMANDS[words[0]], f"jepa-mpc {words[0]}", words[1:]
    if command not in (Train, Pretrain):
        return _known(tyro.cli(command, prog=prog, args=options))
    # Which recipe gives the defaults is known once the task is: a first look finds it. Help has to do with a guess.
    if {"-h", "--help"} & set(options):
        task = next((word for word in options if word in RECIPES), "")
    else:
        anything = command(tyro.MISSING, model=_AnyModel(), training=_AnyTraining())
        task = _known(tyro.cli(command, prog=prog, args=options, default=anything)).task
    recipe = recipe_for(task)
    training = recipe.training
    if command is Pretrain:
        given = {name: getattr(training, name) for name in ("augment", "shift", "repaint", "backdrop")}
        training = replace(PRETRAIN, **given)
    return tyro.cli(command, prog=prog, args=options, default=command(task, model=recipe.model, training=training))


def _known(options: Any) -> Any:
    """The options, once the module of a task of somebody's own that was typed is imported: an encoder that it brings
    along has to be known before a model's shape, or a checkpoint, is read."""
    task = getattr(options, "task", None)
    if isinstance(task, str) and ":" in task and load_envs().is_own(task):
        load_envs().task_class(task)
    return options


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
