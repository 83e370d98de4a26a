"""Batch dimensions that only a right-hand side has become columns, and come back where they were."""

import pytest
import torch

from gp_integration.batch_folding import BatchFold


@pytest.mark.parametrize(
    ("batch", "rhs"),
    [((), (5, 2)), ((), (4, 3, 5, 2)), ((3,), (5, 2)), ((3,), (4, 3, 5, 2)), ((4, 1), (3, 5, 2)), ((1,), (6, 5, 1))],
)
def test_a_solve_with_folded_columns_is_the_solve_of_every_batch(batch, rhs):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(*batch, 5, 5, generator=generator, dtype=torch.float64) + 5 * torch.eye(5, dtype=torch.float64)
    b = torch.randn(*rhs, generator=generator, dtype=torch.float64)
    fold = BatchFold.of(A.shape[:-2], b)
    columns = fold.fold(b)
    assert columns.shape[:-1] == (*batch, 5)
    expected = torch.linalg.solve(A.expand(*fold.full, 5, 5), b.expand(*fold.full, *b.shape[-2:]))
    assert torch.allclose(fold.unfold(torch.linalg.solve(A, columns)), expected)


def test_nothing_is_folded_where_the_batches_agree():
    b = torch.ones(3, 5, 2)
    fold = BatchFold.of(torch.Size([3]), b)
    assert fold.trivial
    assert torch.equal(fold.fold(b), b)


def test_batches_that_do_not_broadcast_are_an_error():
    with pytest.raises(RuntimeError, match="Shape mismatch|broadcast"):
        BatchFold.of(torch.Size([3]), torch.ones(2, 5, 1))
