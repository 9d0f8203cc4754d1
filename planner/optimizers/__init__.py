"""Sampling optimizers: frozen dataclasses of knobs with four pure functions, `init`, `ask`, `tell` and `best`.

`planner.plan.plan` owns the loop; `planner.testing.check_optimizer` holds what it relies on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from ..errors import BadInput
from .categorical import CategoricalCEM
from .cem import CEM, CEMState
from .chain import Chain
from .gradient import Gradient
from .hold import Hold
from .icem import ICEM
from .mixture import MixtureCEM
from .mppi import MPPI, MPPIState
from .sampling import PredictiveSampling
from .smooth import Smooth

AnyOptimizer = CEM | ICEM | MPPI | PredictiveSampling | Gradient | Chain | MixtureCEM | CategoricalCEM

OPTIMIZERS: dict[str, type[AnyOptimizer]] = {
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "sampling": PredictiveSampling,
    "gradient": Gradient,
    "chain": Chain,
    "mixture": MixtureCEM,
    "categorical": CategoricalCEM,
}


def make_optimizer(name: str, knobs: Mapping[str, Any] = MappingProxyType({})) -> AnyOptimizer:
    """The optimizer called `name` in `OPTIMIZERS`, with `knobs` for its fields and defaults for the others.

    Raises:
        BadInput: the name, a knob or a knob's value is not known there.
    """
    if name not in OPTIMIZERS:
        raise BadInput("unknown optimizer", expected=f"one of {sorted(OPTIMIZERS)}", got=repr(name))
    kind = OPTIMIZERS[name]
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(knobs) - set(known)):
        raise BadInput(f"unknown knobs of optimizer {name!r}", expected=f"some of {known}", got=str(unknown))
    return kind(**knobs)


__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "OPTIMIZERS",
    "AnyOptimizer",
    "CEMState",
    "CategoricalCEM",
    "Chain",
    "Gradient",
    "Hold",
    "MPPIState",
    "MixtureCEM",
    "PredictiveSampling",
    "Smooth",
    "make_optimizer",
]
