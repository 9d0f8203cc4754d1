"""What each optimizer is for: forks, choices, smooth plans, coloured noise, gradients through wrappers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from planner.actions import ActionSpec
from planner.energies import LatentDistance
from planner.errors import BadInput
from planner.mpc import MPC
from planner.optimizers import (
    CEM,
    ICEM,
    MPPI,
    OPTIMIZERS,
    CategoricalCEM,
    Chain,
    Gradient,
    Hold,
    MixtureCEM,
    PredictiveSampling,
    Smooth,
)
from planner.optimizers.noise import Streams, coloured
from planner.optimizers.wrapping import admitted
from planner.plan import Plan, plan
from planner.settings import PlannerConfig
from planner.testing import LinearModel, check_optimizer
from planner.types import Context

T = 4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def search(
    optimizer: Any, energy: Any, iterations: int, size: int = 2, dims: int = 2, proposals: Tensor | None = None
) -> Plan:
    """Plans where the future is the plan itself: `energy` of `[E, S, T, A]`."""
    spec = ActionSpec((-1.0,) * dims, (1.0,) * dims, ("m",) * dims, 1)
    model = LinearModel(torch.eye(dims), torch.eye(dims), spec)
    context = Context(
        TensorDict({"latent": torch.zeros(size, 1, dims)}, batch_size=[size, 1]), torch.zeros(size, 0, dims)
    )
    goal = TensorDict({"latent": torch.ones(size, dims)}, batch_size=[size])
    return plan(
        model,
        context,
        goal,
        lambda futures, goal, actions: energy(actions),
        optimizer,
        iterations=iterations,
        horizon=T,
        generator=seeded(0),
        proposals=proposals,
    )


@pytest.mark.parametrize("kind", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_with_streams_an_environment_is_searched_as_if_alone(kind: Any) -> None:
    optimizer, plans = kind(), torch.linspace(-0.5, 0.5, 3)[:, None, None].expand(-1, T, 2)
    streams = Streams(torch.device("cpu"), [7, 8, 9])
    for rows in ([0, 1, 2], [2, 0]):
        streams.rows = rows
        together = optimizer.ask(optimizer.init(plans[rows]), streams)
        for place, row in enumerate(rows):
            own = seeded(7 + row)
            alone = optimizer.ask(optimizer.init(plans[row : row + 1]), own)
            if rows[0] == 2:  # the second draw of this one
                alone = optimizer.ask(optimizer.init(plans[row : row + 1]), own)
            assert torch.equal(together[place], alone[0])
    streams.restart(1, 8)
    streams.rows = [1]
    again = optimizer.ask(optimizer.init(plans[1:2]), streams)
    assert torch.equal(again, optimizer.ask(optimizer.init(plans[1:2]), seeded(8)))


def fork(actions: Tensor) -> Tensor:
    """Least at +0.6 and at -0.6 throughout, and bad in between."""
    lean = actions.mean((-2, -1))
    return (lean.abs() - 0.6).square() + 0.05 * (actions - lean[..., None, None]).square().mean((-2, -1))


def test_a_mixture_keeps_both_ways_around() -> None:
    optimizer = MixtureCEM(samples=256, components=4, elites=8)
    state = optimizer.init(torch.zeros(3, T, 2))
    generator = seeded(1)
    for _ in range(10):
        actions = optimizer.ask(state, generator)
        state = optimizer.tell(state, actions, fork(actions))
    means = state.mean.mean((-2, -1))  # [E, M]
    assert (means.max(1).values - 0.6).abs().max() < 0.05 and (means.min(1).values + 0.6).abs().max() < 0.05
    assert (optimizer.best(state).mean((-2, -1)).abs() - 0.6).abs().max() < 0.05


@pytest.mark.parametrize(("samples", "components"), [(17, 8), (256, 4), (30, 7), (16, 8), (5, 1)])
def test_no_component_of_a_mixture_starves(samples: int, components: int) -> None:
    """Of 17 candidates eight components had 3, 3, 3, 3, 2, 1, 1 and 1."""
    optimizer = MixtureCEM(samples=samples, components=components, elites=2, init_std=1e-3, min_std=1e-3)
    state = optimizer.init(torch.zeros(2, T, 2))
    places = torch.linspace(-0.9, 0.9, components)
    asked = optimizer.ask(state._replace(mean=state.mean + places[:, None, None]), seeded(0))
    owner = (asked.mean((-2, -1))[0, :, None] - places).abs().argmin(1)
    counts = owner.bincount(minlength=components)
    assert counts.sum() == samples and counts.max() - counts.min() <= (samples % components > 0)


def test_the_mean_of_two_ways_is_none() -> None:
    """Why there is a mixture: one Gaussian whose elites lie on both sides stands for a plan that is on neither."""
    actions = torch.tensor([0.6, -0.6]).repeat(16).reshape(1, 32, 1, 1).expand(2, -1, T, 2)
    single, several = CEM(samples=32, elites=16, momentum=0.0), MixtureCEM(samples=32, components=2, elites=8)
    told = single.tell(single.init(torch.zeros(2, T, 2)), actions, fork(actions))
    assert single.best(told).abs().max() < 0.2
    split = several.tell(several.init(torch.zeros(2, T, 2)), actions, fork(actions))
    assert (several.best(split).abs() - 0.6).abs().max() < 1e-6


@pytest.mark.parametrize("levels", [2, 3, 9])
def test_choices_reach_the_nearest_levels(levels: int) -> None:
    target = torch.rand(2, 1, T, 2, generator=seeded(2)) * 2 - 1
    found = search(CategoricalCEM(levels=levels), lambda actions: (actions - target).square().mean((-2, -1)), 12)
    grid = torch.linspace(-1, 1, levels)
    nearest = grid[(target[:, 0].unsqueeze(-1) - grid).abs().argmin(-1)]
    torch.testing.assert_close(found.actions, nearest)


def test_a_codebook_is_searched_whole() -> None:
    codebook = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
    optimizer = CategoricalCEM(samples=128, elites=12, codebook=codebook)
    wish = torch.tensor([[0, 1, 2, 3], [3, 3, 0, 0]])
    target = torch.tensor(codebook)[wish]
    found = search(optimizer, lambda actions: (actions - target.unsqueeze(1)).square().mean((-2, -1)), 12)
    torch.testing.assert_close(found.actions, target)
    asked = optimizer.ask(optimizer.init(torch.zeros(1, T, 2)), seeded(0))
    assert (asked.abs().sum(-1) == 1).all(), "half of one action and half of another is none"
    with pytest.raises(BadInput, match="codebook does not fit"):
        optimizer.init(torch.zeros(1, T, 3))


CORNERS = ((1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0))


@pytest.mark.parametrize(
    "optimizer",
    [
        CategoricalCEM(32, 4, codebook=CORNERS),
        CategoricalCEM(32, 4, levels=2),
        Hold(CategoricalCEM(32, 4, codebook=CORNERS), block=1, repeat=1),
    ],
    ids=["codebook", "levels", "held"],
)
def test_a_robot_is_sent_its_choices_and_nothing_else(optimizer: Any) -> None:
    """At its goal it was sent zeros, which are none of them: rest is always proposed, and it won."""
    model = LinearModel(torch.eye(2), torch.eye(2), ActionSpec((-1.0,) * 2, (1.0,) * 2, ("m",) * 2, 1))
    mpc = MPC(model, LatentDistance(over="all"), optimizer, horizon=T, iterations=3)
    here = TensorDict({"state": torch.zeros(1, 2)}, batch_size=[1])
    mpc.reset(here, here)
    assert (np.abs([mpc.act(here) for _ in range(5)]) == 1).all()


def test_what_is_not_restricted_is_proposed_as_it_is() -> None:
    plans = torch.rand(2, 3, T, 4, generator=seeded(1))
    for free in (CEM(), Hold(CEM(), block=2, repeat=2), Hold(Hold(CEM(), 1, 1), block=2, repeat=2)):
        assert admitted(free, plans) is plans
    assert admitted(Smooth(CEM(), limit=0.1), plans).diff(dim=-2).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    "inner", [CEM(), MPPI(), ICEM(), PredictiveSampling(), Gradient()], ids=lambda o: type(o).__name__
)
def test_smooth_plans_never_jump(inner: Any) -> None:
    optimizer = Smooth(inner, limit=0.25)
    target = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    found = search(optimizer, lambda actions: (actions - target).square().mean((-2, -1)), 20)
    assert found.actions.diff(dim=1).abs().max() <= 0.25 + 1e-6
    still = (search(optimizer, lambda actions: actions.square().mean((-2, -1)), 3)).energy
    assert (
        found.energy < search(optimizer, lambda actions: (actions - target).square().mean((-2, -1)), 1).energy + 1e-6
    ).all()
    assert (still < 1e-6).all()
    asked = optimizer.ask(optimizer.init(torch.zeros(2, 9, 3)), seeded(0))
    assert asked.diff(dim=2).abs().max() <= 0.25 + 1e-6 and asked.abs().max() <= 1


def test_choices_of_changes_follow_a_plan() -> None:
    """Changes were taken along the plan as it was given, and each was rounded away by itself."""
    optimizer = Smooth(CategoricalCEM(levels=3), limit=0.5)  # changes of -0.5, 0 and 0.5

    def admit(*plan: float) -> list[float]:
        return optimizer.admit(torch.tensor(plan)[:, None])[:, 0].tolist()

    assert admit(0.0, 0.2, 0.4, 0.6, 0.8, 1.0) == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert admit(1.0, 0.5, 0.5, 0.0, 0.0) == [1.0, 0.5, 0.5, 0.0, 0.0], "its own plan is what it may stand for"


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_codebook_of_another_width_is_told(width: int) -> None:
    """Torch's own words came first, of sizes that do not go together, or of none where one number went for all."""
    codebook = tuple((level,) * width for level in (-1.0, 0.0, 1.0))
    model = LinearModel(torch.eye(2), torch.ones(2, 4), ActionSpec((-1.0,) * 2, (1.0,) * 2, ("m",) * 2, 2))
    context = Context(TensorDict({"latent": torch.zeros(1, 1, 2)}, batch_size=[1, 1]), torch.zeros(1, 0, 4))
    goal = TensorDict({"latent": torch.ones(1, 2)}, batch_size=[1])
    how = {"iterations": 1, "horizon": 2, "generator": torch.Generator()}
    told = f"codebook does not fit; expected actions of 4; got {width}"
    with pytest.raises(BadInput, match=told):
        plan(model, context, goal, LatentDistance(), CategoricalCEM(codebook=codebook), **how)


