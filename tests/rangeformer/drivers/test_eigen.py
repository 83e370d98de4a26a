"""`eigvalsh` and `eigsh`: right values, honest errors, failures that are reported."""

import pytest
import torch
from helpers import CountingMatmul, conditioned, convergence_warnings_ignored, kernel, normal, with_spectrum

import rangeformer as rf
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel

NARROW = LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_eigenvalues_of_an_indefinite_matrix(dtype):
    A = with_spectrum(torch.linspace(-2, 3, 70), dtype=dtype)
    spectrum = rf.eigvalsh(A)
    true = torch.linalg.eigvalsh(A.double())
    assert spectrum.value.dtype == dtype
    assert bool(spectrum.converged.all())
    assert torch.allclose(spectrum.value.double(), true, atol=1e-12 if dtype == torch.float64 else 1e-6)
    assert bool((spectrum.errors <= 1e-6 * 3).all())
    assert spectrum.method == "learned-krylov"


def test_products_alone_are_enough_and_every_one_is_counted():
    counting = CountingMatmul(conditioned(50, 1e3))
    spectrum = rf.eigvalsh((counting, (50, 50)), model=NARROW)
    assert torch.allclose(spectrum.value, torch.linalg.eigvalsh(counting.matrix))
    assert (spectrum.num_passes, spectrum.num_matvecs) == (counting.passes, counting.matvecs) == (8, 52)
    assert spectrum.num_entries == 0


def test_too_few_loops_are_said_and_bounded():
    A = kernel(200, lengthscale=0.2)
    with pytest.warns(rf.ConvergenceWarning, match=r"of 200 eigenvalues have an estimated error above rtol"):
        spectrum = rf.eigvalsh(A, model=NARROW, num_loops=5)
    true = torch.linalg.eigvalsh(A)
    assert not bool(spectrum.converged.all())
    assert bool(((spectrum.value - true).abs() <= 1e-6 * true[-1])[spectrum.converged].all())
    assert ((spectrum.value - true).abs() <= spectrum.errors).double().mean() > 0.9
    assert bool((spectrum.value.diff() >= 0).all())


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_leading_pairs(which):
    eigenvalues = torch.linspace(-4, 3, 60, dtype=torch.float64)
    A = with_spectrum(eigenvalues)
    pairs = rf.eigsh(A, 4, which)
    key = {"largest": -eigenvalues, "smallest": eigenvalues, "magnitude": -eigenvalues.abs()}[which]
    assert torch.allclose(pairs.values, eigenvalues[key.argsort()[:4]])
    assert torch.allclose(A @ pairs.vectors, pairs.vectors * pairs.values, atol=1e-12)
    assert torch.allclose(pairs.vectors.mT @ pairs.vectors, torch.eye(4, dtype=torch.float64))
    assert bool(pairs.converged.all())


def test_leading_pairs_of_a_smooth_kernel_need_few_passes():
    A = kernel(400, lengthscale=0.5, shape="gaussian" if "gaussian" in _shapes() else "matern52", noise=1e-6)
    pairs = rf.eigsh(A, 3, model=NARROW, num_loops=6)
    true = torch.linalg.eigvalsh(A).flip(-1)[:3]
    assert torch.allclose(pairs.values, true)
    assert pairs.num_passes == 7
    residual = torch.linalg.vector_norm(A @ pairs.vectors - pairs.vectors * pairs.values, dim=-2)
    assert torch.allclose(residual, pairs.residual_norms, atol=1e-9)


def _shapes() -> tuple[str, ...]:
    from rangeformer.distributions import SHAPES

    return tuple(SHAPES)


def test_small_end_that_has_not_converged_is_said():
    with pytest.warns(rf.ConvergenceWarning, match="eigenpairs have an estimated error"):
        pairs = rf.eigsh(kernel(200, lengthscale=0.1), 2, "smallest", model=NARROW, num_loops=3)
    assert not bool(pairs.converged.any())


def test_batch_is_the_loop_over_it():
    A = torch.stack([kernel(40), conditioned(40, 100)])
    with convergence_warnings_ignored():
        together = rf.eigvalsh(A, model=NARROW, num_loops=3)
        pairs = rf.eigsh(A, 2, model=NARROW, num_loops=3)
        for i in range(2):
            assert torch.allclose(together.value[i], rf.eigvalsh(A[i], model=NARROW, num_loops=3).value)
            assert torch.allclose(pairs.values[i], rf.eigsh(A[i], 2, model=NARROW, num_loops=3).values)


@pytest.mark.parametrize("factor", [1e-250, 1e250])
def test_errors_at_the_ends_of_the_range(factor):
    A = kernel(60, lengthscale=0.2)
    with convergence_warnings_ignored():
        plain, scaled = (rf.eigvalsh(x, model=NARROW, num_loops=3) for x in (A, factor * A))
        pairs, scaled_pairs = (rf.eigsh(x, 2, model=NARROW, num_loops=3) for x in (A, factor * A))
    assert torch.allclose(scaled.errors / factor, plain.errors)
    assert torch.equal(scaled.converged, plain.converged)
    assert torch.allclose(scaled_pairs.residual_norms / factor, pairs.residual_norms)
    assert bool(rf.eigvalsh(factor * A).converged.all())


def test_a_multiple_eigenvalue_is_found_as_often_as_it_occurs():
    A = with_spectrum(torch.cat([torch.ones(30), torch.full((20,), 2.0)]))
    assert torch.allclose(
        rf.eigvalsh(A, model=NARROW).value, torch.cat([torch.ones(30), torch.full((20,), 2.0)]).double()
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rf.eigvalsh(normal(3, 4)), ValueError, r"`A` must be square"),
        (lambda: rf.eigvalsh(normal(4, 4)), ValueError, r"`A` must be symmetric"),
        (lambda: rf.eigvalsh(torch.full((3, 3), torch.nan)), ValueError, r"`A` must be finite"),
        (lambda: rf.eigvalsh((lambda v: v * torch.nan, (3, 3))), ValueError, r"`A` must be finite"),
        (lambda: rf.eigvalsh(torch.eye(3), rtol=0.0), ValueError, r"`rtol` must be a positive number. Got 0.0"),
        (
            lambda: rf.eigvalsh(torch.eye(3), num_loops=0),
            ValueError,
            r"`num_loops` must be an integer >= 1 or None. Got 0",
        ),
        (lambda: rf.eigsh(torch.eye(3), 4), ValueError, r"`k` must be at most 3 for n = 3 and 16 loops of 64. Got 4"),
        (
            lambda: rf.eigsh(kernel(40), 9, model=NARROW, num_loops=1),
            ValueError,
            r"`k` must be at most 8 .* allow more loops",
        ),
        (lambda: rf.eigsh(torch.eye(3), 0), ValueError, r"`k` must be an integer >= 1. Got 0"),
        (lambda: rf.eigsh(torch.eye(3), 1, "LA"), ValueError, r"`which` must be one of .* Got 'LA'"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
