"""Pictures to latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """A small convolutional network that keeps where things are: three strided layers, flattened, one projection.

    The projection ends in a batch normalisation without affine terms, as SIGReg wants it (LeWM, arXiv 2603.19312).

    Args:
        image_size: height and width of the pictures, a multiple of 16, pixels.
        width: channels of the first layer, a multiple of 4; the next two have 2 and 3 times as many.
        latent_dim: D, features of the latent, >= 1.
    """

    def __init__(self, image_size: int, width: int, latent_dim: int) -> None:
        super().__init__()
        # One coarse layer of large overlapping kernels instead of two fine ones: what it sees is as sharp, and on a
        # CPU, where large feature maps cost more than arithmetic, training is half as long.
        layers: list[nn.Module] = [nn.Conv2d(3, width, kernel_size=8, stride=4, padding=2), nn.SiLU(inplace=True)]
        for i in (1, 2):
            layers += [nn.Conv2d(i * width, (i + 1) * width, kernel_size=3, stride=2, padding=1)]
            layers += [nn.GroupNorm(4, (i + 1) * width), nn.SiLU(inplace=True)]
        self.trunk = nn.Sequential(*layers)
        self.project = nn.Linear(3 * width * (image_size // 16) ** 2, latent_dim)
        self.normalise = nn.BatchNorm1d(latent_dim, affine=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pictures `[B, size, size, 3]` to latents `[B, D]`."""
        # The bytes lie channels-last already, which is the layout that convolutions on CPUs are fastest in.
        image = pixels.movedim(-1, -3).to(torch.float32).div_(127.5).sub_(1)
        return self.normalise(self.project(self.trunk(image).flatten(1)))


ENCODERS = {"conv": ConvEncoder}
