"""Keywords under their former names, for one version."""

import warnings
from typing import TypeVar

Value = TypeVar("Value")


def renamed(old: str, new: str, value: Value) -> Value:
    """The value given under a keyword's former name, with a warning that names the new one."""
    warnings.warn(
        f"`{old}` is now called `{new}`; the old name goes with the next version.", DeprecationWarning, stacklevel=3
    )
    return value
