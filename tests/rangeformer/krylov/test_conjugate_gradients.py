"""CG per column against the textbook recurrence and its theory."""

import pytest
import torch
from helpers import conditioned, normal, with_spectrum
from hypothesis import given, settings
from hypothesis import strategies as st

from rangeformer.krylov.conjugate_gradients import Iterate, conjugate_gradients


def cg_naive(A: torch.Tensor, b: torch.Tensor, inverse: torch.Tensor, steps: int) -> torch.Tensor:
    """Hestenes and Stiefel 1952 with a preconditioner, one vector."""
    x, r = torch.zeros_like(b), b.clone()
    z = inverse @ r
    p = z.clone()
    for _ in range(steps):
        alpha = (r @ z) / (p @ (A @ p))
        x = x + alpha * p
        new = r - alpha * (A @ p)
        new_z = inverse @ new
        p = new_z + (new @ new_z) / (r @ z) * p
        r, z = new, new_z
    return x


def run(A: torch.Tensor, b: torch.Tensor, *, rtol: float = 1e-10, steps: int = 500, inverse=None) -> Iterate:
    apply = (lambda v: v) if inverse is None else (lambda v: inverse @ v)
    targets = rtol * torch.linalg.vector_norm(b, dim=-2)
    return conjugate_gradients(lambda v: A @ v, b, apply, target_norms=targets, max_iterations=steps)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_is_the_textbook_recurrence(steps):
    A, b = conditioned(50, 100.0), normal(50, 4)
    inverse = torch.diag(1 / A.diagonal())
    iterate = run(A, b, steps=steps, rtol=1e-14, inverse=inverse)
    expected = torch.stack([cg_naive(A, column, inverse, steps) for column in b.mT], -1)
    torch.testing.assert_close(iterate.value, expected, rtol=1e-7, atol=1e-9)
    assert iterate.num_iterations == steps


def test_as_many_iterations_as_distinct_eigenvalues():
    A = with_spectrum(torch.tensor([1.0, 3.0, 7.0]).repeat(20))
    iterate = run(A, normal(60, 2), rtol=1e-9)
    assert iterate.num_iterations == 3


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 4), exponent=st.integers(0, 4), seed=st.integers(0, 99))
def test_reaches_its_target_within_the_bound(n, k, exponent, seed):
    cond = 10.0**exponent
    A, b = conditioned(n, cond, seed=seed), normal(n, k, seed=seed)
    iterate = run(A, b, rtol=1e-6, steps=2000)
    residual = torch.linalg.vector_norm(b - A @ iterate.value, dim=-2)
    assert (residual <= 1.01e-6 * torch.linalg.vector_norm(b, dim=-2)).all()
    # 2 sqrt(cond) ((sqrt(cond) - 1) / (sqrt(cond) + 1))^m bounds the relative residual
    rate = (cond**0.5 - 1) / (cond**0.5 + 1)
    bound = torch.log(torch.tensor(1e-6 / (2 * cond**0.5))) / torch.log(torch.tensor(max(rate, 1e-9)))
    assert iterate.num_iterations <= int(bound) + 2


def test_worst_column_decides_and_finished_ones_rest():
    A = conditioned(60, 100.0)
    easy = torch.linalg.eigh(A).eigenvectors[:, :1]
    b = torch.cat([easy, normal(60, 1), torch.zeros(60, 1).double()], -1)
    alone, both = run(A, easy), run(A, b)
    assert alone.num_iterations <= 2
    assert both.num_iterations > 10
    torch.testing.assert_close(both.value[:, :1], alone.value, rtol=1e-9, atol=1e-9)
    assert (both.value[:, 2] == 0).all()
    assert not both.indefinite.any()


def test_a_target_already_met_costs_nothing():
    iterate = run(conditioned(10, 10.0), normal(10, 2), rtol=2.0)
    assert iterate.num_iterations == 0
    assert (iterate.value == 0).all()


def test_three_iterations_are_not_enough():
    A, b = conditioned(100, 1e4), normal(100, 1)
    iterate = run(A, b, steps=3)
    assert iterate.num_iterations == 3
    assert torch.linalg.vector_norm(b - A @ iterate.value) > 1e-2 * torch.linalg.vector_norm(b)


def test_negative_curvature_freezes_its_column_alone():
    definite, indefinite = conditioned(30, 10.0), with_spectrum(torch.linspace(-1, 1, 30))
    A, b = torch.stack([definite, indefinite]), normal(2, 30, 2)
    iterate = run(A, b)
    assert iterate.indefinite.tolist() == [[False, False], [True, True]]
    assert iterate.value.isfinite().all()
    torch.testing.assert_close(iterate.value[0], torch.linalg.solve(definite, b[0]), rtol=1e-8, atol=1e-8)


def test_an_indefinite_preconditioner_is_seen():
    A = conditioned(20, 10.0)
    assert run(A, normal(20, 1), inverse=-torch.eye(20).double()).indefinite.all()


def test_nan_ends_the_iteration():
    A = torch.full((5, 5), torch.nan).double()
    iterate = run(A, normal(5, 2), steps=50)
    assert iterate.num_iterations == 1
    assert iterate.indefinite.all()


def test_batch_is_a_loop_over_the_batch():
    A = torch.stack([conditioned(30, 10.0**s, seed=s) for s in range(4)]).view(2, 2, 30, 30)
    b = normal(2, 2, 30, 3)
    batch = run(A, b)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(batch.value[i, j], run(A[i, j], b[i, j]).value, rtol=1e-7, atol=1e-7)
