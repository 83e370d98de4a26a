"""Log-determinants of ill-conditioned matrices: right, or with a rounding error that says how wrong."""

import warnings

import numpy as np
import pytest
import torch
from helpers import NAMES, normal, seeded

import rangeformer as rf


def extended_logdet(A: torch.Tensor) -> float:
    """By Cholesky in extended precision."""
    rest = A.double().numpy().astype(np.longdouble)
    total = np.longdouble(0)
    for j in range(len(rest)):
        total += np.log(rest[j, j])
        rest[j + 1 :, j + 1 :] -= np.outer(rest[j + 1 :, j], rest[j + 1 :, j]) / rest[j, j]
    return float(total)


def matrix(kind: str, n: int, seed: int) -> torch.Tensor:
    Q = torch.linalg.qr(normal(n, n, seed=seed)).Q
    decades = 8 + 5 * float(torch.rand((), generator=seeded(seed)))
    order = torch.randperm(n, generator=seeded(seed))
    D = torch.logspace(-5, 5, n, dtype=torch.float64)[order].unsqueeze(-1)
    A = {
        "spd": lambda: (Q * torch.logspace(0, -decades, n, dtype=torch.float64)) @ Q.mT,
        "scaled": lambda: D * ((Q * torch.logspace(0, -3, n, dtype=torch.float64)) @ Q.mT) * D.mT,
        "low rank": lambda: 100 * Q[:, :3] @ Q[:, :3].mT + 10.0**-decades * torch.eye(n, dtype=torch.float64),
    }[kind]()
    return (A + A.mT) / 2


@pytest.mark.parametrize("kind", ["spd", "scaled", "low rank"])
def test_errors_are_within_the_rounding_error_and_large_ones_do_not_converge(kind):
    misses = 0
    for seed in range(30):
        n = 5 + (37 * seed) % 220
        A = matrix(kind, n, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rf.ConvergenceWarning)
            result = rf.logdet(A, preconditioner=NAMES[seed % len(NAMES)], generator=seeded(seed))
        error = abs(float(result.value) - extended_logdet(A))
        misses += error > float(result.rounding_error) + 1e-13 * abs(float(result.value))
        assert error < 1e-3 * n or not result.converged
        if kind == "scaled":
            assert error < 1e-12 * abs(float(result.value)), "scaling by the diagonal costs no digits"
            assert result.converged
    assert misses <= 3


def test_what_rounding_decides_is_said():
    n = 60
    A = torch.ones(n, n, dtype=torch.float64) + 1e-14 * torch.eye(n, dtype=torch.float64)
    with pytest.warns(rf.ConvergenceWarning, match="rounding may change its log-determinant by"):
        result = rf.logdet(A)
    assert not result.converged
    assert result.status is rf.Status.ILL_CONDITIONED
    assert result.rounding_error > 1e-2


@pytest.mark.parametrize("size", [1e-290, 1e-150, 1e150, 1e290])
def test_the_value_at_any_size(size):
    A = matrix("scaled", 40, 1)
    expected = rf.logdet(A).value + 40 * np.log(size)
    torch.testing.assert_close(rf.logdet(size * A).value, expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("negative", [1, 2])
def test_the_sign_of_an_indefinite_matrix(negative):
    A = torch.diag(torch.linspace(1, 2, 30, dtype=torch.float64))
    A[:negative] *= -1
    with pytest.warns(rf.ConvergenceWarning, match=r"The determinant has sign .* log \|det A\|"):
        result = rf.logdet(A)
    assert result.value.isnan()
    assert result.sign == (-1) ** negative
    assert rf.logdet(A.abs()).sign == 1


def test_rounding_of_estimates_is_counted_too():
    x = torch.rand(400, 2, generator=seeded(), dtype=torch.float64)
    A = torch.exp(-torch.cdist(x, x).square()) + 1e-7 * torch.eye(400, dtype=torch.float64)
    precise = rf.logdet(A, generator=seeded())
    assert 0 < precise.rounding_error < 1e-3
    assert precise.converged
