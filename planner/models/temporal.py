"""How many model steps lie between two latents: the length of the way, where the straight line leads into a wall."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TemporalDistance(nn.Module):
    """A quasimetric on latents: d(z, g) = |u(z) - u(g)| + max_j relu(v_j(g) - v_j(z)).

    Whatever its weights, d is never negative, d(z, z) = 0 and d(a, c) <= d(a, b) + d(b, c), as the least number of
    steps has them; the second term lets the way back be longer than the way there. (A symmetric and an asymmetric part
    make a quasimetric: Liu et al., arXiv 2208.08133; as the energy of a planner: RP1, arXiv 2608.18669.)

    Args:
        latent_dim: D.
        embed: numbers in u and in v, >= 1 each.
        hidden: width of the two hidden layers.
    """

    def __init__(self, latent_dim: int, embed: int, hidden: int = 256) -> None:
        super().__init__()
        self.floats = max(2 * hidden, hidden + 2 * embed) + 5 * embed  # most that `forward` holds at once for a latent
        self.net = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.SiLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.SiLU(inplace=True),
            nn.Linear(hidden, 2 * embed),
        )

    def forward(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Latents and goals `[..., D]`, which broadcast, to model steps from one to the other, `[...]`."""
        (u, v), (goal_u, goal_v) = self.net(latent).chunk(2, -1), self.net(goal).chunk(2, -1)
        return torch.linalg.vector_norm(u - goal_u, dim=-1) + torch.relu(goal_v - v).amax(-1)
