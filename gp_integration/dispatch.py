"""When a matrix is small enough to stay with GPyTorch's Cholesky."""

from linear_operator import settings as linear_operator_settings
from linear_operator.operators import LinearOperator

from gp_integration.state import Block

SMALL = "matrices small enough for Cholesky"


def stays_with_cholesky(block: Block, operator: LinearOperator) -> bool:
    """Whether GPyTorch would answer exactly, by Cholesky, and faster than we can; recorded if so.

    Both thresholds count: ours because importing BoTorch raises GPyTorch's to 4096, where we are
    faster; GPyTorch's because above it the alternative is not Cholesky.
    """
    size = operator.shape[-1]
    small = size <= min(block.options.min_size, linear_operator_settings.max_cholesky_size.value())
    if small:
        block.recorder.left_alone(SMALL)
    return small
