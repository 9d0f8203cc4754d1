"""The policy in a linear world: it arrives, keeps its rows apart, and stays sound when the model does not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from planner import mpc
from planner.actions import ActionSpec
from planner.energies import ActionEffort, LatentDistance
from planner.errors import BadInput
from planner.mpc import MPC
from planner.optimizers import CEM, MPPI
from planner.testing import LinearModel
from planner.types import Context

E, BLOCK, STEP = 3, 2, 0.1
LOW, HIGH = -2.0, 3.0  # m/s^2; not symmetric, so that rest is not the middle of the range
REST = -1 + 2 * (0 - LOW) / (HIGH - LOW)


class Cart:
    """E carts on a line, pushed by their acceleration; an environment step is `STEP` seconds."""

    transition = torch.tensor([[1.0, STEP], [0.0, 1.0]])
    control = torch.tensor([[0.5 * STEP**2], [STEP]])

    def __init__(self, state: Tensor) -> None:
        self.state = state.clone()

    def step(self, action: np.ndarray) -> None:
        self.state = self.state @ self.transition.T + torch.from_numpy(action) @ self.control.T

    @property
    def obs(self) -> TensorDict:
        # A constant 1, so that a linear latent world can have a range of accelerations that is not symmetric.
        return seen(self.state)


def seen(state: Tensor) -> TensorDict:
    return TensorDict({"state": torch.cat([state, torch.ones(len(state), 1)], dim=1)}, batch_size=len(state))


class Watched(LinearModel):
    """The carts as a world model of `BLOCK` steps, exact; it records what it is given, and can be told to fail."""

    def __init__(self, history: int = 2) -> None:
        spec = ActionSpec((LOW,), (HIGH,), ("m/s^2",), BLOCK)
        step, push = Cart.transition, Cart.control
        control = torch.cat([step @ push, push], dim=1) * (HIGH - LOW) / 2
        drift = torch.cat([step @ push, push], dim=1).sum(1, keepdim=True) * (HIGH + LOW) / 2
        transition = torch.cat([torch.cat([step @ step, drift], dim=1), torch.tensor([[0.0, 0.0, 1.0]])])
        super().__init__(transition, torch.cat([control, torch.zeros(1, BLOCK)]), spec, history)
        self.contexts: list[Context] = []
        self.frames: list[Tensor] = []
        self.broken: Tensor | None = None  # bool over the rows of the next rollouts

    def encode(self, obs: TensorDict) -> TensorDict:
        self.frames.append(obs["state"])
        return super().encode(obs)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        self.contexts.append(context)
        futures = super().rollout(context, actions)
        if self.broken is not None:
            futures["latent"][self.broken] = float("nan")
        return futures


ENERGY = LatentDistance(over="all") + 0.001 * ActionEffort()
GOAL = seen(torch.tensor([[1.0, 0.0], [-0.5, 0.0], [0.3, 0.0]]))


def make(model: Watched | None = None, **knobs: Any) -> MPC:
    knobs = {"horizon": 8, "iterations": 4, **knobs}
    return MPC(model or Watched(), ENERGY, knobs.pop("optimizer", CEM(samples=64, elites=8)), **knobs)


def drive(policy: MPC, cart: Cart, steps: int) -> np.ndarray:
    """Actions `[steps, E, 1]`."""
    actions = []
    for _ in range(steps):
        actions.append(policy.act(cart.obs))
        cart.step(actions[-1])
    return np.stack(actions)


def searched(policy: MPC, model: Watched) -> list[int]:
    """How many environments each search was for, by what `model` rehearsed: a rollout an iteration, and the last."""
    return [len(context.actions) for context in model.contexts[:: policy.iterations + 1]]


def begin(policy: MPC) -> Cart:
    cart = Cart(torch.zeros(E, 2))
    policy.reset(cart.obs, GOAL)
    return cart


@pytest.mark.parametrize("optimizer", [CEM(samples=128, elites=16), MPPI(samples=256)], ids=str)
@pytest.mark.parametrize("execute", [1, 3])
def test_it_arrives(optimizer: Any, execute: int) -> None:
    policy = make(optimizer=optimizer, execute=execute, horizon=10, iterations=6)
    cart = begin(policy)
    actions = drive(policy, cart, 60)
    goal = GOAL["state"][:, :2]
    assert ((cart.state - goal)[:, 0].abs() < 0.05).all() and (cart.state[:, 1].abs() < 0.2).all()
    assert actions.shape == (60, E, 1) and actions.dtype == np.float32
    assert np.isfinite(actions).all() and (actions >= LOW).all() and (actions <= HIGH).all()
    assert policy.fallbacks == 0


def test_the_same_calls_give_the_same_actions() -> None:
    policy = make()
    first = drive(policy, begin(policy), 8)
    torch.rand(3)
    assert np.array_equal(first, drive(policy, begin(policy), 8)), "a full reset seeds the noise again"
    other, twin = make(seed=1), make()
    assert np.array_equal(first, drive(twin, begin(twin), 8))
    assert not np.array_equal(first, drive(other, begin(other), 8))


def test_an_environment_s_noise_does_not_depend_on_those_beside_it() -> None:
    """Nor on when its episode began: what is done in it is what would be done in it alone."""
    policy = make()
    cart = begin(policy)
    together = drive(policy, cart, 6)
    policy.reset(cart.obs, GOAL, np.array([False, True, False]))
    start = cart.state.clone()
    later = drive(policy, cart, 6)
    for row, state, expected in [(0, torch.zeros(1, 2), together), (2, torch.zeros(1, 2), together), (1, start, later)]:
        alone = make()
        own = Cart(state[-1:] if len(state) == 1 else state[row : row + 1])
        alone.reset(own.obs, GOAL[row : row + 1])
        np.testing.assert_allclose(drive(alone, own, 6)[:, 0], expected[:, row], atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
def test_shared_noise_is_the_same_beside_others_and_begins_anew_with_an_episode(apart: bool) -> None:
    """It was drawn from one source by all in turn: with `apart` other noise for each, and none began anew."""
    alike = seen(torch.tensor([[1.0, 0.0]] * E))
    for numbered in (False, True):
        start = Cart(torch.zeros(E, 2)).obs
        if numbered:
            start["episode"] = torch.arange(E)
        many, one = (make(optimizer=CEM(samples=16, elites=4, shared_noise=True), apart=apart) for _ in range(2))
        many.reset(start, alike)
        one.reset(start[2:], alike[:1])
        first = drive(many, Cart(torch.zeros(E, 2)), 5)
        np.testing.assert_allclose(first[:, 1:], first[:, :1].repeat(E - 1, 1), atol=1e-5)
        np.testing.assert_allclose(drive(one, Cart(torch.zeros(1, 2)), 5), first[:, :1], atol=1e-5)
        many.reset(start, alike, np.array([False, True, False]))
        np.testing.assert_allclose(drive(many, Cart(torch.zeros(E, 2)), 5)[:, 1], first[:, 1], atol=1e-5)


def test_episodes_that_are_numbered_have_noise_of_their_own() -> None:
    def first(numbers: list[int], seed: int = 0) -> np.ndarray:
        policy, cart = make(seed=seed), Cart(torch.zeros(len(numbers), 2))
        same = GOAL[[0] * len(numbers)]
        numbered = cart.obs
        numbered["episode"] = torch.tensor(numbers)
        policy.reset(numbered, same)
        return policy.act(cart.obs)[:, 0]

    together = first([0, 1, 7, 1])
    assert len(set(together.tolist())) == 3 and together[1] == together[3]
    np.testing.assert_allclose(first([7]), together[2:3], atol=1e-6)
    assert first([7], seed=1)[0] != together[2]


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_it_plans_when_due_and_looks_at_every_boundary(execute: int) -> None:
    model = Watched()
    policy = make(model, execute=execute)
    cart = begin(policy)
    assert len(model.frames) == 1, "the goal, once"
    drive(policy, cart, 12)
    assert len(model.frames) - 1 == 12 // BLOCK
    assert searched(policy, model) == [E] * (12 // (BLOCK * execute))
    assert len(policy.plan_seconds) == 12 // (BLOCK * execute) and min(policy.plan_seconds) > 0
    assert policy.last_plan is not None and policy.last_plan.actions.shape == (E, 8, BLOCK)
    assert policy.last_rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize("execute", [1, 2])
@pytest.mark.parametrize("history", [1, 2, 4])
def test_the_history_is_what_was_seen_and_done(history: int, execute: int) -> None:
    model = Watched(history)
    policy = make(model, execute=execute)
    cart = begin(policy)
    states, actions = [], []
    for _ in range(10 * BLOCK * execute):
        states.append(cart.obs["state"])
        actions.append(policy.act(cart.obs))
        cart.step(actions[-1])
    # The first and the last context of each planning belong together; here one of each.
    per_plan = len(model.contexts) // 10
    for number, context in enumerate(model.contexts[::per_plan]):
        now = number * BLOCK * execute
        assert context.latent.batch_size == (E, history) and context.actions.shape == (E, history - 1, BLOCK)
        for back in range(history):
            frame = context.latent["latent"][:, history - 1 - back]
            torch.testing.assert_close(frame, states[max(now - back * BLOCK, 0)])
        for back in range(1, history):
            start = now - back * BLOCK
            done = np.concatenate(actions[start : start + BLOCK], axis=1) if start >= 0 else np.zeros((E, BLOCK))
            expected = model.action.encode(torch.from_numpy(done).float().unsqueeze(-1))
            torch.testing.assert_close(context.actions[:, history - 1 - back], expected, atol=1e-5, rtol=0)


def test_a_robot_that_never_ends_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of searches were kept without end; now as many as the longest evaluation reads, the latest."""
    assert mpc.KEPT >= 100_000
    monkeypatch.setattr(mpc, "KEPT", 3)
    model = Watched()
    policy = make(model)
    drive(policy, begin(policy), 5 * BLOCK)
    assert searched(policy, model) == [E] * 5 and len(policy.plan_seconds) == 3


