"""Moments of a spectrum from repeated products, against powers of the matrix itself."""

import torch
from helpers import normal, with_spectrum

from rangeformer.models.moments import Moments


def collected(A: torch.Tensor, num_reads: int) -> Moments:
    n = A.shape[-1]
    # a whole orthonormal basis makes every moment exact
    moments = Moments(torch.linalg.qr(normal(n, n)).Q)
    for _ in range(num_reads):
        moments.update(A @ moments.block)
    return moments


def test_ratios_are_those_of_traces_of_powers():
    eigenvalues = torch.logspace(-2, 1, 12, dtype=torch.float64)
    moments = collected(with_spectrum(eigenvalues), 4)
    traces = torch.stack([(eigenvalues**k).sum() for k in range(1, 9)])
    expected = (traces[1:] / traces[:-1]).log() - (traces[0] / 12).log()
    assert torch.allclose(moments.log_ratios(7), expected, rtol=1e-8)


def test_the_level_is_the_mean_eigenvalue_and_scales_with_the_matrix():
    A = with_spectrum(torch.linspace(1, 3, 10, dtype=torch.float64))
    assert torch.allclose(collected(A, 2).level(), torch.tensor(2.0, dtype=torch.float64))
    assert torch.allclose(collected(1e150 * A, 2).level(), torch.tensor(2e150, dtype=torch.float64))
    assert torch.allclose(collected(1e150 * A, 3).log_ratios(5), collected(A, 3).log_ratios(5))
