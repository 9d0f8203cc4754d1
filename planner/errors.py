"""The one exception for input that a person can mend: the command line prints it as a line and exits with code 2."""

from __future__ import annotations


class BadInput(ValueError):
    """Something given to us is wrong, and the message says what, what was expected, what came, and what to do."""

    def __init__(self, what: str, *, expected: str = "", got: str = "", do: str = "") -> None:
        parts = [what, f"expected {expected}" if expected else "", f"got {got}" if got else "", do]
        super().__init__("; ".join(part for part in parts if part))
