"""The tasks: the contract, what the physics must never do, and success in metres and radians."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import envs
from envs.cube import HIGH, LOW, Cube, cube_of, hand_of, joints_for
from envs.point_maze import CELL, MAZE, MIDDLES, PointMaze, cell_of, way_left
from envs.push_t import PushT
from envs.reacher import LINK, Reacher
from envs.two_room import DOOR, TwoRoom
from planner.collect import COLLECT_STREAM, play_episode
from planner.errors import BadInput
from planner.evaluate.protocol import EVALUATE_STREAM, held_out_pairs
from planner.symmetry import Symmetry

RADIUS = 0.08
"""Of the disc in TwoRoom, metres."""


@pytest.fixture(scope="module", params=envs.TASKS)
def env(request: pytest.FixtureRequest) -> Iterator[envs.GoalEnv]:
    made = envs.make(request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def two_room() -> Iterator[TwoRoom]:
    with TwoRoom(size=16) as made:
        yield made


@pytest.fixture(scope="module")
def push_t() -> Iterator[PushT]:
    with PushT(size=16) as made:
        yield made


@pytest.fixture(scope="module")
def reacher() -> Iterator[Reacher]:
    with Reacher(size=16) as made:
        yield made


# The contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 40])
@pytest.mark.parametrize("task", envs.TASKS)
def test_the_contract_holds(task: str, size: int) -> None:
    with envs.make(task, size=size) as made:
        envs.check_goal_env(made)


@pytest.mark.parametrize("task", envs.TASKS)
def test_what_the_joints_measure_is_observed_on_request(task: str) -> None:
    """Place and speed of what the robot drives, in float32; nothing of what it is to move."""
    with envs.make(task, size=8, proprioception=True) as made:
        envs.check_goal_env(made)
        robot = {"Cube": 6}.get(task, 2)
        half = made.state_size // 2  # no free joints: as many speeds as places
        assert made.proprio_names == (*made.state_names[:robot], *made.state_names[half : half + robot])
        obs, info = made.reset(seed=3)
        for _ in range(3):
            obs, *_, info = made.step(made.action_space.sample())
        expected = np.append(info["state"][:robot], info["state"][half : half + robot]).astype(np.float32)
        np.testing.assert_array_equal(obs["proprio"], expected)
        assert np.abs(expected).max() > 0


def test_gymnasium_makes_a_task_with_proprioception() -> None:
    made = gym.make("envs:JepaMPC/PushT-v0", size=8, proprioception=True)
    obs, _ = made.reset(seed=0)
    assert set(obs) == {"pixels", "goal", "proprio"} and obs["proprio"].shape == (4,)
    made.close()


def test_a_joint_that_does_not_exist_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reacher, "measures", ("shoulder", "knee"))
    with pytest.raises(BadInput, match=r"measures is off.*hinges and slides of the scene; got knee"):
        Reacher(size=8)


def test_a_robot_that_measures_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm that is driven through sites alone got an empty row of numbers, without a word."""
    monkeypatch.setattr(Cube, "measures", None)
    Cube(size=8).close()
    with pytest.raises(BadInput, match="Cube: no joint is measured; expected joints that actuators drive, or `meas"):
        Cube(size=8, proprioception=True)


def test_what_is_measured_goes_by_joint_and_not_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A joint that is called as another one's speed was taken for it."""
    from envs.base import ASSETS, mujoco  # not above: `envs` settles its GL library first

    def load(self: PushT) -> Any:
        spec = mujoco.MjSpec.from_file(str(ASSETS / self.xml))
        spec.joint("block_x").name = "pusher_x_speed"
        return spec.compile()

    monkeypatch.setattr(PushT, "load", load)
    with PushT(size=8, proprioception=True) as made:
        _, info = made.reset(seed=0)
        obs, *_, info = made.step(np.array([0.4, 0.1]))
        assert obs["proprio"].tolist() == info["state"][[0, 1, 5, 6]].astype(np.float32).tolist()
        with pytest.raises(AssertionError, match="one number of the state each; pusher_x_speed is not"):
            envs.check_goal_env(made)


