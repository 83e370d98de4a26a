"""Which earlier rows a row leans on, against a search by sorting."""

import pytest
import torch
from helpers import kernel, normal, seeded
from hypothesis import given, settings
from hypothesis import strategies as st

import rangeformer.preconditioners.neighbors as neighbors_module
from rangeformer.operators import as_operator
from rangeformer.preconditioners.neighbors import gather_rows, nearest_earlier, strongest
from rangeformer.preconditioners.pivoted import pivoted_cholesky


def nearest_earlier_naive(tokens: torch.Tensor, order: list[int], k: int) -> list[set[int]]:
    """Sort the distances of every row to those before it."""
    found: list[set[int]] = [set() for _ in order]
    for place, row in enumerate(order):
        earlier = order[:place]
        earlier = sorted(earlier, key=lambda j: float(torch.linalg.vector_norm(tokens[row] - tokens[j])))
        found[row] = set(earlier[:k])
    return found


def as_sets(neighbors: torch.Tensor) -> list[set[int]]:
    return [{j for j in row if j >= 0} for row in neighbors.tolist()]


def permutation(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randperm(n, generator=seeded(seed))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 50), seed=st.integers(0, 1000))
def test_nearest_earlier_is_the_sorted_search(n, k, seed):
    tokens, order = normal(n, 3, seed=seed), permutation(n, seed)
    found = nearest_earlier(tokens, order, k)
    assert as_sets(found) == nearest_earlier_naive(tokens, order.tolist(), k)


@pytest.mark.parametrize("chunk", [1, 100, 1000])
def test_chunks_do_not_matter(chunk, monkeypatch):
    tokens, order = normal(60, 4), permutation(60)
    whole = nearest_earlier(tokens, order, 5)
    monkeypatch.setattr(neighbors_module, "_CHUNK", chunk)
    assert as_sets(nearest_earlier(tokens, order, 5)) == as_sets(whole)


def test_batch_is_a_loop_over_the_batch():
    tokens = normal(2, 3, 30, 4)
    order = torch.stack([permutation(30, s) for s in range(6)]).view(2, 3, 30)
    batch = nearest_earlier(tokens, order, 4)
    for i in range(2):
        for j in range(3):
            assert as_sets(batch[i, j]) == as_sets(nearest_earlier(tokens[i, j], order[i, j], 4))


def test_nobody_leans_on_himself_or_on_a_later_row():
    order = permutation(50)
    place = torch.empty(50, dtype=torch.long).scatter_(0, order, torch.arange(50))
    found = nearest_earlier(torch.zeros(50, 2).double(), order, 6)
    for row, others in enumerate(as_sets(found)):
        assert all(place[j] < place[row] for j in others)
        assert len(others) == min(6, int(place[row]))


def test_strongest_keeps_the_largest_residual_correlations(monkeypatch, generator):
    A = kernel(40)
    pivoted = pivoted_cholesky(as_operator(A), 6, generator=generator)
    residual = A - pivoted.factor @ pivoted.factor.mT
    diagonal = pivoted.residual_diagonal + 1e-3
    candidates = nearest_earlier(normal(40, 2), permutation(40), 12)
    score = residual.square() / diagonal.outer(diagonal)
    expected = [set(sorted(c, key=lambda j, i=i: -float(score[i, j]))[:5]) for i, c in enumerate(as_sets(candidates))]
    # a pivot's own residual row is zero but for rounding: nothing to rank
    ranked = [i for i in range(40) if i not in pivoted.pivots.tolist()]
    operator = as_operator(A)
    found = as_sets(strongest(operator, pivoted.factor, diagonal, candidates, 5))
    assert operator.reads.entries == 40 * 12
    monkeypatch.setattr(neighbors_module, "_CHUNK", 1)
    in_chunks = as_sets(strongest(operator, pivoted.factor, diagonal, candidates, 5))
    for i in ranked:
        assert found[i] - set(pivoted.pivots.tolist()) == in_chunks[i] - set(pivoted.pivots.tolist())
        assert found[i] - set(pivoted.pivots.tolist()) == expected[i] - set(pivoted.pivots.tolist())


def test_strongest_of_few_keeps_all():
    candidates = nearest_earlier(normal(10, 2), permutation(10), 3)
    kept = strongest(as_operator(kernel(10)), torch.zeros(10, 1).double(), torch.ones(10).double(), candidates, 3)
    assert torch.equal(kept, candidates)


def test_gather_rows():
    table, index = normal(2, 3, 10, 4), torch.randint(0, 10, (2, 3, 5, 2), generator=seeded())
    expected = torch.stack([torch.stack([table[i, j][index[i, j]] for j in range(3)]) for i in range(2)])
    assert torch.equal(gather_rows(table, index), expected)
    assert torch.equal(gather_rows(table[0, 0], index[0, 0]), expected[0, 0])
