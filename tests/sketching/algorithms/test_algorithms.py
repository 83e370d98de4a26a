"""Range finder, eigenpairs, Nystrom, block Krylov, one view, columns and rows, traces: against dense answers."""

import numpy as np
import pytest
import torch
from helpers import kernel, normal, seeded, with_spectrum
from sketch_examples import haar, optimum, smooth

import rangeformer as rf
import sketching

DTYPES = [torch.float32, torch.float64]


def error_of(A, low_rank) -> float:
    U, S, Vh = low_rank
    return float(torch.linalg.matrix_norm(A - (U * S) @ Vh))


def eigen_error(A, eigen) -> float:
    w, V = eigen
    return float(torch.linalg.matrix_norm(A - (V * w) @ V.mT))


# range finder ---------------------------------------------------------------------------------------------------------


def test_range_of_a_rank():
    A = smooth()
    found = sketching.range_finder(A, 15, num_oversamples=5, generator=seeded())
    assert found.Q.shape == (90, 20)
    torch.testing.assert_close(found.Q.mT @ found.Q, torch.eye(20, dtype=A.dtype))
    truth = float(torch.linalg.matrix_norm(A - found.Q @ (found.Q.mT @ A)) / A.norm())
    assert 2 / 3 < found.relative_error / truth < 3 / 2
    assert found.num_passes == 1
    assert found.converged


@pytest.mark.parametrize("sketch", ["gaussian", "rangeformer"])
@pytest.mark.parametrize("tolerance", [0.2, 0.03, 1e-4])
def test_range_of_a_tolerance_is_large_enough_and_not_much_larger(sketch, tolerance):
    A = haar(power=3.0)
    least = next(r for r in range(80) if optimum(A, r) <= tolerance * A.norm())
    for seed in range(5):
        found = sketching.range_finder(
            A, rtol=tolerance, block_size=4, sketch=sketch, max_rows=10, generator=seeded(seed)
        )
        assert found.converged
        assert torch.linalg.matrix_norm(A - found.Q @ (found.Q.mT @ A)) <= tolerance * A.norm()
        assert found.Q.shape[1] <= 6 * least + 8
        torch.testing.assert_close(found.Q.mT @ found.Q, torch.eye(found.Q.shape[1], dtype=A.dtype))


def test_range_says_when_the_rank_does_not_reach_the_tolerance():
    found = sketching.range_finder(haar(power=0.1), 10, rtol=1e-3, generator=seeded())
    assert found.Q.shape[1] == 10
    assert not found.converged
    assert "not met" in found.message
    with pytest.raises(ValueError, match="`rank` or `rtol` must be given"):
        sketching.range_finder(haar())


def test_range_of_a_zero_matrix():
    found = sketching.range_finder(torch.zeros(9, 7), rtol=0.1)
    assert found.converged
    assert found.relative_error == 0


