"""Pictures that look otherwise and show the same, so that a latent cannot depend on how they look."""

from __future__ import annotations

import torch
from torch import Tensor

GROUPS = 4
"""Groups of colours that repainting tells apart."""


def vary(pixels: Tensor, strength: float, *, shift: bool = True, repaint: bool = False) -> Tensor:
    """Gives every picture a look of its own: light, colours, grain, a shift by a pixel, and a disc before the camera.

    Where the frames of one window look different, whatever tells looks apart cannot be predicted from one frame to the
    next, and the loss drives it out of the latent. Where a task hangs on less than a pixel, leave the shift out
    (decision 54). The draws are torch's global ones.

    Args:
        pixels: uint8 `[B, F, size, size, 3]`.
        strength: 0 leaves pictures alone; at 1 light varies by 45 %, each colour by 30 %, grain reaches 16 grey levels.
        shift: whether pictures move too.
        repaint: whether things change their colours each on its own, as far as their colours tell them apart: of most
            pictures (three in four at strength 1) the colours fall into four groups, and half of these are repainted.

    Returns:
        Pictures of the same shape and type.
    """
    shape, device = pixels.shape, pixels.device
    frames = pixels.flatten(0, 1)
    frames = (_shifted(frames, strength) if shift else frames).float()
    frames = repainted(frames, strength) if repaint else frames
    n = len(frames)

    def uniform(*extent: int) -> Tensor:
        return torch.rand(n, *extent, device=device) * 2 - 1

    light, colour = 1 + 0.45 * strength * uniform(1, 1, 1), 1 + 0.3 * strength * uniform(1, 1, 3)
    mixed = torch.eye(3, device=device) + 0.15 * strength * uniform(3, 3)
    looks = torch.einsum("nijc,ncd->nijd", frames, mixed / mixed.sum(1, keepdim=True))  # grey stays grey
    looks = looks * light * colour
    looks = _with_disc(looks, strength)
    grain = 16 * strength * torch.rand(n, 1, 1, 1, device=device)
    return (looks + grain * torch.randn_like(looks)).round_().clamp_(0, 255).to(torch.uint8).view(shape)


def _shifted(frames: Tensor, strength: float) -> Tensor:
    """Frames `[N, size, size, 3]`, each moved by up to one pixel in both axes where chance says so; edges repeat."""
    n, size = frames.shape[:2]
    moved = torch.rand(n, 2, device=frames.device) < 0.5 * strength
    steps = torch.randint(-1, 2, (n, 2), device=frames.device) * moved
    places = (torch.arange(size, device=frames.device) + steps[..., None]).clamp_(0, size - 1)  # [N, 2, size]
    rows = torch.arange(n, device=frames.device)[:, None, None]
    return frames[rows, places[:, 0, :, None], places[:, 1, None]]


def repainted(frames: Tensor, strength: float) -> Tensor:
    """Changes the colours of some things of each picture, each on its own, as far as their colours tell them apart.

    Pixels fall into four groups, around colours of the picture that are far from each other, drawn as k-means++ draws
    its centres (Arthur & Vassilvitskii, 2007). Where there are no more colours than that, a small thing of its own
    colour is a group, however small; where there are more, it shares one with whatever is nearest to it.

    Args:
        frames: float32 `[N, size, size, 3]`, grey levels.
        strength: at 1, half of the groups of three pictures in four change, each colour by up to 30 % and 64 grey
            levels more or less; 0 leaves them alone.

    Returns:
        Pictures of the same shape and type; values may leave 0 to 255.
    """
    n, device = len(frames), frames.device
    colours, rows = frames.flatten(1, 2), torch.arange(n, device=device)

    def apart(place: Tensor) -> Tensor:
        """Square distance `[N, size x size]` of every colour to that at `place` `[N]`."""
        return (colours - colours[rows, place][:, None]).square().sum(-1)

    nearest = apart(torch.randint(colours.shape[1], (n,), device=device))
    group = torch.zeros_like(nearest, dtype=torch.long)
    for new in range(1, GROUPS):
        # A picture of one colour has no second one: any place will do.
        distance = apart(torch.multinomial(nearest + 1e-3, 1)[:, 0])
        group = torch.where(distance < nearest, new, group)
        nearest = torch.minimum(nearest, distance)
    gain, offset = (2 * torch.rand(2, n, GROUPS, 3, device=device) - 1) * strength
    chance = torch.rand(n, GROUPS, 1, device=device), torch.rand(n, 1, 1, device=device)
    chosen = (chance[0] < 0.5) & (chance[1] < 0.75 * strength)
    which = group[..., None].expand_as(colours)
    gains, offsets = 1 + 0.3 * gain * chosen, 64 * offset * chosen
    return (colours * gains.gather(1, which) + offsets.gather(1, which)).view_as(frames)


def _with_disc(frames: Tensor, strength: float) -> Tensor:
    """Half of the frames, at strength 1, get a disc of any colour, up to a tenth of the picture wide, anywhere."""
    n, size = frames.shape[:2]
    grid = torch.arange(size, device=frames.device) / size
    x, y, chance = torch.rand(3, n, 1, 1, device=frames.device)
    radius = 0.02 + 0.03 * torch.rand(n, 1, 1, device=frames.device)
    inside = ((grid[:, None] - y).square() + (grid - x).square() < radius.square()) & (chance < 0.5 * strength)
    colour = 255 * torch.rand(n, 1, 1, 3, device=frames.device)
    return torch.where(inside[..., None], colour, frames)
