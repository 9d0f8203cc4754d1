"""Collection: an episode depends on its seed and its row only, and being killed costs the episode in hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import SPEC, toy_checkpoint

import planner.collect
from planner import checkpoint
from planner.actions import ActionSpec
from planner.collect import (
    COLLECT_STREAM,
    LULLS_STREAM,
    PLANNED_STREAM,
    Pursuit,
    at_rest,
    collect,
    play_episode,
    play_on,
    record_episode,
    record_planned,
    with_lulls,
)
from planner.data import KEYS, DatasetInfo, EpisodeStore
from planner.errors import BadInput
from planner.evaluate.protocol import EVALUATE_STREAM
from planner.mpc import MPC
from planner.tasks import load_envs
from planner.versions import versions

EPISODES, STEPS, SIZE = 5, 10, 32
HOW: dict[str, Any] = {"episodes": EPISODES, "steps": STEPS, "size": SIZE, "seed": 0, "workers": 1}


def empty(path: Path, episodes: int = EPISODES) -> EpisodeStore:
    """A dataset of TwoRoom with no episode in it yet, as `collect` lays it out."""
    envs = load_envs()
    env = envs.make("TwoRoom", size=SIZE)
    spec = env.action_spec()
    bounds = {"action_low": spec.low, "action_high": spec.high, "action_units": spec.units, "block": spec.block}
    facts = {"task": "TwoRoom", "episodes": episodes, "steps": STEPS, "size": SIZE, "seed": 0}
    names = {"state_names": env.state_names, "state_units": env.state_units}
    env.close()
    made = {"renderer": envs.choose_backend(), "versions": versions()}
    return EpisodeStore.create(path, DatasetInfo(**facts, **names, **made, **bounds))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    """The same dataset, made in this process, one row after the other, and never interrupted."""
    store = empty(tmp_path_factory.mktemp("whole"))
    env = load_envs().make("TwoRoom", size=SIZE)
    for row in range(EPISODES):
        store.write(row, *record_episode(env, STEPS, np.random.default_rng([COLLECT_STREAM, 0, row])))
    env.close()
    return store


def same(one: EpisodeStore, other: EpisodeStore) -> bool:
    """Bit for bit, in the files."""
    paths = (EpisodeStore.open(store.path).path / "episodes" for store in (one, other))
    first, second = ([(path / f"{key}.memmap").read_bytes() for key in (*KEYS, "checksum")] for path in paths)
    return first == second


def test_workers_change_nothing(tmp_path: Path, whole: EpisodeStore) -> None:
    """Two processes that share the rows make the bits that one process made by itself."""
    seen: list[tuple[int, int]] = []
    store = collect("TwoRoom", tmp_path, **HOW | {"workers": 2}, progress=lambda *step: seen.append(step))
    store.verify()
    assert same(store, whole)
    assert seen == [(done, EPISODES) for done in range(EPISODES + 1)]


def test_episodes_differ_and_are_drawn_from_their_states(whole: EpisodeStore) -> None:
    states, pixels = whole.data["state"], whole.data["pixels"]
    assert len({tuple(row.tolist()) for row in states[:, 0]}) == EPISODES
    assert len(set(whole.data["checksum"].tolist())) == EPISODES
    env = load_envs().make("TwoRoom", size=SIZE)
    picture = env.picture(states[2, 4].double().numpy())
    env.close()
    assert np.abs(picture.astype(int) - pixels[2, 4].numpy()).max() <= 2  # the stored state is float32


def test_actions_lead_from_state_to_state(whole: EpisodeStore) -> None:
    env = load_envs().make("TwoRoom", size=SIZE)
    states, actions = (whole.data[key][1].double().numpy() for key in ("state", "actions"))
    for k in range(STEPS):
        env.set_state(states[k])
        env.advance(actions[k])
        np.testing.assert_allclose(env.state, states[k + 1], atol=1e-3)
    env.close()


def test_lulls_slow_play_down_and_stop_it() -> None:
    """Spells of 3 to 24 steps, each with a share of what play would do, from none to all, towards rest and not zero."""
    play, still = np.array([0.9, 0.4]), np.array([0.1, 0.0])
    act = with_lulls(lambda state: play, lambda action: still, np.random.default_rng(0))
    done = np.stack([act(np.zeros(1)) for _ in range(3000)])
    shares = (done - still) / (play - still)
    np.testing.assert_allclose(shares[:, 0], shares[:, 1])
    assert set(shares[:, 0].round(6)) == {0.0, 0.1, 0.2, 0.4, 0.7, 1.0}
    ends = np.flatnonzero(np.diff(shares[:, 0])) + 1
    assert np.diff(ends).min() >= 3 and np.median(np.diff(ends)) < 30
    assert 0.2 < (shares[:, 0] == 0).mean() < 0.4


def test_play_stops_counting_where_it_rests() -> None:
    """A push of ten steps was over before it began, as play went on in its head while it stood still."""
    calls = 0

    def play(state: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        return np.ones(1)

    act = with_lulls(play, lambda action: np.zeros(1), np.random.default_rng(0))
    done = np.concatenate([act(np.zeros(1)) for _ in range(1000)])
    assert calls == int((done != 0).sum()) + (done[0] == 0)


def test_a_lull_of_the_cube_s_hand_keeps_its_grip() -> None:
    """Nothing is said of a gap by 0 but that it be shut: hands let go of cubes, or shut before they were there."""
    with load_envs().make("Cube", size=SIZE) as env:
        assert at_rest(env, np.array([0.1, -0.2, 0.3, 0.05])) == pytest.approx([0, 0, 0, 0.05])
        _, actions = play_episode(env, 200, np.random.default_rng(3), lulls=True)
        resting = (actions[:, :3] == 0).all(1)
        held = np.flatnonzero(resting[1:]) + 1
        assert len(held) > 20
        np.testing.assert_array_equal(actions[held, 3], actions[held - 1, 3])


def test_a_dataset_says_that_it_has_lulls(tmp_path: Path, whole: EpisodeStore) -> None:
    """And what was collected without them is no part of it."""
    store = collect("TwoRoom", tmp_path / "d", **HOW, lulls=True)
    store.verify()
    assert store.info.policy == f"{whole.info.policy} with lulls" and not same(store, whole)
    env = load_envs().make("TwoRoom", size=SIZE)
    states, actions = play_episode(env, STEPS, np.random.default_rng([LULLS_STREAM, 0, 1]), lulls=True)
    env.close()
    np.testing.assert_allclose(store.data["state"][1].numpy(), states, atol=1e-6)
    np.testing.assert_allclose(store.data["actions"][1].numpy(), actions, atol=1e-6)
    with pytest.raises(BadInput, match="policy"):
        collect("TwoRoom", tmp_path / "d", **HOW)
    with pytest.raises(BadInput, match="a planner has no lulls"):
        collect("TwoRoom", tmp_path / "e", **HOW, checkpoint=toy_checkpoint(tmp_path / "toy"), lulls=True)


def test_a_finished_dataset_is_left_alone(whole: EpisodeStore) -> None:
    seen: list[tuple[int, int]] = []
    before = (whole.path / "episodes" / "pixels.memmap").stat().st_mtime_ns
    collect("TwoRoom", whole.path, **HOW, progress=lambda *step: seen.append(step))
    assert seen == [(EPISODES, EPISODES)]
    assert (whole.path / "episodes" / "pixels.memmap").stat().st_mtime_ns == before


@pytest.mark.parametrize("key", ["seed", "episodes", "steps"])
def test_another_dataset_in_the_folder_is_refused(whole: EpisodeStore, key: str) -> None:
    with pytest.raises(
        BadInput, match=f"was made with another {key}; expected 7; got .*; choose another --out"
    ) as caught:
        collect("TwoRoom", whole.path, **HOW | {key: 7})
    assert str(whole.path) in str(caught.value)
    whole.verify()


def test_another_task_in_the_folder_is_refused(whole: EpisodeStore) -> None:
    with pytest.raises(BadInput, match="was made with another task; expected Reacher; got TwoRoom"):
        collect("Reacher", whole.path, **HOW)


def test_training_and_evaluation_share_no_episode() -> None:
    assert len({COLLECT_STREAM, EVALUATE_STREAM, LULLS_STREAM, PLANNED_STREAM}) == 4
    env = load_envs().make("TwoRoom", size=SIZE)
    starts = [play_episode(env, 1, np.random.default_rng([s, 0, 0]))[0][0] for s in (COLLECT_STREAM, EVALUATE_STREAM)]
    env.close()
    assert not np.allclose(*starts)


DYING = """
import os, signal, sys
from pathlib import Path
from planner import collect, data

