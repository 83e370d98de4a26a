"""`logdet` and `inv_quad_logdet`: exact when small, honest about their error when not, with unbiased gradients."""

import linear_operator.operators as lo
import pytest
import scipy.sparse
import torch
from helpers import (
    NAMES,
    CountingMatmul,
    conditioned,
    convergence_warnings_ignored,
    kernel,
    normal,
    points,
    seeded,
    with_spectrum,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import rangeformer as rf

X = points(400, 2)


def gp_covariance(log_lengthscale: torch.Tensor, log_noise: torch.Tensor, n: int = 400) -> torch.Tensor:
    scaled = X[:n] / log_lengthscale.exp()
    # the square root's derivative at 0 is not needed: the distance of a point to itself does not move
    squared = (scaled.unsqueeze(-2) - scaled).square().sum(-1)
    distance = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt() * (squared > 0)
    K = (1 + 3**0.5 * distance) * torch.exp(-(3**0.5) * distance)
    return K + log_noise.exp() * torch.eye(n, dtype=torch.float64)


def hyperparameters() -> tuple[torch.Tensor, torch.Tensor]:
    l = torch.tensor([0.2, 0.4], dtype=torch.float64).log().requires_grad_()  # noqa: E741
    return l, torch.tensor(0.02, dtype=torch.float64).log().requires_grad_()


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 60, 256])
def test_small_matrices_are_exact(name, n):
    A = kernel(n)
    result = rf.logdet(A, preconditioner=name, generator=seeded())
    torch.testing.assert_close(result.value, torch.logdet(A), rtol=1e-8, atol=1e-8)
    assert result.standard_error == 0
    assert result.num_probes == 0
    assert result.converged
    assert result.fallback is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_estimate_is_within_four_standard_errors(name, dtype):
    A = kernel(400, lengthscale=0.2, dtype=dtype)
    truth = torch.logdet(A.double())
    for seed in range(3):
        result = rf.logdet(A, preconditioner=name, generator=seeded(seed))
        assert result.value.dtype == result.standard_error.dtype == dtype
        assert result.num_probes == 15
        assert result.converged
        rounding = 400 * torch.finfo(dtype).eps * 100
        assert abs(result.value - truth) <= 4 * result.standard_error + rounding


@pytest.mark.parametrize("name", ["rangeformer", "rpcholesky", "nystrom", None])
def test_standard_error_is_honest(name):
    A = kernel(300, lengthscale=0.1, noise=1e-3)
    truth = torch.logdet(A)
    results = [rf.logdet(A, preconditioner=name, generator=seeded(s), rtol=1e-3) for s in range(20)]
    z = torch.stack([(r.value - truth) / r.standard_error for r in results])
    assert z.std() < 1.6
    assert z.mean().abs() < 3 * z.std() / 20**0.5 + 0.2


def test_control_variate_pays():
    A = kernel(400, lengthscale=0.2)
    ours = rf.logdet(A, generator=seeded()).standard_error
    plain = rf.logdet(A, preconditioner=None, generator=seeded()).standard_error
    assert ours < 0.1 * plain


def test_more_probes_smaller_error():
    A = kernel(400, lengthscale=0.1)
    few, many = (
        torch.stack([rf.logdet(A, num_probes=m, generator=seeded(s)).standard_error for s in range(3)]).mean()
        for m in (5, 80)
    )
    assert many < 0.5 * few
    assert rf.logdet(A, num_probes=1, generator=seeded()).standard_error == torch.inf
    assert rf.logdet(A, num_probes=400, generator=seeded()).standard_error == 0


def test_a_preconditioner_of_another_matrix_costs_accuracy_never_the_truth():
    # the trace of the control variate belongs to the matrix P was built from
    A, other = kernel(300, lengthscale=0.3, noise=2e-2), kernel(300, lengthscale=0.2)
    P = rf.build_preconditioner(other, generator=seeded())
    for held in (A, rf.as_operator(A)):
        result = rf.logdet(held, preconditioner=P, generator=seeded())
        assert abs(result.value - torch.logdet(A)) <= 4 * result.standard_error
    operator = rf.as_operator(other)
    same = rf.build_preconditioner(operator, generator=seeded())
    known, recomputed = (rf.logdet(a, preconditioner=same, generator=seeded()) for a in (operator, other.clone()))
    torch.testing.assert_close(known.value, recomputed.value)
    assert recomputed.num_entries > known.num_entries


