"""Random features that comes with the package."""

from functools import cache
from pathlib import Path

from rangeformer.models.checkpoint import load
from sketching.sketches.random_features import RandomFeatures

WEIGHTS = Path(__file__).parent.parent / "weights" / "lift-v1.safetensors"
"""Trained by `python -m sketching.pretrain --config sketch`; the card beside it says on what, and what came of it."""


@cache
def trained_random_features() -> RandomFeatures:
    """The shipped random features, read once; do not change it.

    Raises:
        FileNotFoundError: If the weights are not installed.
        ValueError: If they are damaged.
    """
    return load(WEIGHTS)
