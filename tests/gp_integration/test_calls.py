"""The quadratic form from an inexact solution: an error of second order, from below, and a first-order gradient."""

import torch
from linear_operator.operators import DenseLinearOperator

from gp_integration import calls


def test_an_inexact_solution_gives_a_value_off_by_the_square_of_its_error():
    torch.manual_seed(0)
    root = torch.randn(30, 30, dtype=torch.float64)
    A = root @ root.mT + torch.eye(30, dtype=torch.float64)
    b = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    exact = torch.linalg.solve(A, b.detach())
    true = (b.detach() * exact).sum(-2)
    direction = torch.randn_like(exact)
    for size in (1e-2, 1e-4):
        error = size * direction
        values = calls.inv_quad_from(DenseLinearOperator(A), b, exact + error)
        assert torch.allclose(true - values, (error * (A @ error)).sum(-2), rtol=1e-3)
        assert (values <= true).all()
        (gradient,) = torch.autograd.grad(values.sum(), b)
        assert torch.allclose(gradient, 2 * (exact + error))
