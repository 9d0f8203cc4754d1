"""What a policy is shown in place of what a broken sensor sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict


def sound_rows(obs: TensorDict) -> np.ndarray:
    """Where all floats of observations `[E]` are finite, bool `[E]`; pictures of whole numbers cost nothing."""
    sound = np.ones(len(obs), dtype=np.bool_)
    for value in obs.values(True, True):
        if value.is_floating_point():
            sound &= torch.as_tensor(value).isfinite().reshape(len(sound), -1).all(1).numpy(force=True)
    return sound


def finite(obs: TensorDict) -> TensorDict:
    """Observations with zeros and large numbers in place of NaN and infinities."""
    mended = obs.clone(recurse=False)
    for key, value in obs.items(True, True):
        if value.is_floating_point():
            mended[key] = torch.nan_to_num(torch.as_tensor(value))
    return mended


class Substitutes:
    """The last sound observations of E environments.

    Args:
        size: E.

    Attributes:
        borrowed: bool `[E]`, for which another environment's observations stand in, as they have yet to see anything.
    """

    def __init__(self, size: int) -> None:
        self.borrowed, self._known = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
        self._last: TensorDict | None = None  # where `_known` says so, what was seen last

    def forget(self, mask: np.ndarray) -> None:
        """New episodes in the rows of `mask`, bool `[E]`: what was seen in another one is of no use."""
        self.borrowed[mask] = self._known[mask] = False

    def instead(self, obs: TensorDict, sound: np.ndarray) -> TensorDict:
        """The observations with the last sound ones, or those of another, in place of those that are not.

        Args:
            obs: batch `[E]`.
            sound: bool `[E]`, not all and not none.
        """
        self._fit(obs)
        mended, blind, known = obs.clone(), ~sound & ~self._known, ~sound & self._known
        if blind.any():
            first = int(np.flatnonzero(sound)[0])
            mended[torch.from_numpy(blind)] = obs[first : first + 1].expand(int(blind.sum()))
        if known.any():
            assert self._last is not None
            rows = torch.from_numpy(known)
            mended[rows] = self._last[rows]
        self.borrowed |= blind
        return mended

    def remember(self, obs: TensorDict, sound: np.ndarray) -> None:
        """What is seen soundly now is what was seen last; of observations without floats nothing is needed."""
        if not any(value.is_floating_point() for value in obs.values(True, True)):
            return
        self._fit(obs)
        if self._last is None or sound.all():
            self._last = obs.clone()
        else:
            rows = torch.from_numpy(sound)
            self._last[rows] = obs[rows]
        self._known |= sound

    def _fit(self, obs: TensorDict) -> None:
        """Forgets what was seen if that was of another kind: through another camera, say."""
        if self._last is not None and _layout(self._last) != _layout(obs):
            self._last, self._known = None, np.zeros_like(self._known)


def _layout(obs: TensorDict) -> dict[Any, Any]:
    """What observations consist of: shape and type by key."""
    return {key: (value.shape, value.dtype) for key, value in obs.items(True, True)}
