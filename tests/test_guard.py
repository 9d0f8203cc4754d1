"""Whatever a policy says, what leaves the guard is legal; whatever it changed is counted and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from planner.actions import ActionSpec
from planner.energies import Goals, LatentDistance
from planner.errors import BadInput
from planner.guard import Guard, Limits, _stoppable
from planner.mpc import MPC
from planner.optimizers import CEM
from planner.testing import LinearModel

SPEC = ActionSpec((-0.4, 0.1), (0.4, 2.0), ("m/s", "N"), 5)
LOW, HIGH = np.array(SPEC.low, np.float32), np.array(SPEC.high, np.float32)


def look(size: int, **more: Any) -> TensorDict:
    return TensorDict({"state": torch.zeros(size, 2)} | more, batch_size=[size])


class Script:
    """Says what it is told to say, one list of rows an `act`, and remembers what was really done."""

    def __init__(self, *says: Any) -> None:
        self.says, self.done, self.plan = list(says), [], None

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        pass

    def act(self, obs: TensorDict) -> np.ndarray:
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return np.array(said, np.float64)

    def applied(self, actions: np.ndarray) -> None:
        self.done.append(actions)


def guarded(*says: Any, clock: Callable[[], float] = lambda: 0.0, **limits: Any) -> Guard:
    guard = Guard(Script(*says), SPEC, Limits(**limits), clock)
    guard.reset(look(len(says[0]) if not isinstance(says[0], Exception) else 1), look(1))
    return guard


class Pushed:
    """A robot on a line that is to come to 0, its planner and its guard: its actions, at places that it is told."""

    def __init__(
        self,
        size: int = 1,
        execute: int = 3,
        energy: Any = None,
        goals: tuple[float, ...] = (0.0,),
        start: float = 1.0,
        **limits: Any,
    ) -> None:
        spec = ActionSpec((-1.0,), (1.0,), ("m",), 2)
        model = LinearModel(torch.eye(1), torch.tensor([[0.1, 0.1]]), spec, history=3)
        optimizer = CEM(samples=64, elites=8)
        energy = energy or LatentDistance(over="all")
        self.planner = MPC(model, energy, optimizer, horizon=3, iterations=3, execute=execute)
        self.guard = Guard(self.planner, spec, Limits(fallback=("brake",), **limits), clock=lambda: 100.0)
        places = torch.tensor(goals)[:, None] if len(goals) > 1 else torch.tensor(goals)
        goal = TensorDict({"state": places.expand(size, *places.shape)}, batch_size=[size])
        self.guard.reset(self.at(*[start] * size), goal)

    @staticmethod
    def at(*places: float, age: float = 0.0) -> TensorDict:
        time = torch.full((len(places),), 100.0 - age, dtype=torch.float64)
        return TensorDict({"state": torch.tensor(places)[:, None], "time": time}, batch_size=[len(places)])

    def act(self, *places: float, age: float = 0.0) -> list[float]:
        return self.guard.act(self.at(*places, age=age))[:, 0].tolist()


@pytest.mark.parametrize("survive", [True, False])
def test_no_plan_is_done_that_was_made_from_an_old_picture(survive: bool) -> None:
    """The step of the picture was braked, and the rest of what it had led to done for five steps, the wrong way."""
    robot = Pushed(max_age=0.2, survive_errors=survive)
    assert robot.act(-1.0, age=10.0) == [0.0]
    assert all(robot.act(1.0)[0] < -0.2 for _ in range(6))
    assert robot.guard.report() == {"stale": 1, "fallback brake": 1}
    plans = len(robot.planner.plan_seconds)
    for _ in range(3):
        robot.act(1.0)
    robot.act(-1.0, age=10.0)  # inside a model step, when it does not look: the plan that it has goes on
    assert robot.act(1.0)[0] < 0 and len(robot.planner.plan_seconds) == plans + 1


def test_an_old_picture_visits_no_goal() -> None:
    """It showed the robot where it had been long ago, at the first of two goals, and that was never gone to."""
    energy = Goals("sequence", LatentDistance(over="min"), near=0.01)
    robot = Pushed(max_age=0.2, energy=energy, goals=(1.0, -1.0), start=0.0)
    assert robot.act(1.0, age=10.0) == [0.0]
    assert robot.planner._goal[energy.visited].tolist() == [[False, False]]
    assert robot.act(0.0)[0] > 0.2
    robot.act(1.0)
    assert robot.planner._goal[energy.visited].tolist() == [[False, False]], "inside a model step it does not look"
    robot.act(1.0)
    assert robot.planner._goal[energy.visited].tolist() == [[True, False]]


def test_who_was_blind_when_it_planned_plans_anew_once_it_sees() -> None:
    """It was planned for from where it had been seen last, and after a push it went on as if nothing had happened."""
    robot = Pushed(size=2)
    for _ in range(6):
        robot.act(1.0, 1.0)
    robot.act(1.0, float("nan"))  # pushed to -1 meanwhile
    assert all(robot.act(1.0, -1.0)[1] > 0.2 for _ in range(5))


@pytest.mark.parametrize("bend", [None, 0.01, 0.3])
@pytest.mark.parametrize("rate", [None, 0.05, 0.5])
@pytest.mark.parametrize("kind", ["wild", "bound to bound", "broken", "steady"])
def test_nothing_illegal_ever_leaves(kind: str, rate: float | None, bend: float | None) -> None:
    rng = np.random.default_rng(0)
    steps, size = 300, 4
    says = {
        "wild": rng.normal(scale=10.0, size=(steps, size, 2)),
        "bound to bound": np.where(rng.random((steps, size, 1)) < 0.5, LOW, HIGH),
        "broken": rng.choice([np.nan, np.inf, -np.inf, 1e300, 0.2], size=(steps, size, 2)),
        "steady": np.tile(HIGH, (steps, size, 1)),
    }[kind]
    guard = guarded(*says, rate=rate, acceleration=bend)
    sent = np.array([guard.act(look(size)) for _ in range(steps)])
    assert sent.dtype == np.float32 and np.isfinite(sent).all()
    assert (sent >= LOW).all() and (sent <= HIGH).all()
    path = np.concatenate([np.tile(guard.rest, (1, size, 1)), sent.astype(np.float64)])
    change = np.diff(path, axis=0)
    if rate is not None:
        assert np.abs(change).max() <= rate + 1e-6
    if bend is not None:
        assert np.abs(np.diff(np.concatenate([np.zeros_like(change[:1]), change]), axis=0)).max() <= bend + 1e-6
    if kind == "steady":
        np.testing.assert_allclose(sent[-1], says[-1], atol=1e-5)  # it gets there in the end
    np.testing.assert_array_equal(np.array(guard.policy.done), sent)  # type: ignore[attr-defined]


def test_what_is_legal_goes_through_untouched_and_uncounted() -> None:
    rng = np.random.default_rng(1)
    says = rng.uniform(LOW, HIGH, size=(20, 3, 2)).astype(np.float32)
    says[0, 0], says[1, 1] = LOW, HIGH
    guard = guarded(*says)
    np.testing.assert_array_equal(np.array([guard.act(look(3)) for _ in range(20)]), says)
    assert not guard.report()


def test_stopping_distance_by_hand() -> None:
    # 3 + 2 + 1 = 6 and 3.5 + 2.5 + 1.5 + 0.5 = 8
    np.testing.assert_allclose(_stoppable(np.array([0.0, 0.5, 1.0, 6.0, 8.0]), 1.0), [0, 0.5, 1, 3, 3.5])


def test_every_reason_is_counted() -> None:
    guard = guarded([[9.0, 1.0], [0.0, 1.0]], [[np.nan, 1.0], [0.3, 1.0]], rate=0.95)
    guard.act(look(2))
    assert guard.report() == {"bounds": 1}
    guard.act(look(2))
    assert guard.report() == {"bounds": 1, "not finite": 1, "fallback hold": 1}
    guard = guarded([[0.4, 0.1]], [[-0.4, 0.1]], rate=0.4)
    guard.act(look(1)), guard.act(look(1))
    assert guard.report() == {"rate": 1}


def test_fallbacks_go_down_the_ranks() -> None:
    """A good step, whose plan has one more step; then the policy breaks: plan, hold, hold, brake."""

    class Planner(Script):
        def upcoming(self) -> np.ndarray:
            return np.array([[[0.2, 0.6], [np.nan, np.nan]]])

    broken = RuntimeError("the network is gone")
    guard = Guard(Planner([[0.1, 0.5]], broken, broken, broken, broken, [[0.3, 0.7]]), SPEC, Limits(hold_steps=2))
    guard.reset(look(1), look(1))
    sent = [guard.act(look(1))[0].tolist() for _ in range(6)]
    expected = [[0.1, 0.5], [0.2, 0.6], [0.2, 0.6], [0.2, 0.6], [0.0, 0.1], [0.3, 0.7]]
    np.testing.assert_allclose(sent, expected, atol=1e-6)
    assert guard.report() == {"error": 4, "fallback plan": 1, "fallback hold": 2, "fallback brake": 1}
    assert guard.last_error is broken


def test_only_the_fallbacks_asked_for() -> None:
    guard = guarded([[0.3, 1.0]], [[np.nan, 1.0]], fallback=("brake",))
    guard.act(look(1))
    np.testing.assert_allclose(guard.act(look(1)), [[0.0, 0.1]], atol=1e-6)


def test_an_old_picture_is_not_acted_on() -> None:
    now = [100.0]
    guard = guarded(*[[[0.3, 1.0]] * 4] * 2, clock=lambda: now[0], max_age=0.2, fallback=("brake",))
    times = torch.tensor([99.9, 99.7, 101.0, float("nan")], dtype=torch.float64)
    sent = guard.act(look(4, time=times))
    np.testing.assert_allclose(sent, [[0.3, 1.0]] + [[0.0, 0.1]] * 3, atol=1e-6)
    assert guard.report() == {"stale": 3, "fallback brake": 3}
    with pytest.raises(BadInput, match="time"):
        guard.act(look(4))


def test_a_late_action_is_not_used() -> None:
    ticks = iter([0.0, 0.05, 1.0, 1.2])
    guard = guarded([[0.3, 1.0]], [[0.4, 1.0]], clock=lambda: next(ticks), deadline=0.1)
    np.testing.assert_allclose(guard.act(look(1)), [[0.3, 1.0]], atol=1e-6)
    np.testing.assert_allclose(guard.act(look(1)), [[0.3, 1.0]], atol=1e-6)
    assert guard.report() == {"late": 1, "fallback hold": 1}


def test_a_masked_reset_forgets_those_rows_only() -> None:
    guard = guarded([[0.4, 1.0]] * 2, [[np.nan, 1.0]] * 2)
    guard.act(look(2))
    guard.reset(look(2), look(2), np.array([True, False]))
    np.testing.assert_allclose(guard.act(look(2)), [[0.0, 0.1], [0.4, 1.0]], atol=1e-6)


@pytest.mark.parametrize("decided", [False, True])
def test_a_robot_that_rested_starts_from_rest(decided: bool) -> None:
    """Limits went on from what it had been sent before; and none has it go on beyond rest, for having braked hard."""
    guard = guarded(*[[[0.4, 2.0]]] * 8, rate=0.1, acceleration=0.05)
    for _ in range(5):
        sent = guard.act(look(1))
    assert (sent > guard.rest + 0.15).all()
    if decided:
        guard.decide(look(1))
    guard.rested()
    np.testing.assert_allclose(guard.act(look(1)), [guard.rest + 0.05], atol=1e-6)
    assert {name: guard.report().get(name, 0) for name in ("lost", "refused")} == {
        "lost": int(decided),
        "refused": int(not decided),
    }
    np.testing.assert_allclose(guard.policy.done[-2], [guard.rest], atol=1e-6)  # type: ignore[attr-defined]
    assert len(guard.policy.done) == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("rows", [None, np.array([True, False])])
def test_a_new_goal_on_the_way_keeps_the_limits(rows: np.ndarray | None) -> None:
    """The robot was taken to be at rest: its next action was as far from the last one as if there were no limit."""
    says = [[[0.4, 2.0], [0.4, 2.0]]] * 6 + [[[-0.4, 0.0], [0.4, 2.0]]] * 2
    for moving in (True, False):
        guard = guarded(*says, rate=0.1, acceleration=0.05)
        for _ in range(6):
            before = guard.act(look(2))
        guard.reset(look(2), look(1 if rows is None else 2), rows, moving=moving)
        change = guard.act(look(2)) - before
        assert (np.abs(change[0]).max() <= 0.1 + 1e-6) == moving
        assert (np.abs(change[1]).max() <= 0.1 + 1e-6) == (moving or rows is not None)


def test_a_goal_is_not_the_caller_s_to_write_over() -> None:
    """Whoever was blind at the start, and sees, went to what had been written over its goal since."""
    goal = look(1)
    guard = guarded([[0.0, 1.0]])
    guard.reset(look(1), goal)
    goal["state"] += 5
    assert (guard._goal["state"] == 0).all()


def test_nobody_rests_before_the_first_reset() -> None:
    with pytest.raises(BadInput, match="rested before reset"):
        Guard(Script(), SPEC).rested()


@pytest.mark.parametrize("decided", [False, True])
def test_the_planner_goes_on_after_a_step_in_which_the_robot_rested(decided: bool) -> None:
    """What it does next is what its plan has for the step that is then, and it plans anew no later than before."""
    mpc = planner(execute=3)
    guard = Guard(mpc, mpc.model.action)
    guard.reset(look(1), TensorDict({"state": torch.tensor([[1.0, -1.0]])}, batch_size=[1]))
    sent = [guard.act(look(1))[0]]
    plan = mpc.upcoming()[0]  # of steps 1 to 5
    for step in range(1, 6):
        if step != 3:
            sent.append(guard.act(look(1))[0])
            np.testing.assert_allclose(sent[-1], plan[step - 1], atol=1e-6)
            continue
        if decided:
            guard.decide(look(1))
        guard.rested()
        sent.append(np.zeros(2, np.float32))
    np.testing.assert_allclose(mpc._done[0], sent[-4:], atol=1e-6)
    assert len(mpc.plan_seconds) == 1
    guard.act(look(1))
    assert len(mpc.plan_seconds) == 2


def test_what_the_guard_kept_of_a_plan_goes_by_while_the_robot_rests() -> None:
    mpc = planner()
    guard = Guard(mpc, mpc.model.action, Limits(fallback=("plan",)))
    guard.reset(look(1), TensorDict({"state": torch.tensor([[1.0, -1.0]])}, batch_size=[1]))
    guard.act(look(1))
    plan = mpc.upcoming()[0]
    guard.rested()
    blind = TensorDict({"state": torch.full((1, 2), float("nan"))}, batch_size=[1])
    np.testing.assert_allclose(guard.act(blind)[0], plan[1], atol=1e-6)


def test_errors_that_nobody_should_swallow_go_through() -> None:
    class Interrupted(Script):
        def act(self, obs: TensorDict) -> np.ndarray:
            raise KeyboardInterrupt

    guard = Guard(Interrupted(), SPEC)
    with pytest.raises(BadInput, match="before reset"):
        guard.act(look(1))
    guard.reset(look(1), look(1))
    with pytest.raises(KeyboardInterrupt):
        guard.act(look(1))


def planner(**knobs: Any) -> MPC:
    spec = ActionSpec((-1.0, -1.0), (1.0, 1.0), ("m", "m"), 2)
    control = torch.tensor([[0.1, 0.0, 0.1, 0.0], [0.0, 0.1, 0.0, 0.1]])
    model = LinearModel(torch.eye(2), control, spec, history=3)
    return MPC(model, LatentDistance(over="all"), CEM(samples=32, elites=4), horizon=3, iterations=3, **knobs)


def test_the_planner_rehearses_from_what_was_done() -> None:
    """A guard that halves every change: the planner's history holds the halves."""
    mpc = planner()
    guard = Guard(mpc, mpc.model.action, Limits(rate=0.05))
    goal = TensorDict({"state": torch.tensor([[1.0, -1.0]])}, batch_size=[1])
    guard.reset(look(1), goal)
    sent = [guard.act(look(1)) for _ in range(5)]
    assert guard.report()["rate"] > 0
    np.testing.assert_allclose(mpc._done, np.array(sent[1:]).swapaxes(0, 1), atol=1e-6)


