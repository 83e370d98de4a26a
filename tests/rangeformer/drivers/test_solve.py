"""`linear_solve`: right answers, honest certificates, and failures that are reported."""

import time
import warnings

import linear_operator.operators as lo
import pytest
import scipy.sparse
import torch
from helpers import (
    NAMES,
    CountingMatmul,
    assert_solved,
    conditioned,
    convergence_warnings_ignored,
    kernel,
    normal,
    points,
    relative_residuals,
    seeded,
    with_spectrum,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import rangeformer as rf

METHODS = ["cg", "block-cg"]


@pytest.fixture(autouse=True)
def time_guard():
    """Nothing here may loop for ever."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 60


def solve(A, rhs, seed: int = 0, **options) -> rf.Solution:
    return rf.linear_solve(A, rhs, generator=seeded(seed), **options)


def check_certificate(A: torch.Tensor, rhs: torch.Tensor, solution: rf.Solution) -> None:
    """What the result says of itself is what the value shows."""
    b, x = (rhs.unsqueeze(-1), solution.value.unsqueeze(-1)) if rhs.dim() == 1 else (rhs, solution.value)
    true = relative_residuals(A, x, b)
    eps = torch.finfo(A.dtype).eps
    stated = solution.residual_norms.double().reshape(true.shape)
    # two ways of rounding the same product differ by this much where x is large
    rounding = (torch.linalg.matrix_norm(A, 2) * torch.linalg.vector_norm(x) / torch.linalg.vector_norm(b)).max().item()
    torch.testing.assert_close(stated, true, rtol=1e-2, atol=eps * max(1e3, rounding))


# ---- right answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_all_preconditioners_agree_on_the_solution(name, method):
    A, b = kernel(200, lengthscale=0.2), normal(200, 5)
    solution = solve(A, b, preconditioner=name, method=method, rtol=1e-10)
    assert solution.converged.all()
    assert solution.fallback is None
    assert solution.method == method
    assert solution.preconditioner == (name or "none")
    torch.testing.assert_close(solution.value, torch.linalg.solve(A, b), rtol=1e-6, atol=1e-6)
    check_certificate(A, b, solution)


@pytest.mark.parametrize("method", METHODS)
def test_float64_reaches_1e_12(method):
    A, b = conditioned(150, 50.0), normal(150, 4)
    solution = solve(A, b, rtol=1e-12, method=method)
    assert solution.converged.all()
    assert relative_residuals(A, solution.value, b).max() <= 1.1e-12
    assert_solved(solution.value, torch.linalg.solve(A, b), cond=50.0, factor=1000)


@pytest.mark.parametrize("method", METHODS)
def test_float32_solves_to_its_storage_limit_and_says_so(method):
    A, b = kernel(200, noise=1e-3, dtype=torch.float32), normal(200, 4, dtype=torch.float32)
    loose = solve(A, b, rtol=1e-3, method=method)
    assert loose.converged.all()
    assert loose.value.dtype == loose.residual_norms.dtype == torch.float32
    with pytest.warns(rf.ConvergenceWarning, match="meets rtol=1.0e-09 in float64, but rounded to torch.float32"):
        tight = solve(A, b, rtol=1e-9, method=method)
    assert not tight.converged.any()
    assert tight.fallback is None
    check_certificate(A, b, tight)
    nearest = torch.linalg.solve(A.double(), b.double()).float()
    limit = relative_residuals(A, nearest, b)
    assert (relative_residuals(A, tight.value, b) <= 3 * limit).all()


def test_float32_meets_1e_6_on_a_well_conditioned_matrix():
    A, b = conditioned(300, 5.0, dtype=torch.float32), normal(300, 3, dtype=torch.float32)
    solution = solve(A, b, rtol=1e-6)
    assert solution.converged.all()
    check_certificate(A, b, solution)


@pytest.mark.parametrize("k", [None, 1, 3, 4, 70])
def test_shapes(k):
    A = kernel(90)
    b = normal(90) if k is None else normal(90, k)
    solution = solve(A, b)
    assert solution.value.shape == b.shape
    assert solution.converged.shape == solution.residual_norms.shape == b.shape[1:]
    assert solution.converged.all()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_rangeformer_needs_far_fewer_iterations_than_rpcholesky(d):
    # short length-scales, scattered along structured inputs: low rank is the wrong class there
    n = 600
    x = points(n, d) @ torch.diag(torch.tensor([1.0, 0.7, 0.5], dtype=torch.float64)[:d])
    x = x / (0.02, 0.05, 0.15)[d - 1]
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") * 3**0.5
    A = (1 + distance) * torch.exp(-distance) + 1e-3 * torch.eye(n, dtype=torch.float64)
    b = normal(n)
    counts = {}
    for name in ("rangeformer", "rpcholesky"):
        solution = solve(A, b, preconditioner=name)
        assert solution.converged.all()
        counts[name] = solution.num_iterations
    assert counts["rangeformer"] <= 0.3 * counts["rpcholesky"], counts


def test_block_needs_fewer_passes_than_columns_alone():
    A, b = conditioned(300, 1e4), normal(300, 16)
    block = solve(A, b, preconditioner=None, method="block-cg")
    alone = solve(A, b, preconditioner=None, method="cg")
    assert block.converged.all()
    assert alone.converged.all()
    assert block.num_passes < 0.5 * alone.num_passes


def test_a_finished_preconditioner_serves_many_solves():
    A, b = kernel(200, lengthscale=0.1), normal(200, 2)
    P = rf.build_preconditioner(A, num_rhs=2, generator=seeded())
    assert torch.equal(solve(A, b, preconditioner=P).value, solve(A, b).value)
    nearby = kernel(200, lengthscale=0.11)
    solution = solve(nearby, b, preconditioner=P)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, torch.linalg.solve(nearby, b), rtol=1e-3, atol=1e-3)


# ---- every operator kind, and what is counted ------------------------------------------------------------------------


def held(A: torch.Tensor) -> dict:
    return {
        "tensor": A,
        "numpy": A.numpy(),
        "sparse": scipy.sparse.csr_array(A.numpy()),
        "scipy": scipy.sparse.linalg.aslinearoperator(A.numpy()),
        "linear_operator": lo.DenseLinearOperator(A),
        "callable": (CountingMatmul(A), A.shape),
    }


@pytest.mark.parametrize("kind", ["tensor", "numpy", "sparse", "scipy", "linear_operator", "callable"])
def test_every_kind_of_operator_is_solved_and_counted(kind):
    A, b = kernel(80), normal(80, 3)
    operator = rf.as_operator(held(A)[kind])
    solution = solve(operator, b)
    torch.testing.assert_close(solution.value, torch.linalg.solve(A, b), rtol=1e-4, atol=1e-4)
    assert solution.num_passes == operator.reads.passes
    assert solution.num_matvecs == operator.reads.matvecs
    assert solution.num_entries == operator.reads.entries
    assert (solution.num_entries > 0) == operator.has_entries
    # Beside the iterations: the symmetry check, one certificate after each refinement, the sketch where there are no
    # entries, and the pilot's six Lanczos steps where there are entries but nobody states the noise.
    lanczos = 6 if operator.has_entries and operator.noise is None else 0
    assert 2 <= solution.num_passes - solution.num_iterations - lanczos <= 5


def test_counts_are_of_this_call_alone():
    A, b = rf.as_operator(kernel(80)), normal(80, 2)
    first, second = solve(A, b), solve(A, b)
    assert (first.num_passes, first.num_matvecs) == (second.num_passes, second.num_matvecs)
    # an operator's diagonal, which bounds rounding, is read once
    assert first.num_entries == second.num_entries + 80


def test_iterations_are_passes_over_the_matrix():
    A = kernel(100)
    spy = CountingMatmul(A)
    solution = solve((spy, A.shape), normal(100), preconditioner=None)
    assert spy.passes == solution.num_passes
    assert spy.matvecs == solution.num_matvecs == solution.num_passes + 1  # the symmetry check multiplies two vectors
    assert solution.num_iterations <= spy.passes <= solution.num_iterations + 4


# ---- invariances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [2, 6])
def test_batch_is_a_loop_over_the_batch(name, k):
    A = torch.stack([kernel(60, seed=s, lengthscale=0.1 + 0.1 * s) for s in range(4)]).view(2, 2, 60, 60)
    b = normal(2, 2, 60, k)
    batch = solve(A, b, preconditioner=name, rtol=1e-10)
    assert batch.converged.shape == (2, 2, k)
    assert batch.converged.all()
    for i in range(2):
        for j in range(2):
            one = solve(A[i, j], b[i, j], preconditioner=name, rtol=1e-10)
            torch.testing.assert_close(batch.value[i, j], one.value, rtol=1e-6, atol=1e-7)


def test_rhs_broadcasts_to_the_batch():
    A, b = torch.stack([kernel(40), 2 * kernel(40)]), normal(40, 2)
    torch.testing.assert_close(solve(A, b).value, torch.linalg.solve(A, b.expand(2, 40, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_permuting_rows_permutes_the_solution(seed):
    A, b = kernel(150), normal(150, 5)
    p = torch.randperm(150, generator=seeded(seed))
    permuted = solve(A[p][:, p], b[p], rtol=1e-10)
    torch.testing.assert_close(permuted.value, solve(A, b, rtol=1e-10).value[p], rtol=1e-6, atol=1e-6)


@settings(max_examples=12, deadline=None)
@given(a=st.integers(-480, 480), c=st.integers(-480, 480), k=st.sampled_from([1, 5]))
def test_scaling_scales_the_solution(a, c, k):
    A, b = kernel(50), normal(50, k)
    truth = torch.linalg.solve(A, b)
    # x scales by 2^(c - a): keep it in range
    c = max(min(c, 900 + a), a - 900)
    solution = solve(A * 2.0**a, b * 2.0**c)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value * 2.0 ** (a - c), truth, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_float64_far_from_one(name, scale):
    A, b = kernel(80), normal(80, 3)
    truth = torch.linalg.solve(A, b)
    for solution in (solve(A * scale, b, preconditioner=name), solve(A, b / scale, preconditioner=name)):
        assert solution.converged.all()
        torch.testing.assert_close(solution.value * scale, truth, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_far_from_one(name, scale):
    A, b = kernel(80, dtype=torch.float32), normal(80, 3, dtype=torch.float32)
    truth = torch.linalg.solve(A.double(), b.double()).float()
    for solution in (
        solve(A * scale, b, preconditioner=name, rtol=1e-4),
        solve(A, b / scale, preconditioner=name, rtol=1e-4),
    ):
        assert solution.converged.all()
        torch.testing.assert_close(solution.value * scale, truth, rtol=1e-1, atol=1e-1)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e170, 1e300])
def test_a_tiny_or_huge_rhs_is_never_taken_for_zero(scale):
    A, b = kernel(60, noise=1.0), normal(60, 2)
    solution = solve(A, b * scale)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value / scale, torch.linalg.solve(A, b), rtol=1e-4, atol=1e-4)


def test_a_solution_out_of_range_is_reported():
    A, b = kernel(20) * 1e-200, normal(20, 1) * 1e200
    with pytest.warns(rf.ConvergenceWarning):
        solution = solve(A, b)
    assert not solution.converged.any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 5])
def test_same_seed_same_bits(name, k):
    A, b = kernel(120), normal(120, k)
    first, second = solve(A, b, 7, preconditioner=name), solve(A, b, 7, preconditioner=name)
    assert torch.equal(first.value, second.value)
    assert torch.equal(first.residual_norms, second.residual_norms)
    assert first.num_iterations == second.num_iterations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_device_in_are_dtype_and_device_out(dtype):
    solution = solve(kernel(50, dtype=dtype), normal(50, 2, dtype=dtype), rtol=1e-3)
    assert solution.value.dtype == solution.residual_norms.dtype == dtype
    assert solution.value.device == torch.device("cpu")
    assert solution.converged.dtype == torch.bool


def test_inputs_are_left_alone():
    A, b = kernel(50), normal(50, 2)
    before = A.clone(), b.clone()
    solve(A, b)
    assert torch.equal(A, before[0])
    assert torch.equal(b, before[1])


# ---- degenerate input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 4, 9])
@pytest.mark.parametrize("name", NAMES)
def test_smallest_matrices(n, k, name):
    A, b = torch.eye(n).double() * 2 + 0.5, normal(n, k)
    solution = solve(A, b, preconditioner=name, rtol=1e-10)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, torch.linalg.solve(A, b))


@pytest.mark.parametrize("method", METHODS)
def test_zero_columns_are_solved_by_zero(method):
    b = normal(60, 5)
    b[:, [1, 3]] = 0
    solution = solve(kernel(60), b, method=method)
    assert solution.converged.all()
    assert (solution.value[:, [1, 3]] == 0).all()
    assert (solution.residual_norms[[1, 3]] == 0).all()
    nothing = solve(kernel(60), torch.zeros(60, 5).double(), method=method)
    assert nothing.num_iterations == 0
    assert (nothing.value == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dependent_columns(dtype):
    A, b = kernel(80, dtype=dtype), normal(80, 2, dtype=dtype)
    dependent = torch.cat([b, b, b @ normal(2, 3, dtype=dtype), 1e-6 * b], -1)
    solution = solve(A, dependent, method="block-cg", rtol=1e-4)
    assert solution.converged.all()
    torch.testing.assert_close(
        solution.value.double(), torch.linalg.solve(A.double(), dependent.double()), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("name", NAMES)
def test_identity_and_diagonal_are_immediate(name):
    b = normal(100, 5)
    solution = solve(torch.eye(100).double(), b, preconditioner=name)
    assert solution.num_iterations <= 2
    torch.testing.assert_close(solution.value, b)
    scales = torch.logspace(-6, 6, 100, dtype=torch.float64)
    if name in ("rangeformer", "rpcholesky", "pivoted-cholesky"):
        solution = solve(torch.diag(scales), b, preconditioner=name)
        assert solution.num_iterations <= 3
        torch.testing.assert_close(solution.value, b / scales.unsqueeze(-1))


@pytest.mark.parametrize("name", ["rangeformer", "rpcholesky"])
def test_badly_scaled_rows_do_not_slow_it_down(name):
    A, b, D = kernel(100), normal(100, 2), torch.logspace(-3, 3, 100, dtype=torch.float64)
    scaled = solve(D[:, None] * A * D, D[:, None] * b, preconditioner=name, rtol=1e-8)
    assert scaled.converged.all()
    # the same relative residual is a harder demand in the scaled norm: the small rows hide behind the large
    assert scaled.num_iterations <= 3 * solve(A, b, preconditioner=name, rtol=1e-8).num_iterations + 5


@pytest.mark.parametrize("noise", [1e-6, 1e-8])
def test_duplicated_rows(noise):
    x = points(40, 2).repeat(3, 1) / 0.3
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") * 3**0.5
    A = (1 + distance) * torch.exp(-distance) + noise * torch.eye(120, dtype=torch.float64)
    b = normal(120, 2)
    with convergence_warnings_ignored():
        solution = solve(A, b, rtol=1e-5)
    assert solution.value.isfinite().all()
    check_certificate(A, b, solution)
    assert relative_residuals(A, solution.value, b).max() < 1e-3
    assert solution.num_iterations < 100


# ---- what must fail, and say so --------------------------------------------------------------------------------------


def test_three_iterations_are_reported_as_too_few():
    A, b = kernel(200, noise=1e-4), normal(200, 2)
    with pytest.warns(rf.ConvergenceWarning, match="stopped at max_iterations=3 with relative residual .* Allow more"):
        solution = solve(A, b, preconditioner=None, max_iterations=3, fallback=None)
    assert not solution.converged.any()
    assert solution.num_iterations == 3
    assert solution.fallback is None
    assert "max_iterations=3" in solution.message
    check_certificate(A, b, solution)
    with pytest.warns(rf.ConvergenceWarning, match="The values come from a dense Cholesky factorisation instead"):
        solution = solve(A, b, preconditioner=None, max_iterations=3)
    assert solution.converged.all()
    assert (solution.status, solution.cause) == (rf.Status.FALLBACK_USED, rf.Status.MAX_ITERATIONS)
    assert solution.fallback == "Cholesky"
    torch.testing.assert_close(solution.value, torch.linalg.solve(A, b), rtol=1e-6, atol=1e-6)


INDEFINITE = {
    "shifted kernel": kernel(90) - 0.5 * torch.eye(90, dtype=torch.float64),
    "gaussian": normal(90, 90) + normal(90, 90).mT,
    "negative definite": -kernel(90),
    "one negative eigenvalue": with_spectrum(torch.cat([torch.logspace(-1, 1, 89), torch.tensor([-0.3])])),
    "one negative diagonal": torch.diag(torch.ones(90).double().index_fill(0, torch.tensor([7]), -1.0)),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("matrix", INDEFINITE)
@pytest.mark.parametrize("k", [2, 5])
def test_indefinite_matrices_end_in_a_reported_fallback_with_right_numbers(name, matrix, k):
    A, b = INDEFINITE[matrix], normal(90, k)
    with pytest.warns(
        rf.ConvergenceWarning, match="not positive definite: negative curvature .* dense QR factorisation"
    ):
        solution = solve(A, b, preconditioner=name)
    assert solution.converged.all()
    assert (solution.status, solution.cause) == (rf.Status.FALLBACK_USED, rf.Status.INDEFINITE)
    assert solution.fallback == "QR"
    torch.testing.assert_close(solution.value, torch.linalg.solve(A, b), rtol=1e-7, atol=1e-7)
    check_certificate(A, b, solution)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize(
    "matrix", ["zero", "ones", "rank 20", "one zero on the diagonal", "duplicated rows", "hilbert"]
)
def test_singular_matrices_end_without_a_wrong_claim(name, k, matrix):
    n = 60
    i = torch.arange(n, dtype=torch.float64)
    A = {
        "zero": lambda: torch.zeros(n, n).double(),
        "ones": lambda: torch.ones(n, n).double(),
        "rank 20": lambda: with_spectrum(torch.cat([torch.ones(20), torch.zeros(40)])),
        "one zero on the diagonal": lambda: torch.diag((i > 0).double()),
        "duplicated rows": lambda: kernel(n // 2).repeat(2, 2),
        "hilbert": lambda: 1 / (i[:, None] + i + 1),
    }[matrix]()
    b = normal(n, k)
    with pytest.warns(rf.ConvergenceWarning):
        solution = solve(A, b, preconditioner=name)
    assert not solution.converged.any()
    assert solution.value.isfinite().all()
    check_certificate(A, b, solution)
    assert (solution.residual_norms <= 1).all()


@pytest.mark.parametrize("k", [2, 6])
@pytest.mark.parametrize("fallback", ["dense", None])
@pytest.mark.parametrize("bad", ["indefinite", "singular"])
def test_one_bad_member_of_a_batch_fails_alone(k, fallback, bad):
    good = kernel(70)
    wrong = good - 0.5 * torch.eye(70) if bad == "indefinite" else torch.ones(70, 70).double()
    A, b = torch.stack([good, wrong, 2 * good]), normal(3, 70, k)
    with pytest.warns(rf.ConvergenceWarning):
        solution = solve(A, b, fallback=fallback)
    assert solution.converged[[0, 2]].all()
    assert solution.converged[1].any() == (bad == "indefinite" and fallback == "dense")
    for i in (0, 2):
        assert relative_residuals(A[i], solution.value[i], b[i]).max() <= 1e-6
    if bad == "indefinite" and fallback == "dense":
        torch.testing.assert_close(solution.value[1], torch.linalg.solve(wrong, b[1]), rtol=1e-7, atol=1e-7)
        assert solution.fallback == "QR"


def test_hopeless_in_float32_is_solved_in_float64_or_reported():
    A, b = kernel(100, shape="rbf", noise=1e-7, dtype=torch.float32), normal(100, 3, dtype=torch.float32)
    with pytest.warns(rf.ConvergenceWarning):
        solution = solve(A, b)
    assert not solution.converged.any()
    assert solution.value.isfinite().all()
    check_certificate(A, b, solution)


def test_without_entries_there_is_no_fallback():
    A = INDEFINITE["shifted kernel"]
    with pytest.warns(rf.ConvergenceWarning):
        solution = solve((lambda v: A @ v, A.shape), normal(90, 2))
    assert solution.fallback is None
    assert not solution.converged.any()


def test_good_matrices_warn_about_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solve(kernel(50), normal(50, 2)).message == "Converged."


# ---- gradients -------------------------------------------------------------------------------------------------------


def gradients(loss: torch.Tensor, inputs: tuple) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, inputs))


@pytest.mark.parametrize("k", [None, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_with_respect_to_rhs_and_a_dense_matrix(k, name):
    A, b = kernel(50).requires_grad_(), (normal(50) if k is None else normal(50, k)).requires_grad_()
    weight = normal(*b.shape, seed=5)
    ours = (solve(A, b, rtol=1e-12, preconditioner=name).value.sin() * weight).sum()
    truth = (torch.linalg.solve(A, b).sin() * weight).sum()
    for mine, other in zip(gradients(ours, (A, b)), gradients(truth, (A, b)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_gradients_of_a_batch_with_broadcast_rhs():
    A, b = torch.stack([kernel(30), kernel(30, seed=1)]).requires_grad_(), normal(30, 2).requires_grad_()
    ours, truth = solve(A, b, rtol=1e-12).value.square().sum(), torch.linalg.solve(A, b.expand(2, 30, 2)).square().sum()
    for mine, other in zip(gradients(ours, (A, b)), gradients(truth, (A, b)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def dense_kernel(lengthscale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    distance = torch.cdist(x / lengthscale, x / lengthscale, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-distance)


def kernel_cases() -> dict:
    x = points(60, 2)
    eye = torch.eye(60, dtype=torch.float64)

    def through_linear_operator(l, s):  # noqa: E741
        kernel = lo.DenseLinearOperator(dense_kernel(l, x))
        return lo.AddedDiagLinearOperator(kernel, lo.DiagLinearOperator(s.expand(60)))

    def through_callable(l, s):  # noqa: E741
        return (lambda v: dense_kernel(l, x) @ v + s * v), (60, 60)

    def through_tensor(l, s):  # noqa: E741
        return dense_kernel(l, x) + s * eye

    return {"linear_operator": through_linear_operator, "callable": through_callable, "tensor": through_tensor}


@pytest.mark.parametrize("kind", ["linear_operator", "callable", "tensor"])
def test_gradients_with_respect_to_kernel_parameters(kind):
    l = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)  # noqa: E741
    s = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    b = normal(60, 2).requires_grad_()
    cases = kernel_cases()
    ours = solve(cases[kind](l, s), b, rtol=1e-11).value.square().sum()
    truth = torch.linalg.solve(cases["tensor"](l, s), b).square().sum()
    for mine, other in zip(gradients(ours, (l, s, b)), gradients(truth, (l, s, b)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


def test_gradient_of_a_fallback():
    A = INDEFINITE["shifted kernel"].clone().requires_grad_()
    b = normal(90, 2).requires_grad_()
    with convergence_warnings_ignored():
        mine = gradients(solve(A, b).value.square().sum(), (A, b))
    for ours, other in zip(mine, gradients(torch.linalg.solve(A, b).square().sum(), (A, b)), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)


def test_no_graph_where_none_is_wanted():
    A, b = kernel(30).requires_grad_(), normal(30)
    with torch.no_grad():
        assert not solve(A, b).value.requires_grad
    assert not solve(A.detach(), b).value.requires_grad


@pytest.mark.parametrize("loss", [lambda x: x.sum(), lambda x: x.square().sum()], ids=["linear", "quadratic"])
def test_second_derivatives_raise_instead_of_missing_terms(loss):
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    A = kernel(30) * theta.exp()
    (first,) = torch.autograd.grad(loss(solve(A, normal(30)).value), theta, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once, not twice"):
        torch.autograd.grad(first, theta)