def test_a_search_may_have_thousands_of_rounds() -> None:
    """The share that is drawn is a power of their number, and was too large for a float after 3,200."""
    optimizer = ICEM(samples=64, elites=4)
    for rounds in (0, 3, 20, 5000):
        state = optimizer.init(torch.zeros(1, 2, 1))._replace(round=rounds)
        drawn = optimizer.ask(state, torch.Generator()).shape[1]
        assert drawn == max(8, int(64 / optimizer.shrink ** min(rounds, 100)))
    ICEM(shrink=1).ask(ICEM(shrink=1).init(torch.zeros(1, 2, 1))._replace(round=5000), torch.Generator())


def test_where_derivatives_are_forbidden_it_is_that_which_is_told() -> None:
    """The energies were said to have none."""
    with torch.inference_mode(), pytest.raises(BadInput, match=r"torch.inference_mode\(\) forbids derivatives"):
        search(Gradient(), lambda plans: plans.square().mean((-2, -1)), 2)


def test_a_smooth_search_is_an_optimizer() -> None:
    check_optimizer(Smooth(CEM(), limit=2.0))


@pytest.mark.parametrize("method", ["adam", "sgd"])
@pytest.mark.parametrize("wrap", [lambda o: o, lambda o: Hold(o, block=2, repeat=2), lambda o: Smooth(o, limit=0.8)])
def test_gradients_pass_through_wrappers(method: str, wrap: Any) -> None:
    """Each action held over its pair, so that the held problem has the optimum of the free one."""
    target = torch.tensor([[0.3, 0.3], [0.5, 0.5], [-0.2, -0.2], [0.1, 0.1]])
    optimizer = wrap(Gradient(samples=2, method=method, rate=0.05 if method == "adam" else 2.0, std=0.1))
    found = search(optimizer, lambda actions: (actions - target).square().mean((-2, -1)), 150)
    torch.testing.assert_close(found.actions, target.expand(2, -1, -1), atol=0.02, rtol=0)


