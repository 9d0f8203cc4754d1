"""The door to our tasks, beside strangers called `envs`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import envs
from planner import tasks
from planner.errors import BadInput
from planner.tasks import OURS, load_envs

ROOT = Path(__file__).resolve().parent.parent
TRAP = "raise RuntimeError('the wrong envs was imported')\n"

OPEN = f"""
import sys
sys.path.append({str(ROOT)!r})
from planner.tasks import OURS, load_envs
envs = load_envs()
assert envs.__file__ == str(OURS), envs.__file__
from envs.rendering import Camera
import envs as again
assert again is envs and Camera.__module__ == "envs.rendering"
assert envs.make("TwoRoom", size=8).reset(seed=0)[0]["pixels"].any()
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def test_a_strangers_package_and_module_are_passed_by(tmp_path: Path) -> None:
    """A user's project often has an `envs/` of its own, and the import path finds it first."""
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text(TRAP)
    (tmp_path / "envs" / "two_room.py").write_text(TRAP)
    (tmp_path / "envs.py").write_text(TRAP)
    assert "the wrong envs was imported" in run("import envs", tmp_path).stderr, "the trap is set"
    done = run(OPEN, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_stranger_that_is_in_already_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = ModuleType("envs")
    stranger.__file__ = str(tmp_path / "envs" / "__init__.py")
    monkeypatch.setitem(sys.modules, "envs", stranger)
    with pytest.raises(BadInput) as caught:
        load_envs()
    assert str(OURS) in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sys.modules["envs"] is stranger, "what others imported stays theirs"


def test_a_stranger_without_a_file_is_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `envs/` without `__init__.py` is a package too; its `__file__` is None."""
    (tmp_path / "envs").mkdir()
    monkeypatch.delitem(sys.modules, "envs")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    import envs as stranger

    assert stranger.__file__ is None
    with pytest.raises(BadInput, match="another package called `envs` is in the way"):
        load_envs()


def test_ours_is_loaded_once() -> None:
    assert load_envs() is load_envs() is envs is sys.modules["envs"]


def test_missing_tasks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "envs")
    monkeypatch.setattr(tasks, "OURS", tmp_path / "envs" / "__init__.py")
    with pytest.raises(BadInput, match="tasks are missing; expected .*; install jepa-mpc again"):
        load_envs()


def test_a_failed_import_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an unknown renderer: the second attempt is to fail for the same reason, not for a half-made module."""
    ours = tmp_path / "__init__.py"
    ours.write_text("raise RuntimeError('no')\n")
    monkeypatch.delitem(sys.modules, "envs")
    monkeypatch.setattr(tasks, "OURS", ours)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            load_envs()
        assert "envs" not in sys.modules