def test_what_is_upcoming_is_what_comes() -> None:
    mpc = planner(execute=3)
    mpc.reset(look(1), TensorDict({"state": torch.tensor([[1.0, -1.0]])}, batch_size=[1]))
    mpc.act(look(1))
    upcoming = mpc.upcoming()
    assert upcoming.shape == (1, 6, 2) and np.isnan(upcoming[0, 5]).all() and np.isfinite(upcoming[0, :5]).all()
    for step in range(5):
        np.testing.assert_allclose(mpc.act(look(1)), upcoming[:, step], atol=1e-6)


def test_a_broken_picture_does_not_stop_the_robot() -> None:
    """The planner refuses NaN; the guard goes on with its plan and then brakes."""
    mpc = planner()
    guard = Guard(mpc, mpc.model.action, Limits(fallback=("plan",)))
    guard.reset(look(1), TensorDict({"state": torch.tensor([[1.0, -1.0]])}, batch_size=[1]))
    guard.act(look(1))
    plan = mpc.upcoming()[0]
    blind = TensorDict({"state": torch.full((1, 2), float("nan"))}, batch_size=[1])
    sent = [guard.act(blind)[0] for _ in range(7)]
    np.testing.assert_allclose(sent[:5], plan[:5], atol=1e-6)
    assert (np.array(sent[5:]) == 0).all() and isinstance(guard.last_error, BadInput)
    assert np.isfinite(guard.act(look(1))).all()


