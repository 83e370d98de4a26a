"""The pure member: what it says untrained and trained, what it does not depend on.

That nothing is solved inside.
"""

import math

import pytest
import torch
from helpers import CountingMatmul, conditioned, normal, seeded

from rangeformer import as_operator
from rangeformer.models.pure import PureConfig, PureRangeFormer

SMALL = PureConfig(num_loops=6, num_probes=16, hidden=24, small=8)


@pytest.fixture(scope="module")
def model() -> PureRangeFormer:
    """Untrained, then moved off its start at random, so that every part takes part; its rule is conjugate gradients."""
    model = PureRangeFormer.untrained(SMALL)
    with torch.no_grad():
        for index, (name, weight) in enumerate(model.named_parameters()):
            weight.add_(0.05 * normal(*weight.shape, seed=index).to(weight) if ".linear." not in name else 0)
    return as_conjugate_gradients(model)


def as_conjugate_gradients(model: PureRangeFormer) -> PureRangeFormer:
    """log alpha = log <r, r> / <p, q> and log beta = log <r', r'> / <r, r>.

    With the networks and the gate switched off.
    """
    with torch.no_grad():
        for part in (model.alpha, model.beta):
            part.linear.weight.zero_()
            part.linear.bias.zero_()
            part.network[-1].weight.zero_()
            part.network[-1].bias.zero_()
        model.alpha.linear.weight[0, 0] = -0.1
        model.beta.linear.weight[0, 4] = 0.1
        model.gate[-1].weight.zero_()
        model.gate[-1].bias.zero_()
    return model


def jacobi_cg_naive(A: torch.Tensor, b: torch.Tensor, num_loops: int) -> torch.Tensor:
    """Hestenes & Stiefel with the diagonal as preconditioner, one column."""
    inverse = 1 / A.diagonal()
    x, r = torch.zeros_like(b), b.clone()
    z = inverse * r
    p, energy = z.clone(), r @ z
    for _ in range(num_loops):
        q = A @ p
        step = energy / (p @ q)
        x, r = x + step * p, r - step * q
        z = inverse * r
        p, energy = z + (r @ z) / energy * p, r @ z
    return x


def test_the_rule_can_be_conjugate_gradients(model):
    A, b = conditioned(30, 50.0), normal(30)
    A = A * (1 + torch.arange(30.0, dtype=torch.float64)).sqrt() * (1 + torch.arange(30.0).double()).sqrt().unsqueeze(1)
    found = model.solve(as_operator(A), b.unsqueeze(-1), num_loops=8).squeeze(-1)
    torch.testing.assert_close(found, jacobi_cg_naive(A, b, 8), rtol=1e-6, atol=1e-9)
    weights = model.rule()
    assert weights["alpha"]["<p,q>/<r,r>"] == pytest.approx(-1)
    assert weights["beta"]["<r',r'>/<r,r>"] == pytest.approx(1)


def test_untrained_is_the_step_of_least_residual():
    model = PureRangeFormer.untrained(SMALL)
    A, b = conditioned(12, 10.0), normal(12)
    root = A.diagonal().rsqrt()
    C, r = root * A * root.unsqueeze(1), root * b
    q = C @ r
    first = root * ((r @ q) / (q @ q) * r)
    found = model.solve(as_operator(A), b.unsqueeze(-1), num_loops=1).squeeze(-1)
    torch.testing.assert_close(found, first, rtol=1e-5, atol=1e-8)  # the coefficients are float32 sums of logarithms


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_where_there_is_nothing_to_learn(model, dtype):
    identity = as_operator(3 * torch.eye(20, dtype=dtype))
    values, errors = model.eigenvalues(identity)
    assert values.dtype == errors.dtype == dtype
    torch.testing.assert_close(
        values, torch.full((20,), 3.0, dtype=dtype), rtol=1e-3 if dtype == torch.float32 else 1e-7, atol=0
    )
    diagonal = torch.linspace(0.1, 50, 20, dtype=dtype)
    value, _ = model.logdet(as_operator(torch.diag(diagonal)))
    torch.testing.assert_close(value, diagonal.double().log().sum().to(dtype), rtol=1e-4, atol=1e-4)


