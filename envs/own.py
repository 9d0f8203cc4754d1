"""Tasks that people bring along: `module:Class`, named on the command line as Gymnasium and web servers have it."""

from __future__ import annotations

import importlib
import os
import re
import sys

from planner.errors import BadInput

from .base import GoalEnv

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
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
    if module.endswith(".py"):
        raise BadInput(f"task {task} names a file", expected=f"its module: {module[:-3]}:{name}")
    if (here := os.getcwd()) not in sys.path:  # a console script looks in its own folder, not in ours
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks something itself
        where = f"{module.replace('.', '/')}.py in {here}, or an installed package"
        raise BadInput(f"no module {module!r} for task {task}", expected=where, do="run from its folder") from None
    kind = getattr(found, name, None)
    if not (isinstance(kind, type) and issubclass(kind, GoalEnv)):
        tasks = [key for key, value in vars(found).items() if isinstance(value, type) and issubclass(value, GoalEnv)]
        expected = " or ".join(f"{module}:{key}" for key in tasks if key != "GoalEnv") or "a subclass of envs.GoalEnv"
        raise BadInput(f"task {task} is not a task", expected=expected, got=repr(kind) if kind else "no such class")
    if missing := _missing(kind):
        do = "define them; see envs.GoalEnv"
        raise BadInput(f"task {task} is not finished", expected=", ".join(missing), got="nothing of these", do=do)
    return kind


def _missing(kind: type[GoalEnv]) -> list[str]:
    """What the class has still to define."""
    missing = [name for name in WANTED if not hasattr(kind, name)]
    if not hasattr(kind, "xml") and kind.load is GoalEnv.load:
        missing.append("xml or load")
    return missing + [name for name in dir(kind) if getattr(getattr(kind, name), "__isabstractmethod__", False)]
