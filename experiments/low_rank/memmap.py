"""A matrix larger than the memory it may take: a memory map approximated by a process whose peak is measured.

    python -m experiments.low_rank.memmap --gigabytes 6

The matrix, low rank plus noise, is written block by block to a temporary folder and removed afterwards. A fresh process
opens it and calls `sketching.randomized_svd` as anyone would; its largest resident set (VmHWM of Linux, which counts
Python, torch, and mapped pages in use) is the peak.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

import sketching
from experiments.common import environment
from experiments.common.options import option, parse
from experiments.common.reporting import progress, say, seconds, show_table, write_json

_BLOCK_ENTRIES = 20_000_000


@dataclass(frozen=True)
class Config:
    """Peak memory, passes and time of a low-rank approximation of a file."""

    gigabytes: float = option(6.0, "size of the file, in units of 10^9 bytes")
    num_columns: int = option(10_000, "columns; the rows follow")
    rank: int = option(20, "triplets wanted")
    noise: float = option(0.01, "standard deviation of the noise beside a low-rank part of mean square one")
    seed: int = option(0, "of the matrix and the sketch")
    folder: Path | None = option(None, "where the file goes. Default: the system's temporary folder")
    output: Path = option(Path("results"), "folder of the JSON file")
    smoke: bool = option(False, "a tiny run that shows that everything works")

    def __post_init__(self):
        """Check what the types do not say."""
        if self.gigabytes <= 0:
            raise ValueError(f"`--gigabytes` must be positive. Got {self.gigabytes}.")
        if min(self.num_columns, self.rank) < 1:
            raise ValueError("`--num-columns` and `--rank` must be at least 1.")


def main(config: Config) -> dict:
    """Write, measure, remove, show, and return what was written."""
    if config.smoke:
        config = replace(config, gigabytes=0.02, num_columns=500, rank=5)
    m = max(2 * config.rank, round(config.gigabytes * 1e9 / 4 / config.num_columns))
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        path = Path(folder) / "matrix.npy"
        build(path, (m, config.num_columns), config)
        command = [sys.executable, __file__, str(path), str(config.rank), str(config.seed)]
        run = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    result = {
        "kind": "sketching-memmap",
        "config": {name: value for name, value in asdict(config).items() if name not in ("folder", "output")},
        "environment": environment.describe(torch.device("cpu")),
        "shape": [m, config.num_columns],
        "optimum": (1 + config.noise**-2) ** -0.5,  # of the rank of the low-rank part, up to the sampling of the noise
        **run,
    }
    show_table(caption(result), *comparison(result))
    write_json(config.output / "sketching-memmap.json", result)
    say(f"wrote {config.output / 'sketching-memmap.json'}")
    return result


def build(path: Path, shape: tuple[int, int], config: Config) -> None:
    """B C^T / sqrt(rank) + noise, blocks of rows at a time."""
    m, n = shape
    generator = np.random.default_rng(config.seed)
    C = generator.standard_normal((config.rank, n), dtype=np.float32) / np.float32(config.rank**0.5)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    step = max(1, _BLOCK_ENTRIES // n)
    with progress("writing the matrix", -(-m // step)) as done:
        for start in range(0, m, step):
            count = min(step, m - start)
            B = generator.standard_normal((count, config.rank), dtype=np.float32)
            block = generator.standard_normal((count, n), dtype=np.float32)
            block *= np.float32(config.noise)
            array[start : start + count] = block + B @ C
            done("")
    array.flush()


def measure(path: Path, rank: int, seed: int) -> dict:
    """What the fresh process does."""
    before = _peak()
    A = np.load(path, mmap_mode="r")
    with environment.stopwatch(torch.device("cpu")) as clock:
        result = sketching.randomized_svd(A, rank, generator=torch.Generator().manual_seed(seed))
    return {
        "seconds": clock[0],
        "num_passes": result.num_passes,
        "num_entries": result.num_entries,
        "relative_error": result.relative_error,
        "peak_bytes": _peak(),
        "peak_bytes_before": before,
        "message": result.message,
    }


def _peak() -> int:
    # not ru_maxrss, which a process inherits from the one that started it, and that one has just written the matrix
    match = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert match, "no VmHWM in /proc/self/status"
    return int(match[1]) * 1024


def caption(result: dict, view: str = "") -> str:
    """What the numbers are."""
    m, n = result["shape"]
    return f"A memory map of {m:,} x {n:,} float32, {m * n * 4 / 1e9:.1f} GB, rank {result['config']['rank']}"


def comparison(result: dict, view: str = "") -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    m, n = result["shape"]
    rows = [
        ["peak resident memory", f"{result['peak_bytes'] / 1e9:.2f} GB"],
        ["of it before the call", f"{result['peak_bytes_before'] / 1e9:.2f} GB"],
        ["passes", str(result["num_passes"])],
        ["entries read beforehand", f"{100 * result['num_entries'] / (m * n):.1f} % of a pass"],
        ["time, file in the system's cache", seconds(result["seconds"])],
        ["relative error, as estimated", f"{result['relative_error']:.4f}"],
        ["noise over the norm, about the optimum", f"{result['optimum']:.4f}"],
    ]
    return ["", "measured"], rows


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main(parse(Config))
