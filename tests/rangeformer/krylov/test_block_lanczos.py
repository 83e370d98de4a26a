"""The block Krylov space: exact within itself, safe at its edges."""

import pytest
import torch
from helpers import assert_solved, conditioned, kernel, normal, with_spectrum
from hypothesis import given, settings
from hypothesis import strategies as st

from rangeformer.krylov.block_lanczos import BlockKrylov
from rangeformer.krylov.orthonormalisation import orthonormalise


def space(A: torch.Tensor, start: torch.Tensor, blocks: int, capacity: int = 10_000) -> BlockKrylov:
    krylov = BlockKrylov(lambda v: (A @ v, A @ v), start, capacity=capacity)
    while krylov.num_blocks < blocks and krylov.expand():
        pass
    return krylov


def galerkin_naive(A: torch.Tensor, start: torch.Tensor, blocks: int) -> torch.Tensor:
    """argmin of the energy norm over span [b, A b, ..., A^(m-1) b], by an orthonormal basis of that span."""
    parts = [start]
    for _ in range(blocks - 1):
        parts.append(torch.linalg.qr(A @ parts[-1]).Q)
    H = torch.linalg.qr(torch.cat(parts, -1)).Q
    return H @ torch.linalg.solve(H.mT @ A @ H, H.mT @ start)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_solution_is_the_galerkin_projection(blocks):
    A, start = conditioned(60, 100.0), normal(60, 3)
    krylov = space(A, start, blocks)
    assert krylov.num_blocks == blocks
    x = krylov.combine(krylov.coefficients())
    torch.testing.assert_close(x, galerkin_naive(A, start, blocks), rtol=1e-8, atol=1e-8)
    residual = torch.linalg.vector_norm(start - A @ x, dim=-2)
    torch.testing.assert_close(krylov.residual_norms(), residual, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(krylov.combine_images(krylov.coefficients()), A @ x)
    torch.testing.assert_close(krylov.start_norms(), torch.linalg.vector_norm(start, dim=-2))


def test_basis_is_orthonormal_and_the_projection_block_tridiagonal():
    A = conditioned(80, 1e6)
    krylov = space(A, normal(80, 4), 12)
    V = krylov.combine(torch.eye(48, dtype=torch.float64))
    torch.testing.assert_close(V.mT @ V, torch.eye(48).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(krylov.projection(), V.mT @ A @ V, rtol=0, atol=1e-10)


def test_the_whole_space_is_exact():
    A, start = conditioned(40, 1e4), normal(40, 5)
    krylov = space(A, start, 100)
    assert krylov.num_blocks == 8
    x = krylov.combine(krylov.coefficients())
    assert_solved(x, torch.linalg.solve(A, start), cond=1e4, factor=100)
    assert not krylov.expand()


def test_error_shrinks_with_every_block():
    A, start = conditioned(100, 1e3), normal(100, 2)
    truth = torch.linalg.solve(A, start)
    energies = []
    for blocks in range(1, 12):
        krylov = space(A, start, blocks)
        error = krylov.combine(krylov.coefficients()) - truth
        energies.append(float((error * (A @ error)).sum()))
    assert energies == sorted(energies, reverse=True)


def test_functions_of_the_matrix():
    A, start = conditioned(50, 50.0), normal(50, 2)
    krylov = space(A, start, 25)
    eigenvalues, U = torch.linalg.eigh(A)
    for function in (torch.log, torch.rsqrt, torch.reciprocal):
        truth = (U * function(eigenvalues)) @ U.mT @ start
        coefficients, quadratic = krylov.function_of_start(function)
        torch.testing.assert_close(krylov.combine(coefficients), truth, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(quadratic, start.mT @ truth, rtol=1e-6, atol=1e-6)


def test_gauss_quadrature_converges_twice_as_fast_as_the_vector():
    A, start = conditioned(100, 50.0), normal(100, 1)
    eigenvalues, U = torch.linalg.eigh(A)
    truth = (U * eigenvalues.log()) @ U.mT @ start
    coefficients, quadratic = (krylov := space(A, start, 8)).function_of_start(torch.log)
    vector = torch.linalg.vector_norm(krylov.combine(coefficients) - truth) / torch.linalg.vector_norm(truth)
    assert (quadratic - start.mT @ truth).abs() / (start.mT @ truth).abs() < 10 * vector**2


def test_duplicate_and_zero_columns_are_dead_directions():
    A = conditioned(40, 100.0)
    b = normal(40, 2)
    start = torch.cat([b, b[:, :1], torch.zeros(40, 1).double(), 2 * b[:, 1:]], -1)
    krylov = space(A, start, 30)
    x = krylov.combine(krylov.coefficients())
    assert krylov.positive_definite
    torch.testing.assert_close(x, torch.linalg.solve(A, start), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(x[:, 0], x[:, 2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_more_columns_than_rows(n):
    A, start = kernel(n), normal(n, 5)
    krylov = space(A, start, 10)
    torch.testing.assert_close(krylov.combine(krylov.coefficients()), torch.linalg.solve(A, start))


def test_capacity_ends_the_space():
    krylov = space(conditioned(60, 1e4), normal(60, 4), 100, capacity=20)
    assert krylov.num_blocks == 5
    assert not krylov.expand()
    assert krylov.positive_definite


@pytest.mark.parametrize("negative", [-1.0, -1e-2])
def test_negative_curvature_keeps_the_last_sound_space(negative):
    A = with_spectrum(torch.cat([torch.logspace(-1, 1, 49), torch.tensor([negative])]))
    krylov = space(A, normal(50, 2), 100)
    assert krylov.indefinite
    assert not krylov.positive_definite
    assert krylov.has_solution
    assert krylov.num_blocks < 25
    x = krylov.combine(krylov.coefficients())
    assert x.isfinite().all()
    assert (torch.linalg.eigvalsh(krylov.projection()) > 0).all()
    start = normal(50, 2)
    residual = torch.linalg.vector_norm(start - A @ x, dim=-2)
    torch.testing.assert_close(krylov.residual_norms(), residual, rtol=1e-6, atol=1e-8)


def test_negative_definite_has_no_solution():
    krylov = space(-conditioned(20, 10.0), normal(20, 2), 5)
    assert not krylov.has_solution
    assert krylov.indefinite


def test_products_out_of_range_end_the_space():
    krylov = space(conditioned(20, 10.0) * torch.inf, normal(20, 2), 5)
    assert not krylov.has_solution
    assert krylov.indefinite


def test_batch_says_which_member_failed():
    good = conditioned(30, 10.0)
    krylov = space(torch.stack([good, -good, good]), normal(3, 30, 2), 5)
    assert krylov.indefinite.tolist() == [False, True, False]


def test_batch_is_a_loop_over_the_batch():
    A = torch.stack([conditioned(30, 10.0, seed=s) for s in range(4)]).view(2, 2, 30, 30)
    start = normal(2, 2, 30, 3)
    krylov = space(A, start, 5)
    x = krylov.combine(krylov.coefficients())
    for i in range(2):
        for j in range(2):
            one = space(A[i, j], start[i, j], 5)
            torch.testing.assert_close(x[i, j], one.combine(one.coefficients()))


def test_float32_stays_orthogonal():
    A = conditioned(200, 1e5, dtype=torch.float32)
    krylov = space(A, normal(200, 4, dtype=torch.float32), 30)
    V = krylov.combine(torch.eye(120))
    assert V.dtype == torch.float32
    assert (V.mT @ V - torch.eye(120)).abs().max() < 1e-4


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20),
    s=st.integers(1, 8),
    rank=st.integers(0, 8),
    exponent=st.integers(-100, 100),
    seed=st.integers(0, 99),
)
def test_orthonormalise_factors_any_block(n, s, rank, exponent, seed):
    block = normal(n, rank, seed=seed) @ normal(rank, s, seed=seed + 1) * 10.0**exponent
    Q, C = orthonormalise(block)
    scale = float(block.abs().max())
    torch.testing.assert_close(Q @ C, block, rtol=0, atol=1e-6 * scale)
    gram = Q.mT @ Q
    live = gram.diagonal() > 0.5
    assert int(live.sum()) <= min(n, s, rank)
    torch.testing.assert_close(gram, torch.diag(live.double()), rtol=0, atol=1e-8)