# eigenpairs and Nystrom -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_eigenpairs_of_both_signs(dtype):
    values = torch.cat([torch.tensor([-9.0, 8, -7, 6]), 0.01 * torch.arange(1, 57)]).double()
    A = with_spectrum(values, dtype=dtype)
    eigen = sketching.randomized_eigh(A, 4, generator=seeded())
    torch.testing.assert_close(eigen.eigenvalues, values[:4].to(dtype), rtol=1e-3, atol=0)
    assert 2 / 3 < eigen.relative_error * float(A.norm()) / eigen_error(A, eigen) < 3 / 2
    assert eigen.eigenvectors.dtype == dtype
    with pytest.raises(ValueError, match="`A` must be symmetric"):
        sketching.randomized_eigh(normal(6, 6), 2)
    with pytest.raises(ValueError, match="`A` must be square"):
        sketching.randomized_eigh(normal(6, 5), 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nystrom_of_a_kernel(dtype):
    A = kernel(150, noise=0.0, dtype=dtype)
    eigen = sketching.nystrom(A, 20, generator=seeded())
    assert eigen_error(A, eigen) < 1.1 * optimum(A, 20)
    assert 2 / 3 < eigen.relative_error * float(A.norm()) / eigen_error(A, eigen) < 3 / 2
    assert (eigen.eigenvalues >= 0).all()
    assert eigen.eigenvalues.dtype == dtype
    assert eigen.num_passes == 2  # one of them looks whether A is symmetric


def test_nystrom_of_low_rank_zero_and_indefinite_matrices():
    B = normal(40, 3)
    eigen = sketching.nystrom(B @ B.mT, 6, generator=seeded())
    assert eigen_error(B @ B.mT, eigen) < 1e-6 * (B @ B.mT).norm()
    torch.testing.assert_close(eigen.eigenvectors.mT @ eigen.eigenvectors, torch.eye(6, dtype=torch.float64))
    assert torch.equal(sketching.nystrom(torch.zeros(9, 9), 3).eigenvalues, torch.zeros(3))
    with pytest.raises(ValueError, match="`A` must be positive semidefinite"):
        sketching.nystrom(with_spectrum(torch.linspace(-1, 1, 40)), 10, generator=seeded())


def test_nystrom_from_pivoted_columns():
    A = kernel(150, noise=0.0)
    eigen = sketching.pivoted_nystrom(A, 20, generator=seeded())
    w, V = eigen
    trace = float((A - (V * w) @ V.mT).trace() / A.trace())
    assert eigen.relative_error == pytest.approx(trace, rel=1e-6)
    assert trace < 1.15 * float(torch.linalg.eigvalsh(A)[:-20].sum() / A.trace())
    assert (eigen.num_passes, eigen.num_entries) == (0, 61 * 150)
    with pytest.raises(ValueError, match="`A` must have entries to read"):
        sketching.pivoted_nystrom((lambda v: v, (5, 5)), 2)


# block Krylov and one view --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [None, 5, 1])
def test_block_krylov_beats_power_iterations_at_equal_products(block_size):
    A = haar(power=0.7)
    low_rank = sketching.block_krylov_svd(A, 10, block_size=block_size, sketch="gaussian", generator=seeded())
    assert error_of(A, low_rank) < 1.05 * optimum(A, 10)
    assert 2 / 3 < low_rank.relative_error * float(A.norm()) / error_of(A, low_rank) < 3 / 2
    torch.testing.assert_close(low_rank.U.mT @ low_rank.U, torch.eye(10, dtype=A.dtype))
    torch.testing.assert_close(low_rank.Vh @ low_rank.Vh.mT, torch.eye(10, dtype=A.dtype))


def test_block_krylov_of_small_and_deficient_matrices():
    A = normal(30, 2) @ normal(2, 8, seed=1)
    assert error_of(A, sketching.block_krylov_svd(A, 5, num_iterations=4)) < 1e-10
    with pytest.raises(ValueError, match="`num_iterations` must be at least 1"):
        sketching.block_krylov_svd(haar(), 10, block_size=5, num_iterations=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_view_from_rows_from_sums_and_whole_is_the_same(dtype):
    A = haar(power=2.0, dtype=dtype)
    whole = sketching.one_view_svd(A, 5, generator=seeded())
    by_rows, by_sums = (sketching.OneViewSVD((120, 80), 5, dtype=dtype, generator=seeded()) for _ in range(2))
    for index in torch.arange(120).split(7):
        by_rows.update_rows(index, A[index])
    by_sums.update(0.25 * A)
    by_sums.update(0.75 * A)
    tolerance = 1e3 * torch.finfo(dtype).eps
    for other in (by_rows.svd(), by_sums.svd()):
        torch.testing.assert_close(
            (other.U * other.S) @ other.Vh, (whole.U * whole.S) @ whole.Vh, atol=tolerance, rtol=0
        )
    assert whole.U.dtype == dtype
    assert error_of(A, whole) < 2 * optimum(A, 5)
    assert 0.5 < whole.relative_error * float(A.norm()) / error_of(A, whole) < 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "rank"), [(200, 10), (200, 1), (50, 20)])
def test_one_view_is_never_worse_than_zero_and_says_so(size, rank, dtype):
    A = torch.eye(size, dtype=dtype)
    for seed in range(3):
        found = sketching.one_view_svd(A, rank, generator=seeded(seed))
        U, S, Vh = (part.numpy().astype(np.float64) for part in found)
        assert np.linalg.norm(A.numpy() - (U * S) @ Vh) <= (1 + 1e-6) * np.linalg.norm(A.numpy())
        assert (S >= 0).all()
        assert not found.converged
        assert found.relative_error <= 1
        assert "no less than that of zero" in found.message
        assert "Take `randomized_svd`" in found.message


def test_one_view_promises_nothing_less_than_before_where_values_decay():
    found = sketching.one_view_svd(haar(power=2.0), 5, generator=seeded())
    assert found.converged
    assert "shrunk" not in found.message


def test_one_view_refuses_what_does_not_fit():
    view = sketching.OneViewSVD((6, 4), 2)
    with pytest.raises(ValueError, match=r"`rows` must have shape \(2, 4\)"):
        view.update_rows(torch.arange(2), torch.ones(2, 5))
    with pytest.raises(ValueError, match="must be finite"):
        view.update_rows(torch.arange(1), torch.full((1, 4), float("nan")))
    with pytest.raises(ValueError, match=r"`A` must have shape \(6, 4\)"):
        view.update(torch.ones(5, 4))
    with pytest.raises(ValueError, match="`rank` must be at most"):
        sketching.OneViewSVD((6, 4), 5)
    assert view.svd().relative_error == 0


