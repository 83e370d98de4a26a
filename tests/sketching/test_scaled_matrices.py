"""Entries whose squares leave the range: every public function gives what float64 NumPy gives of the scaled matrix."""

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import kernel, normal, seeded
from sketch_examples import haar

import rangeformer as rf
import sketching
from sketching.algorithms.error_estimate import draw_test_vectors
from sketching.scaled_operator import ScaledOperator, exponent_for, restored

FACTORS = [
    (torch.float64, 1e200),
    (torch.float64, 1e-200),
    (torch.float64, 1e300),
    (torch.float64, 1e-290),
    (torch.float32, 1e30),
    (torch.float32, 1e-30),
    (torch.float32, 1e36),
]
# fourth powers of it overflow
LARGE, LARGER, TINY = 1e150, 1e120, 1e-150
HOLDERS = {
    "tensor": lambda A: A,
    "numpy": lambda A: A.numpy(),
    "sparse": lambda A: scipy.sparse.csr_array(A.numpy()),
    "product": lambda A: (lambda v: A @ v, tuple(A.shape)),
}
SVDS = {
    "randomized_svd": lambda A: sketching.randomized_svd(A, 6),
    "columns": lambda A: sketching.randomized_svd(A, 6, side="columns"),
    "block_krylov_svd": lambda A: sketching.block_krylov_svd(A, 6),
    "one_view_svd": lambda A: sketching.one_view_svd(A, 6),
}
EIGENS = {
    "randomized_eigh": lambda A: sketching.randomized_eigh(A, 6),
    "nystrom": lambda A: sketching.nystrom(A, 6),
    "pivoted_nystrom": lambda A: sketching.pivoted_nystrom(A, 6),
}


def low_rank(dtype=torch.float64) -> torch.Tensor:
    """Of rank 6, so that one look is enough for every digit."""
    return (haar(60, 50, power=0.0) @ torch.diag(torch.arange(50).lt(6).double()) @ normal(50, 40)).to(dtype)


def psd(dtype=torch.float64) -> torch.Tensor:
    B = normal(50, 6)
    return (B @ B.mT).to(dtype)


def relative(found, true) -> float:
    """Of matrices whose squares may leave the range."""
    found, true = (np.asarray(part, dtype=np.float64) for part in (found, true))
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def at_size_one(values: torch.Tensor, factor: float) -> np.ndarray:
    return values.numpy().astype(np.float64) / factor


def tolerance(dtype) -> float:
    return 2e-4 if dtype == torch.float32 else 1e-6


@pytest.mark.parametrize(("dtype", "factor"), FACTORS)
@pytest.mark.parametrize("name", SVDS)
def test_singular_triplets(name, dtype, factor):
    A = factor * low_rank(dtype)
    B = at_size_one(A, factor)
    found = SVDS[name](A)
    U, S, Vh = found.U.numpy(), at_size_one(found.S, factor), found.Vh.numpy()
    assert found.S.dtype == dtype
    assert relative(S, np.linalg.svd(B, compute_uv=False)[:6]) < tolerance(dtype)
    assert relative((U * S) @ Vh, B) < tolerance(dtype)
    assert found.relative_error < tolerance(dtype)


@pytest.mark.parametrize(("dtype", "factor"), FACTORS)
@pytest.mark.parametrize("name", EIGENS)
def test_eigenpairs(name, dtype, factor):
    A = factor * psd(dtype)
    B = at_size_one(A, factor)
    found = EIGENS[name](A)
    values, V = at_size_one(found.eigenvalues, factor), found.eigenvectors.numpy()
    assert relative(values, np.linalg.eigvalsh(B)[:-7:-1]) < tolerance(dtype)
    assert relative((V * values) @ V.T, B) < 10 * tolerance(dtype)
    assert found.relative_error < 10 * tolerance(dtype)


@pytest.mark.parametrize(("dtype", "factor"), FACTORS)
def test_ranges_columns_and_rows(dtype, factor):
    A = factor * low_rank(dtype)
    B = at_size_one(A, factor)
    found = sketching.range_finder(A, rtol=1e-2, block_size=4)
    Q = found.Q.numpy().astype(np.float64)
    assert found.converged
    assert relative(Q @ (Q.T @ B), B) < 1e-2
    columns = sketching.interpolative(A, 6)
    assert relative(B[:, columns.columns] @ columns.coefficients.numpy(), B) < tolerance(dtype)
    C, U, R = parts = sketching.cur(A, 6)
    assert torch.equal(C, A[:, parts.columns])
    assert torch.equal(R, A[parts.rows])
    product = at_size_one(C, factor) @ at_size_one(U, 1 / factor) @ at_size_one(R, factor)
    assert relative(product, B) < tolerance(dtype)


@pytest.mark.parametrize(("dtype", "factor"), FACTORS)
def test_traces_and_diagonals(dtype, factor):
    A = factor * psd(dtype)
    B = at_size_one(A, factor)
    for call in (sketching.estimate_trace, sketching.xtrace):
        found = call(A, 24)
        assert found.value / factor == pytest.approx(np.trace(B), rel=tolerance(dtype))
        assert found.standard_error / factor < 1e-3 * np.trace(B)
    found = sketching.estimate_diagonal(A, 24)
    assert relative(at_size_one(found.value, factor), np.diag(B)) < tolerance(dtype)


