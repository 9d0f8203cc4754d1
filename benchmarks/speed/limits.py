"""What the machine and the model allow: FLOPs counted, the rate of matrix products, the least FLOPs needed."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .shapes import Problem

Product = tuple[int, int, int]
"""m, k, n of a product of `[m, k]` and `[k, n]`."""


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _packed_linear_flops(inputs: Any, _: Any, bias: Any, *__: Any, out_shape: Any, **___: Any) -> int:
    return 2 * math.prod(out_shape) * int(inputs[-1])


# torch counts attention on accelerators only, and products with packed weights nowhere.
_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.mkldnn._linear_pointwise: _packed_linear_flops,
}


def count_flops(run: Callable[[], object]) -> int:
    """FLOPs of products, convolutions and attention in one call; a multiplication and an addition are two."""
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
        run()
    return counter.get_total_flops()


class Products(TorchDispatchMode):
    """Records the shapes of the matrix products inside it."""

    OPERANDS = {"mm": 0, "addmm": 1}
    """Products, and which of their arguments is the left matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        left = self.OPERANDS.get(func.overloadpacket.__name__)
        if left is not None:
            (m, k), n = args[left].shape, args[left + 1].shape[1]
            self.shapes[m, k, n] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def gemm_rate(shapes: Counter[Product], least_s: float = 0.02) -> float:
    """FLOP/s of these products alone, each as often as it occurs, without bias or allocation, on the threads set now.

    Args:
        shapes: products and how often each occurs.
        least_s: how long to repeat each product at least, seconds.
    """
    flops = seconds = 0.0
    for (m, k, n), times in shapes.items():
        left, weight, out = torch.rand(m, k), torch.rand(n, k).t(), torch.empty(m, n)
        torch.mm(left, weight, out=out)
        began, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - began < least_s:
            torch.mm(left, weight, out=out)
            calls += 1
        seconds += times * (time.perf_counter() - began) / calls
        flops += times * 2.0 * m * k * n
    return flops / seconds


def speed_up(threads: int) -> float:
    """How many times as fast `threads` threads multiply matrices as one does; about `threads` on a quiet machine.

    Where another process has the second core, threads wait for each other and everything takes ten times as long.
    """
    shapes, before, rates = Counter({(512, 512, 512): 1}), torch.get_num_threads(), []
    for count in (1, threads):
        torch.set_num_threads(count)
        rates.append(gemm_rate(shapes, least_s=0.1))
    torch.set_num_threads(before)
    return rates[1] / rates[0]


def least_flops(problem: Problem) -> int:
    """Least FLOPs of the products in one plan whose rollouts equal the naive ones: nothing is done twice.

    Rollouts start from n known frames and slide a window of H over T steps. What depends on the context alone is done
    once an environment, the rest once a candidate and iteration; the optimizer's own arithmetic is left out.
    """
    once_a_candidate, once_an_env = {"mlp": _least_mlp, "transformer": _least_transformer}[
        problem.model.config.predictor
    ](problem)
    budget = problem.budget
    return problem.envs * budget.iterations * (budget.samples * once_a_candidate + once_an_env)


def _least_mlp(problem: Problem) -> tuple[int, int]:
    """Own and shared FLOPs of a rollout with an MLP of L layers of h over a window of H latents and actions.

    The first layer is linear in its inputs. At step t, min(t, H) latents and min(t + 1, H) actions are a candidate's
    own: 2 h (D sum min(t, H) + A sum min(t + 1, H)), and the rest of the windows is shared. Then every step has
    2 h h (L - 1) + 2 h D.
    """
    config, steps = problem.model.config, range(problem.budget.horizon)
    history, hidden, actions = config.history, config.hidden, problem.model.action.dim
    own_latents, own_actions = sum(min(t, history) for t in steps), sum(min(t + 1, history) for t in steps)
    own = 2 * hidden * (config.latent_dim * own_latents + actions * own_actions)
    own += len(steps) * 2 * hidden * (hidden * (config.depth - 1) + config.latent_dim)
    every = 2 * hidden * len(steps) * history * (config.latent_dim + actions)
    return own, every - 2 * hidden * (config.latent_dim * own_latents + actions * own_actions)


def _least_transformer(problem: Problem) -> tuple[int, int]:
    """Own and shared FLOPs of a rollout with a causal transformer whose tokens carry their place in the window.

    While the window grows, one token a step is new and the others' keys and values are remembered. Once it slides,
    every token has another place and has lost a neighbour, so that all of the window is new: with n = 1, H = 3 and
    T = 5 there are 1 + 1 + 1 + 3 + 3 = 9 tokens, where the naive rollout has 12. A block has, for each of them, inner
    width I = 64 x heads and feed-forward width h:

        keys and values 4 D I, output 2 D I, feed-forward 4 D h,
        and if v > 1 tokens are seen, query 2 D I and attention 4 v I

    but in the last block, tokens other than the newest only keys and values. A step also has the head, 4 D h, and the
    modulations of its action, 2 (A D + D D + 6 D D blocks), which are the same at every place.
    """
    config, actions = problem.model.config, problem.model.action.dim
    d, inner, hidden, depth = config.latent_dim, 64 * config.heads, config.hidden, config.depth
    known, history, horizon = problem.latents.shape[1], config.history, problem.budget.horizon
    modulations = 2 * (actions * d + d * d + 6 * d * d * depth)
    own, shared = horizon * (modulations + 4 * d * hidden), (known - 1) * modulations
    for t in range(horizon):
        newest, start = known + t - 1, max(0, known + t - history)
        for token in range(start if t == 0 or start > 0 else newest, newest + 1):
            seen = token - start + 1
            choice = (2 * d * inner + 4 * seen * inner) if seen > 1 else 0
            whole = 4 * d * inner + 2 * d * inner + 4 * d * hidden + choice
            flops = (depth - 1) * whole + (whole if token == newest else 4 * d * inner)
            own, shared = (own + flops, shared) if token >= known - 1 else (own, shared + flops)
    return own, shared