@pytest.mark.parametrize("key", ["state", "time"])
def test_one_broken_sensor_does_not_stop_the_other_robots(key: str) -> None:
    """The planner refuses what is not finite: for one NaN all three robots were braked."""
    goal = TensorDict({"state": torch.tensor([[1.0, -1.0]]).expand(3, -1)}, batch_size=[3])

    def sent(broken: bool) -> np.ndarray:
        mpc = planner()
        guard = Guard(mpc, mpc.model.action, Limits(max_age=1.0, fallback=("plan",)), clock=lambda: 0.0)
        guard.reset(look(3, time=torch.zeros(3)), goal)
        said = [guard.act(look(3, time=torch.zeros(3)))]
        for _ in range(8):
            obs = look(3, time=torch.zeros(3))
            if broken:
                obs[key][1] = torch.nan
            said.append(guard.act(obs))
        counts = guard.report()
        assert counts.get("stale", 0) == 8 * broken and "error" not in counts
        return np.stack(said)

    whole, hurt = sent(False), sent(True)
    np.testing.assert_allclose(hurt[:, [0, 2]], whole[:, [0, 2]])
    assert np.isfinite(hurt).all() and (hurt[-1, 1] == 0).all(), "the blind one comes to rest"


def seen_at(*places: float, **more: Any) -> TensorDict:
    return look(len(places), state=torch.tensor([[place, 0.0] for place in places]), **more)


