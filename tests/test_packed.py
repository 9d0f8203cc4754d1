"""Rehearsing with packed weights: the same futures, or nearby ones in bfloat16; nothing but the rehearsal changes."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from test_models import TRANSFORMER, Live
from torch import nn
from toys import SHAPE, SIZE, SPEC, toy_model

from planner.energies import LatentDistance
from planner.errors import BadInput
from planner.models.jepa import JEPA, JEPAConfig
from planner.models.packed import Packed, PackedLinear, pack
from planner.models.predictors import Predictor, SplitLinear
from planner.settings import PlannerConfig
from planner.testing import LinearModel, check_world_model
from planner.types import Context


def context(shape: JEPAConfig) -> tuple[Context, torch.Tensor]:
    torch.manual_seed(0)
    latents = torch.randn(2, shape.history, shape.latent_dim)
    past = torch.rand(2, shape.history - 1, SPEC.dim) * 2 - 1
    actions = torch.rand(2, 16, 5, SPEC.dim) * 2 - 1
    return Context(TensorDict({"latent": latents}, batch_size=latents.shape[:2]), past), actions


def lively(shape: JEPAConfig) -> JEPA:
    """Every weight of its predictor is at work: as it is made, a transformer's gates are closed."""
    model = toy_model(shape=shape).eval()
    with torch.no_grad():
        for weight in model.predictor.parameters():
            weight.normal_(std=0.2)
    return model


@pytest.fixture(autouse=True)
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed does not depend on whose processor runs the tests."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


pytestmark = pytest.mark.filterwarnings("ignore:this processor does not multiply bfloat16")

SHAPES = pytest.mark.parametrize(
    "shape",
    [SHAPE, replace(SHAPE, depth=3), replace(SHAPE, predictor="gated"), TRANSFORMER],
    ids=["mlp", "deep", "gated", "transformer"],
)


@SHAPES
@pytest.mark.parametrize("candidates", [1, 16])
def test_packed_weights_give_the_same_futures(shape: JEPAConfig, candidates: int) -> None:
    model, (start, actions) = lively(shape), context(shape)
    actions = actions[:, :candidates]
    packed = Packed(model)
    with torch.no_grad():
        exact, found = (any_.rollout(start, actions)["latent"] for any_ in (model, packed))
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)
    if torch.backends.mkldnn.is_available():
        assert any(isinstance(layer, PackedLinear) for layer in packed.packed.modules())
        assert not any(isinstance(layer, nn.Linear) for layer in packed.packed.modules())


@SHAPES
def test_a_rounded_rehearsal_is_near_the_exact_one(shape: JEPAConfig) -> None:
    model, (start, actions) = lively(shape), context(shape)
    with torch.no_grad():
        exact, rounded = (any_.rollout(start, actions)["latent"] for any_ in (model, Packed(model, torch.bfloat16)))
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    moved = (exact - start.latent["latent"][:, None, -1:]).square().mean().sqrt()
    assert (exact - rounded).square().mean().sqrt() < 0.03 * moved


def test_a_processor_that_cannot_pack_bfloat16_says_so_and_rehearses_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """x86 without AVX-512: torch refuses to reorder such weights, and once took a planner down with it."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    model, (start, actions) = lively(SHAPE), context(SHAPE)
    with pytest.warns(UserWarning, match="does not multiply bfloat16; float32 would be faster"):
        rounded = Packed(model, torch.bfloat16)
    with torch.no_grad():
        exact, found = (any_.rollout(start, actions)["latent"] for any_ in (model, rounded))
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05 * exact.abs().max().item())
    assert any(isinstance(layer, PackedLinear) for layer in Packed(model).packed.modules())  # float32 is packed still


def test_float32_is_not_packed_where_that_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With AVX2 alone a packed rollout of PushT took 1.2 times as long as torch's own."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    model, (start, actions) = lively(SHAPE), context(SHAPE)
    planner = Packed(model)
    assert not any(isinstance(layer, PackedLinear) for layer in planner.packed.modules())
    with torch.no_grad():
        assert torch.equal(planner.rollout(start, actions)["latent"], model.rollout(start, actions)["latent"])
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert any(isinstance(layer, PackedLinear) for layer in Packed(model, torch.bfloat16).packed.modules())


@SHAPES
def test_gradients_pass_a_packed_model(shape: JEPAConfig) -> None:
    """The packed product has no derivative, and torch would hand on none without a word."""
    model, (start, actions) = lively(shape), context(shape)
    actions.requires_grad_()
    weight = torch.randn(2, 16, 5, shape.latent_dim)
    exact, found = (
        torch.autograd.grad((any_.rollout(start, actions)["latent"] * weight).sum(), actions)[0]
        for any_ in (model, Packed(model))
    )
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN")
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU(), nn.Dropout(0.5)])
@pytest.mark.parametrize("first", [nn.Linear, SplitLinear])
def test_any_sequence_is_packed_to_the_same_function(activation: nn.Module, first: type[nn.Linear]) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(first(6, 9), activation, nn.Linear(9, 4, bias=False), nn.LayerNorm(4), activation).eval()
    inputs = torch.randn(3, 5, 6)
    expected = layers(inputs)
    with torch.no_grad():
        torch.testing.assert_close(pack(deepcopy(layers))(inputs), expected, rtol=1e-5, atol=1e-5)
        wide = torch.randn(3, 8, 6)[:, ::2, :]  # rows that do not follow each other in memory
        torch.testing.assert_close(pack(deepcopy(layers))(wide), layers(wide), rtol=1e-5, atol=1e-5)


def test_layers_that_read_weights_themselves_are_packed_too() -> None:
    """Torch's own transformer reads `linear.weight`, which a packed layer did not have."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval().requires_grad_(False)
    inputs = torch.randn(2, 3, 16)
    with torch.no_grad():
        torch.testing.assert_close(pack(deepcopy(layer))(inputs), layer(inputs))
    packed = Packed(toy_model())
    if packed.packed is not packed.predictor:  # where this processor's weights have an order of their own
        own = {one.data_ptr() for one in packed.predictor.parameters()}
        layers = [one for one in packed.packed.modules() if isinstance(one, PackedLinear)]
        assert layers and all(one.weight.data_ptr() in own for one in layers), "plain weights are here once"


