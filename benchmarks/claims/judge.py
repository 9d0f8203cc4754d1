"""One rival's weights under nuisance, by the measures of claim 1: what a training is worth before it replaces one.

`python -m benchmarks.claims.judge runs/rivals/tworoom-recurrent-0/checkpoint`; rows are appended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from planner import checkpoint
from planner.errors import BadInput

from .contenders import TASKS, Contender, planned_alike
from .noise import play, settings
from .rows import Rows
from .weights import intact, load


@dataclass(frozen=True)
class Options:
    """Judge weights that `benchmarks.claims.rival` saved, planned by the distance of their latents.

    Attributes:
        weights: folder.
        severities: of the nuisances; undisturbed it is judged in any case.
        episodes: held-out pairs of each.
        out: rows.
    """

    weights: tyro.conf.Positional[Path]
    severities: tuple[int, ...] = (2, 4)
    episodes: int = 40
    out: Path = Path("benchmarks/results/judged.jsonl")


def main(options: Options) -> None:
    """Plays what is missing, and prints what was reached."""
    torch.set_num_threads(1)
    own, config = load(options.weights), intact(options.weights)[0]
    if own.task not in TASKS:
        raise BadInput("judge: no claims are measured there", expected=" or ".join(TASKS), got=own.task)
    training, shipped = config["training"], checkpoint.load(checkpoint.find(own.task, None), task=own.task)
    # Weights of before it was an option had half of the divergence pull either way.
    told = f"pull {training.get('pull', 0.5):g}, {training['steps']} updates, seed {training['seed']}"
    one = planned_alike(Contender(config["kind"], training["augment"], "latent", own, told), shipped)
    report = Rows(options.out)
    for nuisance, severity in settings(options.severities):
        play(one, nuisance, severity, options.episodes, report)
    for row in report.known:
        if row["sha256"] == own.sha256 and row["n"] == options.episodes:
            print(f"{row['nuisance']}, severity {row['severity']}: {row['successes']} of {row['n']}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except BadInput as error:
        raise SystemExit(f"judge: {error}") from None
