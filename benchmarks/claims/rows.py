"""Rows of what was measured, kept as JSONL; one that is there is not measured again."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from planner.versions import commit

Row = dict[str, Any]


class Rows:
    """A file of rows that grows by being called.

    Args:
        path: JSONL; its folder is made.
        fresh: do not look at what is there already; new rows then stand behind the old ones and count in their place.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        commit()  # asked now: results name the commit that the work began on
        self.known = [] if fresh else read(path)

    def __call__(self, row: Row) -> None:
        """Appends a row, with when and on what it was measured."""
        row = row | {
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "load": round(os.getloadavg()[0], 1),
            "commit": commit(),
        }
        with self.path.open("ab", buffering=0) as file:  # in one write: another process may append, too
            file.write(f"{json.dumps(row)}\n".encode())
        self.known.append(row)

    def has(self, wanted: Row) -> bool:
        """Whether a row agrees with `wanted` in all that it says: what was measured, of which weights, with what."""
        return self.last(wanted) is not None

    def last(self, wanted: Row) -> Row | None:
        """The newest row that agrees with `wanted` so."""
        wanted = json.loads(json.dumps(wanted))  # tuples become lists, as they do in the file
        agree = (row for row in reversed(self.known) if all(row.get(key) == value for key, value in wanted.items()))
        return next(agree, None)


def digest(settings: Any) -> str:
    """A planner's settings in eight digits, so that rows of other ones are not taken for its own.

    Those that are not the defaults: a setting that is added leaves the digits of planners that do not use it.
    """
    usual = asdict(type(settings)())
    changed = {name: value for name, value in asdict(settings).items() if value != usual[name]}
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]


def read(path: Path) -> list[Row]:
    """Every row of a file; none where there is no file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
