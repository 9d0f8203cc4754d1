"""The JEPA: what it refuses, what it repeats, and losses that are what their formulas say."""

from __future__ import annotations

import math
import weakref
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toys import SHAPE, SIZE, SPEC, TRAINING, info, toy_model

from planner.energies import Goals, LatentDistance, LearnedDistance, ObjectDistance
from planner.errors import BadInput
from planner.models import encoders
from planner.models.encoders import places
from planner.models.jepa import JEPA, JEPAConfig
from planner.models.losses import covariance, effective_rank, rollout_loss, sigreg
from planner.models.retina import Gaze, Retina, Surround
from planner.plan import REMEMBERED, rollout_size
from planner.settings import PlannerConfig
from planner.testing import check_world_model
from planner.training import JEPATraining, check_shape, check_start
from planner.types import Context

D, A = SHAPE.latent_dim, SPEC.dim


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def pictures(*batch: int) -> Tensor:
    return torch.randint(256, (*batch, SIZE, SIZE, 3), generator=seeded(), dtype=torch.uint8)


def context(e: int, history: int) -> Context:
    latent = TensorDict({"latent": noise(e, history, D, seed=1)}, batch_size=[e, history])
    return Context(latent, noise(e, history - 1, A, seed=2).clamp(-1, 1))


# The model ---------------------------------------------------------------------------------------------------------


