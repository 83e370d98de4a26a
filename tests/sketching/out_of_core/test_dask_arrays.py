"""Dask arrays give the numbers of the same matrix in memory, and every pass over their blocks is counted."""

import threading
import weakref

import numpy as np
import pytest
import torch
from helpers import seeded
from sketch_examples import smooth

import sketching
from sketching.arguments import one_matrix

dask = pytest.importorskip("dask", reason="dask is not installed")
da = pytest.importorskip("dask.array", reason="dask.array is not installed")

CHUNKS = (40, 50)


class Counter:
    """Counts how often blocks are computed."""

    def __init__(self):
        self.count, self._lock = 0, threading.Lock()

    def __call__(self, block: np.ndarray) -> np.ndarray:
        with self._lock:
            self.count += 1
        return block


def counted(A: np.ndarray, chunks=CHUNKS):
    counter = Counter()
    array = da.from_array(A, chunks=chunks).map_blocks(counter, dtype=A.dtype, meta=A[:0, :0])
    return array, counter, array.numblocks[0] * array.numblocks[1]


def matrix(dtype=np.float64) -> np.ndarray:
    return smooth(210, 130).numpy().astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sketch", ["rangeformer", "sampled-rows", "gaussian"])
def test_same_numbers_as_in_memory(sketch, dtype):
    A = matrix(dtype)
    array, _, _ = counted(A)
    expected = sketching.randomized_svd(A, 6, sketch=sketch, num_power_iterations=1, generator=seeded(2))
    result = sketching.randomized_svd(array, 6, sketch=sketch, num_power_iterations=1, generator=seeded(2))
    tolerance = 100 * float(np.finfo(dtype).eps)
    assert result.S.dtype == expected.S.dtype
    assert torch.allclose(result.S, expected.S, rtol=0, atol=tolerance * float(expected.S[0]))
    product, wanted = ((x.U * x.S) @ x.Vh for x in (result, expected))
    assert torch.allclose(product, wanted, rtol=0, atol=10 * tolerance * float(expected.S[0]))


@pytest.mark.parametrize("sketch", ["rangeformer", "gaussian"])
@pytest.mark.parametrize("num_power_iterations", [0, 1, "auto"])
def test_passes_are_reads_of_the_blocks(sketch, num_power_iterations):
    array, counter, num_blocks = counted(matrix())
    result = sketching.randomized_svd(array, 6, sketch=sketch, num_power_iterations=num_power_iterations)
    assert counter.count == result.num_passes * num_blocks
    assert result.num_entries == 0
    if num_power_iterations != "auto":
        looks = int(sketch == "rangeformer")  # all rows that it wants are fetched in one look
        assert result.num_passes == looks + 2 + 2 * num_power_iterations


def test_a_wrong_guess_of_the_rows_costs_another_look_and_no_accuracy():
    A = matrix()
    A[17] *= 1e4  # one heavy row: the sketch reads columns and draws other rows than validated
    array, counter, num_blocks = counted(A)
    expected = sketching.randomized_svd(A, 6, max_rows=100, num_power_iterations=0, generator=seeded(1))
    result = sketching.randomized_svd(array, 6, max_rows=100, num_power_iterations=0, generator=seeded(1))
    assert torch.allclose(result.S, expected.S, rtol=1e-8)
    assert counter.count <= (result.num_passes + result.num_entries / A.size) * num_blocks + 1e-6


def test_few_rows_are_counted_by_the_blocks_that_hold_them():
    array, counter, _ = counted(matrix())
    operator = one_matrix(array)
    rows = operator.rows(torch.tensor([45, 3, 41]))
    assert torch.equal(rows, torch.from_numpy(matrix()[[45, 3, 41]]))
    assert operator.reads.entries == 80 * 130  # two blocks of 40 rows
    assert counter.count == 2 * array.numblocks[1]
    assert torch.equal(operator.columns(torch.tensor([129, 0])), torch.from_numpy(matrix()[:, [129, 0]]))


def test_range_finder_to_a_tolerance():
    array, counter, num_blocks = counted(matrix())
    found = sketching.range_finder(array, rtol=1e-3, block_size=8, generator=seeded())
    A = torch.from_numpy(matrix())
    assert found.converged
    assert torch.linalg.matrix_norm(A - found.Q @ (found.Q.mT @ A)) <= 1e-3 * torch.linalg.matrix_norm(A)
    assert counter.count == found.num_passes * num_blocks


def test_the_others_take_dask_arrays_too():
    A = matrix()[:130]
    psd = A @ A.T
    array = da.from_array(psd, chunks=(60, 60))
    for call in (sketching.nystrom, sketching.randomized_eigh):
        assert torch.allclose(call(array, 5).eigenvalues, call(psd, 5).eigenvalues, rtol=1e-8)
    assert torch.allclose(sketching.cur(array, 5).C, sketching.cur(psd, 5).C)
    assert sketching.block_krylov_svd(array, 3).S.shape == (3,)


def test_blocks_are_let_go():
    alive, most, lock = [0], [0], threading.Lock()

    class Block(np.ndarray):
        """An array that can tell when it is deflated."""

    def make(block_info=None):
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        start = block_info[None]["array-location"][0][0]
        block = np.cos(np.arange(start, start + 20)[:, None] * np.linspace(0, 1, 60)).view(Block)
        weakref.finalize(block, lambda: alive.__setitem__(0, alive[0] - 1))
        return block

    array = da.map_blocks(make, chunks=((20,) * 50, (60,)), dtype=np.float64, meta=np.empty((0, 0)))
    with dask.config.set(scheduler="synchronous"):
        sketching.randomized_svd(array, 4, num_power_iterations=1)
    assert most[0] <= 5  # of 50


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (lambda: da.ones((5, 4), dtype=np.int64), TypeError, "`A` must be float32 or float64"),
        (lambda: da.ones((5, 4, 2)), ValueError, "`A` must be one matrix"),
        (lambda: (x := da.ones((5, 4)))[x[:, 0] > 0], ValueError, "known chunk sizes"),
        (lambda: da.full((5, 4), np.nan), ValueError, "must be finite"),
    ],
)
def test_bad_arrays(array, error, message):
    with pytest.raises(error, match=message):
        sketching.randomized_svd(array(), 1)


def test_on_a_cluster_of_two_workers():
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    A = matrix()
    expected = sketching.randomized_svd(A, 6, generator=seeded(4))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        array = da.from_array(A, chunks=CHUNKS)
        result = sketching.randomized_svd(array, 6, generator=seeded(4))
    assert torch.allclose(result.S, expected.S, rtol=1e-10)
    assert result.num_passes == expected.num_passes + 1
