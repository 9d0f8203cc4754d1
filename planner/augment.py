"""Pictures that look otherwise and show the same, so that a latent cannot depend on how they look."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

GROUPS = 4
"""Groups of colours that repainting tells apart."""


def vary(
    pixels: Tensor, strength: float, *, shift: bool = True, repaint: bool = False, backdrop: bool = False
) -> Tensor:
    """Gives every picture a look of its own: light, colours, grain, a shift by a pixel, and a disc before the camera.

    Where the frames of one window look different, whatever tells looks apart cannot be predicted from one frame to the
    next, and the loss drives it out of the latent. Where a task hangs on less than a pixel, leave the shift out
    (decision 54). The draws are torch's global ones.

    Args:
        pixels: uint8 `[..., size, size, 3]`.
        strength: 0 leaves pictures alone; at 1 light varies by 45 %, each colour by 30 %, grain reaches 16 grey levels.
        shift: whether pictures move too.
        repaint: whether things change their colours each on its own, as far as their colours tell them apart: of most
            pictures (three in four at strength 1) the colours fall into four groups, and half of these are repainted.
        backdrop: whether clouds of colour show through the floor of some pictures (two in three at strength 1).

    Returns:
        Pictures of the same shape and type.
    """
    shape, device = pixels.shape, pixels.device
    frames = pixels.flatten(0, -4)
    frames = (_shifted(frames, strength) if shift else frames).float()
    floor = floors(frames) if backdrop else None
    frames = repainted(frames, strength) if repaint else frames
    frames = frames if floor is None else clouded(frames, floor, strength)
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


def floors(frames: Tensor) -> Tensor:
    """Where pictures show what most of each shows, give or take 24 grey levels: 1 there and 0 elsewhere.

    Args:
        frames: float32 `[N, size, size, 3]`, grey levels 0 to 255.

    Returns:
        `[N, size, size, 1]`, float32.
    """
    codes = (frames // 16).long().clamp_(0, 15) @ torch.tensor([256, 16, 1], device=frames.device)  # [N, size, size]
    codes = codes.flatten(1)
    counts = torch.zeros(len(frames), 16**3, device=frames.device).scatter_add_(
        1, codes, torch.ones_like(codes).float()
    )
    common = (codes == counts.argmax(1, keepdim=True)).unflatten(1, frames.shape[1:3]).unsqueeze(-1)
    colour = (frames * common).sum((1, 2), keepdim=True) / common.sum((1, 2), keepdim=True)
    return ((frames - colour).abs().amax(-1, keepdim=True) < 24).float()


def clouded(frames: Tensor, floor: Tensor, strength: float) -> Tensor:
    """Clouds of any colours show through the floor of pictures, in some all over it and in others in a part.

    What moves or lies behind everything is not what a robot is asked about, and a film there is nothing like one
    floor of another colour.

    Args:
        frames: float32 `[N, size, size, 3]`, grey levels.
        floor: where clouds may show, 0 to 1, `[N, size, size, 1]`.
        strength: at 1, clouds show in two pictures of three, mixed in by up to all; 0 leaves them alone.

    Returns:
        Pictures of the same shape and type.
    """
    n, size, device = len(frames), frames.shape[1], frames.device

    def fields(cells: int, channels: int) -> Tensor:
        """Normal noise on a grid of so many cells, smooth in between, `[N, size, size, channels]`."""
        noise = torch.randn(n, channels, cells, cells, device=device)
        return interpolate(noise, (size, size), mode="bicubic", align_corners=True).movedim(1, -1)

    rough, chance, share = torch.rand(3, n, 1, 1, 1, device=device)
    clouds = 127.5 + 127.5 * torch.tanh((1 - rough) * fields(4, 3) + rough * fields(14, 3))
    everywhere = torch.rand(n, 1, 1, 1, device=device) < 0.5
    where = torch.where(everywhere, 1.0, torch.sigmoid(6 * fields(4, 1)))
    mixed = share * (chance < 2 / 3 * strength) * where * floor
    return torch.lerp(frames, clouds, mixed)


def _with_disc(frames: Tensor, strength: float) -> Tensor:
    """Half of the frames, at strength 1, get a disc of any colour, up to a tenth of the picture wide, anywhere."""
    n, size = frames.shape[:2]
    grid = torch.arange(size, device=frames.device) / size
    x, y, chance = torch.rand(3, n, 1, 1, device=frames.device)
    radius = 0.02 + 0.03 * torch.rand(n, 1, 1, device=frames.device)
    inside = ((grid[:, None] - y).square() + (grid - x).square() < radius.square()) & (chance < 0.5 * strength)
    colour = 255 * torch.rand(n, 1, 1, 3, device=frames.device)
    return torch.where(inside[..., None], colour, frames)
