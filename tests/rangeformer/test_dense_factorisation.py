"""The dense fallback: Cholesky, then QR matrix by matrix, and NaN where there is no log-determinant."""

import torch
from helpers import normal, with_spectrum

import rangeformer as rf
from rangeformer.dense_factorisation import MAX_ROWS, direct_logdet, direct_solve, may_solve_directly


def test_each_matrix_of_a_batch_gets_what_it_allows():
    definite = with_spectrum(torch.logspace(-2, 0, 12, dtype=torch.float64))
    indefinite = torch.diag(torch.linspace(-1, 2, 12, dtype=torch.float64))
    singular = torch.zeros(12, 12, dtype=torch.float64)
    A, rhs = torch.stack([definite, indefinite, singular]), normal(3, 12, 2)
    found = direct_solve(rf.as_operator(A), rhs)
    assert found.method == "QR"
    assert torch.allclose(A[:2] @ found.value[:2], rhs[:2])
    assert not bool(found.value[2].any())
    direct = direct_logdet(rf.as_operator(A), with_inverse=True)
    value, inverse = direct.value, direct.inverse
    assert torch.allclose(value[0], torch.logdet(definite))
    assert bool(value[1:].isnan().all())
    assert torch.allclose(inverse[0] @ definite, torch.eye(12, dtype=torch.float64), atol=1e-10)
    assert bool(inverse[1:].isnan().all())


def test_size_and_access_decide_whether_it_may():
    assert may_solve_directly(rf.as_operator(torch.eye(5)))
    assert not may_solve_directly(rf.as_operator((lambda v: v, (5, 5)), dtype=torch.float64))
    assert MAX_ROWS == 10_000
