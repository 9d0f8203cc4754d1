"""Optimizers hold to what the loop relies on, and the public check notices those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from planner.errors import BadInput
from planner.optimizers import CEM, MPPI, OPTIMIZERS, CEMState, MPPIState, make_optimizer
from planner.testing import check_optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_conformance_with_defaults(name: str) -> None:
    check_optimizer(OPTIMIZERS[name]())


@pytest.mark.parametrize(
    "optimizer",
    [
        CEM(samples=64, elites=8, momentum=0.0, min_std=0.0),
        CEM(samples=512, elites=512, init_std=1.0),
        MPPI(samples=64, temperature=0.02),
        MPPI(samples=512, std=1.0, decay=0.8),
    ],
    ids=str,
)
def test_conformance_with_other_knobs(optimizer: CEM | MPPI) -> None:
    if optimizer == CEM(samples=512, elites=512, init_std=1.0):
        # Everyone is an elite, so nothing is learned: the check has to notice.
        with pytest.raises(AssertionError, match="quadratic"):
            check_optimizer(optimizer)
    else:
        check_optimizer(optimizer)


class Unclamped(CEM):
    def ask(self, state: CEMState, generator: torch.Generator) -> Tensor:
        mean, std = state.mean.unsqueeze(1), state.std.unsqueeze(1)
        shape = (mean.shape[0], self.samples, *mean.shape[2:])
        return mean + std * torch.randn(shape, generator=generator)


class Ambient(CEM):
    def ask(self, state: CEMState, generator: torch.Generator) -> Tensor:
        return super().ask(state, generator) * torch.rand(())


class Deaf(CEM):
    def ask(self, state: CEMState, generator: torch.Generator) -> Tensor:
        return super().ask(state, torch.Generator().manual_seed(0))


class Maximiser(CEM):
    def tell(self, state: CEMState, actions: Tensor, energy: Tensor) -> CEMState:
        return super().tell(state, actions, -energy)


class InPlace(CEM):
    def tell(self, state: CEMState, actions: Tensor, energy: Tensor) -> CEMState:
        state.mean.copy_(super().tell(state, actions, energy).mean)
        return state


class Greedy(CEM):
    """Takes the best candidate, even when there is none."""

    def tell(self, state: CEMState, actions: Tensor, energy: Tensor) -> CEMState:
        index = energy.argmin(1)[:, None, None, None]
        return CEMState(actions.take_along_dim(index, dim=1).squeeze(1), state.std * 0.8)


class Softmax(MPPI):
    """The textbook weights, without a word about failures."""

    def tell(self, state: MPPIState, actions: Tensor, energy: Tensor) -> MPPIState:
        weights = torch.softmax(-(energy - energy.amin(1, keepdim=True)) / 0.01, dim=1)[..., None, None]
        return MPPIState((weights * actions).sum(1), state.std * self.decay)


class Mixed(CEM):
    """Every environment learns from the energies of all."""

    def tell(self, state: CEMState, actions: Tensor, energy: Tensor) -> CEMState:
        mean = energy.where(energy.isfinite(), energy.new_zeros(())).mean(0, keepdim=True)
        return super().tell(state, actions, energy + 0.5 * mean)


class Flat(CEM):
    def init(self, plan: Tensor) -> CEMState:
        return super().init(plan[:1])


class Common(CEM):
    """All noise from one source, whoever has one of their own."""

    def ask(self, state: CEMState, generator: torch.Generator) -> Tensor:
        noise = torch.randn((state.mean.shape[0], self.samples, *state.mean.shape[1:]), generator=generator)
        return (state.mean.unsqueeze(1) + state.std.unsqueeze(1) * noise).clamp(-1, 1)


def test_the_check_notices_noise_that_depends_on_who_is_beside() -> None:
    """It passed, and planned otherwise for an episode with 1 and with 3 environments."""
    with pytest.raises(AssertionError, match=r"draw it with planner.optimizers.noise.drawn"):
        check_optimizer(Common())


@pytest.mark.parametrize("kind", [Unclamped, Ambient, Deaf, Maximiser, InPlace, Greedy, Softmax, Mixed, Flat])
def test_the_check_notices(kind: type[CEM] | type[MPPI]) -> None:
    with pytest.raises(AssertionError, match="expected"):
        check_optimizer(kind())


def test_the_check_reads_states_of_other_kinds() -> None:
    """A state may be a dataclass or a dict; purity has to be seen there too."""

    @dataclass(frozen=True)
    class Wrapped:
        inner: dict[str, CEMState]

    class Wrapper:
        cem = CEM()

        def __init__(self, impure: bool) -> None:
            self.impure = impure

        def init(self, plan: Tensor) -> Wrapped:
            return Wrapped({"cem": self.cem.init(plan)})

        def ask(self, state: Wrapped, generator: torch.Generator) -> Tensor:
            return self.cem.ask(state.inner["cem"], generator)

        def tell(self, state: Wrapped, actions: Tensor, energy: Tensor) -> Wrapped:
            told = self.cem.tell(state.inner["cem"], actions, energy)
            if self.impure:
                state.inner["cem"].std.mul_(0.9)
            return Wrapped({"cem": told})

        def best(self, state: Wrapped) -> Tensor:
            return state.inner["cem"].mean

    check_optimizer(Wrapper(impure=False))
    with pytest.raises(AssertionError, match="leave their inputs alone"):
        check_optimizer(Wrapper(impure=True))


def test_cem_by_hand() -> None:
    optimizer = CEM(samples=4, elites=2, init_std=1.0, min_std=0.2, momentum=0.5)
    state = optimizer.init(torch.zeros(1, 1, 2))
    actions = torch.tensor([[[[0.2, 0.4]], [[0.4, 0.4]], [[-1.0, -1.0]], [[1.0, 1.0]]]])
    told = optimizer.tell(state, actions, torch.tensor([[1.0, 2.0, 3.0, torch.inf]]))
    # The two best have mean (0.3, 0.4) and deviation (0.1, 0), lifted to the floor of 0.2; half of the old stays.
    torch.testing.assert_close(told.mean, torch.tensor([[[0.15, 0.2]]]))
    torch.testing.assert_close(told.std, torch.tensor([[[0.6, 0.6]]]))


def test_cem_never_counts_a_failure_among_its_elites() -> None:
    optimizer = CEM(samples=4, elites=3, momentum=0.0, min_std=0.0)
    actions = torch.tensor([0.2, 0.4, -1.0, -1.0]).reshape(1, 4, 1, 1)
    energy = torch.tensor([[1.0, 2.0, torch.inf, torch.inf]])
    told = optimizer.tell(optimizer.init(torch.zeros(1, 1, 1)), actions, energy)
    torch.testing.assert_close(told.mean, torch.tensor([[[0.3]]]))
    torch.testing.assert_close(told.std, torch.tensor([[[0.1]]]))


def test_mppi_by_hand() -> None:
    optimizer = MPPI(samples=3, temperature=0.5, decay=0.5)
    actions = torch.tensor([0.0, 0.5, 1.0, -1.0]).reshape(1, 4, 1, 1)
    energy = torch.tensor([[3.0, 1.0, 5.0, torch.inf]])  # best 1, median of the living 3, so 1 is one e-fold
    told = optimizer.tell(optimizer.init(torch.zeros(1, 1, 1)), actions, energy)
    weights = torch.tensor([-2.0, 0.0, -4.0]).exp()
    expected = (weights * torch.tensor([0.0, 0.5, 1.0])).sum() / weights.sum()
    torch.testing.assert_close(told.mean, expected.reshape(1, 1, 1))
    torch.testing.assert_close(told.std, torch.full((1, 1, 1), 0.25))
    failed = optimizer.tell(told, actions, torch.full((1, 4), torch.inf))
    assert torch.equal(failed.mean, told.mean) and torch.equal(failed.std, told.std)


@pytest.mark.parametrize("optimizer", [CEM(), MPPI()], ids=str)
@pytest.mark.parametrize(("scale", "shift"), [(1e-12, 0.0), (1e12, 0.0), (1.0, 1024.0)])
def test_scale_and_shift_of_energy_change_nothing(optimizer: Any, scale: float, shift: float) -> None:
    state = optimizer.init(torch.zeros(2, 3, 2, dtype=torch.float64))
    actions = optimizer.ask(state, torch.Generator().manual_seed(0))
    energy = (actions - 0.5).square().mean((-2, -1))
    told, other = optimizer.tell(state, actions, energy), optimizer.tell(state, actions, energy * scale + shift)
    torch.testing.assert_close(optimizer.best(told), optimizer.best(other), rtol=1e-6, atol=1e-6)
    assert (optimizer.best(told) - 0.5).abs().mean() < 0.5


@pytest.mark.parametrize("optimizer", [CEM(), MPPI()], ids=str)
def test_one_enormous_energy_does_not_drown_the_others(optimizer: Any) -> None:
    state = optimizer.init(torch.zeros(1, 3, 2))
    actions = optimizer.ask(state, torch.Generator().manual_seed(0))
    energy = (actions - 0.5).square().mean((-2, -1))
    worst = energy.argmax(1)
    spoiled = energy.index_fill(1, worst, 1e30)
    told, other = optimizer.tell(state, actions, energy), optimizer.tell(state, actions, spoiled)
    torch.testing.assert_close(optimizer.best(told), optimizer.best(other), rtol=0, atol=1e-3)


def extreme_energies() -> Iterator[Tensor]:
    limit = torch.finfo(torch.float32).max
    yield torch.zeros(1, 4)
    yield torch.full((1, 4), limit)
    yield torch.tensor([[-limit, limit, limit, 0.0]])
    yield torch.tensor([[-limit, limit, torch.inf, torch.inf]])
    yield torch.tensor([[1.0, 1.0, 1.0, 1.0 + 1e-7]])
    yield torch.tensor([[1e-45, 0.0, torch.inf, 1e-45]])
    yield torch.full((1, 4), torch.inf)


@pytest.mark.parametrize("energy", list(extreme_energies()))
@pytest.mark.parametrize("optimizer", [CEM(samples=4, elites=2), MPPI(samples=4)], ids=str)
def test_extreme_energies_leave_it_finite(optimizer: Any, energy: Tensor) -> None:
    state = optimizer.init(torch.zeros(1, 2, 2))
    told = optimizer.tell(state, optimizer.ask(state, torch.Generator().manual_seed(0)), energy)
    assert all(part.isfinite().all() for part in told)
    assert optimizer.best(told).abs().max() <= 1


@pytest.mark.parametrize("optimizer", [CEM(), MPPI()], ids=str)
def test_the_mean_is_the_first_candidate(optimizer: Any) -> None:
    plan = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(optimizer.ask(optimizer.init(plan), torch.Generator())[:, 0], plan)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CEM(samples=1, elites=1),
        lambda: CEM(samples=8, elites=9),
        lambda: CEM(elites=1),
        lambda: CEM(init_std=0.0),
        lambda: CEM(init_std=float("nan")),
        lambda: CEM(init_std=0.1, min_std=0.2),
        lambda: CEM(min_std=-0.1),
        lambda: CEM(momentum=1.0),
        lambda: CEM(momentum=-0.1),
        lambda: MPPI(samples=1),
        lambda: MPPI(temperature=0.0),
        lambda: MPPI(temperature=float("nan")),
        lambda: MPPI(std=float("inf")),
        lambda: MPPI(decay=0.0),
        lambda: MPPI(decay=1.1),
        lambda: make_optimizer("newton"),
        lambda: make_optimizer("mppi", {"elites": 3}),
        lambda: make_optimizer("cem", {"samples": 0}),
    ],
)
def test_wrong_knobs_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(BadInput):
        make()


def test_by_name() -> None:
    assert make_optimizer("cem", {"samples": 64, "elites": 4}) == CEM(samples=64, elites=4)
    assert make_optimizer("mppi") == MPPI()
