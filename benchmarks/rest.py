"""What a model foresees of a robot at rest: nothing should move but what is still moving.

Play is always on its way, so that a model may never have seen its world stand still. What it foresees of rest is then
off, each step a little more, and a planner that goes by the least of many such futures finds those in which things move
to where they should be by themselves. Play is cut off and the robot rests (`collect.at_rest`); after the H looks of a
history, H - 1 model steps in which what moved comes to rest, what is foreseen of further rest is set beside what comes.
Pictures are what the encoder makes of them, so `off` is to be compared among models of one encoder. A row a checkpoint
is appended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from tensordict import TensorDict

from planner import checkpoint
from planner.collect import at_rest, play_episode
from planner.errors import BadInput, check_seed
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
        seed: of the play, which no training uses; 1000 is that of the pairs that settings are chosen on.
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
    check_seed("rest", options.seed)
    torch.set_num_threads(1)
    loaded = checkpoint.load(checkpoint.find(options.task, options.checkpoint), task=options.task)
    found = drift(loaded.model, *rests(options, loaded.model))
    report, n = Rows(options.out, fresh=True), options.episodes
    weights = str(options.checkpoint) if options.checkpoint else "shipped"
    of = {"task": options.task, "weights": weights, "checkpoint_sha256": loaded.sha256, "seed": options.seed, "n": n}
    means = {name: each.mean(0).tolist() for name, each in found.items()}
    spread = {name: (each.std(0, correction=0) / n**0.5).tolist() for name, each in found.items()}
    report(of | _rounded(means) | {"standard_errors": _rounded(spread)})
    for name, mean in means.items():
        told = (f"{value:.4f} ±{error:.4f}" for value, error in zip(mean, spread[name], strict=True))
        Console().print(f"{name:12}{'  '.join(told)}", highlight=False, soft_wrap=True)


def _rounded(found: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(value, 5) for value in values] for name, values in found.items()}


def rests(options: Options, model: JEPA) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of robots that rest, from the moment on at which play is cut off, a model step apart, `[episodes,
    H + horizon, size, size, 3]`; and what each does all the while, `[episodes, env_dim]`."""
    films, done = [], []
    with load_envs().make(options.task, model.config.image_size) as env:
        for k in track(range(options.episodes), "resting"):
            rng = np.random.default_rng([EVALUATE_STREAM, options.seed, k])
            states, actions = play_episode(env, PLAYED, rng)
            env.set_state(states[-1])
            done.append(at_rest(env, actions[-1]))
            film = [env.picture()]
            for _ in range(model.history + options.horizon - 1):
                for _ in range(model.action.block):
                    env.advance(done[-1])
                film.append(env.picture())
            films.append(np.stack(film))
    return torch.from_numpy(np.stack(films)), torch.from_numpy(np.stack(done)).float()


@torch.no_grad()
def drift(model: JEPA, films: torch.Tensor, rest: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of films `[N, H + T, ...]` of robots that do `rest` `[N, env_dim]` all the while, for 1 to T model steps after
    the H-th look, of which the model saw all H, `[N, T]`.

    Mean square distances of latents, `off` of what was foreseen from what came, `moved` of what came from the last look
    (a feature has a variance of about 1); and as a planner's energy has them, distances of what was foreseen from the
    last look: `slow` by slow features, 0 to 1, `steps` in model steps. Those of what came are `slow_moved` and
    `steps_moved`.
    """
    history, (n, looks) = model.history, films.shape[:2]
    latents = torch.cat([model.embed(film) for film in films.split(20)])  # [N, H + T, D]
    acted = model.action.encode(rest[:, None, None].expand(n, looks - 1, model.action.block, -1))  # [N, H + T - 1, A]
    known = Context(TensorDict({"latent": latents[:, :history]}, [n, history]), acted[:, : history - 1])
    foreseen = model.rollout(known, acted[:, None, history - 1 :])["latent"][:, 0]
    came, last = latents[:, history:], latents[:, history - 1 : history]
    found = {"off": (foreseen - came).square().mean(-1), "moved": (came - last).square().mean(-1)}
    for name, head in {"slow": model.slow, "steps": model.temporal}.items():
        if head is not None:
            found |= {name: head(foreseen, last), f"{name}_moved": head(came, last)}
    return found


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"rest: {error}") from None
