"""The same task, looking different: changes of appearance to be measured against.

Collecting never draws them. `training.augment` varies light, colour, grain, discs and shifts too, with other draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from planner.errors import BadInput

from .base import GoalEnv

if TYPE_CHECKING:
    import mujoco


def disguise(env: GoalEnv, appearance: str) -> GoalEnv:
    """Changes how `env` looks from now on, goal pictures included, and nothing of how it moves; returns it.

    Args:
        env: the task.
        appearance: name in `APPEARANCES`.

    Raises:
        BadInput: for an unknown name.
    """
    if appearance not in APPEARANCES:
        raise BadInput("unknown appearance", expected=" or ".join(APPEARANCES), got=repr(appearance))
    APPEARANCES[appearance](env)
    return env


def _background(env: GoalEnv) -> None:
    """Everything that lies still, walls but not bodies, turns bluish."""
    still = env.model.body_weldid[env.model.geom_bodyid] == 0
    env.model.geom_rgba[still, :3] *= [0.75, 0.95, 1.05]
    np.clip(env.model.geom_rgba, 0, 1, out=env.model.geom_rgba)


def _objects(env: GoalEnv) -> None:
    """Everything that moves has another hue: red becomes orange, blue violet, grey brown."""
    moves = env.model.body_weldid[env.model.geom_bodyid] != 0
    colours = env.model.geom_rgba[moves, :3]
    grey = np.ptp(colours, axis=-1, keepdims=True) < 0.01
    turned = 0.65 * colours + 0.35 * np.roll(colours, 1, axis=-1)
    env.model.geom_rgba[moves, :3] = np.where(grey, colours * [1, 0.8, 0.6], turned)


def _lighting(env: GoalEnv) -> None:
    """Two thirds of the light."""
    _draw(env, lambda picture, time: 0.67 * picture)


def _camera(env: GoalEnv) -> None:
    """The camera stands a bit to the side: the scene moves by about one pixel of 64."""
    import mujoco  # not above: `base` settles its GL library first

    camera = env.model.camera(env.view).id
    sideways = np.zeros(9)
    mujoco.mju_quat2Mat(sideways, env.model.cam_quat[camera])
    env.model.cam_pos[camera] += 0.007 * np.linalg.norm(env.model.cam_pos[camera]) * sideways.reshape(3, 3)[:, 0]


def _noise(env: GoalEnv) -> None:
    """Every pixel is off by 10 grey levels or so, anew in each picture."""

    def grain(picture: np.ndarray, time: float) -> np.ndarray:
        rng = np.random.default_rng([round(1e3 * time), int(picture.sum())])  # the same picture has the same grain
        return picture + rng.normal(scale=10, size=picture.shape)

    _draw(env, grain)


def _distractor(env: GoalEnv) -> None:
    """A green disc, a twelfth of the picture wide, goes round before the camera."""
    rows, columns = np.mgrid[: env.size, : env.size] / env.size

    def add(picture: np.ndarray, time: float) -> np.ndarray:
        x, y = 0.5 + 0.35 * np.cos(1.3 * time + 1), 0.5 + 0.35 * np.sin(1.7 * time)
        inside = np.hypot(columns - x, rows - y) < 1 / 24
        return np.where(inside[..., None], [60, 170, 90], picture)

    _draw(env, add)


def _texture(env: GoalEnv) -> None:
    """The floor is chequered: every other square, a sixteenth of the picture wide, is a sixth darker."""
    rows, columns = np.mgrid[: env.size, : env.size] * 16 // env.size
    dark = ((rows + columns) % 2)[..., None] / 6
    _draw(env, lambda picture, time: picture * (1 - dark * floor(picture)))


def floor(picture: np.ndarray) -> np.ndarray:
    """1 where a picture `[size, size, 3]`, 0 to 255, shows what most of it shows, 0 elsewhere, `[size, size, 1]`."""
    codes = (picture // 8).astype(np.int64) @ [1 << 10, 1 << 5, 1]
    most = picture[codes == np.bincount(codes.ravel()).argmax()].mean(0)
    return (np.abs(picture - most).max(-1, keepdims=True) < 24).astype(np.float64)


def _draw(env: GoalEnv, change: Callable[[np.ndarray, float], np.ndarray]) -> None:
    """Passes every picture through `change`, which gets it and the time in seconds."""
    render = env.camera.render

    def changed(data: mujoco.MjData) -> np.ndarray:
        picture = change(render(data).astype(np.float64), data.time)
        return np.clip(picture.round(), 0, 255).astype(np.uint8)

    env.camera.render = changed  # type: ignore[method-assign]


APPEARANCES: dict[str, Callable[[GoalEnv], None]] = {
    "background": _background,
    "objects": _objects,
    "lighting": _lighting,
    "camera": _camera,
    "noise": _noise,
    "distractor": _distractor,
    "texture": _texture,
}
