"""Memory maps give the numbers of the same matrix in memory, in memory that does not grow with the file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import normal, seeded
from sketch_examples import smooth

import sketching
from sketching.arguments import one_matrix
from sketching.out_of_core import memmaps


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(memmaps, "_BLOCK_BYTES", 1 << 14)


def mapped(folder: Path, A: np.ndarray, *, mode: str = "r", order: str = "C") -> np.memmap:
    path = folder / "matrix.npy"
    np.save(path, np.asarray(A, order=order))
    return np.load(path, mmap_mode=mode)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_same_numbers_as_in_memory(tmp_path, mode, order):
    A = smooth(150, 90).numpy()
    low_rank = sketching.randomized_svd(mapped(tmp_path, A, mode=mode, order=order), 6, generator=seeded(2))
    expected = sketching.randomized_svd(A, 6, generator=seeded(2))
    assert torch.allclose(low_rank.S, expected.S, rtol=1e-10)
    assert (low_rank.num_passes, low_rank.num_entries) == (expected.num_passes, expected.num_entries)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_read_equals_the_arrays(tmp_path, dtype, order):
    A = normal(70, 50).numpy().astype(dtype)
    operator = one_matrix(mapped(tmp_path, A, order=order))
    right, left = normal(50, 3).to(operator.dtype), normal(70, 3).to(operator.dtype)
    matrix, tolerance = torch.from_numpy(A), {"rtol": 1e-4, "atol": 1e-5}
    assert torch.allclose(operator.matmul(right), matrix @ right, **tolerance)
    assert torch.allclose(operator.rmatmul(left), matrix.mT @ left, **tolerance)
    index = torch.tensor([41, 3, 8])
    assert torch.equal(operator.rows(index), matrix[index])
    assert torch.equal(operator.columns(index), matrix[:, index])
    assert torch.equal(operator.entries(index, index.flip(0)), matrix[index, index.flip(0)])


def test_part_of_a_map_is_read_as_that_part(tmp_path):
    A = smooth(150, 90).numpy()
    part = mapped(tmp_path, A)[10:140:2, 5:]
    expected = sketching.randomized_svd(A[10:140:2, 5:], 4, generator=seeded())
    assert torch.allclose(sketching.randomized_svd(part, 4, generator=seeded()).S, expected.S, rtol=1e-10)


def test_changes_in_memory_alone_survive(tmp_path):
    A = mapped(tmp_path, smooth(60, 40).numpy(), mode="c")
    A[:] = 2.0
    assert abs(float(sketching.randomized_svd(A, 1).S[0]) - 2 * 2400**0.5) < 1e-8
    assert (A == 2.0).all()


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.ones((4, 3), np.int32), TypeError, "`A` must be float32 or float64"),
        (np.ones((2, 4, 3)), ValueError, "`A` must be one matrix"),
        (np.full((4, 3), np.inf), ValueError, "`A` must be finite"),
    ],
)
def test_bad_maps(tmp_path, array, error, message):
    with pytest.raises(error, match=message):
        sketching.randomized_svd(mapped(tmp_path, array), 1)


MEASURE = """
import re, sys, numpy as np, torch, sketching
def peak():  # in MiB; ru_maxrss would be inherited from the process that wrote the file
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
sketching.randomized_svd(torch.randn(50, 40), 3)
sketching.out_of_core.memmaps._BLOCK_BYTES = 1 << 24
before = peak()
A = np.load(sys.argv[1], mmap_mode="r")
result = sketching.randomized_svd(A, 3, max_rows=100, num_power_iterations=1)
print(peak() - before, float(result.S[0]), result.num_passes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from Linux's /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    path, (m, n) = tmp_path / "large.npy", (60_000, 1000)  # 229 MiB
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(m, n))
    rows = 1 + np.random.default_rng(0).standard_normal((6000, n), dtype=np.float32)
    for start in range(0, m, 6000):
        array[start : start + 6000] = rows
    array.flush()
    command = [sys.executable, "-c", MEASURE, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
    assert float(out[0]) < 140, f"{out[0]} MiB more than before for a file of 229"
    assert abs(float(out[1]) / (10**0.5 * np.linalg.norm(rows, 2)) - 1) < 0.01
    assert out[2] == "4"
