"""Structure of the square unsymmetric distributions."""

import pytest
import torch

from rangeformer.distributions import SQUARE_DISTRIBUTIONS
from tests.helpers import seeded

SEEDS = range(4)


def of(law: str, seed: int, n: int = 24) -> torch.Tensor:
    return SQUARE_DISTRIBUTIONS[law](n, seeded(seed), torch.float64)


@pytest.mark.parametrize(
    ("law", "variance", "kurtosis"),
    [("gaussian", 1, 3), ("laplace_entries", 2, 6), ("uniform_entries", 1 / 3, 1.8)],
)
def test_entries_have_their_moments(law, variance, kurtosis):
    entries = of(law, 0, 400)
    assert entries.var().item() == pytest.approx(variance, rel=0.03)
    assert (entries.pow(4).mean() / entries.var() ** 2).item() == pytest.approx(kurtosis, rel=0.06)


@pytest.mark.parametrize("seed", SEEDS)
def test_toeplitz_and_circulant(seed):
    toeplitz, circulant = of("unsymmetric_toeplitz", seed), of("unsymmetric_circulant", seed)
    assert torch.equal(toeplitz[1:, 1:], toeplitz[:-1, :-1])
    assert torch.equal(circulant.roll((1, 1), (0, 1)), circulant)
    values = torch.fft.fft(circulant[:, 0])
    fourier = torch.fft.fft(torch.eye(24, dtype=torch.complex128), norm="ortho")
    diagonalised = fourier @ circulant.to(torch.complex128) @ fourier.mH
    torch.testing.assert_close(diagonalised, torch.diag(values), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_reciprocals_of_cauchy_are_differences(seed):
    differences = 1 / of("cauchy", seed)
    # x_i - y_j: every 2 x 2 mixed difference vanishes
    mixed = differences.diff(dim=0).diff(dim=1)
    assert mixed.abs().max() < 1e-12 * differences.abs().max()


def test_cauchy_is_well_or_badly_conditioned():
    conds = [float(torch.linalg.cond(of("cauchy", seed))) for seed in range(12)]
    assert min(conds) < 30
    assert max(conds) > 1e12


@pytest.mark.parametrize("seed", SEEDS)
def test_convection_diffusion_is_an_m_matrix(seed):
    matrix = of("convection_diffusion", seed, 25)
    offdiagonal = matrix - torch.diag(matrix.diagonal())
    assert (offdiagonal <= 0).all()
    assert (matrix.sum(1) >= -1e-10).all()
    assert (torch.linalg.inv(matrix) >= -1e-12).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_companion_has_the_roots_of_its_polynomial(seed):
    matrix = of("companion", seed, 8)
    roots = torch.linalg.eigvals(matrix)
    coefficients = torch.cat([torch.ones(1, dtype=torch.float64), -matrix[0]]).to(torch.complex128)
    values = sum(c * roots ** (8 - k) for k, c in enumerate(coefficients))
    assert values.abs().max() < 1e-10


@pytest.mark.parametrize("seed", SEEDS)
def test_the_diagonal_dominates(seed):
    matrix = of("sparse_dominant", seed)
    others = matrix.abs().sum(1) - matrix.diagonal().abs()
    assert (matrix.diagonal().abs() > others).all()
    assert (matrix == 0).double().mean() > 0.4
    assert (matrix.diagonal() < 0).any()
    assert (matrix.diagonal() > 0).any()


def test_nonnormal_matrices_are():
    departures = []
    for seed in SEEDS:
        matrix = of("nonnormal", seed)
        values = torch.linalg.eigvals(matrix)
        assert values.imag.abs().max() < 1e-3
        departures.append((matrix.square().sum() - values.abs().square().sum()).item())
    assert max(departures) > 1
