"""Claim 3: energy tells what is possible from what is not.

Held-out clips, the same clips made impossible, and the same clips looking otherwise, which is possible
(`impossible.py`). A clip's score is the greatest energy of its steps. How far ahead is foreseen, 1 to 3 model steps, is
chosen for every scorer on calibration clips; so are the thresholds. Nothing is chosen on the clips that are reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from planner import checkpoint, surprise
from planner.collect import CALIBRATE_STREAM
from planner.evaluate.statistics import wilson
from planner.tasks import load_envs
from planner.types import Context

from . import ensemble
from .detection import auroc, auroc_interval, average_precision
from .expectation_plots import plot
from .impossible import CLIP_STREAM, LOOKS, Film, Studio, kinds_of
from .worlds import scaled

Row = dict[str, Any]
__all__ = ["plot", "run"]

Report = Callable[[Row], None]

WEIGHTS = Path(__file__).parent / "weights"
"""Weights of the rivals, one folder each, named TASK-MODEL-AUGMENT; a task without has none."""
AHEAD = (1, 2, 3)
RATES = (0.01, 0.05)
GOALS = {"teleport": 0.98, "wall": 0.98, "mean": 0.95, "looks": 0.05}


@dataclass(frozen=True)
class Size:
    """How many clips are evaluated (every n-th with other looks too), give thresholds, and are chosen on."""

    clips: int
    plain: int
    chosen: int
    looks_every: int = 2


FULL = Size(clips=80, plain=199, chosen=16)
QUICK = Size(clips=10, plain=99, chosen=4)


class Scorer(Protocol):
    """Gives every step of a film an energy."""

    name: str
    sha256: str

    def energies(self, film: Film, ahead: tuple[int, ...] = AHEAD) -> dict[int, np.ndarray]:
        """For each look ahead the energy at every step, `[L + 1]`, NaN where nothing was foreseen."""
        ...


@dataclass
class InLatents:
    """The distance of foreseen and seen latents: a JEPA's own energy, and that of a rival's latents."""

    name: str
    model: Any
    sha256: str
    _known: dict[bytes, Tensor] = field(default_factory=dict)

    def energies(self, film: Film, ahead: tuple[int, ...] = AHEAD) -> dict[int, np.ndarray]:
        latents = self.encode(film.pixels)
        return {k: surprise.energies(self.model, latents, film.actions, k).numpy() for k in ahead}

    @torch.no_grad()
    def encode(self, pixels: np.ndarray) -> Tensor:
        """Latents `[L + 1, D]`; a picture that was in the films since `forget` is not encoded again."""
        keys = [hashlib.blake2b(picture.data, digest_size=16).digest() for picture in pixels]
        fresh = {key: i for i, key in enumerate(keys) if key not in self._known}
        if fresh:
            chosen = torch.from_numpy(pixels[list(fresh.values())])[None]
            found = self.model.encode(TensorDict({"pixels": chosen}, batch_size=chosen.shape[:2]))["latent"][0]
            self._known |= dict(zip(fresh, found, strict=True))
        return torch.stack([self._known[key] for key in keys])

    def forget(self) -> None:
        """Frees the latents of past films."""
        self._known.clear()


@dataclass
class InPictures(InLatents):
    """The distance of drawn and seen pictures: the reconstruction error of a rival's prediction.

    A rival that was taught to draw pictures without their looks is `told`: what is seen is compared as it draws it, as
    a look that it leaves out would count as an error of its prediction.
    """

    told: bool = False

    def energies(self, film: Film, ahead: tuple[int, ...] = AHEAD) -> dict[int, np.ndarray]:
        latents = self.encode(film.pixels)
        seen = self.model.decode(latents) if self.told else scaled(torch.from_numpy(film.pixels))
        drawn = _Seen(self.model, lambda futures: self.model.decode(futures["latent"][:, :, -1:]))
        return {k: surprise.energies(drawn, latents, film.actions, k, seen=seen).numpy() for k in ahead}


@dataclass
class InDoubt(InLatents):
    """How much an ensemble of predictors disagrees about what comes; it does not look at what then came."""

    def energies(self, film: Film, ahead: tuple[int, ...] = AHEAD) -> dict[int, np.ndarray]:
        latents = self.encode(film.pixels)
        # How far each member is from their mean: the mean square of that is a variance.
        apart = _Seen(self.model, lambda futures: futures["members"] - futures["latent"].unsqueeze(3))
        agreed = latents.new_zeros(len(latents), len(self.model.members), latents.shape[-1])
        return {k: surprise.energies(apart, latents, film.actions, k, seen=agreed).numpy() for k in ahead}


@dataclass
class _Seen:
    """A model whose rollouts end in what `view` makes of its futures, `[E, S, T, ...]`, in place of latents."""

    model: Any
    view: Callable[[TensorDict], Tensor]

    def __post_init__(self) -> None:
        self.action, self.history = self.model.action, self.model.history

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        viewed = self.view(self.model.rollout(context, actions))
        return TensorDict({"latent": viewed}, batch_size=viewed.shape[:3])


def scorers(task: str, rivals: bool) -> Iterator[InLatents]:
    """Ours as shipped, then, if rivals are asked for, everybody whose weights lie in `WEIGHTS`.

    But for those that were taught clouds, which are there for claim 1: the time of a run is bounded.
    """
    loaded = checkpoint.load(checkpoint.find(task, None), task=task)
    yield InLatents("jepa", loaded.model, loaded.sha256)
    for folder in sorted(WEIGHTS.glob(f"{task.lower()}-*")) if rivals else ():
        name = folder.name.removeprefix(f"{task.lower()}-")
        if name.endswith("-clouds"):
            continue
        if name == "ensemble":
            doubting, sha256 = ensemble.load(folder, loaded)
            yield InDoubt("jepa, ensemble's disagreement", doubting, sha256)
        elif name.startswith("jepa"):
            other = checkpoint.load(folder, task=task)
            yield InLatents(name, other.model, other.sha256)
        else:
            from .weights import draws_plain, load

            other = load(folder)
            yield InLatents(f"{name}, latents", other.model, other.sha256)
            yield InPictures(f"{name}, pixels", other.model, other.sha256)
            if draws_plain(folder):
                yield InPictures(f"{name}, drawings", other.model, other.sha256, told=True)


# Measuring ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """A film's kind and event, its number, and its energies for each look ahead."""

    kind: str
    event: int
    k: int
    energy: dict[int, np.ndarray]

    def peak(self, ahead: int) -> float:
        """The score of the whole clip."""
        return float(np.nanmax(self.energy[ahead]))

    def delay(self, ahead: int, threshold: float) -> int | None:
        """Steps from the event to the first alarm at or after it; None where there is none."""
        alarms = np.flatnonzero(self.energy[ahead][self.event :] > threshold)
        return int(alarms[0]) if len(alarms) else None