def test_the_gradient_is_that_of_the_energy() -> None:
    """One step of plain descent, against the derivative by hand."""
    optimizer = Gradient(samples=1, method="sgd", rate=0.5, momentum=0.0)
    state = optimizer.init(torch.full((1, T, 2), 0.5))
    actions = optimizer.ask(state, seeded(0))
    told = optimizer.tell(state, actions, actions.square().sum((-2, -1)))
    torch.testing.assert_close(told.plans, torch.zeros(1, 1, T, 2))  # 0.5 - 0.5 * 2 * 0.5


SMOOTH = Smooth(CEM(32, 4), limit=0.1)


@pytest.mark.parametrize("switch", [2, 9], ids=["second", "first"])
@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (SMOOTH, SMOOTH, "slow"),
        (CEM(32, 4), SMOOTH, "slow"),
        (Gradient(samples=4), SMOOTH, "slow"),
        (CategoricalCEM(32, 4, levels=2), SMOOTH, "slow"),
        (SMOOTH, CategoricalCEM(32, 4, levels=2), "choices"),
        (CategoricalCEM(32, 4, levels=2), CategoricalCEM(32, 4, levels=2), "choices"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_a_chain_keeps_what_its_second_promises(first: Any, second: Any, kept: str, switch: int) -> None:
    """It admitted any plan and asked for whatever the first liked: jumps and half choices came out of a chain that
    ends in an optimizer of neither."""
    optimizer = Chain(first, second, switch=switch)
    proposed = torch.tensor([0.5, -0.5, 0.5, -0.5])[:, None]

    def keeps(plans: Tensor) -> bool:
        return bool((plans.diff(dim=-2).abs() <= 0.1 + 1e-6).all() if kept == "slow" else (plans.abs() == 1).all())

    def energy(actions: Tensor) -> Tensor:
        assert keeps(actions.detach()), "nothing else is even rehearsed"
        return (actions - proposed).square().mean((-2, -1))

    for iterations in (1, 4):
        assert keeps(search(optimizer, energy, iterations, proposals=proposed.expand(2, 1, T, 2)).actions)
    assert keeps(optimizer.best(optimizer.init(proposed.expand(2, T, 2))))


def test_choices_give_a_chain_nothing_to_descend() -> None:
    """Between two of them an energy has no slope, and the first part would be told one that is none."""
    with pytest.raises(BadInput, match="Gradient: the energies cannot be differentiated"):
        search(Chain(Gradient(), CategoricalCEM()), lambda actions: actions.square().mean((-2, -1)), 2)


def test_a_chain_ends_nearer_than_its_first_part() -> None:
    target = torch.rand(2, 1, T, 2, generator=seeded(3)) - 0.5

    def energy(actions: Tensor) -> Tensor:
        return (actions - target).square().mean((-2, -1))

    cem = CEM(samples=64, elites=8)
    chained = search(Chain(cem, Gradient(samples=4, rate=0.02, std=0.02), switch=4), energy, 34)
    assert (chained.energy < 0.01 * search(cem, energy, 4).energy).all()


def test_noise_has_its_colour_and_unit_variance() -> None:
    white = torch.randn(4000, 16, 3, generator=seeded(4))
    assert torch.equal(coloured(white, 0.0), white)
    for exponent in (1.0, 2.0, 4.0):
        noise = coloured(white, exponent)
        torch.testing.assert_close(noise.var((0, 2)), torch.ones(16), atol=0.06, rtol=0)
        neighbours = (noise[:, 1:] * noise[:, :-1]).mean()
        assert neighbours > 0.4, "what comes next has to resemble what was"
    power = torch.fft.rfft(coloured(white, 2.0), dim=1).abs().square().mean((0, 2))
    torch.testing.assert_close(power[1] / power[4], torch.tensor(16.0), rtol=0.15, atol=0)
    single = torch.randn(5, 1, 2, generator=seeded(5))
    assert torch.equal(coloured(single, 2.0), single)


def test_icem_keeps_what_it_found_and_draws_less() -> None:
    optimizer = ICEM(samples=100, elites=10, keep=0.3)
    state, generator = optimizer.init(torch.zeros(1, T, 2)), seeded(6)
    sizes = []
    for _ in range(12):
        actions = optimizer.ask(state, generator)
        sizes.append(actions.shape[1])
        before = state.energy.amin()
        state = optimizer.tell(state, actions, (actions - 0.3).square().mean((-2, -1)))
        assert state.energy.shape == (1, 3) and state.energy.amin() <= before
    assert sizes[0] == 100 and sizes[1] == 80 and sizes[-1] == 20 and sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("wrong", [{"samples": -5}, {"samples": 1}, {"iterations": 0}, {"horizon": 0}, {"hold": 0}])
def test_settings_keep_their_ranges_whichever_the_optimizer(name: str, wrong: dict[str, Any]) -> None:
    """Some optimizers made do with -5 candidates, and a hold of 0 ended in a division by it."""
    (knob,) = wrong
    with pytest.raises(BadInput, match=f"planner: {knob} is off; expected at least [12]; got {wrong[knob]}"):
        PlannerConfig(optimizer=name, **wrong)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_named_in_the_settings(name: str) -> None:
    spec = ActionSpec((-1.0,), (1.0,), ("m",), 2)
    model = LinearModel(torch.eye(2), torch.eye(2), spec)
    planner = PlannerConfig(optimizer=name, samples=32, iterations=3, horizon=3, hold=2, over="all").build(model, 0)
    goal = TensorDict({"state": torch.tensor([[0.5, 0.2]])}, batch_size=[1])
    planner.reset(TensorDict({"state": torch.zeros(1, 2)}, batch_size=[1]), goal)
    action = planner.act(TensorDict({"state": torch.zeros(1, 2)}, batch_size=[1]))
    assert action.shape == (1, 1) and abs(action).max() <= 1 and planner.last_plan is not None
    rest = LatentDistance(over="all")(
        TensorDict({"latent": torch.zeros(1, 1, 3, 2)}, batch_size=[1, 1, 3]),
        TensorDict({"latent": goal["state"]}, batch_size=[1]),
        torch.zeros(1, 1, 3, 2),
    )
    assert planner.last_plan.energy < rest[0, 0], "it has to find something better than rest"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ICEM(samples=1),
        lambda: ICEM(elites=300),
        lambda: ICEM(keep=1.5),
        lambda: ICEM(shrink=0.9),
        lambda: ICEM(colour=-1.0),
        lambda: ICEM(init_std=0.0),
        lambda: ICEM(min_std=1.0),
        lambda: ICEM(momentum=1.0),
        lambda: PredictiveSampling(samples=1),
        lambda: PredictiveSampling(std=float("nan")),
        lambda: Gradient(method="newton"),
        lambda: Gradient(samples=0),
        lambda: Gradient(rate=0.0),
        lambda: Gradient(std=0.0),
        lambda: Gradient(momentum=1.0),
        lambda: Chain(switch=0),
        lambda: MixtureCEM(components=0),
        lambda: MixtureCEM(samples=32, components=4, elites=9),
        lambda: MixtureCEM(init_std=0.0),
        lambda: MixtureCEM(min_std=1.0),
        lambda: MixtureCEM(momentum=-0.1),
        lambda: CategoricalCEM(samples=1),
        lambda: CategoricalCEM(elites=0),
        lambda: CategoricalCEM(levels=1),
        lambda: CategoricalCEM(codebook=((1.0,), (0.0, 1.0))),
        lambda: CategoricalCEM(codebook=((1.0,), (2.0,))),
        lambda: CategoricalCEM(momentum=1.0),
        lambda: CategoricalCEM(floor=0.5),
        lambda: Smooth(CEM(), limit=0.0),
        lambda: Smooth(CEM(), limit=float("nan")),
    ],
)
def test_wrong_knobs_are_refused(make: Any) -> None:
    with pytest.raises(BadInput):
        make()


