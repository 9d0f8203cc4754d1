"""What play would do on the way from here to a goal: plans to start a search from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 2
"""Midpoint steps from noise to a plan, of two looks at the flow each, which is nearly straight (decision 106)."""


class ActionPrior(nn.Module):
    """Draws plans that lead from a latent to a goal the way play does: a flow from noise to actions.

    Its output is the velocity at which a point on the straight way from Gaussian noise to a plan has to move
    (conditional flow matching, Lipman et al., arXiv 2210.02747). Unlike a mean it keeps futures that fork apart: around
    an obstacle it proposes the left way and the right one, and nothing between them.

    Args:
        latent_dim: D.
        history: H, latents of now and before that it sees.
        env_dim: dimensions of an environment action; one action a model step is proposed, to be held.
        horizon: T, model steps of a plan, >= 1.
        hidden: width of its layers, >= 1.
        past: blocks of actions before now that it sees, of which it is told the means; 0 for none. What pictures hardly
            show, such as how far fingers are shut that were told to shut, an actor may still remember.
    """

    frequencies: Tensor

    def __init__(self, latent_dim: int, history: int, env_dim: int, horizon: int, hidden: int, past: int = 0) -> None:
        super().__init__()
        self.env_dim, self.horizon = env_dim, horizon
        self.past = nn.Linear(past * env_dim, hidden, bias=False) if past else None
        self.ways = nn.Linear((history + 1) * latent_dim, hidden)
        self.point = nn.Linear(horizon * env_dim, hidden)
        self.time = nn.Linear(16, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)) for _ in range(3)
        )
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(hidden, horizon * env_dim))
        self.register_buffer("frequencies", 2.0 ** torch.arange(8), persistent=False)

    def condition(self, latents: Tensor, goal: Tensor, done: Tensor) -> Tensor:
        """Latents `[..., H, D]`, goals `[..., D]` and the mean actions of the blocks between the latents
        `[..., H - 1, env_dim]` to what the flow depends on, `[..., hidden]`."""
        ways = self.ways(torch.cat([latents.flatten(-2), goal], -1))
        return ways if self.past is None else ways + self.past(done.flatten(-2))

    def forward(self, point: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Velocity `[..., T * env_dim]` at `point` of the same shape and `time` `[...]`, 0 at noise and 1 at plans."""
        waves = time[..., None] * self.frequencies
        hidden = condition + self.point(point) + self.time(torch.cat([waves.sin(), waves.cos()], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.out(hidden)

    def propose(self, latents: Tensor, goal: Tensor, done: Tensor, noise: Tensor) -> Tensor:
        """Plans in [-1, 1] for E environments.

        Args:
            latents: of now and before, `[E, H, D]`.
            goal: `[E, D]`.
            done: mean actions of the blocks between the latents, in [-1, 1], `[E, H - 1, env_dim]`; read where it sees
                past blocks.
            noise: standard normal, `[E, P, T * env_dim]`; every row becomes a plan.

        Returns:
            `[E, P, T, env_dim]`, one environment action a model step.
        """
        condition, point = self.condition(latents, goal, done)[:, None], noise
        for step in range(STEPS):
            time = point.new_full(point.shape[:-1], step / STEPS)
            halfway = point + self(point, time, condition) / (2 * STEPS)
            point = point + self(halfway, time + 1 / (2 * STEPS), condition) / STEPS
        return point.clamp(-1, 1).unflatten(-1, (self.horizon, self.env_dim))
