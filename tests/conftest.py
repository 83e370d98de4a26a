import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    """The one source of randomness of a test that needs a single seed; the number of threads is left as it is."""
    return torch.Generator().manual_seed(0)
