"""Latent directions of the robot's own body."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import EpisodeStore, split_rows
from ..errors import BadInput
from ..models.jepa import JEPA


def find_body(model: JEPA, store: EpisodeStore, held_out: float) -> Tensor:
    """The model's `body` directions, from up to 200 training episodes; `[D, config.body]`."""
    rows = split_rows(store.info, held_out)[0][:200]
    with torch.no_grad():
        latents = torch.stack([model.embed(store.data["pixels"][row]) for row in rows])
    return body_directions(latents, store.data["actions"][rows], model.action.block, model.config.body)


def body_directions(latents: Tensor, actions: Tensor, block: int, count: int) -> Tensor:
    """Latent directions that actions move at once, whatever else is the case: those of the robot's own body.

    A linear map from the mean action of a block to how the latent changes over it, by least squares. What an action
    moves only now and then, such as an object in contact, leaves little in it.

    Args:
        latents: of episodes, `[N, L + 1, D]`.
        actions: between them, `[N, L, env_dim]`.
        block: environment steps of a model step; L is at least that.
        count: directions wanted, 1 to env_dim.

    Returns:
        `[D, count]`, orthonormal, of the largest response first.

    Raises:
        BadInput: if `count` is more than env_dim.
    """
    check_body(count, actions.shape[-1])
    steps = actions.shape[1] // block
    mean = actions[:, : steps * block].unflatten(1, (steps, block)).mean(2).flatten(0, 1).double()
    marks = latents[:, : steps * block + 1 : block].double()
    change = (marks[:, 1:] - marks[:, :-1]).flatten(0, 1)
    inputs = torch.cat([mean, torch.ones_like(mean[:, :1])], 1)
    response = torch.linalg.lstsq(inputs, change, driver="gelsd").solution[:-1]  # [env_dim, D], less the constant
    spread = mean.std(0, correction=0)[:, None]  # how far each action moves the latent as it is used
    return torch.linalg.svd(spread * response, full_matrices=False).Vh[:count].T.to(latents.dtype)


def check_body(count: int, actions: int) -> None:
    """Raises `BadInput` for more directions than there are actions that could move the robot."""
    if count > actions:
        raise BadInput("body: too many directions", expected=f"at most {actions}, one an action", got=str(count))
