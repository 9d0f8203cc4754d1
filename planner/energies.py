"""What "good" means: how far imagined futures are from the goal. Lower is better.

Energies are frozen dataclasses of knobs, pure, and compose like numbers:

    energy = LatentDistance("l2", over="all") + 0.01 * ActionEffort()
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import cosine_similarity

from .errors import BadInput
from .types import EnergyLike


class Energy(ABC):
    """Base of the energies here: a pure callable that can be added and weighted. Any callable may be a term."""

    @abstractmethod
    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        """Futures, batch `[E, S, T]`, a goal, batch `[E]`, and actions `[E, S, T, A]` to energies `[E, S]`."""

    def __add__(self, other: EnergyLike) -> Sum:
        return Sum((self, other))

    def __mul__(self, weight: float) -> Scaled:
        return Scaled(self, weight)

    def __rmul__(self, weight: float) -> Scaled:
        return Scaled(self, weight)


@dataclass(frozen=True)
class Sum(Energy):
    """The sum of several energies.

    Attributes:
        terms: the energies to add, at least one.
    """

    terms: tuple[EnergyLike, ...]

    def __post_init__(self) -> None:
        if not self.terms or not all(callable(term) for term in self.terms):
            raise BadInput("Sum: terms are off", expected="at least one energy", got=repr(self.terms))

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return torch.stack([term(futures, goal, actions) for term in self.terms]).sum(0)


@dataclass(frozen=True)
class Scaled(Energy):
    """An energy times a constant.

    Attributes:
        term: the energy to weigh.
        weight: its factor, finite; a negative one rewards what the energy punishes.
    """

    term: EnergyLike
    weight: float

    def __post_init__(self) -> None:
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or not math.isfinite(self.weight):
            raise BadInput("Scaled: weight is off", expected="a finite number", got=repr(self.weight))

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return self.weight * self.term(futures, goal, actions)


def _cosine(latent: Tensor, goal: Tensor) -> Tensor:
    return 1 - cosine_similarity(latent, goal, dim=-1)


# Each: latents [E, S, T, D] and a goal [E, 1, 1, D] to distances [E, S, T].
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda latent, goal: (latent - goal).square().mean(-1),
    "l1": lambda latent, goal: (latent - goal).abs().mean(-1),
    "cosine": _cosine,
}
OVER = ("last", "all", "min")


@dataclass(frozen=True)
class LatentDistance(Energy):
    """Distance in latent space between the imagined future and the goal, >= 0, in latent units.

    Futures are `[E, S, T, ...]` under `key` and the goal `[E, ...]`, with equal trailing shapes; more than one trailing
    axis (tokens, features) is read as one long feature axis D.

    Attributes:
        metric: "l2", the mean over D of squared differences; "l1", the mean over D of absolute differences; "cosine",
            1 - cosine similarity, in [0, 2].
        over: which of the T imagined steps count: "last"; "all", their weighted mean; "min", the closest one (for
            goals to pass through rather than to hold).
        key: where the latent lies in futures and goal.
        discount: with over="all" only, step t weighs discount**t; > 0, and above 1 the later steps weigh more.
    """

    metric: str = "l2"
    over: str = "last"
    key: str = "latent"
    discount: float = 1.0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BadInput("LatentDistance: unknown metric", expected=f"one of {sorted(METRICS)}", got=self.metric)
        if self.over not in OVER:
            raise BadInput("LatentDistance: unknown over", expected=f"one of {list(OVER)}", got=self.over)
        if not 0 < self.discount < math.inf:
            raise BadInput("LatentDistance: discount is off", expected="a number above 0", got=str(self.discount))
        if self.discount != 1 and self.over != "all":
            # A knob that nothing reads is a mistake waiting to be tuned.
            raise BadInput(
                "LatentDistance: discount is not read here", expected='over="all"', got=f"over={self.over!r}"
            )

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        latent, target = futures[self.key], goal[self.key]  # [E, S, T, ...], [E, ...]
        if target.shape != latent.shape[:1] + latent.shape[3:]:
            # Broadcasting would accept a goal of one environment for all, or of one feature, and plan towards nonsense.
            raise BadInput(
                f"LatentDistance: goal {self.key!r} does not fit the futures",
                expected=str(tuple(latent.shape[:1] + latent.shape[3:])),
                got=str(tuple(target.shape)),
            )
        if self.over == "last":
            latent = latent[:, :, -1:]
        distance = METRICS[self.metric](latent.flatten(3), target.flatten(1)[:, None, None])  # [E, S, T]
        if self.over == "min":
            return distance.amin(-1)  # amin hands NaN on, so that a broken step cannot hide behind a good one
        steps = torch.arange(distance.shape[-1], device=distance.device, dtype=distance.dtype)
        weights = self.discount**steps
        return distance @ (weights / weights.sum())


@dataclass(frozen=True)
class ActionEffort(Energy):
    """Mean square of the normalised actions, in [0, 1]: 0 in the middle of the bounds, 1 at full effort throughout."""

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return actions.square().mean((-2, -1))


ENERGIES: dict[str, type[Energy]] = {
    "latent_distance": LatentDistance,
    "action_effort": ActionEffort,
}
