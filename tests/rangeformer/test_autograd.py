"""Gradients by adjoints and surrogates, and the refusal of a second derivative."""

import pytest
import torch
from helpers import normal, with_spectrum

from rangeformer.autograd import Adjoint, ValueWithGradient, differentiable_no_further
from rangeformer.results import ConvergenceWarning


def test_the_adjoint_gives_the_gradient_of_a_solve():
    A = with_spectrum(torch.logspace(-1, 0, 20, dtype=torch.float64))
    rhs = normal(20, 2).requires_grad_()
    value = torch.linalg.solve(A, rhs.detach())
    out = Adjoint.apply(rhs - A @ value, value, lambda gradient: torch.linalg.solve(A, gradient))
    assert torch.equal(out, value)
    (gradient,) = torch.autograd.grad(out.sum(), rhs)
    assert torch.allclose(gradient, torch.linalg.solve(A, torch.ones(20, 2, dtype=torch.float64)))


def test_a_derivative_by_the_matrix_beyond_the_range_is_said_where_it_is_wanted():
    A = with_spectrum(torch.logspace(-1, 0, 20, dtype=torch.float64)).requires_grad_()
    value = 1e200 * torch.linalg.solve(A.detach(), normal(20, 2))

    def solve(gradient):
        return torch.linalg.solve(A.detach(), gradient)

    out = Adjoint.apply(-A @ value, value, solve, True)
    with pytest.warns(ConvergenceWarning, match="the derivative by the matrix lies beyond the range of torch.float64"):
        torch.autograd.grad(out, A, grad_outputs=torch.full_like(out, 1e150), retain_graph=True)
    # within the range, or where it is not wanted, nothing is said
    (gradient,) = torch.autograd.grad(out, A, grad_outputs=torch.full_like(out, 1e90))
    assert bool(gradient.isfinite().all())
    rhs = normal(20, 2).requires_grad_()
    out = Adjoint.apply(rhs - A.detach() @ value, value, solve)
    (gradient,) = torch.autograd.grad(out, rhs, grad_outputs=torch.full_like(out, 1e150))
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("size", [torch.inf, torch.nan])
def test_an_incoming_gradient_that_is_not_finite_stays_so_in_its_column_alone(size):
    A, rhs = with_spectrum(torch.logspace(-1, 0, 20, dtype=torch.float64)), normal(20, 2).requires_grad_()
    value = torch.linalg.solve(A, rhs.detach())
    out = Adjoint.apply(rhs - A @ value, value, lambda gradient: torch.linalg.solve(A, gradient))
    incoming = torch.ones_like(out)
    incoming[3, 0] = size
    with pytest.warns(ConvergenceWarning, match="what reaches the solve is infinite or NaN"):
        (gradient,) = torch.autograd.grad(out, rhs, grad_outputs=incoming)
    assert bool(gradient[:, 0].isnan().all())
    assert torch.allclose(gradient[:, 1], torch.linalg.solve(A, torch.ones(20, dtype=torch.float64)))


def test_a_value_may_have_the_gradient_of_something_else():
    x = torch.tensor(3.0, requires_grad=True)
    out = ValueWithGradient.apply(torch.tensor(7.0), x.square())
    (gradient,) = torch.autograd.grad(out, x)
    assert (out.item(), gradient.item()) == (7.0, 6.0)


def test_a_second_derivative_is_refused_in_words():
    x = torch.tensor(3.0, requires_grad=True)
    (first,) = torch.autograd.grad(ValueWithGradient.apply(torch.tensor(7.0), x**3), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once, not twice"):
        torch.autograd.grad(first, x)


def test_without_a_graph_nothing_is_wrapped():
    gradient = torch.ones(3)
    with torch.no_grad():
        assert differentiable_no_further(gradient, torch.ones(3, requires_grad=True)) is gradient
