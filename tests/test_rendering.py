"""Pictures on any machine: which renderer is chosen, that all draw the same, and that they show what is there."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import envs
from envs import rendering
from envs.rendering import VARIABLE, choose_backend, works
from planner.errors import BadInput

ROOT = Path(__file__).resolve().parent.parent
AGENTS = {"TwoRoom": "agent", "PointMaze": "agent", "Reacher": "tip", "PushT": "pusher", "Cube": "cube"}
"""The one red geom of each scene."""

DRAW = """
import json, sys
import envs
import numpy as np
states = json.load(open(sys.argv[1]))
pictures = {}
for task in states:
    json.kept = made = envs.make(task)
    pictures[task] = np.array([made.picture(np.array(one)) for one in states[task]])
np.savez(sys.argv[2], **pictures)
print(json.dumps({
    "backend": envs.choose_backend(),
    "opengl": sorted(name for name in sys.modules if name.split(".")[0] in ("OpenGL", "glfw")),
    "unclosed": made.camera.backend,
}))
"""
"""Draws given states in every scene, one camera going when the next has come, the last when the process ends."""


def clean_environment(**changes: str) -> dict[str, str]:
    """As on a fresh machine: no renderer chosen, by us or by whoever runs the tests."""
    chosen = (VARIABLE, rendering._TRIED, "MUJOCO_GL", "PYOPENGL_PLATFORM")
    return {key: value for key, value in os.environ.items() if key not in chosen} | changes


def fresh(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environment(**environment), capture_output=True, text=True)


@pytest.fixture(scope="module")
def states() -> dict[str, list[list[float]]]:
    """Four states of every task."""
    found, rng = {}, np.random.default_rng(0)
    for task in envs.TASKS:
        with envs.make(task, size=8) as made:
            found[task] = [made.sample_state(rng).tolist() for _ in range(4)]
    return found


@pytest.fixture(scope="module")
def rays(states: dict[str, list[list[float]]]) -> dict[str, np.ndarray]:
    """Their pictures, cast as rays in this process."""
    found = {}
    for task, some in states.items():
        with envs.TASKS[task](backend="rays") as made:
            found[task] = np.array([made.picture(np.array(one)) for one in some])
    return found


@pytest.fixture(params=[(task, backend) for task in envs.TASKS for backend in ("own", "rays")], ids="-".join)
def env(request: pytest.FixtureRequest) -> Iterator[envs.GoalEnv]:
    """Each task, drawn by the process's renderer and by rays."""
    task, backend = request.param
    with envs.TASKS[task](backend=None if backend == "own" else backend) as made:
        yield made


def assert_alike(one: np.ndarray, other: np.ndarray) -> None:
    """Equal but for a few pixels at edges."""
    off = np.abs(one.astype(int) - other.astype(int))
    assert off.mean() < 0.5, f"grey levels off by {off.mean():.2f} on average"
    assert (off.max(-1) > 8).mean() < 0.005, f"{(off.max(-1) > 8).mean():.2%} of the pixels differ"


# What the camera sees ----------------------------------------------------------------------------------------------


def red_centre(picture: np.ndarray) -> np.ndarray:
    """Column and row of the middle of what is red, pixels."""
    rgb = picture.astype(int)
    rows, columns = np.nonzero((rgb[..., 0] > 150) & (rgb[..., 1] < 100) & (rgb[..., 2] < 100))
    assert len(rows) >= 4, "nothing red in the picture"
    return np.array([columns.mean(), rows.mean()])


def projected(env: envs.GoalEnv, state: np.ndarray) -> np.ndarray:
    """Column and row at which a pinhole camera sees the agent, pixels."""
    env.set_state(state)
    camera = env.data.camera("top")
    x, y, z = (env.data.geom(AGENTS[env.name]).xpos - camera.xpos) @ camera.xmat.reshape(3, 3)
    half = -z * np.tan(np.deg2rad(env.model.camera("top").fovy[0]) / 2)
    return (np.array([x, -y]) / half + 1) / 2 * env.size - 0.5