@pytest.mark.parametrize("hold", [None, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_in_the_loop_waits_for_a_number(name: str, hold: int | None) -> None:
    """Fake tensors have no values: whatever would bring one to the host, and stall a GPU, raises here."""
    spec = ActionSpec((-1.0,), (1.0,), ("m",), 2)
    inner = Chain(switch=1) if name == "chain" else OPTIMIZERS[name]()
    optimizer = inner if hold is None else Hold(inner, block=2, repeat=hold)
    with FakeTensorMode():
        model = LinearModel(torch.eye(2), torch.eye(2), spec)
        context = Context(TensorDict({"latent": torch.zeros(3, 1, 2)}, batch_size=[3, 1]), torch.zeros(3, 0, 2))
        found = plan(
            model,
            context,
            TensorDict({"latent": torch.ones(3, 2)}, batch_size=[3]),
            LatentDistance(over="min"),
            optimizer,
            iterations=3,
            horizon=T,
            generator=seeded(0),
        )
    assert found.actions.shape == (3, T, 2) and found.trace.shape == (3, 3)


def test_the_fake_tensors_notice_a_wait() -> None:
    class Waiting(CEM):
        def tell(self, state: Any, actions: Tensor, energy: Tensor) -> Any:
            return super().tell(state, actions, energy) if energy.min() < 1e9 else state

    with pytest.raises(DataDependentOutputException), FakeTensorMode():
        optimizer = Waiting()
        state = optimizer.init(torch.zeros(1, T, 2))
        actions = optimizer.ask(state, seeded(0))
        optimizer.tell(state, actions, actions.sum((-2, -1)))