@pytest.mark.parametrize("replan", [1, 3, 4])
def test_steps_without_an_act_keep_to_the_plan(replan: int) -> None:
    """However many there are, the plan waits where a new one is due, and that is made at the next `act`."""
    model = Watched()
    policy = make(model, replan=replan)
    cart = begin(policy)
    policy.act(cart.obs)
    for _ in range(3 * replan):
        policy.applied(np.full((E, 1), 0.5, np.float32))
    assert policy._clock.tolist() == [replan] * E and (policy._done[:, -1] == 0.5).all()
    looks = len(model.frames)
    action = policy.act(cart.obs)
    assert len(model.frames) == looks + 1 and searched(policy, model) == [E] * 2
    np.testing.assert_array_equal(action, policy._queue[:, 0])


@pytest.mark.parametrize("missed", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("execute", "replan"), [(3, None), (1, 5)])
def test_no_step_of_a_plan_is_done_twice_where_a_look_was_missed(missed: int, execute: int, replan: int | None) -> None:
    """The plan waited where a look was due. A fallback had done that step of it, and it was done again, and late.

    The next look stands for the one that was missed; the others of the history are where they belong.
    """
    model = Watched(3)
    policy = make(model, execute=execute, replan=replan)
    cart, states, done = begin(policy), [], []
    length = replan or execute * BLOCK
    for step in range(length + (missed == length) + 1):
        states.append(cart.obs["state"])
        if step == missed:
            done.append(policy.upcoming()[:, 0].astype(np.float32))
        else:
            done.append(policy.act(cart.obs))
        policy.applied(done[-1])
        cart.step(done[-1])
        if step == 0:
            assert policy.last_plan is not None
            first = model.action.decode(policy.last_plan.actions).flatten(1, 2).numpy()
    np.testing.assert_array_equal(np.stack(done[:length], 1), first[:, :length])
    assert searched(policy, model) == [E] * 2
    now, look = len(states) - 1, 1 if replan else BLOCK
    seen_at = {step: step for step in range(now + 1)}
    if missed % look == 0 and missed < length:
        seen_at[missed] = missed + 1
    frames = model.contexts[-1].latent["latent"]
    if missed < length:  # else a plan was late, and so are its frames
        for back in range(3):
            torch.testing.assert_close(frames[:, 2 - back], states[seen_at[max(now - back * BLOCK, 0)]])


