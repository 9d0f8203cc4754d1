"""What software made a result."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("jepa-mpc", "torch", "mujoco", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Versions of the packages that decide results; "not installed" where one is missing."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """The commit of the checkout, with "+" if it was changed since; "unknown" outside one."""
    here = Path(__file__).parent
    try:
        shown = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(shown, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
