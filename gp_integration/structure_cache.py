"""Pivots and neighbours found for a kernel, remembered for its next training step.

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

# A remembered structure may need this much more than a fresh one before a new one is searched.
_GROWTH = 1.5
_SLACK = 2
# Standard errors are themselves uncertain by a fifth with fifteen probes.
_ERROR_GROWTH = 2


@dataclass(frozen=True)
class Cost:
    """What a call cost with a structure: iterations, and the standard error of its log-determinant."""

    num_iterations: int
    standard_error: float


@dataclass(frozen=True)
class _Known:
    structure: rf.Structure
    when_new: Cost


_lock = threading.Lock()
_known: "weakref.WeakKeyDictionary[torch.nn.Module, dict[Hashable, _Known]]" = weakref.WeakKeyDictionary()


def recall(kernel: torch.nn.Module, key: Hashable) -> rf.Structure | None:
    """The structure last found for this kernel, under the same key (shape, type, options)."""
    with _lock:
        known = _known.get(kernel, {}).get(key)
    return None if known is None else known.structure


def serves(kernel: torch.nn.Module, key: Hashable, structure: rf.Structure, cost: Cost) -> bool:
    """Remember a new structure by what it cost; forget an old one once it costs clearly more.

    Args:
        kernel: Whose covariance it is.
        key: As in `recall`.
        structure: The structure that was used.
        cost: What the call cost with it.

    Returns:
        False if it was an old one and has been forgotten: the call is worth repeating.
    """
    with _lock:
        of_kernel = _known.setdefault(kernel, {})
        known = of_kernel.get(key)
        if known is None or known.structure is not structure:
            of_kernel[key] = _Known(structure, cost)
            return True
        limit = _GROWTH * known.when_new.num_iterations + _SLACK
        if cost.num_iterations <= limit and cost.standard_error <= _ERROR_GROWTH * known.when_new.standard_error:
            return True
        del of_kernel[key]
        return False


def forget(kernel: torch.nn.Module, key: Hashable) -> None:
    """Drop a structure that failed."""
    with _lock:
        _known.get(kernel, {}).pop(key, None)
