"""The command line: bad input is one clear line and exit code 2, never a traceback; good input does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from toys import SHAPE, SIZE, dot_store, flip_byte, toy_checkpoint

import planner
from envs.push_t import PushT
from planner import checkpoint
from planner.cli import main
from planner.cli.evaluate import conclude
from planner.evaluate.statistics import summary
from planner.recipes import RECIPES


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands write to `data` and `runs` below the working directory: not to ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, datasets and pictures, good and bad, that the table below names."""
    room = tmp_path_factory.mktemp("room")
    toy_checkpoint(room / "good")
    toy_checkpoint(room / "reacher", task="Reacher")
    flip_byte(toy_checkpoint(room / "tampered") / "model.safetensors", 500)
    weights = toy_checkpoint(room / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:900])
    (toy_checkpoint(room / "newer") / "config.json").write_text('{"format": 2}')
    cut_data(dot_store(room / "cut-data").path)
    dot_store(room / "unfinished").data["checksum"][4] = 0
    flip_byte(dot_store(room / "altered").path / "episodes" / "pixels.memmap", 5000)
    dot_store(room / "of-reacher", task="Reacher")
    dot_store(room / "one", episodes=1)
    Image.new("RGB", (SIZE, SIZE)).save(room / "goal.png")
    Image.new("RGB", (64, 48)).save(room / "large.png")
    (room / "words.png").write_text("no picture")
    (room / "file").write_text("in the way")
    return room


def cut_data(path: Path) -> None:
    file = path / "episodes" / "actions.memmap"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-4])


@dataclass(frozen=True)
class Case:
    """Words of a command line, with {room} for the folder above, and what the message has to say."""

    words: str
    says: str

    def __str__(self) -> str:
        return self.words.replace("{room}/", "")


PLAN = "plan TwoRoom --checkpoint {room}/good --goal"
EVALUATE = "evaluate TwoRoom --checkpoint {room}/"
TRAIN = "train TwoRoom --model.image-size 32 --data {room}/"
POLISH = "polish TwoRoom --checkpoint {room}/good --out polished --data {room}/"

