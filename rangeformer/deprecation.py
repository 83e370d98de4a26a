"""Former names, which stay usable for one version and say what they are called now."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any


def warn_renamed(old: str, new: str, *, stacklevel: int = 3) -> None:
    """Say what a former name is called now.

    Args:
        old: As the caller wrote it, with quotation marks.
        new: What to write instead, with quotation marks.
        stacklevel: Where the caller of the public function is; 3 if that function itself calls this one.
    """
    message = f"{old} is now called {new}; the old name goes with the next version."
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


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
