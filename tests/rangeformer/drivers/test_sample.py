"""Samples from N(0, A)."""

import linear_operator.operators as lo
import pytest
import torch
from helpers import NAMES, convergence_warnings_ignored, kernel, seeded, with_spectrum

import rangeformer as rf


def check_covariance(draws: torch.Tensor, A: torch.Tensor) -> None:
    """The sample covariance, whitened by the truth, is the identity up to 1 / sqrt(number of draws)."""
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(A.double()), draws.double().mT, upper=False)
    m = draws.shape[0]
    n = A.shape[-1]
    assert (z.mean(-1) * m**0.5).abs().max() < 5
    covariance = z @ z.mT / m
    error = covariance - torch.eye(n, dtype=torch.float64)
    assert error.abs().max() < 6 * (2 / m) ** 0.5
    # the whole matrix at once: E ||error||_F^2 = n (n + 1) / m, with a relative spread of about 2 / n
    assert abs(error.square().sum() / (n * (n + 1) / m) - 1) < 8 / n


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_covariance_is_the_matrix(name, dtype):
    A = kernel(40, dtype=dtype)
    draws = rf.sample_gaussian(A, 2000, preconditioner=name, generator=seeded())
    assert draws.shape == (2000, 40)
    assert draws.dtype == dtype
    check_covariance(draws, A)


def test_covariance_of_a_larger_matrix():
    A = kernel(300, lengthscale=0.1)
    check_covariance(rf.sample_gaussian(A, 3000, generator=seeded()), A)


def test_batches_are_drawn_member_by_member():
    A = torch.stack([kernel(20), 5 * kernel(20, seed=1)]).unsqueeze(1)
    draws = rf.sample_gaussian(A, 2000, generator=seeded())
    assert draws.shape == (2000, 2, 1, 20)
    for i in range(2):
        check_covariance(draws[:, i, 0], A[i, 0])
    assert not torch.equal(draws[:, 0], draws[:, 1])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_smallest_matrices(n):
    A = torch.eye(n).double() * 2 + 0.5
    check_covariance(rf.sample_gaussian(A, 4000, generator=seeded()), A)


@pytest.mark.parametrize("kind", ["callable", "linear_operator", "numpy"])
def test_every_kind_of_operator(kind):
    A = kernel(40)
    noise = torch.full((40,), 1e-2, dtype=torch.float64)
    K = lo.DenseLinearOperator(A - torch.diag(noise))
    held = {
        "callable": ((lambda v: A @ v), A.shape),
        "linear_operator": lo.AddedDiagLinearOperator(K, lo.DiagLinearOperator(noise)),
        "numpy": A.numpy(),
    }[kind]
    check_covariance(torch.as_tensor(rf.sample_gaussian(held, 2000, generator=seeded())), A)


def test_same_seed_same_bits_other_seed_other_draws():
    A = kernel(60)
    first, second, other = (rf.sample_gaussian(A, 3, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("exponent", [-300, 300])
def test_scaling_scales_the_draws(exponent):
    A = kernel(50)
    plain = rf.sample_gaussian(A, 3, generator=seeded())
    scaled = rf.sample_gaussian(A * 4.0**exponent, 3, generator=seeded())
    torch.testing.assert_close(scaled / 2.0**exponent, plain, rtol=1e-6, atol=1e-6)


def test_tighter_tolerance_comes_closer_to_the_same_draw():
    # one z, many tolerances: all tend to A M^T B^(-1/2) z
    A = kernel(300, lengthscale=0.05, noise=1e-3)
    exact = rf.sample_gaussian(A, 4, rtol=1e-12, generator=seeded())
    errors = [
        float(torch.linalg.vector_norm(rf.sample_gaussian(A, 4, rtol=rtol, generator=seeded()) - exact))
        for rtol in (1e-1, 1e-3, 1e-6)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5 * float(torch.linalg.vector_norm(exact))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["shifted", "negative", "one negative eigenvalue"])
def test_indefinite_matrices_raise(name, what):
    A = {
        "shifted": kernel(40) - 0.5 * torch.eye(40, dtype=torch.float64),
        "negative": -kernel(40),
        "one negative eigenvalue": with_spectrum(torch.cat([torch.ones(39), torch.tensor([-1.0])])),
    }[what]
    with pytest.raises(ValueError, match="`A` must be positive definite. Got an indefinite matrix; add a multiple"):
        rf.sample_gaussian(A, 2, preconditioner=name, generator=seeded())


def test_an_indefinite_callable_raises():
    A = -kernel(40)
    with pytest.raises(ValueError, match="`A` must be positive definite"):
        rf.sample_gaussian((lambda v: A @ v, A.shape), 2, generator=seeded())


def test_too_few_iterations_are_reported():
    A = with_spectrum(torch.logspace(0, -6, 200))
    with pytest.warns(rf.ConvergenceWarning, match="did not converge; they come from a dense Cholesky factor"):
        draws = rf.sample_gaussian(A, 3000, preconditioner=None, max_iterations=2, generator=seeded())
    check_covariance(draws, A)
    with pytest.warns(rf.ConvergenceWarning, match="did not reach rtol; allow more iterations"):
        draws = rf.sample_gaussian(
            (lambda v: A @ v, A.shape), 2, preconditioner=None, max_iterations=2, generator=seeded()
        )
    assert draws.isfinite().all()


def test_unreachable_tolerance_in_float32():
    with convergence_warnings_ignored():
        draws = rf.sample_gaussian(kernel(100, dtype=torch.float32), 2000, rtol=1e-12, generator=seeded())
    check_covariance(draws, kernel(100, dtype=torch.float32))
