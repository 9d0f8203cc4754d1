"""Changes of a scene that neither its physics nor its camera notice: every episode is then worth several.

A block pushed to the left under a camera that looks straight down is, turned by 90 degrees, a block pushed down. What a
predictor learns of one it need not be shown of the other, but it has to be told: nothing in a network of plain layers
knows it. The same thought as "data augmentation" with a group's elements (Laskin et al., arXiv 2004.14990, do it to
pictures alone), with actions and states that turn along.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import BadInput


@dataclass(frozen=True, eq=False)
class Symmetry:
    """A mirror before the camera, a quarter turn of it, or both, and what becomes of actions and states.

    Attributes:
        turns: quarter turns of the picture, counter-clockwise, 0 to 3.
        mirrored: whether left and right change places first.
        actions: `[a, a]`; an environment action u, in physical units, becomes `actions @ u`.
        states: `[n, n]`; a physical state x becomes `states @ x + shift`.
        shift: `[n]`.
        tolerance: how far a state may end beside its changed self after one step of play, in 49 of 50 steps, in the
            state's own units, > 0: one for each quantity, `[n]`, or one for all. More than rounding where a solver of
            contacts finds other ones in the mirror: the task is then only nearly the same, and `check_goal_env` holds
            it to that.

    Raises:
        BadInput: for other turns, a tolerance that is none, or sizes that do not fit each other.
    """

    turns: int
    mirrored: bool
    actions: np.ndarray
    states: np.ndarray
    shift: np.ndarray
    tolerance: float | np.ndarray = 1e-6

    def __post_init__(self) -> None:
        if self.turns not in range(4):
            raise BadInput("symmetry: turns is off", expected="0 to 3", got=str(self.turns))
        if not (np.isfinite(self.tolerance) & (np.asarray(self.tolerance) > 0)).all():
            raise BadInput("symmetry: tolerance is off", expected="more than 0 and finite", got=str(self.tolerance))
        for name, square in (("actions", self.actions), ("states", self.states)):
            if square.ndim != 2 or square.shape[0] != square.shape[1]:
                raise BadInput(f"symmetry: {name} is off", expected="a square matrix", got=str(square.shape))
        if self.shift.shape != (expected := self.states.shape[:1]):
            raise BadInput("symmetry: shift is off", expected=str(expected), got=str(self.shift.shape))

    @property
    def digest(self) -> str:
        """A name of what it does to pictures, actions and states; how exactly the task keeps it is not in it."""
        parts = [(0.0 + part).tobytes() for part in (self.actions, self.states, self.shift)]  # -0.0 is 0.0 then
        return hashlib.sha256(b"".join([bytes([self.turns, self.mirrored]), *parts])).hexdigest()[:16]

    def picture(self, pixels: Tensor) -> Tensor:
        """Pictures `[..., size, size, 3]` as the camera shows the changed scene."""
        seen = pixels.flip(-2) if self.mirrored else pixels
        return torch.rot90(seen, self.turns, dims=(-3, -2))

    def action(self, actions: Tensor) -> Tensor:
        """Environment actions `[..., a]`, physical units."""
        return actions @ torch.as_tensor(self.actions.T, dtype=actions.dtype)

    def state(self, states: Tensor) -> Tensor:
        """Physical states `[..., n]`."""
        turned = states @ torch.as_tensor(self.states.T, dtype=states.dtype)
        return turned + torch.as_tensor(self.shift, dtype=states.dtype)


def in_the_plane(turns: int, mirrored: bool) -> np.ndarray:
    """What becomes of (x, y) where the camera shows x to the right and y up: `[2, 2]`, of -1, 0 and 1."""
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.linalg.matrix_power(quarter, turns) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
