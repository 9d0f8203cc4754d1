"""Freezes the protocol of tasks: seeds, distances, budgets, judges, the pairs and their digests.

The pairs themselves lie beside it. A protocol that did not change stays as it is, and so does one of which only the
pairs would be others, as they are on a processor that rounds otherwise; `--anew` takes these. One that changed gets the
next version, since figures name the one before; with `--replace` the newest is written anew, where no figure names it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from planner.errors import BadInput
from planner.evaluate.frozen import Frozen, freeze, pairs_path, read, versions_of, write
from planner.tasks import load_envs


@dataclass(frozen=True)
class Options:
    """Freeze the protocol of tasks.

    Attributes:
        tasks: all by default.
        replace: write the newest version anew in place of adding one.
        anew: take the pairs that the seeds give here, where a protocol keeps others.
    """

    tasks: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    replace: bool = False
    anew: bool = False


def main(options: Options) -> None:
    """Writes what changed."""
    envs = load_envs()
    if strange := [task for task in options.tasks if task not in envs.TASKS and task not in envs.ADAPTERS]:
        raise BadInput("freeze: only tasks that ship have a protocol here", got=", ".join(strange))
    for task in options.tasks or envs.TASKS:
        env = envs.make(task)
        known, old = versions_of(task, envs.PROTOCOLS), read(task, envs.PROTOCOLS)
        newest = known[-1] if known else 0
        new, pairs = freeze(env, version=newest)
        env.close()
        if old and _but_for_pairs(new) == _but_for_pairs(old) and not (options.anew and new != old):
            if new == old and not pairs_path(old, envs.PROTOCOLS).exists():
                write(old, envs.PROTOCOLS, pairs)
            told = "as frozen" if new == old else "as frozen, but its seeds give other pairs here; it keeps its own"
            print(f"{old.name}: {told}")
            continue
        new = new if options.replace and known else replace(new, version=newest + 1)
        print(write(new, envs.PROTOCOLS, pairs))


def _but_for_pairs(frozen: Frozen) -> Frozen:
    """Everything that a protocol says but which pairs its seed gave."""
    columns = {name: replace(one, solved=0, ruled_out=0, digests={}) for name, one in frozen.columns.items()}
    return replace(frozen, columns=columns)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"freeze: {error}") from None
