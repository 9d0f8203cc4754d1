"""The seams: what a world model, an energy, an optimizer and a policy promise each other.

One letter an axis, everywhere: `E` environments planned at once, `S` candidate plans, `T` horizon in model steps,
`H` context frames, `A` action dimension of one model step, `D` feature dimension. Plans are `[E, S, T, A]` in
[-1, 1]; energies are `[E, S]`, lower is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from .actions import ActionSpec

State = TypeVar("State")


@dataclass(frozen=True)
class Context:
    """What a world model may know when it starts to rehearse.

    Attributes:
        latent: encoded frames, oldest first, batch `[E, H]`.
        actions: what was done between them, `[E, H - 1, A]` in [-1, 1].
    """

    latent: TensorDict
    actions: Tensor


class Encoder(Protocol):
    """Observations `[E, H]` to latents `[E, H]`."""

    def __call__(self, obs: TensorDict) -> TensorDict: ...


class WorldModel(Protocol):
    """Encodes what is seen and rehearses what would follow."""

    action: ActionSpec
    history: int

    def encode(self, obs: TensorDict) -> TensorDict:
        """Observations, batch `[E, H]`, to latents, batch `[E, H]`.

        Each frame by itself: an `MPC` has one at a time.
        """
        ...

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidate actions `[E, S, T, A]` to the latents after each of them, batch `[E, S, T]`.

        What is foreseen at step t follows from the actions up to and with that of step t.

        An `MPC` asks in float32, whatever the latents are.
        """
        ...


class EnergyLike(Protocol):
    """How far futures are from the goal, `[E, S]`; lower is better. Pure."""

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor: ...


class Prior(Protocol):
    """Plans to start from, `[E, P, T, A]` in [-1, 1]; noise as in `Optimizer.ask`."""

    def __call__(self, context: Context, goal: TensorDict, generator: torch.Generator) -> Tensor: ...


class Optimizer(Protocol[State]):
    """A frozen dataclass of knobs with four pure functions; `plan.plan` owns everything else.

    One that may not stand for any plan in [-1, 1] has `admit(plans)` too, `[..., T, A]` to the nearest that it may:
    what is proposed to it passes through that.
    """

    def init(self, plan: Tensor) -> State:
        """Starts around `plan`, `[E, T, A]`."""
        ...

    def ask(self, state: State, generator: torch.Generator) -> Tensor:
        """Candidates `[E, S, T, A]` in [-1, 1].

        Noise is drawn by `optimizers.noise.drawn` or `normal`, so that every environment has its own where `generator`
        has one for each, as that of an `MPC`: what is planned for one then does not depend on those beside it.
        """
        ...

    def tell(self, state: State, actions: Tensor, energy: Tensor) -> State:
        """Learns from `actions` `[E, S', T, A]` and their `energy` `[E, S']` (never NaN; +inf for failures)."""
        ...

    def best(self, state: State) -> Tensor:
        """The plan that the optimizer stands for now, `[E, T, A]`."""
        ...


class Policy(Protocol):
    """All that evaluation knows of a planner, a script or a random agent."""

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        """Starts new episodes in the rows of `mask` (all when None); `obs` and `goal` have batch `[E]`."""
        ...

    def act(self, obs: TensorDict) -> np.ndarray:
        """One environment action an env, `[E, env_dim]`, in physical units, finite and inside the bounds."""
        ...
