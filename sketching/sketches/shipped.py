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
    if not WEIGHTS.is_file():
        raise FileNotFoundError(
            f"The shipped random features are not installed: there is no file {str(WEIGHTS)!r}. Reinstall the package, "
            "train them with `python -m sketching.pretrain --config sketch --out FILE` and load FILE, or use "
            '`sketch="rangeformer-untrained"`.'
        )
    return load(WEIGHTS)