def test_the_agent_is_seen_where_it_is(env: envs.GoalEnv) -> None:
    """x to the right, y up, all over the table: no picture is mirrored, turned, scaled or late."""
    rng = np.random.default_rng(1)
    for _ in range(12):
        state = env.sample_state(rng)
        if env.name == "Reacher":
            state[1] = np.clip(state[1], -2, 2)  # a folded arm may hide part of its own tip
        if env.name == "Cube":
            state[0] = np.copysign(
                0.7, state[6]
            )  # out of the camera's way: an angle to the left is a place to the right
        assert np.abs(red_centre(env.picture(state)) - projected(env, state)).max() < 0.75


def test_moving_right_and_up_is_seen_right_and_up() -> None:
    with envs.make("TwoRoom") as made:
        here, right, up = (
            red_centre(made.picture(np.array([*at, 0, 0]))) for at in ((-0.5, -0.5), (-0.3, -0.5), (-0.5, -0.3))
        )
    assert np.allclose(right - here, [6, 0], atol=0.5)
    assert np.allclose(up - here, [0, -6], atol=0.5)


def test_a_small_motion_is_seen(env: envs.GoalEnv) -> None:
    """A third of a pixel: the pictures are drawn finer and averaged, so that edges carry it."""
    state = env.sample_state(np.random.default_rng(2))
    moved = state.copy()
    moved[0] += 0.01
    difference = np.abs(env.picture(state).astype(int) - env.picture(moved).astype(int))
    assert difference.max() > 8
    assert (difference.max(-1) > 8).mean() < 0.1, "and only where something moved"


def test_the_block_is_seen_turned() -> None:
    """A T at angle 0 is heavy at the top, at pi at the bottom, at pi / 2 (counter-clockwise) on the left."""
    with envs.make("PushT") as made:
        centres = []
        for angle in (0, np.pi / 2, np.pi):
            picture = made.picture(np.array([0.4, 0.4, 0, 0, angle, 0, 0, 0, 0, 0])).astype(int)
            green = (picture[..., 1] > picture[..., 0] + 30) & (picture[..., 1] > picture[..., 2] + 20)
            rows, columns = np.nonzero(green)
            middle = (np.array([rows.min(), columns.min()]) + [rows.max(), columns.max()]) / 2
            centres.append(np.array([rows.mean(), columns.mean()]) - middle)
    assert centres[0][0] < -1 and centres[1][1] < -1 and centres[2][0] > 1


@pytest.mark.parametrize("size", [8, 33, 64, 128])
def test_sizes_agree(size: int) -> None:
    """Odd sizes too, and sizes above what the model file asks MuJoCo to make room for."""
    state = np.array([0.5, 0.5, 0, 0])
    with envs.make("TwoRoom", size=size) as made:
        picture = made.picture(state)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
        column, row = projected(made, state)
        redness = picture[..., 0].astype(int) - picture[..., 1]
        assert redness[round(row), round(column)] == redness.max() > 40


# Which renderer ----------------------------------------------------------------------------------------------------


def test_rays_agree_with_this_process(states: dict[str, list[list[float]]], rays: dict[str, np.ndarray]) -> None:
    if choose_backend() == "rays":
        pytest.skip("no GL here")
    for task, some in states.items():
        with envs.make(task) as made:
            assert made.camera.backend == choose_backend()
            assert_alike(np.array([made.picture(np.array(one)) for one in some]), rays[task])


