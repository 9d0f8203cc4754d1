"""A joint-embedding predictive world model: encoder, action-conditioned predictor, inverse dynamics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from ..actions import ActionSpec
from ..errors import BadInput
from ..types import Context
from .encoders import BUILT_IN, ENCODERS, GAZE, JOINED, RETINA, SURROUND, EncoderName
from .predictors import PREDICTORS, Predictor
from .prior import ActionPrior
from .slow import SlowFeatures
from .temporal import TemporalDistance

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class JEPAConfig:
    """The shape of a JEPA.

    Attributes:
        encoder: name in `ENCODERS`.
        predictor: name in `PREDICTORS`.
        image_size: height and width of the pictures, pixels, a multiple of 16.
        width: channels of the encoder's first layer, a multiple of 4 up to 1024; of a "vit" every token's, one of 64.
        latent_dim: D, features of a latent, 2 to 4096.
        history: H, frames that the predictor sees, 1 to 16.
        hidden: width of the predictor's hidden or feed-forward layers, 4 to 8192.
        depth: hidden layers of the predictor, or its blocks, 1 to 16.
        heads: attention heads of a "transformer", 1 to 64; 0 for other predictors.
        dropout: share of hidden units of the predictor dropped in training, 0 to below 1.
        body: latent directions that actions move directly, found after training (`training.body_directions`), 0 to 64;
            `ObjectDistance` plays them down.
        temporal: features of a head that tells how many steps lie between two latents, trained last, 0 to 1024.
        prior: width of an action prior, which proposes plans as play would do them, trained last, 0 to 8192.
        prior_horizon: model steps of the plans that it proposes, 1 to 64.
        prior_past: whether it sees what was done between the frames of the predictor's history, too.
        slow: features of a head that sees what the robot does not move by itself, trained last, 0 to 1024; a planner
            goes by it where its metric is "temporal+slow".
    """

    encoder: str = "conv"
    predictor: str = "mlp"
    image_size: int = 64
    width: int = 48
    latent_dim: int = 64
    history: int = 2
    hidden: int = 384
    depth: int = 2
    heads: int = 0
    dropout: float = 0.0
    body: int = 0
    temporal: int = 0
    prior: int = 0
    prior_horizon: int = 6
    prior_past: bool = False
    slow: int = 0

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            do = "put one of your own into planner.models.encoders.ENCODERS first"
            known = " or ".join(one for one in ENCODERS if one not in BUILT_IN or not EncoderName.parse(one).adapted)
            expected = f"{known}, ours also with {RETINA} or {JOINED} and, after these, {GAZE} and {SURROUND}"
            raise BadInput("unknown encoder", expected=expected, got=repr(self.encoder), do=do)
        if self.predictor not in PREDICTORS:
            raise BadInput("unknown predictor", expected=" or ".join(PREDICTORS), got=repr(self.predictor))
        ranges = {
            "image_size": (16, 1024),
            "width": (4, 1024),
            "latent_dim": (2, 4096),
            "history": (1, 16),
            "hidden": (4, 8192),
            "depth": (1, 16),
            "body": (0, 64),
            "temporal": (0, 1024),
            "prior": (0, 8192),
            "prior_horizon": (1, 64),
            "slow": (0, 1024),
            "heads": (1, 64) if self.predictor == "transformer" else (0, 0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and low <= value <= high):
                expected = f"a whole number from {low} to {high}"
                expected += f" with predictor {self.predictor!r}" if name == "heads" else ""
                raise BadInput(f"JEPA: {name} is off", expected=expected, got=repr(value))
        if self.image_size % 16 or self.width % 4:
            got = f"{self.image_size} and {self.width}"
            raise BadInput("JEPA: image_size or width is off", expected="multiples of 16 and of 4", got=got)
        if self.prior and self.prior_past and self.history < 2:
            expected, got = "a history of 2 frames or more, between which something is done", str(self.history)
            do = "set prior_past to False (--model.no-prior-past)"
            raise BadInput("JEPA: prior_past has nothing to see", expected=expected, got=got, do=do)
        if not 0 <= self.dropout < 1:
            raise BadInput("JEPA: dropout is off", expected="0 to below 1", got=str(self.dropout))


class JEPA(nn.Module):
    """Implements `types.WorldModel`: `encode` looks, `rollout` rehearses.

    Args:
        config: its shape.
        action: bounds, units and block of the robot's actions.

    Attributes:
        body: latent directions of the robot's own body, `[D, config.body]`, orthonormal; None where there are none.
        temporal: model steps between two latents; None where `config.temporal` is 0.
        prior: proposes plans; None where `config.prior` is 0.
        slow: features that seldom change; None where `config.slow` is 0.
    """

    body: Tensor | None

    def __init__(self, config: JEPAConfig, action: ActionSpec) -> None:
        super().__init__()
        self.config, self.action, self.history = config, action, config.history
        self.encoder = ENCODERS[config.encoder](config.image_size, config.width, config.latent_dim)
        sizes = [config.latent_dim, action.dim, config.history, config.hidden, config.depth]
        sizes += [config.heads] if config.heads else []
        self.predictor: Predictor = PREDICTORS[config.predictor](*sizes, dropout=config.dropout)
        self.register_buffer("body", torch.zeros(config.latent_dim, config.body) if config.body else None)
        self.temporal = TemporalDistance(config.latent_dim, config.temporal) if config.temporal else None
        shape = (config.latent_dim, config.history, action.env_dim, config.prior_horizon, config.prior)
        past = config.history - 1 if config.prior_past else 0
        self.prior = ActionPrior(*shape, past) if config.prior else None
        self.slow = SlowFeatures(config.latent_dim, config.slow) if config.slow else None
        # Decodes the action from how the latent moved: a latent that forgets what actions do cannot (PLDM, 2502.14819).
        self.inverse = nn.Sequential(
            nn.Linear(2 * config.latent_dim, 256), nn.SiLU(inplace=True), nn.Linear(256, action.dim)
        )

    def renewed(self, part: str, config: JEPAConfig) -> JEPA:
        """A copy in which one part is new and untrained; everything else has this one's weights.

        Args:
            part: "predictor", "temporal", "prior" or "slow"; this one need not have the last three.
            config: the copy's shape, which differs from this one's in that part alone.
        """
        kept = {name: value for name, value in self.state_dict().items() if not name.startswith(f"{part}.")}
        return self._grown(config, kept)

    def adapted(self, *, gaze: bool = False, surround: bool = False) -> JEPA:
        """A copy whose encoder stands behind a retina that changes nothing yet; `self` if it has all that is asked for.

        A joined encoder has a retina, and its taught half gets what is asked for.

        Args:
            gaze: behind a gaze too, which changes nothing but rounding yet.
            surround: early layers are told what is around each place, too, which changes nothing yet.

        Raises:
            BadInput: for an encoder that does not come with one.
        """
        own = EncoderName.parse(self.config.encoder)
        new = replace(own, retina=not own.joined, gaze=gaze or own.gaze, surround=surround or own.surround)
        if new == own:
            return self
        if new.name not in ENCODERS:
            extra = "surround" * surround or "gaze" * gaze
            bare = replace(new, gaze=False, surround=False).name not in ENCODERS
            do = f"leave --{extra} out" + ", and give --no-retina" * bare if extra else "leave it out: --no-retina"
            known = {name: EncoderName(name, retina=True, surround=surround) for name in BUILT_IN}
            expected = " or ".join(name for name, behind in known.items() if behind.name in ENCODERS)
            what = f"no {extra or 'retina'} for this encoder"
            raise BadInput(what, expected=expected, got=repr(self.config.encoder), do=do)
        kept = self.state_dict()
        kept = kept if own.adapted else {_behind_retina(key): value for key, value in kept.items()}
        return self._grown(replace(self.config, encoder=new.name), kept)

    def joined(self, taught: JEPA, apart: float) -> JEPA:
        """A copy whose encoder is joined with one that was taught its latents (`encoders.JoinedEncoder`).

        Args:
            taught: a model of the same shape whose encoder is this one's behind a retina, with a gaze and a surround if
                there are any; the rest of it is not read.
            apart: mean square distance of two latents of a picture up to which the encoders agree, >= 0.

        Raises:
            BadInput: if it is of another shape, or this encoder is none that comes with a retina.
        """
        own, other = EncoderName.parse(self.config.encoder), EncoderName.parse(taught.config.encoder)
        behind = replace(own, retina=True)
        if own.adapted or behind.name not in ENCODERS:
            do = "start from the weights that were taught looks, as they were before"
            raise BadInput("no retina for this encoder", expected="a bare one", got=repr(self.config.encoder), do=do)
        behind = other if other.retina and other.base == own.base else behind
        wanted = replace(self.config, encoder=behind.name)
        for name in ("encoder", "image_size", "width", "latent_dim"):
            if (got := getattr(taught.config, name)) != (want := getattr(wanted, name)):
                do = "teach these weights looks: jepa-mpc looks"
                raise BadInput(f"the taught encoder does not fit: {name}", expected=str(want), got=str(got), do=do)
        kept = {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}
        for part, encoder in {"plain": self.encoder, "taught": taught.encoder}.items():
            kept |= {f"encoder.{part}.{name}": value for name, value in encoder.state_dict().items()}
        kept["encoder.apart"] = torch.tensor(apart)
        return self._grown(replace(self.config, encoder=replace(behind, retina=False, joined=True).name), kept)

    def _grown(self, config: JEPAConfig, kept: dict[str, Tensor]) -> JEPA:
        """A model of the shape `config` with these weights by name, and new ones where there are none."""
        other = channels_last(JEPA(config, self.action))
        other.load_state_dict(other.state_dict() | kept)
        grown: JEPA = other.train(self.training)
        return grown

    def embed(self, pixels: Tensor) -> Tensor:
        """Pictures `[..., size, size, 3]` uint8 to latents `[..., D]`."""
        size = self.config.image_size
        if pixels.dtype != torch.uint8 or pixels.shape[-3:] != (size, size, 3):
            raise BadInput(
                "observation `pixels` is off",
                expected=f"uint8 [..., {size}, {size}, 3]",
                got=f"{str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)}",
                do="render at the checkpoint's image size",
            )
        return self.encoder(pixels.flatten(0, -4)).unflatten(0, pixels.shape[:-3])

    def encode(self, obs: TensorDict) -> TensorDict:
        """Observations with `pixels` `[..., size, size, 3]` to `latent` `[..., D]`, same batch; `BadInput` without."""
        if "pixels" not in obs.keys():  # noqa: SIM118 - a TensorDict iterates over its batch
            got = ", ".join(map(str, obs.keys())) or "nothing"
            raise BadInput("JEPA: no picture to embed", expected="pixels [..., size, size, 3]", got=got)
        return TensorDict({"latent": self.embed(obs["pixels"])}, batch_size=obs.batch_size)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidates `[E, S, T, A]` from a context `[E, H]` to the latents after each step, `latent` `[E, S, T, D]`.

        Actions may come in another precision than the latents, which is the weights': a planner draws them in float32.
        """
        latents = context.latent["latent"]
        futures = self.predictor.unroll(latents, context.actions.to(latents.dtype), actions.to(latents.dtype))
        return TensorDict({"latent": futures}, batch_size=futures.shape[:3])

    def bytes_per_plan(self, horizon: int) -> int:
        """Most memory that rehearsing and judging one candidate of T = `horizon` steps takes, bytes; for `max_bytes`.

        Counted: every action, what the predictor holds, and the futures twice while they are stacked; and then the
        futures with six of their size that an energy makes of them (as a weighted cosine does), or what a head does.
        """
        futures = horizon * self.config.latent_dim
        actions = (self.history - 1 + horizon) * self.action.dim
        judging = 7 * futures + 3 * horizon
        for head in (self.temporal, self.slow):
            if head is not None:
                judging = max(judging, futures + horizon * head.floats)
        floats = actions + max(2 * futures + self.predictor.floats_per_plan(horizon), judging)
        return floats * next(self.parameters()).element_size()


def channels_last(module: Module) -> Module:
    """The module itself, its weights now in the memory layout that a CPU's convolutions of pictures are fastest in.

    Those have 4 dimensions. `module.to(memory_format=...)` asks it of 5 too, as a convolution of films has, and fails.
    """
    for value in (*module.parameters(), *module.buffers()):
        if value.dim() == 4:
            value.data = value.data.to(memory_format=torch.channels_last)
    return module


def _behind_retina(key: str) -> str:
    """The name that a weight of the bare encoder has in an `AdaptedEncoder`."""
    return f"encoder.{key}" if key.startswith("encoder.") else key
