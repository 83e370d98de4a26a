import pytest
import torch
from helpers import normal, seeded
from sketch_examples import smooth

import rangeformer as rf
from sketching.sketches.base import default_max_rows
from sketching.sketches.reading import stratified_rows, uniform_rows


@pytest.mark.parametrize(
    ("m", "n", "rank", "expected"),
    [
        (1000, 50, 10, 100),
        (100, 50, 10, 40),
        (60, 50, 40, 30),
        (1, 1, 1, 1),
        (2, 1, 1, 1),
        (1000, 600, 10, 44),
        (2000, 2000, 40, 160),
    ],
)
def test_default_is_four_ranks_or_a_tenth_and_never_more_than_half_and_what_time_allows(m, n, rank, expected):
    assert default_max_rows(rf.as_operator(torch.ones(m, n)), rank) == expected


@pytest.mark.parametrize("max_rows", [1, 7, 24, 25, 60, 100])
def test_rows_are_distinct_and_one_from_each_stratum(max_rows):
    A = normal(200, 30)
    sample = stratified_rows(rf.as_operator(A), max_rows, seeded())
    assert len(sample.index.unique()) == len(sample.index)
    assert 0.9 * max_rows <= len(sample.index) <= max_rows
    if max_rows <= 24:
        assert torch.equal(sample.index * max_rows // 200, torch.arange(max_rows))


def test_stops_reading_when_the_first_rows_show_that_there_is_no_more():
    A = normal(300, 4) @ normal(4, 90, seed=1)
    operator = rf.as_operator(A)
    assert len(stratified_rows(operator, 120, seeded()).index) == 24
    assert operator.reads.entries == 24 * 90
    assert len(stratified_rows(rf.as_operator(normal(300, 90)), 120, seeded()).index) > 100


def test_sizes_of_rows_are_learned_from_columns_where_few_rows_carry_the_energy():
    A = smooth(400, 300)
    heavy = torch.randperm(400, generator=seeded(3))[:20]
    A[heavy] *= 100
    operator = rf.as_operator(A)
    sample = stratified_rows(operator, 100, seeded(1))
    assert sample.num_columns_read > 0
    assert operator.reads.entries <= 100 * 300
    found = torch.isin(heavy, sample.index).sum()
    assert found >= 14
    assert torch.isin(heavy, uniform_rows(rf.as_operator(A), 100, seeded(1)).index).sum() < 12


@pytest.mark.parametrize("factor", [1.0, 30.0])
def test_weighted_rows_estimate_the_gram_matrix(factor):
    A = smooth(400, 300)
    heavy = torch.randperm(400, generator=seeded(3))[:20]
    A[heavy] *= factor
    grams, num_columns_read = torch.zeros(300, 300, dtype=torch.float64), 0
    for seed in range(40):
        sample = stratified_rows(rf.as_operator(A), 100, seeded(seed))
        num_columns_read += sample.num_columns_read
        grams += sample.rows.mT @ sample.rows / sample.rows.square().sum() / 40
    truth = A.mT @ A / A.square().sum()
    assert (num_columns_read > 20) == (factor > 1)
    assert torch.linalg.matrix_norm(grams - truth) < 0.05 * torch.linalg.matrix_norm(truth)


@pytest.mark.parametrize("max_rows", [30, 31])
def test_everything_is_read_once_where_that_is_allowed(max_rows):
    A = normal(30, 8)
    operator = rf.as_operator(A)
    sample = stratified_rows(operator, max_rows, seeded())
    assert sample.index.tolist() == list(range(30))
    torch.testing.assert_close(sample.rows * float(A.abs().max()), A)
    assert operator.reads.entries == A.numel()
