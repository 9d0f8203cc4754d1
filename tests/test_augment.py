"""Looks that vary: the same scene, within what is promised, drawn anew for every frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from toys import SIZE, TRAINING, info, toy_model

from envs.appearance import floor
from planner import augment
from planner.augment import vary
from planner.errors import BadInput
from planner.settings import TrainConfig
from planner.training import JEPATraining
from planner.training.looks import LooksTraining
from planner.training.masked import MaskedTraining


def repainted(pictures: torch.Tensor, strength: float) -> torch.Tensor:
    """Colours last, as pictures have them."""
    return augment.repainted(pictures.movedim(-1, 1), strength).movedim(1, -1)


def floors(pictures: torch.Tensor) -> torch.Tensor:
    return augment.floors(pictures.movedim(-1, 1)).movedim(1, -1)


def clouded(pictures: torch.Tensor, floor: torch.Tensor, strength: float) -> torch.Tensor:
    return augment.clouded(pictures.movedim(-1, 1), floor.movedim(-1, 1), strength).movedim(1, -1)


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


def still_life(n: int) -> torch.Tensor:
    """A grey floor, a wide blue rug and a red speck of four pixels in a thousand, `[n, 32, 32, 3]`."""
    pictures = torch.full((n, 32, 32, 3), 120.0)
    pictures[:, 16:] = torch.tensor([60.0, 80.0, 200.0])
    pictures[:, 4:6, 4:6] = torch.tensor([200.0, 60.0, 40.0])
    return pictures


def test_things_are_repainted_each_on_its_own() -> None:
    """A thing keeps its outline, however small it is, and its new colour says nothing of another's."""
    torch.manual_seed(0)
    plain, painted = still_life(400), repainted(still_life(400), 1.0)
    change = painted - plain
    floor, rug, speck = change[:, 10, 10], change[:, 20, 20], change[:, 4, 4]
    assert torch.equal(change[:, 16:], rug[:, None, None].expand(-1, 16, 32, -1))
    assert torch.equal(change[:, 4:6, 4:6], speck[:, None, None].expand(-1, 2, 2, -1))
    for thing, other in ((speck, floor), (speck, rug), (floor, rug)):
        moved, both = thing.abs().amax(1) > 1, (thing.abs().amax(1) > 1) & (other.abs().amax(1) > 1)
        assert 0.25 < moved.float().mean() < 0.5  # three pictures in four, half of their groups
        assert 0.3 < both.sum() / moved.sum() < 0.7
        together = torch.corrcoef(torch.stack([thing[both, 0], other[both, 0]]))[0, 1]
        assert together.abs() < 0.4
    assert change.abs().max() <= 64 + 0.3 * 200 and speck.abs().max() > 60


def test_repainting_is_asked_for_and_follows_the_seed() -> None:
    looks = []
    for repaint in (False, False, True, True):
        torch.manual_seed(3)
        looks.append(vary(scene(), 1.0, shift=False, repaint=repaint))
    assert torch.equal(looks[0], looks[1]) and torch.equal(looks[2], looks[3]) and not torch.equal(looks[0], looks[2])
    assert torch.equal(vary(scene(), 0.0, repaint=True), scene())
    blank = torch.full((1, 3, 32, 32, 3), 77, dtype=torch.uint8)  # one colour only
    assert vary(blank, 1.0, repaint=True).shape == blank.shape