def test_several_looks_in_a_row_may_be_missed() -> None:
    """The next one stands for all of them; what was done in between is known."""
    model = Watched(3)
    policy = make(model, execute=6)
    cart, states, done = begin(policy), [], []
    for step in range(13):
        states.append(cart.obs["state"])
        done.append(policy.upcoming()[:, 0].astype(np.float32) if step in (6, 7, 8) else policy.act(cart.obs))
        policy.applied(done[-1])
        cart.step(done[-1])
    assert searched(policy, model) == [E] * 2
    context = model.contexts[-1]
    for index, step in enumerate((9, 10, 12)):  # for 8, 10 and 12
        torch.testing.assert_close(context.latent["latent"][:, index], states[step])
    expected = model.action.encode(torch.from_numpy(np.stack(done[8:12], 1)).float().unflatten(1, (2, BLOCK)))
    torch.testing.assert_close(context.actions, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))], ids=["copy", "pickle"]
)
def test_a_planner_can_be_copied_in_the_midst_of_an_episode(how: Callable[[MPC], MPC]) -> None:
    """Its noise became an ordinary generator in a copy, and it could not be pickled once it had begun."""
    policy = make(apart=True)
    cart = begin(policy)
    drive(policy, cart, 3)
    other, twin = how(policy), Cart(cart.state)
    np.testing.assert_array_equal(drive(policy, cart, 5), drive(other, twin, 5))
    mask = np.array([True, False, True])
    policy.reset(cart.obs, GOAL, mask)
    other.reset(twin.obs, GOAL, mask)
    np.testing.assert_array_equal(drive(policy, cart, 5), drive(other, twin, 5))