def test_trace_is_kept_and_values_ascend(model):
    A = torch.stack([conditioned(14, 100.0, seed=s) for s in range(3)])
    values, errors = model.eigenvalues(as_operator(A))
    torch.testing.assert_close(values.sum(-1), A.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert (values.diff(dim=-1) >= 0).all()
    assert (values > 0).all()
    assert (errors > 0).all()


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_scale_of_the_matrix(model, scale):
    A, b = conditioned(15, 100.0), normal(15, 2)
    one, many = as_operator(A), as_operator(scale * A)
    torch.testing.assert_close(model.solve(many, b) * scale, model.solve(one, b), rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(model.eigenvalues(many)[0] / scale, model.eigenvalues(one)[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(model.logdet(many)[0] - 15 * math.log(scale), model.logdet(one)[0], rtol=1e-4, atol=1e-4)


def test_scale_of_the_right_hand_side(model):
    A, b = as_operator(conditioned(15, 100.0)), normal(15, 2)
    torch.testing.assert_close(model.solve(A, 1e-9 * b) * 1e9, model.solve(A, b), rtol=1e-5, atol=1e-12)


def test_order_of_the_rows(model):
    # n <= num_probes: the probes are a full basis, and no answer depends on which
    A, b, order = conditioned(15, 100.0), normal(15, 1), torch.randperm(15, generator=seeded(3))
    one, other = as_operator(A), as_operator(A[order][:, order])
    torch.testing.assert_close(model.solve(other, b[order]), model.solve(one, b)[order], rtol=1e-6, atol=1e-9)


def test_batch_is_a_loop(model):
    A = torch.stack([conditioned(12, 10.0 ** (s + 1), seed=s) for s in range(3)])
    b = normal(3, 12, 2)
    together = model.solve(as_operator(A), b)
    for member in range(3):
        alone = model.solve(as_operator(A[member]), b[member])
        torch.testing.assert_close(together[member], alone, rtol=1e-5, atol=1e-9)


def test_same_call_same_answer_and_the_global_generator_rests(model):
    A, b = as_operator(conditioned(40, 100.0)), normal(40, 1)
    before = torch.random.get_rng_state()
    assert torch.equal(model.solve(A, b), model.solve(A, b))
    assert torch.equal(model.eigenvalues(A)[0], model.eigenvalues(A)[0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sizes_from_two_to_hundreds(model):
    for n in (2, 3, 33, 300):
        A = as_operator(conditioned(n, 10.0))
        assert model.solve(A, normal(n, 1)).isfinite().all()
        values, _ = model.eigenvalues(A, num_loops=3)
        assert values.shape == (n,)
        assert values.isfinite().all()
        assert model.logdet(A, num_loops=20)[0].isfinite()


def test_more_loops_do_not_hurt(model):
    A, b = conditioned(20, 1e6), normal(20, 3)
    exact = torch.linalg.solve(A, b)
    path = model.solve_path(as_operator(A), b, num_loops=60)
    errors = torch.stack([torch.linalg.vector_norm(x - exact) for x in path])
    assert errors[-1] <= 1.01 * errors[14]
    assert torch.stack(path).isfinite().all()


def test_reads_are_one_pass_a_loop_and_one_to_see_the_rows(model):
    counted = CountingMatmul(conditioned(30, 10.0))
    operator = as_operator((counted, (30, 30)))
    model.solve(operator, normal(30, 2), num_loops=5)
    # without entries one more block of products stands in for the diagonal
    assert counted.passes == operator.reads.passes == 5 + 2
    assert counted.matvecs == operator.reads.matvecs == 5 * 2 + 2 * SMALL.num_probes


def test_nothing_is_solved_inside(model, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("a factorisation was called")

    for name in (
        "solve",
        "eigh",
        "eigvalsh",
        "cholesky",
        "cholesky_ex",
        "inv",
        "lstsq",
        "svd",
        "slogdet",
        "solve_triangular",
    ):
        monkeypatch.setattr(torch.linalg, name, forbidden)
    A = as_operator(conditioned(10, 10.0))
    model.solve(A, normal(10, 1))
    model.eigenvalues(A)
    model.logdet(A)


def test_an_indefinite_matrix_is_refused(model):
    A = torch.diag(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"`A` must be positive definite for a PureRangeFormer.*-1"):
        model.solve(as_operator(A), normal(3, 1))
    with pytest.raises(ValueError, match="`num_loops` must be at least 1"):
        model.solve(as_operator(torch.eye(3, dtype=torch.float64)), normal(3, 1), num_loops=0)


def test_zero_right_hand_side(model):
    found = model.solve(as_operator(conditioned(10, 10.0)), torch.zeros(10, 1, dtype=torch.float64))
    assert torch.equal(found, torch.zeros_like(found))


def test_gradients_reach_every_part():
    model = PureRangeFormer(SMALL, generator=seeded(1))
    with torch.no_grad():
        for index, weight in enumerate(model.parameters()):
            weight.add_(0.02 * normal(*weight.shape, seed=index).to(weight))
    A, b = as_operator(conditioned(12, 30.0)), normal(12, 1)
    seen = model.summary(A)
    total = model.solve(A, b, num_loops=4).square().sum() + model.read_spectrum(seen).square().sum()
    total = total + model.read_logdet(seen) + sum(model.read_log_errors(seen))
    total.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        # a constant added to what goes into a softmax changes nothing: that gradient is zero but for rounding
        if name != "spectrum_out.5.bias":
            assert (weight.grad != 0).any(), name
