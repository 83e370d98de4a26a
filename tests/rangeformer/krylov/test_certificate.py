"""Residuals are those of the value, at every scale; a dense answer replaces one only where it is better."""

import numpy as np
import pytest
import torch
from helpers import normal, with_spectrum

import rangeformer as rf
from rangeformer.krylov.certificate import (
    certified_residuals,
    column_norms,
    directly_where_better,
    needs_precision,
    powers_of_two,
    relative_residuals,
)


@pytest.mark.parametrize("size", [1e-300, 1e-150, 1.0, 1e150, 1e300])
def test_norms_survive_the_squares_of_their_entries(size):
    vectors = normal(50, 3)
    assert torch.allclose(column_norms(size * vectors) / size, torch.linalg.vector_norm(vectors, dim=0), rtol=1e-12)


def test_scaling_by_a_power_of_two_changes_no_digit():
    rhs = normal(40, 3) * torch.tensor([1e-200, 1.0, 1e200], dtype=torch.float64)
    scaled = rhs / powers_of_two(rhs)
    assert torch.equal(scaled * powers_of_two(rhs), rhs)
    assert bool((scaled.abs().amax(0) >= 1).all() & (scaled.abs().amax(0) <= 2).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_residual_is_that_of_the_value(dtype):
    A = with_spectrum(torch.logspace(-3, 0, 60, dtype=torch.float64)).to(dtype)
    rhs, value = normal(60, 2), normal(60, 2).to(dtype).double()
    norms = torch.linalg.vector_norm(rhs, dim=0)
    relative, residual = relative_residuals(rf.as_operator(A), rhs, value, norms, 1e-8)
    assert torch.allclose(residual, rhs - A.double() @ value, rtol=1e-12, atol=1e-13)
    assert torch.allclose(relative, torch.linalg.vector_norm(residual, dim=0) / norms)


def test_a_value_that_is_not_finite_has_an_infinite_residual():
    value = torch.full((5, 1), torch.nan, dtype=torch.float64)
    relative, _ = relative_residuals(
        rf.as_operator(torch.eye(5, dtype=torch.float64)), normal(5, 1), value, torch.ones(1, dtype=torch.float64), 1e-6
    )
    assert bool(torch.isinf(relative).all())


def test_precision_is_needed_where_rounding_could_pass_for_a_residual():
    value, scale = torch.ones(100, 1, dtype=torch.float64), torch.tensor([10.0], dtype=torch.float64)
    eye = torch.eye(100)
    assert needs_precision(rf.as_operator(eye), value, scale, 1e-6)
    assert not needs_precision(rf.as_operator(eye), value, scale, 1e-2)
    assert not needs_precision(rf.as_operator(eye.double()), value, scale, 1e-6)
    # a large solution of an ill-conditioned system, whose products cancel
    assert needs_precision(rf.as_operator(eye), 1e3 * value, scale, 1e-2)


def test_residuals_hidden_by_rounding_are_recomputed():
    Q = torch.linalg.qr(normal(40, 40)).Q
    A = (Q * torch.logspace(0, -13, 40, dtype=torch.float64)) @ Q.mT
    A, b = (A + A.mT) / 2, normal(40, 3)
    x, scale = torch.cholesky_solve(b, torch.linalg.cholesky(A)), torch.linalg.vector_norm(b, dim=-2)
    wide = [t.numpy().astype(np.longdouble) for t in (A, b, x)]
    true = np.linalg.norm((wide[1] - wide[0] @ wide[2]).astype(float), axis=-2) / scale.numpy()
    plain, _ = relative_residuals(rf.as_operator(A), b, x, scale, 1e-9)
    certified = certified_residuals(rf.as_operator(A), b, x, scale, plain, 1e-9)
    assert (true > 1e-9).all()
    assert np.abs(certified.numpy() / true - 1).max() < 1e-2
    assert np.abs(plain.numpy() / true - 1).max() > 0.1, "float64 products must not be enough here"
    assert certified_residuals(rf.as_operator(A), b, x, scale, plain, 1.0) is plain, "far below rtol nothing is done"


def test_only_missed_columns_that_gain_are_replaced():
    A = with_spectrum(torch.logspace(-2, 0, 30, dtype=torch.float64))
    rhs = normal(30, 3)
    exact = torch.linalg.solve(A, rhs)
    value = exact.clone()
    value[:, 1:] = 0
    relative = torch.tensor([1e-15, 1.0, 1.0], dtype=torch.float64)
    missed = torch.tensor([False, True, False])
    found, residuals, name = directly_where_better(
        rf.as_operator(A),
        rhs,
        value,
        relative,
        missed,
        size=torch.ones(1, 3, dtype=torch.float64),
        scale=torch.linalg.vector_norm(rhs, dim=0),
        rtol=1e-10,
    )
    assert name == "Cholesky"
    assert torch.equal(found[:, 0], value[:, 0])
    assert torch.allclose(found[:, 1], exact[:, 1])
    assert not bool(found[:, 2].any())
    assert float(residuals[1]) < 1e-12
