"""What moving costs."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import TensorDict
from torch import Tensor

from ..errors import BadInput
from .base import Energy


@dataclass(frozen=True)
class ActionEffort(Energy):
    """Mean square of the normalised actions, in [0, 1]: 0 in the middle of the bounds, 1 at full effort throughout."""

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return actions.square().mean((-2, -1))


def _differences(actions: Tensor, env_dim: int | None, order: int) -> Tensor:
    """Differences between consecutive actions `[E, S, T, A]`, of environment steps where their dimension is given."""
    if env_dim is not None:
        if actions.shape[-1] % env_dim:
            expected, got = f"a divisor of {actions.shape[-1]}", str(env_dim)
            raise BadInput("action energy: env_dim does not fit the actions", expected=expected, got=got)
        actions = actions.unflatten(-1, (-1, env_dim)).flatten(-3, -2)  # [E, S, T block, a]
    return actions.diff(n=order, dim=-2)


def _check_env_dim(env_dim: int | None) -> None:
    if env_dim is not None and (isinstance(env_dim, bool) or not isinstance(env_dim, int) or env_dim < 1):
        raise BadInput("action energy: env_dim is off", expected="a whole number >= 1, or None", got=repr(env_dim))


@dataclass(frozen=True)
class ActionRate(Energy):
    """Mean square of half the change from one action to the next, in [0, 1]: 1 is from bound to bound every time.

    Attributes:
        env_dim: dimensions of an environment action, so that changes inside a model step count too; None compares
            model steps. 0 where there is nothing to compare.
    """

    env_dim: int | None = None

    def __post_init__(self) -> None:
        _check_env_dim(self.env_dim)

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        change = _differences(actions, self.env_dim, 1) / 2
        return change.square().sum((-2, -1)) / max(1, change.shape[-2] * change.shape[-1])


@dataclass(frozen=True)
class ActionSmoothness(Energy):
    """Mean square of a quarter of the change of the change, in [0, 1]: 0 for steady ramps, 1 for jerking at the bounds.

    Attributes:
        env_dim: as in `ActionRate`.
    """

    env_dim: int | None = None

    def __post_init__(self) -> None:
        _check_env_dim(self.env_dim)

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        bend = _differences(actions, self.env_dim, 2) / 4
        return bend.square().sum((-2, -1)) / max(1, bend.shape[-2] * bend.shape[-1])


@dataclass(frozen=True)
class Disagreement(Energy):
    """How much the members of an ensemble differ about a future: their variance, averaged over features and steps.

    Where nobody has been, members disagree; as a penalty it keeps plans where the world model knows what it says
    (PETS, Chua et al., 2018, arXiv 1805.12114).

    Attributes:
        key: where the members' latents lie in the futures, `[E, S, T, M, ...]`, as `planner.models.ensemble` puts them.
    """

    key: str = "members"

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        if self.key not in futures:
            raise BadInput(
                f"Disagreement: the futures have no {self.key!r}",
                expected="an ensemble of world models",
                got=f"futures with {sorted(map(str, futures.keys()))}",
                do="wrap the models in planner.models.ensemble.Ensemble",
            )
        return futures[self.key].var(3, correction=0).flatten(3).mean((-2, -1))
