"""Settings as plain data: how a checkpoint wants to be planned with, and how a JEPA is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .energies import METRICS, ActionEffort, Energy, LatentDistance, LearnedDistance, ObjectDistance
from .errors import BadInput, check_seed
from .models.jepa import JEPA
from .models.packed import Packed
from .mpc import MPC
from .optimizers import CEM, AnyOptimizer, Chain, Gradient, Hold, make_optimizer
from .proposals import proposer
from .types import EnergyLike, Prior, WorldModel

BY_STEPS = ("temporal", "temporal+l2", "temporal+slow")
"""Metrics that ask a model's head how many steps are left."""

NEARNESS = 30.0
"""Model steps that a mean square of 1 between latents counts for, beside those of the head (decision 65)."""

STILLNESS = 3.0
"""Model steps that the whole distance by slow features counts for, beside those of the head (decision 69)."""


@dataclass(frozen=True)
class PlannerConfig:
    """Settings of a planner; a checkpoint carries those it ships with.

    Attributes:
        optimizer: name in `OPTIMIZERS`.
        samples: S, candidates an iteration, >= 2.
        iterations: rounds of the optimizer, >= 1.
        horizon: T, model steps to look ahead, >= 1.
        execute: model steps done of each plan before the next, 1 to `horizon`.
        replan: environment steps done of each plan before the next, in place of `execute`; 0 leaves it to that.
        hold: environment steps that each action of a plan is held, >= 1, a divisor of the block.
        std: standard deviation of the first candidates, in normalised action units, above 0; not read by
            "categorical", whose candidates are choices.
        metric: of the latent distance: "l2", "l1", "huber" or "cosine"; or "temporal", the steps that a model with
            such a head says are left; or "temporal+l2", these and `NEARNESS` times the latent distance, which is more
            exact where little of the way is left; or "temporal+slow", these and `STILLNESS` times the distance by slow
            features, by which the robot itself may end anywhere.
        over: which imagined steps count: "last", "all" or "min"; of a sum, for either term by itself.
        body: factor in the distance on the latent directions of the robot's own body, 0 to 1; below 1 the model has to
            know them.
        effort: weight of the actions' mean square in the energy, >= 0.
        proposals: plans of the model's action prior that join the first candidates, >= 0; 0 asks for none.
        precision: that a JEPA rehearses in: "float32", or "bfloat16" where the processor multiplies it natively.
    """

    optimizer: str = "cem"
    samples: int = 128
    iterations: int = 4
    horizon: int = 5
    execute: int = 1
    replan: int = 0
    hold: int = 5
    std: float = 0.7
    metric: str = "l2"
    over: str = "min"
    body: float = 1.0
    effort: float = 0.0
    proposals: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name, least in {"samples": 2, "iterations": 1, "horizon": 1, "hold": 1}.items():
            if getattr(self, name) < least:
                raise BadInput(f"planner: {name} is off", expected=f"at least {least}", got=str(getattr(self, name)))
        if self.precision not in ("float32", "bfloat16"):
            raise BadInput("planner: precision is off", expected="float32 or bfloat16", got=repr(self.precision))
        if not 0 < self.std < float("inf"):
            raise BadInput("planner: std is off", expected="above 0", got=str(self.std))
        if not 0 <= self.effort < float("inf"):
            raise BadInput("planner: effort is off", expected="0 or more", got=str(self.effort))
        if not 1 <= self.execute <= self.horizon:
            raise BadInput("planner: execute is off", expected=f"1 to horizon ({self.horizon})", got=str(self.execute))
        if self.proposals < 0:
            raise BadInput("planner: proposals is off", expected="0 or more", got=str(self.proposals))
        if self.replan < 0:
            raise BadInput("planner: replan is off", expected="0 or more", got=str(self.replan))
        if not 0 <= self.body <= 1:
            raise BadInput("planner: body is off", expected="0 to 1", got=str(self.body))
        if self.metric not in (*METRICS, *BY_STEPS):
            expected = " or ".join((*METRICS, *BY_STEPS))
            raise BadInput("planner: unknown metric", expected=expected, got=repr(self.metric))
        LatentDistance(metric=self.without_head, over=self.over)  # checks `over`
        if self.by_steps and self.body < 1:
            raise BadInput("planner: body is not read by the temporal metric", expected="1", got=str(self.body))
        self._optimizer()

    def fitting(self, block: int) -> PlannerConfig:
        """These settings for actions of `block` environment steps: held for all of them where `hold` divides none."""
        return self if block % self.hold == 0 else replace(self, hold=block)

    @property
    def by_steps(self) -> bool:
        """Whether the metric asks a model's head for the steps left."""
        return self.metric in BY_STEPS

    @property
    def without_prior(self) -> PlannerConfig:
        """These settings for a model without an action prior, where they ask for one: it has to search for itself."""
        return replace(self, proposals=0, samples=128, iterations=4) if self.proposals else self

    @property
    def without_head(self) -> str:
        """The metric that serves a model without such a head."""
        return "l2" if self.by_steps else self.metric

    def energy(self, model: WorldModel) -> Energy:
        """The energy that these settings describe; `model` may know body, steps left and slow features."""
        distance = self._by_steps(model) if self.by_steps else self._in_latents(getattr(model, "body", None))
        return distance + self.effort * ActionEffort() if self.effort else distance

    def _by_steps(self, model: WorldModel) -> Energy:
        def asked(head: str, knowing: str) -> Energy:
            if (known := getattr(model, head, None)) is None:
                expected = f"a model that knows {knowing} (model.{head} above 0 in training, or `jepa-mpc {head}`)"
                raise BadInput(f"planner: metric is {self.metric}", expected=expected, do="choose another metric")
            return LearnedDistance(known, over=self.over)

        left = asked("temporal", "how many steps lie between latents")
        if self.metric == "temporal+l2":
            return left + NEARNESS * LatentDistance("l2", over=self.over)
        if self.metric == "temporal+slow":
            return left + STILLNESS * asked("slow", "what the robot does not move by itself")
        return left

    def _in_latents(self, body: Tensor | None) -> Energy:
        if self.body < 1:
            if body is None:
                expected = "a model that knows the directions of the robot's body (model.body above 0 in training)"
                raise BadInput("planner: body is below 1", expected=expected, do="set it to 1")
            return ObjectDistance(metric=self.metric, over=self.over, body=body, keep=self.body)
        return LatentDistance(metric=self.metric, over=self.over)

    def _optimizer(self) -> AnyOptimizer:
        """The optimizer by name: `samples` and `std` go to the knobs that mean them, all else has its default."""
        elites = max(2, self.samples // 8)
        few = max(1, self.samples // 16)  # restarts cost a backward pass each
        knobs: dict[str, dict[str, Any]] = {
            "cem": {"samples": self.samples, "elites": elites, "init_std": self.std},
            "icem": {"samples": self.samples, "elites": elites, "init_std": self.std},
            "mppi": {"samples": self.samples, "std": self.std},
            "sampling": {"samples": self.samples, "std": self.std},
            "gradient": {"samples": few, "std": self.std},
            "mixture": {"samples": self.samples, "elites": max(2, self.samples // 32), "init_std": self.std},
            "categorical": {"samples": self.samples, "elites": elites},
        }
        if self.optimizer == "chain":
            first = CEM(samples=self.samples, elites=elites, init_std=self.std)
            second = Gradient(samples=few, rate=0.05, std=0.05)
            return Chain(first, second, switch=max(1, self.iterations - 1))
        return make_optimizer(self.optimizer, knobs.get(self.optimizer, {}))

    def _prior(self, model: JEPA) -> Prior:
        if model.prior is None:
            expected = "a model with an action prior (model.prior above 0 in training, or `jepa-mpc prior`)"
            raise BadInput("planner: proposals are of an action prior", expected=expected, do="set proposals to 0")
        return proposer(model.prior, self.proposals, self.horizon, model.action)

    def build(
        self,
        model: WorldModel,
        seed: int,
        energy: EnergyLike | None = None,
        *,
        deadline_ms: float | None = None,
        max_bytes: int | None = None,
        apart: bool = False,
        prior: Prior | None = None,
    ) -> MPC:
        """A planner on `model`, with these settings, with another `energy`, limits of `plan` and `apart` if given.

        Whatever is no JEPA of ours rehearses in its own precision, and where there are to be `proposals` needs a
        `prior` that makes them; else `BadInput`.
        """
        energy = energy or self.energy(model)
        if isinstance(model, JEPA):  # a simulator has nothing to pack
            prior = prior or (self._prior(model) if self.proposals else None)
            model = Packed(model, getattr(torch, self.precision))
        elif self.proposals and prior is None:
            expected = "a model with an action prior, or the argument `prior`"
            raise BadInput(f"planner: {type(model).__name__} proposes nothing", expected=expected, do="proposals 0")
        return MPC(
            model,
            energy,
            Hold(self._optimizer(), model.action.block, self.hold),
            horizon=self.horizon,
            iterations=self.iterations,
            execute=self.execute,
            replan=self.replan or None,
            seed=seed,
            prior=prior,
            deadline_ms=deadline_ms,
            max_bytes=max_bytes,
            apart=apart,
        )


@dataclass(frozen=True)
class TrainConfig:
    """How a JEPA is trained.

    Attributes:
        steps: updates, >= 1.
        batch: windows an update, >= 2.
        horizon: K, steps of open-loop prediction in the loss, >= 1.
        decay: weight of each further predicted step, above 0 to 1.
        learning_rate: AdamW's at its peak, > 0; warms up over 2 % of the steps (of an action prior, of slow
            features, of looks and of masked pretraining 5 %), then falls to zero as a cosine; a temporal head's is
            constant.
        weight_decay: AdamW's, >= 0.
        sigreg_weight: weight of the regularisation against collapse, >= 0.
        sigreg_directions: random directions it looks along, >= 1.
        sigreg_apart: whether it looks at the first frames of all windows by themselves, at the second ones, and so on
            (LeWM's way), in place of all frames together. Frames of one window are alike, so that together they seem
            less normal than they are, the more the slower latents change.
        covariance_weight: weight of the features' covariances, >= 0. With `sigreg_weight` 0 this is VICReg's way, whose
            variances are 1 here by themselves: encoders normalise each feature over the batch.
        inverse_weight: weight of the action decoded from the latents, >= 0.
        lengths: whether predictions are held to by the lengths of their errors and not by the squares of these, by
            which the few steps in which much happens count most: what stands still is then foreseen to move less. Tried
            where a predictor was polished; where latents are learned too, it weighs more beside what shapes these.
        head_weight: weight of how far off slow features and steps left are that the model's heads read from what was
            predicted, as features of these, >= 0. Read by `jepa-mpc polish` alone: only a finished model has heads.
        cold_starts: share of windows whose history is hidden, as it is when an episode starts, 0 to 1.
        growing: whether a predictor that may see fewer frames than its history, a "transformer", also learns from those
            at the start of a window, one step ahead, every number of frames counting alike (LeWM, arXiv 2603.19312).
        moving: share of windows drawn in proportion to how much of the picture changes in them, 0 to 1.
        symmetric: whether training sees every episode also as each of the task's symmetries shows it, with equal
            shares of every batch (whole windows, rounded down, one at least); of looks, of masked pretraining and of
            what `train` teaches last, a prior, slow features and a temporal distance, it is not read. By themselves
            (`jepa-mpc prior`, `slow`, `temporal`) these keep the latents of all of these in memory.
        augment: how differently the frames of a window look (`augment.vary`), 0 to 1.
        shift: whether looks differ by a shift of up to a pixel too.
        repaint: whether things change their colours each on its own in them; needs an `augment` above 0.
        backdrop: whether clouds of colour show through their floor; needs an `augment` above 0.
        masked: share of each picture that masked pretraining hides, above 0 to below 1.
        freeze: leave the encoder, pretrained or somebody else's, as it is: the predictor alone learns, on its latents.
            What shapes latents is then not read: sigreg, covariance, inverse, augment, shift, repaint and backdrop.
        held_out: share of the episodes kept for validation, above 0 to below 1.
        polish_steps: updates of the predictor alone, afterwards, on the latents of the finished encoder, >= 0. They are
            cached, so that an update costs a fraction and can look further ahead.
        polish_horizon: K of that stage, >= 1.
        polish_batch: windows an update of that stage, >= 2.
        temporal_steps: updates of the temporal head (batches of 1,024 pairs), where the model has one, >= 1.
        temporal_reach: model steps in one episode up to which the head is taught their number as it is, >= 1.
        prior_steps: updates of the action prior (batches of 512 plans), where the model has one, >= 1.
        prior_reach: most model steps between the start and the goal that it is taught, >= 1.
        prior_haste: how much more it is taught of plans that take less time than the temporal head expects of others:
            weights are exp(haste * model steps), at most 3; >= 0, and above 0 only where the model has one.
        slow_steps: updates of the slow features (batches of 2,048 pairs), where the model has them, >= 1.
        temporal_expectile: how low among the steps that play took the head's estimate lies, above 0 to 0.5, as play
            dawdles: an expectile, where steps vary by more than one nearly the quantile of that level.
        seed: of weights, batches and noise, >= 0.
        save_every: updates between checkpoints to resume from, >= 1 (an interruption by Ctrl-C saves too).
    """

    steps: int = 6000
    batch: int = 48
    horizon: int = 3
    decay: float = 0.8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    sigreg_weight: float = 0.1
    sigreg_directions: int = 256
    sigreg_apart: bool = False
    covariance_weight: float = 0.0
    inverse_weight: float = 1.0
    lengths: bool = False
    head_weight: float = 0.0
    cold_starts: float = 0.15
    growing: bool = False
    moving: float = 0.0
    symmetric: bool = False
    augment: float = 0.0
    shift: bool = True
    repaint: bool = False
    backdrop: bool = False
    masked: float = 0.5
    freeze: bool = False
    held_out: float = 0.05
    polish_steps: int = 0
    polish_horizon: int = 5
    polish_batch: int = 96
    temporal_steps: int = 8000
    temporal_reach: int = 4
    temporal_expectile: float = 0.05
    prior_steps: int = 6000
    prior_reach: int = 10
    prior_haste: float = 0.0
    slow_steps: int = 3000
    seed: int = 0
    save_every: int = 100

    def __post_init__(self) -> None:
        whole = {"steps": 1, "batch": 2, "horizon": 1, "sigreg_directions": 1, "save_every": 1}
        check_seed("training", self.seed)
        whole |= {"polish_steps": 0, "polish_horizon": 1, "polish_batch": 2, "temporal_steps": 1, "temporal_reach": 1}
        whole |= {"prior_steps": 1, "prior_reach": 1, "slow_steps": 1}
        for name, least in whole.items():
            if getattr(self, name) < least:
                raise BadInput(f"training: {name} is off", expected=f"at least {least}", got=str(getattr(self, name)))
        weights = ("weight_decay", "sigreg_weight", "covariance_weight", "inverse_weight", "head_weight")
        for name in (*weights, "prior_haste"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInput(f"training: {name} is off", expected="0 or more", got=str(getattr(self, name)))
        if not 0 < self.learning_rate < math.inf:
            raise BadInput("training: learning_rate is off", expected="more than 0", got=str(self.learning_rate))
        for name in ("cold_starts", "moving", "augment"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"training: {name} is off", expected="0 to 1", got=str(getattr(self, name)))
        for name, what in {"repaint": "things repainted are", "backdrop": "clouds on the floor are"}.items():
            if getattr(self, name) and not self.augment:
                do = f"give training.augment above 0, of which {what} a part"
                raise BadInput(f"training: {name} without looks", expected="augment above 0", got="augment 0", do=do)
        if not 0 < self.masked < 1:
            raise BadInput("training: masked is off", expected="more than 0, less than 1", got=str(self.masked))
        if not 0 < self.temporal_expectile <= 0.5:
            got = str(self.temporal_expectile)
            raise BadInput("training: temporal_expectile is off", expected="more than 0, at most 0.5", got=got)
        if not 0 < self.decay <= 1:
            raise BadInput("training: decay is off", expected="more than 0, at most 1", got=str(self.decay))
        if not 0 < self.held_out < 1:
            raise BadInput("training: held_out is off", expected="more than 0, less than 1", got=str(self.held_out))
