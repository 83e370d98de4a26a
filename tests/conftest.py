import os

import pytest
import torch

# One thread in each process: `-n auto` runs one process for each core, the numbers do not depend on the machine, and
# LU of a batch, which the oracles use, goes wrong in torch 2.13 after a number of threads above one was asked for.
torch.set_num_threads(1)
# Programs that tests start inherit it: threads that wait for each other on a busy machine take many times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def generator() -> torch.Generator:
    """The one source of randomness of a test that needs a single seed."""
    return torch.Generator().manual_seed(0)
