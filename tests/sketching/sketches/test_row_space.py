import pytest
import torch
from helpers import normal, seeded
from sketch_examples import smooth

from sketching.sketches.row_space import core_rows, leading_eigenvectors, leading_right_vectors


def projector(V: torch.Tensor) -> torch.Tensor:
    Q = torch.linalg.qr(V.to(torch.float64)).Q
    return Q @ Q.mT


@pytest.mark.parametrize("count", [5, 30])
def test_right_vectors_are_those_of_the_singular_value_decomposition(count):
    rows = smooth(20, 70)
    expected = torch.linalg.svd(rows, full_matrices=False).Vh[:count].mT
    torch.testing.assert_close(projector(leading_right_vectors(rows, count)), projector(expected), atol=1e-6, rtol=0)


def test_no_directions_past_the_numerical_rank():
    assert leading_right_vectors(normal(9, 4) @ normal(4, 40, seed=1), 8).shape == (40, 4)


@pytest.mark.parametrize(("c", "n"), [(40, 300), (150, 300), (300, 90)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_core_holds_the_leading_energy(c, n, dtype):
    """By decomposition and by iteration, from either Gram matrix; a slow decay is the worst for the iteration."""
    rows = (normal(c, n) * torch.linspace(1, 0.05, n).double() ** 2).to(dtype)
    core = core_rows(rows, 20, seeded())
    assert core.shape == (20, n)
    assert core.dtype == dtype
    best = torch.linalg.svdvals(rows.double())[:20].square().sum()
    kept = torch.linalg.svdvals(rows.double() @ leading_right_vectors(core.double(), 20))[:20].square().sum()
    assert 0.95 * best < kept <= best * (1 + 1e-6)
    norms = torch.linalg.vector_norm(core.double(), dim=-1)
    assert (norms.diff() <= 1e-3 * norms[0]).all()


def test_few_rows_are_their_own_core():
    rows = normal(4, 30)
    kept = core_rows(rows, 9, seeded())
    torch.testing.assert_close(kept.mT @ kept, rows.mT @ rows)


def test_iterated_eigenvectors_are_orthonormal_and_in_descending_order():
    rows = smooth(200, 120)
    U, values = leading_eigenvectors(rows @ rows.mT, 30, seeded())
    torch.testing.assert_close(U.mT @ U, torch.eye(30, dtype=torch.float64))
    assert (values.diff() <= 0).all()
    torch.testing.assert_close(values[:10], torch.linalg.svdvals(rows)[:10].square(), rtol=1e-3, atol=0)