ENCODERS = {
    "conv": SHAPE,
    "keypoints": replace(SHAPE, encoder="keypoints"),
    "vit": replace(SHAPE, encoder="vit", width=64),
    "conv+retina": replace(SHAPE, encoder="conv+retina"),
    "keypoints+retina": replace(SHAPE, encoder="keypoints+retina"),
    "conv+retina+gaze": replace(SHAPE, encoder="conv+retina+gaze"),
    "conv+retina+surround": replace(SHAPE, encoder="conv+retina+surround"),
    "keypoints+joined+gaze+surround": replace(SHAPE, encoder="keypoints+joined+gaze+surround"),
    "conv+joined": replace(SHAPE, encoder="conv+joined"),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("batch", [(3,), (2, 4), (2, 3, 2)])
def test_embed_keeps_the_batch(encoder: str, batch: tuple[int, ...]) -> None:
    model, frames = toy_model(shape=ENCODERS[encoder]), pictures(*batch)
    latents = model.embed(frames)
    assert latents.shape == (*batch, D) and latents.dtype == torch.float32
    one = model.embed(frames.flatten(0, len(batch) - 1)[1:2])[0]
    torch.testing.assert_close(latents.flatten(0, -2)[1], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_embed_sees_the_picture(encoder: str) -> None:
    latents = toy_model(shape=ENCODERS[encoder]).embed(torch.cat([pictures(2), pictures(1)]))
    torch.testing.assert_close(latents[0], latents[2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(latents[0], latents[1], atol=1e-2)


def test_the_place_of_a_feature() -> None:
    """One hot cell is where it is; two equal ones are in the middle; nothing anywhere is the picture's centre."""
    cells = torch.linspace(-1, 1, 5)
    maps = torch.full((1, 3, 5, 5), -1e4)
    maps[0, 0, 1, 4] = 0.0  # row 1, column 4
    maps[0, 1, 0, 0] = maps[0, 1, 4, 2] = 0.0
    maps[0, 2] = 7.0
    torch.testing.assert_close(places(maps, cells), torch.tensor([[1.0, -0.5, 0.0, -0.5, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("encoder", "changes"), [("keypoints", {"latent_dim": 7}), ("vit", {"width": 32})], ids=["odd", "heads"]
)
def test_an_encoder_of_a_shape_that_it_has_not(encoder: str, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"{encoder} encoder|keypoint encoder"):
        toy_model(shape=replace(SHAPE, encoder=encoder, **changes))


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (torch.zeros(2, SIZE, SIZE, 3), r"float32 \[2, 32, 32, 3\]"),
        (torch.full((2, SIZE, SIZE, 3), math.nan), "float32"),
        (torch.zeros(2, 64, 64, 3, dtype=torch.uint8), r"uint8 \[2, 64, 64, 3\]"),
        (torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), r"uint8 \[2, 3, 32, 32\]"),
        (torch.zeros(2, SIZE, SIZE, 1, dtype=torch.uint8), "uint8"),
        (torch.zeros(SIZE, 3, dtype=torch.uint8), "uint8"),
    ],
)
def test_embed_refuses_other_pictures(pixels: Tensor, got: str) -> None:
    with pytest.raises(BadInput, match=rf"`pixels` is off; expected uint8 \[\.\.\., 32, 32, 3\]; got {got}"):
        toy_model().embed(pixels)


@pytest.mark.parametrize("encoder", ["conv", "keypoints", "vit"])
def test_a_new_retina_changes_nothing(encoder: str) -> None:
    """Latents, and so whatever was trained on them, are the same bit by bit until it has learned something."""
    model = toy_model(shape=ENCODERS[encoder])
    adapted, frames = model.adapted(), pictures(4)
    assert adapted.config == replace(model.config, encoder=f"{encoder}+retina")
    assert torch.equal(adapted.embed(frames), model.to(memory_format=torch.channels_last).embed(frames))
    assert {name for name in adapted.state_dict() if ".retina." not in name} == {
        name.replace("encoder.", "encoder.encoder.", 1) if name.startswith("encoder.") else name
        for name in model.state_dict()
    }
    assert adapted.adapted() is adapted and not adapted.training


@pytest.mark.parametrize("encoder", ["conv", "keypoints", "vit"])
def test_a_new_gaze_changes_nothing_to_speak_of(encoder: str) -> None:
    """It reads pictures off at their own pixels, up to rounding, whether the retina is old or new."""
    model = toy_model(shape=ENCODERS[encoder])
    adapted, frames = model.adapted(), pictures(4)
    for start in (model, adapted):
        gazing = start.adapted(gaze=True)
        assert gazing.config == replace(model.config, encoder=f"{encoder}+retina+gaze")
        assert gazing.adapted(gaze=True) is gazing.adapted() is gazing
        torch.testing.assert_close(gazing.embed(frames), adapted.embed(frames), atol=1e-4, rtol=1e-4)
    kept = {name: value for name, value in gazing.state_dict().items() if ".gaze." not in name}
    assert kept.keys() == adapted.state_dict().keys()
    assert all(torch.equal(value, kept[name]) for name, value in adapted.state_dict().items())


@pytest.mark.parametrize("encoder", ["conv", "keypoints"])
@pytest.mark.parametrize("gaze", [False, True])
def test_a_new_surround_changes_nothing(encoder: str, gaze: bool) -> None:
    """And whatever an encoder has of what it may have, more of it joins, in whichever order it is asked for."""
    model, frames = toy_model(shape=ENCODERS[encoder]), pictures(4)
    adapted = model.adapted(gaze=gaze)
    for start in (model, adapted):
        grown = start.adapted(gaze=gaze, surround=True)
        assert grown.config.encoder == f"{adapted.config.encoder}+surround"
        assert torch.equal(grown.embed(frames), adapted.embed(frames))
        assert grown.adapted(surround=True) is grown.adapted(gaze=gaze) is grown.adapted() is grown
    last = grown.adapted(gaze=True)
    assert last.config.encoder == f"{encoder}+retina+gaze+surround"
    assert set(grown.state_dict()) <= set(last.state_dict())


def test_a_surround_tells_a_place_what_is_far_from_it() -> None:
    """What stands in one corner decides what is found in the other, whatever stands there itself."""
    torch.manual_seed(0)
    surround = Surround(8, deep=16)
    optimizer = torch.optim.Adam(surround.parameters(), 1e-2)
    for _ in range(200):
        features = torch.randn(32, 8, 8, 8)
        features[..., :2, :2] = sign = torch.randint(2, (32, 1, 1, 1)) * 2.0 - 1
        error = (surround(features) - features)[:, 0, -1, -1] - sign.flatten()
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    assert error.square().mean() < 0.2


def test_a_gaze_moves_pictures_back() -> None:
    """A shift of whole pixels in any direction is undone, to the pixel; what was cut off at the edge is not known."""
    gaze, image = Gaze(16), pictures(1)[:, :16, :16].movedim(-1, 1) / 127.5 - 1
    for right, down in ((1, 0), (0, -1), (-1, 1)):
        moved = image.roll((down, right), (2, 3))
        aside = torch.atanh(torch.tensor([right, down]) / gaze.reach)
        gaze.aside[-1].bias.data.copy_(aside)
        torch.testing.assert_close(gaze.shift(moved), torch.tensor([[right, down]], dtype=torch.float32))
        torch.testing.assert_close(gaze(moved)[..., 2:-2, 2:-2], image[..., 2:-2, 2:-2], atol=1e-4, rtol=1e-4)


def test_a_gaze_learns_to_follow_an_edge_and_not_what_moves_before_it() -> None:
    """A frame that lies aside is told from a square that does."""
    torch.manual_seed(0)
    gaze = Gaze(16)
    optimizer = torch.optim.Adam(gaze.parameters(), 1e-2)

    def scene(n: int) -> tuple[Tensor, Tensor]:
        """A frame, a square anywhere in it, and the same a pixel aside."""
        plain = torch.full((n, 3, 16, 16), -1.0)
        plain[..., 2:-2, 2:-2] = 1.0
        for picture, (y, x) in zip(plain, torch.randint(3, 10, (n, 2)).tolist(), strict=True):
            picture[:, y : y + 3, x : x + 3] = 0.0
        steps = torch.randint(-1, 2, (n, 2)).tolist()
        return plain, torch.stack([one.roll(step, (1, 2)) for one, step in zip(plain, steps, strict=True)])

    for _ in range(300):
        plain, aside = scene(32)
        loss = (gaze(aside) - plain).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plain, aside = scene(32)
    with torch.no_grad():
        assert (gaze(aside) - plain).abs().mean() < 0.02 < 0.1 < (aside - plain).abs().mean()
        assert (gaze(plain) - plain).abs().mean() < 0.02


@pytest.mark.parametrize("encoder", ["conv", "keypoints", "vit"])
def test_a_joined_encoder_believes_the_exact_one_where_both_agree(encoder: str) -> None:
    """These pictures keep their latents bit by bit, the others have the taught one's, whatever else is in the batch."""
    model = toy_model(shape=ENCODERS[encoder]).to(memory_format=torch.channels_last)
    taught, frames = toy_model(7, ENCODERS[encoder]).adapted(), pictures(6)
    plain, strange = model.embed(frames), taught.embed(frames)
    distance = (plain - strange).square().mean(1)
    for apart in (0.0, distance.median().item(), distance.max().item()):
        joined = model.joined(taught, apart)
        assert joined.config == replace(model.config, encoder=f"{encoder}+joined") and not joined.training
        agree = distance <= torch.tensor(apart)
        assert agree.sum() == {0.0: 0, distance.max().item(): 6}.get(apart, 3)
        assert torch.equal(joined.embed(frames), torch.where(agree[:, None], plain, strange))
    between = distance.sort().values[2:4].mean().item()  # alone, a picture's latent is rounded otherwise
    joined = model.joined(taught, between)
    torch.testing.assert_close(torch.cat([joined.embed(one[None]) for one in frames]), joined.embed(frames))


def test_encoders_are_joined_that_fit() -> None:
    model, taught = toy_model(), toy_model().adapted()
    with pytest.raises(BadInput, match=r"does not fit: encoder; expected conv\+retina; got conv; .*jepa-mpc looks"):
        model.joined(toy_model(), 0.1)
    with pytest.raises(BadInput, match=r"does not fit: latent_dim; expected \d+; got 10"):
        model.joined(toy_model(shape=replace(SHAPE, latent_dim=10)).adapted(), 0.1)
    with pytest.raises(BadInput, match=r"expected a bare one; got 'conv\+retina'"):
        taught.joined(taught, 0.1)


def test_a_taught_encoder_brings_its_gaze_along() -> None:
    """A picture that it moves back is seen so, joined or not; and its surround."""
    model, taught, frames = toy_model(), toy_model().adapted(gaze=True, surround=True), pictures(4)
    turn_aside(taught.encoder)
    joined = model.joined(taught, 0.0)
    assert joined.config.encoder == "conv+joined+gaze+surround"
    assert torch.equal(joined.embed(frames), taught.embed(frames))
    assert (joined.embed(frames) - model.embed(frames)).abs().max() > 1e-3


def turn_aside(encoder: torch.nn.Module) -> None:
    """Gives a gaze something to do: a third of a pixel to the right, two thirds up."""
    encoder.gaze.aside[-1].bias.data.copy_(torch.tensor([0.17, -0.35]))


def test_only_what_comes_with_a_retina_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.ENCODERS, "mine", encoders.ConvEncoder)
    stranger = toy_model(shape=replace(SHAPE, encoder="mine"))
    with pytest.raises(BadInput, match=r"no retina for this encoder; expected conv or .*; got 'mine'; .*--no-retina"):
        stranger.adapted()
    with pytest.raises(BadInput, match=r"no gaze for this encoder; .* leave --gaze out, and give --no-retina"):
        stranger.adapted(gaze=True)
    with pytest.raises(BadInput, match=r"no surround for this encoder; expected conv or .*; got 'vit'; leave --surr"):
        toy_model(shape=ENCODERS["vit"]).adapted(surround=True)
    with pytest.raises(BadInput, match=r"got 'vit\+retina'; leave --surround out$"):
        toy_model(shape=ENCODERS["vit"]).adapted().adapted(surround=True)


@pytest.mark.parametrize("name", encoders.BUILT_IN)
def test_an_encoder_s_name_is_taken_apart_and_put_together(name: str) -> None:
    """It was cut, and looked for words in, wherever somebody wanted to know one part of it."""
    parts = encoders.EncoderName.parse(name)
    assert parts.name == name and parts.base in ("conv", "keypoints", "vit")
    assert not (parts.retina and parts.joined) and parts.adapted == ("+" in name)
    said = {part for part in ("retina", "joined", "gaze", "surround") if getattr(parts, part)}
    assert said == set(name.split("+")[1:])


def test_a_stranger_s_name_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder called "mine+gazebo" was taken for one with a gaze, and not trained without shifted pictures."""
    for name in ("mine+gazebo", "mine+gaze", "+retina", "retina", "mine+retina+more", ""):
        assert encoders.EncoderName.parse(name) == encoders.EncoderName(name)
    mine = encoders.EncoderName.parse("mine+own+joined+surround")
    assert mine == encoders.EncoderName("mine+own", joined=True, surround=True)
    monkeypatch.setitem(encoders.ENCODERS, "mine+gazebo", encoders.ConvEncoder)
    check_start(replace(SHAPE, encoder="mine+gazebo"), replace(TRAINING, augment=0.0), None)


def test_a_retina_takes_one_grey_for_another_under_another_light() -> None:
    """A dim white floor and a grey one are the same grey: what tells them apart is the rest of the picture."""
    torch.manual_seed(0)
    retina = Retina(8, 16)
    optimizer = torch.optim.Adam(retina.parameters(), 1e-2)

    def lit(light: Tensor) -> tuple[Tensor, Tensor]:
        """A square as bright as half of the floor, somewhere: as it is, and dimmed."""
        plain = torch.full((len(light), 3, 16, 16), 0.9)
        for picture, (y, x) in zip(plain, torch.randint(0, 10, (len(light), 2)).tolist(), strict=True):
            picture[:, y : y + 6, x : x + 6] = 0.45
        return 2 * plain - 1, 2 * plain * light[:, None, None, None] - 1

    for _ in range(250):
        plain, dim = lit(0.5 + 0.5 * torch.rand(16))
        loss = (retina(dim) - plain).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plain, dim = lit(torch.tensor([0.5, 0.6, 0.75, 1.0]))
    with torch.no_grad():
        assert (retina(dim) - plain).abs().mean() < 0.05 < 0.2 < (dim - plain).abs().mean()


@pytest.mark.parametrize("history", [1, 2, 3])
def test_it_is_a_world_model(history: int) -> None:
    model = toy_model(shape=JEPAConfig(image_size=SIZE, width=8, latent_dim=D, history=history, hidden=16))
    check_world_model(model, TensorDict({"pixels": pictures(3, history)}, batch_size=[3, history]))


@pytest.mark.parametrize("history", [1, 2, 3])
def test_a_rollout_is_one_prediction_after_the_other(history: int) -> None:
    """Written out for every candidate by itself: the last H latents and the H actions that follow each."""
    model = toy_model(shape=JEPAConfig(image_size=SIZE, width=8, latent_dim=D, history=history, hidden=16))
    start, actions = context(2, history), noise(2, 3, 4, A, seed=3).clamp(-1, 1)
    futures = model.rollout(start, actions)
    assert futures.batch_size == (2, 3, 4) and futures["latent"].shape == (2, 3, 4, D)
    for e in range(2):
        for s in range(3):
            latents = list(start.latent["latent"][e])
            done = list(start.actions[e])
            for t in range(4):
                done.append(actions[e, s, t])
                latents.append(model.predictor(torch.stack(latents[-history:]), torch.stack(done[-history:])))
                torch.testing.assert_close(futures["latent"][e, s, t], latents[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", [*ENCODERS, "stranger"])
def test_a_model_in_double_precision_is_the_same_model(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures came to it in float32, as do the actions that a planner draws, and torch refused to multiply them."""
    backbone = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, D))
    monkeypatch.setitem(encoders.ENCODERS, "stranger", lambda *_: encoders.FeatureEncoder(backbone, D))
    shape = ENCODERS.get(encoder, replace(SHAPE, encoder="stranger"))
    model = toy_model(shape=shape)
    looks = TensorDict({"pixels": pictures(2, shape.history)}, batch_size=[2, shape.history])
    past, actions = noise(2, shape.history - 1, A, seed=1).clamp(-1, 1), noise(2, 3, 4, A, seed=3).clamp(-1, 1)
    with torch.no_grad():
        found = [
            one.rollout(Context(one.encode(looks), past), actions)["latent"]
            for one in (model, deepcopy(model).double())
        ]
    assert found[1].dtype == torch.float64
    torch.testing.assert_close(found[1].float(), found[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("packed", [True, False])
def test_a_model_in_double_precision_plans(packed: bool) -> None:
    """With all that a checkpoint may have: a prior that is told what was done was handed float32."""
    parts = replace(SHAPE, prior=8, prior_horizon=3, prior_past=True, temporal=4, slow=2)
    settings = PlannerConfig(samples=8, iterations=2, horizon=3, proposals=4, metric="temporal+slow", hold=1)
    seen, goal = (TensorDict({"pixels": one[None]}, batch_size=[1]) for one in pictures(2))
    model = toy_model(shape=parts).double()
    policy = settings.build(model, 0)
    if not packed:
        policy.model = model
    policy.reset(seen, goal)
    assert np.isfinite(policy.act(seen)).all() and policy.fallbacks == 0
    assert policy.last_context is not None and policy.last_context.latent["latent"].dtype == torch.float64


def test_every_candidate_sees_the_same_context() -> None:
    model, start = toy_model(), context(2, SHAPE.history)
    actions = noise(2, 1, 3, A).expand(-1, 5, -1, -1)
    futures = model.rollout(start, actions)["latent"]
    # Not to the last bit: a matrix product may sum the rows at its edge in another order.
    torch.testing.assert_close(futures, futures[:, :1].expand_as(futures), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(futures[0], futures[1], atol=1e-2)


def test_a_rollout_depends_on_the_whole_history() -> None:
    model, start = toy_model(), context(1, SHAPE.history)
    actions = noise(1, 2, 1, A)
    before = model.rollout(start, actions)["latent"]
    older = start.latent.clone()
    older["latent"][:, 0] += 1
    assert not torch.allclose(model.rollout(Context(older, start.actions), actions)["latent"], before, atol=1e-3)
    assert not torch.allclose(
        model.rollout(Context(start.latent, start.actions + 1), actions)["latent"], before, atol=1e-3
    )


def test_the_size_that_the_issue_asks_for() -> None:
    """About a million parameters with default settings."""
    count = sum(weight.numel() for weight in JEPA(JEPAConfig(), SPEC).parameters())
    assert 0.3e6 < count < 3e6


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": "resnet"},
        {"predictor": "os.system"},
        {"image_size": 40},
        {"image_size": 0},
        {"image_size": 64.0},
        {"width": 6},
        {"width": 0},
        {"latent_dim": 1},
        {"latent_dim": 5000},
        {"history": 0},
        {"hidden": 2},
        {"depth": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": math.nan},
        {"heads": 2},
        {"predictor": "transformer"},
        {"predictor": "transformer", "heads": 65},
    ],
)
def test_a_shape_that_is_off(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="expected"):
        JEPAConfig(**changes)


# SIGReg ------------------------------------------------------------------------------------------------------------


def naive_sigreg(latents: Tensor, axes: Tensor) -> float:
    """The definition, one direction, one knot and one sample after the other, in double precision."""
    n, total = len(latents), 0.0
    knots = [3 * i / 16 for i in range(17)]
    for axis in (axes / axes.norm(dim=0)).double().T:
        values = (latents.double() @ axis).tolist()
        gaps = []
        for t in knots:
            real = sum(math.cos(t * v) for v in values) / n - math.exp(-t * t / 2)
            imaginary = sum(math.sin(t * v) for v in values) / n
            gaps.append((real**2 + imaginary**2) * math.exp(-t * t / 2))
        total += sum((a + b) / 2 * (3 / 16) for a, b in zip(gaps, gaps[1:], strict=False))
    return n * total / axes.shape[1]


@pytest.mark.parametrize(
    "latents", [noise(20, 5), noise(30, 3) * 2 + 1, torch.zeros(10, 4)], ids=["normal", "off", "zero"]
)
def test_sigreg_is_its_formula(latents: Tensor) -> None:
    axes = torch.randn(latents.shape[1], 7, generator=seeded(4), dtype=torch.float64)
    assert float(sigreg(latents.double(), 7, seeded(4))) == pytest.approx(naive_sigreg(latents, axes), rel=1e-9)
    assert sigreg(latents, 7, seeded(4)).dtype == torch.float32


def test_sigreg_is_half_the_published_one() -> None:
    """The statistic is an integral over every t, below 0 too: published weights are to be doubled.

    Found on a fine grid, by complex exponentials; three standard deviations of the weight are nearly all of it.
    """
    latents = noise(64, 8).double()
    axes = torch.randn(8, 5, generator=seeded(4), dtype=torch.float64)
    t = torch.linspace(-3, 3, 4001, dtype=torch.float64)
    empirical = torch.exp(1j * (latents @ (axes / axes.norm(dim=0))).unsqueeze(-1) * t).mean(0)
    normal = torch.exp(-t.square() / 2)
    published = 64 * torch.trapezoid((empirical - normal).abs().square() * normal, t).mean()
    assert 2 * float(sigreg(latents, 5, seeded(4))) == pytest.approx(float(published), rel=1e-2)


def test_sigreg_of_several_batches_is_the_mean_of_each() -> None:
    """LeWM's is of the first frames of all windows, of the second ones, and so on: [frames, windows, features]."""
    frames = torch.stack([noise(20, 5), noise(20, 5, seed=1) + 1])
    each = [float(sigreg(one, 7, seeded(4))) for one in frames]
    assert float(sigreg(frames, 7, seeded(4))) == pytest.approx(sum(each) / 2, rel=1e-5)
    assert float(sigreg(frames.flatten(0, 1), 7, seeded(4))) != pytest.approx(sum(each) / 2, rel=0.1)


@pytest.mark.parametrize("apart", [True, False])
def test_frames_that_are_alike_are_as_normal_as_others_where_sigreg_looks_at_them_apart(apart: bool) -> None:
    """Taken together they count as so many independent ones: LeWM's recipe was trained so, against what is slow."""
    config = replace(TRAINING, horizon=1, sigreg_apart=apart, sigreg_directions=256, inverse_weight=0.0)
    training = JEPATraining(toy_model(), config, info())
    still = noise(64, D).unsqueeze(1).expand(-1, 4, -1)  # windows in which nothing moves
    training.look = lambda batch: still  # type: ignore[method-assign]
    value = float(training.losses(TensorDict({"actions": torch.zeros(64, 3, A)}, batch_size=[64]))["sigreg"])
    assert (value < 0.8) == apart and value > 0.3


def test_sigreg_of_a_standard_normal_does_not_depend_on_how_many_there_are() -> None:
    """In expectation it is the integral of (1 - exp(-t^2)) exp(-t^2 / 2) over [0, 3], which is 0.526."""
    for n in (64, 512, 2048):
        values = [float(sigreg(noise(n, 16, seed=k), 64, seeded(k))) for k in range(20)]
        assert sum(values) / 20 == pytest.approx(0.526, abs=0.12)


def test_sigreg_sees_what_is_wrong() -> None:
    good, two = noise(512, 8), torch.sign(noise(512, 8))
    level = float(sigreg(good, 64, seeded()))
    wrong = {
        "collapsed": torch.zeros(512, 8),
        "a line": noise(512, 1) @ noise(1, 8, seed=1),
        "bimodal": two[:, :1].expand(-1, 8) + 0.1 * good,
        "too narrow": 0.3 * good,
        "too wide": 3 * good,
        "off centre": good + 1,
    }
    for name, latents in wrong.items():
        assert float(sigreg(latents, 64, seeded())) > 10 * level, name


def test_sigreg_pulls_a_collapsed_batch_apart() -> None:
    """Its gradient is finite even at full collapse but for symmetry, and following it spreads the latents."""
    latents = (1e-3 * noise(128, 4)).requires_grad_()
    optimizer = torch.optim.Adam([latents], 0.05)
    for step in range(200):
        optimizer.zero_grad()
        sigreg(latents, 32, seeded(step)).backward()
        assert latents.grad is not None and latents.grad.isfinite().all()
        optimizer.step()
    torch.testing.assert_close(latents.std(0), torch.ones(4), atol=0.3, rtol=0)
    assert float(effective_rank(latents.detach())) > 3.5


def test_sigreg_draws_its_directions_from_the_generator() -> None:
    latents, before = noise(32, 4), torch.get_rng_state()
    assert sigreg(latents, 8, seeded(1)) == sigreg(latents, 8, seeded(1)) != sigreg(latents, 8, seeded(2))
    assert torch.equal(before, torch.get_rng_state())


# The other terms ---------------------------------------------------------------------------------------------------


def test_covariance_by_hand() -> None:
    """Two features that are the same have covariance c off the diagonal, twice, over D; independent ones have none."""
    column = torch.tensor([-1.0, 0.0, 1.0])[:, None]  # variance 1
    assert float(covariance(column.expand(-1, 2))) == pytest.approx(1.0)
    assert float(covariance(torch.cat([2 * column, -column, 0 * column], 1))) == pytest.approx(8 / 3)
    assert float(covariance(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))) == pytest.approx(0)


@pytest.mark.parametrize("d", [4, 32])
def test_effective_rank_counts_the_dimensions_in_use(d: int) -> None:
    assert float(effective_rank(noise(4000, d))) == pytest.approx(d, rel=0.03)
    assert float(effective_rank(noise(4000, 1) @ noise(1, d))) == pytest.approx(1, abs=0.01)
    half = noise(4000, d) * (torch.arange(d) < d // 2)
    assert float(effective_rank(half + 5)) == pytest.approx(d / 2, rel=0.03)


def test_effective_rank_of_one_point_is_one() -> None:
    """It was that of independent features, so that nobody warned of a blind camera."""
    assert effective_rank(torch.zeros(10, 4)) == effective_rank(torch.ones(10, 4)) == 1


def test_rollout_loss_by_hand() -> None:
    """H = 2, four frames 0, 1, 2, 3: predictions one step ahead are of frames 2 and 3, two ahead of frame 3."""
    latents = torch.arange(4.0).reshape(1, 4, 1)
    one = torch.tensor([2.5, 3.0]).reshape(1, 2, 1)  # errors 0.5 and 0: mean square 0.125
    two = torch.tensor([1.0]).reshape(1, 1, 1)  # error 2: square 4
    assert float(rollout_loss([one], latents, 2, 0.5)) == pytest.approx(0.125)
    assert float(rollout_loss([one, two], latents, 2, 0.5)) == pytest.approx((0.125 + 0.5 * 4) / 1.5)
    assert float(rollout_loss([one, two], latents, 2, 1.0)) == pytest.approx((0.125 + 4) / 2)
    assert float(rollout_loss([one, two], latents, 2, 1.0, lengths=True)) == pytest.approx((0.25 + 2) / 2, abs=6e-3)


def test_lengths_make_small_errors_count() -> None:
    """By squares what is a little off where nothing happens weighs nothing beside one step in which much does: resting
    robots were foreseen to push blocks about (decision 122)."""
    small, large = torch.full((1, 2, 3), 0.03).requires_grad_(), torch.full((1, 2, 3), 1.0).requires_grad_()
    for lengths, most in ((False, 0.031), (True, 1.0)):
        loss = rollout_loss([torch.cat([small, large])], torch.zeros(2, 4, 3), 2, 0.8, lengths)
        slopes = [slope.abs().mean() for slope in torch.autograd.grad(loss, [small, large])]
        assert 0.9 * most < float(slopes[0] / slopes[1]) <= most
    nothing = torch.zeros(1, 2, 3, requires_grad=True)
    rollout_loss([nothing], torch.zeros(1, 4, 3), 2, 0.8, lengths=True).backward()
    assert nothing.grad is not None and not nothing.grad.any(), "the root of 0 has no slope"


# What training predicts --------------------------------------------------------------------------------------------


def training_of(history: int, horizon: int, cold: float = 0.0) -> JEPATraining:
    shape = JEPAConfig(image_size=SIZE, width=8, latent_dim=D, history=history, hidden=16)
    knobs = {**vars(TRAINING), "horizon": horizon, "cold_starts": cold}
    return JEPATraining(toy_model(shape=shape), type(TRAINING)(**knobs), info())


@pytest.mark.filterwarnings("ignore:You are trying to:UserWarning")
def test_each_term_of_the_loss_has_its_own_weight() -> None:
    """With two of the weights swapped no test failed."""
    wanted = {"prediction": 1.0, "sigreg": 2.0, "covariance": 30.0, "inverse": 400.0}
    config = replace(TRAINING, **{f"{name}_weight": weight for name, weight in wanted.items() if name != "prediction"})
    training = JEPATraining(toy_model(), config, info())
    for name, weight in wanted.items():
        alone = {term: torch.tensor(float(term == name)) for term in wanted}
        training.losses = lambda batch, alone=alone: alone  # type: ignore[method-assign, misc]
        assert float(training.training_step(TensorDict({}, batch_size=[]), 0)) == weight


@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2)])
def test_training_predicts_what_planning_would(history: int, horizon: int) -> None:
    """All starts at once are the same as `unroll`, with which plans are rehearsed, from every start by itself."""
    training = training_of(history, horizon).eval()
    frames = history + horizon + 2
    latents, actions = noise(3, frames, D), noise(3, frames - 1, A, seed=1).clamp(-1, 1)
    predicted = training._predict(latents, actions)
    assert [step.shape for step in predicted] == [(3, frames - history + 1 - k, D) for k in range(1, horizon + 1)]
    for start in range(frames - history):
        ahead = min(horizon, frames - history - start)
        seen, past = latents[:, start : start + history], actions[:, start : start + history - 1]
        coming = actions[:, start + history - 1 : start + history - 1 + ahead]
        foreseen = training.model.predictor.unroll(seen, past, coming.unsqueeze(1))[:, 0]
        for k, expected in enumerate(foreseen.unbind(1)):
            torch.testing.assert_close(predicted[k][:, start], expected, rtol=1e-4, atol=1e-4)


