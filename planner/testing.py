"""Checks for other people's optimizers and world models, the ones our own tests use, and a world with a known answer.

`check_optimizer(MyOptimizer())` returns, or raises an AssertionError that says what is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from .actions import ActionSpec
from .optimizers.noise import Streams
from .types import Context, Optimizer, WorldModel

T, A = 4, 2


class LinearModel:
    """A world whose latent obeys `z' = z @ transition.T + a @ control.T`: plans in it have a closed form.

    Args:
        transition: `[D, D]`.
        control: `[D, A]`, effect of one normalised model action.
        action: bounds and units, with `action.dim` = A.
        history: H, context frames; only the last is read.
    """

    def __init__(self, transition: Tensor, control: Tensor, action: ActionSpec, history: int = 1) -> None:
        self.transition, self.control, self.action, self.history = transition, control, action, history

    def encode(self, obs: TensorDict) -> TensorDict:
        """The latent is `obs["state"]`, `[E, H, D]`."""
        return TensorDict({"latent": obs["state"].to(self.transition.dtype)}, batch_size=obs.batch_size)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Futures, batch `[E, S, T]`, of candidates `[E, S, T, A]`."""
        latent = context.latent["latent"][:, None, -1].expand(-1, actions.shape[1], -1)  # [E, S, D]
        futures = []
        for action in actions.unbind(2):  # [E, S, A]
            latent = latent @ self.transition.T + action.to(latent.dtype) @ self.control.T
            futures.append(latent)
        return TensorDict({"latent": torch.stack(futures, dim=2)}, batch_size=actions.shape[:3])

    def least_squares(self, start: Tensor, goal: Tensor, horizon: int, effort: float) -> tuple[Tensor, Tensor]:
        """The planning problem as `energy = |matrix @ u - target[e]|^2`, with plans flattened to `u`, `[T * A]`.

        The energy is `LatentDistance("l2", over="all") + effort * ActionEffort()`, from `start` to `goal`, `[E, D]`.

        Returns:
            matrix `[R, T * A]` and target `[E, R]`.
        """
        size, width = self.control.shape
        powers = [torch.linalg.matrix_power(self.transition, n) for n in range(horizon + 1)]
        zero = torch.zeros_like(self.control)
        reach = torch.cat(  # row of blocks t: what each action adds to the latent after step t
            [
                torch.cat([powers[t - k] @ self.control if k <= t else zero for k in range(horizon)], dim=1)
                for t in range(horizon)
            ]
        )
        gap = torch.cat([goal - start @ powers[t + 1].T for t in range(horizon)], dim=1)  # [E, T * D]
        push = torch.eye(horizon * width, dtype=reach.dtype) * (effort / (horizon * width)) ** 0.5
        matrix = torch.cat([reach / (horizon * size) ** 0.5, push])
        return matrix, torch.cat([gap / (horizon * size) ** 0.5, gap.new_zeros(len(gap), horizon * width)], dim=1)


def check_optimizer(optimizer: Optimizer[Any]) -> None:
    """Holds an optimizer to what `plan` relies on.

    Shapes and bounds, for one environment and for several; noise from the generator alone, and of each environment from
    its own where the generator has one for each; purity of all four functions; environments that do not disturb each
    other; failures, some or all, that leave it finite and, where all fail, where it was; and progress on a quadratic.

    Raises:
        AssertionError: what does not hold.
    """
    for size in (1, 3):
        _check_candidates(optimizer, size)
        _check_purity(optimizer, size)
        _check_progress(optimizer, size)
    _check_failures(optimizer)
    _check_independence(optimizer)
    _check_streams(optimizer)


def check_world_model(model: WorldModel, obs: TensorDict) -> None:
    """Holds a world model to what `plan` and `MPC` rely on.

    Shapes; functions of their inputs alone, which they leave as they are; environments, frames and candidates that do
    not mix; futures that have what an energy compares with a goal, heed the actions before them and no later ones.

    Args:
        model: the world model.
        obs: observations, batch `[E, H]` with H = `model.history`; E >= 2 to see whether environments mix.

    Raises:
        AssertionError: what does not hold.
    """
    size, history = obs.batch_size[0], model.history
    _require(tuple(obs.batch_size) == (size, history), f"obs to have batch [E, {history}], not {obs.batch_size}")
    latent = _encoded(model, obs)
    generator = torch.Generator().manual_seed(0)
    device = next(iter(latent.values(True, True))).device
    draw = (torch.rand(size, 3 + history, T, model.action.dim, generator=generator) * 2 - 1).to(device)
    actions, done = draw[:, :3], draw[:, 3 : 2 + history, 0]
    context = Context(latent, done)
    futures = _rehearsed(model, context, actions)
    shared = set(latent.keys(True, True)) & set(futures.keys(True, True))
    _require(bool(shared), f"futures with a key of encode's, {list(latent.keys())}, not {list(futures.keys())}")
    alone = model.rollout(context, actions[:, 1:2])
    _require(_same(futures[:, 1:2], alone), "candidates to be rehearsed independently of each other")
    first = model.rollout(Context(latent[:1], done[:1]), actions[:1])
    _require(_same(futures[:1], first), "environments to be rehearsed independently of each other")
    changed = model.rollout(context, torch.cat([actions[:, :, :-1], -actions[:, :, -1:]], dim=2))
    _require(_same(futures[:, :, :-1], changed[:, :, :-1]), "no future to precede its action")
    heeded = "the last future to follow from the last action, not to be the same whatever it is; is the model trained?"
    _require(not _same(futures[:, :, -1], changed[:, :, -1], 0.0), heeded)


