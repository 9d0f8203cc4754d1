"""Checkpoints: the same plans after a round trip, no code, and every damage refused by a line that names the folder."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from toys import PLANNER, SHAPE, SIZE, SPEC, flip_byte, toy_checkpoint, toy_model

from benchmarks.claims.weights import write as write_rival
from planner import checkpoint, pretrained
from planner.errors import BadInput
from planner.evaluate.report import write_report
from planner.mpc import MPC
from planner.recipes import RECIPES
from planner.settings import PlannerConfig
from planner.tasks import folder_name

SHIPPED = sorted(file.parent for file in checkpoint.SHIPPED.glob("*/config.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return toy_checkpoint(tmp_path / "toy")


def pictures(seed: int = 0) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (2, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return TensorDict({"pixels": pixels}, batch_size=[2])


def refused(folder: Path, message: str, task: str | None = None) -> None:
    """Loading fails in one short line that names the folder."""
    with pytest.raises(BadInput, match=message) as caught:
        checkpoint.load(folder, task=task)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes `config.json`; the change happens in place, or is what is returned."""
    config = json.loads((folder / "config.json").read_text())
    changed = change(config)
    (folder / "config.json").write_text(json.dumps(config if changed is None else changed))


# Round trip --------------------------------------------------------------------------------------------------------


def test_latents_and_plans_survive(folder: Path) -> None:
    loaded, original = checkpoint.load(folder, task="TwoRoom"), toy_model()
    assert torch.equal(loaded.model.embed(pictures()["pixels"]), original.embed(pictures()["pixels"]))
    acted = []
    for model in (loaded.model, original):
        policy = loaded.planner.build(model, seed=3)
        policy.reset(pictures(), pictures(1))
        acted.append(torch.tensor(policy.act(pictures())))
    assert torch.equal(*acted)
    assert acted[0].abs().sum() > 0


def test_everything_else_survives(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    assert (loaded.model.config, loaded.model.action, loaded.planner) == (SHAPE, SPEC, PLANNER)
    assert (loaded.task, loaded.renderer) == ("TwoRoom", "none")
    assert loaded.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())


def test_other_settings_survive(tmp_path: Path) -> None:
    planner = PlannerConfig(optimizer="mppi", samples=32, horizon=7, execute=2, over="all", effort=0.25)
    checkpoint.save(tmp_path, toy_model(), task="PushT", renderer="egl", planner=planner, card="")
    assert checkpoint.load(tmp_path, task="PushT").planner == planner


def test_saving_over_an_old_one(folder: Path) -> None:
    before = checkpoint.load(folder).sha256
    checkpoint.save(folder, toy_model(seed=5), task="TwoRoom", renderer="none", planner=PLANNER, card="# new\n")
    assert checkpoint.load(folder).sha256 != before
    assert sorted(file.name for file in folder.iterdir()) == ["card.md", "config.json", "model.safetensors"]


def test_a_disk_that_is_full_leaves_the_old_one_or_the_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New weights beside the old config's hash were refused: neither checkpoint was left after hours of training."""
    monkeypatch.setattr(checkpoint, "SHIPPED", folder.parent)
    old, new, honest = checkpoint.load(folder).sha256, toy_model(seed=5), os.fsync
    digest = hashlib.sha256(checkpoint.weights_of(new)).hexdigest()
    for full, left in enumerate((old, old, old, digest)):  # weights, config, card; the manifest comes last
        written: list[int] = []

        def fsync(file: int, full: int = full, written: list[int] = written) -> None:
            written.append(file)
            if len(written) > full:
                raise OSError(ENOSPC, "No space left on device")
            honest(file)

        monkeypatch.setattr("planner.data.os.fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(folder, new, task="TwoRoom", renderer="none", planner=PLANNER, card="# new\n")
        assert checkpoint.load(folder).sha256 == left
        assert (folder / "card.md").read_text() == ("# TwoRoom\n" if left == old else "# new\n")
        assert not list(folder.parent.glob("**/.*"))
    monkeypatch.setattr("planner.data.os.fsync", honest)
    assert checkpoint.save(folder, new, task="TwoRoom", renderer="none", planner=PLANNER, card="# new\n") == digest
    verify_manifest(folder.parent)


def test_the_config_names_no_code(folder: Path) -> None:
    """Names from literal dicts, numbers, units and a hash: nothing that looks like a module's path."""
    text = (folder / "config.json").read_text()
    assert not re.search(r"[A-Za-z_]\w*\.[A-Za-z_]", text)
    assert not re.search(r"planner\.|torch|class|import|__", text)


LOADING = """
import sys
from pathlib import Path
from planner import checkpoint
loaded = checkpoint.load(Path(sys.argv[1]))
heavy = ("lightning", "mujoco", "envs", "gymnasium", "matplotlib", "scipy", "planner.collect", "planner.training")
raise SystemExit(", ".join(name for name in heavy if name in sys.modules) or None)
"""


def test_loading_needs_neither_task_nor_trainer(folder: Path, tmp_path: Path) -> None:
    """In a fresh process, from a folder without any dataset."""
    root = Path(checkpoint.__file__).parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", LOADING, str(folder)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        timeout=100,
    )
    assert ended.returncode == 0 and not ended.stderr.strip(), ended.stderr


# Damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 7, 100, -1])
def test_one_flipped_byte_in_the_weights(folder: Path, position: int) -> None:
    flip_byte(folder / "model.safetensors", position)
    refused(folder, "altered or cut short: model.safetensors; expected SHA-256 .*; got .*; restore it")


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_weights_cut_short(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, "altered or cut short")


def test_weights_gone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has no weights")


def test_a_checkpoint_of_another_task(folder: Path) -> None:
    refused(folder, "for another task; expected PushT; got TwoRoom", task="PushT")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no checkpoint at")
    refused(tmp_path, "no checkpoint at")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe\x00", b'{"format": 1}'])
def test_a_config_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, "config.json is damaged")


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key": (lambda c: c.update(extra=1), "expected the keys .*got .*extra"),
    "missing key": (lambda c: c.pop("renderer"), "expected the keys .*renderer"),
    "newer format": (lambda c: c.update(format=2), "format is off; expected 1; got 2"),
    "no format": (lambda c: c.update(format=None), "format is off"),
    "unknown knob": (lambda c: c["planner"].update(speed=3), "describes no PlannerConfig; expected the keys"),
    "missing knob": (lambda c: c["planner"].pop("std"), "describes no PlannerConfig"),
    "unknown shape": (lambda c: c["model"].update(tails=3), "describes no JEPAConfig"),
    "missing shape": (lambda c: c["model"].pop("width"), "describes no JEPAConfig"),
    "no action": (lambda c: c.update(action=None), "describes no ActionSpec"),
    "class as encoder": (lambda c: c["model"].update(encoder="os.system"), "unknown encoder; .*got 'os.system'"),
    "list as encoder": (lambda c: c["model"].update(encoder=["conv"]), "unknown encoder"),
    "dict as encoder": (lambda c: c["model"].update(encoder={"conv": 1}), "JEPAConfig is damaged"),
    "other latent": (lambda c: c["model"].update(latent_dim=16), "the weights do not fit"),
    "other depth": (lambda c: c["model"].update(depth=2), "the weights do not fit"),
    "words as width": (lambda c: c["model"].update(width="8"), "width is off"),
    "another arm": (lambda c: c["action"].update(low=[0], high=[1], units=["m"]), "the weights do not fit"),
    "half a block": (lambda c: c["action"].update(block=2.5), "block is off; expected a whole number"),
    "bounds crossed": (lambda c: c["action"].update(low=[2, 2]), "bounds are off"),
    "bounds NaN": (lambda c: c["action"].update(low=[float("nan"), 0]), "bounds are off"),
    "words as bounds": (lambda c: c["action"].update(low=["a", "b"]), "ActionSpec is damaged"),
    "unknown optimizer": (lambda c: c["planner"].update(optimizer="newton"), "unknown optimizer"),
    "no samples": (lambda c: c["planner"].update(samples=0), "samples is off"),
    "words as samples": (lambda c: c["planner"].update(samples="many"), "PlannerConfig is damaged"),
    "unknown metric": (lambda c: c["planner"].update(metric="chess"), "expected"),
    "effort NaN": (lambda c: c["planner"].update(effort=float("nan")), "effort is off"),
    "execute": (lambda c: c["planner"].update(execute=9), "execute is off"),
    "a number for the hash": (lambda c: c.update(sha256=3), "altered or cut short"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_config_that_was_changed(folder: Path, name: str) -> None:
    change, message = CHANGES[name]
    rewrite(folder, lambda config: change(config) and None)
    refused(folder, message)


class Bomb:
    """Runs when unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("exploded"),))  # type: ignore[return-value]


def test_weights_never_run_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle under the weights' name, with the right hash, is refused and not opened."""
    monkeypatch.chdir(tmp_path)
    weights = pickle.dumps(Bomb())
    (folder / "model.safetensors").write_bytes(weights)
    rewrite(folder, lambda config: config.update(sha256=hashlib.sha256(weights).hexdigest()))
    refused(folder, "the weights do not fit config.json")
    assert not (tmp_path / "exploded").exists()
    pickle.loads(weights)
    assert (tmp_path / "exploded").exists(), "the bomb is a dud, so this test proves nothing"


# Finding, cards, manifest ------------------------------------------------------------------------------------------


def test_find(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert checkpoint.find("PushT", folder) == folder
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    shutil.copytree(folder, tmp_path / "reacher")
    assert checkpoint.find("Reacher", None) == tmp_path / "reacher"
    with pytest.raises(BadInput, match=r"no checkpoint at .*pusht; .*--checkpoint, or .*`jepa-mpc train PushT`"):
        checkpoint.find("PushT", None)


def test_a_folder_may_be_named_by_a_string(folder: Path, tmp_path: Path) -> None:
    """It was a TypeError: unsupported operand type(s) for /: 'str' and 'str'."""
    name, copy = str(folder), str(tmp_path / "copy")
    loaded = checkpoint.load(name, task="TwoRoom")
    assert checkpoint.find("TwoRoom", name) == folder
    facts: dict[str, Any] = {"task": "TwoRoom", "renderer": "none", "planner": PLANNER, "card": "# copy\n"}
    assert checkpoint.save(copy, toy_model(), **facts) == loaded.sha256
    checkpoint.record(copy, "**1/2**\n")
    checkpoint.attach(copy, "note.txt", "noted")
    assert checkpoint.card_of(copy) == "# copy"
    (tmp_path / "copy/card.md").unlink()  # whatever read it failed at the end of its work
    assert checkpoint.card_of(copy) == ""
    checkpoint.record(copy, "**1/2**\n")
    assert checkpoint.load(copy).sha256 == loaded.sha256
    (tmp_path / "copy/more").write_bytes(checkpoint.weights_of(toy_model()))
    assert hashlib.sha256(checkpoint.sound_weights(f"{copy}/more", loaded.sha256, "more")).hexdigest() == loaded.sha256
    checkpoint.write_manifest(str(tmp_path))
    verify_manifest(tmp_path)
    with pytest.raises(BadInput, match="no checkpoint at"):
        checkpoint.find("TwoRoom", f"{name}/nothing")


def test_weights_are_on_the_disk_before_they_have_their_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were renamed unsynced: after a power cut the name could have stood for an empty file."""
    before, kept = (folder / "model.safetensors").read_bytes(), sorted(folder.iterdir())

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("planner.data.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(folder, toy_model(seed=5), task="TwoRoom", renderer="none", planner=PLANNER, card="")
    with pytest.raises(OSError, match="no space"):
        pretrained.save(folder, toy_model(seed=5).encoder, SHAPE, story="", card="")
    with pytest.raises(OSError, match="no space"):
        write_rival(folder, dict(toy_model(seed=5).state_dict()), {})
    with pytest.raises(OSError, match="no space"):
        write_report(folder / "report.html", [], [], None)
    assert (folder / "model.safetensors").read_bytes() == before and sorted(folder.iterdir()) == kept


def test_figures_are_put_in_once(folder: Path) -> None:
    checkpoint.record(folder, "**1/2**\n")
    checkpoint.record(folder, "**2/2**\n")
    text = (folder / "card.md").read_text()
    assert text.startswith("# TwoRoom\n") and text.endswith("**2/2**\n")
    assert "1/2" not in text and text.count(checkpoint.FIGURES) == 1


@pytest.mark.parametrize("relative", [False, True])
def test_the_manifest_follows_a_card(folder: Path, monkeypatch: pytest.MonkeyPatch, relative: bool) -> None:
    """Named by a relative path, a shipped checkpoint got a new card and kept its old hash."""
    monkeypatch.setattr(checkpoint, "SHIPPED", folder.parent.resolve())
    monkeypatch.chdir(folder.parent)
    checkpoint.record(Path("toy") if relative else folder, "figures\n")
    verify_manifest(folder.parent)


def test_the_manifest_follows_a_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train --checkpoint checkpoints/task` left the manifest with the old weights' hash, or without one."""
    monkeypatch.setattr(checkpoint, "SHIPPED", folder.parent.resolve())
    toy_checkpoint(folder.parent / "another")
    verify_manifest(folder.parent)


def verify_manifest(folder: Path) -> None:
    """As `sha256sum --check` would: every file is named, and every hash is right."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = dict(reversed(line.split("  ", 1)) for line in lines)
    names = {f"{file.parent.name}/{file.name}" for file in folder.glob("*/*") if not file.name.startswith(".")}
    assert set(sums) == names and names
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_a_manifest_notices_a_flipped_byte(folder: Path) -> None:
    checkpoint.write_manifest(folder.parent)
    verify_manifest(folder.parent)
    flip_byte(folder / "card.md", 2)
    with pytest.raises(AssertionError, match="card.md"):
        verify_manifest(folder.parent)


@pytest.mark.skipif(not SHIPPED, reason="no checkpoints are shipped here")
def test_the_shipped_manifest() -> None:
    verify_manifest(checkpoint.SHIPPED)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_checkpoints_plan(path: Path) -> None:
    """Each loads for its task, is small, and gives an action from a picture."""
    task = next(name for name in RECIPES if folder_name(name) == path.name)
    loaded = checkpoint.load(path, task=task)
    size = loaded.model.config.image_size
    obs = TensorDict({"pixels": torch.zeros(1, size, size, 3, dtype=torch.uint8)}, batch_size=[1])
    policy = loaded.planner.build(loaded.model, seed=0)
    assert isinstance(policy, MPC)
    policy.reset(obs, obs)
    assert policy.act(obs).shape == (1, loaded.model.action.env_dim)
    assert (path / "model.safetensors").stat().st_size < 20e6
    assert "Goals reached" in (path / "card.md").read_text()