def test_no_prediction_looks_ahead() -> None:
    """Frames after a start, and actions after the foreseen step, must not leak into the prediction."""
    training = training_of(history=2, horizon=2).eval()
    latents, actions = noise(2, 5, D), noise(2, 4, A, seed=1).clamp(-1, 1)
    before = training._predict(latents, actions)
    latents[:, 2:], actions[:, 3:] = 9.0, 9.0
    after = training._predict(latents, actions)
    assert torch.equal(before[0][:, 0], after[0][:, 0]) and torch.equal(before[1][:, 0], after[1][:, 0])
    assert not torch.allclose(before[0][:, 1], after[0][:, 1])


def test_cold_starts_hide_the_history() -> None:
    """As `MPC` begins an episode: the first frame fills the history, with actions at rest in between."""
    training = training_of(history=2, horizon=2, cold=1.0).train()
    latents, actions = noise(3, 4, D), noise(3, 3, A, seed=1).clamp(-1, 1)
    predicted = training._predict(latents, actions)
    for start in range(2):
        seen = latents[:, start + 1 : start + 2].expand(-1, 2, -1)
        rest = torch.zeros(3, 1, A)  # bounds are symmetric, so rest is the middle
        coming = actions[:, start + 1 : start + 3]
        foreseen = training.model.predictor.unroll(seen, rest, coming.unsqueeze(1))[:, 0]
        for k, expected in enumerate(foreseen.unbind(1)):
            torch.testing.assert_close(predicted[k][:, start], expected, rtol=1e-4, atol=1e-4)