def draw(backend: str, states: Any, folder: Path, **environment: str) -> tuple[dict[str, Any], Any, str]:
    """What a fresh process that is told `backend` (or nothing, if empty) says, draws, and complains of."""
    (folder / "states.json").write_text(json.dumps(states))
    named = {VARIABLE: backend} if backend else {}
    done = fresh(DRAW, str(folder / "states.json"), str(folder / "pictures.npz"), **named, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), np.load(folder / "pictures.npz"), done.stderr


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_gl_draws_what_rays_draw_and_ends_quietly(
    backend: str, states: dict[str, list[list[float]]], rays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """A camera that another module held on to outlived the GL library, and the process ended with a traceback."""
    if not works(backend):
        pytest.skip(f"no {backend} here")
    said, pictures, complaints = draw(backend, states, tmp_path)
    assert said["backend"] == said["unclosed"] == backend
    for task, cast in rays.items():
        assert_alike(pictures[task], cast)
    assert "Traceback" not in complaints and "Exception ignored" not in complaints, complaints


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo takes the system's GL, not PyOpenGL's")
def test_without_gl_rays_are_cast(
    states: dict[str, list[list[float]]], rays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """A machine on which no GL library can even be loaded: found out by itself, and the first run does not fail."""
    (tmp_path / "OpenGL").mkdir()
    (tmp_path / "OpenGL" / "__init__.py").write_text("raise ImportError('no GL library here')\n")
    said, pictures, complaints = draw("", states, tmp_path, PYTHONPATH=str(tmp_path))
    assert said == {"backend": "rays", "unclosed": "rays", "opengl": []}
    for task, cast in rays.items():
        assert np.array_equal(pictures[task], cast), "rays are exact: the same in every process"
    assert complaints == ""


def test_closing_a_camera_leaves_the_others_alone() -> None:
    """Under OSMesa a camera that was closed, or forgotten, freed what belonged to another one, which went black."""
    first, second, third = (envs.make(task) for task in ("TwoRoom", "Reacher", "PushT"))
    for made in (first, second, third):
        made.reset(seed=0)
    before = [made.picture() for made in (first, second, third)]
    second.close()
    second.close()
    assert np.array_equal(third.picture(), before[2]) and np.array_equal(first.picture(), before[0])
    del third
    gc.collect()
    assert np.array_equal(first.picture(), before[0])
    first.close()


def test_a_black_picture_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver may accept everything and draw nothing; here the probe looks at the empty sky instead."""
    backend = choose_backend()
    if backend == "rays":
        pytest.skip("no GL here")
    away = rendering._PROBE.replace('pos="0 0 5"', 'pos="0 0 5" euler="180 0 0"')
    assert away != rendering._PROBE
    assert works(backend)
    monkeypatch.setattr(rendering, "_PROBE", away)
    assert not works(backend)
    assert works("rays")


def test_a_probe_that_hangs_or_crashes_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_PROBE", "import os; os.abort()")
    assert not works("egl")

    def hang(*_: Any, **given: Any) -> None:
        raise subprocess.TimeoutExpired("probe", given["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert not works("egl")


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As before the first import of envs, on Linux; what is decided is undone afterwards."""
    # Set before they are deleted, so that what `choose_backend` stores is taken back as well.
    for name in (VARIABLE, rendering._TRIED, "MUJOCO_GL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "mujoco")
    monkeypatch.setattr(sys, "platform", "linux")
    return monkeypatch


choose = choose_backend.__wrapped__
"""`choose_backend` that does not remember what it chose."""


@pytest.mark.parametrize(
    ("platform", "working", "chosen", "library"),
    [
        ("linux", {"egl", "osmesa", "rays"}, "egl", "egl"),
        ("linux", {"osmesa", "rays"}, "osmesa", "osmesa"),
        ("linux", {"rays"}, "rays", "disable"),
        ("darwin", {"cgl", "rays"}, "cgl", "cgl"),
        ("win32", {"rays"}, "rays", "disable"),
    ],
)
def test_the_first_that_works_is_chosen_and_stored(
    undecided: pytest.MonkeyPatch, platform: str, working: set[str], chosen: str, library: str
) -> None:
    undecided.setattr(sys, "platform", platform)
    undecided.setattr(rendering, "works", lambda backend: backend in working)
    assert choose() == chosen
    assert (os.environ[VARIABLE], os.environ["MUJOCO_GL"]) == (chosen, library)
    undecided.setattr(rendering, "works", lambda backend: False)
    assert choose() == chosen, "a child process takes it over and tries nothing"


@pytest.mark.parametrize("variable", [VARIABLE, "MUJOCO_GL"])
def test_a_named_renderer_is_taken(undecided: pytest.MonkeyPatch, variable: str) -> None:
    undecided.setattr(rendering, "works", lambda backend: True)
    undecided.setenv(variable, "osmesa")
    assert choose() == "osmesa"
    undecided.setattr(rendering, "works", lambda backend: False)
    assert choose() == "osmesa", "a child process does not try again what drew"


@pytest.mark.parametrize("variable", [VARIABLE, "MUJOCO_GL"])
def test_a_named_renderer_that_draws_nothing_is_refused(undecided: pytest.MonkeyPatch, variable: str) -> None:
    """It was never tried: MuJoCo's import ended in a traceback, or a black picture went unsaid."""
    undecided.setattr(rendering, "works", lambda backend: backend in ("egl", "rays"))
    undecided.setenv(variable, "osmesa")
    wanted = f"^the renderer osmesa draws nothing here; expected egl or rays; unset {variable}, and one that works"
    for _ in range(2):
        with pytest.raises(BadInput, match=wanted):
            choose()
    undecided.setenv(rendering._TRIED, "egl")
    with pytest.raises(BadInput, match=wanted):
        choose()  # what was tried was another one


def test_rays_named_to_mujoco_are_not_told_to_it() -> None:
    """`MUJOCO_GL=rays` names one of ours; MuJoCo knows no such library, and its import ended in a traceback."""
    done = fresh("import envs; print(envs.choose_backend())", MUJOCO_GL="rays")
    assert (done.returncode, done.stdout.strip()) == (0, "rays"), done.stderr


def test_our_variable_comes_before_mujocos(undecided: pytest.MonkeyPatch) -> None:
    undecided.setenv(VARIABLE, "rays")
    undecided.setenv("MUJOCO_GL", "egl")
    assert choose() == "rays"


def test_an_unknown_renderer_is_refused(undecided: pytest.MonkeyPatch) -> None:
    undecided.setenv(VARIABLE, "vulkan")
    wanted = f"^{VARIABLE}: unknown renderer; expected egl or osmesa or cgl or wgl or rays; got vulkan$"
    with pytest.raises(BadInput, match=wanted):
        choose()


def test_mujoco_imported_with_another_library_is_refused(undecided: pytest.MonkeyPatch) -> None:
    """MuJoCo decides when it is imported; going on would draw with the other one, unsaid."""
    undecided.setitem(sys.modules, "mujoco", sys)
    undecided.setenv(VARIABLE, "egl")
    undecided.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(BadInput, match="MuJoCo was imported with MUJOCO_GL=osmesa; expected egl; import envs before"):
        choose()
    undecided.delenv("MUJOCO_GL")
    undecided.delenv("WAYLAND_DISPLAY", raising=False)
    undecided.setenv("DISPLAY", ":0")  # there GLFW draws, and did before
    assert choose() == "egl"
    undecided.delenv("DISPLAY")
    undecided.delenv("MUJOCO_GL")  # this ended in a traceback from GLFW, or in nothing but the end of the process
    with pytest.raises(BadInput, match="MuJoCo was imported before it was told .*; expected egl; import envs before"):
        choose()


@pytest.mark.parametrize(
    ("named", "complaint"), [("vulkan", "unknown renderer"), ("wgl", "the renderer wgl draws nothing here; expected ")]
)
def test_the_command_refuses_a_wrong_renderer_in_one_line(named: str, complaint: str, tmp_path: Path) -> None:
    """Windows' library, named on Linux, ended in a traceback."""
    if named == "wgl" and sys.platform == "win32":
        pytest.skip("it draws here")
    words = ["collect", "TwoRoom", "--episodes", "1", "--steps", "1", "--out", str(tmp_path / "data")]
    done = fresh(f"import planner.cli; planner.cli.main({words})", **{VARIABLE: named})
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and complaint in done.stderr
