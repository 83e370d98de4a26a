"""Distributions of square unsymmetric matrices, each a function of (n, generator, dtype)."""

import math

import torch

from rangeformer.distributions.elements import second_difference
from rangeformer.distributions.patterns import circulant_of
from rangeformer.distributions.sampling import integer, laplace, log_uniform, normal, rand, uniform
from rangeformer.shapes import Tensor


def gaussian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A of independent entries.

    Drawn: A_ij ~ N(0, 1).
    """
    return normal(n, n, generator=generator, dtype=dtype)


def laplace_entries(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A of independent entries.

    Drawn: A_ij of density exp(-|x|) / 2.
    """
    return laplace(n, n, generator=generator, dtype=dtype)


def uniform_entries(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A of independent entries.

    Drawn: A_ij ~ U[-1, 1].
    """
    return 2 * rand(n, n, generator=generator, dtype=dtype) - 1


def unsymmetric_toeplitz(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = c_{i-j}, c_k = e (1 + |k|)^-a, k = 1 - n, ..., n - 1.

    Drawn: a ~ U[0, 2].
    """
    lag = torch.arange(1 - n, n, dtype=dtype, device=generator.device)
    values = normal(2 * n - 1, generator=generator, dtype=dtype) * (1 + lag.abs()).pow(-uniform(generator, 0, 2))
    index = torch.arange(n, device=generator.device)
    return values[index[:, None] - index + n - 1]


def unsymmetric_circulant(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = c_{(i - j) mod n}, c_k = e (1 + k)^-a.

    Drawn: a ~ U[0, 2].
    """
    lag = torch.arange(n, dtype=dtype, device=generator.device)
    return circulant_of(normal(n, generator=generator, dtype=dtype) * (1 + lag).pow(-uniform(generator, 0, 2)))


def cauchy(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_ij = 1 / (x_i - y_j): interleaved points, or points of two intervals apart; diag(x) A - A diag(y) = 1 1^T.

    Drawn: x_i = i + 0.2 u, y_j = j + 1/2 + 0.2 u (well conditioned), or x ~ U[0, 1], y ~ -g - U[0, 1], g ~ U_log[1e-2,
    1].
    """
    left, right = rand(2, n, generator=generator, dtype=dtype)
    if integer(generator, 0, 1):
        index = torch.arange(n, dtype=dtype, device=generator.device)
        return 1 / ((index + 0.2 * left)[:, None] - (index + 0.5 + 0.2 * right))
    return 1 / (left[:, None] + right + log_uniform(generator, 1e-2, 1))


def convection_diffusion(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = upwind five-point differences of -Laplace(u) + v . grad(u), fixed edges, a grid cut to n nodes.

    Drawn: v of length U_log[0.1, 100] per cell, in a random direction.
    """
    side = math.ceil(n**0.5)
    speed, angle = log_uniform(generator, 0.1, 100), uniform(generator, 0, 2 * math.pi)
    along = second_difference(side, generator.device, dtype, speed * math.cos(angle))
    across = second_difference(side, generator.device, dtype, speed * math.sin(angle))
    identity = torch.eye(side, dtype=dtype, device=generator.device)
    return (torch.kron(along, identity) + torch.kron(identity, across))[:n, :n]


def companion(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A_1j = -c_j, A_{i+1, i} = 1, else 0: eigenvalues are the roots of z^n + c_1 z^(n-1) + ... + c_n.

    Drawn: c_j = e (1 + j)^-a, a ~ U[0, 1].
    """
    index = torch.arange(n, dtype=dtype, device=generator.device)
    matrix = torch.zeros(n, n, dtype=dtype, device=generator.device)
    matrix.diagonal(-1).fill_(1)
    matrix[0] = -normal(n, generator=generator, dtype=dtype) * (2 + index).pow(-uniform(generator, 0, 1))
    return matrix


def sparse_dominant(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = S + diag(+-(a sum_j |S_ij| + t)), S sparse Gaussian with zero diagonal, t = mean row sum / 10.

    Drawn: entries of S kept with probability U_log[2 / n, 0.3], a ~ U[1, 2], random signs.
    """
    density = log_uniform(generator, min(0.3, 2 / n), 0.3)
    sparse = normal(n, n, generator=generator, dtype=dtype)
    sparse = sparse * (rand(n, n, generator=generator, dtype=dtype) < density)
    sparse.fill_diagonal_(0)
    sums = sparse.abs().sum(1)
    signs = torch.where(rand(n, generator=generator, dtype=dtype) < 0.5, -1.0, 1.0).to(dtype)
    return sparse + torch.diag(signs * (uniform(generator, 1, 2) * sums + sums.mean() / 10))


def nonnormal(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A = Q (diag(d) + s N) Q^T, Q Haar, d ~ N(0, 1), N strictly upper triangular Gaussian / sqrt(n).

    Drawn: s ~ U_log[0.1, 10].
    """
    basis, _ = torch.linalg.qr(normal(n, n, generator=generator, dtype=dtype))
    upper = normal(n, n, generator=generator, dtype=dtype).triu(1) * log_uniform(generator, 0.1, 10) / n**0.5
    return basis @ (upper + torch.diag(normal(n, generator=generator, dtype=dtype))) @ basis.mT
