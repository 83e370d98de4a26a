import pytest
import torch

from experiments.common.classical import (
    conjugate_gradients,
    jacobi,
    lanczos,
    lanczos_eigenvalues,
    lanczos_logdet,
    quadrature,
    steps_to,
)
from tests.helpers import conditioned, normal, seeded, with_spectrum


def test_cg_is_exact_after_n_steps_and_its_residuals_are_true():
    A, rhs = conditioned(12, 50.0), normal(12, 3)
    run = conjugate_gradients(A.matmul, rhs, 12)
    torch.testing.assert_close(run.solution, torch.linalg.solve(A, rhs), rtol=1e-6, atol=1e-6)
    after = conjugate_gradients(A.matmul, rhs, 5)
    true = torch.linalg.vector_norm(rhs - A @ after.solution, dim=0) / torch.linalg.vector_norm(rhs, dim=0)
    torch.testing.assert_close(after.relative_residuals[-1], true)
    assert len(after.relative_residuals) == 6


def test_cg_minimises_the_error_in_the_norm_of_A():
    A, rhs = conditioned(30, 1e3), normal(30, 1)
    run = conjugate_gradients(A.matmul, rhs, 4)
    powers = [rhs]
    for _ in range(3):
        powers.append(A @ powers[-1])
    V = torch.linalg.qr(torch.cat(powers, -1)).Q
    best = V @ torch.linalg.solve(V.mT @ A @ V, V.mT @ rhs)
    torch.testing.assert_close(run.solution, best, rtol=1e-6, atol=1e-8)


def test_cg_columns_do_not_know_of_each_other():
    A, rhs = conditioned(20, 1e2), normal(20, 3)
    together = conjugate_gradients(A.matmul, rhs, 6).solution
    apart = [conjugate_gradients(A.matmul, rhs[:, j : j + 1], 6).solution for j in range(3)]
    torch.testing.assert_close(together, torch.cat(apart, -1))


def test_smallest_residual_is_kept():
    A, rhs = conditioned(40, 1e6), normal(40, 2)
    run = conjugate_gradients(A.matmul, rhs, 15)
    norms = torch.linalg.vector_norm(rhs - A @ run.smallest, dim=0) / torch.linalg.vector_norm(rhs, dim=0)
    torch.testing.assert_close(norms, run.relative_residuals.amin(0))
    assert (norms <= 1).all()


def test_jacobi_solves_a_diagonal_matrix_in_one_step():
    A, rhs = torch.diag(torch.logspace(-3, 3, 9, dtype=torch.float64)), normal(9, 2)
    run = conjugate_gradients(A.matmul, rhs, 1, jacobi(A.diagonal()))
    torch.testing.assert_close(A @ run.solution, rhs)


def test_a_zero_matrix_and_a_zero_column_stop_cg():
    run = conjugate_gradients(torch.zeros(4, 4, dtype=torch.float64).matmul, normal(4, 1), 5)
    assert (run.solution == 0).all()
    A, rhs = conditioned(6, 10.0), normal(6, 2)
    rhs[:, 1] = 0
    found = conjugate_gradients(A.matmul, rhs, 20).solution
    torch.testing.assert_close(A @ found, rhs)
    assert (found[:, 1] == 0).all()


def test_until_stops_early():
    A, rhs = conditioned(50, 100.0), normal(50, 2)
    run = conjugate_gradients(A.matmul, rhs, 1000, until=1e-4)
    assert (run.relative_residuals[-1] <= 1e-4).all()
    assert len(run.relative_residuals) < 60


def test_steps_to_interpolates_between_steps():
    A, rhs = conditioned(50, 100.0), normal(50, 4)
    run = conjugate_gradients(A.matmul, rhs, 60)
    fine = steps_to(run, 1e-4)
    whole = (run.relative_residuals <= 1e-4).double().argmax(0)
    assert ((fine <= whole) & (fine > whole - 1)).all()
    assert (steps_to(conjugate_gradients(A.matmul, rhs, 2), 1e-4) == 2).all()
    assert (steps_to(run, 2.0) == 0).all()


@pytest.mark.parametrize("start", [0, 1, 2])
def test_lanczos_projects_exactly(start):
    A = conditioned(25, 1e4)
    V, T = lanczos(A.matmul, normal(25, seed=start), 10, generator=seeded())
    torch.testing.assert_close(V.mT @ V, torch.eye(10, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(V.mT @ A @ V, T, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "values",
    [torch.ones(12), torch.zeros(12), torch.tensor([1.0] * 6 + [3.0] * 6), torch.logspace(-6, 0, 12)],
    ids=["identity", "zero", "two values", "decay"],
)
def test_lanczos_finds_every_eigenvalue_in_n_steps(values):
    values = values.double()
    A = with_spectrum(values)
    found = lanczos_eigenvalues(A.matmul, 12, 100, generator=seeded())
    torch.testing.assert_close(found, values.sort().values, rtol=1e-8, atol=1e-13)


def test_quadrature_is_exact_for_polynomials():
    A, v = conditioned(30, 100.0), normal(30)
    rule = quadrature(A.matmul, v, 4, generator=seeded())
    for power in range(8):
        moment = v @ torch.linalg.matrix_power(A, power) @ v / (v @ v)
        torch.testing.assert_close((rule.weights * rule.nodes**power).sum(), moment)


def test_logdet_is_exact_in_n_steps_and_near_by_quadrature():
    A = conditioned(80, 30.0)
    exact = torch.logdet(A)
    torch.testing.assert_close(lanczos_logdet(A.matmul, 80, 80, generator=seeded()), exact)
    estimate = lanczos_logdet(A.matmul, 80, 20, generator=seeded(), num_probes=64)
    # 64 Gaussian directions: a few per cent of the spread of log A
    assert abs(float(estimate - exact)) / 80 < 0.1


def test_density_of_states_is_near_the_spectrum():
    values = torch.linspace(1, 2, 100, dtype=torch.float64)
    found = lanczos_eigenvalues(with_spectrum(values).matmul, 100, 30, generator=seeded(), num_probes=16)
    assert float((found - values).abs().mean()) < 0.05
    assert (found.diff() >= 0).all()
