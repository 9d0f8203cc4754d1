"""Rehearsing with a frozen copy of the predictor, laid out for the processor, and rounded if asked."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any, cast

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from ..types import Context
from .jepa import JEPA
from .predictors import Predictor, SplitLinear


class Packed:
    """Implements `types.WorldModel`: a JEPA that rehearses with a copy of its predictor, frozen as it is now.

    On a CPU with oneDNN the copy's weights lie in that library's own order, and activations are applied while a product
    is still in the cache; but in float32 not where the processor has AVX2 and no AVX-512, where torch's own products
    are the faster ones (decision 99). In float32 this changes results in the last digits only. In bfloat16 imagined
    latents carry the rounding, about 1 % of their size after five steps; processors without bfloat16 arithmetic emulate
    it, several times slower than float32, and where oneDNN has no order for such weights (x86 without AVX-512) they
    stay in torch's own, with a warning. Pictures are encoded, and energies taken, in the model's own precision.

    Args:
        model: the JEPA, which stays as it is. If it learns on, make another copy.
        dtype: of the copy.
    """

    def __init__(self, model: JEPA, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype, self.action, self.history = model, dtype, model.action, model.history
        self.predictor = deepcopy(model.predictor).to(dtype).eval().requires_grad_(False)
        self._pack()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made from: oneDNN's own order is known to this process alone."""
        return {name: value for name, value in self.__dict__.items() if name != "packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._pack()

    def _pack(self) -> None:
        self.packed = self.predictor
        if not torch.backends.mkldnn.is_available() or next(self.predictor.parameters()).device.type != "cpu":
            return
        if self.dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX2":
            return
        if self.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            warnings.warn("this processor does not multiply bfloat16; float32 would be faster", stacklevel=3)
        else:
            shared = {id(one): one for one in self.predictor.parameters()}  # each is here once, and once more packed
            self.packed = cast(Predictor, pack(deepcopy(self.predictor, shared)))

    def encode(self, obs: TensorDict) -> TensorDict:
        """Observations to latents, in the model's own precision."""
        return self.model.encode(obs)

    def rollout(self, context: Context, actions: Tensor) -> TensorDict:
        """Candidates `[E, S, T, A]` to the latents after each step, `latent` `[E, S, T, D]`, in the context's type."""
        latents = context.latent["latent"]
        parts = (part.to(self.dtype) for part in (latents, context.actions, actions))
        # A packed product has no derivative, so an optimizer that asks for one gets the ordinary copy.
        followed = torch.is_grad_enabled() and (actions.requires_grad or latents.requires_grad)
        # One row takes 1.3 ms packed and 0.8 ms not (8 steps, 512 wide); from 16 rows on packing pays. So it does, for
        # any number of rows, in bfloat16.
        few = actions.shape[0] * actions.shape[1] < 16 and self.dtype == torch.float32
        futures = (self.predictor if followed or few else self.packed).unroll(*parts).to(latents.dtype)
        return TensorDict({"latent": futures}, batch_size=futures.shape[:3])

    def bytes_per_plan(self, horizon: int) -> int:
        """As `JEPA.bytes_per_plan`; what rounded copies take beside is no more than they save."""
        return self.model.bytes_per_plan(horizon)


class PackedLinear(nn.Module):
    """What a linear layer computes, without gradients, from weights in oneDNN's own order.

    Args:
        weight: `[out, in]`, float32 or bfloat16, on a CPU.
        bias: `[out]`, or None.

    Attributes:
        weight: as it was given, for modules that read it past `forward`, as torch's own transformers do.
        after: what is applied to the outputs: "none", "swish" (SiLU) or "gelu".
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias, self.after = weight.detach(), bias, "none"
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous())
        self._parts: dict[tuple[int, int | None], PackedLinear] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        algorithm = "none" if self.after == "gelu" else ""  # of GELU: the exact one
        return torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self.bias, self.after, [], algorithm)

    def part(self, inputs: Tensor, start: int, stop: int | None = None) -> Tensor:
        """As `SplitLinear.part`."""
        if (start, stop) not in self._parts:
            self._parts[start, stop] = PackedLinear(self.weight[:, start:stop], None)
        return self._parts[start, stop](inputs)


AFTER: dict[type[nn.Module], str] = {nn.SiLU: "swish", nn.GELU: "gelu"}


def pack(module: nn.Module) -> nn.Module:
    """The module with every linear layer packed, changed in place or replaced; in sequences, without dropout."""
    if isinstance(module, nn.Linear) and type(module) in (nn.Linear, SplitLinear):
        return PackedLinear(module.weight, module.bias)
    if type(module) is nn.Sequential:
        return _packed_sequence([layer for layer in module if not isinstance(layer, nn.Dropout)])
    for name, child in module.named_children():
        setattr(module, name, pack(child))
    return module


def _packed_sequence(layers: list[nn.Module]) -> nn.Sequential:
    """Activations go into the layer before, but not into a `SplitLinear`, whose outputs may be shares of a sum."""
    kept: list[nn.Module] = []
    for before, layer in zip([None, *layers], layers, strict=False):
        exact = getattr(layer, "approximate", "none") == "none"  # GELU's
        if type(before) is nn.Linear and type(layer) in AFTER and exact:
            cast(PackedLinear, kept[-1]).after = AFTER[type(layer)]
        else:
            kept.append(pack(layer))
    return nn.Sequential(*kept)
