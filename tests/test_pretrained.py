"""An encoder is trained before the rest, on pictures alone or by somebody else, and then learns on or stands still."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import PLANNER, SHAPE, SIZE, SPEC, TRAINING, cut_and_resumed, dot_store, flip_byte, toy_checkpoint, toy_model

from planner import checkpoint, pretrained
from planner.cards import curves
from planner.cli import main
from planner.data import split_rows
from planner.errors import BadInput
from planner.models.encoders import ENCODERS, FeatureEncoder
from planner.models.jepa import JEPA, JEPAConfig, channels_last
from planner.settings import TrainConfig
from planner.training import cache_latents, pretrain, probe, train
from planner.training.masked import CELLS, GREY, MaskedTraining, draw_hidden, hide

CONFIG = TrainConfig(steps=12, batch=8, held_out=0.25, save_every=5, sigreg_directions=16)
FROZEN = replace(TRAINING, freeze=True)


def learn(path: Path, config: TrainConfig = CONFIG, **facts: Any) -> nn.Module:
    encoder = pretrain(dot_store(path / "data", **facts), SHAPE, config, path / "out", tensorboard=False)
    assert encoder is not None
    return encoder


def saved(path: Path, encoder: nn.Module | None = None, shape: JEPAConfig = SHAPE) -> Path:
    """An encoder's folder; by default one of random weights."""
    encoder = encoder or toy_model(3, shape).encoder
    pretrained.save(path, encoder, shape, story="drawn at random", card="# An encoder\n")
    return path


def test_hidden_cells_are_grey_and_nothing_else_is() -> None:
    pixels = torch.randint(256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    hidden = torch.zeros(2, CELLS, CELLS, dtype=torch.bool)
    hidden[0, 1, 2] = True  # second row from the top, third column
    left, cell = hide(pixels, hidden), SIZE // CELLS
    covered = (slice(cell, 2 * cell), slice(2 * cell, 3 * cell))
    assert (left[0][covered] == GREY).all() and torch.equal(left[1], pixels[1])
    assert torch.equal(left[0][:cell], pixels[0][:cell])
    assert torch.equal(left[0][covered[0], : 2 * cell], pixels[0][covered[0], : 2 * cell])


@pytest.mark.parametrize(("share", "cells"), [(0.01, 1), (0.5, 8), (0.99, 15)])
def test_as_many_cells_are_hidden_as_asked_but_neither_none_nor_all(share: float, cells: int) -> None:
    torch.manual_seed(0)
    hidden = draw_hidden(200, share)
    assert (hidden.sum((1, 2)) == cells).all()
    assert (hidden.float().mean(0) - cells / CELLS**2).abs().max() < 0.15  # each as often as any other


def test_masked_pretraining_learns_where_the_dot_is(tmp_path: Path) -> None:
    """Never told positions, it reads them better than random weights do, on episodes that were held out."""
    store = dot_store(tmp_path / "all", episodes=60)
    config = replace(CONFIG, steps=300, batch=64, learning_rate=3e-3, sigreg_directions=64)
    encoder = pretrain(store, SHAPE, config, tmp_path / "out", tensorboard=False)
    assert encoder is not None
    tested = torch.arange(60).repeat_interleave(31) % 2 == 0
    states = store.data["state"].flatten(0, 1)[:, :2]

    def read(model: JEPA) -> float:
        return min(probe(cache_latents(model, store), states, tested, ("x", "y"), ("m", "m")).values())

    learned, random = toy_model(), toy_model()
    learned.encoder.load_state_dict(encoder.state_dict())
    assert read(learned) > 0.6 > 0.15 + read(random)
    last = curves(tmp_path / "out")[300]
    assert last["val/masked"] < 0.9 and last["val/effective_rank"] > 4


def test_statistics_are_those_of_whole_pictures(tmp_path: Path) -> None:
    """In training half of the pictures have holes; a planner never sees such."""
    encoder, store = learn(tmp_path, episodes=60), dot_store(tmp_path / "again", episodes=60)
    latents = encoder(store.data["pixels"][split_rows(store.info, 0.25)[0]].flatten(0, 1))
    assert latents.mean(0).abs().max() < 0.1 and (latents.std(0) - 1).abs().max() < 0.1


def test_statistics_are_of_all_batches_alike() -> None:
    """Not of the last ones, as a running mean is; and the encoder's mode and momentum are as before."""
    layer = nn.BatchNorm1d(2, affine=False)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), layer).eval()
    encoder[1].weight.data = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    encoder[1].bias.data.zero_()
    batches = [torch.full((4, 3), float(level)) for level in (0, 10, 20, 90)]
    pretrained.settle(encoder, batches)
    assert torch.allclose(layer.running_mean, torch.tensor(30.0).expand(2))
    assert layer.momentum == 0.1 and not encoder.training


