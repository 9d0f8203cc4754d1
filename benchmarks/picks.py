"""How well a planner picks among plans whose outcome is known: each is carried out in the simulator.

At every few plans, the one that was chosen and some that were proposed beside it are judged twice: by what the model
imagines, and by the pictures that the simulator draws of what they come to. So it is told apart whether no good plan
was proposed, or a good one was not picked. A row a run is appended.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from tensordict import TensorDict
from torch import Tensor

from planner import checkpoint
from planner.errors import BadInput
from planner.evaluate.protocol import held_out_pairs, play_pairs
from planner.mpc import MPC
from planner.tasks import load_envs
from planner.versions import commit


@dataclass(frozen=True)
class Options:
    """Carry out what was picked and what was not.

    Attributes:
        task: whose planner has an action prior, which proposes plans.
        checkpoint: the shipped one by default.
        goals: play, or the benchmark's own.
        distance: environment steps between start and goal of play; the budget is twice that.
        episodes: pairs that are played.
        others: proposed plans that are carried out beside the one chosen, >= 2.
        every: plans from one look to the next that is measured, >= 1.
        seed: of the pairs; those that are reported have 0.
        out: rows, one a run.
    """

    task: tyro.conf.Positional[str]
    checkpoint: Path | None = None
    goals: Literal["play", "own"] = "play"
    distance: int = 25
    episodes: int = 10
    others: int = 16
    every: int = 3
    seed: int = 1000
    out: Path = Path("benchmarks/results/picks.jsonl")


def main(options: Options) -> None:
    """Plays the pairs, appends the row, and prints it."""
    if options.others < 2 or min(options.episodes, options.every, options.distance) < 1:
        got = f"{options.others}, and {options.episodes}, {options.every}, {options.distance}"
        raise BadInput("picks: options are off", expected="others >= 2, and episodes, every, distance >= 1", got=got)
    envs = load_envs()
    loaded = checkpoint.load(checkpoint.find(options.task, options.checkpoint), task=options.task)
    env, canvas = (envs.make(options.task, size=loaded.model.config.image_size) for _ in range(2))
    own = options.goals == "own"
    pairs = held_out_pairs(env, options.episodes, None if own else options.distance, options.seed, own=own).pairs
    picking = Picking(loaded.planner.build(loaded.model, options.seed), canvas, options.others, options.every)
    budget, began = env.own_budget if own else 2 * options.distance, commit()
    with Progress() as bar:
        task = bar.add_task(options.task, total=len(pairs))
        played = play_pairs(
            [env], picking, pairs, budget, privileged=True, progress=lambda _: bar.update(task, advance=1)
        )
    if not picking.looks:
        raise BadInput("picks: nothing to measure", got=f"fewer than {options.every} plans", do="make --every smaller")
    found = summary(np.stack(picking.looks))
    row = {"task": options.task, "checkpoint_sha256": loaded.sha256, "planner": asdict(loaded.planner)}
    row |= {name: getattr(options, name) for name in ("goals", "distance", "episodes", "others", "every", "seed")}
    row |= {"successes": sum(episode.success for episode in played), "picks": found, "commit": began}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    Console().print(told(found), highlight=False)


class Picking:
    """A planner of one environment whose plans are carried out elsewhere, too.

    Args:
        planner: with an action prior.
        canvas: another environment of the task, which is played in.
        others: proposed plans beside the one chosen, >= 1.
        every: plans from one look to the next that is measured, >= 1.

    Raises:
        BadInput: if the planner has no action prior.

    Attributes:
        looks: energies of the plans of each, imagined and true, `[2, 1 + others]`, the chosen one first.
    """

    def __init__(self, planner: MPC, canvas: Any, others: int, every: int) -> None:
        if planner.prior is None:
            do = "name with --checkpoint one that plans from an action prior"
            raise BadInput("picks: the planner has no proposals", expected="an action prior", got="none", do=do)
        self.planner, self.canvas, self.others, self.every = planner, canvas, others, every
        self.looks: list[np.ndarray] = []
        self.plans = 0

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        """As `MPC.reset`."""
        self.planner.reset(obs.exclude("state"), goal.exclude("state"), mask)

    def act(self, obs: TensorDict) -> np.ndarray:
        """What the planner does `[1, env_dim]`; of its plans, every so many are carried out before it goes on."""
        made = len(self.planner.plan_seconds)
        actions = self.planner.act(obs.exclude("state"))
        if len(self.planner.plan_seconds) > made:
            self.plans += 1
            if self.plans % self.every == 0:
                self.looks.append(self.judged(obs["state"][0].numpy().astype(np.float64)))
        return actions

    @torch.no_grad()
    def judged(self, state: np.ndarray) -> np.ndarray:
        """Energies of the last plan and of others from there, imagined and true, `[2, 1 + others]`."""
        planner = self.planner
        context, goal, chosen = planner.last_context, planner.last_goal, planner.last_plan.actions[:, None]
        assert planner.prior is not None
        proposed: list[Tensor] = []
        generator = torch.Generator().manual_seed(self.plans)
        while sum(plans.shape[1] for plans in proposed) < self.others:
            proposed.append(planner.prior(context, goal, generator))
        plans = torch.cat([chosen, torch.cat(proposed, 1)[:, : self.others]], 1)  # [1, 1 + others, T, A]
        imagined = planner.energy(planner.model.rollout(context, plans), goal, plans)
        true = planner.energy(self.carried_out(state, plans[0]).unsqueeze(0), goal, plans)
        return torch.cat([imagined, true]).double().numpy()

    def carried_out(self, state: np.ndarray, plans: Tensor) -> TensorDict:
        """Latents of the pictures after each model step of `plans` `[S, T, A]` from `state`, `[S, T]`."""
        pictures = []
        for steps in self.planner.model.action.decode(plans).numpy():  # [T, block, env_dim]
            self.canvas.set_state(state)
            for block in steps:
                for action in block:
                    self.canvas.advance(action)
                pictures.append(self.canvas.picture())
        shots = torch.from_numpy(np.stack(pictures)).unflatten(0, plans.shape[:2])
        return self.planner.model.encode(TensorDict({"pixels": shots}, batch_size=plans.shape[:2]))


def summary(looks: np.ndarray) -> dict[str, float]:
    """Means over looks of `[n, 2, 1 + others]`: true energies of the plan that was chosen, of the others, of the one
    that is picked among these by what is imagined and by what is true; how much more than imagined the chosen one and
    the others come to; and how imagined and true energies of the others correlate."""
    imagined, true = looks[:, 0], looks[:, 1]
    rest, everyone = slice(1, None), np.arange(len(looks))
    picked = true[everyone, 1 + imagined[:, rest].argmin(1)]
    found = {
        "looks": float(len(looks)),
        "chosen": true[:, 0].mean(),
        "mean": true[:, rest].mean(),
        "picked": picked.mean(),
        "best": true[:, rest].min(1).mean(),
        "optimism_chosen": (true - imagined)[:, 0].mean(),
        "optimism_mean": (true - imagined)[:, rest].mean(),
        "correlation": _correlation(imagined[:, rest], true[:, rest]),
    }
    return {name: float(value) for name, value in found.items()}


def _correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Mean over rows; a row in which either is all the same says nothing, and counts as 0."""
    left, right = (rows - rows.mean(1, keepdims=True) for rows in (left, right))
    scale = np.sqrt((left**2).sum(1) * (right**2).sum(1))
    return float(np.where(scale > 0, (left * right).sum(1) / np.maximum(scale, 1e-300), 0).mean())


def told(found: dict[str, float]) -> str:
    """The row in words."""
    return (
        f"{found['looks']:.0f} looks; true energy of a proposed plan {found['mean']:.2f}, of the one picked among them "
        f"{found['picked']:.2f}, of the best {found['best']:.2f}, of the one chosen {found['chosen']:.2f}; more than "
        f"imagined by {found['optimism_mean']:.2f}, the chosen one by {found['optimism_chosen']:.2f}; correlation "
        f"{found['correlation']:.2f}"
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"picks: {error}") from None
