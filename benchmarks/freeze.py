"""Freezes the protocol of tasks: seeds, distances, budgets, judges, and the digests of the pairs.

A protocol that did not change stays as it is. One that did gets the next version, since figures name the one before;
with `--replace` the newest version is written anew, for one that no figure names yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from planner.evaluate.frozen import freeze, read, versions_of, write
from planner.tasks import load_envs


@dataclass(frozen=True)
class Options:
    """Freeze the protocol of tasks.

    Attributes:
        tasks: all by default.
        replace: write the newest version anew in place of adding one.
    """

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    replace: bool = False


def main(options: Options) -> None:
    """Writes what changed."""
    envs = load_envs()
    for task in options.tasks or envs.TASKS:
        env = envs.make(task)
        known, old = versions_of(task, envs.PROTOCOLS), read(task, envs.PROTOCOLS)
        newest = known[-1] if known else 0
        new = freeze(env, version=newest)
        env.close()
        if new == old:
            print(f"{old.name}: as frozen")
            continue
        print(write(new if options.replace and known else replace(new, version=newest + 1), envs.PROTOCOLS))


if __name__ == "__main__":
    main(tyro.cli(Options))