def test_places_are_dimensions_of_the_action(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play with lulls would end in an index error in a worker."""
    monkeypatch.setattr(Cube, "places", (4,))
    with envs.make("Cube", 32) as made, pytest.raises(AssertionError, match=r"places among the action's 4, not \(4,\)"):
        envs.check_goal_env(made)


def test_an_environment_that_measures_something_else_breaks_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    observe = Reacher._observe

    def off(self: Reacher) -> dict[str, np.ndarray]:
        seen = observe(self)
        return seen | {"proprio": seen["proprio"][::-1].copy()}

    monkeypatch.setattr(Reacher, "_observe", off)
    with Reacher(size=8, proprioception=True) as made, pytest.raises(AssertionError, match="expected proprio to be"):
        envs.check_goal_env(made)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_the_contract_holds_from_other_states(env: envs.GoalEnv, seed: int) -> None:
    envs.check_goal_env(env, seed=seed)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized")  # ours are physical; `ActionSpec` normalises
@pytest.mark.parametrize("task", envs.TASKS)
def test_gymnasium_makes_and_accepts_the_task(task: str) -> None:
    made = gym.make(f"envs:JepaMPC/{task}-v0", size=32)
    assert made.observation_space["pixels"].shape == (32, 32, 3)  # type: ignore[index]
    check_env(made.unwrapped)
    envs.check_goal_env(made)
    made.close()


@pytest.mark.parametrize("task", [*envs.TASKS, *envs.ADAPTERS])
def test_its_metadata_says_how_fast_it_runs(task: str) -> None:
    """It said 20 Hz of every task: videos of PushT and of Cube, which run at 10, were twice as fast as they."""
    if task.startswith("ogbench"):
        pytest.importorskip("ogbench")
    with envs.make(task, size=16) as made:
        made.set_state(made.sample_state(np.random.default_rng(0)))
        before = made.data.time
        made.advance(np.zeros(made.action_space.shape))
        assert made.metadata["render_fps"] == pytest.approx(1 / (made.data.time - before))
        assert isinstance(made.metadata["render_fps"], int)
    if task in envs.TASKS:
        with gym.make(f"envs:JepaMPC/{task}-v0") as wrapped:
            assert wrapped.metadata == made.metadata


def test_a_task_of_one_s_own_runs_at_any_rate() -> None:
    class Odd(TwoRoom):
        substeps = 3

    with Odd(size=16) as made:
        assert made.metadata["render_fps"] == pytest.approx(1 / (3 * made.model.opt.timestep))
    assert "render_fps" not in Odd.metadata, "an env has its own"


def test_unknown_tasks_and_sizes_are_refused() -> None:
    with pytest.raises(BadInput, match="unknown task; expected TwoRoom or .* or Cube or .*; got 'Pusht'"):
        envs.make("Pusht")
    for size in (7, 1025):
        with pytest.raises(BadInput, match="8 to 1024 pixels"):
            envs.make("TwoRoom", size=size)


class GoalOfAnotherState(TwoRoom):
    def reset(self, **given: Any) -> Any:
        obs, info = super().reset(**given)
        return obs | {"goal": self.picture(np.array([0.5, -0.5, 0, 0]))}, info


class StalePicture(TwoRoom):
    """Draws what was there before the step, as a camera does when kinematics lag behind the positions."""

    def step(self, action: np.ndarray) -> Any:
        before = self.picture()
        obs, *rest = super().step(action)
        return obs | {"pixels": before}, *rest


class ReusedBuffer(TwoRoom):
    def _observe(self) -> dict[str, np.ndarray]:
        fresh = super()._observe()
        if not hasattr(self, "kept"):
            self.kept = fresh
        for key in fresh:
            self.kept[key][:] = fresh[key]
        return self.kept


class SuccessTooEarly(TwoRoom):
    def _info(self) -> dict[str, Any]:
        info = super()._info()
        return info | {"success": info["goal_distance"] <= 20}


class DistanceOfSomethingElse(TwoRoom):
    def _info(self) -> dict[str, Any]:
        info = super()._info()
        return info | {"goal_distance": info["goal_distance"] / 2}


class NeverEnds(TwoRoom):
    def step(self, action: np.ndarray) -> Any:
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, False, truncated, info


class NoisyMotor(TwoRoom):
    simulates = False

    def advance(self, action: np.ndarray) -> None:
        super().advance(action + np.random.normal(scale=0.01, size=2))


class ForgetsSpeed(Reacher):
    simulates = False

    def set_state(self, state: np.ndarray) -> None:
        super().set_state(np.concatenate([state[:2], np.zeros(2)]))


class RemembersMotors(PushT):
    """Sets positions and speeds over what is left of the last episode, the pusher's command included."""

    simulates = False

    def set_state(self, state: np.ndarray) -> None:
        command = self.data.ctrl.copy()
        super().set_state(state)
        self.data.ctrl[:] = command
        self.data.qvel[:2] += 1e-3 * command


class PictureMovesTheRobot(TwoRoom):
    def picture(self, state: np.ndarray | None = None) -> np.ndarray:
        if state is not None:
            self.set_state(state)
        return super().picture()


class UnseededState(TwoRoom):
    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        return super().sample_state(np.random.default_rng())


class UnseededPlay(TwoRoom):
    def play(self, rng: np.random.Generator) -> Any:
        return super().play(np.random.default_rng())


class PlayOfNaN(TwoRoom):
    simulates = False

    def play(self, rng: np.random.Generator) -> Any:
        return lambda state: np.full(2, np.nan)

    def advance(self, action: np.ndarray) -> None:
        super().advance(np.nan_to_num(action))


class ListOfNumbers(TwoRoom):
    def sample_state(self, rng: np.random.Generator) -> Any:
        return super().sample_state(rng).tolist()


class DistanceOfNaN(TwoRoom):
    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return super().errors(state, goal) * np.nan


class NamedMirror(TwoRoom):
    symmetries = ("mirror",)  # type: ignore[assignment]


class WildPlay(TwoRoom):
    def play(self, rng: np.random.Generator) -> Any:
        act = super().play(rng)
        return lambda state: 10 * act(state)


class OtherBounds(TwoRoom):
    spec_high = (1.2, 1.0)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.action_space = gym.spaces.Box(-1.2, 1.2, (2,), np.float32)


class IgnoresOptions(TwoRoom):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        known = {key: value for key, value in (options or {}).items() if key in ("start", "goal", "goal_image")}
        return super().reset(seed=seed, options=known)


class SwallowsNaN(TwoRoom):
    def step(self, action: np.ndarray) -> Any:
        return super().step(np.nan_to_num(action))


class JudgesPictures(TwoRoom):
    """Calls a goal of which only the picture is known reached."""

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        return info | ({"goal_distance": 0.5, "success": True} if np.isnan(info["goal_distance"]) else {})


class NoDistance(TwoRoom):
    def _info(self) -> dict[str, Any]:
        info = super()._info()
        del info["goal_distance"]
        return info


class LensCap(TwoRoom):
    def picture(self, state: np.ndarray | None = None) -> np.ndarray:
        return np.zeros_like(super().picture(state))


class MirroredDoor(TwoRoom):
    """Says that the door is in the middle."""

    symmetries = (Symmetry(2, False, -np.eye(2), -np.eye(4), np.zeros(4)),)


class TurnedTheOtherWay(PushT):
    symmetries = (replace(PushT.symmetries[0], turns=3),)


class PushedTheOtherWay(PushT):
    symmetries = (replace(PushT.symmetries[0], actions=-PushT.symmetries[0].actions),)


class ForgetsAnAction(PushT):
    symmetries = (replace(PushT.symmetries[0], actions=np.eye(1)),)


class HarderAcross(PushT):
    """The table drags at the block more in one direction: nothing that only the pusher feels tells."""

    def load(self) -> Any:
        model = super().load()
        model.dof_damping[model.joint("block_y").dofadr] *= 2
        return model


class CrookedStem(PushT):
    """The T is not its own mirror image, by half a centimetre."""

    def load(self) -> Any:
        model = super().load()
        model.geom("stem").pos[0] += 0.005
        return model


class CreepingCube(Cube):
    """On a table that slopes to the right."""

    simulates = False

    def advance(self, action: np.ndarray) -> None:
        super().advance(action)
        state = self.state
        state[6] += 0.005  # m, the cube's x
        self.set_state(state)


class Signed(TwoRoom):
    """Every state on one side of the goal was a success."""

    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        off = (state[..., :2] - goal[..., :2]) / 0.2
        return np.concatenate([off[..., :1], np.abs(off[..., 1:])], -1)


class BeyondItsMotor(Reacher):
    """MuJoCo clipped: half of the actions did what the other half did."""

    spec_low, spec_high = (-6.0, -1.2), (6.0, 1.2)


SABOTAGE: dict[type[envs.GoalEnv], str] = {
    GoalOfAnotherState: "goal picture to be the picture of the goal state",
    StalePicture: "picture to be that of the state after the step",
    ReusedBuffer: "observation to stay as it was",
    SuccessTooEarly: "success to be a distance of at most 1",
    DistanceOfSomethingElse: "goal_distance",
    NeverEnds: "terminated to be success",
    NoisyMotor: "same motion after the same reset",
    ForgetsSpeed: "mid-motion to go on",
    RemembersMotors: "same motion after the same reset",
    PictureMovesTheRobot: "picture\\(state\\) to leave the present state alone",
    UnseededState: "from the same seed",
    UnseededPlay: "same play episode from the same seed",
    PlayOfNaN: "finite states and actions in play",
    ListOfNumbers: "sample_state to return an array \\[4\\], not \\[",
    DistanceOfNaN: "a finite distance to a goal state, not nan",
    NamedMirror: "symmetry 0 of TwoRoom to be a planner.symmetry.Symmetry, not 'mirror'",
    WildPlay: "play to keep to the bounds",
    Signed: "errors >= 0, how far off it is to either side, not -",
    BeyondItsMotor: "bounds of action 0 within its actuator's -3 to 3, not -6 to 6",
    OtherBounds: "action_space.high to equal",
    IgnoresOptions: "unknown reset option to be refused",
    SwallowsNaN: "action of NaN to be refused",
    JudgesPictures: "distance NaN",
    NoDistance: "info to have goal_distance",
    LensCap: "not black",
    MirroredDoor: "symmetry 0 of TwoRoom to keep the motion",
    TurnedTheOtherWay: "symmetry 0 of PushT to show its picture",
    PushedTheOtherWay: "symmetry 0 of PushT to keep the motion",
    HarderAcross: "symmetry 0 of PushT to keep the motion",
    CrookedStem: "symmetry 3 of PushT to keep the motion",
    CreepingCube: "symmetry 0 of Cube to keep the motion; cube_x",
    ForgetsAnAction: "symmetry 0 of PushT: actions to be \\(2, 2\\)",
}


@pytest.mark.parametrize("broken", SABOTAGE, ids=lambda broken: broken.__name__)
def test_the_checker_finds_the_bug(broken: type[envs.GoalEnv]) -> None:
    with broken(size=32) as made, pytest.raises(AssertionError, match=SABOTAGE[broken]):
        envs.check_goal_env(made)


class Unreadable(TwoRoom):
    def load(self) -> Any:
        import mujoco

        return mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom/></mujoco>")


def test_a_scene_that_is_none_is_told_in_a_line() -> None:
    with pytest.raises(BadInput, match="TwoRoom: its `load` failed; got XML"):
        Unreadable(size=8)


class Hurried(Reacher):
    """Its other physics passed every check, and the oracle rehearsed Reacher's, without a word."""

    def advance(self, action: np.ndarray) -> None:
        super().advance(2 * action)


class Hasty(Hurried):
    simulates = False


class HastyStill(Hasty):
    pass


class OneMotor(Reacher):
    """Its oracle failed once everything was played."""

    simulates = True
    spec_low, spec_high, spec_units = (-1.0,), (1.0,), ("N m",)

    def advance(self, action: np.ndarray) -> None:
        super().advance(np.append(action, 0))


def test_who_moves_otherwise_says_whether_the_oracle_can_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="Reacher has `advance` of its own and does not say .*; set `simulates = False`"):
        Hurried(size=8)
    monkeypatch.setattr(Reacher, "simulates", True, raising=False)  # said before anything was changed
    with pytest.raises(BadInput, match="has `advance` of its own"):
        Hurried(size=8)
    for said in (Hasty, HastyStill):
        with said(size=8) as made, pytest.raises(BadInput, match="Reacher has no oracle"):
            envs.oracle(made)
    monkeypatch.setattr(Hurried, "simulates", True)
    Hurried(size=8).close()
    with pytest.raises(BadInput, match="spec_low is off; expected bounds for 2 actuators, or .*; got for 1"):
        OneMotor(size=8)
    monkeypatch.setattr(OneMotor, "simulates", False)
    OneMotor(size=8).close()


