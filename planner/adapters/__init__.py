"""A planner for what is not ours: robots behind a wire."""

from __future__ import annotations
