"""`ScaledOperator`: A in units of its size, found in the first product, ordinary sizes untouched."""

import pytest
import torch
from helpers import CountingMatmul, normal

import rangeformer as rf
from rangeformer.models.scaled_operator import ScaledOperator, shifted

RANGES = [(torch.float64, e) for e in (-1060, -1000, -300, 300, 1020)]
RANGES += [(torch.float32, e) for e in (-140, -120, -60, 60, 124)]


def test_ordinary_sizes_are_untouched_and_cost_nothing():
    counting = CountingMatmul(1e10 * normal(20, 20))
    operator = rf.as_operator((counting, (20, 20)))
    scaled = ScaledOperator(operator)
    v = normal(20, 3)
    assert torch.equal(scaled.matmul(v), counting.matrix @ v)
    assert torch.equal(scaled.matmul_precise(v), counting.matrix @ v)
    assert not bool(scaled.exponent.any())
    assert (operator.reads.passes, operator.reads.matvecs) == (2, 6)


@pytest.mark.parametrize(("dtype", "exponent"), RANGES)
def test_extreme_sizes_are_measured_once_and_lose_no_digit(dtype, exponent):
    A = shifted(normal(20, 20) / 8, torch.tensor(exponent, dtype=torch.float64)).to(dtype)
    scaled, v = ScaledOperator(rf.as_operator(A)), normal(20, 3, dtype=dtype)
    first, again = scaled.matmul(v).double(), scaled.matmul(v).double()
    exact = shifted(A, -scaled.exponent) @ v.double()
    tolerance = 40 * torch.finfo(dtype).eps * exact.abs().max()
    assert 2.0**-70 <= float(exact.abs().max()) <= 2.0**30
    for found in (first, again, scaled.matmul_precise(v), scaled.to_dense().double() @ v.double()):
        assert float((found - exact).abs().max()) <= tolerance
    assert torch.allclose(scaled.rmatmul(v).double(), shifted(A, -scaled.exponent).mT @ v.double(), rtol=0, atol=1e-5)
    assert torch.equal(scaled.diagonal(), scaled.to_dense().diagonal())
    index = torch.tensor([3, 7])
    assert torch.equal(scaled.columns(index), scaled.to_dense()[:, index])
    assert torch.equal(scaled.rows(index), scaled.to_dense()[index])
    assert torch.equal(scaled.entries(index, index), scaled.diagonal()[index])


def test_each_member_of_a_batch_has_its_own_units():
    A = torch.stack([normal(8, 8), 1e300 * normal(8, 8), torch.zeros(8, 8).double(), 1e-310 * normal(8, 8)])
    scaled, v = ScaledOperator(rf.as_operator(A)), normal(4, 8, 2)
    image = scaled.matmul(v)
    assert bool(image.isfinite().all())
    assert (scaled.exponent.flatten() != 0).tolist() == [False, True, False, True]
    assert torch.allclose(image[0], A[0] @ v[0])


def test_what_the_range_does_not_hold_is_said():
    scaled = ScaledOperator(rf.as_operator(torch.full((2, 2), 1.5e308, dtype=torch.float64)))
    scaled.matmul(torch.ones(2, 1, dtype=torch.float64))
    value, holds = scaled.restored(torch.tensor([2.0**25, 0.5]).double(), torch.tensor([1e-6]).double())
    assert holds.tolist() == [False, True]
    assert value[1].isfinite()
    assert scaled.restored(torch.ones(1).double(), torch.tensor([1e-6]).double(), power=-1)[1].tolist() == [True]


def test_a_product_with_nan_stays_one():
    scaled = ScaledOperator(rf.as_operator((lambda v: v * torch.nan, (3, 3))))
    assert bool(scaled.matmul(torch.ones(3, 1, dtype=torch.float64)).isnan().all())
