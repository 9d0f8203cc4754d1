"""What follows from an action, in latent space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput

Memory = list[list[Tensor]]
"""For each block, keys and values of the tokens before, `[B, 2, heads, 64]` each."""


class Predictor(nn.Module):
    """One step of the latents; `unroll` takes many, for many candidates.

    A subclass has `forward`. It may override `unroll` to do the same with less work, and has then to agree with it.

    Args:
        history: H, most frames that are seen at once, >= 1.
    """

    def __init__(self, history: int) -> None:
        super().__init__()
        self.history = history

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """Latents `[..., n, D]` and the actions after each `[..., n, A]`, oldest first, to the next one `[..., D]`."""
        raise NotImplementedError

    def unroll(self, latents: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """Open loop, always from the last H frames.

        Args:
            latents: the context, `[E, n, D]`, oldest first.
            past: actions between its frames, `[E, n - 1, A]`.
            actions: candidates, `[E, S, T, A]`.

        Returns:
            The latents after each action, `[E, S, T, D]`.
        """
        e, s, steps, _ = actions.shape
        every_action = torch.cat([past.unsqueeze(1).expand(e, s, -1, -1), actions], 2)
        frames = list(latents.unsqueeze(1).expand(e, s, -1, -1).unbind(2))
        for now in range(len(frames), len(frames) + steps):
            window = slice(max(0, now - self.history), now)
            frames.append(self(torch.stack(frames[window], 2), every_action[:, :, window]))
        return torch.stack(frames[-steps:], 2)

    def floats_per_plan(self, horizon: int) -> int:
        """Most numbers that `unroll` holds at once for one candidate, besides what it is given and returns.

        Raises:
            BadInput: of a predictor that does not say; `max_bytes` cannot be kept with it.
        """
        expected, do = "a predictor with `floats_per_plan(horizon)`", "add that method, or cap candidates with `chunk`"
        raise BadInput("plan: max_bytes cannot be kept", expected=expected, got=type(self).__name__, do=do)


class SplitLinear(nn.Linear):
    """A linear layer whose inputs may come in parts."""

    def part(self, inputs: Tensor, start: int, stop: int | None = None) -> Tensor:
        """What the inputs from `start` up to `stop` contribute: `[..., stop - start]` to `[..., out]`, no bias."""
        return F.linear(inputs, self.weight[:, start:stop])


class ResidualPredictor(Predictor):
    """The next latent as the present one plus a correction, from H latents and the H actions that follow each.

    A subclass makes `body`, from all of these in one row to the correction, and `floats`, what it needs for one row.
    """

    body: nn.Sequential  # its first layer is a SplitLinear
    floats: int

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        inputs = torch.cat([latents.flatten(-2), actions.flatten(-2)], -1)
        return latents[..., -1, :] + self.body(inputs)

    def unroll(self, latents: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        # The first layer is linear, so the share of frames that all candidates have in common is found once.
        e, s, steps, _ = actions.shape
        first, rest = cast(SplitLinear, self.body[0]), self.body[1:]
        every_action = torch.cat([past.unsqueeze(1).expand(e, s, -1, -1), actions], 2)
        futures: list[Tensor] = []
        for t in range(steps):
            common = latents[:, t:].flatten(1)  # [E, what of the context is still in the window]
            own = torch.cat([*futures[-self.history :], every_action[:, :, t : t + self.history].flatten(2)], -1)
            if width := common.shape[1]:
                shared = first.part(common, 0, width) + first.bias
                hidden = first.part(own, width).add_(shared.unsqueeze(1))
            else:
                hidden = first(own)
            futures.append((futures[-1] if t else latents[:, -1:]) + rest(hidden))
        return torch.stack(futures, 2)

    def floats_per_plan(self, horizon: int) -> int:
        return self.floats


class MLPPredictor(ResidualPredictor):
    """Plain hidden layers.

    Args:
        latent_dim: D.
        action_dim: A.
        history: H, context frames, >= 1; the context has always all of them.
        hidden: width of the hidden layers.
        depth: hidden layers, >= 1.
        dropout: share of hidden units dropped in training, 0 to below 1.
    """

    def __init__(self, latent_dim: int, action_dim: int, history: int, hidden: int, depth: int, dropout: float) -> None:
        super().__init__(history)
        widths = [history * (latent_dim + action_dim)] + depth * [hidden]
        layers: list[nn.Module] = []
        for i in range(depth):
            kind = nn.Linear if i else SplitLinear
            layers += [kind(widths[i], widths[i + 1]), nn.SiLU(inplace=True), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers, nn.Linear(hidden, latent_dim))
        self.floats = 2 * widths[0] + 2 * hidden + latent_dim  # a step's inputs, two hidden layers, and what comes out


class GatedPredictor(ResidualPredictor):
    """Residual blocks in which one half gates the other (SwiGLU: Shazeer, arXiv 2002.05202), normalised before each.

    How far an object goes is a product: of the push, and of where and how the object lies. A gate is a product, where
    plain layers have to patch one together (decision 53).

    Args:
        latent_dim: D.
        action_dim: A.
        history: H, context frames, >= 1; the context has always all of them.
        hidden: width of the blocks and of what they gate.
        depth: blocks, >= 1.
        dropout: share of each block's output dropped in training, 0 to below 1.
    """

    def __init__(self, latent_dim: int, action_dim: int, history: int, hidden: int, depth: int, dropout: float) -> None:
        super().__init__(history)
        inputs = history * (latent_dim + action_dim)
        blocks = [_Gate(hidden, dropout) for _ in range(depth)]
        self.body = nn.Sequential(
            SplitLinear(inputs, hidden), *blocks, nn.LayerNorm(hidden), nn.Linear(hidden, latent_dim)
        )
        # A step's inputs, the residual, its normalised form, gate and value, and what comes out.
        self.floats = 2 * inputs + 4 * hidden + latent_dim


class _Gate(nn.Module):
    """Adds to its input a product of two linear maps of it, one through SiLU. It starts by adding a constant."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(width)
        self.gate = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        normed = self.normalise(inputs)
        return inputs + self.drop(self.out(self.gate(normed) * self.value(normed)))


