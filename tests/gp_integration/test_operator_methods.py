"""The methods of kernel plus noise inside a block, against dense algebra."""

import pytest
import torch
from linear_operator.operators import AddedDiagLinearOperator, DenseLinearOperator, DiagLinearOperator

from gp_integration import operator_methods, patches
from gp_integration.settings import use_rangeformer

N = 120


def kernel_plus_noise(batch=()):
    t = torch.linspace(0, 6, N, dtype=torch.float64)
    K = torch.exp(-(t[:, None] - t).abs()).expand(*batch, N, N)
    noise = torch.linspace(0.05, 0.2, N, dtype=torch.float64).expand(*batch, N)
    return AddedDiagLinearOperator(DenseLinearOperator(K), DiagLinearOperator(noise)), K + torch.diag_embed(noise)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_values_and_shapes_are_those_of_dense_algebra(batch):
    operator, A = kernel_plus_noise(batch)
    b = torch.randn(*batch, N, 3, dtype=torch.float64)
    left = torch.randn(*batch, 4, N, dtype=torch.float64)
    x = torch.linalg.solve(A, b)
    squares = (b * x).sum(-2)
    with use_rangeformer(min_size=0, rtol=1e-8) as recorder:
        assert torch.allclose(operator.solve(b), x, rtol=1e-5, atol=1e-7)
        assert torch.allclose(operator.solve(b, left), left @ x, rtol=1e-5, atol=1e-6)
        assert torch.allclose(operator.inv_quad(b), squares.sum(-1), rtol=1e-8)
        assert torch.allclose(operator.inv_quad(b, reduce_inv_quad=False), squares, rtol=1e-8)
        quadratic, logdet = operator.inv_quad_logdet(b, logdet=True)
        nothing, only_logdet = operator.inv_quad_logdet(logdet=True)
        only_quadratic, no_logdet = operator.inv_quad_logdet(b)
    assert torch.allclose(quadratic, squares.sum(-1), rtol=1e-8)
    assert torch.allclose(only_quadratic, quadratic, rtol=1e-8)
    assert torch.allclose(logdet, torch.logdet(A), rtol=1e-3)
    assert torch.allclose(only_logdet, torch.logdet(A), rtol=1e-3)
    assert not nothing.any()
    assert not no_logdet.any()
    assert recorder.report().num_calls() == 7


def test_one_matrix_and_vectors_of_every_batch():
    operator, A = kernel_plus_noise()
    for shape in [(N,), (5, N, 2)]:
        b = torch.randn(shape, dtype=torch.float64)
        expected = torch.linalg.solve(A, b.unsqueeze(-1) if b.dim() == 1 else b).reshape(shape)
        with use_rangeformer(min_size=0, rtol=1e-8):
            assert torch.allclose(operator.solve(b), expected, rtol=1e-5, atol=1e-7)


def test_nothing_asked_for_is_an_error():
    operator, _ = kernel_plus_noise()
    with use_rangeformer(min_size=0), pytest.raises(RuntimeError, match="Either `inv_quad_rhs` or `logdet`"):
        operator.inv_quad_logdet()


def test_they_are_what_a_block_installs():
    replaced = {patch.name: patch.replacement for patch in patches.PATCHES if patch.owner is AddedDiagLinearOperator}
    assert replaced == {
        "solve": operator_methods.solve,
        "inv_quad": operator_methods.inv_quad,
        "inv_quad_logdet": operator_methods.inv_quad_logdet,
        "zero_mean_mvn_samples": operator_methods.samples,
    }
