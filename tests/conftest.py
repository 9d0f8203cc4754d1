"""What every test stands on."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tensors in tests are small, and two threads that wait for each other are slower than one.

    Before each test, and not once: a command with its default `--threads` left two to all tests after it in the same
    process, and one that learns took two minutes in place of twelve seconds.
    """
    torch.set_num_threads(1)
