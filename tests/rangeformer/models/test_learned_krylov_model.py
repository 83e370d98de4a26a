"""The Galerkin member: exact once its space is complete, better than CG before, never worse with more loops."""

import pytest
import torch
from direct_examples import indefinite, positive_definite
from helpers import conditioned, kernel, normal, relative_residuals, seeded

from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel
from rangeformer.operators import as_operator

NARROW = LearnedKrylovConfig(channels=8, num_loops=4)
SPD = [(n, name) for n in (20, 50) for name in positive_definite(n)]


def member(config: LearnedKrylovConfig | None = None) -> LearnedKrylovModel:
    return LearnedKrylovModel.untrained(config)


@pytest.mark.parametrize(("n", "name"), SPD)
def test_families_to_six_digits(n, name):
    A = positive_definite(n)[name]
    x = normal(n, 2, seed=9)
    solved = member().solve(as_operator(A), A @ x)
    assert torch.linalg.vector_norm(solved - x) <= 1e-6 * torch.linalg.vector_norm(x)
    true = torch.linalg.eigvalsh(A)
    values, errors = member().eigenvalues(as_operator(A))
    assert bool(((values - true).abs() <= 1e-6 * true).all())
    assert bool(((values - true).abs() <= errors + 1e-13 * true[-1]).all())
    value, error = member().logdet(as_operator(A))
    assert abs(value - true.log().sum()) <= 1e-6 * max(1.0, float(true.log().sum().abs()))
    assert error <= 1e-6 * max(1.0, float(value.abs()))


@pytest.mark.parametrize(("n", "name"), [(n, name) for n in (20, 50) for name in indefinite(n)])
def test_indefinite_families_to_six_digits(n, name):
    A = indefinite(n)[name]
    x = normal(n, 1, seed=9)
    solved = member().solve(as_operator(A), A @ x)
    assert torch.linalg.vector_norm(solved - x) <= 1e-6 * torch.linalg.vector_norm(x)
    true = torch.linalg.eigvalsh(A)
    assert bool(((member().eigenvalues(as_operator(A))[0] - true).abs() <= 1e-6 * true.abs()).all())


def test_larger_families_in_four_loops():
    for A in positive_definite(200).values():
        operator = as_operator(A)
        x = normal(200, 1, seed=9)
        assert torch.linalg.vector_norm(member().solve(operator, A @ x) - x) <= 1e-6 * torch.linalg.vector_norm(x)
        assert operator.reads.passes == 4
        assert operator.reads.matvecs == 200


def test_eigenvalues_need_products_alone():
    A = conditioned(30, 1e3)
    operator = as_operator((lambda v: A @ v, (30, 30)))
    values, _ = member().eigenvalues(operator)
    assert torch.allclose(values, torch.linalg.eigvalsh(A))
    assert (operator.reads.passes, operator.reads.matvecs, operator.reads.entries) == (1, 30, 0)


@pytest.mark.parametrize("num_loops", [1, 2, 3, 5])
def test_reads_are_one_pass_a_loop(num_loops):
    operator = as_operator(kernel(100))
    member(NARROW).solve(operator, normal(100, 2), num_loops=num_loops)
    assert (operator.reads.passes, operator.reads.matvecs, operator.reads.entries) == (num_loops, 8 * num_loops, 100)


def jacobi_cg(A: torch.Tensor, b: torch.Tensor, num_steps: int) -> float:
    """Least relative residual of Jacobi-CG in that many passes."""
    inverse = 1 / A.diagonal().unsqueeze(-1)
    x, r = torch.zeros_like(b), b
    z = p = inverse * r
    best = 1.0
    for _ in range(num_steps):
        q = A @ p
        alpha = (r * z).sum() / (p * q).sum()
        x, after = x + alpha * p, r - alpha * q
        z_after = inverse * after
        p = z_after + (after * z_after).sum() / (r * z).sum() * p
        r, z = after, z_after
        best = min(best, float(relative_residuals(A, x, b).max()))
    return best


@pytest.mark.parametrize("num_loops", [1, 2, 4, 8])
@pytest.mark.parametrize("lengthscale", [0.05, 0.5])
def test_never_worse_than_jacobi_cg_at_equal_passes(num_loops, lengthscale):
    scale = normal(150, seed=4).exp()
    A = scale[:, None] * kernel(150, lengthscale=lengthscale) * scale
    b = normal(150, 1)
    x = member(NARROW).solve(as_operator(A), b, num_loops=num_loops)
    assert relative_residuals(A, x, b).max() <= jacobi_cg(A, b, num_loops)


@pytest.mark.parametrize("name", ["diagonal", "low_rank", "toeplitz", "kronecker", "gaussian"])
def test_more_loops_are_never_worse(name):
    A = positive_definite(60)[name]
    b = normal(60, 2)
    residuals = torch.stack(
        [relative_residuals(A, member(NARROW).solve(as_operator(A), b, num_loops=loops), b) for loops in range(1, 17)]
    )
    rounding = 1e-10  # of residuals that are all rounding, none is the best
    assert bool((residuals[1:] <= residuals[:-1] * (1 + 1e-9) + rounding).all())
    true = torch.linalg.eigvalsh(A)
    misses = [(member(NARROW).eigenvalues(as_operator(A), num_loops=loops)[0] - true).norm() for loops in (1, 4, 16)]
    assert misses[0] >= misses[1] >= misses[2]


