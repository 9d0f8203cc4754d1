"""Freezes the protocol of tasks: seeds, distances, budgets, judges, the pairs and their digests.

The pairs themselves lie beside it. A protocol that did not change stays as it is. One that did gets the next version,
since figures name the one before; with `--replace` the newest version is written anew, where no figure names it yet.
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
        new, pairs = freeze(env, version=newest)
        env.close()
        if new == old:
            write(new, envs.PROTOCOLS, pairs)
            print(f"{old.name}: as frozen")
            continue
        new = new if options.replace and known else replace(new, version=newest + 1)
        print(write(new, envs.PROTOCOLS, pairs))


if __name__ == "__main__":
    main(tyro.cli(Options))
