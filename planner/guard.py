"""What stands between a planner and a robot: no illegal action leaves, whatever came in."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import TensorDict

from .actions import ActionSpec
from .errors import BadInput
from .substitutes import Substitutes, finite, sound_rows
from .types import Policy

if TYPE_CHECKING:
    from .surprise import Monitor

FALLBACKS = ("plan", "hold", "brake")
RESPONSES = ("warn", "replan", "stop")
FORGIVEN = (BadInput, ArithmeticError, RuntimeError, ValueError, IndexError, KeyError)
"""Errors of a policy that a robot survives; anything else, such as Ctrl-C or no memory, goes through."""


@dataclass(frozen=True)
class Limits:
    """What a robot's actions must keep, beside the bounds of its action space.

    Attributes:
        rate: most that each dimension of the action changes in one environment step, in the action's units, above 0;
            one number for all dimensions. None: no limit.
        acceleration: most that this change itself changes in one environment step, in the same units, above 0. Kept up
            to the bounds: an action slows down in time to meet them. None: no limit.
        max_age: oldest observation that is acted on, seconds, above 0, on the guard's clock; observations then need
            `time`, `[E]`. Nor is a plan done that was made from an older one, where the policy has `anew`. None: not
            asked.
        deadline: longest that the policy may think, seconds, above 0. An action that comes later is not used; what a
            plan goes on with in later steps is. None: not asked.
        fallback: what to do in place of an action that cannot be used, the first that there is: "plan", the next action
            of the last plan that was good; "hold", the last action again; "brake", rest. The end is always to brake.
        hold_steps: environment steps in a row that "hold" lasts, >= 0.
        survive_errors: whether a policy that raises is an intervention; an evaluation would rather stop.
        on_impossible: what to do where a monitor calls what is seen impossible: "warn", count it; "replan", let the
            policy start anew from what is seen now, with the same goal; "stop", brake until the next `reset`.
    """

    rate: float | None = None
    acceleration: float | None = None
    max_age: float | None = None
    deadline: float | None = None
    fallback: tuple[str, ...] = FALLBACKS
    hold_steps: int = 2
    survive_errors: bool = True
    on_impossible: str = "warn"

    def __post_init__(self) -> None:
        for name in ("rate", "acceleration", "max_age", "deadline"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and 0 < float(value) < math.inf):
                raise BadInput(f"Limits: {name} is off", expected="a number above 0, or None", got=str(value))
        if unknown := [name for name in self.fallback if name not in FALLBACKS]:
            raise BadInput("Limits: unknown fallback", expected=f"some of {list(FALLBACKS)}", got=str(unknown))
        if self.on_impossible not in RESPONSES:
            expected, got = " or ".join(RESPONSES), repr(self.on_impossible)
            raise BadInput("Limits: on_impossible is off", expected=expected, got=got)
        if self.hold_steps < 0:
            raise BadInput("Limits: hold_steps is off", expected="0 or more", got=str(self.hold_steps))


class Guard:
    """A `Policy` around another one, whose every action is finite, in bounds, in the limits, fresh and in time.

    What it changes, it counts, and it tells the policy what was really done, through `applied(actions)` where the
    policy has that. A policy with `upcoming()` lends its plan for the first fallback, and one with `anew(mask)` is told
    so where it is to plan anew in the midst of an episode; others are reset. One with `anew` is told, too, once it sees
    again after it was shown what is not to be acted on, unless its `last_looked` says that it had not looked; and at
    once, where it has `disregard(mask)`. A policy with neither that keeps a plan of its own goes on with that.

    Every step is either `act`, or, where an action has yet to get to the robot, `decide` and then `did`. Where there
    was nothing to decide from, or what was decided did not get there, it is `rested` that ends the step: the robot
    stopped by itself, and limits and plans go on from there.

    Args:
        policy: what decides.
        spec: bounds and units of the robot's actions.
        limits: what else to keep.
        clock: seconds; the one that the observations' `time` is read from.
        monitor: what tells whether that which is seen can be, in every environment; `limits.on_impossible` says what
            then. None: nobody looks.
        on_alarm: called in every step in which the monitor calls something unusual or impossible, with what it calls
            each environment, `[E]`, as in `surprise.STATES` (0 is normal): to log it, or to light a lamp. What is to be
            done about it is done before, and where `limits.survive_errors` is set whatever it raises is counted.

    Attributes:
        alarms: environment steps that the monitor called "unusual" or "impossible", since construction.
        judged: environment steps that the monitor could judge, since construction; the first ones of an episode it
            cannot, nor those after a picture that was stale or not finite.
        interventions: how often an action was changed, by reason, in environment steps: "error" (the policy or the
            monitor raised; the latter changes no action), "late", "stale" (an observation that was too old, or not
            finite beside others that were), "not finite", "bounds", "rate" (rate or acceleration), "stopped" (after
            something impossible), "refused" and "lost" (the robot rested, as nothing was decided, or what was did not
            get there), since construction.
        fallbacks: how often which fallback acted.
        last_error: what the policy raised last.
    """

    def __init__(
        self,
        policy: Policy,
        spec: ActionSpec,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        monitor: Monitor | None = None,
        on_alarm: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self.policy, self.spec, self.limits, self.clock = policy, spec, limits or Limits(), clock
        if monitor is None and self.limits.on_impossible != "warn":
            do = "hand over a monitor, surprise.Monitor(model, thresholds), as nobody else tells what is impossible"
            raise BadInput("Guard: on_impossible without a monitor", got=repr(self.limits.on_impossible), do=do)
        # As float32, which is what robots here are sent: 0.4 as float32 is more than 0.4, and still the bound.
        self.low, self.high = (np.array(bound, np.float32).astype(np.float64) for bound in (spec.low, spec.high))
        self.rest = np.clip(np.zeros_like(self.low), self.low, self.high)
        self.monitor, self.alarms, self.judged, self.on_alarm = monitor, Counter[str](), 0, on_alarm
        self.interventions: Counter[str] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self.last_error: Exception | None = None
        self._last: np.ndarray | None = None  # [E, a], what was done last
        self._change = np.zeros((0, len(self.rest)))  # [E, a], of the last action from the one before
        self._open = False  # whether something was decided that is neither `did` nor `rested` yet

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None, *, moving: bool = False) -> None:
        """Starts new episodes, in which the robot is taken to be at rest, unless it is `moving`: then it still does
        its last action, and limits go on from that. The policy begins anew in either case, and knows of nothing that
        was seen or done before. Its errors go through."""
        self.policy.reset(obs, goal, mask)
        size = obs.batch_size[0]
        self._watch_anew(obs, goal, size, mask)
        going = moving and self._last is not None and len(self._last) == size
        if mask is None or self._last is None:
            mask = np.ones(size, dtype=np.bool_)
            if self._last is None or not going:
                self._last = np.tile(self.rest, (size, 1))
                self._change = np.zeros_like(self._last)
            self._open = False
            self._held = np.zeros(size, dtype=np.int64)  # steps in a row that "hold" acted
            self._plan = np.full((size, 1, len(self.rest)), np.nan)  # [E, k, a], what was to follow, NaN where nothing
            self._substitutes = Substitutes(size)
            self._misled = np.zeros(size, dtype=np.bool_)  # shown what is not to be acted on
        self._substitutes.forget(mask)
        self._misled[mask] = False
        self._held[mask], self._plan[mask] = 0, np.nan
        if not going:
            self._last[mask], self._change[mask] = self.rest, 0

    def act(self, obs: TensorDict) -> np.ndarray:
        """One legal action an environment, `[E, a]`, float32, which is taken to be done.

        Raises:
            BadInput: before the first `reset`, or `limits.max_age` is set and the observations carry no `time`.
            Exception: whatever the policy or the monitor raised, where `limits.survive_errors` is off. Errors that are
                not in `FORGIVEN` go through in any case.
        """
        sent = self.decide(obs)
        self.did(sent)
        return sent

    def decide(self, obs: TensorDict) -> np.ndarray:
        """As `act`, but nothing is taken to be done before `did` or `rested` says so; one of them ends the step."""
        if self._last is None:
            raise BadInput("Guard: act before reset", do="call reset(obs, goal) first")
        stale = self._stale(obs)
        self._watch(obs, stale)
        wanted, usable = self._ask(obs, stale | self._stale(obs))  # watching takes its time, too
        wanted = np.where(usable[:, None], wanted, self._fall_back(usable))
        wanted[self._stopped] = self.rest
        self.interventions["stopped"] += int(self._stopped.sum())
        self._open = True
        sent: np.ndarray = self._limit(wanted).astype(np.float32)
        return sent

    def did(self, sent: np.ndarray) -> None:
        """The robot does what `decide` gave, `[E, a]`."""
        assert self._last is not None
        self._end(sent, sent - self._last)

    def rested(self) -> None:
        """The robot rested in this step, every environment: nothing was decided, or what was did not get there.

        Counted as "refused" or "lost". The change to rest was the robot's own: the next one begins at none, as after
        `reset`, else a limit of acceleration would carry a robot that stopped at once on, beyond its rest.

        Raises:
            BadInput: before the first `reset`.
        """
        if self._last is None:
            raise BadInput("Guard: rested before reset", do="call reset(obs, goal) first")
        if not self._open:
            self._pass(np.ones(len(self._last), dtype=np.bool_))
        self.interventions["lost" if self._open else "refused"] += len(self._last)
        self._end(np.tile(self.rest, (len(self._last), 1)).astype(np.float32), np.zeros_like(self._last))

    def _end(self, done: np.ndarray, change: np.ndarray) -> None:
        """Ends a step in which `done` `[E, a]`, float32, was done."""
        self._last, self._change, self._open = done.astype(np.float64), change, False
        for one in (self.policy, self.monitor):
            try:
                getattr(one, "applied", lambda _: None)(done)
            except FORGIVEN as error:
                self._survive(error)

    def report(self) -> dict[str, int]:
        """Interventions by reason and fallbacks by name, those that happened."""
        counts = self.interventions + Counter({f"fallback {name}": n for name, n in self.fallbacks.items()})
        return dict(counts)  # a sum of counters leaves out what never happened

    def _watch_anew(self, obs: TensorDict, goal: TensorDict, size: int, mask: np.ndarray | None) -> None:
        """Forgets what was seen, and that it was impossible, in the rows of `mask` (all when None)."""
        # What a new plan in the middle of an episode needs again: the goal, and whose noise is drawn.
        numbered = obs.select("episode", strict=False)
        if self.monitor is not None:
            self.monitor.reset(size, mask)
        if mask is None or self._last is None:
            # Copies: whose goals they are may write the next ones over them.
            self._goal, self._numbered = goal.clone(), numbered.clone()
            self._stopped = np.zeros(size, dtype=np.bool_)
            return
        self._stopped = self._stopped & ~mask
        if len(goal) != size or len(self._goal) != size:  # goals of the policy's own kind
            self._goal, self._numbered = goal.clone(), numbered.clone()
            return
        rows = torch.from_numpy(mask)
        self._goal, self._numbered = self._goal.clone(), self._numbered.clone()
        self._goal[rows] = goal[rows]
        if "episode" in numbered.keys() and "episode" in self._numbered.keys():  # noqa: SIM118 - rows, else
            self._numbered[rows] = numbered[rows]

    def _watch(self, obs: TensorDict, stale: np.ndarray) -> None:
        """Asks the monitor what it thinks of what is seen, but where that is `stale`, and does what is to be done."""
        if self.monitor is None:
            return
        try:
            seen = ~stale & sound_rows(obs)
            states = self.monitor.observe(obs if seen.all() else finite(obs), seen)
        except FORGIVEN as error:
            self._survive(error)
            return
        self.judged += int((~np.isnan(self.monitor.energy)).sum())
        for index, name in ((1, "unusual"), (2, "impossible")):
            self.alarms[name] += int((states == index).sum())
        try:
            self._respond(obs, self.monitor, states)
        except FORGIVEN as error:
            self._survive(error)
        if self.on_alarm is not None and states.any():
            try:
                self.on_alarm(states)
            except Exception as error:  # noqa: BLE001  # somebody's lamp is broken, and the robot is not
                self._survive(error)

    def _survive(self, error: Exception) -> None:
        """Counts an error of the policy or of what looks on, in every environment, or raises it."""
        if not self.limits.survive_errors:
            raise error
        self.last_error = error
        self.interventions["error"] += len(self._stopped)

    def _respond(self, obs: TensorDict, monitor: Monitor, states: np.ndarray) -> None:
        impossible = (states == 2) & ~self._stopped
        if self.limits.on_impossible == "stop":
            self._stopped |= impossible
        elif self.limits.on_impossible == "replan" and impossible.any():
            monitor.reset(len(states), impossible)  # what came before is no ground to foresee from
            self._begin_anew(obs, impossible)

    def _begin_anew(self, obs: TensorDict, rows: np.ndarray, *, wholly: bool = False) -> None:
        """Has the policy go on from what `rows`, bool `[E]`, see now; `wholly`, as if an episode began."""
        if not rows.any():
            return
        if hasattr(self.policy, "anew") and not wholly:
            self.policy.anew(rows)
        else:
            self.policy.reset(obs.clone(recurse=False).update(self._numbered), self._goal, rows)

    def _ask(self, obs: TensorDict, stale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the policy wants, `[E, a]`, and where that can be used, bool `[E]`: not where observations are stale."""
        assert self._last is not None
        size, began = len(self._last), self.clock()
        try:
            said, unseen = self._said(obs, stale)
            wanted, stale = np.array(said, np.float64), stale | unseen
            if (misled := stale & getattr(self.policy, "last_looked", np.ones(size, dtype=np.bool_))).any():
                self._misled |= misled
                getattr(self.policy, "disregard", lambda _: None)(misled)
            if wanted.shape != self._last.shape:
                raise BadInput("Guard: action has a wrong shape", expected=str(self._last.shape), got=str(wanted.shape))
        except FORGIVEN as error:
            self._survive(error)
            return np.zeros_like(self._last), np.zeros(size, dtype=np.bool_)
        if self.limits.deadline is not None and self.clock() - began > self.limits.deadline:
            self.interventions["late"] += size
            return wanted, np.zeros(size, dtype=np.bool_)
        finite = np.isfinite(wanted).all(1)
        self.interventions["stale"] += int(stale.sum())
        self.interventions["not finite"] += int((~finite & ~stale).sum())
        usable = finite & ~stale
        self._held[usable] = 0
        if hasattr(self.policy, "upcoming"):
            try:
                self._keep(self.policy.upcoming(), usable)
            except FORGIVEN as error:
                self._survive(error)
        return wanted, usable

    def _said(self, obs: TensorDict, stale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the policy says, `[E, a]`, and for which it was shown something else than is seen, bool `[E]`.

        A policy that is asked for all environments at once refuses what is not finite, and for one broken sensor all of
        them would brake. So it is asked again, with a substitute for what that one sees. Where that was done, or
        what it was shown was `stale`, it begins anew as soon as it sees something itself.
        """
        sound, known = sound_rows(obs), self._substitutes
        seeing = sound & ~stale
        self._begin_anew(obs, known.borrowed & seeing, wholly=True)
        if hasattr(self.policy, "anew"):  # to reset others for every old picture would be to end their episodes
            self._begin_anew(obs, self._misled & ~known.borrowed & seeing)
        known.borrowed &= ~seeing
        self._misled &= ~seeing
        if not self.limits.survive_errors:
            return self.policy.act(obs), np.zeros_like(sound)
        try:
            said, unseen = self.policy.act(obs), np.zeros_like(sound)
        except FORGIVEN:
            if sound.all() or not sound.any():
                raise
            said, unseen = self.policy.act(known.instead(obs, sound)), ~sound
        known.remember(obs, sound)
        return said, unseen

    def _stale(self, obs: TensorDict) -> np.ndarray:
        """Where what is seen is too old to act on, or of an unknown age, bool `[E]`."""
        if self.limits.max_age is None:
            return np.zeros(obs.batch_size[0], dtype=np.bool_)
        if "time" not in obs:
            raise BadInput("Guard: observations carry no time", expected="`time` [E], seconds", do="or max_age=None")
        age = self.clock() - obs["time"].numpy(force=True).astype(np.float64).reshape(-1)
        # From the future, or NaN: a clock that cannot be trusted is no better than an old picture.
        return ~((age <= self.limits.max_age) & (age >= -self.limits.max_age))

    def _keep(self, upcoming: np.ndarray, usable: np.ndarray) -> None:
        """Takes over the policy's plans, `[E, k, a]`, where they are good; the other rows keep what they had."""
        assert self._last is not None
        upcoming = np.asarray(upcoming, np.float64)
        if upcoming.ndim != 3 or not upcoming.shape[1] or upcoming[:, 0].shape != self._last.shape:
            expected = f"[{self._last.shape[0]}, k, {self._last.shape[1]}], k >= 1"
            raise BadInput("Guard: upcoming has a wrong shape", expected=expected, got=str(upcoming.shape))
        kept = np.where(usable[:, None, None], upcoming, np.nan)
        shared = min(kept.shape[1], self._plan.shape[1])
        kept[~usable, :shared] = self._plan[~usable, :shared]
        self._plan = kept

    def _fall_back(self, usable: np.ndarray) -> np.ndarray:
        """The best that is left for the rows that are not usable, `[E, a]`; others are not read."""
        assert self._last is not None
        action, open_rows = np.tile(self.rest, (len(usable), 1)), ~usable
        for name in (*self.limits.fallback, "brake"):
            if name == "plan":
                ready = open_rows & np.isfinite(self._plan[:, 0]).all(1)
                action[ready] = self._plan[ready, 0]
            elif name == "hold":
                ready = open_rows & (self._held < self.limits.hold_steps)
                action[ready] = self._last[ready]
                self._held[ready] += 1
            else:
                ready = open_rows
            self.fallbacks[name] += int(ready.sum())
            open_rows = open_rows & ~ready
        self._pass(~usable)
        return action

    def _pass(self, rows: np.ndarray) -> None:
        """One step of what was planned for `rows`, bool `[E]`, has gone by, used or not."""
        self._plan[rows, :-1] = self._plan[rows, 1:]
        self._plan[rows, -1] = np.nan

    def _limit(self, wanted: np.ndarray) -> np.ndarray:
        """The nearest action to `wanted` that keeps bounds, rate and acceleration, `[E, a]`."""
        assert self._last is not None
        inside = np.clip(wanted, self.low, self.high)
        worth = 1e-6 * (self.high - self.low)  # what rounding changes is no intervention
        self.interventions["bounds"] += int((np.abs(inside - wanted) > worth).any(1).sum())
        rise, fall = self.high - self._last, self._last - self.low  # room to the bounds
        if (most := self.limits.rate) is not None:
            rise, fall = np.minimum(rise, most), np.minimum(fall, most)
        if (bend := self.limits.acceleration) is not None:
            rise = np.minimum(_stoppable(self.high - self._last, bend), np.minimum(rise, self._change + bend))
            fall = np.minimum(_stoppable(self._last - self.low, bend), np.minimum(fall, bend - self._change))
        limited = np.clip(self._last + np.clip(inside - self._last, -fall, rise), self.low, self.high)
        self.interventions["rate"] += int((np.abs(limited - inside) > worth).any(1).sum())
        return limited


def _stoppable(room: np.ndarray, bend: float) -> np.ndarray:
    """The largest change that can still be brought to 0, `bend` less each step, within `room` (both >= 0).

    A change d uses d + (d - bend) + (d - 2 bend) + ... of the room, over k + 1 steps: `(k + 1) d - bend k (k + 1) / 2`.
    """
    room = np.maximum(room, 0)
    k = np.floor((np.sqrt(1 + 8 * room / bend) - 1) / 2)
    return (room + bend * k * (k + 1) / 2) / (k + 1)
