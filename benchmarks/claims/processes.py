"""Work side by side in processes of its own: of the standard library alone, so that these begin at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

PROCESSES = 2


def side_by_side(work: Callable[..., None], wanted: Sequence[tuple[Any, ...]]) -> None:
    """Calls `work` with each of these arguments, in turn, in `PROCESSES` processes.

    Whatever fails is told at once; what is under way beside it ends first, and nothing else begins. So does Ctrl-C,
    which reaches those processes, too: none is handed more than it is at.
    """
    left, running = iter(wanted), set[Future[None]]()
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), end_with_parent) as pool:
        while True:
            running |= {pool.submit(work, *one) for one in islice(left, PROCESSES - len(running))}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for one in done:
                if (error := one.exception()) and running:
                    print(f"failed, and ends when what is beside it does: {error!r}", file=sys.stderr, flush=True)
                one.result()


def end_with_parent() -> None:
    """Has this process end as soon as the one that started it does, however that ended; else it would measure on."""
    if (parent := parent_process()) is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
