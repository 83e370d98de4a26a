"""Positive semidefinite distributions: symmetric, scaled, reproducible, at every size.

And the old ones draw what they drew.
"""

import pytest
import torch

from rangeformer.distributions import (
    ALGEBRAIC_DISTRIBUTIONS,
    DISTRIBUTIONS,
    ENGINEERING_DISTRIBUTIONS,
    KERNEL_DISTRIBUTIONS,
    PAPER_DISTRIBUTIONS,
    PATTERN_DISTRIBUTIONS,
    draw,
)
from tests.helpers import seeded

# squared Frobenius norm of the second of two draws at n = 24, seed 5
FROZEN = {
    "kernel_uniform": 76.407149,
    "kernel_gaussian": 41.8930661,
    "kernel_clustered": 24.9215775,
    "kernel_grid": 26.8245376,
    "kernel_discretised": 24.5758202,
    "kernel_manifold": 34.262656,
    "kernel_heavy_tailed": 74.4289886,
    "kernel_periodic": 96.6615266,
    "kernel_warped": 46.9999662,
    "spectral_decay": 115.364637,
    "low_rank": 228.9959,
    "wishart": 39.8209093,
    "graph_laplacian": 321.59633,
    "stencil": 174.921723,
    "toeplitz": 83.9146618,
    "kronecker": 42.1823175,
    "badly_scaled": 146.512903,
}


@pytest.mark.parametrize("law", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [37, 64])
def test_symmetric_positive_definite_and_scaled(law, n):
    drawn = draw(law, n, 3, generator=seeded(n))
    matrix, noise = drawn.matrix, drawn.noise
    assert matrix.shape == (3, n, n)
    assert torch.equal(matrix, matrix.mT)
    assert ((noise >= 1e-4) & (noise <= 1)).all()
    smallest = torch.linalg.eigvalsh(matrix)[:, 0]
    assert (smallest >= noise - 1e-12 * n).all()
    torch.testing.assert_close(matrix.diagonal(dim1=-2, dim2=-1).mean(-1), 1 + noise)


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_reproducible_by_seed_and_fresh_within_a_batch(law):
    first, second = draw(law, 40, 2, generator=seeded(1)), draw(law, 40, 2, generator=seeded(1))
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(first.noise, second.noise)
    assert not torch.equal(first.matrix[0], first.matrix[1])
    assert not torch.equal(first.matrix, draw(law, 40, 2, generator=seeded(2)).matrix)


@pytest.mark.parametrize("law", [*KERNEL_DISTRIBUTIONS, *ALGEBRAIC_DISTRIBUTIONS])
def test_the_laws_of_the_shipped_features_draw_what_they_drew(law):
    drawn = draw(law, 24, 2, generator=seeded(5)).matrix[1]
    assert drawn.square().sum().item() == pytest.approx(FROZEN[law], rel=1e-6)


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_global_random_state_is_left_alone(law):
    before = torch.random.get_rng_state()
    draw(law, 10, generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_small_and_prime_sizes_in_both_dtypes(law):
    for n in (2, 3, 4, 5, 7, 13, 29):
        for dtype in (torch.float32, torch.float64):
            drawn = draw(law, n, 3, generator=seeded(n), dtype=dtype)
            assert drawn.matrix.dtype == drawn.noise.dtype == dtype
            assert torch.isfinite(drawn.matrix).all(), n
            torch.linalg.cholesky(drawn.matrix.double())


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_a_law_is_a_function_of_its_generator_alone(law):
    # what was drawn before leaves no trace
    alone = DISTRIBUTIONS[law](12, seeded(3), torch.float64)
    draw("wishart", 5, generator=seeded(4))
    assert torch.equal(DISTRIBUTIONS[law](12, seeded(3), torch.float64), alone)


@pytest.mark.parametrize("law", DISTRIBUTIONS)
def test_every_tensor_is_made_on_the_generators_device(law):
    expected = draw(law, 11, generator=seeded()).matrix
    # a default device that holds no numbers: whatever a distribution makes without naming the generator's device fails
    with torch.device("meta"):
        drawn = draw(law, 11, generator=seeded()).matrix
    assert torch.equal(drawn, expected)


def test_a_large_draw():
    assert draw("kernel_gaussian", 2048, generator=seeded(), dtype=torch.float32).matrix.shape == (1, 2048, 2048)


@pytest.mark.parametrize("law", ENGINEERING_DISTRIBUTIONS)
def test_stiffness_and_networks_at_a_size_of_training(law):
    assert torch.isfinite(draw(law, 500, generator=seeded(), dtype=torch.float32).matrix).all()


def test_every_law_is_listed_once():
    assert (
        *KERNEL_DISTRIBUTIONS,
        *ALGEBRAIC_DISTRIBUTIONS,
        *PAPER_DISTRIBUTIONS,
        *PATTERN_DISTRIBUTIONS,
        *ENGINEERING_DISTRIBUTIONS,
    ) == tuple(DISTRIBUTIONS)
    assert all(name == law.__name__ for name, law in DISTRIBUTIONS.items())


def test_clear_errors():
    with pytest.raises(ValueError, match="`law` must be one of"):
        draw("none", 64, generator=seeded())
    with pytest.raises(ValueError, match="`n` must be at least 2"):
        draw("wishart", 1, generator=seeded())
    with pytest.raises(ValueError, match="`batch_size` at least 1"):
        draw("wishart", 4, 0, generator=seeded())
