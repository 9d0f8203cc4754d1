"""Several world models as one, so that what they disagree about can be seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from ..errors import BadInput
from ..types import Context, WorldModel


class Ensemble:
    """Implements `types.WorldModel`: the mean of what its members foresee, and every member's view.

    The members share a latent space: the first one encodes. Predictors trained on the latents of one encoder from
    different seeds make one; models with encoders of their own do not.

    Args:
        members: at least two world models of the same actions and history.
        key: of the latent that is averaged.
    """

    def __init__(self, members: Sequence[WorldModel], key: str = "latent") -> None:
        if len(members) < 2:
            raise BadInput("Ensemble: too few members", expected="at least 2", got=str(len(members)))
        first = members[0]
        if any((other.action, other.history) != (first.action, first.history) for other in members):
            raise BadInput("Ensemble: members differ in their actions or history")
        self.members, self.key, self.action, self.history = tuple(members), key, first.action, first.history

    def encode(self, obs: TensorDict) -> TensorDict:
        """Observations to latents, by the first member."""
        return self.members[0].encode(obs)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidates `[E, S, T, A]` to their mean future, and `members` `[E, S, T, M, ...]`."""
        views = torch.stack([member.rollout(context, actions)[self.key] for member in self.members], dim=3)
        return TensorDict({self.key: views.mean(3), "members": views}, batch_size=actions.shape[:3])
