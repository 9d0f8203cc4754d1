"""Every command of the README runs, and its Python example too."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from planner import cli
from planner.checkpoint import SHIPPED
from planner.settings import PlannerConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
    if line.strip()
]

# What a command gets on top, so that a test of it takes seconds. A command without an entry fails the test.
SMALLER = {
    "collect": ["--episodes", "3", "--steps", "30", "--workers", "1"],
    "train": [
        "--training.steps",
        "4",
        "--training.temporal-steps",
        "4",
        "--training.batch",
        "4",
        "--threads",
        "1",
        "--probe",
        "2",
    ],
    "pretrain": ["--training.steps", "4", "--training.batch", "8", "--threads", "1"],
    "evaluate": ["--episodes", "2"],
    "compare": [],
    "plan": [],
    "demo": ["--episodes", "2"],
    "prior": ["--training.prior-steps", "4", "--horizon", "1", "--width", "16", "--threads", "1"],
    "temporal": ["--training.temporal-steps", "4", "--features", "8", "--threads", "1"],
    "slow": ["--training.slow-steps", "4", "--features", "8", "--threads", "1"],
    "looks": ["--training.steps", "4", "--training.batch", "8", "--threads", "1"],
    "join": ["--threads", "1"],
    "surprise": ["--episodes", "99", "--length", "20"],
    "polish": ["--training.steps", "4", "--training.batch", "4", "--training.horizon", "2", "--threads", "1"],
}


def test_readme_has_the_two_commands_first() -> None:
    assert [words[:2] for words in COMMANDS[:2]] == [["make", "demo"], ["make", "test"]]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "make"], ids=shlex.join)
def test_make_targets_exist(words: list[str]) -> None:
    shown = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


def test_every_command_is_ours_and_parses() -> None:
    for words in COMMANDS:
        assert words[0] in ("make", "jepa-mpc"), words
        if words[0] == "jepa-mpc":
            assert type(cli._parse(words[1:])) is cli.COMMANDS[words[1]]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_commands_run_in_order_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the README's order: later ones use what earlier ones left. Train gets the few episodes that collect made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(SHIPPED)  # as in a clone
    for words in COMMANDS:
        if words[0] == "jepa-mpc":
            cli.main([*words[1:], *SMALLER[words[1]]])
    for left in ("data/tworoom/dataset.json", "runs/polish/tworoom/checkpoint/config.json", "runs/plan/plan.mp4"):
        assert (tmp_path / left).is_file()
    for folder in ("runs/evaluate/tworoom", "runs/demo"):
        assert all((tmp_path / folder / name).stat().st_size for name in ("plan.mp4", "report.html", "results.json"))


@pytest.mark.skipif(not (SHIPPED / "tworoom" / "config.json").exists(), reason="needs the shipped TwoRoom checkpoint")
def test_python_example_runs() -> None:
    example = "".join(text for kind, text in BLOCKS if kind == "python")
    shown = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert shown.returncode == 0, shown.stderr
    assert re.fullmatch(r"\[(True|False)(, (True|False)){2}\]\n", shown.stdout)


@pytest.mark.parametrize("shipped", sorted(SHIPPED.glob("*/config.json")), ids=lambda file: file.parent.name)
def test_figures_are_those_that_were_measured(shipped: Path) -> None:
    """The README's row of a task says what its results file says, and that is of the checkpoint that is shipped."""
    config = json.loads(shipped.read_text())
    file = ROOT / "benchmarks" / "results" / f"{config['task'].replace('/', '-')}.json"
    result = json.loads(file.read_text())
    low, high = result["interval"]
    floors = [result["floors"][name] for name in ("random", "noop", "oracle")]
    cells = [
        f"**{result['successes']}/{result['n']}**",
        f"{100 * low:.0f} to {100 * high:.0f} %",
        *(f"{arm['successes']}/{arm['n']}" if arm else "not run" for arm in floors),
        f"{result['plan_ms']['median']:.0f} ms",
    ]
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{result['task']}`") and "**" in line]
    assert [cell.strip() for cell in row.strip("|").split("|")][1:7] == cells
    assert result["checkpoint_sha256"] == config["sha256"]
    # A setting that came later had its default then.
    assert PlannerConfig(**result["planner"]) == PlannerConfig(**config["planner"]), "shipped settings"


@pytest.mark.parametrize("shipped", sorted(SHIPPED.glob("*/config.json")), ids=lambda file: file.parent.name)
def test_figures_further_away_are_those_that_were_measured(shipped: Path) -> None:
    """The table of distances says what rows of the shipped weights say; its first column is that of the first table."""
    config = json.loads(shipped.read_text())
    table = README.split("| task | 25 | 50 | 100 | any | strictly |")[1].split("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith(f"| `{config['task']}`")]
    told = [line.strip("| ").split(" | ")[1:] for line in lines]
    if "/" in config["task"]:
        assert not told, "other people's benchmarks have goals of their own"
        return
    rows = [json.loads(line) for line in (ROOT / "benchmarks/results/distances.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["checkpoint_sha256"] == config["sha256"] and row["n"] == 200]
    rows = [row for row in rows if PlannerConfig(**row["planner"]) == PlannerConfig(**config["planner"])]
    measured = {row["column"]: str(row["successes"]) for row in rows}
    measured["25"] = str(json.loads((ROOT / "benchmarks/results" / f"{config['task']}.json").read_text())["successes"])
    assert told == [[measured.get(column, "not run") for column in ("25", "50", "100", "any", "strict")]]
