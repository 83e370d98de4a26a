"""What every distribution of sketches must do."""

import pytest
import scipy.sparse
import torch
from helpers import normal, seeded
from sketch_examples import haar, mean_excess, smooth

import rangeformer as rf
import sketching
from sketching.arguments import SKETCHES

DISTRIBUTIONS = {name: make() for name, make in SKETCHES.items()} | {"by norm": sketching.SampledRowSpace("norm")}
OBLIVIOUS = ("gaussian", "sparse-sign", "trig")


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_a_finite_matrix_of_full_rank_in_the_dtype_of_the_matrix(name, dtype):
    operator = rf.as_operator(smooth(dtype=dtype))
    omega = DISTRIBUTIONS[name].draw(operator, 20, max_rows=12, generator=seeded())
    assert omega.dtype == dtype
    assert omega.shape == (120, 20)
    assert torch.linalg.matrix_rank(omega) == 20
    assert torch.equal(omega, DISTRIBUTIONS[name].draw(operator, 20, max_rows=12, generator=seeded()))
    assert not torch.equal(omega, DISTRIBUTIONS[name].draw(operator, 20, max_rows=12, generator=seeded(1)))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_global_generator_is_left_alone(name):
    state = torch.random.get_rng_state()
    DISTRIBUTIONS[name].draw(rf.as_operator(smooth()), 8, generator=seeded())
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("factor", [1e-150, 1e150])
def test_range_does_not_depend_on_the_scale_of_the_matrix(name, factor):
    A = smooth()
    first, second = (
        DISTRIBUTIONS[name].draw(rf.as_operator(B), 15, max_rows=40, generator=seeded()) for B in (A, factor * A)
    )
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("num_rows", [1, 2, 5, 30])
def test_reads_no_more_than_allowed(name, num_rows):
    operator = rf.as_operator(smooth())
    DISTRIBUTIONS[name].draw(operator, 20, max_rows=num_rows, generator=seeded())
    assert (operator.reads.passes, operator.reads.matvecs) == (0, 0)
    if name in OBLIVIOUS:
        assert operator.reads.entries == 0
    elif name == "by norm":
        assert operator.reads.entries == (90 + num_rows) * 120
    else:
        assert 0 < operator.reads.entries <= num_rows * 120


@pytest.mark.parametrize("name", OBLIVIOUS)
def test_oblivious_laws_keep_lengths_on_average(name):
    operator = rf.as_operator(torch.zeros(1, 64, dtype=torch.float64))
    x = normal(64)
    squares = [(DISTRIBUTIONS[name].draw(operator, 32, generator=seeded(s)).mT @ x).square().mean() for s in range(60)]
    assert 0.85 < float(torch.stack(squares).mean() / x.square().sum()) < 1.15


def test_sparse_sign_has_the_nonzeros_it_says():
    omega = sketching.SparseSign(3).draw(rf.as_operator(torch.ones(2, 50)), 10, generator=seeded())
    assert ((omega != 0).sum(-1) == 3).all()


def test_trig_columns_are_orthogonal():
    omega = sketching.SubsampledTrig().draw(rf.as_operator(torch.ones(2, 50).double()), 10, generator=seeded())
    torch.testing.assert_close(omega.mT @ omega, 50 * torch.eye(10, dtype=torch.float64))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_nothing_to_see_in_a_zero_matrix(name):
    omega = DISTRIBUTIONS[name].draw(rf.as_operator(torch.zeros(30, 20)), 6, generator=seeded())
    assert torch.linalg.matrix_rank(omega) == 6


def test_same_rows_whether_the_matrix_is_dense_or_sparse():
    A = smooth().numpy() * (smooth().numpy() > 0.2)
    for distribution in (DISTRIBUTIONS["rangeformer"], DISTRIBUTIONS["sampled-rows"]):
        dense, sparse = (
            distribution.draw(rf.as_operator(B), 12, generator=seeded()) for B in (A, scipy.sparse.csr_array(A))
        )
        torch.testing.assert_close(dense, sparse)


@pytest.mark.parametrize("max_rows", [24, 45])
def test_looking_first_beats_gaussian_and_the_rival_at_equal_reads(max_rows):
    A = smooth()
    gaussian, rival, ours = (
        mean_excess(A, DISTRIBUTIONS[name], 20, 30, max_rows=max_rows)
        for name in ("gaussian", "sampled-rows", "rangeformer")
    )
    assert ours < 0.5 * gaussian
    assert ours < 0.9 * rival


def test_no_gain_where_singular_vectors_are_random():
    A = haar()
    gaussian, rival, ours = (
        mean_excess(A, DISTRIBUTIONS[name], 20, 30, max_rows=30) for name in ("gaussian", "sampled-rows", "rangeformer")
    )
    assert 0.9 * rival < ours < 1.05 * max(gaussian, rival)


def test_finds_a_few_huge_rows_that_it_has_not_read():
    A = smooth(200, 120)
    A[[17, 101, 102]] += 1e3 * normal(3, 120)
    gaussian, ours = (
        mean_excess(A, DISTRIBUTIONS[name], 20, 30, max_rows=24, seeds=4) for name in ("gaussian", "rangeformer")
    )
    assert ours < 1.05 * gaussian


def test_products_alone_give_a_gaussian_sketch():
    A = smooth()
    operator = rf.as_operator((lambda v: A @ v, (90, 120)))
    omega = DISTRIBUTIONS["rangeformer"].draw(operator, 8, generator=seeded())
    assert torch.equal(omega, DISTRIBUTIONS["gaussian"].draw(operator, 8, generator=seeded()))
    with pytest.raises(NotImplementedError, match="rows cannot be read"):
        DISTRIBUTIONS["sampled-rows"].draw(operator, 8, generator=seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sketching.SparseSign(0), "`num_nonzeros` must be an integer >= 1"),
        (lambda: sketching.SampledRowSpace("leverage"), "`distribution` must be one of"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lift_of_a_wrong_type():
    with pytest.raises(TypeError, match="`random_features` must be a sketching.RandomFeatures"):
        sketching.RangeFormerSketch("weights")  # pyright: ignore[reportArgumentType]
