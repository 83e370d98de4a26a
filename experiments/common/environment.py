"""What a number depends on besides the code: versions, machine, threads; and a clock that waits for the device."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def prepare() -> None:
    """Full float32 precision for every matrix product, here and nowhere else."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def describe(device: torch.device) -> dict:
    """Versions and machine, for the JSON of a run."""
    machine = {"cpu": _cpu_name(), "num_threads": torch.get_num_threads()}
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    packages = ("rangeformer", "torch", "gpytorch", "linear_operator", "numpy", "scipy")
    return {"python": platform.python_version(), "versions": {name: version_of(name) for name in packages}, **machine}


@contextmanager
def stopwatch(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> Iterator[list[float]]:
    """Yield a list that holds the seconds by the clock (wall time) once the block has ended and the device is idle."""
    seconds: list[float] = []
    _synchronize(device)
    start = clock()
    yield seconds
    _synchronize(device)
    seconds.append(clock() - start)


CLOCKS = {"process_time": "CPU time of one thread", "perf_counter": "wall time"}
"""What captions call a clock, by its name in `time`."""


def steady_clock(device: torch.device) -> Callable[[], float]:
    """The clock that other work on the machine disturbs least.

    CPU time where one thread does everything, else wall time.
    """
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def version_of(package: str) -> str:
    """The installed version of a distribution, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout
        return "not installed"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