def films(studio: Studio, clips: range, looks_every: int, impossible: bool = True) -> Iterator[tuple[int, list[Film]]]:
    """For each clip all that is made of it. A kind that would not show on clip k is left out there."""
    for k in clips:
        plain = studio.plain(k)
        made = [plain]
        for kind in kinds_of(studio.task) if impossible else ():
            edited = studio.through_wall(k) if kind == "wall" else (studio.impossible(plain, kind, k),)
            made += [film for film in edited if film is not None]
        if looks_every and k % looks_every == 0:
            made += [film for name in LOOKS for film in studio.looking(plain, name)]
        yield k, made


def score(
    ahead: dict[str, tuple[int, ...]],
    judges: list[InLatents],
    studio: Studio,
    clips: range,
    looks_every: int,
    impossible: bool = True,
) -> dict[str, list[Scored]]:
    """Every film of some clips, scored by everybody as far ahead as `ahead` says."""
    found: dict[str, list[Scored]] = {judge.name: [] for judge in judges}
    for k, made in films(studio, clips, looks_every, impossible):
        for judge in judges:
            energies = [judge.energies(film, ahead[judge.name]) for film in made]
            found[judge.name] += [
                Scored(film.kind, film.event, k, energy) for film, energy in zip(made, energies, strict=True)
            ]
            judge.forget()
    return found


@dataclass(frozen=True)
class Judged:
    """What calibration clips say of a scorer: how far ahead it looks, and its thresholds by rate of false alarms."""

    ahead: int
    thresholds: dict[float, float]
    plain: int
    tried: dict[int, float]


