"""Checkpoints that stand alone and run nothing: `config.json`, `model.safetensors`, `card.md`, and a SHA-256.

`config.json` holds names from literal dicts, numbers and the weights' hash; no class paths, no code. Loading needs
neither the training data nor the task.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from .actions import ActionSpec
from .data import write_atomically, write_together
from .errors import BadInput
from .models.jepa import JEPA, JEPAConfig, channels_last
from .settings import PlannerConfig
from .tasks import folder_name

Config = TypeVar("Config", JEPAConfig, ActionSpec, PlannerConfig)

FORMAT = 1
SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"
"""Weights lie in the checkout, beside the packages; an installed wheel has none and wants `--checkpoint`."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: the world model, in evaluation mode, parameters frozen.
        task: the task it was trained on.
        renderer: rendering backend of its training pictures.
        planner: the settings it ships with.
        sha256: hash of `model.safetensors`.
    """

    model: JEPA
    task: str
    renderer: str
    planner: PlannerConfig
    sha256: str


def save(path: Path | str, model: JEPA, *, task: str, renderer: str, planner: PlannerConfig, card: str) -> str:
    """Writes a checkpoint folder and returns the weights' SHA-256; one that was there stays whole if that fails."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    weights = weights_of(model)
    digest = hashlib.sha256(weights).hexdigest()
    config = {
        "format": FORMAT,
        "task": task,
        "renderer": renderer,
        "sha256": digest,
        "model": asdict(model.config),
        "action": asdict(model.action),
        "planner": asdict(planner),
    }
    described = json.dumps(config, indent=1) + "\n"
    # They get their names in this order. Who is killed between the first two leaves weights beside the hash of others,
    # which `load` refuses; but by then nothing is left to write that a disk could be too full for.
    write_together({path / "model.safetensors": weights, path / "config.json": described, path / "card.md": card})
    _keep_manifest(path)
    return digest


def load(path: Path | str, *, task: str | None = None) -> Checkpoint:
    """Loads a checkpoint folder.

    Raises:
        BadInput: if it is missing, cut short, altered, of another format, or of another task than `task`.
    """
    path = Path(path)
    config = _read_config(path)
    if task is not None and config["task"] != task:
        raise BadInput(f"checkpoint {path} is for another task", expected=task, got=str(config["task"]))
    weights = sound_weights(path / "model.safetensors", config["sha256"], f"checkpoint {path}")
    shape, action = _from_dict(JEPAConfig, config["model"], path), _from_dict(ActionSpec, config["action"], path)
    planner = _from_dict(PlannerConfig, config["planner"], path)
    try:
        model = JEPA(shape, action)
        model.load_state_dict(load_tensors(weights))
    except (SafetensorError, RuntimeError, TypeError) as error:
        first = str(error).strip().splitlines()[0]
        raise BadInput(f"checkpoint {path}: the weights do not fit config.json", got=first) from error
    model.eval().requires_grad_(False)
    return Checkpoint(channels_last(model), config["task"], config["renderer"], planner, config["sha256"])


def check_fits(env: Any, checkpoint: Checkpoint) -> None:
    """Raises `BadInput` if the checkpoint plans actions of other bounds, units or block than the task has."""
    if (spec := env.action_spec()) != checkpoint.model.action:
        got = str(checkpoint.model.action)
        raise BadInput("checkpoint and task differ in their actions", expected=str(spec), got=got)


def weights_of(module: nn.Module) -> bytes:
    """A module's state as the content of a safetensors file."""
    # A copy of each, so that what two layers share is written twice: such a file knows of no sharing.
    whole = {name: value.clone(memory_format=torch.contiguous_format) for name, value in module.state_dict().items()}
    return save_tensors(whole)


def sound_weights(file: Path | str, sha256: str, owner: str) -> bytes:
    """What the file of an `owner`'s weights holds; `BadInput` if it is missing, or has another SHA-256."""
    file = Path(file)
    if not file.is_file():
        raise BadInput(f"{owner} has no weights", expected=str(file))
    weights = file.read_bytes()
    if (digest := hashlib.sha256(weights).hexdigest()) != sha256:
        raise BadInput(
            f"{owner} was altered or cut short: {file.name}",
            expected=f"SHA-256 {sha256}",
            got=digest,
            do="restore it, with `git checkout` where it came with the project, or train it again",
        )
    return weights


