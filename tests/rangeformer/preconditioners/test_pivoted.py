"""Partial Cholesky factors from pivot columns."""

import pytest
import torch
from helpers import kernel, normal, seeded, with_spectrum
from hypothesis import given, settings
from hypothesis import strategies as st

from rangeformer.operators import as_operator
from rangeformer.preconditioners.pivoted import pivoted_cholesky


def pivoted_naive(A: torch.Tensor, pivots: list[int]) -> torch.Tensor:
    """Gaussian elimination on the whole residual (Chen et al. 2025, Algorithm 1, without the sampling)."""
    residual, columns = A.clone(), []
    for s in pivots:
        column = residual[:, s] / residual[s, s].sqrt()
        columns.append(column)
        residual = residual - torch.outer(column, column)
    return torch.stack(columns, -1)


def best_trace_error(A: torch.Tensor, rank: int) -> float:
    return float(torch.linalg.eigvalsh(A)[:-rank].sum())


@pytest.mark.parametrize("rule", ["random", "greedy"])
def test_is_gaussian_elimination_at_its_pivots(rule, generator):
    A = kernel(60)
    pivoted = pivoted_cholesky(as_operator(A), 12, rule=rule, generator=generator)
    assert len(set(pivoted.pivots.tolist())) == 12
    torch.testing.assert_close(pivoted.factor, pivoted_naive(A, pivoted.pivots.tolist()))
    residual = A - pivoted.factor @ pivoted.factor.mT
    torch.testing.assert_close(pivoted.residual_diagonal, residual.diagonal(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(residual[:, pivoted.pivots], torch.zeros(60, 12).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(pivoted.diagonal, A.diagonal())


def test_greedy_takes_the_largest_residual():
    A = kernel(50) * (1 + torch.arange(50).double() / 50).outer(1 + torch.arange(50).double() / 50)
    residual = A.clone()
    for pivot in pivoted_cholesky(as_operator(A), 8, rule="greedy").pivots:
        assert residual.diagonal()[pivot] >= residual.diagonal().max() - 1e-12
        residual = residual - torch.outer(residual[:, pivot], residual[:, pivot]) / residual[pivot, pivot]


def test_random_pivots_follow_the_diagonal():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    operator = as_operator(torch.diag(weights).expand(4000, 4, 4))
    first = pivoted_cholesky(operator, 1, generator=seeded()).pivots.flatten()
    share = torch.bincount(first, minlength=4) / 4000
    standard_error = (weights / 10 * (1 - weights / 10) / 4000).sqrt()
    assert ((share - weights / 10).abs() < 4 * standard_error).all()


def test_random_pivots_come_close_to_the_best_low_rank():
    # r / eps + ... columns give (1 + eps) of the best trace error in expectation; 3 r columns are generous here
    A = with_spectrum(torch.logspace(0, -6, 150))
    errors = [
        float(pivoted_cholesky(as_operator(A), 60, generator=seeded(s)).residual_diagonal.sum()) for s in range(3)
    ]
    assert max(errors) <= 2 * best_trace_error(A, 20)
    assert min(errors) >= 0.999 * best_trace_error(A, 60)


def test_noise_stays_out_of_the_factor(generator):
    K, noise = kernel(50, noise=1e-8), torch.linspace(0.1, 0.5, 50, dtype=torch.float64)
    of_noisy = pivoted_cholesky(as_operator(K + torch.diag(noise)), 10, noise=noise, rule="greedy")
    of_clean = pivoted_cholesky(as_operator(K), 10, rule="greedy")
    torch.testing.assert_close(of_noisy.factor, of_clean.factor)
    torch.testing.assert_close(of_noisy.diagonal, K.diagonal())


def test_pivots_can_be_reused(generator):
    A, B = kernel(50), kernel(50, lengthscale=0.5)
    first = pivoted_cholesky(as_operator(A), 10, generator=generator)
    again = pivoted_cholesky(as_operator(B), 10, pivots=first.pivots)
    assert torch.equal(first.pivots, again.pivots)
    torch.testing.assert_close(again.factor, pivoted_naive(B, first.pivots.tolist()))


def test_batch_is_a_loop_over_the_batch():
    A = torch.stack([kernel(40, seed=s) for s in range(6)]).view(2, 3, 40, 40)
    batch = pivoted_cholesky(as_operator(A), 9, rule="greedy")
    for i in range(2):
        for j in range(3):
            one = pivoted_cholesky(as_operator(A[i, j]), 9, rule="greedy")
            torch.testing.assert_close(batch.factor[i, j], one.factor)
            assert torch.equal(batch.pivots[i, j], one.pivots)


def test_columns_past_the_rank_are_zero(generator):
    U = normal(30, 4)
    pivoted = pivoted_cholesky(as_operator(U @ U.mT), 10, generator=generator)
    torch.testing.assert_close(pivoted.factor @ pivoted.factor.mT, U @ U.mT)
    assert (pivoted.factor[:, 4:] == 0).all()
    assert pivoted.factor.isfinite().all()


@pytest.mark.parametrize("A", [torch.zeros(5, 5), -torch.eye(5), torch.eye(1), torch.ones(4, 4)], ids=str)
@pytest.mark.parametrize("rule", ["random", "greedy"])
def test_degenerate_matrices_give_finite_factors(A, rule, generator):
    pivoted = pivoted_cholesky(as_operator(A.double()), 9, rule=rule, generator=generator)
    assert pivoted.factor.shape[-1] == min(9, A.shape[-1])
    assert pivoted.factor.isfinite().all()
    assert (pivoted.residual_diagonal >= 0).all()


def test_reads_its_columns_and_the_diagonal_only(generator):
    operator = as_operator(kernel(40))
    pivoted_cholesky(operator, 7, generator=generator)
    assert (operator.reads.passes, operator.reads.entries) == (0, 40 + 7 * 40)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 20), c=st.integers(0, 25), seed=st.integers(0, 100), exponent=st.integers(-30, 30))
def test_scaling_scales_the_factor(n, c, seed, exponent):
    A, scale = kernel(n, seed=seed), 4.0**exponent
    plain = pivoted_cholesky(as_operator(A), c, generator=seeded(seed))
    scaled = pivoted_cholesky(as_operator(A * scale), c, generator=seeded(seed))
    assert torch.equal(plain.pivots, scaled.pivots)
    torch.testing.assert_close(scaled.factor, plain.factor * scale**0.5, rtol=1e-12, atol=0)
