"""What a model foresees of a robot at rest: nothing should move but what is still moving.

Play is always on its way, so that a model may never have seen its world stand still. What it foresees of rest is then
off, each step a little more, and a planner that goes by the least of many such futures finds those in which things move
to where they should be by themselves. Held-out play is cut off, the robot rests, and what was foreseen of that from the
first moment on is set beside what came. A row a checkpoint is appended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from tensordict import TensorDict

from planner import checkpoint
from planner.collect import record_episode
from planner.errors import BadInput
from planner.evaluate.protocol import EVALUATE_STREAM
from planner.models.jepa import JEPA
from planner.tasks import load_envs
from planner.types import Context

from .claims.rows import Rows

PLAYED = 100
"""Environment steps of play before the robot rests."""


@dataclass(frozen=True)
class Options:
    """Measure what a checkpoint foresees of rest.

    Attributes:
        task: one of ours.
        checkpoint: a folder; the shipped one by default.
        episodes: of play, each cut off once.
        horizon: model steps of rest.
        seed: of the play; 1000 is nobody's.
        out: rows.
    """

    task: tyro.conf.Positional[str]
    checkpoint: Path | None = None
    episodes: int = 60
    horizon: int = 6
    seed: int = 1000
    out: Path = Path("benchmarks/results/rest.jsonl")


def main(options: Options) -> None:
    """Measures, appends the row and prints it."""
    if min(options.episodes, options.horizon) < 1:
        got = f"{options.episodes}, {options.horizon}"
        raise BadInput("rest: episodes or horizon is off", expected="at least 1", got=got)
    torch.set_num_threads(1)
    loaded = checkpoint.load(checkpoint.find(options.task, options.checkpoint), task=options.task)
    films = rests(options, loaded.model)
    found = drift(loaded.model, films)
    report = Rows(options.out, fresh=True)
    of = {"task": options.task, "checkpoint_sha256": loaded.sha256, "seed": options.seed, "episodes": options.episodes}
    report(of | {name: [round(value, 5) for value in values] for name, values in found.items()})
    for name, values in found.items():
        Console().print(f"{name:18}{'  '.join(f'{value:.4f}' for value in values)}", highlight=False)


def rests(options: Options, model: JEPA) -> torch.Tensor:
    """Pictures of robots that rest, from the moment on at which play is cut off, a model step apart:
    `[episodes, H + horizon, size, size, 3]`."""
    spec, films = model.action, []
    still, looks = spec.still()[0].numpy(), model.history + options.horizon
    with load_envs().make(options.task, model.config.image_size) as env:
        for k in track(range(options.episodes), "resting"):
            record_episode(env, PLAYED, np.random.default_rng([EVALUATE_STREAM, options.seed, k]))
            film = [env.picture()]
            for _ in range(looks - 1):
                for _ in range(spec.block):
                    env.advance(still)
                film.append(env.picture())
            films.append(np.stack(film))
    return torch.from_numpy(np.stack(films))


@torch.no_grad()
def drift(model: JEPA, films: torch.Tensor) -> dict[str, list[float]]:
    """Means over films `[N, H + T, ...]` for 1 to T model steps after the H-th look, of which the model saw all H.

    Mean square distances of latents, `off` of what was foreseen from what came, `moved` of what came from the last look
    (a feature has a variance of about 1); and as a planner's energy has them, distances of what was foreseen from the
    last look: `slow` by slow features, 0 to 1, `steps` in model steps. Those of what came are `slow_moved` and
    `steps_moved`.
    """
    history, (n, looks) = model.history, films.shape[:2]
    latents = torch.cat([model.embed(film) for film in films.split(20)])  # [N, H + T, D]
    rest = model.action.encode(model.action.still()).flatten()  # [A]
    known = Context(TensorDict({"latent": latents[:, :history]}, [n, history]), rest.expand(n, history - 1, len(rest)))
    foreseen = model.rollout(known, rest.expand(n, 1, looks - history, len(rest)))["latent"][:, 0]
    came, last = latents[:, history:], latents[:, history - 1 : history]
    found: dict[str, Any] = {"off": (foreseen - came).square().mean(-1), "moved": (came - last).square().mean(-1)}
    for name, head in {"slow": model.slow, "steps": model.temporal}.items():
        if head is not None:
            found |= {name: head(foreseen, last), f"{name}_moved": head(came, last)}
    return {name: values.mean(0).tolist() for name, values in found.items()}


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"rest: {error}") from None