honest, written = data._checksum, []

def dying(*arrays):
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    written.append(1)
    return honest(*arrays)

data._checksum = dying
collect._start_worker(collect.Setup("TwoRoom", Path(sys.argv[1]), None, collect.Pursuit()))
for row in range(5):
    collect._record_row(row)
"""


def test_killed_at_the_worst_moment(tmp_path: Path, whole: EpisodeStore) -> None:
    """SIGKILL between an episode's last frame and its checksum: that episode is lost, and is made again, the same."""
    store = empty(tmp_path)
    ended = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], timeout=100)
    assert ended.returncode == -signal.SIGKILL
    store = EpisodeStore.open(tmp_path)
    assert store.data["pixels"][2].any(), "the third episode was to be half there"
    assert store.missing() == [2, 3, 4]
    with pytest.raises(BadInput, match="run the same command that began it"):
        store.verify()
    collect("TwoRoom", tmp_path, **HOW)
    assert same(store, whole)


TROUBLE = """
import multiprocessing, os, time
import envs

class Dying(envs.TwoRoom):
    \"""Dies without a word at the third episode of a worker, as one does that runs out of memory.\"""
    name = "trouble:Dying"
    episodes = 0

    def play(self, rng):
        self.episodes += 1
        return super().play(rng) if self.episodes < 3 else os._exit(9)

class Elsewhere(envs.TwoRoom):
    name = "trouble:Elsewhere"

    def load(self):
        if multiprocessing.parent_process():
            raise RuntimeError("no such device here")
        return super().load()

class Slow(envs.TwoRoom):
    \"""Plays one episode, and then sleeps for longer than anybody waits.\"""
    name = "trouble:Slow"
    episodes = 0

    def play(self, rng):
        self.episodes += 1
        time.sleep(0 if self.episodes == 1 else 1000)
        return super().play(rng)
"""
UNGUARDED = """
import os, signal, sys
from planner.collect import collect

def progress(done, total):
    if done and len(sys.argv) > 3:
        os.kill(os.getpid(), signal.Signals[sys.argv[3]])

how = {"episodes": 9, "steps": 10, "size": 32, "seed": 0, "workers": 2, "progress": progress}
collect(sys.argv[1], sys.argv[2], **how)
"""
GUARDED = UNGUARDED.replace("collect(sys", "if __name__ == '__main__': collect(sys")


