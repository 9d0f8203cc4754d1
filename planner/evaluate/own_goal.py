"""A goal picture of one's own: read it, check it, plan towards it, film what happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import BadInput
from ..guard import Guard, Limits
from ..mpc import MPC
from ..pictures import UNREADABLE, batch, colours
from .video import Clip, film_strip, write_video


def read_picture(path: Path, size: int) -> np.ndarray:
    """The picture in `path`, uint8 `[size, size, 3]`.

    Raises:
        BadInput: if the file is missing, no image, not `size` x `size` pixels, or has no colours (see `colours`).
    """
    if not path.is_file():
        raise BadInput(f"no goal picture at {path}", do="make one with --save-goal")
    try:
        with Image.open(path) as image:
            width, height = image.size
            if (width, height) == (size, size):
                return colours(image, f"goal picture {path}")
    except BadInput:
        raise
    except UNREADABLE as error:
        raise BadInput(f"goal picture {path} cannot be read", expected="an image file", got=str(error)) from error
    expected, got = f"{size} x {size} pixels", f"{width} x {height}"
    raise BadInput(f"goal picture {path} has another size", expected=expected, got=got, do="render or resize it")


def write_picture(path: Path, env: Any, seed: int) -> None:
    """Draws a random state of `env` and writes its picture to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    observation, _ = env.reset(seed=seed + 1)  # not the start that `film` draws with the same seed
    try:
        Image.fromarray(observation["goal"]).save(path)
    except ValueError as error:
        raise BadInput(f"cannot write {path}", expected="an ending such as .png", got=str(error)) from error


def film(
    env: Any, policy: MPC, goal: np.ndarray, steps: int, seed: int, out: Path, progress: Callable[[int, int], None]
) -> tuple[Path, Path, tuple[float, float]]:
    """Plans towards `goal` for `steps` environment steps from a random start.

    Returns:
        The paths of a video and of a picture, and the latent distance to the goal at the start and at the end.
    """
    out.mkdir(parents=True, exist_ok=True)
    look, _ = env.reset(seed=seed, options={"goal_image": goal})
    guard = Guard(policy, policy.model.action, Limits(survive_errors=False))
    guard.reset(batch(look["pixels"][None]), batch(goal[None]))
    frames = [look["pixels"]]
    for step in range(steps):
        look = env.step(guard.act(batch(look["pixels"][None]))[0])[0]
        frames.append(look["pixels"])
        progress(step + 1, steps)
    ends = (batch(picture[None]) for picture in (frames[0], frames[-1], goal))
    first, last, target = (policy.model.encode(end)["latent"] for end in ends)
    distance = tuple(float((latent - target).square().mean()) for latent in (first, last))
    clip = Clip(np.stack(frames), goal, f"{env.name}, own goal", success=None)
    video, strip = out / "plan.mp4", out / "plan.png"
    write_video(video, [clip])
    film_strip(strip, clip, every=max(1, steps // 5))
    return video, strip, (distance[0], distance[1])
