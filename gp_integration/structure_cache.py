"""Pivots and neighbours found for a kernel, kept for its next training step.

Finding them is most of the cost of a preconditioner, and hyperparameters move slowly: the rows that
were close stay close. A structure is dropped as soon as it needs clearly more iterations, or leaves a
clearly larger standard error, than when it was new.
"""

import threading
import weakref
from collections.abc import Hashable
from dataclasses import dataclass

import torch

import rangeformer as rf

# A kept structure may need this much more than a fresh one before a new one is searched.
_GROWTH = 1.5
_SLACK = 2
# Standard errors are themselves uncertain by a fifth with fifteen probes.
_ERROR_GROWTH = 2


@dataclass(frozen=True)
class CallCost:
    """What a call cost with a structure: iterations, and the standard error of its log-determinant."""

    num_iterations: int
    standard_error: float


@dataclass(frozen=True)
class _Entry:
    structure: rf.Structure
    when_new: CallCost


_lock = threading.Lock()
_entries: "weakref.WeakKeyDictionary[torch.nn.Module, dict[Hashable, _Entry]]" = weakref.WeakKeyDictionary()


def find(kernel: torch.nn.Module, key: Hashable) -> rf.Structure | None:
    """The structure last found for this kernel, under the same key (shape, type, options)."""
    with _lock:
        entry = _entries.get(kernel, {}).get(key)
    return None if entry is None else entry.structure


def keep_if_serving(kernel: torch.nn.Module, key: Hashable, structure: rf.Structure, cost: CallCost) -> bool:
    """Keep a new structure with what it cost; drop a kept one once it costs clearly more.

    Args:
        kernel: The kernel behind the matrix.
        key: As in `find`.
        structure: The structure that was used.
        cost: What the call cost with it.

    Returns:
        False if it was a kept one and has been dropped: the call is worth repeating.
    """
    with _lock:
        of_kernel = _entries.setdefault(kernel, {})
        entry = of_kernel.get(key)
        if entry is None or entry.structure is not structure:
            of_kernel[key] = _Entry(structure, cost)
            return True
        limit = _GROWTH * entry.when_new.num_iterations + _SLACK
        if cost.num_iterations <= limit and cost.standard_error <= _ERROR_GROWTH * entry.when_new.standard_error:
            return True
        del of_kernel[key]
        return False


def drop(kernel: torch.nn.Module, key: Hashable) -> None:
    """Drop a structure that failed."""
    with _lock:
        _entries.get(kernel, {}).pop(key, None)
