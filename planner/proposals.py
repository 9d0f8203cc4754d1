"""From an action prior to what a planner asks for plans to start from."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from .actions import ActionSpec
from .models.prior import ActionPrior
from .optimizers.noise import drawn
from .types import Context, Prior


def proposer(prior: ActionPrior, count: int, horizon: int, spec: ActionSpec) -> Prior:
    """What an `MPC` asks for plans to start from. Of several goals (`energies.Goals`) each gets its share of the plans,
    visited or not; of fewer plans than goals the first ones get one each.

    Args:
        prior: draws them.
        count: P, plans an environment, >= 1.
        horizon: T of the plans; beyond the prior's own its last action is repeated.
        spec: of the actions; each of the prior's is held for a block.
    """
    steps = torch.arange(horizon).clamp(max=prior.horizon - 1)

    @torch.no_grad()
    def propose(context: Context, goal: TensorDict, generator: torch.Generator) -> Tensor:
        latents = context.latent["latent"]  # [E, H, D]
        size = (len(latents), count, prior.horizon * prior.env_dim)
        noise = drawn(torch.randn, size, latents, generator, shared=False)
        done = spec.means(context.actions).to(latents.dtype)  # [E, H - 1, env_dim]
        wanted = goal["latent"] if goal["latent"].ndim == 3 else goal["latent"].unsqueeze(1)  # [E, G, D]
        shares = zip(wanted.unbind(1), noise.tensor_split(wanted.shape[1], 1), strict=True)
        drafts = [prior.propose(latents, one, done, share) for one, share in shares]
        plans = torch.cat(drafts, 1)[:, :, steps]  # [E, P, T, env_dim]
        return plans.unsqueeze(3).expand(-1, -1, -1, spec.block, -1).flatten(3)

    return propose
