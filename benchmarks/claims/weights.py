"""Weights of the rivals, and everything that a benchmark plays: as safe to load as our checkpoints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from planner.actions import ActionSpec
from planner.checkpoint import Checkpoint
from planner.data import write_together
from planner.errors import BadInput
from planner.models.jepa import JEPAConfig
from planner.recipes import RECIPES, Recipe, recipe_for
from planner.settings import PlannerConfig

from .worlds import NextFrame, Recurrent, RecurrentConfig, Rival

RIVALS: dict[str, tuple[type[Rival], type[JEPAConfig] | type[RecurrentConfig]]] = {
    "next_frame": (NextFrame, JEPAConfig),
    "recurrent": (Recurrent, RecurrentConfig),
}


PUSHT = replace(
    RECIPES["PushT"],
    model=replace(RECIPES["PushT"].model, predictor="mlp", hidden=512, depth=2, temporal=0, slow=0),
    training=replace(RECIPES["PushT"].training, symmetric=False),
    planner=PlannerConfig(optimizer="mppi", samples=128, horizon=6, replan=1, body=0.3),
)
"""What those who are compared on PushT were trained by: its recipe of then, before it had heads (decision 121)."""


def plain_recipe(task: str) -> Recipe:
    """Of those who are compared on a task: a plain JEPA and its rivals."""
    return PUSHT if task == "PushT" else recipe_for(task)


def shape_for(task: str, kind: str, image_size: int, width: int = 48) -> JEPAConfig | RecurrentConfig:
    """A rival's shape: encoder, latent and predictor of the task's recipe, or a memory half as wide as that predictor.

    Args:
        task: whose recipe.
        kind: name in `RIVALS`.
        image_size: height and width of the pictures, pixels.
        width: channels of the encoder's first layer.
    """
    own = plain_recipe(task).model
    own = replace(own, image_size=image_size, width=width, body=0, temporal=0, prior=0, prior_past=False, slow=0)
    if kind == "next_frame":
        return own
    half = own.hidden // 2
    return RecurrentConfig(image_size, width, own.latent_dim, own.history, half, half, own.encoder)


def save(folder: Path, model: Rival, *, task: str, renderer: str, planner: PlannerConfig, notes: dict[str, Any]) -> str:
    """Writes `config.json` and `model.safetensors`; returns the weights' SHA-256."""
    kind = next(name for name, (make, _) in RIVALS.items() if type(model) is make)
    config = {"kind": kind, "task": task, "renderer": renderer}
    config |= {"model": asdict(model.config), "action": asdict(model.action), "planner": asdict(planner)}
    return write(folder, model.state_dict(), config | notes)


def write(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> str:
    """Writes weights and what is said of them, with their SHA-256, which it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save_tensors({name: value.contiguous() for name, value in tensors.items()})
    digest = hashlib.sha256(weights).hexdigest()
    described = json.dumps(config | {"sha256": digest}, indent=1) + "\n"
    write_together({folder / "model.safetensors": weights, folder / "config.json": described})
    return digest


def intact(folder: Path) -> tuple[dict[str, Any], bytes]:
    """What `write` wrote: what is said of the weights, and they themselves, not yet decoded.

    Raises:
        BadInput: if they are missing, or altered.
    """
    if not (folder / "config.json").is_file():
        raise BadInput(f"no weights at {folder}", do="train them as `make train-rivals` does")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()
    if (digest := hashlib.sha256(weights).hexdigest()) != config["sha256"]:
        raise BadInput(f"weights {folder} were altered", expected=f"SHA-256 {config['sha256']}", got=digest)
    return config, weights


def draws_plain(folder: Path) -> bool:
    """Whether the rival whose weights lie there saw pictures with varied looks and learned to draw them without."""
    how = json.loads((folder / "config.json").read_text())["training"]
    return bool(how["targets"] == "plain" and how["augment"])


def load(folder: Path) -> Checkpoint:
    """Loads a rival, frozen and in evaluation mode.

    Raises:
        BadInput: if it is missing, altered or of an unknown kind.
    """
    config, weights = intact(folder)
    if config["kind"] not in RIVALS:
        raise BadInput(f"rival {folder}: unknown kind", expected=" or ".join(RIVALS), got=repr(config["kind"]))
    make, shape = RIVALS[config["kind"]]
    spec = ActionSpec(**{key: tuple(v) if isinstance(v, list) else v for key, v in config["action"].items()})
    model = make(shape(**config["model"]), spec)
    model.load_state_dict(load_tensors(weights))
    model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    planner = PlannerConfig(**config["planner"])
    return Checkpoint(model, config["task"], config["renderer"], planner, config["sha256"])