def _encoded(model: WorldModel, obs: TensorDict) -> TensorDict:
    """What is seen, encoded; an MPC encodes frames one at a time, of those environments that are due."""
    before = obs.clone()
    latent = model.encode(obs)
    _require(isinstance(latent, TensorDictBase), f"encode to return a TensorDict, not a {type(latent).__name__}")
    _require(latent.batch_size == obs.batch_size, f"encode to keep the batch, not to return {latent.batch_size}")
    _require(_same(before, obs, 0.0), "encode to leave its input alone")
    _require(_finite(latent), "finite latents")
    _require(_same(latent, model.encode(obs)), "encode to be deterministic; is the model in evaluation mode?")
    told = "environments to be encoded independently of each other; is the model in evaluation mode?"
    _require(_same(latent[:1], model.encode(obs[:1])), told)
    _require(_same(latent[:, -1:], model.encode(obs[:, -1:])), "frames to be encoded independently of each other")
    return latent


def _rehearsed(model: WorldModel, context: Context, actions: Tensor) -> TensorDict:
    """Futures of candidates."""
    before = _given(context, actions).clone()
    try:
        futures = model.rollout(context, actions)
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        what = f"rollout to take candidates {list(actions.shape)}, block x environment actions last"
        raise AssertionError(f"expected {what}, not to raise {type(error).__name__}: {error}") from error
    _require(isinstance(futures, TensorDictBase), f"rollout to return a TensorDict, not a {type(futures).__name__}")
    _require(futures.batch_size == actions.shape[:3], f"futures of batch [E, S, T], not {futures.batch_size}")
    _require(_same(before, _given(context, actions), 0.0), "rollout to leave its inputs alone")
    _require(_finite(futures), "finite futures")
    _require(_same(futures, model.rollout(context, actions)), "rollout to be deterministic")
    return futures


def _check_candidates(optimizer: Optimizer[Any], size: int) -> None:
    plan = torch.full((size, T, A), 0.9)  # near a bound, so that noise steps over it
    state = optimizer.init(plan)
    ambient = torch.get_rng_state()
    actions = optimizer.ask(state, _seeded(0)).detach()
    again, other = (optimizer.ask(state, _seeded(seed)).detach() for seed in (0, 1))
    _require(torch.equal(ambient, torch.get_rng_state()), "noise from the generator only, not from torch's global one")
    _require(actions.ndim == 4 and actions.shape[1] >= 1, f"candidates [E, S, T, A], not {tuple(actions.shape)}")
    _require(actions.shape == (size, actions.shape[1], T, A), f"candidates [E, S, T, A], not {tuple(actions.shape)}")
    _require(bool((actions.isfinite() & (actions.abs() <= 1)).all()), "candidates in [-1, 1]")
    _require(torch.equal(actions, again), "the same candidates from the same seed")
    _require(actions.shape[1] == 1 or not torch.equal(actions, other), "other candidates from another seed")
    best = optimizer.best(state)
    _require(best.shape == plan.shape, f"best [E, T, A], not {tuple(best.shape)}")
    _require(torch.allclose(best, plan), "best to be the starting plan before anything was told")


def _check_purity(optimizer: Optimizer[Any], size: int) -> None:
    plan, target = torch.zeros(size, T, A), torch.full((size, T, A), 0.5)
    state = optimizer.init(plan)
    actions = optimizer.ask(state, _seeded(0))
    energy = _quadratic(actions, target)
    watched = [plan, actions, energy, *_tensors(state)]
    before = [tensor.detach().clone() for tensor in watched]
    first = [tensor.detach().clone() for tensor in _tensors(optimizer.tell(state, actions, energy))]
    unchanged = all(torch.equal(old, new) for old, new in zip(before, watched, strict=True))
    _require(unchanged, "init, ask and tell to leave their inputs alone")
    second = _tensors(optimizer.tell(state, actions, energy))
    _require(all(torch.equal(x, y) for x, y in zip(first, second, strict=True)), "tell to be a function of its inputs")


