"""The console script: settles what has to be settled before torch is loaded."""

from __future__ import annotations

import os


def main() -> None:
    """Runs `jepa-mpc`."""
    # GNU OpenMP's threads spin while they wait for each other, and take the processor from whatever else runs, which
    # may be what they wait for. A short spin keeps the speed of an idle machine: 2 threads planned PushT in 21 ms
    # (median) with any of these, and beside one busy process with a p99 of 239 ms by default and of 81 ms so.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    from .cli import main as run

    run()
