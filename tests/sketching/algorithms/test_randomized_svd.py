import numpy as np
import pytest
import scipy.sparse
import torch

import sketching


def decaying(m=120, n=80, *, power=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    U = torch.linalg.qr(torch.randn(m, n, generator=generator, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    S = torch.arange(1, n + 1, dtype=torch.float64) ** -power
    return ((U * S) @ V.mT).to(dtype), S


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_matches_the_dense_svd_once_the_spectrum_allows():
    A, S = decaying(power=3.0)
    low_rank = sketching.randomized_svd(A, 8, num_power_iterations=2, generator=generator())
    assert torch.allclose(low_rank.S, S[:8], rtol=1e-8)
    identity = torch.eye(8, dtype=A.dtype)
    assert torch.allclose(low_rank.U.mT @ low_rank.U, identity, atol=1e-12)
    assert torch.allclose(low_rank.Vh @ low_rank.Vh.mT, identity, atol=1e-12)


def test_without_power_iterations_a_slow_spectrum_is_missed():
    A, S = decaying(power=0.5)
    low_rank = sketching.randomized_svd(A, 8, num_power_iterations=0, sketch="gaussian", generator=generator())
    error = torch.linalg.matrix_norm(A - (low_rank.U * low_rank.S) @ low_rank.Vh)
    assert error > 1.02 * S[8:].square().sum().sqrt()


@pytest.mark.parametrize("num_power_iterations", [0, 1])
def test_error_estimate_tells_the_truth(num_power_iterations):
    A, _ = decaying(power=1.0)
    ratios = []
    for seed in range(20):
        low_rank = sketching.randomized_svd(A, 10, num_power_iterations=num_power_iterations, generator=generator(seed))
        error = torch.linalg.matrix_norm(A - (low_rank.U * low_rank.S) @ low_rank.Vh)
        ratios.append(low_rank.relative_error / float(error / torch.linalg.matrix_norm(A)))
    assert 0.8 < np.mean(ratios) < 1.25
    assert max(ratios) < 1.5
    assert min(ratios) > 0.6


@pytest.mark.parametrize("num_power_iterations", [0, 2])
def test_counts_every_pass(num_power_iterations):
    A, _ = decaying()
    low_rank = sketching.randomized_svd(A, 5, num_power_iterations=num_power_iterations)
    assert low_rank.num_passes == 2 + 2 * num_power_iterations
    num_test_vectors = 10
    assert low_rank.num_matvecs == 15 * low_rank.num_passes + num_test_vectors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_dtype_and_seed(dtype):
    A, _ = decaying(dtype=dtype)
    first, second = (sketching.randomized_svd(A, 4, generator=generator(7)) for _ in range(2))
    assert first.U.dtype == first.S.dtype == first.Vh.dtype == dtype
    assert torch.equal(first.U, second.U)


def test_reads_numpy_and_sparse():
    A, _ = decaying()
    expected = sketching.randomized_svd(A, 4, generator=generator()).S
    for other in (A.numpy(), scipy.sparse.csr_array(A.numpy())):
        assert torch.allclose(sketching.randomized_svd(other, 4, generator=generator()).S, expected)


def test_zero_matrix():
    low_rank = sketching.randomized_svd(torch.zeros(20, 10), 3)
    assert torch.equal(low_rank.S, torch.zeros(3))
    assert low_rank.relative_error == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(4, 3), 4), "`rank` must be at most"),
        ((torch.ones(4, 3), 0), "`rank` must be an integer >= 1"),
        ((torch.ones(2, 4, 3), 1), "`A` must be one matrix"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        sketching.randomized_svd(*arguments)
