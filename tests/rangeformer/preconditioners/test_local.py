"""The sparse approximate inverse factor, against small solves row by row."""

import pytest
import torch
from helpers import kernel, normal, seeded

import rangeformer.preconditioners.local as local_module
from rangeformer.operators import as_operator
from rangeformer.preconditioners.local import LocalFactor, conditional_weights, diagonal_factor, local_factor
from rangeformer.preconditioners.neighbors import nearest_earlier
from rangeformer.preconditioners.pivoted import pivoted_cholesky


def factor_naive(R: torch.Tensor, neighbors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """S and D from R[N, N] w = R[N, i], D = R_ii - w^T R[N, i] (design document; Vecchia 1988)."""
    n = R.shape[-1]
    S, D = torch.zeros(n, n, dtype=R.dtype), torch.zeros(n, dtype=R.dtype)
    for i in range(n):
        N = neighbors[i][neighbors[i] >= 0]
        w = torch.linalg.solve(R[N][:, N], R[N, i])
        D[i] = R[i, i] - w @ R[N, i]
        S[i, N], S[i, i] = -w, 1.0
        S[i] /= D[i].sqrt()
    return S, D


def case(n: int = 45, c: int = 6, k: int = 5, *, seed: int = 0, dtype: torch.dtype = torch.float64):
    A = kernel(n, seed=seed)
    F = pivoted_cholesky(as_operator(A), c, noise=torch.full((n,), 1e-2).double(), generator=seeded(seed)).factor
    order = torch.randperm(n, generator=seeded(seed))
    neighbors = nearest_earlier(F, order, k)
    R = A - F @ F.mT
    return A.to(dtype), F.to(dtype), neighbors, R, order


def dense_of(S: LocalFactor, n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return S.apply(torch.eye(n, dtype=dtype))


def test_rows_solve_their_small_systems():
    A, F, neighbors, R, order = case()
    S = local_factor(as_operator(A), F, neighbors, R.diagonal())
    expected, D = factor_naive(R, neighbors)
    torch.testing.assert_close(dense_of(S, 45), expected)
    torch.testing.assert_close(S.apply_transpose(torch.eye(45).double()), expected.mT.contiguous())
    torch.testing.assert_close(S.logdet_inverse, D.log().sum())
    torch.testing.assert_close(S.logdet_inverse, -torch.linalg.slogdet(expected.mT @ expected).logabsdet)
    torch.testing.assert_close(expected[order][:, order].triu(1), torch.zeros(45, 45).double())


def test_every_row_has_unit_variance_under_the_residual():
    # tr(S R S^T) = n exactly: the log-determinant's control variate rests on it
    A, F, neighbors, R, _ = case()
    S = dense_of(local_factor(as_operator(A), F, neighbors, R.diagonal()), 45)
    torch.testing.assert_close((S @ R @ S.mT).diagonal(), torch.ones(45).double())


def test_all_earlier_rows_as_neighbours_give_the_exact_inverse():
    A, F, _, R, order = case(n=30)
    neighbors = nearest_earlier(F, order, 29)
    S = dense_of(local_factor(as_operator(A), F, neighbors, R.diagonal()), 30)
    torch.testing.assert_close(S.mT @ S, torch.linalg.inv(R), rtol=1e-6, atol=1e-8)


def test_more_neighbours_come_closer():
    A, F, _, R, order = case(n=120)
    errors = []
    for k in (0, 2, 8, 32):
        neighbors = nearest_earlier(F, order, k) if k else torch.empty(120, 0, dtype=torch.long)
        S = dense_of(local_factor(as_operator(A), F, neighbors, R.diagonal()), 120)
        B = torch.linalg.eigvalsh(S @ R @ S.mT)
        errors.append(float((B - 1 - B.log()).sum()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_rows_are_the_sparse_form_of_the_factor():
    A, F, neighbors, R, _ = case()
    S = local_factor(as_operator(A), F, neighbors, R.diagonal())
    index, values = S.rows()
    rebuilt = torch.zeros(45, 45).double().scatter_add_(-1, index, values)
    torch.testing.assert_close(rebuilt, dense_of(S, 45))
    index, values = diagonal_factor(torch.tensor([4.0, 1.0])).rows()
    assert (index.tolist(), values.tolist()) == ([[0], [1]], [[0.5], [1.0]])


@pytest.mark.parametrize("chunk", [1, 2000])
def test_chunks_do_not_matter(chunk, monkeypatch):
    A, F, neighbors, R, _ = case()
    whole = dense_of(local_factor(as_operator(A), F, neighbors, R.diagonal()), 45)
    monkeypatch.setattr(local_module, "_CHUNK", chunk)
    torch.testing.assert_close(dense_of(local_factor(as_operator(A), F, neighbors, R.diagonal()), 45), whole)


def test_batch_is_a_loop_over_the_batch():
    cases = [case(seed=s) for s in range(4)]
    A, F, neighbors, R = (torch.stack([c[i] for c in cases]).unflatten(0, (2, 2)) for i in range(4))
    S = local_factor(as_operator(A), F, neighbors, R.diagonal(dim1=-2, dim2=-1))
    v = normal(2, 2, 45, 3)
    for i in range(2):
        for j in range(2):
            one = local_factor(as_operator(A[i, j]), F[i, j], neighbors[i, j], R[i, j].diagonal())
            torch.testing.assert_close(S.apply(v)[i, j], one.apply(v[i, j]))
            torch.testing.assert_close(S.apply_transpose(v)[i, j], one.apply_transpose(v[i, j]))
            torch.testing.assert_close(S.logdet_inverse[i, j], one.logdet_inverse)


def test_float32_matrices_get_float64_systems():
    A, F, neighbors, R, _ = case(dtype=torch.float32)
    S = local_factor(as_operator(A), F, neighbors, R.diagonal().float())
    assert S.weights.dtype == S.inverse_scale.dtype == torch.float32
    assert S.logdet_inverse.dtype == torch.float64
    expected, D = factor_naive(R, neighbors)
    torch.testing.assert_close(dense_of(S, 45, torch.float32).double(), expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(S.logdet_inverse, D.log().sum(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("matrix", ["indefinite", "duplicated rows"])
def test_unusable_systems_lean_on_nobody(matrix):
    n = 20
    A = normal(n, n) + normal(n, n).mT if matrix == "indefinite" else torch.ones(n, n).double()
    neighbors = nearest_earlier(normal(n, 2), torch.arange(n), 4)
    S = local_factor(as_operator(A), torch.zeros(n, 1).double(), neighbors, torch.full((n,), 0.7).double())
    dense = dense_of(S, n)
    assert dense.isfinite().all()
    assert (torch.linalg.eigvalsh(dense @ dense.mT) > 0).all()


def test_absent_neighbours_have_no_weight():
    A, F, neighbors, R, order = case()
    w, d = conditional_weights(as_operator(A), F, neighbors[order[:1]], R.diagonal(), order[:1])
    assert (w == 0).all()
    torch.testing.assert_close(d, R.diagonal()[order[:1]])


def test_reads_only_its_blocks():
    A, F, neighbors, R, _ = case()
    operator = as_operator(A)
    local_factor(operator, F, neighbors, R.diagonal())
    assert (operator.reads.passes, operator.reads.entries) == (0, 45 * 5 * 6)


def test_nothing_to_multiply():
    A, F, neighbors, R, _ = case()
    S = local_factor(as_operator(A), F, neighbors, R.diagonal())
    assert S.apply(torch.empty(45, 0).double()).shape == S.apply_transpose(torch.empty(45, 0).double()).shape == (45, 0)
