"""The simulator itself as a world model: what planning reaches when no prediction is wrong.

With it a failure is the planner's or the task's; the gap between it and a learned model is the model's.
"""

from __future__ import annotations

import os

import mujoco
import numpy as np
import torch
from mujoco import rollout
from tensordict import TensorDict
from torch import Tensor

from planner.errors import BadInput
from planner.types import Context

from .base import GoalEnv


class OracleModel:
    """Implements `planner.types.WorldModel` on true states: `encode` passes `state` on, `rollout` simulates.

    Args:
        env: the task; its model is simulated, its data is left alone.
        threads: of the simulation, >= 1; by default one a core, at most 8.

    Raises:
        BadInput: the simulation has a state beside positions and speeds, such as that of a motor that lags.
    """

    history = 1

    def __init__(self, env: GoalEnv, threads: int | None = None) -> None:
        self.env, self.action = env, env.action_spec()
        threads = threads or min(8, os.cpu_count() or 1)
        self._data = [mujoco.MjData(env.model) for _ in range(threads)]
        self._pool = rollout.Rollout(nthread=threads)
        size = mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        if size != 1 + env.state_size:  # the layout below is time, qpos, qvel
            expected, got = "a state of positions and speeds alone", f"{size - 1 - env.state_size} numbers beside them"
            do = "leave out activations and delays of actuators, or set `simulates = False`: no oracle"
            raise BadInput(f"{env.name}: the oracle cannot rehearse it", expected=expected, got=got, do=do)

    def encode(self, obs: TensorDict) -> TensorDict:
        """`state` `[..., n]`, as it is."""
        return TensorDict({"state": obs["state"].double()}, batch_size=obs.batch_size)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidates `[E, S, T, A]` to the `state` after each model step, `[E, S, T, n]`."""
        e, s, t, _ = actions.shape
        start = context.latent["state"][:, -1:].expand(e, s, -1).flatten(0, 1).numpy()
        control = self.action.decode(actions).flatten(2, 3).flatten(0, 1).double().numpy()  # [E S, T block, a]
        control = control.repeat(self.env.substeps, axis=1)
        states, _ = self._pool.rollout(
            self.env.model, self._data, np.pad(start, ((0, 0), (1, 0))), np.ascontiguousarray(control)
        )
        stride = self.action.block * self.env.substeps
        ends = torch.from_numpy(states[:, stride - 1 :: stride, 1:]).view(e, s, t, -1)
        return TensorDict({"state": ends}, batch_size=[e, s, t])


class StateDistance:
    """Energy on true states: the squared physical errors, in tolerances, at the best moment and on the way.

    Args:
        env: says what the errors are.
    """

    def __init__(self, env: GoalEnv) -> None:
        self.env = env

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        """Futures `state` `[E, S, T, n]`, goal `state` `[E, n]`, to energies `[E, S]`."""
        states, target = futures["state"].numpy(), goal["state"].numpy()[:, None, None]
        errors = np.square(self.env.errors(states, target)).sum(-1)  # [E, S, T]
        along = (errors + self.env.guide(states, target)).mean(-1)
        return torch.from_numpy(errors.min(-1) + 0.2 * along)
