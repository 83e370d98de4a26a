"""Problems with exact answers, against dense oracles."""

import dataclasses

import pytest
import torch
from helpers import seeded

from rangeformer.distributions import ALGEBRAIC_DISTRIBUTIONS, PAPER_DISTRIBUTIONS, draw
from rangeformer.pretrain.operations import draw_operations


@pytest.mark.parametrize("n", [2, 10, 31])
def test_answers_equal_dense_oracles(n):
    batch = draw_operations(PAPER_DISTRIBUTIONS, n, 20, generator=seeded(n))
    for i, A in enumerate(batch.matrix):
        cond = torch.linalg.cond(A).item()
        inverse = torch.linalg.inv(A)
        error = torch.linalg.vector_norm(batch.solution[i] - inverse @ batch.rhs[i])
        assert error <= 1e-14 * cond * torch.linalg.vector_norm(batch.solution[i]) * n
        torch.testing.assert_close(
            batch.eigenvalues[i], torch.linalg.eigvals(A).real.sort().values, rtol=1e-8, atol=1e-9
        )
        torch.testing.assert_close(batch.logdet[i], torch.linalg.slogdet(A).logabsdet, rtol=1e-9, atol=1e-8)


def test_shapes_dtypes_and_properties():
    batch = draw_operations(PAPER_DISTRIBUTIONS, 12, 40, generator=seeded())
    assert batch.matrix.shape == (40, 12, 12)
    assert batch.rhs.shape == batch.solution.shape == batch.eigenvalues.shape == (40, 12)
    assert batch.logdet.shape == (40,)
    for field in dataclasses.fields(batch)[1:]:
        assert getattr(batch, field.name).dtype == torch.float64
    assert torch.equal(batch.matrix, batch.matrix.mT)
    assert (batch.eigenvalues.diff(dim=-1) >= 0).all()
    assert (batch.eigenvalues[:, 0] > 0).all()
    # mean diagonal: scale x (1 + noise)
    diagonal = batch.matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
    assert diagonal.min() >= 1
    assert diagonal.max() <= 3.3
    assert diagonal.max() > 2.5
    assert len(set(batch.laws)) > len(PAPER_DISTRIBUTIONS) // 2


def test_scale_and_noise_are_what_was_asked_for():
    batch = draw_operations(["low_rank"], 8, 5, generator=seeded(), scale_range=(4.0, 4.0), noise_range=(0.5, 0.5))
    torch.testing.assert_close(batch.matrix.diagonal(dim1=-2, dim2=-1).mean(-1), torch.full((5,), 6.0).double())
    assert (batch.eigenvalues[:, 0] >= 2.0).all()


def test_rows_are_permuted():
    """Toeplitz matrices are no longer constant along their diagonals, but keep their spectrum."""
    batch = draw_operations(["toeplitz"], 9, 4, generator=seeded(3), scale_range=(1.0, 1.0), noise_range=(0.1, 0.1))
    shifted = (batch.matrix[:, 1:, 1:] - batch.matrix[:, :-1, :-1]).abs().amax((-1, -2))
    assert (shifted > 1e-3).all()
    generator = seeded(3)
    torch.randint(1, (4,), generator=generator)
    for A in batch.matrix:
        plain = draw("toeplitz", 9, generator=generator, noise_range=(0.1, 0.1)).matrix[0]
        torch.testing.assert_close(torch.linalg.eigvalsh(A), torch.linalg.eigvalsh(plain))
        torch.testing.assert_close(A.flatten().sort().values, plain.flatten().sort().values)


def test_equal_seeds_give_equal_problems_and_other_seeds_others():
    first, second, other = (draw_operations(ALGEBRAIC_DISTRIBUTIONS, 7, 6, generator=seeded(s)) for s in (1, 1, 2))
    assert first.laws == second.laws
    assert torch.equal(first.matrix, second.matrix)
    assert torch.equal(first.solution, second.solution)
    assert not torch.equal(first.matrix, other.matrix)


@pytest.mark.parametrize(
    ("laws", "options", "message"),
    [
        ([], {}, "`laws` must be one or more of .*Got none"),
        (["wishart", "nonsense"], {}, r"Got \['nonsense'\]"),
        (["wishart"], {"scale_range": (3.0, 1.0)}, "`scale_range` must be two positive ascending numbers"),
        (["wishart"], {"noise_range": (0.0, 1.0)}, "`noise_range` must be two positive ascending numbers"),
    ],
)
def test_bad_input(laws, options, message):
    with pytest.raises(ValueError, match=message):
        draw_operations(laws, 5, 2, generator=seeded(), **options)
