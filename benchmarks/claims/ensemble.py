"""Predictors that differ in first weights and batches alone, on a shipped encoder, and what they disagree about.

Where they disagree, they have not learned what comes. That says something of what they are shown; it does not look at
what then happens. `python -m benchmarks.claims.ensemble` trains them.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from safetensors.torch import load as load_tensors

from planner import checkpoint
from planner.checkpoint import Checkpoint
from planner.data import EpisodeStore
from planner.errors import BadInput
from planner.models.ensemble import Ensemble
from planner.models.jepa import JEPA
from planner.recipes import POLISH
from planner.tasks import folder_name
from planner.versions import commit

from .weights import intact, write

PART = "predictor."


def save(folder: Path, members: list[JEPA], encoder: str, task: str, notes: dict[str, object]) -> str:
    """Writes the members' predictors alone, and whose `encoder` they are for; returns the weights' SHA-256."""
    tensors = {
        f"{k}.{name}": value
        for k, member in enumerate(members)
        for name, value in member.state_dict().items()
        if name.startswith(PART)
    }
    return write(
        folder, tensors, {"kind": "ensemble", "task": task, "encoder": encoder, "members": len(members)} | notes
    )


def load(folder: Path, loaded: Checkpoint) -> tuple[Ensemble, str]:
    """The ensemble on the encoder of `loaded`, and the weights' SHA-256.

    Raises:
        BadInput: if it is missing, altered, or was trained on another encoder.
    """
    config, weights = intact(folder)
    if config["encoder"] != loaded.sha256:
        expected, do = config["encoder"], "train it anew with `python -m benchmarks.claims.ensemble`"
        raise BadInput(f"ensemble {folder} is for another encoder", expected=expected, got=loaded.sha256, do=do)
    tensors = load_tensors(weights)
    members = []
    for k in range(config["members"]):
        own = {name.removeprefix(f"{k}."): value for name, value in tensors.items() if name.startswith(f"{k}.")}
        member = loaded.model.renewed("predictor", loaded.model.config)
        member.load_state_dict(member.state_dict() | own)
        members.append(member.eval().requires_grad_(False))
    return Ensemble(members), config["sha256"]


@dataclass(frozen=True)
class Options:
    """Train an ensemble on the encoder of a shipped checkpoint.

    Attributes:
        task: whose.
        members: predictors, >= 2.
        steps: updates of each.
        checkpoint: of the encoder; checkpoints/TASK by default.
        data: the dataset; data/TASK by default.
        out: folder for logs and the states to resume from; runs/rivals/TASK-ensemble by default.
        save: folder of the weights; among those of the rivals by default.
        threads: of the processor.
    """

    task: tyro.conf.Positional[str] = "TwoRoom"
    members: int = 4
    steps: int = 4000
    checkpoint: Path | None = None
    data: Path | None = None
    out: Path | None = None
    save: Path | None = None
    threads: int = 1


def main(options: Options) -> None:
    """Trains one member after the other; a finished one is not trained again."""
    from planner.training import polish  # brings Lightning, which those who only load do not need

    if options.members < 2:
        raise BadInput("ensemble: members is off", expected="at least 2", got=str(options.members))
    torch.set_num_threads(options.threads)
    name = f"{folder_name(options.task)}-ensemble"
    out, folder = options.out or Path("runs/rivals") / name, options.save or Path(__file__).parent / "weights" / name
    loaded = checkpoint.load(checkpoint.find(options.task, options.checkpoint), task=options.task)
    store = EpisodeStore.open(options.data or Path("data") / folder_name(options.task))
    store.verify()
    members = []
    for seed in range(options.members):
        torch.manual_seed(seed)
        fresh = loaded.model.renewed("predictor", loaded.model.config)
        config = replace(POLISH, steps=options.steps, seed=seed)
        member = polish(fresh, [store], config, out / str(seed), encoder=loaded.sha256, tensorboard=False)
        if member is None:
            print("stopped after a whole step; the same command goes on from there")
            raise SystemExit(130)
        members.append(member)
    command = f"python -m benchmarks.claims.ensemble {shlex.join(sys.argv[1:])}"
    notes = {"command": command, "steps": options.steps, "commit": commit()}
    save(folder, members, loaded.sha256, options.task, notes)
    print(f"{folder}: {len(members)} predictors on the encoder of {loaded.sha256[:12]}")


if __name__ == "__main__":
    main(tyro.cli(Options))
