"""A robot without a simulator, tried in one: recordings of a wide camera become a dataset, a model and a planner, as
`docs/recordings.md` has it, and what came of that is then tried in the task that the recordings are of.

Nothing but files goes from the one to the other: pictures twice as large with a border to either side, actions, and
where episodes end, which are of unequal length. The settings are those of a task that nobody has a recipe for. A row is
appended.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress, track
from tensordict import TensorDict

from planner import checkpoint, training
from planner.actions import ActionSpec
from planner.checkpoint import Checkpoint
from planner.collect import record_episode
from planner.data import EpisodeStore
from planner.evaluate.protocol import NoopPolicy, RandomPolicy, held_out_pairs, play_pairs
from planner.evaluate.statistics import summary
from planner.guard import Guard, Limits
from planner.models.jepa import JEPAConfig
from planner.pictures import fit
from planner.recipes import DEFAULT, planner_for
from planner.recordings import best_length, bounds, gather, takes
from planner.tasks import folder_name, load_envs
from planner.types import Policy

from .claims.rows import Row, Rows

RECORD_STREAM = 9
"""First number of the seeds of what is recorded; no evaluation uses it."""
WIDE = 128, 170
"""Height and width of the camera's pictures, pixels."""
LENGTHS = 60, 220
"""Environment steps of an episode, at least and at most."""
DISTANCE, TOGETHER = 25, 10


@dataclass(frozen=True)
class Options:
    """Learn a task from recordings of it alone, and try it.

    Attributes:
        task: what the recordings are of.
        files: that are recorded.
        episodes: in each.
        steps: updates of the training.
        pairs: held out, 25 steps apart, that it is tried on.
        threads: of the processor.
        folder: of the recordings, the dataset and the run.
        out: rows.
    """

    task: tyro.conf.Positional[str] = "TwoRoom"
    files: int = 10
    episodes: int = 40
    steps: int = DEFAULT.training.steps
    pairs: int = 200
    threads: int = 1
    folder: Path = Path("runs/recorded")
    out: Path = Path("benchmarks/results/recorded.jsonl")


def main(options: Options) -> None:
    """Records, learns, tries, appends the row, and prints it."""
    console, report = Console(), Rows(options.out, fresh=True)
    torch.set_num_threads(options.threads)
    folder = options.folder / folder_name(options.task)
    name = f"recorded/{folder_name(options.task)}"
    paths = recorded(options, folder)
    loaded = learned(name, imported(name, paths, folder), options, folder)
    with load_envs().make(options.task) as env:
        pairs = held_out_pairs(env, options.pairs, DISTANCE, 0).pairs
        low, high = (np.array(end, np.float32) for end in (env.action_spec().low, env.action_spec().high))
    planner = Guard(loaded.planner.build(loaded.model, 0), loaded.model.action, Limits(survive_errors=False))
    judged: dict[str, Policy] = {"random": RandomPolicy(low, high, 0), "noop": NoopPolicy(low, high)}
    judged |= {"planner": Seeing(planner, loaded.model.config.image_size)}
    row: Row = {"task": options.task, "files": len(paths), "episodes": sum(len(takes(path)) for path in paths)}
    row |= {"updates": options.steps, "distance": DISTANCE, "seed": 0, "checkpoint_sha256": loaded.sha256}
    row |= {who: tried(options.task, policy, pairs, who) for who, policy in judged.items()}
    report(row)
    console.print(f"{options.task}, from recordings: {row['planner']['successes']} of {len(pairs)}", highlight=False)


def recorded(options: Options, folder: Path) -> list[Path]:
    """Files of play, as a robot's owner would have them; those that are there are not recorded again."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"log{k:03}.npz" for k in range(options.files)]
    with load_envs().make(options.task, WIDE[0]) as env:
        for k, path in enumerate(track(paths, f"recording {options.task}")):
            if not path.exists():
                save(path, env, options.episodes, k)
    return paths


def save(path: Path, env: Any, episodes: int, number: int) -> None:
    """One file; at the last frame of each episode nothing is done."""
    arrays: dict[str, list[Any]] = {"observations": [], "actions": [], "terminals": []}
    for k in range(episodes):
        rng = np.random.default_rng([RECORD_STREAM, number, k])
        steps = int(rng.integers(*LENGTHS, endpoint=True))
        pixels, actions, _ = record_episode(env, steps, rng)
        arrays["observations"] += [wide(picture) for picture in pixels]
        arrays["actions"] += [*actions, np.zeros_like(actions[0])]
        arrays["terminals"] += [*np.zeros(steps, bool), True]
    whole = path.with_name(f".{path.name}")  # a run that was interrupted leaves no half of a file
    np.savez_compressed(whole, **{key: np.array(value) for key, value in arrays.items()})
    whole.rename(path)


def wide(picture: np.ndarray) -> np.ndarray:
    """A picture with grey borders to either side, `[*WIDE, 3]`."""
    border = (WIDE[1] - WIDE[0]) // 2
    return np.pad(picture, ((0, 0), (border, border), (0, 0)), constant_values=90)


def imported(name: str, paths: list[Path], folder: Path) -> EpisodeStore:
    """What `jepa-mpc import` makes of these files."""
    found = [take for path in paths for take in takes(path)]
    low, high = bounds(found)
    spec = ActionSpec(low, high, ("",) * len(low), 5)
    store = gather(name, found, folder / "data", spec, steps=best_length(found, spec.block))
    store.verify(name)
    return store


def learned(name: str, store: EpisodeStore, options: Options, folder: Path) -> Checkpoint:
    """What `jepa-mpc train` makes of it."""
    config = replace(DEFAULT.training, steps=options.steps)
    model = training.train(store, JEPAConfig(), config, folder / "train", tensorboard=False)
    if model is None:
        raise SystemExit(130)
    planner = planner_for(name, model.config, store.info.block)
    about = {"task": name, "renderer": store.info.renderer, "planner": planner, "card": f"# {name}\n"}
    checkpoint.save(folder / "checkpoint", model, **about)  # type: ignore[arg-type]
    return checkpoint.load(folder / "checkpoint", task=name)


class Seeing:
    """A policy behind a wide camera, whose pictures are made as `import` made its dataset's."""

    def __init__(self, policy: Policy, size: int) -> None:
        self.policy, self.size = policy, size

    def reset(self, obs: TensorDict, goal: TensorDict, mask: np.ndarray | None = None) -> None:
        """As the policy's."""
        self.policy.reset(self._seen(obs), self._seen(goal), mask)

    def act(self, obs: TensorDict) -> np.ndarray:
        """As the policy's."""
        return self.policy.act(self._seen(obs))

    def _seen(self, obs: TensorDict) -> TensorDict:
        pictures = [fit(wide(picture), self.size) for picture in obs["pixels"].numpy()]
        return obs.clone().set("pixels", torch.from_numpy(np.stack(pictures)))


def tried(task: str, policy: Policy, pairs: list[Any], who: str) -> Row:
    """How many of the pairs it reaches within twice the distance."""
    rooms = [load_envs().make(task, WIDE[0]) for _ in range(min(TOGETHER, len(pairs)))]
    with Progress(transient=True) as bars:
        line = bars.add_task(f"{task}, {who}", total=len(pairs))
        episodes = play_pairs(rooms, policy, pairs, 2 * DISTANCE, progress=lambda _: bars.advance(line))
    for room in rooms:
        room.close()
    return summary(sum(episode.success for episode in episodes), len(pairs))


if __name__ == "__main__":
    main(tyro.cli(Options))
