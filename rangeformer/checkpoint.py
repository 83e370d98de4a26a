"""Deprecated: now `rangeformer.models.checkpoint`. This module goes with the next version."""

import warnings

from rangeformer.models.checkpoint import SHIPPED as SHIPPED
from rangeformer.models.checkpoint import card_path as card_path
from rangeformer.models.checkpoint import load as load
from rangeformer.models.checkpoint import read_card as read_card
from rangeformer.models.checkpoint import register as register
from rangeformer.models.checkpoint import save as save

warnings.warn(
    "`rangeformer.checkpoint` is now `rangeformer.models.checkpoint`; the old name goes with the next version.",
    DeprecationWarning,
    stacklevel=2,
)
