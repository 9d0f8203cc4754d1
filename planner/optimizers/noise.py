"""Where candidates come from: noise that depends on the generator alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Streams(torch.Generator):
    """Noise of its own for every environment: what is drawn for one does not depend on who is planned beside it.

    To whoever knows ordinary generators only, it is one (seeded with the first seed), and draws for all at once.

    Args:
        device: of the noise.
        seeds: one an environment, at least one.
        common: seed of the noise that all environments share, at the same step of their episodes: each has a copy.

    Attributes:
        rows: the environments that the next draws are for, in this order; all of them at first.
    """

    def __new__(cls, device: torch.device | None, seeds: Sequence[int], common: int = 0) -> Streams:
        return super().__new__(cls, device)  # type: ignore[call-arg]  # all that a torch generator is made from

    def __init__(self, device: torch.device | None, seeds: Sequence[int], common: int = 0) -> None:
        self.manual_seed(seeds[0])
        self._common = common
        self._own, self._shared = ([torch.Generator(device) for _ in seeds] for _ in range(2))
        for row, seed in enumerate(seeds):
            self.restart(row, seed)
        self.rows: Sequence[int] = range(len(seeds))

    def __reduce__(self) -> tuple[Any, ...]:
        """What a copy or a pickle is made from: torch would take the ordinary generator for all that there is."""
        states = [one.get_state() for one in (self, *self._own, *self._shared)]
        return _revived, (self.device, self._common, states, list(self.rows))

    def fill(self, other: Streams) -> None:
        """Takes over how far the noise of `other` is, whose `rows` are as many: for the first of these in the first of
        its own, and so on."""
        for mine, theirs in zip(self.all_due(), other.all_due(), strict=True):
            mine.set_state(theirs.get_state())

    def all_due(self) -> list[torch.Generator]:
        """All that the next draws may come from: the ordinary generator, those of `rows`, and their shared ones."""
        return [self, *self.due(), *self.due(shared=True)]

    def restart(self, row: int, seed: int) -> None:
        """Begins the noise of one environment anew."""
        self._own[row].manual_seed(seed)
        self._shared[row].manual_seed(self._common)

    def due(self, shared: bool = False) -> list[torch.Generator]:
        """The generators of `rows`."""
        return [(self._shared if shared else self._own)[row] for row in self.rows]


def _revived(device: torch.device, common: int, states: list[Tensor], rows: list[int]) -> Streams:
    """Streams as they were when `states` were taken."""
    streams = Streams(device, [0] * (len(states) // 2), common)
    for one, state in zip((streams, *streams._own, *streams._shared), states, strict=True):
        one.set_state(state)
    streams.rows = rows
    return streams


def drawn(
    sampler: Callable[..., Tensor], size: Sequence[int], like: Tensor, generator: torch.Generator, shared: bool
) -> Tensor:
    """Noise `size` = `[E, ...]` from `sampler` (`torch.randn` or `torch.rand`), of the type and device of `like`.

    With `shared` it is drawn once and is the same in all. With `Streams` each environment's comes from its own, which
    with `shared` are alike.
    """
    options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
    if isinstance(generator, Streams):
        return torch.stack([sampler(tuple(size[1:]), generator=one, **options) for one in generator.due(shared)])
    return sampler((1 if shared else size[0], *size[1:]), generator=generator, **options).expand(*size)


def normal(mean: Tensor, samples: int, generator: torch.Generator, shared: bool) -> Tensor:
    """Standard normal noise `[E, samples, T, A]` for plans `[E, T, A]`.

    Args:
        mean: gives shape, type and device.
        samples: candidates an environment, >= 0.
        generator: the only source of the noise.
        shared: the same noise in every environment. What is planned for one of many is then what is planned for it
            alone.
    """
    return drawn(torch.randn, (mean.shape[0], samples, *mean.shape[1:]), mean, generator, shared)


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
