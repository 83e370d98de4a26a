"""A left sketch takes the place of sampled rows where A is known through products alone, and is worth its price."""

import pytest
import scipy.sparse.linalg
import torch
from helpers import normal, seeded
from sketch_examples import haar, mean_excess, optimum, smooth

import rangeformer as rf
import sketching
from sketching.sketches.left_sketch import in_no_order, left_sketch


def by_products(A: torch.Tensor) -> scipy.sparse.linalg.LinearOperator:
    return scipy.sparse.linalg.aslinearoperator(A.numpy())


def excess_of(A: torch.Tensor, rank: int, **options) -> tuple[float, int]:
    """Mean over seeds of the excess error of the whole call, and the products of one."""
    found = []
    for seed in range(6):
        result = sketching.randomized_svd(by_products(A), rank, generator=seeded(seed), **options)
        U, S, Vh = result
        found.append(float(torch.linalg.matrix_norm(A - (U * S) @ Vh)) / optimum(A, rank) - 1)
    return sum(found) / len(found), result.num_matvecs


def test_rows_have_the_second_moment_of_the_matrix():
    A = normal(30, 8)
    G = normal(30, 5)
    operator = rf.as_operator(by_products(A))
    rows = left_sketch(operator, 5, seeded()).rows(torch.arange(5))
    torch.testing.assert_close(rows, G.mT @ A)
    assert (operator.reads.passes, operator.reads.matvecs, operator.reads.entries) == (1, 5, 0)
    many = left_sketch(operator, 40_000, seeded()).rows(torch.arange(40_000))
    torch.testing.assert_close(many.mT @ many / 40_000, A.mT @ A, rtol=0, atol=0.05 * float(A.square().sum()) / 8)


@pytest.mark.parametrize(("sketch", "looks"), [("rangeformer", 1), ("sampled-rows", 1), ("gaussian", 0), ("trig", 0)])
def test_only_laws_that_look_multiply_and_it_is_counted(sketch, looks):
    options = {"sketch": sketch, "num_power_iterations": 0}
    result = sketching.randomized_svd(by_products(smooth()), 20, **options)
    assert result.num_passes == 2 + looks
    assert result.num_matvecs == 30 + 10 + 30 + looks * 30
    assert result.num_entries == 0
    if looks:
        fewer = sketching.randomized_svd(by_products(smooth()), 20, max_rows=7, **options)
        assert fewer.num_matvecs == result.num_matvecs - 30 + 7


def test_is_worth_its_products():
    A, rank = smooth(150, 120), 20
    ours, spent = excess_of(A, rank, num_power_iterations=0)
    gaussian, allowed = excess_of(A, rank, num_power_iterations=0, sketch="gaussian", num_oversamples=25)
    assert spent <= allowed
    assert ours < 0.6 * gaussian
    # a half power iteration of as many products
    halves = []
    for seed in range(6):
        left = torch.linalg.qr(A @ (A.mT @ normal(150, 30, seed=seed))).Q
        kept = torch.linalg.svdvals(left.mT @ A)[:rank].square().sum()
        halves.append(float((A.square().sum() - kept).sqrt()) / optimum(A, rank) - 1)
    assert ours < 0.8 * sum(halves) / len(halves)


def test_the_law_itself_is_better_than_chance():
    A = smooth(150, 120)
    thin = left_sketch(rf.as_operator(A), 15, seeded(3)).rows(torch.arange(15))
    distribution = sketching.RangeFormerSketch()
    gaussian = mean_excess(A, sketching.Gaussian(), 20, 30, max_rows=15)
    omega = distribution.draw(rf.as_operator(thin), 30, max_rows=15, generator=seeded())
    Q = torch.linalg.qr(A @ omega).Q
    error = (A.square().sum() - torch.linalg.svdvals(Q.mT @ A)[:20].square().sum()).sqrt()
    assert float(error) / optimum(A, 20) - 1 < 0.5 * gaussian


def test_where_left_products_are_missing_nobody_asks_for_them():
    A = smooth(60, 60)
    found = sketching.range_finder((lambda vectors: A @ vectors, A.shape), 10)
    assert found.num_passes == 1
    with pytest.raises(NotImplementedError, match="cannot be multiplied from the left"):
        sketching.randomized_svd((lambda vectors: A @ vectors, A.shape), 10)


@pytest.mark.parametrize("rank", [1, 2])
def test_hostile_matrices(rank):
    zero = sketching.randomized_svd(by_products(torch.zeros(20, 10, dtype=torch.float64)), rank)
    assert torch.equal(zero.S, torch.zeros(rank, dtype=torch.float64))
    A = torch.outer(normal(20, 1)[:, 0], torch.ones(10, dtype=torch.float64))
    found = sketching.randomized_svd(by_products(A), rank, num_oversamples=0)
    assert float(found.S[0]) == pytest.approx(float(A.norm()))
    A[3, 4] = float("nan")
    with pytest.raises(ValueError, match="`A` must be finite"):
        sketching.randomized_svd(by_products(A), rank, num_oversamples=4)


def test_order_is_forgotten_and_nothing_else():
    omega = normal(40, 6) * torch.tensor([1, 1, 1, 1e-3, 1e-3, 1e-3], dtype=torch.float64)
    mixed = in_no_order(omega, seeded(1))
    torch.testing.assert_close(mixed @ mixed.mT, omega @ omega.mT)
    sizes = torch.linalg.vector_norm(mixed, dim=0)
    assert sizes.min() > 0.1 * sizes.max()


def test_auto_goes_on_while_passes_pay():
    A = haar(
        300, 200, power=0.5
    )  # in their order, the last columns say that nothing is to be gained for two of these seeds
    for seed in range(4):
        U, S, Vh = sketching.randomized_svd(by_products(A), 20, generator=seeded(seed))
        assert float(torch.linalg.matrix_norm(A - (U * S) @ Vh)) < 1.03 * optimum(A, 20)
