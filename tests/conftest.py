"""Settings and fixtures for all tests."""

from __future__ import annotations

import torch

# The models are tiny and the tests run in parallel: more threads would only wait for each other.
torch.set_num_threads(1)
