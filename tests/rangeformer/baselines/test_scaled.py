"""The scaling laws of every operation, applied outside the network."""

import pytest
import torch
from helpers import normal, seeded

from rangeformer.baselines import PaperConfig, PaperRangeFormer, ScaledPaperRangeFormer
from rangeformer.baselines.config import OPERATIONS

SCALE = 50.0
DISTRIBUTIONS = {
    "solve": lambda x, n: x / SCALE,
    "inverse": lambda x, n: x / SCALE,
    "logdet": lambda x, n: x + n * torch.tensor(SCALE).double().log(),
}


def example(operation: str) -> tuple[ScaledPaperRangeFormer, torch.Tensor, torch.Tensor | None]:
    config = PaperConfig(operation=operation, n_max=9, channels=8, num_heads=2, num_loops=2)
    model = ScaledPaperRangeFormer(PaperRangeFormer(config, generator=seeded(1)).double())
    root = normal(3, 6, 6, seed=5)
    matrix = root @ root.mT + torch.eye(6, dtype=torch.float64)
    return model, matrix, normal(3, 6, seed=6) if operation == "solve" else None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_obeys_the_scaling_law_which_the_network_does_not(operation):
    model, matrix, rhs = example(operation)
    law = DISTRIBUTIONS.get(operation, lambda x, n: x * SCALE)
    expected = law(model(matrix, rhs), 6)
    torch.testing.assert_close(model(SCALE * matrix, rhs), expected)
    assert not torch.allclose(model.model(SCALE * matrix, rhs), expected, rtol=1e-2)


def test_solve_is_homogeneous_in_the_right_hand_side():
    model, matrix, rhs = example("solve")
    assert rhs is not None
    torch.testing.assert_close(model(matrix, 7 * rhs), 7 * model(matrix, rhs))
    torch.testing.assert_close(
        model(matrix, 0 * rhs),
        model.model(matrix * 2 / mean_diagonal(matrix), 0 * rhs) * (2 / mean_diagonal(matrix))[:, 0],
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_at_the_training_scale_it_is_the_model(operation):
    model, matrix, rhs = example(operation)
    matrix = matrix * 2 / mean_diagonal(matrix)
    rhs = None if rhs is None else rhs / rhs.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(model(matrix, rhs), model.model(matrix, rhs))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_zero_matrix_keeps_its_scale(operation):
    model, matrix, rhs = example(operation)
    assert torch.equal(model(0 * matrix, rhs).isfinite().all(), torch.tensor(True))


def mean_diagonal(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
