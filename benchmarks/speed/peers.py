"""Other people's planners on our model: the real packages, imported where they are used, with thin adapters.

Each adapter does what a user of that package would do: repeat the start latents over candidates, step the predictor
over a sliding window, and call the squared distance of the last latent to the goal the cost. Where a package offers a
choice, the adapter takes the cheaper one.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from planner.energies import LatentDistance
from planner.models.packed import Packed
from planner.optimizers import CEM, ICEM, MPPI
from planner.plan import plan

from .shapes import Budget, Problem, cost, distance, step

Run = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """A planner with an optimizer.

    Attributes:
        peer: the package, or the paper whose loop is re-stated.
        optimizer: its name there.
        build: a problem to a function that plans once for all its environments.
        package: the distribution that it comes from; "" for ours and for re-stated loops.
        batched: whether it plans for several environments at once. If not, E environments are E plans in turn.
        encodes: whether it encodes pictures for each candidate.
        model: name in `SHAPES` whose shape its own model has, if it brings one instead of using ours.
    """

    peer: str
    optimizer: str
    build: Callable[[Problem], Run]
    package: str = ""
    batched: bool = True
    encodes: bool = False
    model: str = ""

    @property
    def name(self) -> str:
        return f"{self.peer} {self.optimizer}"

    @property
    def version(self) -> str:
        """Of the package as installed; "" where there is none."""
        return importlib.metadata.version(self.package) if self.package else ""


def ours(optimizer: str, *, rounded: bool = False) -> Callable[[Problem], Run]:
    """Our loop; `rounded`, rehearsing in bfloat16, which is left out where it would be emulated."""

    def build(problem: Problem) -> Run:
        if rounded and not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            raise RuntimeError("this processor does not multiply bfloat16")
        budget, model = problem.budget, Packed(problem.model, torch.bfloat16 if rounded else torch.float32)
        search = {
            "CEM": lambda: CEM(samples=budget.samples, elites=budget.elites),
            "iCEM": lambda: ICEM(samples=budget.samples, elites=budget.elites, shrink=1.0),
            "MPPI": lambda: MPPI(samples=budget.samples),
        }[optimizer]()
        context = problem.context
        goal = TensorDict({"latent": problem.goal}, batch_size=problem.goal.shape[:1])
        generator = torch.Generator().manual_seed(0)
        return lambda: plan(
            model,
            context,
            goal,
            LatentDistance(over="last"),
            search,
            iterations=budget.iterations,
            horizon=budget.horizon,
            generator=generator,
        )

    return build


def open_package(name: str) -> None:
    """Makes the modules of a package importable without running its `__init__`.

    stable-worldmodel's imports its environments, datasets and torchvision, none of which its solvers use.
    """
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"no package {name}")
        module = ModuleType(name)
        module.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = module


def stable_worldmodel(solver: str) -> Callable[[Problem], Run]:
    """`CEMSolver`, `ICEMSolver` or `MPPISolver`, all environments in one batch."""

    def build(problem: Problem) -> Run:
        model = SimpleNamespace(
            parameters=problem.model.parameters,
            get_cost=lambda info, plans: cost(problem, info["latents"], info["past"], info["goal"], plans),
        )
        run = _solver(solver, model, problem.budget, problem.envs, problem.model.action.dim)
        return lambda: run({"latents": problem.latents, "past": problem.past, "goal": problem.goal})

    return build


def _solver(name: str, model: Any, budget: Budget, envs: int, actions: int) -> Callable[[dict[str, Tensor]], object]:
    open_package("stable_worldmodel")
    spaces = importlib.import_module("gymnasium.spaces")
    solver = getattr(importlib.import_module("stable_worldmodel.solver"), name)(
        model, batch_size=envs, num_samples=budget.samples, n_steps=budget.iterations, topk=budget.elites
    )
    solver.configure(
        action_space=spaces.Box(-1, 1, (envs, actions), np.float32),
        n_envs=envs,
        config=SimpleNamespace(horizon=budget.horizon, action_block=1),
    )

    def run(info: dict[str, Tensor]) -> object:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            return solver.solve(info)

    return run


def own_lewm(problem: Problem) -> Run:
    """`CEMSolver` on stable-worldmodel's own LeWM, with the published sizes and random weights: what its users run.

    Its predictor is not faster or slower for having other weights, but it runs every block for every token of the
    window, where ours leaves out what nobody asks for.
    """
    for name in ("stable_worldmodel", "stable_worldmodel.wm"):
        open_package(name)
    parts = importlib.import_module("stable_worldmodel.wm.lewm.module")
    config, budget, envs = problem.model.config, problem.budget, problem.envs
    d = config.latent_dim
    predictor = parts.Predictor(
        num_frames=config.history,
        depth=config.depth,
        heads=config.heads,
        mlp_dim=config.hidden,
        input_dim=d,
        hidden_dim=d,
    )
    actions = parts.Embedder(input_dim=problem.model.action.dim, emb_dim=d)
    head = parts.MLP(d, config.hidden, norm_fn=nn.BatchNorm1d)
    model = importlib.import_module("stable_worldmodel.wm.lewm").LeWM(None, predictor, actions, pred_proj=head).eval()
    run = _solver("CEMSolver", model.requires_grad_(False), budget, envs, problem.model.action.dim)
    pictures = torch.zeros(envs, problem.latents.shape[1], 1)  # looked at for their number only
    return lambda: run(
        {"emb": problem.latents, "goal_emb": problem.goal.unsqueeze(1), "goal": pictures, "pixels": pictures}
    )


def torchrl(planner: str) -> Callable[[Problem], Run]:
    """`CEMPlanner` or `MPPIPlanner` on a `ModelBasedEnvBase` whose reward is minus the cost of the last step."""

    def build(problem: Problem) -> Run:
        planners = importlib.import_module("torchrl.modules")
        budget = problem.budget
        env = _torchrl_env(problem)
        knobs: dict[str, Any] = dict(
            planning_horizon=budget.horizon,
            optim_steps=budget.iterations,
            num_candidates=budget.samples,
            top_k=budget.elites,
        )
        if planner == "MPPIPlanner":
            knobs |= dict(advantage_module=_Return(), temperature=1.0)
        search = getattr(planners, planner)(env, **knobs)
        start = TensorDict(_padded(problem), batch_size=problem.goal.shape[:1])
        return torch.no_grad()(lambda: search(start.clone()))

    return build


class _Return(nn.Module):
    """The cheapest advantage: the sum of rewards."""

    def forward(self, tensordict: Any) -> Any:
        reward = tensordict["next", "reward"]
        return tensordict.set("advantage", reward.sum(-2, keepdim=True).expand_as(reward))


def _padded(problem: Problem) -> dict[str, Tensor]:
    """The start in windows of H: a rollout is stacked over time, so that its parts must not change their shapes."""
    latents, past, history = problem.latents, problem.past, problem.model.history
    missing = history - latents.shape[1]
    window = torch.cat([latents.new_zeros(latents.shape[0], missing, latents.shape[2]), latents], 1)
    return {"window": window, "past": torch.cat([past.new_zeros(past.shape[0], missing, past.shape[2]), past], 1)}


def _torchrl_env(problem: Problem) -> Any:
    base = importlib.import_module("torchrl.envs.model_based").ModelBasedEnvBase
    data = importlib.import_module("torchrl.data")
    model, horizon, frames = problem.model, problem.budget.horizon, problem.latents.shape[1]
    history, features, actions = model.history, model.config.latent_dim, model.action.dim

    class World(nn.Module):
        """What the environment asks for the next state; `t` counts because every rollout has T steps."""

        t = 0

        def forward(self, tensordict: Any) -> Any:
            known, batch = min(frames + self.t, history), tensordict.batch_size
            window, past = tensordict["window"], tensordict["past"]
            now = window.flatten(0, -3)[:, history - known :], past.flatten(0, -3)[:, history - known :]
            ahead, _, _ = step(model, *now, tensordict["action"].flatten(0, -2))
            self.t = (self.t + 1) % horizon
            ahead = ahead.unflatten(0, batch)
            reward = -distance(ahead, problem.goal.unsqueeze(1)) if self.t == 0 else ahead.new_zeros(batch)
            tensordict["window"] = torch.cat([window[..., 1:, :], ahead.unsqueeze(-2)], -2)
            tensordict["past"] = torch.cat([past, tensordict["action"].unsqueeze(-2)], -2)[..., 1:, :]
            tensordict["reward"] = reward.unsqueeze(-1)
            return tensordict

    class Env(base):
        def __init__(self) -> None:
            super().__init__(World())
            state = {
                "window": data.Unbounded((history, features)),
                "past": data.Unbounded((history - 1, actions)),
            }
            self.observation_spec = data.Composite(**state)
            self.state_spec = data.Composite(**state)
            self.action_spec = data.Bounded(-1.0, 1.0, (actions,))
            self.reward_spec = data.Unbounded((1,))

        def _reset(self, tensordict: Any, **_: Any) -> Any:
            return tensordict

    return Env()


def pytorch_mppi(problem: Problem) -> Run:
    """`MPPI`, or `MPPI_Batched` for several environments: a command is an iteration, states are flattened windows."""
    package = importlib.import_module("pytorch_mppi")
    model, budget, envs = problem.model, problem.budget, problem.envs
    history, features, actions = model.history, model.config.latent_dim, model.action.dim
    frames, split = problem.latents.shape[1], history * model.config.latent_dim
    goal = problem.goal.repeat_interleave(budget.samples, 0) if envs > 1 else problem.goal
    none = torch.zeros(envs * budget.samples)

    def dynamics(state: Tensor, action: Tensor, t: int) -> Tensor:
        known = min(frames + t, history)
        window = state[:, :split].unflatten(1, (history, features))
        past = state[:, split:].unflatten(1, (history - 1, actions))
        ahead, _, _ = step(model, window[:, history - known :], past[:, history - known :], action)
        return torch.cat([state[:, features:split], ahead, state[:, split + actions :], action], 1)

    def running_cost(state: Tensor, action: Tensor, t: int) -> Tensor:
        return distance(state[:, split - features : split], goal) if t + 1 == budget.horizon else none

    start = torch.cat([part.flatten(1) for part in _padded(problem).values()], 1)  # [E, H D + (H - 1) A]
    bounds = torch.ones(actions)
    knobs = dict(
        nx=start.shape[1],
        noise_sigma=0.25 * torch.eye(actions),
        num_samples=budget.samples,
        horizon=budget.horizon,
        u_min=-bounds,
        u_max=bounds,
        lambda_=0.1,
        step_dependent_dynamics=True,
    )
    kind = package.MPPI if envs == 1 else package.MPPI_Batched
    search = kind(dynamics, running_cost, **knobs, **({} if envs == 1 else {"num_envs": envs}))
    start = start[0] if envs == 1 else start

    @torch.no_grad()
    def run() -> object:
        search.reset()
        for _ in range(budget.iterations):
            action = search.command(start, shift_nominal_trajectory=False)
        return action

    return run


def mbrl(optimizer: str) -> Callable[[Problem], Run]:
    """`CEMOptimizer`, `ICEMOptimizer` or `MPPIOptimizer`, which know one environment only."""

    def build(problem: Problem) -> Run:
        kind = getattr(importlib.import_module("mbrl.planning.trajectory_opt"), optimizer)
        budget, actions = problem.budget, problem.model.action.dim
        upper = torch.ones(budget.horizon, actions)
        knobs: dict[str, Any] = dict(
            num_iterations=budget.iterations,
            population_size=budget.samples,
            lower_bound=(-upper).tolist(),
            upper_bound=upper.tolist(),
            device=torch.device("cpu"),
        )
        elites = dict(elite_ratio=budget.elites / budget.samples, alpha=0.1)
        knobs |= {
            "CEMOptimizer": elites | dict(clipped_normal=True),
            # No decay and no extra candidates from kept elites: S an iteration, as everywhere.
            "ICEMOptimizer": elites
            | dict(population_decay_factor=1.0, colored_noise_exponent=2.0, keep_elite_frac=0.0),
            "MPPIOptimizer": dict(gamma=10.0, sigma=0.5, beta=0.7),
        }[optimizer]
        search = kind(**knobs)

        def reward(plans: Tensor) -> Tensor:
            start = (problem.latents, problem.past, problem.goal)
            repeated = [part.unsqueeze(1).expand(-1, len(plans), *part.shape[1:]) for part in start]
            return -cost(problem, *repeated, plans.unsqueeze(0)).squeeze(0)

        return torch.no_grad()(lambda: search.optimize(reward, x0=torch.zeros_like(upper)))

    return build


CONTENDERS = (
    Contender("ours", "CEM", ours("CEM")),
    Contender("ours", "iCEM", ours("iCEM")),
    Contender("ours", "MPPI", ours("MPPI")),
    Contender("ours in bfloat16", "CEM", ours("CEM", rounded=True)),
    Contender("stable-worldmodel", "CEM", stable_worldmodel("CEMSolver"), "stable-worldmodel"),
    Contender("stable-worldmodel", "iCEM", stable_worldmodel("ICEMSolver"), "stable-worldmodel"),
    Contender("stable-worldmodel", "MPPI", stable_worldmodel("MPPISolver"), "stable-worldmodel"),
    Contender("stable-worldmodel", "CEM, own LeWM", own_lewm, "stable-worldmodel", model="lewm"),
    Contender("TorchRL", "CEM", torchrl("CEMPlanner"), "torchrl"),
    Contender("TorchRL", "MPPI", torchrl("MPPIPlanner"), "torchrl"),
    Contender("pytorch-mppi", "MPPI", pytorch_mppi, "pytorch-mppi"),
    Contender("mbrl-lib", "CEM", mbrl("CEMOptimizer"), "mbrl", batched=False),
    Contender("mbrl-lib", "iCEM", mbrl("ICEMOptimizer"), "mbrl", batched=False),
    Contender("mbrl-lib", "MPPI", mbrl("MPPIOptimizer"), "mbrl", batched=False),
)
