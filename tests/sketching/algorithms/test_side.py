"""Looking at columns instead of rows: the transposed problem, with A's ledger and A's names for the answer."""

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import seeded
from sketch_examples import smooth

import sketching

SKETCHES = ["rangeformer", "sampled-rows", "gaussian"]


@pytest.mark.parametrize("sketch", SKETCHES)
@pytest.mark.parametrize("kind", ["dense", "numpy", "sparse"])
def test_columns_are_the_rows_of_the_transpose(sketch, kind):
    A = smooth(60, 200)
    given = {"dense": A, "numpy": A.numpy(), "sparse": scipy.sparse.csr_array(A.numpy())}[kind]
    found = sketching.randomized_svd(given, 6, sketch=sketch, side="columns", generator=seeded())
    swapped = sketching.randomized_svd(A.mT.contiguous(), 6, sketch=sketch, generator=seeded())
    assert torch.allclose(found.S, swapped.S)
    assert torch.allclose((found.U * found.S) @ found.Vh, ((swapped.U * swapped.S) @ swapped.Vh).mT)
    assert (found.num_passes, found.num_matvecs, found.num_entries) == (
        swapped.num_passes,
        swapped.num_matvecs,
        swapped.num_entries,
    )
    assert found.relative_error == pytest.approx(swapped.relative_error)


def test_a_wide_matrix_is_better_known_by_its_columns():
    """Half of sixteen rows span eight directions; a hundred columns span the range."""
    A, best = smooth(16, 1000), {}
    for side in ("rows", "columns"):
        low_rank = sketching.randomized_svd(
            A, 5, side=side, num_power_iterations=0, num_oversamples=2, generator=seeded()
        )
        best[side] = float(torch.linalg.matrix_norm(A - (low_rank.U * low_rank.S) @ low_rank.Vh))
        assert low_rank.U.shape == (16, 5)
        assert low_rank.Vh.shape == (5, 1000)
    assert best["columns"] <= best["rows"]


def test_max_rows_counts_columns():
    A = smooth(40, 300)
    low_rank = sketching.randomized_svd(A, 3, side="columns", max_rows=24, generator=seeded())
    assert 24 * 40 <= low_rank.num_entries <= 24 * 40 + 2 * 300
    with pytest.raises(ValueError, match="`max_rows` must be at most half of what may be read, 300"):
        sketching.randomized_svd(A, 3, side="columns", max_rows=200)


def test_what_cannot_be_asked(tmp_path):
    with pytest.raises(ValueError, match="`side` must be one of"):
        sketching.randomized_svd(torch.eye(9), 2, side="left")
    np.save(tmp_path / "A.npy", np.eye(9))
    with pytest.raises(ValueError, match='`side` must be "rows" for a memory map'):
        sketching.randomized_svd(np.load(tmp_path / "A.npy", mmap_mode="r"), 2, side="columns")
