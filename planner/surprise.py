"""How surprised a world model is: prediction energy against conformal thresholds, as `normal`, `unusual`, `impossible`.

The energy at step t is the mean square of what is seen at t minus what was foreseen for t some model steps before. The
thresholds are conformal (Vovk et al., 2005): of n held-out episodes the greatest energy of each is taken, and of these
the k-th smallest, k = ceil((n + 1)(1 - alpha)). A further episode that is exchangeable with them, of the same length or
shorter, then passes the threshold anywhere at all with a chance of at most alpha. Whole episodes are counted because
the steps of one are not exchangeable with each other. Nothing is promised for other episodes, such as those of another
policy or longer ones, and nothing about how much of what is impossible is noticed; that is measured
(`benchmarks/claims`), looking as far ahead as calibration clips say, 1 to 3 model steps; a monitor looks `STEPS`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from . import checkpoint as checkpoints
from .checkpoint import Checkpoint
from .collect import CALIBRATE_STREAM, record_episode
from .data import EpisodeStore, split_rows
from .errors import BadInput
from .types import Context, WorldModel

FORMAT = 1
FILE = "surprise.json"
"""Lies beside a checkpoint's `config.json`; checkpoints without it load as ever."""
STATES = ("normal", "unusual", "impossible")
STEPS = 2
"""Model steps that a monitor looks ahead where nothing else is said."""
UNUSUAL, IMPOSSIBLE = 0.05, 0.01
"""Shares of ordinary episodes that may be called so at least once."""


@dataclass(frozen=True)
class Thresholds:
    """What a monitor has to know; kept beside the weights that it was fitted for.

    Attributes:
        sha256: hash of these weights.
        task: that its episodes were of.
        renderer: rendering backend of their pictures.
        policy: what acted in them.
        seed: of the episodes.
        episodes: n, how many.
        length: environment steps of each; the promise holds for episodes up to this length.
        steps: model steps that predictions look ahead, >= 1.
        unusual: energy above which a step is at least unusual, >= 0.
        impossible: energy above which it is impossible, >= `unusual`.
        unusual_rate: alpha of `unusual`, above 0 and below 1.
        impossible_rate: alpha of `impossible`, above 0 and at most `unusual_rate`.
        format: version of this layout.
    """

    sha256: str
    task: str
    renderer: str
    policy: str
    seed: int
    episodes: int
    length: int
    steps: int
    unusual: float
    impossible: float
    unusual_rate: float = UNUSUAL
    impossible_rate: float = IMPOSSIBLE
    format: int = FORMAT

    def __post_init__(self) -> None:
        for name, kind in (("sha256", str), ("task", str), ("renderer", str), ("policy", str)):
            _check(name, isinstance(getattr(self, name), kind), "text", getattr(self, name))
        for name, least in (("seed", 0), ("episodes", 1), ("length", 1), ("steps", 1)):
            value = getattr(self, name)
            _check(name, type(value) is int and value >= least, f"a whole number from {least}", value)
        for name in ("unusual", "impossible", "unusual_rate", "impossible_rate"):
            value = getattr(self, name)
            _check(name, isinstance(value, float) and math.isfinite(value), "a finite number", value)
        got = f"{self.unusual} and {self.impossible}"
        _check("unusual or impossible", 0 <= self.unusual <= self.impossible, "0 <= unusual <= impossible", got)
        got = f"{self.unusual_rate} and {self.impossible_rate}"
        sound = 0 < self.impossible_rate <= self.unusual_rate < 1
        _check("a rate", sound, "0 < impossible_rate <= unusual_rate < 1", got)
        _check("format", self.format == FORMAT, str(FORMAT), self.format)

    def judge(self, energy: np.ndarray) -> np.ndarray:
        """Energies to indices in `STATES`, the same shape; NaN, where nothing was foreseen, is normal."""
        return (energy > self.unusual).astype(np.int64) + (energy > self.impossible)


def _check(name: str, sound: bool, expected: str, got: object) -> None:
    if not sound:
        raise BadInput(f"surprise: {name} is off", expected=expected, got=repr(got))


# Energy ------------------------------------------------------------------------------------------------------------


