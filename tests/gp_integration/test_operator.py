"""`RangeFormerLinearOperator` against linear_operator's own test case, and what that case does not ask."""

import unittest

import pytest
import torch
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator, ToeplitzLinearOperator
from linear_operator.test.linear_operator_test_case import LinearOperatorTestCase

import rangeformer as rf
from gp_integration import RangeFormerLinearOperator, settings


def positive_definite(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    return (root @ root.mT + torch.eye(shape[-1], dtype=torch.float64)).to(dtype)


class TestUpstream(LinearOperatorTestCase, unittest.TestCase):
    # Our solves never reach linear_operator's CG; everything else that upstream iterates still does.
    should_call_cg = False
    seed = 0

    def create_linear_op(self):
        return RangeFormerLinearOperator(DenseLinearOperator(positive_definite(5).requires_grad_(True)))

    def evaluate_linear_op(self, linear_op):
        return linear_op.base.tensor


class TestUpstreamBatch(TestUpstream):
    def create_linear_op(self):
        return RangeFormerLinearOperator(DenseLinearOperator(positive_definite(2, 5).requires_grad_(True)))


class TestUpstreamMultiBatch(TestUpstream):
    skip_slq_tests = True  # as upstream's own dense multi-batch case

    def create_linear_op(self):
        return RangeFormerLinearOperator(DenseLinearOperator(positive_definite(2, 3, 4).requires_grad_(True)))


# torch 2.13 warns about the sparse tensors behind linear_operator's own slices of diagonals
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
class TestUpstreamAddedDiag(TestUpstream):
    def create_linear_op(self):
        dense = DenseLinearOperator(positive_definite(5).requires_grad_(True))
        return RangeFormerLinearOperator(dense + DiagLinearOperator(torch.linspace(0.5, 1.0, 5)))

    def evaluate_linear_op(self, linear_op):
        return linear_op.base._linear_op.tensor + torch.diag(linear_op.base._diag_tensor._diag)


# The base class is for subclassing: collected by itself it would run without an operator.
del LinearOperatorTestCase


def kernel_operator(n=600, batch=(), **options):
    x = torch.linspace(0, 8, n, dtype=torch.float64)
    K = torch.exp(-(x[:, None] - x).abs()).expand(*batch, n, n).clone().requires_grad_(True)
    noise = torch.full((*batch, n), 0.05, dtype=torch.float64)
    return RangeFormerLinearOperator(DenseLinearOperator(K) + DiagLinearOperator(noise), **options), K


@pytest.mark.parametrize("batch", [(), (2,)])
def test_solve_and_its_gradients_in_float64(batch):
    operator, K = kernel_operator(batch=batch)
    rhs = torch.randn(*batch, 600, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(*batch, 600, 3, dtype=torch.float64)
    dense = K + 0.05 * torch.eye(600, dtype=torch.float64)
    expected = list(torch.autograd.grad((torch.linalg.solve(dense, rhs) * weights).sum(), (K, rhs)))
    expected[0] = (expected[0] + expected[0].mT) / 2  # linear_operator's convention for symmetric matrices
    actual = torch.autograd.grad((operator.solve(rhs) * weights).sum(), (K, rhs))
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_right_hand_sides_of_every_shape():
    operator, K = kernel_operator(300)
    A = operator.to_dense().detach()
    for shape in [(300,), (300, 2), (4, 300, 2), (2, 3, 300, 1)]:
        rhs = torch.randn(*shape, dtype=torch.float64)
        expected = torch.linalg.solve(A, rhs.unsqueeze(-1) if len(shape) == 1 else rhs).reshape(shape)
        assert torch.allclose(operator.solve(rhs), expected, rtol=1e-4, atol=1e-6)
    batch, _ = kernel_operator(50, batch=(1,))
    rhs = torch.randn(5, 50, 2, dtype=torch.float64)
    assert torch.allclose(batch.solve(rhs), torch.linalg.solve(batch.to_dense(), rhs), rtol=1e-4, atol=1e-6)


def test_inv_quad_logdet_values_and_gradient():
    operator, K = kernel_operator(600)
    dense = K + 0.05 * torch.eye(600, dtype=torch.float64)
    rhs = torch.randn(600, 2, dtype=torch.float64)
    quadratic, logdet = operator.inv_quad_logdet(rhs, logdet=True)
    columns = operator.inv_quad(rhs, reduce_inv_quad=False)
    expected = (rhs * torch.linalg.solve(dense, rhs)).sum(-2)
    assert torch.allclose(columns, expected, rtol=1e-8)
    assert torch.allclose(quadratic, expected.sum(), rtol=1e-8)
    assert torch.allclose(logdet, torch.logdet(dense), rtol=1e-3)
    assert torch.allclose(operator.logdet(), torch.logdet(dense), rtol=1e-3)
    ours = torch.autograd.grad(quadratic, K)[0]
    theirs = torch.autograd.grad(expected.sum(), K)[0]
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_structured_operators_keep_their_products(monkeypatch):
    column = torch.exp(-torch.arange(400, dtype=torch.float64) / 20)
    toeplitz = ToeplitzLinearOperator(column) + DiagLinearOperator(torch.full((400,), 0.1, dtype=torch.float64))
    operator = RangeFormerLinearOperator(toeplitz)
    rhs = torch.randn(400, dtype=torch.float64)
    assert torch.allclose(operator.solve(rhs), torch.linalg.solve(operator.to_dense(), rhs), atol=1e-5)


def test_calls_are_ours_and_appear_in_the_report_of_a_block():
    operator, _ = kernel_operator(300)
    rhs = torch.randn(300, dtype=torch.float64)
    with settings.use_rangeformer() as recorder:
        operator.solve(rhs)
        operator.logdet()
    report = recorder.report()
    assert report.num_calls("solve") == 1
    assert report.num_calls("inv_quad_logdet") == 1
    assert report.worst_residual("solve") <= 1e-6


def test_an_indefinite_operator_falls_back_and_fails_as_cholesky_does():
    from linear_operator.utils.errors import NotPSDError

    operator = RangeFormerLinearOperator(DenseLinearOperator(torch.diag(torch.tensor([1.0, -2.0, 3.0]))))
    with (
        pytest.warns(Warning, match="fell back to Cholesky|not positive definite|not p.d.") as caught,
        pytest.raises(NotPSDError),
    ):
        operator.solve(torch.ones(3))
    assert any(issubclass(w.category, rf.ConvergenceWarning) for w in caught)


def test_it_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="`base` must be square"):
        RangeFormerLinearOperator(torch.ones(3, 4))
    with pytest.raises(ValueError, match="`rtol`"):
        RangeFormerLinearOperator(torch.eye(3), rtol=-1.0)
    with pytest.raises(RuntimeError, match="Either `inv_quad_rhs` or `logdet`"):
        RangeFormerLinearOperator(torch.eye(3)).inv_quad_logdet()
