"""One robot's planner, asked picture by picture: what `server` puts behind a wire."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from ..checkpoint import Checkpoint
from ..errors import BadInput
from ..guard import Guard, Limits
from ..pictures import batch, decode
from ..plan import Plan
from ..surprise import STATES, Monitor, Thresholds

REMEMBERED = 400
"""Latest steps whose surprise is told."""


class Session:
    """A planner behind a guard, for one robot; calls are done one after the other, whichever thread makes them.

    A robot that gets no action brakes by itself: a step that was refused, or whose answer could not be handed over, is
    taken for one in which the robot rested, and the guard's limits, the planner and the monitor go on from there.

    Args:
        loaded: whose planner acts.
        limits: what the guard keeps.
        thresholds: of the checkpoint's monitor of surprise; None: nobody looks.
        seed: of the planner's noise.
        deadline_ms: as in `MPC`.
        larger: whether pictures may be larger than those of training, as in `pictures.decode`.
        clock: seconds; what ages of pictures and times are reckoned by.

    Raises:
        BadInput: `deadline_ms` is none, or `limits` say what to do about the impossible and there are no thresholds.
    """

    def __init__(
        self,
        loaded: Checkpoint,
        limits: Limits,
        *,
        thresholds: Thresholds | None = None,
        seed: int = 0,
        deadline_ms: float | None = None,
        larger: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loaded, self.limits, self.thresholds, self.clock = loaded, limits, thresholds, clock
        self.larger = larger
        self.policy = loaded.planner.build(loaded.model, seed, deadline_ms=deadline_ms)
        self.monitor = None if thresholds is None else Monitor(loaded.model, thresholds)
        self.guard = Guard(self.policy, loaded.model.action, limits, clock, self.monitor)
        self.goal: np.ndarray | None = None  # [size, size, 3]
        self.seen: np.ndarray | None = None  # the last picture
        self.answer: dict[str, Any] | None = None
        self.episode, self.step = -1, 0  # the running one, and its next step
        self.begun: str | None = None  # a name that no other goal has, of this program or one before
        self._before: Plan | None = None  # the last plan of the episode before
        self._surprise: deque[float | None] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()

    def begin(self, goal: bytes, episode: int | None = None, moving: bool = False) -> dict[str, Any]:
        """A new episode, towards this picture.

        Args:
            goal: as in `pictures.decode`.
            episode: number that its noise follows from, >= 0; one more than the last by default.
            moving: whether the robot still does its last action, and limits are to go on from that; else it is taken to
                be at rest.

        Returns:
            `episode`.

        Raises:
            BadInput: for a picture or a number that is none; what went before goes on.
        """
        with self._lock:
            picture = decode(goal, self.size, self.larger)
            number = self.episode + 1 if episode is None else episode
            if not 0 <= number < 2**63:
                raise BadInput("serve: episode is off", expected="0 to 2^63 - 1", got=str(number))
            numbered = TensorDict({"episode": torch.tensor([number])}, batch_size=[1])
            self.guard.reset(numbered, batch(picture[None]), moving=moving)
            self._before = self.policy.last_plan
            self.goal, self.episode, self.step, self.answer = picture, number, 0, None
            self.begun = secrets.token_hex(4)
            self._surprise.clear()
            return {"episode": number}

    def act(
        self, picture: bytes, age: float | None = None, hand: Callable[[dict[str, Any]], None] = lambda answer: None
    ) -> dict[str, Any]:
        """What to do now, to be asked once a control step.

        Args:
            picture: what the camera sees, as in `pictures.decode`.
            age: seconds since it was taken; older than `limits.max_age` is not acted on. None: nobody knows, which is
                refused where `limits.max_age` is set.
            hand: takes the answer to the robot, before anybody else may ask. Where it raises, the robot has no answer.

        Returns:
            `step` of the episode, from 0, those without an answer counted too; `action` `[a]`, physical units; `state`,
            a name in `STATES`, and `surprise`, the energy that it follows from (both None where no monitor is, or this
            step could not be judged, as the first ones of an episode); `energy` of the plan that is followed, None
            before there is one of finite energy; `changed`, what the guard changed in this step; `ms`, the time it
            took.

        Raises:
            BadInput: there is no goal yet, or picture or age are none; the robot has to brake then.
            Exception: what `hand` raised.
        """
        with self._lock:
            if self.goal is None:
                raise BadInput("serve: no goal yet", do="put its picture to /goal first")
            try:
                action, answer = self._decide(picture, age)
                hand(answer)
            except BaseException:  # whatever it was, the robot has no answer
                self._rested()
                raise
            self.guard.did(action)
            self._surprise.append(answer["surprise"])
            self.step, self.answer = self.step + 1, answer
            return answer

    def missed(self) -> None:
        """A step has gone by whose `act` was refused before it came here; the robot rested. Nothing without a goal."""
        with self._lock:
            if self.goal is not None:
                self._rested()

    def _rested(self) -> None:
        self.guard.rested()
        self._surprise.append(None)
        self.step += 1

    def _decide(self, picture: bytes, age: float | None) -> tuple[np.ndarray, dict[str, Any]]:
        """The action, `[1, a]`, and what is answered."""
        began, before = self.clock(), self.guard.report()
        if age is None and self.limits.max_age is not None:
            do = "send it as /act?age=0.02"
            raise BadInput("serve: age is missing", expected="seconds since the picture was taken", do=do)
        age = age or 0.0
        if not math.isfinite(age):
            raise BadInput("serve: age is off", expected="seconds since the picture was taken", got=str(age))
        self.seen = decode(picture, self.size, self.larger)
        obs = batch(self.seen[None])
        obs["time"] = torch.tensor([began - age], dtype=torch.float64)
        action = self.guard.decide(obs)
        after = self.guard.report()
        state, surprise = self._watched()
        plan = None if self.policy.last_plan is self._before else self.policy.last_plan
        return action, {
            "step": self.step,
            "action": action[0].tolist(),
            "state": state,
            "surprise": surprise,
            "energy": None if plan is None else _finite(plan.energy[0]),
            "changed": {name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)},
            "ms": 1000 * (self.clock() - began),
        }

    def _watched(self) -> tuple[str | None, float | None]:
        """What the monitor called this step, and its energy."""
        if self.monitor is None or math.isnan(energy := float(self.monitor.energy[0])):
            return None, None
        return STATES[int(self.monitor.thresholds.judge(np.array(energy)))], _finite(energy)

    def status(self) -> dict[str, Any]:
        """What acts, within which limits, and what happened since it began.

        `begun` is another with each goal, for a browser that takes a picture at an address that it knows for the same.
        """
        with self._lock:
            spec, known = self.loaded.model.action, self.thresholds
            return {
                "task": self.loaded.task,
                "checkpoint": self.loaded.sha256,
                "size": self.size,
                "action": {"low": list(spec.low), "high": list(spec.high), "units": list(spec.units)},
                "thresholds": known and {"unusual": known.unusual, "impossible": known.impossible},
                "on_impossible": self.limits.on_impossible,
                "episode": None if self.goal is None else self.episode,
                "begun": self.begun,
                "last": self.answer,
                "surprise": list(self._surprise),
                "alarms": dict(self.guard.alarms),
                "interventions": self.guard.report(),
                "error": None if self.guard.last_error is None else str(self.guard.last_error),
            }

    @property
    def size(self) -> int:
        """Height and width of the pictures, pixels."""
        return self.loaded.model.config.image_size


def _finite(value: Any) -> float | None:
    """A number that JSON can tell."""
    return float(value) if math.isfinite(value) else None
