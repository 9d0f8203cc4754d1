"""Adaptation to how a picture looks, where it lies and what is around each place, for an encoder of small patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Retina(nn.Module):
    """Brings a picture's colours to those that an encoder knows, as an eye adapts to the light.

    What colours there are in the whole picture (mean and maximum of learned features of each small patch's colour) sets
    gain and offset (FiLM, Perez et al., arXiv 1709.07871) of the colours themselves and of one layer of small kernels,
    whose output is added. So one grey is taken for white under a dim lamp, and for grey beside white. It starts as no
    change at all.

    Args:
        width: channels of the layer of small kernels, >= 1.
        colours: features that describe which colours there are, >= 1.
    """

    def __init__(self, width: int = 12, colours: int = 64) -> None:
        super().__init__()
        self.palette = nn.Sequential(nn.Conv2d(3, colours, 1), nn.SiLU(), nn.Conv2d(colours, colours, 1), nn.SiLU())
        self.adapt = nn.Sequential(nn.Linear(2 * colours, colours), nn.SiLU(), nn.Linear(colours, 2 * (width + 3)))
        self.detail = nn.Conv2d(3, width, kernel_size=3, padding=1)
        self.repaint = nn.Conv2d(width, 3, kernel_size=1)
        self.sizes = [width, width, 3, 3]
        for layer in (self.adapt[-1], self.repaint):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Pictures `[B, 3, size, size]` in [-1, 1], size a multiple of 4, to pictures of the same shape."""
        found = self.palette(F.avg_pool2d(image, 4)).flatten(2)
        terms = self.adapt(torch.cat([found.mean(2), found.amax(2)], 1))[..., None, None]
        gain, offset, colour_gain, colour_offset = terms.split(self.sizes, 1)
        detail = F.silu(torch.addcmul(offset, self.detail(image), 1 + gain))
        return torch.addcmul(colour_offset, image, 1 + colour_gain) + self.repaint(detail)


class Gaze(nn.Module):
    """Moves a picture back to where an encoder knows it, where the camera stands a little aside.

    Profiles of the picture along both axes (learned features of 3 x 3 pixels, each the mean of a row or of a column:
    edges of a table stand out in them, and grain does not) tell how far it lies aside; it is read off there, between
    pixels by straight lines (Jaderberg et al., arXiv 1506.02025). It starts as no change but rounding; float32 alone is
    precise enough to tell pixels apart.

    Args:
        size: height and width of the pictures, pixels.
        reach: farthest that it moves one along an axis, pixels, > 0.
        width: features of a profile, >= 1.
        hidden: width of the layer that reads both, >= 1.
    """

    def __init__(self, size: int, reach: float = 2.0, width: int = 8, hidden: int = 64) -> None:
        super().__init__()
        self.reach = reach
        self.detail = nn.Conv2d(3, width, kernel_size=3, padding=1, padding_mode="replicate")
        self.aside = nn.Sequential(nn.Linear(2 * size * width, hidden), nn.SiLU(), nn.Linear(hidden, 2))
        nn.init.zeros_(self.aside[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.aside[-1].bias)  # type: ignore[arg-type]

    def shift(self, image: Tensor) -> Tensor:
        """How far pictures `[B, 3, size, size]` in [-1, 1] lie to the right and down, pixels, `[B, 2]`."""
        detail = F.silu(self.detail(image))
        profiles = torch.cat([detail.mean(2), detail.mean(3)], 1)
        shift: Tensor = self.reach * torch.tanh(self.aside(profiles.flatten(1)))
        return shift

    def forward(self, image: Tensor) -> Tensor:
        """Pictures `[B, 3, size, size]` in [-1, 1] to pictures of the same shape; edges repeat."""
        still = torch.eye(2, dtype=image.dtype, device=image.device).expand(len(image), 2, 2)
        places = torch.cat([still, (2 / image.shape[-1] * self.shift(image))[..., None]], 2)  # a picture is 2 wide
        grid = F.affine_grid(places, list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


class Surround(nn.Module):
    """Tells every place of a feature map what is around it, in half and in a quarter of its resolution.

    Layers that see a seventh of a picture at a time cannot tell a thing of another colour from a disc of that colour
    before the camera, nor from a patch of a floor; what is around tells. The way down and up again of U-Net
    (Ronneberger et al., arXiv 1505.04597), whose outcome is added. It starts as no change at all.

    Args:
        width: channels of the map, a multiple of 4.
        deep: channels in a quarter of its resolution, a multiple of 4.
    """

    def __init__(self, width: int, deep: int = 128) -> None:
        super().__init__()
        self.near, self.far = _layer(width, 2 * width, stride=2), _layer(2 * width, deep, stride=2)
        self.around, self.back = _layer(deep, deep), _layer(deep, 2 * width)
        self.out = nn.Conv2d(2 * width, width, kernel_size=3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """A map `[B, width, n, n]`, n a multiple of 4, to one of the same shape."""
        near = self.near(features)
        near = near + _twice(self.back(self.around(self.far(near))))
        return features + _twice(self.out(near))


def _layer(channels: int, to: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, to, kernel_size=3, stride=stride, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(4, to), nn.SiLU(inplace=True))


def _twice(features: Tensor) -> Tensor:
    """A map `[B, K, n, n]` in twice its resolution."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
