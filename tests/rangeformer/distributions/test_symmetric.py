"""Structure of the symmetric indefinite distributions."""

import pytest
import torch

from rangeformer.distributions import SYMMETRIC_DISTRIBUTIONS
from rangeformer.distributions.einsum import factorisation
from tests.helpers import seeded

SEEDS = range(4)


def of(law: str, seed: int, n: int = 24) -> torch.Tensor:
    return SYMMETRIC_DISTRIBUTIONS[law](n, seeded(seed), torch.float64)


def test_wigner_fills_a_semicircle():
    for seed in SEEDS:
        matrix = of("wigner", seed, 200)
        variance = matrix.triu(1)[matrix.triu(1) != 0].var()
        largest = torch.linalg.eigvalsh(matrix).abs().max()
        assert 0.85 < largest / (2 * (200 * variance).sqrt()) < 1.15


def test_wigner_has_four_kinds_of_entries():
    # signs average to -1, 0 or 1; uniform ones stay below one
    kinds = {"signs": 0, "bounded": 0, "unbounded": 0}
    for seed in range(30):
        matrix = of("wigner", seed)
        if set(matrix.unique().tolist()) <= {-1.0, 0.0, 1.0}:
            kinds["signs"] += 1
        else:
            kinds["bounded" if matrix.abs().max() <= 1 else "unbounded"] += 1
    assert min(kinds.values()) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_toeplitz_and_hankel_shift(seed):
    toeplitz, hankel = of("symmetric_toeplitz", seed), of("hankel", seed)
    assert torch.equal(toeplitz[1:, 1:], toeplitz[:-1, :-1])
    assert torch.equal(hankel[1:, :-1], hankel[:-1, 1:])
    # displacement rank two: A - Z A Z^T is zero but for a row and a column
    down = torch.diag(torch.ones(23, dtype=torch.float64), -1)
    assert torch.linalg.matrix_rank(toeplitz - down @ toeplitz @ down.mT) == 2
    assert torch.linalg.matrix_rank(down @ hankel - hankel @ down.mT) <= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_signed_spectrum_decays(seed):
    values = torch.linalg.svdvals(of("signed_spectrum", seed)).log()
    slope = values[1:] / torch.arange(2, 25, dtype=torch.float64).log()
    torch.testing.assert_close(slope, slope[0].expand(23), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_adjacency_is_of_zeros_and_ones_without_loops(seed):
    matrix = of("adjacency", seed, 60)
    assert set(matrix.unique().tolist()) <= {0.0, 1.0}
    assert (matrix.diagonal() == 0).all()
    assert 1 <= matrix.sum(1).mean() <= 12


@pytest.mark.parametrize("seed", SEEDS)
def test_saddle_points_have_the_inertia_of_their_blocks(seed):
    matrix = of("saddle_point", seed)
    num_constraints = int((matrix.diagonal() < 0).sum())
    assert 1 <= num_constraints <= 13
    assert int((torch.linalg.eigvalsh(matrix) < 0).sum()) == num_constraints


@pytest.mark.parametrize("seed", SEEDS)
def test_kronecker_factors_are_symmetric(seed):
    p, q = factorisation(24, 2, seeded(seed))
    blocks = of("symmetric_kronecker", seed).reshape(p, q, p, q).transpose(1, 2)
    torch.testing.assert_close(blocks, blocks.mT)
    torch.testing.assert_close(blocks, blocks.transpose(0, 1))
    assert torch.linalg.matrix_rank(blocks.reshape(p * p, q * q)) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_helmholtz_is_a_shifted_laplacian(seed):
    values = torch.linalg.eigvalsh(of("helmholtz", seed, 25))
    line = 2 - 2 * torch.cos(torch.pi * torch.arange(1, 6, dtype=torch.float64) / 6)
    laplacian = (line[:, None] + line).reshape(-1).sort().values
    torch.testing.assert_close(laplacian - values, (laplacian - values)[0].expand(25))
    assert 0.1 <= (laplacian - values)[0] <= 4
