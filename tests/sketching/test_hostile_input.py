"""Matrices and arguments that break naive code: the right answer, or an error that says what to do."""

import inspect
import warnings

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from helpers import normal, seeded
from sketch_examples import optimum, smooth

import rangeformer as rf
import sketching
from sketching.arguments import SKETCHES

NAMES = list(SKETCHES)


def error_of(A, low_rank) -> float:
    U, S, Vh = low_rank
    return float(torch.linalg.matrix_norm(A - (U * S) @ Vh))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rank_deficient_matrix_is_found_exactly(name, dtype):
    A = (normal(80, 3) @ normal(3, 60, seed=1)).to(dtype)
    low_rank = sketching.randomized_svd(A, 8, sketch=name)
    assert error_of(A, low_rank) < 1e3 * torch.finfo(dtype).eps * A.norm()
    assert low_rank.relative_error < 1e3 * torch.finfo(dtype).eps
    torch.testing.assert_close(low_rank.U.mT @ low_rank.U, torch.eye(8, dtype=dtype))
    torch.testing.assert_close(low_rank.Vh @ low_rank.Vh.mT, torch.eye(8, dtype=dtype))


@pytest.mark.parametrize("name", NAMES)
def test_constant_matrix(name):
    A = torch.full((50, 30), 3.0)
    low_rank = sketching.randomized_svd(A, 2, sketch=name)
    torch.testing.assert_close(low_rank.S, torch.tensor([3.0 * 1500**0.5, 0.0]), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_zero_matrix(name):
    low_rank = sketching.randomized_svd(torch.zeros(20, 10), 3, sketch=name)
    assert torch.equal(low_rank.S, torch.zeros(3))
    assert low_rank.relative_error == 0.0
    assert torch.isfinite(low_rank.U).all()
    assert torch.isfinite(low_rank.Vh).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_huge_row(name):
    A = smooth(90, 60)
    A[41] *= 1e8
    low_rank = sketching.randomized_svd(A, 6, sketch=name)
    torch.testing.assert_close(low_rank.S[0], torch.linalg.svdvals(A)[0])
    assert error_of(A, low_rank) < 1e-7 * A.norm()


@pytest.mark.parametrize("name", NAMES)
def test_sparse_with_empty_rows_and_columns(name):
    A = smooth(90, 60) * (normal(90, 60) > 1)
    A[20:70], A[:, 10:30] = 0, 0
    low_rank = sketching.randomized_svd(scipy.sparse.csr_array(A.numpy()), 10, sketch=name)
    assert error_of(A, low_rank) < 1.1 * optimum(A, 10)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3), (40, 3), (3, 40)])
def test_tiny_and_thin_matrices(shape):
    A = normal(*shape)
    low_rank = sketching.randomized_svd(A, min(shape))
    torch.testing.assert_close(low_rank.S, torch.linalg.svdvals(A))
    assert error_of(A, low_rank) < 1e-12


@pytest.mark.parametrize("factor", [1e-150, 1e150])
def test_tiny_and_huge_entries(factor):
    A = smooth(90, 60)
    expected = sketching.randomized_svd(A, 6).S
    torch.testing.assert_close(sketching.randomized_svd(factor * A, 6).S / factor, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(value):
    A = smooth(30, 20)
    A[3, 4] = value
    held = [A, A.numpy(), scipy.sparse.csr_array(A.numpy()), scipy.sparse.linalg.aslinearoperator(A.numpy())]
    for matrix in held:
        with pytest.raises(ValueError, match="`A` must be finite"), np.errstate(invalid="ignore"):
            sketching.randomized_svd(matrix, 3)


@pytest.mark.parametrize(
    "call",
    [
        sketching.randomized_svd,
        sketching.range_finder,
        sketching.block_krylov_svd,
        sketching.one_view_svd,
        sketching.interpolative,
        sketching.cur,
    ],
)
def test_rank_beyond_the_size_and_batches(call):
    with pytest.raises(ValueError, match="`rank` must be at most"):
        call(torch.ones(4, 3), 4)
    with pytest.raises(ValueError, match="`rank` must be an integer >= 1"):
        call(torch.ones(4, 3), 0)
    with pytest.raises(ValueError, match="`A` must be one matrix"):
        call(torch.ones(2, 4, 3), 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sketch": "magic"}, ValueError, "`sketch` must be a Sketch or one of"),
        ({"sketch": 3}, TypeError, "`sketch` must be a Sketch or one of"),
        ({"num_power_iterations": "always"}, ValueError, "`num_power_iterations` must be 'auto' or an integer"),
        ({"num_power_iterations": -1}, ValueError, "`num_power_iterations` must be an integer >= 0"),
        ({"num_oversamples": -1}, ValueError, "`num_oversamples` must be an integer >= 0"),
        ({"max_rows": 0}, ValueError, "`max_rows` must be an integer >= 1"),
        ({"max_rows": 6}, ValueError, "`max_rows` must be at most half of what may be read, 10"),
        ({"rtol": 0.0}, ValueError, "`rtol` must be a positive number"),
    ],
)
def test_bad_options(options, error, message):
    operator = rf.as_operator(torch.ones(10, 8))
    with pytest.raises(error, match=message):
        sketching.randomized_svd(operator, 2, **options)
    assert operator.reads == rf.Reads()


