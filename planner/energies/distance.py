"""How far imagined latents are from the goal's."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import cosine_similarity, huber_loss

from ..errors import BadInput
from .base import Energy


def _cosine(latent: Tensor, goal: Tensor) -> Tensor:
    return 1 - cosine_similarity(latent, goal, dim=-1).unsqueeze(-1)


# Each: latents [E, S, T, D] and a goal [E, 1, 1, D] to what is averaged over the last axis.
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": lambda latent, goal: (latent - goal).square(),
    "l1": lambda latent, goal: (latent - goal).abs(),
    "huber": lambda latent, goal: huber_loss(latent, goal.expand_as(latent), reduction="none"),
    "cosine": _cosine,
}
OVER = ("last", "all", "min")


def over_horizon(distance: Tensor, over: str, discount: float = 1.0) -> Tensor:
    """Distances `[E, S, T]` to energies `[E, S]`: of the "last" step, the weighted mean of "all", or the "min"."""
    if over == "last":
        return distance[..., -1]
    if over == "min":
        # It hands NaN on, so that a broken step cannot hide behind a good one; +inf, as of what a head says is out of
        # reach, does not count.
        return distance.amin(-1)
    steps = torch.arange(distance.shape[-1], device=distance.device, dtype=distance.dtype)
    weights = discount ** (steps - steps[-1] if discount > 1 else steps)  # of which none may be too large for a float
    return distance @ (weights / weights.sum())


def _check_over(name: str, over: str, discount: float) -> None:
    if over not in OVER:
        raise BadInput(f"{name}: unknown over", expected=f"one of {list(OVER)}", got=str(over))
    if not 0 < discount < math.inf:
        raise BadInput(f"{name}: discount is off", expected="a number above 0", got=str(discount))
    if discount != 1 and over != "all":
        # A knob that nothing reads is a mistake waiting to be tuned.
        raise BadInput(f"{name}: discount is not read here", expected='over="all"', got=f"over={over!r}")


@dataclass(frozen=True)
class LatentDistance(Energy):
    """Distance in latent space between the imagined future and the goal, >= 0, in latent units.

    Futures are `[E, S, T, ...]` under `key` and the goal `[E, ...]`, with equal trailing shapes; more than one trailing
    axis (tokens, features) is read as one long feature axis D.

    Attributes:
        metric: "l2", the mean over D of squared differences; "l1", the mean over D of absolute differences; "huber",
            the mean over D of half the square up to a difference of 1 and of the difference less a half beyond;
            "cosine", 1 - cosine similarity, in [0, 2].
        over: which of the T imagined steps count: "last"; "all", their weighted mean; "min", the closest one (for
            goals to pass through rather than to hold).
        key: where the latent lies in futures and goal.
        discount: with over="all" only, step t weighs discount**t; > 0, and above 1 the later steps weigh more.
        weights: D numbers >= 0, of which 0 masks a feature; differences are averaged with them (the cosine is that of
            latents scaled by their roots). None weighs all alike.
    """

    metric: str = "l2"
    over: str = "last"
    key: str = "latent"
    discount: float = 1.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BadInput("LatentDistance: unknown metric", expected=f"one of {sorted(METRICS)}", got=self.metric)
        _check_over("LatentDistance", self.over, self.discount)
        if self.weights is not None:
            sound = all(0 <= weight < math.inf for weight in self.weights)
            if not sound or not sum(self.weights):
                expected, got = "numbers >= 0, one of them above 0", str(self.weights)
                raise BadInput("LatentDistance: weights are off", expected=expected, got=got)

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        latent, target = futures[self.key], goal[self.key]  # [E, S, T, ...], [E, ...]
        if target.shape != latent.shape[:1] + latent.shape[3:]:
            # Broadcasting would accept a goal of one environment for all, or of one feature, and plan towards nonsense.
            raise BadInput(
                f"LatentDistance: goal {self.key!r} does not fit the futures",
                expected=str(tuple(latent.shape[:1] + latent.shape[3:])),
                got=str(tuple(target.shape)),
            )
        if self.over == "last":
            latent = latent[:, :, -1:]
        return over_horizon(self.steps(latent, target), self.over, self.discount)

    def steps(self, latent: Tensor, target: Tensor) -> Tensor:
        """Latents `[E, S, T, ...]` and goals `[E, ...]` to the distance at each step, `[E, S, T]`."""
        latent, target = latent.flatten(3), target.flatten(1)[:, None, None]
        if self.weights is None:
            return METRICS[self.metric](latent, target).mean(-1)
        weights = latent.new_tensor(self.weights)
        if len(weights) != latent.shape[-1]:
            expected, got = f"{latent.shape[-1]}, one a feature", str(len(weights))
            raise BadInput("LatentDistance: weights do not fit the latent", expected=expected, got=got)
        if self.metric == "cosine":
            return _cosine(latent * weights.sqrt(), target * weights.sqrt()).squeeze(-1)
        return METRICS[self.metric](latent, target) @ (weights / weights.sum())


@dataclass(frozen=True, eq=False)
class ObjectDistance(LatentDistance):
    """A latent distance that plays down where the robot itself is, for goals that are about what it moves.

    A goal picture shows the robot as well as the object, and a robot that is on its way around the object, or that has
    already brought it home, is far from where the picture shows it. Differences along `body` count `keep` times.

    Attributes:
        body: latent directions that the robot's own body moves along, `[D, k]`, orthonormal columns;
            `training.body_directions` finds them.
        keep: factor on differences along them, 0 to 1; 1 is the plain distance.
    """

    body: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    keep: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep <= 1:
            raise BadInput("ObjectDistance: keep is off", expected="0 to 1", got=str(self.keep))

    def steps(self, latent: Tensor, target: Tensor) -> Tensor:
        return super().steps(self._faded(latent), self._faded(target))

    def _faded(self, latent: Tensor) -> Tensor:
        if latent.shape[-1] != len(self.body):
            expected, got = f"{latent.shape[-1]} rows, one a feature", str(tuple(self.body.shape))
            raise BadInput("ObjectDistance: body does not fit the latent", expected=expected, got=got)
        body = self.body.to(latent)
        return latent - (1 - self.keep) * (latent @ body) @ body.T

    # Tensors cannot be compared, and the parent's would leave them out.
    __eq__, __hash__ = object.__eq__, object.__hash__


@dataclass(frozen=True)
class LearnedDistance(Energy):
    """A distance that was learned, such as the number of steps between two latents.

    Attributes:
        head: latents `[E, S, T, ...]` and goals `[E, 1, 1, ...]` to distances `[E, S, T]`, lower is nearer.
        over: which imagined steps count, as in `LatentDistance`.
        key: where the latent lies in futures and goal.
        discount: with over="all" only, step t weighs discount**t; > 0.
    """

    head: Callable[[Tensor, Tensor], Tensor]
    over: str = "min"
    key: str = "latent"
    discount: float = 1.0

    def __post_init__(self) -> None:
        _check_over("LearnedDistance", self.over, self.discount)

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        latent, target = futures[self.key], goal[self.key]
        if len(target) != len(latent):  # one goal would be broadcast, and pursued by all
            expected, got = f"{len(latent)}, one an environment", str(len(target))
            raise BadInput("LearnedDistance: goals do not fit the futures", expected=expected, got=got)
        if self.over == "last":
            latent = latent[:, :, -1:]
        return over_horizon(self.steps(latent, target), self.over, self.discount)

    def steps(self, latent: Tensor, target: Tensor) -> Tensor:
        """Latents `[E, S, T, ...]` and goals `[E, ...]` to the distance at each step, `[E, S, T]`."""
        distance = self.head(latent, target[:, None, None])
        if distance.shape != latent.shape[:3]:
            expected, got = str(tuple(latent.shape[:3])), str(tuple(distance.shape))
            raise BadInput("LearnedDistance: the head has a wrong shape", expected=expected, got=got)
        return distance


def _known_by(distance: object) -> str:
    """What tells a distance from others: its settings, the numbers of a tensor, which object a head is.

    What is printed of these would not do: of a large tensor it is a part, of a network its layers' sizes.
    """
    if not is_dataclass(distance):
        return str(id(distance))

    def told(value: object) -> object:
        if isinstance(value, Tensor):
            return zlib.crc32(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return id(value) if callable(value) else repr(value)

    return f"{type(distance).__qualname__} {[told(getattr(distance, one.name)) for one in fields(distance)]}"


GOAL_MODES = ("any", "all", "sequence")


@dataclass(frozen=True)
class Goals(Energy):
    """Several goals at once: G of them an environment, `[E, G, ...]` under the distance's key.

    A planner that looks again and again would ask for goals that it has been at, too. So an `MPC` is told what is seen
    `near` a goal: that one is visited, and asked for no more in this episode. The last one that is left stays.

    Attributes:
        mode: "any", the nearest goal counts; "all", the mean over goals, each at its own best moment if the distance
            is over="min"; "sequence", each goal in turn: the least mean distance over moments that come in the order of
            the goals (two may be met at the same moment).
        distance: to each goal. Its `over` is not read by "sequence", which chooses the moments itself and wants "min".
        near: distance at which a goal counts as visited, in the units of `distance`, above 0; with "all" and
            "sequence". None: every plan asks for all of them, which an `MPC` with a "sequence" refuses, as it would
            never get past the first.
    """

    mode: str = "any"
    distance: LatentDistance | LearnedDistance = field(default_factory=lambda: LatentDistance(over="min"))
    near: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in GOAL_MODES:
            raise BadInput("Goals: unknown mode", expected=f"one of {list(GOAL_MODES)}", got=repr(self.mode))
        if not callable(getattr(self.distance, "steps", None)):
            expected = "a LatentDistance, a LearnedDistance, or one of yours with `steps`, `key`, `over` and `discount`"
            got = type(self.distance).__name__
            raise BadInput("Goals: no distance to one goal", expected=expected, got=got)
        if self.mode == "sequence" and self.distance.over != "min":
            got = f"over={self.distance.over!r}"
            raise BadInput("Goals: a sequence chooses its own moments", expected='over="min"', got=got)
        if self.near is not None and not 0 < self.near < math.inf:
            raise BadInput("Goals: near is off", expected="a number above 0, or None", got=str(self.near))
        if self.near is not None and self.mode == "any":
            raise BadInput("Goals: near is not read here", expected='mode "all" or "sequence"', got='mode "any"')

    def __call__(self, futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        latent, targets = futures[self.distance.key], goal[self.distance.key]  # [E, S, T, ...], [E, G, ...]
        if targets.ndim < 2 or (targets.shape[0], *targets.shape[2:]) != (latent.shape[0], *latent.shape[3:]):
            expected = f"[{latent.shape[0]}, G, {', '.join(map(str, latent.shape[3:]))}]"
            raise BadInput("Goals: goals do not fit the futures", expected=expected, got=str(tuple(targets.shape)))
        apart = torch.stack([self.distance.steps(latent, target) for target in targets.unbind(1)])  # [G, E, S, T]
        broken = apart.sum((0, -1)).isnan()  # [E, S]: what is visited, and cummin, would step over a NaN
        if self.near is not None and (visited := goal.get(self.visited, None)) is not None:
            apart = apart.masked_fill(visited.T[..., None, None], 0.0)
        if self.mode == "sequence":
            found = self._in_turn(apart)
        else:
            energies = over_horizon(apart, self.distance.over, self.distance.discount)
            found = energies.amin(0) if self.mode == "any" else energies.mean(0)
        return found.masked_fill(broken, torch.nan)

    @staticmethod
    def _in_turn(apart: Tensor) -> Tensor:
        """Least mean of distances over moments t1 <= t2 <= ..., `[E, S]`, by dynamic programming along the horizon."""
        so_far = torch.zeros_like(apart[0])
        for distance in apart:
            so_far = torch.cummin(so_far + distance, dim=-1).values
        return so_far[..., -1] / len(apart)

    @cached_property
    def visited(self) -> str:
        """Where the goal carries which of these were visited, bool `[E, G]`; other `Goals` in a sum have their own."""
        return f"visited {zlib.crc32(f'{self.mode} {self.near} {_known_by(self.distance)}'.encode()):08x}"

    def held(self, goal: TensorDict) -> int:
        targets = goal[self.distance.key]
        return targets.shape[1] if targets.ndim > 1 else 1  # what has no axis of goals is refused where it is judged

    def begun(self, goal: TensorDict) -> TensorDict:
        """With none visited; `BadInput` for a sequence that no look would ever bring on."""
        if self.near is None:
            if self.mode == "sequence":
                do = "give `near`, the distance at which a goal counts as visited"
                raise BadInput("Goals: every plan of a sequence would ask for its first goal again", do=do)
            return goal
        targets = goal[self.distance.key]
        none = torch.zeros(targets.shape[:2], dtype=torch.bool, device=targets.device)
        return goal.clone(recurse=False).set(self.visited, none)

    def looked(self, goal: TensorDict, latent: TensorDict) -> TensorDict:
        """With those visited, too, that `latent` is near, of a sequence in its order; never the last one left."""
        if self.near is None:
            return goal
        if goal[self.distance.key].ndim != latent[self.distance.key].ndim + 1:
            expected, got = f"{self.distance.key} [E, G, ...]", str(list(goal[self.distance.key].shape))
            raise BadInput("Goals: goals have no axis of their own", expected=expected, got=got)
        known = goal if self.visited in goal.keys() else self.begun(goal)  # noqa: SIM118 - of a copy made in between
        now, visited = latent[self.distance.key][:, None, None], known[self.visited].clone()
        for g, target in enumerate(goal[self.distance.key].unbind(1)):
            there = self.distance.steps(now, target)[:, 0, 0] <= self.near
            due = visited[:, :g].all(1) if self.mode == "sequence" else torch.ones_like(there)
            visited[:, g] |= there & due & ((~visited).sum(1) > 1)
        return goal.clone(recurse=False).set(self.visited, visited)