# columns and rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_interpolative_decomposition(dtype):
    A = smooth(dtype=dtype)
    found = sketching.interpolative(A, 12, generator=seeded())
    error = torch.linalg.matrix_norm(A - A[:, found.columns] @ found.coefficients)
    assert error < 3 * optimum(A, 12)
    torch.testing.assert_close(found.coefficients[:, found.columns], torch.eye(12, dtype=dtype))
    assert found.coefficients.abs().max() < 4
    assert len(found.columns.unique()) == 12


@pytest.mark.parametrize("dtype", DTYPES)
def test_cur(dtype):
    A = smooth(dtype=dtype)
    found = sketching.cur(A, 12, generator=seeded())
    C, U, R = found
    assert torch.equal(C, A[:, found.columns])
    assert torch.equal(R, A[found.rows])
    assert torch.linalg.matrix_norm(A - C @ U @ R) < 3 * optimum(A, 12)


def test_columns_of_deficient_and_zero_matrices():
    A = normal(30, 2) @ normal(2, 9, seed=1)
    found = sketching.interpolative(A, 4)
    torch.testing.assert_close(A[:, found.columns] @ found.coefficients, A)
    C, U, R = sketching.cur(A, 4)
    torch.testing.assert_close(C @ U @ R, A)
    assert not (sketching.cur(torch.zeros(6, 5), 2).U).any()
    with pytest.raises(ValueError, match="`A` must have entries"):
        sketching.cur((lambda v: v, (5, 5)), 2)


# traces and diagonals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sketch", ["gaussian", "rangeformer"])
def test_trace_is_unbiased_and_its_error_known(sketch):
    A = kernel(120, noise=0.1)
    estimates = [sketching.estimate_trace(A, 45, sketch=sketch, max_rows=24, generator=seeded(s)) for s in range(60)]
    values = torch.tensor([e.value for e in estimates])
    truth = float(A.trace())
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / 60**0.5
    claimed = sum(e.standard_error**2 for e in estimates) / 60
    assert 0.5 < float((values - truth).square().mean()) / claimed < 2
    assert estimates[0].num_matvecs == 45
    assert float((values - truth).abs().mean()) < 0.2 * (2 * float(A.square().sum()) / 45) ** 0.5


def test_trace_of_low_rank_is_exact():
    B = normal(40, 3)
    assert sketching.estimate_trace(B @ B.mT, 12).value == pytest.approx(float(B.square().sum()), rel=1e-9)


def test_diagonal_is_unbiased_and_better_than_without_the_range():
    A = kernel(80, noise=0.1)
    estimates = [sketching.estimate_diagonal(A, 45, max_rows=24, generator=seeded(s)) for s in range(60)]
    values = torch.stack([e.value for e in estimates])
    deviation = (values.mean(0) - A.diagonal()).abs() / (values.std(0) / 60**0.5)
    assert deviation.max() < 5
    signs = torch.randint(0, 2, (80, 45), generator=seeded()).double() * 2 - 1
    plain = ((signs * (A @ signs)).mean(-1) - A.diagonal()).norm()
    assert (values[0] - A.diagonal()).norm() < 0.5 * plain
    assert estimates[0].num_matvecs == 45


def test_traces_check_their_arguments():
    with pytest.raises(ValueError, match="`A` must be square"):
        sketching.estimate_trace(torch.ones(3, 4), 9)
    with pytest.raises(ValueError, match="`num_matvecs` must be an integer >= 6"):
        sketching.estimate_diagonal(torch.eye(4), 3)
    with pytest.raises(ValueError, match="must be finite"):
        sketching.estimate_trace((lambda v: v * float("nan"), (4, 4)), 9)


@pytest.mark.parametrize(
    "call",
    [
        lambda A, g: sketching.range_finder(A, 5, generator=g).Q,
        lambda A, g: sketching.randomized_eigh(A, 5, generator=g).eigenvectors,
        lambda A, g: sketching.nystrom(A, 5, generator=g).eigenvectors,
        lambda A, g: sketching.block_krylov_svd(A, 5, generator=g).U,
        lambda A, g: sketching.one_view_svd(A, 5, generator=g).U,
        lambda A, g: sketching.interpolative(A, 5, generator=g).coefficients,
        lambda A, g: sketching.estimate_diagonal(A, 12, generator=g).value,
    ],
)
def test_same_seed_same_answer_in_the_dtype_of_the_matrix(call):
    for dtype in DTYPES:
        A = kernel(60, noise=0.0, dtype=dtype)
        first, second = call(A, seeded(4)), call(rf.as_operator(A), seeded(4))
        assert torch.equal(first, second)
        assert first.dtype == dtype
        assert torch.equal(call(A, None), call(A, None))