def collecting(folder: Path, script: str, task: str, *ending: str) -> subprocess.CompletedProcess[str]:
    """A script that collects nine episodes of a task of `TROUBLE` into `folder / "data"`.

    Whoever it started holds its output: this fails with `TimeoutExpired` if any of them outlives it, or it hangs.
    """
    (folder / "trouble.py").write_text(TROUBLE)
    (folder / "script.py").write_text(script)
    command = [sys.executable, "script.py", task, "data", *ending]
    path = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    return subprocess.run(command, cwd=folder, env=os.environ | path, capture_output=True, text=True, timeout=100)


def test_a_worker_that_dies_ends_the_collection(tmp_path: Path) -> None:
    """It hung for ever, without a message, when a worker ran out of memory."""
    ended = collecting(tmp_path, GUARDED, "trouble:Dying")
    message = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1
    assert "BadInput: collect: a worker died before its episode was done; give fewer --workers" in message
    assert "the same command goes on" in message and len(message) < 600
    assert 2 <= 9 - len(EpisodeStore.open(tmp_path / "data").missing()) <= 4, "what was done is kept"


@pytest.mark.slow
def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Workers were started again and again, each with its traceback, for as long as one looked on."""
    ended = collecting(tmp_path, GUARDED, "trouble:Elsewhere")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "RuntimeError: no such device here"


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    """Workers import the script anew; each then collected, too, and was started again for ever when it failed."""
    ended = collecting(tmp_path, UNGUARDED, "TwoRoom")
    assert ended.returncode == 1
    assert "under `if __name__ == '__main__':`" in ended.stderr
    assert ended.stderr.count("RuntimeError:") <= 2, "one for each worker at most"


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
def test_workers_end_with_who_started_them(tmp_path: Path, number: str) -> None:
    """Whatever they are at: they neither outlive it, nor does Ctrl-C wait for episodes that have begun."""
    ended = collecting(tmp_path, GUARDED, "trouble:Slow", number)
    assert ended.returncode == -signal.Signals[number]
    assert 1 <= 9 - len(EpisodeStore.open(tmp_path / "data").missing()) <= 2


def test_few_episodes_are_under_way_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are missing, no more are handed out than keep the workers busy."""
    waiting: list[int] = []
    honest = planner.collect.wait

    def noted(futures: Any, **how: Any) -> Any:
        waiting.append(len(futures))
        return honest(futures, **how)

    monkeypatch.setattr("planner.collect.wait", noted)
    collect("TwoRoom", tmp_path, **HOW | {"episodes": 12, "workers": 2}).verify()
    assert max(waiting) == 4


