"""What a planner imagined when it chose a plan, beside what then happened; and the energy around the action it chose.

All of it is made after the episodes, from notes taken while they were played: nothing here is in the time of a plan.
Nothing is decoded either: an imagined latent is shown as the real frame whose latent is nearest, with its distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from ..actions import ActionSpec
from ..collect import play_episode
from ..mpc import MPC
from ..types import Context, EnergyLike, Policy, WorldModel
from .protocol import Episode

BANK_STREAM = 8
"""First number of the seeds of the play that frames are taken from: neither trained on nor evaluated on."""
BANK_EPISODES, BANK_STEPS = 64, 100
GRID = 25
"""Energies along each side of a landscape."""
CHUNK = 128
"""Candidates in one rollout."""


@dataclass(frozen=True)
class Moment:
    """What a planner knew and chose, in one environment.

    Attributes:
        step: environment steps since the episode began.
        context: what it knew, E = 1.
        goal: encoded, batch `[1]`.
        actions: the plan it chose, `[T, A]`, in [-1, 1].
    """

    step: int
    context: Context
    goal: TensorDict
    actions: Tensor


class Recorder:
    """A `Policy` that notes what a planner knows and chooses whenever it plans, and hands on what the policy does.

    Args:
        policy: what acts; the planner itself or something around it.
        planner: whose plans to note. It keeps what it knew of its last plan anyway, so noting costs it nothing.
    """

    def __init__(self, policy: Policy, planner: MPC) -> None:
        self.policy, self.planner = policy, planner
        self._first = self._size = self._step = 0
        self._notes: list[tuple[int, int, NDArray[np.int64], Context, TensorDict, Tensor]] = []

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        """Starts the next E episodes, which are counted from 0."""
        self._first, self._size, self._step = self._first + self._size, obs.batch_size[0], 0
        self.policy.reset(obs, goal, mask)

    def act(self, obs: TensorDict) -> np.ndarray:
        """What the policy does, `[E, a]`."""
        before = self.planner.last_plan
        action = self.policy.act(obs)
        found, knew, goal = self.planner.last_plan, self.planner.last_context, self.planner.last_goal
        if found is not None and found is not before and knew is not None and goal is not None:
            rows = self.planner.last_rows
            self._notes.append((self._first, self._step, rows, knew, goal, found.actions))
        self._step += 1
        return action

    def moments(self, episode: int, steps: int) -> list[Moment]:
        """The plans of the first `steps` environment steps of `episode`, in order."""
        found = []
        for first, step, rows, knew, goal, actions in self._notes:
            if step < steps and len(place := np.flatnonzero(rows == episode - first)):
                row = slice(int(place[0]), int(place[0]) + 1)
                context = Context(knew.latent[row], knew.actions[row])
                found.append(Moment(step, context, goal[row], actions[row.start]))
        return found


@dataclass(frozen=True)
class Bank:
    """Real frames to show latents as.

    Attributes:
        frames: uint8 `[N, h, w, 3]`.
        latents: of these frames, `[N, D]`.
        unit: the median distance of two frames; distances are shown as multiples of it.
        model_step: the median distance of frames one model step apart, in this unit.
    """

    frames: NDArray[np.uint8]
    latents: Tensor
    unit: float
    model_step: float

    def nearest(self, latents: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Latents `[K, D]` to the frames nearest to them, `[K, h, w, 3]`, and how far these are, `[K]`, in units."""
        distance, index = torch.cdist(latents, self.latents, compute_mode=EXACT).min(1)
        return self.frames[index.cpu().numpy()], (distance.cpu().double() / self.unit).numpy()


EXACT = "donot_use_mm_for_euclid_dist"  # the products that are the default lose what is small: a latent's own frame


@dataclass(frozen=True)
class Landscape:
    """Energies over the first action of a plan, all else of the plan as chosen.

    Attributes:
        dims: dimensions of an environment action.
        axes: those of them that vary, one or two.
        low: least value of each, in the action's units.
        high: largest value of each.
        units: of each.
        held: environment steps that the action lasts.
        energies: `[GRID]` or `[GRID, GRID]`, by axis, from `low` to `high`; NaN where a rollout failed.
        chosen: the action that was chosen, along each axis.
        energy: of the chosen plan.
        candidates: `[K, axes]`, first actions of plans as a search from rest draws them.
    """

    dims: int
    axes: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    units: tuple[str, ...]
    held: int
    energies: NDArray[np.float64]
    chosen: tuple[float, ...]
    energy: float
    candidates: NDArray[np.float64]


