"""Tasks in MuJoCo, each also as `gym.make("envs:JepaMPC/PushT-v0")`: two rooms, a maze, an arm, a pusher, a gripper.

Other people's benchmarks have the same contract, as `ogbench/cube-single` and so on (`ADAPTERS`), and so has a task of
your own, as `module:Class` (`own.own_task`).
"""

from __future__ import annotations

import inspect
from pathlib import Path

import gymnasium as gym

from planner.errors import BadInput
from planner.tasks import is_recorded

from .adapters import ADAPTERS
from .appearance import APPEARANCES, disguise
from .base import GoalEnv
from .checker import check_goal_env
from .cube import Cube
from .oracle import OracleModel, StateDistance
from .own import is_own, meant, own_task
from .point_maze import PointMaze
from .push_t import PushT
from .reacher import Reacher
from .rendering import choose_backend
from .two_room import TwoRoom

TASKS: dict[str, type[GoalEnv]] = {
    "TwoRoom": TwoRoom,
    "PointMaze": PointMaze,
    "Reacher": Reacher,
    "PushT": PushT,
    "Cube": Cube,
}

PROTOCOLS = Path(__file__).parent / "protocols"
"""The frozen protocol of every task, `TASK-vN.json`, and its pairs, `TASK-vN.npz`; `make freeze` writes them."""

for _name, _task in TASKS.items():
    _id = f"JepaMPC/{_name}-v0"
    if _id not in gym.registry:
        gym.register(id=_id, entry_point=f"{_task.__module__}:{_task.__name__}", max_episode_steps=200)


def check_task(task: str) -> None:
    """Raises `BadInput` unless there is a task called `task`, of our own or of others', or it may be one of yours.

    Nothing is imported to tell, so that a name may come from a file.
    """
    if is_recorded(task):
        do = "train, rehearse, serve and surprise need none; for all else write it one (docs/own-robot.md)"
        raise BadInput(f"{task} has no simulator", do=do)
    guess = meant(task)
    if task not in TASKS and task not in ADAPTERS and (guess or not is_own(task)):
        known = " or ".join(
            [*TASKS, *ADAPTERS, "module:Class of your own", "recorded/NAME of letters, digits, _ and -"]
        )
        raise BadInput("unknown task", expected=known, got=repr(task), do=f"did you mean {guess}?" if guess else "")


def task_class(task: str) -> type[GoalEnv]:
    """The class of the task called `task`; a `module:Class` is imported, which runs its code.

    Raises:
        BadInput: for an unknown name, or one that names no finished task.
    """
    check_task(task)
    return own_task(task) if is_own(task) else (TASKS | ADAPTERS)[task]


def make(task: str, size: int = 64, proprioception: bool = False) -> GoalEnv:
    """The environment called `task`, with pictures of `size` pixels, and with what its joints measure if asked for.

    Raises:
        BadInput: for an unknown name, where the package that the task comes from is not installed, or where a task
            of your own cannot be asked for proprioception, or measures nothing.
    """
    kind = task_class(task)
    if not proprioception:
        return kind(size=size)
    if "proprioception" not in inspect.signature(kind).parameters:
        do = "take `proprioception` in its __init__, and hand it on to GoalEnv's"
        raise BadInput(f"task {task} takes no proprioception", do=do)
    return kind(size=size, proprioception=True)


def oracle(env: GoalEnv) -> tuple[OracleModel, StateDistance]:
    """The simulator of `env` as a world model, and the energy on its states; `BadInput` if it `simulates` not."""
    if not env.simulates:
        raise BadInput(f"{env.name} has no oracle", got="an env that moves by more than MuJoCo's own steps")
    return OracleModel(env), StateDistance(env)


__all__ = [
    "ADAPTERS",
    "APPEARANCES",
    "PROTOCOLS",
    "TASKS",
    "Cube",
    "GoalEnv",
    "PointMaze",
    "PushT",
    "Reacher",
    "TwoRoom",
    "check_goal_env",
    "check_task",
    "choose_backend",
    "disguise",
    "make",
    "oracle",
    "task_class",
]
