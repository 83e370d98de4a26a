"""Derivatives of solves are right in any order; those of log-determinants once, and then refused."""

import pytest
import torch
from linear_operator.operators import DenseLinearOperator

from gp_integration.operator import RangeFormerLinearOperator
from gp_integration.solve_derivative import once_differentiable


@pytest.fixture
def system():
    t = torch.linspace(0, 5, 40, dtype=torch.float64)
    A = (torch.exp(-(t[:, None] - t).abs()) + 0.1 * torch.eye(40, dtype=torch.float64)).requires_grad_(True)
    return A, torch.sin(t)[:, None].requires_grad_(True)


def ours(A):
    return RangeFormerLinearOperator(DenseLinearOperator(A), rtol=1e-12)


CALLS = {
    "solve": lambda operator, b: operator.solve(b).sin().sum(),
    "inv_quad": lambda operator, b: operator.inv_quad(b),
    "logdet": lambda operator, b: operator.logdet() + 0 * b.sum(),
}


@pytest.mark.parametrize("call", [CALLS["inv_quad"], CALLS["logdet"]], ids=["inv_quad", "logdet"])
def test_a_gradient_with_a_graph_is_the_gradient_and_cannot_be_differentiated(call, system):
    value = call(ours(system[0]), system[1])
    plain = torch.autograd.grad(value, system, retain_graph=True)
    gradients = torch.autograd.grad(value, system, create_graph=True)
    for gradient, expected in zip(gradients, plain, strict=True):
        assert torch.equal(gradient, expected)
    with pytest.raises(RuntimeError, match="once, not twice"):
        torch.autograd.grad(gradients[0].square().sum(), system)


@pytest.mark.parametrize("which", [0, 1])
def test_also_where_only_one_of_matrix_and_right_hand_side_requires_grad(which, system):
    inputs = [tensor if i == which else tensor.detach() for i, tensor in enumerate(system)]
    value = ours(inputs[0]).solve(inputs[1]).square().sum()
    (gradient,) = torch.autograd.grad(value, inputs[which], create_graph=True)
    expected = torch.autograd.grad(torch.linalg.solve(*inputs).square().sum(), inputs[which])[0]
    expected = (expected + expected.mT) / 2 if which == 0 else expected
    assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-8)


def test_second_and_third_derivatives_of_a_solve(system):
    A, b = system

    def derivatives(solution):
        (first,) = torch.autograd.grad(solution.sin().sum(), b, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), b, create_graph=True)
        (third,) = torch.autograd.grad(second.square().sum(), b, retain_graph=True)
        (mixed,) = torch.autograd.grad(first.square().sum(), A)
        return first, second, third, (mixed + mixed.mT) / 2

    found = derivatives(ours(A).solve(b))
    known = derivatives(torch.cholesky_solve(b, torch.linalg.cholesky((A + A.mT) / 2)))
    for one, other in zip(found, known, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_gradgradcheck_of_a_solve():
    t = torch.linspace(0, 2, 6, dtype=torch.float64)
    distance, scale = (t[:, None] - t).abs(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    b = torch.sin(t)[:, None].requires_grad_()

    def solve(scale, b):
        return ours(torch.exp(-distance / scale) + 0.1 * torch.eye(6, dtype=torch.float64)).solve(b)

    assert torch.autograd.gradcheck(solve, (scale, b))
    assert torch.autograd.gradgradcheck(solve, (scale, b))


def test_a_right_hand_side_may_change_in_place_before_the_backward_pass(system):
    b = system[1].detach().clone()
    value = ours(system[0]).solve(b).sum()
    b.zero_()
    value.backward()
    assert system[0].grad.isfinite().all()


def test_values_that_are_once_differentiable():
    x = torch.tensor(3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(once_differentiable(x**2), x, create_graph=True)
    assert gradient == 6
    with pytest.raises(RuntimeError, match="once, not twice"):
        torch.autograd.grad(gradient, x)
