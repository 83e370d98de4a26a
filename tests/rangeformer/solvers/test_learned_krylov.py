"""`linear_solve` and `logdet` with method="learned-krylov": evidence, gradients and failures.

The solvers under test are `solve_by_model` and `logdet_by_model`.
"""

import pytest
import torch
from helpers import (
    CountingMatmul,
    conditioned,
    convergence_warnings_ignored,
    kernel,
    normal,
    relative_residuals,
    seeded,
)

import rangeformer as rf
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel

NARROW = LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=8))
DIRECT = "learned-krylov"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("matrix", [conditioned(40, 1e3), normal(40, 40), normal(40, 40) + normal(40, 40).mT])
def test_solves_spd_unsymmetric_and_indefinite(matrix, dtype):
    A, b = matrix.to(dtype), normal(40, 2, dtype=dtype)
    solution = rf.linear_solve(A, b, method=DIRECT, rtol=1e-4, fallback=None)
    assert bool(solution.converged.all())
    assert solution.value.dtype == dtype
    assert torch.allclose(solution.residual_norms.double(), relative_residuals(A, solution.value, b), atol=1e-5)
    assert (solution.method, solution.fallback, solution.num_iterations) == (DIRECT, None, 16)
    exact = torch.linalg.solve(A.double(), b.double())
    assert torch.allclose(solution.value.double(), exact, atol=1e-9 if dtype == torch.float64 else 1e-3)


def test_every_product_is_counted():
    counting = CountingMatmul(normal(40, 40))
    with torch.no_grad():
        solution = rf.linear_solve((counting, (40, 40)), normal(40), method=DIRECT, model=NARROW)
    # symmetry, five loops, certificate
    assert (solution.num_passes, solution.num_matvecs) == (counting.passes, counting.matvecs) == (7, 2 + 40 + 1)
    assert solution.value.shape == (40,)


def test_other_methods_are_as_they_were():
    A, b = kernel(60), normal(60, 2)
    assert rf.linear_solve(A, b).method == "cg"
    assert rf.logdet(A).method == "krylov"


def test_too_few_loops_are_said_and_the_fallback_says_so():
    A, b = kernel(200, lengthscale=0.1), normal(200, 1)
    with pytest.warns(rf.ConvergenceWarning, match=r"Not converged: .* after 2 loops. Allow more loops"):
        solution = rf.linear_solve(A, b, method=DIRECT, model=NARROW, num_loops=2, fallback=None)
    assert not bool(solution.converged.any())
    assert relative_residuals(A, solution.value, b) == pytest.approx(solution.residual_norms)
    with pytest.warns(rf.ConvergenceWarning, match="The values come from a dense Cholesky factorisation instead"):
        solution = rf.linear_solve(A, b, method=DIRECT, model=NARROW, num_loops=2)
    assert solution.fallback == "Cholesky"
    assert solution.status is rf.Status.FALLBACK_USED
    assert bool(solution.converged.all())
    assert solution.residual_norms.max() < 1e-10


@pytest.mark.parametrize(
    "matrix", [torch.zeros(30, 30).double(), normal(30, 3) @ normal(30, 3).mT], ids=["zero", "low"]
)
def test_singular_is_said(matrix):
    with pytest.warns(rf.ConvergenceWarning, match="`A` is singular or too ill-conditioned"):
        solution = rf.linear_solve(matrix, normal(30, 1), method=DIRECT)
    assert not bool(solution.converged.any())
    assert bool(solution.value.isfinite().all())
    with pytest.warns(rf.ConvergenceWarning, match="`A` is singular in torch.float64: its log-determinant is -inf"):
        result = rf.logdet(matrix, method=DIRECT)
    assert result.value == -torch.inf
    assert not bool(result.converged)


def test_indefinite_logdet_is_said():
    with pytest.warns(rf.ConvergenceWarning, match="`A` is not positive definite"):
        result = rf.logdet(-torch.eye(5), method=DIRECT)
    assert result.value.isnan()
    assert not bool(result.converged)


def test_logdet_evidence():
    A = torch.stack([kernel(100), conditioned(100, 1e6)])
    result = rf.logdet(A, method=DIRECT, rtol=1e-8)
    assert torch.allclose(result.value, torch.linalg.slogdet(A)[1], rtol=1e-9)
    assert bool(result.converged.all())
    # symmetry and two loops
    assert (result.num_passes, result.num_matvecs, result.num_entries) == (3, 102, 100)
    assert (result.method, result.num_iterations, result.preconditioner) == (DIRECT, 16, "none")
    with pytest.warns(rf.ConvergenceWarning, match="the log-determinant's estimated error is"):
        assert not bool(rf.logdet(kernel(300), method=DIRECT, model=NARROW, num_loops=2, rtol=1e-6).converged)


