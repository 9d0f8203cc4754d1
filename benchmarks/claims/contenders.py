"""Who is compared: our JEPA and its rivals, each trained with and without varied looks, for as many updates.

On PushT what ships was trained for longer, on more, and stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planner import checkpoint
from planner.energies import LatentDistance
from planner.mpc import MPC
from planner.settings import PlannerConfig

from .rows import digest
from .weights import draws_plain, load
from .worlds import InPixels

WEIGHTS = Path(__file__).parent / "weights"
SEEN = "drawn as seen"
"""Of rivals that draw pictures with their looks; the others are told what is nuisance, and draw without."""
CLOUDS = "clouds too"
"""Of ours, with an encoder that was also taught clouds on the floor, and of rivals that saw such looks; those that did
not stand beside them, a JEPA too where one ships that did."""
LONGER = "trained for longer"
"""Of ours, where what ships saw more updates and more data than the rivals did."""
SHIPS = {"TwoRoom": "", "Reacher": CLOUDS, "PushT": LONGER}
"""What sets what ships apart from the JEPA that was trained with varied looks as its rivals were."""
TASKS = tuple(SHIPS)
"""Those that have rivals. The first is looked at most closely, and alone unless others are asked for."""
CHUNK = 512
"""Candidates drawn at once where energies are in pixels: 12,288 numbers a picture add up."""


@dataclass(frozen=True)
class Contender:
    """A world model and the energy that it is planned with.

    Attributes:
        model: jepa, recurrent or next_frame.
        augment: strength of the varied looks that it was trained with.
        energy: latent or pixels.
        checkpoint: the weights, and the planner's settings, which are the same for all.
        note: what sets it apart from its row in the table, if anything does.
        told: whether it plans by pictures that it draws without their looks, and so to the goal as it draws it.
    """

    model: str
    augment: float
    energy: str
    checkpoint: checkpoint.Checkpoint
    note: str = ""
    told: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """What a row says of it."""
        names = {"model": self.model, "augment": self.augment, "energy": self.energy, "note": self.note}
        return names | {"sha256": self.checkpoint.sha256}

    @property
    def settings(self) -> PlannerConfig:
        """Its planner's, but by distance alone, as no rival knows how many steps are left."""
        own = self.checkpoint.planner
        return replace(own, metric=own.without_head)

    @property
    def planned(self) -> dict[str, Any]:
        """What a row says of it where it plans: `key`, by which settings, and to a goal of which kind."""
        return self.key | {"planner": digest(self.settings)} | ({"goal": "drawn"} if self.told else {})

    def planner(self, seed: int) -> MPC:
        """A planner on it."""
        settings, model = self.settings, self.checkpoint.model
        if self.energy == "latent":
            return settings.build(model, seed)
        planner = settings.build(InPixels(model, self.told), seed, LatentDistance(over=settings.over, key="pixels"))
        planner.chunk = CHUNK
        return planner


def contenders(task: str, energy: str = "latent") -> Iterator[Contender]:
    """Everybody on a task who has such an energy and weights, with the settings of what ships, which is the first."""
    shipped, own = checkpoint.load(checkpoint.find(task, None), task=task), WEIGHTS / task.lower()
    if energy == "latent":
        yield Contender("jepa", 0.8, energy, shipped, SHIPS[task])
        for augment, which, note in ((0.8, "-clouds", CLOUDS), (0.8, "", ""), (0.0, "", "")):
            if (folder := own.with_name(f"{own.name}-jepa-{augment:g}{which}")).exists():
                yield planned_alike(
                    Contender("jepa", augment, energy, checkpoint.load(folder, task=task), note), shipped
                )
    for model in ("recurrent", "next_frame"):
        for augment, which, note in ((0.0, "", ""), (0.8, "", ""), (0.8, "-clouds", CLOUDS), (0.8, "-seen", SEEN)):
            if ((folder := own.with_name(f"{own.name}-{model}-{augment:g}{which}")) / "config.json").exists():
                told = energy == "pixels" and draws_plain(folder)
                yield planned_alike(Contender(model, augment, energy, load(folder), note, told), shipped)


def planned_alike(one: Contender, shipped: checkpoint.Checkpoint) -> Contender:
    """With the planner of what ships."""
    return replace(one, checkpoint=replace(one.checkpoint, planner=shipped.planner))
