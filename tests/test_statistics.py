"""Success intervals and latencies, against answers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from planner.evaluate.statistics import hard_score, latency, paired, smallest_difference, summary, wilson

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 30), (7, 30), (50, 100), (95, 100), (100, 100)])
def test_wilson_is_the_closed_form(successes: int, n: int) -> None:
    rate = successes / n
    centre = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    assert wilson(successes, n) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_wilson_holds_the_rate_and_mirrors() -> None:
    for successes in range(21):
        low, high = wilson(successes, 20)
        assert 0 <= low <= successes / 20 <= high <= 1
        assert wilson(20 - successes, 20) == pytest.approx((1 - high, 1 - low))


def test_wilson_widens_with_confidence_and_knows_nothing_of_nothing() -> None:
    low, high = wilson(7, 10, confidence=0.99)
    assert low < wilson(7, 10)[0] and high > wilson(7, 10)[1]
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("successes", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (0, -1, 0.95), (1, 2, 1.0), (1, 2, 95)]
)
def test_wilson_refuses_nonsense(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="wilson: expected"):
        wilson(successes, n, confidence)


def test_summary() -> None:
    assert summary(0, 0) == {"n": 0, "successes": 0, "success_rate": 0.0, "interval": [0.0, 1.0]}
    some = summary(3, 4)
    assert (some["n"], some["successes"], some["success_rate"]) == (4, 3, 0.75)
    assert some["interval"] == list(wilson(3, 4))


def outcomes(both: int, only_first: int, only_second: int, none: int) -> tuple[list[bool], list[bool]]:
    counts = {(True, True): both, (True, False): only_first, (False, True): only_second, (False, False): none}
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (6, 0), (3, 9), (9, 3), (10, 10)])
def test_mcnemar_is_the_closed_form(only_first: int, only_second: int) -> None:
    """The two-sided binomial test at one half, summed by hand; pairs with equal outcomes say nothing."""
    m, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(m, k) for k in range(least + 1)) / 2**m
    for both, none in ((0, 5), (80, 2)):
        found = paired(*outcomes(both, only_first, only_second, none))
        assert found["p"] == pytest.approx(min(1.0, 2 * tail))
        assert (found["only_first"], found["only_second"]) == (only_first, only_second)
        assert found["n"] == m + both + none


def test_the_smallest_difference_that_would_show() -> None:
    """Of 5 differing pairs not even 5 to 0 has p < 0.05; of 6, 6 to 0 has; of 12, 10 to 2 has and 9 to 3 has not."""
    assert math.isnan(paired(*outcomes(95, 3, 2, 0))["smallest_shown"])
    assert paired(*outcomes(94, 3, 3, 0))["smallest_shown"] == pytest.approx(0.06)
    assert paired(*outcomes(88, 6, 6, 0))["smallest_shown"] == pytest.approx(0.08)
    assert math.isnan(paired([], [])["smallest_shown"])
    with pytest.raises(ValueError, match="got 1 and 0"):
        paired([True], [])


@pytest.mark.parametrize("n", [0, 5, 6, 7, 100, 200])
def test_no_smaller_difference_shows_on_so_many_pairs(n: int) -> None:
    """Held against the test itself, over every way in which one planner may be better by that much or by less."""
    least = smallest_difference(n)
    wins = 0 if math.isnan(least) else round(least * n)
    if wins:
        assert paired([True] * n, [False] * wins + [True] * (n - wins))["p"] < 0.05
    for fewer in range(1, wins or n + 1):
        for lost in range(0, n - fewer + 1, max(1, n // 10)):
            only = fewer + lost  # wins of the better, against losses
            if only + lost <= n:
                assert paired([True] * only + [False] * lost, [False] * only + [True] * lost)["p"] >= 0.05


def test_a_hard_score_is_the_share_of_what_was_left() -> None:
    assert hard_score(0.55, 0.0) == pytest.approx(0.55) and hard_score(0.5, 0.5) == 0
    assert hard_score(0.76, 0.2) == pytest.approx(0.7) and hard_score(1.0, 0.9) == pytest.approx(1)
    assert hard_score(0.1, 0.2) == pytest.approx(-0.125) and math.isnan(hard_score(1.0, 1.0))


def test_latency_is_in_milliseconds() -> None:
    quantiles = latency([i / 1000 for i in range(101)])
    assert quantiles == pytest.approx({"median": 50.0, "p95": 95.0, "p99": 99.0})
    assert latency([0.02]) == pytest.approx({"median": 20.0, "p95": 20.0, "p99": 20.0})
    assert all(math.isnan(value) for value in latency([]).values())


def test_arrays_of_outcomes_are_taken() -> None:
    """An array has no truth of its own."""
    found = paired(np.array([True, False, True]), np.array([True, True, False]))
    assert (found["n"], found["only_first"], found["only_second"]) == (3, 1, 1)
