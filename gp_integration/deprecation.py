"""Keywords under their former names, for one version."""

from typing import TypeVar

from rangeformer.deprecation import warn_renamed

Value = TypeVar("Value")


def renamed(old: str, new: str, value: Value) -> Value:
    """The value given under a keyword's former name, with a warning that names the new one."""
    warn_renamed(f"`{old}`", f"`{new}`", stacklevel=4)
    return value