@pytest.mark.parametrize("symmetric", [True, False])
def test_gradients_are_those_of_the_dense_solve(symmetric):
    A = (kernel(20) if symmetric else normal(20, 20)).requires_grad_(True)
    b = normal(20, 2).requires_grad_(True)
    weight = normal(20, 2, seed=8)
    ours = torch.autograd.grad((rf.linear_solve(A, b, method=DIRECT).value * weight).sum(), (A, b))
    exact = torch.autograd.grad((torch.linalg.solve(A, b) * weight).sum(), (A, b))
    for mine, true in zip(ours, exact, strict=True):
        assert torch.allclose(mine, true, rtol=1e-8, atol=1e-8)


def test_second_derivatives_are_refused():
    b = normal(10).requires_grad_(True)
    value = rf.linear_solve(kernel(10), b, method=DIRECT).value
    (first,) = torch.autograd.grad(value.square().sum(), b, create_graph=True)
    with pytest.raises(RuntimeError, match="once, not twice"):
        first.sum().backward()


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_extreme_right_hand_sides(factor):
    A, b = conditioned(30, 100), normal(30, 1)
    solution = rf.linear_solve(A, factor * b, method=DIRECT)
    assert bool(solution.converged.all())
    assert torch.allclose(solution.value / factor, torch.linalg.solve(A, b))


def test_zero_columns_stay_zero():
    b = torch.stack([torch.zeros(30).double(), normal(30)], -1)
    solution = rf.linear_solve(conditioned(30, 100), b, method=DIRECT)
    assert torch.equal(solution.value[:, 0], torch.zeros(30).double())
    assert bool(solution.converged.all())


def test_deterministic():
    A, b = kernel(100), normal(100, 1)
    with convergence_warnings_ignored():
        first, second, other = (
            rf.linear_solve(A, b, method=DIRECT, model=NARROW, num_loops=3, fallback=None, generator=g).value
            for g in (None, None, seeded(5))
        )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_pure_member_answers_through_the_same_door_and_needs_symmetry():
    from rangeformer.models.pure import PureRangeFormer

    pure = PureRangeFormer.untrained()
    solution = rf.linear_solve(conditioned(20, 2), normal(20), method=DIRECT, model=pure, rtol=1e-2)
    assert bool(solution.converged)
    with pytest.raises(ValueError, match="`A` must be symmetric"):
        rf.linear_solve(normal(20, 20), normal(20), method=DIRECT, model=pure)


EXTREMES = [(torch.float64, e) for e in (-1021, -997, 997, 1020)]
EXTREMES += [(torch.float32, e) for e in (-125, -110, 110, 124)]


def powers(A: torch.Tensor, exponent: int) -> torch.Tensor:
    """A times 2^exponent, which may leave the range in one step."""
    half = exponent // 2
    return A * 2.0**half * 2.0 ** (exponent - half)


@pytest.mark.parametrize(("dtype", "exponent"), EXTREMES)
@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("fallback", ["dense", None])
def test_every_size_of_matrix(dtype, exponent, products, fallback):
    A0, b = normal(20, 20, dtype=dtype) / 8 + torch.eye(20, dtype=dtype), normal(20, 2, dtype=dtype)
    A, exact = powers(A0, exponent), torch.linalg.solve(A0.double(), b.double())
    operator = rf.as_operator((lambda v: A @ v, (20, 20)), dtype=dtype) if products else A
    for size in (exponent // 2, exponent):
        options = {"method": DIRECT, "rtol": 1e-5, "fallback": fallback}
        solution = rf.linear_solve(operator, powers(b, size), **options)
        assert bool(solution.converged.all())
        assert torch.allclose(powers(solution.value.double(), exponent - size), exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "exponent"), EXTREMES)
def test_log_determinants_of_every_size_of_matrix(dtype, exponent):
    A = conditioned(20, 10, dtype=dtype)
    scaled = powers(A, exponent)
    exact = torch.linalg.slogdet(powers(scaled.double(), -exponent))[1] + 20 * exponent * torch.log(torch.tensor(2.0))
    for operator in (scaled, rf.as_operator((lambda v: scaled @ v, (20, 20)), dtype=dtype)):
        result = rf.logdet(operator, method=DIRECT)
        assert bool(result.converged)
        assert result.value.item() == pytest.approx(exact.item(), rel=1e-5)
    together = rf.logdet(torch.stack([A, scaled, 3 * A]), method=DIRECT).value
    assert together[1].item() == pytest.approx(exact.item(), rel=1e-5)
    assert together[2].item() == pytest.approx(torch.linalg.slogdet(3 * A.double())[1].item(), rel=1e-5)