def test_a_cholesky_preconditioner_of_another_matrix():
    A, other = kernel(300, lengthscale=0.3, noise=2e-2), kernel(300, lengthscale=0.2)
    P = rf.build_preconditioner(other, "cholesky")
    result = rf.logdet(A, preconditioner=P, generator=seeded())
    assert abs(result.value - torch.logdet(A)) <= 4 * result.standard_error
    exact = rf.logdet(other, preconditioner=P, generator=seeded())
    torch.testing.assert_close(exact.value, torch.logdet(other), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_batch_is_right_member_by_member(name):
    A = torch.stack([kernel(300, seed=s, lengthscale=0.1 + 0.1 * s) for s in range(2)])
    result = rf.logdet(A, preconditioner=name, generator=seeded())
    assert result.value.shape == result.standard_error.shape == result.converged.shape == (2,)
    assert ((result.value - torch.logdet(A)).abs() <= 4 * result.standard_error + 1e-8).all()
    small = A[..., :50, :50].reshape(2, 1, 50, 50)
    torch.testing.assert_close(rf.logdet(small, preconditioner=name).value, torch.logdet(small))


def test_every_kind_of_operator_is_read_and_counted():
    A = kernel(300)
    noise = torch.full((300,), 1e-2, dtype=torch.float64)
    K = lo.DenseLinearOperator(A - torch.diag(noise))
    spy = CountingMatmul(A)
    for held in (
        A,
        A.numpy(),
        scipy.sparse.csr_array(A.numpy()),
        lo.AddedDiagLinearOperator(K, lo.DiagLinearOperator(noise)),
        (spy, A.shape),
    ):
        operator = rf.as_operator(held)
        result = rf.logdet(operator, generator=seeded())
        assert abs(result.value - torch.logdet(A)) <= 4 * result.standard_error
        reads = operator.reads
        assert (result.num_passes, result.num_matvecs, result.num_entries) == (
            reads.passes,
            reads.matvecs,
            reads.entries,
        )
    assert (spy.passes, spy.matvecs) == (result.num_passes, result.num_matvecs)


@pytest.mark.parametrize("n", [60, 300])
def test_same_seed_same_bits(n):
    A = kernel(n)
    first, second = (rf.logdet(A, generator=seeded(4)) for _ in range(2))
    assert torch.equal(first.value, second.value)
    assert torch.equal(first.standard_error, second.standard_error)


@settings(max_examples=10, deadline=None)
@given(exponent=st.integers(-400, 400), n=st.sampled_from([30, 270]))
def test_scaling_adds_n_log_a(exponent, n):
    A, scale = kernel(n, lengthscale=0.1), 2.0**exponent
    plain, scaled = rf.logdet(A, generator=seeded()), rf.logdet(A * scale, generator=seeded())
    shift = n * exponent * torch.tensor(2.0).double().log()
    # rounding may prefer another neighbour, hence another estimate; an exact result stays exact
    allowed = 4 * (plain.standard_error + scaled.standard_error)
    assert (scaled.value - plain.value - shift).abs() <= allowed + 1e-9 * shift.abs() + 1e-6
    torch.testing.assert_close(scaled.standard_error, plain.standard_error, rtol=0.5, atol=1e-9)


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("name", NAMES)
def test_both_halves_at_once(k, name):
    A = kernel(300)
    b = normal(300) if k is None else normal(300, k)
    result = rf.inv_quad_logdet(A, b, preconditioner=name, generator=seeded())
    B = b.unsqueeze(-1) if k is None else b
    truth = (B * torch.linalg.solve(A, B)).sum()
    # 2 b^T x - x^T A x errs by the square of the residual, times the condition
    torch.testing.assert_close(result.inv_quad, truth, rtol=1e-4, atol=0)
    assert abs(result.logdet - torch.logdet(A)) <= 4 * result.standard_error
    assert result.solution.converged.all()
    assert result.log_determinant.converged
    assert result.logdet is result.log_determinant.value


@pytest.mark.parametrize("scale", [1e-17, 1e17])
def test_inv_quad_of_float32_far_from_one(scale):
    A, b = kernel(80, dtype=torch.float32), normal(80, 2, dtype=torch.float32)
    truth = (b.double() * torch.linalg.solve(A.double(), b.double())).sum()
    result = rf.inv_quad_logdet(A, b * scale, rtol=1e-3, generator=seeded())
    torch.testing.assert_close(result.inv_quad.double(), truth * scale**2, rtol=1e-3, atol=0)


def test_float32_callable_takes_its_dtype_from_rhs():
    A = kernel(60, dtype=torch.float32)
    result = rf.inv_quad_logdet((lambda v: A @ v, A.shape), torch.ones(60), rtol=1e-3, generator=seeded())
    assert result.logdet.dtype == torch.float32
    torch.testing.assert_close(result.logdet.double(), torch.logdet(A.double()), rtol=1e-4, atol=0)


# ---- gradients -------------------------------------------------------------------------------------------------------


def negative_log_likelihood(A, y, **options) -> torch.Tensor:
    result = rf.inv_quad_logdet(A, y, **options)
    return result.inv_quad + result.logdet


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["tensor", "linear_operator", "callable"])
def test_small_gradients_are_exact(name, kind):
    l, s = hyperparameters()  # noqa: E741
    y = normal(100).requires_grad_()
    A = gp_covariance(l, s, 100)
    truth = torch.autograd.grad(y @ torch.linalg.solve(A, y) + torch.logdet(A), (l, s, y))
    A = gp_covariance(l, s, 100)
    noise = s.exp().expand(100)
    held = {
        "tensor": A,
        "linear_operator": lo.AddedDiagLinearOperator(
            lo.DenseLinearOperator(A - torch.diag(noise)), lo.DiagLinearOperator(noise)
        ),
        "callable": ((lambda v: A @ v), A.shape),
    }[kind]
    loss = negative_log_likelihood(held, y, preconditioner=name, rtol=1e-8, generator=seeded())
    for mine, other in zip(torch.autograd.grad(loss, (l, s, y)), truth, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_logdet_alone_is_the_inverse():
    A = kernel(40).requires_grad_()
    rf.logdet(A, generator=seeded()).value.backward()
    torch.testing.assert_close(A.grad, torch.linalg.inv(A.detach()), rtol=1e-6, atol=1e-6)
    B = torch.stack([kernel(40), kernel(40, seed=1)]).requires_grad_()
    rf.logdet(B, generator=seeded()).value.sum().backward()
    torch.testing.assert_close(B.grad, torch.linalg.inv(B.detach()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["rangeformer", "rpcholesky", "nystrom", None])
def test_large_gradients_are_unbiased(name):
    l, s = hyperparameters()  # noqa: E741
    truth = torch.cat([g.reshape(-1) for g in torch.autograd.grad(torch.logdet(gp_covariance(l, s, 300)), (l, s))])
    draws = []
    for seed in range(32):
        value = rf.logdet(gp_covariance(l, s, 300), preconditioner=name, rtol=1e-6, generator=seeded(seed)).value
        draws.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, (l, s))]))
    draws = torch.stack(draws)
    z = (draws.mean(0) - truth) / (draws.std(0) / 32**0.5)
    assert (z.abs() < 4).all(), z
    if name == "rangeformer":
        assert (draws.std(0) < 0.05 * truth.abs().max()).all()


