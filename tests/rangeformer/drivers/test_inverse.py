"""`inverse_matmul`, `inverse_trace` and `trace`."""

import pytest
import torch
from helpers import CountingMatmul, conditioned, kernel, normal, with_spectrum

import rangeformer as rf
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel

NARROW = LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=8))


def test_inverse_of_an_unsymmetric_matrix_in_one_loop():
    A = normal(30, 30)
    found = rf.inverse_matmul(A, torch.eye(30, dtype=torch.float64))
    assert torch.allclose(found.value, torch.linalg.inv(A))
    assert bool(found.converged.all())
    assert found.method == "learned-krylov"
    # symmetry, one loop, certificate
    assert found.num_passes == 3


def test_inverse_trace_of_indefinite_and_definite():
    spectrum = torch.cat([torch.linspace(-2, -1, 20), torch.linspace(1, 3, 20)]).double()
    found = rf.inverse_trace(with_spectrum(spectrum), rtol=1e-9)
    assert torch.allclose(found.value, (1 / spectrum).sum())
    assert bool(found.converged)
    A = conditioned(40, 1e6)
    found = rf.inverse_trace(torch.stack([A, 2 * A]))
    assert torch.allclose(found.value, torch.linalg.inv(A).trace() * torch.tensor([1.0, 0.5]).double())


def test_inverse_trace_before_the_space_is_complete():
    A = kernel(300, lengthscale=0.1, noise=0.1)
    true = torch.linalg.inv(A).trace()
    found = rf.inverse_trace(A, model=NARROW, num_loops=12, rtol=1.0)
    assert abs(found.value - true) <= 4 * found.error
    assert found.error <= 0.2 * true
    with pytest.warns(rf.ConvergenceWarning, match="the estimated error is"):
        assert not bool(rf.inverse_trace(A, model=NARROW, num_loops=2).converged)


def test_singular_is_said():
    low_rank = normal(20, 3) @ normal(20, 3).mT
    with pytest.warns(rf.ConvergenceWarning, match="`A` is singular: its inverse does not exist"):
        found = rf.inverse_trace(torch.stack([torch.zeros(20, 20, dtype=torch.float64), low_rank]))
    assert found.value.isinf().all()
    assert not bool(found.converged.any())


def test_trace_reads_the_diagonal_where_it_can():
    A = normal(2, 20, 20)
    found = rf.trace(A)
    assert torch.allclose(found.value, A.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert (found.method, found.num_passes, found.num_entries) == ("diagonal", 0, 20)


def test_trace_from_products_alone():
    counting = CountingMatmul(kernel(60))
    found = rf.trace((counting, (60, 60)))
    assert torch.allclose(found.value, counting.matrix.trace())
    assert (found.method, found.num_passes) == ("learned-krylov", counting.passes)
    estimate = rf.trace((counting, (60, 60)), model=NARROW, num_loops=3, rtol=1.0)
    assert abs(estimate.value - counting.matrix.trace()) <= 4 * estimate.error


@pytest.mark.parametrize("num_loops", [1, 4])
def test_trace_of_a_singular_matrix_from_products_alone(num_loops):
    for matrix in (torch.zeros(30, 30, dtype=torch.float64), with_spectrum((torch.arange(30) < 12).double())):
        found = rf.trace((lambda v, matrix=matrix: matrix @ v, (30, 30)), model=NARROW, num_loops=num_loops, rtol=1.0)
        assert abs(found.value - matrix.trace()) <= 4 * found.error + 1e-12


@pytest.mark.parametrize("factor", [1e-300, 1e-150, 1e150, 1e300])
def test_inverse_trace_at_the_ends_of_the_range(factor):
    A = conditioned(20, 100)
    found = rf.inverse_trace(factor * A)
    assert bool(found.converged)
    assert torch.allclose(found.value * factor, torch.linalg.inv(A).trace())


@pytest.mark.parametrize(("dtype", "exponent"), [(torch.float64, 1015), (torch.float64, -1010), (torch.float32, -118)])
@pytest.mark.parametrize("products", [False, True])
def test_every_size_of_matrix(dtype, exponent, products):
    half = exponent // 2
    A = conditioned(20, 10, dtype=dtype)
    scaled = A * 2.0**half * 2.0 ** (exponent - half)
    operator = rf.as_operator((lambda v: scaled @ v, (20, 20)), dtype=dtype) if products else scaled
    for found, exact, power in (
        (rf.trace(operator), A.double().trace(), exponent),
        (rf.inverse_trace(operator), torch.linalg.inv(A.double()).trace(), -exponent),
    ):
        back = found.value.double() * 2.0 ** -(power // 2) * 2.0 ** -(power - power // 2)
        assert bool(found.converged)
        assert torch.allclose(back, exact, rtol=1e-4 if dtype == torch.float32 else 1e-9)


def test_sums_beyond_the_range_are_said_and_partial_ones_do_not_matter():
    largest = torch.finfo(torch.float64).max
    with pytest.warns(rf.ConvergenceWarning, match="the trace lies beyond the range of torch.float64"):
        assert not bool(rf.trace(largest * torch.eye(3, dtype=torch.float64)).converged)
    alternating = torch.diag(largest * torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64))
    assert rf.trace(alternating).value == 0
    with pytest.warns(rf.ConvergenceWarning, match="the trace lies beyond the range"):
        assert not bool(rf.inverse_trace(1e-310 * torch.eye(3, dtype=torch.float64)).converged)


def test_messages():
    with pytest.raises(ValueError, match="`A` must be square"):
        rf.trace(normal(3, 4))
    with pytest.raises(ValueError, match="`A` must be symmetric"):
        rf.inverse_trace(normal(4, 4))
    with pytest.raises(ValueError, match="`rtol` must be a positive number"):
        rf.inverse_trace(torch.eye(3), rtol=-1.0)
