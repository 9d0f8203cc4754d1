"""What follows from an action, in latent space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MLPPredictor(nn.Module):
    """The next latent as the present one plus a correction, from H latents and the H actions that follow each.

    Args:
        latent_dim: D.
        action_dim: A.
        history: H, context frames, >= 1.
        hidden: width of the hidden layers.
        depth: hidden layers, >= 1.
        dropout: share of hidden units dropped in training, 0 to below 1.
    """

    def __init__(self, latent_dim: int, action_dim: int, history: int, hidden: int, depth: int, dropout: float) -> None:
        super().__init__()
        widths = [history * (latent_dim + action_dim)] + depth * [hidden]
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(widths[i], widths[i + 1]), nn.SiLU(inplace=True), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers, nn.Linear(hidden, latent_dim))

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents `[..., H, D]` and actions `[..., H, A]`, oldest first, to the next latent `[..., D]`."""
        inputs = torch.cat([latents.flatten(-2), actions.flatten(-2)], -1)
        return latents[..., -1, :] + self.body(inputs)


PREDICTORS = {"mlp": MLPPredictor}
