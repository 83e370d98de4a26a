"""Finite elements and differences: exact integrals, patch test, and the patterns of their grids."""

import pytest
import torch

from rangeformer.distributions import DISTRIBUTIONS
from rangeformer.distributions.elements import linear_elements, second_difference
from tests.helpers import normal, seeded


def test_gradients_reproduce_linear_functions():
    corners = normal(5, 3, 2)
    slope = torch.tensor([0.3, -1.2], dtype=torch.float64)
    area, gradients = linear_elements(corners)
    torch.testing.assert_close((gradients @ (corners @ slope).unsqueeze(-1)).squeeze(-1), slope.expand(5, 2))
    edges = corners[:, 1:] - corners[:, :1]
    torch.testing.assert_close(area, torch.linalg.det(edges).abs() / 2)


@pytest.mark.parametrize("seed", range(6))
def test_triangles_are_a_definite_mesh(seed):
    matrix = DISTRIBUTIONS["triangles"](36, seeded(seed), torch.float64)
    assert torch.linalg.eigvalsh(matrix)[0] > 0
    row, column = torch.arange(36) // 6, torch.arange(36) % 6
    down, right = row[:, None] - row, column[:, None] - column
    # corner - corner along both sides and one diagonal of a cell
    linked = ((down == 0) & (right.abs() <= 1)) | ((right == 0) & (down.abs() <= 1)) | (down * right == -1)
    assert (matrix[~linked] == 0).all()
    assert (matrix[linked] != 0).all()


def test_away_from_the_fixed_edge_constants_cost_only_their_mass():
    matrix = DISTRIBUTIONS["triangles"](36, seeded(2), torch.float64)
    sums = matrix.sum(1)
    # rows that do not touch the fixed nodes: K 1 = 0, M 1 > 0 and small
    assert (sums[:30] > 0).all()
    assert sums[:30].mean() < 0.2 * matrix.diagonal().mean()


def test_a_uniform_plate_is_the_square_of_a_laplacian():
    for seed in range(4):
        matrix = DISTRIBUTIONS["plate"](25, seeded(seed), torch.float64)
        row, column = torch.arange(25) // 5, torch.arange(25) % 5
        distance = (row[:, None] - row).abs() + (column[:, None] - column).abs()
        assert (matrix[distance > 2] == 0).all()
        assert (matrix[(distance <= 2) & (distance > 0)] != 0).all()
        assert torch.linalg.eigvalsh(matrix)[0] > 0


def test_second_differences_by_upwinding():
    expected = torch.tensor([[4, -1, 0], [-3, 4, -1], [0, -3, 4]], dtype=torch.float64)
    assert torch.equal(second_difference(3, torch.device("cpu"), torch.float64, 2.0), expected)
    assert torch.equal(second_difference(3, torch.device("cpu"), torch.float64, -2.0), expected.mT)