BAD = [
    Case(
        "fly",
        "unknown command; expected check or collect or import or .* or train or .* or plan or .* or demo; got 'fly'",
    ),
    Case("--speed", "unknown command; .*got '--speed'"),
    Case("collect", "Required options"),
    Case("collect Fly", "unknown task; expected TwoRoom or .* or Cube or .*; got 'Fly'"),
    Case("collect tworoom", "unknown task; expected TwoRoom"),
    Case("collect TwoRoom --speed 3", "Unrecognized options: --speed"),
    Case("collect TwoRoom --episodes 0", "collect: episodes is off; expected at least 1; got 0"),
    Case("collect TwoRoom --episodes many", "invalid literal|many"),
    Case("collect TwoRoom --steps -3", "collect: steps is off; expected at least 1; got -3"),
    Case("collect TwoRoom --workers 0", "collect: workers is off; expected at least 1; got 0"),
    Case("collect TwoRoom --seed -1", "collect: seed is off; expected 0 to .*got -1"),
    Case("collect TwoRoom --size 0", "collect: size is off; expected a multiple of 16; got 0"),
    Case("collect TwoRoom --size 100000", "image size is off"),
    Case(
        "collect TwoRoom --out {room}/of-reacher", "was made with another task; expected TwoRoom; got Reacher; choose"
    ),
    Case("collect TwoRoom --out {room}/cut-data", "damaged: actions.memmap; expected 1440 bytes; got 1436; remove it"),
    Case(
        "collect TwoRoom --out {room}/file --size 32 --episodes 1", "cannot write or read .*/file.*; name another path"
    ),
    Case("collect TwoRoom --checkpoint {room}/good", "a planner's episodes need a folder of their own; give --out"),
    Case("collect TwoRoom --goal-time 60", "play pursues no goals; give --checkpoint"),
    Case(
        "collect TwoRoom --checkpoint {room}/good --out {room}/new --goal-distance 9 5",
        "the goals of a planner's episodes are off; expected 1 <= nearest <= farthest, time .* replan .*; got 9 to 5",
    ),
    Case("collect TwoRoom --replan 5", "play pursues no goals; give --checkpoint"),
    Case("collect TwoRoom --relief 5", "play pursues no goals; give --checkpoint"),
    Case(
        "collect TwoRoom --checkpoint {room}/good --out {room}/new --relief 50",
        "a planner's relief is off; expected 0 to 49, of the 50 steps .*; got 50; give it more --goal-time",
    ),
    Case(
        "collect TwoRoom --checkpoint {room}/good --out {room}/new --replan 999 --goal-time 999",
        "MPC: replan is off; .* got 999",
    ),
    Case("collect TwoRoom --out x --checkpoint {room}/reacher", "is for another task; expected TwoRoom; got Reacher"),
    Case("collect TwoRoom --out x --checkpoint {room}/cut", "was altered or cut short"),
    Case("collect TwoRoom --size 64 --out x --checkpoint {room}/good", "pictures of 32 pixels; got 64"),
    Case("train Fly", "unknown task"),
    # Before the minutes of collecting: none of these has a dataset.
    Case("train Reacher --model.body 5", "body: too many directions; expected at most 2"),
    Case(
        "train Reacher --training.horizon 40", "looks further than the episodes go; expected training.horizon at most"
    ),
    Case("train Reacher --model.encoder keypoints --model.latent-dim 63", "latent_dim|keypoints"),
    Case("train Reacher --training.held-out 1", "held_out is off; expected more than 0, less than 1; got 1.0"),
    Case(POLISH + "missing", "no dataset at .*missing"),
    Case(POLISH + "of-reacher", "dataset .*of-reacher is of another task; expected TwoRoom; got Reacher"),
    Case(POLISH + "unfinished", "is not complete; expected 6 episodes; got 5"),
    Case(POLISH + "one", "too few episodes; expected at least 2; got 1"),
    Case(POLISH + "one --threads 0", "polish: threads is off; expected at least 1; got 0"),
    Case(
        POLISH + "one --hidden 64 --heads 2",
        "--hidden and --heads without a new predictor; expected --predictor mlp, gated or .*; name the kind",
    ),
    Case(POLISH + "one --predictor lstm", "unknown predictor; expected mlp or gated or transformer; got 'lstm'"),
    Case(POLISH + "one --predictor gated --heads 2", "heads is off; expected .* with predictor 'gated'; got 2"),
    Case("train TwoRoom --training.steps 0", "training: steps is off; expected at least 1; got 0"),
    Case("train TwoRoom --training.seed -1", "training: seed is off; expected 0 to .*got -1"),
    Case("train TwoRoom --training.learning-rate nan", "learning_rate is off; expected more than 0; got nan"),
    Case("train TwoRoom --training.speed 3", "Unrecognized options: --training.speed"),
    Case(
        "train TwoRoom --model.encoder os.system",
        "unknown encoder; expected conv or .*; got 'os.system'",
    ),
    Case("train PushT --training.repaint", "training: repaint without looks; expected augment above 0; got augment 0"),
    Case("pretrain TwoRoom --training.augment 0 --training.backdrop", "training: backdrop without looks"),
    Case("train TwoRoom --model.width 7", "multiples of 16 and of 4; got 64 and 7"),
    Case("train TwoRoom --threads 0", "train: threads is off; expected at least 1; got 0"),
    Case("train TwoRoom --probe -1", "train: probe is off; expected at least 0; got -1"),
    Case(TRAIN + "cut-data", "damaged: actions.memmap; expected 1440 bytes; got 1436; remove it"),
    Case(TRAIN + "unfinished", "is not complete; expected 6 episodes; got 5; run the same command"),
    Case(TRAIN + "altered", "episode 0 was altered; remove it"),
    Case(TRAIN + "of-reacher", "dataset .*of-reacher is of another task; expected TwoRoom; got Reacher"),
    Case(TRAIN + "one", "too few episodes; expected at least 2; got 1; make more"),
    Case(TRAIN + "one --model.image-size 64", r"image sizes differ; expected 32 \(the dataset's\); got 64"),
    Case(TRAIN + "one --out {room}/file", "cannot write or read .*/file.*; name another path"),
    Case("evaluate Fly", "unknown task"),
    Case(EVALUATE + "good --episodes 0", "evaluate: episodes is off; expected at least 1; got 0"),
    Case(EVALUATE + "good --goals some", "evaluate: goals is off; expected play, any or own; got 'some'"),
    Case(EVALUATE + "good --execute 9", "planner: execute is off; expected 1 to horizon"),
    Case("compare none none", "compare: none is no evaluation; expected a folder with results.json and episodes.jsonl"),
    Case(EVALUATE + "good --seed -1", "evaluate: seed is off; expected 0 to .*got -1"),
    Case(EVALUATE + "good --distance 0", "evaluate: distance is off; expected at least 1; got 0"),
    Case(EVALUATE + "good --num-envs 0", "evaluate: num_envs is off; expected at least 1; got 0"),
    Case(
        EVALUATE + "good --optimizer newton",
        r"unknown optimizer; expected one of \['categorical', 'cem', .*'sampling'\]; got 'newton'",
    ),
    Case(EVALUATE + "good --samples 1", "samples is off; expected at least 2; got 1"),
    Case(EVALUATE + "good --iterations 0", "expected at least 1; got .*0"),
    Case(EVALUATE + "good --horizon 0", "execute is off|horizon"),
    Case(EVALUATE + "good --over never", "expected .*last"),
    Case(EVALUATE + "good --replan -1", "replan is off; expected 0 or more; got -1"),
    Case(EVALUATE + "good --replan 11", r"replan is off; expected 1 to horizon \* block \(10\); got 11"),
    Case(EVALUATE + "good --replan 2 --execute 2", "execute is not read; .*got replan 2, .*; add --replan 0"),
    Case(EVALUATE + "good --deadline-ms 0", "deadline_ms is off; expected a number above 0; got 0"),
    Case(
        EVALUATE + "missing", "no checkpoint at .*missing; .*--checkpoint, or train one with `jepa-mpc train TwoRoom`"
    ),
    Case(EVALUATE + "tampered", "was altered or cut short: model.safetensors; expected SHA-256 .*; restore it"),
    Case(EVALUATE + "cut", "was altered or cut short"),
    Case(EVALUATE + "newer", "config.json is damaged; expected the keys"),
    Case(EVALUATE + "reacher", "is for another task; expected TwoRoom; got Reacher"),
    Case(EVALUATE + "good --distance 1 --episodes 1", "only 0 pairs of 1 found at distance 1; got .*; choose a larger"),
    Case("plan Fly --goal x.png", "unknown task"),
    Case("plan TwoRoom", "Required options"),
    Case(PLAN + " {room}/missing.png", "no goal picture at .*missing.png; make one with --save-goal"),
    Case(PLAN + " {room}", "no goal picture at"),
    Case(PLAN + " {room}/large.png", "large.png has another size; expected 32 x 32 pixels; got 64 x 48; render or"),
    Case(PLAN + " {room}/words.png", "words.png cannot be read; expected an image file"),
    Case(PLAN + " {room}/goal.png --steps 0", "plan: steps is off; expected at least 1; got 0"),
    Case(PLAN + " {room}/goal.png --seed -1", "plan: seed is off; expected 0 to .*got -1"),
    Case(PLAN + " {room}/goal.png --out {room}/file", "cannot write or read .*/file.*; name another path"),
    Case(PLAN + " {room}/x.strange --save-goal", "cannot write .*x.strange; expected an ending such as .png"),
    Case(PLAN + " {room}/file/x.png --save-goal", "cannot write or read .*/file.*; name another path"),
    Case(EVALUATE + "good --out /proc/results", "cannot write or read /proc/results.*; name another path"),
    Case("demo --episodes two", "invalid literal|two"),
]


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input(case: Case, room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(case.words.format(room=room).split())
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "Traceback" not in said
    flat = " ".join(re.sub("[│╭╮╰╯─]", " ", said).split())
    assert re.search(case.says, flat), flat
    if flat.startswith("jepa-mpc:"):
        assert said.count("\n") == 1, "expected one line"


@pytest.mark.parametrize("words", [["plan", "Fly", "--goal", "x.png"], ["evaluate", "TwoRoom", "--checkpoint", "none"]])
def test_bad_input_of_the_real_command(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; from planner.cli import main; main(sys.argv[1:])", *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100, env=environment())
    assert ended.returncode == 2
    assert ended.stderr.startswith("jepa-mpc: ") and ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(("words", "code"), [(["--help"], 1), (["train", "PushT", "--help"], 141)])
def test_a_reader_that_leaves_is_no_error(words: list[str], code: int) -> None:
    """`jepa-mpc train --help | head` ended in a traceback. (Where rich writes, it ends with a code of its own.)"""
    command = [sys.executable, "-c", "import sys; from planner.cli import main; main(sys.argv[1:])", *words]
    reads, writes = os.pipe()
    os.close(reads)
    ended = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, timeout=100, env=environment())
    os.close(writes)
    assert (ended.returncode, ended.stderr) == (code, b"")


def environment() -> dict[str, str]:
    """So that a process elsewhere finds the package that is tested here."""
    return os.environ | {"PYTHONPATH": str(Path(planner.__file__).parent.parent)}


def test_no_shipped_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """As from an installed wheel."""
    monkeypatch.setattr("planner.checkpoint.SHIPPED", tmp_path / "checkpoints")
    for words in (["evaluate", "PushT"], ["demo"], ["plan", "Reacher", "--goal", "x.png"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert re.search("no checkpoint at .*; name one with --checkpoint, or train one", capsys.readouterr().err)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(words: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"  {name} " in said for name in ("collect", "train", "evaluate", "compare", "plan", "demo"))


def test_help_of_train_shows_the_task_s_recipe(capsys: Any) -> None:
    """A user sees what a run will do before it does it; the tasks differ."""
    with pytest.raises(SystemExit):
        main(["train", "PushT", "--help"])
    said = capsys.readouterr().out
    assert f"(default: {RECIPES['PushT'].training.steps})" in said
    assert f"(default: {RECIPES['PushT'].model.latent_dim})" in said


@pytest.mark.parametrize(
    ("words", "augment"),
    [
        ("train TwoRoom --training.repaint", 0.8),
        ("train --out PushT TwoRoom --training.repaint --training.backdrop", 0.8),  # of which two are names of tasks
        ("train Reacher --training.augment 0.3 --training.backdrop", 0.3),
        ("pretrain Reacher --training.repaint", 0.8),
    ],
)
def test_options_are_held_against_the_task_s_recipe(
    words: str, augment: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look that finds the task took the defaults of no task: "got augment 0", where the recipe has 0.8."""
    seen: list[Any] = []
    for command in ("Train", "Pretrain"):
        monkeypatch.setattr(f"planner.cli.train.{command}.run", lambda self: seen.append(self.training))
    main(words.split())
    assert [training.augment for training in seen] == [augment] and (seen[0].repaint or seen[0].backdrop)


@pytest.mark.parametrize("task", ["Cube", "ogbench/pointmaze-medium"])
def test_a_narrow_terminal_shows_every_figure_whole(task: str, capsys: Any, monkeypatch: Any) -> None:
    """In 80 columns a rate was cut to `179/2` and three dots."""
    monkeypatch.setattr("planner.cli.evaluate.console", Console(width=80))
    floors = {name: {"successes": 12, "n": 200} for name in ("random", "noop", "oracle")}
    facts: dict[str, Any] = {"task": task, "successes": 179, "n": 200, "interval": (0.98, 1.0), "hard_score": 1.0}
    facts |= {"floors": floors, "simulates": True, "plan_ms": {"median": 12_345.6}, "control_hz": 1000.0}
    looks = {
        name: summary(17, 100) | {"changed_pixels": share, "drop": 0.725}
        for name, share in (("texture", 0.0), ("objects", 3e-5))
    }
    facts |= {"success_rate": 0.895, "num_envs": 10}
    outcome: Any = SimpleNamespace(result=facts | {"protocol": None, "appearance": looks})
    conclude([outcome], (Path("a"), Path("b"), Path("c")))
    said = capsys.readouterr().out
    for figure in ("179/200", "98%-100%", "12/200", "100 %", "12346", "1000 Hz", "17/100", " 0.0", "<0.1", "72"):
        assert figure in said
    assert f"{task}: times of a plan are of 10 environments at once" in " ".join(said.split())


@pytest.mark.parametrize(("words", "asked"), [([], (300, 400)), (["--episodes", "7", "--steps", "50"], (7, 50))])
def test_collect_asks_for_what_the_task_s_recipe_wants(
    words: list[str], asked: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far goals need long episodes; a command that knew one length made datasets that the recipe was not made for."""
    seen: list[Any] = []

    def collect(*_: Any, episodes: int, steps: int, **__: Any) -> None:
        seen.append((episodes, steps))
        raise KeyboardInterrupt

    monkeypatch.setattr("planner.collect.collect", collect)
    with pytest.raises(SystemExit):
        main(["collect", "ogbench/pointmaze-medium", *words])
    assert seen == [asked]


def test_an_interruption_is_no_error_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: Any, room: Path) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("planner.checkpoint.load", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "TwoRoom", "--checkpoint", str(room / "good")])
    assert ended.value.code == 130 and capsys.readouterr().err == "jepa-mpc: interrupted\n"


# Good input --------------------------------------------------------------------------------------------------------


def test_evaluate(room: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """Options override the checkpoint's own settings; the files are where the last lines say."""
    monkeypatch.setattr("planner.evaluate.imagination.BANK_EPISODES", 3)
    options = "--episodes 2 --distance 20 --num-envs 2 --optimizer mppi --samples 4 --no-oracle --out results"
    main(f"evaluate TwoRoom --checkpoint {room}/good {options}".split())
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "results" / "results.json").read_text())
    assert (result["n"], result["optimizer"], result["planner"]["samples"]) == (2, "mppi", 4)
    assert result["planner"]["horizon"] == 2 and result["floors"]["oracle"] is None
    assert f"{result['successes']}/2" in said and "not run" in said
    assert "outside protocol TwoRoom-v1: it has no column with distance 20" in " ".join(said.split())
    page = (tmp_path / "results" / "report.html").read_text()
    assert page.count("Plan at step") == 4, "two plans in each of two episodes"
    for name in ("plan.mp4", "report.html", "results.json"):
        assert f"results/{name}" in said and (tmp_path / "results" / name).stat().st_size > 0


def test_record_puts_the_figures_into_the_card(tmp_path: Path) -> None:
    folder = toy_checkpoint(tmp_path / "own")
    main(f"evaluate TwoRoom --checkpoint {folder} --episodes 1 --distance 25 --no-oracle --record --no-imagine".split())
    assert re.search(r"Goals reached: \*\*[01]/1\*\*", (folder / "card.md").read_text())


@pytest.mark.parametrize("other", ["--samples 7", "--metric l1", "--deadline-ms 50"])
def test_a_card_is_not_told_what_another_planner_reaches(other: str, tmp_path: Path, capsys: Any) -> None:
    """It was, and named none of the settings."""
    folder = toy_checkpoint(tmp_path / "own")
    with pytest.raises(SystemExit):
        main(f"evaluate TwoRoom --checkpoint {folder} --episodes 1 --record {other}".split())
    assert "settings of another planner and record; leave out --record" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(f"evaluate TwoRoom --checkpoint {folder} --episodes 1 --record --noise 1".split())
    assert "noise and record; got 1; leave one of them out" in capsys.readouterr().err


def test_plan_with_a_goal_of_one_s_own(room: Path, tmp_path: Path, capsys: Any) -> None:
    main(f"plan TwoRoom --checkpoint {room}/good --goal own/goal.png --save-goal".split())
    main(f"plan TwoRoom --checkpoint {room}/good --goal own/goal.png --steps 4 --out film".split())
    assert np.asarray(Image.open(tmp_path / "own" / "goal.png")).shape == (SIZE, SIZE, 3)
    assert {file.name for file in (tmp_path / "film").iterdir()} == {"plan.mp4", "plan.png"}
    assert "latent distance to the goal" in capsys.readouterr().out


def test_train_makes_a_checkpoint(tmp_path: Path, capsys: Any) -> None:
    """In process, from a dataset that lies there; the checkpoint works without it."""
    data = dot_store(tmp_path / "dots").path
    small = "--model.image-size 32 --model.width 8 --model.latent-dim 8 --model.hidden 16 --training.batch 8"
    few = "--training.steps 4 --training.temporal-steps 4"
    main(f"train TwoRoom --data {data} --out run {small} {few} --threads 1".split())
    said = " ".join(capsys.readouterr().out.split())  # lines break where the terminal is narrow
    assert "trained; try `jepa-mpc evaluate TwoRoom --checkpoint run/checkpoint`" in said
    data.rename(tmp_path / "gone")
    plan = ["plan", "TwoRoom", "--checkpoint", "run/checkpoint", "--goal", "goal.png"]
    main([*plan, "--save-goal"])
    main([*plan, "--steps", "2"])


def test_symmetries_that_a_task_has_not_are_refused_before_it_is_played(tmp_path: Path, capsys: Any) -> None:
    """Minutes of collecting went first."""
    with pytest.raises(SystemExit, match="2"):
        main(["train", "TwoRoom", "--training.symmetric"])
    assert "symmetric, and the task has no symmetries" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("command", "trains"),
    [("train", "train"), ("polish", "polish"), *((part, "add_part") for part in ("prior", "temporal", "slow"))],
)
def test_a_task_s_symmetries_reach_every_training(command: str, trains: str, tmp_path: Path, monkeypatch: Any) -> None:
    spec, changes = PushT.action_spec(), {}
    if command == "train":  # the others hold the data against the checkpoint, which is a toy's
        changes = {"action_low": spec.low, "action_high": spec.high, "action_units": spec.units, "block": spec.block}
    dot_store(tmp_path / "data", task="PushT", **changes)
    given: list[Any] = []

    def told(*_: Any, symmetries: Any, **__: Any) -> None:
        given.extend(symmetries)

    monkeypatch.setattr(f"planner.training.{trains}", told)
    words = [command, "PushT", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    if command != "train":
        start = toy_checkpoint(tmp_path / "start", task="PushT", shape=replace(SHAPE, temporal=4))
        words += ["--checkpoint", str(start)]
    with pytest.raises(SystemExit, match="130"):  # as if it had been interrupted
        main(words)
    assert given == list(PushT.symmetries)


def test_a_planner_s_episodes_polish_its_predictor(tmp_path: Path, capsys: Any) -> None:
    """On-policy data, and a checkpoint whose predictor alone has moved."""
    start = checkpoint.load(toy_checkpoint(tmp_path / "start"), task="TwoRoom")
    main(f"collect TwoRoom --episodes 3 --steps 20 --size {SIZE} --workers 1 --out play".split())
    main(f"collect TwoRoom --episodes 3 --steps 20 --size {SIZE} --workers 1 --out own --checkpoint start".split())
    assert "planner " + start.sha256[:12] in (tmp_path / "own" / "dataset.json").read_text()
    words = "polish TwoRoom --data play own --checkpoint start --save done --threads 1"
    small = "--training.steps 4 --training.batch 4 --training.horizon 1 --training.save-every 2"
    main(f"{words} {small}".split())
    assert "done: polished" in capsys.readouterr().out
    done = checkpoint.load(tmp_path / "done", task="TwoRoom")
    for name, value in done.model.state_dict().items():
        moved = not torch.equal(value, start.model.state_dict()[name])
        assert moved == name.startswith("predictor."), name
    card = (tmp_path / "done" / "card.md").read_text()
    assert "3 episodes of play" in card and f"3 episodes of planner {start.sha256[:12]}" in card
    main(f"{words} {small}".split())  # a finished run is not trained further
    assert checkpoint.load(tmp_path / "done").sha256 == done.sha256
    with pytest.raises(SystemExit):
        main(f"{words} {small} --training.learning-rate 0.1".split())
    assert "holds a run of another configuration; got training.learning_rate" in capsys.readouterr().err


def test_a_finished_encoder_gets_a_new_predictor(tmp_path: Path) -> None:
    """Of another kind and size, its first weights by the seed; encoder and body are those of before."""
    start = checkpoint.load(toy_checkpoint(tmp_path / "start"), task="TwoRoom").model
    main(f"collect TwoRoom --episodes 3 --steps 20 --size {SIZE} --workers 1 --out play".split())
    words = "polish TwoRoom --data play --checkpoint start --threads 1 --predictor gated --hidden 24 --depth 1"
    small = "--training.steps 4 --training.batch 4 --training.horizon 1"
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)
        main(f"{words} {small} --training.seed {seed} --save done{i} --out run{i}".split())
    first, same, other = (checkpoint.load(tmp_path / f"done{i}", task="TwoRoom") for i in range(3))
    assert first.sha256 == same.sha256 != other.sha256
    shape = first.model.config
    assert (shape.predictor, shape.hidden, shape.depth) == ("gated", 24, 1)
    kept = {name: value for name, value in start.state_dict().items() if not name.startswith("predictor.")}
    assert kept and all(torch.equal(value, first.model.state_dict()[name]) for name, value in kept.items())
    assert "new (gated, 1 x 24)" in (tmp_path / "done0" / "card.md").read_text()


