"""Former names, which stay usable for one version and say what they are called now."""

import sys
import warnings
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, TypeVar

Value = TypeVar("Value")


_CHECKERS = ("jaxtyping", "beartype")  # which wrap every function in the tests
_OURS = ("rangeformer", "sketching", "gp_integration", "gpytorch", "linear_operator", "torch", *_CHECKERS)


def callers_level() -> int:
    """The `stacklevel` at which a function that calls this one, and warns, points at the code that called us."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _package(frame) in _CHECKERS:
        frame = frame.f_back
    level = 1
    while frame.f_back is not None and _package(frame) in _OURS:
        frame, level = frame.f_back, level + 1
    return level


def _package(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "").partition(".")[0]


def warn_renamed(old: str, new: str) -> None:
    """Say what a former name is called now; the warning points at the caller.

    Args:
        old: As the caller wrote it, with quotation marks.
        new: What to write instead, with quotation marks.
    """
    message = f"{old} is now called {new}; the old name goes with the next version."
    warnings.warn(message, DeprecationWarning, stacklevel=callers_level())


def renamed(old: str, new: str, value: Value) -> Value:
    """The value given under a keyword's former name, with a warning that names the new one."""
    warn_renamed(f"`{old}`", f"`{new}`")
    return value


def renamed_attributes(package: str, renamed: Mapping[str, Any]) -> Callable[[str], Any]:
    """A package's `__getattr__` for its former names.

    Args:
        package: Its name.
        renamed: Former name -> what it stands for, which has a `__name__`.
    """

    def lookup(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = renamed[name]
        warn_renamed(f"`{package}.{name}`", f"`{package}.{found.__name__}`")
        return found

    return lookup