class TransformerPredictor(Predictor):
    """A causal transformer over the last H latents, each modulated by the action that follows it (LeWM, 2603.19312).

    Actions enter through adaptive layer norms whose gates start at zero (AdaLN-zero: Peebles and Xie, 2212.09748). The
    window slides: tokens are numbered from its oldest frame, so that a frame has another place a step later.

    Args:
        latent_dim: D, also the width of a token.
        action_dim: A.
        history: H, most frames in the window, >= 1; a context may have fewer.
        hidden: width of the feed-forward layers.
        depth: blocks, >= 1.
        heads: of attention, of 64 features each, >= 1.
        dropout: share of each block's output dropped in training, 0 to below 1.
    """

    def __init__(
        self, latent_dim: int, action_dim: int, history: int, hidden: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__(history)
        inner = 64 * heads
        self.width, self.floats_driven = latent_dim, depth * 6 * latent_dim
        self.floats_token = 2 * depth * 2 * inner + max(4 * inner, 2 * hidden) + 10 * latent_dim
        self.place = nn.Parameter(0.02 * torch.randn(history, latent_dim))
        self.drive = nn.Sequential(nn.Linear(action_dim, latent_dim), nn.SiLU(), nn.Linear(latent_dim, latent_dim))
        # The modulations of all blocks in one product: shift, scale and gate of the attention and of the feed-forward.
        # A constant part comes from the biases of `drive`.
        modulations = nn.Linear(latent_dim, depth * 6 * latent_dim, bias=False)
        nn.init.zeros_(modulations.weight)
        self.modulate = nn.Sequential(nn.SiLU(), modulations)
        self.blocks = nn.ModuleList(_Block(latent_dim, hidden, heads, dropout) for _ in range(depth))
        self.head = nn.Sequential(
            nn.LayerNorm(latent_dim), nn.Linear(latent_dim, hidden), nn.GELU(), nn.Linear(hidden, latent_dim)
        )

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        tokens, drives = (
            latents.reshape(-1, *latents.shape[-2:]),
            self._drives(actions.reshape(-1, *actions.shape[-2:])),
        )
        ahead, _ = self._step(tokens, drives, [[] for _ in self.blocks])
        return ahead.reshape(*latents.shape[:-2], -1)

    def unroll(self, latents: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        # The frames before the newest, and what was done between them, are the same for all candidates: they are run
        # once an environment. While the window grows, each step runs one new token against remembered keys and values.
        e, s, steps, _ = actions.shape
        before = past.shape[1]
        past_drives = self._drives(past)
        frames = [latents[:, -1:].expand(e, s, -1).flatten(0, 1)]  # [E S, D] each: the newest, then the imagined
        drives = self._drives(actions.flatten(0, 1))  # [E S, T, depth, 6, D]
        for t in range(steps):
            start = max(0, before + 1 + t - self.history)  # of the window
            fresh = t == 0 or start > 0
            if fresh:  # it moved: every token has another place and has lost a neighbour
                window = slice(start, before)
                memory = self._remember(latents[:, window], past_drives[:, window], s)
            own = slice(max(0, start - before) if fresh else t, t + 1)
            ahead, memory = self._step(torch.stack(frames[own], 1), drives[:, own], memory)
            frames.append(ahead)
        return torch.stack(frames[1:], 1).unflatten(0, (e, s))

    def _drives(self, actions: Tensor) -> Tensor:
        """Actions `[..., A]` to modulations `[..., depth, 6, D]`."""
        return self.modulate(self.drive(actions)).unflatten(-1, (len(self.blocks), 6, -1))

    def _step(self, latents: Tensor, drives: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The next latent `[B, D]` from tokens `[B, n, D]` that come after those remembered, and a longer memory."""
        first = len(memory[0])
        tokens, longer = latents + self.place[first : first + latents.shape[1]], []
        for i, block in enumerate(self.blocks):
            # Nobody asks what the older tokens have become after the last block.
            newest = 1 if i + 1 == len(self.blocks) else latents.shape[1]
            tokens, remembered = block(tokens, drives[:, :, i], memory[i], newest)
            longer.append(remembered)
        return latents[:, -1] + self.head(tokens[:, -1]), longer

    def _remember(self, latents: Tensor, drives: Tensor, candidates: int) -> Memory:
        """Keys and values of `[E, n, D]` frames at the start of a window, for each of the candidates of each E."""
        if not latents.shape[1]:
            return [[] for _ in self.blocks]
        _, memory = self._step(latents, drives, [[] for _ in self.blocks])
        return [[token.repeat_interleave(candidates, 0) for token in known] for known in memory]

    def floats_per_plan(self, horizon: int) -> int:
        # Modulations of every action, the keys, values and activations of a whole window, and every frame.
        return (horizon + self.history) * self.floats_driven + self.history * self.floats_token + horizon * self.width


class _Block(nn.Module):
    """Attention and a feed-forward layer, both modulated. Without biases: the modulation shifts what they would."""

    def __init__(self, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, 64 * heads, bias=False)
        self.key_value = nn.Linear(width, 2 * 64 * heads, bias=False)
        self.out = nn.Linear(64 * heads, width, bias=False)
        self.think = nn.Sequential(
            nn.Linear(width, hidden, bias=False), nn.GELU(), nn.Linear(hidden, width, bias=False)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, drives: Tensor, memory: list[Tensor], newest: int) -> tuple[Tensor, list[Tensor]]:
        """Tokens `[B, n, D]`, modulations `[B, n, 6, D]` to the last `newest` tokens, and the memory with all n."""
        normed = _modulated(tokens, drives[:, :, 0], drives[:, :, 1])
        known = memory + list(self.key_value(normed).unflatten(-1, (2, self.heads, 64)).unbind(1))
        tokens, drives = tokens[:, -newest:], drives[:, -newest:]
        # Contiguous: torch multiplies a part of a window row by row, after a copy of the weights for each.
        queries = self.query(normed[:, -newest:].contiguous()).unflatten(-1, (self.heads, 64))
        seen = torch.stack([self.out(one.flatten(1)) for one in _attend(queries, known)], 1)
        tokens = torch.addcmul(tokens, drives[:, :, 2], self.drop(seen))
        normed = _modulated(tokens, drives[:, :, 3], drives[:, :, 4])
        return torch.addcmul(tokens, drives[:, :, 5], self.drop(self.think(normed))), known


def _modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = F.layer_norm(tokens, tokens.shape[-1:])
    return torch.addcmul(normed + shift, normed, scale)


def _attend(queries: Tensor, known: list[Tensor]) -> Iterator[Tensor]:
    """Causal attention of the last n of m tokens, `[B, heads, 64]` for each of the queries `[B, n, heads, 64]`.

    Written out, key by key: windows are a few tokens long, where a fused kernel takes 1.6 times as long on a CPU.
    """
    for i, query in enumerate(queries.unbind(1)):
        past = known[: len(known) - queries.shape[1] + i + 1]
        scores = torch.stack([torch.linalg.vecdot(query, one[:, 0]) for one in past])
        weights = (scores / 8).softmax(0).unsqueeze(-1)  # [m, B, heads, 1]
        mixed = weights[0] * past[0][:, 1]
        for weight, one in zip(weights[1:], past[1:], strict=True):
            mixed = mixed.addcmul_(weight, one[:, 1])
        yield mixed


PREDICTORS = {"mlp": MLPPredictor, "gated": GatedPredictor, "transformer": TransformerPredictor}
