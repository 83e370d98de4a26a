"""Residuals in twice the precision, against arithmetic of 200 bits."""

import mpmath
import pytest
import torch
from helpers import normal

from rangeformer.krylov.compensated import compensated_residual


def exact(A: torch.Tensor, b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    with mpmath.workprec(200):
        wide = [mpmath.matrix(t.tolist()) for t in (A, b, x)]
        return torch.tensor((wide[1] - wide[0] * wide[2]).apply(float).tolist(), dtype=torch.float64)


@pytest.mark.parametrize("decades", [0, 8, 14])
@pytest.mark.parametrize("n", [2, 17, 40])
def test_digits_survive_cancellation(n, decades):
    Q = torch.linalg.qr(normal(n, n)).Q
    A = (Q * torch.logspace(0, -decades, n, dtype=torch.float64)) @ Q.mT
    b = normal(n, 2)
    x = torch.linalg.lstsq(A, b).solution
    true = exact(A, b, x)
    torch.testing.assert_close(compensated_residual(A, b, x), true, rtol=1e-6, atol=1e-12 * float(true.abs().max()))


def test_batches_and_rectangles_are_loops():
    A, b, x = normal(3, 6, 4), normal(3, 6, 2), normal(3, 4, 2)
    together = compensated_residual(A, b, x)
    assert torch.equal(together, torch.stack([compensated_residual(*one) for one in zip(A, b, x, strict=True)]))
    torch.testing.assert_close(together, b - A @ x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_zeros_stay_zeros(value):
    zero = torch.zeros(4, 4, dtype=torch.float64)
    assert torch.equal(compensated_residual(zero, zero + value, zero), zero + value)
