"""Planning loops of two papers, re-stated in a few lines each, on our model."""

from __future__ import annotations

import torch
from torch import Tensor

from .peers import Contender, Run
from .shapes import Problem, cost


def tdmpc2(problem: Problem) -> Run:
    """MPPI over elites (TD-MPC2, arXiv 2310.16828, section 3.2), without its policy's candidates, which need a policy.

    All environments in one batch. The value of a candidate is minus the energy of its last latent.
    """
    budget, actions = problem.budget, problem.model.action.dim
    temperature, least_std, first_std = 0.5, 0.05, 2.0

    @torch.no_grad()
    def run() -> Tensor:
        envs, samples = problem.envs, budget.samples
        start = (problem.latents, problem.past, problem.goal)
        repeated = [part.unsqueeze(1).expand(envs, samples, *part.shape[1:]) for part in start]
        mean = torch.zeros(envs, 1, budget.horizon, actions)
        std = torch.full_like(mean, first_std)
        for _ in range(budget.iterations):
            plans = (mean + std * torch.randn(envs, samples, budget.horizon, actions)).clamp(-1, 1)
            value, index = (-cost(problem, *repeated, plans)).nan_to_num(0).topk(budget.elites, dim=1)
            elites = plans.take_along_dim(index[..., None, None], 1)
            score = torch.exp(temperature * (value - value.amax(1, keepdim=True)))
            score = (score / score.sum(1, keepdim=True))[..., None, None]
            mean = (score * elites).sum(1, keepdim=True)
            std = (score * (elites - mean).square()).sum(1, keepdim=True).sqrt().clamp(least_std, first_std)
        chosen = torch.multinomial(score.flatten(1), 1)[..., None, None]
        return elites.take_along_dim(chosen, 1)[:, 0, 0]

    return run


def dino_wm(problem: Problem) -> Run:
    """CEM that rehearses from pictures (DINO-WM, arXiv 2411.04983, section 3.3): one environment after the other, the
    start pictures repeated and encoded for each candidate of each iteration, the goal's once a plan."""
    model, budget = problem.model, problem.budget

    def search(row: int) -> Tensor:
        pixels = problem.pixels[row].expand(budget.samples, *problem.pixels.shape[1:])
        past = problem.past[row].expand(1, budget.samples, *problem.past.shape[1:])
        mean, std = torch.zeros(2, budget.horizon, model.action.dim).unbind(0)
        std = std + 1
        for _ in range(budget.iterations):
            plans = mean + std * torch.randn(budget.samples, *mean.shape)
            plans[0] = mean
            energy = cost(problem, model.embed(pixels).unsqueeze(0), past, problem.goal[row], plans.unsqueeze(0))[0]
            elites = plans[energy.topk(budget.elites, largest=False).indices]
            mean, std = elites.mean(0), elites.std(0)
        return mean

    return torch.no_grad()(lambda: torch.stack([search(row) for row in range(problem.envs)]))


RESTATED = (
    Contender("TD-MPC2's loop", "MPPI", tdmpc2),
    Contender("DINO-WM's loop", "CEM", dino_wm, batched=False, encodes=True),
)
