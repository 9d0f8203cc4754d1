"""World models that predict pictures: the generative rivals, with our encoder and behind our interface.

Both give `encode`, `rollout` and, beyond `types.WorldModel`, `decode`: latents to pictures. What they lack against a
JEPA is nothing but the loss; what they have on top is a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from planner.actions import ActionSpec
from planner.errors import BadInput
from planner.models.encoders import ENCODERS
from planner.models.jepa import JEPA, JEPAConfig
from planner.models.packed import Packed
from planner.types import Context


def scaled(pixels: Tensor) -> Tensor:
    """uint8 pictures to float32 in [-1, 1], as encoders see and decoders draw them."""
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def shown(pictures: Tensor) -> Tensor:
    """Float pictures in [-1, 1] to uint8."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class Decoder(nn.Module):
    """Latents to pictures: `ConvEncoder` backwards, its last layer one of squares of 4 x 4 pixels side by side.

    Args:
        image_size: height and width of the pictures, a multiple of 16, pixels.
        width: channels before the last layer, a multiple of 4; the two before have 3 and 2 times as many.
        latent_dim: D.
    """

    def __init__(self, image_size: int, width: int, latent_dim: int) -> None:
        super().__init__()
        self.coarse = (3 * width, image_size // 16, image_size // 16)
        self.spread = nn.Linear(latent_dim, 3 * width * (image_size // 16) ** 2)
        layers: list[nn.Module] = [nn.SiLU(inplace=True)]
        for i in (2, 1):
            layers += [nn.ConvTranspose2d((i + 1) * width, i * width, kernel_size=4, stride=2, padding=1)]
            layers += [nn.GroupNorm(4, i * width), nn.SiLU(inplace=True)]
        # Squares that do not overlap: on a CPU a transposed convolution there costs as much as all the rest.
        last = nn.Conv2d(width, 3 * 16, kernel_size=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.trunk = nn.Sequential(*layers, last, nn.PixelShuffle(4))
        # What all pictures share is given, and learned on from there: drawing begins with what differs.
        self.backdrop = nn.Parameter(torch.zeros(image_size, image_size, 3))

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `[..., D]` to pictures `[..., size, size, 3]`, float32, meant to lie in [-1, 1]."""
        flat = self.spread(latents.reshape(-1, latents.shape[-1])).unflatten(1, self.coarse)
        flat = flat.contiguous(memory_format=torch.channels_last)
        return (self.trunk(flat).movedim(1, -1) + self.backdrop).unflatten(0, latents.shape[:-1])


class NextFrame(JEPA):
    """Predicts the next pictures outright: our encoder and our predictor, a decoder, and a loss in pixels.

    It is a JEPA but for what it is trained on, so it is packed and planned with as one.
    """

    def __init__(self, config: JEPAConfig, action: ActionSpec) -> None:
        super().__init__(config, action)
        del self.inverse  # the decoder is what keeps its latents from collapsing
        self.decoder = Decoder(config.image_size, config.width, config.latent_dim)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[..., D]` to pictures `[..., size, size, 3]` in [-1, 1]."""
        return self.decoder(latents)


@dataclass(frozen=True)
class RecurrentConfig:
    """The shape of a `Recurrent`.

    Attributes:
        image_size: height and width of the pictures, pixels, a multiple of 16.
        width: channels of the encoder's first and the decoder's last layer, a multiple of 4.
        latent_dim: D, stochastic features.
        history: H, frames that a rehearsal starts from.
        memory: deterministic features of the recurrent state.
        hidden: width of the layers into and out of the memory.
        encoder: name in `ENCODERS`.
    """

    image_size: int = 64
    width: int = 48
    latent_dim: int = 64
    history: int = 2
    memory: int = 192
    hidden: int = 192
    encoder: str = "conv"

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise BadInput("recurrent rival: unknown encoder", expected=" or ".join(ENCODERS), got=repr(self.encoder))
        whole = [value for value in vars(self).values() if isinstance(value, int)]
        if self.image_size % 16 or self.width % 4 or min(whole) < 1:
            expected = "whole numbers from 1, image_size a multiple of 16, width one of 4"
            raise BadInput("recurrent rival: its shape is off", expected=expected, got=str(self))


@dataclass(frozen=True)
class Belief:
    """A diagonal normal distribution of latents, mean and standard deviation `[..., D]` each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> Belief:
        """From `[..., 2 D]`; the deviation stays above 0.03, and is small at first, so that drawing has a start."""
        mean, spread = numbers.chunk(2, -1)
        return cls(mean, nn.functional.softplus(spread - 2) + 0.03)

    def sample(self) -> Tensor:
        return self.mean + self.std * torch.randn_like(self.mean)

    def detach(self) -> Belief:
        return Belief(self.mean.detach(), self.std.detach())


def divergence(one: Belief, other: Belief) -> Tensor:
    """Kullback-Leibler divergence from `other` to `one`, nats, `[...]`."""
    ratio = (one.std / other.std).square()
    gap = ((one.mean - other.mean) / other.std).square()
    return 0.5 * (ratio + gap - 1 - ratio.log()).sum(-1)


class Recurrent(nn.Module):
    """A recurrent latent-variable model in the manner of Dreamer, its latents those of one picture each.

    Memory h' = GRU(h, z, a), prior p(z' | h', z), posterior q(z | picture), picture from z. That the posterior sees the
    picture alone, as in TWM (arXiv 2303.07109) and STORM (2310.09615), gives a goal picture a latent that imagined
    ones can be compared with. A rehearsal takes the means, so that it is a function of its inputs.

    Args:
        config: its shape.
        action: bounds, units and block of the robot's actions.
    """

    def __init__(self, config: RecurrentConfig, action: ActionSpec) -> None:
        super().__init__()
        self.config, self.action, self.history = config, action, config.history
        d, hidden, memory = config.latent_dim, config.hidden, config.memory
        self.encoder = ENCODERS[config.encoder](config.image_size, config.width, d)
        self.posterior = nn.Linear(d, 2 * d)
        self.enter = nn.Sequential(nn.Linear(d + action.dim, hidden), nn.SiLU(inplace=True))
        self.cell = nn.GRUCell(hidden, memory)
        self.prior = nn.Sequential(nn.Linear(memory, hidden), nn.SiLU(inplace=True), nn.Linear(hidden, 2 * d))
        self.stays = nn.Parameter(torch.ones(d))  # how much of each feature is expected to stay, as in our predictor
        self.decoder = Decoder(config.image_size, config.width, d)

    def believe(self, pixels: Tensor) -> Belief:
        """Pictures `[..., size, size, 3]` uint8 to what is believed of their latents."""
        flat = self.encoder(pixels.flatten(0, -4))
        return Belief.of(self.posterior(flat).unflatten(0, pixels.shape[:-3]))

    def embed(self, pixels: Tensor) -> Tensor:
        """Pictures `[..., size, size, 3]` uint8 to the means of their latents `[..., D]`."""
        return self.believe(pixels).mean

    def remember(self, memory: Tensor, latent: Tensor, action: Tensor) -> Tensor:
        """Memory `[N, memory]`, latent `[N, D]` and the action that follows `[N, A]` to the next memory."""
        return self.cell(self.enter(torch.cat([latent, action], -1)), memory)

    def expect(self, memory: Tensor, before: Tensor) -> Belief:
        """Memory `[..., memory]` and the latent before `[..., D]` to what is believed of the one that comes with it."""
        belief = Belief.of(self.prior(memory))
        return Belief(self.stays * before + belief.mean, belief.std)

    def encode(self, obs: TensorDict) -> TensorDict:
        """Observations with `pixels` to `latent` `[..., D]`, same batch."""
        return TensorDict({"latent": self.embed(obs["pixels"])}, batch_size=obs.batch_size)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidates `[E, S, T, A]` from a context `[E, H]` to the latents after each step, `latent` `[E, S, T, D]`."""
        e, s = actions.shape[:2]
        seen = context.latent["latent"]
        memory = seen.new_zeros(e, self.config.memory)
        for latent, action in zip(seen.unbind(1)[:-1], context.actions.unbind(1), strict=True):
            memory = self.remember(memory, latent, action)
        memory, latent = (one.repeat_interleave(s, 0) for one in (memory, seen[:, -1]))
        futures = []
        for action in actions.flatten(0, 1).unbind(1):
            memory = self.remember(memory, latent, action)
            latent = self.expect(memory, latent).mean
            futures.append(latent)
        return TensorDict({"latent": torch.stack(futures, 1).unflatten(0, (e, s))}, batch_size=actions.shape[:3])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[..., D]` to pictures `[..., size, size, 3]` in [-1, 1]."""
        return self.decoder(latents)


Rival = NextFrame | Recurrent


class InPixels:
    """Implements `types.WorldModel`: a rival whose rehearsals are drawn, to be compared with a goal as it looks.

    Futures and observations have `pixels`, float in [-1, 1], beside `latent`; `LatentDistance(key="pixels")` is then
    the mean squared difference of pictures.

    Args:
        model: the rival.
        told: whether it draws pictures without their looks. It is then given what is seen, and the goal, as it draws
            them: the difference of a plain picture to one of another look is that look, whatever it foresees.
    """

    def __init__(self, model: Rival, told: bool = False) -> None:
        self.model, self.action, self.history, self.told = model, model.action, model.history, told
        self.rehearser = Packed(model) if isinstance(model, JEPA) else model

    def encode(self, obs: TensorDict) -> TensorDict:
        """Observations to `latent`, and `pixels` as they are or as they are drawn."""
        found = self.model.encode(obs)
        return found.set("pixels", self.model.decode(found["latent"]) if self.told else scaled(obs["pixels"]))

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """As the rival's, with `pixels` `[E, S, T, size, size, 3]`."""
        futures = self.rehearser.rollout(context, actions)
        return futures.set("pixels", self.model.decode(futures["latent"]))