def test_nothing_is_drawn_from_the_global_generator():
    state = torch.random.get_rng_state()
    sketching.randomized_svd(smooth(), 5, generator=seeded())
    sketching.randomized_svd(smooth(), 5)
    assert torch.equal(state, torch.random.get_rng_state())


CALLS = {
    "randomized_svd": lambda A: sketching.randomized_svd(A, 3),
    "range_finder": lambda A: sketching.range_finder(A, 3),
    "block_krylov_svd": lambda A: sketching.block_krylov_svd(A, 3),
    "one_view_svd": lambda A: sketching.one_view_svd(A, 3),
    "randomized_eigh": lambda A: sketching.randomized_eigh(A, 3),
    "nystrom": lambda A: sketching.nystrom(A, 3),
    "pivoted_nystrom": lambda A: sketching.pivoted_nystrom(A, 3),
    "interpolative": lambda A: sketching.interpolative(A, 3),
    "cur": lambda A: sketching.cur(A, 3),
    "estimate_trace": lambda A: sketching.estimate_trace(A, 12),
    "estimate_diagonal": lambda A: sketching.estimate_diagonal(A, 12),
    "xtrace": lambda A: sketching.xtrace(A, 12),
    "finetune": lambda A: sketching.finetune(None, [A, A], 3, num_steps=0),
}
FUNCTIONS = [name for name in dir(sketching) if inspect.isfunction(getattr(sketching, name)) and name[0] != "_"]


def psd() -> np.ndarray:
    return np.diag(np.arange(20.0)) + np.ones((20, 20))


def tensors_of(found) -> list[torch.Tensor]:
    if isinstance(found, torch.nn.Module):
        return list(found.state_dict(keep_vars=True).values())
    return [value for value in vars(found).values() if isinstance(value, torch.Tensor)]


def test_all_functions_are_called_here():
    assert set(CALLS) == set(FUNCTIONS)


@pytest.mark.parametrize("name", CALLS)
def test_results_are_detached_and_the_matrix_is_left_alone(name):
    A = torch.from_numpy(psd()).requires_grad_()
    found = CALLS[name](A)
    assert not any(part.requires_grad for part in tensors_of(found))
    if name in ("range_finder", "nystrom", "randomized_eigh"):  # products from the right are enough
        assert not any(part.requires_grad for part in tensors_of(CALLS[name]((lambda v: A @ v, (20, 20)))))
    assert A.grad is None


def test_a_stream_of_rows_that_require_grad_is_detached():
    A = torch.from_numpy(psd()).requires_grad_()
    by_rows, whole = (sketching.OneViewSVD((20, 20), 3, dtype=torch.float64) for _ in range(2))
    by_rows.update_rows(torch.arange(20), A)
    whole.update(A)
    for view in (by_rows, whole):
        assert not any(part.requires_grad for part in (*view.svd(), view._range))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.bool_, np.float16])
@pytest.mark.parametrize("name", CALLS)
def test_integers_and_booleans_are_float64_and_half_precision_is_float32(name, dtype):
    A = psd().astype(dtype)
    wide = A.astype(np.float32 if dtype == np.float16 else np.float64)
    held = [A, torch.from_numpy(A.astype(np.int64) if dtype == np.uint64 else A)]
    held += [] if dtype == np.float16 else [scipy.sparse.csr_array(A)]
    expected = CALLS[name](wide)
    for matrix in held:
        reference = CALLS[name](scipy.sparse.csr_array(wide)) if scipy.sparse.issparse(matrix) else expected
        found = CALLS[name](matrix)
        for one, other in zip(tensors_of(found), tensors_of(reference), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        if not tensors_of(found):
            assert found == reference


def test_bfloat16_is_float32():
    A = torch.from_numpy(psd()).to(torch.bfloat16)
    assert torch.equal(sketching.randomized_svd(A, 3).S, sketching.randomized_svd(A.float(), 3).S)


@pytest.mark.parametrize("name", CALLS)
def test_complex_matrices_are_refused(name):
    A = psd() + 1j
    held = [A, torch.from_numpy(A), scipy.sparse.csr_array(A), scipy.sparse.linalg.aslinearoperator(A)]
    for matrix in held:
        with pytest.raises(TypeError, match="`A` must be real. Got .*complex128; take its real part"):
            CALLS[name](matrix)


@pytest.mark.parametrize("name", CALLS)
def test_masked_matrices_are_refused(name):
    for mask in (psd() > 5, False):
        with pytest.raises(ValueError, match="`A` must not be masked. Got a masked array; fill it first"):
            CALLS[name](np.ma.MaskedArray(psd(), mask))


def test_masked_arrays_of_torch_and_dask_are_refused():
    A = torch.from_numpy(psd())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        masked = torch.masked.masked_tensor(A, A > 5)
    with pytest.raises(ValueError, match="`A` must not be masked. Got a masked array"):
        sketching.randomized_svd(masked, 3)
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    with pytest.raises(ValueError, match="`A` must not be masked. Got a masked dask array"):
        sketching.randomized_svd(da.ma.masked_greater(da.from_array(psd()), 5), 3)