def test_a_growing_window_is_learned_from_at_every_length() -> None:
    """LeWM's loss has a target after one, two and three frames; ours had the last of them alone, and was called its."""
    shape = JEPAConfig(SHAPE.encoder, "transformer", SIZE, 8, D, history=3, hidden=16, depth=1, heads=1)
    config = replace(TRAINING, horizon=1, cold_starts=0.0, growing=True)
    training = JEPATraining(toy_model(shape=shape), config, info()).eval()
    latents, actions = noise(5, 4, D), noise(5, 3, A, seed=1)
    ahead = [training.model.predictor(latents[:, :n], actions[:, :n]) for n in (1, 2, 3)]
    expected = torch.stack([(one - latents[:, n]).square().mean() for n, one in enumerate(ahead, 1)]).mean()
    torch.testing.assert_close(training.off(training.ahead(latents, actions)), expected)
    training.config = replace(config, growing=False)
    torch.testing.assert_close(
        training.off(training.ahead(latents, actions)), (ahead[2] - latents[:, 3]).square().mean()
    )


def test_a_growing_window_is_refused_where_the_history_has_one_length() -> None:
    config = replace(TRAINING, growing=True)
    with pytest.raises(BadInput, match="growing windows do not fit the predictor.*such as \"transformer\"; got 'mlp'"):
        JEPATraining(toy_model(), config, info())
    with pytest.raises(BadInput, match="growing windows do not fit"):
        check_shape(SHAPE, config, SPEC, 1000)


