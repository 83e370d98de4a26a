"""Which block is active: per thread and per task, unlike GPyTorch's settings.

GPyTorch keeps settings in class attributes, which every thread sees. A `ContextVar` keeps them apart.
It would be invisible to the worker threads that run backward passes on a GPU, but our backward
passes carry all they need in closures and never ask whether a block is active.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from gp_integration.options import BlockOptions
from gp_integration.report import Recorder


@dataclass(frozen=True)
class SettingsBlock:
    """One entered `use_rangeformer`; a linked list, innermost first.

    Attributes:
        options: The block's options, None inside `use_rangeformer(False)`.
        recorder: Where calls are recorded.
        outer: The block around this one.
    """

    options: BlockOptions | None
    recorder: Recorder
    outer: "SettingsBlock | None"


_innermost: ContextVar[SettingsBlock | None] = ContextVar("gp_integration_block", default=None)
_latest: ContextVar[Recorder | None] = ContextVar("gp_integration_latest_recorder", default=None)


def innermost() -> SettingsBlock | None:
    """The innermost block of this thread, switched off or not."""
    return _innermost.get()


def current() -> SettingsBlock | None:
    """The innermost block of this thread if it is switched on, else None."""
    block = _innermost.get()
    return block if block is not None and block.options is not None else None


def latest_recorder() -> Recorder | None:
    """The recorder of the block this thread entered last, running or finished."""
    return _latest.get()


def push(options: BlockOptions | None) -> SettingsBlock:
    """Enter a block; its recorder becomes the latest unless it is switched off."""
    block = SettingsBlock(options, Recorder(), _innermost.get())
    _innermost.set(block)
    if options is not None:
        _latest.set(block.recorder)
    return block


def remove(recorders: list[Recorder]) -> Recorder:
    """Leave the innermost of one's own blocks, wherever it stands: blocks may be left in another order than entered.

    Args:
        recorders: Those of the blocks that may be left, in the order of their entries.

    Returns:
        The recorder of the block that was left.

    Raises:
        RuntimeError: None of them is active in this thread or task.
    """
    inside: list[SettingsBlock] = []
    block = _innermost.get()
    while block is not None and not any(block.recorder is recorder for recorder in recorders):
        inside.append(block)
        block = block.outer
    if block is None:
        raise RuntimeError("use_rangeformer: a block was left in a thread or task that had not entered it.")
    left, outer = block.recorder, block.outer
    for kept in reversed(inside):
        outer = SettingsBlock(kept.options, kept.recorder, outer)
    _innermost.set(outer)
    return left


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Run GPyTorch's own code: inside, no block is active."""
    outer = _innermost.get()
    try:
        _innermost.set(None)
        yield
    finally:
        _innermost.set(outer)
