import pytest
import torch
from helpers import normal

from sketching.learning.leading_space import leading_space


def projection(table: torch.Tensor, count: int) -> torch.Tensor:
    space = leading_space(table, count)
    return space @ space.mT


@pytest.mark.parametrize("count", [1, 4, 6])
def test_spans_the_leading_left_singular_vectors(count):
    table = normal(11, 6)
    U = torch.linalg.svd(table, full_matrices=False).U[:, :count]
    torch.testing.assert_close(projection(table, count), U @ U.mT)


@pytest.mark.parametrize(("shape", "count"), [((11, 6), 1), ((11, 6), 3), ((11, 6), 6), ((6, 11), 1), ((6, 11), 3)])
def test_gradient_of_functions_of_the_space(shape, count):
    table = normal(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda X: projection(X, count), table)


def test_gradient_where_singular_values_coincide_within_the_space():
    Q, Z = torch.linalg.qr(normal(9, 5)).Q, torch.linalg.qr(normal(5, 5, seed=1)).Q
    table = (Q * torch.tensor([2.0, 2.0, 2.0, 1.0, 0.5]).double()) @ Z
    table.requires_grad_()
    assert torch.autograd.gradcheck(lambda X: projection(X, 3), table)


def test_gradient_is_finite_where_the_space_is_not_determined():
    table = torch.eye(7, 5, dtype=torch.float64).requires_grad_()
    (projection(table, 3) * normal(7, 7)).sum().backward()
    assert table.grad is not None
    assert torch.isfinite(table.grad).all()


def test_of_rank_less_than_wanted_there_still_is_a_basis():
    space = leading_space(normal(9, 2) @ normal(2, 6), 4)
    torch.testing.assert_close(space.mT @ space, torch.eye(4, dtype=torch.float64))


def test_more_than_there_are():
    with pytest.raises(ValueError, match=r"`count` must be at most 6 for a table \(11, 6\). Got 7"):
        leading_space(normal(11, 6), 7)
