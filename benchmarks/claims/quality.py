"""Whether the rivals are any good at what they are made for: pictures drawn from latents, seen and foreseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tensordict import TensorDict
from torch import Tensor

import envs
from planner.types import Context

from .clips import Clips, play_clips
from .contenders import CLOUDS, SEEN, Contender, contenders
from .rows import Row, Rows
from .worlds import scaled, shown

STEPS = 10
"""Model steps foreseen, open loop."""
DRAWN = (0, 1, 2, 3, 5, 7, 10)
"""Steps of them in the pictures of samples; 0 is drawn from what is seen."""
SEED = 2000


def run(task: str, quick: bool, report: Rows) -> None:
    """Reports PSNR of the rivals on held-out play, and keeps sample frames beside the rows: true over predicted."""
    n = 6 if quick else 40
    env = envs.make(task)
    clips = play_clips(env, n, STEPS + 1, SEED)
    for rival in [one for one in contenders(task) if hasattr(one.checkpoint.model, "decode")]:
        row: Row = {"part": "quality", "kind": "psnr", "task": task, **rival.key, "n": n}
        picture = samples_of(report.path.parent, rival)
        if not report.has(row) or not picture.exists():
            report(row | judge(rival, clips, picture))
    env.close()


def samples_of(folder: Path, rival: Contender) -> Path:
    """Where the sample frames of a rival lie."""
    which = {SEEN: "-seen", CLOUDS: "-clouds", "": ""}[rival.note]
    return folder / f"frames-{rival.checkpoint.task.lower()}-{rival.model}-{rival.augment:g}{which}.png"


@torch.no_grad()
def judge(rival: Contender, clips: Clips, picture: Path) -> Row:
    """PSNR, dB, of pictures drawn from the frame seen last and 1 to `STEPS` steps ahead; and of what moves alone."""
    model, history = rival.checkpoint.model, rival.checkpoint.model.history
    seen = torch.stack([model.embed(episode[:history]) for episode in clips.pixels])
    context = Context(TensorDict({"latent": seen}, batch_size=seen.shape[:2]), clips.actions[:, : history - 1])
    futures = model.rollout(context, clips.actions[:, None, history - 1 :])["latent"][:, 0]
    drawn = model.decode(torch.cat([seen[:, -1:], futures], 1)).clamp(-1, 1)
    truth = scaled(clips.pixels[:, history - 1 :])
    draw_samples(picture, shown(truth), shown(drawn))
    plain = truth.mean((0, 1)).expand_as(truth)
    moves = ((truth - plain).abs().amax(-1, keepdim=True) > 0.2).expand_as(truth)
    return {
        "psnr": psnrs(drawn, truth, torch.ones_like(moves)),
        "psnr_moving": psnrs(drawn, truth, moves),
        "psnr_of_mean": psnrs(plain, truth, torch.ones_like(moves)),
        "psnr_of_mean_moving": psnrs(plain, truth, moves),
    }


def psnrs(drawn: Tensor, truth: Tensor, counts: Tensor) -> list[float]:
    """PSNR (dB) of pictures in [-1, 1], `[n, F, ...]`, a step, over the values that count."""
    errors = (drawn - truth).square() * counts
    mean = errors.flatten(2).sum((0, 2)) / counts.flatten(2).sum((0, 2)).clamp_min(1)
    return [round(x, 2) for x in (10 * torch.log10(4 / mean)).tolist()]


def draw_samples(path: Path, truth: Tensor, drawn: Tensor, episodes: int = 3, zoom: int = 2) -> None:
    """True frames over predicted ones, uint8 `[n, F, size, size, 3]`, for some episodes and the steps of `DRAWN`."""
    rows = []
    for k in range(min(episodes, len(truth))):
        rows += [np.hstack([one[k, step].numpy() for step in DRAWN]) for one in (truth, drawn)]
    picture = Image.fromarray(np.vstack(rows))
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)
