"""What software made a result."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    said = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return said.stdout.strip()
