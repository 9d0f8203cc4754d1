"""Encoders that were trained before: a folder of their own, or a checkpoint's; neither runs code when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from . import checkpoint
from .data import write_together
from .errors import BadInput
from .models.jepa import JEPAConfig

FILE = "encoder.json"
PARTS = ("encoder", "image_size", "width", "latent_dim")
"""What of a `JEPAConfig` makes an encoder."""


@dataclass(frozen=True)
class Pretrained:
    """The weights of an encoder, and where they are from.

    Attributes:
        weights: the encoder's state.
        shape: the `PARTS` of its configuration.
        sha256: of the file that they were read from.
        path: its folder.
        story: one sentence for cards: on what it was trained.
        renderer: of the pictures that it was trained on; "" where it does not say.
    """

    weights: dict[str, Tensor]
    shape: dict[str, str | int]
    sha256: str
    path: Path
    story: str
    renderer: str = ""

    def check(self, config: JEPAConfig) -> None:
        """Raises `BadInput` if a JEPA of that shape wants another encoder."""
        off = {name: value for name, value in self.shape.items() if getattr(config, name) != value}
        if off:
            raise BadInput(
                f"encoder {self.path} does not fit the model",
                expected=", ".join(f"{name} {getattr(config, name)}" for name in off),
                got=", ".join(f"{name} {value}" for name, value in off.items()),
                do=" ".join(f"--model.{name.replace('_', '-')} {value}" for name, value in off.items()),
            )

    def put_into(self, encoder: nn.Module) -> None:
        """Gives an encoder of that shape these weights; `BadInput` where they do not fit."""
        try:
            encoder.load_state_dict(self.weights)
        except RuntimeError as error:
            first = str(error).strip().splitlines()[0]
            raise BadInput(f"encoder {self.path}: the weights do not fit its shape", got=first) from error


def save(path: Path, encoder: nn.Module, config: JEPAConfig, *, story: str, card: str, renderer: str = "") -> str:
    """Writes an encoder's folder, `encoder.json`, `encoder.safetensors` and `card.md`; returns its SHA-256."""
    path.mkdir(parents=True, exist_ok=True)
    weights = checkpoint.weights_of(encoder)
    digest = hashlib.sha256(weights).hexdigest()
    facts = {
        "sha256": digest,
        "story": story,
        "renderer": renderer,
        "shape": {name: getattr(config, name) for name in PARTS},
    }
    described = json.dumps(facts, indent=1) + "\n"
    write_together({path / "encoder.safetensors": weights, path / FILE: described, path / "card.md": card})
    return digest


def load(path: Path) -> Pretrained:
    """Reads the folder that `jepa-mpc pretrain` wrote, or the encoder of a checkpoint.

    Raises:
        BadInput: if there is neither, or it was altered or cut short.
    """
    if (path / FILE).is_file():
        return _load_folder(path)
    if (path / "config.json").is_file():
        loaded = checkpoint.load(path)
        shape = {name: getattr(loaded.model.config, name) for name in PARTS}
        story = f"trained as part of a JEPA of {loaded.task}"
        return Pretrained(loaded.model.encoder.state_dict(), shape, loaded.sha256, path, story, loaded.renderer)
    expected = f"a folder with {FILE}, from `jepa-mpc pretrain`, or a checkpoint"
    raise BadInput(f"no encoder at {path}", expected=expected)


def _load_folder(path: Path) -> Pretrained:
    try:
        facts = json.loads((path / FILE).read_text())
        digest, story, shape = facts["sha256"], str(facts["story"]), dict(facts["shape"])
        renderer = str(facts.get("renderer", ""))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path / FILE} is damaged", got=repr(error), do="pretrain it again") from error
    if sorted(shape) != sorted(PARTS):
        raise BadInput(f"{path / FILE} is damaged", expected=f"the shape {sorted(PARTS)}", got=str(sorted(shape)))
    weights = checkpoint.sound_weights(path / "encoder.safetensors", digest, f"encoder {path}")
    try:
        return Pretrained(load_tensors(weights), shape, digest, path, story, renderer)
    except SafetensorError as error:
        raise BadInput(f"encoder {path}: encoder.safetensors is damaged", got=str(error)) from error


@torch.no_grad()
def settle(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Makes the statistics of an encoder's normalisation those of these pictures, uint8 `[B, size, size, 3]` each."""
    training = encoder.training
    encoder.train()
    # A backbone that stays in evaluation mode keeps the statistics that it came with.
    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.BatchNorm1d) and layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
    for pixels in batches:
        encoder(pixels)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    encoder.train(training)