def _check_progress(optimizer: Optimizer[Any], size: int) -> None:
    draw = torch.rand(size, T, A, generator=_seeded(1)) * 0.8 - 0.4
    target = draw + 0.4 * draw.sign()  # 0.4 to 0.8 away: far enough for a tenth to be more than a search's own noise
    best = _minimise(optimizer, torch.zeros(size, T, A), target, 20)
    start, end = target.square().mean((1, 2)), (best - target).square().mean((1, 2))
    _require(bool((end < 0.1 * start).all()), f"a quadratic to fall below a tenth in 20 iterations: {start} to {end}")
    _require(bool((best.abs() <= 1).all()), "best in [-1, 1]")


def _check_failures(optimizer: Optimizer[Any]) -> None:
    """Environment 0 fails entirely, 1 but for one candidate, 2 not at all."""
    state = optimizer.init(torch.full((3, T, A), 0.25))
    generator = _seeded(2)
    for _ in range(3):
        actions = optimizer.ask(state, generator)
        # One candidate more than asked for, as proposals make it.
        actions = torch.cat([actions[:, :1] * 0.5, actions], dim=1)
        energy = _quadratic(actions, torch.zeros(3, T, A))
        broken = torch.zeros_like(energy, dtype=torch.bool)
        broken[0], broken[1, 1:] = True, True
        state = optimizer.tell(state, actions, energy.masked_fill(broken, torch.inf))
        best = optimizer.best(state)
        _require(bool(best.isfinite().all()), "best to stay finite when candidates fail")
        _require(bool((best[0] == 0.25).all()), "an environment where everything failed to keep its plan")
        _require(bool((best[2] != 0.25).any()), "an environment to learn although another one failed")
        # +inf may stand in a state for "no energy met yet"; NaN would spread.
        _require(not any(bool(x.isnan().any()) for x in _tensors(state)), "a state without NaN when candidates fail")
    _require(bool(optimizer.ask(state, generator).isfinite().all()), "finite candidates after failures")


def _check_independence(optimizer: Optimizer[Any]) -> None:
    target = torch.full((2, T, A), 0.5)
    other = torch.cat([target[:1], -target[1:]])
    first, second = (_minimise(optimizer, torch.zeros(2, T, A), goal, 3) for goal in (target, other))
    _require(torch.equal(first[0], second[0]), "an environment not to depend on the energies of another")


def _check_streams(optimizer: Optimizer[Any]) -> None:
    plan, device = torch.zeros(3, T, A), torch.device("cpu")
    together = optimizer.ask(optimizer.init(plan), Streams(device, (1, 2, 3))).detach()
    alone = optimizer.ask(optimizer.init(plan[:1]), Streams(device, (2,))).detach()
    own = "noise of each environment from its own source: draw it with planner.optimizers.noise.drawn or normal"
    _require(torch.equal(together[1], alone[0]), own)


def _minimise(optimizer: Optimizer[Any], plan: Tensor, target: Tensor, iterations: int) -> Tensor:
    state, generator = optimizer.init(plan), _seeded(0)
    for _ in range(iterations):
        actions = optimizer.ask(state, generator)
        state = optimizer.tell(state, actions, _quadratic(actions, target))
    return optimizer.best(state).detach()


def _quadratic(actions: Tensor, target: Tensor) -> Tensor:
    return (actions - target.unsqueeze(1)).square().mean((-2, -1))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _tensors(state: Any) -> Iterator[Tensor]:
    """The tensors in an optimizer's state: dataclasses, tuples, lists and dicts of them."""
    if isinstance(state, Tensor):
        yield state
    elif is_dataclass(state):
        for field in fields(state):
            yield from _tensors(getattr(state, field.name))
    elif isinstance(state, dict | tuple | list):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)


def _given(context: Context, actions: Tensor) -> TensorDict:
    inputs = {"latent": context.latent, "done": context.actions, "actions": actions}
    return TensorDict(inputs, batch_size=actions.shape[:1])


def _same(one: TensorDict, other: TensorDict, tolerance: float = 1e-4) -> bool:
    keys = set(one.keys(True, True))
    close = (torch.allclose(one[key], other[key], rtol=tolerance, atol=tolerance) for key in keys)
    return keys == set(other.keys(True, True)) and all(close)


def _finite(numbers: TensorDict) -> bool:
    return all(bool(value.isfinite().all()) for value in numbers.values(True, True))


def _require(holds: bool, what: str) -> None:
    # Not an assert statement: those vanish under python -O, and a checker that checks nothing is worse than none.
    if not holds:
        raise AssertionError(f"expected {what}")