def first_step(model: WorldModel, steps: int) -> int:
    """The first environment step of an episode that a prediction from real frames can be compared with."""
    return (model.history - 1 + steps) * model.action.block


@torch.no_grad()
def energies(
    model: WorldModel, latents: Tensor, actions: np.ndarray, steps: int = 1, seen: Tensor | None = None
) -> Tensor:
    """Prediction energy at every environment step of one episode.

    Args:
        model: what foresees.
        latents: of every frame, `[L + 1, ...]`, encoded by `model`.
        actions: what was done between them, `[L, env_dim]`, physical units.
        steps: model steps ahead.
        seen: what is compared with the `latent` that the model foresees, `[L + 1, ...]`; the latents by default.

    Returns:
        `[L + 1]`, mean squares; NaN before `first_step`.
    """
    block, history = model.action.block, model.history
    if len(actions) != len(latents) - 1 or actions.shape[1:] != (model.action.env_dim,):
        expected = f"[{len(latents) - 1}, {model.action.env_dim}], one less than frames"
        raise BadInput("surprise: actions do not fit the frames", expected=expected, got=str(list(actions.shape)))
    energy = latents.new_full((len(latents),), torch.nan)
    first = first_step(model, steps)
    if first >= len(latents):
        return energy
    targets = torch.arange(first, len(latents), device=latents.device)
    frames = targets[:, None] - block * torch.arange(history - 1 + steps, steps - 1, -1, device=latents.device)
    every = torch.arange(-first, 0, device=latents.device)  # environment steps before the target
    physical = torch.as_tensor(actions, dtype=torch.float32, device=latents.device)[targets[:, None] + every]
    blocks = model.action.encode(physical.unflatten(1, (-1, block))).to(latents.dtype)  # [n, H - 1 + steps, A]
    past = TensorDict({"latent": latents[frames]}, batch_size=frames.shape)
    futures = model.rollout(Context(past, blocks[:, : history - 1]), blocks[:, None, history - 1 :])
    actual = (latents if seen is None else seen)[targets]
    energy[targets] = (futures["latent"][:, 0, -1] - actual).flatten(1).square().mean(1)
    return energy


@torch.no_grad()
def film_energies(model: WorldModel, pixels: np.ndarray, actions: np.ndarray, steps: int = 1) -> np.ndarray:
    """As `energies`, from pictures uint8 `[L + 1, size, size, 3]`; float64."""
    parts = torch.from_numpy(np.ascontiguousarray(pixels)).split(64)  # the activations of few pictures fit the cache
    latents = [
        model.encode(TensorDict({"pixels": part[None]}, batch_size=[1, len(part)]))["latent"][0] for part in parts
    ]
    return energies(model, torch.cat(latents), actions, steps).double().cpu().numpy()


def check_length(model: WorldModel, steps: int, length: int, what: str) -> None:
    """Raises `BadInput` where no step of an episode of `length` environment steps can be judged."""
    if (least := first_step(model, steps)) > length:
        raise BadInput(f"surprise: {what} too short", expected=f"at least {least} steps", got=str(length))


# Thresholds --------------------------------------------------------------------------------------------------------


def conformal(scores: Sequence[float] | np.ndarray, alpha: float) -> float:
    """The threshold that a further score, exchangeable with these, exceeds with a chance of at most `alpha`.

    The k-th smallest of n scores, k = ceil((n + 1)(1 - alpha)).

    Raises:
        BadInput: a score is not finite, alpha is outside (0, 1), or there are too few scores for any threshold (k > n).
    """
    values = np.sort(np.asarray(scores, np.float64))
    _check("alpha", 0 < alpha < 1, "above 0 and below 1", alpha)
    _check("a score", bool(np.isfinite(values).all()), "finite numbers", "NaN or inf")
    # A hair less, because 1 - 0.9 is not 0.1 and the rank must not jump for that.
    rank = math.ceil((len(values) + 1) * (1 - alpha) - 1e-9)
    if rank > len(values):
        least = math.ceil(1 / alpha - 1 - 1e-9)
        raise BadInput(
            "surprise: too few episodes", expected=f"at least {least} for a rate of {alpha}", got=str(len(values))
        )
    return float(values[rank - 1])