def test_what_is_shown_in_place_of_a_broken_picture_is_that_robot_s_last() -> None:
    """It was what all had seen when all could see, as old as that was."""
    shown: list[Tensor] = []

    class Refusing(Script):
        def act(self, obs: TensorDict) -> np.ndarray:
            if not obs["state"].isfinite().all():
                raise BadInput("cannot see")
            shown.append(obs["state"][:, 0])
            return np.full((len(obs), 2), 0.2)

    guard = Guard(Refusing(), SPEC)
    guard.reset(seen_at(0, 0, 0), seen_at(0, 0, 0))
    nan = float("nan")
    for places in ((1, 1, 1), (2, nan, 2), (3, nan, 3), (nan, nan, 4), (5, 5, nan)):
        guard.act(seen_at(*places))
    assert [one.tolist() for one in shown] == [[1, 1, 1], [2, 1, 2], [3, 1, 3], [3, 1, 4], [5, 5, 4]]
    guard.reset(seen_at(0, 0, 0), seen_at(0, 0, 0), np.array([True, False, False]))
    guard.act(seen_at(nan, 6, 6))
    assert shown[-1].tolist() == [6, 6, 6], "nothing of the episode before"
    assert guard.report() == {"stale": 6, "fallback hold": 5, "fallback brake": 1}


