"""What a checkpoint is worth where nothing can be tried: how well it foresees episodes that it was not trained on, and
whether a search finds what was done in them.

Both are asked of windows of held-out rows of a dataset, drawn where the picture changes. Rows may be pieces of a longer
recording of which training saw others. What is asked is necessary and not sufficient: a planner acts where its model
promises most, and recordings do not go there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from ..data import EpisodeStore, Windows, split_rows
from ..energies.base import begun
from ..errors import BadInput
from ..mpc import MPC
from ..plan import plan
from ..settings import PlannerConfig
from ..types import Context, WorldModel
from .imagination import Bank, embed

BATCH = 100
"""Windows that are measured at once."""
LEAST = 10
"""Frames at which windows may begin."""
BANK_ROWS = 64
"""Most held-out rows that frames are taken from to show what was foreseen."""


def held_out_windows(store: EpisodeStore, frames: int, share: float, batch: int = BATCH) -> Windows:
    """Windows of `frames` frames of the last `share` of a dataset, drawn where the picture changes."""
    return Windows(store, split_rows(store.info, share)[1], frames, batch, seed=0, moving=1.0)


@torch.no_grad()
def errors(model: WorldModel, windows: Windows, count: int, swapped: bool = False) -> list[float]:
    """Errors 1 to T model steps ahead, open loop, relative to no change since the last frame seen.

    1 is useless and 0 perfect.

    Args:
        model: foresees.
        windows: of H + T frames.
        count: how many, rounded up to whole batches.
        swapped: give each window what was done in another one. A model that heeds actions is then far off.
    """
    steps = windows.frames - model.history
    wrong, moved = torch.zeros(2, steps, dtype=torch.float64)
    for index in range(-(-count // windows.batch)):
        context, plans, coming = _parts(model, windows[index])
        foreseen = model.rollout(context, (plans.roll(1, 0) if swapped else plans)[:, None])["latent"][:, 0]
        wrong += (foreseen - coming["latent"]).square().mean((0, 2))
        moved += (context.latent["latent"][:, -1:] - coming["latent"]).square().mean((0, 2))
    found: list[float] = (wrong / moved.clamp_min(1e-9)).tolist()
    return found


def to_the_next_frame(settings: PlannerConfig) -> PlannerConfig:
    """Settings of a search that is one model step long, by the distance of latents alone.

    A planner that looks further ahead may take its time to where it is to be, and do otherwise for good. One that lives
    on its prior's plans searches too little by itself, and searches as one without a prior would.
    """
    plain = replace(settings.without_prior, metric=settings.without_head, body=1.0, effort=0.0)
    return replace(plain, horizon=1, execute=1, replan=0, over="last")


@torch.no_grad()
def recovered(planner: MPC, windows: Windows, count: int, seed: int = 0) -> list[float]:
    """How well plans towards the frame that came a model step later are what was done until then: R2 of the first
    model step's mean action, one a dimension. 1 is exact, 0 what the mean of all that was done would have; NaN where
    the same was done throughout.

    Args:
        planner: its model, energy and optimizer are asked, by `plan` and without an episode around it.
        windows: of H + 1 frames or more.
        count: how many, rounded up to whole batches.
        seed: of the noise.
    """
    model, generator = planner.model, torch.Generator().manual_seed(seed)
    found, done = [], []
    for index in range(-(-count // windows.batch)):
        context, plans, coming = _parts(model, windows[index])
        goal = begun(planner.energy, coming[:, 0])
        best = plan(
            model,
            context,
            goal,
            planner.energy,
            planner.optimizer,
            iterations=planner.iterations,
            horizon=planner.horizon,
            generator=generator,
        )
        found.append(model.action.means(best.actions[:, 0]))
        done.append(model.action.means(plans[:, 0]))
    planned, truth = torch.cat(found).double(), torch.cat(done).double()
    varied = (truth - truth.mean(0)).square().sum(0)
    r2: list[float] = (1 - (planned - truth).square().sum(0) / varied.where(varied > 0, torch.nan)).tolist()
    return r2


def _parts(model: WorldModel, drawn: TensorDict) -> tuple[Context, Tensor, TensorDict]:
    """What is known at the H-th frame of windows, what was then done `[B, T, A]`, and what was then seen, `[B, T]`."""
    pixels, actions, known = drawn["pixels"], drawn["actions"], model.history
    latents = model.encode(TensorDict({"pixels": pixels}, batch_size=pixels.shape[:2]))
    return Context(latents[:, :known], actions[:, : known - 1]), actions[:, known - 1 :], latents[:, known:]


# To look at --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rehearsed:
    """A recorded window, and what was foreseen of it.

    Attributes:
        seen: its frames from the last one that was known on, uint8 `[T + 1, h, w, 3]`.
        nearest: real frames nearest to what was foreseen of the last T, `[T, h, w, 3]`.
        distance: how far these are, `[T]`, in model steps: the median distance of frames one apart.
        off: how far what was foreseen is from what was seen, `[T]`, in model steps.
    """

    seen: NDArray[np.uint8]
    nearest: NDArray[np.uint8]
    distance: NDArray[np.float64]
    off: NDArray[np.float64]


def bank_of(store: EpisodeStore, model: WorldModel, share: float) -> Bank:
    """Frames a model step apart of held-out rows."""
    rows = split_rows(store.info, share)[1][:BANK_ROWS]
    film = torch.stack([store.data["pixels"][int(row), :: store.info.block] for row in rows]).numpy()
    latents = embed(model, film.reshape(-1, *film.shape[2:]))
    moved = latents.unflatten(0, film.shape[:2]).diff(dim=1).norm(dim=-1)
    unit = float(moved[moved > 0].median()) if (moved > 0).any() else 1.0
    return Bank(film.reshape(-1, *film.shape[2:]), latents, unit, 1.0)


@torch.no_grad()
def rehearse(model: WorldModel, windows: Windows, bank: Bank, count: int = 3) -> list[Rehearsed]:
    """The first `count` windows, and what is foreseen of them."""
    drawn = windows[0][:count]
    context, plans, coming = _parts(model, drawn)
    foreseen = model.rollout(context, plans[:, None])["latent"][:, 0]
    off = (foreseen - coming["latent"]).norm(dim=-1).double().numpy() / bank.unit
    seen = drawn["pixels"][:, model.history - 1 :].numpy()
    near = [bank.nearest(one) for one in foreseen]
    return [Rehearsed(seen[i], *near[i], off[i]) for i in range(len(near))]


def draw(path: Path, shown: list[Rehearsed], block: int, title: str) -> None:
    """Writes windows and what was foreseen of them, one above the other, as PNG.

    Args:
        path: the file to write.
        shown: windows of the same length, at least one.
        block: environment steps from one frame to the next.
        title: above all of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, rows = len(shown[0].seen), 2 * len(shown)
    figure = Figure(figsize=(1.3 * columns + 0.9, 1.45 * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for i, one in enumerate(shown):
        upper, lower = grid[2 * i], grid[2 * i + 1]
        for k, (axes, frame) in enumerate(zip(upper, one.seen, strict=True)):
            axes.imshow(frame)
            axes.set_title("known" if k == 0 else f"{k * block} steps later", fontsize=8)
        for axes, frame, far, off in zip(lower[1:], one.nearest, one.distance, one.off, strict=True):
            axes.imshow(frame)
            axes.set_title(f"off by {off:.2f}, nearest {far:.2f}", fontsize=7)
        upper[0].set_ylabel("seen", fontsize=9)
        lower[0].text(0.98, 0.5, "foreseen,\nas the nearest\nreal frame", fontsize=8, ha="right", va="center")
    FigureCanvasAgg(figure).print_png(str(path))


def check_windows(windows: Windows) -> None:
    """Raises `BadInput` where there are so few windows that one would have the actions of itself for another's."""
    if (count := len(windows.rows) * windows.starts) < LEAST:
        do = "hold out more rows, in training too, or look at fewer --steps"
        raise BadInput("rehearse: too few windows are held out", expected=f"at least {LEAST}", got=str(count), do=do)


def check_length(store: EpisodeStore, model: WorldModel, steps: int) -> None:
    """Raises `BadInput` where episodes are too short to look `steps` model steps ahead."""
    most = store.info.steps // store.info.block + 1 - model.history
    if not 1 <= steps <= most:
        expected = f"1 to {most}, in episodes of {store.info.steps} steps"
        raise BadInput("rehearse: steps is off", expected=expected, got=str(steps))
