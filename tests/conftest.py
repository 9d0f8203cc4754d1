"""What every test stands on."""

from __future__ import annotations

import torch

torch.set_num_threads(1)  # tensors in tests are small, and two threads that wait for each other are slower than one