def test_a_power_cut_costs_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = learn(tmp_path / "straight")
    steps, resumed = cut_and_resumed(monkeypatch, MaskedTraining, lambda: learn(tmp_path / "cut"))
    assert steps == list(range(5, 12))  # saved every five
    for one, other in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("encoder", ["conv", "conv+retina", "conv+joined"])
def test_a_frozen_encoder_stays_and_the_predictor_learns(encoder: str, tmp_path: Path) -> None:
    shape = replace(SHAPE, encoder=encoder)
    start = pretrained.load(saved(tmp_path / "encoder", shape=shape))
    store, config = dot_store(tmp_path / "data", episodes=30), replace(FROZEN, steps=300, batch=32, learning_rate=3e-3)
    model = train(store, shape, config, tmp_path / "out", tensorboard=False, start=start)
    assert model is not None
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, start.weights[name]), name
    assert curves(tmp_path / "out")[300]["val/error_1"] < 0.9  # 1 would be no better than to foresee no change


def test_an_encoder_that_is_not_frozen_learns_on(tmp_path: Path) -> None:
    start = pretrained.load(saved(tmp_path / "encoder"))
    store, config = dot_store(tmp_path / "data"), replace(TRAINING, steps=2)
    begun = train(store, SHAPE, replace(config, learning_rate=1e-12), tmp_path / "0", tensorboard=False, start=start)
    learned = train(store, SHAPE, config, tmp_path / "1", tensorboard=False, start=start)
    assert begun is not None and learned is not None
    for name, value in begun.encoder.named_parameters():
        assert torch.allclose(value, start.weights[name], atol=1e-6), name  # it began there
    assert not all(torch.equal(value, start.weights[name]) for name, value in learned.encoder.named_parameters())


def test_a_run_is_not_resumed_on_another_encoder(tmp_path: Path) -> None:
    store, out = dot_store(tmp_path / "data"), tmp_path / "out"
    one, other = (pretrained.load(saved(tmp_path / str(i), toy_model(i).encoder)) for i in range(2))
    train(store, SHAPE, FROZEN, out, tensorboard=False, start=one)
    with pytest.raises(BadInput, match="a run of another configuration"):
        train(store, SHAPE, FROZEN, out, tensorboard=False, start=other)
    with pytest.raises(BadInput, match="a run of another configuration"):
        train(store, SHAPE, replace(FROZEN, freeze=False), out, tensorboard=False)


def test_an_untrained_encoder_is_not_frozen(tmp_path: Path) -> None:
    """It would be a model of noise, and nothing would say so."""
    with pytest.raises(BadInput, match=r"freeze would leave the encoder untrained.*--encoder"):
        train(dot_store(tmp_path / "data"), SHAPE, FROZEN, tmp_path / "out", tensorboard=False)


class Places(nn.Module):
    """A stranger's features: how bright each of four columns is; far from variance 1."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1000.0))

    def forward(self, pictures: Tensor) -> Tensor:
        return 5 + self.gain * pictures.mean((1, 2)).unflatten(1, (4, -1)).mean(-1)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> JEPAConfig:
    """A shape whose encoder is somebody else's."""
    monkeypatch.setitem(ENCODERS, "places", lambda size, width, latent_dim: FeatureEncoder(Places(), latent_dim))
    return replace(SHAPE, encoder="places", latent_dim=4)


