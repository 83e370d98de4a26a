"""Symmetric, square and rectangular distributions through `draw_matrix`: shape, scale, seeds, small sizes, messages."""

import pytest
import torch

from rangeformer.distributions import (
    DISTRIBUTIONS,
    RECTANGULAR_DISTRIBUTIONS,
    SQUARE_DISTRIBUTIONS,
    SYMMETRIC_DISTRIBUTIONS,
    draw_matrix,
)
from tests.helpers import seeded

GENERAL = [*SYMMETRIC_DISTRIBUTIONS, *SQUARE_DISTRIBUTIONS, *RECTANGULAR_DISTRIBUTIONS]


def shape_of(law: str, n: int = 24) -> tuple[int, int]:
    return (n, n + 13) if law in RECTANGULAR_DISTRIBUTIONS else (n, n)


@pytest.mark.parametrize("law", GENERAL)
def test_shape_scale_and_symmetry(law):
    shape = shape_of(law)
    matrix = draw_matrix(law, shape, 3, generator=seeded())
    assert matrix.shape == (3, *shape)
    torch.testing.assert_close(torch.linalg.matrix_norm(matrix), torch.full((3,), 24**0.5, dtype=torch.float64))
    assert torch.equal(matrix, matrix.mT) == (law in SYMMETRIC_DISTRIBUTIONS)


@pytest.mark.parametrize("law", RECTANGULAR_DISTRIBUTIONS)
def test_tall_as_well_as_wide(law):
    assert draw_matrix(law, (50, 9), generator=seeded()).shape == (1, 50, 9)
    assert draw_matrix(law, (9, 50), generator=seeded()).shape == (1, 9, 50)


@pytest.mark.parametrize("law", GENERAL)
def test_reproducible_by_seed_fresh_within_a_batch_and_private(law):
    shape, before = shape_of(law), torch.random.get_rng_state()
    first = draw_matrix(law, shape, 2, generator=seeded(1))
    assert torch.equal(first, draw_matrix(law, shape, 2, generator=seeded(1)))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, draw_matrix(law, shape, 2, generator=seeded(2)))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("law", GENERAL)
def test_small_and_prime_sizes_in_both_dtypes(law):
    for n in (2, 3, 5, 7, 13):
        for m in {n, 2, n + 5} if law in RECTANGULAR_DISTRIBUTIONS else {n}:
            for dtype in (torch.float32, torch.float64):
                matrix = draw_matrix(law, (m, n), 4, generator=seeded(n), dtype=dtype)
                assert matrix.dtype == dtype
                assert torch.isfinite(matrix).all()
                # none is zero: all are scaled
                torch.testing.assert_close(
                    torch.linalg.matrix_norm(matrix), torch.full((4,), min(m, n) ** 0.5, dtype=dtype)
                )


@pytest.mark.parametrize("law", GENERAL)
def test_every_tensor_is_made_on_the_generators_device(law):
    expected = draw_matrix(law, shape_of(law), generator=seeded())
    with torch.device("meta"):
        drawn = draw_matrix(law, shape_of(law), generator=seeded())
    assert torch.equal(drawn, expected)


def test_names_are_unique_over_all_registries():
    names = [*DISTRIBUTIONS, *GENERAL]
    assert len(set(names)) == len(names)


def test_some_symmetric_laws_are_indefinite():
    for law in SYMMETRIC_DISTRIBUTIONS:
        values = torch.linalg.eigvalsh(draw_matrix(law, (24, 24), 8, generator=seeded(3)))
        assert ((values[:, 0] < 0) & (values[:, -1] > 0)).any(), law


def test_clear_errors():
    with pytest.raises(ValueError, match="positive semidefinite distributions are drawn by `draw`. Got 'wishart'"):
        draw_matrix("wishart", (4, 4), generator=seeded())
    with pytest.raises(ValueError, match=r"`shape` must be square for 'wigner'. Got \(4, 5\)"):
        draw_matrix("wigner", (4, 5), generator=seeded())
    with pytest.raises(ValueError, match=r"`shape` must be at least \(2, 2\)"):
        draw_matrix("sparse_rows", (1, 5), generator=seeded())
    with pytest.raises(ValueError, match="`batch_size` at least 1"):
        draw_matrix("sparse_rows", (4, 5), 0, generator=seeded())
    with pytest.raises(ValueError, match="`dtype` must be torch.float32 or torch.float64"):
        draw_matrix("gaussian", (4, 4), generator=seeded(), dtype=torch.int64)
