"""A whole search as one CUDA graph: recorded once, then replayed without a word between host and device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .optimizers.noise import Streams
from .plan import Plan, plan
from .types import Context, EnergyLike, Optimizer, WorldModel


class CapturedPlan:
    """`plan.plan` for inputs of one shape: what is launched is recorded at the first call and replayed at the others.

    A small model leaves a GPU waiting for the next kernel to be launched; a graph launches all of them at once. Inputs
    are copied into fixed buffers and results out of them. Inputs of another shape, as when fewer environments are due,
    get a recording of their own, and keep it. On the CPU there is nothing to record, and every call is an ordinary one
    on the same fixed buffers: equal to `plan` to the last bit, which is how this path is tested without a GPU.

    The model, the energy and the optimizer must not change between calls. There is no `deadline_ms`: a graph cannot
    stop half way.

    Args:
        model: rehearses candidates.
        energy: what is minimised.
        optimizer: how.
        iterations: rounds of ask and tell, >= 1.
        horizon: T, model steps to look ahead, >= 1.
        generator: the only source of noise, on the device of the contexts; it moves on as `plan` would move it.
        chunk: most candidates in one rollout, as in `plan`.
        max_bytes: most memory of one rollout, as in `plan`.
    """

    def __init__(
        self,
        model: WorldModel,
        energy: EnergyLike,
        optimizer: Optimizer[Any],
        *,
        iterations: int,
        horizon: int,
        generator: torch.Generator,
        chunk: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.model, self.energy, self.optimizer = model, energy, optimizer
        self.generator = generator
        self.options = {"iterations": iterations, "horizon": horizon, "chunk": chunk, "max_bytes": max_bytes}
        self._recorded: dict[tuple[Any, ...], _Recording] = {}

    def after(self, before: object) -> CapturedPlan:
        """This one, with what was recorded `before` if that was the same search on the same device: noise of `Streams`
        is lent to a recording at each call, so that another episode's does as well."""
        if isinstance(before, CapturedPlan) and self._known() == before._known():
            self._recorded = before._recorded
        return self

    def _known(self) -> tuple[Any, ...]:
        """What a recording is of, and cannot be told apart by its shapes."""
        device = self.generator.device if isinstance(self.generator, Streams) else id(self.generator)
        return id(self.model), id(self.energy), id(self.optimizer), device, tuple(self.options.items())

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle is made from: it records anew."""
        return self.__dict__ | {"_recorded": {}}

    @torch.no_grad()
    def __call__(self, context: Context, goal: TensorDict, proposals: Tensor) -> Plan:
        """As `plan.plan`: context of E environments, goal `[E]`, proposals `[E, P, T, A]`."""
        noise = self.generator
        inputs = TensorDict({"latent": context.latent, "past": context.actions, "goal": goal, "proposals": proposals})
        shapes = tuple((name, value.shape, value.dtype) for name, value in sorted(inputs.items(True, True), key=_name))
        if shapes not in self._recorded:
            # The noise of whoever is due is lent to a recording: one for every set of environments would be thousands.
            lent = Streams(noise.device, [0] * len(noise.rows)) if isinstance(noise, Streams) else noise
            self._recorded[shapes] = _Recording(self._search, inputs, lent)
        recording = self._recorded[shapes]
        if not isinstance(noise, Streams):
            return recording(inputs)
        assert isinstance(recording.noise, Streams)
        recording.noise.fill(noise)
        found = recording(inputs)
        noise.fill(recording.noise)
        return found

    def _search(self, inputs: TensorDict, noise: torch.Generator) -> Plan:
        return plan(
            self.model,
            Context(inputs["latent"], inputs["past"]),
            inputs["goal"],
            self.energy,
            self.optimizer,
            proposals=inputs["proposals"],
            generator=noise,
            **self.options,  # type: ignore[arg-type]
        )


def _name(item: tuple[Any, Any]) -> str:
    """What to sort by: the name alone, since to write out a tensor takes milliseconds, and a device has to wait."""
    return str(item[0])


class _Recording:
    """One shape's buffers and noise, and what to do with them."""

    def __init__(
        self, search: Callable[[TensorDict, torch.Generator], Plan], inputs: TensorDict, noise: torch.Generator
    ) -> None:
        self.search, self.inputs, self.noise = search, inputs.clone(), noise
        self.graph: torch.cuda.CUDAGraph | None = None
        if noise.device.type == "cuda":  # where the caller put the noise; graphs exist nowhere else
            self._record()

    def _record(self) -> None:
        device = self.noise.device
        streams = self.noise.all_due() if isinstance(self.noise, Streams) else [self.noise]
        states = [stream.get_state() for stream in streams]
        # Libraries set themselves up in their first calls, which must not be recorded; nor may they use up noise.
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.search(self.inputs, self.noise)
        torch.cuda.current_stream(device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        for stream, state in zip(streams, states, strict=True):
            stream.set_state(state)
            self.graph.register_generator_state(stream)
        with torch.cuda.graph(self.graph):
            self.found = self.search(self.inputs, self.noise)

    def __call__(self, inputs: TensorDict) -> Plan:
        self.inputs.copy_(inputs)
        if self.graph is None:
            self.found = self.search(self.inputs, self.noise)
        else:
            self.graph.replay()
        found = self.found
        return replace(found, actions=found.actions.clone(), energy=found.energy.clone(), trace=found.trace.clone())
