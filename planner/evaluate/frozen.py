"""A task's protocol, frozen in a file: what to evaluate, the very pairs that are played, and their digest.

Pairs follow from seeds, but also from the simulator, the play policy and the task's rule, and where play holds things
between fingers even from how a processor rounds: the same seeds then give other pairs, and a rate is no longer
comparable. So a protocol keeps its pairs, in a file beside it; where that file is missing the digest still notices.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import write_atomically
from ..errors import BadInput
from .protocol import STANDARD, STRICT, Pair, Pairs, held_out_pairs

if TYPE_CHECKING:
    from .run import Protocol

EPISODES, SEED = 200, 0
COLUMNS: dict[str, dict[str, Any]] = {
    "25": {"distance": 25},
    "50": {"distance": 50},
    "100": {"distance": 100},
    "any": {"distance": 100, "goals": "any"},
    "strict": {"distance": 50, "strict": True},
}
"""What is measured of every task of ours, as options of an evaluation."""
OWN: dict[str, dict[str, Any]] = {"own": {"goals": "own", "distance": 0}}
"""What is measured of a benchmark that lists goals itself; distance is not read then."""
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
"""Lengths of the list of pairs that have a digest, so that a shorter evaluation is held to it too."""
DIGITS = 4
"""Decimals of a state that count: a tenth of a millimetre, 0.006 degrees. What rounding differs in is no other pair."""


@dataclass(frozen=True)
class Column:
    """One way to choose and judge pairs.

    Attributes:
        distance: D, environment steps between start and goal; with goals "any" it sets the budget only, and with "own"
            it is 0 and not read.
        goals: "play", "any" or "own", as in an evaluation.
        strict: half the tolerance, kept for five steps.
        budget: environment steps an episode may take.
        solved: pairs left out on the way to the last one because they are solved at the start.
        ruled_out: pairs left out because of the task's rule.
        digests: of the first so many pairs.
    """

    distance: int
    goals: str
    strict: bool
    budget: int
    solved: int
    ruled_out: int
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Frozen:
    """A protocol of one task.

    Attributes:
        task: its name.
        version: a whole number, 1 for the first.
        seed: of the lists of pairs.
        episodes: pairs a column.
        pair_rule: which pairs count, in words.
        standard: tolerances, and environment steps in a row that they have to be kept.
        strict: the same where it is strict.
        columns: by name.
    """

    task: str
    version: int
    seed: int
    episodes: int
    pair_rule: str
    standard: Mapping[str, float]
    strict: Mapping[str, float]
    columns: Mapping[str, Column]

    @property
    def name(self) -> str:
        """Such as "TwoRoom-v1"."""
        return f"{self.task}-v{self.version}"

    def column(self, protocol: Protocol) -> str | None:
        """The name of the column that an evaluation is of; None where it is of none."""
        wanted = (protocol.goals, 0 if protocol.goals == "own" else protocol.distance, protocol.strict)
        like = (name for name, one in self.columns.items() if (one.goals, one.distance, one.strict) == wanted)
        return next(like, None)

    def check(self, protocol: Protocol, pairs: Sequence[Pair], env: Any) -> dict[str, Any]:
        """How an evaluation stands to this protocol, for `results.json`.

        Returns:
            `name`; `column`, None where there is none like it; `n` pairs `of` those that it has; `digest` of the pairs
            that were played; `same_pairs`, whether it is that of the frozen ones, None where the two are not to be
            compared; and `departs`, in words what is not as frozen, empty where all is.
        """
        column, departs = self.column(protocol), []
        if column is None:
            wanted = {"distance": protocol.distance, "goals": protocol.goals, "strict": protocol.strict}
            departs.append(f"it has no column with {', '.join(f'{key} {value}' for key, value in wanted.items())}")
        if protocol.seed != self.seed:
            departs.append(f"seed {protocol.seed} in place of {self.seed}")
        if len(pairs) > self.episodes:
            departs.append(f"{len(pairs)} pairs in place of {self.episodes}")
        found = digests(pairs)
        same = None
        if column is not None and not departs:
            frozen = self.columns[column]
            count = max(int(count) for count in frozen.digests if int(count) <= len(pairs))
            same = found[count] == frozen.digests[str(count)]
            departs += self._moved(frozen, protocol, same, env, pairs)
        names = {"name": self.name, "column": column, "n": len(pairs), "of": self.episodes}
        return names | {"digest": found[len(pairs)], "same_pairs": same, "departs": departs}

    def _moved(self, column: Column, protocol: Protocol, same: bool, env: Any, pairs: Sequence[Pair]) -> list[str]:
        """What the code does otherwise than when this was frozen."""
        judge, frozen = (STRICT, self.strict) if column.strict else (STANDARD, self.standard)
        budget = protocol.budget(env)
        moved = {
            "what counts as reached is judged otherwise": asdict(judge) != dict(frozen),
            f"budget {budget} in place of {column.budget}": budget != column.budget,
            "the rule for pairs is another": env.pair_rule != self.pair_rule,
            "the pairs are others (the simulator, the processor, the play policy or the rule)": not same,
            # Kept pairs are the same whatever the task has become since: what counts as near, for one.
            "some pairs are none by now (the task's tolerance or rule changed)": not all(
                env.goal_distance(pair.start, pair.goal) > 1 and env.counts(pair.start, pair.goal) for pair in pairs
            ),
        }
        return [words for words, other in moved.items() if other]


def kept_pairs(frozen: Frozen, protocol: Protocol, folder: Path) -> Pairs | None:
    """The pairs that a frozen protocol keeps for an evaluation, whatever the simulator would make of their seeds.

    Returns:
        None where it keeps none for it: no file, no column with that distance (random states have none), another seed,
        or more pairs than there are.

    Raises:
        BadInput: the file is broken, or its pairs are not those that were frozen.
    """
    path = pairs_path(frozen, folder)
    like = (one for one in frozen.columns.values() if one.goals == protocol.goals)
    column = next((one for one in like if one.goals != "play" or one.distance == protocol.distance), None)
    fits = protocol.seed == frozen.seed and protocol.episodes <= frozen.episodes
    if column is None or not fits or not path.exists():
        return None
    try:
        every = _read_pairs(column, path)
    except Exception as error:  # a damaged zip file raises half a dozen kinds
        raise BadInput(f"pairs of protocol {path} are broken", got=repr(error), do="restore the file") from None
    found, counts = digests(every.pairs), (every.solved, every.ruled_out)
    same = all(found.get(int(count)) == digest for count, digest in column.digests.items())
    if not same or counts != (column.solved, column.ruled_out):
        raise BadInput(f"pairs of protocol {path} are others", expected="those that were frozen", do="restore the file")
    left_out = every.left_out[: protocol.episodes]
    return Pairs(every.pairs[: protocol.episodes], *left_out[-1], left_out)


def _read_pairs(column: Column, path: Path) -> Pairs:
    with np.load(path) as file:
        starts, goals, counts = (file[_kept_as(column, part)] for part in ("start", "goal", "left_out"))
    left_out = [(int(solved), int(ruled_out)) for solved, ruled_out in counts]
    pairs = [Pair(start, goal) for start, goal, _ in zip(starts, goals, left_out, strict=True)]
    return Pairs(pairs, *left_out[-1], left_out)


def pairs_path(frozen: Frozen, folder: Path) -> Path:
    """Where a protocol keeps its pairs: arrays of NumPy, beside it."""
    return folder / f"{_stem(frozen.task)}-v{frozen.version}.npz"


def _stem(task: str) -> str:
    """What the files of a task's protocols begin with: "ogbench/cube-single" gives "ogbench-cube-single"."""
    return task.replace("/", "-")


