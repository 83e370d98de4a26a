"""Patterns are exact: constant diagonals, zeros outside, displacement ranks."""

import pytest
import torch

from rangeformer.distributions import DISTRIBUTIONS
from rangeformer.distributions.patterns import block_numbers
from tests.helpers import seeded

SEEDS = range(4)


def of(law: str, seed: int, n: int = 30) -> torch.Tensor:
    return DISTRIBUTIONS[law](n, seeded(seed), torch.float64)


@pytest.mark.parametrize("seed", SEEDS)
def test_toeplitz_has_constant_diagonals(seed):
    matrix = of("toeplitz", seed)
    assert torch.equal(matrix[1:, 1:], matrix[:-1, :-1])


@pytest.mark.parametrize("n", [30, 31])
@pytest.mark.parametrize("seed", SEEDS)
def test_circulants_are_diagonalised_by_the_fourier_transform(seed, n):
    matrix = of("circulant", seed, n)
    assert torch.equal(matrix.roll((1, 1), (0, 1)), matrix)
    fourier = torch.fft.fft(torch.eye(n, dtype=torch.complex128), norm="ortho")
    diagonalised = fourier @ matrix.to(torch.complex128) @ fourier.mH
    values = diagonalised.diagonal()
    assert (diagonalised - torch.diag(values)).abs().max() < 1e-13
    assert values.real.min() > 0
    assert values.imag.abs().max() < 1e-13


@pytest.mark.parametrize("seed", SEEDS)
def test_moments_are_constant_along_antidiagonals(seed):
    matrix = of("hankel_moments", seed)
    assert torch.equal(matrix[1:, :-1], matrix[:-1, 1:])
    # moments of points in [-1, 1]: even ones fall
    assert (matrix.diagonal().diff() <= 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_cauchy_has_displacement_rank_one(seed):
    matrix = of("cauchy_gram", seed)
    x = 1 / (2 * matrix.diagonal())
    torch.testing.assert_close(x[:, None] * matrix + matrix * x, torch.ones_like(matrix))


@pytest.mark.parametrize("seed", SEEDS)
def test_bands_end(seed):
    matrix = of("banded", seed)
    distance = (torch.arange(30)[:, None] - torch.arange(30)).abs()
    width = int(distance[matrix != 0].max())
    assert 1 <= width <= 7
    assert (matrix[distance <= width] != 0).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("law", "reach"), [("block_diagonal", 0), ("block_tridiagonal", 1)])
def test_blocks_are_zero_beyond_their_neighbours(law, reach, seed):
    block = block_numbers(30, seeded(seed))
    distance = (block[:, None] - block).abs()
    matrix = of(law, seed)
    assert (matrix[distance > reach] == 0).all()
    assert (matrix[distance <= reach] != 0).all()


def test_block_numbers_count_up_without_gaps():
    for seed in range(10):
        block = block_numbers(20, seeded(seed))
        assert set(block.diff().tolist()) <= {0, 1}
        assert block[0] == 0
        assert 1 <= block[-1] <= 7
    assert torch.equal(block_numbers(2, seeded()), torch.tensor([0, 1]))
