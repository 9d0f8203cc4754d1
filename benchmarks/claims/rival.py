"""Trains a rival on a task's data: `python -m benchmarks.claims.rival TwoRoom --kind recurrent --augment 0.8`.

Our loaders, our updates, our schedule; the loss alone is another one.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
import tyro
from tensordict import TensorDict
from torch import Tensor

from planner.cards import curves
from planner.checkpoint import Checkpoint
from planner.data import EpisodeStore, split_rows
from planner.errors import BadInput
from planner.settings import TrainConfig
from planner.tasks import folder_name
from planner.training import JEPATraining
from planner.training.batches import data_of, draws_of
from planner.training.looks import varied
from planner.training.run import run_stage, same_run
from planner.types import Context
from planner.versions import commit

from .weights import RIVALS, load, plain_recipe, save, shape_for
from .worlds import Belief, Rival, divergence, scaled

FREE_NATS = 1.0
"""Least divergence of prior and posterior that is punished, nats a frame (DreamerV3, arXiv 2301.04104)."""
DYNAMICS = 0.5
"""Weight of the divergence that trains the prior (DreamerV3)."""
PULL = 0.1
"""Weight of the same divergence where it draws the posterior to the prior (DreamerV3); an option."""
DRAWN = 3, 5
"""Frames of a window that are drawn as seen, and as foreseen."""


class _InPixels(JEPATraining):
    """What the training of both rivals shares: batches, updates, schedule and probes are a JEPA's."""

    targets = "plain"
    pull = PULL
    blind = False

    def draw(self, batch: TensorDict) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures to see, each with a look of its own, pictures to draw, both uint8 `[B, F, ...]`, and actions.

        A share of the windows begins as episodes do: the first frame twice, at rest in between.
        """
        pixels, actions = batch["pixels"], batch["actions"]
        cold = torch.rand(len(pixels), device=pixels.device) < self.config.cold_starts
        first = torch.where(cold[:, None, None, None], pixels[:, 1], pixels[:, 0])
        rest = torch.where(cold[:, None], self.still, actions[:, 0])
        pixels = torch.cat([first[:, None], pixels[:, 1:]], 1)
        looks = varied(pixels, self.config) if self.config.augment else pixels
        targets = pixels if self.targets == "plain" else looks
        told = torch.cat([rest[:, None], actions[:, 1:]], 1)
        return looks, targets, self.still.expand_as(told) if self.blind else told

    def validation_step(self, batch: TensorDict, _: int) -> None:
        """Logs PSNR (dB) of pictures drawn from what is seen and from what is foreseen k steps ahead, open loop."""
        history, target = self.model.history, scaled(batch["pixels"])
        latents = self.model.embed(batch["pixels"])
        self.log("val/psnr_0", psnr(self.model.decode(latents), target))
        seen = TensorDict({"latent": latents[:, :history]}, batch_size=[len(latents), history])
        context = Context(seen, batch["actions"][:, : history - 1])
        futures = self.model.rollout(context, batch["actions"][:, None, history - 1 :])["latent"][:, 0]
        for k, drawn in enumerate(self.model.decode(futures).unbind(1), start=1):
            self.log(f"val/psnr_{k}", psnr(drawn, target[:, history - 1 + k]))
        self._latents.append(latents.flatten(0, 1))
        self._states.append(batch["state"].flatten(0, 1))
        self._episodes.append(batch["episode"].flatten())


def psnr(drawn: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures in [-1, 1], dB, over all of them."""
    return 10 * torch.log10(4 / (drawn.clamp(-1, 1) - target).square().mean())


class NextFrameTraining(_InPixels):
    """Draws the H frames that are seen, and those 1 to K steps ahead from latents foreseen open loop."""

    def losses(self, batch: TensorDict) -> dict[str, Tensor]:
        pixels, targets, actions = self.draw(batch)
        history, target = self.model.history, scaled(targets)
        latents = self.model.embed(pixels[:, :history])
        past, coming = actions[:, : history - 1], actions[:, None, history - 1 :]
        ahead = self.model.predictor.unroll(latents, past, coming)[:, 0]  # [B, K, D]
        errors = (self.model.decode(torch.cat([latents, ahead], 1)) - target).square().mean((0, 2, 3, 4))  # [F]
        weights = errors.new_tensor([self.config.decay**k for k in range(ahead.shape[1])])
        prediction = (errors[history:] * weights).sum() / weights.sum()
        return {"prediction": prediction, "reconstruction": errors[:history].mean(), "latents": latents}

    def weights(self) -> dict[str, float]:
        return {"prediction": 1.0, "reconstruction": 1.0}


