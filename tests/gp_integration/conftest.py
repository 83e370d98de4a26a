import gpytorch  # noqa: F401 - so that its import-time warnings are not a test's
import pytest
import torch

from gp_integration import left_alone, patches


@pytest.fixture(autouse=True)
def _clean_slate():
    """Every test starts from the same seed, gets every warning anew, and leaves no patch behind."""
    torch.manual_seed(0)
    left_alone.forget_warnings()
    yield
    assert patches._num_users == 0, "a test left a block open"
    assert not patches._installed, "a test left GPyTorch patched"