def test_a_robot_that_sees_for_the_first_time_is_planned_for_from_there() -> None:
    """Begun blind, it went on for a while with a plan that was made from what another saw."""
    mpc = planner(execute=3)
    guard = Guard(mpc, mpc.model.action)
    goal = TensorDict({"state": torch.zeros(2, 2)}, batch_size=[2])
    guard.reset(seen_at(1, -1), goal)
    assert (guard.act(seen_at(1, float("nan")))[1] == 0).all(), "nobody knows"
    sent = guard.act(seen_at(1, -1))
    assert sent[1, 0] > 0.2 and sent[0, 0] < -0.2 and guard.report()["stale"] == 1


@pytest.mark.parametrize("size", [1, 2])
def test_a_policy_that_takes_infinity_for_an_answer_is_left_alone(size: int) -> None:
    """A range finder says so where nothing comes back; beside another robot it was braked for it."""
    guard = Guard(Script(*[[[0.2, 0.5]] * size] * 2), SPEC)
    guard.reset(look(size), look(size))
    for _ in range(2):
        assert guard.act(seen_at(*[float("inf"), 0.0][:size])).tolist() == [[np.float32(0.2), 0.5]] * size
    assert guard.report() == {}


def test_observations_that_change_their_shape_are_survived() -> None:
    """What was seen before fits no more: the blind one is shown what another sees, and the others go on."""
    mpc = planner()
    guard = Guard(mpc, mpc.model.action)
    guard.reset(look(2), TensorDict({"state": torch.tensor([[1.0, -1.0]]).expand(2, -1)}, batch_size=[2]))
    guard.act(look(2, wind=torch.zeros(2, 3)))
    for wide in (5, 5, 4):
        sent = guard.act(look(2, wind=torch.tensor([[0.0] * wide, [float("nan")] * wide])))
        assert np.isfinite(sent).all() and sent[0, 0] > 0.2
    assert guard.report()["stale"] == 3 and "error" not in guard.report()