@pytest.mark.parametrize(("dtype", "factor"), FACTORS)
def test_fine_tuning_and_a_stream(dtype, factor):
    family = [factor * (normal(40, 4, seed=k) @ normal(4, 30, seed=9)).to(dtype) for k in range(3)]
    features = sketching.finetune(None, family, 4, num_steps=0)
    assert torch.isfinite(features.state_dict()["family"]).all()
    A = factor * low_rank(dtype)
    view = sketching.OneViewSVD(tuple(A.shape), 6, dtype=dtype)
    for index in torch.arange(60).split(20):
        view.update_rows(index, A[index])
    found, B = view.svd(), at_size_one(A, factor)
    assert relative((found.U.numpy() * at_size_one(found.S, factor)) @ found.Vh.numpy(), B) < tolerance(dtype)


@pytest.mark.parametrize("factor", [LARGE, LARGER, TINY, 1e250])
@pytest.mark.parametrize("holder", HOLDERS)
def test_every_way_to_hold_a_matrix_and_the_tolerance(holder, factor):
    A = factor * haar(90, 60, power=2.0)
    held = HOLDERS[holder](A)
    if holder == "product":
        found = sketching.range_finder(held, rtol=0.05)
        Q = found.Q.numpy()
        assert relative(Q @ (Q.T @ A.numpy() / factor), A.numpy() / factor) < 0.05
    else:
        found = sketching.randomized_svd(held, 12, rtol=0.05)
        expected = np.linalg.svd(A.numpy() / factor, compute_uv=False)[:12]
        assert relative(at_size_one(found.S, factor), expected) < 1e-2
    assert found.converged


def test_a_memory_map_and_a_dask_array(tmp_path):
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    A = 1e200 * low_rank().numpy()
    np.save(tmp_path / "A.npy", A)
    for held in (np.load(tmp_path / "A.npy", mmap_mode="r"), da.from_array(A, chunks=(20, 40))):
        found = sketching.randomized_svd(held, 6)
        expected = np.linalg.svd(A / 1e200, compute_uv=False)[:6]
        assert relative(at_size_one(found.S, 1e200), expected) < 1e-8


@pytest.mark.parametrize("name", [*SVDS, *EIGENS])
@pytest.mark.parametrize("exponent", [600, -600])
def test_a_power_of_two_changes_no_digit(name, exponent):
    A = kernel(50, noise=0.0)
    plain, scaled = ((SVDS | EIGENS)[name](matrix) for matrix in (A, A * 2.0**exponent))
    values, others = (found.S if name in SVDS else found.eigenvalues for found in (plain, scaled))
    torch.testing.assert_close(others * 2.0**-exponent, values, rtol=1e-10, atol=1e-12)
    assert (scaled.num_passes, scaled.num_entries) == (plain.num_passes, plain.num_entries)


@pytest.mark.parametrize("call", [*SVDS.values(), *EIGENS.values()])
def test_values_out_of_range_are_said(call):
    A = torch.full((40, 40), 3e38)
    with pytest.raises(ValueError, match=r"must be in the range of torch.float32. Got one of about 1e\+40"):
        call(A)
    with pytest.raises(ValueError, match="Entries of U must be in the range of torch.float32"):
        sketching.cur(torch.full((40, 40), 1e-42), 1)


def test_a_stream_that_overflows_is_said():
    view = sketching.OneViewSVD((40, 40), 2)
    with pytest.raises(ValueError, match="must be finite"):
        view.update(torch.full((40, 40), 1e300, dtype=torch.float64))
    view = sketching.OneViewSVD((40, 40), 2)
    for _ in range(60):
        view.update_rows(torch.arange(40), torch.full((40, 40), 1e36))
    with pytest.raises(ValueError, match="Sketches of `A` must be in the range of torch.float32"):
        view.svd()


def test_ordinary_numbers_are_passed_on_untouched():
    A = normal(30, 20)
    operator, vectors = ScaledOperator(rf.as_operator(A)), draw_test_vectors(rf.as_operator(A), seeded())
    assert torch.equal(operator.matmul(vectors), rf.as_operator(A).matmul(vectors))
    assert operator.exponent == 0
    assert (operator.reads.passes, operator.reads.matvecs) == (1, vectors.shape[1])
    assert not any(exponent_for(peak, torch.float32) for peak in (1e9, 1e-9, 0.0))
    values = torch.ones(2, dtype=torch.float64)
    assert restored(values, 0, torch.float64, "Values") is values


@pytest.mark.parametrize("factor", [1e38, 1e-40])
def test_every_read_of_a_scaled_matrix(factor):
    A = factor * normal(20, 20, dtype=torch.float32)
    operator = ScaledOperator(rf.as_operator(A))
    vectors = normal(20, 3, dtype=torch.float32)
    B = A.double() * 2.0 ** -float(_exponent_after(operator, vectors))
    assert operator.reads.passes == 2  # the first one overflowed, or lost digits
    index = torch.tensor([3, 0])
    tolerances = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(operator.matmul(vectors).double(), B @ vectors.double(), **tolerances)
    torch.testing.assert_close(operator.rmatmul(vectors).double(), B.mT @ vectors.double(), **tolerances)
    torch.testing.assert_close(operator._matmul(vectors), operator.matmul(vectors))
    torch.testing.assert_close(operator._rmatmul(vectors), operator.rmatmul(vectors))
    torch.testing.assert_close(operator.rows(index).double(), B[index], **tolerances)
    torch.testing.assert_close(operator.columns(index).double(), B[:, index], **tolerances)
    torch.testing.assert_close(operator.diagonal().double(), B.diagonal(), **tolerances)
    torch.testing.assert_close(operator.entries(index, index).double(), B.diagonal()[index], **tolerances)


def _exponent_after(operator: ScaledOperator, vectors: torch.Tensor) -> int:
    operator.matmul(vectors)
    assert operator.exponent != 0
    return operator.exponent
