"""A recorded search is the search. On the CPU nothing is recorded, but all the buffers are the same."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from toys import SIZE, toy_model

from planner.energies import LatentDistance
from planner.errors import BadInput
from planner.graph import CapturedPlan
from planner.mpc import MPC
from planner.optimizers import CEM, MPPI, Hold
from planner.optimizers.noise import Streams
from planner.plan import plan
from planner.types import Context

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODEL = toy_model().to(DEVICE)
D, A, T = MODEL.config.latent_dim, MODEL.action.dim, 3
OPTIONS = {"iterations": 2, "horizon": T}


def problem(environments: int, seed: int) -> tuple[Context, TensorDict, Tensor]:
    generator = torch.Generator(DEVICE).manual_seed(seed)
    sizes = [(environments, 2, D), (environments, 1, A), (environments, D), (environments, 2, T, A)]
    latent, past, goal, proposals = (torch.randn(size, generator=generator, device=DEVICE) for size in sizes)
    context = Context(TensorDict({"latent": latent}, batch_size=[environments, 2]), past.clamp(-1, 1))
    return context, TensorDict({"latent": goal}, batch_size=[environments]), proposals.clamp(-1, 1)


def seeded() -> torch.Generator:
    return torch.Generator(DEVICE).manual_seed(3)


@pytest.mark.parametrize("optimizer", [CEM(samples=8, elites=2), Hold(MPPI(samples=8), 5, 5)], ids=["cem", "mppi"])
def test_a_captured_search_is_the_search(optimizer: object) -> None:
    """One call after the other, each with the noise that follows; also when fewer environments are due in between."""
    generator = seeded()
    captured = CapturedPlan(MODEL, LatentDistance(), optimizer, generator=generator, **OPTIONS)
    same = seeded()
    kept = []
    for seed, environments in enumerate((3, 3, 1, 3, 1)):
        context, goal, proposals = problem(environments, seed)
        expected = plan(
            MODEL, context, goal, LatentDistance(), optimizer, generator=same, proposals=proposals, **OPTIONS
        )
        kept.append((captured(context, goal, proposals), expected))
    for found, expected in kept:  # at the end: no later call may change what an earlier one gave
        torch.testing.assert_close(found.actions, expected.actions)
        torch.testing.assert_close(found.energy, expected.energy)
        torch.testing.assert_close(found.trace, expected.trace)


def test_whoever_is_due_there_is_one_recording_for_as_many() -> None:
    """There was one for every set of environments that was ever due at once, and none was forgotten."""
    sizes, optimizer = (5, 2, 2, 2, 3, 2), CEM(samples=8, elites=2)
    rows = ([0, 1, 2, 3, 4], [0, 3], [4, 1], [3, 0], [1, 2, 4], [0, 3])
    own, same = (Streams(torch.device(DEVICE), range(5), 7) for _ in range(2))
    captured = CapturedPlan(MODEL, LatentDistance(), optimizer, generator=own, **OPTIONS)
    for seed, (environments, due) in enumerate(zip(sizes, rows, strict=True)):
        context, goal, proposals = problem(environments, seed)
        own.rows = same.rows = due
        found = captured(context, goal, proposals)
        expected = plan(
            MODEL, context, goal, LatentDistance(), optimizer, generator=same, proposals=proposals, **OPTIONS
        )
        torch.testing.assert_close(found.actions, expected.actions)
    assert len(captured._recorded) == len(set(sizes))
    assert not deepcopy(captured)._recorded, "a graph cannot be copied"


def test_no_tensor_is_written_out_to_be_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names were sorted as text together with their tensors, which took 7 ms a call and waits for a device."""

    def refuse(self: Tensor, *_: object, **__: object) -> str:
        raise AssertionError("a tensor was written out")

    monkeypatch.setattr(Tensor, "__repr__", refuse)
    CapturedPlan(MODEL, LatentDistance(), CEM(samples=8, elites=2), generator=seeded(), **OPTIONS)(*problem(2, 0))


def test_the_inputs_are_left_alone_and_not_kept() -> None:
    captured = CapturedPlan(MODEL, LatentDistance(), CEM(samples=8, elites=2), generator=seeded(), **OPTIONS)
    given, untouched = problem(2, 0), problem(2, 0)
    first = captured(*given)
    assert (given[0].latent == untouched[0].latent).all() and (given[1] == untouched[1]).all()
    assert torch.equal(given[2], untouched[2])
    given[0].latent.zero_(), given[1].zero_(), given[2].zero_()
    captured(*problem(2, 1))
    captured.generator.manual_seed(3)
    torch.testing.assert_close(captured(*untouched).actions, first.actions)


def test_mpc_plans_the_same_with_a_captured_search() -> None:
    def act(capture: bool) -> list[np.ndarray]:
        mpc = MPC(MODEL, LatentDistance(), CEM(samples=8, elites=2), capture=capture, seed=1, **OPTIONS)
        generator = torch.Generator(DEVICE).manual_seed(0)
        looks = torch.randint(256, (8, 2, SIZE, SIZE, 3), generator=generator, device=DEVICE, dtype=torch.uint8)
        obs = [TensorDict({"pixels": look}, batch_size=[2]) for look in looks]
        mpc.reset(obs[0], obs[-1])
        return [mpc.act(look) for look in obs]

    for found, expected in zip(act(True), act(False), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_captured_search_cannot_be_cut_short() -> None:
    with pytest.raises(BadInput, match="deadline_ms.*capture"):
        MPC(MODEL, LatentDistance(), CEM(samples=8, elites=2), capture=True, deadline_ms=5.0, **OPTIONS)


def test_other_episodes_of_the_same_search_are_not_recorded_anew() -> None:
    """Each reset recorded again: three searches and a capture in the first look of an episode."""
    energy = LatentDistance()
    mpc = MPC(MODEL, energy, CEM(samples=8, elites=2), capture=True, seed=1, **OPTIONS)
    plain = MPC(MODEL, energy, CEM(samples=8, elites=2), seed=1, **OPTIONS)
    obs = TensorDict({"pixels": torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8, device=DEVICE)}, batch_size=[2])
    recorded = []
    for episode in range(3):
        numbered = obs.clone().set("episode", torch.tensor([episode, 7]))
        for one in (mpc, plain):
            one.reset(numbered, obs)
        np.testing.assert_array_equal(mpc.act(obs), plain.act(obs))
        recorded.append(list(mpc._search._recorded.values()))
    assert len(recorded[0]) == 1 and all(a is b for a, b in zip(recorded[0], recorded[2], strict=True))
    mpc.energy = LatentDistance("l1")
    mpc.reset(obs, obs)
    mpc.act(obs)
    assert recorded[0][0] not in mpc._search._recorded.values()
