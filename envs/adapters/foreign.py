"""What the adapters share."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np

from planner.errors import BadInput


def require(task: str, package: str, extra: str) -> None:
    """Raises `BadInput` unless `package`, which the optional dependencies `extra` bring, can be imported."""
    if importlib.util.find_spec(package) is None:
        raise BadInput(
            f"{task} needs a package that is not installed", expected=package, do=f"pip install 'jepa-mpc[{extra}]'"
        )


def plain(model: mujoco.MjModel) -> mujoco.MjModel:
    """Makes `model` cheap to draw: no shadows and no multisampling (`Camera` averages); returns it."""
    model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
    return model


@contextmanager
def global_noise(rng: np.random.Generator) -> Iterator[None]:
    """Inside, numpy's global generator, which some packages draw from, follows `rng`; after, it goes on as before."""
    kept = np.random.get_state()
    np.random.seed(int(rng.integers(2**32)))
    try:
        yield
    finally:
        np.random.set_state(kept)


def coarsen(model: mujoco.MjModel, cell: float) -> mujoco.MjModel:
    """Leaves out what is too small to be seen of the meshes that are drawn; returns `model`. Motion does not change.

    Corners in one cube of `cell` metres become one of them, and triangles that vanish or coincide go. Collisions use
    hulls, which stay; rays use the triangles through a tree that still counts the old ones: not for the renderer that
    casts rays.
    """
    for mesh in range(model.nmesh):
        first, corners = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        start, triangles = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        cells = np.floor(model.mesh_vert[first : first + corners] / cell)
        _, chosen, group = np.unique(cells, axis=0, return_index=True, return_inverse=True)
        stands_for = chosen[group.reshape(-1)]
        faces = stands_for[model.mesh_face[start : start + triangles]]
        whole = np.flatnonzero((np.diff(np.sort(faces, -1), axis=-1) > 0).all(-1))
        kept = whole[np.unique(np.sort(faces[whole], -1), axis=0, return_index=True)[1]]
        if len(kept):
            for corner in (model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord):
                if len(corner):
                    corner[start : start + len(kept)] = corner[start + kept]
            model.mesh_face[start : start + len(kept)] = faces[kept]
            model.mesh_facenum[mesh] = len(kept)
    return model
