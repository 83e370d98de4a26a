"""How errors are measured and summarised.

The paper's relative error, quartiles, geometric means, shares of a headroom.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

NUM_RESAMPLES = 2000


def relative_error(value: Tensor, truth: Tensor) -> float:
    """||value - truth|| / ||truth||: absolute values for numbers, the 1-norm for vectors, entrywise for blocks of them.

    Infinite where the value is not finite, so that an answer that does not exist is the worst of all; the plain norm of
    the value where the truth is zero.
    """
    if not bool(torch.isfinite(value).all()):
        return math.inf
    difference, size = float((value - truth).abs().sum()), float(truth.abs().sum())
    return difference / size if size > 0 else difference


def quartiles(errors: Sequence[float]) -> dict[str, float | None]:
    """Quartiles as values that occurred, the larger of two where they fall between; None where that is infinite."""
    values = np.quantile(np.asarray(errors, dtype=np.float64), (0.25, 0.5, 0.75), method="higher")
    names = ("lower", "median", "upper")
    return {name: float(value) if math.isfinite(value) else None for name, value in zip(names, values, strict=True)}


def geometric_mean(values: Sequence[float], floor: float = 1e-300) -> float:
    """Exp of the mean logarithm; zeros count as `floor`."""
    return float(np.exp(np.log(np.maximum(np.asarray(values, dtype=np.float64), floor)).mean()))


def captured(start: Sequence[float], ours: Sequence[float], oracle: Sequence[float], *, seed: int = 0) -> dict | None:
    """The share of the headroom between `start` and the oracle that `ours` has taken, with a 95 % interval.

    sum (start - ours) / sum (start - oracle) over paired measurements (draws, matrices), smaller being better; sums
    and not a mean of ratios, because a case without headroom has no ratio. Interval by the percentile bootstrap over
    pairs. A negative share is a loss. None where there is no headroom: the oracle is not better than the start.

    Args:
        start: What one has without the learned part (untrained, or the rival), one number per pair.
        ours: The same with the learned part.
        oracle: The same with the best there is.
        seed: Of the resamples.
    """
    pairs = tuple(np.asarray(values, dtype=np.float64) for values in (start, ours, oracle))
    room = float((pairs[0] - pairs[2]).sum())
    if room <= 0:
        return None

    def share(start: np.ndarray, ours: np.ndarray, oracle: np.ndarray, axis: int = -1) -> np.ndarray:
        return (start - ours).sum(axis) / (start - oracle).sum(axis)

    found = {"share": float(share(*pairs)), "num_pairs": len(pairs[0]), "headroom": room / len(pairs[0])}
    if len(pairs[0]) < 2:
        return found
    with np.errstate(divide="ignore", invalid="ignore"):
        interval = bootstrap(
            pairs,
            share,
            paired=True,
            vectorized=True,
            n_resamples=NUM_RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    # a resample without headroom has no share; the interval is then unbounded, and says so by being absent
    return {**found, "low": low, "high": high} if math.isfinite(low) and math.isfinite(high) else found


def share_text(found: dict | None) -> str:
    """A share and its interval as a table says them."""
    if found is None:
        return "no headroom"
    if "low" not in found:
        return f"{found['share']:.0%}"
    return f"{found['share']:.0%} ({found['low']:.0%} to {found['high']:.0%})"


def error_text(value: float | None) -> str:
    """Two digits, or a dash for an error that is infinite or was not measured."""
    return "-" if value is None else f"{value:.1e}"