def fit(
    checkpoint: Checkpoint,
    env: Any,
    *,
    episodes: int = 400,
    length: int = 100,
    seed: int = 0,
    steps: int = STEPS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Thresholds:
    """Plays held-out episodes and takes the thresholds from their greatest energies.

    Args:
        checkpoint: whose model is to be surprised.
        env: its task, with pictures of its size.
        episodes: n; a rate alpha needs at least 1 / alpha - 1.
        length: environment steps of each.
        seed: episode k is made from (`CALIBRATE_STREAM`, seed, k), which no training or evaluation uses.
        steps: model steps ahead.
        progress: called with episodes done and in all.

    Raises:
        BadInput: if the checkpoint does not fit the task's actions, or episodes are too few, or too short to be judged.
    """
    model, scores = checkpoint.model, []
    check_length(model, steps, length, "episodes are")
    conformal(np.zeros(episodes), IMPOSSIBLE)  # too few would be told after minutes of play
    checkpoints.check_fits(env, checkpoint)
    progress(0, episodes)
    for k in range(episodes):
        rng = np.random.default_rng([CALIBRATE_STREAM, seed, k])
        pixels, actions, _ = record_episode(env, length, rng)
        scores.append(np.nanmax(film_energies(model, pixels, actions, steps)))
        progress(k + 1, episodes)
    return _fitted(checkpoint, scores, env.camera.backend, "play", seed, length, steps)


def fit_rows(
    checkpoint: Checkpoint,
    store: EpisodeStore,
    held_out: float,
    *,
    steps: int = STEPS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Thresholds:
    """As `fit`, of the rows that training held out of a dataset, for want of a simulator to play in.

    Rows that were cut from one recording are alike, so that the rates of alarms are not quite promised.

    Args:
        checkpoint: whose model is to be surprised.
        store: the dataset, verified.
        held_out: share of its last rows, above 0 and below 1; a rate alpha needs at least 1 / alpha - 1 of them.
        steps: model steps ahead.
        progress: called with rows done and in all.

    Raises:
        BadInput: if the dataset does not fit the model, or rows are too few, or too short to be judged.
    """
    store.check_fits(checkpoint.model.config.image_size, checkpoint.model.action)
    check_length(checkpoint.model, steps, store.info.steps, "episodes are")
    rows = split_rows(store.info, held_out)[1].tolist()
    if len(rows) < (least := math.ceil(1 / IMPOSSIBLE - 1 - 1e-9)):
        do = "train with a greater --training.held-out, and give --held-out as much here"
        raise BadInput("surprise: too few rows are held out", expected=f"at least {least}", got=str(len(rows)), do=do)
    scores = []
    progress(0, len(rows))
    for row in rows:
        pixels, actions = (store.data[key][row].numpy() for key in ("pixels", "actions"))
        scores.append(np.nanmax(film_energies(checkpoint.model, pixels, actions, steps)))
        progress(len(scores), len(rows))
    info = store.info
    return _fitted(checkpoint, scores, info.renderer, info.policy, info.seed, info.steps, steps)


def _fitted(
    checkpoint: Checkpoint, scores: list[float], renderer: str, policy: str, seed: int, length: int, steps: int
) -> Thresholds:
    return Thresholds(
        sha256=checkpoint.sha256,
        task=checkpoint.task,
        renderer=renderer,
        policy=policy,
        seed=seed,
        episodes=len(scores),
        length=length,
        steps=steps,
        unusual=conformal(scores, UNUSUAL),
        impossible=conformal(scores, IMPOSSIBLE),
    )


def save(path: Path, thresholds: Thresholds) -> None:
    """Writes `surprise.json` into a checkpoint folder, which has to hold the weights that it was fitted for."""
    _check_weights(path, thresholds, checkpoints.load(path).sha256)
    checkpoints.attach(path, FILE, json.dumps(asdict(thresholds), indent=1) + "\n")


def load(path: Path, sha256: str) -> Thresholds:
    """The thresholds beside a checkpoint.

    Args:
        path: the checkpoint's folder.
        sha256: hash of its weights, `Checkpoint.sha256`.

    Raises:
        BadInput: if there are none, they are damaged, or they were fitted for other weights.
    """
    file = path / FILE
    if not file.is_file():
        do = "fit one with `jepa-mpc surprise TASK --fit --checkpoint FOLDER`"
        raise BadInput(f"checkpoint {path} has no monitor of surprise", expected=str(file), do=do)
    try:
        raw = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is damaged", got=str(error)) from error
    known = {field.name for field in fields(Thresholds)}
    if not isinstance(raw, dict) or set(raw) != known:
        got = str(sorted(raw)) if isinstance(raw, dict) else type(raw).__name__
        raise BadInput(f"{file} is damaged", expected=f"the keys {sorted(known)}", got=got)
    try:
        thresholds = Thresholds(**raw)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    _check_weights(path, thresholds, sha256)
    return thresholds


def _check_weights(path: Path, thresholds: Thresholds, sha256: str) -> None:
    if thresholds.sha256 != sha256:
        raise BadInput(
            f"checkpoint {path}: its monitor of surprise was fitted for other weights",
            expected=f"SHA-256 {sha256}",
            got=thresholds.sha256,
            do="fit it again with `jepa-mpc surprise TASK --fit --checkpoint FOLDER`",
        )


# While a robot moves -----------------------------------------------------------------------------------------------


class Monitor:
    """Judges every environment step of E running episodes; one frame an environment is encoded a step.

    Args:
        model: the world model that `thresholds` were fitted for.
        thresholds: when to call a step what.

    Attributes:
        energy: of the last `observe`, `[E]`, NaN where nothing was judged.
    """

    def __init__(self, model: WorldModel, thresholds: Thresholds) -> None:
        self.model, self.thresholds = model, thresholds
        self.energy = np.zeros(0)
        self._span = first_step(model, thresholds.steps)
        self._age = np.zeros(0, np.int64)  # [E], frames seen since each episode began, this one included

    def reset(self, size: int, mask: np.ndarray | None = None) -> None:
        """New episodes in the rows of `mask`, bool `[size]`; in all when None or at the first call."""
        if mask is None or len(self._age) != size:
            self._age, self.energy = np.zeros(size, np.int64), np.full(size, np.nan)
            self._latents: Tensor | None = None  # [E, span + 1, D], oldest first
            self._looked = False  # since `applied` was told of a step
            self._done = np.zeros((size, self._span, self.model.action.env_dim), np.float32)
            return
        self._age[mask] = 0

    @torch.no_grad()
    def observe(self, obs: TensorDict, seen: np.ndarray | None = None) -> np.ndarray:
        """What is seen now, batch `[E]`, to indices in `STATES`, `[E]`; what is not judged is normal.

        Not judged, with an energy of NaN, are the first steps of an episode and those after a gap in what was seen.

        Args:
            obs: observations.
            seen: bool `[E]`, of which environments they show what is there now; None: of all. A picture that came late
                shows the past, which would look impossible: such a row is not judged, nor is anything foreseen from
                what was seen there until then.
        """
        self.energy = np.full(len(self._age), np.nan)
        if len(self._age) != obs.batch_size[0]:
            expected, got = f"{len(self._age)} environments", str(obs.batch_size[0])
            raise BadInput("surprise: batch is off", expected=expected, got=got, do="call reset first")
        fresh = self.model.encode(obs.unsqueeze(1))["latent"]  # [E, 1, D]
        if self._latents is None:
            self._latents = fresh.expand(-1, self._span + 1, *fresh.shape[2:]).clone()
        self._latents = torch.cat([self._latents[:, 1:], fresh], 1)
        self._age += 1
        if seen is not None:
            self._age[~seen] = 0
        self._looked = True
        found = [self._energy(row) if age > self._span else np.nan for row, age in enumerate(self._age)]
        self.energy = np.array(found)
        return self.thresholds.judge(self.energy)

    def applied(self, actions: np.ndarray) -> None:
        """What was then done, `[E, env_dim]`, physical units; to be told after every `observe`.

        Where that raised, or there was nothing to observe, frames and actions are no longer a step apart, and nothing
        is judged until they are again.
        """
        if not self._looked:
            self._age[:] = 0
        self._looked = False
        self._done = np.concatenate([self._done[:, 1:], actions[:, None]], 1)

    def _energy(self, row: int) -> float:
        assert self._latents is not None
        return float(energies(self.model, self._latents[row], self._done[row], self.thresholds.steps)[-1])
