"""Structured laws: symmetric, positive definite, reproducible, at every size; and of the documented form."""

import pytest
import torch

from rangeformer.structured import (
    ALGEBRAIC_LAWS,
    ENGINEERING_LAWS,
    KERNEL_LAWS,
    LAWS,
    PAPER_LAWS,
    PATTERN_LAWS,
    SHAPES,
    draw,
    kernel_matrix,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("law", sorted(LAWS))
@pytest.mark.parametrize("n", [64, 150])
def test_symmetric_positive_definite_and_scaled(law, n):
    drawn = draw(law, n, 3, generator=generator(n))
    matrix, noise = drawn.matrix, drawn.noise
    assert matrix.shape == (3, n, n)
    assert torch.equal(matrix, matrix.mT)
    assert ((noise >= 1e-4) & (noise <= 1)).all()
    smallest = torch.linalg.eigvalsh(matrix)[:, 0]
    assert (smallest >= noise - 1e-10 * n).all()
    torch.testing.assert_close(matrix.diagonal(dim1=-2, dim2=-1).mean(-1), 1 + noise)


@pytest.mark.parametrize("law", sorted(LAWS))
def test_reproducible_by_seed_and_fresh_within_a_batch(law):
    first, second = draw(law, 64, 2, generator=generator(1)), draw(law, 64, 2, generator=generator(1))
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(first.noise, second.noise)
    assert not torch.equal(first.matrix[0], first.matrix[1])
    assert not torch.equal(first.matrix, draw(law, 64, 2, generator=generator(2)).matrix)


@pytest.mark.parametrize("law", sorted(LAWS))
def test_global_random_state_is_left_alone(law):
    before = torch.random.get_rng_state()
    draw(law, 40, generator=generator())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("law", sorted(LAWS))
def test_dtype_and_small_sizes(law):
    for n in (2, 3, 17):
        drawn = draw(law, n, generator=generator(n), dtype=torch.float32)
        assert drawn.matrix.dtype == drawn.noise.dtype == torch.float32
        assert torch.isfinite(drawn.matrix).all()


def test_a_large_draw():
    assert draw("kernel_gaussian", 2048, generator=generator(), dtype=torch.float32).matrix.shape == (1, 2048, 2048)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_kernels_match_their_formula(shape):
    scipy_special = pytest.importorskip("scipy.special")
    points = torch.randn(6, 2, generator=generator(), dtype=torch.float64)
    r = torch.stack([torch.linalg.vector_norm(points - x, dim=1) for x in points]).fill_diagonal_(1.0)
    if shape.startswith("matern"):
        nu = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}[shape]
        z = ((2 * nu) ** 0.5 * r).numpy()
        expected = torch.from_numpy(2 ** (1 - nu) / scipy_special.gamma(nu) * z**nu * scipy_special.kv(nu, z))
    else:
        expected = {"rbf": (-(r**2) / 2).exp(), "rational_quadratic": 1 / (1 + r**2 / 2)}[shape]
    expected.fill_diagonal_(1.0)
    torch.testing.assert_close(kernel_matrix(points, shape), expected)


def test_every_law_is_documented_and_listed_once():
    assert (*KERNEL_LAWS, *ALGEBRAIC_LAWS, *PAPER_LAWS, *PATTERN_LAWS, *ENGINEERING_LAWS) == tuple(LAWS)
    for name, law in LAWS.items():
        assert law.__doc__, name


def test_clear_errors():
    with pytest.raises(ValueError, match="`law` must be one of"):
        draw("none", 64, generator=generator())
    with pytest.raises(ValueError, match="`n` must be at least 2"):
        draw("wishart", 1, generator=generator())
