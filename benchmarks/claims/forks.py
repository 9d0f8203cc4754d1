"""Where a future forks: does an energy keep every way open, and what does a regression draw in their place?

A disc of PointMaze rests where there are two ways out or more, and nobody says which it takes. `python -m
benchmarks.claims.forks` draws some of these places; `python -m benchmarks.claims --parts belief` measures all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from envs.point_maze import FREE, MAZE, MIDDLES
from planner import checkpoint
from planner.checkpoint import Checkpoint
from planner.tasks import load_envs
from planner.types import Context

from .contenders import WEIGHTS
from .detection import auroc
from .weights import load
from .worlds import scaled, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
Judge = Callable[["Fork"], np.ndarray]

TASK = "PointMaze"
SPEEDS = np.linspace(-1.2, 1.2, 13)
WAYS = (0, 1), (0, -1), (-1, 0), (1, 0)
"""East, west, north and south: rows down and columns to the right."""
BLIND = "next-frame rival that is told no action"
RIVALS = {
    BLIND: WEIGHTS / "pointmaze-next_frame-blind",
    "next-frame rival, action sought": WEIGHTS / "pointmaze-next_frame-0",
}
"""Rivals that draw what comes next: one whose training hid the actions, and the ordinary one."""


def places() -> list[tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]]:
    """Middles of cells with more than one way out: the place, the ways, and the directions into walls."""
    found = []
    for (row, column), middle in zip(FREE, MIDDLES, strict=True):
        open_ways, shut = [], []
        for down, right in WAYS:
            inside = 0 <= row + down < 6 and 0 <= column + right < 6
            free = inside and MAZE[row + down][column + right] == "."
            (open_ways if free else shut).append(np.array([right, -down], float))
        if len(open_ways) > 1 and shut:
            found.append((middle, open_ways, shut))
    return found


@dataclass(frozen=True)
class Fork:
    """A place, and the futures one model step later.

    Attributes:
        ways: directions that lead out.
        here: the picture before, uint8 `[size, size, 3]`.
        futures: pictures of each way ("mode"), of each walk into a wall ("wall"), and last the mean of the pictures of
            all modes ("ghost"), which is what the best regression of pixels draws, uint8 `[M, size, size, 3]`.
        kinds: of each of them.
    """

    ways: list[np.ndarray]
    here: np.ndarray
    futures: np.ndarray
    kinds: list[str]


def forks(size: int) -> list[Fork]:
    """All of them, in pictures of `size` pixels."""
    env, found = load_envs().make(TASK, size), []
    for middle, ways, shut in places():
        here: np.ndarray = env.picture(np.append(middle, [0, 0]))
        modes = [_after(env, middle, way, through=False) for way in ways]
        walls = [_after(env, middle, way, through=True) for way in shut]
        futures = np.stack([*modes, *walls, np.mean(modes, axis=0).round().astype(np.uint8)])
        found.append(Fork(ways, here, futures, ["mode"] * len(modes) + ["wall"] * len(walls) + ["ghost"]))
    env.close()
    return found


def _after(env: Any, middle: np.ndarray, way: np.ndarray, through: bool) -> np.ndarray:
    """The picture after one block at full speed; `through` walls that do not collide for once."""
    kept = env.model.geom_contype.copy(), env.model.geom_conaffinity.copy()
    if through:
        env.model.geom_contype[:] = env.model.geom_conaffinity[:] = 0
    env.set_state(np.append(middle, [0, 0]))
    for _ in range(env.block):
        env.advance(1.2 * way)
    env.model.geom_contype[:], env.model.geom_conaffinity[:] = kept
    picture: np.ndarray = env.picture()
    return picture


# Judges ------------------------------------------------------------------------------------------------------------


def judges(model: Any) -> dict[str, Judge]:
    """Energies `[M]` of a fork's futures, as those see them who are not told the action.

    - "jepa, action sought": the JEPA's energy, least over a grid of actions: what it is not told is a variable to
      minimise over (LeCun, A path towards autonomous machine intelligence, 2022);
    - "jepa, latents averaged": the distance to the mean of its predictions over the modes' actions, which is the best
      that a deterministic predictor of latents could say if it were not told the action;
    - "pixels averaged": the mean square in pixels to the ghost, the best of a deterministic predictor of pixels.
    """

    def seen(fork: Fork) -> Tensor:
        return encoded(model, fork.futures)

    def sought(fork: Fork) -> np.ndarray:
        return distances(foreseen(model, fork.here, _grid()), seen(fork)).min(0).values.numpy()

    def averaged(fork: Fork) -> np.ndarray:
        mean = foreseen(model, fork.here, 1.2 * np.array(fork.ways)).mean(0, keepdim=True)
        return distances(mean, seen(fork))[0].numpy()

    def regressed(fork: Fork) -> np.ndarray:
        futures = scaled(torch.from_numpy(fork.futures))
        return (futures - futures[: len(fork.ways)].mean(0)).square().mean((1, 2, 3)).numpy()

    return {"jepa, action sought": sought, "jepa, latents averaged": averaged, "pixels averaged": regressed}


def draws(model: Any, fork: Fork, blind: bool) -> Tensor:
    """What a rival draws of a fork, pictures in [-1, 1] `[N, size, size, 3]`: one a speed of the grid, `blind` one."""
    drawn: Tensor = model.decode(foreseen(model, fork.here, np.zeros((1, 2)) if blind else _grid()))
    return drawn


def in_pixels(model: Any, blind: bool) -> Judge:
    """The least mean square between a fork's futures and what a rival draws."""

    def judged(fork: Fork) -> np.ndarray:
        drawn, futures = draws(model, fork, blind), scaled(torch.from_numpy(fork.futures))
        return np.array([float((drawn - one).square().mean((1, 2, 3)).min()) for one in futures])

    return judged


