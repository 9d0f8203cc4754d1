"""Other people's benchmarks behind our env contract; each needs its own package only once it is made."""

from __future__ import annotations

from ..base import GoalEnv
from .arms import PusherV5, ReacherV5
from .cube import CubeSingle
from .maze import PointMazeMedium

ADAPTERS: dict[str, type[GoalEnv]] = {
    "ogbench/pointmaze-medium": PointMazeMedium,
    "ogbench/cube-single": CubeSingle,
    "gymnasium/Reacher-v5": ReacherV5,
    "gymnasium/Pusher-v5": PusherV5,
}
"""Beside `envs.TASKS`; `envs.make` knows both."""

__all__ = ["ADAPTERS", "CubeSingle", "PointMazeMedium", "PusherV5", "ReacherV5"]
