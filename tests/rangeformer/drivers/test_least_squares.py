"""`lstsq`: the shortest minimiser for every shape and rank."""

import pytest
import torch
from helpers import convergence_warnings_ignored, normal

import rangeformer as rf
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel

NARROW = LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=8))


def low_rank(m: int, n: int, rank: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (normal(m, rank) @ normal(rank, n, seed=1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize(("m", "n"), [(50, 20), (20, 50), (30, 30)])
@pytest.mark.parametrize("model", [None, NARROW])
def test_shortest_minimiser(m, n, rank, dtype, model):
    A = normal(m, n, dtype=dtype) if rank is None else low_rank(m, n, rank, dtype)
    b = normal(m, 2, seed=3, dtype=dtype)
    found = rf.lstsq(A, b, rtol=1e-4, model=model)
    cutoff = max(m, n) * torch.finfo(dtype).eps
    exact = torch.linalg.pinv(A.double(), rtol=cutoff) @ b.double()
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    assert torch.linalg.vector_norm(found.value - exact) <= tolerance * torch.linalg.vector_norm(exact)
    residual = b.double() - A.double() @ found.value.double()
    norms = torch.linalg.vector_norm(residual, dim=-2) / torch.linalg.vector_norm(b.double(), dim=-2)
    assert torch.allclose(found.residual_norms.double(), norms, atol=1e-6)
    assert bool(found.converged.all())
    assert found.value.dtype == dtype


def test_vector_rhs_and_exact_counts():
    A, b = normal(60, 24), normal(60)
    found = rf.lstsq(A, b, model=NARROW)
    assert found.value.shape == (24,)
    assert found.converged.shape == ()
    # start, three products with one return after each but the last, and residual with its gradient
    assert (found.num_passes, found.num_matvecs, found.num_entries) == (1 + 3 + 2 + 2, 8 + 24 + 16 + 2, 0)


def test_never_worse_than_lsqr_at_equal_loops():
    import scipy.sparse.linalg

    A, b = normal(80, 60) * torch.logspace(0, -2, 60, dtype=torch.float64), normal(80, seed=2)
    for loops in (1, 2, 4):
        with convergence_warnings_ignored():
            ours = rf.lstsq(A, b, model=NARROW, num_loops=loops).residual_norms
        x = scipy.sparse.linalg.lsqr(A.numpy(), b.numpy(), iter_lim=loops, atol=0, btol=0)[0]
        assert ours <= torch.linalg.vector_norm(b - A @ torch.from_numpy(x)) / torch.linalg.vector_norm(b)


def test_too_few_loops_are_said():
    A = normal(80, 60) * torch.logspace(0, -4, 60, dtype=torch.float64)
    with pytest.warns(rf.ConvergenceWarning, match=r"Not converged: \|\|A\^T r\|\| .* after 2 loops"):
        found = rf.lstsq(A, normal(80, 1), model=NARROW, num_loops=2)
    assert not bool(found.converged.any())


def test_zero_matrix_and_zero_rhs():
    found = rf.lstsq(torch.zeros(5, 3), torch.ones(5))
    assert torch.equal(found.value, torch.zeros(3))
    assert found.residual_norms == 1
    assert bool(found.converged)
    assert torch.equal(rf.lstsq(normal(5, 3), torch.zeros(5).double()).value, torch.zeros(3).double())


@pytest.mark.parametrize("factor", [1e-150, 1e150])
def test_extreme_right_hand_sides(factor):
    A, b = normal(20, 6), normal(20, 1)
    assert torch.allclose(rf.lstsq(A, factor * b).value / factor, rf.lstsq(A, b).value)


def test_batch_is_the_loop_over_it():
    A, b = torch.stack([normal(30, 20), low_rank(30, 20, 3)]), normal(2, 30, 2)
    together = rf.lstsq(A, b, model=NARROW)
    for i in range(2):
        assert torch.allclose(together.value[i], rf.lstsq(A[i], b[i], model=NARROW).value)


@pytest.mark.parametrize(("dtype", "sizes"), [(torch.float64, (-990, -830, 830, 1010)), (torch.float32, (-100, 113))])
@pytest.mark.parametrize(("m", "n", "rank"), [(30, 10, 10), (10, 30, 10), (30, 20, 4), (20, 30, 4), (1, 5, 1)])
def test_every_size_of_matrix_and_right_hand_side(m, n, rank, dtype, sizes):
    A, b = low_rank(m, n, rank, dtype), normal(m, 3, dtype=dtype)
    exact = torch.linalg.pinv(A.double(), rtol=max(m, n) * torch.finfo(dtype).eps) @ b.double()
    exact[:, 1] = 0
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    for size in (0, *sizes):
        for own in (0, *sizes):
            # a huge or tiny column, a zero one, and one of A's own size
            shifts = torch.tensor([own, 0, size])
            columns = torch.ldexp(torch.ldexp(b, shifts // 2), shifts - shifts // 2)
            columns[:, 1] = 0
            scaled = torch.ldexp(torch.ldexp(A, torch.tensor(size // 2)), torch.tensor(size - size // 2))
            with convergence_warnings_ignored():
                found = rf.lstsq(scaled, columns, rtol=1e-4)
            for part in (found.value, found.residual_norms, found.gradient_norms):
                assert bool(part.isfinite().all())
            assert bool(found.converged[1:].all())
            back = found.value[:, 2].double()
            assert torch.linalg.vector_norm(back - exact[:, 2]) <= tolerance * torch.linalg.vector_norm(exact[:, 2])
            assert torch.equal(found.value[:, 1], torch.zeros(n, dtype=dtype))
            if abs(own - size) < (900 if dtype == torch.float64 else 100):
                half = (size - own) // 2
                back = found.value[:, 0].double() * 2.0**half * 2.0 ** (size - own - half)
                assert bool(found.converged[0])
                assert torch.linalg.vector_norm(back - exact[:, 0]) <= tolerance * torch.linalg.vector_norm(exact[:, 0])
            elif abs(own - size) > 1100:
                assert not bool(found.converged[0])
                assert torch.equal(found.value[:, 0], torch.zeros(n, dtype=dtype))


@pytest.mark.parametrize(("matrix", "rhs"), [(1e-100, 1e250), (1e200, 1e-200)])
def test_a_solution_beyond_the_range_is_said(matrix, rhs):
    with pytest.warns(rf.ConvergenceWarning, match="a solution lies beyond the range of torch.float64.*Divide `rhs`"):
        found = rf.lstsq(matrix * normal(20, 6), rhs * normal(20, seed=2))
    assert not bool(found.converged)
    assert torch.equal(found.value, torch.zeros(6, dtype=torch.float64))
    assert found.residual_norms == pytest.approx(1)


@pytest.mark.parametrize("size", [1e-300, 1e250])
def test_a_zero_matrix_and_any_right_hand_side(size):
    found = rf.lstsq(torch.zeros(6, 4, dtype=torch.float64), torch.full((6,), size, dtype=torch.float64))
    assert torch.equal(found.value, torch.zeros(4, dtype=torch.float64))
    assert bool(found.converged)


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float64, 1e300), (torch.float64, 1e-300), (torch.float32, 1e36)])
def test_members_of_a_batch_do_not_spoil_each_other(dtype, factor):
    A, b = normal(3, 20, 8, dtype=dtype), normal(3, 20, 2, seed=4, dtype=dtype)
    A[1] *= factor
    together = rf.lstsq(A, b, rtol=1e-4)
    assert bool(together.converged.all())
    for i in range(3):
        assert torch.allclose(together.value[i], rf.lstsq(A[i], b[i], rtol=1e-4).value, rtol=1e-3, atol=0)


def test_messages():
    with pytest.raises(ValueError, match=r"`rhs` must have shape \(n,\) or \(\*batch, n, k\) with n = 5"):
        rf.lstsq(normal(5, 3), normal(3))
    with pytest.raises(TypeError, match="`rhs` must have A's dtype"):
        rf.lstsq(normal(5, 3), torch.ones(5))
    with pytest.raises(NotImplementedError, match="cannot be multiplied from the left"):
        rf.lstsq((lambda v: normal(5, 3) @ v, (5, 3)), normal(5))