@pytest.mark.parametrize("changed", ["state", "set_state"])
def test_another_state_is_another_motion_too(changed: str) -> None:
    own = type("Own", (TwoRoom,), {changed: getattr(TwoRoom, changed)})
    with pytest.raises(BadInput, match=f"TwoRoom has `{changed}` of its own"):
        own(size=8)


def test_the_checker_says_what_a_stranger_lacks() -> None:
    with pytest.raises(AssertionError, match="attributes of envs.GoalEnv; .*set_state.* missing"):
        envs.check_goal_env(gym.make("CartPole-v1"))  # type: ignore[arg-type]


def test_bad_input_is_said_in_one_line(env: envs.GoalEnv) -> None:
    state = env.sample_state(np.random.default_rng(0))
    with pytest.raises(BadInput, match="^reset: unknown option; expected start, goal, goal_image; got strat$"):
        env.reset(options={"strat": state})
    with pytest.raises(
        BadInput, match=f"^{env.name}: goal image is off; expected uint8 64 x 64 x 3; got uint8 32 x 32$"
    ):
        env.reset(options={"goal_image": np.zeros((32, 32), np.uint8)})
    with pytest.raises(
        BadInput, match=f"^{env.name}: action is off; expected [24] finite numbers .*; got \\[nan, (0.0, )*0.0\\]$"
    ):
        env.step(np.array([np.nan, *np.zeros(len(env.spec_low) - 1)]))


