"""Einsum-structured matrices have the ranks that define them, and their naive sums."""

import pytest
import torch

from rangeformer.distributions import DISTRIBUTIONS
from rangeformer.distributions.einsum import (
    ZEROS,
    block_tensor_train,
    factorisation,
    kronecker_product,
    low_rank_product,
    monarch,
    sparse_factor,
    tensor_train,
    two_stage,
)
from tests.helpers import seeded


def rank(matrix: torch.Tensor) -> int:
    return int(torch.linalg.matrix_rank(matrix))


def modes_of(n: int, parts: int, seed: int) -> list[int]:
    """The factorisation that a distribution of two parts draws first."""
    return factorisation(n, parts, seeded(seed))


@pytest.mark.parametrize("n", [2, 3, 4, 7, 12, 31, 36, 60, 64])
@pytest.mark.parametrize("parts", [2, 3])
def test_factorisations_cover_n_and_are_exact_where_they_can_be(n, parts):
    for seed in range(5):
        sizes = factorisation(n, parts, seeded(seed))
        product = int(torch.tensor(sizes).prod())
        assert len(sizes) == parts
        assert n <= product < 2 * n + 2
        if parts == 2 and n in (4, 12, 36, 60, 64):
            assert product == n
            assert min(sizes) > 1


def test_factorisations_vary():
    assert len({tuple(factorisation(60, 2, seeded(seed))) for seed in range(20)}) > 3


@pytest.mark.parametrize("seed", range(4))
def test_kronecker_products_are_of_rank_one_after_rearrangement(seed):
    p, q = modes_of(24, 2, seed)
    matrix = kronecker_product(24, seeded(seed), torch.float64)
    assert rank(matrix.reshape(p, q, p, q).transpose(1, 2).reshape(p * p, q * q)) == 1


def test_gram_of_a_kronecker_product_is_the_product_of_grams():
    generator = seeded(1)
    p, q = factorisation(24, 2, generator)
    first = sparse_factor(p, p, generator=generator, dtype=torch.float64)
    second = sparse_factor(q, q, generator=generator, dtype=torch.float64)
    expected = torch.kron(first @ first.mT, second @ second.mT)
    torch.testing.assert_close(DISTRIBUTIONS["einsum_kronecker"](24, seeded(1), torch.float64), expected)


@pytest.mark.parametrize("seed", range(6))
def test_tensor_trains_have_the_rank_of_their_bond(seed):
    generator = seeded(seed)
    parts = int(torch.randint(2, 4, (), generator=generator))
    modes = factorisation(36, parts, generator)
    matrix = tensor_train(36, seeded(seed), torch.float64)
    p, q = modes[0], 36 // modes[0]
    unfolded = matrix.reshape(p, q, p, q).transpose(1, 2).reshape(p * p, q * q)
    assert rank(unfolded) <= 4
    assert rank(matrix) > 4


@pytest.mark.parametrize(("build", "least", "largest"), [(monarch, 1, 1), (block_tensor_train, 2, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_have_rank_one_in_monarch_and_two_or_three_in_block_tensor_trains(build, least, largest, seed):
    p, q = modes_of(24, 2, seed)
    blocks = build(24, seeded(seed), torch.float64).reshape(q, p, p, q).permute(0, 3, 1, 2)
    top = max(rank(block) for row in blocks for block in row)
    assert min(p, least) <= top <= largest


def test_two_stages_are_their_naive_sum():
    p, q, r = 3, 2, 2
    matrix = two_stage((p, q), r, seeded(), torch.float64)
    generator = seeded()
    left = sparse_factor(q, q, p, r, generator=generator, dtype=torch.float64)
    right = sparse_factor(p, q, q, r, generator=generator, dtype=torch.float64)
    naive = torch.zeros(p * q, p * q, dtype=torch.float64)
    for i in range(q):
        for j in range(p):
            for k in range(p):
                for l in range(q):
                    naive[i * p + j, k * q + l] = sum(left[l, i, j, s] * right[k, l, i, s] for s in range(r))
    torch.testing.assert_close(matrix, naive)


def test_monarch_is_two_block_diagonal_matrices_and_two_permutations():
    p, q = 4, 3
    matrix = two_stage((p, q), 1, seeded(), torch.float64)
    generator = seeded()
    left = sparse_factor(q, q, p, 1, generator=generator, dtype=torch.float64)[..., 0]
    right = sparse_factor(p, q, q, 1, generator=generator, dtype=torch.float64)[..., 0]
    vector = torch.randn(p * q, generator=seeded(3), dtype=torch.float64)
    # group k of the input goes through R_k: z_{k l} -> (k, i, l); summed over k with weights L
    inner = torch.einsum("klij,kl->lij", torch.einsum("lij,kli->klij", left, right), vector.reshape(p, q))
    torch.testing.assert_close(matrix @ vector, inner.sum(0).reshape(-1))


def test_low_rank_products_are():
    for seed in range(4):
        assert rank(low_rank_product(20, seeded(seed), torch.float64)) <= 10


def test_a_fifth_of_a_factor_is_zero():
    zeros = (sparse_factor(400, 400, generator=seeded(), dtype=torch.float64) == 0).double().mean()
    assert zeros.item() == pytest.approx(ZEROS, abs=0.01)


@pytest.mark.parametrize("law", [law for law in DISTRIBUTIONS if law.startswith("einsum_")])
def test_never_zero_at_the_smallest_sizes(law):
    for seed in range(100):
        assert DISTRIBUTIONS[law](2, seeded(seed), torch.float64).diagonal().sum() > 0
