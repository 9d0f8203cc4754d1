"""What keeps a planner from its goals: goals that it misses, tried again with the simulator in its predictor's place.

Encoder, energy, search and prior stay; it plans once a model step, with `samples` candidates if told so. A goal that
is then reached was missed because what it imagined did not happen, or would be reached with other noise, for which a
control tells: the same misses, tried again by the planner as it is with the noise of another seed. One that is missed
again is for the encoder, the energy or the search. Noise follows from a pair's place among those played, so the
simulator's is not that of the miss either. It starts from the true state: what a camera does not show counts as
prediction here. A row is appended.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from tensordict import TensorDict
from torch import Tensor

from envs.oracle import OracleModel
from planner import checkpoint
from planner.errors import BadInput, check_seed
from planner.evaluate.protocol import held_out_pairs, play_pairs
from planner.evaluate.run import Protocol
from planner.models.jepa import JEPA
from planner.mpc import MPC
from planner.settings import PlannerConfig
from planner.tasks import load_envs
from planner.types import Context
from planner.versions import commit

OTHER_SEED = 1
"""Of the control's noise; the planner's own is 0."""


@dataclass(frozen=True)
class Options:
    """Find out whether predictions are what limits a planner.

    Attributes:
        task: one of ours; the simulator has to be able to rehearse it.
        checkpoint: a folder; the shipped one by default.
        episodes: pairs that the planner plays.
        distance: environment steps between start and goal.
        seed: of the pairs; 1000 are pairs that settings may be chosen on.
        samples: candidates an iteration with the simulator, each of whose futures is drawn; the planner's own by
            default.
        out: rows.
    """

    task: tyro.conf.Positional[str]
    checkpoint: Path | None = None
    episodes: int = 60
    distance: int = 25
    seed: int = 1000
    samples: int | None = None
    out: Path = Path("benchmarks/results/limits.jsonl")


class Simulated(OracleModel):
    """Implements `types.WorldModel`: futures are simulated, drawn after each model step, and encoded.

    Args:
        env: the task; its model is simulated.
        canvas: the same task, to draw with; its state is changed.
        model: what encodes.
    """

    def __init__(self, env: Any, canvas: Any, model: JEPA) -> None:
        super().__init__(env, threads=1)
        self.canvas, self.model, self.history = canvas, model, model.history

    def encode(self, obs: TensorDict) -> TensorDict:
        """The true `state` and its `latent`."""
        return self._seen(super().encode(obs))

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidates `[E, S, T, A]` to `state` and `latent` after each model step."""
        return self._seen(super().rollout(context, actions))

    def _seen(self, states: TensorDict) -> TensorDict:
        flat = states["state"].flatten(0, -2)
        pixels = np.empty((len(flat), self.canvas.size, self.canvas.size, 3), np.uint8)
        for picture, state in zip(pixels, flat.numpy(), strict=True):
            self.canvas.set_state(state)
            picture[:] = self.canvas.picture()
        latents = torch.cat([self.model.embed(some) for some in torch.from_numpy(pixels).split(512)])
        states["latent"] = latents.unflatten(0, states["state"].shape[:-1])
        return states


def main(options: Options) -> None:
    """Plays the pairs, plays what was missed once more, appends the row, and prints it."""
    row = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    again = f"{len(row['reached_simulated'])} of the {len(row['missed'])} missed"
    reached = f"{row['n'] - len(row['missed'])} of {row['n']} goals"
    other = f"with other noise {len(row['reached_again'])}"
    told = f"{row['task']}: {reached}; with the simulator in the predictor's place {again}, {other}"
    Console().print(told, highlight=False)


def measure(options: Options) -> dict[str, Any]:
    """The row: which pairs were missed, and which of these are reached when every prediction is right."""
    began, envs = commit(), load_envs()
    check_seed("limits", options.seed)
    samples = 1 if options.samples is None else options.samples
    if min(options.episodes, options.distance, samples) < 1:
        got = f"{options.episodes}, {options.distance} and {options.samples}"
        raise BadInput("episodes, distance or samples is off", expected="at least 1", got=got)
    loaded = checkpoint.load(checkpoint.find(options.task, options.checkpoint), task=options.task)
    size = loaded.model.config.image_size
    with envs.make(options.task, size) as env, envs.make(options.task, size) as canvas:
        if not env.simulates:
            raise BadInput("its simulator cannot rehearse", expected="a task of ours", got=options.task)
        pairs = held_out_pairs(env, options.episodes, options.distance, options.seed).pairs
        budget = Protocol(distance=options.distance).budget(env)
        known, exact, alike = planners(loaded, env, canvas, options.samples)
        other = loaded.planner.build(loaded.model, OTHER_SEED)

        def reached(planner: MPC, among: Sequence[int], how: str, *, privileged: bool = False) -> list[int]:
            with Progress() as bar:
                shown = bar.add_task(f"{options.task}, {how}", total=len(among))
                played = play_pairs(
                    [env],
                    planner,
                    [pairs[k] for k in among],
                    budget,
                    privileged=privileged,
                    progress=lambda _: bar.advance(shown),
                )
            return [k for k, episode in zip(among, played, strict=True) if episode.success]

        everywhere = range(len(pairs))
        missed = sorted(set(everywhere) - set(reached(known, everywhere, "as it is")))
        simulated = reached(exact, missed, "simulated", privileged=True)
        again = reached(other, missed, "with other noise")
    row = {"task": options.task, "checkpoint_sha256": loaded.sha256, "n": len(pairs), "distance": options.distance}
    row |= {"seed": options.seed, "planner": asdict(loaded.planner), "simulated": asdict(alike)}
    return row | {"missed": missed, "reached_simulated": simulated, "reached_again": again, "commit": began}


def planners(
    loaded: checkpoint.Checkpoint, env: Any, canvas: Any, samples: int | None
) -> tuple[MPC, MPC, PlannerConfig]:
    """The checkpoint's planner, the one that rehearses in the simulator of `env`, and the settings of that one."""
    # The simulator need not correct itself inside a model step.
    alike = replace(loaded.planner, replan=0, samples=samples or loaded.planner.samples)
    known = loaded.planner.build(loaded.model, 0)
    exact = alike.build(Simulated(env, canvas, loaded.model), 0, alike.energy(loaded.model), prior=known.prior)
    return known, exact, alike


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"limits: {error}") from None
