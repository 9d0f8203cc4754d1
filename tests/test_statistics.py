"""Success intervals and latencies, against answers worked out by hand."""

from __future__ import annotations

import math

import pytest

from planner.evaluate.statistics import latency, summary, wilson

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


def test_latency_is_in_milliseconds() -> None:
    quantiles = latency([i / 1000 for i in range(101)])
    assert quantiles == pytest.approx({"median": 50.0, "p95": 95.0, "p99": 99.0})
    assert latency([0.02]) == pytest.approx({"median": 20.0, "p95": 20.0, "p99": 20.0})
    assert all(math.isnan(value) for value in latency([]).values())
