"""A task that somebody brings along: the guide's own words, through every command, and what goes wrong with others."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_readme import SMALLER
from toys import dot_store

import envs
from planner.cli import main
from planner.errors import BadInput
from planner.tasks import folder_name

ROOT = Path(__file__).parent.parent
GUIDE = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/own-robot.md").read_text(), re.DOTALL)
SWING, CAMERA = (text for kind, text in GUIDE if kind == "python")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the guide's task, where commands are typed; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "swing.py").write_text(SWING)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_the_guide_works_as_it_is_typed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        shlex.split(line, comments=True) for kind, text in GUIDE if kind == "bash" for line in text.splitlines()
    ]
    assert [words[1] for words in commands] == ["check", "train", "evaluate"]
    main(["collect", "swing:Pendulum", *SMALLER["collect"]])  # what `train` would collect in full
    for words in commands:
        main([*words[1:], *SMALLER.get(words[1], [])])
    assert "swing:Pendulum keeps the contract" in capsys.readouterr().out
    assert (here / "runs/check/play.png").stat().st_size > 1000
    result = json.loads((here / "runs/evaluate/swing-pendulum/results.json").read_text())
    assert result["task"] == "swing:Pendulum" and result["n"] == 2 and result["floors"]["oracle"]


def test_a_camera_of_ones_own_takes_a_few_lines(here: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CAMERA], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_folders_are_named_after_it() -> None:
    assert folder_name("robots.swing:Pendulum") == "robots-swing-pendulum"


WRONG = {
    "nowhere:Pendulum": r"no module 'nowhere' for task nowhere:Pendulum; expected nowhere.py in .*; run from its",
    "swing.deep:Pendulum": r"no module 'swing.deep' .*; expected swing/deep.py in ",
    "swing:Pendulums": r"task swing:Pendulums is not a task; expected swing:Pendulum; got no such class",
    "swing:SCENE": r"task swing:SCENE is not a task; expected swing:Pendulum; got '",
    "json:Pendulum": r"task json:Pendulum is not a task; expected a subclass of envs.GoalEnv; got no such class",
    "swing:": r"unknown task; expected TwoRoom or .* or module:Class of your own; got 'swing:'",
    "swing.py:Pendulum": r"task swing.py:Pendulum names a file; expected its module: swing:Pendulum",
    "half:Half": r"task half:Half is not finished; expected substeps, xml or load, errors, play; got nothing of these",
    "bent:Bent": r"task bent:Bent breaks the contract of envs.GoalEnv: expected ",
}


@pytest.mark.parametrize("task", WRONG)
def test_what_is_wrong_with_a_task_is_told(task: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "from envs import GoalEnv\nclass Half(GoalEnv):\n    name, spec_units = 'Half', ('N',)\n"
    head += "    spec_low, spec_high = (-1.0,), (1.0,)\n    def sample_state(self, rng): ...\n"
    (here / "half.py").write_text(head)
    bent = "from swing import Pendulum\nclass Bent(Pendulum):\n    def errors(self, state, goal):\n"
    (here / "bent.py").write_text(bent + "        return 2 + super().errors(state, goal)\n")
    with pytest.raises(SystemExit) as ended:
        main(["check", task])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and re.search(WRONG[task], said), said


def test_what_the_module_lacks_itself_is_not_blamed_on_its_name(here: Path) -> None:
    (here / "lacking.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        envs.make("lacking:Task")


def test_a_name_from_a_file_imports_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dataset says what task it is of; scoring one must not run whatever module it names."""
    (here / "harmful.py").write_text("open('ran', 'w')\n")
    store = dot_store(here / "data")
    config = json.loads((store.path / "dataset.json").read_text())
    (store.path / "dataset.json").write_text(json.dumps(config | {"task": "harmful:Task"}))
    with pytest.raises(SystemExit):
        main(["surprise", str(store.path)])
    assert "no checkpoint at" in capsys.readouterr().err and not (here / "ran").exists()
    envs.check_task("harmful:Task")
    assert not (here / "ran").exists()
    with pytest.raises(BadInput, match="is not a task"):
        envs.task_class("harmful:Task")
    assert (here / "ran").exists(), "asked for outright it is imported"
