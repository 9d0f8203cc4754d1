"""Units of actions: the only place where normalised plans meet metres, radians and newton-metres."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from .errors import BadInput


@dataclass(frozen=True)
class ActionSpec:
    """Bounds and units of one robot's action, and how many of them make one model step.

    Inside `planner` actions are normalised to [-1, 1] and flattened to `[..., A]`, where
    `A = block * len(low)`: the `block` environment actions of one model step, in time order.

    Attributes:
        low: smallest value of each environment action dimension, in `units`.
        high: largest value, in `units`; greater than `low`.
        units: unit of each dimension, such as "m/s" or "N m".
        block: environment steps in one model step, >= 1.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    units: tuple[str, ...]
    block: int

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == len(self.units) >= 1:
            raise BadInput(
                "ActionSpec: low, high and units differ in length",
                got=f"{len(self.low)}, {len(self.high)} and {len(self.units)}",
            )
        if not all(lo < hi and abs(lo) + abs(hi) < float("inf") for lo, hi in zip(self.low, self.high, strict=True)):
            raise BadInput("ActionSpec: bounds are off", expected="finite low < high", got=f"{self.low}, {self.high}")
        if not isinstance(self.block, Integral) or self.block < 1:
            raise BadInput("ActionSpec: block is off", expected="a whole number from 1", got=str(self.block))

    @property
    def env_dim(self) -> int:
        """Dimensions of one environment action."""
        return len(self.low)

    @property
    def dim(self) -> int:
        """A: dimensions of one model step, `block * env_dim`."""
        return self.block * self.env_dim

    def still(self) -> Tensor:
        """A model step of doing nothing: the physical action nearest to 0, `[block, env_dim]`."""
        return torch.zeros(self.block, self.env_dim).clamp(torch.tensor(self.low), torch.tensor(self.high))

    def means(self, normalised: Tensor) -> Tensor:
        """Model actions `[..., A]` to the mean of each one's environment actions, `[..., env_dim]`."""
        return normalised.unflatten(-1, (self.block, self.env_dim)).mean(-2)

    def admits(self, physical: np.ndarray) -> bool:
        """Whether environment actions `[..., env_dim]` are all within the bounds, but for rounding."""
        low, high = np.array(self.low), np.array(self.high)
        return bool((np.abs(physical - (low + high) / 2) <= (0.5 + 1e-5) * (high - low)).all())

    def encode(self, physical: Tensor) -> Tensor:
        """Physical environment actions `[..., block, env_dim]` to normalised model actions `[..., A]`."""
        low, high = physical.new_tensor(self.low), physical.new_tensor(self.high)
        return ((physical - low) / (high - low) * 2 - 1).flatten(-2)

    def decode(self, normalised: Tensor) -> Tensor:
        """Normalised `[..., A]` to physical `[..., block, env_dim]`, projected: finite and inside the bounds."""
        safe = self.project(normalised).unflatten(-1, (self.block, self.env_dim))
        low, high = safe.new_tensor(self.low), safe.new_tensor(self.high)
        # The clamp repeats the projection after the affine map, whose rounding may step over a bound.
        return (low + (safe + 1) / 2 * (high - low)).clamp(low, high)

    @staticmethod
    def project(normalised: Tensor) -> Tensor:
        """The nearest action in [-1, 1]; NaN becomes 0 (the middle of the range), infinities the bounds."""
        return normalised.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0).clamp(-1, 1)