def test_states_are_named_with_units(env: envs.GoalEnv) -> None:
    assert len(env.state_names) == len(env.state_units) == env.state_size == len(env.state)
    for name, unit in zip(env.state_names, env.state_units, strict=True):
        angle = name.removesuffix("_speed") in ("base", "shoulder", "elbow", "wrist", "block_angle", "cube_yaw")
        assert unit == ("rad" if angle else "m") + ("/s" if name.endswith("_speed") else "")


# TwoRoom: no illegal transition ------------------------------------------------------------------------------------


def every_physics_step(env: envs.GoalEnv, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """States `[L + 1, n]` from `state` on, at every step of the physics: what happens between two pictures too."""
    whole, states = env.substeps, []
    env.set_state(state)
    states.append(env.state)
    env.substeps = 1  # type: ignore[misc]
    try:
        for action in np.repeat(actions, whole, axis=0):
            env.advance(action)
            states.append(env.state)
    finally:
        env.substeps = whole  # type: ignore[misc]
    return np.array(states)


def clearance(env: envs.GoalEnv, points: np.ndarray, boxes: tuple[str, ...]) -> np.ndarray:
    """Distance from `points` `[n, 2]` to the nearest of the upright `boxes`, metres, negative inside: `[n]`."""
    found = []
    for geom in map(env.model.geom, boxes):
        beyond = np.abs(points - geom.pos[:2]) - geom.size[:2]
        found.append(np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0))
    return np.min(found, 0)


WALLS = ("west", "east", "south", "north", "below_door", "above_door")


def assert_legal(env: TwoRoom, path: np.ndarray) -> int:
    """No wall entered, no side changed but in the door; returns how often the door was passed."""
    points = path[:, :2]
    assert np.abs(points).max() < 1, "outside the house"
    assert clearance(env, points, WALLS).min() > RADIUS - 0.02, "the disc sank into a wall"
    changes = np.flatnonzero(points[:-1, 0] * points[1:, 0] < 0)
    assert (np.abs(points[changes, 1] - DOOR[1]) < 0.22 - RADIUS + 0.02).all(), "through the wall"
    return len(changes)


def test_the_disc_never_enters_a_wall_whatever_is_done(two_room: TwoRoom) -> None:
    """The largest speeds, from every place in every direction, a fifth of them zigzagging; at every physics step."""
    rng, passed = np.random.default_rng(0), 0
    for k in range(200):
        start = two_room.sample_state(rng)
        start[2:] = rng.uniform(-1.2, 1.2, 2)
        actions = np.repeat(rng.choice([-1.2, 1.2], 2)[None], 40, 0)
        if k % 5 == 0:
            actions = rng.choice([-1.2, 1.2], (40, 2))
        elif k % 2:
            heading = rng.normal(size=2)
            actions = np.repeat(1.2 * (heading / np.abs(heading).max())[None], 40, 0)
        passed += assert_legal(two_room, every_physics_step(two_room, start, actions))
    assert passed > 0, "none went through the door: the test looks away from where it matters"


def test_the_disc_never_slips_past_the_jambs(two_room: TwoRoom) -> None:
    """Straight and slanted at the wall around the door, a centimetre apart, from both sides."""
    passed, stopped = 0, 0
    for y in np.arange(-0.1, 0.62, 0.01):
        for side in (-1.0, 1.0):
            for slant in (-1.2, 0.0, 1.2):
                start = np.array([side * 0.4, y - slant / 1.2 * 0.28, -side * 1.2, slant])
                actions = np.repeat([[-side * 1.2, slant]], 20, 0)
                went = assert_legal(two_room, every_physics_step(two_room, start, actions)) % 2
                passed, stopped = passed + went, stopped + 1 - went
                if slant == 0:
                    assert went == (abs(y - DOOR[1]) < 0.215), f"at y = {y:.2f} m"
    assert passed > 20 and stopped > 20


