"""Refinement: what it returns is verified, initial iterates only help, and the explanation follows the status."""

import pytest
import torch
from helpers import normal, with_spectrum

import rangeformer as rf
from rangeformer.solvers.refinement import explain, refine


def problem(n: int = 150, cond: float = 1e3, dtype: torch.dtype = torch.float64):
    A = with_spectrum(torch.logspace(-float(torch.tensor(cond).log10()), 0, n, dtype=torch.float64)).to(dtype)
    return A, rf.as_operator(A), rf.build_preconditioner(A, None), normal(n, 4).to(dtype)


def test_an_exact_initial_iterate_needs_no_iteration():
    A, operator, P, rhs = problem()
    start = torch.linalg.solve(A, rhs)
    refined = refine(operator, rhs, P, rf.CG(), rf.Stopping(rtol=1e-10), start=start)
    assert refined.num_iterations == 0
    assert refined.status is rf.Status.CONVERGED
    assert torch.equal(refined.value, start)


def test_a_bad_initial_iterate_is_discarded():
    A, operator, P, rhs = problem()
    refined = refine(operator, rhs, P, rf.CG(), rf.Stopping(rtol=1e-8), start=1e6 * normal(150, 4, seed=9))
    plain = refine(operator, rhs, P, rf.CG(), rf.Stopping(rtol=1e-8))
    assert torch.equal(refined.value, plain.value)


def test_float32_reaches_what_its_storage_allows():
    A, operator, P, rhs = problem(cond=1e2, dtype=torch.float32)
    refined = refine(operator, rhs, P, rf.BlockLanczos(), rf.Stopping(rtol=2e-6))
    residual = torch.linalg.vector_norm(rhs.double() - A.double() @ refined.value.double(), dim=0)
    relative = residual / torch.linalg.vector_norm(rhs.double(), dim=0)
    assert torch.allclose(refined.relative, relative, rtol=1e-6)


def test_separate_recurrences_finish_what_a_shared_space_leaves():
    assert rf.BlockLanczos().after_stagnation() == rf.CG()
    assert rf.CG().after_stagnation() is None


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (rf.Status.INDEFINITE, "multiple of the identity"),
        (rf.Status.PRECISION_LIMITED, "pass A and rhs in float64"),
        (rf.Status.MAX_ITERATIONS, "Allow more iterations"),
        (rf.Status.STAGNATED, "looser rtol"),
    ],
)
def test_every_status_has_figures_and_advice(status, advice):
    text = explain(status, 0.25, rf.Stopping(rtol=1e-3), 7, torch.float32)
    assert advice in text
    assert "2.5e-01" in text
