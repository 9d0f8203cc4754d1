"""A task that somebody brings along: the guide's own words, through every command, and what goes wrong with others."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_readme import SMALLER
from toys import dot_store

import envs
from planner.cli import main
from planner.data import EpisodeStore
from planner.errors import BadInput
from planner.models import encoders, jepa
from planner.tasks import folder_name

ROOT = Path(__file__).parent.parent
GUIDE = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs/own-robot.md").read_text(), re.DOTALL)
SWING, CAMERA, WIRE = (text for kind, text in GUIDE if kind == "python")


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
    assert [words[1] for words in commands] == ["check", "train", "evaluate", "serve"]
    main(["collect", "swing:Pendulum", *SMALLER["collect"]])  # what `train` would collect in full
    for words in commands[:-1]:  # the last does not end: tests/test_server.py
        main([*words[1:], *SMALLER.get(words[1], [])])
    assert "swing:Pendulum keeps the contract" in capsys.readouterr().out
    assert (here / "runs/check/play.png").stat().st_size > 1000
    result = json.loads((here / "runs/evaluate/swing-pendulum/results.json").read_text())
    assert result["task"] == "swing:Pendulum" and result["n"] == 2 and result["floors"]["oracle"]


def test_a_camera_of_ones_own_takes_a_few_lines(here: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CAMERA], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_data_of_a_task_as_it_was_is_not_trained_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With other bounds the old episodes were once taken for the new robot's."""
    main(["collect", "swing:Pendulum", *SMALLER["collect"]])
    del sys.modules["swing"]
    (here / "swing.py").write_text(SWING.replace('(-2.5,), (2.5,), ("N m",)', '(-2.5,), (3.0,), ("N m",)'))
    for words, says in (
        ("collect", "was made with another action_high"),
        ("train", "and task differ in their actions"),
    ):
        with pytest.raises(SystemExit):
            main([words, "swing:Pendulum", *SMALLER[words]])
        assert says in capsys.readouterr().err


def test_other_blocks_bounds_and_joints_go_the_whole_way(here: Path) -> None:
    """Four environment steps a model step, where plans held actions for five; a list and an array where tuples were
    expected; a joint that nobody knew the units of."""
    robot = SWING.replace('(-2.5,), (2.5,), ("N m",)', '[-2.5], np.array([2.5]), ["N m"]')
    robot = robot.replace("    substeps = 5", "    block = 4\n    substeps = 5")
    robot = robot.replace(
        "<body>", '<body pos="1 0 0"><joint type="ball" name="knob"/><geom size=".1"/></body><body>', 1
    )
    robot = robot.replace(
        "np.array([rng.uniform(-np.pi, np.pi), 0.0])", "np.r_[1, 0, 0, 0, rng.uniform(-3, 3), np.zeros(4)]"
    )
    robot = robot.replace("state[..., :1] - goal[..., :1]", "state[..., 4:5] - goal[..., 4:5]")
    (here / "swing.py").write_text(robot)
    for words in ("check", "collect", "train"):
        main([words, "swing:Pendulum", *SMALLER[words]])
    trained = "runs/train/swing-pendulum/checkpoint"
    main(["evaluate", "swing:Pendulum", "--checkpoint", trained, "--episodes", "1", "--no-imagine"])
    config = json.loads((here / "runs/train/swing-pendulum/checkpoint/config.json").read_text())
    assert config["action"]["block"] == config["planner"]["hold"] == 4
    with envs.make("swing:Pendulum") as env:
        assert env.state_names[:5] == ("knob_qw", "knob_qx", "knob_qy", "knob_qz", "hinge")
        assert env.state_units[5:] == ("rad/s",) * 4


def test_what_joints_measure_is_asked_of_ones_own_task_too(here: Path) -> None:
    """One with an `__init__` of its own failed in Python's words."""
    with envs.make("swing:Pendulum", size=8, proprioception=True) as env:
        assert env.proprio_names == ("hinge", "hinge_speed") and env.reset(seed=0)[0]["proprio"].shape == (2,)
    own = "from swing import Pendulum\nclass Own(Pendulum):\n    def __init__(self, size=64):\n"
    (here / "mine.py").write_text(own + "        super().__init__(size)\n")
    envs.make("mine:Own", size=8).close()
    with pytest.raises(BadInput, match="task mine:Own takes no proprioception; take `proprioception` in its __init__"):
        envs.make("mine:Own", size=8, proprioception=True)


