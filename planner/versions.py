"""What software made a result."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("jepa-mpc", "torch", "mujoco", "gymnasium", "numpy")


def versions(*more: str) -> dict[str, str]:
    """Versions of the packages that decide results, and of `more` of them; "not installed" where one is missing."""
    found = {}
    for package in (*PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def commit() -> str:
    """The commit of the checkout, with "+" if it was changed since; "unknown" outside one, as in an installed package.

    As it was when this process first asked: what is long asks as it begins, since what runs is not what lies there when
    it ends.
    """
    here = Path(__file__)
    try:
        # Somebody else's checkout may hold the environment that this is installed in: it does not track this file.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(folder: Path, *words: str) -> str:
    # Where git itself runs this, as a hook, it says by GIT_DIR and the like which checkout it means.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    told: dict[str, Any] = {"capture_output": True, "text": True, "check": True, "timeout": 10, "env": own}
    return str(subprocess.run(["git", "-C", str(folder), *words], **told).stdout).strip()
