"""How good a planner is: the protocol, its statistics, the video and the report."""

from __future__ import annotations
