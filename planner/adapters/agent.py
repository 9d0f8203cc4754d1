"""A planner where a trained agent is expected: the interface of Stable-Baselines3's models."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checkpoint import Checkpoint
from ..errors import BadInput
from ..guard import Guard, Limits
from ..pictures import batch
from ..surprise import Monitor, Thresholds


class Agent:
    """Acts in our Gymnasium environments, one or several at once, as a model of Stable-Baselines3 does.

    `stable_baselines3.common.evaluation.evaluate_policy(Agent(loaded), env)` works (tried with 2.9.2 on TwoRoom, one
    environment and two at once), and so does any loop that calls `predict`; nothing of that library is needed here.
    Observations have `pixels` and `goal`.

    Args:
        loaded: whose planner acts.
        limits: what its guard keeps; errors of the planner go through by default.
        seed: of its noise.
        thresholds: of the checkpoint's monitor of surprise (`surprise.load`); None: nobody looks. An environment that
            begins an episode by itself must tell so by `episode_start` or by another goal, else the jump is impossible.

    Raises:
        BadInput: `limits` say what to do about the impossible, and there are no thresholds.

    Attributes:
        guard: what stands between the planner and the robots, with what it counted.
    """

    def __init__(
        self, loaded: Checkpoint, limits: Limits | None = None, seed: int = 0, thresholds: Thresholds | None = None
    ) -> None:
        policy = loaded.planner.build(loaded.model, seed)
        monitor = None if thresholds is None else Monitor(loaded.model, thresholds)
        limits = limits or Limits(survive_errors=False)
        self.guard = Guard(policy, loaded.model.action, limits, monitor=monitor)
        self._goal: np.ndarray | None = None  # [E, size, size, 3], of the episodes that run

    def predict(
        self,
        observation: dict[str, np.ndarray],
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """What to do now, to be asked at every step.

        Args:
            observation: `pixels` and `goal`, uint8 `[size, size, 3]` of one environment or `[E, size, size, 3]`.
            state: handed back as it came: what the planner remembers stays in it.
            episode_start: bool `[E]`, where new episodes begin. By default they do where the goal is another one than
                at the call before. Either way the robot is taken to be at rest there, and the goal is that of then:
                where it is said, a goal that changes within an episode is not read.
            deterministic: not read; the noise of a plan is part of it, and follows from the seed.

        Returns:
            Actions `[a]` or `[E, a]`, float32, physical units; and `state`.

        Raises:
            BadInput: for other keys or shapes.
        """
        pixels, goal = (self._picture(observation, name) for name in ("pixels", "goal"))
        alone = pixels.ndim == 3
        pixels, goal = (pixels[None], goal[None]) if alone else (pixels, goal)
        self._begin(pixels, goal, episode_start)
        actions = self.guard.act(batch(pixels))
        return actions[0] if alone else actions, state

    def _begin(self, pixels: np.ndarray, goal: np.ndarray, start: np.ndarray | None) -> None:
        """New episodes where they begin."""
        known = self._goal
        if start is not None and np.shape(start) != (len(goal),):
            raise BadInput("Agent: episode_start is off", expected=f"bool [{len(goal)}]", got=str(np.shape(start)))
        if known is None or known.shape != goal.shape:
            new = np.ones(len(goal), np.bool_)
        else:
            new = (known != goal).any((1, 2, 3)) if start is None else np.asarray(start, np.bool_)
        if new.any():
            self.guard.reset(batch(pixels), batch(goal), None if new.all() else new)
            self._goal = goal.copy() if known is None or new.all() else np.where(new[:, None, None, None], goal, known)

    @staticmethod
    def _picture(observation: dict[str, np.ndarray], name: str) -> np.ndarray:
        if not isinstance(observation, dict) or name not in observation:
            got = str(sorted(observation)) if isinstance(observation, dict) else type(observation).__name__
            raise BadInput("Agent: observation is off", expected="a dict with pixels and goal", got=got)
        picture = np.ascontiguousarray(observation[name])
        if picture.ndim not in (3, 4) or picture.dtype != np.uint8:
            expected, got = "uint8 [size, size, 3] or [E, size, size, 3]", f"{picture.dtype} {list(picture.shape)}"
            raise BadInput(f"Agent: {name} is off", expected=expected, got=got)
        return picture
