"""The exception for input that a person can mend: the command line prints it as a line and exits with code 2."""

from __future__ import annotations

MAX_SEED = 2**31 - 1
"""Largest seed taken anywhere; beyond it the libraries' generators disagree on what they take."""


class BadInput(ValueError):
    """Something given to us is wrong, and the message says what, what was expected, what came, and what to do."""

    def __init__(self, what: str, *, expected: str = "", got: str = "", do: str = "") -> None:
        parts = [what, f"expected {expected}" if expected else "", f"got {got}" if got else "", do]
        super().__init__("; ".join(part for part in parts if part))


class TooFewPairs(BadInput):
    """Play gets nowhere within the steps that goals are to lie ahead."""


def check_seed(what: str, seed: int) -> None:
    """Raises `BadInput` unless `seed` is from 0 to `MAX_SEED`."""
    if not 0 <= seed <= MAX_SEED:
        raise BadInput(f"{what}: seed is off", expected=f"0 to {MAX_SEED}", got=str(seed))