def test_a_task_too_slow_for_goals_on_the_way_is_told_what_to_type(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After minutes of collecting it was told to choose a larger --distance, which `train` has not."""
    words = "from swing import Pendulum\nclass Slow(Pendulum):\n    def errors(self, state, goal):\n"
    (here / "slow.py").write_text(words + "        return 0.01 * super().errors(state, goal)\n")
    main(["collect", "slow:Slow", *SMALLER["collect"]])
    with pytest.raises(SystemExit, match="2"):
        main(["train", "slow:Slow", *SMALLER["train"], "--probe", "1"])
    said = capsys.readouterr().err
    assert re.search("no goals to try at every check; got only 0 pairs of 1 .*; give --probe 0, and evaluate", said)
    main(["train", "slow:Slow", *SMALLER["train"], "--probe", "0"])
    assert (here / "runs/train/slow-slow/checkpoint/config.json").exists()


def test_a_scene_may_lie_beside_its_module(here: Path) -> None:
    (here / "scene.xml").write_text(SWING.split('"""')[1])
    words = "from swing import GoalEnv, Pendulum\nclass Beside(Pendulum):\n"
    (here / "beside.py").write_text(words + "    xml, load = 'scene.xml', GoalEnv.load\n")
    with envs.make("beside:Beside", size=16) as env:
        assert env.model.nu == 1


@pytest.mark.parametrize("backend", [None, "rays"], ids=["own", "rays"])
def test_colours_of_materials_are_seen_and_shapes_that_only_collide_are_not(here: Path, backend: str | None) -> None:
    """Rays showed MuJoCo's default grey, and a green box in front of it all; a background that was to turn bluish
    turned from its material's colour to a bluish grey."""
    robot = SWING
    for colour in re.findall(r'rgba="(.*?)"', SWING):
        robot = robot.replace(f'rgba="{colour}"', f'material="{colour}"')
        robot = robot.replace("<worldbody>", f'<asset><material name="{colour}" rgba="{colour}"/></asset>\n<worldbody>')
    box = '<geom type="box" size=".2 .1 .2" pos="0 -.5 0" rgba="0 1 0 1" group="3" contype="0" conaffinity="0"/>'
    (here / "dressed.py").write_text(robot.replace("</worldbody>", f"{box}</worldbody>"))
    bare, dressed = (envs.task_class(name)(backend=backend) for name in ("swing:Pendulum", "dressed:Pendulum"))
    assert dressed.model.nmat == 3 and dressed.model.ngeom == bare.model.ngeom + 1
    looks, state = [], np.array([2.0, 0.0])
    for appearance in ("", "background", "objects"):
        for env in (bare, dressed):
            looks.append((envs.disguise(env, appearance) if appearance else env).picture(state))
        np.testing.assert_allclose(looks[-2].astype(int), looks[-1], rtol=0, atol=1)
    assert not np.array_equal(looks[0], looks[2]) and not np.array_equal(looks[2], looks[4])
    bare.close(), dressed.close()


def test_where_it_was_trained_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs/train/swing-pendulum/checkpoint").mkdir(parents=True)
    (here / "runs/train/swing-pendulum/checkpoint/config.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["evaluate", "swing:Pendulum"])
    assert "--checkpoint, as runs/train/swing-pendulum/checkpoint, or train one" in capsys.readouterr().err


def test_folders_are_named_after_it() -> None:
    assert folder_name("robots.swing:Pendulum") == "robots-swing-pendulum"


BENT = """
import numpy as np
from envs import GoalEnv
from swing import Pendulum

class Bent(Pendulum):
    def errors(self, state, goal):
        return 2 + super().errors(state, goal)

class Blind(Pendulum):
    view = "top"

class Nowhere(Pendulum):
    xml, load = "swing.xml", GoalEnv.load

class Strong(Pendulum):
    spec_low, spec_high, spec_units = (-1.0, -1.0), (1.0, 1.0), ("N m", "N m")

class Slow(Pendulum):
    substeps = 0.5

class Inverted(Pendulum):
    spec_low, spec_high = (1.0,), (-1.0,)

class Comma(Pendulum):
    spec_low = (-1.0)

class Word(Pendulum):
    spec_units = ("N m")

class Flat(Pendulum):
    def play(self, rng):
        return lambda state: rng.uniform(-1, 1)

class Wide(Pendulum):
    def play(self, rng):
        return lambda state: rng.uniform(-1, 1, 3)

class Idle(Pendulum):
    def play(self, rng):
        return None

class Torn(Pendulum):
    xml, load = "torn.xml", GoalEnv.load

class Single(Pendulum):
    def errors(self, state, goal):
        return float(abs(state[0] - goal[0]))

class Listed(Pendulum):
    def errors(self, state, goal):
        return [abs(state[0] - goal[0])]

class Summed(Pendulum):
    def errors(self, state, goal):
        return super().errors(state, goal).sum(-1)

class Lone(Pendulum):
    def errors(self, state, goal):
        return np.array([abs(state[..., 0] - goal[..., 0]).max()])

class Geared(Pendulum):
    def advance(self, action):
        super().advance(0.5 * action)
"""
WRONG = {
    "nowhere:Pendulum": r"no module 'nowhere' for task .*; expected nowhere.py in .*; run from the folder that nowhere",
    "swing.deep:Pendulum": r"no module 'swing.deep' .*; expected swing/deep.py in ",
    "swing:Pendulums": r"task swing:Pendulums is not a task; expected swing:Pendulum; got no such class",
    "swing:SCENE": r"task swing:SCENE is not a task; expected swing:Pendulum; got '",
    "json:Pendulum": r"task json:Pendulum is not a task; expected a subclass of envs.GoalEnv; got no such class",
    "swing:": r"unknown task; expected TwoRoom or .* or module:Class of your own or .*; got 'swing:'$",
    "swing.py:Pendulum": r"unknown task; .*; did you mean swing:Pendulum\?$",
    "./robots/swing.py": r"unknown task; .*; did you mean robots.swing:Class\?$",
    "robots/swing:Pendulum": r"unknown task; .*; did you mean robots.swing:Pendulum\?$",
    "ogbench/cube": r"unknown task; .*; got 'ogbench/cube'$",
    "my-swing:Pendulum": r"unknown task; .*; got 'my-swing:Pendulum'$",
    "envs.swing:Pendulum": r"module 'envs.swing' is jepa-mpc's own; rename yours, or its folder$",
    "half:Half": r"task half:Half is not finished; expected it to define substeps, xml or load, errors, play; see",
    "bent:Bent": r"task bent:Bent breaks the contract of envs.GoalEnv: expected a start at the goal",
    "bent:Blind": r"Pendulum: the scene has no such camera; expected 'side'; got 'top'",
    "bent:Nowhere": r"Pendulum: no scene swing.xml; expected a file such as .*/swing.xml; set `xml`",
    "bent:Strong": r"Pendulum: spec_low is off; expected bounds for 1 actuators, or an `advance` .*; got for 2",
    "bent:Slow": r"Pendulum: substeps is off; expected a whole number from 1; got 0.5",
    "bent:Inverted": r"ActionSpec: bounds are off; expected finite low < high; got \(1.0,\), \(-1.0,\)",
    "bent:Comma": r"Pendulum: spec_low is off; expected one an action, such as \(-1.0,\); got -1.0",
    "bent:Word": r"Pendulum: spec_units is off; expected one an action, such as \(\"N m\",\); got 'N m'",
    "bent:Flat": r"task bent:Flat breaks the contract .*: expected play to give actions \(1,\), not \(\)",
    "bent:Wide": r"task bent:Wide breaks the contract .*: expected play to give actions \(1,\), not \(3,\)",
    "bent:Idle": r"task bent:Idle breaks the contract .*: expected play to return a policy",
    "bent:Torn": r"Pendulum: MuJoCo refuses .*/torn.xml; got XML Error: Schema violation: .* Element 'bodi', line 1$",
    "bent:Single": r"task bent:Single breaks .*: Pendulum: errors is off; expected an array .*; got float; see env",
    "bent:Listed": r"task bent:Listed breaks .*: Pendulum: errors is off; expected an array .*; got list; see env",
    "bent:Summed": r"task bent:Summed breaks .*: errors is off; .* for states \[..., n\]; got float64; see env",
    "bent:Lone": r"task bent:Lone breaks .*: errors is off; .* for states \[..., n\]; got ndarray \[1\]; see env",
    "bent:Geared": r"Pendulum has `advance` of its own and does not say whether it simulates; set `simulates = False`",
}


@pytest.mark.parametrize("task", WRONG)
def test_what_is_wrong_with_a_task_is_told(task: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "from envs import GoalEnv\nclass Half(GoalEnv):\n    name, spec_units = 'Half', ('N',)\n"
    head += "    spec_low, spec_high = (-1.0,), (1.0,)\n    def sample_state(self, rng): ...\n"
    (here / "half.py").write_text(head)
    (here / "bent.py").write_text(BENT)
    (here / "torn.xml").write_text("<mujoco><worldbody><bodi/></worldbody></mujoco>")
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


def test_training_goes_on_collecting_what_was_interrupted(here: Path) -> None:
    """`train` took a dataset that was begun for one that is there, and said to run the same command again, for ever."""
    main(["collect", "swing:Pendulum", *SMALLER["collect"]])
    store = EpisodeStore.open(here / "data/swing-pendulum")
    store.forget([0, store.info.episodes - 1])
    main(["train", "swing:Pendulum", *SMALLER["train"]])
    assert not EpisodeStore.open(here / "data/swing-pendulum").missing()
    assert (here / "runs/train/swing-pendulum/checkpoint/config.json").exists()


def test_training_does_not_overwrite_what_another_run_finished(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--checkpoint` is where weights go, and not where they come from, as elsewhere: a finished one was lost."""
    main(["collect", "swing:Pendulum", *SMALLER["collect"]])
    words = ["train", "swing:Pendulum", *SMALLER["train"], "--checkpoint", "kept"]
    main(words)
    before = (here / "kept/config.json").read_bytes()
    main(words)  # of the same run it is its own
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", "runs/other"])
    assert ended.value.code == 2 and "--checkpoint kept would be overwritten" in capsys.readouterr().err
    assert (here / "kept/config.json").read_bytes() == before


UNSOUND = """
import numpy as np
from swing import Pendulum

class Beyond(Pendulum):
    def play(self, rng):
        return lambda state: np.array([9.0])

class Lost(Pendulum):
    def play(self, rng):
        return lambda state: np.array([np.nan])

class Shares(Pendulum):
    def picture(self, state=None):
        return super().picture(state) / 255.0
"""


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("Beyond", r"play is out of bounds; expected \[-2.5\] to \[2.5\]; got \[9.0\]"),
        ("Lost", r"play is out of bounds; expected .*; got \[nan\]"),
        ("Shares", r"picture is off; expected uint8 \[64, 64, 3\]; got float64 \[64, 64, 3\]"),
    ],
)
def test_what_no_robot_did_and_no_camera_saw_is_not_collected(
    task: str, says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was kept as it was said, and learned from: another action than was done, and pictures of zeros and ones."""
    (here / "unsound.py").write_text(UNSOUND)
    with pytest.raises(SystemExit) as ended:
        main(["collect", f"unsound:{task}", *SMALLER["collect"]])
    assert ended.value.code == 2 and re.search(says, capsys.readouterr().err)


def test_an_encoder_that_a_task_s_module_brings_along_is_known(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked for before the module had been imported that registers it."""
    monkeypatch.setattr(encoders, "ENCODERS", encoders.ENCODERS.copy())
    for module in (jepa, encoders):
        monkeypatch.setattr(module, "ENCODERS", encoders.ENCODERS)
    own = "from planner.models.encoders import ENCODERS\nfrom swing import Pendulum\n"
    (here / "brought.py").write_text(f"{own}ENCODERS['mine'] = ENCODERS['conv']\nclass Pend(Pendulum): ...\n")
    main(["collect", "brought:Pend", *SMALLER["collect"]])
    encoders.ENCODERS.pop("mine")
    del sys.modules["brought"]
    main(["train", "brought:Pend", "--model.encoder", "mine", *SMALLER["train"]])
    encoders.ENCODERS.pop("mine")
    del sys.modules["brought"]
    trained = "runs/train/brought-pend/checkpoint"
    main(["evaluate", "brought:Pend", "--checkpoint", trained, "--episodes", "1", "--no-imagine", "--no-oracle"])