def test_numbers_of_episodes_are_read_where_one_begins() -> None:
    policy, numbered = make(), Cart(torch.zeros(E, 2)).obs
    numbered["episode"] = torch.arange(E)
    policy.reset(numbered, GOAL)
    numbered["episode"] = torch.tensor([2, -1, -1])
    policy.reset(numbered, GOAL, np.array([True, False, False]))
    with pytest.raises(BadInput, match="episode is off; expected whole numbers >= 0; got -1"):
        policy.reset(numbered, GOAL, np.array([True, True, False]))
    with pytest.raises(BadInput, match="MPC: seed is off"):
        make(seed=-1)
    with pytest.raises(BadInput, match="nothing to plan for"):
        policy.reset(numbered[:0], GOAL[:0])


def test_every_search_that_a_deadline_ended_is_counted() -> None:
    """Of three that were cut short, each for one environment, one was counted."""
    model = Watched()
    policy = make(model, apart=True, deadline_ms=1e-3)
    policy.act(begin(policy).obs)
    assert policy.incomplete == E


@pytest.mark.parametrize("replan", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("history", [1, 3])
def test_plans_inside_a_block_see_frames_a_block_apart(history: int, replan: int) -> None:
    """The model knows frames `BLOCK` steps apart and whole blocks of actions, wherever in a block a plan is made."""
    model = Watched(history)
    policy = make(model, replan=replan)
    cart = begin(policy)
    states, actions = [], []
    for _ in range(6 * replan):
        states.append(cart.obs["state"])
        actions.append(policy.act(cart.obs))
        cart.step(actions[-1])
    assert searched(policy, model) == [E] * 6
    still = [np.zeros((E, 1))] * (history * BLOCK)
    per_plan = len(model.contexts) // 6
    for number, context in enumerate(model.contexts[::per_plan]):
        now = number * replan
        for back in range(history):
            frame = context.latent["latent"][:, history - 1 - back]
            torch.testing.assert_close(frame, states[max(now - back * BLOCK, 0)])
        for back in range(1, history):
            done = (still + actions)[len(still) + now - back * BLOCK :][:BLOCK]
            expected = model.action.encode(torch.from_numpy(np.stack(done, 1)).float())
            torch.testing.assert_close(context.actions[:, history - 1 - back], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("replan", [1, 3])
def test_it_arrives_when_corrected_inside_a_block(replan: int) -> None:
    policy = make(optimizer=CEM(samples=128, elites=16), replan=replan, horizon=10, iterations=4)
    cart = begin(policy)
    drive(policy, cart, 60)
    goal = GOAL["state"][:, :2]
    assert ((cart.state - goal)[:, 0].abs() < 0.05).all() and (cart.state[:, 1].abs() < 0.2).all()


def test_what_is_left_of_a_plan_is_proposed_from_where_it_was_left() -> None:
    policy = make(replan=1, horizon=2)
    begin(policy)
    last = torch.arange(2.0 * BLOCK).reshape(1, 2, BLOCK) / 10
    shifted = policy._proposals(last)[0, 0].flatten()
    assert torch.equal(shifted[:-1], last.flatten()[1:]) and shifted[-1] == policy._rest[0]


def test_rest_is_zero_in_physical_units() -> None:
    model = Watched(history=3)
    policy = make(model)
    policy.act(begin(policy).obs)
    torch.testing.assert_close(model.contexts[0].actions, torch.full((E, 2, BLOCK), REST))


@pytest.mark.parametrize("late", [1, 2, 3])
@pytest.mark.parametrize("execute", [1, 2])
def test_a_masked_reset_leaves_the_others_alone(late: int, execute: int) -> None:
    model = Watched(history=3)
    policy = make(model, execute=execute, horizon=10, iterations=6)
    cart = begin(policy)
    drive(policy, cart, 4 + late)
    elsewhere = torch.tensor([-1.0, 0.0])
    cart.state[1] = elsewhere
    goal = GOAL.clone()
    goal["state"][1, 0] = 0.8
    goal["state"][[0, 2]] = float("nan")  # rows that are not reset are not read
    before, calls = policy._queue[[0, 2]].copy(), len(searched(policy, model))
    policy.reset(cart.obs, goal, np.array([False, True, False]))
    assert len(searched(policy, model)) == calls and np.array_equal(before, policy._queue[[0, 2]])
    cart.step(policy.act(cart.obs))
    together = (4 + late) % (BLOCK * execute) == 0
    assert searched(policy, model)[calls:] == [E if together else 1]
    row = 1 if together else 0
    torch.testing.assert_close(model.contexts[-1].latent["latent"][row, :, :2], elsewhere.expand(3, -1))
    torch.testing.assert_close(model.contexts[-1].actions[row], torch.full((2, BLOCK), REST))
    drive(policy, cart, 50)
    expected = torch.tensor([GOAL["state"][0, 0], 0.8, GOAL["state"][2, 0]])
    assert ((cart.state[:, 0] - expected).abs() < 0.05).all()


def test_rows_out_of_step_keep_their_own_histories() -> None:
    """After a masked reset in the middle of a block, each row's history is spaced by its own boundaries."""
    model = Watched(history=2)
    policy = make(model)
    cart = begin(policy)
    drive(policy, cart, 3)
    policy.reset(cart.obs, GOAL, np.array([True, False, False]))
    seen_by_row: list[Tensor] = []
    for _ in range(5):
        seen_by_row.append(cart.obs["state"])
        cart.step(policy.act(cart.obs))
    # Environment 0 was due at calls 0, 2, 4 and the others at 1, 3.
    assert policy.last_rows.tolist() == [0]
    latent = model.contexts[-1].latent["latent"]
    torch.testing.assert_close(latent[0], torch.stack([seen_by_row[2][0], seen_by_row[4][0]]))
    assert policy._latents is not None
    torch.testing.assert_close(policy._latents["latent"][1], torch.stack([seen_by_row[1][1], seen_by_row[3][1]]))


def test_the_last_plan_is_proposed_again() -> None:
    """With a search that finds nothing, the plan of before, moved on, is what is left, and then rest."""
    policy = make(horizon=3)
    cart = begin(policy)
    drive(policy, cart, BLOCK)
    assert policy.last_plan is not None
    found = policy.last_plan.actions
    proposals = policy._proposals(found)
    torch.testing.assert_close(proposals[:, 0, :2], found[:, 1:])
    torch.testing.assert_close(proposals[:, 0, 2], torch.full((E, BLOCK), REST))
    torch.testing.assert_close(proposals[:, 1], torch.full((E, 3, BLOCK), REST))


def test_a_failing_model_falls_back_and_comes_to_rest() -> None:
    model = Watched()
    policy = make(model, horizon=3, iterations=2)
    cart = begin(policy)
    drive(policy, cart, BLOCK)
    assert policy.last_plan is not None
    left = model.action.decode(policy.last_plan.actions)[:, 1:].flatten(1, 2).numpy()  # what is left of the good plan
    model.broken = torch.tensor([False, True, False])
    actions = drive(policy, cart, 4 * BLOCK)
    assert policy.fallbacks == 4 and policy.last_plan.energy[1] == torch.inf
    np.testing.assert_allclose(actions[: 2 * BLOCK, 1], left[1], atol=1e-6)
    np.testing.assert_allclose(actions[2 * BLOCK :, 1], 0, atol=1e-6)
    assert np.isfinite(actions).all() and np.abs(actions[:, [0, 2]]).max() > 0.1
    model.broken = None
    drive(policy, cart, 40)
    assert policy.fallbacks == 4
    assert ((cart.state - GOAL["state"][:, :2])[:, 0].abs() < 0.1).all(), "no NaN outlives the failure"


def test_a_model_that_fails_from_the_start_rests() -> None:
    model = Watched()
    model.broken = torch.ones(E, dtype=torch.bool)
    policy = make(model, iterations=2)
    np.testing.assert_allclose(drive(policy, begin(policy), 2 * BLOCK), 0, atol=1e-6)
    assert policy.fallbacks == 2 * E


def test_a_new_episode_does_not_inherit_a_plan() -> None:
    model = Watched()
    policy = make(model, horizon=6, iterations=2)
    cart = begin(policy)
    drive(policy, cart, BLOCK)
    model.broken = torch.ones(E, dtype=torch.bool)
    policy.reset(cart.obs, GOAL, np.array([True, False, False]))
    actions = drive(policy, cart, BLOCK)
    np.testing.assert_allclose(actions[:, 0], 0, atol=1e-6)
    assert (np.abs(actions[:, 1:]).max(0) > 0.1).all(), "the others do what is left of theirs"


def test_rest_stays_inside_bounds_that_leave_zero_out() -> None:
    spec = ActionSpec((0.5,), (2.0,), ("m",), 1)
    model = LinearModel(torch.eye(2), torch.ones(2, 1), spec, history=2)
    policy = MPC(model, LatentDistance(), CEM(samples=8, elites=2), horizon=2, iterations=1)
    obs = TensorDict({"state": torch.zeros(1, 2)}, batch_size=1)
    policy.reset(obs, obs)
    action = policy.act(obs)
    assert (policy._rest == -1).all() and 0.5 <= action[0, 0] <= 2


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_broken_observations_are_refused_by_key_and_row(poison: float) -> None:
    policy = make()
    cart = begin(policy)
    cart.state[2, 1] = poison
    with pytest.raises(BadInput, match=r"'state' of environment 2"):
        policy.act(cart.obs)
    with pytest.raises(BadInput, match=r"goal 'state' of environment 2"):
        policy.reset(GOAL, cart.obs)
    with pytest.raises(BadInput, match=r"goal 'state' of environment 2"):
        policy.reset(GOAL, cart.obs, np.array([False, False, True]))


def test_pixels_need_no_check_and_keys_may_be_nested() -> None:
    class Pixels(LinearModel):
        def encode(self, obs: TensorDict) -> TensorDict:
            mean = obs["camera", "pixels"].float().mean((-3, -2)) / 255
            return TensorDict({"latent": mean}, batch_size=obs.batch_size)

    model = Pixels(torch.eye(3), torch.ones(3, 1), ActionSpec((-1.0,), (1.0,), ("m",), 1), history=2)
    policy = MPC(model, LatentDistance(), CEM(samples=16, elites=4), horizon=2, iterations=2)
    black, bright = torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.full((1, 4, 4, 3), 200, dtype=torch.uint8)
    obs, goal = (TensorDict({"camera": {"pixels": frame}}, batch_size=1) for frame in (black, bright))
    policy.reset(obs, goal)
    assert policy.act(obs)[0, 0] > 0


def test_misuse_is_refused() -> None:
    policy = make()
    with pytest.raises(BadInput, match="act before reset"):
        policy.act(GOAL)
    with pytest.raises(BadInput, match="first reset"):
        policy.reset(GOAL, GOAL, np.array([True, False, True]))
    with pytest.raises(BadInput, match="goal"):
        policy.reset(GOAL, GOAL[:2])
    policy.reset(GOAL, GOAL, np.array([True, True, True]))
    with pytest.raises(BadInput, match="observation"):
        policy.act(GOAL[:2])
    with pytest.raises(BadInput, match="batch of observation is off"):
        policy.reset(GOAL[:1], GOAL, np.array([False, False, True]))
    for mask in (np.array([True]), np.array([1, 0, 0])):
        with pytest.raises(BadInput, match="mask"):
            policy.reset(GOAL, GOAL, mask)


@pytest.mark.parametrize("knobs", [{"horizon": 0}, {"iterations": 0}, {"execute": 0}, {"execute": 9}])
def test_wrong_knobs_are_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="MPC"):
        make(**knobs)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"deadline_ms": 0}, "deadline_ms is off; expected a number above 0; got 0"),
        ({"max_bytes": 1}, "max_bytes cannot be kept; .* got Watched"),
        ({"chunk": 0}, "chunk is off"),
    ],
)
def test_what_no_plan_could_keep_is_refused_at_once(knobs: dict[str, Any], says: str) -> None:
    """Behind a guard the robot stood still for ever, and nobody was told."""
    with pytest.raises(BadInput, match=says):
        make(**knobs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_prior_of_one_s_own_may_be_of_any_precision(dtype: torch.dtype) -> None:
    def prior(context: Context, goal: TensorDict, generator: torch.Generator) -> Tensor:
        return torch.full((len(context.actions), 2, 8, BLOCK), 0.9, dtype=dtype)

    policy = make(prior=prior)
    assert np.isfinite(drive(policy, begin(policy), 2)).all()


@pytest.mark.parametrize("size", [(E, 8, BLOCK), (E, 2, 7, BLOCK), (E, 2, 8, 1), (1, 2, 8, BLOCK)])
def test_a_prior_whose_plans_do_not_fit_is_refused(size: tuple[int, ...]) -> None:
    """Torch said that sizes do not match, of something that nobody knows."""
    policy = make(prior=lambda context, goal, generator: torch.zeros(size))
    cart = begin(policy)
    with pytest.raises(BadInput, match=r"prior's plans have a wrong shape; expected \[3, P, 8, 2\]"):
        policy.act(cart.obs)


def test_no_environment_is_reset_by_an_empty_mask() -> None:
    policy, twin = make(), make()
    cart, other = begin(policy), begin(twin)
    first = drive(policy, cart, 3), drive(twin, other, 3)
    policy.reset(cart.obs, GOAL, np.zeros(E, dtype=np.bool_))
    assert np.array_equal(*first) and np.array_equal(drive(policy, cart, 5), drive(twin, other, 5))


@pytest.mark.parametrize("history", [1, 2, 3])
def test_a_latent_that_is_not_finite_fails_one_plan(history: int) -> None:
    """It stayed in the history and failed as many plans as there are frames in that. Then it is as after `anew`."""
    model = Watched(history)
    policy, cart = make(model, execute=1), Cart(torch.zeros(E, 2))
    policy.reset(cart.obs, GOAL)
    drive(policy, cart, 4 * BLOCK)
    whole = model.encode

    def once(obs: TensorDict) -> TensorDict:
        found, model.encode = whole(obs), whole  # type: ignore[method-assign]
        found["latent"][1] = torch.nan
        return found

    model.encode = once  # type: ignore[method-assign]
    drive(policy, cart, BLOCK)
    assert policy.fallbacks == 1
    drive(policy, cart, 1)
    assert policy.fallbacks == 1 and policy.last_context is not None
    known = policy.last_context
    assert (known.latent["latent"][1] == known.latent["latent"][1, -1]).all()
    torch.testing.assert_close(known.actions[1], torch.full_like(known.actions[1], REST))
    if history > 1:
        assert not torch.equal(known.latent["latent"][0, 0], known.latent["latent"][0, -1]), "others keep theirs"
    drive(policy, cart, 4 * BLOCK)
    assert policy.fallbacks == 1


@pytest.mark.parametrize("inside", ["reset", "act", "both"])
def test_it_does_not_matter_who_is_in_inference_mode(inside: str) -> None:
    """What was kept by a `reset` in that mode could not be written to out of it."""
    found = []
    for modes in ((False, False), (inside != "act", inside != "reset")):
        policy, cart = make(Watched()), Cart(torch.zeros(E, 2))
        with torch.inference_mode(modes[0]):
            policy.reset(cart.obs, GOAL)
        with torch.inference_mode(modes[1]):
            found.append(drive(policy, cart, 3 * BLOCK))
        policy.reset(cart.obs, GOAL, np.array([True, False, False]))
        policy.act(cart.obs)
    np.testing.assert_array_equal(*found)