@pytest.mark.slow
def test_the_command_killed_with_its_workers(tmp_path: Path) -> None:
    """`kill -9` for the whole process group once an episode is done; the same command then finishes."""
    script = "import sys; from planner.cli import main; main(sys.argv[1:])"
    words = ["collect", "TwoRoom", "--episodes", "16", "--steps", "100", "--size", "32", "--workers", "2", "--out"]
    command = [sys.executable, "-c", script, *words]
    straight, torn = tmp_path / "straight", tmp_path / "torn"
    subprocess.run([*command, str(straight)], check=True, capture_output=True, timeout=100)
    process = subprocess.Popen([*command, str(torn)], start_new_session=True, stdout=subprocess.DEVNULL)
    wait_for_an_episode(torn, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = EpisodeStore.open(torn)
    done = set(range(16)) - set(kept.missing())
    assert 1 <= len(done) < 16
    subprocess.run([*command, str(torn)], check=True, capture_output=True, timeout=100)
    assert same(EpisodeStore.open(torn), EpisodeStore.open(straight))


def wait_for_an_episode(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Returns as soon as one checksum is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (path / "dataset.json").exists() and torch.any(EpisodeStore.open(path).data["checksum"] != 0):
            return
        time.sleep(0.002)
    raise AssertionError("no episode was collected")


def test_a_planner_s_episode_is_one_of_the_simulator(tmp_path: Path) -> None:
    """Same row, same episode; what it stores is what the simulator does under its actions; goals come and go."""
    env = load_envs().make("TwoRoom", size=SIZE)
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    episodes = []
    for _ in range(2):
        planner = loaded.planner.build(loaded.model, seed=0)
        resets = []
        planner.reset = lambda obs, goal, mask=None, p=planner, r=resets: (r.append(goal), MPC.reset(p, obs, goal))[1]  # type: ignore[method-assign, misc]
        episodes.append(record_planned(env, planner, 60, np.random.default_rng([4, 0, 7])))
        assert len(resets) == 2 and not torch.equal(resets[0]["pixels"], resets[1]["pixels"])
    (pixels, actions, states), again = episodes
    assert all(np.array_equal(one, other) for one, other in zip(episodes[0], again, strict=True))
    assert pixels.shape == (61, SIZE, SIZE, 3) and actions.shape == (60, 2) and len(states) == 61
    for k in (0, 30, 59):
        env.set_state(states[k])
        assert np.array_equal(env.picture(), pixels[k])
        env.set_state(states[k])
        env.advance(actions[k])
        np.testing.assert_allclose(env.state, states[k + 1], atol=1e-9)
    env.close()


def test_a_planner_s_goals_lie_as_far_away_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many steps of play lead to each goal, and how many goals an episode has."""
    env = load_envs().make("TwoRoom", size=SIZE)
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    planner = loaded.planner.build(loaded.model, seed=0)
    played: list[int] = []

    def counted(env: Any, state: Any, rng: Any, least: int, most: int, *make: Any) -> Any:
        steps = int(rng.integers(least, most))
        played.append(steps)
        return play_on(env, state, rng, steps, steps + 1, *make)

    monkeypatch.setattr("planner.collect.play_on", counted)
    seen = set()
    for seed in range(6):
        played.clear()
        record_planned(env, planner, 6, np.random.default_rng(seed), Pursuit(7, 9, time=2))
        assert len(played) == 1 + 3  # how the episode starts, and three goals
        seen |= set(played[1:])
    assert seen == {7, 8, 9}
    env.close()


def test_plans_are_done_as_far_as_asked(tmp_path: Path) -> None:
    """The workers' planner looks as seldom as asked: its episode is that of a planner which was built so."""
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    pursuit = Pursuit(replan=loaded.planner.horizon * loaded.model.action.block)
    facts = HOW | {"episodes": 1, "steps": 30}
    store = collect("TwoRoom", tmp_path / "d", **facts, checkpoint=tmp_path / "toy", pursuit=pursuit)
    env = load_envs().make("TwoRoom", size=SIZE)
    found = {}
    for replan in (0, pursuit.replan):
        planner = replace(loaded.planner, replan=replan).build(loaded.model, seed=0)
        found[replan] = record_planned(env, planner, 30, np.random.default_rng([PLANNED_STREAM, 0, 0]))[1]
    env.close()
    recorded = store.data["actions"][0].numpy()
    np.testing.assert_array_equal(recorded, found[pursuit.replan].astype(np.float32))
    assert not np.array_equal(recorded, found[0].astype(np.float32))
    assert f"{pursuit.replan} steps of each plan" in store.info.policy


def test_play_relieves_a_planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the last steps of each goal's time, from where the planner got to; nothing shows the way out otherwise."""
    env = load_envs().make("TwoRoom", size=SIZE)
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    planner = loaded.planner.build(loaded.model, seed=0)
    seen: list[np.ndarray] = []

    def outward(state: np.ndarray) -> np.ndarray:
        seen.append(state.copy())
        return np.array([0.7, -0.7])

    monkeypatch.setattr("planner.collect.play_on", lambda env, state, rng, *how: env.sample_state(rng))
    monkeypatch.setattr(env, "relieve", lambda rng: outward)
    _, actions, states = record_planned(env, planner, 13, np.random.default_rng(3), Pursuit(time=5, relief=2))
    by_play = (actions == [0.7, -0.7]).all(1)
    assert np.flatnonzero(by_play).tolist() == [3, 4, 8, 9]
    np.testing.assert_array_equal(seen, states[[3, 4, 8, 9]])
    env.close()


def test_goals_are_where_what_relieves_a_planner_gets_to(tmp_path: Path) -> None:
    """Goals of clumsy play mostly left the cube where it was, and gave the planner nothing to be stuck at."""
    env = load_envs().make("TwoRoom", size=SIZE)
    start, drawn = env.sample_state(np.random.default_rng(0)), []
    for make in (None, env.play, lambda rng: lambda state: np.array([0.3, 0.0])):
        drawn.append(play_on(env, start, np.random.default_rng(1), 5, 6, make))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    loaded = checkpoint.load(toy_checkpoint(tmp_path / "toy"))
    planner, made = loaded.planner.build(loaded.model, seed=0), []
    relieve = env.relieve
    env.relieve = lambda rng: made.append(1) or relieve(rng)
    for relief, policies in ((0, 0), (2, 4)):  # two goals: each has one policy to make it, and one to relieve
        made.clear()
        record_planned(env, planner, 8, np.random.default_rng(3), Pursuit(time=4, relief=relief))
        assert len(made) == policies
    env.close()


def test_a_relieved_planner_s_dataset_says_so() -> None:
    assert str(Pursuit(15, 30, 50)) == "15 to 30 steps away, 50 each"  # datasets from before go on
    told = "15 to 30 steps away, 60 each, the last 40 of them its relief's, which sets the goals, 20 steps of each plan"
    assert str(Pursuit(15, 30, 60, 20, 40)) == told
    for relief, replan, most in ((-1, 0, 59), (60, 0, 59), (41, 20, 40)):  # no plan of 20 steps would be done
        with pytest.raises(BadInput, match=f"relief is off; expected 0 to {most}, of the 60 steps.*; got {relief}"):
            Pursuit(time=60, relief=relief, replan=replan)


def test_relief_that_never_comes_is_refused(tmp_path: Path) -> None:
    """The dataset said that the planner was relieved, of episodes that ended before."""
    late = {"checkpoint": toy_checkpoint(tmp_path / "toy"), "pursuit": Pursuit(time=HOW["steps"] + 9, relief=9)}
    with pytest.raises(BadInput, match=r"relief never comes; expected episodes of more than the \d+ steps.*give more"):
        collect("TwoRoom", tmp_path / "d", **HOW, **late)


def test_a_dataset_states_whose_scene_and_policies_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OGBench's policies are the play of its tasks, and nothing said which version of it had made a dataset."""
    monkeypatch.setattr(load_envs().TASKS["TwoRoom"], "packages", ("rich", "no-such-package"))
    made = collect("TwoRoom", tmp_path / "d", **HOW | {"episodes": 1}).info.versions
    assert {name: made[name] for name in set(made) - set(versions())} == {
        "rich": version("rich"),
        "no-such-package": "not installed",
    }


def test_a_dataset_is_not_finished_with_other_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play of a task was changed, and what it had begun would have been finished by another policy of its name."""
    task = load_envs().TASKS["TwoRoom"]
    collect("TwoRoom", tmp_path / "d", **HOW | {"episodes": 1})
    monkeypatch.setattr(task, "play_name", "play 2")
    with pytest.raises(BadInput, match="made with another policy; expected play 2; got play"):
        collect("TwoRoom", tmp_path / "d", **HOW | {"episodes": 1})


def test_a_planner_with_other_settings_does_not_go_on_with_a_dataset(tmp_path: Path) -> None:
    """A copy of the checkpoint with the same weights and other settings went on with it, and nothing told the rows
    apart."""
    collect("TwoRoom", tmp_path / "d", **HOW | {"episodes": 1}, checkpoint=toy_checkpoint(tmp_path / "toy"))
    loaded = checkpoint.load(tmp_path / "toy")
    facts: dict[str, Any] = {"task": "TwoRoom", "renderer": loaded.renderer, "card": "# TwoRoom"}
    settings = replace(loaded.planner, samples=loaded.planner.samples + 1)
    checkpoint.save(tmp_path / "toy", loaded.model, planner=settings, **facts)
    with pytest.raises(BadInput, match="was made with another policy"):
        collect("TwoRoom", tmp_path / "d", **HOW | {"episodes": 1}, checkpoint=tmp_path / "toy")


def test_a_planner_of_another_robot_collects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset had the task's bounds, and actions of twice as much, which were then trained on."""
    half = ActionSpec((-0.6, -0.6), (0.6, 0.6), SPEC.units, SPEC.block)
    room = type(load_envs().make("TwoRoom", size=SIZE))
    monkeypatch.setattr(room, "action_spec", lambda self: half)
    monkeypatch.setattr("planner.collect._work", lambda *_: pytest.fail("a worker was started"))
    facts = HOW | {"checkpoint": toy_checkpoint(tmp_path / "toy")}
    with pytest.raises(BadInput, match="checkpoint and task differ in their actions; expected .*0.6.*got .*1.2"):
        collect("TwoRoom", tmp_path / "d", **facts)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("wrong", [(0, 3, 5), (4, 3, 5), (1, 1, 0), (1, 1, 1, -1), (1, 1, 5, 6)])
def test_goals_that_no_planner_can_pursue(wrong: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="the goals of a planner's episodes are off"):
        Pursuit(*wrong)