def look_ahead(chosen: list[Scored], kinds: tuple[str, ...]) -> dict[int, float]:
    """Mean AUROC over the physical kinds on calibration clips, other looks among the negatives, by look ahead."""
    return {ahead: float(np.mean([area(chosen, kind, ahead, looks=True) for kind in kinds])) for ahead in AHEAD}


def settled(tried: dict[int, float]) -> int:
    """The best of the looks ahead; of equal ones the shortest."""
    return max(tried, key=lambda ahead: (tried[ahead], -ahead))


def settle(tried: dict[int, float], plain: list[Scored]) -> Judged:
    """The best look ahead of those tried, and clip-wise conformal thresholds for it."""
    best = settled(tried)
    scores = [one.peak(best) for one in plain]
    return Judged(best, {rate: surprise.conformal(scores, rate) for rate in RATES}, len(scores), tried)


def peaks(found: list[Scored], ahead: int, *kinds: str) -> np.ndarray:
    """Clip scores of some kinds."""
    return np.array([one.peak(ahead) for one in found if one.kind in kinds])


def negatives(found: list[Scored], kind: str, ahead: int, looks: bool) -> np.ndarray:
    """Clip scores of what is possible: play, or for "wall" runs into walls; with `looks` the other appearances too."""
    others = [f"{name} {when}" for name in LOOKS for when in ("always", "switched")] if looks else []
    return peaks(found, ahead, "blocked" if kind == "wall" else "plain", *others)


def area(found: list[Scored], kind: str, ahead: int, looks: bool) -> float:
    """AUROC of a physical kind."""
    return auroc(peaks(found, ahead, kind), negatives(found, kind, ahead, looks))


def rate_of(flagged: np.ndarray) -> Row:
    """Rate of alarms with its 95 % interval."""
    return {
        "flagged": int(flagged.sum()),
        "of": len(flagged),
        "interval": list(wilson(int(flagged.sum()), len(flagged))),
    }


def physical_row(found: list[Scored], kind: str, judged: Judged) -> Row:
    """All that is reported of one way to be impossible."""
    ahead, mine = judged.ahead, [one for one in found if one.kind == kind]
    positive, plain = peaks(found, ahead, kind), negatives(found, kind, ahead, looks=False)
    mixed, value = negatives(found, kind, ahead, looks=True), area(found, kind, ahead, looks=False)
    row: Row = {"group": "physical", "n": len(positive), "negatives": len(plain), "auroc": value}
    row |= {"interval": list(auroc_interval(value, len(positive), len(plain)))}
    row |= {"ap": average_precision(positive, plain), "auroc_with_looks": auroc(positive, mixed)}
    row |= {"ap_with_looks": average_precision(positive, mixed), "negatives_with_looks": len(mixed)}
    for rate, threshold in judged.thresholds.items():
        delays = [one.delay(ahead, threshold) for one in mine]
        noticed = np.array([delay for delay in delays if delay is not None])
        detected = rate_of(np.array([delay is not None for delay in delays]))
        quantiles = [float(value) for value in np.quantile(noticed, (0.5, 0.9))] if len(noticed) else None
        row[f"at_{rate:g}"] = detected | {"delay_median_p90": quantiles}
    return row


def possible_row(found: list[Scored], kind: str, judged: Judged) -> Row:
    """How often something possible is flagged."""
    scores = peaks(found, judged.ahead, kind)
    rows = {f"at_{rate:g}": rate_of(scores > threshold) for rate, threshold in judged.thresholds.items()}
    return {"group": "possible", "n": len(scores)} | rows


def looks_row(found: list[Scored], judged: Judged) -> Row:
    """How often a changed appearance of any kind is flagged."""
    scores = np.array([one.peak(judged.ahead) for one in found if " " in one.kind])
    rows = {f"at_{rate:g}": rate_of(scores > threshold) for rate, threshold in judged.thresholds.items()}
    return {"group": "possible", "n": len(scores)} | rows