def test_validation_has_no_cold_starts() -> None:
    latents, actions = noise(3, 4, D), noise(3, 3, A, seed=1)
    warm, cold = (training_of(2, 2, share).eval()._predict(latents, actions) for share in (0.0, 1.0))
    assert all(torch.equal(one, other) for one, other in zip(warm, cold, strict=True))


def test_the_inverse_model_learns_from_how_the_latent_moved() -> None:
    """Its term is zero exactly where it decodes the actions, and the action of step t comes from frames t and t + 1."""
    training = training_of(2, 1).eval()
    batch = TensorDict({"pixels": pictures(4, 3), "actions": noise(4, 2, A)}, batch_size=[4])
    terms = training.losses(batch)
    z = terms["latents"]
    decoded = torch.stack([training.model.inverse(torch.cat([z[:, t], z[:, t + 1] - z[:, t]], -1)) for t in (0, 1)], 1)
    assert float(terms["inverse"]) == pytest.approx(float((decoded - batch["actions"]).square().mean()), rel=1e-4)
    batch["actions"] = decoded
    assert float(training.losses(batch)["inverse"]) == pytest.approx(0, abs=1e-6)


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor) and (at := tensor.untyped_storage().data_ptr()) not in self.known:
                given = [x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor) and not x.is_mkldnn]
                if at in given:
                    continue  # a view of what was there
                size = tensor.untyped_storage().nbytes()
                self.known.add(at)
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(tensor.untyped_storage(), self.gone, at, size)
        return made

    def gone(self, at: int, size: int) -> None:
        self.known.discard(at)
        self.now -= size


