"""What the cards of checkpoints and encoders say: data, command, and figures read off the logs of the training."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from .data import EpisodeStore, split_rows
from .models.encoders import BUILT_IN
from .models.jepa import JEPAConfig
from .pretrained import Pretrained
from .settings import TrainConfig
from .versions import commit, versions


def curves(out: Path, kinds: tuple[str, ...] = ("val/", "probe/")) -> dict[int, dict[str, float]]:
    """The figures of a run by step, over all its resumptions (each logs to a file of its own).

    Where one begins at an earlier step than the last ended, what that one had found beyond it is gone. `kinds` are what
    the figures' names begin with: validation's by default.
    """
    checks: dict[int, dict[str, float]] = {}
    for log in sorted((out / "logs").glob("**/metrics.csv"), key=lambda file: file.stat().st_mtime):
        with log.open() as file:
            rows = list(csv.DictReader(file))
        begins = int(rows[0]["step"]) if rows else math.inf
        checks = {step: figures for step, figures in checks.items() if step <= begins}
        for row in rows:
            figures = {key: value for key, value in row.items() if value and key.startswith(kinds)}
            if figures:
                # A step that is checked has two rows: training's and validation's.
                found = checks.setdefault(int(row["step"]) + 1, {})
                found.update({key: float(value) for key, value in figures.items()})
    return checks


def polish_card(
    stores: Sequence[EpisodeStore], config: TrainConfig, out: Path, encoder: str, command: str, new: JEPAConfig | None
) -> str:
    """What a card says of a polishing: data, command, and how well the predictor foresees held-out windows.

    `new` is the model's shape where its predictor started afresh.
    """
    predictor = f", new ({new.predictor}, {new.depth} x {new.hidden})" if new else ""
    checks = curves(out)
    lines = [
        "## Polished further",
        "",
        f"The predictor alone{predictor}, {config.steps} updates of {config.batch} windows, {config.horizon} steps",
        f"ahead, from the weights {encoder[:12]}, on {_sets(stores, config)}, in equal shares: `{command}`.",
        "",
        "| held-out figure | first check | last check |",
        "|---|---|---|",
    ]
    if checks:
        first, last = checks[min(checks)], checks[max(checks)]
        lines += [
            f"| {key.removeprefix('val/')} | {first[key]:.3f} | {last[key]:.3f} |" for key in last if "error" in key
        ]
    return "\n".join([*lines, ""])


def prior_card(stores: Sequence[EpisodeStore], shape: JEPAConfig, config: TrainConfig, out: Path, command: str) -> str:
    """What a card says of an action prior that was added later."""
    ends = [f"{end:.3f}" for end in _ends(out / "prior", "val/prior")]
    hurry = f", haste {config.prior_haste}" if config.prior_haste else ""
    past = ", and what was done before is seen" if shape.prior_past else ""
    return "\n".join(
        [
            "## Action prior",
            "",
            f"{config.prior_steps} updates on {_sets(stores, config)}, goals up to {config.prior_reach} model steps"
            f" ahead, plans of {shape.prior_horizon}{hurry}{past}: `{command}`.",
            f"Held-out error of the flow, first and last check: {' and '.join(ends)}.",
            "",
        ]
    )


def temporal_card(
    stores: Sequence[EpisodeStore], shape: JEPAConfig, config: TrainConfig, out: Path, command: str
) -> str:
    """What a card says of a temporal distance that was added later."""
    ends = [f"{end:.2f}" for end in _ends(out / "temporal", "val/temporal_near")]
    return "\n".join(
        [
            "## Temporal distance",
            "",
            f"{config.temporal_steps} updates of a head of {shape.temporal} features on {_sets(stores, config)},"
            f" gaps of up to {config.temporal_reach} steps taught as they are: `{command}`.",
            f"Held-out error of these gaps, first and last check: {' and '.join(ends)} steps.",
            "",
        ]
    )


def slow_card(stores: Sequence[EpisodeStore], shape: JEPAConfig, config: TrainConfig, out: Path, command: str) -> str:
    """What a card says of slow features that were added later."""
    median, mean = (
        [f"{end:.4f}" for end in _ends(out / "slow", f"val/slow_{name}")[-1:]] for name in ("median", "mean")
    )
    return "\n".join(
        [
            "## Slow features",
            "",
            f"{config.slow_steps} updates of a head of {shape.slow} features on {_sets(stores, config)}: `{command}`.",
            f"Their held-out mean square change in a model step: {''.join(mean)} on average, {''.join(median)} in the"
            " median step (a feature has variance 1).",
            "",
        ]
    )


def lies_still(out: Path) -> bool:
    """Whether the slow features trained in `out` change less than half as much in the median step as on average.

    True where the curves are gone: nothing is known against it.
    """
    median, mean = (_ends(out / "slow", f"val/slow_{name}")[-1:] for name in ("median", "mean"))
    return all(middle < 0.5 * average for middle, average in zip(median, mean, strict=True))


def by_heart(out: Path) -> str:
    """Held-out errors, last and least, of an action prior trained in `out` that learned plans by heart.

    Empty where the last is within a twentieth of the least, and where the curves are gone.
    """
    errors = {step: found["val/prior"] for step, found in curves(out / "prior").items()}
    least = min(errors, key=errors.__getitem__, default=0)
    if not errors or (last := errors[max(errors)]) <= 1.05 * errors[least]:
        return ""
    return f"held-out error {last:.3f}, after {errors[least]:.3f} at update {least}"


def looks_card(
    store: EpisodeStore,
    shape: JEPAConfig,
    config: TrainConfig,
    out: Path,
    start: str,
    command: str,
    apart: float | None = None,
    teacher: str | None = None,
) -> str:
    """What a card says of an encoder that was taught looks; up to `apart` the halves of a joined one agree since."""
    checks = curves(out)
    last = checks[max(checks)] if checks else {}
    ways = (", things repainted" if config.repaint else "") + (", shifted" if config.shift else "")
    ways += ", clouds on their floor" if config.backdrop else ""
    owner, rows = f"the weights {teacher[:12]}" if teacher else "the encoder", []
    if {"val/plain", "val/varied", "val/untaught"} <= set(last):
        rows = [f"| plain | 0 | {last['val/plain']:.3f} |"]
        rows += [f"| varied | {last['val/untaught']:.3f} | {last['val/varied']:.3f} |"]
    return "\n".join(
        [
            "## Sees through looks",
            "",
            f"The encoder ({shape.encoder}) alone, {config.steps} updates of {config.batch} pictures of"
            f" {store.info.episodes} episodes of"
            f" {store.info.policy} (seed {store.info.seed}), looks varied by {config.augment}{ways},"
            f" from the weights {start[:12]}: `{command}`.",
            f"Mean square distance to the latent that {owner} had for the plain picture (a feature has variance 1):",
            "",
            f"| held-out pictures | {'these' if teacher else 'before'} | after |",
            "|---|---|---|",
            *rows,
            "",
            *([f"It is joined; its halves agree up to a mean square distance of {apart:.3f} since."] if apart else []),
        ]
    )


def join_card(store: EpisodeStore, found: dict[str, float], taught: str, weights: str, command: str) -> str:
    """What a card says of an encoder joined with a taught one of these `weights`, whose own card `taught` is."""
    sections = [section for section in taught.split("\n## ") if section.startswith("Sees through looks")]
    story = f"## {sections[-1].split('<!--')[0].rstrip()}" if sections else ""  # of the encoder, and of nothing else
    return "\n".join(
        [
            *([story, ""] if story else []),
            "## Joined",
            "",
            f"Pictures on which the encoder as it was and the one of the weights {weights[:12]} agree, to a mean square"
            f" distance of {found['apart']:.3f}, have the former's latent, all others the latter's: `{command}`.",
            f"Of held-out pictures of {store.info.policy} (seed {store.info.seed}) they agree on"
            f" {100 * found['plain']:.1f} % of the plain ones and on {100 * found['varied']:.1f} % of varied ones.",
            "",
        ]
    )


LEGEND = {
    "success": "`success`: share of held-out goals that the planner reached with the model as it was then, by the plain"
    " latent distance.",
    "temporal_near": "`temporal_near`: error of the steps between two frames that are few steps apart, model steps.",
    "prior": "`prior`: error of the flow from noise to the plans of play; 1 or more where it knows nothing.",
    "slow_median": "`slow_median`: mean square change of the slow features in the median model step; far below"
    " `slow_mean`, the average, where things lie still most of the time.",
}
"""What a card says of figures that not every training has."""


def pretrained_card(store: EpisodeStore, shape: JEPAConfig, story: str, out: Path, command: str) -> str:
    """What the card of an encoder says that `pretrain` trained, as `story` tells it."""
    checks = curves(out)
    last = checks[max(checks)] if checks else {}
    return "\n".join(
        [
            f"# An encoder for {store.info.task}",
            "",
            f"{shape.encoder}, {shape.image_size} pixels, width {shape.width}, {shape.latent_dim} features;"
            f" {story}: `{command}`.",
            "",
            "| held-out figure | value |",
            "|---|---|",
            *(f"| {key.removeprefix('val/')} | {value:.3f} |" for key, value in sorted(last.items())),
            "",
            "`masked`: error of the latent guessed from what is left of a picture, relative to guessing the mean.",
            "",
        ]
    )


def _origin(shape: JEPAConfig, config: TrainConfig, start: Pretrained | None) -> str:
    """Where a JEPA's encoder is from, as its card says it."""
    stays = "it was left as it is" if config.freeze else "it learned on with the predictor"
    if start:
        return f"Its encoder ({start.sha256[:12]}) was {start.story}; {stays}."
    if shape.encoder not in BUILT_IN:
        return f"Its encoder, `{shape.encoder}`, is somebody else's; {stays}."
    return "Nothing was pretrained."


