"""Energies against values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from planner.energies import (
    ActionEffort,
    ActionRate,
    ActionSmoothness,
    Energy,
    LatentDistance,
    ObjectDistance,
    Scaled,
    Sum,
)
from planner.energies.distance import over_horizon
from planner.errors import BadInput


def futures(steps: list[list[float]], key: str = "latent") -> TensorDict:
    """One environment and one candidate whose T latents are `steps`."""
    return TensorDict({key: torch.tensor([[steps]])}, batch_size=(1, 1, len(steps)))


def goal(*values: float, key: str = "latent") -> TensorDict:
    return TensorDict({key: torch.tensor([values])}, batch_size=(1,))


NO_ACTIONS = torch.zeros(1, 1, 3, 2)
WALK = futures([[3.0, 0.0], [0.0, 1.0], [0.0, 4.0]])  # squared distances to (0, 2), mean over D: 6.5, 0.5, 2


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        (LatentDistance(), 2.0),
        (LatentDistance(over="min"), 0.5),
        (LatentDistance(over="all"), 3.0),
        (LatentDistance(over="all", discount=0.5), (6.5 + 0.5 * 0.5 + 0.25 * 2) / 1.75),
        (LatentDistance(over="all", discount=2.0), (6.5 + 2 * 0.5 + 4 * 2) / 7),
        (LatentDistance("l1"), 1.0),
        (LatentDistance("l1", over="all"), (2.5 + 0.5 + 1.0) / 3),
        (LatentDistance("cosine"), 0.0),
        (LatentDistance("cosine", over="all"), 1 / 3),
    ],
)
def test_distance_by_hand(energy: Energy, expected: float) -> None:
    value = energy(WALK, goal(0.0, 2.0), NO_ACTIONS)
    torch.testing.assert_close(value, torch.tensor([[expected]]))


def test_cosine_of_opposites() -> None:
    value = LatentDistance("cosine")(futures([[0.0, -3.0]]), goal(0.0, 2.0), NO_ACTIONS)
    torch.testing.assert_close(value, torch.tensor([[2.0]]))


def test_effort_by_hand() -> None:
    actions = torch.tensor([[[[1.0, -1.0], [0.0, 0.0]], [[0.5, 0.5], [0.5, -0.5]]]])
    torch.testing.assert_close(ActionEffort()(WALK, goal(0.0), actions), torch.tensor([[0.5, 0.25]]))


def test_every_environment_has_its_own_goal() -> None:
    here = TensorDict({"latent": torch.zeros(2, 3, 1, 4)}, batch_size=(2, 3, 1))
    goals = TensorDict({"latent": torch.tensor([[1.0] * 4, [3.0] * 4])}, batch_size=(2,))
    value = LatentDistance()(here, goals, torch.zeros(2, 3, 1, 1))
    torch.testing.assert_close(value, torch.tensor([[1.0] * 3, [9.0] * 3]))


def test_tokens_are_read_as_features() -> None:
    here = TensorDict({"latent": torch.zeros(1, 1, 2, 4, 3)}, batch_size=(1, 1, 2))
    goals = TensorDict({"latent": torch.full((1, 4, 3), 2.0)}, batch_size=(1,))
    torch.testing.assert_close(LatentDistance()(here, goals, NO_ACTIONS), torch.tensor([[4.0]]))


def test_another_key() -> None:
    here, there = futures([[1.0]], key="object"), goal(3.0, key="object")
    torch.testing.assert_close(LatentDistance(key="object")(here, there, NO_ACTIONS), torch.tensor([[4.0]]))


def test_energies_compose_like_numbers() -> None:
    actions = torch.full((1, 1, 3, 2), 0.5)
    distance, effort = LatentDistance(), ActionEffort()
    for energy in (
        distance + 4 * effort,
        distance + effort * 4,
        distance + 3 * effort + effort,
        2 * (0.5 * distance) + 4.0 * effort,
    ):
        torch.testing.assert_close(energy(WALK, goal(0.0, 2.0), actions), torch.tensor([[3.0]]))


def test_any_callable_may_be_a_term() -> None:
    def keep_out(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return futures["latent"].amax((-2, -1))

    value = (LatentDistance() + keep_out)(WALK, goal(0.0, 2.0), NO_ACTIONS)
    torch.testing.assert_close(value, torch.tensor([[6.0]]))


@pytest.mark.parametrize("over", ["last", "all", "min"])
@pytest.mark.parametrize("metric", ["l2", "l1", "cosine"])
def test_a_broken_step_cannot_hide(metric: str, over: str) -> None:
    broken = futures([[1.0, 2.0], [0.0, 2.0], [float("nan"), 2.0]])
    assert LatentDistance(metric, over=over)(broken, goal(0.0, 2.0), NO_ACTIONS).isnan().all()


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2,), (2, 2, 2)])
def test_a_goal_that_would_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    here = TensorDict({"latent": torch.zeros(2, 3, 1, 2)}, batch_size=(2, 3, 1))
    with pytest.raises(BadInput, match="does not fit"):
        LatentDistance()(here, TensorDict({"latent": torch.zeros(shape)}, batch_size=()), torch.zeros(2, 3, 1, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LatentDistance("l3"),
        lambda: LatentDistance(over="first"),
        lambda: LatentDistance(over="all", discount=0.0),
        lambda: LatentDistance(over="all", discount=float("nan")),
        lambda: LatentDistance(over="all", discount=float("inf")),
        lambda: LatentDistance(over="last", discount=0.9),
        lambda: Sum(()),
        lambda: Sum((1.0,)),  # type: ignore[arg-type]
        lambda: Scaled(ActionEffort(), float("nan")),
        lambda: ActionEffort() * float("inf"),
        lambda: ActionEffort() * ActionEffort(),  # type: ignore[operator]
    ],
)
def test_wrong_knobs_are_refused(make: Callable[[], Energy]) -> None:
    with pytest.raises(BadInput):
        make()


def test_inputs_are_left_alone() -> None:
    actions, here, there = torch.full((1, 1, 3, 2), 0.5), WALK.clone(), goal(0.0, 2.0)
    (LatentDistance("l1", over="all") + 2 * ActionEffort())(here, there, actions)
    assert (here["latent"] == WALK["latent"]).all() and (there["latent"] == goal(0.0, 2.0)["latent"]).all()
    assert (actions == 0.5).all()


def test_energies_add_up_from_either_side() -> None:
    """`sum` starts with 0, and a plain function may stand first: both were a TypeError."""
    actions, here, there = torch.full((1, 1, 3, 2), 0.5), WALK, goal(0.0, 2.0)
    both = LatentDistance()(here, there, actions) + ActionEffort()(here, there, actions)
    assert (sum([LatentDistance(), ActionEffort()])(here, there, actions) == both).all()  # type: ignore[operator]
    plain = lambda futures, goal, actions: ActionEffort()(futures, goal, actions)  # noqa: E731
    assert ((plain + LatentDistance())(here, there, actions) == both).all()


def test_no_discount_is_too_much() -> None:
    """2 ** 199 is no float: every energy was infinite, and no plan was found."""
    distance = torch.arange(200.0)[None, None]
    assert over_horizon(distance, "all", 2.0).item() == pytest.approx(198, abs=0.01)
    assert over_horizon(distance[..., :3], "all", 2.0).item() == pytest.approx((0 + 2 * 1 + 4 * 2) / 7)
    assert over_horizon(distance[..., :3], "all", 0.5).item() == pytest.approx((0 + 0.5 * 1 + 0.25 * 2) / 1.75)


def test_an_object_s_distance_takes_latents_of_any_precision() -> None:
    latent, goal = torch.ones(1, 2, 3, 4).double(), torch.zeros(1, 4).double()
    energy = ObjectDistance(body=torch.eye(4)[:, :1], keep=0.0)
    futures = TensorDict({"latent": latent}, batch_size=[1, 2, 3])
    found = energy(futures, TensorDict({"latent": goal}, batch_size=[1]), torch.zeros(1, 2, 3, 1))
    torch.testing.assert_close(found, torch.full((1, 2), 0.75).double())


@pytest.mark.parametrize("kind", [ActionRate, ActionSmoothness])
@pytest.mark.parametrize("dim", [0, -2, 1.5, True])
def test_an_action_s_dimensions_are_a_whole_number(kind: Any, dim: Any) -> None:
    """0 used to divide by zero in the middle of a plan."""
    with pytest.raises(BadInput, match="env_dim is off; expected a whole number >= 1"):
        kind(env_dim=dim)


# The robot's own body ----------------------------------------------------------------------------------------------


def test_where_the_robot_is_counts_less() -> None:
    """By hand: differences along the body's direction count `keep` times, those across it in full."""
    body = torch.tensor([[0.6], [0.8], [0.0]])
    along, across = body[:, 0], torch.tensor([-0.8, 0.6, 0.0])
    latent = torch.stack([2 * along, 3 * across, torch.zeros(3)])[None, :, None]  # [1, 3, 1, 3]
    ahead, home = TensorDict({"latent": latent}, batch_size=[1, 3, 1]), goal(0.0, 0.0, 0.0)
    for keep in (0.0, 0.3, 1.0):
        found = ObjectDistance(body=body, keep=keep)(ahead, home, torch.zeros(1, 3, 1, 2))
        torch.testing.assert_close(found, torch.tensor([[(2 * keep) ** 2, 9.0, 0.0]]) / 3)
    plain = LatentDistance("l1", over="min")(ahead, home, torch.zeros(1, 3, 1, 2))
    torch.testing.assert_close(ObjectDistance("l1", over="min", body=body, keep=1.0)(ahead, home, plain), plain)


def test_a_body_that_does_not_fit() -> None:
    ahead = TensorDict({"latent": torch.zeros(1, 2, 1, 3)}, batch_size=[1, 2, 1])
    with pytest.raises(BadInput, match="body does not fit the latent; expected 3 rows"):
        ObjectDistance(body=torch.zeros(4, 2))(ahead, goal(0.0, 0.0, 0.0), torch.zeros(1, 2, 1, 2))
    for keep in (-0.1, 1.1, float("nan")):
        with pytest.raises(BadInput, match="keep is off"):
            ObjectDistance(body=torch.zeros(3, 1), keep=keep)
