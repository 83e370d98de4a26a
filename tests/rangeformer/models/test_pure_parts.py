"""The parts of the pure model: coefficients stay finite, summary statistics do not depend on scale or order."""

import pytest
import torch
from helpers import with_spectrum

from rangeformer.models.pure import PureConfig, PureRangeFormer
from rangeformer.models.pure_step import MAX_LOG, Coefficient
from rangeformer.models.pure_summary import positive_diagonal, summarise
from rangeformer.operators import as_operator

SMALL = PureConfig(num_loops=3, num_probes=20, hidden=8, small=4)


def test_a_coefficient_is_bounded_whatever_it_reads():
    coefficient = Coefficient(4, 8)
    logs = torch.tensor([[1e6, -1e6, 1e6, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    value = coefficient(logs)
    assert value.dtype == torch.float64
    assert bool((value.abs() <= MAX_LOG).all())


@pytest.mark.parametrize("factor", [1e-100, 1e100])
def test_a_summary_does_not_depend_on_the_scale(factor):
    A = with_spectrum(torch.logspace(-1, 1, 20, dtype=torch.float64))
    model = PureRangeFormer.untrained(SMALL)
    first, second = (summarise(model, as_operator(B), 3, None) for B in (A, factor * A))
    assert torch.allclose(first.features, second.features, atol=1e-5)
    assert torch.allclose(second.level, factor * first.level)


def test_a_summary_reads_the_matrix_once_a_loop_beside_the_scaling():
    operator = as_operator(with_spectrum(torch.logspace(-1, 1, 20, dtype=torch.float64)))
    summarise(PureRangeFormer.untrained(SMALL), operator, 2, None)
    assert operator.reads.passes == 3


def test_the_diagonal_has_to_be_positive():
    A = as_operator(torch.diag(torch.tensor([1.0, -2.0])))
    with pytest.raises(ValueError, match=r"`A` must be positive definite.*-2"):
        positive_diagonal(A, torch.eye(2))
