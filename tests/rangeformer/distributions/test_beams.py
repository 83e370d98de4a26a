"""Beams and frames against textbook element matrices and closed-form deflections."""

import pytest
import torch

from rangeformer.distributions import DISTRIBUTIONS
from rangeformer.distributions.beams import bending_rows, gram_of_elements
from tests.helpers import seeded


def test_an_element_is_the_textbook_matrix():
    l, stiffness = 0.7, 2.5
    rows = bending_rows(torch.tensor([l], dtype=torch.float64), torch.tensor([stiffness], dtype=torch.float64))[0]
    expected = (stiffness / l**3) * torch.tensor(
        [
            [12, 6 * l, -12, 6 * l],
            [6 * l, 4 * l**2, -6 * l, 2 * l**2],
            [-12, -6 * l, 12, -6 * l],
            [6 * l, 2 * l**2, -6 * l, 4 * l**2],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(rows.mT @ rows, expected)


def test_a_cantilever_bends_as_the_theory_says():
    count, l, stiffness = 5, 0.4, 3.0
    rows = bending_rows(*(torch.full((count,), x, dtype=torch.float64) for x in (l, stiffness)))
    nodes = torch.stack([torch.arange(-1, count - 1).remainder(count + 1), torch.arange(count)], dim=1)
    places = (2 * nodes.unsqueeze(-1) + torch.arange(2)).reshape(count, 4)
    matrix = gram_of_elements(rows, places, 2 * (count + 1), 2 * count)
    load = torch.zeros(2 * count, dtype=torch.float64)
    load[-2] = 1.0
    deflection = torch.linalg.solve(matrix, load)
    length = count * l
    assert deflection[-2].item() == pytest.approx(length**3 / (3 * stiffness))
    assert deflection[-1].item() == pytest.approx(length**2 / (2 * stiffness))


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_couples_neighbouring_nodes_only(seed):
    matrix = DISTRIBUTIONS["beam"](20, seeded(seed), torch.float64)
    node = torch.arange(20) // 2
    assert (matrix[(node[:, None] - node).abs() > 1] == 0).all()
    assert torch.linalg.eigvalsh(matrix)[0] > 0


def test_bending_grows_worse_with_length():
    conds = [torch.linalg.cond(DISTRIBUTIONS["beam"](n, seeded(1), torch.float64)) for n in (8, 64)]
    assert conds[1] > 100 * conds[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_clamped_frame_is_definite_and_badly_conditioned(seed):
    matrix = DISTRIBUTIONS["frame"](60, seeded(seed), torch.float64)
    values = torch.linalg.eigvalsh(matrix)
    assert values[0] > 0
    assert values[-1] / values[0] > 1e3
    # couplings stay within the nodes' neighbourhoods
    node = torch.arange(60) // 3
    coupled = (matrix != 0).reshape(20, 3, 20, 3).any(3).any(1).sum(1)
    assert node.max() == 19
    assert coupled.max() <= 5