def measure(task: str, size: Size, report: Report, rivals: bool) -> None:
    """All rows of one task, of rivals too if asked for."""
    envs, kinds, judges = load_envs(), kinds_of(task), list(scorers(task, rivals))
    pixels = judges[0].model.config.image_size
    rehearsal = Studio(envs, task, pixels, CALIBRATE_STREAM, seed=1)
    chosen = score({judge.name: AHEAD for judge in judges}, judges, rehearsal, range(size.chosen), looks_every=1)
    tried = {name: look_ahead(found, kinds) for name, found in chosen.items()}
    ahead = {name: (settled(one),) for name, one in tried.items()}
    rest = range(size.chosen, size.chosen + size.plain)
    plain = score(ahead, judges, rehearsal, rest, 0, impossible=False)
    rehearsal.close()
    studio = Studio(envs, task, pixels, CLIP_STREAM)
    found = score(ahead, judges, studio, range(size.clips), size.looks_every)
    studio.close()
    for judge in judges:
        judged = settle(tried[judge.name], plain[judge.name])
        facts = {"part": "energy", "task": task, "scorer": judge.name, "checkpoint_sha256": judge.sha256}
        facts |= {"ahead": judged.ahead, "thresholds": {f"{r:g}": t for r, t in judged.thresholds.items()}}
        facts |= {"calibration_clips": judged.plain, "ahead_tried": {str(a): v for a, v in judged.tried.items()}}
        rows = {kind: physical_row(found[judge.name], kind, judged) for kind in kinds}
        seen = dict.fromkeys(one.kind for one in found[judge.name] if one.kind not in kinds)
        rows |= {kind: possible_row(found[judge.name], kind, judged) for kind in seen}
        rows["looks"] = looks_row(found[judge.name], judged)
        rows["mean"] = mean_row([rows[kind] for kind in kinds])
        for kind, row in rows.items():
            report(facts | {"kind": kind} | row)
        report(facts | {"kind": "goals", "group": "goals", "goals": goals(rows)})
        report(facts | {"kind": "traces", "group": "traces", "traces": traces(found[judge.name], kinds, judged.ahead)})


def mean_row(rows: list[Row]) -> Row:
    """The mean over the physical kinds."""
    names = ("auroc", "auroc_with_looks", "ap", "ap_with_looks")
    return {"group": "mean", "n": sum(row["n"] for row in rows)} | {
        name: float(np.mean([row[name] for row in rows])) for name in names
    }


def goals(rows: dict[str, Row]) -> dict[str, Row]:
    """Each goal, what was found, and whether it was met."""
    found = {name: rows[name]["auroc"] for name in ("teleport", "wall", "mean") if name in rows}
    judged = {name: {"goal": GOALS[name], "found": value, "met": value >= GOALS[name]} for name, value in found.items()}
    flagged = rows["looks"]["at_0.01"]
    share = flagged["flagged"] / flagged["of"]
    return judged | {"looks": {"goal": GOALS["looks"], "found": share, "met": share <= GOALS["looks"]}}


def traces(found: list[Scored], kinds: tuple[str, ...], ahead: int) -> dict[str, Row]:
    """Energy over time of the first clip of each kind, to look at."""
    shown = {}
    for kind in ("plain", *kinds, "lighting switched", "distractor switched"):
        one = next(one for one in found if one.kind == kind)
        energy = [None if np.isnan(value) else round(float(value), 5) for value in one.energy[ahead]]
        shown[kind] = {"event": one.event, "energy": energy}
    return shown


def run(task: str, quick: bool, report: Report, rivals: bool) -> None:
    """Measures a task, and hands over rows as they are found.

    Args:
        task: one of `SCENES`.
        quick: few clips, for a look; intervals are then wide.
        report: takes a row; where it has `has(row)` too, as a file of rows does, a task that is there is left out.
        rivals: whether rivals are judged beside what ships.
    """
    known = getattr(report, "has", lambda row: False)
    judges = [(judge.name, judge.sha256) for judge in scorers(task, rivals)]
    size = QUICK if quick else FULL
    wanted = {"part": "energy", "kind": "traces", "task": task, "calibration_clips": size.plain}
    if not all(known(wanted | {"scorer": name, "checkpoint_sha256": sha256}) for name, sha256 in judges):
        measure(task, size, report, rivals)
