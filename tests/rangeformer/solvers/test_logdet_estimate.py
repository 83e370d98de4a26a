"""The estimate of log det A and its gradient against a dense oracle, with and without a right-hand side."""

import pytest
import torch
from helpers import normal, with_spectrum

import rangeformer as rf
from rangeformer.solvers.logdet_estimate import (
    draw_probes,
    estimate_by_cholesky,
    estimate_logdet,
    estimate_logdet_and_solve,
)
from rangeformer.solvers.logdet_gradient import logdet_surrogate


def problem(n: int):
    A = with_spectrum(torch.logspace(-2, 0, n, dtype=torch.float64))
    P = rf.build_preconditioner(A, num_columns=20, num_neighbors=4)
    return A, rf.as_operator(A), P


def test_probes_are_signs_or_all_unit_vectors():
    signs = draw_probes(rf.as_operator(torch.eye(300)), 7, torch.Generator().manual_seed(0))
    assert signs.shape == (300, 7)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(draw_probes(rf.as_operator(torch.eye(30)), None, None), torch.eye(30))


@pytest.mark.parametrize("n", [80, 400])
def test_a_right_hand_side_does_not_move_the_estimate_away_from_the_truth(n):
    A, operator, P = problem(n)
    probes = draw_probes(operator, None, torch.Generator().manual_seed(1))
    alone = estimate_logdet(operator, P, probes, probe_rtol=1e-4, max_iterations=200)
    rhs = normal(n, 2)
    beside, solution = estimate_logdet_and_solve(
        operator, rhs, P, probes, rtol=1e-6, probe_rtol=1e-4, max_iterations=200
    )
    truth = torch.logdet(A)
    for found in (alone, beside):
        assert found.status is rf.Status.CONVERGED
        assert abs(float(found.logdet - truth)) <= 4 * float(found.standard_error) + 1e-7 * n
    assert float(torch.linalg.vector_norm(rhs - A @ solution) / torch.linalg.vector_norm(rhs)) < 2e-6


def test_the_surrogate_has_the_gradient_of_the_log_determinant():
    A, operator, P = problem(100)
    probes = draw_probes(operator, None, None)
    estimate = estimate_logdet(operator, P, probes, probe_rtol=1e-8, max_iterations=200)
    variable = A.clone().requires_grad_()
    surrogates = logdet_surrogate(rf.as_operator(variable), P, estimate)
    surrogates.logdet.backward()
    assert surrogates.quadratic is None
    assert surrogates.probe_terms is None, "all unit vectors: nothing is stochastic"
    assert torch.allclose(variable.grad, torch.linalg.inv(A), rtol=1e-6, atol=1e-6 * float(torch.linalg.inv(A).norm()))


def test_rows_of_the_local_factor_are_read_with_their_blocks():
    A, operator, P = problem(60)
    index, values = P.local.rows()
    S = torch.zeros(60, 60, dtype=torch.float64).scatter_add_(-1, index, values.double())
    assert torch.allclose(P.quadratic_of_rows(operator), (S @ A @ S.mT).diagonal(), rtol=1e-6)


def test_indefinite_is_a_status_and_cholesky_cannot_hide_it():
    A = torch.diag(torch.linspace(-1, 1, 50, dtype=torch.float64))
    operator, P = rf.as_operator(A), rf.build_preconditioner(A, None)
    failed = estimate_logdet(operator, P, draw_probes(operator, None, None), probe_rtol=1e-3, max_iterations=50)
    assert failed.status is rf.Status.INDEFINITE
    assert bool(failed.logdet.isnan())
    assert bool(estimate_by_cholesky(operator, failed, differentiable=False).logdet.isnan())