# PointMaze ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maze() -> Iterator[PointMaze]:
    with PointMaze(size=16) as made:
        yield made


def test_the_maze_that_is_drawn_is_the_one_that_is_simulated(maze: PointMaze) -> None:
    """Every cell's middle is in a block where the map says so, and a disc's radius away from all where not."""
    blocks = tuple(geom.name for geom in map(maze.model.geom, range(maze.model.ngeom)) if geom.name.startswith("row"))
    for row in range(6):
        for column in range(6):
            middle = np.array([(column - 2.5) * CELL, (2.5 - row) * CELL])
            free = clearance(maze, middle[None], blocks)[0]
            assert free > 0.06 if MAZE[row][column] == "." else free < -0.1, (row, column)


def test_ways_in_the_maze_are_shortest() -> None:
    """Against all-pairs shortest paths by squaring, which shares nothing with the search that is tested."""
    near = np.abs(MIDDLES[:, None] - MIDDLES).sum(-1) < 1.01 * CELL
    hops = np.where(near, 1.0, np.inf)
    np.fill_diagonal(hops, 0)
    for _ in range(5):
        hops = (hops[:, :, None] + hops[None]).min(1)
    assert np.isfinite(hops).all() and hops.max() >= 20
    for i, position in enumerate(MIDDLES):
        np.testing.assert_allclose(way_left(np.tile(position, (len(MIDDLES), 1)), MIDDLES), CELL * hops[i], atol=1e-9)


def test_the_disc_never_enters_a_block(maze: PointMaze) -> None:
    """Full speed from every cell, on straight lines, slanted, and zigzag; at every physics step."""
    rng = np.random.default_rng(0)
    solid = tuple(
        geom.name for geom in map(maze.model.geom, range(maze.model.ngeom)) if geom.name not in ("floor", "agent")
    )
    pressed = 0
    for k in range(120):
        start, actions = maze.sample_state(rng), np.repeat(rng.choice([-1.2, 0.0, 1.2], 2)[None], 30, 0)
        if k % 3 == 0:
            actions = rng.choice([-1.2, 1.2], (30, 2))
        free = clearance(maze, every_physics_step(maze, start, actions)[:, :2], solid)
        assert free.min() > 0.06 - 0.02
        pressed += free.min() < 0.06
    assert pressed > 30, "nothing was touched: the test looks away from where it matters"


# Cube --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cube() -> Iterator[Cube]:
    with Cube(size=16) as made:
        yield made