def test_without_repainting_nothing_more_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes from before there was any keep their meaning: all that repainting adds lies in `repainted`."""
    looks = []
    monkeypatch.setattr("planner.augment.repainted", lambda planes, strength: planes)
    for repaint in (False, True):
        torch.manual_seed(3)
        looks.append(vary(scene(), 1.0, repaint=repaint))
    assert torch.equal(*looks)


def test_repainting_without_looks_is_refused() -> None:
    """It would be read by nothing, and a user would wait an hour for a training that is none."""
    with pytest.raises(BadInput, match=r"repaint without looks; expected augment above 0; .*training.augment above 0"):
        replace(TRAINING, augment=0.0, repaint=True)


LOOKS = replace(TRAINING, augment=1.0, shift=False)
LOOKING: dict[str, Callable[[torch.Tensor, TrainConfig], object]] = {
    "training": lambda pixels, config: JEPATraining(toy_model(), config, info()).look(
        TensorDict({"pixels": pixels}, batch_size=pixels.shape[:2])
    ),
    "masked": lambda pixels, config: MaskedTraining(toy_model().encoder, 8, config).training_step(
        TensorDict({"pixels": pixels[:, 0]}, batch_size=[len(pixels)]), 0
    ),
    "looks": lambda pixels, config: LooksTraining(toy_model().encoder, config).training_step(
        TensorDict({"pixels": pixels[:, 0]}, batch_size=[len(pixels)]), 0
    ),
}


def test_the_floor_is_what_most_of_a_picture_shows() -> None:
    """The same pixels as changes of appearance take it for."""
    pictures = still_life(3)
    pictures[:, 16:20] = 120.0  # the rug is smaller than the floor now
    pictures[1, :, 4:] = torch.tensor([240.0, 10.0, 10.0])  # another floor in one of them
    pictures += torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0)) * 3
    pictures.clamp_(0, 255)
    found = floors(pictures)
    assert found.shape == (3, 32, 32, 1) and 0.3 < found.mean() < 0.95
    for picture, there in zip(pictures, found, strict=True):
        assert (torch.from_numpy(floor(picture.round().numpy())).float() == there).float().mean() > 0.98


def test_clouds_show_through_the_floor_and_nowhere_else() -> None:
    torch.manual_seed(0)
    plain = still_life(400)
    plain[:, 16:20] = 120.0
    there = floors(plain)
    change = clouded(plain, there, 1.0) - plain
    assert (change * (1 - there)).abs().max() == 0
    anywhere = (change.abs().amax((1, 2, 3)) > 8).float().mean()
    assert 0.5 < anywhere < 0.7  # two in three, some of them faint
    covered = (change.abs().amax(-1) > 8).float().sum((1, 2)) / there.sum((1, 2, 3))
    assert (covered > 0.8).float().mean() > 0.1 and ((covered > 0.1) & (covered < 0.6)).float().mean() > 0.1
    assert torch.equal(clouded(plain, there, 0.0), plain)


def test_clouds_are_no_chequered_floor_and_no_screen() -> None:
    """They are to teach what looks are measured with, but not to be it: from one pixel to the next they are smooth."""
    torch.manual_seed(0)
    grey = torch.full((200, 64, 64, 3), 120.0)
    clouds = clouded(grey, torch.ones(200, 64, 64, 1), 1.0)
    step = (clouds[:, 1:] - clouds[:, :-1]).abs().flatten(1)
    spread = clouds.flatten(1, 2).std(1).mean(1).clamp_min(1)
    assert (step.quantile(0.95, dim=1) / spread).median() < 1  # of squares it is the whole contrast, twice the spread


def test_clouds_are_asked_for_and_follow_the_seed() -> None:
    looks = []
    for backdrop in (False, False, True, True):
        torch.manual_seed(3)
        looks.append(vary(scene(), 1.0, shift=False, backdrop=backdrop))
    assert torch.equal(looks[0], looks[1]) and torch.equal(looks[2], looks[3]) and not torch.equal(looks[0], looks[2])
    assert torch.equal(vary(scene(), 0.0, backdrop=True), scene())
    with pytest.raises(BadInput, match=r"backdrop without looks; expected augment above 0; .*training.augment above 0"):
        replace(TRAINING, augment=0.0, backdrop=True)


@pytest.mark.parametrize("stage", LOOKING)
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("kind", ["repainted", "clouded"])
@pytest.mark.filterwarnings("ignore:You are trying to:UserWarning")
def test_every_training_repaints_and_clouds_where_it_is_told_to(
    stage: str, kind: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def told(frames: torch.Tensor, *more: object) -> torch.Tensor:
        assert isinstance(more[-1], float)
        calls.append(more[-1])
        return frames

    monkeypatch.setattr(f"planner.augment.{kind}", told)
    LOOKING[stage](scene(), replace(LOOKS, **{"repaint" if kind == "repainted" else "backdrop": asked}))
    assert calls == ([1.0] if asked else [])
