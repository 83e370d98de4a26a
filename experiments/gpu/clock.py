"""Times of a device: CUDA events around the work on a GPU, the steadiest clock of a CPU otherwise.

Warm-up, median and spread.
"""

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from experiments.common import environment


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs of the same work; `spread` is the distance of the quartiles over the median."""

    median: float
    least: float
    spread: float
    num_runs: int

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def timed(work: Callable[[], Any], device: torch.device, *, num_runs: int = 5, num_warm_up: int = 1) -> Timing:
    """Run `work` a few times unmeasured, then measured.

    On a GPU the times are those between two events on the current stream, so that they hold what the device does and
    the gaps in which it waits for the host, but not the last synchronisation.
    """
    for _ in range(num_warm_up):
        work()
    times = [_once(work, device) for _ in range(num_runs)]
    median = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4) if num_runs > 1 else (median, median, median)
    return Timing(median, min(times), (high - low) / median if median > 0 else 0.0, num_runs)


def name(device: torch.device) -> str:
    """How `timed` measures, for captions."""
    return "CUDA events" if device.type == "cuda" else environment.CLOCKS[environment.steady_clock(device).__name__]


def _once(work: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        with environment.stopwatch(device, environment.steady_clock(device)) as elapsed:
            work()
        return elapsed[0]
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
