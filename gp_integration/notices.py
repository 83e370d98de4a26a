"""Saying once what is left alone."""

import threading
import warnings

from gp_integration.state import Block

_lock = threading.Lock()
_said: set[str] = set()


class LeftAloneWarning(UserWarning):
    """Something inside `use_rangeformer` runs on GPyTorch's own path because we cannot speed it up."""


def leave_alone(block: Block, kind: str) -> None:
    """Record that `kind` stays with GPyTorch, and warn the first time in this process."""
    block.recorder.left_alone(kind)
    with _lock:
        if kind in _said:
            return
        _said.add(kind)
    warnings.warn(
        f"use_rangeformer leaves this to GPyTorch: {kind}. The results are the same as outside the block. "
        "This is said once; settings.last_report().left_alone counts.",
        LeftAloneWarning,
        stacklevel=4,
    )


def forget() -> None:
    """Say everything again; for tests."""
    with _lock:
        _said.clear()
