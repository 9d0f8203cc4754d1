"""A recorded episode and how surprising each of its steps is, as one picture."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..actions import ActionSpec
from ..data import EpisodeStore, write_atomically
from ..errors import BadInput
from ..pictures import fit
from ..recordings import takes
from ..surprise import STATES, Thresholds

COLOURS = {"normal": "#2c7a55", "unusual": "#c98a1b", "impossible": "#c8354a"}
FRAMES = 12
"""Pictures below the curve."""


@dataclass(frozen=True)
class Recording:
    """An episode that somebody recorded.

    Attributes:
        frames: its L + 1 pictures, uint8 `[h, w, 3]`, one after the other; a file's can be read once.
        actions: what was done between them, `[L, env_dim]`, physical units.
        title: where it is from.
        shape: height and width of its pictures, pixels.
        task: that it is of; None where the file does not say.
        spec: of its actions; None where the file does not say.
        renderer: rendering backend of its pictures; "" where the file does not say.
    """

    frames: Iterable[np.ndarray]
    actions: np.ndarray
    title: str
    shape: tuple[int, int]
    task: str | None = None
    spec: ActionSpec | None = None
    renderer: str = ""

    def pixels(self, size: int) -> np.ndarray:
        """Its pictures, uint8 `[L + 1, size, size, 3]`, made by `pictures.fit`; no more than that is held at once."""
        pixels = np.empty((len(self.actions) + 1, size, size, 3), np.uint8)
        for picture, frame in zip(pixels, self.frames, strict=True):
            picture[:] = fit(frame, size)
        return pixels


def read_recording(path: Path, episode: int, camera: str | None = None) -> Recording:
    """A row of a dataset's folder, or an episode of a file as `recording_files` has them, seen by `camera`.

    Raises:
        BadInput: if it is neither, has no such episode, or its arrays do not fit each other.
    """
    if path.is_dir():
        store = EpisodeStore.open(path)
        if not 0 <= episode < store.info.episodes:
            expected = f"0 to {store.info.episodes - 1}"
            raise BadInput(f"dataset {path} has no such episode", expected=expected, got=str(episode))
        if episode in store.missing():
            raise BadInput(f"dataset {path}: episode {episode} was not recorded yet")
        pixels, actions = (store.data[key][episode].numpy() for key in ("pixels", "actions"))
        info, title = store.info, f"{store.info.task}, episode {episode} of {path}"
        return Recording(pixels, actions, title, (info.size, info.size), info.task, info.action_spec, info.renderer)
    found = takes(path, camera=camera)
    if not 0 <= episode < len(found):
        expected = f"0 to {len(found) - 1}" if len(found) > 1 else "0: it is one episode"
        raise BadInput(f"{path} has no such episode", expected=expected, got=str(episode))
    title = f"episode {episode} of {path}" if len(found) > 1 else str(path)
    return Recording(found[episode].pictures(), found[episode].actions, title, found[episode].shape)


def write_energy(path: Path, energy: np.ndarray, thresholds: Thresholds) -> tuple[dict[str, int], int | None]:
    """Writes energies and states as JSON, null where nothing was foreseen.

    Returns:
        How many steps are in each state, and the first impossible one.
    """
    states, judged = thresholds.judge(energy), ~np.isnan(energy)
    counts = {name: int((states[judged] == index).sum()) for index, name in enumerate(STATES)}
    first = int((states == 2).argmax()) if counts["impossible"] else None
    content = {
        "energy": [round(float(value), 6) if np.isfinite(value) else None for value in energy],
        "state": [STATES[state] if known else None for state, known in zip(states, judged, strict=True)],
        "first_impossible": first,
        "thresholds": asdict(thresholds),
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")
    return counts, first


def draw_energy(path: Path, title: str, pixels: np.ndarray, energy: np.ndarray, thresholds: Thresholds) -> None:
    """Writes the energy over time above the frames, as PNG.

    Args:
        path: the file to write.
        title: where the recording is from.
        pixels: what was seen, L + 1 frames.
        energy: of every step, `[L + 1]`; NaN where nothing was foreseen.
        thresholds: where the states begin.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1])
    steps, states = np.arange(len(energy)), thresholds.judge(energy)
    upper.plot(steps, energy, color="#55606e", linewidth=1, zorder=1)
    for index, name in enumerate(STATES):
        chosen = (states == index) & np.isfinite(energy)
        upper.scatter(
            steps[chosen], energy[chosen], s=12, color=COLOURS[name], label=f"{name} {chosen.sum()}", zorder=2
        )
    for name in ("unusual", "impossible"):
        upper.axhline(getattr(thresholds, name), color=COLOURS[name], linewidth=1, linestyle=(0, (4, 3)))
    upper.set(yscale="log", ylabel="prediction energy", xlabel="environment step", xlim=(-0.5, len(energy) - 0.5))
    upper.set_title(title, loc="left", fontsize=10)
    upper.spines[["top", "right"]].set_visible(False)
    upper.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0.55, 1.0), fontsize=9)
    shown = np.linspace(0, len(energy) - 1, min(FRAMES, len(energy))).round().astype(int)
    gap = np.full((pixels.shape[1], 2, 3), 255, np.uint8)
    lower.imshow(np.concatenate([part for i in shown for part in (pixels[i], gap)], axis=1), aspect="equal")
    pitch = pixels.shape[2] + 2
    lower.set_xticks([pitch * (i + 0.5) for i in range(len(shown))], [str(step) for step in shown], fontsize=8)
    lower.set_yticks([])
    lower.tick_params(length=0)
    lower.spines[:].set_visible(False)
    FigureCanvasAgg(figure).print_png(str(path))