def test_a_goal_of_the_policy_s_own_kind_is_not_mixed_up_with_the_one_before() -> None:
    """A robot that began blind was begun anew with the goal of the episode before."""
    goals: list[float] = []

    class One(Script):
        def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
            goals.append(float(goal["at"]))

        def act(self, obs: TensorDict) -> np.ndarray:
            if not obs["state"].isfinite().all():
                raise BadInput("cannot see")
            return np.full((len(obs), 2), 0.2)

    guard = Guard(One(), SPEC)
    first, second = (TensorDict({"at": torch.tensor([at])}, batch_size=[1]) for at in (1.0, 2.0))
    guard.reset(seen_at(0, 0), first)
    guard.reset(seen_at(0, 0), second, np.array([True, False]))
    guard.act(seen_at(float("nan"), 0))
    guard.act(seen_at(0, 0))
    assert goals == [1.0, 2.0, 2.0]


class Clumsy(Script):
    """Says well, and fails at everything else."""

    def __init__(self, upcoming: Any, *says: Any) -> None:
        super().__init__(*says)
        self.next = upcoming

    def upcoming(self) -> np.ndarray:
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    def applied(self, actions: np.ndarray) -> None:
        raise ValueError("does not keep a diary")


@pytest.mark.parametrize(
    "upcoming", [RuntimeError("no plan"), [[]], np.zeros((1, 0, 2)), np.zeros((1, 2)), np.zeros((2, 3, 2))]
)
def test_a_policy_that_fails_beside_its_actions_is_survived(upcoming: Any) -> None:
    says = [[0.1, 0.5]], [[np.nan, 0.5]], [[0.2, 0.6]]
    guard = Guard(Clumsy(upcoming, *says), SPEC)
    guard.reset(look(1), look(1))
    sent = [guard.act(look(1))[0] for _ in says]
    np.testing.assert_allclose(sent, [[0.1, 0.5], [0.1, 0.5], [0.2, 0.6]], atol=1e-6)
    assert guard.report()["error"] >= 2 * len(says) - 1
    strict = Guard(Clumsy(upcoming, *says), SPEC, Limits(survive_errors=False))
    strict.reset(look(1), look(1))
    with pytest.raises((RuntimeError, BadInput, ValueError)):
        strict.act(look(1))