@dataclass(frozen=True)
class Imagined:
    """One plan: the futures that it was chosen for, and what came of it.

    Attributes:
        task: name of the task.
        episode: number of the episode.
        success: whether it reached its goal.
        step: environment steps since the episode began.
        block: environment steps from one imagined frame to the next.
        now: what the camera saw, uint8 `[h, w, 3]`.
        goal: the goal image.
        nearest: for each of the T imagined latents the nearest real frame, `[T, h, w, 3]`.
        distance: how far it is, `[T]`, in units of the bank.
        happened: what the camera saw at these times, up to the end of the episode, `[K <= T, h, w, 3]`.
        off: how far the imagined latents are from those of what happened, `[K]`, in units of the bank.
        bank: how many frames were there to choose from.
        model_step: how far frames one model step apart are, in units of the bank.
        landscape: the energy around the chosen action.
    """

    task: str
    episode: int
    success: bool
    step: int
    block: int
    now: NDArray[np.uint8]
    goal: NDArray[np.uint8]
    nearest: NDArray[np.uint8]
    distance: NDArray[np.float64]
    happened: NDArray[np.uint8]
    off: NDArray[np.float64]
    bank: int
    model_step: float
    landscape: Landscape


@torch.no_grad()
def bank_of_play(env: Any, model: WorldModel, seed: int, episodes: int | None = None) -> Bank:
    """Frames one model step apart from play episodes made on the spot, `episodes * 21` of them where a step is 5 long.

    Args:
        env: the task; it is drawn as it looks now.
        model: its encoder embeds them; it may look at `pixels` and `state`.
        seed: of the play.
        episodes: at least 2; `BANK_EPISODES` by default.
    """
    episodes = episodes or BANK_EPISODES
    block, length = model.action.block, max(1, BANK_STEPS // model.action.block) + 1
    states = [
        play_episode(env, (length - 1) * block, np.random.default_rng([BANK_STREAM, seed, k]))[0][::block]
        for k in range(episodes)
    ]
    frames = np.stack([env.picture(state) for state in np.concatenate(states)])
    latents = embed(model, frames, np.concatenate(states))  # [N, D]
    unit = float(torch.pdist(latents).median())
    film = latents.unflatten(0, (episodes, length))
    step = float((film[:, 1:] - film[:, :-1]).norm(dim=-1).median())
    return Bank(frames, latents, unit or 1.0, step / (unit or 1.0))


def embed(model: WorldModel, frames: NDArray[np.uint8], states: np.ndarray | None = None) -> Tensor:
    """Frames `[N, h, w, 3]`, and where known the states `[N, n]`, to all that the model's latents hold, `[N, D]`."""
    looks = {"pixels": torch.from_numpy(frames)}
    if states is not None:
        looks["state"] = torch.from_numpy(states)
    whole = TensorDict(looks, batch_size=[len(frames)])
    return torch.cat([_flat(model.encode(part.unsqueeze(1))[:, 0]) for part in whole.split(CHUNK)])


def _flat(latent: TensorDict) -> Tensor:
    """Latents, batch `[N]`, as one row of numbers each, `[N, D]`."""
    leaves = sorted(latent.items(True, True), key=lambda item: str(item[0]))
    return torch.cat([leaf.flatten(1) for _, leaf in leaves], dim=1)


@torch.no_grad()
def imagine(task: str, number: int, episode: Episode, moment: Moment, planner: MPC, bank: Bank) -> Imagined:
    """Rehearses the plan of `moment` once more, and sets it beside the frames of `episode`, which was filmed."""
    model, block = planner.model, planner.model.action.block
    futures = model.rollout(moment.context, moment.actions[None, None])
    latents = _flat(futures[0, 0]).to(bank.latents)  # [T, D]
    times = [moment.step + block * (t + 1) for t in range(len(latents))]
    times = [time for time in times if time < len(episode.frames)]
    nearest, distance = bank.nearest(latents)
    happened, off = np.zeros((0, *episode.goal.shape), np.uint8), np.zeros(0)
    if times:
        happened = np.stack([episode.frames[time] for time in times])
        seen = embed(model, happened, np.stack([episode.states[time] for time in times]))
        off = ((latents[: len(times)] - seen).norm(dim=-1).cpu().double() / bank.unit).numpy()
    return Imagined(
        task=task,
        episode=number,
        success=episode.success,
        step=moment.step,
        block=block,
        now=episode.frames[moment.step],
        goal=episode.goal,
        nearest=nearest,
        distance=distance,
        happened=happened,
        off=off,
        bank=len(bank.frames),
        model_step=bank.model_step,
        landscape=landscape(model, planner.energy, moment, first_candidates(planner)),
    )


@torch.no_grad()
def landscape(model: WorldModel, energy: EnergyLike, moment: Moment, candidates: Tensor, grid: int = GRID) -> Landscape:
    """The energy over the first action of a plan, along the two dimensions in which it matters most.

    The first action lasts as long as the plan holds it, a model step at most, so that the chosen plan itself lies in
    the landscape.

    Args:
        model: rehearses.
        energy: judges.
        moment: the plan and what was known.
        candidates: plans whose first actions to mark, `[K, T, A]`.
        grid: energies along each side, >= 2.
    """
    spec = model.action
    steps = moment.actions.unflatten(-1, (spec.block, spec.env_dim)).flatten(0, 1)  # [T block, a]
    held = int((steps[: spec.block] == steps[0]).all(-1).long().cumprod(0).sum())
    values = torch.linspace(-1, 1, grid, dtype=steps.dtype, device=steps.device)

    def judge(first: Tensor) -> NDArray[np.float64]:
        """First actions `[K, a]` to energies `[K]`."""
        plans = torch.cat([first.unsqueeze(1).expand(-1, held, -1), steps[held:].expand(len(first), -1, -1)], dim=1)
        plans = plans.unflatten(1, (-1, spec.block)).flatten(-2).unsqueeze(0)  # [1, K, T, A]
        costs = [energy(model.rollout(moment.context, part), moment.goal, part) for part in plans.split(CHUNK, dim=1)]
        cost = torch.cat(costs, dim=1)[0].cpu().double()
        return torch.where(cost.isfinite(), cost, torch.nan).numpy()

    sweeps = [judge(_moved(steps[0], (axis,), values[:, None])) for axis in range(spec.env_dim)]
    matter = [np.subtract(*np.nanquantile(sweep, [1, 0])) if np.isfinite(sweep).any() else 0.0 for sweep in sweeps]
    axes = tuple(sorted(sorted(range(spec.env_dim), key=lambda axis: -matter[axis])[:2]))
    pairs = torch.cartesian_prod(*[values] * len(axes)).reshape(-1, len(axes))
    energies = judge(_moved(steps[0], axes, pairs)).reshape((grid,) * len(axes))
    chosen, marks = (
        spec.decode(part)[..., 0, list(axes)].cpu().double().numpy() for part in (moment.actions[0], candidates[:, 0])
    )
    return Landscape(
        dims=spec.env_dim,
        axes=axes,
        low=tuple(spec.low[axis] for axis in axes),
        high=tuple(spec.high[axis] for axis in axes),
        units=tuple(spec.units[axis] for axis in axes),
        held=held,
        energies=energies,
        chosen=tuple(map(float, chosen)),
        energy=float(judge(steps[:1])[0]),
        candidates=marks,
    )


def _moved(action: Tensor, axes: Sequence[int], values: Tensor) -> Tensor:
    """Copies of `action` `[a]` with `values` `[K, axes]` in place of some of it, `[K, a]`."""
    moved = action.repeat(len(values), 1)
    moved[:, list(axes)] = values
    return moved


def first_candidates(planner: MPC, most: int = 64) -> Tensor:
    """Plans as the first round of a search from rest draws them, `[K <= most, T, A]`, with the planner's seed."""
    spec: ActionSpec = planner.model.action
    plan = spec.encode(spec.still()).expand(1, planner.horizon, -1)
    drawn = planner.optimizer.ask(planner.optimizer.init(plan), torch.Generator().manual_seed(planner.seed))
    return drawn.detach()[0, :most]
