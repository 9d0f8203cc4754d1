"""What was imagined is shown as what it is nearest to, and the landscape is that of the energy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from toys import PLANNER, SIZE, toy_model

from planner.actions import ActionSpec
from planner.energies import LatentDistance
from planner.evaluate.imagination import GRID, Bank, Moment, Recorder, bank_of_play, imagine, landscape
from planner.evaluate.protocol import Episode, Pair, held_out_pairs, play_pairs
from planner.evaluate.run import ORACLE, choose
from planner.evaluate.scenes import episodes_imagined
from planner.guard import Guard
from planner.mpc import MPC
from planner.optimizers import CEM, Hold
from planner.tasks import load_envs
from planner.testing import LinearModel
from planner.types import Context

BLOCK = 2


def line_world(dims: int = 2) -> LinearModel:
    """The latent is the place; each model step moves it by the sum of its two normalised actions."""
    spec = ActionSpec((-2.0,) * dims, (2.0,) * dims, tuple("mnop"[:dims]), BLOCK)
    return LinearModel(torch.eye(dims), torch.cat([torch.eye(dims)] * BLOCK, dim=1), spec)


def grey(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def state_of(place: Any, dims: int = 2) -> TensorDict:
    return TensorDict({"state": torch.as_tensor(place, dtype=torch.float32).reshape(1, 1, dims)}, batch_size=[1, 1])


def moment(model: LinearModel, actions: Tensor, goal: Any, step: int = 0) -> Moment:
    dims = model.transition.shape[0]
    knew = Context(model.encode(state_of(torch.zeros(dims), dims)), torch.zeros(1, 0, model.action.dim))
    return Moment(step, knew, model.encode(state_of(goal, dims))[:, 0], actions)


def planner(model: LinearModel, horizon: int = 3) -> MPC:
    search = Hold(CEM(samples=16, elites=4), BLOCK, BLOCK)
    return MPC(model, LatentDistance(), search, horizon=horizon, iterations=2)


def walked(steps: int, success: bool = True) -> Episode:
    """Filmed: at step t it is at (t, 0) / 2, and its picture is t grey levels bright."""
    states = [np.array([t / 2, 0.0]) for t in range(steps + 1)]
    return Episode(success, steps, 3.0, [1.0] * steps, [grey(t) for t in range(steps + 1)], grey(255), states)


# Film strips -------------------------------------------------------------------------------------------------------


def test_imagined_latents_are_shown_as_the_frames_nearest_to_them() -> None:
    model = line_world()
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.1, 0.0], [3.0, 0.4], [9.0, 9.0]])
    bank = Bank(np.stack([grey(10 * k) for k in range(5)]), places, unit=2.0, model_step=0.5)
    ahead = torch.tensor([0.5, 0.0, 0.5, 0.0]).expand(3, -1)  # to (1, 0), (2, 0), (3, 0)
    shown = imagine("Toy", 7, walked(4), moment(model, ahead, [3.0, 0.0]), planner(model), bank)
    assert shown.nearest[:, 0, 0, 0].tolist() == [10, 20, 30]
    np.testing.assert_allclose(shown.distance, [0.0, 0.05, 0.2], atol=1e-6)
    # It really went at half that speed, and was over after four steps: two model steps were seen.
    assert shown.happened[:, 0, 0, 0].tolist() == [2, 4]
    np.testing.assert_allclose(shown.off, [0.0, 0.0], atol=1e-6)
    assert (shown.episode, shown.step, shown.block, shown.bank) == (7, 0, BLOCK, 5)
    later = imagine("Toy", 7, walked(4), moment(model, ahead, [3.0, 0.0], step=1), planner(model), bank)
    assert later.happened[:, 0, 0, 0].tolist() == [3] and later.now[0, 0, 0] == 1
    np.testing.assert_allclose(later.off, [0.25])  # imagined at 1.0, seen at 1.5, in units of 2


def test_a_frame_is_its_own_nearest_one() -> None:
    """Also far from the origin, where distances from products lose the last figures."""
    latents = 100 + torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    bank = Bank(np.stack([grey(k) for k in range(50)]), latents, unit=1.0, model_step=1.0)
    frames, distance = bank.nearest(latents)
    assert frames[:, 0, 0, 0].tolist() == list(range(50)) and (distance == 0).all()


def test_the_bank_measures_in_distances_of_random_frames() -> None:
    env, model = load_envs().make("TwoRoom", size=SIZE), toy_model()
    bank = bank_of_play(env, model, seed=0, episodes=3)
    again, other = bank_of_play(env, model, seed=0, episodes=3), bank_of_play(env, model, seed=1, episodes=3)
    env.close()
    assert bank.frames.shape == (63, SIZE, SIZE, 3) and bank.latents.shape == (63, 8)
    assert np.array_equal(bank.frames, again.frames) and not np.array_equal(bank.frames, other.frames)
    gaps = [float((a - b).norm()) for i, a in enumerate(bank.latents) for b in bank.latents[:i]]
    assert bank.unit == pytest.approx(np.median(gaps), rel=1e-3)
    steps = [float((bank.latents[k] - bank.latents[k + 1]).norm()) for k in range(62) if k % 21 != 20]
    assert bank.model_step == pytest.approx(float(torch.tensor(steps).median()) / bank.unit, rel=1e-3)


# Landscapes --------------------------------------------------------------------------------------------------------


def test_the_least_energy_lies_where_it_is_known_to_be() -> None:
    """One step from the origin to (0.5, -1): the action is half of that in each of two environment steps."""
    model = line_world()
    plan = torch.tensor([[0.1, 0.2, 0.1, 0.2]])
    found = landscape(model, LatentDistance(), moment(model, plan, [0.5, -1.0]), torch.zeros(5, 1, 4))
    assert (found.axes, found.held, found.energies.shape) == ((0, 1), 2, (GRID, GRID))
    row, column = np.unravel_index(found.energies.argmin(), found.energies.shape)
    grid = np.linspace(-2, 2, GRID)  # physical units are twice the normalised ones
    np.testing.assert_allclose([grid[row], grid[column]], [0.5, -1.0], atol=2 / (GRID - 1))
    np.testing.assert_allclose(found.chosen, [0.2, 0.4], atol=1e-6)
    assert found.energy == pytest.approx(float(np.square([0.2 - 0.5, 0.4 + 1.0]).mean()))
    assert found.candidates.shape == (5, 2) and found.units == ("m", "n")


def test_an_action_that_is_not_held_is_moved_alone() -> None:
    model = line_world()
    plan = torch.tensor([[0.1, 0.2, 0.3, 0.2]])
    found = landscape(model, LatentDistance(), moment(model, plan, [0.5, -1.0]), torch.zeros(1, 1, 4))
    row, column = np.unravel_index(found.energies.argmin(), found.energies.shape)
    grid = np.linspace(-1, 1, GRID)
    assert found.held == 1
    np.testing.assert_allclose([grid[row] + 0.3, grid[column] + 0.2], [0.5, -0.8], atol=1 / (GRID - 1))


def test_of_four_numbers_the_two_that_matter_are_shown() -> None:
    model = line_world(4)
    model.control[[0, 2]] *= 0.01
    goal = torch.tensor([0.0, 1.0, 0.0, -1.0])
    found = landscape(model, LatentDistance(), moment(model, torch.zeros(2, 8), goal), torch.zeros(3, 2, 8))
    assert (found.axes, found.units, found.dims) == ((1, 3), ("n", "p"), 4)
    assert found.candidates.shape == (3, 2) and len(found.chosen) == 2


def test_one_number_gives_a_line() -> None:
    model = line_world(1)
    found = landscape(model, LatentDistance(), moment(model, torch.zeros(1, 2), [1.0]), torch.zeros(3, 1, 2))
    assert found.energies.shape == (GRID,) and abs(np.linspace(-2, 2, GRID)[found.energies.argmin()] - 1) < 0.1


def test_failed_rollouts_are_holes() -> None:
    def partly(futures: TensorDict, goal: TensorDict, actions: Tensor) -> Tensor:
        return actions[..., 0, 0].where(actions[..., 0, 0] < 0.5, torch.inf)

    model = line_world()
    found = landscape(model, partly, moment(model, torch.zeros(1, 4), [0.0, 0.0]), torch.zeros(1, 1, 4))
    assert np.isnan(found.energies[-1]).all() and np.isfinite(found.energies[0]).all()


# Recording ---------------------------------------------------------------------------------------------------------


def recorded(num_envs: int, replan: int | None = None) -> tuple[Recorder, list[Episode], list[Pair]]:
    env_list = [load_envs().make("TwoRoom", size=SIZE) for _ in range(num_envs)]
    mpc = replace(PLANNER, replan=replan or 0).build(toy_model(), seed=0)
    recorder = Recorder(Guard(mpc, mpc.model.action), mpc)
    pairs = held_out_pairs(env_list[0], 3, 20, seed=3).pairs
    episodes = play_pairs(env_list, recorder, pairs, 12, film=lambda k: True)
    for env in env_list:
        env.close()
    return recorder, episodes, pairs


@pytest.mark.parametrize("replan", [None, 3])
def test_every_plan_is_noted_under_its_episode(replan: int | None) -> None:
    alone, episodes, _ = recorded(1, replan)
    several, _, _ = recorded(2, replan)
    for k, episode in enumerate(episodes):
        one, other = alone.moments(k, episode.steps), several.moments(k, episode.steps)
        assert [m.step for m in one] == [m.step for m in other] == list(range(0, 12, replan or 5))
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a.actions, b.actions, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(a.goal["latent"], b.goal["latent"], atol=1e-4, rtol=1e-4)
        # What is noted is what was acted on: the first action of the plan is the one that was done.
        env = load_envs().make("TwoRoom", size=SIZE)
        env.set_state(episode.states[0])
        env.advance(alone.planner.model.action.decode(one[0].actions)[0, 0].numpy())
        np.testing.assert_allclose(env.state, episode.states[1], atol=1e-9)
        env.close()
    assert [m.step for m in alone.moments(0, 1)] == [0], "an episode that was over after one step"


def test_the_simulator_s_imagination_comes_true() -> None:
    """A world model without pictures or metric; what it imagines until it plans again is what happens, exactly."""
    env = load_envs().make("TwoRoom", size=SIZE)
    model, energy = load_envs().oracle(env)
    mpc = replace(ORACLE, execute=2).build(model, 0, energy)
    recorder = Recorder(mpc, mpc)
    pairs = held_out_pairs(env, 1, 25, seed=0).pairs
    episode = play_pairs([env], recorder, pairs, 15, privileged=True, film=lambda k: True)[0]
    bank = bank_of_play(env, model, seed=0, episodes=2)
    shown = imagine("TwoRoom", 0, episode, recorder.moments(0, episode.steps)[0], mpc, bank)
    env.close()
    np.testing.assert_allclose(shown.off[:2], 0, atol=1e-9)
    assert np.isfinite(shown.landscape.energies).all() and shown.landscape.dims == 2


# What is shown -----------------------------------------------------------------------------------------------------


def test_failures_are_among_what_is_shown() -> None:
    assert choose([True] * 20 + [False], 8) == [0, 1, 2, 3, 4, 5, 6, 20]
    assert choose([False] * 20, 4) == [0, 1, 2, 3]
    assert choose([True, False] * 10, 8) == [0, 1, 2, 3, 4, 6, 8, 10]
    assert choose([True, True, True, False], 4) == [0, 1, 2, 3] and choose([], 4) == []
    assert choose([True] * 7 + [False], 2) == [0, 7] and choose([False, True], 1) == [0]


def test_an_episode_of_one_step_is_shown() -> None:
    model = line_world()
    bank = Bank(np.stack([grey(0), grey(9)]), torch.zeros(2, 2), unit=1.0, model_step=0.5)
    shown = imagine("Toy", 0, walked(1), moment(model, torch.zeros(3, 4), [1.0, 0.0]), planner(model), bank)
    assert len(shown.happened) == len(shown.off) == 0
    (entry,) = episodes_imagined([shown])
    assert entry["plans"][0]["happened"] == [None] * 3 and entry["plans"][0]["times"] == ["+2", "+4", "+6"]
