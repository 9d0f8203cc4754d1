"""Predictors: rehearsing with less work gives what one step after the other gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from planner.models.predictors import GatedPredictor, MLPPredictor, Predictor, TransformerPredictor

D, A, E, S = 6, 4, 2, 3


def mlp(history: int) -> MLPPredictor:
    torch.manual_seed(history)
    return MLPPredictor(D, A, history, hidden=16, depth=2, dropout=0.0).double()


def gated(history: int) -> GatedPredictor:
    """Weights that are all at work: as it is made, its blocks add a constant."""
    torch.manual_seed(history)
    made = GatedPredictor(D, A, history, hidden=16, depth=2, dropout=0.0).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3)
    return made


def transformer(history: int, width: int = D) -> TransformerPredictor:
    """Weights that are all at work: as it is made, its gates are closed."""
    torch.manual_seed(history)
    made = TransformerPredictor(width, A, history, hidden=16, depth=3, heads=2, dropout=0.0).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3)
    return made


def start(frames: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(frames)
    sizes = [(E, frames, D), (E, frames - 1, A), (E, S, steps, A)]
    latents, past, actions = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return latents, past, actions


CASES: list[tuple[Predictor, int]] = [(made(h), h) for made in (mlp, gated) for h in (1, 2, 3)]
CASES += [(transformer(h), n) for h in (1, 2, 3, 4) for n in range(1, h + 1)]


@pytest.mark.parametrize(("predictor", "frames"), CASES, ids=[f"{type(p).__name__}-{p.history}-{n}" for p, n in CASES])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_rehearsing_once_only_is_rehearsing(predictor: Predictor, frames: int, steps: int) -> None:
    """Values and gradients, while the window grows, where it slides over the context, and beyond."""
    latents, past, actions = start(frames, steps)
    actions.requires_grad_()
    found = predictor.unroll(latents, past, actions)
    expected = Predictor.unroll(predictor, latents, past, actions)
    assert found.shape == (E, S, steps, D)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert (expected.amax(1) - expected.amin(1)).min() > 1e-6  # the candidates differ, so the comparison says something
    weight = torch.randn_like(found)
    (slope,) = torch.autograd.grad((found * weight).sum(), actions)
    (exact,) = torch.autograd.grad((expected * weight).sum(), actions)
    torch.testing.assert_close(slope, exact, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("frames", "share"), [(1, 0.75), (3, 0.85)])
def test_a_transformer_does_not_predict_its_history_again(frames: int, share: float) -> None:
    """Counted, with LeWM's window and horizon: 12 or 15 tokens a candidate one step after the other."""
    predictor = TransformerPredictor(64, A, history=3, hidden=256, depth=6, heads=2, dropout=0.0).eval()
    latents, past, actions = torch.zeros(1, frames, 64), torch.zeros(1, frames - 1, A), torch.zeros(1, 50, 5, A)
    spent = []
    for unroll in (predictor.unroll, lambda *given: Predictor.unroll(predictor, *given)):
        with FlopCounterMode(display=False) as counter:
            unroll(latents, past, actions)
        spent.append(counter.get_total_flops())
    assert spent[0] < share * spent[1]


def test_a_transformer_looks_at_its_window_alone() -> None:
    """What has left the window is forgotten; everything in it counts."""
    predictor = transformer(3)
    latents, past, actions = start(3, 1)
    before = predictor.unroll(latents, past, actions)
    for frame in range(3):
        other = latents.clone()
        other[:, frame, 0] += 1  # not all features: a layer norm would not see it
        assert not torch.allclose(predictor.unroll(other, past, actions), before)
    longer = torch.cat([torch.randn(E, 1, D, dtype=torch.float64), latents], 1)
    window = predictor(longer[:, -3:], torch.cat([past, actions[:, 0]], 1))
    torch.testing.assert_close(window, before[:, 0, 0])


def test_an_untrained_transformer_moves_nothing_by_the_action() -> None:
    """AdaLN-zero: gates and modulations start closed, so training starts from a map of the latent alone."""
    predictor = TransformerPredictor(D, A, 2, hidden=16, depth=2, heads=1, dropout=0.0)
    latents = torch.randn(5, 2, D)
    one, other = (predictor(latents, torch.full((5, 2, A), value)) for value in (-1.0, 1.0))
    assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_any_leading_axes(shape: tuple[int, ...]) -> None:
    latents, actions = (torch.randn(*shape, 2, size, dtype=torch.float64) for size in (D, A))
    for predictor in (mlp(2), transformer(2)):
        assert predictor(latents, actions).shape == (*shape, D)


def test_dropout_is_off_while_planning() -> None:
    for predictor in (MLPPredictor(D, A, 2, 16, 2, dropout=0.5), TransformerPredictor(D, A, 2, 16, 2, 2, dropout=0.5)):
        for weight in predictor.parameters():
            weight.data.normal_()
        given = torch.randn(1, 2, D), torch.zeros(1, 1, A), torch.zeros(1, 2, 3, A)
        assert not torch.equal(predictor.train().unroll(*given), predictor.unroll(*given))
        assert torch.equal(predictor.eval().unroll(*given), predictor.unroll(*given))