def test_gradients_in_float32():
    l, s = (p.detach().float().requires_grad_() for p in hyperparameters())  # noqa: E741
    y = normal(200, dtype=torch.float32)
    X32 = X[:200].float()

    def covariance(l, s, x):  # noqa: E741
        squared = (x / l.exp()).unsqueeze(-2).sub(x / l.exp()).square().sum(-1)
        return torch.exp(-squared / 2) + s.exp() * torch.eye(len(x), dtype=x.dtype)

    loss = negative_log_likelihood(covariance(l, s, X32), y, rtol=1e-3, generator=seeded())
    L, S = l.detach().double().requires_grad_(), s.detach().double().requires_grad_()
    A, y = covariance(L, S, X[:200]), y.double()
    truth = torch.autograd.grad(y @ torch.linalg.solve(A, y) + torch.logdet(A), (L, S))
    for mine, other in zip(torch.autograd.grad(loss, (l, s)), truth, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine.double(), other, rtol=2e-2, atol=2e-2 * float(other.abs().max()))


@pytest.mark.parametrize("half", ["inv_quad", "logdet"])
def test_second_derivatives_raise_instead_of_missing_terms(half):
    l, s = hyperparameters()  # noqa: E741
    value = getattr(rf.inv_quad_logdet(gp_covariance(l, s, 50), normal(50), generator=seeded()), half)
    (first,) = torch.autograd.grad(value, s, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once, not twice"):
        torch.autograd.grad(first, s)


def test_no_graph_where_none_is_wanted():
    with torch.no_grad():
        assert not rf.logdet(kernel(30).requires_grad_()).value.requires_grad
    assert not rf.logdet(kernel(30)).value.requires_grad


# ---- what must fail, and say so --------------------------------------------------------------------------------------

NOT_DEFINITE = {
    "shifted kernel": lambda n: kernel(n) - 0.5 * torch.eye(n, dtype=torch.float64),
    "negative definite": lambda n: -kernel(n),
    "zero": lambda n: torch.zeros(n, n, dtype=torch.float64),
    "one negative eigenvalue": lambda n: with_spectrum(torch.cat([torch.logspace(-1, 1, n - 1), torch.tensor([-0.1])])),
    "one zero on the diagonal": lambda n: torch.diag((torch.arange(n) > 0).double()),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [40, 280])
@pytest.mark.parametrize("matrix", [m for m in NOT_DEFINITE if m != "one zero on the diagonal"])
def test_not_positive_definite_is_nan_with_a_warning(name, n, matrix):
    with pytest.warns(
        rf.ConvergenceWarning, match="`A` is not positive definite in torch.float64: its log-determinant"
    ):
        result = rf.logdet(NOT_DEFINITE[matrix](n), preconditioner=name, generator=seeded())
    assert not result.converged
    assert result.value.isnan()
    assert result.standard_error.isnan()


@pytest.mark.parametrize("fallback", ["dense", None])
def test_no_value_no_gradient(fallback):
    A = NOT_DEFINITE["shifted kernel"](40).requires_grad_()
    with convergence_warnings_ignored():
        value = rf.logdet(A, generator=seeded(), fallback=fallback).value
    assert torch.autograd.grad(value, A)[0].isnan().all()


def test_one_bad_member_leaves_the_others_right_with_their_gradients():
    A = torch.stack([kernel(40), NOT_DEFINITE["shifted kernel"](40), kernel(40, seed=1)]).requires_grad_()
    with pytest.warns(rf.ConvergenceWarning, match="Cholesky factorisation instead, NaN where that failed as well"):
        result = rf.logdet(A, generator=seeded())
    assert result.fallback == "Cholesky"
    good = [0, 2]
    torch.testing.assert_close(result.value[good].detach(), torch.logdet(A.detach())[good])
    assert result.value[1].isnan()
    (gradient,) = torch.autograd.grad(result.value[good].sum(), A)
    torch.testing.assert_close(gradient[good], torch.linalg.inv(A.detach())[good], rtol=1e-6, atol=1e-6)


def test_too_few_iterations_end_in_cholesky_with_its_gradient():
    A = conditioned(300, 1e5).requires_grad_()
    with pytest.warns(rf.ConvergenceWarning, match="probe solves did not converge: allow more iterations .* Cholesky"):
        result = rf.logdet(A, preconditioner=None, max_iterations=3, generator=seeded())
    assert result.fallback == "Cholesky"
    assert (result.status, result.cause) == (rf.Status.FALLBACK_USED, rf.Status.MAX_ITERATIONS)
    assert result.converged
    torch.testing.assert_close(result.value.detach(), torch.logdet(A.detach()))
    torch.testing.assert_close(
        torch.autograd.grad(result.value, A)[0], torch.linalg.inv(A.detach()), rtol=1e-4, atol=1e-4
    )
    with pytest.warns(rf.ConvergenceWarning, match="probe solves did not converge"):
        result = rf.logdet(A.detach(), preconditioner=None, max_iterations=3, generator=seeded(), fallback=None)
    assert result.fallback is None
    assert not result.converged
    assert result.num_iterations == 3


def test_inv_quad_of_an_indefinite_matrix_is_reported():
    A, b = NOT_DEFINITE["shifted kernel"](60), normal(60, 2)
    with pytest.warns(rf.ConvergenceWarning):
        result = rf.inv_quad_logdet(A, b, generator=seeded())
    assert result.solution.cause is rf.Status.INDEFINITE
    assert result.solution.fallback == "QR"
    assert result.logdet.isnan()
    torch.testing.assert_close(result.inv_quad, (b * torch.linalg.solve(A, b)).sum())


def test_small_float32_matrices_are_exact_however_ill_conditioned():
    A = conditioned(100, 1e6).float()
    result = rf.logdet(A, generator=seeded())
    assert float(result.standard_error) == 0
    torch.testing.assert_close(result.value.double(), torch.logdet(A.double()), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 1e250), (torch.float32, 1e34)])
def test_a_quadratic_form_beyond_its_type_says_so(dtype, size):
    A = with_spectrum(torch.logspace(-2, 0, 50, dtype=torch.float64)).to(dtype)
    with pytest.warns(rf.ConvergenceWarning, match="beyond the range"):
        result = rf.inv_quad_logdet(A, size * torch.ones(50, dtype=dtype))
    assert result.status is rf.Status.NOT_FINITE
    assert bool(result.inv_quad.isposinf())
    assert bool(result.solution.converged)