class RecurrentTraining(_InPixels):
    """The evidence lower bound of Dreamer, and pictures foreseen open loop.

    Pictures are drawn from posterior samples, prior and posterior pulled together; and what the priors' means foresee
    from the first H frames on is drawn too. With the divergence alone, after 700 updates, pictures one step ahead were
    hardly better than one without the robot (29.3 dB, 28.7 without it). A pixel's likelihood is a normal one of
    deviation 1 on [-1, 1]. Drawing is most of the work, so a random part of the frames is drawn. Terms are divided by
    the number of pixel values, which gradient clipping alone notices.
    """

    def losses(self, batch: TensorDict) -> dict[str, Tensor]:
        pixels, targets, actions = self.draw(batch)
        frames, history, values = pixels.shape[1], self.model.history, pixels[0, 0].numel()
        posterior = self.model.believe(pixels)  # [B, F]
        latents = posterior.sample()
        prior = self.expectations(latents, actions)
        dynamics, representation = (
            divergence(one, other).clamp_min(FREE_NATS).mean() / values
            for one, other in ((posterior.detach(), prior), (posterior, prior.detach()))
        )
        seen = torch.randperm(frames)[: DRAWN[0]]
        ahead = torch.randperm(frames - history)[: DRAWN[1]] + history
        futures = self.foreseen(latents[:, :history], actions)  # [B, F - H, D]
        drawn = self.model.decode(torch.cat([latents[:, seen], futures[:, ahead - history]], 1))
        errors = 0.5 * (drawn - scaled(targets[:, torch.cat([seen, ahead])])).square().mean((0, 2, 3, 4))
        terms = {"reconstruction": errors[: len(seen)].mean(), "prediction": errors[len(seen) :].mean()}
        return terms | {"dynamics": dynamics, "representation": representation, "latents": posterior.mean}

    def weights(self) -> dict[str, float]:
        return {"reconstruction": 1.0, "prediction": 1.0, "dynamics": DYNAMICS, "representation": self.pull}

    def foreseen(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Means of the latents after H, `[B, H, D]`, open loop to the end of the window, `[B, F - H, D]`."""
        history = latents.shape[1]
        seen = TensorDict({"latent": latents}, batch_size=latents.shape[:2])
        context = Context(seen, actions[:, : history - 1])
        return self.model.rollout(context, actions[:, None, history - 1 :])["latent"][:, 0]

    def expectations(self, latents: Tensor, actions: Tensor) -> Belief:
        """What each frame's latent was expected to be from those before, `[B, F]`; latents `[B, F, D]`."""
        memory = latents.new_zeros(len(latents), self.model.config.memory)
        memories = [memory]
        for latent, action in zip(latents.unbind(1)[:-1], actions.unbind(1), strict=True):
            memory = self.model.remember(memory, latent, action)
            memories.append(memory)
        before = torch.cat([torch.zeros_like(latents[:, :1]), latents[:, :-1]], 1)
        return self.model.expect(torch.stack(memories, 1), before)


TRAININGS: dict[str, type[_InPixels]] = {"next_frame": NextFrameTraining, "recurrent": RecurrentTraining}
SHAPES = {"next_frame": (48, 3), "recurrent": (24, 8)}
"""Windows a batch, and steps foreseen in each: windows of 240 frames an update either way, as the JEPA's. But that one
encodes all of them and foresees from every start, 288 latents; the next-frame rival from the first H alone, 144."""


@dataclass(frozen=True)
class Options:
    """Train a rival.

    Attributes:
        task: TwoRoom, PointMaze, Reacher, PushT or Cube.
        kind: recurrent or next_frame.
        augment: how much the frames of a window differ in look, 0 to 1.
        clouds: whether looks are those that our finished encoders are taught with `jepa-mpc looks --training.backdrop
            --training.shift`: things repainted, clouds on the floor.
        targets: "plain" to draw what is seen without its look, which says what is nuisance and what is not, more than a
            JEPA is told; "seen" to draw it as it looks.
        pull: weight of the divergence that draws a recurrent rival's posterior to its prior, DreamerV3's by default;
            that which draws the prior to the posterior has 0.5. The next-frame rival has none.
        blind: hide the actions, so that what comes is as open as the data leave it, and its mean is what is drawn.
        start: weights to go on from, as they were saved; fresh ones by default. With varied looks from the first update
            on, rivals keep to the mean picture; those trained on plain pictures have something to lose.
        steps: updates; as many as the JEPA's by default.
        width: channels of the encoder's first layer.
        learning_rate: at its peak.
        data: the dataset; data/TASK by default.
        out: folder for logs and the state to resume from; runs/rivals/TASK-KIND-AUGMENT by default, then -clouds and
            -seen where that is asked for.
        save: folder of the weights; OUT/checkpoint by default.
        threads: of the processor.
        seed: of weights, batches and noise.
    """

    task: tyro.conf.Positional[str]
    kind: str = "recurrent"
    augment: float = 0.0
    clouds: bool = False
    targets: str = "plain"
    pull: float = PULL
    blind: bool = False
    start: Path | None = None
    steps: int | None = None
    width: int = 48
    learning_rate: float = 2e-3
    data: Path | None = None
    out: Path | None = None
    save: Path | None = None
    threads: int = 1
    seed: int = 0


def training_config(options: Options) -> TrainConfig:
    """The JEPA's settings for the task, in windows as the kind wants them."""
    batch, horizon = SHAPES[options.kind]
    own = plain_recipe(options.task).training
    return TrainConfig(
        steps=options.steps or own.steps,
        batch=batch,
        horizon=horizon,
        learning_rate=options.learning_rate,
        moving=own.moving,
        seed=options.seed,
        augment=options.augment,
        repaint=options.clouds,
        backdrop=options.clouds,
    )


def train(
    store: EpisodeStore,
    kind: str,
    config: TrainConfig,
    out: Path,
    shape: Any,
    *,
    targets: str = "plain",
    pull: float = PULL,
    blind: bool = False,
    start: Checkpoint | None = None,
) -> Rival | None:
    """Trains a rival, resuming from `out/last.ckpt` if there is one; None if it was interrupted."""
    described = {"kind": kind, "targets": targets, "pull": pull} | asdict(shape)
    described |= {"start": start.sha256 if start else None}
    described |= {"blind": True} if blind else {}  # not said otherwise, as runs from before it could be asked go on
    run = {"task": store.info.task, "data": data_of(store), "model": described, "training": asdict(config)}
    same_run(out, run)
    lightning.seed_everything(config.seed, verbose=False)
    model = RIVALS[kind][0](shape, store.info.action_spec).to(memory_format=torch.channels_last)
    fit_rows, _ = split_rows(store.info, config.held_out)
    if start is not None:
        model.load_state_dict(start.model.state_dict())
    else:
        with torch.no_grad():
            model.decoder.backdrop.copy_(scaled(store.data["pixels"][fit_rows[::8], ::10].flatten(0, 1)).mean(0))
    training = TRAININGS[kind](model, config, store.info)
    training.targets, training.pull, training.blind = targets, pull, blind
    done = run_stage(training, config, out, False, lambda: draws_of(model, store, config))
    return model.eval().requires_grad_(False) if done else None


def main(options: Options) -> None:
    """Trains and saves."""
    for name, known in {"kind": tuple(RIVALS), "targets": ("plain", "seen")}.items():
        if (got := getattr(options, name)) not in known:
            raise BadInput(f"rival: unknown {name}", expected=" or ".join(known), got=repr(got))
    torch.set_num_threads(options.threads)
    store = EpisodeStore.open(options.data or Path("data") / folder_name(options.task))
    store.verify()
    name = f"{folder_name(options.task)}-{options.kind}-{options.augment:g}"
    name += "-clouds" * options.clouds + "-seen" * (options.targets == "seen") + "-blind" * options.blind
    out = options.out or Path("runs/rivals") / name
    out.parent.mkdir(parents=True, exist_ok=True)
    config = training_config(options)
    shape = shape_for(options.task, options.kind, store.info.size, options.width)
    start = load(options.start) if options.start else None
    told = {"targets": options.targets, "pull": options.pull, "blind": options.blind}
    model = train(store, options.kind, config, out, shape, **told, start=start)
    if model is None:
        print(f"stopped after a whole step; the same command goes on from {out / 'last.ckpt'}")
        raise SystemExit(130)
    checks = curves(out)
    notes = {
        "command": f"python -m benchmarks.claims.rival {shlex.join(sys.argv[1:])}",
        "training": asdict(config) | told,
        "validation": checks[max(checks)] if checks else {},
        "commit": commit(),
    }
    planner = plain_recipe(options.task).planner
    planner = replace(planner, metric=planner.without_head)
    folder = options.save or out / "checkpoint"
    save(folder, model, task=store.info.task, renderer=store.info.renderer, planner=planner, notes=notes)
    print(f"{folder}: trained")


if __name__ == "__main__":
    main(tyro.cli(Options))
