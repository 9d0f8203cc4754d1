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
    """The commit of the checkout, with "+" if it was changed since; "unknown" outside one.

    As it was when this process first asked: what is long asks as it begins, since what runs is not what lies there when
    it ends.
    """
    here = Path(__file__).parent
    try:
        shown = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(shown, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
