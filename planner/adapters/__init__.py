"""A planner for what is not ours: robots behind a wire, and loops made for trained agents."""

from __future__ import annotations