def test_the_hand_is_where_the_joints_put_it(cube: Cube) -> None:
    """Forward and inverse kinematics against the simulator's."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        hand = rng.uniform(LOW, HIGH)
        state = cube.sample_state(rng)
        state[:4] = joints_for(hand)
        cube.set_state(state)
        np.testing.assert_allclose(hand_of(state), hand, atol=1e-9)
        np.testing.assert_allclose(cube.data.site("grip").xpos, hand, atol=1e-9)
        np.testing.assert_allclose(cube.data.body("cube").xpos, cube_of(state), atol=1e-9)
        limits = cube.model.jnt_range[:4]
        assert (limits[:, 0] < state[:4]).all() and (state[:4] < limits[:, 1]).all()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_hand_goes_where_it_is_told_and_stays_upright(cube: Cube, axis: int, sign: int) -> None:
    state = cube.sample_state(np.random.default_rng(1))
    state[:4], state[6:8] = joints_for(np.array([0.0, 0.0, 0.15])), 0.2
    action = np.zeros(4)
    action[axis] = sign * 0.2
    path = every_physics_step(cube, state, np.repeat(action[None], 5, 0))
    way = hand_of(path[-1]) - hand_of(path[0])
    assert 0.085 < sign * way[axis] < 0.11  # 0.2 m/s for 0.5 s, less what it takes to get going
    assert np.abs(np.delete(way, axis)).max() < 0.012
    assert np.abs(path[:, 1] + path[:, 2] + path[:, 3]).max() < 0.05  # rad


def test_a_gripped_cube_is_lifted_and_a_released_one_falls(cube: Cube) -> None:
    state = cube.sample_state(np.random.default_rng(2))
    state[:4], state[4:6] = joints_for(np.array([0.05, 0.05, 0.03])), 0.05
    state[6:10] = [0.05, 0.05, 0.0, 0.0]
    grip, lift, hold, drop = ([0, 0, 0, 0], 4), ([0, 0, 0.2, 0], 6), ([0, 0, 0, 0], 5), ([0, 0, 0, 0.1], 6)
    heights = []
    for action, steps in (grip, lift, hold, drop):
        path = every_physics_step(cube, state, np.repeat(np.array([action], float), steps, 0))
        state = path[-1]
        heights.append(cube_of(state)[2])
    assert abs(heights[0] - 0.03) < 0.003
    assert heights[1] > 0.12 and abs(heights[2] - heights[1]) < 0.01
    assert abs(heights[3] - 0.03) < 0.003


def test_play_moves_and_lifts_cubes_and_loses_none(cube: Cube) -> None:
    moved, lifted = 0, 0
    for k in range(12):
        states, actions = play_episode(cube, 100, np.random.default_rng([7, k]))
        places = cube_of(states)
        assert (np.abs(places[:, :2]) < 0.28).all() and places[:, 2].min() > 0.027, "through the table or off the field"
        moved += np.linalg.norm(places[-1] - places[0]) > 0.04
        lifted += places[:, 2].max() > 0.08
        assert states[0][:4] == pytest.approx(joints_for(hand_of(states[0])))
    assert moved >= 8 and 3 <= lifted < 12


def test_in_play_the_hand_leaves_cubes_that_it_has_moved(cube: Cube) -> None:
    """It seldom did once: goals whose picture shows the hand elsewhere were met only while the cube had not moved."""
    away, dragged = [], []
    for k in range(12):
        states, _ = play_episode(cube, 100, np.random.default_rng([7, k]))
        places, gaps = cube_of(states), states[:, 4] + states[:, 5]
        apart = np.linalg.norm(hand_of(states) - places, axis=-1)
        lies = np.abs(places[:, 2] - 0.03) < 0.003
        moved = lies & (np.linalg.norm(places - places[0], axis=-1) > 0.04)
        away.append(apart[moved] > 0.12)
        for t in np.flatnonzero((gaps[1:] > 0.07) & (gaps[:-1] <= 0.07) & (apart[1:] < 0.03) & lies[1:]) + 1:  # let go
            gone = np.flatnonzero(apart[t:] > 0.12)
            dragged += [np.linalg.norm(places[t + gone[0]] - places[t])] if len(gone) else []
    assert np.concatenate(away).mean() > 0.25  # 0.10 before
    assert len(dragged) >= 3 and max(dragged) < 0.02  # 0.23 where the hand does not rise first


# PushT: nothing tunnels, nothing leaves ----------------------------------------------------------------------------

PUSHER = 0.03
"""Radius of the pusher, metres."""


def corners(env: PushT, path: np.ndarray) -> np.ndarray:
    """Corners of the T, metres, `[L, 8, 2]`."""
    local = []
    for geom in (env.model.geom("bar"), env.model.geom("stem")):
        local += [geom.pos[:2] + geom.size[:2] * (x, y) for x in (-1, 1) for y in (-1, 1)]
    return path[:, None, 2:4] + turned(np.array(local)[None], path[:, 4, None])


def turned(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([c * points[..., 0] - s * points[..., 1], s * points[..., 0] + c * points[..., 1]], -1)


def assert_solid(env: PushT, path: np.ndarray) -> None:
    pusher = path[:, :2]
    assert clearance(env, pusher, ("west", "east", "south", "north")).min() > PUSHER - 0.01, "pusher in a wall"
    in_block = turned(pusher - path[:, 2:4], -path[:, 4])
    assert clearance(env, in_block, ("bar", "stem")).min() > PUSHER - 0.01, "pusher in the block"
    assert np.abs(corners(env, path)).max() < 0.51, "block outside the arena"


@pytest.mark.parametrize("symmetry", PushT.symmetries, ids=lambda one: f"{one.turns}{'m' * one.mirrored}")
def test_pushing_is_the_same_from_every_side_and_in_the_mirror(push_t: PushT, symmetry: Symmetry) -> None:
    """Play that pushes the block for some seconds, and the same play turned: equal through every contact."""
    moved = 0.0
    for k in range(4):
        path, rng = [], np.random.default_rng(k)
        start, play = push_t.sample_state(rng), push_t.play(rng)
        push_t.set_state(start)
        for _ in range(60):
            action = play(push_t.state)
            push_t.advance(action)
            path.append((action, push_t.state))
        moved = max(moved, float(np.linalg.norm(push_t.state[2:4] - start[2:4])))
        push_t.set_state(symmetry.state(torch.from_numpy(start)).numpy())
        for action, state in path:
            push_t.advance(symmetry.action(torch.from_numpy(action)).numpy())
            np.testing.assert_allclose(push_t.state, symmetry.state(torch.from_numpy(state)).numpy(), atol=1e-6)
    assert moved > 0.1, "nothing was pushed: the test looks away from where it matters"


def test_the_symmetries_of_push_t_are_eight_less_none(push_t: PushT) -> None:
    """All of the square's, each once: what becomes of two marked corners tells them apart."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    ends = {tuple(one.action(corners).flatten().tolist()) for one in PushT.symmetries}
    assert len(ends) == 7 and tuple(corners.flatten().tolist()) not in ends


def test_the_pusher_is_stopped_by_block_and_walls(push_t: PushT) -> None:
    """Full speed at the block from every side, and on, until the block stands against a wall; at every physics step."""
    rng, moved = np.random.default_rng(0), 0
    for k in range(24):
        angle = k / 24 * 2 * np.pi
        heading = np.array([np.cos(angle), np.sin(angle)])
        block = np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(-np.pi, np.pi)])
        start = np.concatenate([block[:2] - 0.28 * heading, block, np.zeros(5)])
        actions = np.repeat(0.4 * (heading / np.abs(heading).max())[None], 30, 0)
        path = every_physics_step(push_t, start, actions)
        assert_solid(push_t, path)
        moved += np.linalg.norm(path[-1, 2:4] - block[:2]) > 0.05
    assert moved > 12


def test_play_at_every_physics_step_keeps_things_apart(push_t: PushT) -> None:
    for k in range(6):
        states, actions = play_episode(push_t, 60, np.random.default_rng([9, k]))
        assert_solid(push_t, every_physics_step(push_t, states[0], actions))


def test_random_starts_do_not_overlap(push_t: PushT) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        state = push_t.sample_state(rng)
        assert not state[5:].any()
        in_block = turned(state[:2] - state[2:4], -state[4])
        assert clearance(push_t, in_block[None], ("bar", "stem"))[0] > PUSHER - 1e-6
        assert np.abs(corners(push_t, state[None])).max() < 0.5 + 1e-6


