"""Where candidates come from: Gaussian noise that depends on the generator alone."""

from __future__ import annotations

import torch
from torch import Tensor


def normal(mean: Tensor, samples: int, generator: torch.Generator, shared: bool) -> Tensor:
    """Standard normal noise `[E, samples, T, A]` for plans `[E, T, A]`.

    Args:
        mean: gives shape, type and device.
        samples: candidates an environment, >= 0.
        generator: the only source of the noise.
        shared: the same noise in every environment (drawn once). What is planned for one of many is then what is
            planned for it alone, and less noise is drawn.
    """
    size = 1 if shared else mean.shape[0]
    noise = torch.randn((size, samples, *mean.shape[1:]), generator=generator, dtype=mean.dtype, device=mean.device)
    return noise.expand(mean.shape[0], -1, -1, -1)


def coloured(white: Tensor, exponent: float) -> Tensor:
    """White noise `[..., T, A]` to noise whose power falls with frequency as `f ** -exponent` along T, variance 1.

    Timmer and Koenig 1995, by scaling the spectrum: 0 leaves it white, 1 is pink, 2 is a random walk. The mean over T
    gets the power of the lowest frequency, so that whole plans lean one way. The variance is 1 at every step.
    """
    steps = white.shape[-2]
    if not exponent or steps < 2:
        return white
    frequency = torch.fft.rfftfreq(steps, device=white.device).to(white.dtype)
    frequency[0] = frequency[1]
    scale = frequency**-exponent
    # Each bin but the first and, for even T, the last stands for itself and for its mirror image.
    twice = torch.full_like(scale, 2.0)
    twice[0] = 1
    if steps % 2 == 0:
        twice[-1] = 1
    power = (twice * scale).sum() / twice.sum()
    spectrum = torch.fft.rfft(white, dim=-2) * (scale / power).sqrt().unsqueeze(-1)
    return torch.fft.irfft(spectrum, n=steps, dim=-2)


def lowest_of(actions: Tensor, energy: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of candidates `[E, S, T, A]` the `count` of least energy (all, if fewer), `[E, K, T, A]`, and their energies."""
    lowest, index = energy.topk(min(count, energy.shape[1]), dim=1, largest=False)  # [E, K]
    return actions.take_along_dim(index[..., None, None], dim=1), lowest


def best_candidate(actions: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate of least energy an environment, `[E, T, A]`, and that energy, `[E]` (+inf where all failed)."""
    least, index = energy.min(dim=1)
    return actions.take_along_dim(index[:, None, None, None], dim=1).squeeze(1), least
