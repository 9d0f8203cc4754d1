"""What a robot does not move by itself: features of a latent that seldom change, whatever the robot does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HALF_WAY = 0.5
"""Squared difference of slow features, summed, at which their distance is a half."""


class SlowFeatures(nn.Module):
    """Features s(z) of a latent that were taught to change as seldom as they can, and a distance by them.

    The distance is x / (x + `HALF_WAY`) with x = |s(z) - s(g)|^2, from 0 to at most 1. Close to the goal it grows with
    the square, far from it hardly at all: there the straight line misleads, and steps left are to decide.

    A goal picture shows the robot too, and most of what changes from one look to the next is the robot: in the plain
    latent distance a pusher 5 cm from where the picture shows it counts as much as a block 4 cm from its place. What
    changes seldom is what has to be touched to move (slow feature analysis: Wiskott and Sejnowski 2002). By these
    features the robot may end anywhere.

    Args:
        latent_dim: D.
        features: K, >= 1.
        hidden: width of the two hidden layers.
    """

    def __init__(self, latent_dim: int, features: int, hidden: int = 256) -> None:
        super().__init__()
        self.floats = 2 * hidden + 4 * features  # most that `forward` holds at once for a latent
        self.net = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.SiLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.SiLU(inplace=True),
            nn.Linear(hidden, features),
        )

    def forward(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Latents and goals `[..., D]`, which broadcast, to the distance from one to the other, `[...]`."""
        apart: Tensor = (self.net(latent) - self.net(goal)).square().sum(-1)
        return apart / (apart + HALF_WAY)


def slowness(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """How much features change, and how far they are from being worth something; both are to be small.

    The change is a mean of lengths and not of squares, so that a rare large one costs less than a steady small one: a
    block lies still and then moves, a robot moves all the time. The other term keeps features from standing still
    altogether: they are to have mean 0, variance 1, and no correlation.

    Args:
        before: features `[N, K]` of N looks.
        after: those of looks a little later in the same episodes, `[N, K]`.

    Returns:
        The mean length of a change, >= 0, and the squared distance of mean and covariance from 0 and identity, >= 0.
    """
    change = ((after - before).square().sum(-1) + 1e-4).sqrt().mean()  # the root of 0 has no slope
    both = torch.cat([before, after])
    mean = both.mean(0)
    spread = (both - mean).T @ (both - mean) / len(both)
    wanted = torch.eye(len(mean), device=mean.device, dtype=mean.dtype)
    return change, (spread - wanted).square().sum() + mean.square().sum()