def test_somebody_elses_encoder_gets_a_predictor(
    stranger: JEPAConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features are brought to variance 1 by the data, and stay as they are; the checkpoint needs the encoder."""
    store = dot_store(tmp_path / "data", episodes=30)
    model = train(store, stranger, replace(FROZEN, steps=200, batch=32), tmp_path / "out", tensorboard=False)
    assert model is not None and isinstance(model.encoder.backbone, Places)
    latents = cache_latents(model, store)
    assert (latents.std(0) - 1).abs().max() < 0.2 and latents.mean(0).abs().max() < 0.2
    assert model.encoder.backbone.gain == 1000
    facts = {"task": "TwoRoom", "renderer": "none", "card": ""}
    checkpoint.save(tmp_path / "checkpoint", model, planner=PLANNER, **facts)
    again = checkpoint.load(tmp_path / "checkpoint").model
    assert torch.equal(cache_latents(again, store), latents)
    monkeypatch.delitem(ENCODERS, "places")
    with pytest.raises(BadInput, match="unknown encoder.*'places'.*ENCODERS first"):
        checkpoint.load(tmp_path / "checkpoint")


def test_somebody_elses_encoder_is_not_pretrained(stranger: JEPAConfig, tmp_path: Path) -> None:
    """It stands still: what guesses the hidden parts learned alone, for nothing."""
    with pytest.raises(BadInput, match="somebody else's encoder stands still; got places; train on it as it is"):
        pretrain(dot_store(tmp_path / "data"), stranger, CONFIG, tmp_path / "out", tensorboard=False)


def test_features_of_another_size_are_named(stranger: JEPAConfig) -> None:
    encoder = ENCODERS[stranger.encoder](SIZE, 8, 6)
    pictures = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    with pytest.raises(BadInput, match=r"backbone's features are off.*\(2, 6\).*\(2, 4\).*latent_dim"):
        encoder(pictures)
    encoder.backbone.forward = lambda pictures: {"last_hidden_state": pictures}  # as a transformers model answers
    with pytest.raises(BadInput, match="got dict; return one vector a picture"):
        encoder(pictures)


def test_an_encoder_of_another_shape_is_named_with_what_to_type(tmp_path: Path) -> None:
    start = pretrained.load(saved(tmp_path / "encoder", shape=replace(SHAPE, latent_dim=12)))
    with pytest.raises(BadInput, match="expected latent_dim 8; got latent_dim 12.*--model.latent-dim 12"):
        train(dot_store(tmp_path / "data"), SHAPE, FROZEN, tmp_path / "out", tensorboard=False, start=start)


def damage_facts(folder: Path) -> None:
    (folder / "encoder.json").write_text("{")


def damage_weights(folder: Path) -> None:
    flip_byte(folder / "encoder.safetensors", 200)


def drop_weights(folder: Path) -> None:
    (folder / "encoder.safetensors").unlink()


def drop_shape(folder: Path) -> None:
    facts = json.loads((folder / "encoder.json").read_text())
    del facts["shape"]["width"]
    (folder / "encoder.json").write_text(json.dumps(facts))


def drop_facts(folder: Path) -> None:
    (folder / "encoder.json").unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage_facts, "encoder.json is damaged"),
        (damage_weights, "altered or cut short"),
        (drop_weights, "has no weights"),
        (drop_shape, "expected the shape"),
        (drop_facts, "no encoder at .*jepa-mpc pretrain"),
    ],
)
def test_a_damaged_encoder_is_refused(harm: Any, said: str, tmp_path: Path) -> None:
    harm(saved(tmp_path / "encoder"))
    with pytest.raises(BadInput, match=said):
        pretrained.load(tmp_path / "encoder")


def test_an_encoder_behind_a_retina_is_not_one_without(tmp_path: Path) -> None:
    start = pretrained.load(saved(tmp_path / "encoder", shape=replace(SHAPE, encoder="conv+retina")))
    with pytest.raises(BadInput, match=r"encoder.*conv\+retina"):
        train(dot_store(tmp_path / "data"), SHAPE, FROZEN, tmp_path / "out", tensorboard=False, start=start)


def test_a_checkpoint_lends_its_encoder(tmp_path: Path) -> None:
    lent = pretrained.load(toy_checkpoint(tmp_path / "checkpoint"))
    encoder = toy_model(7).encoder
    lent.put_into(encoder)
    own = checkpoint.load(tmp_path / "checkpoint").model.encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in encoder.state_dict().items())
    assert lent.story == "trained as part of a JEPA of TwoRoom"


def test_the_commands_hand_the_encoder_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dot_store(tmp_path / "data")
    shape = ["--model.image-size", str(SIZE), "--model.width", "8", "--model.latent-dim", "8"]
    shared = ["TwoRoom", "--data", str(tmp_path / "data"), "--threads", "1", *shape, "--training.steps", "4"]
    shared += ["--training.batch", "8", "--training.held-out", "0.25"]
    main(["pretrain", *shared, "--out", str(tmp_path / "pretrain")])
    folder = tmp_path / "pretrain/encoder"
    assert (
        "pictures of TwoRoom, 6 episodes of play (seed 0), with 50% of each hidden, 4 updates"
        in (folder / "card.md").read_text()
    )
    given = ["--encoder", str(folder), "--training.freeze", "--training.horizon", "2", "--probe", "0"]
    main(["train", *shared, *given, "--model.temporal", "0", "--out", str(tmp_path / "train")])
    loaded, start = checkpoint.load(tmp_path / "train/checkpoint"), pretrained.load(folder)
    assert all(torch.equal(v, start.weights[n]) for n, v in loaded.model.encoder.state_dict().items())
    card = (tmp_path / "train/checkpoint/card.md").read_text()
    assert f"Its encoder ({start.sha256[:12]}) was trained on pictures of" in card and "it was left as it is" in card
    dot_store(tmp_path / "rays", renderer="rays")
    shared[2] = str(tmp_path / "rays")
    main(["train", *shared, *given, "--model.temporal", "0", "--out", str(tmp_path / "other")])
    said = " ".join(capsys.readouterr().out.split())
    assert "the pictures are of rays; the encoder, which stands still, was trained on none's" in said


@pytest.mark.parametrize("share", ["0", "1", "nan"])
def test_a_share_that_hides_nothing_or_all_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", "TwoRoom", "--training.masked", share])
    assert "masked is off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "freeze would leave the encoder untrained"),
        (["--encoder", "nowhere"], "no encoder at nowhere"),
        (["--encoder", "narrow"], "expected width 48, latent_dim 64; got width 8, latent_dim 8"),
    ],
)
def test_mistakes_are_told_before_anything_is_collected(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "narrow", shape=replace(SHAPE, image_size=64))
    with pytest.raises(SystemExit, match="2"):
        main(["train", "TwoRoom", "--training.freeze", *words])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_backbone_keeps_its_own_statistics() -> None:
    """Its normalisation stands still with it; resetting it ruined its features without a word."""
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4), nn.BatchNorm1d(4))
    backbone[2].running_mean.fill_(7.0)
    backbone[2].running_var.fill_(9.0)
    encoder = FeatureEncoder(backbone, 4)
    pretrained.settle(encoder, [torch.randint(256, (16, SIZE, SIZE, 3), dtype=torch.uint8)])
    assert (encoder.backbone[2].running_mean == 7).all() and (encoder.backbone[2].running_var == 9).all()
    assert encoder.normalise.num_batches_tracked == 1
    assert encoder.backbone is not backbone  # two models share nothing


class Tied(nn.Module):
    """Somebody's features, in a precision of their own; two layers share their weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.one, self.other, self.dtype = nn.Linear(3 * SIZE**2, 4), nn.Linear(3 * SIZE**2, 4), dtype
        self.other.weight = self.one.weight
        self.to(dtype)

    def forward(self, pictures: Tensor) -> Tensor:
        flat = pictures.flatten(1).to(self.dtype)
        return self.one(flat) + self.other(flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_backbone_may_share_weights_and_be_of_any_precision(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS, "tied", lambda size, width, latent_dim: FeatureEncoder(Tied(dtype), latent_dim))
    model = JEPA(replace(SHAPE, encoder="tied", latent_dim=4), SPEC)
    pretrained.settle(model.encoder, [torch.randint(256, (16, SIZE, SIZE, 3), dtype=torch.uint8)])
    checkpoint.save(tmp_path, model, task="TwoRoom", renderer="none", planner=PLANNER, card="# TwoRoom")
    pictures = torch.randint(256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    latents = model.eval().embed(pictures)
    assert latents.dtype == torch.float32 and torch.equal(checkpoint.load(tmp_path).model.embed(pictures), latents)


class Film(nn.Module):
    """Somebody's features of films, of which a picture is one where nothing moves; its weights have 5 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.patches = nn.Conv3d(3, 4, (2, 8, 8), stride=(2, 8, 8))
        self.patches.weight.data = torch.randn(self.patches.weight.shape, generator=generator)
        self.mix = nn.Conv2d(4, 4, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.mix(self.patches(pictures.unsqueeze(2).expand(-1, -1, 2, -1, -1)).squeeze(2)).flatten(2).mean(2)


def test_a_backbone_of_films_trains_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended in torch's words, "required rank 4 tensor to use channels_last format", after the play was collected."""
    backbone = Film()
    monkeypatch.setitem(ENCODERS, "film", lambda size, width, latent_dim: FeatureEncoder(backbone, latent_dim))
    store, shape = dot_store(tmp_path / "data"), replace(SHAPE, encoder="film", latent_dim=4)
    model = train(store, shape, replace(FROZEN, steps=4), tmp_path / "out", tensorboard=False)
    assert model is not None
    checkpoint.save(tmp_path / "toy", model, task="TwoRoom", renderer="none", planner=PLANNER, card="")
    loaded = checkpoint.load(tmp_path / "toy").model
    for other in (loaded, loaded.renewed("temporal", replace(shape, temporal=4))):
        assert torch.equal(cache_latents(other, store), cache_latents(model, store))
        assert other.encoder.backbone.mix.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("encoder", ["conv", "vit"])
def test_our_own_encoders_lie_as_torch_lays_them(encoder: str) -> None:
    shape = replace(SHAPE, encoder=encoder, width=64)
    ours, plain = channels_last(JEPA(shape, SPEC)), JEPA(shape, SPEC).to(memory_format=torch.channels_last)
    strides = [{name: value.stride() for name, value in one.state_dict().items()} for one in (ours, plain)]
    assert strides[0] == strides[1]


def test_a_frozen_run_is_not_resumed_on_another_backbone(
    stranger: JEPAConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its predictor would go on with latents that the saved model does not have."""
    store = dot_store(tmp_path / "data")
    train(store, stranger, FROZEN, tmp_path / "out", tensorboard=False)
    other = Places()
    other.gain.data.neg_()
    monkeypatch.setitem(ENCODERS, "places", lambda size, width, latent_dim: FeatureEncoder(other, latent_dim))
    with pytest.raises(BadInput, match="a run of another configuration"):
        train(store, stranger, FROZEN, tmp_path / "out", tensorboard=False)


def test_pretraining_is_not_resumed_on_other_data(tmp_path: Path) -> None:
    learn(tmp_path)
    with pytest.raises(BadInput, match="a run of another configuration"):
        pretrain(dot_store(tmp_path / "b", seed=9), SHAPE, CONFIG, tmp_path / "out", tensorboard=False)


def test_pretraining_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="masked pretraining diverged.*lower learning_rate"):
        learn(tmp_path, replace(CONFIG, learning_rate=1e30))


@pytest.mark.parametrize("words", [[], ["--no-retina"]])
def test_somebody_elses_encoder_is_not_taught_looks(
    words: list[str], stranger: JEPAConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first message used to send users of a retina on to the second."""
    facts = {"task": "TwoRoom", "renderer": "none", "card": ""}
    checkpoint.save(tmp_path / "start", toy_model(shape=stranger), planner=PLANNER, **facts)
    dot_store(tmp_path / "data")
    given = ["--data", str(tmp_path / "data"), "--checkpoint", str(tmp_path / "start"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main(["looks", "TwoRoom", *given, *words])
    assert "somebody else's encoder stands still" in capsys.readouterr().err


def test_raw_features_are_not_frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "raw", lambda size, width, latent_dim: Places())
    with pytest.raises(BadInput, match="expected a FeatureEncoder; got Places"):
        train(dot_store(tmp_path), replace(SHAPE, encoder="raw"), FROZEN, tmp_path / "out", tensorboard=False)