def encoded(model: Any, pictures: np.ndarray) -> Tensor:
    """Latents `[M, D]` of pictures `[M, size, size, 3]`."""
    looks = TensorDict({"pixels": torch.from_numpy(pictures)[:, None]}, batch_size=[len(pictures), 1])
    latents: Tensor = model.encode(looks)["latent"][:, 0]
    return latents


def foreseen(model: Any, here: np.ndarray, speeds: np.ndarray) -> Tensor:
    """Latents `[N, D]` a model step after a disc rested `here`, a picture, at constant speeds `[N, 2]`, m/s."""
    block, history, start = model.action.block, model.history, encoded(model, here[None])
    rest = model.action.encode(torch.zeros(1, history - 1, block, 2))
    actions = model.action.encode(torch.as_tensor(speeds, dtype=torch.float32)[:, None].expand(-1, block, -1))
    past = TensorDict({"latent": start[:, None].expand(-1, history, -1)}, batch_size=[1, history])
    latents: Tensor = model.rollout(Context(past, rest), actions[None, :, None])["latent"][0, :, 0]
    return latents


def distances(ours: Tensor, seen: Tensor) -> Tensor:
    """Mean squares between `[N, D]` and `[M, D]`, `[N, M]`."""
    return (ours[:, None] - seen).square().mean(-1)


def _grid() -> np.ndarray:
    return np.array([[x, y] for x in SPEEDS for y in SPEEDS])


# Rows --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(loaded: Checkpoint, report: Callable[[Row], None]) -> None:
    """Reports a row a judge: ours, what the best regression would say, and each rival that was trained.

    Judges whose rows `report` has are left out, as `Rows` tells.
    """
    everybody = [(name, judge, loaded.sha256) for name, judge in judges(loaded.model).items()]
    for name, folder in RIVALS.items():
        if folder.exists():
            rival = load(folder)
            everybody.append((name, in_pixels(rival.model, name == BLIND), rival.sha256))
    facts = {"part": "energy", "task": TASK, "kind": "fork", "group": "fork"}
    facts |= {"n": len(places())}
    asked = [(facts | {"scorer": name, "checkpoint_sha256": sha256}, judge) for name, judge, sha256 in everybody]
    has = getattr(report, "has", lambda row: False)
    if not (missing := [(wanted, judge) for wanted, judge in asked if not has(wanted)]):
        return
    found = forks(loaded.model.config.image_size)
    for wanted, judge in missing:
        report(wanted | row([(fork.kinds, judge(fork)) for fork in found]))


