"""How well a score tells one kind of thing from another, and how much a probability can be believed."""

from __future__ import annotations

import math

import numpy as np


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Chance that a positive's score is above a negative's, ties counting half (Mann-Whitney)."""
    ordered = np.sort(negatives)
    below, upto = (np.searchsorted(ordered, positives, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(negatives))


def auroc_interval(area: float, positives: int, negatives: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of an AUROC that is sensible at 0 and 1 too, where resampling says that nothing is uncertain.

    Score method 5 of Newcombe (Statistics in Medicine 25, 2006, 559-573): all areas whose own standard error, by Hanley
    and McNeil with equal sides, allows the observed one.
    """
    spread = (positives + negatives) / 2 - 1

    def far(candidate: float) -> bool:
        inner = 1 + spread * ((1 - candidate) / (2 - candidate) + candidate / (1 + candidate))
        variance = candidate * (1 - candidate) * inner / (positives * negatives)
        return abs(candidate - area) > z * math.sqrt(max(variance, 0))

    ends = []
    for end in (0.0, 1.0):
        outside, inside = end, area
        for _ in range(60):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if far(middle) else (outside, middle)
        ends.append(end if area == end else inside)
    return ends[0], ends[1]


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Mean precision over the recalls that thresholds can give, equal scores taken at once; 1 is perfect.

    It depends on how many there are of each: with random scores it is the share of positives.
    """
    scores = np.concatenate([positives, negatives])
    hits = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], hits[order].cumsum()
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each group of equal scores
    recall, precision = hits[last] / len(positives), hits[last] / (last + 1)
    return float((np.diff(recall, prepend=0) * precision).sum())


def monotone(scores: np.ndarray, outcomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Isotonic regression of outcomes, falling with the score: pool adjacent violators (Ayer et al., 1955).

    Returns:
        Distinct scores, rising, and the chance at each.
    """
    levels, index = np.unique(scores, return_inverse=True)
    weights = np.bincount(index).astype(float)
    means = np.bincount(index, outcomes) / weights
    blocks: list[list[float]] = []  # mean, weight, levels
    for mean, weight in zip(means, weights, strict=True):
        blocks.append([mean, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (m, w, k), (mean_b, weight_b, k_b) = blocks[-2:]
            blocks[-2:] = [[(m * w + mean_b * weight_b) / (w + weight_b), w + weight_b, k + k_b]]
    chances = np.concatenate([np.full(int(k), mean) for mean, _, k in blocks])
    return levels, chances


def chance_at(levels: np.ndarray, chances: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """What `monotone` found, read off at other scores: straight lines between, constant outside."""
    return np.interp(scores, levels, chances)


def reliability(chances: np.ndarray, outcomes: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Predicted and observed frequency in bins of equal width that hold anything: `predicted`, `observed`, `n`."""
    place = np.minimum((chances * bins).astype(int), bins - 1)
    rows = []
    for one in np.unique(place):
        inside = place == one
        observed, predicted = float(outcomes[inside].mean()), float(chances[inside].mean())
        rows.append({"predicted": predicted, "observed": observed, "n": int(inside.sum())})
    return rows


def expected_calibration_error(chances: np.ndarray, outcomes: np.ndarray, bins: int = 10) -> float:
    """Mean distance of predicted and observed frequency over bins, weighted by how many they hold (Naeini, 2015)."""
    found = reliability(chances, outcomes, bins)
    return sum(row["n"] * abs(row["predicted"] - row["observed"]) for row in found) / len(chances)


def error_by_chance(chances: np.ndarray, draws: int = 200, bins: int = 10, seed: int = 0) -> float:
    """Mean of the same error if every predicted chance were exactly right: what a finite sample shows in any case."""
    rng = np.random.default_rng(seed)
    errors = [
        expected_calibration_error(chances, (rng.random(len(chances)) < chances).astype(float), bins)
        for _ in range(draws)
    ]
    return float(np.mean(errors))
