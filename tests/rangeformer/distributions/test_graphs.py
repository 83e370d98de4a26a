"""Laplacians: no row sums where nothing is grounded, few loops in power networks."""

import pytest
import torch

from rangeformer.distributions import DISTRIBUTIONS
from rangeformer.distributions.graphs import precision_or_covariance
from tests.helpers import seeded


@pytest.mark.parametrize("seed", range(6))
def test_a_power_network_is_a_grounded_laplacian_with_few_loops(seed):
    n = 50
    matrix = DISTRIBUTIONS["power_network"](n, seeded(seed), torch.float64)
    offdiagonal = matrix - torch.diag(matrix.diagonal())
    assert (offdiagonal <= 0).all()
    num_lines = int((offdiagonal < 0).sum()) // 2
    assert n - 1 <= num_lines <= 1.5 * n
    shunts = matrix.sum(1)
    assert int((shunts > 1e-8).sum()) == 2
    # connected and grounded somewhere: regular, but hardly
    values = torch.linalg.eigvalsh(matrix)
    assert 0 < values[0] < 0.1 * matrix.diagonal().mean()


def test_a_precision_and_its_covariance_are_inverse():
    laplacian = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    seen = set()
    for seed in range(20):
        matrix = precision_or_covariance(laplacian, seeded(seed))
        inverted = bool(matrix[0, 1] > 0)
        values = torch.linalg.eigvalsh(matrix)
        shift = 1 / values[1] if inverted else values[0]
        assert 1e-3 <= shift <= 1e-1
        seen.add(inverted)
    assert seen == {True, False}
