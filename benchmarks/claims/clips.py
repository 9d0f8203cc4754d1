"""Held-out play, and linear maps that read physical quantities off latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.reacher import tip
from planner.collect import play_episode
from planner.evaluate.protocol import EVALUATE_STREAM

from .nuisance import Stream

PROBED = 1000
"""Seed of the held-out play here; the pairs that are played have another, and training episodes another stream."""


@dataclass(frozen=True)
class Clips:
    """Held-out play at model-step spacing.

    Attributes:
        pixels: uint8 `[n, L + 1, size, size, 3]`.
        actions: of model steps, in [-1, 1], `[n, L, A]`.
        state: `[n, L + 1, k]`, physical.
    """

    pixels: Tensor
    actions: Tensor
    state: Tensor


def play_clips(env: Any, n: int, steps: int, seed: int = PROBED) -> Clips:
    """`n` episodes of `steps` model steps that no training episode shares a seed with."""
    spec, pixels, actions, states = env.action_spec(), [], [], []
    for k in range(n):
        rng = np.random.default_rng([EVALUATE_STREAM, seed, k])
        state, action = play_episode(env, steps * spec.block, rng)
        marks = state[:: spec.block]
        states.append(marks)
        actions.append(action.reshape(steps, spec.block, -1))
        pixels.append(np.stack([env.picture(one) for one in marks]))
    physical = torch.from_numpy(np.stack(actions)).float()
    return Clips(torch.from_numpy(np.stack(pixels)), spec.encode(physical), torch.from_numpy(np.stack(states)).float())


def place(task: str, state: Tensor) -> Tensor:
    """Where that is which goals are about, metres, of states `[..., k]`: disc, fingertip or block, `[..., 2]`."""
    if task == "Reacher":
        return torch.from_numpy(tip(state.numpy()))
    return state[..., 2:4] if task == "PushT" else state[..., :2]


def disturbed(pixels: Tensor, kind: str, severity: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Every episode of `pixels` `[n, F, ...]` through a stream of its own; also the numbers behind, `[n, F, v]`."""
    looks, behind = [], []
    for k, episode in enumerate(pixels.numpy()):
        stream = Stream(kind, severity, [seed, k])
        for picture in episode:
            looks.append(stream(picture))
            behind.append(stream.variables)
    shape = pixels.shape[:2]
    return torch.from_numpy(np.stack(looks)).unflatten(0, shape), torch.from_numpy(np.stack(behind)).unflatten(0, shape)


@dataclass(frozen=True)
class Probe:
    """A linear map from latents to quantities, fitted by ridge regression on standardised latents."""

    centre: Tensor
    scale: Tensor
    weights: Tensor

    @classmethod
    def fit(cls, latents: Tensor, targets: Tensor, ridge: float = 1e-3) -> Probe:
        """On latents `[N, D]` and quantities `[N, q]`."""
        latents = latents.double()
        centre, scale = latents.mean(0), latents.std(0).clamp_min(1e-6)
        inputs = _with_one((latents - centre) / scale)
        penalty = ridge * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
        return cls(centre, scale, torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets.double()))

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents `[..., D]` to quantities `[..., q]`."""
        return _with_one((latents.double() - self.centre) / self.scale) @ self.weights


def _with_one(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones_like(inputs[..., :1])], -1)


def readable(latents: Tensor, targets: Tensor) -> float:
    """Mean R2 of a linear read-out of `targets` `[n, F, q]` from `latents` `[n, F, D]`.

    Fitted on the even episodes, judged on the odd ones: neighbouring frames in both halves would flatter. Below 0 it is
    worse than the mean and says 0: nothing can be read.
    """
    probe = Probe.fit(latents[::2].flatten(0, 1), targets[::2].flatten(0, 1))
    truth = targets[1::2].flatten(0, 1).double()
    missed = (probe(latents[1::2].flatten(0, 1)) - truth).square().mean(0)
    return float((1 - missed / truth.var(0, correction=0).clamp_min(1e-12)).mean().clamp_min(0))


def variance_share(latents: Tensor) -> float:
    """Share of the latents' variance that is due to what differs between looks at the same state.

    Args:
        latents: of N states under K looks each that are independent of each other, `[N, K, D]`, K >= 2.

    Returns:
        Within-state over total variance, summed over features, 0 to about 1 (one-way analysis of variance).
    """
    latents = latents.double()
    within = latents.var(1).mean(0).sum()
    between = (latents.mean(1).var(0) - latents.var(1).mean(0) / latents.shape[1]).clamp_min(0).sum()
    return float(within / (within + between).clamp_min(1e-12))
