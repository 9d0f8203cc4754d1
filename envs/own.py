"""Tasks that people bring along: `module:Class`, named on the command line as Gymnasium and web servers have it."""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import ModuleType

from planner.errors import BadInput

from .base import GoalEnv

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
TAKEN = ("envs", "planner")
"""Names of our packages, which a module of somebody's own would hide, or be hidden by."""
WANTED = ("name", "spec_low", "spec_high", "spec_units", "substeps")
"""What a task has to say of itself; its scene is either `xml` or what `load` returns."""


def is_own(task: str) -> bool:
    """Whether `task` has the form of `module:Class`; nothing is imported to tell."""
    return NAME.fullmatch(task) is not None


def own_task(task: str) -> type[GoalEnv]:
    """The class that `module:Class` names, imported from the working directory or from what is installed.

    This runs the module's code, so `task` has to come from whoever started the program, never from a file.

    Raises:
        BadInput: if there is no such module or class, or it is not a finished `GoalEnv`.
    """
    module, _, name = task.partition(":")
    if module.split(".")[0] in TAKEN:
        raise BadInput(f"module {module!r} is jepa-mpc's own", do="rename yours, or its folder")
    if (here := os.getcwd()) not in sys.path:  # a console script looks in its own folder, not in ours
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks something itself
        where = f"{module.replace('.', '/')}.py in {here}, or an installed package"
        do = f"run from the folder that {module.split('.')[0]} lies in"
        raise BadInput(f"no module {module!r} for task {task}", expected=where, do=do) from None
    kind = getattr(found, name, None)
    if not (isinstance(kind, type) and issubclass(kind, GoalEnv)):
        expected = " or ".join(f"{module}:{key}" for key in _tasks(found)) or "a subclass of envs.GoalEnv"
        raise BadInput(f"task {task} is not a task", expected=expected, got=repr(kind) if kind else "no such class")
    if missing := _missing(kind):
        do = "see envs.GoalEnv"
        raise BadInput(f"task {task} is not finished", expected=f"it to define {', '.join(missing)}", do=do)
    return kind


def meant(task: str) -> str:
    """What somebody may have meant who typed a path in place of a module; "" where nothing is known of that."""
    path, _, name = task.partition(":")
    module = path.removesuffix(".py").strip("./").replace("/", ".")
    guess = f"{module}:{name or 'Class'}"
    return guess if guess != task and is_own(guess) and (path.endswith(".py") or name) else ""


def _tasks(module: ModuleType) -> list[str]:
    """The names of the tasks that a module defines itself."""
    own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return [key for key, value in own.items() if isinstance(value, type) and issubclass(value, GoalEnv)]


def _missing(kind: type[GoalEnv]) -> list[str]:
    """What the class has still to define."""
    missing = [name for name in WANTED if not hasattr(kind, name)]
    if not hasattr(kind, "xml") and kind.load is GoalEnv.load:
        missing.append("xml or load")
    return missing + [name for name in dir(kind) if getattr(getattr(kind, name), "__isabstractmethod__", False)]
