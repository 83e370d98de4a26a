"""Kernels against their formulas."""

import pytest
import torch

from rangeformer.distributions import DISTRIBUTIONS, SHAPES, draw, kernel_matrix
from tests.helpers import normal, seeded


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_kernels_match_their_formula(shape):
    scipy_special = pytest.importorskip("scipy.special")
    points = normal(6, 2)
    r = torch.stack([torch.linalg.vector_norm(points - x, dim=1) for x in points]).fill_diagonal_(1.0)
    if shape.startswith("matern"):
        nu = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}[shape]
        z = ((2 * nu) ** 0.5 * r).numpy()
        expected = torch.from_numpy(2 ** (1 - nu) / scipy_special.gamma(nu) * z**nu * scipy_special.kv(nu, z))
    else:
        expected = {"rbf": (-(r**2) / 2).exp(), "rational_quadratic": 1 / (1 + r**2 / 2)}[shape]
    expected.fill_diagonal_(1.0)
    torch.testing.assert_close(kernel_matrix(points, shape), expected)


def test_kernels_of_a_single_point_are_numbers():
    # at n = 2 one Kronecker factor is a kernel of one point
    for seed in range(10):
        assert torch.isfinite(draw("kronecker", 2, generator=seeded(seed)).matrix).all()


def test_the_line_holds_a_kernel_of_one_lengthscale_and_noise():
    matrix = DISTRIBUTIONS["rbf_line"](40, seeded(), torch.float64)
    noise = matrix.diagonal() - 1
    torch.testing.assert_close(noise, noise[0].expand(40))
    assert 0.1 <= noise[0] <= 1
    # -2 l^2 log B_ij are squared distances on a line of length 10: a matrix of rank three
    clear = matrix - torch.diag(noise)
    near = [i for i in range(40) if (clear[i, :10] > 1e-200).all()][:10]
    squares = -clear[:10, near].log()
    assert torch.linalg.matrix_rank(squares, rtol=1e-8) <= 3
