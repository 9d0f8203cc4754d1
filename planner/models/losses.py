"""What a JEPA is trained on: predictions that hold over several steps, latents that do not collapse."""

from __future__ import annotations

import torch
from torch import Tensor


def sigreg(latents: Tensor, directions: int, generator: torch.Generator | None = None) -> Tensor:
    """Distance of the latents from a standard normal: the Epps-Pulley statistic, averaged over random directions.

    Sketched isotropic Gaussian regularisation (LeJEPA, arXiv 2511.08544): the empirical characteristic function along
    each direction against exp(-t^2 / 2), at 17 knots on [0, 3], weighted by exp(-t^2 / 2), trapezoid rule, times N.
    The statistic itself is the integral over all t, which is symmetric: twice this one. So a weight of 0.09 in LeJEPA's
    and LeWM's units is 0.18 here.

    Args:
        latents: `[..., N, D]`, the whole batch (a part of it estimates another distribution); of several such the mean.
        directions: unit directions, drawn anew at every call, >= 1.
        generator: source of the directions.

    Returns:
        A scalar >= 0; about 0.53 for N samples of a standard normal, whatever N is.
    """
    n, d = latents.shape[-2:]
    axes = torch.randn(d, directions, generator=generator, device=latents.device, dtype=latents.dtype)
    projected = latents @ (axes / axes.norm(dim=0))  # [..., N, K]
    knots = torch.linspace(0, 3, 17, device=latents.device, dtype=latents.dtype)
    normal = torch.exp(-knots.square() / 2)
    angles = projected.unsqueeze(-1) * knots  # [..., N, K, 17]
    gap = (angles.cos().mean(-3) - normal).square() + angles.sin().mean(-3).square()  # [..., K, 17]
    return n * torch.trapezoid(gap * normal, knots, dim=-1).mean()


def covariance(latents: Tensor) -> Tensor:
    """How much the features repeat each other: squared off-diagonal covariances of `[N, D]`, summed, over D; >= 0.

    The covariance term of VICReg (Bardes et al., arXiv 2105.04906). SIGReg alone leaves low-rank latents be where N is
    small: random projections of a few dozen independent features look normal, by the central limit theorem.
    """
    spread = torch.cov(latents.T)
    return (spread.square().sum() - spread.diagonal().square().sum()) / latents.shape[1]


LEAST_LENGTH = 1e-2
"""Errors far below this weigh by their squares, as the root of 0 has no slope: a hundredth of a latent's deviation."""


def rollout_loss(predicted: list[Tensor], latents: Tensor, history: int, decay: float, lengths: bool = False) -> Tensor:
    """Error of open-loop predictions, the mean over all starts, step k weighted by `decay ** (k - 1)`.

    Args:
        predicted: for k = 1, 2, ...: latents foreseen k steps ahead from every start, `[B, F - history + 1 - k, D]`.
        latents: encoded frames, `[B, F, D]`.
        history: H; the first start is frame H - 1.
        decay: weight of each further step, above 0 and at most 1.
        lengths: take the length of each error, over the root of D, and not its square. By squares the few steps in
            which much happens decide, and a model learns to be a little off wherever nothing does (decision 122).

    Returns:
        A scalar, normalised by the sum of the weights.
    """
    squares = [(step - latents[:, history - 1 + k :]).square().mean(-1) for k, step in enumerate(predicted, start=1)]
    errors = [((of + LEAST_LENGTH**2).sqrt() if lengths else of).mean() for of in squares]
    weights = latents.new_tensor([decay**k for k in range(len(errors))])
    return (torch.stack(errors) * weights).sum() / weights.sum()


def effective_rank(latents: Tensor) -> Tensor:
    """Dimensions that the latents `[N, D]` really use: exp of the entropy of the covariance's spectrum, 1 to D.

    Roy and Vetterli 2007. Near 1 is collapse, and 1 where all are the same.
    """
    spectrum = torch.linalg.eigvalsh(torch.cov(latents.T)).clamp_min(0)
    share = spectrum / spectrum.sum().clamp_min(1e-12)
    return torch.exp(torch.special.entr(share).sum())
