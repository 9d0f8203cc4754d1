"""Looks that vary: the same scene, within what is promised, drawn anew for every frame."""

from __future__ import annotations

from dataclasses import replace

import torch
from tensordict import TensorDict
from toys import SIZE, TRAINING, info, toy_model

from planner.augment import vary
from planner.training import JEPATraining


def scene() -> torch.Tensor:
    """Two windows of three frames: a grey room with a bright square."""
    pixels = torch.full((2, 3, 32, 32, 3), 120, dtype=torch.uint8)
    pixels[..., 8:16, 8:16, :] = torch.tensor([200, 60, 40], dtype=torch.uint8)
    return pixels


def test_no_strength_changes_nothing() -> None:
    assert torch.equal(vary(scene(), 0.0), scene())


def test_every_frame_has_a_look_of_its_own_and_the_seed_decides() -> None:
    torch.manual_seed(0)
    one = vary(scene(), 1.0)
    assert one.shape == scene().shape and one.dtype == torch.uint8
    frames = one.flatten(0, 1).float()
    assert min((a - b).abs().mean() for i, a in enumerate(frames) for b in frames[:i]) > 3
    torch.manual_seed(0)
    assert torch.equal(vary(scene(), 1.0), one) and not torch.equal(vary(scene(), 1.0), one)


def test_what_is_shown_stays_where_it_is() -> None:
    """Over many draws light and colours average out, and the square is where it was, give or take a pixel."""
    torch.manual_seed(1)
    many = torch.stack([vary(scene(), 1.0) for _ in range(60)]).float().flatten(0, 2)
    mean = many.mean(0)
    inner = (slice(10, 14), slice(10, 14))
    assert (mean[20:, 20:] - 120).abs().max() < 15
    assert (mean[inner] - torch.tensor([200.0, 60.0, 40.0])).abs().max() < 25
    light = many[:, 25, 25].mean(-1)
    assert light.min() < 90 and light.max() > 150
    discs = (
        ((many[:, 20:, 20:] - many[:, 20:, 20:].mean((1, 2), keepdim=True)).abs().amax((1, 2, 3)) > 80).float().mean()
    )
    assert 0.03 < discs < 0.3


def test_without_the_shift_edges_stand_still() -> None:
    """The pixels on both sides of an edge are the square's and the floor's, as far as discs do not cover them."""
    torch.manual_seed(2)

    def across(shift: bool) -> torch.Tensor:
        """How much brighter the red of the square's last row is than that of the row below, shares of the whole."""
        many = torch.stack([vary(scene(), 1.0, shift=shift) for _ in range(40)]).float().flatten(0, 2)
        return (many[:, 15, 10:14, 0] - many[:, 16, 10:14, 0]).mean() / 80

    assert across(False) > 0.85 and across(True) < 0.75  # a third of the pictures moves up or down


def test_looks_vary_in_training_only() -> None:
    training = JEPATraining(toy_model(), replace(TRAINING, augment=1.0), info())
    batch = TensorDict({"pixels": scene()}, batch_size=[2, 3])
    with torch.no_grad():
        assert torch.equal(training.eval().look(batch), training.model.embed(scene()))
        shown: list[torch.Tensor] = []
        training.train().model.encoder.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
        training.look(batch)
    assert shown[0].shape == (6, SIZE, SIZE, 3) and not torch.equal(shown[0], scene().flatten(0, 1))