def row(judged: list[tuple[list[str], np.ndarray]]) -> Row:
    """Energies of each kind (10 %, median, 90 %), and how well walls and ghosts are told from ways."""
    found: dict[str, np.ndarray] = {
        kind: np.concatenate([energies[np.array(kinds) == kind] for kinds, energies in judged])
        for kind in ("mode", "wall", "ghost")
    }
    spread = {kind: np.quantile(values, (0.1, 0.5, 0.9)).tolist() for kind, values in found.items()}
    areas = {f"auroc_{kind}": auroc(found[kind], found["mode"]) for kind in ("wall", "ghost")}
    return {"energies": spread} | areas | {"counts": {kind: len(values) for kind, values in found.items()}}


# Picture -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def draw(model: Any, blind: Any, chosen: list[Fork]) -> Figure:
    """A row a fork: now, two ways, a wall and the mean of the ways, and what a rival draws that is told no action.

    Below each future our energy of it and, times 1000, the rival's.

    Args:
        model: our JEPA.
        blind: that rival.
        chosen: the forks, in pictures of the size that both see.
    """
    from matplotlib.figure import Figure

    titles = "now", "one way", "another way", "inside a wall", "the ways' mean", "what the rival draws"
    figure = Figure(figsize=(2 * len(titles), 2.45 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), len(titles), squeeze=False)
    ours, theirs = judges(model)["jepa, action sought"], in_pixels(blind, blind=True)
    for line, fork in zip(panels, chosen, strict=True):
        first, second = [i for i, kind in enumerate(fork.kinds) if kind == "mode"][:2]
        futures = [first, second, fork.kinds.index("wall"), len(fork.kinds) - 1]
        drawn = shown(draws(blind, fork, blind=True)[0]).numpy()
        told = [f"ours {a:.2f}, theirs {1000 * b:.2f}" for a, b in zip(ours(fork), theirs(fork), strict=True)]
        pictures, notes = [fork.here, *fork.futures[futures], drawn], ["", *(told[i] for i in futures), ""]
        for panel, title, picture, below in zip(line, titles, pictures, notes, strict=True):
            panel.imshow(_around(fork, picture), interpolation="nearest")
            panel.set(xticks=[], yticks=[], xlabel=below)
            panel.xaxis.label.set_size(9)
            panel.spines[:].set_visible(False)
            panel.set_title(title if fork is chosen[0] else "", fontsize=10)
    return figure


def _around(fork: Fork, picture: np.ndarray, reach: int = 14) -> np.ndarray:
    """A square of the picture around the fork, `reach` pixels to each side."""
    size, ways = len(picture), fork.futures[: len(fork.ways)].astype(int)
    changed = np.abs(ways - fork.here).max((0, 3))
    middle = [np.average(np.arange(size), weights=changed.sum(1 - axis)) for axis in (0, 1)]
    top, left = (int(np.clip(round(at), reach, size - reach)) for at in middle)
    return picture[top - reach : top + reach, left - reach : left + reach]


def main() -> None:
    """Draws three places into `docs/forks.png`, first those where three ways lead on, then those of two."""
    loaded = checkpoint.load(checkpoint.find(TASK, None), task=TASK)
    found = sorted(forks(loaded.model.config.image_size), key=lambda fork: -len(fork.ways))
    path = Path("docs/forks.png")
    draw(loaded.model, load(RIVALS[BLIND]).model, found[:3]).savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