# Reacher -----------------------------------------------------------------------------------------------------------


def test_the_elbow_keeps_to_its_limit(reacher: Reacher) -> None:
    """Full torque against the stop, from rest and swinging."""
    rng, highest = np.random.default_rng(0), 0.0
    for k in range(20):
        start = reacher.sample_state(rng)
        torque = np.where(rng.random((40, 2)) < 0.5, -1, 1) if k % 4 == 0 else np.sign(rng.normal(size=(1, 2)))
        path = every_physics_step(reacher, start, np.broadcast_to(torque * [3.0, 1.2], (40, 2)))
        highest = max(highest, np.abs(path[:, 1]).max())
    assert np.deg2rad(149) < highest < np.deg2rad(155)


def test_the_fingertip_is_where_mujoco_has_it(reacher: Reacher) -> None:
    from envs.reacher import tip

    rng = np.random.default_rng(0)
    states = np.stack([reacher.sample_state(rng) for _ in range(20)])
    for state, place in zip(states, tip(states), strict=True):
        reacher.set_state(state)
        assert np.allclose(reacher.data.geom("tip").xpos[:2], place, atol=1e-12)


# Success in physical units -----------------------------------------------------------------------------------------

NEAR = 1e-4
"""How far inside or outside of the tolerance, metres or radians."""


def success(env: envs.GoalEnv, start: np.ndarray, goal: np.ndarray) -> bool:
    _, info = env.reset(options={"start": start, "goal": goal})
    assert info["success"] == (info["goal_distance"] <= 1)
    return bool(info["success"])


def test_two_room_succeeds_within_10_cm(two_room: TwoRoom) -> None:
    goal = np.array([0.4, -0.2, 0, 0])
    for angle in np.linspace(0, 2 * np.pi, 7):
        way = np.array([np.cos(angle), np.sin(angle), 0, 0])
        assert success(two_room, goal + (0.10 - NEAR) * way, goal)
        assert not success(two_room, goal + (0.10 + NEAR) * way, goal)
    assert success(two_room, goal + [0, 0, 1.0, -1.0], goal), "speed is no part of success"


def test_push_t_succeeds_within_4_cm_and_20_degrees(push_t: PushT) -> None:
    goal = np.array([-0.4, -0.4, 0.1, -0.05, 0.3, 0, 0, 0, 0, 0])
    twenty = np.deg2rad(20)

    def moved(distance: float, angle: float) -> np.ndarray:
        return goal + np.array([0, 0, 0.6 * distance, -0.8 * distance, angle, 0, 0, 0, 0, 0])

    for sign in (-1, 1):
        assert success(push_t, moved(0.04 - NEAR, sign * (twenty - NEAR)), goal), "both at their tolerance"
        assert not success(push_t, moved(0.04 + NEAR, 0), goal)
        assert not success(push_t, moved(0, sign * (twenty + NEAR)), goal)
    elsewhere = goal.copy()
    elsewhere[:2] = 0.4
    assert success(push_t, elsewhere, goal), "where the pusher is does not matter"


def test_push_t_angles_wrap(push_t: PushT) -> None:
    """A block at pi and one at -pi are the same; a difference without the wrap called them a full turn apart."""
    goal = np.zeros(10)
    goal[:2], goal[4] = -0.4, np.pi
    for angle in (-np.pi, -np.pi + 0.1, np.pi - 0.1, np.pi + 0.1, 3 * np.pi - 0.1, -5 * np.pi + 0.1):
        start = goal.copy()
        start[4] = angle
        assert success(push_t, start, goal)
        assert push_t.errors(start, goal)[1] < 0.11 / np.deg2rad(20)
    start = goal.copy()
    start[4] = 0
    assert push_t.errors(start, goal)[1] == pytest.approx(9), "half a turn is the worst there is"


def test_reacher_succeeds_within_5_cm_and_a_fifth_of_a_radian(reacher: Reacher) -> None:
    goal = np.array([0.7, 0.0, 0, 0])
    for off, reached in ((0.05 - NEAR, True), (0.05 + NEAR, False)):
        turn = 2 * np.arcsin(off / (4 * LINK))  # the angle whose chord, at two links' length, is `off`
        assert success(reacher, goal + [turn, 0, 0, 0], goal) == reached
    for off, reached in ((0.2 - NEAR, True), (0.2 + NEAR, False)):
        # An elbow bent as far one way as the other, and a shoulder that makes up for it: the fingertip stays.
        bent = np.array([-off / 4, off / 2, 0, 0])
        assert reacher.errors(bent, -bent)[0] < 1e-9
        assert success(reacher, bent, -bent) == reached
    assert success(reacher, goal + [2 * np.pi, 0, 0, 0], goal), "a full turn of the shoulder changes nothing"


# Play and held-out pairs -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(env: envs.GoalEnv) -> list[tuple[np.ndarray, np.ndarray]]:
    """Thirty training episodes of a hundred steps, not drawn."""
    return [play_episode(env, 100, np.random.default_rng([COLLECT_STREAM, 0, k])) for k in range(30)]


