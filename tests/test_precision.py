"""Rehearsing in bfloat16: close to full precision, and nothing but the rehearsal is rounded."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict
from test_models import TRANSFORMER, Live
from toys import SHAPE, SIZE, SPEC, toy_model

from planner.energies import LatentDistance
from planner.errors import BadInput
from planner.models.jepa import JEPAConfig
from planner.models.precision import Rounded
from planner.settings import PlannerConfig
from planner.testing import LinearModel, check_world_model
from planner.types import Context


def context(shape: JEPAConfig) -> tuple[Context, torch.Tensor]:
    torch.manual_seed(0)
    latents = torch.randn(2, shape.history, shape.latent_dim)
    past = torch.rand(2, shape.history - 1, SPEC.dim) * 2 - 1
    actions = torch.rand(2, 16, 5, SPEC.dim) * 2 - 1
    return Context(TensorDict({"latent": latents}, batch_size=latents.shape[:2]), past), actions


@pytest.mark.parametrize("shape", [SHAPE, TRANSFORMER], ids=["mlp", "transformer"])
def test_a_rounded_rehearsal_is_near_the_exact_one(shape: JEPAConfig) -> None:
    model = toy_model(shape=shape)
    with torch.no_grad():
        for weight in model.predictor.parameters():
            weight.normal_(std=0.2)
    start, actions = context(shape)
    exact, rounded = (any_.rollout(start, actions)["latent"] for any_ in (model, Rounded(model)))
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
    moved = (exact - start.latent["latent"][:, None, -1:]).square().mean().sqrt()
    assert (exact - rounded).square().mean().sqrt() < 0.03 * moved


def test_the_model_itself_is_left_alone() -> None:
    model = toy_model()
    look = TensorDict({"pixels": torch.randint(256, (2, 2, SIZE, SIZE, 3), dtype=torch.uint8)}, batch_size=[2, 2])
    before = model.encode(look)["latent"]
    rounded = Rounded(model)
    check_world_model(rounded, look)
    assert torch.equal(rounded.encode(look)["latent"], before) and torch.equal(model.encode(look)["latent"], before)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("shape", [SHAPE, TRANSFORMER], ids=["mlp", "transformer"])
def test_a_rounded_rehearsal_keeps_the_promise_of_memory(shape: JEPAConfig) -> None:
    model, (start, actions) = Rounded(toy_model(shape=shape)), context(shape)
    goal = TensorDict({"latent": start.latent["latent"][:, 0]}, batch_size=[2])
    with torch.no_grad(), Live() as live:
        LatentDistance(over="min")(model.rollout(start, actions), goal, actions)
    assert live.peak <= 2 * 16 * model.bytes_per_plan(5)


def test_settings_choose_the_precision() -> None:
    model = toy_model()
    assert PlannerConfig().build(model, 0).model is model
    assert isinstance(PlannerConfig(precision="bfloat16").build(model, 0).model, Rounded)
    simulator = LinearModel(torch.eye(2), torch.eye(2), SPEC)  # such as the oracle: it has nothing to round
    assert PlannerConfig(precision="bfloat16").build(simulator, 0).model is simulator
    with pytest.raises(BadInput, match="precision is off; expected float32 or bfloat16; got 'float16'"):
        PlannerConfig(precision="float16")
