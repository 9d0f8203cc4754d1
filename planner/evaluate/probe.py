"""How often a model that is still in training reaches goals: does it plan better, and not only predict better?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import torch

from ..models.jepa import JEPA
from ..settings import PlannerConfig
from .protocol import held_out_pairs, play_pairs

PROBE_SEED = 9000
"""Of the pairs: those of no evaluation that is reported, so that nothing is chosen on them."""
AT_ONCE = 10


def success_probe(
    envs: ModuleType, task: str, size: int, settings: PlannerConfig, episodes: int, distance: int = 25
) -> Callable[[JEPA], float]:
    """What `training.train` asks at every check: the share of goals reached, on the same held-out pairs each time.

    Args:
        envs: the package of tasks.
        task: its name.
        size: height and width of the pictures, pixels.
        settings: of the planner. What a model gets only after the encoder has finished (steps left, its body, an action
            prior, slow features) is left out: the distance is the plain one in latent space.
        episodes: pairs, >= 1.
        distance: environment steps between start and goal; an episode may take twice as many.
    """
    plain = replace(settings.without_prior, metric=settings.without_head, body=1.0)
    rooms = [envs.make(task, size) for _ in range(min(episodes, AT_ONCE))]
    pairs = held_out_pairs(rooms[0], episodes, distance, PROBE_SEED)

    def reached(model: JEPA) -> float:
        training = model.training
        with torch.no_grad():
            played = play_pairs(rooms, plain.build(model.eval(), seed=0), pairs.pairs, 2 * distance)
        model.train(training)
        return sum(episode.success for episode in played) / len(played)

    return reached