TRANSFORMER = replace(SHAPE, predictor="transformer", heads=2, history=3, depth=2)


@pytest.mark.parametrize(
    "shape", [SHAPE, replace(SHAPE, predictor="gated"), TRANSFORMER], ids=["mlp", "gated", "transformer"]
)
@pytest.mark.parametrize(("environments", "candidates", "horizon"), [(1, 64, 5), (4, 32, 2), (2, 50, 12)])
def test_memory_stays_within_what_is_promised(
    shape: JEPAConfig, environments: int, candidates: int, horizon: int
) -> None:
    """The promise that `max_bytes` is kept by, against the memory that tensors really took."""
    model = toy_model(shape=shape)
    latents = torch.randn(environments, shape.history, shape.latent_dim)
    context = Context(
        TensorDict({"latent": latents}, batch_size=latents.shape[:2]),
        torch.zeros(environments, shape.history - 1, SPEC.dim),
    )
    goal = TensorDict({"latent": latents[:, 0]}, batch_size=[environments])
    actions = torch.rand(environments, candidates, horizon, SPEC.dim) * 2 - 1
    with torch.no_grad(), Live() as live:
        LatentDistance(over="min")(model.rollout(context, actions), goal, actions)
    promised = environments * candidates * model.bytes_per_plan(horizon)
    assert 0.4 * promised < live.peak <= promised


