"""What stays with GPyTorch: small matrices silently, everything else with a warning the first time."""

import threading
import warnings

from linear_operator import settings as linear_operator_settings
from linear_operator.operators import LinearOperator

from gp_integration.state import SettingsBlock
from rangeformer.deprecation import callers_level

SMALL = "matrices small enough for Cholesky"

_lock = threading.Lock()
_warned: set[str] = set()


class LeftAloneWarning(UserWarning):
    """Something inside `use_rangeformer` runs on GPyTorch's own path because we cannot speed it up."""


def stays_with_cholesky(block: SettingsBlock, operator: LinearOperator) -> bool:
    """Whether GPyTorch would answer exactly, by Cholesky, and faster than we can; recorded if so.

    Both thresholds count: `min_size` because importing BoTorch raises GPyTorch's to 4096, where
    `rangeformer` is faster; GPyTorch's because above it the alternative is not Cholesky.
    """
    small = is_small(block, operator.shape[-1])
    if small:
        block.recorder.left_alone(SMALL)
    return small


def is_small(block: SettingsBlock, size: int) -> bool:
    """Whether matrices of this order stay with GPyTorch's Cholesky in this block."""
    return size <= min(block.options.min_size, linear_operator_settings.max_cholesky_size.value())


def leave_alone(block: SettingsBlock, kind: str) -> None:
    """Record that `kind` stays with GPyTorch, and warn the first time in this process."""
    block.recorder.left_alone(kind)
    with _lock:
        if kind in _warned:
            return
        _warned.add(kind)
    warnings.warn(
        f"use_rangeformer leaves this to GPyTorch: {kind}. The results are the same as outside the block. "
        "This is said once; settings.last_report().left_alone counts.",
        LeftAloneWarning,
        stacklevel=callers_level(),
    )


def forget_warnings() -> None:
    """Warn about everything again; for tests."""
    with _lock:
        _warned.clear()
