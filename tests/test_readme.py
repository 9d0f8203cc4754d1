"""Every command of the README and of the page on how it works runs, and the README's Python example too."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from planner import cli
from planner.checkpoint import SHIPPED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
FURTHER = re.findall(r"```(bash)\n(.*?)```", (ROOT / "docs/how-it-works.md").read_text(), re.DOTALL)
"""What a finished checkpoint can be taught on top."""
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, text in [*BLOCKS, *FURTHER]
    if kind == "bash"
    for line in text.splitlines()
    if line.strip() and not line.startswith("#")
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
    "check": [],
    "rehearse": ["--steps", "2", "--windows", "9", "--threads", "1"],
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
    """In the order of the pages: later ones use what earlier ones left. Train gets the few episodes collected."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(SHIPPED)  # as in a clone
    for words in COMMANDS:
        if words[0] == "jepa-mpc" and words[1] != "serve":  # which does not end: tests/test_server.py
            few = SMALLER[words[1]]
            if words[1] == "collect" and "--checkpoint" not in words:
                few = [*few, "--episodes", "40"]  # of which two are held out: `join` asks for as many
            if words[1] == "surprise" and "--fit" not in words:
                few = []  # a recorded episode is as long as it is
            cli.main([*words[1:], *few])
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


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page: Path) -> None:
    """To files that are here, and to headings that they have."""
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        file, _, heading = link.partition("#")
        if file.startswith("https:"):
            continue
        there = page.parent / file if file else page
        assert there.exists(), link
        headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if heading else []
        anchors = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]
        assert not heading or heading in anchors, link
