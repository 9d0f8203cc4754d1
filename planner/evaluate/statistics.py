"""How sure a success rate is, and how long a plan takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate.

    Args:
        successes: episodes that succeeded, in 0..n.
        n: episodes that were run, >= 0.
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper end, both in [0, 1]; (0, 1) when nothing was run, since then nothing is known.

    Raises:
        ValueError: when `successes` is outside 0..n or `confidence` outside (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"wilson: expected 0 <= successes <= n, got {successes} of {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"wilson: expected a confidence between 0 and 1, got {confidence}")
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # here: half a second that planning need not pay

    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def summary(successes: int, n: int) -> dict[str, Any]:
    """What is reported of one policy on one task.

    Args:
        successes: episodes that succeeded, in 0..n.
        n: episodes that were run, >= 0.

    Returns:
        `n`, `successes`, `success_rate` in [0, 1] (0 when nothing was run) and `interval`, the 95 % Wilson interval.
    """
    rate = successes / n if n else 0.0
    return {"n": n, "successes": successes, "success_rate": rate, "interval": list(wilson(successes, n))}


def paired(first: Sequence[bool], second: Sequence[bool]) -> dict[str, Any]:
    """Two planners on the same pairs: McNemar's exact test, which looks only at pairs where they differ.

    Args:
        first: outcomes of one planner, pair by pair.
        second: outcomes of the other, on the same pairs in the same order.

    Returns:
        `n`; `only_first` and `only_second`, pairs that one alone reached; `p`, two-sided, of a difference at least as
        large if both were equally good (McNemar, Psychometrika 12, 1947, by the binomial distribution); and
        `smallest_shown`, the least difference of the two rates that would have p < 0.05 with as many differing pairs,
        NaN where these are too few to show any.

    Raises:
        ValueError: when there are not as many outcomes of each.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise ValueError(f"paired: expected as many outcomes of each planner, got {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differing = only_first + only_second
    majorities = range(differing // 2 + 1, differing + 1)
    shown = (2 * k - differing for k in majorities if binomtest(k, differing).pvalue < 0.05)
    return {
        "n": len(first),
        "only_first": only_first,
        "only_second": only_second,
        "p": float(binomtest(only_first, differing).pvalue) if differing else 1.0,
        "smallest_shown": next(shown, float("nan")) / len(first) if len(first) else float("nan"),
    }


def hard_score(rate: float, floor: float) -> float:
    """How much of what was left to reach above a floor was reached: (rate - floor) / (1 - floor).

    Args:
        rate: of success, in [0, 1].
        floor: what the better of random actions and doing nothing reaches, in [0, 1].

    Returns:
        1 where all was reached, 0 at the floor, below 0 beneath it; NaN where the floor is 1 and nothing was left.
    """
    return (rate - floor) / (1 - floor) if floor < 1 else float("nan")


def smallest_difference(n: int) -> float:
    """The least difference of two success rates on the same n pairs that McNemar's exact test can show at p < 0.05.

    That is where one of the two reaches every pair that the other does, and some more; where each reaches pairs that
    the other does not, it takes a larger difference (`paired` says which).

    Args:
        n: pairs, >= 0.

    Returns:
        6 / n, as 2 * 0.5 ** 6 is the first below 0.05; NaN for fewer than 6 pairs, which show nothing.
    """
    return 6 / n if n >= 6 else float("nan")


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Quantiles of durations.

    Args:
        seconds: durations in seconds.

    Returns:
        `median`, `p95` and `p99` in milliseconds; NaN when there is no duration.
    """
    if not len(seconds):
        return {"median": float("nan"), "p95": float("nan"), "p99": float("nan")}
    median, p95, p99 = np.quantile(np.asarray(seconds, dtype=np.float64) * 1e3, [0.5, 0.95, 0.99])
    return {"median": float(median), "p95": float(p95), "p99": float(p99)}
