"""The two models that every planner plays with, the two budgets, and the rollout that a peer would write."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict
from torch import Tensor

from planner.actions import ActionSpec
from planner.models.jepa import JEPA, JEPAConfig
from planner.types import Context

ACTION = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0), units=("m/s", "m/s"), block=5)  # A = 10


@dataclass(frozen=True)
class Shape:
    """A world model's shape.

    Attributes:
        config: of the JEPA.
        frames: n, frames known when planning starts; the window grows from n to the model's history H.
    """

    config: JEPAConfig
    frames: int


SHAPES = {
    "small": Shape(JEPAConfig(latent_dim=96, history=2, hidden=512, depth=2), frames=2),
    # LeWorldModel (arXiv 2603.19312): ViT-tiny and a causal AdaLN-zero transformer with a window of three frames.
    "lewm": Shape(
        JEPAConfig(
            encoder="vit",
            predictor="transformer",
            image_size=224,
            width=192,
            latent_dim=192,
            history=3,
            hidden=2048,
            depth=6,
            heads=16,
        ),
        frames=1,
    ),
}


@dataclass(frozen=True)
class Budget:
    """Work of one plan.

    Attributes:
        samples: S, candidates an iteration.
        iterations: rounds of sampling.
        horizon: T, model steps.
    """

    samples: int
    iterations: int
    horizon: int

    def __str__(self) -> str:
        return f"{self.samples} x {self.iterations} x {self.horizon}"

    @property
    def elites(self) -> int:
        """A tenth of the candidates, in every planner that has elites."""
        return max(2, self.samples // 10)


BUDGETS = (Budget(300, 30, 5), Budget(64, 5, 8))


@dataclass(frozen=True)
class Problem:
    """What is to be planned: E environments, each with a start and a goal.

    Attributes:
        model: the world model; all planners share its weights.
        latents: encoded start frames, `[E, n, D]`.
        past: actions between them, `[E, n - 1, A]`.
        goal: encoded goal, `[E, D]`.
        pixels: the start frames, uint8 `[E, n, size, size, 3]`.
        budget: how much to try.
    """

    model: JEPA
    latents: Tensor
    past: Tensor
    goal: Tensor
    pixels: Tensor
    budget: Budget

    @property
    def envs(self) -> int:
        return len(self.goal)

    @property
    def context(self) -> Context:
        """The start as our planner wants it."""
        latents = TensorDict({"latent": self.latents}, batch_size=self.latents.shape[:2])
        return Context(latents, self.past)

    def first(self, envs: int) -> Problem:
        """The same for the first environments alone."""
        parts = {name: getattr(self, name)[:envs] for name in ("latents", "past", "goal", "pixels")}
        return replace(self, **parts)


def make_model(shape: Shape) -> JEPA:
    """A model with random weights that are the same in every run."""
    torch.manual_seed(0)
    model = JEPA(shape.config, ACTION).eval().requires_grad_(False)
    for parameter in model.predictor.parameters():
        if not parameter.any():  # a gate that starts at zero would make every future the same
            parameter.normal_(std=0.02)
    return model


@torch.no_grad()
def make_problem(model: JEPA, frames: int, budget: Budget, envs: int) -> Problem:
    """Random pictures as starts and goals; what they show does not change how long planning takes."""
    generator = torch.Generator().manual_seed(1)
    size = model.config.image_size
    # Few distinct pictures are enough, and 100 of 224 pixels would take longer to encode than most plans.
    distinct = min(envs, 2)
    pixels = torch.randint(0, 256, (distinct, frames + 1, size, size, 3), generator=generator, dtype=torch.uint8)
    latents = model.embed(pixels)
    rows = torch.arange(envs) % distinct
    past = torch.rand(envs, frames - 1, model.action.dim, generator=generator) * 2 - 1
    return Problem(model, latents[rows, :-1].contiguous(), past, latents[rows, -1], pixels[rows, :-1], budget)


def step(model: JEPA, window: Tensor, past: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One model step as every peer takes it: the predictor sees the last up-to-H latents and the actions after each.

    Args:
        model: whose predictor is asked.
        window: latents `[B, n, D]`, 1 <= n <= H, oldest first.
        past: actions between them, `[B, n - 1, A]`.
        action: `[B, A]`.

    Returns:
        The next latent, `[B, D]`, the next window, `[B, min(n + 1, H), D]`, and the actions between its latents.
    """
    actions = torch.cat([past, action.unsqueeze(1)], 1)
    ahead = model.predictor(window, actions)
    full = int(window.shape[1] == model.history)  # then the oldest leaves
    return ahead, torch.cat([window[:, full:], ahead.unsqueeze(1)], 1), actions[:, full:]


def rehearse(model: JEPA, window: Tensor, past: Tensor, actions: Tensor) -> Tensor:
    """The naive rollout: `[B, n, D]`, `[B, n - 1, A]` and `[B, T, A]` to the latents after each step, `[B, T, D]`."""
    futures = []
    for action in actions.unbind(1):
        ahead, window, past = step(model, window, past, action)
        futures.append(ahead)
    return torch.stack(futures, 1)


def distance(latent: Tensor, goal: Tensor) -> Tensor:
    """The energy of every planner: mean over D of squared differences to the goal, `[..., D]` to `[...]`."""
    return (latent - goal).square().mean(-1)


def cost(problem: Problem, latents: Tensor, past: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
    """Energies `[E, S]` of plans `[E, S, T, A]`, where start and goal were repeated a candidate, `[E, S, ...]`."""
    rows = [part.flatten(0, 1) for part in (latents, past, actions)]
    last = rehearse(problem.model, *rows)[:, -1]
    return distance(last.unflatten(0, actions.shape[:2]), goal)
