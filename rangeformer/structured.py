"""Deprecated: now `rangeformer.distributions`. This module goes with the next version."""

import warnings
from typing import Any

from rangeformer import distributions

warnings.warn(
    "`rangeformer.structured` is now `rangeformer.distributions`; the old name goes with the next version.",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> Any:
    return getattr(distributions, name.replace("LAWS", "DISTRIBUTIONS").replace("Law", "Distribution"))
