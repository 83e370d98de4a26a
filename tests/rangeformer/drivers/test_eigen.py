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


def repeated(n: int, copies: int, *, spread: float = 0.0) -> torch.Tensor:
    """`copies` eigenvalues of 2 (within `spread`), the others between -1 and 1."""
    cluster = 2 + spread * torch.linspace(0, 1, copies, dtype=torch.float64)
    return torch.cat([torch.linspace(-1, 1, n - copies, dtype=torch.float64), cluster])


def two_valued(n: int, copies: int) -> torch.Tensor:
    return torch.cat([torch.ones(n - copies), torch.full((copies,), 5.0)]).double()


MULTIPLE = {
    "repeated": repeated(200, 100),
    "cluster": repeated(200, 100, spread=1e-8),
    "wide cluster": repeated(200, 100, spread=1e-5),
    "two values": two_valued(200, 100),
    "identity and low rank": two_valued(200, 80),
    "just wider than the block": two_valued(200, 65),
    "second largest": torch.cat([repeated(195, 100), torch.linspace(3, 4, 5).double()]),
    "projector": torch.cat([torch.zeros(100), torch.ones(100)]).double(),
    "pairs": torch.linspace(1, 2, 100, dtype=torch.float64).repeat_interleave(2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MULTIPLE)
def test_no_value_is_said_to_have_converged_where_copies_are_missing(name, dtype):
    true = MULTIPLE[name]
    A = with_spectrum(true, dtype=dtype)
    orders = {"largest": -true, "smallest": true, "magnitude": -true.abs()}
    for num_loops in (1, 2, 3, 4):
        for which, key in orders.items():
            k = min(100, 64 * num_loops)
            with convergence_warnings_ignored():
                pairs = rf.eigsh(A, k, which, num_loops=num_loops, rtol=1e-5)
            values = pairs.values.double()
            found = {"largest": -values, "smallest": values, "magnitude": -values.abs()}[which]
            wrong = (found - key.sort().values[:k]).abs()
            assert bool((wrong <= 2e-5 * true.abs().max())[pairs.converged].all()), (num_loops, which)
            # each pair is one, whatever comes before it
            assert bool((pairs.residual_norms <= 1e-5 * true.abs().max())[pairs.converged].all())
        with convergence_warnings_ignored():
            spectrum = rf.eigvalsh(A, num_loops=num_loops, rtol=1e-5)
        wrong = (spectrum.value.double() - true.sort().values).abs()
        assert bool((wrong <= 2e-5 * true.abs().max())[spectrum.converged].all()), num_loops
    assert bool(spectrum.converged.all()), "a complete space is exact"


def test_missing_copies_are_said_with_what_to_do():
    A = with_spectrum(two_valued(200, 100))
    with pytest.warns(rf.ConvergenceWarning, match="others may come: an eigenvalue occurs so often that 2 loops"):
        pairs = rf.eigsh(A, 100, num_loops=2)
    # exact pairs, but 36 of them are not the ones that were asked for
    assert bool((pairs.residual_norms <= 1e-6 * 5).all())
    assert torch.equal(pairs.converged, pairs.values > 4)
    assert pairs.converged.sum() == 64
    # and nothing of the kind where fewer copies than the block is wide are asked for
    assert bool(rf.eigsh(with_spectrum(two_valued(200, 60)), 100, num_loops=2).converged.all())


def test_copies_fewer_than_the_block_is_wide_are_counted_exactly():
    true = torch.cat([torch.linspace(-1, 1, 400), torch.full((6,), 20.0), torch.full((5,), 30.0)]).double()
    with pytest.warns(rf.ConvergenceWarning):
        spectrum = rf.eigvalsh(with_spectrum(true), num_loops=5)
    assert torch.allclose(spectrum.value[-11:], true[-11:])
    assert bool(spectrum.converged[-11:].all())


def powers(A: torch.Tensor, exponent: int) -> torch.Tensor:
    """A times 2^exponent, which may leave the range in one step."""
    half = exponent // 2
    return A * 2.0**half * 2.0 ** (exponent - half)


EXTREMES = [(torch.float64, e) for e in (-1040, -1021, -997, 997, 1022)]
EXTREMES += [(torch.float32, e) for e in (-126, -110, 110, 125)]


@pytest.mark.parametrize(("dtype", "exponent"), EXTREMES)
@pytest.mark.parametrize("products", [False, True])
def test_every_size_of_matrix(dtype, exponent, products):
    A = powers(with_spectrum(torch.linspace(-1, 0.5, 30), dtype=dtype), exponent)
    true = torch.linalg.eigvalsh(powers(A.double(), -exponent))
    operator = rf.as_operator((lambda v: A @ v, (30, 30)), dtype=dtype) if products else A
    spectrum, pairs = rf.eigvalsh(operator, rtol=1e-4), rf.eigsh(operator, 3, "magnitude", rtol=1e-4)
    # below the normal numbers of the type its grid is what can be had
    tolerance = max(1e-6 if dtype == torch.float32 else 1e-12, 2.0 ** (-1073 - exponent) if exponent < -1021 else 0.0)
    assert bool(spectrum.converged.all())
    assert bool(pairs.converged.all())
    assert torch.allclose(powers(spectrum.value.double(), -exponent), true, rtol=0, atol=tolerance)
    assert torch.allclose(powers(pairs.values.double(), -exponent), true[:3], rtol=0, atol=tolerance)


@pytest.mark.parametrize("largest", [torch.finfo(torch.float32).max, torch.finfo(torch.float64).max])
def test_eigenvalues_beyond_the_range_are_said(largest):
    dtype = torch.float32 if largest < 1e100 else torch.float64
    A = torch.full((100, 100), largest, dtype=dtype)
    with pytest.warns(rf.ConvergenceWarning, match="an eigenvalue lies beyond the range of torch.float.*Divide `A`"):
        pairs = rf.eigsh(A, 2)
    assert pairs.converged.tolist() == [False, True]
    with pytest.warns(rf.ConvergenceWarning, match="an eigenvalue lies beyond the range"):
        assert not bool(rf.eigvalsh(A).converged[-1])


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float64, 2.0**1000), (torch.float32, 2.0**-120)])
def test_members_of_a_batch_do_not_spoil_each_other(dtype, factor):
    A = kernel(30, dtype=dtype)
    together = rf.eigvalsh(torch.stack([A, factor * A, 3 * A]), rtol=1e-4)
    assert bool(together.converged.all())
    for i, x in enumerate((A, factor * A, 3 * A)):
        assert torch.allclose(together.value[i], rf.eigvalsh(x, rtol=1e-4).value, rtol=1e-4, atol=0)


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
