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
    # One plane a colour from here on: of three numbers side by side a processor works on one at a time.
    planes = (_shifted(frames, strength) if shift else frames).movedim(-1, 1).to(torch.float32).contiguous()
    floor = floors(planes) if backdrop else None
    planes = repainted(planes, strength) if repaint else planes
    planes = planes if floor is None else clouded(planes, floor, strength)
    n = len(planes)

    def uniform(*extent: int) -> Tensor:
        return torch.rand(n, *extent, device=device) * 2 - 1

    light, colour = 1 + 0.45 * strength * uniform(1, 1), 1 + 0.3 * strength * uniform(1, 3)
    mixed = torch.eye(3, device=device) + 0.15 * strength * uniform(3, 3)
    mixed = mixed / mixed.sum(1, keepdim=True) * light * colour  # grey stays grey, under white light
    looks = torch.bmm(mixed.mT, planes.flatten(2)).view_as(planes)
    looks = _with_disc(looks, strength)
    grain = 16 * strength * torch.rand(n, 1, 1, 1, device=device)
    looks = looks.addcmul_(grain, torch.randn_like(looks)).round_().clamp_(0, 255)
    return looks.to(torch.uint8).movedim(1, -1).contiguous().view(shape)


def _shifted(frames: Tensor, strength: float) -> Tensor:
    """Frames `[N, size, size, 3]`, each moved by up to one pixel in both axes where chance says so; edges repeat."""
    n, size = frames.shape[:2]
    moved = torch.rand(n, 2, device=frames.device) < 0.5 * strength
    steps = torch.randint(-1, 2, (n, 2), device=frames.device) * moved
    places = (torch.arange(size, device=frames.device) + steps[..., None]).clamp_(0, size - 1)  # [N, 2, size]
    rows = torch.arange(n, device=frames.device)[:, None, None]
    return frames[rows, places[:, 0, :, None], places[:, 1, None]]


def repainted(planes: Tensor, strength: float) -> Tensor:
    """Changes the colours of some things of each picture, each on its own, as far as their colours tell them apart.

    Pixels fall into four groups, around colours of the picture that are far from each other, drawn as k-means++ draws
    its centres (Arthur & Vassilvitskii, 2007). Where there are no more colours than that, a small thing of its own
    colour is a group, however small; where there are more, it shares one with whatever is nearest to it.

    Args:
        planes: float32 `[N, 3, size, size]`, grey levels.
        strength: at 1, half of the groups of three pictures in four change, each colour by up to 30 % and 64 grey
            levels more or less; 0 leaves them alone.

    Returns:
        Pictures of the same shape and type; values may leave 0 to 255.
    """
    n, device = len(planes), planes.device
    colours = planes.flatten(2)  # [N, 3, P]

    def apart(place: Tensor) -> Tensor:
        """Square distance `[N, P]` of every colour to that at `place` `[N]`."""
        centre = colours.gather(2, place[:, None, None].expand(-1, 3, 1))
        return (colours - centre).square_().sum(1)

    nearest = apart(torch.randint(colours.shape[2], (n,), device=device))
    group = torch.zeros_like(nearest, dtype=torch.long)
    for new in range(1, GROUPS):
        # A picture of one colour has no second one: any place will do.
        chances = (nearest + 1e-3).cumsum(1)
        drawn = torch.searchsorted(chances, torch.rand(n, 1, device=device) * chances[:, -1:])[:, 0]
        distance = apart(drawn.clamp_max_(colours.shape[2] - 1))
        group.masked_fill_(distance < nearest, new)
        nearest = torch.minimum(nearest, distance)
    gain, offset = (2 * torch.rand(2, n, 3, GROUPS, device=device) - 1) * strength
    chance = torch.rand(n, 1, GROUPS, device=device), torch.rand(n, 1, 1, device=device)
    chosen = (chance[0] < 0.5) & (chance[1] < 0.75 * strength)
    which = group[:, None].expand_as(colours)
    gains, offsets = 1 + 0.3 * gain * chosen, 64 * offset * chosen
    return torch.addcmul(offsets.gather(2, which), colours, gains.gather(2, which)).view_as(planes)


def floors(planes: Tensor) -> Tensor:
    """Where pictures show what most of each shows, give or take 24 grey levels: 1 there and 0 elsewhere.

    Args:
        planes: float32 `[N, 3, size, size]`, grey levels 0 to 255.

    Returns:
        `[N, 1, size, size]`, float32.
    """
    coarse = (planes.flatten(2) / 16).floor_().clamp_(0, 15)
    codes = (torch.tensor([256.0, 16.0, 1.0], device=planes.device) @ coarse).long()  # [N, P]
    counts = torch.zeros(len(planes), 16**3, device=planes.device)
    counts.scatter_add_(1, codes, torch.ones((), device=planes.device).expand_as(codes))
    common = (codes == counts.argmax(1, keepdim=True)).float()[..., None]
    colour = torch.bmm(planes.flatten(2), common) / common.sum(1, keepdim=True)
    return ((planes - colour[..., None]).abs_().amax(1, keepdim=True) < 24).float()


def clouded(planes: Tensor, floor: Tensor, strength: float) -> Tensor:
    """Clouds of any colours show through the floor of pictures, in some all over it and in others in a part.

    What moves or lies behind everything is not what a robot is asked about, and a film there is nothing like one
    floor of another colour.

    Args:
        planes: float32 `[N, 3, size, size]`, grey levels.
        floor: where clouds may show, 0 to 1, `[N, 1, size, size]`.
        strength: at 1, clouds show in two pictures of three, mixed in by up to all; 0 leaves them alone.

    Returns:
        Pictures of the same shape and type.
    """
    n, size, device = len(planes), planes.shape[2], planes.device

    def fields(cells: int, channels: int, scale: Tensor | float) -> Tensor:
        """Normal noise on a grid of so many cells, smooth in between, `[N, channels, size, size]`."""
        noise = scale * torch.randn(n, channels, cells, cells, device=device)
        grid = torch.eye(cells, device=device)[None, None]
        between = interpolate(grid, (size, cells), mode="bicubic", align_corners=True)[0, 0]  # [size, cells]
        return between @ noise @ between.mT

    rough, chance, share = torch.rand(3, n, 1, 1, 1, device=device)
    clouds = (fields(4, 3, 1 - rough) + fields(14, 3, rough)).tanh_().mul_(127.5).add_(127.5)
    everywhere = torch.rand(n, 1, 1, 1, device=device) < 0.5
    where = torch.where(everywhere, 1.0, torch.sigmoid(fields(4, 1, 6.0)))
    mixed = share * (chance < 2 / 3 * strength) * where * floor
    return torch.lerp(planes, clouds, mixed)


def _with_disc(planes: Tensor, strength: float) -> Tensor:
    """Half of the pictures, at strength 1, get a disc of any colour, up to a tenth of the picture wide, anywhere."""
    n, size = len(planes), planes.shape[2]
    grid = torch.arange(size, device=planes.device) / size
    x, y, chance = torch.rand(3, n, 1, 1, 1, device=planes.device)
    radius = 0.02 + 0.03 * torch.rand(n, 1, 1, 1, device=planes.device)
    inside = ((grid[:, None] - y).square() + (grid - x).square() < radius.square()) & (chance < 0.5 * strength)
    colour = 255 * torch.rand(n, 3, 1, 1, device=planes.device)
    return torch.where(inside, colour, planes)