def test_play_is_finite_and_in_bounds(env: envs.GoalEnv, played: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for states, actions in played:
        assert states.shape == (101, env.state_size) and np.isfinite(states).all()
        assert actions.shape == (100, len(env.spec_low))
        assert (actions >= env.spec_low).all() and (actions <= env.spec_high).all()
    every = (
        env.action_spec().encode(torch.from_numpy(np.concatenate([actions for _, actions in played]))[:, None]).numpy()
    )
    assert (every.std(0) > 0.3).all(), "play uses its motors"
    assert (np.abs(every.mean(0)[:3]) < 0.2).all(), "and favours no direction"  # a gripper has none


def test_play_shows_what_the_task_is_about(env: envs.GoalEnv, played: list[tuple[np.ndarray, np.ndarray]]) -> None:
    states = np.array([states for states, _ in played])
    if env.name == "TwoRoom":
        crossed = (np.sign(states[:, 1:, 0]) != np.sign(states[:, :-1, 0])).any(1)
        assert 0.3 < crossed.mean() < 1, "some cross the door, and some do not"
    elif env.name == "PushT":
        moves = np.linalg.norm(np.diff(states[..., 2:4], axis=1), axis=-1) > 1e-3
        assert 0.1 < moves.mean() < 0.9, "the block moves in some steps, and not in others"
        assert (moves.any(1)).mean() > 0.5
    elif env.name == "PointMaze":
        reach = np.linalg.norm(states[:, -1, :2] - states[:, 0, :2], axis=-1)
        assert 0.2 < (reach > 0.8).mean() < 1, "some go far, and some do not"
        assert len(np.unique(cell_of(states[..., :2]))) > 20, "they see nearly every cell"
    elif env.name == "Cube":
        height = cube_of(states)[..., 2]
        assert 0.1 < (height > 0.05).mean() < 0.6, "the cube is in the air at times, and on the table at others"
        slid = np.linalg.norm(np.diff(states[..., 6:8], axis=1), axis=-1) > 1e-3
        assert (slid & (height[:, 1:] < 0.04)).mean() > 0.02, "and is pushed too"
    else:
        bent = states[..., 1]
        assert (bent > 1).mean() > 0.1 and (bent < -1).mean() > 0.1, "the elbow bends both ways"
        assert np.ptp(states[..., 0], axis=1).mean() > 1, "the arm swings"


def test_held_out_pairs_keep_their_promises(env: envs.GoalEnv) -> None:
    found, again = (held_out_pairs(env, 8, 25, seed=3) for _ in range(2))
    assert len(found.pairs) == 8
    for pair, same in zip(found.pairs, again.pairs, strict=True):
        assert np.array_equal(pair.start, same.start) and np.array_equal(pair.goal, same.goal)
        assert env.goal_distance(pair.start, pair.goal) > 1, "solved at the start"
        assert env.counts(pair.start, pair.goal)
        if env.name == "TwoRoom":
            assert pair.start[0] * pair.goal[0] < 0, "in one room"
        if env.name == "PushT":
            assert env.errors(pair.start, pair.goal).max() > 1, "the block stays"
    assert (found.solved, found.ruled_out) == (again.solved, again.ruled_out)
    other = held_out_pairs(env, 1, 25, seed=4).pairs[0]
    assert not np.array_equal(other.start, found.pairs[0].start)


def test_a_longer_list_begins_with_the_shorter(env: envs.GoalEnv) -> None:
    """So that an evaluation on more pairs is a continuation, not another one."""
    short, long = held_out_pairs(env, 2, 25, seed=0).pairs, held_out_pairs(env, 4, 25, seed=0).pairs
    assert all(np.array_equal(one.goal, other.goal) for one, other in zip(short, long[:2], strict=True))


def test_no_training_episode_is_an_evaluation_episode(
    env: envs.GoalEnv, played: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    assert COLLECT_STREAM != EVALUATE_STREAM
    trained = {states[0].tobytes() for states, _ in played}
    for k in range(30):
        rng = np.random.default_rng([EVALUATE_STREAM, 0, k])
        rng.integers(0, 76)  # as `held_out_pairs` draws before it plays
        assert env.sample_state(rng).tobytes() not in trained
        assert env.sample_state(np.random.default_rng([COLLECT_STREAM, 0, k])).tobytes() in trained


def test_impossible_pairs_are_bad_input(two_room: TwoRoom) -> None:
    """Nothing crosses the wall in one step from outside of 0.1 m around it."""
    with pytest.raises(BadInput, match="only 0 pairs of 1 found at distance 1; got .*; choose a larger --distance"):
        held_out_pairs(two_room, 1, 1, seed=0)


def test_cubes_mirror_shows_the_same_way_through_grasps() -> None:
    """Places, step by step from the same state: the speeds of a held cube alone differ, as the tolerance says."""
    with Cube(size=32) as cube:
        (mirror,), far, lifted = cube.symmetries, [], False
        for k in range(12):
            rng = np.random.default_rng(k)
            cube.set_state(cube.sample_state(rng))
            play = cube.play(rng)
            for _ in range(40):
                state = cube.state
                action = np.asarray(play(state), np.float64)
                cube.set_state(mirror.state(torch.from_numpy(state)).numpy())
                cube.advance(mirror.action(torch.from_numpy(action)).numpy())
                other = cube.state
                cube.set_state(state)
                cube.advance(action)
                here = mirror.state(torch.from_numpy(cube.state)).numpy()
                far.append(float(np.linalg.norm(cube_of(here) - cube_of(other))))
                lifted |= bool(cube_of(here)[2] > 0.06)
        assert lifted, "nothing was held: the test looks away from where it matters"
        assert np.quantile(far, 0.98) < 5e-4 and np.median(far) < 1e-9


@pytest.mark.parametrize("tolerance", [0.0, -1.0, np.nan, np.inf])
def test_a_symmetry_needs_a_tolerance(tolerance: float) -> None:
    with pytest.raises(BadInput, match="symmetry: tolerance is off; expected more than 0 and finite"):
        replace(PushT.symmetries[0], tolerance=tolerance)