def test_a_step_without_the_planner_has_gone_by() -> None:
    """After one that it refused, the planner did every action a step late and one twice, to the episode's end."""
    model = LinearModel(torch.eye(5), torch.eye(5), ActionSpec((-1.0,), (1.0,), ("m",), 5), history=2)
    here, there = torch.zeros(1, 5), torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]])
    ways = []
    for bad in (None, 2):
        mpc = MPC(model, LatentDistance(), CEM(samples=64, elites=8), horizon=1, iterations=8)
        guard = Guard(mpc, model.action)
        guard.reset(*(TensorDict({"state": state}, batch_size=[1]) for state in (here, there)))
        sent = []
        for step in range(5):
            state = here if step != bad else torch.full_like(here, torch.nan)
            sent.append(guard.act(TensorDict({"state": state}, batch_size=[1]))[0])
        np.testing.assert_allclose(mpc._done[0], sent, atol=1e-6)
        ways.append(sent)
    np.testing.assert_allclose(ways[1], ways[0], atol=1e-6)
    np.testing.assert_allclose(np.ravel(ways[0]), there[0], atol=0.1)
    assert guard.report() == {"error": 1, "fallback plan": 1}


def test_who_could_not_look_or_plan_does_so_at_the_next_step() -> None:
    mpc = planner()
    guard = Guard(mpc, mpc.model.action)
    guard.reset(look(1), TensorDict({"state": torch.tensor([[1.0, -1.0]])}, batch_size=[1]))
    blind = TensorDict({"state": torch.full((1, 2), float("nan"))}, batch_size=[1])
    plans = []
    for seen in (look(1), look(1), blind, blind, look(1), look(1), look(1)):
        guard.act(seen)
        plans.append(len(mpc.plan_seconds))
    assert plans == [1, 1, 1, 1, 2, 2, 3]


def test_a_search_that_raises_leaves_no_frame_behind() -> None:
    """The picture was looked at, no plan came of it, and at the next try the history had it twice."""
    mpc = planner()
    mpc.reset(look(1), TensorDict({"state": torch.tensor([[1.0, -1.0]])}, batch_size=[1]))
    mpc.act(look(1)), mpc.act(look(1))
    before, search = mpc._latents.clone(), mpc._search
    mpc._search = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        mpc.act(look(1, state=torch.ones(1, 2)))
    assert (mpc._latents == before).all()
    mpc._search = search
    assert np.isfinite(mpc.act(look(1))).all()


@pytest.mark.parametrize(
    "knobs",
    [
        {"rate": 0.0},
        {"rate": float("nan")},
        {"rate": (0.1, 0.2)},  # a TypeError
        {"acceleration": np.array([0.1, 0.2])},
        {"acceleration": -1.0},
        {"max_age": 0.0},
        {"deadline": float("inf")},
        {"fallback": ("pray",)},
        {"hold_steps": -1},
    ],
)
def test_wrong_limits_are_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Limits(**knobs)
