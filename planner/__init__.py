"""Planning in the latent space of a joint-embedding predictive world model, from pixels to image goals."""

from __future__ import annotations

__version__ = "0.1.0"
