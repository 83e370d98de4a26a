"""Patterns of equal entries (Toeplitz, circulant, Hankel), of zeros (bands, blocks), and Cauchy matrices."""

import torch

from rangeformer.distributions.sampling import integer, log_uniform, normal, rand, uniform
from rangeformer.shapes import Float, Int, Tensor


def toeplitz(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = sum_m w_m exp(-a_m |i-j|) cos(omega_m (i-j)): autocovariance of a mixture of damped oscillations.

    Drawn: 1..4 terms, w ~ U[0.1, 1], a ~ U_log[2 / n, 0.5], omega ~ U[0, 1].
    """
    lag = torch.arange(n, dtype=dtype, device=generator.device)
    column = torch.zeros(n, dtype=dtype, device=generator.device)
    for _ in range(integer(generator, 1, 4)):
        decay, frequency = log_uniform(generator, 2 / n, 0.5), uniform(generator, 0, 1.0)
        column = column + uniform(generator, 0.1, 1) * (-decay * lag).exp() * (frequency * lag).cos()
    index = torch.arange(n, device=generator.device)
    return column[(index[:, None] - index).abs()]


def circulant(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = F^H diag(f) F, F the DFT, f_k = (1 + (k_ / w)^2)^-a + peak at k_ = p, k_ = min(k, n - k).

    Periodic covariance.

    Drawn: w ~ U_log[1, n / 2], a ~ U[0.5, 3], the peak in 0..n/2 of height U[0, 1].
    """
    frequency = torch.arange(n // 2 + 1, dtype=dtype, device=generator.device)
    width, power = log_uniform(generator, 1, max(2, n / 2)), uniform(generator, 0.5, 3)
    density = (1 + (frequency / width).square()).pow(-power)
    density[integer(generator, 0, n // 2)] += uniform(generator, 0, 1)
    return circulant_of(torch.fft.irfft(density.to(torch.complex128), n=n).to(dtype))


def circulant_of(column: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """A_ij = c_{(i - j) mod n}."""
    index = torch.arange(len(column), device=column.device)
    return column[(index[:, None] - index).remainder(len(column))]


def hankel_moments(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = sum_m w_m x_m^(i+j), i, j = 0, ..., n - 1: moments of a positive measure on [-1, 1].

    Drawn: 2 n points x = cos(pi u), weights w = exp(e).
    """
    points = (torch.pi * rand(2 * n, generator=generator, dtype=dtype)).cos()
    weights = normal(2 * n, generator=generator, dtype=dtype).exp()
    moments = (weights * points ** torch.arange(2 * n - 1, dtype=dtype, device=generator.device)[:, None]).sum(1)
    return hankel_of(moments)


def hankel_of(values: Float[Tensor, " k"]) -> Float[Tensor, "n n"]:
    """A_ij = h_{i + j}, from 2 n - 1 values."""
    index = torch.arange((len(values) + 1) // 2, device=values.device)
    return values[index[:, None] + index]


def cauchy_gram(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = 1 / (x_i + x_j), x > 0: positive definite (the Gram matrix of exp(-x_i t)), singular values fall fast.

    Drawn: x = exp(s e), s ~ U_log[0.3, 3].
    """
    points = (log_uniform(generator, 0.3, 3) * normal(n, generator=generator, dtype=dtype)).exp()
    return 1 / (points[:, None] + points)


def banded(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = L L^T, L_ii = 1 + |e|, L_ij = s e for 0 < i - j <= w, else 0: half-bandwidth w.

    Drawn: w ~ U_log[1, n / 4], s ~ U_log[0.1, 1].
    """
    width = max(1, int(log_uniform(generator, 1, max(2, n / 4))))
    root = normal(n, n, generator=generator, dtype=dtype) * log_uniform(generator, 0.1, 1)
    root = root.tril(-1).triu(-width)
    root.diagonal().copy_(1 + normal(n, generator=generator, dtype=dtype).abs())
    return root @ root.mT


def block_diagonal(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = diag(B_1, ..., B_k), B_p = exp(s e) X_p X_p^T, X_p square of Gaussian entries; blocks of different sizes.

    Drawn: k in 2..8 (at most n), ends of the blocks uniform, s ~ U[0, 2].
    """
    block = block_numbers(n, generator)
    entries = normal(n, n, generator=generator, dtype=dtype) * (block[:, None] == block)
    scales = (uniform(generator, 0, 2) / 2 * normal(n, generator=generator, dtype=dtype)).exp()[block]
    root = scales[:, None] * entries
    return root @ root.mT


def block_tridiagonal(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = L L^T, L_ij = e in the blocks (p, p) and s e in (p, p - 1), else 0: blocks coupled along a chain.

    Drawn: k in 2..8 blocks (at most n), ends uniform, s ~ U_log[0.1, 1].
    """
    block = block_numbers(n, generator)
    step = block[:, None] - block
    coupling = log_uniform(generator, 0.1, 1)
    root = normal(n, n, generator=generator, dtype=dtype) * ((step == 0).to(dtype) + coupling * (step == 1))
    return root @ root.mT


def block_numbers(n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """The number of each index's block: 2..8 of them, at most n, with ends at random places."""
    num_ends = integer(generator, 1, min(7, n - 1))
    ends = torch.randperm(n - 1, generator=generator, device=generator.device)[:num_ends] + 1
    starts = torch.zeros(n, dtype=torch.long, device=generator.device)
    starts[ends] = 1
    return starts.cumsum(0)