def shipped() -> list[str]:
    """Tasks that weights ship for, in the order of their folders."""
    return [json.loads(file.read_text())["task"] for file in sorted(SHIPPED.glob("*/config.json"))]


def find(task: str, given: Path | str | None) -> Path:
    """The folder to load: the one given, else the one shipped for `task`."""
    path = Path(given) if given is not None else SHIPPED / folder_name(task)
    if not (path / "config.json").is_file():
        raise BadInput(
            f"no checkpoint at {path}",
            expected="a folder with config.json and model.safetensors",
            do=f"name one with --checkpoint{_trained(task)}, or train one with `jepa-mpc train {task}`",
        )
    return path


def _trained(task: str) -> str:
    """Where `jepa-mpc train` has left one, if it has."""
    usual = Path("runs/train") / folder_name(task) / "checkpoint"
    return f", as {usual}" if (usual / "config.json").is_file() else ""


FIGURES = "<!-- figures -->"

LATER = {"slow", "prior_past"}
"""Keys of `config.json` that checkpoints of this format did not have at first: the default is meant."""


def record(path: Path | str, figures: str) -> None:
    """Puts measured `figures` (Markdown) at the end of a checkpoint's card, in place of those before."""
    path = Path(path)
    write_atomically(path / "card.md", f"{card_of(path)}\n\n{FIGURES}\n\n{figures}")
    _keep_manifest(path)


def attach(path: Path | str, name: str, text: str) -> None:
    """Writes a text file of that name beside a checkpoint's weights, into the manifest too."""
    path = Path(path)
    write_atomically(path / name, text)
    _keep_manifest(path)


def card_of(path: Path | str) -> str:
    """What a checkpoint's card says, less the measured figures; nothing where it has none."""
    card = Path(path) / "card.md"
    return card.read_text().split(FIGURES)[0].rstrip() if card.exists() else ""


def _keep_manifest(path: Path) -> None:
    """Brings `SHA256SUMS` up to date where the checkpoint that was written is a shipped one."""
    if path.resolve().parent == SHIPPED:
        write_manifest(SHIPPED)


def write_manifest(folder: Path | str) -> None:
    """Writes `SHA256SUMS` for every file of every checkpoint in `folder`, in the format of `sha256sum --check`."""
    folder = Path(folder)
    files = sorted(file for file in folder.glob("*/*") if not file.name.startswith("."))
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}" for file in files
    ]
    write_atomically(folder / "SHA256SUMS", "\n".join(lines) + "\n")


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise BadInput(f"no checkpoint at {path}", expected=str(file))
    try:
        config = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is damaged", got=str(error)) from error
    expected = {"format", "task", "renderer", "sha256", "model", "action", "planner"}
    if not isinstance(config, dict) or set(config) != expected:
        got = sorted(config) if isinstance(config, dict) else type(config).__name__
        raise BadInput(f"{file} is damaged", expected=f"the keys {sorted(expected)}", got=str(got))
    if config["format"] != FORMAT:
        raise BadInput(f"{file}: format is off", expected=str(FORMAT), got=str(config["format"]))
    return config


def _from_dict(kind: type[Config], values: Any, path: Path) -> Config:
    """A frozen dataclass from exactly its own keys; its validation judges the values.

    A checkpoint that was written before a key was there need not have it.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if isinstance(values, dict):
        values = {key: getattr(kind, key) for key in LATER & known} | values
    if not isinstance(values, dict) or set(values) != known:
        raise BadInput(
            f"checkpoint {path}: config.json describes no {kind.__name__}",
            expected=f"the keys {sorted(known)}",
            got=str(sorted(values) if isinstance(values, dict) else values),
        )
    try:
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return kind(**cast(Any, values))
    except BadInput as error:
        raise BadInput(f"checkpoint {path}: {error}") from error
    except TypeError as error:
        raise BadInput(f"checkpoint {path}: {kind.__name__} is damaged", got=str(error)) from error
