"""Pictures from a simulation on any machine: EGL, else OSMesa, else rays cast by MuJoCo, which need no GL at all.

MuJoCo decides on its GL library when it is imported, so `choose_backend` runs before that import and tries each library
in a process of its own. Our scenes are unlit and drawn at twice the size, then averaged: so the renderers agree but for
a few pixels at edges, and edges carry sub-pixel positions.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import weakref
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from planner.errors import BadInput

if TYPE_CHECKING:
    import mujoco

VARIABLE = "JEPA_MPC_RENDERER"
"""Environment variable that forces a backend; the choice made is stored in it too, so that child processes agree."""

_TRIED = "JEPA_MPC_RENDERER_TRIED"
"""Environment variable that holds the choice made, as one that drew: child processes do not try it again."""

BACKENDS = ("egl", "osmesa", "cgl", "wgl", "rays")
SUPERSAMPLE = 2
SHOWN = (1, 1, 1, 0, 0, 0)
"""Which groups of geoms are drawn, as MuJoCo's own renderer has it: 3 to 5 are for shapes that only collide."""

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/><camera name="c" pos="0 0 5"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data, "c")
    picture = renderer.render()
raise SystemExit(0 if picture.max() > 0 else 1)
"""


def _candidates() -> tuple[str, ...]:
    if sys.platform == "darwin":
        return ("cgl", "rays")
    if sys.platform == "win32":
        return ("wgl", "rays")
    return ("egl", "osmesa", "rays")


def works(backend: str) -> bool:
    """Whether `backend` draws a picture that is not black, tried in a fresh process; casting rays always works."""
    if backend == "rays":
        return True
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)
    try:
        probe = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def _headless() -> bool:
    """Whether MuJoCo, which was not told what to draw with, asks for a display that is not there."""
    return sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)


@cache
def choose_backend() -> str:
    """The first backend that works, or the one that `JEPA_MPC_RENDERER` or `MUJOCO_GL` names; stays for the process.

    Raises:
        BadInput: if the named backend is unknown or draws nothing, or MuJoCo was imported with another one.
    """
    named = os.environ.get(VARIABLE)
    if named is None and os.environ.get("MUJOCO_GL") in BACKENDS:
        named = os.environ["MUJOCO_GL"]
    if named is not None and named not in BACKENDS:
        raise BadInput(f"{VARIABLE}: unknown renderer", expected=" or ".join(BACKENDS), got=named)
    chosen = named or next(backend for backend in _candidates() if works(backend))
    if chosen != "rays":
        was = os.environ.get("MUJOCO_GL") or ("" if _headless() else chosen)
        if "mujoco" in sys.modules and was != chosen:
            how = f"with MUJOCO_GL={was}" if was else "before it was told what to draw with"
            raise BadInput(f"MuJoCo was imported {how}", expected=chosen, do="import envs before mujoco")
        if named not in (None, os.environ.get(_TRIED)) and not works(chosen):
            raise BadInput(
                f"the renderer {named} draws nothing here",
                expected=" or ".join(backend for backend in _candidates() if works(backend)),
                do=f"unset {VARIABLE if VARIABLE in os.environ else 'MUJOCO_GL'}, and one that works is chosen",
            )
        os.environ["MUJOCO_GL"] = chosen
    elif os.environ.get("MUJOCO_GL", "rays") == "rays":  # MuJoCo knows no such library
        os.environ["MUJOCO_GL"] = "disable"
    os.environ[VARIABLE] = os.environ[_TRIED] = chosen
    return chosen


def dress(model: mujoco.MjModel) -> None:
    """Writes the colour of a geom's material into the geom, where MuJoCo shows it: where the geom has none of its own.

    Rays and changes of appearance look there alone. Textures stay with the material, and rays do not show them.
    """
    dressed = (model.geom_matid >= 0) & (model.geom_rgba == np.array([0.5, 0.5, 0.5, 1], np.float32)).all(-1)
    model.geom_rgba[dressed] = model.mat_rgba[model.geom_matid[dressed]]


class Camera:
    """Draws one model through one of its cameras.

    Args:
        model: the MuJoCo model; its camera `name` looks at the scene in perspective.
        size: height and width of the pictures in pixels, 8 to 1024.
        name: camera in the model.
        backend: one of `BACKENDS`; by default the process's.
    """

    def __init__(self, model: mujoco.MjModel, size: int, name: str = "top", backend: str | None = None) -> None:
        if not 8 <= size <= 1024:
            raise BadInput("image size is off", expected="8 to 1024 pixels", got=str(size))
        self.backend = backend or choose_backend()
        self.size = size
        fine = size * SUPERSAMPLE
        self._draw = _Rays(model, fine, name) if self.backend == "rays" else _Rasterizer(model, fine, name)

    def render(self, data: mujoco.MjData) -> np.ndarray:
        """The picture of `data`, uint8 `[size, size, 3]`; call `mj_forward` first, or it lags by one physics step."""
        fine = self._draw(data).astype(np.uint16)
        rows = fine[0::2] + fine[1::2]
        return ((rows[:, 0::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)

    def close(self) -> None:
        """Frees the GL context, if there is one."""
        self._draw.close()


class _Rasterizer:
    """OpenGL through `mujoco.Renderer`, with one buffer reused."""

    def __init__(self, model: mujoco.MjModel, size: int, name: str) -> None:
        import mujoco

        model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
        model.vis.global_.offheight = max(model.vis.global_.offheight, size)
        self._renderer = mujoco.Renderer(model, size, size)
        self._name = name
        self._buffer = np.empty((size, size, 3), np.uint8)
        _close_at_exit(self)

    def __call__(self, data: mujoco.MjData) -> np.ndarray:
        self._renderer.update_scene(data, self._name)
        self._renderer.render(out=self._buffer)
        return self._buffer

    def close(self) -> None:
        # MuJoCo frees its GL objects by number, in whichever context is current then. EGL has none left at that point;
        # under OSMesa it would be that of another camera, which goes black.
        context = getattr(self._renderer, "_gl_context", None)
        if context is not None and os.environ.get("MUJOCO_GL") == "osmesa":
            context.make_current()
        self._renderer.close()

    def __del__(self) -> None:
        if hasattr(self, "_renderer"):
            self.close()


_open_rasterizers: weakref.WeakSet[_Rasterizer] = weakref.WeakSet()


def _close_at_exit(rasterizer: _Rasterizer) -> None:
    """Closes `rasterizer` before the GL library ends: a context that outlives it prints tracebacks when it goes.

    MuJoCo ends EGL from an exit hook that it registers with the first context, and so does dm_control when it is
    imported; hooks run last in, first out, so ours has to be registered after those, anew with each camera.
    """
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    _open_rasterizers.add(rasterizer)


def _close_all() -> None:
    for rasterizer in list(_open_rasterizers):
        rasterizer.close()


class _Rays:
    """One ray a pixel through `mj_multiRay`; the colour of a pixel is that of the geom it hits."""

    def __init__(self, model: mujoco.MjModel, size: int, name: str) -> None:
        self._model = model
        self._camera = model.camera(name).id
        half = np.tan(np.deg2rad(model.cam_fovy[self._camera]) / 2)
        across = ((np.arange(size) + 0.5) / size * 2 - 1) * half
        x, y = np.meshgrid(across, -across)
        directions = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3)
        self._directions = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        self._size = size

    def __call__(self, data: mujoco.MjData) -> np.ndarray:
        import mujoco

        n = self._size**2
        geoms, distances = np.full(n, -1, np.int32), np.empty(n)
        world = self._directions @ data.cam_xmat[self._camera].reshape(3, 3).T
        mujoco.mj_multiRay(
            m=self._model,
            d=data,
            pnt=data.cam_xpos[self._camera],
            vec=np.ascontiguousarray(world).reshape(-1),
            geomgroup=np.array(SHOWN, np.uint8),
            flg_static=1,
            bodyexclude=-1,
            geomid=geoms,
            dist=distances,
            nray=n,
            cutoff=mujoco.mjMAXVAL,
            **({"normal": None} if "normal" in (mujoco.mj_multiRay.__doc__ or "") else {}),
        )
        # Now and not before: colours may change. The last row is hit by rays that miss.
        colours = np.vstack([self._model.geom_rgba[:, :3], np.zeros(3)])
        return (colours * 255 + 0.5).astype(np.uint8)[geoms].reshape(self._size, self._size, 3)

    def close(self) -> None:
        pass