@pytest.mark.parametrize(
    "energy",
    [
        LatentDistance("cosine", over="all", weights=(1.0,) * 256),
        ObjectDistance("cosine", over="all", body=torch.eye(256)[:, :4], weights=(1.0,) * 256),
        Goals("sequence"),
    ],
    ids=["cosine", "object", "sequence"],
)
@pytest.mark.parametrize("followed", [False, True])
def test_memory_stays_within_what_is_promised_whatever_judges(energy: Any, followed: bool) -> None:
    """Where a latent is wide beside its predictor, judging takes most: three of its size were counted, not five."""
    shape, horizon = replace(SHAPE, latent_dim=256, hidden=16), 8
    model = toy_model(shape=shape).requires_grad_(False)
    latents = torch.randn(2, shape.history, 256)
    context = Context(TensorDict({"latent": latents}, batch_size=[2, shape.history]), torch.zeros(2, 1, SPEC.dim))
    targets = torch.randn(2, 3, 256) if isinstance(energy, Goals) else latents[:, 0]
    goal = TensorDict({"latent": targets}, batch_size=[2])
    actions = (torch.rand(2, 64, horizon, SPEC.dim) * 2 - 1).requires_grad_(followed)
    width, rows = rollout_size(model, 2, horizon, None, (limit := 40 * 2**20), followed=3 * followed)
    assert min(width, rows) >= 2, "else nothing is shown"
    with torch.set_grad_enabled(followed), Live() as live:
        cost = energy(model.rollout(context, actions), goal, actions)
        if followed:
            torch.autograd.grad(cost.sum(), actions)
    assert live.peak * (width * rows) / (2 * 64) <= limit