def test_a_predictor_that_does_not_say_what_it_holds_is_told() -> None:
    with pytest.raises(
        BadInput, match=r"max_bytes cannot be kept; expected a predictor with .* got Predictor; add that"
    ):
        Predictor(1).floats_per_plan(5)


def test_a_copy_does_not_learn_on() -> None:
    """What is planned with is what was when the planner was made, whatever training does meanwhile."""
    model, (start, actions) = lively(SHAPE), context(SHAPE)
    packed = Packed(model)
    with torch.no_grad():
        before = packed.rollout(start, actions)["latent"]
        for weight in model.predictor.parameters():
            weight.zero_()
        assert torch.equal(packed.rollout(start, actions)["latent"], before)


def test_the_model_itself_is_left_alone() -> None:
    model = toy_model()
    look = TensorDict({"pixels": torch.randint(256, (2, 2, SIZE, SIZE, 3), dtype=torch.uint8)}, batch_size=[2, 2])
    before = model.encode(look)["latent"]
    rounded = Packed(model, torch.bfloat16)
    check_world_model(rounded, look)
    assert torch.equal(rounded.encode(look)["latent"], before) and torch.equal(model.encode(look)["latent"], before)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_rehearsal_keeps_the_promise_of_memory(shape: JEPAConfig, dtype: torch.dtype) -> None:
    model, (start, actions) = Packed(toy_model(shape=shape), dtype), context(shape)
    goal = TensorDict({"latent": start.latent["latent"][:, 0]}, batch_size=[2])
    with torch.no_grad():
        model.rollout(start, actions)  # the first one packs parts of the weights, which stay
    with torch.no_grad(), Live() as live:
        LatentDistance(over="min")(model.rollout(start, actions), goal, actions)
    assert live.peak <= 2 * 16 * model.bytes_per_plan(5)


@pytest.mark.parametrize(("temporal", "slow"), [(64, 0), (64, 8), (1, 512)])
def test_judging_by_heads_keeps_the_promise_of_memory(temporal: int, slow: int) -> None:
    model, (start, actions) = toy_model(shape=replace(SHAPE, temporal=temporal, slow=slow)), context(SHAPE)
    metric = "temporal+slow" if slow else "temporal"
    packed, goal = Packed(model), TensorDict({"latent": start.latent["latent"][:, 0]}, batch_size=[2])
    with torch.no_grad():
        packed.rollout(start, actions)  # packs parts of the weights, which stay
    for over in ("min", "last"):
        with torch.no_grad(), Live() as live:
            PlannerConfig(metric=metric, over=over).energy(model)(packed.rollout(start, actions), goal, actions)
        assert live.peak <= 2 * 16 * packed.bytes_per_plan(5)


def test_settings_choose_the_precision() -> None:
    model = toy_model()
    built = [PlannerConfig(precision=name).build(model, 0).model for name in ("float32", "bfloat16")]
    assert [one.dtype for one in built if isinstance(one, Packed)] == [torch.float32, torch.bfloat16]
    simulator = LinearModel(torch.eye(2), torch.eye(2), SPEC)  # such as the oracle: it has nothing to pack
    assert PlannerConfig(precision="bfloat16").build(simulator, 0).model is simulator
    with pytest.raises(BadInput, match="precision is off; expected float32 or bfloat16; got 'float16'"):
        PlannerConfig(precision="float16")


def test_a_planner_may_be_copied_and_pickled() -> None:
    """oneDNN's own order of weights is neither, and went along."""
    planner = PlannerConfig(samples=32, iterations=2).build(lively(SHAPE), seed=0)
    obs = TensorDict({"pixels": torch.randint(256, (2, SIZE, SIZE, 3), dtype=torch.uint8)}, batch_size=[2])
    found = []
    for one in (planner, deepcopy(planner), pickle.loads(pickle.dumps(planner))):
        one.reset(obs, obs.flip(0) if hasattr(obs, "flip") else obs[[1, 0]])
        found.append(one.act(obs))
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()
