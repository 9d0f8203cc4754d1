"""How far a world model's predictions are off, on play and on what planners did.

A planner takes the plan of which its model promises most, so its plans lie where the model is wrong in its favour: the
error there is the one that counts, and the one on held-out play says little of it. A row a model and dataset is
appended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from planner import checkpoint
from planner.data import EpisodeStore
from planner.errors import BadInput
from planner.evaluate.rehearsal import BATCH, held_out_windows
from planner.evaluate.rehearsal import errors as rehearsal_errors
from planner.settings import TrainConfig
from planner.training import check_datasets
from planner.types import WorldModel
from planner.versions import commit


@dataclass(frozen=True)
class Options:
    """Measure predictions on held-out episodes.

    Attributes:
        task: of the checkpoints and the datasets.
        data: datasets; the last twentieth of each is measured, which no training on that dataset draws from (one on a
            larger dataset of the same seed does).
        checkpoints: folders; the shipped one by default.
        steps: model steps ahead.
        windows: of every dataset, drawn where the picture changes; rounded up to whole batches of 100.
        out: rows, one a checkpoint and dataset.
    """

    task: tyro.conf.Positional[str]
    data: tuple[Path, ...]
    checkpoints: tuple[Path, ...] = ()
    steps: int = 4
    windows: int = 2000
    out: Path = Path("benchmarks/results/foresight.jsonl")


def main(options: Options) -> None:
    """Measures every checkpoint on every dataset, appends the rows, and prints them."""
    if min(options.steps, options.windows) < 1:
        raise BadInput("steps or windows is off", expected="at least 1", got=f"{options.steps} and {options.windows}")
    stores = [EpisodeStore.open(path) for path in options.data]
    for store in stores:
        store.verify(options.task)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    began, windows = commit(), -(-options.windows // BATCH) * BATCH
    paths = options.checkpoints or (checkpoint.find(options.task, None),)
    models = [checkpoint.load(path, task=options.task) for path in paths]
    for loaded in models:  # all of them before the first row
        check_datasets(stores, loaded.model)  # or every error would be of other actions than were done
    for path, loaded in zip(paths, models, strict=True):
        for store in stores:
            found = errors(loaded.model, store, options.steps, windows)
            row = {"task": options.task, "checkpoint_sha256": loaded.sha256, "data": store.info.policy}
            row |= {
                "seed": store.info.seed,
                "episodes": store.info.episodes,
                "windows": windows,
                "errors": found,
                "commit": began,
            }
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            Console().print(f"{path} on {store.path}: {'  '.join(f'{error:.3f}' for error in found)}", highlight=False)


def errors(model: WorldModel, store: EpisodeStore, steps: int, count: int, batch: int = BATCH) -> list[float]:
    """`rehearsal.errors` on held-out episodes."""
    windows = held_out_windows(store, model.history + steps, TrainConfig.held_out, batch)
    return rehearsal_errors(model, windows, count)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"foresight: {error}") from None
