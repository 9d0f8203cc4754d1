"""Model predictive control: look, plan, do the first steps, look again."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from .energies.base import begun, looked
from .errors import BadInput
from .graph import CapturedPlan
from .optimizers.noise import Streams
from .plan import Plan, checked_deadline, finite, plan, rollout_size
from .types import Context, EnergyLike, Optimizer, Prior, WorldModel

KEPT = 100_000
"""Latest searches whose times are kept; no evaluation has as many, and a robot's server may run for months."""


class MPC:
    """A `Policy` that plans towards a goal with a world model, in a batch of E environments.

    One model step is `model.action.block` environment steps. Every environment has its own clock: every `execute` model
    steps, or every `replan` environment steps, it gets a new plan. Environments that are due at once are planned at
    once. A model's history is frames a block apart, so where plans are made inside a block, frames are encoded as often
    as that takes.

    The device is that of the latents that `model.encode` returns. The first frame of an episode fills the whole
    history, with actions at rest in between. "At rest" is the action nearest to zero in physical units.

    Args:
        model: encodes and rehearses.
        energy: what is minimised.
        optimizer: how.
        horizon: T, model steps to look ahead, >= 1.
        iterations: rounds of the optimizer, >= 1.
        execute: model steps to do of each plan before planning again, 1 to `horizon`.
        replan: environment steps to do of each plan before planning again, 1 to `horizon * block`; in place of
            `execute`. Below `block` the robot is corrected inside a model step, and planning costs more.
        prior: proposes further plans to start from, given what is known, the goal and the source of noise: a network
            (`proposals.proposer`), or anything of yours; `[E, P, T, A]` in [-1, 1].
        seed: of the noise; after each full reset the same calls give the same actions. Every environment has noise of
            its own, begun anew with each of its episodes: what is planned for it does not depend on those beside it
            (but for rounding, as products of more rows may differ in the last bit; see `apart`).
        deadline_ms: wall time that a search may take, as in `plan`; None to finish every search. With `apart` each
            environment has a search of its own.
        chunk: most candidates in one rollout, as in `plan`.
        max_bytes: most memory of one rollout, as in `plan`, which for an optimizer that differentiates asks for more.
        capture: on a GPU, record each search as a CUDA graph (`graph.CapturedPlan`) and replay it; not with a deadline.
        apart: encode and plan for one environment after the other. What is done in each is then the same to the last
            bit, however many there are; with several it takes longer than planning for them in one batch.

    Attributes:
        incomplete: how many searches the deadline ended early, since construction.
        fallbacks: how often an environment was due and no candidate had a finite energy, since construction. It then
            does what is left of its last plan, and after that rests.
        plan_seconds: wall time from observation to action of each `act` that planned, seconds; the latest `KEPT`.
        last_plan: what the last call of `plan` found, for the environments `last_rows`.
        last_rows: indices of these environments, `[n]`.
        last_context: what the model knew when it found that, E = n.
        last_goal: the goal that it was for, batch `[n]`.
        last_looked: whose observation the last `act` looked at, bool `[E]`; the others went on with their plans.
    """

    def __init__(
        self,
        model: WorldModel,
        energy: EnergyLike,
        optimizer: Optimizer[Any],
        *,
        horizon: int,
        iterations: int,
        execute: int = 1,
        replan: int | None = None,
        prior: Prior | None = None,
        seed: int = 0,
        deadline_ms: float | None = None,
        chunk: int | None = None,
        max_bytes: int | None = None,
        capture: bool = False,
        apart: bool = False,
    ) -> None:
        if horizon < 1 or iterations < 1:
            raise BadInput("MPC: horizon or iterations is off", expected="at least 1", got=f"{horizon}, {iterations}")
        if not 1 <= execute <= horizon:
            raise BadInput("MPC: execute is off", expected=f"1 to horizon ({horizon})", got=str(execute))
        if replan is not None and not 1 <= replan <= horizon * model.action.block:
            expected = f"1 to horizon * block ({horizon * model.action.block})"
            raise BadInput("MPC: replan is off", expected=expected, got=str(replan))
        if capture and deadline_ms is not None:
            raise BadInput("MPC: deadline_ms and capture exclude each other", do="leave one of them out")
        if seed < 0:
            raise BadInput("MPC: seed is off", expected="0 or more", got=str(seed))
        checked_deadline(deadline_ms)
        rollout_size(model, 1, horizon, chunk, max_bytes)
        self.model, self.energy, self.optimizer = model, energy, optimizer
        self.horizon, self.iterations, self.seed, self.capture = horizon, iterations, seed, capture
        self.prior = prior
        self.apart = apart
        self.replan = execute * model.action.block if replan is None else replan
        self._look = math.gcd(self.replan, model.action.block)  # environment steps from one encoded frame to the next
        self.deadline_ms, self.chunk, self.max_bytes = deadline_ms, chunk, max_bytes
        self.fallbacks = self.incomplete = 0
        self.plan_seconds: deque[float] = deque(maxlen=KEPT)
        self.last_plan: Plan | None = None
        self.last_rows = np.zeros(0, dtype=np.int64)
        self.last_context: Context | None = None
        self.last_goal: TensorDict | None = None
        self.last_looked = np.zeros(0, dtype=np.bool_)
        self._search: Any = None  # `plan`, or a `CapturedPlan` that was made before
        self._clock: np.ndarray | None = None  # [E], environment steps since each episode began

    @torch.inference_mode(False)  # what is kept has to be written to later, in that mode or out of it
    @torch.no_grad()
    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        """Starts new episodes.

        Args:
            obs: first observations, batch `[E]`. They are encoded when `act` gets them. Where they have `episode`,
                whole numbers >= 0 `[E]`, the noise of each is its own: it follows from the planner's seed and that
                number. Without, every episode has the same noise.
            goal: goal observations, batch `[E]`, encoded here, once.
            mask: bool `[E]`, the environments to reset; the others go on undisturbed and their rows of `obs` and `goal`
                are not read. None resets all of them; the first reset has to be of all.

        Raises:
            BadInput: a batch or the mask does not fit, or a float that is to be read is not finite.
        """
        if mask is None or self._clock is None:
            self._begin(self._seeds(obs, torch.arange(obs.batch_size[0])), goal, mask)
            return
        if mask.shape != self._clock.shape or mask.dtype != np.bool_:
            raise BadInput("MPC: mask is off", expected=f"bool [{len(self._clock)}]", got=f"{mask.dtype} {mask.shape}")
        if tuple(obs.batch_size) != mask.shape:
            raise BadInput("MPC: batch of observation is off", expected=str(mask.shape), got=str(tuple(obs.batch_size)))
        if not mask.any():
            return
        _require_sound(goal, "goal", mask)
        rows = torch.from_numpy(np.flatnonzero(mask))
        seeds = self._seeds(obs, rows)
        self._goal[rows] = begun(self.energy, self._encode(goal[rows])[:, 0])
        for row, seed in zip(rows.tolist(), seeds, strict=True):
            self._noise.restart(row, seed)
        self.anew(mask)

    def anew(self, mask: np.ndarray) -> None:
        """Forgets, in the midst of an episode, what was seen, done and planned, to go on from what is seen next.

        The goal stays, with what the energy remembers of it, such as which of several was visited.

        Args:
            mask: bool `[E]`, the environments.
        """
        assert self._clock is not None
        self._clock[mask], self._owed[mask], self._done[mask] = 0, 0, self._still
        self._plan[torch.as_tensor(mask, device=self._plan.device)] = self._rest

    def disregard(self, mask: np.ndarray) -> None:
        """Takes back what the energy remembers of the last look, such as a goal visited, as it showed nothing true.

        What was planned from it stays, until `anew` is called.

        Args:
            mask: bool `[E]`, the environments.
        """
        if self._remembers:
            rows = torch.from_numpy(np.flatnonzero(mask))
            self._goal[rows] = self._goal_before[rows]

    def _seeds(self, obs: TensorDict, rows: Tensor) -> list[int]:
        """Of the noise of each environment of `rows`."""
        if "episode" not in obs:
            return [self.seed] * len(rows)
        numbers = obs["episode"].reshape(len(obs))[rows].tolist()
        if negative := [number for number in numbers if number < 0]:
            raise BadInput("MPC: episode is off", expected="whole numbers >= 0", got=str(negative[0]))
        mixed = (np.random.SeedSequence([self.seed, number]) for number in numbers)
        return [int(one.generate_state(1, np.uint64)[0]) for one in mixed]

    def _begin(self, seeds: list[int], goal: TensorDict, mask: np.ndarray | None) -> None:
        size = len(seeds)
        if not size:
            raise BadInput("MPC: nothing to plan for", expected="at least one environment", got="0")
        everyone = np.ones(size, dtype=np.bool_)
        if mask is not None and not np.array_equal(mask, everyone):
            raise BadInput("MPC: the first reset has to be of every environment", do="leave the mask out")
        _require_sound(goal, "goal", everyone)
        encoded = self._encode(goal)[:, 0]
        self._goal = begun(self.energy, encoded).clone()  # [E]
        self._remembers = set(self._goal.keys()) != set(encoded.keys())  # is the energy to be told of every look?
        self._goal_before = self._goal
        spec, device = self.model.action, self._goal.device or next(iter(self._goal.values(True, True))).device
        still = spec.still().to(device)
        self._still, self._rest = still[0].cpu().numpy(), spec.encode(still)  # [env_dim], [A]
        self._plan = self._rest.repeat(size, self.horizon, 1)  # [E, T, A]
        self._latents: TensorDict | None = None  # [E, frames `look` steps apart, over a model's history]
        # What was done between the frames of the history, [E, (H - 1) * block, env_dim].
        self._done = np.tile(self._still, (size, (self.model.history - 1) * spec.block, 1))
        self._queue = np.zeros((size, self.replan, spec.env_dim), dtype=np.float32)
        self._noise = Streams(device, seeds, self.seed)
        if self._clock is None or len(self._clock) != size:
            self._search = None  # recordings for as many environments as there were would only take room
        self._search = self._make_search()
        self._acted = False  # since `applied` was told of a step
        self._clock = np.zeros(size, dtype=np.int64)
        self._owed = np.zeros(size, dtype=np.int64)  # looks that were missed, while the plan went on
        self.last_looked = np.zeros(size, dtype=np.bool_)

    @torch.inference_mode(False)
    @torch.no_grad()
    def act(self, obs: TensorDict) -> np.ndarray:
        """One environment action an environment, to be called at every environment step.

        Args:
            obs: observations of now, batch `[E]`.

        Returns:
            `[E, env_dim]`, float32, in the units of `model.action`, finite and inside its bounds.

        Raises:
            BadInput: called before `reset`, another E than there, or a float observation that is not finite.
        """
        if self._clock is None:
            raise BadInput("MPC: act before reset", do="call reset(obs, goal) first")
        began = time.perf_counter()
        _require_sound(obs, "observation", np.ones_like(self._clock, dtype=np.bool_))
        seen, looking = self._latents, self._due(self._look) | (self._owed > 0)
        self._goal_before = self._goal.clone() if self._remembers else self._goal
        try:
            if len(rows := np.flatnonzero(looking)):
                self._observe(obs, rows)
            if len(rows := np.flatnonzero(self._due(self.replan))):
                self._replan(rows)
                self.plan_seconds.append(time.perf_counter() - began)
        except BaseException:
            # Whoever survives this calls again, and must not find one frame there twice.
            self._latents, self._goal = seen, self._goal_before
            raise
        action: np.ndarray = self._queue[np.arange(len(self._clock)), self._clock % self.replan]
        self._clock += 1
        self._owed[:] = 0
        self._did(action)
        self._acted, self.last_looked = True, looking
        return action

    def applied(self, actions: np.ndarray) -> None:
        """Corrects what was done in the environment step of the last `act`, where a guard did something else.

        To be called once a step, after `act`, also where that raised, or was not called as there was nothing to see,
        and something else was done: the step has gone by then. Who was to plan does so at the next one. The others go
        on with the step of their plans that is then due, and look at the next one if they were to look at this.

        Args:
            actions: `[E, env_dim]`, in the units of `model.action`. Rehearsals start from what was done, not from what
                was meant.
        """
        assert self._clock is not None
        if self._acted:
            self._done[:, -1:] = actions[:, None]
        else:
            self._did(actions)
            going = ~self._due(self.replan)
            self._owed[going & self._due(self._look)] += 1
            self._clock[going] += 1
        self._acted = False

    def _due(self, every: int) -> np.ndarray:
        """Whose step it is to do what is done in every so many environment steps, bool `[E]`."""
        assert self._clock is not None
        due: np.ndarray = self._clock % every == 0
        return due

    def _did(self, actions: np.ndarray) -> None:
        """`actions` `[E, env_dim]` are the newest that were done; nothing is kept where H is 1."""
        self._done = np.concatenate([self._done, actions[:, None]], axis=1)[:, 1:]

    def upcoming(self) -> np.ndarray:
        """What the present plans would do after the last `act`, `[E, T * block, env_dim]`, NaN beyond their ends."""
        assert self._clock is not None
        plans = self.model.action.decode(self._plan).flatten(1, 2).cpu().numpy()  # [E, T * block, env_dim]
        steps = np.arange(plans.shape[1]) + ((self._clock - 1) % self.replan + 1)[:, None]
        inside = steps < plans.shape[1]
        following: np.ndarray = plans[np.arange(len(plans))[:, None], np.where(inside, steps, 0)]
        return np.where(inside[..., None], following, np.nan)

    def _observe(self, obs: TensorDict, rows: np.ndarray) -> None:
        """Encodes the frames of `rows` and moves their history on; each stands for those that were missed before it,
        too."""
        assert self._clock is not None
        length = (self.model.history - 1) * self.model.action.block // self._look + 1
        fresh = self._encode(obs[torch.from_numpy(rows)])  # [n, 1]
        if self._latents is None:  # the first call after a full reset: every row is here
            self._latents = fresh.expand(len(rows), length).clone()
        index = torch.as_tensor(rows, device=self._rest.device)
        began = self._clock[rows] == 0  # [n], at the start of an episode
        if length > 1 and (broken := ~finite(self._latents[index], 1).numpy(force=True)).any():
            began = began | broken  # a latent that was not finite would fail every plan that has it for its past
            self._done[rows[broken]] = self._still
        new = torch.as_tensor(began, device=self._rest.device)
        window = torch.cat([self._latents[index], fresh], dim=1)  # [n, length + 1]
        # The last of the window; in a new episode the newest all along, so that nothing of the old one stays.
        on = torch.as_tensor(self._due(self._look)[rows] + self._owed[rows], device=new.device)  # [n], >= 1
        frames = (torch.arange(length, device=new.device) + on[:, None]).clamp(max=length)
        frames = frames.masked_fill(new[:, None], length)
        self._latents = self._latents.clone()
        self._latents[index] = window[torch.arange(len(rows), device=new.device)[:, None], frames]
        if self._remembers:
            self._goal[index] = looked(self.energy, self._goal[index], fresh[:, 0])

    def _replan(self, rows: np.ndarray) -> None:
        """New plans for `rows`, warm-started by what is left of the old ones."""
        assert self._latents is not None
        index = torch.as_tensor(rows, device=self._rest.device)
        proposals = self._proposals(self._plan[index])
        latents = self._latents[index][:, :: self.model.action.block // self._look]  # [n, H]
        done = torch.as_tensor(self._done[rows], device=index.device).unflatten(1, (-1, self.model.action.block))
        context = Context(latents, self.model.action.encode(done).to(self._plan.dtype))
        goal = self._goal[index]
        found = self._found(context, goal, proposals, rows)
        # Where every candidate failed, `plan` returns the first proposal: the rest of the last plan.
        self.fallbacks += int((~found.energy.isfinite()).sum())
        self.last_plan, self.last_rows, self.last_context, self.last_goal = found, rows, context, goal
        self._plan[index] = found.actions
        blocks = -(-self.replan // self.model.action.block)  # those that the next steps are of
        physical = self.model.action.decode(found.actions[:, :blocks]).flatten(1, 2)  # [n, blocks * block, env_dim]
        self._queue[rows] = physical[:, : self.replan].cpu().numpy()

    def _encode(self, obs: TensorDict) -> TensorDict:
        """Observations `[n]` to latents `[n, 1]`."""
        looks = obs.unsqueeze(1)
        if not self.apart or len(looks) == 1:
            return self.model.encode(looks)
        return torch.cat([self.model.encode(look) for look in looks.split(1)])  # type: ignore[return-value]

    def _found(self, context: Context, goal: TensorDict, proposals: Tensor, rows: np.ndarray) -> Plan:
        """Plans for `rows`, from one search or from one each."""
        size = 1 if self.apart else len(rows)
        plans: list[Plan] = []
        for first in range(0, len(rows), size):
            part = slice(first, first + size)
            self._noise.rows = rows[part].tolist()
            knows = context if size == len(rows) else Context(context.latent[part], context.actions[part])
            wants = goal if size == len(rows) else goal[part]
            starts = proposals[part]
            if self.prior is not None:
                starts = torch.cat([starts, self._proposed(knows, wants)], 1)
            plans.append(self._search(knows, wants, proposals=starts))
            self.incomplete += not plans[-1].complete
        if len(plans) == 1:
            return plans[0]
        rounds = min(len(one.trace) for one in plans)  # a deadline may have cut some short
        return Plan(
            torch.cat([one.actions for one in plans]),
            torch.cat([one.energy for one in plans]),
            torch.cat([one.trace[:rounds] for one in plans], dim=1),
            complete=all(one.complete for one in plans),
        )

    def _proposed(self, context: Context, goal: TensorDict) -> Tensor:
        """The plans of the prior, `[n, P, T, A]`."""
        assert self.prior is not None
        plans = self.prior(context, goal, self._noise)
        size = (len(context.actions), self.horizon, self.model.action.dim)
        if plans.ndim != 4 or (plans.shape[0], *plans.shape[2:]) != size:
            expected, got = f"[{size[0]}, P, {size[1]}, {size[2]}]", str(list(plans.shape))
            raise BadInput("MPC: the prior's plans have a wrong shape", expected=expected, got=got)
        return plans.to(self._rest)

    def _make_search(self) -> Callable[..., Plan]:
        """`plan` with everything given but context, goal and proposals."""
        if self.capture:
            return CapturedPlan(self.model, self.energy, self.optimizer, **self._options()).after(self._search)
        return self._plan_once

    def _plan_once(self, context: Context, goal: TensorDict, proposals: Tensor) -> Plan:
        parts, when = (self.energy, self.optimizer), self.deadline_ms
        return plan(self.model, context, goal, *parts, proposals=proposals, deadline_ms=when, **self._options())

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"iterations": self.iterations, "horizon": self.horizon, "chunk": self.chunk}
        return options | {"generator": self._noise, "max_bytes": self.max_bytes}

    def _proposals(self, last: Tensor) -> Tensor:
        """What is left of the last plans `[n, T, A]`, then rest; and rest throughout: `[n, 2, T, A]`."""
        rest = self._rest.expand_as(last)
        # Rest, and not the last action again: a robot whose planning keeps failing comes to a halt.
        steps = torch.cat([last, rest], dim=1).unflatten(-1, (self.model.action.block, -1)).flatten(1, 2)
        shifted = steps[:, self.replan :][:, : last.shape[1] * self.model.action.block]
        shifted = shifted.unflatten(1, (-1, self.model.action.block)).flatten(-2)
        return torch.stack([shifted, rest], dim=1)


def _require_sound(data: TensorDict, what: str, mask: np.ndarray) -> None:
    """Batch `[E]`, and no NaN or infinity in the float rows of `mask`."""
    if tuple(data.batch_size) != mask.shape:
        raise BadInput(f"MPC: batch of {what} is off", expected=str(mask.shape), got=str(tuple(data.batch_size)))
    for key in data.keys(include_nested=True, leaves_only=True):
        value: Tensor = data[key]
        if value.is_floating_point():
            sound = torch.isfinite(value.reshape(len(mask), -1)).all(dim=1)
            broken = np.flatnonzero(mask & ~sound.cpu().numpy())
            if len(broken):
                where = f"MPC: {what} {key!r} of environment {broken[0]}"
                raise BadInput(where, expected="finite numbers", got="NaN or inf")
