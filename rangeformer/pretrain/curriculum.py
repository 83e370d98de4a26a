"""What tasks draw as training goes on: sizes from small to large, and a random number of loops.

Small matrices first because their batches are cheap and the weights do not know n; a random number of loops because a
model that is trained at one number is right at that number only (Fan et al., Looped transformers for length
generalization, arXiv:2409.15647).
"""

import math
from collections.abc import Sequence

import torch


def sizes_at(sizes: Sequence[int], progress: float, *, full_at: float) -> tuple[int, ...]:
    """The sizes that may be drawn: the smallest at first, one more at a time, all of them from `full_at` on.

    Args:
        sizes: All sizes.
        progress: Share of the run that is over.
        full_at: Progress from which all sizes are drawn; 0 for no curriculum.

    Example:
        >>> from rangeformer.pretrain.curriculum import sizes_at
        >>> sizes_at((64, 32, 128), 0.3, full_at=0.5)
        (32, 64)
    """
    ordered = tuple(sorted(sizes))
    if progress >= full_at:
        return ordered
    return ordered[: 1 + math.floor((len(ordered) - 1) * progress / full_at)]


def draw_size(sizes: Sequence[int], progress: float, *, full_at: float, generator: torch.Generator) -> int:
    """One of `sizes_at`, all equally likely."""
    allowed = sizes_at(sizes, progress, full_at=full_at)
    return allowed[draw_index(len(allowed), generator)]


def draw_between(ends: tuple[int, int], generator: torch.Generator) -> int:
    """A whole number between the ends, both included: numbers of loops, of neighbours..."""
    return ends[0] + draw_index(ends[1] - ends[0] + 1, generator)


def check_ends(name: str, ends: tuple[int, int]) -> None:
    """Ends for `draw_between`.

    Raises:
        ValueError: If they are not positive and ascending.
    """
    low, high = ends
    if not 1 <= low <= high:
        raise ValueError(f"`{name}` must be two numbers, 1 <= least <= largest. Got {(low, high)}.")


def draw_index(count: int, generator: torch.Generator) -> int:
    """One of 0, ..., count - 1."""
    return int(torch.randint(count, (), generator=generator, device=generator.device).item())
