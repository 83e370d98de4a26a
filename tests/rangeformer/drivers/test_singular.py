"""`svdvals`: right values for every shape, honest errors."""

import pytest
import torch
from helpers import convergence_warnings_ignored, normal, with_spectrum

import rangeformer as rf
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel

NARROW = LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=8))
SHAPES = [(60, 25), (25, 60), (40, 40), (1, 7), (7, 1)]


def spread(m: int, n: int, cond: float) -> torch.Tensor:
    """Log-uniform singular values between 1 / cond and 1."""
    r = min(m, n)
    U, V = torch.linalg.qr(normal(m, r)).Q, torch.linalg.qr(normal(n, r, seed=1)).Q
    return (U * torch.logspace(0, -torch.log10(torch.tensor(cond)).item(), r, dtype=torch.float64)) @ V.mT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape, dtype):
    A = normal(*shape, dtype=dtype)
    spectrum = rf.svdvals(A)
    assert spectrum.value.dtype == dtype
    assert torch.allclose(
        spectrum.value, torch.linalg.svdvals(A.double()).to(dtype), rtol=1e-10 if dtype == torch.float64 else 1e-4
    )
    assert bool(spectrum.converged.all())


def test_small_singular_values_do_not_suffer_from_squaring():
    A = spread(50, 30, 1e10)
    value = rf.svdvals(A, model=NARROW).value
    assert bool(((value - torch.linalg.svdvals(A)).abs() <= 1e-14).all())


def test_rank_deficient_and_zero():
    assert torch.allclose(
        rf.svdvals(normal(20, 3) @ normal(3, 12, seed=1)).value[3:], torch.zeros(9).double(), atol=1e-13
    )
    assert torch.equal(rf.svdvals(torch.zeros(5, 4)).value, torch.zeros(4))


def test_leading_ones_converge_first():
    A = spread(120, 90, 1e6)
    spectrum = rf.svdvals(A, 3, model=NARROW, num_loops=6)
    assert bool(spectrum.converged.all())
    assert torch.allclose(spectrum.value, torch.linalg.svdvals(A)[:3])
    # two passes a loop: the last one is for the residuals
    assert (spectrum.num_passes, spectrum.num_matvecs) == (12, 96)
    with pytest.warns(rf.ConvergenceWarning, match="of 90 singular values have an estimated error"):
        every = rf.svdvals(A, model=NARROW, num_loops=6)
    true = torch.linalg.svdvals(A)
    assert ((every.value - true).abs() <= every.errors + 1e-14).double().mean() > 0.9


def test_wide_equals_transposed_tall():
    A = normal(20, 50)
    with convergence_warnings_ignored():
        wide, tall = (rf.svdvals(M, model=NARROW, num_loops=2) for M in (A, A.mT))
    assert torch.allclose(wide.value, tall.value)
    assert wide.num_passes == tall.num_passes == 4


def test_batch_is_the_loop_over_it():
    A = torch.stack([normal(30, 20), spread(30, 20, 100)])
    with convergence_warnings_ignored():
        together = rf.svdvals(A, model=NARROW, num_loops=2).value
        for i in range(2):
            assert torch.allclose(together[i], rf.svdvals(A[i], model=NARROW, num_loops=2).value)


@pytest.mark.parametrize("num_loops", [2, 3, 4])
@pytest.mark.parametrize("copies", [65, 150, 300])
def test_no_value_is_said_to_have_converged_at_a_miscount(copies, num_loops):
    for others in (torch.ones(400 - copies), torch.linspace(-1, 1, 400 - copies)):
        true = torch.cat([others, torch.full((copies,), 2.0)]).double()
        with convergence_warnings_ignored():
            spectrum = rf.svdvals(with_spectrum(true), num_loops=num_loops)
        wrong = (spectrum.value - true.abs().sort(descending=True).values).abs() > 4e-6
        assert not bool((wrong & spectrum.converged).any())


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float64, -1030), (torch.float64, 1020), (torch.float32, -120)])
@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_every_size_of_matrix(shape, dtype, exponent):
    half = exponent // 2
    A = (normal(*shape) / 8).to(dtype) * 2.0**half * 2.0 ** (exponent - half)
    exact = torch.linalg.svdvals(A.double() * 2.0**-half * 2.0 ** (half - exponent))
    spectrum = rf.svdvals(torch.stack([normal(*shape, dtype=dtype), A]), rtol=1e-4)
    assert bool(spectrum.converged.all())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    back = spectrum.value[1].double() * 2.0**-half * 2.0 ** (half - exponent)
    assert torch.allclose(back, exact, rtol=0, atol=tolerance)
    assert torch.allclose(spectrum.value[0], rf.svdvals(normal(*shape, dtype=dtype), rtol=1e-4).value, rtol=1e-5)


def test_values_beyond_the_range_are_said():
    A = torch.full((70, 40), torch.finfo(torch.float64).max, dtype=torch.float64)
    with pytest.warns(rf.ConvergenceWarning, match="a singular value lies beyond the range of torch.float64"):
        spectrum = rf.svdvals(A, 2)
    assert spectrum.converged.tolist() == [False, True]


def test_messages():
    with pytest.raises(ValueError, match=r"`k` must be at most min\(m, n\) = 2. Got 3"):
        rf.svdvals(normal(2, 5), 3)
    with pytest.raises(NotImplementedError, match="cannot be multiplied from the left"):
        rf.svdvals((lambda v: normal(20, 20) @ v, (20, 20)), model=NARROW)
