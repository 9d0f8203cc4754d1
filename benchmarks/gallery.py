"""Films every shipped planner at work, side by side, for the README: `python -m benchmarks.gallery`.

The pairs are the first held-out ones of a seed, whatever becomes of them; by default of one that settings were chosen
on. Planners see 64 pixels; the same states are drawn once more, larger, to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

from planner import checkpoint
from planner.errors import BadInput
from planner.evaluate.protocol import held_out_pairs, play_pairs
from planner.evaluate.video import BACKGROUND, DIM, FAILURE, SUCCESS, TEXT, TILE
from planner.tasks import load_envs

SIDE, GOAL, CAPTION, GAP, BORDER = 160, 80, 24, 8, 3  # px
WIDTH, HEIGHT = SIDE + 2 * BORDER, CAPTION + SIDE + 2 * BORDER + GAP + GOAL  # px of one task
HOLD = 8
"""Frames that a round stands still when all its episodes are over."""
COLOURS = 128


@dataclass(frozen=True)
class Options:
    """Film the shipped planners.

    Attributes:
        tasks: side by side; each needs a shipped checkpoint.
        episodes: one after the other, >= 1.
        distance: environment steps between start and goal, >= 1; an episode may take twice as many.
        every: environment steps from frame to frame, >= 1.
        seed: of the pairs; those that are reported have 0.
        out: the film, a GIF.
    """

    tasks: tuple[str, ...] = ("TwoRoom", "PointMaze", "Reacher", "PushT", "Cube")
    episodes: int = 3
    distance: int = 50
    every: int = 2
    seed: int = 1000
    out: Path = Path("docs/gallery.gif")


@dataclass(frozen=True)
class Take:
    """One episode of one task: its frames and its goal, uint8 `[SIDE, SIDE, 3]` each, and whether it got there."""

    task: str
    frames: list[np.ndarray]
    goal: np.ndarray
    success: bool


def main(options: Options) -> None:
    """Plays, draws, and writes the film."""
    if min(options.episodes, options.distance, options.every) < 1 or not options.tasks:
        got = f"{options.episodes}, {options.distance}, {options.every} and {len(options.tasks)} tasks"
        raise BadInput("gallery: options are off", expected="a task, and episodes, distance, every >= 1", got=got)
    takes = [film(task, options) for task in track(options.tasks, "filming")]
    shots = [shot for round_ in zip(*takes, strict=True) for shot in side_by_side(round_)]
    palette = montage(shots).quantize(COLOURS)  # one for all: what stands still then costs nothing
    pictures = [shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot in shots]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(options.out, save_all=True, append_images=pictures[1:], duration=100, loop=0, optimize=True)
    print(f"{options.out}: {len(pictures)} frames, {options.out.stat().st_size / 1e6:.1f} MB")


def film(task: str, options: Options) -> list[Take]:
    """Plays the first pairs of a task, and draws every few states of each anew."""
    envs = load_envs()
    loaded = checkpoint.load(checkpoint.find(task, None), task=task)
    env, canvas = envs.make(task), envs.make(task, size=SIDE)
    pairs = held_out_pairs(env, options.episodes, options.distance, options.seed).pairs
    policy = loaded.planner.build(loaded.model, options.seed)
    played = play_pairs([env], policy, pairs, 2 * options.distance, film=lambda _: True)
    takes = []
    for pair, episode in zip(pairs, played, strict=True):
        states = [*episode.states[: -1 : options.every], episode.states[-1]]
        takes.append(
            Take(task, [canvas.picture(state) for state in states], canvas.picture(pair.goal), episode.success)
        )
    env.close()
    canvas.close()
    return takes


def side_by_side(takes: Sequence[Take]) -> list[Image.Image]:
    """The pictures of a round: all tasks side by side, each standing still where it ended."""
    length = max(len(take.frames) for take in takes) + HOLD
    shots = []
    for step in range(length):
        shot = Image.new("RGB", (len(takes) * (WIDTH + GAP) + GAP, HEIGHT + 2 * GAP), BACKGROUND)
        for i, take in enumerate(takes):
            shot.paste(tile(take, step), (GAP + i * (WIDTH + GAP), GAP))
        shots.append(shot)
    return shots


def tile(take: Take, step: int) -> Image.Image:
    """One task at one step: its name, the camera in a frame that tells how it ended, and the goal."""
    over = step >= len(take.frames) - 1
    outcome, words = (SUCCESS, "reached") if take.success else (FAILURE, "not reached")
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((BORDER, CAPTION / 2 - 2), take.task, fill=TEXT, font=ImageFont.load_default(15), anchor="lm")
    draw.rectangle((0, CAPTION, WIDTH - 1, CAPTION + SIDE + 2 * BORDER - 1), fill=outcome if over else TILE)
    picture.paste(Image.fromarray(take.frames[min(step, len(take.frames) - 1)]), (BORDER, CAPTION + BORDER))
    top = HEIGHT - GOAL
    picture.paste(Image.fromarray(take.goal).resize((GOAL, GOAL), Image.Resampling.BOX), (BORDER, top))
    small = ImageFont.load_default(13)
    draw.text((BORDER + GOAL + GAP, top + 2), "goal", fill=DIM, font=small)
    if over:  # a word beside the colour: red and green look alike to some eyes
        draw.text((BORDER + GOAL + GAP, top + 20), words.replace(" ", "\n"), fill=outcome, font=small)
    return picture


def montage(shots: Sequence[Image.Image], most: int = 12) -> Image.Image:
    """Some of the pictures, one above the other."""
    return Image.fromarray(np.vstack([np.asarray(shot) for shot in shots[:: max(1, len(shots) // most)]]))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"gallery: {error}") from None