def test_float32_reaches_what_float32_can_hold():
    A = conditioned(100, 1e4, dtype=torch.float32)
    b = normal(100, 3, dtype=torch.float32)
    x = member().solve(as_operator(A), b)
    exact = torch.linalg.solve(A.double(), b.double())
    # the answer of a backward stable solve in float64, rounded
    assert torch.linalg.vector_norm(x - exact) <= 1e-6 * torch.linalg.vector_norm(exact)
    assert torch.allclose(member().eigenvalues(as_operator(A))[0], torch.linalg.eigvalsh(A.double()).float(), rtol=1e-5)
    value, _ = member().logdet(as_operator(A))
    assert torch.allclose(value, torch.linalg.slogdet(A.double())[1], rtol=1e-7)


def test_refinement_removes_what_bad_scaling_costs():
    # as in west0479 of the Matrix Market: graded columns, and a solution much larger than its right-hand side
    A, b = normal(60, 60) * torch.logspace(0, -9, 60, dtype=torch.float64), normal(60, 1, seed=1)
    operator = as_operator(A)
    model = member()
    space = model.solution_space(as_operator(A), b)
    plain = relative_residuals(A, space.combine(space.minimal_residual(b)), b).max()
    assert relative_residuals(A, model.solve(operator, b), b).max() < 1e-13 < 1e-3 * plain
    # one loop, the residual, and one or two corrections
    assert 3 <= operator.reads.passes <= 4


def test_incomplete_logdet_is_as_good_as_it_says():
    A = kernel(300, lengthscale=0.1, noise=0.1)
    true = torch.linalg.slogdet(A)[1]
    for loops in (2, 4, 8):
        value, error = member(LearnedKrylovConfig(channels=16)).logdet(as_operator(A), num_loops=loops)
        assert abs(value - true) <= 4 * error
    assert error <= 0.05 * abs(true)


def test_singular_and_indefinite_are_said():
    zero = torch.zeros(30, 30, dtype=torch.float64)
    low_rank = normal(30, 3) @ normal(30, 3).mT
    negative = conditioned(30, 10) - 0.5 * torch.eye(30, dtype=torch.float64)
    values, _ = member().logdet(as_operator(torch.stack([zero, low_rank, negative])))
    assert values[:2].tolist() == [-torch.inf, -torch.inf]
    assert values[2].isnan()


def test_batch_is_the_loop_over_it():
    A = torch.stack([kernel(40), conditioned(40, 100), torch.eye(40, dtype=torch.float64)])
    b = normal(3, 40, 2)
    model = member(NARROW)
    solved = model.solve(as_operator(A), b)
    values, errors = model.eigenvalues(as_operator(A))
    logdets, _ = model.logdet(as_operator(A))
    for i in range(3):
        assert torch.allclose(solved[i], model.solve(as_operator(A[i]), b[i]), atol=1e-9)
        alone = model.eigenvalues(as_operator(A[i]))
        assert torch.allclose(values[i], alone[0], atol=1e-9)
        assert torch.allclose(errors[i], alone[1], atol=1e-9)
        assert torch.allclose(logdets[i], model.logdet(as_operator(A[i]))[0], atol=1e-9)


def test_permuting_rows_permutes_the_answer():
    A, b = kernel(40), normal(40, 1)
    order = torch.randperm(40, generator=seeded(1))
    model = member()
    solved = model.solve(as_operator(A), b)
    assert torch.allclose(model.solve(as_operator(A[order][:, order]), b[order]), solved[order])
    # with as many columns as right-hand sides nothing is random, and it holds before the space is complete
    plain = member(LearnedKrylovConfig(channels=1))
    solved = plain.solve(as_operator(A), b, num_loops=5)
    assert torch.allclose(plain.solve(as_operator(A[order][:, order]), b[order], num_loops=5), solved[order])


@pytest.mark.parametrize("factor", [2.0**40, 2.0**-40])
def test_scaling_the_matrix_scales_the_answers_bit_for_bit(factor):
    A, b = kernel(60), normal(60, 1)
    model = member(NARROW)
    assert torch.equal(model.solve(as_operator(factor * A), b) * factor, model.solve(as_operator(A), b))
    values, _ = model.eigenvalues(as_operator(A))
    assert torch.allclose(model.eigenvalues(as_operator(factor * A))[0], factor * values, rtol=1e-12)


def test_deterministic_and_seeded():
    A, b = kernel(60), normal(60, 1)
    model = member(NARROW)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = model.solve(as_operator(A), b)
    assert torch.equal(first, model.solve(as_operator(A), b))
    assert not torch.equal(first, model.solve(as_operator(A), b, generator=seeded(7)))
    assert torch.equal(state, torch.get_rng_state())


def test_many_right_hand_sides_widen_the_block():
    A = conditioned(50, 1e3)
    operator = as_operator(A)
    inverse = member(NARROW).solve(operator, torch.eye(50, dtype=torch.float64), num_loops=1)
    assert torch.allclose(inverse @ A, torch.eye(50, dtype=torch.float64), atol=1e-10)
    assert operator.reads.passes == 1
