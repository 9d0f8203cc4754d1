"""The contract that every task keeps: exact states in, pictures out, success in physical units.

A task is a `GoalEnv` with a few lines of geometry. Its observation is what a robot would have, the camera's picture and
the goal's, and what its joints measure if asked for; the physical state is in `info`, for judges and for the oracle,
never for a planner.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from planner.actions import ActionSpec
from planner.errors import BadInput
from planner.symmetry import Symmetry

from .rendering import Camera, choose_backend, dress

choose_backend()  # before mujoco is imported: it fixes its GL library then

import mujoco  # noqa: E402

ASSETS = Path(__file__).parent / "assets"
Play = Callable[[np.ndarray], np.ndarray]
"""A data policy for one episode: state `[n]` to action `[a]`, physical units."""


class GoalEnv(gym.Env[Any, Any]):
    """A robot that is to bring about what its goal picture shows.

    State: `[nq + nv]` float64, MuJoCo's qpos then qvel (metres, radians, metres/s, radians/s); setting it reproduces
    pictures and motion exactly. Observation: `pixels` and `goal`, uint8 `[size, size, 3]`; with `proprioception` also
    `proprio`, float32 `[p]`, the numbers of the state that `proprio_names` names, in its units. Action: float32 `[a]`
    between the bounds of `action_spec()`, held for `substeps` physics steps. Reward: 1 on success, else 0; success ends
    the episode. `info` has `success` (bool), `goal_distance` (1 = exactly at the tolerance), `state`, `goal_state`.

    `reset(options={"start": state, "goal": state})` sets either or both exactly; without them they are drawn at random.
    `options={"goal_image": picture}` gives a goal of which nothing but the picture is known: `goal_distance` is then
    NaN and `success` False.

    Class attributes beyond those of the action: `xml`, the file of the scene (see `load`); `view`, the camera in it;
    `simulates`, whether `advance` is no more than MuJoCo's step with the action as control, so that the oracle can
    rehearse it: a class with an `advance`, `state` or `set_state` of its own has to say; `measures`, the joints (hinges
    and slides) whose place and speed the robot measures itself, by default those that an actuator acts on directly;
    `own_goals` and `own_budget`, how many evaluation goals a benchmark lists itself (0: none) and how many environment
    steps it gives each; `symmetries`, changes of the scene that its physics and its camera do not notice; `places`,
    dimensions of the action that say where something is to be, as a gap between fingers, and not how fast it moves: a
    robot at rest holds these, and does nothing in the others; `play_name`, what datasets call play: a task whose play
    is changed changes it too, so that no dataset is finished with other play; `packages`, whose scene and policies
    these are, where they are not ours: results and datasets state their versions.

    `metadata` of an env, not of its class, has `render_fps`, environment steps a second: the scene says how long a
    physics step is.

    Args:
        size: height and width of the pictures in pixels.
        backend: renderer, one of `rendering.BACKENDS`; by default the process's.
        proprioception: whether observations have `proprio` too. Planners that ship do without it (decision 58).
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # copied by every env, never changed

    name: ClassVar[str]
    xml: ClassVar[str]
    spec_low: ClassVar[tuple[float, ...]]
    spec_high: ClassVar[tuple[float, ...]]
    spec_units: ClassVar[tuple[str, ...]]
    block: ClassVar[int] = 5
    substeps: ClassVar[int]
    pair_rule: ClassVar[str] = "every pair that is not solved at the start"
    view: ClassVar[str] = "top"
    simulates: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...] | None] = None
    own_goals: ClassVar[int] = 0
    own_budget: ClassVar[int] = 0
    symmetries: ClassVar[tuple[Symmetry, ...]] = ()
    places: ClassVar[tuple[int, ...]] = ()
    play_name: ClassVar[str] = "play"
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        size: int = 64,
        backend: str | None = None,
        render_mode: str | None = "rgb_array",
        proprioception: bool = False,
    ) -> None:
        self.render_mode, self.backend = render_mode, backend or choose_backend()
        self.model = self._loaded()
        dress(self.model)
        self._check_scene()
        self.metadata = type(self).metadata | {"render_fps": _whole(1 / (self.model.opt.timestep * self.substeps))}
        self.data = mujoco.MjData(self.model)
        self.camera = Camera(self.model, size, self.view, self.backend)
        self.size = size
        self.action_space = gym.spaces.Box(
            np.array(self.spec_low, np.float32), np.array(self.spec_high, np.float32), dtype=np.float32
        )
        self.state_size = self.model.nq + self.model.nv
        self.state_names, self.state_units = _names(self.model)
        self._felt = _measured(self.model, self.name, self.measures)
        self.proprio_names = tuple(self.state_names[i] for i in self._felt)
        if proprioception and not self._felt:
            raise BadInput(f"{self.name}: no joint is measured", expected="joints that actuators drive, or `measures`")
        self.proprioception = proprioception
        self.observation_space = self._observation_space()
        self._goal_state: np.ndarray | None = None
        self._goal_image = np.zeros((size, size, 3), np.uint8)
        self.prepare()

    # What a task defines -------------------------------------------------------------------------------------------

    @abstractmethod
    def sample_state(self, rng: np.random.Generator) -> np.ndarray:
        """A random state at rest, `[nq + nv]`, in which nothing overlaps."""

    @abstractmethod
    def errors(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Physical errors in units of their tolerances, `[..., n]` and `[..., n]` to `[..., K]`, each >= 0."""

    @abstractmethod
    def play(self, rng: np.random.Generator) -> Play:
        """A data policy for one episode, of mixed quality: some random, some play, never an expert only."""

    def prepare(self) -> None:
        """What a task sets up once, when `model` and `data` are there."""

    def relieve(self, rng: np.random.Generator) -> Play:
        """What goes on in the place of a planner that is stuck: play, where a task knows no better way out."""
        return self.play(rng)

    def own_pair(self, goal: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Start and goal, `[n]` each, of the benchmark's own goal `goal`, 0 to `own_goals` - 1, varied as it does."""
        raise BadInput(f"{self.name} has no goals of its own", do="choose play or any goals")

    def counts(self, start: np.ndarray, goal: np.ndarray) -> bool:
        """Whether a start-goal pair asks what the task is about, as `pair_rule` says; solved pairs are out anyway."""
        return True

    def guide(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Squared error beyond `errors` that helps a planner on the true state, `[...]`; never part of success."""
        return np.zeros(np.broadcast_shapes(state.shape, goal.shape)[:-1])

    def load(self) -> mujoco.MjModel:
        """The model that is simulated and drawn: from `xml`, a file among our assets or beside the task's module."""
        places = [ASSETS / self.xml, Path(inspect.getfile(type(self))).parent / self.xml]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise BadInput(f"{self.name}: no scene {self.xml}", expected=f"a file such as {places[1]}", do="set `xml`")
        try:
            return mujoco.MjModel.from_xml_path(str(found))
        except ValueError as error:
            raise BadInput(f"{self.name}: MuJoCo refuses {found}", got=" ".join(str(error).split())[:300]) from None

    # What every task shares ----------------------------------------------------------------------------------------

    def _loaded(self) -> mujoco.MjModel:
        try:
            return self.load()
        except BadInput:
            raise
        except ValueError as error:  # what MuJoCo raises for a scene that it cannot read
            raise BadInput(f"{self.name}: its `load` failed", got=" ".join(str(error).split())[:300]) from error

    @classmethod
    def action_spec(cls) -> ActionSpec:
        """Bounds, units and block of this task's actions."""
        low, high, units = (_row(cls, name) for name in ("spec_low", "spec_high", "spec_units"))
        return ActionSpec(low, high, units, cls.block)

    def goal_distance(self, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The worst of `errors`, `[...]`: at most 1 is success; `BadInput` where they are none."""
        errors: Any = self.errors(state, goal)
        shape = errors.shape if isinstance(errors, np.ndarray) else ()
        if shape[:-1] != np.broadcast_shapes(state.shape, goal.shape)[:-1] or shape[-1:] in ((), (0,)):
            expected, do = "an array [..., K] for states [..., n]", "see envs.GoalEnv.errors"
            got = f"{type(errors).__name__} {list(shape)}" if shape else type(errors).__name__
            raise BadInput(f"{self.name}: errors is off", expected=expected, got=got, do=do)
        worst: np.ndarray = errors.max(-1)
        return worst

    @property
    def state(self) -> np.ndarray:
        """The physical state now, `[nq + nv]`."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def set_state(self, state: np.ndarray) -> None:
        """Sets the physical state exactly; forces, contacts and warm starts follow from it alone."""
        state = self._check_state("state", state)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = np.split(state, [self.model.nq])
        mujoco.mj_forward(self.model, self.data)

    def advance(self, action: np.ndarray) -> None:
        """One environment step of physics, without a picture; `action` `[a]` is clipped to the bounds."""
        self.data.ctrl[:] = np.clip(action, self.spec_low, self.spec_high)
        mujoco.mj_step(self.model, self.data, self.substeps)

    def picture(self, state: np.ndarray | None = None) -> np.ndarray:
        """The camera's picture of `state` (of the present when None), uint8 `[size, size, 3]`."""
        kept = None
        if state is not None:
            kept = self.state
            self.set_state(state)
        else:
            mujoco.mj_forward(self.model, self.data)
        picture = self.camera.render(self.data)
        if kept is not None:
            self.set_state(kept)
        return picture

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts an episode; see the class for `options`."""
        super().reset(seed=seed)
        options = dict(options or {})
        start, goal, image = options.pop("start", None), options.pop("goal", None), options.pop("goal_image", None)
        if options:
            raise BadInput("reset: unknown option", expected="start, goal, goal_image", got=", ".join(options))
        if goal is not None and image is not None:
            raise BadInput("reset: goal and goal_image given together", expected="one of them")
        start = self.sample_state(self.np_random) if start is None else start
        if image is not None:
            self._goal_state, self._goal_image = None, self._check_image(image)
        else:
            goal = self.sample_state(self.np_random) if goal is None else goal
            self._goal_state = self._check_state("goal", goal)
            self._goal_image = self.picture(self._goal_state)
        self.set_state(start)
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One environment step; an action of another shape or not finite is refused with `BadInput`."""
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise BadInput(
                f"{self.name}: action is off",
                expected=f"{len(self.spec_low)} finite numbers in {self.spec_units}",
                got=str(action.tolist()),
            )
        self.advance(action)
        info = self._info()
        return self._observe(), float(info["success"]), bool(info["success"]), False, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The camera's picture now."""
        return self.picture()

    def close(self) -> None:
        """Frees the renderer."""
        self.camera.close()

    def _check_scene(self) -> None:
        """Holds what the class says against the model: MuJoCo would tell mistakes in its own words, or not at all."""
        cameras = [self.model.camera(i).name for i in range(self.model.ncam)]
        if self.view not in cameras:
            expected = " or ".join(map(repr, cameras)) or "a camera in the scene"
            raise BadInput(f"{self.name}: the scene has no such camera", expected=expected, got=repr(self.view))
        self.action_spec()  # says what is wrong with bounds and units
        if not isinstance(self.substeps, int) or self.substeps < 1:
            raise BadInput(f"{self.name}: substeps is off", expected="a whole number from 1", got=str(self.substeps))
        if self.simulates and (own := _unsaid(type(self))):
            do = "set `simulates = False`: no oracle; or True, where MuJoCo's plain steps come to the same"
            raise BadInput(f"{self.name} has {own} of its own and does not say whether it simulates", do=do)
        if self.controls and self.model.nu != len(self.spec_low):
            expected = f"bounds for {self.model.nu} actuators, or an `advance` of its own and `simulates = False`"
            raise BadInput(f"{self.name}: spec_low is off", expected=expected, got=f"for {len(self.spec_low)}")

    @property
    def controls(self) -> bool:
        """Whether an action is what the actuators are set to."""
        return self.simulates or type(self).advance is GoalEnv.advance

    def _observation_space(self) -> gym.spaces.Dict:
        picture = gym.spaces.Box(0, 255, (self.size, self.size, 3), np.uint8)
        spaces: dict[str, gym.Space[Any]] = {"pixels": picture, "goal": picture}
        if self.proprioception:
            spaces["proprio"] = gym.spaces.Box(-np.inf, np.inf, (len(self.proprio_names),), np.float32)
        return gym.spaces.Dict(spaces)

    def _observe(self) -> dict[str, np.ndarray]:
        seen = {"pixels": self.picture(), "goal": self._goal_image.copy()}
        if self.proprioception:
            seen["proprio"] = self.state[self._felt].astype(np.float32)
        return seen

    def _info(self) -> dict[str, Any]:
        state, goal = self.state, self._goal_state
        distance = float("nan") if goal is None else float(self.goal_distance(state, goal))
        info: dict[str, Any] = {"success": distance <= 1, "goal_distance": distance, "state": state}
        return info | {"goal_state": np.full(self.state_size, np.nan) if goal is None else goal.copy()}

    def _check_state(self, name: str, state: np.ndarray) -> np.ndarray:
        state = np.array(state, np.float64)
        if state.shape != (self.state_size,) or not np.isfinite(state).all():
            raise BadInput(
                f"{self.name}: {name} is off", expected=f"{self.state_size} finite numbers", got=str(state.tolist())
            )
        return state

    def _check_image(self, image: np.ndarray) -> np.ndarray:
        image = np.asarray(image)
        if image.shape != (self.size, self.size, 3) or image.dtype != np.uint8:
            raise BadInput(
                f"{self.name}: goal image is off",
                expected=f"uint8 {self.size} x {self.size} x 3",
                got=f"{image.dtype} {' x '.join(map(str, image.shape))}",
            )
        return image.copy()


def _unsaid(task: type[GoalEnv]) -> str:
    """What of its motion a class defines anew with no word on `simulates`, there or in a class made from it; or ""."""
    kinds, motion = task.__mro__, ("advance", "state", "set_state")
    first = {name: [name in vars(kind) for kind in kinds].index(True) for name in (*motion, "simulates")}
    return next((f"`{name}`" for name in motion if first[name] < first["simulates"]), "")


def _whole(rate: float) -> float:
    """A rate, Hz, as a whole number where it is one but for rounding: some that write videos take no other."""
    return round(rate) if abs(rate - round(rate)) < 1e-6 * rate else rate


def _row(task: type[GoalEnv], name: str) -> tuple[Any, ...]:
    """A class's numbers or words, one an action, whatever they were written as: a list or an array will do."""
    values = getattr(task, name)
    if isinstance(values, str) or np.ndim(values) != 1:
        got, example = repr(values), '("N m",)' if name == "spec_units" else "(-1.0,)"
        raise BadInput(f"{task.name}: {name} is off", expected=f"one an action, such as {example}", got=got)
    return tuple(np.asarray(values).tolist())


_POSITIONS = {
    mujoco.mjtJoint.mjJNT_HINGE: ({"": "rad"}, {"": "rad/s"}),
    mujoco.mjtJoint.mjJNT_SLIDE: ({"": "m"}, {"": "m/s"}),
    mujoco.mjtJoint.mjJNT_BALL: (
        {f"_q{axis}": "1" for axis in "wxyz"},
        {f"_turn_{axis}": "rad/s" for axis in "xyz"},
    ),
    mujoco.mjtJoint.mjJNT_FREE: (
        {"_x": "m", "_y": "m", "_z": "m"} | {f"_q{axis}": "1" for axis in "wxyz"},
        {f"_{axis}": "m/s" for axis in "xyz"} | {f"_turn_{axis}": "rad/s" for axis in "xyz"},
    ),
}
"""What a joint of each kind adds to qpos and to qvel: endings of names, and units."""


def _names(model: mujoco.MjModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of the numbers in qpos, then qvel."""
    joints = [(model.joint(i).name, *_POSITIONS[mujoco.mjtJoint(model.jnt_type[i])]) for i in range(model.njnt)]
    named = [(f"{joint}{end}", unit) for joint, places, _ in joints for end, unit in places.items()]
    named += [(f"{joint}{end}_speed", unit) for joint, _, speeds in joints for end, unit in speeds.items()]
    names, units = zip(*named, strict=True)
    return names, units


def _measured(model: mujoco.MjModel, task: str, measures: tuple[str, ...] | None) -> list[int]:
    """Which numbers of the state a robot measures: places of its hinges and slides, then their speeds."""
    kinds = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
    single = {i: model.joint(i).name for i in range(model.njnt) if model.jnt_type[i] in kinds}
    if measures is None:
        driven = model.actuator_trnid[model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT, 0]
        joints = sorted(single.keys() & set(driven.tolist()))
    else:
        if unknown := set(measures) - set(single.values()):
            expected, got = "hinges and slides of the scene", ", ".join(sorted(unknown))
            raise BadInput(f"{task}: measures is off", expected=expected, got=got)
        joints = [i for i, name in single.items() if name in measures]
    return [*model.jnt_qposadr[joints].tolist(), *(model.nq + model.jnt_dofadr[joints]).tolist()]


def wander(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, persistence: float = 0.85) -> Play:
    """Random actions that change slowly: an Ornstein-Uhlenbeck walk of each dimension, clipped to the bounds.

    Args:
        rng: source of the noise.
        low: smallest action `[a]`.
        high: largest action `[a]`.
        persistence: share of the last action kept, 0 (white noise) to below 1.
    """
    middle, half = (high + low) / 2, (high - low) / 2
    walk = rng.normal(size=low.shape)

    def act(state: np.ndarray) -> np.ndarray:
        nonlocal walk
        walk = persistence * walk + np.sqrt(1 - persistence**2) * rng.normal(size=low.shape)
        return np.clip(middle + 0.7 * half * walk, low, high)

    return act