@pytest.mark.slow
def test_from_nothing_to_a_film(tmp_path: Path) -> None:
    """Collect, train, evaluate and plan through the real command, with nothing but what the one before left."""

    def run(*words: str) -> str:
        script = "import sys; from planner.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", script, *words]
        how: dict[str, Any] = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment()}
        return str(subprocess.run(command, check=True, timeout=100, **how).stdout)

    small = ["--model.image-size=32", "--model.width=8", "--model.latent-dim=8", "--model.hidden=16"]
    said = run("collect", "TwoRoom", "--episodes=6", "--steps=40", "--size=32", "--workers=2")
    assert "6 episodes, 246 frames" in " ".join(said.split())
    brief = ["--training.batch=8", "--training.steps=20", "--training.temporal-steps=20", "--training.held-out=0.3"]
    run("train", "TwoRoom", *small, *brief)
    at = ["--checkpoint", "runs/train/tworoom/checkpoint"]
    said = run("evaluate", "TwoRoom", *at, "--episodes=2", "--distance=20", "--samples=16")
    assert "/2" in said and (tmp_path / "runs/evaluate/tworoom/report.html").exists()
    run("plan", "TwoRoom", *at, "--goal", "goal.png", "--save-goal")
    run("plan", "TwoRoom", *at, "--goal", "goal.png", "--steps", "10")
    assert (tmp_path / "runs/plan/plan.mp4").stat().st_size > 500


def test_threads_of_the_command_do_not_spin_for_long() -> None:
    """Beside a busy process two threads that spun as they do by default planned with three times the p99."""
    script = "import os, sys; sys.argv = ['jepa-mpc', '--help']; from planner.command import main\n"
    script += "assert 'torch' not in sys.modules\ntry: main()\nexcept SystemExit: print(os.environ['GOMP_SPINCOUNT'])"
    for given, expected in (({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        rest = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        ran = subprocess.run([sys.executable, "-c", script], env=rest | given, capture_output=True, text=True)
        assert ran.returncode == 0 and ran.stdout.splitlines()[-1] == expected, ran.stderr
