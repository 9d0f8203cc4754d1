"""The settings that the shipped checkpoints were made with; other tasks start from `DEFAULT`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .models.jepa import JEPAConfig
from .settings import PlannerConfig, TrainConfig


@dataclass(frozen=True)
class Recipe:
    """Data, model, training length and planner of one task.

    Attributes:
        episodes: play episodes to collect.
        steps: environment steps of each.
        model: shape of the JEPA.
        training: how it is trained.
        planner: how the checkpoint wants to be planned with.
    """

    episodes: int
    model: JEPAConfig
    training: TrainConfig
    planner: PlannerConfig
    steps: int = 100


DEFAULT = Recipe(episodes=1000, model=JEPAConfig(), training=TrainConfig(steps=3000), planner=PlannerConfig())

RECIPES: dict[str, Recipe] = {
    "TwoRoom": Recipe(
        episodes=800,
        model=JEPAConfig(temporal=64),
        training=TrainConfig(steps=2500, augment=0.8, temporal_steps=5000),
        planner=PlannerConfig(samples=64, iterations=3),
    ),
    # The way leads away from the goal for long: steps left, and not the straight line. Then `jepa-mpc looks PointMaze`:
    # varied looks from the start cost exactness (decision 66).
    "PointMaze": Recipe(
        episodes=1500,
        model=JEPAConfig(temporal=64),
        training=TrainConfig(steps=2500),
        planner=PlannerConfig(metric="temporal", samples=64, iterations=2),
    ),
    # The elbow has stops, and the straight line to a goal may lead against one (decision 65). Then `jepa-mpc looks
    # Reacher --training.backdrop --training.shift --training.steps 2500` (decision 86).
    "Reacher": Recipe(
        episodes=1000,
        model=JEPAConfig(temporal=64),
        training=TrainConfig(steps=3000, augment=0.8),
        planner=PlannerConfig(metric="temporal+l2", samples=64, iterations=2),
    ),
    # A ball of four pixels: an encoder that says where things are finds it (decision 46).
    "ogbench/pointmaze-medium": Recipe(
        episodes=300,
        steps=400,
        model=JEPAConfig(encoder="keypoints", temporal=64),
        training=TrainConfig(steps=3000),
        planner=PlannerConfig(metric="temporal", samples=64, iterations=2, hold=10),
    ),
    # Torques that would turn the arm many times a second: play uses a fifth of them, and so does the search.
    "gymnasium/Reacher-v5": Recipe(
        episodes=1000,
        model=JEPAConfig(temporal=64),
        training=TrainConfig(steps=3000),
        planner=PlannerConfig(metric="temporal+l2", samples=96, iterations=3, std=0.2, replan=2),
    ),
    # Contact, and an angle that the latent learns last: more of everything, seen eight ways, and a planner that does
    # not care where the pusher ends (decision 121). What ships has more play and its planner's own episodes, and was
    # taught looks (`collect --checkpoint`, `polish`, `looks --gaze --training.shift`; the checkpoint's card has the
    # commands).
    "PushT": Recipe(
        episodes=2000,
        model=JEPAConfig(
            encoder="keypoints", predictor="gated", latent_dim=96, hidden=256, depth=3, body=2, temporal=64, slow=8
        ),
        training=TrainConfig(
            steps=9000, covariance_weight=0.04, moving=0.5, symmetric=True, polish_steps=8000, polish_batch=128
        ),
        planner=PlannerConfig(optimizer="mppi", samples=128, horizon=6, std=0.35, metric="temporal+slow"),
    ),
    # A hand that is not yet at the cube sees no change whatever it does: the search starts from what play would do, and
    # goes by steps left, since it has to go to the cube before it goes to where the goal shows the hand (decision 51).
    # Then `jepa-mpc polish Cube --predictor gated`, and twice `jepa-mpc collect Cube --checkpoint --replan 20` and
    # `polish` on all that there is (decision 62), `looks`, `join` and `slow` (66, 69; the checkpoint's card has the
    # commands).
    "Cube": Recipe(
        episodes=2500,
        model=JEPAConfig(encoder="keypoints", latent_dim=96, hidden=512, body=4, prior=512, temporal=64),
        training=TrainConfig(
            steps=5000, covariance_weight=0.04, moving=0.5, polish_steps=6000, prior_steps=8000, prior_reach=12
        ),
        planner=PlannerConfig(optimizer="mppi", samples=32, iterations=2, horizon=6, metric="temporal", proposals=96),
    ),
    # As Cube, its goals further away, and with play that is clumsy now and then (decisions 75 to 78); what ships was
    # trained on in parts, with a gated predictor, its planner's own episodes and a prior that learned for longer, on
    # three times the play (the card says how; the prior by a script of its own). Where a grasp has to be exact, the
    # best of many plans of the prior is done as it is: refining spoils it (decision 56).
    "ogbench/cube-single": Recipe(
        episodes=800,
        steps=250,
        model=JEPAConfig(
            encoder="keypoints", latent_dim=96, hidden=512, body=5, prior=512, prior_past=True, temporal=64
        ),
        training=TrainConfig(
            steps=4500, covariance_weight=0.04, moving=0.5, polish_steps=6000, prior_steps=3500, prior_reach=22
        ),
        planner=PlannerConfig(
            optimizer="sampling", samples=2, iterations=1, horizon=6, metric="temporal", proposals=64
        ),
    ),
}


def recipe_for(task: str) -> Recipe:
    """The recipe of `task`; `DEFAULT` for one that has none of its own."""
    return RECIPES.get(task, DEFAULT)


def known_metric(planner: PlannerConfig, model: JEPAConfig) -> str:
    """The planner's metric, or the next one to it that a model of that shape can tell."""
    if not model.temporal:
        return planner.without_head
    return "temporal+l2" if planner.metric == "temporal+slow" and not model.slow else planner.metric


def planner_for(task: str, model: JEPAConfig, block: int) -> PlannerConfig:
    """The planner of the task's recipe, less what a model of another shape does not know: body, heads, prior.

    Args:
        task: any, with a recipe of its own or without.
        model: shape of the model.
        block: environment steps in one of its steps.
    """
    planner = recipe_for(task).planner.fitting(block)
    planner = replace(planner, metric=known_metric(planner, model))
    if not model.prior:
        planner = planner.without_prior
    return replace(planner, body=1.0) if planner.body < 1 and not model.body else planner


POLISH = TrainConfig(steps=12000, batch=128, horizon=5, learning_rate=6e-4, moving=0.5)
"""How `jepa-mpc polish` trains a predictor further."""

LOOKS = TrainConfig(steps=7000, batch=128, learning_rate=1.5e-3, augment=0.8, shift=False, repaint=True)
"""How `jepa-mpc looks` teaches an encoder to see through looks."""

PRETRAIN = TrainConfig(steps=3000, batch=96)
"""How `jepa-mpc pretrain` teaches an encoder, on pictures; its shape and looks are those of the task's recipe."""
