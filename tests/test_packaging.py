"""What is installed: our two packages and their data, nothing else, and beside a stranger's `envs/` too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import planner
from planner import versions

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "planner", "envs")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Of the core, which `make setup` installs, and of the extra that `make test-adapters` adds."""
    locks = (ROOT / name for name in ("requirements.lock", "requirements-ogbench.lock"))
    lines = [line for lock in locks for line in lock.read_text(encoding="utf-8").splitlines()]
    exact = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line) for line in lines if not line.startswith("#")]
    assert exact and all(exact), "the lock holds exact versions and nothing else"
    return {canonicalize_name(pin[1]): pin[2] for pin in exact if pin}


def files(package: str) -> list[Path]:
    """Files of a package, relative to the root; what the interpreter leaves behind is not one."""
    found = (path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(ROOT) for path in found]


def test_every_package_is_listed(project: dict[str, Any]) -> None:
    on_disk = {
        ".".join(path.parent.parts) for name in ("planner", "envs") for path in files(name) if path.suffix == ".py"
    }
    assert set(project["tool"]["setuptools"]["packages"]) == on_disk
    for package in on_disk:
        assert (ROOT / package.replace(".", "/") / "__init__.py").is_file(), package


def test_every_other_file_is_package_data(project: dict[str, Any]) -> None:
    patterns = project["tool"]["setuptools"]["package-data"]
    covered = {
        path.relative_to(ROOT)
        for package, globs in patterns.items()
        for pattern in globs
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    data = {path for name in ("planner", "envs") for path in files(name) if path.suffix != ".py"}
    assert data == covered
    assert {"planner/py.typed", "envs/py.typed", "planner/evaluate/report.html.j2"} <= {str(path) for path in data}


def test_the_version_is_one(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == planner.__version__


def test_the_command_is_named(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"jepa-mpc": "planner.command:main"}


def test_the_lock_satisfies_the_ranges(project: dict[str, Any], pins: dict[str, str]) -> None:
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]
    for requirement in map(Requirement, [*wanted, *project["build-system"]["requires"]]):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in the lock"
        assert requirement.specifier.contains(version), f"{requirement} but the lock says {version}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel, built from a copy, so that the build leaves nothing in the checkout."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for source in (ROOT / name for name in SOURCES):
        if source.is_dir():
            shutil.copytree(source, copy / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    metadata = f"jepa_mpc-{planner.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(metadata)} == {
        path.as_posix() for package in ("planner", "envs") for path in files(package)
    }
    assert metadata + "licenses/LICENSE" in names


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_works_beside_a_strangers_envs(wheel: Path, tmp_path: Path) -> None:
    target, stranger = tmp_path / "installed", tmp_path / "stranger"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (stranger / "envs").mkdir(parents=True)
    (stranger / "envs" / "__init__.py").write_text("raise RuntimeError('the wrong envs was imported')\n")
    code = f"""
import sys
sys.path.insert(1, {str(target)!r})
import planner.tasks
assert planner.__file__.startswith({str(target)!r}), planner.__file__
envs = planner.tasks.load_envs()
assert envs.__file__.startswith({str(target)!r}), envs.__file__
env = envs.make("TwoRoom")
env.reset(seed=0)
env.close()
print("made", type(env).__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=stranger, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["made", "envs.two_room"]


def test_an_installed_package_names_no_commit_of_the_project_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an environment inside somebody's checkout results named that project's commit as ours."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # a hook that runs this has set them
        monkeypatch.delenv(name, raising=False)
    who = ["-c", "user.name=Somebody", "-c", "user.email=some@body", "-c", "commit.gpgsign=false"]

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    installed = tmp_path / ".venv" / "planner" / "versions.py"
    installed.parent.mkdir(parents=True)
    for file in (installed, tmp_path / "theirs.py"):
        file.write_text("")
    git("init")
    git("add", "theirs.py")
    git("commit", "-m", "theirs")
    monkeypatch.setattr(versions, "__file__", str(installed))
    asked = versions.commit.__wrapped__
    assert asked() == "unknown"
    git("add", "--force", ".venv")
    git("commit", "-m", "a checkout that holds this very file")
    assert re.fullmatch("[0-9a-f]{12}", asked())
