"""Units: what the robot gets is what was planned, and never outside its bounds."""

from __future__ import annotations

import pytest
import torch

from planner.actions import ActionSpec
from planner.errors import BadInput

SPEC = ActionSpec(low=(-0.1, 2.0), high=(0.3, 5.0), units=("m/s", "rad"), block=3)


def test_dimensions() -> None:
    assert (SPEC.env_dim, SPEC.dim) == (2, 6)


def test_known_values_in_time_order() -> None:
    physical = SPEC.decode(torch.tensor([-1.0, -1.0, 0.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(physical, torch.tensor([[-0.1, 2.0], [0.1, 3.5], [0.3, 5.0]]))


def test_there_and_back() -> None:
    plan = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    physical = SPEC.decode(plan)
    assert physical.shape == (4, 5, 3, 2)
    torch.testing.assert_close(SPEC.encode(physical), plan)


def test_broken_numbers_become_sound_actions() -> None:
    plan = torch.tensor([float("nan"), float("nan"), float("inf"), float("-inf"), 7.0, -7.0])
    torch.testing.assert_close(SPEC.decode(plan), torch.tensor([[0.1, 3.5], [0.3, 2.0], [0.3, 2.0]]))


def test_rounding_never_steps_over_a_bound() -> None:
    generator = torch.Generator().manual_seed(1)
    for low, width in torch.rand(300, 2, generator=generator, dtype=torch.float64).tolist():
        spec = ActionSpec((low,), (low + width + 1e-3,), ("m",), 1)
        physical = spec.decode(torch.tensor([[-1.0], [1.0], [1 - 1e-7]]))
        bounds = torch.tensor([spec.low[0], spec.high[0]])
        assert ((physical >= bounds[0]) & (physical <= bounds[1])).all()


@pytest.mark.parametrize(
    ("low", "high", "units", "block"),
    [
        ((), (), (), 1),
        ((0.0,), (1.0, 2.0), ("m",), 1),
        ((0.0,), (1.0,), (), 1),
        ((1.0,), (1.0,), ("m",), 1),
        ((float("-inf"),), (1.0,), ("m",), 1),
        ((float("nan"),), (1.0,), ("m",), 1),
        ((0.0,), (1.0,), ("m",), 0),
    ],
)
def test_impossible_bounds_are_refused(
    low: tuple[float, ...], high: tuple[float, ...], units: tuple[str, ...], block: int
) -> None:
    with pytest.raises(BadInput, match="ActionSpec"):
        ActionSpec(low, high, units, block)


def test_doing_nothing_is_the_action_nearest_to_none() -> None:
    spec = ActionSpec((-1.0, 0.5, -3.0), (1.0, 2.0, -1.0), ("m/s",) * 3, 2)
    assert torch.equal(spec.still(), torch.tensor([[0.0, 0.5, -1.0]]).expand(2, -1))


def test_means_are_of_each_model_step() -> None:
    plan = torch.randn(4, 3, SPEC.dim, generator=torch.Generator().manual_seed(0))
    steps = plan.unflatten(-1, (SPEC.block, SPEC.env_dim))
    torch.testing.assert_close(SPEC.means(plan), sum(steps[..., k, :] for k in range(SPEC.block)) / SPEC.block)