@pytest.mark.parametrize("goals", [1, 16, 32])
@pytest.mark.parametrize("predictor", ["mlp", "gated"])
def test_memory_stays_within_what_is_promised_for_many_goals(goals: int, predictor: str) -> None:
    """Of each goal the head's layers are held until they are differentiated: 32 took 2.8 times the memory allowed."""
    horizon = 5
    model = toy_model(shape=replace(SHAPE, predictor=predictor, temporal=64)).requires_grad_(False)
    size = model.config.latent_dim
    latents, targets = torch.randn(1, SHAPE.history, size), torch.randn(1, goals, size)
    context = Context(TensorDict({"latent": latents}, batch_size=[1, SHAPE.history]), torch.zeros(1, 1, SPEC.dim))
    goal = TensorDict({"latent": targets}, batch_size=[1])
    energy = 0.5 * Goals("all", LearnedDistance(model.temporal)) + LatentDistance(key="first")
    actions = (torch.rand(1, 64, horizon, SPEC.dim) * 2 - 1).requires_grad_()
    assert energy.held(goal) == goals + 1
    limit = 64 * (REMEMBERED + horizon + goals) * model.bytes_per_plan(horizon)
    assert rollout_size(model, 1, horizon, None, limit, followed=goals + 1) == (64, 1)
    with torch.enable_grad(), Live() as live:
        cost = energy.terms[0](model.rollout(context, actions), goal, actions)
        torch.autograd.grad(cost.sum(), actions)
    assert live.peak <= limit
