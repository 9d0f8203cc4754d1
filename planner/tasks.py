"""The one door from the command line to our tasks; a stranger's `envs/` on the path does not get in its way."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from .errors import BadInput

OURS = Path(__file__).resolve().parent.parent / "envs" / "__init__.py"
"""Our tasks lie beside this package, in a checkout as in an installation."""

RECORDED = re.compile(r"recorded/\w[\w-]*")
"""What tasks are called that nobody can simulate here: there is nothing of them but recordings."""


def is_recorded(task: str) -> bool:
    """Whether `task` has the form of "recorded/arm"."""
    return RECORDED.fullmatch(task) is not None


def folder_name(task: str) -> str:
    """What folders of `task` are called: "TwoRoom" gives "tworoom", "ogbench/cube-single" "ogbench-cube-single", and
    "robots.swing:Pendulum" "robots-swing-pendulum"."""
    return re.sub("[/.:]", "-", task.lower())


def load_envs() -> ModuleType:
    """Our `envs` package, whatever else of that name the import path finds first.

    Raises:
        BadInput: if our package is missing, or another package called `envs` was imported before.
    """
    loaded = sys.modules.get("envs")
    if loaded is not None:
        if Path(loaded.__file__ or "").resolve() != OURS:
            raise BadInput(
                "another package called `envs` is in the way",
                expected=str(OURS),
                got=str(loaded.__file__),
                do="import jepa-mpc's tasks in a process of their own",
            )
        return loaded
    if not OURS.is_file():
        raise BadInput("jepa-mpc's tasks are missing", expected=str(OURS), do="install jepa-mpc again")
    spec = importlib.util.spec_from_file_location("envs", OURS, submodule_search_locations=[str(OURS.parent)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["envs"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules["envs"]
        raise
    return module