def pretrained_story(store: EpisodeStore, config: TrainConfig) -> str:
    """One sentence about an encoder that `pretrain` trained."""
    how = f"{config.steps} updates of {config.batch}"
    return f"trained on pictures of {store.info.task}, {_sets([store])}, with {config.masked:.0%} of each hidden, {how}"


def card(
    store: EpisodeStore, shape: JEPAConfig, config: TrainConfig, out: Path, command: str, start: Pretrained | None
) -> str:
    """A checkpoint's `card.md`: what it was trained on and how, from which encoder, and its last validation figures."""
    checks = curves(out)
    last = checks[max(checks)] if checks else {}
    figures = [(f"{key.removeprefix('val/')}", value) for key, value in sorted(last.items())]
    if config.polish_steps and (polished := curves(out / "polish")):
        ahead = polished[max(polished)].items()
        figures += [(f"{key.removeprefix('val/')}, polished", value) for key, value in ahead if "error" in key]
    for stage in ("temporal", "prior", "slow"):
        later = curves(out / stage) if getattr(shape, stage) else {}  # what was added later has a card of its own
        figures += [(key.removeprefix("val/"), value) for key, value in later.get(max(later, default=0), {}).items()]
    info = store.info
    lines = [
        f"# {info.task}",
        "",
        f"A JEPA for the task {info.task}, trained on episodes of {info.policy}. {_origin(shape, config, start)}",
        "",
        "| | |",
        "|---|---|",
        f"| data | {info.episodes} episodes of {info.steps} steps, {len(split_rows(info, config.held_out)[1])} of them"
        f" held out, seed {info.seed}, renderer {info.renderer}{_shown(config)} |",
        f"| command | `{command}` |",
        f"| training | {config.steps} updates of {config.batch} windows of {shape.history + config.horizon} frames |",
        f"| polishing | {config.polish_steps} updates of the predictor, {config.polish_horizon} steps ahead |",
        f"| temporal distance | {config.temporal_steps if shape.temporal else 0} updates of its head |",
        f"| action prior | {config.prior_steps if shape.prior else 0} updates |",
        f"| slow features | {config.slow_steps if shape.slow else 0} updates of their head |",
        f"| commit | {commit()} |",
        f"| versions | {', '.join(f'{name} {value}' for name, value in versions().items())} |",
        "",
        f"Validation, {len(checks)} checks, the last one at step {max(checks, default=0)}:",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {name} | {value:.3f} |" for name, value in figures),
        "",
        "`error_k`: error of a prediction k model steps ahead, relative to predicting no change. `probe/...`: R2 of a",
        "linear read-out of that physical quantity from one frame's latent (speeds are not in one frame).",
        *(text for name, text in LEGEND.items() if name in dict(figures)),
        "",
    ]
    return "\n".join(lines)


def _sets(stores: Sequence[EpisodeStore], config: TrainConfig | None = None) -> str:
    """Datasets, as a card names them, and how a training saw them."""
    named = " and ".join(f"{s.info.episodes} episodes of {s.info.policy} (seed {s.info.seed})" for s in stores)
    return named + (_shown(config) if config else "")


def _shown(config: TrainConfig) -> str:
    """That training saw more than the episodes as they are."""
    return ", each also as the task's symmetries show it" if config.symmetric else ""


def _ends(out: Path, figure: str) -> list[float]:
    """A validation figure at the first and the last check of a run; empty where there was none."""
    checks = curves(out)
    return [checks[step][figure] for step in (min(checks), max(checks))] if checks else []