def test_a_tiny_diagonal_under_large_entries_is_indefinite_and_no_error():
    A = torch.tensor([[1e-300, 1.0], [1.0, 1e-300]], dtype=torch.float64)
    with pytest.warns(rf.ConvergenceWarning, match="`A` is not positive definite"):
        assert rf.logdet(A, method=DIRECT).value.isnan()
    assert torch.allclose(rf.linear_solve(A, torch.ones(2).double(), method=DIRECT).value, torch.ones(2).double())


@pytest.mark.parametrize(("matrix", "rhs"), [(1e-100, 1e250), (1e200, 1e-200)])
def test_a_solution_beyond_the_range_is_said(matrix, rhs):
    with pytest.warns(rf.ConvergenceWarning, match="a solution lies beyond the range of torch.float64.*Divide `rhs`"):
        solution = rf.linear_solve(matrix * conditioned(20, 10), rhs * normal(20), method=DIRECT)
    assert not bool(solution.converged)
    assert solution.status is rf.Status.NOT_FINITE
    assert torch.equal(solution.value, torch.zeros(20, dtype=torch.float64))
    assert solution.residual_norms == pytest.approx(1)


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_members_of_a_batch_do_not_spoil_each_other(factor):
    A, b = torch.stack([conditioned(20, 10), conditioned(20, 10, seed=1), normal(20, 20)]), normal(3, 20, 2)
    exact = torch.linalg.solve(A, b)
    A[1] *= factor
    solution = rf.linear_solve(A, b, method=DIRECT)
    assert bool(solution.converged.all())
    assert torch.allclose(solution.value[[0, 2]], exact[[0, 2]])
    assert torch.allclose(solution.value[1] * factor, exact[1])


@pytest.mark.parametrize("method", ["auto", "cg", "block-cg", DIRECT])
@pytest.mark.parametrize("size", [-830, -530, 0, 530, 830])
@pytest.mark.parametrize("own", [-830, -530, 0, 530, 830])
def test_gradients_of_every_size_of_right_hand_side_and_loss(method, size, own):
    A0, b0, w0 = conditioned(12, 20), normal(12, 3), normal(12, 3, seed=5)
    X, G = torch.linalg.solve(A0, b0), torch.linalg.solve(A0, w0)
    A, b, w = A0.clone().requires_grad_(), b0.clone(), w0.clone()
    b[:, 0], w[:, 0] = b[:, 0] * 2.0**size, w[:, 0] * 2.0**own
    b[:, 1], w[:, 2] = 0, 0
    b.requires_grad_()
    value = rf.linear_solve(A, b, method=method, rtol=1e-10).value
    with convergence_warnings_ignored():
        of_A, of_b = torch.autograd.grad(value, (A, b), grad_outputs=w)
    assert torch.allclose(of_b[:, 0] * 2.0**-own, G[:, 0], rtol=1e-7)
    assert torch.allclose(of_b[:, 1], G[:, 1], rtol=1e-7)
    assert torch.equal(of_b[:, 2], torch.zeros_like(G[:, 2]))
    if abs(size + own) < 900:
        # only the first column gives anything: of each of the others one factor is zero
        exact = -torch.outer(G[:, 0], X[:, 0]) * 2.0 ** (size + own)
        assert torch.allclose(of_A, exact, rtol=1e-6, atol=1e-7 * float(exact.abs().max()))
    assert not bool(of_A.isnan().any())


def test_a_gradient_beyond_the_range_is_said():
    A, b = conditioned(12, 20).requires_grad_(), (1e200 * normal(12)).requires_grad_()
    value = rf.linear_solve(A, b, method=DIRECT).value
    with pytest.warns(
        rf.ConvergenceWarning, match="In the gradient: the derivative by the matrix lies beyond the range"
    ):
        of_A, of_b = torch.autograd.grad((value * 1e150).sum(), (A, b))
    assert not bool(of_A.isfinite().all())
    assert torch.allclose(of_b / 1e150, torch.linalg.solve(A, torch.ones(12, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rf.linear_solve(normal(3, 4), normal(3), method=DIRECT), ValueError, "`A` must be square"),
        (
            lambda: rf.linear_solve(torch.eye(3), torch.ones(3), method=DIRECT, num_loops=0),
            ValueError,
            "`num_loops` must",
        ),
        (
            lambda: rf.linear_solve((lambda v: v * torch.nan, (3, 3)), torch.ones(3), method=DIRECT),
            ValueError,
            "finite",
        ),
        (lambda: rf.logdet(normal(3, 3), method=DIRECT), ValueError, "`A` must be symmetric"),
        (lambda: rf.logdet(torch.eye(3), method="cholesky"), ValueError, r"`method` must be one of .* Got 'cholesky'"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
