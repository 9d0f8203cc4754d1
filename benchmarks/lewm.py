"""LeWM's recipe beside ours: its losses, predictor and planner with our encoder, on the same play and the same pairs.

The recipe is that of arXiv 2603.19312 and of its authors' code: prediction of one step from one, two and three frames,
and SIGReg of the frames of each place in the window; a transformer with adaptive layer norms over three frames; CEM
with 300 candidates and 30 iterations, five model steps ahead, first as wide as play's actions are spread, all of them
done before it looks again. Ours are the encoder, pictures of 64 pixels, windows whose history is hidden (as our planner
begins an episode), the learning rate, as 5,000 updates of 32 windows stand for its 100 epochs of 128, and the details
of CEM: 37 elites for its 30, a tenth of the old distribution kept, actions kept in bounds, and the best plan that was
found in place of the last mean. A row a task is appended; training resumes, and what is measured is not measured again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from planner import cards, checkpoint, training
from planner.data import EpisodeStore
from planner.errors import BadInput
from planner.evaluate.compare import Side, compare, read_side
from planner.evaluate.run import Protocol, write_results
from planner.evaluate.statistics import paired
from planner.models.jepa import JEPAConfig
from planner.recipes import recipe_for
from planner.settings import PlannerConfig, TrainConfig
from planner.tasks import folder_name

from .bars import watched
from .claims.rows import read

SHAPE = JEPAConfig(predictor="transformer", latent_dim=192, history=3, hidden=2048, depth=6, heads=16, dropout=0.1)
"""Of its model; the encoder is the one that our recipe of the task has."""
TRAINING = TrainConfig(
    batch=32,
    horizon=1,
    growing=True,
    inverse_weight=0,
    sigreg_weight=0.72,
    sigreg_directions=1024,
    sigreg_apart=True,
)
"""Its weight of SIGReg, 0.09, is of twice our statistic, which is N times a distance: 32 windows for its 128."""
KEPT = ("batch", "sigreg_weight", "sigreg_apart", "growing", "learning_rate")
"""What a row says of its training; rows of before the last of these was right do not have it."""
PLANNER = PlannerConfig(optimizer="cem", samples=300, iterations=30, horizon=5, execute=5, hold=1, over="last")


@dataclass(frozen=True)
class Options:
    """Measure LeWM's recipe beside ours.

    Attributes:
        task: one with a shipped checkpoint.
        data: play to train on; data/TASK by default.
        updates: of its training; 5,000 took 47 minutes on one core of a busy machine.
        episodes: pairs, 25 steps apart.
        precision: that it rehearses in, float32 or bfloat16; ours keeps its own.
        threads: CPU threads.
        folder: of its run and of both evaluations.
        out: rows; the last of a task is the one that counts.
        recorded: do not train it: set what ships now beside what the last row of the task says that it reached.
    """

    task: tyro.conf.Positional[str]
    data: Path | None = None
    updates: int = 5000
    episodes: int = 100
    precision: str = "float32"
    threads: int = 1
    folder: Path = Path("runs/lewm")
    out: Path = Path("benchmarks/results/lewm.jsonl")
    recorded: bool = False


def main(options: Options) -> None:
    """Trains it unless it is trained, plays both, appends the row, and prints it."""
    console, folder = Console(), options.folder / folder_name(options.task)
    torch.set_num_threads(options.threads)
    ours = checkpoint.load(checkpoint.find(options.task, None), task=options.task)
    sides = {"ours": (ours, ours.planner)}
    if options.recorded:
        before = last_row(options, read(options.out))
    elif (theirs := trained(options, folder)) is None:
        console.print("stopped after a whole step; the same command goes on")
        raise SystemExit(130)
    else:
        sides["lewm"] = (theirs, replace(theirs.planner, precision=options.precision))
    for name, (loaded, settings) in sides.items():
        play(options, name, loaded, settings, folder / name, console)
    played = [read_side(folder / name) for name in sides]
    row = beside(before, *played) if options.recorded else facts(options, *played)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if row not in read(options.out):  # read again: another task's row may have come while this one was trained
        with options.out.open("a") as file:
            file.write(f"{json.dumps(row)}\n")
    console.print(told(row), highlight=False)


def trained(options: Options, folder: Path) -> checkpoint.Checkpoint | None:
    """Its checkpoint in `folder`; None if training was interrupted. A finished training is over at once."""
    store = EpisodeStore.open(options.data or Path("data") / folder_name(options.task))
    store.verify(options.task)
    shape = replace(SHAPE, encoder=recipe_for(options.task).model.encoder, image_size=store.info.size)
    config = replace(TRAINING, steps=options.updates)
    model = training.train(store, shape, config, folder, tensorboard=False)
    if model is None:
        return None
    card = cards.card(store, shape, config, folder, f"python -m benchmarks.lewm {options.task}", None)
    planner = replace(PLANNER, std=spread(store))
    about = {"task": options.task, "renderer": store.info.renderer, "planner": planner, "card": card}
    checkpoint.save(folder / "checkpoint", model, **about)
    return checkpoint.load(folder / "checkpoint", task=options.task)


def spread(store: EpisodeStore) -> float:
    """Standard deviation of play's actions, in half the width of their bounds: its planner counts in these."""
    spec = store.info.action_spec
    whole = store.data["actions"][:, : store.info.steps // spec.block * spec.block]  # [episodes, L, env_dim]
    coded = spec.encode(whole.unflatten(1, (-1, spec.block))).unflatten(-1, (spec.block, -1))
    return round(float(coded.flatten(0, 2).var(0).mean().sqrt()), 3)


def play(
    options: Options, name: str, loaded: checkpoint.Checkpoint, settings: PlannerConfig, out: Path, console: Console
) -> None:
    """One side's evaluation, into `out`; one of the same weights, settings and pairs is not played again."""
    wanted = {"checkpoint_sha256": loaded.sha256, "planner": asdict(settings), "n": options.episodes}
    if (out / "results.json").exists():
        found = json.loads((out / "results.json").read_text())
        timed_alike = found["hardware"].endswith(f" {options.threads} threads")
        if timed_alike and all(found.get(key) == value for key, value in wanted.items()):
            return
    protocol = Protocol(options.episodes, oracle=False)
    write_results(out, [watched(options.task, loaded, settings, protocol, name, console)])


def facts(options: Options, ours: Side, theirs: Side) -> dict[str, Any]:
    """The row: both sides, pair by pair, so that others can be tested against them later, and the paired test."""
    found = compare(ours, theirs)
    return {
        "task": options.task,
        "updates": options.updates,
        "training": {name: getattr(TRAINING, name) for name in KEPT},
        **_measured(ours),
        "ours": _side(ours),
        "lewm": _side(theirs),
        **{key: found[key] for key in ("only_first", "only_second", "p", "times_faster")},
    }


def last_row(options: Options, known: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the task and as many pairs, among those `known`; `BadInput` where none tells who reached which."""
    rows = [row for row in known if row["task"] == options.task and "pairs" in row]
    if mine := [row for row in rows if row["n"] == options.episodes]:
        return mine[-1]
    got = f"rows of {' and '.join(str(n) for n in sorted({row['n'] for row in rows}))} pairs" if rows else "none"
    expected, do = f"a row of {options.episodes} pairs in {options.out}", "say --episodes, or train it: --no-recorded"
    raise BadInput(f"no record of LeWM's recipe on {options.task}", expected=expected, got=got, do=do)


def beside(before: dict[str, Any], ours: Side) -> dict[str, Any]:
    """The row `before` with ours played anew. LeWM's side keeps when and with what it was played, and no times are
    compared with those of that day."""
    now = _measured(ours)
    for key in ("n", "distance", "budget", "seed", "pairs"):
        if before[key] != now[key]:
            expected, got = f"{key} {before[key]}, as its recipe was played on", str(now[key])
            raise BadInput("lewm: not the same pairs", expected=expected, got=got, do="train it: --no-recorded")
    found = paired(ours.successes, before["lewm"]["reached"])
    tested = {key: found[key] for key in ("only_first", "only_second", "p")}
    when = {key: before[key] for key in ("date", "commit", "hardware", "versions")}
    theirs = {"played": when} | before["lewm"]
    return before | now | {"ours": _side(ours), "lewm": theirs} | tested | {"times_faster": None}


def _measured(ours: Side) -> dict[str, Any]:
    shared = ("n", "distance", "budget", "seed", "hardware", "versions", "commit", "date")
    return {key: ours.result[key] for key in shared} | {"pairs": (ours.result["protocol"] or {}).get("name")}


def _side(side: Side) -> dict[str, Any]:
    kept = ("successes", "interval", "plan_ms", "checkpoint_sha256", "planner")
    return {key: side.result[key] for key in kept} | {"reached": side.successes}


def told(row: dict[str, Any]) -> str:
    """The row in a sentence."""
    ours, theirs = (
        f"{row[side]['successes']}/{row['n']} in {row[side]['plan_ms']['median']:.0f} ms a plan"
        for side in ("ours", "lewm")
    )
    alone = f"reached by one alone {row['only_first']} and {row['only_second']}, McNemar p = {row['p']:.2g}"
    return f"{row['task']}: ours {ours}, LeWM's recipe {theirs}; {alone}"


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"lewm: {error}") from None
