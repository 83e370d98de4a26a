"""What is learned in the Galerkin member: nothing at first, and whatever it is, no answer gets wrong by it."""

import torch
from helpers import conditioned, convergence_warnings_ignored, kernel, normal, relative_residuals, seeded

from rangeformer.krylov.projections import jacobi_scale
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel
from rangeformer.models.tokens import NUM_FEATURES, Tokens, read_tokens
from rangeformer.operators import as_operator

CONFIG = LearnedKrylovConfig(channels=8, num_loops=4)


def trained_at_random(seed: int = 0) -> LearnedKrylovModel:
    model = LearnedKrylovModel(CONFIG, generator=seeded(seed))
    with torch.no_grad():
        model.directions.weight.normal_(generator=seeded(seed + 1))
    return model.requires_grad_(False).eval()


def tokens(A: torch.Tensor, rhs: torch.Tensor, **options) -> Tokens:
    operator = as_operator(A)
    scale = jacobi_scale(operator)
    assert scale is not None
    return read_tokens(operator, rhs, scale, num_columns=12, num_channels=8, generator=seeded(), **options)


def test_untrained_reads_nothing_and_does_not_depend_on_its_weights():
    A, b = kernel(60), normal(60, 1)
    operator = as_operator(A)
    first, other = LearnedKrylovModel.untrained(CONFIG), LearnedKrylovModel(CONFIG, generator=seeded(9)).eval()
    answer = first.solve(operator, b)
    assert operator.reads.entries == 60
    with torch.no_grad():
        assert torch.equal(answer, other.solve(as_operator(A), b))
    # with gradients the tokens are read, but say nothing yet
    assert torch.allclose(answer, other.requires_grad_(True).solve(as_operator(A), b).detach(), atol=1e-10)


def test_gradients_reach_every_weight_that_can_matter():
    model = LearnedKrylovModel(CONFIG, generator=seeded())
    with torch.no_grad():
        model.directions.weight.normal_(generator=seeded(1))
    b = normal(60, 1)
    space = model.solution_space(as_operator(kernel(60)), b)
    space.residual_norms(b).log().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name
    assert bool(model.embed.weight.grad.any())


def test_a_complete_space_is_exact_and_reads_no_columns_whatever_was_learned():
    A, x = conditioned(30, 1e3), normal(30, 2)
    operator = as_operator(A)
    solved = trained_at_random().solve(operator, A @ x)
    assert torch.allclose(solved, x, atol=1e-9)
    assert operator.reads.entries == 30


def test_a_bad_proposal_is_still_no_worse_than_the_krylov_space_of_the_rhs():
    A, b = kernel(100, lengthscale=0.1), normal(100, 1)
    alone = LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=1))
    for loops in (1, 2, 4, 8):
        bad = trained_at_random().solve(as_operator(A), b, num_loops=loops)
        floor = alone.solve(as_operator(A), b, num_loops=loops)
        assert relative_residuals(A, bad, b) <= relative_residuals(A, floor, b) * (1 + 1e-9)


def test_columns_are_counted_and_products_alone_fall_back_to_the_classical_start():
    A, b = kernel(100), normal(100, 1)
    operator = as_operator(A)
    model = trained_at_random()
    model.solve(operator, b, num_loops=2)
    assert (operator.reads.passes, operator.reads.entries) == (2, 100 + 24 * 100)
    products = as_operator((lambda v: A @ v, (100, 100)))
    with convergence_warnings_ignored():
        answer = model.solve(products, b, num_loops=2)
    assert torch.equal(answer, LearnedKrylovModel.untrained(CONFIG).solve(products, b, num_loops=2))


def test_batch_is_the_loop_over_it():
    A, b = torch.stack([kernel(60), conditioned(60, 100)]), normal(2, 60, 2)
    together = trained_at_random().solve(as_operator(A), b, num_loops=3)
    for i in range(2):
        # the tokens' attention runs in float32
        assert torch.allclose(together[i], trained_at_random().solve(as_operator(A[i]), b[i], num_loops=3), atol=1e-3)


def test_tokens_know_neither_the_scale_of_the_matrix_nor_that_of_the_rhs():
    A, b = kernel(50), normal(50, 2)
    seen, scaled = tokens(A, b), tokens(1e6 * A, 1e-3 * b)
    assert seen.features.shape == (50, NUM_FEATURES)
    assert torch.allclose(seen.features, scaled.features, atol=1e-9)
    assert torch.allclose(seen.channels.abs(), scaled.channels.abs(), atol=1e-6)


def test_tokens_are_finite_where_there_is_nothing_to_see():
    for A in (torch.eye(20, dtype=torch.float64), torch.ones(20, 20, dtype=torch.float64), torch.eye(5).double()):
        seen = tokens(A, torch.zeros(A.shape[0], 1, dtype=torch.float64))
        assert bool(seen.features.isfinite().all())
        assert bool(seen.channels.isfinite().all())