def _kept_as(column: Column, part: str) -> str:
    """Name of an array in the file of pairs; columns that play the same pairs share it."""
    return f"{column.goals}-{column.distance}/{part}"


def digests(pairs: Iterable[Pair]) -> dict[int, str]:
    """SHA-256 of the first 1, 2, 3, ... pairs, their states rounded to `DIGITS` decimals; by how many."""
    so_far, found = hashlib.sha256(), {}
    for count, pair in enumerate(pairs, 1):
        for state in (pair.start, pair.goal):
            rounded = np.round(np.asarray(state, np.float64), DIGITS) + 0.0  # no -0
            so_far.update((",".join(f"{number:.{DIGITS}f}" for number in rounded) + "\n").encode())
        found[count] = so_far.hexdigest()
    return found


def freeze(
    env: Any, version: int = 1, seed: int = SEED, episodes: int = EPISODES
) -> tuple[Frozen, dict[str, np.ndarray]]:
    """The protocol of the task `env` as it is now, and the arrays of its file of pairs.

    Its columns are `COLUMNS`, or `OWN` where the task is of a benchmark that lists goals itself.
    """
    columns: dict[str, Column] = {}
    kept_arrays: dict[str, np.ndarray] = {}
    for name, options in (OWN if env.own_goals else COLUMNS).items():
        goals, distance = options.get("goals", "play"), options["distance"]
        pairs = held_out_pairs(env, episodes, distance if goals == "play" else None, seed, own=goals == "own")
        every = digests(pairs.pairs)
        kept = {str(count): every[count] for count in COUNTS if count <= episodes}
        strict = options.get("strict", False)
        budget = env.own_budget if goals == "own" else 2 * distance
        column = Column(distance, goals, strict, budget, pairs.solved, pairs.ruled_out, kept)
        columns[name] = column
        kept_arrays |= {
            _kept_as(column, "start"): np.stack([pair.start for pair in pairs.pairs]),
            _kept_as(column, "goal"): np.stack([pair.goal for pair in pairs.pairs]),
            _kept_as(column, "left_out"): np.array(pairs.left_out),
        }
    judges = asdict(STANDARD), asdict(STRICT)
    return Frozen(env.name, version, seed, episodes, env.pair_rule, *judges, columns), kept_arrays


def versions_of(task: str, folder: Path) -> list[int]:
    """The versions of a task's protocol in `folder`, oldest first."""
    stem = _stem(task)
    found = [path.stem.removeprefix(f"{stem}-v") for path in folder.glob(f"{stem}-v*.json")]
    return sorted(int(version) for version in found if version.isdigit())


def read(task: str, folder: Path) -> Frozen | None:
    """The newest protocol of a task in `folder`; None where it has none; `BadInput` if the file is broken."""
    if not (known := versions_of(task, folder)):
        return None
    path = folder / f"{_stem(task)}-v{known[-1]}.json"
    try:
        raw = json.loads(path.read_text())
        columns = {name: Column(**column) for name, column in raw.pop("columns").items()}
        return Frozen(**raw, columns=columns)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"protocol {path} is broken", got=str(error), do="restore the file") from None


def write(frozen: Frozen, folder: Path, pairs: dict[str, Any] | None = None) -> Path:
    """Writes a protocol into `folder`, with the arrays of its pairs if given, and returns its path."""
    path = pairs_path(frozen, folder).with_suffix(".json")
    folder.mkdir(parents=True, exist_ok=True)
    if pairs is not None:
        packed = io.BytesIO()
        np.savez_compressed(packed, **pairs)
        write_atomically(pairs_path(frozen, folder), packed.getvalue())
    write_atomically(path, json.dumps(asdict(frozen), indent=1) + "\n")  # last: with it the protocol is there
    return path
